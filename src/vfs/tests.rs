//! What all trees have in common, on each kind of them; and what only some can.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use super::memory::{MemoryTree, Room};
use super::*;
use crate::dag::unixfs::Profile;
use crate::dag::{Block, Cid};
use crate::tree::{BlockSink, ImportOptions, import};

/// How many entries the large directory has: enough for a HAMT under the default profile.
const MANY: usize = 6_000;

/// The length of the large file: several leaves under the default profile.
const LARGE: usize = 3 * 1024 * 1024 + 17;

fn large_byte(place: usize) -> u8 {
    (place % 251) as u8
}

/// So much room, and no more.
struct Bounded {
    bytes_max: u64,
    used_bytes: AtomicU64,
}

impl Room for Bounded {
    fn take(&self, bytes: u64) -> bool {
        let after = |used: u64| used.checked_add(bytes).filter(|after| *after <= self.bytes_max);
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).is_ok()
    }

    fn give(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl MemoryTree {
    /// An empty tree that takes at most this many bytes, all told.
    fn new(bytes_max: u64) -> Self {
        Self::within(Arc::new(Bounded { bytes_max, used_bytes: AtomicU64::new(0) }))
    }
}

/// Blocks in memory, which notes what it is asked for.
#[derive(Default)]
struct Recorded {
    blocks: HashMap<Cid, Block>,
    asked: Mutex<Vec<Cid>>,
    /// Those that were beside others that were asked for.
    beside: Mutex<Vec<Cid>>,
    /// Whether each of them is then had at once.
    gives_at_once: bool,
    expected: Mutex<Vec<Cid>>,
    /// Whether there is no room for listings, and what was asked for.
    is_full: bool,
    room_bytes: AtomicU64,
}

impl BlockSink for Recorded {
    fn put(&mut self, block: &Block) -> Result<(), crate::tree::BoxError> {
        self.blocks.insert(*block.cid(), block.clone());
        Ok(())
    }

    fn has(&mut self, _: &Cid) -> Result<bool, crate::tree::BoxError> {
        Ok(false)
    }
}

impl content::Blocks for Recorded {
    fn block(&self, cid: Cid, beside: Vec<Cid>) -> Answer<'static, Block> {
        self.asked.lock().unwrap().push(cid);
        self.beside.lock().unwrap().extend(beside);
        let missing = std::io::Error::new(std::io::ErrorKind::NotFound, format!("no block {cid}"));
        let block = self.blocks.get(&cid).cloned().ok_or_else(|| VfsError::failed(missing));
        futures::future::ready(block).boxed()
    }

    fn block_at_once(&self, cid: &Cid) -> Option<Block> {
        let is_located = self.gives_at_once && self.beside.lock().unwrap().contains(cid);
        is_located.then(|| self.blocks.get(cid).cloned())?
    }

    fn block_if_here(&self, cid: Cid) -> BoxFuture<'static, Option<Block>> {
        futures::future::ready(self.blocks.get(&cid).cloned()).boxed()
    }

    fn expect(&self, cids: Vec<Cid>) {
        self.expected.lock().unwrap().extend(cids);
    }

    fn room(&self, bytes: u64) -> Option<Box<dyn Any + Send>> {
        self.room_bytes.fetch_add(bytes, Ordering::Relaxed);
        (!self.is_full).then(|| Box::new(()) as Box<dyn Any + Send>)
    }
}

/// Writes the files that every tree of this suite has.
fn write_fixture(dir: &Path) {
    for folder in ["bin", "etc", "usr/lib", "many", "b", "empty"] {
        fs::create_dir_all(dir.join(folder)).unwrap();
    }
    fs::write(dir.join("bin/main.wasm"), b"\0asm").unwrap();
    fs::write(dir.join("etc/x"), "x of etc").unwrap();
    fs::write(dir.join("etc/nothing"), "").unwrap();
    fs::write(dir.join("target"), "the target").unwrap();
    fs::write(dir.join("large"), (0..LARGE).map(large_byte).collect::<Vec<_>>()).unwrap();
    for number in 0..MANY {
        fs::write(dir.join(format!("many/{number:05}")), number.to_string()).unwrap();
    }
    for (link, target) in [
        ("b/up", ".."),
        ("usr/l", "/etc/x"),
        ("esc", "../../../../etc/passwd"),
        ("loop", "loop"),
        ("one", "two"),
        ("two", "one"),
        ("dangling", "nowhere"),
        ("to-etc", "etc"),
        ("to-file-as-directory", "etc/x/"),
    ] {
        symlink(target, dir.join(link)).unwrap();
    }
}

/// A tree of each kind with the same files; what they live in is kept beside them.
async fn trees() -> Vec<(&'static str, Arc<dyn Directory>, Option<TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    write_fixture(dir.path());
    let mut blocks = Recorded::default();
    let options = ImportOptions::new(Profile::UNIXFS_V1_2025);
    let root = import(dir.path(), &options, None, Some(&mut blocks)).unwrap().subtree.cid;
    let memory = MemoryTree::new(64 * 1024 * 1024).root();
    let folder = folder::open_image(dir.path()).unwrap();
    copy(&folder, &memory).await;
    vec![
        ("content", content::open(Arc::new(blocks), root).await.unwrap(), None),
        ("memory", memory, None),
        ("mount", folder::open_mount(dir.path(), false).unwrap(), None),
        ("folder", folder, Some(dir)),
    ]
}

