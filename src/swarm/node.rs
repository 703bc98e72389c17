//! The task that owns the libp2p swarm.

use std::collections::HashMap;
use std::num::NonZeroU8;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr as Libp2pMultiaddr, PeerId, identify, noise, ping, quic, tcp, yamux};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::address::Multiaddr;
use super::connections::{Connections, LimitReached, Limits};
use super::{Identity, Peer, SwarmError, cause};

/// The name of the application protocols' family, which identify tells to peers.
const PROTOCOL_VERSION: &str = "/ww/0.1.0";

/// What identify tells to peers about this program.
const AGENT_VERSION: &str = concat!("ww/", env!("CARGO_PKG_VERSION"));

/// How long making one connection may take, with all handshakes. Also frees the place of those who connect and then say
/// nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection is kept for as long as both sides live, used or not, so that `peers` means something and a peer that was
/// connected once can be called at any time. libp2p's default closes it after ten idle seconds, and pings do not count
/// as use. The limits bound what is kept, and failing pings end what is dead.
const IDLE_TIMEOUT: Duration = Duration::MAX;

/// How many addresses of one peer are dialled at the same time.
const DIALS_AT_ONCE: NonZeroU8 = NonZeroU8::new(8).expect("it is not zero");

/// Streams that a peer may have open on one connection. The protocols here take a handful; each stream more is up to
/// 256 KiB (TCP) of unread bytes that the peer can make this node hold.
const STREAMS_MAX: usize = 64;

/// Incoming streams per connection whose protocol is not agreed yet; more are reset.
const NEGOTIATING_STREAMS_MAX: usize = 16;

/// Unread bytes that a peer may have in flight on one QUIC stream, and on all those of a connection.
const QUIC_STREAM_WINDOW: u32 = 1024 * 1024;
const QUIC_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// How long starting waits for the addresses behind `0.0.0.0` and `::`, which the kernel is asked for. It answers within
/// a millisecond; this is for the case that it does not.
const ADDRESSES_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an ending node takes leave of its peers. One that does not read cannot hold it up for longer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a handle asks of the task.
pub(super) enum Command {
    /// For the addresses that the node listens on.
    Addrs(oneshot::Sender<Vec<String>>),
    /// For the connected peers.
    Peers(oneshot::Sender<Vec<Peer>>),
    /// For a connection with `peer`; see [`Node::dial`].
    Dial { peer: PeerId, addresses: Vec<Multiaddr>, reply: oneshot::Sender<Result<(), DialFailure>> },
    /// For its end.
    Shutdown,
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub(super) enum DialFailure {
    /// There is none yet, and no address to make one with.
    NoAddresses,
    /// There are as many as there may be.
    Limit(LimitReached),
    /// Another peer answered at one of the addresses. The others were not tried to the end.
    WrongPeer { address: Multiaddr, answered: PeerId },
    /// Each address failed, and why.
    Addresses(Vec<(Multiaddr, String)>),
    /// Something that is about no single address.
    Other(String),
}

/// Everything that happens on a connection.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    connections: Connections,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// A connection that is being made, and who waits for it.
struct Dial {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    replies: Vec<oneshot::Sender<Result<(), DialFailure>>>,
}

/// The swarm and what its task knows beside it.
pub(super) struct Node {
    swarm: Swarm<Behaviour>,
    dials: HashMap<ConnectionId, Dial>,
}

impl Node {
    pub(super) fn new(swarm: Swarm<Behaviour>) -> Self {
        Self { swarm, dials: HashMap::new() }
    }

    /// Waits until each of `listeners` has reported an address, then takes what others are there already.
    pub(super) async fn await_addresses(&mut self, mut listeners: Vec<ListenerId>) {
        let all_reported = async {
            while !listeners.is_empty() {
                let event = self.swarm.select_next_some().await;
                if let SwarmEvent::NewListenAddr { listener_id, .. } = &event {
                    listeners.retain(|listener| listener != listener_id);
                }
                self.on_event(event);
            }
        };
        if timeout(ADDRESSES_TIMEOUT, all_reported).await.is_err() {
            warn!("the network interfaces' addresses are not known yet");
        }
        while let Some(event) = self.swarm.select_next_some().now_or_never() {
            self.on_event(event);
        }
    }

