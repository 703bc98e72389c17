//! What only the store on disk has to do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

use tempfile::TempDir;

use super::super::tests::{add, name, node, raw};
use super::super::{Blockstore, Finding, GcReport, StoreError};
use super::*;

pub(super) fn open(dir: &Path) -> Result<DiskBlockstore, StoreError> {
    DiskBlockstore::open(dir, Options::default())
}

/// A store in a new folder.
pub(super) fn new() -> (TempDir, DiskBlockstore) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    (dir, store)
}

/// The files of a store's packs with this extension, sorted.
fn packs(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    found.sort();
    found
}

pub(super) fn the_pack(dir: &Path) -> PathBuf {
    let packs = packs(dir, "car");
    assert_eq!(packs.len(), 1, "{packs:?}");
    packs[0].clone()
}

/// A copy of a store's folder.
fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to.path()).status().unwrap();
    assert!(status.success());
    to
}

fn verify(store: &DiskBlockstore, repair: bool) -> VerifyReport {
    store.verify(VerifyOptions { repair }, &mut |_| {}).unwrap()
}

pub(super) fn collect(store: &DiskBlockstore) -> GcReport {
    store.gc(GcOptions::default()).unwrap()
}

/// Some blocks, the last of which links to the others.
fn tree() -> Vec<Block> {
    let leaves = [raw("one"), raw("two"), raw(vec![3; 300])];
    let root = node(&leaves.each_ref().map(|leaf| *leaf.cid()));
    [&leaves[..], &[root]].concat()
}

/// A store with `tree()` in it, pinned.
fn with_tree() -> (TempDir, DiskBlockstore) {
    let (dir, store) = new();
    add(&store, &tree(), Some("tree"));
    (dir, store)
}

#[track_caller]
fn check_tree(store: &DiskBlockstore) {
    for block in tree() {
        assert_eq!(store.get(block.cid()).unwrap(), Some(block));
    }
}

#[test]
fn a_store_is_there_for_the_next_who_opens_it() {
    let (dir, store) = with_tree();
    check_tree(&open(dir.path()).unwrap());
    drop(store);
    let store = open(dir.path()).unwrap();
    check_tree(&store);
    assert_eq!(store.pins().unwrap().len(), 1);
    store.cache_put("key", b"value").unwrap();
    assert_eq!(open(dir.path()).unwrap().cache_get("key").unwrap().as_deref(), Some(&b"value"[..]));
}

#[test]
fn everything_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("a/b")).unwrap();
    add(&store, &tree(), Some("tree"));
    let _writer = store.writer().unwrap();
    let mut folders = vec![dir.path().join("a")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o7777, 0o700, "{}", folder.display());
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600, "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 7, "{count}");
}

#[test]
fn packs_are_archives() {
    let (dir, _store) = with_tree();
    let mut decoder = crate::dag::car::Decoder::new();
    decoder.push(&fs::read(the_pack(dir.path())).unwrap());
    let mut blocks = Vec::new();
    while let Some(item) = decoder.next_item().unwrap() {
        match item {
            crate::dag::car::Item::Header(header) => assert!(header.roots.is_empty()),
            crate::dag::car::Item::Section(section) => blocks.push(section.into_block().unwrap()),
        }
    }
    decoder.finish().unwrap();
    assert_eq!(blocks, tree());
}

#[test]
fn formats() {
    let (dir, store) = with_tree();
    drop(store);
    let format = dir.path().join("format");
    assert_eq!(fs::read_to_string(&format).unwrap(), "1\n");
    fs::write(&format, "2\n").unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Newer { .. })));
    fs::write(&format, "x\n").unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Misplaced { .. })));
    for lost in ["", "0\n"] {
        fs::write(&format, lost).unwrap();
        check_tree(&open(dir.path()).unwrap());
        assert_eq!(fs::read_to_string(&format).unwrap(), "1\n");
    }
    fs::remove_file(&format).unwrap();
    check_tree(&open(dir.path()).unwrap());
    let index = rusqlite::Connection::open(dir.path().join("index.sqlite")).unwrap();
    index.pragma_update(None, "user_version", 3).unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Newer { .. })));
    index.pragma_update(None, "user_version", 0).unwrap();
    check_tree(&open(dir.path()).unwrap());
}

