//! Programs that nobody here wrote, compiled for wasm32-wasip2 as they are: in a cell they do what they do natively.
//!
//! The variable `WW_PROGRAMS` names the folder that `scripts/programs` makes, where each program is for this machine and for
//! cells; `make test-all` sets it.
//!
//! What std for WASI makes different is taken out of the comparison, see [`Said::told_by_a_cell`]. So are options that a
//! program does not have on WASI: ripgrep goes by no times there, finds no loops of links, and colours no paths of itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::{finish, image, root, skipped, ww, ww_run};

/// A program, for this machine and for cells.
struct Program {
    native: PathBuf,
    wasm: PathBuf,
}

impl Program {
    /// The program of this name; `None`, which is said, where there are none to test with.
    fn find(name: &str) -> Option<Self> {
        let Some(programs) = programs() else {
            skipped("programs", "WW_PROGRAMS does not name a folder of programs: `make test-all` makes one");
            return None;
        };
        let (native, wasm) = (programs.join("native/bin").join(name), programs.join(format!("wasm/bin/{name}.wasm")));
        assert!(native.is_file() && wasm.is_file(), "{name} is not in {}", programs.display());
        Some(Self { native, wasm })
    }
}

#[expect(clippy::disallowed_methods, reason = "a test stands for the command line")]
fn programs() -> Option<PathBuf> {
    std::env::var_os("WW_PROGRAMS").filter(|programs| !programs.is_empty()).map(PathBuf::from)
}

/// What a program wrote, with all that is no printable ASCII escaped, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: Option<i32>,
    stdout: Vec<String>,
    stderr: Vec<String>,
}

impl Said {
    fn by(command: &mut Command, input: &[u8]) -> Self {
        let mut stdin = tempfile::tempfile().unwrap();
        stdin.write_all(input).unwrap();
        stdin.rewind().unwrap();
        let output = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        Self { code: output.status.code(), stdout: lines(&output.stdout), stderr: lines(&output.stderr) }
    }

    /// What the same program says in a cell: std's `exit` knows success and failure only, and errors have WASI's numbers.
    fn told_by_a_cell(mut self) -> Self {
        self.code = self.code.map(|code| code.min(1));
        for line in &mut self.stderr {
            *line = line
                .replace("(os error 2)", "(os error 44)")
                .replace("code: 2, kind: NotFound", "code: 44, kind: NotFound");
        }
        self
    }

    /// Without the lines, or the ends of lines, that tell how long something took.
    fn without_times(mut self) -> Self {
        for line in &mut self.stdout {
            if let Some(place) = line.find("\"elapsed").or_else(|| line.find(" seconds")) {
                line.truncate(place);
                line.truncate(
                    line.trim_end_matches(|character: char| character.is_ascii_digit() || character == '.').len(),
                );
            }
        }
        self
    }

    /// With the lines in some order of their own, where the program promises none.
    fn in_any_order(mut self) -> Self {
        self.stdout.sort();
        self
    }
}

fn lines(text: &[u8]) -> Vec<String> {
    text.split_inclusive(|byte| *byte == b'\n').map(|line| line.escape_ascii().to_string()).collect()
}

/// A folder `tree` that a program works on, natively and in a cell.
struct Scene {
    program: Program,
    /// Where `tree` is, and all else that is needed.
    dir: TempDir,
    /// An image with the program alone.
    alone: TempDir,
}

/// How a cell comes to see the tree as `/tree`.
#[derive(Clone, Debug)]
enum Reached {
    /// It is in the image.
    InImage(PathBuf),
    /// It is in the image, which is read from the blockstore.
    ByCid(String),
    /// It is mounted.
    Mounted,
    /// It is mounted to be written.
    Writable,
}

