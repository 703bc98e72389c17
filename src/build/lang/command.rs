//! Guests that a command of the Wetfile builds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::build::out_folder::OutFolder;
use crate::build::process::LINE_BYTES_MAX;
use crate::build::state::OUT_VARIABLE;
use crate::build::tools::Tools;
use crate::build::{self, BuildError, Call, Context, Event, Jobs, Variables};
use crate::wasm_binary;
use crate::wetfile::argument::{self, Piece};
use crate::wetfile::{Guest, GuestName, Run};

/// What runs a command line.
const SHELL: &str = "/bin/sh";

/// By which make is told flags, and of a job server. A guest may declare them.
const MAKE_VARIABLES: [&str; 2] = ["MAKEFLAGS", "MFLAGS"];

/// Runs the guest's command and returns the bytes that it wrote to `{out}`.
///
/// `{out}` is in a folder that is empty before and removed afterwards; its path is the same at each build, see [`OutFolder`].
pub(in crate::build) fn build(
    ctx: &Context<'_>,
    guest: &Guest,
    run: &Run,
    artifacts: &BTreeMap<GuestName, PathBuf>,
    mut environment: Variables,
) -> Result<Vec<u8>, BuildError> {
    let folder = new_out_folder(ctx, guest)?;
    let out = folder.path().join(format!("{}.wasm", guest.name));
    environment.insert("WW_GUEST".into(), guest.name.as_str().into());
    environment.insert(OUT_VARIABLE.into(), out.clone().into());
    let arguments = arguments(run, &out, artifacts)?;
    let program = arguments[0].to_string_lossy();
    let dir = guest.dir.to_path(ctx.state.root());
    let call = Call {
        program: &program,
        arguments: &arguments[1..],
        dir: &dir,
        environment: &environment,
        line_bytes_max: LINE_BYTES_MAX,
    };
    let has_own_flags = MAKE_VARIABLES.iter().any(|name| guest.env.contains_key(*name));
    let configure = if has_own_flags { Jobs::configure } else { Jobs::configure_make };
    let result = build::run_configured(ctx, &guest.name, &call, configure, &mut |_| false);
    let result = result.and_then(|()| read(&out));
    remove(folder)?;
    result
}

/// Makes a folder for the command of a guest, or for the tool of its language.
pub(super) fn new_out_folder(ctx: &Context<'_>, guest: &Guest) -> Result<OutFolder, BuildError> {
    let folder = ctx.state.new_out_folder(&guest.name);
    let folder = folder.map_err(BuildError::io("make a folder for", guest.name.as_str()))?;
    if !folder.is_usual() {
        let text = "what compiled it in a build that was killed still runs; the result is written elsewhere meanwhile";
        (ctx.events)(Event::Warning { guest: &guest.name, text: text.to_owned() });
    }
    Ok(folder)
}

/// Removes such a folder.
pub(super) fn remove(folder: OutFolder) -> Result<(), BuildError> {
    let path = folder.path().to_owned();
    folder.remove().map_err(BuildError::io("remove", path))
}

/// The programs that are known to be used.
pub(in crate::build) fn tools(
    ctx: &Context<'_>,
    guest: &Guest,
    run: &Run,
    environment: &Variables,
) -> io::Result<Tools> {
    let mut tools = Tools::default();
    let program = match run {
        Run::Shell(_) => SHELL,
        Run::Argv(arguments) => arguments.first().map_or(SHELL, String::as_str),
    };
    tools.add_program(program, &guest.dir.to_path(ctx.state.root()), environment)?;
    Ok(tools)
}

/// The program and its arguments, at least one element.
fn arguments(run: &Run, out: &Path, artifacts: &BTreeMap<GuestName, PathBuf>) -> Result<Vec<OsString>, BuildError> {
    match run {
        Run::Shell(line) => Ok([SHELL, "-c", line].map(OsString::from).into()),
        Run::Argv(arguments) => arguments.iter().map(|argument| fill(argument, out, artifacts)).collect(),
    }
}

/// An argument with paths in place of its placeholders.
fn fill(argument: &str, out: &Path, artifacts: &BTreeMap<GuestName, PathBuf>) -> Result<OsString, BuildError> {
    let mut filled = OsString::new();
    for piece in argument::pieces(argument).map_err(|source| BuildError::Placeholder { source })? {
        match piece {
            Piece::Text(text) => filled.push(text),
            Piece::Out => filled.push(out),
            Piece::Dep(name) => {
                let (_, path) =
                    artifacts.iter().find(|(guest, _)| guest.as_str() == name).expect("dependencies are built first");
                filled.push(path);
            }
        }
    }
    Ok(filled)
}

/// Reads what a command, or the tool of a language, has written.
pub(super) fn read(out: &Path) -> Result<Vec<u8>, BuildError> {
    match fs::symlink_metadata(out) {
        Ok(metadata) if metadata.is_file() => {
            File::open(out).and_then(wasm_binary::read).map_err(BuildError::io("read", out))
        }
        Ok(metadata) => {
            let found = match metadata.file_type() {
                kind if kind.is_dir() => "a folder",
                kind if kind.is_symlink() => "a symlink",
                _ => "something else than a file",
            };
            Err(BuildError::NotFile { path: out.to_owned(), found })
        }
        Err(_) => Err(BuildError::NoArtifact { path: Some(out.to_owned()) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(argument: &str) -> String {
        let artifacts = [(GuestName::new("child-echo").unwrap(), PathBuf::from("/p/child-echo.wasm"))].into();
        fill(argument, Path::new("/o/x.wasm"), &artifacts).unwrap().into_string().unwrap()
    }

    #[test]
    fn placeholders_are_filled_anywhere() {
        assert_eq!(filled("-o{out}"), "-o/o/x.wasm");
        assert_eq!(filled("{dep:child-echo}={{out}}"), "/p/child-echo.wasm={out}");
    }

    #[test]
    fn a_line_goes_to_the_shell_as_it_is() {
        let run = Run::Shell("cp {x} \"$WW_OUT\"".to_owned());
        let arguments = arguments(&run, Path::new("/o"), &BTreeMap::new()).unwrap();
        assert_eq!(arguments, ["/bin/sh", "-c", "cp {x} \"$WW_OUT\""]);
    }
}
