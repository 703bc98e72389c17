//! `Executor`: what compiles programs and starts cells.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use capnp::Error;
use capnp::capability::Client;
use futures::future::LocalBoxFuture;
use ww_schema::peer_capnp::executor;

use super::module::{Slots, module};
use super::process::process;
use crate::cell::{Admission, ComponentError, LimitReached, PipeReader, PipeWriter, Process, Program};
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
    /// Its room among the children of its parent. Those who hold what it leaves behind have a part in it.
    pub admission: Arc<Admission>,
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
            let args = texts(params.get_args()?)?;
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

/// How many bytes a list of texts may have, such as the arguments of a child: more than programs are given, and so little
/// that as many children as a cell may have can be given it. Linux has the same bound for a single argument.
const TEXTS_BYTES_MAX: usize = 128 * 1024;

/// What each text is counted as beside its bytes.
const TEXT_BYTES: usize = size_of::<String>();

/// The texts of a list; one that is not UTF-8 is an error, and too many are.
pub(super) fn texts(list: capnp::text_list::Reader<'_>) -> Result<Vec<String>, Error> {
    let mut left = TEXTS_BYTES_MAX;
    let mut texts = Vec::new();
    for text in list {
        let text = text?;
        let rest = left.checked_sub(text.len().saturating_add(TEXT_BYTES));
        left = rest.ok_or_else(|| {
            Error::failed(format!("the texts of a list have more than {} KiB together", TEXTS_BYTES_MAX >> 10))
        })?;
        texts.push(text.to_string()?);
    }
    Ok(texts)
}

/// The variables of an environment.
pub(super) fn variables(list: capnp::text_list::Reader<'_>) -> Result<Vec<(String, String)>, Error> {
    texts(list)?.into_iter().map(variable).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded() {
        let check = |list: &[&str]| {
            let mut message = capnp::message::Builder::new_default();
            message.set_root::<capnp::text_list::Owned>(list).unwrap();
            texts(message.get_root_as_reader().unwrap()).map(|texts| texts.len()).map_err(|error| error.extra)
        };
        assert_eq!(check(&["a", "", "c"]), Ok(3));
        let long = "x".repeat(TEXTS_BYTES_MAX / 2);
        assert_eq!(check(&[&long]), Ok(1));
        let refused = Err("the texts of a list have more than 128 KiB together".to_owned());
        assert_eq!(check(&[&long, &long]), refused);
        assert_eq!(check(&vec![""; TEXTS_BYTES_MAX]), refused);
    }
}
