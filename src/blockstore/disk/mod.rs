//! A store in a folder.
//!
//! ```text
//! format              version of all that follows, as a decimal number
//! packs/              what is kept; a copy of this folder is a copy of the store
//!   NUMBER.car        blocks: one file for each commit, never changed
//!   NUMBER.part       one that is being written, locked by its writer; else what a killed writer left
//!   pins.json         the pins
//! index.sqlite        which block is where, and what may be forgotten; made again from the packs when need be
//! gc.lock, turn.lock, pins.lock, index.lock
//! ```
//!
//! A commit is: the pack on disk; the next pins on disk; the pack gets its name; the index is told; the pins get their name;
//! the folder of packs on disk. That is three fsyncs, however many blocks there are, and up to three more when the index's log
//! has become long. Up to the renaming of the pack nothing has happened. A commit that dies after it has added blocks that no
//! pin holds, which is as if they had been collected late. [`recover`] sees to what the index then lacks.
//!
//! A collection copies what stays of packs that are mostly of no use to a new one, tells the index, and then removes the old
//! ones. So at every instant each block that stays is in a file, and the index has it or can be told.
//!
//! Folders are opened once, files below them by name without following symlinks, and all have modes for their owner alone.

#[cfg(test)]
mod at_once_tests;
mod gc;
mod impatience;
mod index;
mod layout;
mod lease;
mod locations;
mod lock;
mod pack;
mod pins;
mod recover;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

pub use self::impatience::without_waiting;
use self::index::{Index, IndexError, Location};
use self::layout::Layout;
use self::locations::Locations;
use self::lock::Holders;
use self::pack::OpenPacks;
use self::pins::PinsChange;
use self::writer::DiskWriter;
use super::key::Key;
use super::walk::Reached;
use super::{
    Blockstore, DamageError, GcOptions, GcReport, Hold, Lease, Pin, PinName, StoreError, VerifyOptions, VerifyReport,
    Writer,
};
use crate::dag::{Block, Cid};

/// Connections to the index that are kept for later. More threads than these read at once only by opening some for a moment.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// When packs take more bytes than this, a commit collects what no pin holds; `None` for no limit.
    pub size_bytes_max: Option<u64>,
    /// Told what takes time or what was found.
    pub events: Arc<dyn Fn(StoreEvent) + Send + Sync>,
    /// Asked now and then, while something is waited for, whether to stop.
    pub cancelled: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Options {
    /// Whether to stop at once, and not to wait.
    fn is_cancelled(&self) -> bool {
        impatience::is_impatient() || (self.cancelled)()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { size_bytes_max: None, events: Arc::new(|_| {}), cancelled: Arc::new(|| false) }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Options").field("size_bytes_max", &self.size_bytes_max).finish_non_exhaustive()
    }
}

/// What a user may want to know while a store is used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreEvent {
    /// A writer waits for a collection to end.
    WaitingForCollector,
    /// A collection waits until nobody writes.
    WaitingForWriters,
    /// The index cannot be used, and is made from the packs.
    MakingIndex {
        /// Why.
        reason: String,
        /// How many packs have to be read.
        packs: usize,
    },
    /// Packs with blocks have disappeared, and something that is pinned is not whole.
    BlocksLost {
        /// How many blocks were in them.
        blocks: u64,
    },
    /// The store is over its size limit and could not be collected.
    NotTrimmed {
        /// Why.
        reason: String,
    },
}

/// A store in a folder. Clones are the same store. Any number of processes may use the folder at once.
#[derive(Clone)]
pub struct DiskBlockstore {
    inner: Arc<Inner>,
}

impl fmt::Debug for DiskBlockstore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DiskBlockstore").field("dir", &self.inner.layout.dir).finish_non_exhaustive()
    }
}

struct Inner {
    layout: Arc<Layout>,
    options: Options,
    holders: Holders,
    open_packs: OpenPacks,
    locations: Locations,
    /// Whether the store was made for the next commit, which pays for that already.
    is_first_commit: AtomicBool,
    /// Connections that nobody uses at the moment.
    idle: Mutex<Vec<Index>>,
}

/// Why something that uses the index failed: [`IndexError::Unusable`] is a reason to make the index again.
enum Failure {
    Store(StoreError),
    Index(IndexError),
}

