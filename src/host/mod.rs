//! What runs cells: worker threads, and the joining of a cell with its RPC connection and its capabilities.
//!
//! A [`Host`] is one per process. [`Host::start`] puts a cell on the thread that it is called on and, beside it, the
//! RPC system that serves the cell its `Host` capability; calls from a cell to its host cross no thread. The children
//! of a cell may be on other threads, of which there is one for each processor, and reach their parent through pipes. Where a
//! parent hands its child a capability, that stays on the parent's thread, and so does the RPC system that serves it to the
//! child; where no other thread is idle the child itself begins there, and moves to another if it computes for long.
//!
//! A cell's children end with it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::caps::{self, Bootstrap, Child, HostGrants, Loadable, Loaded, Order, Room, Spawn, SpawnError, Stream, Wasm};
use crate::cell::{
    self, Account, Admission, CHANNEL_BYTES, Channel, Compiler, ComponentError, ENDED_BYTES_MAX, Input, Launch,
    LimitReached, OVERRUN_FACTOR, Output, PIECE_BYTES, PipeReader, PipeWriter, Process, pipe,
};
use crate::dag::ContentPath;
use crate::grant::{Limit, Reach};
use crate::swarm::Swarm;
use crate::vat;
use crate::vfs::memory::MemoryTree;
use crate::vfs::{self, Mount, Namespace};

mod library;
mod output;
mod workers;

pub use library::{Library, LibraryError, Loading};
pub use output::{Drain, DrainError, output};
pub use workers::{STACK_BYTES, build_runtime};
use workers::{Workers, run_here};

/// The longest text that names content, in bytes: a CID, and as long a path as a cell may use.
const CONTENT_TEXT_BYTES_MAX: usize = vfs::PATH_BYTES_MAX + 256;

/// Runs the cells of this process; a cheap handle.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    compiler: Compiler,
    workers: Workers,
    swarm: Swarm,
    library: Arc<dyn Library>,
    /// The cells with their connections, as long as anything is left of them.
    cells: TaskTracker,
}

impl Host {
    /// Makes a host whose cells have children that are compiled by `compiler`, and come from `library` where they are named
    /// by a CID.
    pub fn new(compiler: Compiler, swarm: Swarm, library: Arc<dyn Library>) -> Self {
        Self(Arc::new(Inner { compiler, workers: Workers::default(), swarm, library, cells: TaskTracker::new() }))
    }

    /// Waits until nothing is left of any cell, nor of its connection, which is soon after its [`Process`] has ended. No cell
    /// should be started any more.
    pub async fn ended(&self) {
        self.0.cells.close();
        self.0.cells.wait().await;
    }

    /// Starts a cell on behalf of this machine's user, which has a `Host` with these grants, on this thread. It runs until it
    /// ends or `kill` is cancelled, whether or not anybody waits for it. `name` says in the log which cell it is.
    ///
    /// # Panics
    ///
    /// Called elsewhere than on a runtime that has [`build_runtime`] made.
    pub fn start(&self, name: String, launch: Launch, grants: HostGrants, kill: CancellationToken) -> Process {
        let network = launch.network.clone();
        let (process, job) = self.prepare(name, launch, grants, network, kill);
        run_here(job());
        process
    }

    /// Makes a cell with a `Host`, and what runs it with its RPC on one thread.
    fn prepare(
        &self,
        name: String,
        mut launch: Launch,
        grants: HostGrants,
        network: Option<Reach>,
        kill: CancellationToken,
    ) -> (Process, impl FnOnce() -> LocalBoxFuture<'static, ()> + Send + 'static) {
        let connection = Connection::new(self, &mut launch);
        let account = launch.account.clone();
        let (process, run) = cell::launch(launch, kill);
        let host = self.clone();
        let job = move || {
            async move {
                tracing::debug!(cell = name, "started");
                let children = Children::new(host.clone(), name.clone(), account.clone(), network, grants.fetch);
                // Ends the children when this future ends or is dropped.
                let _children_end = children.kill.clone().drop_guard();
                let executor = caps::executor(children);
                let bootstrap = caps::host(host.0.swarm.clone(), executor, grants, &account).client;
                connection.serve(name.clone(), bootstrap, run).await;
                tracing::debug!(cell = name, "ended");
            }
            .boxed_local()
        };
        (process, job)
    }

