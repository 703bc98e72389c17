//! What `ww get`, `ww ls` and `ww cat` do with content that is in the blockstore.

use bytes::Bytes;
use futures::{StreamExt, stream};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::fetch::Source;
use crate::blockstore::{Blockstore, StoreError};
use crate::dag::unixfs::{self, Blocks, Entry, EntryName, Node, NodeError, WalkError};
use crate::dag::{Block, Cid};
use crate::remote::Cause;
use crate::tree::{self, BlockSource, BoxError, ExportError, ExportOptions, Exported};

/// How many blocks are asked for at once to tell what the entries of a directory are.
const DETAILS_AT_ONCE: usize = 16;

/// Why content that should be here cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The blockstore failed.
    #[error("cannot read the blockstore")]
    Store(#[from] StoreError),
    /// A block is not here.
    #[error("block {cid} is not in the blockstore")]
    Missing {
        /// The block.
        cid: Box<Cid>,
    },
    /// The blocks are not what was asked for.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The root is not UnixFS.
    #[error("{cid} is not valid UnixFS")]
    Node {
        /// The root.
        cid: Box<Cid>,
        /// What is wrong with it.
        #[source]
        source: NodeError,
    },
    /// What was read could not be passed on.
    #[error("cannot write what was read")]
    Output(#[source] io::Error),
}

/// The blocks of a store, and of nobody else.
pub(super) struct Local<'a>(pub(super) &'a dyn Blockstore);

impl Blocks for Local<'_> {
    type Error = ContentError;

    fn block(&self, cid: &Cid) -> Result<Block, ContentError> {
        self.0.get(cid)?.ok_or_else(|| ContentError::Missing { cid: Box::new(*cid) })
    }
}

impl BlockSource for Local<'_> {
    fn get(&self, cid: &Cid) -> Result<Option<Block>, BoxError> {
        Ok(self.0.get(cid)?)
    }
}

/// Writes the tree that `root` names to `target`; see [`tree::export()`].
///
/// # Errors
/// Any [`ExportError`]. What its source is of [`ExportError::Source`] is a [`StoreError`].
pub fn get(
    store: &dyn Blockstore,
    root: Cid,
    target: &Path,
    options: &ExportOptions<'_>,
) -> Result<Exported, ExportError> {
    tree::export(&Local(store), root, target, options)
}

/// Gives the content of a file to a sink, piece by piece.
///
/// # Errors
/// If it is not a file, not whole, or what the sink gives.
pub fn cat(
    store: &dyn Blockstore,
    root: Cid,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), ContentError> {
    unixfs::read_file(&Local(store), root, &mut |piece: Bytes| sink(&piece).map_err(ContentError::Output))
}

/// The length of a file's content in bytes.
///
/// # Errors
/// If it is not a file, or its root is not here.
pub fn file_size(store: &dyn Blockstore, root: Cid) -> Result<u64, ContentError> {
    match details(&Local(store).block(&root)?) {
        Ok(Details { kind: EntryKind::File, size_bytes: Some(size) }) => Ok(size),
        Ok(_) => Err(WalkError::NotAFile { cid: Box::new(root) }.into()),
        Err(source) => Err(ContentError::Node { cid: Box::new(root), source }),
    }
}

/// What an entry of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// What is known of an entry when its own block was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Details {
    /// What it is.
    pub kind: EntryKind,
    /// The length of a file's content or of a symbolic link's target, in bytes.
    pub size_bytes: Option<u64>,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEntry {
    /// Its name.
    pub name: EntryName,
    /// Its root.
    pub cid: Cid,
    /// `None` if its block was not looked at, could not be had, or is not UnixFS.
    pub details: Option<Details>,
}

/// The entries of a directory, sorted by name, without details.
///
/// # Errors
/// If it is not a directory, or not all of its blocks are here.
pub fn ls(store: &dyn Blockstore, root: Cid) -> Result<Vec<ListedEntry>, ContentError> {
    let mut entries = Vec::new();
    unixfs::list(&Local(store), root, &mut |Entry { name, target }| {
        entries.push(ListedEntry { name, cid: target.cid, details: None });
        Ok(())
    })?;
    entries.sort_unstable_by(|first, second| first.name.cmp(&second.name));
    Ok(entries)
}

/// Finds out what entries are, from their blocks: those of the store, and those that sources give. The blocks are not kept. A
/// source that fails otherwise than by not having a block is not asked again; what nobody has stays unknown.
///
/// # Errors
/// If the store cannot be read.
pub async fn look_up_details(
    store: &dyn Blockstore,
    sources: &[Arc<dyn Source>],
    entries: &mut [ListedEntry],
) -> Result<(), StoreError> {
    let sources: Vec<_> = sources.iter().map(|source| (source, AtomicBool::new(true))).collect();
    let found = stream::iter(entries.iter_mut().map(|entry| {
        let sources = &sources;
        async move {
            let block = match store.get(&entry.cid)? {
                Some(block) => Some(block),
                None => ask(sources, &entry.cid).await,
            };
            entry.details = block.and_then(|block| details(&block).ok());
            Ok(())
        }
    }));
    let results: Vec<Result<(), StoreError>> = found.buffer_unordered(DETAILS_AT_ONCE).collect().await;
    results.into_iter().collect()
}

