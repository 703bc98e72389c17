//! Checks of guests in languages whose tools `ww` knows, and which language a folder is in.

use super::guest::check_input;
use super::{Context, Input, place};
use crate::wetfile::diagnostic::{Code, Diagnostic, Sink, quoted};
use crate::wetfile::path::ProjectPath;
use crate::wetfile::project::{Language, LanguageRecipe, Recipe};
use crate::wetfile::schema::{Field, GuestTable, Written};
use crate::wetfile::tree::Kind;
use crate::wetfile::{is_glob, split_glob};

/// The files by which a folder is known for a language. Whatever else lies beside one, it says what the folder is;
/// `None` is Rust.
const MARKERS: [(&str, Option<Language>); 5] = [
    ("Cargo.toml", None),
    ("build.zig", Some(Language::Zig)),
    ("go.mod", Some(Language::Go)),
    ("package.json", Some(Language::JavaScript)),
    ("pyproject.toml", Some(Language::Python)),
];

/// What a folder is known by that has none of these, if all sources in it are of one language.
const ENDINGS: [(&str, Language); 3] = [(".zig", Language::Zig), (".py", Language::Python), (".c", Language::C)];

/// The file that makes a Zig project.
const BUILD_ZIG: &str = "build.zig";

/// What is compiled of a C guest whose Wetfile does not say it.
const C_SOURCES: &str = "*.c";

/// What was looked for in a folder that tells no language.
pub(super) const LOOKED_FOR: &str =
    "a Cargo.toml, build.zig, go.mod, package.json or pyproject.toml, or files named *.zig, *.py or *.c";

/// Tells the language of a folder whose Wetfile does not: `Some(None)` for Rust, and for what cannot be told at all;
/// `None` where it could be one or another, which was reported.
pub(super) fn guess(
    ctx: &Context<'_>,
    table: &GuestTable,
    dir: &ProjectPath,
    sink: &mut Sink<'_>,
) -> Option<Option<Language>> {
    let marked = MARKERS.into_iter().filter(|(name, _)| is_file(ctx, dir, name));
    let mut found: Vec<(&str, Option<Language>)> = marked.collect();
    if found.is_empty() {
        let files = files(ctx, dir);
        let is_there = |ending: &str| files.iter().any(|file| file.ends_with(ending));
        let endings = ENDINGS.into_iter().filter(|(ending, _)| is_there(ending));
        found = endings.map(|(ending, language)| (ending, Some(language))).collect();
    }
    let [(one, _), (other, _), ..] = found.as_slice() else {
        return Some(found.first().and_then(|(_, language)| *language));
    };
    let shown = |name: &str| if name.starts_with('.') { format!("`*{name}`") } else { format!("`{name}`") };
    let span = table.path.given().map_or(&table.name.span, |path| &path.span);
    let label = sink.label(span, format!("has {} and {}", shown(one), shown(other)));
    let message = format!("guest {} may be in one language or another", quoted(&table.name.value));
    let keys: Vec<String> =
        found.iter().map(|(_, language)| format!("`lang = \"{}\"`", language.map_or("rust", Language::key))).collect();
    let help = format!("say which it is: add {}", keys.join(" or "));
    sink.push(Diagnostic::error(Code::UnknownLanguage, message, label, help));
    None
}

