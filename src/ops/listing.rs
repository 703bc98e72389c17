//! What a tree holds, path by path, each with its CID.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::Bytes;

use crate::dag::block::CODEC_RAW;
use crate::dag::unixfs::{
    self, BuildError, DirectoryWalk, Entry, EntryName, Node, NodeError, Profile, Subtree, WalkError,
};
use crate::dag::{Block, Cid};
use crate::escape;
use crate::image::ImageError;
use crate::tree::{self, BlockSink, BoxError, ImportError, ImportOptions, StatCache};
use crate::wetfile::{COMPONENT_BYTES_MAX, COMPONENTS_MAX, PATH_BYTES_MAX};

/// Most objects of a tree. Directories may share blocks, so a small archive can stand for more paths than a disk holds.
const OBJECTS_MAX: usize = 1_000_000;

/// Most bytes of the paths and symlink targets of a tree, all together, which are kept in memory. Paths of usual trees have
/// some 50 bytes.
const TEXT_BYTES_MAX: usize = 128 << 20;

/// Why a tree could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// It could not be read from disk.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// It is not built as UnixFS is.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A block is not UnixFS.
    #[error("block {cid} is not valid UnixFS")]
    Node {
        /// The block.
        cid: Box<Cid>,
        /// What is wrong with it.
        #[source]
        source: NodeError,
    },
    /// A block of it is missing.
    #[error("block {cid} is missing, which {} needs", shown(.path))]
    Missing {
        /// The block.
        cid: Box<Cid>,
        /// What it belongs to.
        path: String,
    },
    /// A block of it could not be had.
    #[error("cannot read a block of {}", shown(.path))]
    Block {
        /// What it belongs to.
        path: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// Folders are nested too deep.
    #[error("{} is more than {COMPONENTS_MAX} folders deep", shown(.path))]
    TooDeep {
        /// The first that is too deep.
        path: String,
    },
    /// A name or path is longer than those of images.
    #[error("in {} is a name of more than {COMPONENT_BYTES_MAX} bytes, or a path of more than {PATH_BYTES_MAX}", shown(.folder))]
    TooLong {
        /// The folder that has it.
        folder: String,
    },
    /// There is too much in it.
    #[error("there are more than {OBJECTS_MAX} files and folders in it")]
    TooMany,
    /// The paths and symlink targets in it are too long, all together.
    #[error("its paths and symlink targets have more than {TEXT_BYTES_MAX} bytes")]
    TooMuchText,
    /// The tree of a CID is not at hand.
    #[error("the content {cid} is not here: `ww build` brings it")]
    NotHere {
        /// The CID.
        cid: Box<Cid>,
    },
    /// A base that is a file or a symlink.
    #[error("its base {cid} is not a directory")]
    BaseNotFolder {
        /// The CID.
        cid: Box<Cid>,
    },
    /// What a glob fits cannot be told, or is nothing.
    #[error(transparent)]
    Glob(#[from] ImageError),
    /// It cannot be named by its content.
    #[error("it cannot be named by its content")]
    Build(#[from] BuildError),
}

impl ListingError {
    /// Whether it was stopped from outside.
    pub(super) fn is_stop(&self) -> bool {
        matches!(self, Self::Import(ImportError::Cancelled))
    }
}

fn shown(path: &str) -> String {
    if path.is_empty() { "the root".to_owned() } else { format!("`{}`", escape::text(path)) }
}

/// What a tree holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The tree itself.
    pub root: Subtree,
    /// Everything in it: each folder before what is in it, the names of a folder sorted by bytes. A root that is no
    /// folder is the only object and has the empty path.
    pub objects: Vec<Listed>,
}

/// One object of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it is: components joined by `/`.
    pub path: String,
    /// What names its content.
    pub cid: Cid,
    /// Size in bytes of all its blocks, as the folder that holds it says.
    pub dag_size: u64,
    /// What it is.
    pub kind: ListedKind,
}

/// What an object of a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListedKind {
    /// A folder.
    Folder {
        /// Whether nothing is in it.
        is_empty: bool,
    },
    /// A file.
    File {
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// A symlink.
    Symlink {
        /// Its target; what is not UTF-8 in it was replaced.
        target: String,
    },
}

impl Listing {
    /// Lists what is at a path of the disk: a folder, a file or a symlink, which is not followed.
    ///
    /// # Errors
    ///
    /// [`ListingError`].
    pub fn of_disk(
        path: &Path,
        options: &ImportOptions<'_>,
        cache: Option<&mut StatCache>,
    ) -> Result<Self, ListingError> {
        let mut nodes = Nodes::default();
        let imported = tree::import(path, options, cache, Some(&mut nodes))?;
        // What is no node is a piece of a file, or a file that the cache knew.
        let node = |cid: &Cid| if cid.codec() == CODEC_RAW { None } else { nodes.0.get(cid).cloned() };
        Self::of_blocks(imported.subtree, &|cid| Ok(node(cid)), false)
    }

