//! Compiles guests: one compiler call for each, with an environment that is the same for everybody.
//!
//! [`build_guest`] is the whole of it; [`State`] is where results lie and who may write them. The order of guests, and
//! what to do with several, is the caller's. Only this module starts compilers, and nothing here prints: what happens
//! is told to the caller's [`Events`].

mod environment;
mod inputs;
mod jobs;
mod lang;
pub mod ledger;
mod missing;
mod process;
pub mod queue;
mod reason;
pub mod rustc_wrapper;
pub mod seen;
mod state;
mod survey;
mod toolchain;
mod tools;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use self::ledger::{Entry, GuestRecord, Ledger, Memory};
use crate::escape;
use crate::folder::Stamp;
use crate::wetfile::argument::PlaceholderError;
use crate::wetfile::lock::{Digest, Inputs, Toolchain};
use crate::wetfile::{Guest, GuestName, ImageName, Project, Recipe};

pub use environment::{Variables, toolchain_variable};
pub use inputs::{GuestFiles, InputsError, digest as digest_inputs, guest_files, rustup_toolchain};
pub use jobs::Jobs;
pub use lang::doctor::{Fix, ToolProblem, ToolReport, tools as probe_tools};
pub use process::Cancel;
pub use reason::Reason;
pub use state::{State, StateError, cached, content};
pub use survey::{Standing, Survey, limited, shortened, wetfile_reasons};

use inputs::Found;
use process::ProcessError;
use tools::Tools;

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
        /// Why it is built; at least one.
        reasons: &'a [Reason],
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
    /// A guest could not be built.
    Failed {
        /// The guest.
        guest: &'a GuestName,
        /// How long it took.
        elapsed: Duration,
        /// Why.
        error: &'a BuildError,
    },
    /// An image was assembled.
    Assembled {
        /// The image.
        image: &'a ImageName,
        /// How long it took.
        elapsed: Duration,
        /// Whether it differs from what was there.
        changed: bool,
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
    /// Where it is noted what was built.
    pub ledger: &'a Ledger,
    /// What was remembered when the build began.
    pub memory: &'a Memory,
    /// Gives compilers leave to use another processor.
    pub jobs: &'a Jobs,
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

impl Context<'_> {
    fn note(&self, entries: Vec<Entry>) -> Result<(), BuildError> {
        self.ledger.note(entries).map_err(BuildError::io("write", self.state.file("ledger")))
    }
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

/// Builds one guest, unless its reasons turn out to be none.
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
    reasons: &[Reason],
) -> Result<BuiltGuest, BuildError> {
    let _job = ctx.jobs.take(|| ctx.cancel.is_cancelled());
    let reasons = match settle(ctx, project, guest, built, reasons)? {
        Settling::Fresh(built) => return Ok(*built),
        Settling::Stale(reasons) => reasons,
    };
    let start = Instant::now();
    (ctx.events)(Event::Started { guest: &guest.name, reasons: &reasons });
    let compiled = compile(ctx, project, guest, built);
    let compiled = compiled.and_then(|compiled| {
        let bytes = lang::adapt::to_component(compiled.bytes)?;
        Ok(Compiled { bytes, ..compiled })
    });
    let Compiled { bytes, toolchain, found, tools, outside } = compiled.inspect_err(|error| {
        (ctx.events)(Event::Failed { guest: &guest.name, elapsed: start.elapsed(), error });
    })?;
    if guest.reproducible && names_folder(&bytes, ctx.state.root()) {
        let text =
            "its result has the path of the project's folder in it: built in another folder it differs".to_owned();
        (ctx.events)(Event::Warning { guest: &guest.name, text });
    }
    let path = ctx.state.artifact(&guest.name);
    ctx.state.write_artifact(&path, &bytes).map_err(BuildError::io("write", &path))?;
    let digest = Digest::of(&bytes);
    let stamp = Stamp::of_name(&path).ok().flatten().filter(|stamp| stamp.is_settled(SystemTime::now()));
    let record = GuestRecord {
        toolchain: toolchain.to_string(),
        inputs: found.inputs.digest(),
        recipe: found.inputs.recipe,
        facts: inputs::recipe_facts(guest),
        variables: survey::variables(guest, ctx.environment),
        roots: survey::root_records(&found),
        embeds: survey::embed_records(&found.inputs.embeds, &digests(built)),
        tools: tools.digest(),
        outside: outside.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
        artifact: digest,
        stamp,
        elapsed_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        built_at: seconds_since_1970(),
        reasons,
    };
    let seen = found.roots.values().filter_map(|(key, seen)| Some(Entry::Root(key.clone(), seen.clone()?)));
    let mut entries: Vec<Entry> = seen.collect();
    entries.push(Entry::Tools(record.tools, Arc::new(tools)));
    entries.push(Entry::Guest(guest.name.to_string(), Box::new(record)));
    ctx.note(entries)?;
    (ctx.events)(Event::Finished { guest: &guest.name, elapsed: start.elapsed() });
    Ok(BuiltGuest { path, digest, toolchain, inputs: found.inputs })
}

