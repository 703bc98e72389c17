//! What GitHub Actions makes of a log: groups, annotations, and what is none of both
//! (docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands).

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use super::{env, project};
use crate::escape;
use crate::wetfile::ProjectPath;

/// Most annotations of one guest; GitHub shows ten of a step.
const ANNOTATIONS_MAX: usize = 10;

/// Longest message of an annotation in characters; GitHub cuts longer ones.
const MESSAGE_CHARACTERS_MAX: usize = 4000;

/// Whether the process runs in a step of GitHub Actions.
pub(super) fn is_here() -> bool {
    static IS_HERE: OnceLock<bool> = OnceLock::new();
    *IS_HERE.get_or_init(|| env::variable("GITHUB_ACTIONS").as_deref() == Some("true"))
}

/// A text of which no line is taken for a command: neither one that begins with `::`, however far it is indented, nor one
/// with `##[` anywhere, as commands once were. Of either the first character is written as in JSON, so that a text in JSON
/// stays what it is.
pub(super) fn tamed(text: &str) -> Cow<'_, str> {
    if !text.contains("::") && !text.contains("##[") {
        return Cow::Borrowed(text);
    }
    let tame = |line: &str| {
        let rest = line.trim_start();
        let indent = &line[..line.len() - rest.len()];
        let colon = rest.strip_prefix("::").map(|rest| format!("{indent}\\u003a:{rest}"));
        colon.as_deref().unwrap_or(line).replace("##[", "\\u0023#[")
    };
    Cow::Owned(text.split_inclusive(['\n', '\r']).map(tame).collect())
}

/// A mark at a line of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Annotation {
    /// Escaped.
    file: String,
    line: Option<(u32, u32)>,
    message: String,
}

impl Annotation {
    /// At the Wetfile of the project at `root` as a whole.
    pub(super) fn of_wetfile(root: &Path, message: String) -> Self {
        let file = project::in_repository(root, Path::new(crate::wetfile::FILE_NAME));
        Self { file, line: None, message }
    }

    /// As a workflow command.
    pub(super) fn command(&self) -> String {
        let message: String = self.message.chars().take(MESSAGE_CHARACTERS_MAX).collect();
        let place = self.line.map(|(line, column)| format!(",line={line},col={column}")).unwrap_or_default();
        format!("::error file={}{place}::{}", property(&self.file), data(&message))
    }
}

/// The lines of a guest, such that none of them is taken for a command.
pub(super) fn fenced(lines: &[String]) -> Vec<String> {
    // Nobody who writes these lines can know it.
    let token = format!("ww-{:016x}", RandomState::new().hash_one(lines.len()));
    let shown = lines.iter().map(|line| escape::text(line).into_owned());
    std::iter::once(format!("::stop-commands::{token}"))
        .chain(shown)
        .chain(std::iter::once(format!("::{token}::")))
        .collect()
}

/// The same in a group that is folded.
pub(super) fn group(title: &str, lines: &[String]) -> Vec<String> {
    if lines.is_empty() {
        return vec![title.to_owned()];
    }
    let mut all = vec![format!("::group::{}", data(title))];
    all.extend(fenced(lines));
    all.push("::endgroup::".to_owned());
    all
}

/// What compilers say is wrong: `error: message` and below it ` --> file:line:column`, as rustc has it, or
/// `file:line:column: error: message`, as C compilers and Zig have it. `located` tells which file one is that they name.
pub(super) fn annotations(lines: &[String], located: &dyn Fn(&str) -> String) -> Vec<Annotation> {
    let mut found = Vec::new();
    let at = |(file, line): (&str, _), text: &str| Annotation {
        file: located(file),
        line: Some(line),
        message: escape::text(text).into_owned(),
    };
    let mut message = None;
    for line in lines {
        if found.len() == ANNOTATIONS_MAX {
            break;
        }
        if line.starts_with("error") && line.contains(": ") {
            message = Some(line.as_str());
        } else if line.starts_with("warning") {
            // The place below is that of the warning.
            message = None;
        } else if let Some(place) = line.trim_start().strip_prefix("--> ") {
            if let (Some(text), Some(place)) = (message.take(), place_of(place)) {
                found.push(at(place, text));
            }
        } else if let Some((place, text)) = line.split_once(": error: ")
            && let Some(place) = place_of(place)
        {
            found.push(at(place, text));
        }
    }
    found
}

/// `file:line:column`.
fn place_of(text: &str) -> Option<(&str, (u32, u32))> {
    let (rest, column) = text.rsplit_once(':')?;
    let (file, line) = rest.rsplit_once(':')?;
    (!file.is_empty()).then_some((file, (line.parse().ok()?, column.parse().ok()?)))
}

