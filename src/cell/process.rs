//! The life of one cell: from its parts to its exit status.

use std::future::{Future, ready};
use std::net::SocketAddr;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wasmtime::component::ResourceTable;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::account::{self, Account, Admission, LimitReached};
use super::limiter::{HOST_CALL_BYTES_MAX, Limiter};
use super::pipe::{PipeReader, PipeWriter};
use super::program::HeldProgram;
use super::stdio::{Input, Output};
use super::turn::Turn;
use crate::grant::{Limit, Reach};
use crate::vfs::Namespace;

/// A trap's text is cut to this many bytes; it quotes function names, which the guest chooses.
const TRAP_TEXT_SIZE_MAX: usize = 16 * 1024;

/// What the host keeps of a cell that has ended, at most, in bytes: how it ended, and what it has used.
pub const ENDED_BYTES_MAX: u64 = TRAP_TEXT_SIZE_MAX as u64 + 2048;

/// What a text costs the host besides its bytes.
const WORD_BYTES: u64 = 48;

/// How many random bytes a guest gets at once. Making them holds up everybody on the thread, and takes a millisecond for so
/// many; what asks for seeds and keys asks for a few.
const RANDOM_BYTES_MAX: u64 = 256 * 1024;

/// The first argument of a guest, unless it is to have another: the name it has in its image.
pub const PROGRAM_NAME: &str = "main.wasm";

/// Everything that a new cell is given. What is not in here, it does not have.
pub struct Launch {
    /// The compiled component, with the room for it.
    pub program: HeldProgram,
    /// The first argument, by which some programs tell what they are to do.
    pub arg0: String,
    /// The arguments after the program's name.
    pub args: Vec<String>,
    /// The environment, in order.
    pub env: Vec<(String, String)>,
    /// Standard input.
    pub stdin: Input,
    /// Standard output.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
    /// The files that the cell sees.
    pub files: Option<Namespace>,
    /// Where it may open connections to, if anywhere.
    pub network: Option<Reach>,
    /// What it uses and may use.
    pub account: Account,
    /// The cell's side of its RPC channel.
    pub rpc: Option<Channel>,
    /// Its room among the children of its parent, if it has one: free when it has ended.
    pub admission: Option<Admission>,
}

impl Launch {
    /// What the host keeps of texts for as long as the cell lives.
    fn words(&self) -> impl Iterator<Item = &String> {
        [&self.arg0].into_iter().chain(&self.args).chain(self.env.iter().flat_map(|(name, value)| [name, value]))
    }
}

/// A cell's side of its RPC channel.
#[derive(Debug)]
pub struct Channel {
    /// What the host sends.
    pub input: PipeReader,
    /// What the guest sends.
    pub output: PipeWriter,
}

/// How a cell ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Exited(u8),
    /// It trapped; the text is wasmtime's, with the backtrace. The guest's own names are in it, so escape it before it
    /// is shown.
    Trapped(String),
    /// It was killed.
    Killed,
    /// It was ended, since it used up what it may use of this.
    LimitReached(LimitReached),
}

/// A handle to a cell, running or ended. Clones are handles to the same cell; dropping them does nothing to it.
#[derive(Debug, Clone)]
pub struct Process {
    status: watch::Receiver<Option<ExitStatus>>,
    kill: CancellationToken,
    account: Account,
}

impl Process {
    /// Waits for the end. Any number of callers may wait, before and after it. Cancel safe.
    pub async fn wait(&self) -> ExitStatus {
        let mut status = self.status.clone();
        match status.wait_for(Option::is_some).await {
            Ok(status) => status.clone().unwrap_or(ExitStatus::Killed),
            // The sender went without a word: the thread that ran the cell is gone.
            Err(_) => ExitStatus::Killed,
        }
    }

    /// What it has used so far.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Ends the cell as soon as its thread gets to it, whether it computes or waits in a host call. [`Process::wait`]
    /// tells when it is gone.
    pub fn kill(&self) {
        self.kill.cancel();
    }
}

/// Makes a cell and the future that runs it to its end. The future is `Send`; it does nothing until it is polled, and
/// dropping it kills the cell.
///
/// The cell is killed when `kill` is cancelled.
pub fn launch(mut launch: Launch, kill: CancellationToken) -> (Process, impl Future<Output = ()> + Send + 'static) {
    let program = launch.program.clone();
    let kept_bytes = launch.words().map(|word| WORD_BYTES + word.len() as u64).sum();
    let admission = launch.admission.take();
    let wall_time = launch.account.limits().time(Limit::WallTime);
    let state = CellState::new(launch);
    let (sender, status) = watch::channel(None);
    let process = Process { status, kill: kill.clone(), account: state.limiter.account().clone() };
    let run = async move {
        let mut ending = Ending { status: sender, admission };
        // wasmtime-wasi 48 polls streams with its own wakers; once tokio's budget for the task is spent they would look
        // not ready for ever (wasmtime issues 14174 and 14265). Epochs make the cell yield instead.
        let cell = tokio::task::unconstrained(run(program, state, kept_bytes));
        let status = tokio::select! {
            biased;
            () = kill.cancelled() => ExitStatus::Killed,
            reached = account::wall_time(wall_time) => ExitStatus::LimitReached(reached),
            status = cell => status,
        };
        ending.set(status);
    };
    (process, run)
}

