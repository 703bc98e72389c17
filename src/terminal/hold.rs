//! The time in which a guest has the terminal.

use std::io;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::task::JoinHandle;

use super::Terminal;

/// How often a process looks whether it has come to the foreground, where its guest wants raw mode. No signal tells it.
const LOOK: Duration = Duration::from_millis(200);

/// Those that tokio has no names for.
const STOP: i32 = Signal::TSTP.as_raw();
const CONTINUE: i32 = Signal::CONT.as_raw();

/// Puts the terminal back when it is dropped, and while the process is stopped.
#[derive(Debug)]
pub struct Held {
    terminal: Terminal,
    task: JoinHandle<()>,
}

impl Terminal {
    /// Begins the time in which a guest has it. Called on a tokio runtime, on which signals are waited for from now on.
    ///
    /// # Errors
    ///
    /// Signals cannot be waited for.
    pub fn hold(self) -> io::Result<Held> {
        let signals = [SignalKind::window_change(), SignalKind::from_raw(STOP), SignalKind::from_raw(CONTINUE)];
        let [resized, stop, go_on] = signals.map(signal);
        let task = tokio::spawn(follow(self.clone(), resized?, stop?, go_on?));
        Ok(Held { terminal: self, task })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.task.abort();
        self.terminal.0.restore();
    }
}

async fn follow(terminal: Terminal, mut resized: Signals, mut stop: Signals, mut go_on: Signals) {
    loop {
        tokio::select! {
            _ = resized.recv() => { terminal.0.changed.send_replace(()); }
            _ = stop.recv() => {
                terminal.0.pause();
                // Returns when the process goes on. Not SIGTSTP, which is handled here.
                let _ = kill_process(getpid(), Signal::STOP);
                terminal.0.resume();
            }
            _ = go_on.recv() => terminal.0.resume(),
            () = tokio::time::sleep(LOOK), if terminal.0.is_waiting() => terminal.0.resume(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use nix::fcntl::OFlag;
    use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};

    use super::super::{TerminalError, reset};
    use super::*;

    /// Both sides of a pseudo-terminal.
    fn pty() -> (File, File) {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname_r(&master).unwrap();
        let slave = File::options().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(name).unwrap();
        (OwnedFd::from(master).into(), slave)
    }

    fn modes(terminal: &File) -> LocalModes {
        tcgetattr(terminal).unwrap().local_modes
    }

    #[tokio::test]
    async fn a_panic_puts_it_back() {
        let (mut master, slave) = pty();
        let dir = tempfile::tempdir().unwrap();
        // In place of the watcher: it is ready, and goes.
        let program = dir.path().join("watcher");
        fs::write(&program, "#!/bin/sh\nprintf ! >&0\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let terminal = Terminal::new([slave.as_fd(), slave.as_fd(), slave.as_fd()], program).unwrap();
        let before = modes(&slave);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _held = terminal.clone().hold().unwrap();
            // Another thread may be starting a process that has the program open for an instant.
            while let Err(TerminalError::Watcher(error)) = terminal.set_raw(true) {
                assert_eq!(error.kind(), io::ErrorKind::ExecutableFileBusy);
            }
            assert!(!modes(&slave).intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
            terminal.pass(true, || Ok(())).unwrap();
            panic!("while the guest has the terminal");
        }));
        assert!(panicked.is_err());
        assert_eq!(modes(&slave), before);
        let mut shown = vec![0; reset::SEQUENCES.len()];
        master.read_exact(&mut shown).unwrap();
        assert_eq!(String::from_utf8(shown).unwrap(), reset::SEQUENCES);
        assert!(matches!(terminal.set_raw(true), Err(TerminalError::Over)));
    }

    #[tokio::test]
    async fn without_a_watcher_there_is_no_raw_mode() {
        let (_master, slave) = pty();
        let terminal = Terminal::new([slave.as_fd(), slave.as_fd(), slave.as_fd()], "/bin/false".into()).unwrap();
        let before = modes(&slave);
        let _held = terminal.clone().hold().unwrap();
        assert!(matches!(terminal.set_raw(true), Err(TerminalError::Watcher(_))));
        assert_eq!(modes(&slave), before);
    }
}
