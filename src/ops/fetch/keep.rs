//! What of a DAG is in the local store, and adding to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::schedule::JobId;
use super::walk::Walk;
use super::{DagRequest, FetchError, FetchLimits};
use crate::blockstore::{Blockstore, Hold, StoreError, Writer};
use crate::dag::block::CODEC_DAG_PB;
use crate::dag::{Block, Cid, Version};

/// After how many bytes blocks are committed, so that they need not be fetched again when this fetch is interrupted: few
/// commits, each with some flushes of the disk, and not much that is lost.
pub(super) const COMMIT_BYTES: u64 = 64 << 20;

/// The same in time, for slow sources.
pub(super) const COMMIT_AFTER: Duration = Duration::from_secs(10);

/// A block that is needed and not here.
#[derive(Debug)]
pub(super) struct Want {
    pub(super) cid: Cid,
    /// A request that gives with the block all that is needed below it.
    pub(super) whole: Option<DagRequest>,
    /// The request that brought the block through which it was found, if that is known.
    pub(super) origin: Option<JobId>,
}

/// What [`Keeper::advance`] did.
#[derive(Debug, Default)]
pub(super) struct Advance {
    /// What is needed in addition now.
    pub(super) wants: Vec<Want>,
    /// For each block, what it was.
    pub(super) taken: Vec<Taken>,
}

/// What a block is to a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was needed, under this name.
    Wanted(Cid),
    /// It is here already.
    Here,
    /// It belongs to nothing that is known.
    Stranger,
}

/// Who finds what nobody brought. No request has this number.
const NOBODY: JobId = JobId::MAX;

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
        let walk = Walk::new(request, limits, NOBODY)?;
        let opened = Instant::now();
        let mut keeper =
            Self { store, hold, writer: None, written_bytes: 0, opened, walk, limits, blocks: 0, bytes: 0 };
        let mut wants = Vec::new();
        keeper.look(NOBODY, &mut wants)?;
        Ok((keeper, wants))
    }

    /// Stores those of the blocks that are needed, each brought by a request. One may be needed only because of another
    /// one before it.
    pub(super) fn advance(&mut self, blocks: &[(JobId, Block)]) -> Result<Advance, FetchError> {
        let Advance { mut wants, mut taken } = Advance::default();
        for (origin, block) in blocks {
            let Some(block) = self.as_wanted(block) else {
                let is_here = self.has(block.cid())?;
                taken.push(if is_here { Taken::Here } else { Taken::Stranger });
                continue;
            };
            // What was not said was not looked for here either.
            if !self.walk.is_said(block.cid()) && self.has(block.cid())? {
                taken.push(Taken::Here);
            } else {
                taken.push(Taken::Wanted(*block.cid()));
                self.put(&block)?;
            }
            self.walk.supply(&block, *origin)?;
            self.look(*origin, &mut wants)?;
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
    fn look(&mut self, origin: JobId, wants: &mut Vec<Want>) -> Result<(), FetchError> {
        while let Some((cid, finder)) = self.walk.next() {
            let origin = finder.unwrap_or(origin);
            if let Some(block) = Block::from_identity(&cid) {
                self.walk.supply(&block, origin)?;
                continue;
            }
            let is_leaf = self.walk.is_leaf(&cid);
            if is_leaf && self.has(&cid)? {
                self.walk.supply_leaf(&cid);
            } else if !is_leaf && let Some(block) = self.get(&cid)? {
                self.walk.supply(&block, origin)?;
            } else {
                let whole = if is_leaf { None } else { self.walk.whole(&cid) };
                wants.push(Want { cid, whole, origin: Some(origin).filter(|origin| *origin != NOBODY) });
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
