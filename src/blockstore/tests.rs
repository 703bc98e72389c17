//! What every store has to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::dag::Version;
use crate::dag::block::{CODEC_DAG_PB, CODEC_RAW};
use crate::dag::pb;

/// A block of plain bytes.
pub(super) fn raw(data: impl Into<Vec<u8>>) -> Block {
    Block::seal(Version::V1, CODEC_RAW, Bytes::from(data.into())).unwrap()
}

/// A node with these links.
pub(super) fn node(links: &[Cid]) -> Block {
    let links = links.iter().map(|cid| pb::Link { cid: *cid, name: Some(""), tsize: Some(0) }).collect();
    Block::seal(Version::V1, CODEC_DAG_PB, pb::Node { links, data: None }.encode().into()).unwrap()
}

pub(super) fn name(text: &str) -> PinName {
    PinName::new(text).unwrap()
}

/// Adds blocks, pins the last one where there is a name, and gives what was new.
pub(super) fn add(store: &dyn Blockstore, blocks: &[Block], pin: Option<&str>) -> Committed {
    let mut writer = store.writer().unwrap();
    for block in blocks {
        writer.put(block).unwrap();
    }
    let pins: Vec<_> = pin.map(|pin| (name(pin), *blocks.last().unwrap().cid())).into_iter().collect();
    writer.commit(&pins).unwrap()
}

/// Runs a test with each kind of store.
fn with_each(test: impl Fn(&dyn Blockstore)) {
    test(&MemoryBlockstore::new());
    let dir = tempfile::tempdir().unwrap();
    test(&DiskBlockstore::open(&dir.path().join("store"), Options::default()).unwrap());
}

#[test]
fn what_is_committed_is_there() {
    with_each(|store| {
        let (one, two) = (raw("one"), raw(vec![7; 600_000]));
        let mut writer = store.writer().unwrap();
        assert!(writer.put(&one).unwrap() && !writer.put(&one).unwrap() && writer.put(&two).unwrap());
        assert!(writer.has(one.cid()).unwrap() && !store.has(one.cid()).unwrap());
        assert_eq!(writer.get(two.cid()).unwrap(), Some(two.clone()));
        assert_eq!(writer.get(one.cid()).unwrap(), Some(one.clone()));
        assert_eq!(store.get(two.cid()).unwrap(), None);
        let committed = writer.commit(&[]).unwrap();
        assert_eq!(committed, Committed { blocks: 2, bytes: 600_003, collected: None });
        assert_eq!(store.get(one.cid()).unwrap(), Some(one.clone()));
        assert_eq!(store.get(two.cid()).unwrap(), Some(two.clone()));
        let mut writer = store.writer().unwrap();
        assert!(!writer.put(&one).unwrap() && writer.get(two.cid()).unwrap() == Some(two.clone()));
        assert_eq!(writer.commit(&[]).unwrap(), Committed::default());
    });
}

#[test]
fn what_is_not_committed_is_not_there() {
    with_each(|store| {
        let one = raw("one");
        let mut writer = store.writer().unwrap();
        writer.put(&one).unwrap();
        drop(writer);
        assert!(!store.has(one.cid()).unwrap());
        assert_eq!(store.verify(VerifyOptions::default(), &mut |_| {}).unwrap().blocks, 0);
    });
}

#[test]
fn blocks_are_kept_by_their_hash() {
    with_each(|store| {
        let block = node(&[]);
        add(store, std::slice::from_ref(&block), None);
        let as_raw = Cid::new_v1(CODEC_RAW, *block.cid().hash());
        let as_v0 = Cid::new_v0(*block.cid().hash()).unwrap();
        assert_eq!(store.get(&as_raw).unwrap().unwrap().data(), block.data());
        assert_eq!(store.get(&as_v0).unwrap().unwrap().cid(), &as_v0);
        // The other function of the same digest is another name.
        let other = Cid::new_v1(CODEC_RAW, multihash::Multihash::wrap(0x13, block.cid().hash().digest()).unwrap());
        assert!(!store.has(&other).unwrap() && store.get(&other).unwrap().is_none());
    });
}

