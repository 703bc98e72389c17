//! Which blocks may be seen: those that a pin reaches.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::blockstore::{Blockstore, Pin, StoreError};
use crate::dag::block::CODEC_DAG_PB;
use crate::dag::{Block, Cid, Scope};

/// Knows which blocks may be seen. It waits for disks.
pub(super) struct Reach {
    store: Arc<dyn Blockstore>,
    /// What was found last. Locked while it is found anew, since whoever waits would have to do the same.
    last: Mutex<Reached>,
}

/// What pins reach.
#[derive(Default)]
struct Reached {
    pins: Vec<Pin>,
    /// The digests of all blocks, as the store has them; with whether their links were followed, since a block may be
    /// linked to as raw and as dag-pb. Where they were not, what the block links to as dag-pb may be anything.
    digests: HashMap<Box<[u8]>, bool>,
    /// Blocks whose links could not be followed, since they were not there or damaged. They may come back.
    unread: HashSet<Cid>,
}

impl Reach {
    pub(super) fn new(store: Arc<dyn Blockstore>) -> Self {
        Self { store, last: Mutex::default() }
    }

    /// Whether a block may be seen, and all that it links to.
    pub(super) fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        let pins = self.store.pins()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.pins != pins {
            // A pin that came only adds to what there is.
            let is_kept = last.pins.iter().all(|old| pins.contains(old));
            let known = if is_kept { std::mem::take(&mut *last) } else { Reached::default() };
            *last = known.extended(&*self.store, pins)?;
        }
        let mut pending = vec![*cid];
        while let Some(cid) = pending.pop() {
            if let Some(block) = Block::from_identity(&cid) {
                // Everybody can make such a CID, with links to whatever they like.
                pending.extend(Scope::All.links(&block).unwrap_or_default());
                continue;
            }
            if !last.has(&cid) && last.unread.contains(&cid) {
                let known = std::mem::take(&mut *last);
                let pins = known.pins.clone();
                *last = known.extended(&*self.store, pins)?;
            }
            if !last.has(&cid) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Reached {
    /// Whether a pin leads to a block. As dag-pb, which has links, it must have been found as such.
    fn has(&self, cid: &Cid) -> bool {
        let is_followed = self.digests.get(cid.hash().digest());
        is_followed.is_some_and(|is_followed| *is_followed || cid.codec() != CODEC_DAG_PB)
    }

    fn extended(mut self, store: &dyn Blockstore, pins: Vec<Pin>) -> Result<Self, StoreError> {
        let mut pending: Vec<Cid> = pins.iter().map(|pin| pin.root).chain(self.unread.drain()).collect();
        while let Some(cid) = pending.pop() {
            if let Some(block) = self.meet(store, &cid)? {
                // What links cannot be read from has nothing below it.
                pending.extend(Scope::All.links(&block).unwrap_or_default());
            }
        }
        self.pins = pins;
        Ok(self)
    }

    /// Notes a block; gives it if its links are to be followed.
    fn meet(&mut self, store: &dyn Blockstore, cid: &Cid) -> Result<Option<Block>, StoreError> {
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(block));
        }
        let is_node = cid.codec() == CODEC_DAG_PB;
        let is_followed = self.digests.entry(cid.hash().digest().into()).or_insert(false);
        if !is_node || *is_followed {
            return Ok(None);
        }
        let block = match store.get(cid) {
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::warn!("what is below it is not served: {error}");
                None
            }
            block => block?,
        };
        if block.is_some() {
            *is_followed = true;
        } else {
            self.unread.insert(*cid);
        }
        Ok(block)
    }
}
