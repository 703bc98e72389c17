//! `Executor`: what starts other cells.

use std::rc::Rc;

use bytes::Bytes;
use capnp::Error;
use futures::future::LocalBoxFuture;
use ww_schema::peer_capnp::executor;

use super::process::process;
use crate::cell::{ComponentError, LimitReached, PipeReader, PipeWriter, Process};

/// Starts cells for the holder of an `Executor`; each child belongs to that holder's cell.
pub trait Spawn {
    /// Compiles `wasm` and starts it with these arguments and this environment. The returned future is dropped when the
    /// caller cancels; a child that was started by then runs on.
    fn spawn(
        &self,
        wasm: Bytes,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> LocalBoxFuture<'static, Result<Child, SpawnError>>;
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
    /// The host is shutting down.
    #[error("the host is shutting down")]
    ShuttingDown,
}

/// The capability that starts children through `spawn`.
pub fn executor(spawn: impl Spawn + 'static) -> executor::Client {
    capnp_rpc::new_client(Server { spawn })
}

struct Server<S> {
    spawn: S,
}

impl<S: Spawn + 'static> executor::Server for Server<S> {
    async fn run_bytes(
        self: Rc<Self>,
        params: executor::RunBytesParams,
        mut results: executor::RunBytesResults,
    ) -> Result<(), Error> {
        let spawned = {
            let params = params.get()?;
            let wasm = Bytes::copy_from_slice(params.get_wasm()?);
            let args = texts(params.get_args()?)?;
            let env = texts(params.get_env()?)?.into_iter().map(variable).collect::<Result<_, _>>()?;
            self.spawn.spawn(wasm, args, env)
        };
        let child = spawned.await.map_err(|error| failed(&error))?;
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
}

/// The texts of a list; one that is not UTF-8 is an error.
pub(super) fn texts(list: capnp::text_list::Reader<'_>) -> Result<Vec<String>, Error> {
    list.iter().map(|text| Ok(text?.to_string()?)).collect()
}

fn variable(entry: String) -> Result<(String, String), Error> {
    match entry.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::failed(format!("`{}` in env is not of the form NAME=value", crate::escape::text(&entry)))),
    }
}

/// The error with its causes on one line, as an RPC exception.
pub(super) fn failed(error: &dyn std::error::Error) -> Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Error::failed(text)
}
