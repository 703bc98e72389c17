//! Making the index say what is in the packs.
//!
//! The packs are what counts. A finished pack that the index lacks is one whose writer was killed before it could tell, or one
//! that was known before a loss of power took the end of the index's log. A pack that the index has and the folder lacks was
//! removed by a collection whose change was lost in the same way. An index that cannot be used is thrown away and made again
//! from all packs. In either case every block is hashed, so what the index says is so.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use super::super::StoreError;
use super::super::key::Key;
use super::super::walk::Reached;
use super::index::{Index, IndexError};
use super::layout::PackId;
use super::pack::{Extent, PackError, PackReader};
use super::{Failure, Inner, StoreEvent, impatience, lock, pins};

/// Packs that are in the index or in the folder, but not in both.
struct Differences {
    /// Only the index has them.
    gone: Vec<PackId>,
    /// Only the folder has them.
    unknown: Vec<PackId>,
}

impl Inner {
    /// Opens the index, and makes it where there is none that can be used. Nobody may collect meanwhile.
    pub(super) fn open_index(&self) -> Result<Index, StoreError> {
        self.open_sound_index()?.map_or_else(|| self.make_index(), Ok)
    }

    /// Opens the index; `None` if there is none that can be used. Waits while somebody makes it.
    pub(super) fn open_sound_index(&self) -> Result<Option<Index>, StoreError> {
        let _lock = lock::shared_moment(&self.layout, "index.lock", &self.options)?;
        match Index::open(&self.index_path()) {
            Ok(index) => Ok(Some(index)),
            Err(IndexError::Unusable(_)) => Ok(None),
            Err(error) => Err(self.index_error(error)),
        }
    }

    /// Makes the index from the packs, unless somebody else has just done so.
    fn make_index(&self) -> Result<Index, StoreError> {
        let _lock = lock::moment(&self.layout, "index.lock", &self.options)?;
        let reason = match Index::open(&self.index_path()) {
            Ok(index) => return Ok(index),
            Err(IndexError::Unusable(reason)) => reason,
            Err(error) => return Err(error.into_store_error(self.index_path())),
        };
        let (packs, _) = self.layout.packs()?;
        if !packs.is_empty() {
            if self.options.is_cancelled() {
                return Err(StoreError::Cancelled);
            }
            (self.options.events)(StoreEvent::MakingIndex { reason, packs: packs.len() });
        }
        let mut index = self.replace_index()?;
        self.adopt(&mut index, &packs, &[]).map_err(|failure| self.store_error(failure))?;
        Ok(index)
    }

