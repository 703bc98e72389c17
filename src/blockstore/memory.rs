//! A store that ends with the process.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::key::Key;
use super::walk::{Graph, Reached, Whole, once_each};
use super::{
    Blockstore, CACHE_BYTES_MAX, CACHE_VALUE_BYTES_MAX, Committed, Finding, GcOptions, GcReport, Hold, Lease, Pin,
    PinName, StoreError, VerifyOptions, VerifyReport, Writer,
};
use crate::dag::{Block, Cid};

/// Keeps blocks in memory. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct MemoryBlockstore {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when `holders` falls.
    changed: Condvar,
    size_bytes_max: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    blocks: HashMap<Key, Kept>,
    next_number: u64,
    pins: BTreeMap<PinName, Cid>,
    cache: Cache,
    /// How many guards live.
    holders: usize,
    /// The roots of the leases that live.
    leases: Vec<Cid>,
}

/// A block as it is kept.
#[derive(Clone, Debug)]
struct Kept {
    number: u64,
    data: Bytes,
}

#[derive(Debug, Default)]
struct Cache {
    values: HashMap<String, (u64, Vec<u8>)>,
    uses: u64,
}

impl Cache {
    fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        self.uses += 1;
        let (used, value) = self.values.get_mut(key)?;
        *used = self.uses;
        Some(value.clone())
    }

    fn put(&mut self, key: &str, value: &[u8]) {
        self.values.remove(key);
        if value.len() > CACHE_VALUE_BYTES_MAX {
            return;
        }
        self.uses += 1;
        self.values.insert(key.to_owned(), (self.uses, value.to_owned()));
        while self.values.values().map(|(_, value)| value.len()).sum::<usize>() > CACHE_BYTES_MAX {
            let oldest = self.values.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.values.remove(&key));
        }
    }
}

impl Graph for State {
    fn number(&mut self, cid: &Cid) -> Result<Option<u64>, StoreError> {
        Ok(self.kept(cid).map(|kept| kept.number))
    }

    fn block(&mut self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        self.kept(cid).map(|kept| block(cid, kept)).transpose()
    }
}

fn block(cid: &Cid, kept: &Kept) -> Result<Block, StoreError> {
    let damaged = |source| StoreError::Damaged { cid: Box::new(*cid), source };
    Block::new(*cid, kept.data.clone()).map_err(|error| damaged(error.into()))
}

impl State {
    fn kept(&self, cid: &Cid) -> Option<&Kept> {
        self.blocks.get(&Key::new(cid)?)
    }

    fn size_bytes(&self) -> u64 {
        self.blocks.values().map(|kept| kept.data.len() as u64).sum()
    }

    fn reached(&mut self) -> Result<Reached, StoreError> {
        let mut reached = Reached::default();
        for (name, root) in self.pins.clone() {
            reached.add(self, &root).map_err(|error| error.of_pin(&name, &root))?;
        }
        for root in self.leases.clone() {
            reached.add_present(self, &root)?;
        }
        Ok(reached)
    }

    fn collect(&mut self, options: GcOptions) -> Result<GcReport, StoreError> {
        let reached = self.reached()?;
        let mut report = GcReport::default();
        for kept in self.blocks.values() {
            let size = kept.data.len() as u64;
            if reached.seen.contains(kept.number) {
                report.kept_blocks += 1;
                report.kept_bytes += size;
            } else {
                report.removed_blocks += 1;
                report.removed_bytes += size;
            }
        }
        report.freed_bytes = report.removed_bytes;
        if !options.dry_run {
            self.blocks.retain(|_, kept| reached.seen.contains(kept.number));
        }
        Ok(report)
    }
}

/// Counts as a holder while it lives.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.lock().holders -= 1;
        self.0.changed.notify_all();
    }
}

/// Ends a lease when it goes.
struct Leased {
    shared: Arc<Shared>,
    root: Cid,
}

impl Drop for Leased {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(place) = state.leases.iter().position(|root| *root == self.root) {
            state.leases.swap_remove(place);
        }
    }
}

impl Shared {
    /// No code panics while it has the lock, so the state is whole even where a thread did.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over_limit(&self, state: &State) -> bool {
        self.size_bytes_max.is_some_and(|max| state.size_bytes() > max)
    }
}

impl MemoryBlockstore {
    /// An empty store without a size limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that is collected when its blocks take more than this many bytes.
    pub fn with_size_limit(size_bytes_max: u64) -> Self {
        Self { shared: Arc::new(Shared { size_bytes_max: Some(size_bytes_max), ..Shared::default() }) }
    }

    fn guard(&self) -> Guard {
        self.shared.lock().holders += 1;
        Guard(self.shared.clone())
    }

    /// Has a block other bytes than its name says, as only a disk can.
    #[cfg(test)]
    pub(crate) fn damage(&self, cid: &Cid, data: &'static [u8]) {
        let mut state = self.shared.lock();
        let kept = Key::new(cid).and_then(|key| state.blocks.get_mut(&key));
        kept.expect("a block that is there").data = Bytes::from_static(data);
    }
}

impl Blockstore for MemoryBlockstore {
    fn get(&self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        let identity = Block::from_identity(cid).map(Ok);
        identity.or_else(|| self.shared.lock().kept(cid).map(|kept| block(cid, kept))).transpose()
    }

    fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        Ok(Block::from_identity(cid).is_some() || self.shared.lock().kept(cid).is_some())
    }

    fn writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        Ok(Box::new(MemoryWriter { guard: self.guard(), added: HashMap::new() }))
    }

    fn hold(&self) -> Result<Hold, StoreError> {
        Ok(Hold { _guard: Box::new(self.guard()) })
    }

    fn lease(&self, root: &Cid) -> Result<Lease, StoreError> {
        self.shared.lock().leases.push(*root);
        Ok(Lease { _guard: Box::new(Leased { shared: self.shared.clone(), root: *root }) })
    }

    fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        let state = self.shared.lock();
        Ok(state.pins.iter().map(|(name, root)| Pin { name: name.clone(), root: *root }).collect())
    }

    fn set_pin(&self, name: &PinName, root: &Cid) -> Result<(), StoreError> {
        self.writer()?.commit(&[(name.clone(), *root)])?;
        Ok(())
    }

    fn check_complete(&self, root: &Cid) -> Result<(), StoreError> {
        Reached::default().add(&mut *self.shared.lock(), root)
    }

    fn incomplete(&self, roots: &[Cid]) -> Result<Vec<(Cid, StoreError)>, StoreError> {
        let mut state = self.shared.lock();
        let mut whole = Whole::default();
        Ok(once_each(roots).filter_map(|root| Some((root, whole.add(&mut *state, &root).err()?))).collect())
    }

    fn remove_pins(&self, names: &[PinName]) -> Result<Vec<Pin>, StoreError> {
        let mut state = self.shared.lock();
        let pin = |name: &PinName| Some(Pin { name: name.clone(), root: state.pins.remove(name)? });
        Ok(names.iter().filter_map(pin).collect())
    }

    fn gc(&self, options: GcOptions) -> Result<GcReport, StoreError> {
        let state = self.shared.lock();
        let nobody_holds = self.shared.changed.wait_while(state, |state| state.holders > 0);
        nobody_holds.unwrap_or_else(PoisonError::into_inner).collect(options)
    }

    fn trim(&self) -> Option<GcReport> {
        let mut state = self.shared.lock();
        if state.holders > 0 || !self.shared.is_over_limit(&state) {
            return None;
        }
        // There is nobody to be told why not.
        state.collect(GcOptions::default()).ok()
    }

    fn verify(&self, options: VerifyOptions, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport, StoreError> {
        let mut state = self.shared.lock();
        let mut report = VerifyReport { repaired: options.repair, ..VerifyReport::default() };
        let mut damaged = Vec::new();
        for (key, kept) in &state.blocks {
            let cid = key.to_node_cid();
            report.blocks += 1;
            report.bytes += kept.data.len() as u64;
            progress(kept.data.len() as u64);
            if block(&cid, kept).is_err() {
                damaged.push(key.clone());
                report.findings.push(Finding::DamagedBlock { cid: Box::new(cid), pack: "memory".to_owned() });
            }
        }
        if options.repair && !damaged.is_empty() {
            state.cache = Cache::default();
            damaged.iter().for_each(|key| drop(state.blocks.remove(key)));
        }
        for (name, root) in state.pins.clone() {
            report.pins += 1;
            if let Err(reason) = Reached::default().add(&mut *state, &root) {
                report.findings.push(Finding::BrokenPin { pin: Pin { name, root }, reason });
            }
        }
        Ok(report)
    }

    fn cache_get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.shared.lock().cache.get(key))
    }

    fn cache_put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.shared.lock().cache.put(key, value);
        Ok(())
    }
}

/// What is put appears in the store at the commit.
struct MemoryWriter {
    guard: Guard,
    added: HashMap<Key, Bytes>,
}

impl Writer for MemoryWriter {
    fn put(&mut self, block: &Block) -> Result<bool, StoreError> {
        if self.has(block.cid())? {
            return Ok(false);
        }
        let key = Key::new(block.cid()).ok_or_else(|| StoreError::unsupported_hash(block.cid()))?;
        self.added.insert(key, block.data().clone());
        Ok(true)
    }

    fn has(&mut self, cid: &Cid) -> Result<bool, StoreError> {
        let is_added = Key::new(cid).is_some_and(|key| self.added.contains_key(&key));
        Ok(is_added || Block::from_identity(cid).is_some() || self.guard.0.lock().kept(cid).is_some())
    }

    fn get(&mut self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        if let Some(data) = Key::new(cid).and_then(|key| self.added.get(&key)) {
            return block(cid, &Kept { number: 0, data: data.clone() }).map(Some);
        }
        MemoryBlockstore { shared: self.guard.0.clone() }.get(cid)
    }

    fn commit(self: Box<Self>, pins: &[(PinName, Cid)]) -> Result<Committed, StoreError> {
        let Self { guard, added } = *self;
        let mut committed = Committed::default();
        let mut new = Vec::new();
        let mut state = guard.0.lock();
        for (key, data) in added {
            let number = state.next_number;
            if let Entry::Vacant(vacant) = state.blocks.entry(key) {
                committed.blocks += 1;
                committed.bytes += data.len() as u64;
                new.push(vacant.key().clone());
                vacant.insert(Kept { number, data });
                state.next_number += 1;
            }
        }
        let complete = pins.iter().try_for_each(|(_, root)| Reached::default().add(&mut *state, root));
        if let Err(error) = complete {
            new.iter().for_each(|key| drop(state.blocks.remove(key)));
            return Err(error);
        }
        state.pins.extend(pins.iter().cloned());
        drop(state);
        let store = MemoryBlockstore { shared: guard.0.clone() };
        drop(guard);
        committed.collected = store.trim();
        Ok(committed)
    }
}
