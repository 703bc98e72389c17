//! The gateway, asked over TCP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;
use crate::blockstore::{MemoryBlockstore, PinName};
use crate::dag::Scope;
use crate::dag::block::CODEC_DAG_PB;
use crate::dag::car::{Decoder, Item};
use crate::dag::unixfs::{self, BuildError, Entry, EntryName, FileBuilder, Profile, Subtree};
use crate::remote::{Deadlines, gateway};
use crate::serve::Limits;

const PROFILE: Profile = Profile { chunk_bytes: 4, ..Profile::UNIXFS_V1_2025 };

/// A running gateway, and what is in its store.
pub(super) struct Fixture {
    store: MemoryBlockstore,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<()>,
}

impl Fixture {
    pub(super) async fn new(limits: Limits) -> Self {
        let store = MemoryBlockstore::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let gateway = Gateway::new(Arc::new(store.clone()));
        let ended = tokio::spawn(async move {
            gateway.serve(Server::new(listener, limits), async { drop(stopped.await) }).await;
        });
        Self { store, address, stop: Some(stop), ended }
    }

    pub(super) fn put(&self, blocks: &[Block]) {
        let mut writer = self.store.writer().unwrap();
        for block in blocks {
            writer.put(block).unwrap();
        }
        writer.commit(&[]).unwrap();
    }

    pub(super) fn pin(&self, root: &Cid) {
        self.store.set_pin(&PinName::of_root(root), root).unwrap();
    }

    /// A store with a tree that is pinned; gives its blocks, with the root last.
    async fn with_tree() -> (Self, Vec<Block>) {
        let fixture = Self::new(Limits::default()).await;
        let blocks = tree();
        fixture.put(&blocks);
        fixture.pin(blocks.last().unwrap().cid());
        (fixture, blocks)
    }

    fn client(&self) -> gateway::Client {
        let address = format!("http://{}", self.address).parse().unwrap();
        gateway::Client::new(address, Deadlines::default()).unwrap()
    }

    /// Sends a request without a body; gives the whole answer.
    pub(super) async fn ask(&self, head: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        Answer::parse(&bytes)
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask(&format!("GET {target} HTTP/1.1")).await
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let headers: HashMap<_, _> = lines.map(header).collect();
        let mut body = bytes[end + 4..].to_vec();
        if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") && !body.is_empty() {
            body = unchunk(&body);
        }
        Self { status, headers, body }
    }

    #[track_caller]
    fn check(&self, name: &str, expected: &str) {
        assert_eq!(self.headers.get(name).map(String::as_str), Some(expected), "{name} in {:?}", self.headers);
    }

    /// The CIDs of a CAR's blocks, each of which is what it says.
    pub(super) fn blocks(&self) -> Vec<Cid> {
        let mut decoder = Decoder::new();
        decoder.push(&self.body);
        let mut cids = Vec::new();
        while let Some(item) = decoder.next_item().unwrap() {
            if let Item::Section(section) = item {
                cids.push(*section.into_block().unwrap().cid());
            }
        }
        decoder.finish().unwrap();
        cids
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n").expect("the answer is cut off");
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
}

fn sink(blocks: &mut Vec<Block>) -> impl FnMut(Block) -> Result<(), BuildError> {
    |block| {
        blocks.push(block);
        Ok(())
    }
}

fn file(content: &[u8], blocks: &mut Vec<Block>) -> Subtree {
    let mut builder = FileBuilder::new(PROFILE);
    for chunk in content.chunks(PROFILE.chunk_bytes) {
        builder.push(Bytes::copy_from_slice(chunk), &mut sink(blocks)).unwrap();
    }
    builder.finish(&mut sink(blocks)).unwrap().subtree()
}

fn directory(entries: &[(&str, Subtree)], blocks: &mut Vec<Block>) -> Subtree {
    let entry = |(name, target): &(&str, Subtree)| Entry { name: EntryName::new(*name).unwrap(), target: *target };
    unixfs::directory(&PROFILE, entries.iter().map(entry).collect(), &mut sink(blocks)).unwrap()
}

/// `a b`, a file of two equal pieces and one more; `sub/ü`, a file of one.
fn tree() -> Vec<Block> {
    let mut blocks = Vec::new();
    let file_1 = file(b"aaaaaaaabbbb", &mut blocks);
    blocks.remove(1);
    let file_2 = file(b"c", &mut blocks);
    let sub = directory(&[("ü", file_2)], &mut blocks);
    directory(&[("a b", file_1), ("sub", sub)], &mut blocks);
    blocks
}

