//! Which Rust compiler a folder gets, and what has to be known about it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::process::LINE_BYTES_MAX;
use super::{BuildError, Call, Context, TARGET, Variables, run};
use crate::wetfile::GuestName;

/// What rustup, or `PATH`, gives a folder.
#[derive(Debug)]
pub(super) struct Toolchain {
    /// The folder that it lies in.
    sysroot: PathBuf,
    /// Where its libraries for [`TARGET`] are, if they are installed.
    target_libraries: PathBuf,
    /// What `cfg(…)` knows about [`TARGET`], one item as in `--print cfg` each.
    pub(super) cfgs: Vec<String>,
}

impl Toolchain {
    /// Asks the compiler that cargo would use in this folder.
    pub(super) fn of_folder(
        ctx: &Context<'_>,
        guest: &GuestName,
        dir: &Path,
        environment: &Variables,
    ) -> Result<Self, BuildError> {
        let arguments = ["--target", TARGET, "--print=sysroot", "--print=target-libdir", "--print=cfg"];
        let mut lines = ask(ctx, guest, dir, environment, &arguments)?.into_iter();
        let mut path = || lines.next().map(PathBuf::from).ok_or_else(|| short_answer("rustc --print"));
        Ok(Self { sysroot: path()?, target_libraries: path()?, cfgs: lines.collect() })
    }

    /// Whether programs for [`TARGET`] can be compiled without building the standard library first.
    pub(super) fn has_target(&self) -> bool {
        fs::read_dir(&self.target_libraries).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Where the sources of the standard library lie, and the name they have in crates that are compiled without them.
    ///
    /// The compiler calls these files `/rustc/COMMIT/…` unless it finds them installed: then it puts their real path
    /// into panic messages, and the same program comes out different where rustup has installed `rust-src`.
    pub(super) fn library_sources(
        &self,
        ctx: &Context<'_>,
        guest: &GuestName,
        dir: &Path,
        environment: &Variables,
    ) -> Result<Vec<(PathBuf, String)>, BuildError> {
        let folder = self.sysroot.join("lib/rustlib/src/rust");
        if !folder.join("library/std/src/lib.rs").is_file() {
            return Ok(Vec::new());
        }
        let answer = ask(ctx, guest, dir, environment, &["-vV"])?;
        let commit = commit(&answer).ok_or_else(|| short_answer("rustc -vV"))?;
        // A link to them, as distributions have it, is followed one step by the compiler; cargo may name either.
        let linked = fs::read_link(&folder).ok().map(|target| folder.with_file_name(target));
        let real = fs::canonicalize(&folder).ok();
        let folders = [Some(folder), linked, real].into_iter().flatten();
        Ok(folders.map(|folder| (folder, format!("/rustc/{commit}"))).collect())
    }
}

/// The commit of a compiler by its `-vV`; builds without one name their release in its place.
fn commit(answer: &[String]) -> Option<&str> {
    let value = |key: &str| answer.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    value("commit-hash").filter(|hash| *hash != "unknown").or_else(|| value("release"))
}

fn ask(
    ctx: &Context<'_>,
    guest: &GuestName,
    dir: &Path,
    environment: &Variables,
    arguments: &[&str],
) -> Result<Vec<String>, BuildError> {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    let mut lines = Vec::new();
    let call = Call { program: "rustc", arguments: &arguments, dir, environment, line_bytes_max: LINE_BYTES_MAX };
    run(ctx, guest, &call, &mut |line| {
        lines.push(line.to_owned());
        true
    })?;
    Ok(lines)
}

fn short_answer(program: &'static str) -> BuildError {
    BuildError::Answer { program, source: "it is too short".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits() {
        let check = |answer: &[&str], expected| {
            let answer: Vec<String> = answer.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(commit(&answer), expected);
        };
        check(&["rustc 1.95.0", "commit-hash: 598", "release: 1.95.0"], Some("598"));
        check(&["rustc 1.96.0", "commit-hash: unknown", "release: 1.96.0"], Some("1.96.0"));
        check(&["rustc"], None);
    }
}
