//! Which files of a project cargo reads for a package: those of the package, of what it depends on by path, and of their
//! workspaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cargo_metadata::Metadata;
use toml::{Table, Value};

use super::{InputsError, WORKSPACE_ONLY, real, walk};
use crate::build::BuildError;
use crate::wetfile::lock::{Digest, Facts};
use crate::wetfile::{Guest, Project, ProjectPath};

/// Largest manifest in bytes. The largest that people write have some 100 KB.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// What cargo reads for a package.
#[derive(Debug, Default)]
pub(in crate::build) struct CargoRoots {
    /// Files and folders of the project, as keys of a lock.
    pub(in crate::build) inside: BTreeSet<String>,
    /// Packages that lie outside of the project, for which nothing vouches.
    pub(in crate::build) outside: BTreeSet<PathBuf>,
}

/// Finds what cargo reads for the package in the folder of `guest`.
///
/// `metadata` asks cargo about the workspace of a manifest, which needs no network.
pub(in crate::build) fn cargo_roots(
    project: &Project,
    guest: &Guest,
    metadata: &mut dyn FnMut(&Path) -> Result<Metadata, BuildError>,
) -> Result<CargoRoots, BuildError> {
    let mut roots = CargoRoots::default();
    let mut packages = Packages::default();
    let first = guest.dir.to_path(&project.root);
    let workspace = packages.ask(&first, metadata)?;
    let mut pending = vec![first.clone()];
    for file in ["Cargo.toml", "Cargo.lock"] {
        roots.add(project, &workspace.join(file), "");
    }
    // A manifest that comes to lie on the way up, or says that it is a workspace's, may be found in place of this one.
    let is_alone = workspace == real(&first) && !table(&workspace.join("Cargo.toml")).contains_key("workspace");
    pending.extend(replacements(&workspace.join("Cargo.toml"), &workspace));
    for folder in guest.dir.from_root() {
        let folder = folder.to_path(&project.root);
        let is_between = folder.starts_with(&workspace) || is_alone;
        if is_between && folder != workspace && folder != first {
            roots.add(project, &folder.join("Cargo.toml"), WORKSPACE_ONLY);
        }
        for file in [".cargo/config", ".cargo/config.toml"] {
            pending.extend(replacements(&folder.join(file), &folder));
        }
    }
    let mut seen = BTreeSet::new();
    while let Some(package) = pending.pop() {
        let package = real(&package);
        if !seen.insert(package.clone()) {
            continue;
        }
        if !package.starts_with(&project.root) {
            roots.outside.insert(package);
            continue;
        }
        roots.add(project, &package, "");
        let its_workspace = match packages.ask(&package, metadata) {
            // A package may be depended on that cargo builds for nobody else, such as one below a workspace that does not
            // have it as a member.
            Err(BuildError::Failed { .. }) => packages.read(&package),
            other => other?,
        };
        if its_workspace != workspace && its_workspace != package {
            roots.add(project, &its_workspace.join("Cargo.toml"), WORKSPACE_ONLY);
        }
        pending.extend(packages.dependencies.get(&package).into_iter().flatten().cloned());
    }
    Ok(roots)
}

impl CargoRoots {
    fn add(&mut self, project: &Project, path: &Path, part: &str) {
        let below = path.strip_prefix(&project.root).ok().and_then(Path::to_str);
        let key = match below {
            Some("") => Some(ProjectPath::root()),
            Some(below) => ProjectPath::new(below).ok(),
            None => None,
        };
        match key {
            Some(key) => drop(self.inside.insert(format!("{key}{part}"))),
            None => drop(self.outside.insert(path.to_owned())),
        }
    }
}

/// What cargo has told of workspaces.
#[derive(Default)]
struct Packages {
    /// The workspace of each package, by the package's folder.
    workspaces: BTreeMap<PathBuf, PathBuf>,
    /// The folders of what each package depends on by path.
    dependencies: BTreeMap<PathBuf, Vec<PathBuf>>,
}

impl Packages {
    /// Gives the workspace of the package in a folder, and asks cargo about it if nobody has.
    fn ask(
        &mut self,
        package: &Path,
        metadata: &mut dyn FnMut(&Path) -> Result<Metadata, BuildError>,
    ) -> Result<PathBuf, BuildError> {
        if let Some(workspace) = self.workspaces.get(package) {
            return Ok(workspace.clone());
        }
        let metadata = metadata(&package.join("Cargo.toml"))?;
        let workspace = real(metadata.workspace_root.as_std_path());
        // Whatever is there: it was asked about.
        self.workspaces.insert(package.to_owned(), workspace.clone());
        for package in &metadata.packages {
            let Some(folder) = package.manifest_path.parent().map(|folder| real(folder.as_std_path())) else {
                continue;
            };
            let paths = package.dependencies.iter().filter_map(|dependency| dependency.path.as_ref());
            self.dependencies.insert(folder.clone(), paths.map(|path| path.clone().into_std_path_buf()).collect());
            self.workspaces.insert(folder, workspace.clone());
        }
        Ok(workspace)
    }
}

