//! `ww init`: every template is written outside of the repository, built, and run.

use std::fs;
use std::path::Path;

use crate::languages;
use crate::project::Project;
use crate::support::{Done, finish, finish_slow, ww};

fn ww_in(dir: &Path, args: &[&str]) -> Done {
    finish(ww(args).current_dir(dir))
}

/// Writes a project of a template, builds it, and gives what its guest says.
fn check(lang: &str, tools: Option<&Path>, expected: impl Fn(&str) -> bool) {
    // An empty folder, but for the file by which rustup chooses the toolchain of the guests of this repository.
    let project = Project::new("hello-you");
    let dir = project.path("");
    let done = ww_in(&dir, &["init", "--lang", lang, "--json"]).expect(0);
    let written: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&written["name"], &written["lang"]), (&"hello-you".into(), &lang.into()));
    let files: Vec<&str> = written["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
    assert!(files.contains(&"Wetfile.toml") && files.is_sorted());
    assert!(files.iter().all(|file| dir.join(file).is_file()));

    let is_irreproducible = ["js", "python"].contains(&lang);
    let run = |args: &[&str]| {
        let mut command = ww(args);
        if let Some(tools) = tools {
            command.env("PATH", languages::path_with(tools));
        }
        finish_slow(command.current_dir(&dir)).expect(0)
    };
    let built = run(&["build"]);
    assert!(built.stdout.starts_with("image hello-you: images/hello-you, 1 file, "), "{}", built.stdout);
    // Nothing of the project lies elsewhere, and the Wetfile knows what its tool does.
    assert!(!built.stderr.contains("warning"), "{}", built.stderr);
    let ran = run(&["-q", "run", "--listen", "/ip4/127.0.0.1/tcp/0", "hello-you"]);
    assert!(expected(&ran.stdout), "{}", ran.stdout);
    assert_eq!(run(&["build", "--plan"]).stdout, "");
    run(&["doctor"]);
    // Whoever builds it again gets the same, or is told before that nobody does.
    let rebuilt = run(&["verify", "--rebuild"]);
    let is_same = rebuilt.stdout.starts_with("guest hello-you: the same twice, ");
    assert!(is_same || is_irreproducible, "{}{}", rebuilt.stdout, rebuilt.stderr);
    let wetfile = fs::read_to_string(dir.join("Wetfile.toml")).unwrap();
    assert_eq!(wetfile.contains("\nreproducible = false\n"), is_irreproducible);
}

#[test]
fn rust() {
    check("rust", None, |said| {
        let lines: Vec<&str> = said.lines().collect();
        lines.len() > 1
            && lines[0].starts_with("id 12D3KooW")
            && lines[1..].iter().all(|line| line.starts_with("listening on /ip4/127.0.0.1/tcp/"))
    });
}

#[test]
fn command() {
    check("command", None, |said| said == "hello world from a command\n");
}

fn check_language(lang: &str, language: &str) {
    let Some(tools) = languages::tools() else { return };
    check(lang, Some(&tools), |said| said == format!("hello world from {language}\n"));
}

#[test]
fn c() {
    check_language("c", "C");
}

#[test]
fn zig() {
    check_language("zig", "Zig");
}

#[test]
fn go() {
    check_language("go", "Go");
}

#[test]
fn javascript() {
    check_language("js", "JavaScript");
}

#[test]
fn python() {
    check_language("python", "Python");
}

#[test]
fn what_is_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("x")).unwrap();
    fs::write(dir.path().join("x/README.md"), "mine").unwrap();
    fs::write(dir.path().join("x/.gitignore"), "mine").unwrap();
    let done = ww_in(dir.path(), &["init", "x", "--lang", "command"]).expect(1);
    for file in ["README.md", ".gitignore"] {
        assert!(done.stderr.contains(&format!("/x/{file}\n")), "{}", done.stderr);
        assert_eq!(fs::read_to_string(dir.path().join("x").join(file)).unwrap(), "mine");
    }
    assert_eq!(fs::read_dir(dir.path().join("x")).unwrap().count(), 2);
    // Names that cannot be, and a folder that is new.
    assert!(ww_in(dir.path(), &["init", "y", "--name", "No Name"]).expect(2).stderr.contains("not a valid name"));
    for name in ["vendor", "std", "build", "deps", "examples", "incremental"] {
        assert!(ww_in(dir.path(), &["init", "y", "--name", name]).expect(2).stderr.contains("--name"), "{name}");
    }
    assert!(!dir.path().join("y").exists());
    let done = ww_in(dir.path(), &["init", "y/z", "--lang", "command"]).expect(0);
    let written = "y/z/.gitignore\ny/z/README.md\ny/z/Wetfile.toml\ny/z/guests/z/main.rs\ny/z/wetfile.schema.json\n";
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), (written, "now: ww -C y/z run z\n"));
}
