//! The files that the sources of a C guest include, as far as they are in the project.
//!
//! The compiler is not asked: given several sources in one call, it tells of the last one only. What is read are the lines that
//! include something, whatever conditions are around them, so a file counts as well if only another configuration would
//! include it. What a macro names (`#include CONFIG`) is not found, nor what is outside of the project.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::{FILES_MAX, InputsError, walk};

/// Of a longer file, in bytes, only the beginning is searched.
const SEARCHED_BYTES_MAX: u64 = 16 << 20;

/// Options that name a folder in which included files are looked for, and whether those in `<>` are looked for there, too.
const FOLDERS: [(&str, bool); 4] = [("-I", true), ("-iquote", false), ("-isystem", true), ("-idirafter", true)];

/// Options that name a file which is included before a source.
const FILES: [&str; 2] = ["-include", "-imacros"];

/// The option that names a folder in which embedded files are looked for.
const EMBED_FOLDER: &str = "--embed-dir";

/// What some sources include.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Included {
    /// The files, also those that included files include; by paths whose folder is the real one.
    pub(super) files: BTreeSet<PathBuf>,
    /// Where nothing is, and the compiler would take what came there.
    pub(super) absent: BTreeSet<PathBuf>,
}

/// Where to look for what.
struct Search<'a> {
    /// The project's root, and what in it is an input of nobody.
    root: &'a Path,
    skipped: &'a BTreeSet<PathBuf>,
    /// For `""`, besides the folder of the file that includes.
    quoted: Vec<PathBuf>,
    /// For `<>`.
    angled: Vec<PathBuf>,
    /// For `#embed`.
    embedded: Vec<PathBuf>,
    /// How many more places may be looked at.
    left: usize,
    found: Included,
}

/// Finds what `sources` include, compiled in `dir` with `flags`. `skipped` is an input of nobody.
///
/// # Errors
///
/// There are more than a million places to look at.
pub(super) fn included(
    root: &Path,
    dir: &Path,
    sources: &[PathBuf],
    flags: &[String],
    skipped: &BTreeSet<PathBuf>,
) -> Result<Included, InputsError> {
    let (quoted, angled, embedded) = (Vec::new(), Vec::new(), Vec::new());
    let mut search = Search { root, skipped, quoted, angled, embedded, left: FILES_MAX, found: Included::default() };
    let too_many = || InputsError::TooMany { folder: dir.strip_prefix(root).unwrap_or(dir).to_string_lossy().into() };
    let mut pending: Vec<PathBuf> = sources.to_vec();
    for (option, value) in options(flags) {
        let place = dir.join(value);
        match FOLDERS.iter().find(|(folder, _)| *folder == option) {
            Some((_, true)) => {
                search.angled.push(place.clone());
                search.quoted.push(place);
            }
            Some((_, false)) => search.quoted.push(place),
            None if option == EMBED_FOLDER => search.embedded.push(place),
            None => pending.extend(search.find(value.as_ref(), &[dir.to_owned()], false).ok_or_else(too_many)?),
        }
    }
    let mut searched = BTreeSet::new();
    while let Some(file) = pending.pop() {
        if !searched.insert(file.clone()) {
            continue;
        }
        for directive in read(&file).map(|text| directives(&text)).unwrap_or_default() {
            let own = file.parent().map(Path::to_owned).filter(|_| directive.is_quoted).into_iter();
            let folders: Vec<PathBuf> = match (directive.kind, directive.is_quoted) {
                (Kind::Embed, _) => own.chain(search.embedded.iter().cloned()).collect(),
                (_, true) => own.chain(search.quoted.iter().cloned()).collect(),
                (_, false) => search.angled.clone(),
            };
            let is_all = directive.kind == Kind::IncludeNext;
            let found = search.find(OsStr::from_bytes(&directive.name), &folders, is_all).ok_or_else(too_many)?;
            if directive.kind != Kind::Embed {
                pending.extend(found);
            }
        }
    }
    Ok(search.found)
}

/// The options among flags that say where to look, or what to include, with their values.
fn options(flags: &[String]) -> Vec<(&'static str, &str)> {
    let names = FOLDERS.map(|(name, _)| name);
    let mut flags = flags.iter().map(String::as_str);
    let mut options = Vec::new();
    while let Some(flag) = flags.next() {
        // No name of an option begins another one: `-I` is in capitals.
        let known = names.iter().chain(&FILES).chain([&EMBED_FOLDER]).find(|name| flag.starts_with(**name));
        let Some(name) = known else { continue };
        match &flag[name.len()..] {
            "" => options.extend(flags.next().map(|value| (*name, value))),
            value => options.push((*name, value.strip_prefix('=').unwrap_or(value))),
        }
    }
    options
}

impl Search<'_> {
    /// The first file of a name in some folders, or each; `None` if too many places have been looked at.
    fn find(&mut self, name: &OsStr, folders: &[PathBuf], is_all: bool) -> Option<Vec<PathBuf>> {
        let mut found = Vec::new();
        for folder in folders {
            self.left = self.left.checked_sub(1)?;
            let place = place(&folder.join(name));
            if !place.starts_with(self.root) || place.ancestors().any(|path| self.skipped.contains(path)) {
                continue;
            }
            match fs::canonicalize(&place) {
                Ok(real) if real.is_file() && real.starts_with(self.root) => {
                    self.found.files.insert(place.clone());
                    found.push(place);
                    if !is_all {
                        break;
                    }
                }
                Ok(_) => {}
                Err(_) => drop(self.found.absent.insert(place)),
            }
        }
        Some(found)
    }
}

