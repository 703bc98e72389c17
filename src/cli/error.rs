//! How failures of operations become messages and exit codes.

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::exit_code;
use crate::blockstore::StoreError;
use crate::build::{BuildError, StateError};
use crate::cell::ComponentError;
use crate::dag::car::CarError;
use crate::image::ImageError;
use crate::ops::car::{ExportCarError, ImportCarError};
use crate::ops::fetch::FetchError;
use crate::ops::{self, PinError, PublishError, RunError};
use crate::wasm_binary::{self, Kind};
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
    /// Whether it failed because the sources of a guest changed whenever it was built.
    pub(super) is_of_changing_sources: bool,
    /// What those who read JSON are told beside that: the members of an object.
    pub(super) members: serde_json::Map<String, Value>,
}

impl Failure {
    /// A failure that is its own cause.
    pub(super) fn message(code: u8, message: impl Into<String>) -> Self {
        let (message, members) = (message.into(), serde_json::Map::new());
        Self { code, message, causes: Vec::new(), help: Vec::new(), is_of_changing_sources: false, members }
    }

    /// A failure with the message and the causes of `error`.
    pub(super) fn new(code: u8, error: &dyn Error) -> Self {
        let mut chain = chain(error).into_iter();
        let message = chain.next().unwrap_or_default();
        Self { causes: chain.collect(), ..Self::message(code, message) }
    }

    /// A failure of which `error` is the nearest cause.
    pub(super) fn caused(code: u8, message: impl Into<String>, error: &dyn Error) -> Self {
        Self { causes: chain(error), ..Self::message(code, message) }
    }

    /// Adds the members of an object for those who read JSON.
    pub(super) fn with_members(mut self, members: Value) -> Self {
        if let Value::Object(members) = members {
            self.members.extend(members);
        }
        self
    }

    /// The whole as an object, as `docs/build.md` has it.
    pub(super) fn as_json(&self) -> Value {
        let mut members = self.members.clone();
        let message = if self.message.is_empty() { "stopped" } else { &self.message };
        members.insert("event".into(), "error".into());
        members.insert("message".into(), message.into());
        members.insert("causes".into(), self.causes.clone().into());
        members.insert("help".into(), self.help.clone().into());
        members.insert("exit_code".into(), self.code.into());
        Value::Object(members)
    }

    /// Adds a line that says what to do.
    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}

/// An error and its causes, escaped.
pub(super) fn chain(error: &dyn Error) -> Vec<String> {
    let mut shown = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        shown.push(crate::escape::lines(&error.to_string()));
        next = error.source();
    }
    shown
}

/// A failure that is passed on by somebody to whom it is just an error.
#[derive(Debug, thiserror::Error)]
#[error("{}{}", .0.message, .0.causes.iter().map(|cause| format!(": {cause}")).collect::<String>())]
pub(super) struct Passed(pub(super) Failure);

