//! Content that images take by its CID: written to the project's state, and believed only as far as it proves itself.
//!
//! A tree on disk that has the CID when it is imported again is the one that the CID names, whoever has written it; that it was
//! found to be so is remembered as long as nothing of it is touched. Those of which no profile of ours gives the CID are
//! written anew for each build, from blocks that were checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::Error;
use super::build::{no_context, seen_of_tree};
use super::listing::Listing;
use crate::build::ledger::{Entry, Ledger};
use crate::build::{self, State};
use crate::dag::Cid;
use crate::dag::unixfs::Profile;
use crate::escape;
use crate::tree::{BoxError, ImportOptions, RootSymlink};
use crate::wetfile::{Base, Image, ImageName, ImagePath, Project, Source};

/// Whoever has content, or can fetch it.
pub trait BringContent: Sync {
    /// Writes the file, directory or symlink that a CID names to `target`, where nothing is, after every block was checked
    /// against its CID.
    ///
    /// # Errors
    ///
    /// If it cannot be had; nothing is at `target` then.
    fn bring(&self, cid: &Cid, target: &Path) -> Result<(), BoxError>;
}

/// Has no content, and fetches none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoContent;

impl BringContent for NoContent {
    fn bring(&self, _: &Cid, _: &Path) -> Result<(), BoxError> {
        Err("nobody is there who could bring it".into())
    }
}

/// The CIDs that images take, with those that they are based on.
pub(super) fn wanted<'i>(project: &'i Project, images: impl IntoIterator<Item = &'i Image>) -> BTreeSet<&'i Cid> {
    let layers = images.into_iter().flat_map(|image| project.layers(image));
    layers.flat_map(Image::contents).collect()
}

/// Where the trees of these CIDs lie, as far as they are there and prove themselves.
pub(super) fn present(
    root: &Path,
    wanted: &BTreeSet<&Cid>,
    stopped: &(dyn Fn() -> bool + Sync),
) -> BTreeMap<Cid, PathBuf> {
    let trees = wanted.iter().map(|cid| (**cid, build::content(root, cid)));
    trees.filter(|(cid, path)| proof(path, cid, stopped).is_some()).collect()
}

/// An image that takes content by its CID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taker {
    /// The image.
    pub image: ImageName,
    /// Where in it the content is to be; `None` if it is what the image is based on.
    pub place: Option<ImagePath>,
}

/// ``image `one` takes for `etc/x` ``.
impl fmt::Display for Taker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(formatter, "image `{}` takes for `{}`", self.image, escape::text(place.as_str())),
            None => write!(formatter, "image `{}` takes as its base", self.image),
        }
    }
}

/// As [`present`], and brings what is missing. Trees that no image takes any more are removed. `failed` is told what cannot be
/// had, for which of `images`, and whether to go on is what it answers.
pub(super) fn bring(
    (project, state, ledger): (&Project, &State, &Ledger),
    images: &[&Image],
    content: &dyn BringContent,
    stopped: &(dyn Fn() -> bool + Sync),
    failed: &mut dyn FnMut(BTreeSet<Taker>, Error) -> Result<(), Error>,
) -> Result<BTreeMap<Cid, PathBuf>, Error> {
    remove_others(project, state);
    let mut trees = BTreeMap::new();
    for cid in wanted(project, images.iter().copied()) {
        let target = state.content(cid);
        if is_remembered(project, ledger, cid) || is_proven(project, ledger, cid, stopped) {
            trees.insert(*cid, target);
            continue;
        }
        // A tree could not prove itself, perhaps, since it was stopped.
        if stopped() {
            break;
        }
        let brought = state.remove_content(cid).map_err(BoxError::from).and_then(|()| content.bring(cid, &target));
        match brought {
            Ok(()) => drop(trees.insert(*cid, target)),
            Err(source) => {
                let takers = takers(cid, images);
                failed(takers.clone(), Error::Content { cid: Box::new(*cid), takers, source })?;
            }
        }
    }
    Ok(trees)
}

