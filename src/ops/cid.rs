//! `ww cid`: the name of a tree of files, which nothing is done with.

use std::path::Path;

use crate::dag::unixfs::Profile;
use crate::tree::{self, ImportError, ImportOptions, Imported};

/// Names a file or a folder by its content. `cancel` is asked and `progress` is told from several threads, as
/// [`ImportOptions`] says.
///
/// # Errors
/// Any [`ImportError`] but those of a sink.
pub fn cid(
    path: &Path,
    profile: Profile,
    cancel: &(dyn Fn() -> bool + Sync),
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Imported, ImportError> {
    tree::import(path, &ImportOptions { cancel, progress, ..ImportOptions::new(profile) }, None, None)
}
