//! `ww run`.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgMatches, Args};
use clap_complete::engine::ArgValueCompleter;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::run_watch;
use crate::cell::{ExitStatus, LimitReached, NetworkRefused};
use crate::cli::cancel::STOPPING;
use crate::cli::error::Failure;
use crate::cli::progress::Shown;
use crate::cli::signals::{StopSignal, StopSignals};
use crate::cli::sources::SourceArgs;
use crate::cli::status_file::StatusFile;
use crate::cli::{compiler, complete, env, exit_code, grant_file, project, run_content as content, shell, ui};
use crate::dag::ContentPath;
use crate::escape;
use crate::grant::{self, Grant, Grants, Limit, Limits, MountGrant};
use crate::host;
use crate::ops::{self, BuildOptions, ImageSource, Ran, Remains, RunEvent, RunOptions, RunOutcome, Usage};
use crate::swarm::{AddressError, Identity, Listen, Multiaddr, SwarmConfig};
use crate::wetfile;
use crate::wetfile::lock::LOCK_FILE_NAME;

/// The port of the node where none is asked for.
pub(super) const DEFAULT_PORT: u16 = 2020;

/// How many flags that an image asks for are shown with a run, and how many bytes of them: two lines of a terminal.
const FLAGS_SHOWN_MAX: usize = 8;
const FLAGS_SHOWN_BYTES: usize = 200;

/// Run an image in a sandboxed cell
///
/// The image is a folder with `bin/main.wasm`, a component that exports `wasi:cli/run`; or, where no such folder has
/// this name, the name of an image of the Wetfile, which is built first; or content, as /ipfs/CID/PATH or ipfs://CID/PATH,
/// which is looked for in the local blockstore, and then asked of a Kubo node (without --kubo also at
/// http://localhost:5001) and of the gateways given: what it needs to start before it starts, and the rest when the guest
/// reads it. The guest sees the image's folder, read-only, as `/`, the standard streams, and a Host
/// capability over Cap'n Proto RPC; nothing else.
///
/// A guest is compiled with its first run, in a process with limits, and its code is kept for the next: see `docs/run.md`.
/// WW_CODE_CACHE_MAX is how much is kept, such as 200MiB; 1GiB without it, nothing with 0.
///
/// `ww` ends with the guest's own exit code, or with 134 if it trapped; see `docs/exit-codes.md` for the others.
#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    /// The image's folder, its name in the Wetfile, /ipfs/CID, ipfs://CID, or a CID
    #[arg(add = ArgValueCompleter::new(complete::images))]
    image: PathBuf,

    /// Port of the libp2p node, TCP and QUIC, on all interfaces; 0 takes a free one
    ///
    /// Without this option it is 2020, or a free one where that is busy.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,

    /// Address for the libp2p node to listen on, instead of a port of all interfaces; may be repeated. `none`: it does not listen
    ///
    /// A node that does not listen can still connect to others, for a guest that may: --grant connect.
    #[arg(long, value_name = "MULTIADDR", conflicts_with = "port", value_parser = listen_address)]
    listen: Vec<ListenAddress>,

    /// File with the node's identity, made where it is missing; without it each run has a new identity
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,

    /// Set an environment variable of the guest; may be repeated, and the last of a name counts
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,

    /// Let the guest do something beyond the minimum; may be repeated
    ///
    /// connect[:NETWORK]: have the node connect to public addresses, or to those of a network such as 192.168.0.0/16.
    /// network[:NETWORK]: open connections of its own, likewise. mount:SRC:DST[:rw]: use the folder SRC as DST.
    /// env:NAME: have this variable of the environment. fetch: load programs and images by CID. terminal: control the
    /// terminal, with raw mode and escape sequences, which are shown as text otherwise.
    #[arg(long, value_name = "GRANT")]
    grant: Vec<Grant>,

    /// Let the guest use the folder SRC as DST, to be read or with :rw also written: --grant mount:SRC:DST[:rw]
    #[arg(long, value_name = "SRC:DST[:rw]")]
    mount: Vec<MountGrant>,

    /// File that says what to let the guest do and how much it may use; --grant, --mount and --limit count more
    ///
    /// It has the form of an image's etc/cell.toml, but for mounts, which are mount:SRC:DST[:rw]. It must belong to you,
    /// and nobody else may be able to change it. See docs/authority.md.
    #[arg(long, value_name = "FILE")]
    grant_file: Option<PathBuf>,

    /// Set how much the guest may use, such as memory=64MiB; may be repeated
    #[arg(long, value_name = "NAME=VALUE", long_help = limit_help())]
    limit: Vec<Limits>,

    /// Build the image of the Wetfile, run it, and do both again whenever something that it is built from changes
    ///
    /// The guest is told to end (SIGTERM) after a good build; after one that failed it goes on. Ctrl-C ends both.
    #[arg(long)]
    watch: bool,

    /// Compile debug information in, and show files and lines in the backtrace of a trap
    #[arg(long)]
    wasm_debug: bool,

    /// Say at the end what the guest has used, on standard error and in the status file
    #[arg(long)]
    stats: bool,

    /// Write how the run ended to this file, as JSON
    ///
    /// A guest can end with any exit code, also with those that `ww` uses itself. This file tells them apart. What is there is
    /// removed before the guest runs; a device or a pipe is an error.
    #[arg(long, value_name = "FILE")]
    status_file: Option<PathBuf>,

    #[command(flatten)]
    sources: SourceArgs,

    /// First argument of the guest, by which some programs tell what they are to do; without it `main.wasm`
    #[arg(long, value_name = "NAME")]
    arg0: Option<String>,

    /// Arguments of the guest
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

