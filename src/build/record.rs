//! What an artifact was made of and by what, beside the artifact itself.
//!
//! A lock tells what ought to come out. This tells what an artifact on this machine is, so that one of another toolchain
//! is not taken for an altered one.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::State;
use super::state::{self, read};
use crate::atomic_file;
use crate::wetfile::GuestName;
use crate::wetfile::lock::{Digest, Toolchain};

/// Longest record in bytes; ours have less than 500.
const BYTES_MAX: u64 = 64 << 10;

/// How an artifact came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What compiled it.
    pub toolchain: Toolchain,
    /// The [`Inputs::digest`](crate::wetfile::lock::Inputs::digest) of what it was made of.
    pub inputs: Digest,
    /// The artifact's own digest.
    pub artifact: Digest,
}

/// As on disk.
#[derive(Serialize, Deserialize)]
struct Written {
    toolchain: String,
    inputs: String,
    artifact: String,
}

/// What the last build of a guest in the project at `root` has recorded. It needs no lock, and whatever is not
/// understood is no record.
pub fn record(root: &Path, guest: &GuestName) -> Option<Record> {
    let bytes = read(root, "guests", &format!("{guest}.json"), BYTES_MAX)?;
    let written: Written = serde_json::from_slice(&bytes).ok()?;
    Some(Record {
        toolchain: Toolchain::new(&written.toolchain)?,
        inputs: written.inputs.parse().ok()?,
        artifact: written.artifact.parse().ok()?,
    })
}

/// Replaces the record of a guest.
pub(super) fn write(state: &State, guest: &GuestName, made: &Record) -> io::Result<()> {
    if record(state.root(), guest).as_ref() == Some(made) {
        return Ok(());
    }
    let Record { toolchain, inputs, artifact } = made;
    let written =
        Written { toolchain: toolchain.to_string(), inputs: inputs.to_string(), artifact: artifact.to_string() };
    let mut bytes = serde_json::to_vec(&written)?;
    bytes.push(b'\n');
    atomic_file::write(&state.record(guest), &bytes, state::FILE_MODE)
}
