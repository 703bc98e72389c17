use super::*;
use crate::wetfile::{self, Disk};
use std::fs;

/// A project in a temporary folder whose guest is what these lines say.
struct Example {
    dir: tempfile::TempDir,
    lines: String,
}

const HEAD: &str = "wetfile = 1\n[project]\nname = \"p\"\nversion = \"1\"\n";

impl Example {
    fn new(lines: &str, files: &[(&str, &str)]) -> Self {
        let example = Self { dir: tempfile::tempdir().unwrap(), lines: lines.to_owned() };
        files.iter().for_each(|(path, text)| example.write(path, text));
        example
    }

    fn rust(files: &[(&str, &str)]) -> Self {
        let example = Self::new("path = 'guests/g'", &[("guests/g/Cargo.toml", "")]);
        files.iter().for_each(|(path, text)| example.write(path, text));
        example
    }

    fn command(inputs: &str, files: &[(&str, &str)]) -> Self {
        Self::new(&format!("path = 'src'\nbuild = 'cc -o $WW_OUT'\ninputs = {inputs}"), files)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn project(&self) -> Project {
        let image = "[image.i]\nout = \"guests/g/out\"\nfiles.\"bin/main.wasm\" = { guest = \"g\" }\n";
        let image = if self.lines.contains("guests/g") { "" } else { image };
        let text = format!("{HEAD}[guest.g]\n{}\n{image}", self.lines);
        let root = self.path("");
        let root = root.components().as_path().to_owned();
        wetfile::parse(&text, &root.join("Wetfile.toml"), &Disk { root: root.clone() }).unwrap()
    }

    fn inputs_of(&self, roots: &[&str], environment: &Variables) -> Inputs {
        let project = self.project();
        let guest = &project.guests[&GuestName::new("g").unwrap()];
        digest(&project, guest, roots.iter().copied(), environment, &BTreeMap::new()).unwrap()
    }

    fn inputs(&self) -> Inputs {
        self.inputs_of(&["guests/g"], &Variables::new())
    }

    /// Whether a change makes another digest.
    #[track_caller]
    fn check(&self, is_input: bool, change: impl FnOnce()) {
        let before = self.inputs();
        change();
        assert_eq!(self.inputs() != before, is_input);
        assert_eq!(self.inputs().digest() != before.digest(), is_input);
    }
}

#[test]
fn what_git_sees_of_a_package_counts() {
    let example = Example::rust(&[
        (".gitignore", "/guests/*/generated\n*.tmp\n!keep.tmp\n"),
        ("guests/g/.gitignore", "local\n"),
        ("guests/g/src/main.rs", "fn main() {}"),
    ]);
    let write = |path: &'static str| {
        let example = &example;
        move || example.write(path, path)
    };
    example.check(true, write("guests/g/src/main.rs"));
    example.check(true, write("guests/g/src/new.rs"));
    example.check(true, write("guests/g/.hidden"));
    example.check(true, write("guests/g/src/keep.tmp"));
    example.check(true, write("guests/g/.gitignore"));
    example.check(true, || fs::remove_file(example.path("guests/g/src/new.rs")).unwrap());
    example
        .check(true, || fs::rename(example.path("guests/g/src/main.rs"), example.path("guests/g/src/m.rs")).unwrap());
    example.write("guests/g/.gitignore", "local\n");
    example.check(false, write("guests/g/local/x"));
    example.check(false, write("guests/g/generated/x"));
    example.check(false, write("guests/g/src/x.tmp"));
    example.check(false, write("guests/other/src/main.rs"));
    example.check(false, write(".gitignore~"));
}

/// Whoever builds does not matter: neither their own settings, nor what git knows and the project does not.
#[test]
fn only_the_files_of_the_project_say_what_is_ignored() {
    let example = Example::rust(&[("guests/g/src/main.rs", "")]);
    example.check(false, || example.write(".git/info/exclude", "*.rs\n"));
    example.check(true, || example.write("guests/g/.ignore", "*.rs\n"));
    example.check(true, || example.write("guests/g/src/main.rs", "changed"));
}

