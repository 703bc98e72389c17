//! `ww store`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::blockstore::{Blockstore, Finding, VerifyOptions, VerifyReport};
use crate::build::Cancel;
use crate::cli::cancel::CancelOnSignal;
use crate::cli::error::{self, Failure, MEND_PIN};
use crate::cli::meter::Meter;
use crate::cli::store::counted;
use crate::cli::{exit_code, store, ui};
use crate::escape;

/// Look after the blockstore
#[derive(Debug, Args)]
pub(in crate::cli) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    Verify(VerifyArgs),
}

/// Read and hash everything in the blockstore
///
/// Prints what is wrong, and ends with code 9 if anything is.
#[derive(Debug, Args)]
struct VerifyArgs {
    /// Take out of use what is damaged, so that it can be fetched or published again
    ///
    /// Everything that is good stays, and files with damage are moved to the folder `damaged` of the blockstore. Waits until
    /// nobody writes.
    #[arg(long)]
    repair: bool,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(in crate::cli) fn run(args: &StoreArgs) -> Result<(), Failure> {
    match &args.command {
        StoreCommand::Verify(args) => verify(args),
    }
}

fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let cancel = Cancel::default();
    let signals = CancelOnSignal::watch(&cancel).map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    let verified = {
        let meter = Meter::new("reading", None);
        let options = VerifyOptions { repair: args.repair };
        store::open_until(&cancel).and_then(|store| Ok(store.verify(options, &mut |bytes| meter.add(bytes))?))
    };
    let report = signals.result(verified)?;
    if args.json {
        store::print_json(&as_json(&report))?;
    } else {
        report.findings.iter().try_for_each(|finding| store::print(&line(finding)))?;
        let (blocks, bytes) = (counted(report.blocks, "block"), counted(report.bytes, "byte"));
        let verdict = if report.findings.is_empty() { ", all good" } else { "" };
        store::print(&format!("{blocks}, {bytes}, {}{verdict}", counted(report.pins, "pin")))?;
    }
    outcome(&report)
}

/// What was lost stays lost, also after a repair: only content that comes again mends a pin.
fn outcome(report: &VerifyReport) -> Result<(), Failure> {
    let is_pin = |finding: &&Finding| matches!(finding, Finding::BrokenPin { .. });
    let broken_pins = report.findings.iter().filter(is_pin).count();
    let is_damaged = broken_pins < report.findings.len();
    let failure = |message: &str| Failure::message(exit_code::STORE_DAMAGED, message);
    match (is_damaged, report.repaired) {
        (true, false) => Err(failure("the blockstore is damaged")
            .with_help("`ww store verify --repair` takes out of use what is damaged, and keeps the rest")),
        (true, true) if broken_pins == 0 => {
            ui::status("the blockstore was repaired; nothing that is pinned was lost");
            Ok(())
        }
        (true, true) => {
            Err(failure("the blockstore was repaired, but pinned content is not whole").with_help(MEND_PIN))
        }
        (false, _) if broken_pins > 0 => {
            Err(failure("nothing in the blockstore is damaged, but pinned content is not whole").with_help(MEND_PIN))
        }
        (false, _) => Ok(()),
    }
}

fn line(finding: &Finding) -> String {
    match finding {
        Finding::DamagedBlock { cid, pack } => format!("packs/{pack}: block {cid} is damaged"),
        Finding::DamagedPack { pack, reason } => format!("packs/{pack}: {}", escape::text(reason)),
        Finding::LostBlocks { pack, blocks } => {
            format!("packs/{pack}: {} of the index not found", counted(*blocks, "block"))
        }
        Finding::BrokenPin { pin, reason } => format!("pin {}: {}", pin.name, error::chain(reason).join(": ")),
    }
}

/// Documented in `docs/store.md`.
fn as_json(report: &VerifyReport) -> Value {
    let finding = |finding: &Finding| match finding {
        Finding::DamagedBlock { cid, pack } => json!({ "kind": "damaged-block", "cid": cid.to_string(), "pack": pack }),
        Finding::DamagedPack { pack, reason } => json!({ "kind": "damaged-pack", "pack": pack, "reason": reason }),
        Finding::LostBlocks { pack, blocks } => json!({ "kind": "lost-blocks", "pack": pack, "blocks": blocks }),
        Finding::BrokenPin { pin, reason } => json!({
            "kind": "broken-pin",
            "name": pin.name.as_str(),
            "cid": pin.root.to_string(),
            "reason": error::chain(reason).join(": "),
        }),
    };
    json!({
        "blocks": report.blocks,
        "bytes": report.bytes,
        "pins": report.pins,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "repaired": report.repaired,
    })
}
