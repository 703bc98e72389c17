//! Where an exported tree is written, and where it goes.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use super::ExportError;
use crate::folder::Folder;

/// The name of the tree while it is written.
pub(super) const TREE: &str = "tree";

/// How many names are tried for the temporary folder. More than one are taken only if somebody guesses them.
const NAMES_MAX: usize = 16;

/// A target, and a temporary folder beside it.
pub(super) struct Place {
    target: PathBuf,
    name: OsString,
    parent: Folder,
    work_name: OsString,
    /// The folder in which the tree is written as [`TREE`].
    pub(super) work: Folder,
}

impl Place {
    /// Makes the temporary folder. There must be nothing at the target.
    pub(super) fn open(target: &Path) -> Result<Self, ExportError> {
        let io = |action| move |source| ExportError::Io { action, path: target.to_owned(), source };
        let exists = || ExportError::Exists { path: target.to_owned() };
        // Without a name it is a folder that is there for sure, such as `..`.
        let name = target.file_name().ok_or_else(exists)?.to_owned();
        if target.symlink_metadata().is_ok() {
            return Err(exists());
        }
        let parent_path = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = Folder::open(parent_path);
        let parent =
            parent.map_err(|source| ExportError::Io { action: "open", path: parent_path.to_owned(), source })?;
        let (work_name, work) = make_work(&parent, &name).map_err(io("make"))?;
        Ok(Self { target: target.to_owned(), name, parent, work_name, work })
    }

    /// Gives the tree its name.
    pub(super) fn publish(&self) -> Result<(), ExportError> {
        self.work.move_any_new(TREE, &self.parent, &self.name).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
                ExportError::Exists { path: self.target.clone() }
            }
            _ => ExportError::Io { action: "make", path: self.target.clone(), source },
        })
    }

    /// Removes the temporary folder with what is left in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.work.clear("").and_then(|()| self.parent.remove_empty(&self.work_name))
    }

    /// A path below the target, for messages.
    pub(super) fn shown(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.target.clone() } else { self.target.join(path) }
    }
}

/// Makes a folder with a name that nobody has: `.NAME.ww-` and a number.
fn make_work(parent: &Folder, name: &OsStr) -> io::Result<(OsString, Folder)> {
    let mut result = Err(io::ErrorKind::AlreadyExists.into());
    for _ in 0..NAMES_MAX {
        let number = RandomState::new().build_hasher().finish();
        let work_name = work_name(name, number);
        match parent.new_private_folder(&work_name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => result = Err(error),
            other => return other.map(|work| (work_name, work)),
        }
    }
    result
}

/// The name is left out where both together would be too long for a file system.
fn work_name(name: &OsStr, number: u64) -> OsString {
    let name = if name.len() > 200 { OsStr::new("tree") } else { name };
    let mut work_name = OsString::from(".");
    work_name.push(name);
    work_name.push(format!(".ww-{number:016x}"));
    work_name
}
