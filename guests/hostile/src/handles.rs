//! Things with handles, of which none is ever dropped.

use std::time::Instant;

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::io::poll;
use wasip2::sockets::network::IpAddressFamily;
use wasip2::sockets::{instance_network, ip_name_lookup, tcp_create_socket, udp_create_socket};

use crate::{ENOUGH, Outcome, until_refused};

pub(crate) fn pollables() -> Outcome {
    until_refused(|_| Ok::<_, ()>(subscribe_duration(u64::MAX)))
}

pub(crate) fn streams() -> Outcome {
    until_refused(|_| {
        let (stdin, stdout) = (wasip2::cli::stdin::get_stdin(), wasip2::cli::stdout::get_stdout());
        let pollables = (stdin.subscribe(), stdout.subscribe());
        Ok::<_, ()>((pollables, stdin, stdout))
    })
}

pub(crate) fn channels() -> Outcome {
    until_refused(|_| ww_guest::take_channel().ok_or("there is no other channel"))
}

/// What can be had of the network without a grant.
pub(crate) fn sockets() -> Outcome {
    let mut said = Vec::new();
    for family in [IpAddressFamily::Ipv4, IpAddressFamily::Ipv6] {
        said.push(format!("tcp: {:?}", tcp_create_socket::create_tcp_socket(family).map(drop)));
        said.push(format!("udp: {:?}", udp_create_socket::create_udp_socket(family).map(drop)));
    }
    let network = instance_network::instance_network();
    for name in ["localhost", "127.0.0.1", "example.com", "a\u{0}b", &"x".repeat(100_000)] {
        let looked_up = ip_name_lookup::resolve_addresses(&network, name).map(drop);
        said.push(format!("{:?}: {looked_up:?}", &name[..name.len().min(12)]));
    }
    Ok(said.join("\n"))
}

/// Polls far more than there is.
pub(crate) fn poll_lists() -> Outcome {
    let pollables: Vec<_> = (0..1000).map(|_| subscribe_duration(u64::MAX)).collect();
    let ready = subscribe_duration(0);
    let mut list: Vec<&poll::Pollable> = pollables.iter().cycle().take(100_000).collect();
    list.push(&ready);
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < ENOUGH {
        if !poll::poll(&list).contains(&100_000) {
            return Err("what is ready is not said to be".into());
        }
        count += 1;
    }
    Ok(format!("{} pollables were polled {}", list.len(), if count > 0 { "again and again" } else { "never" }))
}
