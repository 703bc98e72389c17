//! `ww gc`.

use clap::Args;
use serde_json::json;

use crate::blockstore::{Blockstore, GcOptions};
use crate::build::Cancel;
use crate::cli::cancel::CancelOnSignal;
use crate::cli::error::Failure;
use crate::cli::exit_code;
use crate::cli::store::{self, counted};

/// Remove from the blockstore what no pin holds
///
/// Waits until nobody writes to the blockstore.
#[derive(Debug, Args)]
pub(in crate::cli) struct GcArgs {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(in crate::cli) fn run(args: &GcArgs) -> Result<(), Failure> {
    let cancel = Cancel::default();
    let signals = CancelOnSignal::watch(&cancel).map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    let collected = store::open_until(&cancel).and_then(|store| Ok(store.gc(GcOptions { dry_run: args.dry_run })?));
    let report = signals.result(collected)?;
    if args.json {
        // Documented in `docs/store.md`.
        return store::print_json(&json!({
            "dry_run": args.dry_run,
            "removed_blocks": report.removed_blocks,
            "removed_bytes": report.removed_bytes,
            "kept_blocks": report.kept_blocks,
            "kept_bytes": report.kept_bytes,
            "freed_bytes": report.freed_bytes,
            "leftovers": report.leftovers,
        }));
    }
    store::print(&format!(
        "{} {}, {}; {}, {} stay",
        if args.dry_run { "would remove" } else { "removed" },
        counted(report.removed_blocks, "block"),
        counted(report.removed_bytes, "byte"),
        counted(report.kept_blocks, "block"),
        counted(report.kept_bytes, "byte"),
    ))
}