/// What became of reasons that may be none.
enum Settling {
    Fresh(Box<BuiltGuest>),
    Stale(Vec<Reason>),
}

/// Finds out about the reasons of a guest that could not be told before: whether the guests that it embeds have come out as
/// before, and whether a compiler that was replaced is another.
fn settle(
    ctx: &Context<'_>,
    project: &Project,
    guest: &Guest,
    built: &BTreeMap<GuestName, BuiltGuest>,
    reasons: &[Reason],
) -> Result<Settling, BuildError> {
    let record = ctx.memory.guests.get(&guest.name).filter(|_| reasons.iter().all(Reason::is_unsure));
    let Some(record) = record else { return Ok(Settling::Stale(reasons.to_vec())) };
    let (mut next, mut entries, mut stale) = ((**record).clone(), Vec::new(), Vec::new());
    for reason in reasons {
        match reason {
            Reason::Guest { name } => {
                let embedded = built.iter().find(|(guest, _)| guest.as_str() == name);
                let before = record.embeds.get(name).map(|embed| embed.artifact);
                if embedded.map(|(_, built)| built.digest) != before {
                    stale.push(reason.clone());
                }
            }
            // Whether it has written something is seen below.
            Reason::Before { .. } => {}
            Reason::Tool { .. } if !matches!(guest.recipe, Recipe::Command { .. }) => {
                let artifacts = guest.embeds.iter().map(|name| (name.clone(), built[name].path.clone())).collect();
                let environment = environment::of_guest(ctx.environment, guest, &artifacts);
                let (identity, tools) = match &guest.recipe {
                    Recipe::Language(recipe) => {
                        let tool = lang::language::prepare(ctx, project, guest, recipe, environment)?;
                        (tool.identity, tool.tools)
                    }
                    Recipe::Rust(options) => lang::rust::ask(ctx, guest, options, environment)?,
                    Recipe::Command { .. } => unreachable!("its program is told by its content"),
                };
                // Settings of its user change what it makes, and not what it is.
                let is_same_settings = ctx.memory.tools(&record.tools).is_some_and(|used| used.has_settings_of(&tools));
                if identity.as_str() != record.toolchain {
                    stale.push(Reason::Toolchain { was: record.toolchain.clone(), is: identity.to_string() });
                } else if !is_same_settings {
                    stale.push(reason.clone());
                } else {
                    next.tools = tools.digest();
                    entries.push(Entry::Tools(next.tools, Arc::new(tools)));
                }
            }
            other => stale.push(other.clone()),
        }
    }
    let Some(toolchain) = Toolchain::new(&next.toolchain).filter(|_| stale.is_empty()) else {
        return Ok(Settling::Stale(if stale.is_empty() { reasons.to_vec() } else { stale }));
    };
    let embeds = guest.embeds.iter().map(|name| (name.clone(), built[name].inputs.digest())).collect();
    let scanner = inputs::Scanner::knowing(project, ctx.memory)?;
    let asked = record.roots.keys().map(String::as_str);
    let found = inputs::find(&scanner, project, guest, asked, ctx.environment, &embeds)?;
    if survey::root_records(&found) != record.roots {
        // It has changed since it was surveyed.
        let told = survey::root_reasons(record, &found, ctx.memory);
        return Ok(Settling::Stale(if told.is_empty() { reasons.to_vec() } else { told }));
    }
    next.inputs = found.inputs.digest();
    next.embeds = survey::embed_records(&found.inputs.embeds, &digests(built));
    entries.push(Entry::Guest(guest.name.to_string(), Box::new(next)));
    ctx.note(entries)?;
    let path = ctx.state.artifact(&guest.name);
    Ok(Settling::Fresh(Box::new(BuiltGuest { path, digest: record.artifact, toolchain, inputs: found.inputs })))
}

