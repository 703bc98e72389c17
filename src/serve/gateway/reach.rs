//! Which blocks may be seen: those that a pin reaches.

use std::collections::HashMap;
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
    /// linked to as raw and as dag-pb.
    digests: HashMap<Box<[u8]>, bool>,
}

impl Reach {
    pub(super) fn new(store: Arc<dyn Blockstore>) -> Self {
        Self { store, last: Mutex::default() }
    }

    /// Whether a block may be seen.
    pub(super) fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        let pins = self.store.pins()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.pins != pins {
            // A pin that came only adds to what there is.
            let is_kept = last.pins.iter().all(|old| pins.contains(old));
            let known = if is_kept { std::mem::take(&mut *last) } else { Reached::default() };
            *last = known.extended(&*self.store, pins)?;
        }
        Ok(last.digests.contains_key(cid.hash().digest()))
    }
}

impl Reached {
    fn extended(mut self, store: &dyn Blockstore, pins: Vec<Pin>) -> Result<Self, StoreError> {
        let mut pending: Vec<Cid> = pins.iter().map(|pin| pin.root).collect();
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
        let was_followed = self.digests.entry(cid.hash().digest().into()).or_insert(false);
        if !is_node || std::mem::replace(was_followed, true) {
            return Ok(None);
        }
        match store.get(cid) {
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::warn!("what is below it is not served: {error}");
                Ok(None)
            }
            block => block,
        }
    }
}
