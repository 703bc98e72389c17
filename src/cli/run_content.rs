//! Content that is run: brought here first.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::Failure;
use super::signals::{StopSignal, StopSignals};
use super::sources::{self, SourceArgs};
use super::{exit_code, store};
use crate::blockstore::Blockstore;
use crate::dag::{ContentPath, Scope};
use crate::ops::LeasedContent;

/// How long it may take to close what is open, when a signal came.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Sees to it that content is here. Breaks when a signal comes. Failures have the codes of `ww run`.
pub(super) async fn bring(
    content: ContentPath,
    sources: SourceArgs,
    signals: &mut StopSignals,
) -> Result<ControlFlow<StopSignal, LeasedContent>, Failure> {
    let stop = CancellationToken::new();
    let mut brought = tokio::spawn(fetch(content, sources, stop.clone()));
    tokio::select! {
        brought = &mut brought => brought.map_err(thread_failed)?.map(ControlFlow::Continue).map_err(of_run),
        signal = signals.next() => {
            stop.cancel();
            let _ = timeout(STOP_WITHIN, brought).await;
            Ok(ControlFlow::Break(signal))
        }
    }
}

async fn fetch(content: ContentPath, sources: SourceArgs, stop: CancellationToken) -> Result<LeasedContent, Failure> {
    let stopped = || Failure::message(exit_code::FAILURE, "stopped");
    let waiting = stop.clone();
    let store = spawn_blocking(move || store::open(move || waiting.is_cancelled())).await.map_err(thread_failed)??;
    let store: Arc<dyn Blockstore> = Arc::new(store);
    let fetched = tokio::select! {
        fetched = sources::fetch(store.clone(), &content, Scope::All, &sources) => fetched?,
        () = stop.cancelled() => return Err(stopped()),
    };
    let leased = spawn_blocking(move || {
        let leased = LeasedContent::new(store, fetched.end);
        // Only now may anything go.
        drop(fetched.hold);
        leased
    });
    Ok(leased.await.map_err(thread_failed)??)
}

fn thread_failed(error: JoinError) -> Failure {
    Failure::caused(exit_code::RUN_FAILURE, "a thread failed", &error)
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
