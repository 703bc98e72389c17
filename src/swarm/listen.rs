//! Listening, such that a port that somebody else has is noticed.
//!
//! libp2p's TCP transport (0.45.0) sets `SO_REUSEPORT` on its listeners. With it the kernel lets a second process of the
//! same user listen on the same port and gives each of them some of the connections, without a word to either. So a
//! port is claimed first with a listener that does not share ([`Claim`]). QUIC's sockets share nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use libp2p::core::transport::ListenerId;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use socket2::{Domain, Socket, Type};

use super::address::{Multiaddr, Transport};
use super::{Listen, SwarmError, cause};

/// How many port numbers are tried when any free one will do. A number that is free for TCP and not for UDP is rare.
const FREE_PORT_ATTEMPTS: usize = 16;

/// What [`listen`] has begun.
#[derive(Debug)]
pub(super) struct Listening {
    /// Each reports at least one address to listen on before long.
    pub(super) listeners: Vec<ListenerId>,
    /// The port that was taken, if the one that was asked for was busy.
    pub(super) port_taken_instead: Option<u16>,
}

/// Has `swarm` listen as asked.
///
/// # Errors
///
/// The first address that cannot be had. `swarm` may be left with some listeners.
pub(super) fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, listen: &Listen) -> Result<Listening, SwarmError> {
    match listen {
        Listen::Addrs(addresses) => {
            let listeners = listen_on(swarm, addresses)?;
            Ok(Listening { listeners, port_taken_instead: None })
        }
        Listen::Port { port: 0, .. } => {
            let (listeners, _port) = listen_on_free_port(swarm)?;
            Ok(Listening { listeners, port_taken_instead: None })
        }
        Listen::Port { port, fallback } => match listen_on_port(swarm, *port) {
            Ok((listeners, _port)) => Ok(Listening { listeners, port_taken_instead: None }),
            Err(error) if *fallback && error.is_port_busy() => {
                let (listeners, port) = listen_on_free_port(swarm)?;
                Ok(Listening { listeners, port_taken_instead: Some(port) })
            }
            Err(error) => Err(error),
        },
    }
}

fn listen_on_free_port<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Result<(Vec<ListenerId>, u16), SwarmError> {
    for _ in 1..FREE_PORT_ATTEMPTS {
        match listen_on_port(swarm, 0) {
            Err(error) if error.is_port_busy() => {}
            result => return result,
        }
    }
    listen_on_port(swarm, 0)
}

/// Listens on all interfaces with TCP and QUIC under one number, which the system chooses if it is 0.
fn listen_on_port<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    mut port: u16,
) -> Result<(Vec<ListenerId>, u16), SwarmError> {
    let mut claims = Vec::new();
    for ip in unspecified_ips() {
        let claim = Claim::new(Multiaddr::new(Transport::Tcp, SocketAddr::new(ip, port)))?;
        port = claim.address.socket().port();
        claims.push(claim);
    }
    for ip in unspecified_ips() {
        claims.push(Claim::new(Multiaddr::new(Transport::Quic, SocketAddr::new(ip, port)))?);
    }
    listen_on_claims(swarm, claims).map(|listeners| (listeners, port))
}

fn listen_on<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    addresses: &[Multiaddr],
) -> Result<Vec<ListenerId>, SwarmError> {
    let claims = addresses.iter().map(|address| Claim::new(*address)).collect::<Result<_, _>>()?;
    listen_on_claims(swarm, claims)
}

/// Listens on what was claimed, all or nothing.
fn listen_on_claims<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    claims: Vec<Claim>,
) -> Result<Vec<ListenerId>, SwarmError> {
    let mut listeners = Vec::new();
    for claim in claims {
        match claim.listen(swarm) {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                for listener in listeners {
                    swarm.remove_listener(listener);
                }
                return Err(error);
            }
        }
    }
    Ok(listeners)
}

/// The addresses that mean all interfaces. IPv6 is among them only where the machine has it, which its loopback address
/// shows: `::` alone can often be bound where IPv6 is switched off.
fn unspecified_ips() -> Vec<IpAddr> {
    let mut ips = vec![Ipv4Addr::UNSPECIFIED.into()];
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        ips.push(Ipv6Addr::UNSPECIFIED.into());
    }
    ips
}

/// An address that nobody else listens on, kept for libp2p to listen on.
///
/// For TCP it is held: another process that claims it, or listens on it in the usual way, gets an error. A UDP socket
/// cannot be held and given away, so there it is only known to have been free; if it is lost in between, libp2p gets
/// the error.
struct Claim {
    address: Multiaddr,
    holder: Option<Socket>,
}

impl Claim {
    /// Claims `address`; its port is then the real one, if it was 0.
    fn new(address: Multiaddr) -> Result<Self, SwarmError> {
        let refused = |source| SwarmError::Listen { address: address.to_string(), source };
        let socket = bind(address).map_err(refused)?;
        let bound = socket.local_addr().map_err(refused)?;
        let bound = bound.as_socket().unwrap_or(address.socket());
        Ok(Self {
            address: Multiaddr::new(address.transport(), bound),
            holder: (address.transport() == Transport::Tcp).then_some(socket),
        })
    }

    /// Hands the address over to libp2p.
    fn listen<B: NetworkBehaviour>(self, swarm: &mut Swarm<B>) -> Result<ListenerId, SwarmError> {
        let refused = |source| SwarmError::Listen { address: self.address.to_string(), source };
        if let Some(holder) = &self.holder {
            // From here on it shares with libp2p's listener, and still not with another's claim.
            holder.set_reuse_port(true).map_err(refused)?;
        }
        // The socket could be bound a moment ago, so what fails now is that somebody else has taken it since. libp2p's
        // error does not let its cause be reached.
        swarm
            .listen_on(self.address.to_libp2p())
            .map_err(|error| refused(io::Error::new(io::ErrorKind::AddrInUse, cause::describe(&error))))
    }
}

/// A socket at `address` that does not share it, listening if it is TCP's.
fn bind(address: Multiaddr) -> io::Result<Socket> {
    let socket = address.socket();
    let kind = match address.transport() {
        Transport::Tcp => Type::STREAM,
        Transport::Quic => Type::DGRAM,
    };
    let bound = Socket::new(Domain::for_address(socket), kind, None)?;
    if socket.is_ipv6() {
        // As libp2p does: `::` is then IPv6 alone, and leaves `0.0.0.0` to the other listener.
        bound.set_only_v6(true)?;
    }
    if address.transport() == Transport::Tcp {
        // Past connections of a node that has ended (TIME_WAIT) do not count as busy; a listener does.
        bound.set_reuse_address(true)?;
    }
    bound.bind(&socket.into())?;
    if address.transport() == Transport::Tcp {
        bound.listen(1)?;
    }
    Ok(bound)
}
