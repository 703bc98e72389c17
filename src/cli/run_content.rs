//! Content that is run: what it needs to start is brought here first, the rest when it is read.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::{Failure, Passed, fetch_error_of};
use super::meter::Meter;
use super::signals::{StopSignal, StopSignals};
use super::sources::{self, SourceArgs};
use super::{exit_code, store, ui};
use crate::blockstore::{Blockstore, without_waiting};
use crate::dag::ContentPath;
use crate::ops::fetch::{FetchError, FetchEvent, FetchLimits, Session, SessionOptions};
use crate::ops::{LeasedContent, RunError};
use crate::remote::BoxError;

/// How long it may take to close what is open, when a signal came.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// How long it may take to store what came last, when the guest has ended: 64 MiB on a slow disk.
const STORE_WITHIN: Duration = Duration::from_secs(30);

/// A session for one run, of content if it is given. It waits for nobody any more when `stop` is cancelled.
pub(super) fn session(content: Option<&ContentPath>, args: &SourceArgs, stop: &CancellationToken) -> Session {
    let (waiting, asked) = (stop.clone(), args.clone());
    let teller = Teller::new(content);
    let options = SessionOptions {
        store: Box::new(move || {
            let waiting = waiting.clone();
            let store = store::open(move || waiting.is_cancelled()).map_err(passed)?;
            Ok(Arc::new(store) as Arc<dyn Blockstore>)
        }),
        sources: Box::new(move || sources::sources(&asked).map_err(passed)),
        limits: FetchLimits { bytes: args.fetch_max.0, ..FetchLimits::default() },
        events: Arc::new(move |event| teller.tell(&event)),
        patience: SessionOptions::PATIENCE,
    };
    Session::new(options, Handle::current())
}

fn passed(failure: Failure) -> BoxError {
    Passed(failure).into()
}

/// Sees to it that what content needs to start is here. Breaks when a signal comes. Failures have the codes of `ww run`.
pub(super) async fn bring(
    session: &Session,
    content: ContentPath,
    args: &SourceArgs,
    stop: &CancellationToken,
    signals: &mut StopSignals,
) -> Result<ControlFlow<StopSignal, LeasedContent>, Failure> {
    if let Some(here) = LeasedContent::find_at_once(session, &content) {
        return Ok(ControlFlow::Continue(here));
    }
    let (own, named, stopped) = (session.clone(), content.clone(), stop.clone());
    let mut brought = tokio::spawn(async move {
        tokio::select! {
            brought = LeasedContent::bring(&own, &named) => brought,
            () = stopped.cancelled() => Err(FetchError::Ended),
        }
    });
    tokio::select! {
        brought = &mut brought => {
            let brought = brought.map_err(thread_failed)?;
            brought.map(ControlFlow::Continue).map_err(|error| with_run_code(failure(&content, args, error)))
        }
        signal = signals.next() => {
            stop.cancel();
            let _ = timeout(STOP_WITHIN, brought).await;
            Ok(ControlFlow::Break(signal))
        }
    }
}

/// Makes what was fetched last, and looks whether the store has become too large.
pub(super) async fn close(session: &Session, stop: &CancellationToken, was_stopped: bool) {
    let _ = timeout(if was_stopped { STOP_WITHIN } else { STORE_WITHIN }, session.close()).await;
    // What was fetched may make the store too large, and only now is it of no more use.
    if let Some(store) = session.opened_store().filter(|store| without_waiting(|| store.is_too_large())) {
        let _ = spawn_blocking(move || store::trim(&*store)).await;
    }
    stop.cancel();
}

/// Why an image could not be run: also where it could not be fetched in the end.
pub(super) fn of_run(error: RunError, args: &SourceArgs) -> Failure {
    let cause = fetch_error_of(&error);
    let (sources, code) = match cause {
        Some(FetchError::Missing(missing)) => (missing.sources.clone(), exit_code::RUN_NOT_FOUND),
        Some(FetchError::Late { sources, .. }) => (sources.clone(), exit_code::RUN_NOT_FOUND),
        Some(FetchError::TooManyBytes { .. } | FetchError::Unsupported { .. }) => {
            (Vec::new(), exit_code::RUN_NOT_RUNNABLE)
        }
        _ => return error.into(),
    };
    let is_too_much = matches!(cause, Some(FetchError::TooManyBytes { .. }));
    let mut failure = Failure { code, ..error.into() };
    failure.causes.extend(sources.into_iter().map(|(source, why)| format!("{source}: {why}")));
    match is_too_much {
        true => failure.with_help(sources::MORE_HELP),
        false => sources::with_help(failure, args),
    }
}

fn failure(content: &ContentPath, args: &SourceArgs, error: FetchError) -> Failure {
    match error {
        FetchError::Setup(error) => match error.downcast::<Passed>() {
            Ok(passed) => passed.0,
            Err(error) => Failure::new(exit_code::FAILURE, &*error),
        },
        error => sources::failure(content, args, error),
    }
}

fn thread_failed(error: JoinError) -> Failure {
    Failure::caused(exit_code::RUN_FAILURE, "a thread failed", &error)
}

/// A failure with the code that `ww run` has for it.
fn with_run_code(failure: Failure) -> Failure {
    let code = match failure.code {
        exit_code::NOT_FOUND => exit_code::RUN_NOT_FOUND,
        exit_code::INVALID => exit_code::RUN_NOT_RUNNABLE,
        _ => exit_code::RUN_FAILURE,
    };
    Failure { code, ..failure }
}

/// Says on standard error how it goes.
struct Teller {
    /// What is fetched, as it is shown.
    what: String,
    /// There is one while something is on its way before the guest starts. Locked for the length of a message.
    meter: Mutex<Option<Meter>>,
    /// How many bytes it was told.
    bytes: AtomicU64,
}

impl Teller {
    fn new(content: Option<&ContentPath>) -> Self {
        let what = content.map_or_else(|| "what the guest loads".to_owned(), ToString::to_string);
        Self { what, meter: Mutex::new(None), bytes: AtomicU64::new(0) }
    }

    fn tell(&self, event: &FetchEvent<'_>) {
        match event {
            FetchEvent::Asking { sources } => {
                ui::progress(&format!("fetching {} from {}", self.what, sources.join(", ")));
            }
            FetchEvent::Progress { bytes, .. } => {
                let before = self.bytes.swap(*bytes, Ordering::Relaxed);
                let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
                meter.get_or_insert_with(|| Meter::new("fetching", None)).add(bytes.saturating_sub(before));
            }
            FetchEvent::Brought { blocks } => {
                self.bytes.store(0, Ordering::Relaxed);
                let meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(meter) = meter {
                    let total = meter.total();
                    drop(meter);
                    ui::progress(&format!("fetched {} of {}: {total}", store::counted(*blocks, "block"), self.what));
                }
            }
            event => sources::warn(event),
        }
    }
}
