//! Compiles guests: one compiler call for each, with an environment that is the same for everybody.
//!
//! [`build_guest`] is the whole of it; [`State`] is where results lie and who may write them. The order of guests, and
//! what to do with several, is the caller's. Only this module starts compilers, and nothing here prints: what happens
//! is told to the caller's [`Events`].

mod environment;
mod inputs;
mod lang;
mod process;
mod record;
pub mod rustc_wrapper;
mod state;
mod toolchain;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::escape;
use crate::wasm_binary::{self, Kind};
use crate::wetfile::argument::PlaceholderError;
use crate::wetfile::lock::{Digest, Inputs, Toolchain};
use crate::wetfile::{Guest, GuestName, Project, Recipe};

pub use environment::Variables;
pub use inputs::{InputsError, digest as digest_inputs};
pub use process::Cancel;
pub use record::{Record, record};
pub use state::{State, StateError, cached, content};

use process::ProcessError;

/// The target of every guest: components for WASI 0.2.
pub const TARGET: &str = "wasm32-wasip2";

/// Version of how guests are compiled: raised whenever a guest of the same inputs, compiled with the same compiler, would
/// not be what this version makes of it (see [`rustc_wrapper`]). Cargo's state for an older one is discarded, and a lock
/// keeps them apart.
const RECIPE: u32 = 2;

/// How often a guest is built whose inputs have changed meanwhile. The first build may make a `Cargo.lock`, and somebody
/// may save a file; one that changes each time is written by the build itself.
const ATTEMPTS_MAX: usize = 3;

/// Something that happened during a build.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another `ww` builds in this project; this one waits until it is done.
    Waiting {
        /// The project's folder.
        root: &'a Path,
    },
    /// A guest's build begins.
    Started {
        /// The guest.
        guest: &'a GuestName,
    },
    /// A compiler wrote a line. It is foreign text, not escaped, without its line feed.
    Output {
        /// The guest that is built.
        guest: &'a GuestName,
        /// The line; what is not UTF-8 in it was replaced.
        line: &'a str,
    },
    /// Something may make this build's result differ from that of others.
    Warning {
        /// The guest that is built.
        guest: &'a GuestName,
        /// What it is, ready to be shown.
        text: String,
    },
    /// A guest was built.
    Finished {
        /// The guest.
        guest: &'a GuestName,
        /// How long it took.
        elapsed: Duration,
    },
}

/// Takes the events of a build; it may be called from several threads.
pub type Events<'a> = &'a (dyn Fn(Event<'_>) + Sync);

/// What all guests of one build have in common.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The project's state; holding it means holding the project's lock.
    pub state: &'a State,
    /// The environment of this process, of which compilers see a part.
    pub environment: &'a Variables,
    /// The `ww` binary, which compilers call back as a wrapper (see [`rustc_wrapper`]).
    pub ww: &'a Path,
    /// Whether cargo is told not to use the network.
    pub offline: bool,
    /// Stops the build.
    pub cancel: &'a Cancel,
    /// Where events go.
    pub events: Events<'a>,
}

/// Why a guest could not be built. The guest's name is for the caller to add.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A program that the build needs is not on `PATH`.
    #[error("`{}` was not found: is it installed, and in a folder of PATH?", escape::text(.program))]
    ProgramMissing {
        /// The program.
        program: String,
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
    /// The result of a build is no component.
    #[error(
        "the build's result is {found}, where a component is needed: build for wasm32-wasip2, or make one of a module \
         with `wasm-tools component new --adapt`"
    )]
    NotComponent {
        /// What it is, such as `a core module`.
        found: String,
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
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// A guest that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltGuest {
    /// The path of its artifact, `target/ww/guests/NAME.wasm`.
    pub path: PathBuf,
    /// The digest of the artifact.
    pub digest: Digest,
    /// What compiled it.
    pub toolchain: Toolchain,
    /// What it was made of.
    pub inputs: Inputs,
}

/// Builds one guest.
///
/// `built` has every guest that this one embeds. An artifact whose bytes come out as before is left alone, its time of
/// modification included. A guest whose inputs change while it is built is built again, so that the inputs in the result
/// are those of the artifact.
///
/// # Errors
///
/// Any [`BuildError`]; the artifact of the last success is then untouched.
///
/// # Panics
///
/// If `built` lacks a guest that is embedded.
pub fn build_guest(
    ctx: &Context<'_>,
    project: &Project,
    guest: &Guest,
    built: &BTreeMap<GuestName, BuiltGuest>,
) -> Result<BuiltGuest, BuildError> {
    let start = Instant::now();
    (ctx.events)(Event::Started { guest: &guest.name });
    let (bytes, toolchain, inputs) = compile(ctx, project, guest, built)?;
    check_component(&bytes)?;
    if names_folder(&bytes, ctx.state.root()) {
        let text =
            "its result has the path of the project's folder in it: built in another folder it differs".to_owned();
        (ctx.events)(Event::Warning { guest: &guest.name, text });
    }
    let path = ctx.state.artifact(&guest.name);
    ctx.state.write_artifact(&path, &bytes).map_err(BuildError::io("write", &path))?;
    let digest = Digest::of(&bytes);
    let made = Record { toolchain: toolchain.clone(), inputs: inputs.digest(), artifact: digest };
    record::write(ctx.state, &guest.name, &made).map_err(BuildError::io("write", ctx.state.record(&guest.name)))?;
    (ctx.events)(Event::Finished { guest: &guest.name, elapsed: start.elapsed() });
    Ok(BuiltGuest { path, digest, toolchain, inputs })
}

