//! Which Rust compiler a folder gets, and what has to be known about it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::process::LINE_BYTES_MAX;
use super::{BuildError, Call, Context, RECIPE, TARGET, Variables, run};
use crate::wetfile::GuestName;
use crate::wetfile::lock::{self, Digest, Facts};

/// The programs, beside the compiler itself, that make a component: both come with it.
const LINKERS: [&str; 2] = ["rust-lld", "wasm-component-ld"];

/// How many hexadecimal digits of a commit and of a digest name a toolchain. Nobody is kept out by them.
const DIGITS: usize = 12;

/// What rustup, or `PATH`, gives a folder.
#[derive(Debug)]
pub(super) struct Toolchain {
    /// The folder that it lies in.
    sysroot: PathBuf,
    /// Where its libraries for [`TARGET`] are, if they are installed.
    target_libraries: PathBuf,
    /// What `cfg(…)` knows about [`TARGET`], one item as in `--print cfg` each.
    pub(super) cfgs: Vec<String>,
    version: Version,
}

/// What `rustc -vV` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Version {
    release: String,
    /// Distributions build compilers without one.
    commit: Option<String>,
    host: String,
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
        let (sysroot, target_libraries) = (path()?, path()?);
        let version = Version::read(&ask(ctx, guest, dir, environment, &["-vV"])?);
        let version = version.ok_or_else(|| short_answer("rustc -vV"))?;
        Ok(Self { sysroot, target_libraries, cfgs: lines.collect(), version })
    }

    /// The folder that it lies in.
    pub(super) fn sysroot(&self) -> &Path {
        &self.sysroot
    }

    /// Whether programs for [`TARGET`] can be compiled without building the standard library first.
    pub(super) fn has_target(&self) -> bool {
        fs::read_dir(&self.target_libraries).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Where the sources of the standard library lie, and the name they have in crates that are compiled without them.
    ///
    /// The compiler calls these files `/rustc/COMMIT/…` unless it finds them installed: then it puts their real path
    /// into panic messages, and the same program comes out different where rustup has installed `rust-src`.
    pub(super) fn library_sources(&self) -> Vec<(PathBuf, String)> {
        let folder = self.sysroot.join("lib/rustlib/src/rust");
        if !folder.join("library/std/src/lib.rs").is_file() {
            return Vec::new();
        }
        let commit = self.version.commit.as_ref().unwrap_or(&self.version.release);
        // A link to them, as distributions have it, is followed one step by the compiler; cargo may name either.
        let linked = fs::read_link(&folder).ok().map(|target| folder.with_file_name(target));
        let real = fs::canonicalize(&folder).ok();
        let folders = [Some(folder), linked, real].into_iter().flatten();
        folders.map(|folder| (folder, format!("/rustc/{commit}"))).collect()
    }

    /// What a guest's bytes depend on, its inputs aside: the compiler, the compiled standard library, cargo's profile, and
    /// the recipe of `ww`. The machine that the compiler runs on is none of it.
    ///
    /// The commit stands for the whole of a compiler that has one. Of one that has none, such as a distribution's, the
    /// linkers count on their own, since they may be of another origin.
    pub(super) fn identity(&self, profile: &str) -> Result<lock::Toolchain, BuildError> {
        let standard = digits(self.standard_library()?);
        let compiler = match &self.version.commit {
            Some(commit) => commit.get(..DIGITS).unwrap_or(commit).to_owned(),
            None => format!("without commit, linkers {}", digits(self.linkers()?)),
        };
        let release = &self.version.release;
        let text = format!("rustc {release} ({compiler}), {TARGET} std {standard}, {profile}, recipe {RECIPE}");
        lock::Toolchain::new(&text).ok_or_else(|| short_answer("rustc -vV"))
    }

    /// The files that [`Toolchain::identity`] tells of: the compiler, the compiled library, and the linkers.
    pub(super) fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = vec![self.sysroot.join("bin").join("rustc"), self.target_libraries.clone()];
        files.extend(self.library_files()?);
        files.extend(self.linker_files());
        Ok(files)
    }

    /// The compiled library for [`TARGET`], what is to be linked of it: the metadata beside it is as large again ten times
    /// over, and belongs to it.
    fn standard_library(&self) -> Result<Digest, BuildError> {
        let files = self.library_files().map_err(BuildError::io("read", &self.target_libraries))?;
        digest_files(&self.target_libraries, files)
    }

    fn library_files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut folders = vec![self.target_libraries.clone()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                // The build says how to install it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let path = entry?.path();
                match path.is_dir() {
                    true => folders.push(path),
                    false if path.extension().is_some_and(|extension| extension == "rmeta") => {}
                    false => files.push(path),
                }
            }
        }
        Ok(files)
    }

    fn linkers(&self) -> Result<Digest, BuildError> {
        digest_files(&self.linker_folder(), self.linker_files())
    }

    fn linker_files(&self) -> Vec<PathBuf> {
        LINKERS.map(|name| self.linker_folder().join(name)).into_iter().filter(|path| path.is_file()).collect()
    }

    fn linker_folder(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib").join(&self.version.host).join("bin")
    }
}

