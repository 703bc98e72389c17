//! Reading trees from the top down.
//!
//! The three walks here hold no blocks and fetch none. Each says which block it wants next and is supplied with it; what
//! the block holds comes back at once. [`resolve`], [`list`] and [`read_file`] do that with blocks that can be had without
//! waiting. An identity CID holds its block in itself ([`Block::from_identity`]); the three functions see to that.
//!
//! A block alone is checked by [`Node::decode`]; here is checked whether blocks fit together. However blocks link to each
//! other, a walk ends: each block of a file adds bytes to it, and each shard of a HAMT has an entry that can be nowhere
//! else. So the number of blocks that a walk wants is at most a small multiple of what it gives; how much that may be is
//! for the caller to decide, who can stop at any time.

use bytes::Bytes;

use super::super::block::{Block, Cid};
use super::hamt::{Fanout, hash_name};
use super::node::ShardTarget;
use super::{Entry, EntryName, FileNode, NameError, Node, NodeError, Shard};

/// The most levels of a file's DAG. A balanced one of 2^64 bytes in pieces of 256 KiB has eight, a trickle one of 174
/// links some more.
pub const FILE_DEPTH_MAX: usize = 32;

/// The most links that wait to be followed while a file is read: more than two nodes as wide as a block of 2 MiB allows
/// with SHA2-256. It bounds the memory of a walk to some 24 MiB; Kubo's files stay under 4,096.
pub const PENDING_LINKS_MAX: usize = 128 * 1024;

/// Why a tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A walk was supplied with another block than it wants.
    #[error("block {cid} was not asked for")]
    NotWanted {
        /// The block.
        cid: Box<Cid>,
    },
    /// A block is not UnixFS.
    #[error("block {cid} is not valid UnixFS")]
    Node {
        /// The block.
        cid: Box<Cid>,
        /// What is wrong with it.
        #[source]
        source: NodeError,
    },
    /// Something else than a file, where one is wanted.
    #[error("{cid} is not a file")]
    NotAFile {
        /// The block.
        cid: Box<Cid>,
    },
    /// Something else than a directory, where one is wanted.
    #[error("{cid} is not a directory")]
    NotADirectory {
        /// The block.
        cid: Box<Cid>,
    },
    /// A part of a file is not as long as its parent says.
    #[error("{cid} has {actual} bytes of content, but its parent says {expected}")]
    PartSize {
        /// The part's block.
        cid: Box<Cid>,
        /// What the parent says.
        expected: u64,
        /// What the part says.
        actual: u64,
    },
    /// A file has more than [`FILE_DEPTH_MAX`] levels, or a HAMT more than its hash has bits for.
    #[error("too many levels of blocks at {cid}")]
    TooDeep {
        /// The first block beyond.
        cid: Box<Cid>,
    },
    /// More than [`PENDING_LINKS_MAX`] links.
    #[error("too many links at {cid}")]
    TooManyLinks {
        /// The block with the link that is too much.
        cid: Box<Cid>,
    },
    /// A shard of a HAMT does not belong where it is linked: it is empty or has another fanout than its parent.
    #[error("HAMT shard {cid} does not fit its parent")]
    MisplacedShard {
        /// The shard.
        cid: Box<Cid>,
    },
    /// An entry of a HAMT is not where the hash of its name tells.
    #[error("entry `{name}` of HAMT shard {cid} is in the wrong bucket")]
    MisplacedEntry {
        /// The shard.
        cid: Box<Cid>,
        /// The entry.
        name: EntryName,
    },
    /// A path leads to an entry that is not there.
    #[error("no entry `{name}` in directory {directory}")]
    NotFound {
        /// The directory's root, not the shard of a HAMT.
        directory: Box<Cid>,
        /// The entry's name.
        name: EntryName,
    },
    /// A path has a part that cannot be a name.
    #[error("malformed path")]
    Path(#[source] NameError),
}

fn decode<'a>(wanted: Option<&Cid>, block: &'a Block) -> Result<Node<'a>, WalkError> {
    let cid = || Box::new(*block.cid());
    if wanted != Some(block.cid()) {
        return Err(WalkError::NotWanted { cid: cid() });
    }
    Node::decode(block).map_err(|source| WalkError::Node { cid: cid(), source })
}

/// Reads a file's content in order.
#[derive(Clone, Debug)]
pub struct FileWalk {
    /// What is still to be read; the next part is the last.
    pending: Vec<FilePending>,
    /// How many bytes of content to leave out from here on.
    skip: u64,
    size: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct FilePending {
    cid: Cid,
    /// What the parent says; `None` for the root.
    size: Option<u64>,
    depth: usize,
}

impl FileWalk {
    /// A walk through all of the file.
    pub fn new(root: Cid) -> Self {
        Self::from_offset(root, 0)
    }