#[test]
fn hashes_of_all_kinds() {
    use sha2::{Digest, Sha512};
    with_each(|store| {
        let hash = multihash::Multihash::wrap(0x13, &Sha512::digest("x")).unwrap();
        let long = Block::new(Cid::new_v1(CODEC_RAW, hash), Bytes::from_static(b"x")).unwrap();
        let identity: Cid = "bafkqaaa".parse().unwrap();
        let identity = Block::from_identity(&identity).unwrap();
        assert_eq!(add(store, &[long.clone(), identity.clone()], None).blocks, 1);
        assert_eq!(store.get(long.cid()).unwrap(), Some(long));
        assert!(store.has(identity.cid()).unwrap());
        assert_eq!(store.get(identity.cid()).unwrap(), Some(identity));
        let unknown = Cid::new_v1(CODEC_RAW, multihash::Multihash::wrap(0xb220, &[7; 32]).unwrap());
        assert!(!store.has(&unknown).unwrap() && store.get(&unknown).unwrap().is_none());
    });
}

#[test]
fn empty_and_longest_blocks() {
    with_each(|store| {
        let blocks = [raw(""), raw(vec![1; crate::dag::BLOCK_BYTES_MAX])];
        add(store, &blocks, None);
        for block in blocks {
            assert_eq!(store.get(block.cid()).unwrap(), Some(block));
        }
    });
}

#[test]
fn pins_hold_what_they_reach() {
    with_each(|store| {
        let (leaf, other, loose) = (raw("leaf"), raw("other"), raw("loose"));
        let inner = node(&[*leaf.cid(), *leaf.cid()]);
        // The other link is to the same block as raw bytes, which says nothing of what the block links to.
        let root = node(&[Cid::new_v1(CODEC_RAW, *inner.cid().hash()), *inner.cid(), *other.cid()]);
        add(store, &[leaf.clone(), other.clone(), loose.clone(), inner.clone(), root.clone()], Some("tree"));
        let planned = store.gc(GcOptions { dry_run: true }).unwrap();
        assert_eq!((planned.removed_blocks, planned.removed_bytes, planned.kept_blocks), (1, 5, 4));
        assert!(store.has(loose.cid()).unwrap());
        let done = store.gc(GcOptions::default()).unwrap();
        assert_eq!((done.removed_blocks, done.removed_bytes, done.kept_blocks), (1, 5, 4));
        assert!(!store.has(loose.cid()).unwrap() && store.get(loose.cid()).unwrap().is_none());
        for block in [&leaf, &other, &inner, &root] {
            assert_eq!(store.get(block.cid()).unwrap().as_ref(), Some(block));
        }
        let pin = Pin { name: name("tree"), root: *root.cid() };
        assert_eq!(store.pins().unwrap(), std::slice::from_ref(&pin));
        assert_eq!(store.remove_pin(&pin.name).unwrap(), Some(pin.clone()));
        assert_eq!(store.remove_pin(&pin.name).unwrap(), None);
        assert!(store.has(root.cid()).unwrap());
        assert_eq!(store.gc(GcOptions::default()).unwrap().removed_blocks, 4);
        assert!(!store.has(root.cid()).unwrap());
        assert_eq!(store.gc(GcOptions::default()).unwrap(), GcReport::default());
    });
}

#[test]
fn pins_have_names() {
    with_each(|store| {
        let (one, two) = (raw("one"), raw("two"));
        add(store, &[two.clone(), one.clone()], Some("b"));
        store.set_pin(&name("a"), two.cid()).unwrap();
        store.set_pin(&name("c"), one.cid()).unwrap();
        store.set_pin(&name("b"), two.cid()).unwrap();
        store.set_pin(&name("b"), two.cid()).unwrap();
        let pins: Vec<_> = store.pins().unwrap().into_iter().map(|pin| (pin.name.to_string(), pin.root)).collect();
        assert_eq!(pins, [("a".into(), *two.cid()), ("b".into(), *two.cid()), ("c".into(), *one.cid())]);
        let identity: Cid = "bafkqaaa".parse().unwrap();
        store.set_pin(&name("d"), &identity).unwrap();
    });
}

