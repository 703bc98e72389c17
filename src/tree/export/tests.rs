use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::*;
use crate::dag::unixfs::{self, Data, Entry, EntryName, FileBuilder, Kind, Profile, Subtree};
use crate::dag::{Version, pb};
use crate::tree::{BlockSink, ImportOptions, import};

const V2025: Profile = Profile::UNIXFS_V1_2025;
const V2015: Profile = Profile::UNIXFS_V0_2015;

#[derive(Default)]
struct Memory(HashMap<Cid, Block>);

impl BlockSink for Memory {
    fn put(&mut self, block: &Block) -> Result<(), BoxError> {
        self.0.insert(*block.cid(), block.clone());
        Ok(())
    }

    fn has(&mut self, _: &Cid) -> Result<bool, BoxError> {
        Ok(false)
    }
}

impl BlockSource for Memory {
    fn get(&self, cid: &Cid) -> Result<Option<Block>, BoxError> {
        Ok(self.0.get(cid).cloned())
    }
}

impl Memory {
    fn import(&mut self, path: &Path, profile: Profile) -> Cid {
        import(path, &ImportOptions::new(profile), None, Some(self)).unwrap().subtree.cid
    }

    fn node(&mut self, links: &[(&str, Cid)], data: &Data<'_>) -> Cid {
        let links = links.iter().map(|(name, cid)| pb::Link { cid: *cid, name: Some(name), tsize: Some(1) }).collect();
        let message = data.encode();
        let node = pb::Node { links, data: Some(&message) }.encode();
        self.raw(0x70, node)
    }

    fn raw(&mut self, codec: u64, data: Vec<u8>) -> Cid {
        let block = Block::seal(Version::V1, codec, Bytes::from(data)).unwrap();
        self.0.insert(*block.cid(), block.clone());
        *block.cid()
    }

    fn directory(&mut self, entries: &[(&str, Cid)]) -> Cid {
        self.node(entries, &Data::new(Kind::Directory))
    }

    fn symlink(&mut self, target: &[u8]) -> Cid {
        self.node(&[], &Data { data: Some(target), ..Data::new(Kind::Symlink) })
    }
}

/// All that is below a path, as text: folders, files with contents, symlinks with targets.
fn listing(path: &Path) -> Vec<String> {
    fn list(path: &Path, below: &str, found: &mut Vec<String>) {
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_symlink() {
            found.push(format!("{below} -> {}", fs::read_link(path).unwrap().display()));
        } else if metadata.is_dir() {
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o755);
            found.push(format!("{below}/"));
            for entry in fs::read_dir(path).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                list(&path.join(&name), &format!("{below}/{name}"), found);
            }
        } else {
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o644);
            found.push(format!("{below}: {}", fs::read_to_string(path).unwrap()));
        }
    }
    let mut found = Vec::new();
    list(path, "", &mut found);
    found.sort();
    found
}

/// Exports, and expects an error with this text and nothing on disk.
fn check_refused(memory: &Memory, root: Cid, options: &ExportOptions<'_>, expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let error = export(memory, root, &dir.path().join("out"), options).unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was left");
}

fn distinct(size: usize) -> Vec<u8> {
    (0..size.div_ceil(4)).flat_map(|word| (word as u32).to_le_bytes()).take(size).collect()
}

#[test]
fn trees_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("a/b")).unwrap();
    fs::create_dir(source.join("empty")).unwrap();
    fs::write(source.join("a/b/file"), "hello\n").unwrap();
    fs::write(source.join("a/nothing"), "").unwrap();
    symlink("../../../etc/passwd", source.join("a/out")).unwrap();
    symlink("/etc", source.join("a/absolute")).unwrap();
    symlink("a", source.join("empty link")).unwrap();
    let names = [" ", "-n", "\n", "a%20b", "名前", "\\", "*"];
    names.iter().for_each(|name| fs::write(source.join(name), name).unwrap());
    for profile in Profile::ALL {
        for threads in [1, 2, 8] {
            let memory = &mut Memory::default();
            let root = memory.import(&source, profile);
            let target = dir.path().join("target");
            let options = ExportOptions { threads: NonZeroUsize::new(threads).unwrap(), ..ExportOptions::default() };
            let exported = export(memory, root, &target, &options).unwrap();
            assert_eq!((exported.files, exported.folders, exported.symlinks), (9, 4, 3));
            assert_eq!(listing(&target), listing(&source));
            fs::remove_dir_all(&target).unwrap();
        }
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["source"]);
}

