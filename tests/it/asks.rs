//! What images ask for, from the Wetfile to the cell, and what a user gives in a file; what a run has used.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::lock::{copying_project, run};
use crate::project::Project;
use crate::support::{Done, finish, probe_image, ww, ww_run};

const REQUEST: &str =
    "cell = 1\ngrants = [\"connect\", \"mount:/data:rw\"]\n\n[limits]\nmemory = \"2GiB\"\nchildren = 4\n";

/// A project whose image asks for something.
fn asking_project() -> Project {
    let project = copying_project();
    let asked = "out = 'out'\ngrants = ['connect', 'mount:/data:rw']\nlimits = { children = 4, memory = '2048 MiB' }\n";
    change(&project, "out = 'out'\n", asked);
    project
}

/// Changes the text of the Wetfile.
fn change(project: &Project, from: &str, to: &str) {
    let text = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    assert!(text.contains(from), "{text}");
    project.write("Wetfile.toml", &text.replace(from, to));
}

/// An image of the probe with this file in which it asks.
fn asking(request: &[u8]) -> tempfile::TempDir {
    let image = probe_image();
    fs::create_dir_all(image.path().join("etc")).unwrap();
    fs::write(image.path().join("etc/cell.toml"), request).unwrap();
    image
}

#[test]
fn a_build_writes_what_the_image_asks_for() {
    let project = asking_project();
    let built = run(&project, &["build"]).expect(0);
    assert_eq!(String::from_utf8(project.read("out/etc/cell.toml")).unwrap(), REQUEST);
    // It is part of what the image is.
    let cid = run(&project, &["cid", "out"]).expect(0);
    assert_eq!(built.stdout.split_whitespace().last(), cid.stdout.split_whitespace().next());
    let lock = String::from_utf8(project.read("Wetfile.lock")).unwrap();
    assert_eq!(lock.matches("\"etc/cell.toml\" = ").count(), 2, "{lock}");
    run(&project, &["build", "--locked"]).expect(0);
    run(&project, &["verify"]).expect(0);

    project.write("out/etc/cell.toml", "cell = 1\ngrants = [\"network\"]\n");
    let altered = run(&project, &["verify"]).expect(11);
    assert!(altered.stderr.contains("`etc/cell.toml` was altered"), "{}", altered.stderr);
}

#[test]
fn what_an_image_asks_for_is_locked() {
    let project = asking_project();
    run(&project, &["build"]).expect(0);
    let refused = |from: &str, to: &str, expected: &str| {
        change(&project, from, to);
        for command in [&["build", "--locked"][..], &["verify"]] {
            let done = run(&project, command).expect(10);
            assert!(done.stderr.contains(expected), "{}", done.stderr);
        }
        change(&project, to, from);
    };
    refused(
        "children = 4",
        "children = 5",
        "its file `etc/cell.toml`, of which the Wetfile says what is in it, has changed",
    );
    let asked = "grants = ['connect', 'mount:/data:rw']\nlimits = { children = 4, memory = '2048 MiB' }\n";
    refused(asked, "# nothing\n", "the Wetfile does not list `etc/cell.toml` any more");
    // Another spelling is no change.
    change(&project, "2048 MiB", "2GiB");
    run(&project, &["build", "--locked"]).expect(0);

    change(&project, asked.replace("2048 MiB", "2GiB").as_str(), "# nothing\n");
    run(&project, &["build"]).expect(0);
    assert!(!project.path("out/etc/cell.toml").exists());
    refused("# nothing\n", "grants = ['terminal']\n", "its entry `etc/cell.toml` is not in the lock");
}

#[test]
fn an_image_has_one_source_of_what_it_asks_for() {
    let project = asking_project();
    project.write("config/cell.toml", "cell = 1\n");
    let done = run(&project, &["build"]).expect(3);
    assert!(done.stderr.contains("image `echo` has two sources of `etc/cell.toml`"), "{}", done.stderr);
    assert!(!project.path("out").exists());
}

