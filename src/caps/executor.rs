//! `Executor`: what compiles programs and starts cells.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use capnp::Error;
use capnp::capability::Client;
use futures::future::{BoxFuture, LocalBoxFuture};
use ww_schema::peer_capnp::executor;

use super::module::{Slots, module};
use super::process::Started;
use super::texts::{arguments, variables};
use crate::cell::{Account, ComponentError, Held, HeldProgram, LimitReached, PipeReader, PipeWriter, Process};
use crate::dag::{ContentPath, ContentPathError};
use crate::grant::{LimitError, Limits, Reach};
use crate::vfs::{Directory, VfsError};

/// Starts cells for the holder of an `Executor`; each child belongs to the cell that the executor belongs to.
pub trait Spawn {
    /// Compiles a program. The returned future is dropped when the caller cancels.
    fn load(&self, what: Loadable) -> LocalBoxFuture<'static, Result<Loaded, SpawnError>>;

    /// Starts a program. The returned future is dropped when the caller cancels; a child that was started by then runs on.
    fn spawn(&self, module: Loaded, order: Order) -> LocalBoxFuture<'static, Result<Child, SpawnError>>;
}

/// A component in a message, which is booked for whoever sent it as long as it is there.
pub struct Wasm {
    /// How long it is, in bytes.
    pub size_bytes: usize,
    /// Copies it out of the message. Called when the turn of this one has come, and there is room for it.
    pub copy: Box<dyn FnOnce() -> Result<Bytes, Error>>,
}

/// What a program can be made of.
pub enum Loadable {
    /// A component.
    Wasm(Wasm),
    /// The path to content that is one, or an image: a text from a guest.
    Content(String),
}

/// A compiled program, and the image that it was found in.
#[derive(Clone)]
pub struct Loaded {
    /// The program, with the room for what is kept of it.
    pub program: HeldProgram,
    /// The image, where it was one that was loaded.
    pub image: Option<Arc<dyn LoadedImage>>,
}

/// An image that children are started from.
pub trait LoadedImage: Send + Sync {
    /// The limits that it asks for.
    fn limits(&self) -> &Limits;

    /// Its tree, for a child with this account.
    fn open(&self, account: &Account) -> BoxFuture<'static, Result<Arc<dyn Directory>, VfsError>>;
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
    /// Whether it may load by CID with the `Host` of its own.
    pub fetch: bool,
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
    /// A `Host` of its own, which starts the child's children and cannot connect; it can load by CID where [`Order::fetch`]
    /// says so.
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
    /// Room for what is kept of it, also after its end.
    pub room: Room,
}

/// Room for what is kept of a child as long as its parent has the capabilities to it.
#[derive(Debug)]
pub struct Room {
    /// For how it ended.
    pub status: Held,
    /// For what the pipe to its standard input may have in it.
    pub input: Held,
    /// For what the pipes from its standard output and error may have in them.
    pub outputs: Held,
}

/// Why a cell could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The bytes cannot be run.
    #[error("the wasm cannot be run")]
    Component(#[from] ComponentError),
    /// The message has no component.
    #[error("the wasm cannot be read")]
    Wasm(#[source] Error),
    /// The parent may not have it.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The child is to have more than its parent.
    #[error(transparent)]
    MoreThanParent(#[from] LimitError),
    /// The child is to open connections that its parent may not.
    #[error("a child cannot have the grant `network` beyond that of its parent")]
    Network,
    /// The child is to load by CID, which its parent may not.
    #[error("a child cannot have the grant `fetch`, which its parent does not have")]
    FetchBeyondParent,
    /// The cell may not load by CID.
    #[error(
        "this cell may not load what a CID names; `--grant fetch` lets it, and `fetch` among the `grants` of \
         `Module.spawn` lets a child"
    )]
    Fetch,
    /// The text names no content.
    #[error("`cid` names no content")]
    ContentText(#[source] Box<ContentPathError>),
    /// The text is longer than any that names content.
    #[error("`cid` has more than {limit} bytes")]
    ContentTextTooLong {
        /// The limit.
        limit: usize,
    },
    /// It is neither a file nor a directory.
    #[error("{content} is neither a program nor the folder of an image")]
    NoProgram {
        /// What was named.
        content: Box<ContentPath>,
    },
    /// It cannot be had, or is no image.
    #[error("failed to load {content}")]
    Content {
        /// What was named.
        content: Box<ContentPath>,
        /// Why.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The image of a module cannot be opened.
    #[error("failed to open the image")]
    Image(#[source] VfsError),
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
        let order = {
            let params = params.get()?;
            let args = arguments(params.get_args()?)?;
            let env = variables(params.get_env()?)?;
            Order { args, env, bootstrap: Bootstrap::Host, ..Order::default() }
        };
        let params = Rc::new(params);
        let (copied, size_bytes) = (params.clone(), params.get()?.get_wasm()?.len());
        let copy = Box::new(move || Ok(Bytes::copy_from_slice(copied.get()?.get_wasm()?)));
        let module =
            self.spawn.load(Loadable::Wasm(Wasm { size_bytes, copy })).await.map_err(|error| failed(&error))?;
        drop(params);
        let child = self.spawn.spawn(module, order).await.map_err(|error| failed(&error))?;
        let Started { process, stdin, stdout, stderr } = Started::new(child);
        let mut results = results.get();
        results.set_process(process);
        results.set_stdin(stdin);
        results.set_stdout(stdout);
        results.set_stderr(stderr);
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
        let params = Rc::new(params);
        let copied = params.clone();
        let what = {
            let params = params.get()?;
            match (params.has_wasm(), params.has_cid()) {
                (true, false) => Loadable::Wasm(Wasm {
                    size_bytes: params.get_wasm()?.len(),
                    copy: Box::new(move || Ok(Bytes::copy_from_slice(copied.get()?.get_wasm()?))),
                }),
                (false, true) => Loadable::Content(params.get_cid()?.to_string()?),
                (true, true) => return Err(Error::failed("both `wasm` and `cid` are given".into())),
                (false, false) => return Err(Error::failed("neither `wasm` nor `cid` is given".into())),
            }
        };
        let loaded = self.spawn.load(what).await.map_err(|error| failed(&error))?;
        drop(params);
        results.get().set_module(module(self.spawn.clone(), loaded, slot));
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
