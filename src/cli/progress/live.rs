//! The display on a terminal: a line for each guest that is being built.

use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{State, lock};
use crate::cli::{env, ui};
use crate::escape;

/// How often times are shown anew.
const TICK: Duration = Duration::from_millis(100);

/// Lines of the terminal that stay free, so that what was said before can be seen.
const ROWS_FREE: usize = 2;

/// Draws what runs, until it is dropped.
pub(super) struct Live {
    state: Arc<Mutex<State>>,
    end: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    pub(super) fn new(state: Arc<Mutex<State>>) -> Self {
        Self { state, end: None, thread: None }.started()
    }

    /// Without a thread, times stand still, and that is all.
    fn started(mut self) -> Self {
        let (end, ended) = mpsc::sync_channel(1);
        let state = self.state.clone();
        let draw = move || {
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                draw(&state);
            }
        };
        self.thread = thread::Builder::new().name("ww-progress".into()).spawn(draw).ok();
        self.end = Some(end);
        self
    }

    pub(super) fn draw(&self) {
        draw(&self.state);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to panic with.
            let _ = thread.join();
        }
        ui::transient_lines(&[]);
    }
}

fn draw(state: &Mutex<State>) {
    let (columns, rows) = env::stderr_size();
    let state = lock(state);
    ui::transient_lines(&lines(&state, columns, rows.saturating_sub(ROWS_FREE).max(1)));
}

/// What to show, no line longer than the terminal is wide.
fn lines(state: &State, columns: usize, rows: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let shown = if state.running.len() > rows { rows - 1 } else { state.running.len() };
    for running in &state.running[..shown] {
        let line = format!("building {} {:.1} s", running.guest, running.start.elapsed().as_secs_f64());
        let said = escape::text(running.line.trim());
        lines.push(cut(&if said.is_empty() { line } else { format!("{line}: {said}") }, columns));
    }
    if shown < state.running.len() {
        lines.push(cut(&format!("and {} more", state.running.len() - shown), columns));
    }
    lines
}

/// The beginning of a line, as far as there is room. Characters that take two columns are counted twice where they are
/// known to: all beyond Latin, Greek and Cyrillic, to be sure.
fn cut(line: &str, columns: usize) -> String {
    let mut room = columns.saturating_sub(1);
    let mut cut = String::new();
    for character in line.chars() {
        let width = if character < '\u{1100}' { 1 } else { 2 };
        if width > room {
            break;
        }
        room -= width;
        cut.push(character);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::super::Running;
    use super::*;
    use crate::wetfile::GuestName;
    use std::time::Instant;

    #[test]
    fn lines_fit_the_terminal() {
        let running = |name: &str, line: &str| Running {
            guest: GuestName::new(name).unwrap(),
            start: Instant::now(),
            line: line.to_owned(),
        };
        let state = State {
            running: vec![running("a", "  Compiling\u{1b}[2J x"), running("b", ""), running("c", "größe 漢字漢字")],
            ..State::default()
        };
        assert_eq!(lines(&state, 80, 5)[..2], ["building a 0.0 s: Compiling\\u{1b}[2J x", "building b 0.0 s"]);
        assert_eq!(lines(&state, 80, 2), ["building a 0.0 s: Compiling\\u{1b}[2J x", "and 2 more"]);
        assert_eq!(lines(&state, 27, 5)[2], "building c 0.0 s: größe 漢");
        assert_eq!(lines(&state, 5, 1), ["and "]);
    }
}
