//! Guests that attack their host, beside neighbours that must not notice.
//!
//! The guest `hostile` has the attacks, and the neighbours: they call their host all the time, and fail if one answer is wrong or
//! missing. What they measure is printed by `benches/peers/hostile`; no test depends on it. The bounds of the host's memory are
//! those of `docs/authority.md`.
//!
//! Compile bombs are in `compile.rs`, capabilities that were revoked in `capabilities.rs`, links of an image that lead out of it in
//! `authority.rs`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::{collect, finish, guest, image, wait, ww_run};

/// This program's path in its image, for those who start it.
const SELF: &str = "/bin/main.wasm";

/// What `ww` itself has, with a cell or some, in MiB.
const BASE_MIB: u64 = 96;

/// How long attackers have that nothing ends, in milliseconds. Nothing is asserted of it.
const TIME: &str = "700";

/// How long those have that come to an end: longer than that takes on any machine.
const LONG_TIME: &str = "100000";

fn hostile_image() -> TempDir {
    image(&[("bin/main.wasm", &guest("hostile"))])
}

/// What is said by those who were there, and the most memory that the host ever had, in MiB.
struct Seen {
    said: String,
    memory_mib: u64,
}

/// Runs the guest, whose last words before the end of its standard input are `over`.
#[track_caller]
fn watch(image: &TempDir, options: &[&str], args: &[&str]) -> Seen {
    let mut command = ww_run(image.path(), options);
    command.arg("--").args(args);
    watch_command(command, args)
}

#[track_caller]
fn watch_command(mut command: Command, args: &[&str]) -> Seen {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let mut stdout = BufReader::new(running.stdout.take().unwrap());
    let mut stderr = running.stderr.take().unwrap();
    let complaints = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let mut said = String::new();
    while !said.ends_with("over\n") && stdout.read_line(&mut said).unwrap() > 0 {}
    let memory_mib = most_memory_mib(running.id());
    drop(running.stdin.take());
    let status = wait(&mut running);
    let complaints = complaints.join().unwrap();
    assert_eq!(status.code(), Some(0), "{args:?}\n--- stdout\n{said}\n--- stderr\n{complaints}");
    assert_eq!(complaints, "", "{args:?}: the host has nothing to complain of");
    let neighbours = said.lines().filter(|line| line.contains(" calls, p50 ")).count();
    assert_eq!(neighbours, 2, "{said}");
    Seen { said, memory_mib }
}

fn most_memory_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    // One that has ended has no memory, and the test will say that it has.
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024)
}

/// Two attackers at once, which all end like this, with this much memory at most besides [`BASE_MIB`].
#[track_caller]
fn attack(host: Host<'_>, attack: &[&str], outcome: &str, memory_mib: u64) {
    attack_with(&hostile_image(), SELF, host, attack, outcome, memory_mib);
}

#[track_caller]
fn attack_with(image: &TempDir, attacker: &str, host: Host<'_>, attack: &[&str], outcome: &str, memory_mib: u64) {
    let (mode, limits) = match host {
        Own => ("own", &[][..]),
        Handed(limits) => ("handed", limits),
    };
    let time = if outcome.contains("killed") { TIME } else { LONG_TIME };
    let mut args = vec!["beside", attacker, SELF, mode, time];
    args.extend(limits);
    args.push("--");
    args.extend(attack);
    let seen = watch(image, &[], &args);
    let attackers: Vec<_> = seen.said.lines().filter_map(|line| line.strip_prefix("attacker: ")).collect();
    assert_eq!(attackers.len(), 2, "{}", seen.said);
    for attacker in attackers {
        assert!(outcome.split(" or ").any(|outcome| attacker.contains(outcome)), "{attack:?}: {}", seen.said);
    }
    let most = BASE_MIB + memory_mib;
    assert!(seen.memory_mib <= most, "{attack:?}: the host had {} MiB and may have {most}", seen.memory_mib);
}

/// What attackers are given.
#[derive(Clone, Copy)]
enum Host<'a> {
    /// A host of their own, the limits of their parent, and no end but to be killed.
    Own,
    /// That of their parent, and these limits.
    Handed(&'a [&'a str]),
}

