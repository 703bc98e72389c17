//! Building directories and symbolic links.

use std::fmt;

use super::super::block::Block;
use super::{BuildError, Data, Entries, Kind, Profile, Subtree, seal};

/// The message in the data of a directory that is no HAMT.
pub(super) const DIRECTORY_MESSAGE: &[u8] = &[8, 1];

/// Why a text is not the name of a directory's entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("a name is empty")]
    Empty,
    /// It is `.` or `..`.
    #[error("the name `{0}` means another directory")]
    Dots(String),
    /// It has a character that no file system allows.
    #[error("the name `{}` contains a slash or a zero byte", crate::escape::text(.0))]
    Character(String),
}

/// The name of a directory's entry: not empty, neither `.` nor `..`, without `/` and NUL. So joining it to a path leads
/// one level down and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName(String);

impl EntryName {
    /// Checks a name.
    ///
    /// # Errors
    /// If it is not allowed.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        Self::check(&name)?;
        Ok(Self(name))
    }

    /// Checks a name that is not to be kept.
    pub(super) fn check(name: &str) -> Result<(), NameError> {
        match name {
            "" => Err(NameError::Empty),
            "." | ".." => Err(NameError::Dots(name.to_owned())),
            text if text.bytes().any(|byte| matches!(byte, b'/' | 0)) => Err(NameError::Character(name.to_owned())),
            _ => Ok(()),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntryName {
    /// Escaped, since names may have control characters.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&crate::escape::text(&self.0))
    }
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: EntryName,
    /// What has this name. When it was read, its size is a claim of whoever wrote the directory.
    pub target: Subtree,
}

/// Makes a directory: one block, or a HAMT if the profile's threshold is exceeded. The order of the entries does not
/// matter. Blocks go to a sink, children before their parents. Of very many entries, [`Entries`] take less memory.
///
/// # Errors
/// If two entries have one name, or what the sink gives.
///
/// # Panics
/// If the profile has a fanout that is not allowed, and the directory becomes a HAMT.
pub fn directory<E: From<BuildError>>(
    profile: &Profile,
    entries: Vec<Entry>,
    sink: &mut impl FnMut(Block) -> Result<(), E>,
) -> Result<Subtree, E> {
    let entries = entries.iter().collect::<Entries>();
    entries.directory(profile, sink)
}

/// Makes a symbolic link. The target is any bytes: where it leads is for the reader to confine.
///
/// # Errors
/// If the target does not fit into a block.
pub fn symlink(profile: &Profile, target: &[u8]) -> Result<(Block, Subtree), BuildError> {
    seal(profile, Vec::new(), &Data { data: Some(target), ..Data::new(Kind::Symlink) })
}
