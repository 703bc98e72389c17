//! The libp2p node of this process: it listens, connects to other nodes, and knows who is connected.
//!
//! [`start`] makes a node and returns a [`Swarm`], the handle that everybody uses, and so does [`start_later`] for whoever may
//! not need it; clones of it are the same node. One
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
use std::thread;
use std::time::Duration;

use libp2p::PeerId;
use tokio::sync::{mpsc, oneshot};

pub use self::address::{AddressError, Multiaddr};
pub use self::connect::{ADDRESSES_MAX, AddressFailure, ConnectError};
pub use self::identity::{Identity, IdentityError};

use self::connections::Limits;
use self::listen::Claimed;
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
    /// The system has no thread for it.
    #[error("start the node's thread")]
    Thread(#[source] io::Error),
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

/// Whether a node could listen on a port of all interfaces. The port is free again when this returns.
///
/// # Errors
///
/// The first address that cannot be had; see [`SwarmError::is_port_busy`].
pub fn check_port(port: u16) -> Result<(), SwarmError> {
    listen::claim(&Listen::Port { port, fallback: false }).map(drop)
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
    let (swarm, prepared) = prepare(config, limits)?;
    let (node, commands) = prepared.start().await?;
    tokio::spawn(node.run(commands, None));
    Ok(swarm)
}

/// Claims the addresses, which nobody else can have from then on, and leaves the rest for later: the node starts when its
/// handle is first asked for something, or `after` this time. A process that is over by then has spared itself the keys, and
/// the thread on which the node lives: what else the runtime does that this is called on does not hold it up.
///
/// What is returned with the handle says when it listens, and where, as [`Swarm::addrs`] does, or why it does not: before it
/// answers anything. It says nothing, if the node ended before.
///
/// # Errors
///
/// As for [`start`].
pub fn start_later(config: SwarmConfig, after: Duration) -> Result<(Swarm, oneshot::Receiver<Started>), SwarmError> {
    let (swarm, mut prepared) = prepare(config, Limits::default())?;
    let (says, started) = oneshot::channel();
    tokio::spawn(async move {
        let first = tokio::select! {
            biased;
            command = prepared.commands.recv() => match command {
                None | Some(Command::Shutdown) => return,
                command => command,
            },
            () = tokio::time::sleep(after) => None,
        };
        let (hand_over, handed) = oneshot::channel();
        let thread = thread::Builder::new().name("ww-node".into());
        match thread.spawn(|| {
            if let Ok((prepared, first, says)) = handed.blocking_recv() {
                run_on_this_thread(prepared, first, says)
            }
        }) {
            // It waits for them, and for nothing else.
            Ok(_) => drop(hand_over.send((prepared, first, says))),
            Err(error) => drop(says.send(Err(SwarmError::Thread(error)))),
        }
    });
    Ok((swarm, started))
}

/// Whether a node listens, and where.
pub type Started = Result<Vec<String>, SwarmError>;

/// Starts a node, says where it listens or why it does not, and runs it to its end.
fn run_on_this_thread(prepared: Prepared, first: Option<Command>, says: oneshot::Sender<Started>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        // Nobody need listen.
        Err(error) => return drop(says.send(Err(SwarmError::Thread(error)))),
    };
    runtime.block_on(async {
        match prepared.start().await {
            Ok((node, commands)) => {
                let _ = says.send(Ok(node.addrs()));
                node.run(commands, first).await;
            }
            Err(error) => drop(says.send(Err(error))),
        }
    });
}

/// Everything that a node needs to start.
struct Prepared {
    identity: Identity,
    limits: Limits,
    claimed: Claimed,
    commands: mpsc::Receiver<Command>,
}

fn prepare(config: SwarmConfig, limits: Limits) -> Result<(Swarm, Prepared), SwarmError> {
    let claimed = listen::claim(&config.listen)?;
    let peer = config.identity.peer_id();
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let port_taken_instead = claimed.port_taken_instead;
    let swarm = Swarm { id: peer.to_base58().into(), peer, port_taken_instead, commands: sender };
    Ok((swarm, Prepared { identity: config.identity, limits, claimed, commands }))
}

impl Prepared {
    async fn start(self) -> Result<(Node, mpsc::Receiver<Command>), SwarmError> {
        let mut swarm = node::build(self.identity, self.limits)?;
        let listeners = listen::listen(&mut swarm, self.claimed)?;
        let mut node = Node::new(swarm);
        node.await_addresses(listeners).await;
        Ok((node, self.commands))
    }
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
