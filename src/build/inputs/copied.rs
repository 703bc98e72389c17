//! Which files a project's guests need in another folder: what they are made of, and what their compilers ask for besides.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::Metadata;

use super::walk::Looked;
use super::{InputsError, Scanner, find};
use crate::build::process::{self, LINE_BYTES_MAX, Stream};
use crate::build::seen::Seen;
use crate::build::{Cancel, Variables, environment};
use crate::wetfile::lock::Lock;
use crate::wetfile::{Guest, Project, ProjectPath, Recipe};

/// Largest answer of `cargo metadata` in bytes.
const METADATA_BYTES_MAX: usize = 64 << 20;

/// Files and folders of a project, relative to its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestFiles {
    /// Files and symlinks.
    pub files: BTreeSet<PathBuf>,
    /// Folders that may be empty.
    pub folders: BTreeSet<PathBuf>,
}

impl GuestFiles {
    fn add(&mut self, seen: &Seen) {
        self.folders.extend(seen.listed().map(Path::to_owned));
        self.files.extend(seen.present());
    }

    fn add_looked(&mut self, looked: &Looked) {
        if let Some(seen) = &looked.seen {
            self.add(seen);
        }
    }
}

/// The files of all guests of a project, by the roots that its lock has.
///
/// Of a Rust guest's workspace the other members are among them, whole, as cargo compiles none without a look at all.
///
/// # Errors
///
/// [`InputsError`].
pub fn guest_files(
    project: &Project,
    lock: &Lock,
    variables: &Variables,
    cancel: &Cancel,
) -> Result<GuestFiles, InputsError> {
    let scanner = Scanner::new(project)?;
    let (mut found, mut manifests) = (GuestFiles::default(), BTreeSet::new());
    for guest in project.guests.values() {
        found.folders.insert(guest.dir.as_str().into());
        let roots = lock.guests.get(&guest.name).into_iter().flat_map(|locked| locked.inputs.roots.keys());
        let of_guest = find(&scanner, project, guest, (roots.map(String::as_str), []), variables, &BTreeMap::new())?;
        of_guest.roots.values().filter_map(|(_, seen)| seen.as_ref()).for_each(|seen| found.add(seen));
        if matches!(guest.recipe, Recipe::Rust(_))
            && !manifests.contains(&guest.dir.to_path(&project.root).join("Cargo.toml"))
        {
            for manifest in members(project, guest, variables, cancel) {
                let folder = manifest.parent().and_then(|folder| folder.strip_prefix(&project.root).ok());
                let folder = match folder.and_then(Path::to_str) {
                    Some("") => Some(ProjectPath::root()),
                    folder => folder.and_then(|folder| ProjectPath::new(folder).ok()),
                };
                if let Some(folder) = folder {
                    found.add_looked(&scanner.rust_root(&folder)?);
                }
                manifests.insert(manifest);
            }
        }
    }
    Ok(found)
}

/// The manifests of the workspace that a Rust guest belongs to. Where cargo cannot tell, the build in the other folder says why.
fn members(project: &Project, guest: &Guest, variables: &Variables, cancel: &Cancel) -> Vec<PathBuf> {
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version=1"];
    let lines = ask(project, guest, variables, cancel, ("cargo", &arguments), METADATA_BYTES_MAX);
    let metadata = lines.and_then(|lines| serde_json::from_str::<Metadata>(&lines.concat()).ok());
    let packages = metadata.map(|metadata| metadata.packages).unwrap_or_default();
    packages.into_iter().map(|package| package.manifest_path.into_std_path_buf()).collect()
}

/// What `RUSTUP_TOOLCHAIN` has to be in another folder for the toolchain that a guest's own folder chooses; `None` where
/// there is no compiler.
pub fn rustup_toolchain(project: &Project, guest: &Guest, variables: &Variables, cancel: &Cancel) -> Option<OsString> {
    let lines = ask(project, guest, variables, cancel, ("rustc", &["--print=sysroot"]), LINE_BYTES_MAX)?;
    let sysroot = PathBuf::from(lines.first()?);
    // Those that rustup has installed have a name, and all others a path.
    let is_installed = sysroot.parent().is_some_and(|folder| folder.ends_with("toolchains"));
    match sysroot.file_name().filter(|_| is_installed) {
        Some(name) => Some(name.to_owned()),
        None => Some(sysroot.into_os_string()),
    }
}

/// Asks a program in a guest's folder, as its build would.
fn ask(
    project: &Project,
    guest: &Guest,
    variables: &Variables,
    cancel: &Cancel,
    (program, arguments): (&str, &[&str]),
    line_bytes_max: usize,
) -> Option<Vec<String>> {
    let alone = Guest { embeds: Vec::new(), ..guest.clone() };
    let environment = environment::of_guest(variables, &alone, &BTreeMap::new());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(guest.dir.to_path(&project.root)).env_clear().envs(&environment);
    let mut lines = Vec::new();
    let status = process::run(&mut command, cancel, line_bytes_max, &mut |stream, line| {
        if stream == Stream::Stdout {
            lines.push(line.to_owned());
        }
    });
    status.is_ok_and(|status| status.success()).then_some(lines)
}