#[test]
fn what_is_made_again_does_not_count() {
    let example = Example::rust(&[("guests/g/src/main.rs", "")]);
    example.check(false, || {
        example.write("guests/g/target/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# more");
        example.write("guests/g/target/release/x", "x");
        example.write("guests/g/.git/HEAD", "x");
        example.write("guests/g/.x.ww", "x");
        example.write("target/ww/guests/g.wasm", "x");
    });
    example.check(true, || example.write("guests/g/target/CACHEDIR.TAG", "something else"));
}

/// Whoever commits a mark does not hide sources behind it.
#[test]
fn a_mark_alone_hides_nothing() {
    let mark = "Signature: 8a477f597d28d172789f06886806bc55\n";
    let example = Example::rust(&[("guests/g/src/CACHEDIR.TAG", mark), ("guests/g/src/target/CACHEDIR.TAG", mark)]);
    example.check(true, || example.write("guests/g/src/main.rs", "x"));
    example.check(true, || example.write("guests/g/src/target/x.rs", "x"));
    let example =
        Example::command("['lib', '**/*.c']", &[("src/lib/CACHEDIR.TAG", mark), ("src/c/CACHEDIR.TAG", mark)]);
    example.check(true, || example.write("src/lib/x", "x"));
    example.check(true, || example.write("src/c/x.c", "x"));
}

/// A lock that leaves a guest's own folder out does not keep anybody from looking at it.
#[test]
fn the_own_folder_always_counts() {
    let example = Example::rust(&[("guests/g/src/main.rs", "")]);
    assert_eq!(example.inputs_of(&[], &Variables::new()), example.inputs());
}

#[test]
fn manifests_without_end_are_not_read() {
    let example = Example::rust(&[("Cargo.toml", &"#".repeat((1 << 20) + 1))]);
    let project = example.project();
    let guest = &project.guests[&GuestName::new("g").unwrap()];
    let error = digest(&project, guest, ["Cargo.toml#workspace"], &Variables::new(), &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, InputsError::Io { .. }), "{error}");
}

#[test]
fn modes_times_and_empty_folders_do_not_count() {
    use std::os::unix::fs::PermissionsExt;
    let example = Example::rust(&[("guests/g/src/main.rs", "")]);
    example.check(false, || {
        let file = example.path("guests/g/src/main.rs");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        fs::File::options().write(true).open(file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        fs::create_dir(example.path("guests/g/empty")).unwrap();
    });
}

/// A guest that is made by something else is not in git, and is a guest all the same.
#[test]
fn an_ignored_package_is_looked_at() {
    let example = Example::rust(&[(".gitignore", "/guests\n"), ("guests/g/src/main.rs", "")]);
    example.check(true, || example.write("guests/g/src/main.rs", "changed"));
}

#[test]
fn symlinks_count_by_what_they_say_and_lead_to() {
    use std::os::unix::fs::symlink;
    let example = Example::rust(&[("shared/a.rs", "a"), ("shared/b.rs", "a"), ("guests/g/x", "")]);
    symlink("../../shared/a.rs", example.path("guests/g/link.rs")).unwrap();
    example.check(true, || example.write("shared/a.rs", "b"));
    example.check(true, || {
        fs::remove_file(example.path("guests/g/link.rs")).unwrap();
        symlink("../../shared/b.rs", example.path("guests/g/link.rs")).unwrap();
    });
    example.check(true, || symlink("../../folder", example.path("guests/g/folder")).unwrap());
    example.check(true, || example.write("folder/deep/file", "x"));
    assert!(example.inputs().roots.contains_key("folder"));
    example.check(true, || example.write("folder/deep/file", "y"));
    // Around in circles, and out of the project.
    symlink("..", example.path("folder/up")).unwrap();
    symlink("/usr", example.path("guests/g/usr")).unwrap();
    example.inputs();
}

#[test]
fn settings_on_the_way_count() {
    let example = Example::rust(&[]);
    for file in [".cargo/config.toml", "guests/.cargo/config", "guests/g/rust-toolchain.toml", "rust-toolchain"] {
        example.check(true, || example.write(file, "x"));
        assert!(example.inputs().roots.contains_key(file), "{file}");
    }
    example.check(false, || example.write("other/.cargo/config.toml", "x"));
}

#[test]
fn a_root_that_is_gone_is_missed() {
    let example = Example::rust(&[("lib/x", "")]);
    let roots = |example: &Example| {
        example.inputs_of(&["guests/g", "lib", "../x", "Cargo.toml#workspace"], &Variables::new()).roots
    };
    assert_eq!(roots(&example).keys().collect::<Vec<_>>(), ["guests/g", "lib"]);
    fs::remove_dir_all(example.path("lib")).unwrap();
    assert_eq!(roots(&example).keys().collect::<Vec<_>>(), ["guests/g"]);
}

/// Somebody else's lock, or glob, does not have `ww` look through a disk.
#[test]
fn what_lies_outside_is_not_looked_at() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("folder")).unwrap();
    fs::write(outside.path().join("folder/file"), "x").unwrap();
    let example = Example::rust(&[]);
    std::os::unix::fs::symlink(outside.path(), example.path("link")).unwrap();
    fs::write(outside.path().join("Cargo.toml"), "[workspace]").unwrap();
    std::os::unix::fs::symlink("/dev/zero", example.path("Cargo.toml")).unwrap();
    let given = ["link/folder", "link/folder/file", "../x", "link/Cargo.toml#workspace", "Cargo.toml#workspace"];
    let roots = example.inputs_of(&given, &Variables::new()).roots;
    assert_eq!(roots.into_keys().collect::<Vec<_>>(), ["guests/g"]);
    let example = Example::command("['../link/**', '../link/folder/*']", &[("src/x", "")]);
    std::os::unix::fs::symlink(outside.path(), example.path("link")).unwrap();
    example.check(false, || fs::write(outside.path().join("folder/file"), "y").unwrap());
}