#[test]
fn what_is_incomplete_is_not_pinned() {
    with_each(|store| {
        let (leaf, absent) = (raw("leaf"), raw("absent"));
        let root = node(&[*leaf.cid(), *absent.cid(), *absent.cid()]);
        let mut writer = store.writer().unwrap();
        writer.put(&leaf).unwrap();
        writer.put(&root).unwrap();
        let error = writer.commit(&[(name("tree"), *root.cid())]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{} is incomplete in the blockstore: {} is missing", root.cid(), absent.cid())
        );
        assert!(!store.has(leaf.cid()).unwrap() && store.pins().unwrap().is_empty(), "nothing of it has happened");
        add(store, &[leaf, root.clone()], None);
        let error = store.set_pin(&name("tree"), root.cid()).unwrap_err();
        assert!(matches!(error, StoreError::Incomplete { missing, more: false, .. } if missing == [*absent.cid()]));
        let error = store.set_pin(&name("tree"), absent.cid()).unwrap_err();
        assert!(matches!(error, StoreError::Incomplete { root, missing, .. } if missing == [*root]));
        assert!(store.pins().unwrap().is_empty());
        assert!(matches!(store.check_complete(root.cid()), Err(StoreError::Incomplete { .. })));
        add(store, &[absent], None);
        store.check_complete(root.cid()).unwrap();
        store.set_pin(&name("tree"), root.cid()).unwrap();
    });
}

#[test]
fn of_many_missing_blocks_some_are_named() {
    with_each(|store| {
        let links: Vec<_> = (0..100).map(|number: u32| *raw(number.to_string()).cid()).collect();
        let root = node(&links);
        add(store, std::slice::from_ref(&root), None);
        match store.set_pin(&name("tree"), root.cid()).unwrap_err() {
            StoreError::Incomplete { missing, more: true, .. } => assert_eq!(missing, links[..MISSING_MAX]),
            error => panic!("{error}"),
        }
    });
}

#[test]
fn what_cannot_be_followed_is_not_pinned() {
    with_each(|store| {
        let cbor = Block::seal(Version::V1, 0x71, Bytes::from_static(b"\xa0")).unwrap();
        let broken = Block::seal(Version::V1, CODEC_DAG_PB, Bytes::from_static(b"\xff")).unwrap();
        let inline = Cid::new_v1(CODEC_DAG_PB, multihash::Multihash::wrap(0, node(&[*cbor.cid()]).data()).unwrap());
        add(store, &[cbor.clone(), broken.clone()], None);
        let error = store.set_pin(&name("x"), cbor.cid()).unwrap_err();
        assert!(matches!(error, StoreError::UnknownCodec { codec: 0x71, .. }), "{error}");
        let error = store.set_pin(&name("x"), &inline).unwrap_err();
        assert!(matches!(error, StoreError::UnknownCodec { codec: 0x71, .. }), "{error}");
        let error = store.set_pin(&name("x"), broken.cid()).unwrap_err();
        assert!(matches!(error, StoreError::MalformedNode { .. }), "{error}");
    });
}

#[test]
fn a_dag_is_followed_once_however_often_it_is_linked() {
    with_each(|store| {
        // 2^60 ways lead from the root to the leaf.
        let mut blocks = vec![raw("leaf")];
        for _ in 0..60 {
            let below = *blocks.last().unwrap().cid();
            blocks.push(node(&[below, below]));
        }
        add(store, &blocks, Some("deep"));
        assert_eq!(store.gc(GcOptions::default()).unwrap().kept_blocks, 61);
    });
}

/// A collection waits for who writes or holds, and a block that was said to be there stays.
#[test]
fn nothing_is_collected_while_somebody_writes() {
    with_each(|store| {
        let loose = raw("loose");
        add(store, std::slice::from_ref(&loose), None);
        let mut writer = store.writer().unwrap();
        let hold = store.hold().unwrap();
        assert!(writer.has(loose.cid()).unwrap());
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            let collector = scope.spawn(|| {
                store.gc(GcOptions::default()).unwrap();
                is_done.store(true, Ordering::SeqCst);
            });
            let root = node(&[*loose.cid()]);
            assert!(writer.put(&root).unwrap());
            // Another one of the same store need not wait for the collector, which may wait already.
            drop(store.writer().unwrap());
            assert!(!is_done.load(Ordering::SeqCst));
            writer.commit(&[(name("tree"), *root.cid())]).unwrap();
            assert!(!is_done.load(Ordering::SeqCst));
            drop(hold);
            collector.join().unwrap();
        });
        assert!(store.has(loose.cid()).unwrap());
    });
}

