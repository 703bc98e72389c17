//! `ww build --watch` and `ww run --watch`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::project::Project;
use crate::support::{finish, guest, wait, ww};

/// Longer than anything takes on a loaded machine; no test depends on its value.
const WATCHDOG: Duration = Duration::from_secs(60);

/// How long nothing must be built, where nothing is to be. What is wrong would be seen sooner.
const IDLE: Duration = Duration::from_millis(700);

/// What a `ww` says that watches.
const WAITING: &str = "waiting for changes; ctrl-C ends it";

/// A `ww` that watches, and the lines that it says.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn build(project: &Project) -> Self {
        Self::start(ww(&["build", "--offline", "--watch"]).current_dir(project.path("")))
    }

    /// What is said up to a line.
    #[track_caller]
    fn until(&self, end: &str) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            match self.lines.recv_timeout(WATCHDOG) {
                Ok(line) if line.contains(end) => return said,
                Ok(line) => said.push(line),
                Err(error) => panic!("{error} after {said:?}"),
            }
        }
    }

    /// The guests that are built until it waits again.
    #[track_caller]
    fn built(&self) -> Vec<String> {
        guests(&self.until(WAITING))
    }

    /// The guests that are built although nothing is to be.
    fn idle(&self) -> Vec<String> {
        thread::sleep(IDLE);
        guests(&self.lines.try_iter().collect::<Vec<_>>())
    }

    /// Ends it as ctrl-C does.
    fn interrupt(mut self) -> Option<i32> {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        wait(&mut self.child).code()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn guests(lines: &[String]) -> Vec<String> {
    lines.iter().filter_map(|line| line.strip_prefix("building ")).map(str::to_owned).collect()
}

/// A shell command that makes a component of `in.txt`, which has five bytes.
const COMPONENT: &str = r#"{ printf '\000asm\015\000\001\000\000\007\001n'; cat in.txt; } > "$WW_OUT""#;

/// The guests `a`, `b`, and `c` which embeds `a`.
fn project(more_of_a: &str) -> Project {
    let project = Project::new("p");
    let guest = |name: &str, before: &str, more: &str| {
        format!("[guest.{name}]\npath = \"{name}\"\nbuild = '''{before}{COMPONENT}'''\ninputs = [\"*.txt\"]\n{more}\n")
    };
    let all = [guest("a", more_of_a, ""), guest("b", "", ""), guest("c", "", "embeds = [\"a\"]")];
    project.wetfile(&all.concat());
    ["a", "b", "c"].iter().for_each(|name| project.write(&format!("{name}/in.txt"), "12345"));
    project
}

#[test]
fn what_changes_is_built_again_and_nothing_else() {
    let project = project("");
    let watching = Watching::build(&project);
    assert_eq!(watching.built(), ["a", "b", "c"]);
    project.write("b/in.txt", "54321");
    assert_eq!(watching.built(), ["b"]);
    project.write("a/in.txt", "54321");
    assert_eq!(watching.built(), ["a", "c"]);
    // As editors save, again and again.
    for text in ["11111", "22222", "33333"] {
        project.write("b/.in.txt.new", text);
        fs::rename(project.path("b/.in.txt.new"), project.path("b/in.txt")).unwrap();
        assert_eq!(watching.built(), ["b"]);
    }
    project.write("b/new.txt", "");
    assert_eq!(watching.built(), ["b"]);
    assert_eq!(watching.interrupt(), Some(130));
}

#[test]
fn what_is_no_change_builds_nothing() {
    let project = project("cp in.txt ../written.txt; cat ../written.txt > in.txt; ");
    let watching = Watching::build(&project);
    assert_eq!(watching.built(), ["a", "b", "c"]);
    assert_eq!(watching.idle(), [""; 0]);
    let file = project.path("b/in.txt");
    project.write("b/in.txt", "12345");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    project.write("b/.in.txt.swp", "swapped");
    fs::remove_file(project.path("b/.in.txt.swp")).unwrap();
    project.write("README.md", "not an input");
    assert_eq!(watching.idle(), [""; 0]);
    // A build that writes what it reads, as it was, is built once.
    project.write("a/in.txt", "54321");
    assert_eq!(watching.built(), ["a", "c"]);
    assert_eq!(watching.idle(), [""; 0]);
}

/// A Rust guest is made of whole folders, and of nothing that editors leave there.
#[test]
fn what_editors_leave_builds_nothing() {
    let project = Project::new("p");
    project.wetfile("[guest.g]\npath = \"g\"\n");
    project.package("g", "name = \"g\"", "src/main.rs", "fn main() {}");
    let watching = Watching::build(&project);
    assert_eq!(watching.built(), ["g"]);
    let left = [".main.rs.swp", ".main.rs.swx", "main.rs~", ".#main.rs", "#main.rs#", "4913", ".DS_Store"];
    left.iter().for_each(|name| project.write(&format!("g/src/{name}"), "left"));
    assert_eq!(watching.idle(), [""; 0]);
    project.write("g/src/main.rs", "fn main() { println!() }");
    assert_eq!(watching.built(), ["g"]);
    left.iter().for_each(|name| fs::remove_file(project.path(&format!("g/src/{name}"))).unwrap());
    assert_eq!(watching.idle(), [""; 0]);
    assert_eq!(watching.interrupt(), Some(130));
}

#[test]
fn an_edit_during_a_build_is_built_afterwards() {
    let project = project("cat in.txt > ../started; sleep 0.5; ");
    let watching = Watching::build(&project);
    watching.until("building a");
    while fs::read(project.path("started")).ok().as_deref() != Some(b"12345") {
        thread::sleep(Duration::from_millis(5));
    }
    project.write("a/in.txt", "54321");
    project.write("b/in.txt", "54321");
    watching.until(WAITING);
    for name in ["a", "b"] {
        assert!(project.artifact(name).ends_with(b"54321"), "{name}");
    }
}

/// What a Rust guest reads beside its package is watched as well.
#[test]
fn what_lies_beside_a_package_is_watched() {
    let project = Project::new("p");
    project.wetfile("[guest.x]\npath = \"x\"\n");
    let outside = project.outside("other").canonicalize().unwrap().join("o.txt");
    let code = format!("fn main() {{ print!(include_str!(\"../../in.txt\")); print!(include_str!({outside:?})); }}");
    project.package("x", "name = \"x\"", "src/main.rs", &code);
    project.write("in.txt", "one");
    fs::write(&outside, "one").unwrap();
    let watching = Watching::build(&project);
    assert_eq!(watching.built(), ["x"]);
    for file in [project.path("in.txt"), outside] {
        // It looks once more at what the build has read.
        watching.idle();
        fs::write(file, "two").unwrap();
        assert_eq!(watching.built(), ["x"]);
    }
}

#[test]
fn errors_are_waited_for() {
    let project = project("test \"$(cat in.txt)\" != wrong && ");
    let watching = Watching::build(&project);
    watching.built();
    project.write("a/in.txt", "wrong");
    let said = watching.until(WAITING);
    assert!(said.iter().any(|line| line == "error: guest `a` was not built"), "{said:?}");
    assert_eq!(watching.idle(), [""; 0]);
    project.write("a/in.txt", "right");
    assert_eq!(watching.built(), ["a", "c"]);
    let wetfile = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    project.write("Wetfile.toml", &format!("{wetfile}\n[imge]\n"));
    let said = watching.until(WAITING);
    assert!(said.iter().any(|line| line.contains("unknown key `imge`")), "{said:?}");
    project.write("Wetfile.toml", &wetfile.replace("embeds = [\"a\"]", "embeds = [\"b\"]"));
    assert_eq!(watching.built(), ["c"]);
}

/// As while a branch is switched, or a folder is moved and put back.
#[test]
fn what_is_gone_for_a_moment_is_noticed_when_it_is_back() {
    const FILE: &str = "x/y/a/src/in.txt";
    let project = Project::new("p");
    project.wetfile(&format!(
        "[guest.a]\npath = \"x/y/a\"\nbuild = '''cd src; {COMPONENT}'''\ninputs = [\"src/in.txt\"]\n"
    ));
    project.write(FILE, "00000");
    let watching = Watching::build(&project);
    assert_eq!(watching.built(), ["a"]);
    let aside = project.outside("aside").join("it");
    for (gone, text) in [(FILE, "11111"), ("x/y/a/src", "22222"), ("x/y/a", "33333"), ("x/y", "44444"), ("x", "55555")]
    {
        let place = project.path(gone);
        fs::rename(&place, &aside).unwrap();
        let said = watching.until(WAITING);
        assert!(said.iter().any(|line| line.contains("nothing was built")), "{gone}: {said:?}");
        let below = FILE.strip_prefix(gone).unwrap().trim_start_matches('/');
        fs::write(if below.is_empty() { aside.clone() } else { aside.join(below) }, text).unwrap();
        fs::rename(&aside, &place).unwrap();
        assert_eq!(watching.built(), ["a"], "{gone}");
        assert!(project.artifact("a").ends_with(text.as_bytes()), "{gone}");
    }
    // And where it was never seen.
    let wetfile = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    project.write("Wetfile.toml", &wetfile.replace("x/y/a", "z/z/a"));
    watching.until(WAITING);
    project.write("z/z/a/src/in.txt", "54321");
    assert_eq!(watching.built(), ["a"]);
    assert_eq!(watching.interrupt(), Some(130));
}

/// A build that gives itself a reason to be built again does not do so for ever.
#[test]
fn a_build_that_writes_among_its_inputs_is_given_up() {
    for (end, rounds, why) in [("", 2, "its inputs change while it is built"), ("; exit 1", 10, "exit code 1")] {
        let project = Project::new("p");
        let script = format!("echo >> log; {COMPONENT}{end}");
        project.wetfile(&format!("[guest.a]\npath = \"a\"\nbuild = '''{script}'''\ninputs = [\"**\"]\n"));
        project.write("a/in.txt", "12345");
        let watching = Watching::build(&project);
        for text in ["54321", "55555"] {
            let said = watching.until(WAITING);
            assert_eq!(guests(&said), vec!["a"; rounds], "{said:?}");
            assert!(said.iter().any(|line| line.contains(why)), "{said:?}");
            let told = "what is built from changes with each build: does one write among its sources?";
            assert_eq!(said.last().map(String::as_str), Some(told));
            assert_eq!(watching.idle(), [""; 0]);
            project.write("a/in.txt", text);
        }
    }
}

/// What is behind a symlink, each link on the way, and what a glob fits in a folder that comes later.
#[test]
fn what_lies_elsewhere_is_watched() {
    let project = Project::new("p");
    project.wetfile(&format!(
        "[guest.a]\npath = \"a\"\nbuild = '''{COMPONENT}'''\ninputs = [\"in.txt\", \"../made/more/*.txt\"]\n"
    ));
    ["shared/one/in.txt", "shared/two/in.txt"].iter().for_each(|file| project.write(file, "12345"));
    let link = |target: &str, link: &str| std::os::unix::fs::symlink(target, project.path(link)).unwrap();
    project.write("links/README", "");
    link("../shared/one", "links/now");
    project.write("a/README", "");
    link("../links/now/in.txt", "a/in.txt");
    let watching = Watching::build(&project);
    assert_eq!(watching.built(), ["a"]);
    project.write("shared/one/in.txt", "54321");
    assert_eq!(watching.built(), ["a"]);
    project.write("shared/two/in.txt", "22222");
    assert_eq!(watching.idle(), [""; 0]);
    link("../shared/two", "links/next");
    fs::rename(project.path("links/next"), project.path("links/now")).unwrap();
    assert_eq!(watching.built(), ["a"]);
    project.write("shared/two/in.txt", "33333");
    assert_eq!(watching.built(), ["a"]);
    assert!(project.artifact("a").ends_with(b"33333"));
    for folder in ["made", "made/more"] {
        fs::create_dir(project.path(folder)).unwrap();
        assert_eq!(watching.idle(), [""; 0]);
    }
    project.write("made/more/new.txt", "");
    assert_eq!(watching.built(), ["a"]);
    assert_eq!(watching.interrupt(), Some(130));
}

/// Settings of cargo in folders that were not there, in the project's and in those on the way to the guest.
#[test]
fn settings_that_come_later_are_watched() {
    let project = Project::new("p");
    project.wetfile("[guest.x]\npath = \"code/x\"\n");
    project.package("code/x", "name = \"x\"", "src/main.rs", "fn main() {}");
    let watching = Watching::build(&project);
    assert_eq!(watching.built(), ["x"]);
    // The first build has made a Cargo.lock.
    for folder in [".cargo", "code/.cargo"] {
        fs::create_dir(project.path(folder)).unwrap();
        assert_eq!(watching.idle(), [""; 0]);
        project.write(&format!("{folder}/config.toml"), "[alias]\nb = \"build\"\n");
        assert_eq!(watching.built(), ["x"], "{folder}");
    }
    assert_eq!(watching.interrupt(), Some(130));
}

#[test]
fn a_name_that_nobody_has_is_not_waited_for() {
    let project = project("");
    let mut child =
        ww(&["build", "--watch", "aa"]).current_dir(project.path("")).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(wait(&mut child).code(), Some(7));
}

/// What a run says when its cell has begun.
const LISTENS: &str = "the node listens at ";

/// A project with an image `i`, whose guest reads until the end of its input, and a `ww` that watches and runs it.
fn run() -> (Project, Watching) {
    let project = Project::new("p");
    project.wetfile(
        "[guest.x]\nbuild = '''test \"$(cat in.txt)\" != wrong && cp program.wasm $WW_OUT'''\ninputs = [\"in.txt\"]\n\
         [image.i]\nout = \"out\"\n[image.i.files]\n\"bin/main.wasm\" = { guest = \"x\" }\n\"etc\" = { path = \"etc\" }\n",
    );
    fs::copy(guest("child-echo"), project.path("program.wasm")).unwrap();
    project.write("in.txt", "right");
    project.write("etc/motd", "one");
    let mut command = ww(&["run", "--watch", "--listen", "/ip4/127.0.0.1/tcp/0", "i"]);
    let watching = Watching::start(command.stdin(Stdio::piped()).current_dir(project.path("")));
    watching.until(LISTENS);
    (project, watching)
}

/// A good build starts the cell again, and a bad one leaves it alone.
#[test]
fn a_run_is_started_again() {
    let (project, watching) = run();
    project.write("etc/motd", "two");
    watching.until(LISTENS);
    project.write("in.txt", "wrong");
    let said = watching.until(WAITING);
    assert!(said.iter().any(|line| line == "error: guest `x` was not built"), "{said:?}");
    assert!(!said.iter().any(|line| line.contains(LISTENS) || line.contains("the run ended")), "{said:?}");
    project.write("in.txt", "again");
    project.write("etc/motd", "three");
    watching.until(LISTENS);
    assert_eq!(watching.interrupt(), Some(130));
}

/// To whoever watches it looks as if there were nothing to do.
#[test]
fn what_another_ww_has_built_is_run_as_well() {
    let (project, watching) = run();
    let signal = |signal| rustix::process::kill_process(Pid::from_child(&watching.child), signal).unwrap();
    signal(Signal::STOP);
    project.write("etc/motd", "two");
    finish(ww(&["build", "--offline"]).current_dir(project.path(""))).expect(0);
    signal(Signal::CONT);
    watching.until(LISTENS);
    assert_eq!(watching.interrupt(), Some(130));
}
