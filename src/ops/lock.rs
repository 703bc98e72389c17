//! What the lock says of a project, held against what is there.
//!
//! What is there is found without starting any process: [`present_inputs`] of guests, [`Reading::plan`] of images.
//! [`leftovers`], [`stale_guests`] and [`stale_image`] tell where the lock differs, and [`updated`] what it would be after a
//! build.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::listing::{Listed, Listing, ListingError};
use super::plan::{Plan, PlannedBase, holds_below, join};
use crate::build::{self, BuiltGuest, Variables};
use crate::dag::Cid;
use crate::dag::unixfs::{Profile, Subtree};
use crate::tree::{self, ImportOptions, RootSymlink, StatCache};
use crate::wetfile::lock::{Digest, GuestLock, ImageLock, Inputs, Lock, LockedFile};
use crate::wetfile::{Base, FILE_NAME, Glob, GuestName, Image, ImageName, ImagePath, Project, ProjectPath, Source};
use crate::{escape, image};

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

/// Where the sources of images are read, and how.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) project: &'a Project,
    pub(super) stopped: &'a (dyn Fn() -> bool + Sync),
    /// How CIDs are made.
    pub(super) profile: Profile,
    /// Where the trees lie that images take by their CIDs, as far as they are at hand.
    pub(super) contents: &'a BTreeMap<Cid, PathBuf>,
    /// Keeps what was seen of files, where that is wanted.
    pub(super) state: Option<&'a build::State>,
}

impl<'a> Reading<'a> {
    /// The project's folder.
    pub(super) fn root(&self) -> &'a Path {
        &self.project.root
    }

    /// Names a tree by its content. What earlier builds have kept under `name` is made use of.
    pub(super) fn import(&self, path: &Path, name: &str) -> Result<Subtree, ListingError> {
        self.with_cache(name, |options, cache| Ok(tree::import(path, options, cache, None)?.subtree))
    }

    /// Lists a tree. What earlier builds have kept under `name` is made use of.
    pub(super) fn list(&self, path: &Path, name: &str) -> Result<Listing, ListingError> {
        self.with_cache(name, |options, cache| Listing::of_disk(path, options, cache))
    }

    /// Reads all sources of an image, and of those that it is based on; the first that cannot be read is told, with the file
    /// of the project that it is about.
    pub(super) fn plan(&self, image: &'a Image) -> Result<Plan<'a>, (ProjectPath, ListingError)> {
        let of_wetfile = |error| (ProjectPath::new(FILE_NAME).expect("it is a path"), error);
        let mut sources = BTreeMap::new();
        for (place, source) in &image.files {
            let listing = match source {
                Source::Guest(_) => continue,
                Source::Path(source) => {
                    let listing = self.list(&source.to_path(self.root()), &source_cache(source));
                    listing.map_err(|error| (source.clone(), error))?
                }
                Source::Glob { folder, glob } => {
                    self.list_glob(place, folder, glob).map_err(|error| (folder.clone(), error))?
                }
                Source::Text(text) => Listing::of_text(&self.profile, text),
                Source::Content(cid) => self.list_content(cid).map_err(of_wetfile)?,
            };
            sources.insert(place.clone(), listing);
        }
        let base = match &image.base {
            None => PlannedBase::Nothing,
            Some(Base::Image(name)) => PlannedBase::Image(Box::new(self.plan(&self.project.images[name])?)),
            Some(Base::Content(cid)) => PlannedBase::Content(self.list_base(cid).map_err(of_wetfile)?),
        };
        Ok(Plan::new(image, self.profile, sources, base))
    }

    /// Lists what a glob fits, as a folder. All of it is read: a cache is for a whole tree.
    pub(super) fn list_glob(
        &self,
        place: &ImagePath,
        folder: &ProjectPath,
        glob: &Glob,
    ) -> Result<Listing, ListingError> {
        let mut leaves = Vec::new();
        for path in image::fitting(self.root(), place, folder, glob, &self.project.outs())?.paths {
            let listing = Listing::of_disk(&folder.to_path(self.root()).join(&path), &self.options(), None)?;
            leaves.extend(listing.objects.into_iter().next().map(|object| Listed { path, ..object }));
        }
        Ok(Listing::of_leaves(&self.profile, leaves)?)
    }

    fn list_content(&self, cid: &Cid) -> Result<Listing, ListingError> {
        let path = self.contents.get(cid).ok_or_else(|| ListingError::NotHere { cid: Box::new(*cid) })?;
        self.list(path, &format!("content-{cid}"))
    }

    fn list_base(&self, cid: &Cid) -> Result<Listing, ListingError> {
        let listing = self.list_content(cid)?;
        match &listing.objects[..] {
            [object] if object.path.is_empty() => Err(ListingError::BaseNotFolder { cid: Box::new(*cid) }),
            _ => Ok(listing),
        }
    }

    fn options(&self) -> ImportOptions<'a> {
        ImportOptions { root_symlink: RootSymlink::Store, cancel: self.stopped, ..ImportOptions::new(self.profile) }
    }

    fn with_cache<T>(
        &self,
        name: &str,
        read: impl FnOnce(&ImportOptions<'a>, Option<&mut StatCache>) -> Result<T, ListingError>,
    ) -> Result<T, ListingError> {
        let options = self.options();
        let mut cache = build::cached(self.root(), name)
            .map_or_else(|| StatCache::new(&self.profile), |bytes| StatCache::decode(&self.profile, &bytes.into()));
        if self.state.is_none() && cache.is_empty() {
            // What would be seen is of use to nobody.
            return read(&options, None);
        }
        let read = read(&options, Some(&mut cache))?;
        if let Some(state) = self.state.filter(|_| cache.is_changed() && cache.len() >= CACHED_FILES_MIN) {
            // Without it the next build takes longer, and that is all.
            let _ = state.cache(name, &cache.encode());
        }
        Ok(read)
    }
}

