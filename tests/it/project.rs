//! Projects in temporary folders.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use ww::build::{Cancel, Event, Variables};
use ww::ops::{self, BuildOptions, Built, Environment, NoContent};

/// A project in a folder of its own.
pub(crate) struct Project {
    dir: tempfile::TempDir,
    root: PathBuf,
    pub(crate) variables: Variables,
    pub(crate) cancel: Cancel,
    output: Mutex<Vec<String>>,
}

impl Project {
    /// An empty project at a path of this name below a temporary folder.
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(&root).unwrap();
        let project = Self { dir, root, variables: variables(), cancel: Cancel::default(), output: Mutex::default() };
        if let Some(toolchain) = toolchain() {
            project.write("rust-toolchain.toml", &format!("[toolchain]\nchannel = \"{toolchain}\"\n"));
        }
        project
    }

    /// A copy of a folder of `tests/fixtures`.
    pub(crate) fn from_fixture(fixture: &str, name: &str) -> Self {
        let project = Self::new(name);
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture), &project.root);
        project
    }

    /// A project of one guest `x` that is built as the given lines of its table say, without images.
    pub(crate) fn with_guest(lines: &str) -> Self {
        let project = Self::new("p");
        project.wetfile(&format!("[guest.x]\n{lines}\n"));
        project
    }

    /// Writes a Wetfile with these tables.
    pub(crate) fn wetfile(&self, tables: &str) {
        let head = "wetfile = 1\n[project]\nname = \"p\"\nversion = \"0.1.0\"\n";
        self.write("Wetfile.toml", &format!("{head}{tables}"));
    }

    /// A package of one file, which needs no other.
    pub(crate) fn package(&self, path: &str, manifest: &str, file: &str, code: &str) {
        let head = "[package]\nversion = \"0.1.0\"\nedition = \"2024\"\n";
        self.write(&format!("{path}/Cargo.toml"), &format!("{head}{manifest}\n[workspace]\n"));
        self.write(&format!("{path}/{file}"), code);
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A folder beside the project, which is removed with it.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The artifact of a guest.
    pub(crate) fn artifact(&self, guest: &str) -> Vec<u8> {
        self.read(&format!("target/ww/guests/{guest}.wasm"))
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.insert(name.into(), value.into());
    }

    /// Builds these guests and images; compilers' output is kept for [`Project::output`].
    pub(crate) fn build(&self, names: &[&str]) -> Result<Built, ops::Error> {
        self.build_with(names, &|event| {
            if let Event::Output { line, .. } = event {
                self.output.lock().unwrap().push(line.to_owned());
            }
        })
    }

    pub(crate) fn build_with(&self, names: &[&str], events: &(dyn Fn(Event<'_>) + Sync)) -> Result<Built, ops::Error> {
        let project = ww::wetfile::load(&self.root).unwrap();
        let environment = Environment {
            variables: &self.variables,
            ww: Path::new(env!("CARGO_BIN_EXE_ww")),
            cancel: &self.cancel,
            events,
            content: &NoContent,
        };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        ops::build(&environment, &project, &names, BuildOptions { offline: true, ..BuildOptions::default() })
    }

    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().join("\n")
    }

    /// The error of a build with all its causes.
    #[track_caller]
    pub(crate) fn error(&self, names: &[&str]) -> String {
        chain(&self.build(names).unwrap_err())
    }
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

#[expect(clippy::disallowed_methods, reason = "a test stands for the command line")]
fn variables() -> Variables {
    std::env::vars_os().collect()
}

/// The toolchain that guests of this repository are built with, as rustup names it.
fn toolchain() -> Option<String> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guests = Some(repository.join("guests")).filter(|guests| guests.is_dir());
    let mut command = Command::new("rustup");
    command.args(["show", "active-toolchain"]).env_remove("RUSTUP_TOOLCHAIN");
    let output = command.current_dir(guests.as_deref().unwrap_or(repository)).output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.split_whitespace().next()?.to_owned())
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