impl Scene {
    /// A program and what it works on; `None`, which is said, where there are no programs.
    fn new(program: &str, fill: impl FnOnce(&Path)) -> Option<Self> {
        let program = Program::find(program)?;
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        fill(&dir.path().join("tree"));
        let alone = image(&[("bin/main.wasm", &program.wasm)]);
        Some(Self { program, dir, alone })
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    /// The ways to the tree that need not write it.
    fn ways(&self) -> [Reached; 3] {
        let image = self.dir.path().join("image");
        fs::create_dir_all(image.join("bin")).unwrap();
        fs::copy(&self.program.wasm, image.join("bin/main.wasm")).unwrap();
        copy(&self.tree(), &image.join("tree"));
        let image_name = image.to_str().unwrap();
        let cid = finish(&mut self.with_store(ww(&["-q", "publish", "--no-push", image_name]))).expect(0).stdout;
        [Reached::InImage(image), Reached::ByCid(cid.trim_end().to_owned()), Reached::Mounted]
    }

    /// A blockstore of its own; the code cache stays that of all tests.
    fn with_store(&self, mut command: Command) -> Command {
        command.env_remove("WW_HOME").env("XDG_DATA_HOME", self.dir.path().join("state"));
        command
    }

    /// The program on this machine, where the tree is in the current folder.
    fn natively(&self, args: &[&str], input: &[u8]) -> Said {
        let mut command = Command::new(&self.program.native);
        // Programs call themselves what they were called.
        command.arg0("main.wasm").args(args).current_dir(self.dir.path());
        Said::by(command.env_clear().env("HOME", self.dir.path().join("home")), input)
    }

    /// The program in a cell, where the tree is in the root.
    fn in_cell(&self, way: &Reached, args: &[&str], input: &[u8]) -> Said {
        let mount = format!("{}:/tree", self.tree().display());
        let mut command = match way {
            Reached::InImage(image) => ww_run(image, &[]),
            Reached::ByCid(cid) => ww_run(Path::new(&format!("/ipfs/{cid}")), &["--offline"]),
            Reached::Mounted => ww_run(self.alone.path(), &["--mount", &mount]),
            Reached::Writable => ww_run(self.alone.path(), &["--mount", &format!("{mount}:rw")]),
        };
        command.args(["--limit", "wall-time=2min", "--"]).args(args);
        Said::by(&mut self.with_store(command), input)
    }

    #[track_caller]
    fn check(&self, ways: &[Reached], args: &[&str], input: &[u8], adapt: fn(Said) -> Said) {
        let expected = adapt(self.natively(args, input).told_by_a_cell());
        for way in ways {
            assert_eq!(adapt(self.in_cell(way, args, input)), expected, "{args:?}, {way:?}");
        }
    }
}

/// Copies a tree, with its links as they are.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// All that is in a tree, which is called `name`: paths, and what is there.
fn listing(tree: &Path, name: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(tree).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        if path.is_dir() {
            found.extend(listing(&path, &name));
            found.insert(name, None);
        } else {
            found.insert(name, Some(fs::read(&path).unwrap()));
        }
    }
    found
}

