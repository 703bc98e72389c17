//! Files with secrets, such as keys and tokens: whoever uses one makes sure that it is its owner's alone.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;

/// Why a file with a secret is not used.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The file system refused.
    Io(io::Error),
    /// It is a folder, a pipe or a device.
    NotAFile,
    /// Others than its owner may read or change it; its permission bits.
    Permissions(u32),
    /// It is longer than allowed.
    TooLong,
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The content of a regular file of at most `bytes_max` bytes that is its owner's alone.
pub(crate) fn read(file: File, bytes_max: u64) -> Result<Vec<u8>, Refused> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Refused::NotAFile);
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Refused::Permissions(mode));
    }
    let mut content = Vec::new();
    // The file may grow while it is read.
    file.take(bytes_max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max { Err(Refused::TooLong) } else { Ok(content) }
}
