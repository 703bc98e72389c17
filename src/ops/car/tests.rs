use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::blockstore::{Blockstore, DiskBlockstore, GcOptions, MemoryBlockstore, Options, PinName, StoreError};
use crate::dag::block::{CODEC_DAG_PB, CODEC_RAW};
use crate::dag::car::{encode_header, encode_section_head};
use crate::dag::suites::suite;
use crate::dag::{Block, Cid, Version, pb};

/// The raw block "123" and its archive. From js-car's and go-car's tests of truncation, made with Kubo's `dag export`.
const CID: &str = "bafkreifgmwsfsiccf6ouc7sim7x5yt5yubfb6p77d6qh5gmoq337pit24m";
const ARCHIVE: &str = "3aa265726f6f747381d82a58250001551220a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae367\
    76657273696f6e012701551220a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3313233";

/// The length of the header of `ARCHIVE`.
const HEADER_BYTES: usize = 59;

fn archive() -> Vec<u8> {
    let digits: String = ARCHIVE.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn cid() -> Cid {
    CID.parse().unwrap()
}

fn import(store: &dyn Blockstore, archive: &[u8], pin: Option<&CarPin>) -> Result<CarImported, ImportCarError> {
    import_car(store, &mut &*archive, pin, &mut |_| {}, &|| false)
}

fn export(store: &dyn Blockstore, root: &Cid) -> Result<Vec<u8>, ExportCarError> {
    let mut archive = Vec::new();
    let exported = export_car(store, root, &mut archive, &|| false)?;
    assert_eq!(exported.bytes, archive.len() as u64);
    Ok(archive)
}

fn raw(data: &[u8]) -> Block {
    Block::seal(Version::V1, CODEC_RAW, Bytes::copy_from_slice(data)).unwrap()
}

fn node(links: &[Cid]) -> Block {
    let links = links.iter().map(|cid| pb::Link { cid: *cid, name: None, tsize: None }).collect();
    Block::seal(Version::V1, CODEC_DAG_PB, pb::Node { links, data: None }.encode().into()).unwrap()
}

fn car(roots: &[Cid], blocks: &[Block]) -> Vec<u8> {
    let mut archive = encode_header(roots);
    for block in blocks {
        archive.extend(encode_section_head(block.cid(), block.data().len()));
        archive.extend_from_slice(block.data());
    }
    archive
}

#[test]
fn an_archive_comes_back() {
    let store = MemoryBlockstore::new();
    let imported = import(&store, &archive(), Some(&CarPin::OfRoots)).unwrap();
    assert_eq!((imported.roots, imported.blocks, imported.new_blocks, imported.new_bytes), (vec![cid()], 1, 1, 3));
    assert_eq!(imported.pins[0].name.as_str(), CID);
    assert_eq!(export(&store, &cid()).unwrap(), archive());
    let again = import(&store, &archive(), Some(&CarPin::Name(PinName::new("x").unwrap()))).unwrap();
    assert_eq!((again.blocks, again.new_blocks), (1, 0));
    assert_eq!(store.pins().unwrap().len(), 2);
}

#[test]
fn truncated_archives_leave_nothing() {
    let archive = archive();
    for length in (0..archive.len()).filter(|length| *length != HEADER_BYTES) {
        let store = MemoryBlockstore::new();
        let error = import(&store, &archive[..length], Some(&CarPin::OfRoots)).unwrap_err();
        assert!(matches!(error, ImportCarError::Car(_)), "{length}: {error}");
        assert!(store.pins().unwrap().is_empty() && !store.has(&cid()).unwrap());
    }
    let store = MemoryBlockstore::new();
    let error = import(&store, &[&archive[..], &[0xa0]].concat(), None).unwrap_err();
    let ImportCarError::Car(error) = error else { panic!("{error}") };
    assert_eq!(error.to_string(), format!("truncated at byte 100, within what follows block {CID}"));
    assert!(!store.has(&cid()).unwrap());
}

#[test]
fn a_root_that_is_not_in_the_archive() {
    let store = MemoryBlockstore::new();
    let header = &archive()[..HEADER_BYTES];
    let error = import(&store, header, Some(&CarPin::OfRoots)).unwrap_err();
    let ImportCarError::Pin(error) = error else { panic!("{error}") };
    assert_eq!(error.to_string(), format!("{CID} is incomplete in the blockstore: {CID} is missing"));
    assert!(store.pins().unwrap().is_empty());
    let imported = import(&store, header, None).unwrap();
    assert!(matches!(&imported.incomplete[..], [(root, StoreError::Incomplete { .. })] if *root == cid()));
    // What the store has already counts.
    import(&store, &archive(), None).unwrap();
    assert!(import(&store, header, Some(&CarPin::OfRoots)).unwrap().incomplete.is_empty());
    assert_eq!(store.pins().unwrap().len(), 1);
}

#[test]
fn other_bytes_leave_nothing() {
    let other = raw(b"other");
    let mut archive = car(&[cid()], &[other.clone(), raw(b"123")]);
    *archive.last_mut().unwrap() += 1;
    let store = MemoryBlockstore::new();
    let error = import(&store, &archive, None).unwrap_err();
    let ImportCarError::Block(error) = error else { panic!("{error}") };
    assert_eq!(error.to_string(), format!("bytes do not match the hash in {CID}"));
    assert!(!store.has(&cid()).unwrap() && !store.has(other.cid()).unwrap());
}

#[test]
fn names_for_roots() {
    let blocks = [raw(b"one"), raw(b"two")];
    let roots = blocks.each_ref().map(|block| *block.cid());
    let named = CarPin::Name(PinName::new("name").unwrap());
    let store = MemoryBlockstore::new();
    let error = import(&store, &car(&roots, &blocks), Some(&named)).unwrap_err();
    assert!(matches!(error, ImportCarError::SeveralRoots { roots: 2 }));
    for pin in [&named, &CarPin::OfRoots] {
        assert!(matches!(import(&store, &car(&[], &blocks), Some(pin)), Err(ImportCarError::NoRoots)));
    }
    assert!(!store.has(&roots[0]).unwrap());
    import(&store, &car(&roots, &blocks), Some(&CarPin::OfRoots)).unwrap();
    assert_eq!(store.pins().unwrap().len(), 2);
}

#[test]
fn exports_go_depth_first_and_have_no_block_twice() {
    let store = MemoryBlockstore::new();
    let (one, two, three) = (raw(b"one"), raw(b"two"), raw(b"three"));
    let identity: Cid = "bafkqaaa".parse().unwrap();
    let left = node(&[*one.cid(), *two.cid(), *one.cid()]);
    let right = node(&[*two.cid(), *left.cid(), identity, *three.cid()]);
    let root = node(&[*left.cid(), *right.cid(), *left.cid()]);
    // A node that only an identity CID holds.
    let inline = Cid::new_v1(CODEC_DAG_PB, multihash::Multihash::wrap(0, node(&[*root.cid()]).data()).unwrap());
    let blocks = [root.clone(), left, one, two, right, three];
    import(&store, &car(&[], &blocks), None).unwrap();
    assert_eq!(export(&store, root.cid()).unwrap(), car(&[*root.cid()], &blocks));
    assert_eq!(export(&store, &inline).unwrap(), car(&[inline], &blocks));
    assert_eq!(export(&store, &identity).unwrap(), car(&[identity], &[]));
}

#[test]
fn what_is_incomplete_is_not_exported() {
    let store = MemoryBlockstore::new();
    let (one, two) = (raw(b"one"), raw(b"two"));
    let root = node(&[*one.cid(), *two.cid()]);
    import(&store, &car(&[], &[root.clone(), one]), None).unwrap();
    let mut archive = Vec::new();
    let error = export_car(&store, root.cid(), &mut archive, &|| false).unwrap_err();
    assert!(matches!(error, ExportCarError::Store(StoreError::Incomplete { missing, .. }) if missing == [*two.cid()]));
    assert!(archive.is_empty());
}

/// A DAG as deep as there are blocks, which nothing here may follow by recursion.
#[test]
fn deep_dags() {
    let store = MemoryBlockstore::new();
    let mut blocks = vec![raw(b"bottom")];
    for _ in 0..50_000 {
        blocks.push(node(&[*blocks.last().unwrap().cid()]));
    }
    let root = *blocks.last().unwrap().cid();
    import(&store, &car(&[root], &blocks), Some(&CarPin::OfRoots)).unwrap();
    blocks.reverse();
    assert!(export(&store, &root).unwrap() == car(&[root], &blocks));
}

fn archives(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(archives(&path)),
            false => found.extend(path.extension().is_some_and(|extension| extension == "car").then_some(path)),
        }
    }
    found.sort();
    found
}