/// Says how the cell ended, also when its future is dropped.
struct Ending {
    status: watch::Sender<Option<ExitStatus>>,
    /// Its room among its parent's children, which who learns of its end finds free.
    admission: Option<Admission>,
}

impl Ending {
    fn set(&mut self, status: ExitStatus) {
        self.admission = None;
        self.status.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(status);
            first
        });
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.set(ExitStatus::Killed);
    }
}

async fn run(held: HeldProgram, mut state: CellState, kept_bytes: u64) -> ExitStatus {
    let program = held.program();
    let taken = state.limiter.keep(kept_bytes).and_then(|()| state.limiter.carry(program.weight()));
    if let Err(reached) = taken {
        return ExitStatus::LimitReached(reached);
    }
    let engine = program.engine();
    let _tick = engine.tick();
    let mut store = Store::new(&engine.wasmtime, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(HOST_CALL_BYTES_MAX);
    let account = store.data().limiter.account().clone();
    let handles = account.limits().size(Limit::Handles);
    store.set_max_component_handles(handles);
    store.data_mut().table.set_max_capacity(handles);
    store.set_epoch_deadline(1);
    let turn = Turn::default();
    let next = turn.clone();
    store.epoch_deadline_callback(move |store| match store.data().limiter.account().out_of_time() {
        Some(_) => Ok(UpdateDeadline::Interrupt),
        None => Ok(UpdateDeadline::YieldCustom(1, next.next())),
    });
    let ended = account.time(turn.run(async {
        let command = program.command().instantiate_async(&mut store).await?;
        command.wasi_cli_run().call_run(&mut store).await
    }));
    let ended = ended.await;
    let limiter = &store.data().limiter;
    match ended {
        Ok(Ok(())) => ExitStatus::Exited(0),
        Ok(Err(())) => ExitStatus::Exited(1),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            // WASI gives a code of 8 bits, or success and failure as 0 and 1.
            Some(I32Exit(code)) => ExitStatus::Exited(u8::try_from(*code).unwrap_or(1)),
            None => match account.out_of_time() {
                Some(reached) => ExitStatus::LimitReached(reached),
                None => ExitStatus::Trapped(trap_text(&error, limiter.refused(&error))),
            },
        },
    }
}

/// The error with its causes and the backtrace, cut to a bounded size; before it what may have led to it.
fn trap_text(error: &wasmtime::Error, refused: Option<String>) -> String {
    let mut text = match refused {
        Some(refused) => format!("{refused}\n{error:?}"),
        None => format!("{error:?}"),
    };
    if text.len() > TRAP_TEXT_SIZE_MAX {
        text.truncate(text.floor_char_boundary(TRAP_TEXT_SIZE_MAX));
        text.push('…');
    }
    // The names of functions can make it some megabytes long before.
    text.shrink_to_fit();
    text
}

/// Whether a cell with this reach may use a socket address so. It may not listen. It is asked about the address that is
/// dialled, after names were looked up.
fn may_use(reach: &Reach, address: SocketAddr, purpose: SocketAddrUse) -> bool {
    match purpose {
        // What the system does before it connects, or sends: any port, on all addresses.
        SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => address.ip().is_unspecified() && address.port() == 0,
        SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => reach.allows(address.ip()),
        _ => false,
    }
}

/// What a cell's store holds.
pub(super) struct CellState {
    wasi: WasiCtx,
    /// Whether it may open any connections.
    pub(super) has_network: bool,
    pub(super) table: ResourceTable,
    pub(super) files: Option<Namespace>,
    pub(super) limiter: Limiter,
    pub(super) rpc: Option<Channel>,
}

impl CellState {
    fn new(launch: Launch) -> Self {
        let mut wasi = WasiCtxBuilder::new();
        wasi.arg(&launch.arg0).args(&launch.args).envs(&launch.env);
        wasi.stdin(launch.stdin).stdout(launch.stdout).stderr(launch.stderr);
        wasi.max_random_size(RANDOM_BYTES_MAX);
        // Nothing is inherited and the network is off by default; saying so keeps it so.
        let has_network = launch.network.is_some();
        wasi.allow_tcp(has_network).allow_udp(has_network).allow_ip_name_lookup(has_network);
        if let Some(reach) = launch.network {
            let account = launch.account.clone();
            wasi.socket_addr_check(move |address, purpose| {
                let is_allowed = may_use(&reach, address, purpose);
                if !is_allowed && matches!(purpose, SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend) {
                    account.network_refusals().address(address.ip());
                }
                Box::pin(ready(is_allowed))
            });
        }
        Self {
            has_network,
            wasi: wasi.build(),
            table: ResourceTable::new(),
            files: launch.files,
            limiter: Limiter::new(launch.account),
            rpc: launch.rpc,
        }
    }
}

impl WasiView for CellState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