/// What went wrong in a fetch, where that is why something failed.
pub(super) fn fetch_error_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a FetchError> {
    std::iter::successors(Some(error), |error| (**error).source()).find_map(|cause| {
        // A cell's file system keeps its causes shared.
        let shared = cause.downcast_ref::<Arc<dyn Error + Send + Sync>>();
        shared.map_or_else(|| cause.downcast_ref(), |shared| shared.downcast_ref())
    })
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let code = match &error {
            RunError::NoImage { .. } | RunError::NoProgram { .. } | RunError::DanglingLink { .. } => {
                exit_code::RUN_NOT_FOUND
            }
            RunError::Component { source: ComponentError::Compiler(_) | ComponentError::Stopped, .. } => {
                exit_code::RUN_FAILURE
            }
            RunError::NotAnImage { .. }
            | RunError::Request { .. }
            | RunError::NotAFile { .. }
            | RunError::TooLarge { .. }
            | RunError::Component { .. } => exit_code::RUN_NOT_RUNNABLE,
            RunError::Read { .. }
            | RunError::Swarm(_)
            | RunError::Engine(_)
            | RunError::Thread(_)
            | RunError::OutputThread(_)
            | RunError::Output(_)
            | RunError::Mount(_)
            | RunError::MountSource { .. }
            | RunError::MountOwn { .. }
            | RunError::Terminal(_) => exit_code::RUN_FAILURE,
        };
        let failure = Self::new(code, &error);
        match &error {
            RunError::NoImage { .. } => failure.with_help("`ww build` makes the images of a Wetfile.toml"),
            RunError::NoProgram { .. } => {
                failure.with_help("an image is a folder such as `ww build` makes: bin/main.wasm, etc/, usr/lib/")
            }
            RunError::NotAnImage { path } if is_wasm(path) => {
                let file = path.to_string_lossy();
                let copy = super::shell::arguments(["cp", &file, "x/bin/main.wasm"]);
                failure.with_help(format!("a program by itself is run so: mkdir -p x/bin && {copy} && ww run x"))
            }
            RunError::Component { source: ComponentError::CoreModule, .. } => {
                failure.with_help(CORE_MODULE).with_help(OF_GUEST)
            }
            RunError::MountSource { path, source } => {
                let failure = match source.kind() {
                    std::io::ErrorKind::NotADirectory => failure.with_help("only folders can be mounted"),
                    _ => failure,
                };
                if path.starts_with("~") {
                    return failure.with_help("`~` stands for itself here: write the whole path");
                }
                match super::env::working_directory() {
                    Ok(here) if path.is_relative() => {
                        failure.with_help(format!("it is looked for at {}", crate::escape::path(&here.join(path))))
                    }
                    _ => failure,
                }
            }
            RunError::Read { .. } if is_damage_a_cause(&error) => failure.with_help(REPAIR),
            RunError::MountOwn { .. } => failure
                .with_help("mount a folder that has nothing of it, or to be read; or let WW_HOME name another place"),
            _ => failure,
        }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Store(source) => Self::from(source),
            error @ PublishError::PrivateKeys(_) => Self::new(exit_code::IMAGE, &error)
                .with_help("move them out of what is published; or --allow-private-keys publishes them, too"),
            error => Self::new(exit_code::FAILURE, &error),
        }
    }
}

/// The exit code of a failed build.
fn code_of_build(error: &ops::Error) -> u8 {
    match error {
        ops::Error::UnknownTarget { .. } => exit_code::NOT_FOUND,
        ops::Error::Content { source, .. } => {
            source.downcast_ref().map_or(exit_code::NOT_FOUND, |Passed(failure)| failure.code)
        }
        ops::Error::State(_) | ops::Error::WriteLock { .. } | ops::Error::Ledger { .. } | ops::Error::Survey { .. } => {
            exit_code::FAILURE
        }
        ops::Error::Build { .. } | ops::Error::Several(_) => exit_code::BUILD,
        ops::Error::Image { .. } | ops::Error::Listing { .. } => exit_code::IMAGE,
        // Guests come first, and an image that could not be made counts more than content that nobody had.
        ops::Error::Partly(partly) => {
            let codes = || partly.failed.failures.iter().map(code_of_build);
            let is_known = |code: &u8| [exit_code::BUILD, exit_code::IMAGE].contains(code);
            codes().find(is_known).or_else(|| codes().next()).unwrap_or(exit_code::FAILURE)
        }
        ops::Error::Lock(_) | ops::Error::LockMissing | ops::Error::OutOfDate(_) | ops::Error::LockedProfile { .. } => {
            exit_code::LOCK
        }
    }
}

/// Whether a build failed because the sources of a guest changed whenever it was built.
fn is_of_changing_sources(error: &ops::Error) -> bool {
    let is_it = |source: &BuildError| matches!(source, BuildError::InputsChange);
    match error {
        ops::Error::Build { source, .. } => is_it(source),
        ops::Error::Several(failures) => failures.iter().any(|(_, source)| is_it(source)),
        ops::Error::Partly(partly) => partly.failed.failures.iter().any(is_of_changing_sources),
        _ => false,
    }
}

