//! The Wetfile as written: every value with its place in the text, types and keys checked, meaning not.
//!
//! A hand-written reader goes over the spanned table that the TOML parser gives, so that one pass reports everything
//! and each value keeps its place. Serde's derived enums would stop at the first error and lose the places. Paths,
//! references between guests, and the disk are the business of `check`.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::diagnostic::{Code, Diagnostic, Label, Sink, listed, quoted};
use super::name::{NAME_RULE, is_name, nearest_name};
use super::suggest::nearest;

/// The format that this `ww` reads.
pub(super) const FORMAT: u64 = 1;

/// Most guests of a project, and most images. A bound on hostile input far above what people keep in one file.
pub(super) const SECTIONS_MAX: usize = 1000;

/// Most elements of an array, and most entries of `files`.
pub(super) const ELEMENTS_MAX: usize = 10_000;

const ROOT_KEYS: &[&str] = &["wetfile", "project", "guest", "image", "tool"];
const PROJECT_KEYS: &[&str] = &["name", "version"];
const GUEST_KEYS: &[&str] =
    &["path", "lang", "build", "inputs", "main", "sources", "flags", "embeds", "env", "reproducible"];
const IMAGE_KEYS: &[&str] = &["out", "files", "grants", "limits"];
const ENV_KEYS: &[&str] = &["inherit"];
const SOURCE_KEYS: &[&str] = &["guest", "path"];

/// Every key there is, by section.
#[cfg(test)]
pub(super) const ALL_KEYS: [&[&str]; 6] = [ROOT_KEYS, PROJECT_KEYS, GUEST_KEYS, IMAGE_KEYS, ENV_KEYS, SOURCE_KEYS];

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
    /// In the order of the file.
    pub(super) images: Vec<ImageTable>,
}

/// `[project]`.
pub(super) struct ProjectTable {
    pub(super) name: Field<String>,
    pub(super) version: Field<String>,
}

/// `[guest.NAME]`.
pub(super) struct GuestTable {
    /// May break the rule for names; that was reported.
    pub(super) name: Written<String>,
    pub(super) path: Field<String>,
    pub(super) lang: Field<String>,
    pub(super) build: Field<Build>,
    pub(super) inputs: Field<Vec<Written<String>>>,
    pub(super) main: Field<String>,
    pub(super) sources: Field<Vec<Written<String>>>,
    pub(super) flags: Field<Vec<Written<String>>>,
    pub(super) reproducible: Field<bool>,
    pub(super) embeds: Field<Vec<Written<String>>>,
    pub(super) env: Vec<(Written<String>, Variable)>,
}

impl GuestTable {
    /// The elements of `embeds`, as far as they could be read.
    pub(super) fn embeds(&self) -> &[Written<String>] {
        self.embeds.given().map_or(&[], |embeds| &embeds.value)
    }
}

/// The value of `build`.
#[derive(Clone, Debug)]
pub(super) enum Build {
    Argv(Vec<Written<String>>),
    Shell(String),
}

/// A value of `env`.
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
    /// In the order of the file.
    pub(super) files: Field<Vec<FileEntry>>,
    pub(super) grants: Field<Vec<Written<String>>>,
    /// Names and values in the order of the file, numbers as texts. Those that could not be read were reported.
    pub(super) limits: Field<Vec<(Written<String>, Written<String>)>>,
}

/// A line of `files`.
#[derive(Clone, Debug)]
pub(super) struct FileEntry {
    pub(super) key: Written<String>,
    /// `None` when what it holds was reported.
    pub(super) source: Option<SourceTable>,
}

/// The value of a line of `files`.
#[derive(Clone, Debug)]
pub(super) enum SourceTable {
    Guest(Written<String>),
    Path(Written<String>),
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
    reader.unknown_keys(&root, ROOT_KEYS);
    let guests = root.get("guest").and_then(|guests| guests.get_ref().as_table());
    Some(Manifest {
        guest_names: guests.into_iter().flat_map(DeTable::keys).map(|name| name.get_ref().to_string()).collect(),
        project: reader.project(&root),
        guests: reader.named_sections(&root, "guest", Reader::guest),
        images: reader.named_sections(&root, "image", Reader::image),
    })
}

