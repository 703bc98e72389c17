//! Answers of a Kubo node, from the first byte on the wire.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use ww::dag::Cid;
use ww::remote::kubo::{Client, Options};
use ww::remote::{Blocks, Deadlines, RemoteError};

/// The block `123`.
const CID: &str = "bafkreifgmwsfsiccf6ouc7sim7x5yt5yubfb6p77d6qh5gmoq337pit24m";

/// The client has far less time than this: whoever is still busy then never ends.
const HANG: Duration = Duration::from_secs(20);

/// The first byte says what is asked for, the others are the answer, after which the node hangs up.
pub(crate) fn answer(bytes: &[u8]) {
    let [call, answer @ ..] = bytes else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let socket = dir.path().join("api");
    runtime.block_on(async {
        let listener = UnixListener::bind(&socket).expect("a socket");
        let node = serve(&listener, answer);
        let asked = tokio::time::timeout(HANG, ask(&socket, *call));
        tokio::select! {
            asked = asked => asked.expect("the client hangs"),
            () = node => {}
        }
    });
}

/// Gives the answer to everybody, for ever.
async fn serve(listener: &UnixListener, answer: &[u8]) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
    }
}

async fn ask(socket: &Path, call: u8) {
    let second = Duration::from_secs(1);
    let deadlines = Deadlines { connect: second, head: second, idle: second, total: second, transfer: second };
    let options = Options { deadlines, pin: second, ..Options::default() };
    let address = format!("/unix{}", socket.display()).parse().expect("an address");
    let client = Client::new(address, options).expect("a unix socket needs no leave");
    let cid: Cid = CID.parse().expect("a CID");
    match call % 9 {
        0 => check(client.version()).await,
        1 => check(client.id()).await,
        2 => check(client.has_dag(&cid)).await,
        3 => check(client.pin_of(&cid)).await,
        4 => check(client.pin_add(&cid, "name")).await,
        5 => check(client.has_block(&cid)).await,
        6 => match client.block_get(&cid).await {
            Ok(block) => assert_eq!(block.data(), "123"),
            Err(error) => shown(&error),
        },
        7 => {
            let car = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"a CAR"))]);
            check(client.dag_import(car, &cid)).await;
        }
        _ => match client.dag_export(&cid, 1 << 20).await {
            Ok(blocks) => drain(blocks).await,
            Err(error) => shown(&error),
        },
    }
}

async fn drain(mut blocks: Blocks) {
    while let Some(block) = blocks.next().await {
        if let Err(error) = block {
            return shown(&error);
        }
    }
}

async fn check<T>(call: impl Future<Output = Result<T, RemoteError>>) {
    if let Err(error) = call.await {
        shown(&error);
    }
}

/// No part of what the other side says may command a terminal.
fn shown(error: &RemoteError) {
    let chain = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    for error in chain {
        let text = error.to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
