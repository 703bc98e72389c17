//! Finds what there is to import.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::SystemTime;
use std::{fs, io};

use super::file::LargeFile;
use super::names::Names;
use super::node::{Contents, Node};
use super::work::{Counts, Items, Local, Shared, Task};
use super::{BlockSink, DEPTH_MAX, ImportError, ImportOptions, Imported, RootSymlink, THREADS_MAX};
use crate::folder::{Folder, Kind, open_real_file};
use crate::tree::StatCache;
use crate::tree::queue::{CloseOnPanic, Queue};

pub(super) fn import(
    path: &Path,
    options: &ImportOptions<'_>,
    cache: Option<&mut StatCache>,
    sink: Option<&mut dyn BlockSink>,
) -> Result<Imported, ImportError> {
    let shared = Shared {
        root: path,
        options,
        cache: cache.as_deref(),
        has_cached: sink.as_ref().is_none_or(|sink| sink.has_all()),
        keeps_pieces: sink.as_ref().is_some_and(|sink| sink.wants_pieces()),
        sink: sink.map(Mutex::new),
        start: SystemTime::now(),
        queue: Queue::new(),
        seen: Mutex::default(),
        counts: Counts::default(),
        result: OnceLock::new(),
    };
    thread::scope(|scope| {
        for _ in 1..options.threads.get().min(THREADS_MAX) {
            // Where there can be no more threads, those that there are do it.
            let _ = thread::Builder::new().name("ww-import".into()).spawn_scoped(scope, || shared.work());
        }
        let _closing = CloseOnPanic(&shared.queue);
        match shared.walk_root() {
            Ok(()) => shared.work(),
            Err(error) => shared.fail(error),
        }
    });
    let Shared { result, seen, counts, .. } = shared;
    let subtree = result.into_inner().expect("an import that ends has a result")?;
    if let Some(cache) = cache {
        cache.update(&options.profile, seen.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    Ok(Imported {
        subtree,
        files: counts.files.into_inner(),
        bytes: counts.bytes.into_inner(),
        folders: counts.folders.into_inner(),
        symlinks: counts.symlinks.into_inner(),
        files_cached: counts.files_cached.into_inner(),
    })
}

/// What is in a folder.
struct Listing {
    /// Files and symlinks.
    items: Names,
    /// Folders, sorted by name.
    folders: Vec<Box<str>>,
}

/// Why a folder cannot be listed.
enum ListError {
    Read(io::Error),
    Import(ImportError),
}

impl From<io::Error> for ListError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<ImportError> for ListError {
    fn from(error: ImportError) -> Self {
        Self::Import(error)
    }
}

impl Shared<'_, '_> {
    fn walk_root(&self) -> Result<(), ImportError> {
        let mut path = self.root.to_owned();
        let mut metadata = fs::symlink_metadata(&path).map_err(ImportError::io("read", self.root))?;
        if metadata.is_symlink() {
            match self.options.root_symlink {
                RootSymlink::Refuse => return Err(ImportError::RootSymlink { path }),
                RootSymlink::Store => return self.add_root_symlink(&path),
                RootSymlink::Follow => {
                    path = fs::canonicalize(&path).map_err(ImportError::io("follow", self.root))?;
                    metadata = fs::symlink_metadata(&path).map_err(ImportError::io("read", self.root))?;
                }
            }
        }
        if metadata.is_dir() {
            let root = Node::root(true);
            let folder = Folder::open_real(&path).map_err(|error| self.open_error(&root, "", error))?;
            self.walk(folder, &root, 0)
        } else if metadata.is_file() {
            self.add_root_file(&path)
        } else {
            Err(ImportError::Kind { path })
        }
    }

    fn add_root_symlink(&self, path: &Path) -> Result<(), ImportError> {
        let root = Node::root(false);
        let target = fs::read_link(path).map_err(ImportError::io("read", path))?;
        let subtree = self.symlink(&root, "", target.as_os_str().as_encoded_bytes())?;
        self.add(&root, self.single(&root, "", subtree)?, 1)
    }

    fn add_root_file(&self, path: &Path) -> Result<(), ImportError> {
        let root = Node::root(false);
        let (file, stamp) = open_real_file(path).map_err(|error| self.open_error(&root, "", error))?;
        let known = self.cache.and_then(|cache| cache.files(&self.options.profile, "").find(""));
        let mut local = Local::default();
        if let Some((index, known)) = known
            && let Some(subtree) = self.look_up(&known, &stamp, &mut local)?
        {
            self.flush(&mut local);
            return self.add(&root, Contents { hits: vec![index], ..self.single(&root, "", subtree)? }, 1);
        }
        self.inspect(&root, "", &file, &stamp, &mut local)?;
        if stamp.size_bytes > self.options.profile.chunk_bytes as u64 {
            let large = LargeFile::new(root, Box::default(), file, stamp, &self.options.profile);
            self.queue.push(Arc::new(Task::Pieces(large)));
            return Ok(());
        }
        let subtree = self.small_file(&root, "", &file, &stamp, &mut local)?;
        self.flush(&mut local);
        let fresh = self.cached("", &stamp, subtree).into_iter().collect();
        self.add(&root, Contents { fresh, ..self.single(&root, "", subtree)? }, 1)
    }

    /// Hands out what is in a folder, and goes into the folders in it. Recurses no deeper than [`DEPTH_MAX`].
    fn walk(&self, folder: Folder, node: &Arc<Node>, depth: usize) -> Result<(), ImportError> {
        if depth > DEPTH_MAX {
            return Err(ImportError::TooDeep { path: node.shown(self.root, "") });
        }
        let Listing { items, folders } = self.list(&folder, node)?;
        node.expect(items.len() + folders.len());
        let folder = Arc::new(folder);
        if items.len() > 0 {
            let items = Items::new(node.clone(), folder.clone(), items, self.options.threads.get());
            self.queue.push(Arc::new(Task::Items(items)));
        }
        for name in folders {
            self.check_stopped()?;
            self.help();
            let inner = folder.folder(&*name).map_err(|error| self.open_error(node, &name, error))?;
            self.walk(inner, &Node::folder(node, name), depth + 1)?;
        }
        self.add(node, Contents::default(), 1)
    }

    /// What is in a folder.
    fn list(&self, folder: &Folder, node: &Node) -> Result<Listing, ImportError> {
        let (mut items, mut folders) = (Names::default(), Vec::<Box<str>>::new());
        let shown = |name: &OsStr| node.shown(self.root, "").join(name);
        let listed = folder.for_each_entry(|name, kind| {
            let text = name.to_str().ok_or_else(|| ImportError::NotUtf8 { path: shown(name) })?;
            match kind {
                Kind::Folder => folders.push(text.into()),
                Kind::File | Kind::Symlink => items.push(text, kind == Kind::Symlink),
                Kind::Other => return Err(ImportError::Kind { path: shown(name) }.into()),
            }
            Ok::<_, ListError>(())
        });
        listed.map_err(|error| match error {
            ListError::Import(error) => error,
            ListError::Read(error) => ImportError::io("read", node.shown(self.root, ""))(error),
        })?;
        folders.sort_unstable();
        Ok(Listing { items, folders })
    }

    /// Does some of the work if there is much of it, so that the names of what is to be done do not pile up.
    fn help(&self) {
        let mut local = Local::default();
        while let Some(task) = self.queue.surplus() {
            self.take_part(&task, &mut local);
        }
    }
}
