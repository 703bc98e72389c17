//! Walks over blocks that link to each other in every way that an input can describe.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use ww::dag::unixfs::{self, Blocks, BuildError, Data, DirectoryWalk, Entry, EntryName, FileBuilder, FileWalk, Kind};
use ww::dag::unixfs::{Mtime, PENDING_LINKS_MAX, Profile, Subtree, WalkError};
use ww::dag::{Block, Cid, Version, pb};

/// The most blocks that are made of one input.
const BLOCKS_MAX: usize = 64;

/// How many steps of a walk are looked at. A small DAG can stand for a file of any length.
const STEPS_MAX: usize = 2_000;

/// Names as directories have them and as they should not; those with digits may fit into a HAMT.
const NAMES: &[&str] = &[
    "a",
    "b",
    "c",
    "..",
    ".",
    "",
    "a/b",
    "/",
    "\0",
    "00",
    "00a",
    "0",
    "1",
    "1a",
    "FF",
    "FFx",
    "\u{202e}x",
    "00..",
    "7",
];

/// Reads numbers from the input, zeros after its end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let [first, rest @ ..] = self.0 else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = self.below(16).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// Mostly small, sometimes huge.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX,
            254 => u64::MAX / 2,
            253 => 256,
            small => small.into(),
        }
    }
}

#[derive(Debug)]
enum Error {
    Walk,
    Build,
    Missing,
    Enough,
}

impl From<WalkError> for Error {
    fn from(_: WalkError) -> Self {
        Self::Walk
    }
}

impl From<BuildError> for Error {
    fn from(_: BuildError) -> Self {
        Self::Build
    }
}

/// The blocks that were made, and the roots among them, which later ones link to.
#[derive(Default)]
struct Memory {
    blocks: HashMap<Cid, Block>,
    roots: Vec<(Subtree, u64)>,
}

impl Blocks for Memory {
    type Error = Error;

    fn block(&self, cid: &Cid) -> Result<Block, Error> {
        self.blocks.get(cid).cloned().ok_or(Error::Missing)
    }
}

impl Memory {
    fn put(&mut self, block: Block) {
        self.blocks.insert(*block.cid(), block);
    }

    fn get(&self, cid: &Cid) -> Option<Block> {
        Block::from_identity(cid).or_else(|| self.blocks.get(cid).cloned())
    }

    /// A root that was made before, or one that is nowhere.
    fn pick(&self, input: &mut Input<'_>) -> (Subtree, u64) {
        let missing = "bafkreifgmwsfsiccf6ouc7sim7x5yt5yubfb6p77d6qh5gmoq337pit24m".parse().expect("a CID");
        let nowhere = (Subtree { cid: missing, dag_size: 3 }, 3);
        self.roots.get(input.below(self.roots.len() + 1)).copied().unwrap_or(nowhere)
    }

    fn make(&mut self, input: &mut Input<'_>) -> Result<(), Error> {
        let root = match input.byte() % 5 {
            0 => self.make_file(input)?,
            1 => self.make_directory(input)?,
            2 => self.make_leaf(input)?,
            _ => self.make_node(input)?,
        };
        self.roots.push(root);
        Ok(())
    }

    /// As builders make them, under small limits.
    fn make_file(&mut self, input: &mut Input<'_>) -> Result<(Subtree, u64), Error> {
        let profile = Profile { chunk_bytes: 1 + input.below(5), file_links_max: 2 + input.below(3), ..profile(input) };
        let mut builder = FileBuilder::new(profile);
        let content = input.bytes().repeat(1 + input.below(8));
        let mut sink = |block| {
            self.put(block);
            Ok::<_, Error>(())
        };
        for chunk in content.chunks(profile.chunk_bytes) {
            builder.push(Bytes::copy_from_slice(chunk), &mut sink)?;
        }
        let root = builder.finish(&mut sink)?;
        Ok((root.subtree(), root.size()))
    }

    fn make_directory(&mut self, input: &mut Input<'_>) -> Result<(Subtree, u64), Error> {
        let threshold = if input.flag() { 0 } else { 10_000 };
        let profile = Profile { directory_size_max: threshold, hamt_fanout: 8 << input.below(8), ..profile(input) };
        let mut entries = Vec::new();
        for index in 0..input.below(24) {
            let name = if input.flag() { format!("{index}") } else { NAMES[input.below(NAMES.len())].to_owned() };
            let (target, _) = self.pick(input);
            entries.extend(EntryName::new(name).map(|name| Entry { name, target }));
        }
        let root = unixfs::directory(&profile, entries, &mut |block| {
            self.put(block);
            Ok::<_, Error>(())
        })?;
        Ok((root, 0))
    }

