//! Blocks that are had without waiting, and what is done where they cannot be.

use super::super::AT_ONCE_BYTES_MAX;
use super::super::tests::{add, raw};
use super::tests::{collect, new, open, the_pack};
use super::*;

fn cids(blocks: &[Block]) -> Vec<Cid> {
    blocks.iter().map(|block| *block.cid()).collect()
}

/// Bytes that were just written are in memory, on a file system that can tell.
fn can_tell() -> bool {
    let (_dir, store) = new();
    add(&store, &[raw("x")], None);
    store.get(raw("x").cid()).unwrap();
    store.get_at_once(raw("x").cid()).is_some()
}

#[test]
fn what_was_located_is_had_at_once() {
    let (dir, store) = new();
    let blocks: Vec<_> = (0..20_u8).map(|number| raw(vec![number; 100 * usize::from(number)])).collect();
    add(&store, &blocks, Some("blocks"));
    let store = open(dir.path()).unwrap();
    let gone = raw("gone");
    assert!(blocks.iter().all(|block| store.get_at_once(block.cid()).is_none()), "nobody has looked for them");
    let beside = [&cids(&blocks[1..19])[..], &[*gone.cid()]].concat();
    assert_eq!(store.get_among(blocks[0].cid(), &beside).unwrap().as_ref(), Some(&blocks[0]));
    if can_tell() {
        for block in &blocks[..19] {
            assert_eq!(store.get_at_once(block.cid()).as_ref(), Some(block));
        }
    }
    assert!(store.get_at_once(blocks[19].cid()).is_none());
    assert!(store.get_at_once(gone.cid()).is_none());
    // What came since then is found when it is looked for.
    add(&store, std::slice::from_ref(&gone), None);
    assert!(store.get_at_once(gone.cid()).is_none());
    assert_eq!(store.get_among(gone.cid(), &beside).unwrap(), Some(gone.clone()));
    assert_eq!(store.get_at_once(gone.cid()).is_some(), can_tell());
}

#[test]
fn long_blocks_are_not_had_at_once() {
    let (_dir, store) = new();
    let blocks = [raw(vec![1; AT_ONCE_BYTES_MAX]), raw(vec![2; AT_ONCE_BYTES_MAX + 1])];
    add(&store, &blocks, Some("blocks"));
    for block in &blocks {
        assert_eq!(store.get(block.cid()).unwrap().as_ref(), Some(block));
    }
    assert_eq!(store.get_at_once(blocks[0].cid()).is_some(), can_tell());
    assert!(store.get_at_once(blocks[1].cid()).is_none());
}

/// Another process collects, and the block is in another pack: at first it is not had at once, and when it was looked for it is.
#[test]
fn a_block_that_others_moved_is_looked_for() {
    let (dir, reader) = new();
    let (kept, dead) = (raw("kept"), raw(vec![1; 100_000]));
    add(&reader, &[dead, kept.clone()], Some("kept"));
    reader.get(kept.cid()).unwrap();
    let moved = the_pack(dir.path());
    collect(&open(dir.path()).unwrap());
    assert_ne!(the_pack(dir.path()), moved);
    assert!(reader.get_at_once(kept.cid()).is_none(), "its pack has no name any more");
    assert_eq!(reader.get(kept.cid()).unwrap().as_ref(), Some(&kept));
    assert_eq!(reader.get_at_once(kept.cid()), can_tell().then_some(kept));
}

/// Another process collects what nobody holds.
#[test]
fn a_block_that_others_removed_is_gone() {
    let (dir, reader) = new();
    add(&reader, &[raw("dead")], None);
    reader.get(raw("dead").cid()).unwrap();
    collect(&open(dir.path()).unwrap());
    assert!(reader.get_at_once(raw("dead").cid()).is_none());
    assert!(reader.get(raw("dead").cid()).unwrap().is_none());
}

#[test]
fn other_bytes_are_never_had_at_once() {
    let (dir, store) = new();
    let block = raw("123");
    add(&store, std::slice::from_ref(&block), Some("x"));
    store.get(block.cid()).unwrap();
    let pack = the_pack(dir.path());
    let bytes = std::fs::read(&pack).unwrap();
    // In place: the file stays open.
    let write = |end: &[u8]| std::fs::write(&pack, [&bytes[..bytes.len() - 3], end].concat()).unwrap();
    for end in [&b"aww"[..], b"12"] {
        write(end);
        assert!(store.get_at_once(block.cid()).is_none());
        assert!(matches!(store.get(block.cid()), Err(StoreError::Damaged { .. })));
    }
    write(b"123");
    assert_eq!(store.get_at_once(block.cid()), can_tell().then_some(block));
}
