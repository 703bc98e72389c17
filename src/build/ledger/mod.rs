//! What builds of a project remember of each other: of what every guest and image was made, and why; what was seen of their
//! files; what lies outside of the project and has a say.
//!
//! It is one file, to which entries are appended as guests and images are done ([`file`] has its form): a build that is killed
//! has lost nothing that was done, and one that finds nothing to do reads one file. Everything in it can be made again, so
//! whatever is damaged or of another version is no entry.

mod file;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reason::Reason;
use super::seen::Seen;
use super::state::State;
use super::tools::Tools;
use crate::folder::Stamp;
use crate::wetfile::lock::Digest;
use crate::wetfile::{GuestName, ImageName};

/// How many builds of a guest are remembered besides the last one: what is made of it may not have been built since.
const EARLIER_MAX: usize = 8;

/// Of what a guest was made at its last build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRecord {
    /// What compiled it: the text of a [`Toolchain`](crate::wetfile::lock::Toolchain).
    pub toolchain: String,
    /// [`Inputs::digest`](crate::wetfile::lock::Inputs::digest) of the whole.
    pub inputs: Digest,
    /// Digest of what the Wetfile says of it.
    pub(super) recipe: Digest,
    /// The same, key by key: `("build", "[\"make\"]")`.
    pub(super) facts: Vec<(String, String)>,
    /// The variables that it inherits.
    pub(super) variables: Vec<VariableRecord>,
    /// The files and folders that it is made of, by the key of `Inputs::roots`.
    pub(super) roots: BTreeMap<String, RootRecord>,
    /// What no lock can have of the files that its build has read, by place: where it is absolute, outside of the project.
    pub(super) watched: BTreeMap<String, RootRecord>,
    /// The guests that it embeds.
    pub(super) embeds: BTreeMap<String, EmbedRecord>,
    /// Digest of the [`Tools`] that made it.
    pub(super) tools: Digest,
    /// Packages outside of the project that it depends on.
    pub(super) outside: Vec<String>,
    /// The digest of its artifact.
    pub artifact: Digest,
    /// The stamp of its artifact, if that can be trusted.
    pub(super) stamp: Option<Stamp>,
    /// How long the build took, in milliseconds.
    pub(super) elapsed_ms: u64,
    /// When it was built, in milliseconds since 1970.
    pub built_at_ms: u64,
    /// Why it was built.
    pub reasons: Vec<Reason>,
    /// The builds before, the last one first.
    pub(super) earlier: Vec<PastBuild>,
}

/// A build of a guest that was not the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PastBuild {
    /// When it was, in milliseconds since 1970.
    built_at_ms: u64,
    /// The digest of what came out.
    artifact: Digest,
    /// Why.
    reasons: Vec<Reason>,
}

impl GuestRecord {
    /// What is to be looked at to tell whether it is still made of the same: roots, and what is watched.
    pub(super) fn asked(&self) -> (impl Iterator<Item = &str>, impl Iterator<Item = &str>) {
        (self.roots.keys().map(String::as_str), self.watched.keys().map(String::as_str))
    }

    /// Why it had been built to what it was at a time, in milliseconds since 1970, if that is remembered: of builds with the same
    /// result, which is all that others know of it, the first.
    pub fn reasons_at(&self, time_ms: u64) -> Option<Vec<Reason>> {
        let mut builds = self.builds().skip_while(|build| build.built_at_ms > time_ms);
        let last = builds.next()?;
        let same = builds.take_while(|build| build.artifact == last.artifact).last();
        Some(same.unwrap_or(last).reasons)
    }

    /// Its builds, for the record of the next one.
    pub(super) fn history(&self) -> Vec<PastBuild> {
        self.builds().take(EARLIER_MAX).collect()
    }

    /// All builds that are remembered, the last one first.
    fn builds(&self) -> impl Iterator<Item = PastBuild> {
        let Self { built_at_ms, artifact, reasons, .. } = self;
        let last = PastBuild { built_at_ms: *built_at_ms, artifact: *artifact, reasons: reasons.clone() };
        std::iter::once(last).chain(self.earlier.iter().cloned())
    }

    /// How long its build took.
    pub fn elapsed(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms)
    }
}

