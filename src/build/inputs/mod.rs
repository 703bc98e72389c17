//! What a guest is made of, digested: the files that its build reads, what the Wetfile says of it, the variables that it
//! inherits, and what the guests that it embeds are made of.
//!
//! Contents and names count; modes, times and empty folders do not. For a Rust guest the files are those that git would
//! see in its package and in the packages it depends on by path, as far as the `.gitignore` files of the project tell
//! (what git was told otherwise, globally or by `git add --force`, would differ between people); the manifest and lock file of its
//! workspace; the settings of cargo and rustup on the way to it. For a guest in another language that `ww` knows they are those
//! that git would see in its folder, what its `inputs` say, and what its sources include if they are C. For a command guest they
//! are what its `inputs` say.
//!
//! Nothing here starts a process: which packages a Rust guest depends on, and what its build has read beside them, was asked
//! when it was built, and is then known by its lock. Some of it no lock can have ([`Beside::watched`]): that is remembered, and
//! part of no digest.

mod beside;
mod cargo;
mod copied;
mod editors;
mod include;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use crate::escape;
use crate::wetfile::lock::{Digest, Facts, Inputs};
use crate::wetfile::{
    CargoOptions, EnvValue, GlobError, Guest, GuestName, Language, LanguageRecipe, Project, ProjectPath, Recipe, Run,
    is_glob, split_glob,
};

use super::Variables;
use super::seen::Seen;

pub(super) use beside::{Beside, PackageFiles};
pub(super) use cargo::{CargoRoots, cargo_roots};
pub use copied::{GuestFiles, guest_files, rustup_toolchain};
pub(super) use include::folders_outside;
pub(super) use walk::Scanner;

/// Files that cargo and rustup look for in each folder from the guest's up to the project's root.
const SETTINGS: [&str; 4] = [".cargo/config", ".cargo/config.toml", "rust-toolchain", "rust-toolchain.toml"];

/// After the path of a manifest of which only the part counts that packages inherit from.
const WORKSPACE_ONLY: &str = "#workspace";

/// After the path of a C guest's folder, for the files that its sources include.
const INCLUDED: &str = "#include";

/// Most files that one guest may be made of. A bound on what a mistaken glob costs, far above what people compile.
const FILES_MAX: usize = 1_000_000;

/// Why inputs could not be digested.
#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    /// Something could not be read.
    #[error("cannot read the input {}", escape::path(.path))]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A folder could not be listed.
    #[error("cannot list the inputs in {}", escape::text(.folder))]
    Walk {
        /// The folder, relative to the project's root.
        folder: String,
        /// Why.
        #[source]
        source: ignore::Error,
    },
    /// A glob that means nothing.
    #[error("the input `{}` is not a glob", escape::text(.glob))]
    Glob {
        /// The glob.
        glob: String,
        /// Why not.
        #[source]
        source: GlobError,
    },
    /// More than a million files.
    #[error("there are more than {FILES_MAX} files among the inputs in {}", escape::text(.folder))]
    TooMany {
        /// The folder, relative to the project's root.
        folder: String,
    },
}

impl InputsError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// What a guest is made of, and what was seen of it.
pub(in crate::build) struct Found {
    pub(super) inputs: Inputs,
    /// By root as in [`Inputs::roots`], also of such as are not there: under which key, and what was seen.
    pub(super) roots: Roots,
    /// The same of what no lock can have, by place.
    pub(super) watched: Roots,
}

impl Found {
    /// Whatever was seen.
    pub(super) fn seen(&self) -> impl Iterator<Item = (&str, &Arc<Seen>)> {
        let all = self.roots.values().chain(self.watched.values());
        all.filter_map(|(key, seen)| Some((key.as_str(), seen.as_ref()?)))
    }

