//! What the threads of an import share, and what they do.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use bytes::BytesMut;
use rustix::io::Errno;

use super::file::LargeFile;
use super::names::Names;
use super::node::{Contents, Node};
use super::{BlockSink, BoxError, ImportError, ImportOptions};
use crate::dag::unixfs::{self, BuildError, FilePart, LeafHasher, NameError, Subtree};
use crate::dag::{Block, Cid};
use crate::folder::{Folder, Kind, Stamp};
use crate::tree::StatCache;
use crate::tree::queue::{CloseOnPanic, Job, Queue};
use crate::tree::root::Root;
use crate::tree::stat_cache::{CachedFile, CachedFiles};

/// How many bytes are read at a time where only the hash is wanted: they are still in the processor's cache when they are
/// hashed.
const HASHED_BYTES: usize = 128 << 10;

/// What all threads see.
pub(super) struct Shared<'a, 's> {
    pub(super) root: &'a Path,
    pub(super) options: &'a ImportOptions<'a>,
    pub(super) cache: Option<&'a StatCache>,
    /// Locked for the length of a call.
    pub(super) sink: Option<Mutex<&'s mut dyn BlockSink>>,
    /// Whether all is there that the cache knows, so that the sink need not be asked.
    pub(super) has_cached: bool,
    /// Whether there is a sink that takes pieces of files.
    pub(super) keeps_pieces: bool,
    /// When the import began.
    pub(super) start: SystemTime,
    pub(super) queue: Queue<Task>,
    /// What the cache is to know; see [`StatCache::update`].
    pub(super) seen: Mutex<Vec<(String, Option<Vec<CachedFile>>)>>,
    pub(super) counts: Counts,
    /// The first failure, or the root.
    pub(super) result: OnceLock<Result<Subtree, ImportError>>,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) files: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) folders: AtomicU64,
    pub(super) symlinks: AtomicU64,
    pub(super) files_cached: AtomicU64,
}

/// Something that several threads may do together.
pub(super) enum Task {
    /// The files and symlinks of a folder.
    Items(Items),
    /// The pieces of a file.
    Pieces(LargeFile),
}

/// Files and symlinks of one folder.
pub(super) struct Items {
    pub(super) node: Arc<Node>,
    pub(super) folder: Arc<Folder>,
    /// How many there were in the beginning.
    count: usize,
    /// How many threads there may be that take some.
    threads: usize,
    /// Those that nobody has taken. Locked while some are taken.
    rest: Mutex<Names>,
}

/// How many items a thread takes at once, at most: what it says of them it says once, and every time takes a lock or two.
const TAKEN_ITEMS_MAX: usize = 64;

impl Items {
    pub(super) fn new(node: Arc<Node>, folder: Arc<Folder>, items: Names, threads: usize) -> Self {
        Self { node, folder, count: items.len(), threads, rest: Mutex::new(items) }
    }

    /// Takes some items; none if none are left. The fewer are left the fewer are taken, so that all threads end at once.
    fn take(&self) -> Names {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let most = (rest.len() / (4 * self.threads)).clamp(1, TAKEN_ITEMS_MAX);
        rest.take_some(most)
    }
}

impl Job for Task {
    fn items(&self) -> usize {
        match self {
            Self::Items(items) => items.count,
            // They are few: whoever opened the file stays with it, and it is let go when the next one is opened.
            Self::Pieces(_) => 0,
        }
    }

    fn is_exhausted(&self) -> bool {
        match self {
            Self::Items(items) => items.rest.lock().unwrap_or_else(PoisonError::into_inner).len() == 0,
            Self::Pieces(file) => file.is_exhausted(),
        }
    }
}

/// Why a block did not get into the sink.
pub(super) enum PutError {
    Build(BuildError),
    Sink(BoxError),
}

