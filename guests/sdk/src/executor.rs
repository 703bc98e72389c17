//! One thread that polls tasks, and sleeps in the host when none of them can go on.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::{budget, reactor};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// After this many turns without a wait, the executor looks at the streams, so that tasks that always have something to
/// do do not hold up those that wait for the host. A look costs one host call for each waiting stream.
const TURNS_BETWEEN_LOOKS: u32 = 64;

thread_local! {
    /// Tasks that were spawned and not yet adopted by a pool.
    static SPAWNED: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
}

/// Starts a task that runs beside the caller.
///
/// It is dropped, wherever it stands, when the main future ends. A result can be had by wrapping the future with
/// `futures::FutureExt::remote_handle`, or by sending it through a channel. Outside of [`run`](crate::run) and
/// [`block_on`] the task waits for one of them.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    SPAWNED.with_borrow_mut(|spawned| spawned.push(Box::pin(task)));
}

/// Runs `main` and the spawned tasks until `main` is done, without an RPC session.
///
/// For programs that need nothing but their own streams; everything else wants [`run`](crate::run).
///
/// # Panics
///
/// When no task can go on and none waits for a stream of the host: the program would stand still for ever.
pub fn block_on<T: 'static>(main: impl Future<Output = T> + 'static) -> T {
    let mut pool = Pool::default();
    let result = Rc::new(RefCell::new(None));
    let slot = result.clone();
    spawn(async move {
        let value = main.await;
        slot.replace(Some(value));
    });
    loop {
        let progress = pool.turn();
        if let Some(value) = result.take() {
            return value;
        }
        if !progress {
            reactor::wait().expect("deadlock: every task waits, and none of them for the host");
        }
    }
}

/// The tasks and whether one of them was woken.
#[derive(Default)]
struct Pool {
    tasks: FuturesUnordered<Task>,
    signal: Arc<Signal>,
    /// Turns since the last look at the streams.
    turns: u32,
}

impl Pool {
    /// Polls the tasks that were woken, each at most a few times, and says whether there may be more to do at once.
    fn turn(&mut self) -> bool {
        self.look_at_streams();
        self.tasks.extend(SPAWNED.take());
        self.signal.reset();
        let waker = Waker::from(self.signal.clone());
        let ended = self.tasks.poll_next_unpin(&mut Context::from_waker(&waker)).is_ready();
        let progress = ended || self.signal.is_set() || SPAWNED.with_borrow(|spawned| !spawned.is_empty());
        if !progress {
            self.turns = 0;
        }
        progress
    }

    /// Wakes those whose streams are ready, where the tasks have kept the thread busy for long.
    fn look_at_streams(&mut self) {
        self.turns += 1;
        if budget::next_turn() || self.turns > TURNS_BETWEEN_LOOKS {
            self.turns = 0;
            reactor::wake_ready();
        }
    }
}

/// Set when a task is woken.
#[derive(Default)]
struct Signal(AtomicBool);

impl Signal {
    fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::channel::{mpsc, oneshot};
    use futures::{SinkExt, future};

    use super::*;

    /// Lets the other tasks go first.
    async fn yield_now() {
        let mut yielded = false;
        future::poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return std::task::Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
    }

    #[test]
    fn returns_what_main_returns() {
        assert_eq!(block_on(async { 7 }), 7);
    }

    #[test]
    fn tasks_wake_each_other() {
        let sum = block_on(async {
            let (mut sender, receiver) = mpsc::channel(1);
            spawn(async move {
                for number in 0..1000 {
                    sender.send(number).await.unwrap();
                }
            });
            receiver.fold(0, async |sum, number| sum + number).await
        });
        assert_eq!(sum, 499_500);
    }

    #[test]
    fn a_busy_task_starves_nobody() {
        let turns = block_on(async {
            spawn(async {
                loop {
                    yield_now().await
                }
            });
            let (sender, receiver) = oneshot::channel();
            spawn(async move {
                for _ in 0..100 {
                    yield_now().await;
                }
                sender.send(100).unwrap();
            });
            receiver.await.unwrap()
        });
        assert_eq!(turns, 100);
    }

    #[test]
    fn tasks_that_spawn_for_ever_do_not_keep_main_alive() {
        fn again() {
            spawn(async { again() });
        }
        block_on(async {
            again();
            yield_now().await;
        });
    }

    #[test]
    fn other_tasks_are_dropped_with_main() {
        struct OnDrop(Rc<Cell<bool>>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let dropped = Rc::new(Cell::new(false));
        let guard = OnDrop(dropped.clone());
        block_on(async {
            spawn(async move {
                let _guard = guard;
                future::pending::<()>().await;
            });
            yield_now().await;
        });
        assert!(dropped.get());
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_deadlock_is_reported() {
        block_on(future::pending::<()>());
    }
}
