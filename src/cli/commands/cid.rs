//! `ww cid`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::build::Cancel;
use crate::cli::cancel::CancelOnSignal;
use crate::cli::error::Failure;
use crate::cli::meter::Meter;
use crate::cli::{exit_code, project, ui};
use crate::dag::unixfs::Profile;
use crate::escape;
use crate::ops;
use crate::tree::ImportError;

/// Print the CID of a file or folder
///
/// It is the CID that `ww publish` gives it, and that of Kubo with the same parameters. All that is in a folder counts,
/// hidden files too; symlinks are symlinks; modes and times do not count. Nothing is stored.
#[derive(Debug, Args)]
pub(in crate::cli) struct CidArgs {
    /// The file or folder
    path: PathBuf,

    /// How the CID is made: unixfs-v1-2025, unixfs-v0-2015 or kubo-cidv1
    #[arg(long, value_name = "PROFILE", default_value_t)]
    profile: Profile,

    /// Print the CID, its profile, and what it names as JSON
    #[arg(long)]
    json: bool,
}

/// Prints.
pub(in crate::cli) fn run(args: &CidArgs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(exit_code::FAILURE, &error);
    if project::is_absent(&args.path) {
        return Err(project::absent(&args.path));
    }
    let cancel = Cancel::default();
    let signals = CancelOnSignal::watch(&cancel).map_err(failed)?;
    let imported = {
        let meter = Meter::new("hashing", None);
        ops::cid(&args.path, args.profile, &|| cancel.is_cancelled(), &|bytes| meter.add(bytes))
    };
    let imported = signals.result(imported.map_err(failure))?;
    let cid = imported.subtree.cid.to_string();
    let shown = match args.json {
        false => cid,
        true => escape::json(
            &json!({
                "cid": cid,
                "profile": args.profile.name,
                "files": imported.files,
                "folders": imported.folders,
                "symlinks": imported.symlinks,
                "size_bytes": imported.bytes,
                "dag_size_bytes": imported.subtree.dag_size,
            })
            .to_string(),
        ),
    };
    ui::result_line(&shown).map_err(failed)
}

fn failure(error: ImportError) -> Failure {
    let failure = Failure::new(exit_code::FAILURE, &error);
    match error {
        ImportError::RootSymlink { .. } => failure.with_help("name what it leads to"),
        _ => failure,
    }
}