impl From<BuildError> for PutError {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl PutError {
    /// The failure as it is reported for what is at `path`.
    pub(super) fn at(self, path: impl FnOnce() -> PathBuf) -> ImportError {
        match self {
            Self::Build(source) => ImportError::Build { path: path(), source },
            Self::Sink(source) => ImportError::Sink(source),
        }
    }
}

/// How many bytes of small files are done before it is told: telling may take a lock, and there may be many of them.
const TOLD_BYTES: u64 = 256 << 10;

/// What one thread has for itself.
#[derive(Default)]
pub(super) struct Local {
    /// Memory that is used again and again.
    buffer: BytesMut,
    /// How many bytes are done that [`ImportOptions::progress`] has not been told.
    untold: u64,
    /// What is to be added to [`Counts`].
    files: u64,
    bytes: u64,
    files_cached: u64,
}

impl<'a> Shared<'a, '_> {
    /// Works until nothing is left to be done.
    pub(super) fn work(&self) {
        let _closing = CloseOnPanic(&self.queue);
        let mut local = Local::default();
        while let Some(task) = self.queue.wait() {
            self.take_part(&task, &mut local);
        }
    }

    /// Works on one task until nothing is left of it.
    pub(super) fn take_part(&self, task: &Task, local: &mut Local) {
        let done = match task {
            Task::Items(items) => self.do_items(items, local),
            Task::Pieces(file) => self.do_pieces(file, local),
        };
        self.flush(local);
        if let Err(error) = done {
            self.fail(error);
        }
    }

    /// Says what a thread has kept to itself.
    pub(super) fn flush(&self, local: &mut Local) {
        self.tell_rest(local);
        self.counts.files.fetch_add(std::mem::take(&mut local.files), Ordering::Relaxed);
        self.counts.bytes.fetch_add(std::mem::take(&mut local.bytes), Ordering::Relaxed);
        self.counts.files_cached.fetch_add(std::mem::take(&mut local.files_cached), Ordering::Relaxed);
    }

    /// Ends the import with an error, unless it has ended with another one.
    pub(super) fn fail(&self, error: ImportError) {
        // The first one counts.
        let _ = self.result.set(Err(error));
        self.queue.close();
    }

    /// Tells that bytes are done, now or with more of them.
    pub(super) fn tell(&self, local: &mut Local, bytes: u64) {
        local.untold += bytes;
        if local.untold >= TOLD_BYTES {
            self.tell_rest(local);
        }
    }

    fn tell_rest(&self, local: &mut Local) {
        match std::mem::take(&mut local.untold) {
            0 => {}
            bytes => (self.options.progress)(bytes),
        }
    }

    /// Whether it is over, or is to be.
    pub(super) fn check_stopped(&self) -> Result<(), ImportError> {
        if self.queue.is_closed() || (self.options.cancel)() { Err(ImportError::Cancelled) } else { Ok(()) }
    }

    fn do_items(&self, items: &Items, local: &mut Local) -> Result<(), ImportError> {
        let known = self.cache.map(|cache| cache.files(&self.options.profile, &items.node.path)).unwrap_or_default();
        loop {
            let mut names = items.take();
            if names.len() == 0 {
                return Ok(());
            }
            let (mut contents, mut done) = (Contents::default(), 0);
            while let Some((name, kind)) = names.take() {
                self.check_stopped()?;
                let root = match kind {
                    Kind::Symlink => {
                        let target = items.folder.symlink_target(name);
                        let target = target.map_err(|error| self.cannot_read(&items.node, name, error))?;
                        Some(self.symlink(&items.node, name, target.as_encoded_bytes())?)
                    }
                    _ => self.do_file(items, name, known, &mut contents, local)?,
                };
                // What is under way says so itself when it is done.
                if let Some(root) = root {
                    let pushed = contents.children.push(name, &root.subtree());
                    pushed.map_err(|error| self.bad_name(&items.node, error))?;
                    done += 1;
                }
            }
            // Who has nothing to say may say it of a folder that is finished.
            if done > 0 {
                self.add(&items.node, contents, done)?;
            }
        }
    }