/// Files with text that is looked for, and with all that makes a searching program look twice.
fn haystack(tree: &Path) {
    for folder in ["src/deep", "docs", ".hidden", "node_modules", ".git", "build"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<_>>();
    let lines = format!("{}needle needle\n{}last needle", "pub fn find() {}\n".repeat(30), "// nothing\n".repeat(20));
    let late = [b"needle early\n".as_slice(), &[b'x'; 100_000], b"\n\0needle late\n"].concat();
    let files: &[(&str, &[u8])] = &[
        ("src/main.rs", b"fn main() {\n    // the needle\n    println!(\"Needle\");\n}\n"),
        ("src/lib.rs", lines.as_bytes()),
        ("src/deep/crlf.txt", b"one\r\nneedle two\r\nthree\r\n"),
        ("docs/unicode.md", "ein Ähre\nNEEDLE ß straße\nnaïve needle ünïcode\n".as_bytes()),
        ("docs/empty.txt", b""),
        ("docs/multi.txt", b"begin\n  needle\nend\nbegin\n  other\nend\n"),
        (".hidden/secret.txt", b"hidden needle\n"),
        ("node_modules/dep.js", b"needle in dep\n"),
        ("build/out.o", b"needle built\n"),
        (".gitignore", b"node_modules/\nbuild/*.o\n*.log\n!keep.log\n"),
        (".ignore", b"ignored.txt\n"),
        ("debug.log", b"needle log\n"),
        ("keep.log", b"needle kept\n"),
        ("ignored.txt", b"needle ignored\n"),
        ("binary.bin", b"text needle\n\0\x01\x02 more needle\n"),
        ("late.bin", &late),
        ("utf16le.txt", &utf16("\u{feff}needle in utf16\nsecond\n", u16::to_le_bytes)),
        ("utf16be.txt", &utf16("\u{feff}needle in utf16 be\n", u16::to_be_bytes)),
        ("latin1.txt", b"caf\xe9 needle\n"),
        ("long.txt", &[[b'a'; 5000].as_slice(), b"needle", &[b'b'; 5000], b"\n"].concat()),
    ];
    for (path, content) in files {
        fs::write(tree.join(path), content).unwrap();
    }
    for (target, link) in [("src/main.rs", "link.rs"), ("docs", "linkdir"), ("nowhere", "dangling"), ("..", "src/up")] {
        symlink(target, tree.join(link)).unwrap();
    }
}

#[test]
fn ripgrep_searches_a_tree() {
    let Some(scene) = Scene::new("rg", haystack) else { return };
    let ways = scene.ways();
    let all: &[&[&str]] = &[
        &["needle", "tree"],
        &["-n", "needle", "tree"],
        &["-c", "needle", "tree"],
        &["-l", "needle", "tree"],
        &["--files-without-match", "needle", "tree"],
        &["-i", "-w", "needle", "tree"],
        &["-v", "-n", "needle", "tree/src"],
        &["-o", "-b", "--column", "needle", "tree"],
        &["-U", "begin\\n.*needle", "tree"],
        &["-U", "--multiline-dotall", "begin.*end", "tree"],
        &["--hidden", "needle", "tree"],
        &["--no-ignore", "needle", "tree"],
        &["-uuu", "needle", "tree"],
        &["-a", "needle", "tree"],
        &["-C", "1", "--heading", "-n", "needle", "tree"],
        &["--color", "always", "--colors", "path:fg:magenta", "--colors", "line:fg:green", "needle", "tree"],
        &["-t", "rust", "-r", "HAYSTACK", "needle", "tree"],
        &["-g", "*.md", "\\p{Lu}hre", "tree"],
        &["--files", "tree"],
        &["--max-depth", "1", "-0", "-l", "needle", "tree"],
        &["-E", "latin1", "café", "tree/latin1.txt"],
        &["--max-columns", "80", "needle", "tree"],
        &["-f", "tree/docs/empty.txt", "tree/src"],
        &["--crlf", "-n", "o$", "tree/src/deep"],
        // Links are not followed on the way, and are at its start.
        &["needle", "tree/link.rs", "tree/linkdir", "tree/src/up/keep.log"],
        &["-L", "needle", "tree/src/lib.rs", "tree/link.rs"],
        // Files that are named are searched whatever is in them.
        &["needle", "tree/binary.bin", "tree/late.bin", "tree/debug.log"],
        // No match, a regular expression that is none, and files that are not there.
        &["absent", "tree"],
        &["a(", "tree"],
        &["needle", "tree/nowhere", "tree/keep.log"],
        &["needle", "tree/dangling"],
    ];
    for args in all {
        scene.check(&ways, &[&["--sort", "path"], *args].concat(), b"", |said| said);
    }
    scene.check(&ways, &["-n", "needle", "tree"], b"", Said::in_any_order);
    scene.check(&ways, &["--sort", "path", "--json", "needle", "tree"], b"", Said::without_times);
    scene.check(&ways, &["--sort", "path", "--stats", "needle", "tree"], b"", Said::without_times);
    // So that all of this means something.
    assert_eq!(scene.natively(&["a(", "tree"], b"").code, Some(2));
    assert_eq!(scene.natively(&["absent", "tree"], b"").code, Some(1));
    assert!(scene.natively(&["-n", "needle", "tree"], b"").stdout.len() > 10);
}

#[test]
fn ripgrep_searches_its_input() {
    let Some(scene) = Scene::new("rg", |_| ()) else { return };
    let text = "nothing\na needle\r\nNEEDLE and needle\nlast".repeat(20_000);
    for args in [&["needle", "-"][..], &["-n", "-i", "needle", "-"], &["-c", "needle", "-"], &["absent", "-"]] {
        scene.check(&[Reached::Mounted], args, text.as_bytes(), |said| said);
        scene.check(&[Reached::Mounted], args, b"", |said| said);
    }
    scene.check(&[Reached::Mounted], &["-a", "-n", "needle", "-"], b"a\0needle\xff\n", |said| said);
    scene.check(&[Reached::Mounted], &["needle", "-"], b"\xff\xfen\0e\0e\0d\0l\0e\0\n\0", |said| said);
}

#[test]
fn ripgrep_searches_what_people_write() {
    let Some(scene) = Scene::new("rg", |tree| {
        for folder in ["src", "tests", "docs"] {
            copy(&root().join(folder), &tree.join(folder));
        }
    }) else {
        return;
    };
    let ways = scene.ways();
    for args in [
        &["-n", "fn \\w+\\(&self", "tree"][..],
        &["-c", "-t", "md", "the", "tree"],
        &["-U", "-n", "async move \\{\\n[^}]*\\}", "tree"],
        &["--files", "-g", "*.rs", "tree"],
    ] {
        scene.check(&ways, &[&["--sort", "path"], args].concat(), b"", |said| said);
    }
}

/// Numbers, of which no two are equal, in no order.
fn numbers(count: u64) -> String {
    (0..count).map(|number| format!("{} {number}\n", number * 7919 % 104_729)).collect()
}

#[test]
fn sort_sorts_its_input_and_files() {
    let Some(scene) = Scene::new("sort", |tree| {
        fs::write(tree.join("words"), "pear\nApple\nfig\napple\nfig\n\n10\n9\n").unwrap();
        fs::write(tree.join("numbers"), numbers(1000)).unwrap();
    }) else {
        return;
    };
    let ways = scene.ways();
    for args in [
        &["tree/words"][..],
        &["-f", "-u", "tree/words"],
        &["-n", "-r", "tree/numbers", "tree/words"],
        &["-k", "2,2n", "tree/numbers"],
        &["-z", "tree/words"],
        &["tree/nowhere"],
        &["-o", "tree/words/below", "tree/words"],
    ] {
        scene.check(&ways, args, b"", |said| said);
    }
    scene.check(&[Reached::Mounted], &["-n"], numbers(1000).as_bytes(), |said| said);
    // It may write to `/tmp`, up to the limit.
    let to_tmp = ["-n", "-o", "/tmp/sorted"];
    assert_eq!(scene.in_cell(&Reached::Mounted, &to_tmp, numbers(1000).as_bytes()).code, Some(0));
    let mut command = ww_run(scene.alone.path(), &["--limit", "tmp=1KiB", "--"]);
    let full = Said::by(command.args(to_tmp), numbers(1000).as_bytes());
    assert!(full.code == Some(1) && full.stderr.concat().contains("No space left"), "{full:?}");
    // Neither an image nor a mount is written to where that was not given.
    for way in &ways {
        let said = scene.in_cell(way, &["-o", "tree/sorted", "tree/words"], b"");
        assert_ne!(said.code, Some(0), "{way:?}");
        assert!(said.stderr.concat().contains("Read-only file system"), "{way:?}: {:?}", said.stderr);
    }
    assert_eq!(listing(&scene.tree(), Path::new("tree")).len(), 2);
}

#[test]
fn sort_writes_to_a_mount_what_it_writes_natively() {
    let fill = |tree: &Path| {
        fs::create_dir(tree.join("out")).unwrap();
        fs::write(tree.join("numbers"), numbers(20_000)).unwrap();
        fs::write(tree.join("in-place"), "b\na\nc\n").unwrap();
    };
    let (Some(scene), Some(natively)) = (Scene::new("sort", fill), Scene::new("sort", fill)) else { return };
    for args in [
        &["-n", "-o", "tree/out/sorted", "tree/numbers"][..],
        &["-n", "-o", "tree/out/sorted", "tree/numbers"],
        &["-r", "-o", "tree/in-place", "tree/in-place"],
        &["-n", "-r", "-o", "tree/out/reversed", "tree/numbers"],
        &["-o", "tree/out/empty"],
        &["-o", "tree/nowhere/sorted", "tree/numbers"],
    ] {
        let expected = natively.natively(args, b"").told_by_a_cell();
        assert_eq!(scene.in_cell(&Reached::Writable, args, b""), expected, "{args:?}");
    }
    let below = |scene: &Scene| listing(&scene.tree(), Path::new("tree"));
    assert_eq!(below(&scene), below(&natively));
    assert_eq!(below(&scene).len(), 6);
}

/// What people write in Markdown.
fn pages(tree: &Path) {
    copy(&root().join("docs"), &tree.join("docs"));
    let dialect =
        "| a | b |\n|:--|--:|\n| 1 | https://example.org |\n\n~~gone~~ :tada: 'quoted' -- Ähre\n\n- [x] done\n";
    fs::write(tree.join("dialect.md"), dialect).unwrap();
    fs::write(tree.join("raw.md"), b"<script>\xff</script>\r\n\r\n\0 *a").unwrap();
}

#[test]
fn comrak_formats_markdown() {
    let Some(scene) = Scene::new("comrak", pages) else { return };
    let ways = scene.ways();
    for args in [
        &["tree/docs/run.md", "tree/docs/authority.md"][..],
        &["--gfm", "--gemoji", "--smart", "tree/dialect.md", "tree/docs/guests.md"],
        &["-t", "xml", "--sourcepos", "tree/docs/store.md"],
        &["-t", "commonmark", "--width", "60", "tree/docs/build.md"],
        &["--unsafe", "tree/raw.md"],
        &["tree/nowhere.md"],
        &["--no-such-option"],
    ] {
        scene.check(&ways, args, b"", |said| said);
    }
    let page = fs::read(scene.tree().join("docs/wetfile.md")).unwrap();
    scene.check(&[Reached::Mounted], &["--gfm"], &page, |said| said);
    scene.check(&[Reached::Mounted], &["--gfm"], b"", |said| said);
}

#[test]
fn comrak_writes_to_a_mount_what_it_writes_natively() {
    let (Some(scene), Some(natively)) = (Scene::new("comrak", pages), Scene::new("comrak", pages)) else { return };
    for args in [
        &["--gfm", "-o", "tree/run.html", "tree/docs/run.md"][..],
        &["--gfm", "--inplace", "tree/dialect.md", "tree/docs/authority.md"],
        &["-t", "xml", "-o", "tree/docs/run.md", "tree/docs/run.md"],
        &["-o", "tree/nowhere/run.html", "tree/docs/run.md"],
    ] {
        let expected = natively.natively(args, b"").told_by_a_cell();
        assert_eq!(scene.in_cell(&Reached::Writable, args, b""), expected, "{args:?}");
    }
    assert_eq!(listing(&scene.tree(), Path::new("tree")), listing(&natively.tree(), Path::new("tree")));
    assert!(scene.tree().join("run.html").is_file());
}
