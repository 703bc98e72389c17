//! Checks of guests.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cycles::{self, Edge};
use super::{Context, Input, cargo, guest_name, language, place};
use crate::wetfile::argument::{Piece, PlaceholderError, pieces};
use crate::wetfile::diagnostic::{Code, Diagnostic, Sink, listed, quoted};
use crate::wetfile::name::GuestName;
use crate::wetfile::path::ProjectPath;
use crate::wetfile::project::{EnvValue, Guest, Language, Recipe, Run};
use crate::wetfile::schema::{Build, Field, GuestTable, LANGUAGES, Variable, Written};
use crate::wetfile::suggest::nearest;
use crate::wetfile::tree::Kind;
use crate::wetfile::{is_glob, split_glob};

/// The file by which a Rust guest is known.
const CARGO_MANIFEST: &str = "Cargo.toml";

/// The prefix of the variables that `ww` itself gives to a build.
const RESERVED_PREFIX: &str = "WW_";

/// Further variables that a Rust guest cannot declare. Without the wrapper its bytes would depend on the project's
/// folder, with incremental state on what was built before; cargo's messages are read by `ww`.
pub const RESERVED_FOR_RUST: [&str; 7] = [
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_BUILD_DIR",
    "CARGO_BUILD_DEP_INFO_BASEDIR",
    "CARGO_INCREMENTAL",
    "CARGO_TERM_COLOR",
    "CARGO_TERM_PROGRESS_WHEN",
];

pub(super) const NUL_HELP: &str = "leave it out: no program can be given one";

/// What compiles a guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Compiler {
    Cargo,
    Command,
    Of(Language),
}

/// Checks one guest and adds what it reads to `inputs`. Whatever is `None` was reported.
pub(super) fn check(
    ctx: &Context<'_>,
    table: &GuestTable,
    inputs: &mut Vec<Input>,
    sink: &mut Sink<'_>,
) -> Option<Guest> {
    let (embeds, needs) = others(ctx, table, sink);
    let stated = compiler(table, sink);
    let dir = stated.and_then(|compiler| dir(ctx, table, compiler, inputs, sink));
    let compiler = match &dir {
        Some(dir) if table.lang.is_absent() && table.build.is_absent() => {
            language::guess(ctx, table, dir, sink).map(|language| language.map_or(Compiler::Cargo, Compiler::Of))
        }
        _ => stated,
    };
    let env = table.env.iter().filter_map(|(name, value)| variable(name, value, compiler, sink)).collect();
    let compiler = compiler?;
    if compiler != Compiler::Cargo {
        cargo::refuse(table, sink);
    }
    let recipe = match compiler {
        Compiler::Cargo => rust(ctx, table, dir.as_ref(), sink),
        Compiler::Command => command(ctx, table, dir.as_ref(), inputs, sink),
        Compiler::Of(language) => language::recipe(ctx, table, language, dir.as_ref(), inputs, sink),
    };
    let name = GuestName::new(&table.name.value).ok()?;
    let reproducible = table.reproducible.given().is_none_or(|reproducible| reproducible.value);
    Some(Guest { name, dir: dir?, recipe: recipe?, embeds, needs, env, reproducible })
}

/// What the Wetfile states; cargo where it states nothing.
fn compiler(table: &GuestTable, sink: &mut Sink<'_>) -> Option<Compiler> {
    match &table.lang {
        Field::Invalid => None,
        Field::Absent if table.build.is_absent() => Some(Compiler::Cargo),
        Field::Absent => Some(Compiler::Command),
        Field::Given(lang) => match lang.value.as_str() {
            "rust" => Some(Compiler::Cargo),
            "command" => Some(Compiler::Command),
            other => {
                if let Some(language) = Language::ALL.into_iter().find(|language| language.key() == other) {
                    return Some(Compiler::Of(language));
                }
                let label = sink.label(&lang.span, "not a language that ww knows");
                let message = format!("unknown language {} of guest {}", quoted(other), quoted(&table.name.value));
                let help = match nearest(other, LANGUAGES.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => {
                        let known = listed(LANGUAGES);
                        format!("there are {known}; for any other say with `build` which command compiles the guest")
                    }
                };
                sink.push(Diagnostic::error(Code::InvalidValue, message, label, help));
                None
            }
        },
    }
}

