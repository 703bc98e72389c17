//! Files that others must not read, such as keys and tokens, or not change, such as those that say what may be done:
//! whoever uses one makes sure of that.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// Why a file is not used.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The file system refused.
    Io(io::Error),
    /// It is a folder, a pipe or a device.
    NotAFile,
    /// Others than its owner may change it, or read a secret in it; its permission bits.
    Permissions(u32),
    /// It is longer than allowed.
    TooLong,
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Why what a file says is not believed.
#[derive(Debug)]
pub(crate) enum Distrusted {
    /// It is another user's, who has this number.
    Owner(u32),
    /// Something else is wrong with it.
    Refused(Refused),
}

impl From<Refused> for Distrusted {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// The content of a regular file of at most `bytes_max` bytes that is its owner's alone.
pub(crate) fn read(file: File, bytes_max: u64) -> Result<Vec<u8>, Refused> {
    let metadata = file.metadata()?;
    check(&metadata, 0o077)?;
    read_bounded(file, bytes_max)
}

/// The content of a regular file of at most `bytes_max` bytes that belongs to this user, and that nobody else can change.
pub(crate) fn read_trusted(file: File, bytes_max: u64) -> Result<Vec<u8>, Distrusted> {
    let metadata = file.metadata().map_err(Refused::from)?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(Distrusted::Owner(metadata.uid()));
    }
    check(&metadata, 0o022)?;
    Ok(read_bounded(file, bytes_max)?)
}

/// Refuses what is no regular file, and permissions that it must not have.
fn check(metadata: &Metadata, forbidden: u32) -> Result<(), Refused> {
    let mode = metadata.permissions().mode() & 0o7777;
    match metadata.is_file() {
        false => Err(Refused::NotAFile),
        true if mode & forbidden != 0 => Err(Refused::Permissions(mode)),
        true => Ok(()),
    }
}

fn read_bounded(file: File, bytes_max: u64) -> Result<Vec<u8>, Refused> {
    let mut content = Vec::new();
    // The file may grow while it is read.
    file.take(bytes_max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max { Err(Refused::TooLong) } else { Ok(content) }
}
