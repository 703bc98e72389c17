//! A tree that a CID names, read block by block.
//!
//! Nothing is asked for before somebody looks at it: a directory's blocks when it is listed or a name is looked up, a
//! file's first block when it is looked at, the others when they are read, or a little before where a file is read from its
//! beginning on. Whoever gives the blocks has verified them; whether they fit together is checked here, by the walks of
//! [`unixfs`].

use std::any::Any;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{
    Access, Answer, Directory, Entry, File, Identity, Kind, LISTING_ENTRIES_MAX, Metadata, Name, Node, OpenFile,
    PATH_BYTES_MAX, READ_BYTES_MAX, Symlink, VfsError,
};
use crate::dag::block::CODEC_DAG_PB;
use crate::dag::unixfs::{self, DirectoryWalk, FileWalk, PathWalk, Shard, WalkError};
use crate::dag::{Block, Cid};

/// How many bytes of blocks and decoded directories a cache keeps. Enough for the directories of a large image, which
/// are looked at again and again, and for a few pieces of files that are read in parts.
const CACHE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How far ahead of a reader blocks are asked for, in bytes: at 100 ms for each answer this makes 80 MB/s.
const AHEAD_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The same for who has just begun to read in order: a block, whatever the file was cut into.
const AHEAD_BYTES_MIN: u64 = 1024 * 1024;

/// How many entries of a directory are looked for together at most. It takes less than a millisecond to find them.
const BESIDE_MAX: usize = 256;

/// How many are looked for together at first.
const BESIDE_MIN: usize = 16;

/// After how many bytes that were had at once others have their turn. To read and hash them takes some 0.2 ms, while a path may
/// lead through hundreds of blocks.
const TURN_BYTES: usize = 256 * 1024;

/// As how many bytes a block that is had at once counts beside its own: as long as they take to be read and hashed it takes to
/// find it and to decode it.
const AT_ONCE_OVERHEAD_BYTES: usize = 2048;

/// As how many bytes each byte of a block counts that is decoded: a link of 50 bytes takes 1.5 µs.
const DECODED_FACTOR: usize = 8;

/// As how many bytes a block counts that is in the cache.
const CACHED_TURN_BYTES: usize = 128;

/// In what steps room is made for a listing, in bytes: far more than an entry takes.
const LISTING_STEP_BYTES: usize = 256 * 1024;

/// What a cached block takes beside its bytes, roughly.
const CACHED_OVERHEAD_BYTES: usize = 256;

/// Where a tree's blocks come from.
pub trait Blocks: Send + Sync {
    /// The block, from wherever it can be had. It has been verified. Those `beside` it may be asked for soon, too, which is no
    /// reason to have them brought from another machine.
    fn block(&self, cid: Cid, beside: Vec<Cid>) -> Answer<'static, Block>;

    /// The block, if it can be had at once: without waiting for anything, and with little work. It has been verified.
    fn block_at_once(&self, _cid: &Cid) -> Option<Block> {
        None
    }

    /// The block if it can be had without asking another machine.
    fn block_if_here(&self, cid: Cid) -> BoxFuture<'static, Option<Block>>;

    /// Says which blocks will probably be asked for soon, the first one first.
    fn expect(&self, _cids: Vec<Cid>) {}

    /// Makes room for so many bytes that are held for whoever reads, for as long as the value lives; `None` if there is none.
    fn room(&self, _bytes: u64) -> Option<Box<dyn Any + Send>> {
        Some(Box::new(()))
    }
}

/// The directory that `root` names.
///
/// # Errors
/// If its first block cannot be had, or is no directory.
pub async fn open(blocks: Arc<dyn Blocks>, root: Cid) -> Result<Arc<dyn Directory>, VfsError> {
    Content::new(root, &BlockCache::default()).open(blocks).await
}

/// What was read lately, of any number of trees: a bounded number of bytes. A cheap handle.
#[derive(Clone, Default)]
pub struct BlockCache(Arc<Mutex<Cache>>);

/// Content that several may look at, each with blocks from a place of his own. What one has read, the others find. A cheap
/// handle.
#[derive(Clone)]
pub struct Content {
    root: Cid,
    cache: BlockCache,
}

impl Content {
    /// What `root` names. Nothing is looked at. What will be read is kept in `cache` for some time.
    pub fn new(root: Cid, cache: &BlockCache) -> Self {
        Self { root, cache: cache.clone() }
    }

