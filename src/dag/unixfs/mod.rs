//! UnixFS: files, directories and symbolic links as blocks.
//!
//! <https://specs.ipfs.tech/unixfs/>. A [`Profile`] fixes everything that the CID of a tree depends on. Under one,
//! [`FileBuilder`], [`directory`], [`Entries`] and [`symlink`] make blocks from the bottom up; a file's [`Chunker`] cuts its bytes, and
//! [`leaf`] may hash the pieces on any thread, or [`LeafHasher`] where no block is wanted. [`FileWalk`], [`DirectoryWalk`] and [`PathWalk`] read trees from the top
//! down, whoever built them and in whatever layout; they say which block they need next and are given it, so they work
//! with blocks from a disk as well as from a network. [`Node`] is one block as UnixFS sees it, with every rule checked
//! that concerns it alone.
//!
//! Modes and times are read and written by [`Data`] alone: builders do not store them. Symbolic links are read, never
//! followed.

mod chunk;
mod data;
mod dir;
mod entries;
mod file;
mod hamt;
#[cfg(test)]
mod ipip_499;
mod murmur3;
mod node;
mod profile;
#[cfg(test)]
mod tests;
mod walk;

use bytes::Bytes;

use super::block::{Block, BlockError, Cid};
use super::pb;

pub use chunk::Chunker;
pub use data::{Data, DataError, Kind, Mtime};
pub use dir::{Entry, EntryName, NameError, directory, symlink};
pub use entries::Entries;
pub use file::{FileBuilder, FilePart, LeafHasher, leaf};
pub use hamt::{FANOUT_MAX, HASH_MURMUR3};
pub use node::{FileChild, FileNode, Node, NodeError, Shard, ShardChild, ShardTarget};
pub use profile::{DirectorySize, Profile, UnknownProfile};
pub use walk::{Blocks, DirectoryWalk, FILE_DEPTH_MAX, FileWalk, PENDING_LINKS_MAX, PathWalk, WalkError};
pub use walk::{list, read_file, resolve};

/// The root of a DAG, as a link to it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// The root block.
    pub cid: Cid,
    /// The length of all blocks in bytes, each counted as often as it is linked: the `Tsize` of a link.
    pub dag_size: u64,
}

/// Why something cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A block became too long, such as that of a symbolic link with a target of megabytes.
    #[error("no block can be made of it")]
    Block(#[from] BlockError),
    /// A directory has an entry whose name is not allowed.
    #[error("a directory cannot have this entry")]
    Name(#[from] NameError),
    /// A directory has two entries of the same name.
    #[error("two entries have the name `{name}`")]
    DuplicateName {
        /// The name.
        name: EntryName,
    },
    /// The hashes of two names are equal, so that no HAMT can hold both. Somebody searched for such names.
    #[error("the names of two entries have the same hash, one is `{name}`")]
    HashCollision {
        /// One of the names.
        name: EntryName,
    },
    /// Sizes add up to more than 64 bits.
    #[error("the sizes of the parts add up to more than 64 bits")]
    SizeOverflow,
}

/// Makes a dag-pb block of `data` and links to `children`, each with its name.
fn seal(profile: &Profile, links: Vec<pb::Link<'_>>, data: &Data<'_>) -> Result<(Block, Subtree), BuildError> {
    let below = links.iter().try_fold(0u64, |sum, link| sum.checked_add(link.tsize.unwrap_or(0)));
    let message = data.encode();
    let node = pb::Node { links, data: Some(&message) };
    let block = Block::seal(profile.cid_version, super::block::CODEC_DAG_PB, Bytes::from(node.encode()))?;
    let dag_size = below.and_then(|below| below.checked_add(block.data().len() as u64));
    let subtree = Subtree { cid: *block.cid(), dag_size: dag_size.ok_or(BuildError::SizeOverflow)? };
    Ok((block, subtree))
}
