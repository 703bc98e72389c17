//! Trees, built and read again. The CIDs were printed by Kubo 0.43.1; `ipfs add` stands for `ipfs add -r -H -Q`, with
//! `--cid-version=1` for `kubo-cidv1`, and after `ipfs config profile apply unixfs-v1-2025` for that profile.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::Version;
use super::*;
use crate::dag::BLOCK_BYTES_MAX;
use crate::dag::testing::mutate;

const V2025: Profile = Profile::UNIXFS_V1_2025;
const V2015: Profile = Profile::UNIXFS_V0_2015;
const CIDV1: Profile = Profile::KUBO_CIDV1;

#[derive(Debug)]
enum TestError {
    Build(BuildError),
    Walk(WalkError),
    Missing(Box<Cid>),
}

impl From<BuildError> for TestError {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl From<WalkError> for TestError {
    fn from(error: WalkError) -> Self {
        Self::Walk(error)
    }
}

/// Blocks in memory, which counts how many were read.
#[derive(Default)]
struct Memory {
    blocks: HashMap<Cid, Block>,
    reads: Cell<usize>,
}

impl Blocks for Memory {
    type Error = TestError;

    fn block(&self, cid: &Cid) -> Result<Block, TestError> {
        self.reads.set(self.reads.get() + 1);
        self.blocks.get(cid).cloned().ok_or(TestError::Missing(Box::new(*cid)))
    }
}

impl Memory {
    fn put(&mut self, block: Block) {
        self.blocks.insert(*block.cid(), block);
    }

    /// A node that no builder makes.
    fn put_node(&mut self, links: Vec<pb::Link<'_>>, data: &Data<'_>) -> Cid {
        let (block, subtree) = seal(&V2025, links, data).unwrap();
        self.put(block);
        subtree.cid
    }

    fn file(&mut self, profile: &Profile, content: &[u8]) -> Subtree {
        self.file_of_chunks(profile, content.chunks(profile.chunk_bytes).map(Bytes::copy_from_slice))
    }

    fn file_of_chunks(&mut self, profile: &Profile, chunks: impl Iterator<Item = Bytes>) -> Subtree {
        let mut sink = |block| {
            self.put(block);
            Ok::<_, TestError>(())
        };
        let mut builder = FileBuilder::new(*profile);
        chunks.for_each(|chunk| builder.push(chunk, &mut sink).unwrap());
        builder.finish(&mut sink).unwrap().subtree()
    }

    fn directory(&mut self, profile: &Profile, entries: Vec<Entry>) -> Result<Subtree, TestError> {
        let mut sink = |block| {
            self.put(block);
            Ok::<_, TestError>(())
        };
        directory(profile, entries, &mut sink)
    }

    fn symlink(&mut self, profile: &Profile, target: &str) -> Subtree {
        let (block, subtree) = symlink(profile, target.as_bytes()).unwrap();
        self.put(block);
        subtree
    }

    fn tree(&mut self, profile: &Profile, tree: &Tree) -> Subtree {
        match tree {
            Tree::File(content) => self.file(profile, content.as_bytes()),
            Tree::Symlink(target) => self.symlink(profile, target),
            Tree::Directory(entries) => {
                let entries = entries.iter().map(|(name, tree)| entry(name, self.tree(profile, tree))).collect();
                self.directory(profile, entries).unwrap()
            }
        }
    }

    fn read(&self, root: Cid) -> Result<Vec<u8>, TestError> {
        let mut content = Vec::new();
        read_file(self, root, &mut |piece| {
            content.extend_from_slice(&piece);
            Ok(())
        })?;
        Ok(content)
    }

