//! Runs an async program inside a cell.
//!
//! A guest is a WASI 0.2 command, compiled for `wasm32-wasip2`. Its bootstrap capability is the [host], or
//! what its parent hands it; [`run`] opens the session and passes it to the program:
//!
//! ```no_run
//! use std::error::Error;
//! use ww_guest::peer_capnp::host;
//!
//! fn main() {
//!     ww_guest::run(greet)
//! }
//!
//! async fn greet(host: host::Client) -> Result<(), Box<dyn Error>> {
//!     let executor = host.executor_request().send().pipeline.get_executor();
//!     let mut request = executor.echo_request();
//!     request.get().set_message("hello");
//!     let response = request.send().promise.await?;
//!     println!("the host says {}", response.get()?.get_response()?.to_str()?);
//!     Ok(())
//! }
//! ```
//!
//! - [`run`], [`block_on`], [`spawn`]: one thread, any number of tasks. A task that waits costs nothing: the cell sleeps
//!   in its host until one of the streams that the tasks wait for is ready.
//! - [`stdin`], [`stdout`], [`stderr`], [`StreamReader`], [`StreamWriter`]: the cell's own streams.
//! - [`ByteReader`], [`ByteWriter`]: the byte streams of other processes. [`copy`] moves bytes between any two.
//! - [`Command`], [`Module`], [`Child`], [`Status`]: child cells.
//! - [`restrict`], [`revocable`]: capabilities to hand to them that are less than this cell's own.
//! - [`Terminal`]: the terminal, where this cell may control it.
//! - [`exit`], [`ExitCode`], [`Termination`]: how a program ends, with any code from 0 to 255.
//!
//! The arguments are those of [`std::env::args`]; the first is `main.wasm`. Messages of the [`log`] crate go to
//! stderr; the environment variable `RUST_LOG` sets the level: `off`, `error`, `warn`, `info` (the default), `debug` or
//! `trace`. A panic prints its message to stderr and traps.
//!
//! What blocks the thread blocks every task, the RPC session too: `std::io::stdin`, a long computation, and
//! `std::io::stdout` when nobody reads it.
//!
//! The crate compiles on every target, so that editors and documentation tests work; what needs a host panics outside
//! of a cell.

#[rustfmt::skip]
#[allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::undocumented_unsafe_blocks,
    reason = "generated; see examples/generate.rs"
)]
mod bindings;
mod attenuate;
mod budget;
mod byte_stream;
mod executor;
mod exit;
mod logger;
mod module;
mod process;
mod reactor;
mod rpc;
mod stream;
mod terminal;

use std::future::Future;

pub use attenuate::{Method, restrict, revocable};
pub use byte_stream::{ByteReader, ByteWriter};
pub use executor::{block_on, spawn};
pub use exit::{ExitCode, Termination, exit};
pub use module::{Module, ModuleCommand};
pub use process::{Child, Command, Output, Status, Usage};
pub use rpc::take_channel;
pub use stream::{StreamReader, StreamWriter, copy, stderr, stdin, stdout};
pub use terminal::{Size, Terminal};

pub use capnp;
pub use ww_schema::peer_capnp;

use peer_capnp::host;

/// The largest piece that a stream moves at once, in bytes: what a pipe between cells holds by default.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Runs `main` with the bootstrap capability of this cell, and ends the program with what it returns.
///
/// A parent that hands its child something else than a `Host` hands it a capability of another type, to which
/// [`cast_to`](capnp::capability::FromClientHook::cast_to) changes this one.
///
/// When `main` is done, every other task is dropped, then the RPC session with whatever it had not sent yet; std's
/// stdout is flushed, and the program exits with the code of [`Termination::report`]. Where the host offers no RPC
/// channel, the program says so on stderr and exits with 1.
///
/// When the session fails, calls that wait for an answer and all later ones return an error, and `main` goes on.
///
/// # Panics
///
/// When `main` waits for something that can never happen, see [`block_on`].
pub fn run<Main, Running>(main: Main) -> !
where
    Main: FnOnce(host::Client) -> Running,
    Running: Future + 'static,
    Running::Output: Termination + 'static,
{
    logger::install();
    let code = match rpc::open() {
        Ok(host) => block_on(main(host)).report(),
        Err(error) => exit::report_error(&error),
    };
    exit(code.0)
}

/// The examples of the guide, which are compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guests.md")]
struct Guide;
