//! The archives of ipfs/gateway-conformance, and what a gateway is to answer about them.
//!
//! The expectations are those of `tests/trustless_gateway_car_test.go` and `trustless_gateway_raw_test.go` there, as far as
//! they are about what is supported here: no DAG-CBOR, and no `entity-bytes`.

use std::collections::HashMap;
use std::fs;

use super::tests::Fixture;
use crate::dag::car::{Decoder, Item};
use crate::dag::suites::suite;
use crate::dag::unixfs::{self, Blocks, WalkError};
use crate::dag::{Block, Cid, Scope};
use crate::serve::Limits;

/// The blocks of an archive.
struct Archive {
    root: Cid,
    blocks: HashMap<Cid, Block>,
}

impl Blocks for Archive {
    type Error = WalkError;

    fn block(&self, cid: &Cid) -> Result<Block, WalkError> {
        Ok(self.blocks[cid].clone())
    }
}

impl Archive {
    /// The CID at the end of a path.
    fn at(&self, path: &str) -> Cid {
        unixfs::resolve(self, self.root, path).unwrap()
    }

    /// What a block links to, as often as it does.
    fn links(&self, cid: &Cid) -> Vec<Cid> {
        Scope::All.links(&self.blocks[cid]).unwrap()
    }
}

/// A gateway that has an archive of the suite, under a pin.
async fn serve(name: &str) -> Option<(Fixture, Archive)> {
    let path = suite("gateway-conformance")?.join("fixtures/trustless_gateway_car").join(name);
    let mut decoder = Decoder::new();
    decoder.push(&fs::read(path).unwrap());
    let (mut roots, mut blocks) = (Vec::new(), HashMap::new());
    while let Some(item) = decoder.next_item().unwrap() {
        match item {
            Item::Header(header) => roots = header.roots,
            Item::Section(section) => {
                let block = section.into_block().unwrap();
                blocks.insert(*block.cid(), block);
            }
        }
    }
    let archive = Archive { root: roots[0], blocks };
    let fixture = Fixture::new(Limits::default()).await;
    fixture.put(&archive.blocks.values().cloned().collect::<Vec<_>>());
    fixture.pin(&archive.root);
    Some((fixture, archive))
}

/// The blocks that an answer has, and its content type.
async fn get(fixture: &Fixture, target: &str, accept: &str) -> (Vec<Cid>, String) {
    let answer = fixture.ask(&format!("GET {target} HTTP/1.1\r\nAccept: {accept}")).await;
    assert_eq!(answer.status, 200, "{target}");
    (answer.blocks(), answer.headers["content-type"].clone())
}

#[tokio::test]
async fn paths_and_scopes() {
    let Some((fixture, archive)) = serve("subdir-with-two-single-block-files.car").await else { return };
    let (root, subdir, file) = (archive.root, archive.at("subdir"), archive.at("subdir/ascii.txt"));
    let check = async |rest: &str, expected: &[Cid]| {
        assert_eq!(get(&fixture, &format!("/ipfs/{root}{rest}"), "*/*").await.0, expected, "{rest}");
    };
    check("/subdir/ascii.txt?format=car", &[root, subdir, file]).await;
    check("/subdir?format=car&dag-scope=block", &[root, subdir]).await;
    check("/subdir/ascii.txt?format=car&dag-scope=block", &[root, subdir, file]).await;
    check("?format=car&dag-scope=entity", &[root]).await;
    let missing = fixture.ask(&format!("GET /ipfs/{root}/subdir/i-do-not-exist?format=car HTTP/1.1")).await;
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn files_of_several_blocks() {
    let Some((fixture, archive)) = serve("subdir-with-mixed-block-files.car").await else { return };
    let (root, subdir, file) = (archive.root, archive.at("subdir"), archive.at("subdir/multiblock.txt"));
    let expected = [vec![root, subdir, file], archive.links(&file)].concat();
    for scope in ["all", "entity"] {
        let target = format!("/ipfs/{root}/subdir/multiblock.txt?format=car&dag-scope={scope}");
        assert_eq!(get(&fixture, &target, "*/*").await.0, expected, "{scope}");
    }
}

#[tokio::test]
async fn entries_of_a_hamt() {
    let Some((fixture, archive)) = serve("single-layer-hamt-with-multi-block-files.car").await else { return };
    let root = archive.root;
    for scope in ["all", "block"] {
        let target = format!("/ipfs/{root}/685.txt?format=car&dag-scope={scope}");
        let (blocks, _) = get(&fixture, &target, "*/*").await;
        let file = archive.at("685.txt");
        let at = blocks.iter().position(|cid| *cid == file).unwrap();
        // Before it, only what leads there: each block links to the next.
        assert!(blocks[..=at].windows(2).all(|pair| archive.links(&pair[0]).contains(&pair[1])), "{scope}");
        assert_eq!(blocks[at + 1..], if scope == "all" { archive.links(&file) } else { Vec::new() });
        assert_eq!(blocks[0], root);
    }
    let (shards, _) = get(&fixture, &format!("/ipfs/{root}?format=car&dag-scope=entity"), "*/*").await;
    let in_shards = |cid: &Cid| Scope::Entity.links(&archive.blocks[cid]).unwrap();
    assert_eq!((shards[0], &shards[1..]), (root, &in_shards(&root)[..]));
}

#[tokio::test]
async fn duplicates_are_as_the_client_wants_them() {
    let Some((fixture, archive)) = serve("dir-with-duplicate-files.car").await else { return };
    let root = archive.root;
    let at = |path: &str| archive.at(path);
    let multiblock = archive.links(&at("multiblock.txt"));
    assert_eq!(multiblock[0].to_string(), "bafkreie5noke3mb7hqxukzcy73nl23k6lxszxi5w3dtmuwz62wnvkpsscm");
    let tail = [vec![at("hello.txt"), at("multiblock.txt")], multiblock].concat();
    let once = [vec![root, at("ascii.txt")], tail.clone()].concat();
    let twice = [vec![root, at("ascii-copy.txt"), at("ascii.txt")], tail].concat();
    for query in ["", "?format=car"] {
        let target = format!("/ipfs/{root}{query}");
        let (blocks, kind) = get(&fixture, &target, "application/vnd.ipld.car; version=1; order=dfs; dups=y").await;
        assert_eq!((blocks, kind.contains("order=dfs; dups=y")), (twice.clone(), true));
        let (blocks, kind) = get(&fixture, &target, "application/vnd.ipld.car; version=1; order=dfs; dups=n").await;
        assert_eq!((blocks, kind.contains("order=dfs; dups=n")), (once.clone(), true));
        let (blocks, kind) = get(&fixture, &target, "application/vnd.ipld.car; version=1; order=unk").await;
        assert_eq!((blocks.len(), kind.contains("order=")), (once.len(), true));
    }
    let identity = "/ipfs/bafkqaf3imvwgy3zaneqgc3janfxgy2lomvscay3jmqfa";
    let (blocks, kind) = get(&fixture, identity, "application/vnd.ipld.car; dups=y").await;
    assert!(blocks.is_empty() && kind.contains("dups=y"));
}
