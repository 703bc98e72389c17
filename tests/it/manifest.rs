//! What a Wetfile can say beyond the plainest of it, built for real: order without embedding, profiles, options of cargo, and
//! images of globs, texts, CIDs and other images.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::fetch::{Gateway, Home};
use crate::project::Project;
use crate::support::{Done, finish, guest, ww};

/// A project with these tables, where `echo.wasm` is a program.
fn project(tables: &str) -> Project {
    let project = Project::new("p");
    project.wetfile(tables);
    fs::copy(guest("child-echo"), project.path("echo.wasm")).unwrap();
    project
}

/// A guest that a command copies, and an image that has it and whatever follows.
const ECHO: &str = "[guest.echo]\nbuild = ['cp', 'echo.wasm', '{out}']\ninputs = ['echo.wasm']\n\
                    [image.echo]\nout = 'out'\n[image.echo.files]\n'bin/main.wasm' = { guest = 'echo' }\n";

fn run(project: &Project, args: &[&str]) -> Done {
    run_in(project, &project.path("../home"), args)
}

/// As [`run`], with this folder for what `ww` keeps.
fn run_in(project: &Project, home: &Path, args: &[&str]) -> Done {
    finish(ww(args).current_dir(project.path("")).env("WW_HOME", home).env("IPFS_PATH", home))
}

fn text(project: &Project, path: &str) -> String {
    String::from_utf8(project.read(path)).unwrap()
}

/// Checks that a build fails with this in what it says.
#[track_caller]
fn check_error(project: &Project, args: &[&str], code: i32, expected: &str) {
    let done = run(project, args).expect(code);
    assert!(done.stderr.contains(expected), "{}", done.stderr);
}

/// `needs` is order and nothing else: the artifact is not handed over, and a change is no change of the other.
#[test]
fn what_is_needed_is_built_before() {
    let script =
        |name: &str| format!("echo {name} >> order; cat echo.wasm > $WW_OUT; env | grep WW_DEP >> order || true");
    let table = |name: &str, rest: &str| {
        format!("[guest.{name}]\nbuild = '{}'\ninputs = ['echo.wasm', '{name}.txt']\n{rest}\n", script(name))
    };
    let project = project(&format!(
        "{}{}{}",
        table("a", "needs = ['c', 'b']"),
        table("b", "needs = ['c']"),
        table("c", "description = 'the last in the alphabet, and built first'")
    ));
    for name in ["a", "b", "c"] {
        project.write(&format!("{name}.txt"), name);
    }
    run(&project, &["build", "a"]).expect(0);
    assert_eq!(text(&project, "order"), "c\nb\na\n");
    run(&project, &["build", "--locked"]).expect(0);
    project.write("c.txt", "changed");
    let done = run(&project, &["build", "--locked"]).expect(10);
    assert!(done.stderr.contains("guest `c`") && !done.stderr.contains("guest `b`"), "{}", done.stderr);
}

/// What is needed may write what another is made of: that is looked at again when it is there, and not taken for fresh before.
#[test]
fn what_is_needed_writes_what_others_are_made_of() {
    let guest = |name: &str, inputs: &str, build: &str, rest: &str| {
        format!(
            "[guest.{name}]\nbuild = 'echo {name} >> order; {build} cat echo.wasm > $WW_OUT'\n\
             inputs = ['echo.wasm', {inputs}]\n{rest}\n"
        )
    };
    let project = project(&format!(
        "{}{}{}",
        guest("app", "'made/x'", "", "needs = ['middle', 'maker']"),
        guest("middle", "'middle.txt'", "", "needs = ['maker']"),
        guest("maker", "'maker.txt'", "cp maker.txt made/x;", "")
    ));
    project.write("maker.txt", "one");
    project.write("middle.txt", "one");
    project.write("made/x", "");
    let built = |expected: &str| {
        let done = run(&project, &["build"]).expect(0);
        assert_eq!(text(&project, "order"), expected, "{}", done.stderr);
        fs::write(project.path("order"), "").unwrap();
        done
    };
    built("maker\nmiddle\napp\n");
    built("");
    project.write("maker.txt", "two");
    let done = run(&project, &["build", "--plan"]).expect(0);
    assert!(
        done.stdout.contains("guest maker, which it needs, is built anew, and may write what it is made of"),
        "{}",
        done.stdout
    );
    built("maker\napp\n");
    let done = run(&project, &["why", "app"]).expect(0);
    assert!(done.stdout.contains("made/x has changed"), "{}", done.stdout);
    run(&project, &["verify"]).expect(0);
    built("");
    // Where it writes the same again, nobody else is built; and who is in between does not let the first and the last run at once.
    project.write("maker.txt", "two ");
    project.write("made/x", "two ");
    project.write("order", "");
    run(&project, &["build"]).expect(0);
    fs::write(project.path("order"), "").unwrap();
    fs::remove_file(project.path("target/ww/guests/maker.wasm")).unwrap();
    fs::remove_file(project.path("target/ww/guests/app.wasm")).unwrap();
    built("maker\napp\n");
    run(&project, &["build", "--locked"]).expect(0);
}