/// Under which name it is kept what was seen of a source.
pub(super) fn source_cache(source: &ProjectPath) -> String {
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
    let embeds: BTreeSet<&GuestName> = locked.embeds.keys().chain(present.embeds.keys()).collect();
    for embedded in embeds {
        // What it embeds may be stale itself, which is told there.
        let problem = match (locked.embeds.get(embedded), lock.guests.get(embedded)) {
            (Some(digest), Some(locked)) if locked.inputs.digest() != *digest => {
                format!("it was not built since `{embedded}` has changed")
            }
            (Some(_), _) if !present.embeds.contains_key(embedded) => format!("it does not embed `{embedded}`"),
            (None, _) => format!("that it embeds `{embedded}` is not in the lock"),
            _ => continue,
        };
        found.push(OutOfDate::guest(name, problem));
    }
    found
}

/// Where the lock differs from what an image is to hold, its CIDs aside.
pub(super) fn stale_image(lock: &Lock, plan: &Plan<'_>) -> Vec<OutOfDate> {
    let name = &plan.image.name;
    let Some(locked) = lock.images.get(name) else {
        return vec![OutOfDate::image(name, "it is not in the lock")];
    };
    let planned = ImageLock { cids: locked.cids.clone(), ..plan.locked(lock) };
    let mut found = Vec::new();
    if locked.profile != planned.profile {
        found.push(OutOfDate::image(name, format!("the lock has it under the profile {}", locked.profile)));
    }
    if locked.base != planned.base {
        found.push(OutOfDate::image(name, "its base is another than the lock has").with_path(FILE_NAME));
    }
    for (place, cid) in &planned.contents {
        if locked.contents.get(place).is_some_and(|locked| locked != cid) {
            let problem = format!("its entry `{}` takes another CID than the lock has", escape::text(place.as_str()));
            found.push(OutOfDate::image(name, problem).with_path(FILE_NAME));
        }
    }
    let layers = plan.layers();
    let entries = differing_entries(&layers, locked);
    for (place, problem) in &entries {
        let problem = problem.replace("{}", &format!("`{}`", escape::text(place)));
        found.push(OutOfDate::image(name, problem).with_path("Wetfile.toml"));
    }
    found.extend(differing_files(&layers, locked, &planned, &entries));
    found.extend(differing_sources(plan.image, locked, &planned, &found));
    let held = plan.guests();
    let guests: BTreeSet<&GuestName> = locked.guests.keys().chain(planned.guests.keys()).collect();
    for guest in guests {
        let problem = match (locked.guests.get(guest), planned.guests.get(guest)) {
            (locked, planned) if locked == planned => continue,
            (Some(_), Some(_)) => format!("it was not assembled since guest `{guest}` has changed"),
            (None, _) => format!("that it holds guest `{guest}` is not in the lock"),
            // That a guest is not in the lock is told of the guest.
            (_, None) if held.contains(guest) => continue,
            (_, None) => format!("it does not hold guest `{guest}`"),
        };
        found.push(OutOfDate::image(name, problem));
    }
    if found.is_empty() && planned != *locked && planned.guests == locked.guests {
        found.push(OutOfDate::image(name, CONTRADICTION));
    }
    found
}

/// A source of an image that cannot be read.
pub(super) fn unreadable_source(image: &Image, source: &ProjectPath, error: &ListingError) -> OutOfDate {
    let problem = format!("its source cannot be read: {}", with_causes(error));
    OutOfDate::image(&image.name, problem).with_path(source.as_str())
}