impl Failure {
    /// Whether there is no room on the disk.
    fn is_full_disk(&self) -> bool {
        match self {
            Self::Store(StoreError::Io { source, .. }) => source.kind() == io::ErrorKind::StorageFull,
            Self::Index(IndexError::Sqlite(error)) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            _ => false,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

impl DiskBlockstore {
    /// Opens the store in a folder, and makes it if there is none.
    ///
    /// # Errors
    /// If the folder cannot be read and written, has been written by a newer version, or holds something else.
    pub fn open(dir: &Path, options: Options) -> Result<Self, StoreError> {
        let layout = Arc::new(Layout::open(dir, &options)?);
        let inner = Inner {
            is_first_commit: layout.is_new.into(),
            layout,
            options,
            holders: Holders::default(),
            open_packs: OpenPacks::default(),
            locations: Locations::default(),
            idle: Mutex::default(),
        };
        inner.with_index(|index| inner.try_reconcile(index))?;
        inner.try_remove_leftovers()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.inner.layout.dir
    }

    /// The length of all its packs, in bytes.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn size_bytes(&self) -> Result<u64, StoreError> {
        self.inner.with_index(|index| index.size_bytes())
    }
}

impl Inner {
    fn index_path(&self) -> PathBuf {
        self.layout.path("index.sqlite")
    }

    fn index_error(&self, error: IndexError) -> StoreError {
        error.into_store_error(self.index_path())
    }

    fn store_error(&self, failure: Failure) -> StoreError {
        match failure {
            Failure::Store(error) => error,
            Failure::Index(error) => self.index_error(error),
        }
    }

    /// As [`Inner::open_index`], for those who do not know whether somebody collects.
    fn open_or_make_index(&self) -> Result<Index, StoreError> {
        if let Some(index) = self.open_sound_index()? {
            return Ok(index);
        }
        let _hold = self.holders.hold(&self.layout, &self.options)?;
        self.open_index()
    }

    /// A connection, to be given back with [`Inner::put_back`].
    fn take_index(&self) -> Result<Index, StoreError> {
        self.idle_index().map_or_else(|| self.open_or_make_index(), Ok)
    }

    /// As [`Inner::take_index`]. Nobody may collect meanwhile.
    fn take_held_index(&self) -> Result<Index, StoreError> {
        self.idle_index().map_or_else(|| self.open_index(), Ok)
    }

    /// A connection that nobody uses. Those to an index that was thrown away are closed: they know nothing of what came later.
    fn idle_index(&self) -> Option<Index> {
        let mut idle = self.idle();
        while let Some(index) = idle.pop() {
            if index.is_current() {
                return Some(index);
            }
        }
        None
    }

    /// Brings the names of packs and pins to disk.
    fn sync_packs(&self) -> Result<(), StoreError> {
        self.layout.packs.sync().map_err(StoreError::io("write", self.layout.dir.join("packs")))
    }

    fn put_back(&self, index: Index) {
        let mut idle = self.idle();
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(index);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Index>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the index. If that turns out not to be usable, it is made again, and the same is done with that.
    fn with_index<T, E: Into<Failure>>(
        &self,
        mut action: impl FnMut(&mut Index) -> Result<T, E>,
    ) -> Result<T, StoreError> {
        let mut index = self.take_index()?;
        let result = match action(&mut index).map_err(Into::into) {
            Err(Failure::Index(IndexError::Unusable(_))) => {
                self.discard_index(index)?;
                index = self.open_or_make_index()?;
                action(&mut index).map_err(Into::into)
            }
            result => result,
        };
        if result.is_ok() {
            self.put_back(index);
        }
        result.map_err(|failure| self.store_error(failure))
    }

    /// Throws away an index that cannot be used, unless somebody else has done so.
    fn discard_index(&self, index: Index) -> Result<(), StoreError> {
        self.idle().clear();
        let _lock = lock::moment(&self.layout, "index.lock", &self.options)?;
        if index.is_current() {
            let root = self.layout.root();
            let removed = root.replace("index.sqlite", root, "index.sqlite.damaged");
            removed.map_err(StoreError::io("replace", self.index_path()))?;
        }
        Ok(())
    }

    /// Where a block is.
    fn find(&self, key: &Key) -> Result<Option<Location>, StoreError> {
        self.with_index(|index| index.find(key))
    }

    /// Where a block is. Where others are as well is remembered with it.
    fn find_among(&self, key: &Key, beside: &[Cid]) -> Result<Option<Location>, StoreError> {
        if beside.is_empty() {
            let found = self.find(key)?;
            self.locations.note(found.map(|found| (key.clone(), found)));
            return Ok(found);
        }
        let mut keys: Vec<_> = [key.clone()].into_iter().chain(beside.iter().filter_map(Key::new)).collect();
        // As the index has them: those that are near to each other cost less.
        keys.sort_unstable();
        keys.dedup();
        let located = self.with_index(|index| index.find_all(&keys))?;
        let found = located.iter().find(|(located, _)| located == key).map(|(_, location)| *location);
        self.locations.note(located);
        Ok(found)
    }

    /// Reads a block from where it is, and finds out where others are. It may just have been moved: then it is looked for once
    /// more.
    fn read(&self, key: &Key, cid: &Cid, beside: &[Cid]) -> Result<Option<Block>, StoreError> {
        let damaged = |source| StoreError::Damaged { cid: Box::new(*cid), source };
        let mut last = None;
        loop {
            let Some(location) = self.find_among(key, beside)? else { return Ok(None) };
            match self.open_packs.read(&self.layout, location.pack, location.extent, cid) {
                Ok(block) => return Ok(Some(block)),
                Err(DamageError::Pack { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && last != Some(location) =>
                {
                    last = Some(location);
                }
                Err(error) => return Err(damaged(error)),
            }
        }
    }
}

impl Blockstore for DiskBlockstore {
    fn get(&self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(block));
        }
        Key::new(cid).map_or(Ok(None), |key| self.inner.read(&key, cid, &[]))
    }

    fn get_among(&self, cid: &Cid, beside: &[Cid]) -> Result<Option<Block>, StoreError> {
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(block));
        }
        Key::new(cid).map_or(Ok(None), |key| self.inner.read(&key, cid, beside))
    }

    fn get_at_once(&self, cid: &Cid) -> Option<Block> {
        let (pack, extent) = self.inner.locations.get(&Key::new(cid)?)?;
        self.inner.open_packs.read_at_once(pack, extent, cid)
    }

    fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        if Block::from_identity(cid).is_some() {
            return Ok(true);
        }
        let Some(key) = Key::new(cid) else { return Ok(false) };
        let found = self.inner.find(&key)?;
        self.inner.locations.note(found.map(|found| (key, found)));
        Ok(found.is_some())
    }

