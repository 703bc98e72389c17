//! How much the streams may move before everybody else gets a turn.
//!
//! A stream whose other side is always ready never makes its task wait, so a task that copies it would never give the
//! thread back. Therefore each operation on a stream costs one unit, and who finds nothing left is woken in the next
//! turn of the executor, after the other tasks.

use std::cell::Cell;
use std::task::{Context, Poll};

/// Operations per turn; with chunks of 64 KiB that is 4 MiB, about a millisecond.
const OPERATIONS_PER_TURN: u32 = 64;

thread_local! {
    /// What is left of the present turn.
    static LEFT: Cell<u32> = const { Cell::new(OPERATIONS_PER_TURN) };
}

/// Takes one unit, or arranges that the task is polled again in the next turn.
pub(crate) fn poll_spend(cx: &mut Context<'_>) -> Poll<()> {
    match LEFT.get().checked_sub(1) {
        Some(left) => {
            LEFT.set(left);
            Poll::Ready(())
        }
        None => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
}

/// Starts a turn; says whether the one before used up everything.
pub(crate) fn refill() -> bool {
    LEFT.replace(OPERATIONS_PER_TURN) == 0
}