/// The file that the compiler of a guest names, as the repository has it: cargo names files relative to the workspace, which is
/// the guest's folder or one above it, others relative to the guest's folder. As it is where there is no such file.
pub(super) fn located(root: &Path, guest: &ProjectPath, named: &str) -> String {
    let folder = guest.to_path(root);
    let folders = folder.ancestors().take_while(|folder| folder.starts_with(root));
    let is_meant = |file: &PathBuf| (file.starts_with(root) || Path::new(named).is_absolute()) && file.is_file();
    let file = folders.map(|folder| plain(&folder.join(named))).find(is_meant);
    match file {
        Some(file) => project::in_repository(root, file.strip_prefix(root).unwrap_or(&file)),
        None => escape::text(named).into_owned(),
    }
}

/// A path without `.` and `..` in it, by its names alone.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Text after a command.
pub(super) fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A value in a command.
pub(super) fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|&line| line.to_owned()).collect()
    }

    #[test]
    fn what_a_compiler_says_is_no_command() {
        let lines = fenced(&owned(&["::error::made up", "\u{1b}[2J"]));
        let token = lines[0].strip_prefix("::stop-commands::").unwrap();
        assert_eq!(lines[1..], ["::error::made up".to_owned(), "\\u{1b}[2J".to_owned(), format!("::{token}::")]);
        assert_ne!(fenced(&[])[0], lines[0]);
        assert_eq!(group("built a", &[]), ["built a"]);
        assert_eq!(group("built 100 %\nx", &owned(&["y"]))[0], "::group::built 100 %25%0Ax");
    }

    #[test]
    fn lines_of_others_are_no_commands() {
        let check = |text: &str, expected: &str| assert_eq!(tamed(text), expected);
        check("a::b has changed", "a::b has changed");
        check("::error::x", "\\u003a:error::x");
        check("x:\n  \u{a0}::set-env name=a::b\n", "x:\n  \u{a0}\\u003a:set-env name=a::b\n");
        check("x\r::error::x", "x\r\\u003a:error::x");
        check("a ##[error]x ##[x", "a \\u0023#[error]x \\u0023#[x");
        let json = serde_json::json!({ "text": "##[error]x" }).to_string();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&tamed(&json)).unwrap()["text"], "##[error]x");
        assert!(!tamed(&json).contains("##["));
    }

    #[test]
    fn errors_have_a_place() {
        let lines = owned(&[
            "error[E0425]: cannot find value `x` in this scope",
            "  --> guests/a/src/main.rs:3:9",
            "error: aborting due to 1 previous error",
            "src/a,b.c:7:1: error: expected ';'",
            "warning: unused",
            " --> src/lib.rs:1:1",
        ]);
        let commands = annotations(&lines, &str::to_owned);
        let commands: Vec<String> = commands.iter().map(Annotation::command).collect();
        assert_eq!(
            commands,
            [
                "::error file=guests/a/src/main.rs,line=3,col=9::error[E0425]: cannot find value `x` in this scope",
                "::error file=src/a%2Cb.c,line=7,col=1::expected ';'",
            ]
        );
        let of_wetfile = Annotation::of_wetfile(Path::new("/nowhere"), "a\nb".to_owned());
        assert_eq!(of_wetfile.command(), "::error file=Wetfile.toml::a%0Ab");
    }

    #[test]
    fn files_are_found_where_compilers_mean_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("p");
        for file in ["guests/a/src/main.rs", "guests/b/src/lib.rs", "guests/a/x.c", "x.c"] {
            std::fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            std::fs::write(root.join(file), "").unwrap();
        }
        std::fs::write(dir.path().join("secret"), "").unwrap();
        let outside = dir.path().canonicalize().unwrap().join("secret").to_str().unwrap().to_owned();
        let guest = ProjectPath::new("guests/a").unwrap();
        for (named, expected) in [
            ("src/main.rs", "guests/a/src/main.rs"),
            ("a/src/main.rs", "guests/a/src/main.rs"),
            ("guests/a/src/main.rs", "guests/a/src/main.rs"),
            (root.join("guests/b/src/lib.rs").to_str().unwrap(), "guests/b/src/lib.rs"),
            ("../b/./src/lib.rs", "guests/b/src/lib.rs"),
            ("x.c", "guests/a/x.c"),
            ("src/none.rs", "src/none.rs"),
            ("src/\u{1b}.rs", "src/\\u{1b}.rs"),
            (outside.as_str(), outside.as_str()),
            ("../../../secret", "../../../secret"),
        ] {
            assert_eq!(located(&root, &guest, named), expected);
        }
    }
}
