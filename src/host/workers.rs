//! The threads that cells run on.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use futures::future::LocalBoxFuture;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;

/// How many jobs may wait to be started on one thread; a thread starts one in microseconds.
const WAITING_JOBS_MAX: usize = 256;

/// After how many polls of tasks a thread looks for I/O events, and for wake-ups by other threads. Each poll may be a
/// computing cell that takes a whole epoch, so tokio's defaults (61 and 31) would mean tens of milliseconds.
const POLLS_BETWEEN_EVENTS: u32 = 8;

/// The stack of a thread, in bytes, of which only what is used takes memory. Promises are polled and dropped by recursion,
/// each by what waits for it. `vat` and `caps` bound that for each cell; this is for what many of them do together.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Makes a job's future on the thread that it will stay on.
pub(super) type Job = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

/// No thread takes jobs any more.
#[derive(Debug)]
pub(super) struct Stopped;

/// A set of threads, each with a single-threaded runtime. They start one by one when there is something to do for them, and
/// end when this is dropped and their jobs have ended.
pub(super) struct Workers {
    count_max: usize,
    /// Those that have been started. Locked to choose one, or to start one.
    started: Mutex<Vec<Worker>>,
}

#[derive(Clone)]
struct Worker {
    jobs: mpsc::Sender<Job>,
    /// How many jobs the thread has. Written by it and by `submit`; read to find the least busy.
    load: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts the first of at most `count_max` threads.
    pub(super) fn start(count_max: usize) -> io::Result<Self> {
        Ok(Self { count_max, started: Mutex::new(vec![Worker::start(0)?]) })
    }

    /// Has `job` run on the thread that has the fewest. Returns when the job is in that thread's queue.
    pub(super) async fn submit(&self, job: Job) -> Result<(), Stopped> {
        let worker = self.least_busy().ok_or(Stopped)?;
        let load = Load::new(worker.load.clone());
        let counted = move || {
            let future = job();
            Box::pin(async move {
                let _load = load;
                future.await;
            }) as LocalBoxFuture<'static, ()>
        };
        worker.jobs.send(Box::new(counted)).await.map_err(|_| Stopped)
    }

    /// The thread that has the fewest jobs; a new one, if all have some and there may be more threads.
    fn least_busy(&self) -> Option<Worker> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        // One that had no runtime, or has failed, would look idle for ever.
        started.retain(|worker| !worker.jobs.is_closed());
        let least = started.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed)).cloned();
        let is_idle = least.as_ref().is_some_and(|worker| worker.load.load(Ordering::Relaxed) == 0);
        if is_idle || started.len() >= self.count_max {
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

/// The runtime of a worker; it stays on the thread that builds it.
fn build_runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(POLLS_BETWEEN_EVENTS)
        .global_queue_interval(POLLS_BETWEEN_EVENTS)
        .build_local(LocalOptions::default())
}

/// Starts jobs until nobody can send any more, and waits for the last to end.
async fn run_jobs(mut received: mpsc::Receiver<Job>) {
    let mut running = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            job = received.recv() => match job {
                Some(job) => { running.spawn_local(job()); }
                None => break,
            },
            Some(ended) = running.join_next() => report(ended),
        }
    }
    while let Some(ended) = running.join_next().await {
        report(ended);
    }
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