#[test]
fn of_another_workspace_what_is_inherited_counts() {
    let manifest = |dependency: &str, version: &str| {
        format!(
            "[package]\nname = 'x'\n[dependencies]\n{dependency}\n[workspace.package]\n# why\nversion = '{version}'\n"
        )
    };
    let example = Example::rust(&[("Cargo.toml", &manifest("", "1"))]);
    let digest = || example.inputs_of(&["Cargo.toml#workspace"], &Variables::new()).roots["Cargo.toml#workspace"];
    let before = digest();
    example.write("Cargo.toml", &manifest("other = '1'", "1"));
    assert_eq!(digest(), before);
    example.write("Cargo.toml", &manifest("", "2"));
    assert_ne!(digest(), before);
}

#[test]
fn inputs_of_commands() {
    let example = Example::command(
        "['*.c', 'include', '../shared/**/*.h', 'one file']",
        &[
            ("src/a.c", ""),
            ("src/include/x", ""),
            ("src/one file", ""),
            ("src/.gitignore", "*.c\n"),
            ("shared/h.h", ""),
        ],
    );
    let write = |path: &'static str| {
        let example = &example;
        move || example.write(path, path)
    };
    example.check(true, write("src/a.c"));
    example.check(true, write("src/new.c"));
    example.check(true, write("src/include/.hidden/deep"));
    example.check(true, write("shared/a/b/c.h"));
    example.check(true, write("src/one file"));
    example.check(false, write("src/deeper/b.c"));
    example.check(false, write("src/a.cc"));
    example.check(false, write("shared/h.c"));
    example.check(false, write("rust-toolchain"));
    assert_eq!(example.inputs().roots.len(), 4);
}

#[test]
fn folders_with_characters_of_globs_are_folders() {
    let example = Example::command("['*.c']", &[("src/a.c", "")]);
    fs::rename(example.path("src"), example.path("s[x]c")).unwrap();
    let example = Example { lines: example.lines.replace("'src'", "'s[x]c'"), ..example };
    example.check(true, || example.write("s[x]c/b.c", ""));
}

