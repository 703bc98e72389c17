//! Escaping of foreign bytes on their way to a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// The most bytes of a character that is not there as a whole.
const HELD_BYTES_MAX: usize = 3;

/// Makes foreign output harmless to a terminal that shows UTF-8, however it is cut into pieces.
///
/// Text comes through as it is, and what a terminal would obey comes out as text: the control characters C0, C1 and DEL
/// as `\u{1b}`, and bytes that are not UTF-8, among which may be C1 controls of 8 bits, as `\x9b`. So a sequence is shown
/// with its first character as such an escape, and needs no parsing. What comes out is UTF-8 and at most six times as long.
///
/// Kept are:
/// - line feed and tab;
/// - carriage return, for lines that show progress and for those that end in CR LF: it leads back to the start of the
///   present line, where there is nothing but what was written since the last line feed.
///
/// Backspace is not: some terminals go from the start of a line to the end of the one above. Nor is bell. Characters that
/// reorder text are kept, unlike in [`text`](super::text), since they belong to text in many languages, and it is the
/// writer's own text that they reorder.
#[derive(Debug, Default)]
pub struct Filter {
    /// The beginning of a character whose end has not come yet; at most [`HELD_BYTES_MAX`] bytes.
    held: Vec<u8>,
}

impl Filter {
    /// The harmless form of what was held back and of `bytes`, but for the beginning of a character at their end.
    pub fn push<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.held.is_empty() {
            let (whole, rest) = bytes.split_at(bytes.len() - unfinished(bytes));
            self.held.extend_from_slice(rest);
            return harmless(whole);
        }
        let mut joined = std::mem::take(&mut self.held);
        joined.extend_from_slice(bytes);
        let rest = joined.split_off(joined.len() - unfinished(&joined));
        self.held = rest;
        Cow::Owned(harmless(&joined).into_owned())
    }

    /// The harmless form of what is held back at the end.
    pub fn finish(&mut self) -> Vec<u8> {
        harmless(&std::mem::take(&mut self.held)).into_owned()
    }
}

/// How many bytes at the end begin a character that they do not finish.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(HELD_BYTES_MAX)..];
    // The last byte that is no continuation: if a character is unfinished, it begins there.
    let Some(start) = tail.iter().rposition(|byte| byte & 0b1100_0000 != 0b1000_0000) else { return 0 };
    match std::str::from_utf8(&tail[start..]) {
        Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => tail.len() - start,
        _ => 0,
    }
}

fn harmless(bytes: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(is_obeyed)) {
        return Cow::Borrowed(bytes);
    }
    let mut shown = String::with_capacity(bytes.len() + 64);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match is_obeyed(character) {
                true => shown.extend(character.escape_unicode()),
                false => shown.push(character),
            }
        }
        for byte in chunk.invalid() {
            write!(shown, "\\x{byte:02x}").expect("writing to a String does not fail");
        }
    }
    Cow::Owned(shown.into_bytes())
}

/// Whether a terminal would do something else with a character than to show it, or to go on.
fn is_obeyed(character: char) -> bool {
    character.is_control() && !matches!(character, '\n' | '\t' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filtered(pieces: &[&[u8]]) -> Vec<u8> {
        let mut filter = Filter::default();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&filter.push(piece));
            assert!(filter.held.len() <= HELD_BYTES_MAX);
        }
        out.extend(filter.finish());
        out
    }

    fn check(bytes: &[u8], expected: &str) {
        assert_eq!(String::from_utf8(filtered(&[bytes])).unwrap(), expected);
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(String::from_utf8(filtered(&pieces)).unwrap(), expected);
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        check(b"\x1b[31mred\x1b[0m", "\\u{1b}[31mred\\u{1b}[0m");
        check(b"\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}");
        check(b"\x1bP+q\x1b\\", "\\u{1b}P+q\\u{1b}\\");
        check("\u{9b}2J\u{9d}0;x\u{9c}".as_bytes(), "\\u{9b}2J\\u{9d}0;x\\u{9c}");
        check(b"\x9b2J", "\\x9b2J");
        check(
            b"\0\x05\x07\x08\x0b\x0c\x0e\x0f\x18\x7f",
            "\\u{0}\\u{5}\\u{7}\\u{8}\\u{b}\\u{c}\\u{e}\\u{f}\\u{18}\\u{7f}",
        );
        // In the middle of a character, and as one that is encoded too long.
        check(b"\xe2\x1b[A", "\\xe2\\u{1b}[A");
        check(b"\xc0\x9b\xe0\x80\x9b", "\\xc0\\x9b\\xe0\\x80\\x9b");
    }

    #[test]
    fn text_is_kept() {
        for text in ["", "plain", "größer, 名前, 🦀\u{10ffff}", "a\tb\r\nc\r100 %", "\u{202b}שלום\u{202c}"] {
            check(text.as_bytes(), text);
            assert!(matches!(Filter::default().push(text.as_bytes()), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn the_beginning_of_a_character_waits_for_its_end() {
        let mut filter = Filter::default();
        assert_eq!(filter.push(b"a\xf0\x9f").as_ref(), b"a");
        assert_eq!(filter.push(b"\xa6").as_ref(), b"");
        assert_eq!(filter.push(b"\x80b").as_ref(), "🦀b".as_bytes());
        assert_eq!(filter.push(b"\xe5\x90").as_ref(), b"");
        assert_eq!(filter.finish(), b"\\xe5\\x90");
    }

    /// Bytes in which there is much that matters.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<Vec<u8>>(),
            any::<String>().prop_map(String::into_bytes),
            Just(b"\x1b[".to_vec()),
            Just(b"\xc2\x9b".to_vec()),
            Just(b"\x9b".to_vec()),
            Just(b"\xf0\x9f\xa6".to_vec()),
            (0x80u8..0xc0).prop_map(|byte| vec![byte]),
            (0xc0u8..=0xff).prop_map(|byte| vec![byte]),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn nothing_harmful_comes_out_and_splitting_makes_no_difference(
            bytes in hostile(),
            sizes in proptest::collection::vec(0usize..9, 1..40),
        ) {
            let whole = filtered(&[&bytes]);
            let mut rest = bytes.as_slice();
            let mut pieces = Vec::new();
            for size in sizes {
                let (piece, other) = rest.split_at(size.min(rest.len()));
                pieces.push(piece);
                rest = other;
            }
            pieces.push(rest);
            prop_assert_eq!(&filtered(&pieces), &whole);
            let text = std::str::from_utf8(&whole).unwrap();
            prop_assert!(text.chars().all(|character| !character.is_control() || "\n\t\r".contains(character)));
            prop_assert!(whole.len() <= 6 * bytes.len());
        }

        #[test]
        fn plain_text_comes_through(text in "([^\\p{Cc}]|[\n\t\r])*", at in any::<prop::sample::Index>()) {
            let (one, other) = text.as_bytes().split_at(at.index(text.len() + 1));
            prop_assert_eq!(filtered(&[one, other]), text.as_bytes());
        }
    }
}
