//! The Wetfile as written: every value with its place in the text, types and keys checked, meaning not.
//!
//! A hand-written reader goes over the spanned table that the TOML parser gives, so that one pass reports everything
//! and each value keeps its place. Serde's derived enums would stop at the first error and lose the places. Paths,
//! references between guests, and the disk are the business of `check`.

mod image;
mod json;
mod keys;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use self::reader::{Reader, Section};
use super::diagnostic::{Code, Diagnostic, Sink, quoted};
use super::name::{NAME_RULE, is_name, nearest_name};

pub use json::json_schema;
pub(super) use keys::LANGUAGES;

/// The format that this `ww` reads.
pub(super) const FORMAT: u64 = 1;

/// Most guests of a project, and most images. A bound on hostile input far above what people keep in one file.
pub(super) const SECTIONS_MAX: usize = 1000;

/// Most profiles. Each is checked as if it were a Wetfile of its own.
pub(super) const PROFILES_MAX: usize = 16;

/// Most elements of an array, and most entries of `files`.
pub(super) const ELEMENTS_MAX: usize = 10_000;

/// Every key there is, by table.
#[cfg(test)]
pub(super) const ALL_KEYS: [&[keys::Key]; 9] = [
    keys::ROOT,
    keys::PROJECT,
    keys::GUEST,
    keys::IMAGE,
    keys::BASE,
    keys::VARIABLE,
    keys::SOURCE,
    keys::PROFILE,
    keys::OVERRIDE,
];

/// A value and where it is written.
#[derive(Clone, Debug)]
pub(super) struct Written<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// What a key holds.
#[derive(Clone, Debug)]
pub(super) enum Field<T> {
    /// The key is not there.
    Absent,
    /// It is there, and what it holds was reported.
    Invalid,
    Given(Written<T>),
}

impl<T> Field<T> {
    pub(super) fn given(&self) -> Option<&Written<T>> {
        match self {
            Field::Given(written) => Some(written),
            Field::Absent | Field::Invalid => None,
        }
    }

    fn map<U>(self, change: impl FnOnce(T) -> U) -> Field<U> {
        match self {
            Field::Absent => Field::Absent,
            Field::Invalid => Field::Invalid,
            Field::Given(Written { value, span }) => Field::Given(Written { value: change(value), span }),
        }
    }

    /// This field, or another one where this is not there.
    fn or(&self, other: &Self) -> Self
    where
        T: Clone,
    {
        if self.is_absent() { other.clone() } else { self.clone() }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }
}

/// A whole Wetfile.
pub(super) struct Manifest {
    pub(super) project: ProjectTable,
    /// Every key of `guest`, those included whose table could not be read.
    pub(super) guest_names: BTreeSet<String>,
    /// In the order of the file.
    pub(super) guests: Vec<GuestTable>,
    /// Every key of `image`, those included whose table could not be read.
    pub(super) image_names: BTreeSet<String>,
    /// In the order of the file.
    pub(super) images: Vec<ImageTable>,
    /// In the order of the file.
    pub(super) profiles: Vec<ProfileTable>,
}

/// `[project]`.
pub(super) struct ProjectTable {
    pub(super) name: Field<String>,
    pub(super) version: Field<String>,
}

/// `[guest.NAME]`, or `[profile.NAME.guest.NAME]`, which has some of its keys, and one more.
#[derive(Clone)]
pub(super) struct GuestTable {
    /// May break the rule for names; that was reported.
    pub(super) name: Written<String>,
    pub(super) path: Field<String>,
    pub(super) lang: Field<String>,
    pub(super) build: Field<Build>,
    pub(super) inputs: Field<Vec<Written<String>>>,
    pub(super) embeds: Field<Vec<Written<String>>>,
    pub(super) needs: Field<Vec<Written<String>>>,
    pub(super) env: Vec<(Written<String>, Variable)>,
    pub(super) features: Field<Vec<Written<String>>>,
    pub(super) default_features: Field<bool>,
    pub(super) bin: Field<String>,
    pub(super) toolchain: Field<String>,
    /// In a profile alone.
    pub(super) cargo_profile: Field<String>,
    pub(super) reproducible: Field<bool>,
    pub(super) main: Field<String>,
    pub(super) sources: Field<Vec<Written<String>>>,
    pub(super) flags: Field<Vec<Written<String>>>,
}

impl GuestTable {
    /// The elements of `embeds`, as far as they could be read.
    pub(super) fn embeds(&self) -> &[Written<String>] {
        self.embeds.given().map_or(&[], |embeds| &embeds.value)
    }