    /// Starts a child on a worker thread, on which it is also served its `Host`.
    ///
    /// # Errors
    ///
    /// There is no thread.
    async fn start_child(
        &self,
        name: String,
        launch: Launch,
        grants: HostGrants,
        network: Option<Reach>,
        kill: CancellationToken,
    ) -> Result<Process, SpawnError> {
        let (process, job) = self.prepare(name, launch, grants, network, kill);
        self.0.workers.submit(Box::new(job)).await.map_err(|_| SpawnError::ShuttingDown)?;
        Ok(process)
    }

    /// Starts a child which is served `bootstrap` by this thread. It runs at the same time as this thread where another has
    /// nothing to do, and else begins here, so that one that is soon done causes no thread to wait for another.
    fn start_beside(
        &self,
        name: String,
        mut launch: Launch,
        bootstrap: vat::Capability,
        kill: CancellationToken,
    ) -> Process {
        let connection = Connection::new(self, &mut launch);
        let (process, run) = cell::launch(launch, kill);
        let (ended, running) = (process.clone(), name.clone());
        let child = async move {
            tracing::debug!(cell = running, "started");
            run.await;
            tracing::debug!(cell = running, "ended");
        };
        if let Err(child) = self.0.workers.submit_to_idle(child.boxed()) {
            let host = self.clone();
            run_here(async move { host.0.workers.begin_here(child).await });
        }
        run_here(async move { connection.serve(name, bootstrap, async { drop(ended.wait().await) }).await });
        process
    }

    /// Reads a program, or an image's, that a cell with this account names.
    async fn find(&self, text: &str, account: &Account) -> Result<Loading, SpawnError> {
        if text.len() > CONTENT_TEXT_BYTES_MAX {
            return Err(SpawnError::ContentTextTooLong { limit: CONTENT_TEXT_BYTES_MAX });
        }
        let content: ContentPath = text.parse().map_err(|error| SpawnError::ContentText(Box::new(error)))?;
        let bytes_max = account.limits().number(Limit::Wasm).unwrap_or(u64::MAX);
        let found = self.0.library.load(content.clone(), account.clone(), bytes_max).await;
        found.map_err(|error| match error {
            LibraryError::TooLarge => account.reached(Limit::Wasm).into(),
            LibraryError::Limit(reached) => reached.into(),
            LibraryError::Kind => SpawnError::NoProgram { content: Box::new(content) },
            LibraryError::Failed(source) => SpawnError::Content { content: Box::new(content), source },
        })
    }
}

/// The host's side of a cell's RPC channel.
struct Connection {
    from_guest: PipeReader,
    to_guest: PipeWriter,
    limits: vat::Limits,
    ledger: Books,
    _token: TaskTrackerToken,
}

impl Connection {
    /// Makes the channel, and gives the cell its side.
    fn new(host: &Host, launch: &mut Launch) -> Self {
        let (to_guest, guest_input) = pipe(CHANNEL_BYTES);
        let (guest_output, from_guest) = pipe(CHANNEL_BYTES);
        launch.rpc = Some(Channel { input: guest_input, output: guest_output });
        // What becomes of a child is its parent's affair, who can have any number of them.
        let says_overrun = launch.admission.is_none();
        let ledger = Books { account: launch.account.clone(), says_overrun };
        let limits = vat::Limits::of(launch.account.limits());
        Self { from_guest, to_guest, limits, ledger, _token: host.0.cells.token() }
    }

