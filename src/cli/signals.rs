//! Signals that stop what a command with a runtime does.

use std::mem;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::cancel::SignalsHandled;
use super::error::Failure;
use super::exit_code;

/// A signal that ends what is being done.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct StopSignal {
    pub(in crate::cli) name: &'static str,
    pub(in crate::cli) number: u8,
}

const SIGHUP: StopSignal = StopSignal { name: "SIGHUP", number: 1 };
const SIGINT: StopSignal = StopSignal { name: "SIGINT", number: 2 };
const SIGQUIT: StopSignal = StopSignal { name: "SIGQUIT", number: 3 };
const SIGTERM: StopSignal = StopSignal { name: "SIGTERM", number: 15 };

impl StopSignal {
    /// The signal that stopped a command, if that is why it failed.
    pub(in crate::cli) fn of(failure: &Failure) -> Option<Self> {
        let number = failure.code.checked_sub(exit_code::SIGNAL_BASE)?;
        [SIGHUP, SIGINT, SIGTERM].into_iter().find(|signal| signal.number == number)
    }
}

/// Waits for signals. From the first value on they do not end the process by themselves any more.
pub(in crate::cli) struct StopSignals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
    /// Where it is waited for, too.
    quit: Option<Signal>,
}

impl StopSignals {
    /// With `quits`, also for SIGQUIT, which Ctrl-\ sends. Elsewhere that one ends a process that hangs.
    pub(in crate::cli) fn new(quits: bool) -> std::io::Result<Self> {
        let signals = Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: quits.then(|| signal(SignalKind::quit())).transpose()?,
        };
        // For good: what is left to be done after a signal is done.
        mem::forget(SignalsHandled::new()?);
        Ok(signals)
    }

    /// The next signal that comes.
    pub(in crate::cli) async fn next(&mut self) -> StopSignal {
        let quit = async {
            match &mut self.quit {
                Some(quit) => quit.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = quit => SIGQUIT,
            _ = self.hangup.recv() => SIGHUP,
            _ = self.interrupt.recv() => SIGINT,
            _ = self.terminate.recv() => SIGTERM,
        }
    }
}
