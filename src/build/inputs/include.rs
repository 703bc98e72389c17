//! The files that the sources of a C guest include, as far as they are in the project.
//!
//! The compiler is not asked: given several sources in one call, it tells of the last one only. What is read are the lines that
//! include something, whatever conditions are around them, so a file counts as well if only another configuration would
//! include it. What a macro names (`#include CONFIG`) is not found, nor what is outside of the project.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::{FILES_MAX, InputsError, walk};
use crate::build::links;

/// What can be opened has no longer name, in bytes (Linux, `PATH_MAX`).
const NAME_BYTES_MAX: usize = 4096;

/// Of a longer file, in bytes, only the beginning is searched.
const SEARCHED_BYTES_MAX: u64 = 16 << 20;

/// Where the folders are that an option names, in the order in which clang looks into them: for `""` all, for `<>` all but the
/// first, and for `#embed` the last alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Quoted,
    Angled,
    System,
    After,
    Embedded,
}

/// What an option is followed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// A folder in which included files are looked for.
    Folder(Group),
    /// A file that is included before a source.
    File,
}

/// The options that say where to look, or what to include. Of two that begin alike the longer one comes first.
const OPTIONS: [(&str, Meaning); 11] = [
    ("-iquote", Meaning::Folder(Group::Quoted)),
    ("-I", Meaning::Folder(Group::Angled)),
    ("--include-directory-after", Meaning::Folder(Group::After)),
    ("--include-directory", Meaning::Folder(Group::Angled)),
    ("-isystem", Meaning::Folder(Group::System)),
    ("-idirafter", Meaning::Folder(Group::After)),
    ("--embed-dir", Meaning::Folder(Group::Embedded)),
    ("-include", Meaning::File),
    ("-imacros", Meaning::File),
    ("--include", Meaning::File),
    ("--imacros", Meaning::File),
];

/// Options that hand on what follows to a part of the compiler.
const HANDED_ON: [&str; 2] = ["-Xclang", "-Xpreprocessor"];

/// What some sources include.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Included {
    /// The files, also those that included files include; by paths whose folder is the real one.
    pub(super) files: BTreeSet<PathBuf>,
    /// Symlinks on the way to folders.
    pub(super) links: BTreeSet<PathBuf>,
    /// Where there is no file of the project, and the compiler would take what came there.
    pub(super) absent: BTreeSet<PathBuf>,
    /// Folders in which it mattered which files are inputs.
    pub(super) filtered: BTreeSet<PathBuf>,
}

/// The project that is searched.
pub(super) struct Project<'a> {
    pub(super) root: &'a Path,
    /// What in it is an input of nobody.
    pub(super) skipped: &'a BTreeSet<PathBuf>,
    /// Whether a file is an input; others are taken for not being there.
    pub(super) is_input: &'a mut dyn FnMut(&Path) -> Result<bool, InputsError>,
}

/// Where to look for what.
struct Search<'a> {
    project: Project<'a>,
    /// The folder that the compiler is called in.
    dir: &'a Path,
    folders: Vec<(Group, PathBuf)>,
    /// What was found of a name in a folder.
    known: HashMap<(PathBuf, OsString), Option<PathBuf>>,
    /// Folders whose way is known, relative to the root.
    walked: HashSet<PathBuf>,
    found: Included,
}

/// Finds what `sources` include, compiled in `dir` with `flags`.
///
/// # Errors
///
/// There are more than a million places to look at, or it cannot be told what is an input.
pub(super) fn included<'a>(
    project: Project<'a>,
    dir: &'a Path,
    sources: &[PathBuf],
    flags: &[String],
) -> Result<Included, InputsError> {
    let options = options(flags);
    let folders = folders(dir, &options);
    let (known, walked) = (HashMap::new(), HashSet::new());
    let mut search = Search { project, dir, folders, known, walked, found: Included::default() };
    let mut pending: Vec<PathBuf> = sources.to_vec();
    for (_, file) in options.iter().filter(|(meaning, _)| *meaning == Meaning::File) {
        let directive = Directive { kind: Kind::Include, is_quoted: true, name: file.as_bytes().to_vec() };
        pending.extend(search.find(&directive, dir)?);
    }
    let mut searched = BTreeSet::new();
    while let Some(file) = pending.pop() {
        if !searched.insert(file.clone()) {
            continue;
        }
        let own = file.parent().unwrap_or(&file);
        for directive in read(&file).map(|text| directives(&text)).unwrap_or_default() {
            let found = search.find(&directive, own)?;
            if directive.kind != Kind::Embed {
                pending.extend(found);
            }
        }
    }
    Ok(search.found)
}

/// The options among flags that say where to look, or what to include, with their values.
fn options(flags: &[String]) -> Vec<(Meaning, &str)> {
    let mut flags = flags.iter().map(String::as_str).filter(|flag| !HANDED_ON.contains(flag));
    let mut options = Vec::new();
    while let Some(flag) = flags.next() {
        let known = OPTIONS.iter().find_map(|(name, meaning)| Some((*meaning, flag.strip_prefix(name)?)));
        match known {
            Some((meaning, "")) => options.extend(flags.next().map(|value| (meaning, value))),
            Some((meaning, value)) => options.push((meaning, value.strip_prefix('=').unwrap_or(value))),
            None => {}
        }
    }
    options
}

