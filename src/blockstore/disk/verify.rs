//! Checking everything, and mending what can be.

use std::collections::{BTreeMap, HashSet};

use super::super::key::Key;
use super::super::walk::Reached;
use super::super::{Finding, Pin, StoreError, VerifyOptions, VerifyReport};
use super::index::{Index, Location};
use super::layout::PackId;
use super::pack::{PackError, PackReader, PackWriter};
use super::{Failure, Inner, lock, pins};
use crate::dag::block::CODEC_RAW;
use crate::dag::{Block, Cid};

/// Where packs go that are not good to their end. Nobody but a person removes them.
const DAMAGED_FOLDER: &str = "damaged";

impl Inner {
    pub(super) fn verify(
        &self,
        options: VerifyOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<VerifyReport, StoreError> {
        if !options.repair {
            let _hold = self.holders.hold(&self.layout, &self.options)?;
            return self.with_own_index(|index| {
                index.check()?;
                let mut report = self.check_blocks(index, progress)?.0;
                self.check_pins(index, &mut report)?;
                Ok(report)
            });
        }
        let _exclusive = lock::exclude(&self.layout, &self.options)?;
        let mut report = self.with_own_index(|index| {
            self.reconcile(index)?;
            index.check()?;
            let (mut report, damaged) = self.check_blocks(index, progress)?;
            for pack in damaged {
                self.replace_pack(index, pack)?;
            }
            report.repaired = true;
            Ok(report)
        })?;
        if !report.findings.is_empty() {
            // What is left is whole, so an index made of it is right. What was kept of work done before rests on what may be
            // lost now, and goes with the old one.
            self.discard_index(self.open_index()?)?;
        }
        self.with_own_index(|index| self.check_pins(index, &mut report))?;
        Ok(report)
    }

    /// Reads all packs. Gives those that are not good to their end, too.
    fn check_blocks(
        &self,
        index: &mut Index,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(VerifyReport, Vec<PackId>), Failure> {
        let mut report = VerifyReport::default();
        let mut indexed = BTreeMap::<PackId, u64>::new();
        index.for_each_block(|_, location| *indexed.entry(location.pack).or_default() += 1)?;
        for (pack, _) in index.packs()? {
            indexed.entry(pack).or_default();
        }
        let mut damaged = Vec::new();
        for (pack, blocks) in indexed {
            let findings = report.findings.len();
            let found = self.check_pack(index, pack, &mut report, progress)?;
            if report.findings.len() > findings {
                damaged.push(pack);
            }
            // The pack may be as it was written, and the index wrong.
            if found < blocks {
                report.findings.push(Finding::LostBlocks { pack: pack.to_string(), blocks: blocks - found });
            }
        }
        Ok((report, damaged))
    }

    /// Reads a pack. Gives how many blocks are where the index has them.
    fn check_pack(
        &self,
        index: &mut Index,
        pack: PackId,
        report: &mut VerifyReport,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, Failure> {
        let mut found = 0;
        let mut check = || -> Result<(), PackOrFailure> {
            let mut reader = PackReader::open(&self.layout, pack)?;
            let mut told = 0;
            while let Some(section) = reader.next_section()? {
                if self.options.is_cancelled() {
                    return Err(PackOrFailure::Failure(StoreError::Cancelled.into()));
                }
                progress(reader.read_bytes - std::mem::replace(&mut told, reader.read_bytes));
                let (cid, at, size) = (section.cid, section.data_offset, section.data.len());
                report.blocks += 1;
                report.bytes += size as u64;
                if section.into_block().is_err() {
                    report.findings.push(Finding::DamagedBlock { cid: Box::new(cid), pack: pack.to_string() });
                    continue;
                }
                let Some(key) = Key::new(&cid) else { continue };
                let location = index.find_in_snapshot(&key).map_err(|error| PackOrFailure::Failure(error.into()))?;
                let is_here = |location: Location| {
                    location.pack == pack && location.extent.at == at && location.extent.size as usize == size
                };
                found += u64::from(location.is_some_and(is_here));
            }
            Ok(())
        };
        match check() {
            Ok(()) => {}
            Err(PackOrFailure::Failure(failure)) => return Err(failure),
            Err(PackOrFailure::Pack(error)) => {
                report.findings.push(Finding::DamagedPack { pack: pack.to_string(), reason: error.to_string() });
            }
        }
        Ok(found)
    }

    /// Follows all pins.
    fn check_pins(&self, index: &mut Index, report: &mut VerifyReport) -> Result<(), Failure> {
        for (name, root) in pins::read(&self.layout)? {
            report.pins += 1;
            match self.reach(index, &mut Reached::default(), &root) {
                Ok(()) => {}
                Err(Failure::Store(reason)) => {
                    report.findings.push(Finding::BrokenPin { pin: Pin { name, root }, reason });
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Copies what is good in a pack to a new one, and moves the pack away.
    fn replace_pack(&self, index: &mut Index, pack: PackId) -> Result<(), Failure> {
        let mut beyond = Vec::new();
        index.for_each_block(|hash, location| {
            if location.pack == pack {
                beyond.push((hash.to_vec(), location.extent));
            }
        })?;
        beyond.sort_unstable_by_key(|(_, extent)| extent.at);
        let mut copied = HashSet::new();
        let mut writer = None;
        let mut copy = |key: Key, block: &Block| -> Result<(), StoreError> {
            if copied.insert(key) {
                let writer = match &mut writer {
                    Some(writer) => writer,
                    None => writer.insert(PackWriter::create(&self.layout)?),
                };
                writer.append(block.cid(), block.data())?;
            }
            Ok(())
        };
        // What can be read from the start on, whatever the index says of it.
        if let Ok(mut reader) = PackReader::open(&self.layout, pack) {
            while let Ok(Some(section)) = reader.next_section() {
                if self.options.is_cancelled() {
                    return Err(StoreError::Cancelled.into());
                }
                let Ok(block) = section.into_block() else { continue };
                if let Some(key) = Key::new(block.cid()) {
                    copy(key, &block)?;
                }
            }
        }
        // Only the index knows where blocks begin after damage to a head.
        for (hash, extent) in beyond {
            let Some((key, cid)) = Key::of_digest(&hash).zip(raw_cid(&hash)) else { continue };
            let Ok(block) = self.open_packs.read(&self.layout, pack, extent, &cid) else { continue };
            copy(key, &block)?;
        }
        if let Some(mut writer) = writer {
            writer.sync()?;
            writer.rename()?;
            writer.keep();
            self.sync_packs()?;
        }
        let (name, path) = (pack.file_name(), self.layout.pack_path(pack));
        let damaged = self.layout.root().private_folder_or_new(DAMAGED_FOLDER);
        let moved = damaged.and_then(|damaged| self.layout.packs.replace(&name, &damaged, &name));
        self.open_packs.close();
        match moved {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io("move", path)(error).into())
            }
            _ => Ok(()),
        }
    }
}

/// A CID of a block of which only the digest is known.
fn raw_cid(hash: &[u8]) -> Option<Cid> {
    Some(Cid::new_v1(CODEC_RAW, *Key::of_digest(hash)?.to_node_cid().hash()))
}

enum PackOrFailure {
    Pack(PackError),
    Failure(Failure),
}

impl From<PackError> for PackOrFailure {
    fn from(error: PackError) -> Self {
        Self::Pack(error)
    }
}
