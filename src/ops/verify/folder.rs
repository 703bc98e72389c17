//! Whether a folder, by itself, is an image, and the one that a CID names.

use std::path::Path;

use super::image::check_programs;
use super::project::{count_files, list_image};
use super::{Checked, Finding, FindingKind, Report, Stopped};
use crate::dag::Cid;
use crate::dag::unixfs::Profile;
use crate::escape;
use crate::ops::listing::{Listing, ListingError};
use crate::ops::lock::with_causes;
use crate::tree::{ImportError, ImportOptions};
use crate::wetfile::{Image, MAIN_PATH, Project};

/// Verifies the image in a folder: its structure and programs, and its CID under a profile, if one is expected.
///
/// # Errors
///
/// [`Stopped`], and nothing else: whatever cannot be read is a finding.
pub fn verify_folder(
    path: &Path,
    expected: Option<&Cid>,
    profile: Profile,
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Report, Stopped> {
    let subject = escape::path(path);
    let mut report = Report::default();
    let list =
        |profile| Listing::of_disk(path, &ImportOptions { cancel: stopped, ..ImportOptions::new(profile) }, None);
    let listing = match list(profile) {
        Ok(listing) => listing,
        Err(error) if error.is_stop() => return Err(Stopped),
        Err(error) => {
            report.add_unreadable(path, profile, Finding::new(FindingKind::Altered, subject, with_causes(&error)));
            return Ok(report);
        }
    };
    let cid = listing.root.cid;
    report.checked.push(Checked {
        subject: subject.clone(),
        path: Some(path.into()),
        cid: Some(cid),
        profile,
        files: count_files(&listing),
    });
    if let Some(expected) = expected.filter(|expected| **expected != cid) {
        let finding = other_cid(&subject, expected, &cid, profile, &|profile| list(profile));
        report.findings.push(finding.map_err(|_| Stopped)?);
    }
    check_structure(&subject, &listing, &mut report.findings);
    let mut programs = Vec::new();
    check_programs(&subject, path, &listing, &mut programs);
    report.findings.extend(programs.into_iter().map(|finding| finding.below(path)));
    Ok(report)
}

/// Whether an image of a project is the one that a CID names under a profile, whatever else is to be said of it.
///
/// # Errors
///
/// [`Stopped`], and nothing else: whatever cannot be read is a finding.
pub fn verify_cid(
    project: &Project,
    image: &Image,
    expected: &Cid,
    profile: Profile,
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Finding>, Stopped> {
    let subject = format!("image `{}`", image.name);
    let list = |profile| list_image(project, image, &ImportOptions { cancel: stopped, ..ImportOptions::new(profile) });
    let found = match list(profile) {
        Ok(listing) if listing.root.cid == *expected => return Ok(Vec::new()),
        Ok(listing) => other_cid(&subject, expected, &listing.root.cid, profile, &list),
        Err(error) => Err(error),
    };
    match found {
        Ok(finding) => Ok(vec![finding.with_path(image.out.as_str())]),
        Err(error) if error.is_stop() => Err(Stopped),
        Err(error) => Ok(vec![Finding::new(FindingKind::Altered, &subject, with_causes(&error))]),
    }
}

/// Reports an image that has no program at all; whether what is there can be run, is for others to tell.
pub(super) fn check_structure(subject: &str, listing: &Listing, findings: &mut Vec<Finding>) {
    if !listing.objects.iter().any(|object| object.path == MAIN_PATH) {
        let message = format!("it has no `{MAIN_PATH}`, so it is no image");
        findings.push(Finding::new(FindingKind::NotComponent, subject, message));
    }
}

/// A tree whose CID is another than expected: under another profile, or because it is another tree.
pub(super) fn other_cid(
    subject: &str,
    expected: &Cid,
    cid: &Cid,
    profile: Profile,
    list: &dyn Fn(Profile) -> Result<Listing, ListingError>,
) -> Result<Finding, ListingError> {
    for other in Profile::ALL.into_iter().filter(|other| *other != profile) {
        match list(other) {
            Ok(listing) if listing.root.cid == *expected => {
                let message = format!("{expected} is its CID under the profile {other}, not under {profile}");
                return Ok(Finding::new(FindingKind::Profile, subject, message));
            }
            Err(error @ ListingError::Import(ImportError::Cancelled)) => return Err(error),
            _ => {}
        }
    }
    let message = format!("it is {cid}, not {expected}");
    Ok(Finding::new(FindingKind::Altered, subject, message))
}
