//! Removing what no pin holds.

use std::collections::BTreeMap;
use std::fs::TryLockError;

use super::super::key::Key;
use super::super::walk::{Graph, Numbers, Reached, Whole, once_each};
use super::super::{GcOptions, GcReport, StoreError};
use super::index::{Index, IndexError, Location};
use super::layout::PackId;
use super::pack::{Extent, PackError, PackReader, PackWriter};
use super::{Failure, Inner, StoreEvent, lock, pins};
use crate::dag::{Block, Cid};

/// Packs shorter than this are small, in bytes.
const SMALL_PACK_BYTES: u64 = 4 << 20;

/// What a pack has beside the data of a block, in bytes: a length and a CID. Somewhat less or more for some.
const SECTION_HEAD_BYTES: u64 = 38;

/// When there are as many small packs, they are joined to one.
const SMALL_PACKS_MAX: usize = 32;

/// After a collection the store is collected for its size again when it has grown by this part of what stayed: a store whose
/// pins alone are over the limit would else be walked through at each commit.
const REGROWTH: u64 = 8;

/// The key of what is remembered of the last collection for size.
const TRIMMED_KEY: &str = "\0trimmed-bytes";

/// What is in a pack, in bytes and blocks.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    size_bytes: u64,
    kept_blocks: u64,
    kept_bytes: u64,
}

/// What a collection is to do.
#[derive(Debug, Default)]
struct Plan {
    report: GcReport,
    /// Packs of which nothing stays.
    removed: Vec<PackId>,
    /// Packs whose blocks that stay go to another one, with their numbers.
    rewritten: BTreeMap<PackId, u64>,
}

impl Inner {
    pub(super) fn collect(&self, options: GcOptions) -> Result<GcReport, StoreError> {
        if options.dry_run {
            let _hold = self.holders.hold(&self.layout, &self.options)?;
            return self.with_own_index(|index| Ok(self.plan(index, false)?.1.report));
        }
        let _exclusive = lock::exclude(&self.layout, &self.options)?;
        self.collect_alone()
    }

