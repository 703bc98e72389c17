//! Tests of the whole way from text to project.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::cli::diagnostics::{render, to_json};

/// What `parse` is told to be on disk.
struct Files(BTreeMap<String, Kind>);

impl Files {
    fn new(files: &[(&str, Kind)]) -> Self {
        let mut all = BTreeMap::new();
        for (path, kind) in files {
            for folder in ProjectPath::new(path).unwrap().prefixes() {
                all.entry(folder.as_str().to_owned()).or_insert(Kind::Folder);
            }
            all.insert((*path).to_owned(), *kind);
        }
        Self(all)
    }
}

impl Tree for Files {
    fn kind(&self, path: &ProjectPath) -> io::Result<Option<Kind>> {
        if path.as_str().starts_with("secret/") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(self.0.get(path.as_str()).copied())
    }

    fn files(&self, folder: &ProjectPath) -> io::Result<Vec<String>> {
        let files = self.0.iter().filter(|(_, kind)| **kind == Kind::File);
        let names = files.filter_map(|(path, _)| match folder.is_root() {
            true => Some(path.as_str()),
            false => path.strip_prefix(folder.as_str())?.strip_prefix('/'),
        });
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }
}

/// The files that all fixtures and the examples of the documentation share.
fn files() -> Files {
    Files::new(&[
        ("Wetfile.toml", Kind::File),
        ("guests/c/main.c", Kind::File),
        ("guests/child/Cargo.toml", Kind::File),
        ("guests/hello/Cargo.toml", Kind::File),
        ("guests/mixed/go.mod", Kind::File),
        ("guests/mixed/package.json", Kind::File),
        ("guests/zig/build.zig", Kind::File),
        ("guests/zig/src/main.zig", Kind::File),
        ("hello.c", Kind::File),
        ("images/asking/etc/cell.toml", Kind::File),
        ("images/empty", Kind::Folder),
        ("images/pid0/bin/main.wasm", Kind::File),
        ("images/pid0/etc/motd", Kind::File),
        ("link", Kind::Symlink),
        ("secret", Kind::Folder),
        ("socket", Kind::Other),
        ("src", Kind::Folder),
    ])
}

fn parsed(text: &str) -> Result<Project, Vec<Diagnostic>> {
    parse(text, Path::new("/project/Wetfile.toml"), &files())
}

fn errors(text: &str) -> Vec<Diagnostic> {
    parsed(text).expect_err("the text should be wrong")
}

/// A text with the head that every Wetfile has.
fn with_head(rest: &str) -> String {
    format!("wetfile = 1\n[project]\nname = \"test\"\nversion = \"1\"\n{rest}")
}

fn guest(name: &str) -> GuestName {
    GuestName::new(name).unwrap()
}

/// Checks code and line of everything that is wrong with a text.
#[track_caller]
fn check_errors(text: &str, expected: &[(&str, usize)]) {
    let errors = errors(text);
    let found: Vec<_> = errors.iter().map(|error| (error.code.as_str(), error.primary.span.from.line)).collect();
    assert_eq!(found, expected, "{}", render(&errors, FILE_NAME, text, false));
}

fn repository_file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_fixture_is_reported_as_before() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wetfiles");
    let mut codes = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let errors = errors(&text);
        for error in &errors {
            codes.insert(error.code);
            assert!(error.help.iter().all(|line| !line.is_empty()) && !error.help.is_empty(), "{error:?}");
            assert!(!error.message.is_empty() && !error.message.ends_with('.'), "{error:?}");
        }
        let mut settings = insta::Settings::new();
        settings.set_snapshot_path("../../tests/snapshots/wetfile");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let name = path.file_stem().unwrap().to_str().unwrap();
        settings.bind(|| insta::assert_snapshot!(name, render(&errors, FILE_NAME, &text, false)));
    }
    let elsewhere = [Code::NotUtf8, Code::TooMany, Code::MoreErrors];
    let missing: Vec<_> = Code::ALL.iter().filter(|code| !codes.contains(code) && !elsewhere.contains(code)).collect();
    assert!(missing.is_empty(), "no fixture shows {missing:?}");
}

#[test]
fn the_documentation_has_every_code_and_key() {
    let page = repository_file("docs/wetfile.md");
    for code in Code::ALL {
        assert!(page.contains(&format!("`{}`", code.as_str())), "docs/wetfile.md lacks {}", code.as_str());
    }
    for key in schema::ALL_KEYS.iter().copied().flatten() {
        assert!(page.contains(&format!("`{}`", key.name)), "docs/wetfile.md lacks {}", key.name);
    }
}