/// A table with what messages say about it.
struct Section<'a, 't> {
    table: &'a DeTable<'t>,
    /// How messages name it, with its backticks.
    title: String,
    /// Where to point when something is missing in it.
    span: Range<usize>,
}

impl<'a, 't> Section<'a, 't> {
    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    /// Keys and values in the order of the file.
    fn entries(&self) -> Vec<(Written<String>, &'a Spanned<DeValue<'t>>)> {
        let mut entries: Vec<_> =
            self.table.iter().map(|(key, value)| (written(key.span(), key.get_ref().as_ref()), value)).collect();
        entries.sort_by_key(|(key, _)| key.span.start);
        entries
    }
}

struct Reader<'s, 't> {
    sink: &'s mut Sink<'t>,
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
        self.unknown_keys(&section, PROJECT_KEYS);
        self.require(&section, "name", "add `name = \"my-project\"`");
        self.require(&section, "version", "add `version = \"0.1.0\"`");
        ProjectTable { name: self.string(&section, "name"), version: self.string(&section, "version") }
    }

    /// Reads `[guest.*]` or `[image.*]`.
    fn named_sections<T>(
        &mut self,
        root: &Section<'_, '_>,
        kind: &str,
        read: impl Fn(&mut Self, Written<String>, &Section<'_, '_>) -> T,
    ) -> Vec<T> {
        let Some(value) = root.get(kind) else { return Vec::new() };
        let Some(all) = self.section(value, format!("`[{kind}.NAME]`")) else { return Vec::new() };
        let mut entries = all.entries();
        if !self.is_within(&entries, SECTIONS_MAX, |(name, _)| name.span.clone(), &format!("sections `[{kind}.NAME]`"))
        {
            entries.truncate(SECTIONS_MAX);
        }
        let mut sections = Vec::new();
        for (name, value) in entries {
            check_name(&name, self.sink);
            if let Some(section) = self.section(value, format!("`[{kind}.{}]`", shown_key(&name.value))) {
                sections.push(read(self, name, &section));
            }
        }
        sections
    }

    fn guest(&mut self, name: Written<String>, section: &Section<'_, '_>) -> GuestTable {
        self.unknown_keys(section, GUEST_KEYS);
        GuestTable {
            name,
            path: self.string(section, "path"),
            lang: self.string(section, "lang"),
            build: self.build(section),
            inputs: self.strings(section, "inputs"),
            main: self.string(section, "main"),
            sources: self.strings(section, "sources"),
            flags: self.strings(section, "flags"),
            reproducible: self.boolean(section, "reproducible"),
            embeds: self.strings(section, "embeds"),
            env: self.env(section),
        }
    }

    fn build(&mut self, section: &Section<'_, '_>) -> Field<Build> {
        const HELP: &str = "write a program and its arguments, `[\"cc\", \"-o\", \"{out}\", \"a.c\"]`, \
                            or a command line for the shell as a string";
        let Some(value) = section.get("build") else { return Field::Absent };
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
        if !self.unknown_keys(&section, ENV_KEYS) {
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

    fn image(&mut self, name: Written<String>, section: &Section<'_, '_>) -> ImageTable {
        self.unknown_keys(section, IMAGE_KEYS);
        self.require(section, "out", "add `out = \"images/out\"`, the folder that the image is written to");
        self.require(section, "files", "add `files.\"bin/main.wasm\" = { guest = \"NAME\" }`");
        ImageTable {
            name,
            out: self.string(section, "out"),
            files: self.files(section),
            grants: self.strings(section, "grants"),
            limits: self.limits(section),
        }
    }

    fn limits(&mut self, section: &Section<'_, '_>) -> Field<Vec<(Written<String>, Written<String>)>> {
        let Some(value) = section.get("limits") else { return Field::Absent };
        let Some(limits) = self.section(value, format!("`limits` of {}", section.title)) else {
            return Field::Invalid;
        };
        let entries = limits.entries().into_iter();
        let entries = entries.filter_map(|(name, value)| Some((self.limit(&name.value, value)?, name)));
        let entries = entries.map(|(value, name)| (name, value)).collect();
        Field::Given(Written { value: entries, span: value.span() })
    }

    fn limit(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<Written<String>> {
        match value.get_ref() {
            DeValue::String(text) => Some(written(value.span(), text)),
            // What is negative or too large is told of the value.
            DeValue::Integer(integer) => {
                let number = integer_value(integer).map(|number| number.to_string());
                Some(written(value.span(), number.as_deref().unwrap_or(integer.as_str())))
            }
            _ => {
                let help = "write a number, or a size or time in quotes, such as `\"64MiB\"` and `\"10s\"`";
                self.wrong_type(value, &format!("the limit {}", quoted(name)), "a string or an integer", help);
                None
            }
        }
    }

    fn files(&mut self, section: &Section<'_, '_>) -> Field<Vec<FileEntry>> {
        let Some(value) = section.get("files") else { return Field::Absent };
        let Some(files) = self.section(value, format!("`files` of {}", section.title)) else {
            return Field::Invalid;
        };
        let entries = files.entries();
        if !self.is_within(&entries, ELEMENTS_MAX, |(key, _)| key.span.clone(), "entries of `files`") {
            return Field::Invalid;
        }
        let entries =
            entries.into_iter().map(|(key, value)| FileEntry { source: self.source(&key, value), key }).collect();
        Field::Given(Written { value: entries, span: value.span() })
    }

    fn source(&mut self, key: &Written<String>, value: &Spanned<DeValue<'_>>) -> Option<SourceTable> {
        const HELP: &str =
            "write `{ guest = \"NAME\" }` for what a guest compiles to, or `{ path = \"PATH\" }` for a file or folder";
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(value, &quoted(&key.value), "a source", HELP);
            return None;
        };
        if let Some((part, _)) = table.iter().next().filter(|_| value.span() == key.span) {
            let label = self.sink.label(&key.span, "the path goes on after a dot");
            let path = quoted(&format!("{}.{}", key.value, part.get_ref()));
            let message = format!("{path} must be in quotes");
            self.report(
                Code::InvalidSource,
                message,
                label,
                "TOML takes a dot outside of quotes as a table in a table",
            );
            return None;
        }
        let section = Section { table, title: "a source".to_owned(), span: value.span() };
        if !self.unknown_keys(&section, SOURCE_KEYS) {
            return None;
        }
        match (self.string(&section, "guest"), self.string(&section, "path")) {
            (Field::Given(guest), Field::Absent) => Some(SourceTable::Guest(guest)),
            (Field::Absent, Field::Given(path)) => Some(SourceTable::Path(path)),
            (Field::Invalid, _) | (_, Field::Invalid) => None,
            (Field::Absent, Field::Absent) => {
                let label = self.sink.label(&value.span(), "has neither `guest` nor `path`");
                let message = format!("{} has no source", quoted(&key.value));
                self.report(Code::InvalidSource, message, label, HELP);
                None
            }
            (Field::Given(guest), Field::Given(path)) => {
                let message = format!("{} has two sources", quoted(&key.value));
                let label = self.sink.label(&path.span, "`path` is one");
                let other = self.sink.label(&guest.span, "`guest` is another");
                let diagnostic = Diagnostic::error(Code::InvalidSource, message, label, "keep one of the two");
                self.sink.push(diagnostic.with_secondary([other]));
                None
            }
        }
    }

    /// Takes a value as a table.
    fn section<'a, 't>(&mut self, value: &'a Spanned<DeValue<'t>>, title: String) -> Option<Section<'a, 't>> {
        if let DeValue::Table(table) = value.get_ref() {
            return Some(Section { table, title, span: value.span() });
        }
        let is_array = matches!(value.get_ref(), DeValue::Array(_));
        let help = if is_array && title.starts_with("`[") {
            format!("write the heading with single brackets: {title}")
        } else if title.starts_with("`[") {
            format!("write it as a section with the heading {title}")
        } else {
            "write it as a table: `{ KEY = VALUE }`, or under a heading of its own".to_owned()
        };
        self.wrong_type(value, &title, "a table", help);
        None
    }

    fn string(&mut self, section: &Section<'_, '_>, key: &str) -> Field<String> {
        let Some(value) = section.get(key) else { return Field::Absent };
        match value.get_ref() {
            DeValue::String(text) => Field::Given(written(value.span(), text)),
            _ => {
                self.wrong_type(value, &format!("`{key}`"), "a string", format!("write `{key} = \"…\"`"));
                Field::Invalid
            }
        }
    }

    fn boolean(&mut self, section: &Section<'_, '_>, key: &str) -> Field<bool> {
        let Some(value) = section.get(key) else { return Field::Absent };
        match value.get_ref() {
            DeValue::Boolean(given) => Field::Given(Written { value: *given, span: value.span() }),
            _ => {
                self.wrong_type(value, &format!("`{key}`"), "a boolean", format!("write `{key} = false`"));
                Field::Invalid
            }
        }
    }

    fn strings(&mut self, section: &Section<'_, '_>, key: &str) -> Field<Vec<Written<String>>> {
        let Some(value) = section.get(key) else { return Field::Absent };
        let DeValue::Array(array) = value.get_ref() else {
            let help = format!("write `{key} = [\"…\"]`");
            self.wrong_type(value, &format!("`{key}`"), "an array of strings", help);
            return Field::Invalid;
        };
        if !self.is_within(array, ELEMENTS_MAX, Spanned::span, &format!("elements of `{key}`")) {
            return Field::Invalid;
        }
        let mut strings = Vec::new();
        for element in array {
            if let DeValue::String(text) = element.get_ref() {
                strings.push(written(element.span(), text));
            } else {
                let subject = format!("each element of `{key}`");
                self.wrong_type(element, &subject, "a string", "write it in quotes");
            }
        }
        if strings.len() < array.len() {
            return Field::Invalid;
        }
        Field::Given(Written { value: strings, span: value.span() })
    }

    /// Whether there are no more elements than `max`; reports when there are.
    fn is_within<T>(&mut self, elements: &[T], max: usize, span: impl Fn(&T) -> Range<usize>, what: &str) -> bool {
        let Some(first) = elements.get(max) else { return true };
        let label = self.sink.label(&span(first), "one too many");
        let message = format!("there are {} {what}, and at most {max} are allowed", elements.len());
        self.report(Code::TooMany, message, label, "split the project into several");
        false
    }

    /// Reports a key that the section must have and does not.
    fn require(&mut self, section: &Section<'_, '_>, key: &str, help: impl Into<String>) {
        if section.get(key).is_none() {
            let label = self.sink.label(&section.span, format!("`{key}` is missing here"));
            self.report(Code::MissingKey, format!("{} has no `{key}`", section.title), label, help);
        }
    }

    /// Reports keys that are not valid, and tells whether all are.
    fn unknown_keys(&mut self, section: &Section<'_, '_>, valid: &[&str]) -> bool {
        let mut are_valid = true;
        for (key, _) in section.entries() {
            if valid.contains(&key.value.as_str()) {
                continue;
            }
            are_valid = false;
            if self.sink.is_full() {
                break;
            }
            let label = self.sink.label(&key.span, "this key means nothing here");
            let message = format!("unknown key {} in {}", quoted(&key.value), section.title);
            let help = match nearest(&key.value, valid.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("what can stand here: {}", listed(valid)),
            };
            self.report(Code::UnknownKey, message, label, help);
        }
        are_valid
    }

    fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, subject: &str, expected: &str, help: impl Into<String>) {
        let found = type_name(value.get_ref());
        let label = self.sink.label(&value.span(), format!("expected {expected}, found {found}"));
        self.report(Code::WrongType, format!("{subject} must be {expected}, not {found}"), label, help);
    }

    fn report(&mut self, code: Code, message: impl Into<String>, label: Label, help: impl Into<String>) {
        self.sink.push(Diagnostic::error(code, message, label, help));
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

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