/// The folder that the guest is built in.
fn dir(
    ctx: &Context<'_>,
    table: &GuestTable,
    compiler: Compiler,
    inputs: &mut Vec<Input>,
    sink: &mut Sink<'_>,
) -> Option<ProjectPath> {
    let guest = quoted(&table.name.value);
    let text = match &table.path {
        Field::Given(text) => text,
        Field::Invalid => return None,
        Field::Absent if compiler == Compiler::Command => return Some(ProjectPath::root()),
        Field::Absent => {
            let label = sink.label(&table.name.span, "has no `path`");
            let (message, help) = if table.lang.is_absent() {
                (
                    format!("guest {guest} has neither `path` nor `build`"),
                    "add `path`, the folder of its source, or `build`, the command that compiles it",
                )
            } else {
                (format!("guest {guest} has no `path`"), "add `path`, the folder of its source")
            };
            sink.push(Diagnostic::error(Code::MissingKey, message, label, help));
            return None;
        }
    };
    let what = format!("the `path` of guest {guest}");
    let dir = place::path(&ProjectPath::root(), text, &what, sink)?;
    place::folder(ctx, &dir, text, &what, sink)?;
    inputs.push(Input { path: dir.clone(), what, span: text.span.clone(), is_read_whole: false });
    Some(dir)
}

fn rust(ctx: &Context<'_>, table: &GuestTable, dir: Option<&ProjectPath>, sink: &mut Sink<'_>) -> Option<Recipe> {
    let build = table.build.given().map(|build| ("build", &build.span));
    let inputs = table.inputs.given().map(|inputs| ("inputs", &inputs.span));
    for (key, span) in [build, inputs].into_iter().flatten() {
        let label = sink.label(span, "does not go with a Rust guest");
        let message = format!("`{key}` of guest {} does not go with Rust", quoted(&table.name.value));
        let help = format!("leave `{key}` out: cargo builds the guest, and its inputs are what cargo reads");
        let mut diagnostic = Diagnostic::error(Code::ConflictingKey, message, label, help);
        if key == "inputs" && table.lang.is_absent() {
            diagnostic = diagnostic.with_help("or add `build`, the command that compiles the guest");
        }
        sink.push(diagnostic);
    }
    language::without_keys(table, "Rust", sink);
    let options = cargo::options(table, sink);
    let (dir, text) = (dir?, table.path.given()?);
    let manifest = dir.join(CARGO_MANIFEST).ok()?;
    if let place::Found::Kind(Kind::File | Kind::Symlink) = place::look(ctx.tree, &manifest) {
        return options.map(Recipe::Rust);
    }
    let missing = match table.lang.is_absent() {
        true => "nothing in here tells it".to_owned(),
        false => format!("no `{CARGO_MANIFEST}` in here"),
    };
    let label = sink.label(&text.span, missing);
    let message = if table.lang.is_absent() {
        format!("the language of guest {} cannot be told", quoted(&table.name.value))
    } else {
        format!("guest {} is no Rust crate", quoted(&table.name.value))
    };
    let help = match table.lang.is_absent() {
        true => format!("looked for {}", language::LOOKED_FOR),
        false => format!("looked for {}, as a Rust guest has it", quoted(manifest.as_str())),
    };
    let diagnostic = Diagnostic::error(Code::UnknownLanguage, message, label, help);
    sink.push(diagnostic.with_help("for any other language add `build`, the command that compiles the guest"));
    None
}

fn command(
    ctx: &Context<'_>,
    table: &GuestTable,
    dir: Option<&ProjectPath>,
    inputs: &mut Vec<Input>,
    sink: &mut Sink<'_>,
) -> Option<Recipe> {
    language::without_keys(table, "a command", sink);
    let build = match &table.build {
        Field::Absent => {
            let message = format!("guest {} has no `build`", quoted(&table.name.value));
            let label = sink.label(&table.name.span, "has no `build`");
            let help = "add `build`, the command that compiles it, such as `[\"cc\", \"-o\", \"{out}\", \"a.c\"]`";
            sink.push(Diagnostic::error(Code::MissingKey, message, label, help));
            None
        }
        build => build.given(),
    };
    let run = build.map(|build| run(table, build, sink));
    let texts = match &table.inputs {
        Field::Absent => {
            let message = format!("guest {} has no `inputs`", quoted(&table.name.value));
            let label = sink.label(&table.name.span, "has no `inputs`");
            let help = "add `inputs`, the files that the command reads, such as `[\"src/**\"]`: \
                        ww builds the guest again when one of them changes";
            sink.push(Diagnostic::error(Code::MissingKey, message, label, help));
            None
        }
        texts => texts.given(),
    }?;
    for text in &texts.value {
        check_input(ctx, table, dir?, text, inputs, sink);
    }
    let inputs = texts.value.iter().map(|text| text.value.clone()).collect();
    Some(Recipe::Command { run: run?, inputs })
}

