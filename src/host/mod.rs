//! What runs cells: worker threads, and the joining of a cell with its RPC connection and its capabilities.
//!
//! A [`Host`] is one per process. [`Host::start`] puts a cell on a worker thread and, beside it on the same thread, the
//! RPC system that serves the cell its `Host` capability; calls from a cell to its host cross no thread. The children
//! of a cell may be on other threads and reach their parent through pipes. Where a parent hands its child a capability,
//! that stays on the parent's thread, and so does the RPC system that serves it to the child.
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

use crate::caps::{self, Bootstrap, Child, Order, Spawn, SpawnError, Stream};
use crate::cell::{
    self, Account, Admission, CAPACITY, CallsHold, Channel, Compiler, Input, Launch, Output, PipeReader, PipeWriter,
    Process, Program, pipe,
};
use crate::grant::{Limit, Reach};
use crate::swarm::Swarm;
use crate::vat;

mod terminal;
mod workers;

pub use terminal::{Drain, output};
use workers::{Job, Workers};

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

    /// Starts a cell on behalf of this machine's user, which has a `Host` and may make the node connect as far as `connect`
    /// goes. It runs until it ends or `kill` is cancelled, whether or not anybody waits for it. `name` says in the log which
    /// cell it is.
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
        let first = First::Host { connect, network: launch.network.clone() };
        self.start_with(name, launch, first, None, kill).await
    }

    /// Starts a cell, and returns when a thread has been found for it. `admission` is held until it has ended. Its RPC is
    /// served where its first capability is: on its own thread, or on the one that this is called on.
    async fn start_with(
        &self,
        name: String,
        mut launch: Launch,
        first: First,
        admission: Option<Arc<Admission>>,
        kill: CancellationToken,
    ) -> Result<Process, SpawnError> {
        let (to_guest, guest_input) = pipe();
        let (guest_output, from_guest) = pipe();
        launch.rpc = Some(Channel { input: guest_input, output: guest_output });
        let account = launch.account.clone();
        let limits = vat::Limits::of(account.limits());
        let allowance = CallAllowance { account: account.clone(), held: account.hold_calls() };
        let (process, run) = cell::launch(launch, kill);
        let token = self.0.cells.token();
        match first {
            First::Host { connect, network } => {
                let host = self.clone();
                let job = move || {
                    async move {
                        let _token = token;
                        tracing::debug!(cell = name, "started");
                        let _admission = admission;
                        let children = Children::new(host.clone(), name.clone(), account.clone(), network);
                        // Ends the children when this future ends or is dropped.
                        let _children_end = children.kill.clone().drop_guard();
                        let executor = caps::executor(children);
                        let bootstrap = caps::host(host.0.swarm.clone(), executor, connect, &account).client;
                        let vat = vat::serve(name.clone(), from_guest, to_guest, bootstrap, limits, allowance);
                        run_with_vat(run, vat, &name).await;
                        tracing::debug!(cell = name, "ended");
                    }
                    .boxed_local()
                };
                self.submit(Box::new(job)).await?;
            }
            First::Other(bootstrap) => {
                let (ended, running) = (process.clone(), name.clone());
                let job = move || {
                    async move {
                        tracing::debug!(cell = running, "started");
                        let _admission = admission;
                        run.await;
                        tracing::debug!(cell = running, "ended");
                    }
                    .boxed_local()
                };
                self.submit(Box::new(job)).await?;
                let vat = vat::serve(name.clone(), from_guest, to_guest, bootstrap, limits, allowance);
                tokio::task::spawn_local(async move {
                    let _token = token;
                    run_with_vat(async { drop(ended.wait().await) }, vat, &name).await;
                });
            }
        }
        Ok(process)
    }

    async fn submit(&self, job: Job) -> Result<(), SpawnError> {
        self.0.workers.submit(job).await.map_err(|_| SpawnError::ShuttingDown)
    }
}

/// What a cell's calls may make this host hold.
struct CallAllowance {
    account: Account,
    held: CallsHold,
}

