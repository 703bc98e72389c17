//! The client against servers that play every way in which Kubo, or who sits in its place, can answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};

use super::*;
use crate::dag::BlockError;
use crate::dag::car::{encode_header, encode_section_head};
use crate::remote::Stage;
use crate::remote::testing::{Mock, Step, answer, ok, ok_unfinished, ok_with_trailer};

/// The raw block "123".
const ROOT: &str = "bafkreifgmwsfsiccf6ouc7sim7x5yt5yubfb6p77d6qh5gmoq337pit24m";
/// The raw block "hello world".
const OTHER: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";

/// Long for a machine that is busy, short for a test that waits for it.
const SHORT: Duration = Duration::from_millis(300);

fn root() -> Cid {
    ROOT.parse().unwrap()
}

/// A client with deadlines that pass in a test only where the mock makes it wait.
fn client(mock: &Mock) -> Client {
    client_with(mock, Options::default())
}

fn client_with(mock: &Mock, options: Options) -> Client {
    Client::new(format!("http://{}", mock.authority).parse().unwrap(), options).unwrap()
}

fn hasty() -> Options {
    let deadlines = Deadlines { head: SHORT, idle: SHORT, ..Deadlines::default() };
    Options { deadlines, pin: SHORT, ..Options::default() }
}

fn car() -> Vec<u8> {
    let mut car = encode_header(&[root()]);
    car.extend(encode_section_head(&root(), 3));
    car.extend(b"123");
    car
}

async fn import(client: &Client) -> Result<Imported, Cause> {
    let car = stream::iter([Ok::<_, BoxError>(Bytes::from(car()))]);
    client.dag_import(car, &root()).await.map_err(|error| error.cause)
}

/// What `version`, as an example of a call with one value, makes of an answer.
async fn version(answer: impl Into<Vec<u8>>) -> Result<String, Cause> {
    let version = client(&Mock::answering(answer)).version().await;
    version.map(|version| version.version).map_err(|error| error.cause)
}

fn root_line(pin_error: &str) -> String {
    format!("{{\"Root\":{{\"Cid\":{{\"/\":\"{ROOT}\"}},\"PinErrorMsg\":\"{pin_error}\"}}}}\n")
}

const STATS: &str = "{\"Stats\":{\"BlockCount\":1,\"BlockBytesCount\":3}}\n";
const VERSION: &[u8] = b"{\"Version\":\"0.43.1\",\"Commit\":\"\"}\n";

#[tokio::test]
async fn calls_are_what_kubo_expects() {
    let mock = Mock::answering(ok(&[VERSION]));
    assert_eq!(client(&mock).version().await.unwrap().version, "0.43.1");
    let requests = mock.requests();
    let request = requests[0].to_lowercase();
    assert!(request.starts_with("post /api/v0/version http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: {}\r\n", mock.authority)), "{request}");
    assert!(request.contains("\r\nuser-agent: ww/"), "{request}");
    assert!(!request.contains("origin:") && !request.contains("authorization"), "{request}");
}

#[tokio::test]
async fn an_import_is_a_form_with_the_car() {
    let mock = Mock::answering(ok(&[root_line("").as_bytes(), STATS.as_bytes()]));
    assert_eq!(import(&client(&mock)).await.unwrap(), Imported { blocks: 1, bytes: 3 });
    let request = mock.requests().remove(0);
    assert!(request.starts_with("POST /api/v0/dag/import?pin-roots=true&stats=true HTTP/1.1\r\n"), "{request}");
    let (_, boundary) = request.split_once("multipart/form-data; boundary=").unwrap();
    let boundary = boundary.lines().next().unwrap();
    assert_eq!(request.matches(&format!("--{boundary}\r\n")).count(), 1, "{request}");
    assert_eq!(request.matches(&format!("\r\n--{boundary}--\r\n")).count(), 1, "{request}");
    assert!(request.contains("name=\"file\"; filename="), "{request}");
}

