//! Folders that are being imported.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::dag::unixfs::{Entries, NameError};
use crate::tree::root::Root;
use crate::tree::stat_cache::CachedFile;

/// A folder whose contents are not all known yet, or the place of a root that is a file.
pub(super) struct Node {
    /// The path below the root, with `/` between the names; empty for the root.
    pub(super) path: String,
    /// The name in the parent.
    pub(super) name: Box<str>,
    /// `None` for the root.
    pub(super) parent: Option<Arc<Node>>,
    /// Whether this is a folder, and not the place of a root that is a file.
    pub(super) is_folder: bool,
    /// Locked for the length of an append, by whoever has done something in this folder.
    state: Mutex<State>,
}

struct State {
    /// How much has to be done until all is known: one for each child, and one until the children are listed.
    pending: usize,
    contents: Contents,
}

/// What is known of a folder's contents.
#[derive(Default)]
pub(super) struct Contents {
    /// Names and roots.
    pub(super) children: Entries,
    /// The root, where it is no folder.
    pub(super) root: Option<Root>,
    /// The files that the cache knew, by their place in its list of this folder.
    pub(super) hits: Vec<usize>,
    /// The files that the cache is to know in addition.
    pub(super) fresh: Vec<CachedFile>,
}

impl Contents {
    /// A single child, or what a place of a root holds.
    pub(super) fn single(node: &Node, name: &str, root: Root) -> Result<Self, NameError> {
        let mut contents = Self::default();
        if node.is_folder {
            contents.children.push(name, &root.subtree())?;
        } else {
            contents.root = Some(root);
        }
        Ok(contents)
    }

    fn append(&mut self, mut other: Self) {
        self.children.append(&mut other.children);
        self.root = self.root.or(other.root);
        self.hits.append(&mut other.hits);
        self.fresh.append(&mut other.fresh);
    }
}

impl Node {
    pub(super) fn root(is_folder: bool) -> Arc<Self> {
        Arc::new(Self { path: String::new(), name: Box::default(), parent: None, is_folder, state: State::new() })
    }

    pub(super) fn folder(parent: &Arc<Self>, name: Box<str>) -> Arc<Self> {
        let path = parent.child(&name);
        Arc::new(Self { path, name, parent: Some(parent.clone()), is_folder: true, state: State::new() })
    }

    /// The path of a child below the root.
    pub(super) fn child(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) }
    }

    /// The path of a child for messages; the empty name is that of the folder itself.
    pub(super) fn shown(&self, root: &Path, name: &str) -> PathBuf {
        let mut shown = root.to_owned();
        [self.path.as_str(), name].into_iter().filter(|part| !part.is_empty()).for_each(|part| shown.push(part));
        shown
    }

    /// Says that there are this many more children.
    pub(super) fn expect(&self, children: usize) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).pending += children;
    }

    /// Adds what was found, after which `done` less has to be done. Gives all contents, once, when nothing is left.
    pub(super) fn add(&self, contents: Contents, done: usize) -> Option<Contents> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.contents.append(contents);
        state.pending -= done;
        (state.pending == 0).then(|| std::mem::take(&mut state.contents))
    }
}

impl State {
    fn new() -> Mutex<Self> {
        Mutex::new(Self { pending: 1, contents: Contents::default() })
    }
}