#[test]
fn inspect_shows_what_an_image_asks_for() {
    let image = asking(REQUEST.as_bytes());
    let inspect = |options: &[&str]| finish(ww(&["inspect"]).arg(image.path()).args(options)).expect(0).stdout;
    let asked = |text: &str| text.lines().skip_while(|line| !line.starts_with("asks")).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(asked(&inspect(&[])), @r"
    asks for connect
    asks for mount:/data:rw
    asks for memory=2GiB, where the default is 1GiB
    asks for children=4, where the default is 256
    gets beyond the default only with --grant connect --grant mount:SRC:/data:rw --limit memory=2GiB
    ");
    insta::assert_snapshot!(asked(&inspect(&["--format", "snapshot"])), @r"
    asks for connect
    asks for mount:/data:rw
    asks for memory=2GiB
    asks for children=4
    ");
    let shown: Value = serde_json::from_str(&inspect(&["--json"])).unwrap();
    let expected = json!({
        "grants": ["connect", "mount:/data:rw"],
        "limits": { "memory": "2GiB", "children": 4 },
        "beyond_default": ["--grant", "connect", "--grant", "mount:SRC:/data:rw", "--limit", "memory=2GiB"],
    });
    assert_eq!(shown["request"], expected);

    // The same of what is in the blockstore, and through links.
    let home = tempfile::tempdir().unwrap();
    fs::rename(image.path().join("etc"), image.path().join("conf")).unwrap();
    symlink("/conf", image.path().join("etc")).unwrap();
    let mut publish = ww(&["publish", "--json", "--kubo", "none"]);
    let published = finish(publish.arg(image.path()).env("WW_HOME", home.path())).expect(0);
    let published: Value = serde_json::from_str(&published.stdout).unwrap();
    let cid = published["published"][0]["cid"].as_str().unwrap();
    let held = finish(ww(&["inspect", "--json", cid]).env("WW_HOME", home.path())).expect(0);
    assert_eq!(serde_json::from_str::<Value>(&held.stdout).unwrap()["request"], expected);

    let silent: Value =
        serde_json::from_str(&finish(ww(&["inspect", "--json"]).arg(probe_image().path())).expect(0).stdout).unwrap();
    assert_eq!(silent.get("request"), None);
}

/// What is shown to be copied into a shell is what it is there, whoever wrote it.
#[test]
fn what_an_image_asks_for_runs_nothing_in_a_shell() {
    let image = asking(b"cell = 1\ngrants = [\"mount:/x $(echo run) `id` 'q'\"]\n");
    let shown = finish(ww(&["inspect"]).arg(image.path())).expect(0).stdout;
    let flags = shown.lines().last().unwrap().strip_prefix("gets beyond the default only with ").unwrap();
    let printed = std::process::Command::new("sh").args(["-c", &format!("printf '%s\\n' {flags}")]).output().unwrap();
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), "--grant\nmount:SRC:/x $(echo run) `id` 'q'\n");
    let mut run = ww(&["run", "--listen", "none"]);
    let said = finish(run.arg(image.path()).args(["--", "args"])).expect(0).stderr;
    assert!(said.contains(&format!("is not given: {flags}\n")), "{said}");

    for refused in ["env:A;touch${IFS}x", "mount:/tmp", "mount:/a//b"] {
        let image = asking(format!("cell = 1\ngrants = [\"{refused}\"]\n").as_bytes());
        finish(ww(&["inspect"]).arg(image.path())).expect(5);
        finish(&mut ww_run(image.path(), &["--", "args"])).expect(126);
    }
}

#[test]
fn what_an_image_asks_for_is_one_line() {
    let asked: Vec<_> = (0..64).map(|number| format!("\"env:VARIABLE_{number}\"")).collect();
    let image = asking(format!("cell = 1\ngrants = [{}]\n", asked.join(", ")).as_bytes());
    let mut run = ww(&["run", "--listen", "none"]);
    let said = finish(run.arg(image.path()).args(["--", "args"])).expect(0).stderr;
    let line = said.lines().find(|line| line.starts_with("the image asks for")).unwrap();
    assert!(line.len() < 400 && line.ends_with(" … and 56 more; `ww inspect` lists them"), "{line}");
    let shown = finish(ww(&["inspect"]).arg(image.path())).expect(0).stdout;
    assert!(shown.contains("--grant env:VARIABLE_63"), "{shown}");
    // What its user sets it to, it has.
    let image = asking(b"cell = 1\ngrants = [\"env:HOME\", \"mount:/data\"]\n");
    let given = ["--listen", "none", "--env", "HOME=x", "--mount", "/etc:/data"];
    let said = finish(ww(&["run"]).arg(image.path()).args(given).args(["--", "args"])).expect(0).stderr;
    assert!(!said.contains("asks for"), "{said}");
}

