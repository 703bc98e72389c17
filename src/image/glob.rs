//! Entries of an image that are what a glob fits: which files these are.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::Path;

use super::ImageError;
use super::layout::{Content, Node, Origin, Tree, join, open_parents, read_object, utf8};
use crate::folder::{Folder, Kind};
use crate::wetfile::{COMPONENTS_MAX, Glob, GlobMatcher, ImagePath, ProjectPath, split_glob};

/// Most files and folders that are looked at for one glob. A bound on what a mistaken one costs, far above what people lay
/// out.
const OBJECTS_MAX: usize = 1_000_000;

/// Names that are nobody's sources, wherever they are.
const SKIPPED_NAME: &str = ".git";

/// The folder of build states, at the root of the project.
const SKIPPED_PATH: &str = "target/ww";

/// What a glob fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitting {
    /// The files and symlinks, by path below the glob's folder.
    pub paths: BTreeSet<String>,
    /// The folders that were looked into, whether or not something in them fits; the glob's own is the empty path, and the
    /// first.
    pub folders: Vec<String>,
}

/// What a glob fits below a folder of the project at `root`; not in those that `outs` has, and nothing of git or of `ww`.
///
/// # Errors
///
/// [`ImageError`], also if nothing fits.
pub fn fitting(
    root: &Path,
    entry: &ImagePath,
    folder: &ProjectPath,
    glob: &Glob,
    outs: &BTreeSet<ProjectPath>,
) -> Result<Fitting, ImageError> {
    let origin = Origin { folder: Folder::open(root).map_err(ImageError::io("open", root))?, content: None };
    let Looked { tree, folders, .. } = look(&origin, entry, folder, glob, outs)?;
    let mut fitting = Fitting { folders, ..Fitting::default() };
    collect(&tree, "", &mut fitting.paths);
    Ok(fitting)
}

fn collect(tree: &Tree, folder: &str, paths: &mut BTreeSet<String>) {
    for (name, node) in tree {
        let path = join(folder, name);
        match &node.content {
            Content::Folder(inner) => collect(inner, &path, paths),
            Content::File(_) | Content::Symlink(_) => drop(paths.insert(path)),
        }
    }
}

/// Reads what fits, as a folder that has it at its paths below `folder`.
pub(super) fn read(
    origin: &Origin<'_>,
    entry: &ImagePath,
    folder: &ProjectPath,
    glob: &Glob,
    outs: &BTreeSet<ProjectPath>,
) -> Result<Node, ImageError> {
    let Looked { tree, path, .. } = look(origin, entry, folder, glob, outs)?;
    Ok(Node::new(Content::Folder(tree), path))
}

/// What came of a look into a glob's folder.
struct Looked {
    tree: Tree,
    /// The folder, relative to the project's root.
    path: String,
    /// See [`Fitting::folders`].
    folders: Vec<String>,
}

fn look(
    origin: &Origin<'_>,
    entry: &ImagePath,
    folder: &ProjectPath,
    glob: &Glob,
    outs: &BTreeSet<ProjectPath>,
) -> Result<Looked, ImageError> {
    let missing = || ImageError::MissingSource { entry: entry.to_string(), path: folder.to_string() };
    let (opened, path) = open_parents(origin, folder.components())?.ok_or_else(missing)?;
    let (matcher, depth_max) = (glob.matcher(), glob.components_max());
    let mut walk = Walk { origin, matcher, depth_max, outs, objects: 0, folders: Vec::new() };
    // Nothing fits that is not below the part without wildcards.
    let start = split_glob(glob.as_str()).0.split('/').filter(|component| !matches!(*component, "" | "."));
    let start: Vec<&str> = start.collect();
    let tree = walk.folder(&opened, &path, "", (&start, entry.components().count()))?;
    if tree.is_empty() {
        return Err(ImageError::GlobFitsNothing {
            entry: entry.to_string(),
            folder: folder.to_string(),
            glob: glob.to_string(),
        });
    }
    Ok(Looked { tree, path, folders: walk.folders })
}

