//! One guest: whether it is to be compiled after all, its compiler, and what is remembered of both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::inputs::{self, Beside, Found, PackageFiles};
use super::ledger::{Entry, GuestRecord};
use super::tools::Tools;
use super::{BuildError, BuiltGuest, Context, Event, Reason, environment, lang, milliseconds_since_1970, survey};
use crate::folder::Stamp;
use crate::wetfile::lock::{Digest, Toolchain};
use crate::wetfile::{Guest, GuestName, Project, Recipe};

/// How often a guest is built whose inputs have changed meanwhile. The first build may make a `Cargo.lock`, and somebody
/// may save a file; one that changes each time is written by the build itself.
const ATTEMPTS_MAX: usize = 3;

impl Context<'_> {
    fn note(&self, entries: Vec<Entry>) -> Result<(), BuildError> {
        self.ledger.note(entries).map_err(BuildError::io("write", self.state.file("ledger")))
    }
}

/// Builds one guest, unless its reasons turn out to be none.
///
/// `built` has every guest that this one embeds. An artifact whose bytes come out as before is left alone, its time of
/// modification included. A guest whose inputs change while it is built is built again, so that the inputs in the result
/// are those of the artifact.
///
/// # Errors
///
/// Any [`BuildError`]; the artifact of the last success is then untouched.
///
/// # Panics
///
/// If `built` lacks a guest that is embedded.
pub fn build_guest(
    ctx: &Context<'_>,
    project: &Project,
    guest: &Guest,
    built: &BTreeMap<GuestName, BuiltGuest>,
    reasons: &[Reason],
) -> Result<BuiltGuest, BuildError> {
    let _job = ctx.jobs.take(|| ctx.cancel.is_cancelled());
    let reasons = match settle(ctx, project, guest, built, reasons)? {
        Settling::Fresh(built) => return Ok(*built),
        Settling::Stale(reasons) => reasons,
    };
    let start = Instant::now();
    (ctx.events)(Event::Started { guest: &guest.name, reasons: &reasons });
    let compiled = compile(ctx, project, guest, built);
    let compiled = compiled.and_then(|compiled| {
        let bytes = lang::adapt::to_component(compiled.bytes)?;
        Ok(Compiled { bytes, ..compiled })
    });
    let Compiled { bytes, toolchain, found, tools, outside } = compiled.inspect_err(|error| {
        (ctx.events)(Event::Failed { guest: &guest.name, elapsed: start.elapsed(), error });
    })?;
    if guest.reproducible && names_folder(&bytes, ctx.state.root()) {
        let text =
            "its result has the path of the project's folder in it: built in another folder it differs".to_owned();
        (ctx.events)(Event::Warning { guest: &guest.name, text });
    }
    let path = ctx.state.artifact(&guest.name);
    ctx.state.write_artifact(&path, &bytes).map_err(BuildError::io("write", &path))?;
    let digest = Digest::of(&bytes);
    let stamp = Stamp::of_name(&path).ok().flatten().filter(|stamp| stamp.is_settled(SystemTime::now()));
    let record = GuestRecord {
        toolchain: toolchain.to_string(),
        inputs: found.inputs.digest(),
        recipe: found.inputs.recipe,
        facts: inputs::recipe_facts(guest),
        variables: survey::variables(guest, ctx.environment),
        roots: survey::root_records(&found.roots),
        watched: survey::root_records(&found.watched),
        embeds: survey::embed_records(&found.inputs.embeds, &digests(built)),
        tools: tools.digest(),
        outside: outside.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
        artifact: digest,
        stamp,
        elapsed_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        built_at_ms: milliseconds_since_1970(),
        reasons,
        earlier: ctx.memory.guests.get(&guest.name).map(|record| record.history()).unwrap_or_default(),
    };
    let seen = found.seen().map(|(key, seen)| Entry::Root(key.to_owned(), seen.clone()));
    let mut entries: Vec<Entry> = seen.collect();
    entries.push(Entry::Tools(record.tools, Arc::new(tools)));
    entries.push(Entry::Guest(guest.name.to_string(), Box::new(record)));
    ctx.note(entries)?;
    (ctx.events)(Event::Finished { guest: &guest.name, elapsed: start.elapsed() });
    Ok(BuiltGuest { path, digest, toolchain, inputs: found.inputs })
}

