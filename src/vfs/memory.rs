//! A tree in memory: a cell's private `/tmp`, gone with the cell.
//!
//! All that a guest can make it hold is counted and bounded: the pages of files that were written, and for each node and
//! each name a fixed sum. Holes in files cost nothing.

use std::any::Any;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;

use super::{
    Access, Answer, Directory, Entry, File, Identity, Kind, Metadata, Name, NewTime, NewTimes, Node, OpenFile,
    READ_BYTES_MAX, Symlink, Times, VfsError,
};

/// Files are kept in pages of this many bytes.
const PAGE_BYTES: usize = 4096;

/// What a node or a name is counted as beside its text, which is more than it takes.
const NODE_BYTES: u64 = 512;

/// How many entries of a directory are listed before others may go on: some hundred microseconds.
const LISTED_AT_ONCE: usize = 1024;

/// The number of the root.
const ROOT: u64 = 1;

/// The tree number of [`Identity`]; no file system of the host has it.
const TREE: u64 = u64::MAX;

/// A tree in memory. A cheap handle.
#[derive(Clone)]
pub struct MemoryTree(Arc<Mutex<State>>);

/// Who allows a tree to take bytes.
pub trait Room: Send + Sync {
    /// Takes so many, or none.
    fn take(&self, bytes: u64) -> bool;

    /// Gives some back that were taken.
    fn give(&self, bytes: u64);
}

struct State {
    nodes: HashMap<u64, Inode>,
    /// Numbers are not used again.
    next: u64,
    used_bytes: u64,
    room: Arc<dyn Room>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.room.give(self.used_bytes);
    }
}

struct Inode {
    content: Content,
    /// How many names it has.
    links: u64,
    /// How many handles hold it, named or not.
    handles: usize,
    times: Times,
}

enum Content {
    File { pages: BTreeMap<u64, Box<[u8; PAGE_BYTES]>>, size_bytes: u64 },
    Directory { entries: BTreeMap<String, u64>, above: u64 },
    Symlink(String),
}

impl MemoryTree {
    /// An empty tree that takes as many bytes as it is allowed to, and gives all back when it goes.
    pub fn within(room: Arc<dyn Room>) -> Self {
        let root = Inode::new(Content::Directory { entries: BTreeMap::new(), above: ROOT });
        let nodes = HashMap::from([(ROOT, root)]);
        Self(Arc::new(Mutex::new(State { nodes, next: ROOT + 1, used_bytes: 0, room })))
    }

    /// Its root.
    pub fn root(&self) -> Arc<dyn Directory> {
        Arc::new(MemoryDirectory(Handle::new(self, ROOT)))
    }

    /// How much of its room is taken, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes
    }

    /// Nothing that holds the lock waits or calls others, so nobody waits for it long.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inode {
    fn new(content: Content) -> Self {
        let now = SystemTime::now();
        Self { content, links: 1, handles: 0, times: Times { accessed: now, modified: now, changed: now } }
    }

    fn touch(&mut self) {
        let now = SystemTime::now();
        self.times.modified = now;
        self.times.changed = now;
    }

    fn metadata(&self) -> Metadata {
        let (kind, size_bytes) = match &self.content {
            Content::File { size_bytes, .. } => (Kind::File, *size_bytes),
            Content::Directory { .. } => (Kind::Directory, 0),
            Content::Symlink(target) => (Kind::Symlink, target.len() as u64),
        };
        Metadata { kind, size_bytes, links: self.links, times: Some(self.times) }
    }

    /// What the node is counted as, beside its names.
    fn counted_bytes(&self) -> u64 {
        NODE_BYTES
            + match &self.content {
                Content::File { pages, .. } => (pages.len() * PAGE_BYTES) as u64,
                Content::Directory { .. } => 0,
                Content::Symlink(target) => target.len() as u64,
            }
    }
}

fn name_bytes(name: &str) -> u64 {
    NODE_BYTES + name.len() as u64
}

impl State {
    fn take(&mut self, bytes: u64) -> Result<(), VfsError> {
        if !self.room.take(bytes) {
            return Err(VfsError::NoSpace);
        }
        self.used_bytes += bytes;
        Ok(())
    }

