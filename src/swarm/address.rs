//! Addresses and peer ids in their text form, checked once.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use libp2p::PeerId;
use libp2p::multiaddr::Protocol;

/// The longest text that is read as an address or a peer id, in bytes. An IPv6 address with QUIC and a peer id takes
/// about 130.
const TEXT_LEN_MAX: usize = 256;

/// An address that this node could listen on: an IP address with a TCP port, or with a UDP port for QUIC version 1.
///
/// Its text form is `/ip4/127.0.0.1/tcp/2020` or `/ip6/::1/udp/2020/quic-v1`. Names (`/dns4/…`) and other transports
/// are not supported, and a peer id is no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Multiaddr {
    transport: Transport,
    socket: SocketAddr,
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Transport {
    Tcp,
    Quic,
}

/// Why a text is not an address that this node can use. The message does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The text is longer than any address.
    #[error("longer than {TEXT_LEN_MAX} bytes")]
    TooLong,
    /// The text is no multiaddr at all.
    #[error("not a multiaddr such as /ip4/127.0.0.1/tcp/2020")]
    Malformed,
    /// A multiaddr with a part that this node does not know how to use.
    #[error("`{0}` is not supported here; an address is /ip4/… or /ip6/… with /tcp/PORT or /udp/PORT/quic-v1")]
    Unsupported(&'static str),
    /// A multiaddr that stops before the port or the transport.
    #[error("incomplete; an address is /ip4/… or /ip6/… with /tcp/PORT or /udp/PORT/quic-v1")]
    Incomplete,
    /// A `/p2p/…` part where only the place to listen on is wanted.
    #[error("names a peer (/p2p/…), which an address to listen on does not")]
    NamesPeer,
    /// A `/p2p/…` part that disagrees with the peer that is to be reached.
    #[error("names another peer, {0}")]
    OtherPeer(String),
    /// An address that stands for many (`0.0.0.0`, `::`) or any port (0): one can listen on it, not connect to it.
    #[error("not the address of one place that can be connected to")]
    NotDialable,
}

impl Multiaddr {
    pub(super) fn new(transport: Transport, socket: SocketAddr) -> Self {
        Self { transport, socket }
    }

    /// The address, and the peer that a trailing `/p2p/…` names.
    fn from_libp2p(address: &libp2p::Multiaddr) -> Result<(Self, Option<PeerId>), AddressError> {
        let mut protocols = address.iter();
        let ip: IpAddr = match protocols.next() {
            Some(Protocol::Ip4(ip)) => ip.into(),
            Some(Protocol::Ip6(ip)) => ip.into(),
            other => return Err(unexpected(other)),
        };
        let (transport, port) = match protocols.next() {
            Some(Protocol::Tcp(port)) => (Transport::Tcp, port),
            Some(Protocol::Udp(port)) => match protocols.next() {
                Some(Protocol::QuicV1) => (Transport::Quic, port),
                other => return Err(unexpected(other)),
            },
            other => return Err(unexpected(other)),
        };
        let peer = match protocols.next() {
            None => None,
            Some(Protocol::P2p(peer)) => Some(peer),
            other => return Err(unexpected(other)),
        };
        match protocols.next() {
            None => Ok((Self::new(transport, SocketAddr::new(ip, port)), peer)),
            other => Err(unexpected(other)),
        }
    }

    /// Reads the address of `peer` as somebody wrote it, with or without a trailing `/p2p/<peer>`.
    pub(super) fn parse_of_peer(text: &str, peer: PeerId) -> Result<Self, AddressError> {
        let (address, named) = parse(text)?;
        match named {
            Some(named) if named != peer => Err(AddressError::OtherPeer(named.to_base58())),
            _ if address.socket.port() == 0 || address.socket.ip().is_unspecified() => Err(AddressError::NotDialable),
            _ => Ok(address),
        }
    }

    /// The address that libp2p reports, as long as it is one of ours.
    pub(super) fn of_dial(address: &libp2p::Multiaddr) -> Option<Self> {
        Self::from_libp2p(address).ok().map(|(address, _)| address)
    }

    pub(super) fn to_libp2p(self) -> libp2p::Multiaddr {
        let address = libp2p::Multiaddr::from(self.socket.ip());
        match self.transport {
            Transport::Tcp => address.with(Protocol::Tcp(self.socket.port())),
            Transport::Quic => address.with(Protocol::Udp(self.socket.port())).with(Protocol::QuicV1),
        }
    }

