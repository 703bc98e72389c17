//! Which guests would be built, and why: what is there now, held against what the last builds remember.
//!
//! It starts no process and reads no file whose stamp is known. What it cannot tell without one, whether a replaced compiler
//! is another, is a reason that may turn out to be none ([`Reason::is_unsure`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::inputs::{self, Found, InputsError, Roots, Scanner};
use super::ledger::{EmbedRecord, Entry, GuestRecord, Memory, RootRecord, VariableRecord};
use super::reason::Reason;
use super::seen::Change;
use super::tools::{Toolbox, ToolsState};
use super::{BuiltGuest, Variables};
use crate::folder::Stamp;
use crate::wasm_binary::SIZE_BYTES_MAX;
use crate::wetfile::lock::{Digest, Facts, Toolchain};
use crate::wetfile::{EnvValue, Guest, GuestName, Project};

/// Most files that are told one by one as reasons for one guest or image.
const FILES_TOLD_MAX: usize = 20;

/// Longest value that is remembered to be shown, in characters.
const SHOWN_CHARACTERS_MAX: usize = 200;

/// What is shown of a value that ought to stay a secret.
const HIDDEN: &str = "(hidden)";

/// Parts of names of variables whose values ought to stay secrets.
const SECRET_WORDS: [&str; 6] = ["TOKEN", "SECRET", "PASS", "KEY", "CREDENTIAL", "AUTH"];

/// Where a guest stands.
#[derive(Clone, Debug)]
pub enum Standing {
    /// What was built is what would be built now.
    Fresh(Box<BuiltGuest>),
    /// It is to be built, for these reasons; at least one.
    Stale(Vec<Reason>),
}

/// A look at the guests of a project.
pub struct Survey<'a> {
    project: &'a Project,
    environment: &'a Variables,
    memory: &'a Memory,
    scanner: Scanner<'a>,
    toolbox: Toolbox,
    start: SystemTime,
}

impl<'a> Survey<'a> {
    /// Begins a look.
    ///
    /// # Errors
    ///
    /// If the project's folder cannot be opened.
    pub fn new(project: &'a Project, environment: &'a Variables, memory: &'a Memory) -> Result<Self, InputsError> {
        let scanner = Scanner::remembering(project, memory)?;
        Ok(Self { project, environment, memory, scanner, toolbox: Toolbox::default(), start: SystemTime::now() })
    }

    /// Tells where a guest stands. `embeds` tells it of every guest that is embedded.
    ///
    /// What was found out on the way and is worth remembering is added to `entries`.
    pub fn guest(&self, guest: &Guest, embeds: &BTreeMap<GuestName, Standing>, entries: &mut Vec<Entry>) -> Standing {
        let Some(record) = self.memory.guests.get(&guest.name) else {
            return Standing::Stale(vec![Reason::NeverBuilt]);
        };
        let Some(toolchain) = Toolchain::new(&record.toolchain) else {
            return Standing::Stale(vec![Reason::NeverBuilt]);
        };
        let mut next = (**record).clone();
        let mut reasons = Vec::new();
        let artifact = PathBuf::from(format!("target/ww/guests/{}.wasm", guest.name));
        reasons.extend(self.artifact(&artifact, &mut next));
        reasons.extend(wetfile_reasons(
            record.recipe,
            &record.facts,
            inputs::recipe(guest),
            &inputs::recipe_facts(guest),
        ));
        reasons.extend(variable_reasons(&record.variables, &variables(guest, self.environment)));
        reasons.extend(self.tools(guest, &mut next, entries));
        reasons.extend(record.outside.iter().map(|path| Reason::Outside { path: path.clone() }));
        let inputs = of_embeds(embeds, |built| built.inputs.digest());
        let artifacts = of_embeds(embeds, |built| built.digest);
        let others =
            guest.embeds.iter().filter(|name| !embeds_same(record, name.as_str(), artifacts.get(*name).copied()));
        let of_guests = others.map(|name| Reason::Guest { name: name.to_string() });
        let found = inputs::find(&self.scanner, self.project, guest, record.asked(), self.environment, &inputs);
        let Ok(found) = found else {
            // Whoever builds it is told why that cannot be read.
            reasons.push(Reason::Input { root: guest.dir.to_string(), change: Change::Changed });
            reasons.extend(of_guests);
            return Standing::Stale(reasons);
        };
        reasons.extend(root_reasons(record, &found, self.memory));
        reasons.extend(of_guests);
        if !reasons.is_empty() {
            return Standing::Stale(reasons);
        }
        for (key, seen) in found.seen().filter(|(key, seen)| self.memory.root(key).as_ref() != Some(seen)) {
            entries.push(Entry::Root(key.to_owned(), seen.clone()));
        }
        let fresh = as_it_was(&mut next, found, &artifacts, toolchain, self.project.root.join(artifact));
        if next != **record {
            entries.push(Entry::Guest(guest.name.to_string(), Box::new(next)));
        }
        Standing::Fresh(Box::new(fresh))
    }

