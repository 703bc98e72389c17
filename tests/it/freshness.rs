//! What `ww build` builds again, and what `ww why` says of it.

use std::ffi::OsString;
use std::fs;
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use ww::build::queue::AfterFailure;
use ww::build::{Event, Reason};
use ww::ops::{self, BuildOptions, Built, Environment};
use ww::wetfile::{GuestName, ImageName};

use crate::project::Project;
use crate::support::{finish, ww};

/// A shell command that makes a component of `in.txt`, which has five bytes.
const COMPONENT: &str = r#"{ printf '\000asm\015\000\001\000\000\007\001n'; cat in.txt; } > "$WW_OUT""#;

/// A shell command that makes a program of it.
const PROGRAM: &str = r#"{ cat ../program.wasm; printf '\000\007\001n'; cat in.txt; } > "$WW_OUT""#;

/// The same of the beginning of `in.txt`, so that its end makes no difference.
const BEGINNING: &str = r#"{ printf '\000asm\015\000\001\000\000\007\001n'; head -c 5 in.txt; } > "$WW_OUT""#;

/// The guests `a`, `b` which embeds it, and `c`; an image of `b` with files of the project.
fn project() -> Project {
    let project = Project::new("p");
    let guest = |name: &str, build: &str, more: &str| {
        format!("[guest.{name}]\npath = \"{name}\"\nbuild = '''{build}'''\ninputs = [\"*.txt\"]\n{more}\n")
    };
    let image = "[image.i]\nout = \"out/i\"\n[image.i.files]\n\"bin/main.wasm\" = { guest = \"b\" }\n\
                 \"etc\" = { path = \"etc\" }\n";
    let guests = [
        guest("a", COMPONENT, "env.LEVEL.inherit = true\nenv.API_TOKEN.inherit = true"),
        guest("b", PROGRAM, "embeds = [\"a\"]"),
        guest("c", COMPONENT, ""),
    ];
    fs::copy(crate::support::guest("child-echo"), project.path("program.wasm")).unwrap();
    project.wetfile(&format!("{}{image}", guests.concat()));
    ["a", "b", "c"].iter().for_each(|name| project.write(&format!("{name}/in.txt"), "12345"));
    project.write("etc/motd", "hello");
    project
}

/// What a build starts, as `guest: reason; reason`, and its result.
fn build_with(project: &Project, options: BuildOptions) -> (Vec<String>, Result<Built, ops::Error>) {
    let started = Mutex::new(Vec::new());
    let events = |event: Event<'_>| {
        if let Event::Started { guest, reasons } = event {
            started.lock().unwrap().push(format!("{guest}: {}", sentences(reasons)));
        }
    };
    let checked = ww::wetfile::load(&project.path("")).unwrap();
    let environment = Environment {
        variables: &project.variables,
        ww: Path::new(env!("CARGO_BIN_EXE_ww")),
        cancel: &project.cancel,
        events: &events,
        content: &ops::NoContent,
    };
    let built = ops::build(&environment, &checked, &[], BuildOptions { offline: true, ..options });
    (started.into_inner().unwrap(), built)
}

/// What a build starts that must succeed.
fn build(project: &Project) -> Vec<String> {
    let (started, built) = build_with(project, BuildOptions { jobs: NonZero::new(1), ..BuildOptions::default() });
    built.unwrap();
    started
}

