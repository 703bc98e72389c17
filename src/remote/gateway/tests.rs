//! A gateway of ours that behaves as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::dag::BlockError;
use crate::dag::car::{CarError, encode_header, encode_section_head};

const CID: &str = "bafkreifgmwsfsiccf6ouc7sim7x5yt5yubfb6p77d6qh5gmoq337pit24m";

fn cid() -> Cid {
    CID.parse().unwrap()
}

/// What follows the bytes of an answer.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Hang,
    /// These bytes, again and again.
    Repeat(&'static [u8]),
    /// One byte now and then.
    Drip,
}

/// Answers each request with the bytes that `answer` has for its head. Gives the address and the heads that come.
async fn gateway(
    answer: impl Fn(&str) -> (Vec<u8>, Then) + Send + Sync + 'static,
) -> (Address, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let (answer, log) = (Arc::new(answer), heads.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, log) = (answer.clone(), log.clone());
            tokio::spawn(async move {
                // Clients go away in the middle of some answers.
                let _ = converse(stream, &*answer, &log).await;
            });
        }
    });
    (address, heads)
}

async fn converse(
    mut stream: TcpStream,
    answer: &(dyn Fn(&str) -> (Vec<u8>, Then) + Send + Sync),
    log: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let (bytes, then) = answer(&head);
    log.lock().unwrap().push(head);
    stream.write_all(&bytes).await?;
    match then {
        Then::Close => stream.shutdown().await,
        Then::Hang => std::future::pending().await,
        Then::Repeat(bytes) => loop {
            stream.write_all(bytes).await?;
        },
        Then::Drip => loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.write_all(b"x").await?;
        },
    }
}