async fn copy(from: &Arc<dyn Directory>, to: &Arc<dyn Directory>) {
    for entry in from.entries().await.unwrap() {
        let name = Name::new(&entry.name).unwrap();
        match from.lookup(name).await.unwrap() {
            Node::Directory(directory) => {
                to.create_directory(name).await.unwrap();
                let Ok(Node::Directory(made)) = to.lookup(name).await else { panic!("it was made") };
                Box::pin(copy(&directory, &made)).await;
            }
            Node::File(file) => {
                let (reading, made) = (file.open(Access::Read).await.unwrap(), to.create_file(name).await.unwrap());
                let writing = made.open(Access::Write).await.unwrap();
                writing.append(read_all(&reading).await.into()).await.unwrap();
            }
            Node::Symlink(link) => to.create_symlink(name, &link.target).await.unwrap(),
            Node::Other(..) => unreachable!("the fixture has none"),
        }
    }
}

async fn read_all(file: &Arc<dyn OpenFile>) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let piece = file.clone().read_at(bytes.len() as u64, 64 * 1024).await.unwrap();
        if piece.is_empty() {
            return bytes;
        }
        assert!(piece.len() <= 64 * 1024);
        bytes.extend_from_slice(&piece);
    }
}

fn place(root: &Arc<dyn Directory>) -> Place {
    Namespace::new(root.clone(), &[]).unwrap().root().clone()
}

/// What is read at a path; the error's text if nothing is.
async fn cat(place: &Place, path: &str) -> String {
    match open(place, path).await {
        Ok(file) => String::from_utf8(read_all(&file).await).unwrap(),
        Err(error) => format!("error: {error}"),
    }
}

async fn open(place: &Place, path: &str) -> Result<Arc<dyn OpenFile>, VfsError> {
    match place.walk(path, Follow::Last).await?.existing()? {
        Node::File(file) => file.open(Access::Read).await,
        Node::Directory(_) => Err(VfsError::IsDirectory),
        _ => Err(VfsError::Invalid),
    }
}

#[tokio::test]
async fn files_are_found_and_read() {
    for (kind, root, _dir) in trees().await {
        let place = place(&root);
        let table = [
            ("etc/x", "x of etc"),
            ("./etc/./x", "x of etc"),
            ("etc//x", "x of etc"),
            ("etc/../etc/x", "x of etc"),
            ("to-etc/x", "x of etc"),
            ("to-etc/../target", "the target"),
            ("b/up/target", "the target"),
            ("etc/nothing", ""),
            ("many/05999", "5999"),
            ("etc", "error: is a directory"),
            ("b/up", "error: is a directory"),
            ("etc/x/", "error: not a directory"),
            ("etc/x/y", "error: not a directory"),
            ("etc/x/.", "error: not a directory"),
            ("etc/x/..", "error: not a directory"),
            ("etc/y", "error: no such file or directory"),
            ("many/06000", "error: no such file or directory"),
            ("gone/x", "error: no such file or directory"),
            ("gone/..", "error: no such file or directory"),
            ("dangling", "error: no such file or directory"),
            ("", "error: no such file or directory"),
            ("loop", "error: too many levels of symbolic links"),
            ("one", "error: too many levels of symbolic links"),
            ("to-file-as-directory", "error: not a directory"),
            ("..", "error: not permitted"),
            ("../etc/x", "error: not permitted"),
            ("etc/../../etc/x", "error: not permitted"),
            ("/etc/x", "error: not permitted"),
            ("etc/\0", "error: illegal byte sequence"),
        ];
        for (path, expected) in table {
            assert_eq!(cat(&place, path).await, expected, "{path:?} in {kind}");
        }
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert_eq!(cat(&place, &long).await, "error: name too long", "{kind}");
        assert_eq!(cat(&place, &"./".repeat(PATH_BYTES_MAX)).await, "error: name too long", "{kind}");
    }
}

/// What an absolute link means is the namespace's; where the tree is a mount of the user's, links stay in it.
#[tokio::test]
async fn links_stay_inside() {
    for (kind, root, _dir) in trees().await {
        let namespace = place(&root);
        assert_eq!(cat(&namespace, "usr/l").await, "x of etc", "{kind}");
        assert_eq!(cat(&namespace, "esc").await, "error: no such file or directory", "{kind}");

        let mounted = |links_may_leave| {
            let mount = Mount { path: "/in/here".into(), directory: root.clone(), links_may_leave };
            Namespace::new(MemoryTree::new(0).root(), &[mount]).unwrap()
        };
        let confined = mounted(false);
        for (path, expected) in [
            ("in/here/etc/x", "x of etc"),
            ("in/here/b/up/target", "the target"),
            ("in/here/../here/target", "the target"),
            ("in/here/usr/l", "error: not permitted"),
            ("in/here/esc", "error: not permitted"),
        ] {
            assert_eq!(cat(confined.root(), path).await, expected, "{path} in {kind}");
        }
        let free = mounted(true);
        assert_eq!(cat(free.root(), "in/here/usr/l").await, "error: no such file or directory", "{kind}");
    }
}

#[tokio::test]
async fn large_files_are_read_in_any_piece() {
    for (kind, root, _dir) in trees().await {
        let file = open(&place(&root), "large").await.unwrap();
        assert_eq!(file.metadata().await.unwrap().size_bytes, LARGE as u64, "{kind}");
        let whole = read_all(&file).await;
        assert!(whole.iter().enumerate().all(|(place, byte)| *byte == large_byte(place)), "{kind}");
        assert_eq!(whole.len(), LARGE, "{kind}");
        for offset in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (2 << 20) + 7, LARGE - 1] {
            let piece = file.clone().read_at(offset as u64, 3).await.unwrap();
            assert!(!piece.is_empty() && piece.len() <= 3, "{kind}");
            assert_eq!(piece, &whole[offset..offset + piece.len()], "{kind} at {offset}");
        }
        for beyond in [LARGE as u64, LARGE as u64 + 1, i64::MAX as u64, u64::MAX] {
            assert!(file.clone().read_at(beyond, 3).await.unwrap().is_empty(), "{kind} at {beyond}");
        }
        assert!(file.clone().read_at(0, 0).await.unwrap().is_empty(), "{kind}");
        assert!(file.clone().read_at(0, usize::MAX).await.unwrap().len() <= READ_BYTES_MAX.max(1 << 20), "{kind}");
    }
}

