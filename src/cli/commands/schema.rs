//! `ww schema`.

use clap::Args;

use crate::cli::error::Failure;
use crate::cli::{exit_code, ui};
use crate::wetfile;

/// Print the JSON Schema of Wetfile.toml
///
/// Editors check and complete a Wetfile by it: write it to a file beside the Wetfile, and begin the Wetfile with the line
/// `#:schema ./wetfile.schema.json`. What it accepts may still be wrong; `ww build` tells.
#[derive(Debug, Args)]
pub(in crate::cli) struct SchemaArgs {}

/// Prints.
pub(in crate::cli) fn run(_: &SchemaArgs) -> Result<(), Failure> {
    ui::result_bytes(|out| {
        out.write_all(wetfile::json_schema().as_bytes()).map_err(|error| Failure::new(exit_code::FAILURE, &error))
    })
}
