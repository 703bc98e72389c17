//! The `ww` that builds in a copy: as whom, and with what of the machine in reach.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::build::{Cancel, Variables};

/// The user and the group that nobody is (`nobody` and `nogroup` of most systems).
pub(super) const NOBODY: u32 = 65_534;

/// Most bytes that are kept of what a build says, which are the last.
const SAID_BYTES_MAX: usize = 16 << 10;

/// How often it is looked whether a build has ended.
const POLL: Duration = Duration::from_millis(20);

/// How long a build that was told to end may take to do so.
const END_GRACE: Duration = Duration::from_secs(10);

/// Starts programs in other surroundings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Launch {
    /// What stands before the program.
    prefix: Vec<OsString>,
    /// Whether there is no network.
    pub(super) without_network: bool,
    /// Whether it is as [`NOBODY`].
    pub(super) as_nobody: bool,
}

impl Launch {
    /// The ways to start a program here, the furthest from this process's own surroundings first; the last always works.
    pub(super) fn possible(wants_nobody: bool, variables: &Variables) -> Vec<Self> {
        let is_root = rustix::process::geteuid().is_root();
        let unshare: &[&str] =
            if is_root { &["unshare", "--net"] } else { &["unshare", "--net", "--map-current-user"] };
        let nobody = [
            "setpriv".to_owned(),
            format!("--reuid={NOBODY}"),
            format!("--regid={NOBODY}"),
            "--clear-groups".to_owned(),
            "--".to_owned(),
        ];
        let mut launches = Vec::new();
        for (as_nobody, without_network) in [(true, true), (true, false), (false, true)] {
            if as_nobody && !(wants_nobody && is_root) {
                continue;
            }
            let mut prefix: Vec<OsString> = Vec::new();
            prefix.extend(unshare.iter().filter(|_| without_network).map(OsString::from));
            prefix.extend(nobody.iter().filter(|_| as_nobody).map(OsString::from));
            let launch = Self { prefix, without_network, as_nobody };
            if launch.works(variables) {
                launches.push(launch);
            }
        }
        launches.push(Self::default());
        launches
    }

    fn works(&self, variables: &Variables) -> bool {
        let mut command = self.command(&["/bin/sh".into(), "-c".into(), ":".into()], variables);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// The call of a program with its arguments.
    pub(super) fn command(&self, call: &[OsString], variables: &Variables) -> Command {
        let mut words = self.prefix.iter().chain(call);
        let mut command = Command::new(words.next().map_or("/bin/sh".as_ref(), OsString::as_os_str));
        command.args(words).env_clear().envs(variables);
        command
    }
}

/// How a build ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself; with what it said last.
    Done { status: ExitStatus, said: String },
    /// It was stopped.
    Stopped,
}

/// Runs a build to its end, or until it is stopped; then it has stopped its compilers as well.
pub(super) fn run(command: &mut Command, cancel: &Cancel) -> io::Result<Ended> {
    if cancel.is_cancelled() {
        return Ok(Ended::Stopped);
    }
    // A terminal's Ctrl-C is for this process, which hands it on.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let said = child.stderr.take().map(|pipe| thread::spawn(move || last_of(pipe)));
    let mut told = None;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        match told {
            None if cancel.is_cancelled() => {
                told = Some(Instant::now());
                let _ = rustix::process::kill_process(Pid::from_child(&child), Signal::TERM);
            }
            Some(since) if since.elapsed() > END_GRACE => kill(&mut child),
            _ => {}
        }
        thread::sleep(POLL);
    };
    if told.is_some() || cancel.is_cancelled() {
        return Ok(Ended::Stopped);
    }
    let said = said.and_then(|said| said.join().ok()).unwrap_or_default();
    Ok(Ended::Done { status, said })
}

fn kill(child: &mut Child) {
    let _ = rustix::process::kill_process_group(Pid::from_child(child), Signal::KILL);
}

/// The last that comes out of a pipe.
fn last_of(mut pipe: impl Read) -> String {
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = pipe.read(&mut buffer) {
        said.extend_from_slice(&buffer[..length]);
        if said.len() > 2 * SAID_BYTES_MAX {
            said.drain(..said.len() - SAID_BYTES_MAX);
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// How a build ended, to stand after `it`.
pub(super) fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, signal) => format!("was killed by signal {}", signal.unwrap_or_default()),
    }
}