#[test]
fn a_lost_or_damaged_index_is_made_again() {
    let (dir, store) = with_tree();
    add(&store, &[raw("more")], None);
    store.cache_put("key", &[1; 10_000]).unwrap();
    drop(store);
    let check = |damage: &dyn Fn(&Path)| {
        let copy = copy(dir.path());
        damage(copy.path());
        let store = open(copy.path()).unwrap();
        check_tree(&store);
        assert!(store.has(raw("more").cid()).unwrap());
        assert!(verify(&store, false).findings.is_empty());
        add(&store, &[raw("new")], Some("new"));
        assert_eq!(collect(&store).removed_blocks, 1);
        check_tree(&open(copy.path()).unwrap());
    };
    check(&|dir| fs::remove_file(dir.join("index.sqlite")).unwrap());
    check(&|dir| fs::write(dir.join("index.sqlite"), "").unwrap());
    check(&|dir| fs::write(dir.join("index.sqlite"), vec![0xa5; 40_000]).unwrap());
    check(&|dir| {
        fs::remove_file(dir.join("index.sqlite-wal")).unwrap();
        fs::remove_file(dir.join("index.sqlite-shm")).unwrap();
    });
    check(&|dir| fs::write(dir.join("index.sqlite-wal"), vec![0xa5; 40_000]).unwrap());
    check(&|dir| {
        for name in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
            fs::write(dir.join(name), vec![0xa5; 40_000]).unwrap();
        }
    });
}

/// An index that is damaged in its middle: a block is right, or not there, or an error, and a repair brings all back.
#[test]
fn garbage_in_the_index_does_no_harm() {
    let (dir, store) = new();
    let blocks: Vec<_> = (0..300).map(|number: u32| raw(number.to_string())).collect();
    add(&store, &blocks, None);
    let connection = rusqlite::Connection::open(dir.path().join("index.sqlite")).unwrap();
    connection.pragma(None, "wal_checkpoint", "TRUNCATE", |_| Ok(())).unwrap();
    drop((store, connection));
    let length = usize::try_from(fs::metadata(dir.path().join("index.sqlite")).unwrap().len()).unwrap();
    assert!(length >= 5 * 4096);
    for (round, at) in (0..length).step_by(1021).enumerate() {
        let copy = copy(dir.path());
        let path = copy.path().join("index.sqlite");
        let mut bytes = fs::read(&path).unwrap();
        let end = length.min(at + 200);
        bytes[at..end].fill([0, 0xff, 0x17][round % 3]);
        fs::write(&path, bytes).unwrap();
        let store = open(copy.path()).unwrap();
        for block in &blocks {
            match store.get(block.cid()) {
                Ok(found) => assert!(found.is_none_or(|found| found == *block)),
                Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}"),
            }
        }
        verify(&store, true);
        let again = verify(&store, false);
        assert!(again.findings.is_empty(), "{again:?}");
        for block in &blocks {
            assert_eq!(store.get(block.cid()).unwrap().as_ref(), Some(block), "byte {at}");
        }
    }
}

#[test]
fn an_index_that_was_replaced_is_not_believed() {
    let (dir, old) = with_tree();
    let before = raw("before");
    assert!(!old.has(before.cid()).unwrap());
    fs::remove_file(dir.path().join("index.sqlite")).unwrap();
    let other = open(dir.path()).unwrap();
    add(&other, std::slice::from_ref(&before), None);
    assert_eq!(old.get(before.cid()).unwrap(), Some(before));
    fs::remove_file(dir.path().join("index.sqlite")).unwrap();
    drop(open(dir.path()).unwrap());
    let after = raw("after");
    add(&old, std::slice::from_ref(&after), None);
    assert!(other.has(after.cid()).unwrap() && open(dir.path()).unwrap().has(after.cid()).unwrap());
    // Nor when it says that something is there.
    assert!(old.has(after.cid()).unwrap());
    fs::remove_file(dir.path().join("index.sqlite")).unwrap();
    collect(&open(dir.path()).unwrap());
    assert!(!old.has(after.cid()).unwrap());
    check_tree(&old);
}

/// SQLite finds the log by its name: a connection to the old index must not meet the log of the new one.
#[test]
fn an_index_is_not_opened_while_it_is_replaced() {
    let (dir, store) = with_tree();
    drop(store);
    let lock =
        fs::File::open(dir.path().join("index.lock")).or_else(|_| fs::File::create(dir.path().join("index.lock")));
    let lock = lock.unwrap();
    lock.lock().unwrap();
    thread::scope(|scope| {
        let opening = scope.spawn(|| open(dir.path()).unwrap());
        thread::sleep(std::time::Duration::from_millis(200));
        assert!(!opening.is_finished());
        lock.unlock().unwrap();
        check_tree(&opening.join().unwrap());
    });
}

#[test]
fn many_may_be_the_first_to_open_a_store() {
    for _ in 0..30 {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        thread::scope(|scope| {
            let opening: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&dir).map(drop))).collect();
            opening.into_iter().for_each(|opening| opening.join().unwrap().unwrap());
        });
        assert_eq!(fs::read_to_string(dir.join("format")).unwrap(), "1\n");
        assert!(!dir.join("format.new").exists());
    }
}

