//! Blocks that came one by one, on their way into the store.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::keep::{COMMIT_AFTER, COMMIT_BYTES};
use crate::blockstore::{Blockstore, StoreError, Writer};
use crate::dag::{Block, Cid};

/// Adds blocks to a store, many with each commit. Synchronous; it waits for disks.
pub(super) struct Pool {
    store: Arc<dyn Blockstore>,
    /// There is one while there is something to commit.
    writer: Option<Box<dyn Writer>>,
    written_bytes: u64,
    opened: Instant,
}

impl Pool {
    pub(super) fn new(store: Arc<dyn Blockstore>) -> Self {
        Self { store, writer: None, written_bytes: 0, opened: Instant::now() }
    }

    /// Whether there is something to commit.
    pub(super) fn is_open(&self) -> bool {
        self.writer.is_some()
    }

    /// Whether that should be done now.
    pub(super) fn is_due(&self) -> bool {
        self.is_open() && (self.written_bytes >= COMMIT_BYTES || self.opened.elapsed() >= COMMIT_AFTER)
    }

    /// Reads those of the blocks that are here, committed or not.
    pub(super) fn read(&mut self, cids: Vec<Cid>) -> HashMap<Cid, Result<Block, StoreError>> {
        let mut found = HashMap::new();
        for cid in cids {
            let block = match &mut self.writer {
                Some(writer) => writer.get(&cid),
                None => self.store.get(&cid),
            };
            if let Some(block) = block.transpose() {
                found.insert(cid, block);
            }
        }
        found
    }

    /// Those of the blocks that are here. One for which that cannot be told is not.
    pub(super) fn here(&mut self, cids: Vec<Cid>) -> HashSet<Cid> {
        let is_here = |cid: &Cid| match &mut self.writer {
            Some(writer) => writer.has(cid).unwrap_or(false),
            None => self.store.has(cid).unwrap_or(false),
        };
        cids.into_iter().filter(is_here).collect()
    }

    /// Adds blocks. After an error, those that were not committed are gone.
    pub(super) fn put(&mut self, blocks: &[Block]) -> Result<(), StoreError> {
        let put = self.try_put(blocks);
        if put.is_err() {
            self.writer = None;
        }
        put
    }

    fn try_put(&mut self, blocks: &[Block]) -> Result<(), StoreError> {
        for block in blocks {
            let writer = match &mut self.writer {
                Some(writer) => writer,
                None => {
                    (self.opened, self.written_bytes) = (Instant::now(), 0);
                    self.writer.insert(self.store.writer()?)
                }
            };
            if writer.put(block)? {
                self.written_bytes += block.data().len() as u64;
            }
        }
        Ok(())
    }

    /// Makes what was added last.
    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        match self.writer.take() {
            Some(writer) => writer.commit(&[]).map(drop),
            None => Ok(()),
        }
    }
}
