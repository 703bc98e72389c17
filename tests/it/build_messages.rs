//! What `ww build` says where it cannot do as it is told: what, where, and what to do about it.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::build_command::{COPY, build, copying_project, project};
use crate::project::Project;
use crate::support::{finish, image, ww};

/// A small program for WASI 0.1.
const MODULE: &str = "(module (memory (export \"memory\") 0) (func (export \"_start\")))";

/// Adds a line to the Wetfile.
fn add(dir: &Path, line: &str) {
    let wetfile = dir.join("Wetfile.toml");
    let text = fs::read_to_string(&wetfile).unwrap();
    fs::write(wetfile, format!("{text}{line}\n")).unwrap();
}

/// Whoever would wait for itself is told so.
#[test]
fn a_command_that_builds_its_own_project_does_not_wait_for_ever() {
    let ww = env!("CARGO_BIN_EXE_ww");
    for inner in ["build", "run echo"] {
        let dir = copying_project(&format!("\"cp echo.wasm $WW_OUT; {ww} {inner}\""));
        let done = build(dir.path(), &[]).expect(4);
        let said = "echo: error: cannot use the project's build state\n\
                    echo:   caused by: this `ww` was started by a build of ";
        assert!(done.stderr.contains(said), "{}", done.stderr);
        assert!(done.stderr.contains("echo:   help: take it out of the guest's command: `embeds`"), "{}", done.stderr);
        assert!(!done.stderr.contains("waiting for another ww"), "{}", done.stderr);
    }
}

/// A program that is called by its path is not looked for in `PATH`, and one that is there is not missing.
#[test]
fn what_is_missing_of_a_program_is_said() {
    let dir = copying_project("[\"./tool.sh\", \"{out}\"]");
    let done = build(dir.path(), &[]).expect(4);
    let said = "caused by: `./tool.sh` is not there, or is no file that can be run: it is looked for in /";
    assert!(done.stderr.contains(said), "{}", done.stderr);
    let write = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    write("tool.sh", "#!/no/such/sh -e\n");
    let done = build(dir.path(), &[]).expect(4);
    let said = "caused by: `./tool.sh` cannot be started: `/no/such/sh`, which its first line names, is not there\n";
    assert!(done.stderr.contains(said), "{}", done.stderr);
    write("tool.sh", "#!/bin/sh\ncp echo.wasm \"$1\"\n");
    build(dir.path(), &[]).expect(0);
    // What is told of it is told as people write it.
    write("tool.sh", "#!/bin/sh\n# edited\ncp echo.wasm \"$1\"\n");
    let done = build(dir.path(), &["--plan"]).expect(0);
    assert_eq!(
        done.stdout,
        "guest echo: tool.sh is not the one that was used before\nimage echo: guest echo, which it uses, is built anew\n"
    );
}

/// A file that is an input by itself and one of a folder.
#[test]
fn what_is_gone_is_told_once() {
    let project = Project::new("p");
    project.wetfile("[guest.g]\npath = \"g\"\n");
    project.package("g", "name = \"g\"", "src/main.rs", "fn main() {}");
    build(&project.path(""), &["--offline"]).expect(0);
    fs::remove_file(project.path("g/Cargo.lock")).unwrap();
    assert_eq!(build(&project.path(""), &["--plan"]).expect(0).stdout, "guest g: g/Cargo.lock is gone\n");
}

