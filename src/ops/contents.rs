//! Content that images take by its CID: written to the project's state, and believed only as far as it proves itself.
//!
//! A tree on disk that has the CID when it is imported again is the one that the CID names, whoever has written it. Those of
//! which no profile of ours gives the CID are written anew for each build, from blocks that were checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Error;
use crate::build::{self, State};
use crate::dag::Cid;
use crate::dag::unixfs::Profile;
use crate::tree::{self, BoxError, ImportOptions, RootSymlink};
use crate::wetfile::{Image, Project};

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

/// As [`present`], and brings what is missing. Trees that no image takes any more are removed.
pub(super) fn bring(
    project: &Project,
    state: &State,
    wanted: &BTreeSet<&Cid>,
    content: &dyn BringContent,
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<BTreeMap<Cid, PathBuf>, Error> {
    remove_others(project, state);
    let mut trees = present(&project.root, wanted, stopped);
    for cid in wanted {
        if trees.contains_key(*cid) {
            continue;
        }
        let failed = |source: BoxError| Error::Content { cid: Box::new(**cid), source };
        let target = state.content(cid);
        state.remove_content(cid).map_err(|error| failed(error.into()))?;
        content.bring(cid, &target).map_err(failed)?;
        trees.insert(**cid, target);
    }
    Ok(trees)
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