/// However many blocks a pack has: the index has all of them, or does not have the pack.
#[test]
fn a_pack_is_added_to_the_index_at_once() {
    let (dir, store) = new();
    let blocks: Vec<_> = (0..70_000_u32).map(|number| raw(number.to_string())).collect();
    add(&store, &blocks, None);
    drop(store);
    for end in [0, 1, 66_000, 69_999] {
        fs::remove_file(dir.path().join("index.sqlite")).unwrap();
        let asked = AtomicU32::new(0);
        let cancelled = Arc::new(move || asked.fetch_add(1, Ordering::Relaxed) >= end);
        let stopped = DiskBlockstore::open(dir.path(), Options { cancelled, ..Options::default() });
        assert!(matches!(stopped, Err(StoreError::Cancelled)));
        let store = open(dir.path()).unwrap();
        assert_eq!(blocks.iter().filter(|block| !store.has(block.cid()).unwrap()).count(), 0, "stopped at {end}");
    }
}

/// A store with three pinned trees in three packs. Two of them are one block each.
fn with_three() -> (TempDir, Vec<Block>) {
    let (dir, store) = new();
    let (deep, flat) = (raw("deep"), raw("flat"));
    let middle = node(&[*deep.cid()]);
    let root = node(&[*flat.cid(), *middle.cid()]);
    let (alone, other) = (raw("alone"), raw("other"));
    add(&store, std::slice::from_ref(&alone), Some("alone"));
    add(&store, std::slice::from_ref(&other), Some("other"));
    add(&store, &[deep.clone(), flat.clone(), middle.clone(), root.clone()], Some("root"));
    (dir, vec![root, middle, deep, flat, alone, other])
}

/// An index in which a single row is wrong, though SQLite finds nothing wrong with it.
#[test]
fn a_wrong_row_in_the_index_loses_nothing() {
    let (dir, blocks) = with_three();
    let first = Key::new(blocks[0].cid()).unwrap();
    let changes = [
        "UPDATE block SET pack = (SELECT id FROM pack WHERE id <> block.pack) WHERE hash = ?1 AND ?2 = ?2",
        "UPDATE block SET pack = 77 WHERE hash = ?1 AND ?2 = ?2",
        "UPDATE block SET number = (SELECT number FROM block WHERE hash = ?2) WHERE hash = ?1",
        "UPDATE block SET at = at + 1 WHERE hash = ?1 AND ?2 = ?2",
        "UPDATE block SET size = size - 1 WHERE hash = ?1 AND ?2 = ?2",
        "UPDATE block SET hash = zeroblob(32) WHERE hash = ?1 AND ?2 = ?2",
        "DELETE FROM block WHERE hash = ?1 AND ?2 = ?2",
        "DELETE FROM pack WHERE id = (SELECT pack FROM block WHERE hash = ?1 AND ?2 = ?2)",
    ];
    for sql in changes {
        for (number, block) in blocks.iter().enumerate() {
            for is_collected in [true, false] {
                let copy = copy(dir.path());
                let index = rusqlite::Connection::open(copy.path().join("index.sqlite")).unwrap();
                let key = Key::new(block.cid()).unwrap();
                index.execute(sql, [key.as_bytes(), first.as_bytes()]).unwrap();
                drop(index);
                let store = open(copy.path()).unwrap();
                if is_collected {
                    // What it cannot do it may refuse.
                    let _ = store.gc(GcOptions::default());
                }
                let missing = || {
                    blocks.iter().filter(|block| store.get(block.cid()).ok() != Some(Some((*block).clone()))).count()
                };
                if verify(&store, false).findings.is_empty() {
                    assert_eq!(missing(), 0, "{sql} with block {number}: nothing was found");
                }
                let repaired = verify(&store, true);
                assert_eq!(missing(), 0, "{sql} with block {number}: {repaired:?}");
                assert!(verify(&store, false).findings.is_empty());
                assert!(!copy.path().join("damaged").exists(), "{sql}: the packs are good");
                assert_eq!(collect(&store).kept_blocks, 6);
            }
        }
    }
}

/// A block that the index does not know is as good as the others when a damaged pack is replaced.
#[test]
fn a_repair_keeps_what_only_the_pack_knows() {
    let (dir, store) = with_tree();
    drop(store);
    let blocks = tree();
    let pack = the_pack(dir.path());
    let mut bytes = fs::read(&pack).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&pack, bytes).unwrap();
    let index = rusqlite::Connection::open(dir.path().join("index.sqlite")).unwrap();
    let key = Key::new(blocks[0].cid()).unwrap();
    assert_eq!(index.execute("DELETE FROM block WHERE hash = ?1", [key.as_bytes()]).unwrap(), 1);
    index.execute("UPDATE pack SET blocks = blocks - 1", []).unwrap();
    drop(index);
    let store = open(dir.path()).unwrap();
    assert!(!store.has(blocks[0].cid()).unwrap());
    verify(&store, true);
    let there: Vec<_> = blocks.iter().map(|block| store.has(block.cid()).unwrap()).collect();
    assert_eq!(there, [true, true, true, false]);
}