fn sentences(reasons: &[Reason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What a build would do, as `guest a: reason`.
fn plan(project: &Project) -> Vec<String> {
    let checked = ww::wetfile::load(&project.path("")).unwrap();
    let plan = ops::plan_build(&project.variables, &checked, &[], &|| false).unwrap();
    let guests = plan.guests.iter().map(|planned| (format!("guest {}", planned.name), &planned.reasons));
    let images = plan.images.iter().map(|planned| (format!("image {}", planned.name), &planned.reasons));
    let stale = guests.chain(images).filter(|(_, reasons)| !reasons.is_empty());
    stale.map(|(name, reasons)| format!("{name}: {}", sentences(reasons))).collect()
}

/// Long enough for a file to be recognized by its times.
fn settle() {
    thread::sleep(Duration::from_millis(150));
}

const FIRST: &str = "it was not built here before";

#[test]
fn nothing_is_built_twice() {
    let project = project();
    settle();
    assert_eq!(build(&project), [format!("a: {FIRST}"), format!("b: {FIRST}"), format!("c: {FIRST}")]);
    for _ in 0..3 {
        assert_eq!(build(&project), [""; 0]);
        settle();
    }
    let (_, built) = build_with(&project, BuildOptions { locked: true, ..BuildOptions::default() });
    assert!(!built.unwrap().images[0].changed);
    assert_eq!(plan(&project), [""; 0]);
}

/// Every reason has a sentence, which the plan says before and the build when it starts.
#[test]
fn each_reason_is_told() {
    type Step<'a> = (&'a dyn Fn(&mut Project), &'a str);
    let mut project = project();
    project.set("LEVEL", "1");
    project.set("API_TOKEN", "one");
    build(&project);
    let mut check = |change: &dyn Fn(&mut Project), planned: &[&str], started: &[&str]| {
        settle();
        assert_eq!(plan(&project), [""; 0], "before: {planned:?}");
        change(&mut project);
        assert_eq!(plan(&project), planned);
        assert_eq!(build(&project), started, "{planned:?}");
    };

    let of_one: [Step<'_>; 8] = [
        (&|project| project.write("c/in.txt", "54321"), "c: c/in.txt has changed"),
        (&|project| project.write("c/new.txt", ""), "c: c/new.txt is new"),
        (&|project| fs::remove_file(project.path("c/new.txt")).unwrap(), "c: c/new.txt is gone"),
        (
            &|project| fs::remove_file(project.path("target/ww/guests/c.wasm")).unwrap(),
            "c: its result target/ww/guests/c.wasm is gone",
        ),
        (
            &|project| project.write("target/ww/guests/c.wasm", "altered"),
            "c: its result target/ww/guests/c.wasm was changed after it was built",
        ),
        (
            &|project| edit(project, "[guest.c]\n", "[guest.c]\nenv.X = \"1\"\n"),
            "c: `env.X` in the Wetfile is new: \"1\"",
        ),
        (
            &|project| edit(project, "env.X = \"1\"\n", "env.X = \"2\"\n"),
            "c: `env.X` in the Wetfile has changed: \"1\" \u{2192} \"2\"",
        ),
        (&|project| edit(project, "env.X = \"2\"\n", ""), "c: `env.X` in the Wetfile is gone: it was \"2\""),
    ];
    for (change, text) in of_one {
        check(change, &[&format!("guest {text}")], &[text]);
    }

    // What `a` becomes does not depend on its variables, so `b` is not built again.
    let unsure = ["guest b: guest a, which it uses, is built anew", "image i: guest b, which it uses, is built anew"];
    let of_variables: [Step<'_>; 3] = [
        (&|project| project.set("LEVEL", "2"), "a: the variable LEVEL has another value: `1` \u{2192} `2`"),
        (&|project| project.set("API_TOKEN", "two"), "a: the variable API_TOKEN has another value"),
        (
            &|project| drop(project.variables.remove(&OsString::from("LEVEL"))),
            "a: the variable LEVEL has another value: `2` \u{2192} unset",
        ),
    ];
    for (change, text) in of_variables {
        check(change, &[&format!("guest {text}"), unsure[0], unsure[1]], &[text]);
    }
    check(
        &|project| project.write("a/in.txt", "54321"),
        &["guest a: a/in.txt has changed", unsure[0], unsure[1]],
        &["a: a/in.txt has changed", "b: guest a, which it uses, is built anew"],
    );
    check(
        &|project| project.write("b/in.txt", "54321"),
        &["guest b: b/in.txt has changed", unsure[1]],
        &["b: b/in.txt has changed"],
    );

    let of_image: [Step<'_>; 6] = [
        (&|project| project.write("etc/motd", "hallo"), "etc/motd has changed"),
        (&|project| project.write("etc/issue", "new"), "etc/issue is new"),
        (&|project| fs::remove_file(project.path("etc/issue")).unwrap(), "etc/issue is gone"),
        (
            &|project| project.write("out/i/etc/motd", "altered"),
            "its result out/i/etc/motd was changed after it was built",
        ),
        (&|project| project.write("out/i/etc/more", ""), "out/i/etc/more was added to its result"),
        (&|project| fs::remove_dir_all(project.path("out/i")).unwrap(), "its result out/i is gone"),
    ];
    for (change, text) in of_image {
        check(change, &[&format!("image i: {text}")], &[]);
    }
    check(
        &|project| edit(project, "\"etc\" = {", "\"etc/sub\" = {"),
        &["image i: `files.\"etc\"` in the Wetfile is gone: it was { path = \"etc\" }; \
           `files.\"etc/sub\"` in the Wetfile is new: { path = \"etc\" }; etc is new"],
        &[],
    );
}

/// A program of a command counts by what it is, not by when it came.
#[test]
fn another_program_is_a_reason() {
    let mut project = Project::with_guest("build = [\"make-it\", \"{out}\"]\ninputs = []");
    let bin = project.outside("bin");
    let program = |folder: &Path, text: &str| {
        let path = folder.join("make-it");
        let script = format!("#!/bin/sh\n{text}\nprintf '\\000asm\\015\\000\\001\\000' > \"$1\"\n");
        fs::write(&path, script).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    program(&bin, "");
    let path = project.variables.get(&OsString::from("PATH")).cloned().unwrap();
    let with = |folder: &Path| {
        std::env::join_paths(std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path))).unwrap()
    };
    project.set("PATH", with(&bin));
    assert_eq!(build(&project), [format!("x: {FIRST}")]);
    program(&bin, "");
    assert_eq!(build(&project), [""; 0]);
    program(&bin, "true");
    let told = |folder: &Path| format!("x: {} is not the one that was used before", folder.join("make-it").display());
    assert_eq!(build(&project), [told(&bin)]);
    // Where `PATH` finds another one first.
    let other = project.outside("other");
    program(&other, "false");
    project.set("PATH", with(&other));
    assert_eq!(build(&project), [told(&other)]);
}

/// A program is looked for where the guest's own table says.
#[test]
fn a_path_of_its_own_is_no_reason() {
    let mut project = Project::new("p");
    let bin = project.outside("bin");
    fs::copy("/bin/cp", bin.join("make-it")).unwrap();
    project.wetfile(&format!(
        "[guest.x]\nbuild = ['make-it', 'program.wasm', '{{out}}']\ninputs = []\nenv.PATH = '{}'\n",
        bin.display()
    ));
    fs::copy(crate::support::guest("child-echo"), project.path("program.wasm")).unwrap();
    assert_eq!(build(&project), [format!("x: {FIRST}")]);
    assert_eq!(build(&project), [""; 0]);
    // What the others are given is none of its business.
    let path = project.variables.get(&OsString::from("PATH")).cloned().unwrap();
    project.set("PATH", std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path))).unwrap());
    assert_eq!(build(&project), [""; 0]);
}

