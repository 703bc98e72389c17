//! Waits until something happens in folders.
//!
//! What happens is not told: that the time, the mode or a neighbour of a file is another says nothing about what would be
//! built, so whoever waits looks at contents.

use std::collections::BTreeSet;
#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

/// How often somebody who waits looks whether to go on waiting.
const POLL: Duration = Duration::from_millis(50);

/// After something has happened, for how long nothing must: editors and version control write several files.
const QUIET: Duration = Duration::from_millis(50);

/// How long to wait for that at most.
const QUIET_MAX: Duration = Duration::from_millis(500);

/// How often to look where folders cannot be watched, because there are too many, say.
const BLIND: Duration = Duration::from_secs(1);

/// Some folders that are watched.
pub struct Watcher {
    watcher: Option<RecommendedWatcher>,
    happened: Receiver<()>,
    watched: BTreeSet<PathBuf>,
    /// Whether something is not watched that ought to be.
    is_blind: bool,
}

impl Watcher {
    /// Watches nothing yet.
    pub fn new() -> Self {
        let (sender, happened) = mpsc::sync_channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is nothing that happens to it. One that waits to be told already is told.
            if event.as_ref().is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            let _ = sender.try_send(());
        });
        let watcher = watcher.ok();
        Self { is_blind: watcher.is_none(), watcher, happened, watched: BTreeSet::new() }
    }

    /// Watches these folders, not what is below them, and no others.
    pub fn watch(&mut self, folders: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.watched.difference(&folders) {
            // It may be gone itself.
            let _ = watcher.unwatch(gone);
        }
        self.is_blind = false;
        // Those that were there before may be others of the same name.
        let mut watched = BTreeSet::new();
        for folder in folders {
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(watched.insert(folder)),
                Err(_) => self.is_blind = true,
            }
        }
        self.watched = watched;
    }

    /// Has waits end from time to time although nothing has happened, until other folders are watched: for where it is not
    /// known which ones matter.
    pub fn look_unasked(&mut self) {
        self.is_blind = true;
    }

    /// Waits until something has happened, and nothing more does for a moment. `false` if `stopped` says so before.
    pub fn wait(&self, stopped: &dyn Fn() -> bool) -> bool {
        let start = Instant::now();
        loop {
            if stopped() {
                return false;
            }
            match self.happened.recv_timeout(POLL) {
                Ok(()) => break,
                Err(RecvTimeoutError::Timeout) if self.is_blind && start.elapsed() >= BLIND => return true,
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody watches.
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(POLL);
                    if start.elapsed() >= BLIND {
                        return true;
                    }
                }
            }
        }
        let first = Instant::now();
        while first.elapsed() < QUIET_MAX && self.happened.recv_timeout(QUIET).is_ok() {}
        true
    }

    /// Whether a folder is watched.
    #[cfg(test)]
    fn watches(&self, folder: &Path) -> bool {
        self.watched.contains(folder)
    }
}

impl Default for Watcher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_happens_in_a_folder_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        [&one, &other].iter().for_each(|folder| fs::create_dir(folder).unwrap());
        fs::write(one.join("file"), "").unwrap();
        let mut watcher = Watcher::new();
        watcher.watch([one.clone()].into());
        let waits = |watcher: &Watcher| {
            let start = Instant::now();
            !watcher.wait(&|| start.elapsed() > Duration::from_millis(300))
        };
        // However long that takes on a loaded machine.
        let notices = |watcher: &Watcher| {
            let start = Instant::now();
            watcher.wait(&|| start.elapsed() > Duration::from_secs(60))
        };
        assert!(waits(&watcher));
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(one.join("file"), "x").unwrap(),
            &|| fs::write(one.join("new"), "x").unwrap(),
            &|| fs::rename(one.join("new"), one.join("file")).unwrap(),
            &|| fs::remove_file(one.join("file")).unwrap(),
        ];
        for change in changes {
            change();
            assert!(notices(&watcher));
        }
        fs::write(other.join("file"), "x").unwrap();
        assert!(waits(&watcher));
        watcher.watch([other.clone()].into());
        assert!(watcher.watches(&other) && !watcher.watches(&one));
        fs::write(one.join("file"), "x").unwrap();
        assert!(waits(&watcher));
        fs::write(other.join("file"), "y").unwrap();
        assert!(notices(&watcher));
    }

    #[test]
    fn who_does_not_know_what_to_watch_looks_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::new();
        watcher.watch([dir.path().to_owned()].into());
        watcher.look_unasked();
        assert!(watcher.wait(&|| false));
        watcher.watch([dir.path().to_owned()].into());
        // It asks whether to go on that often in twice the time.
        let (asked, enough) = (std::cell::Cell::new(0), 2 * BLIND.as_millis() / POLL.as_millis());
        let stopped = || asked.replace(asked.get() + 1) > enough;
        assert!(!watcher.wait(&stopped));
    }
}
