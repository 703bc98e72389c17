//! JavaScript, by componentize-js, which puts a module and an engine that has read it into one component.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::language::{Compilation, Prepared};
use super::tool::{Known, Tool, first_of};
use super::wit;
use crate::build::{BuildError, Context, Variables};
use crate::wetfile::{Guest, Project, ProjectPath};

/// The tool's name, as a program.
pub(super) const NAME: &str = "componentize-js";

pub(super) const COMPONENTIZE_JS: Known = Known {
    name: NAME,
    install: "run `npm install --save-dev @bytecodealliance/componentize-js` in the guest's folder, or with `--global` \
              for all; it needs Node.js 20 or newer",
    fix: "npm install --save-dev @bytecodealliance/componentize-js",
};

/// What the engine could do that no cell offers: without it nothing of it is imported.
const DISABLED: [&str; 2] = ["http", "fetch-event"];

/// Where componentize-js may be, for a guest in a folder of a project.
pub(super) fn candidates(root: &Path, dir: &ProjectPath) -> Vec<Tool> {
    let mut folders: Vec<ProjectPath> = dir.from_root().collect();
    folders.reverse();
    let installed = folders.iter().map(|folder| folder.to_path(root).join("node_modules/.bin").join(NAME));
    let installed = installed.filter_map(|path| path.into_os_string().into_string().ok());
    installed.map(|path| Tool::new(path, &[])).chain([Tool::new(NAME, &[])]).collect()
}

/// Finds componentize-js: that of the guest's own `node_modules`, or of those above up to the project's, else on `PATH`.
pub(super) fn prepare(
    ctx: &Context<'_>,
    project: &Project,
    guest: &Guest,
    environment: Variables,
) -> Result<Prepared, BuildError> {
    let candidates = candidates(&project.root, &guest.dir);
    let (tool, version) = first_of(ctx, guest, &environment, COMPONENTIZE_JS, candidates, &["--version"])?;
    Prepared::new((ctx, guest), tool, environment, NAME, &format!("{NAME} {version}"), "wasi 0.2")
}

/// Makes a component of the module that is the guest's `main`.
pub(super) fn build(compilation: &Compilation<'_>) -> Result<PathBuf, BuildError> {
    let world = wit::of_guest(&compilation.dir, compilation.scratch);
    let world = world.map_err(BuildError::io("write", compilation.scratch))?;
    let mut arguments: Vec<OsString> = vec![compilation.main().into(), "--wit".into(), world.folder.into()];
    if let Some(name) = world.name {
        arguments.extend(["--world-name".into(), name.into()]);
    }
    for feature in DISABLED {
        arguments.extend(["--disable".into(), feature.into()]);
    }
    arguments.extend(["--out".into(), compilation.out.clone().into()]);
    arguments.extend(compilation.recipe.flags.iter().map(OsString::from));
    compilation.run(arguments)?;
    Ok(compilation.out.clone())
}