/// Checks what the Wetfile says of a guest in a language.
pub(super) fn recipe(
    ctx: &Context<'_>,
    table: &GuestTable,
    language: Language,
    dir: Option<&ProjectPath>,
    inputs: &mut Vec<Input>,
    sink: &mut Sink<'_>,
) -> Option<Recipe> {
    if let Some(build) = table.build.given() {
        let label = sink.label(&build.span, "a command");
        let message = format!("`build` of guest {} does not go with {}", quoted(&table.name.value), language.name());
        let help = format!("leave `build` out: ww knows how to compile {}", language.name());
        let diagnostic = Diagnostic::error(Code::ConflictingKey, message, label, help);
        sink.push(diagnostic.with_help("or write `lang = \"command\"` to have your own command compile it"));
    }
    for flag in table.flags.given().into_iter().flat_map(|flags| &flags.value) {
        if flag.value.contains('\0') {
            let label = sink.label(&flag.span, "has a NUL");
            let message = format!("a flag of guest {} has a NUL", quoted(&table.name.value));
            sink.push(Diagnostic::error(Code::InvalidValue, message, label, super::guest::NUL_HELP));
        }
    }
    let dir = dir?;
    let has_build_zig = language == Language::Zig && is_file(ctx, dir, BUILD_ZIG);
    let mut read: Vec<String> = Vec::new();
    for input in table.inputs.given().into_iter().flat_map(|inputs| &inputs.value) {
        check_input(ctx, table, dir, input, inputs, sink);
        read.push(input.value.clone());
    }
    let sources = match language {
        Language::C => {
            without_key(table, "main", &table.main, "its program is made of `sources`", sink);
            sources(ctx, table, dir, &mut read, inputs, sink)?
        }
        other => {
            let why = format!("they are for C alone; {} finds its files by itself", other.name());
            without_key(table, "sources", &table.sources, &why, sink);
            Vec::new()
        }
    };
    let main = match language {
        Language::C => None,
        Language::Zig if has_build_zig => {
            without_key(table, "main", &table.main, "its build.zig says what is built", sink);
            None
        }
        other => Some(main(ctx, table, other, dir, sink)?),
    };
    let flags = table.flags.given().into_iter().flat_map(|flags| &flags.value).map(|flag| flag.value.clone()).collect();
    Some(Recipe::Language(LanguageRecipe { language, main, sources, flags, inputs: read }))
}

/// Reports the keys that are only for guests in such languages.
pub(super) fn without_keys(table: &GuestTable, what: &str, sink: &mut Sink<'_>) {
    let why = format!("it does not go with {what}");
    without_key(table, "main", &table.main, &why, sink);
    without_key(table, "sources", &table.sources, &why, sink);
    without_key(table, "flags", &table.flags, &why, sink);
}

/// Reports a key that is there and ought not to be.
fn without_key<T>(table: &GuestTable, key: &str, field: &Field<T>, why: &str, sink: &mut Sink<'_>) {
    let Some(written) = field.given() else { return };
    let label = sink.label(&written.span, "means nothing here");
    let message = format!("guest {} can have no `{key}`", quoted(&table.name.value));
    sink.push(Diagnostic::error(Code::ConflictingKey, message, label, format!("leave `{key}` out: {why}")));
}

/// The files of a C guest. Those that lie elsewhere are read as well.
fn sources(
    ctx: &Context<'_>,
    table: &GuestTable,
    dir: &ProjectPath,
    read: &mut Vec<String>,
    inputs: &mut Vec<Input>,
    sink: &mut Sink<'_>,
) -> Option<Vec<String>> {
    let given = match &table.sources {
        Field::Invalid => return None,
        Field::Given(given) if !given.value.is_empty() => &given.value,
        Field::Given(_) | Field::Absent if files(ctx, dir).iter().any(|file| file.ends_with(".c")) => {
            return Some(vec![C_SOURCES.to_owned()]);
        }
        Field::Given(_) | Field::Absent => {
            let span = table.path.given().map_or(&table.name.span, |path| &path.span);
            let label = sink.label(span, format!("no `{C_SOURCES}` in here"));
            let message = format!("guest {} has no sources", quoted(&table.name.value));
            let help = "add `sources`, the files that are compiled, such as `[\"src/*.c\"]`";
            sink.push(Diagnostic::error(Code::MissingKey, message, label, help));
            return None;
        }
    };
    for source in given {
        check_input(ctx, table, dir, source, inputs, sink);
        let folder = if is_glob(&source.value) { split_glob(&source.value).0 } else { &source.value };
        if source.value.starts_with('-') {
            let label = sink.label(&source.span, "begins with `-`");
            let message =
                format!("the compiler would take a source of guest {} for an option", quoted(&table.name.value));
            let help = format!("write {}", quoted(&format!("./{}", source.value)));
            sink.push(Diagnostic::error(Code::InvalidPath, message, label, help));
        }
        if dir.join(folder).is_ok_and(|folder| !folder.is_within(dir)) {
            read.push(source.value.clone());
        }
    }
    Some(given.iter().map(|source| source.value.clone()).collect())
}

