//! `ww run`: what a guest gets, and how a run ends.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{
    collect, finish, finish_with, guest, image, image_of, probe, probe_image, redact, root, wait, ww, ww_run,
};

/// Sends a signal, such as `INT`, to a running process.
fn send_signal(child: &Child, signal: &str) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
}

/// The status file's content as JSON.
fn status_of(args: &[&str]) -> serde_json::Value {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("status.json");
    let image = probe_image();
    finish(ww_run(image.path(), &["--status-file", file.to_str().unwrap(), "--"]).args(args));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn demo() {
    let done = finish(&mut ww_run(&root().join("examples/images/pid0"), &[])).expect(0);
    insta::assert_snapshot!(redact(&done.stdout));
    assert_eq!(done.stderr, "");
}

#[test]
fn exit_codes_survive() {
    for code in [0, 1, 2, 3, 125, 126, 134, 200, 255] {
        probe(&["exit", &code.to_string()]).expect(code);
    }
}

#[test]
fn std_knows_only_success_and_failure() {
    probe(&["std-exit", "0"]).expect(0);
    probe(&["std-exit", "7"]).expect(1);
}

#[test]
fn an_error_of_main_is_shown_and_a_failure() {
    let done = probe(&["return-error"]).expect(1);
    assert_eq!(done.stderr, "error: the outer error\ncaused by: the inner error\n");
}

#[test]
fn a_trap_has_its_code_and_a_backtrace() {
    let done = probe(&["trap"]).expect(134);
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains("wasm trap: wasm `unreachable` instruction executed"), "{}", done.stderr);
    assert!(done.stderr.contains("wasm backtrace:"), "{}", done.stderr);
}

#[test]
fn a_panic_is_shown_and_a_trap() {
    let done = probe(&["panic"]).expect(134);
    assert!(done.stderr.contains("panicked at") && done.stderr.contains("the probe panics"), "{}", done.stderr);
    assert!(done.stderr.contains("wasm backtrace:"), "{}", done.stderr);
}

#[test]
fn a_stack_overflow_is_a_trap() {
    let done = probe(&["overflow-stack"]).expect(134);
    // A Rust guest's own stack lies in its memory, below everything else, so it runs out of that first.
    assert!(done.stderr.contains("ending::fall"), "{}", done.stderr);
    assert!(done.stderr.contains("wasm trap: out of bounds memory access"), "{}", done.stderr);
}

#[test]
fn wasm_debug_shows_files_and_lines() {
    let image = probe_image();
    let without = finish(&mut ww_run(image.path(), &["--", "deep-trap"])).expect(134);
    assert!(!without.stderr.contains(".rs:"), "{}", without.stderr);
    let with = finish(&mut ww_run(image.path(), &["--wasm-debug", "--", "deep-trap"])).expect(134);
    for function in ["inner", "middle", "outer"] {
        let line = with.stderr.lines().skip_while(|line| !line.ends_with(&format!(" - {function}"))).nth(1);
        assert!(line.is_some_and(|line| line.contains("ending.rs:")), "no line of {function} in\n{}", with.stderr);
    }
}

#[test]
fn arguments_arrive_as_they_are() {
    let done = probe(&["args", "--help", "a b", "", "--", "-x"]).expect(0);
    assert_eq!(done.stdout, "\"main.wasm\"\n\"args\"\n\"--help\"\n\"a b\"\n\"\"\n\"--\"\n\"-x\"\n");
}

/// By its name a program can tell what it is to do.
#[test]
fn the_first_argument_is_what_is_said() {
    let image = probe_image();
    for name in ["sha256sum", "", "/usr/bin/a b"] {
        let done = finish(&mut ww_run(image.path(), &["--arg0", name, "--", "args"])).expect(0);
        assert_eq!(done.stdout, format!("{name:?}\n\"args\"\n"));
    }
}

#[test]
fn options_stand_before_or_after_the_image() {
    let image = probe_image();
    let path = image.path().to_str().unwrap();
    for args in [
        vec!["-q", "run", "--port", "0", "--env", "A=1", path, "--", "env"],
        vec!["-q", "run", path, "--port", "0", "--env", "A=1", "--", "env"],
        vec!["run", path, "-q", "--env=A=1", "--port=0", "--", "env"],
    ] {
        assert_eq!(finish(&mut ww(&args)).expect(0).stdout, "A=1\n");
    }
}

