//! Which connections there are, and the refusal of those beyond the limits.
//!
//! libp2p has a behaviour for limits (`connection_limits` 0.7.0), but it keeps an entry for every peer id that was ever
//! connected, and ids cost an attacker nothing. This one keeps nothing of a connection that has ended, and it also
//! answers who is connected and from where.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{AddressChange, ConnectionClosed, ConnectionEstablished, DialFailure, ListenFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::Peer;

/// Connections in total. Each takes a file descriptor, and most systems start a process with 1,024 of them; the node
/// is not the only one that needs some.
const ESTABLISHED_MAX: usize = 256;

/// Connections that others opened. The rest of [`ESTABLISHED_MAX`] is for those that this node opens itself, so that
/// strangers cannot keep it from connecting to whom it wants.
const ESTABLISHED_INCOMING_MAX: usize = 192;

/// Connections with the same peer. Two are normal, when both sides connect at once; a few more arise when several
/// callers connect to the same peer at once.
const PER_PEER_MAX: usize = 8;

/// Incoming connections whose handshake is not done. Each lasts at most as long as the handshake may.
const PENDING_INCOMING_MAX: usize = 64;

/// Outgoing connections that are being made. Each may be dialling several addresses at once, so this times
/// `DIALS_AT_ONCE` bounds the sockets.
const PENDING_OUTGOING_MAX: usize = 32;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) established: usize,
    pub(super) established_incoming: usize,
    pub(super) per_peer: usize,
    pub(super) pending_incoming: usize,
    pub(super) pending_outgoing: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            established: ESTABLISHED_MAX,
            established_incoming: ESTABLISHED_INCOMING_MAX,
            per_peer: PER_PEER_MAX,
            pending_incoming: PENDING_INCOMING_MAX,
            pending_outgoing: PENDING_OUTGOING_MAX,
        }
    }
}

/// A connection was refused, since there are as many as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {limit} {what} already, which is the limit")]
pub(super) struct LimitReached {
    limit: usize,
    what: &'static str,
}

/// The behaviour that knows every connection, pending or established.
pub(super) struct Connections {
    limits: Limits,
    pending_incoming: HashSet<ConnectionId>,
    pending_outgoing: HashSet<ConnectionId>,
    established: HashMap<ConnectionId, Established>,
}

struct Established {
    peer: PeerId,
    incoming: bool,
    address: Multiaddr,
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, pending_incoming: HashSet::new(), pending_outgoing: HashSet::new(), established: HashMap::new() }
    }

    /// The connected peers, sorted by id, each with the sorted addresses of its connections.
    pub(super) fn peers(&self) -> Vec<Peer> {
        let mut peers = BTreeMap::<String, BTreeSet<String>>::new();
        for connection in self.established.values() {
            peers.entry(connection.peer.to_base58()).or_default().insert(connection.address.to_string());
        }
        peers.into_iter().map(|(id, addrs)| Peer { id, addrs: addrs.into_iter().collect() }).collect()
    }

    fn check_established(&self, peer: PeerId, incoming: bool) -> Result<(), ConnectionDenied> {
        let count = |wanted: &dyn Fn(&Established) -> bool| {
            self.established.values().filter(|connection| wanted(connection)).count()
        };
        check(self.established.len(), self.limits.established, "connections")?;
        check(count(&|other| other.peer == peer), self.limits.per_peer, "connections with this peer")?;
        if incoming {
            check(count(&|other| other.incoming), self.limits.established_incoming, "incoming connections")?;
        }
        Ok(())
    }
}

fn check(present: usize, limit: usize, what: &'static str) -> Result<(), ConnectionDenied> {
    if present < limit { Ok(()) } else { Err(ConnectionDenied::new(LimitReached { limit, what })) }
}