    /// Serves `bootstrap` to the cell until `cell` is over.
    async fn serve(self, name: String, bootstrap: vat::Capability, cell: impl Future<Output = ()>) {
        let Self { from_guest, to_guest, limits, ledger, _token } = self;
        let vat = vat::serve(name.clone(), from_guest, to_guest, bootstrap, limits, ledger);
        run_with_vat(cell, vat, &name).await;
    }
}

/// What a cell's RPC costs is booked on its account.
struct Books {
    account: Account,
    /// Whether the user is told why a session is ended: the cell only finds that it is.
    says_overrun: bool,
}

impl vat::Ledger for Books {
    fn call(&self) {
        self.account.count_call();
    }

    fn hold(&self, bytes: usize) -> Result<(), vat::Overrun> {
        self.account.take_memory(bytes as u64).map_err(|LimitReached { limit, value }| vat::Overrun {
            limit,
            reason: format!("its messages and calls do not fit into {value}, the limit `{limit}`"),
        })
    }

    fn release(&self, bytes: usize) {
        self.account.give_memory(bytes as u64);
    }

    fn overrun(&self, vat::Overrun { limit, reason }: vat::Overrun) {
        if self.says_overrun {
            tracing::error!("the session with the guest was ended: {reason}; `--limit {limit}=…` sets another");
        }
    }
}

/// The room for the files of a cell that are its own: `/tmp`, gone when the cell is.
pub fn tmp(account: &Account) -> Mount {
    let directory = MemoryTree::within(Arc::new(account.clone())).root();
    Mount { path: "/tmp".into(), directory, links_may_leave: true }
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
    /// Whether the parent may load by CID.
    fetch: bool,
    /// Has one permit: a cell has one program loaded at a time, so that others have their turn, and so that what is held
    /// meanwhile is bounded.
    loading: Arc<Semaphore>,
    /// Ends all of them.
    kill: CancellationToken,
    /// How many were started, to tell them apart in the log.
    count: AtomicU64,
}

impl Children {
    fn new(host: Host, parent: String, account: Account, network: Option<Reach>, fetch: bool) -> Self {
        let (kill, loading) = (CancellationToken::new(), Arc::new(Semaphore::new(1)));
        Self { host, parent, account, network, fetch, loading, kill, count: AtomicU64::new(0) }
    }

    /// Checks that the parent may have such a child, and makes room for it.
    fn admit(&self, module: &Loaded, order: &Order) -> Result<(Account, Admission, Room), SpawnError> {
        let mut limits = self.account.limits().of_child(&order.limits)?;
        if let Some(image) = &module.image {
            limits.lower(image.limits(), &order.limits);
        }
        if let Some(asked) = &order.network
            && !self.network.as_ref().is_some_and(|own| own.covers(asked))
        {
            return Err(SpawnError::Network);
        }
        if order.fetch && !self.fetch {
            return Err(SpawnError::FetchBeyondParent);
        }
        let admission = self.account.admit_child()?;
        let pipes = |streams: &[Stream]| streams.iter().filter(|stream| **stream == Stream::Pipe).count() as u64;
        let stdio = limits.size(Limit::Stdio) as u64;
        let room = Room {
            status: self.account.hold(ENDED_BYTES_MAX)?,
            input: self.account.hold(pipes(&[order.stdin]) * stdio)?,
            outputs: self.account.hold(pipes(&[order.stdout, order.stderr]) * OVERRUN_FACTOR as u64 * stdio)?,
        };
        Ok((self.account.below(limits)?, admission, room))
    }
}