#[tokio::test]
async fn directories_are_listed_in_order() {
    for (kind, root, _dir) in trees().await {
        let names: Vec<_> = root.entries().await.unwrap().into_iter().map(|entry| (entry.name, entry.kind)).collect();
        let expected = [
            ("b", Kind::Directory),
            ("bin", Kind::Directory),
            ("dangling", Kind::Symlink),
            ("empty", Kind::Directory),
            ("esc", Kind::Symlink),
            ("etc", Kind::Directory),
            ("large", Kind::File),
            ("loop", Kind::Symlink),
            ("many", Kind::Directory),
            ("one", Kind::Symlink),
            ("target", Kind::File),
            ("to-etc", Kind::Symlink),
            ("to-file-as-directory", Kind::Symlink),
            ("two", Kind::Symlink),
            ("usr", Kind::Directory),
        ];
        assert_eq!(names, expected.map(|(name, kind)| (name.to_owned(), kind)), "{kind}");
        let Ok(Node::Directory(many)) = root.lookup(Name::new("many").unwrap()).await else { panic!("{kind}") };
        let many = many.entries().await.unwrap();
        assert_eq!(many.len(), MANY, "{kind}");
        assert!(many.is_sorted_by(|first, second| first.name < second.name), "{kind}");
    }
}

#[tokio::test]
async fn a_name_is_the_link_itself_also_before_a_slash() {
    for (kind, root, _dir) in trees().await {
        let place = place(&root);
        let named = place.walk("to-etc/", Follow::Name).await.unwrap();
        assert!(matches!(named.node, Some(Node::Symlink(_))), "{kind}");
        assert!(matches!(named.existing(), Err(VfsError::NotDirectory)), "{kind}");
        assert_eq!(named.name.as_deref(), Some("to-etc"), "{kind}");
        let followed = place.walk("to-etc/", Follow::NotLast).await.unwrap();
        assert!(matches!(followed.node, Some(Node::Directory(_))), "{kind}");
    }
}

#[tokio::test]
async fn objects_are_told_apart() {
    for (kind, root, _dir) in trees().await {
        let place = place(&root);
        let identity = async |path: &str, follow| {
            let target = place.walk(path, follow).await.unwrap();
            target.existing().unwrap().identity()
        };
        assert_eq!(identity("etc/x", Follow::Last).await, identity("to-etc/x", Follow::Last).await, "{kind}");
        assert_ne!(identity("etc/x", Follow::Last).await, identity("etc/nothing", Follow::Last).await, "{kind}");
        assert_ne!(identity("dangling", Follow::NotLast).await, identity("loop", Follow::NotLast).await, "{kind}");
        assert_ne!(identity("one", Follow::NotLast).await, identity("two", Follow::NotLast).await, "{kind}");
        assert_eq!(identity("b/up", Follow::Last).await, identity(".", Follow::Last).await, "{kind}");
    }
}

/// A guest cannot tell where its image came from.
#[tokio::test]
async fn a_folder_and_its_content_look_the_same() {
    let trees = trees().await;
    let of = |wanted| &trees.iter().find(|(kind, ..)| *kind == wanted).unwrap().1;
    let (folder, content) = (place(of("folder")), place(of("content")));
    for path in [".", "etc", "etc/x", "large", "usr/l", "many/00007", "empty"] {
        let (one, two) =
            (folder.walk(path, Follow::NotLast).await.unwrap(), content.walk(path, Follow::NotLast).await.unwrap());
        let (one, two) = (one.existing().unwrap(), two.existing().unwrap());
        assert_eq!(one.identity(), two.identity(), "{path}");
        assert_eq!(one.metadata().await.unwrap(), two.metadata().await.unwrap(), "{path}");
    }
    assert_eq!(folder.entries().await.unwrap(), content.entries().await.unwrap());
}

/// More directories than stay open, each of whose names is there in two places, looked up again and again.
#[tokio::test]
async fn many_directories_of_an_image_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..200).map(|number| format!("{}/{}", number % 2, number / 2)).collect();
    for path in &paths {
        fs::create_dir_all(dir.path().join(path)).unwrap();
        fs::write(dir.path().join(path).join("file"), path).unwrap();
    }
    let place = place(&folder::open_image(dir.path()).unwrap());
    for path in paths.iter().chain(paths.iter().rev()).chain(&paths) {
        assert_eq!(cat(&place, &format!("{path}/file")).await, *path);
        assert_eq!(cat(&place, &format!("{path}/../../{path}/file")).await, *path);
    }
}

#[tokio::test]
async fn images_cannot_be_changed() {
    for (kind, root, _dir) in trees().await {
        if kind == "memory" {
            continue;
        }
        let (new, old) = (Name::new("new").unwrap(), Name::new("target").unwrap());
        let is_refused = |result: Result<(), VfsError>| assert!(matches!(result, Err(VfsError::ReadOnly)), "{kind}");
        is_refused(root.create_file(new).await.map(drop));
        is_refused(root.create_directory(new).await);
        is_refused(root.create_symlink(new, "x").await);
        is_refused(root.link(old, &root, new).await);
        is_refused(root.rename(old, &root, new).await);
        is_refused(root.remove_file(old).await);
        is_refused(root.remove_directory(Name::new("empty").unwrap()).await);
        is_refused(root.set_times(Some(old), NewTimes { accessed: NewTime::Now, modified: NewTime::Now }).await);
        let Ok(Node::File(file)) = root.lookup(old).await else { panic!("{kind}") };
        is_refused(file.open(Access::ReadWrite).await.map(drop));
        is_refused(file.open(Access::Write).await.map(drop));
        assert_eq!(cat(&place(&root), "target").await, "the target", "{kind}");
    }
}

