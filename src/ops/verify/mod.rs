//! `ww verify`: whether images, lock and sources agree. Nothing is run, and nothing is fetched.
//!
//! Everything that does not agree is a [`Finding`]; what cannot be looked at does not agree. [`verify_project`] holds images
//! of a Wetfile against its lock; [`verify_folder`], [`verify_archive`] and [`verify_dag`] look at one by itself.

mod archive;
mod dag;
mod folder;
mod host;
mod image;
mod program;
mod project;
mod rebuild;

pub(super) use program::request_problem;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::dag::Cid;
use crate::dag::unixfs::Profile;

pub use archive::verify_archive;
pub use dag::{DagTarget, verify_dag};
pub use folder::{verify_cid, verify_folder};
pub use host::is_provided;
pub(super) use image::read_file;
pub use project::verify_project;
pub use rebuild::{RebuildEnvironment, RebuildError, Rebuilt, RebuiltGuest, Surroundings, rebuild};

/// What kind of thing is wrong. The most basic first: of several findings the first in this order decides how the
/// verification as a whole ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// The lock is missing, or a build would change it.
    Lock,
    /// A file is not what it was, is missing, or is too much.
    Altered,
    /// Two builds of the same differ, or differ from the lock.
    NotReproducible,
    /// A program is empty or no component.
    NotComponent,
    /// `bin/main.wasm` cannot be run: it does not export `wasi:cli/run`.
    NotProgram,
    /// A program imports what no cell has.
    Import,
    /// What the image asks for cannot be told.
    Request,
    /// A CID was made under another profile than it is said to be.
    Profile,
    /// A guest was compiled by a toolchain of which the lock holds nothing.
    Inconclusive,
}

impl FindingKind {
    /// The stable text, such as `altered`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Altered => "altered",
            Self::NotReproducible => "not-reproducible",
            Self::NotComponent => "not-component",
            Self::NotProgram => "not-program",
            Self::Import => "import",
            Self::Request => "request",
            Self::Profile => "profile",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// Something that does not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which kind of thing it is.
    pub kind: FindingKind,
    /// What it concerns, such as ``image `x` ``.
    pub subject: String,
    /// What is the matter, in one line. Ready to be shown.
    pub message: String,
    /// The file that it is about: of an image of a project below the project's root, of another folder below the folder as
    /// it was given, and of DAGs none. Not escaped.
    pub path: Option<String>,
}

impl Finding {
    fn new(kind: FindingKind, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, subject: subject.into(), message: message.into(), path: None }
    }

    fn with_path(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    /// With its path, if it has one, below this folder.
    fn below(self, folder: &Path) -> Self {
        let path = self.path.map(|path| folder.join(path).to_string_lossy().into_owned());
        Self { path, ..self }
    }
}

/// ``image `x`: `etc/motd` was altered``.
impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.subject, self.message)
    }
}

/// Something that was looked at, whatever was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What it is, such as ``image `x` ``.
    pub subject: String,
    /// Where it lies, if that is a folder or file.
    pub path: Option<PathBuf>,
    /// Its CID, if it could be read.
    pub cid: Option<Cid>,
    /// How the CID was made.
    pub profile: Profile,
    /// Number of files in it.
    pub files: u64,
}

/// What a verification came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was looked at.
    pub checked: Vec<Checked>,
    /// What does not agree, in the order in which it was found. Empty if everything does.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The kind of finding that decides; `None` if there is none.
    pub fn verdict(&self) -> Option<FindingKind> {
        self.findings.iter().map(|finding| finding.kind).min()
    }

    /// Adds what cannot be read at all, and why.
    fn add_unreadable(&mut self, path: &Path, profile: Profile, reason: Finding) {
        let (subject, path) = (reason.subject.clone(), Some(path.to_owned()));
        self.checked.push(Checked { subject, path, cid: None, profile, files: 0 });
        self.findings.push(reason);
    }

    /// Takes what another verification found.
    pub fn add(&mut self, other: Self) {
        self.checked.extend(other.checked);
        self.findings.extend(other.findings);
    }
}

/// It was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped")]
pub struct Stopped;
