//! Content that is run: fetched, and written as files for as long as it runs.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::Failure;
use super::signals::{StopSignal, StopSignals};
use super::sources::{self, SourceArgs};
use super::{env, exit_code, store};
use crate::blockstore::Blockstore;
use crate::dag::{ContentPath, Scope};
use crate::ops::{self, Checkout, CheckoutError};
use crate::tree::{ExportError, ExportLimits, ExportOptions};

/// The folder of checkouts in the state folder.
const FOLDER: &str = "checkouts";

/// How long it may take to remove what was half written, when a signal came.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Sees to it that content is here, and writes it as files. Breaks when a signal comes. Failures have the codes of
/// `ww run`.
pub(super) async fn check_out(
    content: ContentPath,
    sources: SourceArgs,
    signals: &mut StopSignals,
) -> Result<ControlFlow<StopSignal, Checkout>, Failure> {
    let stop = CancellationToken::new();
    let mut prepared = tokio::spawn(prepare(content, sources, stop.clone()));
    tokio::select! {
        prepared = &mut prepared => prepared.map_err(thread_failed)?.map(ControlFlow::Continue).map_err(of_run),
        signal = signals.next() => {
            stop.cancel();
            let _ = timeout(STOP_WITHIN, prepared).await;
            Ok(ControlFlow::Break(signal))
        }
    }
}

async fn prepare(content: ContentPath, sources: SourceArgs, stop: CancellationToken) -> Result<Checkout, Failure> {
    let stopped = || Failure::message(exit_code::FAILURE, "stopped");
    let waiting = stop.clone();
    let store = spawn_blocking(move || store::open(move || waiting.is_cancelled())).await.map_err(thread_failed)??;
    let store: Arc<dyn Blockstore> = Arc::new(store);
    let fetched = tokio::select! {
        fetched = sources::fetch(store.clone(), &content, Scope::All, &sources) => fetched?,
        () = stop.cancelled() => return Err(stopped()),
    };
    let Some(home) = env::state_folder() else { return Err(stopped()) };
    let written = spawn_blocking(move || {
        let cancel = || stop.is_cancelled();
        // Few blocks can be many files.
        let limits = ExportLimits { bytes: sources.fetch_max.0, ..ExportLimits::default() };
        let options = ExportOptions { limits, cancel: &cancel, ..ExportOptions::default() };
        let checkout = ops::checkout(&*store, fetched.end, &home.join(FOLDER), &options);
        // Only now may the blocks go.
        drop(fetched.hold);
        store::trim(&*store);
        checkout
    });
    written.await.map_err(thread_failed)?.map_err(|error| not_written(&content, &error))
}

fn thread_failed(error: JoinError) -> Failure {
    Failure::caused(exit_code::RUN_FAILURE, "a thread failed", &error)
}

fn not_written(content: &ContentPath, error: &CheckoutError) -> Failure {
    let code = match error {
        CheckoutError::Export(ExportError::Io { .. } | ExportError::Source { .. } | ExportError::Exists { .. })
        | CheckoutError::Folder { .. } => exit_code::FAILURE,
        CheckoutError::Export(ExportError::Missing { .. }) => exit_code::NOT_FOUND,
        CheckoutError::Export(_) => exit_code::INVALID,
    };
    let failure = Failure::caused_in_store(code, format!("failed to check out {content}"), error);
    match error {
        CheckoutError::Folder { .. } => failure.with_help(store::place_help()),
        CheckoutError::Export(ExportError::TooManyBytes { .. }) => failure.with_help(sources::MORE_HELP),
        _ => failure,
    }
}

/// A failure with the code that `ww run` has for it.
fn of_run(failure: Failure) -> Failure {
    let code = match failure.code {
        exit_code::NOT_FOUND => exit_code::RUN_NOT_FOUND,
        exit_code::INVALID => exit_code::RUN_NOT_RUNNABLE,
        _ => exit_code::RUN_FAILURE,
    };
    Failure { code, ..failure }
}
