//! The checked model of a project: what the rest of `ww` works with.
//!
//! A [`Project`] comes only out of [`load`](super::load) or [`parse`](super::parse), so whoever holds one can rely on
//! what is stated here. What is stated about the disk held while it was checked: whoever reads or writes a path later
//! must not follow a symlink that has appeared since.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::glob::Glob;
use super::graph;
use super::name::{GuestName, ImageName, ProfileName};
use super::path::{ImagePath, ProjectPath};
use crate::dag::Cid;
use crate::escape;

/// A whole project: its guests, its images, and the place that all paths are relative to.
///
/// Every guest and image that is named anywhere in it exists, no guest embeds or needs itself, directly or through others,
/// and no image is based on itself.
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
    /// The profiles by name, each with all guests as they are under it.
    pub profiles: BTreeMap<ProfileName, BTreeMap<GuestName, Guest>>,
    /// Under which of them [`Project::guests`] are; `None` if they are as their own tables say.
    pub profile: Option<ProfileName>,
}

/// A profile that the project does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Wetfile has no profile `{}`{}", escape::text(.name), others(.known))]
pub struct UnknownProfile {
    /// The name as given.
    pub name: String,
    /// The profiles there are, sorted.
    pub known: Vec<ProfileName>,
}

fn others(known: &[ProfileName]) -> String {
    match known {
        [] => ": it has none, and `[profile.NAME]` makes one".to_owned(),
        known => format!(": it has {}", known.iter().map(ProfileName::as_str).collect::<Vec<_>>().join(", ")),
    }
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
    /// The guests that are built before it and of which it reads nothing, in the order written, each once; none of them is
    /// among [`Guest::embeds`].
    pub needs: Vec<GuestName>,
    /// The variables that its build sees beyond those that `ww` sets itself.
    pub env: BTreeMap<String, EnvValue>,
    /// Whether the same sources and the same toolchain give the same bytes. Where they do not, the lock vouches for no
    /// output. It changes nothing of how the guest is built.
    pub reproducible: bool,
}

impl Guest {
    /// The guests that are built before this one, for whatever reason.
    pub fn built_before(&self) -> impl Iterator<Item = &GuestName> {
        self.embeds.iter().chain(&self.needs)
    }
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
    Rust(CargoOptions),
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

/// What cargo is told of a Rust guest. No text in it can be taken for an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CargoOptions {
    /// The toolchain as rustup names it; `None` for the one that rustup takes for the folder.
    pub toolchain: Option<String>,
    /// Features of the package that are on beside the default ones.
    pub features: BTreeSet<String>,
    /// Whether the default features are on.
    pub default_features: bool,
    /// The program of the package; `None` for its only one, or its default.
    pub bin: Option<String>,
    /// The profile of cargo.
    pub profile: String,
}

impl CargoOptions {
    /// The profile of cargo where nothing else is said.
    pub const PROFILE: &str = "release";
}

impl Default for CargoOptions {
    fn default() -> Self {
        Self {
            toolchain: None,
            features: BTreeSet::new(),
            default_features: true,
            bin: None,
            profile: Self::PROFILE.to_owned(),
        }
    }
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
    /// The tree that it begins as, if there is one.
    pub base: Option<Base>,
    /// What it holds. No entry that is a single file is an ancestor of another entry. Where the image asks for something,
    /// `etc/cell.toml` is among them.
    pub files: BTreeMap<ImagePath, Source>,
    /// Those of [`Image::files`] that take the place of what the base has at the same paths. With others that is an error,
    /// which only shows when the image is assembled.
    pub replaces: BTreeSet<ImagePath>,
}

/// What an image begins as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Another image of the project.
    Image(ImageName),
    /// The tree of this CID.
    Content(Cid),
}

/// Where an entry of an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The artifact of a guest.
    Guest(GuestName),
    /// A file, a folder with all that is in it, or a symlink, which is stored and not followed.
    Path(ProjectPath),
    /// The files and symlinks below a folder that a glob fits, at their paths below it.
    Glob {
        /// The folder.
        folder: ProjectPath,
        /// What fits.
        glob: Glob,
    },
    /// A file with this content, of at most [`TEXT_BYTES_MAX`] bytes.
    Text(String),
    /// The file, directory or symlink of this CID.
    Content(Cid),
}

