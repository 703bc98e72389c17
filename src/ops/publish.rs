//! `ww publish`: trees of files become blocks in the blockstore, under pins.
//!
//! What makes publishing a tree again cheap is a stat cache, which the blockstore keeps with the root that the tree had.
//! While that root is pinned, its blocks are all there, as a store that has lost blocks has lost its caches too; so files
//! that the cache knows are neither read nor looked for, and where the root comes out the same nothing is written.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::blockstore::{Blockstore, GcReport, Pin, PinName, StoreError, Writer};
use crate::dag::block::CODEC_RAW;
use crate::dag::unixfs::{Profile, Subtree};
use crate::dag::{Block, Cid, pb};
use crate::escape;
use crate::image::KeyEvidence;
use crate::image::private_key;
use crate::tree::{self, BlockSink, BoxError, FileInspector, ImportError, ImportOptions, RootSymlink, StatCache};

/// Bytes of blocks that are held back until it is known whether the tree differs from what is pinned: the folders of a
/// tree of 50,000 files, with room for some files that were too young for the cache.
const HELD_BYTES_MAX: usize = 8 << 20;

/// A tree to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishItem {
    /// The name to pin it under.
    pub name: PinName,
    /// Where it is: absolute, with no symlink in it, so that the cache is found again.
    pub path: PathBuf,
    /// The root that it must have, where that is known, since it was just built. Then it was looked through for private
    /// keys, too.
    pub expected: Option<Cid>,
}

/// How to publish.
#[derive(Clone, Copy)]
pub struct PublishOptions<'a> {
    /// What the CIDs depend on.
    pub profile: Profile,
    /// Whether files may be published that are probably somebody's private keys.
    pub allow_private_keys: bool,
    /// Is asked all the time, from several threads, and tells whether to give up.
    pub cancel: &'a (dyn Fn() -> bool + Sync),
    /// Is told, from several threads, how many bytes of files were done since it was told last.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Each tree, in the order in which they were given.
    pub items: Vec<PublishedItem>,
    /// The blocks that were not in the store before.
    pub blocks: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// What was collected for the size limit.
    pub collected: Option<GcReport>,
}

/// A tree that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedItem {
    /// The name of its pin.
    pub name: PinName,
    /// Its root.
    pub subtree: Subtree,
    /// The number of its files.
    pub files: u64,
    /// The sum of their sizes in bytes.
    pub size_bytes: u64,
    /// Whether the pin was not there, or was that of another root.
    pub is_changed: bool,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A tree could not be read.
    #[error("{} was not published", escape::path(path))]
    Import {
        /// Where the tree is.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ImportError,
    },
    /// The blockstore failed.
    #[error("cannot keep what was to be published")]
    Store(#[from] StoreError),
    /// A tree has another root than was expected: something changed in between.
    #[error("{} is {found} and not {expected} any more", escape::path(path))]
    Changed {
        /// Where the tree is.
        path: PathBuf,
        /// What it was.
        expected: Box<Cid>,
        /// What it is.
        found: Box<Cid>,
    },
    /// Two trees have one name.
    #[error("two of the trees have the name `{name}`")]
    DuplicateName {
        /// The name.
        name: PinName,
    },
    /// There are files that are probably somebody's private keys.
    #[error("nothing was published, since whoever knows the CID would have {}", listed(.0))]
    PrivateKeys(PrivateKeys),
    /// [`PublishOptions::cancel`] said so.
    #[error("stopped")]
    Cancelled,
}

/// Files that are probably somebody's private keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivateKeys {
    /// The first of them that were found, sorted, with what gave each away; at most [`KEYS_LISTED_MAX`].
    pub files: Vec<(PathBuf, KeyEvidence)>,
    /// How many there are beside these.
    pub others: u64,
}

/// How many private keys are named. Who has more has a folder of them.
const KEYS_LISTED_MAX: usize = 20;

