//! What a build says while it runs, line by line on standard error.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ui;
use crate::build::Event;
use crate::escape;
use crate::wetfile::GuestName;

/// How many bytes of a compiler's lines are kept for the case that it fails: some ten thousand lines, or a long one.
const WITHHELD_BYTES_MAX: usize = 1 << 20;

/// What a line costs beside its text, so that empty ones are bounded as well.
const LINE_BYTES: usize = size_of::<String>();

/// Shows the events of a build. The lines of compilers are shown at once where that is wanted, and else kept back until
/// it is known that they are needed.
pub(super) struct Progress {
    verbose: bool,
    /// The last lines of the guests that are being built. Locked for the length of a push.
    withheld: Mutex<BTreeMap<GuestName, Withheld>>,
}

/// The last lines that came, not escaped, which makes lines longer.
#[derive(Default)]
struct Withheld {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Withheld {
    /// Keeps a line, and drops the oldest ones as far as there is no room for them.
    fn push(&mut self, line: String) {
        self.bytes += line.len() + LINE_BYTES;
        self.lines.push_back(line);
        while self.bytes > WITHHELD_BYTES_MAX && self.lines.len() > 1 {
            self.bytes -= self.lines.pop_front().map_or(0, |oldest| oldest.len() + LINE_BYTES);
        }
    }
}

impl Progress {
    pub(super) fn new(verbose: bool) -> Self {
        Self { verbose, withheld: Mutex::default() }
    }

    pub(super) fn show(&self, event: &Event<'_>) {
        match event {
            Event::Waiting { root } => {
                ui::progress(&format!("waiting for another ww, which builds in {}", escape::path(root)));
            }
            Event::Started { guest, .. } => ui::progress(&format!("building {guest}")),
            Event::Output { guest, line } if self.verbose => {
                ui::progress(&format!("{guest}: {}", escape::text(line)));
            }
            Event::Output { guest, line } => {
                self.withheld().entry((*guest).clone()).or_default().push((*line).to_owned());
            }
            Event::Warning { guest, text } => ui::progress(&format!("{guest}: warning: {text}")),
            Event::Finished { guest, elapsed } => {
                self.withheld().remove(*guest);
                ui::progress(&format!("built {guest} in {:.1} s", elapsed.as_secs_f64()));
            }
        }
    }

    /// Shows the lines of the guests that failed: all that have not been finished.
    pub(super) fn show_withheld(&self) {
        for (guest, withheld) in std::mem::take(&mut *self.withheld()) {
            for line in withheld.lines {
                ui::status(&format!("{guest}: {}", escape::text(&line)));
            }
        }
    }

    fn withheld(&self) -> MutexGuard<'_, BTreeMap<GuestName, Withheld>> {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_within_the_bound() {
        let mut withheld = Withheld::default();
        let long = "x".repeat(WITHHELD_BYTES_MAX / 3);
        for number in 0..10 {
            withheld.push(format!("{number}{long}"));
        }
        assert!(withheld.bytes <= WITHHELD_BYTES_MAX);
        let firsts: Vec<_> = withheld.lines.iter().map(|line| &line[..1]).collect();
        assert_eq!(firsts, ["8", "9"]);
        for _ in 0..WITHHELD_BYTES_MAX {
            withheld.push(String::new());
        }
        assert!(withheld.lines.len() <= WITHHELD_BYTES_MAX / LINE_BYTES);
    }
}