#[test]
fn globs_and_texts_are_files_of_an_image() {
    let project = project(&format!(
        "{ECHO}'usr/share' = {{ path = 'docs', glob = '**/*.md' }}\n'etc/motd' = {{ text = \"hello\\n\" }}\n'empty' = {{ text = '' }}\n"
    ));
    project.write("docs/a.md", "a");
    project.write("docs/deep/b.md", "b");
    project.write("docs/c.txt", "c");
    symlink("a.md", project.path("docs/link.md")).unwrap();
    run(&project, &["build"]).expect(0);
    assert_eq!(text(&project, "out/etc/motd"), "hello\n");
    assert_eq!(text(&project, "out/empty"), "");
    assert_eq!(text(&project, "out/usr/share/deep/b.md"), "b");
    assert_eq!(fs::read_link(project.path("out/usr/share/link.md")).unwrap(), Path::new("a.md"));
    assert!(!project.path("out/usr/share/c.txt").exists());
    run(&project, &["build", "--locked"]).expect(0);
    run(&project, &["verify"]).expect(0);

    // A file that fits and is new is found, one that does not fit is none of its business.
    project.write("docs/d.txt", "d");
    run(&project, &["verify"]).expect(0);
    project.write("docs/d.md", "d");
    check_error(&project, &["build", "--locked"], 10, "image `echo`: its source `docs/d.md` is new");
    check_error(&project, &["verify"], 10, "image `echo`: its source `docs/d.md` is new");
    fs::remove_dir_all(project.path("docs")).unwrap();
    fs::create_dir(project.path("docs")).unwrap();
    check_error(&project, &["build"], 5, "nothing below docs fits `**/*.md`, the glob of `usr/share`");
}

/// Two images, of which one is based on the other.
fn layered() -> Project {
    let project = project(&format!(
        "{ECHO}'etc' = {{ path = 'config' }}\n[image.above]\nout = 'above'\nbase = {{ image = 'echo' }}\n\
         [image.above.files]\n'etc/conf' = {{ path = 'more' }}\n"
    ));
    project.write("config/motd", "base");
    project.write("config/conf/a", "a");
    project.write("more/b", "b");
    project
}

#[test]
fn an_image_begins_as_its_base() {
    let project = layered();
    let done = run(&project, &["build", "above"]).expect(0);
    assert!(done.stdout.contains("image echo: ") && done.stdout.contains("image above: "), "{}", done.stdout);
    assert_eq!(project.read("above/bin/main.wasm"), project.read("echo.wasm"));
    assert_eq!(text(&project, "above/etc/motd"), "base");
    assert_eq!((text(&project, "above/etc/conf/a"), text(&project, "above/etc/conf/b")), ("a".into(), "b".into()));
    assert!(!project.path("out/etc/conf/b").exists());
    run(&project, &["build", "--locked"]).expect(0);
    run(&project, &["verify"]).expect(0);

    // What changes in the base is told of both, and altered files are found wherever they come from.
    project.write("config/motd", "other");
    for name in ["echo", "above"] {
        check_error(&project, &["verify", name], 10, &format!("image `{name}`: its source `config/motd` has changed"));
    }
    check_error(&project, &["build", "--locked", "above"], 10, "image `above`: its source `config/motd` has changed");
    project.write("config/motd", "base");
    run(&project, &["verify"]).expect(0);
    project.write("above/etc/motd", "forged");
    check_error(&project, &["verify", "above"], 11, "image `above`: `etc/motd` was altered");
    run(&project, &["build"]).expect(0);
    let wetfile = text(&project, "Wetfile.toml");
    project.write(
        "Wetfile.toml",
        &wetfile
            .replace("base = { image = 'echo' }\n", "")
            .replace("[image.above.files]\n", "[image.above.files]\n'bin/main.wasm' = { guest = 'echo' }\n"),
    );
    check_error(&project, &["verify", "above"], 10, "its base is another than the lock has");
}

