//! Files of a project, found and digested.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ignore::{DirEntry, WalkBuilder};
use rustix::fs::OFlags;

use super::include::{self, Included};
use super::{FILES_MAX, InputsError, SETTINGS, editors};
use crate::build::ledger::Memory;
use crate::build::seen::{Name, Seen, SeenFile, SeenFolder, SeenKind, SeenListing, folder_at};
use crate::folder::{Folder, Stamp};
use crate::wetfile::lock::{Digest, Facts, LOCK_FILE_NAME};
use crate::wetfile::{FILE_NAME, Glob, Project, ProjectPath, is_glob, split_glob};

/// The file that tells git, and us, what does not belong to a folder.
const IGNORE_FILE: &str = ".gitignore";

/// The file by which programs mark folders of what can be made again (bford.info/cachedir), and how it begins.
const CACHE_TAG: &str = "CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Folders that are inputs of no guest whose `inputs` do not list them: what Python, npm, Zig and `python3 -m venv` make.
const MADE: [&str; 5] = ["__pycache__", "node_modules", ".zig-cache", "zig-out", ".venv"];

/// Looks at files of a project, and only at those that may have changed since they were seen.
pub(in crate::build) struct Scanner<'a> {
    project: &'a Project,
    root: Folder,
    /// When this look began.
    start: SystemTime,
    /// What besides files decides what is seen: what is an input of nobody.
    context: Digest,
    /// What was seen last.
    memory: Option<&'a Memory>,
    /// What this look has seen, if it is one at the whole project at once, and not one before or after a build.
    done: Option<Mutex<HashMap<String, Looked>>>,
    settings: Mutex<HashMap<ProjectPath, Vec<ProjectPath>>>,
}

/// What git would see in the folders of a project that it is asked about.
pub(super) struct SeenByGit<'s, 'a> {
    scanner: &'s Scanner<'a>,
    /// By folder, relative to the project's root.
    folders: HashMap<PathBuf, HashSet<PathBuf>>,
}

impl<'s, 'a> SeenByGit<'s, 'a> {
    pub(super) fn new(scanner: &'s Scanner<'a>) -> Self {
        Self { scanner, folders: HashMap::new() }
    }

    /// Whether a file or folder of the project is seen, as [`Scanner::seen_by_git`] tells.
    pub(super) fn has(&mut self, path: &Path) -> Result<bool, InputsError> {
        let below = path.strip_prefix(&self.scanner.project.root).unwrap_or(path);
        let seen = match self.folders.entry(below.parent().unwrap_or(below).to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let seen = self.scanner.seen_by_git(vacant.key())?;
                vacant.insert(seen)
            }
        };
        Ok(seen.contains(path))
    }
}

/// What came of a look at a file or folder.
#[derive(Clone)]
pub(super) struct Looked {
    /// Under what it is known.
    pub(super) key: String,
    /// What was seen; `None` if there is nothing.
    pub(super) seen: Option<Arc<Seen>>,
    /// Folders of the project that symlinks in it lead to.
    pub(super) linked: BTreeSet<ProjectPath>,
}

impl<'a> Scanner<'a> {
    /// Begins a look that reads everything.
    pub(in crate::build) fn new(project: &'a Project) -> Result<Self, InputsError> {
        let root = Folder::open(&project.root).map_err(InputsError::io(&project.root))?;
        let mut context = Facts::default();
        Skipped::new(project).paths.iter().for_each(|path| context.add(path.as_os_str().as_bytes()));
        Ok(Self {
            project,
            root,
            start: SystemTime::now(),
            context: context.finish(),
            memory: None,
            done: None,
            settings: Mutex::default(),
        })
    }

    /// Begins a look that reads what may have changed.
    pub(in crate::build) fn knowing(project: &'a Project, memory: &'a Memory) -> Result<Self, InputsError> {
        Ok(Self { memory: Some(memory), ..Self::new(project)? })
    }

    /// Begins a look at everything at the same time: each thing once.
    pub(in crate::build) fn remembering(project: &'a Project, memory: &'a Memory) -> Result<Self, InputsError> {
        Ok(Self { done: Some(Mutex::default()), ..Self::knowing(project, memory)? })
    }