struct Walk<'w> {
    origin: &'w Origin<'w>,
    matcher: GlobMatcher,
    /// How many components a path that fits has at most.
    depth_max: Option<usize>,
    outs: &'w BTreeSet<ProjectPath>,
    objects: usize,
    /// Those that were looked into, below the glob's folder.
    folders: Vec<String>,
}

impl Walk<'_> {
    /// What fits in a folder at `path`, which is `below` the one of the glob. On the way along `start` other names are left
    /// out; `depth` counts components inside the image.
    fn folder(
        &mut self,
        folder: &Folder,
        path: &str,
        below: &str,
        (start, depth): (&[&str], usize),
    ) -> Result<Tree, ImageError> {
        self.folders.push(below.to_owned());
        let mut tree = Tree::new();
        for name in folder.names().map_err(ImageError::io("read", path))? {
            if start.first().is_some_and(|first| **first != *name) {
                continue;
            }
            // No image can hold such a name. One that fits nothing is nobody's business.
            if name.to_str().is_none() && !self.fits_odd(folder, &name, path, below)? {
                continue;
            }
            let name = utf8(name, path)?;
            let (path, below) = (join(path, &name), join(below, &name));
            if self.skips(&name, &path) {
                continue;
            }
            self.count()?;
            let kind = folder.stat(&name).map_err(ImageError::io("read", &path))?.map(|stat| stat.kind);
            match kind {
                Some(Kind::Folder) if self.depth_max.is_none_or(|max| below.split('/').count() < max) => {
                    let inner = folder.folder(&name).map_err(ImageError::io("open", &path))?;
                    let rest = start.split_first().map_or(&[][..], |(_, rest)| rest);
                    let inner = self.folder(&inner, &path, &below, (rest, depth + 1))?;
                    if !inner.is_empty() {
                        tree.insert(name, Node::new(Content::Folder(inner), path));
                    }
                }
                Some(Kind::File | Kind::Symlink) if self.matcher.fits(&below) => {
                    if let Some(node) = read_object(self.origin, folder, &name, path, depth + 1)? {
                        tree.insert(name, node);
                    }
                }
                _ => {}
            }
        }
        Ok(tree)
    }

    /// Whether something fits whose name is not UTF-8, or anything below it: by its name with replacement characters.
    fn fits_odd(&mut self, folder: &Folder, name: &OsStr, path: &str, below: &str) -> Result<bool, ImageError> {
        let below = join(below, &name.to_string_lossy());
        let path = join(path, &name.to_string_lossy());
        self.count()?;
        match folder.stamp(name).map(|(kind, _)| kind) {
            Ok(Kind::Folder) if self.depth_max.is_none_or(|max| below.split('/').count() < max) => {
                let inner = folder.folder(name).map_err(ImageError::io("open", &path))?;
                // What is as deep as this fits into no image, which is told of the rest.
                if below.split('/').count() > COMPONENTS_MAX {
                    return Ok(false);
                }
                for name in inner.names().map_err(ImageError::io("read", &path))? {
                    if name != SKIPPED_NAME && self.fits_odd(&inner, &name, &path, &below)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Ok(Kind::File | Kind::Symlink) => Ok(self.matcher.fits(&below)),
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(ImageError::io("read", path)(error)),
        }
    }

    fn count(&mut self) -> Result<(), ImageError> {
        self.objects += 1;
        if self.objects > OBJECTS_MAX { Err(ImageError::GlobTooMany { limit: OBJECTS_MAX }) } else { Ok(()) }
    }

    /// Whether something is a source of nobody.
    fn skips(&self, name: &str, path: &str) -> bool {
        let as_path = || ProjectPath::new(path).ok();
        name == SKIPPED_NAME
            || path == SKIPPED_PATH
            || ProjectPath::new(name).is_ok_and(|name| name.reserved_component().is_some())
            || as_path().is_some_and(|path| self.outs.contains(&path))
    }
}
