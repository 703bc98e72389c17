//! The process that compiles, from within.

use std::ffi::OsStr;
use std::io::{self, Read, Write};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use super::Order;
use crate::cell::code_cache;
use crate::cell::engine::{self, EngineOptions};
use crate::wasm_binary::SIZE_BYTES_MAX;

/// What the process ends with where the component is not valid. The standard error is then a JSON array of texts.
pub(super) const INVALID: i32 = 3;
/// What it ends with where the code could not be written, for want of room for example.
pub(super) const NOT_WRITTEN: i32 = 4;
/// What it ends with where it could not even begin.
const NOT_STARTED: i32 = 5;

/// What is said where there is no memory: by Rust's allocator, by wasmtime, and by who cannot start a thread.
pub(super) const NO_MEMORY: [&str; 5] = [
    "memory allocation of",
    "out of memory",
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "capacity overflow",
];

/// How much lower the priority is than that of the parent: who waits for others than a compiler goes first.
const NICE: i32 = 5;

/// Why there is no code: what the process says on its standard error and what it ends with.
#[derive(Debug)]
pub struct Refusal {
    /// The exit code.
    pub code: i32,
    /// The text.
    pub text: String,
}

impl Refusal {
    fn new(code: i32, error: impl ToString) -> Self {
        Self { code, text: error.to_string() }
    }
}

/// Does what a [`ChildCompiler`](super::ChildCompiler) has ordered: reads a component and writes native code. For the
/// `main` of a process that does nothing else, since it limits the whole process.
///
/// # Errors
///
/// With what the process is to say and to end with.
pub fn compile(order: Option<&OsStr>, from: impl Read, to: impl Write) -> Result<(), Refusal> {
    let order = order.and_then(OsStr::to_str).unwrap_or_default();
    let order: Order = serde_json::from_str(order).map_err(|error| Refusal::new(NOT_STARTED, error))?;
    confine(&order).map_err(|error| Refusal::new(NOT_STARTED, error))?;
    let mut wasm = Vec::new();
    from.take(SIZE_BYTES_MAX).read_to_end(&mut wasm).map_err(|error| Refusal::new(NOT_STARTED, error))?;
    let engine = engine::bare(EngineOptions { debug: order.debug });
    let engine = engine.map_err(|error| Refusal::new(NOT_STARTED, format!("{error:#}")))?;
    let code = engine.precompile_component(&wasm).map_err(|error| {
        let causes: Vec<_> = error.chain().map(|cause| cause.to_string()).collect();
        Refusal::new(INVALID, serde_json::to_string(&causes).unwrap_or_default())
    })?;
    code_cache::write(to, &code).map_err(|error| Refusal::new(NOT_WRITTEN, error))
}

/// Takes away from this process what compiling does not need.
fn confine(order: &Order) -> io::Result<()> {
    end_with_parent(order.parent)?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::As, order.limits.memory_bytes, 0)?;
    limit(Resource::Fsize, order.limits.code_bytes, 0)?;
    // At the soft limit the signal says which limit it was; at the hard one the process is killed.
    limit(Resource::Cpu, order.limits.cpu_seconds, 5)?;
    // A lower priority is a courtesy.
    let _ = rustix::process::nice(NICE);
    Ok(())
}

/// Lowers a limit of this process, and the one up to which it may be raised again to so much more. Where either is lower
/// already, as with `ulimit`, it stays, since it cannot be raised.
fn limit(resource: Resource, most: u64, more: u64) -> io::Result<()> {
    let now = getrlimit(resource);
    let lower = |now: Option<u64>, most: u64| Some(now.map_or(most, |now| now.min(most)));
    let (current, maximum) = (lower(now.current, most), lower(now.maximum, most.saturating_add(more)));
    Ok(setrlimit(resource, Rlimit { current, maximum })?)
}

/// Has the kernel end this process when its parent's thread that waits for it ends.
#[cfg(target_os = "linux")]
fn end_with_parent(parent: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before.
    let now = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get());
    if now.and_then(|now| u32::try_from(now).ok()) == Some(parent) {
        return Ok(());
    }
    Err(io::Error::other("the process that ordered this has ended"))
}

#[cfg(not(target_os = "linux"))]
fn end_with_parent(_: u32) -> io::Result<()> {
    Ok(())
}
