//! Compiles guests: one compiler call for each, with an environment that is the same for everybody.
//!
//! [`build_guest`] is the whole of it; [`State`] is where results lie and who may write them. The order of guests, and
//! what to do with several, is the caller's. Only this module starts compilers, and nothing here prints: what happens
//! is told to the caller's [`Events`].

mod environment;
mod error;
mod guest;
mod inputs;
mod jobs;
mod lang;
pub mod ledger;
mod links;
mod missing;
mod out_folder;
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

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use self::ledger::{Ledger, Memory};
use crate::wetfile::lock::{Digest, Inputs, Toolchain};
use crate::wetfile::{Guest, GuestName, ImageName, Recipe};

pub use environment::{Variables, toolchain_variable};
pub use error::BuildError;
pub use guest::build_guest;
pub use inputs::{GuestFiles, InputsError, digest as digest_inputs, guest_files, rustup_toolchain};
pub use jobs::Jobs;
pub use lang::cargo_config::settings_above as cargo_settings_above;
pub use lang::doctor::{Fix, RUST_TOOL, ToolProblem, ToolReport, tools as probe_tools};
pub use process::Cancel;
pub use reason::Reason;
pub use state::{State, StateError, cached, content};
pub use survey::{Standing, Survey, limited, shortened, wetfile_reasons};

use process::ProcessError;

/// The target of every guest: components for WASI 0.2.
pub const TARGET: &str = "wasm32-wasip2";

/// Version of how guests are compiled: raised whenever a guest of the same inputs, compiled with the same compiler, would
/// not be what this version makes of it (see [`rustc_wrapper`]). Cargo's state for an older one is discarded, and a lock
/// keeps them apart.
const RECIPE: u32 = 2;

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

/// What must not be compiled at the same time as a guest: what cargo would keep waiting anyway.
pub fn exclusive(guest: &Guest) -> Option<String> {
    // As `State::cargo_target` has it.
    let is_shared = matches!(guest.recipe, Recipe::Rust(_)) && guest.env.is_empty() && guest.embeds.is_empty();
    is_shared.then(|| "cargo".to_owned())
}

/// The present time.
pub fn seconds_since_1970() -> u64 {
    milliseconds_since_1970() / 1000
}

/// The same, finer.
pub fn milliseconds_since_1970() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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
    run_configured(ctx, guest, call, Jobs::configure, stdout)
}

/// As [`run`]; `configure` has the program know of the job server.
fn run_configured(
    ctx: &Context<'_>,
    guest: &GuestName,
    call: &Call<'_>,
    configure: fn(&Jobs, &mut std::process::Command),
    stdout: &mut dyn FnMut(&str) -> bool,
) -> Result<(), BuildError> {
    let root = ctx.state.root().to_string_lossy();
    let mut command = std::process::Command::new(call.program);
    command.args(call.arguments).current_dir(call.dir).env_clear().envs(call.environment);
    configure(ctx.jobs, &mut command);
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