#[test]
fn what_the_wetfile_says_counts() {
    let recipe = |lines: &str| {
        let example = Example::new(lines, &[("src/x", "")]);
        example.inputs_of(&[], &Variables::new()).digest()
    };
    let base = "path = 'src'\nbuild = 'cc -o $WW_OUT'\ninputs = []\n";
    let mut digests = vec![recipe(base)];
    for other in [
        "path = 'src'\nbuild = 'gcc -o $WW_OUT'\ninputs = []",
        "path = 'src'\nbuild = ['cc', '-o', '{out}']\ninputs = []",
        "path = 'src'\nbuild = ['cc', '-o{out}']\ninputs = []",
        "path = 'src'\nbuild = 'cc -o $WW_OUT'\ninputs = ['*']",
        "path = '.'\nbuild = 'cc -o $WW_OUT'\ninputs = []",
        "path = 'src'\nbuild = 'cc -o $WW_OUT'\ninputs = []\nenv.A = ''",
        "path = 'src'\nbuild = 'cc -o $WW_OUT'\ninputs = []\nenv.A = 'inherit'",
        "path = 'src'\nbuild = 'cc -o $WW_OUT'\ninputs = []\nenv.A.inherit = true",
    ] {
        digests.push(recipe(other));
    }
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 9);
    assert_eq!(recipe(&format!("# why\n{base}")), recipe(base));
}

#[test]
fn inherited_variables_count_by_their_values() {
    let example = Example::command("[]\nenv.A.inherit = true", &[("src/x", "")]);
    let with = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        example.inputs_of(&[], &variables)
    };
    let unset = with(&[]);
    assert!(unset.environment.is_some());
    assert_ne!(unset, with(&[("A", "")]));
    assert_ne!(with(&[("A", "1")]), with(&[("A", "2")]));
    assert_eq!(with(&[("A", "1")]), with(&[("A", "1"), ("B", "1")]));
    assert_eq!(with(&[("A", "1")]).recipe, unset.recipe);
}

#[test]
fn what_cannot_be_an_input_is_an_error() {
    let example = Example::command("['[']", &[("src/x", "")]);
    let project = example.project();
    let guest = &project.guests[&GuestName::new("g").unwrap()];
    let error = digest(&project, guest, [], &Variables::new(), &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, InputsError::Glob { .. }), "{error}");
}

/// A guest in another language is made of what git sees in its folder, and of what its `inputs` say.
#[test]
fn other_languages_have_their_folder_and_what_is_listed() {
    let lines = "path = 'guests/g'\nlang = 'c'\nflags = ['-I../h']\ninputs = ['../h/*.h']";
    let files = [("guests/g/.gitignore", "*.o\n"), ("guests/g/a.c", ""), ("guests/h/a.h", "")];
    let example = Example::new(lines, &files);
    let roots: Vec<String> = example.inputs().roots.into_keys().collect();
    assert_eq!(roots, ["*.c", "../h/*.h", "guests/g", "guests/g#include"]);
    let write = |path: &'static str| {
        let example = &example;
        move || example.write(path, path)
    };
    example.check(true, write("guests/g/a.c"));
    example.check(true, write("guests/g/src/b.h"));
    example.check(true, write("guests/h/a.h"));
    example.check(false, write("guests/g/a.o"));
    example.check(false, write("guests/h/a.c"));
    // Settings of cargo and rustup are for Rust.
    example.check(false, write("rust-toolchain.toml"));
    for folder in ["__pycache__", "node_modules", ".zig-cache", "zig-out", "src/.venv"] {
        example.check(false, || example.write(&format!("guests/g/{folder}/x"), "x"));
    }
}

