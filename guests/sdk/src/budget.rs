//! How much a stream may move before everybody else gets a turn.
//!
//! A stream that is always ready never makes its task wait, so a task that copies it would never give the thread back.
//! Therefore each operation on a stream spends from the stream's budget for the present turn of the executor, and who
//! finds nothing left is woken in the next turn, after the other tasks. The budget belongs to the stream, not to the
//! task or the turn, so that of several busy streams none takes the share of another.

use std::cell::Cell;
use std::task::{Context, Poll};

/// With chunks of 64 KiB that is 4 MiB, about a millisecond.
const OPERATIONS_PER_TURN: u32 = 64;

thread_local! {
    /// The number of the present turn.
    static TURN: Cell<u64> = const { Cell::new(0) };
    /// Whether a stream has found its budget empty since the turn began.
    static EMPTY: Cell<bool> = const { Cell::new(false) };
}

/// Starts a turn; says whether in the one before a stream has used up its budget.
pub(crate) fn next_turn() -> bool {
    TURN.set(TURN.get().wrapping_add(1));
    EMPTY.replace(false)
}

/// What a stream may still do.
pub(crate) struct Budget {
    turn: u64,
    left: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { turn: TURN.get(), left: OPERATIONS_PER_TURN }
    }
}

impl Budget {
    /// Spends one operation, or arranges that the task is polled again in the next turn.
    pub(crate) fn poll_spend(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.turn != TURN.get() {
            *self = Self::default();
        }
        if self.left == 0 {
            EMPTY.set(true);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.left -= 1;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use super::*;
    use crate::{block_on, spawn};

    /// Spends for ever, without ever waiting for anything else.
    async fn busy(count: Rc<Cell<u32>>) {
        let mut budget = Budget::default();
        loop {
            poll_fn(|cx| budget.poll_spend(cx)).await;
            count.update(|count| count + 1);
        }
    }

    async fn spend(operations: u32) {
        let mut budget = Budget::default();
        for _ in 0..operations {
            poll_fn(|cx| budget.poll_spend(cx)).await;
        }
    }

    #[test]
    fn tasks_share() {
        let count = Rc::new(Cell::new(0));
        let counted = count.clone();
        block_on(async move {
            spawn(busy(counted.clone()));
            spawn(busy(counted));
            spend(10 * OPERATIONS_PER_TURN).await;
        });
        assert!((10..100).contains(&(count.get() / OPERATIONS_PER_TURN)), "{count:?}");
    }

    #[test]
    fn streams_of_one_task_share() {
        block_on(async {
            let busy = std::pin::pin!(busy(Rc::default()));
            let brief = std::pin::pin!(spend(10 * OPERATIONS_PER_TURN));
            let ended_first = futures::future::select(busy, brief).await;
            assert!(matches!(ended_first, futures::future::Either::Right(_)));
        });
    }
}
