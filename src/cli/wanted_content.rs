//! Content that images take by its CID: from the local blockstore, or fetched as `ww get` does.

use std::path::Path;

use super::error::{Failure, Passed};
use super::sources::SourceArgs;
use super::{content, store};
use crate::build::Cancel;
use crate::dag::{Cid, ContentPath, Scope};
use crate::ops::{self, BringContent};
use crate::tree::{BoxError, ExportOptions};

/// Brings content for a build.
pub(super) struct WantedContent<'a> {
    pub(super) sources: &'a SourceArgs,
    pub(super) cancel: &'a Cancel,
}

impl BringContent for WantedContent<'_> {
    fn bring(&self, cid: &Cid, target: &Path) -> Result<(), BoxError> {
        self.write(cid, target).map_err(|failure| Passed(failure).into())
    }
}

impl WantedContent<'_> {
    fn write(&self, cid: &Cid, target: &Path) -> Result<(), Failure> {
        let store = store::open_until(self.cancel)?;
        let wanted = ContentPath { root: *cid, path: String::new() };
        let fetched = content::fetch_until(&store, &wanted, Scope::All, self.sources, Some(self.cancel))?;
        let options = ExportOptions { cancel: &|| self.cancel.is_cancelled(), ..ExportOptions::default() };
        let written = ops::get(&store, fetched.end, target, &options);
        written.map(drop).map_err(|error| content::export_failure(&wanted, error))
    }
}
