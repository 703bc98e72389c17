//! The command line: flags in, operations called, results printed, exit codes chosen.
//!
//! Only this module prints, reads the environment, or ends the process.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

use self::error::Failure;
use crate::build::rustc_wrapper;
use crate::cell::compile_child;
use crate::escape;
use crate::terminal::watcher;

mod cancel;
mod commands;
mod compiler;
mod complete;
mod content;
pub mod diagnostics;
mod env;
mod error;
mod exit_code;
mod foreign_flags;
mod github;
mod grant_file;
mod kubo;
mod logging;
mod meter;
mod progress;
mod project;
mod run_content;
mod shell;
mod signals;
mod sources;
mod status_file;
mod store;
mod ui;
mod unrepeated;
mod wanted_content;
mod watch;

/// Over the options that every command has.
const GLOBAL: &str = "Global options";

/// Build WebAssembly guests into images, and run images in sandboxed cells
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// Work in this folder
    #[arg(short = 'C', long, value_name = "DIR", global = true, help_heading = GLOBAL)]
    directory: Option<PathBuf>,

    /// Say more on standard error; RUST_LOG says it exactly
    #[arg(short, long, global = true, conflicts_with = "quiet", help_heading = GLOBAL)]
    verbose: bool,

    /// Print results, and say only what went wrong
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    quiet: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(commands::build::BuildArgs),
    Car(commands::car::CarArgs),
    Cat(commands::cat::CatArgs),
    Cid(commands::cid::CidArgs),
    Completions(commands::completions::CompletionsArgs),
    Doctor(commands::doctor::DoctorArgs),
    Gateway(commands::gateway::GatewayArgs),
    Gc(commands::gc::GcArgs),
    Get(commands::get::GetArgs),
    Graph(commands::graph::GraphArgs),
    Init(commands::init::InitArgs),
    Inspect(commands::inspect::InspectArgs),
    Ls(commands::ls::LsArgs),
    Man(commands::completions::ManArgs),
    Pin(commands::pin::PinArgs),
    Publish(commands::publish::PublishArgs),
    Run(commands::run::RunArgs),
    Schema(commands::schema::SchemaArgs),
    Store(commands::store::StoreArgs),
    Verify(commands::verify::VerifyArgs),
    Why(commands::why::WhyArgs),
}

/// Does what the process's arguments say.
pub fn main() -> ExitCode {
    if env::variable_os(rustc_wrapper::MODE_VARIABLE).is_some() {
        return call_compiler();
    }
    if compile_child::is_meant(std::env::args_os().nth(1).as_deref()) {
        return compile_for_another();
    }
    if watcher::is_meant(std::env::args_os().nth(1).as_deref()) {
        return watch_terminal();
    }
    if env::variable_os(complete::VARIABLE).is_some() {
        // Ends the process where a shell asks.
        clap_complete::CompleteEnv::with_factory(Cli::command).var(complete::VARIABLE).complete();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(error),
    };
    if cli.quiet {
        ui::be_quiet();
    }
    logging::start(match (cli.quiet, cli.verbose) {
        (true, _) => "ww=error",
        (false, true) => "ww=debug",
        (false, false) => "ww=info",
    });
    if let Some(directory) = &cli.directory
        && let Err(source) = env::enter(directory)
    {
        let message = format!("failed to enter {}", escape::path(directory));
        let code = match cli.command {
            Command::Run(_) => exit_code::RUN_FAILURE,
            _ => exit_code::USAGE,
        };
        ui::failure(&Failure::caused(code, message, &source));
        return ExitCode::from(code);
    }
    match cli.command {
        Command::Build(args) => end(commands::build::run(&args, cli.verbose)),
        Command::Car(args) => end(commands::car::run(args)),
        Command::Cat(args) => end(commands::cat::run(&args)),
        Command::Cid(args) => end(commands::cid::run(&args)),
        Command::Completions(args) => end(commands::completions::completions(&args)),
        Command::Doctor(args) => end_with(commands::doctor::run(&args)),
        Command::Gateway(args) => end(commands::gateway::run(&args)),
        Command::Gc(args) => end(commands::gc::run(&args)),
        Command::Get(args) => end(commands::get::run(&args)),
        Command::Graph(args) => end(commands::graph::run(&args)),
        Command::Init(args) => end(commands::init::run(&args)),
        Command::Inspect(args) => end(commands::inspect::run(&args)),
        Command::Ls(args) => end(commands::ls::run(&args)),
        Command::Man(args) => end(commands::completions::man(&args)),
        Command::Pin(args) => end(commands::pin::run(args)),
        Command::Publish(args) => end(commands::publish::run(&args, cli.verbose, cli.quiet)),
        Command::Run(args) => commands::run::run(args, cli.verbose),
        Command::Schema(args) => end(commands::schema::run(&args)),
        Command::Store(args) => end(commands::store::run(&args)),
        Command::Verify(args) => end_with(commands::verify::run(&args)),
        Command::Why(args) => end(commands::why::run(&args)),
    }
}

