//! Guests in languages whose tools `ww` knows: one call of the tool, with flags by which the same sources give the same
//! bytes wherever they lie, as far as the tool can.

use std::fs;
use std::path::{Path, PathBuf};

use super::tool::Tool;
use super::{c, command, go, javascript, python, zig};
use crate::build::inputs::folders_outside;
use crate::build::tools::Tools;
use crate::build::{BuildError, Context, Event, Variables};
use crate::escape;
use crate::wetfile::{Guest, Language, LanguageRecipe, Project, Recipe, lock};

/// Version of how guests are compiled and made into components: raised whenever a guest of the same inputs, compiled by
/// the same tool, would not be what this version makes of it.
pub(super) const RECIPE: u32 = 1;

/// The tool of a guest, found and asked.
pub(in crate::build) struct Prepared {
    pub(super) tool: Tool,
    /// What the tool sees of the environment, but for what is of one call.
    pub(super) environment: Variables,
    /// What compiles the guest.
    pub(in crate::build) identity: lock::Toolchain,
    /// The files by which it is noticed that the tool is another.
    pub(in crate::build) tools: Tools,
}

impl Prepared {
    /// `what` is the tool with its version, `target` what it compiles for.
    pub(super) fn new(
        (ctx, guest): (&Context<'_>, &Guest),
        tool: Tool,
        environment: Variables,
        program: &'static str,
        what: &str,
        target: &str,
    ) -> Result<Self, BuildError> {
        let mut tools = Tools::default();
        let dir = guest.dir.to_path(ctx.state.root());
        tool.add_to(&mut tools, &dir, &environment).map_err(BuildError::io("look at", program))?;
        let identity = lock::Toolchain::new(&format!("{what}, {target}, recipe {RECIPE}"));
        let unusable = || BuildError::Answer { program, source: "its version is not printable".into() };
        Ok(Self { tool, environment, identity: identity.ok_or_else(unusable)?, tools })
    }
}

/// What one call of a tool has to do with.
pub(super) struct Compilation<'a> {
    pub(super) ctx: &'a Context<'a>,
    pub(super) project: &'a Project,
    pub(super) guest: &'a Guest,
    pub(super) recipe: &'a LanguageRecipe,
    pub(super) prepared: &'a Prepared,
    /// What the tool sees of the environment.
    pub(super) environment: Variables,
    /// The guest's folder.
    pub(super) dir: PathBuf,
    /// A folder for this call alone; its path is the same each time.
    pub(super) scratch: &'a Path,
    /// Where the result is to be written, in `scratch`.
    pub(super) out: PathBuf,
}

impl Compilation<'_> {
    /// The file that the program begins with.
    pub(super) fn main(&self) -> &str {
        self.recipe.main.as_deref().unwrap_or(".")
    }

    /// Calls the tool.
    pub(super) fn run(&self, arguments: Vec<std::ffi::OsString>) -> Result<(), BuildError> {
        self.prepared.tool.run(self.ctx, self.guest, &self.environment, arguments)
    }
}

/// Finds the tool of a guest and asks for its version.
///
/// `environment` is what the guest's compiler sees of it in any language.
pub(in crate::build) fn prepare(
    ctx: &Context<'_>,
    project: &Project,
    guest: &Guest,
    recipe: &LanguageRecipe,
    environment: Variables,
) -> Result<Prepared, BuildError> {
    match recipe.language {
        Language::C | Language::Zig => zig::prepare(ctx, guest, environment),
        Language::Go => go::prepare(ctx, guest, environment),
        Language::JavaScript => javascript::prepare(ctx, project, guest, environment),
        Language::Python => python::prepare(ctx, guest, environment),
    }
}

/// Compiles a guest and returns what its tool has made: a component, or a core module for WASI 0.1.
pub(in crate::build) fn build(
    ctx: &Context<'_>,
    project: &Project,
    guest: &Guest,
    recipe: &LanguageRecipe,
    prepared: &Prepared,
) -> Result<Vec<u8>, BuildError> {
    let folder = command::new_out_folder(ctx, guest)?;
    let scratch = folder.path();
    let out = scratch.join(format!("{}.wasm", guest.name));
    let dir = guest.dir.to_path(ctx.state.root());
    let mut environment = prepared.environment.clone();
    if matches!(recipe.language, Language::C | Language::Zig) {
        zig::keep_nothing(&mut environment, scratch);
    }
    let compilation = Compilation { ctx, project, guest, recipe, prepared, environment, dir, scratch, out };
    let result = match recipe.language {
        Language::C => c::build(&compilation),
        Language::Zig => zig::build(&compilation),
        Language::Go => go::build(&compilation),
        Language::JavaScript => javascript::build(&compilation),
        Language::Python => python::build(&compilation),
    };
    let result = result.and_then(|path| command::read(&path));
    command::remove(folder)?;
    result
}

/// Tells what may make the result differ from that of others: headers that lie elsewhere; and, where the Wetfile does not know it, a
/// tool that gives other bytes each time.
pub(in crate::build) fn warn(ctx: &Context<'_>, guest: &Guest, recipe: &LanguageRecipe) {
    let warn = |text: String| (ctx.events)(Event::Warning { guest: &guest.name, text });
    if recipe.language == Language::C {
        let root = ctx.state.root();
        for folder in folders_outside(root, &guest.dir.to_path(root), &recipe.flags) {
            warn(format!(
                "it looks for headers in {}, outside of the project: the lock does not see what changes there",
                escape::path(&folder)
            ));
        }
    }
    let tool = match recipe.language {
        Language::JavaScript => javascript::NAME,
        Language::Python => python::NAME,
        Language::C | Language::Zig | Language::Go => return,
    };
    if guest.reproducible {
        warn(format!(
            "{tool} gives other bytes at each build: with `reproducible = false` the lock does not vouch for them"
        ));
    }
}

/// The recipe of a guest that is compiled by such a tool.
pub(in crate::build) fn recipe_of(guest: &Guest) -> Option<&LanguageRecipe> {
    match &guest.recipe {
        Recipe::Language(recipe) => Some(recipe),
        Recipe::Rust(_) | Recipe::Command { .. } => None,
    }
}

/// The only wasm file in a folder.
pub(super) fn only_wasm(folder: &Path) -> Result<PathBuf, BuildError> {
    let mut found = Vec::new();
    match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(BuildError::io("list", folder)(error)),
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(BuildError::io("list", folder))?.path();
                if path.extension().is_some_and(|extension| extension == "wasm") {
                    found.push(path);
                }
            }
        }
    }
    found.sort();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(BuildError::NoArtifact { path: Some(folder.join("*.wasm")) }),
        several => {
            let names = several.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
            Err(BuildError::SeveralArtifacts { names: names.collect() })
        }
    }
}
