//! The libp2p node of this process: it listens, connects to other nodes, and knows who is connected.
//!
//! [`start`] makes a node and returns a [`Swarm`], the handle that everybody uses; clones of it are the same node. One
//! task owns the libp2p swarm and all state, and handles send it commands over a bounded channel. The task ends when
//! the last handle is dropped, or with [`Swarm::shutdown`].
//!
//! Connections use TCP with Noise and Yamux, or QUIC. Identify and ping run on each. Either handshake proves the other
//! side's peer id. Peers are not trusted beyond that: connections are limited in number, what they say about themselves
//! is not kept, and nothing is dialled but what a caller of [`Swarm::connect`] names.
//!
//! This is the only module that names libp2p; peer ids and addresses pass as text, or as types of this module. There is
//! no discovery, relaying, hole punching or DNS here.

mod address;
mod cause;
mod connect;
mod connections;
mod identity;
mod listen;
mod node;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io;
use std::sync::Arc;

use libp2p::PeerId;
use tokio::sync::{mpsc, oneshot};

pub use self::address::{AddressError, Multiaddr};
pub use self::connect::{AddressFailure, ConnectError};
pub use self::identity::{Identity, IdentityError};

use self::connections::Limits;
use self::node::{Command, Node};
use crate::grant::Reach;

/// Commands that wait for the task. They are answered in microseconds, so this only has to cover a burst; who comes when
/// it is full waits.
const COMMANDS_MAX: usize = 64;

/// What a node is and where it listens.
#[derive(Clone, Debug)]
pub struct SwarmConfig {
    /// Who the node is.
    pub identity: Identity,
    /// Where it listens.
    pub listen: Listen,
}

/// Where a node listens.
#[derive(Clone, Debug)]
pub enum Listen {
    /// On all interfaces, with TCP and QUIC under the same number; IPv6 too where the machine has it.
    Port {
        /// The number; 0 means any that is free.
        port: u16,
        /// Whether to take any free number if this one is busy. Without it a busy port is an error.
        fallback: bool,
    },
    /// On exactly these addresses; none means that the node does not listen at all.
    Addrs(Vec<Multiaddr>),
}

/// A peer with at least one established connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its peer id in base58.
    pub id: String,
    /// The remote ends of its connections, sorted, without `/p2p/…`. Those of connections that it opened can usually not
    /// be dialled.
    pub addrs: Vec<String>,
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwarmError {
    /// An address to listen on could not be had.
    #[error("listen on {address}")]
    Listen {
        /// The address as a multiaddr, with the port that was tried.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The keys for the handshakes could not be made.
    #[error("prepare the node's keys")]
    Keys(#[source] Box<dyn Error + Send + Sync>),
}

impl SwarmError {
    /// Whether it failed because somebody else listens there.
    pub fn is_port_busy(&self) -> bool {
        matches!(self, Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }
}

/// A handle of a running node. Clones are handles of the same node, and it ends with the last of them.
#[derive(Clone, Debug)]
pub struct Swarm {
    id: Arc<str>,
    peer: PeerId,
    port_taken_instead: Option<u16>,
    commands: mpsc::Sender<Command>,
}

/// Starts a node. When this returns it listens, and [`Swarm::addrs`] has its addresses.
///
/// The node lives on the tokio runtime that this is called on, and ends with it. Nothing outside the machine is waited
/// for. Cancelling the call leaves nothing behind.
///
/// # Errors
///
/// If one of the addresses cannot be listened on; the error names it and has the system's reason. A port that another
/// process listens on is such an error, unless [`Listen::Port`] allows another port.
pub async fn start(config: SwarmConfig) -> Result<Swarm, SwarmError> {
    start_with_limits(config, Limits::default()).await
}

async fn start_with_limits(config: SwarmConfig, limits: Limits) -> Result<Swarm, SwarmError> {
    let mut swarm = node::build(config.identity, limits)?;
    let peer = *swarm.local_peer_id();
    let listening = listen::listen(&mut swarm, &config.listen)?;
    let mut node = Node::new(swarm);
    node.await_addresses(listening.listeners).await;
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    tokio::spawn(node.run(receiver));
    Ok(Swarm { id: peer.to_base58().into(), peer, port_taken_instead: listening.port_taken_instead, commands })
}

impl Swarm {
    /// The node's peer id in base58.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The port that the node listens on, if the one that was asked for was busy and another was taken.
    pub fn port_taken_instead(&self) -> Option<u16> {
        self.port_taken_instead
    }

    /// The addresses that the node listens on, sorted, each ending in `/p2p/<id>`. With [`Listen::Port`] they follow the
    /// machine's interfaces. IPv6 addresses that only mean something on one link (`fe80::…`) are left out, since nobody
    /// could connect to them. Empty once the node is shut down.
    ///
    /// Cancel safe.
    pub async fn addrs(&self) -> Vec<String> {
        self.ask(Command::Addrs).await.unwrap_or_default()
    }

    /// The peers with at least one established connection, sorted by id. Empty once the node is shut down.
    ///
    /// Cancel safe.
    pub async fn peers(&self) -> Vec<Peer> {
        self.ask(Command::Peers).await.unwrap_or_default()
    }

    /// Connects to the peer `id` at one of `addrs`, which are dialled and no others; each may end in `/p2p/<id>`.
    ///
    /// Returns when there is a connection whose other side has proved that it is `id`; at once where there is one
    /// already. It can end at any time, also at once, if the peer has as many connections as it wants. It takes at most
    /// 30 seconds.
    ///
    /// Cancel safe: a connection that nobody waits for any more is closed when it comes about.
    ///
    /// # Errors
    ///
    /// Before anything is dialled: if `id` is no peer id or this node's own, if there are too many addresses, or if one
    /// of them is malformed, not supported or names another peer. Then: if there is no connection and no address, if
    /// each address failed, or if the node has as many connections as it may have.
    pub async fn connect(&self, id: &str, addrs: &[String]) -> Result<(), ConnectError> {
        connect::connect(self, id, addrs, None).await
    }

    /// As [`Swarm::connect`], for somebody who may reach only some addresses.
    ///
    /// # Errors
    ///
    /// As there, and if one of the addresses is not among those.
    pub async fn connect_within(&self, id: &str, addrs: &[String], reach: &Reach) -> Result<(), ConnectError> {
        connect::connect(self, id, addrs, Some(reach)).await
    }

    /// Closes the connections and ends the node, for all its handles. Returns when it has ended, within about a second;
    /// its ports are free then or very soon after.
    ///
    /// Not cancel safe: a call that is cancelled may have ended the node or not.
    pub async fn shutdown(&self) {
        // An error means that it has ended already.
        let _ = self.commands.send(Command::Shutdown).await;
        self.commands.closed().await;
    }

    /// Sends a command and waits for its answer, which is `None` if the node has ended.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}