/// Longest content of a file that stands in the Wetfile itself, in bytes. What is longer is better off in a file; and it
/// has to fit into one block under each profile of CIDs.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Most images that one is based on, directly or through others.
pub const BASES_MAX: usize = 16;

impl Project {
    /// The guests that are needed to build `guests`, those included: each once, and after every guest that it embeds or needs.
    ///
    /// The order depends on the set alone, not on the order in which it is given. Names that the project does not
    /// have are left out.
    pub fn build_order<'n>(&self, guests: impl IntoIterator<Item = &'n GuestName>) -> Vec<&GuestName> {
        let known = guests.into_iter().filter_map(|name| self.guests.get_key_value(name));
        let roots: BTreeSet<&GuestName> = known.map(|(name, _)| name).collect();
        graph::order(roots, |name| self.guests[name].built_before().collect())
    }

    /// The images that are needed to assemble `images`, those included: each once, and after the one that it is based on.
    pub fn image_order<'i>(&'i self, images: impl IntoIterator<Item = &'i Image>) -> Vec<&'i Image> {
        let roots: BTreeSet<&ImageName> = images.into_iter().map(|image| &image.name).collect();
        let order =
            graph::order(roots, |name| self.base_of(&self.images[name]).map(|base| &base.name).into_iter().collect());
        order.into_iter().map(|name| &self.images[name]).collect()
    }

    /// The image that an image of this project is based on, if it is on one.
    pub fn base_of(&self, image: &Image) -> Option<&Image> {
        match &image.base {
            Some(Base::Image(name)) => Some(&self.images[name]),
            Some(Base::Content(_)) | None => None,
        }
    }

    /// Where the images lie.
    pub fn outs(&self) -> BTreeSet<ProjectPath> {
        self.images.values().map(|image| image.out.clone()).collect()
    }

    /// An image and those that it is based on, itself last. At most one more than [`BASES_MAX`].
    pub fn layers<'i>(&'i self, image: &'i Image) -> Vec<&'i Image> {
        let mut layers: Vec<&Image> = std::iter::successors(Some(image), |image| self.base_of(image)).collect();
        layers.reverse();
        layers
    }

    /// The project as it is under one of its profiles: with other guests, and all else the same.
    ///
    /// # Errors
    ///
    /// [`UnknownProfile`].
    pub fn with_profile(mut self, name: &str) -> Result<Self, UnknownProfile> {
        let known = self.profiles.iter().find(|(profile, _)| profile.as_str() == name);
        let Some((profile, guests)) = known.map(|(profile, guests)| (profile.clone(), guests.clone())) else {
            return Err(UnknownProfile { name: name.to_owned(), known: self.profiles.into_keys().collect() });
        };
        self.guests = guests;
        self.profile = Some(profile);
        Ok(self)
    }

    /// Whether a guest of the project and all that it embeds are made of the same bytes by everybody.
    pub fn is_reproducible(&self, guest: &GuestName) -> bool {
        self.build_order([guest]).into_iter().all(|name| self.guests[name].reproducible)
    }
}

impl Image {
    /// The guests whose artifacts its own files are, by name, each once.
    pub fn guests(&self) -> BTreeSet<&GuestName> {
        let guests = self.files.values().filter_map(|source| match source {
            Source::Guest(name) => Some(name),
            Source::Path(_) | Source::Glob { .. } | Source::Text(_) | Source::Content(_) => None,
        });
        guests.collect()
    }

    /// The CIDs that it takes from elsewhere, each once.
    pub fn contents(&self) -> BTreeSet<&Cid> {
        let files = self.files.values().filter_map(|source| match source {
            Source::Content(cid) => Some(cid),
            _ => None,
        });
        let base = self.base.iter().filter_map(|base| match base {
            Base::Content(cid) => Some(cid),
            Base::Image(_) => None,
        });
        files.chain(base).collect()
    }
}
