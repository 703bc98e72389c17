//! Where content comes from: the options that several commands share, and the fetch that they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;

use super::error::Failure;
use super::kubo::{Kubo, KuboArgs};
use super::meter::Meter;
use super::unrepeated::Unrepeated;
use super::{exit_code, ui};
use crate::blockstore::Blockstore;
use crate::build::Cancel;
use crate::dag::unixfs::WalkError;
use crate::dag::{ContentPath, Scope};
use crate::escape;
use crate::ops::fetch::{self, DagRequest, FetchError, FetchEvent, FetchLimits, Fetched, Missing, Source};
use crate::quantity::Bytes;
use crate::remote::{Deadlines, gateway, kubo};

/// Whom to ask for content that is not in the local blockstore.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct SourceArgs {
    #[command(flatten)]
    kubo: KuboArgs,

    /// Trustless gateway to ask, such as https://example.com, below which it serves /ipfs/CID; may be repeated
    #[arg(long, value_name = "URL", value_parser = Unrepeated::<gateway::Address>::default(), help_heading = HEADING)]
    gateway: Vec<gateway::Address>,

    /// Ask nobody for content that is not in the local blockstore
    #[arg(long, conflicts_with_all = ["kubo", "gateway"], help_heading = HEADING)]
    pub(in crate::cli) offline: bool,

    /// How much content to fetch at most, such as 500MiB
    #[arg(long, value_name = "SIZE", default_value_t = Bytes(FetchLimits::BYTES), help_heading = HEADING)]
    pub(in crate::cli) fetch_max: Bytes,
}

/// How often it is asked whether a fetch is to be given up: no person sees the difference.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// What helps who has more than [`SourceArgs::fetch_max`].
pub(in crate::cli) const MORE_HELP: &str = "--fetch-max SIZE allows more";

/// Over these options, in addition to those that [`KuboArgs`] has.
const HEADING: &str = "Sources of content";

/// Sees to it that `content` is in the store, as far as `scope` says, and asks others for what is not.
///
/// Dropping the future ends all requests.
pub(in crate::cli) async fn fetch(
    store: Arc<dyn Blockstore>,
    content: &ContentPath,
    scope: Scope,
    args: &SourceArgs,
) -> Result<Fetched, Failure> {
    let sources = sources(args)?;
    let request = DagRequest { root: content.root, path: content.path.clone(), scope };
    let limits = FetchLimits { bytes: args.fetch_max.0, ..FetchLimits::default() };
    let progress = Progress { content, meter: Meter::new("fetching", None), bytes: AtomicU64::new(0) };
    let fetched = fetch::fetch(store, request, sources, limits, &|event| progress.show(&event)).await;
    let total = progress.meter.total();
    drop(progress);
    if let Ok(Fetched { blocks, .. }) = &fetched
        && *blocks > 0
    {
        let plural = if *blocks == 1 { "" } else { "s" };
        ui::progress(&format!("fetched {content}: {blocks} block{plural}, {total}"));
    }
    fetched.map_err(|error| failure(content, args, error))
}

/// As [`fetch`], for commands that have no runtime. Where nobody watches for signals (`cancel` is `None`), one ends the
/// process while this runs, as it would without.
pub(in crate::cli) fn fetch_blocking(
    store: Arc<dyn Blockstore>,
    content: &ContentPath,
    scope: Scope,
    args: &SourceArgs,
    cancel: Option<&Cancel>,
) -> Result<Fetched, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    let fetched = runtime.block_on(async {
        tokio::select! {
            fetched = fetch(store, content, scope, args) => fetched,
            () = cancelled(cancel) => Err(Failure::message(exit_code::FAILURE, "stopped")),
        }
    });
    runtime.shutdown_background();
    fetched
}

/// Waits until something is cancelled; for ever if nothing can be.
async fn cancelled(cancel: Option<&Cancel>) {
    let Some(cancel) = cancel else { return std::future::pending().await };
    while !cancel.is_cancelled() {
        tokio::time::sleep(CANCEL_POLL).await;
    }
}

impl SourceArgs {
    /// The sources of a command that has options of its own for them.
    pub(in crate::cli) fn new(kubo: KuboArgs, offline: bool) -> Self {
        Self { kubo, gateway: Vec::new(), offline, fetch_max: Bytes(FetchLimits::BYTES) }
    }
}

