//! One block as UnixFS sees it.

use super::super::block::{Block, CODEC_DAG_PB, CODEC_RAW, Cid};
use super::super::pb::{self, PbError};
use super::hamt::{Fanout, HASH_MURMUR3, decode_bit_field};
use super::{Data, DataError, EntryName, Kind, NameError, Subtree};

/// Why a block is not UnixFS.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The block is neither raw nor dag-pb.
    #[error("codec 0x{0:x} is neither raw nor dag-pb")]
    Codec(u64),
    /// The block is not dag-pb, against what its CID says.
    #[error("malformed dag-pb")]
    Pb(#[from] PbError),
    /// The node has no data, so it may be dag-pb, but not UnixFS.
    #[error("node without UnixFS data")]
    NoData,
    /// The data is not UnixFS.
    #[error("malformed UnixFS data")]
    Data(#[from] DataError),
    /// The node is of a type that nothing can be done with.
    #[error("nodes of type {0:?} are not supported")]
    Kind(Kind),
    /// A file's node has another number of sizes than of links.
    #[error("{block_sizes} block sizes for {links} links")]
    BlockSizes {
        /// The number of sizes.
        block_sizes: usize,
        /// The number of links.
        links: usize,
    },
    /// A file's size is not the sum of its parts.
    #[error("file size is {file_size}, but the parts are together {}", parts.map_or("more than 64 bits".to_owned(), |sum| sum.to_string()))]
    FileSize {
        /// The size that the node claims.
        file_size: u64,
        /// The sum; `None` if it is more than 64 bits.
        parts: Option<u64>,
    },
    /// A leaf or a symbolic link has links.
    #[error("node of type {0:?} with links")]
    UnexpectedLinks(Kind),
    /// A symbolic link without target.
    #[error("symbolic link without target")]
    NoTarget,
    /// A directory has an entry with a name that is not allowed.
    #[error("entry with a bad name")]
    Name(#[from] NameError),
    /// A directory has two entries of one name.
    #[error("two entries have the name `{name}`")]
    DuplicateName {
        /// The name.
        name: EntryName,
    },
    /// A HAMT's number of buckets is missing or not allowed.
    #[error("HAMT with a fanout of {0:?}")]
    Fanout(Option<u64>),
    /// A HAMT's hash function is missing or not supported.
    #[error("HAMT with hash function {0:x?}")]
    HashType(Option<u64>),
    /// A HAMT's links are not those that its bit field tells.
    #[error("links of a HAMT do not agree with its bit field")]
    BitField,
}

/// One block, with every rule checked that concerns it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node<'a> {
    /// A file or a part of one.
    File(FileNode<'a>),
    /// A directory in one block: its entries' names, which are different and allowed, with what they stand for. In the
    /// order of the block.
    Directory(Vec<(EntryName, Subtree)>),
    /// A directory as a HAMT, or a part of one.
    Shard(Shard),
    /// A symbolic link, with its target.
    Symlink(&'a [u8]),
}

/// A file or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNode<'a> {
    /// The node's own bytes, which come before those of its children.
    pub data: &'a [u8],
    /// The parts that follow, in order.
    pub children: Vec<FileChild>,
    /// The length of data and children together, in bytes.
    pub size: u64,
}

/// A part of a file, as its parent claims it to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileChild {
    /// Its root.
    pub cid: Cid,
    /// The length of its content, in bytes.
    pub size: u64,
}

/// A shard of a HAMT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub(super) fanout: Fanout,
    /// The buckets that are not empty, ascending.
    pub children: Vec<ShardChild>,
}

/// A bucket of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardChild {
    /// Its number.
    pub bucket: usize,
    /// What is in it.
    pub target: ShardTarget,
}

/// What a bucket holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardTarget {
    /// An entry with an allowed name.
    Entry(EntryName, Subtree),
    /// A shard of the next level.
    Shard(Cid),
}

impl<'a> Node<'a> {
    /// Reads a block.
    ///
    /// # Errors
    /// If it is not UnixFS, or breaks a rule.
    pub fn decode(block: &'a Block) -> Result<Self, NodeError> {
        match block.cid().codec() {
            CODEC_RAW => {
                let data = &block.data()[..];
                Ok(Self::File(FileNode { data, children: Vec::new(), size: data.len() as u64 }))
            }
            CODEC_DAG_PB => decode_pb(pb::Node::decode(block.data())?),
            codec => Err(NodeError::Codec(codec)),
        }
    }
}