/// A root of a guest, or what is watched for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RootRecord {
    /// What was seen there is known under this key.
    pub(super) key: String,
    /// Its digest; `None` if nothing was there.
    pub(super) digest: Option<Digest>,
}

/// A guest that another one embeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EmbedRecord {
    pub(super) inputs: Digest,
    pub(super) artifact: Digest,
}

/// A variable that a guest inherits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VariableRecord {
    pub(super) name: String,
    /// Digest of its value; `None` if it is not set.
    pub(super) value: Option<Digest>,
    /// The value, shortened, and only if it is none that ought to stay a secret.
    pub(super) shown: Option<String>,
}

/// Of what an image was made at its last build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// What the Wetfile says of it, key by key.
    pub facts: Vec<(String, String)>,
    /// Digest of the same.
    pub recipe: Digest,
    /// The artifacts of the guests that it holds.
    pub guests: BTreeMap<String, Digest>,
    /// The files that it is made of, by its path in the image: under which key they are known, and their digest.
    pub sources: BTreeMap<String, (String, Digest)>,
    /// The digest of the whole, as it lies in its folder.
    pub out: Digest,
    /// Its CID as text.
    pub cid: String,
    /// Number of regular files in it.
    pub files: u64,
    /// Sum of their sizes in bytes.
    pub size_bytes: u64,
    /// When it was assembled, in milliseconds since 1970.
    pub built_at_ms: u64,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// That `Wetfile.lock` says all that is remembered before this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The lock's digest.
    pub lock: Digest,
    /// The lock's stamp, if it can be trusted.
    pub(crate) stamp: Option<Stamp>,
    /// The names of guests and images.
    pub names: Digest,
}

/// One thing to remember. What is remembered of the same thing before is forgotten, except of a root as long as a guest or
/// an image was made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// What was seen under a key.
    Root(String, #[serde(with = "shared")] Arc<Seen>),
    /// What is outside of the project, by its digest.
    Tools(Digest, #[serde(with = "shared")] Arc<Tools>),
    /// A guest.
    Guest(String, Box<GuestRecord>),
    /// An image.
    Image(String, Box<ImageRecord>),
    /// The lock.
    Settled(Settled),
}

/// What is shared in memory is written as itself.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(shared: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
        T::serialize(shared, serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}

/// All that is remembered.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// By key; the newest is the last.
    roots: HashMap<String, Vec<Arc<Seen>>>,
    tools: HashMap<Digest, Arc<Tools>>,
    /// By name.
    pub guests: BTreeMap<GuestName, Arc<GuestRecord>>,
    /// By name.
    pub images: BTreeMap<ImageName, Arc<ImageRecord>>,
    /// What the lock says, if it says all of this.
    pub settled: Option<Settled>,
}

impl Memory {
    /// What builds of the project at `root` have remembered. It needs no lock.
    pub fn of_project(root: &Path) -> Self {
        file::read(root).memory
    }

    /// What was seen last under a key.
    pub fn root(&self, key: &str) -> Option<Arc<Seen>> {
        self.roots.get(key)?.last().cloned()
    }

    /// What had this digest when it was seen under a key.
    pub fn root_with(&self, key: &str, digest: &Digest) -> Option<Arc<Seen>> {
        self.roots.get(key)?.iter().rev().find(|seen| seen.digest == *digest).cloned()
    }

    pub(super) fn tools(&self, digest: &Digest) -> Option<Arc<Tools>> {
        self.tools.get(digest).cloned()
    }

