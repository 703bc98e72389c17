//! `Wetfile.lock` as data: what every guest was made of and what came out, and what every image holds.
//!
//! [`load`] reads the file of a project, [`parse`] a text; [`Lock::render`] gives the text, which is the same for equal
//! locks: sorted, one fact to a line, so that branches which change different facts merge. What is asked (inputs) stands
//! apart from what came out (outputs), which belongs to a toolchain: see [`Toolchain`].
//!
//! Not here: how anything is digested, when the file is written, and what follows from a difference.
//! `docs/lock.md` is the reference of the format.

mod read;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::name::{GuestName, ImageName};
use super::path::ImagePath;
use super::project::Base;
use crate::dag::Cid;
use crate::dag::unixfs::Profile;
use crate::escape;
use crate::folder::Folder;

pub use read::{ParseError, parse};

/// The name of the file in the project's root.
pub const LOCK_FILE_NAME: &str = "Wetfile.lock";

/// The format that this `ww` reads and writes.
pub const FORMAT: u64 = 1;

/// The oldest `ww` that reads [`FORMAT`]; the file says so, for the sake of older ones.
pub const FORMAT_SINCE: &str = "0.1.0";

/// Largest lock in bytes. An image of 100,000 files makes a tenth of it.
pub const LOCK_BYTES_MAX: u64 = 128 << 20;

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// Why there is no lock to be used. The file being absent is none of these.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file could not be read, or is none.
    #[error("cannot read {}", escape::path(.path))]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is larger than [`LOCK_BYTES_MAX`].
    #[error("{} is larger than {LOCK_BYTES_MAX} bytes", escape::path(.path))]
    TooLarge {
        /// Its path.
        path: PathBuf,
    },
    /// Its text is not a lock.
    #[error("{} cannot be used", escape::path(.path))]
    Invalid {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
}

/// A SHA-256, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 32 bytes of it.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of all that a reader gives.
    ///
    /// # Errors
    ///
    /// Those of the reader.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Self> {
        let (mut digest, mut buffer) = (Sha256::new(), vec![0; BUFFER_BYTES]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(Self(digest.finalize().into())),
                Ok(length) => digest.update(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 in hexadecimal digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 64 || !text.bytes().all(is_digit) {
            return Err(DigestError);
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).map_err(|_| DigestError)?;
        }
        Ok(Self(bytes))
    }
}

/// Digests a sequence of facts such that no two sequences give the same bytes: each has its length before it.
#[derive(Clone, Debug, Default)]
pub struct Facts(Sha256);

impl Facts {
    /// Adds a fact.
    pub fn add(&mut self, fact: impl AsRef<[u8]>) {
        let fact = fact.as_ref();
        self.0.update((fact.len() as u64).to_le_bytes());
        self.0.update(fact);
    }