#[tokio::test]
async fn blocks_are_served() {
    let (fixture, blocks) = Fixture::with_tree().await;
    for block in &blocks {
        assert_eq!(fixture.client().block(block.cid()).await.unwrap(), *block);
    }
    let cid = blocks[0].cid();
    let answer = fixture.get(&format!("/ipfs/{cid}?format=raw")).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"aaaa"[..]));
    answer.check("content-type", "application/vnd.ipld.raw");
    answer.check("content-length", "4");
    answer.check("content-disposition", &format!("attachment; filename=\"{cid}.bin\""));
    answer.check("etag", &format!("\"{cid}.raw\""));
    answer.check("cache-control", IMMUTABLE);
    answer.check("x-ipfs-path", &format!("/ipfs/{cid}"));
    answer.check("x-ipfs-roots", &cid.to_string());
    answer.check("x-content-type-options", "nosniff");
    let answer = fixture.get(&format!("/ipfs/{cid}?format=raw&filename=x.bin")).await;
    answer.check("content-disposition", "attachment; filename=\"x.bin\"");
}

#[tokio::test]
async fn archives_are_served() {
    let (fixture, blocks) = Fixture::with_tree().await;
    let cids: Vec<_> = blocks.iter().map(|block| *block.cid()).collect();
    let [a, b, file_1, file_2, sub, root] = cids[..] else { panic!("{cids:?}") };
    let check = async |rest: &str, expected: &[Cid]| {
        let answer = fixture.get(&format!("/ipfs/{root}{rest}")).await;
        assert_eq!(answer.status, 200, "{rest}");
        assert_eq!(answer.blocks(), expected, "{rest}");
        answer
    };
    let answer = check("?format=car", &[root, file_1, a, b, sub, file_2]).await;
    answer.check("content-type", "application/vnd.ipld.car; version=1; order=dfs; dups=n");
    answer.check("content-disposition", &format!("attachment; filename=\"{root}.car\""));
    answer.check("x-ipfs-roots", &root.to_string());
    let answer = check("?format=car&car-dups=y", &[root, file_1, a, a, b, sub, file_2]).await;
    answer.check("content-type", "application/vnd.ipld.car; version=1; order=dfs; dups=y");
    check("?format=car&dag-scope=block", &[root]).await;
    check("?format=car&dag-scope=entity", &[root]).await;
    check("/a%20b?format=car&dag-scope=block", &[root, file_1]).await;
    check("/a%20b?format=car&dag-scope=entity", &[root, file_1, a, b]).await;
    check("/sub?format=car", &[root, sub, file_2]).await;
    let answer = check("/sub/%C3%BC/?format=car", &[root, sub, file_2]).await;
    answer.check("x-ipfs-path", &format!("/ipfs/{root}/sub/%C3%BC/"));
    answer.check("x-ipfs-roots", &format!("{root},{sub},{file_2}"));
}

#[tokio::test]
async fn our_client_understands_it() {
    let (fixture, blocks) = Fixture::with_tree().await;
    let root = *blocks.last().unwrap().cid();
    let mut stream = fixture.client().dag(&root, "a b", Scope::All, 1 << 20).await.unwrap();
    let mut count = 0;
    while let Some(block) = stream.next().await {
        assert!(blocks.contains(&block.unwrap()));
        count += 1;
    }
    assert_eq!(count, 4);
}

#[tokio::test]
async fn the_probe_is_answered() {
    let fixture = Fixture::new(Limits::default()).await;
    for method in ["GET", "HEAD"] {
        let answer = fixture.ask(&format!("{method} /ipfs/bafkqaaa?format=raw HTTP/1.1")).await;
        assert_eq!((answer.status, answer.body.len()), (200, 0));
    }
    let answer = fixture.get("/ipfs/bafkqaaa?format=car").await;
    assert_eq!((answer.status, answer.blocks().len()), (200, 0));
}

