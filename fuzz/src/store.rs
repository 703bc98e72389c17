//! Files of a blockstore that somebody else wrote, or a failing disk.

use std::fs;
use std::path::{Path, PathBuf};

use ww::blockstore::{Blockstore, DiskBlockstore, Finding, GcOptions, Options, StoreError, VerifyOptions};
use ww::dag::car::{Decoder, Item};

/// A pack if the first byte is even, else the file of pins. What comes out of the store is checked by its type; here it
/// must come out, or an error must.
pub(crate) fn store(bytes: &[u8]) {
    let [kind, content @ ..] = bytes else { return };
    let dir = temporary();
    let path = dir.path().join("store");
    drop(DiskBlockstore::open(&path, Options::default()).expect("a new store"));
    let is_pack = kind % 2 == 0;
    let file = if is_pack { "0123456789abcdef.car" } else { "pins.json" };
    fs::write(path.join("packs").join(file), content).expect("a file");
    remove_index(&path);
    // Whether or not it can be opened.
    let _ = use_store(&path, if is_pack { content } else { &[] });
}

fn use_store(path: &Path, pack: &[u8]) -> Result<(), StoreError> {
    let store = DiskBlockstore::open(path, Options::default())?;
    let mut decoder = Decoder::new();
    decoder.push(pack);
    while let Ok(Some(item)) = decoder.next_item() {
        if let Item::Section(section) = item {
            let _ = store.get(&section.cid);
        }
    }
    let _ = store.pins();
    let _ = store.gc(GcOptions { dry_run: true });
    let report = store.verify(VerifyOptions { repair: true }, &mut |_| {})?;
    if report.repaired {
        let again = store.verify(VerifyOptions::default(), &mut |_| {})?;
        let left = again.findings.iter().find(|finding| !matches!(finding, Finding::BrokenPin { .. }));
        assert!(left.is_none(), "{left:?}");
    }
    Ok(())
}

fn remove_index(path: &Path) {
    let entries = fs::read_dir(path).expect("the store's folder");
    let names = entries.map(|entry| entry.expect("an entry").path());
    let is_index = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("index"));
    names.filter(is_index).for_each(|path| fs::remove_file(path).expect("a file"));
}

/// In memory where that can be had: a store waits for its disk.
fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a temporary folder")
}
