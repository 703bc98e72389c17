//! `ww build` with cargo and with commands.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use ww::build::{BuildError, Event};
use ww::ops::Error;

use crate::project::{Project, chain};

/// A shell command that writes the smallest component to `$WW_OUT`.
const EMPTY_COMPONENT: &str = r"printf '\000asm\015\000\001\000' >";

/// A project with a guest that the shell builds; `COMPONENT` stands for [`EMPTY_COMPONENT`].
fn shell_guest(script: &str) -> Project {
    let script = script.replace("COMPONENT", EMPTY_COMPONENT);
    Project::with_guest(&format!("inputs = []\nbuild = '''{script}'''"))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The same sources, as two people have them: another folder, home, umask, environment and configuration; one builds
/// a part, the other everything.
#[test]
fn the_same_sources_give_the_same_bytes() {
    let first = Project::from_fixture("build", "p");
    first.build(&["echo"]).unwrap();
    first.build(&["parent"]).unwrap();

    let mut second = Project::from_fixture("build", "another/and/much/longer/path to it");
    let (home, cargo_home) = (second.outside("home"), second.outside("cargo"));
    let variable = |name: &str| second.variables.get(OsStr::new(name)).map(PathBuf::from);
    let rustup_home = variable("RUSTUP_HOME").unwrap_or_else(|| variable("HOME").unwrap().join(".rustup"));
    second.set("RUSTUP_HOME", rustup_home);
    second.set("HOME", home);
    second.set("CARGO_HOME", &cargo_home);
    second.set("RUSTFLAGS", "-C opt-level=0");
    second.set("CARGO_PROFILE_RELEASE_DEBUG", "2");
    second.set("RUSTUP_TOOLCHAIN", "none-of-the-kind");
    second.set("LC_ALL", "tr_TR.UTF-8");
    fs::write(
        cargo_home.join("config.toml"),
        "[build]\nrustflags = ['-C', 'opt-level=1']\ntarget-dir = 'elsewhere'\nrustc-wrapper = 'none'\n\
         [target.wasm32-wasip2]\nrustflags = ['-C', 'opt-level=0']\n",
    )
    .unwrap();
    // Files of other tests that are made meanwhile are theirs alone, which does them no harm.
    let umask = rustix::process::umask(Mode::from_raw_mode(0o077));
    let built = second.build(&[]);
    rustix::process::umask(umask);
    built.unwrap();

    for guest in ["echo", "parent"] {
        let (one, other) = (first.artifact(guest), second.artifact(guest));
        assert!(one == other, "{guest} differs: {} and {} bytes", one.len(), other.len());
        for project in [&first, &second] {
            let temporary = project.path("").parent().unwrap().to_str().unwrap().to_owned();
            assert!(!contains(&one, &temporary), "{guest} has {temporary} in it");
        }
        assert!(contains(&one, "/ww/project/schema/src/lib.rs"), "{guest} has no path that was replaced");
        assert!(contains(&one, "/ww/out/schema-0.1.0/generated.rs"));
    }
    let list = |project: &Project| ww::image::inspect(&project.path("images/parent")).unwrap();
    assert_eq!(list(&first), list(&second));
}

#[test]
fn images_and_what_they_embed() {
    let project = Project::from_fixture("build", "p");
    let built = project.build(&["parent"]).unwrap();
    let image = &built.images[0];
    assert_eq!((image.name.as_str(), image.files, image.changed), ("parent", 3, true));
    assert_eq!(image.out, project.path("images/parent"));
    let (echo, parent) = (project.artifact("echo"), project.artifact("parent"));
    assert_eq!(project.read("images/parent/bin/main.wasm"), parent);
    assert_eq!(project.read("images/parent/usr/lib/echo.wasm"), echo);
    assert!(parent.windows(echo.len()).any(|window| window == echo));
    assert!(!project.path("target/ww/guests/other.wasm").exists());
    assert!(!project.path("guests/target").exists());

    let modified = || fs::metadata(project.path("target/ww/guests/parent.wasm")).unwrap().modified().unwrap();
    let before = modified();
    assert!(!project.build(&["parent"]).unwrap().images[0].changed);
    assert_eq!(modified(), before);

    let error = project.error(&["paretn"]);
    assert_eq!(error, "the project has no guest and no image `paretn`: did you mean `parent`?");
}

#[test]
fn a_changed_child_reaches_its_parent() {
    let project = Project::from_fixture("build", "p");
    project.build(&["parent"]).unwrap();
    let before = project.artifact("parent");
    project.write("guests/echo/src/main.rs", "fn main() { println!(\"changed\"); }");
    project.build(&["parent"]).unwrap();
    let echo = project.artifact("echo");
    assert_ne!(project.artifact("parent"), before);
    assert!(project.artifact("parent").windows(echo.len()).any(|window| window == echo));
}

#[test]
fn the_artifact_is_found_wherever_cargo_puts_it() {
    let mut project = Project::with_guest("path = 'g'");
    let manifest = "name = \"some-wasm\"\n[[bin]]\nname = \"odd\"\npath = \"src/main.rs\"";
    project.package("g", manifest, "src/main.rs", "fn main() { println!(\"fresh\"); }");
    for target in ["g/target", "moved", "target/ww/cargo", "target/ww/cargo/shared"] {
        project.write(&format!("{target}/wasm32-wasip2/release/some-wasm.wasm"), "bait");
    }
    project.write(".cargo/config.toml", "[build]\ntarget-dir = 'moved'\ntarget = 'x86_64-unknown-none'");
    project.set("CARGO_TARGET_DIR", "relative");
    project.build(&[]).unwrap();
    assert!(contains(&project.artifact("x"), "fresh"));
    assert!(project.path("g/Cargo.lock").exists(), "a missing lock file is made");
}

#[test]
fn a_result_with_the_project_folder_in_it_is_told() {
    let project = Project::with_guest("path = 'g'");
    let code = "fn main() { println!(\"{}\", env!(\"CARGO_MANIFEST_DIR\")); }";
    project.package("g", "name = \"g\"", "src/main.rs", code);
    let warnings = std::sync::Mutex::new(Vec::new());
    let record = |event: Event<'_>| {
        if let Event::Warning { text, .. } = event {
            warnings.lock().unwrap().push(text);
        }
    };
    project.build_with(&[], &record).unwrap();
    assert_eq!(warnings.lock().unwrap().len(), 1);
    project.write("g/src/main.rs", "fn main() { println!(\"{}\", file!()); }");
    project.build_with(&[], &record).unwrap();
    assert_eq!(warnings.lock().unwrap().len(), 1);
}

