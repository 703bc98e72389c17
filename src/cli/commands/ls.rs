//! `ww ls`.

use clap::Args;
use serde_json::{Value, json};

use crate::blockstore::Blockstore;
use crate::cli::error::Failure;
use crate::cli::sources::{self, SourceArgs};
use crate::cli::{content, exit_code, store, ui};
use crate::dag::{ContentPath, Scope};
use crate::escape;
use crate::ops::{self, EntryKind, ListedEntry};

/// List a directory
///
/// Prints the names of its entries, sorted by their bytes, and nothing of what is below them. What is not in the local
/// blockstore is fetched first.
#[derive(Debug, Args)]
pub(in crate::cli) struct LsArgs {
    /// CID[/path], /ipfs/CID[/path] or ipfs://CID[/path]
    #[arg(value_name = "CONTENT")]
    content: ContentPath,

    /// Print kind, size in bytes and CID as well
    ///
    /// For this, the first block of each entry is looked at. What nobody has is shown as `?`.
    #[arg(short, long)]
    long: bool,

    /// Print the entries as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sources: SourceArgs,
}

/// Lists.
pub(in crate::cli) fn run(args: &LsArgs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(exit_code::FAILURE, &error);
    let store = store::open(|| false)?;
    let fetched = content::fetch(&store, &args.content, Scope::Entity, &args.sources)?;
    let listed = ops::ls(&store, fetched.end);
    let mut entries = listed.map_err(|error| content::failure(&args.content, error))?;
    if args.long {
        look_up_details(&store, args, &mut entries)?;
    }
    if args.json {
        let document = json!({
            "root": args.content.root.to_string(),
            "path": args.content.path,
            "cid": fetched.end.to_string(),
            "entries": entries.iter().map(|entry| as_json(entry, args.long)).collect::<Vec<_>>(),
        });
        return ui::result_line(&escape::json(&document.to_string())).map_err(failed);
    }
    let lines: Vec<String> =
        if args.long { long_lines(&entries) } else { entries.iter().map(|entry| entry.name.to_string()).collect() };
    lines.iter().try_for_each(|line| ui::result_line(line)).map_err(failed)
}

fn look_up_details(store: &dyn Blockstore, args: &LsArgs, entries: &mut [ListedEntry]) -> Result<(), Failure> {
    let sources = sources::sources(&args.sources)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    let done = runtime.block_on(ops::look_up_details(store, &sources, entries));
    runtime.shutdown_background();
    Ok(done?)
}

/// The name of a kind, and that of one that nobody knows.
fn kind_name(entry: &ListedEntry) -> &'static str {
    match entry.details.map(|details| details.kind) {
        Some(EntryKind::File) => "file",
        Some(EntryKind::Directory) => "directory",
        Some(EntryKind::Symlink) => "symlink",
        None => "?",
    }
}

/// `file       6  bafkrei…  hello.txt`, with columns as wide as need be.
fn long_lines(entries: &[ListedEntry]) -> Vec<String> {
    let size = |entry: &ListedEntry| match entry.details {
        Some(details) => details.size_bytes.map_or_else(|| "-".to_owned(), |size| size.to_string()),
        None => "?".to_owned(),
    };
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default();
    let kind_width = width(&mut entries.iter().map(|entry| kind_name(entry).len()));
    let size_width = width(&mut entries.iter().map(|entry| size(entry).len()));
    let cid_width = width(&mut entries.iter().map(|entry| entry.cid.to_string().len()));
    let line = |entry: &ListedEntry| {
        let (kind, size, cid) = (kind_name(entry), size(entry), entry.cid.to_string());
        format!("{kind:kind_width$}  {size:>size_width$}  {cid:cid_width$}  {}", entry.name)
    };
    entries.iter().map(line).collect()
}

/// Documented in `docs/content.md`.
fn as_json(entry: &ListedEntry, with_details: bool) -> Value {
    let mut object = json!({ "name": entry.name.as_str(), "cid": entry.cid.to_string() });
    if with_details {
        object["kind"] = entry.details.map(|_| kind_name(entry)).into();
        object["size_bytes"] = entry.details.and_then(|details| details.size_bytes).into();
    }
    object
}
