//! The key pair that a node proves its peer id with, and the file that keeps it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::private_file::{self, Refused};
use crate::{atomic_file, escape};

/// The longest identity file that is read, in bytes. An Ed25519 key takes 92; a 4096-bit RSA key, which is read only to
/// be refused by name, about 3,200.
const FILE_LEN_MAX: u64 = 8 * 1024;

/// An Ed25519 key pair. Whoever has it is this node.
///
/// Its `Debug` form shows the peer id and nothing of the private key.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
}

/// Why an identity file could not be used or created. No message holds any of the file's content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file system refused to read.
    #[error("read the identity file {}", escape::path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The file system refused to create it.
    #[error("create the identity file {}", escape::path(path))]
    Create {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// It is a symlink, a folder, or something else that is no regular file.
    #[error("use the identity file {}: it is not a regular file", escape::path(path))]
    NotAFile {
        /// What is not a file.
        path: PathBuf,
    },
    /// Others than its owner may read or change it.
    #[error(
        "use the identity file {0}: others than its owner have access (mode {mode:04o}); run `chmod 600 {0}`",
        escape::path(path)
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is longer than any key.
    #[error("use the identity file {}: it is longer than {FILE_LEN_MAX} bytes", escape::path(path))]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It does not hold a private key in the expected form.
    #[error("use the identity file {}: it is not the base64 of a libp2p private key", escape::path(path))]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// It holds a key of a kind that is not used here.
    #[error(
        "use the identity file {}: it holds a key of type {kind}, and only Ed25519 is supported",
        escape::path(path)
    )]
    KeyType {
        /// The file.
        path: PathBuf,
        /// The kind of key that it holds.
        kind: &'static str,
    },
}

impl Identity {
    /// Makes a new one from the system's random numbers.
    pub fn generate() -> Self {
        Self { keypair: Keypair::generate_ed25519() }
    }

    /// Reads the identity that the file at `path` keeps. If there is none, makes one and keeps it there.
    ///
    /// The file is text: the base64 of libp2p's protobuf form of the private key, as in `Identity.PrivKey` of a Kubo
    /// configuration, with or without a line feed. It is created whole with mode 0600; its folder must exist. Where
    /// two processes create it at once, both end up with the same key.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or created, is a symlink or otherwise no regular file, may be read or changed by
    /// others than its owner, or does not hold an Ed25519 key.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        if let Some(identity) = load(path)? {
            return Ok(identity);
        }
        let identity = Self::generate();
        let created = match atomic_file::create(path, identity.to_text().as_bytes(), 0o600) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return load_created_by_another(path),
            created => created,
        };
        created.map_err(|source| IdentityError::Create { path: path.to_owned(), source })?;
        Ok(identity)
    }

    /// The peer id in base58.
    pub fn id(&self) -> String {
        self.peer_id().to_base58()
    }

    pub(super) fn peer_id(&self) -> PeerId {
        self.keypair.public().to_peer_id()
    }

    pub(super) fn into_keypair(self) -> Keypair {
        self.keypair
    }

    fn to_text(&self) -> String {
        let encoded = self.keypair.to_protobuf_encoding().expect("an Ed25519 key pair has a protobuf form");
        STANDARD.encode(encoded) + "\n"
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The identity in the file, or `None` if there is no such file.
fn load(path: &Path) -> Result<Option<Identity>, IdentityError> {
    let Some(file) = open(path)? else { return Ok(None) };
    let text = read(path, file)?;
    parse(path, &text).map(Some)
}

/// For when the file was absent and then was not: the other process gave it its name with its content complete.
fn load_created_by_another(path: &Path) -> Result<Identity, IdentityError> {
    let gone = || IdentityError::Create { path: path.to_owned(), source: io::ErrorKind::NotFound.into() };
    load(path)?.ok_or_else(gone)
}

/// Opens without following a symlink, and without waiting for the writer of a named pipe.
fn open(path: &Path) -> Result<Option<File>, IdentityError> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            Err(IdentityError::NotAFile { path: path.to_owned() })
        }
        Err(source) => Err(IdentityError::Read { path: path.to_owned(), source }),
    }
}

/// The content of a regular file that is its owner's alone.
fn read(path: &Path, file: File) -> Result<Vec<u8>, IdentityError> {
    private_file::read(file, FILE_LEN_MAX).map_err(|refused| {
        let path = path.to_owned();
        match refused {
            Refused::Io(source) => IdentityError::Read { path, source },
            Refused::NotAFile => IdentityError::NotAFile { path },
            Refused::Permissions(mode) => IdentityError::Permissions { path, mode },
            Refused::TooLong => IdentityError::TooLong { path },
        }
    })
}

