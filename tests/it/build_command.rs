//! `ww build` as a user sees it.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use tempfile::TempDir;

use crate::pty::Pty;
use crate::support::{Done, finish, guest, wait, ww};

/// A folder with a Wetfile of these tables.
pub(crate) fn project(tables: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let head = "wetfile = 1\n[project]\nname = \"test\"\nversion = \"0.1.0\"\n";
    fs::write(dir.path().join("Wetfile.toml"), format!("{head}{tables}")).unwrap();
    dir
}

/// A project whose guest is a component that is there already, and whose image is `out`.
pub(crate) fn copying_project(command: &str) -> TempDir {
    let dir = project(&format!(
        "[guest.echo]\nbuild = {command}\ninputs = [\"echo.wasm\"]\n\
         [image.echo]\nout = \"out\"\n[image.echo.files]\n\"bin/main.wasm\" = {{ guest = \"echo\" }}\n"
    ));
    fs::copy(guest("child-echo"), dir.path().join("echo.wasm")).unwrap();
    dir
}

pub(crate) const COPY: &str = "[\"cp\", \"echo.wasm\", \"{out}\"]";

pub(crate) fn build(dir: &Path, args: &[&str]) -> Done {
    let mut command = ww(&["build"]);
    finish(command.args(args).current_dir(dir))
}

#[test]
fn an_image_is_one_line_on_stdout() {
    let dir = copying_project(COPY);
    let done = build(dir.path(), &[]).expect(0);
    let size = fs::metadata(guest("child-echo")).unwrap().len();
    let cid = done.stdout.strip_prefix(&format!("image echo: out, 1 file, {size} bytes, ")).unwrap();
    assert!(cid.starts_with("bafybei") && cid.ends_with('\n') && cid.len() == 60, "{}", done.stdout);
    assert!(done.stderr.starts_with("building echo\nbuilt echo in "), "{}", done.stderr);
    let control = |text: &str| text.contains(['\x1b', '\x08', '\r']);
    assert!(!control(&done.stdout) && !control(&done.stderr));
    assert_eq!(build(dir.path(), &["-q"]).expect(0).stderr, "");
}