fn run(table: &GuestTable, build: &Written<Build>, sink: &mut Sink<'_>) -> Run {
    match &build.value {
        Build::Shell(line) => {
            if line.contains('\0') {
                bad_command(table, &build.span, "has a NUL", NUL_HELP, sink);
            }
            if !line.contains("WW_OUT") {
                let help = "write the artifact to `$WW_OUT`, such as `cc -o \"$WW_OUT\" a.c`";
                bad_command(table, &build.span, "does not say where to write: it has no `$WW_OUT`", help, sink);
            }
            Run::Shell(line.clone())
        }
        Build::Argv(arguments) => {
            check_argv(table, build, arguments, sink);
            Run::Argv(arguments.iter().map(|argument| argument.value.clone()).collect())
        }
    }
}

fn check_argv(table: &GuestTable, build: &Written<Build>, arguments: &[Written<String>], sink: &mut Sink<'_>) {
    if arguments.first().is_none_or(|program| program.value.is_empty()) {
        bad_command(table, &build.span, "names no program", "write the program first, then its arguments", sink);
        return;
    }
    let mut has_out = false;
    for argument in arguments {
        has_out |= check_argument(table, argument, sink);
    }
    if !has_out {
        let help = "put `{out}` where the command takes the path to write the artifact to";
        bad_command(table, &build.span, "does not say where to write: no argument has `{out}`", help, sink);
    }
}

/// Whether an argument has `{out}`, or something that may have been meant as it and was reported.
fn check_argument(table: &GuestTable, argument: &Written<String>, sink: &mut Sink<'_>) -> bool {
    if argument.value.contains('\0') {
        bad_command(table, &argument.span, "has a NUL", NUL_HELP, sink);
    }
    let pieces = match pieces(&argument.value) {
        Ok(pieces) => pieces,
        Err(error) => {
            bad_placeholder(argument, &error, sink);
            return true;
        }
    };
    for piece in &pieces {
        if let Piece::Dep(name) = piece {
            check_dep(table, argument, name, sink);
        }
    }
    pieces.contains(&Piece::Out)
}

fn check_dep(table: &GuestTable, argument: &Written<String>, name: &str, sink: &mut Sink<'_>) {
    let is_embedded = table.embeds().iter().any(|embed| embed.value == name);
    if is_embedded || matches!(table.embeds, Field::Invalid) || sink.is_full() {
        return;
    }
    let label = sink.label(&argument.span, format!("{} is not embedded", quoted(name)));
    let message = format!("{} needs {} among `embeds`", quoted(&format!("{{dep:{name}}}")), quoted(name));
    let help = match nearest(name, table.embeds().iter().map(|embed| embed.value.as_str())) {
        Some(meant) => format!("did you mean `{{dep:{}}}`?", crate::escape::text(meant)),
        None => format!("add {} to the `embeds` of guest {}", quoted(name), quoted(&table.name.value)),
    };
    sink.push(Diagnostic::error(Code::InvalidPlaceholder, message, label, help));
}

fn bad_placeholder(argument: &Written<String>, error: &PlaceholderError, sink: &mut Sink<'_>) {
    let label = sink.label(&argument.span, "in this argument");
    let help = "the placeholders are `{out}` and `{dep:NAME}`; write literal braces as `{{` and `}}`";
    sink.push(Diagnostic::error(Code::InvalidPlaceholder, error.to_string(), label, help));
}

fn bad_command(table: &GuestTable, span: &Range<usize>, problem: &str, help: &str, sink: &mut Sink<'_>) {
    let label = sink.label(span, "here");
    let message = format!("the `build` of guest {} {problem}", quoted(&table.name.value));
    sink.push(Diagnostic::error(Code::InvalidCommand, message, label, help));
}

/// Checks an input of a guest, relative to its folder, and adds what is read to `inputs`.
pub(super) fn check_input(
    ctx: &Context<'_>,
    table: &GuestTable,
    dir: &ProjectPath,
    text: &Written<String>,
    inputs: &mut Vec<Input>,
    sink: &mut Sink<'_>,
) {
    let what = format!("an input of guest {}", quoted(&table.name.value));
    let Some(path) = place::path(dir, text, &what, sink) else { return };
    if is_glob(&text.value) {
        let folder = dir.join(split_glob(&text.value).0).unwrap_or(path);
        inputs.push(Input { path: folder, what, span: text.span.clone(), is_read_whole: false });
    } else if place::existing(ctx, &path, text, &what, sink).is_some() {
        inputs.push(Input { path, what, span: text.span.clone(), is_read_whole: false });
    }
}

