//! The state of builds below a project's root, and the lock that lets one `ww` at a time change it.
//!
//! ```text
//! target/ww/
//!   format             version of all that follows, as a decimal number
//!   .gitignore         keeps the folder out of git
//!   guests/NAME.wasm   artifacts
//!   ledger             what builds remember of each other (see `ledger`)
//!   content/CID        trees that images take by their CIDs; nothing is believed of them that they do not prove,
//!                      or have proven before they were last touched
//!   cache/NAME         what was seen of files at the last build, so that they need not be read again
//!   out/NAME/          where the command of a guest writes, while it runs (see `out_folder`)
//!   cargo/shared/      cargo's target folder for the Rust guests without an environment of their own
//!   cargo/NAME.DIGEST/ that of a Rust guest whose compiler sees variables that others do not have
//!   cargo/NAME.PROFILE.DIGEST/ the same under a profile of the Wetfile
//! ```
//!
//! The lock is on the project's folder itself, which nobody cleans while a build runs.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::out_folder::OutFolder;
use super::{Cancel, Event, Events, Variables};
use crate::dag::Cid;
use crate::folder::{Folder, Kind};
use crate::wetfile::{GuestName, ProfileName, Project};
use crate::{atomic_file, escape};

/// Version of the layout above, and of how crates are compiled.
const FORMAT: u32 = super::RECIPE;

/// The folders of the state.
const FOLDERS: [&str; 5] = ["guests", OUT, "cargo", "cache", CONTENT];

/// The folder of [`State::new_out_folder`].
const OUT: &str = "out";

/// The variable that tells a guest's command where to write.
pub(super) const OUT_VARIABLE: &str = "WW_OUT";

/// The folder of [`State::content`].
const CONTENT: &str = "content";

/// Largest file of `cache/` that is read, in bytes: some million files.
const CACHE_BYTES_MAX: u64 = 256 << 20;

/// Mode of artifacts and of the other files of ours.
pub(super) const FILE_MODE: u32 = 0o644;

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
    /// A folder of the state is a symlink: what is written or removed there would be somewhere else.
    #[error("{} is a symlink, where a folder is needed: remove it", escape::path(.path))]
    Symlink {
        /// The symlink.
        path: PathBuf,
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
    /// The lock is held by the build that has started this process, which waits for it to end.
    #[error(
        "this `ww` was started by a build of {}, and would wait for it, which waits for this `ww`",
        escape::path(.root)
    )]
    OwnBuild {
        /// The project's folder.
        root: PathBuf,
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
    /// The project's root, locked. The lock ends with the handle, also when the process is killed.
    _lock: File,
}

impl State {
    /// Opens the state of the project at `root`, makes it if there is none, and waits until no other `ww` holds it.
    ///
    /// # Errors
    ///
    /// [`StateError`], also when the wait is cut short by `cancel`.
    pub fn open(root: &Path, cancel: &Cancel, events: Events<'_>) -> Result<Self, StateError> {
        Self::open_from(root, &Variables::new(), cancel, events)
    }

    /// The same for a process that has this environment: what a command of a guest has started does not wait for the build
    /// that runs this command.
    ///
    /// # Errors
    ///
    /// As [`State::open`], and [`StateError::OwnBuild`].
    pub fn open_from(
        root: &Path,
        environment: &Variables,
        cancel: &Cancel,
        events: Events<'_>,
    ) -> Result<Self, StateError> {
        let lock = lock(root, || is_started_by_build(root, environment), cancel, events)?;
        let mut dir = root.to_owned();
        let mut folder = Folder::open(root).map_err(StateError::io("open", root))?;
        for name in ["target", "ww"] {
            dir.push(name);
            folder = real_folder(&folder, name, &dir)?;
        }
        let state = Self { root: root.to_owned(), dir, _lock: lock };
        state.check_format(&folder)?;
        for name in FOLDERS {
            real_folder(&folder, name, &state.dir.join(name))?;
        }
        Ok(state)
    }

    /// The project's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file of the state lies that is in none of its folders.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the artifact of a guest lies, built or not.
    pub fn artifact(&self, guest: &GuestName) -> PathBuf {
        self.dir.join("guests").join(format!("{guest}.wasm"))
    }

