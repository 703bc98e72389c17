//! What a build says while it runs.
//!
//! On a terminal a line for each guest that is being built, with the time that it takes and the last line of its compiler;
//! elsewhere a line for each beginning and end. What compilers say is kept back until it is known that it is needed, and the
//! lines of a guest that failed come last. On GitHub Actions they are fenced off, and what a compiler says is wrong becomes an
//! annotation. Beside that there are the same events for programs, and a trace for those who want to see what took how long.

mod events;
mod live;
mod timings;
mod withheld;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::error::Failure;
use super::github::{self, Annotation};
use super::{env, exit_code, ui};
use crate::build::Event;
use crate::escape;
use crate::wetfile::{GuestName, ImageName, Project, ProjectPath};

pub(super) use events::of_reason;

use live::Live;
use timings::Timings;
use withheld::Withheld;

/// How a build is shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// Whether compilers' lines are shown as they come.
    pub(super) verbose: bool,
    /// Whether events are written to standard output for programs.
    pub(super) events: bool,
    /// Where a trace is written to.
    pub(super) timings: Option<PathBuf>,
}

impl Shown {
    /// Refuses what could not be written in the end, before anything is built.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match &self.timings {
            Some(path) => timings::check(path).map_err(|error| cannot_write(path, &error)),
            None => Ok(()),
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::caused(exit_code::FAILURE, format!("cannot write {}", escape::path(path)), error)
}

/// Shows the events of a build.
pub(super) struct Progress<'a> {
    shown: Shown,
    project: &'a Project,
    is_github: bool,
    state: Arc<Mutex<State>>,
    /// Draws what runs, where there is a terminal.
    live: Option<Live>,
}

/// What is known of a build. Locked for the length of a line.
#[derive(Default)]
struct State {
    running: Vec<Running>,
    /// The last lines of guests that are being built or have failed.
    withheld: BTreeMap<GuestName, Withheld>,
    failed: Vec<GuestName>,
    timings: Timings,
}

/// A guest that is being built.
struct Running {
    guest: GuestName,
    start: Instant,
    /// The last line of its compiler, not escaped.
    line: String,
}

impl<'a> Progress<'a> {
    pub(super) fn new(shown: Shown, project: &'a Project) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let is_live = env::stderr_is_screen() && !shown.verbose && !ui::is_quiet();
        let live = is_live.then(|| Live::new(state.clone()));
        Self { shown, project, is_github: github::is_here(), state, live }
    }

    pub(super) fn show(&self, event: &Event<'_>) {
        if self.shown.events
            && let Some(event) = events::as_json(event)
        {
            // Where standard output takes no more, the exit code still tells.
            let _ = ui::result_line(&escape::json(&event.to_string()));
        }
        let mut state = lock(&self.state);
        state.timings.note(event);
        match event {
            Event::Waiting { root } => {
                ui::progress(&format!("waiting for another ww, which builds in {}", escape::path(root)));
            }
            Event::Started { guest, reasons } => {
                state.running.push(Running { guest: (*guest).clone(), start: Instant::now(), line: String::new() });
                if self.live.is_none() {
                    ui::progress(&format!("building {guest}"));
                }
                for reason in *reasons {
                    tracing::debug!(guest = guest.as_str(), reason = reason.to_string(), "building");
                }
            }
            Event::Output { guest, line } => {
                if let Some(running) = state.running.iter_mut().find(|running| running.guest == **guest) {
                    (*line).clone_into(&mut running.line);
                }
                match self.shown.verbose && !self.is_github {
                    true => ui::progress(&format!("{guest}: {}", escape::text(line))),
                    false => state.withheld.entry((*guest).clone()).or_default().push((*line).to_owned()),
                }
            }
            Event::Warning { guest, text } => ui::progress(&format!("{guest}: warning: {text}")),
            Event::Finished { guest, elapsed } => {
                state.running.retain(|running| running.guest != **guest);
                let withheld = state.withheld.remove(*guest).unwrap_or_default();
                let line = format!("built {guest} in {:.1} s", elapsed.as_secs_f64());
                match self.is_github && self.shown.verbose {
                    true if ui::is_quiet() => {}
                    true => github::group(&line, &withheld.into_lines()).iter().for_each(|line| ui::command(line)),
                    false => ui::progress(&line),
                }
            }
            Event::Failed { guest, .. } => {
                state.running.retain(|running| running.guest != **guest);
                state.failed.push((*guest).clone());
            }
            Event::Assembled { .. } => {}
        }
        drop(state);
        if let Some(live) = &self.live {
            live.draw();
        }
    }

    /// Ends the display; shows the lines of the guests that failed, those that failed first last: what comes later often
    /// only follows.
    pub(super) fn show_failed(&mut self) {
        self.live = None;
        let mut state = lock(&self.state);
        let mut failed = std::mem::take(&mut state.failed);
        failed.reverse();
        for guest in failed {
            let lines = state.withheld.remove(&guest).unwrap_or_default().into_lines();
            if self.is_github {
                github::fenced(&lines).iter().for_each(|line| ui::command(line));
                let folder = self.project.guests.get(&guest).map_or(ProjectPath::root(), |guest| guest.dir.clone());
                let located = |file: &str| github::located(&self.project.root, &folder, file);
                for annotation in github::annotations(&lines, &located) {
                    ui::command(&annotation.command());
                }
            } else {
                lines.iter().for_each(|line| ui::status(&format!("{guest}: {}", escape::text(line))));
            }
        }
    }

    /// Annotates what failed, on GitHub Actions.
    pub(super) fn annotate(&self, failure: &Failure) {
        if self.is_github && !failure.message.is_empty() {
            let causes = failure.causes.iter().map(|cause| format!(": {cause}")).collect::<String>();
            let annotation = Annotation::of_wetfile(&self.project.root, format!("{}{causes}", failure.message));
            ui::command(&annotation.command());
        }
    }

    /// Ends the display, and writes what took how long, if that is wanted.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.live = None;
        let Some(path) = &self.shown.timings else { return Ok(()) };
        let trace = lock(&self.state).timings.trace();
        crate::atomic_file::replace(path, trace.as_bytes(), timings::FILE_MODE)
            .map_err(|error| cannot_write(path, &error))
    }
}

/// No code panics while it holds the lock.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An image, for those who show events.
fn image_text(image: &ImageName) -> String {
    format!("image {image}")
}
