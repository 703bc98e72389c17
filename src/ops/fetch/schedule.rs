//! Who is asked for what, and when.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::keep::Want;
use super::source::{BLOCKS_AT_ONCE, Fault, text};
use super::{DagRequest, FetchEvent, FetchLimits, HEDGE_AFTER, HEDGE_PROVEN_AFTER, MISSING_MAX, Missing, Source};
use crate::dag::{Block, Cid};
use crate::remote::{RemoteError, kubo};

/// How many DAGs a source is asked for at once: enough to hide that each request takes its time to begin.
const DAGS_AT_ONCE: usize = 4;

// Else connections would be made again and again.
const _: () = assert!(BLOCKS_AT_ONCE + DAGS_AT_ONCE <= kubo::CONNECTIONS_KEPT_MAX);

/// How many blocks wait to be stored, at most 2 MiB each.
pub(super) const QUEUE: usize = 16;

/// How often requests are looked at.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// A request that brings nothing wanted for so long is ended, also if it brings something else: longer than a source
/// takes to look for content, and than a block of 2 MiB takes on a slow line.
const STALLED_AFTER: Duration = Duration::from_secs(90);

/// How much may come in one request that is not wanted, in bytes: repeated blocks, and those that were here already.
const UNWANTED_BYTES_MAX: u64 = 256 << 20;

/// After so many failures without a success in between a source is not asked any more.
const FAILURES_MAX: u32 = 3;

pub(super) type JobId = u64;

/// What a request brings.
pub(super) enum Message {
    Block(Block),
    Ended(Option<RemoteError>),
}

/// A request that is being made.
struct Job {
    source: usize,
    target: Cid,
    is_dag: bool,
    started: Instant,
    /// When something wanted came last.
    progress: Instant,
    /// Whether something wanted came.
    has_delivered: bool,
    /// Whether another source is being asked for the same because this one was slow.
    has_rival: bool,
    unwanted_bytes: u64,
    task: AbortHandle,
}

/// A block that is needed.
struct Wanted {
    whole: Option<DagRequest>,
    /// The request that is expected to bring it along.
    covered_by: Option<JobId>,
    /// The sources that were asked for this very block in vain.
    tried: Vec<usize>,
    /// The requests for this very block.
    jobs: Vec<JobId>,
}

/// A source and how it does.
struct Asked {
    source: Arc<dyn Source>,
    name: String,
    is_alive: bool,
    /// Whether it is asked for DAGs.
    gives_dags: bool,
    dag_jobs: usize,
    block_jobs: usize,
    /// How often it failed since it last brought something.
    failures: u32,
    /// When it last brought something.
    delivered: Option<Instant>,
    /// Why it last did not give something.
    why: Option<String>,
}

pub(super) struct Schedule<'a> {
    limits: FetchLimits,
    events: &'a (dyn Fn(FetchEvent<'_>) + Sync),
    sources: Vec<Asked>,
    wanted: HashMap<Cid, Wanted>,
    /// Wanted blocks that nobody was asked for yet; also some that are not wanted any more. The next one is the last.
    free: Vec<Cid>,
    /// Blocks that nobody has.
    missing: Vec<Cid>,
    jobs: HashMap<JobId, Job>,
    next_job: JobId,
    /// The source that brought something last.
    favourite: usize,
    /// How much came until now.
    pub(super) stored_bytes: u64,
    /// All requests; they end when this is dropped.
    tasks: JoinSet<()>,
    sender: mpsc::Sender<(JobId, Message)>,
}