use Host::{Handed, Own};

#[test]
fn those_who_compute() {
    attack(Own, &["idle"], "exit code 0 — nothing was done", 0);
    attack(Own, &["spin"], "killed", 0);
    attack(Handed(&["cpu-time=100ms"]), &["spin"], "the limit `cpu-time` is reached, which is 100ms", 0);
    attack(Own, &["recurse"], "call stack exhausted", 0);
    attack(Handed(&[]), &["recurse"], "call stack exhausted", 0);
    attack(Own, &["sleep"], "killed", 0);
    attack(Handed(&["wall-time=100ms"]), &["sleep"], "the limit `wall-time` is reached, which is 100ms", 0);
    attack(Own, &["exit-inside"], "exit code 7", 0);
    attack(Handed(&[]), &["exit-inside"], "exit code 7", 0);
    attack(Own, &["escapes"], r"\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m on stderr", 0);
}

#[test]
fn those_who_take_memory() {
    attack(Own, &["memory"], "refused: there is no more memory after or killed", 1024);
    attack(Handed(&["memory=64MiB"]), &["memory"], "refused: there is no more memory after or killed", 128);
    attack(Own, &["fill"], "killed", 1024);
    attack(Handed(&["memory=64MiB", "wall-time=500ms"]), &["fill"], "the limit `wall-time`", 128);
}

#[test]
fn those_who_take_handles() {
    for attack_by in ["pollables", "streams", "poll"] {
        attack(Own, &[attack_by], "the limit `handles` is reached, which is 4096", 0);
        attack(Handed(&["handles=64"]), &[attack_by], "the limit `handles` is reached, which is 64", 0);
    }
    attack(Own, &["channels"], "refused: after 1: \\\"there is no other channel\\\"", 0);
    attack(Own, &["sockets"], "access-denied", 0);
}

#[test]
fn those_who_ask_for_too_much() {
    attack(Own, &["random"], "requested len 18446744073709551615 exceeds limit 262144", 0);
    attack(Own, &["random-again"], "killed", 0);
    attack(Own, &["ask-lengths"], "0 bytes were read", 0);
    attack(Own, &["large-list"], "too much data is being copied between the host and the guest", 128);
    attack(Own, &["flood-stdout"], "killed", 0);
    attack(Own, &["flood-stderr"], "killed", 0);
}

#[test]
fn those_who_call_without_end() {
    // 4 MiB of answers that nobody reads, for each, as they are and in the buffers of the connection.
    attack(Own, &["flood-calls"], "killed", 64);
    attack(Handed(&["wall-time=300ms"]), &["flood-calls"], "the limit `wall-time`", 64);
    attack(Own, &["flood-bytes"], "killed", 64);
    // The limit `call-bytes` is that of both together: once as they come, and once as they go back.
    attack(Own, &["flood-large"], "the limit `call-bytes` or killed", 512);
    // What is left is what the attackers have themselves, to make such messages of.
    attack(Handed(&["call-bytes=4MiB"]), &["flood-large"], "the limit `call-bytes`", 512);
    attack(Own, &["flood-half"], "killed", 128);
    attack(Handed(&["memory=32MiB"]), &["flood-half"], "do not fit into 32MiB, the limit `memory`", 128);
}

#[test]
fn those_whose_calls_never_return() {
    // Some kilobytes for each of the 16384 calls that each may have.
    attack(Own, &["pending"], "the limit `handles` or the limit `calls` or killed", 160);
    attack(Handed(&["calls=100"]), &["pending"], "more than 100 calls are unanswered, the limit `calls`", 0);
    attack(Own, &["cancel"], "killed", 256);
    // These read what they are answered as they go. Nothing is left behind of calls that have returned.
    attack(Handed(&["memory=4MiB"]), &["cancel"], "no end after many calls", 8);
    // Where they return at once, there is no chain; `raw_rpc.rs` has calls that do not.
    attack(Own, &["chain"], "more than 64 calls are chained to an unanswered one or killed", 0);
    attack(Own, &["capabilities"], "a message has more than 1024 capabilities", 128);
    attack(Handed(&[]), &["capabilities"], "a message has more than 1024 capabilities", 128);
    attack(Own, &["yourself"], "refused: the host ended the session", 0);
}