    /// Gives back what was taken.
    fn give(&mut self, bytes: u64) {
        self.used_bytes -= bytes;
        self.room.give(bytes);
    }

    fn node(&mut self, number: u64) -> Result<&mut Inode, VfsError> {
        self.nodes.get_mut(&number).ok_or(VfsError::NoEntry)
    }

    fn entries(&mut self, directory: u64) -> Result<&mut BTreeMap<String, u64>, VfsError> {
        match &mut self.node(directory)?.content {
            Content::Directory { entries, .. } => Ok(entries),
            _ => Err(VfsError::NotDirectory),
        }
    }

    fn find(&mut self, directory: u64, name: &str) -> Result<u64, VfsError> {
        self.entries(directory)?.get(name).copied().ok_or(VfsError::NoEntry)
    }

    /// Some of a directory's entries, in their order: those after this name, or the first.
    fn list(&mut self, directory: u64, after: Option<&str>) -> Result<Vec<Entry>, VfsError> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.entries(directory)?.range::<str, _>((after, Bound::Unbounded)).take(LISTED_AT_ONCE);
        let entries: Vec<_> = entries.map(|(name, number)| (name.clone(), *number)).collect();
        let kind = |number| self.nodes.get(&number).map_or(Kind::Other, |node| node.metadata().kind);
        Ok(entries.into_iter().map(|(name, number)| Entry { name, kind: kind(number) }).collect())
    }

    fn is_directory(&self, number: u64) -> bool {
        matches!(self.nodes.get(&number), Some(Inode { content: Content::Directory { .. }, .. }))
    }

    /// A directory that has lost its name takes no more entries: nobody could reach them to remove them.
    fn check_named(&mut self, directory: u64) -> Result<(), VfsError> {
        if self.node(directory)?.links == 0 { Err(VfsError::NoEntry) } else { Ok(()) }
    }

    fn create(&mut self, directory: u64, name: &str, content: Content) -> Result<u64, VfsError> {
        self.check_named(directory)?;
        if self.entries(directory)?.contains_key(name) {
            return Err(VfsError::Exists);
        }
        let inode = Inode::new(content);
        self.take(inode.counted_bytes() + name_bytes(name))?;
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, inode);
        self.entries(directory)?.insert(name.to_owned(), number);
        self.node(directory)?.touch();
        Ok(number)
    }

    /// Takes a name away, and the node with it where that was its last hold.
    fn unname(&mut self, directory: u64, name: &str) -> Result<(), VfsError> {
        let number = self.find(directory, name)?;
        self.entries(directory)?.remove(name);
        self.give(name_bytes(name));
        self.node(directory)?.touch();
        let node = self.node(number)?;
        node.links -= 1;
        node.times.changed = SystemTime::now();
        self.free_if_unused(number);
        Ok(())
    }

    fn free_if_unused(&mut self, number: u64) {
        if let Some(node) = self.nodes.get(&number)
            && node.links == 0
            && node.handles == 0
        {
            let bytes = node.counted_bytes();
            self.nodes.remove(&number);
            self.give(bytes);
        }
    }

    /// Whether `number` is `directory` or above it.
    fn is_above(&self, number: u64, mut directory: u64) -> bool {
        loop {
            if directory == number {
                return true;
            }
            match self.nodes.get(&directory) {
                Some(Inode { content: Content::Directory { above, .. }, .. }) if *above != directory => {
                    directory = *above;
                }
                _ => return false,
            }
        }
    }

    fn rename(&mut self, from: u64, name: &str, to: u64, to_name: &str) -> Result<(), VfsError> {
        let number = self.find(from, name)?;
        self.check_named(to)?;
        let is_directory = self.is_directory(number);
        if is_directory && self.is_above(number, to) {
            return Err(VfsError::Invalid);
        }
        // Before anything is done that cannot be undone.
        self.take(name_bytes(to_name))?;
        let moved = self.replace(number, is_directory, to, to_name);
        if !matches!(moved, Ok(true)) {
            self.give(name_bytes(to_name));
            return moved.map(drop);
        }
        self.give(name_bytes(name));
        self.entries(from)?.remove(name);
        self.entries(to)?.insert(to_name.to_owned(), number);
        self.node(from)?.touch();
        self.node(to)?.touch();
        let node = self.node(number)?;
        node.times.changed = SystemTime::now();
        if let Content::Directory { above, .. } = &mut node.content {
            *above = to;
        }
        Ok(())
    }

    /// Removes what has a name that is to be that of another node; `false` if it is that node, and nothing is to be done.
    fn replace(&mut self, number: u64, is_directory: bool, to: u64, to_name: &str) -> Result<bool, VfsError> {
        match self.find(to, to_name) {
            // Two names of one file: POSIX does nothing.
            Ok(replaced) if replaced == number => Ok(false),
            Ok(replaced) => {
                match (is_directory, self.is_directory(replaced)) {
                    (true, false) => return Err(VfsError::NotDirectory),
                    (false, true) => return Err(VfsError::IsDirectory),
                    (true, true) if !self.entries(replaced)?.is_empty() => return Err(VfsError::NotEmpty),
                    _ => {}
                }
                self.unname(to, to_name)?;
                Ok(true)
            }
            Err(VfsError::NoEntry) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, number: u64, offset: u64, size: usize) -> Result<Bytes, VfsError> {
        let node = self.node(number)?;
        node.times.accessed = SystemTime::now();
        let Content::File { pages, size_bytes } = &node.content else { return Err(VfsError::IsDirectory) };
        let left = size_bytes.saturating_sub(offset);
        let size = size.min(READ_BYTES_MAX).min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut bytes = BytesMut::zeroed(size);
        let mut done = 0;
        while done < size {
            let (page, start, length) = piece(offset + done as u64, size - done);
            if let Some(page) = pages.get(&page) {
                bytes[done..done + length].copy_from_slice(&page[start..start + length]);
            }
            done += length;
        }
        Ok(bytes.freeze())
    }

    fn write(&mut self, number: u64, offset: Option<u64>, bytes: &[u8]) -> Result<(), VfsError> {
        let Content::File { pages, size_bytes } = &self.node(number)?.content else {
            return Err(VfsError::IsDirectory);
        };
        let offset = offset.unwrap_or(*size_bytes);
        let end = offset.checked_add(bytes.len() as u64).filter(|end| i64::try_from(*end).is_ok());
        let end = end.ok_or(VfsError::FileTooLarge)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let touched = offset / PAGE_BYTES as u64..=(end - 1) / PAGE_BYTES as u64;
        let missing = touched.clone().count() - pages.range(touched).count();
        self.take((missing * PAGE_BYTES) as u64)?;
        let node = self.node(number)?;
        node.touch();
        let Content::File { pages, size_bytes } = &mut node.content else { return Err(VfsError::IsDirectory) };
        *size_bytes = end.max(*size_bytes);
        let mut done = 0;
        while done < bytes.len() {
            let (page, start, length) = piece(offset + done as u64, bytes.len() - done);
            let page = pages.entry(page).or_insert_with(|| Box::new([0; PAGE_BYTES]));
            page[start..start + length].copy_from_slice(&bytes[done..done + length]);
            done += length;
        }
        Ok(())
    }

    fn set_size(&mut self, number: u64, new_size: u64) -> Result<(), VfsError> {
        if i64::try_from(new_size).is_err() {
            return Err(VfsError::FileTooLarge);
        }
        let node = self.node(number)?;
        node.touch();
        let Content::File { pages, size_bytes } = &mut node.content else { return Err(VfsError::IsDirectory) };
        *size_bytes = new_size;
        let cut = pages.split_off(&new_size.div_ceil(PAGE_BYTES as u64));
        // What comes back when the file grows again is zeros.
        let (page, start, _) = piece(new_size, 1);
        if let Some(page) = pages.get_mut(&page) {
            page[start..].fill(0);
        }
        self.give((cut.len() * PAGE_BYTES) as u64);
        Ok(())
    }
}