/// For what no other problem explains, such as a folder that is said to be empty and to hold something.
const CONTRADICTION: &str = "the lock does not say of it what a build would write";

/// The entries of an image that either the Wetfile or the lock does not have, with what to say of them; `{}` is the place.
/// `layers` are the image and those that it is based on, itself first.
fn differing_entries<'a>(layers: &[&'a Image], locked: &'a ImageLock) -> BTreeMap<&'a str, &'static str> {
    let mut found = BTreeMap::new();
    let Some(image) = layers.first() else { return found };
    for (place, source) in &image.files {
        let is_locked = match source {
            Source::Guest(guest) => locked.files.get(place.as_str()) == Some(&LockedFile::Guest(guest.clone())),
            Source::Content(_) => locked.contents.contains_key(place),
            Source::Path(_) | Source::Glob { .. } | Source::Text(_) => {
                locked.sources.contains_key(place) && !locked.contents.contains_key(place)
            }
        };
        if !is_locked {
            found.insert(place.as_str(), "its entry {} is not in the lock");
        }
    }
    let is_listed = |image: &Image, path: &str, is_guest: bool| {
        let source = ImagePath::new(path).ok().and_then(|path| image.files.get(&path));
        source.is_some_and(|source| matches!(source, Source::Guest(_)) == is_guest)
    };
    let guests =
        locked.files.iter().filter(|(_, file)| matches!(file, LockedFile::Guest(_))).map(|(path, _)| path.as_str());
    let gone = guests.filter(|path| !layers.iter().any(|layer| is_listed(layer, path, true)));
    let sources = locked.sources.keys().map(ImagePath::as_str);
    for path in gone.chain(sources.filter(|path| !is_listed(image, path, false))) {
        found.insert(path, "the Wetfile does not list {} any more");
    }
    found
}

/// Whether a path is another, or below it.
fn is_within(path: &str, folder: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The files that the lock does not have as the sources do. What `entries` tell is not told again.
fn differing_files(
    layers: &[&Image],
    locked: &ImageLock,
    planned: &ImageLock,
    entries: &BTreeMap<&str, &'static str>,
) -> Vec<OutOfDate> {
    let mut found = Vec::new();
    // Which is so nearly always, and takes a fraction of the time.
    if locked.files == planned.files {
        return found;
    }
    let paths: BTreeSet<&String> = locked.files.keys().chain(planned.files.keys()).collect();
    for path in paths {
        let problem = match (locked.files.get(path), planned.files.get(path)) {
            (locked, planned) if locked == planned => continue,
            (Some(_), Some(_)) => "has changed",
            // An empty folder that holds something now, or held something: what that is, is told.
            (None, _) if holds_below(&locked.files, path) => continue,
            (_, None) if holds_below(&planned.files, path) => continue,
            (None, _) => "is new",
            (_, None) => "is gone",
        };
        if entries.keys().any(|place| is_within(path, place)) {
            continue;
        }
        let Some(image) = layers.first() else { break };
        // Of the topmost layer that lists something there.
        let owner = layers.iter().find_map(|layer| {
            let owners = layer.files.iter().filter(|(place, _)| is_within(path, place.as_str()));
            owners.max_by_key(|(place, _)| place.as_str().len())
        });
        found.push(match owner {
            Some((place, Source::Path(source) | Source::Glob { folder: source, .. })) => {
                let below = path[place.as_str().len()..].trim_start_matches('/');
                let path = join(source.as_str(), below);
                let problem = format!("its source `{}` {problem}", escape::text(&path));
                OutOfDate::image(&image.name, problem).with_path(path)
            }
            Some((_, Source::Text(_))) => {
                let problem =
                    format!("its file `{}`, of which the Wetfile says what is in it, {problem}", escape::text(path));
                OutOfDate::image(&image.name, problem).with_path(FILE_NAME)
            }
            _ => OutOfDate::image(&image.name, format!("its file `{}` {problem}", escape::text(path))),
        });
    }
    found
}

/// The sources of which the lock has another CID, though none of their files is told.
fn differing_sources(image: &Image, locked: &ImageLock, planned: &ImageLock, told: &[OutOfDate]) -> Vec<OutOfDate> {
    let mut found = Vec::new();
    for (place, cid) in &planned.sources {
        let is_changed = locked.sources.get(place).is_some_and(|locked| locked != cid);
        let source = image.files.get(place).filter(|_| is_changed);
        if let Some(Source::Path(source) | Source::Glob { folder: source, .. }) = source {
            let is_told = |told: &OutOfDate| told.path.as_ref().is_some_and(|path| is_within(path, source.as_str()));
            if !told.iter().any(is_told) {
                let problem = format!("its source `{}` has changed", escape::text(source.as_str()));
                found.push(OutOfDate::image(&image.name, problem).with_path(source.as_str()));
            }
        }
    }
    found
}

/// Where guests that were built differ from the lock.
fn differing_guests(lock: &Lock, built: &BTreeMap<GuestName, BuiltGuest>) -> Vec<OutOfDate> {
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

/// An image as a build makes it.
pub(super) struct PlannedTree<'a> {
    pub(super) plan: Plan<'a>,
    /// The whole of it, with the artifacts that were built.
    pub(super) root: Subtree,
}

impl PlannedTree<'_> {
    fn locked(&self, guests: &BTreeMap<GuestName, BuiltGuest>) -> ImageLock {
        let inputs = self.plan.guests().into_iter().map(|name| (name.clone(), guests[&name].inputs.digest()));
        let toolchain = self.plan.toolchain(|name| &guests[name].toolchain);
        ImageLock { cids: [(toolchain, self.root.cid)].into(), ..self.plan.with_guests(inputs.collect()) }
    }
}