#[tokio::test]
async fn only_what_is_pinned_is_served() {
    let (fixture, blocks) = Fixture::with_tree().await;
    let mut other = Vec::new();
    let secret = file(b"secretsecret", &mut other).cid;
    fixture.put(&other);
    let target = format!("/ipfs/{secret}?format=raw");
    assert_eq!(fixture.get(&target).await.status, 404);
    assert_eq!(fixture.get(&format!("/ipfs/{secret}?format=car")).await.status, 404);
    // A pin that comes later counts from then on, and one that goes no longer.
    fixture.pin(&secret);
    assert_eq!(fixture.get(&target).await.status, 200);
    assert_eq!(fixture.get(&format!("/ipfs/{}?format=raw", other[0].cid())).await.status, 200);
    fixture.store.remove_pin(&PinName::of_root(&secret)).unwrap();
    assert_eq!(fixture.get(&target).await.status, 404);
    assert_eq!(fixture.get(&format!("/ipfs/{}?format=raw", blocks[0].cid())).await.status, 200);
    // What is pinned and what is nowhere look the same.
    let absent = fixture.get("/ipfs/bafkreifgmwsfsiccf6ouc7sim7x5yt5yubfb6p77d6qh5gmoq337pit24m?format=raw").await;
    assert_eq!(absent.status, 404);
    let text = |answer: Answer| String::from_utf8(answer.body).unwrap();
    assert!(text(absent).ends_with("is not below any pin of this gateway\n"));
}

#[tokio::test]
async fn a_block_is_the_same_under_every_codec_and_version() {
    let (fixture, blocks) = Fixture::with_tree().await;
    let root = blocks.last().unwrap();
    for cid in [Cid::new_v0(*root.cid().hash()).unwrap(), Cid::new_v1(CODEC_RAW, *root.cid().hash())] {
        let answer = fixture.get(&format!("/ipfs/{cid}?format=raw")).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &root.data()[..]));
    }
}

#[tokio::test]
async fn what_is_not_served_is_said() {
    let (fixture, blocks) = Fixture::with_tree().await;
    let root = blocks.last().unwrap().cid();
    let check = async |head: &str, expected: u16| {
        let answer = fixture.ask(&format!("{} HTTP/1.1", head.replace("ROOT", &root.to_string()))).await;
        assert_eq!(answer.status, expected, "{head}");
        answer.check("content-type", "text/plain; charset=utf-8");
        answer.check("cache-control", "no-store");
        answer
    };
    let answer = check("GET /ipfs/ROOT", 406).await;
    assert!(String::from_utf8(answer.body).unwrap().starts_with("this is a trustless gateway"));
    check("POST /ipfs/ROOT?format=raw", 405).await.check("allow", "GET, HEAD");
    check("GET /ipfs/ROOT/none?format=car", 404).await;
    check("GET /ipfs/ROOT/sub/%C3%BC/x?format=car", 404).await;
    check("GET /ipfs/ROOT/sub?format=raw", 400).await;
    check("GET /ipfs/ROOT?format=car&entity-bytes=0:1", 501).await;
    check("GET /", 404).await;
}

#[tokio::test]
async fn heads_have_no_bodies() {
    let (fixture, blocks) = Fixture::with_tree().await;
    let root = blocks.last().unwrap();
    let answer = fixture.ask(&format!("HEAD /ipfs/{}?format=raw HTTP/1.1", root.cid())).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    answer.check("content-length", &root.data().len().to_string());
    let answer = fixture.ask(&format!("HEAD /ipfs/{}?format=car HTTP/1.1", root.cid())).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert!(!answer.headers.contains_key("content-length"), "{answer:?}");
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let (fixture, blocks) = Fixture::with_tree().await;
    let root = blocks.last().unwrap().cid();
    for target in [format!("/ipfs/{root}?format=raw"), format!("/ipfs/{root}?format=car")] {
        let etag = fixture.get(&target).await.headers["etag"].clone();
        for (known, status) in [(etag.as_str(), 304), (&format!("\"x\", {etag}"), 304), ("*", 304), ("\"x\"", 200)] {
            let answer = fixture.ask(&format!("GET {target} HTTP/1.1\r\nIf-None-Match: {known}")).await;
            assert_eq!((answer.status, answer.body.is_empty()), (status, status == 304), "{known}");
            answer.check("etag", &etag);
        }
    }
    let etag = async |rest: &str| fixture.get(&format!("/ipfs/{root}{rest}")).await.headers["etag"].clone();
    let mut etags = Vec::new();
    for rest in ["", "&dag-scope=block", "&dag-scope=entity", "&car-dups=y"] {
        etags.push(etag(&format!("?format=car{rest}")).await);
    }
    etags.push(etag("/sub?format=car").await);
    let count = etags.len();
    etags.sort();
    etags.dedup();
    assert_eq!(etags.len(), count, "{etags:?}");
}

