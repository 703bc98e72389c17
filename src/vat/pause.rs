//! Pauses of a connection that has kept its thread for long.
//!
//! A message is taken as a whole: nothing interrupts the RPC system while it walks or copies one, and one of the largest takes
//! it a tenth of a second. A connection that keeps its thread so long and is not alone on it waits for a multiple of that before
//! it goes on, so that it may hold up others now and then, and not all the time. The same holds for cells (`cell/turn.rs`).

use std::cell::Cell;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep};

/// How long a connection may have its thread at once. Messages of programs take microseconds; those of some megabytes, as much.
const HELD_MAX: Duration = Duration::from_millis(4);

/// How many times as long as that a connection waits that has had it longer.
const PAUSE_FACTOR: u32 = 10;

/// How long it waits at most.
const PAUSE_MAX: Duration = Duration::from_secs(2);

thread_local! {
    /// How many connections this thread serves.
    static CONNECTIONS: Cell<usize> = const { Cell::new(0) };

    /// How long the thread had waited for a processor when that was last looked at.
    static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Counts one connection of this thread.
pub(super) struct OneConnection;

impl OneConnection {
    pub(super) fn new() -> Self {
        CONNECTIONS.set(CONNECTIONS.get() + 1);
        Self
    }
}

impl Drop for OneConnection {
    fn drop(&mut self) {
        // The thread may be ending.
        let _ = CONNECTIONS.try_with(|connections| connections.set(connections.get().saturating_sub(1)));
    }
}

/// The pause of a connection that has just had its thread for so long.
pub(super) fn after(held: Duration) -> Option<Sleep> {
    if held <= HELD_MAX || CONNECTIONS.get() < 2 || Handle::try_current().is_err() {
        return None;
    }
    length(held.saturating_sub(waited_for_processor())).map(sleep)
}

fn length(held: Duration) -> Option<Duration> {
    (held > HELD_MAX).then(|| held.saturating_mul(PAUSE_FACTOR).min(PAUSE_MAX))
}

/// How long this thread has waited for a processor since the last time that this was asked. What it waited for is not the doing
/// of the connection. Nothing where the system does not tell.
fn waited_for_processor() -> Duration {
    // Time on a processor, time of waiting for one, both in nanoseconds, and a count (Linux, sched-stats.rst).
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let waited = Duration::from_nanos(waited);
    waited.saturating_sub(WAITED.replace(waited))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_a_multiple_of_what_was_too_long() {
        let milliseconds = Duration::from_millis;
        for (held, pause) in [(0, None), (4, None), (5, Some(50)), (150, Some(1500)), (1000, Some(2000))] {
            assert_eq!(length(milliseconds(held)), pause.map(milliseconds), "{held}");
        }
    }

    #[test]
    fn who_is_alone_has_no_pause() {
        let _one = OneConnection::new();
        assert!(after(Duration::from_secs(1)).is_none());
    }
}