/// Whoever trusts what was kept of work done before must not do so when blocks are lost.
#[test]
fn a_loss_empties_the_cache() {
    let (dir, store) = with_tree();
    store.cache_put("key", b"value").unwrap();
    let kept = |store: &DiskBlockstore| store.cache_get("key").unwrap();
    verify(&store, true);
    add(&store, &[raw("more")], None);
    assert!(kept(&open(dir.path()).unwrap()).is_some());
    let lost = copy(dir.path());
    packs(lost.path(), "car").iter().for_each(|pack| fs::remove_file(pack).unwrap());
    assert_eq!(kept(&open(lost.path()).unwrap()), None);
    let damaged = copy(dir.path());
    for pack in packs(damaged.path(), "car") {
        let mut bytes = fs::read(&pack).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(pack, bytes).unwrap();
    }
    let store = open(damaged.path()).unwrap();
    verify(&store, true);
    assert_eq!(kept(&store), None);
}

/// A loss of power can take the end of the log, and with it what the index was told of a collection.
#[test]
fn a_collection_that_the_index_forgot_loses_nothing() {
    let (dir, store) = with_tree();
    add(&store, &[raw(vec![1; 100_000]), raw("kept")], Some("kept"));
    drop(store);
    let before = copy(dir.path());
    collect(&open(dir.path()).unwrap());
    for name in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        fs::copy(before.path().join(name), dir.path().join(name)).unwrap();
    }
    let options = Options { events: Arc::new(|event| panic!("{event:?}")), ..Options::default() };
    let store = DiskBlockstore::open(dir.path(), options).unwrap();
    check_tree(&store);
    assert_eq!(store.get(raw("kept").cid()).unwrap(), Some(raw("kept")));
    assert!(verify(&store, false).findings.is_empty());
    assert_eq!(collect(&store).kept_blocks, 5);
}

#[test]
fn a_trim_that_fails_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, events) = mpsc::channel();
    let sender = Mutex::new(sender);
    let events_option: Arc<dyn Fn(StoreEvent) + Send + Sync> =
        Arc::new(move |event| sender.lock().unwrap().send(event).unwrap());
    let options = Options { size_bytes_max: Some(100), events: events_option, ..Options::default() };
    let store = DiskBlockstore::open(dir.path(), options).unwrap();
    fs::write(dir.path().join("packs/pins.json"), "garbage").unwrap();
    assert_eq!(add(&store, &[raw(vec![1; 1000])], None).collected, None);
    assert!(matches!(events.recv().unwrap(), StoreEvent::NotTrimmed { .. }));
    assert_eq!(store.trim(), None);
    assert!(matches!(events.recv().unwrap(), StoreEvent::NotTrimmed { .. }));
}

/// The bytes of a file without a name stay on disk while somebody has it open.
#[test]
fn packs_that_others_removed_are_closed() {
    let (dir, reader) = with_tree();
    add(&reader, &[raw(vec![1; 100_000]), raw("kept")], Some("kept"));
    check_tree(&reader);
    reader.get(raw("kept").cid()).unwrap().unwrap();
    collect(&open(dir.path()).unwrap());
    reader.get(raw("kept").cid()).unwrap().unwrap();
    let dir = fs::canonicalize(dir.path()).unwrap();
    let handles = fs::read_dir("/proc/self/fd").unwrap();
    let targets = handles.filter_map(|handle| fs::read_link(handle.unwrap().path()).ok());
    let removed: Vec<_> = targets
        .filter(|target| target.starts_with(&dir) && target.to_string_lossy().ends_with(".car (deleted)"))
        .collect();
    assert_eq!(removed, [] as [PathBuf; 0]);
}

/// What a crash can leave of a pack that was not known to be on disk: any beginning of it.
#[test]
fn packs_that_end_at_any_byte() {
    let (dir, store) = with_tree();
    drop(store);
    let length = fs::metadata(the_pack(dir.path())).unwrap().len();
    for end in 0..length {
        let copy = copy(dir.path());
        let pack = the_pack(copy.path());
        fs::File::options().write(true).open(&pack).unwrap().set_len(end).unwrap();
        let store = open(copy.path()).unwrap();
        for block in tree() {
            match store.get(block.cid()) {
                Ok(found) => assert_eq!(found, Some(block)),
                Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}"),
            }
        }
        // The index is asked first, the files last.
        let findings = verify(&store, false).findings;
        assert!(matches!(findings.last(), Some(Finding::BrokenPin { .. })), "{findings:?}");
        assert!(findings.iter().any(|finding| matches!(finding, Finding::LostBlocks { .. })), "{findings:?}");
        assert!(store.gc(GcOptions::default()).is_err());
        // Made again, the index has what is whole.
        fs::remove_file(copy.path().join("index.sqlite")).unwrap();
        let store = open(copy.path()).unwrap();
        let there = tree().iter().filter(|block| store.has(block.cid()).unwrap()).count();
        let readable = tree().iter().filter(|block| store.get(block.cid()).unwrap().is_some()).count();
        assert_eq!(there, readable);
        // What is put again makes it whole. At some places only, as it has to be waited for on the disk.
        if end % 17 > 0 {
            continue;
        }
        let repaired = verify(&store, true);
        assert!(repaired.repaired && matches!(repaired.findings.last(), Some(Finding::BrokenPin { .. })));
        add(&store, &tree(), None);
        assert!(verify(&store, false).findings.is_empty());
        check_tree(&store);
        collect(&store);
        check_tree(&store);
    }
}