    /// A guest by its name as text.
    pub fn guest(&self, name: &str) -> Option<&Arc<GuestRecord>> {
        self.guests.get(name)
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Root(key, seen) => {
                let all = self.roots.entry(key).or_default();
                all.retain(|known| known.digest != seen.digest);
                all.push(seen);
            }
            Entry::Tools(digest, tools) => drop(self.tools.insert(digest, tools)),
            Entry::Guest(name, record) => {
                if let Ok(name) = GuestName::new(&name) {
                    let before = self.guests.insert(name.clone(), Arc::from(record));
                    let of_lock =
                        |record: &Arc<GuestRecord>| (record.inputs, record.artifact, record.toolchain.clone());
                    if before.as_ref().map(of_lock) != self.guests.get(&name).map(of_lock) {
                        self.settled = None;
                    }
                }
            }
            Entry::Image(name, record) => {
                if let Ok(name) = ImageName::new(&name) {
                    let before = self.images.insert(name.clone(), Arc::from(record));
                    let of_lock = |record: &Arc<ImageRecord>| (record.recipe, record.cid.clone());
                    if before.as_ref().map(of_lock) != self.images.get(&name).map(of_lock) {
                        self.settled = None;
                    }
                }
            }
            Entry::Settled(settled) => self.settled = Some(settled),
        }
    }

    /// Everything that is still of use, in an order in which it can be applied again.
    fn entries(&self) -> Vec<Entry> {
        let of_guests = self.guests.values().flat_map(|guest| guest.roots.values().chain(guest.watched.values()));
        let of_guests = of_guests.filter_map(|root| Some((root.key.as_str(), root.digest?)));
        let of_images = self.images.values().flat_map(|image| image.sources.values());
        let used: std::collections::HashSet<(&str, Digest)> =
            of_guests.chain(of_images.map(|(key, digest)| (key.as_str(), *digest))).collect();
        let mut keys: Vec<&String> = self.roots.keys().collect();
        keys.sort();
        let mut entries = Vec::new();
        for key in keys {
            let all = &self.roots[key];
            let kept = all
                .iter()
                .enumerate()
                .filter(|(at, seen)| *at + 1 == all.len() || used.contains(&(key.as_str(), seen.digest)));
            entries.extend(kept.map(|(_, seen)| Entry::Root(key.clone(), seen.clone())));
        }
        let mut tools: Vec<Digest> = self.guests.values().map(|guest| guest.tools).collect();
        tools.sort();
        tools.dedup();
        entries.extend(tools.into_iter().filter_map(|digest| Some(Entry::Tools(digest, self.tools(&digest)?))));
        let guests = self.guests.iter();
        entries.extend(guests.map(|(name, record)| Entry::Guest(name.to_string(), Box::new((**record).clone()))));
        let images = self.images.iter();
        entries.extend(images.map(|(name, record)| Entry::Image(name.to_string(), Box::new((**record).clone()))));
        entries.extend(self.settled.clone().map(Entry::Settled));
        entries
    }
}

/// The memory of a project while its state is held: what is noted is written at once.
#[derive(Debug)]
pub struct Ledger(Mutex<file::Book>);

impl Ledger {
    /// Opens the memory of a project.
    ///
    /// # Errors
    ///
    /// If it cannot be read or made.
    pub fn open(state: &State) -> io::Result<Self> {
        file::Book::open(state).map(|book| Self(Mutex::new(book)))
    }

    /// Notes entries, all or none of which are remembered if the process is killed meanwhile.
    ///
    /// # Errors
    ///
    /// If they cannot be written. They are remembered in this process all the same.
    pub fn note(&self, entries: Vec<Entry>) -> io::Result<()> {
        self.book().append(entries)
    }

    /// What is remembered now; what is noted afterwards is not in it.
    pub fn memory(&self) -> Arc<Memory> {
        self.book().memory.clone()
    }

    /// Looks something up.
    pub fn with<T>(&self, look: impl FnOnce(&Memory) -> T) -> T {
        look(&self.book().memory)
    }

    /// Forgets guests and images that are not wanted any more, and makes the file smaller where most of it is of no use.
    ///
    /// # Errors
    ///
    /// If the file cannot be replaced; it is then as before.
    pub fn tidy(&self, is_guest: impl Fn(&GuestName) -> bool, is_image: impl Fn(&ImageName) -> bool) -> io::Result<()> {
        let mut book = self.book();
        // Others may look at it, so that a change of it is one of a copy.
        if !book.memory.guests.keys().all(&is_guest) || !book.memory.images.keys().all(&is_image) {
            let memory = Arc::make_mut(&mut book.memory);
            memory.guests.retain(|name, _| is_guest(name));
            memory.images.retain(|name, _| is_image(name));
        }
        book.compact()
    }

    /// No code panics while it holds the lock, and the memory is valid at each step.
    fn book(&self) -> MutexGuard<'_, file::Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
