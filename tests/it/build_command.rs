//! `ww build` as a user sees it.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::project::Project;
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

/// Where nobody waits for a signal any more, it does what it does to any process.
#[test]
fn a_signal_ends_what_only_shows_its_result() {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;

    // More than a pipe holds.
    let guests: String = (0..990).map(|n| format!("[guest.a{n}]\nbuild = 'true $WW_OUT'\ninputs = []\n")).collect();
    let dir = project(&guests);
    let mut command = ww(&["build", "--plan", "--json"]);
    let mut child = command.current_dir(dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    assert!(Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(wait(&mut child).signal(), Some(2));
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

/// What a killed build has left running writes to nothing that the next build takes for its own.
#[test]
fn what_outlives_its_build_spoils_no_other() {
    let script = r#"
wait_for() { n=0; until [ -e $1 ] || [ $n -gt 3000 ]; do n=$((n+1)); sleep 0.02; done; }
if mkdir first 2>/dev/null; then
    echo "$WW_OUT" > one
    wait_for go; echo junk > "$WW_OUT"; echo > done
    exit
fi
echo "$WW_OUT" > two
cp echo.wasm "$WW_OUT"; echo > go; wait_for done
"#;
    let dir = copying_project(&format!("'''{script}'''"));
    let path = |name: &str| fs::read_to_string(dir.path().join(name)).ok().filter(|path| path.ends_with('\n'));
    let mut child = ww(&["-q", "build"]).current_dir(dir.path()).spawn().unwrap();
    while path("one").is_none() {
        assert!(child.try_wait().unwrap().is_none(), "the build ended by itself");
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let done = build(dir.path(), &[]).expect(0);
    assert!(
        done.stderr.contains("echo: warning: what compiled it in a build that was killed still runs"),
        "{}",
        done.stderr
    );
    assert_ne!(path("one"), path("two"));
    // Nothing of it is left when it has ended.
    let folder = fs::File::open(dir.path().join("target/ww/out/echo")).unwrap();
    folder.lock().unwrap();
    drop(folder);
    fs::remove_file(dir.path().join("target/ww/guests/echo.wasm")).unwrap();
    let done = build(dir.path(), &[]).expect(0);
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);
    assert_eq!(path("one"), path("two"));
    assert_eq!(fs::read_dir(dir.path().join("target/ww/out")).unwrap().count(), 0);
}

/// Compilers that share a server leave it running.
#[test]
fn what_a_command_starts_for_later_is_no_hindrance() {
    let dir = copying_project(
        "'''setsid sh -c 'echo $$ > pid; exec sleep 600' >/dev/null 2>&1 & until [ -s pid ]; do :; done; \
         echo $WW_OUT >> paths; cp echo.wasm $WW_OUT'''",
    );
    for _ in 0..2 {
        build(dir.path(), &[]).expect(0);
        let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
        fs::remove_file(dir.path().join("target/ww/guests/echo.wasm")).unwrap();
        assert!(Command::new("kill").arg(pid.trim()).status().unwrap().success(), "it is not running any more");
    }
    let paths = fs::read_to_string(dir.path().join("paths")).unwrap();
    let paths: Vec<&str> = paths.lines().collect();
    assert!(paths.len() == 2 && paths[0] == paths[1], "{paths:?}");
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

/// The runner trims lines: what begins with blanks may be a command as well.
#[test]
fn names_of_files_are_no_commands_on_github() {
    let name = "::error::made up.txt";
    let dir = copying_project("'cp echo.wasm \"$WW_OUT\"'");
    let wetfile = fs::read_to_string(dir.path().join("Wetfile.toml")).unwrap();
    let inputs = wetfile.lines().find(|line| line.starts_with("inputs = ")).unwrap();
    let globbed = wetfile.replace(inputs, "inputs = ['*.txt', 'echo.wasm']");
    fs::write(dir.path().join("Wetfile.toml"), &globbed).unwrap();
    fs::write(dir.path().join(name), "one").unwrap();
    let run = |args: &[&str], code: i32| {
        let done = finish(ww(args).env("GITHUB_ACTIONS", "true").current_dir(dir.path())).expect(code);
        let said = format!("{}{}", done.stdout, done.stderr);
        let is_command = |line: &str| line.trim_start().starts_with("::error::made") || line.contains("##[");
        assert!(!said.lines().any(is_command), "{said}");
        said
    };
    run(&["build"], 0);
    fs::write(dir.path().join(name), "two").unwrap();
    assert!(run(&["why", "echo"], 0).contains("  \\u003a:error::made up.txt has changed"));
    assert!(run(&["build", "--plan"], 0).contains("guest echo: ::error::made up.txt has changed"));
    run(&["verify"], 10);
    // A line of the Wetfile that a diagnostic shows, and JSON.
    fs::write(dir.path().join("Wetfile.toml"), format!("{globbed}\n::error::made = '##[error]'\n")).unwrap();
    run(&["build"], 3);
    let json = finish(ww(&["build", "--json"]).env("GITHUB_ACTIONS", "true").current_dir(dir.path())).expect(3).stdout;
    assert!(!json.contains("##[") && json.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

/// Compilers name files as they see them, and annotations as the repository has them.
#[test]
fn annotations_name_files_of_the_repository() {
    let repository = Project::new("repository");
    let dir = repository.path("tools/p");
    fs::create_dir_all(&dir).unwrap();
    finish(ww(&["init", "--lang", "command", "--name", "hello"]).current_dir(&dir)).expect(0);
    let main = dir.join("guests/hello/main.rs");
    fs::write(&main, "fn main() {\n    missing();\n}\n").unwrap();
    let mut command = ww(&["build"]);
    command.env("GITHUB_ACTIONS", "true").env("GITHUB_WORKSPACE", repository.path("")).current_dir(&dir);
    let done = finish(&mut command).expect(4);
    for start in [
        "::error file=tools/p/guests/hello/main.rs,line=2,col=5::error[E0425]: cannot find function `missing`",
        "::error file=tools/p/Wetfile.toml::guest `hello` was not built",
    ] {
        assert!(done.stderr.lines().any(|line| line.starts_with(start)), "{start}\n{}", done.stderr);
    }
}

/// A `make` that a command calls runs recipes at the same time where there are processors for it, and no more of them.
#[test]
fn make_asks_before_it_uses_another_processor() {
    let makefile = "\
together: one other
one other:
\t@touch $@; n=0; \\
\tuntil [ -e one ] && [ -e other ]; do n=$$((n+1)); [ $$n -lt 1000 ] || exit 1; sleep 0.02; done
apart: first second
first second:
\t@mkdir busy && sleep 0.2 && rmdir busy
";
    let build_with = |target: &str, jobs: &str, more: &str| {
        let dir = copying_project(&format!("\"make {target} && cp echo.wasm $WW_OUT\"\n{more}"));
        fs::write(dir.path().join("Makefile"), makefile).unwrap();
        let done = build(dir.path(), &["-v", "-j", jobs]).expect(0);
        assert!(!done.stderr.contains("jobserver unavailable"), "{}", done.stderr);
    };
    build_with("together", "2", "");
    build_with("apart", "1", "");
    build_with("apart", "2", "env.MAKEFLAGS = \"\"");
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
