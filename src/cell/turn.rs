//! Turns of cells that compute for long.
//!
//! A cell that has computed for a whole epoch gives its thread back and then needs a turn to go on; each thread has one
//! turn, which goes around among such cells in the order of their asking. So however many cells compute, a task that
//! has little to do, such as an RPC call, waits for about one epoch and not for one of each.
//!
//! There are instructions and calls that take longer than an epoch and cannot be interrupted: `memory.fill` of a gigabyte
//! takes a tenth of a second. A cell that has its thread so long and is not alone on it waits for a multiple of that
//! before it goes on, so that it may hold up others now and then, and not all the time.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::ready;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a cell may have its thread at once: some epochs, of which a machine under load makes long ones.
const HELD_MAX: Duration = Duration::from_millis(4);

/// How many times as long as that a cell waits that has had it longer.
const PAUSE_FACTOR: u32 = 10;

/// How long it waits at most.
const PAUSE_MAX: Duration = Duration::from_secs(2);

thread_local! {
    /// The turn of this thread; fair, as tokio's semaphores are.
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));

    /// How many cells this thread has.
    static CELLS: Arc<AtomicUsize> = Arc::default();

    /// How long the thread had waited for a processor when that was last looked at, in nanoseconds.
    static WAITED: Cell<u64> = const { Cell::new(0) };
}

/// How many cells this thread has.
fn cells() -> usize {
    CELLS.with(|cells| cells.load(Ordering::Relaxed))
}

/// Counts one cell for the thread that it is on.
struct OneCell(Arc<AtomicUsize>);

impl OneCell {
    fn new() -> Self {
        let cells = CELLS.with(Arc::clone);
        cells.fetch_add(1, Ordering::Relaxed);
        Self(cells)
    }

    /// Counts it for this thread, if it has come from another.
    fn follow(&mut self) {
        if !CELLS.with(|cells| Arc::ptr_eq(cells, &self.0)) {
            *self = Self::new();
        }
    }
}

impl Drop for OneCell {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long this thread has waited for a processor since the last time that it was asked. What it waited for is not the doing
/// of the cell that it runs. Nothing where the system does not tell.
fn waited_for_processor() -> Duration {
    // Time on a processor, time of waiting for one, both in nanoseconds, and a count (Linux, sched-stats.rst).
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    Duration::from_nanos(waited - WAITED.replace(waited).min(waited))
}

/// How long a cell waits that has had its thread for so long.
fn pause_after(held: Duration) -> Option<Duration> {
    if held <= HELD_MAX || cells() < 2 {
        return None;
    }
    let held = held.saturating_sub(waited_for_processor());
    (held > HELD_MAX).then(|| (held * PAUSE_FACTOR).min(PAUSE_MAX))
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
        let mut counted = OneCell::new();
        let mut cell = pin!(cell);
        let mut pause = None;
        poll_fn(|context| {
            counted.follow();
            loop {
                if let Some(pausing) = &mut pause {
                    let pausing: &mut Pin<Box<tokio::time::Sleep>> = pausing;
                    ready!(pausing.as_mut().poll(context));
                    pause = None;
                }
                let start = Instant::now();
                let polled = cell.as_mut().poll(context);
                let mut hold = self.lock();
                if !hold.is_yielding {
                    hold.permit = None;
                }
                match pause_after(start.elapsed()) {
                    Some(time) if polled.is_pending() => {
                        hold.permit = None;
                        pause = Some(Box::pin(tokio::time::sleep(time)));
                    }
                    _ => return polled,
                }
            }
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

    /// Has its thread for so long, again and again.
    async fn hold(times: usize, time: Duration, log: Rc<RefCell<Vec<Instant>>>) {
        let cell = async move {
            for _ in 0..times {
                log.borrow_mut().push(Instant::now());
                let start = Instant::now();
                while start.elapsed() < time {}
                tokio::task::yield_now().await;
            }
        };
        Turn::default().run(cell).await;
    }

    #[test]
    fn a_cell_counts_for_the_thread_that_it_is_on() {
        let mut counted = OneCell::new();
        assert_eq!(cells(), 1);
        let moved = std::thread::spawn(move || {
            counted.follow();
            cells()
        });
        assert_eq!((moved.join().unwrap(), cells()), (1, 0));
    }

    #[tokio::test(flavor = "local")]
    async fn who_holds_up_others_pays_it_back() {
        let held = HELD_MAX * 3;
        let log = Rc::new(RefCell::new(Vec::new()));
        let waiting = Turn::default().run(std::future::pending::<()>());
        // What the thread itself waits for a processor is not counted, and on a loaded machine that may be most of it.
        futures::future::select(pin!(waiting), pin!(hold(20, held, log.clone()))).await;
        let (first, last) = (log.borrow()[0], log.borrow()[19]);
        assert!(last - first >= held * PAUSE_FACTOR, "{:?}", last - first);
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
