//! Which images would be assembled, and why; and what is remembered of those that were.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::build::ledger::{Entry, ImageRecord, Memory};
use crate::build::seen::{Change, Seen, SeenObject};
use crate::build::{BuiltGuest, Reason, Standing, limited, wetfile_reasons};
use crate::dag::Cid;
use crate::image;
use crate::ops::listing::{ListedKind, Listing, ListingError};
use crate::ops::lock::{Reading, source_cache};
use crate::ops::plan::Plan;
use crate::tree::ImportError;
use crate::wetfile::lock::{Digest, Facts};
use crate::wetfile::{Base, Glob, GuestName, Image, ImageName, ImagePath, Project, ProjectPath, Source};

/// Where an image stands.
#[derive(Clone, Debug)]
pub(super) enum ImageStanding {
    /// What lies in its folder is what would be assembled now.
    Fresh(Arc<ImageRecord>),
    /// It is to be assembled, for these reasons; at least one.
    Stale(Vec<Reason>),
}

/// A look at the images of a project.
pub(super) struct ImageSurvey<'a> {
    pub(super) reading: Reading<'a>,
    pub(super) memory: &'a Memory,
    /// Those that were seen to be in their folders as they were left there.
    pub(super) whole: RefCell<BTreeSet<ImageName>>,
}

impl ImageSurvey<'_> {
    /// Tells where an image stands; `guests` tells it of those that it holds. What was found out on the way and is worth
    /// remembering is added to `entries`.
    pub(super) fn image(
        &self,
        image: &Image,
        guests: &BTreeMap<GuestName, Standing>,
        entries: &mut Vec<Entry>,
    ) -> Result<ImageStanding, ListingError> {
        let Some(record) = self.memory.images.get(&image.name) else {
            return Ok(ImageStanding::Stale(vec![Reason::NeverBuilt]));
        };
        let project = self.reading.project;
        let facts = facts(project, image);
        let mut reasons = wetfile_reasons(record.recipe, &record.facts, digest_of(&facts), &facts);
        for layer in project.layers(image) {
            for (place, source) in &layer.files {
                if let Some(listed) = Listed::of(place, source) {
                    reasons.extend(self.source(&place_of(layer, place), listed, record, entries)?);
                }
            }
        }
        for name in guests_of(project, image) {
            let artifact = match guests.get(name) {
                Some(Standing::Fresh(built)) => Some(built.digest),
                _ => None,
            };
            if artifact.is_none() || artifact != record.guests.get(name.as_str()).copied() {
                reasons.push(Reason::Guest { name: name.to_string() });
            }
        }
        let of_out = self.out(image, record, entries)?;
        if of_out.is_empty() {
            self.whole.borrow_mut().insert(image.name.clone());
        }
        reasons.extend(of_out);
        match reasons.is_empty() {
            true => Ok(ImageStanding::Fresh(record.clone())),
            false => Ok(ImageStanding::Stale(limited(reasons))),
        }
    }

    /// Whether a source is as it was.
    fn source(
        &self,
        place: &str,
        listed: Listed<'_>,
        record: &ImageRecord,
        entries: &mut Vec<Entry>,
    ) -> Result<Vec<Reason>, ListingError> {
        let input = |change| vec![Reason::Input { root: listed.to_string(), change }];
        let Some((key, before)) = record.sources.get(place) else { return Ok(input(Change::Added)) };
        if *key != listed.key() {
            // The Wetfile says something else, which is told.
            return Ok(Vec::new());
        }
        let Some(seen) = source_of_image(&self.reading, self.memory, listed)? else {
            // Whoever assembles it is told why that cannot be read.
            let is_there = listed.path().to_path(self.reading.root()).symlink_metadata().is_ok();
            return Ok(input(if is_there { Change::Changed } else { Change::Removed }));
        };
        if seen.digest == *before {
            if self.memory.root(key).as_ref() != Some(&seen) {
                entries.push(Entry::Root(key.clone(), seen));
            }
            return Ok(Vec::new());
        }
        let known = self.memory.root_with(key, before);
        let changes = known.map(|known| seen.changes_since(&known)).unwrap_or_default();
        if changes.is_empty() {
            return Ok(input(Change::Changed));
        }
        Ok(changes.into_iter().map(|(path, change)| Reason::File { path, change }).collect())
    }

    /// Whether the image is as it was left.
    fn out(&self, image: &Image, record: &ImageRecord, entries: &mut Vec<Entry>) -> Result<Vec<Reason>, ListingError> {
        let key = out_key(image);
        let known = self.memory.root_with(&key, &record.out);
        if known.as_ref().is_some_and(|seen| seen.is_tree_unchanged(self.reading.root(), &no_context())) {
            return Ok(Vec::new());
        }
        let full = image.out.to_path(self.reading.root());
        let result = |change| vec![Reason::Result { path: image.out.to_string(), change }];
        if !full.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(result(Change::Removed));
        }
        let start = SystemTime::now();
        let listing = match self.reading.list(&full, &format!("image-{}", image.name)) {
            Ok(listing) => listing,
            Err(error @ ListingError::Import(ImportError::Cancelled)) => return Err(error),
            Err(_) => return Ok(result(Change::Changed)),
        };
        let Ok(seen) = seen_of_tree(self.reading.root(), Path::new(image.out.as_str()), &listing, start) else {
            return Ok(result(Change::Changed));
        };
        if seen.digest == record.out {
            entries.push(Entry::Root(key, Arc::new(seen)));
            return Ok(Vec::new());
        }
        let changes = known.map(|known| seen.changes_since(&known)).unwrap_or_default();
        if changes.is_empty() {
            return Ok(result(Change::Changed));
        }
        Ok(changes.into_iter().map(|(path, change)| Reason::Result { path, change }).collect())
    }
}

