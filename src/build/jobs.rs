//! How many processors a build uses, all its compilers together.
//!
//! Compilers are told of a job server as GNU make has it
//! (<https://www.gnu.org/software/make/manual/html_node/Job-Slots.html>): cargo and make ask it before they use another
//! processor. It is a pipe, not a named one, which make knows from 4.4 on only; ninja from 1.13 on knows only the latter.

use std::num::NonZero;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How often somebody who waits looks whether there is leave.
const POLL: Duration = Duration::from_millis(10);

/// Leave to use processors.
#[derive(Debug)]
pub struct Jobs {
    /// How many steps may run at a time.
    count: usize,
    /// One less than there may be, as make has it; `None` where there can be no pipe.
    server: Option<jobserver::Client>,
    /// Whether the one that needs no server is in use. It keeps a build going when a compiler that was killed has taken
    /// its own with it.
    is_first_used: AtomicBool,
}

impl Jobs {
    /// Leave to use so many processors.
    pub fn new(count: NonZero<usize>) -> Self {
        let count = count.get();
        Self { count, server: jobserver::Client::new(count - 1).ok(), is_first_used: AtomicBool::new(false) }
    }

    /// How many steps may run at a time.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Has a program know of the job server, by `CARGO_MAKEFLAGS`.
    pub(super) fn configure(&self, command: &mut Command) {
        if let Some(server) = &self.server {
            server.configure(command);
        }
    }

    /// The same for a program that may call make: by `MAKEFLAGS` and `MFLAGS` as well.
    pub(super) fn configure_make(&self, command: &mut Command) {
        if let Some(server) = &self.server {
            server.configure_make(command);
        }
    }

    /// Waits for leave to use one processor; goes on without when `is_stopped`.
    pub(super) fn take(&self, is_stopped: impl Fn() -> bool) -> Job<'_> {
        if let Some(first) = self.take_first() {
            return first;
        }
        // A read of the server's pipe cannot be given up, and to make it one that does not block would make it so for all
        // who share the pipe. So it is in a thread of its own, which gives back what comes when nobody waits any more.
        let (sender, receiver) = mpsc::sync_channel(0);
        if let Some(server) = self.server.clone() {
            let ask = move || drop(server.acquire().map(|given| sender.send(given)));
            let _ = thread::Builder::new().name("ww-jobs".into()).spawn(ask);
        }
        loop {
            let given = match receiver.recv_timeout(POLL) {
                Ok(given) => Some(given),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    thread::sleep(POLL);
                    None
                }
            };
            if given.is_some() || is_stopped() {
                return Job { jobs: self, is_first: false, given };
            }
            if let Some(first) = self.take_first() {
                return first;
            }
        }
    }

    fn take_first(&self) -> Option<Job<'_>> {
        let is_free = !self.is_first_used.swap(true, Ordering::AcqRel);
        is_free.then(|| Job { jobs: self, is_first: true, given: None })
    }
}

/// Leave to use one processor, until it is dropped.
#[derive(Debug)]
pub(super) struct Job<'a> {
    jobs: &'a Jobs,
    is_first: bool,
    given: Option<jobserver::Acquired>,
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        self.given = None;
        if self.is_first {
            self.jobs.is_first_used.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_leave_for_so_many() {
        let jobs = Jobs::new(NonZero::new(2).unwrap());
        let first = jobs.take(|| false);
        let second = jobs.take(|| false);
        assert!(first.is_first && !second.is_first && second.given.is_some());
        assert!(jobs.take(|| true).given.is_none());
        drop(second);
        assert!(jobs.take(|| false).given.is_some());
        drop(first);
        assert!(jobs.take(|| false).is_first);
    }
}
