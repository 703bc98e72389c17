//! Blocks that are kept, under the names of roots that are to stay.
//!
//! * [`Blockstore`] is what every store can do. [`DiskBlockstore`] is the one for use, [`MemoryBlockstore`] its twin without
//!   files; both pass the same tests.
//! * A [`Writer`] adds blocks. They appear together, at [`Writer::commit`], with the pins that name their roots.
//! * A [`Pin`] is a name for a root. What can be reached from a pin stays; the rest goes with the next [`Blockstore::gc`].
//!
//! Blocks are kept by the hash in their CID, so one that was put under one codec or version is found under another.
//! Every block that comes out was hashed again on its way. Blocks of identity CIDs are never kept: the CID is the block.
//!
//! Everything here is synchronous and may wait for a disk. Nothing here fetches what is missing, and nothing knows of
//! images or trees: to a store, a DAG is blocks with links.

mod disk;
mod error;
mod key;
mod memory;
mod pin;
#[cfg(test)]
mod tests;
mod walk;

pub use disk::{DiskBlockstore, Options, StoreEvent, without_waiting};
pub use error::{DamageError, StoreError};
pub use memory::MemoryBlockstore;
pub use pin::{PIN_NAME_BYTES_MAX, Pin, PinName, PinNameError};
pub use walk::MISSING_MAX;

use crate::dag::{Block, Cid};

/// A place that keeps blocks.
///
/// # Collecting and writing
///
/// While a [`Writer`] or a [`Hold`] lives nothing is collected, so what it was told to be there stays there; a
/// [`Blockstore::gc`] waits for it, and writers that come later wait for that. So whoever has one must not call `gc`, or
/// both wait for ever. Calls of the same store within one process do not wait for each other otherwise: a second writer
/// starts at once where a first one lives.
pub trait Blockstore: Send + Sync {
    /// The block that a CID names, if it is here. Its bytes have been checked against the CID.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the block is here, but with other bytes; or if the store cannot be read.
    fn get(&self, cid: &Cid) -> Result<Option<Block>, StoreError>;

    /// As [`Blockstore::get`], for one of several blocks. Where those `beside` it are, as far as they are here, is found out
    /// with it, so that [`Blockstore::get_at_once`] finds them.
    ///
    /// # Errors
    /// As [`Blockstore::get`].
    fn get_among(&self, cid: &Cid, _beside: &[Cid]) -> Result<Option<Block>, StoreError> {
        self.get(cid)
    }

    /// The block that a CID names, if it can be had at once: it has at most [`AT_ONCE_BYTES_MAX`] bytes, where it is was found
    /// out before, and no disk and nobody else has to be waited for. Its bytes have been checked against the CID. `None` says
    /// nothing of whether it is here, nor of its bytes.
    ///
    /// Unlike all else here, this may be called where nothing may wait. It may also give a block that was removed just now.
    fn get_at_once(&self, _cid: &Cid) -> Option<Block> {
        None
    }

    /// Whether the block that a CID names is here. Its bytes are not looked at.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn has(&self, cid: &Cid) -> Result<bool, StoreError>;

    /// Begins to add blocks. Waits while the store is being collected.
    ///
    /// # Errors
    /// If the store cannot be written, or the wait was cut short.
    fn writer(&self) -> Result<Box<dyn Writer>, StoreError>;

    /// Keeps anything from being collected until the value is dropped: for those who read blocks that no pin holds.
    /// Waits while the store is being collected.
    ///
    /// # Errors
    /// As [`Blockstore::writer`].
    fn hold(&self) -> Result<Hold, StoreError>;

    /// Keeps what is here, or comes, of what can be reached from a root from being collected until the value is dropped: for
    /// those who read a DAG for long that no pin holds. It need not be whole. Waits while the store is being collected, and
    /// keeps nobody waiting afterwards.
    ///
    /// # Errors
    /// As [`Blockstore::writer`].
    fn lease(&self, root: &Cid) -> Result<Lease, StoreError>;

