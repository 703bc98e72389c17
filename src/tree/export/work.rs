//! What the threads of an export do.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use super::place::{Place, TREE};
use super::{BlockSource, ExportError, ExportOptions, Exported, THREADS_MAX};
use crate::dag::unixfs::{DirectoryWalk, Entry, FileWalk, Node, WalkError};
use crate::dag::{Block, Cid};
use crate::folder::Folder;
use crate::tree::DEPTH_MAX;
use crate::tree::queue::{CloseOnPanic, Job, Queue};

/// Files larger than this are written by several threads, this much at a time. It is a multiple of all usual sizes of
/// blocks, so that none of them is read for two parts; the nodes above them are.
const PART_BYTES: u64 = 16 << 20;

/// What all threads see.
struct Export<'a> {
    blocks: &'a dyn BlockSource,
    options: &'a ExportOptions<'a>,
    place: &'a Place,
    queue: Queue<Task>,
    /// How many entries and parts of files have been found and are not written. When there are none it is done.
    pending: AtomicUsize,
    counts: Counts,
    failure: OnceLock<ExportError>,
}

#[derive(Default)]
struct Counts {
    files: AtomicU64,
    bytes: AtomicU64,
    folders: AtomicU64,
    symlinks: AtomicU64,
    entries: AtomicU64,
}

/// Something that several threads may do together.
enum Task {
    Entries(Entries),
    Parts(Parts),
}

/// The entries of a folder that is made.
struct Entries {
    folder: Folder,
    /// Its path below the target.
    path: String,
    /// How many folders it is in, the target being in none.
    depth: usize,
    entries: Vec<Entry>,
    next: AtomicUsize,
}

/// The parts of a large file that is made.
struct Parts {
    file: File,
    path: String,
    root: Cid,
    size: u64,
    next: AtomicU64,
}

impl Parts {
    fn count(&self) -> u64 {
        self.size.div_ceil(PART_BYTES)
    }
}

impl Job for Task {
    fn items(&self) -> usize {
        // There are few jobs at any time: who adds one stays with it, and it is let go when the next one is added.
        0
    }

    fn is_exhausted(&self) -> bool {
        match self {
            Self::Entries(entries) => entries.next.load(Ordering::Relaxed) >= entries.entries.len(),
            Self::Parts(parts) => parts.next.load(Ordering::Relaxed) >= parts.count(),
        }
    }
}

/// Writes a tree into the temporary folder of `place`.
pub(super) fn export(
    blocks: &dyn BlockSource,
    root: Cid,
    place: &Place,
    options: &ExportOptions<'_>,
) -> Result<Exported, ExportError> {
    let export = Export {
        blocks,
        options,
        place,
        queue: Queue::new(),
        pending: AtomicUsize::new(1),
        counts: Counts::default(),
        failure: OnceLock::new(),
    };
    thread::scope(|scope| {
        for _ in 1..options.threads.get().min(THREADS_MAX) {
            // Where there can be no more threads, those that there are do it.
            let _ = thread::Builder::new().name("ww-export".into()).spawn_scoped(scope, || export.work());
        }
        let _closing = CloseOnPanic(&export.queue);
        if let Err(error) = export.charge_entry().and_then(|()| export.make(&place.work, TREE, root, "", 0)) {
            export.fail(error);
        }
        export.done(1);
        export.work();
    });
    let Export { counts, failure, .. } = export;
    match failure.into_inner() {
        Some(error) => Err(error),
        None => Ok(Exported {
            files: counts.files.into_inner(),
            bytes: counts.bytes.into_inner(),
            folders: counts.folders.into_inner(),
            symlinks: counts.symlinks.into_inner(),
        }),
    }
}

