//! How fast the codecs are: `cargo bench --no-default-features --bench codecs`.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ww::dag::car::{self, Decoder, Item};
use ww::dag::unixfs::{self, BuildError, Data, Entry, EntryName, Kind, Profile, Subtree};
use ww::dag::{Block, pb};

/// Bytes that repeat themselves nowhere near.
fn content(length: usize) -> Bytes {
    (0..length as u64).map(|index| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn ignore(_: Block) -> Result<(), BuildError> {
    Ok(())
}

fn leaves(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("leaf");
    for profile in [Profile::UNIXFS_V1_2025, Profile::UNIXFS_V0_2015] {
        let chunk = content(profile.chunk_bytes);
        group.throughput(Throughput::Bytes(chunk.len() as u64));
        group.bench_function(profile.name, |bencher| {
            bencher.iter(|| unixfs::leaf(&profile, black_box(chunk.clone())).expect("a chunk fits"));
        });
    }
    group.finish();
}

/// Entries of one byte each.
fn entries(count: usize) -> Vec<Entry> {
    let (_, file) = unixfs::leaf(&Profile::default(), Bytes::from_static(b"x")).expect("a byte fits");
    let name = |index| EntryName::new(format!("entry {index}.wasm")).expect("a good name");
    (0..count).map(|index| Entry { name: name(index), target: file.subtree() }).collect()
}

/// The largest node of a file: 1,024 links.
fn nodes(criterion: &mut Criterion) {
    let Subtree { cid, .. } = entries(1)[0].target;
    let link = pb::Link { cid, name: Some(""), tsize: Some(1 << 20) };
    let data = Data { block_sizes: vec![1 << 20; 1024], file_size: Some(1 << 30), ..Data::new(Kind::File) };
    let message = data.encode();
    let node = pb::Node { links: vec![link; 1024], data: Some(&message) };
    let bytes = node.encode();
    let block = Block::seal(ww::dag::Version::V1, 0x70, bytes.clone().into()).expect("it fits");

    let mut group = criterion.benchmark_group("dag-pb of 1,024 links");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| black_box(&node).encode()));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| drop(pb::Node::decode(black_box(&bytes)).expect("it is valid")));
    });
    group.bench_function("decode as UnixFS", |bencher| {
        bencher.iter(|| drop(unixfs::Node::decode(black_box(&block)).expect("it is valid")));
    });
    group.finish();
}

fn directories(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("directory");
    group.sample_size(20);
    for (name, count) in [("flat, 1,000 entries", 1_000), ("HAMT, 100,000 entries", 100_000)] {
        let entries = entries(count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || entries.clone(),
                |entries| unixfs::directory(&Profile::default(), entries, &mut ignore).expect("names differ"),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// An archive of blocks of this length, 16 MiB together, that comes in pieces of 64 KiB.
fn archives(criterion: &mut Criterion) {
    const ARCHIVE_BYTES: usize = 16 << 20;
    let mut group = criterion.benchmark_group("CAR");
    group.sample_size(20);
    for (name, block_bytes) in [("blocks of 256 KiB", 256 << 10), ("blocks of 1 KiB", 1 << 10)] {
        let mut archive = car::encode_header(&[]);
        for chunk in content(ARCHIVE_BYTES).chunks(block_bytes) {
            let (block, _) = unixfs::leaf(&Profile::default(), Bytes::copy_from_slice(chunk)).expect("it fits");
            archive.extend(car::encode_section_head(block.cid(), block.data().len()));
            archive.extend(block.data());
        }
        group.throughput(Throughput::Bytes(archive.len() as u64));
        group.bench_function(format!("{name}, decode"), |bencher| bencher.iter(|| read(&archive, drop)));
        group.bench_function(format!("{name}, decode and verify"), |bencher| {
            bencher.iter(|| read(&archive, |section| drop(section.into_block().expect("it matches"))));
        });
    }
    group.finish();
}

fn read(archive: &[u8], mut take: impl FnMut(car::Section)) {
    let mut decoder = Decoder::new();
    for piece in archive.chunks(64 << 10) {
        decoder.push(piece);
        while let Some(item) = decoder.next_item().expect("it is whole") {
            if let Item::Section(section) = item {
                take(section);
            }
        }
    }
    decoder.finish().expect("it is whole");
}

criterion_group!(codecs, leaves, nodes, directories, archives);
criterion_main!(codecs);