/// The first TOML block of the documentation: the complete example.
fn documented_example() -> String {
    let page = repository_file("docs/wetfile.md");
    let (_, rest) = page.split_once("```toml\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_example_of_the_documentation_is_read_as_documented() {
    let files = Files::new(&[
        ("guests/child-echo/Cargo.toml", Kind::File),
        ("guests/pid0/Cargo.toml", Kind::File),
        ("guests/hello-c/hello.c", Kind::File),
        ("images/pid0/etc", Kind::Folder),
        ("tools/stub.sh", Kind::File),
    ]);
    let text = documented_example();
    let project = parse(&text, Path::new("/project/Wetfile.toml"), &files)
        .map_err(|errors| render(&errors, FILE_NAME, &text, false))
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(project.root, Path::new("/project"));
    assert_eq!((project.name.as_str(), project.version.as_str()), ("wetware-examples", "0.1.0"));
    let pid0 = &project.guests[&guest("pid0")];
    let with_log = CargoOptions { features: ["log".to_owned()].into(), ..CargoOptions::default() };
    assert_eq!(pid0.recipe, Recipe::Rust(with_log));
    assert_eq!(pid0.dir.as_str(), "guests/pid0");
    assert_eq!(pid0.embeds, [guest("child-echo"), guest("hello-c")]);
    let hello = &project.guests[&guest("hello-c")];
    let argv = ["zig", "cc", "-target", "wasm32-wasi", "-o", "{out}", "hello.c"].map(str::to_owned).to_vec();
    assert_eq!(
        hello.recipe,
        Recipe::Command { run: Run::Argv(argv), inputs: vec!["*.c".to_owned(), "*.h".to_owned()] }
    );
    assert_eq!(hello.env["SOURCE_NAME"], EnvValue::Set("hello".to_owned()));
    assert_eq!(hello.env["ZIG_GLOBAL_CACHE_DIR"], EnvValue::Inherit);
    let stub = &project.guests[&guest("stub")];
    assert!(stub.dir.is_root());
    assert!(matches!(&stub.recipe, Recipe::Command { run: Run::Shell(line), .. } if line.contains("$WW_OUT")));
    let image = &project.images[&ImageName::new("pid0").unwrap()];
    assert_eq!(image.out.as_str(), "examples/images/pid0");
    assert_eq!(image.files[&ImagePath::new("bin/main.wasm").unwrap()], Source::Guest(guest("pid0")));
    let etc = ProjectPath::new("images/pid0/etc").unwrap();
    assert_eq!(image.files[&ImagePath::new("etc").unwrap()], Source::Path(etc));
    let request = "cell = 1\ngrants = [\"connect\"]\n\n[limits]\nmemory = \"64MiB\"\n";
    assert_eq!(image.files[&ImagePath::new("etc/cell.toml").unwrap()], Source::Text(request.to_owned()));
    assert_eq!(image.guests().into_iter().cloned().collect::<Vec<_>>(), [guest("pid0"), guest("stub")]);
    let order: Vec<&str> = project.build_order([&guest("pid0")]).into_iter().map(GuestName::as_str).collect();
    assert_eq!(order, ["child-echo", "hello-c", "pid0"]);
    let verbose = &project.images[&ImageName::new("verbose").unwrap()];
    assert_eq!(verbose.base, Some(Base::Image(ImageName::new("pid0").unwrap())));
    assert_eq!(verbose.replaces.iter().map(ImagePath::as_str).collect::<Vec<_>>(), ["etc/motd"]);
    assert_eq!(verbose.contents().len(), 1);
    let dev = project.with_profile("dev").unwrap();
    assert_eq!(cargo_options(&dev, "pid0").profile, "dev");
    assert_eq!(cargo_options(&dev, "pid0").features.len(), 2);
    assert_eq!(dev.guests[&guest("stub")].env["LOG"], EnvValue::Set("debug".to_owned()));
}

/// A language is told by what lies in the folder, and so is the file that a program begins with.
#[test]
fn languages_are_told_by_files() {
    let check = |present: &[&str], lines: &str, expected: Option<(Language, Option<&str>, &[&str])>| {
        let paths: Vec<String> = present.iter().map(|name| format!("x/{name}")).collect();
        let files = Files::new(&paths.iter().map(|path| (path.as_str(), Kind::File)).collect::<Vec<_>>());
        let text = with_head(&format!("[guest.x]\npath = \"x\"\n{lines}\n"));
        let project = parse(&text, Path::new("/project/Wetfile.toml"), &files);
        let project = project.map_err(|errors| render(&errors, FILE_NAME, &text, false));
        let project = project.unwrap_or_else(|errors| panic!("{present:?}: {errors}"));
        match (&project.guests[&guest("x")].recipe, expected) {
            (Recipe::Rust(_), None) => {}
            (Recipe::Language(recipe), Some((language, main, sources))) => {
                assert_eq!((recipe.language, recipe.main.as_deref()), (language, main), "{present:?}");
                assert_eq!(recipe.sources, sources, "{present:?}");
            }
            (recipe, expected) => panic!("{present:?}: {recipe:?}, not {expected:?}"),
        }
    };
    check(&["a.c", "a.h"], "", Some((Language::C, None, &["*.c"])));
    check(&["src/a.c", "b.zig"], "lang = 'c'\nsources = ['src/*.c']", Some((Language::C, None, &["src/*.c"])));
    check(&["hello.zig", "README.md"], "", Some((Language::Zig, Some("hello.zig"), &[])));
    check(&["a.zig", "main.zig"], "", Some((Language::Zig, Some("main.zig"), &[])));
    check(&["build.zig", "src/main.zig", "a.c"], "", Some((Language::Zig, None, &[])));
    check(&["go.mod", "main.go", "tool.py"], "", Some((Language::Go, Some("."), &[])));
    check(&["go.mod", "cmd/x/x.go"], "main = './cmd/x/'", Some((Language::Go, Some("cmd/x"), &[])));
    check(&["package.json", "index.js", "other.js"], "", Some((Language::JavaScript, Some("index.js"), &[])));
    check(&["package.json", "src/main.js"], "", Some((Language::JavaScript, Some("src/main.js"), &[])));
    check(&["pyproject.toml", "app.py", "b.py"], "", Some((Language::Python, Some("app.py"), &[])));
    check(&["tool.py"], "", Some((Language::Python, Some("tool.py"), &[])));
    check(&["Cargo.toml", "build.py", "shim.c"], "", None);
}

#[test]
fn a_guest_may_say_that_it_is_not_reproducible() {
    let text = guests_text(&["a", "b"], &[("b", "a")]).replace("[guest.a]\n", "[guest.a]\nreproducible = false\n");
    let project = parsed(&text).unwrap_or_else(|errors| panic!("{}", render(&errors, FILE_NAME, &text, false)));
    assert!(!project.guests[&guest("a")].reproducible && project.guests[&guest("b")].reproducible);
    // Whatever embeds it is not either.
    assert!(!project.is_reproducible(&guest("b")));
}

#[test]
fn the_smallest_wetfile() {
    let project = parsed(&with_head("")).unwrap();
    assert!(project.guests.is_empty() && project.images.is_empty());
}

#[test]
fn a_guest_may_lie_in_the_root_and_an_image_beside_it() {
    let files = Files::new(&[("Cargo.toml", Kind::File)]);
    let text = with_head(
        "[guest.app]\npath = \".\"\n[image.app]\nout = \"out/app\"\nfiles.\"bin/main.wasm\" = { guest = \"app\" }\n",
    );
    let project = parse(&text, Path::new("/project/Wetfile.toml"), &files).unwrap();
    assert!(project.guests[&guest("app")].dir.is_root());
}

#[test]
fn tables_of_other_programs_are_left_alone() {
    parsed(&with_head("[tool.editor]\nx = [1, { y = 2 }]\n")).unwrap();
}

/// A syntax error is reported with its line.
#[test]
fn case_m1() {
    check_errors("[guest.a]\nlang = {x = 1 y}\n", &[("wetfile::syntax", 2)]);
}

/// A misspelt key is named and placed, in the words of a person.
#[test]
fn case_m3() {
    let text = with_head(
        "[guest.a]\nlang=\"rust\"\npath=\"guests/hello\"\nembedss=[\"b\"]\n[guest.b]\nlang=\"rust\"\npath=\"guests/child\"\n",
    );
    check_errors(&text, &[("wetfile::unknown_key", 8)]);
    let error = &errors(&text)[0];
    assert_eq!(error.message, "unknown key `embedss` in `[guest.a]`");
    assert_eq!(error.help, ["did you mean `embeds`?"]);
}

/// An unknown table is an error.
#[test]
fn case_m5() {
    let text = with_head("[imge]\n");
    check_errors(&text, &[("wetfile::unknown_key", 5)]);
    assert_eq!(errors(&text)[0].help, ["did you mean `image`?"]);
}

/// A missing source is named in full, with the entry that asks for it.
#[test]
fn case_m6() {
    let text = with_head(
        "[image.a]\nout = \"out\"\n[image.a.files]\n\"bin/main.wasm\" = { path = \"images/pid0/bin/main.wasm\" }\n\"etc/x.txt\" = { path = \"assets/x.txt\" }\n",
    );
    check_errors(&text, &[("wetfile::missing_path", 9)]);
    let shown = render(&errors(&text), FILE_NAME, &text, false);
    for part in ["`etc/x.txt`", "`assets/x.txt`", "`/project/assets/x.txt`"] {
        assert!(shown.contains(part), "{shown}");
    }
}

/// A Wetfile with one guest for each name, each embedding what the edges say.
fn guests_text(names: &[&str], edges: &[(&str, &str)]) -> String {
    let mut text = with_head("");
    for name in names {
        let embeds: Vec<_> = edges.iter().filter(|(from, _)| from == name).map(|(_, to)| format!("\"{to}\"")).collect();
        text += &format!("[guest.{name}]\npath = \"guests/hello\"\nembeds = [{}]\n", embeds.join(", "));
    }
    text
}

/// A cycle names its guests in a chain, and no others; each edge is labelled with its own line.
#[test]
fn case_g1() {
    let text = guests_text(&["a", "b", "c", "d"], &[("a", "b"), ("b", "c"), ("c", "a"), ("a", "d")]);
    check_errors(&text, &[("wetfile::cycle", 13)]);
    let error = &errors(&text)[0];
    assert_eq!(error.message, "guests embed each other in a cycle: a -> b -> c -> a");
    let labels: Vec<_> = error.secondary.iter().map(|label| (label.text.as_str(), label.span.from.line)).collect();
    assert_eq!(labels, [("`a` embeds `b`", 7), ("`b` embeds `c`", 10)]);
    assert_eq!(error.primary.text, "`c` embeds `a`");
}

/// Cycles of two and of one are errors; a diamond is none, and its base comes once.
#[test]
fn case_g2() {
    check_errors(&guests_text(&["a", "b"], &[("a", "b"), ("b", "a")]), &[("wetfile::cycle", 10)]);
    check_errors(&guests_text(&["a"], &[("a", "a")]), &[("wetfile::cycle", 7)]);
    let diamond = [("top", "l"), ("top", "r"), ("l", "base"), ("r", "base")];
    let project = parsed(&guests_text(&["top", "l", "r", "base"], &diamond)).unwrap();
    let order: Vec<&str> = project.build_order([&guest("top")]).into_iter().map(GuestName::as_str).collect();
    assert_eq!(order, ["base", "l", "r", "top"]);
}

/// Whatever makes a cycle is in it, and where one edge is enough to cut all of them, it is that one.
#[test]
fn cycles_that_hang_together_are_one_error() {
    let text = guests_text(&["a", "b", "c", "d"], &[("a", "b"), ("b", "c"), ("c", "a"), ("b", "d"), ("d", "a")]);
    check_errors(&text, &[("wetfile::cycle", 7)]);
    let error = &errors(&text)[0];
    assert_eq!(error.primary.text, "`a` embeds `b`");
    assert_eq!(error.secondary.len(), 4);
    assert_eq!(error.help, ["without `b` in the `embeds` of `a` (line 7) all of these cycles are cut"]);
}

#[test]
fn needs_are_built_before() {
    let text = with_head(
        "[guest.a]\npath = 'guests/hello'\nneeds = ['c']\nembeds = ['b']\n[guest.b]\npath = 'guests/hello'\n\
         [guest.c]\npath = 'guests/hello'\nneeds = ['b']\nreproducible = false\ndescription = 'x'\n",
    );
    let project = parsed(&text).unwrap();
    let order: Vec<&str> = project.build_order([&guest("a")]).into_iter().map(GuestName::as_str).collect();
    assert_eq!(order, ["b", "c", "a"]);
    assert_eq!(
        (&*project.guests[&guest("a")].needs, &*project.guests[&guest("a")].embeds),
        (&[guest("c")][..], &[guest("b")][..])
    );
    assert!(project.guests[&guest("a")].reproducible && !project.guests[&guest("c")].reproducible);
}

/// The options of a Rust guest under a profile.
fn cargo_options(project: &Project, name: &str) -> CargoOptions {
    match &project.guests[&guest(name)].recipe {
        Recipe::Rust(options) => options.clone(),
        other => panic!("{other:?}"),
    }
}

/// What a profile does not say of a guest, it says for all; and what it does not say for all, the guest says itself.
#[test]
fn profiles_fall_back_key_by_key() {
    let text = with_head(
        "[guest.a]\npath = 'guests/hello'\nfeatures = ['own']\ntoolchain = '1.95.0'\nenv = { A = '1', B = '1', C = '1' }\n\
         [guest.b]\npath = 'guests/child'\n\
         [guest.c]\nbuild = ['cc', '{out}']\ninputs = ['hello.c']\n\
         [profile.dev]\ncargo-profile = 'dev'\nenv = { B = '2', C = '2' }\n\
         [profile.dev.guest.a]\nfeatures = ['x', 'y']\ndefault-features = false\nenv.C = '3'\nenv.D = { inherit = true }\n\
         [profile.dev.guest.c]\nbuild = 'cc -g -o $WW_OUT hello.c'\n\
         [profile.small.guest.a]\ncargo-profile = 'small'\nbin = 'tiny'\n",
    );
    let plain = parsed(&text).unwrap();
    assert_eq!(plain.profile, None);
    assert_eq!(cargo_options(&plain, "b"), CargoOptions::default());
    let dev = plain.clone().with_profile("dev").unwrap();
    assert_eq!(dev.profile.as_ref().map(ProfileName::as_str), Some("dev"));
    let features = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let toolchain = Some("1.95.0".to_owned());
    let expected = CargoOptions {
        toolchain: toolchain.clone(),
        features: features(&["x", "y"]),
        default_features: false,
        bin: None,
        profile: "dev".to_owned(),
    };
    assert_eq!(cargo_options(&dev, "a"), expected);
    assert_eq!(cargo_options(&dev, "b"), CargoOptions { profile: "dev".to_owned(), ..CargoOptions::default() });
    let set = |value: &str| EnvValue::Set(value.to_owned());
    let env = &dev.guests[&guest("a")].env;
    let expected =
        [("A", set("1")), ("B", set("2")), ("C", set("3")), ("D", EnvValue::Inherit), ("WW_PROFILE", set("dev"))];
    assert_eq!(*env, expected.map(|(name, value)| (name.to_owned(), value)).into());
    let Recipe::Command { run, inputs } = &dev.guests[&guest("c")].recipe else { panic!("it is a command") };
    assert!(matches!(run, Run::Shell(line) if line.starts_with("cc -g")) && *inputs == ["hello.c"]);
    let small = plain.clone().with_profile("small").unwrap();
    let expected = CargoOptions {
        toolchain,
        features: features(&["own"]),
        bin: Some("tiny".to_owned()),
        profile: "small".to_owned(),
        ..CargoOptions::default()
    };
    assert_eq!(cargo_options(&small, "a"), expected);
    assert_eq!(cargo_options(&small, "b"), CargoOptions::default());
    let error = plain.clone().with_profile("smal").unwrap_err();
    assert_eq!(error.to_string(), "the Wetfile has no profile `smal`: it has dev, small");
    let error = parsed(&guests_text(&["a"], &[])).unwrap().with_profile("dev").unwrap_err();
    assert_eq!(error.to_string(), "the Wetfile has no profile `dev`: it has none, and `[profile.NAME]` makes one");
}

/// What is wrong with a guest itself is not told again for each profile.
#[test]
fn errors_of_guests_are_not_repeated_for_profiles() {
    let text = with_head(
        "[guest.a]\npath = 'nowhere'\nenv.WW_X = ''\n[profile.x.guest.a]\nfeatures = ['-x']\n[profile.y.guest.a]\nbin = 'x'\n",
    );
    check_errors(&text, &[("wetfile::missing_path", 6), ("wetfile::invalid_name", 7), ("wetfile::invalid_value", 9)]);
}

#[test]
fn images_come_after_what_they_are_based_on() {
    let text = with_head(
        "[guest.a]\npath = 'guests/hello'\n[image.a]\nout = 'out/a'\nbase = { image = 'b' }\ngrants = ['connect']\n\
         files.'etc/x' = { text = 'x' }\n[image.b]\nout = 'out/b'\nfiles.'bin/main.wasm' = { guest = 'a' }\n\
         files.'etc/hello.c' = { path = '.', glob = '*.c' }\n",
    );
    let project = parsed(&text).unwrap();
    let image = |name: &str| &project.images[&ImageName::new(name).unwrap()];
    let names = |images: Vec<&Image>| images.into_iter().map(|image| image.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(project.image_order([image("a")])), ["b", "a"]);
    assert_eq!(names(project.layers(image("a"))), ["b", "a"]);
    let replaces: Vec<_> = image("a").replaces.iter().map(ImagePath::as_str).collect();
    assert_eq!(replaces, ["etc/cell.toml"], "what an image asks for, it says whole");
    assert!(matches!(&image("b").files[&ImagePath::new("etc/hello.c").unwrap()], Source::Glob { .. }));
}

#[test]
fn images_are_based_on_so_many_others() {
    let image = |at: usize, base: Option<usize>| {
        let base = base.map(|base| format!("base = {{ image = 'i{base}' }}\n")).unwrap_or_default();
        format!(
            "[image.i{at}]\nout = 'out/{at}'\n{base}files.'bin/main.wasm' = {{ path = 'hello.c', replace = true }}\n"
        )
    };
    let chain = |length: usize| -> String { (1..=length).map(|at| image(at, Some(at - 1))).collect() };
    let first = image(0, None).replace(", replace = true", "");
    parsed(&with_head(&format!("{first}{}", chain(BASES_MAX)))).unwrap();
    let errors = errors(&with_head(&format!("{first}{}", chain(BASES_MAX + 1))));
    let codes: Vec<_> = errors.iter().map(|error| error.code).collect();
    assert_eq!(codes, [Code::TooMany]);
}

#[test]
fn texts_are_bounded() {
    let text = |length: usize| {
        let text = "x".repeat(length);
        with_head(&format!(
            "[image.a]\nout = 'out'\nfiles = {{ 'bin/main.wasm' = {{ path = 'hello.c' }}, x = {{ text = '{text}' }} }}\n"
        ))
    };
    parsed(&text(TEXT_BYTES_MAX)).unwrap();
    check_errors(&text(TEXT_BYTES_MAX + 1), &[("wetfile::too_many", 7)]);
}

#[test]
fn everything_is_reported_at_once_and_in_order() {
    let text = "wetfile = 1\nx = 1\n[project]\nname = 1\n[guest.A]\npath = 'nowhere'\n[image.i]\nout = '/'\n";
    check_errors(
        text,
        &[
            ("wetfile::unknown_key", 2),
            ("wetfile::missing_key", 3),
            ("wetfile::wrong_type", 4),
            ("wetfile::invalid_name", 5),
            ("wetfile::missing_path", 6),
            ("wetfile::missing_key", 7),
            ("wetfile::invalid_out", 8),
        ],
    );
}

#[test]
fn what_may_follow_from_a_syntax_error_is_not_reported() {
    check_errors("wetfile = 2\nx = y\n", &[("wetfile::format_version", 1), ("wetfile::syntax", 2)]);
    check_errors("wetfil = 1\n[project\nname = 'p'\n", &[("wetfile::unknown_key", 1), ("wetfile::syntax", 2)]);
    check_errors("wetfile 1\n[project]\nx = 1\n", &[("wetfile::syntax", 1)]);
}

#[test]
fn what_follows_from_a_reported_error_is_not_reported() {
    let text =
        with_head("[guest]\na = 'x'\nB.path = 'guests/hello'\nc = { path = 'guests/hello', embeds = ['a', 'B'] }\n");
    check_errors(&text, &[("wetfile::wrong_type", 6), ("wetfile::invalid_name", 7)]);
    let text = with_head("[guest.a]\nbuild = ['x', '{out}', '{dep:b}']\ninputs = []\nembeds = 'b'\n");
    check_errors(&text, &[("wetfile::wrong_type", 8)]);
}

#[test]
fn what_a_person_may_have_is_bounded() {
    let sections: String =
        (0..=schema::SECTIONS_MAX).map(|at| format!("[guest.g{at}]\npath='guests/hello'\n")).collect();
    check_errors(&with_head(&sections), &[("wetfile::too_many", 5 + 2 * schema::SECTIONS_MAX)]);
    let embeds = "'b',".repeat(schema::ELEMENTS_MAX + 1);
    let text = with_head(&format!("[guest.a]\npath = 'guests/hello'\nembeds = [\n{embeds}]\n"));
    assert!(errors(&text).iter().any(|error| error.code == Code::TooMany));
    let keys: String = (0..DIAGNOSTICS_MAX * 3).map(|at| format!("[x{at}]\n")).collect();
    let errors = errors(&with_head(&keys));
    assert_eq!(errors.len(), DIAGNOSTICS_MAX + 1);
    assert_eq!(errors.last().map(|error| error.code), Some(Code::MoreErrors));
}

#[test]
fn line_ends_and_a_byte_order_mark_do_no_harm() {
    let text = guests_text(&["a"], &[]).replace('\n', "\r\n");
    assert_eq!(parsed(&text).unwrap(), parsed(&text.replace('\r', "")).unwrap());
    parsed(&format!("\u{feff}{text}")).unwrap();
    check_errors(&text.replace("path", "pth"), &[("wetfile::unknown_key", 6)]);
}

#[test]
fn hostile_texts_end_quickly_in_errors() {
    let deep_key = vec!["a"; 79].join(".");
    let deep = format!("x = {}1{}", format!("{{{deep_key} = ").repeat(79), "}".repeat(79));
    let texts = [
        deep.clone(),
        format!("{deep}\n{deep}"),
        "[".repeat(FILE_BYTES_MAX),
        format!("a = {}", "[".repeat(FILE_BYTES_MAX)),
        format!("a = {}", "{a=".repeat(FILE_BYTES_MAX / 3)),
        "a.".repeat(FILE_BYTES_MAX / 2),
        "=\n".repeat(FILE_BYTES_MAX / 2),
        "\0".repeat(FILE_BYTES_MAX),
        "\r".repeat(FILE_BYTES_MAX),
        "\"".repeat(FILE_BYTES_MAX),
        format!("{} = 1", "k".repeat(FILE_BYTES_MAX)),
        (0..60_000).map(|at| format!("[guest.{at}]\n")).collect(),
        with_head(&format!("[guest.a]\nembeds = [{}]", "'b',".repeat(FILE_BYTES_MAX / 4))),
        with_head(&format!("[guest.a]\nbuild = ['{}']", "{out".repeat(FILE_BYTES_MAX / 4))),
        with_head(&format!("[guest.a]\npath = '{}'", "../".repeat(FILE_BYTES_MAX / 3))),
        with_head(&format!("[image.a]\nfiles = {{{}}}", "'a/b'={guest='x'},".repeat(50_000))),
        with_head(&(0..40_000).map(|at| format!("[image.a{at}]\nout='x'\n")).collect::<String>()),
        // Everything embeds everything.
        with_head(
            &(0..120)
                .map(|at| {
                    let embeds: String = (0..120).map(|other| format!("'g{other}',")).collect();
                    format!("[guest.g{at}]\npath='guests/hello'\nembeds=[{embeds}]\n")
                })
                .collect::<String>(),
        ),
        // All profiles say of one guest with many inputs that it is as it is.
        with_head(&format!(
            "[guest.a]\nbuild=['x','{{out}}']\ninputs=[{}]\n{}",
            "'nothing',".repeat(schema::ELEMENTS_MAX),
            (0..schema::PROFILES_MAX).map(|at| format!("[profile.p{at}.guest.a]\nenv.A='1'\n")).collect::<String>()
        )),
    ];
    for text in texts {
        let started = Instant::now();
        let errors = errors(&text);
        let shown = render(&errors, FILE_NAME, &text, false);
        let json = to_json(&errors, FILE_NAME, &text).to_string();
        let start: String = text.chars().take(40).collect();
        assert!(shown.len() + json.len() < FILE_BYTES_MAX, "{start:?}");
        // Where time grows with the square of the size it takes hours; a busy machine may take seconds.
        assert!(started.elapsed() < Duration::from_secs(60), "{start:?} took {:?}", started.elapsed());
    }
}

fn project_folder(text: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE_NAME), text).unwrap();
    fs::create_dir_all(dir.path().join("guests/hello")).unwrap();
    fs::write(dir.path().join("guests/hello/Cargo.toml"), "").unwrap();
    dir
}

