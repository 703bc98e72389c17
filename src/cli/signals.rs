//! Signals that stop what a command with a runtime does.

use tokio::signal::unix::{Signal, SignalKind, signal};

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
}

impl StopSignals {
    pub(in crate::cli) fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next signal that comes.
    pub(in crate::cli) async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.hangup.recv() => SIGHUP,
            _ = self.interrupt.recv() => SIGINT,
            _ = self.terminate.recv() => SIGTERM,
        }
    }
}
