//! The entries of a directory that is being built, in little memory: there may be a million of them.

use super::super::block::{Block, Cid, parse_cid};
use super::super::pb;
use super::super::protobuf::{put_varint, varint};
use super::dir::{DIRECTORY_MESSAGE, EntryName, NameError};
use super::hamt::hash_name;
use super::{BuildError, Data, DirectorySize, Entry, Kind, Profile, Subtree, hamt, seal};

/// Entries that a directory is to have, in any order.
///
/// One after the other in one piece of memory: the length of the name, the name, the size of the DAG, the length of the CID,
/// the CID; numbers as varints. That is some 45 bytes beside the name, where an [`Entry`] has 130.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    records: Vec<u8>,
    count: usize,
}

/// Where in [`Entries`] an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(usize);

/// One of the entries.
#[derive(Clone, Copy, Debug)]
struct Record<'a> {
    name: &'a str,
    dag_size: u64,
    cid: &'a [u8],
}

impl Record<'_> {
    fn link_len(&self) -> usize {
        pb::link_len(self.cid.len(), self.name.len(), self.dag_size)
    }
}

impl Entries {
    /// Adds an entry.
    ///
    /// # Errors
    /// If the name is not allowed.
    pub fn push(&mut self, name: &str, target: &Subtree) -> Result<(), NameError> {
        EntryName::check(name)?;
        self.push_checked(name, target);
        Ok(())
    }

    fn push_checked(&mut self, name: &str, target: &Subtree) {
        put_varint(&mut self.records, name.len() as u64);
        self.records.extend_from_slice(name.as_bytes());
        put_varint(&mut self.records, target.dag_size);
        put_varint(&mut self.records, target.cid.encoded_len() as u64);
        target.cid.write_bytes(&mut self.records).expect("memory takes all bytes");
        self.count += 1;
    }

    /// Adds all of the others, and leaves none there.
    pub fn append(&mut self, other: &mut Self) {
        self.records.append(&mut other.records);
        self.count += std::mem::take(&mut other.count);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Makes the directory, as [`directory`](super::directory) does.
    ///
    /// # Errors
    /// As [`directory`](super::directory).
    ///
    /// # Panics
    /// As [`directory`](super::directory).
    pub fn directory<E: From<BuildError>>(
        &self,
        profile: &Profile,
        sink: &mut impl FnMut(Block) -> Result<(), E>,
    ) -> Result<Subtree, E> {
        if self.is_sharded(profile) {
            return hamt::build(profile, self, &self.by_hash()?, sink);
        }
        let links = self.by_name()?.into_iter().map(|place| pb::Link {
            cid: self.target(place).cid,
            name: Some(self.name(place)),
            tsize: Some(self.record(place).dag_size),
        });
        let (block, subtree) = seal(profile, links.collect(), &Data::new(Kind::Directory))?;
        sink(block)?;
        Ok(subtree)
    }

    /// Whether the directory becomes a HAMT.
    fn is_sharded(&self, profile: &Profile) -> bool {
        let empty = pb::Node { links: Vec::new(), data: Some(DIRECTORY_MESSAGE) };
        let (mut size, of_entry): (usize, fn(&Record<'_>) -> usize) = match profile.directory_size {
            DirectorySize::NamesAndCids => (0, |record| record.name.len() + record.cid.len()),
            DirectorySize::Block => (empty.encoded_len(), |record| record.link_len()),
        };
        // A long list need not be gone through to its end.
        let is_more = |place| {
            size += of_entry(&self.record(place));
            size > profile.directory_size_max
        };
        self.places().any(is_more) || size > profile.directory_size_max
    }

    /// All entries, sorted by name.
    fn by_name(&self) -> Result<Vec<Place>, BuildError> {
        let mut places: Vec<_> = self.places().collect();
        places.sort_unstable_by_key(|place| self.name_bytes(*place));
        match places.array_windows().find(|[first, second]| self.name_bytes(*first) == self.name_bytes(*second)) {
            Some([duplicate, _]) => Err(BuildError::DuplicateName { name: self.entry_name(*duplicate) }),
            None => Ok(places),
        }
    }

    /// All entries with the hashes of their names, sorted by these.
    fn by_hash(&self) -> Result<Vec<(u64, Place)>, BuildError> {
        let mut hashed = Vec::with_capacity(self.count);
        hashed.extend(self.places().map(|place| (hash_name(self.name(place)), place)));
        hashed.sort_unstable_by(|(hash, place), (other_hash, other_place)| {
            hash.cmp(other_hash).then_with(|| self.name_bytes(*place).cmp(self.name_bytes(*other_place)))
        });
        let is_duplicate = |[(hash, place), (other_hash, other_place)]: &&[(u64, Place); 2]| {
            hash == other_hash && self.name_bytes(*place) == self.name_bytes(*other_place)
        };
        match hashed.array_windows().find(is_duplicate) {
            Some([(_, duplicate), _]) => Err(BuildError::DuplicateName { name: self.entry_name(*duplicate) }),
            None => Ok(hashed),
        }
    }

    pub(super) fn name(&self, place: Place) -> &str {
        self.record(place).name
    }

    /// The bytes of a name, whose order is that of the name.
    fn name_bytes(&self, place: Place) -> &[u8] {
        take(&mut &self.records[place.0..])
    }

    pub(super) fn entry_name(&self, place: Place) -> EntryName {
        EntryName::new(self.name(place)).expect("names are checked when they are added")
    }

    pub(super) fn target(&self, place: Place) -> Subtree {
        let record = self.record(place);
        let cid: Cid = parse_cid(record.cid).expect("what was written as a CID is one");
        Subtree { cid, dag_size: record.dag_size }
    }

    /// All entries, in the order in which they were added.
    fn places(&self) -> impl Iterator<Item = Place> {
        let mut next = 0;
        (0..self.count).map(move |_| {
            let place = Place(next);
            next = self.read(place).1;
            place
        })
    }

    fn record(&self, place: Place) -> Record<'_> {
        self.read(place).0
    }

    /// An entry, and where the next one stands.
    fn read(&self, place: Place) -> (Record<'_>, usize) {
        let mut rest = &self.records[place.0..];
        let name = take(&mut rest);
        let dag_size = take_number(&mut rest);
        let cid = take(&mut rest);
        let name = std::str::from_utf8(name).expect("names are text");
        (Record { name, dag_size, cid }, self.records.len() - rest.len())
    }
}

impl<'a> FromIterator<&'a Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = &'a Entry>>(entries: I) -> Self {
        let mut all = Self::default();
        entries.into_iter().for_each(|Entry { name, target }| all.push_checked(name.as_str(), target));
        all
    }
}

fn take_number(rest: &mut &[u8]) -> u64 {
    let (number, after) = varint(rest).expect("numbers are written as varints");
    *rest = after;
    number
}

/// A length, and so many bytes.
fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = take_number(rest) as usize;
    let (taken, after) = rest.split_at(length);
    *rest = after;
    taken
}