/// The last line of `--json`.
pub(crate) fn result(done: &Done) -> serde_json::Value {
    serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn the_result_is_there_as_json() {
    let dir = copying_project(COPY);
    for changed in [true, false] {
        let done = build(dir.path(), &["--json", "echo"]).expect(0);
        let built = result(&done);
        assert_eq!(built["images"][0]["name"], "echo");
        assert_eq!(built["images"][0]["changed"], changed);
        assert!(built["guests"][0]["path"].as_str().unwrap().ends_with("target/ww/guests/echo.wasm"));
    }
}

#[test]
fn the_wetfile_is_found_from_below() {
    let dir = copying_project(COPY);
    let below = dir.path().join("a/b");
    fs::create_dir_all(&below).unwrap();
    let done = build(&below, &[]).expect(0);
    assert!(done.stdout.contains("/out, 1 file"), "{}", done.stdout);
    let done = finish(&mut ww(&["-C", below.to_str().unwrap(), "build"])).expect(0);
    assert!(done.stdout.starts_with("image echo: "), "{}", done.stdout);
}

#[test]
fn all_errors_of_a_wetfile_are_said_and_nothing_is_built() {
    let tables = "[guest.a]\nbuild = [\"touch\", \"marker\", \"{out}\"]\ninputs = []\nembed = [\"b\"]\n\
                  [image.i]\nout = \"/etc\"\n[image.i.files]\n\"bin/main.wasm\" = { guest = \"c\" }\n\
                  \"etc/x.txt\" = { path = \"assets/x.txt\" }\n";
    let dir = project(tables);
    let done = build(dir.path(), &[]).expect(3);
    assert_eq!(done.stdout, "");
    insta::assert_snapshot!(done.stderr.replace(dir.path().to_str().unwrap(), "PROJECT"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let done = build(dir.path(), &["--json"]).expect(3);
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let lines: Vec<_> = report["diagnostics"].as_array().unwrap().iter().map(|found| found["line"].clone()).collect();
    assert_eq!(lines, [8, 10, 12, 13]);
}

#[test]
fn a_folder_without_a_wetfile_is_no_project() {
    let dir = tempfile::tempdir().unwrap();
    let done = build(dir.path(), &[]).expect(3);
    assert!(done.stderr.contains("there is no Wetfile.toml") && done.stderr.contains("help:"), "{}", done.stderr);
}

#[test]
fn a_name_that_nobody_has_is_an_error() {
    let dir = copying_project(COPY);
    let done = build(dir.path(), &["ecko"]).expect(7);
    assert!(done.stderr.contains("`ecko`: did you mean `echo`?"), "{}", done.stderr);
    assert!(!dir.path().join("target").exists());
}

#[test]
fn a_failed_build_shows_what_was_said_and_leaves_the_old_image() {
    let dir = copying_project("\"test ! -s fail || { echo the reason >&2; exit 9; }; cp echo.wasm $WW_OUT\"");
    let wetfile = dir.path().join("Wetfile.toml");
    let text = fs::read_to_string(&wetfile).unwrap();
    fs::write(&wetfile, text.replace("[\"echo.wasm\"]", "[\"echo.wasm\", \"fail\"]")).unwrap();
    fs::write(dir.path().join("fail"), "").unwrap();
    build(dir.path(), &[]).expect(0);
    let program = dir.path().join("out/bin/main.wasm");
    let before = fs::read(&program).unwrap();
    fs::write(dir.path().join("fail"), "now").unwrap();
    let done = build(dir.path(), &[]).expect(4);
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains("echo: the reason\nerror: guest `echo` was not built\n"), "{}", done.stderr);
    assert!(fs::read(&program).unwrap() == before);
}

#[test]
fn what_ww_did_not_write_is_not_replaced() {
    let dir = copying_project(COPY);
    fs::create_dir(dir.path().join("out")).unwrap();
    fs::write(dir.path().join("out/precious"), "text").unwrap();
    let done = build(dir.path(), &[]).expect(5);
    assert!(done.stderr.contains("was not written by ww"), "{}", done.stderr);
    assert_eq!(fs::read_to_string(dir.path().join("out/precious")).unwrap(), "text");
}

#[test]
fn a_signal_stops_the_compilers_and_the_build() {
    let dir = copying_project("\"echo $$ > pid; sleep 1000; cp echo.wasm $WW_OUT\"");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let pid_file = dir.path().join("pid");
        let _ = fs::remove_file(&pid_file);
        let mut command = ww(&["build"]);
        let mut child = command.current_dir(dir.path()).stderr(Stdio::null()).spawn().unwrap();
        let pid = loop {
            match fs::read_to_string(&pid_file) {
                Ok(pid) if pid.ends_with('\n') => break pid.trim_end().to_owned(),
                _ => assert!(child.try_wait().unwrap().is_none(), "the build ended by itself"),
            }
        };
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
        assert_eq!(wait(&mut child).code(), Some(code));
        assert!(!Path::new("/proc").join(pid).exists(), "the command is still running");
    }
}

/// A project whose image has many files of a folder `config`, and takes a while.
fn large_project(files: usize) -> TempDir {
    let dir = copying_project(COPY);
    let wetfile = dir.path().join("Wetfile.toml");
    let text = fs::read_to_string(&wetfile).unwrap();
    fs::write(wetfile, format!("{text}\"etc\" = {{ path = \"config\" }}\n")).unwrap();
    fs::create_dir(dir.path().join("config")).unwrap();
    write_config(dir.path(), files, "first");
    dir
}

fn write_config(dir: &Path, files: usize, text: &str) {
    for number in 0..files {
        fs::write(dir.join(format!("config/{number}")), text).unwrap();
    }
}

/// What every file of the assembled `config` has, and how many files there are. All have the same.
#[track_caller]
fn read_image(dir: &Path) -> (String, usize) {
    let texts: Vec<_> = fs::read_dir(dir.join("out/etc"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "the image is half the old one and half the new one");
    assert!(dir.join("out/bin/main.wasm").is_file() && dir.join("out/usr/lib").is_dir());
    (texts[0].clone(), texts.len())
}

#[test]
fn a_signal_stops_the_assembling_of_an_image() {
    let dir = large_project(20_000);
    for args in [["-q", "build"].as_slice(), &["-q", "run", "echo", "--listen", "/ip4/127.0.0.1/tcp/0"]] {
        let mut child = ww(args).current_dir(dir.path()).stdout(Stdio::null()).spawn().unwrap();
        let work = dir.path().join(".out.ww-work/tree/etc");
        while !work.exists() {
            assert!(child.try_wait().unwrap().is_none(), "the build ended by itself");
        }
        let sent = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
        assert_eq!(wait(&mut child).code(), Some(130));
        let names = ["out", ".out.ww", ".out.ww-work"].map(|name| dir.path().join(name).exists());
        assert_eq!(names, [false; 3]);
    }
}

/// At whatever instant a build is killed, the image is the old one or the new one, whole, and the next build succeeds.
#[test]
fn a_killed_build_leaves_a_whole_image() {
    const FILES: usize = 300;
    let dir = large_project(FILES);
    let started = Instant::now();
    build(dir.path(), &[]).expect(0);
    let length = started.elapsed();
    let mut old = "first".to_owned();
    for round in 0..20 {
        let new = format!("text of round {round}");
        write_config(dir.path(), FILES, &new);
        let mut child = ww(&["-q", "build"]).current_dir(dir.path()).stdout(Stdio::null()).spawn().unwrap();
        // No result depends on how long it is.
        let share = RandomState::new().hash_one(round) % 1000;
        thread::sleep(length * u32::try_from(share).unwrap() / 1000);
        child.kill().unwrap();
        child.wait().unwrap();
        let (text, files) = read_image(dir.path());
        assert!((text == old || text == new) && files == FILES, "{files} files of {text}");
        build(dir.path(), &[]).expect(0);
        assert_eq!(read_image(dir.path()), (new.clone(), FILES));
        assert!(!dir.path().join(".out.ww-work").exists());
        old = new;
    }
}

#[test]
fn json_moves_no_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("a\u{9b}2Jb");
    fs::create_dir(&odd).unwrap();
    for file in ["Wetfile.toml", "echo.wasm"] {
        fs::copy(copying_project(COPY).path().join(file), odd.join(file)).unwrap();
    }
    let done = build(&odd, &["--json"]).expect(0);
    assert!(!done.stdout.contains('\u{9b}') && done.stdout.contains("\\u009b2J"), "{}", done.stdout);
    let built = result(&done);
    assert!(built["images"][0]["out"].as_str().unwrap().ends_with("a\u{9b}2Jb/out"));
}

/// What is above is another project.
#[test]
fn a_wetfile_that_leads_nowhere_is_not_passed_over() {
    let dir = copying_project(COPY);
    let below = dir.path().join("below");
    fs::create_dir(&below).unwrap();
    std::os::unix::fs::symlink("nowhere", below.join("Wetfile.toml")).unwrap();
    build(&below, &[]).expect(3);
}

#[test]
fn what_a_project_calls_like_files_of_ours_stays() {
    let dir = copying_project(COPY);
    for name in [".out.ww-new", ".out.ww-old"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("precious"), "text").unwrap();
    }
    build(dir.path(), &[]).expect(0);
    assert!(dir.path().join(".out.ww-new/precious").exists() && dir.path().join(".out.ww-old/precious").exists());
    fs::create_dir(dir.path().join(".out.ww-work")).unwrap();
    fs::write(dir.path().join(".out.ww-work/precious"), "text").unwrap();
    fs::remove_dir_all(dir.path().join("out")).unwrap();
    let done = build(dir.path(), &[]).expect(5);
    assert!(done.stderr.contains(".out.ww-work was written by"), "{}", done.stderr);
    assert!(dir.path().join(".out.ww-work/precious").exists());
}

