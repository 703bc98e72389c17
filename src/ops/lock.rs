//! What the lock says of a project, held against what is there.
//!
//! [`Present`] is what is there, found without starting any process. [`out_of_date`] tells where the lock differs, and
//! [`updated`] what it would be after a build.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::listing::{Listing, ListingError};
use crate::build::{self, BuiltGuest, Variables};
use crate::dag::unixfs::Profile;
use crate::dag::{Block, Cid};
use crate::escape;
use crate::tree::{self, ImportOptions, RootSymlink, StatCache};
use crate::wetfile::lock::{Digest, GuestLock, ImageLock, Inputs, Lock, LockedFile, Toolchain};
use crate::wetfile::{GuestName, Image, ImageName, ImagePath, Project, ProjectPath, Source};

/// Files from which on it is worth remembering what was seen of them: fewer are read again in no time.
const CACHED_FILES_MIN: usize = 256;

/// Something for which the lock is not what a build would write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfDate {
    /// What it concerns, such as ``guest `x` ``; empty for the lock as a whole.
    pub subject: String,
    /// What is the matter: a fragment to stand after the subject. Ready to be shown.
    pub problem: String,
    /// The file or folder of the project that it is about, relative to the root; not escaped.
    pub path: Option<String>,
}

impl OutOfDate {
    fn guest(name: &GuestName, problem: impl Into<String>) -> Self {
        Self { subject: format!("guest `{name}`"), problem: problem.into(), path: None }
    }

    fn image(name: &ImageName, problem: impl Into<String>) -> Self {
        Self { subject: format!("image `{name}`"), problem: problem.into(), path: None }
    }

    fn with_path(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }
}

/// ``guest `x`: its recipe has changed``.
impl std::fmt::Display for OutOfDate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.subject, self.problem)
    }
}

/// The CIDs of the sources of an image, by their place in it.
pub(super) type Sources = BTreeMap<ImagePath, Cid>;

/// Where the sources of images are read, and how.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) root: &'a Path,
    pub(super) stopped: &'a (dyn Fn() -> bool + Sync),
    /// Keeps what was seen of files, where that is wanted.
    pub(super) state: Option<&'a build::State>,
}

impl<'a> Reading<'a> {
    /// Lists what is at a path. What earlier builds have kept under `name` is made use of.
    pub(super) fn list(&self, path: &Path, name: &str) -> Result<Listing, ListingError> {
        self.with_cache(name, |options, cache| Listing::of_disk(path, options, Some(cache)))
    }

    /// Names all sources of an image by their content; the first that cannot be read is told.
    pub(super) fn sources(&self, image: &Image) -> Result<Sources, (ProjectPath, ListingError)> {
        let mut sources = Sources::new();
        for (place, source) in &image.files {
            if let Source::Path(path) = source {
                let import = |options: &ImportOptions<'_>, cache: &mut StatCache| {
                    Ok(tree::import(&path.to_path(self.root), options, Some(cache), None)?)
                };
                let imported = self.with_cache(&source_cache(path), import).map_err(|error| (path.clone(), error))?;
                sources.insert(place.clone(), imported.subtree.cid);
            }
        }
        Ok(sources)
    }

    fn with_cache<T>(
        &self,
        name: &str,
        read: impl FnOnce(&ImportOptions<'a>, &mut StatCache) -> Result<T, ListingError>,
    ) -> Result<T, ListingError> {
        let profile = Profile::default();
        let options =
            ImportOptions { root_symlink: RootSymlink::Store, cancel: self.stopped, ..ImportOptions::new(profile) };
        let mut cache = build::cached(self.root, name)
            .map_or_else(|| StatCache::new(&profile), |bytes| StatCache::decode(&profile, &bytes));
        let read = read(&options, &mut cache)?;
        if let Some(state) = self.state.filter(|_| cache.is_changed() && cache.len() >= CACHED_FILES_MIN) {
            // Without it the next build takes longer, and that is all.
            let _ = state.cache(name, &cache.encode());
        }
        Ok(read)
    }
}

/// Under which name it is kept what was seen of a source.
fn source_cache(source: &ProjectPath) -> String {
    format!("source-{}", &Digest::of(source.as_str().as_bytes()).to_string()[..16])
}