#[tokio::test]
async fn only_what_is_opened_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    write_fixture(dir.path());
    let mut blocks = Recorded::default();
    let options = ImportOptions::new(Profile::UNIXFS_V1_2025);
    let root = import(dir.path(), &options, None, Some(&mut blocks)).unwrap().subtree.cid;
    let blocks = Arc::new(blocks);
    let content = place(&content::open(blocks.clone(), root).await.unwrap());
    assert_eq!(blocks.asked.lock().unwrap().len(), 1, "the root");
    assert_eq!(cat(&content, "etc/x").await, "x of etc");
    assert_eq!(blocks.asked.lock().unwrap().len(), 3, "the root, etc, and x");
    assert_eq!(cat(&content, "etc/x").await, "x of etc");
    assert_eq!(blocks.asked.lock().unwrap().len(), 3, "nothing again");
    let file = open(&content, "large").await.unwrap();
    file.read_at(2 << 20, 10).await.unwrap();
    assert_eq!(blocks.asked.lock().unwrap().len(), 5, "the file's root and the piece");
    // A listing, and what programs ask of each entry.
    let Ok(Node::Directory(bin)) = content.walk("bin", Follow::Last).await.unwrap().existing().cloned() else {
        panic!()
    };
    assert_eq!(bin.entries().await.unwrap().len(), 1);
    let identity = place(&bin).identity("main.wasm", Follow::NotLast).await.unwrap();
    assert!(matches!(place(&bin).identity("none", Follow::NotLast).await, Err(VfsError::NoEntry)));
    assert_eq!(blocks.asked.lock().unwrap().len(), 6, "the directory");
    assert_eq!(place(&bin).identity("main.wasm", Follow::Last).await.unwrap(), identity);
}

/// Entries of a directory are looked for together, the more of them the more were wanted.
#[tokio::test]
async fn entries_are_looked_for_together() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..400 {
        fs::write(dir.path().join(format!("{number:03}")), number.to_string()).unwrap();
    }
    let mut blocks = Recorded { gives_at_once: true, ..Recorded::default() };
    let options = ImportOptions::new(Profile::UNIXFS_V1_2025);
    let root = import(dir.path(), &options, None, Some(&mut blocks)).unwrap().subtree.cid;
    let blocks = Arc::new(blocks);
    let content = place(&content::open(blocks.clone(), root).await.unwrap());
    blocks.asked.lock().unwrap().clear();
    let mut beside = Vec::new();
    for number in 0..400 {
        assert_eq!(cat(&content, &format!("{number:03}")).await, number.to_string());
        beside.push(blocks.beside.lock().unwrap().len());
    }
    // One with 16 others, one with 64, one with 256, one with all that are left.
    assert_eq!([0, 16, 17, 82, 339, 399].map(|place| beside[place]), [16, 16, 80, 336, 396, 396]);
    assert_eq!(blocks.asked.lock().unwrap().len(), 4);
}

/// A block that is where it is said to be and cannot be had at once is looked for alone: nothing is to be found out again.
#[tokio::test]
async fn entries_are_not_looked_for_together_again() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..10 {
        fs::write(dir.path().join(number.to_string()), number.to_string()).unwrap();
    }
    let mut blocks = Recorded::default();
    let options = ImportOptions::new(Profile::UNIXFS_V1_2025);
    let root = import(dir.path(), &options, None, Some(&mut blocks)).unwrap().subtree.cid;
    let blocks = Arc::new(blocks);
    let content = place(&content::open(blocks.clone(), root).await.unwrap());
    let mut beside = Vec::new();
    for number in 0..10 {
        assert_eq!(cat(&content, &number.to_string()).await, number.to_string());
        beside.push(std::mem::take(&mut *blocks.beside.lock().unwrap()).len());
    }
    assert_eq!(beside, [9, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(blocks.asked.lock().unwrap().len(), 11, "the root and each file");
}

/// Who reads one file here and one there has fewer and fewer others looked for.
#[tokio::test]
async fn entries_that_nobody_reads_are_not_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    for folder in 0..4 {
        fs::create_dir(dir.path().join(folder.to_string())).unwrap();
        for number in 0..100 {
            fs::write(dir.path().join(format!("{folder}/{number:03}")), format!("{folder} {number}")).unwrap();
        }
    }
    let mut blocks = Recorded::default();
    let options = ImportOptions::new(Profile::UNIXFS_V1_2025);
    let root = import(dir.path(), &options, None, Some(&mut blocks)).unwrap().subtree.cid;
    let blocks = Arc::new(blocks);
    let content = place(&content::open(blocks.clone(), root).await.unwrap());
    let mut beside = Vec::new();
    for folder in 0..4 {
        assert_eq!(cat(&content, &format!("{folder}/050")).await, format!("{folder} 50"));
        beside.push(std::mem::take(&mut *blocks.beside.lock().unwrap()).len());
    }
    // The three other folders are looked for once.
    assert_eq!(beside, [3 + 4, 1, 1, 1]);
}

