//! Work that waits for a thread.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many items may wait before those who list folders are to do some of the work themselves. A folder is put in whole,
/// so there may be more by the largest folder.
const WAITING_ITEMS_MAX: usize = 4096;

/// How many jobs may wait, since each keeps a folder open.
const WAITING_JOBS_MAX: usize = 64;

/// Some work that several threads can do together: each takes a part of it, until no part is left.
pub(in crate::tree) trait Job {
    /// How many items it had in the beginning.
    fn items(&self) -> usize;

    /// Whether no part is left to be taken. Parts that were taken may still be in progress.
    fn is_exhausted(&self) -> bool;
}

/// Jobs, of which the first is worked on by all threads.
///
/// It is open until [`Queue::close`]; every thread that waits is then told so.
pub(in crate::tree) struct Queue<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
    is_closed: AtomicBool,
}

struct State<J> {
    jobs: VecDeque<Arc<J>>,
    items: usize,
}

impl<J: Job> Queue<J> {
    pub(in crate::tree) fn new() -> Self {
        let state = State { jobs: VecDeque::new(), items: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new(), is_closed: AtomicBool::new(false) }
    }

    /// Adds a job that is to be done after the others.
    pub(in crate::tree) fn push(&self, job: Arc<J>) {
        self.state().push(job, VecDeque::push_back);
        self.changed.notify_all();
    }

    /// Adds a job that is to be done before the others.
    pub(in crate::tree) fn push_first(&self, job: Arc<J>) {
        self.state().push(job, VecDeque::push_front);
        self.changed.notify_all();
    }

    /// The first job of which something is left; waits for one. `None` when the queue is closed.
    pub(in crate::tree) fn wait(&self) -> Option<Arc<J>> {
        let mut state = self.state();
        loop {
            if self.is_closed() {
                return None;
            }
            if let Some(job) = state.first() {
                return Some(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The first job of which something is left, if there are too many.
    pub(in crate::tree) fn surplus(&self) -> Option<Arc<J>> {
        let mut state = self.state();
        let first = state.first();
        let is_full = state.items > WAITING_ITEMS_MAX || state.jobs.len() > WAITING_JOBS_MAX;
        first.filter(|_| is_full && !self.is_closed())
    }

    /// Tells all threads that nothing more is to be done.
    pub(in crate::tree) fn close(&self) {
        // Under the lock, since somebody may have looked at it and be about to wait.
        let state = self.state();
        self.is_closed.store(true, Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
    }

    pub(in crate::tree) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J: Job> State<J> {
    fn push(&mut self, job: Arc<J>, push: impl FnOnce(&mut VecDeque<Arc<J>>, Arc<J>)) {
        // Whoever pushes may do so for a long time without asking for a job, and jobs keep files open.
        self.prune();
        self.items += job.items();
        push(&mut self.jobs, job);
    }

    fn first(&mut self) -> Option<Arc<J>> {
        self.prune();
        self.jobs.front().cloned()
    }

    /// Lets go of the jobs of which nothing is left.
    fn prune(&mut self) {
        let mut items = self.items;
        self.jobs.retain(|job| {
            let is_exhausted = job.is_exhausted();
            items -= if is_exhausted { job.items() } else { 0 };
            !is_exhausted
        });
        self.items = items;
    }
}

/// Lets the other threads go when this one panics, so that the panic is seen and nobody waits for ever.
pub(in crate::tree) struct CloseOnPanic<'a, J: Job>(pub(in crate::tree) &'a Queue<J>);

impl<J: Job> Drop for CloseOnPanic<'_, J> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One item, that may have been taken.
    struct Once(AtomicBool);

    impl Job for Once {
        fn items(&self) -> usize {
            1
        }

        fn is_exhausted(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// A job keeps a file or a folder open.
    #[test]
    fn jobs_that_are_done_are_let_go_by_those_who_only_push() {
        let queue = Queue::new();
        let waiting = Arc::new(Once(AtomicBool::new(false)));
        queue.push(waiting.clone());
        let mut done = Vec::new();
        for number in 0..100 {
            let job = Arc::new(Once(AtomicBool::new(false)));
            done.push(Arc::downgrade(&job));
            if number % 2 == 0 {
                queue.push(job.clone())
            } else {
                queue.push_first(job.clone())
            }
            job.0.store(true, Ordering::Relaxed);
        }
        assert_eq!(done.iter().filter(|job| job.upgrade().is_some()).count(), 1);
        assert!(queue.wait().is_some_and(|job| Arc::ptr_eq(&job, &waiting)));
        assert_eq!(queue.state().items, 1);
        assert!(done.iter().all(|job| job.upgrade().is_none()));
    }
}