/// The other end's address, without the peer id that a dialled address ends with.
fn remote_address(endpoint: &ConnectedPoint) -> Multiaddr {
    let mut address = endpoint.get_remote_address().clone();
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

impl NetworkBehaviour for Connections {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        check(self.pending_incoming.len(), self.limits.pending_incoming, "incoming connections being made")?;
        self.pending_incoming.insert(connection);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending_incoming.remove(&connection);
        self.check_established(peer, true)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _peer: Option<PeerId>,
        _addresses: &[Multiaddr],
        _role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        check(self.pending_outgoing.len(), self.limits.pending_outgoing, "outgoing connections being made")?;
        self.pending_outgoing.insert(connection);
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending_outgoing.remove(&connection);
        self.check_established(peer, false)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                let (incoming, address) = (endpoint.is_listener(), remote_address(endpoint));
                self.established.insert(connection_id, Established { peer: peer_id, incoming, address });
            }
            FromSwarm::AddressChange(AddressChange { connection_id, new, .. }) => {
                if let Some(connection) = self.established.get_mut(&connection_id) {
                    connection.address = remote_address(new);
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.established.remove(&connection_id);
            }
            FromSwarm::DialFailure(DialFailure { connection_id, .. }) => {
                self.pending_outgoing.remove(&connection_id);
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.pending_incoming.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _peer: PeerId, _connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { established: 4, established_incoming: 3, per_peer: 2, pending_incoming: 2, pending_outgoing: 2 };

    fn address() -> Multiaddr {
        "/ip4/127.0.0.1/tcp/1".parse().unwrap()
    }

    fn listener() -> ConnectedPoint {
        ConnectedPoint::Listener { local_addr: address(), send_back_addr: address() }
    }

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    /// What libp2p does when a connection arrives, from its first byte to the end of its handshake.
    fn arrive(connections: &mut Connections, number: usize, peer: PeerId) -> Result<(), ConnectionDenied> {
        connections.handle_pending_inbound_connection(id(number), &address(), &address())?;
        connections.handle_established_inbound_connection(id(number), peer, &address(), &address())?;
        connections.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: id(number),
            endpoint: &listener(),
            failed_addresses: &[],
            other_established: 0,
        }));
        Ok(())
    }

    fn close(connections: &mut Connections, number: usize, peer: PeerId) {
        connections.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: id(number),
            endpoint: &listener(),
            cause: None,
            remaining_established: 0,
        }));
    }

    fn refusal(result: Result<(), ConnectionDenied>) -> String {
        result.unwrap_err().downcast::<LimitReached>().unwrap().to_string()
    }

    #[test]
    fn a_peer_stays_until_its_last_connection_closes() {
        let mut connections = Connections::new(LIMITS);
        let peer = PeerId::random();
        arrive(&mut connections, 1, peer).unwrap();
        arrive(&mut connections, 2, peer).unwrap();
        let expected = [Peer { id: peer.to_base58(), addrs: vec![address().to_string()] }];
        assert_eq!(connections.peers(), expected);
        close(&mut connections, 1, peer);
        assert_eq!(connections.peers(), expected);
        close(&mut connections, 2, peer);
        assert_eq!(connections.peers(), []);
    }

    #[test]
    fn peers_are_sorted() {
        let mut connections = Connections::new(Limits::default());
        for number in 0..16 {
            arrive(&mut connections, number, PeerId::random()).unwrap();
        }
        assert!(connections.peers().is_sorted_by(|left, right| left.id < right.id));
    }

    #[test]
    fn established_connections_are_limited() {
        let mut connections = Connections::new(LIMITS);
        let peers = [PeerId::random(), PeerId::random(), PeerId::random()];
        arrive(&mut connections, 1, peers[0]).unwrap();
        arrive(&mut connections, 2, peers[0]).unwrap();
        assert_eq!(
            refusal(arrive(&mut connections, 3, peers[0])),
            "there are 2 connections with this peer already, which is the limit"
        );
        arrive(&mut connections, 4, peers[1]).unwrap();
        assert_eq!(
            refusal(arrive(&mut connections, 5, peers[2])),
            "there are 3 incoming connections already, which is the limit"
        );
        let outgoing = |connections: &mut Connections, number| {
            connections
                .handle_established_outbound_connection(
                    id(number),
                    peers[2],
                    &address(),
                    Endpoint::Dialer,
                    PortUse::New,
                )
                .map(|_| ())
        };
        outgoing(&mut connections, 6).expect("incoming connections leave room for outgoing ones");
        close(&mut connections, 1, peers[0]);
        arrive(&mut connections, 7, peers[2]).unwrap();
        assert!(connections.pending_incoming.is_empty(), "a refused connection is forgotten");
    }

    #[test]
    fn pending_connections_are_limited_and_forgotten_when_they_fail() {
        let mut connections = Connections::new(LIMITS);
        let mut begin = |number| {
            let begun = connections.handle_pending_inbound_connection(id(number), &address(), &address());
            (begun, connections.pending_incoming.len())
        };
        begin(1).0.unwrap();
        begin(2).0.unwrap();
        let (begun, pending) = begin(3);
        assert_eq!(refusal(begun), "there are 2 incoming connections being made already, which is the limit");
        assert_eq!(pending, 2);
        for number in [1, 2, 3] {
            connections.on_swarm_event(FromSwarm::ListenFailure(ListenFailure {
                local_addr: &address(),
                send_back_addr: &address(),
                error: &libp2p::swarm::ListenError::Aborted,
                connection_id: id(number),
                peer_id: None,
            }));
        }
        assert!(connections.pending_incoming.is_empty());
    }
}