    /// Collects for the size limit. Where that fails, what was asked for is done all the same.
    pub(super) fn trim(&self) -> Option<GcReport> {
        self.try_trim().unwrap_or_else(|error| {
            let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| (**error).source());
            let reason = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
            (self.options.events)(StoreEvent::NotTrimmed { reason });
            None
        })
    }

    /// Its size in bytes, if it has a size limit and is over it.
    pub(super) fn size_over_limit(&self) -> Result<Option<u64>, StoreError> {
        let Some(max) = self.options.size_bytes_max else { return Ok(None) };
        let size_bytes = self.with_index(|index| index.size_bytes())?;
        Ok(Some(size_bytes).filter(|size_bytes| *size_bytes > max))
    }

    fn try_trim(&self) -> Result<Option<GcReport>, StoreError> {
        let Some(size_bytes) = self.size_over_limit()? else { return Ok(None) };
        let trimmed = self.with_index(|index| index.cache_get(TRIMMED_KEY))?;
        let trimmed = trimmed.and_then(|value| value.try_into().ok()).map_or(0, u64::from_le_bytes);
        if size_bytes <= trimmed.saturating_add(trimmed / REGROWTH) {
            return Ok(None);
        }
        let Some(exclusive) = lock::try_exclude(&self.layout)? else { return Ok(None) };
        let report = self.collect_alone()?;
        drop(exclusive);
        self.with_index(|index| {
            let size_bytes = index.size_bytes()?;
            index.cache_put(TRIMMED_KEY, &size_bytes.to_le_bytes())
        })?;
        Ok(Some(report))
    }

    /// Collects. The caller has the lock alone.
    fn collect_alone(&self) -> Result<GcReport, StoreError> {
        let leftovers = self.remove_leftovers()?;
        self.with_own_index(|index| {
            self.reconcile(index)?;
            let (reached, plan) = self.plan(index, true)?;
            let size_bytes_before = index.size_bytes()?;
            self.carry_out(index, &reached, &plan)?;
            let freed_bytes = size_bytes_before.saturating_sub(index.size_bytes()?);
            Ok(GcReport { leftovers, freed_bytes, ..plan.report })
        })
    }

    /// As [`Inner::with_index`], for those who hold a lock with which they cannot wait for another.
    pub(super) fn with_own_index<T>(
        &self,
        mut action: impl FnMut(&mut Index) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let mut index = self.open_index()?;
        let result = match action(&mut index) {
            Err(Failure::Index(IndexError::Unusable(_))) => {
                self.discard_index(index)?;
                action(&mut self.open_index()?)
            }
            result => result,
        };
        result.map_err(|failure| self.store_error(failure))
    }

    /// As [`Inner::remove_leftovers`], if nobody writes.
    pub(super) fn try_remove_leftovers(&self) -> Result<(), StoreError> {
        if self.layout.packs()?.1.is_empty() {
            return Ok(());
        }
        if let Some(_exclusive) = lock::try_exclude(&self.layout)? {
            self.remove_leftovers()?;
        }
        Ok(())
    }

    /// Removes the packs of killed writers, and gives how many there were.
    fn remove_leftovers(&self) -> Result<u64, StoreError> {
        let mut leftovers = 0;
        for pack in self.layout.packs()?.1 {
            let (name, path) = (pack.part_name(), self.layout.packs_path(&pack.part_name()));
            // The lock of the store says it already; this is for a file system on which locks do not reach far.
            let Ok(file) = self.layout.packs.file(&name) else { continue };
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", path)(error)),
                Ok(()) => {}
            }
            self.layout.packs.remove_file(&name).map_err(StoreError::io("remove", path))?;
            leftovers += 1;
        }
        Ok(leftovers)
    }

    /// What can be reached from the pins, and what is here of what can be reached from leases, and what to do about the rest.
    fn plan(&self, index: &mut Index, is_alone: bool) -> Result<(Numbers, Plan), Failure> {
        // What is removed, is removed because the index says that it is of no use.
        index.check()?;
        let mut reached = Reached::default();
        for (name, root) in pins::read(&self.layout)? {
            self.reach(index, &mut reached, &root).map_err(|failure| match failure {
                Failure::Store(error) => error.of_pin(&name, &root).into(),
                failure => failure,
            })?;
        }
        for root in self.leased(is_alone)? {
            self.with_graph(index, |graph| reached.add_present(graph, &root))?;
        }
        let reached = reached.seen;
        let packs = index.packs()?.into_iter();
        let mut packs: BTreeMap<_, _> =
            packs.map(|(pack, size_bytes)| (pack, Usage { size_bytes, ..Usage::default() })).collect();
        let mut report = GcReport::default();
        index.for_each_block(|_, Location { number, pack, extent }| {
            let bytes = u64::from(extent.size);
            if reached.contains(number) {
                let usage = packs.entry(pack).or_default();
                usage.kept_blocks += 1;
                usage.kept_bytes += bytes;
                report.kept_blocks += 1;
                report.kept_bytes += bytes;
            } else {
                report.removed_blocks += 1;
                report.removed_bytes += bytes;
            }
        })?;
        let mut plan = Plan { report, ..Plan::default() };
        plan.choose(&packs);
        Ok((reached, plan))
    }

    /// Adds what can be reached from a root.
    pub(super) fn reach(&self, index: &mut Index, reached: &mut Reached, root: &Cid) -> Result<(), Failure> {
        self.with_graph(index, |graph| reached.add(graph, root))
    }

    fn with_graph(
        &self,
        index: &mut Index,
        walk: impl FnOnce(&mut dyn Graph) -> Result<(), StoreError>,
    ) -> Result<(), Failure> {
        let mut graph = Indexed { inner: self, index, failure: None };
        let result = walk(&mut graph);
        let Indexed { index, failure, .. } = graph;
        index.end_snapshot()?;
        match failure {
            Some(failure) => Err(failure.into()),
            None => Ok(result?),
        }
    }

    /// Those of some roots that are not whole, with the reasons.
    pub(super) fn incomplete(&self, index: &mut Index, roots: &[Cid]) -> Result<Vec<(Cid, StoreError)>, Failure> {
        let mut whole = Whole::default();
        let mut found = Vec::new();
        for root in once_each(roots) {
            if self.options.is_cancelled() {
                return Err(StoreError::Cancelled.into());
            }
            let mut graph = Indexed { inner: self, index, failure: None };
            let result = whole.add(&mut graph, &root);
            let failure = graph.failure;
            index.end_snapshot()?;
            match (failure, result) {
                (Some(failure), _) => return Err(failure.into()),
                (None, Ok(())) => {}
                (None, Err(error @ StoreError::Cancelled)) => return Err(error.into()),
                (None, Err(error)) => found.push((root, error)),
            }
        }
        Ok(found)
    }

    fn carry_out(&self, index: &mut Index, reached: &Numbers, plan: &Plan) -> Result<(), Failure> {
        match self.rewrite(index, reached, plan) {
            // There is no room to copy to, or for the index to tell of it. What needs no copying makes some.
            Err(failure) if failure.is_full_disk() && !plan.removed.is_empty() => {
                self.remove_files(&plan.removed)?;
                self.rewrite(index, reached, plan)?;
            }
            result => result?,
        }
        Ok(())
    }

    /// Copies what stays of some packs to a new one, tells the index, and removes the packs of which nothing stays here.
    fn rewrite(&self, index: &mut Index, reached: &Numbers, plan: &Plan) -> Result<(), Failure> {
        let mut moved = Vec::new();
        let mut pack = None;
        for (old, kept_blocks) in &plan.rewritten {
            self.copy(index, *old, *kept_blocks, reached, &mut pack, &mut moved)?;
        }
        if let Some(pack) = &mut pack {
            pack.sync()?;
            pack.rename()?;
            self.sync_packs()?;
        }
        let gone: Vec<_> = plan.removed.iter().chain(plan.rewritten.keys()).copied().collect();
        if !gone.is_empty() || plan.report.removed_blocks > 0 {
            moved.sort_unstable_by(|(one, _): &(Key, Extent), (other, _)| one.cmp(other));
            let sorted: Vec<_> = moved.iter().map(|(key, extent)| (key, *extent)).collect();
            index.change(|change| {
                change.retain_blocks(|number| reached.contains(number))?;
                if let Some(pack) = &pack {
                    change.move_blocks(pack.id, pack.len(), &sorted)?;
                }
                change.remove_packs(&gone)?;
                Ok(())
            })?;
        }
        if let Some(pack) = pack {
            pack.keep();
        }
        self.remove_files(&gone)?;
        Ok(())
    }

    fn remove_files(&self, packs: &[PackId]) -> Result<(), StoreError> {
        for pack in packs {
            let path = self.layout.pack_path(*pack);
            self.layout.packs.remove_file(&pack.file_name()).map_err(StoreError::io("remove", path))?;
        }
        // As long as they are open their bytes stay on disk.
        self.open_packs.close();
        Ok(())
    }

    /// Copies the blocks of a pack that stay to the end of another one.
    fn copy(
        &self,
        index: &Index,
        old: PackId,
        kept_blocks: u64,
        reached: &Numbers,
        pack: &mut Option<PackWriter>,
        moved: &mut Vec<(Key, Extent)>,
    ) -> Result<(), Failure> {
        let damaged_pack = |reason| StoreError::DamagedPack { pack: self.layout.pack_path(old), reason };
        let unreadable = |error: PackError| damaged_pack(error.to_string());
        let moved_before = moved.len();
        let mut reader = PackReader::open(&self.layout, old).map_err(unreadable)?;
        while let Some(section) = reader.next_section().map_err(unreadable)? {
            if self.options.is_cancelled() {
                return Err(StoreError::Cancelled.into());
            }
            let Some(key) = Key::new(&section.cid) else { continue };
            let is_here = |location: &Location| location.pack == old && location.extent.at == section.data_offset;
            match index.find(&key)?.filter(is_here) {
                Some(location) if reached.contains(location.number) => {}
                _ => continue,
            }
            let cid = section.cid;
            let damaged = |source| StoreError::Damaged { cid: Box::new(cid), source };
            let block = section.into_block().map_err(|error| damaged(error.into()))?;
            let pack = match pack {
                Some(pack) => pack,
                None => pack.insert(PackWriter::create(&self.layout)?),
            };
            moved.push((key, pack.append(block.cid(), block.data())?));
        }
        if (moved.len() - moved_before) as u64 == kept_blocks {
            return Ok(());
        }
        Err(damaged_pack("blocks that are to stay are not where the index has them".to_owned()).into())
    }
}

