//! Cap'n Proto RPC with one peer, over any pair of byte streams.
//!
//! [`serve`] offers a bootstrap capability to whoever is on the other side of the streams. The other side is hostile: a
//! message larger than [`Limits`] allow, one that breaks the protocol, or one that asks for more than the [`meter`]
//! allows ends this connection and nothing else, and a peer that does not read is not read from.
//!
//! The RPC system of capnp-rpc reads and writes through a network of ours ([`network`]), for four reasons: the meter
//! sees each message; so does the log (`RUST_LOG=ww=trace`); errors of a connection end in the log as well, where
//! the library would print some of them to standard output; and messages that the library or the peer would fail at are
//! answered here ([`tables`], [`stand_in`]).

use std::future::Future;

/// What goes wrong in a call or with a connection.
pub use capnp::Error;
/// What a cell can be given to call.
pub use capnp::capability::Client as Capability;
use capnp::message::ReaderOptions;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures::{AsyncRead, AsyncWrite};

use crate::grant::{self, Limit};

mod describe;
mod incoming;
mod meter;
mod network;
mod pause;
mod refusal;
mod stand_in;
mod tables;

/// What a peer may make this host hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message that is accepted, in bytes. It bounds the programs that `runBytes` takes (an interpreter such as
    /// CPython is a component of about 18 MiB) and what one message makes this host allocate.
    pub message_size: usize,
    /// How many calls of the peer may be unanswered. Each costs about a kilobyte besides its parameters.
    pub calls: usize,
    /// How many bytes the parameters of unanswered calls may have together; also the answers that the peer can still look
    /// into, or has not read.
    pub calls_size: usize,
    /// How many capabilities the peer may hold, and how many it may have this host hold.
    pub handles: usize,
}

impl Limits {
    /// Those that a cell with these limits has.
    pub fn of(limits: &grant::Limits) -> Self {
        Self {
            message_size: limits.size(Limit::Message),
            calls: limits.size(Limit::Calls),
            calls_size: limits.size(Limit::CallBytes),
            handles: limits.size(Limit::Handles),
        }
    }
}

/// Who books what a peer makes this host do and hold.
pub trait Ledger: 'static {
    /// The peer has made a call.
    fn call(&self);

    /// So many more bytes are held for the peer: of messages that it sends, calls that it made, and answers that it has not
    /// read.
    ///
    /// # Errors
    /// If there is no room for them. They are not held then, and the connection is ended.
    fn hold(&self, bytes: usize) -> Result<(), Overrun>;

    /// So many of them are held no longer.
    fn release(&self, bytes: usize);

    /// The connection is ended since the peer went over a limit.
    fn overrun(&self, _overrun: Overrun) {}
}

/// Books nothing.
#[cfg(test)]
impl Ledger for () {
    fn call(&self) {}

    fn hold(&self, _: usize) -> Result<(), Overrun> {
        Ok(())
    }

    fn release(&self, _: usize) {}
}

/// Why this side has ended a connection: the peer went over a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overrun {
    /// The limit.
    pub limit: Limit,
    /// What the peer did, as a fragment that names the limit.
    pub reason: String,
}

/// How deep a message's pointers may nest: the default of Cap'n Proto.
const NESTING_MAX: i32 = 64;

/// How much of a message may be read again and again, such as the numbers that say what it is, in bytes.
const TRAVERSED_BESIDES_BYTES: usize = 64 * 1024;

/// Speaks RPC over `input` and `output` until the peer closes its side or breaks the protocol, and serves `bootstrap`
/// to it. `name` says in the log which connection it is, and `ledger` books what the peer costs.
///
/// The future is not `Send`, like everything of capnp-rpc; dropping it drops all capabilities that the peer holds, and
/// ends the calls that it made.
pub fn serve(
    name: String,
    input: impl AsyncRead + Unpin + 'static,
    output: impl AsyncWrite + Unpin + 'static,
    bootstrap: Capability,
    limits: Limits,
    ledger: impl Ledger,
) -> impl Future<Output = ()> + 'static {
    let mut options = ReaderOptions::new();
    // Once to be looked at, and once to be copied. The meter sees to it that no message is larger than it may be.
    let traversed_bytes = limits.message_size.saturating_mul(2).saturating_add(TRAVERSED_BESIDES_BYTES);
    options.traversal_limit_in_words(Some(traversed_bytes / size_of::<capnp::Word>()));
    options.nesting_limit(NESTING_MAX);
    let meter = meter::Meter::new(limits, ledger);
    let input = incoming::WatchedReader::new(input, meter.clone());
    let network = twoparty::VatNetwork::new(input, meter.watch(output), Side::Server, options);
    let network = network::Watched::new(network, name.clone(), meter.clone());
    let system = RpcSystem::new(Box::new(network), Some(bootstrap));
    async move {
        match meter.drive(system).await {
            Ok(()) => tracing::debug!(cell = name, "connection closed"),
            Err(error) => tracing::debug!(cell = name, error = %describe::shown(&error), "connection ended"),
        }
    }
}
