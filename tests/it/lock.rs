//! `Wetfile.lock`: what `ww build` writes into it, and when `--locked` refuses.

use std::fs;
use std::path::Path;

use ww::wetfile::lock::{self, Lock};
use ww::wetfile::{GuestName, ImageName};

use crate::project::Project;
use crate::support::{Done, finish, guest, ww};

/// A project of a guest `echo` that a command copies, and an image with it and a folder.
pub(crate) fn copying_project() -> Project {
    let project = Project::new("p");
    project.wetfile(
        "[guest.echo]\npath = 'src'\nbuild = ['cp', 'echo.wasm', '{out}']\ninputs = ['*.wasm']\n\
         [image.echo]\nout = 'out'\n[image.echo.files]\n\
         'bin/main.wasm' = { guest = 'echo' }\n'etc' = { path = 'config' }\n",
    );
    project.write("config/motd", "hello");
    project.write("config/deep/file", "deep");
    fs::create_dir_all(project.path("src")).unwrap();
    fs::copy(guest("child-echo"), project.path("src/echo.wasm")).unwrap();
    project
}

pub(crate) fn run(project: &Project, args: &[&str]) -> Done {
    finish(ww(args).current_dir(project.path("")))
}

fn read(project: &Project) -> Lock {
    lock::load(&project.path("")).unwrap().unwrap()
}

fn text(project: &Project) -> String {
    String::from_utf8(project.read("Wetfile.lock")).unwrap()
}

#[track_caller]
fn check_refused(project: &Project, expected: &str) {
    let (lock, program) = (text(project), project.read("out/bin/main.wasm"));
    let done = run(project, &["build", "--locked"]).expect(10);
    assert!(done.stderr.contains(expected), "{}", done.stderr);
    assert!(text(project) == lock && project.read("out/bin/main.wasm") == program, "something was replaced");
}

#[test]
fn a_first_build_writes_it_and_says_so_once() {
    let project = copying_project();
    let done = run(&project, &["build"]).expect(0);
    assert!(done.stderr.contains("wrote Wetfile.lock: commit it"), "{}", done.stderr);
    let lock = read(&project);
    let echo = &lock.guests[&GuestName::new("echo").unwrap()];
    assert_eq!(echo.inputs.roots.keys().collect::<Vec<_>>(), ["*.wasm"]);
    assert_eq!(echo.outputs.keys().map(|toolchain| toolchain.as_str()).collect::<Vec<_>>(), ["command"]);
    let image = &lock.images[&ImageName::new("echo").unwrap()];
    assert_eq!(image.files.keys().collect::<Vec<_>>(), ["bin/main.wasm", "etc/deep/file", "etc/motd", "usr/lib"]);
    let cid = image.cids.values().next().unwrap().to_string();
    assert!(done.stdout.trim_end().ends_with(&cid), "{}", done.stdout);

    let before = text(&project);
    assert!(!before.contains(project.path("").to_str().unwrap()), "it has a path of this machine");
    let done = run(&project, &["build"]).expect(0);
    assert!(!done.stderr.contains("Wetfile.lock"), "{}", done.stderr);
    assert_eq!(text(&project), before);
    run(&project, &["build", "--locked"]).expect(0);
}

