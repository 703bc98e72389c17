//! What a tree answers when it cannot do what it was asked.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

/// Why a tree did not do what it was asked. These are the errors that a POSIX program expects of its file system.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VfsError {
    /// There is nothing under the name.
    #[error("no such file or directory")]
    NoEntry,
    /// There is something under the name.
    #[error("it exists")]
    Exists,
    /// A directory is needed, and it is none.
    #[error("not a directory")]
    NotDirectory,
    /// It is a directory, and something else is needed.
    #[error("is a directory")]
    IsDirectory,
    /// A directory has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// The path leads out of what may be reached, or the object is of a kind that may not be used.
    #[error("not permitted")]
    NotPermitted,
    /// The host's file system refuses it to this user.
    #[error("permission denied")]
    Access,
    /// The tree cannot be changed.
    #[error("read-only file system")]
    ReadOnly,
    /// Too many symbolic links on the way, or one where none is wanted.
    #[error("too many levels of symbolic links")]
    Loop,
    /// A name, a path or the depth of a tree is over its bound.
    #[error("name too long")]
    NameTooLong,
    /// A name that is not UTF-8, or has a byte that no name may have.
    #[error("illegal byte sequence")]
    IllegalName,
    /// The arguments make no sense.
    #[error("invalid argument")]
    Invalid,
    /// The file would be larger than files can be.
    #[error("file too large")]
    FileTooLarge,
    /// There is no room left, in the bound of the tree or on the disk.
    #[error("no space left")]
    NoSpace,
    /// What it would take is over what may still be used.
    #[error("quota exceeded")]
    Quota,
    /// What would have to be held in memory for this is over a bound.
    #[error("not enough memory")]
    NoMemory,
    /// Two directories of different trees.
    #[error("it is in another tree")]
    CrossDevice,
    /// It is in use, as a mount point is.
    #[error("it is in use")]
    Busy,
    /// What was found under the name was replaced before it was opened.
    #[error("it was replaced meanwhile")]
    Replaced,
    /// The tree cannot do this.
    #[error("not supported")]
    Unsupported,
    /// The bytes could not be had, or not be written.
    #[error("input or output failed")]
    Io(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl VfsError {
    /// Any other failure of what keeps the bytes.
    pub fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<Errno> for VfsError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT => Self::NoEntry,
            Errno::EXIST => Self::Exists,
            Errno::NOTDIR => Self::NotDirectory,
            Errno::ISDIR => Self::IsDirectory,
            Errno::NOTEMPTY => Self::NotEmpty,
            Errno::PERM => Self::NotPermitted,
            Errno::ACCESS => Self::Access,
            Errno::ROFS => Self::ReadOnly,
            Errno::LOOP => Self::Loop,
            Errno::NAMETOOLONG => Self::NameTooLong,
            Errno::ILSEQ => Self::IllegalName,
            Errno::INVAL => Self::Invalid,
            Errno::FBIG => Self::FileTooLarge,
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace,
            Errno::NOMEM => Self::NoMemory,
            Errno::XDEV => Self::CrossDevice,
            Errno::BUSY => Self::Busy,
            Errno::NOTSUP => Self::Unsupported,
            other => Self::Io(Arc::new(io::Error::from(other))),
        }
    }
}

impl From<io::Error> for VfsError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(code) => code.into(),
            None => Self::Io(Arc::new(error)),
        }
    }
}
