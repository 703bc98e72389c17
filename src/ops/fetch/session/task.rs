//! The task of a session: it owns the requests, and what waits for them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};

use super::super::keep::{Taken, Want};
use super::super::line::{Line, leading_blocks, sent_bytes, ticks};
use super::super::pool::Pool;
use super::super::schedule::{JobId, Message};
use super::super::walk::check_supported;
use super::super::{DagRequest, FetchError, FetchEvent, Missing, Payer, blocking};
use super::Shared;
use crate::blockstore::StoreError;
use crate::cell::LimitReached;
use crate::dag::{Block, Cid, Scope};

/// How many wishes are looked at in one go.
const BATCH: usize = 16;

/// How many blocks are expected at once and waited for by nobody. With what one reader expects, 8 MiB, this is some readers.
const EXPECTED_MAX: usize = 64;

/// For how long a block that could not be had is not asked for again, so that a guest that tries again and again does not
/// make this machine ask again and again.
const LOST_FOR: Duration = Duration::from_secs(5);

/// How many such blocks are remembered. When there are more, all are forgotten.
const LOST_MAX: usize = 1024;

/// How many of them are told of. A guest may look for any number.
const LOST_SAID_MAX: usize = 32;

/// How many limits that were reached are told of; each cell may have one of its own.
const LIMITS_SAID_MAX: usize = 8;

type Reply = oneshot::Sender<Result<Block, Arc<FetchError>>>;

/// What the task is told.
pub(super) enum Command {
    /// Somebody waits for a block.
    Block { cid: Cid, payer: Arc<Payer>, reply: Reply },
    /// Somebody wants a block if it is here.
    Look { cid: Cid, reply: oneshot::Sender<Option<Block>> },
    /// Somebody will probably want these, while the payer lives.
    Expect { cids: Vec<Cid>, payer: Weak<Payer> },
    /// All ends.
    Close { reply: oneshot::Sender<()> },
}

/// A block that is being asked for.
struct Waiting {
    waiters: Vec<Waiter>,
    /// For whom it was expected, if nobody waited for it at first.
    expected_by: Option<Weak<Payer>>,
    deadline: Instant,
}

struct Waiter {
    payer: Arc<Payer>,
    reply: Reply,
}

pub(super) struct Task {
    shared: Arc<Shared>,
    line: Line,
    commands: mpsc::Receiver<Command>,
    /// `None` only while it is used on another thread.
    pool: Option<Pool>,
    waiting: HashMap<Cid, Waiting>,
    /// Blocks that could not be had, and when that was.
    lost: HashMap<Cid, (Instant, Arc<FetchError>)>,
    lost_said: usize,
    limits_said: Vec<LimitReached>,
    has_said_not_kept: bool,
}