/// What became of reasons that may be none.
enum Settling {
    Fresh(Box<BuiltGuest>),
    Stale(Vec<Reason>),
}

/// Finds out about the reasons of a guest that could not be told before: whether the guests that it embeds have come out as
/// before, and whether a compiler that was replaced is another.
fn settle(
    ctx: &Context<'_>,
    project: &Project,
    guest: &Guest,
    built: &BTreeMap<GuestName, BuiltGuest>,
    reasons: &[Reason],
) -> Result<Settling, BuildError> {
    let known = ctx.memory.guests.get(&guest.name);
    // A guest that has come out as before is none of them.
    let is_same = |reason: &&Reason| match (reason, known) {
        (Reason::Guest { name }, Some(record)) => {
            survey::embeds_same(record, name, built.get(name.as_str()).map(|built| built.digest))
        }
        _ => false,
    };
    let left: Vec<Reason> = reasons.iter().filter(|reason| !is_same(reason)).cloned().collect();
    let Some(record) = known.filter(|_| left.iter().all(Reason::is_unsure)) else {
        return Ok(Settling::Stale(left));
    };
    let (mut next, mut entries, mut stale) = ((**record).clone(), Vec::new(), Vec::new());
    for reason in &left {
        match reason {
            // Whether it has written something is seen below.
            Reason::Before { .. } => {}
            Reason::Tool { .. } if !matches!(guest.recipe, Recipe::Command { .. }) => {
                let artifacts = guest.embeds.iter().map(|name| (name.clone(), built[name].path.clone())).collect();
                let environment = environment::of_guest(ctx.environment, guest, &artifacts);
                let (identity, tools) = match &guest.recipe {
                    Recipe::Language(recipe) => {
                        let tool = lang::language::prepare(ctx, project, guest, recipe, environment)?;
                        (tool.identity, tool.tools)
                    }
                    Recipe::Rust(options) => lang::rust::ask(ctx, guest, options, environment)?,
                    Recipe::Command { .. } => unreachable!("its program is told by its content"),
                };
                // Settings of its user change what it makes, and not what it is.
                let is_same_settings = ctx.memory.tools(&record.tools).is_some_and(|used| used.has_settings_of(&tools));
                if identity.as_str() != record.toolchain {
                    stale.push(Reason::Toolchain { was: record.toolchain.clone(), is: identity.to_string() });
                } else if !is_same_settings {
                    stale.push(reason.clone());
                } else {
                    next.tools = tools.digest();
                    entries.push(Entry::Tools(next.tools, Arc::new(tools)));
                }
            }
            other => stale.push(other.clone()),
        }
    }
    let Some(toolchain) = Toolchain::new(&next.toolchain).filter(|_| stale.is_empty()) else {
        return Ok(Settling::Stale(if stale.is_empty() { reasons.to_vec() } else { stale }));
    };
    let embeds = guest.embeds.iter().map(|name| (name.clone(), built[name].inputs.digest())).collect();
    let scanner = inputs::Scanner::knowing(project, ctx.memory)?;
    let found = inputs::find(&scanner, project, guest, record.asked(), ctx.environment, &embeds)?;
    if !survey::is_made_of(record, &found) {
        // It has changed since it was surveyed.
        let told = survey::root_reasons(record, &found, ctx.memory);
        return Ok(Settling::Stale(if told.is_empty() { reasons.to_vec() } else { told }));
    }
    let fresh = survey::as_it_was(&mut next, found, &digests(built), toolchain, ctx.state.artifact(&guest.name));
    entries.push(Entry::Guest(guest.name.to_string(), Box::new(next)));
    ctx.note(entries)?;
    Ok(Settling::Fresh(Box::new(fresh)))
}

fn digests(built: &BTreeMap<GuestName, BuiltGuest>) -> BTreeMap<GuestName, Digest> {
    built.iter().map(|(name, built)| (name.clone(), built.digest)).collect()
}

/// What came of a guest's compiler.
struct Compiled {
    bytes: Vec<u8>,
    toolchain: Toolchain,
    found: Found,
    tools: Tools,
    /// Packages outside of the project, and other places of which nothing can be told.
    outside: BTreeSet<PathBuf>,
}

