//! `ww verify --rebuild`: what two builds in different surroundings show.

use std::fs;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lock::{copying_project, run, rust_project};
use crate::project::Project;
use crate::support::{Done, collect, finish, guest, ww};

/// A command that appends a custom section to a copy of a guest, with what the shell makes of a word. The section's length is
/// written with two bytes.
fn appending(content: &str) -> String {
    let section = r"{ printf '\000'; printf \\$(printf %03o $((length % 128 + 128)))\\$(printf %03o $((length / 128)));
        printf '\010built-in%s' $content; } >> $WW_OUT";
    format!("cp echo.wasm $WW_OUT; content={content}; length=$((${{#content}} + 9)); {section}")
}

/// A project of these guests, each with what it appends and whether it says that it is reproducible, and an image with all.
fn project(guests: &[(&str, &str, bool)]) -> Project {
    let project = Project::new("p");
    let (mut tables, mut files) = (String::new(), String::new());
    for (name, content, reproducible) in guests {
        let build = appending(content);
        tables += &format!(
            "[guest.{name}]\npath = 'src'\nbuild = '''{build}'''\ninputs = ['*.wasm']\nreproducible = {reproducible}\n"
        );
        let place = if files.is_empty() { "bin/main.wasm".to_owned() } else { format!("bin/{name}.wasm") };
        files += &format!("'{place}' = {{ guest = '{name}' }}\n");
    }
    project.wetfile(&format!("{tables}[image.all]\nout = 'out'\n[image.all.files]\n{files}"));
    fs::create_dir_all(project.path("src")).unwrap();
    fs::copy(guest("child-echo"), project.path("src/echo.wasm")).unwrap();
    run(&project, &["-q", "build"]).expect(0);
    project
}

/// Rebuilds with a folder for temporary files of the project's own, which must be empty again afterwards.
#[track_caller]
fn rebuild(project: &Project, args: &[&str], code: i32) -> Done {
    let temporary = project.outside("temporary");
    let before = listing(project);
    let args: Vec<&str> = ["verify", "--rebuild"].iter().chain(args).copied().collect();
    let done = finish(ww(&args).current_dir(project.path("")).env("TMPDIR", &temporary)).expect(code);
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "something is left");
    assert_eq!(listing(project), before, "something was written in the project");
    done
}

/// Every path of a project.
fn listing(project: &Project) -> Vec<std::path::PathBuf> {
    let (mut paths, mut folders) = (Vec::new(), vec![project.path("")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    paths
}

fn json(done: &Done) -> Value {
    serde_json::from_str(&done.stdout).unwrap()
}

/// Eight bytes by chance.
const RANDOM: &str = "$(od -An -N8 -tx1 /dev/urandom | tr -d ' ')";

#[test]
fn what_comes_out_the_same_is_fine() {
    let project = copying_project();
    run(&project, &["-q", "build"]).expect(0);
    let cid = run(&project, &["verify"]).expect(0).stdout;
    let done = rebuild(&project, &[], 0);
    assert!(done.stdout.starts_with("guest echo: the same twice, sha256 "), "{}", done.stdout);
    assert!(done.stdout.ends_with(&cid), "{} {cid}", done.stdout);
    let report = json(&rebuild(&project, &["--json", "echo"], 0));
    assert_eq!((&report["verdict"], &report["rebuilt"]["guests"][0]["same"]), (&"ok".into(), &true.into()));
    let [one, other] = [0, 1].map(|side| &report["rebuilt"]["surroundings"][side]);
    assert_eq!((&one["umask"], &other["umask"]), (&"0022".into(), &"0077".into()));
    assert!(one["folder"].as_str().unwrap().len() < other["folder"].as_str().unwrap().len());
}

#[test]
fn differences_are_named_down_to_the_section() {
    let project = project(&[
        ("good", "always", true),
        ("place", "${PWD%/src}", true),
        ("time", "$(date +%s)", true),
        ("random", RANDOM, true),
        ("known", RANDOM, false),
        ("modest", "always", false),
    ]);
    let done = rebuild(&project, &[], 18);
    for (expected, hint) in [
        ("guest `place`: two builds of it differ: ", "the path of the folder that it was built in"),
        ("guest `time`: two builds of it differ: ", "it contains the time"),
        ("guest `random`: two builds of it differ: ", "is it a random number"),
        ("note: guest `known` differs, as the Wetfile says: ", "is it a random number"),
        ("note: guest `modest` came out the same", "need not"),
        ("image `all`: `bin/place.wasm` differs between two builds: it is guest `place`", ""),
        ("note: image `all`: `bin/known.wasm` differs, as the Wetfile says of guest `known`", ""),
    ] {
        let line = done.stderr.lines().find(|line| line.contains(expected));
        assert!(line.is_some_and(|line| line.contains(hint)), "{expected}{hint}: {}", done.stderr);
        if expected.contains("two builds of it") {
            assert!(line.unwrap().contains("in the custom section `built-in`, from byte "), "{}", done.stderr);
        }
    }
    assert!(!done.stderr.contains("`good"), "{}", done.stderr);
    let report = json(&rebuild(&project, &["--json"], 18));
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["kind"] == "not-reproducible"), "{report}");
    assert_eq!(findings.len(), 6, "{report}");
}