    /// The files of a folder that cargo and rustup look for.
    pub(super) fn settings(&self, folder: &ProjectPath) -> Vec<ProjectPath> {
        let mut settings = lock(&self.settings);
        let find = || {
            let candidates = SETTINGS.into_iter().filter_map(|name| folder.join(name).ok());
            candidates.filter(|path| path.to_path(&self.project.root).is_file()).collect()
        };
        settings.entry(folder.clone()).or_insert_with(find).clone()
    }

    /// A file or folder that a Rust guest's build reads; of a folder what git would see. `None` if it is not there, or
    /// reached through a symlink out of the project: a lock may come from anybody.
    pub(super) fn rust_root(&self, root: &ProjectPath) -> Result<Looked, InputsError> {
        self.look(format!("rust:{root}"), |look| {
            let path = root.to_path(&self.project.root);
            match kind(&path)? {
                Some(_) if !root.is_root() && !path.parent().is_some_and(|parent| is_inside(self.project, parent)) => {
                    return Ok(None);
                }
                None => return Ok(None),
                Some(kind) if !kind.is_dir() => return look.object(&path, kind).map(Some),
                Some(_) => {}
            }
            // From the project's root on, for the sake of the `.gitignore` files on the way.
            let (wanted, skipped) = (path.clone(), Skipped::new(self.project).with_targets());
            let mut walk = builder(&self.project.root, true);
            walk.filter_entry(move |entry| {
                let path = entry.path();
                (wanted.starts_with(path) || path.starts_with(&wanted)) && !skipped.skips(entry)
            });
            let found = collect(&walk, &path, &root.to_string())?;
            let found = match found.files.is_empty() {
                // Git would not see the folder itself. Those who build a guest from it do.
                true => {
                    let mut walk = builder(&path, true);
                    let skipped = Skipped::new(self.project).with_targets();
                    walk.filter_entry(move |entry| !skipped.skips(entry));
                    collect(&walk, &path, &root.to_string())?
                }
                false => found,
            };
            look.ignore_files(&path, &found);
            look.whole(&path, &found).map(Some)
        })
    }

    /// A file, or everything in a folder. `None` if it is not there.
    pub(super) fn whole(&self, root: &ProjectPath) -> Result<Looked, InputsError> {
        self.look(format!("whole:{root}"), |look| look.everything(&root.to_path(&self.project.root)))
    }

    /// The same of a place that may be outside of the project, and is relative to its root otherwise.
    pub(super) fn watched(&self, place: &str) -> Result<Looked, InputsError> {
        self.look(format!("watched:{place}"), |look| look.everything(&self.project.root.join(place)))
    }

    /// What git would see in a folder, which is relative to the project's root, as far as the `.gitignore` files of the project
    /// tell: the paths of files and folders, and its own if it is seen itself.
    fn seen_by_git(&self, folder: &Path) -> Result<HashSet<PathBuf>, InputsError> {
        let path = self.project.root.join(folder);
        let (wanted, skipped) = (path.clone(), Skipped::new(self.project).with_targets());
        let mut walk = builder(&self.project.root, true);
        walk.filter_entry(move |entry| {
            let is_wanted = wanted.starts_with(entry.path()) || entry.path().parent() == Some(&wanted);
            is_wanted && !skipped.skips(entry)
        });
        walk.max_depth(Some(folder.components().count() + 1));
        let found = collect(&walk, &path, &folder.to_string_lossy())?;
        Ok(found.folders.into_iter().chain(found.files.into_iter().map(|(file, _)| file)).collect())
    }

    /// The files that a glob, relative to `dir`, fits. Those outside of the project are none.
    pub(super) fn glob(&self, dir: &ProjectPath, glob: &str) -> Result<Looked, InputsError> {
        self.look(format!("glob:{dir}:{glob}"), |look| {
            let (folder, found) = self.fitting(dir, glob)?;
            look.whole(&folder.to_path(&self.project.root), &found).map(Some)
        })
    }

