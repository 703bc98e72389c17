//! What a build has to do with `Wetfile.lock`: whether it says what is there, refusing to change it, and writing it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::atomic_file;
use crate::build::ledger::{Entry, Ledger, Memory, Settled};
use crate::build::{BuiltGuest, Context, Event};
use crate::folder::Stamp;
use crate::ops::Error;
use crate::ops::lock::{self, OutOfDate, Reading};
use crate::wetfile::lock::{Digest, Facts, LOCK_BYTES_MAX, LOCK_FILE_NAME, Lock, Toolchain};
use crate::wetfile::{self, GuestName, Image, Project};

/// Mode of the lock file.
const LOCK_FILE_MODE: u32 = 0o644;

/// What a build did to the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockChange {
    /// It says what was built already, or was not to be changed.
    None,
    /// There was none.
    Created,
    /// It says something else than before.
    Updated,
}

/// Whether the lock says all that is remembered, and nobody has written it since.
pub(super) fn is_lock_current(project: &Project, memory: &Memory) -> bool {
    let path = project.root.join(LOCK_FILE_NAME);
    let Some(settled) = memory.settled.as_ref().filter(|settled| settled.names == names_of(project)) else {
        return false;
    };
    let stamp = Stamp::of_name(&path).ok().flatten();
    if stamp.is_some() && settled.stamp == stamp {
        return true;
    }
    let is_file = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= LOCK_BYTES_MAX);
    is_file && std::fs::read(&path).is_ok_and(|bytes| Digest::of(&bytes) == settled.lock)
}

/// What the lock depends on beside what is remembered of guests and images.
fn names_of(project: &Project) -> Digest {
    let mut facts = Facts::default();
    project.guests.values().for_each(|guest| facts.add(format!("guest {} {}", guest.name, guest.reproducible)));
    project.images.keys().for_each(|name| facts.add(format!("image {name}")));
    facts.finish()
}

/// Remembers that the lock says all that is remembered. Without that the next build reads it again, and that is all.
pub(super) fn settle_lock(ledger: &Ledger, project: &Project, lock: &Lock) {
    let path = project.root.join(LOCK_FILE_NAME);
    let Ok(text) = std::fs::read_to_string(&path) else { return };
    // Somebody may have written another one meanwhile.
    if !wetfile::lock::parse(&text).is_ok_and(|present| present == *lock) {
        return;
    }
    let stamp = Stamp::of_name(&path).ok().flatten().filter(|stamp| stamp.is_settled(SystemTime::now()));
    let settled = Settled { lock: Digest::of(text.as_bytes()), stamp, names: names_of(project) };
    if ledger.with(|memory| memory.settled.as_ref() != Some(&settled)) {
        let _ = ledger.note(vec![Entry::Settled(settled)]);
    }
}

/// Refuses to go on where the lock would have to change.
pub(super) fn refuse(found: Vec<OutOfDate>) -> Result<(), Error> {
    if found.is_empty() { Ok(()) } else { Err(Error::OutOfDate(found)) }
}

/// Adds where the lock differs from what images are to hold, as far as their sources tell it. What cannot be read is an
/// error of its own where nothing is out of date.
pub(super) fn add_stale_images<'a>(
    reading: &Reading<'a>,
    lock: &Lock,
    images: &[&'a Image],
    found: &mut Vec<OutOfDate>,
) -> Result<(), Error> {
    let mut is_stale = !found.is_empty();
    let mut unreadable = None;
    for &image in images {
        let failed = |source| Error::Listing { image: image.name.clone(), source };
        match reading.plan(image) {
            Ok(plan) => {
                let before = found.len();
                found.extend(lock::stale_image(lock, &plan));
                is_stale |= found.len() > before;
            }
            Err((_, source)) if source.is_stop() => return Err(failed(source)),
            Err((path, source)) => {
                found.push(lock::unreadable_source(image, &path, &source));
                unreadable.get_or_insert(failed(source));
            }
        }
    }
    match unreadable {
        Some(error) if !is_stale => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn warn_of_differences(ctx: &Context<'_>, lock: Option<&Lock>, guests: &BTreeMap<GuestName, BuiltGuest>) {
    for (name, built) in guests {
        let locked = lock.and_then(|lock| lock.guests.get(name)).filter(|locked| locked.inputs == built.inputs);
        let output = locked.and_then(|locked| locked.outputs.get(&built.toolchain));
        if output.is_some_and(|output| *output != built.digest) {
            (ctx.events)(Event::Warning { guest: name, text: lock::NOT_REPRODUCIBLE.to_owned() });
        }
    }
}

pub(super) fn not_held(lock: &Lock, guests: &BTreeMap<GuestName, BuiltGuest>) -> BTreeMap<GuestName, Toolchain> {
    let is_held = |name: &GuestName, toolchain: &Toolchain| {
        lock.guests.get(name).is_some_and(|locked| locked.outputs.contains_key(toolchain))
    };
    let not_held = guests.iter().filter(|(name, built)| !is_held(name, &built.toolchain));
    not_held.map(|(name, built)| (name.clone(), built.toolchain.clone())).collect()
}

pub(super) fn write_lock(project: &Project, before: Option<&Lock>, after: &Lock) -> Result<LockChange, Error> {
    if before == Some(after) {
        return Ok(LockChange::None);
    }
    let path = project.root.join(LOCK_FILE_NAME);
    atomic_file::replace(&path, after.render().as_bytes(), LOCK_FILE_MODE)
        .map_err(|source| Error::WriteLock { path, source })?;
    Ok(if before.is_some() { LockChange::Updated } else { LockChange::Created })
}