/// However much is had at once, others on the thread have their turn.
#[tokio::test]
async fn what_is_had_at_once_leaves_the_thread_to_others() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..600 {
        fs::write(dir.path().join(format!("{number:03}")), number.to_string()).unwrap();
    }
    let mut blocks = Recorded { gives_at_once: true, ..Recorded::default() };
    let options = ImportOptions::new(Profile::UNIXFS_V1_2025);
    let root = import(dir.path(), &options, None, Some(&mut blocks)).unwrap().subtree.cid;
    let all: Vec<_> = blocks.blocks.keys().copied().collect();
    blocks.beside.lock().unwrap().extend(all);
    let content = place(&content::open(Arc::new(blocks), root).await.unwrap());
    let turns = AtomicU64::new(0);
    let reading = async {
        for number in 0..600 {
            assert_eq!(cat(&content, &format!("{number:03}")).await, number.to_string());
        }
    };
    tokio::select! {
        biased;
        () = reading => {}
        () = take_turns(&turns) => {}
    }
    // 256 KiB are a turn, and each file counts as somewhat more than 2 KiB.
    assert!((4..=6).contains(&turns.load(Ordering::Relaxed)), "{turns:?}");
}

/// Has a turn whenever the thread is free, and counts them.
async fn take_turns(turns: &AtomicU64) {
    loop {
        turns.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

/// However long a path is, others on the thread have their turn; also where all that it leads through is in memory.
#[tokio::test]
async fn a_long_path_leaves_the_thread_to_others() {
    for (kind, root, _dir) in trees().await {
        let path = "many/../".repeat(PATH_BYTES_MAX / 8 - 2) + "many/00017";
        let root = place(&root);
        assert_eq!(cat(&root, "many/00017").await, "17", "{kind}");
        let turns = AtomicU64::new(0);
        tokio::select! {
            biased;
            text = cat(&root, &path) => assert_eq!(text, "17", "{kind}"),
            () = take_turns(&turns) => {}
        }
        // Each name and each way back is one.
        assert!(turns.load(Ordering::Relaxed) >= 7, "{kind}: {turns:?}");
    }
}

/// There is room for a listing before it is there.
#[tokio::test]
async fn a_listing_has_room_before_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..3000 {
        fs::write(dir.path().join(format!("{number:0200}")), "x").unwrap();
    }
    let options = ImportOptions::new(Profile::UNIXFS_V1_2025);
    for is_full in [false, true] {
        let mut blocks = Recorded { is_full, ..Recorded::default() };
        let root = import(dir.path(), &options, None, Some(&mut blocks)).unwrap().subtree.cid;
        let blocks = Arc::new(blocks);
        let entries = content::open(blocks.clone(), root).await.unwrap().entries().await;
        let room_bytes = blocks.room_bytes.load(Ordering::Relaxed);
        match is_full {
            true => assert!(matches!(entries, Err(VfsError::NoMemory))),
            false => assert!(entries.unwrap().len() == 3000 && room_bytes > 3000 * 200, "{room_bytes}"),
        }
    }
}

/// What is in the cache is listed in turns as well.
#[tokio::test]
async fn a_long_listing_leaves_the_thread_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut blocks = Recorded::default();
    fs::create_dir(dir.path().join("many")).unwrap();
    for number in 0..MANY {
        fs::create_dir(dir.path().join(format!("many/{number:05}"))).unwrap();
    }
    let options = ImportOptions::new(Profile::UNIXFS_V1_2025);
    let root = import(dir.path(), &options, None, Some(&mut blocks)).unwrap().subtree.cid;
    let content = place(&content::open(Arc::new(blocks), root).await.unwrap());
    // All of them are one block, which is known from then on.
    content.walk("many/00000", Follow::Last).await.unwrap();
    let Ok(Node::Directory(many)) = content.walk("many", Follow::Last).await.unwrap().existing().cloned() else {
        panic!()
    };
    let turns = AtomicU64::new(0);
    tokio::select! {
        biased;
        entries = many.entries() => {
            let entries = entries.unwrap();
            assert!(entries.len() == MANY && entries.iter().all(|entry| entry.kind == Kind::Directory));
        }
        () = take_turns(&turns) => {}
    }
    assert!(turns.load(Ordering::Relaxed) >= 2, "{turns:?}");
}

/// Who reads in order is read ahead for, and nobody else.
#[tokio::test]
async fn the_next_pieces_of_a_file_are_expected() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("large"), (0..20 << 20).map(|at| (at >> 20) as u8).collect::<Vec<_>>()).unwrap();
    let mut blocks = Recorded::default();
    let options = ImportOptions::new(Profile::UNIXFS_V1_2025);
    let root = import(dir.path(), &options, None, Some(&mut blocks)).unwrap().subtree.cid;
    let blocks = Arc::new(blocks);
    let opened = async || place(&content::open(blocks.clone(), root).await.unwrap());
    let expected = || std::mem::take(&mut *blocks.expected.lock().unwrap()).len();
    let file = open(&opened().await, "large").await.unwrap();
    for offset in [0, 5 << 20, 1 << 20, 0] {
        file.clone().read_at(offset, 10).await.unwrap();
    }
    assert_eq!(expected(), 0, "somebody who looks here and there");
    let file = open(&opened().await, "large").await.unwrap();
    let (mut offset, mut ahead) = (0, Vec::new());
    while offset < 20 << 20 {
        let read = file.clone().read_at(offset, READ_BYTES_MAX).await.unwrap();
        offset += read.len() as u64;
        ahead.push(expected());
    }
    assert_eq!(ahead[..4], [0, 1, 0, 0], "once for each piece");
    // What was told before is told again until it is read: who hears it knows. So it is a window that grows to 8 MiB.
    assert_eq!(ahead.iter().max(), Some(&8));
    assert_eq!(ahead[ahead.len() - 4..], [0, 0, 0, 0], "there is nothing beyond the end");
}