    /// Works until the last handle is gone or one asks for the end, then closes the connections. `first` is a command that
    /// has come before.
    ///
    /// `commands` is dropped last, so a handle can see when everything is closed.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, first: Option<Command>) {
        if let Some(command) = first {
            self.on_command(command);
        }
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::Shutdown) => break,
                    Some(command) => self.on_command(command),
                },
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
        self.close().await;
    }

    /// Closes the connections in an orderly way, so that the peers see it at once, and drops the swarm.
    async fn close(mut self) {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _was_connected = self.swarm.disconnect_peer_id(peer);
        }
        let all_closed = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        if timeout(CLOSE_TIMEOUT, all_closed).await.is_err() {
            debug!("ended before all peers had seen it");
        }
    }

    /// Answers a command. That the asker has gone is no concern of ours.
    fn on_command(&mut self, command: Command) {
        match command {
            Command::Addrs(reply) => drop(reply.send(self.addrs())),
            Command::Peers(reply) => drop(reply.send(self.swarm.behaviour().connections.peers())),
            Command::Dial { peer, addresses, reply } => self.dial(peer, addresses, reply),
            Command::Shutdown => {}
        }
    }

    /// The addresses that others can connect to, sorted, each with the peer id.
    pub(super) fn addrs(&self) -> Vec<String> {
        let peer = *self.swarm.local_peer_id();
        let usable = self.swarm.listeners().filter(|address| !is_link_local(address));
        let mut addrs: Vec<String> = usable
            .map(|address| address.clone().with_p2p(peer).unwrap_or_else(|address| address).to_string())
            .collect();
        addrs.sort_unstable();
        addrs.dedup();
        addrs
    }

    /// Begins to connect to `peer` at these addresses and no others. The reply comes at once if there is a connection,
    /// and else when the dial is done. It is good if there is a connection by then, whoever made it.
    ///
    /// A connection that the peer makes meanwhile does not end the wait: of all the addresses that the peer dials, it
    /// keeps the first that answers and closes the others, and this may be one of those.
    ///
    /// Those who ask for the same at the same time share one dial. With one for each, two nodes that connect to each
    /// other many times at once could keep different ones of all these connections, each closing, as too many with one
    /// peer, what the other keeps, until none is left.
    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, reply: oneshot::Sender<Result<(), DialFailure>>) {
        if self.swarm.is_connected(&peer) {
            let _ = reply.send(Ok(()));
            return;
        }
        if addresses.is_empty() {
            let _ = reply.send(Err(DialFailure::NoAddresses));
            return;
        }
        let same = |dial: &&mut Dial| dial.peer == peer && dial.addresses == addresses;
        if let Some(dial) = self.dials.values_mut().find(same) {
            dial.replies.push(reply);
            return;
        }
        // A new port for each, not the one that this node listens on: two nodes that dial each other at once from there
        // can meet in one TCP connection in which both believe that they opened it, and its handshake fails.
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .override_dial_concurrency_factor(DIALS_AT_ONCE)
            .addresses(addresses.iter().map(|address| address.to_libp2p_of(peer)).collect())
            .allocate_new_port()
            .build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(connection, Dial { peer, addresses, replies: vec![reply] });
            }
            Err(error) => drop(reply.send(Err(error.into()))),
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                debug!(peer = %peer_id, address = %endpoint.get_remote_address(), "connected");
                self.on_connected(peer_id, connection_id, num_established.get());
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, cause, .. } => {
                let cause = cause.map_or_else(|| "closed".to_owned(), |error| cause::describe(&error));
                debug!(peer = %peer_id, remaining = num_established, %cause, "connection ended");
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(dial) = self.dials.remove(&connection_id) {
                    let failed = DialFailure::from(error);
                    let answer = if self.swarm.is_connected(&dial.peer) { Ok(()) } else { Err(failed) };
                    for reply in dial.replies {
                        let _ = reply.send(answer.clone());
                    }
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                debug!(address = %send_back_addr, error = cause::describe(&error), "incoming connection failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => debug!(%address, "listening"),
            SwarmEvent::ExpiredListenAddr { address, .. } => debug!(%address, "no longer listening"),
            SwarmEvent::ListenerError { error, .. } => debug!(error = cause::describe(&error), "listener error"),
            SwarmEvent::ListenerClosed { reason: Err(error), .. } => {
                warn!(error = cause::describe(&error), "stopped listening");
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.on_ping(&event),
            // What a peer says about itself (identify) is not needed and not kept.
            _ => {}
        }
    }

    /// Answers everybody who waits for this connection, if it is one that was dialled.
    fn on_connected(&mut self, peer: PeerId, connection: ConnectionId, connections_with_peer: u32) {
        let Some(dial) = self.dials.remove(&connection) else { return };
        let mut awaited = false;
        for reply in dial.replies {
            awaited |= reply.send(Ok(())).is_ok();
        }
        if !awaited && connections_with_peer == 1 {
            debug!(%peer, "nobody waits for this connection any more");
            self.swarm.close_connection(connection);
        }
    }

    /// Ends a connection whose other end has gone without a word. TCP alone would take a quarter of an hour to notice.
    fn on_ping(&mut self, event: &ping::Event) {
        match &event.result {
            // A peer need not speak ping.
            Ok(_) | Err(ping::Failure::Unsupported) => {}
            // The first failure in a row is not reported, so this is the second.
            Err(error) => {
                debug!(peer = %event.peer, error = cause::describe(error), "pings fail");
                self.swarm.close_connection(event.connection);
            }
        }
    }
}

/// Makes a swarm that does not listen yet. Its background tasks go to the runtime that this is called on.
pub(super) fn build(identity: Identity, limits: Limits) -> Result<Swarm<Behaviour>, SwarmError> {
    let behaviour = |keypair: &libp2p::identity::Keypair| Behaviour {
        connections: Connections::new(limits),
        identify: identify::Behaviour::new(
            identify::Config::new(PROTOCOL_VERSION.to_owned(), keypair.public())
                .with_agent_version(AGENT_VERSION.to_owned())
                // Nothing that a peer says about its addresses is kept or dialled.
                .with_cache_size(0),
        ),
        ping: ping::Behaviour::default(),
    };
    let swarm = libp2p::SwarmBuilder::with_existing_identity(identity.into_keypair())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux_config)
        .map_err(|error| SwarmError::Keys(Box::new(error)))?
        .with_quic_config(quic_config)
        .with_behaviour(behaviour)
        .unwrap_or_else(|never| match never {})
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(IDLE_TIMEOUT)
                .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS_MAX)
        })
        .with_connection_timeout(HANDSHAKE_TIMEOUT)
        .build();
    Ok(swarm)
}

fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS_MAX);
    config
}

fn quic_config(mut config: quic::Config) -> quic::Config {
    config.handshake_timeout = HANDSHAKE_TIMEOUT;
    config.max_concurrent_stream_limit = STREAMS_MAX as u32;
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_CONNECTION_WINDOW;
    config
}

/// Whether an address is of use only together with the name of an interface, which a multiaddr of ours cannot hold.
fn is_link_local(address: &Libp2pMultiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::Ip6(ip)) if ip.is_unicast_link_local())
}

impl From<DialError> for DialFailure {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Denied { cause } => match cause.downcast::<LimitReached>() {
                Ok(limit) => Self::Limit(limit),
                Err(other) => Self::Other(cause::describe(&other)),
            },
            DialError::WrongPeerId { obtained, address } => match Multiaddr::of_dial(&address) {
                Some(address) => Self::WrongPeer { address, answered: obtained },
                None => Self::Other(cause::describe(&DialError::WrongPeerId { obtained, address })),
            },
            DialError::Transport(errors) => Self::Addresses(
                errors
                    .iter()
                    .filter_map(|(address, error)| Some((Multiaddr::of_dial(address)?, cause::describe(error))))
                    .collect(),
            ),
            other => Self::Other(cause::describe(&other)),
        }
    }
}