fn answer(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn redirect_to(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 301 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

fn impatient() -> Deadlines {
    let short = Duration::from_millis(200);
    Deadlines { head: short, idle: short, ..Deadlines::default() }
}

/// Asks for the block "123", and is answered with this.
async fn block(deadlines: Deadlines, bytes: Vec<u8>, then: Then) -> Result<Block, Cause> {
    let (address, _) = gateway(move |_| (bytes.clone(), then)).await;
    Client::new(address, deadlines).unwrap().block(&cid()).await.map_err(|error| error.cause)
}

async fn block_error(bytes: Vec<u8>, then: Then) -> Cause {
    block(Deadlines::default(), bytes, then).await.expect_err("a bad answer was taken")
}

/// Base G of `cases.md`: a header with one root, and that root.
fn car() -> Vec<u8> {
    let mut car = encode_header(&[cid()]);
    car.extend(encode_section_head(&cid(), 3));
    car.extend(b"123");
    car
}

/// Asks for a DAG; gives the blocks' bytes and the error.
async fn dag(bytes: Vec<u8>, then: Then) -> (Vec<Block>, Option<Cause>) {
    let (address, _) = gateway(move |_| (bytes.clone(), then)).await;
    let client = Client::new(address, Deadlines::default()).unwrap();
    let mut blocks = match client.dag(&cid(), "", Scope::All, 1 << 20).await {
        Ok(blocks) => blocks,
        Err(error) => return (Vec::new(), Some(error.cause)),
    };
    let mut found = Vec::new();
    loop {
        match blocks.next().await {
            None => return (found, None),
            Some(Ok(block)) => found.push(block),
            Some(Err(error)) => return (found, Some(error.cause)),
        }
    }
}

#[tokio::test]
async fn a_block_is_asked_for_and_checked() {
    let (address, heads) = gateway(|_| (answer("Application/vnd.ipld.raw", b"123"), Then::Hang)).await;
    let client = Client::new(address, Deadlines::default()).unwrap();
    assert_eq!(client.block(&cid()).await.unwrap().data(), &b"123"[..]);
    let heads = heads.lock().unwrap();
    assert!(heads[0].starts_with(&format!("get /ipfs/{CID}?format=raw http/1.1\r\n")), "{}", heads[0]);
    assert!(heads[0].contains("\r\naccept: application/vnd.ipld.raw\r\n"), "{}", heads[0]);
    assert!(!heads[0].contains("accept-encoding"), "{}", heads[0]);
}

#[tokio::test]
async fn a_dag_is_asked_for_and_checked() {
    let kind = "application/vnd.ipld.car; version=1; order=dfs; dups=n";
    let (address, heads) = gateway(move |_| (answer(kind, &car()), Then::Hang)).await;
    let client = Client::new(address, Deadlines::default()).unwrap();
    let mut blocks = client.dag(&cid(), "a b/c", Scope::Entity, 99).await.unwrap();
    assert_eq!(blocks.next().await.unwrap().unwrap().cid(), &cid());
    assert!(blocks.next().await.is_none());
    let heads = heads.lock().unwrap();
    let line = format!("get /ipfs/{CID}/a%20b/c?format=car&dag-scope=entity&car-order=dfs&car-dups=n http/1.1\r\n");
    assert!(heads[0].starts_with(&line), "{}", heads[0]);
    assert!(heads[0].contains(&format!("\r\naccept: {ACCEPT_CAR}\r\n")), "{}", heads[0]);
}

#[tokio::test]
async fn other_bytes_are_refused() {
    let error = block_error(answer(TYPE_RAW, b"124"), Then::Close).await;
    assert!(matches!(error, Cause::Block(BlockError::HashMismatch { .. })), "{error:?}");
}

#[tokio::test]
async fn pages_for_people_are_refused() {
    let error = block_error(answer("text/html; charset=\x1b[2J", b"123"), Then::Close).await;
    assert!(matches!(error, Cause::Kind { .. } | Cause::Broken(_)), "{error:?}");
    let error = block_error(answer("text/html", b"<html>"), Then::Close).await;
    assert_eq!(error.to_string(), "the answer is `text/html` where application/vnd.ipld.raw was expected");
    let error = block_error(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n123".to_vec(), Then::Close).await;
    assert!(matches!(error, Cause::Kind { .. }), "{error:?}");
    let (_, error) = dag(answer("text/html", b"<html>"), Then::Close).await;
    assert!(matches!(error, Some(Cause::Kind { .. })), "{error:?}");
}

#[tokio::test]
async fn compressed_answers_are_refused() {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {TYPE_RAW}\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n123"
    );
    let error = block_error(head.into_bytes(), Then::Close).await;
    assert!(error.to_string().contains("compressed as `gzip`"), "{error}");
}

#[tokio::test]
async fn what_is_not_http_is_an_error() {
    for bytes in [&b""[..], b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
        let error = block_error(bytes.to_vec(), Then::Close).await;
        assert!(matches!(error, Cause::Broken(_)), "{error:?}");
    }
}

#[tokio::test]
async fn statuses_are_told_apart_and_shown() {
    let status = |status: &str, text: &str| {
        let length = text.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}");
        block_error(head.into_bytes(), Then::Hang)
    };
    let error = status("404 Not Found", "\nnot here \x1b[2J\nmore").await;
    assert!(matches!(&error, Cause::NotFound { message } if message == "not here \\u{1b}[2J"), "{error:?}");
    assert!(matches!(status("410 Gone", "").await, Cause::NotFound { .. }));
    assert!(matches!(status("403 Forbidden", "").await, Cause::Denied { .. }));
    assert!(matches!(status("406 Not Acceptable", "").await, Cause::Status { status: 406, .. }));
    assert!(matches!(status("503 Busy", "").await, Cause::Status { status: 503, .. }));
    // No success that has no content.
    assert!(matches!(status("206 Partial Content", "123").await, Cause::Status { status: 206, .. }));
}

#[tokio::test]
async fn lengths_are_bounded_before_anything_is_kept() {
    let declared = |length: &str, kind: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n").into_bytes()
    };
    for length in ["2097153", "18446744073709551000"] {
        let error = block_error(declared(length, TYPE_RAW), Then::Hang).await;
        assert!(matches!(error, Cause::TooLong { .. }), "{error:?}");
    }
    let (_, error) = dag(declared("1048577", TYPE_CAR), Then::Hang).await;
    assert!(matches!(error, Some(Cause::TooLong { .. })), "{error:?}");
    // Without a length, and without an end.
    let endless = |kind| format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n").into_bytes();
    let error = block_error(endless(TYPE_RAW), Then::Repeat(&[0; 4096])).await;
    assert!(matches!(error, Cause::TooLong { .. }), "{error:?}");
    let mut endless_car = endless(TYPE_CAR);
    endless_car.extend(encode_header(&[]));
    // A good block for ever: the bytes are those of its section.
    let section: &'static [u8] =
        Box::leak([encode_section_head(&cid(), 3), b"123".to_vec()].concat().into_boxed_slice());
    let (blocks, error) = dag(endless_car, Then::Repeat(section)).await;
    assert!(matches!(error, Some(Cause::TooLong { .. })) && blocks.len() < 1 << 16, "{error:?}");
}

#[tokio::test]
async fn an_endless_head_is_an_error() {
    let error = block_error(b"HTTP/1.1 200 OK\r\n".to_vec(), Then::Repeat(b"x-header: x\r\n")).await;
    assert!(matches!(error, Cause::Broken(_)), "{error:?}");
}

#[tokio::test]
async fn cut_answers_are_errors() {
    let mut cut = answer(TYPE_RAW, b"123");
    cut.pop();
    let error = block_error(cut, Then::Close).await;
    assert!(matches!(error, Cause::Cut(_)), "{error:?}");
    let chunked =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {TYPE_RAW}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n123\r\n");
    let error = block_error(chunked.into_bytes(), Then::Close).await;
    assert!(matches!(error, Cause::Cut(_)), "{error:?}");
}

#[tokio::test]
async fn what_hangs_is_given_up() {
    let error = block(impatient(), Vec::new(), Then::Hang).await.unwrap_err();
    assert!(matches!(error, Cause::Late { stage: Stage::Head, .. }), "{error:?}");
    let mut cut = answer(TYPE_RAW, b"123");
    cut.pop();
    let error = block(impatient(), cut, Then::Hang).await.unwrap_err();
    assert!(matches!(error, Cause::Late { stage: Stage::Receive, .. }), "{error:?}");
}