    /// The files that a glob fits, relative to `dir` and sorted, for compilers that are given them one by one; a path means
    /// itself. Symlinks are none, and neither is what has a name that is not UTF-8.
    pub(in crate::build) fn files_of(&self, dir: &ProjectPath, pattern: &str) -> Result<Vec<String>, InputsError> {
        if !is_glob(pattern) {
            return Ok(vec![pattern.to_owned()]);
        }
        let (folder, found) = self.fitting(dir, pattern)?;
        let path = folder.to_path(&self.project.root);
        let start = split_glob(pattern).0;
        let file = |file: &Path| {
            let below = file.strip_prefix(&path).ok()?.to_str()?;
            Some(if start == "." { below.to_owned() } else { format!("{start}/{below}") })
        };
        let files = found.files.iter().filter(|(_, kind)| kind.is_file());
        Ok(files.filter_map(|(path, _)| file(path)).collect())
    }

    /// The files that sources include, which are compiled in `dir`: as if those were not there that git would not see, or all.
    pub(super) fn included(
        &self,
        dir: &ProjectPath,
        sources: &[String],
        flags: &[String],
        only_seen_by_git: bool,
    ) -> Result<Looked, InputsError> {
        self.look(format!("include:{dir}:{sources:?}:{flags:?}:{only_seen_by_git}"), |look| {
            let root = &self.project.root;
            let mut files = Vec::new();
            for pattern in sources {
                if is_glob(pattern) {
                    let (_, found) = self.fitting(dir, pattern)?;
                    look.list(&found)?;
                    files.extend(found.files.into_iter().map(|(path, _)| path));
                } else if let Ok(path) = dir.join(pattern) {
                    files.push(path.to_path(root));
                }
            }
            let skipped = Skipped::new(self.project).paths;
            let mut seen = SeenByGit::new(self);
            let is_input = &mut |path: &Path| Ok(!only_seen_by_git || seen.has(path)?);
            let project = include::Project { root, skipped: &skipped, is_input };
            let Included { files: mut included, links, absent, filtered } =
                include::included(project, &dir.to_path(root), &files, flags)?;
            if only_seen_by_git {
                look.ignore_files_in(filtered.iter().flat_map(|folder| folder.ancestors()), &BTreeSet::new());
            }
            absent.iter().for_each(|path| look.add(path, SeenKind::Absent, None, Digest::of(b"")));
            for link in links {
                let target = fs::read_link(&link).map_err(InputsError::io(&link))?;
                let stamp = look.stamp(&link)?;
                look.add(&link, SeenKind::Link, stamp, Digest::of(target.as_os_str().as_bytes()));
            }
            // They count by themselves, but what they include is to be looked for again once they are others.
            for source in &files {
                included.remove(source);
                if let Some(kind) = kind(source)?.filter(|kind| !kind.is_dir()) {
                    look.object(source, kind)?;
                }
            }
            let mut facts = Facts::default();
            for path in &included {
                facts.add(path.strip_prefix(root).unwrap_or(path).as_os_str().as_bytes());
                let digest = kind(path)?.map(|kind| look.object(path, kind)).transpose();
                // One that cannot be read is perhaps included on another system.
                let digest = digest.unwrap_or_else(|_| {
                    look.add(path, SeenKind::File, None, Digest::of(b""));
                    None
                });
                facts.add(digest.map(|digest| digest.to_string()).unwrap_or_default());
            }
            Ok(Some(facts.finish()))
        })
    }

    /// The folder that a glob, relative to `dir`, begins with, and what fits in it.
    fn fitting(&self, dir: &ProjectPath, glob: &str) -> Result<(ProjectPath, Found), InputsError> {
        let (folder, pattern) = split_glob(glob);
        let pattern = Glob::new(pattern).map_err(|source| InputsError::Glob { glob: glob.to_owned(), source })?;
        let folder = dir.join(folder).unwrap_or_else(|_| dir.clone());
        let path = folder.to_path(&self.project.root);
        if !is_inside(self.project, &path) {
            return Ok((folder, Found::default()));
        }
        let mut walk = builder(&path, false);
        walk.max_depth(pattern.components_max());
        let skipped = Skipped::new(self.project);
        walk.filter_entry(move |entry| entry.depth() == 0 || !skipped.skips(entry));
        let mut found = collect(&walk, &path, &folder.to_string())?;
        let matcher = pattern.matcher();
        found.files.retain(|(file, _)| file.strip_prefix(&path).is_ok_and(|file| matcher.fits(file)));
        Ok((folder, found))
    }

