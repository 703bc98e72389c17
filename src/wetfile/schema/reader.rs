//! What tables of all kinds are read with.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::Key;
use super::{ELEMENTS_MAX, Field, Written, written};
use crate::wetfile::diagnostic::{Code, Diagnostic, Label, Sink, listed, quoted};
use crate::wetfile::suggest::nearest;

/// How many keys of a table are compared with one that is not there: more than any table has by mistake.
const KEYS_COMPARED_MAX: usize = 64;

/// A table with what messages say about it.
pub(super) struct Section<'a, 't> {
    pub(super) table: &'a DeTable<'t>,
    /// How messages name it, with its backticks.
    pub(super) title: String,
    /// Where to point when something is missing in it.
    pub(super) span: Range<usize>,
}

impl<'a, 't> Section<'a, 't> {
    pub(super) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    /// What a key is that is not there: one that was probably meant by another, which was reported, says something unknown.
    pub(super) fn absent<T>(&self, key: &str) -> Field<T> {
        if self.is_misspelt(key) { Field::Invalid } else { Field::Absent }
    }

    /// Whether a key that is not there was probably meant by one that is.
    fn is_misspelt(&self, key: &str) -> bool {
        self.table.keys().take(KEYS_COMPARED_MAX).any(|word| nearest(word.get_ref(), [key]).is_some())
    }

    /// Keys and values in the order of the file.
    pub(super) fn entries(&self) -> Vec<(Written<String>, &'a Spanned<DeValue<'t>>)> {
        let mut entries: Vec<_> =
            self.table.iter().map(|(key, value)| (written(key.span(), key.get_ref().as_ref()), value)).collect();
        entries.sort_by_key(|(key, _)| key.span.start);
        entries
    }
}

/// Takes values out of tables, and reports those of a wrong type.
pub(super) struct Reader<'s, 't> {
    pub(super) sink: &'s mut Sink<'t>,
}

impl Reader<'_, '_> {
    /// Takes a value as a table.
    pub(super) fn section<'a, 't>(
        &mut self,
        value: &'a Spanned<DeValue<'t>>,
        title: String,
    ) -> Option<Section<'a, 't>> {
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

    pub(super) fn string(&mut self, section: &Section<'_, '_>, key: &str) -> Field<String> {
        let Some(value) = section.get(key) else { return section.absent(key) };
        match value.get_ref() {
            DeValue::String(text) => Field::Given(written(value.span(), text)),
            _ => {
                self.wrong_type(value, &format!("`{key}`"), "a string", format!("write `{key} = \"…\"`"));
                Field::Invalid
            }
        }
    }

    pub(super) fn flag(&mut self, section: &Section<'_, '_>, key: &str) -> Field<bool> {
        let Some(value) = section.get(key) else { return section.absent(key) };
        match value.get_ref() {
            DeValue::Boolean(flag) => Field::Given(Written { value: *flag, span: value.span() }),
            _ => {
                let help = format!("write `{key} = true` or `{key} = false`");
                self.wrong_type(value, &format!("`{key}`"), "a boolean", help);
                Field::Invalid
            }
        }
    }

    pub(super) fn strings(&mut self, section: &Section<'_, '_>, key: &str) -> Field<Vec<Written<String>>> {
        let Some(value) = section.get(key) else { return section.absent(key) };
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
    pub(super) fn is_within<T>(
        &mut self,
        elements: &[T],
        max: usize,
        span: impl Fn(&T) -> Range<usize>,
        what: &str,
    ) -> bool {
        let Some(first) = elements.get(max) else { return true };
        let label = self.sink.label(&span(first), "one too many");
        let message = format!("there are {} {what}, and at most {max} are allowed", elements.len());
        self.report(Code::TooMany, message, label, "split the project into several");
        false
    }

    /// Reports a key that the section must have and does not.
    pub(super) fn require(&mut self, section: &Section<'_, '_>, key: &str, help: impl Into<String>) {
        if section.get(key).is_none() && !section.is_misspelt(key) {
            let label = self.sink.label(&section.span, format!("`{key}` is missing here"));
            self.report(Code::MissingKey, format!("{} has no `{key}`", section.title), label, help);
        }
    }

    /// Reports keys that are not valid, and tells whether all are.
    pub(super) fn unknown_keys(&mut self, section: &Section<'_, '_>, valid: &[Key]) -> bool {
        let mut are_valid = true;
        for (key, _) in section.entries() {
            if valid.iter().any(|valid| valid.name == key.value) {
                continue;
            }
            are_valid = false;
            if self.sink.is_full() {
                break;
            }
            let label = self.sink.label(&key.span, "this key means nothing here");
            let message = format!("unknown key {} in {}", quoted(&key.value), section.title);
            let names: Vec<&str> = valid.iter().map(|valid| valid.name).collect();
            let help = match nearest(&key.value, names.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("what can stand here: {}", listed(&names)),
            };
            self.report(Code::UnknownKey, message, label, help);
        }
        are_valid
    }

    pub(super) fn wrong_type(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        subject: &str,
        expected: &str,
        help: impl Into<String>,
    ) {
        let found = type_name(value.get_ref());
        let label = self.sink.label(&value.span(), format!("expected {expected}, found {found}"));
        self.report(Code::WrongType, format!("{subject} must be {expected}, not {found}"), label, help);
    }

    pub(super) fn report(&mut self, code: Code, message: impl Into<String>, label: Label, help: impl Into<String>) {
        self.sink.push(Diagnostic::error(code, message, label, help));
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
