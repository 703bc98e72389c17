//! Content that images take by its CID: written to the project's state, and believed only as far as it proves itself.
//!
//! A tree on disk that has the CID when it is imported again is the one that the CID names, whoever has written it. Those of
//! which no profile of ours gives the CID are written anew for each build, from blocks that were checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::Error;
use crate::build::{self, State};
use crate::dag::Cid;
use crate::dag::unixfs::Profile;
use crate::escape;
use crate::tree::{self, BoxError, ImportOptions, RootSymlink};
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
    let proven = wanted.iter().map(|cid| (**cid, build::content(root, cid)));
    proven.filter(|(cid, path)| proves(path, cid, stopped)).collect()
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
    project: &Project,
    state: &State,
    images: &[&Image],
    content: &dyn BringContent,
    stopped: &(dyn Fn() -> bool + Sync),
    failed: &mut dyn FnMut(BTreeSet<Taker>, Error) -> Result<(), Error>,
) -> Result<BTreeMap<Cid, PathBuf>, Error> {
    remove_others(project, state);
    let wanted = wanted(project, images.iter().copied());
    let mut trees = present(&project.root, &wanted, stopped);
    for cid in wanted {
        if trees.contains_key(cid) {
            continue;
        }
        let target = state.content(cid);
        let brought = state.remove_content(cid).map_err(BoxError::from).and_then(|()| content.bring(cid, &target));
        match brought {
            Ok(()) => drop(trees.insert(*cid, target)),
            Err(source) => {
                let takers = takers(cid, images);
                failed(takers.clone(), Error::Content { cid: Box::new(*cid), takers, source })?;
            }
        }
        if stopped() {
            break;
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

/// Whether what is at a path has this CID under one of the profiles.
fn proves(path: &Path, cid: &Cid, stopped: &(dyn Fn() -> bool + Sync)) -> bool {
    if path.symlink_metadata().is_err() {
        return false;
    }
    let names_same = |other: &Cid| other.codec() == cid.codec() && other.hash() == cid.hash();
    Profile::ALL.into_iter().any(|profile| {
        let options =
            ImportOptions { root_symlink: RootSymlink::Store, cancel: stopped, ..ImportOptions::new(profile) };
        // Without a cache: that would be believed, and it may come with the tree.
        tree::import(path, &options, None, None).is_ok_and(|imported| names_same(&imported.subtree.cid))
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