/// The folders to look into, in order. One that the system's headers are in is looked into as that.
fn folders(dir: &Path, options: &[(Meaning, &str)]) -> Vec<(Group, PathBuf)> {
    let named = options.iter().filter_map(|(meaning, value)| match meaning {
        Meaning::Folder(group) => Some((*group, dir.join(value))),
        Meaning::File => None,
    });
    let named: Vec<(Group, PathBuf)> = named.collect();
    let is_system = |folder: &Path| named.iter().any(|(group, other)| *group == Group::System && other == folder);
    [Group::Quoted, Group::Angled, Group::System, Group::After, Group::Embedded]
        .into_iter()
        .flat_map(|wanted| named.iter().filter(move |(group, _)| *group == wanted))
        .filter(|(group, folder)| *group != Group::Angled || !is_system(folder))
        .cloned()
        .collect()
}

/// The folders outside of the project that flags name for headers.
pub(in crate::build) fn folders_outside(root: &Path, dir: &Path, flags: &[String]) -> BTreeSet<PathBuf> {
    let named = folders(dir, &options(flags)).into_iter().filter_map(|(_, folder)| fs::canonicalize(folder).ok());
    named.filter(|folder| !folder.starts_with(root)).collect()
}

impl Search<'_> {
    /// The files that a line in a file of the folder `own` names: the first one, or for `#include_next` each.
    fn find(&mut self, directive: &Directive, own: &Path) -> Result<Vec<PathBuf>, InputsError> {
        let is_looked_into = |group: Group| match (directive.kind, directive.is_quoted) {
            (Kind::Embed, _) => group == Group::Embedded,
            (_, true) => group != Group::Embedded,
            (_, false) => !matches!(group, Group::Quoted | Group::Embedded),
        };
        let named = self.folders.iter().filter(|(group, _)| is_looked_into(*group)).map(|(_, folder)| folder.clone());
        let mut first: Vec<PathBuf> = Vec::new();
        if directive.is_quoted {
            first.push(own.to_owned());
            if directive.kind == Kind::Embed {
                first.push(self.dir.to_owned());
            }
        }
        let folders: Vec<PathBuf> = first.into_iter().chain(named).collect();
        let mut found = Vec::new();
        for folder in folders {
            let file = self.look(folder, OsStr::from_bytes(&directive.name))?;
            let is_found = file.is_some();
            found.extend(file);
            if is_found && directive.kind != Kind::IncludeNext {
                break;
            }
        }
        Ok(found)
    }

    /// The file of the project that has a name in a folder.
    fn look(&mut self, folder: PathBuf, name: &OsStr) -> Result<Option<PathBuf>, InputsError> {
        let key = (folder, name.to_owned());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        if self.known.len() >= FILES_MAX {
            let folder = self.dir.strip_prefix(self.project.root).unwrap_or(self.dir);
            return Err(InputsError::TooMany { folder: folder.to_string_lossy().into() });
        }
        let file = self.look_anew(&key.0.join(name))?;
        self.known.insert(key, file.clone());
        Ok(file)
    }

    fn look_anew(&mut self, path: &Path) -> Result<Option<PathBuf>, InputsError> {
        let Project { root, skipped, .. } = self.project;
        self.note_links(path.parent().unwrap_or(path));
        let place = place(path);
        if !place.starts_with(root) || place.ancestors().any(|path| skipped.contains(path)) {
            return Ok(None);
        }
        let real = fs::canonicalize(&place).ok();
        let file = real.filter(|real| real.is_file() && real.starts_with(root));
        // Of a symlink that leads out of the project, or nowhere, that counts which it says.
        if file.is_none() && !place.is_symlink() {
            // It may become one.
            self.found.absent.insert(place);
            return Ok(None);
        }
        self.found.filtered.extend(place.parent().map(Path::to_owned));
        if !(self.project.is_input)(&place)? {
            return Ok(None);
        }
        self.found.files.insert(place.clone());
        Ok(file.map(|_| place))
    }

    /// Remembers the symlinks of the project that the way to a folder goes through.
    fn note_links(&mut self, folder: &Path) {
        // Another way begins outside of the project, and what is there is no input.
        let Ok(below) = folder.strip_prefix(self.project.root) else { return };
        if self.walked.insert(below.to_owned()) {
            let links = &mut self.found.links;
            links::walk(self.project.root, below, &mut |link| {
                if link.starts_with(self.project.root) {
                    links.insert(link.to_owned());
                }
            });
        }
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
    // Editors on Windows mark a text as UTF-8 so.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    // A backslash at the end of a line, blanks or not, joins it with the next one.
    let mut joined = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        joined.extend_from_slice(before);
        let blanks = after.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
        rest = match after.get(blanks) {
            Some(b'\n') => &after[blanks + 1..],
            _ => {
                joined.push(b'\\');
                after
            }
        };
    }
    joined.extend_from_slice(rest);
    joined.split(|byte| matches!(byte, b'\n' | b'\r')).flat_map(of_line).collect()
}

