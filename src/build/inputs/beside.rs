//! What a Rust guest's build has read beside the packages that it is made of: files that they include, and those that their
//! build scripts name.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::walk::SeenByGit;
use super::{Found, InputsError, Scanner, WORKSPACE_ONLY, real};
use crate::build::seen::Seen;
use crate::wetfile::lock::LOCK_FILE_NAME;
use crate::wetfile::{Project, ProjectPath};

/// Files and folders that a build has read, and that are in no package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::build) struct Beside {
    /// Those of the project that git would see, as keys of a lock: inputs like all others.
    pub(in crate::build) roots: BTreeSet<String>,
    /// Those that are not in everybody's clone, which a lock cannot have: outside of the project, or ignored by git. Absolute,
    /// or relative to the project's root.
    pub(in crate::build) watched: BTreeSet<String>,
    /// Those that cannot be read whole, such as a folder with files of somebody else.
    pub(in crate::build) unreadable: BTreeSet<PathBuf>,
}

/// The packages that a guest is made of.
#[derive(Clone, Copy)]
pub(in crate::build) struct PackageFiles<'a> {
    /// All that was looked at before the build.
    pub(in crate::build) found: &'a Found,
    /// The roots of that which are none, as they lay beside packages in an earlier build.
    pub(in crate::build) others: &'a BTreeSet<String>,
}

impl PackageFiles<'_> {
    fn seen(&self) -> impl Iterator<Item = &Seen> {
        let roots = self.found.roots.iter();
        let packages = roots.filter(|(root, _)| !root.ends_with(WORKSPACE_ONLY) && !self.others.contains(*root));
        packages.filter_map(|(_, (_, seen))| seen.as_deref())
    }
}

impl Beside {
    /// Tells what of the paths that a build has `read` is none of the files of packages. Paths in the folders of `others` are
    /// left out: what is there is known otherwise, or was made by the build itself.
    pub(in crate::build) fn of(
        project: &Project,
        scanner: &Scanner<'_>,
        packages: PackageFiles<'_>,
        read: &BTreeSet<PathBuf>,
        others: &[PathBuf],
    ) -> Result<Self, InputsError> {
        let others: Vec<PathBuf> = others.iter().map(|path| real(path)).collect();
        let folders: HashSet<&Path> = packages.seen().flat_map(Seen::listed).collect();
        let files: HashSet<PathBuf> = packages.seen().flat_map(Seen::present).collect();
        let (mut beside, mut seen) = (Self::default(), SeenByGit::new(scanner));
        let places: BTreeSet<PathBuf> = read.iter().flat_map(|path| [named(path), real(path)]).collect();
        for place in places.into_iter().filter(|place| !others.iter().any(|other| place.starts_with(other))) {
            let Ok(below) = place.strip_prefix(&project.root) else {
                beside.watch(scanner, &place);
                continue;
            };
            // The lock says what came out of the build, which would never be at rest.
            if below == Path::new(LOCK_FILE_NAME) || files.contains(below) || folders.contains(below) {
                continue;
            }
            let path = match below.to_str() {
                Some("") => Some(ProjectPath::root()),
                Some(path) => ProjectPath::new(path).ok(),
                None => None,
            };
            let is_seen = seen.has(&place)?;
            match path.filter(|_| is_seen) {
                Some(path) => drop(beside.roots.insert(path.to_string())),
                None => beside.watch(scanner, below),
            }
        }
        Ok(beside)
    }

    fn watch(&mut self, scanner: &Scanner<'_>, place: &Path) {
        match place.to_str() {
            Some(text) if scanner.watched(text).is_ok() => drop(self.watched.insert(text.to_owned())),
            _ => drop(self.unreadable.insert(place.to_owned())),
        }
    }
}

/// A path whose folder is the real one, whatever is at its last name.
fn named(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => real(folder).join(name),
        _ => real(path),
    }
}