/// A source of an image that is read from the project.
#[derive(Clone, Copy)]
pub(in crate::ops) enum Listed<'a> {
    /// A file, folder or symlink.
    Path(&'a ProjectPath),
    /// What a glob fits in a folder; with its place in the image, below which paths have to be short enough.
    Glob(&'a ImagePath, &'a ProjectPath, &'a Glob),
}

impl<'a> Listed<'a> {
    pub(in crate::ops) fn of(place: &'a ImagePath, source: &'a Source) -> Option<Self> {
        match source {
            Source::Path(path) => Some(Self::Path(path)),
            Source::Glob { folder, glob } => Some(Self::Glob(place, folder, glob)),
            // Guests are built, and the Wetfile says the rest.
            Source::Guest(_) | Source::Text(_) | Source::Content(_) => None,
        }
    }

    /// The file or folder.
    pub(in crate::ops) fn path(self) -> &'a ProjectPath {
        match self {
            Self::Path(path) | Self::Glob(_, path, _) => path,
        }
    }

    /// What decides which files it is beside those files: of a glob the folders that it does not look into.
    fn context(self, project: &Project) -> Digest {
        match self {
            Self::Path(_) => no_context(),
            Self::Glob(..) => {
                let mut facts = Facts::default();
                project.outs().iter().for_each(|out| facts.add(out.as_str()));
                facts.finish()
            }
        }
    }

    /// What was seen of it when it was read after `start`.
    fn seen(self, project: &Project, listing: &Listing, start: SystemTime) -> io::Result<Seen> {
        let path = Path::new(self.path().as_str());
        match self {
            Self::Path(_) => seen_of_tree(&project.root, path, listing, start),
            Self::Glob(place, folder, glob) => {
                // Also the folders in which nothing fits: something may come that does. Those that were changed since the files
                // were read have no stamp that counts.
                let fitting = image::fitting(&project.root, place, folder, glob, &project.outs());
                let folders = fitting.map_err(io::Error::other)?.folders;
                seen_of(&project.root, path, (&folders, listing), start, self.context(project))
            }
        }
    }

    /// Under what is remembered what was seen of it.
    fn key(self) -> String {
        match self {
            Self::Path(path) => format!("source:{path}"),
            Self::Glob(place, folder, glob) => format!("fitting:{place}:{folder}:{glob}"),
        }
    }
}

/// `etc` or `etc/*.toml`.
impl fmt::Display for Listed<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(formatter, "{path}"),
            Self::Glob(_, folder, glob) => write!(formatter, "{folder}/{glob}"),
        }
    }
}

/// What is at a source of an image; `None` if it cannot be read.
pub(in crate::ops) fn source_of_image(
    reading: &Reading<'_>,
    memory: &Memory,
    listed: Listed<'_>,
) -> Result<Option<Arc<Seen>>, ListingError> {
    let start = SystemTime::now();
    let context = listed.context(reading.project);
    let known = memory.root(&listed.key()).filter(|seen| seen.is_tree_unchanged(reading.root(), &context));
    if known.is_some() {
        return Ok(known);
    }
    let listing = match listed {
        Listed::Path(path) => reading.list(&path.to_path(reading.root()), &source_cache(path)),
        Listed::Glob(place, folder, glob) => reading.list_glob(place, folder, glob),
    };
    match listing {
        Ok(listing) => Ok(listed.seen(reading.project, &listing, start).ok().map(Arc::new)),
        Err(error) if error.is_stop() => Err(error),
        Err(_) => Ok(None),
    }
}

/// The guests that an image holds, from those that it is based on as well.
pub(super) fn guests_of<'p>(project: &'p Project, image: &'p Image) -> BTreeSet<&'p GuestName> {
    project.layers(image).into_iter().flat_map(Image::guests).collect()
}

/// What was just assembled.
pub(super) struct Assembled<'a> {
    pub(super) image: &'a Image,
    pub(super) cid: Cid,
    pub(super) files: u64,
    pub(super) size_bytes: u64,
    pub(super) reasons: Vec<Reason>,
    /// When reading its sources began.
    pub(super) start: SystemTime,
    pub(super) built_at_ms: u64,
}

