//! The blockstore as processes use it: archives, pins, collections, and what happens when they are killed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use ww::dag::block::{CODEC_DAG_PB, CODEC_RAW};
use ww::dag::car::{encode_header, encode_section_head};
use ww::dag::{Block, Cid, Version, pb};

use crate::support::{Done, collect, finish, finish_with, skipped, wait, ww};

/// The raw block "123" and its archive, as Kubo exports it.
const CID: &str = "bafkreifgmwsfsiccf6ouc7sim7x5yt5yubfb6p77d6qh5gmoq337pit24m";
const ARCHIVE: &str = "3aa265726f6f747381d82a58250001551220a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae367\
    76657273696f6e012701551220a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3313233";

fn archive() -> Vec<u8> {
    (0..ARCHIVE.len()).step_by(2).map(|at| u8::from_str_radix(&ARCHIVE[at..at + 2], 16).unwrap()).collect()
}

/// A blockstore of its own, and a folder for archives.
struct Store {
    dir: TempDir,
}

impl Store {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn packs(&self) -> PathBuf {
        self.path("home/blockstore/packs")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = ww(args);
        command.env("WW_HOME", self.path("home")).env_remove("WW_STORE_MAX").current_dir(self.dir.path());
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        finish(&mut self.command(args))
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(args).expect(0).stdout).unwrap()
    }

    /// Writes an archive with a tree of its own; gives its root and its bytes.
    fn archive(&self, name: &str, blocks: usize, block_bytes: usize) -> (Cid, Vec<u8>) {
        let (root, archive) = tree(name, blocks, block_bytes);
        fs::write(self.path(name), &archive).unwrap();
        (root, archive)
    }

    /// The only pack.
    fn pack(&self) -> PathBuf {
        let mut packs = fs::read_dir(self.packs()).unwrap().map(|entry| entry.unwrap().path());
        packs.find(|path| path.extension().is_some_and(|extension| extension == "car")).unwrap()
    }
}

fn seal(codec: u64, data: Vec<u8>) -> Block {
    Block::seal(Version::V1, codec, Bytes::from(data)).unwrap()
}

fn car(root: &Cid, blocks: &[Block]) -> Vec<u8> {
    let mut archive = encode_header(&[*root]);
    for block in blocks {
        archive.extend(encode_section_head(block.cid(), block.data().len()));
        archive.extend_from_slice(block.data());
    }
    archive
}

/// A node that links to blocks of plain bytes, in the order of an export. The bytes depend on the seed.
fn tree(seed: &str, blocks: usize, block_bytes: usize) -> (Cid, Vec<u8>) {
    let leaf = |number: usize| {
        let mut data = format!("{seed} {number} ").repeat(block_bytes / (seed.len() + 2) + 1).into_bytes();
        data.truncate(block_bytes);
        seal(CODEC_RAW, data)
    };
    let leaves: Vec<_> = (0..blocks).map(leaf).collect();
    // Nodes of 1,000 links each, and one above them.
    let node = |cids: Vec<Cid>| {
        let links = cids.into_iter().map(|cid| pb::Link { cid, name: Some(""), tsize: Some(0) }).collect();
        seal(CODEC_DAG_PB, pb::Node { links, data: None }.encode())
    };
    let mut all = Vec::new();
    let mut nodes = Vec::new();
    for leaves in leaves.chunks(1000) {
        let above = node(leaves.iter().map(|leaf| *leaf.cid()).collect());
        nodes.push(*above.cid());
        all.push(above);
        all.extend_from_slice(leaves);
    }
    let root = node(nodes);
    all.insert(0, root.clone());
    (*root.cid(), car(root.cid(), &all))
}