#[test]
fn load_reads_the_file_of_a_folder() {
    let dir = project_folder(guests_text(&["a"], &[]).as_bytes());
    let project = load(dir.path()).unwrap();
    assert_eq!(project.root, fs::canonicalize(dir.path()).unwrap());
    assert_eq!(project.file, project.root.join(FILE_NAME));
    assert_eq!(project.guests[&guest("a")].recipe, Recipe::Rust(CargoOptions::default()));
}

#[test]
fn load_looks_at_the_disk() {
    let text =
        with_head("[guest.a]\npath = 'inside'\n[guest.b]\npath = 'nowhere'\n[guest.c]\npath = 'outside/hello'\n");
    let dir = project_folder(text.as_bytes());
    symlink("guests/hello", dir.path().join("inside")).unwrap();
    symlink("/tmp", dir.path().join("outside")).unwrap();
    let Err(WetfileError::Invalid { file, text: shown, diagnostics }) = load(dir.path()) else { panic!("is wrong") };
    assert_eq!(file, fs::canonicalize(dir.path()).unwrap().join(FILE_NAME));
    assert_eq!(shown, text);
    let codes: Vec<_> = diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
    assert_eq!(codes, [Code::SymlinkInPath, Code::MissingPath, Code::SymlinkInPath]);
}

