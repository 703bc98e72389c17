//! What guests and images are made of, all together: whether it has changed is whether to build again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::Error;
use super::build::{Listed, Targets, source_of_image};
use super::lock::Reading;
use crate::build::ledger::Memory;
use crate::build::{Survey, Variables};
use crate::dag::unixfs::Profile;
use crate::wetfile::lock::{Digest, Facts};
use crate::wetfile::{GuestName, Project};

/// What is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// What names all of it; results are no part of it.
    pub digest: Digest,
    /// The folders in which something of it lies.
    pub folders: BTreeSet<PathBuf>,
    /// Whether all of it was found. Otherwise there may be folders that are not among these.
    pub is_whole: bool,
}

/// Finds out what guests and images are built from, with what they need; everything if there are no names. What cannot be
/// read counts as something that is not there.
///
/// # Errors
///
/// [`Error`] for a name that the project does not have, and where it was stopped.
pub fn sources(
    variables: &Variables,
    project: &Project,
    names: &[String],
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Sources, Error> {
    let targets = Targets::of(project, names)?;
    let memory = Memory::of_project(&project.root);
    let nothing = BTreeMap::new();
    let reading = Reading { project, stopped, profile: Profile::default(), contents: &nothing, state: None };
    let survey = Survey::new(project, variables, &memory).map_err(|source| Error::Survey { source })?;
    let mut facts = Facts::default();
    let mut folders = BTreeSet::new();
    let mut digests = BTreeMap::<GuestName, Digest>::new();
    let mut is_whole = true;
    for name in project.build_order(targets.guests.iter().copied()) {
        let guest = &project.guests[name];
        folders.insert(guest.dir.to_path(&project.root));
        let Ok((digest, below)) = survey.sources(guest, &digests) else {
            is_whole = false;
            continue;
        };
        facts.add(format!("guest {name}"));
        facts.add(digest.to_string());
        digests.insert(name.clone(), digest);
        folders.extend(below.into_iter().map(|folder| project.root.join(folder)));
    }
    for image in &targets.images {
        for (place, source) in &image.files {
            facts.add(format!("image {} {place} {source:?}", image.name));
            let Some(listed) = Listed::of(place, source) else { continue };
            match source_of_image(&reading, &memory, listed) {
                Ok(Some(seen)) => {
                    facts.add(seen.digest.to_string());
                    folders.extend(seen.folders().map(|folder| project.root.join(folder)));
                }
                Ok(None) => {
                    is_whole = false;
                    folders.extend(listed.path().to_path(&project.root).parent().map(PathBuf::from));
                }
                Err(source) => return Err(Error::Listing { image: image.name.clone(), source }),
            }
        }
    }
    Ok(Sources { digest: facts.finish(), folders, is_whole })
}
