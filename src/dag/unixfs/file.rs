//! Building files.

use bytes::Bytes;
use multihash::Multihash;
use sha2::{Digest, Sha256};

use super::super::block::{BLOCK_BYTES_MAX, Block, BlockError, CODEC_DAG_PB, CODEC_RAW, Cid, HASH_SHA2_256};
use super::super::{Version, pb};
use super::{BuildError, Data, Kind, Profile, Subtree, seal};

/// A part of a file whose blocks are made, as its parent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilePart {
    subtree: Subtree,
    size: u64,
}

impl FilePart {
    /// Its root.
    pub fn subtree(&self) -> Subtree {
        self.subtree
    }

    /// The length of its content, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Makes the block of a piece of a file.
///
/// Most of the work of importing a file is here: pieces may be hashed on several threads, and be pushed to a
/// [`FileBuilder`] in their order.
///
/// # Errors
/// If the piece does not fit into a block.
pub fn leaf(profile: &Profile, chunk: Bytes) -> Result<(Block, FilePart), BuildError> {
    let size = chunk.len() as u64;
    if profile.raw_leaves {
        // Version 0 cannot name raw blocks.
        let block = Block::seal(Version::V1, CODEC_RAW, chunk)?;
        let subtree = Subtree { cid: *block.cid(), dag_size: size };
        return Ok((block, FilePart { subtree, size }));
    }
    // An empty file has no data, not empty data.
    let data = (!chunk.is_empty()).then_some(&chunk[..]);
    let message = Data { data, file_size: Some(size), ..Data::new(Kind::File) };
    let node = pb::encode_leaf(message.encoded_len(), |out| message.put(out));
    let block = Block::seal(profile.cid_version, CODEC_DAG_PB, Bytes::from(node))?;
    let subtree = Subtree { cid: *block.cid(), dag_size: block.data().len() as u64 };
    Ok((block, FilePart { subtree, size }))
}

/// Names a piece of a file that comes in parts, without making its block: as [`leaf`], for when only the CID is wanted.
#[derive(Clone, Debug)]
pub struct LeafHasher {
    version: Version,
    codec: u64,
    hasher: Sha256,
    /// What the block has after the piece.
    after: Vec<u8>,
    size: u64,
    block_bytes: usize,
    missing: u64,
}

impl LeafHasher {
    /// Begins with a piece of `size` bytes.
    ///
    /// # Errors
    /// If it does not fit into a block.
    pub fn new(profile: &Profile, size: usize) -> Result<Self, BuildError> {
        let file_size = size as u64;
        let (version, codec, before, after) = if profile.raw_leaves {
            (Version::V1, CODEC_RAW, Vec::new(), Vec::new())
        } else {
            let message = Data { file_size: Some(file_size), ..Data::new(Kind::File) };
            // An empty file has no data, not empty data.
            let (data_head, after) = if size == 0 { (message.encode(), Vec::new()) } else { message.around(size) };
            let head = pb::leaf_head(data_head.len() + size + after.len());
            (profile.cid_version, CODEC_DAG_PB, [head, data_head].concat(), after)
        };
        let block_bytes = before.len() + size + after.len();
        if block_bytes > BLOCK_BYTES_MAX {
            return Err(BlockError::TooLong { size_bytes: block_bytes }.into());
        }
        let hasher = Sha256::new_with_prefix(before);
        Ok(Self { version, codec, hasher, after, size: file_size, block_bytes, missing: file_size })
    }

    /// Takes the next bytes of the piece.
    ///
    /// # Panics
    /// If they are more than the piece has.
    pub fn update(&mut self, bytes: &[u8]) {
        self.missing = self.missing.checked_sub(bytes.len() as u64).expect("no more bytes than the piece has");
        self.hasher.update(bytes);
    }

