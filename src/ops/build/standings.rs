//! Where guests and images stand: all that a build wants to know before it begins.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::images::{ImageStanding, ImageSurvey};
use super::targets::Targets;
use super::{Built, BuiltImage, LockChange};
use crate::build::ledger::{Entry, ImageRecord, Memory};
use crate::build::{BuildError, BuiltGuest, Reason, Standing, Survey, Variables};
use crate::ops::Error;
use crate::ops::lock::Reading;
use crate::wetfile::{Guest, GuestName, Image, ImageName, Project};

/// What would be built, in the order in which it would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildPlan {
    /// Guests, with what they need, each after those that it uses.
    pub guests: Vec<PlannedTarget<GuestName>>,
    /// Images.
    pub images: Vec<PlannedTarget<ImageName>>,
}

/// A guest or an image of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTarget<N> {
    /// Its name.
    pub name: N,
    /// Why it would be built; none if it would not be.
    pub reasons: Vec<Reason>,
}

/// Where everything stands that is to be built.
pub(super) struct Standings {
    pub(super) guests: BTreeMap<GuestName, Standing>,
    images: BTreeMap<ImageName, ImageStanding>,
    /// The images that are in their folders as they were left there, whether or not they are to be assembled anew.
    pub(super) whole: BTreeSet<ImageName>,
    /// What was found out on the way and is worth remembering.
    pub(super) entries: Vec<Entry>,
}

impl Standings {
    pub(super) fn of(
        project: &Project,
        targets: &Targets<'_>,
        variables: &Variables,
        memory: &Memory,
        reading: Reading<'_>,
    ) -> Result<Self, Error> {
        let mut entries = Vec::new();
        let mut guests = BTreeMap::new();
        let survey = Survey::new(project, variables, memory).map_err(|source| Error::Survey { source })?;
        for name in project.build_order(targets.guests.iter().copied()) {
            let guest = &project.guests[name];
            let embeds = guest.embeds.iter().filter_map(|name| Some((name.clone(), guests.get(name).cloned()?)));
            let standing = survey.guest(guest, &embeds.collect(), &mut entries);
            let standing = after_needed(guest, standing, &guests);
            guests.insert(name.clone(), standing);
            if (reading.stopped)() {
                return Err(Error::Build { guest: name.clone(), source: BuildError::Cancelled });
            }
        }
        let survey = ImageSurvey { reading, memory, whole: RefCell::default() };
        let mut images = BTreeMap::new();
        for image in &targets.images {
            let standing = survey.image(image, &guests, &mut entries);
            let standing = standing.map_err(|source| Error::Listing { image: image.name.clone(), source })?;
            images.insert(image.name.clone(), standing);
        }
        // Guests share roots, and each has told of them.
        dedup_roots(&mut entries);
        Ok(Self { guests, images, whole: survey.whole.into_inner(), entries })
    }

    /// What a build has to show, if there is nothing to do.
    pub(super) fn as_built(&self, project: &Project, targets: &Targets<'_>) -> Option<Built> {
        let mut guests = BTreeMap::new();
        for (name, standing) in &self.guests {
            match standing {
                Standing::Fresh(built) => drop(guests.insert(name.clone(), built.path.clone())),
                Standing::Stale(_) => return None,
            }
        }
        let fresh = |image: &&Image| match self.images.get(&image.name)? {
            ImageStanding::Fresh(record) => built_image(image, record, project),
            ImageStanding::Stale(_) => None,
        };
        let images = targets.images.iter().map(fresh).collect::<Option<Vec<_>>>()?;
        Some(Built { guests, images, lock: LockChange::None, not_held: BTreeMap::new() })
    }

    /// Which images are to be assembled, and why, now that guests are built. Building them may have written what images take.
    pub(super) fn stale_images<'a>(
        &self,
        project: &'a Project,
        wanted: &[&'a Image],
        memory: &'a Memory,
        reading: Reading<'a>,
        guests: &BTreeMap<GuestName, BuiltGuest>,
    ) -> Result<BTreeMap<ImageName, Vec<Reason>>, Error> {
        let fresh = |(name, built): (&GuestName, &BuiltGuest)| (name.clone(), Standing::Fresh(Box::new(built.clone())));
        let guests: BTreeMap<GuestName, Standing> = guests.iter().map(fresh).collect();
        let was_built = self.guests.values().any(|standing| matches!(standing, Standing::Stale(_)));
        let survey = ImageSurvey { reading: Reading { project, ..reading }, memory, whole: RefCell::default() };
        let mut stale = BTreeMap::new();
        for image in wanted {
            let standing = match self.images.get(&image.name) {
                Some(standing) if !was_built => standing.clone(),
                _ => {
                    let looked = survey.image(image, &guests, &mut Vec::new());
                    looked.map_err(|source| Error::Listing { image: image.name.clone(), source })?
                }
            };
            if let ImageStanding::Stale(reasons) = standing {
                stale.insert(image.name.clone(), reasons);
            }
        }
        Ok(stale)
    }

    pub(super) fn as_plan(&self, project: &Project, targets: &Targets<'_>) -> BuildPlan {
        let guests = project.build_order(targets.guests.iter().copied()).into_iter();
        let guests = guests.map(|name| PlannedTarget {
            name: name.clone(),
            reasons: match &self.guests[name] {
                Standing::Fresh(_) => Vec::new(),
                Standing::Stale(reasons) => reasons.clone(),
            },
        });
        let images = self.images.iter().map(|(name, standing)| PlannedTarget {
            name: name.clone(),
            reasons: match standing {
                ImageStanding::Fresh(_) => Vec::new(),
                ImageStanding::Stale(reasons) => reasons.clone(),
            },
        });
        BuildPlan { guests: guests.collect(), images: images.collect() }
    }
}

/// Where a guest stands, given where those stand that it needs. What is built before it may write what it is made of: then it
/// has to wait, and be looked at again.
fn after_needed(guest: &Guest, standing: Standing, guests: &BTreeMap<GuestName, Standing>) -> Standing {
    if matches!(standing, Standing::Stale(_)) {
        return standing;
    }
    let is_stale = |name: &&GuestName| matches!(guests.get(*name), Some(Standing::Stale(_)));
    let before: Vec<_> =
        guest.needs.iter().filter(is_stale).map(|name| Reason::Before { name: name.to_string() }).collect();
    if before.is_empty() { standing } else { Standing::Stale(before) }
}

/// What a build shows of an image that it has left alone.
pub(super) fn built_image(image: &Image, record: &ImageRecord, project: &Project) -> Option<BuiltImage> {
    Some(BuiltImage {
        name: image.name.clone(),
        out: image.out.to_path(&project.root),
        files: record.files,
        size_bytes: record.size_bytes,
        changed: false,
        cid: record.cid.parse().ok()?,
        profile: crate::dag::unixfs::Profile::default(),
    })
}

fn dedup_roots(entries: &mut Vec<Entry>) {
    let mut keys = std::collections::HashSet::new();
    entries.retain(|entry| match entry {
        Entry::Root(key, _) => keys.insert(key.clone()),
        Entry::Tools(digest, _) => keys.insert(digest.to_string()),
        _ => true,
    });
}