/// Digests what guests are made of, by the roots that the lock has; what cannot be read is told instead.
pub(super) fn present_inputs(
    project: &Project,
    lock: &Lock,
    guests: &BTreeSet<&GuestName>,
    environment: &Variables,
) -> (BTreeMap<GuestName, Inputs>, Vec<OutOfDate>) {
    let (mut present, mut digests, mut unreadable) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for name in project.build_order(guests.iter().copied()) {
        let roots = lock.guests.get(name).into_iter().flat_map(|locked| locked.inputs.roots.keys());
        match build::digest_inputs(project, &project.guests[name], roots.map(String::as_str), environment, &digests) {
            Ok(inputs) => {
                digests.insert(name.clone(), inputs.digest());
                present.insert(name.clone(), inputs);
            }
            Err(error) => unreadable.push(OutOfDate::guest(name, with_causes(&error))),
        }
    }
    (present, unreadable)
}

/// An error and its causes in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    let texts: Vec<String> = std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect();
    escape::text(&texts.join(": ")).into_owned()
}

/// Where the lock has something that the project has not any more.
pub(super) fn leftovers(project: &Project, lock: &Lock) -> Vec<OutOfDate> {
    let guests = lock.guests.keys().filter(|name| !project.guests.contains_key(*name));
    let guests = guests.map(|name| OutOfDate::guest(name, "the Wetfile does not have it any more"));
    let images = lock.images.keys().filter(|name| !project.images.contains_key(*name));
    guests.chain(images.map(|name| OutOfDate::image(name, "the Wetfile does not have it any more"))).collect()
}

/// Where the lock differs from what guests are made of. `embeds` that only follow from another difference are left out.
pub(super) fn stale_guests(lock: &Lock, present: &BTreeMap<GuestName, Inputs>) -> Vec<OutOfDate> {
    present.iter().flat_map(|(name, inputs)| stale_guest(lock, name, inputs)).collect()
}

fn stale_guest(lock: &Lock, name: &GuestName, present: &Inputs) -> Vec<OutOfDate> {
    let Some(GuestLock { inputs: locked, .. }) = lock.guests.get(name) else {
        return vec![OutOfDate::guest(name, "it is not in the lock")];
    };
    let mut found = Vec::new();
    if locked.recipe != present.recipe {
        found.push(OutOfDate::guest(name, "what the Wetfile says of it has changed").with_path("Wetfile.toml"));
    }
    if locked.environment != present.environment {
        found.push(OutOfDate::guest(name, "a variable that it inherits has another value"));
    }
    let roots: BTreeSet<&String> = locked.roots.keys().chain(present.roots.keys()).collect();
    for root in roots {
        let problem = match (locked.roots.get(root), present.roots.get(root)) {
            (Some(locked), Some(present)) if locked == present => continue,
            (Some(_), Some(_)) => "has changed",
            (None, _) => "is new",
            (_, None) => "is gone",
        };
        let path = root.split('#').next().unwrap_or(root);
        found.push(OutOfDate::guest(name, format!("`{}` {problem}", escape::text(root))).with_path(path));
    }
    for (embedded, digest) in &locked.embeds {
        // Unless what it embeds is stale itself, which is told there.
        if lock.guests.get(embedded).is_some_and(|locked| locked.inputs.digest() != *digest) {
            found.push(OutOfDate::guest(name, format!("it was not built since `{embedded}` has changed")));
        }
    }
    found
}

/// Where the lock differs from what an image is to hold.
///
/// Where a source differs it is read again, to name what differs in it.
pub(super) fn stale_image(
    lock: &Lock,
    image: &Image,
    sources: &Sources,
    reading: &Reading<'_>,
) -> Result<Vec<OutOfDate>, ListingError> {
    let Some(locked) = lock.images.get(&image.name) else {
        return Ok(vec![OutOfDate::image(&image.name, "it is not in the lock")]);
    };
    let mut found = Vec::new();
    if locked.profile != Profile::default() {
        let problem = format!("the lock has it under the profile {}", locked.profile);
        found.push(OutOfDate::image(&image.name, problem));
    }
    found.extend(differing_entries(image, locked));
    for (place, cid) in sources {
        let is_changed = locked.sources.get(place).is_some_and(|locked| locked != cid);
        if let Some(Source::Path(source)) = image.files.get(place).filter(|_| is_changed) {
            let listing = reading.list(&source.to_path(reading.root), &source_cache(source))?;
            found.extend(changed_source(image, locked, place, source, &listing));
        }
    }
    for (guest, digest) in &locked.guests {
        if lock.guests.get(guest).is_some_and(|guest| guest.inputs.digest() != *digest) {
            let problem = format!("it was not assembled since guest `{guest}` has changed");
            found.push(OutOfDate::image(&image.name, problem));
        }
    }
    Ok(found)
}