    fn list(&self, root: Cid) -> Result<BTreeMap<EntryName, Subtree>, TestError> {
        let mut entries = BTreeMap::new();
        list(self, root, &mut |entry| {
            assert!(entries.insert(entry.name, entry.target).is_none(), "an entry came twice");
            Ok(())
        })?;
        Ok(entries)
    }
}

enum Tree {
    File(&'static str),
    Symlink(&'static str),
    Directory(Vec<(&'static str, Tree)>),
}

fn entry(name: &str, target: Subtree) -> Entry {
    Entry { name: EntryName::new(name).unwrap(), target }
}

fn link(cid: Cid, name: &str) -> pb::Link<'_> {
    pb::Link { cid, name: Some(name), tsize: Some(1) }
}

fn check_tree(profile: &Profile, tree: &Tree, expected: &str) {
    assert_eq!(Memory::default().tree(profile, tree).cid.to_string(), expected, "{profile}");
}

/// A file of zeros, of which every full chunk is the same and hashed once.
fn check_zeros(profile: &Profile, size: usize, expected: &str) {
    let sink = &mut |_| Ok::<_, TestError>(());
    let zeros = Bytes::from(vec![0; profile.chunk_bytes]);
    let (_, full) = leaf(profile, zeros.clone()).unwrap();
    let mut builder = FileBuilder::new(*profile);
    for _ in 0..size / zeros.len() {
        builder.push_leaf(full, sink).unwrap();
    }
    let rest = zeros.slice(..size % zeros.len());
    if !rest.is_empty() {
        builder.push(rest, sink).unwrap();
    }
    let root = builder.finish(sink).unwrap();
    assert_eq!(root.subtree().cid.to_string(), expected, "{size} zeros under {profile}");
    assert_eq!(root.size(), size as u64);
}

/// printf 'hello\n' | ipfs add, and so on.
#[test]
fn small_files() {
    let check = |profile, content, expected| check_tree(&profile, &Tree::File(content), expected);
    let hello = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am";
    check(V2025, "hello\n", hello);
    check(CIDV1, "hello\n", hello);
    check(V2015, "hello\n", "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN");
    check(V2015, "hello world", "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD");
    check(V2025, "hello world", "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e");
    check(V2025, "123", "bafkreifgmwsfsiccf6ouc7sim7x5yt5yubfb6p77d6qh5gmoq337pit24m");
}

/// ipfs add of an empty file and of an empty directory.
#[test]
fn nothing_in_a_file_or_directory() {
    for profile in [V2025, CIDV1] {
        check_tree(&profile, &Tree::File(""), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
        let empty = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
        check_tree(&profile, &Tree::Directory(vec![]), empty);
    }
    check_tree(&V2015, &Tree::File(""), "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH");
    check_tree(&V2015, &Tree::Directory(vec![]), "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn");
}

/// head -c SIZE /dev/zero | ipfs add
#[test]
fn files_at_the_edge_of_a_chunk() {
    check_zeros(&V2015, 262_144, "QmRk1rduJvo5DfEYAaLobS2za9tDszk35hzaNSDCJ74DA7");
    check_zeros(&CIDV1, 262_144, "bafkreiekhhjkxu4ztk3tyng3er3ijhg56mb44oe3gwbgquhzu4afrg2ksa");
    check_zeros(&V2025, 262_144, "bafkreiekhhjkxu4ztk3tyng3er3ijhg56mb44oe3gwbgquhzu4afrg2ksa");
    check_zeros(&V2015, 262_145, "QmbVuw4C4vcmVKqxoWtgDVobvcHrSn51qsmQmyxjk4sB2Q");
    check_zeros(&CIDV1, 262_145, "bafybeigllfqgfpqydppr6cmv56g7ax4wyhruzswvcefv6j5kj77nzttfki");
    check_zeros(&V2025, 262_145, "bafkreifspibstbhkrjv6y4amhvxwh6h47p4p7dxyp2lsrep63jhousvnbq");
    check_zeros(&V2025, 1_048_576, "bafkreibq4fevl27rgurgnxbp7adh42aqiyd6ouflxhj3gzmcxcxzbh6lla");
    check_zeros(&V2025, 1_048_577, "bafybeihd4yzq7n5umhjngdum4r6k2to7egxfkf2jz6thvwzf6djus22cmq");
}

/// The same where a node is full.
#[test]
fn files_at_the_edge_of_a_node() {
    check_zeros(&V2015, 45_613_056, "QmY4HSz1oVGdUzb8poVYPLsoqBZjH6LZrtgnme9wWn2Qko");
    check_zeros(&CIDV1, 45_613_056, "bafybeibxsa3ioclowpaq7b6gxl65gzqneopfr3fnhedak6sqr4bjz5lnyq");
    check_zeros(&V2015, 45_875_200, "QmaL1KiQRV8secNszpjjFPg722T53c77k2dz5UsNua59ZT");
    check_zeros(&CIDV1, 45_875_200, "bafybeigfps5vzivfspwgm3uwsfyl5s6bn3ysh7uqidgauxgopw4yi66lse");
    check_zeros(&V2015, 7_936_671_744, "QmaUnuM6XbnxLbHUHmY5QxK8LkFqQcX9jvGPVjRF94EEsd");
    check_zeros(&CIDV1, 7_936_671_744, "bafybeidxp6macmsb2fl24g2urxdvecsmmuspexpjyxcav2wyazeytjh5yi");
    check_zeros(&V2015, 7_936_671_745, "QmVZLgevKqdMBkEdFhcauLccqzLNn2gmfwVaXhHEZJyqzm");
    check_zeros(&CIDV1, 7_936_671_745, "bafybeic3bmw3lls6npgpysoz7577inmexlh7ulmlepk4qypu72heonqfhu");
    check_zeros(&V2025, 1_073_741_824, "bafybeibqawkaltgjfdebq4no6nmfcvkcw7k52xqzclkwfmrkn6oxw7srmy");
    check_zeros(&V2025, 1_073_741_825, "bafybeigx4uyebjbq65346xh6cjrt6yshbdudzudhnqecwbzvymslxj7gje");
}

#[test]
fn pieces_have_the_same_name_without_a_block() {
    for profile in Profile::ALL {
        for size in [0, 1, 127, 128, 5000, 262_144, 1_048_576, BLOCK_BYTES_MAX - 14, BLOCK_BYTES_MAX + 1] {
            let piece: Vec<u8> = (0..size).map(|index| index as u8).collect();
            let expected = leaf(&profile, Bytes::from(piece.clone())).map(|(_, part)| part);
            let named = LeafHasher::new(&profile, size).map(|mut hasher| {
                piece.chunks(1000).for_each(|part| hasher.update(part));
                hasher.finish()
            });
            match (named, expected) {
                (Ok(named), Ok(expected)) => assert_eq!(named, expected, "{size} bytes under {profile}"),
                (Err(named), Err(expected)) => assert_eq!(format!("{named:?}"), format!("{expected:?}")),
                other => panic!("{size} bytes under {profile}: {other:?}"),
            }
        }
    }
}

/// A tree with only `bin/main.wasm`, the empty module with its version.
#[test]
fn program_in_a_directory() {
    let tree = Tree::Directory(vec![("bin", Tree::Directory(vec![("main.wasm", Tree::File("\0asm\x01\0\0\0"))]))]);
    check_tree(&V2025, &tree, "bafybeih7evawwmr4si4l3h3yn4fbntoauaq6sy7bqfolvjfyfktoh5n5ly");
}

/// Kubo's test/sharness/t0044-add-symlink.sh.
#[test]
fn symbolic_links() {
    let to_file = "QmdocmZeF7qwPT9Z8SiVhMSyKA2KKoA2J7jToW6z6WBmxR";
    check_tree(&V2015, &Tree::Symlink("files/foo/baz"), to_file);
    let dangling = "QmWYN8SEXCgNT2PSjB6BnxAx6NJQtazWoBkTRH9GRfPFFQ";
    check_tree(&V2015, &Tree::Symlink("files/does/not/exist"), dangling);
    let tree = Tree::Directory(vec![
        ("foo", Tree::Directory(vec![("baz", Tree::File("some text\n"))])),
        ("bar", Tree::Directory(vec![("baz", Tree::Symlink("files/foo/baz"))])),
        ("bad", Tree::Symlink("files/does/not/exist")),
    ]);
    check_tree(&V2015, &tree, "QmWdiHKoeSW8G1u7ATCgpx4yMoUhYaJBQGkyPLkS9goYZ8");
}

/// A file, a symbolic link to it and an empty file in a directory.
#[test]
fn mixed_tree() {
    let tree = Tree::Directory(vec![
        ("sub", Tree::Directory(vec![("empty", Tree::File(""))])),
        ("l", Tree::Symlink("a")),
        ("a", Tree::File("hi\n")),
    ]);
    check_tree(&V2015, &tree, "QmSGNMQuqLmuMq5vnnN6kymRMjA6JytZW7wp6ovQW19DZP");
    check_tree(&CIDV1, &tree, "bafybeigqnm62qhgagkrfazvtfwthqdeohrhn64vebkyhyi4k6pvpofj3sm");
    check_tree(&V2025, &tree, "bafybeigqnm62qhgagkrfazvtfwthqdeohrhn64vebkyhyi4k6pvpofj3sm");
}

/// Names that clients have encoded in all kinds of ways.
#[test]
fn odd_names() {
    let dollar = Tree::Directory(vec![("bar$baz.txt", Tree::File(""))]);
    check_tree(&V2015, &dollar, "QmYYohh3cVpiMCwsr4hLpRdN6qmsKrrPDdNJMYVqekk2cq");
    let tree = Tree::Directory(vec![("a b", Tree::File("1")), ("a%20b", Tree::File("2")), ("a+b", Tree::File("3"))]);
    check_tree(&V2025, &tree, "bafybeig2e5r7jiczxoyis4f66h4rutahtovhpd4khoyeonojetubs3haua");
}

/// Each file holds its number in this list.
#[test]
fn odd_names_that_only_bytes_can_sort() {
    let long = "a".repeat(255);
    let names = [
        "...",
        ".hidden",
        " ",
        "a b",
        "\n",
        "\u{1}\u{7f}",
        "-n",
        "~",
        "*",
        "\\",
        "CON",
        &long,
        "\u{e4}",
        "a\u{308}",
        "名前",
        "\u{202e}gpj.exe",
        "\u{1f600}",
        "A",
        "a",
    ];
    let check = |profile: Profile, expected: &str| {
        let memory = &mut Memory::default();
        let entries = names
            .iter()
            .enumerate()
            .map(|(number, name)| entry(name, memory.file(&profile, number.to_string().as_bytes())));
        let entries = entries.collect();
        assert_eq!(memory.directory(&profile, entries).unwrap().cid.to_string(), expected, "{profile}");
    };
    check(V2015, "QmXcsez6rFVf1ApjkJJGjrMnxmc3yhE5K1XT6vtkAuHmKy");
    check(CIDV1, "bafybeif636dl6mfleviq4bwyvzcd6ddmaliy6shaxmd3z2o5qoq6sxvtym");
    check(V2025, "bafybeif636dl6mfleviq4bwyvzcd6ddmaliy6shaxmd3z2o5qoq6sxvtym");
}

/// Symbolic links, empty directories and files in turn, enough for a HAMT.
#[test]
fn directory_of_9000_entries_of_all_kinds() {
    let check = |profile: Profile, expected: &str| {
        let memory = &mut Memory::default();
        let mut target = |index: usize| match index % 3 {
            0 => memory.symlink(&profile, &format!("t{index}")),
            1 => memory.directory(&profile, vec![]).unwrap(),
            _ => memory.file(&profile, format!("y{index}").as_bytes()),
        };
        let entries = (0..9000).map(|index| entry(&format!("m{index}-ä"), target(index))).collect();
        let root = memory.directory(&profile, entries).unwrap();
        assert_eq!(root.cid.to_string(), expected, "{profile}");
        assert_eq!(memory.list(root.cid).unwrap().len(), 9000);
    };
    check(V2015, "QmdDGD9aSbhBBf7finbx4QBPTkrsLYmtVhYVatmce1t2eq");
    check(CIDV1, "bafybeiebtieba6ew7i5etuwai7jgjzbqkfib7l52zwxb5hia7rt6b5zidu");
    check(V2025, "bafybeiebtieba6ew7i5etuwai7jgjzbqkfib7l52zwxb5hia7rt6b5zidu");
}

/// Two names that were searched for: no number of levels tells them apart.
#[test]
fn names_of_one_hash_are_refused_in_a_hamt_only() {
    let memory = &mut Memory::default();
    let file = memory.file(&V2025, b"x");
    let names = ["MT'UYWTY_Q?MO- {", "fVo&t6SyEy\"H`Yte"];
    assert_eq!(hamt::hash_name(names[0]), hamt::hash_name(names[1]));
    let entries = names.map(|name| entry(name, file)).to_vec();
    assert!(memory.directory(&V2025, entries.clone()).is_ok());
    let sharded = memory.directory(&Profile { directory_size_max: 0, ..V2025 }, entries);
    assert!(matches!(sharded, Err(TestError::Build(BuildError::HashCollision { .. }))));
}

/// Entries that all hold `content(name)`.
fn entries(
    memory: &mut Memory,
    profile: &Profile,
    names: impl Iterator<Item = String>,
    content: impl Fn(&str) -> String,
) -> Vec<Entry> {
    names.map(|name| entry(&name, memory.file(profile, content(&name).as_bytes()))).collect()
}

/// for i in $(seq 2000); do echo $i >file$i; done; ipfs add. The HAMTs are those of Kubo's
/// test/sharness/t0260-sharding.sh, with Import.UnixFSHAMTDirectorySizeThreshold=1B.
#[test]
fn directory_of_2000_files() {
    let check = |profile: Profile, expected: &str| {
        let memory = &mut Memory::default();
        let names = (1..=2000).map(|index| format!("file{index}"));
        let entries = entries(memory, &profile, names, |name| format!("{}\n", &name[4..]));
        assert_eq!(memory.directory(&profile, entries).unwrap().cid.to_string(), expected, "{profile:?}");
    };
    check(V2015, "QmavrTrQG4VhoJmantURAYuw3bowq3E2WcvP36NRQDAC1N");
    let v1_flat = "bafybeia6hghaept4daouirx4mrzlsvagak2f5vd3qm5zir6x2xrkchy36y";
    check(V2025, v1_flat);
    check(CIDV1, v1_flat);
    check(Profile { directory_size_max: 1, ..V2015 }, "QmSCJD1KYLhVVHqBK3YyXuoEqHt7vggyJhzoFYbT8v1XYL");
    let v1_hamt = "bafybeibiemewfzzdyhq2l74wrd6qj2oz42usjlktgnlqv4yfawgouaqn4u";
    check(Profile { directory_size_max: 1, ..V2025 }, v1_hamt);
    check(Profile { directory_size_max: 1, ..CIDV1 }, v1_hamt);
}

/// Every file is `x`; the directory is exactly at the threshold, or a byte over it.
#[test]
fn directories_at_the_threshold() {
    let check = |profile: Profile, names: Vec<String>, expected: &str| {
        let memory = &mut Memory::default();
        let entries = entries(memory, &profile, names.into_iter(), |_| "x".to_owned());
        assert_eq!(memory.directory(&profile, entries).unwrap().cid.to_string(), expected, "{profile}");
    };
    let names = |count, width| (0..count).map(|index| format!("{index:0width$}")).collect::<Vec<_>>();
    check(V2015, names(4096, 30), "QmaXVduPXb8MRthXjdr88FLhMnNYQXW2VBurX8941jvA5n");
    check(V2015, names(4033, 31), "QmfHNN9YMvowvwtsGZ7iyEgv3sAk75hkEaJqWDtz2CrP6g");
    let cidv1_with_last = [names(4095, 28), vec!["z".repeat(29)]].concat();
    check(CIDV1, names(4096, 28), "bafybeihxa436ind63rmoa2vgp2nmt4f5ihowsifr7si3wzofgswy4e7nwm");
    check(CIDV1, cidv1_with_last, "bafybeih42muiow4koesq3a6eo2w5ktfbgfjlikq76qhwlsxwurcpxhcwbm");
    let with_last = |width| [names(4765, 11), vec![format!("{:0width$}", 4765)]].concat();
    check(V2025, with_last(21), "bafybeicveixuifizb4qr7hxrzl7wwpywjepxdttisd6bingqvra7obgcx4");
    check(V2025, with_last(22), "bafybeihvjss4brfqeq6lbsrbhkbqmhggne3jj7xhhjzlicct4rwso7c2nu");
}

/// For who keeps digests of files: under the default profile that of a small file is in its CID.
#[test]
fn small_file_under_the_default_profile_is_named_by_its_digest() {
    use sha2::{Digest, Sha256};
    for size in [0, 1, 1000, V2025.chunk_bytes] {
        let content = vec![7; size];
        let cid = Memory::default().file(&Profile::default(), &content).cid;
        assert_eq!((cid.version(), cid.codec()), (Version::V1, 0x55));
        assert_eq!(cid.hash().digest(), Sha256::digest(&content).as_slice());
    }
}

#[test]
fn names_are_checked() {
    for bad in ["", ".", "..", "a/b", "/", "a\0"] {
        assert!(EntryName::new(bad).is_err(), "{bad:?}");
    }
    for good in ["a", "...", ".a", "a b", "\\", "\u{202e}", "ä", "\n"] {
        assert!(EntryName::new(good).is_ok(), "{good:?}");
    }
    let error = EntryName::new("a\x1b/").unwrap_err();
    assert_eq!(error.to_string(), "the name `a\\u{1b}/` contains a slash or a zero byte");
}

#[test]
fn names_in_a_directory_differ() {
    let memory = &mut Memory::default();
    let file = memory.file(&V2025, b"x");
    let error = memory.directory(&V2025, vec![entry("a", file), entry("b", file), entry("a", file)]).unwrap_err();
    assert!(matches!(error, TestError::Build(BuildError::DuplicateName { name }) if name.as_str() == "a"));
}

#[test]
fn sink_can_stop_the_work() {
    let mut sink = |block: Block| Err(TestError::Missing(Box::new(*block.cid())));
    let mut builder = FileBuilder::new(V2025);
    assert!(matches!(builder.push(Bytes::from_static(b"x"), &mut sink), Err(TestError::Missing(_))));
    assert!(matches!(directory(&V2025, vec![], &mut sink), Err(TestError::Missing(_))));
}

#[test]
fn symbolic_link_fits_into_a_block() {
    assert!(matches!(symlink(&V2025, &vec![b'a'; 2 * 1024 * 1024]), Err(BuildError::Block(_))));
}

/// A profile whose every limit is reached by a few bytes.
fn small_profile(base: Profile) -> Profile {
    Profile { chunk_bytes: 3, file_links_max: 4, directory_size_max: 200, ..base }
}

#[test]
fn files_are_read_from_any_byte() {
    let memory = &mut Memory::default();
    let content: Vec<u8> = (0..100).collect();
    for profile in Profile::ALL.map(small_profile) {
        let root = memory.file(&profile, &content).cid;
        for offset in [0, 1, 2, 3, 4, 12, 13, 48, 97, 99, 100, 101, u64::MAX] {
            memory.reads.set(0);
            let mut walk = FileWalk::from_offset(root, offset);
            let mut read = Vec::new();
            while let Some(cid) = walk.wanted() {
                let block = memory.block(cid).unwrap();
                read.extend_from_slice(&walk.supply(&block).unwrap());
            }
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
            assert_eq!(read, content[start..], "from {offset}");
            assert_eq!(walk.size(), Some(100));
            if offset >= 99 {
                assert!(memory.reads.get() <= 5, "parts before the offset are not read");
            }
        }
    }
}

#[test]
fn what_is_needed_next_is_told_ahead() {
    let memory = &mut Memory::default();
    let content: Vec<u8> = (0..12).collect();
    let root = memory.file(&small_profile(V2025), &content).cid;
    let mut walk = FileWalk::new(root);
    assert_eq!(walk.ahead(100).count(), 1, "only the root is known");
    walk.supply(&memory.block(&root).unwrap()).unwrap();
    let parts: Vec<_> = walk.upcoming().copied().collect();
    for (bytes, count) in [(0, 1), (1, 1), (3, 1), (4, 2), (6, 2), (7, 3), (12, 4), (u64::MAX, 4)] {
        assert_eq!(walk.ahead(bytes).copied().collect::<Vec<_>>(), parts[..count], "{bytes}");
    }
}

/// The parts of a file in another layout: bytes of its own, raw and dag-pb leaves, nodes of different depth.
#[test]
fn layouts_of_other_builders_are_read() {
    let memory = &mut Memory::default();
    let raw = memory.file(&V2025, b"raw").cid;
    let old = memory.put_node(vec![], &Data { data: Some(b"old"), file_size: Some(3), ..Data::new(Kind::Raw) });
    let inner_sizes = vec![3, 3];
    let inner = memory.put_node(
        vec![link(raw, ""), link(old, "")],
        &Data { data: Some(b"+"), file_size: Some(7), block_sizes: inner_sizes, ..Data::new(Kind::File) },
    );
    let identity: Cid = "bafkqabtjnzwgs3tf".parse().unwrap();
    let root = memory.put_node(
        vec![link(raw, ""), link(inner, ""), link(identity, ""), link(old, "")],
        &Data { data: Some(b"root:"), block_sizes: vec![3, 7, 6, 3], ..Data::new(Kind::File) },
    );
    assert_eq!(memory.read(root).unwrap(), b"root:raw+rawoldinlineold");
}

#[test]
fn files_that_lie_about_sizes_are_refused() {
    let memory = &mut Memory::default();
    let raw = memory.file(&V2025, b"raw").cid;
    let mut file = |links: Vec<pb::Link<'_>>, file_size, block_sizes| {
        let root = memory.put_node(links, &Data { file_size, block_sizes, ..Data::new(Kind::File) });
        memory.read(root)
    };
    assert!(file(vec![link(raw, "")], Some(3), vec![3]).is_ok());
    let node_error = |result: Result<Vec<u8>, TestError>| match result.unwrap_err() {
        TestError::Walk(WalkError::Node { source, .. }) => source.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(node_error(file(vec![link(raw, "")], Some(3), vec![])), "0 block sizes for 1 links");
    assert_eq!(node_error(file(vec![link(raw, "")], Some(4), vec![3])), "file size is 4, but the parts are together 3");
    let two = vec![link(raw, ""), link(raw, "")];
    assert_eq!(
        node_error(file(two, Some(2), vec![u64::MAX, 3])),
        "file size is 2, but the parts are together more than 64 bits"
    );
    let error = file(vec![link(raw, "")], Some(2), vec![2]).unwrap_err();
    assert!(matches!(error, TestError::Walk(WalkError::PartSize { expected: 2, actual: 3, .. })));
}

#[test]
fn deep_files_are_refused() {
    let memory = &mut Memory::default();
    let mut root = memory.file(&V2025, b"x").cid;
    for depth in 1..FILE_DEPTH_MAX + 1 {
        let data = Data { file_size: Some(1), block_sizes: vec![1], ..Data::new(Kind::File) };
        root = memory.put_node(vec![link(root, "")], &data);
        let result = memory.read(root);
        match depth {
            FILE_DEPTH_MAX => assert!(matches!(result, Err(TestError::Walk(WalkError::TooDeep { .. })))),
            _ => assert_eq!(result.unwrap(), b"x"),
        }
    }
}

/// A DAG of some hundred KiB that says it is a file of nearly 2^64 bytes: it can be read as long as one likes, in bounded
/// memory.
#[test]
fn bomb_is_read_in_bounded_memory() {
    let memory = &mut Memory::default();
    let mut root = memory.file(&V2025, b"x");
    let mut size = 1u64;
    while let Some(next) = size.checked_mul(1000) {
        let block_sizes = vec![size; 1000];
        let data = Data { file_size: Some(next), block_sizes, ..Data::new(Kind::File) };
        root.cid = memory.put_node(vec![link(root.cid, ""); 1000], &data);
        size = next;
    }
    let mut walk = FileWalk::new(root.cid);
    for _ in 0..20_000 {
        let block = memory.block(walk.wanted().unwrap()).unwrap();
        walk.supply(&block).unwrap();
        assert!(walk.upcoming().count() <= 7 * 1000);
    }
}

#[test]
fn pending_links_are_limited() {
    let memory = &mut Memory::default();
    let mut root: Cid = "bafkqaalb".parse().unwrap();
    let mut size = 1u64;
    for _ in 0..4 {
        let data = Data { block_sizes: vec![size; 40_000], ..Data::new(Kind::File) };
        root = memory.put_node(vec![pb::Link { cid: root, name: None, tsize: None }; 40_000], &data);
        size *= 40_000;
    }
    assert!(matches!(memory.read(root), Err(TestError::Walk(WalkError::TooManyLinks { .. }))));
}

#[test]
fn parts_without_content_are_not_fetched() {
    let memory = &mut Memory::default();
    let raw = memory.file(&V2025, b"raw").cid;
    let missing: Cid = "QmWDtUQj38YLW8v3q4A6LwPn4vYKEbuKWpgSm6bjKW6Xfe".parse().unwrap();
    let links = vec![link(missing, ""), link(raw, ""), link(missing, "")];
    let root = memory.put_node(links, &Data { block_sizes: vec![0, 3, 0], ..Data::new(Kind::File) });
    assert_eq!(memory.read(root).unwrap(), b"raw");
}

#[test]
fn walks_take_only_what_they_want() {
    let other = Block::seal(Version::V1, 0x55, Bytes::from_static(b"other")).unwrap();
    let root: Cid = "QmWDtUQj38YLW8v3q4A6LwPn4vYKEbuKWpgSm6bjKW6Xfe".parse().unwrap();
    assert!(matches!(FileWalk::new(root).supply(&other), Err(WalkError::NotWanted { .. })));
    assert!(matches!(DirectoryWalk::new(root).supply(&other), Err(WalkError::NotWanted { .. })));
    assert!(matches!(PathWalk::new(root, "a").unwrap().supply(&other), Err(WalkError::NotWanted { .. })));
    let mut arrived = PathWalk::new(*other.cid(), "").unwrap();
    assert_eq!(arrived.found(), Some(other.cid()));
    assert!(matches!(arrived.supply(&other), Err(WalkError::NotWanted { .. })));
}

#[test]
fn paths_lead_through_directories() {
    let memory = &mut Memory::default();
    for profile in
        [V2025, Profile { directory_size_max: 0, ..V2025 }, Profile { directory_size_max: 0, hamt_fanout: 8, ..V2025 }]
    {
        let file = memory.file(&profile, b"file");
        let symlink = memory.symlink(&profile, "c");
        let many = (0..300).map(|index| entry(&format!("entry {index}"), file));
        let inner = memory.directory(&profile, many.chain([entry("c", file), entry("l", symlink)]).collect()).unwrap();
        let root = memory.directory(&profile, vec![entry("b", inner)]).unwrap().cid;
        assert_eq!(resolve(memory, root, "").unwrap(), root);
        assert_eq!(resolve(memory, root, "/b//").unwrap(), inner.cid);
        assert_eq!(resolve(memory, root, "b/c").unwrap(), file.cid);
        assert_eq!(resolve(memory, root, "b/entry 299").unwrap(), file.cid);
        assert_eq!(resolve(memory, root, "b/l").unwrap(), symlink.cid);
        assert_eq!(memory.list(inner.cid).unwrap().len(), 302);
        let error = |path| match resolve(memory, root, path).unwrap_err() {
            TestError::Walk(error) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(error("b/d"), format!("no entry `d` in directory {}", inner.cid));
        assert_eq!(error("b/c/d"), format!("{} is not a directory", file.cid));
        assert_eq!(error("b/l/d"), format!("{} is not a directory", symlink.cid));
        assert_eq!(error("b/../b"), "malformed path");
    }
}

#[test]
fn missing_blocks_are_named() {
    let memory = &mut Memory::default();
    let root = memory.file(&small_profile(V2025), b"0123456789").cid;
    memory.blocks.retain(|_, block| &block.data()[..] != b"345");
    assert!(matches!(memory.read(root), Err(TestError::Missing(cid)) if cid.codec() == 0x55));
}

#[test]
fn wrong_kinds_are_refused() {
    let memory = &mut Memory::default();
    let directory = memory.directory(&V2025, vec![]).unwrap().cid;
    let symlink = memory.symlink(&V2025, "a").cid;
    let file = memory.file(&V2025, b"x").cid;
    for root in [directory, symlink] {
        assert!(matches!(memory.read(root), Err(TestError::Walk(WalkError::NotAFile { .. }))));
    }
    for root in [file, symlink] {
        assert!(matches!(memory.list(root), Err(TestError::Walk(WalkError::NotADirectory { .. }))));
    }
    let cbor = Block::seal(Version::V1, 0x71, Bytes::from_static(&[0xa0])).unwrap();
    assert!(matches!(Node::decode(&cbor), Err(NodeError::Codec(0x71))));
}

fn decode_error(links: Vec<pb::Link<'_>>, data: &Data<'_>) -> String {
    let (block, _) = seal(&V2025, links, data).unwrap();
    Node::decode(&block).unwrap_err().to_string()
}

#[test]
fn nodes_that_break_rules_are_refused() {
    let cid: Cid = "QmWDtUQj38YLW8v3q4A6LwPn4vYKEbuKWpgSm6bjKW6Xfe".parse().unwrap();
    let directory = Data::new(Kind::Directory);
    for name in ["", ".", "..", "a/b", "../../a", "/a", "\0"] {
        assert_eq!(decode_error(vec![link(cid, name)], &directory), "entry with a bad name", "{name:?}");
    }
    let twice = vec![link(cid, "a"), link(cid, "b"), link(cid, "a")];
    assert_eq!(decode_error(twice, &directory), "two entries have the name `a`");
    let symlink = Data { data: Some(b"a"), ..Data::new(Kind::Symlink) };
    assert_eq!(decode_error(vec![link(cid, "a")], &symlink), "node of type Symlink with links");
    assert_eq!(decode_error(vec![], &Data::new(Kind::Symlink)), "symbolic link without target");
    assert_eq!(decode_error(vec![], &Data::new(Kind::Metadata)), "nodes of type Metadata are not supported");
    let no_data = Block::seal(Version::V1, 0x70, Bytes::new()).unwrap();
    assert_eq!(Node::decode(&no_data).unwrap_err().to_string(), "node without UnixFS data");
}

#[test]
fn shards_that_break_rules_are_refused() {
    let cid: Cid = "QmWDtUQj38YLW8v3q4A6LwPn4vYKEbuKWpgSm6bjKW6Xfe".parse().unwrap();
    let shard = Data { data: Some(&[1]), hash_type: Some(0x22), fanout: Some(256), ..Data::new(Kind::HamtShard) };
    for fanout in [None, Some(0), Some(1), Some(4), Some(255), Some(2048), Some(u64::MAX)] {
        let data = Data { fanout, ..shard.clone() };
        assert_eq!(decode_error(vec![link(cid, "00a")], &data), format!("HAMT with a fanout of {fanout:?}"));
    }
    let data = Data { hash_type: Some(0x12), ..shard.clone() };
    assert_eq!(decode_error(vec![link(cid, "00a")], &data), "HAMT with hash function Some(12)");
    let bit_field = "links of a HAMT do not agree with its bit field";
    for names in [&[][..], &["01a"], &["0"], &["00a", "01b"], &["00a", "00b"]] {
        let links = names.iter().map(|name| link(cid, name)).collect();
        assert_eq!(decode_error(links, &shard), bit_field, "{names:?}");
    }
    let data = Data { data: Some(&[1; 33]), ..shard.clone() };
    assert_eq!(decode_error(vec![link(cid, "00a")], &data), bit_field);
    assert_eq!(decode_error(vec![link(cid, "00..")], &shard), "entry with a bad name");
}

#[test]
fn shards_in_the_wrong_place_are_refused() {
    let memory = &mut Memory::default();
    let file = memory.file(&V2025, b"x").cid;
    let shard = |fanout, field| Data {
        data: Some(field),
        hash_type: Some(0x22),
        fanout: Some(fanout),
        ..Data::new(Kind::HamtShard)
    };
    let refuse = |memory: &Memory, root| match memory.list(root).unwrap_err() {
        TestError::Walk(error) => error,
        other => panic!("{other:?}"),
    };
    // The hash of "a" starts with 0x85.
    let misplaced = memory.put_node(vec![link(file, "00a")], &shard(256, &[1]));
    assert!(matches!(refuse(memory, misplaced), WalkError::MisplacedEntry { .. }));
    // A shard within itself cannot be made, but one that is in two places can.
    let empty = memory.put_node(vec![], &shard(256, &[]));
    assert!(memory.list(empty).unwrap().is_empty());
    let with_empty = memory.put_node(vec![link(empty, "00")], &shard(256, &[1]));
    assert!(matches!(refuse(memory, with_empty), WalkError::MisplacedShard { .. }));
    let other_fanout = memory.put_node(vec![link(misplaced, "0")], &shard(16, &[1]));
    assert!(matches!(refuse(memory, other_fanout), WalkError::MisplacedShard { .. }));
    let directory = memory.directory(&V2025, vec![]).unwrap().cid;
    let with_directory = memory.put_node(vec![link(directory, "00")], &shard(256, &[1]));
    assert!(matches!(refuse(memory, with_directory), WalkError::MisplacedShard { .. }));
}

#[test]
fn deep_hamts_are_refused() {
    let memory = &mut Memory::default();
    let mut root = memory.file(&V2025, b"x").cid;
    let data = Data { data: Some(&[1]), hash_type: Some(0x22), fanout: Some(256), ..Data::new(Kind::HamtShard) };
    for name in ["00a"].into_iter().chain(["00"; 8]) {
        root = memory.put_node(vec![link(root, name)], &data);
    }
    assert!(matches!(memory.list(root), Err(TestError::Walk(WalkError::TooDeep { .. }))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn files_come_back(content in proptest::collection::vec(any::<u8>(), 0..700), links in 2usize..6) {
        for profile in Profile::ALL.map(small_profile) {
            let memory = &mut Memory::default();
            let root = memory.file(&Profile { file_links_max: links, ..profile }, &content);
            prop_assert_eq!(&memory.read(root.cid).unwrap(), &content);
        }
    }

    #[test]
    fn files_of_any_size_come_back(size in 0usize..3_000_000) {
        let period: Vec<u8> = (0..251).collect();
        let content = period.repeat(size / period.len() + 1)[..size].to_vec();
        for profile in Profile::ALL {
            let memory = &mut Memory::default();
            let root = memory.file(&profile, &content);
            prop_assert_eq!(&memory.read(root.cid).unwrap(), &content);
        }
    }

    #[test]
    fn directories_come_back_in_any_order(
        names in proptest::collection::btree_set("[^/\0]{1,12}", 0..60),
        seed in any::<u64>(),
        fanout_bits in 3u32..11,
    ) {
        let names = names.into_iter().filter(|name| EntryName::new(name.as_str()).is_ok());
        let names: Vec<String> = names.collect();
        for profile in Profile::ALL.map(small_profile) {
            let profile = Profile { hamt_fanout: 1 << fanout_bits, ..profile };
            let memory = &mut Memory::default();
            let file = memory.file(&profile, b"x");
            let entries: Vec<_> = names.iter().map(|name| entry(name, file)).collect();
            let mut shuffled = entries.clone();
            shuffled.sort_by_key(|entry| hamt::hash_name(entry.name.as_str()) ^ seed);
            let root = memory.directory(&profile, entries).unwrap();
            prop_assert_eq!(memory.directory(&profile, shuffled).unwrap(), root);
            let listed = memory.list(root.cid).unwrap();
            prop_assert!(listed.keys().map(EntryName::as_str).eq(names.iter().map(String::as_str)));
            for name in &names {
                prop_assert_eq!(resolve(memory, root.cid, name).unwrap(), file.cid);
            }
        }
    }

    #[test]
    fn damaged_nodes_are_read_or_refused(
        names in proptest::collection::btree_set("[a-z]{1,8}", 0..20),
        threshold in prop_oneof![Just(0usize), Just(100_000)],
        places: Vec<(usize, u8)>,
    ) {
        let profile = Profile { directory_size_max: threshold, ..V2025 };
        let memory = &mut Memory::default();
        let file = memory.file(&small_profile(V2015), b"0123456789");
        let entries = names.iter().map(|name| entry(name, file)).collect();
        let root = memory.directory(&profile, entries).unwrap();
        for cid in [root.cid, file.cid] {
            let damaged = mutate(memory.blocks[&cid].data(), &places);
            let block = Block::seal(Version::V1, 0x70, damaged.into()).unwrap();
            let root = *block.cid();
            memory.put(block);
            let _ = memory.read(root);
            let _ = memory.list(root);
            let _ = resolve(memory, root, "a/b");
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let block = Block::seal(Version::V1, 0x70, bytes.into()).unwrap();
        let _ = Node::decode(&block);
    }
}