    /// A walk from a byte of the content on. Parts that lie before it are not wanted, so they are not checked.
    pub fn from_offset(root: Cid, offset: u64) -> Self {
        Self { pending: vec![FilePending { cid: root, size: None, depth: 0 }], skip: offset, size: None }
    }

    /// The block to supply next; `None` at the end of the file.
    pub fn wanted(&self) -> Option<&Cid> {
        self.upcoming().next()
    }

    /// The blocks that will be wanted, in order, as far as it is known: some of their parents may still be missing.
    pub fn upcoming(&self) -> impl Iterator<Item = &Cid> {
        self.pending.iter().rev().map(|pending| &pending.cid)
    }

    /// Those of [`FileWalk::upcoming`] that are needed for the next so many bytes of content; at least one where there is
    /// one.
    pub fn ahead(&self, bytes: u64) -> impl Iterator<Item = &Cid> {
        let mut left = Some(bytes);
        self.pending.iter().rev().map_while(move |pending| {
            left = left?.checked_sub(pending.size.unwrap_or(0).max(1)).filter(|left| *left > 0);
            Some(&pending.cid)
        })
    }

    /// The length of the whole content in bytes; `None` until the root has been supplied.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Takes the wanted block; gives the content that it holds, which may be none.
    ///
    /// # Errors
    /// If it is another block, not part of a file, or does not fit its parent.
    pub fn supply(&mut self, block: &Block) -> Result<Bytes, WalkError> {
        let cid = || Box::new(*block.cid());
        let Node::File(node) = decode(self.wanted(), block)? else {
            return Err(WalkError::NotAFile { cid: cid() });
        };
        let Some(FilePending { size, depth, .. }) = self.pending.pop() else {
            return Err(WalkError::NotWanted { cid: cid() });
        };
        if let Some(expected) = size.filter(|expected| *expected != node.size) {
            return Err(WalkError::PartSize { cid: cid(), expected, actual: node.size });
        }
        self.size.get_or_insert(node.size);
        let content = block.data().slice_ref(self.skip_into(node.data));
        self.push_children(block.cid(), &node, depth + 1)?;
        Ok(content)
    }

    /// What is left of a block's own bytes after those to be left out.
    fn skip_into<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(data.len());
        self.skip -= skipped as u64;
        &data[skipped..]
    }

    /// Puts the children before all that is pending, but not those that lie before the start or have no content.
    fn push_children(&mut self, cid: &Cid, node: &FileNode<'_>, depth: usize) -> Result<(), WalkError> {
        let first = self.pending.len();
        // The first child that is kept takes what is left to be skipped with it.
        let mut skip = self.skip;
        for child in &node.children {
            if child.size <= skip {
                skip -= child.size;
                self.skip -= child.size;
                continue;
            }
            if depth == FILE_DEPTH_MAX {
                return Err(WalkError::TooDeep { cid: Box::new(child.cid) });
            }
            if self.pending.len() == PENDING_LINKS_MAX {
                return Err(WalkError::TooManyLinks { cid: Box::new(*cid) });
            }
            self.pending.push(FilePending { cid: child.cid, size: Some(child.size), depth });
            skip = 0;
        }
        self.pending[first..].reverse();
        Ok(())
    }
}

/// The place of a shard in its HAMT.
#[derive(Clone, Copy, Debug)]
struct ShardPlace {
    /// The fanout of the root and so of all shards.
    fanout: Fanout,
    /// The level; at least 1, since the root has no place.
    level: usize,
    /// The bits of the hash that all entries below have in common.
    path: u64,
}

impl ShardPlace {
    fn below(parent: Option<Self>, fanout: Fanout, bucket: usize) -> Self {
        let (level, path) = parent.map_or((0, 0), |parent| (parent.level, parent.path));
        Self { fanout, level: level + 1, path: fanout.extend(path, bucket) }
    }
}

/// Checks whether a shard may be at its place: `None` is the root's. Gives its level.
fn check_place(cid: &Cid, shard: &Shard, place: Option<ShardPlace>) -> Result<usize, WalkError> {
    match place {
        Some(place) if shard.children.is_empty() || shard.fanout != place.fanout => {
            Err(WalkError::MisplacedShard { cid: Box::new(*cid) })
        }
        Some(place) if !shard.fanout.reaches(place.level) => Err(WalkError::TooDeep { cid: Box::new(*cid) }),
        place => Ok(place.map_or(0, |place| place.level)),
    }
}