    /// Keeps bytes under a name for [`cached`]. They may be lost at any time.
    ///
    /// # Errors
    ///
    /// Any error of the file system.
    pub fn cache(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        atomic_file::write(&self.dir.join("cache").join(name), bytes, FILE_MODE)
    }

    /// Where the tree of a CID lies, if it was written there before.
    pub fn content(&self, cid: &Cid) -> PathBuf {
        content(&self.root, cid)
    }

    /// The names of all that lies where the trees of CIDs do.
    ///
    /// # Errors
    ///
    /// Any error of the file system.
    pub fn contents(&self) -> io::Result<Vec<String>> {
        let names =
            fs::read_dir(self.dir.join(CONTENT))?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.collect())
    }

    /// Removes the tree of a CID, if there is one.
    ///
    /// # Errors
    ///
    /// Any error of the file system.
    pub fn remove_content(&self, cid: &Cid) -> io::Result<()> {
        // What is known of its files. That it cannot be removed does no harm.
        let _ = fs::remove_file(self.dir.join("cache").join(format!("content-{cid}")));
        let path = self.content(cid);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => remove_folder(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Cargo's target folder for a guest. `own` is a digest of what only its compiler sees, if there is any such thing.
    /// Each profile of the Wetfile has one of its own: who goes from one to another and back finds what was compiled.
    ///
    /// Cargo takes a crate that it finds compiled, whatever variables its build script has read without saying so.
    pub(super) fn cargo_target(&self, project: &Project, guest: &GuestName, own: Option<&str>) -> io::Result<PathBuf> {
        let cargo = self.dir.join("cargo");
        let chosen = project.profile.as_ref().map(ProfileName::as_str);
        let name = match (own, chosen) {
            (None, _) => "shared".to_owned(),
            (Some(digest), None) => format!("{guest}.{digest}"),
            (Some(digest), Some(profile)) => format!("{guest}.{profile}.{digest}"),
        };
        for entry in fs::read_dir(&cargo)? {
            let entry = entry?.file_name();
            let of_guest = entry.to_str().and_then(|entry| entry.strip_prefix(guest.as_str())?.strip_prefix('.'));
            // Names of guests and profiles have no dots. What it was compiled with before is not needed any more, nor what
            // it was under a profile that is no more.
            let is_needless = of_guest.is_some_and(|of_guest| {
                let profile = of_guest.split_once('.').map(|(profile, _)| profile);
                let is_known = |profile: &str| project.profiles.keys().any(|known| known.as_str() == profile);
                profile == chosen || profile.is_some_and(|profile| !is_known(profile))
            });
            if is_needless && entry != *name {
                remove_folder(&cargo.join(entry))?;
            }
        }
        Ok(cargo.join(name))
    }

    /// Makes an empty folder for the command of a guest.
    pub(super) fn new_out_folder(&self, guest: &GuestName) -> io::Result<OutFolder> {
        OutFolder::new(&self.dir.join(OUT), guest)
    }

    /// Writes an artifact, unless it has these bytes already.
    pub(super) fn write_artifact(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let is_same_size = |metadata: fs::Metadata| metadata.is_file() && metadata.len() == bytes.len() as u64;
        if fs::symlink_metadata(path).is_ok_and(is_same_size) && fs::read(path).is_ok_and(|present| present == bytes) {
            return Ok(());
        }
        atomic_file::write(path, bytes, FILE_MODE)
    }

    /// Brings the state to this version's format: an older one is discarded, as all of it can be made again.
    fn check_format(&self, folder: &Folder) -> Result<(), StateError> {
        let path = self.dir.join("format");
        let found = match folder.file("format").and_then(io::read_to_string) {
            Ok(text) => text.trim().parse::<u32>().ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StateError::io("read", path)(error)),
        };
        match found {
            Some(FORMAT) => return Ok(()),
            Some(newer) if newer > FORMAT => return Err(StateError::Newer { dir: self.dir.clone() }),
            _ => {}
        }
        for name in FOLDERS {
            let path = self.dir.join(name);
            remove_folder(&path).map_err(StateError::io("remove", path))?;
        }
        folder.remove_file("ledger").map_err(StateError::io("remove", self.dir.join("ledger")))?;
        let ignore = self.dir.join(".gitignore");
        atomic_file::write(&ignore, b"*\n", FILE_MODE).map_err(StateError::io("write", ignore))?;
        atomic_file::write(&path, format!("{FORMAT}\n").as_bytes(), FILE_MODE).map_err(StateError::io("write", path))
    }
}