#[tokio::test]
async fn a_trailer_that_is_only_announced_is_no_error() {
    assert_eq!(version(ok(&[VERSION])).await.unwrap(), "0.43.1");
    assert_eq!(version(ok_with_trailer(&[VERSION], "")).await.unwrap(), "0.43.1");
    let error = version(ok_with_trailer(&[VERSION], "disk\u{1b}[2J full")).await.unwrap_err();
    assert!(matches!(&error, Cause::Reported(_) | Cause::Cut(_)), "{error}");
    let error = version(ok_with_trailer(&[VERSION], "disk full")).await.unwrap_err();
    assert_eq!(error.to_string(), "it says: disk full");
}

#[tokio::test]
async fn an_error_as_the_last_line_is_one() {
    let line = br#"{"Message":"pin: it broke","Code":0,"Type":"error"}"#;
    let error = version(ok(&[VERSION, line])).await.unwrap_err();
    assert_eq!(error.to_string(), "it says: pin: it broke");
    let mock = Mock::answering(ok(&[root_line("").as_bytes(), STATS.as_bytes(), line]));
    assert!(matches!(import(&client(&mock)).await, Err(Cause::Reported(_))));
}

#[tokio::test]
async fn imports_that_did_not_pin_are_errors() {
    let failed = root_line("block was not found locally (offline): ipld: could not find x");
    let other = root_line("").replace(ROOT, OTHER);
    let pinned = root_line("");
    for (lines, expected) in [
        (vec![&failed[..], STATS], "it says: block was not found locally"),
        (vec![&other, STATS], "instead of bafkreifgmw"),
        (vec![STATS], "does not say that it pinned"),
        (vec![&pinned], "may have stopped half-way"),
        (vec![], "the answer is empty"),
        (vec!["\n"], "the answer is empty"),
        (vec![&pinned, "{\"Stats\":"], "malformed"),
        (vec!["[]\n"], "malformed"),
    ] {
        let chunks: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        let error = import(&client(&Mock::answering(ok(&chunks)))).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{lines:?}: {error}");
    }
}

#[tokio::test]
async fn parts_are_not_pinned() {
    let import = async |answer: Vec<u8>| {
        let mock = Mock::answering(answer);
        let car = stream::iter([Ok::<_, BoxError>(Bytes::from(car()))]);
        let imported = client(&mock).dag_import_parts(car).await.map_err(|error| error.cause);
        assert!(mock.requests()[0].starts_with("POST /api/v0/dag/import?pin-roots=false&stats=true "));
        imported
    };
    assert_eq!(import(ok(&[STATS.as_bytes()])).await.unwrap(), Imported { blocks: 1, bytes: 3 });
    assert!(matches!(import(ok(&[])).await, Err(Cause::Empty)));
    assert!(matches!(import(ok(&[root_line("").as_bytes()])).await, Err(Cause::Malformed(_))));
}

#[tokio::test]
async fn empty_and_cut_answers_are_errors() {
    assert!(matches!(version(ok(&[])).await, Err(Cause::Empty)));
    assert!(matches!(version(answer("200 OK", "", "")).await, Err(Cause::Empty)));
    assert!(matches!(version(ok_unfinished(&[VERSION])).await, Err(Cause::Cut(_))));
    assert!(matches!(version("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}").await, Err(Cause::Cut(_))));
    assert!(matches!(version("HTTP/1.1 200 OK\r\nContent-Length: 1").await, Err(Cause::Broken(_))));
    assert!(matches!(version("HTTP/1.1 200 OK\r\n\r\n{\"Version\":\"1\"}").await, Err(Cause::Unframed)));
    assert!(matches!(version("").await, Err(Cause::Broken(_))));
    assert!(matches!(version("garbage\r\n\r\n").await, Err(Cause::Broken(_))));
    assert!(matches!(version(ok(&[b"garbage\n"])).await, Err(Cause::Malformed(_))));
    assert!(matches!(version(ok(&[b"{}\n"])).await, Err(Cause::Malformed(_))));
    assert!(matches!(version(ok(&[VERSION, VERSION])).await, Err(Cause::Malformed(_))));
    let nested = format!("{{\"Version\":{}", "[".repeat(100_000));
    assert!(matches!(version(ok(&[nested.as_bytes()])).await, Err(Cause::Malformed(_))));
}