    /// Whether all that was looked at `before` is as it was, as far as it was looked at now, too.
    ///
    /// Only what is `beside` packages may have been looked at once, as it is not known before a build what that is.
    pub(super) fn is_as(&self, before: &Self, beside: &BTreeSet<String>) -> bool {
        let digest = |seen: &(String, Option<Arc<Seen>>)| seen.1.as_ref().map(|seen| seen.digest);
        let is_same = |one: &Roots, other: &Roots, root: &String| match (one.get(root), other.get(root)) {
            (Some(one), Some(other)) => digest(one) == digest(other),
            _ => false,
        };
        let mut roots = self.roots.keys().chain(before.roots.keys());
        let mut watched = self.watched.keys().filter(|place| before.watched.contains_key(*place));
        roots.all(|root| {
            is_same(&self.roots, &before.roots, root) || {
                let is_once = self.roots.contains_key(root) != before.roots.contains_key(root);
                is_once && beside.contains(root)
            }
        }) && watched.all(|place| is_same(&self.watched, &before.watched, place))
    }
}

/// Digests what a guest is made of.
///
/// `roots` are, for a Rust guest, the files and folders to look at besides its own folder: those that its build found, or
/// those of a lock. For a command guest they are not looked at. A root that is not there is left out of the result, so whoever compares it misses
/// it. `embeds` has the digest of every guest that is embedded.
///
/// # Errors
///
/// [`InputsError`].
pub fn digest<'r>(
    project: &Project,
    guest: &Guest,
    roots: impl IntoIterator<Item = &'r str>,
    environment: &Variables,
    embeds: &BTreeMap<GuestName, Digest>,
) -> Result<Inputs, InputsError> {
    let scanner = Scanner::new(project)?;
    Ok(find(&scanner, project, guest, (roots, []), environment, embeds)?.inputs)
}

/// As [`digest`], by a scanner that may have seen it all before. What is to be watched is looked at as well.
pub(super) fn find<'r>(
    scanner: &Scanner<'_>,
    project: &Project,
    guest: &Guest,
    (roots, watched): (impl IntoIterator<Item = &'r str>, impl IntoIterator<Item = &'r str>),
    environment: &Variables,
    embeds: &BTreeMap<GuestName, Digest>,
) -> Result<Found, InputsError> {
    let included = format!("{}{INCLUDED}", guest.dir);
    let mut roots = match &guest.recipe {
        Recipe::Rust(_) => rust_roots(scanner, project, guest, roots)?,
        Recipe::Command { inputs, .. } => command_roots(scanner, guest, inputs)?,
        Recipe::Language(recipe) => {
            let mut roots = command_roots(scanner, guest, &recipe.inputs)?;
            // What the compiler is given by name it reads, whether or not git would see it.
            roots.extend(command_roots(scanner, guest, &recipe.sources)?);
            let is_file = |main: &&String| guest.dir.join(main).is_ok_and(|path| path.to_path(&project.root).is_file());
            roots.extend(command_roots(scanner, guest, recipe.main.iter().filter(is_file))?);
            for (root, looked) in rust_roots(scanner, project, guest, [])? {
                // An input is named relative to the guest's folder, and that relative to the project.
                let root = if roots.contains_key(&root) { format!("{root}/") } else { root };
                roots.insert(root, looked);
            }
            roots
        }
    };
    let watched = watched.into_iter().filter(|place| *place != included).map(|place| {
        let looked = scanner.watched(place)?;
        Ok((place.to_owned(), (looked.key, looked.seen)))
    });
    let mut watched = watched.collect::<Result<Roots, InputsError>>()?;
    if let Recipe::Language(LanguageRecipe { language: Language::C, sources, flags, .. }) = &guest.recipe {
        // As of Rust guests: what git ignores is not in everybody's clone, nor in a lock. It may hide what else is included.
        for (roots, only_seen_by_git) in [(&mut roots, true), (&mut watched, false)] {
            let looked = scanner.included(&guest.dir, sources, flags, only_seen_by_git)?;
            roots.insert(included.clone(), (looked.key, looked.seen));
        }
    }
    let digests = roots.iter().filter_map(|(root, (_, seen))| Some((root.clone(), seen.as_ref()?.digest)));
    let of_embedded = |name: &GuestName| Some((name.clone(), *embeds.get(name)?));
    let inputs = Inputs {
        recipe: recipe(guest),
        environment: inherited(guest, environment),
        roots: digests.collect(),
        embeds: guest.embeds.iter().filter_map(of_embedded).collect(),
    };
    Ok(Found { inputs, roots, watched })
}

