//! Bringing a DAG into the local store, from whoever has it.
//!
//! What is here already is not asked for. For the rest the sources are asked: for whole DAGs where they can give them, and
//! for single blocks otherwise. A request that has brought nothing after [`HEDGE_AFTER`] gets a rival at the next source;
//! the first that brings something wanted wins, and the other is dropped. What a request for a DAG should bring, and
//! brings slowly, is asked of the others, too. A source that sends a wrong block is not asked again. Only blocks that
//! belong to the DAG are stored, whatever else comes.
//!
//! [`fetch`] brings what is named to the end. A [`Session`] lives as long as somebody reads, and brings single blocks as
//! they are read, from the same sources and by the same rules.

mod keep;
mod line;
mod payer;
mod pool;
mod schedule;
mod session;
mod source;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;
use std::time::Duration;

use tokio::task;

use self::keep::Keeper;
use self::line::Line;
use crate::blockstore::{Blockstore, Hold, StoreError};
use crate::cell::LimitReached;
use crate::dag::unixfs::{NodeError, WalkError};
use crate::dag::{Cid, CodecName, ContentPath, HashName};
use crate::remote::BoxError;

pub use payer::Payer;
pub use session::{Session, SessionOptions};
pub use source::{DagRequest, Source};

/// After how long without any result another source is asked for the same. A gateway near by that has the content answers
/// within this time; one that must look for it takes seconds.
pub const HEDGE_AFTER: Duration = Duration::from_millis(400);

/// The same for a source that has brought something before: it has what is wanted, and is slow because the line is. So
/// long, too, a request for a DAG may bring little before others are asked for what it has not brought.
pub const HEDGE_PROVEN_AFTER: Duration = Duration::from_secs(5);

/// How much a fetch may bring. What is here already counts only as blocks.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// Bytes that are stored.
    pub bytes: u64,
    /// Different blocks of the DAG.
    pub blocks: u64,
    /// Levels of the DAG below the end of the path.
    pub depth: u32,
}

impl FetchLimits {
    /// Default of [`Self::bytes`]: far more than any image, and less than a disk.
    pub const BYTES: u64 = 64 << 30;
    /// Default of [`Self::blocks`]. Each takes some 150 bytes of memory while it is fetched.
    pub const BLOCKS: u64 = 4 << 20;
    /// Default of [`Self::depth`]: no path that a file system knows has more parts, even with a few levels of blocks for
    /// each directory and file on it.
    pub const DEPTH: u32 = 4096;
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { bytes: Self::BYTES, blocks: Self::BLOCKS, depth: Self::DEPTH }
    }
}