/// A Zig that is none: it copies the first source.
fn fake_zig(folder: &Path) {
    let script = "#!/bin/sh\n[ $1 = version ] && { echo 0.99; exit; }\nwhile [ $# -gt 0 ]; do case $1 in\n\
                  -o) out=$2; shift ;; *.c) in=${in:-$1} ;; esac; shift; done\ncat program.wasm > $out; cat $in >> ran\n";
    fs::write(folder.join("zig"), script).unwrap();
    fs::set_permissions(folder.join("zig"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// What a compiler is given by name counts, also where git does not see it; and so does a tool that would be taken before.
#[test]
fn what_a_language_takes_is_seen() {
    let mut project = Project::new("p");
    let [bin, first] = ["bin", "first"].map(|name| project.outside(name));
    fake_zig(&bin);
    project.wetfile("[guest.x]\npath = 'x'\nlang = 'c'\n");
    project.write("x/made.c", "one\n");
    project.write("x/.gitignore", "made.c\nran\nprogram.wasm\n");
    fs::copy(crate::support::guest("child-echo"), project.path("x/program.wasm")).unwrap();
    let path = project.variables.get(&OsString::from("PATH")).cloned().unwrap();
    let with = |folders: [&Path; 2]| {
        let folders = folders.map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
        std::env::join_paths(folders).unwrap()
    };
    project.set("PATH", with([&first, &bin]));
    assert_eq!(build(&project), [format!("x: {FIRST}")]);
    assert_eq!(build(&project), [""; 0]);
    project.write("x/made.c", "two\n");
    assert_eq!(build(&project), ["x: x/made.c has changed"]);
    assert_eq!(project.read("x/ran"), b"one\ntwo\n");
    assert_eq!(build(&project), [""; 0]);
    fake_zig(&first);
    // It is asked, and is the same.
    assert_eq!(build(&project), [""; 0]);
    fs::write(first.join("zig"), "#!/bin/sh\nexit 1\n").unwrap();
    let done = build_with(&project, BuildOptions::default());
    assert!(done.1.is_err() || done.0.len() == 1, "{done:?}");
}

/// A tool of the guest's own comes before that on `PATH`, also when it comes later, or has begun to work again.
#[test]
fn a_tool_of_its_own_comes_first() {
    let mut project = Project::new("p");
    let bin = project.outside("bin");
    let tool = |folder: &Path, version: &str| {
        let script = format!(
            "#!/bin/sh\n[ $1 = --version ] && {{ echo componentize-py {version}; exit; }}\n\
             while [ $# -gt 0 ]; do case $1 in --output) out=$2 ;; esac; shift; done\ncat program.wasm > $out\n"
        );
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("componentize-py"), script).unwrap();
        fs::set_permissions(folder.join("componentize-py"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    tool(&bin, "0.98");
    project.wetfile("[guest.x]\npath = 'x'\nlang = 'python'\nreproducible = false\n");
    project.write("x/app.py", "");
    project.write("x/.gitignore", ".venv\nprogram.wasm\n");
    fs::copy(crate::support::guest("child-echo"), project.path("x/program.wasm")).unwrap();
    let path = project.variables.get(&OsString::from("PATH")).cloned().unwrap();
    project.set("PATH", std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path))).unwrap());
    assert_eq!(build(&project), [format!("x: {FIRST}")]);
    assert_eq!(build(&project), [""; 0]);
    let own = project.path("x/.venv/bin");
    tool(&own, "0.99");
    let other = "x: it was compiled by another toolchain: componentize-py 0.98, wasi 0.2, recipe 1 → componentize-py 0.99, \
                 wasi 0.2, recipe 1";
    assert_eq!(build(&project), [other]);
    // Its folder was moved: its interpreter is not there any more.
    fs::write(own.join("componentize-py"), "#!/nowhere/python3\n").unwrap();
    assert_eq!(build(&project).len(), 1);
    assert_eq!(build(&project), [""; 0]);
    tool(&own, "0.99");
    assert_eq!(build(&project), [other]);
}

/// A manifest that comes to lie above a package is one that cargo looks into.
#[test]
fn a_workspace_above_is_seen() {
    let project = Project::new("p");
    project.wetfile("[guest.x]\npath = 'deep/x'\n");
    project.write("deep/x/Cargo.toml", "[package]\nname = 'x'\nversion = '0.1.0'\nedition = '2024'\n");
    project.write("deep/x/src/main.rs", "fn main() {}\n");
    let build = || build_with(&project, BuildOptions { offline: true, ..BuildOptions::default() });
    assert_eq!(build().0, [format!("x: {FIRST}")]);
    assert_eq!(build().0, [""; 0]);
    project
        .write("Cargo.toml", "[workspace]\nmembers = ['deep/x']\nresolver = '3'\n[profile.release]\nopt-level = 0\n");
    let (started, built) = build();
    built.unwrap();
    assert_eq!(started, ["x: the `[workspace]` of Cargo.toml is new"]);
    assert_eq!(build().0, [""; 0]);
}

/// What says nothing about content is no reason.
#[test]
fn times_and_modes_are_no_reasons() {
    let mut project = project();
    build(&project);
    settle();
    let file = project.path("c/in.txt");
    let set_time = || fs::File::options().write(true).open(&file).unwrap();
    let touches: [&dyn Fn(); 7] = [
        &|| set_time().set_modified(std::time::UNIX_EPOCH).unwrap(),
        &|| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap(),
        &|| project.write("c/in.txt", "12345"),
        &|| {
            project.write("c/.in.txt.swp", "x");
            fs::remove_file(project.path("c/.in.txt.swp")).unwrap();
        },
        // What editors leave is no input, though the glob fits it.
        &|| [".#x.txt", "4913", "in.txt~"].iter().for_each(|name| project.write(&format!("c/{name}"), "x")),
        // A file is replaced as editors do.
        &|| {
            project.write("c/tmp", "12345");
            fs::rename(project.path("c/tmp"), &file).unwrap();
        },
        &|| edit(&project, "[guest.c]", "# a comment\n[guest.c]"),
    ];
    for touch in touches {
        touch();
        assert_eq!(plan(&project), [""; 0]);
        assert_eq!(build(&project), [""; 0]);
    }
    project.set("UNDECLARED", "1");
    assert_eq!(build(&project), [""; 0]);
}

/// The same size, and the time that it had before.
#[test]
fn an_edit_is_seen_whatever_its_time() {
    let project = project();
    settle();
    build(&project);
    settle();
    build(&project);
    let file = project.path("c/in.txt");
    let before = fs::metadata(&file).unwrap().modified().unwrap();
    project.write("c/in.txt", "54321");
    fs::File::options().write(true).open(&file).unwrap().set_modified(before).unwrap();
    assert_eq!(build(&project), ["c: c/in.txt has changed"]);
}

/// What comes out the same needs nothing built that is made of it; the lock knows of it all the same.
#[test]
fn what_comes_out_the_same_is_no_reason() {
    let project = project();
    command_of_a(&project, BEGINNING);
    build(&project);
    let modified = || fs::metadata(project.path("target/ww/guests/b.wasm")).unwrap().modified().unwrap();
    let (artifact, lock) = (modified(), project.read("Wetfile.lock"));
    project.write("a/in.txt", "12345 and more");
    assert_eq!(build(&project), ["a: a/in.txt has changed"]);
    assert_eq!(modified(), artifact);
    assert_ne!(project.read("Wetfile.lock"), lock);
    let (started, built) = build_with(&project, BuildOptions { locked: true, ..BuildOptions::default() });
    assert_eq!((started, built.unwrap().images.len()), (vec![], 1));
    let report = finish(ww(&["verify"]).current_dir(project.path("")));
    assert!(!report.stdout.contains("out of date"), "{}{}", report.stdout, report.stderr);
}

/// A checkout has other times, inodes and places; what is kept of `target/ww` serves all the same.
#[test]
fn a_fresh_checkout_builds_nothing() {
    let project = project();
    build(&project);
    let copy = Project::new("elsewhere");
    for path in ["Wetfile.toml", "Wetfile.lock", "program.wasm", "a/in.txt", "b/in.txt", "c/in.txt", "etc/motd"] {
        fs::create_dir_all(copy.path(path).parent().unwrap()).unwrap();
        fs::copy(project.path(path), copy.path(path)).unwrap();
    }
    let mut command = std::process::Command::new("cp");
    assert!(command.arg("-r").arg(project.path("target")).arg(copy.path("target")).status().unwrap().success());
    assert_eq!(plan(&copy), ["image i: its result out/i is gone"]);
    assert_eq!(build(&copy), [""; 0]);
    assert_eq!(plan(&copy), [""; 0]);
}

/// What was compiled of one content is never taken for that of another.
#[test]
fn an_edit_during_a_build_is_not_lost() {
    let command = format!("touch started; sleep 0.5; {COMPONENT}");
    let project = Project::with_guest(&format!("build = '''{command}'''\ninputs = [\"in.txt\"]"));
    project.write("in.txt", "first");
    thread::scope(|scope| {
        let building = scope.spawn(|| build(&project));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !project.path("started").exists() {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(5));
        }
        project.write("in.txt", "other");
        building.join().unwrap();
    });
    assert!(project.artifact("x").ends_with(b"other"));
    assert_eq!(build(&project), [""; 0]);
    project.write("in.txt", "first");
    assert_eq!(build(&project), ["x: in.txt has changed"]);
    assert!(project.artifact("x").ends_with(b"first"));
}

/// What a glob fits may come later, and so may the folder that it begins with.
#[test]
fn a_glob_notices_what_was_not_there() {
    let project = Project::with_guest(&format!("build = '''{COMPONENT}'''\ninputs = [\"gen/*.txt\"]"));
    project.write("in.txt", "12345");
    build(&project);
    assert_eq!(build(&project), [""; 0]);
    project.write("gen/x.txt", "");
    assert_eq!(build(&project), ["x: gen/x.txt is new"]);
}

/// A Rust guest that includes files beside its package, and whose build script names some: of the project, of nobody's clone but
/// this one, and outside of it.
fn reads_beside_its_package() -> Project {
    let project = Project::new("p");
    project.wetfile("[guest.x]\npath = \"guests/x\"\n");
    let outside = project.outside("other").canonicalize().unwrap().join("o.txt");
    let code = format!(
        "fn main() {{ println!(\"{{}}{{}}{{}}\", include_str!(\"../../../my data/in.txt\"), include_str!({outside:?}), \
         include_str!(concat!(env!(\"OUT_DIR\"), \"/made.txt\"))); }}"
    );
    project.package("guests/x", "name = \"x\"", "src/main.rs", &code);
    project.write(
        "guests/x/build.rs",
        "fn main() {\n\
         println!(\"cargo:rerun-if-changed=../../tables\");\n\
         println!(\"cargo:rerun-if-changed=../../local/version\");\n\
         let made = std::fs::read_to_string(\"../../tables/t.txt\").unwrap() + \
         &std::fs::read_to_string(\"../../local/version\").unwrap();\n\
         std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/made.txt\", made).unwrap();\n}\n",
    );
    project.write(".gitignore", "/local\n");
    project.write("my data/in.txt", "included");
    project.write("my data/other.txt", "of nobody's interest");
    project.write("tables/t.txt", "a table");
    project.write("local/version", "a version");
    fs::write(outside, "outside").unwrap();
    project
}

#[test]
fn what_a_rust_guest_reads_beside_its_package_is_a_reason() {
    let project = reads_beside_its_package();
    settle();
    assert_eq!(build(&project), [format!("x: {FIRST}")]);
    let outside = project.outside("other").canonicalize().unwrap().join("o.txt");
    let mut lock = project.read("Wetfile.lock");
    let mut check = |change: &dyn Fn(), text: &str, is_in_lock: bool| {
        settle();
        assert_eq!(plan(&project), [""; 0], "before: {text}");
        change();
        assert_eq!(plan(&project), [format!("guest x: {text}")]);
        assert_eq!(build(&project), [format!("x: {text}")]);
        let after = project.read("Wetfile.lock");
        // What came out is another in each case.
        let inputs = |lock: &[u8]| {
            let lock = ww::wetfile::lock::parse(std::str::from_utf8(lock).unwrap()).unwrap();
            lock.guests.into_values().next().unwrap().inputs
        };
        assert!((inputs(&lock) != inputs(&after)) == is_in_lock && lock != after, "{text}");
        lock = after;
    };
    check(&|| project.write("my data/in.txt", "changed"), "my data/in.txt has changed", true);
    check(&|| project.write("tables/t.txt", "changed"), "tables/t.txt has changed", true);
    check(&|| project.write("local/version", "changed"), "local/version has changed", false);
    check(&|| fs::write(&outside, "changed").unwrap(), &format!("{} has changed", outside.display()), false);

    project.write("my data/other.txt", "changed");
    project.write("local/other", "new");
    assert_eq!(build(&project), [""; 0]);
    // A folder whose files a build script reads has new ones, as one that cannot be compiled without.
    project.write("tables/new.txt", "new");
    assert_eq!(build(&project), ["x: tables/new.txt is new"]);
    let lock = String::from_utf8(project.read("Wetfile.lock")).unwrap();
    assert!(lock.contains("\"my data/in.txt\"") && !lock.contains("o.txt") && !lock.contains("local/"), "{lock}");
    fs::remove_file(project.path("local/version")).unwrap();
    assert_eq!(plan(&project), ["guest x: local/version is gone"]);
}

/// It is not taken for what was compiled, and it is found without a build by who has the lock.
#[test]
fn what_a_rust_guest_reads_beside_its_package_is_in_the_lock() {
    let project = reads_beside_its_package();
    let warnings = Mutex::new(Vec::new());
    let built = project.build_with(&[], &|event| {
        if let Event::Warning { text, .. } = event {
            warnings.lock().unwrap().push(text);
        }
    });
    built.unwrap();
    let warnings = warnings.into_inner().unwrap();
    assert!(matches!(&warnings[..], [text] if text.contains("o.txt, outside of the project")), "{warnings:?}");
    let verify = || finish(ww(&["verify"]).current_dir(project.path(""))).stderr;
    assert!(!verify().contains("in.txt"), "{}", verify());
    project.write("my data/in.txt", "changed");
    assert!(verify().contains("`my data/in.txt` has changed"), "{}", verify());
    let (_, locked) = build_with(&project, BuildOptions { locked: true, ..BuildOptions::default() });
    assert!(matches!(locked, Err(ops::Error::OutOfDate(_))));
}

/// Somebody changes a file while it is compiled, and changes it back.
#[test]
fn an_edit_that_is_taken_back_is_seen() {
    let command = format!("touch started; while test -e started; do sleep 0.01; done; {COMPONENT}");
    let project = Project::with_guest(&format!("build = '''{command}'''\ninputs = [\"in.txt\"]"));
    project.write("in.txt", "first");
    let started = || {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !project.path("started").exists() {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(5));
        }
    };
    thread::scope(|scope| {
        let building = scope.spawn(|| build(&project));
        started();
        settle();
        project.write("in.txt", "other");
        fs::remove_file(project.path("started")).unwrap();
        // It compiles what was there for a moment, and then once more.
        while !project.path("target/ww/out/x/x.wasm").exists() && !project.path("started").exists() {
            thread::yield_now();
        }
        project.write("in.txt", "first");
        started();
        // Once more or twice: it may have begun again before it was changed back.
        while !building.is_finished() {
            let _ = fs::remove_file(project.path("started"));
            thread::sleep(Duration::from_millis(5));
        }
        building.join().unwrap();
    });
    assert!(project.artifact("x").ends_with(b"first"));
}