/// A lease holds what is here of its DAG, and what comes, and keeps nobody waiting.
#[test]
fn what_is_leased_stays() {
    with_each(|store| {
        let (leaf, late, other) = (raw("leaf"), raw("late"), raw("other"));
        let inner = node(&[*late.cid()]);
        let root = node(&[*leaf.cid(), *inner.cid(), *raw("never here").cid()]);
        add(store, &[root.clone(), leaf.clone(), other.clone()], None);
        let (lease, again) = (store.lease(root.cid()).unwrap(), store.lease(root.cid()).unwrap());
        let dry = store.gc(GcOptions { dry_run: true }).unwrap();
        assert_eq!((dry.removed_blocks, dry.kept_blocks), (1, 2));
        assert_eq!(store.gc(GcOptions::default()).unwrap().kept_blocks, 2);
        assert!(!store.has(other.cid()).unwrap());
        add(store, &[inner, late], None);
        drop(again);
        assert_eq!(store.gc(GcOptions::default()).unwrap().kept_blocks, 4);
        drop(lease);
        assert_eq!(store.gc(GcOptions::default()).unwrap().kept_blocks, 0);
    });
}

/// What cannot be followed is no reason to keep anything else, or to collect nothing.
#[test]
fn leases_of_what_cannot_be_followed_do_no_harm() {
    with_each(|store| {
        let malformed = Block::seal(Version::V1, CODEC_DAG_PB, Bytes::from_static(b"\xff")).unwrap();
        let root = node(&[*malformed.cid()]);
        add(store, &[root.clone(), malformed], None);
        let _leases = [store.lease(root.cid()).unwrap(), store.lease(raw("not here").cid()).unwrap()];
        assert_eq!(store.gc(GcOptions::default()).unwrap().kept_blocks, 2);
    });
}

/// What another one commits counts for pins of a writer that has looked before.
#[test]
fn pins_may_need_what_others_wrote_meanwhile() {
    with_each(|store| {
        let leaf = raw("leaf");
        let root = node(&[*leaf.cid()]);
        let mut writer = store.writer().unwrap();
        assert!(!writer.has(leaf.cid()).unwrap());
        add(store, std::slice::from_ref(&leaf), None);
        writer.put(&root).unwrap();
        writer.commit(&[(name("tree"), *root.cid())]).unwrap();
        assert_eq!(store.gc(GcOptions::default()).unwrap().kept_blocks, 2);
    });
}

#[test]
fn caches_keep_the_last_value() {
    with_each(|store| {
        assert_eq!(store.cache_get("a").unwrap(), None);
        store.cache_put("a", b"one").unwrap();
        store.cache_put("a", b"two").unwrap();
        store.cache_put("b", b"").unwrap();
        assert_eq!(store.cache_get("a").unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(store.cache_get("b").unwrap().as_deref(), Some(&b""[..]));
        let big = vec![0; CACHE_VALUE_BYTES_MAX];
        store.cache_put("c", &big).unwrap();
        assert!(store.cache_get("a").unwrap().is_some() && store.cache_get("c").unwrap().is_some());
        store.cache_put("d", &big[1..]).unwrap();
        store.cache_put("e", &big).unwrap();
        let kept = |key| usize::from(store.cache_get(key).unwrap().is_some());
        assert!(kept("e") == 1 && kept("c") + kept("d") <= 1);
        store.cache_put("e", &[0; CACHE_VALUE_BYTES_MAX + 1]).unwrap();
        assert_eq!(store.cache_get("e").unwrap(), None);
    });
}

#[test]
fn a_sound_store_is_sound() {
    with_each(|store| {
        add(store, &[raw("one"), raw("two")], Some("two"));
        for repair in [false, true] {
            let mut bytes = 0;
            let report = store.verify(VerifyOptions { repair }, &mut |more| bytes += more).unwrap();
            assert_eq!((report.blocks, report.bytes, report.pins), (2, 6, 1));
            assert!(report.findings.is_empty() && bytes >= 6);
        }
    });
}

#[test]
fn size_limits_collect() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { size_bytes_max: Some(50_000), ..Options::default() };
    let disk = DiskBlockstore::open(dir.path(), options).unwrap();
    for store in [&MemoryBlockstore::with_size_limit(50_000) as &dyn Blockstore, &disk] {
        let block = |number: u8| raw(vec![number; 20_000]);
        assert_eq!(add(store, &[block(0)], Some("zero")).collected, None);
        assert_eq!(add(store, &[block(1)], None).collected, None);
        let hold = store.hold().unwrap();
        assert_eq!(add(store, &[block(2)], None).collected, None, "somebody holds it all");
        assert_eq!(store.trim(), None);
        drop(hold);
        assert_eq!(store.trim().unwrap().removed_blocks, 2);
        assert!(store.has(block(0).cid()).unwrap() && !store.has(block(2).cid()).unwrap());
        add(store, &[block(3)], None);
        let collected = add(store, &[block(4)], None).collected.unwrap();
        assert_eq!((collected.removed_blocks, collected.kept_blocks), (2, 1));
    }
}

