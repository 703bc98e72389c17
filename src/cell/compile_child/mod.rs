//! Compiling in a process of its own, which can be given limits and be ended, as Cranelift in this one cannot.
//!
//! The process is this very program, called with [`ARGUMENT`] and an [`Order`]. It reads a component from its standard
//! input, writes native code to its standard output, which is a file, and ends with one of the codes of [`Refusal`],
//! having said why on standard error. It runs no guest code, and it is no sandbox either: it bounds what compiling costs.
//! So its code is trusted as far as that of a compiler in this process would be.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::talk::Talk;
use super::component::ComponentError;
use super::engine::{EngineOptions, processors};

mod inside;
mod talk;

pub use inside::{Refusal, compile};

/// The first argument of a process that is to compile.
pub const ARGUMENT: &str = "compile-for-another-ww";

/// How many threads compile one component. More help little, and the address space of each counts.
const THREADS_MAX: usize = 8;

/// How long at most to wait for the end of a process that has said all that it will.
const END_WITHIN: Duration = Duration::from_secs(5);

/// What one component may cost before it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileLimits {
    /// Address space of the compiling process, in bytes; some 300 MiB of it are the program itself and its threads.
    pub memory_bytes: u64,
    /// Time that processors compute, summed over all of them, in seconds.
    pub cpu_seconds: u64,
    /// Time from start to end, in seconds.
    pub wall_seconds: u64,
    /// Native code, in bytes.
    pub code_bytes: u64,
}

/// The largest known components, interpreters of JavaScript and Python, take some 15 seconds of one processor. Some 23 MB of
/// small functions took 21 seconds and 0.4 GiB.
impl Default for CompileLimits {
    fn default() -> Self {
        Self { memory_bytes: 2 << 30, cpu_seconds: 120, wall_seconds: 300, code_bytes: 1 << 30 }
    }
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompileLimit {
    /// [`CompileLimits::memory_bytes`].
    Memory(u64),
    /// [`CompileLimits::cpu_seconds`].
    Cpu(u64),
    /// [`CompileLimits::wall_seconds`].
    Wall(u64),
    /// [`CompileLimits::code_bytes`].
    Code(u64),
}

/// Reads on after "compiling it takes more than".
impl std::fmt::Display for CompileLimit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory(bytes) => write!(formatter, "{} MiB of memory", bytes >> 20),
            Self::Cpu(seconds) => write!(formatter, "{seconds} s of processor time"),
            Self::Wall(seconds) => write!(formatter, "{seconds} s"),
            Self::Code(bytes) => write!(formatter, "{} MiB for the compiled code", bytes >> 20),
        }
    }
}

/// Where components are compiled.
#[derive(Clone, Debug)]
pub struct ChildCompiler {
    /// The program, whose `main` hands over to [`compile`] where its first argument is [`ARGUMENT`].
    pub program: PathBuf,
    /// What one component may cost.
    pub limits: CompileLimits,
}

/// What the process is to do; its second argument, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    /// As in [`EngineOptions`].
    debug: bool,
    limits: CompileLimits,
    /// The process that waits for it.
    parent: u32,
}

/// Why there is no code.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nobody will be able to compile it.
    Component(ComponentError),
    /// The code could not be written.
    Write(String),
}

impl ChildCompiler {
    /// Compiles `wasm` and writes the code to `to`. Blocks; gives up soon after `stop` is cancelled.
    pub(super) fn compile(
        &self,
        options: EngineOptions,
        wasm: &[u8],
        to: File,
        stop: &CancellationToken,
    ) -> Result<(), Failed> {
        let order = Order { debug: options.debug, limits: self.limits, parent: std::process::id() };
        let failed = |error| Failed::Component(ComponentError::compiler(error));
        let order = serde_json::to_string(&order).map_err(|error| failed(error.into()))?;
        let threads = processors().min(THREADS_MAX);
        let child = Command::new(&self.program)
            .arg0("ww")
            .args([ARGUMENT, &order])
            .env_clear()
            // What rayon, on which Cranelift runs, and the allocator look at.
            .env("RAYON_NUM_THREADS", threads.to_string())
            .current_dir("/")
            // Ctrl-C is for its parent, which ends it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(to)
            .stderr(Stdio::piped())
            .spawn();
        let mut child = Running(child.map_err(failed)?);
        let deadline = Instant::now() + Duration::from_secs(self.limits.wall_seconds);
        let mut talk = Talk::new(&mut child.0, wasm).map_err(failed)?;
        while !talk.is_over() {
            if stop.is_cancelled() {
                return Err(Failed::Component(ComponentError::Stopped));
            }
            if Instant::now() >= deadline {
                return Err(self.too_expensive(CompileLimit::Wall(self.limits.wall_seconds)));
            }
            talk.go_on().map_err(failed)?;
        }
        let said = talk.said();
        let status = child.end().map_err(failed)?;
        self.judge(status, &said)
    }

    /// What the end of the process means.
    fn judge(&self, status: ExitStatus, said: &str) -> Result<(), Failed> {
        let limits = &self.limits;
        if status.success() {
            return Ok(());
        }
        let crashed = || Failed::Component(ComponentError::compiler(io::Error::other(format!("{status}: {said}"))));
        let signal = status.signal().and_then(Signal::from_named_raw);
        match (status.code(), signal) {
            (Some(inside::INVALID), _) => Err(Failed::Component(invalid(said))),
            (Some(inside::NOT_WRITTEN), _) => Err(Failed::Write(said.to_owned())),
            (_, Some(Signal::XCPU)) => Err(self.too_expensive(CompileLimit::Cpu(limits.cpu_seconds))),
            (_, Some(Signal::XFSZ)) => Err(self.too_expensive(CompileLimit::Code(limits.code_bytes))),
            // What Rust's allocator, and the thread pool, do when they are given no memory.
            _ if inside::NO_MEMORY.iter().any(|text| said.contains(text)) => {
                Err(self.too_expensive(CompileLimit::Memory(limits.memory_bytes)))
            }
            // Nobody else sends it but the kernel, when the machine has no memory left.
            (_, Some(Signal::KILL)) => Err(self.too_expensive(CompileLimit::Memory(limits.memory_bytes))),
            _ => Err(crashed()),
        }
    }

    fn too_expensive(&self, limit: CompileLimit) -> Failed {
        Failed::Component(ComponentError::TooExpensive(limit))
    }
}

/// What wasmtime said, cause by cause.
fn invalid(said: &str) -> ComponentError {
    let causes: Vec<String> = serde_json::from_str(said).unwrap_or_else(|_| vec![said.to_owned()]);
    let mut causes = causes.into_iter().rev();
    let root = wasmtime::Error::msg(causes.next().unwrap_or_default());
    ComponentError::invalid(causes.fold(root, wasmtime::Error::context))
}

/// A process that does not outlive this value.
struct Running(Child);

impl Running {
    /// Waits for its end, which must be near.
    fn end(&mut self) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + END_WITHIN;
        let mut pause = Duration::from_micros(50);
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end"));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a program that was called with this first argument is to call [`compile`].
pub fn is_meant(argument: Option<&OsStr>) -> bool {
    argument.is_some_and(|argument| argument == ARGUMENT)
}