    /// A part of a file, with a digest that `read` makes of it. `None` if there is none.
    pub(super) fn part(
        &self,
        file: &ProjectPath,
        part: &str,
        read: impl FnOnce() -> Result<Option<Digest>, InputsError>,
    ) -> Result<Looked, InputsError> {
        self.look(format!("part:{file}{part}"), |look| {
            let Some(digest) = read()? else { return Ok(None) };
            let path = file.to_path(&self.project.root);
            let stamp = look.stamp(&path)?;
            look.add(&path, SeenKind::File, stamp, digest);
            Ok(Some(digest))
        })
    }

    /// What was seen under a key, if it is unchanged, or what `read` sees now.
    fn look(
        &self,
        key: String,
        read: impl FnOnce(&mut Look<'_, '_>) -> Result<Option<Digest>, InputsError>,
    ) -> Result<Looked, InputsError> {
        if let Some(done) = self.done.as_ref().and_then(|done| lock(done).get(&key).cloned()) {
            return Ok(done);
        }
        let looked = self.look_anew(key, read)?;
        if let Some(done) = &self.done {
            lock(done).insert(looked.key.clone(), looked.clone());
        }
        Ok(looked)
    }

    fn look_anew(
        &self,
        key: String,
        read: impl FnOnce(&mut Look<'_, '_>) -> Result<Option<Digest>, InputsError>,
    ) -> Result<Looked, InputsError> {
        let known = self.memory.and_then(|memory| memory.root(&key));
        if let Some(seen) = known.as_ref().filter(|seen| seen.is_unchanged(&self.root, &self.context)) {
            return Ok(Looked { key, seen: Some(seen.clone()), linked: BTreeSet::new() });
        }
        let files = known.as_deref().map(Seen::files).unwrap_or_default();
        let mut look = Look { scanner: self, files, folders: BTreeMap::new(), linked: BTreeSet::new() };
        let digest = read(&mut look)?;
        let Look { folders, linked, .. } = look;
        let seen = digest.map(|digest| {
            let folders = folders.into_values().collect();
            Arc::new(Seen { digest, context: self.context, folders })
        });
        Ok(Looked { key, seen, linked })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One look at a file or at what is below a folder.
struct Look<'s, 'a> {
    scanner: &'s Scanner<'s>,
    /// What was seen before.
    files: HashMap<(&'a OsStr, &'a OsStr), &'a SeenFile>,
    /// What is seen now, by path relative to the project's root.
    folders: BTreeMap<OsString, SeenFolder>,
    /// Folders of the project that symlinks lead to.
    linked: BTreeSet<ProjectPath>,
}

impl Look<'_, '_> {
    /// A file, or everything in a folder; `None` if nothing is there.
    fn everything(&mut self, path: &Path) -> Result<Option<Digest>, InputsError> {
        match kind(path)? {
            None => Ok(None),
            Some(kind) if !kind.is_dir() => self.object(path, kind).map(Some),
            Some(_) => {
                let mut walk = builder(path, false);
                let skipped = Skipped::new(self.scanner.project);
                walk.filter_entry(move |entry| entry.depth() == 0 || !skipped.skips(entry));
                let below = path.strip_prefix(&self.scanner.project.root).unwrap_or(path);
                self.whole(path, &collect(&walk, path, &below.to_string_lossy())?).map(Some)
            }
        }
    }

    /// Remembers which folders a walk has listed.
    fn list(&mut self, found: &Found) -> Result<(), InputsError> {
        for folder in &found.folders {
            let stamp = self.stamp(folder)?;
            self.folder(folder).listing = SeenListing::Listed(stamp);
        }
        Ok(())
    }

    /// Everything that was found below a folder.
    fn whole(&mut self, folder: &Path, found: &Found) -> Result<Digest, InputsError> {
        self.list(found)?;
        let mut facts = Facts::default();
        for (path, kind) in &found.files {
            let below = path.strip_prefix(folder).unwrap_or(path);
            facts.add(below.as_os_str().as_bytes());
            facts.add(self.object(path, *kind)?.to_string());
        }
        Ok(facts.finish())
    }

    /// Adds the `.gitignore` files that have a say and are not found themselves: those above, and those that ignore
    /// themselves.
    fn ignore_files(&mut self, path: &Path, found: &Found) {
        let files: BTreeSet<&Path> = found.files.iter().map(|(path, _)| path.as_path()).collect();
        self.ignore_files_in(path.ancestors().skip(1).chain(found.folders.iter().map(PathBuf::as_path)), &files);
    }

    /// Adds the `.gitignore` files in those of some folders that are in the project, but for those that are known.
    fn ignore_files_in<'p>(&mut self, folders: impl Iterator<Item = &'p Path>, known: &BTreeSet<&Path>) {
        let root = &self.scanner.project.root;
        let folders = folders.filter(|folder| folder.starts_with(root));
        let candidates: BTreeSet<PathBuf> = folders.map(|folder| folder.join(IGNORE_FILE)).collect();
        for file in candidates.iter().filter(|file| !known.contains(file.as_path())) {
            let read = match file.symlink_metadata() {
                Ok(metadata) => self.object(file, metadata.file_type()).map(drop),
                Err(_) => {
                    self.add(file, SeenKind::Absent, None, Digest::of(b""));
                    Ok(())
                }
            };
            // Whatever it is, the walk could not read it either. It is looked at each time.
            if read.is_err() {
                self.add(file, SeenKind::File, None, Digest::of(b""));
            }
        }
    }

    /// A file by its content; a symlink by its target, and by the content of the file that it leads to in the project.
    fn object(&mut self, path: &Path, kind: FileType) -> Result<Digest, InputsError> {
        let mut facts = Facts::default();
        if !kind.is_symlink() {
            let stamp = self.stamp(path)?;
            if let Some(known) = self.known(path, stamp) {
                self.add(path, SeenKind::File, stamp, known);
                return Ok(known);
            }
            facts.add("file");
            facts.add(content(path)?.to_string());
            let digest = facts.finish();
            self.add(path, SeenKind::File, stamp, digest);
            return Ok(digest);
        }
        facts.add("symlink");
        facts.add(fs::read_link(path).map_err(InputsError::io(path))?.as_os_str().as_bytes());
        let root = &self.scanner.project.root;
        let target = fs::canonicalize(path).ok();
        let inside = target.as_deref().and_then(|target| target.strip_prefix(root).ok());
        if let (Some(target), Some(inside)) = (&target, inside) {
            if target.is_file() {
                facts.add(content(target)?.to_string());
            } else if let Some(folder) = inside.to_str().and_then(|inside| ProjectPath::new(inside).ok()) {
                self.linked.insert(folder);
            }
        }
        let digest = facts.finish();
        self.add(path, SeenKind::Symlink, None, digest);
        Ok(digest)
    }

    /// The digest that a file of this stamp had.
    fn known(&self, path: &Path, stamp: Option<Stamp>) -> Option<Digest> {
        let (folder, name) = self.split(path)?;
        let file = self.files.get(&(folder, name))?;
        (stamp.is_some() && file.stamp == stamp && file.kind == SeenKind::File).then_some(file.digest)
    }

    /// The stamp of a file or folder, if it can be trusted.
    fn stamp(&self, path: &Path) -> Result<Option<Stamp>, InputsError> {
        let stamp = Stamp::of_name(path).map_err(InputsError::io(path))?;
        Ok(stamp.filter(|stamp| stamp.is_settled(self.scanner.start)))
    }

    fn add(&mut self, path: &Path, kind: SeenKind, stamp: Option<Stamp>, digest: Digest) {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
        let (folder, name) = (folder.to_owned(), Name::new(name));
        self.folder(&folder).files.push(SeenFile { name, kind, stamp, digest });
    }

    fn folder(&mut self, path: &Path) -> &mut SeenFolder {
        folder_at(&mut self.folders, path.strip_prefix(&self.scanner.project.root).unwrap_or(path))
    }

    /// A path as folder, relative to the project's root if it is in there, and name.
    fn split<'p>(&self, path: &'p Path) -> Option<(&'p OsStr, &'p OsStr)> {
        let below = path.strip_prefix(&self.scanner.project.root).unwrap_or(path);
        Some((below.parent()?.as_os_str(), below.file_name()?))
    }
}

