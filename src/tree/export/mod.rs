//! From blocks to files.

mod place;
mod work;

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::{BoxError, DEPTH_MAX};
use crate::dag::unixfs::{NodeError, WalkError};
use crate::dag::{Block, Cid};
use crate::escape;

/// The most threads that one export uses. Each may have a folder open for each level of the tree.
const THREADS_MAX: usize = 8;

/// Where the blocks of an export come from.
pub trait BlockSource: Sync {
    /// The block that a CID names; `None` if it is not there. Not asked for identity CIDs. Called from several threads at
    /// once.
    ///
    /// # Errors
    /// If it cannot be read. The export then ends with [`ExportError::Source`].
    fn get(&self, cid: &Cid) -> Result<Option<Block>, BoxError>;
}

/// How much an export may write. A few blocks can describe a tree of any size, since a block can be linked to many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportLimits {
    /// The sum of the sizes of all files, in bytes.
    pub bytes: u64,
    /// The number of files, folders and symlinks.
    pub entries: u64,
    /// How deep folders may be nested; not more than [`DEPTH_MAX`] in any case.
    pub depth: usize,
}

impl ExportLimits {
    /// Default of [`Self::bytes`]: far more than any image, and less than a disk.
    pub const BYTES: u64 = 64 << 30;
    /// Default of [`Self::entries`]. The names in a folder are in memory while it is written, at some 250 bytes each.
    pub const ENTRIES: u64 = 1 << 20;
}

impl Default for ExportLimits {
    fn default() -> Self {
        Self { bytes: Self::BYTES, entries: Self::ENTRIES, depth: DEPTH_MAX }
    }
}

/// How to export.
#[derive(Clone, Copy)]
pub struct ExportOptions<'a> {
    /// How much may be written.
    pub limits: ExportLimits,
    /// How many threads read and write, that of the caller among them; at most 8.
    pub threads: NonZeroUsize,
    /// Is asked all the time, from all threads, and tells whether to give up.
    pub cancel: &'a (dyn Fn() -> bool + Sync),
    /// Is told, from all threads, how many bytes were written since it was told last.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

impl Default for ExportOptions<'_> {
    /// One thread for each processor, that nothing stops and nobody watches.
    fn default() -> Self {
        Self {
            limits: ExportLimits::default(),
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            cancel: &|| false,
            progress: &|_| {},
        }
    }
}

impl fmt::Debug for ExportOptions<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limits, threads, .. } = self;
        formatter
            .debug_struct("ExportOptions")
            .field("limits", limits)
            .field("threads", threads)
            .finish_non_exhaustive()
    }
}

/// What an export wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// The number of files.
    pub files: u64,
    /// The sum of their sizes, in bytes.
    pub bytes: u64,
    /// The number of folders, the root among them.
    pub folders: u64,
    /// The number of symlinks.
    pub symlinks: u64,
}

/// Why a tree cannot be exported. The target is not there then. Paths of entries begin below it.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is something where the tree is to go.
    #[error("{} exists already", escape::path(path))]
    Exists {
        /// Where it was to go.
        path: PathBuf,
    },
    /// Something cannot be made or written.
    #[error("cannot {action} {}", escape::path(path))]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A block is not there.
    #[error("block {cid} of {} is missing", shown(path))]
    Missing {
        /// The block.
        cid: Box<Cid>,
        /// What it belongs to.
        path: String,
    },
    /// The source of blocks failed.
    #[error("cannot read block {cid}")]
    Source {
        /// The block.
        cid: Box<Cid>,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The blocks are no tree of files.
    #[error("{} is malformed", shown(path))]
    Walk {
        /// What they should be.
        path: String,
        /// What is wrong.
        #[source]
        source: WalkError,
    },
    /// A block that should be the root of something is not UnixFS.
    #[error("{} is malformed: block {cid} is not valid UnixFS", shown(path))]
    Node {
        /// What it should be.
        path: String,
        /// The block.
        cid: Box<Cid>,
        /// What is wrong.
        #[source]
        source: NodeError,
    },
    /// A symlink has a target that no file system allows.
    #[error("symlink {} has a target that is empty or contains a zero byte", shown(path))]
    SymlinkTarget {
        /// The symlink.
        path: String,
    },
    /// More bytes than [`ExportLimits::bytes`].
    #[error("the files are together larger than the limit of {limit} bytes")]
    TooManyBytes {
        /// The limit.
        limit: u64,
    },
    /// More entries than [`ExportLimits::entries`].
    #[error("there are more files and folders than the limit of {limit}")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// Folders are nested deeper than [`ExportLimits::depth`].
    #[error("{} is more than {limit} folders deep", shown(path))]
    TooDeep {
        /// The first folder that is too deep.
        path: String,
        /// The limit.
        limit: usize,
    },
    /// [`ExportOptions::cancel`] said so.
    #[error("stopped")]
    Cancelled,
}

/// The path of an entry, or what the root is called.
fn shown(path: &str) -> String {
    if path.is_empty() { "the root".to_owned() } else { format!("`{}`", escape::text(path)) }
}

/// Writes the file, folder or symlink that `root` names to `target`, which becomes the tree itself.
///
/// It is written into a folder beside the target, which nobody else can look into, and gets its name when it is whole; so
/// the target is there complete or not at all, unless the machine crashes soon after: like other tools that write trees,
/// this one does not wait for the disk. Files are made with mode 0644 and folders with 0755. Symlinks are made with any
/// target, since nothing here follows them; whoever uses the tree must not let them lead out of it.
///
/// # Errors
/// Any [`ExportError`]. What was written is removed again, as far as that is possible.
pub fn export(
    blocks: &dyn BlockSource,
    root: Cid,
    target: &Path,
    options: &ExportOptions<'_>,
) -> Result<Exported, ExportError> {
    let place = place::Place::open(target)?;
    let result = work::export(blocks, root, &place, options).and_then(|exported| {
        place.publish()?;
        Ok(exported)
    });
    // Where that fails an empty folder is left, or what was written before something else failed, which counts more.
    let _ = place.remove();
    result
}

#[cfg(test)]
mod tests;
