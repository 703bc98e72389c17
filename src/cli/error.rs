//! How failures of operations become messages and exit codes.

use std::error::Error;

use super::exit_code;
use crate::ops::{self, PublishError, RunError};
use crate::wetfile::lock::{LockError, ParseError};

/// A failure as the user sees it.
#[derive(Debug)]
pub(super) struct Failure {
    /// The exit code.
    pub(super) code: u8,
    /// What happened. Safe to show: foreign text in it is escaped. Empty where everything has been said already.
    pub(super) message: String,
    /// Why, from the nearest cause to the root.
    pub(super) causes: Vec<String>,
    /// What to do.
    pub(super) help: Vec<String>,
}

impl Failure {
    /// A failure that is its own cause.
    pub(super) fn message(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), causes: Vec::new(), help: Vec::new() }
    }

    /// A failure with the message and the causes of `error`.
    pub(super) fn new(code: u8, error: &dyn Error) -> Self {
        let mut chain = chain(error).into_iter();
        let message = chain.next().unwrap_or_default();
        Self { code, message, causes: chain.collect(), help: Vec::new() }
    }

    /// A failure of which `error` is the nearest cause.
    pub(super) fn caused(code: u8, message: impl Into<String>, error: &dyn Error) -> Self {
        Self { causes: chain(error), ..Self::message(code, message) }
    }

    /// Adds a line that says what to do.
    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}

/// An error and its causes, escaped.
fn chain(error: &dyn Error) -> Vec<String> {
    let mut shown = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        shown.push(crate::escape::lines(&error.to_string()));
        next = error.source();
    }
    shown
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let code = match &error {
            RunError::NoImage { .. } | RunError::NoProgram { .. } | RunError::DanglingLink { .. } => {
                exit_code::RUN_NOT_FOUND
            }
            RunError::NotAnImage { .. }
            | RunError::LeavesImage { .. }
            | RunError::NotAFile { .. }
            | RunError::TooLarge { .. }
            | RunError::Component { .. } => exit_code::RUN_NOT_RUNNABLE,
            RunError::Read { .. }
            | RunError::Swarm(_)
            | RunError::Engine(_)
            | RunError::Thread(_)
            | RunError::Output(_)
            | RunError::Cell(_) => exit_code::RUN_FAILURE,
        };
        let failure = Self::new(code, &error);
        match error {
            RunError::NoImage { path } if path.starts_with("/ipfs") || path.starts_with("ipfs:") => {
                failure.with_help("this version runs images from folders only")
            }
            RunError::NoImage { .. } => failure.with_help("`ww build` makes the images of a Wetfile.toml"),
            RunError::NoProgram { .. } => {
                failure.with_help("an image is a folder such as `ww build` makes: bin/main.wasm, etc/, usr/lib/")
            }
            RunError::Component { source: crate::cell::ComponentError::CoreModule, .. } => {
                failure.with_help("build for the target wasm32-wasip2, whose programs are components")
            }
            _ => failure,
        }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Store(source) => Self::from(source),
            error => Self::new(exit_code::FAILURE, &error),
        }
    }
}

impl From<ops::Error> for Failure {
    fn from(error: ops::Error) -> Self {
        let code = match &error {
            ops::Error::UnknownTarget { .. } => exit_code::USAGE,
            ops::Error::State(_) | ops::Error::WriteLock { .. } => exit_code::FAILURE,
            ops::Error::Build { .. } => exit_code::BUILD,
            ops::Error::Image { .. } | ops::Error::Listing { .. } => exit_code::IMAGE,
            ops::Error::Lock(_) | ops::Error::LockMissing | ops::Error::OutOfDate(_) => exit_code::LOCK,
        };
        let failure = Self::new(code, &error);
        match error {
            ops::Error::LockMissing => failure.with_help("`ww build` without --locked writes it; then commit it"),
            ops::Error::OutOfDate(_) => failure
                .with_help("`ww build` without --locked brings it up to date; look at what changes, and commit it"),
            ops::Error::Lock(LockError::Invalid { source: ParseError::Malformed { .. }, .. }) => {
                failure.with_help("take it from version control, or remove it and let `ww build` write it anew")
            }
            _ => failure,
        }
    }
}