    /// Puts an empty index in the place of the one that is there. Those who have that open see that it was replaced.
    fn replace_index(&self) -> Result<Index, StoreError> {
        let root = self.layout.root();
        let failed = || StoreError::io("replace", self.index_path());
        // Without a database its log means nothing; a new one must never be found with the log of an old one.
        match root.replace("index.sqlite", root, "index.sqlite.damaged") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error)),
            _ => {}
        }
        for name in ["index.sqlite-wal", "index.sqlite-shm"] {
            root.remove_file(name).map_err(failed())?;
        }
        // With the mode of the database SQLite makes its other files. Who opens it waits for the lock that we have.
        drop(root.new_private_file("index.sqlite").map_err(failed())?);
        Index::create(&self.index_path()).map_err(|error| self.index_error(error))
    }

    /// Makes the index and the folder agree, if that needs no waiting: who collects sees to it as well.
    pub(super) fn try_reconcile(&self, index: &mut Index) -> Result<(), Failure> {
        if self.differences(index)?.is_none() {
            return Ok(());
        }
        // The index waits for whoever changes it, and nobody can tell it not to.
        if impatience::is_impatient() {
            return Err(StoreError::Cancelled.into());
        }
        match self.holders.try_hold(&self.layout)? {
            Some(_hold) => self.reconcile(index),
            None => Ok(()),
        }
    }

    /// Makes the index and the folder agree. Nobody else may collect meanwhile.
    pub(super) fn reconcile(&self, index: &mut Index) -> Result<(), Failure> {
        let Some(Differences { gone, unknown }) = self.differences(index)? else { return Ok(()) };
        // First what came: a collection that moved blocks from one pack to another did both.
        self.adopt(index, &unknown, &gone)?;
        if !gone.is_empty() {
            let lost = index.change(|change| {
                let lost = change.remove_packs(&gone)?;
                if lost > 0 {
                    change.clear_cache()?;
                }
                Ok(lost)
            })?;
            // A collection that the index forgot has removed what no pin held: nobody has to be told of that.
            if lost > 0 && !self.are_pins_whole(index)? {
                (self.options.events)(StoreEvent::BlocksLost { blocks: lost });
            }
        }
        Ok(())
    }

    /// Whether everything that is pinned is here.
    fn are_pins_whole(&self, index: &mut Index) -> Result<bool, Failure> {
        let Ok(pins) = pins::read(&self.layout) else { return Ok(false) };
        let mut reached = Reached::default();
        for root in pins.values() {
            match self.reach(index, &mut reached, root) {
                Ok(()) => {}
                Err(Failure::Store(_)) => return Ok(false),
                Err(failure) => return Err(failure),
            }
        }
        Ok(true)
    }

    /// Where the index and the folder do not agree; `None` if they do.
    fn differences(&self, index: &Index) -> Result<Option<Differences>, Failure> {
        // In this order: a pack gets its name before it is in the index.
        let known: BTreeSet<_> = index.packs()?.into_iter().map(|(pack, _)| pack).collect();
        let there: BTreeSet<_> = self.layout.packs()?.0.into_iter().collect();
        if known == there {
            return Ok(None);
        }
        let gone = known.difference(&there).copied().collect();
        let unknown = there.difference(&known).copied().collect();
        Ok(Some(Differences { gone, unknown }))
    }

    /// Tells the index of the blocks in these packs, but for those whose writers are about to. Blocks that it has in packs that
    /// are gone are then in these.
    fn adopt(&self, index: &mut Index, packs: &[PackId], gone: &[PackId]) -> Result<(), Failure> {
        for pack in packs {
            self.adopt_pack(index, *pack, gone)?;
        }
        Ok(())
    }

    fn adopt_pack(&self, index: &mut Index, pack: PackId, gone: &[PackId]) -> Result<(), Failure> {
        let path = self.layout.pack_path(pack);
        let mut reader = match PackReader::open_abandoned(&self.layout, pack) {
            Ok(Some(reader)) => reader,
            // What is no file, or has just been removed, has no blocks.
            Ok(None) => return Ok(()),
            Err(PackError::Read(error))
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) =>
            {
                return Ok(());
            }
            Err(PackError::Read(error)) => return Err(StoreError::io("read", path)(error).into()),
            Err(PackError::Car(_)) => return Ok(()),
        };
        let size_bytes = fs::symlink_metadata(&path).map_err(StoreError::io("read", &path))?.len();
        // Some 60 bytes for each block: less than the writer of the pack needed. All go in at once, as a pack that the index
        // has is not looked into again; and only then, as others cannot commit while a change of the index is open.
        let mut blocks: Vec<(Key, Extent)> = Vec::new();
        loop {
            if self.options.is_cancelled() {
                return Err(StoreError::Cancelled.into());
            }
            let section = match reader.next_section() {
                Ok(section) => section,
                Err(PackError::Read(error)) => return Err(StoreError::io("read", path)(error).into()),
                // What comes after the damage cannot be found. `verify` reports it.
                Err(_) => None,
            };
            let Some(section) = section else { break };
            let extent = u32::try_from(section.data.len()).map(|size| Extent { at: section.data_offset, size });
            let key = section.into_block().ok().and_then(|block| Key::new(block.cid()));
            blocks.extend(key.zip(extent.ok()));
        }
        blocks.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let sorted: Vec<_> = blocks.iter().map(|(key, extent)| (key, *extent)).collect();
        Ok(index.change(|change| change.adopt_pack(pack, size_bytes, &sorted, gone))?)
    }
}
