//! `ww cid`, `ww get`, `ww ls` and `ww cat`, with a blockstore in a temporary folder and without any network.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Done, finish, ww};

/// A user with a folder of files and a blockstore.
struct User(TempDir);

impl User {
    fn new() -> Self {
        let user = Self(tempfile::tempdir().unwrap());
        fs::create_dir(user.path("work")).unwrap();
        user
    }

    /// With a published tree; gives its CID as well.
    fn with_tree() -> (Self, String) {
        let user = Self::new();
        user.write("tree/hello.txt", b"hello\n");
        user.write("tree/sub/a b%20c", b"\x00\xff");
        user.write("tree/sub/large", &vec![b'x'; 3_000_000]);
        symlink("../../etc/passwd", user.path("work/tree/out")).unwrap();
        let root = user.ww(&["-q", "publish", "--offline", "tree"]).expect(0).stdout.trim_end().to_owned();
        (user, root)
    }

    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.path("work").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = ww(args);
        command.current_dir(self.path("work")).env("WW_HOME", self.path("home"));
        command
    }

    fn ww(&self, args: &[&str]) -> Done {
        finish(&mut self.command(args))
    }

    /// As [`User::ww`], with at most so many files open at a time.
    fn ww_with_open_files(&self, files_max: u32, args: &[&str]) -> Done {
        let command = self.command(args);
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit -n {files_max} && exec \"$@\""), "sh"]);
        limited.arg(command.get_program()).args(command.get_args()).current_dir(self.path("work"));
        limited.env("WW_HOME", self.path("home")).env("NO_COLOR", "1");
        finish(&mut limited)
    }

    /// What a command prints with `--json`.
    fn json(&self, args: &[&str]) -> Value {
        let done = self.ww(args).expect(0);
        assert!(done.stdout.ends_with('\n'));
        serde_json::from_str(&done.stdout).unwrap()
    }
}

/// Case C1, and the tree of case I1.
#[test]
fn cid_prints_only_the_cid() {
    let user = User::new();
    user.write("hello", b"hello\n");
    user.write("image/bin/main.wasm", b"\0asm\x01\0\0\0");
    let check = |args: &[&str], expected: &str| {
        let done = user.ww(&[&["cid"], args].concat()).expect(0);
        assert_eq!((done.stdout.trim_end(), done.stderr.as_str()), (expected, ""));
    };
    check(&["hello"], "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am");
    check(&["--profile", "unixfs-v0-2015", "hello"], "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN");
    let image = "bafybeih7evawwmr4si4l3h3yn4fbntoauaq6sy7bqfolvjfyfktoh5n5ly";
    check(&["image"], image);
    let shown = user.json(&["cid", "--json", "image"]);
    let expected = json!({
        "cid": image,
        "profile": "unixfs-v1-2025",
        "files": 1,
        "folders": 2,
        "symlinks": 0,
        "size_bytes": 8,
        "dag_size_bytes": 116,
    });
    assert_eq!(shown, expected);
    assert!(!user.path("home").exists(), "something was stored");
}

#[test]
fn cid_says_what_it_cannot_name() {
    let user = User::new();
    let check = |args: &[&str], code: i32, expected: &str| {
        let done = user.ww(&[&["cid"], args].concat()).expect(code);
        assert_eq!(done.stdout, "");
        assert!(done.stderr.contains(expected), "{}", done.stderr);
    };
    check(&["nothing"], 7, "there is no file or folder nothing");
    check(&["--profile", "v7", "."], 2, "there are unixfs-v1-2025, unixfs-v0-2015, kubo-cidv1");
    symlink("nothing", user.path("work/link")).unwrap();
    check(&["link"], 1, "link is a symlink");
    // A file that says that it is empty.
    check(&["/proc/version"], 1, "/proc/version changed while it was read");
    let _socket = std::os::unix::net::UnixListener::bind(user.path("work/so\x1bcket")).unwrap();
    check(&["."], 1, "./so\\u{1b}cket is neither file, folder nor symlink");
}

