//! The threads that cells run on.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, LocalBoxFuture};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;

use crate::cell;

/// How many jobs may wait to be started on one thread; a thread starts one in microseconds.
const WAITING_JOBS_MAX: usize = 256;

/// After how many polls of tasks a thread looks for I/O events, and for wake-ups by other threads. Each poll may be a
/// computing cell that takes a whole epoch, so tokio's defaults (61 and 31) would mean tens of milliseconds.
const POLLS_BETWEEN_EVENTS: u32 = 8;

/// The stack of a thread that cells run on, in bytes, of which only what is used takes memory. Promises are polled and dropped by recursion,
/// each by what waits for it. `vat` and `caps` bound that for each cell; this is for what many of them do together.
pub const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Makes a job's future on the thread that it will stay on.
pub(super) type Job = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

/// How long a child may compute on its parent's thread. Most are done by then, and have neither waited for a thread nor had one
/// wait for them.
const BEGINNING: Duration = Duration::from_millis(1);

/// A set of threads, up to one for each processor, with a single-threaded runtime each. They start one by one when there is
/// something to do for them, and end when this is dropped and their jobs have ended.
#[derive(Default)]
pub(super) struct Workers {
    /// Those that have been started. Locked to choose one, or to start one.
    started: Mutex<Vec<Worker>>,
}

#[derive(Clone)]
struct Worker {
    jobs: mpsc::Sender<(Job, Load)>,
    /// How many jobs the thread has. Written by it and by `submit`; read to find the least busy.
    load: Arc<AtomicUsize>,
}

impl Workers {
    /// Has `job` run on the thread that has the fewest. Returns when the job is in that thread's queue.
    ///
    /// # Errors
    ///
    /// No thread takes jobs; this one is given back.
    pub(super) async fn submit(&self, job: Job) -> Result<(), Job> {
        let Some(worker) = self.least_busy() else { return Err(job) };
        worker.jobs.send((job, Load::new(worker.load.clone()))).await.map_err(|unsent| unsent.0.0)
    }

    /// Has a child run on a thread that has no other job.
    ///
    /// # Errors
    ///
    /// There is none; the child is given back.
    pub(super) fn submit_to_idle(&self, child: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        let Some(worker) = self.least_busy().filter(Worker::is_idle) else { return Err(child) };
        let Ok(place) = worker.jobs.try_reserve() else { return Err(child) };
        place.send((Box::new(|| child), Load::new(worker.load.clone())));
        Ok(())
    }

    /// Runs a child on this thread, and once it has computed for longer than [`BEGINNING`] on the one that has the fewest jobs.
    pub(super) async fn begin_here(&self, mut child: BoxFuture<'static, ()>) {
        let mut computed = Duration::ZERO;
        let begun = poll_fn(|context| {
            let start = Instant::now();
            let polled = child.as_mut().poll(context);
            computed += start.elapsed();
            if polled.is_pending() && computed > BEGINNING { Poll::Ready(false) } else { polled.map(|()| true) }
        });
        if begun.await {
            return;
        }
        if let Err(job) = self.submit(Box::new(|| child)).await {
            job().await;
        }
    }

    /// The thread that has the fewest jobs; a new one, if all have some and there may be more threads.
    fn least_busy(&self) -> Option<Worker> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        // One that had no runtime, or has failed, would look idle for ever.
        started.retain(|worker| !worker.jobs.is_closed());
        let least = started.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed)).cloned();
        if least.as_ref().is_some_and(Worker::is_idle) || started.len() >= cell::processors() {
            return least;
        }
        match Worker::start(started.len()) {
            Ok(worker) => {
                started.push(worker.clone());
                Some(worker)
            }
            Err(error) => {
                tracing::warn!(%error, "cells share the threads that there are");
                least
            }
        }
    }
}

impl Worker {
    fn is_idle(&self) -> bool {
        self.load.load(Ordering::Relaxed) == 0
    }

    fn start(index: usize) -> io::Result<Self> {
        let (jobs, received) = mpsc::channel(WAITING_JOBS_MAX);
        let thread = thread::Builder::new().name(format!("ww-cells-{index}")).stack_size(STACK_BYTES);
        thread.spawn(move || match build_runtime() {
            Ok(runtime) => runtime.block_on(run_jobs(received)),
            Err(error) => tracing::error!(%error, "a worker thread has no runtime"),
        })?;
        Ok(Self { jobs, load: Arc::default() })
    }
}

/// A runtime that cells can run on; it stays on the thread that builds it.
///
/// # Errors
///
/// The system refuses what it is made of.
pub fn build_runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(POLLS_BETWEEN_EVENTS)
        .global_queue_interval(POLLS_BETWEEN_EVENTS)
        .build_local(LocalOptions::default())
}

/// Starts jobs until nobody can send any more, and waits for the last to end.
async fn run_jobs(mut received: mpsc::Receiver<(Job, Load)>) {
    let mut running = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            job = received.recv() => match job {
                Some((job, load)) => { running.spawn_local(run(job, load)); }
                None => break,
            },
            Some(ended) = running.join_next() => report(ended),
        }
    }
    while let Some(ended) = running.join_next().await {
        report(ended);
    }
}

async fn run(job: Job, _load: Load) {
    job().await;
}

/// Has `job` run on this thread, beside who calls this.
pub(super) fn run_here(job: impl Future<Output = ()> + 'static) {
    let running = tokio::task::spawn_local(job);
    tokio::task::spawn_local(async move { report(running.await) });
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a cell's task failed");
    }
}

/// Counts one job for as long as it lives.
struct Load(Arc<AtomicUsize>);

impl Load {
    fn new(load: Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use tokio::sync::oneshot;

    #[tokio::test(flavor = "local")]
    async fn a_child_that_computes_moves_to_another_thread() {
        let (says, said) = oneshot::channel();
        let child = async move {
            let first = thread::current().id();
            let start = Instant::now();
            while start.elapsed() <= 2 * BEGINNING {}
            tokio::task::yield_now().await;
            says.send((first, thread::current().id())).unwrap();
        };
        Workers::default().begin_here(child.boxed()).await;
        let (first, then) = said.await.unwrap();
        assert_eq!(first, thread::current().id());
        assert_ne!(then, first);
    }

    #[tokio::test(flavor = "local")]
    async fn only_a_thread_without_a_job_is_idle() {
        let workers = Workers::default();
        let mut ends = Vec::new();
        for _ in 0..cell::processors() {
            let (end, ended) = oneshot::channel::<()>();
            workers.submit_to_idle(ended.map(drop).boxed()).map_err(drop).unwrap();
            ends.push(end);
        }
        assert!(workers.submit_to_idle(futures::future::ready(()).boxed()).is_err());
    }
}
