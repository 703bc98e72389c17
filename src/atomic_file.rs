//! Writing a file so that it is there whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// How many links lead to a file at most: what Linux follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// A place whose file may be replaced by another: a regular file is there, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaceable {
    /// The place itself, at the end of the links that lead to it.
    pub path: PathBuf,
    /// The permission bits of the file that is there.
    pub mode: Option<u32>,
}

/// Finds the place that `path` names, over links. What replaces a device, a pipe or a folder would destroy it, and what
/// replaces a link would leave the file alone that was meant.
///
/// # Errors
///
/// `InvalidInput` if something is there that is no regular file; and any error of the file system on the way.
pub fn replaceable(path: &Path) -> io::Result<Replaceable> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            Ok(Replaceable { path: fs::canonicalize(path)?, mode: Some(metadata.permissions().mode() & 0o7777) })
        }
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A link may lead to where nothing is yet.
            let mut end = path.to_owned();
            for _ in 0..LINKS_MAX {
                match fs::read_link(&end) {
                    Ok(target) => end = parent(&end).join(target),
                    Err(_) => break,
                }
            }
            let name = end.file_name().ok_or(io::ErrorKind::NotFound)?;
            Ok(Replaceable { path: fs::canonicalize(parent(&end))?.join(name), mode: None })
        }
        Err(error) => Err(error),
    }
}

/// As [`write()`], for a path that people name: over links, and a file that is there keeps its mode.
///
/// # Errors
///
/// As [`replaceable`] and [`write()`].
pub fn replace(path: &Path, bytes: &[u8], mode_of_new: u32) -> io::Result<()> {
    let Replaceable { path, mode } = replaceable(path)?;
    write(&path, bytes, mode.unwrap_or(mode_of_new))
}

/// Replaces the file at `path` by one with these bytes and this mode (such as `0o600`), whatever the umask is.
///
/// The bytes are on disk before the name points at them, so after a crash there is the old file or the new one. Two
/// processes that write the same path do not disturb each other: the later rename wins.
///
/// # Errors
///
/// Any error of the file system; the old file is then untouched and no temporary file is left.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = parent(path);
    let file = temporary_in(dir, bytes, mode)?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

/// Like [`write()`], but never replaces anything: of several processes that create the same path at once, one succeeds.
///
/// # Errors
///
/// `AlreadyExists` if there is something at `path`, be it a dangling symlink; else as [`write()`].
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = parent(path);
    let file = temporary_in(dir, bytes, mode)?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

/// The folder that holds `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// A file in `dir` with these bytes, on disk, that is removed unless it gets its final name.
fn temporary_in(dir: &Path, bytes: &[u8], mode: u32) -> io::Result<NamedTempFile> {
    let mut file = temporary(dir, mode)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// An empty file in `dir`, of this mode less the umask, that is removed unless it gets its final name. Errors do not name it:
/// nobody knows its name.
pub(crate) fn temporary(dir: &Path, mode: u32) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".ww-")
        .make_in(dir, |path| OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn replaces_content_and_mode_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "old").unwrap();
        write(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_stay_and_so_does_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("below")).unwrap();
        fs::write(at("below/file"), "old").unwrap();
        fs::set_permissions(at("below/file"), Permissions::from_mode(0o400)).unwrap();
        for (link, target) in [("link", "below/file"), ("dangling", "below/new"), ("round", "round")] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        for (path, real, mode) in [("link", "below/file", 0o400), ("dangling", "below/new", 0o644)] {
            replace(&at(path), b"new", 0o644).unwrap();
            assert!(at(path).is_symlink());
            assert_eq!(fs::read(at(real)).unwrap(), b"new");
            assert_eq!(fs::metadata(at(real)).unwrap().permissions().mode() & 0o777, mode);
        }
        for wrong in ["round", "below", "no/folder"] {
            replace(&at(wrong), b"new", 0o644).unwrap_err();
        }
        let pipe = at("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert_eq!(replace(&pipe, b"new", 0o644).unwrap_err().to_string(), "it is no regular file");
        assert!(!fs::metadata(&pipe).unwrap().is_file());
        let error = write(&at("no/file"), b"new", 0o644).unwrap_err().to_string();
        assert!(!error.contains(".ww-"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
    }

    #[test]
    fn create_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, b"first", 0o600).unwrap();
        let error = create(&path, b"second", 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("dir");
        fs::create_dir_all(target.join("child")).unwrap();
        write(&target, b"x", 0o644).unwrap_err();
        assert!(target.join("child").is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