    /// What names all that a guest is made of, and the folders in which that lies, relative to the project's root or
    /// absolute. `embeds` has the former of every guest that is embedded.
    ///
    /// # Errors
    ///
    /// [`InputsError`].
    pub fn sources(
        &self,
        guest: &Guest,
        embeds: &BTreeMap<GuestName, Digest>,
    ) -> Result<(Digest, BTreeSet<PathBuf>), InputsError> {
        let record = self.memory.guests.get(&guest.name);
        let (roots, watched) = record.map(|record| record.asked()).unzip();
        let asked = (roots.into_iter().flatten(), watched.into_iter().flatten());
        let found = inputs::find(&self.scanner, self.project, guest, asked, self.environment, embeds)?;
        let mut folders: BTreeSet<PathBuf> =
            found.seen().flat_map(|(_, seen)| seen.watched(&self.project.root)).collect();
        folders.extend(inputs::folders_of_what_may_come(self.project, guest));
        let mut facts = Facts::default();
        facts.add(found.inputs.digest().to_string());
        for (place, (_, seen)) in &found.watched {
            facts.add(place);
            facts.add(seen.as_ref().map(|seen| seen.digest.to_string()).unwrap_or_default());
        }
        Ok((facts.finish(), folders))
    }

    /// Whether the artifact is as it was left; its stamp is brought up to date.
    fn artifact(&self, path: &Path, record: &mut GuestRecord) -> Option<Reason> {
        let full = self.project.root.join(path);
        let shown = || path.to_string_lossy().into_owned();
        let stamp = match Stamp::of_name(&full) {
            Ok(Some(stamp)) => stamp,
            _ => return Some(Reason::Result { path: shown(), change: Change::Removed }),
        };
        if record.stamp == Some(stamp) {
            return None;
        }
        let is_file = full.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        let is_artifact = is_file && stamp.size_bytes <= SIZE_BYTES_MAX;
        let digest = is_artifact.then(|| fs::read(&full).ok()).flatten().map(|bytes| Digest::of(&bytes));
        if digest != Some(record.artifact) {
            return Some(Reason::Result { path: shown(), change: Change::Changed });
        }
        record.stamp = Some(stamp).filter(|stamp| stamp.is_settled(self.start));
        None
    }

    fn tools(&self, guest: &Guest, record: &mut GuestRecord, entries: &mut Vec<Entry>) -> Option<Reason> {
        let Some(tools) = self.memory.tools(&record.tools) else {
            return Some(Reason::NeverBuilt);
        };
        let dir = guest.dir.to_path(&self.project.root);
        // Only what finds programs, and what says where they lie, has a say here.
        let own = guest.env.iter().filter_map(|(name, value)| match value {
            EnvValue::Set(value) if tools.depends_on(name) => Some((name.into(), value.into())),
            EnvValue::Set(_) | EnvValue::Inherit => None,
        });
        let own: Variables = own.collect();
        let state = match own.is_empty() {
            true => self.toolbox.state(&record.tools, &tools, &dir, self.environment),
            false => {
                let environment = self.environment.clone().into_iter().chain(own).collect();
                Toolbox::default().state(&record.tools, &tools, &dir, &environment)
            }
        };
        match state {
            ToolsState::Same => None,
            ToolsState::Changed(path) => Some(Reason::Tool { path: shown_tool(&path, &self.project.root) }),
            ToolsState::Restamped(tools) => {
                record.tools = tools.digest();
                entries.push(Entry::Tools(record.tools, tools));
                None
            }
        }
    }
}

