//! The secret that a Kubo node asks for, and the file that keeps it.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use rustix::fs::OFlags;

use crate::escape;
use crate::private_file::{self, Refused};

/// The longest token file that is read, in bytes: the longest header that servers commonly take.
const FILE_BYTES_MAX: u64 = 8 * 1024;

/// What is sent as `Authorization`. Its `Debug` form does not show it.
#[derive(Clone)]
pub struct Token(HeaderValue);

/// Why a token file cannot be used. No message holds any of its content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file system refused to read.
    #[error("cannot read the token file {}", escape::path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// It is a folder, a pipe or a device.
    #[error("cannot use the token file {}: it is not a regular file", escape::path(path))]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may read or change it.
    #[error(
        "cannot use the token file {0}: others than its owner have access (mode {mode:04o}); run `chmod 600 {0}`",
        escape::path(path)
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is empty, too long, of several lines, or has characters that cannot be sent.
    #[error("cannot use the token file {}: it must hold one line with a token, or `user:password`", escape::path(path))]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl Token {
    /// Reads a token from a file that only its owner may read.
    ///
    /// It is one line: a token, `user:password`, or one of them as Kubo's own `--api-auth` has it, `bearer:TOKEN` and
    /// `basic:USER:PASSWORD`.
    ///
    /// # Errors
    /// If the file cannot be read, is no regular file, may be read or changed by others, or holds something else.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let read_error = |source| TokenError::Read { path: path.to_owned(), source };
        // Whoever opens a pipe would wait for its writer.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(read_error)?;
        let malformed = || TokenError::Malformed { path: path.to_owned() };
        let text = private_file::read(file, FILE_BYTES_MAX).map_err(|refused| match refused {
            Refused::Io(source) => read_error(source),
            Refused::NotAFile => TokenError::NotAFile { path: path.to_owned() },
            Refused::Permissions(mode) => TokenError::Permissions { path: path.to_owned(), mode },
            Refused::TooLong => malformed(),
        })?;
        std::str::from_utf8(&text).ok().and_then(|text| Self::parse(text.trim())).ok_or_else(malformed)
    }

    fn parse(text: &str) -> Option<Self> {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let header = if let Some(token) = text.strip_prefix("bearer:") {
            bearer(token)?
        } else if let Some(pair) = text.strip_prefix("basic:") {
            pair.contains(':').then(|| basic(pair))?
        } else if text.contains(':') {
            basic(text)
        } else {
            bearer(text)?
        };
        if text.chars().any(char::is_control) {
            return None;
        }
        let mut value = HeaderValue::from_str(&header).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// A token as RFC 6750 has it is visible ASCII without spaces.
fn bearer(token: &str) -> Option<String> {
    let is_fine = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_fine.then(|| format!("Bearer {token}"))
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn load(content: &[u8], mode: u32) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let token = Token::load(&path).map_err(|error| error.to_string())?;
        assert!(!format!("{token:?} {:?}", token.header()).contains("ecret"));
        Ok(token.header().to_str().unwrap().to_owned())
    }

    #[test]
    fn every_form_is_read() {
        for (content, header) in [
            ("secret", "Bearer secret"),
            ("secret\n", "Bearer secret"),
            ("bearer:secret\n", "Bearer secret"),
            // printf me:secret | base64
            ("me:secret\n", "Basic bWU6c2VjcmV0"),
            ("basic:me:secret", "Basic bWU6c2VjcmV0"),
            // printf me:sécret | base64
            ("me:s\u{e9}cret", "Basic bWU6c8OpY3JldA=="),
        ] {
            assert_eq!(load(content.as_bytes(), 0o600).unwrap(), header, "{content}");
        }
        load(b"secret", 0o400).unwrap();
    }

    #[test]
    fn others_may_not_read_it() {
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644] {
            let error = load(b"secret", mode).unwrap_err();
            assert!(error.contains("others than its owner") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for content in
            [&b""[..], b"\n", b"two\nlines", b"two words", b"a\0b", b"\xff", b"me:a\r\nX: y", b"bearer:", b"basic:me"]
        {
            let error = load(content, 0o600).unwrap_err();
            assert!(error.contains("one line with a token"), "{content:?}: {error}");
        }
        load(&[b'a'; 8193], 0o600).unwrap_err();
        assert!(matches!(Token::load(Path::new("/dev/null")), Err(TokenError::NotAFile { .. })));
        assert!(matches!(Token::load(Path::new("/absent")), Err(TokenError::Read { .. })));
    }
}