#[tokio::test]
async fn only_if_cached_has_its_own_answer() {
    let fixture = Fixture::new(Limits::default()).await;
    let cid = tree()[0].cid().to_string();
    let answer = fixture.ask(&format!("GET /ipfs/{cid}?format=raw HTTP/1.1\r\nCache-Control: only-if-cached")).await;
    assert_eq!(answer.status, 412);
}

/// A block that was lost below a pin.
#[tokio::test]
async fn an_archive_with_a_gap_is_cut_off() {
    let fixture = Fixture::new(Limits::default()).await;
    let lost = Block::seal(Version::V1, CODEC_DAG_PB, Bytes::new()).unwrap();
    let mut blocks = Vec::new();
    let root = directory(&[("lost", Subtree { cid: *lost.cid(), dag_size: 0 })], &mut blocks).cid;
    fixture.put(&blocks);
    let contents = Contents { root, path: Vec::new(), end: root, scope: Scope::All, with_duplicates: false };
    let mut pieces = car::pieces(Arc::new(fixture.store.clone()), contents);
    let mut ended = Ok(());
    while let Some(piece) = pieces.recv().await {
        ended = piece.map(drop);
    }
    assert!(ended.unwrap_err().to_string().contains("is not here"));
}

#[tokio::test]
async fn clients_that_send_nothing_do_not_keep_others_out() {
    let limits = Limits { connections: 1, head: Duration::from_millis(100), ..Limits::default() };
    let fixture = Fixture::new(limits).await;
    let mut silent = TcpStream::connect(fixture.address).await.unwrap();
    silent.write_all(b"GET /ipfs/bafk").await.unwrap();
    // This one waits until there is room.
    assert_eq!(fixture.get("/ipfs/bafkqaaa?format=raw").await.status, 200);
}

#[tokio::test]
async fn clients_that_do_not_read_do_not_keep_others_out() {
    let limits = Limits { connections: 1, window: Duration::from_millis(100), ..Limits::default() };
    let fixture = Fixture::new(limits).await;
    let mut blocks = Vec::new();
    let chunk = |number: u8| Block::seal(Version::V1, CODEC_RAW, vec![number; 1 << 20].into()).unwrap();
    let chunks: Vec<_> = (0..32).map(chunk).collect();
    let names: Vec<_> = (0..32).map(|number| number.to_string()).collect();
    let entries: Vec<_> = names
        .iter()
        .zip(&chunks)
        .map(|(name, chunk)| (name.as_str(), Subtree { cid: *chunk.cid(), dag_size: 1 << 20 }))
        .collect();
    let root = directory(&entries, &mut blocks).cid;
    fixture.put(&[blocks, chunks].concat());
    fixture.pin(&root);
    let mut greedy = TcpStream::connect(fixture.address).await.unwrap();
    greedy.write_all(format!("GET /ipfs/{root}?format=car HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(fixture.get("/ipfs/bafkqaaa?format=raw").await.status, 200);
    let mut answer = Vec::new();
    // It gets an error or an end, and not all of it.
    let _ = greedy.read_to_end(&mut answer).await;
    assert!(answer.len() < 32 << 20, "{}", answer.len());
}

#[tokio::test]
async fn heads_of_requests_are_bounded() {
    let fixture = Fixture::new(Limits::default()).await;
    let long = "x".repeat(64 * 1024);
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    // The other side may have gone before all is written.
    let _ = stream.write_all(format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn it_stops_when_it_is_told() {
    let (mut fixture, blocks) = Fixture::with_tree().await;
    let mut idle = TcpStream::connect(fixture.address).await.unwrap();
    let head = format!("GET /ipfs/{}?format=raw HTTP/1.1\r\nHost: x\r\n\r\n", blocks[0].cid());
    idle.write_all(head.as_bytes()).await.unwrap();
    let mut byte = [0];
    idle.read_exact(&mut byte).await.unwrap();
    fixture.stop.take().unwrap().send(()).unwrap();
    fixture.ended.await.unwrap();
    assert!(TcpStream::connect(fixture.address).await.is_err());
    // What was being answered was answered.
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"aaaa"));
}
