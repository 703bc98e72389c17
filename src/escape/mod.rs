//! Escaping of foreign text before it is shown.
//!
//! File names, strings from peers and guests, and values from a Wetfile reach a terminal only through here, so that
//! none of them can move the cursor, change colours or forge a line of output. What a guest writes to its standard streams
//! goes through a [`Filter`].

use std::borrow::Cow;
use std::path::Path;

mod stream;

pub use stream::Filter;

/// Replaces control characters, and characters that reorder text, by escapes such as `\n` and `\u{1b}`.
///
/// Everything else is kept as it is, so ordinary text comes back unchanged and without a copy.
pub fn text(foreign: &str) -> Cow<'_, str> {
    if !foreign.chars().any(is_hidden) {
        return Cow::Borrowed(foreign);
    }
    let mut shown = String::with_capacity(foreign.len() + 16);
    for character in foreign.chars() {
        if is_hidden(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// How many bytes of a text [`short`] shows.
const SHORT_BYTES: usize = 256;

/// Like [`text`], but only the beginning of a long one: for a text that is quoted to say what is wrong with it.
pub fn short(foreign: &str) -> String {
    let end = foreign.floor_char_boundary(SHORT_BYTES);
    let more = if end < foreign.len() { "…" } else { "" };
    format!("{}{more}", text(&foreign[..end]))
}

/// Like [`text`], but keeps line feeds and tabs: for text of several lines, such as a backtrace.
pub fn lines(foreign: &str) -> String {
    let mut shown = String::with_capacity(foreign.len());
    for character in foreign.chars() {
        if is_hidden(character) && character != '\n' && character != '\t' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// JSON with everything that [`text`] replaces as JSON's own escapes, `\u009b` say: the same value.
///
/// Such characters are only inside of strings, where serializers leave all but the C0 controls as they are.
pub fn json(document: &str) -> String {
    let mut shown = String::with_capacity(document.len());
    for character in document.chars() {
        if is_hidden(character) && character != '\n' {
            shown.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A path as it is shown: [`text`] with every byte that is not UTF-8 as `\xNN`.
pub fn path(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;

    let mut shown = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        shown.push_str(&text(chunk.valid()));
        for byte in chunk.invalid() {
            write!(shown, "\\x{byte:02x}").expect("writing to a String does not fail");
        }
    }
    shown
}

/// Whether a character would not show as itself: C0 and C1 controls, and Unicode's bidirectional controls, with which
/// text can be made to read differently from what it is (CVE-2021-42574).
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn ordinary_text_is_kept() {
        for ordinary in ["", "pid0", "größer", "名前", "a b\\c"] {
            assert!(matches!(text(ordinary), Cow::Borrowed(shown) if shown == ordinary));
        }
    }

    #[test]
    fn what_would_not_show_is_escaped() {
        assert_eq!(text("a\x1b[31m\r\n"), "a\\u{1b}[31m\\r\\n");
        assert_eq!(text("\u{9b}2J\u{202e}gpj"), "\\u{9b}2J\\u{202e}gpj");
    }

    #[test]
    fn what_is_quoted_is_escaped_and_short() {
        assert_eq!(short("a\x1b[31m"), "a\\u{1b}[31m");
        assert_eq!(short(&"ä".repeat(10_000)), format!("{}…", "ä".repeat(128)));
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({ "a\u{9b}": "\u{202e}\u{7f}\n\"ü" });
        let shown = json(&value.to_string());
        assert_eq!(shown, r#"{"a\u009b":"\u202e\u007f\n\"ü"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn lines_keep_line_feeds_and_tabs() {
        assert_eq!(lines("a\n\tb\x07\r\n"), "a\n\tb\\u{7}\\r\n");
    }

    #[test]
    fn path_bytes_that_are_not_utf8_are_shown() {
        assert_eq!(path(Path::new(OsStr::from_bytes(b"x/\xff\xfe\n"))), "x/\\xff\\xfe\\n");
    }
}
