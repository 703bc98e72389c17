//! Fetching blocks while they are read.

mod task;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use self::task::{Command, Task};
use super::keep::Keeper;
use super::line::Line;
use super::{DagRequest, FetchError, FetchEvent, FetchLimits, Fetched, Payer, Source, blocking};
use crate::blockstore::{Blockstore, Lease, StoreError, without_waiting};
use crate::cell::ROOTS_MAX;
use crate::dag::{Block, Cid};
use crate::remote::BoxError;

/// How many wishes wait to be looked at. Who has more waits.
const WISHES: usize = 64;

/// How many roots may be read at once. Each is an open file. No cell gets all of them ([`Account::hold_root`]).
///
/// [`Account::hold_root`]: crate::cell::Account::hold_root
const LEASES_MAX: usize = ROOTS_MAX as usize;

/// How many blocks [`Session::lease_at_once`] looks at, each for some 10 µs. Programs have a few.
const AT_ONCE_BLOCKS_MAX: u64 = 1024;

/// Opens or finds something when it is first needed. May block.
type Later<T> = Box<dyn Fn() -> Result<T, BoxError> + Send + Sync>;

/// What a session has to do with.
pub struct SessionOptions {
    /// Opens the store that blocks come to; when somebody first needs it. May block.
    pub store: Later<Arc<dyn Blockstore>>,
    /// Finds out whom to ask; when the first block is missing. May block.
    pub sources: Later<Vec<Arc<dyn Source>>>,
    /// What may be fetched altogether.
    pub limits: FetchLimits,
    /// Told what somebody should know.
    pub events: Arc<dyn Fn(FetchEvent<'_>) + Send + Sync>,
    /// How long a block is waited for.
    pub patience: Duration,
}

impl SessionOptions {
    /// Default of [`Self::patience`]: as long as a block of 2 MiB takes over a line of 50 KB/s, or as two attempts of a
    /// source that has 30 s to answer.
    pub const PATIENCE: Duration = Duration::from_secs(60);
}

/// A place where blocks can be read: from a store, and, where they are not there, from others, who are asked until the
/// session ends. A block that several want at once is asked for once. A cheap handle.
///
/// Nothing is started, opened or asked before it is needed: a session that finds everything in its store has neither a
/// task nor sources.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// Where the task is to run.
    runtime: Handle,
    /// What is known of the sources, until the task has it. Locked for a moment.
    line: Mutex<Option<Line>>,
    /// How the task is told what is wanted. Set when it starts.
    commands: OnceLock<mpsc::Sender<Command>>,
    /// The roots that are read. Locked for a moment.
    leases: Mutex<HashMap<Cid, Weak<Lease>>>,
}

/// What the task has in common with those who want something of it.
struct Shared {
    options: SessionOptions,
    /// Set when it is first needed.
    store: OnceLock<Arc<dyn Blockstore>>,
    /// How much came, in bytes.
    fetched: AtomicU64,
    /// Whether it was said who is asked.
    has_said_whom: AtomicBool,
    /// Whether there are blocks that are not committed yet. Written by the task.
    has_uncommitted: AtomicBool,
}

impl Shared {
    fn store(&self) -> Result<Arc<dyn Blockstore>, FetchError> {
        if let Some(store) = self.store.get() {
            return Ok(store.clone());
        }
        let opened = (self.options.store)().map_err(FetchError::Setup)?;
        Ok(self.store.get_or_init(|| opened).clone())
    }

    fn line(&self) -> Result<Line, FetchError> {
        (self.options.sources)().map(Line::new).map_err(FetchError::Setup)
    }

    fn say(&self, event: FetchEvent<'_>) {
        if !matches!(event, FetchEvent::Asking { .. }) || !self.has_said_whom.swap(true, Ordering::Relaxed) {
            (self.options.events)(event);
        }
    }
}