impl<'a> Schedule<'a> {
    pub(super) fn new(
        sources: Vec<Arc<dyn Source>>,
        limits: FetchLimits,
        events: &'a (dyn Fn(FetchEvent<'_>) + Sync),
        sender: mpsc::Sender<(JobId, Message)>,
    ) -> Self {
        let asked = |source: Arc<dyn Source>| Asked {
            name: source.name(),
            source,
            is_alive: true,
            gives_dags: true,
            dag_jobs: 0,
            block_jobs: 0,
            failures: 0,
            delivered: None,
            why: None,
        };
        Self {
            limits,
            events,
            sources: sources.into_iter().map(asked).collect(),
            wanted: HashMap::new(),
            free: Vec::new(),
            missing: Vec::new(),
            jobs: HashMap::new(),
            next_job: 0,
            favourite: 0,
            stored_bytes: 0,
            tasks: JoinSet::new(),
            sender,
        }
    }

    /// Notes blocks that are needed. `origins` are the requests that brought the blocks through which they were found.
    pub(super) fn want(&mut self, wants: Vec<Want>, origins: &[JobId]) {
        for Want { cid, whole, origin } in wants.into_iter().rev() {
            let origin = origins.get(origin).copied();
            let covered_by = origin.filter(|job| self.jobs.get(job).is_some_and(|job| job.is_dag));
            self.wanted.insert(cid, Wanted { whole, covered_by, tried: Vec::new(), jobs: Vec::new() });
            if covered_by.is_none() {
                self.free.push(cid);
            }
        }
    }

    /// Starts as many requests as may be made; `false` if there is nothing to wait for.
    pub(super) fn dispatch(&mut self) -> bool {
        while self.missing.len() <= MISSING_MAX
            && let Some(cid) = self.free.pop()
        {
            let Some(wanted) = self.wanted.get(&cid) else { continue };
            if wanted.covered_by.is_some() || !wanted.jobs.is_empty() {
                continue;
            }
            if self.candidates(&cid).is_empty() {
                self.wanted.remove(&cid);
                self.missing.push(cid);
            } else if !self.start(&cid) {
                self.free.push(cid);
                break;
            }
        }
        !self.jobs.is_empty() && !self.wanted.is_empty() && self.missing.len() <= MISSING_MAX
    }

    /// The sources that may have a block, the best one first.
    fn candidates(&self, cid: &Cid) -> Vec<usize> {
        let Some(wanted) = self.wanted.get(cid) else { return Vec::new() };
        let is_asked = |source: usize| wanted.jobs.iter().any(|job| self.jobs[job].source == source);
        let is_candidate =
            |source: &usize| self.sources[*source].is_alive && !wanted.tried.contains(source) && !is_asked(*source);
        let mut candidates: Vec<_> = (0..self.sources.len()).filter(is_candidate).collect();
        candidates.sort_by_key(|source| *source != self.favourite);
        candidates
    }

    /// Asks the best source that has time for it.
    fn start(&mut self, cid: &Cid) -> bool {
        for source in self.candidates(cid) {
            let asked = &self.sources[source];
            let whole = self.wanted[cid].whole.clone();
            let whole = whole.filter(|whole| asked.gives_dags && asked.source.offers(whole));
            let has_time = match &whole {
                Some(_) => asked.dag_jobs < DAGS_AT_ONCE,
                None => asked.block_jobs < asked.source.blocks_at_once(),
            };
            if has_time {
                self.ask(source, *cid, whole);
                return true;
            }
        }
        false
    }

    fn ask(&mut self, source: usize, target: Cid, whole: Option<DagRequest>) {
        let id = self.next_job;
        self.next_job += 1;
        let asked = &mut self.sources[source];
        let is_dag = whole.is_some();
        *(if is_dag { &mut asked.dag_jobs } else { &mut asked.block_jobs }) += 1;
        let (remote, sender) = (asked.source.clone(), self.sender.clone());
        // What is not wanted and what a CAR has around its blocks come on top.
        let bytes_max = self.limits.bytes.saturating_sub(self.stored_bytes).saturating_add(UNWANTED_BYTES_MAX);
        let task = self.tasks.spawn(async move {
            let error = match whole {
                Some(whole) => send_all(&*remote, &whole, bytes_max, id, &sender).await,
                None => match remote.block(&target).await {
                    Ok(block) => {
                        let _ = sender.send((id, Message::Block(block))).await;
                        None
                    }
                    Err(error) => Some(error),
                },
            };
            // Nobody receives when the fetch is over.
            let _ = sender.send((id, Message::Ended(error))).await;
        });
        let now = Instant::now();
        let job = Job {
            source,
            target,
            is_dag,
            started: now,
            progress: now,
            has_delivered: false,
            has_rival: false,
            unwanted_bytes: 0,
            task,
        };
        self.jobs.insert(id, job);
        if let Some(wanted) = self.wanted.get_mut(&target) {
            wanted.jobs.push(id);
        }
    }

    /// Takes note of a block that a request brought, of so many bytes, and of the name under which it was needed.
    pub(super) fn delivered(&mut self, id: JobId, bytes: u64, taken: Option<Cid>) {
        let wanted = taken.and_then(|cid| self.wanted.remove(&cid));
        // It may have been given up and then come with something else.
        self.missing.retain(|cid| Some(*cid) != taken);
        for rival in wanted.map(|wanted| wanted.jobs).unwrap_or_default() {
            let is_idle = self.jobs.get(&rival).is_some_and(|job| !job.has_delivered);
            if rival != id && is_idle {
                self.drop_job(rival);
            }
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let source = job.source;
        if taken.is_some() {
            let now = Instant::now();
            job.has_delivered = true;
            job.progress = now;
            self.favourite = source;
            self.sources[source].failures = 0;
            self.sources[source].delivered = Some(now);
            return;
        }
        job.unwanted_bytes += bytes;
        if job.unwanted_bytes > UNWANTED_BYTES_MAX {
            self.sources[source].why = Some("it sends what was not asked for".into());
            self.abandon(source);
        }
    }

    /// Takes note of the end of a request.
    pub(super) fn ended(&mut self, id: JobId, error: Option<RemoteError>) {
        let Some(job) = self.drop_job(id) else { return };
        let Some(error) = error else {
            if self.release(id, &job) || self.wanted.contains_key(&job.target) {
                self.note_no_dags(job.source, "its answer lacks blocks".into());
                if !job.is_dag {
                    self.note_tried(&job);
                }
            }
            return;
        };
        self.release(id, &job);
        if job.is_dag {
            self.note_no_dags(job.source, text(&error));
        } else {
            self.sources[job.source].why = Some(text(&error));
            self.note_tried(&job);
        }
        match Fault::of(&error) {
            Fault::Here => {}
            Fault::Passing => {
                // Who had no answer in time has none if asked in another way.
                self.note_tried(&job);
                self.note_failure(job.source);
            }
            Fault::Gone => self.abandon(job.source),
            Fault::Bad => {
                let source = &self.sources[job.source].name;
                (self.events)(FetchEvent::BadSource { source, error: &error });
                self.abandon(job.source);
            }
        }
    }

    fn note_no_dags(&mut self, source: usize, why: String) {
        self.sources[source].gives_dags = false;
        self.sources[source].why = Some(why);
    }

    fn note_failure(&mut self, source: usize) {
        self.sources[source].failures += 1;
        if self.sources[source].failures >= FAILURES_MAX {
            self.abandon(source);
        }
    }

    /// Asks a source for nothing more.
    fn abandon(&mut self, source: usize) {
        self.sources[source].is_alive = false;
        let jobs: Vec<_> = self.jobs.iter().filter(|(_, job)| job.source == source).map(|(id, _)| *id).collect();
        for id in jobs {
            if let Some(job) = self.drop_job(id) {
                self.release(id, &job);
            }
        }
    }

    fn note_tried(&mut self, job: &Job) {
        if let Some(wanted) = self.wanted.get_mut(&job.target) {
            wanted.tried.push(job.source);
        }
    }

    /// Ends a request, and has its target asked for again, unless somebody else is being asked.
    fn drop_job(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        job.task.abort();
        let asked = &mut self.sources[job.source];
        *(if job.is_dag { &mut asked.dag_jobs } else { &mut asked.block_jobs }) -= 1;
        if let Some(wanted) = self.wanted.get_mut(&job.target) {
            wanted.jobs.retain(|other| *other != id);
            self.free.push(job.target);
        }
        Some(job)
    }

    /// Has all blocks asked for that a request which has ended should have brought along; `false` if there are none.
    fn release(&mut self, id: JobId, job: &Job) -> bool {
        if !job.is_dag {
            return false;
        }
        let free = self.free.len();
        for (cid, wanted) in &mut self.wanted {
            if wanted.covered_by == Some(id) {
                wanted.covered_by = None;
                self.free.push(*cid);
            }
        }
        free < self.free.len()
    }

    /// Looks for requests that bring nothing.
    pub(super) fn look_after(&mut self) {
        // Ended requests leave their results behind, which nobody needs.
        while self.tasks.try_join_next().is_some() {}
        let now = Instant::now();
        let slow = |job: &Job| {
            let patience = if self.sources[job.source].delivered.is_some() { HEDGE_PROVEN_AFTER } else { HEDGE_AFTER };
            !job.has_delivered && !job.has_rival && now - job.started >= patience
        };
        let slow: Vec<_> = self.jobs.iter().filter(|(_, job)| slow(job)).map(|(id, _)| *id).collect();
        for id in slow {
            let target = self.jobs[&id].target;
            // It may be that all others are busy, and have time later.
            if self.start(&target)
                && let Some(job) = self.jobs.get_mut(&id)
            {
                job.has_rival = true;
            }
        }
        let stalled = |job: &Job| now - job.progress >= STALLED_AFTER;
        let stalled: Vec<_> = self.jobs.iter().filter(|(_, job)| stalled(job)).map(|(id, _)| *id).collect();
        for id in stalled {
            let Some(job) = self.drop_job(id) else { continue };
            let why = format!("it brought nothing that was needed within {} s", STALLED_AFTER.as_secs());
            self.release(id, &job);
            if job.is_dag {
                self.note_no_dags(job.source, why);
            } else {
                self.sources[job.source].why = Some(why);
            }
            self.note_tried(&job);
            self.note_failure(job.source);
        }
    }

    /// What is missing in the end, if anything is.
    pub(super) fn into_missing(self, request: DagRequest) -> Option<Missing> {
        let mut missing = self.missing;
        if missing.is_empty() {
            missing.extend(self.wanted.keys().take(MISSING_MAX));
        }
        let has_more = missing.len() > MISSING_MAX || (!missing.is_empty() && !self.wanted.is_empty());
        missing.truncate(MISSING_MAX);
        if missing.is_empty() {
            return None;
        }
        let why = |asked: Asked| (asked.name, asked.why.unwrap_or_else(|| "it was not asked".into()));
        let sources = self.sources.into_iter().map(why).collect();
        Some(Missing { request, missing, has_more, sources })
    }
}

/// Sends on all blocks of a DAG; gives the error that ended them.
async fn send_all(
    source: &dyn Source,
    request: &DagRequest,
    bytes_max: u64,
    id: JobId,
    sender: &mpsc::Sender<(JobId, Message)>,
) -> Option<RemoteError> {
    let mut blocks = source.dag(request, bytes_max);
    while let Some(block) = blocks.next().await {
        match block {
            Ok(block) => sender.send((id, Message::Block(block))).await.ok()?,
            Err(error) => return Some(error),
        }
    }
    None
}