/// Larger than one part, so that several threads write it; of pieces that do and do not fit the parts.
#[test]
fn large_files_come_back() {
    let content = distinct(40_000_003);
    let dir = tempfile::tempdir().unwrap();
    for profile in [V2025, V2015, Profile { chunk_bytes: 1_000_003, file_links_max: 4, ..V2025 }] {
        let memory = &mut Memory::default();
        let mut builder = FileBuilder::new(profile);
        let mut sink = |block: Block| memory.put(&block).map_err(|_| unixfs::BuildError::SizeOverflow);
        for chunk in content.chunks(profile.chunk_bytes) {
            builder.push(Bytes::copy_from_slice(chunk), &mut sink).unwrap();
        }
        let root = builder.finish(&mut sink).unwrap().subtree().cid;
        let target = dir.path().join("file");
        let written = AtomicU64::new(0);
        let progress = |bytes| {
            written.fetch_add(bytes, Ordering::Relaxed);
        };
        let exported = export(memory, root, &target, &ExportOptions { progress: &progress, ..Default::default() });
        assert_eq!(exported.unwrap(), Exported { files: 1, bytes: content.len() as u64, ..Exported::default() });
        assert!(fs::read(&target).unwrap() == content);
        assert_eq!(written.into_inner(), content.len() as u64);
        fs::remove_file(&target).unwrap();
    }
}

#[test]
fn large_directories_come_back() {
    let memory = &mut Memory::default();
    let file = memory.raw(0x55, b"x".to_vec());
    let target = Subtree { cid: file, dag_size: 1 };
    let entries = (0..9000).map(|index| Entry { name: EntryName::new(format!("file{index}")).unwrap(), target });
    let mut sink = |block: Block| memory.put(&block).map_err(|_| unixfs::BuildError::SizeOverflow);
    let root = unixfs::directory(&V2025, entries.collect(), &mut sink).unwrap().cid;
    let dir = tempfile::tempdir().unwrap();
    let exported = export(memory, root, &dir.path().join("out"), &ExportOptions::default()).unwrap();
    assert_eq!((exported.files, exported.bytes), (9000, 9000));
    assert_eq!(memory.import(&dir.path().join("out"), V2025), root);
}

#[test]
fn single_files_and_symlinks_are_targets() {
    let memory = &mut Memory::default();
    let dir = tempfile::tempdir().unwrap();
    let file = memory.raw(0x55, b"hello".to_vec());
    export(memory, file, &dir.path().join("file"), &ExportOptions::default()).unwrap();
    let link = memory.symlink(b"/nowhere");
    export(memory, link, &dir.path().join("link"), &ExportOptions::default()).unwrap();
    // The content of an identity CID is in it.
    export(memory, "bafkqaaa".parse().unwrap(), &dir.path().join("empty"), &ExportOptions::default()).unwrap();
    assert_eq!(listing(&dir.path().join("file")), [": hello"]);
    assert_eq!(listing(&dir.path().join("link")), [" -> /nowhere"]);
    assert_eq!(listing(&dir.path().join("empty")), [": "]);
}