impl Task {
    /// Does what it is told until it is told to end, or nobody is left to tell it anything.
    pub(super) async fn run(shared: Arc<Shared>, line: Option<Line>, mut commands: mpsc::Receiver<Command>) {
        let setup = shared.clone();
        let setup = blocking(move || {
            let line = line.map_or_else(|| setup.line(), Ok)?;
            Ok((line, Pool::new(setup.store()?)))
        });
        match setup.await.and_then(|setup| setup) {
            Ok((line, pool)) => {
                let task = Self {
                    shared,
                    line,
                    commands,
                    pool: Some(pool),
                    waiting: HashMap::new(),
                    lost: HashMap::new(),
                    lost_said: 0,
                    limits_said: Vec::new(),
                    has_said_not_kept: false,
                };
                task.serve().await;
            }
            Err(error) => {
                let error = Arc::new(error);
                while let Some(command) = commands.recv().await {
                    if let Command::Block { cid, reply, .. } = command {
                        shared.say(FetchEvent::Lost { cid: &cid, error: &error });
                        let _ = reply.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    async fn serve(mut self) {
        let mut ticks = ticks();
        loop {
            self.ask();
            let is_busy = !self.waiting.is_empty() || self.pool.as_ref().is_some_and(Pool::is_open);
            tokio::select! {
                command = self.commands.recv() => {
                    let Some(command) = command else { break };
                    if self.obey(command).await.is_break() {
                        return;
                    }
                }
                answers = self.line.answers() => self.take(answers).await,
                _ = ticks.tick(), if is_busy => self.look_after().await,
            }
        }
        self.commit().await;
    }

    /// Makes the requests that can be made, and gives up what nobody has.
    fn ask(&mut self) {
        loop {
            self.line.schedule.dispatch();
            let missing = self.line.schedule.take_missing();
            if missing.is_empty() {
                return;
            }
            for cid in missing {
                let request = DagRequest { root: cid, path: String::new(), scope: Scope::Block };
                let sources = self.line.schedule.reasons();
                let missing = Missing { request, missing: vec![cid], has_more: false, sources };
                self.lose(&cid, FetchError::Missing(Box::new(missing)));
            }
        }
    }

    /// Does what it is told, with what else it was told meanwhile.
    async fn obey(&mut self, command: Command) -> ControlFlow<()> {
        let mut batch = vec![command];
        while batch.len() < BATCH
            && let Ok(next) = self.commands.try_recv()
        {
            batch.push(next);
        }
        let (mut wanted, mut expected) = (Vec::new(), Vec::new());
        for command in &batch {
            match command {
                Command::Block { cid, .. } | Command::Look { cid, .. } => wanted.push(*cid),
                Command::Expect { cids, .. } => expected.extend(cids),
                Command::Close { .. } => {}
            }
        }
        let looked = self.with_pool(move |pool| (pool.read(wanted), pool.here(expected))).await;
        let (found, here) = looked.unwrap_or_default();
        let share = |(cid, block): (Cid, Result<Block, StoreError>)| (cid, block.map_err(Arc::<FetchError>::from));
        let found: HashMap<Cid, Result<Block, Arc<FetchError>>> = found.into_iter().map(share).collect();
        for command in batch {
            match command {
                Command::Block { cid, payer, reply } => match found.get(&cid) {
                    Some(block) => drop(reply.send(block.clone())),
                    None => self.wish(cid, payer, reply),
                },
                Command::Look { cid, reply } => {
                    drop(reply.send(found.get(&cid).and_then(|block| block.clone().ok())));
                }
                Command::Expect { cids, payer } => {
                    // The last that is noted is the last that is asked for.
                    for cid in cids.into_iter().filter(|cid| !here.contains(cid)) {
                        self.expect(cid, &payer);
                    }
                }
                Command::Close { reply } => {
                    self.commit().await;
                    let _ = reply.send(());
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Has a block asked for that somebody waits for.
    fn wish(&mut self, cid: Cid, payer: Arc<Payer>, reply: Reply) {
        if let Err(error) = self.check(&cid, &payer) {
            let _ = reply.send(Err(error));
            return;
        }
        let deadline = Instant::now() + self.shared.options.patience;
        let waiter = Waiter { payer, reply };
        match self.waiting.entry(cid) {
            Entry::Occupied(mut waiting) => {
                let waiting = waiting.get_mut();
                if waiting.waiters.is_empty() {
                    waiting.deadline = deadline;
                    self.line.schedule.hasten(&cid);
                }
                waiting.waiters.push(waiter);
            }
            Entry::Vacant(free) => {
                free.insert(Waiting { waiters: vec![waiter], expected_by: None, deadline });
                let names = self.line.schedule.names();
                if !names.is_empty() {
                    self.shared.say(FetchEvent::Asking { sources: &names });
                }
                self.line.schedule.revive();
                self.line.schedule.want(vec![Want { cid, whole: None, origin: None }]);
            }
        }
    }

    /// Whether a block may be asked for, and may be had.
    fn check(&mut self, cid: &Cid, payer: &Payer) -> Result<(), Arc<FetchError>> {
        if let Some((when, error)) = self.lost.get(cid)
            && when.elapsed() < LOST_FOR
        {
            return Err(error.clone());
        }
        if let Err(reached) = payer.check() {
            self.say_limit(&reached);
            return Err(FetchError::Limit(reached).into());
        }
        let limit = self.shared.options.limits.bytes;
        if self.shared.fetched.load(Ordering::Relaxed) >= limit {
            let error = FetchError::TooManyBytes { limit };
            self.say_lost(cid, &error);
            return Err(error.into());
        }
        Ok(check_supported(cid)?)
    }

    fn expect(&mut self, cid: Cid, payer: &Weak<Payer>) {
        let may_pay = payer.upgrade().is_some_and(|payer| payer.check().is_ok());
        let expected = self.waiting.values().filter(|waiting| waiting.waiters.is_empty()).count();
        let is_lost = self.lost.get(&cid).is_some_and(|(when, _)| when.elapsed() < LOST_FOR);
        if !may_pay || is_lost || expected >= EXPECTED_MAX || check_supported(&cid).is_err() {
            return;
        }
        if let Entry::Vacant(free) = self.waiting.entry(cid) {
            let deadline = Instant::now() + self.shared.options.patience;
            free.insert(Waiting { waiters: Vec::new(), expected_by: Some(payer.clone()), deadline });
            self.line.schedule.expect(cid);
        }
    }

    async fn take(&mut self, answers: Vec<(JobId, Message)>) {
        let mut answers = answers.into_iter().peekable();
        while answers.peek().is_some() {
            let blocks = leading_blocks(&mut answers);
            if !blocks.is_empty() {
                self.arrive(blocks).await;
            }
            if let Some((job, Message::Ended(error))) = answers.next()
                && let Some(bad) = self.line.schedule.ended(job, error)
            {
                self.shared.say(FetchEvent::BadSource { source: &bad.source, error: &bad.error });
            }
        }
    }

    /// Books, stores, and gives out blocks that were asked for.
    async fn arrive(&mut self, blocks: Vec<(JobId, Block)>) {
        let (mut kept, mut given) = (Vec::new(), Vec::new());
        for (job, block) in blocks {
            let cid = *block.cid();
            let Some(waiting) = self.waiting.remove(&cid) else {
                self.line.schedule.delivered(job, sent_bytes(&block), Taken::Here);
                continue;
            };
            self.line.schedule.delivered(job, sent_bytes(&block), Taken::Wanted(cid));
            if let Some(takers) = self.pay(&cid, waiting, block.data().len() as u64) {
                given.extend(takers.into_iter().map(|reply| (reply, block.clone())));
                kept.push(block);
            }
        }
        if !kept.is_empty() {
            let stored = self.with_pool(move |pool| pool.put(&kept)).await;
            self.say_if_not_kept(stored);
        }
        for (reply, block) in given {
            let _ = reply.send(Ok(block));
        }
    }

    /// Books so many bytes; gives those who may have the block, and tells the others why not. `None` if it is of no use to
    /// anybody.
    fn pay(&mut self, cid: &Cid, waiting: Waiting, bytes: u64) -> Option<Vec<Reply>> {
        let Waiting { waiters, expected_by, .. } = waiting;
        let fetched = self.shared.fetched.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let limit = self.shared.options.limits.bytes;
        if fetched > limit {
            let error = Arc::new(FetchError::TooManyBytes { limit });
            self.say_lost(cid, &error);
            waiters.into_iter().for_each(|waiter| drop(waiter.reply.send(Err(error.clone()))));
            return None;
        }
        // Who wanted it first pays, and the others have it for nothing: it came once.
        let first = waiters.first().map(|waiter| waiter.payer.clone());
        let payer = first.or_else(|| expected_by.and_then(|payer| payer.upgrade()));
        let reached = payer.as_ref().and_then(|payer| payer.count(bytes).err());
        let mut takers = Vec::new();
        for waiter in waiters {
            match &reached {
                Some(reached) if payer.as_ref().is_some_and(|payer| Arc::ptr_eq(payer, &waiter.payer)) => {
                    let _ = waiter.reply.send(Err(FetchError::Limit(*reached).into()));
                }
                _ => takers.push(waiter.reply),
            }
        }
        if let Some(reached) = &reached {
            self.say_limit(reached);
        }
        (reached.is_none() || !takers.is_empty()).then_some(takers)
    }

    async fn look_after(&mut self) {
        self.line.schedule.look_after();
        let now = Instant::now();
        let (mut late, mut unwanted) = (Vec::new(), Vec::new());
        for (cid, waiting) in &mut self.waiting {
            waiting.waiters.retain(|waiter| !waiter.reply.is_closed());
            let is_expected = waiting.expected_by.as_ref().is_some_and(|payer| payer.strong_count() > 0);
            if waiting.waiters.is_empty() && !is_expected {
                unwanted.push(*cid);
            } else if waiting.deadline <= now {
                late.push(*cid);
            }
        }
        for cid in unwanted {
            self.waiting.remove(&cid);
            self.line.schedule.forget(&cid, None);
        }
        for cid in late {
            let patience = self.shared.options.patience;
            let why = format!("it did not answer within {} s", patience.as_secs_f32());
            self.line.schedule.forget(&cid, Some(&why));
            let sources = self.line.schedule.reasons();
            self.lose(&cid, FetchError::Late { cid: Box::new(cid), patience, sources });
        }
        if self.pool.as_ref().is_some_and(Pool::is_due) {
            self.commit().await;
        }
    }

    /// Tells those who wait for a block that it cannot be had.
    fn lose(&mut self, cid: &Cid, error: FetchError) {
        let Some(waiting) = self.waiting.remove(cid) else { return };
        if waiting.waiters.is_empty() {
            return;
        }
        let error = Arc::new(error);
        self.say_lost(cid, &error);
        if self.lost.len() >= LOST_MAX {
            self.lost.clear();
        }
        self.lost.insert(*cid, (Instant::now(), error.clone()));
        for waiter in waiting.waiters {
            let _ = waiter.reply.send(Err(error.clone()));
        }
    }

    fn say_lost(&mut self, cid: &Cid, error: &FetchError) {
        if self.lost_said < LOST_SAID_MAX {
            self.lost_said += 1;
            self.shared.say(FetchEvent::Lost { cid, error });
        }
    }

    fn say_limit(&mut self, reached: &LimitReached) {
        if self.limits_said.len() < LIMITS_SAID_MAX && !self.limits_said.contains(reached) {
            self.limits_said.push(*reached);
            self.shared.say(FetchEvent::LimitReached(reached));
        }
    }

    fn say_if_not_kept(&mut self, stored: Option<Result<(), StoreError>>) {
        if let Some(Err(error)) = stored
            && !std::mem::replace(&mut self.has_said_not_kept, true)
        {
            self.shared.say(FetchEvent::NotKept(&error));
        }
    }

    async fn commit(&mut self) {
        let committed = self.with_pool(Pool::commit).await;
        self.say_if_not_kept(committed);
    }

    /// Does something with the pool where that may wait for a disk. `None` only if it panicked, or the runtime ends.
    async fn with_pool<T: Send + 'static>(&mut self, work: impl FnOnce(&mut Pool) -> T + Send + 'static) -> Option<T> {
        let mut pool = self.pool.take()?;
        let (pool, done) = blocking(move || {
            let done = work(&mut pool);
            (pool, done)
        })
        .await
        .ok()?;
        self.shared.has_uncommitted.store(pool.is_open(), Ordering::Relaxed);
        self.pool = Some(pool);
        Some(done)
    }
}
