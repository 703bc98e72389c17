//! What of a DAG is in the local store, and adding to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::walk::Walk;
use super::{DagRequest, FetchError, FetchLimits};
use crate::blockstore::{Blockstore, Hold, StoreError, Writer};
use crate::dag::block::CODEC_DAG_PB;
use crate::dag::{Block, Cid, Version};

/// After how many bytes blocks are committed, so that they need not be fetched again when this fetch is interrupted: few
/// commits, each with some flushes of the disk, and not much that is lost.
const COMMIT_BYTES: u64 = 64 << 20;

/// The same in time, for slow sources.
const COMMIT_AFTER: Duration = Duration::from_secs(10);

/// A block that is needed and not here.
#[derive(Debug)]
pub(super) struct Want {
    pub(super) cid: Cid,
    /// A request that gives with the block all that is needed below it.
    pub(super) whole: Option<DagRequest>,
    /// The place in [`Keeper::advance`]'s argument of the block through which it was found.
    pub(super) origin: usize,
}

/// What [`Keeper::advance`] did.
#[derive(Debug, Default)]
pub(super) struct Advance {
    /// What is needed in addition now.
    pub(super) wants: Vec<Want>,
    /// For each block, the name under which it was needed, if it was.
    pub(super) taken: Vec<Option<Cid>>,
}

/// The local side of a fetch. Synchronous; it waits for disks.
pub(super) struct Keeper {
    store: Arc<dyn Blockstore>,
    /// Nothing is collected while this lives.
    hold: Hold,
    /// There is one while there is something to commit.
    writer: Option<Box<dyn Writer>>,
    written_bytes: u64,
    opened: Instant,
    walk: Walk,
    limits: FetchLimits,
    /// What was stored so far.
    pub(super) blocks: u64,
    pub(super) bytes: u64,
}

impl Keeper {
    /// Looks through what is here; gives what is needed next.
    pub(super) fn start(
        store: Arc<dyn Blockstore>,
        request: DagRequest,
        limits: FetchLimits,
    ) -> Result<(Self, Vec<Want>), FetchError> {
        let hold = store.hold()?;
        let walk = Walk::new(request, limits)?;
        let opened = Instant::now();
        let mut keeper =
            Self { store, hold, writer: None, written_bytes: 0, opened, walk, limits, blocks: 0, bytes: 0 };
        let mut wants = Vec::new();
        keeper.look(0, &mut wants)?;
        Ok((keeper, wants))
    }

    /// Stores those of the blocks that are needed. One may be needed only because of another one before it.
    pub(super) fn advance(&mut self, blocks: &[Block]) -> Result<Advance, FetchError> {
        let Advance { mut wants, mut taken } = Advance::default();
        for (origin, block) in blocks.iter().enumerate() {
            let wanted = self.as_wanted(block);
            taken.push(wanted.as_ref().map(|block| *block.cid()));
            if let Some(block) = wanted {
                self.put(&block)?;
                self.walk.supply(&block)?;
                self.look(origin, &mut wants)?;
            }
        }
        wants.retain(|want| self.walk.wants(&want.cid));
        if self.written_bytes >= COMMIT_BYTES || (self.writer.is_some() && self.opened.elapsed() >= COMMIT_AFTER) {
            self.commit()?;
        }
        Ok(Advance { wants, taken })
    }

    /// Makes what was stored last.
    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        self.written_bytes = 0;
        match self.writer.take() {
            Some(writer) => writer.commit(&[]).map(drop),
            None => Ok(()),
        }
    }

    /// Where the path leads, once that is known; and what keeps the blocks from being collected.
    pub(super) fn into_end(self) -> (Option<Cid>, Hold) {
        (self.walk.end(), self.hold)
    }

    /// The block under the name that is wanted. Gateways that put the CID into a host's name turn version 0 into 1.
    fn as_wanted(&self, block: &Block) -> Option<Block> {
        let cid = block.cid();
        if self.walk.wants(cid) {
            return Some(block.clone());
        }
        let other = match cid.version() {
            Version::V0 => Cid::new_v1(cid.codec(), *cid.hash()),
            Version::V1 if cid.codec() == CODEC_DAG_PB => Cid::new_v0(*cid.hash()).ok()?,
            Version::V1 => return None,
        };
        if self.walk.wants(&other) { Block::new(other, block.data().clone()).ok() } else { None }
    }

    fn put(&mut self, block: &Block) -> Result<(), FetchError> {
        self.bytes += block.data().len() as u64;
        if self.bytes > self.limits.bytes {
            return Err(FetchError::TooManyBytes { limit: self.limits.bytes });
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                self.opened = Instant::now();
                self.writer.insert(self.store.writer()?)
            }
        };
        if writer.put(block)? {
            self.written_bytes += block.data().len() as u64;
        }
        self.blocks += 1;
        Ok(())
    }

    /// Follows the walk through all blocks that are here.
    fn look(&mut self, origin: usize, wants: &mut Vec<Want>) -> Result<(), FetchError> {
        while let Some(cid) = self.walk.next() {
            if let Some(block) = Block::from_identity(&cid) {
                self.walk.supply(&block)?;
            } else if self.walk.is_leaf(&cid) {
                if self.has(&cid)? {
                    self.walk.supply_leaf(&cid);
                } else {
                    wants.push(Want { cid, whole: None, origin });
                }
            } else if let Some(block) = self.get(&cid)? {
                self.walk.supply(&block)?;
            } else {
                wants.push(Want { cid, whole: self.walk.whole(&cid), origin });
            }
        }
        Ok(())
    }

    fn has(&mut self, cid: &Cid) -> Result<bool, StoreError> {
        match &mut self.writer {
            Some(writer) => writer.has(cid),
            None => self.store.has(cid),
        }
    }

    fn get(&mut self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        match &mut self.writer {
            Some(writer) => writer.get(cid),
            None => self.store.get(cid),
        }
    }
}
