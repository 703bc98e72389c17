//! What is wrong with the text before it has a meaning: not UTF-8, not TOML.

use std::ops::Range;

use toml::de::DeTable;

use super::diagnostic::{Code, Diagnostic, Sink, quoted};
use crate::{escape, toml_nesting};

/// Deepest nesting of a value, counting brackets and the dots of keys. A Wetfile needs about five.
const NESTING_MAX: usize = 64;

/// How the parser calls it when a key is there twice.
const DUPLICATE_KEY: &str = "duplicate key";

/// Parses a text, reports every line that is not TOML, and gives what could be understood.
pub(super) fn read<'t>(text: &'t str, sink: &mut Sink<'t>) -> DeTable<'t> {
    if let Some(place) = too_deep(text) {
        let label = sink.label(&place, "too deep from here on");
        let help = format!("a Wetfile may be nested {NESTING_MAX} deep");
        sink.push(Diagnostic::error(Code::Syntax, "tables and arrays are nested too deep", label, help));
        return DeTable::new();
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut errors: Vec<_> = errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
    errors.sort_by_key(|(span, _)| span.start);
    let mut last_line = None;
    for (span, message) in errors {
        if sink.is_full() {
            break;
        }
        // What follows an error on its line is mostly an echo of it.
        let line = sink.line(span.start);
        if last_line.replace(line) != Some(line) {
            let label = sink.label(&span, "here");
            let message = match text.get(span).filter(|_| message == DUPLICATE_KEY) {
                Some(key) => format!("{message} {}", quoted(key)),
                None => escape::text(message).into_owned(),
            };
            let help = help(&message);
            sink.push(Diagnostic::error(Code::Syntax, message, label, help));
        }
    }
    table.into_inner()
}

/// The first place that is nested deeper than [`NESTING_MAX`].
pub(super) fn too_deep(text: &str) -> Option<Range<usize>> {
    toml_nesting::deeper_than(NESTING_MAX, text)
}

/// Drops what may be wrong only because lines could not be understood.
///
/// What is said of something above the first line that is not TOML stands, if it is about that thing alone. That
/// something is missing may be due to a line that was skipped.
pub(super) fn keep_what_is_certain(sink: &mut Sink<'_>) {
    let Some(first_line) = sink.first_line(Code::Syntax) else { return };
    sink.retain(|diagnostic| {
        let span = diagnostic.primary.span;
        let is_above = span.start < span.end && span.from.line < first_line;
        match diagnostic.code {
            Code::Syntax => true,
            Code::FormatVersion | Code::UnknownKey | Code::WrongType | Code::InvalidName => is_above,
            _ => false,
        }
    });
}

/// Reports bytes that are not UTF-8. `text` has a replacement character for them; `offset` is where they begin.
pub(super) fn not_utf8(text: &str, offset: usize) -> Vec<Diagnostic> {
    let mut sink = Sink::new(text);
    let label = sink.label(&(offset..offset + 1), "not UTF-8");
    let message = format!("the file is not UTF-8: the byte at offset {offset} is wrong");
    sink.push(Diagnostic::error(Code::NotUtf8, message, label, "save the file as UTF-8"));
    sink.finish()
}

fn help(message: &str) -> &'static str {
    if message.starts_with(DUPLICATE_KEY) {
        "remove or rename one of the two"
    } else if message.contains("unquoted key") {
        "put a key in quotes when it has other characters than letters, digits, `-` and `_`"
    } else if message.starts_with("invalid comment character") {
        "remove the control character"
    } else if message.starts_with("string values must be quoted") {
        "put the value in double quotes"
    } else {
        "a quote or bracket that is not closed further up can be the cause"
    }
}