#[tokio::test]
async fn every_refusal_is_told_apart() {
    let report = r#"{"Message":"no such thing","Code":1,"Type":"error"}"#;
    for (status, headers, body, expected) in [
        ("403 Forbidden", "", "403 - Forbidden", "access is denied (HTTP 403): 403 - Forbidden"),
        ("401 Unauthorized", "", "", "access is denied (HTTP 401)"),
        ("404 Not Found", "", "404 page not found", "it does not know this request (HTTP 404): 404 page not found"),
        ("405 Method Not Allowed", "", "x", "it does not know this request (HTTP 405): x"),
        ("500 Internal Server Error", "", report, "it says: no such thing"),
        ("500 Internal Server Error", "", "oops", "it answered with HTTP 500: oops"),
        ("502 Bad Gateway", "Content-Type: text/html\r\n", "<html>", "it answered with HTTP 502: an HTML page"),
        ("200 OK", "Content-Type: text/html; charset=utf-8\r\n", "<html>", "the answer is `text/html; charset=utf-8`"),
        ("204 No Content", "", "", "it answered with HTTP 204"),
        ("301 Moved", "Location: http://127.0.0.1:9/\r\n", "", "redirects (HTTP 301) to `http://127.0.0.1:9/`"),
        ("418 Teapot", "", "a\x1b[2Jb", "it answered with HTTP 418: a\\u{1b}[2Jb"),
    ] {
        let error = version(answer(status, headers, body)).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{status}: {error}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let target = Mock::answering(ok(&[VERSION]));
    for status in ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = format!("Location: http://{}/api/v0/version\r\n", target.authority);
        let error = version(answer(status, &location, "")).await.unwrap_err();
        assert!(matches!(error, Cause::Redirect { .. }), "{error}");
    }
    assert!(target.requests().is_empty());
}

#[tokio::test]
async fn what_is_too_long_is_not_read() {
    let long = vec![b' '; 70_000];
    let lines = vec![&long[..]; 20];
    assert!(matches!(version(ok(&lines)).await, Err(Cause::TooLong { .. })));
    // An endless body of an error: its status still tells.
    let endless =
        Step::Write([&b"HTTP/1.1 503 Busy\r\nContent-Length: 99999999\r\n\r\n"[..], &[b'x'; 100_000]].concat());
    let mock = Mock::start(vec![vec![Step::Read, endless, Step::Hang]]);
    let error = client(&mock).version().await.unwrap_err();
    assert_eq!(error.cause.to_string(), "it answered with HTTP 503");
    let mock = Mock::answering(ok(&[&vec![b'x'; BLOCK_BYTES_MAX + 1]]));
    assert!(matches!(client(&mock).block_get(&root()).await.unwrap_err().cause, Cause::TooLong { .. }));
    let mock = Mock::answering([&b"HTTP/1.1 200 OK\r\n"[..], &b"X: y\r\n".repeat(100_000)].concat());
    assert!(matches!(client(&mock).version().await.unwrap_err().cause, Cause::Broken(_)));
}

/// The cause, after it was seen that it came soon.
async fn late(steps: Vec<Step>, options: Options) -> Cause {
    let started = Instant::now();
    let client = client_with(&Mock::start(vec![steps]), options);
    let error = client.version().await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(20), "the deadline of the call is not the one that is tested");
    error.cause
}

#[tokio::test]
async fn nothing_hangs() {
    let is = |cause: Cause, expected: Stage| {
        assert!(matches!(cause, Cause::Late { stage, .. } if stage == expected), "{expected:?}: {cause}");
    };
    is(late(vec![Step::Hang], hasty()).await, Stage::Head);
    is(late(vec![Step::Read, Step::Write(b"HTTP/1.1 200".to_vec()), Step::Hang], hasty()).await, Stage::Head);
    is(late(vec![Step::Read, Step::Write(ok_unfinished(&[VERSION])), Step::Hang], hasty()).await, Stage::Receive);
    // Bytes that come now and then are no progress.
    let drip = vec![Step::Read, Step::Write(ok_unfinished(&[])), Step::Drip(b"1\r\n\n\r\n".to_vec())];
    is(late(drip.clone(), hasty()).await, Stage::Receive);
    let deadlines = Deadlines { total: SHORT, ..Deadlines::default() };
    is(late(drip, Options { deadlines, ..Options::default() }).await, Stage::Total);
    // An error whose text hangs is that error.
    let hung = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\n".to_vec();
    assert!(matches!(late(vec![Step::Read, Step::Write(hung), Step::Hang], hasty()).await, Cause::Denied { .. }));
}

