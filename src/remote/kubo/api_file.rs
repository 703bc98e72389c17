//! The file in which a running Kubo node says where its RPC is.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Address, AddressError};
use crate::escape;
use crate::private_file::{self, Distrusted, Refused};

/// The name of the file in Kubo's folder.
pub const API_FILE: &str = "api";

/// The longest file that is read, in bytes: a multiaddr with the longest host name or path.
const FILE_BYTES_MAX: u64 = 8 * 1024;

/// Why the file that says where a Kubo node is cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiFileError {
    /// There is none: no Kubo node runs on this folder.
    #[error("there is no {}", escape::path(path))]
    Absent {
        /// Where it would be.
        path: PathBuf,
    },
    /// The file system refused to read.
    #[error("cannot read {}", escape::path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// It is a symlink, a folder, a pipe or a device.
    #[error("{} is not a regular file", escape::path(path))]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to another user, who could have blocks sent to wherever they like.
    #[error("{} belongs to another user", escape::path(path))]
    Owner {
        /// The file.
        path: PathBuf,
    },
    /// Others may write it.
    #[error("others may write {}", escape::path(path))]
    Writable {
        /// The file.
        path: PathBuf,
    },
    /// It does not hold an address.
    #[error("{} does not hold an address", escape::path(path))]
    Address {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Option<AddressError>,
    },
}

impl Address {
    /// Reads where the Kubo node is that keeps its state in `folder`, which is `$IPFS_PATH` or `~/.ipfs`.
    ///
    /// The file is trusted only if it belongs to this user and nobody else may write it. Whether a node still listens
    /// there is not known: one that was killed leaves the file behind.
    ///
    /// # Errors
    /// If there is no such file, it is not trusted, or it does not hold an address.
    pub fn of_local_node(folder: &Path) -> Result<Self, ApiFileError> {
        let path = folder.join(API_FILE);
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) => return Err(open_error(path, error)),
        };
        let bytes = match private_file::read_trusted(file, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(Distrusted::Owner(user)) => {
                tracing::debug!(user, "whose it is");
                return Err(ApiFileError::Owner { path });
            }
            Err(Distrusted::Refused(Refused::Io(source))) => return Err(ApiFileError::Read { path, source }),
            Err(Distrusted::Refused(Refused::NotAFile)) => return Err(ApiFileError::NotAFile { path }),
            Err(Distrusted::Refused(Refused::Permissions(_))) => return Err(ApiFileError::Writable { path }),
            Err(Distrusted::Refused(Refused::TooLong)) => return Err(ApiFileError::Address { path, source: None }),
        };
        let Ok(text) = std::str::from_utf8(&bytes) else { return Err(ApiFileError::Address { path, source: None }) };
        text.parse().map_err(|source| ApiFileError::Address { path, source: Some(source) })
    }
}

fn open_error(path: PathBuf, error: io::Error) -> ApiFileError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ApiFileError::Absent { path },
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => ApiFileError::NotAFile { path },
        _ => ApiFileError::Read { path, source: error },
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn check(content: &[u8], mode: u32) -> Result<Address, ApiFileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(API_FILE);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Address::of_local_node(dir.path())
    }

    #[test]
    fn what_kubo_writes_is_read() {
        let address = check(b"/ip4/127.0.0.1/tcp/5001", 0o600).unwrap();
        assert_eq!(address.to_string(), "http://127.0.0.1:5001");
        // Kubo's own mode.
        check(b"/ip4/127.0.0.1/tcp/5001\n", 0o644).unwrap();
    }

    #[test]
    fn what_others_could_have_written_is_not() {
        for mode in [0o666, 0o602, 0o620] {
            assert!(matches!(check(b"/ip4/127.0.0.1/tcp/5001", mode), Err(ApiFileError::Writable { .. })));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(API_FILE);
        fs::write(&path, "/ip4/127.0.0.1/tcp/5001").unwrap();
        // Only root may give a file away.
        if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
            assert!(matches!(Address::of_local_node(dir.path()), Err(ApiFileError::Owner { .. })));
        }
        fs::remove_file(&path).unwrap();
        symlink("/proc/version", &path).unwrap();
        assert!(matches!(Address::of_local_node(dir.path()), Err(ApiFileError::NotAFile { .. })));
    }

    #[test]
    fn garbage_and_absence_are_errors() {
        for content in [&b""[..], b"garbage", b"\xff\xfe", &[b'/'; 10_000]] {
            assert!(matches!(check(content, 0o600), Err(ApiFileError::Address { .. })));
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Address::of_local_node(dir.path()), Err(ApiFileError::Absent { .. })));
        assert!(matches!(Address::of_local_node(&dir.path().join("x/y")), Err(ApiFileError::Absent { .. })));
        fs::create_dir(dir.path().join(API_FILE)).unwrap();
        assert!(matches!(Address::of_local_node(dir.path()), Err(ApiFileError::NotAFile { .. })));
    }
}