/// What is to be remembered of an image. `sources` are the listings of those, by their place; `out` that of the image itself.
///
/// # Errors
///
/// If something of it is not there any more.
pub(super) fn entries(
    project: &Project,
    assembled: Assembled<'_>,
    plan: &Plan<'_>,
    out: &Listing,
    guests: &BTreeMap<GuestName, BuiltGuest>,
) -> io::Result<Vec<Entry>> {
    let Assembled { image, cid, files, size_bytes, reasons, start, built_at_ms } = assembled;
    let mut entries = Vec::new();
    let mut records = BTreeMap::new();
    for plan in plan.and_bases() {
        for (place, source) in &plan.image.files {
            let (Some(listed), Some(listing)) = (Listed::of(place, source), plan.sources.get(place)) else { continue };
            let seen = listed.seen(project, listing, start)?;
            records.insert(place_of(plan.image, place), (listed.key(), seen.digest));
            entries.push(Entry::Root(listed.key(), Arc::new(seen)));
        }
    }
    let seen = seen_of_tree(&project.root, Path::new(image.out.as_str()), out, start)?;
    let facts = facts(project, image);
    let record = ImageRecord {
        recipe: digest_of(&facts),
        facts,
        guests: guests_of(project, image).into_iter().map(|name| (name.to_string(), guests[name].digest)).collect(),
        sources: records,
        out: seen.digest,
        cid: cid.to_string(),
        files,
        size_bytes,
        built_at_ms,
        reasons,
    };
    entries.push(Entry::Root(out_key(image), Arc::new(seen)));
    entries.push(Entry::Image(image.name.to_string(), Box::new(record)));
    Ok(entries)
}

/// A place in a layer of an image.
fn place_of(layer: &Image, place: &ImagePath) -> String {
    format!("{} {place}", layer.name)
}

fn out_key(image: &Image) -> String {
    format!("out:{}", image.out)
}

/// What nothing but files decides.
pub(in crate::ops) fn no_context() -> Digest {
    Digest::of(b"")
}

/// What was seen of a tree of the project that was listed whole, after `start`.
pub(in crate::ops) fn seen_of_tree(root: &Path, path: &Path, listing: &Listing, start: SystemTime) -> io::Result<Seen> {
    seen_of(root, path, (&[], listing), start, no_context())
}

/// The same of one where these folders were listed as well.
fn seen_of(
    root: &Path,
    path: &Path,
    (folders, listing): (&[String], &Listing),
    start: SystemTime,
    context: Digest,
) -> io::Result<Seen> {
    let digest = |cid: &Cid| Digest::of(&cid.to_bytes());
    let objects = listing.objects.iter().map(|object| {
        let seen = match object.kind {
            ListedKind::Folder { .. } => SeenObject::Folder,
            ListedKind::File { .. } => SeenObject::File(digest(&object.cid)),
            ListedKind::Symlink { .. } => SeenObject::Link(digest(&object.cid)),
        };
        (object.path.as_str(), seen)
    });
    let folders = folders.iter().map(|folder| (folder.as_str(), SeenObject::Folder));
    Seen::of_tree(root, path, digest(&listing.root.cid), folders.chain(objects), start, context)
}

/// What the Wetfile says of an image and of those that it is based on, key by key.
fn facts(project: &Project, image: &Image) -> Vec<(String, String)> {
    let mut facts = vec![("out".to_owned(), image.out.to_string())];
    for layer in project.layers(image) {
        let before = if layer.name == image.name { String::new() } else { format!("image.{}.", layer.name) };
        if let Some(base) = &layer.base {
            let base = match base {
                Base::Image(name) => format!("{{ image = \"{name}\" }}"),
                Base::Content(cid) => format!("{{ cid = \"{cid}\" }}"),
            };
            facts.push((format!("{before}base"), base));
        }
        for (place, source) in &layer.files {
            let text = match source {
                Source::Guest(name) => format!("{{ guest = \"{name}\" }}"),
                Source::Path(path) => format!("{{ path = {:?} }}", path.to_string()),
                Source::Glob { folder, glob } => {
                    format!("{{ path = {:?}, glob = {:?} }}", folder.to_string(), glob.to_string())
                }
                Source::Text(text) => format!("{{ text = {text:?} }}"),
                Source::Content(cid) => format!("{{ cid = \"{cid}\" }}"),
            };
            let text = match layer.replaces.contains(place) {
                true => format!("{}, replace = true }}", text.trim_end_matches(" }")),
                false => text,
            };
            facts.push((format!("{before}files.\"{place}\""), text));
        }
    }
    facts
}

fn digest_of(facts: &[(String, String)]) -> Digest {
    let mut digest = Facts::default();
    for (key, value) in facts {
        digest.add(key);
        digest.add(value);
    }
    digest.finish()
}