/// A path whose folder is the real one; where that is not there, the one that it would be if no symlinks came.
fn place(path: &Path) -> PathBuf {
    if let (Some(folder), Some(name)) = (path.parent(), path.file_name())
        && let Ok(folder) = fs::canonicalize(folder)
    {
        return folder.join(name);
    }
    let mut place = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(place.pop()),
            other => place.push(other),
        }
    }
    place
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    walk::open(&fs::canonicalize(file)?)?.take(SEARCHED_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Include,
    IncludeNext,
    Embed,
}

/// A line that names a file.
#[derive(Debug, PartialEq, Eq)]
struct Directive {
    kind: Kind,
    /// In `""`, not in `<>`.
    is_quoted: bool,
    name: Vec<u8>,
}

fn directives(text: &[u8]) -> Vec<Directive> {
    // A backslash at the end of a line joins it with the next one.
    let mut joined = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        joined.extend_from_slice(before);
        rest = match after {
            [b'\n', after @ ..] | [b'\r', b'\n', after @ ..] => after,
            _ => {
                joined.push(b'\\');
                after
            }
        };
    }
    joined.extend_from_slice(rest);
    joined.split(|byte| *byte == b'\n').filter_map(directive).collect()
}

fn directive(line: &[u8]) -> Option<Directive> {
    let line = blank(blank(line).strip_prefix(b"#")?);
    let end = line.iter().position(|byte| !byte.is_ascii_alphabetic() && *byte != b'_')?;
    let kind = match &line[..end] {
        b"include" | b"import" => Kind::Include,
        b"include_next" => Kind::IncludeNext,
        b"embed" => Kind::Embed,
        _ => return None,
    };
    let (is_quoted, close, name) = match blank(&line[end..]) {
        [b'"', name @ ..] => (true, b'"', name),
        [b'<', name @ ..] => (false, b'>', name),
        _ => return None,
    };
    let name = &name[..memchr::memchr(close, name)?];
    (!name.is_empty() && !name.contains(&0)).then(|| Directive { kind, is_quoted, name: name.to_vec() })
}

/// What follows after blanks, and comments that end.
fn blank(mut text: &[u8]) -> &[u8] {
    loop {
        text = text.trim_ascii_start();
        match text.strip_prefix(b"/*").and_then(|comment| Some(&comment[memchr::memmem::find(comment, b"*/")? + 2..])) {
            Some(after) => text = after,
            None => return text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(Kind, bool, &str)]) {
        let directive = |(kind, is_quoted, name): &(Kind, bool, &str)| Directive {
            kind: *kind,
            is_quoted: *is_quoted,
            name: name.as_bytes().to_vec(),
        };
        assert_eq!(directives(text.as_bytes()), expected.iter().map(directive).collect::<Vec<_>>(), "{text}");
    }

    #[test]
    fn lines_that_name_files() {
        check(
            "#include \"a.h\"\n  #\tinclude<b/c.h>// d\r\n",
            &[(Kind::Include, true, "a.h"), (Kind::Include, false, "b/c.h")],
        );
        check("/* a */ # /* b */ include /* c */ \"a b.h\"", &[(Kind::Include, true, "a b.h")]);
        check(
            "#include \\\n\"a.h\"\n#inc\\\r\nlude <b.h>",
            &[(Kind::Include, true, "a.h"), (Kind::Include, false, "b.h")],
        );
        check(
            "#include_next <a.h>\n#import \"b.h\"\n#embed \"c.bin\" limit(3)\n",
            &[(Kind::IncludeNext, false, "a.h"), (Kind::Include, true, "b.h"), (Kind::Embed, true, "c.bin")],
        );
        check("#if 0\n#include \"a\\b.h\"\n#endif\n", &[(Kind::Include, true, "a\\b.h")]);
    }

    #[test]
    fn lines_that_name_none() {
        for line in [
            "",
            "#",
            "# 1",
            "#include",
            "#include A",
            "#include \"\"",
            "#include \"a",
            "#included \"a\"",
            "//#include \"a\"",
            "include \"a\"",
            "#include \"a\0b\"",
            "/* #include \"a\"",
        ] {
            check(line, &[]);
        }
    }

    #[test]
    fn options_that_say_where_to_look() {
        let flags = [
            "-O2",
            "-Ia",
            "-I",
            "b",
            "-iquotec",
            "-isystem",
            "d",
            "-idirafter",
            "e",
            "-include",
            "f.h",
            "-imacros",
            "g.h",
            "--embed-dir=h",
            "--embed-dir",
            "i",
            "-I",
        ];
        let flags = flags.map(str::to_owned);
        let expected = [
            ("-I", "a"),
            ("-I", "b"),
            ("-iquote", "c"),
            ("-isystem", "d"),
            ("-idirafter", "e"),
            ("-include", "f.h"),
            ("-imacros", "g.h"),
            ("--embed-dir", "h"),
            ("--embed-dir", "i"),
        ];
        assert_eq!(options(&flags), expected);
    }
}