#[test]
fn archives_come_and_go() {
    let store = Store::new();
    let (root, archive) = store.archive("a.car", 3, 100_000);
    let done = store.run(&["car", "import", "a.car", "--pin", "a@1"]).expect(0);
    assert_eq!(done.stdout, format!("{root}\n"));
    assert_eq!(done.stderr, "5 blocks, 5 new\n");
    assert_eq!(store.run(&["pin", "ls"]).expect(0).stdout, format!("{root} a@1\n"));
    store.run(&["car", "export", &root.to_string(), "-o", "b.car"]).expect(0);
    assert!(fs::read(store.path("b.car")).unwrap() == archive);
    let piped = store.command(&["car", "export", &format!("/ipfs/{root}")]).output().unwrap();
    assert!(piped.status.success() && piped.stdout == archive);
    let imported = finish_with(&mut store.command(&["car", "import", "-", "--json", "--pin"]), archive).expect(0);
    let imported: Value = serde_json::from_str(&imported.stdout).unwrap();
    assert_eq!(imported["roots"][0], root.to_string());
    assert_eq!((&imported["blocks"], &imported["new_blocks"]), (&5.into(), &0.into()));
    assert_eq!(imported["pins"][0]["name"], root.to_string());
    // A device is written to, not replaced.
    store.run(&["car", "export", &root.to_string(), "-o", "/dev/null"]).expect(0);
    let done = store.run(&["car", "export", &root.to_string(), "--json"]).expect(2);
    assert!(done.stdout.is_empty());
}

