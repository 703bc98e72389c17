//! Whether images of a Wetfile are what its lock says, and the lock what its sources say.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use super::image::{Comparison, check_programs};
use super::{Checked, Finding, FindingKind, Report, Stopped};
use crate::build::Variables;
use crate::build::ledger::Memory;
use crate::dag::unixfs::Profile;
use crate::ops::contents;
use crate::ops::listing::{ListedKind, Listing, ListingError};
use crate::ops::lock::{self, OutOfDate, Reading, with_causes};
use crate::tree::{ImportError, ImportOptions};
use crate::wetfile::lock::{LOCK_FILE_NAME, Lock};
use crate::wetfile::{GuestName, Image, ImageName, Project};

/// How many images are listed before they are wanted: one thread reads the lock and the sources, and compares, while others
/// read and hash the images. A listing takes some 300 bytes for each file.
const LISTED_AHEAD: usize = 1;

/// Gives listings of images, or why there are none.
type Listings = mpsc::Receiver<Result<Listing, ListingError>>;

/// Verifies images of a project, with the guests that are in them; all guests and images if none are named.
///
/// `environment` is that of the process, for the values of variables that guests inherit. `stopped` is asked all the time.
///
/// # Errors
///
/// [`Stopped`], and nothing else: whatever cannot be read is a finding.
pub fn verify_project(
    project: &Project,
    images: &BTreeSet<&ImageName>,
    environment: &Variables,
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Report, Stopped> {
    let is_wanted = |image: &&Image| images.is_empty() || images.contains(&image.name);
    let wanted: Vec<&Image> = project.images.values().filter(is_wanted).collect();
    let options = ImportOptions { cancel: stopped, ..ImportOptions::new(Profile::default()) };
    let (sender, listings) = mpsc::sync_channel(LISTED_AHEAD);
    thread::scope(|scope| {
        let (wanted, options) = (&wanted, &options);
        let list = move || {
            for image in wanted {
                if sender.send(list_image(project, image, options)).is_err() {
                    // The verification was stopped.
                    break;
                }
            }
        };
        // Where there can be no more threads, images are listed when they are wanted.
        let _ = thread::Builder::new().name("ww-verify".into()).spawn_scoped(scope, list);
        verify_images(project, images, wanted, environment, stopped, listings)
    })
}

/// The same, with listings of the images as they are under the default profile, in their order, as far as there are any.
fn verify_images(
    project: &Project,
    images: &BTreeSet<&ImageName>,
    wanted: &[&Image],
    environment: &Variables,
    stopped: &(dyn Fn() -> bool + Sync),
    listings: Listings,
) -> Result<Report, Stopped> {
    let mut report = Report::default();
    let lock = load(project, &mut report.findings);
    if let Some(lock) = &lock {
        let guests: BTreeSet<&GuestName> = match images.is_empty() {
            true => project.guests.keys().collect(),
            false => wanted.iter().flat_map(|image| project.layers(image)).flat_map(Image::guests).collect(),
        };
        let mut found = lock::leftovers(project, lock);
        let (present, unreadable) = lock::present_inputs(project, lock, &guests, environment);
        found.extend(unreadable);
        found.extend(lock::stale_guests(lock, &present));
        report.findings.extend(found.into_iter().map(of_lock));
    }
    let memory = Memory::of_project(&project.root);
    for image in wanted {
        if stopped() {
            return Err(Stopped);
        }
        verify_image(project, &memory, lock.as_ref(), image, stopped, &listings, &mut report)?;
    }
    Ok(report)
}

pub(super) fn load(project: &Project, findings: &mut Vec<Finding>) -> Option<Lock> {
    let problem = match crate::wetfile::lock::load(&project.root) {
        Ok(Some(lock)) => return Some(lock),
        Ok(None) => "it is missing: `ww build` writes it, and it belongs into version control".to_owned(),
        Err(error) => with_causes(&error),
    };
    findings.push(Finding::new(FindingKind::Lock, LOCK_FILE_NAME, problem).with_path(LOCK_FILE_NAME));
    None
}

pub(super) fn of_lock(found: OutOfDate) -> Finding {
    let finding =
        Finding::new(FindingKind::Lock, found.subject, format!("{}: {LOCK_FILE_NAME} is out of date", found.problem));
    match found.path {
        Some(path) => finding.with_path(path),
        None => finding.with_path(LOCK_FILE_NAME),
    }
}

fn verify_image(
    project: &Project,
    memory: &Memory,
    lock: Option<&Lock>,
    image: &Image,
    stopped: &(dyn Fn() -> bool + Sync),
    listings: &Listings,
    report: &mut Report,
) -> Result<(), Stopped> {
    let subject = format!("image `{}`", image.name);
    let locked = lock.and_then(|lock| lock.images.get(&image.name));
    // Under another profile everything can agree, but for the profile.
    let profile = locked.map_or_else(Profile::default, |locked| locked.profile);
    let contents = contents::present(&project.root, &contents::wanted(project, [image]), stopped);
    let reading = Reading { project, stopped, profile, contents: &contents, state: None };
    if let Some(lock) = lock {
        match reading.plan(image) {
            Ok(plan) => report.findings.extend(lock::stale_image(lock, &plan).into_iter().map(of_lock)),
            Err((_, error)) if error.is_stop() => return Err(Stopped),
            Err((path, error @ ListingError::NotHere { .. })) => {
                let message = format!("what it is made of cannot be told: {}", with_causes(&error));
                report
                    .findings
                    .push(Finding::new(FindingKind::Inconclusive, &subject, message).with_path(path.as_str()));
            }
            Err((path, error)) => {
                let OutOfDate { problem, .. } = lock::unreadable_source(image, &path, &error);
                report.findings.push(Finding::new(FindingKind::Lock, &subject, problem).with_path(path.as_str()));
            }
        }
    }
    // The image itself is always read, whatever is remembered of it.
    if profile != Profile::default() {
        let message =
            format!("the lock has its CIDs under the profile {profile}, and not under {}", Profile::default());
        report.findings.push(Finding::new(FindingKind::Profile, &subject, message).with_path(LOCK_FILE_NAME));
    }
    let root = image.out.to_path(&project.root);
    let options = ImportOptions { cancel: stopped, ..ImportOptions::new(profile) };
    let listed = listings.recv().ok().filter(|_| profile == Profile::default());
    let listing = match listed.unwrap_or_else(|| list_image(project, image, &options)) {
        Ok(listing) => listing,
        Err(error) if error.is_stop() => return Err(Stopped),
        Err(error) => {
            let reason = Finding::new(FindingKind::Altered, subject, unreadable(image, &error));
            report.add_unreadable(&root, profile, reason.with_path(image.out.as_str()));
            return Ok(());
        }
    };
    report.checked.push(Checked {
        subject: subject.clone(),
        path: Some(root.clone()),
        cid: Some(listing.root.cid),
        profile,
        files: count_files(&listing),
    });
    if let (Some(lock), Some(locked)) = (lock, locked) {
        let shown = image.out.as_str();
        let comparison =
            Comparison { project, memory, lock, locked, subject: &subject, root: &root, shown, listing: &listing };
        comparison.check(&mut report.findings);
    }
    let mut programs = Vec::new();
    check_programs(&subject, &root, &listing, &mut programs);
    let out = Path::new(image.out.as_str());
    report.findings.extend(programs.into_iter().map(|finding| finding.below(out)));
    Ok(())
}

/// Lists an image on disk. No folder on the way to it may be a symlink, as when it was written.
pub(super) fn list_image(
    project: &Project,
    image: &Image,
    options: &ImportOptions<'_>,
) -> Result<Listing, ListingError> {
    for prefix in image.out.prefixes() {
        let path = prefix.to_path(&project.root);
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(ImportError::RootSymlink { path }.into());
        }
    }
    Listing::of_disk(&image.out.to_path(&project.root), options, None)
}

fn unreadable(image: &Image, error: &ListingError) -> String {
    match error {
        ListingError::Import(ImportError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            format!("there is nothing at {}: `ww build` makes it", image.out)
        }
        error => format!("it cannot be read: {}", with_causes(error)),
    }
}

pub(super) fn count_files(listing: &Listing) -> u64 {
    listing.objects.iter().filter(|object| matches!(object.kind, ListedKind::File { .. })).count() as u64
}