fn decode_pb(node: pb::Node<'_>) -> Result<Node<'_>, NodeError> {
    let data = Data::decode(node.data.ok_or(NodeError::NoData)?)?;
    match data.kind {
        Kind::Raw | Kind::Symlink if !node.links.is_empty() => Err(NodeError::UnexpectedLinks(data.kind)),
        Kind::Raw | Kind::File => decode_file(node.links, data).map(Node::File),
        Kind::Directory => decode_directory(node.links).map(Node::Directory),
        Kind::HamtShard => decode_shard(node.links, &data).map(Node::Shard),
        Kind::Symlink => data.data.map(Node::Symlink).ok_or(NodeError::NoTarget),
        Kind::Metadata => Err(NodeError::Kind(data.kind)),
    }
}

fn decode_file<'a>(links: Vec<pb::Link<'a>>, data: Data<'a>) -> Result<FileNode<'a>, NodeError> {
    let Data { block_sizes, file_size, data, .. } = data;
    if block_sizes.len() != links.len() {
        return Err(NodeError::BlockSizes { block_sizes: block_sizes.len(), links: links.len() });
    }
    let data = data.unwrap_or_default();
    let parts = block_sizes.iter().try_fold(data.len() as u64, |sum, size| sum.checked_add(*size));
    let size = match (file_size, parts) {
        (None, Some(parts)) => parts,
        (Some(file_size), Some(parts)) if file_size == parts => parts,
        (file_size, parts) => return Err(NodeError::FileSize { file_size: file_size.unwrap_or(0), parts }),
    };
    let children = links.iter().zip(block_sizes).map(|(link, size)| FileChild { cid: link.cid, size });
    Ok(FileNode { data, children: children.collect(), size })
}

fn decode_directory(links: Vec<pb::Link<'_>>) -> Result<Vec<(EntryName, Subtree)>, NodeError> {
    let mut names = std::collections::HashSet::with_capacity(links.len());
    let mut entries = Vec::with_capacity(links.len());
    for link in links {
        let name = link.name.unwrap_or_default();
        let entry_name = EntryName::new(name)?;
        if !names.insert(name) {
            return Err(NodeError::DuplicateName { name: entry_name });
        }
        entries.push((entry_name, subtree(&link)));
    }
    Ok(entries)
}

fn decode_shard(links: Vec<pb::Link<'_>>, data: &Data<'_>) -> Result<Shard, NodeError> {
    let buckets = data.fanout.and_then(|fanout| usize::try_from(fanout).ok());
    let fanout = buckets.and_then(Fanout::new).ok_or(NodeError::Fanout(data.fanout))?;
    if data.hash_type != Some(HASH_MURMUR3) {
        return Err(NodeError::HashType(data.hash_type));
    }
    let mut buckets = decode_bit_field(fanout, data.data.unwrap_or_default()).ok_or(NodeError::BitField)?;
    let mut children = Vec::new();
    for link in links {
        let bucket = buckets.next().ok_or(NodeError::BitField)?;
        children.push(ShardChild { bucket, target: decode_bucket(&link, bucket, fanout)? });
    }
    if buckets.next().is_some() {
        return Err(NodeError::BitField);
    }
    Ok(Shard { fanout, children })
}

fn decode_bucket(link: &pb::Link<'_>, bucket: usize, fanout: Fanout) -> Result<ShardTarget, NodeError> {
    let prefix = format!("{bucket:0digits$X}", digits = fanout.digits());
    match link.name.unwrap_or_default().strip_prefix(&prefix).ok_or(NodeError::BitField)? {
        "" => Ok(ShardTarget::Shard(link.cid)),
        name => Ok(ShardTarget::Entry(EntryName::new(name)?, subtree(link))),
    }
}

fn subtree(link: &pb::Link<'_>) -> Subtree {
    Subtree { cid: link.cid, dag_size: link.tsize.unwrap_or(0) }
}
