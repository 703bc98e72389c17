//! `[image.NAME]` as written.

use toml::Spanned;
use toml::de::DeValue;

use super::reader::{Reader, Section};
use super::{
    BaseTable, ELEMENTS_MAX, Field, FileEntry, ImageTable, SourceTable, Written, integer_value, keys, written,
};
use crate::wetfile::diagnostic::{Code, Diagnostic, quoted};

impl Reader<'_, '_> {
    pub(super) fn image(&mut self, name: Written<String>, section: &Section<'_, '_>) -> ImageTable {
        self.unknown_keys(section, keys::IMAGE);
        self.require(section, "out", "add `out = \"images/out\"`, the folder that the image is written to");
        self.require(section, "files", "add `files.\"bin/main.wasm\" = { guest = \"NAME\" }`");
        ImageTable {
            name,
            out: self.string(section, "out"),
            base: self.base(section),
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
        let Some(value) = section.get("files") else { return section.absent("files") };
        let Some(files) = self.section(value, format!("`files` of {}", section.title)) else {
            return Field::Invalid;
        };
        let entries = files.entries();
        if !self.is_within(&entries, ELEMENTS_MAX, |(key, _)| key.span.clone(), "entries of `files`") {
            return Field::Invalid;
        }
        let entries = entries.into_iter().map(|(key, value)| self.file(key, value)).collect();
        Field::Given(Written { value: entries, span: value.span() })
    }

    fn base(&mut self, section: &Section<'_, '_>) -> Field<BaseTable> {
        const HELP: &str = "write `base = { image = \"NAME\" }` or `base = { cid = \"bafy…\" }`";
        let Some(value) = section.get("base") else { return section.absent("base") };
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(value, "`base`", "a table", HELP);
            return Field::Invalid;
        };
        let section = Section { table, title: "`base`".to_owned(), span: value.span() };
        if !self.unknown_keys(&section, keys::BASE) {
            return Field::Invalid;
        }
        let base = match (self.string(&section, "image"), self.string(&section, "cid")) {
            (Field::Given(image), Field::Absent) => BaseTable::Image(image),
            (Field::Absent, Field::Given(cid)) => BaseTable::Cid(cid),
            (Field::Invalid, _) | (_, Field::Invalid) => return Field::Invalid,
            (Field::Absent, Field::Absent) => {
                let label = self.sink.label(&value.span(), "has neither `image` nor `cid`");
                self.report(Code::InvalidSource, "`base` names no tree", label, HELP);
                return Field::Invalid;
            }
            (Field::Given(image), Field::Given(cid)) => {
                self.two_sources("`base`", ("image", &image), ("cid", &cid));
                return Field::Invalid;
            }
        };
        Field::Given(Written { value: base, span: value.span() })
    }

    fn file(&mut self, key: Written<String>, value: &Spanned<DeValue<'_>>) -> FileEntry {
        const HELP: &str = "write `{ guest = \"NAME\" }` for what a guest compiles to, `{ path = \"PATH\" }` for a file or \
                            folder, `{ text = \"…\" }` for what it says, or `{ cid = \"bafy…\" }`";
        let none = |key: Written<String>| FileEntry { key, source: None, replace: None };
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(value, &quoted(&key.value), "a source", HELP);
            return none(key);
        };
        if let Some((part, _)) = table.iter().next().filter(|_| value.span() == key.span) {
            let label = self.sink.label(&key.span, "the path goes on after a dot");
            let path = quoted(&format!("{}.{}", key.value, part.get_ref()));
            let message = format!("{path} must be in quotes");
            let help = "TOML takes a dot outside of quotes as a table in a table";
            self.report(Code::InvalidSource, message, label, help);
            return none(key);
        }
        let section = Section { table, title: "a source".to_owned(), span: value.span() };
        if !self.unknown_keys(&section, keys::SOURCE) {
            return none(key);
        }
        let replace = self.flag(&section, "replace");
        let glob = self.string(&section, "glob");
        let mut kinds = keys::SOURCE_KINDS.iter().map(|kind| (*kind, self.string(&section, kind))).collect::<Vec<_>>();
        kinds.retain(|(_, field)| !field.is_absent());
        let is_valid = |(_, field): &(&str, Field<String>)| field.given().is_some();
        if !kinds.iter().all(is_valid) || matches!(glob, Field::Invalid) || matches!(replace, Field::Invalid) {
            return none(key);
        }
        let mut kinds = kinds.into_iter().filter_map(|(kind, field)| Some((kind, field.given()?.clone())));
        let source = match (kinds.next(), kinds.next()) {
            (None, _) => {
                let problem = "has none of `guest`, `path`, `text` and `cid`";
                let label = self.sink.label(&value.span(), problem);
                let message = format!("{} has no source", quoted(&key.value));
                self.report(Code::InvalidSource, message, label, HELP);
                None
            }
            (Some((kind, first)), Some((other, second))) => {
                self.two_sources(&quoted(&key.value), (kind, &first), (other, &second));
                None
            }
            (Some((kind, _)), None) if kind != "path" && glob.given().is_some() => {
                let span = glob.given().map_or(0..0, |glob| glob.span.clone());
                let label = self.sink.label(&span, format!("does not go with `{kind}`"));
                let message = format!("{} has a `glob` and no `path`", quoted(&key.value));
                let help = "write `{ path = \"FOLDER\", glob = \"**/*.txt\" }` for the files below a folder that fit";
                self.report(Code::ConflictingKey, message, label, help);
                None
            }
            (Some(("guest", name)), None) => Some(SourceTable::Guest(name)),
            (Some(("text", text)), None) => Some(SourceTable::Text(text)),
            (Some(("cid", cid)), None) => Some(SourceTable::Cid(cid)),
            (Some((_, path)), None) => Some(SourceTable::Path { path, glob: glob.given().cloned() }),
        };
        let replace = replace.given().filter(|replace| replace.value).map(|replace| replace.span.clone());
        FileEntry { key, source, replace }
    }

    fn two_sources(&mut self, what: &str, first: (&str, &Written<String>), second: (&str, &Written<String>)) {
        let label = self.sink.label(&second.1.span, format!("`{}` is one", second.0));
        let other = self.sink.label(&first.1.span, format!("`{}` is another", first.0));
        let message = format!("{what} has two sources");
        let diagnostic = Diagnostic::error(Code::InvalidSource, message, label, "keep one of the two");
        self.sink.push(diagnostic.with_secondary([other]));
    }
}
