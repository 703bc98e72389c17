//! The file of `--status-file`: how a run ended, for programs.
//!
//! Whether it can be written is found out before anything runs, and what an earlier run left there goes then: whatever
//! happens later, nobody takes that for this run's.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::Failure;
use super::{env, exit_code};
use crate::atomic_file::{self, Replaceable};
use crate::escape;
use crate::folder::{FILE_MODE, Folder};

/// The flag, as messages call it.
const FLAG: &str = "--status-file";

/// What a status file must not take the place of: how messages call it, and its path.
pub(super) type Others<'a> = [(&'a str, PathBuf)];

/// A place where a status file can be written. Its folder is held open: nobody who can rename folders meanwhile, as a guest in
/// a folder that it may change, leads it elsewhere.
#[derive(Debug)]
pub(super) struct StatusFile {
    /// The path as given.
    given: PathBuf,
    folder: Folder,
    name: OsString,
    /// What the file is called while it is written.
    temporary: String,
    /// The permission bits of the file that was there, or of a new one.
    mode: u32,
}

impl StatusFile {
    /// Makes sure that the file can be written, and removes the one that is there.
    pub(super) fn prepare(given: &Path, others: &Others<'_>) -> Result<Self, Failure> {
        let wrong = |message: String| Failure::message(exit_code::RUN_FAILURE, message);
        let shown = escape::path(given);
        let failed = |error: io::Error| {
            Failure::caused(exit_code::RUN_FAILURE, format!("the status file {shown} cannot be written"), &error)
        };
        if given == Path::new("-") {
            return Err(wrong(format!("{FLAG} - is no file; give the path of a file, which is replaced whole"))
                .with_help(format!("for a file of this name: {FLAG} ./-")));
        }
        let Replaceable { path, mode } = atomic_file::replaceable(given).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => {
                wrong(format!("{FLAG} {shown} is no regular file; give the path of a file, which is replaced whole"))
            }
            _ => failed(error),
        })?;
        if mode.is_some() && is_standard_stream(&path) {
            return Err(wrong(format!(
                "{FLAG} {shown} is where a standard stream goes; give the path of another file"
            )));
        }
        for (what, other) in others {
            if is_or_holds(other, &path) {
                return Err(wrong(format!("{FLAG} {shown} is a file of {what}; give the path of another")));
            }
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        };
        let folder = Folder::open(folder).map_err(failed)?;
        let temporary = format!(".ww-status-{}", std::process::id());
        // What a killed process of this number left; then the proof that there can be such a file.
        folder.remove_file(&temporary).map_err(failed)?;
        folder.new_file(&temporary).map_err(failed)?;
        folder.remove_file(&temporary).map_err(failed)?;
        folder.remove_file(name).map_err(failed)?;
        let (name, mode) = (name.to_owned(), mode.unwrap_or(FILE_MODE));
        Ok(Self { given: given.to_owned(), folder, name, temporary, mode })
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&self, status: &serde_json::Value) -> Result<(), Failure> {
        let written = self.try_write(format!("{status}\n").as_bytes());
        written.map_err(|error| {
            // It may not even be there.
            let _ = self.folder.remove_file(&self.temporary);
            let message = format!("failed to write the status file {}", escape::path(&self.given));
            Failure::caused(exit_code::RUN_FAILURE, message, &error)
        })
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.folder.new_file(&self.temporary)?;
        file.set_permissions(Permissions::from_mode(self.mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.folder.replace(&self.temporary, &self.folder, &self.name)?;
        self.folder.sync()
    }
}

/// Whether a file is the one that a standard stream of this process reads or writes.
fn is_standard_stream(path: &Path) -> bool {
    let Ok(file) = fs::metadata(path) else { return false };
    let is_it =
        |stream: File| stream.metadata().is_ok_and(|stream| (stream.dev(), stream.ino()) == (file.dev(), file.ino()));
    env::standard_streams().is_ok_and(|streams| streams.map(File::from).into_iter().any(is_it))
}

/// Whether `other` is the file at `place`, by any name of it, or a folder that has it somewhere in it.
fn is_or_holds(other: &Path, place: &Path) -> bool {
    let is_same_file = match (fs::metadata(other), fs::metadata(place)) {
        (Ok(other), Ok(place)) => (other.dev(), other.ino()) == (place.dev(), place.ino()),
        _ => false,
    };
    // What is not there yet has a place already.
    let other = atomic_file::replaceable(other).map(|other| other.path).or_else(|_| fs::canonicalize(other));
    is_same_file || other.is_ok_and(|other| place.starts_with(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_is_replaced_and_keeps_its_links_and_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "of an earlier run").unwrap();
        fs::set_permissions(at("file"), Permissions::from_mode(0o400)).unwrap();
        symlink("file", at("link")).unwrap();
        let file = StatusFile::prepare(&at("link"), &[]).unwrap();
        assert!(!at("file").exists(), "what an earlier run left is gone before this one begins");
        file.write(&json!({ "code": 0 })).unwrap();
        assert_eq!(fs::read_to_string(at("link")).unwrap(), "{\"code\":0}\n");
        assert!(at("link").is_symlink());
        assert_eq!(fs::metadata(at("file")).unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_no_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        symlink("pipe", dir.path().join("link")).unwrap();
        for path in [&pipe, &dir.path().join("link"), dir.path()] {
            let refused = StatusFile::prepare(path, &[]).unwrap_err().message;
            let expected = format!(
                "--status-file {} is no regular file; give the path of a file, which is replaced whole",
                path.display()
            );
            assert_eq!(refused, expected);
        }
        assert!(!fs::symlink_metadata(&pipe).unwrap().is_file());
        assert!(StatusFile::prepare(Path::new("-"), &[]).unwrap_err().message.contains("is no file"));
        let refused = StatusFile::prepare(&dir.path().join("no/file"), &[]).unwrap_err();
        assert!(!refused.causes.join(" ").contains(".ww"), "{refused:?}");
    }

    #[test]
    fn what_another_flag_names_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("image/bin")).unwrap();
        fs::write(at("key"), "secret").unwrap();
        fs::hard_link(at("key"), at("same")).unwrap();
        symlink("key", at("link")).unwrap();
        let refused = |path: &str, other: &str| {
            let other = at(other);
            let refused = StatusFile::prepare(&at(path), &[("--identity", other.clone())]);
            refused.unwrap_err().message.contains("is a file of --identity")
        };
        assert!(refused("key", "key") && refused("link", "key") && refused("key", "link") && refused("same", "key"));
        assert!(refused("new", "new") && refused("image/bin/main.wasm", "image"));
        assert_eq!(fs::read(at("key")).unwrap(), b"secret");
        StatusFile::prepare(&at("other"), &[("--identity", at("key"))]).unwrap();
    }
}
