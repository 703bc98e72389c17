//! How deep a TOML text nests, told before it is parsed.
//!
//! The parser bounds brackets, and the dots of keys, but not their product, and a table that deep overflows the stack when
//! it is dropped.

use std::ops::Range;

use toml_parser::Source;
use toml_parser::lexer::TokenKind;

/// The first place that is nested deeper than so many brackets and dots of keys.
pub(crate) fn deeper_than(nesting_max: usize, text: &str) -> Option<Range<usize>> {
    let mut open = Vec::new();
    let (mut depth, mut dots) = (0, 0);
    for token in Source::new(text).lex() {
        match token.kind() {
            TokenKind::Dot => dots += 1,
            TokenKind::Comma | TokenKind::Newline => dots = 0,
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                depth += dots + 1;
                open.push(dots + 1);
                dots = 0;
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => depth -= open.pop().unwrap_or(0),
            _ => {}
        }
        if depth + dots > nesting_max {
            return Some(token.span().start()..token.span().end());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_and_dots_are_counted_together() {
        let check = |text: &str, expected: Option<usize>| {
            assert_eq!(deeper_than(3, text).map(|place| place.start), expected, "{text}");
        };
        check("a = [[[1]]]\nb = [[[2]]]", None);
        check("a = [[[[1]]]]", Some(7));
        check("a.b.c.d = 1\n[a.b]", None);
        check("a.b = { c.d.e = 1 }", Some(11));
        check("a = \"[[[[\" # [[[[", None);
    }
}