/// Whatever a build would change in it, `--locked` refuses before anything is replaced.
#[test]
fn locked_refuses_to_change_it() {
    let project = copying_project();
    let done = run(&project, &["build", "--locked"]).expect(10);
    assert!(done.stderr.contains("there is no Wetfile.lock"), "{}", done.stderr);
    assert!(!project.path("out").exists() && !project.path("Wetfile.lock").exists());
    run(&project, &["build"]).expect(0);

    project.write("config/motd", "changed");
    check_refused(&project, "image `echo`: its source `config/motd` has changed");
    project.write("config/motd", "hello");
    project.write("config/new", "");
    check_refused(&project, "image `echo`: its source `config/new` is new");
    fs::remove_file(project.path("config/new")).unwrap();
    fs::rename(project.path("config/deep/file"), project.path("moved")).unwrap();
    check_refused(&project, "image `echo`: its source `config/deep/file` is gone");
    fs::rename(project.path("moved"), project.path("config/deep/file")).unwrap();
    run(&project, &["build", "--locked"]).expect(0);

    fs::copy(guest("pid0"), project.path("src/echo.wasm")).unwrap();
    check_refused(&project, "guest `echo`: `*.wasm` has changed");
    fs::copy(guest("child-echo"), project.path("src/echo.wasm")).unwrap();

    let wetfile = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    project.write("Wetfile.toml", &wetfile.replace("'{out}']", "'{out}']\nenv.A = 'b'"));
    check_refused(&project, "guest `echo`: what the Wetfile says of it has changed");
    project.write("Wetfile.toml", &wetfile.replace("'etc' =", "'etc2' ="));
    check_refused(&project, "image `echo`: the Wetfile does not list `etc` any more");
    project.write("Wetfile.toml", &wetfile.replace("echo", "echo2").replace("echo2.wasm", "echo.wasm"));
    check_refused(&project, "guest `echo`: the Wetfile does not have it any more");
    project.write("Wetfile.toml", &wetfile);

    let mut command = ww(&["build"]);
    project.write("config/motd", "changed");
    finish(command.current_dir(project.path("")).env("WW_LOCKED", "1")).expect(10);
}

/// All that is out of date is told at once, and before a compiler starts.
#[test]
fn locked_tells_everything_before_anything_is_compiled() {
    let project = copying_project();
    run(&project, &["build"]).expect(0);
    project.write("config/motd", "changed");
    check_refused(&project, "image `echo`: its source `config/motd` has changed");
    let done = run(&project, &["build", "--locked"]).expect(10);
    assert!(!done.stderr.contains("building"), "{}", done.stderr);
    fs::copy(guest("pid0"), project.path("src/echo.wasm")).unwrap();
    fs::remove_dir_all(project.path("config/deep")).unwrap();
    let done = run(&project, &["build", "--locked"]).expect(10);
    for expected in [
        "guest `echo`: `*.wasm` has changed",
        "image `echo`: its source `config/motd` has changed",
        "image `echo`: its source `config/deep/file` is gone",
    ] {
        assert!(done.stderr.contains(expected) && !done.stderr.contains("building"), "{}", done.stderr);
    }
    let _socket = std::os::unix::net::UnixListener::bind(project.path("config/socket")).unwrap();
    let done = run(&project, &["build", "--locked"]).expect(10);
    assert!(done.stderr.contains("image `echo`: its source cannot be read: "), "{}", done.stderr);
}

#[test]
fn an_update_keeps_what_it_does_not_concern() {
    let project = copying_project();
    let wetfile = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    let other = "[guest.other]\nbuild = ['cp', 'src/echo.wasm', '{out}']\ninputs = ['src']\n";
    project.write("Wetfile.toml", &format!("{wetfile}{other}"));
    run(&project, &["build"]).expect(0);
    let before = read(&project);
    project.write("config/motd", "changed");
    project.write("src/x", "");
    let done = run(&project, &["build", "echo"]).expect(0);
    assert!(done.stderr.contains("updated Wetfile.lock"), "{}", done.stderr);
    let after = read(&project);
    assert_eq!(before.guests, after.guests);
    assert_ne!(before.images, after.images);
    // An entry of somebody who is no more goes, whatever is built.
    project.write("Wetfile.toml", &wetfile);
    run(&project, &["build", "echo"]).expect(0);
    assert_eq!(read(&project).guests.len(), 1);
}

