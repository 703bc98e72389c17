//! Why a store cannot do what it was asked.

use std::io;
use std::path::PathBuf;

use super::{Pin, PinName};
use crate::dag::block::BlockError;
use crate::dag::pb::PbError;
use crate::dag::{Cid, CodecName, HashName};
use crate::escape;

/// Why a store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused; the disk may be full.
    #[error("cannot {action} {}", escape::path(.path))]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The file system's answer.
        #[source]
        source: io::Error,
    },
    /// SQLite refused to read or write the index.
    #[error("cannot use the index {}", escape::path(.path))]
    Index {
        /// The file.
        path: PathBuf,
        /// SQLite's answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A newer `ww` has written here.
    #[error("the blockstore {} was written by a newer ww: use that one", escape::path(.dir))]
    Newer {
        /// The folder of the store.
        dir: PathBuf,
    },
    /// Something else than a folder or file of ours has its name, such as a symlink.
    #[error("{} is not what ww keeps under this name: {expected} is needed", escape::path(.path))]
    Misplaced {
        /// What is there.
        path: PathBuf,
        /// `a folder` or `a regular file`.
        expected: &'static str,
    },
    /// The file of pins is not what a `ww` writes. It is left as it is.
    #[error("the pins in {} cannot be read: {reason}", escape::path(.path))]
    Pins {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A block has other bytes than its name says.
    #[error("block {cid} is damaged in the blockstore")]
    Damaged {
        /// The block.
        cid: Box<Cid>,
        /// What is wrong.
        #[source]
        source: DamageError,
    },
    /// A file of blocks is not as it was written.
    #[error("{} is damaged: {reason}", escape::path(.pack))]
    DamagedPack {
        /// The file.
        pack: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Blocks of a DAG are not here.
    #[error("{root} is incomplete in the blockstore: {}", missing_text(.missing, *.more))]
    Incomplete {
        /// The root of the DAG.
        root: Box<Cid>,
        /// What is missing, as far as it is known: blocks that only they link to are not. At least one, at most
        /// [`MISSING_MAX`](super::MISSING_MAX).
        missing: Vec<Cid>,
        /// Whether more is missing than listed.
        more: bool,
    },
    /// The content of a pin is not whole, or cannot be followed, so nobody can tell what else belongs to it.
    #[error("pin {} is not whole, so nothing is removed", .pin.name)]
    BrokenPin {
        /// The pin.
        pin: Box<Pin>,
        /// What is wrong with it.
        #[source]
        source: Box<Self>,
    },
    /// A block of a DAG is in a codec whose links are not known, so nobody can tell what belongs to the DAG.
    #[error("cannot follow the links of {cid}: its codec {} is neither raw nor dag-pb", CodecName(*.codec))]
    UnknownCodec {
        /// The block.
        cid: Box<Cid>,
        /// Its codec.
        codec: u64,
    },
    /// A block of a DAG is not what its CID says it is.
    #[error("cannot follow the links of {cid}")]
    MalformedNode {
        /// The block.
        cid: Box<Cid>,
        /// What is wrong with it.
        #[source]
        source: PbError,
    },
    /// A block was put whose hash cannot be checked.
    #[error("cannot keep block {cid}: its hash function {} is not supported", HashName(*.hash))]
    UnsupportedHash {
        /// The block.
        cid: Box<Cid>,
        /// Its multihash code.
        hash: u64,
    },
    /// What was waited for did not happen before the wait was cut short.
    #[error("stopped")]
    Cancelled,
}

/// What is wrong with a damaged block.
#[derive(Debug, thiserror::Error)]
pub enum DamageError {
    /// It has other bytes.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The file with it is not there, or too short.
    #[error("cannot read it from {}", escape::path(.pack))]
    Pack {
        /// The file.
        pack: PathBuf,
        /// The file system's answer.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// The error of a collection in which this one was met when a pin was followed.
    pub(super) fn of_pin(self, name: &PinName, root: &Cid) -> Self {
        match self {
            Self::Incomplete { .. }
            | Self::UnknownCodec { .. }
            | Self::MalformedNode { .. }
            | Self::Damaged { .. }
            | Self::DamagedPack { .. } => {
                let pin = Pin { name: name.clone(), root: *root };
                Self::BrokenPin { pin: Box::new(pin), source: Box::new(self) }
            }
            other => other,
        }
    }

    pub(super) fn unsupported_hash(cid: &Cid) -> Self {
        Self::UnsupportedHash { cid: Box::new(*cid), hash: cid.hash().code() }
    }
}

fn missing_text(missing: &[Cid], more: bool) -> String {
    let list: Vec<_> = missing.iter().map(Cid::to_string).collect();
    let (last, first) = list.split_last().map_or(("", &[][..]), |(last, first)| (last.as_str(), first));
    match (first, more) {
        ([], false) => format!("{last} is missing"),
        (_, true) => format!("{} and more are missing", list.join(", ")),
        (first, false) => format!("{} and {last} are missing", first.join(", ")),
    }
}