#[test]
fn a_changed_byte_is_found() {
    let (dir, store) = with_tree();
    drop(store);
    let bytes = fs::read(the_pack(dir.path())).unwrap();
    for at in 0..bytes.len() {
        let copy = copy(dir.path());
        let mut changed = bytes.clone();
        changed[at] ^= 0x01;
        fs::write(the_pack(copy.path()), changed).unwrap();
        let store = open(copy.path()).unwrap();
        let is_wrong = |block: &Block| match store.get(block.cid()) {
            Ok(found) => {
                assert_eq!(found.as_ref(), Some(block));
                false
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
                true
            }
        };
        let wrong = tree().iter().filter(|block| is_wrong(block)).count();
        assert!(wrong <= 1, "byte {at}");
        // Every byte is looked at, but some of them mean the same when they are changed, such as those of a codec.
        let is_repaired = at % 17 == 0;
        let report = verify(&store, is_repaired);
        assert!(wrong == 0 || !report.findings.is_empty(), "byte {at}");
        if !is_repaired {
            continue;
        }
        let there = tree().iter().filter(|block| store.get(block.cid()).unwrap().is_some()).count();
        assert_eq!(there, 4 - wrong, "byte {at}: everything that is good is still there");
        add(&store, &tree(), None);
        check_tree(&store);
        let again = verify(&store, false);
        assert!(again.findings.is_empty(), "byte {at}: {again:?}");
        assert_eq!(copy.path().join("damaged").exists(), !report.findings.is_empty());
    }
}

#[test]
fn other_bytes_under_a_name_are_never_given_out() {
    let (dir, store) = new();
    let block = raw("123");
    add(&store, std::slice::from_ref(&block), Some("x"));
    let pack = the_pack(dir.path());
    let mut bytes = fs::read(&pack).unwrap();
    let length = bytes.len();
    bytes[length - 3..].copy_from_slice(b"aww");
    fs::write(&pack, bytes).unwrap();
    for store in [store, open(dir.path()).unwrap()] {
        let error = store.get(block.cid()).unwrap_err();
        assert_eq!(error.to_string(), format!("block {} is damaged in the blockstore", block.cid()));
    }
}

#[test]
fn a_lost_pack_loses_its_blocks_and_no_others() {
    let (dir, store) = with_tree();
    let pack = the_pack(dir.path());
    add(&store, &[raw("more")], None);
    fs::remove_file(pack).unwrap();
    drop(store);
    let (sender, events) = mpsc::channel();
    let sender = Mutex::new(sender);
    let options =
        Options { events: Arc::new(move |event| sender.lock().unwrap().send(event).unwrap()), ..Options::default() };
    let store = DiskBlockstore::open(dir.path(), options).unwrap();
    assert_eq!(events.recv().unwrap(), StoreEvent::BlocksLost { blocks: 4 });
    assert!(store.has(raw("more").cid()).unwrap() && store.get(tree()[0].cid()).unwrap().is_none());
    let error = store.gc(GcOptions::default()).unwrap_err();
    assert!(matches!(&error, StoreError::BrokenPin { pin, .. } if pin.root == *tree()[3].cid()), "{error}");
    assert!(store.has(raw("more").cid()).unwrap());
}

#[test]
fn packs_that_the_index_lacks_are_added() {
    let (dir, store) = with_tree();
    let other = tempfile::tempdir().unwrap();
    drop(open(other.path()).unwrap());
    fs::copy(the_pack(dir.path()), other.path().join("packs/00000000000000ff.car")).unwrap();
    fs::write(other.path().join("packs/notes.txt"), "").unwrap();
    fs::write(other.path().join("packs/00000000000000fe.car"), "no archive").unwrap();
    check_tree(&open(other.path()).unwrap());
    // One whose writer still has it locked is about to be told of.
    let pack = fs::File::open(the_pack(dir.path())).unwrap();
    pack.lock().unwrap();
    fs::remove_file(dir.path().join("index.sqlite")).unwrap();
    drop(store);
    let store = open(dir.path()).unwrap();
    assert!(!store.has(tree()[0].cid()).unwrap());
    // A process that another test starts at this moment may have the file for a moment longer.
    pack.unlock().unwrap();
    check_tree(&open(dir.path()).unwrap());
}