/// Outputs of a toolchain that this machine does not have stay, as long as the inputs are the same.
#[test]
fn outputs_of_other_toolchains_stay_until_inputs_change() {
    let project = rust_project();
    run(&project, &["-q", "build"]).expect(0);
    let toolchain = toolchain(&project);
    assert!(toolchain.starts_with("rustc 1.") && toolchain.contains("wasm32-wasip2 std "), "{toolchain}");
    let other = "rustc 1.0.0 (other)";
    project.write("Wetfile.lock", &text(&project).replace(&toolchain, other));

    let done = run(&project, &["build", "--locked"]).expect(0);
    assert!(
        done.stderr.contains(&format!("x: Wetfile.lock has nothing to compare it with of this toolchain: {toolchain}")),
        "{}",
        done.stderr
    );
    assert!(!text(&project).contains(&toolchain), "--locked has changed it");

    run(&project, &["-q", "build"]).expect(0);
    let x = &read(&project).guests[&GuestName::new("x").unwrap()];
    assert_eq!(x.outputs.len(), 2);
    assert_eq!(read(&project).images[&ImageName::new("x").unwrap()].cids.len(), 2);

    project.write("g/src/main.rs", "fn main() { println!(\"changed\"); }");
    run(&project, &["-q", "build"]).expect(0);
    assert!(!text(&project).contains(other), "an output of other sources is there");
}

/// Each fact of a lock is deleted and altered in turn. Outputs are no facts of the sources: see
/// `outputs_of_other_toolchains_stay_until_inputs_change` and `what_is_not_reproducible_is_called_so`.
#[test]
fn every_fact_of_a_lock_is_checked() {
    let project = copying_project();
    let wetfile = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    let outer = "[guest.outer]\npath = 'src'\nbuild = ['cp', 'echo.wasm', '{out}']\ninputs = ['echo.wasm']\n\
                 embeds = ['echo']\nenv.A.inherit = true\n";
    project.write("Wetfile.toml", &format!("{wetfile}'bin/outer.wasm' = {{ guest = 'outer' }}\n{outer}"));
    run(&project, &["-q", "build"]).expect(0);
    let good = text(&project);
    let (mut table, mut facts) = ("", 0);
    for (number, line) in good.lines().enumerate() {
        table = if line.starts_with('[') { line } else { table };
        let Some((key, value)) = line.split_once(" = ").filter(|_| !table.is_empty() && !table.contains("outputs"))
        else {
            continue;
        };
        let other = match value {
            _ if key == "profile" => "\"unixfs-v0-2015\"".to_owned(),
            _ if value.starts_with("\"baf") || value.starts_with('{') => "\"bafkqaaa\"".to_owned(),
            _ => format!("\"{}\"", "0".repeat(64)),
        };
        facts += 1;
        for with in [None, Some(format!("{key} = {other}"))] {
            let mut lines: Vec<&str> = good.lines().collect();
            match &with {
                Some(with) => lines[number] = with,
                None => drop(lines.remove(number)),
            }
            project.write("Wetfile.lock", &(lines.join("\n") + "\n"));
            for args in [["-q", "build", "--locked"].as_slice(), &["verify"]] {
                let done = run(&project, args);
                assert_eq!(done.code, Some(10), "{args:?}, {table} {line} -> {with:?}: {}{}", done.stdout, done.stderr);
            }
        }
    }
    assert!(facts >= 16, "{facts}");
    project.write("Wetfile.lock", &good);
    run(&project, &["-q", "build", "--locked"]).expect(0);
    run(&project, &["verify"]).expect(0);
}

/// The lock and the image agree, and neither is what the sources make.
#[test]
fn a_lock_that_was_forged_with_its_image_is_told() {
    let project = copying_project();
    run(&project, &["-q", "build"]).expect(0);
    let cid = |path: &str| {
        let options = ww::tree::ImportOptions::new(ww::dag::unixfs::Profile::default());
        ww::tree::import(&project.path(path), &options, None, None).unwrap().subtree.cid
    };
    project.write("out/etc/motd", "forged");
    fs::copy(guest("pid0"), project.path("out/bin/evil.wasm")).unwrap();
    let mut lock = read(&project);
    let image = lock.images.values_mut().next().unwrap();
    for path in ["etc/motd", "bin/evil.wasm"] {
        image.files.insert(path.to_owned(), lock::LockedFile::Copied(cid(&format!("out/{path}"))));
    }
    image.cids.values_mut().for_each(|locked| *locked = cid("out"));
    project.write("Wetfile.lock", &lock.render());
    for args in [["verify"].as_slice(), &["-q", "build", "--locked"]] {
        let done = run(&project, args).expect(10);
        assert!(done.stderr.contains("its source `config/motd` has changed"), "{}", done.stderr);
        assert!(done.stderr.contains("its file `bin/evil.wasm` is gone"), "{}", done.stderr);
        assert_eq!(project.read("out/etc/motd"), b"forged");
    }
}