    /// A single child of a folder, or what a root is that is no folder.
    pub(super) fn single(&self, node: &Node, name: &str, root: Root) -> Result<Contents, ImportError> {
        Contents::single(node, name, root).map_err(|error| self.bad_name(node, error))
    }

    fn bad_name(&self, node: &Node, error: NameError) -> ImportError {
        ImportError::Build { path: node.shown(self.root, ""), source: error.into() }
    }

    /// Reads a file, or takes it from the cache. `None` if it is large: then it is under way.
    fn do_file(
        &self,
        items: &Items,
        name: &str,
        known: CachedFiles<'_>,
        contents: &mut Contents,
        local: &mut Local,
    ) -> Result<Option<Root>, ImportError> {
        let Items { node, folder, .. } = items;
        if let Some((index, known)) = known.find(name) {
            let (kind, stamp) = folder.stamp(name).map_err(|error| self.cannot_read(node, name, error))?;
            if kind == Kind::File
                && let Some(root) = self.look_up(&known, &stamp, local)?
            {
                contents.hits.push(index);
                return Ok(Some(root));
            }
        }
        let opened = folder.file_with_stamp(name);
        let (file, stamp) = opened.map_err(|error| self.open_error(node, name, error))?;
        self.inspect(node, name, &file, &stamp, local)?;
        if stamp.size_bytes > self.options.profile.chunk_bytes as u64 {
            let large = LargeFile::new(node.clone(), name.into(), file, stamp, &self.options.profile);
            let task = Arc::new(Task::Pieces(large));
            self.queue.push_first(task.clone());
            self.take_part(&task, local);
            return Ok(None);
        }
        let root = self.small_file(node, name, &file, &stamp, local)?;
        contents.fresh.extend(self.cached(name, &stamp, root));
        Ok(Some(root))
    }

