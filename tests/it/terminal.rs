//! The terminal of a run: what a guest may do to it, and that it is put back.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::pty::{Pty, is_stopped, signal, signal_group, wait_until};
use crate::support::{Done, finish, image, image_of, probe_image, wait, ww_run};

const PROBE: &str = "/bin/probe.wasm";

/// Escape sequences of all kinds, text of more than ASCII, and lines.
const HOSTILE: &[u8] =
    b"\x1b[31mred\x1b]0;title\x07\x1bP+q\x1b\\\xc2\x9b2J\x9b2J\x08\x0e gr\xc3\xb6\xc3\x9fer\t\xe5\x90\x8d\n";

/// The same, when it is shown and not obeyed.
const SHOWN: &str = "\\u{1b}[31mred\\u{1b}]0;title\\u{7}\\u{1b}P+q\\u{1b}\\\\u{9b}2J\\x9b2J\\u{8}\\u{e} größer\t名\r\n";

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn probe(image: &Path, options: &[&str], args: &[&str]) -> Command {
    let mut command = ww_run(image, options);
    command.arg("--").args(args);
    command
}

/// Runs the probe on a terminal to its end; what was shown.
#[track_caller]
fn run_on_terminal(options: &[&str], args: &[&str], code: i32) -> String {
    let (image, pty) = (probe_image(), Pty::open());
    let mut process = pty.spawn(&probe(image.path(), options, args));
    let status = wait(&mut process);
    let shown = pty.shown();
    assert_eq!(status.code(), Some(code), "{shown:?}");
    shown
}

/// Runs the probe with pipes.
fn run(options: &[&str], args: &[&str]) -> Done {
    let image = probe_image();
    finish(&mut probe(image.path(), options, args))
}

#[test]
fn what_a_terminal_would_obey_is_shown() {
    for stream in ["write-bytes", "write-bytes-to-stderr"] {
        assert_eq!(run_on_terminal(&[], &[stream, &digits(HOSTILE)], 0), SHOWN);
    }
    assert_eq!(run_on_terminal(&[], &["write-bytes", "e5"], 0), "\\xe5");
    let said = run_on_terminal(&[], &["is-terminal"], 0);
    assert_eq!(said, "stdin: false\r\nstdout: false\r\nstderr: false\r\n");
}

#[test]
fn with_the_grant_it_is_obeyed_and_reset() {
    for stream in ["write-bytes", "write-bytes-to-stderr"] {
        let image = probe_image();
        let pty = Pty::open();
        let mut process = pty.spawn(&probe(
            image.path(),
            &["--grant", "terminal"],
            &[stream, "1b5b33316d1b5b3f313034396820e5908d0a"],
        ));
        assert!(wait(&mut process).success());
        let shown = pty.shown();
        let rest = shown.strip_prefix("\x1b[31m\x1b[?1049h 名\r\n").unwrap_or_else(|| panic!("{shown:?}"));
        // The main screen, the cursor, the mouse, pasting, colours.
        for reset in ["\x1b[?1049l", "\x1b[?25h", "\x1b[?1000l", "\x1b[?1006l", "\x1b[?2004l", "\x1b[0m"] {
            assert!(rest.contains(reset), "{shown:?}");
        }
    }
    // Nothing is reset after text.
    let said = run_on_terminal(&["--grant", "terminal"], &["is-terminal"], 0);
    assert_eq!(said, "stdin: true\r\nstdout: true\r\nstderr: true\r\n");
    assert_eq!(
        run_on_terminal(&["--grant", "terminal"], &["write-bytes", &digits("größer 名\n".as_bytes())], 0),
        "größer 名\r\n"
    );
}

#[test]
fn what_is_no_terminal_gets_every_byte() {
    for options in [&[][..], &["--grant", "terminal"]] {
        let image = probe_image();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out");
        let mut command = probe(image.path(), options, &["write-bytes", &digits(HOSTILE)]);
        assert!(command.stdout(fs::File::create(&file).unwrap()).status().unwrap().success());
        assert_eq!(fs::read(&file).unwrap(), HOSTILE);
        let piped = probe(image.path(), options, &["write-bytes", &digits(HOSTILE)]).output().unwrap();
        assert_eq!(piped.stdout, HOSTILE);
        assert_eq!(run(options, &["is-terminal"]).expect(0).stdout, "stdin: false\nstdout: false\nstderr: false\n");
    }
}

#[test]
fn a_trap_is_escaped() {
    let program = r#"(component
        (core module $m (func (@name "\1b[2Jevil\c2\9b") (export "run") (result i32) unreachable))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (component $c (import "f" (func $f (result (result)))) (export "run" (func $f)))
        (instance $r (instantiate $c (with "f" (func $run))))
        (export "wasi:cli/run@0.2.0" (instance $r)))"#;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trap.wasm");
    fs::write(&file, wat::parse_str(program).unwrap()).unwrap();
    let image = image(&[("bin/main.wasm", &file)]);
    for options in [&[][..], &["--grant", "terminal"]] {
        let pty = Pty::open();
        let mut process = pty.spawn(&ww_run(image.path(), options));
        assert_eq!(wait(&mut process).code(), Some(134));
        let shown = pty.shown();
        assert!(shown.contains("\\u{1b}[2Jevil") && !shown.contains(['\x1b', '\u{9b}']), "{shown:?}");
    }
}

