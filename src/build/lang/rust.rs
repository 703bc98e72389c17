//! Guests that cargo builds: one call for each, for one package and one of its targets.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cargo_metadata::{CrateType, Message, Metadata, Package, PackageId, Target, TargetKind};

use super::{cargo_config, dep_info};
use crate::build::environment;
use crate::build::inputs::{Beside, CargoRoots, PackageFiles, Scanner, cargo_roots};
use crate::build::process::LINE_BYTES_MAX;
use crate::build::rustc_wrapper::{CARGO_PREFIX, MODE_VARIABLE, PROJECT_PREFIX, Prefixes};
use crate::build::toolchain::Toolchain;
use crate::build::tools::Tools;
use crate::build::{self, BuildError, Call, Context, Event, TARGET, Variables};
use crate::wetfile::{CargoOptions, Guest, Project, lock};
use crate::{escape, wasm_binary};

/// Largest answer of `cargo metadata` in bytes; it is one line, with some hundred bytes for each file that is a target.
const METADATA_BYTES_MAX: usize = 64 << 20;

/// Variables with which cargo is quiet, keeps no incremental state, which would differ from a fresh build's, and names
/// whole paths where it tells what was read, as none begins with this folder. No Wetfile declares them.
const CARGO_VARIABLES: [(&str, &str); 4] = [
    ("CARGO_TERM_COLOR", "never"),
    ("CARGO_TERM_PROGRESS_WHEN", "never"),
    ("CARGO_INCREMENTAL", "0"),
    ("CARGO_BUILD_DEP_INFO_BASEDIR", "/dev/null"),
];

/// The variable for where cargo keeps what is not to be used by others, which a configuration of its user may have elsewhere.
const BUILD_FOLDER_VARIABLE: &str = "CARGO_BUILD_BUILD_DIR";

/// The variable by which rustup is told a toolchain.
pub(super) const TOOLCHAIN_VARIABLE: &str = "RUSTUP_TOOLCHAIN";

/// Flags for the compiler, in the two forms that cargo takes from the environment. A Wetfile may declare either.
const FLAGS_VARIABLES: [&str; 2] = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"];

/// A guest whose package, compiler and environment are known: all that compiling it needs.
pub(in crate::build) struct Prepared {
    environment: Variables,
    toolchain: Toolchain,
    package: FoundPackage,
    target_dir: PathBuf,
    options: CargoOptions,
    /// What the package is made of.
    pub(in crate::build) roots: CargoRoots,
    /// What compiles it.
    pub(in crate::build) identity: lock::Toolchain,
    /// The files of that.
    pub(in crate::build) tools: Tools,
}

/// Asks what would compile a guest: its identity, and its files.
pub(in crate::build) fn ask(
    ctx: &Context<'_>,
    guest: &Guest,
    options: &CargoOptions,
    mut environment: Variables,
) -> Result<(lock::Toolchain, Tools), BuildError> {
    let dir = guest.dir.to_path(ctx.state.root());
    environment.extend(CARGO_VARIABLES.map(|(name, value)| (name.into(), value.into())));
    if let Some(toolchain) = &options.toolchain {
        environment.insert(TOOLCHAIN_VARIABLE.into(), toolchain.into());
    }
    let toolchain = Toolchain::of_folder(ctx, &guest.name, &dir, &environment)?;
    Ok((toolchain.identity(&options.profile)?, tools(ctx, &toolchain, &dir, &environment)?))
}