/// Whom the options name.
pub(in crate::cli) fn sources(args: &SourceArgs) -> Result<Vec<Arc<dyn Source>>, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::new(exit_code::USAGE, error);
    let mut sources: Vec<Arc<dyn Source>> = Vec::new();
    if args.offline {
        return Ok(sources);
    }
    match args.kubo.find()? {
        Kubo::Named(client) | Kubo::Found(client) => sources.push(Arc::new(client)),
        Kubo::Refused => {}
        Kubo::Absent(why) => {
            tracing::debug!("{why}");
            // Where a node listens that nobody configured. Nothing is given away by asking there but the CID.
            let address = kubo::Address::default_local();
            let client = kubo::Client::new(address, kubo::Options::default()).map_err(|error| failed(&error))?;
            sources.push(Arc::new(client));
        }
    }
    for address in &args.gateway {
        let client = gateway::Client::new(address.clone(), Deadlines::default()).map_err(|error| failed(&error))?;
        sources.push(Arc::new(client));
    }
    Ok(sources)
}

/// Says on standard error how it goes.
struct Progress<'a> {
    content: &'a ContentPath,
    meter: Meter,
    /// How many bytes the meter was told. Written by the one task that fetches.
    bytes: AtomicU64,
}

impl Progress<'_> {
    fn show(&self, event: &FetchEvent<'_>) {
        match event {
            FetchEvent::Asking { sources } => {
                ui::progress(&format!("fetching {} from {}", self.content, sources.join(", ")));
            }
            FetchEvent::Progress { bytes, .. } => {
                let before = self.bytes.swap(*bytes, Ordering::Relaxed);
                self.meter.add(bytes.saturating_sub(before));
            }
            event => warn(event),
        }
    }
}

/// Says what went wrong with a fetch that goes on.
pub(in crate::cli) fn warn(event: &FetchEvent<'_>) {
    match event {
        FetchEvent::BadSource { source, error } => {
            ui::status(&format!("warning: {source} is not asked any more: {}", causes(*error).join(": ")));
        }
        FetchEvent::Lost { cid, error } => {
            let (why, sources) = match error {
                FetchError::Missing(missing) => (format!("block {cid} was not found"), &missing.sources[..]),
                FetchError::Late { sources, .. } => (format!("block {}", causes(*error).join(": ")), &sources[..]),
                error => (format!("block {cid} cannot be had: {}", causes(*error).join(": ")), &[][..]),
            };
            let sources: String = sources.iter().map(|(source, why)| format!("; {source}: {why}")).collect();
            ui::status(&format!("warning: a guest cannot read what it wants: {why}{sources}"));
        }
        FetchEvent::LimitReached(reached) => {
            let limit = reached.limit;
            ui::status(&format!("warning: nothing more is fetched: {reached}; `--limit {limit}=…` sets another"));
        }
        FetchEvent::NotKept(error) => {
            ui::status(&format!("warning: what was fetched is not stored: {}", causes(*error).join(": ")));
        }
        FetchEvent::Asking { .. } | FetchEvent::Progress { .. } | FetchEvent::Brought { .. } => {}
    }
}

/// The texts of an error's causes, escaped.
fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut shown = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        shown.push(escape::text(&error.to_string()).into_owned());
        next = error.source();
    }
    shown
}

/// Why there is no content, with the code for all commands but `ww run`.
pub(in crate::cli) fn failure(content: &ContentPath, args: &SourceArgs, error: FetchError) -> Failure {
    let code = match &error {
        FetchError::Missing(_)
        | FetchError::Late { .. }
        | FetchError::Path(WalkError::NotFound { .. } | WalkError::NotADirectory { .. }) => exit_code::NOT_FOUND,
        FetchError::Thread(_)
        | FetchError::Setup(_)
        | FetchError::Ended
        | FetchError::TooManyRoots { .. }
        | FetchError::TooManyForCell { .. } => exit_code::FAILURE,
        _ => exit_code::INVALID,
    };
    match error {
        FetchError::Missing(ref missing) => missing_failure(code, &error, missing, args),
        FetchError::TooManyBytes { .. } => {
            Failure::caused(code, format!("failed to fetch {content}"), &error).with_help(MORE_HELP)
        }
        FetchError::Store(error) => error.into(),
        error => Failure::caused(code, format!("failed to fetch {content}"), &error),
    }
}

fn missing_failure(code: u8, error: &FetchError, missing: &Missing, args: &SourceArgs) -> Failure {
    let causes = missing.sources.iter().map(|(source, why)| format!("{source}: {why}")).collect();
    with_help(Failure { causes, ..Failure::message(code, error.to_string()) }, args)
}

/// A failure to find content, with whom else could be asked.
pub(in crate::cli) fn with_help(failure: Failure, args: &SourceArgs) -> Failure {
    if args.offline {
        failure.with_help("without --offline a Kubo node and gateways are asked")
    } else if args.gateway.is_empty() {
        failure.with_help("--gateway URL asks a trustless gateway, too")
    } else {
        failure
    }
}