#[test]
fn get_makes_the_tree_itself() {
    let (user, root) = User::with_tree();
    let done = user.ww(&["get", "--offline", &root, "-o", "copy"]).expect(0);
    assert_eq!(done.stdout, "copy: 3 files, 3000008 bytes\n");
    assert_eq!(user.ww(&["cid", "copy"]).expect(0).stdout.trim_end(), root);
    assert_eq!(fs::read_link(user.path("work/copy/out")).unwrap(), Path::new("../../etc/passwd"));

    // All forms of paths; without -o the last name.
    let shown = user.json(&["get", "--offline", "--json", &format!("ipfs://{root}/sub/a%20b%2520c")]);
    assert_eq!(fs::read(user.path("work/a b%20c")).unwrap(), b"\x00\xff");
    let cid = shown["cid"].as_str().unwrap();
    let expected = json!({
        "root": root, "path": "sub/a b%20c", "cid": cid, "output": "a b%20c",
        "files": 1, "folders": 0, "symlinks": 0, "size_bytes": 2, "fetched_blocks": 0, "fetched_bytes": 0,
    });
    assert_eq!(shown, expected);
    user.ww(&["get", "--offline", &format!("/ipfs/{root}/hello.txt")]).expect(0);
    assert_eq!(fs::read(user.path("work/hello.txt")).unwrap(), b"hello\n");
}

#[test]
fn get_replaces_nothing_and_leaves_nothing() {
    let (user, root) = User::with_tree();
    user.write("taken/file", b"mine");
    let check = |args: &[&str], code: i32, expected: &str| {
        let done = user.ww(&[&["get", "--offline"], args].concat()).expect(code);
        assert!(done.stderr.contains(expected), "{}", done.stderr);
        let mut names: Vec<_> =
            fs::read_dir(user.path("work")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["taken", "tree"]);
    };
    check(&[&root, "-o", "taken"], 1, "taken exists already");
    check(&[&root, "-o", "taken"], 1, &format!("help: -o taken/{root} writes it into that folder"));
    check(&[&format!("{root}/hello.txt"), "-o", "taken/"], 1, "help: -o taken/hello.txt writes it into that folder");
    check(&[&root, "-o", "taken/file"], 1, "help: remove it, or write to another place with -o");
    check(&[&root, "-o", "no/where"], 1, "cannot open no");
    check(&[&format!("{root}/nothing"), "-o", "x"], 7, "no entry `nothing`");
    check(&[&format!("{root}/hello.txt/x"), "-o", "x"], 7, "is not a directory");
    check(&[&root, "-o", "x", "--size-max", "1MiB"], 8, "larger than the limit of 1048576 bytes");
    check(&[&root, "-o", "x", "--entries-max", "3"], 8, "more files and folders than the limit of 3");
    check(&["tree", "-o", "x"], 2, "`tree` is not a CID");
    check(&[&format!("{root}/../x"), "-o", "x"], 2, "malformed path below the CID");
    let unknown = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
    check(&[unknown, "-o", "x"], 7, "was not found");
}

#[test]
fn ls_lists_names_and_details() {
    let (user, root) = User::with_tree();
    assert_eq!(user.ww(&["ls", "--offline", &root]).expect(0).stdout, "hello.txt\nout\nsub\n");
    let hello = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am";
    let long = user.ww(&["ls", "-l", "--offline", &root]).expect(0).stdout;
    let lines: Vec<Vec<&str>> = long.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["file", "6", hello, "hello.txt"]);
    assert_eq!((lines[1][0], lines[1][1], lines[1][3]), ("symlink", "16", "out"));
    assert_eq!((lines[2][0], lines[2][1], lines[2][3]), ("directory", "-", "sub"));
    let shown = user.json(&["ls", "--json", "-l", "--offline", &format!("/ipfs/{root}/sub")]);
    assert_eq!(shown["path"], "sub");
    let large = &shown["entries"][1];
    assert_eq!(
        (&large["name"], &large["kind"], &large["size_bytes"]),
        (&"large".into(), &"file".into(), &3_000_000.into())
    );
    let shown = user.json(&["ls", "--json", "--offline", &root]);
    assert_eq!(shown["entries"][0], json!({ "name": "hello.txt", "cid": hello }));
    let done = user.ww(&["ls", "--offline", &format!("{root}/hello.txt")]).expect(1);
    assert!(done.stderr.contains(&format!("/ipfs/{root}/hello.txt is not a directory")), "{}", done.stderr);
}

#[test]
fn names_are_escaped_where_they_are_shown() {
    let user = User::new();
    user.write("tree/a\x1b[2J\n", b"x");
    let root = user.ww(&["-q", "publish", "--offline", "tree"]).expect(0).stdout.trim_end().to_owned();
    assert_eq!(user.ww(&["ls", "--offline", &root]).expect(0).stdout, "a\\u{1b}[2J\\n\n");
    let shown = user.ww(&["ls", "--json", "--offline", &root]).expect(0).stdout;
    assert!(!shown.contains('\x1b') && shown.contains("\\u001b"), "{shown}");
}