#[test]
fn what_base_and_image_both_have_must_be_meant() {
    let project = layered();
    let plain = text(&project, "Wetfile.toml");
    project.write("more/a", "mine");
    let expected = "two sources give `etc/conf/a`: config/conf/a of its base `echo` and more/a";
    check_error(&project, &["build"], 5, expected);
    project.write("Wetfile.toml", &plain.replace("{ path = 'more' }", "{ path = 'more', replace = true }"));
    run(&project, &["build"]).expect(0);
    assert_eq!(text(&project, "above/etc/conf/a"), "mine");
    assert_eq!(text(&project, "above/etc/motd"), "base");
    run(&project, &["verify"]).expect(0);

    // A file in the place of a folder, and what an image asks for in the place of what its base does.
    project.write(
        "Wetfile.toml",
        &plain
            .replace("[image.echo.files]", "grants = ['fetch']\n[image.echo.files]")
            .replace("[image.above.files]", "grants = ['terminal']\n[image.above.files]")
            .replace("'etc/conf' = { path = 'more' }", "'etc/conf' = { text = 'x', replace = true }"),
    );
    run(&project, &["build"]).expect(0);
    assert_eq!(text(&project, "above/etc/conf"), "x");
    assert!(
        text(&project, "above/etc/cell.toml").contains("terminal")
            && text(&project, "out/etc/cell.toml").contains("fetch")
    );
    run(&project, &["verify"]).expect(0);
    run(&project, &["build", "--locked"]).expect(0);
}

/// Publishes a folder of the project, and gives its CID.
pub(crate) fn publish(project: &Project, folder: &str, profile: &str) -> String {
    let folder = format!("./{folder}");
    let done = run(project, &["-q", "publish", &folder, "--no-push", "--profile", profile]).expect(0);
    done.stdout.trim().to_owned()
}

/// A tree by its CID, whatever profile that is of: as an entry, and as a base.
#[test]
fn content_is_taken_by_its_cid() {
    for profile in ["unixfs-v1-2025", "unixfs-v0-2015"] {
        let project = project("");
        project.write("tree/etc/motd", "from afar");
        project.write("tree/large", &"x".repeat(300_000));
        symlink("etc/motd", project.path("tree/link")).unwrap();
        let cid = publish(&project, "tree", profile);
        fs::remove_dir_all(project.path("tree")).unwrap();
        let wetfile = format!(
            "{ECHO}'usr/share' = {{ cid = '{cid}' }}\n\
             [image.above]\nout = 'above'\nbase = {{ cid = '{cid}' }}\nfiles.'bin/main.wasm' = {{ guest = 'echo' }}\n"
        );
        project.wetfile(&wetfile);
        run(&project, &["build", "--offline"]).expect(0);
        assert_eq!(text(&project, "out/usr/share/etc/motd"), "from afar");
        assert_eq!(text(&project, "above/etc/motd"), "from afar");
        assert_eq!(fs::read_link(project.path("above/link")).unwrap(), Path::new("etc/motd"));
        assert!(text(&project, "Wetfile.lock").contains(&format!("\"usr/share\" = \"{cid}\"")));
        run(&project, &["build", "--offline", "--locked"]).expect(0);
        run(&project, &["verify"]).expect(0);

        // What was written of it is believed only as far as it proves itself.
        let copy = format!("target/ww/content/{cid}/etc/motd");
        project.write(&copy, "forged");
        check_error(&project, &["verify", "echo"], 16, &format!("the content {cid} is not here: `ww build` brings it"));
        run(&project, &["build", "--offline", "--locked"]).expect(0);
        assert_eq!((text(&project, &copy), text(&project, "above/etc/motd")), ("from afar".into(), "from afar".into()));
        run(&project, &["verify"]).expect(0);
        project.write("out/usr/share/etc/motd", "forged");
        check_error(&project, &["verify", "echo"], 11, "image `echo`: `usr/share/etc/motd` was altered");

        // Where nobody has it.
        fs::remove_dir_all(project.path("target/ww")).unwrap();
        let empty = project.outside("empty");
        let done = run_in(&project, &empty, &["build", "--offline"]).expect(7);
        let takers = "which image `above` takes as its base and image `echo` takes for `usr/share`";
        let expected = format!("the content {cid} is not here, {takers}\n");
        assert!(done.stderr.contains(&expected), "{}", done.stderr);
        assert!(done.stderr.contains("without --offline a Kubo node and gateways are asked"), "{}", done.stderr);

        // Another CID is another image.
        project.write("tree/etc/motd", "other");
        let other = publish(&project, "tree", profile);
        project.wetfile(&wetfile.replace(&cid, &other));
        check_error(&project, &["build", "--offline", "--locked"], 10, "its entry `usr/share` takes another CID");
        run(&project, &["build", "--offline"]).expect(0);
        assert!(!project.path(&copy).exists(), "what nobody takes any more is removed");
    }
}

