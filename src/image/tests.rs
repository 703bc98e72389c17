//! Images assembled from trees in temporary folders.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::wetfile::{Base, Glob, GuestName, Image, ImageName, ImagePath, Source};

/// A project with an image `pid0` at `images/pid0`, whose program is the artifact of the guest `pid0`.
struct Fixture {
    dir: tempfile::TempDir,
    image: Image,
    /// What it is based on.
    bases: Vec<Image>,
    /// Where trees of CIDs lie.
    contents: BTreeMap<Cid, PathBuf>,
}

/// Does something to a folder.
type Change<'a> = &'a dyn Fn(&Path);

/// A component that exports `wasi:cli/run`, with a text in it that tells one from another.
fn program(text: &str) -> Vec<u8> {
    let component = format!(
        r#"(component (@custom "text" "{text}")
            (import "wasi:cli/environment@0.2.6" (instance $environment))
            (export "wasi:cli/run@0.2.6" (instance $environment)))"#
    );
    wat::parse_str(component).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = Image {
            name: ImageName::new("pid0").unwrap(),
            out: ProjectPath::new("images/pid0").unwrap(),
            base: None,
            files: BTreeMap::new(),
            replaces: BTreeSet::new(),
        };
        let fixture = Self { dir, image, bases: Vec::new(), contents: BTreeMap::new() }.guest("bin/main.wasm", "pid0");
        fixture.write("artifacts/pid0.wasm", program("one"));
        fixture
    }

    fn guest(mut self, path: &str, guest: &str) -> Self {
        let source = Source::Guest(GuestName::new(guest).unwrap());
        self.image.files.insert(ImagePath::new(path).unwrap(), source);
        self
    }

    fn source(mut self, path: &str, source: &str) -> Self {
        let source = Source::Path(ProjectPath::new(source).unwrap());
        self.image.files.insert(ImagePath::new(path).unwrap(), source);
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn artifacts(&self) -> BTreeMap<GuestName, PathBuf> {
        ["pid0", "child"]
            .map(|name| (GuestName::new(name).unwrap(), self.path(&format!("artifacts/{name}.wasm"))))
            .into()
    }

    fn assemble(&self) -> Result<Assembled, ImageError> {
        self.assemble_until(&|| false)
    }

    fn assemble_until(&self, stopped: &dyn Fn() -> bool) -> Result<Assembled, ImageError> {
        let artifacts = self.artifacts();
        let outs = [ProjectPath::new("images/pid0").unwrap()].into();
        let bases: Vec<&Image> = self.bases.iter().collect();
        let parts = Parts { bases: &bases, artifacts: &artifacts, contents: &self.contents, outs: &outs };
        assemble(self.dir.path(), &self.image, &parts, stopped)
    }

    /// The message of the error that assembling gives; nothing may then be left but what was there.
    #[track_caller]
    fn error(&self) -> String {
        let before = self.names("images");
        let error = self.assemble().unwrap_err().to_string();
        assert_eq!(self.names("images"), before, "{error}");
        error
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The assembled image, one line for each object.
    fn listing(&self) -> Vec<String> {
        inspect(&self.path("images/pid0")).unwrap().into_iter().map(line).collect()
    }

    #[track_caller]
    fn check_main(&self, text: &str) {
        assert_eq!(fs::read(self.path("images/pid0/bin/main.wasm")).unwrap(), program(text));
        assert_eq!(self.names("images"), [".pid0.ww", "pid0"]);
    }
}

fn line(entry: Entry) -> String {
    match entry.kind {
        EntryKind::Folder => format!("{}/", entry.path),
        EntryKind::File { size_bytes, .. } => format!("{} {size_bytes}", entry.path),
        EntryKind::Symlink { target } => format!("{} -> {target}", entry.path),
    }
}

#[test]
fn everything_listed_and_nothing_else() {
    let fixture =
        Fixture::new().source("etc", "config").source("usr/lib/notes/readme", "README").source("alias", "link");
    fixture.write("config/.hidden", "h");
    fixture.write("config/app/settings", "abc");
    fixture.write("README", "read me");
    fixture.write("not-listed", "x");
    fs::create_dir(fixture.path("config/empty")).unwrap();
    symlink("app", fixture.path("config/to-folder")).unwrap();
    symlink("/does/not/exist", fixture.path("config/dangling")).unwrap();
    symlink("../../../../etc/passwd", fixture.path("link")).unwrap();
    let assembled = fixture.assemble().unwrap();
    assert_eq!(
        fixture.listing(),
        [
            "alias -> ../../../../etc/passwd".to_owned(),
            "bin/".to_owned(),
            format!("bin/main.wasm {}", program("one").len()),
            "etc/".to_owned(),
            "etc/.hidden 1".to_owned(),
            "etc/app/".to_owned(),
            "etc/app/settings 3".to_owned(),
            "etc/dangling -> /does/not/exist".to_owned(),
            "etc/empty/".to_owned(),
            "etc/to-folder -> app".to_owned(),
            "usr/".to_owned(),
            "usr/lib/".to_owned(),
            "usr/lib/notes/".to_owned(),
            "usr/lib/notes/readme 7".to_owned(),
        ]
    );
    assert_eq!(assembled, Assembled { files: 4, size_bytes: program("one").len() as u64 + 11, changed: true });
    assert_eq!(fixture.names("images"), [".pid0.ww", "pid0"]);
}

#[test]
fn what_the_wetfile_says_is_a_file() {
    let mut fixture = Fixture::new().source("etc", "config");
    fixture.write("config/motd", "hello");
    let text = |text: &str| Source::Text(text.to_owned());
    let path = ImagePath::new("etc/cell.toml").unwrap();
    fixture.image.files.insert(path.clone(), text("cell = 1\n"));
    assert!(fixture.assemble().unwrap().changed);
    assert_eq!(fs::read(fixture.path("images/pid0/etc/cell.toml")).unwrap(), b"cell = 1\n");
    assert!(!fixture.assemble().unwrap().changed);
    for other in ["cell = 2\n", "cell = 12\n"] {
        fixture.image.files.insert(path.clone(), text(other));
        assert!(fixture.assemble().unwrap().changed, "{other}");
    }
    fixture.write("config/cell.toml", "");
    assert_eq!(fixture.error(), "two sources give `etc/cell.toml`: config/cell.toml and what the Wetfile says");
}

#[test]
fn standard_folders_exist_when_nothing_is_in_them() {
    let fixture = Fixture::new();
    fixture.assemble().unwrap();
    let main = format!("bin/main.wasm {}", program("one").len());
    assert_eq!(fixture.listing(), ["bin/", &main, "etc/", "usr/", "usr/lib/"]);
}

#[test]
fn folders_of_several_sources_are_merged() {
    let fixture = Fixture::new().source("etc", "a").source("etc/sub/x", "b/x").source("etc/sub/deep", "c");
    fixture.write("a/sub/deep/1", "");
    fixture.write("b/x", "");
    fixture.write("c/2", "");
    fixture.assemble().unwrap();
    let listing = fixture.listing();
    for expected in ["etc/sub/deep/1 0", "etc/sub/deep/2 0", "etc/sub/x 0"] {
        assert!(listing.iter().any(|line| line == expected), "{expected}: {listing:?}");
    }
}

#[test]
fn modes_are_normalised() {
    let fixture = Fixture::new().source("etc", "config");
    fixture.write("config/run.sh", "x");
    fixture.write("config/sub/secret", "x");
    for (path, mode) in [("config/run.sh", 0o4777), ("config/sub/secret", 0o400), ("config/sub", 0o500)] {
        fs::set_permissions(fixture.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    fixture.assemble().unwrap();
    for entry in inspect(&fixture.path("images/pid0")).unwrap() {
        let metadata = fs::symlink_metadata(fixture.path("images/pid0").join(&entry.path)).unwrap();
        let expected = if metadata.is_dir() { 0o755 } else { 0o644 };
        assert_eq!(metadata.mode() & 0o7777, expected, "{}", entry.path);
    }
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    let test_binary = std::env::current_exe().unwrap();
    for umask in ["000", "002", "077"] {
        let script = format!("umask {umask}; exec \"$0\" --exact image::tests::modes_are_normalised");
        let output = Command::new("/bin/sh").arg("-c").arg(script).arg(&test_binary).output().unwrap();
        assert!(output.status.success(), "umask {umask}: {}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    }
}

#[test]
fn an_unchanged_image_is_left_alone_and_a_changed_one_is_restored() {
    let fixture = Fixture::new().source("etc", "config");
    fixture.write("config/a", "a");
    assert!(fixture.assemble().unwrap().changed);
    let inode = || fs::metadata(fixture.path("images/pid0")).unwrap().ino();
    let first = inode();
    assert!(!fixture.assemble().unwrap().changed);
    assert_eq!(inode(), first);
    let listing = fixture.listing();
    let spoil: [(&str, Change<'_>); 6] = [
        ("byte", &|image| fs::write(image.join("etc/a"), "b").unwrap()),
        ("longer", &|image| fs::write(image.join("etc/a"), "aa").unwrap()),
        ("extra", &|image| fs::write(image.join("etc/extra"), "").unwrap()),
        ("missing", &|image| fs::remove_file(image.join("etc/a")).unwrap()),
        ("mode", &|image| fs::set_permissions(image.join("etc/a"), fs::Permissions::from_mode(0o600)).unwrap()),
        ("kind", &|image| {
            fs::remove_dir_all(image.join("usr/lib")).unwrap();
            symlink("/", image.join("usr/lib")).unwrap();
        }),
    ];
    for (name, spoil) in spoil {
        spoil(&fixture.path("images/pid0"));
        assert!(fixture.assemble().unwrap().changed, "{name}");
        assert_eq!(fixture.listing(), listing, "{name}");
        assert!(!fixture.assemble().unwrap().changed, "{name}");
    }
}

fn glob(folder: &str, glob: &str) -> Source {
    Source::Glob { folder: ProjectPath::new(folder).unwrap(), glob: Glob::new(glob).unwrap() }
}

#[test]
fn what_a_glob_fits_is_laid_out_by_its_path() {
    let mut fixture = Fixture::new();
    fixture.image.files.insert(ImagePath::new("usr/share").unwrap(), glob("config", "**/*.txt"));
    for path in ["a.txt", "b.md", "deep/er/c.txt", "deep/d.md", ".hidden.txt", ".git/e.txt", ".x.ww/f.txt"] {
        fixture.write(&format!("config/{path}"), "x");
    }
    symlink("b.md", fixture.path("config/link.txt")).unwrap();
    fixture.assemble().unwrap();
    let listing = fixture.listing();
    let found: Vec<_> = listing.iter().filter(|line| line.starts_with("usr/share/") && !line.ends_with('/')).collect();
    let expected =
        ["usr/share/.hidden.txt 1", "usr/share/a.txt 1", "usr/share/deep/er/c.txt 1", "usr/share/link.txt -> b.md"];
    assert_eq!(found, expected);
    assert!(!listing.contains(&"usr/share/.git/".to_owned()), "{listing:?}");

    fixture.image.files.insert(ImagePath::new("usr/share").unwrap(), glob("config", "*.rs"));
    assert_eq!(
        fixture.error(),
        "nothing below config fits `*.rs`, the glob of `usr/share`: mend it, or leave the entry out"
    );
    fixture.image.files.insert(ImagePath::new("usr/share").unwrap(), glob("config", "**/id_rsa"));
    fixture.write("config/ssh/id_rsa", "x");
    assert!(fixture.error().starts_with("config/ssh/id_rsa is a private key (by its name)"));
}

/// Neither images nor what `ww` keeps are what somebody meant.
#[test]
fn a_glob_of_the_whole_project_leaves_out_what_is_made() {
    let mut fixture = Fixture::new();
    fixture.image.files.insert(ImagePath::new("src").unwrap(), glob(".", "**/*.txt"));
    for path in ["a.txt", "target/ww/b.txt", "target/c.txt", "images/d.txt"] {
        fixture.write(path, "x");
    }
    for _ in 0..2 {
        fixture.assemble().unwrap();
        let files: Vec<_> = fixture.listing().into_iter().filter(|line| line.contains(".txt")).collect();
        assert_eq!(files, ["src/a.txt 1", "src/images/d.txt 1", "src/target/c.txt 1"]);
    }
}

/// An image that is based on another one, which has `etc/motd`, `etc/conf/a` and a file `data`.
fn based() -> Fixture {
    let base = Fixture::new().source("etc", "base/etc").source("data", "base/data").image;
    let mut fixture = Fixture::new();
    fixture.image.files.clear();
    fixture.write("base/etc/motd", "base");
    fixture.write("base/etc/conf/a", "a");
    fixture.write("base/data", "data");
    fixture.image.base = Some(Base::Image(ImageName::new("below").unwrap()));
    fixture.bases.push(Image { name: ImageName::new("below").unwrap(), ..base });
    fixture
}

#[test]
fn files_are_laid_over_those_of_the_base() {
    let fixture = based().source("etc/conf", "own");
    fixture.write("own/b", "b");
    fixture.assemble().unwrap();
    fixture.check_main("one");
    let files: Vec<_> = fixture.listing().into_iter().filter(|line| line.starts_with("etc/")).collect();
    assert_eq!(files, ["etc/", "etc/conf/", "etc/conf/a 1", "etc/conf/b 1", "etc/motd 4"]);
}

#[test]
fn what_is_in_both_is_an_error_unless_it_replaces() {
    let mut fixture = based().source("etc", "own");
    fixture.write("own/motd", "mine!");
    let expected = "two sources give `etc/motd`: base/etc/motd of its base `below` and own/motd";
    assert_eq!(fixture.error(), expected);
    fixture.image.replaces.insert(ImagePath::new("etc").unwrap());
    fixture.assemble().unwrap();
    assert_eq!(fs::read_to_string(fixture.path("images/pid0/etc/motd")).unwrap(), "mine!");
    assert!(fixture.path("images/pid0/etc/conf/a").exists());

    // A file in the place of a folder, and the other way round.
    for (place, source) in [("etc/conf", "own/motd"), ("data", "own")] {
        let mut fixture = based().source(place, source);
        fixture.write("own/motd", "mine!");
        assert!(fixture.error().starts_with(&format!("two sources give `{place}`: ")), "{place}");
        fixture.image.replaces.insert(ImagePath::new(place).unwrap());
        fixture.assemble().unwrap();
        assert_eq!(fixture.path(&format!("images/pid0/{place}")).is_dir(), source == "own");
    }
}

#[test]
fn trees_of_cids_are_files_folders_and_symlinks() {
    let mut fixture = Fixture::new();
    let content = |text: &str| text.parse::<Cid>().unwrap();
    let cids = [
        content("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"),
        content("bafybeihd4yzq7n5umhjngdum4r6k2to7egxfkf2jz6thvwzf6djus22cmq"),
        content("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
    ];
    for (cid, place) in cids.iter().zip(["file", "folder", "link"]) {
        fixture.image.files.insert(ImagePath::new(place).unwrap(), Source::Content(*cid));
        fixture.contents.insert(*cid, fixture.path(&format!("target/ww/content/{cid}")));
    }
    fixture.write(&format!("target/ww/content/{}", cids[0]), "hello world");
    fixture.write(&format!("target/ww/content/{}/inner/x", cids[1]), "x");
    symlink("file", fixture.path(&format!("target/ww/content/{}", cids[2]))).unwrap();
    fixture.assemble().unwrap();
    let listing = fixture.listing();
    for line in ["file 11", "folder/inner/x 1", "link -> file"] {
        assert!(listing.contains(&line.to_owned()), "{listing:?}");
    }
    assert!(!fixture.assemble().unwrap().changed);

    fixture.image.base = Some(Base::Content(cids[0]));
    assert_eq!(fixture.error(), format!("its base {} is not a directory", cids[0]));
    fixture.image.base = Some(Base::Content(cids[1]));
    fixture.assemble().unwrap();
    assert!(fixture.listing().contains(&"inner/x 1".to_owned()));
    fixture.write(&format!("target/ww/content/{}/folder", cids[1]), "x");
    let error = fixture.error();
    assert_eq!(error, format!("two sources give `folder`: {}/folder and {}", cids[1], cids[1]));
}

#[test]
fn what_is_missing_or_not_storable_is_named() {
    let fixture = Fixture::new().source("etc/x", "assets/x.txt");
    assert_eq!(fixture.error(), "the source of `etc/x` is missing: assets/x.txt");
    fs::create_dir_all(fixture.path("assets")).unwrap();
    assert_eq!(fixture.error(), "the source of `etc/x` is missing: assets/x.txt");

    let fixture = Fixture::new().source("etc", "config");
    fs::create_dir_all(fixture.path("config/run")).unwrap();
    let _socket = UnixListener::bind(fixture.path("config/run/socket")).unwrap();
    assert_eq!(fixture.error(), "config/run/socket is neither a file, a folder nor a symlink");
}

#[test]
fn sources_behind_a_symlink_are_refused() {
    let fixture = Fixture::new().source("etc/x", "assets/x.txt");
    fixture.write("real/x.txt", "x");
    symlink("real", fixture.path("assets")).unwrap();
    assert_eq!(fixture.error(), "assets is reached through a symlink");
}

#[test]
fn names_and_targets_must_be_utf8() {
    let fixture = Fixture::new().source("etc", "config");
    fs::create_dir(fixture.path("config")).unwrap();
    let odd = OsStr::from_bytes(b"\xff\xfe");
    fs::write(fixture.path("config").join(odd), "1").unwrap();
    assert_eq!(fixture.error(), "the name of config/\\xff\\xfe is not UTF-8");
    fs::remove_file(fixture.path("config").join(odd)).unwrap();
    symlink(odd, fixture.path("config/link")).unwrap();
    assert_eq!(fixture.error(), "the symlink config/link has a target that is not UTF-8: \\xff\\xfe");
}

#[test]
fn private_keys_are_refused() {
    let fixture = Fixture::new().source("etc", "config");
    fixture.write("config/ssh/id_ed25519", "anything");
    assert!(fixture.error().starts_with("config/ssh/id_ed25519 is a private key (by its name)"));
    fs::remove_file(fixture.path("config/ssh/id_ed25519")).unwrap();
    fixture.write("config/server.pem", "-----BEGIN EC PRIVATE KEY-----\nMHc");
    assert!(fixture.error().starts_with("config/server.pem is a private key (by its content)"));
    fixture.write("config/server.pem", "-----BEGIN CERTIFICATE-----\nMHc");
    fixture.assemble().unwrap();
}

#[test]
fn two_sources_for_one_path_are_both_named() {
    let fixture = Fixture::new().source("bin", "programs");
    fixture.write("programs/main.wasm", "x");
    assert_eq!(fixture.error(), "two sources give `bin/main.wasm`: programs/main.wasm and guest `pid0`");
    let fixture = Fixture::new().source("etc", "file").source("usr", "file");
    fixture.write("file", "x");
    assert_eq!(fixture.error(), "two sources give `etc`: the standard folders and file");
}

#[test]
fn paths_that_are_too_deep_or_too_long_are_refused() {
    let fixture = Fixture::new().source("etc", "config");
    fs::create_dir_all(fixture.path("config").join("x/".repeat(70))).unwrap();
    assert!(fixture.error().ends_with("is too long or too deep for an image"));
    fs::remove_dir_all(fixture.path("config")).unwrap();
    fs::create_dir_all(fixture.path("config").join(format!("{}/", "x".repeat(250)).repeat(5))).unwrap();
    assert!(fixture.error().ends_with("is too long or too deep for an image"));
}

#[test]
fn the_program_must_be_one() {
    let check = |bytes: &[u8], expected: &str| {
        let fixture = Fixture::new();
        fixture.write("artifacts/pid0.wasm", bytes);
        assert_eq!(fixture.error(), expected);
    };
    check(b"", "`bin/main.wasm` is an empty file, where a component is needed");
    check(b"not wasm", "`bin/main.wasm` is not WebAssembly, where a component is needed");
    check(b"\0asm\x01\0\0\0", "`bin/main.wasm` is a core module, where a component is needed");
    let library = "`bin/main.wasm` is a library, not a program: it does not export wasi:cli/run@0.2 but ";
    check(b"\0asm\x0d\0\x01\0", &format!("{library}nothing"));
    let exports = wat::parse_str(
        r#"(component (import "a:b/c" (instance $i)) (export "x:y/z@1.0.0" (instance $i)) (export "a" (instance $i)))"#,
    );
    check(&exports.unwrap(), &format!("{library}a, x:y/z@1.0.0"));
    let mut cut = program("one");
    cut.pop();
    check(&cut, "`bin/main.wasm` is damaged");

    let mut fixture = Fixture::new();
    fixture.image.files.clear();
    assert_eq!(fixture.error(), "it has no `bin/main.wasm`: list the guest that it runs");
    let mut fixture = Fixture::new().source("bin", "programs");
    fixture.image.files.remove(&ImagePath::new("bin/main.wasm").unwrap());
    fixture.write("programs/real.wasm", program("one"));
    symlink("real.wasm", fixture.path("programs/main.wasm")).unwrap();
    assert_eq!(fixture.error(), "`bin/main.wasm` is a symlink, where a component is needed");
}

#[test]
fn what_ww_did_not_write_is_not_replaced() {
    let check = |prepare: &dyn Fn(&Path)| {
        let fixture = Fixture::new();
        fs::create_dir(fixture.path("images")).unwrap();
        prepare(&fixture.path("images/pid0"));
        let error = fixture.error();
        assert!(error.starts_with("images/pid0 is there already and was not written by ww"), "{error}");
        assert!(error.contains("`.pid0.ww`"), "{error}");
    };
    check(&|out| {
        fs::create_dir(out).unwrap();
        fs::write(out.join("source.rs"), "precious").unwrap();
    });
    check(&|out| fs::write(out, "precious").unwrap());
    check(&|out| symlink("elsewhere", out).unwrap());
}

#[test]
fn an_empty_folder_is_taken() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("images/pid0")).unwrap();
    fixture.assemble().unwrap();
    fixture.check_main("one");
}

#[test]
fn a_marker_from_the_future_is_respected() {
    let fixture = Fixture::new();
    fixture.write("images/.pid0.ww", "{\"format\":99,\"image\":\"pid0\"}");
    assert!(fixture.error().ends_with("images/.pid0.ww was written by a newer ww or by somebody else, or is damaged"));
}

#[test]
fn no_symlink_on_the_way_to_the_image() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("elsewhere")).unwrap();
    symlink("elsewhere", fixture.path("images")).unwrap();
    assert_eq!(fixture.error(), "images is reached through a symlink");
    assert!(fixture.names("elsewhere").is_empty());
}

#[test]
fn a_failure_leaves_the_previous_image() {
    let fixture = Fixture::new();
    fixture.assemble().unwrap();
    fixture.write("artifacts/pid0.wasm", "not wasm");
    fixture.error();
    fixture.check_main("one");
}

/// Whenever it is stopped, the previous image is there, whole, and nothing else.
#[test]
fn it_can_be_stopped_at_each_file() {
    let fixture = Fixture::new().source("etc", "config");
    for name in 0..20 {
        fixture.write(&format!("config/{name}"), "x");
    }
    fixture.assemble().unwrap();
    fixture.write("artifacts/pid0.wasm", program("two"));
    fixture.write("config/9", "y");
    for allowed in 0.. {
        let asked = std::cell::Cell::new(0);
        let stopped = || asked.replace(asked.get() + 1) >= allowed;
        match fixture.assemble_until(&stopped) {
            Err(error) => assert!(matches!(error, ImageError::Cancelled), "{error}"),
            Ok(assembled) => {
                assert!(assembled.changed && allowed > 20);
                break;
            }
        }
        fixture.check_main("one");
    }
    fixture.check_main("two");
}

/// Makes the folder of temporary files as a run leaves it that is killed, with further folders in it.
fn work(images: &Path, folders: &[&str]) -> PathBuf {
    let work = images.join(".pid0.ww-work");
    fs::create_dir(&work).unwrap();
    fs::write(work.join("marker"), "{\"format\":1,\"image\":\"pid0\"}").unwrap();
    folders.iter().for_each(|folder| fs::create_dir_all(work.join(folder)).unwrap());
    work
}

/// Every state in which a killed run can leave the folder, and the next run.
#[test]
fn the_next_run_completes_what_a_killed_one_left() {
    let forget = |images: &Path| {
        fs::remove_dir_all(images.join("pid0")).unwrap();
        fs::remove_file(images.join(".pid0.ww")).unwrap();
    };
    let states: [(&str, Change<'_>); 10] = [
        ("at once", &|images| fs::create_dir(images.join(".pid0.ww-work")).unwrap()),
        ("before the sign was written", &|images| {
            fs::write(work(images, &[]).join("marker"), "").unwrap();
        }),
        ("while the first tree was written", &|images| {
            forget(images);
            work(images, &["tree/bin"]);
        }),
        ("after the first marker", &|images| {
            fs::rename(images.join("pid0"), work(images, &[]).join("tree")).unwrap();
        }),
        ("while a further tree was written", &|images| drop(work(images, &["tree/bin"]))),
        ("while a marker was written", &|images| fs::write(work(images, &["tree"]).join("next"), "{").unwrap()),
        ("after the exchange", &|images| symlink("/", work(images, &["tree/etc"]).join("tree/root")).unwrap()),
        ("between two renames", &|images| {
            fs::rename(images.join("pid0"), work(images, &["old/bin"]).join("tree")).unwrap();
        }),
        ("after two renames", &|images| drop(work(images, &["old/bin"]))),
        ("while the old image was removed", &|images| drop(work(images, &["1/x", "2"]))),
    ];
    for (name, leave) in states {
        for text in ["one", "two"] {
            let fixture = Fixture::new();
            fixture.assemble().unwrap();
            leave(&fixture.path("images"));
            fixture.write("artifacts/pid0.wasm", program(text));
            fixture.assemble().unwrap_or_else(|error| panic!("{name}: {error}"));
            fixture.check_main(text);
        }
    }
}

/// A run that is killed between two renames and never repeated with success still leaves a whole image.
#[test]
fn between_two_renames_the_complete_tree_is_kept() {
    let fixture = Fixture::new();
    fixture.assemble().unwrap();
    let work = work(&fixture.path("images"), &[]);
    fs::rename(fixture.path("images/pid0"), work.join("old")).unwrap();
    fixture.write("artifacts/pid0.wasm", "not wasm");
    fixture.assemble().unwrap_err();
    fixture.check_main("one");
}

/// Names like those of temporary files do not make anything ours.
#[test]
fn what_ww_did_not_write_is_not_removed() {
    for (path, content) in [("x", "precious"), ("tree/x", ""), ("old/x", ""), ("marker", "mine")] {
        let fixture = Fixture::new();
        let precious = format!("images/.pid0.ww-work/{path}");
        fixture.write(&precious, content);
        for _ in 0..2 {
            let error = fixture.error();
            assert!(error.contains("images/.pid0.ww-work was written by a newer ww or by somebody else"), "{error}");
        }
        assert_eq!(fs::read_to_string(fixture.path(&precious)).unwrap(), content);
    }
    for name in [".pid0.ww-new", ".pid0.ww-old", ".pid0.ww-marker"] {
        let fixture = Fixture::new();
        fixture.write(&format!("images/{name}/x"), "precious");
        fixture.assemble().unwrap();
        assert!(fixture.path(&format!("images/{name}/x")).exists());
    }
}

#[test]
fn an_old_image_may_be_deep_and_read_only() {
    let fixture = Fixture::new();
    fixture.assemble().unwrap();
    let mut deep = fixture.path("images/pid0/deep");
    for _ in 0..1500 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir_all(fixture.path("images/pid0/etc/x/y")).unwrap();
    for path in ["images/pid0/etc/x", "images/pid0/etc", "images/pid0"] {
        fs::set_permissions(fixture.path(path), fs::Permissions::from_mode(0o500)).unwrap();
    }
    fixture.write("artifacts/pid0.wasm", program("two"));
    fixture.assemble().unwrap();
    fixture.check_main("two");
}

/// What is wrong with a source is found whether or not the image has it already.
#[test]
fn an_unchanged_image_is_checked_like_a_new_one() {
    let fixture = Fixture::new().source("etc", "config");
    fixture.write("config/a", "a");
    fixture.assemble().unwrap();
    for folder in ["config", "images/pid0/etc"] {
        fixture.write(&format!("{folder}/a"), "-----BEGIN PRIVATE KEY-----\n");
    }
    assert!(fixture.error().starts_with("config/a is a private key (by its content)"));
    for folder in ["config", "images/pid0/etc"] {
        fixture.write(&format!("{folder}/a"), "a");
    }
    fixture.write("artifacts/pid0.wasm", "not wasm");
    fixture.write("images/pid0/bin/main.wasm", "not wasm");
    assert!(fixture.error().starts_with("`bin/main.wasm` is not WebAssembly"));
}

#[test]
fn a_program_that_is_too_large_is_not_copied() {
    let fixture = Fixture::new();
    let artifact = fs::File::options().write(true).open(fixture.path("artifacts/pid0.wasm")).unwrap();
    artifact.set_len(crate::wasm_binary::SIZE_BYTES_MAX + 1).unwrap();
    assert!(fixture.error().ends_with("artifacts/pid0.wasm"));
    assert!(!fixture.path("images").exists());
}

#[test]
fn a_file_without_a_name_for_control_is_kept_as_it_is() {
    let fixture = Fixture::new().source("etc", "config");
    for name in ["a b", "a%20b", "a+b", "line\nfeed", "ünï"] {
        fixture.write(&format!("config/{name}"), "x");
    }
    fixture.assemble().unwrap();
    let names = fixture.names("images/pid0/etc");
    assert_eq!(names, ["a b", "a%20b", "a+b", "line\nfeed", "ünï"]);
}

/// A tree of at most three levels: files with content, symlinks, folders.
#[derive(Clone, Debug)]
enum Object {
    File(Vec<u8>),
    Symlink(String),
    Folder(BTreeMap<String, Object>),
}

fn object() -> impl Strategy<Value = Object> {
    let leaf = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64).prop_map(Object::File),
        "[a-z./]{1,12}".prop_map(Object::Symlink),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        proptest::collection::btree_map("[a-zA-Z0-9 ._+%ü-]{1,8}", inner, 0..6).prop_map(Object::Folder)
    })
}

fn make(path: &Path, object: &Object) {
    match object {
        Object::File(bytes) => fs::write(path, bytes).unwrap(),
        Object::Symlink(target) => symlink(target, path).unwrap(),
        Object::Folder(inner) => {
            fs::create_dir(path).unwrap();
            for (name, object) in inner.iter().filter(|(name, _)| !matches!(name.as_str(), "." | "..")) {
                make(&path.join(name), object);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_assembled_folder_lists_like_its_source(
        inner in proptest::collection::btree_map("[a-zA-Z0-9ü-]{1,8}", object(), 0..6),
    ) {
        let fixture = Fixture::new().source("etc", "config");
        make(&fixture.path("config"), &Object::Folder(inner));
        fixture.assemble().unwrap();
        prop_assert_eq!(
            inspect(&fixture.path("images/pid0/etc")).unwrap(),
            inspect(&fixture.path("config")).unwrap()
        );
        prop_assert!(!fixture.assemble().unwrap().changed);
    }
}