fn limit_help() -> String {
    format!(
        "Set how much the guest may use, such as memory=64MiB; may be repeated\n\nThere are {}. See docs/authority.md for what \
         they mean, their defaults, and the least and the most. A time can be `none`.",
        grant::limit_names()
    )
}

/// Where the node is to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ListenAddress {
    /// Nowhere.
    None,
    /// At an address.
    At(Multiaddr),
}

fn listen_address(text: &str) -> Result<ListenAddress, AddressError> {
    match text {
        "none" => Ok(ListenAddress::None),
        address => address.parse().map(ListenAddress::At),
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ if Grant::from_str(&format!("env:{text}")).is_ok() => {
            Err(format!("it is not of the form NAME=VALUE; --grant env:{text} passes it on as it is here"))
        }
        _ => Err("it is not of the form NAME=VALUE".into()),
    }
}

/// Runs the image and returns what the process is to end with.
pub(in crate::cli) fn run(args: RunArgs, verbose: bool) -> ExitCode {
    if args.watch {
        return run_watch::run(&args.image, &args.sources, verbose);
    }
    let named = [("--identity", args.identity.as_deref()), ("--grant-file", args.grant_file.as_deref())];
    let prepare = |path: &Path| StatusFile::prepare(path, &others(named, Some(&args.image)));
    let status_file = match args.status_file.as_deref().map(prepare).transpose() {
        Ok(status_file) => status_file,
        Err(failure) => {
            ui::failure(&failure);
            return ExitCode::from(failure.code);
        }
    };
    let is_measured = args.stats;
    let (ended, usage, refused, tmp_refused) = match try_run(args, verbose) {
        Ok(Ran { outcome, usage, network_refused, tmp_refused, remains }) => {
            // The process ends.
            std::mem::forget(remains);
            (Ok(outcome), usage.filter(|_| is_measured), network_refused, tmp_refused)
        }
        Err(failure) => (Err(failure), None, NetworkRefused::default(), None),
    };
    let code = match &ended {
        Ok(outcome) => code(outcome),
        Err(failure) => failure.code,
    };
    if let Ok(RunOutcome::Ended(ExitStatus::Trapped(text))) = &ended {
        ui::status(&format!("the guest trapped: {}", escape::lines(text)));
    }
    if let Ok(RunOutcome::Ended(ExitStatus::LimitReached(reached))) = &ended {
        ui::status(&format!("the guest was ended: {reached}; `--limit {}=…` sets another", reached.limit));
    }
    if let Err(failure) = &ended {
        ui::failure(failure);
    }
    if !refused.is_nothing() {
        ui::progress(&shown_refusals(&refused));
    }
    if let Some(reached) = tmp_refused {
        ui::progress(&format!(
            "the guest was refused room in /tmp: {reached}; `--limit {}=…` sets another",
            reached.limit
        ));
    }
    if let Some(usage) = &usage {
        ui::status(&stats(usage));
    }
    if let Some(file) = status_file {
        let mut status = status(&ended, code);
        if let Some(usage) = &usage {
            status["usage"] = usage_as_json(usage);
        }
        if let Err(failure) = file.write(&status) {
            ui::failure(&failure);
            return ExitCode::from(failure.code);
        }
    }
    ExitCode::from(code)
}

