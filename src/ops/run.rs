//! Running an image.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::compile::{CompileEvent, with_events};
use super::fetch::Session;
use super::image::{self, ImageSource};
use super::library::ContentLibrary;
use super::mounts;
use super::request;
use super::usage::{Gauge, Usage};
use crate::caps::HostGrants;
use crate::cell::{
    self, Account, Compiler, CompilerOptions, ComponentError, Engine, EngineError, EngineOptions, ExitStatus, Input,
    InputFile, Launch, LimitReached, NetworkRefused,
};
use crate::escape;
use crate::grant::{Grant, Grants, Limit, Limits, REQUEST_PATH, RequestError};
use crate::host::{self, DrainError, Host};
use crate::swarm::{self, Started, SwarmConfig, SwarmError};
use crate::terminal::Terminal;
use crate::vfs::{Directory, MountError, Namespace};
use crate::wasm_binary::SIZE_BYTES_MAX;
use crate::wetfile::MAIN_PATH;

/// How long the node leaves the processors to the guest before it starts by itself. Nobody can reach it until then, but
/// nobody can know of it either, unless it has a port and an identity that are always the same.
const NODE_AFTER: Duration = Duration::from_millis(20);

/// How long what is left of the cells may take to go. It takes microseconds, or a tick where a child computes.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How long the output of a guest that was ended may take to arrive.
const OUTPUT_OF_ENDED: Duration = Duration::from_secs(1);

/// What to run and with what.
#[derive(Debug)]
pub struct RunOptions {
    /// Where the image is.
    pub image: ImageSource,
    /// What messages call it: the path of the folder, or the content.
    pub name: PathBuf,
    /// The guest's first argument, by which some programs tell what they are to do; without one it is that of every cell.
    pub arg0: Option<String>,
    /// The guest's other arguments.
    pub args: Vec<String>,
    /// The guest's environment.
    pub env: Vec<(String, String)>,
    /// What the guest may do beyond the minimum.
    pub grants: Grants,
    /// How much it may use, where that is said. What its image asks for counts where nothing is said.
    pub limits: Limits,
    /// The folders in which ww keeps what it believes. No guest may change them.
    pub own_folders: Vec<PathBuf>,
    /// Debug information in the engine, files and lines in trap backtraces.
    pub debug: bool,
    /// How the guest and its children are compiled.
    pub compiler: CompilerOptions,
    /// Where content comes from that is loaded by its CID, if that is granted.
    pub content: Session,
    /// The node's identity and where it listens.
    pub swarm: SwarmConfig,
    /// The guest's standard input.
    pub stdin: OwnedFd,
    /// The guest's standard output.
    pub stdout: OwnedFd,
    /// The guest's standard error.
    pub stderr: OwnedFd,
    /// This very program, which also is what puts the terminal back if this process is killed: see
    /// [`watcher`](crate::terminal::watcher).
    pub program: PathBuf,
}

/// How a run ended.
#[derive(Debug)]
pub enum RunOutcome<S> {
    /// The guest ended.
    Ended(ExitStatus),
    /// The run was stopped from outside, by this.
    Stopped(S),
}

/// A run that is over.
#[derive(Debug)]
pub struct Ran<S> {
    /// How it ended.
    pub outcome: RunOutcome<S>,
    /// What it has used; `None` if it was stopped before the guest started.
    pub usage: Option<Usage>,
    /// What the guest was refused of the network.
    pub network_refused: NetworkRefused,
    /// The limit that has kept the guest from writing to `/tmp`, which its own error does not name.
    pub tmp_refused: Option<LimitReached>,
    /// What is still there of it.
    pub remains: Remains,
}

/// The engine, the compiled code and the threads of a run that is over. They go when this is dropped; a process that ends
/// anyway is sooner done when it forgets them.
#[derive(Default)]
pub struct Remains(#[expect(dead_code, reason = "is dropped or forgotten")] Option<Host>);

impl fmt::Debug for Remains {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Remains").finish_non_exhaustive()
    }
}