impl From<ops::Error> for Failure {
    fn from(error: ops::Error) -> Self {
        let is_of_changing_sources = is_of_changing_sources(&error);
        let failure = Self { is_of_changing_sources, ..Self::new(code_of_build(&error), &error) };
        match error {
            ops::Error::Partly(mut partly) if partly.failed.failures.len() == 1 => {
                partly.failed.failures.pop().map_or(failure, Self::from)
            }
            ops::Error::Partly(partly) => {
                let mut help: Vec<String> = Vec::new();
                for of_one in partly.failed.failures.into_iter().flat_map(|error| Self::from(error).help) {
                    if !help.contains(&of_one) {
                        help.push(of_one);
                    }
                }
                Self { help, ..failure }
            }
            ops::Error::Image { source: ImageError::MainKind { kind: Kind::Module }, .. } => failure.with_help(OF_GUEST),
            ops::Error::Content { source, .. } => match source.downcast::<Passed>() {
                Ok(passed) => {
                    let Passed(cause) = *passed;
                    Self { help: cause.help, ..failure }
                }
                Err(_) => failure,
            },
            ops::Error::State(StateError::OwnBuild { .. }) => failure.with_help(
                "take it out of the guest's command: `embeds` and `needs` in the Wetfile have other guests built before",
            ),
            ops::Error::LockedProfile { .. } => failure.with_help("build without --profile, or without --locked"),
            ops::Error::LockMissing => failure.with_help("`ww build` without --locked writes it; then commit it"),
            ops::Error::OutOfDate(_) => failure
                .with_help("`ww build` without --locked brings it up to date; look at what changes, and commit it"),
            ops::Error::Lock(LockError::Invalid { source: ParseError::Newer { .. }, .. }) => {
                failure.with_help("use a ww that is as new, or take the lock that this one wrote from version control")
            }
            ops::Error::Lock(LockError::Invalid { source: ParseError::Malformed { .. }, .. }) => {
                failure.with_help("take it from version control, or remove it and let `ww build` write it anew")
            }
            _ => failure,
        }
    }
}

/// Whether a path leads to a file that is a program, or at least WebAssembly.
fn is_wasm(path: &Path) -> bool {
    let mut start = Vec::new();
    let is_file = path.metadata().is_ok_and(|metadata| metadata.is_file());
    let read = is_file && File::open(path).is_ok_and(|file| file.take(8).read_to_end(&mut start).is_ok());
    read && matches!(wasm_binary::kind(&start), Kind::Module | Kind::Component)
}

/// What to do about a program that is a core module.
pub(super) const CORE_MODULE: &str = "build for the target wasm32-wasip2, whose programs are components; a module for \
                                      WASI 0.1 becomes one with `wasm-tools component new --adapt`";

/// What `ww build` does with a program that is a core module.
const OF_GUEST: &str = "`ww build` makes a component of a module for WASI 0.1 that is the result of a guest: `[guest.x]` with \
                        `build = [\"cp\", \"tool.wasm\", \"{out}\"]` and `inputs = [\"tool.wasm\"]`, and in the image \
                        `\"bin/main.wasm\" = { guest = \"x\" }`";

/// What to do about damage in the blockstore.
const REPAIR: &str = "`ww store verify --repair` takes out of use what is damaged, so that it can be had again";

/// What to do about pinned content of which a part is missing.
pub(super) const MEND_PIN: &str = "`ww pin add CID --name NAME` fetches what is missing, `ww publish` and `ww car import` \
                                   bring it, too; `ww pin rm NAME` gives the content up";

