//! The file of a ledger: a line with its version, and then frames, each with some entries.
//!
//! ```text
//! frame     length (4 bytes, little endian), XXH64 of the content (8 bytes, little endian), content
//! content   entries, each as postcard has it (postcard.jamesmunns.com/wire-format)
//! ```
//!
//! A frame whose checksum does not fit is the end of the file: what a killed process has begun to write. The next one
//! writes over it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Entry, Memory};
use crate::atomic_file;
use crate::build::state::{self, State};
use crate::checksum::Checksum;

/// The first bytes of the file. The number is the version of what follows; another one is no ledger.
const MAGIC: &[u8] = b"ww-ledger 4\n";

/// The file's name in the folder of the state.
pub(super) const NAME: &str = "ledger";

/// Only its owner may read it: it has values of variables.
const MODE: u32 = 0o600;

/// Largest file that is read, in bytes: some million files.
const BYTES_MAX: u64 = 512 << 20;

/// Bytes before the content of a frame.
const HEAD_BYTES: usize = 12;

/// A file is made smaller from this size on: below it, that is not worth the trouble.
const COMPACT_BYTES_MIN: usize = 256 << 10;

/// What a file says.
#[derive(Default)]
pub(super) struct Read {
    pub(super) memory: Memory,
    /// Length in bytes of what could be read.
    length: usize,
}

/// Reads the ledger of a project.
pub(super) fn read(root: &Path) -> Read {
    state::read(root, "", NAME, BYTES_MAX).map(|bytes| decode(&bytes)).unwrap_or_default()
}

fn decode(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return read };
    while let Some(content) = take_frame(&mut rest) {
        let mut content = content;
        while !content.is_empty() {
            // The frame is whole, so this is an entry of a version that has none of these.
            let Ok((entry, left)) = postcard::take_from_bytes::<Entry>(content) else { break };
            content = left;
            read.memory.apply(entry);
        }
    }
    read.length = bytes.len() - rest.len();
    read
}

fn take_frame<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (checksum, after) = after.split_first_chunk::<8>()?;
    let (content, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    if content.is_empty() || Checksum::of(content) != u64::from_le_bytes(*checksum) {
        return None;
    }
    *rest = after;
    Some(content)
}

fn frame(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD_BYTES];
    for entry in entries {
        bytes = postcard::to_extend(entry, bytes).map_err(io::Error::other)?;
    }
    let content = &bytes[HEAD_BYTES..];
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    let checksum = Checksum::of(content);
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

/// A ledger that is written to.
#[derive(Debug)]
pub(super) struct Book {
    /// Shared with those who look at what was remembered when they began.
    pub(super) memory: Arc<Memory>,
    path: PathBuf,
    length: usize,
    /// Open from the first entry on.
    file: Option<File>,
}

impl Book {
    pub(super) fn open(state: &State) -> io::Result<Self> {
        let Read { memory, length } = read(state.root());
        Ok(Self { memory: Arc::new(memory), path: state.file(NAME), length, file: None })
    }

    pub(super) fn append(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let written = frame(&entries).and_then(|frame| self.write(&frame));
        let memory = Arc::make_mut(&mut self.memory);
        entries.into_iter().for_each(|entry| memory.apply(entry));
        written
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(self.start()?);
        }
        let file = self.file.as_mut().expect("it was opened");
        if let Err(error) = file.write_all(frame) {
            // The next one begins where this one did.
            self.file = None;
            return Err(error);
        }
        self.length += frame.len();
        Ok(())
    }

    /// Opens the file at the end of what could be read of it.
    fn start(&mut self) -> io::Result<File> {
        if self.length == 0 {
            atomic_file::write(&self.path, MAGIC, MODE)?;
            self.length = MAGIC.len();
        }
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = OpenOptions::new().write(true).custom_flags(flags).open(&self.path)?;
        file.set_len(self.length as u64)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    }

    /// Writes only what is of use, if that is less than half.
    pub(super) fn compact(&mut self) -> io::Result<()> {
        if self.length < COMPACT_BYTES_MIN {
            return Ok(());
        }
        let mut bytes = MAGIC.to_vec();
        for entry in self.memory.entries() {
            bytes.extend(frame(&[entry])?);
        }
        if bytes.len() * 2 > self.length {
            return Ok(());
        }
        atomic_file::write(&self.path, &bytes, MODE)?;
        (self.length, self.file) = (bytes.len(), None);
        Ok(())
    }
}
