//! Folders that the commands of guests write to.
//!
//! A command of a `ww` that was killed goes on: it is in a process group of its own, and nobody is left to end it. What it
//! writes must not be taken for what another writes. So each command inherits a lock (`flock`) on its folder, and a folder
//! that is locked is left alone: the next command gets another. A lock ends with whoever holds it, and for all of them when
//! it is given up here, so that what a command leaves running after its end, such as a server that compilers share, is no
//! hindrance.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::{FdFlags, fcntl_setfd};

use crate::wetfile::GuestName;

/// A folder for one command, empty in the beginning.
#[derive(Debug)]
pub(super) struct OutFolder {
    path: PathBuf,
    /// The folder itself, locked. Commands inherit it.
    lock: File,
    is_usual: bool,
}

impl OutFolder {
    /// Makes one in `parent`, and removes what others of the guest have left there.
    ///
    /// Its path is always the same, as compilers like to write the name of their output into it, unless a command that
    /// outlived its `ww` still writes there. Only one process at a time may call this.
    pub(super) fn new(parent: &Path, guest: &GuestName) -> io::Result<Self> {
        for entry in fs::read_dir(parent)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_name().to_str().is_some_and(|name| is_of(name, guest)) && !is_locked(&path) {
                super::state::remove_folder(&path)?;
            }
        }
        let usual = parent.join(guest.as_str());
        // Each that is there has a process that runs.
        let others = (1_u32..).map(|number| parent.join(format!("{guest}.{number}")));
        let mut paths = std::iter::once(usual.clone()).chain(others);
        let path = paths.find(|path| path.symlink_metadata().is_err()).unwrap_or_else(|| usual.clone());
        fs::create_dir(&path)?;
        let lock = open(&path)?;
        lock.lock()?;
        // Whatever is started from now on inherits it, also the compilers of other guests, which at worst keep a name in use
        // for as long as they run.
        fcntl_setfd(&lock, FdFlags::empty())?;
        Ok(Self { is_usual: path == usual, path, lock })
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it lies where it always does.
    pub(super) fn is_usual(&self) -> bool {
        self.is_usual
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(self) -> io::Result<()> {
        super::state::remove_folder(&self.path)
    }
}

impl Drop for OutFolder {
    fn drop(&mut self) {
        // Closing it would leave it to those who have inherited it. It cannot fail for a file that is open.
        let _ = self.lock.unlock();
    }
}

/// Whether a folder of this name is one of the guest. Names of guests have no dots.
fn is_of(name: &str, guest: &GuestName) -> bool {
    match name.strip_prefix(guest.as_str()) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('.').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())),
        None => false,
    }
}

fn is_locked(path: &Path) -> bool {
    open(path).is_ok_and(|folder| matches!(folder.try_lock(), Err(TryLockError::WouldBlock)))
}

fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits().cast_signed();
    File::options().read(true).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn a_folder_that_somebody_writes_to_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let new = |guest: &str| OutFolder::new(dir.path(), &GuestName::new(guest).unwrap()).unwrap();
        let killed = new("a");
        fs::write(killed.path().join("half"), "").unwrap();
        assert!(killed.is_usual() && killed.path() == dir.path().join("a"));
        // As if this process had been killed: a child has the lock, and nobody gives it up.
        let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let path = killed.path().to_owned();
        close(killed);
        let second = new("a");
        assert!(!second.is_usual() && second.path() == dir.path().join("a.1"));
        assert!(path.join("half").exists());
        let others = [new("a-b"), new("b")];
        assert!(others.iter().all(OutFolder::is_usual));
        second.remove().unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        // Children of other tests may have inherited it as well.
        let deadline = Instant::now() + Duration::from_secs(60);
        while is_locked(&path) {
            assert!(Instant::now() < deadline, "it stays locked");
            thread::sleep(Duration::from_millis(5));
        }
        let third = new("a");
        assert!(third.is_usual() && fs::read_dir(third.path()).unwrap().count() == 0);
        assert!(!dir.path().join("a.1").exists() && others.iter().all(|other| other.path().is_dir()));
    }

    #[test]
    fn what_a_command_leaves_running_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let guest = GuestName::new("a").unwrap();
        let first = OutFolder::new(dir.path(), &guest).unwrap();
        let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        drop(first);
        assert!(OutFolder::new(dir.path(), &guest).unwrap().is_usual());
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    /// Closes what the folder has open, as the end of a process does, and gives up no lock.
    fn close(folder: OutFolder) {
        let mut folder = std::mem::ManuallyDrop::new(folder);
        folder.lock = File::open("/dev/null").unwrap();
    }
}
