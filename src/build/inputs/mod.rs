//! What a guest is made of, digested: the files that its build reads, what the Wetfile says of it, the variables that it
//! inherits, and what the guests that it embeds are made of.
//!
//! Contents and names count; modes, times and empty folders do not. For a Rust guest the files are those that git would
//! see in its package and in the packages it depends on by path, as far as the `.gitignore` files of the project tell
//! (what git was told otherwise, globally or by `git add --force`, would differ between people); the manifest and lock file of its
//! workspace; the settings of cargo and rustup on the way to it. For a command guest they are what its `inputs` say.
//!
//! Nothing here starts a process: which packages a Rust guest depends on was asked when it was built, and is then known by
//! its lock.

mod cargo;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::escape;
use crate::wetfile::lock::{Digest, Facts, Inputs};
use crate::wetfile::{CargoOptions, EnvValue, Guest, GuestName, Project, ProjectPath, Recipe, Run, is_glob};

use super::Variables;

pub(super) use cargo::{CargoRoots, cargo_roots};

/// Files that cargo and rustup look for in each folder from the guest's up to the project's root.
const SETTINGS: [&str; 4] = [".cargo/config", ".cargo/config.toml", "rust-toolchain", "rust-toolchain.toml"];

/// After the path of a manifest of which only the part counts that packages inherit from.
const WORKSPACE_ONLY: &str = "#workspace";

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
        source: globset::Error,
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
    let roots = match &guest.recipe {
        Recipe::Rust(_) => rust_roots(project, guest, roots)?,
        Recipe::Command { inputs, .. } => command_roots(project, guest, inputs)?,
    };
    let of_embedded = |name: &GuestName| Some((name.clone(), *embeds.get(name)?));
    Ok(Inputs {
        recipe: recipe(guest),
        environment: inherited(guest, environment),
        roots,
        embeds: guest.embeds.iter().filter_map(of_embedded).collect(),
    })
}

/// What the Wetfile says, its spelling aside.
fn recipe(guest: &Guest) -> Digest {
    let mut facts = Facts::default();
    facts.add(guest.dir.as_str());
    match &guest.recipe {
        Recipe::Rust(options) => {
            facts.add("rust");
            cargo_options(options, &mut facts);
        }
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
    if let Recipe::Command { inputs, .. } = &guest.recipe {
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

fn rust_roots<'r>(
    project: &Project,
    guest: &Guest,
    given: impl IntoIterator<Item = &'r str>,
) -> Result<BTreeMap<String, Digest>, InputsError> {
    let mut pending: BTreeSet<String> = given.into_iter().map(str::to_owned).collect();
    pending.extend(settings(project, guest).map(|path| path.to_string()));
    // Whatever a lock has or leaves out, the guest is made of what is in its folder.
    pending.insert(guest.dir.to_string());
    let mut digests = BTreeMap::new();
    while let Some(root) = pending.pop_first() {
        // A folder that a symlink leads to counts as one more root.
        let mut linked = BTreeSet::new();
        let digest = match root.strip_suffix(WORKSPACE_ONLY) {
            Some(manifest) => {
                project_path(manifest).map(|path| cargo::workspace_table(project, &path)).transpose()?.flatten()
            }
            None => match project_path(&root) {
                Some(path) => walk::rust_root(project, &path, &mut linked)?,
                None => None,
            },
        };
        if let Some(digest) = digest {
            digests.insert(root, digest);
        }
        pending.extend(linked.into_iter().map(|path| path.to_string()).filter(|path| !digests.contains_key(path)));
    }
    Ok(digests)
}

/// The settings files that are there.
fn settings<'p>(project: &'p Project, guest: &'p Guest) -> impl Iterator<Item = ProjectPath> + 'p {
    let folders = std::iter::once(ProjectPath::root()).chain(guest.dir.prefixes());
    let candidates = folders.flat_map(|folder| SETTINGS.into_iter().filter_map(move |name| folder.join(name).ok()));
    candidates.filter(|path| path.to_path(&project.root).is_file())
}

/// A path as it stands in a lock, where the root is `.`.
fn project_path(text: &str) -> Option<ProjectPath> {
    ProjectPath::new(text).ok().filter(|path| path.to_string() == text)
}

fn command_roots(project: &Project, guest: &Guest, inputs: &[String]) -> Result<BTreeMap<String, Digest>, InputsError> {
    let mut digests = BTreeMap::new();
    for input in inputs {
        let digest = if is_glob(input) {
            Some(walk::glob(project, &guest.dir, input)?)
        } else {
            match guest.dir.join(input) {
                Ok(path) => walk::whole(project, &path)?,
                Err(_) => None,
            }
        };
        if let Some(digest) = digest {
            digests.insert(input.clone(), digest);
        }
    }
    Ok(digests)
}

#[cfg(test)]
mod tests;
