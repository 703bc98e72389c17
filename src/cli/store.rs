//! The blockstore of this user.

use std::sync::Arc;

use super::error::Failure;
use super::{env, exit_code, ui};
use crate::blockstore::{Blockstore, DiskBlockstore, Hold, Options, StoreError, StoreEvent};
use crate::dag::{Block, Cid, ContentPath};
use crate::escape;
use crate::ops::{self, ReadError};
use crate::tree::BoxError;

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
        let root = root.map_err(|error| not_found(&error))?;
        match store.has(&root)? || Block::from_identity(&root).is_some() {
            true => Ok(Self { store, _hold: hold, root }),
            false => Err(not_found(&ReadError::Missing { cid: Box::new(root) })),
        }
    }

    /// A block of it.
    pub(super) fn block(&self, cid: &Cid) -> Result<Option<Block>, BoxError> {
        self.store.get(cid).map_err(Into::into)
    }
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
