//! Copies of a project's inputs in other folders.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use crate::build::GuestFiles;
use crate::image;
use crate::wetfile::{FILE_NAME, Guest, Language, Project, Recipe, Source};

/// Where the tools of JavaScript lie, which are no inputs.
const NODE_MODULES: &str = "node_modules";

/// A file that could not be copied.
#[derive(Debug)]
pub(super) struct CopyError {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CopyError + '_ {
    move |source| CopyError { path: path.to_owned(), source }
}

/// Copies what the guests and images of a project are made of to a folder, with modes as a checkout under this umask has
/// them; stops when `stopped` says so.
pub(super) fn copy(
    project: &Project,
    guests: &GuestFiles,
    to: &Path,
    umask: u32,
    stopped: &dyn Fn() -> bool,
) -> Result<(), CopyError> {
    let mut copier = Copier { from: &project.root, to, umask, stopped, done: BTreeSet::new() };
    copier.folder(Path::new(""))?;
    copier.object(Path::new(FILE_NAME))?;
    for folder in &guests.folders {
        copier.folder(folder)?;
    }
    for file in &guests.files {
        copier.object(file)?;
    }
    let outs = project.outs();
    for image in project.images.values() {
        for (place, source) in &image.files {
            match source {
                Source::Path(path) => copier.tree(Path::new(path.as_str()))?,
                Source::Glob { folder, glob } => {
                    let folder_path = Path::new(folder.as_str());
                    let fitting = image::fitting(&project.root, place, folder, glob, &outs);
                    let fitting = fitting.map_err(|error| at(folder_path)(io::Error::other(error)))?;
                    copier.folder(folder_path)?;
                    fitting.paths.iter().try_for_each(|path| copier.object(&folder_path.join(path)))?;
                }
                Source::Guest(_) | Source::Text(_) | Source::Content(_) => {}
            }
        }
    }
    project.guests.values().filter(|guest| is_javascript(guest)).try_for_each(|guest| copier.modules(guest))
}

/// Copies whole trees, by their paths below `from`.
pub(super) fn copy_trees(
    from: &Path,
    trees: &[PathBuf],
    to: &Path,
    umask: u32,
    stopped: &dyn Fn() -> bool,
) -> Result<(), CopyError> {
    let mut copier = Copier { from, to, umask, stopped, done: BTreeSet::new() };
    trees.iter().try_for_each(|tree| copier.tree(tree))
}

fn is_javascript(guest: &Guest) -> bool {
    matches!(&guest.recipe, Recipe::Language(recipe) if recipe.language == Language::JavaScript)
}

/// Gives everything at and below a path to another user.
pub(super) fn give(path: &Path, user: u32, group: u32) -> Result<(), CopyError> {
    lchown(path, Some(user), Some(group)).map_err(at(path))?;
    if path.symlink_metadata().map_err(at(path))?.is_dir() {
        for entry in fs::read_dir(path).map_err(at(path))? {
            give(&entry.map_err(at(path))?.path(), user, group)?;
        }
    }
    Ok(())
}

struct Copier<'a> {
    from: &'a Path,
    to: &'a Path,
    umask: u32,
    stopped: &'a dyn Fn() -> bool,
    done: BTreeSet<PathBuf>,
}

impl Copier<'_> {
    /// Makes a folder, and those that it lies in.
    fn folder(&mut self, path: &Path) -> Result<(), CopyError> {
        if !self.done.insert(path.to_owned()) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        let to = self.to.join(path);
        fs::create_dir_all(&to).map_err(at(&to))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o777 & !self.umask)).map_err(at(&to))
    }

    /// Copies a file, or a symlink with the file of the project that it leads to.
    fn object(&mut self, path: &Path) -> Result<(), CopyError> {
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        if (self.stopped)() || !self.done.insert(path.to_owned()) {
            return Ok(());
        }
        let (from, to) = (self.from.join(path), self.to.join(path));
        let metadata = from.symlink_metadata().map_err(at(&from))?;
        if metadata.is_symlink() {
            let target = fs::read_link(&from).map_err(at(&from))?;
            symlink(target, &to).map_err(at(&to))?;
            let real = fs::canonicalize(&from).ok().filter(|real| real.is_file());
            return match real.as_ref().and_then(|real| real.strip_prefix(self.from).ok()) {
                Some(inside) => self.object(inside),
                None => Ok(()),
            };
        }
        if !metadata.is_file() {
            return Err(at(&from)(io::Error::other("neither a file, nor a folder, nor a symlink")));
        }
        fs::copy(&from, &to).map_err(at(&from))?;
        let mode = if metadata.mode() & 0o111 == 0 { 0o666 } else { 0o777 };
        fs::set_permissions(&to, fs::Permissions::from_mode(mode & !self.umask)).map_err(at(&to))
    }

    /// Copies whatever is at a path, with all that is in it.
    fn tree(&mut self, path: &Path) -> Result<(), CopyError> {
        let from = self.from.join(path);
        if !from.symlink_metadata().map_err(at(&from))?.is_dir() {
            return self.object(path);
        }
        self.folder(path)?;
        for entry in fs::read_dir(&from).map_err(at(&from))? {
            self.tree(&path.join(entry.map_err(at(&from))?.file_name()))?;
        }
        Ok(())
    }

    /// Has the modules that are installed for a guest at hand.
    fn modules(&mut self, guest: &Guest) -> Result<(), CopyError> {
        for folder in Path::new(guest.dir.as_str()).ancestors() {
            let (from, to) = (self.from.join(folder).join(NODE_MODULES), self.to.join(folder).join(NODE_MODULES));
            if from.is_dir() && to.symlink_metadata().is_err() {
                self.folder(folder)?;
                symlink(&from, &to).map_err(at(&to))?;
            }
        }
        Ok(())
    }
}
