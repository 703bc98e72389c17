//! The process's surroundings: environment variables, working directory, standard streams.
//!
//! Nothing outside `cli` looks at these; what an operation needs of them is passed to it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

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

/// The path of this very program, for children that call it back.
pub(super) fn this_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// Whether messages on standard error may have colours: it is a terminal that can show them, and `NO_COLOR`
/// (no-color.org) is not set.
pub(super) fn stderr_has_colours() -> bool {
    io::stderr().is_terminal() && variable("NO_COLOR").is_none() && variable("TERM").as_deref() != Some("dumb")
}

/// Handles of its own to the process's standard streams, in their usual order.
pub(super) fn standard_streams() -> io::Result<[OwnedFd; 3]> {
    Ok([
        io::stdin().as_fd().try_clone_to_owned()?,
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ])
}
