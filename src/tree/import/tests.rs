use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::dag::unixfs::{self, Blocks, WalkError};

const V2025: Profile = Profile::UNIXFS_V1_2025;
const V2015: Profile = Profile::UNIXFS_V0_2015;
const CIDV1: Profile = Profile::KUBO_CIDV1;

/// Keeps blocks, and checks that children come first.
#[derive(Default)]
struct Memory {
    blocks: HashMap<Cid, Block>,
    /// How often it was asked for what the cache knew.
    asked: usize,
    denies: bool,
}

impl BlockSink for Memory {
    fn put(&mut self, block: &Block) -> Result<(), BoxError> {
        for link in crate::dag::pb::links(block)? {
            assert!(self.blocks.contains_key(&link), "{link} comes after its parent");
        }
        self.blocks.insert(*block.cid(), block.clone());
        Ok(())
    }

    fn has(&mut self, root: &Cid) -> Result<bool, BoxError> {
        self.asked += 1;
        Ok(!self.denies && self.blocks.contains_key(root))
    }
}

impl Blocks for Memory {
    type Error = WalkError;

    fn block(&self, cid: &Cid) -> Result<Block, WalkError> {
        Ok(self.blocks[cid].clone())
    }
}

/// A folder in which a test writes what it imports.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn of(files: &[(&str, &[u8])]) -> Self {
        let tree = Self::new();
        files.iter().for_each(|(path, content)| tree.write(path, content));
        tree
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: impl AsRef<Path>, content: &[u8]) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn import(&self, options: &ImportOptions<'_>) -> Result<Imported, ImportError> {
        import(self.path(), options, None, None)
    }
}

/// The CID of a tree: without and with a sink, with one thread and with several.
fn cid_of(path: &Path, profile: Profile) -> String {
    let mut found = Vec::new();
    for threads in [1, 2, 5] {
        let options = ImportOptions { threads: NonZeroUsize::new(threads).unwrap(), ..ImportOptions::new(profile) };
        let memory = &mut Memory::default();
        found.push(import(path, &options, None, None).unwrap());
        found.push(import(path, &options, None, Some(memory)).unwrap());
        assert!(memory.blocks.contains_key(&found[0].subtree.cid));
    }
    assert!(found.array_windows().all(|[first, second]| first == second), "{found:?}");
    found[0].subtree.cid.to_string()
}

fn check(tree: &Tree, profile: Profile, expected: &str) {
    assert_eq!(cid_of(tree.path(), profile), expected, "{profile}");
}

