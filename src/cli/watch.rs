//! Builds again whenever something that is built from has changed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::cancel::CancelOnSignal;
use super::error::Failure;
use super::{env, exit_code, project, ui};
use crate::build::Cancel;
use crate::build::watch::Watcher;
use crate::ops;
use crate::wetfile::lock::Digest;
use crate::wetfile::{self, Project};

/// How many builds are done one after the other because something has changed during each. Somebody who edits would have to
/// do so as often without a pause; a build that writes among its own sources does it each time.
const BUILDS_WITHOUT_WAIT_MAX: u32 = 10;

/// As how many of these a build counts that was given up because sources changed whenever they were compiled: that was
/// tried several times already.
const BUILDS_GIVEN_UP: u32 = 5;

/// What is done each time.
pub(super) trait Watching {
    /// Builds, and shows what came of it; `Ok` if it is good.
    fn build(&mut self, project: &Project) -> Result<(), Failure>;

    /// Looks after what runs meanwhile. It is called all the time.
    fn poll(&mut self) {}
}

/// What was built from, as far as it can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// The text of the Wetfile.
    wetfile: Option<Digest>,
    sources: Option<Digest>,
}

/// Builds now, and again whenever something has changed, until a signal comes, which is what it returns. A Wetfile with
/// errors is waited for as well, except at the beginning.
pub(super) fn watch(names: &[String], profile: Option<&str>, watching: &mut dyn Watching) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(exit_code::FAILURE, &error);
    let cancel = Cancel::default();
    let signals = CancelOnSignal::watch(&cancel).map_err(failed)?;
    let stopped = || cancel.is_cancelled();
    let root = project::load(false)?.root;
    let mut lookout = Lookout { root: &root, names, profile, watcher: Watcher::new(), known: BTreeSet::new() };
    let mut is_first = true;
    let mut without_wait = 0;
    while !stopped() {
        // What is seen before a build is what it is held against afterwards, so that no change meanwhile is lost.
        let mut before = lookout.look(&stopped);
        let built = project::load_from(&root, false).and_then(|project| watching.build(&project));
        if stopped() {
            break;
        }
        if let Err(failure) = built {
            // Names that are wrong do not become right by themselves.
            if is_first && failure.code == exit_code::NOT_FOUND {
                return Err(failure);
            }
            ui::failure(&failure);
            without_wait += if failure.is_of_changing_sources { BUILDS_GIVEN_UP } else { 1 };
        } else {
            without_wait += 1;
        }
        is_first = false;
        let mut is_told = false;
        // More may be known after the build, so more is watched.
        let mut now = lookout.look(&stopped);
        if now != before && without_wait >= BUILDS_WITHOUT_WAIT_MAX {
            ui::progress("what is built from changes with each build: does one write among its sources?");
            before.clone_from(&now);
        }
        while now == before && !stopped() {
            without_wait = 0;
            if !is_told {
                ui::progress("waiting for changes; ctrl-C ends it");
                is_told = true;
            }
            let watching = RefCell::new(&mut *watching);
            lookout.watcher.wait(&|| {
                watching.borrow_mut().poll();
                stopped()
            });
            now = lookout.look(&stopped);
        }
    }
    signals.result(Ok(()))
}

/// Looks at what would be built from.
struct Lookout<'a> {
    root: &'a Path,
    names: &'a [String],
    profile: Option<&'a str>,
    watcher: Watcher,
    /// The folders that were watched when all was found the last time.
    known: BTreeSet<PathBuf>,
}

impl Lookout<'_> {
    /// Watches what would be built from, and looks at it.
    fn look(&mut self, stopped: &(dyn Fn() -> bool + Sync)) -> Seen {
        let variables = env::variables();
        let project = wetfile::load(self.root).ok();
        let project = project.and_then(|project| match self.profile {
            Some(profile) => project.with_profile(profile).ok(),
            None => Some(project),
        });
        let sources =
            || project.as_ref().and_then(|project| ops::sources(&variables, project, self.names, stopped).ok());
        let found = sources();
        let is_whole = found.as_ref().is_some_and(|sources| sources.is_whole);
        let mut folders = found.map(|sources| sources.folders).unwrap_or_default();
        if !is_whole {
            // What is gone for a moment, as while a branch is switched, comes back to where it was.
            folders.extend(self.known.iter().cloned());
        }
        let folders = with_those_above(folders, self.root);
        if is_whole {
            self.known.clone_from(&folders);
        }
        self.watcher.watch(folders);
        if !is_whole {
            // It may come back elsewhere as well.
            self.watcher.look_unasked();
        }
        // From now on nothing happens unseen.
        Seen { wetfile: digest_of_wetfile(self.root), sources: sources().map(|sources| sources.digest) }
    }
}

/// Folders with all of the project's that they lie in: where one of those is replaced, nothing happens in what lay below.
fn with_those_above(folders: BTreeSet<PathBuf>, root: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::from([root.to_owned()]);
    for folder in folders {
        for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(root)) {
            if !all.insert(above.to_owned()) {
                break;
            }
        }
        all.insert(folder);
    }
    all
}

fn digest_of_wetfile(root: &Path) -> Option<Digest> {
    let file = File::open(root.join(wetfile::FILE_NAME)).ok()?;
    let mut bytes = Vec::new();
    file.take(wetfile::FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some(Digest::of(&bytes))
}
