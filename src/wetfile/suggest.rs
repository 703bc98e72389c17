//! Finding the word that a misspelt one was meant to be.

use super::name::NAME_BYTES_MAX;

/// The candidate that is nearest to a word, if one is near enough to be what was meant.
///
/// The bound on the word's length keeps the cost of long hostile words at nothing: no key or name is longer.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > NAME_BYTES_MAX {
        return None;
    }
    let lower = word.to_lowercase();
    let far = (word.chars().count() / 3).max(1);
    let near = candidates.into_iter().filter(|candidate| candidate.len() <= NAME_BYTES_MAX);
    let measured = near.map(|candidate| (strsim::damerau_levenshtein(&lower, candidate), candidate));
    measured.filter(|(distance, _)| *distance <= far).min().map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, expected: Option<&str>) {
        assert_eq!(nearest(word, ["path", "lang", "build", "inputs", "embeds", "env"]), expected);
    }

    #[test]
    fn misspelt_words_find_what_was_meant() {
        check("embed", Some("embeds"));
        check("paht", Some("path"));
        check("Path", Some("path"));
        check("input", Some("inputs"));
        check("bulid", Some("build"));
    }

    #[test]
    fn other_words_find_nothing() {
        check("", None);
        check("sources", None);
        check(&"path".repeat(100_000), None);
    }
}