/// Whether a path leads to something in the project, whatever symlinks are on the way.
fn is_inside(project: &Project, path: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|real| real.starts_with(&project.root))
}

/// A walk that depends on nothing outside of what it walks over.
fn builder(path: &Path, with_gitignore: bool) -> WalkBuilder {
    let mut builder = WalkBuilder::new(path);
    builder
        .standard_filters(false)
        .git_ignore(with_gitignore)
        .require_git(false)
        .follow_links(false)
        .current_dir(path)
        .sort_by_file_name(Ord::cmp);
    builder
}

/// What is an input of nobody: files of `ww` and git, images, and what cargo makes.
struct Skipped {
    paths: BTreeSet<PathBuf>,
    /// Whether the folders that cargo compiles into are skipped, where no `.gitignore` says so. Not of what somebody has
    /// listed as an input.
    with_targets: bool,
}

impl Skipped {
    fn new(project: &Project) -> Self {
        let own = [FILE_NAME, LOCK_FILE_NAME, "target/ww"].map(|name| project.root.join(name));
        let outs = project.images.values().map(|image| image.out.to_path(&project.root));
        Self { paths: own.into_iter().chain(outs).collect(), with_targets: false }
    }

    fn with_targets(self) -> Self {
        Self { with_targets: true, ..self }
    }