    /// What it is.
    ///
    /// # Errors
    /// If its first block cannot be had, or makes no sense.
    pub async fn node(&self, blocks: Arc<dyn Blocks>) -> Result<Node, VfsError> {
        let (cache, turn_bytes) = (self.cache.clone(), AtomicUsize::new(0));
        let tree = Tree { blocks, cache, turn_bytes, looking: Mutex::default() };
        Arc::new(tree).node(self.root, Vec::new, ROOT_IDENTITY).await
    }

    /// The directory that it is.
    ///
    /// # Errors
    /// If its first block cannot be had, or is no directory.
    pub async fn open(&self, blocks: Arc<dyn Blocks>) -> Result<Arc<dyn Directory>, VfsError> {
        match self.node(blocks).await? {
            Node::Directory(directory) => Ok(directory),
            _ => Err(VfsError::NotDirectory),
        }
    }
}

/// The identity of an image's root, wherever the image comes from.
pub(super) const ROOT_IDENTITY: Identity = Identity { tree: 0, object: 0 };

/// The identity of an entry of an image: a function of its path, and so the same in a folder and in blocks.
pub(super) fn child_identity(directory: Identity, name: Name<'_>) -> Identity {
    let mut hasher = DefaultHasher::new();
    (directory.object, name.as_str()).hash(&mut hasher);
    Identity { tree: directory.tree, object: hasher.finish() }
}

struct Tree {
    blocks: Arc<dyn Blocks>,
    /// Locked for a look-up or an insertion only.
    cache: BlockCache,
    /// How many bytes were had at once since others had their turn, with what each block takes beside.
    turn_bytes: AtomicUsize,
    /// Locked for a look at it only.
    looking: Mutex<Looking>,
}

/// How many entries of a directory are looked for together. Of one directory all are read, of another one a single entry: who
/// has read many of those that were looked for will do so again.
#[derive(Default)]
struct Looking {
    /// How many there would have been last, in a directory that is long enough.
    size: usize,
    /// How many there were.
    found: usize,
    /// How many blocks were had at once since then.
    had: usize,
}

impl Looking {
    /// How many are looked for beside one that is not had at once, where no more than `left` are left.
    fn next(&mut self, left: usize) -> usize {
        self.size = match self.found {
            0 => self.size.max(BESIDE_MIN),
            found if self.had * 2 >= found => (self.size * 4).min(BESIDE_MAX),
            _ => (self.size / 4).max(1),
        };
        (self.found, self.had) = (self.size.min(left), 0);
        self.found
    }
}

/// What was used lately, in two generations: what is found in the old one moves to the young one, and when the young one
/// is full, it becomes the old one.
#[derive(Default)]
struct Cache {
    young: HashMap<Cid, Cached>,
    young_bytes: usize,
    old: HashMap<Cid, Cached>,
}

#[derive(Clone)]
struct Cached {
    block: Block,
    decoded: Decoded,
}

/// What a block is, decoded as far as it would take long to do that again for each path that leads through it.
#[derive(Clone)]
enum Decoded {
    /// A directory in one block.
    Directory(Arc<Entries>),
    /// A directory in several, or a part of one.
    Shard(Arc<Shard>),
    /// A file of this length, or a part of one.
    File { size: u64 },
    /// A symbolic link, or nothing that can be.
    Other,
}

/// The entries and children that are kept of a directory take so much each beside their names, in bytes.
const DECODED_ENTRY_BYTES: usize = 160;

/// The entries of a directory.
struct Entries {
    /// Sorted by name.
    sorted: Vec<(String, Cid)>,
    /// The places of those that were looked for together last. Locked for a look at it only.
    looked_for: Mutex<Range<usize>>,
}

impl Entries {
    fn find(&self, name: Name<'_>) -> Option<usize> {
        self.sorted.binary_search_by(|(entry, _)| entry.as_str().cmp(name.as_str())).ok()
    }

    /// Those that are to be looked for together with the one at this place, which is not had at once.
    fn beside(&self, place: usize, tree: &Tree) -> Vec<Cid> {
        let mut looked_for = self.looked_for.lock().unwrap_or_else(PoisonError::into_inner);
        if looked_for.contains(&place) {
            return Vec::new();
        }
        let rest = self.sorted.get(place..).unwrap_or_default();
        let count = tree.looking().next(rest.len().saturating_sub(1));
        *looked_for = place..place + 1 + count;
        rest.iter().skip(1).take(count).map(|(_, cid)| *cid).collect()
    }
}