/// Whatever was built when, alone or with others, the lock is in the end what one build of everything writes.
#[test]
fn the_lock_says_what_was_built_in_the_end() {
    let lock_of = |builds: &dyn Fn(&Project)| {
        let project = project();
        command_of_a(&project, BEGINNING);
        build(&project);
        project.write("a/in.txt", "12345 and more");
        builds(&project);
        build(&project);
        let (_, built) = build_with(&project, BuildOptions { locked: true, ..BuildOptions::default() });
        built.unwrap();
        String::from_utf8(project.read("Wetfile.lock")).unwrap()
    };
    let expected = lock_of(&|_| {});
    assert_eq!(lock_of(&|project| drop(project.build(&["a"]).unwrap())), expected);
    assert_eq!(lock_of(&|project| drop(project.build(&["b"]).unwrap())), expected);
    let without = lock_of(&|project| {
        build(project);
        fs::remove_file(project.path("Wetfile.lock")).unwrap();
        project.build(&["c"]).unwrap();
    });
    assert_eq!(without, expected);
    let foreign = lock_of(&|project| {
        let before = project.read("Wetfile.lock");
        build(project);
        fs::write(project.path("Wetfile.lock"), before).unwrap();
        project.build(&["c"]).unwrap();
    });
    assert_eq!(foreign, expected);
}

