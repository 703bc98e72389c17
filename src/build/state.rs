//! The state of builds below a project's root, and the lock that lets one `ww` at a time change it.
//!
//! ```text
//! target/ww/
//!   lock               held while a `ww` builds in this project
//!   format             version of all that follows, as a decimal number
//!   .gitignore         keeps the folder out of git
//!   guests/NAME.wasm   artifacts
//!   out/NAME/          where the command of a guest writes, while it runs
//!   cargo/             cargo's target folder for all Rust guests
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::{Cancel, Event, Events};
use crate::wetfile::GuestName;
use crate::{atomic_file, escape};

/// Version of the layout above, and of how crates are compiled: raised whenever a crate that cargo finds compiled in
/// `cargo/` would not be what this version makes of it (see [`rustc_wrapper`](super::rustc_wrapper)).
const FORMAT: u32 = 1;

/// Mode of artifacts and of the other files of ours.
const FILE_MODE: u32 = 0o644;

/// How often a `ww` that waits asks for the lock. It has to look whether it was stopped, too.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Why the state could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A newer `ww` has built here.
    #[error(
        "{} was written by a newer ww: use that one, or remove {}",
        escape::path(.dir.join("format").as_path()),
        escape::path(.dir)
    )]
    Newer {
        /// The folder of the state.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {action} {}", escape::path(.path))]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The file system's answer.
        #[source]
        source: io::Error,
    },
    /// The build was stopped while it waited for another one.
    #[error("stopped")]
    Cancelled,
}

impl StateError {
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// The state of a project. Holding one means that no other `ww` changes it, nor any image of the project.
#[derive(Debug)]
pub struct State {
    root: PathBuf,
    dir: PathBuf,
    /// Locked. The lock ends with the file, also when the process is killed.
    _lock: File,
}

impl State {
    /// Opens the state of the project at `root`, makes it if there is none, and waits until no other `ww` holds it.
    ///
    /// # Errors
    ///
    /// [`StateError`], also when the wait is cut short by `cancel`.
    pub fn open(root: &Path, cancel: &Cancel, events: Events<'_>) -> Result<Self, StateError> {
        let dir = root.join("target/ww");
        fs::create_dir_all(&dir).map_err(StateError::io("make", &dir))?;
        let lock = lock(&dir.join("lock"), cancel, events)?;
        let state = Self { root: root.to_owned(), dir, _lock: lock };
        state.check_format()?;
        for folder in ["guests", "out", "cargo"] {
            let path = state.dir.join(folder);
            fs::create_dir_all(&path).map_err(StateError::io("make", &path))?;
        }
        Ok(state)
    }

    /// The project's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the artifact of a guest lies, built or not.
    pub fn artifact(&self, guest: &GuestName) -> PathBuf {
        self.dir.join("guests").join(format!("{guest}.wasm"))
    }

    /// Cargo's target folder.
    pub(super) fn cargo_target(&self) -> PathBuf {
        self.dir.join("cargo")
    }

    /// Makes an empty folder for the command of a guest. Its path is always the same, as compilers like to write the
    /// name of their output into it.
    pub(super) fn new_out_folder(&self, guest: &GuestName) -> io::Result<PathBuf> {
        let path = self.dir.join("out").join(guest.as_str());
        remove_folder(&path)?;
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// Removes the folder of [`State::new_out_folder`].
    pub(super) fn remove_out_folder(&self, guest: &GuestName) -> io::Result<()> {
        remove_folder(&self.dir.join("out").join(guest.as_str()))
    }

    /// Writes an artifact, unless it has these bytes already.
    pub(super) fn write_artifact(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let is_file = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
        if is_file && fs::read(path).is_ok_and(|present| present == bytes) {
            return Ok(());
        }
        atomic_file::write(path, bytes, FILE_MODE)
    }

    /// Brings the state to this version's format: an older one is discarded, as all of it can be made again.
    fn check_format(&self) -> Result<(), StateError> {
        let path = self.dir.join("format");
        let found = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse::<u32>().ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StateError::io("read", path)(error)),
        };
        match found {
            Some(FORMAT) => return Ok(()),
            Some(newer) if newer > FORMAT => return Err(StateError::Newer { dir: self.dir.clone() }),
            _ => {}
        }
        for folder in ["guests", "out", "cargo"] {
            let path = self.dir.join(folder);
            remove_folder(&path).map_err(StateError::io("remove", path))?;
        }
        let ignore = self.dir.join(".gitignore");
        atomic_file::write(&ignore, b"*\n", FILE_MODE).map_err(StateError::io("write", ignore))?;
        atomic_file::write(&path, format!("{FORMAT}\n").as_bytes(), FILE_MODE).map_err(StateError::io("write", path))
    }
}

fn lock(path: &Path, cancel: &Cancel, events: Events<'_>) -> Result<File, StateError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(StateError::io("open", path))?;
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(StateError::io("lock", path)(error)),
            Err(TryLockError::WouldBlock) if cancel.is_cancelled() => return Err(StateError::Cancelled),
            Err(TryLockError::WouldBlock) => {}
        }
        if !said {
            events(Event::Waiting { lock: path });
            said = true;
        }
        thread::sleep(LOCK_POLL);
    }
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn open(root: &Path) -> Result<State, StateError> {
        State::open(root, &Cancel::default(), &|_| {})
    }

    #[test]
    fn one_at_a_time_and_waiting_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                State::open(dir.path(), &Cancel::default(), &|event| {
                    assert!(matches!(event, Event::Waiting { .. }));
                    sender.send(()).unwrap();
                })
            });
            receiver.recv().unwrap();
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap().unwrap();
        });
        assert!(receiver.try_recv().is_err(), "it is said once");
    }

    #[test]
    fn a_wait_can_be_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(dir.path()).unwrap();
        let cancel = Cancel::default();
        let result = State::open(dir.path(), &cancel, &|_| cancel.cancel());
        assert!(matches!(result, Err(StateError::Cancelled)));
    }

    #[test]
    fn formats() {
        let dir = tempfile::tempdir().unwrap();
        let state = open(dir.path()).unwrap();
        let artifact = state.artifact(&GuestName::new("a").unwrap());
        state.write_artifact(&artifact, b"x").unwrap();
        drop(state);
        drop(open(dir.path()).unwrap());
        assert!(artifact.exists());
        fs::write(dir.path().join("target/ww/format"), "0\n").unwrap();
        drop(open(dir.path()).unwrap());
        assert!(!artifact.exists());
        fs::write(dir.path().join("target/ww/format"), "2\n").unwrap();
        assert!(matches!(open(dir.path()), Err(StateError::Newer { .. })));
    }

    #[test]
    fn an_artifact_with_the_same_bytes_keeps_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let state = open(dir.path()).unwrap();
        let path = state.artifact(&GuestName::new("a").unwrap());
        state.write_artifact(&path, b"one").unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH;
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        state.write_artifact(&path, b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
        state.write_artifact(&path, b"two").unwrap();
        assert_ne!(fs::metadata(&path).unwrap().modified().unwrap(), old);
    }
}