fn listed(found: &PrivateKeys) -> String {
    let plural = if found.files.len() == 1 { "a private key" } else { "private keys" };
    let lines: String =
        found.files.iter().map(|(path, evidence)| format!("\n  {} ({evidence})", escape::path(path))).collect();
    let others = if found.others == 0 { String::new() } else { format!("\n  and {} more", found.others) };
    format!("{plural}:{lines}{others}")
}

/// Finds private keys among the files of an import.
#[derive(Default)]
struct KeyFinder(Mutex<PrivateKeys>);

impl FileInspector for KeyFinder {
    fn content_bytes_max(&self) -> u64 {
        private_key::CONTENT_BYTES_MAX
    }

    fn inspect(&self, name: &str, content: Option<&[u8]>, path: &dyn Fn() -> PathBuf) {
        let Some(evidence) = private_key::evidence(name, content) else { return };
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if found.files.len() < KEYS_LISTED_MAX {
            found.files.push((path(), evidence));
        } else {
            found.others += 1;
        }
    }
}

impl KeyFinder {
    /// That there are none.
    fn check(self) -> Result<(), PublishError> {
        let mut found = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.files.sort_unstable_by(|(first, _), (second, _)| first.cmp(second));
        if found.files.is_empty() { Ok(()) } else { Err(PublishError::PrivateKeys(found)) }
    }
}

/// Brings trees into the blockstore and pins each under its name: all of them, or none.
///
/// # Errors
/// Any [`PublishError`]; pins and blocks are then as they were.
pub fn publish(
    store: &dyn Blockstore,
    items: &[PublishItem],
    options: &PublishOptions<'_>,
) -> Result<Published, PublishError> {
    if let Some(name) = duplicate(items) {
        return Err(PublishError::DuplicateName { name: name.clone() });
    }
    // What is pinned now stays until a writer keeps it.
    let hold = store.hold()?;
    let pins = store.pins()?;
    let mut sink = Sink { store, writer: None, held: Vec::new(), held_bytes: 0, is_pinned: false };
    let mut caches = Vec::new();
    let keys = KeyFinder::default();
    let mut published = Published { items: Vec::new(), blocks: 0, bytes: 0, collected: None };
    for item in items {
        let mut cache = Cache::load(store, options, item)?;
        sink.is_pinned = cache.root.is_some_and(|root| pins.iter().any(|pin| pin.root == root));
        let imported = import(item, options, &keys, &mut cache.stats, &mut sink)?;
        let found = imported.subtree.cid;
        if let Some(expected) = item.expected.filter(|expected| *expected != found) {
            let (expected, found) = (Box::new(expected), Box::new(found));
            return Err(PublishError::Changed { path: item.path.clone(), expected, found });
        }
        caches.push((cache, found));
        published.items.push(PublishedItem {
            name: item.name.clone(),
            subtree: imported.subtree,
            files: imported.files,
            size_bytes: imported.bytes,
            is_changed: !is_pinned_as(&pins, &item.name, &imported.subtree.cid),
        });
    }
    keys.check()?;
    // A pin that is as it was says nothing of blocks that had to be written: some were lost, perhaps.
    if sink.writer.is_some() || published.items.iter().any(|item| item.is_changed) {
        let writer = sink.into_writer()?;
        drop(hold);
        let new: Vec<_> = published.items.iter().map(|item| (item.name.clone(), item.subtree.cid)).collect();
        let committed = writer.commit(&new)?;
        (published.blocks, published.bytes) = (committed.blocks, committed.bytes);
        published.collected = committed.collected;
    }
    for (cache, root) in caches {
        cache.keep(store, root)?;
    }
    Ok(published)
}

fn duplicate(items: &[PublishItem]) -> Option<&PinName> {
    let is_again = |(index, item): (usize, &PublishItem)| items[..index].iter().any(|other| other.name == item.name);
    items.iter().enumerate().find(|entry| is_again(*entry)).map(|(_, item)| &item.name)
}

fn is_pinned_as(pins: &[Pin], name: &PinName, root: &Cid) -> bool {
    pins.iter().any(|pin| pin.name == *name && pin.root == *root)
}