fn try_run(args: RunArgs, verbose: bool) -> Result<Ran<StopSignal>, Failure> {
    let stopped = |signal| Ran {
        outcome: RunOutcome::Stopped(signal),
        usage: None,
        network_refused: NetworkRefused::default(),
        tmp_refused: None,
        remains: Remains::default(),
    };
    let failed = |error: std::io::Error| Failure::new(exit_code::RUN_FAILURE, &error);
    let [stdin, stdout, stderr] = env::standard_streams().map_err(failed)?;
    // Each open file of a guest is one, and each folder on the way to an open folder.
    env::allow_open_files().map_err(failed)?;
    env::allow_deep_stack(host::STACK_BYTES);
    let (grants, limits) = authority(&args)?;
    if let Some(path) = args.identity.as_deref() {
        grant_file::refuse_key_within_reach(path, &grants)?;
    }
    let swarm = swarm_config(&args)?;
    let is_everywhere = matches!(swarm.listen, Listen::Port { .. });
    let compiler = compiler::options().map_err(|failure| Failure { code: exit_code::RUN_FAILURE, ..failure })?;
    let image = match image(&args, verbose) {
        Ok(image) => image,
        Err(failure) => return StopSignal::of(&failure).map(stopped).ok_or(failure),
    };
    // This thread is enough for the cell, and for what a network brings: the node, children and disks have others, which would
    // take longer to start than a small guest takes to run.
    let runtime = host::build_runtime().map_err(failed)?;
    let ended = runtime.block_on(async {
        // Where the guest has the terminal, it has to be put back.
        let mut signals = StopSignals::new(grants.terminal()).map_err(failed)?;
        ui::give_up_after(&STOPPING).map_err(failed)?;
        let (sources, stop) = (args.sources, CancellationToken::new());
        let named = match &image {
            Image::Folder(_) => None,
            Image::Content(content) => Some(content),
        };
        let session = content::session(named, &sources, &stop);
        let (name, image) = match image {
            Image::Folder(folder) => (folder.clone(), ImageSource::Folder(folder)),
            Image::Content(content) => match content::bring(&session, content, &sources, &stop, &mut signals).await? {
                ControlFlow::Continue(content) => (args.image, ImageSource::Content(content)),
                ControlFlow::Break(signal) => return Ok(stopped(signal)),
            },
        };
        let options = RunOptions {
            swarm,
            name,
            image,
            arg0: args.arg0,
            args: args.args,
            env: last_of_each(granted_env(&grants, &args.env).into_iter().chain(args.env)),
            grants,
            limits,
            own_folders: env::code_cache_folder().into_iter().chain(env::state_folder()).collect(),
            debug: args.wasm_debug,
            compiler,
            content: session.clone(),
            stdin,
            stdout,
            stderr,
            program: env::this_program_as_it_runs().map_err(failed)?,
        };
        // What is shown over a screen that is the guest's would be lost, or would be in its way.
        let is_screen_taken = options.grants.terminal() && env::stderr_is_screen();
        let shown = escape::path(&options.name);
        let status = compiler::Status::new(&shown);
        let ended =
            ops::run(options, &|event| say(event, &status, is_everywhere, is_screen_taken), signals.next()).await;
        let was_stopped = matches!(&ended, Ok(Ran { outcome: RunOutcome::Stopped(_), .. }));
        content::close(&session, &stop, was_stopped).await;
        ended.map_err(|error| content::of_run(error, &sources))
    });
    // Whatever is still on its way, a compiler or a killed cell, does not hold up the end of the process.
    runtime.shutdown_background();
    ended
}

