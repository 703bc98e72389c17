//! Places that blocks come from.

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};

use crate::dag::car::CarError;
use crate::dag::{Block, Cid, Scope};
use crate::remote::{Blocks, Cause, RemoteError, gateway, kubo};

/// How many blocks a gateway or a node is asked for at once. At 50 ms and 1 MiB for each this makes 300 MiB/s.
pub(super) const BLOCKS_AT_ONCE: usize = 16;

/// A part of a DAG that can be asked for at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DagRequest {
    /// Where it starts.
    pub root: Cid,
    /// The way down from there, names with slashes between them. The blocks on it belong to the request.
    pub path: String,
    /// How much of what lies at its end.
    pub scope: Scope,
}

/// A place that blocks come from: a node, a gateway, later a peer.
///
/// What it gives has been checked against its CID. That is all that can be relied on: a source may have little, give more
/// than was asked for, or be slow, so who asks sees to limits and to what is missing. Dropping what a method gives ends the
/// request.
pub trait Source: Send + Sync {
    /// How people know it. Safe to show.
    fn name(&self) -> String;

    /// How many calls of [`Source::block`] it takes at once.
    fn blocks_at_once(&self) -> usize;

    /// Whether it can be asked for this much at once. If not, it is asked for single blocks.
    fn offers(&self, request: &DagRequest) -> bool;

    /// One block.
    fn block<'a>(&'a self, cid: &'a Cid) -> BoxFuture<'a, Result<Block, RemoteError>>;

    /// The blocks of a part of a DAG, in any order, and any number of them: who asks stops when it is too much.
    fn dag<'a>(&'a self, request: &'a DagRequest) -> BoxStream<'a, Result<Block, RemoteError>>;
}

impl Source for gateway::Client {
    fn name(&self) -> String {
        format!("gateway {}", self.address())
    }

    fn blocks_at_once(&self) -> usize {
        BLOCKS_AT_ONCE
    }

    fn offers(&self, _: &DagRequest) -> bool {
        true
    }

    fn block<'a>(&'a self, cid: &'a Cid) -> BoxFuture<'a, Result<Block, RemoteError>> {
        gateway::Client::block(self, cid).boxed()
    }

    fn dag<'a>(&'a self, request: &'a DagRequest) -> BoxStream<'a, Result<Block, RemoteError>> {
        flatten(gateway::Client::dag(self, &request.root, &request.path, request.scope, u64::MAX))
    }
}

impl Source for kubo::Client {
    fn name(&self) -> String {
        format!("Kubo at {}", self.address())
    }

    fn blocks_at_once(&self) -> usize {
        BLOCKS_AT_ONCE
    }

    /// `dag/export` knows neither paths nor scopes.
    fn offers(&self, request: &DagRequest) -> bool {
        request.path.is_empty() && request.scope == Scope::All
    }

    fn block<'a>(&'a self, cid: &'a Cid) -> BoxFuture<'a, Result<Block, RemoteError>> {
        self.block_get(cid).boxed()
    }

    fn dag<'a>(&'a self, request: &'a DagRequest) -> BoxStream<'a, Result<Block, RemoteError>> {
        flatten(self.dag_export(&request.root, u64::MAX))
    }
}

fn flatten<'a>(
    request: impl Future<Output = Result<Blocks, RemoteError>> + Send + 'a,
) -> BoxStream<'a, Result<Block, RemoteError>> {
    let blocks = request.map(|blocks| match blocks {
        Ok(blocks) => stream::unfold(blocks, async |mut blocks| Some((blocks.next().await?, blocks))).boxed(),
        Err(error) => stream::iter([Err(error)]).boxed(),
    });
    blocks.flatten_stream().boxed()
}

/// What an error tells about its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not have this block, or does not answer in this way. It may have others, or answer in another way.
    Here,
    /// It failed, which may pass.
    Passing,
    /// It cannot be reached, so nothing else can be had from it.
    Gone,
    /// It sent something wrong, so it is not asked again.
    Bad,
}

impl Fault {
    pub(super) fn of(error: &RemoteError) -> Self {
        match &error.cause {
            Cause::Resolve { .. }
            | Cause::NoAddress { .. }
            | Cause::Connect { .. }
            | Cause::Tls(_)
            | Cause::Denied { .. } => Self::Gone,
            // The end of a CAR that lacks something is what a gateway gives that misses a block itself.
            Cause::Car(CarError::Truncated { .. }) => Self::Here,
            Cause::Block(_) | Cause::Car(_) | Cause::TooLong { .. } | Cause::Root { .. } => Self::Bad,
            Cause::NotFound { .. }
            | Cause::Unknown { .. }
            | Cause::Kind { .. }
            | Cause::Reported(_)
            | Cause::Status { status: 400 | 406 | 415 | 500 | 501, .. } => Self::Here,
            _ => Self::Passing,
        }
    }
}

/// An error and its causes on one line. The foreign text in it is escaped already.
pub(super) fn text(error: &RemoteError) -> String {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        let separator = if text.is_empty() { "" } else { ": " };
        text.push_str(&format!("{separator}{error}"));
        next = error.source();
    }
    crate::escape::text(&text).into_owned()
}
