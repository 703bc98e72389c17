//! How long a thread has computed for a cell.

use std::cell::Cell;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What takes less is taken for computing: to ask how long the thread had a processor takes a system call of a microsecond or
/// two, many times what a short turn of a cell takes, and hardly any of those is interrupted.
const SHORT: Duration = Duration::from_micros(500);

thread_local! {
    static CLOCK: Cell<ThreadClock> = const { Cell::new(ThreadClock { had: None, booked: Duration::ZERO }) };
}

/// What is known of a thread.
#[derive(Clone, Copy)]
struct ThreadClock {
    /// How long it had had a processor when that was asked last.
    had: Option<Duration>,
    /// What was booked since then.
    booked: Duration,
}

impl ThreadClock {
    /// How much of a turn that took so long is booked, where the thread `has` had a processor for so long by now.
    fn book(&mut self, turn: Duration, has: impl FnOnce() -> Duration) -> Duration {
        if turn < SHORT {
            self.booked += turn;
            return turn;
        }
        let has = has();
        // No more than it can have had since then, less what others have paid for already.
        let most = self.had.map_or(turn, |had| has.saturating_sub(had).saturating_sub(self.booked));
        *self = Self { had: Some(has), booked: Duration::ZERO };
        turn.min(most)
    }
}

/// To be called before a cell has its first turn on this thread.
pub(super) fn begin() {
    let clock = CLOCK.get();
    if clock.had.is_none() {
        CLOCK.set(ThreadClock { had: Some(had()), ..clock });
    }
}

/// How long this thread had a processor.
fn had() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// How much of a turn of a cell on this thread, which took so long and has just ended, it has computed. The rest it was kept
/// from it by other processes, or was stopped.
pub(super) fn computed(turn: Duration) -> Duration {
    let mut clock = CLOCK.get();
    let computed = clock.book(turn, had);
    CLOCK.set(clock);
    computed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn no_more_is_booked_than_the_thread_had() {
        let ms = Duration::from_millis;
        let mut clock = ThreadClock { had: None, booked: Duration::ZERO };
        assert_eq!(clock.book(ms(3), || ms(100)), ms(3), "nothing is known yet");
        assert_eq!(clock.book(ms(2), || ms(102)), ms(2));
        assert_eq!(clock.book(ms(5), || ms(103)), ms(1), "others had the processor meanwhile");
        let short = Duration::from_micros(400);
        assert_eq!(clock.book(short, || unreachable!("it is not worth it")), short);
        assert_eq!(clock.book(ms(5), || ms(104)), Duration::from_micros(600), "the rest is booked already");
        assert_eq!(clock.book(ms(1), || ms(110)), ms(1), "what the thread does for nobody is booked to nobody");
        assert_eq!(clock.book(ms(1), || ms(110)), Duration::ZERO);
    }

    #[test]
    fn who_sleeps_does_not_compute() {
        begin();
        let start = Instant::now();
        std::thread::sleep(Duration::from_millis(100));
        assert!(computed(start.elapsed()) < Duration::from_millis(100));
    }
}
