//! Whether a CAR holds images.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::OFlags;

use super::dag::{Budget, DagTarget, verify_within};
use super::{Finding, FindingKind, Report, Stopped};
use crate::dag::block::BlockError;
use crate::dag::car::{CarError, Decoder, Item};
use crate::dag::unixfs::Profile;
use crate::dag::{Block, Cid};
use crate::escape;
use crate::ops::lock::with_causes;
use crate::tree::BoxError;

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Most blocks of an archive. Each takes about 200 bytes of memory.
const BLOCKS_MAX: usize = 4 << 20;

/// Most roots of an archive, each of which is looked at.
const ROOTS_MAX: usize = 1000;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
enum ArchiveError {
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    #[error("it is cut off at byte {end}, after block {last_block}: fetch or export it again")]
    CutOff { end: u64, last_block: Box<Cid> },
    #[error("it is empty, no CAR, or cut off at its beginning")]
    NoBlock(#[source] CarError),
    #[error("it is no CAR")]
    Malformed(#[source] CarError),
    #[error("a block of it is not what it is called")]
    Block(#[from] BlockError),
    #[error("it has more than {BLOCKS_MAX} blocks")]
    TooManyBlocks,
    #[error("it has more than {ROOTS_MAX} roots")]
    TooManyRoots,
    #[error("it names no root")]
    NoRoot,
    #[error("stopped")]
    Stopped,
}

impl From<CarError> for ArchiveError {
    fn from(error: CarError) -> Self {
        match error {
            CarError::Truncated { end, last_block: Some(last_block) } => Self::CutOff { end, last_block },
            CarError::Truncated { last_block: None, .. } => Self::NoBlock(error),
            error => Self::Malformed(error),
        }
    }
}

/// An archive whose blocks have all been checked once, and are read again when they are wanted.
struct Archive {
    file: File,
    roots: Vec<Cid>,
    /// Where the bytes of each block stand, and how many they are.
    blocks: HashMap<Cid, (u64, usize)>,
}

/// Verifies the images in a CAR, one for each of its roots: that each block is what its CID says, and each image as
/// [`verify_dag`](super::verify_dag) does. `expected` must then be the one root.
///
/// # Errors
///
/// [`Stopped`], and nothing else: whatever cannot be read is a finding.
pub fn verify_archive(
    path: &Path,
    expected: Option<&Cid>,
    profile: Profile,
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Report, Stopped> {
    let subject = escape::path(path);
    let mut report = Report::default();
    let archive = match Archive::open(path, stopped) {
        Ok(archive) => archive,
        Err(ArchiveError::Stopped) => return Err(Stopped),
        Err(error) => {
            report.add_unreadable(path, profile, Finding::new(FindingKind::Altered, subject, with_causes(&error)));
            return Ok(report);
        }
    };
    if let Some(expected) = expected.filter(|expected| archive.roots != [**expected]) {
        let roots: Vec<String> = archive.roots.iter().map(Cid::to_string).collect();
        let message = format!("its root is {}, not {expected}", roots.join(" and "));
        report.findings.push(Finding::new(FindingKind::Altered, &subject, message));
    }
    let mut budget = Budget::new();
    for root in &archive.roots {
        let block = |cid: &Cid| archive.block(cid);
        let target = DagTarget { subject: &subject, path: Some(path), root: *root, block: &block, profile };
        report.add(verify_within(&target, None, stopped, &mut budget)?);
    }
    Ok(report)
}

impl Archive {
    fn open(path: &Path, stopped: &(dyn Fn() -> bool + Sync)) -> Result<Self, ArchiveError> {
        let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file").into());
        }
        let mut archive = Self { file, roots: Vec::new(), blocks: HashMap::new() };
        let (mut decoder, mut buffer) = (Decoder::new(), vec![0; BUFFER_BYTES]);
        loop {
            let length = archive.file.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            if stopped() {
                return Err(ArchiveError::Stopped);
            }
            decoder.push(&buffer[..length]);
            while let Some(item) = decoder.next_item()? {
                archive.take(item)?;
            }
        }
        decoder.finish()?;
        match archive.roots.len() {
            0 => Err(ArchiveError::NoRoot),
            1..=ROOTS_MAX => Ok(archive),
            _ => Err(ArchiveError::TooManyRoots),
        }
    }

    fn take(&mut self, item: Item) -> Result<(), ArchiveError> {
        match item {
            Item::Header(header) => {
                let mut seen = HashSet::new();
                self.roots = header.roots.into_iter().filter(|root| seen.insert(*root)).collect();
            }
            Item::Section(section) => {
                let place = (section.data_offset, section.data.len());
                let block = section.into_block()?;
                self.blocks.insert(*block.cid(), place);
            }
        }
        if self.blocks.len() > BLOCKS_MAX { Err(ArchiveError::TooManyBlocks) } else { Ok(()) }
    }

    fn block(&self, cid: &Cid) -> Result<Option<Block>, BoxError> {
        let Some((offset, length)) = self.blocks.get(cid) else { return Ok(None) };
        let mut data = vec![0; *length];
        self.file.read_exact_at(&mut data, *offset)?;
        // It may have been written to meanwhile.
        Ok(Some(Block::new(*cid, Bytes::from(data))?))
    }
}