/// What the guest may do and how much it may use: what the file says, and more than that what the command line says.
fn authority(args: &RunArgs) -> Result<(Grants, Limits), Failure> {
    let (grants, mut limits) = args.grant_file.as_deref().map(grant_file::read).transpose()?.unwrap_or_default();
    limits.extend(args.limit.iter().cloned());
    let mounts = args.mount.iter().cloned().map(Grant::Mount);
    let grants = grants.overridden_by(Grants(args.grant.iter().cloned().chain(mounts).collect())).without_repetition();
    grant::check(&grants.0).map_err(|(_, error)| Failure::new(exit_code::RUN_FAILURE, &error))?;
    if let Some(path) = args.grant_file.as_deref() {
        grant_file::refuse_within_reach(path, &grants)?;
    }
    Ok((grants, limits))
}

/// The variables of this process that the guest may have, as far as they are set, and to texts; without those that are `set` for
/// it to something else.
fn granted_env(grants: &Grants, set: &[(String, String)]) -> Vec<(String, String)> {
    let value = |name: &str| match env::variable_os(name).map(OsString::into_string) {
        Some(Ok(value)) => Some((name.to_owned(), value)),
        Some(Err(_)) => {
            ui::progress(&format!("warning: the variable {name} is not UTF-8, so the guest does not get it"));
            None
        }
        None => {
            ui::progress(&format!("warning: the variable {name} is not set, so the guest does not get it"));
            None
        }
    };
    grants.variables().filter(|name| set.iter().all(|(other, _)| other != name)).filter_map(value).collect()
}

/// Says what the user should know of a run: where the node can be reached, all of it with `-v`, and whether that is everywhere;
/// and what the image would like to have. Not while its screen is the guest's.
fn say(event: RunEvent, status: &compiler::Status<'_>, is_everywhere: bool, is_screen_taken: bool) {
    match event {
        RunEvent::Compiling(event) => status.show(event),
        RunEvent::OtherPort(port) => {
            ui::progress(&format!("port {DEFAULT_PORT} is busy, so the node takes {port}"));
        }
        RunEvent::Lacking(lacking) => {
            ui::progress(&format!("the image asks for what it is not given: {}", shown_flags(&lacking)));
        }
        RunEvent::Listening(addrs) => {
            addrs.iter().for_each(|addr| tracing::debug!(addr, "listening"));
            if let Some((first, others)) = addrs.split_first().filter(|_| !is_screen_taken) {
                let others = match others.len() {
                    0 => String::new(),
                    number => format!(" and {number} more, which -v lists"),
                };
                let interfaces = if is_everywhere { "on all interfaces, " } else { "" };
                ui::progress(&format!("the node listens {interfaces}at {first}{others}"));
            }
        }
    }
}

/// What the guest was refused of the network, and what would have given it.
fn shown_refusals(refused: &NetworkRefused) -> String {
    let times = |count: u64| if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let NetworkRefused { sockets, lookups, addresses, first_address } = refused;
    if let Some(address) = first_address {
        return format!(
            "the guest was refused an address {}, first {address}, which its grant `network` does not have; `--grant \
             network:{address}` lets it reach that one",
            times(*addresses)
        );
    }
    let what: Vec<_> = [("a socket", sockets), ("the look-up of a name", lookups)]
        .into_iter()
        .filter(|(_, count)| **count > 0)
        .map(|(what, count)| format!("{what} {}", times(*count)))
        .collect();
    format!(
        "the guest was refused {}, since it has no grant `network`; `--grant network` lets it reach public addresses, and \
         `--grant network:NETWORK` those of a network such as 192.168.0.0/16",
        what.join(" and ")
    )
}

