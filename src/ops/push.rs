//! Sends what is in the blockstore to a Kubo node, and pins it there.
//!
//! A push that broke off goes on where it ended. The blocks are sent children first, so a node that has one from an earlier
//! push has, as a rule, all below it: the nodes of the DAG are asked for from the root downwards, and what is below one that
//! is there is not sent. That is a guess, since Kubo may have collected some of it; so in the end the node is
//! asked whether it has all of the DAG. Where the guess was wrong everything is sent.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::blockstore::{Blockstore, PinName, StoreError};
use crate::dag::block::CODEC_DAG_PB;
use crate::dag::unixfs::Subtree;
use crate::dag::{Block, Cid, car, pb};
use crate::escape;
use crate::remote::kubo::Client;
use crate::remote::{BoxError, Cause, RemoteError};

/// A part of a DAG is asked for only if it is as large as this, in bytes. To ask takes a round trip, and many are made at
/// once; what is smaller is sent in that time.
const ASKED_BYTES_MIN: u64 = 256 * 1024;

/// How many questions are asked at once.
const QUESTIONS_AT_ONCE: usize = 8;

/// The most questions in a push: a DAG of 25 GiB in chunks of 256 KiB. Whatever is not asked for is sent.
const QUESTIONS_MAX: usize = 100_000;

/// Blocks that are read ahead of the connection. Each is at most 2 MiB long.
const BLOCKS_AHEAD: usize = 4;

/// How deep a DAG may be: folders within folders, each perhaps a HAMT of eight levels, with a file at the bottom.
const DEPTH_MAX: usize = 4096;

/// What happens during a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent {
    /// It begins: at most so many bytes are to be sent.
    Begins {
        /// The bytes.
        bytes_max: u64,
    },
    /// So many bytes were sent since the last event of this kind.
    Sent {
        /// The bytes.
        bytes: u64,
    },
    /// The node has less than was thought, so everything is sent.
    Again,
}

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Blocks that were sent.
    pub blocks: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// The name that the pin on the node has, if it is another one: somebody else gave it, and it was left.
    pub other_name: Option<String>,
}

/// Why a push failed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The node did not do its part.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The blockstore does not have what is to be sent, or cannot be read.
    #[error("cannot read what is to be sent")]
    Local(#[source] DagError),
    /// The node says that it read something else than was sent.
    #[error("{remote} read {read} blocks where {sent} were sent")]
    Count {
        /// Where the node is; escaped.
        remote: String,
        /// The blocks that it read.
        read: u64,
        /// The blocks that were sent.
        sent: u64,
    },
}

/// Why a DAG could not be read from the store.
#[derive(Debug, thiserror::Error)]
pub enum DagError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A block is not there.
    #[error("block {cid} is missing in the blockstore")]
    Missing {
        /// The block.
        cid: Box<Cid>,
    },
    /// A block cannot be followed.
    #[error("cannot follow the links of block {cid}")]
    Malformed {
        /// The block.
        cid: Box<Cid>,
        /// Why not.
        #[source]
        source: pb::PbError,
    },
    /// The DAG is deeper than the limit.
    #[error("the DAG is more than {DEPTH_MAX} nodes deep")]
    TooDeep,
}

/// Brings the DAG under `tree` to a node, and pins it there under `name`.
///
/// A pin of the root that has a name which is not one of `name`'s versions (`NAME@…`) keeps it: a root has one pin.
///
/// # Errors
/// Any [`PushError`]. Blocks that were sent may stay on the node; the next push does not send them again.
pub async fn push(
    client: &Client,
    store: &Arc<dyn Blockstore>,
    name: &PinName,
    tree: Subtree,
    events: &(dyn Fn(PushEvent) + Sync),
) -> Result<Pushed, PushError> {
    match client.pin_of(&tree.cid).await? {
        Some(pin) => rename(client, &tree.cid, &pin.name, name).await,
        None => push_new(client, store, name, tree, events).await,
    }
}

/// Gives a pin that is there another name, if it has none or one of the same image.
async fn rename(client: &Client, root: &Cid, found: &str, name: &PinName) -> Result<Pushed, PushError> {
    let mut pushed = Pushed { blocks: 0, bytes: 0, other_name: None };
    if found.is_empty() || image_of(found) == image_of(name.as_str()) {
        if found != name.as_str() {
            client.pin_add(root, name.as_str()).await?;
        }
    } else {
        pushed.other_name = Some(escape::text(found).into_owned());
    }
    Ok(pushed)
}

