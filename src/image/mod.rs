//! Images: trees of files with the program at `bin/main.wasm`, assembled from what a Wetfile lists.
//!
//! [`assemble`] writes one, [`inspect`] tells what is in one. `Layout` is the plan between the list and the disk.
//! Nothing here compiles a guest, makes a CID or knows a blockstore.

mod assemble;
mod glob;
mod inspect;
mod layout;
mod marker;
pub mod private_key;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::dag::Cid;
use crate::escape;
use crate::wasm_binary::{Kind, MalformedComponent};
use crate::wetfile::{GuestName, Image, MAIN_PATH, ProjectPath};

pub use assemble::{Assembled, Check, assemble, assemble_checked, keep_marker};
pub use glob::{Fitting, fitting};
pub use inspect::{Entry, EntryKind, inspect};
pub use layout::STANDARD_FOLDERS;
pub use private_key::KeyEvidence;

/// What an image is assembled from, beside what its own table says.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The images that it is based on, each after the one that it is based on itself.
    pub bases: &'a [&'a Image],
    /// The artifact of every guest that any of these uses.
    pub artifacts: &'a BTreeMap<GuestName, PathBuf>,
    /// Where the tree of every CID that any of these takes was written: a folder, file or symlink in a folder, under a name
    /// that is UTF-8.
    pub contents: &'a BTreeMap<Cid, PathBuf>,
    /// Where images of the project lie, into which no glob looks.
    pub outs: &'a BTreeSet<ProjectPath>,
}

/// Why an image could not be assembled or read. The image's name is for the caller to add.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A source that is listed is not there.
    #[error("the source of `{entry}` is missing: {}", escape::text(.path))]
    MissingSource {
        /// The entry as listed, such as `etc`.
        entry: String,
        /// The source, relative to the project's root.
        path: String,
    },
    /// A folder on the way to a source, or to the image, is a symlink.
    #[error("{} is reached through a symlink", escape::text(.path))]
    ThroughSymlink {
        /// The symlink, relative to the project's root.
        path: String,
    },
    /// An object that an image cannot hold.
    #[error("{} is neither a file, a folder nor a symlink", escape::text(.path))]
    NotStorable {
        /// The object, relative to the project's root.
        path: String,
    },
    /// A name that is not UTF-8.
    #[error("the name of {} is not UTF-8", escape::path(.path))]
    NameNotUtf8 {
        /// The object, relative to the project's root.
        path: PathBuf,
    },
    /// A symlink whose target is not UTF-8.
    #[error("the symlink {} has a target that is not UTF-8: {}", escape::text(.path), escape::path(Path::new(.target)))]
    TargetNotUtf8 {
        /// The symlink, relative to the project's root.
        path: String,
        /// Its target as stored.
        target: OsString,
    },
    /// A path of the image that is longer or deeper than images may be.
    #[error("{} is too long or too deep for an image", escape::text(.path))]
    TooLong {
        /// The path in the image.
        path: String,
    },
    /// Two sources for one path of the image.
    #[error("two sources give `{}`: {first} and {second}", escape::text(.path))]
    Collision {
        /// The path in the image.
        path: String,
        /// One source, as it is shown.
        first: String,
        /// The other.
        second: String,
    },
    /// A glob that fits no file.
    #[error(
        "nothing below {} fits `{}`, the glob of `{entry}`: mend it, or leave the entry out",
        escape::text(.folder), escape::text(.glob)
    )]
    GlobFitsNothing {
        /// The entry as listed.
        entry: String,
        /// The folder, relative to the project's root.
        folder: String,
        /// The glob.
        glob: String,
    },
    /// More files and folders than are looked at for a glob.
    #[error("there are more than {limit} files and folders where a glob looks")]
    GlobTooMany {
        /// The limit.
        limit: usize,
    },
    /// The tree of a CID, which is not there any more.
    #[error("what was written of {cid} is gone")]
    MissingContent {
        /// The CID.
        cid: Box<Cid>,
    },
    /// A base that is a file or a symlink.
    #[error("its base {cid} is not a directory")]
    BaseNotFolder {
        /// The CID.
        cid: Box<Cid>,
    },
    /// A file that is probably somebody's private key.
    #[error(
        "{} is a private key ({evidence}), and whoever gets the image gets it: move it out of the listed folder, or list \
         that folder's other files one by one",
        escape::text(.path)
    )]
    PrivateKey {
        /// The file, relative to the project's root.
        path: String,
        /// What gave it away.
        evidence: KeyEvidence,
    },
    /// Nothing is listed for `bin/main.wasm`.
    #[error("it has no `{MAIN_PATH}`: list the guest that it runs")]
    NoMain,
    /// `bin/main.wasm` is no file.
    #[error("`{MAIN_PATH}` is {found}, where a component is needed")]
    MainNotFile {
        /// What it is, such as `a symlink`.
        found: &'static str,
    },
    /// `bin/main.wasm` is something else than a component.
    #[error("`{MAIN_PATH}` is {kind}, where a component is needed")]
    MainKind {
        /// What it is.
        kind: Kind,
    },
    /// `bin/main.wasm` begins as a component and does not go on as one.
    #[error("`{MAIN_PATH}` is damaged")]
    MainDamaged(#[source] MalformedComponent),
    /// `bin/main.wasm` is a component that cannot be run.
    #[error("`{MAIN_PATH}` is a library, not a program: it does not export wasi:cli/run@0.2 but {}", list(.exports))]
    MainNotProgram {
        /// What it exports, sorted.
        exports: Vec<String>,
    },
    /// Something that `ww` did not write is where the image goes.
    #[error(
        "{out} is there already and was not written by ww (it has no `{marker}` beside it): move it away, or choose \
         another `out`"
    )]
    NotOurs {
        /// Where the image goes.
        out: ProjectPath,
        /// The name of the file that says that `ww` wrote it.
        marker: String,
    },
    /// Under the name of a file or folder of ours there is something that a newer `ww` wrote, that is damaged, or that
    /// was not written by `ww`.
    #[error("{} was written by a newer ww or by somebody else, or is damaged", escape::path(.path))]
    Marker {
        /// The marker, or the folder without one.
        path: PathBuf,
    },
    /// Whoever asked for it does not want this tree.
    #[error("it was not replaced")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It was stopped from outside.
    #[error("stopped")]
    Cancelled,
    /// The file system refused.
    #[error("cannot {action} {}", escape::path(.path))]
    Io {
        /// What was being done, such as `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The file system's answer.
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    /// For `map_err`: an error of the file system with what was done to which path.
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { escape::text(&names.join(", ")).into_owned() }
}
