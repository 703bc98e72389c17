//! Connecting: checking what the caller gave, dialling it, and saying why it failed.

use std::fmt;
use std::time::Duration;

use libp2p::PeerId;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Swarm;
use super::address::{self, Multiaddr};
use super::node::{Command, DialFailure};
use crate::escape;
use crate::grant::Reach;

/// How long [`Swarm::connect`] may take. Enough for two rounds of dials that time out, so that a slow address does not
/// hide a good one behind it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How many addresses one call of [`Swarm::connect`] may name. A machine has a few interfaces times two transports.
pub const ADDRESSES_MAX: usize = 16;

/// What is said of an address that the caller may not reach.
const OUT_OF_REACH: &str = "it is not public, or in no network that was granted; `--grant connect:NETWORK` grants one";

/// Why [`Swarm::connect`] failed. What came from others is escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The id is not a peer id in base58.
    #[error("connect to `{id}`: it is not a peer id such as 12D3KooW…")]
    PeerId {
        /// What was given, escaped and shortened.
        id: String,
    },
    /// The id is this node's own.
    #[error("connect to {id}: it is this node itself")]
    ThisNode {
        /// The peer id.
        id: String,
    },
    /// More addresses than one call may name.
    #[error("connect to {id}: {count} addresses were given, and {ADDRESSES_MAX} are the limit")]
    TooManyAddresses {
        /// The peer id.
        id: String,
        /// How many there were.
        count: usize,
    },
    /// Some of the addresses cannot be used; nothing was dialled.
    #[error("connect to {id}: {}", list(failures))]
    Addresses {
        /// The peer id.
        id: String,
        /// Each address that cannot be used; the others are not among them.
        failures: Vec<AddressFailure>,
    },
    /// There is neither a connection nor an address to make one with.
    #[error("connect to {id}: there is no connection yet, and no address was given")]
    NoAddresses {
        /// The peer id.
        id: String,
    },
    /// No address led to the peer.
    #[error("connect to {id}: {}", list(failures))]
    Failed {
        /// The peer id.
        id: String,
        /// Every address that was given, in no order, with what happened there.
        failures: Vec<AddressFailure>,
    },
    /// This node has as many connections, or attempts at some, as it may have.
    #[error("connect to {id}: {reason}")]
    Limit {
        /// The peer id.
        id: String,
        /// Which limit, and what it is.
        reason: String,
    },
    /// The node failed in a way that is about no single address.
    #[error("connect to {id}: {reason}")]
    Other {
        /// The peer id.
        id: String,
        /// What libp2p said.
        reason: String,
    },
    /// The node was shut down.
    #[error("connect to {id}: the node has been shut down")]
    ShutDown {
        /// The peer id.
        id: String,
    },
}

/// An address, and what is wrong with it or went wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressFailure {
    /// The address; as it was given, escaped and shortened, if it is malformed.
    pub address: String,
    /// A fragment such as `Connection refused (os error 111)`.
    pub reason: String,
}

impl fmt::Display for AddressFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}`: {}", self.address, self.reason)
    }
}

fn list(failures: &[AddressFailure]) -> String {
    failures.iter().map(AddressFailure::to_string).collect::<Vec<_>>().join("; ")
}

/// A peer and where to look for it: what a caller gave, checked.
struct Target {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
}

impl Target {
    fn parse(this_node: PeerId, id: &str, addrs: &[String], reach: Option<&Reach>) -> Result<Self, ConnectError> {
        let peer = address::parse_peer(id).ok_or_else(|| ConnectError::PeerId { id: escape::short(id) })?;
        let id = peer.to_base58();
        if peer == this_node {
            return Err(ConnectError::ThisNode { id });
        }
        if addrs.len() > ADDRESSES_MAX {
            return Err(ConnectError::TooManyAddresses { id, count: addrs.len() });
        }
        let mut addresses = Vec::new();
        let mut failures = Vec::new();
        for text in addrs {
            match Multiaddr::parse_of_peer(text, peer) {
                Ok(address) if reach.is_some_and(|reach| !reach.allows(address.socket().ip())) => {
                    failures.push(AddressFailure { address: address.to_string(), reason: OUT_OF_REACH.to_owned() });
                }
                Ok(address) if addresses.contains(&address) => {}
                Ok(address) => addresses.push(address),
                Err(error) => {
                    failures.push(AddressFailure { address: escape::short(text), reason: error.to_string() });
                }
            }
        }
        if failures.is_empty() { Ok(Self { peer, addresses }) } else { Err(ConnectError::Addresses { id, failures }) }
    }
}

/// See [`Swarm::connect`].
pub(super) async fn connect(
    swarm: &Swarm,
    id: &str,
    addrs: &[String],
    reach: Option<&Reach>,
) -> Result<(), ConnectError> {
    let Target { peer, mut addresses } = Target::parse(swarm.peer, id, addrs, reach)?;
    let id = peer.to_base58();
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let mut failures = Vec::new();
    loop {
        let Ok(dialled) = timeout_at(deadline, dial(swarm, peer, addresses.clone())).await else {
            let reason = format!("no answer within {} seconds", CONNECT_TIMEOUT.as_secs());
            failures.extend(addresses.into_iter().map(|address| failure(address, reason.clone())));
            return Err(ConnectError::Failed { id, failures });
        };
        match dialled {
            Ok(()) => return Ok(()),
            // libp2p gives up where the first answer comes from another peer; the right one may be at another address.
            Err(Some(DialFailure::WrongPeer { address, answered })) => {
                addresses.retain(|other| *other != address);
                failures.push(failure(address, wrong_peer(swarm, answered)));
                if addresses.is_empty() {
                    return Err(ConnectError::Failed { id, failures });
                }
            }
            Err(Some(DialFailure::Addresses(failed))) => {
                failures.extend(failed.into_iter().map(|(address, reason)| failure(address, reason)));
                return Err(ConnectError::Failed { id, failures });
            }
            Err(Some(DialFailure::NoAddresses)) => return Err(ConnectError::NoAddresses { id }),
            Err(Some(DialFailure::Limit(limit))) => return Err(ConnectError::Limit { id, reason: limit.to_string() }),
            Err(Some(DialFailure::Other(reason))) => return Err(ConnectError::Other { id, reason }),
            Err(None) => return Err(ConnectError::ShutDown { id }),
        }
    }
}

/// One dial of all addresses. The error is `None` if the node is gone.
async fn dial(swarm: &Swarm, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), Option<DialFailure>> {
    let (reply, answer) = oneshot::channel();
    swarm.commands.send(Command::Dial { peer, addresses, reply }).await.map_err(|_| None)?;
    answer.await.map_err(|_| None)?.map_err(Some)
}

fn failure(address: Multiaddr, reason: String) -> AddressFailure {
    AddressFailure { address: address.to_string(), reason }
}

fn wrong_peer(swarm: &Swarm, answered: PeerId) -> String {
    if answered == swarm.peer {
        "this node itself answered".to_owned()
    } else {
        format!("another peer answered, {answered}")
    }
}
