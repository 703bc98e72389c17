//! The blockstore of this user.

use std::sync::Arc;

use serde_json::{Value, json};

use super::error::Failure;
use super::size::Size;
use super::{env, exit_code, ui};
use crate::blockstore::{DiskBlockstore, GcReport, Options, Pin, StoreEvent};
use crate::escape;

/// The folder of the blockstore in the state folder.
const FOLDER: &str = "blockstore";

/// The variable with the size limit.
const LIMIT_VARIABLE: &str = "WW_STORE_MAX";

/// The size limit where the user gives none: that of Kubo (`Datastore.StorageMax`).
const LIMIT_BYTES: u64 = 10 << 30;

/// Opens the blockstore, and makes it where there is none. `is_cancelled` is asked while something is waited for.
pub(super) fn open(is_cancelled: impl Fn() -> bool + Send + Sync + 'static) -> Result<DiskBlockstore, Failure> {
    let Some(home) = env::state_folder() else {
        return Err(Failure::message(exit_code::FAILURE, "cannot tell where the blockstore is")
            .with_help("set WW_HOME, XDG_DATA_HOME or HOME"));
    };
    let options = Options { size_bytes_max: limit()?, events: Arc::new(show), cancelled: Arc::new(is_cancelled) };
    DiskBlockstore::open(&home.join(FOLDER), options).map_err(Failure::from)
}

fn limit() -> Result<Option<u64>, Failure> {
    let Some(text) = env::variable(LIMIT_VARIABLE) else { return Ok(Some(LIMIT_BYTES)) };
    if text == "none" {
        return Ok(None);
    }
    let size: Result<Size, _> = text.parse();
    size.map(|size| Some(size.0)).map_err(|error| {
        let message = format!("{LIMIT_VARIABLE} is `{}`: {error}", escape::text(&text));
        Failure::message(exit_code::USAGE, message).with_help("such as 20GiB, or none")
    })
}

fn show(event: StoreEvent) {
    match event {
        StoreEvent::WaitingForCollector => ui::progress("waiting for another ww, which collects the blockstore"),
        StoreEvent::WaitingForWriters => ui::progress("waiting for another ww, which writes to the blockstore"),
        StoreEvent::MakingIndex { reason, packs } => {
            let reason = escape::text(&reason).into_owned();
            ui::status(&format!("warning: the index of the blockstore is made again from {packs} packs: {reason}"));
        }
        StoreEvent::BlocksLost { blocks } => {
            ui::status(&format!("warning: {blocks} blocks have disappeared from the blockstore"));
        }
        StoreEvent::NotTrimmed { reason } => {
            let reason = escape::text(&reason).into_owned();
            ui::status(&format!(
                "warning: the blockstore is over its size limit, and could not be collected: {reason}"
            ));
        }
    }
}

/// Says what a collection for the size limit removed.
pub(super) fn show_collected(collected: Option<&GcReport>) {
    if let Some(report) = collected {
        let blocks = counted(report.removed_blocks, "block");
        ui::progress(&format!("the blockstore was over its size limit: removed {blocks} that no pin holds"));
    }
}

/// `1 block`, `2 blocks`.
pub(super) fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A pin as a line of output: the CID first, as all CIDs in a list are mostly of one length.
pub(super) fn pin_line(pin: &Pin) -> String {
    format!("{} {}", pin.root, pin.name)
}

/// A pin in output for programs.
pub(super) fn pin_json(pin: &Pin) -> Value {
    json!({ "name": pin.name.as_str(), "cid": pin.root.to_string() })
}

/// Prints an object for programs.
pub(super) fn print_json(object: &Value) -> Result<(), Failure> {
    ui::result_line(&escape::json(&object.to_string())).map_err(|error| Failure::new(exit_code::FAILURE, &error))
}

/// Prints a line of the result.
pub(super) fn print(line: &str) -> Result<(), Failure> {
    ui::result_line(line).map_err(|error| Failure::new(exit_code::FAILURE, &error))
}