#[test]
fn many_threads() {
    with_each(|store| {
        let root = |thread: u8| node(&[*raw(vec![thread; 100]).cid(), *raw("shared").cid()]);
        thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || {
                    for _ in 0..5 {
                        add(store, &[raw(vec![number; 100]), raw("shared"), root(number)], Some(&number.to_string()));
                        store.gc(GcOptions::default()).unwrap();
                        assert_eq!(store.get(root(number).cid()).unwrap(), Some(root(number)));
                        add(store, &[raw(vec![number; 99])], None);
                    }
                });
            }
        });
        let report = store.verify(VerifyOptions::default(), &mut |_| {}).unwrap();
        assert!(report.findings.is_empty() && report.pins == 8, "{report:?}");
    });
}

/// One step of somebody who uses a store. Numbers choose among a few blocks, so that they meet often.
#[derive(Clone, Debug)]
enum Step {
    Add { blocks: Vec<u8>, pin: Option<u8> },
    Abort(Vec<u8>),
    Pin(u8, u8),
    Unpin(u8),
    Collect { dry_run: bool },
    Reopen,
    RemoveIndex,
    Repair,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (prop::collection::vec(0..16u8, 0..6), prop::option::of(0..3u8)).prop_map(|(blocks, pin)| Step::Add { blocks, pin }),
        1 => prop::collection::vec(0..16u8, 0..6).prop_map(Step::Abort),
        2 => (0..3u8, 0..16u8).prop_map(|(name, block)| Step::Pin(name, block)),
        2 => (0..3u8).prop_map(Step::Unpin),
        2 => any::<bool>().prop_map(|dry_run| Step::Collect { dry_run }),
        1 => Just(Step::Reopen),
        1 => Just(Step::RemoveIndex),
        1 => Just(Step::Repair),
    ];
    prop::collection::vec(step, 1..25)
}

/// Sixteen blocks: eight leaves, and eight nodes that link to two of those before them.
fn block(number: u8) -> Block {
    match number {
        0..8 => raw(vec![number; usize::from(number) * 100]),
        _ => node(&[*block(number - 8).cid(), *block(number - 3).cid()]),
    }
}