/// Says what failed, and gives what the process is to end with.
fn end(result: Result<(), Failure>) -> ExitCode {
    end_with(result.map(|()| exit_code::SUCCESS))
}

/// As [`end`], for a command whose result has an exit code of its own.
fn end_with(result: Result<u8, Failure>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        // What has a code of its own is something else.
        Err(Failure { code: exit_code::FAILURE, .. }) if ui::is_reader_gone() => ExitCode::from(exit_code::READER_GONE),
        Err(failure) => {
            ui::failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}

/// What `ww` is when cargo calls it in place of the compiler: see [`rustc_wrapper`].
fn call_compiler() -> ExitCode {
    let error = rustc_wrapper::exec(std::env::args_os().skip(1), env::variable_os);
    ui::failure(&Failure::caused(exit_code::FAILURE, "failed to call the compiler", &error));
    ExitCode::from(exit_code::FAILURE)
}

/// What `ww` is when another one has it compile: see [`compile_child`].
fn compile_for_another() -> ExitCode {
    let order = std::env::args_os().nth(2);
    let compiled = env::standard_streams()
        .map_err(|error| compile_child::Refusal { code: 1, text: error.to_string() })
        .and_then(|[stdin, stdout, _]| compile_child::compile(order.as_deref(), File::from(stdin), File::from(stdout)));
    match compiled {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            ui::status(&refusal.text);
            ExitCode::from(u8::try_from(refusal.code).unwrap_or(exit_code::FAILURE))
        }
    }
}

/// What `ww` is while a guest of another one has the terminal in raw mode: see [`watcher`].
fn watch_terminal() -> ExitCode {
    // Standard error is the terminal of others, to which there is nothing to say.
    let watched = env::standard_streams().and_then(watcher::watch);
    watched.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// Shows help, the version, or what is wrong with the command line.
fn usage(mut error: clap::Error) -> ExitCode {
    let meant = foreign_flags::meant(&error).filter(|_| error.kind() == ErrorKind::UnknownArgument);
    if meant.is_some() {
        foreign_flags::drop_suggestion(&mut error);
    }
    match error.print() {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::from(exit_code::READER_GONE),
        Err(_) => return ExitCode::from(exit_code::FAILURE),
    }
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    // `ww run` ends with the guest's exit code, so its own failures have codes that guests seldom use.
    let lenient = Cli::command().ignore_errors(true).try_get_matches();
    let Some(("run", run)) = lenient.as_ref().ok().and_then(clap::ArgMatches::subcommand) else {
        say_command(&error);
        say_not_text(&error);
        return ExitCode::from(exit_code::USAGE);
    };
    say_not_text(&error);
    // Its status file is where the flag for the folder says.
    let directory = run.try_get_one::<PathBuf>("directory").ok().flatten();
    if directory.is_none_or(|directory| std::env::set_current_dir(directory).is_ok()) {
        let text = error.to_string();
        let message = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        commands::run::note_wrong_usage(run, message);
    }
    if let Some(meant) = meant {
        ui::status(&format!("\nThe flag is another here: {meant}"));
    }
    if error.kind() == ErrorKind::UnknownArgument {
        ui::status("\nThe guest's arguments follow `--`: ww run IMAGE -- ARGS");
    }
    ExitCode::from(exit_code::RUN_FAILURE)
}

/// Says which command was meant by a word that is none, if clap has not.
fn say_command(error: &clap::Error) {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return };
    if error.get(ContextKind::SuggestedSubcommand).is_none() {
        let cli = Cli::command();
        let names = cli.get_subcommands().map(clap::Command::get_name);
        if let Some(meant) = crate::wetfile::nearest_word(word, names) {
            ui::status(&format!("\nDid you mean `ww {meant}`?"));
        }
    }
}

/// Says which arguments are not UTF-8, if that is what is wrong.
fn say_not_text(error: &clap::Error) {
    if error.kind() == ErrorKind::InvalidUtf8 {
        let wrong = std::env::args_os().skip(1).filter(|argument| argument.to_str().is_none());
        let wrong: Vec<_> = wrong.map(|argument| escape::path(Path::new(&argument))).collect();
        ui::status(&format!("\nNot UTF-8: {}", wrong.join(", ")));
    }
}