impl Spawn for Children {
    fn load(&self, what: Loadable) -> LocalBoxFuture<'static, Result<Loaded, SpawnError>> {
        let (account, host, may_fetch) = (self.account.clone(), self.host.clone(), self.fetch);
        let loading = self.loading.clone();
        async move {
            if matches!(what, Loadable::Content(_)) && !may_fetch {
                return Err(SpawnError::Fetch);
            }
            // Held until it is compiled.
            let _turn = loading.acquire().await.map_err(|_| SpawnError::ShuttingDown)?;
            // The room for the program is held until it is compiled as well.
            let Loading { wasm, image, room: _room } = match what {
                Loadable::Wasm(Wasm { size_bytes, .. }) if size_bytes > account.limits().size(Limit::Wasm) => {
                    return Err(account.reached(Limit::Wasm).into());
                }
                Loadable::Wasm(Wasm { size_bytes, copy }) => {
                    let room = account.hold(size_bytes as u64)?;
                    Loading { wasm: copy().map_err(SpawnError::Wasm)?, image: None, room }
                }
                Loadable::Content(text) => host.find(&text, &account).await?,
            };
            let program = host.0.compiler.compile_for(wasm, &account).await.map_err(|error| match error {
                ComponentError::Limit(reached) => SpawnError::Limit(reached),
                error => SpawnError::Component(error),
            })?;
            Ok(Loaded { program, image })
        }
        .boxed_local()
    }

    fn spawn(&self, module: Loaded, order: Order) -> LocalBoxFuture<'static, Result<Child, SpawnError>> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}/{number}", self.parent);
        let host = self.host.clone();
        let kill = self.kill.child_token();
        let admitted = self.admit(&module, &order);
        async move {
            let (account, admission, room) = admitted?;
            let root = match &module.image {
                Some(image) => Some(image.open(&account).await.map_err(SpawnError::Image)?),
                // Without room for any file it has none at all.
                None => account.limits().number(Limit::Tmp).is_none_or(|most| most > 0).then(vfs::empty_root),
            };
            let files = root.map(|root| Namespace::new(root, &[tmp(&account)]).expect("one mount at /tmp is in order"));
            let capacity = account.limits().size(Limit::Stdio);
            let (stdin, child_stdin) = input(order.stdin, capacity);
            let (child_stdout, stdout) = output_to(order.stdout, capacity);
            let (child_stderr, stderr) = output_to(order.stderr, capacity);
            let network = order.network.clone();
            let launch = Launch {
                program: module.program,
                arg0: cell::PROGRAM_NAME.into(),
                args: order.args,
                env: order.env,
                stdin: Input::Pipe(child_stdin),
                stdout: Output { pipe: child_stdout, is_terminal: false, arrival: None },
                stderr: Output { pipe: child_stderr, is_terminal: false, arrival: None },
                files,
                network: order.network,
                account,
                rpc: None,
                admission: Some(admission),
            };
            let process = match order.bootstrap {
                Bootstrap::Host => {
                    let grants = HostGrants { fetch: order.fetch, ..HostGrants::default() };
                    host.start_child(name, launch, grants, network, kill).await?
                }
                Bootstrap::Nothing => host.start_beside(name, launch, caps::nothing(), kill),
                Bootstrap::Given(capability) => host.start_beside(name, launch, capability, kill),
            };
            Ok(Child { process, stdin, stdout, stderr, room })
        }
        .boxed_local()
    }
}

/// What a child reads, and the other end of it.
fn input(stream: Stream, capacity: usize) -> (PipeWriter, PipeReader) {
    let (writer, reader) = pipe(capacity);
    if stream == Stream::Null {
        writer.close();
    }
    (writer, reader)
}

/// What a child writes to, and the other end of it.
fn output_to(stream: Stream, capacity: usize) -> (PipeWriter, PipeReader) {
    if stream == Stream::Pipe {
        return pipe(capacity);
    }
    // It is read as soon as it is written, so no more is booked for it than for any child.
    let (writer, reader) = pipe(capacity.min(PIECE_BYTES));
    tokio::task::spawn_local(async move { while !reader.read(PIECE_BYTES).await.is_empty() {} });
    let (_, at_its_end) = pipe(0);
    (writer, at_its_end)
}