    fn skips(&self, entry: &DirEntry) -> bool {
        let name = entry.file_name();
        name == ".git"
            || editors::is_left(name) && !entry.file_type().is_some_and(|kind| kind.is_dir())
            || self.paths.contains(entry.path())
            || name
                .to_str()
                .and_then(|name| ProjectPath::new(name).ok())
                .is_some_and(|name| name.reserved_component().is_some())
            || self.with_targets && entry.depth() > 0 && (is_target(entry) || name.to_str().is_some_and(is_made))
    }
}

/// Whether a name is that of a folder in which the tools of some language keep what they have made or fetched.
fn is_made(name: &str) -> bool {
    MADE.contains(&name)
}

/// Whether a folder is one that cargo compiles into: beside a manifest, and marked. The mark alone could be anybody's, who
/// hides sources behind it.
fn is_target(entry: &DirEntry) -> bool {
    let folder = entry.path();
    let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
    let has_manifest = || folder.parent().is_some_and(|parent| parent.join("Cargo.toml").is_file());
    is_folder && entry.file_name() == "target" && has_manifest() && is_cache(folder)
}

fn is_cache(folder: &Path) -> bool {
    let mut start = [0; CACHE_SIGNATURE.len()];
    let read = open(&folder.join(CACHE_TAG)).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == CACHE_SIGNATURE
}

/// What a walk has found.
#[derive(Default)]
struct Found {
    /// The folders that were listed.
    folders: Vec<PathBuf>,
    /// Files and symlinks, sorted by path.
    files: Vec<(PathBuf, FileType)>,
}

/// What a walk finds at or below `path`.
fn collect(walk: &WalkBuilder, path: &Path, shown: &str) -> Result<Found, InputsError> {
    let mut found = Found::default();
    for entry in walk.build() {
        let entry = entry.map_err(|source| InputsError::Walk { folder: shown.to_owned(), source })?;
        let Some(kind) = entry.file_type() else { continue };
        if !entry.path().starts_with(path) {
            continue;
        }
        if kind.is_dir() {
            found.folders.push(entry.into_path());
        } else if kind.is_file() || kind.is_symlink() {
            found.files.push((entry.into_path(), kind));
        }
        if found.files.len() > FILES_MAX {
            return Err(InputsError::TooMany { folder: shown.to_owned() });
        }
    }
    found.files.sort_unstable_by(|one, other| one.0.as_os_str().as_bytes().cmp(other.0.as_os_str().as_bytes()));
    Ok(found)
}

fn content(path: &Path) -> Result<Digest, InputsError> {
    open(path).and_then(Digest::of_reader).map_err(InputsError::io(path))
}

/// Opens a file without following a symlink, nor waiting for the other end of a pipe.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

fn kind(path: &Path) -> Result<Option<FileType>, InputsError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.file_type())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(InputsError::io(path)(error)),
    }
}