fn of_embeds<T>(embeds: &BTreeMap<GuestName, Standing>, of: impl Fn(&BuiltGuest) -> T) -> BTreeMap<GuestName, T> {
    let built = embeds.iter().filter_map(|(name, standing)| match standing {
        Standing::Fresh(built) => Some((name.clone(), of(built))),
        Standing::Stale(_) => None,
    });
    built.collect()
}

/// Whether a guest that another one embeds has come out as it was when that was built; `artifact` is what it is now.
pub(super) fn embeds_same(record: &GuestRecord, name: &str, artifact: Option<Digest>) -> bool {
    let before = record.embeds.get(name).map(|embed| embed.artifact);
    before.is_some() && artifact == before
}

/// Whether what was found is what a guest was made of.
pub(super) fn is_made_of(record: &GuestRecord, found: &Found) -> bool {
    root_records(&found.roots) == record.roots && root_records(&found.watched) == record.watched
}

/// A guest that is left as it was built; brings what is remembered of it up to what was found, which is what it was made of.
/// `artifacts` are those of the guests that it embeds.
pub(super) fn as_it_was(
    record: &mut GuestRecord,
    found: Found,
    artifacts: &BTreeMap<GuestName, Digest>,
    toolchain: Toolchain,
    path: PathBuf,
) -> BuiltGuest {
    record.inputs = found.inputs.digest();
    record.embeds = embed_records(&found.inputs.embeds, artifacts);
    BuiltGuest { path, digest: record.artifact, toolchain, inputs: found.inputs }
}

/// What is remembered of the guests that one embeds.
pub(super) fn embed_records(
    inputs: &BTreeMap<GuestName, Digest>,
    artifacts: &BTreeMap<GuestName, Digest>,
) -> BTreeMap<String, EmbedRecord> {
    let record = |(name, inputs): (&GuestName, &Digest)| {
        Some((name.to_string(), EmbedRecord { inputs: *inputs, artifact: *artifacts.get(name)? }))
    };
    inputs.iter().filter_map(record).collect()
}

/// What is remembered of the roots of a guest, or of what is watched for it.
pub(super) fn root_records(roots: &Roots) -> BTreeMap<String, RootRecord> {
    let record = |(root, (key, seen)): (&String, &(String, Option<Arc<super::seen::Seen>>))| {
        (root.clone(), RootRecord { key: key.clone(), digest: seen.as_ref().map(|seen| seen.digest) })
    };
    roots.iter().map(record).collect()
}

/// Where what the Wetfile says differs from what it said.
pub fn wetfile_reasons(
    was_digest: Digest,
    was: &[(String, String)],
    is_digest: Digest,
    is: &[(String, String)],
) -> Vec<Reason> {
    if was_digest == is_digest {
        return Vec::new();
    }
    let map = |facts: &[(String, String)]| facts.iter().cloned().collect::<BTreeMap<String, String>>();
    let (was, is) = (map(was), map(is));
    let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let differing = keys.into_iter().filter(|key| was.get(*key) != is.get(*key));
    let reason = |key: &String| Reason::Wetfile {
        key: key.clone(),
        was: was.get(key).map(|text| shortened(text)),
        is: is.get(key).map(|text| shortened(text)),
    };
    let mut reasons: Vec<Reason> = differing.map(reason).collect();
    if reasons.is_empty() {
        reasons.push(Reason::Wetfile { key: String::new(), was: None, is: None });
    }
    reasons
}