impl Plan {
    /// Decides what happens to each pack.
    fn choose(&mut self, packs: &BTreeMap<PackId, Usage>) {
        let is_small = |usage: &Usage| usage.kept_blocks > 0 && usage.size_bytes < SMALL_PACK_BYTES;
        let are_joined = packs.values().filter(|usage| is_small(usage)).count() >= SMALL_PACKS_MAX;
        for (pack, usage) in packs {
            if usage.kept_blocks == 0 {
                self.removed.push(*pack);
                self.report.freed_bytes += usage.size_bytes;
            } else if usage.kept_bytes + usage.kept_blocks * SECTION_HEAD_BYTES <= usage.size_bytes / 2
                || (are_joined && is_small(usage))
            {
                self.rewritten.insert(*pack, usage.kept_blocks);
                // About: what is kept takes somewhat more.
                self.report.freed_bytes += usage.size_bytes.saturating_sub(usage.kept_bytes);
            }
        }
    }
}

/// The blocks of the store, as the index has them.
struct Indexed<'a> {
    inner: &'a Inner,
    index: &'a mut Index,
    /// Why the index could not be asked.
    failure: Option<IndexError>,
}

impl Indexed<'_> {
    fn find(&mut self, cid: &Cid) -> Result<Option<Location>, StoreError> {
        let Some(key) = Key::new(cid) else { return Ok(None) };
        self.index.find_in_snapshot(&key).map_err(|failure| {
            self.failure = Some(failure);
            StoreError::Cancelled
        })
    }
}

impl Graph for Indexed<'_> {
    fn number(&mut self, cid: &Cid) -> Result<Option<u64>, StoreError> {
        Ok(self.find(cid)?.map(|location| location.number))
    }

    fn block(&mut self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        if self.inner.options.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let Some(Location { pack, extent, .. }) = self.find(cid)? else { return Ok(None) };
        let damaged = |source| StoreError::Damaged { cid: Box::new(*cid), source };
        self.inner.open_packs.read(&self.inner.layout, pack, extent, cid).map(Some).map_err(damaged)
    }
}
