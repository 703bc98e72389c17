//! What a cell may touch, and what it may use up.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use crate::support::{Done, finish, probe_image, wait, ww, ww_run};

/// An address that nobody listens on, and an id that nobody has.
const NOBODY: [&str; 2] = ["12D3KooWJ5fPPfXZS8SuoJy1qG6f1Pq4igfUuzDp9vxYiZssqp4o", "/ip4/127.0.0.1/tcp/1"];

/// Runs the probe with options of `ww run` and arguments of its own.
fn run(options: &[&str], args: &[&str]) -> Done {
    let image = probe_image();
    finish(ww_run(image.path(), options).arg("--").args(args))
}

/// An image that asks for something.
fn asking(request: &str) -> tempfile::TempDir {
    let image = probe_image();
    fs::create_dir_all(image.path().join("etc")).unwrap();
    fs::write(image.path().join("etc/cell.toml"), request).unwrap();
    image
}

#[test]
fn the_image_is_all_that_there_is() {
    let image = probe_image();
    let at = |path: &str| image.path().join(path);
    for folder in ["etc", "b", "usr"] {
        fs::create_dir(at(folder)).unwrap();
    }
    fs::write(at("etc/x"), "of the image").unwrap();
    fs::write(at("target"), "target").unwrap();
    for (link, target) in [
        ("b/up", ".."),
        ("usr/l", "/etc/x"),
        ("esc", "../../../../etc/passwd"),
        ("passwd", "/etc/passwd"),
        ("loop", "loop"),
        ("null", "/dev/null"),
    ] {
        symlink(target, at(link)).unwrap();
    }
    let paths = [
        "/etc/x",
        "/b/up/target",
        "/usr/l",
        "/esc",
        "/passwd",
        "/loop",
        "/null",
        "/../etc/passwd",
        "/etc/../../etc/passwd",
        "/dev/null",
        "/proc/self/environ",
        "/tmp",
    ];
    let done = finish(ww_run(image.path(), &["--", "files"]).args(paths)).expect(0);
    insta::assert_snapshot!(done.stdout, @r"
    /etc/x: file of 12 bytes
    /b/up/target: file of 6 bytes
    /usr/l: file of 12 bytes
    /esc: entity not found
    /passwd: entity not found
    /loop: filesystem loop or indirection limit (e.g. symlink loop)
    /null: entity not found
    /../etc/passwd: permission denied
    /etc/../../etc/passwd: permission denied
    /dev/null: entity not found
    /proc/self/environ: entity not found
    /tmp: folder: 
    ");
}

#[test]
fn a_folder_is_there_only_where_it_is_mounted() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("f"), "of the host").unwrap();
    fs::create_dir(outside.path().join("d")).unwrap();
    symlink("../f", outside.path().join("d/inside")).unwrap();
    symlink("/etc/passwd", outside.path().join("absolute")).unwrap();
    symlink("../../../../../../etc/passwd", outside.path().join("relative")).unwrap();
    let paths = ["/data/f", "/data/d/inside", "/data/absolute", "/data/relative", "/data/../data/f"];
    let grant = format!("mount:{}:/data", outside.path().display());
    let mut args = vec!["files"];
    args.extend(paths);
    insta::assert_snapshot!(run(&["--grant", &grant], &args).expect(0).stdout, @r"
    /data/f: file of 11 bytes
    /data/d/inside: file of 11 bytes
    /data/absolute: permission denied
    /data/relative: permission denied
    /data/../data/f: file of 11 bytes
    ");
    assert!(run(&[], &args).expect(0).stdout.lines().all(|line| line.ends_with(": entity not found")));

    let mount = format!("{}:/data", outside.path().display());
    run(&["--mount", &mount], &["write-file", "/data/new"]).expect(0);
    assert!(!outside.path().join("new").exists());
    // What the probe says of a folder that can be written is an error; the file is there.
    run(&["--mount", &format!("{mount}:rw")], &["write-file", "/data/new"]).expect(1);
    assert!(outside.path().join("new").exists());
}