/// What is missing comes from whom `ww get` would ask, and nothing that is not what its CID says.
#[test]
fn content_that_is_missing_is_fetched() {
    let (there, here) = (Home::new(), Home::new());
    let project = project("");
    project.write("tree/motd", "from afar");
    let cid = there.publish(&project.path("tree"));
    fs::remove_dir_all(project.path("tree")).unwrap();
    project.wetfile(&format!("{ECHO}'usr/share' = {{ cid = '{cid}' }}\n"));
    let build =
        |from: &[&str]| finish(here.ww(&[&["build", "--kubo", "none"], from].concat()).current_dir(project.path("")));
    let done = build(&[]).expect(7);
    assert!(done.stderr.contains("--gateway URL asks a trustless gateway, too"), "{}", done.stderr);
    assert!(!project.path("out").exists() && !project.path("Wetfile.lock").exists());
    let gateway = Gateway::start(&there);
    build(&["--gateway", &gateway.url]).expect(0);
    assert_eq!(text(&project, "out/usr/share/motd"), "from afar");
    drop(gateway);
    build(&["--locked"]).expect(0);
}

/// A profile changes what is said of guests, and nothing of what the lock says.
#[test]
fn profiles_change_guests_and_not_the_lock() {
    let project = project(&format!(
        "{}[profile.other]\nenv.EXTRA = 'all'\n[profile.other.guest.echo]\nenv.WHICH = 'other'\n",
        ECHO.replace(
            "['cp', 'echo.wasm', '{out}']",
            "'cat $WHICH.wasm > $WW_OUT; echo \"$WW_PROFILE $EXTRA\" > ../said'"
        )
        .replace("inputs = ['echo.wasm']\n", "inputs = ['*.wasm']\nenv.WHICH = 'echo'\n")
    ));
    fs::copy(guest("pid0"), project.path("other.wasm")).unwrap();
    run(&project, &["build"]).expect(0);
    assert_eq!(text(&project, "../said"), " \n");
    let lock = project.read("Wetfile.lock");
    let done = run(&project, &["build", "--profile", "other", "--json"]).expect(0);
    assert!(
        done.stdout.contains("\"profile\":\"other\"") && done.stdout.contains("\"lock\":\"unchanged\""),
        "{}",
        done.stdout
    );
    assert_eq!(text(&project, "../said"), "other all\n");
    assert_eq!(project.read("out/bin/main.wasm"), project.read("other.wasm"));
    assert!(project.read("Wetfile.lock") == lock, "the lock is of builds without a profile");
    // The image is another one than the lock has, which is what is said.
    check_error(
        &project,
        &["verify"],
        11,
        "`bin/main.wasm` was built from other sources of guest `echo` than the lock has, or under a profile",
    );
    run(&project, &["build", "--locked"]).expect(0);
    assert_eq!(project.read("out/bin/main.wasm"), project.read("echo.wasm"));
    run(&project, &["verify"]).expect(0);

    check_error(&project, &["build", "--profile", "othr"], 7, "the Wetfile has no profile `othr`: it has other");
    run(&project, &["build", "--profile", "other", "--locked"]).expect(2);
    let mut command = ww(&["build", "--profile", "other"]);
    let done = finish(command.current_dir(project.path("")).env("WW_LOCKED", "1")).expect(10);
    assert!(done.stderr.contains("Wetfile.lock says nothing of the profile `other`"), "{}", done.stderr);
    assert_eq!(project.read("out/bin/main.wasm"), project.read("echo.wasm"));
}

