//! The process's surroundings: environment variables, working directory, standard streams.
//!
//! Nothing outside `cli` looks at these; what an operation needs of them is passed to it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The value of an environment variable, where it is set, not empty, and UTF-8.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The value of an environment variable as it is, where it is set.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub(super) fn variable_os(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// All environment variables.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub(super) fn variables() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().collect()
}

/// The working directory.
#[expect(clippy::disallowed_methods, reason = "this is where it is read")]
pub(super) fn working_directory() -> io::Result<PathBuf> {
    std::env::current_dir()
}

/// The arguments of this process, without its own name.
pub(super) fn arguments() -> impl Iterator<Item = OsString> {
    std::env::args_os().skip(1)
}

/// The working directory that this process was started in, where `-C` has chosen another.
static FIRST_DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Makes another directory the working directory.
pub(super) fn enter(directory: &Path) -> io::Result<()> {
    let first = working_directory();
    std::env::set_current_dir(directory)?;
    if let Ok(first) = first {
        let _ = FIRST_DIRECTORY.set(first);
    }
    Ok(())
}

/// The working directory that this process was started in, if it is not the present one.
pub(super) fn first_directory() -> Option<&'static Path> {
    FIRST_DIRECTORY.get().map(PathBuf::as_path)
}

/// The folder in which a Kubo node of this user keeps its state: `$IPFS_PATH`, or `~/.ipfs`.
pub(super) fn kubo_folder() -> Option<PathBuf> {
    let set = |name| variable_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("IPFS_PATH").or_else(|| set("HOME").map(|home| home.join(".ipfs")))
}

/// The folder in which `ww` keeps the state of this user: `$WW_HOME`, else `$XDG_DATA_HOME/ww`, else
/// `~/.local/share/ww`. A relative `$XDG_DATA_HOME` does not count (XDG Base Directory Specification).
pub(super) fn state_folder() -> Option<PathBuf> {
    let set = |name| variable_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = || set("XDG_DATA_HOME").filter(|data| data.is_absolute());
    let home = || set("HOME").map(|home| home.join(".local/share"));
    set("WW_HOME").or_else(|| data().or_else(home).map(|data| data.join("ww")))
}

/// The folder in which `ww` keeps the code that it has compiled: `code` in `$WW_HOME`, else in `$XDG_CACHE_HOME/ww`, else
/// in `~/.cache/ww`. A relative `$XDG_CACHE_HOME` does not count, as above.
pub(super) fn code_cache_folder() -> Option<PathBuf> {
    let set = |name| variable_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").filter(|cache| cache.is_absolute());
    let home = || set("HOME").map(|home| home.join(".cache"));
    let folder = set("WW_HOME").or_else(|| cache().or_else(home).map(|cache| cache.join("ww")));
    folder.map(|folder| folder.join("code"))
}

/// How many files must be allowed to be open: 128 that are kept from guests (`vfs::folder`), and some for a guest.
const OPEN_FILES_MIN: u64 = 192;

/// Lets this process have as many files open as it may. The usual limit is that of programs that use `select`.
///
/// # Errors
///
/// They are too few to do anything with.
pub(super) fn allow_open_files() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it cannot be had, fewer will do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    match getrlimit(Resource::Nofile).current {
        Some(current) if current < OPEN_FILES_MIN => Err(io::Error::other(format!(
            "only {current} files may be open, and {OPEN_FILES_MIN} have to be: `ulimit -n` sets another limit"
        ))),
        _ => Ok(()),
    }
}

/// Lets the stack of this process's first thread grow to so many bytes, which it does as it is used. Usual are 8 MiB.
pub(super) fn allow_deep_stack(bytes: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Stack);
    let wanted = maximum.unwrap_or(u64::MAX).min(bytes as u64);
    if current.is_some_and(|current| current < wanted) {
        // Where it cannot be had, less will do.
        let _ = setrlimit(Resource::Stack, Rlimit { current: Some(wanted), maximum });
    }
}

/// A path by which this very program can be started again, also when another has taken its place meanwhile.
pub(super) fn this_program_as_it_runs() -> io::Result<PathBuf> {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() { Ok(running) } else { this_program() }
}

/// The path of this very program, for children that call it back.
pub(super) fn this_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// Whether messages on standard error may have colours: it is a terminal that can show them, and `NO_COLOR`
/// (no-color.org) is not set.
pub(super) fn stderr_has_colours() -> bool {
    stderr_is_screen() && variable("NO_COLOR").is_none()
}

/// Whether standard error is a terminal on which a line can be written again.
pub(super) fn stderr_is_screen() -> bool {
    io::stderr().is_terminal() && variable("TERM").as_deref() != Some("dumb")
}

/// How many columns and rows the terminal on standard error has; what terminals used to have where that cannot be told.
pub(super) fn stderr_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// Whether standard output is a terminal.
pub(super) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Handles of its own to the process's standard streams, in their usual order.
pub(super) fn standard_streams() -> io::Result<[OwnedFd; 3]> {
    Ok([
        io::stdin().as_fd().try_clone_to_owned()?,
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ])
}
