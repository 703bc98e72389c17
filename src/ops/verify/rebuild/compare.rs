//! What two builds have made, held against each other and against the lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;

use super::hint::hint;
use super::section::first_difference;
use super::{RebuildError, Rebuilt, RebuiltGuest, Side};
use crate::build::Cancel;
use crate::escape;
use crate::ops::listing::{Listed, ListedKind, Listing};
use crate::ops::verify::project::{count_files, list_image};
use crate::ops::verify::{Checked, Finding, FindingKind};
use crate::tree::ImportOptions;
use crate::wasm_binary;
use crate::wetfile::lock::{Digest, LOCK_FILE_NAME, Lock, LockedFile, Toolchain};
use crate::wetfile::{GuestName, Image, Project};

/// Most files of an image that are named.
const FILES_NAMED_MAX: usize = 20;

/// Two builds of a project, and its lock.
pub(super) struct Comparison<'a> {
    pub(super) project: &'a Project,
    pub(super) lock: &'a Lock,
    pub(super) sides: [&'a Side; 2],
    pub(super) cancel: &'a Cancel,
}

impl Comparison<'_> {
    /// Compares guests, each after those that it embeds.
    pub(super) fn guests(&self, guests: &BTreeSet<&GuestName>, rebuilt: &mut Rebuilt) -> Result<(), RebuildError> {
        for name in self.project.build_order(guests.iter().copied()) {
            if self.cancel.is_cancelled() {
                return Err(RebuildError::Stopped);
            }
            let [one, other] = [self.artifact(0, name)?, self.artifact(1, name)?];
            let digests = [Digest::of(&one), Digest::of(&other)];
            let is_reproducible = self.project.is_reproducible(name);
            let subject = format!("guest `{name}`");
            if digests[0] != digests[1] {
                let message = self.difference(name, [&one, &other], &rebuilt.guests);
                match is_reproducible {
                    true => rebuilt.report.findings.push(Finding::new(
                        FindingKind::NotReproducible,
                        &subject,
                        format!("two builds of it differ: {message}"),
                    )),
                    false => rebuilt.notes.push(format!("{subject} differs, as the Wetfile says: {message}")),
                }
            } else if !is_reproducible {
                let note = "came out the same, though the Wetfile says that it need not";
                rebuilt.notes.push(format!("{subject} {note}"));
            } else {
                rebuilt.report.findings.extend(self.held_against_lock(name, &one, digests[0]));
            }
            rebuilt.guests.insert(name.clone(), RebuiltGuest { digests, is_reproducible });
        }
        Ok(())
    }

    fn artifact(&self, side: usize, name: &GuestName) -> Result<Vec<u8>, RebuildError> {
        let path = artifact_path(&self.sides[side].project, name);
        let read = File::open(&path).and_then(wasm_binary::read);
        read.map_err(|source| RebuildError::Read { path, source: source.into() })
    }

    /// Where two builds of a guest differ, and what that may come from.
    fn difference(&self, name: &GuestName, bytes: [&[u8]; 2], before: &BTreeMap<GuestName, RebuiltGuest>) -> String {
        let Some(place) = first_difference(bytes[0], bytes[1]) else { return "not any more".to_owned() };
        let section = place.section.as_ref().map(|section| format!("in {section}, ")).unwrap_or_default();
        let [one, other] = place.offsets;
        let offsets = if one == other { format!("byte {one}") } else { format!("byte {one}, of the other {other}") };
        let embeds = self.project.guests[name].embeds.iter();
        let differing =
            embeds.filter(|name| before.get(*name).is_some_and(|guest| guest.digests[0] != guest.digests[1]));
        let differing: Vec<String> = differing.map(|name| format!("`{name}`")).collect();
        let cause = match differing.is_empty() {
            true => hint(bytes, &place, self.sides.map(|side| &side.traces)),
            false => format!("it embeds {}, which differs itself", differing.join(" and ")),
        };
        format!("{section}from {offsets} on; {cause}")
    }

    /// Whether what came out twice is what the lock has.
    fn held_against_lock(&self, name: &GuestName, bytes: &[u8], digest: Digest) -> Option<Finding> {
        let subject = format!("guest `{name}`");
        let locked = self.lock.guests.get(name)?;
        let toolchain = self.sides[0].lock.guests.get(name)?.outputs.keys().next()?;
        match locked.outputs.get(toolchain) {
            Some(output) if *output == digest => None,
            Some(output) => {
                let place = self.built_here(name, output).and_then(|here| first_difference(bytes, &here));
                let place = place.and_then(|place| Some(format!("; it begins to differ in {}", place.section?)));
                let message = format!(
                    "both builds have made the same, and {LOCK_FILE_NAME} has other bytes of the same inputs and toolchain{}",
                    place.unwrap_or_default()
                );
                Some(Finding::new(FindingKind::NotReproducible, subject, message).with_path(LOCK_FILE_NAME))
            }
            None => {
                let names: Vec<&str> = locked.outputs.keys().map(Toolchain::as_str).collect();
                let with = if names.is_empty() { "nothing".to_owned() } else { names.join(" and with ") };
                let message = format!(
                    "two builds of it are the same; what it ought to be cannot be told: locked with {with}, this is {toolchain}"
                );
                Some(Finding::new(FindingKind::Inconclusive, subject, message))
            }
        }
    }

    /// What was built in the project, if it is what the lock has.
    fn built_here(&self, name: &GuestName, output: &Digest) -> Option<Vec<u8>> {
        let bytes = File::open(artifact_path(self.project, name)).and_then(wasm_binary::read).ok()?;
        (Digest::of(&bytes) == *output).then_some(bytes)
    }

    /// Compares images.
    pub(super) fn images(&self, images: &[&Image], rebuilt: &mut Rebuilt) -> Result<(), RebuildError> {
        for image in images {
            self.image(image, rebuilt)?;
        }
        Ok(())
    }

    fn image(&self, image: &Image, rebuilt: &mut Rebuilt) -> Result<(), RebuildError> {
        let subject = format!("image `{}`", image.name);
        let [one, other] = [self.listing(0, image)?, self.listing(1, image)?];
        let profile = self.lock.images.get(&image.name).map(|locked| locked.profile).unwrap_or_default();
        let (cid, files) = (one.root.cid, count_files(&one));
        rebuilt.report.checked.push(Checked { subject: subject.clone(), path: None, cid: Some(cid), profile, files });
        if cid != other.root.cid {
            let differing = differing(&one, &other);
            let left = differing.len().saturating_sub(FILES_NAMED_MAX);
            for path in differing.iter().take(FILES_NAMED_MAX) {
                let shown = escape::text(path);
                match self.guest_at(image, path) {
                    Some(guest) if !self.project.is_reproducible(guest) => rebuilt
                        .notes
                        .push(format!("{subject}: `{shown}` differs, as the Wetfile says of guest `{guest}`")),
                    Some(guest) => {
                        let message = format!("`{shown}` differs between two builds: it is guest `{guest}`");
                        rebuilt.report.findings.push(not_reproducible(&subject, message));
                    }
                    None => {
                        let message =
                            format!("`{shown}` differs between two builds: does a guest's build write its source?");
                        rebuilt.report.findings.push(not_reproducible(&subject, message));
                    }
                }
            }
            if left > 0 {
                rebuilt.report.findings.push(not_reproducible(&subject, format!("{left} more files differ")));
            }
            return Ok(());
        }
        let built = self.sides[0].lock.images.get(&image.name).and_then(|built| built.cids.first_key_value());
        let locked = self.lock.images.get(&image.name);
        if let (Some((toolchain, _)), Some(locked)) = (built, locked)
            && locked.cids.get(toolchain).is_some_and(|locked| *locked != cid)
        {
            let message =
                format!("both builds have made {cid}, and {LOCK_FILE_NAME} has another CID of the same inputs");
            let finding = not_reproducible(&subject, message);
            rebuilt.report.findings.push(finding.with_path(LOCK_FILE_NAME));
        }
        Ok(())
    }

    fn listing(&self, side: usize, image: &Image) -> Result<Listing, RebuildError> {
        let stopped = || self.cancel.is_cancelled();
        let profile = self.lock.images.get(&image.name).map(|locked| locked.profile).unwrap_or_default();
        let options = ImportOptions { cancel: &stopped, ..ImportOptions::new(profile) };
        let project = &self.sides[side].project;
        list_image(project, image, &options).map_err(|error| match error.is_stop() {
            true => RebuildError::Stopped,
            false => RebuildError::Read { path: image.out.to_path(&project.root), source: error.into() },
        })
    }

    /// The guest that is at a path of an image.
    fn guest_at(&self, image: &Image, path: &str) -> Option<&GuestName> {
        match self.lock.images.get(&image.name)?.files.get(path)? {
            LockedFile::Guest(guest) => Some(guest),
            LockedFile::Copied(_) => None,
        }
    }
}

fn not_reproducible(subject: &str, message: String) -> Finding {
    Finding::new(FindingKind::NotReproducible, subject, message)
}

fn artifact_path(project: &Project, name: &GuestName) -> PathBuf {
    project.root.join("target/ww/guests").join(format!("{name}.wasm"))
}

/// The paths at which two images have something else, folders that hold something aside.
fn differing(one: &Listing, other: &Listing) -> Vec<String> {
    let is_told = |object: &&Listed| !matches!(object.kind, ListedKind::Folder { is_empty: false });
    let objects = |listing: &Listing| -> BTreeMap<String, String> {
        let told = listing.objects.iter().filter(is_told);
        told.map(|object| (object.path.clone(), object.cid.to_string())).collect()
    };
    let (one, other) = (objects(one), objects(other));
    let paths: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    paths.into_iter().filter(|path| one.get(*path) != other.get(*path)).cloned().collect()
}