/// Everything for which a build of these guests and images would change the lock. Outputs of a toolchain of which the lock
/// has none are no change.
pub(super) fn differences(
    lock: &Lock,
    project: &Project,
    guests: &BTreeMap<GuestName, BuiltGuest>,
    images: &[PlannedTree<'_>],
) -> Vec<OutOfDate> {
    let mut found = differing_guests(lock, guests);
    found.extend(images.iter().flat_map(|tree| stale_image(lock, &tree.plan)));
    let is_held = |name: &GuestName| {
        lock.guests.get(name).is_some_and(|locked| locked.outputs.contains_key(&guests[name].toolchain))
    };
    for tree in images {
        let Some(locked) = lock.images.get(&tree.plan.image.name) else { continue };
        let toolchain = tree.plan.toolchain(|name| &guests[name].toolchain);
        let problem = match locked.cids.get(&toolchain) {
            Some(cid) if *cid == tree.root.cid => continue,
            Some(_) => "its CID is not that of the lock",
            None if tree.plan.guests().iter().all(is_held) => "the lock has no CID of it",
            None => continue,
        };
        found.push(OutOfDate::image(&tree.plan.image.name, problem));
    }
    if !found.is_empty() {
        return found;
    }
    // Whatever was overlooked above.
    let mut after = updated(Some(lock), project, guests, images);
    for (name, built) in guests.iter().filter(|(name, _)| !is_held(name)) {
        if let Some(guest) = after.guests.get_mut(name) {
            guest.outputs.remove(&built.toolchain);
        }
    }
    for tree in images.iter().filter(|tree| !tree.plan.guests().iter().all(is_held)) {
        let toolchain = tree.plan.toolchain(|name| &guests[name].toolchain);
        if let Some(image) = after.images.get_mut(&tree.plan.image.name) {
            image.cids.remove(&toolchain);
        }
    }
    let differing = guests.keys().filter(|name| lock.guests.get(*name) != after.guests.get(*name));
    found.extend(differing.map(|name| OutOfDate::guest(name, CONTRADICTION)));
    let images = images.iter().map(|tree| &tree.plan.image.name);
    let differing = images.filter(|name| lock.images.get(*name) != after.images.get(*name));
    found.extend(differing.map(|name| OutOfDate::image(name, CONTRADICTION)));
    found
}

/// What the lock is after a build of these guests and images: entries of others stay, as far as the Wetfile has them, and
/// so do outputs of other toolchains for the same inputs.
pub(super) fn updated(
    lock: Option<&Lock>,
    project: &Project,
    guests: &BTreeMap<GuestName, BuiltGuest>,
    images: &[PlannedTree<'_>],
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
        if let Some(previous) = lock.images.remove(&tree.plan.image.name) {
            let cids = previous.cids.clone();
            let is_same = ImageLock { cids: made.cids.clone(), ..previous } == made;
            if is_same {
                made.cids = cids.into_iter().chain(std::mem::take(&mut made.cids)).collect();
            }
        }
        lock.images.insert(tree.plan.image.name.clone(), made);
    }
    drop_outputs_that_vary(&mut lock, project);
    lock
}

/// Removes what came out of guests that are not reproducible: the lock vouches for nothing that the next build changes.
fn drop_outputs_that_vary(lock: &mut Lock, project: &Project) {
    if project.guests.values().all(|guest| guest.reproducible) {
        return;
    }
    for (name, guest) in &mut lock.guests {
        if !project.is_reproducible(name) {
            guest.outputs.clear();
        }
    }
    for (name, image) in &mut lock.images {
        let layers = project.images.get(name).map(|image| project.layers(image)).unwrap_or_default();
        if !layers.into_iter().flat_map(Image::guests).all(|guest| project.is_reproducible(guest)) {
            image.cids.clear();
        }
    }
}