impl Cached {
    fn new(block: Block) -> Self {
        let decoded = match unixfs::Node::decode(&block) {
            Ok(unixfs::Node::Directory(entries)) => {
                let mut entries: Vec<_> =
                    entries.into_iter().map(|(name, target)| (name.as_str().to_owned(), target.cid)).collect();
                entries.sort_unstable();
                Decoded::Directory(Arc::new(Entries { sorted: entries, looked_for: Mutex::default() }))
            }
            Ok(unixfs::Node::Shard(shard)) => Decoded::Shard(Arc::new(shard)),
            Ok(unixfs::Node::File(file)) => Decoded::File { size: file.size },
            Ok(unixfs::Node::Symlink(_)) | Err(_) => Decoded::Other,
        };
        Self { block, decoded }
    }

    /// The entries, if it is a directory in one block.
    fn entries(&self) -> Option<&Arc<Entries>> {
        match &self.decoded {
            Decoded::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    fn size_bytes(&self) -> usize {
        let block_bytes = self.block.data().len();
        let count = match &self.decoded {
            Decoded::Directory(entries) => entries.sorted.len(),
            Decoded::Shard(shard) => shard.children.len(),
            Decoded::File { .. } | Decoded::Other => return block_bytes + CACHED_OVERHEAD_BYTES,
        };
        // A directory's names are there twice.
        2 * block_bytes + count * DECODED_ENTRY_BYTES + CACHED_OVERHEAD_BYTES
    }
}

impl BlockCache {
    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn get(&mut self, cid: &Cid) -> Option<Cached> {
        if let Some(cached) = self.young.get(cid) {
            return Some(cached.clone());
        }
        let cached = self.old.remove(cid)?;
        self.insert(cached.clone());
        Some(cached)
    }

    fn has(&self, cid: &Cid) -> bool {
        self.young.contains_key(cid) || self.old.contains_key(cid)
    }

    fn insert(&mut self, cached: Cached) {
        let size_bytes = cached.size_bytes();
        if self.young_bytes + size_bytes > CACHE_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(*cached.block.cid(), cached).is_none() {
            self.young_bytes += size_bytes;
        }
    }
}

impl Tree {
    fn looking(&self) -> MutexGuard<'_, Looking> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block with what was decoded of it. If it takes waiting, those that `beside` gives are looked for as well.
    async fn cached(&self, cid: &Cid, beside: impl FnOnce() -> Vec<Cid>) -> Result<Cached, VfsError> {
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Cached::new(block));
        }
        let known = self.cache.lock().get(cid);
        if let Some(cached) = known {
            self.take_turn(CACHED_TURN_BYTES).await;
            return Ok(cached);
        }
        let block = match self.blocks.block_at_once(cid) {
            Some(block) => self.after_turns(block).await,
            None => self.blocks.block(*cid, beside()).await?,
        };
        let cached = Cached::new(block);
        self.cache.lock().insert(cached.clone());
        Ok(cached)
    }

    /// Gives a block that was had at once, after others have had their turn if there were many such.
    async fn after_turns(&self, block: Block) -> Block {
        self.looking().had += 1;
        let factor = if block.cid().codec() == CODEC_DAG_PB { DECODED_FACTOR } else { 1 };
        self.take_turn(block.data().len() * factor + AT_ONCE_OVERHEAD_BYTES).await;
        block
    }