#[test]
fn the_environment_is_what_was_given() {
    let image = probe_image();
    let mut command = ww_run(image.path(), &["--env", "B=x=y", "--env", "A=", "--", "env"]);
    let done = finish(command.env("SECRET", "1")).expect(0);
    assert_eq!(done.stdout, "A=\nB=x=y\n");
    for wrong in ["A", "=x"] {
        let done = finish(&mut ww_run(image.path(), &["--env", wrong])).expect(125);
        assert!(done.stderr.contains("NAME=VALUE"), "{}", done.stderr);
    }
}

#[test]
fn stray_words_and_options_are_errors() {
    let image = probe_image();
    for wrong in ["word", "--unknown", "-x"] {
        let done = finish(&mut ww_run(image.path(), &[wrong])).expect(125);
        assert!(done.stderr.contains(wrong) && done.stderr.contains("follow `--`"), "{}", done.stderr);
    }
    finish(&mut ww(&["run"])).expect(125);
    finish(&mut ww(&["rum"])).expect(2);
    finish(&mut ww(&[])).expect(2);
}

#[test]
fn stdin_is_streamed_to_its_end() {
    let image = probe_image();
    let done = finish_with(&mut ww_run(image.path(), &["--", "cat"]), b"abc".to_vec()).expect(0);
    assert_eq!(done.stdout, "abc");
    let done = finish(&mut ww_run(image.path(), &["--", "cat"])).expect(0);
    assert_eq!(done.stdout, "");
    let bytes: Vec<u8> = (0..8_000_000u32).flat_map(u32::to_le_bytes).collect();
    let mut command = ww_run(image.path(), &["--", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let expected = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let mut received = Vec::new();
    stdout.read_to_end(&mut received).unwrap();
    writer.join().unwrap();
    assert!(received == expected);
    assert!(wait(&mut child).success());
}

#[test]
fn what_the_guest_does_not_read_stays_unread() {
    let image = probe_image();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"a\nb\n").unwrap();
    drop(writer);
    let status = ww_run(image.path(), &["--", "no-read"]).stdin(reader.try_clone().unwrap()).status().unwrap();
    assert!(status.success());
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "a\nb\n");
}

#[test]
fn an_open_stdin_does_not_hold_up_the_end() {
    let image = probe_image();
    let (_writer_kept_open, stdin) = {
        let (reader, writer) = std::io::pipe().unwrap();
        (writer, reader)
    };
    let mut child = ww_run(image.path(), &["--", "no-read"]).stdin(stdin).spawn().unwrap();
    assert!(wait(&mut child).success());
}

#[test]
fn a_closed_stdout_ends_a_guest_that_floods_it() {
    let image = probe_image();
    let mut command = ww_run(image.path(), &["--", "flood-stdout"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let done = collect(child);
    assert!(done.code.is_some(), "ended by a signal");
    assert!(!done.stderr.contains("panicked") && !done.stderr.contains("backtrace"), "{}", done.stderr);
}

/// A pipe with a name whose writers have gone before anybody reads it: what they wrote is there, and then its end.
#[test]
fn a_named_pipe_ends() {
    let (image, dir) = (probe_image(), tempfile::tempdir().unwrap());
    let path = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let writer = std::thread::spawn({
        let path = path.clone();
        move || fs::write(path, "hello\n").unwrap()
    });
    let stdin = fs::File::open(&path).unwrap();
    writer.join().unwrap();
    let done = finish(ww_run(image.path(), &["--", "copy"]).stdin(stdin)).expect(0);
    assert_eq!(done.stdout, "hello\n");
}

/// A log that nobody reads: what `ww` has to say itself finds no room in it.
#[test]
fn a_full_stderr_does_not_keep_a_signal_waiting() {
    let image = image_of("hostile");
    let dir = tempfile::tempdir().unwrap();
    let status = dir.path().join("status.json");
    let mut command = ww_run(image.path(), &["--limit", "wall-time=300ms", "--status-file", status.to_str().unwrap()]);
    command.args(["--", "flood-stderr"]).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stderr = child.stderr.take();
    // It is soon full, and after the limit `ww` has to say so; whenever the signal comes, it ends.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(child.try_wait().unwrap(), None, "it waits for room");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert_eq!(wait(&mut child).code(), Some(124));
    assert!(fs::read_to_string(&status).unwrap().contains("wall-time"));
    drop(stderr);
}

#[test]
fn too_few_open_files_are_said() {
    let image = image_of("child-echo");
    for (files, code) in [(10, 125), (191, 125), (192, 0)] {
        let run = ww_run(image.path(), &[]);
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("ulimit -n {files}; exec \"$@\""), "sh"])
            .arg(run.get_program())
            .args(run.get_args());
        for (name, value) in run.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        let done = finish(shell.stdin(Stdio::null())).expect(code);
        assert_eq!(done.stderr.contains("`ulimit -n` sets another limit"), code != 0, "{}", done.stderr);
    }
}

