//! Signals that stop what a command without a runtime does.

use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::Failure;
use super::exit_code;
use crate::build::Cancel;

/// Does work that a signal stops.
///
/// # Errors
///
/// Those of the work, or that a signal came.
pub(super) fn stoppable<T, E>(work: impl FnOnce(&Cancel) -> Result<T, E>) -> Result<T, Failure>
where
    Failure: From<E>,
{
    let cancel = Cancel::default();
    let signals = CancelOnSignal::watch(&cancel).map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    signals.result(work(&cancel).map_err(Failure::from))
}

/// Cancels something when the process is told to stop. While it lives, signals do not end the process by themselves.
///
/// Compilers run in process groups of their own, so a terminal's Ctrl-C does not reach them by itself.
pub(super) struct CancelOnSignal {
    /// The first signal that came. Written by the thread that waits for signals.
    first: Arc<Mutex<Option<u8>>>,
    handle: signal_hook::iterator::Handle,
}

impl CancelOnSignal {
    pub(super) fn watch(cancel: &Cancel) -> io::Result<Self> {
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        let first = Arc::new(Mutex::new(None));
        let watching = Self { first: first.clone(), handle: signals.handle() };
        let cancel = cancel.clone();
        thread::Builder::new().name("ww-signals".into()).spawn(move || {
            for signal in signals.forever() {
                let number = u8::try_from(signal).unwrap_or_default();
                first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(number);
                cancel.cancel();
            }
        })?;
        Ok(watching)
    }

    /// The result of what was to be stopped by a signal, or that one came.
    pub(super) fn result<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        match self.signal() {
            // However far it came, the user wants no more of it, and knows why.
            Some(signal) => Err(Failure::message(exit_code::SIGNAL_BASE.saturating_add(signal), String::new())),
            None => result,
        }
    }

    /// The first signal that came.
    pub(super) fn signal(&self) -> Option<u8> {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CancelOnSignal {
    fn drop(&mut self) {
        self.handle.close();
    }
}