/// What the Wetfile says, its spelling aside.
pub(super) fn recipe(guest: &Guest) -> Digest {
    let mut facts = Facts::default();
    facts.add(guest.dir.as_str());
    match &guest.recipe {
        Recipe::Rust(options) => {
            facts.add("rust");
            cargo_options(options, &mut facts);
        }
        Recipe::Language(recipe) => facts.add(recipe.language.key()),
        Recipe::Command { run: Run::Shell(line), .. } => {
            facts.add("shell");
            facts.add(line);
        }
        Recipe::Command { run: Run::Argv(arguments), .. } => {
            facts.add("argv");
            facts.add(arguments.len().to_string());
            arguments.iter().for_each(|argument| facts.add(argument));
        }
    }
    if let Recipe::Language(recipe) = &guest.recipe {
        facts.add(recipe.main.as_deref().unwrap_or_default());
        for list in [&recipe.sources, &recipe.flags] {
            facts.add(list.len().to_string());
            list.iter().for_each(|element| facts.add(element));
        }
    }
    if let Recipe::Command { inputs, .. } | Recipe::Language(LanguageRecipe { inputs, .. }) = &guest.recipe {
        facts.add(inputs.len().to_string());
        inputs.iter().for_each(|input| facts.add(input));
    }
    facts.add(guest.embeds.len().to_string());
    guest.embeds.iter().for_each(|embed| facts.add(embed.as_str()));
    for (name, value) in &guest.env {
        facts.add(name);
        match value {
            EnvValue::Inherit => facts.add("inherit"),
            EnvValue::Set(value) => {
                facts.add("set");
                facts.add(value);
            }
        }
    }
    facts.finish()
}

/// The same as pairs of a key of the Wetfile and what it says, for people.
pub(super) fn recipe_facts(guest: &Guest) -> Vec<(String, String)> {
    let list = |texts: &[String]| format!("{texts:?}");
    let mut facts = vec![("path".to_owned(), guest.dir.to_string())];
    let lang = match &guest.recipe {
        Recipe::Rust(CargoOptions { toolchain, features, default_features, bin, profile }) => {
            let optional = [("toolchain", toolchain), ("bin", bin)];
            facts.extend(optional.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text.clone()?))));
            facts.push(("features".to_owned(), format!("{features:?}")));
            facts.push(("default-features".to_owned(), default_features.to_string()));
            facts.push(("cargo-profile".to_owned(), profile.clone()));
            "rust"
        }
        Recipe::Command { run, inputs } => {
            let run = match run {
                Run::Shell(line) => format!("{line:?}"),
                Run::Argv(arguments) => list(arguments),
            };
            facts.extend([("build".to_owned(), run), ("inputs".to_owned(), list(inputs))]);
            "command"
        }
        Recipe::Language(LanguageRecipe { language, main, sources, flags, inputs }) => {
            facts.extend(main.iter().map(|main| ("main".to_owned(), main.clone())));
            facts.extend(
                [("sources", sources), ("flags", flags), ("inputs", inputs)]
                    .map(|(key, texts)| (key.to_owned(), list(texts))),
            );
            language.key()
        }
    };
    facts.push(("lang".to_owned(), lang.to_owned()));
    let embeds: Vec<String> = guest.embeds.iter().map(ToString::to_string).collect();
    facts.push(("embeds".to_owned(), list(&embeds)));
    for (name, value) in &guest.env {
        let value = match value {
            EnvValue::Inherit => "{ inherit = true }".to_owned(),
            EnvValue::Set(value) => format!("{value:?}"),
        };
        facts.push((format!("env.{name}"), value));
    }
    facts
}

/// What cargo is told, as far as it is other than what it is told anyway: then nothing is added.
fn cargo_options(options: &CargoOptions, facts: &mut Facts) {
    if *options == CargoOptions::default() {
        return;
    }
    // What follows after a recipe begins with a number, so that this cannot be taken for it.
    facts.add("cargo");
    facts.add(options.toolchain.as_deref().unwrap_or_default());
    facts.add(options.features.len().to_string());
    options.features.iter().for_each(|feature| facts.add(feature));
    facts.add(options.default_features.to_string());
    facts.add(options.bin.as_deref().unwrap_or_default());
    facts.add(&options.profile);
}