    /// A plain block, or one that is its own CID, with content that may be anything.
    fn make_leaf(&mut self, input: &mut Input<'_>) -> Result<(Subtree, u64), Error> {
        let codec = [0x55, 0x70, 0x71][input.below(3)];
        let data = input.bytes();
        let size = data.len() as u64;
        if input.flag() {
            let head = [1, codec, 0, data.len() as u8];
            let cid = ww::dag::block::parse_cid(&[&head[..], data].concat()).map_err(|_| Error::Build)?;
            return Ok((Subtree { cid, dag_size: size }, size));
        }
        let block = Block::seal(Version::V1, codec.into(), Bytes::copy_from_slice(data)).map_err(|_| Error::Build)?;
        let cid = *block.cid();
        self.put(block);
        Ok((Subtree { cid, dag_size: size }, size))
    }

    /// A node that no builder makes.
    fn make_node(&mut self, input: &mut Input<'_>) -> Result<(Subtree, u64), Error> {
        const KINDS: [Kind; 6] =
            [Kind::Raw, Kind::Directory, Kind::File, Kind::Metadata, Kind::Symlink, Kind::HamtShard];
        let kind = KINDS[input.below(KINDS.len())];
        let mut data = Data::new(kind);
        let own = input.bytes();
        data.data = input.flag().then_some(own);
        let mut links = Vec::new();
        let mut total = data.data.map_or(0, |data| data.len() as u64);
        for _ in 0..input.below(12) {
            let (target, size) = self.pick(input);
            let name = NAMES[input.below(NAMES.len())];
            // Sizes that are right are as easy to find as those that are not.
            let size = if input.flag() { size } else { input.number() };
            total = total.wrapping_add(size);
            if kind == Kind::File || input.flag() {
                data.block_sizes.push(size);
            }
            links.push(pb::Link { cid: target.cid, name: Some(name), tsize: Some(target.dag_size) });
        }
        data.file_size = match input.byte() % 3 {
            0 => None,
            1 => Some(total),
            _ => Some(input.number()),
        };
        if kind == Kind::HamtShard || input.flag() {
            data.hash_type = Some(if input.flag() { 0x22 } else { input.number() });
            data.fanout = Some([8, 16, 256, 1024, 0, 7, 2048][input.below(7)]);
        }
        data.mtime = input.flag().then(|| Mtime { seconds: input.number() as i64, nanoseconds: 1 });
        let message = data.encode();
        let node = pb::Node { links, data: Some(&message) };
        let block = Block::seal(Version::V1, 0x70, node.encode().into()).map_err(|_| Error::Build)?;
        let subtree = Subtree { cid: *block.cid(), dag_size: block.data().len() as u64 };
        self.put(block);
        Ok((subtree, total))
    }
}

fn profile(input: &mut Input<'_>) -> Profile {
    Profile::ALL[input.below(Profile::ALL.len())]
}

/// Makes blocks as the input says, and walks through them in every way.
pub(crate) fn walks(bytes: &[u8]) {
    let input = &mut Input(bytes);
    let offset = input.number();
    let mut memory = Memory::default();
    while !input.0.is_empty() && memory.roots.len() < BLOCKS_MAX {
        let _ = memory.make(input);
    }
    for (root, _) in &memory.roots {
        read_from(&memory, root.cid, offset);
        read_from(&memory, root.cid, 0);
        list(&memory, root.cid);
        for name in ["", "a", "a/b", "0/1", "..", "a//\0"] {
            let _ = unixfs::resolve(&memory, root.cid, name);
        }
    }
}

/// A file that can be read to its end has as much content as it says.
fn read_from(memory: &Memory, root: Cid, offset: u64) {
    let mut walk = FileWalk::from_offset(root, offset);
    let mut given = 0;
    for _ in 0..STEPS_MAX {
        let Some(cid) = walk.wanted() else {
            let size = walk.size().expect("its root was read");
            assert_eq!(given, size.saturating_sub(offset));
            return;
        };
        let Some(block) = memory.get(cid) else { return };
        let Ok(piece) = walk.supply(&block) else { return };
        given += piece.len() as u64;
        assert!(walk.upcoming().count() <= PENDING_LINKS_MAX);
    }
}

/// A directory that can be listed has each name once, and a path leads to each entry.
fn list(memory: &Memory, root: Cid) {
    let mut entries = Vec::new();
    let mut walk = DirectoryWalk::new(root);
    let mut steps = 0;
    while let Some(cid) = walk.wanted() {
        let Some(block) = memory.get(cid) else { return };
        let Ok(found) = walk.supply(&block) else { return };
        entries.extend(found);
        steps += 1;
        if steps == STEPS_MAX {
            return;
        }
    }
    let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
    super::dag::check_names(&names);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a name twice: {names:?}");
    for entry in entries.iter().take(24) {
        let found = unixfs::resolve(memory, root, entry.name.as_str());
        assert_eq!(found.expect("it is in the list"), entry.target.cid, "{}", entry.name);
    }
    let sink = &mut |_: Entry| Err(Error::Enough);
    let stopped = unixfs::list(memory, root, sink);
    assert_eq!(matches!(stopped, Err(Error::Enough)), !entries.is_empty());
}