/// The page of a byte, its place in it, and how much of `size` bytes from there is in that page.
fn piece(offset: u64, size: usize) -> (u64, usize, usize) {
    let start = (offset % PAGE_BYTES as u64) as usize;
    (offset / PAGE_BYTES as u64, start, size.min(PAGE_BYTES - start))
}

/// Holds a node, also when it has lost its last name.
struct Handle {
    tree: MemoryTree,
    number: u64,
}

impl Handle {
    fn new(tree: &MemoryTree, number: u64) -> Self {
        if let Some(node) = tree.lock().nodes.get_mut(&number) {
            node.handles += 1;
        }
        Self { tree: tree.clone(), number }
    }

    fn identity(&self) -> Identity {
        Identity { tree: TREE, object: self.number }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.tree.lock()
    }

    fn metadata(&self) -> Result<Metadata, VfsError> {
        Ok(self.state().node(self.number)?.metadata())
    }

    fn set_times(&self, number: u64, times: NewTimes) -> Result<(), VfsError> {
        let mut state = self.state();
        let node = state.node(number)?;
        let now = SystemTime::now();
        let set = |time: &mut SystemTime, new: NewTime| match new {
            NewTime::Keep => {}
            NewTime::Now => *time = now,
            NewTime::At(new) => *time = new,
        };
        set(&mut node.times.accessed, times.accessed);
        set(&mut node.times.modified, times.modified);
        node.times.changed = now;
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.state();
        if let Some(node) = state.nodes.get_mut(&self.number) {
            node.handles -= 1;
        }
        state.free_if_unused(self.number);
    }
}

