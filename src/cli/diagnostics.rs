//! Diagnostics of a Wetfile for people (the look of rustc) and for programs (JSON).
//!
//! Text of the file reaches the output only with its control characters replaced one for one by visible ones, so that
//! columns stay what they are and nothing in the file can command a terminal.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use crate::escape;
use crate::wetfile::{Diagnostic, Label, Span};

/// Longest line of the file that is shown, in bytes. People write shorter ones, and the cost of rendering grows with
/// the length.
const LINE_BYTES_MAX: usize = 2000;

/// Renders diagnostics for a person, one after another, with an empty line between them.
///
/// `file_name` is what the reader calls the file; `source` is the text that the diagnostics point into.
pub fn render(diagnostics: &[Diagnostic], file_name: &str, source: &str, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let file_name = escape::text(file_name);
    let mut rendered = String::new();
    for (at, diagnostic) in diagnostics.iter().enumerate() {
        if at > 0 {
            rendered.push('\n');
        }
        rendered.push_str(&render_one(&renderer, diagnostic, &file_name, source));
        rendered.push('\n');
    }
    rendered
}

/// Diagnostics as a JSON array, in the same order; the form is described in `docs/wetfile.md` and only ever grows.
pub fn to_json(diagnostics: &[Diagnostic], file_name: &str, source: &str) -> Value {
    let objects = diagnostics.iter().map(|diagnostic| {
        let mut labels = vec![json_label(&diagnostic.primary, true)];
        labels.extend(diagnostic.secondary.iter().map(|label| json_label(label, false)));
        let span = diagnostic.primary.span;
        json!({
            "code": diagnostic.code.as_str(),
            "severity": diagnostic.severity.as_str(),
            "message": diagnostic.message,
            "file": file_name,
            "line": span.from.line,
            "column": span.from.column,
            "end_line": span.to.line,
            "end_column": span.to.column,
            "source_line": source_line(source, span),
            "labels": labels,
            "help": diagnostic.help,
        })
    });
    objects.collect()
}

fn json_label(label: &Label, is_primary: bool) -> Value {
    json!({
        "text": label.text,
        "primary": is_primary,
        "line": label.span.from.line,
        "column": label.span.from.column,
        "end_line": label.span.to.line,
        "end_column": label.span.to.column,
    })
}

/// The line that a span begins in, as it is shown; its first [`LINE_BYTES_MAX`] bytes when it is longer.
fn source_line(source: &str, span: Span) -> String {
    let line = &source[lines_around(source, span.start..span.start)];
    let end = line.floor_char_boundary(LINE_BYTES_MAX);
    line[..end].trim_end_matches('\r').chars().map(visible).collect()
}

fn render_one(renderer: &Renderer, diagnostic: &Diagnostic, file_name: &str, source: &str) -> String {
    let title = Level::ERROR.primary_title(diagnostic.message.as_str()).id(diagnostic.code.as_str());
    let help = diagnostic.help.iter().map(|line| Level::HELP.message(line.as_str()));
    let labels: Vec<&Label> = std::iter::once(&diagnostic.primary).chain(&diagnostic.secondary).collect();
    if labels.iter().any(|label| lines_around(source, label.span.start..label.span.end).len() > LINE_BYTES_MAX) {
        let from = diagnostic.primary.span.from;
        let origin = Origin::path(file_name).line(from.line).char_column(from.column);
        return renderer.render(&[title.element(origin).elements(help)]);
    }
    let excerpt = Excerpt::new(source, &labels);
    let annotations = labels.iter().enumerate().map(|(at, label)| {
        let kind = if at == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        kind.span(excerpt.range(label.span)).label(label.text.as_str())
    });
    let snippet = Snippet::source(excerpt.text.as_str()).line_start(excerpt.first_line).path(file_name);
    renderer.render(&[title.element(snippet.annotations(annotations)).elements(help)])
}

/// The lines of the file from the first label to the last, as they are shown.
struct Excerpt {
    text: String,
    first_line: usize,
    /// Pairs of an offset in the file and the offset in `text` of the same place: the beginning, and the end of every
    /// character whose replacement is of another length.
    anchors: Vec<(usize, usize)>,
}

impl Excerpt {
    fn new(source: &str, labels: &[&Label]) -> Self {
        let start = labels.iter().map(|label| label.span.start).min().unwrap_or(0);
        let end = labels.iter().map(|label| label.span.end).max().unwrap_or(0);
        let first_line = labels.iter().map(|label| label.span.from.line).min().unwrap_or(1);
        let lines = lines_around(source, start..end);
        let mut excerpt =
            Self { text: String::with_capacity(lines.len()), first_line, anchors: vec![(lines.start, 0)] };
        for (at, character) in source[lines.clone()].char_indices() {
            let shown = if character == '\n' { '\n' } else { visible(character) };
            excerpt.text.push(shown);
            if shown.len_utf8() != character.len_utf8() {
                excerpt.anchors.push((lines.start + at + character.len_utf8(), excerpt.text.len()));
            }
        }
        excerpt
    }