#[tokio::test]
async fn an_upload_that_nobody_takes_ends() {
    let mock = Mock::start(vec![vec![Step::ReadHead, Step::Hang]]);
    let endless = stream::repeat_with(|| Ok::<_, BoxError>(Bytes::from(vec![0; 1 << 20])));
    let error = client_with(&mock, hasty()).dag_import(endless, &root()).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Late { stage: Stage::Send, .. }), "{error:?}");
    let mock = Mock::start(vec![vec![Step::Read, Step::Hang]]);
    let error = import(&client_with(&mock, hasty())).await.unwrap_err();
    assert!(matches!(error, Cause::Late { stage: Stage::Head, .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_before_the_end_of_an_upload_is_read() {
    let refusal = answer("403 Forbidden", "Connection: close\r\n", "no");
    let endless = || stream::repeat_with(|| Ok::<_, BoxError>(Bytes::from(vec![0; 1 << 20])));
    for steps in [
        vec![Step::ReadHead, Step::Write(refusal.clone())],
        vec![Step::ReadHead, Step::Write(refusal.clone()), Step::CloseWrite],
        vec![Step::ReadHead, Step::Write(refusal.clone()), Step::Hang],
    ] {
        let error = client(&Mock::start(vec![steps])).dag_import(endless(), &root()).await.unwrap_err();
        assert!(matches!(&error.cause, Cause::Denied { message, .. } if message == "no"), "{error:?}");
    }
    let success = ok(&[root_line("").as_bytes(), STATS.as_bytes()]);
    let mock = Mock::start(vec![vec![Step::ReadHead, Step::Write(success), Step::CloseWrite]]);
    let car = endless().take(100);
    client(&mock).dag_import(car, &root()).await.unwrap();
}

#[tokio::test]
async fn a_car_that_cannot_be_read_is_not_sent_whole() {
    let mock = Mock::start(vec![vec![Step::Read, Step::Write(ok(&[root_line("").as_bytes(), STATS.as_bytes()]))]]);
    let car = stream::iter([Ok(Bytes::from(car())), Err(std::io::Error::other("the disk is gone"))]);
    let error = client(&mock).dag_import(car, &root()).await.unwrap_err();
    assert!(matches!(&error.cause, Cause::Source(source) if source.to_string() == "the disk is gone"), "{error:?}");
    let all_sent = |request: &String| request.ends_with("--\r\n\r\n0\r\n\r\n");
    assert!(!mock.requests().iter().any(all_sent), "a broken upload looks whole");
}

#[tokio::test]
async fn blocks_are_verified() {
    let mock = Mock::answering(ok(&[b"12", b"3"]));
    assert_eq!(client(&mock).block_get(&root()).await.unwrap().data(), &b"123"[..]);
    assert!(mock.requests()[0].starts_with(&format!("POST /api/v0/block/get?arg={ROOT} HTTP")));
    for data in [&b"124"[..], b"12", b""] {
        let error = client(&Mock::answering(ok(&[data]))).block_get(&root()).await.unwrap_err();
        assert!(matches!(error.cause, Cause::Block(BlockError::HashMismatch { .. })), "{error:?}");
    }
    let mock = Mock::answering(ok_with_trailer(&[b"123"], "late error"));
    assert!(matches!(client(&mock).block_get(&root()).await.unwrap_err().cause, Cause::Reported(_)));
}

async fn export(answer: Vec<u8>, bytes_max: u64) -> Result<usize, Cause> {
    let mut blocks = match client(&Mock::answering(answer)).dag_export(&root(), bytes_max).await {
        Ok(blocks) => blocks,
        Err(error) => return Err(error.cause),
    };
    let mut count = 0;
    while let Some(block) = blocks.next().await {
        block.map_err(|error| error.cause)?;
        count += 1;
    }
    Ok(count)
}

#[tokio::test]
async fn exports_are_verified_and_whole() {
    let car = car();
    assert_eq!(export(ok(&[&car]), 1000).await.unwrap(), 1);
    assert!(matches!(export(ok(&[&car[..70]]), 1000).await, Err(Cause::Car(_))));
    assert!(matches!(export(ok(&[]), 1000).await, Err(Cause::Car(_))));
    assert!(matches!(export(ok_unfinished(&[&car]), 1000).await, Err(Cause::Cut(_))));
    assert!(matches!(export(ok_with_trailer(&[&car], "not found"), 1000).await, Err(Cause::Reported(_))));
    assert!(matches!(export(ok(&[&car]), 98).await, Err(Cause::TooLong { limit: 98, .. })));
    let mut other = car.clone();
    *other.last_mut().unwrap() = b'4';
    assert!(matches!(export(ok(&[&other]), 1000).await, Err(Cause::Block(_))));
    assert!(matches!(export(ok(&[b"garbage"]), 1000).await, Err(Cause::Car(_))));
}

#[tokio::test]
async fn absence_is_no_error_where_it_is_asked_for() {
    let absent = format!(
        "{{\"Message\":\"block was not found locally (offline): ipld: could not find {ROOT}\",\"Code\":0,\"Type\":\"error\"}}"
    );
    let absent = answer("500 Internal Server Error", "", &absent);
    assert!(!client(&Mock::answering(absent.clone())).has_block(&root()).await.unwrap());
    let error = client(&Mock::answering(absent)).block_get(&root()).await.unwrap_err();
    assert!(matches!(error.cause, Cause::NotFound { .. }), "{error:?}");
    let present = format!("{{\"Key\":\"{ROOT}\",\"Size\":3}}\n");
    assert!(client(&Mock::answering(ok(&[present.as_bytes()]))).has_block(&root()).await.unwrap());
    let other = present.replace(ROOT, OTHER);
    let error = client(&Mock::answering(ok(&[other.as_bytes()]))).has_block(&root()).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Root { .. }), "{error:?}");
}

#[tokio::test]
async fn a_dag_is_there_if_all_of_it_is() {
    let has = async |stat: &str| client(&Mock::answering(ok(&[stat.as_bytes()]))).has_dag(&root()).await;
    let local = format!("{{\"Hash\":\"{ROOT}\",\"Size\":3,\"WithLocality\":true,\"Local\":true,\"SizeLocal\":3}}");
    assert!(has(&local).await.unwrap());
    assert!(!has(&local.replace("\"Local\":true,", "")).await.unwrap());
    assert!(matches!(has(&local.replace(ROOT, OTHER)).await.unwrap_err().cause, Cause::Root { .. }));
}

#[tokio::test]
async fn the_pin_of_a_root_is_read() {
    let pin_of = async |line: &str| {
        let (start, end) = line.as_bytes().split_at(50);
        client(&Mock::answering(ok(&[start, end]))).pin_of(&root()).await
    };
    let line = format!("{{\"Cid\":\"{ROOT}\",\"Name\":\"a@1\",\"Type\":\"recursive\"}}\n");
    assert_eq!(pin_of(&line).await.unwrap().unwrap(), Pin { root: root(), name: "a@1".into() });
    assert_eq!(pin_of(&line.replace("\"Name\":\"a@1\",", "")).await.unwrap().unwrap().name, "");
    let error = pin_of(&line.replace(ROOT, OTHER)).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Root { .. }), "{error:?}");
    let none = format!("{{\"Message\":\"path '{ROOT}' is not pinned\",\"Code\":0,\"Type\":\"error\"}}");
    let mock = Mock::answering(answer("500 Internal Server Error", "", &none));
    assert_eq!(client(&mock).pin_of(&root()).await.unwrap(), None);
}

