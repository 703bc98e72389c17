//! Files of a project, found and digested.

use std::collections::BTreeSet;
use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use ignore::{DirEntry, WalkBuilder};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::{FILES_MAX, InputsError};
use crate::wetfile::lock::{Digest, Facts, LOCK_FILE_NAME};
use crate::wetfile::{FILE_NAME, Project, ProjectPath, split_glob};

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// The file by which programs mark folders of what can be made again (bford.info/cachedir), and how it begins.
const CACHE_TAG: &str = "CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Folders that are inputs of no guest whose `inputs` do not list them: what Python, npm, Zig and `python3 -m venv` make.
const MADE: [&str; 5] = ["__pycache__", "node_modules", ".zig-cache", "zig-out", ".venv"];

/// A file or folder that a Rust guest's build reads; of a folder what git would see. `None` if it is not there, or reached
/// through a symlink out of the project: a lock may come from anybody.
///
/// Folders of the project that symlinks in it lead to are added to `linked`.
pub(super) fn rust_root(
    project: &Project,
    root: &ProjectPath,
    linked: &mut BTreeSet<ProjectPath>,
) -> Result<Option<Digest>, InputsError> {
    let path = root.to_path(&project.root);
    match kind(&path)? {
        Some(_) if !root.is_root() && !path.parent().is_some_and(|parent| is_inside(project, parent)) => {
            return Ok(None);
        }
        None => return Ok(None),
        Some(kind) if !kind.is_dir() => return object(project, &path, kind, linked).map(Some),
        Some(_) => {}
    }
    // From the project's root on, for the sake of the `.gitignore` files on the way.
    let (wanted, skipped) = (path.clone(), Skipped::new(project).with_targets());
    let mut walk = builder(&project.root, true);
    walk.filter_entry(move |entry| {
        let path = entry.path();
        (wanted.starts_with(path) || path.starts_with(&wanted)) && !skipped.skips(entry)
    });
    let seen = collect(&walk, &path, root)?;
    let seen = match seen.is_empty() {
        // Git would not see the folder itself. Those who build a guest from it do.
        true => {
            let mut walk = builder(&path, true);
            let skipped = Skipped::new(project).with_targets();
            walk.filter_entry(move |entry| !skipped.skips(entry));
            collect(&walk, &path, root)?
        }
        false => seen,
    };
    digest(project, &path, &seen, linked).map(Some)
}

/// A file, or everything in a folder. `None` if it is not there.
pub(super) fn whole(project: &Project, root: &ProjectPath) -> Result<Option<Digest>, InputsError> {
    let path = root.to_path(&project.root);
    match kind(&path)? {
        None => Ok(None),
        Some(kind) if !kind.is_dir() => object(project, &path, kind, &mut BTreeSet::new()).map(Some),
        Some(_) => {
            let mut walk = builder(&path, false);
            let skipped = Skipped::new(project);
            walk.filter_entry(move |entry| entry.depth() == 0 || !skipped.skips(entry));
            digest(project, &path, &collect(&walk, &path, root)?, &mut BTreeSet::new()).map(Some)
        }
    }
}

/// The files that a glob, relative to `dir`, fits. Those outside of the project are none.
pub(super) fn glob(project: &Project, dir: &ProjectPath, glob: &str) -> Result<Digest, InputsError> {
    let (folder, pattern) = split_glob(glob);
    let matcher = matcher(pattern).map_err(|source| InputsError::Glob { glob: glob.to_owned(), source })?;
    let folder = dir.join(folder).unwrap_or_else(|_| dir.clone());
    let path = folder.to_path(&project.root);
    if !is_inside(project, &path) {
        return Ok(Facts::default().finish());
    }
    let mut walk = builder(&path, false);
    if !pattern.contains("**") {
        walk.max_depth(Some(pattern.split('/').count()));
    }
    let skipped = Skipped::new(project);
    walk.filter_entry(move |entry| entry.depth() == 0 || !skipped.skips(entry));
    let mut seen = collect(&walk, &path, &folder)?;
    seen.retain(|(file, _)| file.strip_prefix(&path).is_ok_and(|file| matcher.is_match(file)));
    digest(project, &path, &seen, &mut BTreeSet::new())
}

/// Whether a path leads to something in the project, whatever symlinks are on the way.
fn is_inside(project: &Project, path: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|real| real.starts_with(&project.root))
}

fn matcher(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build()?;
    Ok(glob.compile_matcher())
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

/// The files and symlinks that a walk sees at or below `path`, sorted by path.
fn collect(walk: &WalkBuilder, path: &Path, shown: &ProjectPath) -> Result<Vec<(PathBuf, FileType)>, InputsError> {
    let mut seen = Vec::new();
    for entry in walk.build() {
        let entry = entry.map_err(|source| InputsError::Walk { folder: shown.to_string(), source })?;
        let Some(kind) = entry.file_type() else { continue };
        if (kind.is_file() || kind.is_symlink()) && entry.path().starts_with(path) {
            seen.push((entry.into_path(), kind));
        }
        if seen.len() > FILES_MAX {
            return Err(InputsError::TooMany { folder: shown.to_string() });
        }
    }
    seen.sort_unstable_by(|one, other| one.0.as_os_str().as_bytes().cmp(other.0.as_os_str().as_bytes()));
    Ok(seen)
}

fn digest(
    project: &Project,
    folder: &Path,
    seen: &[(PathBuf, FileType)],
    linked: &mut BTreeSet<ProjectPath>,
) -> Result<Digest, InputsError> {
    let mut facts = Facts::default();
    for (path, kind) in seen {
        let below = path.strip_prefix(folder).unwrap_or(path);
        facts.add(below.as_os_str().as_bytes());
        facts.add(object(project, path, *kind, linked)?.to_string());
    }
    Ok(facts.finish())
}

/// A file by its content; a symlink by its target, and by the content of the file that it leads to in the project.
fn object(
    project: &Project,
    path: &Path,
    kind: FileType,
    linked: &mut BTreeSet<ProjectPath>,
) -> Result<Digest, InputsError> {
    let mut facts = Facts::default();
    if !kind.is_symlink() {
        facts.add("file");
        facts.add(content(path)?.to_string());
        return Ok(facts.finish());
    }
    facts.add("symlink");
    facts.add(fs::read_link(path).map_err(InputsError::io(path))?.as_os_str().as_bytes());
    let target = fs::canonicalize(path).ok();
    let inside = target.as_deref().and_then(|target| target.strip_prefix(&project.root).ok());
    if let (Some(target), Some(inside)) = (&target, inside) {
        if target.is_file() {
            facts.add(content(target)?.to_string());
        } else if let Some(folder) = inside.to_str().and_then(|inside| ProjectPath::new(inside).ok()) {
            linked.insert(folder);
        }
    }
    Ok(facts.finish())
}

fn content(path: &Path) -> Result<Digest, InputsError> {
    let read = || {
        let mut file = open(path)?;
        let (mut digest, mut buffer) = (Sha256::new(), vec![0; BUFFER_BYTES]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Digest::from(<[u8; 32]>::from(digest.finalize()))),
                length => digest.update(&buffer[..length]),
            }
        }
    };
    read().map_err(InputsError::io(path))
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