async fn push_new(
    client: &Client,
    store: &Arc<dyn Blockstore>,
    name: &PinName,
    tree: Subtree,
    events: &(dyn Fn(PushEvent) + Sync),
) -> Result<Pushed, PushError> {
    let root = tree.cid;
    let found = Found::ask(client, store.as_ref(), tree).await?;
    events(PushEvent::Begins { bytes_max: tree.dag_size.saturating_sub(found.bytes) });
    if !found.roots.is_empty() {
        let (blocks, bytes) = send(client, store, root, found.roots, events).await?;
        // To pin what is not there would have Kubo ask its peers for it, for as long as it is let.
        if client.has_dag(&root).await? {
            client.pin_add(&root, name.as_str()).await?;
            return Ok(Pushed { blocks, bytes, other_name: None });
        }
        events(PushEvent::Again);
        events(PushEvent::Begins { bytes_max: tree.dag_size });
    }
    let (blocks, bytes) = send(client, store, root, HashSet::new(), events).await?;
    client.pin_add(&root, name.as_str()).await?;
    Ok(Pushed { blocks, bytes, other_name: None })
}

/// What stands before the version in the name of a pin.
fn image_of(name: &str) -> &str {
    name.split_once('@').map_or(name, |(image, _)| image)
}

/// What a node seems to have already.
#[derive(Default)]
struct Found {
    roots: HashSet<Cid>,
    /// What is below them, in bytes, each as often as it is linked.
    bytes: u64,
}

impl Found {
    /// Asks for the root and, level by level, for what is below nodes that are not there.
    async fn ask(client: &Client, store: &dyn Blockstore, tree: Subtree) -> Result<Self, PushError> {
        let mut found = Self::default();
        let mut asked = HashSet::from([tree.cid]);
        let mut level = vec![tree];
        while !level.is_empty() {
            let questions = stream::iter(level)
                .map(|part| async move { client.has_block(&part.cid).await.map(|is_there| (part, is_there)) });
            let mut answers = questions.buffer_unordered(QUESTIONS_AT_ONCE);
            let mut next = Vec::new();
            while let Some(answer) = answers.next().await {
                let (part, is_there) = answer?;
                if is_there {
                    found.roots.insert(part.cid);
                    found.bytes = found.bytes.saturating_add(part.dag_size);
                    continue;
                }
                for link in large_links(store, &part.cid).map_err(PushError::Local)? {
                    if asked.len() < QUESTIONS_MAX && asked.insert(link.cid) {
                        next.push(link);
                    }
                }
            }
            level = next;
        }
        Ok(found)
    }
}

/// What a node links to, if it is worth a question.
fn large_links(store: &dyn Blockstore, cid: &Cid) -> Result<Vec<Subtree>, DagError> {
    if cid.codec() != CODEC_DAG_PB {
        return Ok(Vec::new());
    }
    let block = get(store, cid)?;
    let node = pb::Node::decode(block.data()).map_err(|source| DagError::Malformed { cid: Box::new(*cid), source })?;
    let links = node.links.iter().map(|link| Subtree { cid: link.cid, dag_size: link.tsize.unwrap_or(0) });
    Ok(links.filter(|link| link.dag_size >= ASKED_BYTES_MIN).collect())
}

fn get(store: &dyn Blockstore, cid: &Cid) -> Result<Block, DagError> {
    store.get(cid)?.ok_or_else(|| DagError::Missing { cid: Box::new(*cid) })
}