fn variable_reasons(was: &[VariableRecord], is: &[VariableRecord]) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for variable in is {
        let Some(before) = was.iter().find(|before| before.name == variable.name) else { continue };
        if before.value == variable.value {
            continue;
        }
        let (mut was, mut is) = (before.shown.clone(), variable.shown.clone());
        if was.as_deref() == Some(HIDDEN) && is.as_deref() == Some(HIDDEN) {
            (was, is) = (None, None);
        }
        reasons.push(Reason::Variable { name: variable.name.clone(), was, is });
    }
    reasons
}

/// The variables that a guest inherits.
pub(super) fn variables(guest: &Guest, environment: &Variables) -> Vec<VariableRecord> {
    let names = guest.env.iter().filter(|(_, value)| **value == EnvValue::Inherit).map(|(name, _)| name);
    let record = |name: &String| {
        let value = environment.get(std::ffi::OsStr::new(name));
        let is_secret = |value: &str| {
            SECRET_WORDS.iter().any(|word| name.to_ascii_uppercase().contains(word))
                // An address with a password.
                || value.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
        };
        let shown = value.map(|value| value.to_string_lossy()).map(|value| match is_secret(&value) {
            true => HIDDEN.to_owned(),
            false => shortened(&format!("`{value}`")),
        });
        let value = value.map(|value| Digest::of(value.as_encoded_bytes()));
        VariableRecord { name: name.clone(), value, shown }
    };
    names.map(record).collect()
}

/// The beginning of a text, if it is too long to be shown.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}\u{2026}", &text[..end]),
        None => text.to_owned(),
    }
}

/// Where what a guest is made of differs from what it was made of.
pub(super) fn root_reasons(record: &GuestRecord, found: &Found, memory: &Memory) -> Vec<Reason> {
    let (mut reasons, mut told) = (Vec::new(), BTreeSet::new());
    for (record, found) in [(&record.roots, &found.roots), (&record.watched, &found.watched)] {
        add_root_reasons(record, found, memory, &mut reasons, &mut told);
    }
    limited(reasons)
}

/// As [`root_reasons`], of one kind of roots. `told` has the files that have been told of.
fn add_root_reasons(
    record: &BTreeMap<String, RootRecord>,
    found: &Roots,
    memory: &Memory,
    reasons: &mut Vec<Reason>,
    told: &mut BTreeSet<(String, Change)>,
) {
    let roots: BTreeSet<&String> = record.keys().chain(found.keys()).collect();
    for root in roots {
        let before = record.get(root).and_then(|root| root.digest);
        let present = found.get(root).and_then(|(key, seen)| Some((key, seen.as_ref()?)));
        let change = match (before, present) {
            (None, None) => continue,
            (Some(before), Some((_, seen))) if before == seen.digest => continue,
            (Some(before), Some((key, seen))) => {
                let previous = memory.root_with(key, &before);
                let changes = previous.map(|previous| seen.changes_since(&previous)).unwrap_or_default();
                if !changes.is_empty() {
                    // What two roots have in common is told once.
                    let new = changes.into_iter().filter(|change| told.insert(change.clone()));
                    reasons.extend(new.map(|(path, change)| Reason::File { path, change }));
                    continue;
                }
                Change::Changed
            }
            (None, Some(_)) => Change::Added,
            (Some(_), None) => Change::Removed,
        };
        reasons.push(Reason::Input { root: root.clone(), change });
    }
}

/// Where a program lies, as people would write it: in the project below its root.
fn shown_tool(path: &Path, root: &Path) -> String {
    // Without the `.` of a program that is called as `./tool`.
    let path: PathBuf = path.components().collect();
    path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned()
}

/// The first of some reasons, each once, and how many more there are.
pub fn limited(mut reasons: Vec<Reason>) -> Vec<Reason> {
    // A file may be known as itself and as one of a folder.
    let mut told = BTreeSet::new();
    reasons.retain(|reason| told.insert(reason.to_string()));
    let more = reasons.len().saturating_sub(FILES_TOLD_MAX);
    if more > 1 {
        reasons.truncate(FILES_TOLD_MAX);
        reasons.push(Reason::MoreFiles { count: more as u64 });
    }
    reasons
}
