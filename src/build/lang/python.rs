//! Python, by componentize-py, which puts an interpreter that has imported a module into one component.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::language::{Compilation, Prepared};
use super::tool::{Known, Tool, first_of};
use super::wit;
use crate::build::{BuildError, Context, Variables};
use crate::wetfile::Guest;

/// The tool's name, as a program.
pub(super) const NAME: &str = "componentize-py";

pub(super) const COMPONENTIZE_PY: Known =
    Known { name: NAME, install: "run `pip install componentize-py`", fix: "pip install componentize-py" };

/// The folder of a guest where its packages are, as `python3 -m venv` makes one.
const OWN_PACKAGES: &str = ".venv";

/// The variable that names such a folder.
const PACKAGES: &str = "VIRTUAL_ENV";

/// Where componentize-py may be, for a guest in a folder.
pub(super) fn candidates(dir: &Path) -> Vec<Tool> {
    let own = dir.join(OWN_PACKAGES).join("bin").join(NAME).into_os_string().into_string().ok();
    own.map(|path| Tool::new(path, &[])).into_iter().chain([Tool::new(NAME, &[])]).collect()
}

/// Finds componentize-py: that of the guest's own packages, else on `PATH`.
pub(super) fn prepare(ctx: &Context<'_>, guest: &Guest, environment: Variables) -> Result<Prepared, BuildError> {
    let candidates = candidates(&guest.dir.to_path(ctx.state.root()));
    let (tool, version) = first_of(ctx, guest, &environment, COMPONENTIZE_PY, candidates, &["--version"])?;
    Prepared::new((ctx, guest), tool, environment, NAME, &format!("{NAME} {version}"), "wasi 0.2")
}

/// Makes a component of the module that is the guest's `main`.
pub(super) fn build(compilation: &Compilation<'_>) -> Result<PathBuf, BuildError> {
    let world = wit::of_guest(&compilation.dir, compilation.scratch);
    let world = world.map_err(BuildError::io("write", compilation.scratch))?;
    let main = Path::new(compilation.main());
    let module = main.file_stem().unwrap_or_default();
    let folder = main.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut arguments: Vec<OsString> = vec!["--quiet".into(), "--wit-path".into(), world.folder.into()];
    if let Some(name) = world.name {
        arguments.extend(["--world".into(), name.into()]);
    }
    arguments.extend(["componentize".into(), module.into(), "--python-path".into(), folder.into()]);
    arguments.extend(["--output".into(), compilation.out.clone().into()]);
    arguments.extend(compilation.recipe.flags.iter().map(OsString::from));
    let mut environment = compilation.prepared.environment.clone();
    environment.insert(PACKAGES.into(), packages(compilation)?.into());
    compilation.prepared.tool.run(compilation.ctx, compilation.guest, &environment, arguments)?;
    Ok(compilation.out.clone())
}

/// The guest's own packages, or none at all: those of this machine are no inputs.
fn packages(compilation: &Compilation<'_>) -> Result<PathBuf, BuildError> {
    let own = compilation.dir.join(OWN_PACKAGES);
    if own.is_dir() {
        return Ok(own);
    }
    let none = compilation.scratch.join("no-packages");
    let folder = none.join("lib/site-packages");
    fs::create_dir_all(&folder).map_err(BuildError::io("make", &folder))?;
    Ok(none)
}
