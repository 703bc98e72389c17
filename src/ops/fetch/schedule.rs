//! Who is asked for what, and when.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::keep::{Taken, Want};
use super::source::{BLOCKS_AT_ONCE, Fault, text};
use super::{DagRequest, HEDGE_AFTER, HEDGE_PROVEN_AFTER, MISSING_MAX, Missing, Source};
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

/// How much a request may bring that is here already, in bytes, and still be worth it. Beyond it is ended if that is more
/// than what was wanted of it, and what it has not brought is asked for by itself: that costs some more round trips.
const HERE_BYTES_MAX: u64 = 8 << 20;

/// How much one request may bring that belongs to nothing, in bytes. A source that brings more is not asked any more.
const STRANGER_BYTES_MAX: u64 = 256 << 20;

/// A request for a DAG that brings fewer wanted bytes than this within [`HEDGE_PROVEN_AFTER`] is slow: some 50 KiB/s.
const SLOW_BYTES: u64 = 256 << 10;

/// After so many failures without a success in between a source is not asked any more.
const FAILURES_MAX: u32 = 3;

/// Failures within so long count as one: requests that are made at once fail for the same reason.
const FAILURES_APART: Duration = Duration::from_secs(1);

/// How long a source that failed, which may pass, is asked for nothing.
const REST: Duration = Duration::from_millis(500);

/// After how long a source that could not be reached, or failed and failed, is asked again by those who go on for long. One
/// that sent something wrong never is.
const REVIVED_AFTER: Duration = Duration::from_secs(10);

pub(super) type JobId = u64;

/// A source that has sent something wrong.
pub(super) struct BadSource {
    pub(super) source: String,
    pub(super) error: RemoteError,
}

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
    /// Whether others are asked, too, for what it should bring, because it is slow.
    is_slow: bool,
    wanted_bytes: u64,
    /// When the pace was looked at last, and [`Job::wanted_bytes`] then.
    paced: (Instant, u64),
    here_bytes: u64,
    stranger_bytes: u64,
    task: AbortHandle,
}

/// A block that is needed.
struct Wanted {
    whole: Option<DagRequest>,
    /// The request that is expected to bring it along.
    covered_by: Option<JobId>,
    /// The sources that were asked for this very block in vain.
    tried: Vec<usize>,
    /// The sources that failed once with it, which may pass. Each is asked once more.
    failed: Vec<usize>,
    /// The requests for this very block.
    jobs: Vec<JobId>,
}

/// A source and how it does.
struct Asked {
    source: Arc<dyn Source>,
    name: String,
    is_alive: bool,
    /// When it was given up.
    died: Option<Instant>,
    /// Whether it is never asked again.
    is_bad: bool,
    /// Whether it is asked for DAGs.
    gives_dags: bool,
    dag_jobs: usize,
    block_jobs: usize,
    /// How often it failed since it last brought something, and when that was counted last.
    failures: u32,
    failed: Option<Instant>,
    /// Until when it is asked for nothing, since it failed.
    rests_until: Option<Instant>,
    /// When it last brought something.
    delivered: Option<Instant>,
    /// Why it last did not give something.
    why: Option<String>,
}

pub(super) struct Schedule {
    sources: Vec<Asked>,
    wanted: HashMap<Cid, Wanted>,
    /// Wanted blocks that nobody was asked for yet; also some that are not wanted any more. The next one is the last.
    free: Vec<Cid>,
    /// Wanted blocks that are asked for again at some time, since all who may have them failed.
    later: Vec<(Instant, Cid)>,
    /// Blocks that nobody has.
    missing: Vec<Cid>,
    jobs: HashMap<JobId, Job>,
    next_job: JobId,
    /// The source that brought something last.
    favourite: usize,
    /// All requests; they end when this is dropped.
    tasks: JoinSet<()>,
    sender: mpsc::Sender<(JobId, Message)>,
}

impl Schedule {
    pub(super) fn new(sources: Vec<Arc<dyn Source>>, sender: mpsc::Sender<(JobId, Message)>) -> Self {
        let asked = |source: Arc<dyn Source>| Asked {
            name: source.name(),
            source,
            is_alive: true,
            died: None,
            is_bad: false,
            gives_dags: true,
            dag_jobs: 0,
            block_jobs: 0,
            failures: 0,
            failed: None,
            rests_until: None,
            delivered: None,
            why: None,
        };
        Self {
            sources: sources.into_iter().map(asked).collect(),
            wanted: HashMap::new(),
            free: Vec::new(),
            later: Vec::new(),
            missing: Vec::new(),
            jobs: HashMap::new(),
            next_job: 0,
            favourite: 0,
            tasks: JoinSet::new(),
            sender,
        }
    }

