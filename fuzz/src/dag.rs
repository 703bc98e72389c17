//! Codecs of blocks and archives.

use sha2::{Digest, Sha256};
use ww::dag::block::{self, CODEC_DAG_PB, CODEC_RAW};
use ww::dag::car::{self, Decoder, Header, Item, SECTION_BYTES_MAX, Section};
use ww::dag::pb::{self, LINKS_MAX};
use ww::dag::unixfs::{self, Data, Profile, ShardTarget};
use ww::dag::{Block, Version};
use ww::tree::StatCache;

/// A node that is read comes back when it is written and read again.
pub(crate) fn dag_pb(bytes: &[u8]) {
    let Ok(node) = pb::Node::decode(bytes) else { return };
    assert!(node.links.len() <= LINKS_MAX);
    let encoded = node.encode();
    assert_eq!(encoded.len(), node.encoded_len());
    assert_eq!(pb::Node::decode(&encoded).expect("it was just written"), node);
    if let Ok(block) = Block::seal(Version::V1, CODEC_DAG_PB, encoded.into()) {
        let links: Vec<_> = node.links.iter().map(|link| link.cid).collect();
        assert_eq!(pb::links(&block).expect("the node is valid"), links);
    }
}

/// The same for the message in a UnixFS node; and what the nodes promise that are made of it.
pub(crate) fn unixfs(bytes: &[u8]) {
    if let Ok(data) = Data::decode(bytes) {
        let encoded = data.encode();
        assert_eq!(encoded.len(), data.encoded_len());
        assert_eq!(Data::decode(&encoded).expect("it was just written"), data);
    }
    for codec in [CODEC_DAG_PB, CODEC_RAW, 0x71] {
        let Ok(block) = Block::seal(Version::V1, codec, bytes.to_vec().into()) else { return };
        match unixfs::Node::decode(&block) {
            Ok(unixfs::Node::File(file)) => {
                let children = file.children.iter().try_fold(0u64, |sum, child| sum.checked_add(child.size));
                assert_eq!(children.and_then(|sum| sum.checked_add(file.data.len() as u64)), Some(file.size));
            }
            Ok(unixfs::Node::Directory(entries)) => {
                let mut names: Vec<_> = entries.iter().map(|(name, _)| name.as_str()).collect();
                check_names(&names);
                names.sort_unstable();
                assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
            }
            Ok(unixfs::Node::Shard(shard)) => {
                assert!(shard.children.windows(2).all(|pair| pair[0].bucket < pair[1].bucket));
                for child in &shard.children {
                    if let ShardTarget::Entry(name, _) = &child.target {
                        check_names(&[name.as_str()]);
                    }
                }
            }
            Ok(unixfs::Node::Symlink(_)) | Err(_) => {}
        }
    }
}

/// Names lead one level down and nowhere else.
pub(crate) fn check_names(names: &[&str]) {
    for name in names {
        assert!(!["", ".", ".."].contains(name) && !name.contains(['/', '\0']), "{name:?}");
    }
}

/// An archive up to its end or its first error.
#[derive(Debug, PartialEq)]
struct Archive {
    header: Option<Header>,
    sections: Vec<Section>,
    end: Result<(), String>,
}

fn read(bytes: &[u8], piece_bytes: usize) -> Archive {
    let mut decoder = Decoder::new();
    let mut archive = Archive { header: None, sections: Vec::new(), end: Ok(()) };
    for piece in bytes.chunks(piece_bytes) {
        decoder.push(piece);
        loop {
            match decoder.next_item() {
                Ok(Some(Item::Header(header))) => assert!(archive.header.replace(header).is_none(), "two headers"),
                Ok(Some(Item::Section(section))) => archive.sections.push(section),
                Ok(None) => break,
                Err(error) => {
                    archive.end = Err(error.to_string());
                    return archive;
                }
            }
        }
    }
    archive.end = decoder.finish().map_err(|error| error.to_string());
    archive
}

/// It does not matter in which pieces an archive comes, data is where it is said to be, and what was read can be written.
pub(crate) fn car(bytes: &[u8]) {
    let archive = read(bytes, bytes.len().max(1));
    // The first byte is a part of the input like any other.
    let piece_bytes = 1 + usize::from(bytes.first().copied().unwrap_or(0)) % 64;
    assert_eq!(read(bytes, piece_bytes), archive);
    for section in &archive.sections {
        let at = usize::try_from(section.data_offset).expect("a place in the input");
        assert_eq!(bytes[at..][..section.data.len()], section.data);
        assert!(section.data.len() <= SECTION_BYTES_MAX);
        if let Ok(block) = section.clone().into_block() {
            assert_eq!((block.cid(), block.data()), (&section.cid, &section.data));
        }
    }
    let Some(header) = archive.header else { return };
    let mut written = car::encode_header(&header.roots);
    for section in &archive.sections {
        written.extend(car::encode_section_head(&section.cid, section.data.len()));
        written.extend(&section.data);
    }
    let again = read(&written, written.len());
    assert_eq!((again.header, again.end), (Some(header), Ok(())));
    let blocks =
        |sections: Vec<Section>| sections.into_iter().map(|section| (section.cid, section.data)).collect::<Vec<_>>();
    assert_eq!(blocks(again.sections), blocks(archive.sections));
    if let Ok((cid, rest)) = block::split_cid(bytes) {
        assert_eq!(block::parse_cid(&bytes[..bytes.len() - rest.len()]).expect("it was just read"), cid);
    }
}

/// A cache of stamps, with the checksum of what is in the input, which no fuzzer finds.
pub(crate) fn stat_cache(bytes: &[u8]) {
    let profile = Profile::default();
    let mut encoded = StatCache::new(&profile).encode();
    encoded.truncate(encoded.len() - 16);
    encoded.extend_from_slice(bytes);
    let checksum = Sha256::digest(&encoded);
    encoded.extend_from_slice(&checksum[..16]);
    let cache = StatCache::decode(&profile, &encoded.into());
    assert_eq!(StatCache::decode(&profile, &cache.encode().into()), cache);
    assert_eq!(StatCache::decode(&profile, &bytes.to_vec().into()).len(), 0);
}
