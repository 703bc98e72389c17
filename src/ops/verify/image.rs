//! Whether an image on disk is the one that the lock has.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::{Finding, FindingKind, program};
use crate::build::ledger::Memory;
use crate::dag::Cid;
use crate::escape;
use crate::folder::Folder;
use crate::ops::listing::{ListedKind, Listing};
use crate::ops::lock::NOT_REPRODUCIBLE;
use crate::wasm_binary;
use crate::wetfile::lock::{Digest, ImageLock, LOCK_FILE_NAME, Lock, LockedFile, Toolchain};
use crate::wetfile::{GuestName, Project};

/// Reads a file of the tree at `root` whole, following no symlink.
pub(in crate::ops) fn read_file(root: &Path, path: &str) -> io::Result<Vec<u8>> {
    let mut folder = Folder::open(root)?;
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    for component in folders.split('/').filter(|component| !component.is_empty()) {
        folder = folder.folder(component)?;
    }
    wasm_binary::read(folder.file(name)?)
}

/// Checks what can be told of any image, whatever ought to be in it.
pub(super) fn check_programs(subject: &str, root: &Path, listing: &Listing, findings: &mut Vec<Finding>) {
    program::check(subject, listing, &|path| read_file(root, path), findings);
}

/// Holds an image against its entry in the lock.
pub(super) struct Comparison<'a> {
    pub(super) project: &'a Project,
    /// What builds on this machine remember of what they have made.
    pub(super) memory: &'a Memory,
    pub(super) lock: &'a Lock,
    pub(super) locked: &'a ImageLock,
    pub(super) subject: &'a str,
    /// The folder of the image, and how it is shown.
    pub(super) root: &'a Path,
    pub(super) shown: &'a str,
    pub(super) listing: &'a Listing,
}

impl Comparison<'_> {
    /// Names each file that is not what it ought to be.
    pub(super) fn check(&self, findings: &mut Vec<Finding>) {
        let before = findings.len();
        let mut toolchains = BTreeSet::new();
        let leaves = self.listing.leaves();
        for (path, file) in &self.locked.files {
            match (file, leaves.get(path.as_str())) {
                (_, None) => findings.extend(self.missing(path)),
                (LockedFile::Copied(locked), Some(cid)) if locked == *cid => {}
                (LockedFile::Copied(_), Some(_)) => {
                    findings.push(self.finding(FindingKind::Altered, path, "was altered"))
                }
                (LockedFile::Guest(guest), Some(cid)) => match self.compiled(path, guest, cid) {
                    Ok(toolchain) => drop(toolchains.insert(toolchain)),
                    Err(finding) => findings.push(finding),
                },
            }
        }
        for path in leaves.keys().filter(|path| !self.locked.files.contains_key(**path)) {
            findings.extend(self.extra(path));
        }
        // Its files are those of the lock; then so is its CID, or else the lock contradicts itself. Several toolchains may
        // give the same bytes.
        let is_locked = self.locked.cids.values().any(|cid| *cid == self.listing.root.cid);
        if findings.len() == before && !is_locked {
            let message = match self.locked.cids.get(&Toolchain::joined(&toolchains)) {
                Some(_) => "the lock's CID is not that of the files that the lock lists",
                None => "the lock has no CID of the files that it lists",
            };
            findings.push(Finding::new(FindingKind::Lock, self.subject, message).with_path(LOCK_FILE_NAME));
        }
    }

    fn finding(&self, kind: FindingKind, path: &str, problem: &str) -> Finding {
        let message = format!("`{}` {problem}", escape::text(path));
        Finding::new(kind, self.subject, message).with_path(format!("{}/{path}", self.shown))
    }

    /// A folder that was to be empty, and holds something, is not missing: what it holds is too much.
    fn missing(&self, path: &str) -> Option<Finding> {
        let is_folder = self
            .listing
            .objects
            .iter()
            .any(|object| object.path == path && matches!(object.kind, ListedKind::Folder { .. }));
        (!is_folder).then(|| self.finding(FindingKind::Altered, path, "is missing"))
    }

    /// A folder that was to hold something, and is empty, is not too much: what it held is missing.
    fn extra(&self, path: &str) -> Option<Finding> {
        let below = format!("{path}/");
        let is_parent =
            self.locked.files.range(below.clone()..).next().is_some_and(|(locked, _)| locked.starts_with(&below));
        (!is_parent).then(|| self.finding(FindingKind::Altered, path, "is in the image and not in the lock"))
    }

    /// What compiled the artifact at a path, if it is one that the lock has.
    fn compiled(&self, path: &str, guest: &GuestName, cid: &Cid) -> Result<Toolchain, Finding> {
        let altered = |problem: &str| self.finding(FindingKind::Altered, path, problem);
        let Some(locked) = self.lock.guests.get(guest) else {
            return Err(altered(&format!("cannot be told: the lock does not have guest `{guest}`")));
        };
        let bytes = read_file(self.root, path).map_err(|error| altered(&format!("cannot be read: {error}")))?;
        // What was listed is what is read, so that one image is not shown to one check and another to the next.
        if is_other_block(cid, &bytes) {
            return Err(altered("changed while it was read"));
        }
        let digest = Digest::of(&bytes);
        if let Some((toolchain, _)) = locked.outputs.iter().find(|(_, output)| **output == digest) {
            return Ok(toolchain.clone());
        }
        let record = self.memory.guests.get(guest).filter(|record| record.artifact == digest);
        let record = record.and_then(|record| Some((record.inputs, Toolchain::new(&record.toolchain)?)));
        Err(match record {
            None => altered(&format!("is not what guest `{guest}` compiles to")),
            Some((inputs, _)) if inputs != locked.inputs.digest() => {
                // Which of the two it was, only who built it knows.
                let or_profile = if self.project.profiles.is_empty() { "" } else { ", or under a profile" };
                altered(&format!("was built from other sources of guest `{guest}` than the lock has{or_profile}"))
            }
            Some((_, toolchain)) if locked.outputs.contains_key(&toolchain) => {
                altered(&format!("of guest `{guest}` is {NOT_REPRODUCIBLE}"))
            }
            Some((_, toolchain)) => self.finding(
                FindingKind::Inconclusive,
                path,
                &format!(
                    "of guest `{guest}` cannot be told: locked with {}, this is {toolchain}",
                    list(&locked.outputs)
                ),
            ),
        })
    }
}

fn list(outputs: &BTreeMap<Toolchain, Digest>) -> String {
    let names: Vec<&str> = outputs.keys().map(Toolchain::as_str).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(" and with ") }
}

/// Whether bytes are not those of a block of plain bytes; of other blocks nothing is said.
fn is_other_block(cid: &Cid, bytes: &[u8]) -> bool {
    cid.codec() == crate::dag::block::CODEC_RAW
        && crate::dag::Block::new(*cid, bytes::Bytes::copy_from_slice(bytes)).is_err()
}
