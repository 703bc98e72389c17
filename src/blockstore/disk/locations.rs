//! Where blocks were found lately, so that they can be read again, or soon, without a question to the index.
//!
//! A pack never changes, and no other ever has its number. So what is said here is so as long as the pack is there; whether
//! the index still has the block is not said.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::key::Key;
use super::index::Location;
use super::layout::PackId;
use super::pack::Extent;

/// How many are remembered in each of two generations. Each takes some 100 bytes of memory; those of two images with ten
/// thousand files each have room.
const LOCATIONS_MAX: usize = 16 * 1024;

/// Where a block is.
type Place = (PackId, Extent);

/// What was noted lately, in two generations: when the young one is full, it becomes the old one.
#[derive(Debug, Default)]
pub(super) struct Locations(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, Place>,
    old: HashMap<Key, Place>,
}

impl Locations {
    /// Where a block was when that was noted last.
    pub(super) fn get(&self, key: &Key) -> Option<Place> {
        let generations = self.lock();
        generations.young.get(key).or_else(|| generations.old.get(key)).copied()
    }

    /// Remembers where blocks are.
    pub(super) fn note(&self, located: impl IntoIterator<Item = (Key, Location)>) {
        let mut generations = self.lock();
        for (key, Location { pack, extent, .. }) in located {
            if generations.young.len() >= LOCATIONS_MAX {
                generations.old = std::mem::take(&mut generations.young);
            }
            generations.young.insert(key, (pack, extent));
        }
    }

    /// Locked for a look-up, or for a few hundred insertions.
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