#[test]
fn what_killed_writers_left_is_collected() {
    let (dir, store) = with_tree();
    let blocks_before = verify(&store, false).blocks;
    fs::write(dir.path().join("packs/00000000000000ff.part"), vec![1; 1000]).unwrap();
    assert_eq!(collect(&store).leftovers, 1);
    assert!(packs(dir.path(), "part").is_empty());
    // So does opening the store.
    fs::write(dir.path().join("packs/00000000000000ff.part"), vec![1; 1000]).unwrap();
    drop(open(dir.path()).unwrap());
    assert!(packs(dir.path(), "part").is_empty());
    assert_eq!(verify(&store, false).blocks, blocks_before);
    let mut writer = store.writer().unwrap();
    writer.put(&raw("x")).unwrap();
    drop(open(dir.path()).unwrap());
    assert_eq!(packs(dir.path(), "part").len(), 1);
    drop(writer);
    assert!(packs(dir.path(), "part").is_empty());
}

#[test]
fn pins_that_cannot_be_read_lose_nothing() {
    let (dir, store) = with_tree();
    let path = dir.path().join("packs/pins.json");
    let good = fs::read_to_string(&path).unwrap();
    for bad in ["", "{", "garbage", &good.replace('1', "2"), &good[..good.len() / 2]] {
        fs::write(&path, bad).unwrap();
        for store in [&store, &open(dir.path()).unwrap()] {
            assert!(matches!(store.pins(), Err(StoreError::Pins { .. })));
            assert!(matches!(store.gc(GcOptions::default()), Err(StoreError::Pins { .. })));
            assert!(matches!(store.set_pin(&name("x"), tree()[0].cid()), Err(StoreError::Pins { .. })));
            assert!(matches!(store.remove_pin(&name("x")), Err(StoreError::Pins { .. })));
            check_tree(store);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
    }
    fs::write(&path, good).unwrap();
    assert_eq!(collect(&store).kept_blocks, 4);
}

#[test]
fn symlinks_are_not_followed() {
    let (dir, store) = with_tree();
    drop(store);
    for file in ["packs", "packs/pins.json", "index.sqlite", "format", "gc.lock", "turn.lock", "pins.lock"] {
        let copy = copy(dir.path());
        let (path, victim) = (copy.path().join(file), copy.path().join("victim"));
        fs::rename(&path, &victim).unwrap();
        symlink("victim", &path).unwrap();
        let before = fs::read(&victim).ok();
        let result = open(copy.path()).and_then(|store| {
            store.set_pin(&name("x"), tree()[0].cid())?;
            store.gc(GcOptions::default())
        });
        let error = result.expect_err(file);
        assert!(matches!(error, StoreError::Misplaced { .. } | StoreError::Index { .. }), "{file}: {error:?}");
        assert_eq!(fs::read(&victim).ok(), before, "{file}");
    }
    let pack = the_pack(dir.path());
    fs::rename(&pack, dir.path().join("victim")).unwrap();
    symlink("../victim", &pack).unwrap();
    let store = open(dir.path()).unwrap();
    assert!(matches!(store.get(tree()[0].cid()), Err(StoreError::Damaged { .. })));
}

#[test]
fn what_is_in_the_way_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(open(&file).is_err() && open(&file.join("below")).is_err());
    let (dir, store) = new();
    drop(store);
    fs::remove_dir(dir.path().join("packs")).unwrap();
    fs::write(dir.path().join("packs"), "").unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("packs is not what ww keeps under this name: a folder is needed"), "{error}");
}

#[test]
fn collections_free_what_is_mostly_of_no_use() {
    let (dir, store) = new();
    let big = |number: u8| raw(vec![number; 100_000]);
    let (small, root) = (raw("small"), node(&[*raw("small").cid()]));
    add(&store, &[big(1), big(2), small.clone(), root.clone()], Some("small"));
    add(&store, &[big(3), big(4), big(5)], Some("five"));
    add(&store, &[big(6)], None);
    let size = store.size_bytes().unwrap();
    let report = collect(&store);
    assert_eq!((report.removed_blocks, report.kept_blocks), (5, 3));
    // The second pack has a third that stays, so it is rewritten, too.
    assert_eq!(packs(dir.path(), "car").len(), 1);
    assert_eq!(report.freed_bytes, size - store.size_bytes().unwrap());
    assert!(store.size_bytes().unwrap() < 101_000);
    for store in [&store, &open(dir.path()).unwrap()] {
        assert_eq!(store.get(small.cid()).unwrap().as_ref(), Some(&small));
        assert_eq!(store.get(big(5).cid()).unwrap(), Some(big(5)));
        assert!(verify(store, false).findings.is_empty());
    }
}