/// Lists a directory: entries come in no particular order, each once.
#[derive(Clone, Debug)]
pub struct DirectoryWalk {
    /// The shards that are still to be read, the next one last.
    pending: Vec<(Cid, Option<ShardPlace>)>,
}

impl DirectoryWalk {
    /// A walk through the directory.
    pub fn new(root: Cid) -> Self {
        Self { pending: vec![(root, None)] }
    }

    /// The block to supply next; `None` when all entries are known.
    pub fn wanted(&self) -> Option<&Cid> {
        self.pending.last().map(|(cid, _)| cid)
    }

    /// Takes the wanted block; gives the entries that it holds.
    ///
    /// # Errors
    /// If it is another block, not part of a directory, or does not fit its parent.
    pub fn supply(&mut self, block: &Block) -> Result<Vec<Entry>, WalkError> {
        let node = decode(self.wanted(), block)?;
        let place = self.pending.pop().and_then(|(_, place)| place);
        match node {
            Node::Directory(entries) if place.is_none() => {
                Ok(entries.into_iter().map(|(name, target)| Entry { name, target }).collect())
            }
            Node::Shard(shard) => self.supply_shard(block.cid(), shard, place),
            _ if place.is_some() => Err(WalkError::MisplacedShard { cid: Box::new(*block.cid()) }),
            _ => Err(WalkError::NotADirectory { cid: Box::new(*block.cid()) }),
        }
    }

    fn supply_shard(&mut self, cid: &Cid, shard: Shard, place: Option<ShardPlace>) -> Result<Vec<Entry>, WalkError> {
        let level = check_place(cid, &shard, place)?;
        let first = self.pending.len();
        let mut entries = Vec::new();
        for child in shard.children {
            let below = ShardPlace::below(place, shard.fanout, child.bucket);
            match child.target {
                ShardTarget::Shard(cid) => self.pending.push((cid, Some(below))),
                ShardTarget::Entry(name, target) => {
                    if shard.fanout.path(hash_name(name.as_str()), level) != Some(below.path) {
                        return Err(WalkError::MisplacedEntry { cid: Box::new(*cid), name });
                    }
                    entries.push(Entry { name, target });
                }
            }
        }
        self.pending[first..].reverse();
        Ok(entries)
    }
}

/// Follows a path through directories. Symbolic links are not followed.
#[derive(Clone, Debug)]
pub struct PathWalk {
    /// The names that are still to be looked up, the next one last.
    names: Vec<EntryName>,
    /// The block that is reached, and its place if it is a shard below a HAMT's root.
    at: (Cid, Option<ShardPlace>),
    /// The root of the directory that the block belongs to.
    directory: Cid,
}

impl PathWalk {
    /// A walk along `path`, names with slashes between them; more slashes mean nothing. The empty path leads to the root.
    ///
    /// # Errors
    /// If a part of the path cannot be a name.
    pub fn new(root: Cid, path: &str) -> Result<Self, NameError> {
        let names = path.split('/').filter(|name| !name.is_empty()).rev().map(EntryName::new);
        Ok(Self { names: names.collect::<Result<_, _>>()?, at: (root, None), directory: root })
    }

    /// The block to supply next; `None` when the end is reached.
    pub fn wanted(&self) -> Option<&Cid> {
        (!self.names.is_empty()).then_some(&self.at.0)
    }

    /// Where the path leads; `None` until the end is reached. That block itself was not looked at.
    pub fn found(&self) -> Option<&Cid> {
        self.names.is_empty().then_some(&self.at.0)
    }

    /// The root of the directory in which the walk is, or what it found at its end.
    pub fn reached(&self) -> &Cid {
        &self.directory
    }

    /// Takes the wanted block.
    ///
    /// # Errors
    /// If it is another block, not part of a directory, or the directory does not have the entry.
    pub fn supply(&mut self, block: &Block) -> Result<(), WalkError> {
        let node = decode(self.wanted(), block)?;
        self.step(block.cid(), |place, name| look_up(block.cid(), &node, place, name))
    }

    /// Takes the wanted block, which is this one, where it was found to be a shard before: to decode it takes far longer than
    /// to look into it.
    ///
    /// # Errors
    /// As [`PathWalk::supply`].
    pub fn supply_shard(&mut self, cid: &Cid, shard: &Shard) -> Result<(), WalkError> {
        if self.wanted() != Some(cid) {
            return Err(WalkError::NotWanted { cid: Box::new(*cid) });
        }
        self.step(cid, |place, name| look_up_in_shard(cid, shard, place, name))
    }

