//! The plan of an image: which path holds what, and where each file comes from.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::ImageError;
use super::private_key::{self, KeyEvidence};
use super::{Parts, glob};
use crate::dag::Cid;
use crate::escape;
use crate::folder::{Folder, Kind, open_real_file};
use crate::wasm_binary;
use crate::wetfile::{
    Base, COMPONENTS_MAX, FILE_NAME, Image, ImagePath, MAIN_PATH, PATH_BYTES_MAX, ProjectPath, Source,
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
    /// Whether it takes the place of what the image's base has.
    pub(super) replaces: bool,
}

impl Node {
    pub(super) fn new(content: Content, source: impl Into<String>) -> Self {
        Self { content, source: source.into(), replaces: false }
    }
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
    /// Below a folder into which the tree of a CID was written, or that file itself where the path is empty.
    Content {
        /// The folder or file.
        root: PathBuf,
        /// The path below it, like those of the project.
        path: String,
    },
    /// In no file: these are the bytes.
    Text(String),
}

impl FileSource {
    /// Opens the file for reading, without following a symlink below the project's root; `None` for a text.
    pub(super) fn open(&self, root: &Folder) -> io::Result<Option<File>> {
        match self {
            Self::Artifact(path) => File::open(path).map(Some),
            Self::Project(path) => file_below(root, path).map(Some),
            Self::Content { root, path } if path.is_empty() => open_real_file(root).map(|(file, _)| Some(file)),
            Self::Content { root, path } => file_below(&Folder::open(root)?, path).map(Some),
            Self::Text(_) => Ok(None),
        }
    }

    /// The path to show when the file cannot be read.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Artifact(path) => path.clone(),
            Self::Project(path) => path.into(),
            Self::Content { root, path } => root.join(path),
            Self::Text(_) => FILE_NAME.into(),
        }
    }
}

/// Opens a file for reading, without following a symlink below `root`.
fn file_below(root: &Folder, path: &str) -> io::Result<File> {
    match path.rsplit_once('/') {
        None => root.file(path),
        Some((folders, name)) => descend(root, folders.split('/'))?.file(name),
    }
}

/// Where names and kinds are read, and what they are read for.
pub(super) struct Origin<'a> {
    /// The folder that paths are relative to.
    pub(super) folder: Folder,
    /// The CID whose tree that folder is, if it is none of the project.
    pub(super) content: Option<(&'a Cid, &'a Path)>,
}

impl Origin<'_> {
    /// How a path below the folder is shown.
    pub(super) fn shown(&self, path: &str) -> String {
        match self.content {
            Some((cid, _)) if path.is_empty() => cid.to_string(),
            Some((cid, _)) => format!("{cid}/{path}"),
            None => path.to_owned(),
        }
    }

    fn file(&self, path: &str) -> FileSource {
        match self.content {
            Some((_, root)) => FileSource::Content { root: root.to_owned(), path: path.to_owned() },
            None => FileSource::Project(path.to_owned()),
        }
    }
}

