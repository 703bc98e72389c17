//! The checked model of a project: what the rest of `ww` works with.
//!
//! A [`Project`] comes only out of [`load`](super::load) or [`parse`](super::parse), so whoever holds one can rely on
//! what is stated here. What is stated about the disk held while it was checked: whoever reads or writes a path later
//! must not follow a symlink that has appeared since.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::graph;
use super::name::{GuestName, ImageName};
use super::path::{ImagePath, ProjectPath};

/// A whole project: its guests, its images, and the place that all paths are relative to.
///
/// Every guest that is named anywhere in it exists, and no guest embeds itself, directly or through others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// The folder of the Wetfile: absolute, with no symlink in it.
    pub root: PathBuf,
    /// The Wetfile itself: `root` with the file's name.
    pub file: PathBuf,
    /// The project's name; it follows the rule of guest names.
    pub name: String,
    /// The project's version, such as `0.1.0`: not empty, no spaces, no control characters. It is not interpreted.
    pub version: String,
    /// All guests by name.
    pub guests: BTreeMap<GuestName, Guest>,
    /// All images by name.
    pub images: BTreeMap<ImageName, Image>,
}

/// A program that is compiled to a wasm component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its key in [`Project::guests`].
    pub name: GuestName,
    /// The folder that it is built in: an existing folder, not a symlink. The project's root for a command without
    /// `path`.
    pub dir: ProjectPath,
    /// How it is built.
    pub recipe: Recipe,
    /// The guests whose artifacts its build reads, in the order written, each once.
    pub embeds: Vec<GuestName>,
    /// The variables that its build sees beyond those that `ww` sets itself.
    pub env: BTreeMap<String, EnvValue>,
    /// Whether the same sources and the same toolchain give the same bytes. Where they do not, the lock vouches for no
    /// output.
    pub reproducible: bool,
}

/// The value of a variable that a build sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvValue {
    /// This text; no NUL in it.
    Set(String),
    /// What the environment of `ww` holds, or nothing.
    Inherit,
}

/// How a guest is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// By cargo; there is a `Cargo.toml` in [`Guest::dir`].
    Rust,
    /// By a command.
    Command {
        /// What is run in [`Guest::dir`].
        run: Run,
        /// Paths and globs relative to [`Guest::dir`]: everything whose change makes the guest stale. Each stays in
        /// the project, and each that is no glob (see [`is_glob`](super::is_glob)) exists. A path of a folder means
        /// all that is in it. May be empty.
        inputs: Vec<String>,
    },
    /// By the tool of a language that `ww` knows.
    Language(LanguageRecipe),
}

/// A language, other than Rust, whose tool `ww` knows how to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    /// C, by `zig cc`.
    C,
    /// Zig.
    Zig,
    /// Go, by its own compiler.
    Go,
    /// JavaScript, by componentize-js.
    JavaScript,
    /// Python, by componentize-py.
    Python,
}

impl Language {
    /// Every one of them.
    pub const ALL: [Self; 5] = [Self::C, Self::Zig, Self::Go, Self::JavaScript, Self::Python];

    /// What `lang` calls it.
    pub fn key(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Zig => "zig",
            Self::Go => "go",
            Self::JavaScript => "js",
            Self::Python => "python",
        }
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::C => "C",
            Self::Zig => "Zig",
            Self::Go => "Go",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
        }
    }
}

/// How a guest is compiled by the tool of its language. All paths are relative to [`Guest::dir`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageRecipe {
    /// The language.
    pub language: Language,
    /// The file that the program begins with, of Go the folder of its package; existing, and in [`Guest::dir`]. `None`
    /// for C, and for Zig where there is a `build.zig`.
    pub main: Option<String>,
    /// For C the files to compile, paths and globs as in [`Recipe::Command`]; empty for all others.
    pub sources: Vec<String>,
    /// Further arguments of the compiler, without NUL.
    pub flags: Vec<String>,
    /// What is read beside the files in [`Guest::dir`], paths and globs as in [`Recipe::Command`].
    pub inputs: Vec<String>,
}

/// The command of a command guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// A program and its arguments, at least one element. `{out}` and `{dep:NAME}` may stand anywhere inside an
    /// argument: [`argument::pieces`](super::argument::pieces) takes each apart without an error. `{out}` stands in
    /// at least one, and every `NAME` is among [`Guest::embeds`].
    Argv(Vec<String>),
    /// A command line for the shell, which finds the artifact's path in `$WW_OUT`.
    Shell(String),
}

/// A tree of files that is assembled and published as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its key in [`Project::images`].
    pub name: ImageName,
    /// The folder that it is written to. Not the root, not in `target`, no ancestor or descendant of the `out` of
    /// another image or of an input, and no symlink on the way to it. If something is there, it is a folder; whether
    /// `ww` wrote it is for the assembler to find out.
    pub out: ProjectPath,
    /// What it holds. No entry that is a single file is an ancestor of another entry. Where the image asks for something,
    /// `etc/cell.toml` is among them.
    pub files: BTreeMap<ImagePath, Source>,
}

/// Where an entry of an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The artifact of a guest.
    Guest(GuestName),
    /// A file, a folder with all that is in it, or a symlink, which is stored and not followed.
    Path(ProjectPath),
    /// A file with this content, which the Wetfile gives in other words.
    Text(String),
}

impl Project {
    /// The guests that are needed to build `guests`, those included: each once, and after every guest that it embeds.
    ///
    /// The order depends on the set alone, not on the order in which it is given. Names that the project does not
    /// have are left out.
    pub fn build_order<'n>(&self, guests: impl IntoIterator<Item = &'n GuestName>) -> Vec<&GuestName> {
        let known = guests.into_iter().filter_map(|name| self.guests.get_key_value(name));
        let roots: BTreeSet<&GuestName> = known.map(|(name, _)| name).collect();
        graph::walk(roots, |name| self.guests[name].embeds.iter().collect()).order
    }

    /// Whether a guest of the project and all that it embeds are made of the same bytes by everybody.
    pub fn is_reproducible(&self, guest: &GuestName) -> bool {
        self.build_order([guest]).into_iter().all(|name| self.guests[name].reproducible)
    }
}

impl Image {
    /// The guests whose artifacts the image holds, by name, each once.
    pub fn guests(&self) -> BTreeSet<&GuestName> {
        let guests = self.files.values().filter_map(|source| match source {
            Source::Guest(name) => Some(name),
            Source::Path(_) | Source::Text(_) => None,
        });
        guests.collect()
    }
}
