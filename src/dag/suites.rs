//! Blocks and archives that other projects test with: ipld/codec-fixtures, ipld/go-car and ipfs/gateway-conformance.
//!
//! They are not part of this repository. The variable `WW_SUITES` names a folder with one folder for each of them, named
//! `codec-fixtures`, `go-car` and `gateway-conformance`; without it the tests only say that they were skipped, or fail where
//! the word `suites` in `WW_REQUIRE` asks for them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bytes::Bytes;
use serde_json::Value;

use super::block::{Block, Cid};
use super::car::{CarError, Decoder, Header, Item, Section};
use super::pb::{Link, Node};
use super::testing::{hex, skipped, variable};
use super::unixfs::{self, Blocks, WalkError};

/// The folder of a suite, if it is there to be tested with.
pub(crate) fn suite(name: &str) -> Option<PathBuf> {
    let folder = variable("WW_SUITES");
    if folder.is_none() {
        skipped("suites", &format!("WW_SUITES does not name the folder with {name}"));
    }
    folder.map(|folder| Path::new(&folder).join(name))
}

/// All files below a folder with this extension.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A node as DAG-JSON has it.
fn to_dag_json(node: &Node<'_>) -> Value {
    let link = |link: &Link<'_>| {
        let mut object = serde_json::json!({"Hash": {"/": link.cid.to_string()}});
        object.as_object_mut().unwrap().extend(link.name.map(|name| ("Name".to_owned(), name.into())));
        object.as_object_mut().unwrap().extend(link.tsize.map(|tsize| ("Tsize".to_owned(), tsize.into())));
        object
    };
    let mut object = serde_json::json!({"Links": node.links.iter().map(link).collect::<Vec<_>>()});
    if let Some(data) = node.data {
        object["Data"] = serde_json::json!({"/": {"bytes": BASE64_STANDARD_NO_PAD.encode(data)}});
    }
    object
}

#[test]
fn nodes_of_the_codec_fixtures() {
    let Some(suite) = suite("codec-fixtures") else { return };
    let nodes = files(&suite.join("fixtures"), "dag-pb");
    assert!(nodes.len() >= 17);
    for path in nodes {
        let cid: Cid = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let block = Block::new(cid, fs::read(&path).unwrap().into()).unwrap();
        let node = Node::decode(block.data()).unwrap();
        assert_eq!(node.encode(), &block.data()[..], "{}", path.display());
        let expected = json(&files(path.parent().unwrap(), "dag-json")[0]);
        assert_eq!(to_dag_json(&node), expected, "{}", path.display());
    }
}

#[test]
fn negative_codec_fixtures_are_refused() {
    let Some(suite) = suite("codec-fixtures") else { return };
    let fixtures = json(&suite.join("negative-fixtures/dag-pb/decode/edges.json"));
    for fixture in fixtures.as_array().unwrap() {
        let bytes = hex(fixture["hex"].as_str().unwrap());
        assert!(Node::decode(&bytes).is_err(), "{fixture}");
    }
}

/// What an archive holds up to its end or the first error.
struct Archive {
    header: Option<Header>,
    sections: Vec<Section>,
    end: Result<(), CarError>,
}

fn read(archive: &[u8]) -> Archive {
    let mut decoder = Decoder::new();
    decoder.push(archive);
    let (mut header, mut sections) = (None, Vec::new());
    let end = loop {
        match decoder.next_item() {
            Ok(Some(Item::Header(found))) => header = Some(found),
            Ok(Some(Item::Section(section))) => sections.push(section),
            Ok(None) => break decoder.finish(),
            Err(error) => break Err(error),
        }
    };
    Archive { header, sections, end }
}

