//! Escaping of foreign text before it is shown.

use std::borrow::Cow;

/// Replaces control characters, and characters that reorder text, by escapes such as `\n` and `\u{1b}`.
pub(crate) fn text(foreign: &str) -> Cow<'_, str> {
    replace(foreign, is_hidden)
}

/// Like [`text`], but keeps line feeds and tabs.
pub(crate) fn lines(foreign: &str) -> Cow<'_, str> {
    replace(foreign, |character| is_hidden(character) && !matches!(character, '\n' | '\t'))
}

fn replace(foreign: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !foreign.chars().any(&hidden) {
        return Cow::Borrowed(foreign);
    }
    let mut shown = String::with_capacity(foreign.len() + 16);
    for character in foreign.chars() {
        if hidden(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Whether a character would not show as itself: the control characters of C0 and C1, and Unicode's bidirectional
/// controls, with which text can be made to read differently from what it is.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_what_would_not_show() {
        assert_eq!(text("a \u{1b}[31m\tb\nc \u{202e}d"), "a \\u{1b}[31m\\tb\\nc \\u{202e}d");
        assert_eq!(lines("a\u{1b}\tb\nc"), "a\\u{1b}\tb\nc");
    }

    #[test]
    fn keeps_ordinary_text() {
        assert!(matches!(text("/etc/motd – ü 漢 🦀 \"'\\"), Cow::Borrowed(_)));
    }
}