    fn writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        Ok(Box::new(DiskWriter::begin(&self.inner)?))
    }

    fn hold(&self) -> Result<Hold, StoreError> {
        Ok(Hold { _guard: Box::new(self.inner.holders.hold(&self.inner.layout, &self.inner.options)?) })
    }

    fn lease(&self, root: &Cid) -> Result<Lease, StoreError> {
        let _hold = self.inner.holders.hold(&self.inner.layout, &self.inner.options)?;
        Ok(Lease { _guard: Box::new(self.inner.lease(root)?) })
    }

    fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        Ok(pins::list(pins::read(&self.inner.layout)?))
    }

    fn set_pin(&self, name: &PinName, root: &Cid) -> Result<(), StoreError> {
        self.writer()?.commit(&[(name.clone(), *root)])?;
        Ok(())
    }

    fn check_complete(&self, root: &Cid) -> Result<(), StoreError> {
        let _hold = self.inner.holders.hold(&self.inner.layout, &self.inner.options)?;
        self.inner.with_index(|index| self.inner.reach(index, &mut Reached::default(), root))
    }

    fn incomplete(&self, roots: &[Cid]) -> Result<Vec<(Cid, StoreError)>, StoreError> {
        let _hold = self.inner.holders.hold(&self.inner.layout, &self.inner.options)?;
        self.inner.with_index(|index| self.inner.incomplete(index, roots))
    }

    fn remove_pins(&self, names: &[PinName]) -> Result<Vec<Pin>, StoreError> {
        let layout = &self.inner.layout;
        let mut change = PinsChange::begin(layout, &self.inner.options)?;
        let pin = |name: &PinName| Some(Pin { name: name.clone(), root: change.pins.remove(name)? });
        let removed: Vec<_> = names.iter().filter_map(pin).collect();
        if !removed.is_empty() {
            change.write()?.rename()?;
            self.inner.sync_packs()?;
        }
        Ok(removed)
    }

    fn gc(&self, options: GcOptions) -> Result<GcReport, StoreError> {
        self.inner.collect(options)
    }

    fn trim(&self) -> Option<GcReport> {
        self.inner.trim()
    }

    fn is_too_large(&self) -> bool {
        // Who trims it finds out what is wrong, and says so.
        !matches!(self.inner.size_over_limit(), Ok(None))
    }

    fn verify(&self, options: VerifyOptions, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport, StoreError> {
        self.inner.verify(options, progress)
    }

    fn cache_get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.with_index(|index| index.cache_get(key))
    }

    fn cache_put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.inner.with_index(|index| index.cache_put(key, value))
    }
}