impl Layout {
    /// Plans an image from what its Wetfile lists, and what those list that it is based on.
    ///
    /// # Errors
    ///
    /// Any [`ImageError`] that shows before contents are read: sources that are missing, not storable, not UTF-8, too
    /// deep or private keys by name; two sources for one path; globs that nothing fits; no `bin/main.wasm`.
    pub(super) fn plan(root: &Folder, image: &Image, parts: &Parts<'_>) -> Result<Self, ImageError> {
        let mut tree = Tree::new();
        for folder in STANDARD_FOLDERS {
            insert(&mut tree, &folder.split('/').collect::<Vec<_>>(), standard_folder())?;
        }
        for layer in parts.bases.iter().copied().chain([image]) {
            if let Some(Base::Content(cid)) = &layer.base {
                lay_over(&mut tree, "", base_content(cid, parts)?)?;
            }
            let mut own = plan_layer(root, layer, parts)?;
            if layer.name != image.name {
                say_base(&mut own, layer);
            }
            lay_over(&mut tree, "", own)?;
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
    Node::new(Content::Folder(Tree::new()), "the standard folders")
}

/// What an image lists itself.
fn plan_layer(root: &Folder, image: &Image, parts: &Parts<'_>) -> Result<Tree, ImageError> {
    let mut tree = Tree::new();
    let origin = || Ok(Origin { folder: root.folder(".").map_err(ImageError::io("open", "."))?, content: None });
    for (path, source) in &image.files {
        let mut node = match source {
            // The caller promised that there is one for every guest of the image.
            Source::Guest(guest) => {
                let artifact = FileSource::Artifact(parts.artifacts[guest].clone());
                Node::new(Content::File(artifact), format!("guest `{guest}`"))
            }
            Source::Path(source) => read(&origin()?, path, source)?,
            Source::Glob { folder, glob } => glob::read(&origin()?, path, folder, glob, parts.outs)?,
            Source::Text(text) => Node::new(Content::File(FileSource::Text(text.clone())), "what the Wetfile says"),
            Source::Content(cid) => content(cid, path.components().count(), parts)?,
        };
        if image.replaces.contains(path) {
            replace_all(&mut node);
        }
        insert(&mut tree, &path.components().collect::<Vec<_>>(), node)?;
    }
    Ok(tree)
}

/// Marks a node, and all that is in it, as what takes the place of what the base has.
fn replace_all(node: &mut Node) {
    node.replaces = true;
    if let Content::Folder(inner) = &mut node.content {
        inner.values_mut().for_each(replace_all);
    }
}

/// The tree of a CID, which was written to disk before; `depth` is that of its root in the image.
fn content(cid: &Cid, depth: usize, parts: &Parts<'_>) -> Result<Node, ImageError> {
    let root = &parts.contents[cid];
    let (parent, name) = (root.parent(), root.file_name().and_then(|name| name.to_str()));
    let (Some(parent), Some(name)) = (parent, name) else { unreachable!("content lies in a folder, under its CID") };
    let parent = Folder::open(parent).map_err(ImageError::io("open", parent))?;
    let stat = parent.stat(name).map_err(ImageError::io("read", root))?;
    let is_folder = stat.is_some_and(|stat| stat.kind == Kind::Folder);
    if !is_folder {
        // A file or symlink: the only one there is, at no path below itself.
        let origin = Origin { folder: parent, content: Some((cid, root)) };
        let node = read_object(&origin, &origin.folder, name, String::new(), depth)?;
        return node.ok_or_else(|| ImageError::MissingContent { cid: Box::new(*cid) });
    }
    let origin =
        Origin { folder: Folder::open(root).map_err(ImageError::io("open", root))?, content: Some((cid, root)) };
    let folder = origin.folder.folder(".").map_err(ImageError::io("open", root))?;
    read_folder(&origin, folder, String::new(), depth)
}

fn base_content(cid: &Cid, parts: &Parts<'_>) -> Result<Tree, ImageError> {
    match content(cid, 0, parts)?.content {
        Content::Folder(tree) => Ok(tree),
        Content::File(_) | Content::Symlink(_) => Err(ImageError::BaseNotFolder { cid: Box::new(*cid) }),
    }
}

/// Adds to all sources that they are those of another image.
fn say_base(tree: &mut Tree, base: &Image) {
    for node in tree.values_mut() {
        node.source = format!("{} of its base `{}`", node.source, base.name);
        if let Content::Folder(inner) = &mut node.content {
            say_base(inner, base);
        }
    }
}

/// Lays a tree over another one: folders are merged, and what is in both is an error unless the upper one replaces it.
fn lay_over(below: &mut Tree, folder: &str, above: Tree) -> Result<(), ImageError> {
    for (name, node) in above {
        let path = join(folder, &name);
        let Some(present) = below.get_mut(&name) else {
            below.insert(name, node);
            continue;
        };
        match (&mut present.content, node.content) {
            (Content::Folder(present), Content::Folder(inner)) => lay_over(present, &path, inner)?,
            (_, content) if node.replaces => *present = Node::new(content, node.source),
            _ => {
                return Err(ImageError::Collision { path, first: shown(&present.source), second: shown(&node.source) });
            }
        }
    }
    Ok(())
}

/// Puts a node into the tree; folders that lead to it are made, and folders at the same path are merged.
pub(super) fn insert(tree: &mut Tree, path: &[&str], node: Node) -> Result<(), ImageError> {
    let mut node = node;
    let (outermost, rest) = path.split_first().expect("a path has a component");
    for component in rest.iter().rev() {
        let (source, replaces) = (node.source.clone(), node.replaces);
        node = Node { content: Content::Folder(Tree::from([((*component).to_owned(), node)])), source, replaces };
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
fn read(origin: &Origin<'_>, entry: &ImagePath, source: &ProjectPath) -> Result<Node, ImageError> {
    let missing = || ImageError::MissingSource { entry: entry.to_string(), path: source.to_string() };
    let depth = entry.components().count();
    let Some((name, parents)) = split(source) else {
        let folder = origin.folder.folder(".").map_err(ImageError::io("open", "."))?;
        return read_folder(origin, folder, String::new(), depth);
    };
    let (parent, path) = open_parents(origin, parents)?.ok_or_else(missing)?;
    let path = join(&path, name);
    read_object(origin, &parent, name, path, depth)?.ok_or_else(missing)
}

fn split(path: &ProjectPath) -> Option<(&str, Vec<&str>)> {
    let mut components: Vec<&str> = path.components().collect();
    Some((components.pop()?, components))
}

/// Opens a folder below an origin, and gives its path, too. `None` if nothing is there.
pub(super) fn open_parents<'c>(
    origin: &Origin<'_>,
    components: impl IntoIterator<Item = &'c str>,
) -> Result<Option<(Folder, String)>, ImageError> {
    let mut folder = origin.folder.folder(".").map_err(ImageError::io("open", "."))?;
    let mut path = String::new();
    for component in components {
        path = join(&path, component);
        let Some(inner) = open_real(&folder, component, &path)? else { return Ok(None) };
        folder = inner;
    }
    Ok(Some((folder, path)))
}

/// Opens a folder; a symlink in its place is told from other errors. `None` if nothing is there.
pub(super) fn open_real(parent: &Folder, name: &str, path: &str) -> Result<Option<Folder>, ImageError> {
    match parent.stat(name).map_err(ImageError::io("read", path))? {
        None => Ok(None),
        Some(stat) if stat.kind == Kind::Symlink => Err(ImageError::ThroughSymlink { path: path.to_owned() }),
        Some(_) => parent.folder(name).map(Some).map_err(ImageError::io("open", path)),
    }
}

/// Reads one object; `path` is relative to the origin, `depth` counts components inside the image.
pub(super) fn read_object(
    origin: &Origin<'_>,
    parent: &Folder,
    name: &str,
    path: String,
    depth: usize,
) -> Result<Option<Node>, ImageError> {
    let shown = origin.shown(&path);
    if depth > COMPONENTS_MAX {
        return Err(ImageError::TooLong { path: shown });
    }
    let Some(stat) = parent.stat(name).map_err(ImageError::io("read", &shown))? else { return Ok(None) };
    let content = match stat.kind {
        Kind::Folder => {
            let folder = parent.folder(name).map_err(ImageError::io("open", &shown))?;
            return read_folder(origin, folder, path, depth).map(Some);
        }
        Kind::File if private_key::is_key_name(name) => {
            return Err(ImageError::PrivateKey { path: shown, evidence: KeyEvidence::Name });
        }
        Kind::File => Content::File(origin.file(&path)),
        Kind::Symlink => {
            let target = parent.symlink_target(name).map_err(ImageError::io("read", &shown))?;
            let target = target.into_string();
            Content::Symlink(target.map_err(|target| ImageError::TargetNotUtf8 { path: shown.clone(), target })?)
        }
        Kind::Other => return Err(ImageError::NotStorable { path: shown }),
    };
    Ok(Some(Node::new(content, shown)))
}

fn read_folder(origin: &Origin<'_>, folder: Folder, path: String, depth: usize) -> Result<Node, ImageError> {
    let shown = origin.shown(&path);
    let mut tree = Tree::new();
    for name in folder.names().map_err(ImageError::io("read", &shown))? {
        let name = utf8(name, &shown)?;
        let inner = join(&path, &name);
        // A name that has vanished since it was listed is left out, as if the folder had been read a moment later.
        if let Some(node) = read_object(origin, &folder, &name, inner, depth + 1)? {
            tree.insert(name, node);
        }
    }
    Ok(Node::new(Content::Folder(tree), shown))
}

pub(super) fn utf8(name: OsString, folder: &str) -> Result<String, ImageError> {
    name.into_string().map_err(|name| ImageError::NameNotUtf8 { path: Path::new(folder).join(name) })
}

pub(super) fn join(folder: &str, name: &str) -> String {
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