#[test]
fn a_mount_that_cannot_be_is_told_before_anything_runs() {
    let missing = run(&["--mount", "/no/such/folder:/data"], &["args"]).expect(125);
    assert!(missing.stderr.contains("/no/such/folder that is to be mounted"), "{}", missing.stderr);
    assert_eq!(missing.stdout, "");
    let twice = run(&["--mount", "/:/data", "--mount", "/:/data"], &["args"]).expect(125);
    assert!(twice.stderr.contains("two mounts have the place `/data`"), "{}", twice.stderr);
    for (option, value, expected) in [
        ("--mount", "/:/tmp", "/tmp is the guest's own; mount below it, such as at /tmp/x"),
        ("--mount", "/:/a//b", "`/a//b` is no place for a mount: it has two slashes"),
        ("--mount", "~/x:/data", "`~` stands for itself here"),
        ("--mount", "/etc/passwd:/data", "only folders can be mounted"),
        ("--mount", "no/such:/data", "it is looked for at /"),
        ("--grant", "env:HOME,FOO", "`HOME,FOO` is no name of a variable"),
        ("--grant", "conect", "did you mean `connect`?"),
        ("--env", "FOO", "--grant env:FOO passes it on"),
        ("--limit", "tmp=64MB", "write 64MiB"),
    ] {
        let refused = run(&[option, value], &["args"]).expect(125);
        assert!(refused.stderr.contains(expected), "{value}: {}", refused.stderr);
        assert_eq!(refused.stdout, "");
    }
    run(&["--mount", "/etc:/data/"], &["args"]).expect(0);
    let relative = run(&["--mount", "/:data"], &["args"]).expect(125);
    assert!(relative.stderr.contains("is not of the form"), "{}", relative.stderr);
}

#[test]
fn what_ww_keeps_cannot_be_changed_by_a_guest() {
    let image = probe_image();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("project")).unwrap();
    let state = dir.path().join("state");
    let mounted =
        |mount: String| finish(ww_run(image.path(), &["--mount", &mount, "--", "exit", "4"]).env("WW_HOME", &state));
    // Also where it is not there yet.
    let done = mounted(format!("{}:/data:rw", dir.path().display())).expect(125);
    assert!(
        done.stderr.contains("cannot be mounted to be changed, since ww keeps its own files in"),
        "{}",
        done.stderr
    );
    assert_eq!(done.stdout, "");
    mounted(format!("{}:/data", dir.path().display())).expect(4);
    mounted(format!("{}:/data:rw", state.join("code").display())).expect(125);
    mounted(format!("{}:/data:rw", dir.path().join("project").display())).expect(4);
}

#[test]
fn nothing_is_mounted_behind_a_link_or_a_file_of_the_image() {
    let image = probe_image();
    fs::create_dir_all(image.path().join("usr/bin")).unwrap();
    symlink("usr/bin", image.path().join("programs")).unwrap();
    let mounted =
        |target: &str| finish(&mut ww_run(image.path(), &["--mount", &format!("/:{target}"), "--", "exit", "4"]));
    let done = mounted("/programs/data").expect(125);
    assert!(done.stderr.contains("since `/programs` is a link of the image to `usr/bin`"), "{}", done.stderr);
    let done = mounted("/bin/main.wasm").expect(125);
    assert!(done.stderr.contains("since `/bin/main.wasm` of the image is no folder"), "{}", done.stderr);
    for target in ["/usr/bin/data", "/bin", "/new/data"] {
        mounted(target).expect(4);
    }
}

