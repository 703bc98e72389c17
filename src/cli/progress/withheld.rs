//! Lines of compilers that are kept for the case that it fails.

use std::collections::VecDeque;

/// How many bytes of a compiler's lines are kept: some ten thousand lines, or a long one.
const BYTES_MAX: usize = 1 << 20;

/// What a line costs beside its text, so that empty ones are bounded as well.
const LINE_BYTES: usize = size_of::<String>();

/// The last lines that came, not escaped, which makes lines longer.
#[derive(Default)]
pub(super) struct Withheld {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Withheld {
    /// Keeps a line, and drops the oldest ones as far as there is no room for them.
    pub(super) fn push(&mut self, line: String) {
        self.bytes += line.len() + LINE_BYTES;
        self.lines.push_back(line);
        while self.bytes > BYTES_MAX && self.lines.len() > 1 {
            self.bytes -= self.lines.pop_front().map_or(0, |oldest| oldest.len() + LINE_BYTES);
        }
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_within_the_bound() {
        let mut withheld = Withheld::default();
        let long = "x".repeat(BYTES_MAX / 3);
        for number in 0..10 {
            withheld.push(format!("{number}{long}"));
        }
        assert!(withheld.bytes <= BYTES_MAX);
        let firsts: Vec<_> = withheld.lines.iter().map(|line| &line[..1]).collect();
        assert_eq!(firsts, ["8", "9"]);
        for _ in 0..BYTES_MAX {
            withheld.push(String::new());
        }
        assert!(withheld.lines.len() <= BYTES_MAX / LINE_BYTES);
    }
}