/// Who goes from a profile to another and back finds what was compiled, though its build script sees another variable.
#[test]
fn a_profile_has_its_own_state_of_cargo() {
    let project = Project::new("p");
    project.wetfile("[guest.x]\npath = 'x'\nenv.WHICH = 'one'\n[profile.other.guest.x]\nenv.WHICH = 'other'\n");
    project.package("x", "name = \"x\"", "src/main.rs", "fn main() { println!(\"{}\", env!(\"WHICH\")) }");
    let compiles = |args: &[&str]| {
        let args: Vec<&str> = ["-v", "build", "--offline"].iter().chain(args).copied().collect();
        let done = run(&project, &args).expect(0);
        assert!(done.stderr.contains("built x in "), "{}", done.stderr);
        done.stderr.contains("Compiling x ")
    };
    assert!(compiles(&[]));
    let without = project.artifact("x");
    assert!(compiles(&["--profile", "other"]));
    assert_ne!(project.artifact("x"), without);
    assert!(!compiles(&[]));
    assert_eq!(project.artifact("x"), without);
    assert!(!compiles(&["--profile", "other"]));
}

/// Features, default features, programs and profiles of cargo reach it, and count as what the guest is made of.
#[test]
fn cargo_is_told_what_the_wetfile_says() {
    let project = Project::new("p");
    project.wetfile(
        "[guest.x]\npath = 'g'\nbin = 'two'\nfeatures = ['extra']\n[profile.bare.guest.x]\ndefault-features = false\n\
         [profile.tiny.guest.x]\nfeatures = []\ncargo-profile = 'tiny'\nbin = 'one'\n[profile.wrong.guest.x]\nbin = 'three'\n",
    );
    let code = "fn main() { println!(\"NAME {} {} {}\", cfg!(feature = \"usual\"), cfg!(feature = \"extra\"), \
                cfg!(debug_assertions)) }";
    project.package(
        "g",
        "name = \"g\"\n[features]\ndefault = ['usual']\nusual = []\nextra = []\n[profile.tiny]\ninherits = 'release'\ndebug-assertions = true\n",
        "src/bin/one.rs",
        &code.replace("NAME", "one"),
    );
    project.write("g/src/bin/two.rs", &code.replace("NAME", "two"));
    let said = |args: &[&str]| {
        run(&project, &[&["-q", "build"], args].concat()).expect(0);
        let image = crate::support::image(&[("bin/main.wasm", &project.path("target/ww/guests/x.wasm"))]);
        finish(&mut crate::support::ww_run(image.path(), &[])).expect(0).stdout
    };
    assert_eq!(said(&[]), "two true true false\n");
    assert_eq!(said(&["--profile", "bare"]), "two false true false\n");
    assert_eq!(said(&["--profile", "tiny"]), "one true false true\n");
    check_error(&project, &["build", "--profile", "wrong"], 4, "g/Cargo.toml has no program `three`: it has one, two");
    let wetfile = text(&project, "Wetfile.toml");
    for (from, to) in
        [("'extra'", ""), ("bin = 'two'", "bin = 'one'"), ("bin = 'two'", "bin = 'two'\ndefault-features = false")]
    {
        project.write("Wetfile.toml", &wetfile.replacen(from, to, 1));
        check_error(&project, &["build", "--locked"], 10, "guest `x`: what the Wetfile says of it has changed");
    }
    project.write("Wetfile.toml", &wetfile.replace("bin = 'two'", "bin = 'two'\ntoolchain = 'no-such-toolchain'"));
    let done = run(&project, &["build"]).expect(4);
    assert!(done.stderr.contains("no-such-toolchain"), "{}", done.stderr);
}

#[test]
fn the_schema_is_printed() {
    let done = finish(&mut ww(&["schema"])).expect(0);
    let schema: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(schema["properties"]["guest"].is_object());
}