fn looks_for_keys(item: &PublishItem, options: &PublishOptions<'_>) -> bool {
    !options.allow_private_keys && item.expected.is_none()
}

fn import(
    item: &PublishItem,
    options: &PublishOptions<'_>,
    keys: &KeyFinder,
    cache: &mut StatCache,
    sink: &mut Sink<'_>,
) -> Result<tree::Imported, PublishError> {
    let options = ImportOptions {
        root_symlink: RootSymlink::Refuse,
        inspector: looks_for_keys(item, options).then_some(keys as &dyn FileInspector),
        cancel: options.cancel,
        progress: options.progress,
        ..ImportOptions::new(options.profile)
    };
    tree::import(&item.path, &options, Some(cache), Some(sink)).map_err(|error| match error {
        ImportError::Cancelled => PublishError::Cancelled,
        ImportError::Sink(source) => match source.downcast() {
            Ok(error) => PublishError::Store(*error),
            Err(source) => PublishError::Import { path: item.path.clone(), source: ImportError::Sink(source) },
        },
        source => PublishError::Import { path: item.path.clone(), source },
    })
}

/// What is known of a tree from the last time that it was published.
struct Cache {
    key: String,
    /// The root that it had.
    root: Option<Cid>,
    stats: StatCache,
}

impl Cache {
    /// What was read without a look for private keys, or with one by other rules, is not known to who wants one: that has
    /// caches of its own.
    fn load(store: &dyn Blockstore, options: &PublishOptions<'_>, item: &PublishItem) -> Result<Self, StoreError> {
        let profile = &options.profile;
        let looked = match looks_for_keys(item, options) {
            true => format!("without keys {}", private_key::RULES),
            false => "with keys".to_owned(),
        };
        let key = format!("publish {looked} {profile} {}", escape::path(&item.path));
        let bytes = Bytes::from(store.cache_get(&key)?.unwrap_or_default());
        let (root, stats) = split_root(&bytes).unzip();
        let stats =
            stats.map_or_else(|| StatCache::new(profile), |stats| StatCache::decode(profile, &bytes.slice_ref(stats)));
        Ok(Self { key, root, stats })
    }

    fn keep(&self, store: &dyn Blockstore, root: Cid) -> Result<(), StoreError> {
        if self.root == Some(root) && !self.stats.is_changed() {
            return Ok(());
        }
        let mut bytes = format!("{root}\n").into_bytes();
        bytes.extend(self.stats.encode());
        store.cache_put(&self.key, &bytes)
    }
}

/// The line with the root at the start of a cache, and what follows.
fn split_root(bytes: &[u8]) -> Option<(Cid, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let root = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    Some((root, &bytes[end + 1..]))
}

/// Takes the blocks of all trees. A writer is only made for what is more than would be held back anyway.
struct Sink<'a> {
    store: &'a dyn Blockstore,
    writer: Option<Box<dyn Writer>>,
    held: Vec<Block>,
    held_bytes: usize,
    /// Whether all that the cache of the present tree knows is pinned.
    is_pinned: bool,
}

impl Sink<'_> {
    fn writer(&mut self) -> Result<&mut dyn Writer, StoreError> {
        if self.writer.is_none() {
            self.writer = Some(self.store.writer()?);
        }
        let writer = self.writer.as_mut().expect("it was just made");
        for block in std::mem::take(&mut self.held) {
            writer.put(&block)?;
        }
        self.held_bytes = 0;
        Ok(writer.as_mut())
    }

    fn into_writer(mut self) -> Result<Box<dyn Writer>, StoreError> {
        self.writer()?;
        Ok(self.writer.expect("it was just made"))
    }
}

impl BlockSink for Sink<'_> {
    fn put(&mut self, block: &Block) -> Result<(), BoxError> {
        if self.writer.is_none() && self.is_pinned {
            self.held_bytes += block.data().len();
            if self.held_bytes <= HELD_BYTES_MAX {
                self.held.push(block.clone());
                return Ok(());
            }
        }
        self.writer()?.put(block)?;
        Ok(())
    }

    fn has_all(&self) -> bool {
        self.is_pinned
    }

    fn has(&mut self, root: &Cid) -> Result<bool, BoxError> {
        Ok(self.is_pinned || is_complete(self.store, root)?)
    }
}