    /// Lets others have their turn if what was had at once is as much as that, with what is counted as so many bytes more.
    async fn take_turn(&self, bytes: usize) {
        if self.turn_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > TURN_BYTES {
            self.turn_bytes.store(0, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    }

    async fn block(&self, cid: &Cid) -> Result<Block, VfsError> {
        Ok(self.cached(cid, Vec::new).await?.block)
    }

    async fn node(
        self: &Arc<Self>,
        cid: Cid,
        beside: impl FnOnce() -> Vec<Cid>,
        identity: Identity,
    ) -> Result<Node, VfsError> {
        let cached = self.cached(&cid, beside).await?;
        let tree = self.clone();
        match &cached.decoded {
            Decoded::Directory(_) | Decoded::Shard(_) => {
                let entries = cached.entries().map_or_else(Weak::new, Arc::downgrade);
                Ok(Node::Directory(Arc::new(ContentDirectory { tree, cid, identity, entries })))
            }
            Decoded::File { size } => Ok(Node::File(Arc::new(ContentFile { tree, cid, identity, size: *size }))),
            Decoded::Other => {
                let target = symlink_target(&cached.block)?;
                let metadata = image_metadata(Kind::Symlink, target.len() as u64);
                Ok(Node::Symlink(Arc::new(Symlink { identity, metadata, target })))
            }
        }
    }

    /// What an entry is, as far as its own block is here.
    async fn kind_if_here(&self, cid: Cid) -> Kind {
        if cid.codec() != CODEC_DAG_PB {
            return Kind::File;
        }
        let known = self.cache.lock().get(&cid);
        let block = match known {
            Some(cached) => {
                self.take_turn(CACHED_TURN_BYTES).await;
                match cached.decoded {
                    Decoded::Directory(_) | Decoded::Shard(_) => return Kind::Directory,
                    Decoded::File { .. } => return Kind::File,
                    Decoded::Other => Some(cached.block),
                }
            }
            None => match self.blocks.block_at_once(&cid) {
                Some(block) => Some(self.after_turns(block).await),
                None => self.blocks.block_if_here(cid).await,
            },
        };
        match block.as_ref().map(unixfs::Node::decode) {
            Some(Ok(unixfs::Node::File(_))) => Kind::File,
            Some(Ok(unixfs::Node::Directory(_) | unixfs::Node::Shard(_))) => Kind::Directory,
            Some(Ok(unixfs::Node::Symlink(_))) => Kind::Symlink,
            Some(Err(_)) | None => Kind::Other,
        }
    }
}

/// Where a symbolic link leads; an error if the block is none.
fn symlink_target(block: &Block) -> Result<String, VfsError> {
    let unusable = |source| VfsError::failed(WalkError::Node { cid: Box::new(*block.cid()), source });
    match unixfs::Node::decode(block).map_err(unusable)? {
        unixfs::Node::Symlink(target) if target.len() > PATH_BYTES_MAX => Err(VfsError::NameTooLong),
        unixfs::Node::Symlink(target) => Ok(str::from_utf8(target).map_err(|_| VfsError::IllegalName)?.to_owned()),
        _ => Err(VfsError::Invalid),
    }
}

/// The metadata of a node of an image: the same wherever the image comes from.
pub(super) fn image_metadata(kind: Kind, size_bytes: u64) -> Metadata {
    Metadata { kind, size_bytes, links: 1, times: None }
}

#[derive(Clone)]
struct ContentDirectory {
    tree: Arc<Tree>,
    cid: Cid,
    identity: Identity,
    /// Its entries, as long as the cache has them: what is open does not keep them, so the cache bounds them.
    entries: Weak<Entries>,
}

impl ContentDirectory {
    /// The entry of this name, and where it is among others, if those are in one block.
    async fn find(&self, name: Name<'_>) -> Result<(Cid, Option<(Arc<Entries>, usize)>), VfsError> {
        let entries = match self.entries.upgrade() {
            Some(entries) => Some(entries),
            None => self.tree.cached(&self.cid, Vec::new).await?.entries().cloned(),
        };
        if let Some(entries) = entries {
            let place = entries.find(name).ok_or(VfsError::NoEntry)?;
            return Ok((entries.sorted[place].1, Some((entries, place))));
        }
        let mut walk = PathWalk::new(self.cid, name.as_str()).map_err(|_| VfsError::NoEntry)?;
        while let Some(wanted) = walk.wanted().copied() {
            let cached = self.tree.cached(&wanted, Vec::new).await?;
            let supplied = match &cached.decoded {
                Decoded::Shard(shard) => walk.supply_shard(&wanted, shard),
                _ => walk.supply(&cached.block),
            };
            match supplied {
                Ok(()) => {}
                Err(WalkError::NotFound { .. }) => return Err(VfsError::NoEntry),
                Err(error) => return Err(VfsError::failed(error)),
            }
        }
        Ok((*walk.found().ok_or(VfsError::NoEntry)?, None))
    }

    async fn list(&self) -> Result<Vec<Entry>, VfsError> {
        let mut entries: Vec<Entry> = Vec::new();
        // Who lists books what he gets. This is for the time until then, in which a block may have to come from far away.
        let (mut rooms, mut left_bytes) = (Vec::new(), 0_usize);
        let mut walk = DirectoryWalk::new(self.cid);
        while let Some(wanted) = walk.wanted().copied() {
            let block = self.tree.block(&wanted).await?;
            for entry in walk.supply(&block).map_err(VfsError::failed)? {
                if entries.len() == LISTING_ENTRIES_MAX {
                    return Err(VfsError::NoMemory);
                }
                // Twice, since a list that grows may be there twice.
                let bytes = 2 * size_of::<Entry>() + entry.name.as_str().len();
                while bytes > left_bytes {
                    rooms.push(self.tree.blocks.room(LISTING_STEP_BYTES as u64).ok_or(VfsError::NoMemory)?);
                    left_bytes += LISTING_STEP_BYTES;
                }
                left_bytes -= bytes;
                let kind = self.tree.kind_if_here(entry.target.cid).await;
                entries.push(Entry { name: entry.name.as_str().to_owned(), kind });
            }
        }
        entries.sort_unstable_by(|first, second| first.name.cmp(&second.name));
        Ok(entries)
    }
}

impl Directory for ContentDirectory {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn metadata(&self) -> Answer<'_, Metadata> {
        futures::future::ready(Ok(image_metadata(Kind::Directory, 0))).boxed()
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Node> {
        async move {
            let (cid, place) = self.find(name).await?;
            let beside = || place.map_or_else(Vec::new, |(entries, place)| entries.beside(place, &self.tree));
            self.tree.node(cid, beside, child_identity(self.identity, name)).await
        }
        .boxed()
    }

    fn identity_of<'a>(&'a self, name: Name<'a>) -> Answer<'a, Identity> {
        async move { self.find(name).await.map(|_| child_identity(self.identity, name)) }.boxed()
    }

    fn entries(&self) -> Answer<'_, Vec<Entry>> {
        self.list().boxed()
    }
}

#[derive(Clone)]
struct ContentFile {
    tree: Arc<Tree>,
    cid: Cid,
    identity: Identity,
    size: u64,
}

impl File for ContentFile {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn metadata(&self) -> Answer<'_, Metadata> {
        futures::future::ready(Ok(image_metadata(Kind::File, self.size))).boxed()
    }