/// The files of a toolchain, those by which it is chosen, and the settings of cargo that are not the project's.
fn tools(ctx: &Context<'_>, toolchain: &Toolchain, dir: &Path, environment: &Variables) -> Result<Tools, BuildError> {
    let add = || {
        let mut tools = Tools::default();
        ["HOME", "CARGO_HOME", "RUSTUP_HOME"].iter().for_each(|name| tools.add_variable(name, environment));
        tools.add_compiler("rustc", dir, environment)?;
        tools.add_compiler("cargo", dir, environment)?;
        let above = || ctx.state.root().ancestors().skip(1);
        let choices =
            above().flat_map(|folder| ["rust-toolchain", "rust-toolchain.toml"].map(|name| folder.join(name)));
        let choices = choices.chain(rustup_home(environment).map(|home| home.join("settings.toml")));
        for path in choices.chain(toolchain.files()?) {
            tools.add_part(&path)?;
        }
        for path in cargo_config::files_of_user(ctx.state.root(), cargo_home(environment).as_deref()) {
            tools.add_settings(&path)?;
        }
        Ok(tools)
    };
    add().map_err(BuildError::io("read", "the files of the Rust toolchain"))
}

/// Where rustup keeps its toolchains, by its own rule.
fn rustup_home(environment: &Variables) -> Option<PathBuf> {
    let variable = |name: &str| environment.get(OsStr::new(name)).map(PathBuf::from);
    variable("RUSTUP_HOME").or_else(|| Some(variable("HOME")?.join(".rustup")))
}

/// Asks cargo and the compiler what there is to know about a guest.
pub(in crate::build) fn prepare(
    ctx: &Context<'_>,
    project: &Project,
    guest: &Guest,
    options: &CargoOptions,
    mut environment: Variables,
) -> Result<Prepared, BuildError> {
    let dir = guest.dir.to_path(ctx.state.root());
    let own = environment::digest_of_own(guest, &environment);
    let target_dir = ctx.state.cargo_target(project, &guest.name, own.as_deref());
    let target_dir = target_dir.map_err(BuildError::io("use", ctx.state.root().join("target/ww/cargo")))?;
    environment.extend(CARGO_VARIABLES.map(|(name, value)| (name.into(), value.into())));
    environment.insert(BUILD_FOLDER_VARIABLE.into(), target_dir.clone().into());
    if let Some(toolchain) = &options.toolchain {
        // Over what the folder asks for, as a `+toolchain` on the command line is.
        environment.insert(TOOLCHAIN_VARIABLE.into(), toolchain.into());
    }
    let toolchain = Toolchain::of_folder(ctx, &guest.name, &dir, &environment)?;
    let identity = toolchain.identity(&options.profile)?;
    let tools = tools(ctx, &toolchain, &dir, &environment)?;
    if !FLAGS_VARIABLES.iter().any(|name| environment.contains_key(OsStr::new(name))) {
        // Set, and be it to nothing, so that the flags of the user's own configuration do not count.
        let flags = cargo_config::rustflags(ctx.state.root(), &guest.dir, &toolchain.cfgs)?;
        environment.insert("CARGO_ENCODED_RUSTFLAGS".into(), flags.join("\x1f").into());
    }
    let manifest = dir.join("Cargo.toml");
    let package =
        FoundPackage::choose(&metadata(ctx, guest, &manifest, &environment)?, manifest, options.bin.as_deref())?;
    let roots = cargo_roots(project, guest, &mut |manifest: &Path| metadata(ctx, guest, manifest, &environment))?;
    let mut prefixes = toolchain.library_sources();
    prefixes.extend(own_prefixes(ctx.state.root(), &environment));
    environment.insert(MODE_VARIABLE.into(), Prefixes::new(prefixes).encode());
    environment.insert("RUSTC_WRAPPER".into(), ctx.ww.into());
    let options = options.clone();
    Ok(Prepared { environment, toolchain, package, target_dir, options, roots, identity, tools })
}

/// What cargo has made of a package.
pub(in crate::build) struct Made {
    /// The bytes of its program, or else of its `cdylib`.
    pub(in crate::build) bytes: Vec<u8>,
    /// The files and folders that were read for it; `None` if cargo does not tell.
    read: Option<BTreeSet<PathBuf>>,
}

