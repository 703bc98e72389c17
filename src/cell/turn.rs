//! Turns of cells that compute for long.
//!
//! A cell that has computed for a whole epoch gives its thread back and then needs a turn to go on; each thread has one
//! turn, which goes around among such cells in the order of their asking. So however many cells compute, a task that
//! has little to do, such as an RPC call, waits for about one epoch and not for one of each.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

thread_local! {
    /// The turn of this thread; fair, as tokio's semaphores are.
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
}

/// One cell's hold on the turn of its thread.
#[derive(Clone, Default)]
pub(super) struct Turn(Arc<Mutex<Hold>>);

#[derive(Default)]
struct Hold {
    permit: Option<OwnedSemaphorePermit>,
    /// The cell has its turn and lets other tasks go first, so it is not waiting for anything.
    is_yielding: bool,
}

impl Turn {
    /// Gives back the turn, if the cell has it, lets other tasks go first, and waits for the next turn.
    pub(super) fn next(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let turn = self.clone();
        let thread = TURN.with(Arc::clone);
        turn.lock().permit = None;
        Box::pin(async move {
            // Those who wait are not ready to run, so only the cell whose turn it is stands in the way of others. The
            // semaphore is never closed.
            let permit = thread.acquire_owned().await.ok();
            *turn.lock() = Hold { permit, is_yielding: true };
            tokio::task::yield_now().await;
            turn.lock().is_yielding = false;
        })
    }

    /// Runs the cell. Whenever it stops to wait for something, it gives the turn back.
    pub(super) async fn run<T>(self, cell: impl Future<Output = T>) -> T {
        let mut cell = pin!(cell);
        poll_fn(|context| {
            let polled = cell.as_mut().poll(context);
            let mut hold = self.lock();
            if !hold.is_yielding {
                hold.permit = None;
            }
            polled
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Hold> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Computes for `epochs`, and notes each.
    async fn compute(name: char, epochs: usize, log: Rc<RefCell<String>>) {
        let turn = Turn::default();
        let cell = {
            let turn = turn.clone();
            async move {
                for _ in 0..epochs {
                    log.borrow_mut().push(name);
                    turn.next().await;
                }
            }
        };
        turn.run(cell).await;
    }

    #[tokio::test(flavor = "local")]
    async fn those_who_compute_take_turns_and_others_go_between() {
        let log = Rc::new(RefCell::new(String::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for name in ['a', 'b', 'c', 'd'] {
            tasks.spawn_local(compute(name, 20, log.clone()));
        }
        let short = log.clone();
        tasks.spawn_local(async move {
            for _ in 0..20 {
                tokio::task::yield_now().await;
                short.borrow_mut().push('.');
            }
        });
        tasks.join_all().await;
        let log = log.borrow();
        // The short task comes again after two of the others at most, and each of them gets its share.
        let until_done = &log[..log.rfind('.').unwrap()];
        assert!(until_done.split('.').skip(2).all(|between| between.len() <= 2), "{log}");
        let firsts: String = log.chars().filter(|name| *name != '.').take(40).collect();
        for name in ['a', 'b', 'c', 'd'] {
            assert!((8..=12).contains(&firsts.matches(name).count()), "{log}");
        }
    }
}
