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