fn digests(built: &BTreeMap<GuestName, BuiltGuest>) -> BTreeMap<GuestName, Digest> {
    built.iter().map(|(name, built)| (name.clone(), built.digest)).collect()
}

/// What came of a guest's compiler.
struct Compiled {
    bytes: Vec<u8>,
    toolchain: Toolchain,
    found: Found,
    tools: Tools,
    /// Packages outside of the project.
    outside: BTreeSet<PathBuf>,
}

/// Compiles a guest until its inputs are the same before and afterwards.
fn compile(
    ctx: &Context<'_>,
    project: &Project,
    guest: &Guest,
    built: &BTreeMap<GuestName, BuiltGuest>,
) -> Result<Compiled, BuildError> {
    let artifacts = guest.embeds.iter().map(|name| (name.clone(), built[name].path.clone())).collect();
    let embeds = guest.embeds.iter().map(|name| (name.clone(), built[name].inputs.digest())).collect();
    let mut was_touched = false;
    for attempt in 0..ATTEMPTS_MAX {
        let start = SystemTime::now();
        let environment = environment::of_guest(ctx.environment, guest, &artifacts);
        let prepared = match &guest.recipe {
            Recipe::Rust(options) => Some(lang::rust::prepare(ctx, project, guest, options, environment.clone())?),
            Recipe::Command { .. } | Recipe::Language(_) => None,
        };
        if let Some(prepared) = prepared.as_ref().filter(|_| attempt == 0) {
            lang::rust::warn(ctx, guest, prepared);
        }
        let language = lang::language::recipe_of(guest);
        if let Some(recipe) = language.filter(|_| attempt == 0) {
            lang::language::warn(ctx, guest, recipe);
        }
        let find = || {
            let roots = prepared.iter().flat_map(|prepared| &prepared.roots.inside).map(String::as_str);
            let scanner = inputs::Scanner::knowing(project, ctx.memory)?;
            inputs::find(&scanner, project, guest, roots, ctx.environment, &embeds)
        };
        let before = find()?;
        let (bytes, toolchain, tools) = match (&guest.recipe, &prepared) {
            (Recipe::Command { run, .. }, _) => {
                let tools = lang::command::tools(ctx, guest, run, &environment);
                let bytes = lang::command::build(ctx, guest, run, &artifacts, environment)?;
                (
                    bytes,
                    Toolchain::command(),
                    tools.map_err(BuildError::io("read", "a program of the guest's command"))?,
                )
            }
            (Recipe::Rust(_), Some(prepared)) => {
                (lang::rust::build(ctx, guest, prepared)?, prepared.identity.clone(), prepared.tools.clone())
            }
            (Recipe::Language(recipe), _) => {
                let tool = lang::language::prepare(ctx, project, guest, recipe, environment)?;
                (lang::language::build(ctx, project, guest, recipe, &tool)?, tool.identity, tool.tools)
            }
            (Recipe::Rust(_), None) => unreachable!("Rust guests are prepared"),
        };
        if find()?.inputs == before.inputs {
            // Somebody may have changed a file and changed it back. One that is touched each time is touched by the build.
            let seen = || before.roots.values().filter_map(|(_, seen)| seen.as_ref());
            if !was_touched && seen().any(|seen| seen.is_touched_since(&project.root, start)) {
                was_touched = true;
                continue;
            }
            let outside = prepared.map(|prepared| prepared.roots.outside).unwrap_or_default();
            return Ok(Compiled { bytes, toolchain, found: before, tools, outside });
        }
    }
    Err(BuildError::InputsChange)
}

/// What must not be compiled at the same time as a guest: what cargo would keep waiting anyway.
pub fn exclusive(guest: &Guest) -> Option<String> {
    // As `State::cargo_target` has it.
    let is_shared = matches!(guest.recipe, Recipe::Rust(_)) && guest.env.is_empty() && guest.embeds.is_empty();
    is_shared.then(|| "cargo".to_owned())
}

/// The present time.
pub fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
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
    ctx.jobs.configure(&mut command);
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
            Err(missing::why(call.program, call.dir, call.environment))
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

fn run_with(interpreter: Option<&str>) -> String {
    match interpreter {
        Some(interpreter) => format!("`{}`, which its first line names,", escape::text(interpreter)),
        None => "the program that the system runs it with, such as its dynamic linker,".to_owned(),
    }
}

fn at(path: Option<&Path>) -> String {
    path.map(|path| format!(" to {}", escape::path(path))).unwrap_or_default()
}
