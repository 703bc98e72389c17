//! From files to blocks.

mod file;
mod names;
mod node;
mod walk;
mod work;

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::{BoxError, StatCache};
use crate::dag::unixfs::{BuildError, Profile, Subtree};
use crate::dag::{Block, Cid};
use crate::escape;

/// How deep folders may be nested. Each level on the way down to a file is a folder that is open, and a process may have
/// 1,024 files open unless somebody raised it.
pub const DEPTH_MAX: usize = 256;

/// The most threads that one import uses. Each may hold a piece of a file, which is up to a mebibyte.
pub const THREADS_MAX: usize = 32;

/// Where the blocks of an import go.
///
/// It is called from several threads, one at a time. Children come before their parents, otherwise the order may differ
/// from one import to the next. A block that is in the tree twice comes twice.
pub trait BlockSink: Send {
    /// Takes a block.
    ///
    /// # Errors
    /// If it cannot. The import then ends with [`ImportError::Sink`].
    fn put(&mut self, block: &Block) -> Result<(), BoxError>;

    /// Whether the blocks of a file, which the cache says has this root, are all there already. If so its file is not
    /// read; if not it is, as if the cache did not know it.
    ///
    /// # Errors
    /// As [`BlockSink::put`].
    fn has(&mut self, root: &Cid) -> Result<bool, BoxError>;

    /// Whether [`BlockSink::has`] would say yes to all that the cache knows. It is then not asked, which takes time where there
    /// are many small files. This does not change during an import.
    fn has_all(&self) -> bool {
        false
    }

    /// Whether it takes the blocks that pieces of files are. Where it does not, files are read as if there were no sink. This
    /// does not change during an import.
    fn wants_pieces(&self) -> bool {
        true
    }
}

/// Looks at the files of an import, from several threads.
///
/// It is shown what is read. What the cache knows is not read again, and so not shown: a cache is for imports that all had
/// the same one.
pub trait FileInspector: Sync {
    /// The largest file whose content it wants to see, in bytes.
    fn content_bytes_max(&self) -> u64;

    /// Sees a file. `content` is `None` where that is larger; `path` is for messages.
    fn inspect(&self, name: &str, content: Option<&[u8]>, path: &dyn Fn() -> PathBuf);
}

/// What an import depends on beside the tree.
#[derive(Clone, Copy)]
pub struct ImportOptions<'a> {
    /// What the CIDs depend on.
    pub profile: Profile,
    /// How many threads read and hash, that of the caller among them; at most [`THREADS_MAX`]. The result does not
    /// depend on it.
    pub threads: NonZeroUsize,
    /// What a symlink is taken for, if it is the root itself.
    pub root_symlink: RootSymlink,
    /// Who looks at the files that are read.
    pub inspector: Option<&'a dyn FileInspector>,
    /// Is asked all the time, from all threads, and tells whether to give up.
    pub cancel: &'a (dyn Fn() -> bool + Sync),
    /// Is told, from all threads, how many bytes of files were done since it was told last, read or known from the
    /// cache.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

impl ImportOptions<'_> {
    /// One thread for each processor, that nothing stops and nobody watches.
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            root_symlink: RootSymlink::Refuse,
            inspector: None,
            cancel: &|| false,
            progress: &|_| {},
        }
    }
}

impl fmt::Debug for ImportOptions<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { profile, threads, root_symlink, .. } = self;
        let mut shown = formatter.debug_struct("ImportOptions");
        shown.field("profile", profile).field("threads", threads).field("root_symlink", root_symlink);
        shown.finish_non_exhaustive()
    }
}

/// What a symlink is taken for that is the root of an import. Those below it are always stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootSymlink {
    /// It is refused: it is seldom what was meant.
    Refuse,
    /// For what it leads to.
    Follow,
    /// For itself, as `ipfs add` does.
    Store,
}

/// What an import came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The root.
    pub subtree: Subtree,
    /// The number of files.
    pub files: u64,
    /// The sum of their sizes, in bytes.
    pub bytes: u64,
    /// The number of folders, the root among them.
    pub folders: u64,
    /// The number of symlinks.
    pub symlinks: u64,
    /// How many of the files were not read, since the cache knew them.
    pub files_cached: u64,
}

/// Why a tree cannot be imported. Paths begin with that of the root, as it was given.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Something cannot be opened or read.
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
    /// A name is not UTF-8, which names in UnixFS are.
    #[error("the name of {} is not UTF-8", escape::path(path))]
    NotUtf8 {
        /// What has the name.
        path: PathBuf,
    },
    /// There is a socket, FIFO or device.
    #[error("{} is neither file, folder nor symlink", escape::path(path))]
    Kind {
        /// Where.
        path: PathBuf,
    },
    /// The root is a symlink, and [`RootSymlink::Refuse`] is set.
    #[error("{} is a symlink", escape::path(path))]
    RootSymlink {
        /// The root.
        path: PathBuf,
    },
    /// Folders are nested more than [`DEPTH_MAX`] deep.
    #[error("{} is more than {DEPTH_MAX} folders deep", escape::path(path))]
    TooDeep {
        /// The first folder that is too deep.
        path: PathBuf,
    },
    /// A file was written to, or something else took its place, while it was read.
    #[error("{} changed while it was read", escape::path(path))]
    Changed {
        /// What changed.
        path: PathBuf,
    },
    /// UnixFS cannot have it.
    #[error("{} cannot be named by its content", escape::path(path))]
    Build {
        /// What it is.
        path: PathBuf,
        /// Why not.
        #[source]
        source: BuildError,
    },
    /// The sink failed.
    #[error("cannot keep a block")]
    Sink(#[source] BoxError),
    /// [`ImportOptions::cancel`] said so.
    #[error("stopped")]
    Cancelled,
}

impl ImportError {
    /// For `map_err`: what was to be done with what.
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.into(), source }
    }
}

/// Names what is at `path` by its content: a file, a folder with everything in it, hidden or not, or a symlink.
///
/// Without a sink nothing but the name comes out, which takes less memory and time. In memory are one chunk for each
/// thread, and the names in the folders on the way to what is read.
///
/// What `cache` knows is not read again, and afterwards it knows this tree and nothing else. The cache tells what files
/// were, not where their blocks are: [`BlockSink::has`] is asked about those. To see in no time whether anything
/// changed, import without sink but with a cache first.
///
/// # Errors
/// Any [`ImportError`]. The cache is then as it was. Blocks may have gone to the sink.
pub fn import(
    path: &Path,
    options: &ImportOptions<'_>,
    cache: Option<&mut StatCache>,
    sink: Option<&mut dyn BlockSink>,
) -> Result<Imported, ImportError> {
    walk::import(path, options, cache, sink)
}

#[cfg(test)]
mod tests;
