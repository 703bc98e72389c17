//! What the checks ask about the files of a project.

use std::io;
use std::path::PathBuf;

use super::path::ProjectPath;

/// What lies at a path, symlinks not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symlink, whatever it points to.
    Symlink,
    /// A socket, a device, a pipe.
    Other,
}

/// The files of a project, as far as checking needs to know them.
///
/// The disk is one; the tests, and whoever checks a text without its project, have others.
pub trait Tree {
    /// What lies at a path, `None` for nothing. Symlinks at the path itself are not followed.
    ///
    /// # Errors
    ///
    /// When it cannot be found out.
    fn kind(&self, path: &ProjectPath) -> io::Result<Option<Kind>>;

    /// The names of regular files that lie in a folder itself, sorted; those that are not UTF-8 are left out.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed, or has more than [`LISTED_MAX`] entries.
    fn files(&self, folder: &ProjectPath) -> io::Result<Vec<String>>;
}

/// Most entries of a folder that is listed. The check of a Wetfile must stay quick, and sources do not lie among so many.
pub const LISTED_MAX: usize = 10_000;

/// The files below a folder on disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The project's root.
    pub root: PathBuf,
}

impl Tree for Disk {
    fn kind(&self, path: &ProjectPath) -> io::Result<Option<Kind>> {
        let file_type = match path.to_path(&self.root).symlink_metadata() {
            Ok(metadata) => metadata.file_type(),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(Some(if file_type.is_file() {
            Kind::File
        } else if file_type.is_dir() {
            Kind::Folder
        } else if file_type.is_symlink() {
            Kind::Symlink
        } else {
            Kind::Other
        }))
    }

    fn files(&self, folder: &ProjectPath) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        for (count, entry) in folder.to_path(&self.root).read_dir()?.enumerate() {
            if count >= LISTED_MAX {
                return Err(io::Error::other(format!("there are more than {LISTED_MAX} entries in it")));
            }
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.extend(entry.file_name().into_string());
            }
        }
        files.sort_unstable();
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_disk_tells_kinds_and_follows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        symlink("folder", dir.path().join("link")).unwrap();
        symlink("nowhere", dir.path().join("broken")).unwrap();
        let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
        let disk = Disk { root: dir.path().to_owned() };
        let kind = |text| disk.kind(&ProjectPath::new(text).unwrap()).unwrap();
        assert_eq!(kind("."), Some(Kind::Folder));
        assert_eq!(kind("file"), Some(Kind::File));
        assert_eq!(kind("folder"), Some(Kind::Folder));
        assert_eq!(kind("link"), Some(Kind::Symlink));
        assert_eq!(kind("broken"), Some(Kind::Symlink));
        assert_eq!(kind("socket"), Some(Kind::Other));
        assert_eq!(kind("nothing"), None);
        assert_eq!(kind("file/below"), None);
        fs::write(dir.path().join("another"), "").unwrap();
        assert_eq!(disk.files(&ProjectPath::root()).unwrap(), ["another", "file"]);
        disk.files(&ProjectPath::new("nothing").unwrap()).unwrap_err();
    }
}
