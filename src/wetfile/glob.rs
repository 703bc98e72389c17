//! Globs: how they are told from paths, and what they fit.

use std::fmt;
use std::path::Path;

use super::path::{PATH_BYTES_MAX, PathError, ProjectPath};

/// The characters by which a glob is known.
const WILDCARDS: [char; 4] = ['*', '?', '[', '{'];

/// Whether an input of a command guest is a glob and not a path: whether it has one of `*`, `?`, `[` and `{`.
pub fn is_glob(input: &str) -> bool {
    input.contains(WILDCARDS)
}

/// A glob taken apart: the folder before the component with its first wildcard, `.` if there is none, and the rest.
pub fn split_glob(glob: &str) -> (&str, &str) {
    let wildcard = glob.find(WILDCARDS).unwrap_or(glob.len());
    match glob[..wildcard].rfind('/') {
        Some(end) => (&glob[..end], &glob[end + 1..]),
        None => (".", glob),
    }
}

/// Why a text is not a glob. Each message fits after "the glob".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// What it would be as a path is wrong.
    #[error("{0}")]
    Path(PathError),
    /// It has a `..`, and everything that fits lies below the folder.
    #[error("has a `..`")]
    Parent,
    /// Its wildcards mean nothing.
    #[error("means nothing: {0}")]
    Wildcards(String),
}

/// A glob for paths below a folder, in which `*` and `?` fit no `/`, and `**` any number of folders.
///
/// Holding one guarantees that it has a meaning, and no component that leads up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

/// What tells whether paths fit a [`Glob`].
#[derive(Clone, Debug)]
pub struct GlobMatcher(globset::GlobMatcher);

impl Glob {
    /// Takes a text that is a glob; one without wildcards fits one path.
    ///
    /// # Errors
    ///
    /// [`GlobError`].
    pub fn new(text: &str) -> Result<Self, GlobError> {
        // A glob is no path, but what a path must not have, it must not have either.
        if text.len() > PATH_BYTES_MAX {
            return Err(GlobError::Path(PathError::TooLong));
        }
        if text.split('/').any(|component| component == "..") {
            return Err(GlobError::Parent);
        }
        ProjectPath::new(text).map_err(GlobError::Path)?;
        compile(text).map_err(|error| GlobError::Wildcards(error.kind().to_string()))?;
        Ok(Self(text.to_owned()))
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What tells which paths fit.
    pub fn matcher(&self) -> GlobMatcher {
        GlobMatcher(compile(&self.0).expect("it was compiled before").compile_matcher())
    }

    /// How many components a path that fits has at most; `None` if that is not known.
    pub fn components_max(&self) -> Option<usize> {
        // Alternatives may have separators in them.
        let is_bounded = !self.0.contains("**") && !self.0.contains('{');
        is_bounded.then(|| self.0.split('/').count())
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl GlobMatcher {
    /// Whether a path relative to the glob's folder fits.
    pub fn fits(&self, path: impl AsRef<Path>) -> bool {
        self.0.is_match(path)
    }
}

fn compile(text: &str) -> Result<globset::Glob, globset::Error> {
    globset::GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_glob() {
        assert_eq!(split_glob("src/**/*.c"), ("src", "**/*.c"));
        assert_eq!(split_glob("*.c"), (".", "*.c"));
        assert_eq!(split_glob("a/b/c?.h"), ("a/b", "c?.h"));
        assert_eq!(split_glob("a/b[c/d]"), ("a", "b[c/d]"));
        assert_eq!(split_glob("../x/*.h"), ("../x", "*.h"));
    }

    #[test]
    fn what_fits() {
        let fits = |glob: &str, path: &str| Glob::new(glob).unwrap().matcher().fits(path);
        assert!(fits("*.txt", "a.txt") && fits("*.txt", ".hidden.txt") && !fits("*.txt", "a/b.txt"));
        assert!(fits("**/*.txt", "a.txt") && fits("**/*.txt", "a/b/c.txt") && !fits("**/*.txt", "a.txt/b"));
        assert!(fits("a/{b,c}/?", "a/c/d") && fits("plain", "plain") && !fits("plain", "a/plain"));
    }

    #[test]
    fn what_is_no_glob() {
        let error = |glob: &str| Glob::new(glob).unwrap_err().to_string();
        assert_eq!(error(""), "names nothing");
        assert_eq!(error("/a"), "is absolute");
        assert_eq!(error("a/../b"), "has a `..`");
        assert!(error("a[b").starts_with("means nothing: "));
        assert_eq!(error(&"a".repeat(PATH_BYTES_MAX + 1)), "is too long or too deep");
    }

    #[test]
    fn depths() {
        let depth = |glob: &str| Glob::new(glob).unwrap().components_max();
        assert_eq!((depth("*.txt"), depth("a/*"), depth("a/**"), depth("{a,b/c}")), (Some(1), Some(2), None, None));
    }
}
