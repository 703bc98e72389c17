//! `ww gateway`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use crate::cli::error::Failure;
use crate::cli::signals::StopSignals;
use crate::cli::{exit_code, store, ui};
use crate::ops::{self, GatewayError};

/// The port where none is asked for.
const DEFAULT_PORT: u16 = 8081;

/// Serve what is pinned over HTTP
///
/// Answers as a trustless gateway: blocks and CARs of `/ipfs/CID`, which whoever asks can check against the CID. Only
/// what a pin reaches is served. Prints its URL when it listens, and runs until it is told to stop by a signal.
#[derive(Debug, Args)]
pub(in crate::cli) struct GatewayArgs {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081", value_parser = listen_address)]
    listen: SocketAddr,

    /// Print the URL as JSON
    #[arg(long)]
    json: bool,
}

/// An address with its port, or what to write in place of what is none.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let form = |address: IpAddr, port: u16| format!("write {}", SocketAddr::new(address, port));
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    text.parse().map_err(|_| match text.rsplit_once(':') {
        _ if text.parse::<u16>().is_ok() => form(here, text.parse().unwrap_or_default()),
        Some(("" | "localhost", port)) if port.parse::<u16>().is_ok() => form(here, port.parse().unwrap_or_default()),
        _ => match text.trim_start_matches('[').trim_end_matches(']').parse() {
            // The last part of `::1:8080` may be meant as a port.
            Ok(address)
                if text.starts_with('[')
                    || !matches!(address, IpAddr::V6(ip) if !ip.is_loopback() && !ip.is_unspecified()) =>
            {
                form(address, DEFAULT_PORT)
            }
            _ => format!("an IP address and a port are needed, such as {}", SocketAddr::new(here, DEFAULT_PORT)),
        },
    })
}

/// Serves.
pub(in crate::cli) fn run(args: &GatewayArgs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(exit_code::FAILURE, &error);
    let store = Arc::new(store::open(|| false)?);
    if !args.listen.ip().is_loopback() {
        ui::status("warning: everybody who reaches this address and knows a CID can read what is pinned under it");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    let ended = runtime.block_on(async {
        let mut first = StopSignals::new(false).map_err(failed)?;
        let mut second = StopSignals::new(false).map_err(failed)?;
        let is_ready = |address| say(args, address).map_err(failed);
        let stop = async {
            first.next().await;
            ui::progress("stopping; another signal does not wait for answers under way");
        };
        // Both see every signal, so the first one has to be taken off here, too.
        let hurry = async {
            second.next().await;
            second.next().await;
        };
        tokio::select! {
            served = ops::serve_gateway(store, args.listen, is_ready, stop) => served,
            () = hurry => Ok(()),
        }
    });
    runtime.shutdown_background();
    ended
}

/// Documented in `docs/gateway.md`.
fn say(args: &GatewayArgs, address: SocketAddr) -> std::io::Result<()> {
    let url = format!("http://{address}");
    let line = if args.json { json!({ "url": url }).to_string() } else { url };
    ui::result_line(&line)
}

impl From<GatewayError> for Failure {
    fn from(error: GatewayError) -> Self {
        Self::new(exit_code::FAILURE, &error).with_help("--listen ADDRESS:PORT takes another one, port 0 a free one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_has_a_form_to_copy() {
        let check = |text: &str, expected: &str| assert_eq!(listen_address(text).unwrap_err(), expected, "{text}");
        check("8080", "write 127.0.0.1:8080");
        check(":8080", "write 127.0.0.1:8080");
        check("localhost:8080", "write 127.0.0.1:8080");
        check("0.0.0.0", "write 0.0.0.0:8081");
        check("::1", "write [::1]:8081");
        check("[::1]", "write [::1]:8081");
        for other in ["", "example.com:80", "127.0.0.1:", "127.0.0.1:99999", "99999"] {
            check(other, "an IP address and a port are needed, such as 127.0.0.1:8081");
        }
        assert_eq!(listen_address("[::1]:0").unwrap().to_string(), "[::1]:0");
    }
}