/// What one has read, the others find, whoever they ask.
#[tokio::test]
async fn a_cache_may_be_shared() {
    let dir = tempfile::tempdir().unwrap();
    write_fixture(dir.path());
    let mut blocks = Recorded::default();
    let options = ImportOptions::new(Profile::UNIXFS_V1_2025);
    let root = import(dir.path(), &options, None, Some(&mut blocks)).unwrap().subtree.cid;
    let cache = content::BlockCache::default();
    let first = content::Content::new(root, &cache).open(Arc::new(blocks)).await.unwrap();
    assert_eq!(cat(&place(&first), "etc/x").await, "x of etc");
    let nobody = Arc::new(Recorded::default());
    let second = content::Content::new(root, &cache).open(nobody.clone()).await.unwrap();
    assert_eq!(cat(&place(&second), "etc/x").await, "x of etc");
    assert!(nobody.asked.lock().unwrap().is_empty());
    assert_eq!(cat(&place(&second), "target").await, "error: input or output failed");
    assert_eq!(nobody.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn missing_and_malformed_blocks_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "content").unwrap();
    let mut blocks = Recorded::default();
    let options = ImportOptions::new(Profile::UNIXFS_V1_2025);
    let root = import(dir.path(), &options, None, Some(&mut blocks)).unwrap().subtree.cid;
    blocks.blocks.retain(|cid, _| *cid == root);
    let malformed = Block::seal(crate::dag::Version::V1, 0x70, Bytes::from_static(b"\xff")).unwrap();
    let not_a_directory = Block::seal(crate::dag::Version::V1, 0x55, Bytes::from_static(b"raw")).unwrap();
    for block in [&malformed, &not_a_directory] {
        blocks.blocks.insert(*block.cid(), block.clone());
    }
    let blocks = Arc::new(blocks);
    let content = place(&content::open(blocks.clone(), root).await.unwrap());
    assert_eq!(cat(&content, "file").await, "error: input or output failed");
    let error = async |cid: &Cid| content::open(blocks.clone(), *cid).await.err().unwrap();
    assert!(matches!(error(malformed.cid()).await, VfsError::Io(_)));
    assert!(matches!(error(not_a_directory.cid()).await, VfsError::NotDirectory));
}

/// Who is told that something is in another tree copies it, which may be allowed; so that is said before anything else.
#[tokio::test]
async fn what_is_in_another_tree_is_to_be_copied() {
    let is = |result: Result<(), VfsError>, kind: &str| {
        assert!(matches!(result, Err(VfsError::CrossDevice)), "{kind}: {result:?}");
    };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("target"), "x").unwrap();
    let mut all = trees().await;
    all.extend(writable().map(|(kind, root, dir)| (kind, root, dir)));
    all.push(("read-only mount", folder::open_mount(dir.path(), false).unwrap(), None));
    all.push(("the same folder again", folder::open_mount(dir.path(), true).unwrap(), None));
    for (kind, root, _) in &all {
        if matches!(*kind, "memory" | "mount") && root.lookup(name("target")).await.is_err() {
            write(root, "target", "x").await;
        }
        for (other_kind, other, _) in &all {
            // Images have one identity, wherever they are: no cell has two.
            let are_images = root.identity().tree == 0 && other.identity().tree == 0;
            if Arc::ptr_eq(root, other) || are_images {
                continue;
            }
            let pair = format!("{kind} to {other_kind}");
            is(root.rename(name("target"), other, name("new")).await, &pair);
            is(root.link(name("target"), other, name("new")).await, &pair);
        }
    }
}

