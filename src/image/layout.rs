//! The plan of an image: which path holds what, and where each file comes from.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::ImageError;
use super::private_key::{self, KeyEvidence};
use crate::escape;
use crate::folder::{Folder, Kind};
use crate::wasm_binary;
use crate::wetfile::{
    COMPONENTS_MAX, FILE_NAME, GuestName, Image, ImagePath, MAIN_PATH, PATH_BYTES_MAX, ProjectPath, Source,
};

/// The folders that every image has, empty or not: programs, configuration, libraries (FHS 3.0).
pub const STANDARD_FOLDERS: [&str; 3] = ["bin", "etc", "usr/lib"];

/// What a folder of an image holds, by name. Names are UTF-8 and sorted by bytes.
pub(super) type Tree = BTreeMap<String, Node>;

/// The plan of an image. Its paths are no longer and no deeper than [`PATH_BYTES_MAX`] and [`COMPONENTS_MAX`] allow,
/// and `bin/main.wasm` is a file.
///
/// Names and kinds were read from disk; contents were not. Whoever reads the files later must not follow a
/// symlink that has appeared since.
#[derive(Debug)]
pub(super) struct Layout {
    /// The root of the tree.
    pub(super) tree: Tree,
}

/// One object of an image.
#[derive(Debug)]
pub(super) struct Node {
    /// What it is.
    pub(super) content: Content,
    /// Where it comes from, as a person reads it, such as `images/pid0/etc/motd`.
    pub(super) source: String,
}

/// What an object of an image is.
#[derive(Debug)]
pub(super) enum Content {
    /// A folder.
    Folder(Tree),
    /// A file.
    File(FileSource),
    /// A symlink with its target as stored: it is not followed, and may lead nowhere.
    Symlink(String),
}

/// Where the bytes of a file are.
#[derive(Debug)]
pub(super) enum FileSource {
    /// Below the project's root: components joined by `/`. They may have control characters, unlike a
    /// [`ProjectPath`].
    Project(String),
    /// The artifact of a guest, in the build's own folder.
    Artifact(PathBuf),
    /// In no file: these are the bytes.
    Text(String),
}

impl FileSource {
    /// Opens the file for reading, without following a symlink below the project's root; `None` for a text.
    pub(super) fn open(&self, root: &Folder) -> io::Result<Option<File>> {
        match self {
            Self::Artifact(path) => File::open(path).map(Some),
            Self::Project(path) => match path.rsplit_once('/') {
                None => root.file(path).map(Some),
                Some((folders, name)) => descend(root, folders.split('/'))?.file(name).map(Some),
            },
            Self::Text(_) => Ok(None),
        }
    }

    /// The path to show when the file cannot be read.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Artifact(path) => path,
            Self::Project(path) => Path::new(path),
            Self::Text(_) => Path::new(FILE_NAME),
        }
    }
}

impl Layout {
    /// Plans an image from what its Wetfile lists.
    ///
    /// `artifacts` has the file of every guest that the image uses.
    ///
    /// # Errors
    ///
    /// Any [`ImageError`] that shows before contents are read: sources that are missing, not storable, not UTF-8, too
    /// deep or private keys by name; two sources for one path; no `bin/main.wasm`.
    pub(super) fn plan(
        root: &Folder,
        image: &Image,
        artifacts: &BTreeMap<GuestName, PathBuf>,
    ) -> Result<Self, ImageError> {
        let mut tree = Tree::new();
        for folder in STANDARD_FOLDERS {
            let path = ImagePath::new(folder).expect("the standard folders are image paths");
            insert(&mut tree, &path, standard_folder())?;
        }
        for (path, source) in &image.files {
            let node = match source {
                Source::Guest(guest) => artifact(guest, artifacts),
                Source::Path(source) => read(root, path, source)?,
                Source::Text(text) => written(text),
            };
            insert(&mut tree, path, node)?;
        }
        check_lengths(&tree, "")?;
        let layout = Self { tree };
        layout.check_main(root)?;
        Ok(layout)
    }

    /// Checks that there is a program and that it is not too large, before anything is copied.
    fn check_main(&self, root: &Folder) -> Result<(), ImageError> {
        let source = match self.get(MAIN_PATH).map(|node| &node.content) {
            Some(Content::File(source)) => source,
            Some(Content::Folder(_)) => return Err(ImageError::MainNotFile { found: "a folder" }),
            Some(Content::Symlink(_)) => return Err(ImageError::MainNotFile { found: "a symlink" }),
            None => return Err(ImageError::NoMain),
        };
        match source.open(root).map_err(ImageError::io("open", source.path()))? {
            Some(file) => wasm_binary::check_size(&file).map_err(ImageError::io("read", source.path())),
            None => Ok(()),
        }
    }

    /// The object at a path, if there is one.
    fn get(&self, path: &str) -> Option<&Node> {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut tree = &self.tree;
        for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
            match &tree.get(folder)?.content {
                Content::Folder(inner) => tree = inner,
                Content::File(_) | Content::Symlink(_) => return None,
            }
        }
        tree.get(name)
    }
}

/// The folder below `root` that the components lead to.
pub(super) fn descend<'a>(root: &Folder, components: impl Iterator<Item = &'a str>) -> io::Result<Folder> {
    let mut folder = root.folder(".")?;
    for component in components {
        folder = folder.folder(component)?;
    }
    Ok(folder)
}

fn standard_folder() -> Node {
    Node { content: Content::Folder(Tree::new()), source: "the standard folders".to_owned() }
}