#[test]
fn locked_replaces_no_image_where_it_refuses_another() {
    let project = copying_project();
    let wetfile = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    let second = "[image.second]\nout = 'second'\nfiles.'bin/main.wasm' = { guest = 'echo' }\n";
    project.write("Wetfile.toml", &format!("{wetfile}{second}"));
    run(&project, &["-q", "build"]).expect(0);
    let mut lock = read(&project);
    let image = lock.images.get_mut(&ImageName::new("second").unwrap()).unwrap();
    image.cids.values_mut().for_each(|cid| *cid = "bafkqaaa".parse().unwrap());
    project.write("Wetfile.lock", &lock.render());
    project.write("out/etc/motd", "altered");
    let done = run(&project, &["build", "--locked"]).expect(10);
    assert!(done.stderr.contains("image `second`: its CID is not that of the lock"), "{}", done.stderr);
    assert_eq!(project.read("out/etc/motd"), b"altered");
}

/// What a guest was compiled from is not for the lock to say.
#[test]
fn a_lock_without_inputs_is_told() {
    let project = rust_project();
    run(&project, &["-q", "build"]).expect(0);
    let (mut lock, name) = (read(&project), GuestName::new("x").unwrap());
    let invented = lock::Toolchain::new("rustc 9.9.9 (invented)").unwrap();
    let x = lock.guests.get_mut(&name).unwrap();
    x.inputs.roots.clear();
    x.outputs = x.outputs.values().map(|digest| (invented.clone(), *digest)).collect();
    let digest = x.inputs.digest();
    let image = lock.images.values_mut().next().unwrap();
    image.guests.insert(name, digest);
    image.cids = image.cids.values().map(|cid| (invented.clone(), *cid)).collect();
    project.write("Wetfile.lock", &lock.render());
    for args in [["verify"].as_slice(), &["-q", "build", "--locked"]] {
        let done = run(&project, args).expect(10);
        assert!(done.stderr.contains("guest `x`: `g` is new"), "{}", done.stderr);
    }
}

/// A project of a Rust guest `x`, and an image of it.
pub(crate) fn rust_project() -> Project {
    let project = Project::with_guest("path = 'g'\n[image.x]\nout = 'out'\nfiles.'bin/main.wasm' = { guest = 'x' }");
    project.package("g", "name = \"g\"", "src/main.rs", "fn main() {}");
    project
}

/// The toolchain of the guest `x`.
pub(crate) fn toolchain(project: &Project) -> String {
    let lock = read(project);
    lock.guests[&GuestName::new("x").unwrap()].outputs.keys().next().unwrap().to_string()
}

/// A build that comes out different each time (ComponentizeJS#321).
#[test]
fn what_is_not_reproducible_is_called_so() {
    let project = copying_project();
    let script = "cp echo.wasm $WW_OUT; { printf '\\\\000\\\\005\\\\001x'; head -c 3 ../random; } >> $WW_OUT";
    let wetfile = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    project.write("Wetfile.toml", &wetfile.replace("['cp', 'echo.wasm', '{out}']", &format!("\"{script}\"")));
    project.write("random", "aaa");
    run(&project, &["build"]).expect(0);
    project.write("random", "bbb");
    // What it is made of has not changed, and so it would not be built.
    fs::remove_file(project.path("target/ww/guests/echo.wasm")).unwrap();
    check_refused(&project, "guest `echo`: not reproducible: the same inputs and toolchain");
    let done = run(&project, &["verify"]).expect(0);
    assert!(done.stdout.starts_with("image echo: ok"), "{}", done.stdout);
    let done = run(&project, &["build"]).expect(0);
    assert!(done.stderr.contains("echo: warning: not reproducible"), "{}", done.stderr);
    run(&project, &["verify"]).expect(0);
}