#[tokio::test]
async fn what_drips_is_given_up() {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {TYPE_RAW}\r\nContent-Length: 1000000\r\n\r\n");
    let error = block(impatient(), head.into_bytes(), Then::Drip).await.unwrap_err();
    assert!(matches!(error, Cause::Late { stage: Stage::Receive, .. }), "{error:?}");
    let error = block(impatient(), b"HTTP/1.1 200 OK\r\nX-A: ".to_vec(), Then::Drip).await.unwrap_err();
    assert!(matches!(error, Cause::Late { stage: Stage::Head, .. }), "{error:?}");
}

#[tokio::test]
async fn nobody_there_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let error = Client::new(address.clone(), Deadlines::default()).unwrap().block(&cid()).await.unwrap_err();
    assert_eq!(error.remote, address.to_string());
    let Cause::Connect { address: shown, source } = error.cause else { panic!("{error:?}") };
    assert_eq!(format!("http://{shown}"), address.to_string());
    assert!(source.to_string().contains("refused"), "{source}");
}

#[tokio::test]
async fn redirects_are_followed() {
    let (there, _) = gateway(|_| (answer(TYPE_RAW, b"123"), Then::Close)).await;
    let (address, heads) = gateway(move |head| {
        let there = format!("{there}/ipfs/{CID}?format=raw");
        (redirect_to(if head.contains("/second") { &there } else { "/second" }), Then::Close)
    })
    .await;
    let client = Client::new(address, Deadlines::default()).unwrap();
    assert_eq!(client.block(&cid()).await.unwrap().data(), &b"123"[..]);
    assert_eq!(heads.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn redirects_are_few() {
    let (address, heads) = gateway(|_| (redirect_to("/again"), Then::Close)).await;
    let client = Client::new(address, Deadlines::default()).unwrap();
    let error = client.block(&cid()).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Malformed(_)), "{error:?}");
    assert_eq!(heads.lock().unwrap().len(), REDIRECTS_MAX + 1);
    let error = block_error(redirect_to("file:///etc/passwd"), Then::Close).await;
    assert!(matches!(error, Cause::Redirect { status: 301, .. }), "{error:?}");
}

#[test]
fn redirects_lead_only_where_they_may() {
    let check = |from: &str, to: &str, expected: bool| {
        let gateway = from.parse().unwrap();
        assert_eq!(redirect(&gateway, &Url::parse(from).unwrap(), to).is_some(), expected, "{from} to {to}");
    };
    check("http://example.com", "https://a.ipfs.example.com/x", true);
    check("https://example.com", "//a.example.com", true);
    check("https://example.com", "http://example.com", false);
    check("https://example.com", "ftp://example.com", false);
    check("https://example.com", "https://a:b@example.com", false);
    check("https://example.com", "https://localhost/", false);
    check("http://example.com", "http://127.0.0.1:5001/api", false);
    check("http://127.0.0.1:8080", "http://a.ipfs.localhost:8080", true);
}

#[tokio::test]
async fn cars_are_checked() {
    let (blocks, error) = dag(answer(TYPE_CAR, &car()), Then::Close).await;
    assert!(blocks.len() == 1 && error.is_none(), "{error:?}");
    // Only a header: a whole CAR of nothing. Who walks the DAG sees what is missing.
    let (blocks, error) = dag(answer(TYPE_CAR, &encode_header(&[cid()])), Then::Close).await;
    assert!(blocks.is_empty() && error.is_none(), "{error:?}");
    let (blocks, error) = dag(answer(TYPE_CAR, &car()[..90]), Then::Close).await;
    assert!(blocks.is_empty() && matches!(error, Some(Cause::Car(CarError::Truncated { .. }))), "{error:?}");
    let mut wrong = car();
    wrong[98] = b'4';
    let (blocks, error) = dag(answer(TYPE_CAR, &wrong), Then::Close).await;
    assert!(blocks.is_empty() && matches!(error, Some(Cause::Block(_))), "{error:?}");
    let (blocks, error) = dag(answer(TYPE_CAR, b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), Then::Close).await;
    assert!(blocks.is_empty() && matches!(error, Some(Cause::Car(CarError::HeaderTooLong { .. }))), "{error:?}");
}

#[tokio::test]
async fn names_below_localhost_are_this_machine() {
    let (there, _) = gateway(|_| (answer(TYPE_RAW, b"123"), Then::Close)).await;
    let port = Url::parse(&there.to_string()).unwrap().port().unwrap();
    let (address, _) =
        gateway(move |_| (redirect_to(&format!("http://{CID}.ipfs.localhost:{port}/?format=raw")), Then::Close)).await;
    let client = Client::new(address, Deadlines::default()).unwrap();
    assert_eq!(client.block(&cid()).await.unwrap().data(), &b"123"[..]);
}
