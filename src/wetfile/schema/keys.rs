//! The keys of a Wetfile: which there are, what each holds, and what it is for.
//!
//! The reader takes from here what is no key, and [`json_schema`](super::json_schema) is made of it, so that what an editor
//! is told and what `ww` accepts cannot drift apart.

use super::{PROFILES_MAX, SECTIONS_MAX};

/// A key of a table.
pub(in crate::wetfile) struct Key {
    /// As it is written.
    pub(in crate::wetfile) name: &'static str,
    /// What it holds.
    pub(in crate::wetfile) value: Value,
    /// Whether the table is wrong without it.
    pub(in crate::wetfile) is_required: bool,
    /// What it is for, in one sentence that editors show.
    pub(in crate::wetfile) about: &'static str,
}

/// What a key holds.
pub(in crate::wetfile) enum Value {
    /// The number of the format.
    Format,
    /// A string.
    Text,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A string by the rule for names.
    Name,
    /// A string with a CID.
    Cid,
    /// A string with a version of a project.
    Version,
    /// `true` or `false`.
    Flag,
    /// Nothing but `true`.
    True,
    /// An array of strings.
    Texts,
    /// An array of names, each once.
    Names,
    /// A program and its arguments, or a command line.
    Command,
    /// Variables by name: strings, or tables of these keys.
    Variables(&'static [Key]),
    /// Limits by name: strings or numbers.
    Limits,
    /// Sources by their place in an image: tables of which exactly one key of `kinds` is there.
    Sources {
        /// The keys of a source.
        keys: &'static [Key],
        /// Those that say what it is.
        kinds: &'static [&'static str],
    },
    /// A table of exactly one of these keys.
    Choice(&'static [Key]),
    /// A table of these keys.
    Table(&'static [Key]),
    /// A table of these keys for each name, at most so many.
    Named(&'static [Key], usize),
    /// Anything at all.
    Anything,
}

const fn key(name: &'static str, value: Value, about: &'static str) -> Key {
    Key { name, value, is_required: false, about }
}

const fn required(name: &'static str, value: Value, about: &'static str) -> Key {
    Key { name, value, is_required: true, about }
}

/// The values of `lang`.
pub(in crate::wetfile) const LANGUAGES: &[&str] = &["rust", "command", "c", "zig", "go", "js", "python"];

pub(in crate::wetfile) const ROOT: &[Key] = &[
    required("wetfile", Value::Format, "Version of this format."),
    required("project", Value::Table(PROJECT), "What the project is called."),
    key("guest", Value::Named(GUEST, SECTIONS_MAX), "Programs that are compiled to wasm components."),
    key("image", Value::Named(IMAGE, SECTIONS_MAX), "Trees of files that are assembled and published as one."),
    key(
        "profile",
        Value::Named(PROFILE, PROFILES_MAX),
        "Other ways to build the guests, for `ww build --profile NAME`.",
    ),
    key("tool", Value::Anything, "For other programs; ww ignores it."),
];

pub(in crate::wetfile) const PROJECT: &[Key] = &[
    required("name", Value::Name, "Name of the project."),
    required("version", Value::Version, "Version of the project."),
];

pub(in crate::wetfile) const GUEST: &[Key] = &[
    key("path", Value::Text, "Folder that the guest is built in."),
    key("lang", Value::OneOf(LANGUAGES), "Language, where `build` and `path` do not tell it."),
    key("description", Value::Text, "What the guest is, for people."),
    BUILD,
    INPUTS,
    key("main", Value::Text, "Where the program begins, in a language other than Rust."),
    key("sources", Value::Texts, "Paths and globs of the files of a C guest."),
    key("flags", Value::Texts, "Further arguments of the tool that compiles the guest, in a language other than Rust."),
    key("embeds", Value::Names, "Guests that are built first and whose artifacts this one reads."),
    key("needs", Value::Names, "Guests that are built first, and of which this one reads nothing."),
    ENV,
    FEATURES,
    DEFAULT_FEATURES,
    BIN,
    TOOLCHAIN,
    key("reproducible", Value::Flag, "Whether the same sources give the same bytes."),
];

/// What a profile says of a guest.
pub(in crate::wetfile) const OVERRIDE: &[Key] =
    &[BUILD, INPUTS, ENV, FEATURES, DEFAULT_FEATURES, BIN, TOOLCHAIN, CARGO_PROFILE];

const BUILD: Key = key("build", Value::Command, "The command that compiles the guest.");
const INPUTS: Key = key("inputs", Value::Texts, "Paths and globs of what the build reads, beside what lies in `path`.");
const ENV: Key = key("env", Value::Variables(VARIABLE), "Variables that the build sees.");
const FEATURES: Key = key("features", Value::Texts, "Features of the Rust package that are on.");
const DEFAULT_FEATURES: Key =
    key("default-features", Value::Flag, "Whether the default features of the Rust package are on.");
const BIN: Key = key("bin", Value::Text, "The program of the Rust package that is the guest.");
const TOOLCHAIN: Key = key("toolchain", Value::Text, "The toolchain that compiles the Rust guest, as rustup names it.");
const CARGO_PROFILE: Key =
    key("cargo-profile", Value::Text, "The profile of cargo that Rust guests are compiled with.");

pub(in crate::wetfile) const VARIABLE: &[Key] = &[required("inherit", Value::True, "Pass what ww itself was given.")];

pub(in crate::wetfile) const IMAGE: &[Key] = &[
    required("out", Value::Text, "Folder that the image is written to."),
    key("base", Value::Choice(BASE), "The tree that the image begins as."),
    required("files", Value::Sources { keys: SOURCE, kinds: SOURCE_KINDS }, "What the image holds."),
    key("grants", Value::Texts, "What the image would like to do."),
    key("limits", Value::Limits, "How much the image would like to use."),
];

pub(in crate::wetfile) const BASE: &[Key] =
    &[key("image", Value::Name, "Another image of this file."), key("cid", Value::Cid, "A tree by its CID.")];

pub(in crate::wetfile) const SOURCE: &[Key] = &[
    key("guest", Value::Name, "The artifact of a guest."),
    key("path", Value::Text, "A file, a folder or a symlink of the project."),
    key("glob", Value::Text, "Which files below the folder `path` are taken."),
    key("text", Value::Text, "The content of the file."),
    key("cid", Value::Cid, "A file, a directory or a symlink by its CID."),
    key("replace", Value::Flag, "Whether it replaces what the image's base has at the same paths."),
];

/// The keys of a source of which there is exactly one.
pub(in crate::wetfile) const SOURCE_KINDS: &[&str] = &["guest", "path", "text", "cid"];

pub(in crate::wetfile) const PROFILE: &[Key] = &[
    ENV,
    CARGO_PROFILE,
    key("guest", Value::Named(OVERRIDE, SECTIONS_MAX), "What is other than in the tables of guests."),
];
