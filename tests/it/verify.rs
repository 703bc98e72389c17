//! `ww verify`: what it catches, and what it calls it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use ww::dag::unixfs::Profile;
use ww::dag::{Block, Cid, car};
use ww::tree::{self, BlockSink, BoxError, ImportOptions};

use crate::lock::{copying_project, run, rust_project, toolchain};
use crate::project::Project;
use crate::support::{Done, finish, guest, image, ww};

/// A project that was built.
fn built() -> Project {
    let project = copying_project();
    run(&project, &["-q", "build"]).expect(0);
    project
}

fn findings(done: &Done) -> Vec<(String, String, String)> {
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    findings.map(|finding| (text(&finding["kind"]), text(&finding["path"]), text(&finding["message"]))).collect()
}

/// Verifies and gives the findings as pairs of kind and path.
#[track_caller]
fn found(project: &Project, code: i32) -> Vec<(String, String)> {
    let done = run(project, &["verify", "--json"]).expect(code);
    findings(&done).into_iter().map(|(kind, path, _)| (kind, path)).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(kind, path)| ((*kind).to_owned(), (*path).to_owned())).collect()
}

/// Every regular file below a folder, relative to it.
fn files(dir: &Path, below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            files(dir, &path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn an_image_that_was_built_is_fine() {
    let project = built();
    let done = run(&project, &["verify"]).expect(0);
    assert!(done.stdout.starts_with("image echo: ok, 3 files, bafybei"), "{}", done.stdout);
    assert_eq!(done.stderr, "");
    run(&project, &["verify", "echo"]).expect(0);
    run(&project, &["verify", "out"]).expect(0);
    let done = run(&project, &["verify", "--json", "echo"]).expect(0);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&report["verdict"], &report["code"]), (&"ok".into(), &0.into()));
    assert_eq!(report["checked"][0]["profile"], "unixfs-v1-2025");
}

/// One bit is flipped in each file of an image in turn, and whatever else can happen to a file happens.
#[test]
fn every_altered_file_is_named() {
    let project = built();
    let out = project.path("out");
    let mut all = Vec::new();
    files(&out, Path::new(""), &mut all);
    assert_eq!(all.len(), 3);
    for file in all {
        let (path, shown) = (out.join(&file), format!("out/{}", file.display()));
        let good = fs::read(&path).unwrap();
        for place in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            fs::write(&path, &bad).unwrap();
            let found = found(&project, 11);
            assert_eq!(found[0], ("altered".to_owned(), shown.clone()));
            assert!(found.iter().all(|(_, path)| *path == shown), "{found:?}");
        }
        fs::write(&path, [&good[..], b"x"].concat()).unwrap();
        assert_eq!(found(&project, 11)[0], ("altered".to_owned(), shown.clone()));
        fs::remove_file(&path).unwrap();
        assert_eq!(found(&project, 11), pairs(&[("altered", &shown)]));
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert_eq!(found(&project, 11)[0], ("altered".to_owned(), shown.clone()));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(found(&project, 11)[0], ("altered".to_owned(), shown));
        fs::remove_dir(&path).unwrap();
        fs::write(&path, &good).unwrap();
        run(&project, &["verify"]).expect(0);
    }
    fs::write(out.join("usr/lib/extra"), "x").unwrap();
    assert_eq!(found(&project, 11), pairs(&[("altered", "out/usr/lib/extra")]));
    fs::remove_file(out.join("usr/lib/extra")).unwrap();
    fs::create_dir(out.join("empty")).unwrap();
    assert_eq!(found(&project, 11), pairs(&[("altered", "out/empty")]));
    fs::remove_dir(out.join("empty")).unwrap();
    fs::remove_dir(out.join("usr/lib")).unwrap();
    assert_eq!(found(&project, 11), pairs(&[("altered", "out/usr/lib")]));
}