    /// The digest of all facts so far.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// What compiled a guest, as far as its bytes depend on it: compiler, standard library, profile, and the recipe of `ww`
/// itself. A text for people, and equal for equal toolchains, whatever machine they are on.
///
/// Of a command's tools nothing is known; all of them are [`Toolchain::command`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Toolchain(String);

/// Longest text of a [`Toolchain`] in bytes. Those of Rust have about 100; several are joined for an image.
const TOOLCHAIN_BYTES_MAX: usize = 4096;

impl Toolchain {
    /// Takes a text, if it is one line of printable ASCII.
    pub fn new(text: &str) -> Option<Self> {
        let is_line = (1..=TOOLCHAIN_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        is_line.then(|| Self(text.to_owned()))
    }

    /// That of all command guests.
    pub fn command() -> Self {
        Self("command".to_owned())
    }

    /// That of an image whose compiled files come from these; `copied` if it has none.
    pub fn joined<'t>(toolchains: impl IntoIterator<Item = &'t Self>) -> Self {
        let distinct: std::collections::BTreeSet<&str> = toolchains.into_iter().map(Self::as_str).collect();
        if distinct.is_empty() {
            return Self("copied".to_owned());
        }
        Self(distinct.into_iter().collect::<Vec<_>>().join(" + "))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A whole lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// Guests by name.
    pub guests: BTreeMap<GuestName, GuestLock>,
    /// Images by name.
    pub images: BTreeMap<ImageName, ImageLock>,
}

/// What a guest was made of, and what came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestLock {
    /// What it was made of.
    pub inputs: Inputs,
    /// The digest of its artifact by what compiled it.
    pub outputs: BTreeMap<Toolchain, Digest>,
}

/// What a guest is made of, machine and toolchain aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// What the Wetfile says of how it is built.
    pub recipe: Digest,
    /// The values of the variables that it inherits, if it inherits any.
    pub environment: Option<Digest>,
    /// Files and folders that its build reads, each with a digest of its content. For a Rust guest the keys are paths
    /// relative to the project's root, for a command guest its `inputs` as written.
    pub roots: BTreeMap<String, Digest>,
    /// The guests that it embeds, each with the [`Inputs::digest`] that it had.
    pub embeds: BTreeMap<GuestName, Digest>,
}

impl Inputs {
    /// The digest of all of it.
    pub fn digest(&self) -> Digest {
        let mut facts = Facts::default();
        facts.add(self.recipe.0);
        facts.add(self.environment.map_or_else(Vec::new, |digest| digest.0.to_vec()));
        facts.add((self.roots.len() as u64).to_le_bytes());
        for (root, digest) in &self.roots {
            facts.add(root);
            facts.add(digest.0);
        }
        for (guest, digest) in &self.embeds {
            facts.add(guest.as_str());
            facts.add(digest.0);
        }
        facts.finish()
    }
}

/// What an image holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLock {
    /// How every CID here was made.
    pub profile: Profile,
    /// The guests whose artifacts it holds, each with the [`Inputs::digest`] that it had.
    pub guests: BTreeMap<GuestName, Digest>,
    /// The entries of the Wetfile that are copied, by their place in the image, each with the CID of its source.
    pub sources: BTreeMap<ImagePath, Cid>,
    /// Those of [`ImageLock::sources`] that the Wetfile takes by a CID, with that CID, which may be of another profile.
    pub contents: BTreeMap<ImagePath, Cid>,
    /// What it begins as.
    pub base: Option<Base>,
    /// Everything in it but the folders that hold something, by path.
    pub files: BTreeMap<String, LockedFile>,
    /// The CID of the whole image by what compiled its guests.
    pub cids: BTreeMap<Toolchain, Cid>,
}

/// What is at a path of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockedFile {
    /// A file, symlink or empty folder that was copied.
    Copied(Cid),
    /// The artifact of a guest.
    Guest(GuestName),
}

/// Reads the lock of the project at `root`; `None` if there is none.
///
/// # Errors
///
/// [`LockError`].
pub fn load(root: &Path) -> Result<Option<Lock>, LockError> {
    let path = root.join(LOCK_FILE_NAME);
    let read_error = |source| LockError::Read { path: path.clone(), source };
    let folder = Folder::open(root).map_err(read_error)?;
    if folder.stat(LOCK_FILE_NAME).map_err(read_error)?.is_none() {
        return Ok(None);
    }
    let file = folder.file(LOCK_FILE_NAME).map_err(read_error)?;
    let text = match read_bounded(file).map_err(read_error)? {
        Some(bytes) => String::from_utf8(bytes),
        None => return Err(LockError::TooLarge { path }),
    };
    let text = text.map_err(|_| ParseError::not_utf8());
    let lock = text.and_then(|text| parse(&text));
    lock.map(Some).map_err(|source| LockError::Invalid { path, source })
}

fn read_bounded(file: File) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(LOCK_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= LOCK_BYTES_MAX).then_some(bytes))
}

#[cfg(test)]
mod tests;