/// Imports a file to a store on disk; gives what happened, as text.
fn import_file(store: &DiskBlockstore, path: &Path, pin: Option<&CarPin>) -> String {
    let text = |error: &dyn std::error::Error| match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    match import_car(store, &mut File::open(path).unwrap(), pin, &mut |_| {}, &|| false) {
        Ok(imported) => format!("{} roots, {} blocks", imported.roots.len(), imported.blocks),
        Err(error) => text(&error),
    }
}

/// The archives of go-car that are right, and what is wrong with the others.
#[test]
fn archives_of_go_car() {
    let Some(suite) = suite("go-car") else { return };
    let expected = [
        ("badheaderlength", "header of 216830324832 bytes is over the limit of 1048576"),
        ("badsectionlength", "section of 216830324832 bytes at byte 18 is over the limit of 2097408"),
        ("simple-unixfs-missing-blocks", "1 roots, 17 blocks"),
        ("simple-unixfs", "1 roots, 22 blocks"),
        ("wikipedia-cryptographic-hash-function", "1 roots, 5 blocks"),
        ("sample-corrupt-pragma", "truncated at byte 16, within the header or the first block"),
        ("sample-rootless-v42", "version 42 is not supported"),
        ("sample-rw-bs-v2", "3 roots, 3 blocks"),
        ("sample-unixfs-v2", "1 roots, 3 blocks"),
        // It has an empty section, too, but that comes later.
        (
            "sample-v1-with-zero-len-section2",
            "hash function blake2b-256 (0xb220) of bafykbzaceapvx4wxbe3bfc5neit43wl22pruy2ysk7wv763iuyyxcffj3te56 is not supported",
        ),
    ];
    let found = archives(&suite);
    let dir = tempfile::tempdir().unwrap();
    for path in &found {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let store = DiskBlockstore::open(&dir.path().join(name), Options::default()).unwrap();
        let expected = expected.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}")).1;
        assert_eq!(import_file(&store, path, None), expected, "{name}");
    }
    assert_eq!(found.len(), expected.len());
}

