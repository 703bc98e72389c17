//! Whether a DAG is an image, whole, and built as its profile says.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;

use bytes::Bytes;

use super::folder::check_structure;
use super::program;
use super::project::count_files;
use super::{Checked, Finding, FindingKind, Report, Stopped};
use crate::dag::unixfs::{self, Blocks, BuildError, Chunker, Entry, EntryName, FileBuilder, Profile, Subtree};
use crate::dag::{Block, Cid};
use crate::ops::blocks::{self, CONTENT_BYTES_MAX, GetBlock, ReadError, Source};
use crate::ops::listing::{ListedKind, Listing};
use crate::ops::lock::with_causes;
use crate::wasm_binary;

/// What is verified: a root, and where its blocks are.
#[derive(Clone, Copy)]
pub struct DagTarget<'a> {
    /// How it is called in the report.
    pub subject: &'a str,
    /// The file that it is in, if it is in one.
    pub path: Option<&'a std::path::Path>,
    /// The root.
    pub root: Cid,
    /// Where the blocks are.
    pub block: GetBlock<'a>,
    /// The profile that it must be built under.
    pub profile: Profile,
}

/// Most objects that are listed for one report, whatever number of roots they are below.
const OBJECTS_MAX: usize = 4_000_000;

/// For roots that are not looked at, because those before them were too much.
const TOO_MUCH: &str = "it was not looked at: there are too many files and folders below the roots before it";

/// What one report may still cost. Roots may share blocks, and profiles are tried one by one, so that a small archive can
/// stand for more work than anybody waits for.
pub(super) struct Budget {
    bytes: Cell<u64>,
    objects: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { bytes: Cell::new(CONTENT_BYTES_MAX), objects: OBJECTS_MAX }
    }

    fn spend(&self, bytes: u64) -> Result<(), ReadError> {
        self.bytes.set(self.bytes.get().checked_sub(bytes).ok_or(ReadError::TooLarge)?);
        Ok(())
    }
}