/// A build script of a crate that guests share reads a variable without telling cargo.
#[test]
fn guests_with_variables_of_their_own_share_nothing() {
    let project = Project::new("p");
    project.package("shared", "name = \"shared\"", "build.rs", "fn main() { println!(\"cargo::rerun-if-changed=build.rs\"); println!(\"cargo::rustc-env=SEEN={:?}\", std::env::var(\"LEVEL\").ok()); }");
    project.write("shared/src/lib.rs", "pub fn seen() -> &'static str { concat!(\"seen \", env!(\"SEEN\")) }");
    let mut tables = String::new();
    for (guest, env) in [("a", "env.LEVEL = '1'"), ("b", "env.LEVEL = '2'"), ("c", "")] {
        let manifest = format!("name = \"{guest}\"\n[dependencies]\nshared = {{ path = \"../shared\" }}");
        project.package(guest, &manifest, "src/main.rs", "fn main() { println!(\"{}\", shared::seen()); }");
        tables.push_str(&format!("[guest.{guest}]\npath = '{guest}'\n{env}\n"));
    }
    project.wetfile(&tables);
    project.build(&[]).unwrap();
    for (guest, seen) in [("a", "seen Some(\"1\")"), ("b", "seen Some(\"2\")"), ("c", "seen None")] {
        assert!(contains(&project.artifact(guest), seen), "{guest}");
    }
}

/// `cargo metadata` answers in one line.
#[test]
fn a_package_may_have_much_to_say_about_itself() {
    let project = Project::with_guest("path = 'g'");
    let manifest = format!("name = \"g\"\n[package.metadata]\nx = \"{}\"", "x".repeat(3 << 20));
    project.package("g", &manifest, "src/main.rs", "fn main() {}");
    project.build(&[]).unwrap();
}

#[test]
fn a_cdylib_is_taken_where_there_is_no_program() {
    let project = Project::with_guest("path = 'g'");
    let code = "#[unsafe(no_mangle)] pub extern \"C\" fn answer() -> i32 { 42 }";
    project.package("g", "name = \"some-wasm\"\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]", "src/lib.rs", code);
    project.build(&[]).unwrap();
    let interface = ww::wasm_binary::interface(&project.artifact("x")).unwrap();
    assert!(!interface.is_program());
}