/// The error of the guest is one that does not say why.
#[test]
fn a_full_tmp_is_said() {
    let image = probe_image();
    let run = |limits: &[&str]| {
        let mut command = ww(&["run", "--listen", "none"]);
        finish(command.arg(image.path()).args(limits).args(["--", "fill", "/tmp/x", "2097152"]))
    };
    let done = run(&["--limit", "tmp=1MiB"]).expect(0);
    let said =
        "the guest was refused room in /tmp: the limit `tmp` is reached, which is 1MiB; `--limit tmp=…` sets another";
    assert!(done.stderr.contains(said), "{}", done.stderr);
    assert!(!run(&[]).expect(0).stderr.contains("refused"));
}

#[test]
fn the_image_is_the_read_only_root() {
    let (probe, text) = (guest("probe"), root().join("images/shell/etc/motd"));
    let image = image(&[("bin/main.wasm", &probe), ("etc/motd", &text)]);
    let dir = image.path();
    fs::create_dir(dir.join("b")).unwrap();
    symlink("..", dir.join("b/up")).unwrap();
    symlink("../../../../etc/passwd", dir.join("escape")).unwrap();
    symlink("/etc/motd", dir.join("absolute")).unwrap();
    let motd = fs::read_to_string(&text).unwrap();
    let paths = [
        "/",
        "/etc/motd",
        "etc/motd",
        "/b/up/etc/motd",
        "/missing",
        "/absolute",
        "/escape",
        "/../etc/passwd",
        "../../../../../../etc/passwd",
        "/proc/self/environ",
    ];
    let done = finish(ww_run(dir, &["--", "files"]).args(paths)).expect(0);
    insta::assert_snapshot!(done.stdout);
    for path in ["/new", "/etc/motd", "/bin/main.wasm", "/b"] {
        finish(&mut ww_run(dir, &["--", "write-file", path])).expect(0);
    }
    assert_eq!(fs::read_to_string(dir.join("etc/motd")).unwrap(), motd);
    assert!(!dir.join("new").exists());
}

#[test]
fn signals_end_a_guest_whatever_it_does() {
    let image = probe_image();
    for behaviour in ["spin", "sleep-forever", "cat"] {
        for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
            let dir = tempfile::tempdir().unwrap();
            let status = dir.path().join("status");
            let mut command = ww_run(image.path(), &["--status-file", status.to_str().unwrap(), "--", behaviour]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            // Each says something when it is there: two by themselves, `cat` by copying this line.
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(b"there\n").unwrap();
            let mut stdout = BufReader::new(child.stdout.take().unwrap());
            assert_ne!(stdout.read_line(&mut String::new()).unwrap(), 0, "{behaviour} did not start");
            send_signal(&child, signal);
            let ended = wait(&mut child);
            assert_eq!((ended.code(), ended.signal()), (Some(code), None), "{behaviour} {signal}");
            let status: serde_json::Value = serde_json::from_slice(&fs::read(status).unwrap()).unwrap();
            assert_eq!(status["status"], "stopped");
            assert_eq!(status["signal"], format!("SIG{signal}"));
        }
    }
}

#[test]
fn the_status_file_tells_what_the_code_does_not() {
    let exited = status_of(&["exit", "134"]);
    assert_eq!(exited, serde_json::json!({ "status": "exited", "code": 134 }));
    let trapped = status_of(&["trap"]);
    assert_eq!((&trapped["status"], &trapped["code"]), (&"trapped".into(), &134.into()));
    assert!(trapped["trap"].as_str().unwrap().contains("unreachable"));
}