/// Where images take a CID.
fn takers(cid: &Cid, images: &[&Image]) -> BTreeSet<Taker> {
    let mut takers = BTreeSet::new();
    for image in images {
        let taker = |place| Taker { image: image.name.clone(), place };
        let is_it = |source: &Source| matches!(source, Source::Content(other) if other == cid);
        let files = image.files.iter().filter(|(_, source)| is_it(source));
        takers.extend(files.map(|(place, _)| taker(Some(place.clone()))));
        if matches!(&image.base, Some(Base::Content(other)) if other == cid) {
            takers.insert(taker(None));
        }
    }
    takers
}

/// Whether a tree has proven itself before, and was not touched since.
fn is_remembered(project: &Project, ledger: &Ledger, cid: &Cid) -> bool {
    let seen = ledger.with(|memory| memory.root(&key(cid)));
    seen.is_some_and(|seen| seen.is_tree_unchanged(&project.root, &no_context()))
}

/// Whether a tree proves itself now, which is remembered.
fn is_proven(project: &Project, ledger: &Ledger, cid: &Cid, stopped: &(dyn Fn() -> bool + Sync)) -> bool {
    let (start, path) = (SystemTime::now(), build::content(&project.root, cid));
    let Some(listing) = proof(&path, cid, stopped) else { return false };
    let below = path.strip_prefix(&project.root).unwrap_or(&path);
    if let Ok(seen) = seen_of_tree(&project.root, below, &listing, start) {
        // Without it the next build reads the tree again, and that is all.
        let _ = ledger.note(vec![Entry::Root(key(cid), Arc::new(seen))]);
    }
    true
}

/// Under what it is remembered that a tree has proven itself.
fn key(cid: &Cid) -> String {
    format!("content:{cid}")
}

/// What is at a path, if it has this CID under one of the profiles.
fn proof(path: &Path, cid: &Cid, stopped: &(dyn Fn() -> bool + Sync)) -> Option<Listing> {
    path.symlink_metadata().ok()?;
    let names_same = |other: &Cid| other.codec() == cid.codec() && other.hash() == cid.hash();
    Profile::ALL.into_iter().find_map(|profile| {
        let options =
            ImportOptions { root_symlink: RootSymlink::Store, cancel: stopped, ..ImportOptions::new(profile) };
        // Without a cache, which may come with the tree.
        Listing::of_disk(path, &options, None).ok().filter(|listing| names_same(&listing.root.cid))
    })
}

/// That they cannot be removed is no reason not to build.
fn remove_others(project: &Project, state: &State) {
    let kept: BTreeSet<String> = wanted(project, project.images.values()).into_iter().map(Cid::to_string).collect();
    for name in state.contents().unwrap_or_default() {
        if let Some(cid) = name.parse::<Cid>().ok().filter(|_| !kept.contains(&name)) {
            let _ = state.remove_content(&cid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Cancel;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn a_tree_proves_itself_once_and_again_when_it_was_touched() {
        let dir = tempfile::tempdir().unwrap();
        let wetfile = "wetfile = 1\n[project]\nname = 'p'\nversion = '0.1.0'\n";
        fs::write(dir.path().join("Wetfile.toml"), wetfile).unwrap();
        let project = crate::wetfile::load(dir.path()).unwrap();
        let state = State::open(&project.root, &Cancel::default(), &|_| {}).unwrap();
        let ledger = Ledger::open(&state).unwrap();
        let tree = project.root.join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(tree.join("sub/file"), "x").unwrap();
        let listing = Listing::of_disk(&tree, &ImportOptions::new(Profile::default()), None).unwrap();
        let cid = listing.root.cid;
        let content = state.content(&cid);
        fs::rename(tree, &content).unwrap();
        // Long enough for it to be recognized by its times.
        std::thread::sleep(Duration::from_millis(150));

        let (proven, remembered) =
            (|| is_proven(&project, &ledger, &cid, &|| false), || is_remembered(&project, &ledger, &cid));
        assert!(!remembered() && proven() && remembered());
        fs::write(content.join("sub/file"), "x").unwrap();
        assert!(!remembered() && proven());
        fs::write(content.join("sub/new"), "x").unwrap();
        assert!(!remembered() && !proven() && !remembered());
    }
}
