//! `ww get`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::build::Cancel;
use crate::cli::cancel::CancelOnSignal;
use crate::cli::error::Failure;
use crate::cli::meter::Meter;
use crate::cli::sources::SourceArgs;
use crate::cli::{content, exit_code, store, ui};
use crate::dag::{ContentPath, Scope};
use crate::escape;
use crate::ops;
use crate::quantity::Bytes;
use crate::tree::{ExportError, ExportLimits, ExportOptions};

/// Write content to disk: a file, or a directory with everything in it
///
/// What is not in the local blockstore is fetched first; each block is checked against its CID. The tree is written beside
/// its place and gets its name when it is whole. Nothing that is there already is replaced.
#[derive(Debug, Args)]
pub(in crate::cli) struct GetArgs {
    /// CID[/path], /ipfs/CID[/path] or ipfs://CID[/path]
    #[arg(value_name = "CONTENT")]
    content: ContentPath,

    /// Where to write it: this becomes the file or directory itself
    ///
    /// Without this option it is the last name of the path, or the CID, in the working directory.
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,

    /// How much to write at most
    #[arg(long, value_name = "SIZE", default_value_t = Bytes(ExportLimits::BYTES))]
    size_max: Bytes,

    /// How many files, directories and symlinks to write at most
    #[arg(long, value_name = "NUMBER", default_value_t = ExportLimits::ENTRIES)]
    entries_max: u64,

    /// Print what was written as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sources: SourceArgs,
}

/// Gets.
pub(in crate::cli) fn run(args: &GetArgs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(exit_code::FAILURE, &error);
    let target = args.output.clone().unwrap_or_else(|| content::own_name(&args.content));
    if target.symlink_metadata().is_ok() {
        // Nothing is fetched that could not be written.
        return Err(content::export_failure(&args.content, ExportError::Exists { path: target }));
    }
    let store = store::open(|| false)?;
    let fetched = content::fetch(&store, &args.content, Scope::All, &args.sources)?;
    let cancel = Cancel::default();
    let signals = CancelOnSignal::watch(&cancel).map_err(failed)?;
    let exported = {
        let meter = Meter::new("writing", None);
        let options = ExportOptions {
            limits: ExportLimits { bytes: args.size_max.0, entries: args.entries_max, ..ExportLimits::default() },
            cancel: &|| cancel.is_cancelled(),
            progress: &|bytes| meter.add(bytes),
            ..ExportOptions::default()
        };
        ops::get(&store, fetched.end, &target, &options)
    };
    let exported = signals.result(exported.map_err(|error| content::export_failure(&args.content, error)))?;
    let shown = match args.json {
        false => {
            let plural = if exported.files == 1 { "" } else { "s" };
            format!("{}: {} file{plural}, {} bytes", escape::path(&target), exported.files, exported.bytes)
        }
        true => escape::json(
            &json!({
                "root": args.content.root.to_string(),
                "path": args.content.path,
                "cid": fetched.end.to_string(),
                "output": target.to_string_lossy(),
                "files": exported.files,
                "folders": exported.folders,
                "symlinks": exported.symlinks,
                "size_bytes": exported.bytes,
                "fetched_blocks": fetched.blocks,
                "fetched_bytes": fetched.bytes,
            })
            .to_string(),
        ),
    };
    ui::result_line(&shown).map_err(failed)
}
