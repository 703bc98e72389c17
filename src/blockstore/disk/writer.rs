//! Adding blocks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::key::Key;
use super::super::walk::{Graph, Reached};
use super::super::{Committed, DamageError, PinName, StoreError, Writer};
use super::index::{Index, IndexError, Location};
use super::pack::{Extent, PackWriter};
use super::pins::{NextPins, PinsChange};
use super::{Inner, lock};
use crate::dag::{Block, Cid};

/// Adds blocks to a pack of its own. It remembers where they are, with some 100 bytes for each.
pub(super) struct DiskWriter {
    inner: Arc<Inner>,
    index: Option<Index>,
    pack: Option<PackWriter>,
    added: HashMap<Key, Added>,
    _hold: Arc<lock::Shared>,
}

/// A block in the writer's own pack.
#[derive(Clone, Copy, Debug)]
struct Added {
    extent: Extent,
    /// Numbers of such blocks come from above, those of the index from below.
    number: u64,
}

impl DiskWriter {
    pub(super) fn begin(inner: &Arc<Inner>) -> Result<Self, StoreError> {
        let hold = inner.holders.hold(&inner.layout, &inner.options)?;
        let index = inner.take_held_index()?;
        Ok(Self { inner: inner.clone(), index: Some(index), pack: None, added: HashMap::new(), _hold: hold })
    }

    /// Does something with the index, as [`Inner::with_index`].
    fn with_index<T>(&mut self, mut action: impl FnMut(&mut Index) -> Result<T, IndexError>) -> Result<T, StoreError> {
        let mut index = match self.index.take() {
            Some(index) => index,
            None => self.inner.open_index()?,
        };
        let result = match action(&mut index) {
            Err(IndexError::Unusable(_)) => {
                self.inner.discard_index(index)?;
                index = self.inner.open_index()?;
                action(&mut index)
            }
            result => result,
        };
        if result.is_ok() {
            self.index = Some(index);
        }
        result.map_err(|error| self.inner.index_error(error))
    }

    fn find(&mut self, key: &Key) -> Result<Option<Location>, StoreError> {
        self.with_index(|index| index.find_in_snapshot(key))
    }

    fn read_added(&mut self, cid: &Cid, added: Added) -> Result<Block, StoreError> {
        let pack = self.pack.as_mut().expect("a block was added to it");
        let data = pack.read(added.extent)?;
        let damaged = |source| StoreError::Damaged { cid: Box::new(*cid), source: DamageError::Block(source) };
        Block::new(*cid, data.into()).map_err(damaged)
    }

    /// Checks that what is to be pinned is all here, and gives the pins to be written, if they are others than before.
    fn next_pins<'a>(
        &mut self,
        inner: &'a Inner,
        pins: &[(PinName, Cid)],
    ) -> Result<Option<PinsChange<'a>>, StoreError> {
        let mut change = PinsChange::begin(&inner.layout, &inner.options)?;
        let new: Vec<_> = pins.iter().filter(|(name, root)| change.pins.get(name) != Some(root)).collect();
        if new.is_empty() {
            return Ok(None);
        }
        // What others have committed since the first lookup counts.
        self.with_index(Index::end_snapshot)?;
        let mut reached = Reached::default();
        for (name, root) in new {
            reached.add(self, root)?;
            change.pins.insert(name.clone(), *root);
        }
        Ok(Some(change))
    }

    /// Makes the pack part of the store.
    fn commit_blocks(
        &mut self,
        mut pack: PackWriter,
        next_pins: Option<NextPins<'_>>,
    ) -> Result<Committed, StoreError> {
        let added = std::mem::take(&mut self.added);
        let mut blocks: Vec<_> = added.iter().map(|(key, added)| (key, added.extent)).collect();
        blocks.sort_unstable_by_key(|(key, _)| *key);
        pack.rename()?;
        let (id, size_bytes) = (pack.id, pack.len());
        let is_first = self.inner.is_first_commit.swap(false, Ordering::Relaxed);
        let (blocks, bytes) = self.with_index(|index| {
            index.set_keeps_log(is_first);
            let added = index.change(|change| change.add_pack(id, size_bytes, &blocks));
            index.set_keeps_log(false);
            let added = added?;
            // Another process may have thrown the index away, and passed over this pack, which is locked.
            if index.is_current() { Ok(added) } else { Err(IndexError::Unusable("it was replaced".to_owned())) }
        })?;
        let renamed = next_pins.map_or(Ok(()), NextPins::rename);
        if let Err(error) = renamed {
            self.with_index(|index| index.change(|change| change.remove_packs(&[id])))?;
            return Err(error);
        }
        pack.keep();
        self.inner.sync_packs()?;
        Ok(Committed { blocks, bytes, collected: None })
    }
}

impl Graph for DiskWriter {
    fn number(&mut self, cid: &Cid) -> Result<Option<u64>, StoreError> {
        let Some(key) = Key::new(cid) else { return Ok(None) };
        match self.added.get(&key) {
            Some(added) => Ok(Some(added.number)),
            None => Ok(self.find(&key)?.map(|location| location.number)),
        }
    }

    fn block(&mut self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        Writer::get(self, cid)
    }
}

impl Writer for DiskWriter {
    fn put(&mut self, block: &Block) -> Result<bool, StoreError> {
        if Block::from_identity(block.cid()).is_some() {
            return Ok(false);
        }
        let key = Key::new(block.cid()).ok_or_else(|| StoreError::unsupported_hash(block.cid()))?;
        if self.added.contains_key(&key) || self.find(&key)?.is_some() {
            return Ok(false);
        }
        let pack = match &mut self.pack {
            Some(pack) => pack,
            None => self.pack.insert(PackWriter::create(&self.inner.layout)?),
        };
        let extent = pack.append(block.cid(), block.data())?;
        let number = u64::MAX - self.added.len() as u64;
        self.added.insert(key, Added { extent, number });
        Ok(true)
    }

    fn has(&mut self, cid: &Cid) -> Result<bool, StoreError> {
        Ok(Block::from_identity(cid).is_some() || self.number(cid)?.is_some())
    }

    fn get(&mut self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(block));
        }
        let Some(key) = Key::new(cid) else { return Ok(None) };
        match self.added.get(&key).copied() {
            Some(added) => self.read_added(cid, added).map(Some),
            None => self.inner.read(&key, cid, &[]),
        }
    }

    fn commit(mut self: Box<Self>, pins: &[(PinName, Cid)]) -> Result<Committed, StoreError> {
        let inner = self.inner.clone();
        let next_pins = match pins {
            [] => None,
            pins => self.next_pins(&inner, pins)?,
        };
        let pack = self.pack.take();
        let pack = pack.map(|mut pack| pack.sync().map(|()| pack)).transpose()?;
        let next_pins = next_pins.map(PinsChange::write).transpose()?;
        let mut committed = match (pack, next_pins) {
            (Some(pack), next_pins) => self.commit_blocks(pack, next_pins)?,
            (None, Some(next_pins)) => {
                next_pins.rename()?;
                inner.sync_packs()?;
                Committed::default()
            }
            (None, None) => Committed::default(),
        };
        drop(self);
        committed.collected = inner.trim();
        Ok(committed)
    }
}

impl Drop for DiskWriter {
    fn drop(&mut self) {
        if let Some(mut index) = self.index.take()
            && index.end_snapshot().is_ok()
        {
            self.inner.put_back(index);
        }
        // The pack goes before the hold, while nobody else can take it for a leftover.
        drop(self.pack.take());
    }
}
