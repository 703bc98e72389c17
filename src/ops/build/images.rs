//! Which images would be assembled, and why; and what is remembered of those that were.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::build::ledger::{Entry, ImageRecord, Memory};
use crate::build::seen::{Change, Seen, SeenObject};
use crate::build::{BuiltGuest, Reason, Standing, limited, wetfile_reasons};
use crate::dag::Cid;
use crate::ops::listing::{ListedKind, Listing, ListingError};
use crate::ops::lock::{Reading, source_cache};
use crate::tree::ImportError;
use crate::wetfile::lock::{Digest, Facts};
use crate::wetfile::{GuestName, Image, ImagePath, ProjectPath, Source};

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
        let facts = facts(image);
        let mut reasons = wetfile_reasons(record.recipe, &record.facts, digest_of(&facts), &facts);
        for (place, source) in &image.files {
            if let Source::Path(path) = source {
                reasons.extend(self.source(place.as_str(), path, record, entries)?);
            }
        }
        for name in image.guests() {
            let artifact = match guests.get(name) {
                Some(Standing::Fresh(built)) => Some(built.digest),
                _ => None,
            };
            if artifact.is_none() || artifact != record.guests.get(name.as_str()).copied() {
                reasons.push(Reason::Guest { name: name.to_string() });
            }
        }
        reasons.extend(self.out(image, record, entries)?);
        match reasons.is_empty() {
            true => Ok(ImageStanding::Fresh(record.clone())),
            false => Ok(ImageStanding::Stale(limited(reasons))),
        }
    }

    /// Whether a source is as it was.
    fn source(
        &self,
        place: &str,
        path: &ProjectPath,
        record: &ImageRecord,
        entries: &mut Vec<Entry>,
    ) -> Result<Vec<Reason>, ListingError> {
        let input = |change| vec![Reason::Input { root: path.to_string(), change }];
        let Some((key, before)) = record.sources.get(place) else { return Ok(input(Change::Added)) };
        if *key != source_key(path) {
            // The Wetfile says something else, which is told.
            return Ok(Vec::new());
        }
        let Some(seen) = source_of_image(&self.reading, self.memory, path)? else {
            // Whoever assembles it is told why that cannot be read.
            let is_there = path.to_path(self.reading.root).symlink_metadata().is_ok();
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
        if known.as_ref().is_some_and(|seen| seen.is_tree_unchanged(self.reading.root)) {
            return Ok(Vec::new());
        }
        let full = image.out.to_path(self.reading.root);
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
        let Ok(seen) = seen_of(self.reading.root, Path::new(image.out.as_str()), &listing, start) else {
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

/// What is at a source of an image; `None` if it cannot be read.
pub(in crate::ops) fn source_of_image(
    reading: &Reading<'_>,
    memory: &Memory,
    path: &ProjectPath,
) -> Result<Option<Arc<Seen>>, ListingError> {
    let known = memory.root(&source_key(path)).filter(|seen| seen.is_tree_unchanged(reading.root));
    if known.is_some() {
        return Ok(known);
    }
    let start = SystemTime::now();
    match reading.list(&path.to_path(reading.root), &source_cache(path)) {
        Ok(listing) => Ok(seen_of(reading.root, Path::new(path.as_str()), &listing, start).ok().map(Arc::new)),
        Err(error) if error.is_stop() => Err(error),
        Err(_) => Ok(None),
    }
}

/// What of some reasons is left, now that the guests that an image holds are built.
pub(super) fn settle(
    record: Option<&ImageRecord>,
    reasons: &[Reason],
    guests: &BTreeMap<GuestName, BuiltGuest>,
) -> Vec<Reason> {
    let is_same = |name: &String| {
        let built = guests.iter().find(|(guest, _)| guest.as_str() == name).map(|(_, built)| built.digest);
        built.is_some() && built == record.and_then(|record| record.guests.get(name)).copied()
    };
    let is_left = |reason: &&Reason| !matches!(reason, Reason::Guest { name } if is_same(name));
    reasons.iter().filter(is_left).cloned().collect()
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
    pub(super) built_at: u64,
}

/// What is to be remembered of an image. `sources` are the listings of those, by their place; `out` that of the image itself.
///
/// # Errors
///
/// If something of it is not there any more.
pub(super) fn entries(
    root: &Path,
    assembled: Assembled<'_>,
    sources: &BTreeMap<ImagePath, Listing>,
    out: &Listing,
    guests: &BTreeMap<GuestName, BuiltGuest>,
) -> std::io::Result<Vec<Entry>> {
    let Assembled { image, cid, files, size_bytes, reasons, start, built_at } = assembled;
    let mut entries = Vec::new();
    let mut records = BTreeMap::new();
    for (place, source) in &image.files {
        let (Source::Path(path), Some(listing)) = (source, sources.get(place)) else { continue };
        let seen = seen_of(root, Path::new(path.as_str()), listing, start)?;
        records.insert(place.to_string(), (source_key(path), seen.digest));
        entries.push(Entry::Root(source_key(path), Arc::new(seen)));
    }
    let seen = seen_of(root, Path::new(image.out.as_str()), out, start)?;
    let held: BTreeSet<&GuestName> = image.guests();
    let facts = facts(image);
    let record = ImageRecord {
        recipe: digest_of(&facts),
        facts,
        guests: held.into_iter().map(|name| (name.to_string(), guests[name].digest)).collect(),
        sources: records,
        out: seen.digest,
        cid: cid.to_string(),
        files,
        size_bytes,
        built_at,
        reasons,
    };
    entries.push(Entry::Root(out_key(image), Arc::new(seen)));
    entries.push(Entry::Image(image.name.to_string(), Box::new(record)));
    Ok(entries)
}

fn source_key(path: &ProjectPath) -> String {
    format!("source:{path}")
}

fn out_key(image: &Image) -> String {
    format!("out:{}", image.out)
}

fn seen_of(root: &Path, path: &Path, listing: &Listing, start: SystemTime) -> std::io::Result<Seen> {
    let digest = |cid: &Cid| Digest::of(&cid.to_bytes());
    let objects = listing.objects.iter().map(|object| {
        let seen = match object.kind {
            ListedKind::Folder { .. } => SeenObject::Folder,
            ListedKind::File { .. } => SeenObject::File(digest(&object.cid)),
            ListedKind::Symlink { .. } => SeenObject::Link(digest(&object.cid)),
        };
        (object.path.as_str(), seen)
    });
    Seen::of_tree(root, path, digest(&listing.root.cid), objects, start)
}

/// What the Wetfile says of an image, key by key.
fn facts(image: &Image) -> Vec<(String, String)> {
    let mut facts = vec![("out".to_owned(), image.out.to_string())];
    for (place, source) in &image.files {
        let text = match source {
            Source::Guest(name) => format!("{{ guest = \"{name}\" }}"),
            Source::Path(path) => format!("{{ path = {:?} }}", path.to_string()),
            Source::Text(text) => format!("{{ text = {text:?} }}"),
        };
        facts.push((format!("files.\"{place}\""), text));
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
