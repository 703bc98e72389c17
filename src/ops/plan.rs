//! What an image is to hold, told from its Wetfile and its sources alone: neither the lock nor the image is asked.

use std::collections::{BTreeMap, BTreeSet};

use super::listing::{Listed, ListedKind, Listing};
use crate::dag::unixfs::{self, BuildError, Entry, EntryName, Profile, Subtree};
use crate::dag::{Block, Cid};
use crate::image::STANDARD_FOLDERS;
use crate::wetfile::lock::{Digest, ImageLock, Lock, LockedFile, Toolchain};
use crate::wetfile::{GuestName, Image, ImagePath, Source};

/// An image whose sources have been read.
pub(super) struct Plan<'a> {
    pub(super) image: &'a Image,
    /// How all CIDs are made.
    pub(super) profile: Profile,
    /// What it lists itself and that is copied, by its place in the image.
    pub(super) sources: BTreeMap<ImagePath, Listing>,
    /// What it begins as.
    base: PlannedBase<'a>,
    /// All that it is to hold, by path.
    leaves: BTreeMap<String, Leaf>,
}

/// What an image begins as, read.
pub(super) enum PlannedBase<'a> {
    Nothing,
    Image(Box<Plan<'a>>),
    Content(Listing),
}

/// Something that an image is to hold, and that holds nothing itself.
#[derive(Clone, Debug)]
enum Leaf {
    Guest(GuestName),
    Copied(Subtree),
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        image: &'a Image,
        profile: Profile,
        sources: BTreeMap<ImagePath, Listing>,
        base: PlannedBase<'a>,
    ) -> Self {
        let mut plan = Self { image, profile, sources, base, leaves: BTreeMap::new() };
        plan.leaves = plan.all_leaves();
        plan
    }

    /// What the lock is to say of the image, but for its CIDs. Of the guests it is told what the lock says that they are
    /// made of; those that are not in it are left out.
    pub(super) fn locked(&self, lock: &Lock) -> ImageLock {
        let inputs =
            |name: GuestName| lock.guests.get(&name).map(|guest| guest.inputs.digest()).map(|digest| (name, digest));
        self.with_guests(self.guests().into_iter().filter_map(inputs).collect())
    }

    /// The same, with digests of what the guests are made of.
    pub(super) fn with_guests(&self, guests: BTreeMap<GuestName, Digest>) -> ImageLock {
        let file = |leaf: &Leaf| match leaf {
            Leaf::Guest(guest) => LockedFile::Guest(guest.clone()),
            Leaf::Copied(subtree) => LockedFile::Copied(subtree.cid),
        };
        ImageLock {
            profile: self.profile,
            guests,
            contents: self.contents(),
            base: self.image.base.clone(),
            sources: self.sources.iter().map(|(place, listing)| (place.clone(), listing.root.cid)).collect(),
            files: self.leaves.iter().map(|(path, leaf)| (path.clone(), file(leaf))).collect(),
            cids: BTreeMap::new(),
        }
    }

    /// The guests whose artifacts the image holds, those from its base included.
    pub(super) fn guests(&self) -> BTreeSet<GuestName> {
        let guests = self.leaves.values().filter_map(|leaf| match leaf {
            Leaf::Guest(guest) => Some(guest.clone()),
            Leaf::Copied(_) => None,
        });
        guests.collect()
    }

    /// This plan and those of the images that it is based on.
    pub(super) fn and_bases(&self) -> Vec<&Self> {
        let mut plans = vec![self];
        if let PlannedBase::Image(base) = &self.base {
            plans.extend(base.and_bases());
        }
        plans
    }

    /// The image and those that it is based on, itself first.
    pub(super) fn layers(&self) -> Vec<&'a Image> {
        let mut layers = vec![self.image];
        if let PlannedBase::Image(base) = &self.base {
            layers.extend(base.layers());
        }
        layers
    }

    /// The CIDs that the Wetfile gives for its own entries.
    fn contents(&self) -> BTreeMap<ImagePath, Cid> {
        let files = self.image.files.iter().filter_map(|(place, source)| match source {
            Source::Content(cid) => Some((place.clone(), *cid)),
            _ => None,
        });
        files.collect()
    }

    /// What compiled the guests of the image.
    pub(super) fn toolchain<'t>(&self, of: impl Fn(&GuestName) -> &'t Toolchain) -> Toolchain {
        Toolchain::joined(self.guests().iter().map(of))
    }

    /// The whole image, with these artifacts of its guests.
    ///
    /// # Errors
    ///
    /// If a folder of it cannot be named by its content.
    pub(super) fn root(&self, artifacts: &BTreeMap<GuestName, Subtree>) -> Result<Subtree, BuildError> {
        let mut tree = Tree::default();
        for (path, leaf) in &self.leaves {
            match leaf {
                Leaf::Guest(guest) => tree.insert(path, artifacts[guest]),
                Leaf::Copied(subtree) => tree.insert(path, *subtree),
            }
        }
        tree.subtree(&self.profile)
    }

    fn all_leaves(&self) -> BTreeMap<String, Leaf> {
        let empty = empty_folder(&self.profile);
        let mut leaves: BTreeMap<String, Leaf> =
            STANDARD_FOLDERS.into_iter().map(|folder| (folder.to_owned(), Leaf::Copied(empty))).collect();
        let is_empty_folder = |leaf: &Leaf| matches!(leaf, Leaf::Copied(subtree) if subtree.cid == empty.cid);
        match &self.base {
            PlannedBase::Nothing => {}
            PlannedBase::Image(base) => leaves.clone_from(&base.leaves),
            PlannedBase::Content(listing) => lay_over(&mut leaves, leaves_of(listing, ""), is_empty_folder),
        }
        lay_over(&mut leaves, self.own_leaves(), is_empty_folder);
        // Empty folders that something else fills.
        filled(&leaves).iter().for_each(|path| drop(leaves.remove(path)));
        leaves
    }

    /// What the image lists itself.
    fn own_leaves(&self) -> BTreeMap<String, Leaf> {
        let mut leaves = BTreeMap::new();
        for (place, source) in &self.image.files {
            if let Source::Guest(guest) = source {
                leaves.insert(place.to_string(), Leaf::Guest(guest.clone()));
            }
        }
        for (place, listing) in &self.sources {
            if listing.objects.is_empty() {
                leaves.insert(place.to_string(), Leaf::Copied(listing.root));
            }
            leaves.extend(leaves_of(listing, place.as_str()));
        }
        leaves
    }
}