    /// All pins, ascending by the bytes of their names.
    ///
    /// # Errors
    /// If they cannot be read.
    fn pins(&self) -> Result<Vec<Pin>, StoreError>;

    /// Names a root, whose whole DAG must be here. A pin of this name that is there already is replaced.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] with what is missing, and whatever else keeps [`Writer::commit`] from pinning.
    fn set_pin(&self, name: &PinName, root: &Cid) -> Result<(), StoreError>;

    /// Checks that all that can be reached from a root is here. Blocks without links are not read.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] with what is missing, and whatever else keeps [`Writer::commit`] from pinning it.
    fn check_complete(&self, root: &Cid) -> Result<(), StoreError>;

    /// Those of some roots that [`Blockstore::check_complete`] refuses, with its reasons: each once, in their order. What
    /// several whole ones have in common is looked at once.
    ///
    /// # Errors
    /// If the store cannot be read at all, or the check was cut short.
    fn incomplete(&self, roots: &[Cid]) -> Result<Vec<(Cid, StoreError)>, StoreError>;

    /// Takes names away, all at once; the blocks stay until the next [`Blockstore::gc`]. Gives the pins that were there.
    ///
    /// # Errors
    /// If the pins cannot be read or written. All of them are then as they were.
    fn remove_pins(&self, names: &[PinName]) -> Result<Vec<Pin>, StoreError>;

    /// As [`Blockstore::remove_pins`], for one name.
    ///
    /// # Errors
    /// The same.
    fn remove_pin(&self, name: &PinName) -> Result<Option<Pin>, StoreError> {
        Ok(self.remove_pins(std::slice::from_ref(name))?.pop())
    }

    /// Removes the blocks that cannot be reached from any pin. Waits until nobody writes.
    ///
    /// # Errors
    /// [`StoreError::BrokenPin`] if a pinned DAG is not whole: what is missing may be the link to the rest. Or if
    /// the store cannot be read or written, or the wait was cut short.
    fn gc(&self, options: GcOptions) -> Result<GcReport, StoreError>;

    /// Does what [`Blockstore::gc`] does if the store is over its size limit; `None` if it is not, or if somebody writes.
    ///
    /// Also `None` if it fails, since this follows work that is done and stays done. A [`DiskBlockstore`] then tells of
    /// [`StoreEvent::NotTrimmed`].
    fn trim(&self) -> Option<GcReport>;

    /// Whether [`Blockstore::trim`] may have something to do, which is found out with little work.
    fn is_too_large(&self) -> bool {
        true
    }

    /// Reads and hashes all that is kept, and follows every pin. `progress` is told the bytes read since its last call.
    ///
    /// # Errors
    /// Only if the check cannot be made. What it finds is in the report.
    fn verify(&self, options: VerifyOptions, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport, StoreError>;

    /// Something that [`Blockstore::cache_put`] was given under this key, unless it has been dropped meanwhile.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn cache_get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keeps bytes that can be made again, instead of those kept under this key before. May drop others, those that were
    /// not asked for the longest first, and does not keep what is longer than [`CACHE_VALUE_BYTES_MAX`].
    ///
    /// All are dropped when blocks turn out to be lost. So what was kept while a DAG was pinned and whole says, as long as it
    /// is here and the DAG is pinned, that the store knows of no loss since.
    ///
    /// # Errors
    /// If the store cannot be written.
    fn cache_put(&self, key: &str, value: &[u8]) -> Result<(), StoreError>;
}

/// Adds blocks to a store. Dropping it without [`Writer::commit`] leaves the store as it was.
pub trait Writer: Send {
    /// Adds a block; `false` if it is there already.
    ///
    /// # Errors
    /// If the store cannot be written. The writer is then of no more use.
    fn put(&mut self, block: &Block) -> Result<bool, StoreError>;

    /// Whether a block is in the store or was put here.
    ///
    /// # Errors
    /// As [`Blockstore::has`].
    fn has(&mut self, cid: &Cid) -> Result<bool, StoreError>;