async fn ask(sources: &[(&Arc<dyn Source>, AtomicBool)], cid: &Cid) -> Option<Block> {
    for (source, is_good) in sources {
        if !is_good.load(Ordering::Relaxed) {
            continue;
        }
        match source.block(cid).await {
            Ok(block) => return Some(block),
            Err(error) if matches!(error.cause, Cause::NotFound { .. }) => {}
            Err(_) => is_good.store(false, Ordering::Relaxed),
        }
    }
    None
}

fn details(block: &Block) -> Result<Details, NodeError> {
    Ok(match Node::decode(block)? {
        Node::File(file) => Details { kind: EntryKind::File, size_bytes: Some(file.size) },
        Node::Directory(_) | Node::Shard(_) => Details { kind: EntryKind::Directory, size_bytes: None },
        Node::Symlink(target) => Details { kind: EntryKind::Symlink, size_bytes: Some(target.len() as u64) },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::blockstore::{MemoryBlockstore, PinName};
    use crate::dag::unixfs::Profile;
    use crate::ops::{PublishItem, PublishOptions, publish};

    /// A store with one tree, and its root.
    fn example() -> (MemoryBlockstore, Cid, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().canonicalize().unwrap().join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(tree.join("sub/large"), vec![7; 3_000_000]).unwrap();
        fs::write(tree.join("a"), "hello\n").unwrap();
        std::os::unix::fs::symlink("a", tree.join("link")).unwrap();
        let store = MemoryBlockstore::default();
        let options = PublishOptions {
            profile: Profile::default(),
            allow_private_keys: false,
            cancel: &|| false,
            progress: &|_| {},
        };
        let item = PublishItem { name: PinName::new("tree").unwrap(), path: tree, expected: None };
        let root = publish(&store, &[item], &options).unwrap().items[0].subtree.cid;
        (store, root, dir)
    }

    #[test]
    fn content_is_read_from_the_store() {
        let (store, root, dir) = example();
        let large = unixfs::resolve(&Local(&store), root, "sub/large").unwrap();
        let mut content = Vec::new();
        cat(&store, large, &mut |piece| {
            content.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        assert!(content == vec![7; 3_000_000]);
        assert_eq!(file_size(&store, large).unwrap(), 3_000_000);
        let target = dir.path().join("out");
        assert_eq!(get(&store, root, &target, &ExportOptions::default()).unwrap().files, 2);
        assert_eq!(fs::read_to_string(target.join("link")).unwrap(), "hello\n");
    }

    #[test]
    fn entries_are_listed_with_details() {
        let (store, root, _dir) = example();
        let mut entries = ls(&store, root).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.name.to_string()).collect();
        assert_eq!(names, ["a", "link", "sub"]);
        assert!(entries.iter().all(|entry| entry.details.is_none()));
        futures::executor::block_on(look_up_details(&store, &[], &mut entries)).unwrap();
        let details: Vec<_> =
            entries.iter().map(|entry| entry.details.map(|details| (details.kind, details.size_bytes))).collect();
        let expected = [(EntryKind::File, Some(6)), (EntryKind::Symlink, Some(1)), (EntryKind::Directory, None)];
        assert_eq!(details, expected.map(Some));
        // Nobody has the blocks.
        let empty = MemoryBlockstore::default();
        futures::executor::block_on(look_up_details(&empty, &[], &mut entries)).unwrap();
        assert!(entries.iter().all(|entry| entry.details.is_none()));
    }

    #[test]
    fn wrong_kinds_are_refused() {
        let (store, root, _dir) = example();
        let file = unixfs::resolve(&Local(&store), root, "a").unwrap();
        let not_a_file = Err::<(), _>(cat(&store, root, &mut |_| Ok(())).unwrap_err());
        assert!(matches!(not_a_file, Err(ContentError::Walk(WalkError::NotAFile { .. }))));
        assert!(matches!(file_size(&store, root), Err(ContentError::Walk(WalkError::NotAFile { .. }))));
        assert!(matches!(ls(&store, file), Err(ContentError::Walk(WalkError::NotADirectory { .. }))));
        let empty = MemoryBlockstore::default();
        assert!(matches!(ls(&empty, root), Err(ContentError::Missing { .. })));
        let error = cat(&store, file, &mut |_| Err(io::ErrorKind::BrokenPipe.into())).unwrap_err();
        assert!(matches!(error, ContentError::Output(_)));
    }
}