/// A path that ends in a dot means a directory, and not its name.
#[tokio::test]
async fn a_dot_is_no_name() {
    for (kind, root, _dir) in writable() {
        root.create_directory(name("d")).await.unwrap();
        let root = place(&root);
        for (path, expected) in [("d/.", "invalid argument"), ("d/./", "invalid argument"), ("new/.", "no such file")] {
            let target = root.walk(path, Follow::Name).await.unwrap();
            let error = target.changeable_name().map(|_| ()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{kind} {path}: {error}");
        }
        for path in ["d", "d/", "./d", "d//"] {
            let target = root.walk(path, Follow::Name).await.unwrap();
            assert_eq!(target.changeable_name().unwrap().as_str(), "d", "{kind} {path}");
        }
    }
}

/// The trees that can be written, and what the second lives in.
fn writable() -> [(&'static str, Arc<dyn Directory>, Option<TempDir>); 2] {
    let dir = tempfile::tempdir().unwrap();
    let mount = folder::open_mount(dir.path(), true).unwrap();
    [("memory", MemoryTree::new(1024 * 1024).root(), None), ("mount", mount, Some(dir))]
}

fn name(text: &str) -> Name<'_> {
    Name::new(text).unwrap()
}

async fn write(root: &Arc<dyn Directory>, file: &str, text: &str) {
    let made = root.create_file(name(file)).await.unwrap().open(Access::Write).await.unwrap();
    made.append(Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
}

async fn directory(root: &Arc<dyn Directory>, text: &str) -> Arc<dyn Directory> {
    match root.lookup(name(text)).await.unwrap() {
        Node::Directory(directory) => directory,
        _ => panic!("{text} is no directory"),
    }
}

#[tokio::test]
async fn files_are_written_in_any_piece() {
    for (kind, root, _dir) in writable() {
        let file = root.create_file(name("file")).await.unwrap();
        assert!(matches!(root.create_file(name("file")).await.err(), Some(VfsError::Exists)), "{kind}");
        let file = file.open(Access::ReadWrite).await.unwrap();
        file.clone().write_at(5, Bytes::from_static(b"five")).await.unwrap();
        assert_eq!(read_all(&file).await, b"\0\0\0\0\0five", "{kind}");
        file.clone().write_at(4094, Bytes::from_static(b"across")).await.unwrap();
        file.clone().append(Bytes::from_static(b"!")).await.unwrap();
        assert_eq!(file.clone().read_at(4092, 100).await.unwrap(), "\0\0across!", "{kind}");
        file.set_size(4096).await.unwrap();
        file.set_size(4100).await.unwrap();
        assert_eq!(file.clone().read_at(4092, 100).await.unwrap(), "\0\0ac\0\0\0\0", "{kind}");
        file.set_size(7).await.unwrap();
        assert_eq!(read_all(&file).await, b"\0\0\0\0\0fi", "{kind}");
        let far = file.clone().write_at(u64::MAX, Bytes::from_static(b"x")).await;
        assert!(matches!(far, Err(VfsError::FileTooLarge)), "{kind}");
        file.clone().write_at(100, Bytes::new()).await.unwrap();
        assert_eq!(file.metadata().await.unwrap().size_bytes, 7, "{kind}");
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        file.set_times(NewTimes { accessed: NewTime::Keep, modified: NewTime::At(at) }).await.unwrap();
        assert_eq!(file.metadata().await.unwrap().times.unwrap().modified, at, "{kind}");
        file.sync().await.unwrap();
        root.sync().await.unwrap();
    }
}

#[tokio::test]
async fn names_come_and_go() {
    for (kind, root, _dir) in writable() {
        let is = |result: Result<(), VfsError>, expected: &str| {
            assert_eq!(result.err().map(|error| error.to_string()).as_deref(), Some(expected), "{kind}");
        };
        root.create_directory(name("d")).await.unwrap();
        let inner = directory(&root, "d").await;
        write(&root, "file", "content").await;
        is(root.create_directory(name("d")).await, "it exists");
        is(root.create_symlink(name("file"), "x").await, "it exists");
        is(root.remove_file(name("gone")).await, "no such file or directory");
        is(root.remove_file(name("d")).await, "is a directory");
        is(root.remove_directory(name("file")).await, "not a directory");

        root.link(name("file"), &inner, name("same")).await.unwrap();
        let namespace = place(&root);
        assert_eq!(cat(&namespace, "d/same").await, "content", "{kind}");
        is(root.link(name("file"), &inner, name("same")).await, "it exists");
        assert!(root.link(name("d"), &inner, name("dir")).await.is_err(), "{kind}");
        is(root.remove_directory(name("d")).await, "directory not empty");

        root.rename(name("file"), &inner, name("moved")).await.unwrap();
        assert_eq!(cat(&namespace, "d/moved").await, "content", "{kind}");
        assert_eq!(cat(&namespace, "file").await, "error: no such file or directory", "{kind}");
        // Two names of one file.
        inner.rename(name("moved"), &inner, name("same")).await.unwrap();
        is(root.rename(name("d"), &inner, name("into-itself")).await, "invalid argument");
        root.create_directory(name("e")).await.unwrap();
        is(root.rename(name("e"), &root, name("d")).await, "directory not empty");
        write(&root, "f", "f").await;
        is(root.rename(name("e"), &root, name("f")).await, "not a directory");
        is(root.rename(name("f"), &root, name("e")).await, "is a directory");
        root.rename(name("d"), &root, name("e")).await.unwrap();
        assert_eq!(cat(&namespace, "e/same").await, "content", "{kind}");

        // An open file outlives its name.
        let open = open(&namespace, "f").await.unwrap();
        root.remove_file(name("f")).await.unwrap();
        assert_eq!(read_all(&open).await, b"f", "{kind}");
        drop(open);

        root.create_symlink(name("link"), "e/same").await.unwrap();
        assert_eq!(cat(&namespace, "link").await, "content", "{kind}");
        root.remove_file(name("link")).await.unwrap();
        let other = MemoryTree::new(1024 * 1024).root();
        is(root.rename(name("e"), &other, name("e")).await, "it is in another tree");
    }
}

#[tokio::test]
async fn a_mount_takes_no_links_that_lead_out() {
    let dir = tempfile::tempdir().unwrap();
    let mount = folder::open_mount(dir.path(), true).unwrap();
    let made = mount.create_symlink(name("passwd"), "/etc/passwd").await;
    assert!(matches!(made, Err(VfsError::NotPermitted)));
}

/// What the host's folder becomes meanwhile leads nowhere else.
#[tokio::test]
async fn swapped_directories_are_not_followed() {
    let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("x"), "outside").unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/x"), "inside").unwrap();
    let root = folder::open_mount(dir.path(), false).unwrap();
    let inner = directory(&root, "d").await;
    let Ok(Node::File(file)) = inner.lookup(name("x")).await else { panic!() };
    fs::rename(dir.path().join("d"), dir.path().join("e")).unwrap();
    symlink(outside.path(), dir.path().join("d")).unwrap();
    assert_eq!(read_all(&file.open(Access::Read).await.unwrap()).await, b"inside");
    assert!(matches!(root.lookup(name("d")).await, Ok(Node::Symlink(_))));
    // A file that became another between the look and the opening is not opened.
    fs::write(dir.path().join("e/y"), "another").unwrap();
    fs::remove_file(dir.path().join("e/x")).unwrap();
    symlink(outside.path().join("x"), dir.path().join("e/x")).unwrap();
    assert!(file.open(Access::Read).await.is_err());
    fs::rename(dir.path().join("e/y"), dir.path().join("e/x")).unwrap();
    assert!(matches!(file.open(Access::Read).await.err(), Some(VfsError::Replaced)));
}

#[tokio::test]
async fn devices_and_pipes_are_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let root = folder::open_mount(dir.path(), true).unwrap();
    assert!(matches!(root.lookup(name("pipe")).await, Ok(Node::Other(..))));
    assert_eq!(root.entries().await.unwrap(), [Entry { name: "pipe".into(), kind: Kind::Other }]);
}