/// Sends the DAG but what is below `skipped`; gives the number of blocks and of their bytes. If nothing is skipped the root
/// is pinned at once, so that nothing of it is collected in between.
async fn send(
    client: &Client,
    store: &Arc<dyn Blockstore>,
    root: Cid,
    skipped: HashSet<Cid>,
    events: &(dyn Fn(PushEvent) + Sync),
) -> Result<(u64, u64), PushError> {
    if skipped.contains(&root) {
        return Ok((0, 0));
    }
    let is_whole = skipped.is_empty();
    let (sender, blocks) = mpsc::channel(BLOCKS_AHEAD);
    let store = store.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let mut walk = Walk { store: store.as_ref(), skipped, seen: HashSet::new() };
        // Nobody receives any more once the request has failed, which is said elsewhere.
        if let Err(error) = walk.children_first(root, &mut |block| sender.blocking_send(Ok(block)).is_ok()) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    let sent = Arc::new(Sent::default());
    let counted = sent.clone();
    let sections = stream::unfold(blocks, |mut blocks| async { Some((blocks.recv().await?, blocks)) });
    let car = sections.flat_map(move |block: Result<Block, DagError>| stream::iter(section(block, &counted)));
    let header = stream::iter([Ok(Bytes::from(car::encode_header(&[root])))]);
    let car = header.chain(car);
    let importing =
        async { if is_whole { client.dag_import(car, &root).await } else { client.dag_import_parts(car).await } };
    let mut importing = std::pin::pin!(importing);
    let mut told = 0;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
    let imported = loop {
        tokio::select! {
            imported = &mut importing => break imported,
            _ = tick.tick() => sent.tell(&mut told, events),
        }
    };
    sent.tell(&mut told, events);
    let imported = imported.map_err(local_if_source)?;
    // Where it panicked the channel was closed early, and the pin would not have come about.
    let _ = reader.await;
    let blocks = sent.blocks.load(Ordering::Relaxed);
    if imported.blocks != blocks {
        let remote = client.address().to_string();
        return Err(PushError::Count { remote, read: imported.blocks, sent: blocks });
    }
    Ok((blocks, told))
}

/// How much was handed to the connection.
#[derive(Default)]
struct Sent {
    blocks: AtomicU64,
    bytes: AtomicU64,
}

impl Sent {
    fn tell(&self, told: &mut u64, events: &(dyn Fn(PushEvent) + Sync)) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        if bytes > *told {
            events(PushEvent::Sent { bytes: bytes - *told });
            *told = bytes;
        }
    }
}

/// A block as the CAR has it.
fn section(block: Result<Block, DagError>, sent: &Sent) -> Vec<Result<Bytes, BoxError>> {
    match block {
        Ok(block) => {
            sent.blocks.fetch_add(1, Ordering::Relaxed);
            sent.bytes.fetch_add(block.data().len() as u64, Ordering::Relaxed);
            let head = car::encode_section_head(block.cid(), block.data().len());
            vec![Ok(Bytes::from(head)), Ok(block.data().clone())]
        }
        Err(error) => vec![Err(error.into())],
    }
}

/// The error of what was to be sent, if that is why a request failed.
fn local_if_source(error: RemoteError) -> PushError {
    let RemoteError { remote, request, cause } = error;
    match cause {
        Cause::Source(source) => match source.downcast() {
            Ok(error) => PushError::Local(*error),
            Err(source) => RemoteError { remote, request, cause: Cause::Source(source) }.into(),
        },
        cause => RemoteError { remote, request, cause }.into(),
    }
}

/// A walk over a DAG that comes to each block once, after all that it links to.
struct Walk<'a> {
    store: &'a dyn Blockstore,
    /// What is not visited, nor what is only below it.
    skipped: HashSet<Cid>,
    /// The CIDs of what was visited, as bytes. Not the hashes: a file may have the bytes of a node, and links only as one.
    seen: HashSet<Box<[u8]>>,
}

/// A node that waits for what it links to.
struct Open {
    block: Block,
    /// In reverse order.
    links: Vec<Cid>,
}

