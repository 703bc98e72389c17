//! `Executor`: what compiles programs and starts cells.

use std::rc::Rc;

use bytes::Bytes;
use capnp::Error;
use capnp::capability::Client;
use futures::future::LocalBoxFuture;
use ww_schema::peer_capnp::executor;

use super::module::{Slots, module};
use super::process::process;
use super::texts::{arguments, variables};
use crate::cell::{ComponentError, Held, LimitReached, PipeReader, PipeWriter, Process, Program};
use crate::grant::{LimitError, Limits, Reach};

/// Starts cells for the holder of an `Executor`; each child belongs to the cell that the executor belongs to.
pub trait Spawn {
    /// Compiles a program.
    fn load(&self, wasm: Bytes) -> LocalBoxFuture<'static, Result<Program, SpawnError>>;

    /// Starts a program. The returned future is dropped when the caller cancels; a child that was started by then runs on.
    fn spawn(&self, program: Program, order: Order) -> LocalBoxFuture<'static, Result<Child, SpawnError>>;
}

/// What a child is to have.
#[derive(Default)]
pub struct Order {
    /// The arguments after the program's name.
    pub args: Vec<String>,
    /// The environment, in order.
    pub env: Vec<(String, String)>,
    /// What its first capability is.
    pub bootstrap: Bootstrap,
    /// Where it may open connections to, if anywhere.
    pub network: Option<Reach>,
    /// The limits that are set for it.
    pub limits: Limits,
    /// Its standard input.
    pub stdin: Stream,
    /// Its standard output.
    pub stdout: Stream,
    /// Its standard error.
    pub stderr: Stream,
}

/// The first capability of a child.
#[derive(Clone, Default)]
pub enum Bootstrap {
    /// None: each call is an error.
    #[default]
    Nothing,
    /// A `Host` of its own, which starts the child's children and cannot connect.
    Host,
    /// What its parent hands it.
    Given(Client),
}

/// What one of a child's standard streams is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    /// A pipe to its parent.
    #[default]
    Pipe,
    /// Nothing.
    Null,
}

/// A started cell, with the other ends of its standard streams.
#[derive(Debug)]
pub struct Child {
    /// The cell.
    pub process: Process,
    /// What it reads.
    pub stdin: PipeWriter,
    /// What it writes to its standard output.
    pub stdout: PipeReader,
    /// What it writes to its standard error.
    pub stderr: PipeReader,
    /// Room for what the pipes may have in them, also after its end.
    pub room: Held,
}

/// Why a cell could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The bytes cannot be run.
    #[error("the wasm cannot be run")]
    Component(#[from] ComponentError),
    /// The parent may not have it.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The child is to have more than its parent.
    #[error(transparent)]
    MoreThanParent(#[from] LimitError),
    /// The child is to open connections that its parent may not.
    #[error("a child cannot have the grant `network` beyond that of its parent")]
    Network,
    /// The host is shutting down.
    #[error("the host is shutting down")]
    ShuttingDown,
}

/// The capability that starts children through `spawn`.
pub fn executor(spawn: impl Spawn + 'static) -> executor::Client {
    capnp_rpc::new_client(Server { spawn: Rc::new(spawn), slots: Slots::default() })
}

struct Server<S> {
    spawn: Rc<S>,
    /// Room for the modules that were loaded.
    slots: Slots,
}

impl<S: Spawn + 'static> executor::Server for Server<S> {
    async fn run_bytes(
        self: Rc<Self>,
        params: executor::RunBytesParams,
        mut results: executor::RunBytesResults,
    ) -> Result<(), Error> {
        let (wasm, order) = {
            let params = params.get()?;
            let args = arguments(params.get_args()?)?;
            let env = variables(params.get_env()?)?;
            (
                Bytes::copy_from_slice(params.get_wasm()?),
                Order { args, env, bootstrap: Bootstrap::Host, ..Order::default() },
            )
        };
        drop(params);
        let program = self.spawn.load(wasm).await.map_err(|error| failed(&error))?;
        let child = self.spawn.spawn(program, order).await.map_err(|error| failed(&error))?;
        results.get().set_process(process(child));
        Ok(())
    }

    async fn echo(
        self: Rc<Self>,
        params: executor::EchoParams,
        mut results: executor::EchoResults,
    ) -> Result<(), Error> {
        results.get().set_response(params.get()?.get_message()?);
        Ok(())
    }

    async fn load(
        self: Rc<Self>,
        params: executor::LoadParams,
        mut results: executor::LoadResults,
    ) -> Result<(), Error> {
        let slot = self.slots.take()?;
        let wasm = Bytes::copy_from_slice(params.get()?.get_wasm()?);
        drop(params);
        let program = self.spawn.load(wasm).await.map_err(|error| failed(&error))?;
        results.get().set_module(module(self.spawn.clone(), program, slot));
        Ok(())
    }
}

/// How much of an error is told to a guest; the longest of ours quote a few hundred bytes.
const ERROR_BYTES_MAX: usize = 4 * 1024;

/// The error with its causes on one line, as an RPC exception.
pub(super) fn failed(error: &dyn std::error::Error) -> Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if text.len() > ERROR_BYTES_MAX {
        text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
        text.push('…');
    }
    Error::failed(text)
}