/// Compiles a guest until its inputs are the same before and afterwards.
fn compile(
    ctx: &Context<'_>,
    project: &Project,
    guest: &Guest,
    built: &BTreeMap<GuestName, BuiltGuest>,
) -> Result<Compiled, BuildError> {
    let artifacts = guest.embeds.iter().map(|name| (name.clone(), built[name].path.clone())).collect();
    let embeds = guest.embeds.iter().map(|name| (name.clone(), built[name].inputs.digest())).collect();
    let (mut was_touched, mut beside) = (false, Beside::default());
    for attempt in 0..ATTEMPTS_MAX {
        let start = SystemTime::now();
        let environment = environment::of_guest(ctx.environment, guest, &artifacts);
        let prepared = match &guest.recipe {
            Recipe::Rust(options) => Some(lang::rust::prepare(ctx, project, guest, options, environment.clone())?),
            Recipe::Command { .. } | Recipe::Language(_) => None,
        };
        if let Some(prepared) = prepared.as_ref().filter(|_| attempt == 0) {
            lang::rust::warn(ctx, guest, prepared);
        }
        let language = lang::language::recipe_of(guest);
        if let Some(recipe) = language.filter(|_| attempt == 0) {
            lang::language::warn(ctx, guest, recipe);
        }
        let find = |beside: &Beside| {
            let packages = prepared.iter().flat_map(|prepared| &prepared.roots.inside);
            let roots = packages.chain(&beside.roots).map(String::as_str);
            let watched = beside.watched.iter().map(String::as_str);
            let scanner = inputs::Scanner::knowing(project, ctx.memory)?;
            inputs::find(&scanner, project, guest, (roots, watched), ctx.environment, &embeds)
        };
        let before = find(&beside)?;
        let mut once = std::mem::take(&mut beside).roots;
        let mut made = None;
        let (bytes, toolchain, tools) = match (&guest.recipe, &prepared) {
            (Recipe::Command { run, .. }, _) => {
                let tools = lang::command::tools(ctx, guest, run, &environment);
                let bytes = lang::command::build(ctx, guest, run, &artifacts, environment)?;
                (
                    bytes,
                    Toolchain::command(),
                    tools.map_err(BuildError::io("read", "a program of the guest's command"))?,
                )
            }
            (Recipe::Rust(_), Some(prepared)) => {
                let cargo = made.insert(lang::rust::build(ctx, guest, prepared)?);
                let packages = PackageFiles { found: &before, others: &once };
                beside = lang::rust::beside(ctx, project, guest, prepared, cargo, packages)?;
                (std::mem::take(&mut cargo.bytes), prepared.identity.clone(), prepared.tools.clone())
            }
            (Recipe::Language(recipe), _) => {
                let tool = lang::language::prepare(ctx, project, guest, recipe, environment)?;
                (lang::language::build(ctx, project, guest, recipe, &tool)?, tool.identity, tool.tools)
            }
            (Recipe::Rust(_), None) => unreachable!("Rust guests are prepared"),
        };
        let found = find(&beside)?;
        once.extend(beside.roots.iter().cloned());
        if found.is_as(&before, &once) {
            // Somebody may have changed a file and changed it back. One that is touched each time is touched by the build.
            if !was_touched && found.seen().any(|(_, seen)| seen.is_touched_since(&project.root, start)) {
                was_touched = true;
                continue;
            }
            if let Some(made) = &made {
                lang::rust::warn_of_reads(ctx, guest, made, &beside);
            }
            let mut outside = prepared.map(|prepared| prepared.roots.outside).unwrap_or_default();
            outside.extend(beside.unreadable);
            return Ok(Compiled { bytes, toolchain, found, tools, outside });
        }
    }
    Err(BuildError::InputsChange)
}

/// Whether bytes have the path of a folder in them, such as by `env!("CARGO_MANIFEST_DIR")`.
///
/// A path of one component, such as `/src`, is in many programs by chance and is not looked for.
fn names_folder(bytes: &[u8], folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;

    let path = folder.as_os_str().as_bytes();
    folder.components().count() > 2 && memchr::memmem::find(bytes, path).is_some()
}