#[test]
fn nothing_is_replaced() {
    let memory = &mut Memory::default();
    let root = memory.directory(&[]);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    symlink("nowhere", dir.path().join("link")).unwrap();
    for name in ["dir", "dir/", "file", "link", ".", "dir/..", ""] {
        let target = if name.is_empty() { Path::new("/").to_owned() } else { dir.path().join(name) };
        let error = export(memory, root, &target, &ExportOptions::default()).unwrap_err();
        assert!(matches!(error, ExportError::Exists { .. }), "{name}: {error}");
    }
    let error = export(memory, root, &dir.path().join("no/dir"), &ExportOptions::default()).unwrap_err();
    assert!(matches!(error, ExportError::Io { action: "open", .. }));
    assert_eq!(listing(&dir.path().join("file")), [": x"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

/// Something that takes the place while the tree is written stays.
#[test]
fn what_comes_meanwhile_is_not_replaced() {
    struct Meddler<'a>(&'a Memory, &'a Path);
    impl BlockSource for Meddler<'_> {
        fn get(&self, cid: &Cid) -> Result<Option<Block>, BoxError> {
            if !self.1.exists() {
                fs::write(self.1, "mine")?;
            }
            self.0.get(cid)
        }
    }
    let memory = &mut Memory::default();
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out");
    for root in [memory.directory(&[]), memory.raw(0x55, b"theirs".to_vec()), memory.symlink(b"theirs")] {
        let error = export(&Meddler(memory, &target), root, &target, &ExportOptions::default()).unwrap_err();
        assert!(matches!(error, ExportError::Exists { .. }), "{error}");
        assert_eq!(listing(&target), [": mine"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

/// CVE-2020-26279 and others: names that lead elsewhere.
#[test]
fn names_that_lead_elsewhere_are_refused() {
    let memory = &mut Memory::default();
    let file = memory.raw(0x55, b"evil".to_vec());
    for name in ["..", ".", "", "a/b", "/etc/x", "../x", "a\0b"] {
        let inner = memory.directory(&[(name, file)]);
        let root = memory.directory(&[("inner", inner)]);
        let expected = format!("`inner` is malformed: block {inner} is not valid UnixFS");
        check_refused(memory, root, &ExportOptions::default(), &expected);
    }
    // In a HAMT the name follows two digits.
    let shard = Data { data: Some(&[1]), hash_type: Some(0x22), fanout: Some(256), ..Data::new(Kind::HamtShard) };
    let root = memory.node(&[("00../x", file)], &shard);
    let expected = format!("the root is malformed: block {root} is not valid UnixFS");
    check_refused(memory, root, &ExportOptions::default(), &expected);
}

/// A symlink and a folder of one name: the file below would go to where the symlink leads.
#[test]
fn two_entries_of_one_name_are_refused() {
    let memory = &mut Memory::default();
    let file = memory.raw(0x55, b"evil".to_vec());
    let (link, folder) = (memory.symlink(b"/tmp"), memory.directory(&[("file", file)]));
    let root = memory.directory(&[("a", link), ("a", folder)]);
    let expected = format!("the root is malformed: block {root} is not valid UnixFS");
    check_refused(memory, root, &ExportOptions::default(), &expected);
}

#[test]
fn symlinks_without_a_target_are_refused() {
    let memory = &mut Memory::default();
    for target in [&b""[..], b"a\0b"] {
        let link = memory.symlink(target);
        let root = memory.directory(&[("link\n", link)]);
        let expected = "symlink `link\\n` has a target that is empty or contains a zero byte";
        check_refused(memory, root, &ExportOptions::default(), expected);
    }
}

#[test]
fn missing_blocks_are_named() {
    let memory = &mut Memory::default();
    let file = memory.raw(0x55, b"x".to_vec());
    let other = memory.raw(0x55, b"y".to_vec());
    let inner = memory.directory(&[("a", file), ("b", other)]);
    let root = memory.directory(&[("dir", inner)]);
    memory.0.remove(&other);
    check_refused(memory, root, &ExportOptions::default(), &format!("block {other} of `dir/b` is missing"));
    memory.0.remove(&root);
    check_refused(memory, root, &ExportOptions::default(), &format!("block {root} of the root is missing"));
}

#[test]
fn what_is_no_tree_is_refused() {
    let memory = &mut Memory::default();
    let cbor = memory.raw(0x71, vec![0xa0]);
    check_refused(
        memory,
        cbor,
        &ExportOptions::default(),
        &format!("the root is malformed: block {cbor} is not valid UnixFS"),
    );
    // A part that is shorter than its parent says.
    let part = memory.raw(0x55, b"short".to_vec());
    let data = Data { file_size: Some(10), block_sizes: vec![10], ..Data::new(Kind::File) };
    let root = memory.node(&[("", part)], &data);
    check_refused(memory, root, &ExportOptions::default(), "the root is malformed");
}

/// A few blocks that describe 2^60 files, or as many bytes.
#[test]
fn bombs_are_refused() {
    let memory = &mut Memory::default();
    let names: Vec<String> = (0..64).map(|index| index.to_string()).collect();
    let mut root = memory.raw(0x55, b"x".to_vec());
    for _ in 0..10 {
        let entries: Vec<(&str, Cid)> = names.iter().map(|name| (name.as_str(), root)).collect();
        root = memory.directory(&entries);
    }
    let limits = ExportLimits { entries: 2000, ..ExportLimits::default() };
    let options = ExportOptions { limits, ..ExportOptions::default() };
    check_refused(memory, root, &options, "there are more files and folders than the limit of 2000");

    let mut root = memory.raw(0x55, vec![0; 1 << 20]);
    let mut size = 1 << 20;
    for _ in 0..6 {
        let links = vec![("", root); 64];
        let data = Data { file_size: Some(size * 64), block_sizes: vec![size; 64], ..Data::new(Kind::File) };
        (root, size) = (memory.node(&links, &data), size * 64);
    }
    let expected = "the files are together larger than the limit of 68719476736 bytes";
    check_refused(memory, root, &ExportOptions::default(), expected);

    let two = memory.raw(0x55, vec![0; 600]);
    let root = memory.directory(&[("a", two), ("b", two)]);
    let limits = ExportLimits { bytes: 1000, ..ExportLimits::default() };
    let options = ExportOptions { limits, ..ExportOptions::default() };
    check_refused(memory, root, &options, "the files are together larger than the limit of 1000 bytes");
}

#[test]
fn depth_is_bounded() {
    let memory = &mut Memory::default();
    let mut root = memory.directory(&[]);
    for _ in 0..DEPTH_MAX {
        root = memory.directory(&[("d", root)]);
    }
    let dir = tempfile::tempdir().unwrap();
    let exported = export(memory, root, &dir.path().join("out"), &ExportOptions::default()).unwrap();
    assert_eq!(exported.folders, DEPTH_MAX as u64 + 1);
    let deeper = memory.directory(&[("d", root)]);
    let path = vec!["d"; DEPTH_MAX + 1].join("/");
    check_refused(memory, deeper, &ExportOptions::default(), &format!("`{path}` is more than 256 folders deep"));
    let limits = ExportLimits { depth: 1, ..ExportLimits::default() };
    let options = ExportOptions { limits, ..ExportOptions::default() };
    check_refused(memory, root, &options, "`d/d` is more than 1 folders deep");
}

#[test]
fn stops_when_told() {
    let memory = &mut Memory::default();
    let file = memory.raw(0x55, b"x".to_vec());
    let root = memory.directory(&[("a", file), ("b", file)]);
    for calls in 0..3 {
        let asked = AtomicU64::new(0);
        let cancel = || asked.fetch_add(1, Ordering::Relaxed) >= calls;
        check_refused(memory, root, &ExportOptions { cancel: &cancel, ..Default::default() }, "stopped");
    }
}

#[test]
fn a_failing_source_is_named() {
    struct Broken;
    impl BlockSource for Broken {
        fn get(&self, _: &Cid) -> Result<Option<Block>, BoxError> {
            Err("the disk is gone".into())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let root = Memory::default().raw(0x55, b"x".to_vec());
    let error = export(&Broken, root, &dir.path().join("out"), &ExportOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read block {root}"));
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the disk is gone");
}

/// In folders and files of all sizes threads meet in every way.
#[test]
fn threads_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    for folder in 0..40 {
        for file in 0..folder % 7 {
            let path = source.join(format!("{}/{folder}/{file}", folder % 3));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, distinct(folder * 40 * file)).unwrap();
        }
    }
    let memory = &mut Memory::default();
    let profile = Profile { chunk_bytes: 1000, file_links_max: 3, ..V2025 };
    let root = memory.import(&source, profile);
    for round in 0..50 {
        let target = dir.path().join("target");
        let options = ExportOptions { threads: NonZeroUsize::new(1 + round % 8).unwrap(), ..ExportOptions::default() };
        export(memory, root, &target, &options).unwrap();
        assert_eq!(memory.import(&target, profile), root);
        fs::remove_dir_all(target).unwrap();
    }
}
