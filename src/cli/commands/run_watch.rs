//! `ww run --watch`: another `ww` runs the image, and is replaced after each good build.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};
use std::{io, mem};

use rustix::process::{Pid, Signal};

use crate::cli::error::Failure;
use crate::cli::progress::Shown;
use crate::cli::project::{self, GivenImage};
use crate::cli::sources::SourceArgs;
use crate::cli::watch::{self, Watching};
use crate::cli::{env, exit_code, ui};
use crate::dag::Cid;
use crate::ops::BuildOptions;
use crate::wetfile::Project;

/// How long a run that was told to end may take until it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// How often a run that was told to end is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Runs an image of the Wetfile until a signal comes.
pub(super) fn run(given: &Path, sources: &SourceArgs, verbose: bool) -> ExitCode {
    match try_run(given, sources, verbose) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ui::failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}

fn try_run(given: &Path, sources: &SourceArgs, verbose: bool) -> Result<(), Failure> {
    let of_run = |failure: Failure| match failure.code {
        code if code > exit_code::SIGNAL_BASE => failure,
        _ => Failure { code: exit_code::RUN_FAILURE, ..failure },
    };
    let name = match project::image(given).map_err(of_run)? {
        GivenImage::OfProject(_, name) => Some(name),
        GivenImage::Path(path) => project::image_to_run(&path)?.map(|(_, name)| name),
        GivenImage::Content(_) => None,
    };
    let Some(name) = name.map(|name| name.to_string()) else {
        let message = "--watch needs an image of a Wetfile.toml: other images are built by nobody";
        return Err(Failure::message(exit_code::RUN_FAILURE, message));
    };
    let mut runs = Runs { names: vec![name.clone()], sources, verbose, running: None, image: Vec::new() };
    let ended = watch::watch(&[name], None, &mut runs);
    runs.end();
    ended.map_err(of_run)
}

/// What runs the image that was built last.
struct Runs<'a> {
    names: Vec<String>,
    sources: &'a SourceArgs,
    verbose: bool,
    running: Option<Child>,
    /// The CIDs of what it was started with.
    image: Vec<Cid>,
}

impl Watching for Runs<'_> {
    fn build(&mut self, project: &Project) -> Result<(), Failure> {
        let shown = Shown { verbose: self.verbose, ..Shown::default() };
        let built = project::build(project, &self.names, BuildOptions::default(), self.sources, shown)?;
        // Whether this build has changed it says nothing: another `ww` may have built it before.
        let image: Vec<Cid> = built.images.iter().map(|image| image.cid).collect();
        if self.running.is_some() && image == self.image {
            return Ok(());
        }
        self.end();
        let failed = |error: io::Error| Failure::caused(exit_code::RUN_FAILURE, "cannot start ww", &error);
        let mut command = Command::new(env::this_program().map_err(failed)?);
        command.args(arguments(env::arguments()));
        if let Some(directory) = env::first_directory() {
            command.current_dir(directory);
        }
        self.running = Some(command.spawn().map_err(failed)?);
        self.image = image;
        Ok(())
    }

    fn poll(&mut self) {
        if let Some(status) = self.running.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            self.running = None;
            ui::progress(&format!("the run ended {}; the next build starts it again", shown(status)));
        }
    }
}

impl Runs<'_> {
    /// Ends what runs: asks, waits, and kills.
    fn end(&mut self) {
        let Some(mut child) = mem::take(&mut self.running) else { return };
        // It may have ended already.
        let _ = rustix::process::kill_process(Pid::from_child(&child), Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < GRACE {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// The arguments of this process for the one that runs the image: without the flag that made it watch.
fn arguments(all: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut is_guest = false;
    let is_kept = |argument: &OsString| {
        is_guest |= argument == "--";
        is_guest || argument != "--watch"
    };
    all.filter(is_kept).collect()
}

fn shown(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("with exit code {code}"),
        (None, signal) => format!("by signal {}", signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_taken_out_and_not_that_of_the_guest() {
        let all = ["run", "--watch", "x", "--port", "0", "--", "--watch"].map(OsString::from);
        assert_eq!(arguments(all.into_iter()), ["run", "x", "--port", "0", "--", "--watch"]);
    }
}
