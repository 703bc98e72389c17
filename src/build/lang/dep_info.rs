//! Which files a package was compiled from, as cargo tells beside what it has made: `NAME.d`, one rule as make has them.
//!
//! It has the sources of the package and of those that it depends on by path, what these include, and what their build
//! scripts name with `cargo:rerun-if-changed`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Largest rule in bytes: some hundred thousand files.
const RULE_BYTES_MAX: u64 = 64 << 20;

/// The files and folders that `artifact` was compiled from, as cargo names them.
///
/// # Errors
///
/// If cargo has left no such file, or one that is not understood.
pub(super) fn read(artifact: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut text = String::new();
    File::open(artifact.with_extension("d"))?.take(RULE_BYTES_MAX + 1).read_to_string(&mut text)?;
    let is_whole = text.len() as u64 <= RULE_BYTES_MAX;
    let files = is_whole.then(|| parse(&text, artifact)).flatten();
    files.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a rule of cargo's"))
}

fn parse(text: &str, artifact: &Path) -> Option<BTreeSet<PathBuf>> {
    let target = artifact.to_str()?.replace(' ', "\\ ");
    let list = text.strip_prefix(&target)?.strip_prefix(':')?.strip_suffix('\n')?;
    // A name with a line feed in it cannot be told from the end of the rule.
    if list.contains('\n') {
        return None;
    }
    let mut files = BTreeSet::new();
    let mut words = list.split(' ').skip(1);
    while let Some(word) = words.next() {
        let mut file = word.to_owned();
        // Blanks in names, and nothing else, have a backslash before them.
        while file.ends_with('\\') {
            file.pop();
            file.push(' ');
            file.push_str(words.next()?);
        }
        files.insert(Some(PathBuf::from(file)).filter(|file| file.is_absolute())?);
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&[&str]>) {
        let files = parse(text, Path::new("/t/my project/a.wasm"));
        assert_eq!(files, expected.map(|files| files.iter().map(PathBuf::from).collect()));
    }

    #[test]
    fn rules() {
        check("/t/my\\ project/a.wasm: /p/src/main.rs\n", Some(&["/p/src/main.rs"]));
        check("/t/my\\ project/a.wasm: /p/a\\ b\\ \\ c /p/../x:y\n", Some(&["/p/a b  c", "/p/../x:y"]));
        check("/t/my\\ project/a.wasm:\n", Some(&[]));
    }

    #[test]
    fn what_is_no_rule_of_the_artifact() {
        check("", None);
        check("/t/my\\ project/b.wasm: /p/src/main.rs\n", None);
        check("/t/my\\ project/a.wasm: /p/src/main.rs", None);
        check("/t/my\\ project/a.wasm: src/main.rs\n", None);
        check("/t/my\\ project/a.wasm: /p/a\nb\n", None);
        check("/t/my\\ project/a.wasm: /p/a\\\n", None);
    }
}