    /// Notes blocks that are needed.
    pub(super) fn want(&mut self, wants: Vec<Want>) {
        for Want { cid, whole, origin } in wants.into_iter().rev() {
            let origin = origin.and_then(|id| self.jobs.get(&id).filter(|job| job.is_dag).map(|job| (id, job)));
            let is_free = origin.is_none_or(|(_, job)| job.is_slow);
            let covered_by = origin.map(|(id, _)| id);
            let (tried, failed, jobs) = (Vec::new(), Vec::new(), Vec::new());
            self.wanted.insert(cid, Wanted { whole, covered_by, tried, failed, jobs });
            if is_free {
                self.free.push(cid);
            }
        }
    }

    /// Notes a block that may be needed: it is asked for when nobody waits for another one.
    pub(super) fn expect(&mut self, cid: Cid) {
        let (tried, failed, jobs) = (Vec::new(), Vec::new(), Vec::new());
        self.wanted.insert(cid, Wanted { whole: None, covered_by: None, tried, failed, jobs });
        self.free.insert(0, cid);
    }

    /// Notes that somebody waits for a block that was noted before.
    pub(super) fn hasten(&mut self, cid: &Cid) {
        if self.wanted.get(cid).is_some_and(|wanted| wanted.jobs.is_empty()) {
            self.free.push(*cid);
        }
    }

    /// Forgets a block that nobody needs any more, and ends the requests for it. `why` says of their sources why they did
    /// not give it, if that is to be remembered.
    pub(super) fn forget(&mut self, cid: &Cid, why: Option<&str>) {
        let Some(wanted) = self.wanted.remove(cid) else { return };
        for id in wanted.jobs {
            if let Some(job) = self.drop_job(id)
                && let Some(why) = why
            {
                self.sources[job.source].why = Some(why.to_owned());
            }
        }
    }

    /// The blocks that nobody has, of those that were noted since the last call.
    pub(super) fn take_missing(&mut self) -> Vec<Cid> {
        std::mem::take(&mut self.missing)
    }

    /// Forgets all that is wanted, and what came of it. What is known of the sources stays.
    pub(super) fn clear(&mut self) {
        for id in self.jobs.keys().copied().collect::<Vec<_>>() {
            self.drop_job(id);
        }
        self.wanted.clear();
        self.free.clear();
        self.later.clear();
        self.missing.clear();
    }

    /// Has sources asked again that were given up for something that may have passed.
    pub(super) fn revive(&mut self) {
        let now = Instant::now();
        for asked in &mut self.sources {
            let has_rested = asked.died.is_some_and(|died| now - died >= REVIVED_AFTER);
            if !asked.is_alive && !asked.is_bad && has_rested {
                asked.is_alive = true;
                asked.failures = 0;
            }
        }
    }

    /// Each source with why it last did not give something.
    pub(super) fn reasons(&self) -> Vec<(String, String)> {
        let why = |asked: &Asked| (asked.name.clone(), asked.why.clone().unwrap_or_else(|| "it was not asked".into()));
        self.sources.iter().map(why).collect()
    }

    /// The names of the sources.
    pub(super) fn names(&self) -> Vec<String> {
        self.sources.iter().map(|asked| asked.name.clone()).collect()
    }

    /// Starts as many requests as may be made; `false` if there is nothing to wait for.
    pub(super) fn dispatch(&mut self) -> bool {
        let now = Instant::now();
        // Those that failed come first, as they did before: else a source might fail with all others before it succeeds.
        let due: Vec<_> = self.later.extract_if(.., |(due, _)| *due <= now).collect();
        self.free.extend(due.into_iter().rev().map(|(_, cid)| cid));
        let mut busy = Vec::new();
        while self.missing.len() <= MISSING_MAX
            && let Some(cid) = self.free.pop()
        {
            let Some(wanted) = self.wanted.get(&cid) else { continue };
            let is_covered = wanted.covered_by.and_then(|id| self.jobs.get(&id)).map(|job| !job.is_slow);
            if is_covered == Some(true) || !wanted.jobs.is_empty() {
                continue;
            }
            if !self.candidates(&cid).is_empty() {
                if !self.start(&cid) {
                    busy.push(cid);
                    // Who brings it slowly may have time for another one.
                    if is_covered.is_none() {
                        break;
                    }
                }
            } else if let Some(due) = self.rest_of(wanted) {
                self.later.push((due, cid));
            } else if is_covered.is_none() {
                self.wanted.remove(&cid);
                self.missing.push(cid);
            }
        }
        self.free.extend(busy.into_iter().rev());
        let is_waiting = !self.jobs.is_empty() || !self.later.is_empty();
        is_waiting && !self.wanted.is_empty() && self.missing.len() <= MISSING_MAX
    }