#[test]
fn a_result_that_cannot_be_written_is_said() {
    let dir = copying_project(COPY);
    for args in [["build", "--plan"].as_slice(), &["build"], &["build", "--json"], &["schema"], &["graph"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = ww(args).current_dir(dir.path()).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        let said = "error: cannot write to standard output\n  caused by: No space left on device";
        assert!(stderr.contains(said), "{args:?}: {stderr}");
    }
}

/// The mark beside an image is put back where the image is what `ww` left there, and nowhere else.
#[test]
fn a_lost_mark_is_put_back() {
    let dir = copying_project(COPY);
    let mark = dir.path().join(".out.ww");
    build(dir.path(), &[]).expect(0);
    let before = fs::read(&mark).unwrap();
    fs::remove_file(&mark).unwrap();
    build(dir.path(), &[]).expect(0);
    assert_eq!(fs::read(&mark).unwrap(), before);
    // Also where the image is to be another at the same time.
    fs::remove_file(&mark).unwrap();
    fs::copy(crate::support::guest("probe"), dir.path().join("echo.wasm")).unwrap();
    build(dir.path(), &[]).expect(0);
    assert_eq!(fs::read(&mark).unwrap(), before);
    // Somebody has been at it since.
    fs::remove_file(&mark).unwrap();
    fs::write(dir.path().join("out/etc/mine"), "x").unwrap();
    let done = build(dir.path(), &[]).expect(5);
    assert!(done.stderr.contains("was not written by ww"), "{}", done.stderr);
    assert!(!mark.exists() && dir.path().join("out/etc/mine").exists());
}

/// What a misspelt key leads to is not told beside it.
#[test]
fn a_misspelt_key_is_one_error() {
    const IMAGE: &str = "[image.i.files]\n\"bin/main.wasm\" = { guest = \"a\" }\n[image.i]\n";
    const BUILD: &str = "build = [\"cp\", \"x\", \"{out}\"]\n";
    let bild = BUILD.replace("build", "bild");
    for (guest, out, word) in [
        (format!("{bild}inputs = []\n"), "out", "`bild`"),
        (format!("{BUILD}input = []\n"), "out", "`input`"),
        ("paht = \"a\"\n".to_owned(), "out", "`paht`"),
        (format!("{BUILD}inputs = []\n"), "uot", "`uot`"),
    ] {
        let dir = project(&format!("[guest.a]\n{guest}{IMAGE}{out} = \"o\"\n"));
        let done = build(dir.path(), &[]).expect(3);
        assert!(done.stderr.contains(&format!("unknown key {word}")), "{}", done.stderr);
        assert!(done.stderr.contains("Wetfile.toml has 1 error; nothing was built"), "{}", done.stderr);
    }
}

/// Who has a core module is told that it becomes a component as a guest.
#[test]
fn a_core_module_is_told_how_to_become_a_component() {
    const HELP: &str = "help: `ww build` makes a component of a module for WASI 0.1 that is the result of a guest";
    let wasm = wat::parse_str(MODULE).unwrap();
    let dir = project("[image.i]\nout = \"out\"\n[image.i.files]\n\"bin/main.wasm\" = { path = \"tool.wasm\" }\n");
    let file = dir.path().join("tool.wasm");
    fs::write(&file, &wasm).unwrap();
    let done = build(dir.path(), &[]).expect(5);
    assert!(
        done.stderr.contains("is a core module, where a component is needed") && done.stderr.contains(HELP),
        "{}",
        done.stderr
    );
    let as_image = image(&[("bin/main.wasm", &file)]);
    let run = |path: &Path| finish(ww(&["-q", "run", "--listen", "none"]).arg(path).current_dir(dir.path()));
    let done = run(as_image.path()).expect(126);
    assert!(done.stderr.contains("wasm-tools component new") && done.stderr.contains(HELP), "{}", done.stderr);
    let done = run(Path::new("tool.wasm")).expect(126);
    let said = "help: a program by itself is run so: mkdir -p x/bin && cp tool.wasm x/bin/main.wasm && ww run x\n";
    assert!(done.stderr.contains(said), "{}", done.stderr);
    // It is as it is said.
    fs::write(dir.path().join("Wetfile.toml"), "wetfile = 1\n[project]\nname = \"p\"\nversion = \"0.1.0\"\n").unwrap();
    add(dir.path(), "[guest.x]\nbuild = [\"cp\", \"tool.wasm\", \"{out}\"]\ninputs = [\"tool.wasm\"]");
    add(dir.path(), "[image.i]\nout = \"out\"\n[image.i.files]\n\"bin/main.wasm\" = { guest = \"x\" }");
    run(Path::new("i")).expect(0);
}

/// What `ww run` would refuse is not assembled.
#[test]
fn an_image_that_asks_for_nonsense_is_not_assembled() {
    let dir = copying_project(COPY);
    add(dir.path(), "\"etc\" = { path = \"etc\" }");
    fs::create_dir(dir.path().join("etc")).unwrap();
    let cell = dir.path().join("etc/cell.toml");
    fs::write(&cell, "cell = 1\ngrants = [\"everything\"]\n").unwrap();
    let done = build(dir.path(), &[]).expect(5);
    assert!(done.stderr.contains("error: image `echo` was not assembled\n"), "{}", done.stderr);
    assert!(done.stderr.contains("caused by: `etc/cell.toml` cannot be used: "), "{}", done.stderr);
    assert!(!dir.path().join("out").exists());
    fs::write(&cell, "cell = 1\n").unwrap();
    build(dir.path(), &[]).expect(0);
}

/// A name that no image can hold is not left out in silence, unless the glob has nothing to do with it.
#[test]
fn a_name_that_is_not_utf8_is_an_error_for_globs_as_well() {
    let dir = copying_project(COPY);
    add(dir.path(), "\"usr/share\" = { path = \"data\", glob = \"**/*.txt\" }");
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("data/good.txt"), "x").unwrap();
    let odd = |bytes: &[u8]| dir.path().join("data").join(std::ffi::OsString::from_vec(bytes.to_vec()));
    fs::write(odd(b"bad\xff.md"), "x").unwrap();
    fs::create_dir(odd(b"\xff")).unwrap();
    fs::write(odd(b"\xff/readme.md"), "x").unwrap();
    build(dir.path(), &[]).expect(0);
    for name in [b"bad\xff.txt".as_slice(), b"\xff/good.txt"] {
        fs::write(odd(name), "x").unwrap();
        let done = build(dir.path(), &[]).expect(5);
        assert!(
            done.stderr.contains("caused by: the name of data/") && done.stderr.contains("is not UTF-8"),
            "{}",
            done.stderr
        );
        fs::remove_file(odd(name)).unwrap();
    }
    build(dir.path(), &[]).expect(0);
}