/// The values of the variables that a guest inherits.
fn inherited(guest: &Guest, environment: &Variables) -> Option<Digest> {
    let names: Vec<&String> =
        guest.env.iter().filter(|(_, value)| **value == EnvValue::Inherit).map(|(name, _)| name).collect();
    if names.is_empty() {
        return None;
    }
    let mut facts = Facts::default();
    for name in names {
        facts.add(name);
        match environment.get(OsStr::new(name)) {
            Some(value) => {
                facts.add("set");
                facts.add(value.as_bytes());
            }
            None => facts.add("unset"),
        }
    }
    Some(facts.finish())
}

/// What was seen at each root, with the key that a scanner knows it by.
pub(super) type Roots = BTreeMap<String, (String, Option<Arc<Seen>>)>;

fn rust_roots<'r>(
    scanner: &Scanner<'_>,
    project: &Project,
    guest: &Guest,
    given: impl IntoIterator<Item = &'r str>,
) -> Result<Roots, InputsError> {
    let mut pending: BTreeSet<String> = given.into_iter().map(str::to_owned).collect();
    if matches!(guest.recipe, Recipe::Rust(_)) {
        pending.extend(guest.dir.from_root().flat_map(|folder| scanner.settings(&folder)).map(|path| path.to_string()));
    }
    // Whatever a lock has or leaves out, the guest is made of what is in its folder.
    pending.insert(guest.dir.to_string());
    let mut roots = Roots::new();
    while let Some(root) = pending.pop_first() {
        let looked = match (root.strip_suffix(WORKSPACE_ONLY), project_path(&root)) {
            (Some(manifest), _) => match project_path(manifest) {
                Some(path) => scanner.part(&path, WORKSPACE_ONLY, || cargo::workspace_table(project, &path))?,
                None => continue,
            },
            (None, Some(path)) => scanner.rust_root(&path)?,
            (None, None) => continue,
        };
        // A folder that a symlink leads to counts as one more root.
        let linked = looked.linked.into_iter().map(|path| path.to_string());
        roots.insert(root, (looked.key, looked.seen));
        pending.extend(linked.filter(|path| !roots.contains_key(path)));
    }
    Ok(roots)
}

/// Folders in which something may come that would belong to what a guest is made of, relative to the project's root: those in
/// which cargo and rustup look for settings, and those in which globs look. Where one is not there, the one that it would be in.
pub(super) fn folders_of_what_may_come(project: &Project, guest: &Guest) -> BTreeSet<PathBuf> {
    let (settings, inputs, sources): (&[_], &[String], &[String]) = match &guest.recipe {
        Recipe::Rust(_) => (&SETTINGS, &[], &[]),
        Recipe::Command { inputs, .. } => (&[], inputs, &[]),
        Recipe::Language(LanguageRecipe { inputs, sources, .. }) => (&[], inputs, sources),
    };
    let files_in = |folder: ProjectPath| settings.iter().filter_map(move |name| folder.join(name).ok());
    let settings = guest.dir.from_root().flat_map(files_in);
    let settings = settings.filter_map(|file| file.to_path(Path::new("")).parent().map(PathBuf::from));
    let globs = inputs.iter().chain(sources).filter(|input| is_glob(input)).map(|glob| split_glob(glob).0);
    let globs = globs.filter_map(|folder| Some(guest.dir.join(folder).ok()?.to_path(Path::new(""))));
    let there = |folder: PathBuf| {
        let is_there = |folder: &&Path| project.root.join(folder).is_dir();
        folder.ancestors().find(is_there).map(Path::to_owned)
    };
    settings.chain(globs).filter_map(there).collect()
}

/// Where a path leads; itself if that is nowhere.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// A path as it stands in a lock, where the root is `.`.
fn project_path(text: &str) -> Option<ProjectPath> {
    ProjectPath::new(text).ok().filter(|path| path.to_string() == text)
}

fn command_roots<'i>(
    scanner: &Scanner<'_>,
    guest: &Guest,
    inputs: impl IntoIterator<Item = &'i String>,
) -> Result<Roots, InputsError> {
    let mut roots = Roots::new();
    for input in inputs {
        let looked = if is_glob(input) {
            scanner.glob(&guest.dir, input)?
        } else {
            match guest.dir.join(input) {
                Ok(path) => scanner.whole(&path)?,
                Err(_) => continue,
            }
        };
        roots.insert(input.clone(), (looked.key, looked.seen));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests;