/// Where a build of the project at `root` writes the tree of a CID. It needs no lock, and what is there is anybody's.
pub fn content(root: &Path, cid: &Cid) -> PathBuf {
    root.join("target").join("ww").join(CONTENT).join(cid.to_string())
}

/// What a build of the project at `root` has kept under a name, if there is any. It needs no lock.
pub fn cached(root: &Path, name: &str) -> Option<Vec<u8>> {
    read(root, "cache", name, CACHE_BYTES_MAX)
}

/// A file in a folder of the state, or beside them if it is empty, without a lock: `None` for whatever is in the way.
pub(super) fn read(root: &Path, folder: &str, name: &str, bytes_max: u64) -> Option<Vec<u8>> {
    let state = Folder::open(root).and_then(|root| root.folder("target")).and_then(|target| target.folder("ww"));
    let folder = state.and_then(|state| if folder.is_empty() { Ok(state) } else { state.folder(folder) });
    let file = folder.and_then(|folder| folder.file(name)).ok()?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= bytes_max).then_some(bytes)
}

/// Opens a folder, and makes it if there is none; a symlink is not followed.
fn real_folder(parent: &Folder, name: &str, path: &Path) -> Result<Folder, StateError> {
    match parent.stat(name).map_err(StateError::io("read", path))? {
        Some(stat) if stat.kind == Kind::Symlink => Err(StateError::Symlink { path: path.to_owned() }),
        _ => parent.folder_or_new(name).map_err(StateError::io("make", path)),
    }
}

/// Whether a build of the project at `root` runs a command that has started the process with this environment: what it is to
/// write lies in the project's state.
fn is_started_by_build(root: &Path, environment: &Variables) -> bool {
    let folder = environment.get(OsStr::new(OUT_VARIABLE)).and_then(|out| Path::new(out).parent());
    let folder = folder.and_then(|folder| fs::canonicalize(folder).ok());
    let outs = fs::canonicalize(root.join("target").join("ww").join(OUT));
    outs.is_ok_and(|outs| folder.is_some_and(|folder| folder.starts_with(outs)))
}

fn lock(root: &Path, is_own: impl Fn() -> bool, cancel: &Cancel, events: Events<'_>) -> Result<File, StateError> {
    let file = File::open(root).map_err(StateError::io("open", root))?;
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(StateError::io("lock", root)(error)),
            Err(TryLockError::WouldBlock) if cancel.is_cancelled() => return Err(StateError::Cancelled),
            Err(TryLockError::WouldBlock) => {}
        }
        if !said {
            if is_own() {
                return Err(StateError::OwnBuild { root: root.to_owned() });
            }
            events(Event::Waiting { root });
            said = true;
        }
        thread::sleep(LOCK_POLL);
    }
}

pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
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

    /// Cleaning is no reason for a second build to begin.
    #[test]
    fn the_lock_outlives_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(dir.path()).unwrap();
        fs::remove_dir_all(dir.path().join("target")).unwrap();
        let cancel = Cancel::default();
        let result = State::open(dir.path(), &cancel, &|_| cancel.cancel());
        assert!(matches!(result, Err(StateError::Cancelled)));
    }

    #[test]
    fn symlinks_are_not_followed() {
        let folders = FOLDERS.map(|name| (format!("target/ww/{name}"), "a"));
        let above = [("target".to_owned(), "ww/guests/a"), ("target/ww".to_owned(), "guests/a")];
        for (link, inside) in above.into_iter().chain(folders) {
            let dir = tempfile::tempdir().unwrap();
            let (project, victim) = (dir.path().join("project"), dir.path().join("victim"));
            fs::create_dir(&project).unwrap();
            drop(open(&project).unwrap());
            fs::create_dir_all(victim.join(inside)).unwrap();
            let link = project.join(link);
            fs::remove_dir_all(&link).unwrap();
            std::os::unix::fs::symlink(&victim, &link).unwrap();
            let error = open(&project).unwrap_err();
            assert!(matches!(error, StateError::Symlink { path } if path == link));
            assert!(victim.join(inside).exists());
        }
    }

    /// A project with the profiles `p` and `q`, under one of them or none.
    fn project(root: &Path, chosen: Option<&str>) -> Project {
        let profile = |name: &str| ProfileName::new(name).unwrap();
        Project {
            root: root.to_owned(),
            file: root.join("Wetfile.toml"),
            name: "x".to_owned(),
            version: "1".to_owned(),
            guests: BTreeMap::new(),
            images: BTreeMap::new(),
            profiles: ["p", "q"].map(|name| (profile(name), BTreeMap::new())).into(),
            profile: chosen.map(profile),
        }
    }

    #[test]
    fn cargo_has_a_folder_for_each_environment() {
        let dir = tempfile::tempdir().unwrap();
        let (state, project) = (open(dir.path()).unwrap(), project(dir.path(), None));
        let target = |guest: &str, own| state.cargo_target(&project, &GuestName::new(guest).unwrap(), own).unwrap();
        assert_eq!(target("a", None), target("b", None));
        let (a, ab) = (target("a", Some("1")), target("a-b", Some("1")));
        for folder in [&a, &ab, &target("a", None)] {
            fs::create_dir(folder).unwrap();
        }
        assert_ne!(target("a", Some("2")), a);
        assert!(!a.exists() && ab.exists() && target("b", None).exists());
    }

    #[test]
    fn cargo_has_a_folder_for_each_profile() {
        let dir = tempfile::tempdir().unwrap();
        let state = open(dir.path()).unwrap();
        let target = |profile: Option<&str>, own: &str| {
            let project = project(dir.path(), profile);
            let folder = state.cargo_target(&project, &GuestName::new("a").unwrap(), Some(own)).unwrap();
            fs::create_dir_all(&folder).unwrap();
            folder
        };
        let none = target(None, "1");
        let (p, q) = (target(Some("p"), "1"), target(Some("q"), "2"));
        assert!(none.exists() && p.exists() && q.exists() && p != none);
        let other = target(Some("p"), "3");
        assert!(none.exists() && !p.exists() && q.exists() && other.exists());
        // One that the Wetfile does not have any more, and one that is what a digest may be.
        let gone = state.dir.join("cargo/a.gone.1");
        fs::create_dir(&gone).unwrap();
        target(None, "2");
        assert!(!gone.exists() && !none.exists() && q.exists() && other.exists());
    }

    #[test]
    fn a_wait_can_be_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(dir.path()).unwrap();
        let cancel = Cancel::default();
        let result = State::open(dir.path(), &cancel, &|_| cancel.cancel());
        assert!(matches!(result, Err(StateError::Cancelled)));
    }

    /// What has this environment was started by the build that holds the lock; others wait for it, or find it free.
    #[test]
    fn nobody_waits_for_itself() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let guest = GuestName::new("a").unwrap();
        let open_from = |root: &Path, out: &Path| {
            let environment = [(OUT_VARIABLE.into(), out.join("a.wasm").into())].into();
            let cancel = Cancel::default();
            State::open_from(root, &environment, &cancel, &|_| cancel.cancel())
        };
        let (first, elsewhere) = (open(dir.path()).unwrap(), open(other.path()).unwrap());
        let (out, out_elsewhere) = (first.new_out_folder(&guest).unwrap(), elsewhere.new_out_folder(&guest).unwrap());
        assert!(matches!(open_from(dir.path(), out.path()), Err(StateError::OwnBuild { .. })));
        assert!(matches!(open_from(dir.path(), out_elsewhere.path()), Err(StateError::Cancelled)));
        drop(first);
        open_from(dir.path(), out.path()).unwrap();
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
        fs::write(dir.path().join("target/ww/format"), format!("{}\n", FORMAT + 1)).unwrap();
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