/// Starts the probe in raw mode, types Ctrl-C, ends it by a signal where there is one, and looks that all is as it was.
#[track_caller]
fn ends(options: &[&str], end: &str, by: Option<Signal>, code: Option<i32>) {
    let (image, pty) = (probe_image(), Pty::open());
    let before = pty.modes();
    let mut process =
        pty.spawn(&probe(image.path(), &[&["--grant", "terminal"], options].concat(), &["terminal-raw", end]));
    pty.expect("raw\r\n");
    assert!(pty.is_raw(), "{:?}", pty.modes());
    pty.type_in(b"\x03");
    pty.expect("got 3\r\n");
    if let Some(by) = by {
        pty.expect("sleeping");
        signal_group(&process, by);
    }
    assert_eq!(wait(&mut process).code(), code, "{end} {by:?}");
    if by == Some(Signal::KILL) {
        wait_until("the modes are put back", || pty.modes() == before);
        pty.expect("\x1b[?25h");
    }
    assert_eq!(pty.modes(), before, "{end} {by:?}");
    let shown = pty.shown();
    let rest = shown.split("got 3\r\n").nth(1).unwrap();
    assert!(rest.contains("\x1b[?25h") && rest.contains("\x1b[?2004l"), "{end} {by:?}: {shown:?}");
}

#[test]
fn the_terminal_is_put_back_when_the_guest_ends() {
    ends(&[], "exit", None, Some(0));
    ends(&[], "trap", None, Some(134));
    ends(&["--limit", "cpu-time=300ms"], "spin", None, Some(124));
    ends(&["--limit", "wall-time=1500ms"], "sleep", None, Some(124));
}

#[test]
fn the_terminal_is_put_back_when_the_run_is_stopped() {
    ends(&[], "sleep", Some(Signal::INT), Some(130));
    ends(&[], "sleep", Some(Signal::TERM), Some(143));
    ends(&[], "sleep", Some(Signal::HUP), Some(129));
    ends(&[], "sleep", Some(Signal::QUIT), Some(131));
}

#[test]
fn the_terminal_is_put_back_when_the_run_is_killed() {
    ends(&[], "sleep", Some(Signal::KILL), None);
}

#[test]
fn raw_mode_can_be_switched_off() {
    let (image, pty) = (probe_image(), Pty::open());
    let before = pty.modes();
    let mut process = pty.spawn(&probe(image.path(), &["--grant", "terminal"], &["terminal-raw", "off"]));
    pty.expect("raw\r\n");
    pty.type_in(b"x");
    pty.expect("cooked\r\n");
    assert_eq!(pty.modes(), before);
    pty.type_in(b"y\r");
    assert!(wait(&mut process).success());
}

#[test]
fn the_terminal_is_put_back_while_the_run_is_stopped_by_job_control() {
    let (image, pty) = (probe_image(), Pty::open());
    let before = pty.modes();
    let mut process = pty.spawn(&probe(image.path(), &["--grant", "terminal"], &["terminal-raw", "exit"]));
    pty.expect("raw\r\n");
    for _ in 0..2 {
        signal(&process, Signal::TSTP);
        wait_until("it is stopped", || is_stopped(&process));
        assert_eq!(pty.modes(), before);
        signal(&process, Signal::CONT);
        wait_until("raw mode is set again", || pty.is_raw());
    }
    pty.type_in(b"\x1a");
    pty.expect("got 26\r\n");
    assert!(wait(&mut process).success());
    assert_eq!(pty.modes(), before);
}

#[test]
fn a_run_in_the_background_is_refused_and_goes_on() {
    let (image, pty) = (probe_image(), Pty::open());
    let before = pty.modes();
    let run = probe(image.path(), &["--grant", "terminal"], &["terminal-try-raw"]);
    let words: Vec<_> = [run.get_program()].into_iter().chain(run.get_args()).collect();
    let mut shell = Command::new("sh");
    shell.args(["-c", "set -m; \"$@\" & wait $!; echo \"ended with $?\"", "sh"]).args(words);
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let mut process = pty.spawn(&shell);
    pty.expect("ended with");
    assert!(wait(&mut process).success());
    let shown = pty.shown();
    assert!(
        shown.contains("this run is in the background of its terminal") && shown.contains("ended with 0"),
        "{shown:?}"
    );
    assert_eq!(pty.modes(), before);
}

