//! `ww completions` and `ww man`.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::env::Shells;

use crate::cli::error::Failure;
use crate::cli::{Cli, complete, exit_code, ui};
use crate::escape;

/// Print the script that has a shell complete what is typed after `ww`
///
/// It asks `ww` itself each time, which knows the guests and images of the Wetfile. For bash: `source <(ww completions bash)` in
/// ~/.bashrc; for zsh the same in ~/.zshrc; for fish: `ww completions fish | source` in config.fish.
#[derive(Debug, Args)]
pub(in crate::cli) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Elvish,
    Fish,
    #[value(name = "powershell")]
    Pwsh,
    Zsh,
}

/// Prints the script.
pub(in crate::cli) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let name = args.shell.to_possible_value().expect("none is skipped").get_name().to_owned();
    let shells = Shells::builtins();
    let shell = shells.completer(&name).expect("there are all of these");
    let mut script = Vec::new();
    let failed = |error: std::io::Error| Failure::new(exit_code::FAILURE, &error);
    shell.write_registration(complete::VARIABLE, "ww", "ww", "ww", &mut script).map_err(failed)?;
    ui::result_bytes(|out| out.write_all(&script).map_err(failed))
}

/// Write man pages into a folder: one for `ww`, and one for each command
#[derive(Debug, Args)]
pub(in crate::cli) struct ManArgs {
    /// The folder, such as ~/.local/share/man/man1; made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes the pages.
pub(in crate::cli) fn man(args: &ManArgs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let message = format!("cannot write man pages into {}", escape::path(&args.folder));
        Failure::caused(exit_code::FAILURE, message, &error)
    };
    fs::create_dir_all(&args.folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.folder).map_err(failed)
}