    /// Lists a file with this content, which is short enough for one piece.
    ///
    /// # Panics
    ///
    /// If it is longer than a block may be.
    pub(super) fn of_text(profile: &Profile, text: &str) -> Self {
        let part = unixfs::leaf(profile, Bytes::copy_from_slice(text.as_bytes()));
        let (_, part) = part.expect("the text is short enough for a block");
        let root = part.subtree();
        let kind = ListedKind::File { size_bytes: part.size() };
        let file = Listed { path: String::new(), cid: root.cid, dag_size: root.dag_size, kind };
        Self { root, objects: vec![file] }
    }

    /// Lists a folder that has these files and symlinks at their paths, and nothing else.
    ///
    /// # Errors
    ///
    /// If a folder of it cannot be named by its content.
    pub(super) fn of_leaves(profile: &Profile, leaves: Vec<Listed>) -> Result<Self, BuildError> {
        let mut root = Branch::default();
        for leaf in leaves {
            let path = leaf.path.clone();
            root.insert(&path, leaf);
        }
        let mut objects = Vec::new();
        let root = root.list(profile, String::new(), &mut objects)?;
        // A folder is not in itself.
        objects.remove(0);
        Ok(Self { root, objects })
    }

    /// Lists a DAG. `block` gives its blocks, `None` for those that are not there; of files the first block is enough,
    /// and need not be there unless `is_whole` says so.
    ///
    /// # Errors
    ///
    /// [`ListingError`].
    pub fn of_blocks(
        root: Subtree,
        block: &dyn Fn(&Cid) -> Result<Option<Block>, BoxError>,
        is_whole: bool,
    ) -> Result<Self, ListingError> {
        let mut lister = Lister { block, is_whole, objects: Vec::new(), known: 1, text_bytes: 0 };
        lister.object(String::new(), root)?;
        let mut objects = lister.objects;
        // A folder is not in itself.
        if objects.first().is_some_and(|first| matches!(first.kind, ListedKind::Folder { .. })) {
            objects.remove(0);
        }
        Ok(Self { root, objects })
    }

    /// The CIDs of all but the folders that hold something, by path.
    pub fn leaves(&self) -> BTreeMap<&str, &Cid> {
        let leaves = self.objects.iter().filter(|object| object.kind != ListedKind::Folder { is_empty: false });
        leaves.map(|object| (object.path.as_str(), &object.cid)).collect()
    }
}

/// A folder that is put together. Paths are bounded in depth, so what recurses here ends.
#[derive(Default)]
struct Branch {
    leaf: Option<Listed>,
    inner: BTreeMap<String, Branch>,
}

impl Branch {
    fn insert(&mut self, path: &str, leaf: Listed) {
        let (name, rest) = path.split_once('/').unwrap_or((path, ""));
        let branch = self.inner.entry(name.to_owned()).or_default();
        if rest.is_empty() { branch.leaf = Some(leaf) } else { branch.insert(rest, leaf) }
    }

    fn list(self, profile: &Profile, path: String, objects: &mut Vec<Listed>) -> Result<Subtree, BuildError> {
        if let Some(leaf) = self.leaf {
            let root = Subtree { cid: leaf.cid, dag_size: leaf.dag_size };
            objects.push(leaf);
            return Ok(root);
        }
        let kind = ListedKind::Folder { is_empty: self.inner.is_empty() };
        let (mut entries, mut inside) = (Vec::new(), Vec::new());
        for (name, branch) in self.inner {
            let inner = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let target = branch.list(profile, inner, &mut inside)?;
            entries.push(Entry { name: EntryName::new(name)?, target });
        }
        let root = unixfs::directory(profile, entries, &mut |_| Ok::<_, BuildError>(()))?;
        objects.push(Listed { path, cid: root.cid, dag_size: root.dag_size, kind });
        objects.append(&mut inside);
        Ok(root)
    }
}

/// Keeps the blocks that are nodes: those of folders, symlinks, and files of more than one piece.
#[derive(Default)]
struct Nodes(HashMap<Cid, Block>);

impl BlockSink for Nodes {
    fn put(&mut self, block: &Block) -> Result<(), BoxError> {
        self.0.insert(*block.cid(), block.clone());
        Ok(())
    }

    fn has(&mut self, _: &Cid) -> Result<bool, BoxError> {
        Ok(true)
    }

    fn has_all(&self) -> bool {
        true
    }