/// What was there to be read when it was in the background is not there any more when it is in the foreground: it waits, and does
/// not hold up its thread.
#[test]
fn a_run_that_was_in_the_background_ends_by_a_signal() {
    let (image, pty, dir) = (image_of("child-echo"), Pty::open(), tempfile::tempdir().unwrap());
    let run = ww_run(image.path(), &[]);
    let words: Vec<_> = [run.get_program()].into_iter().chain(run.get_args()).collect();
    let mut shell = Command::new("sh");
    let script = "set -m; \"$@\" & echo $! > \"$DIR/pid\"; while [ ! -e \"$DIR/go\" ]; do sleep 0.02; done; fg %1; \
                  echo \"ended with $?\"";
    shell.args(["-c", script, "sh"]).args(words).env("DIR", dir.path());
    let mut process = pty.spawn(&shell);
    let state = || {
        let pid = fs::read_to_string(dir.path().join("pid")).ok()?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    wait_until("it runs", || state().is_some());
    pty.type_in(b"line\n");
    wait_until("it has tried to read", || state() == Some('T'));
    pty.take_back();
    fs::write(dir.path().join("go"), "").unwrap();
    wait_until("it goes on", || state() != Some('T'));
    pty.type_in(b"\x03");
    pty.expect("ended with 130");
    wait(&mut process);
}

#[test]
fn the_size_and_its_changes_are_told() {
    let (image, pty) = (probe_image(), Pty::open());
    pty.resize(132, 43);
    let mut process = pty.spawn(&probe(image.path(), &["--grant", "terminal"], &["terminal-resized"]));
    pty.expect("before: 132 columns, 43 rows\r\n");
    pty.resize(100, 30);
    pty.expect("ok: 100 columns, 30 rows\r\n");
    assert!(wait(&mut process).success());
    assert_eq!(run_on_terminal(&["--grant", "terminal"], &["terminal-size"], 0), "ok: 80 columns, 24 rows\r\n");
}

#[test]
fn what_is_not_granted_or_not_there_is_an_error() {
    let refused = run_on_terminal(&[], &["without-terminal"], 0);
    assert!(refused.contains("this cell may not control the terminal; `--grant terminal` lets it"), "{refused}");
    let piped = run(&["--grant", "terminal"], &["terminal-try-raw"]).expect(0);
    assert!(piped.stdout.contains("standard input is no terminal"), "{}", piped.stdout);
    let piped = run(&["--grant", "terminal"], &["terminal-size"]).expect(1);
    assert!(piped.stderr.contains("none of the standard streams is a terminal"), "{}", piped.stderr);
}

#[test]
fn a_child_has_the_terminal_that_it_is_handed() {
    insta::assert_snapshot!(run_on_terminal(&["--grant", "terminal"], &["hands-on-terminal", PROBE], 0));
}

#[test]
fn an_image_asks_for_the_terminal_and_is_told() {
    let image = probe_image();
    fs::create_dir(image.path().join("etc")).unwrap();
    fs::write(image.path().join("etc/cell.toml"), "cell = 1\ngrants = [\"terminal\"]\n").unwrap();
    let mut asks = crate::support::ww(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let asks = finish(asks.arg(image.path()).args(["--", "without-terminal"])).expect(0);
    assert!(asks.stderr.contains("the image asks for what it is not given: --grant terminal"), "{}", asks.stderr);
    let inspected = finish(crate::support::ww(&["inspect"]).arg(image.path())).expect(0);
    assert!(inspected.stdout.contains("asks for terminal"), "{}", inspected.stdout);
}

#[test]
fn standard_streams_hold_what_they_may() {
    let room = |options: &[&str]| run(options, &["room"]).expect(0).stderr;
    assert_eq!(room(&[]), "room: 65536\n");
    assert_eq!(room(&["--limit", "stdio=8KiB"]), "room: 8192\n");
    assert_eq!(room(&["--limit", "stdio=1MiB"]), "room: 1048576\n");
    for (limit, expected) in [
        ("stdio=1KiB", "`1KiB` is no value for the limit stdio: it is less than 4KiB"),
        ("stdio=1GiB", "`1GiB` is no value for the limit stdio: it is more than 16MiB"),
    ] {
        let refused = run(&["--limit", limit], &["room"]).expect(125);
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    }
    insta::assert_snapshot!(run(&["--limit", "stdio=8KiB"], &["stdio-of-child", PROBE]).expect(0).stdout);
    // Whatever they hold, all goes through.
    run(&["--limit", "stdio=4KiB"], &["throughput", PROBE, "1000000"]).expect(0);
}

#[test]
fn an_image_can_ask_for_less_in_its_streams_and_not_for_more() {
    let image = probe_image();
    fs::create_dir(image.path().join("etc")).unwrap();
    let room = |request: &str| {
        fs::write(image.path().join("etc/cell.toml"), format!("cell = 1\n[limits]\nstdio = \"{request}\"\n")).unwrap();
        let mut command = crate::support::ww(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        finish(command.arg(image.path()).args(["--", "room"]))
    };
    assert!(room("16KiB").expect(0).stderr.contains("room: 16384\n"));
    let more = room("1MiB").expect(0).stderr;
    assert!(more.contains("room: 65536\n") && more.contains("--limit stdio=1MiB"), "{more}");
    let none = room("1B").expect(126).stderr;
    assert!(none.contains("`1B` is no value for the limit stdio: it is less than 4KiB"), "{none}");
}