/// Compiles a guest until its inputs are the same before and afterwards.
fn compile(
    ctx: &Context<'_>,
    project: &Project,
    guest: &Guest,
    built: &BTreeMap<GuestName, BuiltGuest>,
) -> Result<(Vec<u8>, Toolchain, Inputs), BuildError> {
    let artifacts = guest.embeds.iter().map(|name| (name.clone(), built[name].path.clone())).collect();
    let embeds = guest.embeds.iter().map(|name| (name.clone(), built[name].inputs.digest())).collect();
    for attempt in 0..ATTEMPTS_MAX {
        let environment = environment::of_guest(ctx.environment, guest, &artifacts);
        let prepared = match &guest.recipe {
            Recipe::Rust(options) => Some(lang::rust::prepare(ctx, project, guest, options, environment.clone())?),
            Recipe::Command { .. } => None,
        };
        if let Some(prepared) = prepared.as_ref().filter(|_| attempt == 0) {
            lang::rust::warn(ctx, guest, prepared);
        }
        let digest = || {
            let roots = prepared.iter().flat_map(|prepared| &prepared.roots.inside).map(String::as_str);
            inputs::digest(project, guest, roots, ctx.environment, &embeds)
        };
        let before = digest()?;
        let (bytes, toolchain) = match (&guest.recipe, &prepared) {
            (Recipe::Command { run, .. }, _) => {
                (lang::command::build(ctx, guest, run, &artifacts, environment)?, Toolchain::command())
            }
            (Recipe::Rust(_), Some(prepared)) => (lang::rust::build(ctx, guest, prepared)?, prepared.identity.clone()),
            (Recipe::Rust(_), None) => unreachable!("Rust guests are prepared"),
        };
        if digest()? == before {
            return Ok((bytes, toolchain, before));
        }
    }
    Err(BuildError::InputsChange)
}

fn check_component(bytes: &[u8]) -> Result<(), BuildError> {
    match wasm_binary::kind(bytes) {
        Kind::Component => Ok(()),
        kind => Err(BuildError::NotComponent { found: kind.to_string() }),
    }
}

/// Whether bytes have the path of a folder in them, such as by `env!("CARGO_MANIFEST_DIR")`.
///
/// A path of one component, such as `/src`, is in many programs by chance and is not looked for.
fn names_folder(bytes: &[u8], folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;

    let path = folder.as_os_str().as_bytes();
    folder.components().count() > 2 && memchr::memmem::find(bytes, path).is_some()
}

/// A program as it is run for a guest: where, with which environment, and what it is called in errors.
struct Call<'a> {
    program: &'a str,
    arguments: &'a [std::ffi::OsString],
    dir: &'a Path,
    environment: &'a Variables,
    /// Longest line of its standard output in bytes; what is longer is cut.
    line_bytes_max: usize,
}

/// Runs a program; each line of its standard output goes to `stdout`, each other line to the events.
///
/// A line that `stdout` does not take (returns `false`) is an event as well. Compilers call the project's root as they
/// were told to (see [`rustc_wrapper`]); people see where it is.
fn run(
    ctx: &Context<'_>,
    guest: &GuestName,
    call: &Call<'_>,
    stdout: &mut dyn FnMut(&str) -> bool,
) -> Result<(), BuildError> {
    let root = ctx.state.root().to_string_lossy();
    let mut command = std::process::Command::new(call.program);
    command.args(call.arguments).current_dir(call.dir).env_clear().envs(call.environment);
    let status = process::run(&mut command, ctx.cancel, call.line_bytes_max, &mut |stream, line| {
        if stream == process::Stream::Stdout && stdout(line) {
            return;
        }
        let line = line.replace(rustc_wrapper::PROJECT_PREFIX, &root);
        (ctx.events)(Event::Output { guest, line: &line });
    });
    let program = || call.program.to_owned();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(BuildError::Failed { program: program(), status }),
        Err(ProcessError::Cancelled) => Err(BuildError::Cancelled),
        Err(ProcessError::Start(error)) if error.kind() == io::ErrorKind::NotFound => {
            Err(BuildError::ProgramMissing { program: program() })
        }
        Err(ProcessError::Start(source) | ProcessError::Wait(source)) => {
            Err(BuildError::Start { program: program(), source })
        }
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

fn at(path: Option<&Path>) -> String {
    path.map(|path| format!(" to {}", escape::path(path))).unwrap_or_default()
}
