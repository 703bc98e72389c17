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

/// Addresses that are this process's to listen on.
pub(super) struct Claimed {
    claims: Vec<Claim>,
    /// The port that was taken, if the one that was asked for was busy.
    pub(super) port_taken_instead: Option<u16>,
}

/// Claims the addresses that are asked for. Fast: nothing is waited for.
///
/// # Errors
///
/// The first address that cannot be had.
pub(super) fn claim(listen: &Listen) -> Result<Claimed, SwarmError> {
    let claimed = |claims| Claimed { claims, port_taken_instead: None };
    match listen {
        Listen::Addrs(addresses) => {
            addresses.iter().map(|address| Claim::new(*address)).collect::<Result<_, _>>().map(claimed)
        }
        Listen::Port { port: 0, .. } => claim_free_port().map(|(claims, _port)| claimed(claims)),
        Listen::Port { port, fallback } => match claim_port(*port) {
            Ok((claims, _port)) => Ok(claimed(claims)),
            Err(error) if *fallback && error.is_port_busy() => {
                let (claims, port) = claim_free_port()?;
                Ok(Claimed { claims, port_taken_instead: Some(port) })
            }
            Err(error) => Err(error),
        },
    }
}

fn claim_free_port() -> Result<(Vec<Claim>, u16), SwarmError> {
    for _ in 1..FREE_PORT_ATTEMPTS {
        match claim_port(0) {
            Err(error) if error.is_port_busy() => {}
            result => return result,
        }
    }
    claim_port(0)
}

/// Claims a port of all interfaces, TCP and QUIC under one number, which the system chooses if it is 0.
fn claim_port(mut port: u16) -> Result<(Vec<Claim>, u16), SwarmError> {
    let mut claims = Vec::new();
    for ip in unspecified_ips() {
        let claim = Claim::new(Multiaddr::new(Transport::Tcp, SocketAddr::new(ip, port)))?;
        port = claim.address.socket().port();
        claims.push(claim);
    }
    for ip in unspecified_ips() {
        claims.push(Claim::new(Multiaddr::new(Transport::Quic, SocketAddr::new(ip, port)))?);
    }
    Ok((claims, port))
}

/// Has `swarm` listen on what was claimed. Each of the listeners reports at least one address before long.
///
/// # Errors
///
/// The first address that was lost. `swarm` may be left with some listeners.
pub(super) fn listen<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    claimed: Claimed,
) -> Result<Vec<ListenerId>, SwarmError> {
    claimed.claims.into_iter().map(|claim| claim.listen(swarm)).collect()
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
/// It is held: another process that claims it, or listens on it in the usual way, gets an error. A UDP socket cannot be
/// given away, so it is let go at the last moment; if it is lost in between, libp2p gets the error.
struct Claim {
    address: Multiaddr,
    holder: Socket,
}

impl Claim {
    /// Claims `address`; its port is then the real one, if it was 0.
    fn new(address: Multiaddr) -> Result<Self, SwarmError> {
        let refused = |source| SwarmError::Listen { address: address.to_string(), source };
        let holder = bind(address).map_err(refused)?;
        let bound = holder.local_addr().map_err(refused)?;
        let bound = bound.as_socket().unwrap_or(address.socket());
        Ok(Self { address: Multiaddr::new(address.transport(), bound), holder })
    }

    /// Hands the address over to libp2p.
    fn listen<B: NetworkBehaviour>(self, swarm: &mut Swarm<B>) -> Result<ListenerId, SwarmError> {
        let refused = |source| SwarmError::Listen { address: self.address.to_string(), source };
        let _held = match self.address.transport() {
            Transport::Tcp => {
                // From here on it shares with libp2p's listener, and still not with another's claim.
                self.holder.set_reuse_port(true).map_err(refused)?;
                Some(self.holder)
            }
            Transport::Quic => {
                drop(self.holder);
                None
            }
        };
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