fn ready<'a, T: Send + 'a>(answer: Result<T, VfsError>) -> Answer<'a, T> {
    futures::future::ready(answer).boxed()
}

struct MemoryDirectory(Handle);

impl MemoryDirectory {
    fn find(&self, name: Name<'_>) -> Result<Node, VfsError> {
        let number = self.0.state().find(self.0.number, name.as_str())?;
        let handle = Handle::new(&self.0.tree, number);
        let mut state = self.0.tree.lock();
        // Another cell's thread cannot come between: a tree belongs to one cell, whose calls come one after the other.
        let node = state.node(number)?;
        let found = match &node.content {
            Content::File { .. } => Kind::File,
            Content::Directory { .. } => Kind::Directory,
            Content::Symlink(target) => {
                let link = Symlink { identity: handle.identity(), metadata: node.metadata(), target: target.clone() };
                drop(state);
                return Ok(Node::Symlink(Arc::new(link)));
            }
        };
        drop(state);
        Ok(match found {
            Kind::Directory => Node::Directory(Arc::new(Self(handle))),
            _ => Node::File(Arc::new(MemoryFile(Arc::new(OpenMemoryFile(handle))))),
        })
    }

    /// The other directory of a change that concerns two, if it is in the same tree.
    fn partner(&self, to: &Arc<dyn Directory>) -> Result<u64, VfsError> {
        let to: &dyn Any = &**to;
        let to = to.downcast_ref::<Self>().ok_or(VfsError::CrossDevice)?;
        if Arc::ptr_eq(&to.0.tree.0, &self.0.tree.0) { Ok(to.0.number) } else { Err(VfsError::CrossDevice) }
    }

    fn make(&self, name: Name<'_>, content: Content) -> Result<(), VfsError> {
        self.0.state().create(self.0.number, name.as_str(), content).map(drop)
    }

    fn new_link(&self, name: Name<'_>, to: u64, to_name: Name<'_>) -> Result<(), VfsError> {
        let mut state = self.0.state();
        let number = state.find(self.0.number, name.as_str())?;
        if state.is_directory(number) {
            return Err(VfsError::NotPermitted);
        }
        state.check_named(to)?;
        if state.entries(to)?.contains_key(to_name.as_str()) {
            return Err(VfsError::Exists);
        }
        state.take(name_bytes(to_name.as_str()))?;
        state.entries(to)?.insert(to_name.as_str().to_owned(), number);
        state.node(to)?.touch();
        let node = state.node(number)?;
        node.links += 1;
        node.times.changed = SystemTime::now();
        Ok(())
    }

    fn remove(&self, name: Name<'_>, directory_wanted: bool) -> Result<(), VfsError> {
        let mut state = self.0.state();
        let number = state.find(self.0.number, name.as_str())?;
        match (state.is_directory(number), directory_wanted) {
            (true, false) => return Err(VfsError::IsDirectory),
            (false, true) => return Err(VfsError::NotDirectory),
            (true, true) if !state.entries(number)?.is_empty() => return Err(VfsError::NotEmpty),
            _ => {}
        }
        state.unname(self.0.number, name.as_str())
    }
}