    fn step(
        &mut self,
        cid: &Cid,
        look_up: impl FnOnce(Option<ShardPlace>, &EntryName) -> Result<Option<(Cid, Option<ShardPlace>)>, WalkError>,
    ) -> Result<(), WalkError> {
        let Some(name) = self.names.last() else {
            return Err(WalkError::NotWanted { cid: Box::new(*cid) });
        };
        match look_up(self.at.1, name)? {
            Some((cid, Some(place))) => self.at = (cid, Some(place)),
            Some((cid, None)) => {
                self.names.pop();
                self.at = (cid, None);
                self.directory = cid;
            }
            None => return Err(WalkError::NotFound { directory: Box::new(self.directory), name: name.clone() }),
        }
        Ok(())
    }
}

/// Looks for an entry in a directory, or the shard of one at `place`; gives the entry, or the shard with its place in which
/// to go on.
fn look_up(
    cid: &Cid,
    node: &Node<'_>,
    place: Option<ShardPlace>,
    name: &EntryName,
) -> Result<Option<(Cid, Option<ShardPlace>)>, WalkError> {
    match node {
        Node::Directory(entries) if place.is_none() => {
            let found = entries.iter().find(|(entry, _)| entry == name);
            Ok(found.map(|(_, target)| (target.cid, None)))
        }
        Node::Shard(shard) => look_up_in_shard(cid, shard, place, name),
        _ if place.is_some() => Err(WalkError::MisplacedShard { cid: Box::new(*cid) }),
        _ => Err(WalkError::NotADirectory { cid: Box::new(*cid) }),
    }
}

fn look_up_in_shard(
    cid: &Cid,
    shard: &Shard,
    place: Option<ShardPlace>,
    name: &EntryName,
) -> Result<Option<(Cid, Option<ShardPlace>)>, WalkError> {
    let level = check_place(cid, shard, place)?;
    let bucket = shard.fanout.bucket(hash_name(name.as_str()), level);
    let found = bucket.and_then(|bucket| shard.children.binary_search_by_key(&bucket, |child| child.bucket).ok());
    let child = found.and_then(|index| shard.children.get(index));
    Ok(child.and_then(|child| match &child.target {
        ShardTarget::Shard(cid) => Some((*cid, Some(ShardPlace::below(place, shard.fanout, child.bucket)))),
        ShardTarget::Entry(entry, target) => (entry == name).then_some((target.cid, None)),
    }))
}

/// Where blocks can be had without waiting.
pub trait Blocks {
    /// Why a block cannot be had, or why a tree cannot be read.
    type Error: From<WalkError>;

    /// The block that a CID names.
    ///
    /// # Errors
    /// If it is not there.
    fn block(&self, cid: &Cid) -> Result<Block, Self::Error>;
}

fn fetch<B: Blocks>(blocks: &B, cid: &Cid) -> Result<Block, B::Error> {
    Block::from_identity(cid).map_or_else(|| blocks.block(cid), Ok)
}

/// Finds where a path leads. As [`PathWalk::new`] and [`PathWalk::supply`].
///
/// # Errors
/// If the path is malformed or leads nowhere, or what `blocks` gives.
pub fn resolve<B: Blocks>(blocks: &B, root: Cid, path: &str) -> Result<Cid, B::Error> {
    let mut walk = PathWalk::new(root, path).map_err(WalkError::Path)?;
    while let Some(cid) = walk.wanted() {
        walk.supply(&fetch(blocks, cid)?)?;
    }
    Ok(walk.at.0)
}

/// Gives a directory's entries to a sink, in no particular order.
///
/// # Errors
/// If there is no valid directory, or what `blocks` or the sink give.
pub fn list<B: Blocks>(
    blocks: &B,
    root: Cid,
    sink: &mut impl FnMut(Entry) -> Result<(), B::Error>,
) -> Result<(), B::Error> {
    let mut walk = DirectoryWalk::new(root);
    while let Some(cid) = walk.wanted() {
        walk.supply(&fetch(blocks, cid)?)?.into_iter().try_for_each(&mut *sink)?;
    }
    Ok(())
}

/// Gives a file's content to a sink, in order and in pieces that share memory with the blocks.
///
/// # Errors
/// If there is no valid file, or what `blocks` or the sink give.
pub fn read_file<B: Blocks>(
    blocks: &B,
    root: Cid,
    sink: &mut impl FnMut(Bytes) -> Result<(), B::Error>,
) -> Result<(), B::Error> {
    let mut walk = FileWalk::new(root);
    while let Some(cid) = walk.wanted() {
        sink(walk.supply(&fetch(blocks, cid)?)?)?;
    }
    Ok(())
}
