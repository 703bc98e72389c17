//! The blockstore of this user.

use std::sync::Arc;

use super::error::Failure;
use super::{env, exit_code, ui};
use crate::blockstore::{DiskBlockstore, Options, StoreError, StoreEvent};
use crate::escape;

/// The folder of the blockstore in the state folder.
const FOLDER: &str = "blockstore";

/// Opens the blockstore, and makes it where there is none. `is_cancelled` is asked while something is waited for.
pub(super) fn open(is_cancelled: impl Fn() -> bool + Send + Sync + 'static) -> Result<DiskBlockstore, Failure> {
    let Some(home) = env::state_folder() else {
        return Err(Failure::message(exit_code::FAILURE, "cannot tell where the blockstore is")
            .with_help("set WW_HOME, XDG_DATA_HOME or HOME"));
    };
    let options = Options { events: Arc::new(show), cancelled: Arc::new(is_cancelled), ..Options::default() };
    DiskBlockstore::open(&home.join(FOLDER), options).map_err(Failure::from)
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

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Damaged { .. } => exit_code::STORE_DAMAGED,
            _ => exit_code::FAILURE,
        };
        let failure = Self::new(code, &error);
        match error {
            StoreError::Damaged { .. } => failure.with_help("`ww store verify` says what else is damaged"),
            _ => failure,
        }
    }
}