#[test]
fn a_program_wins_over_a_cdylib_of_its_name() {
    let project = Project::with_guest("path = 'g'");
    project.package(
        "g",
        "name = \"my-project\"\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]",
        "src/lib.rs",
        "pub fn text() -> &'static str { \"of the library\" }",
    );
    project.write("g/src/main.rs", "fn main() { println!(\"{} by the program\", my_project::text()); }");
    let mut artifacts = Vec::new();
    for _ in 0..3 {
        project.build(&[]).unwrap();
        artifacts.push(project.artifact("x"));
        fs::remove_dir_all(project.path("target/ww/cargo")).unwrap();
    }
    assert!(artifacts.iter().all(|artifact| *artifact == artifacts[0]));
    assert!(ww::wasm_binary::interface(&artifacts[0]).unwrap().is_program());
}

#[test]
fn several_programs_need_a_default() {
    let project = Project::with_guest("path = 'g'");
    project.package("g", "name = \"g\"", "src/bin/two.rs", "fn main() {}");
    project.write("g/src/bin/one.rs", "fn main() { println!(\"number one\"); }");
    let error = project.error(&[]);
    let expected =
        "g/Cargo.toml has several programs (one, two): name one of them with `bin` in the Wetfile, or as `default-run`";
    assert!(error.starts_with("guest `x` was not built: ") && error.ends_with(expected), "{error}");
    project.package("g", "name = \"g\"\ndefault-run = \"one\"", "src/bin/two.rs", "fn main() {}");
    project.build(&[]).unwrap();
    assert!(contains(&project.artifact("x"), "number one"));
}

#[test]
fn packages_that_make_nothing() {
    let project = Project::with_guest("path = 'g'");
    project.package("g", "name = \"g\"", "src/lib.rs", "");
    let error = project.error(&[]);
    assert!(error.ends_with("g/Cargo.toml has neither a program nor a `cdylib`"), "{error}");
    project.write("g/Cargo.toml", "[workspace]\nmembers = []\n");
    let error = project.error(&[]);
    assert!(error.ends_with("g/Cargo.toml is not the manifest of a package"), "{error}");
}

#[test]
fn a_compiler_error_is_told_with_paths_that_exist() {
    let project = Project::from_fixture("build", "p");
    project.build(&["echo"]).unwrap();
    let before = project.artifact("echo");
    project.write("schema/src/lib.rs", "pub fn broken() -> u32 { \"text\" }");
    let error = project.build(&["echo"]).unwrap_err();
    assert_eq!(chain(&error), "guest `echo` was not built: `cargo` failed with exit code 101");
    assert!(project.output().contains("mismatched types"), "{}", project.output());
    let path = project.path("schema/src/lib.rs");
    assert!(project.output().contains(path.to_str().unwrap()), "{}", project.output());
    assert_eq!(project.artifact("echo"), before);
}

#[test]
fn a_lock_file_that_does_not_fit_is_an_error() {
    let project = Project::from_fixture("build", "p");
    project.package("extra", "name = \"extra\"", "src/lib.rs", "");
    let manifest = String::from_utf8(project.read("guests/echo/Cargo.toml")).unwrap();
    project.write("guests/echo/Cargo.toml", &format!("{manifest}extra = {{ path = \"../../extra\" }}\n"));
    let error = project.error(&["echo"]);
    assert!(error.contains("ww does not change a Cargo.lock"), "{error}");
    assert!(error.contains(&format!("run `cargo update --workspace` in {}", project.path("").display())), "{error}");
    assert!(project.output().contains("--locked"), "{}", project.output());
}

#[test]
fn without_a_compiler() {
    let mut project = Project::with_guest("path = 'g'");
    project.package("g", "name = \"g\"", "src/main.rs", "fn main() {}");
    project.set("PATH", project.outside("empty"));
    let error = project.error(&[]);
    assert!(error.ends_with("`rustc` was not found: is it installed, and in a folder of PATH?"), "{error}");
}

