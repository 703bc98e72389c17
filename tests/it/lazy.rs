//! Content that is fetched as it is read, and programs that are loaded by their CID.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::fetch::{Gateway, Home, Mock, answer, get};
use crate::support::{Done, collect, finish, guest, image, probe_image};

/// How much of a large file there is: many blocks of 1 MiB, each different.
const LARGE_BLOCKS: usize = 20;

/// What a gateway in between does with a request for a single block, instead of passing it on.
type Instead = Arc<Mutex<Option<fn(Vec<u8>) -> Option<Vec<u8>>>>>;

/// An image on another machine, and a gateway to it that notes what it is asked.
struct Elsewhere {
    cid: String,
    mock: Mock,
    /// The most requests that were under way at once.
    at_once: Arc<AtomicUsize>,
    instead: Instead,
    /// What entries of the image are: CIDs by path.
    cids: BTreeMap<String, String>,
    _gateway: Gateway,
    _home: Home,
}

impl Elsewhere {
    fn new(folder: &Path, paths: &[&str]) -> Self {
        let home = Home::new();
        let cid = home.publish(folder);
        let gateway = Gateway::start(&home);
        let mut cids = BTreeMap::new();
        for path in paths {
            let (above, name) = path.rsplit_once('/').unwrap();
            let done = finish(&mut home.ww(&["ls", &format!("/ipfs/{cid}{above}"), "--json"])).expect(0);
            let listed: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
            let entry = listed["entries"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap();
            cids.insert((*path).to_owned(), entry["cid"].as_str().unwrap().to_owned());
        }
        let (at_once, live) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let instead = Instead::default();
        let (behind, most, changed) = (gateway.url.clone(), at_once.clone(), instead.clone());
        let mock = Mock::start(move |line| {
            most.fetch_max(live.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let target = line.split(' ').nth(1).unwrap();
            let (head, body) = get(&behind, target);
            let is_raw = target.contains("format=raw");
            let change = if is_raw { *changed.lock().unwrap() } else { None };
            if is_raw {
                // So long that others can come meanwhile.
                thread::sleep(Duration::from_millis(20));
            }
            live.fetch_sub(1, Ordering::SeqCst);
            if !head.starts_with("HTTP/1.0 200") {
                return Some(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec());
            }
            match change {
                Some(change) => change(body),
                None => Some(answer(if is_raw { "raw" } else { "car" }, &body)),
            }
        });
        Self { cid, mock, at_once, instead, cids, _gateway: gateway, _home: home }
    }

    fn content(&self) -> String {
        format!("/ipfs/{}", self.cid)
    }

    /// The options that name it.
    fn source(&self) -> [&str; 4] {
        ["--kubo", "none", "--gateway", &self.mock.url]
    }

    /// Answers requests for blocks with something else from now on; `None` for nothing at all.
    fn answer_with(&self, change: fn(Vec<u8>) -> Option<Vec<u8>>) {
        *self.instead.lock().unwrap() = Some(change);
    }

    /// What was asked for after the first `known`: `car PATH` below the image, or the path of a block.
    fn asked_after(&self, known: usize) -> Vec<String> {
        let shown = |line: &String| {
            let target = line.split(' ').nth(1).unwrap();
            let (path, query) = target.split_once('?').unwrap();
            if query.contains("format=car") {
                return format!("car {}", path.strip_prefix(&self.content()).unwrap_or(path));
            }
            let cid = path.strip_prefix("/ipfs/").unwrap();
            let known = self.cids.iter().find(|(_, known)| *known == cid);
            known.map_or_else(|| cid.to_owned(), |(path, _)| path.clone())
        };
        self.mock.asked()[known..].iter().map(shown).collect()
    }

    fn asked(&self) -> Vec<String> {
        self.asked_after(0)
    }
}

/// The probe with folders, of which one has many files.
fn image_with_many() -> TempDir {
    let image = probe_image();
    for folder in ["many", "other", "etc"] {
        fs::create_dir(image.path().join(folder)).unwrap();
    }
    for number in 0..100 {
        fs::write(image.path().join(format!("many/{number}")), format!("number {number}")).unwrap();
        fs::write(image.path().join(format!("other/{number}")), format!("other {number}")).unwrap();
    }
    fs::write(image.path().join("etc/motd"), "hello").unwrap();
    image
}

fn image_with_large() -> TempDir {
    let image = probe_image();
    let content: Vec<u8> =
        (0..LARGE_BLOCKS << 20).map(|at| if at % (1 << 20) == 0 { (at >> 20) as u8 } else { at as u8 }).collect();
    fs::write(image.path().join("large"), content).unwrap();
    image
}

#[test]
fn only_what_is_opened_is_fetched() {
    let image = image_with_many();
    let there = Elsewhere::new(image.path(), &["/many", "/many/7", "/many/8", "/etc"]);
    let here = Home::new();
    let run = |args: &[&str]| finish(here.run(&there.content(), &there.source()).arg("--").args(args)).expect(0);
    // A listing is the folder's own blocks; what etc/cell.toml says is asked for before the start.
    let listed = run(&["files", "/many"]).stdout;
    assert_eq!(listed.split(' ').count(), 102, "{listed}");
    assert_eq!(there.asked(), ["car /bin/main.wasm", "/etc", "/many"]);
    assert_eq!(run(&["files", "/many/7"]).stdout, "/many/7: file of 8 bytes\n");
    assert_eq!(there.asked_after(3), ["/many/7"]);
    // All of it is here now, and nobody is asked again.
    for _ in 0..2 {
        assert_eq!(run(&["files", "/many/7"]).stdout, "/many/7: file of 8 bytes\n");
    }
    assert_eq!(there.asked().len(), 4);
    let offline = finish(&mut here.run(&there.content(), &["--offline", "--", "files", "/many/7", "/many/8", "/none"]));
    let offline = offline.expect(0);
    assert_eq!(offline.stdout, "/many/7: file of 8 bytes\n/many/8: uncategorized error\n/none: entity not found\n");
    let warning = format!("warning: a guest cannot read what it wants: block {} was not found", there.cids["/many/8"]);
    assert!(offline.stderr.contains(&warning), "{}", offline.stderr);
    assert_eq!(here.leases(), 0);
}

#[test]
fn a_wrong_block_is_refused_and_said() {
    let image = image_with_many();
    let there = Elsewhere::new(image.path(), &["/many/7"]);
    let here = Home::new();
    finish(here.run(&there.content(), &there.source()).args(["--", "files", "/many"])).expect(0);
    there.answer_with(|mut body| {
        body[0] ^= 1;
        Some(answer("raw", &body))
    });
    let done = finish(here.run(&there.content(), &there.source()).args(["--", "files", "/many/7", "/bin"])).expect(0);
    assert!(done.stdout.starts_with("/many/7: uncategorized error\n/bin: folder: "), "{}", done.stdout);
    let gateway = format!("gateway {}", there.mock.url);
    assert!(done.stderr.contains(&format!("warning: {gateway} is not asked any more: ")), "{}", done.stderr);
    let lost = format!("block {} was not found; {gateway}: it sent a bad block", there.cids["/many/7"]);
    assert!(done.stderr.contains(&lost), "{}", done.stderr);
    finish(&mut here.ww(&["cat", &there.cids["/many/7"], "--offline"])).expect(7);
}

#[test]
fn a_cell_that_is_ended_ends_its_requests() {
    let image = image_with_many();
    let there = Elsewhere::new(image.path(), &[]);
    let here = Home::new();
    finish(here.run(&there.content(), &there.source()).args(["--", "files", "/many"])).expect(0);
    there.answer_with(|_| None);
    let limited = ["--limit", "wall-time=1s", "--", "files", "/many/7"];
    finish(here.run(&there.content(), &there.source()).args(limited)).expect(124);
    // And so does a signal.
    let known = there.asked().len();
    let mut command = here.run(&there.content(), &there.source());
    command.args(["--", "files", "/many/8"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    while there.asked().len() == known {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    collect(child).expect(143);
}

#[test]
fn a_large_file_is_read_ahead_within_bounds() {
    let image = image_with_large();
    let there = Elsewhere::new(image.path(), &["/large"]);
    let here = Home::new();
    let done = finish(here.run(&there.content(), &there.source()).args(["--stats", "--", "files", "/large"])).expect(0);
    assert_eq!(done.stdout, format!("/large: file of {} bytes\n", LARGE_BLOCKS << 20));
    let mut asked = there.asked_after(1);
    assert_eq!((asked.len(), asked[0].as_str()), (LARGE_BLOCKS + 1, "/large"), "{asked:?}");
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), LARGE_BLOCKS + 1, "each is asked for once");
    let at_once = there.at_once.load(Ordering::SeqCst);
    assert!((2..=16).contains(&at_once), "{at_once} at once");
    let fetched = done.stderr.lines().find_map(|line| line.trim().strip_prefix("fetched ")).unwrap().trim();
    let fetched: usize = fetched.strip_suffix(" bytes").unwrap().parse().unwrap();
    assert!(fetched > LARGE_BLOCKS << 20, "{fetched}");
    // What was fetched has been stored, and is read from there.
    let done = finish(&mut here.run(&there.content(), &["--offline", "--stats", "--", "files", "/large"])).expect(0);
    assert!(done.stderr.contains("  fetched      0 bytes\n"), "{}", done.stderr);
}

#[test]
fn what_is_fetched_for_a_cell_is_limited() {
    let image = image_with_large();
    let there = Elsewhere::new(image.path(), &[]);
    let here = Home::new();
    let limited = ["--limit", "fetched=9MiB", "--", "files", "/large", "/bin"];
    let done = finish(here.run(&there.content(), &there.source()).args(limited)).expect(0);
    assert!(done.stdout.starts_with("/large: uncategorized error\n/bin: folder: "), "{}", done.stdout);
    let said = "warning: nothing more is fetched: the limit `fetched` is reached, which is 9MiB; `--limit fetched=…`";
    assert!(done.stderr.contains(said), "{}", done.stderr);
    assert!(there.asked().len() < LARGE_BLOCKS);
    let done =
        finish(here.run(&there.content(), &there.source()).args(["--fetch-max", "1MiB", "--", "files", "/large"]));
    let done = done.expect(0);
    assert!(done.stdout.starts_with("/large: uncategorized error\n"), "{}", done.stdout);
    assert!(done.stderr.contains("more than the 1048576 bytes"), "{}", done.stderr);
}

/// Runs the probe from a folder, with what it loads elsewhere.
fn probe(here: &Home, there: &Elsewhere, options: &[&str], args: &[&str]) -> Done {
    let image = probe_image();
    let mut command = here.run(image.path().to_str().unwrap(), &there.source());
    finish(command.args(options).arg("--").args(args))
}

const FETCH: [&str; 2] = ["--grant", "fetch"];

#[test]
fn an_image_is_loaded_by_its_cid() {
    let image = image_with_many();
    fs::write(image.path().join("etc/cell.toml"), "cell = 1\ngrants = [\"network\"]\n[limits]\nmemory = \"8MiB\"\n")
        .unwrap();
    let there = Elsewhere::new(image.path(), &["/many/7", "/many", "/bin", "/bin/main.wasm"]);
    let here = Home::new();
    let content = there.content();
    let done =
        probe(&here, &there, &FETCH, &["load", &content, "files", "/", "/etc/motd", "/tmp", "/many/7"]).expect(0);
    assert_eq!(
        done.stdout,
        "/: folder: bin etc many other tmp\n/etc/motd: file of 5 bytes\n/tmp: folder: \n/many/7: file of 8 bytes\n\
         ok: exit code 0\n"
    );
    let asked = there.asked();
    assert!(!asked.iter().any(|asked| asked.starts_with("car")), "{asked:?}");
    assert!(asked.contains(&"/many/7".to_owned()), "{asked:?}");
    // What it asks for counts where it is less, and gives nothing.
    let done = probe(&here, &there, &FETCH, &["load", &content, "allocate", "16"]).expect(0);
    assert!(done.stdout.ends_with("ok: exit code 1\n"), "{}", done.stdout);
    // Now that all of this is here, nobody is asked.
    let known = there.asked().len();
    probe(&here, &there, &FETCH, &["load", &format!("ipfs://{}", there.cid), "files", "/many/7"]).expect(0);
    assert_eq!(there.asked_after(known), [""; 0]);
    assert_eq!(here.leases(), 0);
}

#[test]
fn two_children_fetch_a_block_once() {
    let image = image_with_many();
    let there = Elsewhere::new(image.path(), &["/many/7", "/many"]);
    let here = Home::new();
    let done = probe(&here, &there, &FETCH, &["load-twice", &there.content(), "files", "/many/7"]).expect(0);
    assert!(done.stdout.ends_with("ok: two children\n"), "{}", done.stdout);
    let mut asked = there.asked();
    let all = asked.len();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), all, "{asked:?}");
}

#[test]
fn a_program_is_loaded_by_its_cid() {
    let image = probe_image();
    let there = Elsewhere::new(image.path(), &["/bin/child-echo.wasm"]);
    let here = Home::new();
    let by_path = format!("{}/bin/probe.wasm", there.content());
    let done = probe(&here, &there, &FETCH, &["load", &by_path, "files", "/", "/bin"]).expect(0);
    assert_eq!(done.stdout, "/: folder: tmp\n/bin: entity not found\nok: exit code 0\n");
    let done = probe(&here, &there, &FETCH, &["load", &there.cids["/bin/child-echo.wasm"], "--exit", "3"]).expect(0);
    assert_eq!(done.stdout, "ok: exit code 3\n");
}

#[test]
fn loading_by_cid_takes_a_grant() {
    let image = probe_image();
    let there = Elsewhere::new(image.path(), &[]);
    let here = Home::new();
    let content = there.content();
    let refused = probe(&here, &there, &[], &["load", &content]).expect(1);
    assert!(
        refused.stderr.contains("this cell may not load what a CID names; `--grant fetch` lets it"),
        "{}",
        refused.stderr
    );
    assert_eq!(there.asked(), [""; 0]);
    // Not even what is in the blockstore.
    assert_eq!(here.publish(image.path()), there.cid);
    let refused =
        finish(&mut here.run(image.path().to_str().unwrap(), &["--offline", "--", "load", &content])).expect(1);
    assert!(refused.stderr.contains("--grant fetch"), "{}", refused.stderr);
    let given = finish(
        &mut here
            .run(image.path().to_str().unwrap(), &["--offline", "--grant", "fetch", "--", "load", &content, "args"]),
    );
    assert_eq!(given.expect(0).stdout, "\"main.wasm\"\n\"args\"\nok: exit code 0\n");
}

#[test]
fn a_child_loads_as_far_as_its_parent_may() {
    let image = probe_image();
    let there = Elsewhere::new(image.path(), &[]);
    let here = Home::new();
    let content = there.content();
    let given = probe(&here, &there, &FETCH, &["hand-fetch", "/bin/probe.wasm", &content, "args"]).expect(0);
    assert_eq!(given.stdout, "\"main.wasm\"\n\"args\"\nok: exit code 0\nfetched for it: something\nok: exit code 0\n");
    let refused = probe(&here, &there, &[], &["hand-fetch", "/bin/probe.wasm", &content, "args"]).expect(1);
    assert!(
        refused.stderr.contains("a child cannot have the grant `fetch`, which its parent does not have"),
        "{}",
        refused.stderr
    );
    // A child that was not given it has none.
    let refused = probe(&here, &there, &FETCH, &["spawn", "/bin/probe.wasm", "load", &content]).expect(0);
    assert!(
        refused.stderr.contains("`--grant fetch` lets it") && refused.stdout.ends_with("ok: exit code 1\n"),
        "{}",
        refused.stdout
    );
}

#[test]
fn what_cannot_be_loaded_is_said() {
    let image = image(&[("lib/program.wasm", &guest("child-echo")), ("text", Path::new(file!()))]);
    std::os::unix::fs::symlink("text", image.path().join("link")).unwrap();
    let there = Elsewhere::new(image.path(), &[]);
    let here = Home::new();
    let nowhere = "/ipfs/bafkreifgmwsfsiccf6ouc7sim7x5yt5yubfb6p77d6qh5gmoq337pit24m";
    let content = there.content();
    let check = |options: &[&str], content: &str, expected: &str| {
        let done = probe(&here, &there, &[&FETCH[..], options].concat(), &["load", content]).expect(1);
        assert!(done.stderr.contains(expected), "{content}: {}", done.stderr);
        assert_eq!(done.stdout, "", "{content}");
    };
    check(&[], &content, "has no bin/main.wasm");
    check(&[], &format!("{content}/none"), "no entry `none` in directory");
    check(&[], &format!("{content}/text"), "it is not WebAssembly");
    check(&[], &format!("{content}/link"), "is neither a program nor the folder of an image");
    check(&[], &format!("{content}/text/below"), "is not a directory");
    check(&[], nowhere, &format!("failed to load {nowhere}"));
    let program = format!("{content}/lib/program.wasm");
    check(&["--limit", "fetched=0B"], &program, "the limit `fetched` is reached, which is 0B");
    check(&["--limit", "wasm=1KiB"], &program, "the limit `wasm` is reached, which is 1KiB");
    let done = probe(&here, &there, &FETCH, &["load-nonsense", "/bin/probe.wasm"]).expect(0);
    insta::assert_snapshot!(done.stdout);
}

#[test]
fn a_child_has_a_tmp_of_its_own() {
    let image = probe_image();
    let run = |options: &[&str], args: &[&str]| {
        finish(crate::support::ww_run(image.path(), options).args(["--", "spawn", "/bin/probe.wasm"]).args(args))
            .expect(0)
    };
    assert_eq!(
        run(&[], &["files", "/", "/tmp", "/bin"]).stdout,
        "/: folder: tmp\n/tmp: folder: \n/bin: entity not found\nok: exit code 0\n"
    );
    assert_eq!(run(&[], &["fill", "/tmp/x", "2097152"]).stdout, "ok: 2097152 bytes\nok: exit code 0\n");
    // It comes out of what its parent may keep.
    let full = run(&["--limit", "tmp=1MiB"], &["fill", "/tmp/x", "2097152"]).stdout;
    assert!(full.contains(" bytes, and then: uncategorized error\n"), "{full}");
    let done = run(&[], &["write-file", "/x"]);
    assert!(done.stdout.contains("ok: "), "{}", done.stdout);
}

/// What a run reads is not collected, also what came after it began.
#[test]
fn what_was_fetched_while_it_runs_stays() {
    let image = image_with_many();
    let there = Elsewhere::new(image.path(), &[]);
    let here = Home::new();
    let mut command = here.run(&there.content(), &there.source());
    command.args(["--", "sleep-forever"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    finish(&mut here.ww(&["gc"])).expect(0);
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    collect(child).expect(143);
    let done = finish(&mut here.run(&there.content(), &["--offline", "--", "exit", "3"]));
    done.expect(3);
}
