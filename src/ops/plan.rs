//! What an image is to hold, told from its Wetfile and its sources alone: neither the lock nor the image is asked.

use std::collections::{BTreeMap, BTreeSet};

use super::listing::{ListedKind, Listing};
use crate::dag::Block;
use crate::dag::unixfs::{self, BuildError, Entry, EntryName, Profile, Subtree};
use crate::image::STANDARD_FOLDERS;
use crate::wetfile::lock::{Digest, ImageLock, Lock, LockedFile, Toolchain};
use crate::wetfile::{GuestName, Image, ImagePath, Source};

/// An image whose sources have been read.
pub(super) struct Plan<'a> {
    pub(super) image: &'a Image,
    /// How all CIDs are made.
    pub(super) profile: Profile,
    /// What is copied, by its place in the image.
    pub(super) sources: BTreeMap<ImagePath, Listing>,
}

/// Something that an image is to hold, and that holds nothing itself.
#[derive(Clone, Debug)]
enum Leaf {
    Guest(GuestName),
    Copied(Subtree),
}

impl Plan<'_> {
    /// What the lock is to say of the image, but for its CIDs. Of the guests it is told what the lock says that they are
    /// made of; those that are not in it are left out.
    pub(super) fn locked(&self, lock: &Lock) -> ImageLock {
        let inputs = |name: &GuestName| Some((name.clone(), lock.guests.get(name).map(|guest| guest.inputs.digest())?));
        self.with_guests(self.image.guests().into_iter().filter_map(inputs).collect())
    }

    /// The same, with digests of what the guests are made of.
    pub(super) fn with_guests(&self, guests: BTreeMap<GuestName, Digest>) -> ImageLock {
        let file = |leaf| match leaf {
            Leaf::Guest(guest) => LockedFile::Guest(guest),
            Leaf::Copied(subtree) => LockedFile::Copied(subtree.cid),
        };
        ImageLock {
            profile: self.profile,
            guests,
            sources: self.sources.iter().map(|(place, listing)| (place.clone(), listing.root.cid)).collect(),
            files: self.leaves().into_iter().map(|(path, leaf)| (path, file(leaf))).collect(),
            cids: BTreeMap::new(),
        }
    }

    /// What compiled the guests of the image.
    pub(super) fn toolchain<'t>(&self, of: impl Fn(&GuestName) -> &'t Toolchain) -> Toolchain {
        Toolchain::joined(self.image.guests().into_iter().map(of))
    }

    /// The whole image, with these artifacts of its guests.
    ///
    /// # Errors
    ///
    /// If a folder of it cannot be named by its content.
    pub(super) fn root(&self, artifacts: &BTreeMap<GuestName, Subtree>) -> Result<Subtree, BuildError> {
        let mut tree = Tree::default();
        for (path, leaf) in self.leaves() {
            match leaf {
                Leaf::Guest(guest) => tree.insert(&path, artifacts[&guest]),
                Leaf::Copied(subtree) => tree.insert(&path, subtree),
            }
        }
        tree.subtree(&self.profile)
    }

    fn leaves(&self) -> BTreeMap<String, Leaf> {
        let empty = empty_folder(&self.profile);
        let mut leaves: BTreeMap<String, Leaf> =
            STANDARD_FOLDERS.into_iter().map(|folder| (folder.to_owned(), Leaf::Copied(empty))).collect();
        for (place, source) in &self.image.files {
            if let Source::Guest(guest) = source {
                leaves.insert(place.to_string(), Leaf::Guest(guest.clone()));
            }
        }
        for (place, listing) in &self.sources {
            if listing.objects.is_empty() {
                leaves.insert(place.to_string(), Leaf::Copied(listing.root));
            }
            for object in &listing.objects {
                if object.kind != (ListedKind::Folder { is_empty: false }) {
                    let subtree = Subtree { cid: object.cid, dag_size: object.dag_size };
                    leaves.insert(join(place.as_str(), &object.path), Leaf::Copied(subtree));
                }
            }
        }
        // Empty folders that something else fills.
        filled(&leaves).iter().for_each(|path| drop(leaves.remove(path)));
        leaves
    }
}

/// The paths that something else is below.
fn filled(leaves: &BTreeMap<String, Leaf>) -> BTreeSet<String> {
    let mut filled = BTreeSet::new();
    let mut previous = None;
    for path in leaves.keys() {
        let folder = path.rsplit_once('/').map(|(folder, _)| folder);
        // Those in one folder mostly follow each other, and what is above them is looked for once.
        if folder == previous {
            continue;
        }
        previous = folder;
        let above = std::iter::successors(folder, |folder| folder.rsplit_once('/').map(|(above, _)| above));
        filled.extend(above.filter(|above| leaves.contains_key(*above)).map(str::to_owned));
    }
    filled
}

/// A path below another; either may be empty.
pub(super) fn join(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

/// Whether something is below a path.
pub(super) fn holds_below<T>(files: &BTreeMap<String, T>, path: &str) -> bool {
    let below = format!("{path}/");
    files.range(below.clone()..).next().is_some_and(|(path, _)| path.starts_with(&below))
}

fn empty_folder(profile: &Profile) -> Subtree {
    let mut sink = |_: Block| Ok::<(), BuildError>(());
    unixfs::directory(profile, Vec::new(), &mut sink).expect("an empty folder can be named")
}

/// A tree of folders. Image paths are bounded in depth, so what recurses here ends.
#[derive(Default)]
struct Tree {
    folders: BTreeMap<String, Tree>,
    leaves: BTreeMap<String, Subtree>,
}

impl Tree {
    fn insert(&mut self, path: &str, leaf: Subtree) {
        match path.split_once('/') {
            Some((folder, rest)) => self.folders.entry(folder.to_owned()).or_default().insert(rest, leaf),
            None => drop(self.leaves.insert(path.to_owned(), leaf)),
        }
    }

    fn subtree(self, profile: &Profile) -> Result<Subtree, BuildError> {
        let mut entries = Vec::new();
        for (name, target) in self.leaves {
            entries.push(Entry { name: EntryName::new(name)?, target });
        }
        for (name, folder) in self.folders {
            entries.push(Entry { name: EntryName::new(name)?, target: folder.subtree(profile)? });
        }
        unixfs::directory(profile, entries, &mut |_| Ok(()))
    }
}