/// A folder of results that leads out of the project is not followed.
#[test]
fn results_stay_in_the_project() {
    let dir = copying_project(COPY);
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(outside.path().join("ww/guests/precious")).unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("target")).unwrap();
    let done = build(dir.path(), &[]).expect(1);
    assert!(done.stderr.contains("target is a symlink, where a folder is needed: remove it"), "{}", done.stderr);
    assert_eq!(fs::read_dir(outside.path().join("ww")).unwrap().count(), 1);
    assert!(outside.path().join("ww/guests/precious").exists());
}

#[test]
fn an_image_is_run_by_its_name() {
    let dir = copying_project(COPY);
    let mut command = ww(&["-q", "run", "--listen", "/ip4/127.0.0.1/tcp/0", "echo", "--", "--exit", "7"]);
    finish(command.current_dir(dir.path())).expect(7);
    assert!(dir.path().join("out/bin/main.wasm").is_file());
    let mut command = ww(&["-q", "run", "nobody"]);
    finish(command.current_dir(dir.path())).expect(127);
    fs::write(dir.path().join("Wetfile.toml"), "wetfile = 1\n").unwrap();
    let mut command = ww(&["-q", "run", "echo"]);
    finish(command.current_dir(dir.path())).expect(125);
}

/// What happens is told as it happens, one object to a line.
#[test]
fn events_are_there_as_json() {
    let dir = copying_project("\"echo said; cp echo.wasm $WW_OUT\"");
    let done = build(dir.path(), &["--json"]).expect(0);
    let events: Vec<serde_json::Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["started", "output", "finished", "assembled", "built"]);
    assert_eq!(events[0]["reasons"][0]["reason"], "never-built");
    assert_eq!(events[1]["line"], "said");
    assert_eq!(events[3]["image"], "echo");
    fs::write(dir.path().join("echo.wasm"), "no component").unwrap();
    let done = build(dir.path(), &["--json"]).expect(4);
    let last: serde_json::Value = serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((last["event"].as_str(), last["exit_code"].as_u64()), (Some("error"), Some(4)));
    assert_eq!(last["message"], "guest `echo` was not built");
    assert!(last["causes"][0].as_str().unwrap().starts_with("the build's result is "), "{last}");
    let kinds: Vec<_> =
        done.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
    assert!(kinds.iter().any(|event| event["event"] == "failed" && event["guest"] == "echo"), "{kinds:?}");
}