    /// They are not nodes.
    fn wants_pieces(&self) -> bool {
        false
    }
}

struct Lister<'b> {
    block: &'b dyn Fn(&Cid) -> Result<Option<Block>, BoxError>,
    is_whole: bool,
    objects: Vec<Listed>,
    /// Number of objects that are there or to come.
    known: usize,
    /// Bytes of what is kept as text.
    text_bytes: usize,
}

impl Lister<'_> {
    fn block(&self, path: &str, cid: &Cid) -> Result<Option<Block>, ListingError> {
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(block));
        }
        let found = (self.block)(cid).map_err(|source| ListingError::Block { path: path.to_owned(), source })?;
        match found {
            None if self.is_whole => Err(ListingError::Missing { cid: Box::new(*cid), path: path.to_owned() }),
            found => Ok(found),
        }
    }

    /// Adds an object and what is in it.
    fn object(&mut self, path: String, subtree: Subtree) -> Result<(), ListingError> {
        self.keep_text(path.len())?;
        if path.split('/').count() > COMPONENTS_MAX {
            return Err(ListingError::TooDeep { path });
        }
        let cid = subtree.cid;
        let kind = match self.block(&path, &cid)? {
            None => ListedKind::File { size_bytes: subtree.dag_size },
            Some(block) => {
                match Node::decode(&block).map_err(|source| ListingError::Node { cid: Box::new(cid), source })? {
                    Node::File(node) => ListedKind::File { size_bytes: node.size },
                    Node::Symlink(target) => {
                        self.keep_text(target.len())?;
                        ListedKind::Symlink { target: String::from_utf8_lossy(target).into_owned() }
                    }
                    Node::Directory(_) | Node::Shard(_) => return self.folder(path, subtree),
                }
            }
        };
        self.objects.push(Listed { path, cid, dag_size: subtree.dag_size, kind });
        Ok(())
    }

    fn keep_text(&mut self, bytes: usize) -> Result<(), ListingError> {
        self.text_bytes = self.text_bytes.saturating_add(bytes);
        if self.text_bytes > TEXT_BYTES_MAX { Err(ListingError::TooMuchText) } else { Ok(()) }
    }

    fn folder(&mut self, path: String, Subtree { cid, dag_size }: Subtree) -> Result<(), ListingError> {
        let mut entries = self.entries(&path, cid)?;
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let kind = ListedKind::Folder { is_empty: entries.is_empty() };
        self.objects.push(Listed { path: path.clone(), cid, dag_size, kind });
        for entry in entries {
            let name = entry.name.as_str();
            let inner = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            self.object(inner, entry.target)?;
        }
        Ok(())
    }

    fn entries(&mut self, path: &str, cid: Cid) -> Result<Vec<Entry>, ListingError> {
        let mut walk = DirectoryWalk::new(cid);
        let mut entries = Vec::new();
        while let Some(wanted) = walk.wanted().copied() {
            let missing = || ListingError::Missing { cid: Box::new(wanted), path: path.to_owned() };
            let block = self.block(path, &wanted)?.ok_or_else(missing)?;
            let supplied = walk.supply(&block)?;
            // Before anything is kept of them: names may be as long as blocks, and folders may share them.
            let is_too_long = |entry: &Entry| {
                let length = entry.name.as_str().len();
                length > COMPONENT_BYTES_MAX || path.len() + 1 + length > PATH_BYTES_MAX
            };
            if supplied.iter().any(is_too_long) {
                return Err(ListingError::TooLong { folder: path.to_owned() });
            }
            self.known += supplied.len();
            if self.known > OBJECTS_MAX {
                return Err(ListingError::TooMany);
            }
            entries.extend(supplied);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn list(path: &Path) -> Listing {
        Listing::of_disk(path, &ImportOptions::new(Profile::default()), None).unwrap()
    }

    #[test]
    fn everything_is_listed_with_its_cid() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/empty")).unwrap();
        fs::write(dir.path().join("etc-x"), "hello world").unwrap();
        fs::write(dir.path().join("etc/large"), vec![0; 1_048_577]).unwrap();
        std::os::unix::fs::symlink("../x", dir.path().join("link")).unwrap();
        let listing = list(dir.path());
        let shown: Vec<_> = listing.objects.iter().map(|object| (object.path.as_str(), object.kind.clone())).collect();
        let file = |size_bytes| ListedKind::File { size_bytes };
        assert_eq!(
            shown,
            [
                ("etc", ListedKind::Folder { is_empty: false }),
                ("etc/empty", ListedKind::Folder { is_empty: true }),
                ("etc/large", file(1_048_577)),
                ("etc-x", file(11)),
                ("link", ListedKind::Symlink { target: "../x".to_owned() }),
            ]
        );
        let leaves = listing.leaves();
        assert_eq!(leaves.keys().copied().collect::<Vec<_>>(), ["etc-x", "etc/empty", "etc/large", "link"]);
        // printf hello\ world | ipfs add -Q --cid-version=1
        assert_eq!(leaves["etc-x"].to_string(), "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e");
        // head -c 1048577 /dev/zero, under this profile
        assert_eq!(leaves["etc/large"].to_string(), "bafybeihd4yzq7n5umhjngdum4r6k2to7egxfkf2jz6thvwzf6djus22cmq");
    }

    #[test]
    fn a_text_is_listed_as_if_it_were_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cell.toml");
        fs::write(&path, "cell = 1\n").unwrap();
        for profile in Profile::ALL {
            let listed = Listing::of_disk(&path, &ImportOptions::new(profile), None).unwrap();
            let text = Listing::of_text(&profile, "cell = 1\n");
            assert_eq!((text.root, text.leaves()), (listed.root, listed.leaves()), "{profile}");
        }
    }

    #[test]
    fn what_a_cache_knows_is_listed_the_same() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("large"), vec![0; 3 << 20]).unwrap();
        fs::write(dir.path().join("small"), "x").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(150));
        let mut cache = StatCache::new(&Profile::default());
        let options = ImportOptions::new(Profile::default());
        let first = Listing::of_disk(dir.path(), &options, Some(&mut cache)).unwrap();
        assert_eq!(cache.len(), 2);
        let second = Listing::of_disk(dir.path(), &options, Some(&mut cache)).unwrap();
        assert_eq!(first.leaves(), second.leaves());
        assert_eq!(first.root, second.root);
    }

    /// Few blocks that stand for very many paths.
    #[test]
    fn a_bomb_is_refused() {
        use crate::dag::unixfs::{BuildError, EntryName, directory};
        let profile = Profile::default();
        let mut blocks = HashMap::new();
        let mut keep = |block: Block| -> Result<(), BuildError> {
            blocks.insert(*block.cid(), block);
            Ok(())
        };
        let mut root = directory(&profile, Vec::new(), &mut keep).unwrap();
        for _ in 0..COMPONENTS_MAX - 1 {
            let target = Subtree { cid: root.cid, dag_size: 0 };
            let entry = |name| Entry { name: EntryName::new(name).unwrap(), target };
            root = directory(&profile, vec![entry("a"), entry("b")], &mut keep).unwrap();
        }
        let listing = Listing::of_blocks(root, &|cid| Ok(blocks.get(cid).cloned()), true);
        assert!(matches!(listing, Err(ListingError::TooMany)));
    }

    /// A tree of folders, each with these names for the next one, as blocks.
    fn nested(names: &[String], depth: usize, leaf: Subtree, keep: &mut HashMap<Cid, Block>) -> Subtree {
        use crate::dag::unixfs::{BuildError, EntryName, directory};
        let mut keep = |block: Block| -> Result<(), BuildError> {
            keep.insert(*block.cid(), block);
            Ok(())
        };
        let mut target = leaf;
        for _ in 0..depth {
            let entry = |name: &String| Entry { name: EntryName::new(name.clone()).unwrap(), target };
            target = directory(&Profile::default(), names.iter().map(entry).collect(), &mut keep).unwrap();
        }
        target
    }

    #[test]
    fn long_names_and_paths_are_refused() {
        let empty = unixfs::symlink(&Profile::default(), b"x").unwrap();
        let list = |names: &[String], depth: usize, leaf: &(Block, Subtree)| {
            let mut blocks = HashMap::from([(*leaf.0.cid(), leaf.0.clone())]);
            let root = nested(names, depth, leaf.1, &mut blocks);
            Listing::of_blocks(root, &|cid| Ok(blocks.get(cid).cloned()), true)
        };
        assert!(list(&["x".repeat(255)], 4, &empty).is_ok());
        assert!(matches!(list(&["x".repeat(256)], 1, &empty), Err(ListingError::TooLong { .. })));
        assert!(matches!(list(&["x".repeat(255)], 5, &empty), Err(ListingError::TooLong { .. })));
        // Few blocks that stand for many bytes, in paths and in targets.
        let names = ["a", "b"].map(|name| name.repeat(58));
        assert!(matches!(list(&names, 17, &empty), Err(ListingError::TooMuchText)));
        let large = unixfs::symlink(&Profile::default(), &vec![b'x'; 100_000]).unwrap();
        let names = ["a", "b"].map(str::to_owned);
        assert!(matches!(list(&names, 12, &large), Err(ListingError::TooMuchText)));
    }
}
