//! Nodes that talk to each other over loopback.

use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use rustix::io::Errno;

use super::*;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// How long anything may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(20);

fn config_at(addresses: &[&str]) -> SwarmConfig {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    SwarmConfig { identity: Identity::generate(), listen: Listen::Addrs(addresses) }
}

fn config_on_port(port: u16, fallback: bool) -> SwarmConfig {
    SwarmConfig { identity: Identity::generate(), listen: Listen::Port { port, fallback } }
}

async fn start_at(addresses: &[&str]) -> Swarm {
    start(config_at(addresses)).await.unwrap()
}

/// Waits until the condition holds, looking again and again.
async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "it never happened that {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn sees(swarm: &Swarm, ids: &[&str]) -> bool {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    swarm.peers().await.iter().map(|peer| peer.id.as_str()).eq(ids)
}

/// The port of the node's first address.
async fn port_of(swarm: &Swarm) -> u16 {
    swarm.addrs().await[0].split('/').nth(4).unwrap().parse().unwrap()
}

async fn connect_error(swarm: &Swarm, id: &str, addrs: &[&str]) -> ConnectError {
    let addrs: Vec<String> = addrs.iter().map(|&address| address.to_owned()).collect();
    swarm.connect(id, &addrs).await.unwrap_err()
}

/// A libp2p swarm without its task, for a peer that does what a node does not.
fn bare_swarm() -> libp2p::Swarm<node::Behaviour> {
    node::build(Identity::generate(), Limits::default()).unwrap()
}

mod connecting {
    use super::*;