#[test]
fn a_guest_that_is_out_of_time_ends_though_nobody_reads_it() {
    let image = probe_image();
    let mut command = ww_run(image.path(), &["--limit", "wall-time=300ms", "--", "flood-stdout"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(wait(&mut child).code(), Some(124));
}

#[test]
fn connecting_takes_a_grant() {
    let connect = |options: &[&str]| {
        let mut args = vec!["connect"];
        args.extend(NOBODY);
        run(options, &args).expect(1).stderr
    };
    let refused = connect(&[]);
    assert!(refused.contains("this cell may not connect to others; `--grant connect`"), "{refused}");
    for grants in [["--grant", "connect"], ["--grant", "connect:10.0.0.0/8"]] {
        let refused = connect(&grants);
        assert!(refused.contains("in no network that was granted; `--grant connect:NETWORK`"), "{refused}");
    }
    let tried = connect(&["--grant", "connect:127.0.0.0/8"]);
    assert!(tried.contains("Connection refused"), "{tried}");
}

#[test]
fn a_variable_of_the_environment_takes_a_grant() {
    let image = probe_image();
    let env = |options: &[&str]| {
        finish(ww_run(image.path(), options).args(["--", "env"]).env("SECRET", "1").env("OTHER", "2")).expect(0).stdout
    };
    assert_eq!(env(&[]), "");
    assert_eq!(env(&["--grant", "env:SECRET"]), "SECRET=1\n");
    assert_eq!(env(&["--grant", "env:NOT_SET"]), "");
    assert_eq!(env(&["--grant", "env:SECRET", "--env", "SECRET=mine"]), "SECRET=mine\n");
}

#[test]
fn what_an_image_asks_for_is_said_and_not_given() {
    let image = asking("cell = 1\ngrants = [\"connect\", \"env:SECRET\"]\n\n[limits]\nmemory = \"4GiB\"\n");
    let done = |options: &[&str]| {
        let mut command = ww(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        finish(command.arg(image.path()).args(options).args(["--", "env"]).env("SECRET", "1")).expect(0)
    };
    let (bare, granted) = (done(&[]), done(&["--grant", "connect", "--grant", "env:SECRET", "--limit", "memory=4GiB"]));
    let said = "--grant connect --grant env:SECRET --limit memory=4GiB";
    assert!(bare.stderr.contains(said), "{}", bare.stderr);
    assert_eq!(bare.stdout, "");
    assert!(!granted.stderr.contains("--grant"), "{}", granted.stderr);
    assert_eq!(granted.stdout, "SECRET=1\n");
}

/// An image may ask for less than it would get.
#[test]
fn an_image_may_bind_itself() {
    let image = asking("cell = 1\n\n[limits]\nmemory = \"8MiB\"\n");
    let allocate = |options: &[&str]| finish(ww_run(image.path(), options).args(["--", "allocate", "16"]));
    allocate(&[]).expect(1);
    allocate(&["--limit", "memory=64MiB"]).expect(0);
}

#[test]
fn a_malformed_request_is_an_error_before_anything_runs() {
    for (request, expected) in [
        ("cell = 2", "its format is version 2"),
        ("grants = []", "missing field `cell`"),
        ("cell = 1\ngrants = [\"root\"]", "`root` is no grant"),
        ("cell = 1\nlimits = { memory = \"1\" }", "it is less than 64KiB"),
        (&"#".repeat(65 * 1024), "at most 65536 are read"),
        ("\u{1b}[2J", "cannot be used"),
    ] {
        let image = asking(request);
        let done = finish(&mut ww_run(image.path(), &["--", "args"])).expect(126);
        assert!(done.stderr.contains(expected), "{}", done.stderr);
        assert!(!done.stderr.contains('\u{1b}'), "{:?}", done.stderr);
        assert_eq!(done.stdout, "");
    }
    // A file of a gibibyte is not read.
    let image = asking("");
    fs::File::options().write(true).open(image.path().join("etc/cell.toml")).unwrap().set_len(1 << 30).unwrap();
    let done = finish(&mut ww_run(image.path(), &["--", "args"])).expect(126);
    assert!(done.stderr.contains("1073741824 bytes"), "{}", done.stderr);
}

#[test]
fn limits_end_a_cell_and_are_named() {
    let out_of_time = run(&["--limit", "cpu-time=200ms"], &["spin"]).expect(124);
    assert!(out_of_time.stderr.contains("the limit `cpu-time` is reached, which is 200ms"), "{}", out_of_time.stderr);
    let slept = run(&["--limit", "wall-time=200ms"], &["sleep-forever"]).expect(124);
    assert!(slept.stderr.contains("the limit `wall-time` is reached"), "{}", slept.stderr);
    // A cell that sleeps does not compute.
    let slept = run(&["--limit", "wall-time=500ms", "--limit", "cpu-time=5s"], &["sleep-forever"]).expect(124);
    assert!(slept.stderr.contains("`wall-time`"), "{}", slept.stderr);

    run(&["--limit", "memory=64MiB"], &["allocate", "16"]).expect(0);
    let refused = run(&["--limit", "memory=16MiB"], &["allocate", "16"]).expect(1);
    assert!(refused.stderr.contains("no more than"), "{}", refused.stderr);
    let small = run(&["--limit", "memory=64KiB"], &["args"]).expect(134);
    assert!(
        small.stderr.contains("the limit `memory` is reached, which is 64KiB; `--limit memory=…`"),
        "{}",
        small.stderr
    );
}

#[test]
fn a_session_that_ends_for_a_limit_is_told() {
    let large = run(&["--limit", "message=64KiB"], &["spawn", "/bin/probe.wasm", "args"]).expect(1);
    let said = "the session with the guest was ended: a message has more than 64KiB, the limit `message`; \
                `--limit message=…` sets another";
    assert_eq!(large.stderr.matches(said).count(), 1, "{}", large.stderr);
}

/// A program that takes handles for ever: streams, and what waits for them.
const TAKES_HANDLES: &str = r#"
(component
  (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $stream (sub resource)))
    (alias outer 1 $pollable (type $inner))
    (export "pollable" (type $p (eq $inner)))
    (export "[method]output-stream.subscribe" (func (param "self" (borrow $stream)) (result (own $p))))))
  (alias export $streams "output-stream" (type $stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $stream (type $inner))
    (export "output-stream" (type $s (eq $inner)))
    (export "get-stdout" (func (result (own $s))))))
  (core func $get (canon lower (func $stdout "get-stdout")))
  (core func $subscribe (canon lower (func $streams "[method]output-stream.subscribe")))
  (core module $main
    (import "" "get" (func $get (result i32)))
    (import "" "subscribe" (func $subscribe (param i32) (result i32)))
    (func (export "run") (result i32)
      (loop (drop (call $subscribe (call $get))) (br 0))
      unreachable))
  (core instance $main (instantiate $main (with "" (instance
    (export "get" (func $get)) (export "subscribe" (func $subscribe))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $of-run (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $of-run)))
"#;

#[test]
fn handles_are_named_where_they_are_why_it_traps() {
    let image = tempfile::tempdir().unwrap();
    fs::create_dir(image.path().join("bin")).unwrap();
    fs::write(image.path().join("bin/main.wasm"), wat::parse_str(TAKES_HANDLES).unwrap()).unwrap();
    // The table of the host is full, or that of wasmtime, which has a place less while something is lent.
    for (limit, cause) in [(16, "resource table has no free keys"), (17, "store handle limit exceeded")] {
        let full = finish(&mut ww_run(image.path(), &["--limit", &format!("handles={limit}")])).expect(134);
        let named = format!("the limit `handles` is reached, which is {limit}; `--limit handles=…` sets another");
        assert!(full.stderr.contains(&named) && full.stderr.contains(cause), "{}", full.stderr);
    }
}

#[test]
fn a_time_that_the_image_has_set_can_be_lifted() {
    let image = asking("cell = 1\n\n[limits]\ncpu-time = \"1ms\"\n");
    finish(&mut ww_run(image.path(), &["--", "roundtrips", "2000"])).expect(124);
    finish(&mut ww_run(image.path(), &["--limit", "cpu-time=none", "--", "roundtrips", "2000"])).expect(0);
}

#[test]
fn a_variable_that_is_not_there_is_told() {
    let image = probe_image();
    let mut command = ww(&["run", "--listen", "none", "--grant", "env:NOT_SET", "--grant", "env:EMPTY"]);
    let done = finish(command.arg(image.path()).args(["--", "env"]).env("EMPTY", "")).expect(0);
    let said = "warning: the variable NOT_SET is not set, so the guest does not get it";
    assert_eq!(done.stderr.lines().filter(|line| line.contains("variable")).collect::<Vec<_>>(), [said]);
    assert_eq!(done.stdout, "EMPTY=\n");
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    for (limit, expected) in [
        ("memory", "is not of the form NAME=VALUE"),
        ("speed=1", "is no limit; there are memory"),
        ("memory=lots", "it is not a number of bytes"),
        ("memory=1TiB", "it is more than 64GiB"),
        ("depth=65", "it is more than 64"),
    ] {
        let done = run(&["--limit", limit], &["args"]).expect(125);
        assert!(done.stderr.contains(expected), "{}", done.stderr);
    }
}

#[test]
fn children_come_out_of_what_their_parent_may_use() {
    const PROBE: &str = "/bin/probe.wasm";
    run(&["--limit", "children=4"], &["spawn-many", PROBE, "4"]).expect(0);
    let many = run(&["--limit", "children=3"], &["spawn-many", PROBE, "4"]).expect(1);
    assert!(many.stderr.contains("the limit `children` is reached, which is 3"), "{}", many.stderr);
    let deep = run(&["--limit", "depth=0"], &["spawn", PROBE, "args"]).expect(1);
    assert!(deep.stderr.contains("the limit `depth` is reached, which is 0"), "{}", deep.stderr);
    let large = run(&["--limit", "wasm=1KiB"], &["spawn", PROBE, "args"]).expect(1);
    assert!(large.stderr.contains("the limit `wasm` is reached, which is 1KiB"), "{}", large.stderr);
    // The parent has some memory itself, so its child cannot have all of it.
    let hungry = run(&["--limit", "memory=24MiB"], &["spawn", PROBE, "allocate", "20"]).expect(0);
    assert!(hungry.stdout.contains("ok: exit code 1"), "{}", hungry.stdout);
    let spinning = run(&["--limit", "cpu-time=300ms"], &["spawn", PROBE, "spin"]);
    assert_ne!(spinning.code, Some(0), "a child's time is its parent's");
}

#[test]
fn a_status_file_names_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("status.json");
    run(&["--status-file", file.to_str().unwrap(), "--limit", "cpu-time=100ms"], &["spin"]).expect(124);
    let status: serde_json::Value = serde_json::from_slice(&fs::read(Path::new(&file)).unwrap()).unwrap();
    assert_eq!(status, serde_json::json!({ "status": "limit", "code": 124, "limit": "cpu-time" }));
}