/// Flags with their values, as many as fit on a line or two.
fn shown_flags(flags: &[String]) -> String {
    let arguments = |flags: &[String]| shell::arguments(flags.iter().map(String::as_str));
    let mut shown = flags.len();
    while shown > 0 && (shown > 2 * FLAGS_SHOWN_MAX || arguments(&flags[..shown]).len() > FLAGS_SHOWN_BYTES) {
        shown -= 2;
    }
    let more = match (flags.len() - shown) / 2 {
        0 => String::new(),
        more => format!(" … and {more} more; `ww inspect` lists them"),
    };
    format!("{}{more}", arguments(&flags[..shown])).trim_start().to_owned()
}

/// The variables without those that a later one of the same name replaces.
fn last_of_each(env: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut kept: Vec<(String, String)> = Vec::new();
    for (name, value) in env {
        kept.retain(|(kept, _)| *kept != name);
        kept.push((name, value));
    }
    kept
}

/// What to run.
enum Image {
    /// An image's folder.
    Folder(PathBuf),
    /// Content that is to be fetched.
    Content(ContentPath),
}

/// What was given: content, a folder, or an image of the project that has this name, which is built.
fn image(args: &RunArgs, verbose: bool) -> Result<Image, Failure> {
    let given = &args.image;
    // Whatever is wrong with what was given, it is this run that fails.
    let of_run = |failure: Failure| match StopSignal::of(&failure) {
        Some(_) => failure,
        None => Failure { code: exit_code::RUN_FAILURE, ..failure },
    };
    if let Some(content) = project::content(given).map_err(of_run)? {
        return Ok(Image::Content(content));
    }
    let Some((project, name)) = project::image_to_run(given)? else { return Ok(Image::Folder(given.clone())) };
    let options = BuildOptions { offline: args.sources.offline, ..BuildOptions::default() };
    let shown = Shown { verbose, ..Shown::default() };
    project::build(&project, &[name.to_string()], options, &args.sources, shown).map_err(of_run)?;
    Ok(Image::Folder(project.images[&name].out.to_path(&project.root)))
}

fn swarm_config(args: &RunArgs) -> Result<SwarmConfig, Failure> {
    let identity = match &args.identity {
        Some(path) => Identity::load_or_create(path).map_err(|error| Failure::new(exit_code::RUN_FAILURE, &error))?,
        None => Identity::generate(),
    };
    let listen = if args.listen.is_empty() {
        Listen::Port { port: args.port.unwrap_or(DEFAULT_PORT), fallback: args.port.is_none() }
    } else {
        let addresses: Vec<_> = args
            .listen
            .iter()
            .filter_map(|address| match address {
                ListenAddress::None => None,
                ListenAddress::At(address) => Some(*address),
            })
            .collect();
        if !addresses.is_empty() && args.listen.contains(&ListenAddress::None) {
            let message = "--listen none does not go with addresses to listen on";
            return Err(Failure::message(exit_code::RUN_FAILURE, message));
        }
        Listen::Addrs(addresses)
    };
    Ok(SwarmConfig { identity, listen })
}

fn code(outcome: &RunOutcome<StopSignal>) -> u8 {
    match outcome {
        RunOutcome::Ended(ExitStatus::Exited(code)) => *code,
        RunOutcome::Ended(ExitStatus::Trapped(_)) => exit_code::RUN_TRAPPED,
        RunOutcome::Ended(ExitStatus::LimitReached(LimitReached {
            limit: Limit::CpuTime | Limit::WallTime, ..
        })) => exit_code::RUN_OUT_OF_TIME,
        RunOutcome::Ended(ExitStatus::Killed | ExitStatus::LimitReached(_)) => exit_code::RUN_KILLED,
        RunOutcome::Stopped(signal) => exit_code::SIGNAL_BASE + signal.number,
    }
}

