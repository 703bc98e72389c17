//! What runs cells: worker threads, and the joining of a cell with its RPC connection and its capabilities.
//!
//! A [`Host`] is one per process. [`Host::start`] puts a cell on a worker thread and, beside it on the same thread, the
//! RPC system that serves the cell its `Host` capability; calls from a cell to its host cross no thread. The children
//! of a cell may be on other threads and reach their parent through pipes.
//!
//! A cell's children end with it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::caps::{self, Child, Spawn, SpawnError};
use crate::cell::{self, Account, Admission, Channel, Compiler, Input, Launch, Output, Process, pipe};
use crate::grant::{Limit, Reach};
use crate::swarm::Swarm;
use crate::vat;

mod terminal;
mod workers;

pub use terminal::{Drain, output};
use workers::Workers;

/// Runs the cells of this process; a cheap handle.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    compiler: Compiler,
    workers: Workers,
    swarm: Swarm,
    /// The cells with their connections, as long as anything is left of them.
    cells: TaskTracker,
}

impl Host {
    /// Makes a host with up to a worker thread for each processor, whose children are compiled by `compiler`.
    ///
    /// # Errors
    ///
    /// The threads cannot be started.
    pub fn new(compiler: Compiler, swarm: Swarm) -> io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self(Arc::new(Inner { compiler, workers: Workers::start(threads)?, swarm, cells: TaskTracker::new() })))
    }

    /// Waits until nothing is left of any cell, nor of its connection, which is soon after its [`Process`] has ended. No cell
    /// should be started any more.
    pub async fn ended(&self) {
        self.0.cells.close();
        self.0.cells.wait().await;
    }

    /// Starts a cell on behalf of this machine's user. See [`Host::start_with`].
    ///
    /// # Errors
    ///
    /// The host is shutting down.
    pub async fn start(
        &self,
        name: String,
        launch: Launch,
        connect: Option<Reach>,
        kill: CancellationToken,
    ) -> Result<Process, SpawnError> {
        self.start_with(name, launch, connect, None, kill).await
    }

    /// Starts a cell that has a `Host` capability, and returns when a thread has been found for it. It runs until it ends or
    /// `kill` is cancelled, whether or not anybody waits for it. `name` says in the log which cell it is, `connect` where it
    /// may make the node connect to, and `admission` is held until it has ended.
    ///
    /// # Errors
    ///
    /// The host is shutting down.
    async fn start_with(
        &self,
        name: String,
        mut launch: Launch,
        connect: Option<Reach>,
        admission: Option<Admission>,
        kill: CancellationToken,
    ) -> Result<Process, SpawnError> {
        let (to_guest, guest_input) = pipe();
        let (guest_output, from_guest) = pipe();
        launch.rpc = Some(Channel { input: guest_input, output: guest_output });
        let account = launch.account.clone();
        let limits = vat::Limits::of(account.limits());
        let (process, run) = cell::launch(launch, kill);
        let host = self.clone();
        let token = self.0.cells.token();
        let job = move || {
            async move {
                let _token = token;
                tracing::debug!(cell = name, "started");
                let _admission = admission;
                let children = Children::new(host.clone(), name.clone(), account.clone());
                // Ends the children when this future ends or is dropped.
                let _children_end = children.kill.clone().drop_guard();
                let bootstrap = caps::host(host.0.swarm.clone(), caps::executor(children), connect).client;
                let on_call = move || account.count_call();
                let vat = vat::serve(name.clone(), from_guest, to_guest, bootstrap, limits, on_call);
                run_with_vat(run, vat, &name).await;
                tracing::debug!(cell = name, "ended");
            }
            .boxed_local()
        };
        self.0.workers.submit(Box::new(job)).await.map_err(|_| SpawnError::ShuttingDown)?;
        Ok(process)
    }
}

/// Runs a cell to its end, and its RPC beside it in a task of its own: what goes wrong there, even a panic, ends the
/// connection and leaves the thread and its other cells alone.
async fn run_with_vat(cell: impl Future<Output = ()>, vat: impl Future<Output = ()> + 'static, name: &str) {
    let vat = tokio::task::spawn_local(vat);
    cell.await;
    // The end of the cell is the end of its streams: the vat gets one chance to see it and to say why it ended.
    tokio::task::yield_now().await;
    // What is still open then waits for something that nobody is left to hear of.
    vat.abort();
    if let Err(error) = vat.await
        && error.is_panic()
    {
        tracing::error!(cell = name, %error, "the RPC connection failed");
    }
}

/// Starts the children of one cell.
struct Children {
    host: Host,
    parent: String,
    /// What the parent may use, of which they use a part.
    account: Account,
    /// Ends all of them.
    kill: CancellationToken,
    /// How many were started, to tell them apart in the log.
    count: AtomicU64,
}

impl Children {
    fn new(host: Host, parent: String, account: Account) -> Self {
        Self { host, parent, account, kill: CancellationToken::new(), count: AtomicU64::new(0) }
    }
}

impl Spawn for Children {
    fn spawn(
        &self,
        wasm: Bytes,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> LocalBoxFuture<'static, Result<Child, SpawnError>> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}/{number}", self.parent);
        let host = self.host.clone();
        let kill = self.kill.child_token();
        let account = self.account.clone();
        async move {
            if wasm.len() > account.limits().size(Limit::Wasm) {
                return Err(account.reached(Limit::Wasm).into());
            }
            let admission = account.admit_child()?;
            // It may use what its parent may, of which it takes what it takes.
            let limits = account.limits().clone();
            let account = account.below(limits)?;
            let program = host.0.compiler.compile(wasm).await?;
            let (stdin, child_stdin) = pipe();
            let (child_stdout, stdout) = pipe();
            let (child_stderr, stderr) = pipe();
            let launch = Launch {
                program,
                args,
                env,
                stdin: Input::Pipe(child_stdin),
                stdout: Output { pipe: child_stdout, is_terminal: false, arrival: None },
                stderr: Output { pipe: child_stderr, is_terminal: false, arrival: None },
                files: None,
                network: None,
                account,
                rpc: None,
            };
            let process = host.start_with(name, launch, None, Some(admission), kill).await?;
            Ok(Child { process, stdin, stdout, stderr })
        }
        .boxed_local()
    }
}