#[test]
fn a_malformed_request_is_shown_and_found() {
    for (request, expected) in [
        (&b"cell = 1\ngrants = [\"\\u001b[2J\"]"[..], "`\\u{1b}[2J` is no grant"),
        (b"cell = 1\n[limits]\nmemory = \"1\"", "it is less than 64KiB"),
        (b"\xff", "it is not text in UTF-8"),
        (&[b'#'; 70_000], "it has 70000 bytes, and at most 65536 are read"),
    ] {
        let image = asking(request);
        for (command, code) in [("inspect", 5), ("verify", 17)] {
            let done = finish(ww(&[command]).arg(image.path())).expect(code);
            assert!(done.stdout.contains("main.wasm") || command == "verify", "{}", done.stdout);
            assert!(done.stderr.contains(expected), "{}", done.stderr);
            assert!(!(done.stdout + &done.stderr).contains('\u{1b}'));
        }
        let done = finish(ww(&["inspect", "--json"]).arg(image.path())).expect(5);
        let shown: Value = serde_json::from_str(&done.stdout).unwrap();
        assert!(shown["request"]["error"].as_str().unwrap().contains(expected), "{shown}");
    }
    let image = probe_image();
    fs::create_dir(image.path().join("etc")).unwrap();
    symlink("gone", image.path().join("etc/cell.toml")).unwrap();
    let shown = finish(ww(&["inspect"]).arg(image.path())).expect(5);
    let run = finish(&mut ww_run(image.path(), &["--", "args"])).expect(126);
    assert!((shown.stderr + &run.stderr).matches("it is a link that leads nowhere").count() == 2);
    fs::remove_file(image.path().join("etc/cell.toml")).unwrap();
    fs::create_dir_all(image.path().join("etc/cell.toml")).unwrap();
    let done = finish(ww(&["inspect"]).arg(image.path())).expect(5);
    assert!(done.stderr.contains("it is not a file"), "{}", done.stderr);
}

/// Runs the probe with a grant file of this content and mode.
fn with_grant_file(content: &str, mode: u32, options: &[&str], args: &[&str]) -> Done {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("grants.toml");
    fs::write(&file, content).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    run_with(&file, options, args)
}

fn run_with(file: &Path, options: &[&str], args: &[&str]) -> Done {
    let image = probe_image();
    let mut command = ww_run(image.path(), options);
    finish(command.arg("--grant-file").arg(file).arg("--").args(args).env("SECRET", "1"))
}

#[test]
fn a_grant_file_gives_and_the_command_line_counts_more() {
    let text = "cell = 1\ngrants = [\"env:SECRET\"]\n[limits]\nmemory = \"16MiB\"\n";
    assert_eq!(with_grant_file(text, 0o600, &[], &["env"]).expect(0).stdout, "SECRET=1\n");
    assert_eq!(with_grant_file(text, 0o644, &["--env", "SECRET=mine"], &["env"]).expect(0).stdout, "SECRET=mine\n");
    with_grant_file(text, 0o600, &[], &["allocate", "16"]).expect(1);
    with_grant_file(text, 0o600, &["--limit", "memory=64MiB"], &["allocate", "16"]).expect(0);

    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(one.path().join("f"), "one").unwrap();
    fs::write(other.path().join("f"), "the other").unwrap();
    let text = format!("cell = 1\ngrants = [\"mount:{}:/data\"]\n", one.path().display());
    let files = |options: &[&str]| with_grant_file(&text, 0o600, options, &["files", "/data/f"]).expect(0).stdout;
    assert_eq!(files(&[]), "/data/f: file of 3 bytes\n");
    assert_eq!(files(&["--mount", &format!("{}:/data", other.path().display())]), "/data/f: file of 9 bytes\n");
}