    /// Shows a file to who looks at the files. It is read once more for that, from memory by then: its pieces may be
    /// smaller than what is to be seen.
    pub(super) fn inspect(
        &self,
        node: &Node,
        name: &str,
        file: &File,
        stamp: &Stamp,
        local: &mut Local,
    ) -> Result<(), ImportError> {
        let Some(inspector) = self.options.inspector else { return Ok(()) };
        let path = || node.shown(self.root, name);
        // The name of a root that is a file.
        let own = self.root.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let name = if name.is_empty() { own } else { name };
        if stamp.size_bytes > inspector.content_bytes_max() {
            inspector.inspect(name, None, &path);
            return Ok(());
        }
        let size = usize::try_from(stamp.size_bytes).expect("what is looked at fits into memory");
        let content = local.of_size(size);
        file.read_exact_at(content, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ImportError::Changed { path: path() },
            _ => ImportError::io("read", path())(error),
        })?;
        inspector.inspect(name, Some(content), &path);
        Ok(())
    }

    /// What is to be said of what cannot be read.
    fn cannot_read(&self, node: &Node, name: &str, error: io::Error) -> ImportError {
        ImportError::io("read", node.shown(self.root, name))(error)
    }

    /// What is to be said of a file that was listed as one and cannot be opened as one.
    pub(super) fn open_error(&self, node: &Node, name: &str, error: io::Error) -> ImportError {
        let path = node.shown(self.root, name);
        let is_other_kind = matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory)
            || error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
        if is_other_kind { ImportError::Changed { path } } else { ImportError::io("open", path)(error) }
    }

    /// The root of a file, if it is what the cache knows and the sink has it.
    pub(super) fn look_up(
        &self,
        (known_stamp, root): &(Stamp, Root),
        stamp: &Stamp,
        local: &mut Local,
    ) -> Result<Option<Root>, ImportError> {
        if known_stamp != stamp {
            return Ok(None);
        }
        if !self.has_cached && !self.sink_has(&root.subtree().cid)? {
            return Ok(None);
        }
        local.count_file(stamp);
        local.files_cached += 1;
        self.tell(local, stamp.size_bytes);
        Ok(Some(*root))
    }

    /// What the cache is to know of a file that was read, if that may be relied on later.
    pub(super) fn cached(&self, name: &str, stamp: &Stamp, root: Root) -> Option<CachedFile> {
        self.cache?;
        stamp.is_settled(self.start).then(|| CachedFile { name: name.into(), stamp: *stamp, root })
    }

    /// Reads a file of at most one piece.
    pub(super) fn small_file(
        &self,
        node: &Node,
        name: &str,
        file: &File,
        stamp: &Stamp,
        local: &mut Local,
    ) -> Result<Root, ImportError> {
        if stamp.size_bytes == 0 {
            // Files that a kernel makes up, as in `/proc`, say that they are empty.
            let read = file.read_at(&mut [0], 0).map_err(|error| self.cannot_read(node, name, error))?;
            if read > 0 {
                return Err(ImportError::Changed { path: node.shown(self.root, name) });
            }
        }
        let part = self.piece(node, name, file, 0, stamp.size_bytes, local)?;
        self.check_unchanged(node, name, file, stamp)?;
        local.count_file(stamp);
        Ok(small(&part.subtree()))
    }

    /// A file that was written to while it was read may be anything.
    pub(super) fn check_unchanged(
        &self,
        node: &Node,
        name: &str,
        file: &File,
        stamp: &Stamp,
    ) -> Result<(), ImportError> {
        let now = Stamp::of(file).map_err(|error| self.cannot_read(node, name, error))?;
        if (now.size_bytes, now.mtime) == (stamp.size_bytes, stamp.mtime) {
            return Ok(());
        }
        Err(ImportError::Changed { path: node.shown(self.root, name) })
    }

    /// Reads a piece of a file and gives its block to the sink.
    pub(super) fn piece(
        &self,
        node: &Node,
        name: &str,
        file: &File,
        offset: u64,
        size: u64,
        local: &mut Local,
    ) -> Result<FilePart, ImportError> {
        let size = usize::try_from(size).expect("a piece fits into memory");
        let part = match &self.sink {
            Some(sink) if self.keeps_pieces => self.put_piece(sink, file, offset, size, local),
            _ => self.hash_piece(file, offset, size, local),
        };
        let part = part.map_err(|error| match error {
            PieceError::Put(error) => error.at(|| node.shown(self.root, name)),
            PieceError::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                ImportError::Changed { path: node.shown(self.root, name) }
            }
            PieceError::Read(error) => self.cannot_read(node, name, error),
        })?;
        self.tell(local, size as u64);
        Ok(part)
    }

    fn hash_piece(&self, file: &File, offset: u64, size: usize, local: &mut Local) -> Result<FilePart, PieceError> {
        let mut hasher = LeafHasher::new(&self.options.profile, size).map_err(PutError::Build)?;
        let mut done = 0;
        while done < size {
            let bytes = local.of_size(HASHED_BYTES.min(size - done));
            file.read_exact_at(bytes, offset + done as u64)?;
            hasher.update(bytes);
            done += bytes.len();
        }
        Ok(hasher.finish())
    }

    fn put_piece(
        &self,
        sink: &Mutex<&mut dyn BlockSink>,
        file: &File,
        offset: u64,
        size: usize,
        local: &mut Local,
    ) -> Result<FilePart, PieceError> {
        file.read_exact_at(local.of_size(size), offset)?;
        let chunk = std::mem::take(&mut local.buffer).freeze();
        let (block, part) = unixfs::leaf(&self.options.profile, chunk.clone()).map_err(PutError::Build)?;
        put(sink, &block).map_err(PutError::Sink)?;
        drop(block);
        // Unless the sink has kept it.
        local.buffer = chunk.try_into_mut().unwrap_or_default();
        Ok(part)
    }

    pub(super) fn symlink(&self, node: &Node, name: &str, target: &[u8]) -> Result<Root, ImportError> {
        let made = unixfs::symlink(&self.options.profile, target).map_err(PutError::Build);
        let put = made.and_then(|(block, subtree)| self.put(&block).map(|()| small(&subtree)));
        self.counts.symlinks.fetch_add(1, Ordering::Relaxed);
        put.map_err(|error| error.at(|| node.shown(self.root, name)))
    }

    /// Says what was found in a folder; makes the folder, and those above it, if nothing is left to be found there.
    pub(super) fn add(&self, node: &Arc<Node>, contents: Contents, done: usize) -> Result<(), ImportError> {
        let mut at = (node.clone(), contents, done);
        while let Some(contents) = at.0.add(at.1, at.2) {
            let node = at.0;
            let subtree = self.finish(&node, contents)?;
            let Some(parent) = &node.parent else {
                // A failure counts more.
                let _ = self.result.set(Ok(subtree));
                self.queue.close();
                return Ok(());
            };
            at = (parent.clone(), self.single(parent, &node.name, small(&subtree))?, 1);
        }
        Ok(())
    }

    /// Makes a folder of which everything is known.
    fn finish(&self, node: &Node, contents: Contents) -> Result<Subtree, ImportError> {
        let Contents { children, root, hits, fresh } = contents;
        self.remember(node, hits, fresh);
        if !node.is_folder {
            return Ok(root.expect("a root that is no folder has been read").subtree());
        }
        self.counts.folders.fetch_add(1, Ordering::Relaxed);
        let made = children.directory(&self.options.profile, &mut |block| self.put(&block));
        made.map_err(|error| error.at(|| node.shown(self.root, "")))
    }

    fn remember(&self, node: &Node, hits: Vec<usize>, mut fresh: Vec<CachedFile>) {
        let Some(cache) = self.cache else { return };
        let known = cache.files(&self.options.profile, &node.path);
        let files = (!fresh.is_empty() || hits.len() < known.len()).then(|| {
            fresh.extend(hits.into_iter().map(|index| known.file(index)));
            fresh.sort_unstable_by(|first, second| first.name.cmp(&second.name));
            fresh
        });
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push((node.path.clone(), files));
    }

    pub(super) fn put(&self, block: &Block) -> Result<(), PutError> {
        self.sink.as_ref().map_or(Ok(()), |sink| put(sink, block).map_err(PutError::Sink))
    }

    fn sink_has(&self, root: &Cid) -> Result<bool, ImportError> {
        let Some(sink) = &self.sink else { return Ok(true) };
        sink.lock().unwrap_or_else(PoisonError::into_inner).has(root).map_err(ImportError::Sink)
    }
}

fn put(sink: &Mutex<&mut dyn BlockSink>, block: &Block) -> Result<(), BoxError> {
    sink.lock().unwrap_or_else(PoisonError::into_inner).put(block)
}

/// A root in the form in which it is kept until its folder is made.
pub(super) fn small(subtree: &Subtree) -> Root {
    Root::new(subtree).expect("profiles make CIDs of these forms only")
}

/// Why there is no block of a piece.
enum PieceError {
    Read(io::Error),
    Put(PutError),
}

impl From<io::Error> for PieceError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<PutError> for PieceError {
    fn from(error: PutError) -> Self {
        Self::Put(error)
    }
}

impl Local {
    /// Counts a file that is done.
    pub(super) fn count_file(&mut self, stamp: &Stamp) {
        self.files += 1;
        self.bytes += stamp.size_bytes;
    }

    /// So many bytes, whatever they hold.
    fn of_size(&mut self, size: usize) -> &mut [u8] {
        self.buffer.resize(size, 0);
        &mut self.buffer
    }
}
