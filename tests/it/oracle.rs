//! CIDs against those of a real Kubo, on random trees.
//!
//! Many trees lie in one folder, so that Kubo is called once for all of them; where the roots differ, it is asked tree by
//! tree which it is. A seed is part of every message, and `WW_SEED` sets it: the trees come out the same. `WW_CASES`
//! multiplies the number of trees.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::json;
use ww::dag::unixfs::{DirectorySize, Profile};
use ww::tree::{ImportOptions, RootSymlink, import};

use crate::kubo::Kubo;

/// What trees come from unless `WW_SEED` says otherwise.
const SEED: u64 = 20_151_125;

/// The number of trees in a folder.
const TREES: usize = 250;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    /// The source of the given part of a test.
    fn new(part: u64) -> Self {
        let mut random = Self(seed());
        random.0 ^= random.next().wrapping_add(part);
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }

    /// A name as people, editors and attackers choose it, of at most 255 bytes.
    fn name(&mut self) -> String {
        const PIECES: &[&str] = &[
            "a",
            "b",
            "Z",
            "0",
            "9",
            ".",
            "-",
            "_",
            " ",
            "\n",
            "\t",
            "\u{1b}[31m",
            "%2F",
            "%41",
            "+",
            "&",
            "\\",
            "\"",
            "'",
            "*",
            "?",
            "~",
            "#",
            "$HOME",
            "ä",
            "a\u{308}",
            "ß",
            "名前",
            "\u{200b}",
            "\u{202e}",
            "\u{feff}",
            "\u{1f600}",
            "\u{10ffff}",
            "CON",
            "file",
            "x.wasm",
        ];
        let length = match self.below(20) {
            0 => 255,
            1 => 1,
            _ => 1 + self.below(12),
        };
        loop {
            let mut name = String::new();
            while name.len() < length {
                name.push_str(self.pick(PIECES));
            }
            let end = (0..=length.min(255)).rfind(|end| name.is_char_boundary(*end)).unwrap_or_default();
            name.truncate(end);
            if !["", ".", ".."].contains(&name.as_str()) {
                return name;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "who runs the tests may want others")]
fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {value}")))
}

fn seed() -> u64 {
    number("WW_SEED").unwrap_or(SEED)
}

/// The files of a tree: sizes at and around where their DAGs change, for these lengths of a piece and of a node.
struct Sizes {
    chunk_bytes: usize,
    /// The size of a file of one full node, in pieces; 0 for none so large.
    node_chunks: usize,
}

impl Sizes {
    fn size(&self, random: &mut Random) -> usize {
        let around = |middle: usize, random: &mut Random| (middle + 1).saturating_sub(random.below(3));
        match random.below(40) {
            0..8 => 0,
            8..10 => around(self.chunk_bytes, random),
            10 => around(2 * self.chunk_bytes, random),
            11 if self.node_chunks > 0 => around(self.node_chunks * self.chunk_bytes, random),
            12 if self.node_chunks > 0 => around((self.node_chunks + 1) * self.chunk_bytes, random),
            13 if self.node_chunks > 0 => around(self.node_chunks * self.node_chunks * self.chunk_bytes, random),
            14..20 => random.below(5_000.min(20 * self.chunk_bytes)),
            _ => random.below(64),
        }
    }
}

/// Fills a folder. The deeper it is, the fewer entries it has; at the last depth no folders are among them.
fn fill(folder: &Path, depth: usize, depth_max: usize, sizes: &Sizes, random: &mut Random) {
    let count = random.below([9, 6, 4, 3].get(depth).copied().unwrap_or(1));
    for _ in 0..count {
        let path = folder.join(random.name());
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match random.below(10) {
            0..3 if depth < depth_max => {
                fs::create_dir(&path).unwrap();
                fill(&path, depth + 1, depth_max, sizes, random);
            }
            3 => symlink(link_target(random), &path).unwrap(),
            _ => {
                let size = sizes.size(random);
                fs::write(&path, random.bytes(size)).unwrap();
            }
        }
    }
}

fn link_target(random: &mut Random) -> String {
    match random.below(4) {
        0 => "/etc/passwd".to_owned(),
        1 => format!("../{}", random.name()),
        2 => vec![random.name(); 3].join("/").chars().take(1_000).collect(),
        _ => random.name(),
    }
}

/// A folder of folders with a random tree in each.
fn trees(sizes: &Sizes, depth_max: usize, random: &mut Random) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("trees");
    for index in 0..TREES {
        let tree = root.join(index.to_string());
        fs::create_dir_all(&tree).unwrap();
        fill(&tree, 0, depth_max, sizes, random);
    }
    dir
}

/// A Kubo that is configured as a profile says.
struct Oracle {
    kubo: Kubo,
    profile: Profile,
    options: Vec<String>,
}