/// Compiles the package in the guest's folder.
pub(in crate::build) fn build(ctx: &Context<'_>, guest: &Guest, prepared: &Prepared) -> Result<Made, BuildError> {
    let Prepared { environment, toolchain, package, .. } = prepared;
    let dir = guest.dir.to_path(ctx.state.root());
    let mut artifact = None;
    // What cargo says of a lock that it would have to change; its help is of a flag that nobody has given.
    let is_lock_stale = AtomicBool::new(false);
    let events = |event: Event<'_>| {
        if let Event::Output { line, .. } = &event
            && line.contains("lock file")
            && line.contains("--locked was passed")
        {
            is_lock_stale.store(true, Ordering::Relaxed);
        }
        (ctx.events)(event);
    };
    let ctx = &Context { events: &events, ..*ctx };
    let arguments = package.arguments(ctx, prepared.target_dir.clone(), &prepared.options);
    let call = Call { program: "cargo", arguments: &arguments, dir: &dir, environment, line_bytes_max: LINE_BYTES_MAX };
    let result = build::run(ctx, &guest.name, &call, &mut |line| match serde_json::from_str(line) {
        Ok(Message::CompilerArtifact(message)) => {
            artifact = package.program_of(&message).or(artifact.take());
            true
        }
        Ok(_) => true,
        Err(_) => false,
    });
    match result {
        Err(BuildError::Failed { .. }) if !toolchain.has_target() => Err(BuildError::TargetMissing),
        Err(BuildError::Failed { .. }) if is_lock_stale.load(Ordering::Relaxed) => {
            Err(BuildError::CargoLock { folder: package.workspace.clone() })
        }
        other => other,
    }?;
    let path = artifact.ok_or(BuildError::NoArtifact { path: None })?;
    let read = dep_info::read(&path).ok();
    let bytes = File::open(&path).and_then(wasm_binary::read).map_err(BuildError::io("read", path))?;
    Ok(Made { bytes, read })
}

/// What was read for a guest that is in none of its packages.
pub(in crate::build) fn beside(
    ctx: &Context<'_>,
    project: &Project,
    guest: &Guest,
    prepared: &Prepared,
    made: &Made,
    packages: PackageFiles<'_>,
) -> Result<Beside, BuildError> {
    let Some(read) = &made.read else { return Ok(Beside::default()) };
    let mut others = vec![prepared.target_dir.clone(), prepared.toolchain.sysroot().to_owned()];
    let home = cargo_home(&prepared.environment).into_iter();
    others.extend(home.flat_map(|home| ["registry", "git"].map(|folder| home.join(folder))));
    // These are told of each time.
    others.extend(prepared.roots.outside.iter().cloned());
    others.extend(guest.embeds.iter().map(|name| ctx.state.artifact(name)));
    let scanner = Scanner::knowing(project, ctx.memory)?;
    Ok(Beside::of(project, &scanner, packages, read, &others)?)
}

/// Tells what the lock does not see of what was read for a guest.
pub(in crate::build) fn warn_of_reads(ctx: &Context<'_>, guest: &Guest, made: &Made, beside: &Beside) {
    let warn = |text: String| (ctx.events)(Event::Warning { guest: &guest.name, text });
    if made.read.is_none() {
        warn("cargo does not tell which files it has read: changes outside of its packages are not seen".to_owned());
    }
    let outside = beside.watched.iter().map(Path::new).filter(|path| path.is_absolute());
    for path in outside.chain(beside.unreadable.iter().map(PathBuf::as_path)) {
        warn(format!(
            "it reads {}, outside of the project: the lock does not see what changes there",
            escape::path(path)
        ));
    }
}

/// Tells what may make the result differ from that of others: settings of the user's own, and sources that lie elsewhere.
pub(in crate::build) fn warn(ctx: &Context<'_>, guest: &Guest, prepared: &Prepared) {
    warn_of_settings(ctx, guest, &prepared.toolchain, &prepared.environment);
    for path in &prepared.roots.outside {
        let text = format!(
            "it depends on {}, outside of the project: the lock does not see what changes there",
            escape::path(path)
        );
        (ctx.events)(Event::Warning { guest: &guest.name, text });
    }
}