#[test]
fn what_is_known_to_differ_is_no_failure() {
    let project = project(&[("known", RANDOM, false)]);
    let done = rebuild(&project, &[], 0);
    assert!(done.stdout.contains("guest known: differs, sha256 "), "{}", done.stdout);
}

/// What depends on nothing that differs here may still be another than at the build that has written the lock.
#[test]
fn both_builds_are_held_against_the_lock() {
    let project = copying_project();
    let wetfile = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    let state = project.outside("state");
    fs::copy(guest("child-echo"), state.join("echo.wasm")).unwrap();
    let command = format!("['cp', '{}/echo.wasm', '{{out}}']", state.display());
    project.write("Wetfile.toml", &wetfile.replace("['cp', 'echo.wasm', '{out}']", &command));
    run(&project, &["-q", "build"]).expect(0);
    rebuild(&project, &[], 0);
    fs::copy(guest("pid0"), state.join("echo.wasm")).unwrap();
    let done = rebuild(&project, &[], 18);
    assert!(done.stderr.contains("guest `echo`: both builds have made the same, and Wetfile.lock has other"));
    assert!(done.stderr.contains("; it begins to differ in the "), "{}", done.stderr);
    assert!(done.stderr.contains("image `echo`: both builds have made bafy"), "{}", done.stderr);
}

/// Of a tree that an image takes by its CID there is nothing in the surroundings of the builds but what they are given.
#[test]
fn content_is_taken_along() {
    let project = copying_project();
    project.write("tree/etc/motd", "from afar");
    std::os::unix::fs::symlink("etc/motd", project.path("tree/link")).unwrap();
    let cid = crate::manifest::publish(&project, "tree", "unixfs-v0-2015");
    fs::remove_dir_all(project.path("tree")).unwrap();
    let wetfile = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    let above = format!(
        "{wetfile}'usr/share' = {{ cid = '{cid}' }}\n\
         [image.above]\nout = 'above'\nbase = {{ cid = '{cid}' }}\nfiles.'bin/main.wasm' = {{ guest = 'echo' }}\n"
    );
    project.write("Wetfile.toml", &above);
    let home = project.path("../home");
    finish(ww(&["-q", "build", "--offline"]).current_dir(project.path("")).env("WW_HOME", home)).expect(0);
    let done = rebuild(&project, &[], 0);
    assert!(done.stdout.contains("image above: ok, ") && done.stdout.contains("image echo: ok, "), "{}", done.stdout);
    rebuild(&project, &["above"], 0);
}

/// Cargo reads settings in all folders above a package.
#[test]
fn settings_of_others_have_no_say() {
    let project = rust_project();
    run(&project, &["-q", "build"]).expect(0);
    let temporary = project.outside("temporary");
    let rebuild = |settings: &str, code: i32| {
        fs::create_dir_all(temporary.join(".cargo")).unwrap();
        fs::write(temporary.join(".cargo/config.toml"), settings).unwrap();
        let mut command = ww(&["verify", "--rebuild"]);
        finish(command.current_dir(project.path("")).env("TMPDIR", &temporary)).expect(code).stderr
    };
    let said = rebuild("[profile.release]\nopt-level = 0\n", 1);
    assert!(said.contains("temporary/.cargo/config.toml sets profile, which cargo would heed"), "{said}");
    assert!(said.contains("name another in TMPDIR"), "{said}");
    rebuild("[net]\nretry = 1\n[build]\nrustflags = ['-C', 'opt-level=0']\n", 0);
}