impl Oracle {
    /// Kubo's own name for the profile, or its defaults.
    fn named(profile: Profile) -> Option<Self> {
        let kubo = Kubo::new()?;
        let mut options = Vec::new();
        if profile == Profile::UNIXFS_V1_2025 {
            kubo.run(&["config", "profile", "apply", profile.name]);
        } else if profile == Profile::KUBO_CIDV1 {
            options.push("--cid-version=1".to_owned());
        }
        options.push("--only-hash".to_owned());
        Some(Self { kubo, profile, options })
    }

    /// Every parameter set by itself.
    fn with_parameters(profile: Profile) -> Option<Self> {
        let kubo = Kubo::new()?;
        let estimation = match profile.directory_size {
            DirectorySize::NamesAndCids => "links",
            DirectorySize::Block => "block",
        };
        let threshold = format!("{}B", profile.directory_size_max);
        let import = json!({
            "UnixFSHAMTDirectorySizeThreshold": threshold,
            "UnixFSHAMTDirectorySizeEstimation": estimation,
        });
        kubo.configure("Import", import);
        let version = if profile.cid_version == ww::dag::Version::V0 { 0 } else { 1 };
        // With --only-hash Kubo 0.43 takes no other fanout than its default, so then it has to store what it adds.
        let no_work = if profile.hamt_fanout == 256 { "--only-hash" } else { "--pin=false" };
        let options = vec![
            no_work.to_owned(),
            format!("--cid-version={version}"),
            format!("--raw-leaves={}", profile.raw_leaves),
            format!("--chunker=size-{}", profile.chunk_bytes),
            format!("--max-file-links={}", profile.file_links_max),
            format!("--max-hamt-fanout={}", profile.hamt_fanout),
        ];
        Some(Self { kubo, profile, options })
    }

    /// What Kubo calls a tree.
    fn kubo_cid(&self, path: &Path) -> String {
        let mut command = self.kubo.command(&["add", "-r", "-H", "-Q"]);
        let done = crate::support::finish(command.args(&self.options).arg(path)).expect(0);
        done.stdout.trim_end().to_owned()
    }

    /// What we call it.
    fn cid(&self, path: &Path) -> String {
        let options = ImportOptions { root_symlink: RootSymlink::Store, ..ImportOptions::new(self.profile) };
        import(path, &options, None, None).unwrap().subtree.cid.to_string()
    }

    fn check(&self, root: &Path) {
        let (found, expected) = (self.cid(root), self.kubo_cid(root));
        if found != expected {
            let different = self.first_difference(root.to_owned());
            // The folder itself is about to be removed.
            let kept = tempfile::tempdir().unwrap().keep();
            crate::support::finish(Command::new("cp").arg("-a").arg(&different).arg(&kept)).expect(0);
            panic!(
                "{} of seed {} under {:?} is {found} here and {expected} with Kubo; a copy of what is different is in {}",
                root.display(),
                seed(),
                self.profile,
                kept.display(),
            );
        }
    }

    /// The smallest part of a tree that is different while its own parts are not.
    fn first_difference(&self, path: PathBuf) -> PathBuf {
        let entries = path.is_dir().then(|| fs::read_dir(&path).unwrap());
        let mut entries = entries.into_iter().flatten().map(|entry| entry.unwrap());
        // A symlink given by name is followed by Kubo, so one that is different shows in its folder.
        let different = entries.find(|entry| {
            !entry.file_type().unwrap().is_symlink() && self.cid(&entry.path()) != self.kubo_cid(&entry.path())
        });
        match different {
            Some(entry) => self.first_difference(entry.path()),
            None => path,
        }
    }
}

/// Checks a folder with all oracles at once.
fn check_all(oracles: &[Oracle], root: &Path) {
    thread::scope(|scope| oracles.iter().for_each(|oracle| drop(scope.spawn(|| oracle.check(root)))));
}

fn named_oracles() -> Option<Vec<Oracle>> {
    Profile::ALL.into_iter().map(Oracle::named).collect()
}

/// How many folders of trees, where one is usual.
fn rounds() -> u64 {
    number("WW_CASES").unwrap_or(1)
}

#[test]
fn random_trees_under_the_profiles() {
    let Some(oracles) = named_oracles() else { return };
    for round in 0..4 * rounds() {
        let random = &mut Random::new(round);
        // Pieces of a mebibyte are the longest, and their edges are rare.
        let chunk_bytes = if round % 2 == 0 { 256 << 10 } else { 1 << 20 };
        let dir = trees(&Sizes { chunk_bytes, node_chunks: 0 }, 12, random);
        check_all(&oracles, &dir.path().join("trees"));
    }
}