/// What a status file must not take the place of: what flags name, the image, and what the project around is made of.
fn others<'a>(flags: [(&'a str, Option<&Path>); 2], image: Option<&Path>) -> Vec<(&'a str, PathBuf)> {
    let flags = flags.into_iter().filter_map(|(flag, path)| Some((flag, path?.to_owned())));
    let image = image.map(|given| project::out_of_image(given).unwrap_or_else(|| given.to_owned()));
    let own = project::root_here().into_iter().flat_map(|root| {
        [wetfile::FILE_NAME, LOCK_FILE_NAME, "target/ww"].map(|path| ("the project", root.join(path)))
    });
    flags.chain(image.map(|path| ("the image", path))).chain(own).collect()
}

/// Says in the status file that the command line is wrong, as far as it is known where that is.
pub(in crate::cli) fn note_wrong_usage(matches: &ArgMatches, message: &str) {
    let path = |name: &str| matches.try_get_one::<PathBuf>(name).ok().flatten().map(PathBuf::as_path);
    let Some(file) = path("status_file") else { return };
    let others = others([("--identity", path("identity")), ("--grant-file", path("grant_file"))], path("image"));
    let failure = Failure::message(exit_code::RUN_FAILURE, message);
    let status = status(&Err(failure), exit_code::RUN_FAILURE);
    if let Err(failure) = StatusFile::prepare(file, &others).and_then(|file| file.write(&status)) {
        ui::failure(&failure);
    }
}

/// What the status file says. Documented in `docs/exit-codes.md`.
fn status(ended: &Result<RunOutcome<StopSignal>, Failure>, code: u8) -> serde_json::Value {
    match ended {
        Ok(RunOutcome::Ended(ExitStatus::Exited(_))) => json!({ "status": "exited", "code": code }),
        Ok(RunOutcome::Ended(ExitStatus::Trapped(text))) => json!({ "status": "trapped", "code": code, "trap": text }),
        Ok(RunOutcome::Ended(ExitStatus::Killed)) => json!({ "status": "killed", "code": code }),
        Ok(RunOutcome::Ended(ExitStatus::LimitReached(reached))) => {
            json!({ "status": "limit", "code": code, "limit": reached.limit.name() })
        }
        Ok(RunOutcome::Stopped(signal)) => json!({ "status": "stopped", "code": code, "signal": signal.name }),
        Err(failure) => {
            json!({ "status": "failed", "code": code, "error": failure.message, "causes": failure.causes })
        }
    }
}

/// What a guest has used, for people.
fn stats(usage: &Usage) -> String {
    let Usage { wall_time, cpu_time, memory_peak_bytes, children, calls, fetched_bytes, stdout_bytes, stderr_bytes } =
        usage;
    [
        "usage:".to_owned(),
        format!("  wall time    {wall_time:.1?}"),
        format!("  cpu time     {cpu_time:.1?}"),
        format!("  memory peak  {} KiB", memory_peak_bytes.div_ceil(1024)),
        format!("  children     {children}"),
        format!("  rpc calls    {calls}"),
        format!("  fetched      {fetched_bytes} bytes"),
        format!("  stdout       {stdout_bytes} bytes"),
        format!("  stderr       {stderr_bytes} bytes"),
    ]
    .join("\n")
}

/// The same for the status file. Documented in `docs/run.md`.
fn usage_as_json(usage: &Usage) -> serde_json::Value {
    let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    json!({
        "wall_time_us": microseconds(usage.wall_time),
        "cpu_time_us": microseconds(usage.cpu_time),
        "memory_peak_bytes": usage.memory_peak_bytes,
        "children": usage.children,
        "rpc_calls": usage.calls,
        "fetched_bytes": usage.fetched_bytes,
        "stdout_bytes": usage.stdout_bytes,
        "stderr_bytes": usage.stderr_bytes,
    })
}