#[test]
fn archives_of_go_car() {
    let Some(suite) = suite("go-car") else { return };
    let check = |path: &str, roots: usize, sections: usize, end: &str| {
        let archive = read(&fs::read(suite.join(path)).unwrap());
        assert_eq!(archive.header.map_or(0, |header| header.roots.len()), roots, "{path}");
        assert_eq!(archive.sections.len(), sections, "{path}");
        assert_eq!(archive.end.map_or_else(|error| error.to_string(), |()| "whole".to_owned()), end, "{path}");
    };
    check("v2/testdata/sample-unixfs-v2.car", 1, 3, "whole");
    check("v2/testdata/sample-rw-bs-v2.car", 3, 3, "whole");
    check("v2/testdata/sample-v1-with-zero-len-section2.car", 1, 20, "empty section at byte 20819");
    check("v2/testdata/sample-rootless-v42.car", 0, 0, "version 42 is not supported");
    let truncated = "truncated at byte 16, within the header or the first block";
    check("v2/testdata/sample-corrupt-pragma.car", 0, 0, truncated);
    let inputs = "cmd/car/testdata/inputs";
    check(&format!("{inputs}/simple-unixfs.car"), 1, 22, "whole");
    check(&format!("{inputs}/simple-unixfs-missing-blocks.car"), 1, 17, "whole");
    check(&format!("{inputs}/wikipedia-cryptographic-hash-function.car"), 1, 5, "whole");
    let header = "header of 216830324832 bytes is over the limit of 1048576";
    check(&format!("{inputs}/badheaderlength.car"), 0, 0, header);
    let section = "section of 216830324832 bytes at byte 18 is over the limit of 2097408";
    check(&format!("{inputs}/badsectionlength.car"), 0, 0, section);
}

/// The inputs that go-car's fuzzers found, in the format of Go: `[]byte("…")` on the second line.
#[test]
fn fuzzer_inputs_of_go_car_do_no_harm() {
    let Some(suite) = suite("go-car") else { return };
    let mut count = 0;
    for dir in ["testdata/fuzz/FuzzCarReader", "v2/testdata/fuzz/FuzzReader", "v2/testdata/fuzz/FuzzBlockReader"] {
        for entry in fs::read_dir(suite.join(dir)).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            let literal = text.lines().nth(1).unwrap();
            let literal = literal.strip_prefix("[]byte(\"").unwrap().strip_suffix("\")").unwrap();
            for section in read(&unescape(literal)).sections {
                let _ = section.into_block();
            }
            count += 1;
        }
    }
    assert!(count >= 6);
}

/// The bytes of a Go string literal.
fn unescape(literal: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = literal.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let code = rest[0];
        rest = &rest[1..];
        let escaped = b"abtnvfr".iter().position(|known| *known == code);
        match (code, escaped) {
            (b'x', _) => {
                bytes.extend(hex(std::str::from_utf8(&rest[..2]).unwrap()));
                rest = &rest[2..];
            }
            (b'u', _) => {
                let number = hex(std::str::from_utf8(&rest[..4]).unwrap());
                let character = char::from_u32(u32::from_be_bytes([0, 0, number[0], number[1]])).unwrap();
                bytes.extend(character.to_string().bytes());
                rest = &rest[4..];
            }
            (_, Some(index)) => bytes.push([7, 8, 9, 10, 11, 12, 13][index]),
            _ => bytes.push(code),
        }
    }
    bytes
}

#[derive(Debug)]
enum TreeError {
    Walk(WalkError),
    Missing(Box<Cid>),
}

impl From<WalkError> for TreeError {
    fn from(error: WalkError) -> Self {
        Self::Walk(error)
    }
}

struct Memory(HashMap<Cid, Block>);

impl Blocks for Memory {
    type Error = TreeError;

    fn block(&self, cid: &Cid) -> Result<Block, TreeError> {
        self.0.get(cid).cloned().ok_or(TreeError::Missing(Box::new(*cid)))
    }
}