#[test]
fn arguments_are_filled_and_the_environment_is_clean() {
    let mut project = Project::new("p");
    project.set("SECRET", "s3cret");
    project.set("WANTED", "w4nted");
    project.wetfile(&format!(
        "[guest.base]\ninputs = []\nbuild = '''{} \"$WW_OUT\"'''\n\
         [guest.x]\npath = 'x'\ninputs = []\nembeds = ['base']\n\
         build = ['sh', './build.sh', '--out={{out}}', '{{dep:base}}', '{{{{}}}}']\n\
         env = {{ SET = 'yes', WANTED = {{ inherit = true }} }}\n",
        EMPTY_COMPONENT
    ));
    project.write("x/build.sh", "env | sort; pwd; echo \"$@\"; cp \"$2\" \"${1#--out=}\"");
    project.build(&["x"]).unwrap();
    let output = project.output();
    let base = project.path("target/ww/guests/base.wasm");
    let out = project.path("target/ww/out/x/x.wasm");
    for expected in [
        format!("WW_DEP_BASE={}", base.display()),
        format!("WW_OUT={}", out.display()),
        "WW_GUEST=x".to_owned(),
        "SOURCE_DATE_EPOCH=315532800".to_owned(),
        "TZ=UTC".to_owned(),
        "SET=yes".to_owned(),
        "WANTED=w4nted".to_owned(),
        project.path("x").display().to_string(),
        format!("--out={} {} {{}}", out.display(), base.display()),
    ] {
        assert!(output.lines().any(|line| line == expected), "{expected}\n{output}");
    }
    for stripped in ["SECRET", "CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "RUSTUP_TOOLCHAIN"] {
        assert!(!output.contains(stripped), "{stripped}\n{output}");
    }
    assert_eq!(project.artifact("x"), project.artifact("base"));
    assert!(!out.exists());
}

#[test]
fn results_of_commands_are_checked() {
    let check = |script: &str, expected: &str| {
        let error = shell_guest(script).error(&[]);
        assert!(error.starts_with(&format!("guest `x` was not built: {expected}")), "{script}: {error}");
    };
    check("exit 3; : $WW_OUT", "`/bin/sh` failed with exit code 3");
    check("kill -9 $$; : $WW_OUT", "`/bin/sh` was killed by signal 9");
    check("true $WW_OUT", "the build succeeded and did not write its result to /");
    check(": > $WW_OUT", "the build's result is an empty file, where a component is needed");
    check("printf '\\0asm\\1\\0\\0\\0' > $WW_OUT", "the build's result is a core module without `_start`");
    check("echo text > $WW_OUT", "the build's result is not WebAssembly, where a component is needed");
    check("mkdir $WW_OUT", "the build has left a folder at /");
    check("ln -s /etc/passwd $WW_OUT", "the build has left a symlink at /");
    let project = Project::with_guest("inputs = []\nbuild = ['no-such-compiler', '{out}']");
    let expected =
        "guest `x` was not built: `no-such-compiler` was not found: is it installed, and in a folder of PATH?";
    assert_eq!(project.error(&[]), expected);
}

#[test]
fn a_leftover_of_a_failed_command_is_not_taken_for_a_result() {
    let project = shell_guest("test -e done && exit 0; touch done; COMPONENT $WW_OUT; exit 1");
    project.error(&[]);
    let error = project.error(&[]);
    assert!(error.contains("did not write its result"), "{error}");
}

#[test]
fn builds_of_one_project_wait_for_each_other() {
    let project = shell_guest("test ! -e busy || exit 9; touch busy; sleep 0.2; COMPONENT $WW_OUT; rm busy");
    let waited = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                project
                    .build_with(&[], &|event| {
                        if matches!(event, Event::Waiting { .. }) {
                            waited.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    })
                    .unwrap();
            });
        }
    });
    assert!(waited.into_inner() >= 1);
}

#[test]
fn a_build_can_be_stopped() {
    let project = shell_guest("sleep 600 & echo started; wait; COMPONENT $WW_OUT");
    let start = Instant::now();
    let error = project
        .build_with(&[], &|event| {
            if matches!(event, Event::Output { line: "started", .. }) {
                project.cancel.cancel();
            }
        })
        .unwrap_err();
    assert!(matches!(error, Error::Build { source: BuildError::Cancelled, .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(!project.path("target/ww/guests/x.wasm").exists());
}

#[test]
fn artifacts_have_the_same_mode_everywhere() {
    let project = shell_guest("COMPONENT $WW_OUT; chmod 700 $WW_OUT");
    project.build(&[]).unwrap();
    assert_eq!(fs::metadata(project.path("target/ww/guests/x.wasm")).unwrap().mode() & 0o7777, 0o644);
}
