//! How many bytes of something are done, and how fast: on a terminal as one line that changes, elsewhere as a line now and
//! then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{env, ui};

/// What is over sooner than this is not shown while it lasts.
const SILENT: Duration = Duration::from_millis(500);

/// How often the line on a terminal changes.
const SCREEN_EVERY: Duration = Duration::from_millis(100);

/// How often there is a line in a log.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Counts bytes and shows them on standard error, unless the user wants to hear only what went wrong.
pub(super) struct Meter {
    /// Such as `pushing`.
    what: String,
    bytes_max: Option<u64>,
    started: Instant,
    every: Duration,
    is_screen: bool,
    /// Locked for the length of a message.
    state: Mutex<State>,
}

struct State {
    bytes: u64,
    shown: Instant,
}

impl Meter {
    /// Counts from zero, to `bytes_max` at most where that is known.
    pub(super) fn new(what: impl Into<String>, bytes_max: Option<u64>) -> Self {
        let is_screen = env::stderr_is_screen();
        let every = if is_screen { SCREEN_EVERY } else { LOG_EVERY };
        let started = Instant::now();
        let state = Mutex::new(State { bytes: 0, shown: started + SILENT.saturating_sub(every) });
        Self { what: what.into(), bytes_max, started, every, is_screen, state }
    }

    /// Adds bytes that are done.
    pub(super) fn add(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes = state.bytes.saturating_add(bytes);
        if Instant::now().saturating_duration_since(state.shown) < self.every {
            return;
        }
        state.shown = Instant::now();
        let line = format!("{}: {}", self.what, amount(state.bytes, self.bytes_max, self.started.elapsed()));
        if self.is_screen { ui::transient(&line) } else { ui::progress(&line) }
    }

    /// All that was done, as `12.0 MiB, 48.0 MiB/s`.
    pub(super) fn total(&self) -> String {
        let bytes = self.state.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        amount(bytes, None, self.started.elapsed())
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.is_screen {
            ui::transient("");
        }
    }
}

fn amount(bytes: u64, bytes_max: Option<u64>, elapsed: Duration) -> String {
    let of = bytes_max.map(|bytes_max| format!(" of {}", size(bytes_max as f64))).unwrap_or_default();
    let rate = bytes as f64 / elapsed.as_secs_f64().max(0.001);
    format!("{}{of}, {}/s", size(bytes as f64), size(rate))
}

/// A number of bytes for people.
pub(super) fn size(bytes: f64) -> String {
    let units = [("KiB", 1u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    match units.into_iter().rfind(|(_, unit)| bytes >= *unit as f64) {
        Some((name, unit)) => format!("{:.1} {name}", bytes / unit as f64),
        None => format!("{bytes:.0} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_rates() {
        let second = Duration::from_secs(1);
        assert_eq!(amount(3 << 20, None, second * 2), "3.0 MiB, 1.5 MiB/s");
        assert_eq!(amount(3 << 20, Some(6 << 20), second), "3.0 MiB of 6.0 MiB, 3.0 MiB/s");
        assert_eq!(amount(3 << 30, Some(5 << 40), second), "3.0 GiB of 5.0 TiB, 3.0 GiB/s");
        assert_eq!(amount(1024, Some(1023), second), "1.0 KiB of 1023 B, 1.0 KiB/s");
        assert_eq!(amount(0, Some(0), Duration::ZERO), "0 B of 0 B, 0 B/s");
    }
}
