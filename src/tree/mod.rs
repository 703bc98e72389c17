//! Trees of files and their blocks: [`import()`] names a file or folder by its content, [`export()`] writes it again.
//!
//! What the blocks look like is for `dag::unixfs` to say; where they are kept is for whoever calls: blocks go to a
//! [`BlockSink`], and come from a [`BlockSource`]. Folders are opened one by one and symlinks are stored, never followed. Modes and times are not stored.

mod export;
mod import;
mod queue;
mod root;
mod stat_cache;

use std::error::Error;

pub use export::{BlockSource, ExportError, ExportLimits, ExportOptions, Exported, export};
pub use import::{
    BlockSink, DEPTH_MAX, FileInspector, ImportError, ImportOptions, Imported, RootSymlink, THREADS_MAX, import,
};
pub use stat_cache::StatCache;

/// Why a sink or a source of blocks failed. Only whoever gave it knows its type.
pub type BoxError = Box<dyn Error + Send + Sync>;