#[test]
fn locks_that_cannot_be_used_are_refused_and_stay() {
    let project = copying_project();
    run(&project, &["-q", "build"]).expect(0);
    let good = text(&project);
    let check = |text: &str, expected: &str| {
        project.write("Wetfile.lock", text);
        for args in [["-q", "build"].as_slice(), &["-q", "build", "--locked"], &["verify"]] {
            let done = run(&project, args).expect(10);
            assert!(done.stderr.contains(expected), "{}", done.stderr);
            assert_eq!(project.read("Wetfile.lock"), text.as_bytes());
        }
    };
    check(&good.replace("version = 1\nww = \">= 0.1.0\"", "version = 2\nww = \">= 9.9.0\""), "needs ww >= 9.9.0");
    check(&good.replace("[guest.echo]", "<<<<<<< ours\n[guest.echo]"), "has the mark of a merge conflict");
    check(&good.replace("recipe", "\u{1b}recipe"), "line 6");
    fs::remove_file(project.path("Wetfile.lock")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", project.path("Wetfile.lock")).unwrap();
    run(&project, &["-q", "build"]).expect(10);
    assert!(project.path("Wetfile.lock").is_symlink());
}

/// A file that is saved while it is compiled must not be locked with what came out of the previous one (turbo#1146).
#[test]
fn inputs_that_change_while_they_are_built_are_built_again() {
    let project = copying_project();
    let wetfile = String::from_utf8(project.read("Wetfile.toml")).unwrap();
    let script = "cat echo.wasm > $WW_OUT; test -e ../done || { touch ../done; touch late.wasm; }";
    project.write("Wetfile.toml", &wetfile.replace("['cp', 'echo.wasm', '{out}']", &format!("'{script}'")));
    run(&project, &["-q", "build"]).expect(0);
    run(&project, &["-q", "build", "--locked"]).expect(0);
    // One that changes each time has no inputs to speak of.
    let script = "cat echo.wasm > $WW_OUT; echo x >> late.wasm";
    project.write("Wetfile.toml", &wetfile.replace("['cp', 'echo.wasm', '{out}']", &format!("'{script}'")));
    let done = run(&project, &["-q", "build"]).expect(4);
    assert!(done.stderr.contains("its inputs change while it is built"), "{}", done.stderr);
}

/// The package, those that it depends on by path, and the workspace; not the other packages there.
#[test]
fn inputs_of_rust_guests() {
    let project = Project::from_fixture("build", "p");
    project.build(&[]).unwrap();
    let lock = read(&project);
    let roots = |guest: &str| {
        let roots = lock.guests[&GuestName::new(guest).unwrap()].inputs.roots.keys();
        roots.filter(|root| *root != "rust-toolchain.toml").cloned().collect::<Vec<_>>()
    };
    let workspace = ["guests/Cargo.lock", "guests/Cargo.toml"];
    assert_eq!(roots("echo"), [&workspace[..], &["guests/echo", "guests/sdk", "schema"]].concat());
    assert!(roots("other").iter().any(|root| root == "guests/other"));
    let parent = &lock.guests[&GuestName::new("parent").unwrap()].inputs;
    let echo = &lock.guests[&GuestName::new("echo").unwrap()].inputs;
    assert_eq!(parent.embeds[&GuestName::new("echo").unwrap()], echo.digest());

    // In another place: the same lock.
    let second = Project::from_fixture("build", "another/place");
    second.build(&[]).unwrap();
    assert_eq!(text(&project), text(&second));

    project.write("schema/src/lib.rs", &(String::from_utf8(project.read("schema/src/lib.rs")).unwrap() + "\n"));
    let done = run(&project, &["-q", "build", "--locked"]).expect(10);
    assert!(done.stderr.contains("guest `echo`: `schema` has changed"), "{}", done.stderr);
}

#[test]
fn a_patched_dependency_is_an_input() {
    let project = Project::with_guest("path = 'g'");
    project.package("patched", "name = \"itoa\"", "src/lib.rs", "pub fn hello() {}");
    project.write(
        "g/Cargo.toml",
        "[package]\nname = 'g'\nversion = '0.1.0'\nedition = '2024'\n[workspace]\n[dependencies]\nitoa = { path = '../patched' }\n\
         [patch.crates-io]\nother = { path = '../other' }\n",
    );
    project.package("other", "name = \"other\"", "src/lib.rs", "");
    project.write("g/src/main.rs", "fn main() { itoa::hello() }");
    project.build(&[]).unwrap();
    let lock = read(&project);
    let roots = &lock.guests[&GuestName::new("x").unwrap()].inputs.roots;
    assert!(roots.contains_key("patched") && roots.contains_key("other"), "{roots:?}");
}

/// Cargo builds a package for others that it would not build for itself.
#[test]
fn a_package_below_a_workspace_that_does_not_have_it() {
    let project = Project::with_guest("path = 'g'");
    project.write(
        "Cargo.toml",
        "[workspace]\nmembers = []\nexclude = ['g']\n[workspace.package]\nversion = '0.1.0'\n\
         [workspace.dependencies]\ndeep = { path = 'libs/deep' }\n",
    );
    let package = "[package]\nedition = '2024'\nversion.workspace = true\n";
    project
        .write("libs/shared/Cargo.toml", &format!("{package}name = 'shared'\n[dependencies]\ndeep.workspace = true\n"));
    project.write("libs/shared/src/lib.rs", "pub use deep::hello;");
    project.write("libs/deep/Cargo.toml", &format!("{package}name = 'deep'\n"));
    project.write("libs/deep/src/lib.rs", "pub fn hello() {}");
    let manifest = "name = \"g\"\n[dependencies]\nshared = { path = '../libs/shared' }";
    project.package("g", manifest, "src/main.rs", "fn main() { shared::hello() }");
    project.build(&[]).unwrap();
    let lock = read(&project);
    let roots = &lock.guests[&GuestName::new("x").unwrap()].inputs.roots;
    for root in ["Cargo.toml#workspace", "g", "libs/deep", "libs/shared"] {
        assert!(roots.contains_key(root), "{root}: {roots:?}");
    }
}

#[test]
fn what_lies_outside_of_the_project_is_told() {
    let project = Project::with_guest("path = 'g'");
    let outside = project.outside("elsewhere");
    fs::create_dir_all(outside.join("src")).unwrap();
    fs::write(outside.join("Cargo.toml"), "[package]\nname = 'elsewhere'\nversion = '0.1.0'\n[workspace]\n").unwrap();
    fs::write(outside.join("src/lib.rs"), "").unwrap();
    let dependency = format!("name = \"g\"\n[dependencies]\nelsewhere = {{ path = '{}' }}", outside.display());
    project.package("g", &dependency, "src/main.rs", "fn main() {}");
    let done = run(&project, &["build"]).expect(0);
    let expected =
        format!("x: warning: it depends on {}, outside of the project", outside.canonicalize().unwrap().display());
    assert!(done.stderr.contains(&expected), "{}", done.stderr);
    assert!(!text(&project).contains("elsewhere"));
}

/// The lock of this repository is current, so that whoever clones it can tell that they build the same.
#[test]
fn the_lock_of_this_repository_has_everything() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = ww::wetfile::load(root).unwrap();
    let lock = lock::load(root).unwrap().expect("Wetfile.lock is committed");
    assert!(lock.guests.keys().eq(project.guests.keys()) && lock.images.keys().eq(project.images.keys()));
}