    /// With `/p2p/<peer>`. libp2p passes over addresses that equal one that it listens on, without a word; with the id
    /// they do not, and the answer shows whose they are.
    pub(super) fn to_libp2p_of(self, peer: PeerId) -> libp2p::Multiaddr {
        self.to_libp2p().with(Protocol::P2p(peer))
    }

    pub(super) fn transport(self) -> Transport {
        self.transport
    }

    pub(super) fn socket(self) -> SocketAddr {
        self.socket
    }
}

impl FromStr for Multiaddr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match parse(text)? {
            (address, None) => Ok(address),
            (_, Some(_)) => Err(AddressError::NamesPeer),
        }
    }
}

impl fmt::Display for Multiaddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_libp2p().fmt(formatter)
    }
}

/// Reads a peer id in base58.
pub(super) fn parse_peer(text: &str) -> Option<PeerId> {
    if text.len() > TEXT_LEN_MAX {
        return None;
    }
    text.parse().ok()
}

fn parse(text: &str) -> Result<(Multiaddr, Option<PeerId>), AddressError> {
    if text.len() > TEXT_LEN_MAX {
        return Err(AddressError::TooLong);
    }
    let address = text.parse().map_err(|_| AddressError::Malformed)?;
    Multiaddr::from_libp2p(&address)
}

fn unexpected(protocol: Option<Protocol<'_>>) -> AddressError {
    protocol.map_or(AddressError::Incomplete, |protocol| AddressError::Unsupported(protocol.tag()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooW9xk7Zp1gejwfwNpfm6L9zH5NL4Bx5rm94LRYJJHJuARZ";
    const OTHER: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

    fn check(text: &str, expected: Result<&str, AddressError>) {
        let peer = parse_peer(PEER).unwrap();
        let actual = Multiaddr::parse_of_peer(text, peer).map(|address| address.to_string());
        assert_eq!(actual, expected.map(str::to_owned), "{text:?}");
    }

    #[test]
    fn addresses_that_can_be_dialled() {
        check("/ip4/127.0.0.1/tcp/2020", Ok("/ip4/127.0.0.1/tcp/2020"));
        check("/ip4/127.0.0.1/udp/2020/quic-v1", Ok("/ip4/127.0.0.1/udp/2020/quic-v1"));
        check("/ip6/0:0::1/tcp/65535", Ok("/ip6/::1/tcp/65535"));
        check(&format!("/ip6/::1/udp/1/quic-v1/p2p/{PEER}"), Ok("/ip6/::1/udp/1/quic-v1"));
    }

    #[test]
    fn addresses_that_cannot() {
        use AddressError::{Incomplete, Malformed, NotDialable, OtherPeer, TooLong, Unsupported};

        check("", Err(Incomplete));
        check("127.0.0.1:2020", Err(Malformed));
        check("/ip4/127.0.0.1/tcp/65536", Err(Malformed));
        check("/ip4/127.0.0.256/tcp/1", Err(Malformed));
        check("/ip4/127.0.0.1/\u{1b}[31m/1", Err(Malformed));
        check("/ip4/127.0.0.1/tcp/1/p2p/nobody", Err(Malformed));
        check("/ip4/127.0.0.1", Err(Incomplete));
        check("/ip4/127.0.0.1/udp/1", Err(Incomplete));
        check("/dns4/example.org/tcp/1", Err(Unsupported("dns4")));
        check("/ip4/127.0.0.1/tcp/1/ws", Err(Unsupported("ws")));
        check("/ip4/127.0.0.1/udp/1/quic", Err(Unsupported("quic")));
        check("/ip4/127.0.0.1/udp/1/quic-v1/webtransport", Err(Unsupported("webtransport")));
        check(&format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit"), Err(Unsupported("p2p-circuit")));
        check(&format!("/ip4/127.0.0.1/tcp/1/p2p/{OTHER}"), Err(OtherPeer(OTHER.to_owned())));
        check("/ip4/127.0.0.1/tcp/0", Err(NotDialable));
        check("/ip4/0.0.0.0/tcp/1", Err(NotDialable));
        check("/ip6/::/udp/1/quic-v1", Err(NotDialable));
        check(&format!("/dns4/{}/tcp/1", "a".repeat(300)), Err(TooLong));
    }

    #[test]
    fn listen_addresses_may_stand_for_many_but_name_no_peer() {
        let parse = |text: &str| text.parse::<Multiaddr>().map(|address| address.to_string());
        assert_eq!(parse("/ip4/0.0.0.0/tcp/0").unwrap(), "/ip4/0.0.0.0/tcp/0");
        assert_eq!(parse(&format!("/ip4/0.0.0.0/tcp/0/p2p/{PEER}")), Err(AddressError::NamesPeer));
    }
}