#[tokio::test]
async fn a_pin_is_the_one_that_was_asked_for() {
    let good = format!("{{\"Pins\":[\"{ROOT}\"]}}\n");
    let mock = Mock::answering(ok(&[good.as_bytes()]));
    client(&mock).pin_add(&root(), "a@1 &").await.unwrap();
    assert!(mock.requests()[0].contains(&format!("/pin/add?arg={ROOT}&name=a%401%20%26&offline=true ")));
    for pins in ["null".to_owned(), "[]".into(), format!("[\"{OTHER}\"]"), format!("[\"{ROOT}\",\"{OTHER}\"]")] {
        let mock = Mock::answering(ok(&[format!("{{\"Pins\":{pins}}}").as_bytes()]));
        let error = client(&mock).pin_add(&root(), "a").await.unwrap_err();
        assert!(matches!(error.cause, Cause::Root { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn connections_are_kept() {
    let answers = vec![Step::Read, Step::Write(ok(&[VERSION])), Step::Read, Step::Write(ok(&[VERSION]))];
    let mock = Mock::start(vec![answers, vec![Step::Read, Step::Write(ok(&[VERSION])), Step::Hang]]);
    let client = client(&mock);
    for _ in 0..3 {
        // The third finds that the connection was closed, and takes another.
        client.version().await.unwrap();
    }
    assert_eq!(mock.requests().iter().filter(|request| !request.is_empty()).count(), 3);
}

#[tokio::test]
async fn unix_sockets_are_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.sock");
    let mock = Mock::start_unix(&path, vec![vec![Step::Read, Step::Write(ok(&[VERSION]))]]);
    let address: Address = format!("/unix{}", path.display()).parse().unwrap();
    let client = Client::new(address, Options::default()).unwrap();
    assert_eq!(client.version().await.unwrap().version, "0.43.1");
    let request = mock.requests().remove(0);
    assert!(request.starts_with("POST /api/v0/version HTTP/1.1\r\nhost: localhost\r\n"), "{request}");
    let address = format!("unix:{}/absent", dir.path().display()).parse().unwrap();
    let error = Client::new(address, Options::default()).unwrap().version().await.unwrap_err();
    assert!(matches!(error.cause, Cause::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn errors_say_where_and_what() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::new(format!("http://{free}").parse().unwrap(), Options::default()).unwrap();
    let error = client.version().await.unwrap_err();
    assert_eq!(error.to_string(), format!("version failed at http://{free}"));
    assert_eq!(error.cause.to_string(), format!("cannot connect to {free}"));
    let client = Client::new("https://127.0.0.1:1".parse().unwrap(), Options::default()).unwrap();
    assert!(matches!(client.version().await.unwrap_err().cause, Cause::Connect { .. }));
}

#[tokio::test]
async fn tls_is_not_spoken_with_those_who_cannot() {
    let mock = Mock::start(vec![vec![Step::Write(ok(&[VERSION])), Step::Hang]]);
    let address = format!("https://{}", mock.authority).parse().unwrap();
    let error = Client::new(address, Options::default()).unwrap().version().await.unwrap_err();
    assert!(matches!(error.cause, Cause::Tls(_)), "{error:?}");
}

#[tokio::test]
async fn plain_http_stays_on_this_machine() {
    let address: Address = "http://192.0.2.1:5001".parse().unwrap();
    let error = Client::new(address.clone(), Options::default()).unwrap_err();
    assert!(matches!(error, ClientError::Exposed { .. }), "{error}");
    Client::new(address, Options { allow_plain_http: true, ..Options::default() }).unwrap();
}

#[tokio::test]
async fn the_token_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    crate::atomic_file::write(&path, b"s3cret\n", 0o600).unwrap();
    let mock = Mock::answering(ok(&[VERSION]));
    let options = Options { token: Some(Token::load(&path).unwrap()), ..Options::default() };
    assert!(!format!("{options:?}").contains("s3cret"));
    client_with(&mock, options).version().await.unwrap();
    assert!(mock.requests()[0].contains("\r\nauthorization: Bearer s3cret\r\n"), "{:?}", mock.requests());
}

#[tokio::test]
async fn connecting_says_whether_it_did() {
    let mock = Mock::answering(ok(&[b"{\"Strings\":[\"connect 12D3KooW success\"]}\n"]));
    client(&mock).swarm_connect("/ip4/127.0.0.1/tcp/1/p2p/12D3KooW").await.unwrap();
    assert!(mock.requests()[0].contains("?arg=%2Fip4%2F127.0.0.1%2Ftcp%2F1%2Fp2p%2F12D3KooW "));
    let mock = Mock::answering(ok(&[b"{\"Strings\":[\"connect 12D3KooW failure\"]}\n"]));
    assert!(client(&mock).swarm_connect("/p2p/x").await.is_err());
    let id = br#"{"ID":"12D3KooW","Addresses":null,"AgentVersion":"kubo/0.43.1","Protocols":[]}"#;
    assert_eq!(client(&Mock::answering(ok(&[id]))).id().await.unwrap().addresses, [""; 0]);
}
