//! The local blockstore, as commands open it and speak of it.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::error::Failure;
use super::{env, exit_code, ui};
use crate::blockstore::{Blockstore, DiskBlockstore, GcReport, Hold, Options, Pin, StoreError, StoreEvent};
use crate::build::Cancel;
use crate::dag::{Block, Cid, ContentPath};
use crate::escape;
use crate::ops::{self, ReadError};
use crate::quantity::Bytes;
use crate::tree::BoxError;

/// The folder of the blockstore in the state folder.
const FOLDER: &str = "blockstore";

/// The variable with the size limit.
const LIMIT_VARIABLE: &str = "WW_STORE_MAX";

/// The size limit where the user gives none: that of Kubo (`Datastore.StorageMax`).
const LIMIT_BYTES: u64 = 10 << 30;

/// Opens the store of this user, and makes it where there is none. `is_cancelled` is asked while something is waited for.
pub(super) fn open(is_cancelled: impl Fn() -> bool + Send + Sync + 'static) -> Result<DiskBlockstore, Failure> {
    let home = env::state_folder().ok_or_else(|| {
        Failure::message(exit_code::FAILURE, "there is no place for the blockstore: HOME is not set")
            .with_help("WW_HOME names the folder in which ww keeps what it knows")
    })?;
    let events = Arc::new(|event: StoreEvent| show(&event));
    let cancelled = Arc::new(is_cancelled);
    let options = Options { size_bytes_max: limit()?, events, cancelled };
    DiskBlockstore::open(&home.join(FOLDER), options).map_err(|error| match error {
        StoreError::Io { .. } | StoreError::Misplaced { .. } => Failure::from(error).with_help(place_help()),
        error => error.into(),
    })
}

/// What decides where the state of `ww` is, for a failure there.
pub(super) fn place_help() -> String {
    match env::variable_os("WW_HOME").filter(|value| !value.is_empty()) {
        Some(home) => format!("it is there since WW_HOME is `{}`", escape::path(Path::new(&home))),
        None => "WW_HOME names another folder for what ww keeps".to_owned(),
    }
}

/// As [`open`], until something is cancelled.
pub(super) fn open_until(cancel: &Cancel) -> Result<DiskBlockstore, Failure> {
    let cancel = cancel.clone();
    open(move || cancel.is_cancelled())
}

fn limit() -> Result<Option<u64>, Failure> {
    let Some(text) = env::variable(LIMIT_VARIABLE) else { return Ok(Some(LIMIT_BYTES)) };
    if text == "none" {
        return Ok(None);
    }
    let size: Result<Bytes, _> = text.parse();
    size.map(|size| Some(size.0)).map_err(|error| {
        let message = format!("{LIMIT_VARIABLE} is `{}`: {error}", escape::text(&text));
        Failure::message(exit_code::USAGE, message).with_help("such as 20GiB, or none")
    })
}

fn show(event: &StoreEvent) {
    match event {
        StoreEvent::WaitingForCollector => ui::progress("waiting for a collection of the blockstore to end"),
        StoreEvent::WaitingForWriters => ui::progress("waiting for those who write to the blockstore"),
        StoreEvent::MakingIndex { reason, packs } => ui::progress(&format!(
            "making the index of the blockstore from {}: {}",
            counted(*packs as u64, "file"),
            escape::text(reason)
        )),
        StoreEvent::BlocksLost { blocks } => {
            ui::status(&format!(
                "warning: files of the blockstore are gone, and {} with them",
                counted(*blocks, "block")
            ));
        }
        StoreEvent::NotTrimmed { reason } => ui::status(&format!(
            "warning: the blockstore is over its size limit and was not collected: {}",
            escape::text(reason)
        )),
    }
}

/// Content that is whole and stays, for as long as the value lives, as far as the blockstore had it to begin with.
pub(super) struct HeldContent {
    store: DiskBlockstore,
    _hold: Hold,
    /// What the path led to.
    pub(super) root: Cid,
}

impl HeldContent {
    /// Finds content in the blockstore. Nobody else is asked.
    pub(super) fn find(content: &ContentPath) -> Result<Self, Failure> {
        let store = open(|| false)?;
        let hold = store.hold()?;
        let not_found = |error: &dyn std::error::Error| {
            Failure::caused(exit_code::NOT_FOUND, format!("{content} is not in the blockstore"), error)
                .with_help("`ww get` fetches it, `ww car import` and `ww publish` bring it there")
        };
        let root = ops::resolve(&|cid| store.get(cid).map_err(Into::into), content.root, &content.path);
        let root = root.map_err(|error| match error {
            ReadError::Block(_) => {
                Failure::caused_in_store(exit_code::FAILURE, format!("cannot read {content}"), &error)
            }
            error => not_found(&error),
        })?;
        match store.has(&root)? {
            true => Ok(Self { store, _hold: hold, root }),
            false => Err(not_found(&ReadError::Missing { cid: Box::new(root) })),
        }
    }

    /// A block of it.
    pub(super) fn block(&self, cid: &Cid) -> Result<Option<Block>, BoxError> {
        self.store.get(cid).map_err(Into::into)
    }
}

/// Collects what no pin holds, if the store is over its size limit and nobody writes, and says so.
pub(super) fn trim(store: &dyn Blockstore) {
    show_collected(store.trim().as_ref());
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
