//! Building directories and symbolic links.

use std::fmt;

use super::super::block::Block;
use super::super::pb;
use super::{BuildError, Data, Kind, Profile, Subtree, hamt, seal};

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
        match name.as_str() {
            "" => Err(NameError::Empty),
            "." | ".." => Err(NameError::Dots(name)),
            text if text.contains(['/', '\0']) => Err(NameError::Character(name)),
            _ => Ok(Self(name)),
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

impl Entry {
    pub(super) fn link(&self) -> pb::Link<'_> {
        pb::Link { cid: self.target.cid, name: Some(self.name.as_str()), tsize: Some(self.target.dag_size) }
    }
}

/// Makes a directory: one block, or a HAMT if the profile's threshold is exceeded. The order of the entries does not
/// matter. Blocks go to a sink, children before their parents.
///
/// # Errors
/// If two entries have one name, or what the sink gives.
///
/// # Panics
/// If the profile has a fanout that is not allowed, and the directory becomes a HAMT.
pub fn directory<E: From<BuildError>>(
    profile: &Profile,
    mut entries: Vec<Entry>,
    sink: &mut impl FnMut(Block) -> Result<(), E>,
) -> Result<Subtree, E> {
    entries.sort_unstable_by(|first, second| first.name.cmp(&second.name));
    if let Some([duplicate, _]) = entries.array_windows().find(|[first, second]| first.name == second.name) {
        return Err(BuildError::DuplicateName { name: duplicate.name.clone() }.into());
    }
    if profile.is_sharded(&entries) {
        return hamt::build(profile, &entries, sink);
    }
    let links = entries.iter().map(Entry::link).collect();
    let (block, subtree) = seal(profile, links, &Data::new(Kind::Directory))?;
    sink(block)?;
    Ok(subtree)
}

/// Makes a symbolic link. The target is any bytes: where it leads is for the reader to confine.
///
/// # Errors
/// If the target does not fit into a block.
pub fn symlink(profile: &Profile, target: &[u8]) -> Result<(Block, Subtree), BuildError> {
    seal(profile, Vec::new(), &Data { data: Some(target), ..Data::new(Kind::Symlink) })
}
