//! `wasi:sockets`, as far as a grant goes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasip2::sockets::tcp::ShutdownType;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

use crate::{Outcome, require};

/// Whoever is at the address sends back what it gets, up to the end.
pub(crate) fn tcp(address: SocketAddr) -> Outcome {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(b"hello")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    require(&answer == b"hello", "what was sent comes back")?;
    require(stream.peer_addr()? == address && stream.local_addr()?.port() != 0, "both ends have an address")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    require(stream.read(&mut answer)? == 0, "the end comes back")?;
    states(address)
}

/// What a socket can do depends on what it is.
fn states(address: SocketAddr) -> Outcome {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    let invalid = Some(ErrorCode::InvalidState);
    require(socket.finish_connect().err() == Some(ErrorCode::NotInProgress), "it is not being connected")?;
    require(socket.shutdown(ShutdownType::Both).err() == invalid, "it is not connected")?;
    require(socket.local_address().err() == invalid && socket.remote_address().err() == invalid, "it has no address")?;
    require(socket.accept().err() == invalid && !socket.is_listening(), "it does not listen")?;
    require(socket.set_hop_limit(0).err() == Some(ErrorCode::InvalidArgument), "somebody must be reached")?;
    socket.set_hop_limit(42)?;
    require(socket.hop_limit()? == 42, "what was set is set")?;
    let SocketAddr::V4(address) = address else { return Err("the address is one of IPv4".into()) };
    let [a, b, c, d] = address.ip().octets();
    let address = Ipv4SocketAddress { port: address.port(), address: (a, b, c, d) };
    let network = instance_network();
    socket.start_connect(&network, IpSocketAddress::Ipv4(address))?;
    let again = socket.start_connect(&network, IpSocketAddress::Ipv4(address)).err();
    require(matches!(again, Some(ErrorCode::InvalidState | ErrorCode::ConcurrencyConflict)), "it is being connected")?;
    let pollable = socket.subscribe();
    let streams = loop {
        match socket.finish_connect() {
            Err(ErrorCode::WouldBlock) => pollable.block(),
            outcome => break outcome?,
        }
    };
    require(socket.finish_connect().is_err(), "it is connected once")?;
    drop(streams);
    Ok(())
}

pub(crate) fn udp(address: SocketAddr) -> Outcome {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(b"hello", address)?;
    let mut answer = [0; 100];
    let (size, from) = socket.recv_from(&mut answer)?;
    require(&answer[..size] == b"hello" && from == address, "what was sent comes back")?;
    require(socket.send_to(&[0; 100_000], address).is_err(), "a datagram is not that large")?;
    require(socket.send_to(b"x", "192.0.2.1:9").is_err(), "others are not reached")
}

/// No cell waits for others to connect.
pub(crate) fn listen() -> Outcome {
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "127.0.0.1:8080"] {
        require(TcpListener::bind(address).is_err(), "nothing listens")?;
    }
    require(UdpSocket::bind("127.0.0.1:0").is_err(), "no address is chosen")
}

pub(crate) fn lookup() -> Outcome {
    let network = instance_network();
    let resolve = |name: &str| -> Result<Vec<IpAddress>, ErrorCode> {
        let stream = resolve_addresses(&network, name)?;
        let pollable = stream.subscribe();
        let mut found = Vec::new();
        loop {
            match stream.resolve_next_address() {
                Ok(Some(address)) => found.push(address),
                Ok(None) => break,
                Err(ErrorCode::WouldBlock) => pollable.block(),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    };
    let v4 = |a, b, c, d| format!("{:?}", IpAddress::Ipv4((a, b, c, d)));
    for (name, address) in [("127.0.0.1", v4(127, 0, 0, 1)), ("0.0.0.0", v4(0, 0, 0, 0))] {
        let found: Vec<_> = resolve(name)?.iter().map(|found| format!("{found:?}")).collect();
        require(found == [address], "an address is itself")?;
    }
    require(!resolve("localhost")?.is_empty() && !resolve("[::1]")?.is_empty(), "this machine has addresses")?;
    for name in ["", " ", "a.b<&>", "127.0.0.1:80", "[::]:80", "http://example.com/"] {
        require(resolve(name).err() == Some(ErrorCode::InvalidArgument), "what is no name is none")?;
    }
    Ok(())
}
