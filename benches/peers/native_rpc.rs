//! Times RPC round trips between two tasks of one thread, over the pipes that cells have: what `benches/peers/run-image` measures
//! those of a guest by.
//!
//!     cargo run --profile dist --example native-rpc -- 100000

use std::error::Error;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use ww::cell::{CHANNEL_BYTES, pipe};
use ww_schema::peer_capnp::executor;

struct Echo;

impl executor::Server for Echo {
    async fn echo(
        self: Rc<Self>,
        params: executor::EchoParams,
        mut results: executor::EchoResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_response(params.get()?.get_message()?);
        Ok(())
    }
}

async fn run(count: usize) -> Result<(), Box<dyn Error>> {
    let (to_server, from_client) = pipe(CHANNEL_BYTES);
    let (to_client, from_server) = pipe(CHANNEL_BYTES);
    let options = capnp::message::ReaderOptions::new();
    let network = twoparty::VatNetwork::new(from_client, to_client, Side::Server, options);
    let server: executor::Client = capnp_rpc::new_client(Echo);
    tokio::task::spawn_local(RpcSystem::new(Box::new(network), Some(server.client)));
    let network = twoparty::VatNetwork::new(from_server, to_server, Side::Client, options);
    let mut system = RpcSystem::new(Box::new(network), None);
    let client: executor::Client = system.bootstrap(Side::Server);
    tokio::task::spawn_local(system);

    let mut times: Vec<Duration> = Vec::with_capacity(count);
    for number in 0..count {
        let start = Instant::now();
        let mut request = client.echo_request();
        request.get().set_message(number.to_string());
        let response = request.send().promise.await?;
        if response.get()?.get_response()?.to_str()? != number.to_string() {
            return Err("another text came back".into());
        }
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
    let [min, p50, p99] = [0, 50, 99].map(|percent| at(percent).as_nanos());
    writeln!(io::stdout(), "native echo: min {min} p50 {p50} p99 {p99} ns")?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let count = std::env::args().nth(1).ok_or("usage: native-rpc COUNT")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(count))
}
