//! `Wetfile.toml`: from its text to a checked [`Project`], or to everything that is wrong with it.
//!
//! [`load`] reads the file of a folder; [`parse`] is the same without a disk. A text goes through three stages, each
//! reporting all it finds: the TOML parser, `schema` (keys and types, as written), `check` (names, references, cycles,
//! paths, what is on disk). `graph` knows the order of guests. A [`Diagnostic`] is plain data that `cli` renders.
//!
//! What it deliberately does not do: print, look for the Wetfile in parent folders, read anything but the Wetfile
//! itself (and [`lock`], its lock), decide what is stale, or write. That a path was fine when it was checked does not bind the disk: whoever
//! uses a path later looks again.
//!
//! `docs/wetfile.md` is the reference of the format.

pub mod argument;
mod check;
mod cycles;
mod diagnostic;
mod glob;
mod graph;
pub mod lock;
mod name;
mod path;
mod project;
mod schema;
mod suggest;
mod syntax;
mod tree;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::escape;

pub use check::RESERVED_FOR_RUST;
pub use diagnostic::{Code, DIAGNOSTICS_MAX, Diagnostic, Label, Position, Severity, Span};
pub use glob::{Glob, GlobError, GlobMatcher, is_glob, split_glob};
pub use name::{GuestName, ImageName, NAME_BYTES_MAX, NAME_RULE, NameError, ProfileName, nearest_name};
pub use path::{COMPONENT_BYTES_MAX, COMPONENTS_MAX, ImagePath, PATH_BYTES_MAX, PathError, ProjectPath};
pub use project::{
    BASES_MAX, Base, CargoOptions, EnvValue, Guest, Image, Language, LanguageRecipe, Project, Recipe, Run, Source,
    TEXT_BYTES_MAX, UnknownProfile,
};
pub use schema::json_schema;
pub use suggest::nearest as nearest_word;
pub use tree::{Disk, Kind, LISTED_MAX, Tree};

/// The name of the file in the project's root.
pub const FILE_NAME: &str = "Wetfile.toml";

/// Where an image has its program: what a cell starts.
pub const MAIN_PATH: &str = "bin/main.wasm";

/// Largest Wetfile in bytes. A project of a thousand guests needs about a tenth.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub enum WetfileError {
    /// The folder has no Wetfile.
    #[error("there is no {FILE_NAME} in {}", escape::path(dir))]
    NotFound {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder or the file could not be read.
    #[error("cannot read {}", escape::path(path))]
    Read {
        /// The folder or the file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is something of that name which is not a file.
    #[error("{} is not a file", escape::path(path))]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// The file is larger than [`FILE_BYTES_MAX`].
    #[error("{} is larger than {FILE_BYTES_MAX} bytes", escape::path(path))]
    TooLarge {
        /// Its path.
        path: PathBuf,
    },
    /// The file was read, and it is wrong.
    #[error("{} is not valid", escape::path(file))]
    Invalid {
        /// Its path.
        file: PathBuf,
        /// The text that the diagnostics point into. Where the file is not UTF-8, the bytes that are wrong are
        /// replaced.
        text: String,
        /// What is wrong, in the order of the file: at least one.
        diagnostics: Vec<Diagnostic>,
    },
}

/// Reads and checks the Wetfile of a folder.
///
/// # Errors
///
/// [`WetfileError`] when the file cannot be read, or when anything in it is wrong.
pub fn load(dir: &Path) -> Result<Project, WetfileError> {
    let root = fs::canonicalize(dir).map_err(|source| WetfileError::Read { path: dir.to_owned(), source })?;
    let file = root.join(FILE_NAME);
    let bytes = read_bounded(&root, &file)?;
    let (text, result) = match String::from_utf8(bytes) {
        Ok(text) => {
            let result = parse(&text, &file, &Disk { root });
            (text, result)
        }
        Err(error) => {
            let valid_bytes = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let diagnostic = syntax::not_utf8(&text, valid_bytes);
            (text, Err(diagnostic))
        }
    };
    result.map_err(|diagnostics| WetfileError::Invalid { file, text, diagnostics })
}

/// Checks the text of a Wetfile: [`load`] without the disk, for a text that is not a file, or not yet.
///
/// `file` is where it would lie: an absolute path, whose folder becomes the project's root. What is said about files
/// of the project comes from `tree`.
///
/// # Errors
///
/// Everything that is wrong, in the order of the file; at least one diagnostic, at most [`DIAGNOSTICS_MAX`] and one
/// that says that there are more.
pub fn parse(text: &str, file: &Path, tree: &dyn Tree) -> Result<Project, Vec<Diagnostic>> {
    let mut sink = diagnostic::Sink::new(text);
    let table = syntax::read(text, &mut sink);
    let is_toml = sink.count() == 0;
    let manifest = schema::read(&table, &mut sink);
    let project = if is_toml {
        manifest.map(|manifest| check::check(&manifest, file, tree, &mut sink))
    } else {
        syntax::keep_what_is_certain(&mut sink);
        None
    };
    let diagnostics = sink.finish();
    match project {
        Some(project) if diagnostics.is_empty() => Ok(project),
        _ => Err(diagnostics),
    }
}

fn read_bounded(root: &Path, file: &Path) -> Result<Vec<u8>, WetfileError> {
    let read_error = |source| WetfileError::Read { path: file.to_owned(), source };
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(WetfileError::NotFound { dir: root.to_owned() });
        }
        Err(error) => return Err(read_error(error)),
        // Opening a pipe would wait for its other end.
        Ok(metadata) if !metadata.is_file() => return Err(WetfileError::NotAFile { path: file.to_owned() }),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    let limit = FILE_BYTES_MAX as u64 + 1;
    File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(read_error)?;
    if bytes.len() > FILE_BYTES_MAX { Err(WetfileError::TooLarge { path: file.to_owned() }) } else { Ok(bytes) }
}

// They look at diagnostics as the command line shows them.
#[cfg(test)]
#[cfg(all(feature = "cell", feature = "swarm"))]
mod tests;