impl Packages {
    /// As [`Packages::ask`], by reading the manifest.
    fn read(&mut self, package: &Path) -> PathBuf {
        let manifest = table(&package.join("Cargo.toml"));
        let (workspace, shared) = package
            .ancestors()
            .find_map(|folder| Some((folder.to_owned(), table(&folder.join("Cargo.toml")).remove("workspace")?)))
            .unwrap_or_else(|| (package.to_owned(), Value::Table(Table::new())));
        let mut paths = Vec::new();
        for (name, dependency) in dependencies(&manifest) {
            let inherits = dependency.get("workspace").and_then(Value::as_bool) == Some(true);
            let shared = shared.get("dependencies").and_then(|all| all.get(&name)).filter(|_| inherits);
            let folder = if inherits { &workspace } else { package };
            let path = shared.unwrap_or(&dependency).get("path").and_then(Value::as_str);
            paths.extend(path.map(|path| folder.join(path)));
        }
        self.dependencies.insert(package.to_owned(), paths);
        self.workspaces.insert(package.to_owned(), workspace.clone());
        workspace
    }
}

/// All dependencies of a manifest by their names, whatever they are for.
fn dependencies(manifest: &Table) -> Vec<(String, Value)> {
    let of_targets = manifest.get("target").and_then(Value::as_table).into_iter().flatten();
    let of_targets = of_targets.filter_map(|(_, target)| target.as_table());
    let kinds = ["dependencies", "build-dependencies", "dev-dependencies"];
    let tables = std::iter::once(manifest).chain(of_targets).flat_map(|table| kinds.map(|kind| table.get(kind)));
    let all = tables.flatten().filter_map(Value::as_table).flatten();
    all.map(|(name, dependency)| (name.clone(), dependency.clone())).collect()
}

/// The folders that a manifest or a configuration file puts in the place of packages: `[patch]`, `[replace]` and `paths`.
/// One that cannot be read is left to cargo.
fn replacements(file: &Path, folder: &Path) -> Vec<PathBuf> {
    let table = table(file);
    let tables = |value: Option<&Value>| value.and_then(Value::as_table).cloned().unwrap_or_default();
    let patched = tables(table.get("patch")).into_iter().flat_map(|(_, source)| tables(Some(&source)));
    let replaced = patched.chain(tables(table.get("replace")));
    let paths = replaced.filter_map(|(_, dependency)| Some(dependency.get("path")?.as_str()?.to_owned()));
    let overrides = table.get("paths").and_then(Value::as_array).cloned().unwrap_or_default();
    let overrides = overrides.into_iter().filter_map(|path| path.as_str().map(str::to_owned));
    paths.chain(overrides).map(|path| folder.join(path)).collect()
}

/// What a file of cargo says; nothing if it cannot be read, which cargo tells.
fn table(file: &Path) -> Table {
    let text = walk::open(&real(file)).and_then(read_manifest);
    text.ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Reads a manifest whole, if it is not longer than any manifest is.
fn read_manifest(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MANIFEST_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {MANIFEST_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Digests the part of a manifest that packages inherit from, whatever its spelling; `None` if the file is not there, or
/// reached through a symlink out of the project: a lock may come from anybody.
pub(super) fn workspace_table(project: &Project, manifest: &ProjectPath) -> Result<Option<Digest>, InputsError> {
    let manifest = manifest.to_path(&project.root);
    let real = match fs::canonicalize(&manifest) {
        Ok(real) => real,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(InputsError::io(&manifest)(error)),
    };
    if !real.starts_with(&project.root) {
        return Ok(None);
    }
    let text = walk::open(&real).and_then(read_manifest).map_err(InputsError::io(&manifest))?;
    let mut facts = Facts::default();
    match text.parse::<Table>() {
        // The tables are sorted by key.
        Ok(table) => facts.add(table.get("workspace").map(Value::to_string).unwrap_or_default()),
        // Cargo says what is wrong with it.
        Err(_) => facts.add(text),
    }
    Ok(Some(facts.finish()))
}