/// moon#2484: an output that was altered by hand comes back, under the CID as before.
#[test]
fn a_build_restores_what_was_altered() {
    let project = built();
    let before = run(&project, &["verify"]).expect(0).stdout;
    for path in ["out/bin/main.wasm", "target/ww/guests/echo.wasm"] {
        let mut bytes = project.read(path);
        bytes.push(0);
        fs::write(project.path(path), bytes).unwrap();
        run(&project, &["-q", "build", "--locked"]).expect(0);
        assert_eq!(run(&project, &["verify"]).expect(0).stdout, before);
    }
}

#[test]
fn sources_that_changed_since_make_the_lock_out_of_date() {
    let project = built();
    project.write("config/motd", "changed");
    assert_eq!(found(&project, 10), pairs(&[("lock", "config/motd")]));
    // Both are told, and the first kind decides.
    project.write("out/etc/deep/file", "altered");
    assert_eq!(found(&project, 10), pairs(&[("lock", "config/motd"), ("altered", "out/etc/deep/file")]));
    project.write("config/motd", "hello");
    assert_eq!(found(&project, 11), pairs(&[("altered", "out/etc/deep/file")]));
    run(&project, &["-q", "build"]).expect(0);

    fs::copy(guest("pid0"), project.path("src/echo.wasm")).unwrap();
    assert_eq!(found(&project, 10), pairs(&[("lock", "*.wasm")]));
    fs::remove_file(project.path("Wetfile.lock")).unwrap();
    assert_eq!(found(&project, 10), pairs(&[("lock", "Wetfile.lock")]));
    fs::remove_dir_all(project.path("out")).unwrap();
    assert_eq!(found(&project, 10), pairs(&[("lock", "Wetfile.lock"), ("altered", "out")]));
    // Nothing was run, so nothing was made.
    assert!(!project.path("Wetfile.lock").exists() && !project.path("out").exists());
}

