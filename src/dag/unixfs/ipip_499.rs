//! The test vectors of IPIP-499, 14 CIDs: <https://specs.ipfs.tech/ipips/ipip-0499/#test-fixtures>.
//!
//! They were made by Kubo's `test/cli/cid_profiles_test.go` out of a ChaCha20 key stream, whose key is the SHA2-256 of a
//! seed and whose nonce is zero.

use bytes::Bytes;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use sha2::{Digest, Sha256};

use super::{BuildError, Entry, EntryName, FileBuilder, Profile, directory, leaf};
use crate::dag::Block;
use crate::dag::testing::is_slow_wanted;

const V2015: Profile = Profile::UNIXFS_V0_2015;
const V2025: Profile = Profile::UNIXFS_V1_2025;

/// What names are made of, with two zeros as in Kubo's `AlphabetEasy`.
const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz01234567890-_";

struct KeyStream(ChaCha20);

impl KeyStream {
    fn new(seed: &str) -> Self {
        Self(ChaCha20::new(&<[u8; 32]>::from(Sha256::digest(seed)).into(), &[0; 12].into()))
    }

    fn next(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.apply_keystream(&mut bytes);
        bytes
    }

    fn name(&mut self, length: usize) -> String {
        self.next(length).iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
    }
}

fn ignore(_: Block) -> Result<(), BuildError> {
    Ok(())
}

/// Checks the file of this many bytes, and the one that is a byte longer. They have all blocks but the last in common.
fn check_files(profile: &Profile, seed: &str, size: usize, expected: [&str; 2]) {
    let mut stream = KeyStream::new(seed);
    let (mut shorter, mut longer) = (FileBuilder::new(*profile), FileBuilder::new(*profile));
    for _ in 0..size / profile.chunk_bytes {
        let (_, part) = leaf(profile, Bytes::from(stream.next(profile.chunk_bytes))).unwrap();
        shorter.push_leaf(part, &mut ignore).unwrap();
        longer.push_leaf(part, &mut ignore).unwrap();
    }
    longer.push(Bytes::from(stream.next(1)), &mut ignore).unwrap();
    let roots = [shorter, longer].map(|builder| builder.finish(&mut ignore).unwrap().subtree().cid.to_string());
    assert_eq!(roots, expected, "{profile}");
}

/// Checks a directory of this many files with one byte each; the last has a name of another length.
fn check_directory(profile: &Profile, count: usize, name_bytes: usize, last_name_bytes: usize, expected: &str) {
    let mut stream = KeyStream::new(&format!("hamt-{profile}"));
    let (_, file) = leaf(profile, Bytes::from_static(b"x")).unwrap();
    let lengths = std::iter::repeat_n(name_bytes, count - 1).chain([last_name_bytes]);
    let entries =
        lengths.map(|length| Entry { name: EntryName::new(stream.name(length)).unwrap(), target: file.subtree() });
    let root = directory(profile, entries.collect(), &mut ignore).unwrap();
    assert_eq!(root.cid.to_string(), expected, "{profile}");
}

#[test]
fn small_files() {
    let check = |profile, expected| {
        let (block, _) = leaf(&profile, Bytes::from_static(b"hello world")).unwrap();
        assert_eq!(block.cid().to_string(), expected);
    };
    check(V2015, "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD");
    check(V2025, "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e");
}

#[test]
fn files_at_and_over_the_size_of_a_chunk() {
    let v2015 = ["QmWmRj3dFDZdb6ABvbmKhEL6TmPbAfBZ1t5BxsEyJrcZhE", "QmYyLxtzZyW22zpoVAtKANLRHpDjZtNeDjQdJrcQNWoRkJ"];
    check_files(&V2015, "chunk-v0-seed", 262_144, v2015);
    let v2025 = [
        "bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta",
        "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64",
    ];
    check_files(&V2025, "chunk-v1-seed", 1_048_576, v2025);
}

#[test]
fn files_at_and_over_the_links_of_a_node() {
    let v2015 = ["QmUbBALi174SnogsUzLpYbD4xPiBSFANF4iztWCsHbMKh2", "QmV81WL765sC8DXsRhE5fJv2rwhS4icHRaf3J9Zk5FdRnW"];
    check_files(&V2015, "v0-seed", 174 * 262_144, v2015);
}

#[test]
fn files_of_a_gibibyte() {
    if !is_slow_wanted() {
        return;
    }
    let v2025 = [
        "bafybeihmf37wcuvtx4hpu7he5zl5qaf2ineo2lqlfrapokkm5zzw7zyhvm",
        "bafybeibdsi225ugbkmpbdohnxioyab6jsqrmkts3twhpvfnzp77xtzpyhe",
    ];
    check_files(&V2025, "v1-2025-seed", 1024 * 1_048_576, v2025);
}

#[test]
fn directories_at_and_over_the_threshold() {
    check_directory(&V2015, 4096, 30, 30, "QmX5GtRk3TSSEHtdrykgqm4eqMEn3n2XhfkFAis5fjyZmN");
    check_directory(&V2015, 4033, 31, 31, "QmeMiJzmhpJAUgynAcxTQYek5PPKgdv3qEvFsdV3XpVnvP");
    check_directory(&V2025, 4766, 11, 21, "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4");
    check_directory(&V2025, 4766, 11, 22, "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu");
}