fn digits(digest: Digest) -> String {
    digest.to_string()[..DIGITS].to_owned()
}

fn digest_files(folder: &Path, mut files: Vec<PathBuf>) -> Result<Digest, BuildError> {
    files.sort_unstable();
    let mut facts = Facts::default();
    for path in files {
        let digest = File::open(&path).and_then(Digest::of_reader).map_err(BuildError::io("read", &path))?;
        facts.add(path.strip_prefix(folder).unwrap_or(&path).as_os_str().as_encoded_bytes());
        facts.add(digest.as_bytes());
    }
    Ok(facts.finish())
}

impl Version {
    fn read(answer: &[String]) -> Option<Self> {
        let value = |key: &str| answer.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        Some(Self {
            release: value("release")?.to_owned(),
            commit: value("commit-hash").filter(|hash| *hash != "unknown").map(str::to_owned),
            host: value("host").unwrap_or_default().to_owned(),
        })
    }
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
    fn versions() {
        let check = |answer: &[&str], expected: Option<(&str, Option<&str>)>| {
            let answer: Vec<String> = answer.iter().map(|line| (*line).to_owned()).collect();
            let version = Version::read(&answer);
            let found = version.as_ref().map(|version| (version.release.as_str(), version.commit.as_deref()));
            assert_eq!(found, expected);
        };
        check(&["rustc 1.95.0", "commit-hash: 598", "release: 1.95.0"], Some(("1.95.0", Some("598"))));
        check(&["rustc 1.96.0", "commit-hash: unknown", "release: 1.96.0"], Some(("1.96.0", None)));
        check(&["rustc"], None);
    }

    /// What a machine calls a toolchain does not depend on where it lies, and names what matters.
    #[test]
    fn identities() {
        let identity = |file: &str, content: &str, commit: Option<&str>| {
            let dir = tempfile::tempdir().unwrap();
            let libraries = dir.path().join("lib/rustlib/wasm32-wasip2/lib");
            let bin = dir.path().join("lib/rustlib/host/bin");
            for folder in [&libraries, &bin] {
                fs::create_dir_all(folder).unwrap();
            }
            fs::create_dir(libraries.join("self-contained")).unwrap();
            fs::write(libraries.join("libstd.rlib"), "std").unwrap();
            fs::write(bin.join("rust-lld"), "lld").unwrap();
            fs::write(dir.path().join("lib/rustlib").join(file), content).unwrap();
            let version = Version { release: "1.95.0".into(), commit: commit.map(str::to_owned), host: "host".into() };
            let sysroot = dir.path().to_owned();
            let toolchain = Toolchain { sysroot, target_libraries: libraries, cfgs: Vec::new(), version };
            toolchain.identity("release").unwrap().to_string()
        };
        let commit = Some("59807616e1fa2540724bfbac14d7976d7e4a3860");
        let base = identity("x", "", commit);
        assert!(base.starts_with("rustc 1.95.0 (59807616e1fa), wasm32-wasip2 std "), "{base}");
        assert_eq!(identity("host/bin/rust-lld", "other", commit), base);
        assert_eq!(identity("wasm32-wasip2/lib/libstd.rmeta", "x", commit), base);
        assert_ne!(identity("wasm32-wasip2/lib/libstd.rlib", "other", commit), base);
        assert_ne!(identity("wasm32-wasip2/lib/self-contained/libc.a", "x", commit), base);
        assert_ne!(identity("host/bin/rust-lld", "other", None), identity("x", "", None));
    }
}
