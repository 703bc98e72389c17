//! What the commands share that read content by its CID.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::Failure;
use super::sources::{self, SourceArgs};
use super::{exit_code, store};
use crate::blockstore::{DiskBlockstore, Hold, StoreError};
use crate::build::Cancel;
use crate::dag::unixfs::WalkError;
use crate::dag::{Cid, ContentPath, Scope};
use crate::escape;
use crate::ops::ContentError;
use crate::ops::fetch::Fetched;
use crate::tree::ExportError;

/// Content that is in the store, and stays there while the value lives. After that the store may be collected for its
/// size.
pub(super) struct Content {
    store: DiskBlockstore,
    /// `None` only while the value is dropped.
    hold: Option<Hold>,
    /// Where the path leads.
    pub(super) end: Cid,
    /// Blocks that were fetched.
    pub(super) blocks: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

impl Drop for Content {
    fn drop(&mut self) {
        drop(self.hold.take());
        store::trim(&self.store);
    }
}

/// Sees to it that content is in the store. A signal ends the process meanwhile.
pub(super) fn fetch(
    store: &DiskBlockstore,
    content: &ContentPath,
    scope: Scope,
    sources: &SourceArgs,
) -> Result<Content, Failure> {
    fetch_until(store, content, scope, sources, None)
}

/// As [`fetch`], for those that watch for signals, until something is cancelled.
pub(super) fn fetch_until(
    store: &DiskBlockstore,
    content: &ContentPath,
    scope: Scope,
    sources: &SourceArgs,
    cancel: Option<&Cancel>,
) -> Result<Content, Failure> {
    match sources::fetch_blocking(Arc::new(store.clone()), content, scope, sources, cancel) {
        Ok(Fetched { end, blocks, bytes, hold }) => {
            Ok(Content { store: store.clone(), hold: Some(hold), end, blocks, bytes })
        }
        Err(failure) => {
            // Some of it may be here.
            store::trim(store);
            Err(failure)
        }
    }
}

/// The name under which content is written of which nothing else is said.
pub(super) fn own_name(content: &ContentPath) -> PathBuf {
    let name = content.path.rsplit('/').next().filter(|name| !name.is_empty());
    name.map_or_else(|| PathBuf::from(content.root.to_string()), PathBuf::from)
}

/// Why `content` cannot be read, now that it is in the store.
pub(super) fn failure(content: &ContentPath, error: ContentError) -> Failure {
    let help = match &error {
        ContentError::Walk(WalkError::NotAFile { .. }) => Some("`ww ls` lists a directory, `ww get` writes it to disk"),
        ContentError::Walk(WalkError::NotADirectory { .. }) => Some("`ww cat` shows a file"),
        _ => None,
    };
    let failure = match error {
        ContentError::Store(error @ StoreError::Damaged { .. }) => return error.into(),
        ContentError::Walk(WalkError::NotAFile { .. }) => {
            Failure::message(exit_code::FAILURE, format!("{content} is not a file"))
        }
        ContentError::Walk(WalkError::NotADirectory { .. }) => {
            Failure::message(exit_code::FAILURE, format!("{content} is not a directory"))
        }
        ContentError::Output(error) => Failure::new(exit_code::FAILURE, &error),
        error => {
            let code = match &error {
                ContentError::Store(_) => exit_code::FAILURE,
                ContentError::Missing { .. } => exit_code::NOT_FOUND,
                _ => exit_code::INVALID,
            };
            Failure::caused_in_store(code, format!("failed to read {content}"), &error)
        }
    };
    help.into_iter().fold(failure, Failure::with_help)
}

/// Why `content` cannot be written to disk.
pub(super) fn export_failure(content: &ContentPath, error: ExportError) -> Failure {
    let code = match &error {
        ExportError::Exists { path } => {
            let inside = path.join(own_name(content));
            // Inside what was written there under the same name before, nobody wants it.
            let is_wanted = path.is_dir() && path.file_name() != inside.file_name() && !inside.exists();
            let help = match is_wanted {
                true => format!("-o {} writes it into that folder; nothing is replaced", escape::path(&inside)),
                false => "remove it, or write to another place with -o".to_owned(),
            };
            return Failure::new(exit_code::FAILURE, &error).with_help(help);
        }
        ExportError::Io { .. } | ExportError::Source { .. } | ExportError::Cancelled => exit_code::FAILURE,
        ExportError::Missing { .. } => exit_code::NOT_FOUND,
        _ => exit_code::INVALID,
    };
    let help = match &error {
        ExportError::TooManyBytes { .. } => Some("--size-max SIZE allows more"),
        ExportError::TooManyEntries { .. } => Some("--entries-max NUMBER allows more"),
        _ => None,
    };
    let failure = Failure::caused_in_store(code, format!("failed to write {content}"), &error);
    help.into_iter().fold(failure, Failure::with_help)
}