impl vat::Allowance for CallAllowance {
    fn called(&mut self) {
        self.account.count_call();
    }

    fn hold(&mut self, bytes: u64) -> Result<(), String> {
        self.held.add(bytes).map_err(|reached| reached.to_string())
    }

    fn release(&mut self, bytes: u64) {
        self.held.subtract(bytes);
    }
}

/// The first capability of a cell.
enum First {
    /// A `Host` that may make the node connect so far, for a cell that may itself connect so far.
    Host { connect: Option<Reach>, network: Option<Reach> },
    /// One that is there already, and cannot leave its thread.
    Other(vat::Capability),
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
    /// Where the parent may open connections to.
    network: Option<Reach>,
    /// Ends all of them.
    kill: CancellationToken,
    /// How many were started, to tell them apart in the log.
    count: AtomicU64,
}

impl Children {
    fn new(host: Host, parent: String, account: Account, network: Option<Reach>) -> Self {
        Self { host, parent, account, network, kill: CancellationToken::new(), count: AtomicU64::new(0) }
    }

    /// Checks that the parent may have such a child, and makes room for it.
    fn admit(&self, order: &Order) -> Result<(Account, Admission), SpawnError> {
        let limits = self.account.limits().of_child(&order.limits)?;
        if let Some(asked) = &order.network
            && !self.network.as_ref().is_some_and(|own| own.covers(asked))
        {
            return Err(SpawnError::Network);
        }
        let admission = self.account.admit_child()?;
        Ok((self.account.below(limits)?, admission))
    }
}

impl Spawn for Children {
    fn load(&self, wasm: Bytes) -> LocalBoxFuture<'static, Result<Program, SpawnError>> {
        let account = self.account.clone();
        let compiler = self.host.0.compiler.clone();
        async move {
            if wasm.len() > account.limits().size(Limit::Wasm) {
                return Err(account.reached(Limit::Wasm).into());
            }
            Ok(compiler.compile(wasm).await?)
        }
        .boxed_local()
    }

    fn spawn(&self, program: Program, order: Order) -> LocalBoxFuture<'static, Result<Child, SpawnError>> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}/{number}", self.parent);
        let host = self.host.clone();
        let kill = self.kill.child_token();
        let admitted = self.admit(&order);
        async move {
            let (account, admission) = admitted?;
            let (stdin, child_stdin) = input(order.stdin);
            let (child_stdout, stdout) = output_to(order.stdout);
            let (child_stderr, stderr) = output_to(order.stderr);
            let first = match order.bootstrap {
                Bootstrap::Host => First::Host { connect: None, network: order.network.clone() },
                Bootstrap::Nothing => First::Other(caps::nothing()),
                Bootstrap::Given(capability) => First::Other(capability),
            };
            let launch = Launch {
                program,
                args: order.args,
                env: order.env,
                stdin: Input::Pipe(child_stdin),
                stdout: Output { pipe: child_stdout, is_terminal: false, arrival: None },
                stderr: Output { pipe: child_stderr, is_terminal: false, arrival: None },
                files: None,
                network: order.network,
                account,
                rpc: None,
            };
            let admission = Arc::new(admission);
            let process = host.start_with(name, launch, first, Some(admission.clone()), kill).await?;
            Ok(Child { process, stdin, stdout, stderr, admission })
        }
        .boxed_local()
    }
}

/// What a child reads, and the other end of it.
fn input(stream: Stream) -> (PipeWriter, PipeReader) {
    let (writer, reader) = pipe();
    if stream == Stream::Null {
        writer.close();
    }
    (writer, reader)
}

/// What a child writes to, and the other end of it.
fn output_to(stream: Stream) -> (PipeWriter, PipeReader) {
    let (writer, reader) = pipe();
    if stream == Stream::Pipe {
        return (writer, reader);
    }
    tokio::task::spawn_local(async move {
        while !reader.read(CAPACITY).await.is_empty() {
            // A child that writes without a pause is not to keep this thread from all else.
            tokio::task::consume_budget().await;
        }
    });
    let (_, at_its_end) = pipe();
    (writer, at_its_end)
}