fn of_line(line: &[u8]) -> Vec<Directive> {
    // What comes before may be a comment that ends here.
    let line = match (memchr::memmem::find(line, b"*/"), memchr::memmem::find(line, b"/*")) {
        (Some(end), start) if start.is_none_or(|start| end < start) => &line[end + 2..],
        _ => line,
    };
    let line = blank(line);
    let Some(line) = line.strip_prefix(b"#").or_else(|| line.strip_prefix(b"%:")) else { return Vec::new() };
    let line = blank(line);
    let end = line.iter().take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'_').count();
    let (word, rest) = line.split_at(end);
    let kind = match word {
        b"include" | b"import" => Kind::Include,
        b"include_next" => Kind::IncludeNext,
        b"embed" => Kind::Embed,
        b"if" | b"elif" => return asked(rest),
        _ => return Vec::new(),
    };
    directive(kind, rest).into_iter().collect()
}

/// The files that a condition asks for.
fn asked(condition: &[u8]) -> Vec<Directive> {
    const KINDS: [(&[u8], Kind); 3] =
        [(b"include_next", Kind::IncludeNext), (b"include", Kind::Include), (b"embed", Kind::Embed)];
    let (mut rest, mut found) = (condition, Vec::new());
    while let Some(at) = memchr::memmem::find(rest, b"__has_") {
        rest = &rest[at + b"__has_".len()..];
        // Of a text without an end no more is read for each than a name can have.
        let near = &rest[..rest.len().min(NAME_BYTES_MAX)];
        let named =
            |(word, kind): &(&[u8], Kind)| directive(*kind, blank(near.strip_prefix(*word)?).strip_prefix(b"(")?);
        if let Some(directive) = KINDS.iter().find_map(named) {
            // What is in a name is none: all names are no longer than the text.
            rest = &rest[directive.name.len()..];
            found.push(directive);
        }
    }
    found
}

/// What a text names that begins with a name in `""` or `<>`.
fn directive(kind: Kind, text: &[u8]) -> Option<Directive> {
    let (is_quoted, close, name) = match blank(text) {
        [b'"', name @ ..] => (true, b'"', name),
        [b'<', name @ ..] => (false, b'>', name),
        _ => return None,
    };
    let name = &name[..memchr::memchr(close, &name[..name.len().min(NAME_BYTES_MAX)])?];
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
        check(
            "\u{feff}#include \"a.h\" \\ \t\r\n\r%:include <b.h>\r/* a\n b */ #include \"c.h\"",
            &[(Kind::Include, true, "a.h"), (Kind::Include, false, "b.h"), (Kind::Include, true, "c.h")],
        );
        check(
            "#if defined A && __has_include(\"a.h\") || __has_embed ( <b> )\n#elif __has_include_next(<c.h>)\n",
            &[(Kind::Include, true, "a.h"), (Kind::Embed, false, "b"), (Kind::IncludeNext, false, "c.h")],
        );
        // One name for each of many that have no end.
        let endless = format!("#if {}>\n", "__has_include(<".repeat(20_000));
        assert!(directives(endless.as_bytes()).iter().map(|directive| directive.name.len()).sum::<usize>() < 2 << 20);
        let nested = format!("#if {}\n", "__has_include(<__has___has_include(<".repeat(50) + ">");
        let nested = nested.repeat(100).replace('\n', " ");
        assert!(asked(nested.as_bytes()).iter().map(|directive| directive.name.len()).sum::<usize>() < nested.len());
        check("#if __has_include(A) || __has_attribute(b)\n", &[]);
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
            "--include-directory=i",
            "-Xclang",
            "-I",
            "-Xclang",
            "j",
            "--include",
            "k.h",
            "-I",
        ];
        let flags = flags.map(str::to_owned);
        let named: Vec<&str> = options(&flags).into_iter().map(|(_, value)| value).collect();
        assert_eq!(named, ["a", "b", "c", "d", "e", "f.h", "g.h", "h", "i", "j", "k.h"]);
        let folders = |flags: &[&str]| -> Vec<String> {
            let flags: Vec<String> = flags.iter().map(|&flag| flag.into()).collect();
            let folders = folders(Path::new(""), &options(&flags));
            folders.into_iter().map(|(group, folder)| format!("{group:?} {}", folder.display())).collect()
        };
        // The order is that of `zig cc -E -v`.
        assert_eq!(
            folders(&["-idirafter", "a", "-isystem", "b", "-Ic", "-iquote", "d", "--embed-dir=e", "-Ib"]),
            ["Quoted d", "Angled c", "System b", "After a", "Embedded e"]
        );
    }
}