#[test]
fn cat_prints_contents_as_they_are() {
    let (user, root) = User::with_tree();
    let (hello, large) = (format!("{root}/hello.txt"), format!("{root}/sub/large"));
    let done = user.ww(&["cat", "--offline", &hello, &large, &hello]).expect(0);
    assert_eq!(done.stdout, format!("hello\n{}hello\n", "x".repeat(3_000_000)));
    assert_eq!(done.stderr, "");
    let bytes = user.command(&["cat", "--offline", &format!("{root}/sub/a b%20c")]).output().unwrap().stdout;
    assert_eq!(bytes, b"\x00\xff");

    let shown = user.json(&["cat", "--json", "--offline", &hello, &large]);
    assert_eq!(shown["files"][0]["content_base64"], "aGVsbG8K");
    assert_eq!((&shown["files"][0]["path"], &shown["files"][0]["size_bytes"]), (&"hello.txt".into(), &6.into()));
    let content = BASE64_STANDARD.decode(shown["files"][1]["content_base64"].as_str().unwrap()).unwrap();
    assert!(content == vec![b'x'; 3_000_000]);

    // Nothing is printed where they are too large, one or all together.
    let check = |size_max: &str, contents: &[&str], code: i32| {
        let done = user.ww(&[&["cat", "--offline", "--size-max", size_max], contents].concat()).expect(code);
        assert_eq!(done.stdout.is_empty(), code == 8);
        assert_eq!(done.stderr.contains("--size-max SIZE allows more"), code == 8, "{}", done.stderr);
    };
    check("1MiB", &[&large], 8);
    check("3000005", &[&hello, &large], 8);
    check("3000006", &[&hello, &large], 0);

    // Nothing is printed where one of them is no file.
    let done = user.ww(&["cat", "--offline", &hello, &root]).expect(1);
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains(&format!("/ipfs/{root} is not a file")), "{}", done.stderr);
    user.ww(&["cat", "--offline", &format!("{root}/nothing")]).expect(7);
    // A symlink's target is not followed.
    user.ww(&["cat", "--offline", &format!("{root}/out")]).expect(1);
}

/// What is done does not stay open.
#[test]
fn files_and_folders_may_be_more_than_can_be_open_at_once() {
    let user = User::new();
    for number in 0..250 {
        user.write(&format!("folders/{number}/file"), b"x");
        user.write(&format!("files/{number}"), b"");
        let file = fs::File::options().write(true).open(user.path(format!("work/files/{number}"))).unwrap();
        file.set_len((1 << 20) + number).unwrap();
    }
    let cid = user.ww(&["cid", "files"]).expect(0).stdout;
    assert_eq!(user.ww_with_open_files(200, &["cid", "files"]).expect(0).stdout, cid);
    let root = user.ww_with_open_files(200, &["-q", "publish", "--offline", "folders"]).expect(0).stdout;
    let root = root.trim_end();
    user.ww_with_open_files(200, &["get", "--offline", root, "-o", "copy"]).expect(0);
    assert_eq!(user.ww(&["cid", "copy"]).expect(0).stdout.trim_end(), root);
}

/// The store goes back to its size when nobody needs what was read.
#[test]
fn reading_content_lets_the_store_be_collected_for_its_size() {
    let (user, root) = User::with_tree();
    let (content, hello) = (format!("/ipfs/{root}"), format!("{root}/hello.txt"));
    let commands: [(&[&str], i32); 4] = [
        (&["ls", "--offline", &root], 0),
        (&["cat", "--offline", &hello], 0),
        (&["get", "--offline", &root, "-o", "copy"], 0),
        // The tree has no program.
        (&["run", "--offline", &content], 127),
    ];
    for (args, code) in commands {
        user.ww(&["-q", "publish", "--offline", "tree"]).expect(0);
        user.ww(&["pin", "rm", "tree"]).expect(0);
        let done = finish(user.command(args).env("WW_STORE_MAX", "100KiB")).expect(code);
        assert!(done.stderr.contains("over its size limit: removed"), "{args:?}: {}", done.stderr);
        user.ww(&["ls", "--offline", &root]).expect(7);
    }
}
