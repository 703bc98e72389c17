//! What a build says while it runs, line by line on standard error.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::ui;
use crate::build::Event;
use crate::escape;

/// How many lines of a compiler are kept for the case that it fails.
const WITHHELD_LINES_MAX: usize = 2000;

/// Shows the events of a build. The lines of compilers are shown at once where that is wanted, and else kept back until
/// it is known that they are needed.
pub(super) struct Progress {
    verbose: bool,
    /// The last lines of the guest that is being built. Locked for the length of a push.
    withheld: Mutex<VecDeque<String>>,
}

impl Progress {
    pub(super) fn new(verbose: bool) -> Self {
        Self { verbose, withheld: Mutex::default() }
    }

    pub(super) fn show(&self, event: &Event<'_>) {
        match event {
            Event::Waiting { lock } => {
                ui::progress(&format!("waiting for another ww, which holds {}", escape::path(lock)));
            }
            Event::Started { guest } => ui::progress(&format!("building {guest}")),
            Event::Output { guest, line } => self.line(format!("{guest}: {}", escape::text(line))),
            Event::Warning { guest, text } => ui::progress(&format!("{guest}: warning: {text}")),
            Event::Finished { guest, elapsed } => {
                self.withheld().clear();
                ui::progress(&format!("built {guest} in {:.1} s", elapsed.as_secs_f64()));
            }
        }
    }

    /// Shows the lines of the guest that failed.
    pub(super) fn show_withheld(&self) {
        for line in self.withheld().drain(..) {
            ui::status(&line);
        }
    }

    fn line(&self, line: String) {
        if self.verbose {
            ui::progress(&line);
            return;
        }
        let mut withheld = self.withheld();
        if withheld.len() == WITHHELD_LINES_MAX {
            withheld.pop_front();
        }
        withheld.push_back(line);
    }

    fn withheld(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