/// Something that happens during a fetch.
#[derive(Debug)]
pub enum FetchEvent<'a> {
    /// Not everything is here, so these are going to be asked.
    Asking {
        /// Their names.
        sources: &'a [String],
    },
    /// So much has been stored since the start.
    Progress {
        /// Blocks.
        blocks: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A part of a session's content that was brought at once is here.
    Brought {
        /// How many blocks came.
        blocks: u64,
    },
    /// A source sent something wrong, and is not asked any more.
    BadSource {
        /// Its name.
        source: &'a str,
        /// What was wrong. Foreign text in it is escaped.
        error: &'a (dyn std::error::Error + 'static),
    },
    /// A block that somebody wanted to read could not be had. Of these only the first of a session are told.
    Lost {
        /// The block.
        cid: &'a Cid,
        /// Why.
        error: &'a FetchError,
    },
    /// A cell has fetched as much as it may, and reads nothing more that is not here.
    LimitReached(&'a LimitReached),
    /// What was fetched could not be stored, so it will have to be fetched again. Told once.
    NotKept(&'a StoreError),
}

/// A DAG that is here.
#[derive(Debug)]
pub struct Fetched {
    /// Where the path leads.
    pub end: Cid,
    /// Blocks that were not here before.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// As long as this lives, nothing of the DAG is collected.
    pub hold: Hold,
}

/// What is missing when nobody has it.
#[derive(Debug)]
pub struct Missing {
    /// What was asked for.
    pub request: DagRequest,
    /// Blocks that no source gave: at least one, and no more than [`MISSING_MAX`].
    pub missing: Vec<Cid>,
    /// Whether more than those are missing. Blocks that only missing ones link to are not known.
    pub has_more: bool,
    /// Each source with the reason for which it did not give them, as texts that may be shown. Empty if there is none.
    pub sources: Vec<(String, String)>,
}

/// How many missing blocks are named.
pub const MISSING_MAX: usize = 8;

/// Why a DAG could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The local store cannot be used.
    #[error("failed to use the blockstore")]
    Store(#[from] StoreError),
    /// Blocks are missing, and no source gave them.
    #[error("{}", missing_text(.0))]
    Missing(Box<Missing>),
    /// The path does not lead anywhere, or through something that is not a directory.
    #[error("the path leads nowhere")]
    Path(#[source] WalkError),
    /// A block is not what its CID says it is. The block is the right one; it is the content that is bad.
    #[error("block {cid} is malformed")]
    Malformed {
        /// The block.
        cid: Box<Cid>,
        /// What is wrong.
        #[source]
        source: NodeError,
    },
    /// A block has a hash function or a codec that is not supported.
    #[error(
        "{cid} has the codec {} and the hash function {}: only raw and dag-pb, by sha2-256, sha2-512 and identity, are \
         supported",
        CodecName(cid.codec()), HashName(cid.hash().code())
    )]
    Unsupported {
        /// The block.
        cid: Box<Cid>,
    },
    /// More bytes than [`FetchLimits::bytes`].
    #[error("it has more than the {limit} bytes that are fetched at most")]
    TooManyBytes {
        /// The limit.
        limit: u64,
    },
    /// More blocks than [`FetchLimits::blocks`].
    #[error("it has more than the {limit} blocks that are fetched at most")]
    TooManyBlocks {
        /// The limit.
        limit: u64,
    },
    /// More levels than [`FetchLimits::depth`].
    #[error("it has more than {limit} levels of blocks, the first beyond being {cid}")]
    TooDeep {
        /// The first block beyond.
        cid: Box<Cid>,
        /// The limit.
        limit: u32,
    },
    /// Nobody gave a block in time.
    #[error("{cid} did not come within {} s", patience.as_secs())]
    Late {
        /// The block.
        cid: Box<Cid>,
        /// How long it was waited for.
        patience: Duration,
        /// Each source with what it did, as texts that may be shown.
        sources: Vec<(String, String)>,
    },
    /// The cell for which it is fetched has fetched as much as it may.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// Where the blocks are to be stored, or whom to ask, is not usable.
    #[error("nothing can be fetched")]
    Setup(#[source] BoxError),
    /// More is read at once than can be kept from being collected.
    #[error("this run reads {limit} images and programs by their CIDs, which is the most that it may at once")]
    TooManyRoots {
        /// The limit.
        limit: usize,
    },
    /// A cell and those below it read more at once than they may.
    #[error(
        "this cell and its children read {limit} images and programs by their CIDs, which is the most that they may at once"
    )]
    TooManyForCell {
        /// The limit.
        limit: u64,
    },
    /// A thread of the runtime failed.
    #[error("a thread failed")]
    Thread(#[source] task::JoinError),
    /// The fetch was given up by others, since all of it ends.
    #[error("the run ends")]
    Ended,
}

fn missing_text(missing: &Missing) -> String {
    let DagRequest { root, path, .. } = &missing.request;
    let what = ContentPath { root: *root, path: path.clone() };
    let blocks: Vec<_> = missing.missing.iter().map(Cid::to_string).collect();
    let (blocks, more) = (blocks.join(", "), if missing.has_more { " and more" } else { "" });
    if missing.missing.first() == Some(root) {
        format!("{what} was not found")
    } else {
        format!("{what} is incomplete: {blocks}{more} was not found")
    }
}

/// Sees to it that all blocks of a part of a DAG are in `store`, and fetches those that are not.
///
/// Blocks are committed now and then, so that a fetch that was interrupted goes on where it was. Nothing is pinned. The
/// sources are asked in their order; with none of them only the local store is looked at.
///
/// Dropping the future ends all requests; what was not committed by then is lost.
///
/// # Errors
/// If blocks are missing, the content is malformed or over a limit, or the store cannot be used.
pub async fn fetch(
    store: Arc<dyn Blockstore>,
    request: DagRequest,
    sources: Vec<Arc<dyn Source>>,
    limits: FetchLimits,
    events: &(dyn Fn(FetchEvent<'_>) + Sync),
) -> Result<Fetched, FetchError> {
    let start = request.clone();
    let (keeper, wants) = blocking(move || Keeper::start(store, start, limits)).await??;
    Line::new(sources).bring(keeper, wants, request, events).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FetchError> {
    task::spawn_blocking(work).await.map_err(FetchError::Thread)
}