#[test]
fn those_who_have_children_without_end() {
    // A child has some 300 KiB of its own, and its pipes.
    attack(Own, &["fork-chain"], "the limit `depth` is reached, which is 8", 128);
    // There is room again when the other has ended.
    let full = "the limit `children` is reached, which is 256 or killed or there is room again";
    // Not with the host of its parent: then these are the children of that one, which has left no room for others.
    attack(Own, &["fork-fan"], full, 256);
    // What is left of those that have ended is memory for as long as it is kept.
    let full = "the limit `children` is reached, which is 256 or the limit `memory` is reached or killed";
    attack(Own, &["fork-zombies"], full, 256);
    attack(Handed(&[]), &["fork-zombies"], full, 256);
    attack(Own, &["fork-arguments"], "`args` has more than 524288 bytes, which are allowed", 384);
}

#[test]
fn those_who_load_programs_without_end() {
    // Each takes some 20 MiB of the host, and is counted as six times as much.
    attack(Own, &["fork-programs"], "the limit `memory` is reached, which is 1GiB", 512);
}

#[test]
fn those_who_make_no_sense() {
    let image = hostile_image();
    let kinds = finish(ww_run(image.path(), &["--"]).args(["malformed"])).expect(0).stdout;
    let mut said = String::new();
    for kind in kinds.split_whitespace() {
        let done = finish(ww_run(image.path(), &["--"]).args(["malformed", kind])).expect(0);
        let is_told = done.stderr.contains("the session with the guest was ended: ");
        assert!(done.stderr.is_empty() || is_told, "{kind}: {}", done.stderr);
        said += &format!("{kind}: {}", done.stdout);
    }
    insta::assert_snapshot!(said);
    for kind in ["random", "segments", "huge-list", "deep", "amplified", "finish-unknown", "disembargo-sender"] {
        // Most of it is what the attackers make their messages of.
        attack(Own, &["malformed", kind], "the host ended the session", 192);
        attack(Handed(&[]), &["malformed", kind], "the host ended the session", 192);
    }
    for number in ["1", "77", "4294967295"] {
        attack(Own, &["guess", number], "Message target is not a current export ID", 0);
        attack(Handed(&[]), &["guess", number], "Message target is not a current export ID", 0);
    }
}

/// One that has files attacks by itself, beside two children.
#[track_caller]
fn among(options: &[&str], attack: &str, memory_mib: u64) -> String {
    let seen = watch(&hostile_image(), options, &["among", SELF, "1", "--", attack]);
    let most = BASE_MIB + memory_mib;
    assert!(seen.memory_mib <= most, "{attack}: the host had {} MiB and may have {most}", seen.memory_mib);
    let end = seen.said.find("\nneighbour: ").unwrap();
    seen.said[..end].trim_start_matches("attacker: exit code 0 — ").to_owned()
}

#[test]
fn those_who_fill_tmp() {
    // What is in `/tmp` takes what it is counted as, and its nodes somewhat less.
    let full = among(&[], "tmp-bytes", 96);
    assert!(full.starts_with("refused: after 63"), "{full}");
    let small = among(&["--limit", "tmp=1MiB"], "tmp-bytes", 16);
    assert!(small.starts_with("refused: after 0"), "{small}");
    for attack in ["tmp-files", "tmp-names"] {
        let full = among(&[], attack, 96);
        assert!(full.contains("No space left on device"), "{full}");
    }
    let deep = among(&[], "tmp-deep", 32);
    assert!(deep.contains("by path after 1024") && deep.contains("step by step after 1023"), "{deep}");
    assert!(among(&[], "tmp-sparse", 0).contains("holes are read as zeros, and files have an end"));
    // Listings count as memory.
    let image = hostile_image();
    let listed = finish(ww_run(image.path(), &["--limit", "memory=64MiB", "--"]).args(["listings"]));
    let said = listed.stdout + &listed.stderr;
    assert!(said.contains("insufficient-memory"), "{said}");
}