/// Why an image could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is nothing at the path.
    #[error("there is no image at {}", escape::path(.path))]
    NoImage {
        /// The path as given.
        path: PathBuf,
    },
    /// The path is not a folder.
    #[error("{} is not an image: an image is a folder that has {MAIN_PATH}", escape::path(.path))]
    NotAnImage {
        /// The path as given.
        path: PathBuf,
    },
    /// The folder has no program.
    #[error("the image {} has no {MAIN_PATH}", escape::path(.image))]
    NoProgram {
        /// The image's folder.
        image: PathBuf,
    },
    /// The program is a link to something that is not there.
    #[error("{} is a link to {}, which is not there", escape::path(.path), escape::path(.target))]
    DanglingLink {
        /// The link.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// The program is a folder, a device, or something else without content.
    #[error("{} is not a file", escape::path(.path))]
    NotAFile {
        /// The program's path.
        path: PathBuf,
    },
    /// The program is too large.
    #[error("{} has {size} bytes, and at most {SIZE_BYTES_MAX} are run", escape::path(.path))]
    TooLarge {
        /// The program's path.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// Something could not be read.
    #[error("failed to read {}", escape::path(.path))]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program cannot be run.
    #[error("{} cannot be run", escape::path(.path))]
    Component {
        /// The program's path.
        path: PathBuf,
        /// Why.
        source: ComponentError,
    },
    /// The node could not be started.
    #[error("failed to start the libp2p node")]
    Swarm(#[from] SwarmError),
    /// The engine could not be made.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A thread could not be started.
    #[error("failed to start a thread")]
    Thread(#[source] io::Error),
    /// What the guest wrote went nowhere, whatever it was that it has to say.
    #[error("failed to start the thread that writes the guest's output")]
    OutputThread(#[source] io::Error),
    /// The guest succeeded, and not all of its output could be written.
    #[error("failed to write the guest's output")]
    Output(#[source] io::Error),
    /// A folder that is to be mounted cannot be opened.
    #[error("failed to open the folder {} that is to be mounted", escape::path(.path))]
    MountSource {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder that the guest could change has files of ww itself, or is in a folder of them.
    #[error("the folder {} cannot be mounted to be changed, since ww keeps its own files in {}", escape::path(.path), escape::path(.own))]
    MountOwn {
        /// The folder.
        path: PathBuf,
        /// Where ww has its files.
        own: PathBuf,
    },
    /// What the image asks for cannot be read.
    #[error("the image's {REQUEST_PATH} cannot be used")]
    Request {
        /// What is wrong with it.
        source: RequestError,
    },
    /// Trees cannot be mounted together.
    #[error("failed to mount")]
    Mount(#[from] MountError),
    /// The terminal could not be given to the guest.
    #[error("failed to take hold of the terminal")]
    Terminal(#[source] io::Error),
}

/// Something that whoever runs an image should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEvent {
    /// The image asks for what it is not given: the flags that would give it, each with its value after it. Foreign text.
    Lacking(Vec<String>),
    /// The node has another port than [`Listen::Port`](crate::swarm::Listen::Port) named, which was busy.
    OtherPort(u16),
    /// Its program is being compiled, or was.
    Compiling(CompileEvent),
    /// Where the libp2p node can be reached: the addresses, sorted, each ending in `/p2p/<id>`. The guest runs already.
    Listening(Vec<String>),
}

/// Runs an image in a cell of its own, with a libp2p node beside it, until the guest ends or `stop` is ready. `tell`
/// is told what there is to know.
///
/// Called on a runtime that [`host::build_runtime`] has made: the cell runs on its thread.
///
/// When the guest ends by itself, everything that it wrote has arrived where it was to go before this returns. When it
/// is stopped, this returns at once, and the guest may still be on its way out.
///
/// # Errors
///
/// The image cannot be run; nothing is left running then.
pub async fn run<S>(
    options: RunOptions,
    tell: &dyn Fn(RunEvent),
    stop: impl Future<Output = S>,
) -> Result<Ran<S>, RunError> {
    let gauge = Gauge::default();
    let kill = CancellationToken::new();
    let _kill_on_return = kill.clone().drop_guard();
    let remains = Cell::default();
    let outcome = tokio::select! {
        biased;
        stopped = stop => RunOutcome::Stopped(stopped),
        status = run_to_end(options, tell, kill, &gauge, &remains) => RunOutcome::Ended(status?),
    };
    let (usage, network_refused, tmp_refused) = (gauge.usage(), gauge.network_refused(), gauge.tmp_refused());
    Ok(Ran { outcome, usage, network_refused, tmp_refused, remains: remains.take() })
}

async fn run_to_end(
    options: RunOptions,
    tell: &dyn Fn(RunEvent),
    kill: CancellationToken,
    gauge: &Gauge,
    remains: &Cell<Remains>,
) -> Result<ExitStatus, RunError> {
    let terminal = terminal(&options).map_err(RunError::Terminal)?;
    let payer = options.image.payer();
    let root = image::open(options.image, &options.name).await?;
    let wasm = image::read_program(&root, &options.name, SIZE_BYTES_MAX).await?;
    let request = image::read_request(&root, &options.name).await?;
    let (limits, refused) = request.limits.grant(&options.limits);
    let mut lacking = options.grants.lacking(&request.grants);
    // A variable may also have been set to something.
    lacking.retain(|grant| !matches!(grant, Grant::Env(name) if options.env.iter().any(|(set, _)| set == name)));
    let lacking = request::flags(&lacking, &refused);
    if !lacking.is_empty() {
        tell(RunEvent::Lacking(lacking));
    }
    let capacity = limits.size(Limit::Stdio);
    let account = Account::new(limits);
    if let Some(payer) = payer {
        payer.becomes(&account);
    }
    let files = files(root, &options.grants, &account, &options.own_folders).await?;
    let engine = Engine::new(EngineOptions { debug: options.debug })?;
    let compiler = Compiler::with_options(engine, Handle::current(), options.compiler);
    let failed = |source| RunError::Component { path: options.name.join(MAIN_PATH), source };
    // The node's work goes on beside the guest, and a guest that ends at once leaves nothing of it to be waited for.
    let (swarm, mut started) = swarm::start_later(options.swarm, NODE_AFTER)?;
    if let Some(port) = swarm.port_taken_instead() {
        tell(RunEvent::OtherPort(port));
    }
    let program = match compiler.find_own(&wasm, &account) {
        Some(program) => program.map_err(failed)?,
        None => {
            let compiling = compiler.compile_own(wasm, &account);
            with_events(compiling, &|event| tell(RunEvent::Compiling(event))).await.map_err(failed)?
        }
    };
    let library = Arc::new(ContentLibrary::new(options.content));
    let host = Host::new(compiler, swarm.clone(), library);
    remains.set(Remains(Some(host.clone())));
    // Puts it back however this ends, but after what the guest wrote has arrived.
    let _held = terminal.clone().map(Terminal::hold).transpose().map_err(RunError::Terminal)?;
    let (stdout, stdout_drain) = host::output(options.stdout, capacity, terminal.as_ref());
    let (stderr, stderr_drain) = host::output(options.stderr, capacity, terminal.as_ref());
    gauge.begin(account.clone(), stdout.arrival.clone(), stderr.arrival.clone());
    let launch = Launch {
        program,
        arg0: options.arg0.unwrap_or_else(|| cell::PROGRAM_NAME.into()),
        args: options.args,
        env: options.env,
        stdin: Input::File(InputFile::new(options.stdin, terminal.is_some())),
        stdout,
        stderr,
        files: Some(files),
        network: options.grants.network(),
        account,
        rpc: None,
        admission: None,
    };
    let grants = HostGrants { connect: options.grants.connect(), fetch: options.grants.fetch(), terminal };
    let process = host.start("root".into(), launch, grants, kill);
    let status = tokio::select! {
        biased;
        status = process.wait() => status,
        error = node_failed(&mut started, tell) => return Err(error.into()),
    };
    // It may have ended with the answer of a node that has just started.
    if let Ok(Ok(addrs)) = started.try_recv() {
        tell(RunEvent::Listening(addrs));
    }
    gauge.end();
    let arrived = async { stdout_drain.finished().await.and(stderr_drain.finished().await) };
    let arrived = match &status {
        ExitStatus::Exited(_) | ExitStatus::Trapped(_) => arrived.await,
        // It was to end, so it does, also where nobody reads what it wrote.
        ExitStatus::Killed | ExitStatus::LimitReached(_) => timeout(OUTPUT_OF_ENDED, arrived).await.unwrap_or(Ok(())),
    };
    // What the guest said last over RPC is still on its way into the log.
    let _ = timeout(LAST_WORDS, host.ended()).await;
    // Peers are told that the node goes; without it they would have to find out.
    swarm.shutdown().await;
    match (status, arrived) {
        (_, Err(DrainError::Thread(error))) => Err(RunError::OutputThread(error)),
        // A guest that failed has said so itself.
        (ExitStatus::Exited(0), Err(DrainError::Write(error))) => Err(RunError::Output(error)),
        (status, _) => Ok(status),
    }
}

/// The terminal of this run, if the guest may control it.
fn terminal(options: &RunOptions) -> io::Result<Option<Terminal>> {
    let streams = [options.stdin.as_fd(), options.stdout.as_fd(), options.stderr.as_fd()];
    options.grants.terminal().then(|| Terminal::new(streams, options.program.clone())).transpose()
}

/// Tells where the node can be reached, when it can. Returns only if it cannot.
async fn node_failed(started: &mut oneshot::Receiver<Started>, tell: &dyn Fn(RunEvent)) -> SwarmError {
    match started.await {
        Ok(Err(error)) => return error,
        Ok(Ok(addrs)) => tell(RunEvent::Listening(addrs)),
        // It ends, and so does the guest.
        Err(_) => {}
    }
    std::future::pending().await
}

/// What the guest sees as its files: the image, a `/tmp` of its own, and the folders that it was given.
async fn files(
    root: Arc<dyn Directory>,
    grants: &Grants,
    account: &Account,
    own_folders: &[PathBuf],
) -> Result<Namespace, RunError> {
    let mut mounts = Vec::new();
    // Who brings a whole file system of his own has a `/tmp` in it, or wants none.
    if grants.mounts().all(|mount| mount.target != "/") {
        mounts.push(host::tmp(account));
    }
    for mount in grants.mounts() {
        mounts.push(mounts::open(mount, own_folders)?);
    }
    // What is mounted as `/` is there instead of the image.
    if mounts.iter().all(|mount| mount.path != "/") {
        mounts::check_places(&root, &mounts).await?;
    }
    Ok(Namespace::new(root, &mounts)?)
}