    /// The elements of `needs`, as far as they could be read.
    pub(super) fn needs(&self) -> &[Written<String>] {
        self.needs.given().map_or(&[], |needs| &needs.value)
    }

    /// This table with what another one says in its place, key by key; of `env` variable by variable.
    pub(super) fn overridden_by(&self, other: &Self) -> Self {
        Self {
            name: self.name.clone(),
            path: self.path.clone(),
            lang: self.lang.clone(),
            build: other.build.or(&self.build),
            inputs: other.inputs.or(&self.inputs),
            embeds: self.embeds.clone(),
            needs: self.needs.clone(),
            env: self.env.iter().chain(&other.env).cloned().collect(),
            features: other.features.or(&self.features),
            default_features: other.default_features.or(&self.default_features),
            bin: other.bin.or(&self.bin),
            toolchain: other.toolchain.or(&self.toolchain),
            cargo_profile: other.cargo_profile.or(&self.cargo_profile),
            reproducible: self.reproducible.clone(),
            main: self.main.clone(),
            sources: self.sources.clone(),
            flags: self.flags.clone(),
        }
    }
}

/// `[profile.NAME]`.
pub(super) struct ProfileTable {
    /// May break the rule for names; that was reported.
    pub(super) name: Written<String>,
    pub(super) env: Vec<(Written<String>, Variable)>,
    pub(super) cargo_profile: Field<String>,
    /// What is other than in the tables of these guests, which may not be there. In the order of the file.
    pub(super) guests: Vec<GuestTable>,
}

/// The value of `build`.
#[derive(Clone, Debug)]
pub(super) enum Build {
    Argv(Vec<Written<String>>),
    Shell(String),
}

/// A value of `env`.
#[derive(Clone, Debug)]
pub(super) enum Variable {
    Set(Written<String>),
    Inherit,
    /// What it holds was reported.
    Invalid,
}

/// `[image.NAME]`.
pub(super) struct ImageTable {
    /// May break the rule for names; that was reported.
    pub(super) name: Written<String>,
    pub(super) out: Field<String>,
    pub(super) base: Field<BaseTable>,
    /// In the order of the file.
    pub(super) files: Field<Vec<FileEntry>>,
    pub(super) grants: Field<Vec<Written<String>>>,
    /// Names and values in the order of the file, numbers as texts. Those that could not be read were reported.
    pub(super) limits: Field<Vec<(Written<String>, Written<String>)>>,
}

/// The value of `base`.
#[derive(Clone, Debug)]
pub(super) enum BaseTable {
    Image(Written<String>),
    Cid(Written<String>),
}

/// A line of `files`.
#[derive(Clone, Debug)]
pub(super) struct FileEntry {
    pub(super) key: Written<String>,
    /// `None` when what it holds was reported.
    pub(super) source: Option<SourceTable>,
    /// Where it says that it replaces what the base has, if it does.
    pub(super) replace: Option<Range<usize>>,
}

/// The value of a line of `files`.
#[derive(Clone, Debug)]
pub(super) enum SourceTable {
    Guest(Written<String>),
    Path { path: Written<String>, glob: Option<Written<String>> },
    Text(Written<String>),
    Cid(Written<String>),
}

/// Reads the table of a file. What is wrong goes to the sink; what could be read is in the result.
///
/// There is no result for a file of another format version: its keys may mean anything.
pub(super) fn read(root: &DeTable<'_>, sink: &mut Sink<'_>) -> Option<Manifest> {
    let mut reader = Reader { sink };
    let root = Section { table: root, title: "a Wetfile".to_owned(), span: 0..0 };
    if !reader.format_version(&root) {
        return None;
    }
    reader.unknown_keys(&root, keys::ROOT);
    let names = |kind: &str| -> BTreeSet<String> {
        let sections = root.get(kind).and_then(|sections| sections.get_ref().as_table());
        sections.into_iter().flat_map(DeTable::keys).map(|name| name.get_ref().to_string()).collect()
    };
    Some(Manifest {
        guest_names: names("guest"),
        image_names: names("image"),
        project: reader.project(&root),
        guests: reader.named_sections(&root, "guest", SECTIONS_MAX, Reader::guest),
        images: reader.named_sections(&root, "image", SECTIONS_MAX, Reader::image),
        profiles: reader.named_sections(&root, "profile", PROFILES_MAX, Reader::profile),
    })
}