#[test]
fn packs_that_are_mostly_of_use_stay_as_they_are() {
    let (dir, store) = new();
    let big = |number: u8| raw(vec![number; 100_000]);
    let root = node(&[*big(1).cid(), *big(2).cid()]);
    add(&store, &[big(1), big(2), big(3), root], Some("root"));
    let pack = the_pack(dir.path());
    let report = collect(&store);
    assert_eq!((report.removed_blocks, report.freed_bytes), (1, 0));
    assert_eq!(the_pack(dir.path()), pack);
    assert!(!store.has(big(3).cid()).unwrap());
    assert!(verify(&store, false).findings.is_empty());
    // Until its pack is rewritten a block that was removed can be put again.
    add(&store, &[big(3)], None);
    assert_eq!(store.get(big(3).cid()).unwrap(), Some(big(3)));
}

#[test]
fn small_packs_are_joined() {
    let (dir, store) = new();
    for number in 0..40_u8 {
        add(&store, &[raw(vec![number])], Some(&number.to_string()));
    }
    assert_eq!(packs(dir.path(), "car").len(), 40);
    collect(&store);
    the_pack(dir.path());
    collect(&store);
    for number in 0..40_u8 {
        assert_eq!(store.get(raw(vec![number]).cid()).unwrap(), Some(raw(vec![number])));
    }
    assert_eq!(store.pins().unwrap().len(), 40);
}

/// Numbers of blocks never come back: a collection would else keep one block for another.
#[test]
fn blocks_have_numbers_of_their_own_after_collections() {
    let (_dir, store) = new();
    for round in 0..10_u8 {
        let kept = raw(vec![round; 50]);
        add(&store, &[raw(vec![round; 2000]), kept.clone()], Some(&round.to_string()));
        let report = collect(&store);
        assert_eq!((report.removed_blocks, report.kept_blocks), (1, u64::from(round) + 1));
    }
}

/// Another process collects between two reads, and moves the block.
#[test]
fn readers_follow_a_block_that_moves() {
    let (dir, reader) = new();
    let (kept, dead) = (raw("kept"), raw(vec![1; 100_000]));
    add(&reader, &[dead, kept.clone()], Some("kept"));
    assert!(reader.get(kept.cid()).unwrap().is_some());
    let other = open(dir.path()).unwrap();
    let moved = the_pack(dir.path());
    collect(&other);
    assert_ne!(the_pack(dir.path()), moved);
    assert_eq!(reader.get(kept.cid()).unwrap().as_ref(), Some(&kept));
    assert_eq!(other.get(kept.cid()).unwrap(), Some(kept));
}

#[test]
fn readers_and_a_collector_at_once() {
    let (dir, store) = new();
    let kept: Vec<_> = (0..10_u8).map(|number| raw(vec![number; 100])).collect();
    let root = node(&kept.iter().map(|block| *block.cid()).collect::<Vec<_>>());
    add(&store, &[&kept[..], &[root]].concat(), Some("root"));
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (dir, kept, is_done) = (dir.path(), &kept, &is_done);
        scope.spawn(move || {
            let store = open(dir).unwrap();
            for round in 0..60_u8 {
                add(&store, &[raw(vec![round; 30_000])], None);
                collect(&store);
            }
            is_done.store(true, Ordering::SeqCst);
        });
        for store in [store, open(dir).unwrap()] {
            scope.spawn(move || {
                while !is_done.load(Ordering::SeqCst) {
                    for block in kept {
                        assert_eq!(store.get(block.cid()).unwrap().as_ref(), Some(block));
                    }
                }
            });
        }
    });
}

/// Two opened stores are to each other what two processes are.
#[test]
fn who_waits_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, events) = mpsc::channel();
    let sender = Mutex::new(sender);
    let options =
        Options { events: Arc::new(move |event| sender.lock().unwrap().send(event).unwrap()), ..Options::default() };
    let collector = DiskBlockstore::open(dir.path(), options.clone()).unwrap();
    let late = DiskBlockstore::open(dir.path(), options).unwrap();
    let early = open(dir.path()).unwrap();
    let mut writer = early.writer().unwrap();
    writer.put(&raw("x")).unwrap();
    thread::scope(|scope| {
        let collecting = scope.spawn(|| collect(&collector));
        assert_eq!(events.recv().unwrap(), StoreEvent::WaitingForWriters);
        // It waits for the collector, not for the first writer: collectors would else wait for ever.
        let writing = scope.spawn(|| add(&late, &[raw("y")], Some("y")));
        assert_eq!(events.recv().unwrap(), StoreEvent::WaitingForCollector);
        assert!(!collecting.is_finished() && !writing.is_finished());
        writer.commit(&[(name("x"), *raw("x").cid())]).unwrap();
        assert_eq!(collecting.join().unwrap().kept_blocks, 1);
        assert_eq!(writing.join().unwrap().blocks, 1);
    });
    assert!(events.try_recv().is_err(), "it is said once");
    assert!(early.has(raw("x").cid()).unwrap() && early.has(raw("y").cid()).unwrap());
}