/// Whether the lock vouches for a guest is in no digest of it.
#[test]
fn the_lock_follows_what_is_said_of_reproducing() {
    let project = project();
    build(&project);
    let lock = project.read("Wetfile.lock");
    edit(&project, "[guest.a]\n", "[guest.a]\nreproducible = false\n");
    assert_eq!(build(&project), [""; 0]);
    assert_ne!(project.read("Wetfile.lock"), lock);
    edit(&project, "reproducible = false\n", "");
    assert_eq!(build(&project), [""; 0]);
    assert_eq!(project.read("Wetfile.lock"), lock);
}

/// An image takes a file that a guest's build leaves, though it does not hold the guest.
#[test]
fn what_a_build_leaves_for_an_image_is_taken() {
    let project = project();
    command_of_a(&project, &format!("cp in.txt ../etc/motd; {BEGINNING}"));
    edit(&project, "\"bin/main.wasm\" = { guest = \"b\" }", "\"bin/main.wasm\" = { path = \"program.wasm\" }");
    build(&project);
    project.write("a/in.txt", "12345 and more");
    assert_eq!(build(&project), ["a: a/in.txt has changed"]);
    assert_eq!(project.read("out/i/etc/motd"), b"12345 and more");
    assert_eq!(plan(&project), [""; 0]);
}

