//! What is wrong with a Wetfile, as plain data: where, what, and what to do.
//!
//! Nothing here prints; `cli` shows diagnostics to people and writes them as JSON. Messages, labels and help are ready
//! to be shown: text from the Wetfile in them went through [`escape::text`].

use std::ops::Range;

use crate::escape;

/// Most diagnostics of one file. Whoever has more mends these first; the bound keeps hostile input cheap.
pub const DIAGNOSTICS_MAX: usize = 100;

/// Longest quotation of foreign text in a message, in characters.
const QUOTE_CHARACTERS_MAX: usize = 80;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The kind of a diagnostic. The text of a code is stable: scripts and editors may rely on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// The stable text, such as `wetfile::unknown_key`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Code::$variant => concat!("wetfile::", $text),)*
                }
            }
        }
    };
}

codes! {
    /// The text is not TOML.
    Syntax = "syntax",
    /// The bytes are not UTF-8.
    NotUtf8 = "not_utf8",
    /// The format version is missing, or one that this `ww` does not read.
    FormatVersion = "format_version",
    /// A key that means nothing.
    UnknownKey = "unknown_key",
    /// A required key is missing.
    MissingKey = "missing_key",
    /// A key that does not go with another one.
    ConflictingKey = "conflicting_key",
    /// A value of another type than the key takes.
    WrongType = "wrong_type",
    /// A value of the right type that is not allowed.
    InvalidValue = "invalid_value",
    /// A name that breaks the rule for names.
    InvalidName = "invalid_name",
    /// More entries than a Wetfile may have.
    TooMany = "too_many",
    /// A guest that does not exist.
    UnknownGuest = "unknown_guest",
    /// An image that does not exist.
    UnknownImage = "unknown_image",
    /// A guest that is named twice among what the same guest embeds and needs.
    DuplicateEmbed = "duplicate_embed",
    /// Guests that embed or need each other in a cycle, images that are based on each other, or one that is on itself.
    Cycle = "cycle",
    /// A guest whose language cannot be told, or is another than stated.
    UnknownLanguage = "unknown_language",
    /// A build command that cannot work.
    InvalidCommand = "invalid_command",
    /// A `{…}` in a build command that means nothing.
    InvalidPlaceholder = "invalid_placeholder",
    /// A path that is empty, has control characters, or is too long.
    InvalidPath = "invalid_path",
    /// A path that is absolute or leads out of the project.
    OutsideProject = "outside_project",
    /// A path at which nothing is.
    MissingPath = "missing_path",
    /// A path that leads through a symlink, or a folder that is one.
    SymlinkInPath = "symlink_in_path",
    /// Something that must be a folder and is not.
    NotAFolder = "not_a_folder",
    /// A source that is neither a file, nor a folder, nor a symlink.
    UnsupportedFile = "unsupported_file",
    /// A path that cannot be looked at, for lack of permission, say.
    Unreadable = "unreadable",
    /// The source of an image entry says not exactly one thing.
    InvalidSource = "invalid_source",
    /// A key of `files` that is no path inside an image.
    InvalidImagePath = "invalid_image_path",
    /// Two entries of an image that cannot both be there.
    CollidingFiles = "colliding_files",
    /// An image without a program.
    NoMain = "no_main",
    /// An `out` at a place where no image may be written.
    InvalidOut = "invalid_out",
    /// An `out` that holds an input or another `out`, or lies in one.
    OutOverlap = "out_overlap",
    /// There are more errors than are listed.
    MoreErrors = "more_errors",
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// There is no project while it stands. So far everything is.
    Error,
}

impl Severity {
    /// The stable text, `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Which kind of thing it is.
    pub code: Code,
    /// What is wrong, in one line: a lower-case fragment without a final period.
    pub message: String,
    /// Where it is wrong.
    pub primary: Label,
    /// Other places that matter, in the order in which they are to be read.
    pub secondary: Vec<Label>,
    /// What to do about it: at least one line.
    pub help: Vec<String>,
}

impl Diagnostic {
    pub(super) fn error(code: Code, message: impl Into<String>, primary: Label, help: impl Into<String>) -> Self {
        let (message, help) = (message.into(), vec![help.into()]);
        Self { severity: Severity::Error, code, message, primary, secondary: Vec::new(), help }
    }

    pub(super) fn with_secondary(mut self, labels: impl IntoIterator<Item = Label>) -> Self {
        self.secondary.extend(labels);
        self
    }

    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}

/// A stretch of the file and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What, in a few words.
    pub text: String,
}

/// A stretch of the file, in bytes and in lines and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte; a character boundary of the text.
    pub start: usize,
    /// The byte after the last one, a character boundary. Equal to `start` where something is missing.
    pub end: usize,
    /// The position of `start`.
    pub from: Position,
    /// The position of `end`.
    pub to: Position,
}

/// A place as editors number it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// From 1. Lines end with a line feed.
    pub line: usize,
    /// In characters from 1.
    pub column: usize,
}

/// Foreign text for a message: in backticks, escaped, and cut short when it is long.
pub(super) fn quoted(foreign: &str) -> String {
    match foreign.char_indices().nth(QUOTE_CHARACTERS_MAX) {
        Some((end, _)) => format!("`{}…`", escape::text(&foreign[..end])),
        None => format!("`{}`", escape::text(foreign)),
    }
}

/// Several texts of our own in backticks, with commas.
pub(super) fn listed(texts: &[&str]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("`{text}`")).collect();
    quoted.join(", ")
}

/// Collects what is wrong with one text.
pub(super) struct Sink<'t> {
    lines: Lines<'t>,
    /// At most one more than [`DIAGNOSTICS_MAX`]; the one more shows that there are more.
    diagnostics: Vec<Diagnostic>,
}

