//! Signals that stop what a command without a runtime does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_default;
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

/// The signals that tell a process to stop.
pub(super) const STOPPING: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];

/// While it lives, the signals that tell the process to stop do not end it by themselves: somebody does what they ask for.
///
/// Once handled, a signal would stay without any effect when its handler is gone (`signal-hook-registry` leaves its own behind). So
/// there is one more, which does what the system would where nobody is left who handles it.
pub(super) struct SignalsHandled(());

/// How many values of [`SignalsHandled`] there are, and what that means for signals.
struct Handling {
    count: usize,
    /// Whether signals end the process by themselves; `None` until they are first handled, when the system sees to it.
    is_default: Option<Arc<AtomicBool>>,
}

static HANDLING: Mutex<Handling> = Mutex::new(Handling { count: 0, is_default: None });

impl SignalsHandled {
    pub(super) fn new() -> io::Result<Self> {
        let mut handling = HANDLING.lock().unwrap_or_else(PoisonError::into_inner);
        match &handling.is_default {
            Some(is_default) => is_default.store(false, Ordering::SeqCst),
            None => {
                let is_default = Arc::new(AtomicBool::new(false));
                for signal in STOPPING {
                    register_conditional_default(signal, is_default.clone())?;
                }
                handling.is_default = Some(is_default);
            }
        }
        handling.count += 1;
        Ok(Self(()))
    }
}

impl Drop for SignalsHandled {
    fn drop(&mut self) {
        let mut handling = HANDLING.lock().unwrap_or_else(PoisonError::into_inner);
        handling.count -= 1;
        if let Some(is_default) = handling.is_default.as_ref().filter(|_| handling.count == 0) {
            is_default.store(true, Ordering::SeqCst);
        }
    }
}

/// Cancels something when the process is told to stop. While it lives, signals do not end the process by themselves;
/// afterwards they do again.
///
/// Compilers run in process groups of their own, so a terminal's Ctrl-C does not reach them by itself.
pub(super) struct CancelOnSignal {
    /// The first signal that came. Written by the thread that waits for signals.
    first: Arc<Mutex<Option<u8>>>,
    handle: signal_hook::iterator::Handle,
    handled: Option<SignalsHandled>,
}

impl CancelOnSignal {
    pub(super) fn watch(cancel: &Cancel) -> io::Result<Self> {
        // In this order: between the two a signal does both.
        let mut signals = Signals::new(STOPPING)?;
        let handled = SignalsHandled::new()?;
        let first = Arc::new(Mutex::new(None));
        let watching = Self { first: first.clone(), handle: signals.handle(), handled: Some(handled) };
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

    /// The result of what was to be stopped by a signal, or that one came. From now on signals end the process.
    pub(super) fn result<T>(self, result: Result<T, Failure>) -> Result<T, Failure> {
        self.check().and(result)
    }

    /// That a signal came, if one did.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.signal() {
            // However far it came, the user wants no more of it, and knows why.
            Some(signal) => Err(Failure::message(exit_code::SIGNAL_BASE.saturating_add(signal), String::new())),
            None => Ok(()),
        }
    }

    /// The first signal that came.
    pub(super) fn signal(&self) -> Option<u8> {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CancelOnSignal {
    fn drop(&mut self) {
        drop(self.handled.take());
        self.handle.close();
    }
}