/// The code of a failure of the blockstore, and what to do about it.
fn of_store(error: &StoreError) -> (u8, Option<&'static str>) {
    let missing = "`ww get` and `ww pin add` fetch content, `ww car import` and `ww publish` bring it here, too";
    match error {
        StoreError::Incomplete { .. } => (exit_code::NOT_FOUND, Some(missing)),
        StoreError::UnknownCodec { .. } | StoreError::MalformedNode { .. } | StoreError::UnsupportedHash { .. } => {
            (exit_code::INVALID, None)
        }
        StoreError::Damaged { .. } | StoreError::DamagedPack { .. } => (exit_code::STORE_DAMAGED, Some(REPAIR)),
        StoreError::BrokenPin { source, .. } => match of_store(source) {
            (exit_code::STORE_DAMAGED, help) => (exit_code::STORE_DAMAGED, help),
            (code, _) => (code, Some(MEND_PIN)),
        },
        StoreError::Pins { .. } => {
            (exit_code::STORE_DAMAGED, Some("restore the file, or move it away, which removes all pins"))
        }
        _ => (exit_code::FAILURE, None),
    }
}

impl Failure {
    /// A failure of which `store` is a cause, if it is `Some`; else one with this code.
    fn with_store(error: &dyn Error, store: Option<&StoreError>, other: u8) -> Self {
        let (code, help) = store.map_or((other, None), of_store);
        let failure = Self::new(code, error);
        match help {
            Some(help) => failure.with_help(help),
            None => failure,
        }
    }
}

impl Failure {
    /// A failure of which `error` is the nearest cause; with this code, unless the blockstore is damaged.
    pub(super) fn caused_in_store(code: u8, message: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        match is_damage_a_cause(error) {
            true => Self::caused(exit_code::STORE_DAMAGED, message, error).with_help(REPAIR),
            false => Self::caused(code, message, error),
        }
    }
}

/// Whether damage in the blockstore is why it failed.
fn is_damage_a_cause(error: &(dyn Error + 'static)) -> bool {
    let is_damage = |cause: &(dyn Error + 'static)| {
        // A cell's file system keeps its causes shared.
        let shared = cause.downcast_ref::<Arc<dyn Error + Send + Sync>>();
        let store = shared.map_or_else(|| cause.downcast_ref(), |shared| shared.downcast_ref());
        matches!(store, Some(StoreError::Damaged { .. } | StoreError::DamagedPack { .. }))
    };
    std::iter::successors(Some(error), |error| (**error).source()).any(is_damage)
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::with_store(&error, Some(&error), exit_code::FAILURE)
    }
}

impl From<PinError> for Failure {
    fn from(error: PinError) -> Self {
        let store = match &error {
            PinError::Set { source, .. } | PinError::Store(source) => Some(source),
            PinError::Unknown(_) => None,
        };
        let failure = Self::with_store(&error, store, exit_code::NOT_FOUND);
        match error {
            PinError::Unknown(_) => failure.with_help("`ww pin ls` lists all pins"),
            _ => failure,
        }
    }
}

impl From<ImportCarError> for Failure {
    fn from(error: ImportCarError) -> Self {
        let (store, other) = match &error {
            ImportCarError::Store(source) | ImportCarError::Pin(source) => (Some(source), exit_code::FAILURE),
            ImportCarError::Read(_) => (None, exit_code::FAILURE),
            ImportCarError::SeveralRoots { .. } | ImportCarError::NoRoots => (None, exit_code::USAGE),
            ImportCarError::Car(_) | ImportCarError::Block(_) => (None, exit_code::INVALID),
        };
        let failure = Self::with_store(&error, store, other);
        match error {
            ImportCarError::Car(CarError::Truncated { .. }) => {
                failure.with_help("it is cut off, or no CAR: fetch or export it again; nothing of it was kept")
            }
            _ => failure,
        }
    }
}

impl From<ExportCarError> for Failure {
    fn from(error: ExportCarError) -> Self {
        let store = match &error {
            ExportCarError::Store(source) => Some(source),
            ExportCarError::Write(_) => None,
        };
        Self::with_store(&error, store, exit_code::FAILURE)
    }
}