/// Whether all blocks of a file are in the store.
fn is_complete(store: &dyn Blockstore, root: &Cid) -> Result<bool, StoreError> {
    let mut pending = vec![*root];
    while let Some(cid) = pending.pop() {
        if cid.codec() == CODEC_RAW {
            if !store.has(&cid)? {
                return Ok(false);
            }
            continue;
        }
        let Some(block) = store.get(&cid)? else { return Ok(false) };
        match pb::links(&block) {
            Ok(links) => pending.extend(links),
            // Then the import makes it again, and the commit says what is wrong.
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::blockstore::{DiskBlockstore, MemoryBlockstore, Options, VerifyOptions};

    const BYTES: usize = 3 << 20;

    /// Nothing stops it and nobody watches.
    const QUIETLY: PublishOptions<'_> = PublishOptions {
        profile: Profile::UNIXFS_V1_2025,
        allow_private_keys: false,
        cancel: &|| false,
        progress: &|_| {},
    };

    /// Two trees, one of them with a file of several blocks.
    struct Trees {
        dir: tempfile::TempDir,
        store: MemoryBlockstore,
        read: AtomicU64,
        is_cancelled: AtomicBool,
        allow_private_keys: AtomicBool,
    }

    impl Trees {
        fn new() -> Self {
            let trees = Self {
                dir: tempfile::tempdir().unwrap(),
                store: MemoryBlockstore::default(),
                read: AtomicU64::new(0),
                is_cancelled: AtomicBool::new(false),
                allow_private_keys: AtomicBool::new(false),
            };
            trees.write("one/bin/main.wasm", &vec![7; BYTES]);
            trees.write("one/.hidden", b"x");
            trees.write("two/a", b"a");
            trees.settle();
            trees
        }

        fn write(&self, path: &str, content: &[u8]) {
            let path = self.dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        /// Waits until files are old enough for the cache, which takes no file that is younger than 100 ms.
        fn settle(&self) {
            std::thread::sleep(Duration::from_millis(150));
        }

        fn item(&self, name: &str) -> PublishItem {
            let path = self.dir.path().canonicalize().unwrap().join(name);
            PublishItem { name: PinName::new(name).unwrap(), path, expected: None }
        }

        fn publish(&self, names: &[&str]) -> Result<Published, PublishError> {
            self.publish_items(&names.iter().map(|name| self.item(name)).collect::<Vec<_>>())
        }

        fn publish_items(&self, items: &[PublishItem]) -> Result<Published, PublishError> {
            let options = PublishOptions {
                profile: Profile::default(),
                allow_private_keys: self.allow_private_keys.load(Ordering::Relaxed),
                cancel: &|| self.is_cancelled.load(Ordering::Relaxed),
                progress: &|bytes| {
                    self.read.fetch_add(bytes, Ordering::Relaxed);
                },
            };
            publish(&self.store, items, &options)
        }

        fn pins(&self) -> Vec<(String, Cid)> {
            self.store.pins().unwrap().into_iter().map(|pin| (pin.name.to_string(), pin.root)).collect()
        }

        /// What `ww cid` says.
        fn cid(&self, name: &str) -> Cid {
            let options = ImportOptions::new(Profile::default());
            tree::import(&self.dir.path().join(name), &options, None, None).unwrap().subtree.cid
        }
    }

    #[test]
    fn trees_are_pinned_under_their_cids() {
        let trees = Trees::new();
        let published = trees.publish(&["one", "two"]).unwrap();
        let expected = [("one".to_owned(), trees.cid("one")), ("two".to_owned(), trees.cid("two"))];
        assert_eq!(trees.pins(), expected);
        let one = &published.items[0];
        assert_eq!((one.subtree.cid, one.files, one.size_bytes), (expected[0].1, 2, BYTES as u64 + 1));
        assert!(published.items.iter().all(|item| item.is_changed));
        // The file has three equal chunks.
        assert_eq!(published.blocks, 1 + 1 + 1 + 1 + 1 + 2);
    }

    #[test]
    fn what_is_published_already_is_not_written() {
        let trees = Trees::new();
        let first = trees.publish(&["one", "two"]).unwrap();
        let again = trees.publish(&["one", "two"]).unwrap();
        assert_eq!((again.blocks, again.bytes), (0, 0));
        assert!(again.items.iter().all(|item| !item.is_changed));
        assert_eq!(again.items[0].subtree, first.items[0].subtree);
        // Under another name it only gets a pin.
        let other = PublishItem { name: PinName::new("other").unwrap(), ..trees.item("one") };
        let published = trees.publish_items(&[other]).unwrap();
        assert_eq!((published.blocks, published.items[0].is_changed), (0, true));
        assert_eq!(trees.pins().len(), 3);
    }

    #[test]
    fn a_change_replaces_the_pin() {
        let trees = Trees::new();
        trees.publish(&["one"]).unwrap();
        trees.write("one/etc/new", b"new");
        let published = trees.publish(&["one"]).unwrap();
        assert!(published.items[0].is_changed);
        assert_eq!(trees.pins(), [("one".to_owned(), trees.cid("one"))]);
        // The file, its folder, and the root.
        assert_eq!(published.blocks, 3);
    }

    #[test]
    fn what_was_collected_is_read_again() {
        let trees = Trees::new();
        trees.publish(&["one"]).unwrap();
        trees.store.remove_pin(&PinName::new("one").unwrap()).unwrap();
        trees.store.gc(Default::default()).unwrap();
        let published = trees.publish(&["one"]).unwrap();
        assert!(published.blocks > 0);
        assert_eq!(trees.pins(), [("one".to_owned(), trees.cid("one"))]);
    }

    /// Both ways in which a store loses blocks: a file is gone, and a file is damaged and then taken out of use.
    #[test]
    fn what_was_lost_is_written_again() {
        let trees = Trees::new();
        let item = trees.item("one");
        let dir = tempfile::tempdir().unwrap();
        let open = || DiskBlockstore::open(dir.path(), Options::default()).unwrap();
        let publish_it = |store: &DiskBlockstore| publish(store, std::slice::from_ref(&item), &QUIETLY).unwrap();
        let root = publish_it(&open()).items[0].subtree.cid;
        assert_eq!(publish_it(&open()).blocks, 0);
        let packs = || {
            let files = fs::read_dir(dir.path().join("packs")).unwrap().map(|entry| entry.unwrap().path());
            files.filter(|path| path.extension().is_some_and(|extension| extension == "car")).collect::<Vec<_>>()
        };
        let check = |what: &str| {
            let store = open();
            assert!(store.check_complete(&root).is_err(), "{what}");
            let published = publish_it(&store);
            assert!(published.blocks > 0 && !published.items[0].is_changed, "{what}");
            store.check_complete(&root).unwrap();
            assert!(store.verify(VerifyOptions::default(), &mut |_| {}).unwrap().findings.is_empty(), "{what}");
            assert_eq!(publish_it(&store).blocks, 0, "{what}");
        };
        packs().iter().for_each(|pack| fs::remove_file(pack).unwrap());
        check("removed");

        for pack in packs() {
            let mut bytes = fs::read(&pack).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::remove_file(&pack).unwrap();
            fs::write(&pack, bytes).unwrap();
        }
        let report = open().verify(VerifyOptions { repair: true }, &mut |_| {}).unwrap();
        assert!(report.repaired && !report.findings.is_empty());
        check("damaged");
    }

    #[test]
    fn what_a_size_limit_removed_is_told() {
        let trees = Trees::new();
        let store = MemoryBlockstore::with_size_limit(1000);
        let item = |name| PublishItem { name: PinName::new("it").unwrap(), ..trees.item(name) };
        trees.write("three/a", &[3; 2000]);
        assert_eq!(publish(&store, &[item("three")], &QUIETLY).unwrap().collected.unwrap().removed_blocks, 0);
        assert!(publish(&store, &[item("two")], &QUIETLY).unwrap().collected.unwrap().removed_blocks > 0);
    }

    #[test]
    fn all_or_none() {
        let trees = Trees::new();
        let absent = trees.publish(&["one", "absent"]).unwrap_err();
        assert!(matches!(absent, PublishError::Import { .. }), "{absent}");
        assert_eq!(trees.pins(), []);
        let expected = Some(trees.cid("two"));
        let other =
            trees.publish_items(&[trees.item("two"), PublishItem { expected, ..trees.item("one") }]).unwrap_err();
        assert!(matches!(other, PublishError::Changed { .. }), "{other}");
        assert_eq!(trees.pins(), []);
        let twice = trees.publish(&["one", "one"]).unwrap_err();
        assert!(matches!(twice, PublishError::DuplicateName { .. }), "{twice}");
        trees.is_cancelled.store(true, Ordering::Relaxed);
        assert!(matches!(trees.publish(&["one"]), Err(PublishError::Cancelled)));
        assert_eq!(trees.pins(), []);
        assert!(!trees.store.has(&trees.cid("two")).unwrap());
    }

    #[test]
    fn a_damaged_cache_is_none() {
        let trees = Trees::new();
        trees.publish(&["one"]).unwrap();
        let key = Cache::load(&trees.store, &QUIETLY, &trees.item("one")).unwrap().key;
        let bytes = trees.store.cache_get(&key).unwrap().unwrap();
        for damaged in [&b""[..], b"x", b"\n", &bytes[..40], &bytes[..bytes.len() - 1]] {
            trees.store.cache_put(&key, damaged).unwrap();
            let published = trees.publish(&["one"]).unwrap();
            assert_eq!(published.items[0].subtree.cid, trees.cid("one"));
        }
    }

    #[test]
    fn private_keys_are_named_and_nothing_is_stored() {
        let trees = Trees::new();
        trees.write("one/.ssh/id_ed25519", b"whatever");
        trees.write("two/server.pem", b"-----BEGIN PRIVATE KEY-----\nMC4C\n");
        trees.write("two/cert.pem", b"-----BEGIN CERTIFICATE-----\n");
        trees.settle();
        let refused = || match trees.publish(&["one", "two"]).unwrap_err() {
            PublishError::PrivateKeys(found) => found.files.into_iter().map(|(path, _)| path).collect::<Vec<_>>(),
            other => panic!("{other}"),
        };
        let expected = [trees.item("one").path.join(".ssh/id_ed25519"), trees.item("two").path.join("server.pem")];
        assert_eq!(refused(), expected);
        assert!(trees.pins().is_empty() && !trees.store.has(&trees.cid("two")).unwrap());
        // Whoever allowed them allowed them this once.
        trees.allow_private_keys.store(true, Ordering::Relaxed);
        trees.publish(&["one", "two"]).unwrap();
        assert_eq!(trees.publish(&["one", "two"]).unwrap().blocks, 0);
        trees.allow_private_keys.store(false, Ordering::Relaxed);
        assert_eq!(refused(), expected);
        expected.iter().for_each(|path| fs::remove_file(path).unwrap());
        trees.publish(&["one", "two"]).unwrap();
    }

    #[test]
    fn many_private_keys_are_counted() {
        let trees = Trees::new();
        (0..KEYS_LISTED_MAX + 2).for_each(|index| trees.write(&format!("two/{index}.p12"), b""));
        let error = trees.publish(&["two"]).unwrap_err().to_string();
        assert!(error.ends_with("\n  and 2 more") && error.lines().count() == KEYS_LISTED_MAX + 2, "{error}");
    }

    #[test]
    fn bytes_are_counted() {
        let trees = Trees::new();
        trees.publish(&["one"]).unwrap();
        assert_eq!(trees.read.load(Ordering::Relaxed), BYTES as u64 + 1);
    }
}