    /// Gives the piece's name.
    ///
    /// # Panics
    /// If bytes of the piece are missing.
    pub fn finish(self) -> FilePart {
        assert_eq!(self.missing, 0, "bytes of the piece are missing");
        let digest = self.hasher.chain_update(&self.after).finalize();
        let hash = Multihash::wrap(HASH_SHA2_256, &digest).expect("a digest of 32 bytes fits");
        let cid = Cid::new(self.version, self.codec, hash).expect("leaves of version 0 are dag-pb");
        FilePart { subtree: Subtree { cid, dag_size: self.block_bytes as u64 }, size: self.size }
    }
}

/// Builds the balanced DAG of one file from its pieces in order.
///
/// All leaves have the same depth: a node that would have a single child is made, unless it would be the root (Kubo's
/// `balanced.Layout`). A file of one piece is that piece. Blocks go to a sink, children before their parents; in memory is
/// one unfinished node for each level.
#[derive(Debug)]
pub struct FileBuilder {
    profile: Profile,
    /// The children of the unfinished node of each level, the lowest first. None is ever full, and no level above the
    /// highest non-empty one is in the list.
    levels: Vec<Vec<FilePart>>,
}

impl FileBuilder {
    /// A builder of a file without any piece yet.
    ///
    /// # Panics
    /// If the profile allows nodes fewer than two links: then no number of levels is enough.
    pub fn new(profile: Profile) -> Self {
        assert!(profile.file_links_max >= 2, "nodes of fewer than two links");
        Self { profile, levels: Vec::new() }
    }

    /// Makes the leaf of the next piece and pushes it. All pieces but the last must be [`Profile::chunk_bytes`] long for
    /// the CID to be that of the profile.
    ///
    /// # Errors
    /// If the piece does not fit into a block, or what the sink gives.
    pub fn push<E: From<BuildError>>(
        &mut self,
        chunk: Bytes,
        sink: &mut impl FnMut(Block) -> Result<(), E>,
    ) -> Result<(), E> {
        let (block, part) = leaf(&self.profile, chunk)?;
        sink(block)?;
        self.push_leaf(part, sink)
    }

    /// Pushes the next piece, whose [`leaf`] is made.
    ///
    /// # Errors
    /// What the sink gives.
    pub fn push_leaf<E: From<BuildError>>(
        &mut self,
        part: FilePart,
        sink: &mut impl FnMut(Block) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut part = part;
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let children = &mut self.levels[level];
            children.push(part);
            if children.len() < self.profile.file_links_max {
                break;
            }
            let (block, parent) = join(&self.profile, children)?;
            children.clear();
            sink(block)?;
            part = parent;
        }
        Ok(())
    }

    /// Makes the unfinished nodes and gives the root. A file without pieces is one empty piece.
    ///
    /// # Errors
    /// What the sink gives.
    pub fn finish<E: From<BuildError>>(mut self, sink: &mut impl FnMut(Block) -> Result<(), E>) -> Result<FilePart, E> {
        if self.levels.is_empty() {
            self.push(Bytes::new(), sink)?;
        }
        let mut carried = None;
        let levels = std::mem::take(&mut self.levels);
        let top = levels.len() - 1;
        for (level, mut children) in levels.into_iter().enumerate() {
            children.extend(carried.take());
            carried = match children[..] {
                [] => None,
                [root] if level == top => Some(root),
                _ => {
                    let (block, parent) = join(&self.profile, &children)?;
                    sink(block)?;
                    Some(parent)
                }
            };
        }
        Ok(carried.expect("the highest level has a child"))
    }
}

/// Makes the node above `children`.
fn join(profile: &Profile, children: &[FilePart]) -> Result<(Block, FilePart), BuildError> {
    let size = children.iter().try_fold(0u64, |sum, child| sum.checked_add(child.size));
    let size = size.ok_or(BuildError::SizeOverflow)?;
    let links = children.iter().map(|child| {
        let Subtree { cid, dag_size } = child.subtree;
        pb::Link { cid, name: Some(""), tsize: Some(dag_size) }
    });
    let block_sizes = children.iter().map(|child| child.size).collect();
    let (block, subtree) =
        seal(profile, links.collect(), &Data { file_size: Some(size), block_sizes, ..Data::new(Kind::File) })?;
    Ok((block, FilePart { subtree, size }))
}
