//! Compiling in a process of its own, and keeping what comes out.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use ww::cell::compile_child::{ARGUMENT, ChildCompiler, CompileLimits};
use ww::cell::{CodeCache, Compiler, CompilerOptions, ComponentError, Engine, EngineOptions};

use crate::project::Project;
use crate::support::{Done, finish, finish_with, image_of, probe_image, ww, ww_run};

/// A program that returns success at once, with this text of a function in its core module beside it.
fn program(function: &str) -> Bytes {
    program_with("", function)
}

/// As [`program`], with these imports.
fn program_with(imports: &str, function: &str) -> Bytes {
    let text = format!(
        r#"(component {imports}
        (core module $m (func (export "run") (result i32) i32.const 0) {function})
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (component $c (import "f" (func $f (result (result)))) (export "run" (func $f)))
        (instance $r (instantiate $c (with "f" (func $run))))
        (export "wasi:cli/run@0.2.0" (instance $r)))"#
    );
    wat::parse_str(text).unwrap().into()
}

/// Some 30 bytes for each unit of `size`, for which a compiler needs memory and time by the square of it: all variables
/// meet at the head of each loop.
fn bomb(size: usize) -> Bytes {
    let mut text = String::from(r#"(func (export "bomb") (param i32) (result i32)"#);
    text.push_str(&format!("(local{})", " i32".repeat(size)));
    for local in 1..=size {
        text.push_str(&format!("(local.set {local} (i32.add (local.get 0) (i32.const {local})))"));
    }
    for number in 0..size {
        let local = 1 + number * 7919 % size;
        text.push_str(&format!(
            "(loop (local.set {local} (i32.add (local.get {local}) (local.get 0))) (br_if 0 (local.get {local})))"
        ));
    }
    text.push_str("(local.get 0)");
    for local in 1..=size {
        text.push_str(&format!("(i32.add (local.get {local}))"));
    }
    text.push(')');
    program(&text)
}

fn compiler(limits: CompileLimits, cache: Option<CodeCache>) -> Compiler {
    let child = ChildCompiler { program: env!("CARGO_BIN_EXE_ww").into(), limits };
    let options = CompilerOptions { cache, child: Some(child) };
    Compiler::with_options(Engine::new(EngineOptions::default()).unwrap(), Handle::current(), options)
}

/// The numbers of the processes that compile under these limits.
fn compiling(limits: CompileLimits) -> Vec<u32> {
    let limits = serde_json::to_string(&limits).unwrap();
    let processes = fs::read_dir("/proc").unwrap();
    let numbers = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_one = |number: &u32| {
        let words = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        words.contains(ARGUMENT) && words.contains(&limits)
    };
    numbers.filter(is_one).collect()
}

/// Waits until something is so.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what} does not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_compiles_and_the_cache_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let cache = CodeCache::open(dir.path(), 1 << 20).unwrap();
    let wasm = program("");
    for cache in [None, Some(cache.clone())] {
        compiler(CompileLimits::default(), cache).compile(wasm.clone()).await.unwrap();
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(compiler(CompileLimits::default(), Some(cache)).find(&wasm).unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_component_is_said_as_without_a_process() {
    let here = Compiler::new(Engine::new(EngineOptions::default()).unwrap(), Handle::current());
    let there = compiler(CompileLimits::default(), None);
    let chain = |error: ComponentError| {
        let mut texts = vec![error.to_string()];
        let mut next = std::error::Error::source(&error);
        while let Some(error) = next {
            texts.push(error.to_string());
            next = error.source();
        }
        texts
    };
    let library = wat::parse_str(r#"(component (instance $e) (export "b" (instance $e)))"#).unwrap();
    let import = wat::parse_str(r#"(component (import "acme:door/open@1.0.0" (instance (export "push" (func)))))"#);
    let mut wrong = vec![library, import.unwrap(), Vec::new(), b"\0asm\x01\0\0\0".to_vec(), b"not wasm".to_vec()];
    wrong.push(b"\0asm\x0d\0\x01\0\x01\xff\xff".to_vec());
    wrong.push(program("").slice(..200).to_vec());
    wrong.push(wat::parse_str(r"(component (core module (func (result i32) i64.const 0)))").unwrap());
    for wasm in wrong {
        let expected = chain(here.compile(wasm.clone().into()).await.unwrap_err());
        assert_eq!(chain(there.compile(wasm.into()).await.unwrap_err()), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_ends_at_the_limit_that_it_reaches() {
    let dir = tempfile::tempdir().unwrap();
    let bomb = bomb(3000);
    assert!(bomb.len() < 200 << 10, "{} bytes are not a small program", bomb.len());
    let unlimited = CompileLimits::default();
    let cases = [
        (CompileLimits { memory_bytes: 350 << 20, ..unlimited }, "compiling it takes more than 350 MiB of memory"),
        (CompileLimits { cpu_seconds: 1, ..unlimited }, "compiling it takes more than 1 s of processor time"),
        (CompileLimits { wall_seconds: 1, ..unlimited }, "compiling it takes more than 1 s"),
    ];
    for (limits, expected) in cases {
        let cache = CodeCache::open(dir.path(), 1 << 20).unwrap();
        let error = compiler(limits, Some(cache)).compile(bomb.clone()).await.unwrap_err();
        assert_eq!(error.to_string(), expected, "{error:?}");
        assert_eq!(compiling(limits), [0_u32; 0]);
    }
    let limits = CompileLimits { code_bytes: 4096, ..unlimited };
    let error = compiler(limits, None).compile(program("")).await.unwrap_err();
    assert_eq!(error.to_string(), "compiling it takes more than 0 MiB for the compiled code", "{error:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_for_which_nobody_waits_is_ended() {
    let limits = CompileLimits { cpu_seconds: 1001, ..CompileLimits::default() };
    let compiler = compiler(limits, None);
    let bomb = bomb(6000);
    let (one, two) = (tokio::spawn(compile(&compiler, &bomb)), tokio::spawn(compile(&compiler, &bomb)));
    wait_until("a process", || !compiling(limits).is_empty());
    one.abort();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(compiling(limits).len(), 1);
    two.abort();
    wait_until("its end", || compiling(limits).is_empty());
}

fn compile(compiler: &Compiler, wasm: &Bytes) -> impl Future<Output = bool> + use<> {
    let (compiler, wasm) = (compiler.clone(), wasm.clone());
    async move { compiler.compile(wasm).await.is_ok() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_no_compiler_is_an_error() {
    for (program, expected) in
        [("/bin/true", "damaged"), ("/bin/false", "exit status: 1"), ("/nowhere", "No such file")]
    {
        let child = ChildCompiler { program: program.into(), limits: CompileLimits::default() };
        let options = CompilerOptions { cache: None, child: Some(child) };
        let compiler =
            Compiler::with_options(Engine::new(EngineOptions::default()).unwrap(), Handle::current(), options);
        let error = compiler.compile(self::program("")).await.unwrap_err();
        assert_eq!(error.to_string(), "the compiler failed");
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains(expected), "{program}: {why}");
    }
}

/// A user of a new machine.
struct User {
    home: tempfile::TempDir,
}

impl User {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("ww/code")
    }

    /// `ww run`, with a log that says what comes from the cache.
    fn command(&self, image: &Path, args: &[&str]) -> Command {
        let mut command = ww_run(image, args);
        command.env("XDG_CACHE_HOME", self.home.path()).env("RUST_LOG", "ww::cell=debug");
        command
    }

    /// Runs the probe, which is to print its arguments, and tells whether its code was found.
    fn run(&self, image: &Path) -> bool {
        let done = finish(&mut self.command(image, &["--", "args", "x"])).expect(0);
        assert_eq!(done.stdout, "\"main.wasm\"\n\"args\"\n\"x\"\n");
        done.stderr.contains("found compiled")
    }

    fn entries(&self) -> Vec<PathBuf> {
        fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

#[test]
fn the_second_run_does_not_compile() {
    let (user, image) = (User::new(), probe_image());
    assert!(!user.run(image.path()));
    assert!(user.run(image.path()));
    assert_eq!(user.entries().len(), 1);
    // Nor do those of children.
    let run =
        || finish_with(&mut user.command(image.path(), &["--", "spawn-time", "/bin/child-echo.wasm", "1"]), vec![]);
    run().expect(0);
    assert_eq!(user.entries().len(), 2);
    assert_eq!(run().expect(0).stderr.matches("found compiled").count(), 2);
}

/// X17: a cache that is cut short or written by another version must not fail any run.
#[test]
fn damaged_code_is_compiled_again() {
    let (user, image) = (User::new(), probe_image());
    user.run(image.path());
    let [entry] = &user.entries()[..] else { panic!("one file is expected") };
    let whole = fs::read(entry).unwrap();
    let noise: Vec<u8> = (0..whole.len() as u64).map(|number| (number.wrapping_mul(0x9E37_79B9) >> 13) as u8).collect();
    for damaged in [&whole[..whole.len() / 2], b"", &noise] {
        fs::write(entry, damaged).unwrap();
        assert!(!user.run(image.path()));
        // The same bytes each time: what is compiled in parallel is put together in order.
        assert!(fs::read(entry).unwrap().len() == whole.len() && user.run(image.path()));
    }
}

#[test]
fn two_that_start_at_once_both_run() {
    let (user, image) = (User::new(), probe_image());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| user.run(image.path()));
        }
    });
    assert_eq!(user.entries().len(), 1);
}

#[test]
fn a_folder_that_cannot_be_trusted_is_not_used() {
    let (user, image) = (User::new(), image_of("child-echo"));
    fs::create_dir_all(user.folder()).unwrap();
    fs::set_permissions(user.folder(), Permissions::from_mode(0o777)).unwrap();
    let mut command = ww(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let done = finish(command.arg(image.path()).env("XDG_CACHE_HOME", user.home.path())).expect(0);
    let warning = format!(
        "warning: others can write to the folder {} (mode 0777), so its code is not trusted; each run compiles anew\n",
        user.folder().display()
    );
    assert!(done.stderr.contains(&warning), "{}", done.stderr);
    assert!(user.entries().is_empty());
}

#[test]
fn the_size_is_the_users_choice() {
    let (user, image) = (User::new(), probe_image());
    let run = |value: &str| finish(user.command(image.path(), &["--", "exit", "0"]).env("WW_CODE_CACHE_MAX", value));
    run("0").expect(0);
    assert!(!user.folder().exists());
    run("1KiB").expect(0);
    assert!(user.entries().is_empty());
    run("1GiB").expect(0);
    assert_eq!(user.entries().len(), 1);
    let done: Done = run("many").expect(125);
    assert!(done.stderr.contains("WW_CODE_CACHE_MAX is `many`"), "{}", done.stderr);
}

#[test]
fn the_state_folder_has_the_cache_where_one_is_named() {
    let (user, image) = (User::new(), probe_image());
    let home = user.home.path().join("state");
    finish(user.command(image.path(), &["--", "exit", "0"]).env("WW_HOME", &home)).expect(0);
    assert_eq!(fs::read_dir(home.join("code")).unwrap().count(), 1);
}

#[test]
fn a_killed_run_leaves_no_compiler() {
    let user = User::new();
    let image = tempfile::tempdir().unwrap();
    fs::create_dir(image.path().join("bin")).unwrap();
    // Compiling it takes far longer than the test.
    fs::write(image.path().join("bin/main.wasm"), bomb(8000)).unwrap();
    for signal in ["KILL", "INT"] {
        let mut run = user.command(image.path(), &[]).stderr(Stdio::null()).spawn().unwrap();
        let parent = format!("\"parent\":{}", run.id());
        let is_compiling = || {
            compiling(CompileLimits::default()).iter().any(|number| {
                String::from_utf8_lossy(&fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default())
                    .contains(&parent)
            })
        };
        wait_until("a compiler", is_compiling);
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(run.id().to_string()).status().unwrap();
        assert!(sent.success());
        run.wait().unwrap();
        wait_until("its end", || !is_compiling());
    }
}

#[test]
fn what_takes_long_is_said() {
    let image = tempfile::tempdir().unwrap();
    fs::create_dir(image.path().join("bin")).unwrap();
    fs::write(image.path().join("bin/main.wasm"), bomb(2500)).unwrap();
    let run = |args: &[&str]| {
        let user = User::new();
        let mut command = ww(args);
        let done = finish(command.arg(image.path()).env("XDG_CACHE_HOME", user.home.path())).expect(0);
        done.stderr.matches(&format!("compiling {}\n", image.path().display())).count()
    };
    assert_eq!(run(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]), 1);
    assert_eq!(run(&["-q", "run", "--listen", "/ip4/127.0.0.1/tcp/0"]), 0);
}

#[test]
fn a_build_compiles_what_is_new() {
    let (user, project) = (User::new(), Project::new("p"));
    project.wetfile(
        "[guest.x]\ninputs = [\"*.wasm\"]\nbuild = 'cp program.wasm \"$WW_OUT\"'\n\
         [image.x]\nout = \"out\"\n[image.x.files]\n\"bin/main.wasm\" = { guest = \"x\" }\n",
    );
    fs::write(project.path("program.wasm"), program("")).unwrap();
    let build = || {
        let mut command = ww(&["-C", project.path("").to_str().unwrap(), "build"]);
        finish(command.env("XDG_CACHE_HOME", user.home.path())).expect(0).stderr
    };
    build();
    let [entry] = &user.entries()[..] else { panic!("one file is expected") };
    let done = finish(&mut user.command(&project.path("out"), &[])).expect(0);
    assert!(done.stderr.contains("found compiled"), "{}", done.stderr);
    // What is as it was is none of its business.
    fs::remove_file(entry).unwrap();
    build();
    assert!(user.entries().is_empty());
    // Another host may have what this one has not.
    let import = r#"(import "acme:door/open@1.0.0" (instance (export "push" (func))))"#;
    fs::write(project.path("program.wasm"), program_with(import, "")).unwrap();
    let said = build();
    let warning = "x: warning: out/bin/main.wasm cannot be run: it imports what this host does not have";
    assert!(said.replace(project.path("").to_str().unwrap(), "").contains(warning), "{said}");
}

/// The last that a build does takes as long as any compiler, and is ended as one.
#[test]
fn a_signal_stops_a_build_that_compiles_for_this_machine() {
    let project = Project::new("p");
    project.wetfile(
        "[guest.x]\nbuild = [\"cp\", \"bomb.wasm\", \"{out}\"]\ninputs = [\"bomb.wasm\"]\n\
         [image.i]\nout = \"out\"\n[image.i.files]\n\"bin/main.wasm\" = { guest = \"x\" }\n",
    );
    fs::write(project.path("bomb.wasm"), bomb(6000)).unwrap();
    for (signal, code) in [("INT", 130), ("HUP", 129)] {
        let _ = fs::remove_dir_all(project.path("out"));
        let mut command = ww(&["build"]);
        command.env("WW_HOME", project.outside("home")).current_dir(project.path(""));
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let order = format!("\"parent\":{}}}", child.id());
        let is_compiling = || {
            let is_ours = |number: u32| {
                fs::read_to_string(format!("/proc/{number}/cmdline")).is_ok_and(|words| words.contains(&order))
            };
            compiling(CompileLimits::default()).into_iter().any(is_ours)
        };
        wait_until("a compiler", is_compiling);
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
        assert_eq!(crate::support::wait(&mut child).code(), Some(code));
        assert!(!is_compiling(), "it still compiles");
    }
}