/// The entries of an image that either the Wetfile or the lock does not have.
fn differing_entries(image: &Image, locked: &ImageLock) -> Vec<OutOfDate> {
    let mut found = Vec::new();
    for (place, source) in &image.files {
        let is_locked = match source {
            Source::Guest(guest) => locked.files.get(place.as_str()) == Some(&LockedFile::Guest(guest.clone())),
            Source::Path(_) => locked.sources.contains_key(place),
        };
        if !is_locked {
            let problem = format!("its entry `{}` is not in the lock", escape::text(place.as_str()));
            found.push(OutOfDate::image(&image.name, problem).with_path("Wetfile.toml"));
        }
    }
    let is_listed = |path: &str, is_guest: bool| {
        let source = ImagePath::new(path).ok().and_then(|path| image.files.get(&path));
        source.is_some_and(|source| matches!(source, Source::Guest(_)) == is_guest)
    };
    let guests =
        locked.files.iter().filter(|(_, file)| matches!(file, LockedFile::Guest(_))).map(|(path, _)| path.as_str());
    let gone = guests.filter(|path| !is_listed(path, true));
    for path in gone.chain(locked.sources.keys().map(ImagePath::as_str).filter(|path| !is_listed(path, false))) {
        let problem = format!("the Wetfile does not list `{}` any more", escape::text(path));
        found.push(OutOfDate::image(&image.name, problem).with_path("Wetfile.toml"));
    }
    found
}

/// The files of a source that are not as the lock has them.
fn changed_source(
    image: &Image,
    locked: &ImageLock,
    place: &ImagePath,
    source: &ProjectPath,
    listing: &Listing,
) -> Vec<OutOfDate> {
    let join = |folder: &str, name: &str| match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    };
    let leaves = listing.leaves();
    let mut problems: BTreeMap<String, &str> = BTreeMap::new();
    for (below, cid) in &leaves {
        match locked.files.get(&join(place.as_str(), below)) {
            Some(LockedFile::Copied(locked)) if locked == *cid => {}
            Some(_) => drop(problems.insert(join(source.as_str(), below), "has changed")),
            // An empty folder that other sources fill, or are expected to.
            None if **cid == empty_folder() => {}
            None => drop(problems.insert(join(source.as_str(), below), "is new")),
        }
    }
    let prefix = format!("{place}/");
    for (path, file) in locked.files.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix)) {
        let below = &path[prefix.len()..];
        // Another entry of the Wetfile may have put it there.
        let is_other = image
            .files
            .keys()
            .any(|other| other != place && (path == other.as_str() || path.starts_with(&format!("{other}/"))));
        if matches!(file, LockedFile::Copied(cid) if *cid != empty_folder()) && !is_other && !leaves.contains_key(below)
        {
            problems.insert(join(source.as_str(), below), "is gone");
        }
    }
    if problems.is_empty() {
        problems.insert(source.to_string(), "has changed");
    }
    let told = |(path, problem): (String, &str)| {
        OutOfDate::image(&image.name, format!("its source `{}` {problem}", escape::text(&path))).with_path(path)
    };
    problems.into_iter().map(told).collect()
}

/// The CID of a folder that holds nothing.
fn empty_folder() -> Cid {
    let mut sink = |_: Block| Ok::<(), crate::dag::unixfs::BuildError>(());
    let folder = crate::dag::unixfs::directory(&Profile::default(), Vec::new(), &mut sink);
    folder.expect("an empty folder can be named").cid
}