impl<'t> Sink<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { lines: Lines::new(text), diagnostics: Vec::new() }
    }

    /// A label at a range of bytes.
    pub(super) fn label(&self, range: &Range<usize>, text: impl Into<String>) -> Label {
        Label { span: self.lines.span(range), text: text.into() }
    }

    /// The line of an offset, counted from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.line(offset)
    }

    /// Adds a diagnostic, unless the sink is full.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        if !self.is_full() {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Whether nothing more is taken, so that work for another message is in vain.
    pub(super) fn is_full(&self) -> bool {
        self.diagnostics.len() > DIAGNOSTICS_MAX
    }

    /// How many diagnostics there are so far.
    pub(super) fn count(&self) -> usize {
        self.diagnostics.len()
    }

    /// The topmost line that has a diagnostic of this kind.
    pub(super) fn first_line(&self, code: Code) -> Option<usize> {
        let lines = self.diagnostics.iter().filter(|diagnostic| diagnostic.code == code);
        lines.map(|diagnostic| diagnostic.primary.span.from.line).min()
    }

    /// Drops what was added since there were `before`, and is word for word among those.
    pub(super) fn drop_repeated(&mut self, before: usize) {
        let added = self.diagnostics.split_off(before.min(self.diagnostics.len()));
        let is_new = |diagnostic: &Diagnostic| !self.diagnostics.contains(diagnostic);
        let new: Vec<Diagnostic> = added.into_iter().filter(is_new).collect();
        self.diagnostics.extend(new);
    }

    /// Keeps what `keep` says.
    pub(super) fn retain(&mut self, keep: impl FnMut(&Diagnostic) -> bool) {
        self.diagnostics.retain(keep);
    }

    /// Everything in the order of the file; nothing when nothing is wrong.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.primary.span.start);
        if let Some(next) = self.diagnostics.get(DIAGNOSTICS_MAX) {
            let place = Label { span: next.primary.span, text: "the next one is here".to_owned() };
            let message = format!("there are more errors than the {DIAGNOSTICS_MAX} above");
            self.diagnostics[DIAGNOSTICS_MAX] =
                Diagnostic::error(Code::MoreErrors, message, place, "mend the ones above first");
        }
        self.diagnostics
    }
}

/// Finds lines and columns in a text, in time that does not grow with the length of a line.
struct Lines<'t> {
    text: &'t str,
    /// The offset of the first byte of each line.
    starts: Vec<usize>,
    /// The number of characters that begin before each multiple of [`STRIDE`] bytes.
    characters: Vec<usize>,
}

/// Bytes between two stored counts of characters.
const STRIDE: usize = 1024;

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let mut characters = vec![0];
        for stride in text.as_bytes().chunks(STRIDE) {
            characters.push(characters.last().copied().unwrap_or(0) + count_characters(stride));
        }
        Self { text, starts, characters }
    }

    fn span(&self, range: &Range<usize>) -> Span {
        let start = self.text.floor_char_boundary(range.start);
        let end = self.text.ceil_char_boundary(range.end).max(start);
        Span { start, end, from: self.position(start), to: self.position(end) }
    }

    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.line(offset);
        let column = self.characters_before(offset) - self.characters_before(self.starts[line - 1]) + 1;
        Position { line, column }
    }

    fn characters_before(&self, offset: usize) -> usize {
        let stride = offset / STRIDE;
        self.characters[stride] + count_characters(&self.text.as_bytes()[stride * STRIDE..offset])
    }
}

/// How many characters begin in these bytes of UTF-8.
fn count_characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_position(text: &str, offset: usize, line: usize, column: usize) {
        assert_eq!(Lines::new(text).position(offset), Position { line, column });
    }

    #[test]
    fn positions() {
        check_position("", 0, 1, 1);
        check_position("ab\ncd", 1, 1, 2);
        check_position("ab\ncd", 2, 1, 3);
        check_position("ab\ncd", 3, 2, 1);
        check_position("ab\n", 3, 2, 1);
        check_position("ä名b", 5, 1, 3);
        check_position("a\r\nb", 3, 2, 1);
    }

    #[test]
    fn spans_are_moved_to_character_boundaries_inside_the_text() {
        let span = Lines::new("aä").span(&(2..99));
        assert_eq!((span.start, span.end), (1, 3));
    }

    proptest! {
        #[test]
        fn positions_are_those_of_counting(text in "[aä名\n\r]{0,3000}", at in 0..9000_usize) {
            let offset = text.floor_char_boundary(at);
            let before = &text[..offset];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
            prop_assert_eq!(Lines::new(&text).position(offset), Position { line, column });
        }
    }

    #[test]
    fn quotations_are_escaped_and_short() {
        assert_eq!(quoted("a\x1b"), "`a\\u{1b}`");
        assert_eq!(quoted(&"ä".repeat(80)), format!("`{}`", "ä".repeat(80)));
        assert_eq!(quoted(&"ä".repeat(81)), format!("`{}…`", "ä".repeat(80)));
    }

    #[test]
    fn the_number_of_diagnostics_is_bounded() {
        let mut sink = Sink::new("x");
        for at in 0..DIAGNOSTICS_MAX * 2 {
            let label = sink.label(&(0..1), "here");
            sink.push(Diagnostic::error(Code::Syntax, at.to_string(), label, "help"));
        }
        let diagnostics = sink.finish();
        assert_eq!(diagnostics.len(), DIAGNOSTICS_MAX + 1);
        assert_eq!(diagnostics[DIAGNOSTICS_MAX].code, Code::MoreErrors);
    }
}