#[test]
fn those_who_open_what_is_not_theirs() {
    insta::assert_snapshot!(among(&[], "paths", 0));
    insta::assert_snapshot!(among(&[], "file-lengths", 0));
    let opened =
        finish(ww_run(hostile_image().path(), &["--limit", "handles=64", "--"]).args(["open-files"])).expect(134);
    assert!(opened.stderr.contains("the limit `handles` is reached, which is 64"), "{}", opened.stderr);
}

/// Where a process may have few files open, a cell does not get the last of them.
#[test]
fn those_who_open_all_that_can_be_opened() {
    let image = hostile_image();
    let mut open = ww_run(image.path(), &["--"]);
    let args = ["among", SELF, "1", "--", "open-files"];
    open.args(args);
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -n 300 && exec "$0" "$@""#]).arg(open.get_program()).args(open.get_args());
    for (name, value) in open.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let seen = watch_command(command, &args);
    assert!(seen.said.contains("insufficient-memory"), "{}", seen.said);
}

/// A program with this core module, whose `run` is called.
fn program(module: &str, instances: usize) -> Vec<u8> {
    let more = "(core instance (instantiate $m))".repeat(instances - 1);
    let text = format!(
        r#"(component
        (core module $m {module})
        {more}
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (component $c (import "f" (func $f (result (result)))) (export "run" (func $f)))
        (instance $r (instantiate $c (with "f" (func $run))))
        (export "wasi:cli/run@0.2.0" (instance $r)))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn those_that_no_compiler_makes() {
    let run = r#"(func (export "run") (result i32) i32.const 0)"#;
    let grow = r#"(table $t 1 funcref)
        (func (export "run") (result i32)
            (loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 100000)) (i32.const -1))))
            i32.const 1)"#;
    let fill = r#"(table $t 4000000 funcref)
        (func (export "run") (result i32)
            (loop (table.fill $t (i32.const 0) (ref.null func) (i32.const 4000000)) (br 0)) i32.const 1)"#;
    let memory = format!("(memory 1) {run}");
    let globals = "(global i32 (i32.const 7))".repeat(100_000) + run;
    for (text, instances, outcome, memory_mib) in [
        (grow, 1, "exit code 1 or killed", 1024),
        (fill, 1, "killed", 160),
        (memory.as_str(), 33, "resource limit exceeded: memory count too high at 33", 0),
        (run, 257, "resource limit exceeded: instance count too high at 257", 0),
        // Three megabytes for each, of which 64 may be.
        (globals.as_str(), 64, "resource limit exceeded: instance count too high at 21", 192),
    ] {
        let image = hostile_image();
        fs::write(image.path().join("bin/odd.wasm"), program(text, instances)).unwrap();
        attack_with(&image, "/bin/odd.wasm", Own, &[], outcome, memory_mib);
    }
}

#[test]
fn what_an_error_quotes_is_escaped() {
    let name = r"\1b[2J\1b]0;title\07\c2\9b31m";
    let text = format!(r#"(func $"{name}" unreachable) (func (export "run") (result i32) call $"{name}" i32.const 0)"#);
    let image = TempDir::new().unwrap();
    fs::create_dir(image.path().join("bin")).unwrap();
    fs::write(image.path().join("bin/main.wasm"), program(&text, 1)).unwrap();
    let done = finish(&mut ww_run(image.path(), &[])).expect(134);
    assert!(done.stderr.contains(r"\u{1b}[2J"), "{}", done.stderr);
    let is_bad = |character: char| character.is_control() && character != '\n';
    assert!(!done.stderr.contains(is_bad), "{:?}", done.stderr);
    // In the log as well, where a peer says why it goes.
    let image = hostile_image();
    let mut command = ww_run(image.path(), &["--", "malformed", "abort"]);
    let child = command.env("RUST_LOG", "ww=trace").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let done = collect(child).expect(0);
    assert!(done.stderr.contains(r"abort: \u{1b}[2J") && !done.stderr.contains(is_bad), "{:?}", done.stderr);
}