#[test]
fn what_took_how_long_is_written_as_a_trace() {
    let dir = copying_project(COPY);
    let trace =
        || -> serde_json::Value { serde_json::from_slice(&fs::read(dir.path().join("trace.json")).unwrap()).unwrap() };
    build(dir.path(), &["--timings", "trace.json"]).expect(0);
    let names: Vec<_> = trace()["traceEvents"].as_array().unwrap().iter().map(|event| event["name"].clone()).collect();
    assert_eq!(names, ["echo", "image echo"]);
    build(dir.path(), &["--timings", "trace.json"]).expect(0);
    assert_eq!(trace()["traceEvents"].as_array().unwrap().len(), 0);
}

/// What cannot be written is found before anything is built.
#[test]
fn a_trace_that_cannot_be_written_is_refused_at_once() {
    let dir = copying_project(COPY);
    fs::create_dir(dir.path().join("folder")).unwrap();
    for path in ["no/such/trace.json", "folder", "Wetfile.toml/trace.json"] {
        let done = build(dir.path(), &["--timings", path]).expect(1);
        assert!(done.stderr.starts_with(&format!("error: cannot write {path}\n")), "{}", done.stderr);
        assert!(!dir.path().join("target").exists());
    }
}

/// What cannot be written in the end does not take the result with it.
#[test]
fn a_trace_that_is_lost_loses_nothing_else() {
    let dir = copying_project("\"rmdir traces; cp echo.wasm $WW_OUT\"");
    fs::create_dir(dir.path().join("traces")).unwrap();
    let done = build(dir.path(), &["--timings", "traces/x"]).expect(1);
    assert!(done.stdout.starts_with("image echo: out, "), "{}", done.stdout);
    assert!(done.stderr.contains("error: cannot write traces/x\n"), "{}", done.stderr);
    assert!(dir.path().join("Wetfile.lock").is_file());
}

/// What a compiler says is fenced off, and what it says is wrong becomes an annotation.
#[test]
fn a_failure_is_annotated_on_github() {
    let dir = copying_project(
        "\"printf '%s\\\\n' '::error::made up' 'error[E1]: the reason' ' --> src/x.rs:3:5' >&2; exit 1; echo $WW_OUT\"",
    );
    let done = finish(ww(&["build"]).env("GITHUB_ACTIONS", "true").current_dir(dir.path())).expect(4);
    let lines: Vec<&str> = done.stderr.lines().skip_while(|line| !line.starts_with("::")).collect();
    let token = lines[0].strip_prefix("::stop-commands::").unwrap();
    assert_eq!(lines[1..4], ["::error::made up", "error[E1]: the reason", " --> src/x.rs:3:5"]);
    assert_eq!(lines[4], format!("::{token}::"));
    assert_eq!(lines[5], "::error file=src/x.rs,line=3,col=5::error[E1]: the reason");
    assert!(
        lines[6].starts_with("::error file=Wetfile.toml::guest `echo` was not built: `/bin/sh` failed"),
        "{lines:?}"
    );
}

/// What is said by several that fail does not mix, and nothing else is said after it.
#[test]
fn each_failure_is_shown_by_itself() {
    let guest = |name: &str| {
        let script = format!("for n in 1 2 3; do echo {name} $n; sleep 0.05; done; exit 1; echo $WW_OUT");
        format!("[guest.{name}]\nbuild = '{script}'\ninputs = []\n")
    };
    let dir = project(&[guest("a"), guest("b")].concat());
    let done = build(dir.path(), &["-k", "-j", "2"]).expect(4);
    let lines: Vec<&str> = done.stderr.lines().filter(|line| line.contains(": a ") || line.contains(": b ")).collect();
    let of = |name: &str| [1, 2, 3].map(|number| format!("{name}: {name} {number}"));
    assert!(lines == [of("a"), of("b")].concat() || lines == [of("b"), of("a")].concat(), "{}", done.stderr);
    assert!(done.stderr.contains("error: 2 guests were not built\n  guest `a`: "), "{}", done.stderr);
}

/// A line for each that runs, which is gone in the end.
#[test]
fn what_runs_is_shown_on_a_terminal() {
    let dir = copying_project("\"echo the last line; sleep 0.4; cp echo.wasm $WW_OUT\"");
    let pty = Pty::open();
    let mut child = pty.spawn(&{
        let mut command = ww(&["-C", dir.path().to_str().unwrap(), "build"]);
        command.env("TERM", "xterm");
        command
    });
    pty.expect("s: the last line");
    assert_eq!(wait(&mut child).code(), Some(0));
    pty.expect("built echo in ");
    pty.expect("image echo: out, ");
}