    /// The place of a span in `text`.
    fn range(&self, span: Span) -> Range<usize> {
        self.offset(span.start)..self.offset(span.end)
    }

    fn offset(&self, offset: usize) -> usize {
        let next = self.anchors.partition_point(|(in_file, _)| *in_file <= offset);
        let (in_file, in_text) = self.anchors[next.saturating_sub(1)];
        in_text + offset.saturating_sub(in_file)
    }
}

/// The bytes of the whole lines that a range touches, without the last line's end.
fn lines_around(source: &str, range: Range<usize>) -> Range<usize> {
    let start = source[..range.start].rfind('\n').map_or(0, |at| at + 1);
    let end = source[range.end..].find('\n').map_or(source.len(), |at| range.end + at);
    start..end
}

/// A character that stands for a character of the file and shows as itself; tabs are left to what renders them.
fn visible(character: char) -> char {
    match character {
        '\t' => character,
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(character)).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\x7f' => '\u{2421}',
        _ if escape::is_hidden(character) => char::REPLACEMENT_CHARACTER,
        _ => character,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wetfile::{Kind, ProjectPath, Tree, parse};
    use proptest::prelude::*;
    use std::io;
    use std::path::Path;

    struct NoFiles;

    impl Tree for NoFiles {
        fn kind(&self, _: &ProjectPath) -> io::Result<Option<Kind>> {
            Ok(None)
        }

        fn files(&self, _: &ProjectPath) -> io::Result<Vec<String>> {
            Ok(Vec::new())
        }
    }

    fn diagnostics(text: &str) -> Vec<Diagnostic> {
        parse(text, Path::new("/project/Wetfile.toml"), &NoFiles).err().unwrap_or_default()
    }

    fn rendered(text: &str) -> String {
        render(&diagnostics(text), "Wetfile.toml", text, false)
    }

    /// Panics when a text could command a terminal.
    fn check_harmless(text: &str) {
        let hidden = text.chars().find(|character| *character != '\n' && escape::is_hidden(*character));
        assert_eq!(hidden, None, "{text:?}");
    }

    #[test]
    fn nothing_in_the_file_can_command_a_terminal() {
        let text = "wetfile = 1\n[project]\nname = 'a\t\u{9b}2J\u{202e}\u{61c}'\nversion='\u{7f}'\n\"\u{1b}[2J\" = 1\r\n# \r \u{1b}]0;x\u{7}\nx = \u{1b}\n";
        check_harmless(&rendered(text));
        check_harmless(&render(&diagnostics(text), "\u{1b}[2J", text, false));
        for line in to_json(&diagnostics(text), "Wetfile.toml", text).as_array().unwrap() {
            check_harmless(&line["source_line"].as_str().unwrap().replace('\t', ""));
        }
    }

    #[test]
    fn columns_are_those_of_the_file_though_characters_are_replaced() {
        let text = "wetfile = 1\nproject = { name = 'ä\u{202e}', 'größe' = 2, version = '1' }\n";
        let shown = rendered(text);
        assert!(shown.contains("Wetfile.toml:2:26\n"), "{shown}");
        assert!(shown.contains("                         ^^^^^^^ "), "{shown}");
    }

    #[test]
    fn a_line_that_is_too_long_is_not_shown() {
        let text = format!("wetfile = 1\n# {}\nproject = {{ x = '{0}' }}\n", "y".repeat(LINE_BYTES_MAX));
        let shown = rendered(&text);
        assert!(shown.contains("--> Wetfile.toml:3:13\n"), "{shown}");
        assert!(shown.len() < LINE_BYTES_MAX, "{shown}");
        let json = to_json(&diagnostics(&text), "Wetfile.toml", &text);
        assert_eq!(json[0]["source_line"].as_str().unwrap().len(), LINE_BYTES_MAX);
    }

    #[test]
    fn colour_is_only_on_request() {
        let text = "x = 1";
        assert!(!rendered(text).contains('\x1b'));
        assert!(render(&diagnostics(text), "Wetfile.toml", text, true).contains('\x1b'));
    }

    #[test]
    fn json_has_everything() {
        let text = "wetfile = 1\n[project]\nname = 'p'\nversion = '1'\n[guest.a]\nbuild = 'x > $WW_OUT'\ninputs = []\nembeds = ['b']\n[guest.b]\nbuild = 'x > $WW_OUT'\ninputs = []\nembeds = [\n 'a']\n";
        let json = to_json(&diagnostics(text), "some/Wetfile.toml", text);
        insta::assert_snapshot!(serde_json::to_string_pretty(&json).unwrap());
    }

    proptest! {
        #[test]
        fn any_text_renders(text in "([a-z=\\[\\]{}\"'.\r\n\t #1\u{0}\u{1b}ä名\u{202e}\u{feff}]|wetfile = 1\n|\\[guest\\.a\\]\n|embeds = \\['a'\\]\n){0,60}") {
            let diagnostics = diagnostics(&text);
            check_harmless(&render(&diagnostics, "Wetfile.toml", &text, false));
            to_json(&diagnostics, "Wetfile.toml", &text);
        }
    }
}