impl Walk<'_> {
    /// Hands out blocks until `take` wants no more.
    fn children_first(&mut self, root: Cid, take: &mut dyn FnMut(Block) -> bool) -> Result<(), DagError> {
        let mut path: Vec<Open> = Vec::new();
        let mut next = Some(root);
        loop {
            if let Some(cid) = next.filter(|cid| self.is_new(cid)) {
                let block = get(self.store, &cid)?;
                let mut links =
                    pb::links(&block).map_err(|source| DagError::Malformed { cid: Box::new(cid), source })?;
                links.reverse();
                if path.len() == DEPTH_MAX {
                    return Err(DagError::TooDeep);
                }
                path.push(Open { block, links });
            }
            let Some(open) = path.last_mut() else { return Ok(()) };
            next = open.links.pop();
            if next.is_none()
                && let Some(done) = path.pop()
                && !take(done.block)
            {
                return Ok(());
            }
        }
    }

    fn is_new(&mut self, cid: &Cid) -> bool {
        if Block::from_identity(cid).is_some() || self.skipped.contains(cid) {
            return false;
        }
        self.seen.insert(cid.to_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use multihash::Multihash;
    use sha2::{Digest, Sha512};

    use super::*;
    use crate::blockstore::MemoryBlockstore;
    use crate::dag::Version;
    use crate::dag::block::{CODEC_RAW, HASH_SHA2_512};

    fn leaf(text: &'static str) -> Block {
        Block::seal(Version::V1, CODEC_RAW, Bytes::from_static(text.as_bytes())).unwrap()
    }

    fn node(children: &[&Block]) -> Block {
        let links = children.iter().map(|child| pb::Link { cid: *child.cid(), name: Some(""), tsize: Some(1 << 20) });
        let node = pb::Node { links: links.collect(), data: None };
        Block::seal(Version::V1, CODEC_DAG_PB, Bytes::from(node.encode())).unwrap()
    }

    fn store(blocks: &[&Block]) -> MemoryBlockstore {
        let store = MemoryBlockstore::default();
        let mut writer = store.writer().unwrap();
        for block in blocks {
            writer.put(block).unwrap();
        }
        writer.commit(&[]).unwrap();
        store
    }

    fn walk(store: &MemoryBlockstore, root: &Block, skipped: &[&Block]) -> Result<Vec<Cid>, DagError> {
        let skipped = skipped.iter().map(|block| *block.cid()).collect();
        let mut walk = Walk { store, skipped, seen: HashSet::new() };
        let mut cids = Vec::new();
        walk.children_first(*root.cid(), &mut |block| {
            cids.push(*block.cid());
            true
        })?;
        Ok(cids)
    }

    #[test]
    fn children_come_first_and_once() {
        let (a, b) = (leaf("a"), leaf("b"));
        let inner = node(&[&a, &b, &a]);
        let root = node(&[&a, &inner, &inner]);
        let store = store(&[&a, &b, &inner, &root]);
        let cids = |blocks: &[&Block]| blocks.iter().map(|block| *block.cid()).collect::<Vec<_>>();
        assert_eq!(walk(&store, &root, &[]).unwrap(), cids(&[&a, &b, &inner, &root]));
        assert_eq!(walk(&store, &root, &[&inner]).unwrap(), cids(&[&a, &root]));
        assert_eq!(walk(&store, &root, &[&root]).unwrap(), []);
        assert_eq!(walk(&store, &a, &[]).unwrap(), cids(&[&a]));
    }

    #[test]
    fn a_file_with_the_bytes_of_a_node_does_not_stand_for_it() {
        let a = leaf("a");
        let inner = node(&[&a]);
        let file = Block::seal(Version::V1, CODEC_RAW, inner.data().clone()).unwrap();
        let root = node(&[&file, &inner]);
        let store = store(&[&a, &inner, &root]);
        let expected: Vec<_> = [&file, &a, &inner, &root].map(|block| *block.cid()).into();
        assert_eq!(walk(&store, &root, &[]).unwrap(), expected);
    }

    #[test]
    fn longer_hashes_are_visited_once_too() {
        let mut blocks = vec![leaf("a")];
        // Visited as often as it is linked, the leaf would be 2⁴⁰ times.
        for _ in 0..40 {
            let child = blocks.last().unwrap();
            let data = node(&[child, child]).data().clone();
            let hash = Multihash::wrap(HASH_SHA2_512, &Sha512::digest(&data)).unwrap();
            blocks.push(Block::new(Cid::new_v1(CODEC_DAG_PB, hash), data).unwrap());
        }
        let store = store(&blocks.iter().collect::<Vec<_>>());
        assert_eq!(walk(&store, blocks.last().unwrap(), &[]).unwrap().len(), 41);
    }

    #[test]
    fn what_is_missing_is_said() {
        let (a, b) = (leaf("a"), leaf("b"));
        let root = node(&[&a, &b]);
        let error = walk(&store(&[&a, &root]), &root, &[]).unwrap_err();
        assert!(matches!(&error, DagError::Missing { cid } if **cid == *b.cid()), "{error}");
    }

    #[test]
    fn depth_is_bounded() {
        let mut blocks = vec![leaf("a")];
        for _ in 0..DEPTH_MAX {
            blocks.push(node(&[blocks.last().unwrap()]));
        }
        let store = store(&blocks.iter().collect::<Vec<_>>());
        assert_eq!(walk(&store, &blocks[DEPTH_MAX - 1], &[]).unwrap().len(), DEPTH_MAX);
        assert!(matches!(walk(&store, &blocks[DEPTH_MAX], &[]), Err(DagError::TooDeep)));
    }

    #[test]
    fn versions_of_an_image_share_a_name() {
        assert_eq!(image_of("pid0@0.1.0"), image_of("pid0@0.2.0+a@b"));
        assert_ne!(image_of("pid0@0.1.0"), image_of("pid1"));
    }
}