#[test]
fn bytes_that_are_not_utf8_are_placed() {
    let dir = project_folder(b"wetfile = 1\nx = \"\xc3\xa4\xff\xfe\"\n");
    let Err(WetfileError::Invalid { text, diagnostics, .. }) = load(dir.path()) else { panic!("is wrong") };
    let [error] = diagnostics.as_slice() else { panic!("{diagnostics:?}") };
    assert_eq!((error.code, error.primary.span.start), (Code::NotUtf8, 19));
    assert_eq!(error.primary.span.from, Position { line: 2, column: 7 });
    insta::assert_snapshot!(render(&diagnostics, FILE_NAME, &text, false));
}

#[test]
fn what_is_no_readable_file_is_said() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(load(&dir.path().join("nowhere")), Err(WetfileError::Read { .. })));
    assert!(matches!(load(dir.path()), Err(WetfileError::NotFound { .. })));
    let file = dir.path().join(FILE_NAME);
    fs::write(&file, " ".repeat(FILE_BYTES_MAX + 1)).unwrap();
    assert!(matches!(load(dir.path()), Err(WetfileError::TooLarge { .. })));
    fs::write(&file, format!("{}{}", with_head(""), "#".repeat(1000))).unwrap();
    load(dir.path()).unwrap();
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(matches!(load(dir.path()), Err(WetfileError::NotAFile { .. })));
}

