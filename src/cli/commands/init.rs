//! `ww init`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, ValueHint};
use serde_json::json;

use crate::cli::error::Failure;
use crate::cli::{env, exit_code, project, shell, ui};
use crate::escape;
use crate::ops::{self, InitError, Template};
use crate::wetfile::{self, GuestName, Language};

/// The name of a guest where the folder's name can be none.
const FALLBACK_NAME: &str = "hello";

/// Write a project that builds and runs at once
///
/// It has one guest and one image, both of one name. A Rust guest has the crates that it needs of ww beside it, in `vendor`,
/// as they belong to this ww; all else comes from the registry of crates. Nothing is overwritten: if a file is there
/// already, none is written. `ww doctor` tells which tools are missing.
#[derive(Debug, Args)]
pub(in crate::cli) struct InitArgs {
    /// The project's folder, made if it is not there
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    folder: PathBuf,

    /// What the guest is written in
    #[arg(long, value_enum, default_value = "rust")]
    lang: Lang,

    /// Name of the guest and the image; without it that of the folder
    #[arg(long)]
    name: Option<String>,

    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lang {
    /// Rust, with the crate ww-guest
    Rust,
    /// A command of your own
    Command,
    /// C, by the compiler of Zig
    C,
    /// Zig
    Zig,
    /// Go
    Go,
    /// JavaScript, by componentize-js
    Js,
    /// Python, by componentize-py
    Python,
}

impl Lang {
    fn template(self) -> Template {
        match self {
            Self::Rust => Template::Rust,
            Self::Command => Template::Command,
            Self::C => Template::Language(Language::C),
            Self::Zig => Template::Language(Language::Zig),
            Self::Go => Template::Language(Language::Go),
            Self::Js => Template::Language(Language::JavaScript),
            Self::Python => Template::Language(Language::Python),
        }
    }
}

/// Writes it.
pub(in crate::cli) fn run(args: &InitArgs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(exit_code::FAILURE, &error);
    let here = env::working_directory().map_err(failed)?;
    let root = plain(&here.join(&args.folder));
    let name = match &args.name {
        Some(name) => GuestName::new(name).map_err(|error| Failure::new(exit_code::USAGE, &error))?,
        None => name_of(&root),
    };
    let files = ops::init(&root, &name, args.lang.template()).map_err(|error| match error {
        InitError::Reserved { .. } => Failure::new(exit_code::USAGE, &error).with_help("--name gives it another name"),
        InitError::Exists { .. } => {
            Failure::new(exit_code::FAILURE, &error).with_help("name another folder: ww init DIR")
        }
        InitError::Io { .. } => Failure::new(exit_code::FAILURE, &error),
    })?;
    if args.json {
        let lang = args.lang.to_possible_value().expect("none is skipped").get_name().to_owned();
        let written = json!({ "root": root.to_string_lossy(), "name": name.as_str(), "lang": lang, "files": files });
        return ui::result_line(&escape::json(&written.to_string())).map_err(failed);
    }
    for file in &files {
        // The crates are many files, of which nobody asked for one.
        if !file.starts_with("vendor/") {
            ui::result_line(&project::shown(&root.join(file), &here)).map_err(failed)?;
        }
    }
    let vendored = files.iter().filter(|file| file.starts_with("vendor/")).count();
    if vendored > 0 {
        let vendor = project::shown(&root.join("vendor"), &here);
        ui::result_line(&format!("{vendor} ({vendored} files)")).map_err(failed)?;
    }
    let directory = match root == here {
        true => String::new(),
        false => format!("-C {} ", shell::arguments([project::shown(&root, &here).as_str()])),
    };
    ui::progress(&format!("now: ww {directory}run {name}"));
    Ok(())
}

/// A path without `.` in it.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

/// What the folder's name comes to.
fn name_of(root: &Path) -> GuestName {
    let real = fs::canonicalize(root).unwrap_or_else(|_| plain(root));
    let name = real.file_name().and_then(|name| wetfile::nearest_name(name.to_str()?));
    let name = name.and_then(|name| GuestName::new(&name).ok());
    name.unwrap_or_else(|| GuestName::new(FALLBACK_NAME).expect("it follows the rule"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_that_of_the_folder_if_it_can_be() {
        for (folder, name) in [("/x/My_Guest", "my-guest"), ("/x/a/./b", "b"), ("/", "hello"), ("/x/123", "hello")] {
            assert_eq!(name_of(Path::new(folder)).as_str(), name, "{folder}");
        }
    }
}