impl Export<'_> {
    /// Works until nothing is left to be done.
    fn work(&self) {
        let _closing = CloseOnPanic(&self.queue);
        while let Some(task) = self.queue.wait() {
            self.take_part(&task);
        }
    }

    /// Works on one task until nothing is left of it.
    fn take_part(&self, task: &Task) {
        let done = match task {
            Task::Entries(entries) => self.do_entries(entries),
            Task::Parts(parts) => self.do_parts(parts),
        };
        if let Err(error) = done {
            self.fail(error);
        }
    }

    /// Adds a task of so many parts, and works on it.
    fn begin(&self, task: Task, parts: usize) {
        self.pending.fetch_add(parts, Ordering::Relaxed);
        let task = Arc::new(task);
        self.queue.push_first(task.clone());
        self.take_part(&task);
    }

    fn done(&self, parts: usize) {
        // Whoever takes the last one sees all others done.
        if self.pending.fetch_sub(parts, Ordering::AcqRel) == parts {
            self.queue.close();
        }
    }

    /// Ends the export with an error, unless it has ended with another one.
    fn fail(&self, error: ExportError) {
        // The first one counts.
        let _ = self.failure.set(error);
        self.queue.close();
    }

    fn check_stopped(&self) -> Result<(), ExportError> {
        let is_stopped = self.failure.get().is_some() || (self.options.cancel)();
        if is_stopped { Err(ExportError::Cancelled) } else { Ok(()) }
    }

    fn do_entries(&self, entries: &Entries) -> Result<(), ExportError> {
        while let Some(entry) = entries.entries.get(entries.next.fetch_add(1, Ordering::Relaxed)) {
            let name = entry.name.as_str();
            let path = if entries.path.is_empty() { name.to_owned() } else { format!("{}/{name}", entries.path) };
            self.make(&entries.folder, name, entry.target.cid, &path, entries.depth + 1)?;
            self.done(1);
        }
        Ok(())
    }

    /// Writes what `cid` names under a name in a folder. Recurses as deep as folders are nested.
    fn make(&self, folder: &Folder, name: &str, cid: Cid, path: &str, depth: usize) -> Result<(), ExportError> {
        self.check_stopped()?;
        let block = self.get(&cid, path)?;
        let node = Node::decode(&block);
        let node = node.map_err(|source| ExportError::Node { path: path.to_owned(), cid: Box::new(cid), source })?;
        match node {
            Node::File(_) => self.make_file(folder, name, &block, path),
            Node::Directory(_) | Node::Shard(_) => self.make_folder(folder, name, &block, path, depth),
            Node::Symlink(target) => self.make_symlink(folder, name, target, path),
        }
    }

    fn make_symlink(&self, folder: &Folder, name: &str, target: &[u8], path: &str) -> Result<(), ExportError> {
        if target.is_empty() || target.contains(&0) {
            return Err(ExportError::SymlinkTarget { path: path.to_owned() });
        }
        folder.new_symlink(name, OsStr::from_bytes(target)).map_err(self.io("make", path))?;
        self.counts.symlinks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn make_folder(
        &self,
        folder: &Folder,
        name: &str,
        root: &Block,
        path: &str,
        depth: usize,
    ) -> Result<(), ExportError> {
        let limit = self.options.limits.depth.min(DEPTH_MAX);
        if depth > limit {
            return Err(ExportError::TooDeep { path: path.to_owned(), limit });
        }
        let entries = self.list(root, path)?;
        let folder = folder.new_folder(name).map_err(self.io("make", path))?;
        self.counts.folders.fetch_add(1, Ordering::Relaxed);
        let count = entries.len();
        if count > 0 {
            let entries = Entries { folder, path: path.to_owned(), depth, entries, next: AtomicUsize::new(0) };
            self.begin(Task::Entries(entries), count);
        }
        Ok(())
    }

    fn list(&self, root: &Block, path: &str) -> Result<Vec<Entry>, ExportError> {
        let mut walk = DirectoryWalk::new(*root.cid());
        let mut entries = Vec::new();
        let mut block = root.clone();
        loop {
            let found = walk.supply(&block).map_err(self.malformed(path))?;
            found.iter().try_for_each(|_| self.charge_entry())?;
            entries.extend(found);
            let Some(wanted) = walk.wanted() else { return Ok(entries) };
            self.check_stopped()?;
            block = self.get(wanted, path)?;
        }
    }

    fn make_file(&self, folder: &Folder, name: &str, root: &Block, path: &str) -> Result<(), ExportError> {
        let mut walk = FileWalk::new(*root.cid());
        let first = walk.supply(root).map_err(self.malformed(path))?;
        let size = walk.size().unwrap_or_default();
        self.charge_bytes(size)?;
        let file = folder.new_file(name).map_err(self.io("make", path))?;
        self.counts.files.fetch_add(1, Ordering::Relaxed);
        if size > PART_BYTES {
            let parts = Parts { file, path: path.to_owned(), root: *root.cid(), size, next: AtomicU64::new(0) };
            let count = usize::try_from(parts.count()).unwrap_or(usize::MAX);
            self.begin(Task::Parts(parts), count);
            return Ok(());
        }
        self.write(&file, path, 0, &first)?;
        self.write_walk(&file, path, &mut walk, first.len() as u64, size)
    }

    fn do_parts(&self, parts: &Parts) -> Result<(), ExportError> {
        loop {
            let index = parts.next.fetch_add(1, Ordering::Relaxed);
            if index >= parts.count() {
                return Ok(());
            }
            let start = index * PART_BYTES;
            let mut walk = FileWalk::from_offset(parts.root, start);
            let end = parts.size.min(start + PART_BYTES);
            self.write_walk(&parts.file, &parts.path, &mut walk, start, end)?;
            self.done(1);
        }
    }

    /// Writes what a walk gives to the bytes from `start` to `end` of a file.
    fn write_walk(
        &self,
        file: &File,
        path: &str,
        walk: &mut FileWalk,
        start: u64,
        end: u64,
    ) -> Result<(), ExportError> {
        let mut offset = start;
        while offset < end
            && let Some(wanted) = walk.wanted()
        {
            self.check_stopped()?;
            let content = walk.supply(&self.get(wanted, path)?).map_err(self.malformed(path))?;
            let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(content.len());
            self.write(file, path, offset, &content[..wanted])?;
            offset += wanted as u64;
        }
        Ok(())
    }

    fn write(&self, file: &File, path: &str, offset: u64, content: &[u8]) -> Result<(), ExportError> {
        file.write_all_at(content, offset).map_err(self.io("write", path))?;
        if !content.is_empty() {
            (self.options.progress)(content.len() as u64);
        }
        Ok(())
    }

    fn get(&self, cid: &Cid, path: &str) -> Result<Block, ExportError> {
        if let Some(block) = Block::from_identity(cid) {
            return Ok(block);
        }
        match self.blocks.get(cid) {
            Ok(Some(block)) => Ok(block),
            Ok(None) => Err(ExportError::Missing { cid: Box::new(*cid), path: path.to_owned() }),
            Err(source) => Err(ExportError::Source { cid: Box::new(*cid), source }),
        }
    }

    fn charge_entry(&self) -> Result<(), ExportError> {
        let limit = self.options.limits.entries;
        let entries = self.counts.entries.fetch_add(1, Ordering::Relaxed) + 1;
        if entries > limit { Err(ExportError::TooManyEntries { limit }) } else { Ok(()) }
    }

    /// Counts the bytes of a file before anything is written.
    fn charge_bytes(&self, size: u64) -> Result<(), ExportError> {
        let limit = self.options.limits.bytes;
        let add = |bytes: u64| bytes.checked_add(size).filter(|bytes| *bytes <= limit);
        let charged = self.counts.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        charged.map(drop).map_err(|_| ExportError::TooManyBytes { limit })
    }

    fn io(&self, action: &'static str, path: &str) -> impl FnOnce(io::Error) -> ExportError {
        move |source| ExportError::Io { action, path: self.place.shown(path), source }
    }

    fn malformed(&self, path: &str) -> impl FnOnce(WalkError) -> ExportError {
        move |source| ExportError::Walk { path: path.to_owned(), source }
    }
}