/// Case I1: whatever the modes, times and umask.
#[test]
fn program_in_a_directory() {
    let tree = Tree::of(&[("bin/main.wasm", b"\0asm\x01\0\0\0")]);
    let expected = "bafybeih7evawwmr4si4l3h3yn4fbntoauaq6sy7bqfolvjfyfktoh5n5ly";
    check(&tree, V2025, expected);
    fs::set_permissions(tree.path().join("bin/main.wasm"), PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(tree.path().join("bin"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::File::open(tree.path().join("bin/main.wasm")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    check(&tree, V2025, expected);
}

/// Cases I3 and I4, and Kubo's test/sharness/t0044-add-symlink.sh.
#[test]
fn symlinks_are_stored() {
    let tree = Tree::of(&[("foo/baz", b"some text\n")]);
    fs::create_dir(tree.path().join("bar")).unwrap();
    symlink("files/foo/baz", tree.path().join("bar/baz")).unwrap();
    symlink("files/does/not/exist", tree.path().join("bad")).unwrap();
    check(&tree, V2015, "QmWdiHKoeSW8G1u7ATCgpx4yMoUhYaJBQGkyPLkS9goYZ8");
    let before = tree.import(&ImportOptions::new(V2025)).unwrap();
    assert_eq!((before.files, before.folders, before.symlinks, before.bytes), (1, 3, 2, 10));
    // A link to a folder is not descended into.
    symlink("/", tree.path().join("root")).unwrap();
    assert_eq!(tree.import(&ImportOptions::new(V2025)).unwrap().symlinks, 3);
}

/// Case I6.
#[test]
fn names_are_taken_as_they_are() {
    check(&Tree::of(&[("bar$baz.txt", b"")]), V2015, "QmYYohh3cVpiMCwsr4hLpRdN6qmsKrrPDdNJMYVqekk2cq");
    let tree = Tree::of(&[("a b", b"1"), ("a%20b", b"2"), ("a+b", b"3")]);
    check(&tree, V2025, "bafybeig2e5r7jiczxoyis4f66h4rutahtovhpd4khoyeonojetubs3haua");
}

/// Cases C1 and C2.
#[test]
fn single_files() {
    let check_file = |content: &[u8], profile, expected: &str| {
        let tree = Tree::of(&[("file", content)]);
        assert_eq!(cid_of(&tree.path().join("file"), profile), expected);
    };
    check_file(b"hello\n", V2025, "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am");
    check_file(b"hello\n", CIDV1, "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am");
    check_file(b"hello\n", V2015, "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN");
    check_file(b"", V2015, "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH");
    check_file(b"", V2025, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
    let empty = Tree::new();
    check(&empty, V2015, "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn");
    check(&empty, V2025, "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354");
}

/// Case C3: sparse files of zeros.
#[test]
fn files_at_the_edge_of_chunks_and_nodes() {
    let check_zeros = |size, profile, expected: &str| {
        let tree = Tree::of(&[("file", b"")]);
        let path = tree.path().join("file");
        fs::File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
        assert_eq!(cid_of(&path, profile), expected, "{size}");
    };
    check_zeros(262_144, V2015, "QmRk1rduJvo5DfEYAaLobS2za9tDszk35hzaNSDCJ74DA7");
    check_zeros(262_145, V2015, "QmbVuw4C4vcmVKqxoWtgDVobvcHrSn51qsmQmyxjk4sB2Q");
    check_zeros(262_145, CIDV1, "bafybeigllfqgfpqydppr6cmv56g7ax4wyhruzswvcefv6j5kj77nzttfki");
    check_zeros(1_048_576, V2025, "bafkreibq4fevl27rgurgnxbp7adh42aqiyd6ouflxhj3gzmcxcxzbh6lla");
    check_zeros(1_048_577, V2025, "bafybeihd4yzq7n5umhjngdum4r6k2to7egxfkf2jz6thvwzf6djus22cmq");
    check_zeros(45_613_056, V2015, "QmY4HSz1oVGdUzb8poVYPLsoqBZjH6LZrtgnme9wWn2Qko");
    check_zeros(45_875_200, V2015, "QmaL1KiQRV8secNszpjjFPg722T53c77k2dz5UsNua59ZT");
    check_zeros(45_875_200, CIDV1, "bafybeigfps5vzivfspwgm3uwsfyl5s6bn3ysh7uqidgauxgopw4yi66lse");
}

/// Case C5: under the default threshold, and over it.
#[test]
fn directories_of_thousands() {
    let tree = Tree::new();
    (1..=2000).for_each(|index| tree.write(format!("file{index}"), format!("{index}\n").as_bytes()));
    check(&tree, V2015, "QmavrTrQG4VhoJmantURAYuw3bowq3E2WcvP36NRQDAC1N");
    let sharded = Profile { directory_size_max: 0, ..V2015 };
    check(&tree, sharded, "QmSCJD1KYLhVVHqBK3YyXuoEqHt7vggyJhzoFYbT8v1XYL");
}

/// Case C6, the second under the modern profile.
#[test]
fn directory_over_the_threshold() {
    let tree = Tree::new();
    (0..4765).for_each(|index| tree.write(format!("{index:011}"), b"x"));
    tree.write(format!("{:022}", 4765), b"x");
    check(&tree, V2025, "bafybeihvjss4brfqeq6lbsrbhkbqmhggne3jj7xhhjzlicct4rwso7c2nu");
}

/// Content that differs from chunk to chunk, so that no two may be exchanged.
fn distinct(size: usize) -> Vec<u8> {
    (0..size.div_ceil(4)).flat_map(|word| (word as u32).to_le_bytes()).take(size).collect()
}

#[test]
fn contents_come_back() {
    let large = distinct(9_000_001);
    let tree = Tree::of(&[("large", &large), ("a/b/small", b"x"), ("a/empty", b"")]);
    for profile in Profile::ALL {
        let memory = &mut Memory::default();
        let root = import(tree.path(), &ImportOptions::new(profile), None, Some(memory)).unwrap().subtree.cid;
        let file = unixfs::resolve(memory, root, "large").unwrap();
        let mut content = Vec::new();
        unixfs::read_file(memory, file, &mut |part| {
            content.extend_from_slice(&part);
            Ok(())
        })
        .unwrap();
        assert!(content == large, "{profile}");
    }
}

#[test]
fn root_symlinks() {
    let tree = Tree::of(&[("dir/file", b"hello\n")]);
    symlink("file", tree.path().join("dir/link")).unwrap();
    let link = tree.path().join("dir/link");
    let with = |root_symlink| ImportOptions { root_symlink, ..ImportOptions::new(V2015) };
    let refused = import(&link, &with(RootSymlink::Refuse), None, None).unwrap_err();
    assert_eq!(refused.to_string(), format!("{} is a symlink", link.display()));
    let followed = import(&link, &with(RootSymlink::Follow), None, None).unwrap();
    assert_eq!(followed.subtree.cid.to_string(), "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN");
    let stored = import(&link, &with(RootSymlink::Store), None, None).unwrap();
    assert_eq!((stored.symlinks, stored.files), (1, 0));
    let missing = import(&tree.path().join("missing"), &with(RootSymlink::Refuse), None, None).unwrap_err();
    assert!(matches!(missing, ImportError::Io { .. }));
}

/// Case I5.
#[test]
fn names_that_are_not_utf8_are_refused() {
    let tree = Tree::new();
    tree.write(OsStr::from_bytes(b"\xff\xfe"), b"1");
    let error = tree.import(&ImportOptions::new(V2025)).unwrap_err();
    assert_eq!(error.to_string(), format!("the name of {}/\\xff\\xfe is not UTF-8", tree.path().display()));
}

#[test]
fn what_is_no_file_is_refused_and_does_not_block() {
    let tree = Tree::of(&[("file", b"x")]);
    let socket = tree.path().join("so\ncket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let error = tree.import(&ImportOptions::new(V2025)).unwrap_err();
    assert_eq!(error.to_string(), format!("{}/so\\ncket is neither file, folder nor symlink", tree.path().display()));
    let error = import(&socket, &ImportOptions::new(V2025), None, None).unwrap_err();
    assert!(matches!(error, ImportError::Kind { .. }));
    fs::remove_file(socket).unwrap();
    let fifo = tree.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(matches!(tree.import(&ImportOptions::new(V2025)), Err(ImportError::Kind { .. })));
    assert!(matches!(import(&fifo, &ImportOptions::new(V2025), None, None), Err(ImportError::Kind { .. })));
}

#[test]
fn depth_is_bounded() {
    let tree = Tree::new();
    let deepest = (0..DEPTH_MAX).fold(tree.path().to_owned(), |path, _| path.join("d"));
    fs::create_dir_all(&deepest).unwrap();
    assert_eq!(tree.import(&ImportOptions::new(V2025)).unwrap().folders, DEPTH_MAX as u64 + 1);
    fs::create_dir(deepest.join("d")).unwrap();
    assert!(matches!(tree.import(&ImportOptions::new(V2025)), Err(ImportError::TooDeep { .. })));
}

#[test]
fn stops_when_told() {
    let tree = Tree::of(&[("file", b"x")]);
    let options = ImportOptions { cancel: &|| true, ..ImportOptions::new(V2025) };
    assert!(matches!(tree.import(&options), Err(ImportError::Cancelled)));
}

#[test]
fn failing_sinks_end_it() {
    struct Full;
    impl BlockSink for Full {
        fn put(&mut self, _: &Block) -> Result<(), BoxError> {
            Err("disk full".into())
        }
        fn has(&mut self, _: &Cid) -> Result<bool, BoxError> {
            Ok(false)
        }
    }
    let tree = Tree::of(&[("a", b"x"), ("b", b"y"), ("c/d", b"z")]);
    let error = import(tree.path(), &ImportOptions::new(V2025), None, Some(&mut Full)).unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "disk full");
}

#[test]
fn progress_is_the_number_of_bytes() {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    let tree = Tree::of(&[("large", &distinct(5_000_000)), ("small", b"abc"), ("empty", b"")]);
    let done = AtomicU64::new(0);
    let progress = |bytes| {
        done.fetch_add(bytes, Relaxed);
    };
    let options = ImportOptions { progress: &progress, ..ImportOptions::new(V2025) };
    let imported = tree.import(&options).unwrap();
    assert_eq!((imported.bytes, done.into_inner()), (5_000_003, 5_000_003));
}

/// Waits until files that are there now are old enough for the cache.
fn settle(tree: &Tree) {
    use std::os::unix::fs::MetadataExt;
    let started = std::time::Instant::now();
    let newest = || {
        let ctime = fs::metadata(tree.path().join("sub/b")).unwrap();
        std::time::UNIX_EPOCH + std::time::Duration::new(ctime.ctime() as u64, ctime.ctime_nsec() as u32)
    };
    while newest().elapsed().unwrap_or_default() < std::time::Duration::from_millis(200) {
        assert!(started.elapsed().as_secs() < 60, "time does not go on");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn the_cache_knows_what_did_not_change() {
    let tree = Tree::of(&[("a", b"first"), ("sub/b", b"second")]);
    settle(&tree);
    let options = &ImportOptions::new(V2025);
    let mut cache = StatCache::new(&V2025);
    let memory = &mut Memory::default();
    let first = import(tree.path(), options, Some(&mut cache), Some(memory)).unwrap();
    assert_eq!((first.files_cached, cache.len(), cache.is_changed()), (0, 2, true));
    let again = import(tree.path(), options, Some(&mut cache), Some(memory)).unwrap();
    assert_eq!((again.files_cached, memory.asked, cache.is_changed()), (2, 2, false));
    assert_eq!(Imported { files_cached: 0, ..again }, first);

    // What the sink does not have is read again, and the cache stays right.
    memory.denies = true;
    memory.blocks.clear();
    let unknown = import(tree.path(), options, Some(&mut cache), Some(memory)).unwrap();
    assert_eq!((unknown.files_cached, memory.asked, cache.is_changed()), (0, 4, false));
    assert_eq!(memory.blocks.len(), 4);

    // The cache of another profile is of no use.
    let other = import(tree.path(), &ImportOptions::new(V2015), Some(&mut cache), None).unwrap();
    assert_eq!((other.files_cached, cache.len(), cache.is_changed()), (0, 2, true));
}

/// Cases F1 and F3: the same size and time, other content; files that come and go.
#[test]
fn the_cache_is_not_deceived() {
    let tree = Tree::of(&[("a", b"first"), ("sub/b", b"second")]);
    settle(&tree);
    let options = &ImportOptions::new(V2025);
    let mut cache = StatCache::new(&V2025);
    import(tree.path(), options, Some(&mut cache), None).unwrap();
    let modified = fs::metadata(tree.path().join("a")).unwrap().modified().unwrap();
    tree.write("a", b"FIRST");
    fs::File::options().write(true).open(tree.path().join("a")).unwrap().set_modified(modified).unwrap();
    let changed = import(tree.path(), options, Some(&mut cache), None).unwrap();
    assert_eq!(changed.files_cached, 1);
    assert_eq!(changed.subtree, tree.import(options).unwrap().subtree);
    // The new `a` is too young to be recognized, so it is read as often as it is looked at.
    assert_eq!(cache.len(), 1);

    fs::remove_file(tree.path().join("sub/b")).unwrap();
    tree.write("sub/c", b"second");
    let changed = import(tree.path(), options, Some(&mut cache), None).unwrap();
    assert_eq!((changed.files_cached, cache.len()), (0, 0));
    assert_eq!(changed.subtree, tree.import(options).unwrap().subtree);
}

/// A cache that says nonsense about a file whose stamp fits shows that it is believed, and so what it must not be.
#[test]
fn the_cache_survives_a_failed_import() {
    let tree = Tree::of(&[("a", b"first"), ("sub/b", b"second")]);
    settle(&tree);
    let options = ImportOptions::new(V2025);
    let mut cache = StatCache::new(&V2025);
    import(tree.path(), &options, Some(&mut cache), None).unwrap();
    let before = cache.clone();
    tree.write(OsStr::from_bytes(b"\xff"), b"");
    import(tree.path(), &options, Some(&mut cache), None).unwrap_err();
    assert_eq!(cache, before);
}

#[test]
fn a_file_as_root_is_cached() {
    let tree = Tree::of(&[("sub/b", b"second")]);
    settle(&tree);
    let options = &ImportOptions::new(V2025);
    let mut cache = StatCache::new(&V2025);
    let path = tree.path().join("sub/b");
    let first = import(&path, options, Some(&mut cache), None).unwrap();
    let mut cache = StatCache::decode(&V2025, &cache.encode().into());
    let again = import(&path, options, Some(&mut cache), None).unwrap();
    assert_eq!((first.files_cached, again.files_cached, first.subtree), (0, 1, again.subtree));
}

/// Names a tree step by step, as the import does not.
fn simple(path: &Path, profile: &Profile) -> Subtree {
    let sink = &mut |_| Ok::<_, BuildError>(());
    if path.is_dir() {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            let name = unixfs::EntryName::new(entry.file_name().into_string().unwrap()).unwrap();
            unixfs::Entry { name, target: simple(&entry.path(), profile) }
        };
        let entries = fs::read_dir(path).unwrap().map(entry).collect();
        return unixfs::directory(profile, entries, sink).unwrap();
    }
    let mut file = unixfs::FileBuilder::new(*profile);
    for chunk in fs::read(path).unwrap().chunks(profile.chunk_bytes) {
        file.push(bytes::Bytes::copy_from_slice(chunk), sink).unwrap();
    }
    file.finish(sink).unwrap().subtree()
}

/// Small and large files in folders with few and many of them, again and again, so that threads meet in every way.
#[test]
fn threads_do_not_disturb_each_other() {
    let tree = Tree::new();
    for folder in 0..30 {
        for file in 0..folder % 7 {
            tree.write(format!("{}/{folder}/{file}", folder % 3), &distinct(folder * 40 * file));
        }
        fs::create_dir_all(tree.path().join(format!("empty/{folder}"))).unwrap();
    }
    let profile = Profile { chunk_bytes: 1000, file_links_max: 3, ..V2025 };
    let expected = simple(tree.path(), &profile);
    for round in 0..200 {
        let threads = NonZeroUsize::new(1 + round % 8).unwrap();
        let options = ImportOptions { threads, ..ImportOptions::new(profile) };
        let memory = &mut Memory::default();
        let imported = import(tree.path(), &options, None, Some(memory)).unwrap();
        assert_eq!((imported.subtree, imported.files, imported.folders), (expected, 85, 60));
    }
}

#[test]
#[should_panic(expected = "a sink that panics")]
fn panics_are_seen() {
    struct Panics;
    impl BlockSink for Panics {
        fn put(&mut self, _: &Block) -> Result<(), BoxError> {
            panic!("a sink that panics");
        }
        fn has(&mut self, _: &Cid) -> Result<bool, BoxError> {
            Ok(false)
        }
    }
    let tree = Tree::of(&[("a", b"x"), ("b", b"y"), ("c/d", b"z")]);
    let _ = import(
        tree.path(),
        &ImportOptions { threads: NonZeroUsize::MIN, ..ImportOptions::new(V2025) },
        None,
        Some(&mut Panics),
    );
}

/// Case F2: a file that is written to while it is read.
#[test]
fn files_that_change_are_refused() {
    struct Writes<'a>(&'a Path, u64);
    impl BlockSink for Writes<'_> {
        fn put(&mut self, _: &Block) -> Result<(), BoxError> {
            fs::File::options().write(true).open(self.0)?.set_len(self.1)?;
            Ok(())
        }
        fn has(&mut self, _: &Cid) -> Result<bool, BoxError> {
            Ok(false)
        }
    }
    for new_len in [0, 2_999_999, 3_000_001] {
        let tree = Tree::of(&[("file", &distinct(3_000_000))]);
        let path = tree.path().join("file");
        let error =
            import(tree.path(), &ImportOptions::new(V2025), None, Some(&mut Writes(&path, new_len))).unwrap_err();
        assert_eq!(error.to_string(), format!("{} changed while it was read", path.display()));
    }
}

/// The kernel makes them up when they are read, and says that they are empty.
#[test]
#[cfg(target_os = "linux")]
fn files_that_say_that_they_are_empty_are_not_taken_for_empty() {
    let error = import(Path::new("/proc/version"), &ImportOptions::new(V2025), None, None).unwrap_err();
    assert!(matches!(error, ImportError::Changed { .. }), "{error}");
}