impl Reader<'_, '_> {
    /// Whether the rest of the file can be read.
    fn format_version(&mut self, root: &Section<'_, '_>) -> bool {
        let Some(value) = root.get("wetfile") else {
            let label = self.sink.label(&(0..0), format!("`wetfile = {FORMAT}` is missing here"));
            let help = format!("begin the file with the line `wetfile = {FORMAT}`");
            self.report(Code::FormatVersion, "the format version of the Wetfile is missing", label, help);
            return true;
        };
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(value, "`wetfile`", "an integer", format!("write `wetfile = {FORMAT}`"));
            return true;
        };
        if integer_value(integer) == Some(FORMAT) {
            return true;
        }
        let is_newer = !integer.as_str().starts_with('-') && integer_value(integer) != Some(0);
        let (message, help) = if is_newer {
            (format!("this Wetfile needs a newer ww: this one reads format {FORMAT}"), "install a newer ww".to_owned())
        } else {
            ("there is no such format version".to_owned(), format!("write `wetfile = {FORMAT}`"))
        };
        let label = self.sink.label(&value.span(), "this format");
        self.report(Code::FormatVersion, message, label, help);
        false
    }

    fn project(&mut self, root: &Section<'_, '_>) -> ProjectTable {
        let Some(value) = root.get("project") else {
            let label = self.sink.label(&(0..0), "`[project]` is missing in this file");
            let help = "add `[project]` with `name = \"…\"` and `version = \"…\"`";
            self.report(Code::MissingKey, "a Wetfile needs `[project]`", label, help);
            return ProjectTable { name: Field::Invalid, version: Field::Invalid };
        };
        let Some(section) = self.section(value, "`[project]`".to_owned()) else {
            return ProjectTable { name: Field::Invalid, version: Field::Invalid };
        };
        self.unknown_keys(&section, keys::PROJECT);
        self.require(&section, "name", "add `name = \"my-project\"`");
        self.require(&section, "version", "add `version = \"0.1.0\"`");
        ProjectTable { name: self.string(&section, "name"), version: self.string(&section, "version") }
    }

    /// Reads `[guest.*]`, `[image.*]` or `[profile.*]`, of which there may be `max`.
    fn named_sections<T>(
        &mut self,
        root: &Section<'_, '_>,
        kind: &str,
        max: usize,
        read: impl Fn(&mut Self, Written<String>, &Section<'_, '_>) -> T,
    ) -> Vec<T> {
        self.sections_below(root, kind, kind, max, |reader, name, section| {
            check_name(&name, reader.sink);
            read(reader, name, section)
        })
    }

    /// Reads the tables in the table `key`, whose headings begin with `heading`.
    fn sections_below<T>(
        &mut self,
        parent: &Section<'_, '_>,
        key: &str,
        heading: &str,
        max: usize,
        read: impl Fn(&mut Self, Written<String>, &Section<'_, '_>) -> T,
    ) -> Vec<T> {
        let Some(value) = parent.get(key) else { return Vec::new() };
        let Some(all) = self.section(value, format!("`[{heading}.NAME]`")) else { return Vec::new() };
        let mut entries = all.entries();
        if !self.is_within(&entries, max, |(name, _)| name.span.clone(), &format!("sections `[{heading}.NAME]`")) {
            entries.truncate(max);
        }
        let mut sections = Vec::new();
        for (name, value) in entries {
            if let Some(section) = self.section(value, format!("`[{heading}.{}]`", shown_key(&name.value))) {
                sections.push(read(self, name, &section));
            }
        }
        sections
    }

    fn guest(&mut self, name: Written<String>, section: &Section<'_, '_>) -> GuestTable {
        self.unknown_keys(section, keys::GUEST);
        // It is for people, and nothing follows from it.
        let _ = self.string(section, "description");
        GuestTable {
            path: self.string(section, "path"),
            lang: self.string(section, "lang"),
            embeds: self.strings(section, "embeds"),
            needs: self.strings(section, "needs"),
            main: self.string(section, "main"),
            sources: self.strings(section, "sources"),
            flags: self.strings(section, "flags"),
            cargo_profile: Field::Absent,
            reproducible: self.flag(section, "reproducible"),
            ..self.settings(name, section)
        }
    }

    fn profile(&mut self, name: Written<String>, section: &Section<'_, '_>) -> ProfileTable {
        self.unknown_keys(section, keys::PROFILE);
        let heading = format!("profile.{}.guest", shown_key(&name.value));
        ProfileTable {
            name,
            env: self.env(section),
            cargo_profile: self.string(section, "cargo-profile"),
            guests: self.sections_below(section, "guest", &heading, SECTIONS_MAX, |reader, name, section| {
                reader.unknown_keys(section, keys::OVERRIDE);
                reader.settings(name, section)
            }),
        }
    }

    /// What both the table of a guest and a profile can say of it.
    fn settings(&mut self, name: Written<String>, section: &Section<'_, '_>) -> GuestTable {
        GuestTable {
            name,
            path: Field::Absent,
            lang: Field::Absent,
            build: self.build(section),
            inputs: self.strings(section, "inputs"),
            embeds: Field::Absent,
            needs: Field::Absent,
            env: self.env(section),
            features: self.strings(section, "features"),
            default_features: self.flag(section, "default-features"),
            bin: self.string(section, "bin"),
            toolchain: self.string(section, "toolchain"),
            cargo_profile: self.string(section, "cargo-profile"),
            reproducible: Field::Absent,
            main: Field::Absent,
            sources: Field::Absent,
            flags: Field::Absent,
        }
    }

    fn build(&mut self, section: &Section<'_, '_>) -> Field<Build> {
        const HELP: &str = "write a program and its arguments, `[\"cc\", \"-o\", \"{out}\", \"a.c\"]`, \
                            or a command line for the shell as a string";
        let Some(value) = section.get("build") else { return section.absent("build") };
        match value.get_ref() {
            DeValue::String(_) => self.string(section, "build").map(Build::Shell),
            DeValue::Array(_) => self.strings(section, "build").map(Build::Argv),
            _ => {
                self.wrong_type(value, "`build`", "an array of strings or a string", HELP);
                Field::Invalid
            }
        }
    }

    fn env(&mut self, section: &Section<'_, '_>) -> Vec<(Written<String>, Variable)> {
        let Some(value) = section.get("env") else { return Vec::new() };
        let Some(env) = self.section(value, format!("`env` of {}", section.title)) else {
            return Vec::new();
        };
        env.entries().into_iter().map(|(name, value)| (name, self.variable(value))).collect()
    }

    fn variable(&mut self, value: &Spanned<DeValue<'_>>) -> Variable {
        const HELP: &str =
            "write `NAME = \"value\"` to set a variable, or `NAME = { inherit = true }` to pass ww's own";
        let table = match value.get_ref() {
            DeValue::String(text) => return Variable::Set(written(value.span(), text)),
            DeValue::Table(table) => table,
            _ => {
                self.wrong_type(value, "a variable", "a string or `{ inherit = true }`", HELP);
                return Variable::Invalid;
            }
        };
        let section = Section { table, title: "a variable".to_owned(), span: value.span() };
        if !self.unknown_keys(&section, keys::VARIABLE) {
            return Variable::Invalid;
        }
        match section.get("inherit") {
            Some(inherit) if matches!(inherit.get_ref(), DeValue::Boolean(true)) => Variable::Inherit,
            Some(inherit) => {
                let label = self.sink.label(&inherit.span(), "not `true`");
                let help = "leave the variable out to keep it from the build";
                self.report(Code::InvalidValue, "`inherit` can only be `true`", label, help);
                Variable::Invalid
            }
            None => {
                let label = self.sink.label(&value.span(), "neither a string nor `{ inherit = true }`");
                self.report(Code::InvalidValue, "this variable has no value", label, HELP);
                Variable::Invalid
            }
        }
    }
}

/// Reports a name that breaks the rule for names.
pub(super) fn check_name(name: &Written<String>, sink: &mut Sink<'_>) {
    if is_name(&name.value) {
        return;
    }
    let label = sink.label(&name.span, "breaks the rule for names");
    let message = format!("{} is not a valid name", quoted(&name.value));
    let mut diagnostic = Diagnostic::error(Code::InvalidName, message, label, NAME_RULE);
    if let Some(meant) = nearest_name(&name.value) {
        diagnostic = diagnostic.with_help(format!("`{meant}` would be one"));
    }
    sink.push(diagnostic);
}

fn written(span: Range<usize>, text: &str) -> Written<String> {
    Written { value: text.to_owned(), span }
}

fn integer_value(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A key as it would stand in a heading.
fn shown_key(key: &str) -> String {
    if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        quoted(key).replace('`', "")
    } else {
        quoted(key).replace('`', "\"")
    }
}
