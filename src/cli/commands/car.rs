//! `ww car`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::atomic_file::Replaceable;
use crate::blockstore::PinName;
use crate::build::Cancel;
use crate::cli::cancel::CancelOnSignal;
use crate::cli::error::{self, Failure};
use crate::cli::meter::Meter;
use crate::cli::store::{self, counted};
use crate::cli::{env, exit_code, project, ui};
use crate::dag::ContentPath;
use crate::ops::car::{CarExported, CarImported, CarPin, export_car, import_car};
use crate::{atomic_file, escape};

/// Bytes that are gathered before they are written.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// Bring archives of blocks (CAR) into the blockstore, and content out of it
#[derive(Debug, Args)]
pub(in crate::cli) struct CarArgs {
    #[command(subcommand)]
    command: CarCommand,
}

#[derive(Debug, Subcommand)]
enum CarCommand {
    Import(ImportArgs),
    Export(ExportArgs),
}

/// Bring an archive into the blockstore
///
/// Reads CARv1 and CARv2. Every block is checked, and an archive with a bad block or without its end changes nothing.
/// Prints the roots that the archive names. Without --pin, a root of which something is missing is a warning.
#[derive(Debug, Args)]
struct ImportArgs {
    /// The archive; - for standard input
    file: PathBuf,

    /// Pin the roots, of which everything must be there: the only one as NAME, or each as its CID
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    pin: Option<Option<PinName>>,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Write content from the blockstore to an archive
///
/// Writes a CARv1 with all that can be reached from the root, depth first and without duplicates. Nothing is fetched, and
/// nothing is written if something is missing.
#[derive(Debug, Args)]
struct ExportArgs {
    /// The root, as CID, /ipfs/CID or ipfs://CID
    #[arg(value_name = "CID")]
    root: ContentPath,

    /// The archive, which is there whole or not at all; - for standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// Print what was written as JSON
    #[arg(long, requires = "output")]
    json: bool,
}

/// Does it.
pub(in crate::cli) fn run(args: CarArgs) -> Result<(), Failure> {
    match args.command {
        CarCommand::Import(args) => import(args),
        CarCommand::Export(args) => export(&args),
    }
}

fn is_standard_stream(path: &Path) -> bool {
    path == Path::new("-")
}

fn import(args: ImportArgs) -> Result<(), Failure> {
    let (mut archive, is_file) = open_archive(&args.file)?;
    let pin = args.pin.map(|name| name.map_or(CarPin::OfRoots, CarPin::Name));
    let cancel = Cancel::default();
    // Somebody who sends nothing can only be waited for, and a signal then has to end the process by itself. What was
    // written is of no use to anybody in either case, and is removed by and by.
    let signals = is_file.then(|| CancelOnSignal::watch(&cancel)).transpose();
    let signals = signals.map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    let store = store::open_until(&cancel);
    let imported = store.and_then(|store| {
        let meter = Meter::new("reading", None);
        let is_cancelled = || cancel.is_cancelled();
        let imported = import_car(&store, &mut *archive, pin.as_ref(), &mut |bytes| meter.add(bytes), &is_cancelled)?;
        store::trim(&store);
        Ok(imported)
    });
    let imported = match signals {
        Some(signals) => signals.result(imported)?,
        None => imported?,
    };
    if args.json {
        store::print_json(&imported_json(&imported))?;
    } else {
        imported.roots.iter().try_for_each(|root| store::print(&root.to_string()))?;
    }
    ui::progress(&format!("{}, {} new", counted(imported.blocks, "block"), imported.new_blocks));
    for (root, reason) in &imported.incomplete {
        ui::status(&format!(
            "warning: root {root} was not pinned and is not whole: {}",
            error::chain(reason).join(": ")
        ));
    }
    Ok(())
}

/// Opens an archive, and tells whether it is a regular file.
fn open_archive(path: &Path) -> Result<(Box<dyn Read>, bool), Failure> {
    if is_standard_stream(path) {
        return Ok((Box::new(io::stdin().lock()), false));
    }
    if project::is_absent(path) {
        return Err(project::absent(path));
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.is_file(), file)));
    let (is_file, file) = opened
        .map_err(|error| Failure::caused(exit_code::FAILURE, format!("cannot open {}", escape::path(path)), &error))?;
    Ok((Box::new(file), is_file))
}

/// Documented in `docs/store.md`.
fn imported_json(imported: &CarImported) -> Value {
    let incomplete = imported.incomplete.iter();
    let incomplete: Vec<_> = incomplete
        .map(|(root, reason)| json!({ "cid": root.to_string(), "reason": error::chain(reason).join(": ") }))
        .collect();
    json!({
        "roots": imported.roots.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "blocks": imported.blocks,
        "new_blocks": imported.new_blocks,
        "new_bytes": imported.new_bytes,
        "pins": imported.pins.iter().map(store::pin_json).collect::<Vec<_>>(),
        "incomplete": incomplete,
    })
}

fn export(args: &ExportArgs) -> Result<(), Failure> {
    if !args.root.path.is_empty() {
        let message = format!("{} is a path below a root, and an archive is of a root", args.root);
        return Err(Failure::message(exit_code::USAGE, message));
    }
    if is_standard_stream(&args.output) {
        if args.json {
            let message = "standard output cannot take both the archive and JSON";
            return Err(Failure::message(exit_code::USAGE, message).with_help("-o FILE writes the archive to a file"));
        }
        if env::stdout_is_terminal() {
            let message = "an archive is no text for a terminal";
            return Err(Failure::message(exit_code::USAGE, message).with_help("-o FILE writes it to a file"));
        }
        return ui::result_bytes(|archive| export_to(args, archive, &Cancel::default()).map(drop));
    }
    let exported = export_to_file(args)?;
    if args.json {
        return store::print_json(&json!({
            "cid": args.root.root.to_string(),
            "blocks": exported.blocks,
            "bytes": exported.bytes,
        }));
    }
    ui::progress(&format!("{}, {}", counted(exported.blocks, "block"), counted(exported.bytes, "byte")));
    Ok(())
}

fn export_to(args: &ExportArgs, archive: &mut dyn Write, cancel: &Cancel) -> Result<CarExported, Failure> {
    Ok(export_car(&store::open_until(cancel)?, &args.root.root, archive, &|| cancel.is_cancelled())?)
}

/// Writes beside the file and gives that its name at the end; what is no regular file, such as a pipe, is written to.
fn export_to_file(args: &ExportArgs) -> Result<CarExported, Failure> {
    let path = &args.output;
    let failed =
        |error: io::Error| Failure::caused(exit_code::FAILURE, format!("cannot write {}", escape::path(path)), &error);
    let cancel = Cancel::default();
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let file = File::options().write(true).open(path).map_err(failed)?;
        return export_to(args, &mut BufWriter::with_capacity(WRITE_BUFFER_BYTES, file), &cancel);
    }
    // So that the file beside it is removed.
    let signals = CancelOnSignal::watch(&cancel).map_err(failed)?;
    let Replaceable { path: place, mode } = atomic_file::replaceable(path).map_err(failed)?;
    let file = atomic_file::temporary(place.parent().unwrap_or(Path::new("/")), 0o666).map_err(failed)?;
    if let Some(mode) = mode {
        file.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    let exported = export_to(args, &mut BufWriter::with_capacity(WRITE_BUFFER_BYTES, file.as_file()), &cancel);
    signals.check()?;
    let exported = exported?;
    file.persist(place).map_err(|error| failed(error.error))?;
    Ok(exported)
}