/// The tree below a CID: the number of its files, directories and links, and the length of all files.
fn measure(memory: &Memory, root: Cid) -> Result<(usize, usize), TreeError> {
    let (mut nodes, mut content_bytes) = (0, 0);
    let mut pending = vec![root];
    while let Some(cid) = pending.pop() {
        nodes += 1;
        let block = Block::from_identity(&cid).map_or_else(|| memory.block(&cid), Ok)?;
        let node = unixfs::Node::decode(&block);
        match node.map_err(|source| WalkError::Node { cid: Box::new(cid), source })? {
            unixfs::Node::File(_) => unixfs::read_file(memory, cid, &mut |piece: Bytes| {
                content_bytes += piece.len();
                Ok(())
            })?,
            unixfs::Node::Symlink(_) => {}
            unixfs::Node::Directory(_) | unixfs::Node::Shard(_) => unixfs::list(memory, cid, &mut |entry| {
                pending.push(entry.target.cid);
                Ok(())
            })?,
        }
    }
    Ok((nodes, content_bytes))
}

#[test]
fn trees_of_gateway_conformance() {
    let Some(suite) = suite("gateway-conformance") else { return };
    let check = |path: &str, expected: &str| {
        let archive = read(&fs::read(suite.join("fixtures").join(path)).unwrap());
        archive.end.unwrap();
        let blocks = archive.sections.into_iter().map(|section| (section.cid, section.into_block().unwrap()));
        let memory = Memory(blocks.collect());
        let found = match measure(&memory, archive.header.unwrap().roots[0]) {
            Ok((nodes, content_bytes)) => format!("{nodes} nodes, {content_bytes} bytes"),
            Err(TreeError::Missing(cid)) => format!("{cid} is missing"),
            Err(TreeError::Walk(WalkError::Node { source, .. })) => source.to_string(),
            Err(TreeError::Walk(error)) => error.to_string(),
        };
        assert_eq!(found, expected, "{path}");
    };
    check("gateway-cache/fixtures.car", "5 nodes, 6 bytes");
    check("subdomain_gateway/fixtures.car", "13 nodes, 80 bytes");
    check("redirects_file/redirects.car", "34 nodes, 66199 bytes");
    check("gateway-raw-block.car", "3 nodes, 31 bytes");
    check("path_gateway_dag/gateway-json-cbor.car", "11 nodes, 187 bytes");
    check("path_gateway_unixfs/dir-with-files.car", "5 nodes, 1100 bytes");
    check("path_gateway_unixfs/dir-with-percent-encoded-filename.car", "2 nodes, 38 bytes");
    check("path_gateway_unixfs/symlink.car", "3 nodes, 8 bytes");
    check("dir_listing/fixtures.car", "10 nodes, 150 bytes");
    let trustless = "trustless_gateway_car";
    check(&format!("{trustless}/single-layer-hamt-with-multi-block-files.car"), "1001 nodes, 1026000 bytes");
    check(&format!("{trustless}/subdir-with-mixed-block-files.car"), "5 nodes, 1069 bytes");
    check(&format!("{trustless}/dir-with-dag-cbor-with-links.car"), "codec 0x71 is neither raw nor dag-pb");
    let missing = "QmSNLTo6Wv9dfroVaw7MFYjLqf9ho7PKrgsjdzYDtv8h1W is missing";
    check(&format!("{trustless}/file-3k-and-3-blocks-missing-block.car"), missing);
    // Both have names with slashes; a gateway may serve the first as tar, since its names stay inside.
    check("path_gateway_tar/inside-root.car", "entry with a bad name");
    check("path_gateway_tar/outside-root.car", "entry with a bad name");
}

#[test]
fn archives_of_gateway_conformance_are_whole() {
    let Some(suite) = suite("gateway-conformance") else { return };
    let archives = files(&suite, "car");
    assert!(archives.len() >= 25);
    for path in archives {
        let archive = read(&fs::read(&path).unwrap());
        archive.end.unwrap();
        for section in archive.sections {
            section.into_block().unwrap();
        }
    }
}