#[test]
fn bad_archives_change_nothing() {
    let store = Store::new();
    let archive = archive();
    let check = |archive: &[u8], args: &[&str], code: i32, expected: &str| {
        let args = [&["car", "import", "-"], args].concat();
        let done = finish_with(&mut store.command(&args), archive.to_vec()).expect(code);
        assert!(done.stderr.contains(expected), "{}", done.stderr);
        assert!(!done.stderr.contains("panicked") && done.stdout.is_empty());
        assert_eq!(store.json(&["gc", "--dry-run", "--json"])["removed_blocks"], 0);
        assert_eq!(store.run(&["pin", "ls"]).expect(0).stdout, "");
    };
    let mut wrong = archive.clone();
    *wrong.last_mut().unwrap() += 1;
    check(&wrong, &[], 8, &format!("bytes do not match the hash in {CID}"));
    check(&archive[..70], &[], 8, "truncated at byte 70");
    check(&archive[..70], &[], 8, "fetch or export it again");
    check(&[&archive[..], &[0xa0]].concat(), &["--pin"], 8, &format!("within what follows block {CID}"));
    check(b"", &["--pin"], 8, "truncated at byte 0");
    check(b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", &[], 8, "over the limit");
    check(&[&archive[..59], b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"].concat(), &[], 8, "over the limit");
    check(&archive[..59], &["--pin", "x"], 7, &format!("{CID} is incomplete in the blockstore: {CID} is missing"));
    check(&encode_header(&[]), &["--pin"], 2, "no root");
    check(&archive, &["--pin", "a b"], 2, "cannot contain ' '");
    // Without a pin, a part of a DAG is nothing wrong.
    let done = finish_with(&mut store.command(&["car", "import", "-"]), archive[..59].to_vec()).expect(0);
    assert!(done.stderr.contains("warning: root") && done.stderr.contains("is missing"), "{}", done.stderr);
    let done = store.run(&["car", "import", "none.car"]).expect(7);
    assert!(done.stderr.contains("none.car"), "{}", done.stderr);
}

#[test]
fn pins_hold_content() {
    let store = Store::new();
    let (root, _) = store.archive("a.car", 3, 100);
    let (loose, _) = store.archive("b.car", 3, 100);
    store.run(&["car", "import", "a.car"]).expect(0);
    store.run(&["car", "import", "b.car"]).expect(0);
    let added = store.json(&["pin", "add", &root.to_string(), "--name", "a", "--json"]);
    assert_eq!(added, serde_json::json!({ "name": "a", "cid": root.to_string() }));
    let report = store.json(&["gc", "--json"]);
    assert_eq!((&report["removed_blocks"], &report["kept_blocks"]), (&5.into(), &5.into()));
    let done = store.run(&["pin", "add", &loose.to_string(), "--offline"]).expect(7);
    assert!(done.stderr.contains("was not found") && done.stderr.contains("without --offline"), "{}", done.stderr);
    store.run(&["pin", "add", &format!("/ipfs/{root}/x")]).expect(2);
    store.run(&["pin", "rm", "a", "b"]).expect(7);
    assert_eq!(store.json(&["pin", "ls", "--json"])["pins"][0]["cid"], root.to_string());
    store.run(&["pin", "rm", "a"]).expect(0);
    assert_eq!(store.run(&["gc"]).expect(0).stdout.split_once(',').unwrap().0, "removed 5 blocks");
    store.run(&["car", "export", &root.to_string(), "-o", "c.car"]).expect(7);
    assert!(!store.path("c.car").exists());
}

#[test]
fn damage_is_found_and_repaired() {
    let store = Store::new();
    let (root, archive) = store.archive("a.car", 3, 1000);
    store.run(&["car", "import", "a.car", "--pin", "a"]).expect(0);
    let mut pack = fs::read(store.pack()).unwrap();
    *pack.last_mut().unwrap() ^= 1;
    fs::write(store.pack(), pack).unwrap();
    let done = store.run(&["car", "export", &root.to_string(), "-o", "b.car"]).expect(9);
    assert!(done.stderr.contains("is damaged in the blockstore") && done.stderr.contains("help:"), "{}", done.stderr);
    assert!(!store.path("b.car").exists());
    let report = finish(&mut store.command(&["store", "verify", "--json"])).expect(9);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(report["findings"][0]["kind"], "damaged-block");
    let done = store.run(&["store", "verify", "--repair"]).expect(9);
    assert!(done.stdout.contains("pin a: ") && done.stderr.contains("pinned content is not whole"), "{}", done.stdout);
    // Repairing again would bring nothing, and is not what is said.
    for args in [&["store", "verify"][..], &["store", "verify", "--repair"]] {
        let done = store.run(args).expect(9);
        assert!(done.stderr.starts_with("error: nothing in the blockstore is damaged, but"), "{}", done.stderr);
        assert!(done.stderr.contains("`ww pin add CID --name NAME`") && !done.stderr.contains("--repair"));
    }
    for args in [&["gc"][..], &["gc", "--dry-run"]] {
        let done = store.run(args).expect(7);
        let said = done.stderr.starts_with("error: pin a is not whole, so nothing is removed\n");
        assert!(said && done.stderr.contains("is missing") && done.stderr.contains("ww pin add"), "{}", done.stderr);
    }
    store.run(&["car", "import", "a.car"]).expect(0);
    let done = store.run(&["store", "verify"]).expect(0);
    assert!(done.stdout.ends_with("1 pin, all good\n"), "{}", done.stdout);
    store.run(&["car", "export", &root.to_string(), "-o", "b.car"]).expect(0);
    assert!(fs::read(store.path("b.car")).unwrap() == archive);
}

/// Damage is met where content is written, too, after it was found to be here.
#[test]
fn whoever_meets_damage_says_what_to_do() {
    let store = Store::new();
    fs::create_dir_all(store.path("image/bin")).unwrap();
    fs::write(store.path("image/bin/main.wasm"), vec![7; 3 << 20]).unwrap();
    let root = store.run(&["-q", "publish", "image", "--offline"]).expect(0).stdout.trim_end().to_owned();
    let mut pack = fs::read(store.pack()).unwrap();
    pack[2000] ^= 1;
    fs::write(store.pack(), pack).unwrap();
    let main = format!("{root}/bin/main.wasm");
    for (args, code) in [
        (&["run", &format!("/ipfs/{root}"), "--offline", "--listen", "/ip4/127.0.0.1/tcp/0"][..], 125),
        (&["get", &root, "--offline", "-o", "x"], 9),
        (&["cat", &main, "--offline"], 9),
        (&["inspect", &root], 9),
    ] {
        let done = store.run(args).expect(code);
        assert!(done.stderr.contains("help: `ww store verify --repair`"), "{args:?}: {}", done.stderr);
    }
}

/// As other programs that write to a pipe whose reader has enough.
#[test]
fn a_reader_that_goes_is_nothing_to_speak_of() {
    let store = Store::new();
    let (root, _) = store.archive("a.car", 40, 100_000);
    store.run(&["car", "import", "a.car", "--pin"]).expect(0);
    let mut command = store.command(&["car", "export", &root.to_string()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0; 10]).unwrap();
    drop(output);
    let done = collect(child).expect(141);
    assert_eq!(done.stderr, "");
}

#[test]
fn a_place_that_cannot_be_is_named_with_its_variable() {
    let store = Store::new();
    fs::write(store.path("file"), "").unwrap();
    let home = store.path("file/home");
    let done = finish(store.command(&["pin", "ls"]).env("WW_HOME", &home)).expect(1);
    assert!(done.stderr.contains(&format!("since WW_HOME is `{}`", home.display())), "{}", done.stderr);
    let mut command = store.command(&["pin", "ls"]);
    let done = finish(command.env_remove("WW_HOME").env("XDG_DATA_HOME", &home)).expect(1);
    assert!(done.stderr.contains("WW_HOME names another folder"), "{}", done.stderr);
}

#[test]
fn what_cannot_be_used_is_said() {
    let store = Store::new();
    store.run(&["pin", "ls"]).expect(0);
    let pins = store.packs().join("pins.json");
    fs::write(&pins, "garbage").unwrap();
    let done = store.run(&["gc"]).expect(9);
    assert!(done.stderr.contains("pins.json cannot be read: expected value"), "{}", done.stderr);
    assert_eq!(fs::read_to_string(&pins).unwrap(), "garbage");
    fs::remove_file(pins).unwrap();
    fs::write(store.path("home/blockstore/index.sqlite"), "garbage").unwrap();
    store.run(&["store", "verify"]).expect(0);
    fs::write(store.path("home/blockstore/format"), "99\n").unwrap();
    let done = store.run(&["pin", "ls"]).expect(1);
    assert!(done.stderr.contains("was written by a newer ww"), "{}", done.stderr);
    let done = finish(store.command(&["pin", "ls"]).env("WW_STORE_MAX", "many")).expect(2);
    assert!(done.stderr.contains("WW_STORE_MAX is `many`"), "{}", done.stderr);
}

#[test]
fn the_size_is_limited() {
    let store = Store::new();
    let (pinned, _) = store.archive("0.car", 6, 100_000);
    let import = |name: &str, pin: &[&str]| {
        let args = [&["car", "import", name], pin].concat();
        finish(store.command(&args).env("WW_STORE_MAX", "1MiB")).expect(0).stderr
    };
    assert!(!import("0.car", &["--pin"]).contains("size limit"));
    store.archive("1.car", 6, 100_000);
    let said = import("1.car", &[]);
    assert!(said.contains("the blockstore was over its size limit: removed 8 blocks"), "{said}");
    store.run(&["car", "export", &pinned.to_string(), "-o", "/dev/null"]).expect(0);
}

/// However large an archive is, only a piece of it is in memory.
#[test]
fn imports_need_little_memory() {
    let store = Store::new();
    let mut command = store.command(&["car", "import", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut data = vec![0; 1 << 20];
    input.write_all(&encode_header(&[])).unwrap();
    for number in 0..200_u32 {
        data[..4].copy_from_slice(&number.to_le_bytes());
        let block = seal(CODEC_RAW, data.clone());
        input.write_all(&encode_section_head(block.cid(), block.data().len())).unwrap();
        input.write_all(block.data()).unwrap();
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    drop(input);
    let done = collect(child).expect(0);
    assert_eq!(done.stderr, "200 blocks, 200 new\n");
    assert!(peak_kib < 64 << 10, "{peak_kib} KiB");
}

/// A number below `end` that looks like chance, and is the same in every run.
fn scatter(round: u64, end: u64) -> u64 {
    let mut mixed = round.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 29;
    (mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) % end
}

/// Whatever is killed at whatever instant, what was reported as done stays.
#[test]
fn killed_at_any_instant() {
    let store = Store::new();
    let (kept, archive) = store.archive("kept.car", 30, 10_000);
    store.run(&["car", "import", "kept.car", "--pin", "kept"]).expect(0);
    let mut done = vec![("kept".to_owned(), kept, archive)];
    for round in 0..100 {
        let name = format!("{round}.car");
        let (root, archive) = store.archive(&name, 40, 40_000);
        let mut command = match round % 4 {
            0 => store.command(&["gc"]),
            1 => store.command(&["car", "import", &name]),
            _ => store.command(&["car", "import", &name, "--pin", &name]),
        };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_micros(scatter(round, 60_000)));
        child.kill().unwrap();
        let was_finished = wait(&mut child).success();
        if was_finished && round % 4 > 1 {
            done.push((name.clone(), root, archive));
        }
        if round % 10 == 9 {
            check_whole(&store, &done);
            // So that collections have something to do, and copy.
            if done.len() > 3 {
                let (name, ..) = done.remove(1);
                store.run(&["pin", "rm", &name]).expect(0);
            }
        }
        fs::remove_file(store.path(&name)).unwrap();
    }
    check_whole(&store, &done);
    // A pin may have been set by a process that could not say so any more.
    let pins = store.json(&["pin", "ls", "--json"]);
    assert!(pins["pins"].as_array().unwrap().len() >= done.len());
    let report = store.json(&["gc", "--json"]);
    let again = store.json(&["gc", "--json"]);
    assert_eq!((&again["removed_blocks"], &again["kept_blocks"]), (&0.into(), &report["kept_blocks"]));
    let leftovers = |entry: fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "part");
    assert!(!fs::read_dir(store.packs()).unwrap().any(|entry| leftovers(entry.unwrap())));
    check_whole(&store, &done);
}

/// The same of what mends a store, and of a pack with more blocks than are told of in one breath.
#[test]
fn mending_can_be_killed_at_any_instant() {
    let store = Store::new();
    let (root, archive) = store.archive("many.car", 70_000, 20);
    let started = std::time::Instant::now();
    store.run(&["car", "import", "many.car", "--pin", "many"]).expect(0);
    let import_micros = started.elapsed().as_micros() as u64;
    let done = [("many".to_owned(), root, archive)];
    let index = store.path("home/blockstore/index.sqlite");
    for round in 0..12 {
        let mut command = match round % 3 {
            0 => {
                fs::remove_file(&index).unwrap();
                store.command(&["pin", "ls"])
            }
            1 => {
                // The last block is damaged; all others are to be copied.
                let pack = store.pack();
                let mut bytes = fs::read(&pack).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(&pack, bytes).unwrap();
                store.command(&["store", "verify", "--repair"])
            }
            _ => {
                let packs = fs::read_dir(store.packs()).unwrap().map(|entry| entry.unwrap().path());
                packs
                    .filter(|path| path.extension().is_some_and(|extension| extension == "car"))
                    .for_each(|path| fs::remove_file(path).unwrap());
                store.command(&["car", "import", "many.car"])
            }
        };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_micros(scatter(round, import_micros)));
        child.kill().unwrap();
        wait(&mut child);
        if round % 3 == 0 {
            check_whole(&store, &done);
            continue;
        }
        let before = store.command(&["store", "verify", "--repair", "--json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&before.stdout).unwrap();
        if round % 3 == 1 {
            // All but the damaged block; twice, where the copy was done and the old pack was still there.
            assert!(report["blocks"].as_u64().unwrap() >= 70_070, "{report}");
        }
        store.run(&["car", "import", "many.car"]).expect(0);
        check_whole(&store, &done);
    }
}

/// All that was reported as done is there, and all that is there is good.
#[track_caller]
fn check_whole(store: &Store, done: &[(String, Cid, Vec<u8>)]) {
    store.run(&["store", "verify"]).expect(0);
    let pins = store.run(&["pin", "ls"]).expect(0).stdout;
    for (name, root, archive) in done {
        assert!(pins.contains(&format!("{root} {name}\n")), "{name} is gone:\n{pins}");
        let exported = store.command(&["car", "export", &root.to_string()]).output().unwrap();
        assert!(exported.status.success() && exported.stdout == *archive, "{name}");
    }
}

/// A writer that is killed leaves nothing that the next collection does not remove.
#[test]
fn a_killed_import_leaves_nothing_behind() {
    let store = Store::new();
    let (root, _) = store.archive("kept.car", 3, 1000);
    store.run(&["car", "import", "kept.car", "--pin", "kept"]).expect(0);
    let before = store.json(&["gc", "--json"])["kept_blocks"].clone();
    let (_, archive) = tree("big", 64, 1 << 20);
    let mut child = store.command(&["car", "import", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&archive[..archive.len() / 2]).unwrap();
    child.kill().unwrap();
    wait(&mut child);
    let after = store.json(&["gc", "--json"]);
    assert_eq!((&after["kept_blocks"], &after["removed_blocks"]), (&before, &0.into()));
    assert_eq!(fs::read_dir(store.packs()).unwrap().count(), 2, "one pack and the pins");
    store.run(&["car", "export", &root.to_string(), "-o", "/dev/null"]).expect(0);
}

/// A collection waits for a writer and says so; with the writer, however it ends, the wait ends.
#[test]
fn locks_end_with_their_holders() {
    let store = Store::new();
    let mut writer = store.command(&["car", "import", "-"]);
    let mut writer = writer.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = writer.stdin.take().unwrap();
    // When this much is taken, it has begun.
    input.write_all(&tree("x", 4, 1 << 20).1[..3 << 20]).unwrap();
    let mut collector = store.command(&["gc"]);
    let mut collector = collector.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(collector.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("waiting for"), "{line}");
    // Others read as always.
    store.run(&["pin", "ls"]).expect(0);
    assert!(collector.try_wait().unwrap().is_none());
    writer.kill().unwrap();
    wait(&mut writer);
    assert!(wait(&mut collector).success());
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

/// Processes that import, collect and read the same store at once.
#[test]
fn several_processes_at_once() {
    let store = Store::new();
    let (kept, kept_archive) = store.archive("kept.car", 50, 20_000);
    store.run(&["car", "import", "kept.car", "--pin", "kept"]).expect(0);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (store, is_done) = (&store, &is_done);
        let importers: Vec<_> = (0..3)
            .map(|importer| {
                scope.spawn(move || {
                    for round in 0..6 {
                        let name = format!("{importer}-{round}.car");
                        store.archive(&name, 100, 30_000);
                        store.run(&["car", "import", &name, "--pin", &name]).expect(0);
                        // Without a collection that waits, whole packs are of no use from now on.
                        store.run(&["pin", "add", &kept.to_string(), "--name", &name]).expect(0);
                        store.run(&["car", "import", &name, "--pin", &format!("{importer}")]).expect(0);
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            while !is_done.load(Ordering::SeqCst) {
                store.run(&["gc"]).expect(0);
            }
        });
        scope.spawn(move || {
            while !is_done.load(Ordering::SeqCst) {
                let exported = store.command(&["car", "export", &kept.to_string()]).output().unwrap();
                let said = String::from_utf8_lossy(&exported.stderr);
                assert!(exported.status.success() && exported.stdout == kept_archive, "{said}");
            }
        });
        importers.into_iter().for_each(|importer| importer.join().unwrap());
        is_done.store(true, Ordering::SeqCst);
    });
    let report = store.run(&["store", "verify", "--json"]).expect(0);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(report["pins"], 1 + 3 + 18);
    let report = store.json(&["gc", "--json"]);
    assert_eq!(report["kept_blocks"], 52 + 3 * 102);
}

/// A file system in memory of this size, mounted until it is dropped; `None` where that is not allowed.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"]).arg(path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_is_an_error_that_loses_nothing() {
    let store = Store::new();
    let Some(_disk) = SmallDisk::mount(&store.path("home"), "8m") else {
        return skipped("root", "no file system can be mounted: that takes root");
    };
    let (root, archive) = store.archive("small.car", 20, 100_000);
    store.archive("large.car", 80, 100_000);
    store.archive("loose.car", 20, 100_000);
    store.run(&["car", "import", "small.car", "--pin", "small"]).expect(0);
    let before = fs::read_dir(store.packs()).unwrap().count();
    for _ in 0..2 {
        let done = store.run(&["car", "import", "large.car", "--pin", "large"]).expect(1);
        assert!(done.stderr.contains("No space left on device"), "{}", done.stderr);
        assert_eq!(fs::read_dir(store.packs()).unwrap().count(), before);
    }
    let done = [("small".to_owned(), root, archive)];
    check_whole(&store, &done);
    // A disk without any room can be collected.
    store.run(&["car", "import", "loose.car"]).expect(0);
    let mut filler = fs::File::create(store.path("home/filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    let import = store.run(&["car", "import", "large.car"]);
    assert!(import.code == Some(1) && !import.stderr.contains("panicked"), "{}", import.stderr);
    let done_gc = store.run(&["gc"]).expect(0);
    assert!(done_gc.stdout.starts_with("removed 22 blocks"), "{}", done_gc.stdout);
    check_whole(&store, &done);
    // As long as it is open, its room is not free.
    drop(filler);
    fs::remove_file(store.path("home/filler")).unwrap();
    store.run(&["car", "import", "loose.car", "--pin", "loose"]).expect(0);
    check_whole(&store, &done);
}

/// A commit does not need the room that it takes to shorten the log of the index.
#[test]
fn a_log_that_cannot_be_shortened_undoes_nothing() {
    let store = Store::new();
    let Some(_disk) = SmallDisk::mount(&store.path("home"), "32m") else {
        return skipped("root", "no file system can be mounted: that takes root");
    };
    let (large, large_archive) = store.archive("large.car", 120_000, 20);
    let (small, small_archive) = store.archive("small.car", 3, 100);
    store.run(&["car", "import", "large.car", "--pin", "large"]).expect(0);
    let length = |name: &str| fs::metadata(store.path("home/blockstore").join(name)).unwrap().len();
    assert!(length("index.sqlite-wal") > 4 << 20 && length("index.sqlite") < 1 << 20);
    let mut filler = fs::File::create(store.path("home/filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    filler.set_len(filler.metadata().unwrap().len() - (1 << 20)).unwrap();
    store.run(&["car", "import", "small.car", "--pin", "small"]).expect(0);
    assert!(length("index.sqlite-wal") > 4 << 20, "there was room to shorten it");
    let done = [("large".to_owned(), large, large_archive), ("small".to_owned(), small, small_archive)];
    check_whole(&store, &done);
    fs::remove_file(store.path("home/filler")).unwrap();
    check_whole(&store, &done);
}

/// How often a command waits for the disk.
fn fsyncs(store: &Store, args: &[&str]) -> Option<usize> {
    let trace = store.path("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=fsync,fdatasync,sync,syncfs,msync,sync_file_range", "-o"]).arg(&trace);
    let ww = store.command(args);
    command.arg(ww.get_program()).args(ww.get_args()).current_dir(store.dir.path());
    command.env("WW_HOME", store.path("home")).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.output().ok().filter(|output| output.status.success())?;
    drop(output);
    Some(fs::read_to_string(trace).unwrap().lines().filter(|line| line.contains("sync")).count())
}

#[test]
fn a_commit_waits_for_the_disk_six_times_at_most() {
    let store = Store::new();
    let sizes = [(1, 10), (10, 1 << 20), (20_000, 100), (60_000, 40), (1, 20), (30_000, 40), (2, 10)];
    for (round, (blocks, block_bytes)) in sizes.into_iter().enumerate() {
        let name = format!("{round}.car");
        store.archive(&name, blocks, block_bytes);
        let Some(count) = fsyncs(&store, &["car", "import", &name, "--pin", &name]) else {
            return skipped("strace", "strace is not there or may not trace");
        };
        assert!((3..=6).contains(&count), "round {round}: {count}");
    }
    // What is there already is not waited for.
    store.archive("again", 10, 10);
    store.run(&["car", "import", "again", "--pin", "again"]).expect(0);
    assert_eq!(fsyncs(&store, &["car", "import", "again", "--pin", "again"]), Some(0));
    assert_eq!(fsyncs(&store, &["pin", "ls"]), Some(0));
}

#[test]
fn a_signal_ends_what_takes_long_and_leaves_no_files() {
    let store = Store::new();
    let (root, _) = store.archive("a.car", 3, 100);
    store.run(&["car", "import", "a.car"]).expect(0);
    let lock = fs::File::options().write(true).open(store.path("home/blockstore/gc.lock")).unwrap();
    lock.lock().unwrap();
    let root = root.to_string();
    let names = || fs::read_dir(store.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let before = names().len();
    let commands: [&[&str]; 4] =
        [&["car", "export", &root, "-o", "b.car"], &["car", "import", "a.car"], &["gc"], &["store", "verify"]];
    for args in commands {
        let mut command = store.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        while !said.contains("waiting for") {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "{args:?}: {said}");
        }
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        drop(stderr);
        assert_eq!(wait(&mut child).code(), Some(130), "{args:?}");
        assert_eq!(names().len(), before, "{args:?}: {:?}", names());
    }
}
