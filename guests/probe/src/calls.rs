//! Calls of the host.

use std::error::Error;
use std::io::{self, Write};
use std::time::Instant;

use futures::io::{AsyncBufReadExt, AsyncReadExt};
use futures::{StreamExt, TryStreamExt, stream};
use ww_guest::peer_capnp::{executor, host};

use crate::measure::Times;
use crate::{Outcome, require};

pub(crate) fn executor(host: &host::Client) -> executor::Client {
    host.executor_request().send().pipeline.get_executor()
}

/// One echo, which must come back as it was sent.
pub(crate) async fn echo(executor: &executor::Client, message: &str) -> Result<(), Box<dyn Error>> {
    let mut request = executor.echo_request();
    request.get().set_message(message);
    let response = request.send().promise.await?;
    require(response.get()?.get_response()?.to_str()? == message, "an echo returns the message")
}

pub(crate) async fn roundtrips(host: &host::Client, count: usize) -> Outcome {
    pipelined(host, count, 1).await
}

pub(crate) async fn pipelined(host: &host::Client, count: usize, in_flight: usize) -> Outcome {
    let executor = executor(host);
    echo(&executor, "warm").await?;
    let start = Instant::now();
    let times = stream::iter(0..count)
        .map(|number| timed_echo(&executor, number))
        .buffer_unordered(in_flight.max(1))
        .try_fold(Times::default(), async |mut times, start| {
            times.add_since(start);
            Ok(times)
        })
        .await?;
    times.print("echo")?;
    let per_call = start.elapsed().as_nanos() / count.max(1) as u128;
    writeln!(io::stderr(), "{per_call} ns for each")?;
    Ok(format!("{count} echoes"))
}

/// Returns when it was begun.
pub(crate) async fn timed_echo(executor: &executor::Client, number: usize) -> Result<Instant, Box<dyn Error>> {
    let start = Instant::now();
    echo(executor, &number.to_string()).await?;
    Ok(start)
}

pub(crate) async fn connect(host: &host::Client, id: &str, addrs: &[&str]) -> Outcome {
    try_connect(host, id, addrs).await?;
    let peers = peers(host).await?;
    print_lines(&peers)?;
    require(peers.iter().any(|peer| peer.split(' ').next() == Some(id)), "who is connected is a peer")?;
    ww_guest::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(format!("connected to {id}"))
}

async fn try_connect(host: &host::Client, id: &str, addrs: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut request = host.connect_request();
    request.get().set_id(id);
    request.get().set_addrs(addrs)?;
    request.send().promise.await?;
    Ok(())
}

pub(crate) async fn hold_peers(host: &host::Client) -> Outcome {
    print_lines(&addrs(host).await?)?;
    let mut lines = ww_guest::stdin().lines();
    while let Some(line) = lines.next().await {
        line?;
        writeln!(io::stdout(), "peers: {}", peers(host).await?.join(" "))?;
    }
    Ok(String::new())
}

/// The id whose public key is the base point of Ed25519: well formed, and nobody's.
const STRANGER: &str = "12D3KooWFmScHuvZzcdbvSLZ11Hov7NSmPbNqsgRn52XH2P51fND";

pub(crate) async fn bad_address(host: &host::Client) -> Outcome {
    let own_id = host.id_request().send().promise.await?.get()?.get_id()?.to_string()?;
    let own_addrs = addrs(host).await?;
    let own_addrs: Vec<&str> = own_addrs.iter().map(String::as_str).collect();
    let cases: [(&str, &str, &[&str]); 6] = [
        ("malformed id", "not-an-id", &["/ip4/127.0.0.1/tcp/1"]),
        ("malformed address", STRANGER, &["/ip4/localhost/tcp/1"]),
        ("one malformed address of two", STRANGER, &["/ip4/127.0.0.1/tcp/1", "nonsense"]),
        ("no address", STRANGER, &[]),
        ("nobody there", STRANGER, &["/ip4/127.0.0.1/tcp/1"]),
        ("this node", &own_id, &own_addrs),
    ];
    for (case, id, addrs) in cases {
        let error = try_connect(host, id, addrs).await.err().ok_or_else(|| format!("{case}: is no error"))?;
        writeln!(io::stdout(), "{case}: {error}")?;
    }
    echo(&executor(host), "still there").await?;
    Ok("each is an error".to_owned())
}

async fn addrs(host: &host::Client) -> Result<Vec<String>, Box<dyn Error>> {
    let response = host.addrs_request().send().promise.await?;
    texts(response.get()?.get_addrs()?)
}

/// One peer in a line, with its addresses after its id.
async fn peers(host: &host::Client) -> Result<Vec<String>, Box<dyn Error>> {
    let response = host.peers_request().send().promise.await?;
    let mut peers = Vec::new();
    for peer in response.get()?.get_peers()? {
        let addrs = texts(peer.get_addrs()?)?;
        peers.push(format!("{} {}", peer.get_id()?.to_str()?, addrs.join(" ")));
    }
    Ok(peers)
}

fn texts(list: ww_guest::capnp::text_list::Reader<'_>) -> Result<Vec<String>, Box<dyn Error>> {
    list.iter().map(|text| Ok(text?.to_string()?)).collect()
}

fn print_lines(lines: &[String]) -> io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(io::stdout(), "{line}"))
}