proptest! {
    #[test]
    fn any_text_is_a_project_or_wrong(text in any::<String>()) {
        prop_assert!(parsed(&text).is_err());
    }

    #[test]
    fn pieces_of_wetfiles_in_any_order_never_panic(pieces in prop::collection::vec(0..PIECES.len(), 0..40)) {
        let text: String = pieces.into_iter().map(|at| PIECES[at]).collect();
        if let Err(errors) = parsed(&text) {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(text.get(error.primary.span.start..error.primary.span.end).is_some());
            }
        }
    }
}

const PIECES: &[&str] = &[
    "wetfile = 1\n",
    "[project]\nname = 'p'\nversion = '1'\n",
    "[guest.a]\n",
    "[guest.b]\n",
    "[image.a]\n",
    "[image.b]\n",
    "[image.a.files]\n",
    "[profile.a]\n",
    "[profile.a.guest.a]\n",
    "needs = ['a', 'b']\n",
    "features = ['x']\n",
    "base = { image = 'a' }\n",
    "'etc' = { path = 'src', glob = '*', replace = true }\n",
    "[[guest]]\n",
    "path = 'guests/hello'\n",
    "path",
    "lang = 'rust'\n",
    "lang = 'c'\n",
    "main = 'hello.c'\n",
    "sources = ['*.c']\n",
    "flags = ['-O2']\n",
    "reproducible = false\n",
    "build = ['{out}']\n",
    "build = ",
    "inputs = []\n",
    "embeds = ['a', 'b']\n",
    "env.A = { inherit = true }\n",
    "out = 'out'\n",
    "'bin/main.wasm' = { guest = 'a' }\n",
    "files = ",
    "{",
    "}",
    "[",
    "]",
    "=",
    "'",
    "\"",
    "\n",
    "\r\n",
    "ä",
    "\0",
    ".",
    ",",
    " ",
    "true",
    "1",
];