fn step_store(store: &dyn Blockstore, step: &Step) -> String {
    let put = |blocks: &[u8]| {
        let mut writer = store.writer().unwrap();
        let new: Vec<_> = blocks.iter().map(|number| writer.put(&block(*number)).unwrap()).collect();
        (writer, format!("{new:?}"))
    };
    match step {
        Step::Add { blocks, pin } => {
            let (writer, new) = put(blocks);
            let pins: Vec<_> =
                pin.iter().zip(blocks).map(|(pin, number)| (name(&pin.to_string()), *block(*number).cid())).collect();
            format!("{new} {:?}", writer.commit(&pins).map_err(|error| error.to_string()))
        }
        Step::Abort(blocks) => put(blocks).1,
        Step::Pin(pin, number) => {
            let result = store.set_pin(&name(&pin.to_string()), block(*number).cid());
            format!("{:?}", result.map_err(|error| error.to_string()))
        }
        Step::Unpin(pin) => format!("{:?}", store.remove_pin(&name(&pin.to_string())).unwrap()),
        Step::Collect { dry_run } => {
            let report = store.gc(GcOptions { dry_run: *dry_run }).unwrap();
            format!("{:?}", GcReport { freed_bytes: 0, ..report })
        }
        Step::Reopen | Step::RemoveIndex => String::new(),
        Step::Repair => {
            let report = store.verify(VerifyOptions { repair: true }, &mut |_| {}).unwrap();
            format!("{} {:?}", report.pins, report.findings)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn both_kinds_do_the_same(steps in steps()) {
        let memory = MemoryBlockstore::new();
        let dir = tempfile::tempdir().unwrap();
        let mut disk = DiskBlockstore::open(dir.path(), Options::default()).unwrap();
        // What was collected comes back from packs that are still mostly of use, when their index is lost.
        let mut comes_back = false;
        for step in steps {
            if matches!(step, Step::RemoveIndex) {
                if comes_back {
                    continue;
                }
                std::fs::remove_file(dir.path().join("index.sqlite")).unwrap();
            }
            if matches!(step, Step::Reopen | Step::RemoveIndex) {
                disk = DiskBlockstore::open(dir.path(), Options::default()).unwrap();
            }
            comes_back |= matches!(step, Step::Collect { dry_run: false });
            prop_assert_eq!(step_store(&disk, &step), step_store(&memory, &step), "{:?}", step);
            for number in 0..16 {
                let cid = *block(number).cid();
                prop_assert_eq!(disk.has(&cid).unwrap(), memory.has(&cid).unwrap());
                prop_assert_eq!(disk.get(&cid).unwrap(), memory.get(&cid).unwrap());
            }
            prop_assert_eq!(disk.pins().unwrap(), memory.pins().unwrap());
        }
    }
}

#[test]
fn stores_and_writers_are_what_threads_need() {
    fn check<T: Send + Sync + ?Sized>() {}
    check::<Arc<dyn Blockstore>>();
    fn check_send<T: Send>() {}
    check_send::<Box<dyn Writer>>();
    check_send::<Hold>();
}

#[test]
fn damaged_blocks_are_never_given_out() {
    let store = MemoryBlockstore::new();
    let block = raw("123");
    add(&store, std::slice::from_ref(&block), Some("x"));
    store.damage(block.cid(), b"aww");
    let error = store.get(block.cid()).unwrap_err();
    assert_eq!(error.to_string(), format!("block {} is damaged in the blockstore", block.cid()));
    let report = store.verify(VerifyOptions { repair: true }, &mut |_| {}).unwrap();
    assert!(matches!(&report.findings[..], [Finding::DamagedBlock { .. }, Finding::BrokenPin { .. }]), "{report:?}");
    assert!(!store.has(block.cid()).unwrap());
    assert!(matches!(store.gc(GcOptions::default()), Err(StoreError::BrokenPin { .. })));
}

#[test]
fn incomplete_roots_are_told_from_whole_ones() {
    with_each(|store| {
        let (leaf, absent) = (raw("leaf"), raw("absent"));
        let below = node(&[*leaf.cid()]);
        let whole = node(&[*below.cid(), *leaf.cid()]);
        let broken = node(&[*below.cid(), *absent.cid()]);
        // What is below it was followed for `broken` already, in vain.
        let above = node(&[*broken.cid(), *whole.cid()]);
        let identity: Cid = "bafkqaaa".parse().unwrap();
        let blocks = [leaf, below, whole, broken, above];
        add(store, &blocks, None);
        let [leaf, below, whole, broken, above] = blocks.each_ref().map(|block| *block.cid());
        let roots = [below, broken, above, whole, broken, identity, above, leaf, *absent.cid(), below];
        let incomplete = store.incomplete(&roots).unwrap();
        assert_eq!(incomplete.iter().map(|(root, _)| *root).collect::<Vec<_>>(), [broken, above, *absent.cid()]);
        for (root, error) in incomplete {
            assert_eq!(error.to_string(), store.check_complete(&root).unwrap_err().to_string());
        }
    });
}

#[test]
fn names_are_taken_away_together() {
    with_each(|store| {
        for pin in ["a", "b", "c"] {
            add(store, &[raw(pin)], Some(pin));
        }
        let removed = store.remove_pins(&[name("c"), name("x"), name("a"), name("c")]).unwrap();
        assert_eq!(removed.iter().map(|pin| pin.name.as_str()).collect::<Vec<_>>(), ["c", "a"]);
        assert_eq!(store.pins().unwrap().len(), 1);
        assert_eq!(store.remove_pins(&[name("a")]).unwrap(), []);
    });
}

#[test]
fn what_follows_a_commit_does_not_undo_it() {
    let store = MemoryBlockstore::with_size_limit(100);
    let root = node(&[*raw("leaf").cid()]);
    add(&store, &[raw("leaf"), root.clone()], Some("root"));
    store.damage(root.cid(), b"no node");
    assert_eq!(add(&store, &[raw(vec![1; 1000])], None), Committed { blocks: 1, bytes: 1000, collected: None });
    store.cache_put("key", b"value").unwrap();
    store.verify(VerifyOptions { repair: true }, &mut |_| {}).unwrap();
    assert_eq!(store.cache_get("key").unwrap(), None, "a loss empties the cache");
}