/// Where guests that were built differ from the lock.
pub(super) fn differing_guests(lock: &Lock, built: &BTreeMap<GuestName, BuiltGuest>) -> Vec<OutOfDate> {
    let mut found = Vec::new();
    for (name, built) in built {
        let stale = stale_guest(lock, name, &built.inputs);
        let output = lock.guests.get(name).and_then(|locked| locked.outputs.get(&built.toolchain));
        if stale.is_empty() && output.is_some_and(|locked| *locked != built.digest) {
            found.push(OutOfDate::guest(name, NOT_REPRODUCIBLE));
        }
        found.extend(stale);
    }
    found
}

pub(super) const NOT_REPRODUCIBLE: &str =
    "not reproducible: the same inputs and toolchain have given other bytes than the lock has";

/// An image that was assembled, as far as the lock is concerned.
pub(super) struct BuiltTree<'a> {
    pub(super) image: &'a Image,
    pub(super) sources: Sources,
    pub(super) listing: Listing,
}

impl BuiltTree<'_> {
    fn toolchain(&self, guests: &BTreeMap<GuestName, BuiltGuest>) -> Toolchain {
        Toolchain::joined(self.image.guests().into_iter().map(|guest| &guests[guest].toolchain))
    }

    fn locked(&self, guests: &BTreeMap<GuestName, BuiltGuest>) -> ImageLock {
        let file = |(path, cid): (&str, &Cid)| {
            let source = ImagePath::new(path).ok().and_then(|path| self.image.files.get(&path));
            let file = match source {
                Some(Source::Guest(guest)) => LockedFile::Guest(guest.clone()),
                _ => LockedFile::Copied(*cid),
            };
            (path.to_owned(), file)
        };
        ImageLock {
            profile: Profile::default(),
            guests: self.image.guests().into_iter().map(|name| (name.clone(), guests[name].inputs.digest())).collect(),
            sources: self.sources.clone(),
            files: self.listing.leaves().into_iter().map(file).collect(),
            cids: [(self.toolchain(guests), self.listing.root.cid)].into(),
        }
    }
}

/// Whether a tree is what the lock says of its image, as far as the lock holds its toolchain. That its sources are those of
/// the lock was told before.
pub(super) fn differing_tree(
    lock: &Lock,
    built: &BuiltTree<'_>,
    guests: &BTreeMap<GuestName, BuiltGuest>,
) -> Option<OutOfDate> {
    let name = &built.image.name;
    let Some(locked) = lock.images.get(name) else {
        return Some(OutOfDate::image(name, "it is not in the lock"));
    };
    if locked.files != built.locked(guests).files {
        return Some(OutOfDate::image(name, "its files are not those of the lock"));
    }
    let cid = locked.cids.get(&built.toolchain(guests)).filter(|cid| **cid != built.listing.root.cid);
    cid.map(|_| OutOfDate::image(name, "its CID is not that of the lock"))
}

/// What the lock is after a build of these guests and images: entries of others stay, as far as the Wetfile has them, and
/// so do outputs of other toolchains for the same inputs.
pub(super) fn updated(
    lock: Option<&Lock>,
    project: &Project,
    guests: &BTreeMap<GuestName, BuiltGuest>,
    images: &[BuiltTree<'_>],
) -> Lock {
    let mut lock = lock.cloned().unwrap_or_default();
    lock.guests.retain(|name, _| project.guests.contains_key(name));
    lock.images.retain(|name, _| project.images.contains_key(name));
    for (name, built) in guests {
        let kept = lock.guests.remove(name).filter(|locked| locked.inputs == built.inputs);
        let mut outputs = kept.map(|locked| locked.outputs).unwrap_or_default();
        outputs.insert(built.toolchain.clone(), built.digest);
        lock.guests.insert(name.clone(), GuestLock { inputs: built.inputs.clone(), outputs });
    }
    for tree in images {
        let mut made = tree.locked(guests);
        if let Some(previous) = lock.images.remove(&tree.image.name) {
            let cids = previous.cids.clone();
            let is_same = ImageLock { cids: made.cids.clone(), ..previous } == made;
            if is_same {
                made.cids = cids.into_iter().chain(std::mem::take(&mut made.cids)).collect();
            }
        }
        lock.images.insert(tree.image.name.clone(), made);
    }
    lock
}