/// Asks cargo about the workspace of a manifest. That needs neither a network nor a lock file that fits.
fn metadata(
    ctx: &Context<'_>,
    guest: &Guest,
    manifest: &Path,
    environment: &Variables,
) -> Result<Metadata, BuildError> {
    let mut arguments: Vec<OsString> =
        ["metadata", "--no-deps", "--format-version=1", "--manifest-path"].map(OsString::from).into();
    arguments.push(manifest.into());
    let mut answer = String::new();
    // In the guest's folder, which decides which cargo answers.
    let dir = guest.dir.to_path(ctx.state.root());
    let call =
        Call { program: "cargo", arguments: &arguments, dir: &dir, environment, line_bytes_max: METADATA_BYTES_MAX };
    build::run(ctx, &guest.name, &call, &mut |line| {
        answer.push_str(line);
        true
    })?;
    let not_understood = |source| BuildError::Answer { program: "cargo metadata", source };
    if answer.len() >= METADATA_BYTES_MAX {
        return Err(not_understood(format!("it has {METADATA_BYTES_MAX} bytes or more").into()));
    }
    serde_json::from_str(&answer).map_err(|source| not_understood(source.into()))
}

/// Tells which of the user's own settings change what is compiled.
fn warn_of_settings(ctx: &Context<'_>, guest: &Guest, toolchain: &Toolchain, environment: &Variables) {
    let home = cargo_home(environment);
    for (path, settings) in cargo_config::unsafe_settings(ctx.state.root(), home.as_deref(), &toolchain.cfgs) {
        let text =
            format!("{} sets {}: others may get other bytes", escape::path(&path), escape::text(&settings.join(", ")));
        (ctx.events)(Event::Warning { guest: &guest.name, text });
    }
}

/// Where cargo keeps what it has fetched, by its own rule.
fn cargo_home(environment: &Variables) -> Option<PathBuf> {
    let variable = |name: &str| environment.get(OsStr::new(name)).map(PathBuf::from);
    variable("CARGO_HOME").or_else(|| Some(variable("HOME")?.join(".cargo")))
}

/// The folders whose paths must not reach a result, beside the compiler's own.
fn own_prefixes(root: &Path, environment: &Variables) -> Vec<(PathBuf, String)> {
    let folders = [(Some(root.to_owned()), PROJECT_PREFIX), (cargo_home(environment), CARGO_PREFIX)];
    let mut prefixes = Vec::new();
    for (folder, name) in folders {
        let Some(folder) = folder.filter(|folder| folder.is_absolute()) else { continue };
        // Cargo uses the path as given; a compiler that asks the system sees the real one.
        if let Some(real) = fs::canonicalize(&folder).ok().filter(|real| *real != folder) {
            prefixes.push((real, name.to_owned()));
        }
        prefixes.push((folder, name.to_owned()));
    }
    prefixes
}

/// The package in a guest's folder, and which of its targets is the guest.
#[derive(Debug)]
struct FoundPackage {
    id: PackageId,
    manifest: PathBuf,
    target: Target,
    /// The folder of its workspace.
    workspace: PathBuf,
    /// Whether that has a `Cargo.lock`.
    is_locked: bool,
}

impl FoundPackage {
    fn choose(metadata: &Metadata, manifest: PathBuf, bin: Option<&str>) -> Result<Self, BuildError> {
        let is_locked = metadata.workspace_root.join("Cargo.lock").is_file();
        let is_ours = |package: &&Package| package.manifest_path.as_std_path() == manifest;
        let Some(package) = metadata.packages.iter().find(is_ours) else {
            return Err(BuildError::NoPackage { manifest });
        };
        let target = choose_target(package, &manifest, bin)?;
        let workspace = metadata.workspace_root.clone().into_std_path_buf();
        Ok(Self { id: package.id.clone(), manifest, target, workspace, is_locked })
    }