/// Verifies the image that a DAG is: that all of it is there, its structure and programs, and that its CID is the one that
/// it has under the profile, and the expected one, if one is expected.
///
/// # Errors
///
/// [`Stopped`], and nothing else: whatever cannot be read is a finding.
pub fn verify_dag(
    target: &DagTarget<'_>,
    expected: Option<&Cid>,
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Report, Stopped> {
    verify_within(target, expected, stopped, &mut Budget::new())
}

/// The same, at the cost of a budget that others share.
pub(super) fn verify_within(
    target: &DagTarget<'_>,
    expected: Option<&Cid>,
    stopped: &(dyn Fn() -> bool + Sync),
    budget: &mut Budget,
) -> Result<Report, Stopped> {
    let DagTarget { subject, root, profile, .. } = *target;
    let mut report = Report::default();
    if let Some(expected) = expected.filter(|expected| **expected != root) {
        let message = format!("it is {root}, not {expected}");
        report.findings.push(Finding::new(FindingKind::Altered, subject, message));
    }
    let path = target.path.map(PathBuf::from);
    let mut checked = Checked { subject: subject.to_owned(), path, cid: Some(root), profile, files: 0 };
    if budget.objects == 0 {
        report.checked.push(checked);
        report.findings.push(Finding::new(FindingKind::Altered, subject, TOO_MUCH));
        return Ok(report);
    }
    let listing = Listing::of_blocks(Subtree { cid: root, dag_size: 0 }, target.block, true);
    let listing = match listing {
        Ok(listing) => listing,
        Err(error) => {
            // What was listed before is not known: at most so many.
            budget.objects = budget.objects.saturating_sub(OBJECTS_MAX / 4);
            report.checked.push(checked);
            report.findings.push(Finding::new(FindingKind::Altered, subject, with_causes(&error)));
            return Ok(report);
        }
    };
    budget.objects = budget.objects.saturating_sub(listing.objects.len());
    checked.files = count_files(&listing);
    report.checked.push(checked);
    if let Some(finding) = check_profile(target, &listing, stopped, budget)? {
        report.findings.push(finding);
    }
    check_structure(subject, &listing, &mut report.findings);
    let mut programs = Vec::new();
    let by_path: HashMap<&str, Cid> = listing.objects.iter().map(|object| (object.path.as_str(), object.cid)).collect();
    program::check(subject, &listing, &|path| read_file(target, &by_path, path, budget), &mut programs);
    // What is in a DAG is no file of anybody's.
    report.findings.extend(programs.into_iter().map(|finding| Finding { path: None, ..finding }));
    Ok(report)
}

/// Builds the tree again under the profile, and under the others where it comes out different.
fn check_profile(
    target: &DagTarget<'_>,
    listing: &Listing,
    stopped: &(dyn Fn() -> bool + Sync),
    budget: &Budget,
) -> Result<Option<Finding>, Stopped> {
    let mut found = None;
    let others = Profile::ALL.into_iter().filter(|other| *other != target.profile);
    for profile in std::iter::once(target.profile).chain(others) {
        let rebuilt = Rebuild { target, profile, stopped, budget }.tree(listing);
        match rebuilt {
            Ok(cid) if cid == target.root && profile == target.profile => return Ok(None),
            Ok(cid) if cid == target.root => {
                let message = format!("it was made under the profile {profile}, not under {}", target.profile);
                return Ok(Some(Finding::new(FindingKind::Profile, target.subject, message)));
            }
            Ok(cid) => {
                let message = format!("under the profile {} its CID would be {cid}", target.profile);
                found.get_or_insert(Finding::new(FindingKind::Profile, target.subject, message));
            }
            Err(ReadError::Stopped) => return Err(Stopped),
            // That it is not of this profile is known, and of which one is not worth more.
            Err(ReadError::TooLarge) if found.is_some() => return Ok(found),
            Err(error) => return Ok(Some(Finding::new(FindingKind::Altered, target.subject, with_causes(&error)))),
        }
    }
    Ok(found)
}

/// Reads the file at a path whole, if it is no larger than programs are.
fn read_file(target: &DagTarget<'_>, listed: &HashMap<&str, Cid>, path: &str, budget: &Budget) -> io::Result<Vec<u8>> {
    let cid = listed.get(path).ok_or(io::ErrorKind::NotFound)?;
    let bytes_max = wasm_binary::SIZE_BYTES_MAX.min(budget.bytes.get());
    let bytes = blocks::read_file(target.block, *cid, bytes_max)?;
    budget.spend(bytes.len() as u64).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Builds a tree again from its content.
struct Rebuild<'a> {
    target: &'a DagTarget<'a>,
    profile: Profile,
    stopped: &'a (dyn Fn() -> bool + Sync),
    budget: &'a Budget,
}

impl Rebuild<'_> {
    fn tree(mut self, listing: &Listing) -> Result<Cid, ReadError> {
        if let [object] = &listing.objects[..]
            && object.path.is_empty()
        {
            return Ok(self.object(&object.kind, &object.cid)?.cid);
        }
        // Each folder comes before what is in it, so from the end on each comes after.
        let mut folders: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
        for object in listing.objects.iter().rev() {
            let target = match object.kind {
                ListedKind::Folder { .. } => self.folder(folders.remove(object.path.as_str()).unwrap_or_default())?,
                _ => self.object(&object.kind, &object.cid)?,
            };
            let (folder, name) = object.path.rsplit_once('/').unwrap_or(("", &object.path));
            let name = EntryName::new(name).map_err(BuildError::from)?;
            folders.entry(folder).or_default().push(Entry { name, target });
        }
        Ok(self.folder(folders.remove("").unwrap_or_default())?.cid)
    }

    fn folder(&self, entries: Vec<Entry>) -> Result<Subtree, ReadError> {
        unixfs::directory(&self.profile, entries, &mut |_| Ok::<_, ReadError>(()))
    }

    fn object(&mut self, kind: &ListedKind, cid: &Cid) -> Result<Subtree, ReadError> {
        match kind {
            ListedKind::Symlink { .. } => {
                let block = match Block::from_identity(cid) {
                    Some(block) => block,
                    None => Source(self.target.block).block(cid)?,
                };
                let target = match unixfs::Node::decode(&block) {
                    Ok(unixfs::Node::Symlink(target)) => target,
                    _ => return Err(ReadError::Missing { cid: Box::new(*cid) }),
                };
                Ok(unixfs::symlink(&self.profile, target)?.1)
            }
            _ => self.file(cid),
        }
    }

    fn file(&mut self, cid: &Cid) -> Result<Subtree, ReadError> {
        let mut chunker = Chunker::new(self.profile.chunk_bytes);
        let mut builder = FileBuilder::new(self.profile);
        let mut keep_nothing = |_: Block| Ok::<_, ReadError>(());
        unixfs::read_file(&Source(self.target.block), *cid, &mut |piece: Bytes| {
            if (self.stopped)() {
                return Err(ReadError::Stopped);
            }
            self.budget.spend(piece.len() as u64)?;
            let mut piece = &piece[..];
            while !piece.is_empty() {
                if let Some(chunk) = chunker.next_chunk(&mut piece) {
                    builder.push(chunk, &mut keep_nothing)?;
                }
            }
            Ok(())
        })?;
        if let Some(chunk) = chunker.finish() {
            builder.push(chunk, &mut keep_nothing)?;
        }
        Ok(builder.finish(&mut keep_nothing)?.subtree())
    }
}