    fn open(&self, access: Access) -> Answer<'_, Arc<dyn OpenFile>> {
        let opened: Result<Arc<dyn OpenFile>, _> = match access {
            Access::Read => Ok(Arc::new(OpenContentFile { file: self.clone(), run: Mutex::default() })),
            Access::ReadWrite | Access::Write => Err(VfsError::ReadOnly),
        };
        futures::future::ready(opened).boxed()
    }
}

/// A file that is being read.
struct OpenContentFile {
    file: ContentFile,
    /// Locked for a look at it only.
    run: Mutex<Run>,
}

/// How much was read in order.
#[derive(Default)]
struct Run {
    /// Where the last read ended.
    end: u64,
    /// How many bytes were read up to there, one after the other.
    bytes: u64,
    /// The block that was read when the next ones were asked for last.
    told_at: Option<Cid>,
}

impl Run {
    /// How far to ask ahead of a reader who is at this block, and has come here from the last one in order; `None` for
    /// one who has just begun, or was told so before.
    fn ahead(&mut self, offset: u64, at: Cid) -> Option<u64> {
        if offset != self.end {
            *self = Self { end: offset, ..Self::default() };
        }
        let is_new = self.bytes > 0 && self.told_at.replace(at) != Some(at);
        is_new.then(|| self.bytes.saturating_mul(2).clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX))
    }

    fn has_read(&mut self, bytes: usize) {
        self.end += bytes as u64;
        self.bytes += bytes as u64;
    }
}

impl OpenContentFile {
    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has blocks brought that will be wanted after this one, if the reader is likely to get there.
    fn look_ahead(&self, walk: &FileWalk, offset: u64, at: Cid) {
        let tree = &self.file.tree;
        let Some(bytes) = self.run().ahead(offset, at) else { return };
        let cache = tree.cache.lock();
        let missing: Vec<_> = walk.ahead(bytes).filter(|cid| !cache.has(cid)).copied().collect();
        drop(cache);
        if !missing.is_empty() {
            tree.blocks.expect(missing);
        }
    }
}

impl OpenFile for OpenContentFile {
    fn identity(&self) -> Identity {
        self.file.identity
    }

    fn metadata(&self) -> Answer<'_, Metadata> {
        File::metadata(&self.file)
    }

    fn read_at(self: Arc<Self>, offset: u64, size: usize) -> Answer<'static, Bytes> {
        async move {
            if offset >= self.file.size || size == 0 {
                return Ok(Bytes::new());
            }
            let mut walk = FileWalk::from_offset(self.file.cid, offset);
            while let Some(wanted) = walk.wanted().copied() {
                let block = self.file.tree.block(&wanted).await?;
                let mut content = walk.supply(&block).map_err(VfsError::failed)?;
                if !content.is_empty() {
                    content.truncate(size.min(READ_BYTES_MAX));
                    self.look_ahead(&walk, offset, wanted);
                    self.run().has_read(content.len());
                    return Ok(content);
                }
            }
            Ok(Bytes::new())
        }
        .boxed()
    }
}