#[test]
fn what_sources_in_c_include_counts_wherever_it_is_in_the_project() {
    let lines = "path = 'guests/g'\nlang = 'c'\nsources = ['*.c', '../s.c']\nflags = ['-I../i', '-I', '../j', '-include', '../pre.h']";
    let example = Example::new(
        lines,
        &[
            (".gitignore", "made.h\n"),
            ("guests/g/a.c", "#include <a.h>\n#include \"../q.h\"\n#include \"made.h\"\n#embed \"../e.bin\"\n"),
            ("guests/s.c", "#include \"beside.h\"\n"),
            ("guests/beside.h", ""),
            ("guests/pre.h", ""),
            ("guests/q.h", "#include \"r.h\"\n"),
            ("guests/r.h", "#include \"q.h\"\n#include \"../outside/../r.h\"\n#include </etc/hosts>\n"),
            ("guests/j/a.h", "#include_next <a.h>"),
            ("guests/e.bin", "#include \"none.h\""),
            ("guests/none.h", ""),
            ("guests/g/made.h", ""),
        ],
    );
    let write = |path: &'static str| {
        let example = &example;
        move || example.write(path, path)
    };
    for file in ["guests/beside.h", "guests/pre.h", "guests/r.h", "guests/j/a.h", "guests/e.bin"] {
        example.check(true, || example.write(file, &(fs::read_to_string(example.path(file)).unwrap() + "\n")));
    }
    example.check(false, write("guests/none.h"));
    // What git ignores is not in everybody's clone: it counts here alone, as long as it is ignored.
    let ignored = || {
        let project = example.project();
        let guest = &project.guests[&GuestName::new("g").unwrap()];
        let scanner = Scanner::new(&project).unwrap();
        let found = find(&scanner, &project, guest, ([], []), &Variables::new(), &BTreeMap::new()).unwrap();
        found.watched["guests/g#include"].1.as_ref().unwrap().digest
    };
    let before = ignored();
    example.check(false, write("guests/g/made.h"));
    assert_ne!(ignored(), before);
    example.check(true, || example.write(".gitignore", ""));
    example.check(true, || example.write("guests/g/made.h", "changed"));
    example.check(false, write("guests/j/b.h"));
    example.check(false, write("guests/c.h"));
    // What comes to where it is looked for before counts, and what is gone.
    example.check(true, write("guests/i/a.h"));
    example.check(false, write("guests/j/a.h"));
    example.check(true, write("r.h"));
    example.check(true, || fs::remove_file(example.path("guests/q.h")).unwrap());
    // A source that is new includes what it includes.
    example.check(true, || example.write("guests/g/b.c", "#include \"../c.h\"\n"));
    example.check(true, || example.write("guests/c.h", "changed"));
    let link = |target: &str, path: &str| {
        let _ = fs::remove_file(example.path(path));
        std::os::unix::fs::symlink(target, example.path(path)).unwrap();
    };
    link("../c.h", "guests/j/link.h");
    example.check(true, || example.write("guests/g/b.c", "#include <link.h>\n"));
    example.check(true, || example.write("guests/c.h", "again"));
}

/// As clang does, whatever the order of the flags.
#[test]
fn headers_are_looked_for_in_the_order_of_the_compiler() {
    let check = |flags: &str, source: &str, expected: &str| {
        let lines = format!("path = 'guests/g'\nlang = 'c'\nflags = [{flags}]");
        let headers = ["guests/i/x.h", "guests/q/x.h", "guests/s/x.h", "e.bin"];
        let files: Vec<_> = headers.map(|path| (path, "")).into_iter().chain([("guests/g/a.c", source)]).collect();
        let example = Example::new(&lines, &files);
        for header in headers {
            example.check(header == expected, || example.write(header, "changed"));
        }
    };
    check("'-I../i', '-iquote', '../q'", "#include \"x.h\"", "guests/q/x.h");
    check("'-I../i', '-iquote', '../q'", "#include <x.h>", "guests/i/x.h");
    check("'-isystem', '../s', '-I../i'", "#include <x.h>", "guests/i/x.h");
    check("'-idirafter', '../s', '-I../i'", "#include <x.h>", "guests/i/x.h");
    check("'-I../i', '-I../s', '-isystem', '../i'", "#include <x.h>", "guests/s/x.h");
    check("'-include', 'x.h', '-I../s'", "", "guests/s/x.h");
    check("", "#embed \"../../e.bin\"", "e.bin");
    check("'--embed-dir=../..'", "#embed <e.bin>", "e.bin");
}