/// The file that a program begins with, or the folder of its package, relative to the guest's folder.
fn main(
    ctx: &Context<'_>,
    table: &GuestTable,
    language: Language,
    dir: &ProjectPath,
    sink: &mut Sink<'_>,
) -> Option<String> {
    match &table.main {
        Field::Invalid => None,
        Field::Given(text) => given_main(ctx, table, language, dir, text, sink),
        Field::Absent if language == Language::Go => {
            if is_file(ctx, dir, "go.mod") {
                return Some(".".to_owned());
            }
            let span = table.path.given().map_or(&table.name.span, |path| &path.span);
            let label = sink.label(span, "no `go.mod` in here");
            let message = format!("guest {} is no Go module", quoted(&table.name.value));
            let help = "make one with `go mod init`; or, where the module is in a folder above, name that as `path` \
                        and the package as `main`";
            sink.push(Diagnostic::error(Code::UnknownLanguage, message, label, help));
            None
        }
        Field::Absent => default_main(ctx, table, language, dir, sink),
    }
}

fn given_main(
    ctx: &Context<'_>,
    table: &GuestTable,
    language: Language,
    dir: &ProjectPath,
    text: &Written<String>,
    sink: &mut Sink<'_>,
) -> Option<String> {
    let what = format!("the `main` of guest {}", quoted(&table.name.value));
    let path = place::path(dir, text, &what, sink)?;
    if !path.is_within(dir) {
        let label = sink.label(&text.span, "lies elsewhere");
        let message = format!("{what} is not in its `path`");
        let help = "write it relative to `path`, and let that be the folder of all sources";
        sink.push(Diagnostic::error(Code::InvalidPath, message, label, help));
        return None;
    }
    let wants = if language == Language::Go { Kind::Folder } else { Kind::File };
    let kind = place::existing(ctx, &path, text, &what, sink)?;
    if kind != wants {
        let wanted = if wants == Kind::Folder { "the folder of a package" } else { "a file" };
        let label = sink.label(&text.span, format!("not {wanted}"));
        let message = format!("{what} is not {wanted}");
        let example = if wants == Kind::Folder { "cmd/hello" } else { starts(language)[0] };
        sink.push(Diagnostic::error(Code::InvalidPath, message, label, format!("write a path such as `{example}`")));
        return None;
    }
    let below = path.as_str().get(dir.as_str().len()..).unwrap_or_default().trim_start_matches('/');
    if below.starts_with('-') {
        let label = sink.label(&text.span, "begins with `-`");
        let message = format!("a tool would take {what} for an option");
        sink.push(Diagnostic::error(Code::InvalidPath, message, label, "give it another name"));
        return None;
    }
    Some(if below.is_empty() { ".".to_owned() } else { below.to_owned() })
}

/// The files that a program in a language begins with, by custom.
fn starts(language: Language) -> &'static [&'static str] {
    match language {
        Language::C | Language::Go => &[],
        Language::Zig => &["main.zig", "src/main.zig"],
        Language::JavaScript => &["main.js", "index.js", "src/main.js", "src/index.js"],
        Language::Python => &["app.py", "main.py", "src/app.py", "src/main.py"],
    }
}

fn default_main(
    ctx: &Context<'_>,
    table: &GuestTable,
    language: Language,
    dir: &ProjectPath,
    sink: &mut Sink<'_>,
) -> Option<String> {
    let starts = starts(language);
    if let Some(start) = starts.iter().find(|name| is_file(ctx, dir, name)) {
        return Some((*start).to_owned());
    }
    let ending = starts[0].rsplit_once('.').map_or("", |(_, ending)| ending);
    let mut files = files(ctx, dir);
    // A tool would take a name that begins with `-` for an option.
    files.retain(|file| !file.starts_with('-') && file.rsplit_once('.').is_some_and(|(_, found)| found == ending));
    if let [only] = files.as_slice() {
        return Some(only.clone());
    }
    let span = table.path.given().map_or(&table.name.span, |path| &path.span);
    let label = sink.label(span, format!("none of {} in here", starts.join(", ")));
    let message = format!("it cannot be told where guest {} begins", quoted(&table.name.value));
    let help = format!("add `main`, the {} file that the program begins with, relative to `path`", language.name());
    sink.push(Diagnostic::error(Code::MissingKey, message, label, help));
    None
}

fn is_file(ctx: &Context<'_>, dir: &ProjectPath, name: &str) -> bool {
    let found = dir.join(name).map(|path| place::look(ctx.tree, &path));
    matches!(found, Ok(place::Found::Kind(Kind::File | Kind::Symlink)))
}

/// The names of the files in a folder. One that cannot be listed has none that could be told by their names: what is
/// asked for then is to be written down.
fn files(ctx: &Context<'_>, dir: &ProjectPath) -> Vec<String> {
    ctx.tree.files(dir).unwrap_or_default()
}
