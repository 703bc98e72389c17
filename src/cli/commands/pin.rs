//! `ww pin`.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::blockstore::{Blockstore, PinName};
use crate::cli::error::Failure;
use crate::cli::sources::SourceArgs;
use crate::cli::{content, exit_code, store};
use crate::dag::{ContentPath, Scope};
use crate::ops;

/// Name content that is to stay in the blockstore
///
/// A pin is a name for a root. What can be reached from a root with a pin stays; the rest goes with the next `ww gc`, or
/// when the blockstore is over its size limit.
#[derive(Debug, Args)]
pub(in crate::cli) struct PinArgs {
    #[command(subcommand)]
    command: PinCommand,
}

#[derive(Debug, Subcommand)]
enum PinCommand {
    Add(Box<AddArgs>),
    Rm(RemoveArgs),
    Ls(ListArgs),
}

/// Pin a root
///
/// What is not in the local blockstore is fetched first; each block is checked against its CID. A pin of the same name is
/// replaced. Prints the CID and the name.
#[derive(Debug, Args)]
struct AddArgs {
    /// The root, as CID, /ipfs/CID or ipfs://CID
    #[arg(value_name = "CID")]
    root: ContentPath,

    /// The pin's name; else it is the text of the CID
    #[arg(long)]
    name: Option<PinName>,

    /// Print it as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sources: SourceArgs,
}

/// Remove pins
///
/// What they held stays until the next `ww gc`. Prints their CIDs and names. If one of the names has no pin, none is removed.
#[derive(Debug, Args)]
struct RemoveArgs {
    /// Names of pins
    #[arg(value_name = "NAME", required = true)]
    names: Vec<PinName>,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// List all pins
///
/// Prints a line for each, with CID and name, sorted by name.
#[derive(Debug, Args)]
struct ListArgs {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(in crate::cli) fn run(args: PinArgs) -> Result<(), Failure> {
    match args.command {
        PinCommand::Add(args) => add(*args),
        PinCommand::Rm(args) => remove(&args),
        PinCommand::Ls(args) => list(&args),
    }
}

fn add(args: AddArgs) -> Result<(), Failure> {
    if !args.root.path.is_empty() {
        let message = format!("{} is a path below a root, and a pin is for a root", args.root);
        return Err(Failure::message(exit_code::USAGE, message));
    }
    let store = store::open(|| false)?;
    // Nothing of it goes until it is pinned.
    let fetched = content::fetch(&store, &args.root, Scope::All, &args.sources)?;
    let pin = ops::pin(&store, fetched.end, args.name)?;
    if args.json { store::print_json(&store::pin_json(&pin)) } else { store::print(&store::pin_line(&pin)) }
}

fn remove(args: &RemoveArgs) -> Result<(), Failure> {
    let removed = ops::unpin(&store::open(|| false)?, &args.names)?;
    if args.json {
        return store::print_json(&json!({ "removed": removed.iter().map(store::pin_json).collect::<Vec<_>>() }));
    }
    removed.iter().try_for_each(|pin| store::print(&store::pin_line(pin)))
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let pins = store::open(|| false)?.pins()?;
    if args.json {
        return store::print_json(&json!({ "pins": pins.iter().map(store::pin_json).collect::<Vec<_>>() }));
    }
    pins.iter().try_for_each(|pin| store::print(&store::pin_line(pin)))
}