/// Leases are those of all processes; one that was killed has left a file that nobody has locked.
#[test]
fn leases_end_with_their_process() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, collector) = (open(dir.path()).unwrap(), open(dir.path()).unwrap());
    let (leased, left) = (raw("leased"), raw("left"));
    add(&reader, &[leased.clone(), left.clone()], None);
    let lease = reader.lease(leased.cid()).unwrap();
    let leases = || fs::read_dir(dir.path().join("leases")).unwrap().count();
    fs::write(dir.path().join("leases/0123456789abcdef.lease"), left.cid().to_string()).unwrap();
    assert_eq!(collector.gc(GcOptions { dry_run: true }).unwrap().kept_blocks, 1);
    assert_eq!(leases(), 2);
    assert_eq!(collect(&collector).kept_blocks, 1);
    assert_eq!(leases(), 1);
    drop(lease);
    assert_eq!((collect(&collector).kept_blocks, leases()), (0, 0));
}

/// A process that begins after another makes no file again, and many at once leave few.
#[test]
fn files_of_leases_are_taken_again() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, other) = (open(dir.path()).unwrap(), open(dir.path()).unwrap());
    let blocks: Vec<_> = (0..6).map(|number| raw(number.to_string())).collect();
    add(&reader, &blocks, None);
    let leases = || fs::read_dir(dir.path().join("leases")).unwrap().count();
    let kept = || other.gc(GcOptions { dry_run: true }).unwrap().kept_blocks;
    for block in &blocks[..3] {
        let lease = reader.lease(block.cid()).unwrap();
        assert_eq!((leases(), kept()), (1, 1));
        assert_eq!(fs::read_to_string(dir.path().join("leases/0.lease")).unwrap(), block.cid().to_string());
        drop(lease);
        assert_eq!((leases(), kept()), (1, 0));
    }
    let held: Vec<_> = blocks.iter().map(|block| other.lease(block.cid()).unwrap()).collect();
    assert_eq!((leases(), reader.gc(GcOptions { dry_run: true }).unwrap().kept_blocks), (6, 6));
    drop(held);
    assert_eq!((leases(), kept()), (4, 0));
    collect(&other);
    assert_eq!(leases(), 0);
}

#[test]
fn a_wait_can_be_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { cancelled: Arc::new(|| true), ..Options::default() };
    let collector = DiskBlockstore::open(dir.path(), options).unwrap();
    let store = open(dir.path()).unwrap();
    let _writer = store.writer().unwrap();
    assert!(matches!(collector.gc(GcOptions::default()), Err(StoreError::Cancelled)));
    drop(store.writer().unwrap());
}

/// Who must not wait gives up where there is something to wait for, and says nothing of it; the next one waits.
#[test]
fn what_would_take_a_wait_is_left() {
    let (dir, store) = new();
    add(&store, &[raw("block")], Some("pin"));
    let told = Arc::new(Mutex::new(Vec::new()));
    let events = told.clone();
    let options = Options { events: Arc::new(move |event| events.lock().unwrap().push(event)), ..Options::default() };
    let other = without_waiting(|| DiskBlockstore::open(dir.path(), options.clone())).unwrap();
    let exclusive = lock::exclude(&store.inner.layout, &Options::default()).unwrap();
    assert!(matches!(without_waiting(|| other.hold()), Err(StoreError::Cancelled)));
    assert!(matches!(without_waiting(|| other.lease(raw("block").cid())), Err(StoreError::Cancelled)));
    drop(exclusive);
    without_waiting(|| other.lease(raw("block").cid())).unwrap();
    fs::remove_file(dir.path().join("index.sqlite")).unwrap();
    let open = || DiskBlockstore::open(dir.path(), options.clone());
    assert!(matches!(without_waiting(open), Err(StoreError::Cancelled)));
    assert!(told.lock().unwrap().is_empty());
    assert!(open().unwrap().has(raw("block").cid()).unwrap());
    assert_eq!(told.lock().unwrap().len(), 1);
}

#[test]
fn the_log_of_the_index_stays_short() {
    let (dir, store) = new();
    let mut longest = 0;
    for round in 0..12_u32 {
        let blocks: Vec<_> = (0..10_000_u32).map(|number| raw((round * 10_000 + number).to_string())).collect();
        add(&store, &blocks, None);
        longest = longest.max(fs::metadata(dir.path().join("index.sqlite-wal")).unwrap().len());
    }
    assert!(longest < 32 << 20, "{longest}");
    assert!(open(dir.path()).unwrap().has(raw("119999").cid()).unwrap());
}