#[test]
fn a_grant_file_that_cannot_be_used_is_told_before_anything_runs() {
    let refused = |done: Done, expected: &str| {
        let done = done.expect(125);
        assert!(done.stderr.contains("the grant file ") && done.stderr.contains(expected), "{}", done.stderr);
        assert_eq!(done.stdout, "");
        assert!(!done.stderr.contains('\u{1b}'), "{:?}", done.stderr);
    };
    let with =
        |content: &str, mode: u32, expected: &str| refused(with_grant_file(content, mode, &[], &["args"]), expected);
    with("cell = 1", 0o666, "others can change it (its mode is 0666)");
    with("cell = 1", 0o620, "others can change it (its mode is 0620)");
    with("", 0o600, "missing field `cell`");
    with("cell = 2", 0o600, "its format is version 2");
    with("cell = 1\ngrants = [\"mount:/data\"]", 0o600, "is not of the form mount:SRC:DST");
    with("cell = 1\ngrants = [\"root\"]", 0o600, "`root` is no grant");
    with("cell = 1\n[limits]\nspeed = 1", 0o600, "`speed` is no limit");
    with("cell = 1\n\u{1b}[2J", 0o600, "it is not valid in line 2");
    with(&"#".repeat(70_000), 0o600, "at most 65536 are read");
    refused(run_with(Path::new("/no/such/file"), &[], &["args"]), "it cannot be read");
    refused(run_with(Path::new("/"), &[], &["args"]), "it is not a file");

    // A file that the guest may write.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("grants.toml");
    fs::write(&file, "cell = 1").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let mount = format!("{}:/data:rw", folder.path().display());
    refused(run_with(&file, &["--mount", &mount], &["args"]), "the guest could change it");
    run_with(&file, &["--mount", mount.trim_end_matches(":rw")], &["args"]).expect(0);

    // A file of another user: one that is made so, or where that is not possible one that always is.
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "cell = 1").unwrap();
    match chown(file.path(), Some(12_345), None) {
        Ok(()) => refused(run_with(file.path(), &[], &["args"]), "it belongs to another user, whose number is 12345"),
        Err(_) => refused(run_with(Path::new("/etc/passwd"), &[], &["args"]), "it belongs to another user"),
    }
}

/// A run with `--stats`: what was done, and the `usage` of the status file.
fn measured(options: &[&str], args: &[&str]) -> (Done, Value) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("status.json");
    let image = probe_image();
    let mut command = ww_run(image.path(), &["--stats", "--status-file", file.to_str().unwrap()]);
    let done = finish(command.args(options).arg("--").args(args));
    let status: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    (done, status["usage"].clone())
}

#[test]
fn stats_say_what_a_run_has_used() {
    let (done, usage) = measured(&[], &["flood-stdout", "100000"]);
    assert_eq!((usage["stdout_bytes"].as_u64(), usage["stderr_bytes"].as_u64()), (Some(100_000), Some(0)));
    assert_eq!(done.stdout.len(), 100_000);
    assert!(done.stderr.starts_with("usage:\n  wall time    "), "{}", done.stderr);
    assert!(done.stderr.ends_with("  stdout       100000 bytes\n  stderr       0 bytes\n"), "{}", done.stderr);

    let number = |usage: &Value, name: &str| usage[name].as_u64().unwrap_or_else(|| panic!("{name}: {usage}"));
    let (_, usage) = measured(&[], &["allocate", "16"]);
    assert!(number(&usage, "memory_peak_bytes") >= 16 << 20, "{usage}");
    assert_eq!((number(&usage, "children"), number(&usage, "rpc_calls")), (0, 0));

    let (_, usage) = measured(&[], &["roundtrips", "100"]);
    assert!(number(&usage, "rpc_calls") >= 100, "{usage}");
    let (_, usage) = measured(&[], &["spawn-many", "/bin/probe.wasm", "3"]);
    assert_eq!(number(&usage, "children"), 3);
}

/// Also of a run that is ended from outside, and not of one that never began.
#[test]
fn stats_are_said_however_a_run_ends() {
    let (done, usage) = measured(&["--limit", "cpu-time=200ms"], &["spin"]);
    done.expect(124);
    assert!(usage["cpu_time_us"].as_u64().unwrap() >= 200_000, "{usage}");
    assert!(usage["wall_time_us"].as_u64() >= usage["cpu_time_us"].as_u64(), "{usage}");
    let (done, usage) = measured(&["--mount", "/no/such/folder:/data"], &["args"]);
    assert!(!done.expect(125).stderr.contains("usage:"));
    assert_eq!(usage, Value::Null);
}