/// Pieces, nodes and directories so small that nearly every tree is at one of their edges.
///
/// Where a directory is a little larger than the threshold and has others in it, Kubo 0.43 does not give the same CID each
/// time (see [`Profile::directory_size_max`]). So the trees are deep where every directory is far above the threshold, and
/// flat where the threshold is among their sizes.
#[test]
fn random_trees_with_small_parameters() {
    for round in 0..8 * rounds() {
        let random = &mut Random::new(1_000_000 + round);
        let is_deep = random.below(2) == 0;
        let profile = Profile {
            chunk_bytes: 1 + random.below(40),
            file_links_max: 2 + random.below(5),
            // The block of an empty directory has four bytes; Kubo never makes a HAMT of it.
            directory_size_max: if is_deep { 4 } else { 4 + random.below(400) },
            hamt_fanout: if round % 2 == 0 { 256 } else { 8 << random.below(8) },
            ..Profile::ALL[random.below(3)]
        };
        let Some(oracle) = Oracle::with_parameters(profile) else { return };
        let sizes = Sizes { chunk_bytes: profile.chunk_bytes, node_chunks: profile.file_links_max };
        let dir = trees(&sizes, if is_deep { 6 } else { 0 }, random);
        oracle.check(&dir.path().join("trees"));
    }
}

/// Files with holes, at the edges of a full node of 174 links; those of 1,024 are among the vectors of IPIP-499.
#[test]
fn files_at_the_edge_of_a_node() {
    let Some(oracles) = named_oracles() else { return };
    let random = &mut Random::new(2_000_000);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("files");
    fs::create_dir(&root).unwrap();
    for size in [173, 174, 175, 348].map(|chunks: u64| chunks << 18).into_iter().flat_map(|size| size - 1..=size + 1) {
        let file = File::create(root.join(size.to_string())).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(&random.bytes(1_000), random.next() % (size - 1_000)).unwrap();
    }
    check_all(&oracles, &root);
}

/// A file of one byte, as often as wanted under other names.
struct Links {
    dir: PathBuf,
    count: AtomicU64,
}

impl Links {
    /// The most links that ext4 allows to a file are 65,000.
    const EACH: u64 = 20_000;

    fn put(&self, path: &Path) {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let source = self.dir.join((count / Self::EACH).to_string());
        if count.is_multiple_of(Self::EACH) {
            fs::write(&source, "x").unwrap();
        }
        fs::hard_link(source, path).unwrap();
    }
}

/// Different names of 8 to 67 bytes, whose lengths and the overhead of each are together exactly as much as wanted.
fn names_of_length(mut total: usize, overhead: usize, random: &mut Random) -> Vec<String> {
    const MIN: usize = 8;
    const MAX: usize = 67;
    let mut lengths = Vec::new();
    while total > MAX + overhead {
        // What is left has room for another name.
        let most = MAX.min(total - 2 * overhead - MIN);
        let length = if total > 2 * (MAX + overhead) { MIN + random.below(MAX + 1 - MIN) } else { most };
        lengths.push(length);
        total -= length + overhead;
    }
    lengths.push(total - overhead);
    lengths.iter().enumerate().map(|(index, length)| format!("{index:08x}{}", "n".repeat(length - MIN))).collect()
}

/// A byte under, at and over where a directory becomes a HAMT.
#[test]
fn directories_at_the_thresholds() {
    let Some(oracles) = named_oracles() else { return };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("directories");
    fs::create_dir(&root).unwrap();
    let links = Links { dir: dir.path().to_owned(), count: AtomicU64::new(0) };
    // An entry's size beside its name: the CID; in a block also a tag and a length for the link, its CID and its name, and
    // the tag of its size with one byte. A block begins with four bytes.
    for (overhead, start) in [(34, 0), (36, 0), (36 + 8, 4)] {
        for beyond in 0..3 {
            let random = &mut Random::new(3_000_000 + overhead as u64 * 10 + beyond as u64);
            let folder = root.join(format!("{overhead}-{beyond}"));
            fs::create_dir(&folder).unwrap();
            for name in names_of_length(262_143 + beyond - start, overhead, random) {
                links.put(&folder.join(name));
            }
        }
    }
    check_all(&oracles, &root);
}

#[test]
fn directory_of_100_000_entries() {
    let Some(oracles) = named_oracles() else { return };
    let random = &mut Random::new(4_000_000);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("directory");
    fs::create_dir(&root).unwrap();
    let links = Links { dir: dir.path().to_owned(), count: AtomicU64::new(0) };
    for index in 0..100_000 {
        let path = root.join(format!("{index}{}", random.name().chars().take(20).collect::<String>()));
        match index % 100 {
            0 => fs::write(path, index.to_string()).unwrap(),
            1 => symlink(index.to_string(), path).unwrap(),
            2 => fs::create_dir(path).unwrap(),
            _ => links.put(&path),
        }
    }
    check_all(&oracles, &root);
}
