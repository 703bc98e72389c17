//! Zig, and where its compiler is found.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::language::{Compilation, Prepared, only_wasm};
use super::tool::{Known, Tool, first_of, joined};
use crate::build::{BuildError, Context, Variables};
use crate::wetfile::Guest;

/// What is compiled for: WASI 0.1.
pub(super) const TARGET: &str = "wasm32-wasi";

pub(super) const ZIG: Known = Known {
    name: "zig",
    install: "run `pip install ziglang`, or put a `zig` into a folder of PATH",
    fix: "pip install ziglang",
};

/// What has Zig as a module, where that is installed.
const PYTHON: &str = "python3";

/// The variable that names the folder where Zig keeps what it has compiled of a project, and would else keep in the guest's
/// folder.
const LOCAL_CACHE: &str = "ZIG_LOCAL_CACHE_DIR";

/// Small code, as for Rust guests, and no debug information, which would have paths.
const OPTIMIZE: &str = "ReleaseSmall";

/// Where a Zig may be.
pub(super) fn candidates() -> Vec<Tool> {
    vec![Tool::new("zig", &[]), Tool::new(PYTHON, &["-m", "ziglang"])]
}

/// Finds a Zig: the one on `PATH`, else that of the Python package `ziglang`.
pub(super) fn prepare(ctx: &Context<'_>, guest: &Guest, environment: Variables) -> Result<Prepared, BuildError> {
    let (mut tool, version) = first_of(ctx, guest, &environment, ZIG, candidates(), &["version"])?;
    if tool.program() == PYTHON {
        // Zig may be replaced under it.
        let asked = Tool::new(PYTHON, &["-c", "import ziglang; print(ziglang.__file__)"]);
        if let Some(file) = asked.ask(ctx, guest, &environment, &[])?.first() {
            tool = tool.with_part(file.into());
        }
    }
    Prepared::new((ctx, guest), tool, environment, ZIG.name, &format!("zig {version}"), TARGET)
}

/// Has Zig keep what it compiles of a project in `scratch`, unless the guest says where, so that each build compiles anew. What
/// it has kept it takes for that of sources which are others by then: where a header has come that was not there before, where
/// one was changed while it was compiled, and where one has its old size and time (zig 0.17).
pub(super) fn keep_nothing(environment: &mut Variables, scratch: &Path) {
    let cache = scratch.join("zig-cache");
    environment.entry(OsString::from(LOCAL_CACHE)).or_insert(cache.into());
}

/// Compiles the file that is the guest's `main`, or what its `build.zig` says.
pub(super) fn build(compilation: &Compilation<'_>) -> Result<PathBuf, BuildError> {
    let flags = compilation.recipe.flags.iter().map(OsString::from);
    if let Some(main) = &compilation.recipe.main {
        let name = compilation.guest.name.as_str();
        let mut arguments: Vec<OsString> =
            ["build-exe", "-target", TARGET, "-O", OPTIMIZE, "-fstrip", "--name", name].map(OsString::from).into();
        arguments.push(joined("-femit-bin=", &compilation.out));
        arguments.extend(flags);
        arguments.push(main.into());
        compilation.run(arguments)?;
        return Ok(compilation.out.clone());
    }
    let prefix = compilation.scratch.join("installed");
    let mut arguments: Vec<OsString> = vec!["build".into(), format!("-Dtarget={TARGET}").into()];
    arguments.push(format!("-Doptimize={OPTIMIZE}").into());
    arguments.extend(["--prefix".into(), prefix.clone().into()]);
    if let Some(cache) = compilation.environment.get(OsStr::new(LOCAL_CACHE)) {
        arguments.extend(["--cache-dir".into(), cache.clone()]);
    }
    arguments.extend(flags);
    compilation.run(arguments)?;
    only_wasm(&prefix.join("bin"))
}
