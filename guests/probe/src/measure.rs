//! Times of many repetitions.

use std::io::{self, Write};
use std::time::{Duration, Instant};

/// The times that something took.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Adds the time since `start`.
    pub(crate) fn add_since(&mut self, start: Instant) {
        self.0.push(start.elapsed());
    }

    /// Prints `NAME: min … mean … p50 … p99 … max … ns` to stderr.
    pub(crate) fn print(mut self, name: &str) -> io::Result<()> {
        self.0.sort_unstable();
        let Some((min, max)) = self.0.first().zip(self.0.last()) else { return Ok(()) };
        let at = |percent: usize| self.0[(self.0.len() - 1) * percent / 100].as_nanos();
        let mean = self.0.iter().sum::<Duration>().as_nanos() / self.0.len() as u128;
        let (min, max) = (min.as_nanos(), max.as_nanos());
        writeln!(io::stderr(), "{name}: min {min} mean {mean} p50 {} p99 {} max {max} ns", at(50), at(99))
    }
}