#[tokio::test]
async fn memory_is_bounded() {
    let tree = MemoryTree::new(64 * 1024);
    let root = tree.root();
    let is_full = |result: Result<(), VfsError>| matches!(result, Err(VfsError::NoSpace));
    let file = root.create_file(name("file")).await.unwrap().open(Access::ReadWrite).await.unwrap();
    assert!(is_full(file.clone().write_at(0, vec![1; 64 * 1024].into()).await));
    assert_eq!(file.metadata().await.unwrap().size_bytes, 0, "nothing was written of what did not fit");
    file.clone().write_at(0, vec![1; 32 * 1024].into()).await.unwrap();
    // A hole takes nothing, and cutting off gives back.
    file.set_size(1 << 40).await.unwrap();
    assert_eq!(file.clone().read_at(1 << 39, 4).await.unwrap(), "\0\0\0\0");
    let used = tree.used_bytes();
    file.set_size(100).await.unwrap();
    assert_eq!(tree.used_bytes(), used - 28 * 1024);

    let mut made = 0;
    while root.create_directory(name(&format!("directory-{made}"))).await.is_ok() {
        made += 1;
    }
    assert!((20..100).contains(&made), "{made}");
    assert!(is_full(root.create_symlink(name("link"), "x").await));
    assert!(is_full(root.link(name("file"), &root, name("again")).await));
    for number in 0..made {
        root.remove_directory(name(&format!("directory-{number}"))).await.unwrap();
    }
    // Open, but without a name: it is there until it is closed.
    root.remove_file(name("file")).await.unwrap();
    assert!(tree.used_bytes() > 0);
    drop(file);
    assert_eq!(tree.used_bytes(), 0);
}

/// Places hold those above them; were there no bound, dropping a very deep one would take all of the stack.
#[tokio::test]
async fn depth_is_bounded() {
    let root = MemoryTree::new(64 * 1024 * 1024).root();
    let mut deepest = place(&root);
    let mut depth = 0;
    loop {
        deepest.directory().create_directory(name("d")).await.unwrap();
        let target = deepest.walk("d", Follow::Last).await.unwrap();
        let Node::Directory(inner) = target.existing().unwrap() else { panic!() };
        match target.enter(inner) {
            Ok(place) => deepest = place,
            Err(error) => {
                assert!(matches!(error, VfsError::NameTooLong));
                break;
            }
        }
        depth += 1;
    }
    assert_eq!(depth, DEPTH_MAX);
}

#[tokio::test]
async fn a_directory_without_a_name_takes_no_entries() {
    for (kind, root, _dir) in writable() {
        root.create_directory(name("d")).await.unwrap();
        let inner = directory(&root, "d").await;
        root.remove_directory(name("d")).await.unwrap();
        assert!(matches!(inner.create_file(name("x")).await.err(), Some(VfsError::NoEntry)), "{kind}");
    }
}

#[tokio::test]
async fn mounts_are_seen() {
    let root = MemoryTree::new(1024 * 1024).root();
    write(&root, "file", "").await;
    let mounted = MemoryTree::new(1024 * 1024).root();
    write(&mounted, "x", "mounted").await;
    let mount = |path: &str| Mount { path: path.into(), directory: mounted.clone(), links_may_leave: true };
    let namespace = Namespace::new(root, &[mount("/data/in"), mount("/file")]).unwrap();
    let place = namespace.root();
    assert_eq!(cat(place, "data/in/x").await, "mounted");
    assert_eq!(cat(place, "file/x").await, "mounted");
    assert_eq!(cat(place, "data/out").await, "error: no such file or directory");
    let listed: Vec<_> = place.entries().await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(listed, ["data", "file"]);
    let data = place.walk("data", Follow::Last).await.unwrap();
    assert!(matches!(data.changeable_name(), Err(VfsError::Busy)));
    for bad in ["data", "", "/a/../b", "/a//b", "/a/"] {
        let error = Namespace::new(MemoryTree::new(0).root(), &[mount(bad)]).err();
        assert!(matches!(error, Some(MountError::Path { .. })), "{bad:?}");
    }
    for path in ["/a", "/"] {
        let twice = Namespace::new(MemoryTree::new(0).root(), &[mount(path), mount(path)]).err();
        assert!(matches!(twice, Some(MountError::Twice { .. })));
    }
    let instead = Namespace::new(MemoryTree::new(0).root(), &[mount("/"), mount("/below")]).unwrap();
    assert_eq!(cat(instead.root(), "x").await, "mounted");
    assert_eq!(cat(instead.root(), "below/x").await, "mounted");
}

/// It is made in pieces.
#[tokio::test]
async fn a_long_listing_of_memory_is_whole() {
    for count in [0, 1, 1023, 1024, 1025, 2048, 5000] {
        let root = MemoryTree::new(1 << 30).root();
        let names: Vec<_> = (0..count).map(|number| format!("{number:04}")).collect();
        for name in &names {
            root.create_directory(Name::new(name).unwrap()).await.unwrap();
        }
        let listed = root.entries().await.unwrap();
        assert!(listed.iter().map(|entry| &entry.name).eq(&names), "{count}");
        assert!(listed.iter().all(|entry| entry.kind == Kind::Directory));
    }
}