/// Every archive of gateway-conformance is taken; those whose DAG is whole come out again with the same blocks.
#[test]
fn archives_of_gateway_conformance() {
    let Some(suite) = suite("gateway-conformance") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut whole = 0;
    for (number, path) in archives(&suite).iter().enumerate() {
        let store = DiskBlockstore::open(&dir.path().join(number.to_string()), Options::default()).unwrap();
        let name = path.strip_prefix(&suite).unwrap().display();
        let imported = import_car(&store, &mut File::open(path).unwrap(), None, &mut |_| {}, &|| false).unwrap();
        let has_foreign_codec = |error: &StoreError| matches!(error, StoreError::UnknownCodec { .. });
        for (root, reason) in &imported.incomplete {
            // dag-cbor and dag-json, which UnixFS does not have, and a file that lacks blocks on purpose.
            let is_expected = has_foreign_codec(reason) || name.to_string().contains("missing-block");
            assert!(is_expected, "{name}: {root}: {reason}");
            assert!(export(&store, root).is_err());
        }
        let incomplete: BTreeSet<_> = imported.incomplete.iter().map(|(root, _)| *root).collect();
        for root in imported.roots.iter().filter(|root| !incomplete.contains(root)) {
            let other = MemoryBlockstore::new();
            let again = import(&other, &export(&store, root).unwrap(), Some(&CarPin::OfRoots)).unwrap();
            assert!(again.blocks <= imported.blocks);
            assert_eq!(other.gc(GcOptions::default()).unwrap().removed_blocks, 0);
            whole += 1;
        }
    }
    assert!(whole >= 18, "{whole}");
}

#[test]
fn who_is_told_to_stop_stops() {
    let store = MemoryBlockstore::new();
    let stopped = import_car(&store, &mut &*archive(), None, &mut |_| {}, &|| true);
    assert!(matches!(stopped, Err(ImportCarError::Store(StoreError::Cancelled))));
    assert!(!store.has(&cid()).unwrap());
    import(&store, &archive(), None).unwrap();
    let stopped = export_car(&store, &cid(), &mut Vec::new(), &|| true);
    assert!(matches!(stopped, Err(ExportCarError::Store(StoreError::Cancelled))));
}