#[test]
fn a_status_file_that_cannot_be_written_is_an_error() {
    let image = probe_image();
    let done = finish(&mut ww_run(image.path(), &["--status-file", "/nowhere/status", "--", "exit", "0"])).expect(125);
    assert!(done.stderr.contains("/nowhere/status"), "{}", done.stderr);
    // Before anything runs.
    let done = finish(&mut ww_run(image.path(), &["--status-file", "/nowhere/status", "--", "args"])).expect(125);
    assert_eq!(done.stdout, "");
}

#[test]
fn a_status_file_takes_the_place_of_files_only() {
    let image = probe_image();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    fs::write(at("file"), "of an earlier run").unwrap();
    symlink("file", at("link")).unwrap();
    symlink("pipe", at("to-pipe")).unwrap();
    let run = |path: &Path, more: &[&str]| {
        let mut command = ww_run(image.path(), more);
        finish(command.arg("--status-file").arg(path).args(["--", "args"]))
    };
    for path in ["pipe", "to-pipe", "."] {
        let done = run(&at(path), &[]).expect(125);
        assert!(done.stderr.contains("is no regular file; give the path of a file, which is replaced whole"));
        assert_eq!(done.stdout, "");
    }
    assert!(!fs::metadata(at("pipe")).unwrap().is_file());
    run(Path::new("-"), &[]).expect(125);
    run(&at("link"), &[]).expect(0);
    assert!(at("link").is_symlink());
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "{\"code\":0,\"status\":\"exited\"}\n");
    let identity = at("identity");
    let done = run(&identity, &["--identity", identity.to_str().unwrap()]).expect(125);
    assert!(done.stderr.contains("is a file of --identity"), "{}", done.stderr);
    run(&image.path().join("bin/main.wasm"), &[]).expect(125);
    run(&at("other"), &["--identity", identity.to_str().unwrap()]).expect(0);
}

/// Whoever reads the file does not take an earlier run's for this one's.
#[test]
fn a_status_file_tells_of_a_wrong_command_line() {
    let image = probe_image();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("status");
    fs::write(&file, "of an earlier run").unwrap();
    let mut command = ww(&["-C", dir.path().to_str().unwrap(), "run", "--status-file", "status"]);
    finish(command.arg(image.path()).args(["--limit", "speed=1"])).expect(125);
    let status: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!((&status["status"], &status["code"]), (&"failed".into(), &125.into()));
    assert!(status["error"].as_str().unwrap().contains("`speed` is no limit"), "{status}");
}

#[test]
fn a_node_need_not_listen() {
    let image = probe_image();
    let mut command = ww(&["run", "--listen", "none"]);
    // It asks for the node's addresses, and so for the node.
    let done = finish(command.arg(image.path()).args(["--", "hold-peers"])).expect(0);
    assert!(!done.stderr.contains("listens"), "{}", done.stderr);
    let both = ["--listen", "none", "--listen", "/ip4/127.0.0.1/tcp/0"];
    finish(ww(&["run"]).arg(image.path()).args(both)).expect(125);
}

#[test]
fn flags_of_other_tools_are_translated() {
    let image = probe_image();
    let said = |args: &[&str]| finish(&mut ww_run(image.path(), args)).expect(125).stderr;
    assert!(said(&["--volume", "m:/d"]).contains("--mount SRC:DST[:rw]"));
    let network = said(&["--allow-net"]);
    assert!(network.contains("--grant network") && !network.contains("--allow-plain-http"), "{network}");
    assert!(finish(&mut ww(&["rnu"])).expect(2).stderr.contains("`ww run`"));
    let mut command = ww(&["inspect", "a", "--profile"]);
    let done = finish(command.arg(std::ffi::OsStr::from_bytes(b"x\xffy"))).expect(2);
    assert!(done.stderr.contains("Not UTF-8: x\\xffy"), "{}", done.stderr);
}

/// Runs an image whose `bin/main.wasm` is made by `prepare`, and returns the exit code and what was said.
fn refused(prepare: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    prepare(&dir.path().join("bin/main.wasm"));
    let done = finish(&mut ww_run(dir.path(), &[]));
    assert_eq!(done.stdout, "");
    let said = done.stderr.replace(dir.path().to_str().unwrap(), "IMAGE");
    format!("exit code {}\n{said}", done.code.unwrap())
}