fn parse(path: &Path, text: &[u8]) -> Result<Identity, IdentityError> {
    let malformed = || IdentityError::Malformed { path: path.to_owned() };
    let encoded = STANDARD.decode(text.trim_ascii()).map_err(|_| malformed())?;
    if let Some(kind) = other_key_type(&encoded) {
        return Err(IdentityError::KeyType { path: path.to_owned(), kind });
    }
    let keypair = Keypair::from_protobuf_encoding(&encoded).map_err(|_| malformed())?;
    Ok(Identity { keypair })
}

/// The name of the key's type if it is a known one that is not Ed25519.
///
/// `message PrivateKey { required KeyType Type = 1; required bytes Data = 2; }` is encoded with its fields in this
/// order, so the first two bytes are the tag and the type. Source: the libp2p peer-ids specification, "Keys".
fn other_key_type(encoded: &[u8]) -> Option<&'static str> {
    match encoded {
        [0x08, 0, ..] => Some("RSA"),
        [0x08, 2, ..] => Some("Secp256k1"),
        [0x08, 3, ..] => Some("ECDSA"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::symlink;

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The private key of the test vectors in the libp2p peer-ids specification ("Test vectors", Ed25519).
    const KEY_HEX: &str = "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d\
                           1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e";

    fn key_text() -> String {
        let bytes: Vec<u8> =
            (0..KEY_HEX.len()).step_by(2).map(|at| u8::from_str_radix(&KEY_HEX[at..at + 2], 16).unwrap()).collect();
        STANDARD.encode(bytes)
    }

    /// Loads a file with this content and mode, and returns its error's text, in which FILE stands for the file.
    fn check_refused(content: &[u8], mode: u32, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err().to_string();
        assert_eq!(error.replace(path.to_str().unwrap(), "FILE"), expected);
        assert_eq!(fs::read(&path).unwrap(), content, "a refused file is left alone");
    }

    #[test]
    fn reads_what_kubo_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        for text in [key_text(), key_text() + "\n"] {
            atomic_file::write(&path, text.as_bytes(), 0o600).unwrap();
            let identity = Identity::load_or_create(&path).unwrap();
            assert_eq!(identity.to_text().trim_end(), key_text());
        }
    }

    #[test]
    fn creates_once_and_then_loads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        let created = Identity::load_or_create(&path).unwrap();
        let loaded = Identity::load_or_create(&path).unwrap();
        assert_eq!(created.id(), loaded.id());
        assert!(created.id().starts_with("12D3KooW"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn creators_at_once_end_with_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        let ids: Vec<String> = std::thread::scope(|scope| {
            let create = || Identity::load_or_create(&path).unwrap().id();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn refuses_a_file_that_others_have_access_to() {
        for mode in [0o640, 0o604, 0o620, 0o601] {
            let expected = format!(
                "use the identity file FILE: others than its owner have access (mode {mode:04o}); run `chmod 600 FILE`"
            );
            check_refused(key_text().as_bytes(), mode, &expected);
        }
    }

    #[test]
    fn refuses_what_is_no_ed25519_key() {
        let malformed = "use the identity file FILE: it is not the base64 of a libp2p private key";
        check_refused(b"", 0o600, malformed);
        check_refused(b"not base64!", 0o600, malformed);
        check_refused(&key_text().as_bytes()[..88], 0o600, malformed);
        check_refused(STANDARD.encode(b"\x08\x09\x12\x00").as_bytes(), 0o600, malformed);
        check_refused(&[b'A'; 8193], 0o600, "use the identity file FILE: it is longer than 8192 bytes");
        for (kind, name) in [(0, "RSA"), (2, "Secp256k1"), (3, "ECDSA")] {
            let expected =
                format!("use the identity file FILE: it holds a key of type {name}, and only Ed25519 is supported");
            check_refused(STANDARD.encode([0x08, kind, 0x12, 0x01, 0xff]).as_bytes(), 0o600, &expected);
        }
    }

    #[test]
    fn refuses_what_is_no_regular_file() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        atomic_file::write(&key, key_text().as_bytes(), 0o600).unwrap();
        let link = dir.path().join("link");
        symlink(&key, &link).unwrap();
        let dangling = dir.path().join("dangling");
        symlink(dir.path().join("absent"), &dangling).unwrap();
        for path in [&link, &dangling, dir.path(), Path::new("/dev/null")] {
            let error = Identity::load_or_create(path).unwrap_err();
            assert!(matches!(error, IdentityError::NotAFile { .. }), "{error}");
        }
    }

    #[test]
    fn an_absent_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = Identity::load_or_create(&dir.path().join("absent/identity")).unwrap_err();
        assert!(matches!(error, IdentityError::Create { .. }), "{error}");
    }

    #[test]
    fn debug_shows_the_id_alone() {
        let identity = Identity::generate();
        assert_eq!(format!("{identity:?}"), format!("Identity {{ id: {:?}, .. }}", identity.id()));
    }
}
