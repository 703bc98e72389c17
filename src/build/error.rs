//! Why guests could not be built.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::TARGET;
use super::inputs::InputsError;
use crate::escape;
use crate::wetfile::argument::PlaceholderError;

/// Why a guest could not be built. The guest's name is for the caller to add.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A program that the build needs is not on `PATH`.
    #[error("`{}` was not found: is it installed, and in a folder of PATH?", escape::text(.program))]
    ProgramMissing {
        /// The program.
        program: String,
    },
    /// A program that is called by its path is not there.
    #[error(
        "`{}` is not there, or is no file that can be run: it is looked for in {}",
        escape::text(.program), escape::path(.dir)
    )]
    ProgramNotThere {
        /// The program, with a `/` in it.
        program: String,
        /// The folder in which it is called.
        dir: PathBuf,
    },
    /// A program is there, and what the system would run it with is not.
    #[error(
        "`{}` cannot be started: {} is not there",
        escape::text(.program), run_with(.interpreter.as_deref())
    )]
    InterpreterMissing {
        /// The program.
        program: String,
        /// What the first line of a script names.
        interpreter: Option<String>,
    },
    /// A program could not be started.
    #[error("cannot start `{}`", escape::text(.program))]
    Start {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The compiler has no standard library for wasm components.
    #[error("the Rust toolchain has no {TARGET} target: run `rustup target add {TARGET}`")]
    TargetMissing,
    /// A program ended without success.
    #[error("`{}` {}", escape::text(.program), ended(*.status))]
    Failed {
        /// The program.
        program: String,
        /// Its exit code, or the signal that killed it.
        status: ExitStatus,
    },
    /// A package that compiles to nothing that can run.
    #[error("{} has neither a program nor a `cdylib`", escape::path(.manifest))]
    NoTarget {
        /// The package's `Cargo.toml`.
        manifest: PathBuf,
    },
    /// A package with several programs.
    #[error(
        "{} has several programs ({}): name one of them with `bin` in the Wetfile, or as `default-run`",
        escape::path(.manifest),
        escape::text(&.programs.join(", "))
    )]
    SeveralPrograms {
        /// The package's `Cargo.toml`.
        manifest: PathBuf,
        /// The programs, sorted.
        programs: Vec<String>,
    },
    /// A package without the program that the Wetfile names.
    #[error(
        "{} has no program `{bin}`{}",
        escape::path(.manifest),
        has(.programs)
    )]
    NoSuchProgram {
        /// The package's `Cargo.toml`.
        manifest: PathBuf,
        /// The program.
        bin: String,
        /// The programs that there are, sorted.
        programs: Vec<String>,
    },
    /// `Cargo.toml` names no package: it is that of a workspace.
    #[error("{} is not the manifest of a package", escape::path(.manifest))]
    NoPackage {
        /// The manifest.
        manifest: PathBuf,
    },
    /// A compiler said something that was not understood.
    #[error("the answer of `{program}` was not understood")]
    Answer {
        /// What was asked.
        program: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The build succeeded and made nothing.
    #[error("the build succeeded and did not write its result{}", at(.path.as_deref()))]
    NoArtifact {
        /// Where it was to write it, if it was told.
        path: Option<PathBuf>,
    },
    /// The build has left something else than a file where its result is to be.
    #[error(
        "the build has left {found} at {}, where a file is needed: it is the path of the component itself",
        escape::path(.path)
    )]
    NotFile {
        /// Where the result was to be.
        path: PathBuf,
        /// What is there, such as `a folder`.
        found: &'static str,
    },
    /// The result of a build is no wasm.
    #[error(
        "the build's result is {found}, where a component is needed, or a core module for WASI 0.1: build for \
         wasm32-wasip2 or wasm32-wasip1"
    )]
    NotComponent {
        /// What it is, such as `an empty file`.
        found: String,
    },
    /// A core module that needs something that no cell has.
    #[error(
        "the build's result is a core module that imports `{}` from `{}`: only `wasi_snapshot_preview1` can be made a \
         component of without more being known; build for WASI 0.1, or make a component with the language's own tools",
        escape::text(.name), escape::text(.module)
    )]
    ForeignImport {
        /// What it imports from.
        module: String,
        /// What it imports.
        name: String,
    },
    /// A core module that is a library.
    #[error(
        "the build's result is a core module without `_start`: it is a library; build a program, or make a component \
         with the language's own tools"
    )]
    NoStart,
    /// No component could be made of a core module.
    #[error("no component can be made of the core module that is the build's result")]
    Adapt {
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tool of a guest's language is not there.
    #[error("`{tool}` was not found: {install}")]
    ToolMissing {
        /// What it is called.
        tool: &'static str,
        /// How it is installed.
        install: &'static str,
    },
    /// A glob among the sources of a guest that fits no file.
    #[error("there is no file that `{}` of its `sources` fits", escape::text(.pattern))]
    NoSources {
        /// The glob.
        pattern: String,
    },
    /// A build that has made several programs.
    #[error("its build has made several programs ({}): it must install one", escape::text(&.names.join(", ")))]
    SeveralArtifacts {
        /// Their files, sorted.
        names: Vec<String>,
    },
    /// A placeholder in an argument of a command is malformed, which no checked project has.
    #[error("an argument of its command is malformed")]
    Placeholder {
        /// What is wrong with it.
        #[source]
        source: PlaceholderError,
    },
    /// A configuration file of cargo in the project is not TOML.
    #[error("{} cannot be read", escape::path(.path))]
    CargoConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The file system refused.
    #[error("cannot {action} {}", escape::path(.path))]
    Io {
        /// What was being done, such as `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The file system's answer.
        #[source]
        source: io::Error,
    },
    /// What the guest is made of could not be digested.
    #[error("cannot tell what it is made of")]
    Inputs(#[from] InputsError),
    /// What the guest is made of changed whenever it was built.
    #[error("its inputs change while it is built: does its build write among them?")]
    InputsChange,
    /// A `Cargo.lock` does not fit its `Cargo.toml`.
    #[error(
        "ww does not change a Cargo.lock that is there, and this one does not fit its Cargo.toml: run `cargo update \
         --workspace` in {}",
        escape::path(.folder)
    )]
    CargoLock {
        /// The workspace's folder.
        folder: PathBuf,
    },
    /// The build was stopped from outside.
    #[error("stopped")]
    Cancelled,
}

impl BuildError {
    /// For `map_err`: an error of the file system with what was done to which path.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// How a program ended, to stand after its name.
fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

fn has(programs: &[String]) -> String {
    if programs.is_empty() { String::new() } else { format!(": it has {}", escape::text(&programs.join(", "))) }
}

fn run_with(interpreter: Option<&str>) -> String {
    match interpreter {
        Some(interpreter) => format!("`{}`, which its first line names,", escape::text(interpreter)),
        None => "the program that the system runs it with, such as its dynamic linker,".to_owned(),
    }
}

fn at(path: Option<&Path>) -> String {
    path.map(|path| format!(" to {}", escape::path(path))).unwrap_or_default()
}