/// With programs on the PATH that would record that they were called.
#[test]
fn nothing_is_executed() {
    use std::os::unix::fs::PermissionsExt;
    let project = rust_project();
    run(&project, &["-q", "build"]).expect(0);
    let (bin, called) = (project.outside("bin"), project.outside("record").join("called"));
    for program in ["cargo", "rustc", "rustup", "git", "sh"] {
        let path = bin.join(program);
        fs::write(&path, format!("#!/bin/sh\necho {program} >> '{}'\nexit 1\n", called.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let with_recorders = |args: &[&str]| {
        let mut command = ww(args);
        command.current_dir(project.path("")).env("PATH", &bin);
        for variable in ["CARGO", "RUSTC", "RUSTUP_HOME"] {
            command.env_remove(variable);
        }
        finish(&mut command)
    };
    with_recorders(&["verify"]).expect(0);
    assert!(!called.exists(), "{}", fs::read_to_string(&called).unwrap());
    with_recorders(&["-q", "build"]);
    assert!(called.exists(), "a build calls no compiler");
}

/// Images that never were a project's, with these bytes as their program.
#[test]
fn programs_of_folders() {
    let check = |bytes: &[u8], code: i32, expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("bin/main.wasm"), bytes).unwrap();
        let done = finish(ww(&["verify"]).arg(dir.path())).expect(code);
        assert!(done.stderr.contains(expected), "{}", done.stderr);
    };
    let component = |text: &str| wat::parse_str(text).unwrap();
    check(b"", 12, "is an empty file, where a component is needed");
    check(b"not wasm", 12, "is not WebAssembly, where a component is needed");
    check(b"\0asm\x01\0\0\0", 12, "is a core module, where a component is needed");
    check(b"\0asm\x0d\0\x01\0\x07\xff", 12, "is damaged");
    check(b"\0asm\x0d\0\x01\0", 13, "is a library, not a program: it does not export wasi:cli/run@0.2 but nothing");
    let library =
        component("(component (import \"wasi:io/poll@0.2.0\" (instance $i)) (export \"a:b/c\" (instance $i)))");
    check(&library, 13, "does not export wasi:cli/run@0.2 but a:b/c");
    let program = component(
        "(component (import \"wasi:io/poll@0.2.0\" (instance $i)) (import \"some:other/thing@1.0.0\" (instance))\
         (export \"wasi:cli/run@0.2.0\" (instance $i)))",
    );
    check(&program, 14, "imports `some:other/thing@1.0.0`, which no cell has");
    check(&fs::read(guest("child-echo")).unwrap(), 0, "");

    let dir = tempfile::tempdir().unwrap();
    let done = finish(ww(&["verify"]).arg(dir.path())).expect(12);
    assert!(done.stderr.contains("it has no `bin/main.wasm`"), "{}", done.stderr);
    let done = finish(ww(&["verify"]).arg(dir.path().join("nothing"))).expect(7);
    assert!(done.stderr.contains("there is no file or folder"), "{}", done.stderr);
    std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    finish(ww(&["verify"]).arg(dir.path())).expect(11);
}

#[test]
fn other_programs_of_an_image_must_be_satisfied_as_well() {
    let library = tempfile::NamedTempFile::new().unwrap();
    let text = "(component (import \"some:other/thing@1.0.0\" (instance)))";
    fs::write(library.path(), wat::parse_str(text).unwrap()).unwrap();
    let echo = guest("child-echo");
    let dir = image(&[("bin/main.wasm", &echo), ("bin/other.wasm", library.path())]);
    let done = finish(ww(&["verify"]).arg(dir.path())).expect(14);
    assert!(done.stderr.contains("`bin/other.wasm` imports `some:other/thing@1.0.0`"), "{}", done.stderr);
    // A library says what it needs when somebody links it.
    let dir = image(&[("bin/main.wasm", &echo), ("usr/lib/other.wasm", library.path())]);
    finish(ww(&["verify"]).arg(dir.path())).expect(0);
}

#[test]
fn a_folder_is_the_one_that_a_cid_names() {
    let project = built();
    let inspect = |profile: &str| {
        let done = run(&project, &["inspect", "out", "--json", "--profile", profile]).expect(0);
        serde_json::from_str::<Value>(&done.stdout).unwrap()["cid"].as_str().unwrap().to_owned()
    };
    let (cid, legacy) = (inspect("unixfs-v1-2025"), inspect("unixfs-v0-2015"));
    let verify = |args: &[&str], code: i32| run(&project, &[&["verify", "out"], args].concat()).expect(code).stderr;
    verify(&["--cid", &cid], 0);
    verify(&["--cid", &legacy, "--profile", "unixfs-v0-2015"], 0);
    let stderr = verify(&["--cid", &legacy], 15);
    assert!(stderr.contains("is its CID under the profile unixfs-v0-2015, not under unixfs-v1-2025"), "{stderr}");
    verify(&["--cid", "bafkqaaa"], 11);
    verify(&["--cid", "nonsense"], 2);
    run(&project, &["verify", "--cid", &cid]).expect(2);
    verify(&["--profile", "unixfs-v0-2015"], 2);
    run(&project, &["verify", "--profile", "unixfs-v0-2015"]).expect(2);
    // It is an image of the Wetfile all the same.
    project.write("config/motd", "changed");
    let stderr = verify(&["--cid", &cid], 10);
    assert!(stderr.contains("`config/motd` has changed"), "{stderr}");
}

/// An image of another toolchain is not called altered, an altered one is, and all else is checked.
#[test]
fn another_toolchain_is_inconclusive() {
    let project = rust_project();
    run(&project, &["-q", "build"]).expect(0);
    let here = toolchain(&project);
    let text = String::from_utf8(project.read("Wetfile.lock")).unwrap();
    // As somebody else would have built it.
    let digest = ww::wetfile::lock::Digest::of(&project.artifact("x")).to_string();
    let other = text.replace(&here, "rustc 1.0.0 (other)").replace(&digest, &"0".repeat(64));
    project.write("Wetfile.lock", &other);
    run(&project, &["-q", "build", "--locked"]).expect(0);
    let done = run(&project, &["verify"]).expect(16);
    let expected = format!(
        "warning[inconclusive]: image `x`: `bin/main.wasm` of guest `x` cannot be told: locked with rustc 1.0.0 (other), this is {here}"
    );
    assert!(done.stderr.contains(&expected), "{}", done.stderr);
    assert!(done.stdout.starts_with("image x: inconclusive, 1 file"), "{}", done.stdout);

    project.write("out/etc/extra", "x");
    assert_eq!(found(&project, 11), pairs(&[("inconclusive", "out/bin/main.wasm"), ("altered", "out/etc/extra")]));
    fs::remove_file(project.path("out/etc/extra")).unwrap();
    let mut program = project.read("out/bin/main.wasm");
    *program.last_mut().unwrap() ^= 1;
    fs::write(project.path("out/bin/main.wasm"), program).unwrap();
    assert_eq!(found(&project, 11)[0], ("altered".to_owned(), "out/bin/main.wasm".to_owned()));
    // With nobody to say what compiled it, it is not what it ought to be.
    run(&project, &["-q", "build", "--locked"]).expect(0);
    fs::remove_dir_all(project.path("target")).unwrap();
    assert_eq!(found(&project, 11), pairs(&[("altered", "out/bin/main.wasm")]));
}

/// An image that is older than the sources that the lock is about.
#[test]
fn an_image_of_other_sources_is_told() {
    let project = rust_project();
    run(&project, &["-q", "build"]).expect(0);
    let lock = project.read("Wetfile.lock");
    project.write("g/src/main.rs", "fn main() { println!(\"changed\"); }");
    run(&project, &["-q", "build"]).expect(0);
    project.write("g/src/main.rs", "fn main() {}");
    fs::write(project.path("Wetfile.lock"), lock).unwrap();
    let done = run(&project, &["verify"]).expect(11);
    assert!(done.stderr.contains("was built from other sources of guest `x` than the lock has"), "{}", done.stderr);
}

#[test]
fn a_lock_that_contradicts_itself_is_told() {
    let project = built();
    let text = String::from_utf8(project.read("Wetfile.lock")).unwrap();
    let (before, cid) = text.trim_end().trim_end_matches('"').rsplit_once('"').unwrap();
    assert!(cid.starts_with("bafy"));
    project.write("Wetfile.lock", &format!("{before}\"bafkqaaa\"\n"));
    let done = run(&project, &["verify"]).expect(10);
    assert!(done.stderr.contains("the lock's CID is not that of the files that the lock lists"), "{}", done.stderr);
}

#[test]
fn another_profile_in_the_lock_is_told() {
    let project = built();
    let text = String::from_utf8(project.read("Wetfile.lock")).unwrap();
    project.write("Wetfile.lock", &text.replace("unixfs-v1-2025", "unixfs-v0-2015"));
    let done = run(&project, &["verify", "--json"]).expect(10);
    assert!(findings(&done).iter().any(|(kind, ..)| kind == "profile"), "{}", done.stdout);
}

/// A lock that is right but for its profile.
#[test]
fn another_profile_alone_decides() {
    let project = built();
    let profile = Profile::UNIXFS_V0_2015;
    let cid = |path: &str| blocks(&project.path(path), profile).0;
    let mut lock = ww::wetfile::lock::load(&project.path("")).unwrap().unwrap();
    let image = lock.images.values_mut().next().unwrap();
    image.profile = profile;
    image.sources.values_mut().for_each(|source| *source = cid("config"));
    for (path, file) in &mut image.files {
        if let ww::wetfile::lock::LockedFile::Copied(locked) = file {
            *locked = cid(&format!("out/{path}"));
        }
    }
    image.cids.values_mut().for_each(|locked| *locked = cid("out"));
    project.write("Wetfile.lock", &lock.render());
    assert_eq!(found(&project, 15), pairs(&[("profile", "Wetfile.lock")]));
    run(&project, &["-q", "build", "--locked"]).expect(10);
}

#[test]
fn images_that_are_named_twice_or_wrongly() {
    let project = built();
    let done = run(&project, &["verify", "echo", "out"]).expect(0);
    assert_eq!(done.stdout.lines().count(), 1, "{}", done.stdout);
    let done = run(&project, &["verify", "eco"]).expect(7);
    assert!(done.stderr.contains("did you mean `echo`?"), "{}", done.stderr);
}

/// Paths are those of files that somebody has, and can be found.
#[test]
fn paths_of_what_is_by_itself() {
    let project = built();
    project.write("folder/bin/main.wasm", "");
    let path = |done: &Done| findings(done)[0].1.clone();
    assert_eq!(path(&run(&project, &["verify", "--json", "folder"]).expect(12)), "folder/bin/main.wasm");
    let below = finish(ww(&["verify", "--json", "../folder"]).current_dir(project.path("config"))).expect(12);
    assert!(path(&below).ends_with("folder/bin/main.wasm"), "{}", path(&below));
    let (root, all) = blocks(&project.path("folder"), Profile::default());
    fs::write(project.path("x.car"), archive(&[root, root], &all)).unwrap();
    let done = run(&project, &["verify", "--json", "x.car"]).expect(12);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(report["findings"][0]["path"], Value::Null);
    assert_eq!(report["checked"].as_array().unwrap().len(), 1, "{}", done.stdout);
}

/// What GitHub shows beside the file, and nothing that could be taken for another command.
#[test]
fn findings_become_annotations_of_github() {
    let project = built();
    project.write("config/odd,name:%", "x");
    let mut command = ww(&["verify"]);
    command.env("GITHUB_ACTIONS", "true").env("GITHUB_WORKSPACE", project.path("").parent().unwrap());
    let done = finish(command.current_dir(project.path(""))).expect(10);
    let expected = "::error file=p/config/odd%2Cname%3A%25,title=ww verify%3A lock::image `echo`: its source \
                    `config/odd,name:%25` is new: Wetfile.lock is out of date\n";
    assert!(done.stdout.contains(expected), "{}", done.stdout);
    assert_eq!(done.stderr, "");
    let done = run(&project, &["verify", "--format", "github"]).expect(10);
    assert!(done.stdout.contains("::error file=config/odd%2C"), "{}", done.stdout);
}

/// The names of files and their bytes come from anywhere.
#[test]
fn odd_names_are_shown_as_they_are() {
    let project = built();
    fs::write(project.path("out/etc/a\n\u{1b}[31m"), "x").unwrap();
    let done = run(&project, &["verify"]).expect(11);
    assert!(done.stderr.contains("`etc/a\\n\\u{1b}[31m` is in the image and not in the lock"), "{}", done.stderr);
    use std::os::unix::ffi::OsStrExt;
    fs::write(project.path("out/etc").join(std::ffi::OsStr::from_bytes(b"\xff")), "x").unwrap();
    let done = run(&project, &["verify"]).expect(11);
    assert!(done.stderr.contains("etc/\\xff is not UTF-8"), "{}", done.stderr);
}

#[test]
fn a_symlink_on_the_way_to_an_image_is_not_followed() {
    let project = built();
    fs::rename(project.path("out"), project.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", project.path("out")).unwrap();
    // The Wetfile's own check comes first.
    run(&project, &["verify"]).expect(3);
}

#[test]
fn without_a_wetfile_there_is_nothing_to_verify() {
    let dir = tempfile::tempdir().unwrap();
    finish(ww(&["verify"]).current_dir(dir.path())).expect(3);
}

/// The blocks of a tree under a profile, and its root.
fn blocks(path: &Path, profile: Profile) -> (Cid, Vec<Block>) {
    struct Sink(Vec<Block>);
    impl BlockSink for Sink {
        fn put(&mut self, block: &Block) -> Result<(), BoxError> {
            self.0.push(block.clone());
            Ok(())
        }
        fn has(&mut self, _: &Cid) -> Result<bool, BoxError> {
            Ok(false)
        }
    }
    let mut sink = Sink(Vec::new());
    let imported = tree::import(path, &ImportOptions::new(profile), None, Some(&mut sink)).unwrap();
    (imported.subtree.cid, sink.0)
}

fn archive(roots: &[Cid], blocks: &[Block]) -> Vec<u8> {
    let mut bytes = car::encode_header(roots);
    for block in blocks {
        bytes.extend_from_slice(&car::encode_section_head(block.cid(), block.data().len()));
        bytes.extend_from_slice(block.data());
    }
    bytes
}

#[test]
fn images_in_archives() {
    let dir = image(&[("bin/main.wasm", &guest("child-echo")), ("etc/large", &guest("pid0"))]);
    let path = tempfile::Builder::new().suffix(".car").tempfile().unwrap().into_temp_path();
    let check = |bytes: &[u8], args: &[&str], code: i32, expected: &str| {
        fs::write(&path, bytes).unwrap();
        let done = finish(ww(&["verify"]).arg(&path).args(args)).expect(code);
        assert!(done.stderr.contains(expected), "{}", done.stderr);
        done.stdout
    };
    let (root, all) = blocks(dir.path(), Profile::default());
    let good = archive(&[root], &all);
    let stdout = check(&good, &["--cid", &root.to_string()], 0, "");
    assert!(stdout.ends_with(&format!(": ok, 2 files, {root}\n")), "{stdout}");
    check(&good, &["--cid", "bafkqaaa"], 11, "not bafkqaaa");
    for missing in 0..all.len() {
        let rest: Vec<Block> = all.iter().filter(|block| block.cid() != all[missing].cid()).cloned().collect();
        check(&archive(&[root], &rest), &[], 11, &format!("block {} is missing", all[missing].cid()));
    }
    let mut altered = good.clone();
    *altered.last_mut().unwrap() ^= 1;
    check(&altered, &[], 11, &format!("bytes do not match the hash in {}", all.last().unwrap().cid()));
    let cut_off = format!("it is cut off at byte {}, after block ", good.len() - 1);
    check(&good[..good.len() - 1], &[], 11, &cut_off);
    check(b"nonsense", &[], 11, "it is empty, no CAR, or cut off at its beginning: truncated at byte 8");
    check(b"\x07nonsense", &[], 11, "it is no CAR: malformed header");
    check(&archive(&[], &all), &[], 11, "it names no root");

    let (legacy, of_legacy) = blocks(dir.path(), Profile::UNIXFS_V0_2015);
    let of_legacy = archive(&[legacy], &of_legacy);
    check(&of_legacy, &[], 15, "it was made under the profile unixfs-v0-2015, not under unixfs-v1-2025");
    check(&of_legacy, &["--profile", "unixfs-v0-2015"], 0, "");
    let (file, of_file) = blocks(&dir.path().join("etc/large"), Profile::default());
    check(&archive(&[file], &of_file), &[], 12, "it has no `bin/main.wasm`");
    check(&archive(&[root, file], &all), &[], 12, "it has no `bin/main.wasm`");

    fs::write(dir.path().join("bin/main.wasm"), b"\0asm\x0d\0\x01\0").unwrap();
    let (root, all) = blocks(dir.path(), Profile::default());
    check(&archive(&[root], &all), &[], 13, "is a library, not a program");
}

#[test]
fn content_of_the_blockstore() {
    let home = tempfile::tempdir().unwrap();
    let dir = image(&[("bin/main.wasm", &guest("child-echo"))]);
    let run = |args: &[&str], code: i32| {
        let mut command = ww(args);
        finish(command.current_dir(home.path()).env("WW_HOME", home.path().join("state"))).expect(code)
    };
    let path = dir.path().to_str().unwrap();
    let cid = run(&["-q", "publish", "--no-push", path], 0).stdout.trim().to_owned();
    for given in [cid.clone(), format!("/ipfs/{cid}"), format!("ipfs://{cid}")] {
        let done = run(&["verify", &given, "--cid", &cid], 0);
        assert_eq!(done.stdout, format!("/ipfs/{cid}: ok, 1 file, {cid}\n"));
    }
    run(&["verify", &cid, "--cid", "bafkqaaa"], 11);
    run(&["verify", &cid, "--profile", "unixfs-v0-2015"], 15);
    run(&["verify", &format!("/ipfs/{cid}/bin")], 12);
    run(&["verify", &format!("/ipfs/{cid}/nothing")], 7);
    run(&["verify", "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"], 7);
    run(&["verify", "/ipfs/nonsense"], 2);
    for format in [["--format", "snapshot"].as_slice(), &["--json"]] {
        let of = |given: &str| run(&[&["inspect", given], format].concat(), 0).stdout;
        assert_eq!(of(&cid), of(path));
    }
}