/// A guest's artifact; the caller promised that there is one for every guest of the image.
fn artifact(guest: &GuestName, artifacts: &BTreeMap<GuestName, PathBuf>) -> Node {
    let path = artifacts[guest].clone();
    Node { content: Content::File(FileSource::Artifact(path)), source: format!("guest `{guest}`") }
}

/// A file of which the Wetfile says what is in it.
fn written(text: &str) -> Node {
    Node { content: Content::File(FileSource::Text(text.to_owned())), source: "what the Wetfile says".to_owned() }
}

/// Puts a node into the tree; folders that lead to it are made, and folders at the same path are merged.
fn insert(tree: &mut Tree, path: &ImagePath, node: Node) -> Result<(), ImageError> {
    let mut node = node;
    let components: Vec<&str> = path.components().collect();
    let (outermost, rest) = components.split_first().expect("an image path has a component");
    for component in rest.iter().rev() {
        let source = node.source.clone();
        node = Node { content: Content::Folder(Tree::from([((*component).to_owned(), node)])), source };
    }
    merge(tree, "", (*outermost).to_owned(), node)
}

fn merge(tree: &mut Tree, folder: &str, name: String, node: Node) -> Result<(), ImageError> {
    let path = join(folder, &name);
    match tree.entry(name) {
        Entry::Vacant(vacant) => {
            vacant.insert(node);
            Ok(())
        }
        Entry::Occupied(mut occupied) => match (&mut occupied.get_mut().content, node.content) {
            (Content::Folder(present), Content::Folder(new)) => {
                new.into_iter().try_for_each(|(name, node)| merge(present, &path, name, node))
            }
            _ => Err(ImageError::Collision { path, first: shown(&occupied.get().source), second: shown(&node.source) }),
        },
    }
}

fn shown(source: &str) -> String {
    escape::text(source).into_owned()
}

/// Reads the names and kinds of a source that is listed for `entry`.
fn read(root: &Folder, entry: &ImagePath, source: &ProjectPath) -> Result<Node, ImageError> {
    let missing = || ImageError::MissingSource { entry: entry.to_string(), path: source.to_string() };
    let Some((name, parents)) = split(source) else {
        let depth = entry.components().count();
        return read_folder(root.folder(".").map_err(ImageError::io("open", "."))?, String::new(), depth);
    };
    let mut parent = root.folder(".").map_err(ImageError::io("open", "."))?;
    let mut path = String::new();
    for component in parents {
        path = join(&path, component);
        parent = open_real(&parent, component, &path)?.ok_or_else(missing)?;
    }
    let path = join(&path, name);
    read_object(&parent, name, path, entry.components().count())?.ok_or_else(missing)
}

fn split(path: &ProjectPath) -> Option<(&str, Vec<&str>)> {
    let mut components: Vec<&str> = path.components().collect();
    Some((components.pop()?, components))
}

/// Opens a folder; a symlink in its place is told from other errors. `None` if nothing is there.
pub(super) fn open_real(parent: &Folder, name: &str, path: &str) -> Result<Option<Folder>, ImageError> {
    match parent.stat(name).map_err(ImageError::io("read", path))? {
        None => Ok(None),
        Some(stat) if stat.kind == Kind::Symlink => Err(ImageError::ThroughSymlink { path: path.to_owned() }),
        Some(_) => parent.folder(name).map(Some).map_err(ImageError::io("open", path)),
    }
}

/// Reads one object; `path` is relative to the project's root, `depth` counts components inside the image.
fn read_object(parent: &Folder, name: &str, path: String, depth: usize) -> Result<Option<Node>, ImageError> {
    if depth > COMPONENTS_MAX {
        return Err(ImageError::TooLong { path });
    }
    let Some(stat) = parent.stat(name).map_err(ImageError::io("read", &path))? else { return Ok(None) };
    let content = match stat.kind {
        Kind::Folder => {
            let folder = parent.folder(name).map_err(ImageError::io("open", &path))?;
            return read_folder(folder, path, depth).map(Some);
        }
        Kind::File if private_key::is_key_name(name) => {
            return Err(ImageError::PrivateKey { path, evidence: KeyEvidence::Name });
        }
        Kind::File => Content::File(FileSource::Project(path.clone())),
        Kind::Symlink => {
            let target = parent.symlink_target(name).map_err(ImageError::io("read", &path))?;
            let target = target.into_string();
            Content::Symlink(target.map_err(|target| ImageError::TargetNotUtf8 { path: path.clone(), target })?)
        }
        Kind::Other => return Err(ImageError::NotStorable { path }),
    };
    Ok(Some(Node { content, source: path }))
}

fn read_folder(folder: Folder, path: String, depth: usize) -> Result<Node, ImageError> {
    let mut tree = Tree::new();
    for name in folder.names().map_err(ImageError::io("read", &path))? {
        let name = utf8(name, &path)?;
        let inner = join(&path, &name);
        // A name that has vanished since it was listed is left out, as if the folder had been read a moment later.
        if let Some(node) = read_object(&folder, &name, inner, depth + 1)? {
            tree.insert(name, node);
        }
    }
    Ok(Node { content: Content::Folder(tree), source: path })
}

fn utf8(name: OsString, folder: &str) -> Result<String, ImageError> {
    name.into_string().map_err(|name| ImageError::NameNotUtf8 { path: Path::new(folder).join(name) })
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Depths were checked on the way down; lengths can only be told once everything has its place.
fn check_lengths(tree: &Tree, folder: &str) -> Result<(), ImageError> {
    for (name, node) in tree {
        let path = join(folder, name);
        if path.len() > PATH_BYTES_MAX {
            return Err(ImageError::TooLong { path });
        }
        if let Content::Folder(inner) = &node.content {
            check_lengths(inner, &path)?;
        }
    }
    Ok(())
}