impl Directory for MemoryDirectory {
    fn identity(&self) -> Identity {
        self.0.identity()
    }

    fn metadata(&self) -> Answer<'_, Metadata> {
        ready(self.0.metadata())
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Node> {
        ready(self.find(name))
    }

    fn entries(&self) -> Answer<'_, Vec<Entry>> {
        async {
            let mut listed = self.0.state().list(self.0.number, None)?;
            while listed.len() % LISTED_AT_ONCE == 0
                && let Some(last) = listed.last().map(|entry: &Entry| entry.name.clone())
            {
                // It takes long, and others are to go on meanwhile.
                tokio::task::yield_now().await;
                let more = self.0.state().list(self.0.number, Some(&last))?;
                if more.is_empty() {
                    break;
                }
                listed.extend(more);
            }
            Ok(listed)
        }
        .boxed()
    }

    fn create_file<'a>(&'a self, name: Name<'a>) -> Answer<'a, Arc<dyn File>> {
        let made = self.make(name, Content::File { pages: BTreeMap::new(), size_bytes: 0 });
        ready(made.and_then(|()| match self.find(name)? {
            Node::File(file) => Ok(file),
            _ => Err(VfsError::Exists),
        }))
    }

    fn create_directory<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        ready(self.make(name, Content::Directory { entries: BTreeMap::new(), above: self.0.number }))
    }

    fn create_symlink<'a>(&'a self, name: Name<'a>, target: &'a str) -> Answer<'a, ()> {
        ready(self.make(name, Content::Symlink(target.to_owned())))
    }

    fn link<'a>(&'a self, name: Name<'a>, to: &'a Arc<dyn Directory>, to_name: Name<'a>) -> Answer<'a, ()> {
        ready(self.partner(to).and_then(|to| self.new_link(name, to, to_name)))
    }

    fn remove_file<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        ready(self.remove(name, false))
    }

    fn remove_directory<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        ready(self.remove(name, true))
    }

    fn rename<'a>(&'a self, name: Name<'a>, to: &'a Arc<dyn Directory>, to_name: Name<'a>) -> Answer<'a, ()> {
        ready(self.partner(to).and_then(|to| self.0.state().rename(self.0.number, name.as_str(), to, to_name.as_str())))
    }

    fn set_times<'a>(&'a self, name: Option<Name<'a>>, times: NewTimes) -> Answer<'a, ()> {
        let number = match name {
            Some(name) => self.0.state().find(self.0.number, name.as_str()),
            None => Ok(self.0.number),
        };
        ready(number.and_then(|number| self.0.set_times(number, times)))
    }
}

struct MemoryFile(Arc<OpenMemoryFile>);

impl File for MemoryFile {
    fn identity(&self) -> Identity {
        self.0.0.identity()
    }

    fn metadata(&self) -> Answer<'_, Metadata> {
        ready(self.0.0.metadata())
    }

    fn open(&self, _: Access) -> Answer<'_, Arc<dyn OpenFile>> {
        ready(Ok(self.0.clone() as Arc<dyn OpenFile>))
    }
}

struct OpenMemoryFile(Handle);

impl OpenFile for OpenMemoryFile {
    fn identity(&self) -> Identity {
        self.0.identity()
    }

    fn metadata(&self) -> Answer<'_, Metadata> {
        ready(self.0.metadata())
    }

    fn read_at(self: Arc<Self>, offset: u64, size: usize) -> Answer<'static, Bytes> {
        ready(self.0.state().read(self.0.number, offset, size))
    }

    fn write_at(self: Arc<Self>, offset: u64, bytes: Bytes) -> Answer<'static, ()> {
        ready(self.0.state().write(self.0.number, Some(offset), &bytes))
    }

    fn append(self: Arc<Self>, bytes: Bytes) -> Answer<'static, ()> {
        ready(self.0.state().write(self.0.number, None, &bytes))
    }

    fn set_size(&self, size_bytes: u64) -> Answer<'_, ()> {
        ready(self.0.state().set_size(self.0.number, size_bytes))
    }

    fn set_times(&self, times: NewTimes) -> Answer<'_, ()> {
        ready(self.0.set_times(self.0.number, times))
    }
}