    /// A block that is in the store or was put here.
    ///
    /// # Errors
    /// As [`Blockstore::get`].
    fn get(&mut self, cid: &Cid) -> Result<Option<Block>, StoreError>;

    /// Makes all blocks appear in the store, and sets these pins: all of it, or on an error none. What was committed
    /// outlives the process and the power. If the store is then over its size limit and nobody else writes, it is collected.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] if the DAG below one of the pins is not all here, [`StoreError::UnknownCodec`] or
    /// [`StoreError::MalformedNode`] if its links cannot be read; or if the store cannot be written.
    fn commit(self: Box<Self>, pins: &[(PinName, Cid)]) -> Result<Committed, StoreError>;
}

/// What [`Blockstore::hold`] gives: nothing is collected while it lives.
pub struct Hold {
    _guard: Box<dyn Send>,
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Hold").finish_non_exhaustive()
    }
}

/// What [`Blockstore::lease`] gives: what can be reached from its root stays while it lives.
pub struct Lease {
    _guard: Box<dyn Send + Sync>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Lease").finish_non_exhaustive()
    }
}

/// The longest block that [`Blockstore::get_at_once`] gives, in bytes: a chunk of Kubo's default. To read and hash as many takes
/// some 0.2 ms, and to have another thread do it as long again where that has to be started or woken.
pub const AT_ONCE_BYTES_MAX: usize = 256 * 1024;

/// The longest value that [`Blockstore::cache_put`] keeps, in bytes: a stat cache of some 300,000 files.
pub const CACHE_VALUE_BYTES_MAX: usize = 32 << 20;

/// The most bytes that all values of [`Blockstore::cache_put`] take together.
pub const CACHE_BYTES_MAX: usize = 64 << 20;

/// What a commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The blocks that were not in the store before.
    pub blocks: u64,
    /// The length of these blocks, in bytes.
    pub bytes: u64,
    /// What was collected for the size limit, if anything had to be.
    pub collected: Option<GcReport>,
}

/// How to collect.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcOptions {
    /// Only tell what would be removed.
    pub dry_run: bool,
}

/// What was collected, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// The blocks that no pin reaches.
    pub removed_blocks: u64,
    /// The length of these blocks, in bytes.
    pub removed_bytes: u64,
    /// The blocks that stay.
    pub kept_blocks: u64,
    /// The length of these blocks, in bytes.
    pub kept_bytes: u64,
    /// How much less the store takes on disk, in bytes. Less than `removed_bytes` where blocks lie among others that stay:
    /// a file is only rewritten when a good part of it is of no use.
    pub freed_bytes: u64,
    /// Files that killed writers left, which were removed.
    pub leftovers: u64,
}

/// How to verify.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// Bring the store to a state in which everything that it says it has is good. Waits until nobody writes.
    pub repair: bool,
}

/// What a check of a whole store found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// The blocks that were read.
    pub blocks: u64,
    /// Their length, in bytes.
    pub bytes: u64,
    /// The pins that were followed.
    pub pins: u64,
    /// What is wrong. Nothing if the store is sound.
    pub findings: Vec<Finding>,
    /// Whether everything in `findings` but incomplete pins has been repaired: what was lost cannot be made again here.
    pub repaired: bool,
}

/// Something wrong in a store.
#[derive(Debug)]
pub enum Finding {
    /// A block has other bytes than its name says.
    DamagedBlock {
        /// The block, as the file has it.
        cid: Box<Cid>,
        /// The file.
        pack: String,
    },
    /// A file of blocks cannot be read to its end.
    DamagedPack {
        /// The file.
        pack: String,
        /// Why.
        reason: String,
    },
    /// The index has blocks where no file has them.
    LostBlocks {
        /// The file.
        pack: String,
        /// How many.
        blocks: u64,
    },
    /// A pinned DAG is not whole, or cannot be followed.
    BrokenPin {
        /// The pin.
        pin: Pin,
        /// Why.
        reason: StoreError,
    },
}
