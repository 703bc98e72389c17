//! Children of a cell: they run on their own, and what they do or leave undone stays their own affair.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::{finish, finish_with, probe, probe_image, wait, ww_run};

const PROBE: &str = "/bin/probe.wasm";
const CHILD_ECHO: &str = "/bin/child-echo.wasm";

/// Runs a behaviour of the probe that says itself whether the host did right.
#[track_caller]
fn ok(args: &[&str]) -> String {
    let done = probe(args).expect(0);
    let said = done.stdout.lines().any(|line| line.starts_with("ok: "));
    assert!(said, "--- stdout\n{}\n--- stderr\n{}", done.stdout, done.stderr);
    done.stdout
}

#[test]
fn the_streams_of_a_child_are_its_parents_to_use() {
    let image = probe_image();
    let mut command = ww_run(image.path(), &["--", "spawn", CHILD_ECHO]);
    let done = finish_with(&mut command, b"through\n".to_vec()).expect(0);
    assert_eq!(done.stdout, "through\nok: exit code 0\n");
    assert_eq!(done.stderr, "hello from child-echo\n");
}

#[test]
fn a_child_has_its_arguments_and_nothing_of_its_parent() {
    let image = probe_image();
    let done = finish(&mut ww_run(image.path(), &["--", "spawn", PROBE, "args", "a b", "--x"])).expect(0);
    assert_eq!(done.stdout, "\"main.wasm\"\n\"args\"\n\"a b\"\n\"--x\"\nok: exit code 0\n");
    let done = finish(&mut ww_run(image.path(), &["--env", "SECRET=1", "--", "spawn", PROBE, "env"])).expect(0);
    assert_eq!(done.stdout, "ok: exit code 0\n");
    let done = finish(&mut ww_run(image.path(), &["--", "spawn", PROBE, "files", "/", "/bin/main.wasm"])).expect(0);
    assert_eq!(done.stdout, "/: folder: tmp\n/bin/main.wasm: entity not found\nok: exit code 0\n");
}

#[test]
fn the_status_of_a_child_is_exact() {
    for code in ["0", "1", "3", "134", "200", "255"] {
        assert!(ok(&["spawn", PROBE, "exit", code]).ends_with(&format!("ok: exit code {code}\n")));
    }
    let trapped = ok(&["spawn", PROBE, "deep-trap"]);
    assert!(trapped.contains("ok: trap: ") && trapped.contains("unreachable"), "{trapped}");
}

#[test]
fn ten_children_live_at_once() {
    ok(&["spawn-many", PROBE, "10"]);
}

#[test]
fn a_hundred_children_live_at_once() {
    ok(&["spawn-many", PROBE, "100"]);
}

#[test]
fn a_mebibyte_goes_through_a_child_whose_stderr_is_full() {
    ok(&["stderr-full", PROBE]);
}

#[test]
fn a_child_that_spins_can_be_killed() {
    ok(&["kill-spinning", PROBE]);
}

#[test]
fn a_child_that_waits_in_a_host_call_can_be_killed() {
    ok(&["kill-blocked", PROBE]);
}

#[test]
fn children_that_spin_stop_nobody() {
    ok(&["beside-spinning", PROBE, "10", "200"]);
}

#[test]
fn a_status_can_be_waited_for_again() {
    ok(&["wait-twice", PROBE]);
    ok(&["wait-dropped", PROBE]);
}

#[test]
fn children_end_with_their_parent() {
    ok(&["abandon", PROBE]);
    // Three levels: the one in the middle ends while its children sleep for ever and the root lives on.
    let image = probe_image();
    let mut command = ww_run(image.path(), &["--", "nest", PROBE]);
    let mut root =
        command.env("RUST_LOG", "ww::host=debug").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(root.stderr.take().unwrap());
    let mut said = String::new();
    while !["root/0/0", "root/0/1"].iter().all(|cell| said.contains(&format!("ended cell=\"{cell}\""))) {
        assert_ne!(log.read_line(&mut said).unwrap(), 0, "the root ended, and its grandchildren had not: {said}");
    }
    drop(root.stdin.take());
    assert!(wait(&mut root).success());
}

#[test]
fn a_guest_that_calls_and_never_reads_is_held_up() {
    let image = probe_image();
    let mut flooding = ww_run(image.path(), &["--", "flood-rpc"]).spawn().unwrap();
    // The host takes no more once its answers are not read, so the memory it uses stops growing.
    let mut sizes = Vec::new();
    while sizes.len() < 20 || sizes[sizes.len() - 10..].iter().any(|size| *size != sizes[sizes.len() - 1]) {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let size = resident_kib(flooding.id());
        assert!(size < 512 * 1024, "the host uses {size} KiB");
        sizes.push(size / 1024);
    }
    flooding.kill().unwrap();
    flooding.wait().unwrap();
}

/// How much memory a process has, from `/proc/PID/statm`.
fn resident_kib(pid: u32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64 / 1024
}

#[test]
fn a_child_that_floods_what_nobody_reads_stops_nobody() {
    ok(&["never-read", PROBE]);
}

#[test]
fn streams_keep_their_promises() {
    for promise in ["huge-read", "read-after-close", "half-close", "broken-pipe", "output-after-end", "wrong-direction"]
    {
        ok(&[promise, PROBE]);
    }
}

#[test]
fn bytes_that_are_no_program_are_an_error_of_that_call() {
    insta::assert_snapshot!(ok(&["run-garbage"]));
}

#[test]
fn an_environment_entry_without_a_name_is_an_error() {
    insta::assert_snapshot!(ok(&["bad-env"]));
}

#[test]
fn half_a_million_calls_do_not_stall() {
    ok(&["roundtrips", "500000"]);
}

#[test]
fn calls_can_be_in_flight_together() {
    ok(&["pipelined", "20000", "64"]);
}

#[test]
fn a_malformed_message_ends_the_connection_and_nothing_else() {
    for kind in ["garbage", "segments", "nonsense", "huge", "truncated", "chain"] {
        let said = ok(&["malformed-rpc", kind]);
        assert_eq!(said.lines().count(), 1, "something else is on stdout: {said}");
    }
    ok(&["close-rpc"]);
}

#[test]
fn a_child_that_breaks_the_protocol_leaves_its_parent_alone() {
    for kind in ["garbage", "huge", "chain"] {
        let said = ok(&["spawn", PROBE, "malformed-rpc", kind]);
        assert!(said.ends_with("ok: exit code 0\n"), "{said}");
    }
}