/// Everything in a tree that holds nothing itself, by its path below `place`.
fn leaves_of(listing: &Listing, place: &str) -> BTreeMap<String, Leaf> {
    let leaves = listing.objects.iter().filter(|object| object.kind != ListedKind::Folder { is_empty: false });
    let subtree = |object: &Listed| Subtree { cid: object.cid, dag_size: object.dag_size };
    leaves.map(|object| (join(place, &object.path), Leaf::Copied(subtree(object)))).collect()
}

/// Lays leaves over others, which they replace where both cannot be there. Whether that is allowed is told when the image is
/// assembled.
fn lay_over(
    below: &mut BTreeMap<String, Leaf>,
    above: BTreeMap<String, Leaf>,
    is_empty_folder: impl Fn(&Leaf) -> bool,
) {
    for (path, leaf) in above {
        for (end, _) in path.match_indices('/') {
            if below.get(&path[..end]).is_some_and(|leaf| !is_empty_folder(leaf)) {
                below.remove(&path[..end]);
            }
        }
        if !is_empty_folder(&leaf) {
            let start = format!("{path}/");
            let inside = below.range(start.clone()..).map(|(inside, _)| inside);
            let inside: Vec<String> = inside.take_while(|inside| inside.starts_with(&start)).cloned().collect();
            inside.iter().for_each(|inside| drop(below.remove(inside)));
        }
        below.insert(path, leaf);
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
