//! `ww cat`.

use std::io::{self, Write};

use base64::prelude::BASE64_STANDARD;
use base64::write::EncoderWriter;
use clap::Args;
use serde_json::json;

use crate::cli::error::Failure;
use crate::cli::sources::SourceArgs;
use crate::cli::{content, exit_code, store, ui};
use crate::dag::{Cid, ContentPath, Scope};
use crate::escape;
use crate::ops::{self, ContentError};
use crate::quantity::Bytes;
use crate::tree::{ExportError, ExportLimits};

/// Print files
///
/// Writes their content to standard output as it is, one after the other. What is not in the local blockstore is fetched
/// first, for all of them before anything is printed.
#[derive(Debug, Args)]
pub(in crate::cli) struct CatArgs {
    /// CID[/path], /ipfs/CID[/path] or ipfs://CID[/path]
    #[arg(value_name = "CONTENT", required = true)]
    contents: Vec<ContentPath>,

    /// How much to print at most, all files together
    #[arg(long, value_name = "SIZE", default_value_t = Bytes(ExportLimits::BYTES))]
    size_max: Bytes,

    /// Print one JSON object with the content of each file in base64
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sources: SourceArgs,
}

/// Prints.
pub(in crate::cli) fn run(args: &CatArgs) -> Result<(), Failure> {
    let store = store::open(|| false)?;
    let fetch = |content| content::fetch(&store, content, Scope::Entity, &args.sources);
    let fetched: Vec<content::Content> = args.contents.iter().map(fetch).collect::<Result<_, _>>()?;
    let files = args.contents.iter().zip(&fetched);
    // A directory among them, and a file without end, is noticed before anything is printed.
    let sizes = files.clone().map(|(content, fetched)| {
        ops::file_size(&store, fetched.end).map_err(|error| content::failure(content, error))
    });
    let sizes = sizes.collect::<Result<Vec<u64>, _>>()?;
    check_size(&sizes, args.size_max.0)?;
    let cat = |cid: Cid, out: &mut dyn Write| ops::cat(&store, cid, &mut |piece| out.write_all(piece));
    ui::result_bytes(|out| {
        if !args.json {
            for (content, fetched) in files {
                cat(fetched.end, out).map_err(|error| content::failure(content, error))?;
            }
            return Ok(());
        }
        write!(out, "{{\"files\":[").map_err(failed)?;
        for (index, ((content, fetched), size_bytes)) in files.zip(&sizes).enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let head = json!({
                "root": content.root.to_string(),
                "path": content.path,
                "cid": fetched.end.to_string(),
                "size_bytes": size_bytes,
            });
            let head = escape::json(&head.to_string());
            // The content may be larger than memory.
            let head = head.trim_end_matches('}');
            write!(out, "{separator}{head},\"content_base64\":\"").map_err(failed)?;
            cat_base64(out, |encoder| cat(fetched.end, encoder)).map_err(|error| content::failure(content, error))?;
            write!(out, "\"}}").map_err(failed)?;
        }
        writeln!(out, "]}}").map_err(failed)
    })
}

/// A few blocks can describe a file of any size.
fn check_size(sizes: &[u64], limit: u64) -> Result<(), Failure> {
    let total = sizes.iter().try_fold(0, |total: u64, size| total.checked_add(*size));
    if total.is_some_and(|total| total <= limit) {
        return Ok(());
    }
    let error = ExportError::TooManyBytes { limit };
    Err(Failure::new(exit_code::INVALID, &error).with_help("--size-max SIZE allows more"))
}

fn cat_base64(
    out: &mut dyn Write,
    cat: impl FnOnce(&mut dyn Write) -> Result<(), ContentError>,
) -> Result<(), ContentError> {
    let mut encoder = EncoderWriter::new(out, &BASE64_STANDARD);
    cat(&mut encoder)?;
    encoder.finish().map(drop).map_err(ContentError::Output)
}

fn failed(error: io::Error) -> Failure {
    Failure::new(exit_code::FAILURE, &error)
}