#[test]
fn a_lock_that_is_out_of_date_comes_first() {
    let project = copying_project();
    assert!(rebuild(&project, &[], 10).stderr.contains("it is missing"));
    run(&project, &["-q", "build"]).expect(0);
    project.write("config/motd", "changed");
    let done = rebuild(&project, &["--json"], 10);
    assert_eq!(json(&done)["rebuilt"]["surroundings"], Value::Null);
    finish(ww(&["verify", "--rebuild", "nothing"]).current_dir(project.path(""))).expect(7);
    finish(ww(&["verify", "--rebuild", "config"]).current_dir(project.path(""))).expect(2);
}

/// What an image has from its base is built and looked at like its own.
#[test]
fn a_base_belongs_to_an_image() {
    let project = copying_project();
    let wetfile = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    let derived = "[image.derived]\nout = 'derived'\nbase = { image = 'echo' }\nfiles.'etc/new' = { text = 'x' }\n";
    project.write("Wetfile.toml", &format!("{wetfile}\n{derived}"));
    run(&project, &["-q", "build"]).expect(0);
    let done = rebuild(&project, &["derived", "--json"], 0);
    assert!(json(&done)["rebuilt"]["guests"].to_string().contains("echo"), "{}", done.stdout);
    project.write("src/echo.wasm", "changed");
    let done = rebuild(&project, &["derived"], 10);
    assert!(done.stderr.contains("guest `echo`"), "{}", done.stderr);
}

/// A command that reads what it does not list among its inputs.
#[test]
fn what_is_no_input_is_not_there() {
    let project = copying_project();
    let wetfile = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    fs::copy(guest("child-echo"), project.path("hidden.wasm")).unwrap();
    project.write("Wetfile.toml", &wetfile.replace("'echo.wasm', '{out}'", "'../hidden.wasm', '{out}'"));
    run(&project, &["-q", "build"]).expect(0);
    let done = rebuild(&project, &[], 4);
    assert!(done.stderr.contains("either it needs what is not among its inputs"), "{}", done.stderr);
    assert!(done.stderr.contains("hidden.wasm"), "{}", done.stderr);
}

#[test]
fn a_signal_stops_it_and_removes_the_folders() {
    let project = copying_project();
    let (state, wetfile) = (project.outside("state"), String::from_utf8(project.read("Wetfile.toml")).unwrap());
    let command =
        format!("\"cp echo.wasm $WW_OUT; test ! -e {0}/slow || {{ touch {0}/begun; sleep 600; }}\"", state.display());
    project.write("Wetfile.toml", &wetfile.replace("['cp', 'echo.wasm', '{out}']", &command));
    run(&project, &["-q", "build"]).expect(0);
    fs::write(state.join("slow"), "").unwrap();
    let temporary = project.outside("temporary");
    let mut command = ww(&["verify", "--rebuild"]);
    command.current_dir(project.path("")).env("TMPDIR", &temporary).process_group(0);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    while !state.join("begun").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    collect(child).expect(130);
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

/// With the toolchain that the project chooses, in whatever way, and with a package in another folder.
#[test]
fn a_rust_guest_comes_out_the_same() {
    let project = rust_project();
    let code = "fn main() { std::env::args().for_each(|argument| panic!(\"{argument} {}\", file!())) }";
    project.write("g/src/main.rs", code);
    run(&project, &["-q", "build"]).expect(0);
    let done = rebuild(&project, &[], 0);
    assert!(done.stdout.starts_with("guest x: the same twice"), "{}", done.stdout);
    project.write("g/src/main.rs", "fn main() { println!(\"{}\", option_env!(\"HOME\").unwrap()) }");
    run(&project, &["-q", "build"]).expect(0);
    let done = rebuild(&project, &[], 18);
    assert!(done.stderr.contains("contains the path of its user's home"), "{}", done.stderr);
    assert!(done.stderr.contains("guest `x`: two builds of it differ: in the "), "{}", done.stderr);
}