impl Session {
    /// Makes a session whose requests are made on `runtime`.
    pub fn new(options: SessionOptions, runtime: Handle) -> Self {
        let shared = Shared {
            options,
            store: OnceLock::new(),
            fetched: AtomicU64::new(0),
            has_said_whom: AtomicBool::new(false),
            has_uncommitted: AtomicBool::new(false),
        };
        Self(Arc::new(Inner {
            shared: Arc::new(shared),
            runtime,
            line: Mutex::default(),
            commands: OnceLock::new(),
            leases: Mutex::default(),
        }))
    }

    /// The store, which is opened if it is not yet.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub async fn store(&self) -> Result<Arc<dyn Blockstore>, FetchError> {
        if let Some(store) = self.opened_store() {
            return Ok(store);
        }
        let shared = self.0.shared.clone();
        blocking(move || shared.store()).await?
    }

    /// The store, if it is open.
    pub fn opened_store(&self) -> Option<Arc<dyn Blockstore>> {
        self.0.shared.store.get().cloned()
    }

    /// Keeps from being collected what is here, or comes, of what can be reached from a root.
    ///
    /// # Errors
    /// If the store cannot be used, or too many roots are read.
    pub async fn lease(&self, root: &Cid) -> Result<Arc<Lease>, FetchError> {
        if let Some(lease) = self.0.leased(root)? {
            return Ok(lease);
        }
        let (store, root) = (self.store().await?, *root);
        let lease = Arc::new(blocking(move || store.lease(&root)).await??);
        self.0.leases().insert(root, Arc::downgrade(&lease));
        Ok(lease)
    }

    /// What [`Session::bring`] and [`Session::lease`] of the root do together, on this thread and before anybody else uses the
    /// session, if nothing is missing and nobody has to be waited for. `None` where that is not so, and where anything fails,
    /// which those two find out again.
    ///
    /// To have another thread look takes longer than to look.
    pub fn lease_at_once(&self, request: DagRequest) -> Option<Arc<Lease>> {
        let (shared, root) = (&self.0.shared, request.root);
        if let Some(lease) = self.0.leased(&root).ok()? {
            return Some(lease);
        }
        let limits = FetchLimits { blocks: AT_ONCE_BLOCKS_MAX, ..shared.options.limits };
        let lease = without_waiting(|| {
            let store = shared.store().ok()?;
            // Nothing goes before it is leased.
            let (_keeper, wants) = Keeper::start(store.clone(), request, limits).ok()?;
            wants.is_empty().then(|| store.lease(&root).ok())?
        })?;
        let lease = Arc::new(lease);
        self.0.leases().insert(root, Arc::downgrade(&lease));
        Some(lease)
    }

    /// Sees to it that a part of a DAG is here, in as few requests as possible. To be used before blocks are asked for one by
    /// one: what it learns of the sources is then known.
    ///
    /// # Errors
    /// As [`fetch`](super::fetch()).
    pub async fn bring(&self, request: DagRequest) -> Result<Fetched, FetchError> {
        let shared = &self.0.shared;
        let (store, start, limits) = (self.store().await?, request.clone(), shared.options.limits);
        let rest = limits.bytes.saturating_sub(shared.fetched.load(Ordering::Relaxed));
        let left = FetchLimits { bytes: rest, ..limits };
        let (keeper, wants) = blocking(move || Keeper::start(store, start, left)).await??;
        if wants.is_empty() {
            let (end, hold) = keeper.into_end();
            let end = end.expect("nothing is wanted, so the path was followed to its end");
            return Ok(Fetched { end, blocks: 0, bytes: 0, hold });
        }
        let known = self.0.line().take();
        let mut line = match known {
            Some(line) => line,
            None => {
                let shared = shared.clone();
                blocking(move || shared.line()).await??
            }
        };
        let brought = line.bring(keeper, wants, request, &|event| shared.say(event)).await;
        *self.0.line() = Some(line);
        match brought {
            Ok(fetched) => {
                shared.fetched.fetch_add(fetched.bytes, Ordering::Relaxed);
                shared.say(FetchEvent::Brought { blocks: fetched.blocks });
                Ok(fetched)
            }
            Err(FetchError::TooManyBytes { .. }) => Err(FetchError::TooManyBytes { limit: limits.bytes }),
            Err(error) => Err(error),
        }
    }

    /// A block, from the store or from somebody else, on behalf of `payer`. Dropping the future ends the requests for it,
    /// unless others want it, too. Where those `beside` it are in the store is found out with it, for
    /// [`Session::block_at_once`].
    ///
    /// # Errors
    /// If it cannot be had within the session's patience, or not at all.
    pub async fn block(&self, cid: Cid, beside: Vec<Cid>, payer: &Arc<Payer>) -> Result<Block, Arc<FetchError>> {
        if let Some(block) = self.stored(cid, beside).await? {
            return Ok(block);
        }
        let (reply, answer) = oneshot::channel();
        let wish = Command::Block { cid, payer: payer.clone(), reply };
        self.commands().send(wish).await.map_err(|_| FetchError::Ended)?;
        answer.await.unwrap_or_else(|_| Err(FetchError::Ended.into()))
    }

    /// A block, if the store can give it without waiting for anything: see [`Blockstore::get_at_once`].
    pub fn block_at_once(&self, cid: &Cid) -> Option<Block> {
        self.0.shared.store.get()?.get_at_once(cid)
    }

    /// A block, if it is here. Nobody is asked.
    pub async fn block_if_here(&self, cid: Cid) -> Option<Block> {
        if let Ok(Some(block)) = self.stored(cid, Vec::new()).await {
            return Some(block);
        }
        let commands = self.0.commands.get().filter(|_| self.0.shared.has_uncommitted.load(Ordering::Relaxed))?;
        let (reply, answer) = oneshot::channel();
        commands.send(Command::Look { cid, reply }).await.ok()?;
        answer.await.ok()?
    }

    async fn stored(&self, cid: Cid, beside: Vec<Cid>) -> Result<Option<Block>, FetchError> {
        let store = self.store().await?;
        Ok(blocking(move || store.get_among(&cid, &beside)).await??)
    }

    /// Has blocks brought here, those that come first before the others, as long as `payer` lives and nobody waits for
    /// something else. Does nothing as long as nothing was missing.
    pub fn expect(&self, cids: Vec<Cid>, payer: &Arc<Payer>) {
        if let Some(commands) = self.0.commands.get() {
            // Where others want so much that there is no room, this would only be in their way.
            let _ = commands.try_send(Command::Expect { cids, payer: Arc::downgrade(payer) });
        }
    }

    /// Ends it, and makes what came last. What is still wanted fails.
    pub async fn close(&self) {
        if let Some(commands) = self.0.commands.get() {
            let (reply, closed) = oneshot::channel();
            if commands.send(Command::Close { reply }).await.is_ok() {
                let _ = closed.await;
            }
        }
    }

    fn commands(&self) -> &mpsc::Sender<Command> {
        self.0.commands.get_or_init(|| {
            let (sender, commands) = mpsc::channel(WISHES);
            let line = self.0.line().take();
            self.0.runtime.spawn(Task::run(self.0.shared.clone(), line, commands));
            sender
        })
    }
}

impl Inner {
    fn line(&self) -> MutexGuard<'_, Option<Line>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease of a root that is read already.
    fn leased(&self, root: &Cid) -> Result<Option<Arc<Lease>>, FetchError> {
        let mut leases = self.leases();
        leases.retain(|_, lease| lease.strong_count() > 0);
        match leases.get(root).and_then(Weak::upgrade) {
            None if leases.len() >= LEASES_MAX => Err(FetchError::TooManyRoots { limit: LEASES_MAX }),
            found => Ok(found),
        }
    }

    fn leases(&self) -> MutexGuard<'_, HashMap<Cid, Weak<Lease>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").finish_non_exhaustive()
    }
}

impl From<StoreError> for Arc<FetchError> {
    fn from(error: StoreError) -> Self {
        Arc::new(error.into())
    }
}