    /// The arguments of the build. They select one target, so that a program and a `cdylib` of the same name, whose
    /// files would overwrite each other, are not both built.
    fn arguments(&self, ctx: &Context<'_>, target_dir: PathBuf, options: &CargoOptions) -> Vec<OsString> {
        let fixed =
            ["build", "--profile", &options.profile, "--target", TARGET, "--message-format=json-render-diagnostics"];
        let mut arguments: Vec<OsString> = fixed.map(OsString::from).into();
        arguments.extend(["--target-dir".into(), target_dir.into()]);
        arguments.extend(["--manifest-path".into(), self.manifest.clone().into()]);
        arguments.extend(["--package".into(), self.id.repr.clone().into()]);
        if self.target.is_kind(TargetKind::Bin) {
            arguments.extend(["--bin".into(), self.target.name.clone().into()]);
        } else {
            arguments.push("--lib".into());
        }
        if !options.features.is_empty() {
            let features: Vec<&str> = options.features.iter().map(String::as_str).collect();
            arguments.extend(["--features".into(), features.join(",").into()]);
        }
        if !options.default_features {
            arguments.push("--no-default-features".into());
        }
        if self.is_locked {
            arguments.push("--locked".into());
        }
        if ctx.offline {
            arguments.push("--offline".into());
        }
        arguments
    }

    /// The file of the guest, if a message of cargo is about it.
    fn program_of(&self, artifact: &cargo_metadata::Artifact) -> Option<PathBuf> {
        if artifact.package_id != self.id || artifact.target.name != self.target.name {
            return None;
        }
        if artifact.target.kind != self.target.kind {
            return None;
        }
        let is_wasm = |path: &&cargo_metadata::camino::Utf8PathBuf| path.extension() == Some("wasm");
        artifact.filenames.iter().find(is_wasm).map(|path| path.clone().into_std_path_buf())
    }
}

/// The target of a package that is the guest: the program `bin` if one is named; else its only program, or that of
/// `default-run`, or else its `cdylib`.
fn choose_target(package: &Package, manifest: &Path, bin: Option<&str>) -> Result<Target, BuildError> {
    let programs: Vec<&Target> = package.targets.iter().filter(|target| target.is_kind(TargetKind::Bin)).collect();
    let names = || {
        let mut names: Vec<String> = programs.iter().map(|target| target.name.clone()).collect();
        names.sort();
        names
    };
    if let Some(bin) = bin {
        let named = programs.iter().find(|target| target.name == bin).map(|target| (*target).clone());
        let missing =
            || BuildError::NoSuchProgram { manifest: manifest.to_owned(), bin: bin.to_owned(), programs: names() };
        return named.ok_or_else(missing);
    }
    let is_default = |target: &&&Target| package.default_run.as_ref() == Some(&target.name);
    match programs.as_slice() {
        [] => {
            let cdylib = package.targets.iter().find(|target| target.crate_types.contains(&CrateType::CDyLib));
            cdylib.cloned().ok_or_else(|| BuildError::NoTarget { manifest: manifest.to_owned() })
        }
        [only] => Ok((*only).clone()),
        several => several
            .iter()
            .find(is_default)
            .map(|target| (*target).clone())
            .ok_or_else(|| BuildError::SeveralPrograms { manifest: manifest.to_owned(), programs: names() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wetfile::RESERVED_FOR_RUST;

    #[test]
    fn what_is_set_for_cargo_cannot_be_declared() {
        for name in CARGO_VARIABLES.map(|(name, _)| name).into_iter().chain(["RUSTC_WRAPPER"]) {
            assert!(RESERVED_FOR_RUST.contains(&name), "{name}");
        }
        assert!(RESERVED_FOR_RUST.contains(&BUILD_FOLDER_VARIABLE));
    }
}