/// A password in an address is nobody's business.
#[test]
fn secrets_are_not_shown() {
    let mut project = Project::with_guest(&format!("build = '''{COMPONENT}'''\ninputs = []\nenv.URL.inherit = true"));
    project.write("in.txt", "12345");
    project.set("URL", "db://user:hunter2@host/x");
    build(&project);
    project.set("URL", "db://user:hunter3@host/x");
    assert_eq!(build(&project), ["x: the variable URL has another value"]);
    let ledger = project.read("target/ww/ledger");
    assert!(!ledger.windows(6).any(|window| window == b"hunter"));
    assert_eq!(fs::metadata(project.path("target/ww/ledger")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_does_not_depend_on_a_failure_is_built() {
    let project = project();
    command_of_a(&project, "false > $WW_OUT");
    let options = BuildOptions { jobs: NonZero::new(1), ..BuildOptions::default() };
    let (started, built) = build_with(&project, options);
    assert_eq!(started, [format!("a: {FIRST}")]);
    assert!(matches!(built, Err(ops::Error::Build { guest, .. }) if guest.as_str() == "a"));
    let options = BuildOptions { after_failure: AfterFailure::KeepGoing, ..options };
    let (started, built) = build_with(&project, options);
    assert_eq!(started, [format!("a: {FIRST}"), format!("c: {FIRST}")]);
    let Err(ops::Error::Partly(partly)) = built else { panic!("a is not built") };
    let failed = partly.failed;
    assert!(matches!(&failed.failures[..], [ops::Error::Build { guest, .. }] if guest.as_str() == "a"));
    assert!(failed.skipped.guests.iter().map(GuestName::as_str).eq(["b"]));
    assert!(failed.skipped.images.iter().map(ImageName::as_str).eq(["i"]));
    assert!(partly.built.guests.keys().map(GuestName::as_str).eq(["c"]));
    assert!(project.path("target/ww/guests/c.wasm").exists() && !project.path("out/i").exists());
}

/// All of a project that a build makes.
type Whole = ([Vec<u8>; 3], Vec<u8>, Vec<u8>, Vec<u8>);

fn whole(project: &Project) -> Whole {
    let artifacts = ["a", "b", "c"].map(|name| project.artifact(name));
    (artifacts, project.read("Wetfile.lock"), project.read("out/i/bin/main.wasm"), project.read("out/i/etc/motd"))
}

/// Alone, together, one after the other or at once: the same bytes.
#[test]
fn however_it_is_built_it_is_the_same() {
    let result = |build: &dyn Fn(&Project)| {
        let project = project();
        build(&project);
        whole(&project)
    };
    let one = result(&|project| drop(build(project)));
    let at_once = result(&|project| {
        let options = BuildOptions { jobs: NonZero::new(4), ..BuildOptions::default() };
        build_with(project, options).1.unwrap();
    });
    let alone = result(&|project| ["c", "b", "i"].iter().for_each(|name| drop(project.build(&[name]).unwrap())));
    let again = result(&|project| {
        project.write("a/in.txt", "other");
        build(project);
        project.write("a/in.txt", "12345");
        build(project);
    });
    assert!(one == at_once && one == alone && one == again);
}

/// Whenever a build is killed, the next one makes the same as if nothing had been.
#[test]
fn a_killed_build_leaves_nothing_wrong() {
    let project = project();
    build(&project);
    let expected = whole(&project);
    for round in 0..50_u64 {
        // Something of everything is stale.
        for file in ["a/in.txt", "b/in.txt", "etc/motd"] {
            project.write(file, &format!("{round:05}"));
        }
        let mut command = ww(&["build", "--offline"]);
        command.current_dir(project.path("")).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        thread::sleep(Duration::from_micros(round * 700));
        child.kill().unwrap();
        child.wait().unwrap();
        for (file, text) in [("a/in.txt", "12345"), ("b/in.txt", "12345"), ("etc/motd", "hello")] {
            project.write(file, text);
        }
        build(&project);
        assert!(whole(&project) == expected, "round {round}");
        assert_eq!(plan(&project), [""; 0], "round {round}");
    }
}

#[test]
fn why_is_told_after_the_fact() {
    let project = project();
    let why = |name: &str, args: &[&str]| {
        let mut command = ww(&["why", name]);
        finish(command.args(args).current_dir(project.path("")))
    };
    let run = || finish(ww(&["build", "--offline"]).current_dir(project.path(""))).expect(0);
    insta::assert_snapshot!(redact(&why("b", &[]).expect(0).stdout), @r"
    guest b would be built now:
      it was not built here before
    guest b was not built here before, or that was forgotten
    ");
    run();
    project.write("a/in.txt", "54321");
    insta::assert_snapshot!(redact(&why("i", &[]).expect(0).stdout), @r"
    image i would be assembled now:
      a/in.txt has changed
        so guest a is built
        so guest b is built
        so image i is assembled
    image i was assembled N ago:
      it was not built here before
    ");
    run();
    insta::assert_snapshot!(redact(&why("b", &[]).expect(0).stdout), @r"
    guest b is up to date
    guest b was built N ago in N s:
      a/in.txt has changed
        so guest a was built
        so guest b was built
    ");
    let json: serde_json::Value = serde_json::from_str(&why("b", &["--json"]).expect(0).stdout).unwrap();
    assert_eq!(json[0]["last"]["causes"][0]["reason"], "file");
    assert_eq!(json[0]["last"]["causes"][0]["subject"], "a/in.txt");
    assert_eq!(json[0]["last"]["causes"][0]["through"][0], "a");
    assert_eq!(json[0]["up_to_date"], true);
    why("bb", &[]).expect(7);
}

/// Also where a guest was built since, and nothing that is made of it.
#[test]
fn why_is_told_of_what_was_not_built_since() {
    let project = project();
    build(&project);
    project.write("b/in.txt", "54321");
    assert_eq!(build(&project), ["b: b/in.txt has changed"]);
    project.write("b/more.txt", "");
    assert_eq!(build(&project), ["b: b/more.txt is new"]);
    let why = |name: &str| finish(ww(&["why", name]).current_dir(project.path(""))).expect(0).stdout;
    insta::assert_snapshot!(redact(&why("i")), @r"
    image i is up to date
    image i was assembled N ago:
      b/in.txt has changed
        so guest b was built
        so image i was assembled
    ");
    insta::assert_snapshot!(redact(&why("b")), @r"
    guest b is up to date
    guest b was built N ago in N s:
      b/more.txt is new
    ");
    // And where it was built before the image is.
    project.write("b/in.txt", "abcde");
    project.build(&["b"]).unwrap();
    fs::remove_file(project.path("b/more.txt")).unwrap();
    project.build(&["b"]).unwrap();
    let cause = "b/in.txt has changed\n    so guest b is built\n    so image i is assembled\n";
    assert!(why("i").contains(&format!("would be assembled now:\n  {cause}")), "{}", why("i"));
    assert_eq!(build(&project), [""; 0]);
    assert!(why("i").contains("b/in.txt has changed\n    so guest b was built\n"), "{}", why("i"));
}

#[test]
fn a_plan_builds_nothing() {
    let project = project();
    let plan = |args: &[&str]| finish(ww(&["build", "--plan"]).args(args).current_dir(project.path(""))).expect(0);
    insta::assert_snapshot!(plan(&["i"]).stdout, @r"
    guest a: it was not built here before
    guest b: it was not built here before
    image i: it was not built here before
    ");
    assert!(!project.path("target").exists());
    let run = || finish(ww(&["build", "--offline"]).current_dir(project.path(""))).expect(0);
    run();
    let done = plan(&[]);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", "nothing to build\n"));
    let json: serde_json::Value = serde_json::from_str(&plan(&["--json"]).stdout).unwrap();
    assert_eq!(json["guests"][0]["up_to_date"], true);
    assert_eq!(json["images"][0]["name"], "i");
}

#[test]
fn the_graph_is_shown_in_three_ways() {
    let project = project();
    let graph = |args: &[&str]| finish(ww(&["graph"]).args(args).current_dir(project.path(""))).expect(0).stdout;
    insta::assert_snapshot!(graph(&[]), @r"
    image i
    └── guest b
        └── guest a
    guest c
    ");
    assert_eq!(graph(&["a"]), "guest a\n");
    insta::assert_snapshot!(graph(&["--format", "dot", "b"]), @r#"
    digraph {
        "guest a" [shape=ellipse];
        "guest b" [shape=ellipse];
        "guest b" -> "guest a" [label="embeds"];
    }
    "#);
    let json: serde_json::Value = serde_json::from_str(&graph(&["--json"])).unwrap();
    assert_eq!(json["edges"][0]["from"]["name"], "i");
    assert_eq!(json["edges"][0]["kind"], "file");
    finish(ww(&["graph", "x"]).current_dir(project.path(""))).expect(7);
}

/// Times, which are others each time.
fn redact(text: &str) -> String {
    let line = |line: &str| match line.split_once(" ago") {
        Some((before, after)) => {
            let verb = before.rfind("built ").map(|at| at + 6).or(before.rfind("assembled ").map(|at| at + 10));
            let after = if after.starts_with(" in ") { " in N s:" } else { after };
            format!("{}N ago{after}", &before[..verb.unwrap()])
        }
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Has `a` be built by another command.
fn command_of_a(project: &Project, command: &str) {
    let with = |command: &str| format!("path = \"a\"\nbuild = '''{command}'''");
    edit(project, &with(COMPONENT), &with(command));
}

/// Replaces a part of the Wetfile, which must be there once.
fn edit(project: &Project, before: &str, after: &str) {
    let text = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    assert_eq!(text.matches(before).count(), 1, "{before}");
    project.write("Wetfile.toml", &text.replace(before, after));
}
