//! Blocks and archives that other projects test with: ipld/codec-fixtures, ipld/go-car and ipfs/gateway-conformance.
//!
//! They are not part of this repository. The variable `WW_SUITES` names a folder with one folder for each of them, named
//! `codec-fixtures`, `go-car` and `gateway-conformance`; without it the tests only say that they were skipped, or fail where
//! the word `suites` in `WW_REQUIRE` asks for them.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bytes::Bytes;
use serde_json::Value;

use super::block::{Block, Cid};
use super::car::{CarError, Decoder, Header, Item, Section, encode_header, encode_section_head};
use super::pb::{self, Link, Node};
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

/// Blocks of all codecs are checked against their names; those that are not dag-pb cannot be followed.
#[test]
fn blocks_of_the_codec_fixtures() {
    let Some(suite) = suite("codec-fixtures") else { return };
    for (extension, codec) in [("dag-pb", 0x70), ("dag-cbor", 0x71), ("dag-json", 0x129)] {
        let paths = files(&suite.join("fixtures"), extension);
        assert!(paths.len() >= 17);
        for path in paths {
            let cid: Cid = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            let mut data = fs::read(&path).unwrap();
            let block = Block::new(cid, data.clone().into()).unwrap();
            match pb::links(&block) {
                Ok(_) => assert_eq!(codec, 0x70, "{}", path.display()),
                Err(error) => assert_eq!(error.to_string(), format!("codec 0x{codec:x} is neither raw nor dag-pb")),
            }
            data.push(0);
            assert!(Block::new(cid, data.into()).is_err(), "{}", path.display());
        }
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
    assert_eq!(files(&suite, "car").len(), 10, "an archive is not looked at");
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

/// What there is to say of an archive's roots.
fn describe(archive: Archive) -> String {
    let sections = archive.sections.into_iter();
    // CIDs of other hash functions cannot be checked, so these blocks are as good as missing.
    let blocks = sections.filter_map(|section| Some((section.cid, section.into_block().ok()?)));
    let memory = Memory(blocks.collect());
    let roots = archive.header.unwrap().roots;
    let measured = roots.into_iter().map(|root| match measure(&memory, root) {
        Ok((nodes, content_bytes)) => format!("{nodes} nodes, {content_bytes} bytes"),
        Err(TreeError::Missing(cid)) => format!("{cid} is missing"),
        Err(TreeError::Walk(WalkError::Node { source, .. })) => source.to_string(),
        Err(TreeError::Walk(error)) => error.to_string(),
    });
    measured.collect::<Vec<_>>().join("; ")
}

/// All archives with what is in them. `inside-root.car` and `outside-root.car` have names with slashes, of which some try to
/// leave the folder.
const GATEWAY_CONFORMANCE: &str = "\
dir_listing/fixtures.car: 10 nodes, 150 bytes
gateway-cache/fixtures.car: 5 nodes, 6 bytes
gateway-raw-block.car: 3 nodes, 31 bytes
path_gateway_dag/dag-cbor-traversal.car: codec 0x71 is neither raw nor dag-pb
path_gateway_dag/dag-json-traversal.car: codec 0x129 is neither raw nor dag-pb
path_gateway_dag/dag-pb.car: 4 nodes, 27 bytes
path_gateway_dag/gateway-json-cbor.car: 11 nodes, 187 bytes
path_gateway_dag/plain-cbor-that-can-be-dag-cbor.car: codec 0x51 is neither raw nor dag-pb
path_gateway_dag/plain-cbor-that-can-be-dag-json.car: codec 0x200 is neither raw nor dag-pb
path_gateway_dag/plain-cbor.car: codec 0x51 is neither raw nor dag-pb
path_gateway_dag/plain-json.car: codec 0x200 is neither raw nor dag-pb
path_gateway_tar/fixtures.car: 10 nodes, 150 bytes
path_gateway_tar/inside-root.car: entry with a bad name
path_gateway_tar/outside-root.car: entry with a bad name
path_gateway_unixfs/dir-with-files.car: 5 nodes, 1100 bytes
path_gateway_unixfs/dir-with-percent-encoded-filename.car: 2 nodes, 38 bytes
path_gateway_unixfs/symlink.car: 3 nodes, 8 bytes
redirects_file/redirects-spa.car: 3 nodes, 77 bytes
redirects_file/redirects.car: 34 nodes, 66199 bytes
subdomain_gateway/fixtures.car: 13 nodes, 80 bytes
trustless_gateway_car/dir-with-dag-cbor-with-links.car: codec 0x71 is neither raw nor dag-pb
trustless_gateway_car/dir-with-duplicate-files.car: 5 nodes, 1100 bytes
trustless_gateway_car/file-3k-and-3-blocks-missing-block.car: QmSNLTo6Wv9dfroVaw7MFYjLqf9ho7PKrgsjdzYDtv8h1W is missing
trustless_gateway_car/single-layer-hamt-with-multi-block-files.car: 1001 nodes, 1026000 bytes
trustless_gateway_car/subdir-with-mixed-block-files.car: 5 nodes, 1069 bytes
trustless_gateway_car/subdir-with-two-single-block-files.car: 4 nodes, 43 bytes
";

#[test]
fn trees_of_gateway_conformance() {
    let Some(suite) = suite("gateway-conformance") else { return };
    let fixtures = suite.join("fixtures");
    let mut found = String::new();
    for path in files(&fixtures, "car") {
        let archive = read(&fs::read(&path).unwrap());
        assert!(archive.end.is_ok(), "{}: {:?}", path.display(), archive.end);
        let name = path.strip_prefix(&fixtures).unwrap().display().to_string();
        writeln!(found, "{name}: {}", describe(archive)).unwrap();
    }
    assert_eq!(found, GATEWAY_CONFORMANCE, "\n{found}");
}

#[test]
fn trees_of_go_car() {
    let Some(suite) = suite("go-car") else { return };
    let find = |path: &str| describe(read(&fs::read(suite.join(path)).unwrap()));
    let inputs = "cmd/car/testdata/inputs";
    assert_eq!(find(&format!("{inputs}/simple-unixfs.car")), "22 nodes, 36 bytes");
    // Parts of a DAG.
    for name in ["simple-unixfs-missing-blocks", "wikipedia-cryptographic-hash-function"] {
        let found = find(&format!("{inputs}/{name}.car"));
        assert!(found.ends_with(" is missing"), "{name}: {found}");
    }
    assert_eq!(find("v2/testdata/sample-unixfs-v2.car"), "3 nodes, 12 bytes");
}

/// What is read from an archive and written again is the same archive, to the byte.
#[test]
fn archives_of_the_suites_come_back() {
    let Some(gateway) = suite("gateway-conformance") else { return };
    let Some(go_car) = suite("go-car") else { return };
    let (mut count, mut whole) = (0, 0);
    for path in files(&gateway, "car").into_iter().chain(files(&go_car, "car")) {
        let bytes = fs::read(&path).unwrap();
        let archive = read(&bytes);
        count += 1;
        // What is damaged is looked at elsewhere, and version 2 is never written.
        if archive.end.is_err() || bytes.starts_with(b"\x0a\xa1\x67version\x02") {
            continue;
        }
        let mut written = encode_header(&archive.header.unwrap().roots);
        for section in &archive.sections {
            written.extend(encode_section_head(&section.cid, section.data.len()));
            written.extend(&section.data);
        }
        assert!(written == bytes, "{}", path.display());
        whole += 1;
    }
    assert!(count >= 35 && whole >= 28, "{count} archives, {whole} of them whole");
}

/// Every bit of a block counts.
#[test]
fn damaged_archives_of_the_suites_are_noticed() {
    let Some(suite) = suite("gateway-conformance") else { return };
    for path in files(&suite, "car") {
        for section in read(&fs::read(&path).unwrap()).sections {
            // Its CID holds the content of a block of this kind.
            let Some(last) = section.data.len().checked_sub(1) else { continue };
            for place in [0, last / 2, last] {
                let mut data = section.data.to_vec();
                data[place] ^= 1 << (place % 8);
                let damaged = Section { data: data.into(), ..section.clone() };
                assert!(damaged.into_block().is_err(), "{}", path.display());
            }
        }
    }
}