impl Example {
    /// What is seen of what the sources of a C guest include: of what git sees, and of everything. Waits until what was written
    /// before can be told from what is written next.
    fn settled_includes(&self) -> [Arc<Seen>; 2] {
        for _ in 0..1000 {
            let seen = self.includes();
            if seen.iter().all(|seen| self.is_unchanged(seen)) {
                return seen;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("it does not come to rest");
    }

    fn includes(&self) -> [Arc<Seen>; 2] {
        let project = self.project();
        let guest = &project.guests[&GuestName::new("g").unwrap()];
        let scanner = Scanner::new(&project).unwrap();
        let found = find(&scanner, &project, guest, ([], []), &Variables::new(), &BTreeMap::new()).unwrap();
        [&found.roots, &found.watched].map(|roots| roots["guests/g#include"].1.clone().unwrap())
    }

    fn is_unchanged(&self, seen: &Seen) -> bool {
        seen.is_unchanged(&crate::folder::Folder::open(&self.project().root).unwrap(), &seen.context)
    }

    fn link(&self, target: &str, path: &str) {
        let _ = fs::remove_file(self.path(path));
        std::os::unix::fs::symlink(target, self.path(path)).unwrap();
    }
}

/// Another look, which knows what the first has seen, sees what has become of links and folders.
#[test]
fn what_leads_to_headers_is_looked_at_again() {
    let lines = "path = 'guests/g'\nlang = 'c'\nflags = ['-I../over', '-I../inc']";
    let files = [("guests/g/a.c", "#include <x.h>\n"), ("lib/1/x.h", ""), ("lib/2/x.h", ""), ("lib/3/x.h", "")];
    let example = Example::new(lines, &files);
    example.link("../lib/now", "guests/inc");
    example.link("1", "lib/now");
    let changes: [&dyn Fn(); 4] = [
        &|| example.link("2", "lib/now"),
        &|| example.link("../lib/1", "guests/inc"),
        &|| example.link("../lib/3", "guests/over"),
        &|| {
            fs::remove_file(example.path("lib/3/x.h")).unwrap();
            fs::create_dir(example.path("lib/3/x.h")).unwrap();
        },
    ];
    for change in changes {
        let before = example.settled_includes();
        change();
        for (before, present) in before.iter().zip(example.includes()) {
            assert!(!example.is_unchanged(before));
            assert_ne!(present.digest, before.digest);
        }
    }
    // The folder that is in the way of a header is looked at each time.
    let [seen, _] = example.includes();
    assert!(!example.is_unchanged(&seen));
    let folders = seen.watched(&example.project().root);
    assert!(folders.iter().all(|folder| example.path("").join(folder).is_dir()), "{folders:?}");
}

/// What a lock has is the same whether or not headers were made that git ignores.
#[test]
fn headers_that_git_ignores_are_looked_at_here_alone() {
    let lines = "path = 'guests/g'\nlang = 'c'\nflags = ['-I../gen', '-I../inc']";
    let files = [
        (".gitignore", "made.h\n/guests/gen\n"),
        ("guests/g/a.c", "#include \"config.h\"\n#include \"made.h\"\n#include <x.h>\n"),
        ("guests/g/config.h", ""),
        ("guests/inc/x.h", ""),
        ("shared/b.h", ""),
    ];
    let example = Example::new(lines, &files);
    // What is written, and whether that is of a lock as well.
    for (path, text, is_everywhere) in [
        ("guests/g/made.h", "", false),
        ("guests/gen/x.h", "", false),
        ("guests/g/config.h", "#include \"gen.h\"\n", true),
        ("guests/gen/gen.h", "", false),
        ("guests/gen/gen.h", "changed", false),
        ("guests/g/made.h", "#include \"../../shared/b.h\"\n", false),
        ("shared/b.h", "changed", false),
        ("guests/inc/x.h", "changed", true),
        (".gitignore", "", true),
        ("shared/b.h", "again", true),
    ] {
        let before = example.settled_includes();
        example.write(path, text);
        let present = example.includes();
        let [of_lock, of_all] = [0, 1].map(|index| before[index].digest != present[index].digest);
        assert_eq!(of_lock, is_everywhere, "{path}");
        // Behind a header of the same name it does not count here, nor does it matter what git sees.
        assert_eq!(of_all, path != "guests/inc/x.h" && path != ".gitignore", "{path}");
        let is_unchanged = [0, 1].map(|index| example.is_unchanged(&before[index]));
        assert!(!(of_lock && is_unchanged[0] || of_all && is_unchanged[1]), "{path}");
    }
}

/// Of a symlink that leads out of the project it counts what it says, wherever that is and whatever is there.
#[test]
fn links_out_of_the_project_count_by_what_they_say() {
    let outside = tempfile::tempdir().unwrap();
    let header = outside.path().join("x.h");
    let example = Example::new(
        "path = 'guests/g'\nlang = 'c'",
        &[("guests/g/a.c", "#include \"../x.h\"\n"), ("guests/g/.gitignore", ""), ("guests/y.h", "")],
    );
    example.check(true, || example.link(header.to_str().unwrap(), "guests/x.h"));
    example.check(false, || fs::write(&header, "#include \"y.h\"\n").unwrap());
    example.check(false, || example.write("guests/y.h", "changed"));
    example.check(true, || example.link("/nowhere", "guests/x.h"));
}

#[test]
fn what_is_said_of_a_guest_in_another_language_counts() {
    let recipe = |lines: &str| {
        let files = [("guests/g/a.c", ""), ("guests/g/b.c", ""), ("guests/g/a.zig", ""), ("guests/g/b.zig", "")];
        Example::new(&format!("path = 'guests/g'\n{lines}"), &files).inputs().recipe
    };
    let all = [
        "lang = 'c'",
        "lang = 'c'\nsources = ['a.c']",
        "lang = 'c'\nsources = ['b.c', 'a.c']",
        "lang = 'c'\nflags = ['-O2']",
        "lang = 'c'\nsources = ['a.c']\nflags = ['b.c']",
        "lang = 'c'\ninputs = ['a.c']",
        "lang = 'zig'\nmain = 'a.zig'",
        "lang = 'zig'\nmain = 'b.zig'",
    ];
    let mut digests: Vec<Digest> = all.into_iter().map(recipe).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), all.len());
    // What is left out is the same as what is written.
    assert_eq!(recipe("lang = 'c'\nsources = ['*.c']"), recipe("lang = 'c'"));
    assert_eq!(recipe("lang = 'c'\nreproducible = false"), recipe("lang = 'c'"));
}

