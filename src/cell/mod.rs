//! Cells: WebAssembly components that run in sandboxes of wasmtime.
//!
//! [`Compiler`] turns bytes into a [`Program`], once for equal bytes. [`launch`] turns a program and everything that it
//! is given ([`Launch`]) into a [`Process`] handle and a future that runs it; whoever polls the future decides the
//! thread. A cell that computes gives way to other tasks of its thread at every tick of the engine's clock, so it delays
//! them by milliseconds and cannot stop them.
//!
//! A cell has clocks, random numbers, and what is in its [`Launch`]: nothing of this process's environment, files or
//! network. Bytes cross its border through [`pipe`]s and through WASI; what the bytes of its RPC channel mean is no
//! business of this module.

mod account;
mod chunks;
mod code_cache;
pub mod compile_child;
mod component;
mod engine;
mod file_stream;
mod filesystem;
mod functions;
mod known;
mod limiter;
mod native;
mod network;
mod pipe;
mod process;
mod program;
mod stdio;
mod thread_time;
mod turn;

pub use account::{Account, Admission, Held, HeldRoot, LimitReached, ROOTS_MAX};
pub use code_cache::{CodeCache, CodeCacheError};
pub use component::{Compiler, CompilerOptions, ComponentError};
pub use engine::{Engine, EngineError, EngineOptions, processors};
pub use network::NetworkRefused;
pub use pipe::{CHANNEL_BYTES, Closed, OVERRUN_FACTOR, PIECE_BYTES, PipeReader, PipeWriter, pipe};
pub use process::{Channel, ENDED_BYTES_MAX, ExitStatus, Launch, PROGRAM_NAME, Process, launch};
pub use program::{HeldProgram, Program};
pub use stdio::{Arrival, Input, InputFile, Output};