    async fn check_connects(listen: &str) {
        let (server, client) = (start_at(&[listen]).await, start_at(&[listen]).await);
        let addrs = server.addrs().await;
        assert!(addrs[0].ends_with(&format!("/p2p/{}", server.id())), "{addrs:?}");
        client.connect(server.id(), &addrs).await.unwrap();

        let peers = client.peers().await;
        let without_id = addrs[0].strip_suffix(&format!("/p2p/{}", server.id())).unwrap();
        assert_eq!(peers, [Peer { id: server.id().to_owned(), addrs: vec![without_id.to_owned()] }]);
        eventually("the server sees the client", async || sees(&server, &[client.id()]).await).await;
        assert!(server.peers().await[0].addrs[0].starts_with("/ip4/127.0.0.1/"));

        client.connect(server.id(), &[]).await.expect("a connection is there");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn over_tcp() {
        check_connects(TCP).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn over_quic() {
        check_connects(QUIC).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ids_and_addresses_are_checked_first() {
        let node = start_at(&[TCP]).await;
        let other = Identity::generate().id();
        let check = async |id: &str, addrs: &[&str], expected: &str| {
            let error = connect_error(&node, id, addrs).await.to_string();
            assert_eq!(error.replace(&other, "OTHER").replace(node.id(), "NODE"), expected);
        };
        check("", &[], "connect to ``: it is not a peer id such as 12D3KooW…").await;
        check("bob\x1b[31m", &[], "connect to `bob\\u{1b}[31m`: it is not a peer id such as 12D3KooW…").await;
        check(node.id(), &[], "connect to NODE: it is this node itself").await;
        check(&other, &[], "connect to OTHER: there is no connection yet, and no address was given").await;
        check(&other, &["/ip4/127.0.0.1/tcp/1"; 17], "connect to OTHER: 17 addresses were given, and 16 are the limit")
            .await;
        let to_this_node = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", node.id());
        check(
            &other,
            &["a\nb", "/ip4/127.0.0.1/tcp/1", "/dns/localhost/tcp/1", &to_this_node],
            "connect to OTHER: `a\\nb`: not a multiaddr such as /ip4/127.0.0.1/tcp/2020; \
             `/dns/localhost/tcp/1`: `dns` is not supported here; an address is /ip4/… or /ip6/… with /tcp/PORT or \
             /udp/PORT/quic-v1; `/ip4/127.0.0.1/tcp/1/p2p/NODE`: names another peer, NODE",
        )
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn to_where_nobody_listens() {
        let node = start_at(&[]).await;
        let closed: Vec<String> = {
            let listeners: Vec<_> = (0..2).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
            listeners.iter().map(|it| format!("/ip4/127.0.0.1/tcp/{}", it.local_addr().unwrap().port())).collect()
        };
        match node.connect(&Identity::generate().id(), &closed).await.unwrap_err() {
            ConnectError::Failed { mut failures, .. } => {
                failures.sort_by_key(|failure| closed.iter().position(|address| *address == failure.address));
                let refused = io::Error::from_raw_os_error(Errno::CONNREFUSED.raw_os_error());
                let failure =
                    |address: &String| AddressFailure { address: address.clone(), reason: refused.to_string() };
                assert_eq!(failures, closed.iter().map(failure).collect::<Vec<_>>());
            }
            other => panic!("{other}"),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn to_another_peer_than_expected() {
        let (node, other, wanted) = (start_at(&[]).await, start_at(&[TCP, QUIC]).await, Identity::generate());
        let addrs: Vec<String> =
            other.addrs().await.iter().map(|address| address.split("/p2p/").next().unwrap().to_owned()).collect();
        let error = node.connect(&wanted.id(), &addrs).await.unwrap_err().to_string();
        for address in &addrs {
            let expected = format!("`{address}`: another peer answered, {}", other.id());
            assert!(error.contains(&expected), "{error}");
        }
        assert_eq!(node.peers().await, []);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_peer_at_one_address_does_not_hide_the_right_one() {
        let (node, other, wanted) = (start_at(&[]).await, start_at(&[TCP]).await, start_at(&[TCP]).await);
        let wrong = format!("/ip4/127.0.0.1/tcp/{}", port_of(&other).await);
        let right = wanted.addrs().await.remove(0);
        node.connect(wanted.id(), &[wrong, right]).await.unwrap();
        assert!(sees(&node, &[wanted.id()]).await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn to_itself_under_another_id() {
        let node = start_at(&[TCP]).await;
        let own = format!("/ip4/127.0.0.1/tcp/{}", port_of(&node).await);
        let error = connect_error(&node, &Identity::generate().id(), &[&own]).await.to_string();
        assert!(error.ends_with(&format!("`{own}`: this node itself answered")), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_at_once_and_from_both_sides() {
        for _ in 0..10 {
            many_at_once().await;
        }
    }

    async fn many_at_once() {
        let (left, right) = (start_at(&[TCP, QUIC]).await, start_at(&[TCP, QUIC]).await);
        let (left_addrs, right_addrs) = (left.addrs().await, right.addrs().await);
        let connects =
            (0..16).flat_map(|_| [left.connect(right.id(), &right_addrs), right.connect(left.id(), &left_addrs)]);
        for connected in futures::future::join_all(connects).await {
            connected.unwrap();
        }
        assert!(sees(&left, &[right.id()]).await);
        assert!(sees(&right, &[left.id()]).await);
        // Each side may have made one. That of the other addresses may be there for a moment.
        let one_from_each_side =
            async || left.peers().await[0].addrs.len() <= 2 && right.peers().await[0].addrs.len() <= 2;
        eventually("there is one connection from each side, or one", one_from_each_side).await;
    }

    /// From the ports that they listen on, a quarter of these met in one TCP connection and failed.
    #[tokio::test(flavor = "multi_thread")]
    async fn each_to_the_other_at_the_same_moment() {
        for _ in 0..20 {
            let (left, right) = (start_at(&[TCP]).await, start_at(&[TCP]).await);
            let (left_addrs, right_addrs) = (left.addrs().await, right.addrs().await);
            let (to_right, to_left) =
                tokio::join!(left.connect(right.id(), &right_addrs), right.connect(left.id(), &left_addrs));
            to_right.unwrap();
            to_left.unwrap();
        }
    }

    /// A connection is made through a relay that begins only when the caller has gone.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_cancelled_one_leaves_no_connection() {
        let (node, wanted) = (start_at(&[]).await, start_at(&[TCP]).await);
        let wanted_port = port_of(&wanted).await;
        let relay = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = format!("/ip4/127.0.0.1/tcp/{}", relay.local_addr().unwrap().port());
        let (accepted, is_accepted) = oneshot::channel();
        let (release, released) = oneshot::channel::<()>();
        let relayed = tokio::spawn(async move {
            let (mut from, _) = relay.accept().await.unwrap();
            accepted.send(()).unwrap();
            released.await.unwrap();
            let mut to = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, wanted_port)).await.unwrap();
            // However it ends: it ends when both sides have closed.
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        });
        let connecting = tokio::spawn({
            let (node, id) = (node.clone(), wanted.id().to_owned());
            async move { node.connect(&id, &[address]).await }
        });
        is_accepted.await.unwrap();
        connecting.abort();
        assert!(connecting.await.unwrap_err().is_cancelled());
        release.send(()).unwrap();
        tokio::time::timeout(PATIENCE, relayed).await.expect("the connection is closed").unwrap();
        eventually("both have forgotten it", async || node.peers().await.is_empty() && wanted.peers().await.is_empty())
            .await;
    }
}

mod listening {
    use super::*;

    fn check_busy(error: &SwarmError, address: &str) {
        assert!(error.is_port_busy(), "{error:?}");
        assert_eq!(error.to_string(), format!("listen on {address}"));
        let in_use = io::Error::from_raw_os_error(Errno::ADDRINUSE.raw_os_error());
        assert_eq!(error.source().unwrap().to_string(), in_use.to_string());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_port_is_the_same_number_everywhere() {
        let node = start(config_on_port(0, false)).await.unwrap();
        let (port, id) = (port_of(&node).await, node.id());
        assert_eq!(node.port_taken_instead(), None);
        let addrs = node.addrs().await;
        assert!(addrs.is_sorted(), "{addrs:?}");
        for expected in
            [format!("/ip4/127.0.0.1/tcp/{port}/p2p/{id}"), format!("/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{id}")]
        {
            assert!(addrs.contains(&expected), "{addrs:?}");
        }
        if UdpSocket::bind("[::1]:0").is_ok() {
            assert!(addrs.contains(&format!("/ip6/::1/tcp/{port}/p2p/{id}")), "{addrs:?}");
            assert!(addrs.contains(&format!("/ip6/::1/udp/{port}/quic-v1/p2p/{id}")), "{addrs:?}");
        }
        let client = start_at(&[]).await;
        client.connect(id, &[format!("/ip4/127.0.0.1/udp/{port}/quic-v1")]).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_port_that_another_node_has() {
        let first = start(config_on_port(0, false)).await.unwrap();
        let port = port_of(&first).await;

        let error = start(config_on_port(port, false)).await.unwrap_err();
        check_busy(&error, &format!("/ip4/0.0.0.0/tcp/{port}"));

        let second = start(config_on_port(port, true)).await.unwrap();
        assert_eq!(second.port_taken_instead(), Some(port_of(&second).await));
        assert_ne!(second.port_taken_instead(), Some(port));
        let local = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", first.id());
        second.connect(first.id(), &[local]).await.expect("the first one still has its port");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_port_that_is_busy_for_one_transport() {
        let holder = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = start(config_on_port(port, false)).await.unwrap_err();
        check_busy(&error, &format!("/ip4/0.0.0.0/udp/{port}/quic-v1"));
        let node = start(config_on_port(port, true)).await.unwrap();
        assert_ne!(node.port_taken_instead().unwrap(), port);

        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = start(config_on_port(port, false)).await.unwrap_err();
        check_busy(&error, &format!("/ip4/0.0.0.0/tcp/{port}"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_address_that_another_node_has() {
        let first = start_at(&[TCP, QUIC]).await;
        for address in first.addrs().await {
            let address = address.split("/p2p/").next().unwrap();
            let error = start(config_at(&[address])).await.unwrap_err();
            check_busy(&error, address);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_address_that_this_machine_does_not_have() {
        let error = start(config_at(&["/ip4/192.0.2.1/tcp/0"])).await.unwrap_err();
        assert_eq!(error.to_string(), "listen on /ip4/192.0.2.1/tcp/0");
        assert!(!error.is_port_busy());
    }

    /// Without the claim both would share the port now and then.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_two_nodes_at_once_at_most_one_gets_the_port() {
        for _ in 0..20 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let address = format!("/ip4/127.0.0.1/tcp/{port}");
            let begin = || tokio::spawn(start(config_at(&[&address])));
            let (left, right) = (begin(), begin());
            let (left, right) = (left.await.unwrap(), right.await.unwrap());
            assert!(left.is_err() || right.is_err());
        }
    }
}

mod starting_later {
    use super::*;

    const NEVER: Duration = Duration::from_secs(60 * 60);

    #[tokio::test(flavor = "multi_thread")]
    async fn the_ports_are_taken_at_once() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        drop(holder);
        let addresses = [format!("/ip4/127.0.0.1/tcp/{port}"), format!("/ip4/127.0.0.1/udp/{port}/quic-v1")];
        let (node, started) = start_later(config_at(&addresses.each_ref().map(String::as_str)), NEVER).unwrap();
        for address in &addresses {
            assert!(start(config_at(&[address])).await.unwrap_err().is_port_busy());
            assert!(start_later(config_at(&[address]), NEVER).unwrap_err().is_port_busy());
        }
        node.shutdown().await;
        started.await.expect_err("it ended before it had started");
        eventually("the ports are free", async || {
            start(config_at(&addresses.each_ref().map(String::as_str))).await.is_ok()
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_starts_when_it_is_asked() {
        let (node, started) = start_later(config_at(&[TCP, QUIC]), NEVER).unwrap();
        let addrs = node.addrs().await;
        assert_eq!(addrs.len(), 2, "{addrs:?}");
        started.await.unwrap().unwrap();
        let peer = start_at(&[]).await;
        peer.connect(node.id(), &addrs).await.unwrap();
        eventually("both see it", async || sees(&node, &[peer.id()]).await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_starts_when_it_is_time() {
        let (node, started) = start_later(config_at(&[TCP]), Duration::from_millis(1)).unwrap();
        started.await.unwrap().unwrap();
        assert_eq!(node.addrs().await.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_does_not_start_for_nobody() {
        let (node, started) = start_later(config_at(&[TCP]), NEVER).unwrap();
        drop(node);
        started.await.expect_err("nobody wants it any more");
    }
}

mod ending {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_last_handle_frees_the_ports() {
        let node = start_at(&[TCP, QUIC]).await;
        let addrs = node.addrs().await;
        let addresses: Vec<&str> = addrs.iter().map(|address| address.split("/p2p/").next().unwrap()).collect();
        let clone = node.clone();
        drop(node);
        start(config_at(&addresses)).await.expect_err("a handle is left");
        drop(clone);
        eventually("the ports are free", async || start(config_at(&addresses)).await.is_ok()).await;
    }

    async fn check_shutdown_is_seen(listen: &str) {
        let (node, peer) = (start_at(&[listen]).await, start_at(&[]).await);
        let addrs = node.addrs().await;
        peer.connect(node.id(), &addrs).await.unwrap();
        let clone = node.clone();
        node.shutdown().await;
        eventually("the peer sees it", async || peer.peers().await.is_empty()).await;

        clone.shutdown().await;
        assert_eq!(clone.addrs().await, Vec::<String>::new());
        assert_eq!(clone.peers().await, []);
        let error = clone.connect(peer.id(), &[]).await.unwrap_err();
        assert!(matches!(error, ConnectError::ShutDown { .. }), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_shutdown_is_seen_by_peers_over_tcp() {
        check_shutdown_is_seen(TCP).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_shutdown_is_seen_by_peers_over_quic() {
        check_shutdown_is_seen(QUIC).await;
    }
}

mod limits {
    use super::*;

    /// A peer with two connections is there until both are closed.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_peer_stays_until_its_last_connection_closes() {
        let node = start_at(&[TCP]).await;
        let address: libp2p::Multiaddr = node.addrs().await[0].parse().unwrap();
        let mut peer = bare_swarm();
        let id = peer.local_peer_id().to_base58();
        let mut connections = Vec::new();
        for _ in 0..2 {
            let options = DialOpts::peer_id(node.peer)
                .condition(PeerCondition::Always)
                .addresses(vec![address.clone()])
                .allocate_new_port();
            peer.dial(options.build()).unwrap();
        }
        while connections.len() < 2 {
            if let SwarmEvent::ConnectionEstablished { connection_id, .. } = peer.select_next_some().await {
                connections.push(connection_id);
            }
        }
        let (close, mut to_close) = mpsc::channel(2);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(connection) = to_close.recv() => assert!(peer.close_connection(connection)),
                    _ = peer.select_next_some() => {}
                }
            }
        });
        let connected_from =
            async |count: usize| node.peers().await.first().map_or(0, |peer| peer.addrs.len()) == count;
        eventually("both are there", async || connected_from(2).await).await;
        close.send(connections[0]).await.unwrap();
        eventually("one is there", async || connected_from(1).await).await;
        assert!(sees(&node, &[&id]).await);
        close.send(connections[1]).await.unwrap();
        eventually("none is there", async || connected_from(0).await).await;
        assert_eq!(node.peers().await, []);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_incoming_connection_too_many_is_closed() {
        let limits = Limits { established_incoming: 2, ..Limits::default() };
        let node = start_with_limits(config_at(&[TCP]), limits).await.unwrap();
        let addrs = node.addrs().await;
        let peers = [start_at(&[TCP]).await, start_at(&[]).await, start_at(&[]).await];
        for peer in &peers[..2] {
            peer.connect(node.id(), &addrs).await.unwrap();
            eventually("it is connected", async || node.peers().await.iter().any(|it| it.id == peer.id())).await;
        }
        // The one too many is refused by the node after the handshake, so its side sees a connection that closes.
        let _ = peers[2].connect(node.id(), &addrs).await;
        eventually("it is refused", async || peers[2].peers().await.is_empty()).await;
        assert!(sees(&node, &[peers[0].id(), peers[1].id()]).await);

        drop(peers);
        eventually("they have gone", async || node.peers().await.is_empty()).await;
        let late = start_at(&[]).await;
        late.connect(node.id(), &addrs).await.unwrap();
        eventually("there is room again", async || sees(&node, &[late.id()]).await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn those_who_connect_and_say_nothing_take_no_more_than_their_places() {
        let limits = Limits { pending_incoming: 2, ..Limits::default() };
        let node = start_with_limits(config_at(&[TCP]), limits).await.unwrap();
        let port = port_of(&node).await;
        let silent: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()).collect();
        // The third is closed at once, the others would have to wait for the handshake's time to be over.
        silent[2].set_read_timeout(Some(PATIENCE)).unwrap();
        let ended = tokio::task::spawn_blocking({
            let mut third = silent[2].try_clone().unwrap();
            move || io::copy(&mut third, &mut io::sink())
        });
        let begun = Instant::now();
        let _ = ended.await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "it was not refused but timed out");

        drop(silent);
        let (peer, addrs) = (start_at(&[]).await, node.addrs().await);
        eventually("their places are free", async || {
            peer.connect(node.id(), &addrs).await.is_ok() && sees(&node, &[peer.id()]).await
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_outgoing_attempt_too_many_is_an_error() {
        let limits = Limits { pending_outgoing: 1, ..Limits::default() };
        let node = start_with_limits(config_at(&[]), limits).await.unwrap();
        let silent = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port());
        let connecting = tokio::spawn({
            let (node, address) = (node.clone(), address.clone());
            async move { node.connect(&Identity::generate().id(), &[address]).await }
        });
        let (held, _) = silent.accept().await.unwrap();
        let error = connect_error(&node, &Identity::generate().id(), &[&address]).await;
        assert!(
            error.to_string().ends_with("there are 1 outgoing connections being made already, which is the limit"),
            "{error}"
        );
        drop(held);
        let error = connecting.await.unwrap().unwrap_err();
        assert!(matches!(error, ConnectError::Failed { .. }), "{error}");
    }
}