/// The guests that a guest embeds, and those that it needs: each is in one of the two, once.
fn others(ctx: &Context<'_>, table: &GuestTable, sink: &mut Sink<'_>) -> (Vec<GuestName>, Vec<GuestName>) {
    let mut first = BTreeMap::new();
    let mut names = [Vec::new(), Vec::new()];
    let lists = [("embeds", table.embeds()), ("needs", table.needs())];
    for ((verb, list), names) in lists.into_iter().zip(&mut names) {
        for name in list {
            if sink.is_full() {
                break;
            }
            let guest = quoted(&table.name.value);
            if let Some((earlier_verb, earlier)) = first.insert(name.value.as_str(), (verb, &name.span)) {
                let label = sink.label(&name.span, "again here");
                let earlier = sink.label(earlier, "first here");
                let (message, help) = if earlier_verb == verb {
                    (format!("guest {guest} {verb} {} twice", quoted(&name.value)), "remove one of the two")
                } else {
                    let message = format!("guest {guest} both {earlier_verb} and {verb} {}", quoted(&name.value));
                    (message, "remove it from `needs`: what is embedded is built first anyway")
                };
                let diagnostic = Diagnostic::error(Code::DuplicateEmbed, message, label, help);
                sink.push(diagnostic.with_secondary([earlier]));
            } else if name.value == table.name.value {
                let label = sink.label(&name.span, "the guest itself");
                let message = format!("guest {guest} {verb} itself");
                sink.push(Diagnostic::error(
                    Code::Cycle,
                    message,
                    label,
                    format!("remove {guest} from its own `{verb}`"),
                ));
            } else {
                names.extend(guest_name(ctx, name, sink));
            }
        }
    }
    names.into()
}

pub(super) fn variable(
    name: &Written<String>,
    value: &Variable,
    compiler: Option<Compiler>,
    sink: &mut Sink<'_>,
) -> Option<(String, EnvValue)> {
    let problem = if !is_variable_name(&name.value) {
        Some(("is not a name of a variable", "use letters, digits and `_`, and no digit at the beginning"))
    } else if name.value.starts_with(RESERVED_PREFIX) {
        Some(("is set by ww itself", "choose a name that does not begin with `WW_`"))
    } else if compiler == Some(Compiler::Cargo) && RESERVED_FOR_RUST.contains(&name.value.as_str()) {
        Some(("is set by ww itself for Rust guests", "leave it out"))
    } else {
        None
    };
    if let Some((problem, help)) = problem {
        let label = sink.label(&name.span, "this name");
        sink.push(Diagnostic::error(Code::InvalidName, format!("{} {problem}", quoted(&name.value)), label, help));
    }
    match value {
        Variable::Invalid => None,
        Variable::Inherit => Some((name.value.clone(), EnvValue::Inherit)),
        Variable::Set(text) => {
            if text.value.contains('\0') {
                let label = sink.label(&text.span, "has a NUL");
                let message = format!("the value of {} has a NUL", quoted(&name.value));
                sink.push(Diagnostic::error(
                    Code::InvalidValue,
                    message,
                    label,
                    "leave it out: no variable can hold one",
                ));
            }
            Some((name.value.clone(), EnvValue::Set(text.value.clone())))
        }
    }
}

fn is_variable_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Reports the cycles among guests, each with every edge that makes it.
pub(super) fn check_cycles(ctx: &Context<'_>, sink: &mut Sink<'_>) {
    let edges_of = |name: &'_ str| -> Vec<Edge<'_>> {
        let (from, table) = ctx.guests.get_key_value(name).expect("it is one of them");
        let kinds = [("embeds", table.embeds()), ("needs", table.needs())];
        let known = kinds.into_iter().flat_map(|(key, list)| list.iter().map(move |name| (key, name)));
        let known =
            known.filter_map(|(key, name)| Some((key, ctx.guests.get_key_value(name.value.as_str())?.0, &name.span)));
        known.map(|(key, to, span)| Edge { from, to, span, key, verb: key }).collect()
    };
    let edges: Vec<Edge<'_>> = ctx.guests.keys().flat_map(|name| edges_of(name)).collect();
    let what = |edges: &[&Edge<'_>]| match edges.iter().all(|edge| edge.key == "embeds") {
        true => "guests embed each other",
        false => "guests wait for each other",
    };
    cycles::report(ctx.guests.keys().copied(), &edges, what, sink);
}