#[test]
fn what_cannot_be_run_is_said() {
    let write = |bytes: &'static [u8]| move |program: &Path| fs::write(program, bytes).unwrap();
    let wat = |text: &'static str| move |program: &Path| fs::write(program, wat::parse_str(text).unwrap()).unwrap();
    let mut said = String::new();
    let mut case = |name: &str, refusal: String| said.push_str(&format!("## {name}\n{refusal}\n"));

    case("no program", refused(|_| ()));
    case("an empty file", refused(write(b"")));
    case("a text file", refused(write(b"#!/bin/sh\necho hello\n")));
    case("a core module", refused(write(b"\0asm\x01\0\0\0")));
    case("an empty component", refused(write(b"\0asm\x0d\0\x01\0")));
    case("an unknown kind of wasm", refused(write(b"\0asm\x0d\0\x09\0")));
    case("a folder", refused(|program| fs::create_dir(program).unwrap()));
    case("a dangling link", refused(|program| symlink("gone.wasm", program).unwrap()));
    case("a link out of the image", refused(|program| symlink("/etc/passwd", program).unwrap()));
    case(
        "a library",
        refused(wat(r#"(component (instance $none) (export "acme:tools/hammer@1.0.0" (instance $none)))"#)),
    );
    case(
        "an import that no host has",
        refused(wat(r#"(component (import "acme:door/open@1.0.0" (instance (export "push" (func)))))"#)),
    );
    insta::assert_snapshot!(said);
}

#[test]
fn a_truncated_component_is_refused() {
    let whole = fs::read(guest("child-echo")).unwrap();
    for size in [9, 100, whole.len() / 2, whole.len() - 1] {
        let said = refused(|program| fs::write(program, &whole[..size]).unwrap());
        assert!(said.starts_with("exit code 126\n"), "{said}");
        assert!(said.contains("IMAGE/bin/main.wasm cannot be run"), "{said}");
        assert!(said.contains("not a valid component") || said.contains("does not export"), "{said}");
    }
}

#[test]
fn what_is_not_an_image_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "text").unwrap();
    symlink("gone", at("link")).unwrap();
    let said = |path: &Path| {
        let done = finish(&mut ww_run(path, &[]));
        format!("exit code {}\n{}", done.code.unwrap(), done.stderr.replace(dir.path().to_str().unwrap(), "DIR"))
    };
    let said: Vec<_> =
        [at("missing"), at("file"), at("link"), at("a\x1b[31mb")].iter().map(|path| said(path)).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_busy_port_is_an_error_only_when_it_was_asked_for() {
    let image = image_of("child-echo");
    let holder = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let mut command = ww(&["-q", "run", "--port", &port]);
    let done = finish(command.arg(image.path())).expect(125);
    assert!(done.stderr.contains(&port), "{}", done.stderr);
    assert_eq!(done.stdout, "");
}

#[test]
fn where_the_node_listens_is_a_line_of_its_own() {
    let image = probe_image();
    let mut command = ww(&["run", "--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
    // It asks for the node's addresses, and so for the node.
    let done = finish(command.arg(image.path()).args(["--", "hold-peers"])).expect(0);
    let said = "the node listens at /ip4/127.0.0.1/tcp/<port>/p2p/<id> and 1 more, which -v lists\n";
    assert!(redact(&done.stderr).starts_with(said), "{}", done.stderr);
    let quiet = finish(&mut ww_run(image.path(), &["--", "hold-peers"])).expect(0);
    assert!(!quiet.stderr.contains("listens"), "{}", quiet.stderr);
}

#[test]
fn the_log_shows_each_rpc_message() {
    let image = image_of("child-echo");
    let done = finish(ww_run(image.path(), &[]).env("RUST_LOG", "ww=trace")).expect(0);
    for message in ["received bootstrap: question 0", "received call: ", "sent return: answer ", "received release: "] {
        assert!(done.stderr.contains(message), "no `{message}` in\n{}", done.stderr);
    }
    assert_eq!(done.stdout, "");
}

#[test]
fn help_and_version_are_results() {
    let help = finish(&mut ww(&["run", "--help"])).expect(0);
    insta::assert_snapshot!(help.stdout);
    assert_eq!(help.stderr, "");
    let version = finish(&mut ww(&["--version"])).expect(0);
    assert_eq!(version.stdout, format!("ww {}\n", env!("CARGO_PKG_VERSION")));
}