#[test]
fn the_files_that_a_pattern_means() {
    let files = [("src/a/b.c", ""), ("src/a.c", ""), ("src/b.h", ""), ("src/-x.c", ""), ("other/c.c", "")];
    let example = Example::command("['a.c']", &files);
    std::os::unix::fs::symlink("a.c", example.path("src/link.c")).unwrap();
    let project = example.project();
    let (dir, scanner) = (ProjectPath::new("src").unwrap(), Scanner::new(&project).unwrap());
    let check = |pattern: &str, expected: &[&str]| {
        assert_eq!(scanner.files_of(&dir, pattern).unwrap(), expected, "{pattern}");
    };
    check("*.c", &["-x.c", "a.c"]);
    check("**/*.c", &["-x.c", "a.c", "a/b.c"]);
    check("a/*", &["a/b.c"]);
    check("../other/*.c", &["../other/c.c"]);
    check("nothing.c", &["nothing.c"]);
    check("*.zig", &[]);
    assert!(matches!(scanner.files_of(&dir, "["), Err(InputsError::Glob { .. })));
}

/// Whoever watches is told when a file comes to where there was not even a folder.
#[test]
fn what_may_come_is_known_by_its_folder() {
    let check = |lines: &str, expected: &[&str]| {
        let example = Example::new(lines, &[("guests/g/a.c", ""), ("guests/g/Cargo.toml", ""), ("made/x", "")]);
        fs::create_dir(example.path("guests/.cargo")).unwrap();
        let project = example.project();
        let folders = folders_of_what_may_come(&project, &project.guests[&GuestName::new("g").unwrap()]);
        assert_eq!(folders, expected.iter().map(PathBuf::from).collect(), "{lines}");
    };
    let c = "path = 'guests/g'\nlang = 'c'\nsources = ['*.c', 'gen/*.c']\ninputs = ['../../made/more/*.h']";
    check(c, &["guests/g", "made"]);
    check("path = 'guests/g'\nbuild = 'true $WW_OUT'\ninputs = ['gone/*', '../*.txt']", &["guests", "guests/g"]);
    check("path = 'guests/g'", &["", "guests", "guests/.cargo", "guests/g"]);
}