    /// The sources that may have a block and are not being asked for it, also those that rest.
    fn owners(&self, wanted: &Wanted) -> impl Iterator<Item = usize> {
        let asked = wanted.jobs.iter().chain(&wanted.covered_by);
        let asked: Vec<_> = asked.filter_map(|job| self.jobs.get(job)).map(|job| job.source).collect();
        (0..self.sources.len()).filter(move |source| {
            self.sources[*source].is_alive && !wanted.tried.contains(source) && !asked.contains(source)
        })
    }

    /// When somebody who may have a block has rested.
    fn rest_of(&self, wanted: &Wanted) -> Option<Instant> {
        self.owners(wanted).filter_map(|source| self.sources[source].rests_until).min()
    }

    /// The sources to ask for a block, the best one first: who did not fail with it, and who brought something last.
    fn candidates(&self, cid: &Cid) -> Vec<usize> {
        let Some(wanted) = self.wanted.get(cid) else { return Vec::new() };
        let now = Instant::now();
        let is_rested = |source: &usize| self.sources[*source].rests_until.is_none_or(|until| until <= now);
        let mut candidates: Vec<_> = self.owners(wanted).filter(is_rested).collect();
        candidates.sort_by_key(|source| (wanted.failed.contains(source), *source != self.favourite));
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
        let task = self.tasks.spawn(async move {
            let error = match whole {
                Some(whole) => send_all(&*remote, &whole, id, &sender).await,
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
            is_slow: false,
            wanted_bytes: 0,
            paced: (now, 0),
            here_bytes: 0,
            stranger_bytes: 0,
            task,
        };
        self.jobs.insert(id, job);
        if let Some(wanted) = self.wanted.get_mut(&target) {
            wanted.jobs.push(id);
        }
    }

    /// Takes note of a block that a request brought, of so many bytes on its way.
    pub(super) fn delivered(&mut self, id: JobId, bytes: u64, taken: Taken) {
        if let Taken::Wanted(cid) = taken {
            self.noted(id, &cid);
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let source = job.source;
        match taken {
            Taken::Wanted(_) => {
                let now = Instant::now();
                job.has_delivered = true;
                job.progress = now;
                job.wanted_bytes += bytes;
                self.favourite = source;
                self.sources[source].failures = 0;
                self.sources[source].delivered = Some(now);
            }
            Taken::Here => {
                job.here_bytes += bytes;
                if job.here_bytes > HERE_BYTES_MAX && job.here_bytes > job.wanted_bytes {
                    self.cut(id);
                }
            }
            Taken::Stranger => {
                job.stranger_bytes += bytes;
                if job.stranger_bytes > STRANGER_BYTES_MAX {
                    self.sources[source].why = Some("it sends what was not asked for".into());
                    self.sources[source].is_bad = true;
                    self.abandon(source);
                }
            }
        }
    }

    /// Notes that a block came with a request.
    fn noted(&mut self, id: JobId, cid: &Cid) {
        // It may have been given up and then come with something else.
        self.missing.retain(|missing| missing != cid);
        let Some(wanted) = self.wanted.remove(cid) else { return };
        for rival in wanted.jobs {
            let is_idle = self.jobs.get(&rival).is_some_and(|job| !job.has_delivered);
            if rival != id
                && is_idle
                && let Some(job) = self.drop_job(rival)
            {
                self.release(rival, &job);
            }
        }
    }

    /// Ends a request that brings mostly what is here, and has what it did not bring asked for by itself.
    fn cut(&mut self, id: JobId) {
        let Some(job) = self.drop_job(id) else { return };
        self.release(id, &job);
        if !job.has_delivered {
            // It would do the same again.
            self.note_no_dags(job.source, "it sends what is here already".into());
        }
    }

    /// Takes note of the end of a request. Tells if its source has sent something wrong.
    pub(super) fn ended(&mut self, id: JobId, error: Option<RemoteError>) -> Option<BadSource> {
        let job = self.drop_job(id)?;
        let Some(error) = error else {
            if self.release(id, &job) || self.wanted.contains_key(&job.target) {
                self.note_no_dags(job.source, "its answer lacks blocks".into());
                if !job.is_dag {
                    self.note_tried(&job);
                }
            }
            return None;
        };
        self.release(id, &job);
        let fault = Fault::of(&error);
        if job.is_dag {
            self.note_no_dags(job.source, text(&error));
        } else {
            self.sources[job.source].why = Some(text(&error));
            if fault != Fault::Passing {
                self.note_tried(&job);
            }
        }
        match fault {
            Fault::Here => {}
            Fault::Passing => {
                self.note_failed(&job);
                self.note_failure(job.source);
            }
            Fault::Gone => self.abandon(job.source),
            Fault::Bad => {
                self.sources[job.source].is_bad = true;
                self.abandon(job.source);
                return Some(BadSource { source: self.sources[job.source].name.clone(), error });
            }
        }
        None
    }

    fn note_no_dags(&mut self, source: usize, why: String) {
        self.sources[source].gives_dags = false;
        self.sources[source].why = Some(why);
    }

    /// Counts failures over time, for requests that are made at once often fail at once.
    fn note_failure(&mut self, source: usize) {
        let now = Instant::now();
        let asked = &mut self.sources[source];
        asked.rests_until = Some(now + REST);
        if asked.failed.is_some_and(|failed| now - failed < FAILURES_APART) {
            return;
        }
        asked.failed = Some(now);
        asked.failures += 1;
        if asked.failures >= FAILURES_MAX {
            self.abandon(source);
        }
    }

    /// Notes that a source failed with a block, which may pass: it is asked for it once more.
    fn note_failed(&mut self, job: &Job) {
        let Some(wanted) = self.wanted.get_mut(&job.target) else { return };
        if wanted.failed.contains(&job.source) {
            wanted.tried.push(job.source);
        } else {
            wanted.failed.push(job.source);
        }
    }

    /// Asks a source for nothing more.
    fn abandon(&mut self, source: usize) {
        self.sources[source].is_alive = false;
        self.sources[source].died = Some(Instant::now());
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
        let is_late = |job: &Job| {
            let patience = if self.sources[job.source].delivered.is_some() { HEDGE_PROVEN_AFTER } else { HEDGE_AFTER };
            !job.has_delivered && now - job.started >= patience
        };
        let late: Vec<_> = self.jobs.values().filter(|job| is_late(job)).map(|job| job.target).collect();
        for target in late {
            // It may be that all others are busy, and have time later.
            if self.wanted.get(&target).is_some_and(|wanted| wanted.jobs.len() == 1) {
                self.start(&target);
            }
        }
        self.pace(now);
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

    /// Looks for requests for DAGs that have become slow, and has others asked for what they should bring. They go on
    /// all the same: it may be that nobody else has it.
    fn pace(&mut self, now: Instant) {
        let mut slow = Vec::new();
        for (id, job) in self.jobs.iter_mut().filter(|(_, job)| job.is_dag && job.has_delivered) {
            let (since, before) = job.paced;
            if now - since < HEDGE_PROVEN_AFTER {
                continue;
            }
            job.paced = (now, job.wanted_bytes);
            let was_slow = std::mem::replace(&mut job.is_slow, job.wanted_bytes - before < SLOW_BYTES);
            if job.is_slow && !was_slow {
                slow.push(*id);
            }
        }
        let is_slow = |wanted: &Wanted| wanted.covered_by.is_some_and(|id| slow.contains(&id));
        self.free.extend(self.wanted.iter().filter(|(_, wanted)| is_slow(wanted)).map(|(cid, _)| *cid));
    }

    /// What is missing in the end, if anything is.
    pub(super) fn missing_of(&mut self, request: DagRequest) -> Option<Missing> {
        let mut missing = self.take_missing();
        if missing.is_empty() {
            missing.extend(self.wanted.keys().take(MISSING_MAX));
        }
        let has_more = missing.len() > MISSING_MAX || (!missing.is_empty() && !self.wanted.is_empty());
        missing.truncate(MISSING_MAX);
        if missing.is_empty() {
            return None;
        }
        Some(Missing { request, missing, has_more, sources: self.reasons() })
    }
}

/// Sends on all blocks of a DAG; gives the error that ended them.
async fn send_all(
    source: &dyn Source,
    request: &DagRequest,
    id: JobId,
    sender: &mpsc::Sender<(JobId, Message)>,
) -> Option<RemoteError> {
    let mut blocks = source.dag(request);
    while let Some(block) = blocks.next().await {
        match block {
            Ok(block) => sender.send((id, Message::Block(block))).await.ok()?,
            Err(error) => return Some(error),
        }
    }
    None
}
