//! Cap'n Proto RPC with one peer, over any pair of byte streams.
//!
//! [`serve`] offers a bootstrap capability to whoever is on the other side of the streams. The other side is hostile: a
//! message larger than [`Limits`] allow, one that breaks the protocol, or one that asks for more than the [`meter`]
//! allows ends this connection and nothing else, and a peer that does not read is not read from.
//!
//! The RPC system of capnp-rpc reads and writes through a network of ours ([`network`]), for three reasons: the meter
//! sees each message; so does the log (`RUST_LOG=ww=trace`); and errors of a connection end in the log as well, where
//! the library would print some of them to standard output.

use std::future::Future;

/// What a cell can be given to call.
pub use capnp::capability::Client as Capability;
use capnp::message::ReaderOptions;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures::{AsyncRead, AsyncWrite};

use crate::grant::{self, Limit};

mod describe;
mod meter;
mod network;

/// What a peer may make this host hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message that is accepted, in bytes. It bounds the programs that `runBytes` takes (an interpreter such as
    /// CPython is a component of about 18 MiB) and what one message makes this host allocate.
    pub message_size: usize,
    /// How many calls of the peer may be unanswered. Each costs about a kilobyte besides its parameters.
    pub calls: usize,
    /// How many bytes the parameters of unanswered calls may have together.
    pub calls_size: usize,
}

impl Limits {
    /// Those that a cell with these limits has.
    pub fn of(limits: &grant::Limits) -> Self {
        Self {
            message_size: limits.size(Limit::Message),
            calls: limits.size(Limit::Calls),
            calls_size: limits.size(Limit::CallBytes),
        }
    }
}

/// What the cells that a peer belongs to may make this host hold, all together. [`Limits`] are those of one connection.
pub trait Allowance {
    /// The peer has made a call.
    fn called(&mut self);

    /// This host holds so many bytes more for the peer.
    ///
    /// # Errors
    /// If it may not; with what is said of it.
    fn hold(&mut self, bytes: u64) -> Result<(), String>;

    /// This host holds so many bytes less.
    fn release(&mut self, bytes: u64);
}

/// Nothing but the [`Limits`] of each connection.
impl Allowance for () {
    fn called(&mut self) {}

    fn hold(&mut self, _: u64) -> Result<(), String> {
        Ok(())
    }

    fn release(&mut self, _: u64) {}
}

/// How deep a message's pointers may nest: the default of Cap'n Proto.
const NESTING_MAX: i32 = 64;

/// Speaks RPC over `input` and `output` until the peer closes its side or breaks the protocol, and serves `bootstrap`
/// to it. `name` says in the log which connection it is. What is still held by `allowance` when the connection ends is released
/// by its end.
///
/// The future is not `Send`, like everything of capnp-rpc; dropping it drops all capabilities that the peer holds, and
/// ends the calls that it made.
pub fn serve(
    name: String,
    input: impl AsyncRead + Unpin + 'static,
    output: impl AsyncWrite + Unpin + 'static,
    bootstrap: Capability,
    limits: Limits,
    allowance: impl Allowance + 'static,
) -> impl Future<Output = ()> + 'static {
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(limits.message_size / size_of::<capnp::Word>()));
    options.nesting_limit(NESTING_MAX);
    let meter = meter::Meter::new(limits, allowance);
    let network = twoparty::VatNetwork::new(meter.watch(input), meter.watch(output), Side::Server, options);
    let network = network::Watched::new(network, name.clone(), meter);
    let system = RpcSystem::new(Box::new(network), Some(bootstrap));
    async move {
        match system.await {
            Ok(()) => tracing::debug!(cell = name, "connection closed"),
            Err(error) => tracing::debug!(cell = name, error = %describe::shown(&error), "connection ended"),
        }
    }
}
