//! A `rustc` in front of `rustc`, which keeps the project's folder and the user's home out of what is compiled.
//!
//! Cargo names a path dependency by its path from the workspace's root, or, if it lies elsewhere, by its absolute
//! path. The name enters `-C metadata`, from there every symbol's hash and `TypeId`, and with them the order of
//! functions: the bytes. So `ww` is cargo's `RUSTC_WRAPPER` (a mode of the same binary, chosen by the variable
//! [`MODE_VARIABLE`], which only [`build`](super) sets), and for each crate:
//!
//! - `-C metadata` becomes a digest of what the crate is, wherever it lies. `-C extra-filename`, by which
//!   cargo finds its files, stays;
//! - paths in panic messages and debug information get prefixes that are the same everywhere;
//! - a wasm module is named after its crate. Its linker would name it after the output file, `-C extra-filename`
//!   included.
//!
//! Calls that compile no crate (`rustc -vV`, probes of build scripts) pass unchanged. Options in a response file are
//! not looked into: cargo writes one only where a command line is longer than the system allows.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::TARGET;

/// The variable that makes `ww` a wrapper: if it is set, call [`exec`] first thing. Its value has the prefixes to
/// replace.
pub const MODE_VARIABLE: &str = "WW_RUSTC_WRAPPER";

/// Separates the items of [`MODE_VARIABLE`], as in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: u8 = 0x1f;

/// What the project's root is called in compiled crates.
pub(super) const PROJECT_PREFIX: &str = "/ww/project";

/// What the user's `CARGO_HOME` is called.
pub(super) const CARGO_PREFIX: &str = "/ww/cargo";

/// Where, below `CARGO_HOME`, cargo unpacks packages: into a folder for each registry, which it names after the
/// registry's address. Whoever fetches from a mirror has another one.
const REGISTRIES: &str = "registry/src";

/// What each of those folders is called.
const REGISTRY_PREFIX: &str = "/ww/registry";

/// What the folder with a build script's output is called.
const OUT_PREFIX: &str = "/ww/out";

/// Folders and what they are called in compiled crates.
///
/// Where one folder lies in the other, the inner one's name counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefixes(Vec<(PathBuf, String)>);

impl Prefixes {
    /// Makes a list from pairs of folder and name. Folders are absolute.
    pub(super) fn new(pairs: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        // The compiler takes the last one that matches.
        pairs.sort_by_key(|(folder, _)| folder.components().count());
        Self(pairs)
    }

    /// The value of [`MODE_VARIABLE`].
    pub(super) fn encode(&self) -> OsString {
        let items = self.0.iter().flat_map(|(folder, name)| [folder.as_os_str().as_bytes(), name.as_bytes()]);
        OsString::from_vec(items.collect::<Vec<_>>().join(&SEPARATOR))
    }

    fn decode(value: &OsStr) -> Self {
        let items: Vec<&[u8]> = value.as_bytes().split(|byte| *byte == SEPARATOR).collect();
        let pair =
            |pair: &[&[u8]]| (PathBuf::from(OsStr::from_bytes(pair[0])), String::from_utf8_lossy(pair[1]).into());
        Self(items.chunks_exact(2).map(pair).collect())
    }

    /// With the folder of the registry that a package comes from, if it comes from one.
    fn with_registry_of(self, package: &Path) -> Self {
        let homes = self.0.iter().filter(|(_, name)| name == CARGO_PREFIX).map(|(home, _)| home.join(REGISTRIES));
        let registries = homes.filter_map(|registries| {
            let registry = package.strip_prefix(&registries).ok()?.components().next()?;
            Some((registries.join(registry), REGISTRY_PREFIX.to_owned()))
        });
        let registries: Vec<_> = registries.collect();
        Self::new(self.0.into_iter().chain(registries))
    }

    /// A path with its folder's name in place of the folder; unchanged if it lies in none of them.
    fn replace(&self, path: &Path) -> PathBuf {
        let mut pairs = self.0.iter().rev();
        pairs
            .find_map(|(folder, name)| path.strip_prefix(folder).ok().map(|rest| Path::new(name).join(rest)))
            .unwrap_or_else(|| path.to_owned())
    }
}

/// What cargo tells about the crate that is compiled.
#[derive(Debug, Default)]
struct Crate {
    package: OsString,
    version: OsString,
    /// The package's folder.
    dir: PathBuf,
    /// The output folder of its build script, if it has one.
    out_dir: Option<PathBuf>,
}

/// Becomes the compiler. `arguments` are those after the program's name: the compiler and its arguments.
///
/// Returns only if that fails.
pub fn exec(arguments: impl IntoIterator<Item = OsString>, variable: impl Fn(&str) -> Option<OsString>) -> io::Error {
    let mut arguments = arguments.into_iter();
    let Some(compiler) = arguments.next() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no compiler is named");
    };
    let crate_ = Crate {
        package: variable("CARGO_PKG_NAME").unwrap_or_default(),
        version: variable("CARGO_PKG_VERSION").unwrap_or_default(),
        dir: variable("CARGO_MANIFEST_DIR").unwrap_or_default().into(),
        out_dir: variable("OUT_DIR").map(PathBuf::from),
    };
    let prefixes = Prefixes::decode(&variable(MODE_VARIABLE).unwrap_or_default()).with_registry_of(&crate_.dir);
    Command::new(compiler).args(rewrite(arguments.collect(), &crate_, &prefixes)).exec()
}

/// The arguments with which the compiler is called in place of those that cargo gave.
fn rewrite(mut arguments: Vec<OsString>, crate_: &Crate, prefixes: &Prefixes) -> Vec<OsString> {
    let Some(metadata) = position_of_metadata(&arguments) else { return arguments };
    arguments[metadata] = format!("metadata={}", identity(&arguments, crate_, prefixes)).into();
    let out_name = || format!("{OUT_PREFIX}/{}-{}", crate_.package.display(), crate_.version.display());
    let out = crate_.out_dir.iter().map(|dir| (dir.clone(), out_name()));
    for (folder, name) in prefixes.0.iter().cloned().chain(out) {
        let mut option = OsString::from("--remap-path-prefix=");
        option.push(folder);
        option.push("=");
        option.push(name);
        arguments.push(option);
    }
    let module_name = wasm_module_name(&arguments).map(|name| format!("-Clink-arg=--soname={name}.wasm").into());
    arguments.extend(module_name);
    arguments
}

/// The index of the value of `-C metadata`; cargo gives option and value apart, and no crate without it.
fn position_of_metadata(arguments: &[OsString]) -> Option<usize> {
    let pairs = arguments.windows(2);
    let is_metadata = |pair: &[OsString]| pair[0] == "-C" && pair[1].as_bytes().starts_with(b"metadata=");
    pairs.into_iter().position(is_metadata).map(|option| option + 1)
}

/// What a crate is, wherever it lies: 16 hexadecimal digits, as many as cargo gives.
///
/// The digest is of the package's name, version and folder (below a prefix), the crate's name and type, features and
/// other `cfg`s, the target, and whether it is a test. Two crates in one program differ in one of these: cargo compiles
/// a package for a target once for each set of features. (The same version of a package from two registries would not
/// differ; the compiler refuses it then.) Options for code generation are left out; they differ only
/// together with one of these, and may hold paths.
fn identity(arguments: &[OsString], crate_: &Crate, prefixes: &Prefixes) -> String {
    let dir = prefixes.replace(&crate_.dir);
    let mut digest = Sha256::new();
    let mut fact = |fact: &OsStr| {
        digest.update((fact.len() as u64).to_le_bytes());
        digest.update(fact.as_bytes());
    };
    [crate_.package.as_os_str(), &crate_.version, dir.as_os_str()].into_iter().for_each(&mut fact);
    for pair in arguments.windows(2) {
        if ["--crate-name", "--crate-type", "--cfg", "--target"].iter().any(|option| pair[0] == *option) {
            fact(&pair[0]);
            fact(&pair[1]);
        }
    }
    if arguments.iter().any(|argument| argument == "--test") {
        fact(OsStr::new("--test"));
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The name for the wasm module that this call links, if it links one.
fn wasm_module_name(arguments: &[OsString]) -> Option<&str> {
    let values = |option: &'static str| {
        arguments.windows(2).filter(move |pair| pair[0] == option).filter_map(|pair| pair[1].to_str())
    };
    let links = values("--crate-type").any(|crate_type| matches!(crate_type, "bin" | "cdylib"));
    let is_guest = values("--target").any(|target| target == TARGET);
    values("--crate-name").next().filter(|_| links && is_guest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes() -> Prefixes {
        let pairs = [("/home/me/project/.cargo-home", "/ww/cargo"), ("/home/me/project", "/ww/project")];
        Prefixes::new(pairs.map(|(folder, name)| (folder.into(), name.to_owned())))
    }

    fn crate_at(dir: &str) -> Crate {
        Crate { package: "schema".into(), version: "0.1.0".into(), dir: dir.into(), out_dir: None }
    }

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[track_caller]
    fn rewritten(arguments: &str, crate_: &Crate) -> String {
        rewrite(words(arguments), crate_, &prefixes()).join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn prefixes_survive_the_environment_and_the_innermost_wins() {
        let prefixes = prefixes();
        assert_eq!(Prefixes::decode(&prefixes.encode()), prefixes);
        assert_eq!(Prefixes::decode(OsStr::new("")), Prefixes::default());
        assert_eq!(prefixes.replace(Path::new("/home/me/project/a")), Path::new("/ww/project/a"));
        assert_eq!(prefixes.replace(Path::new("/home/me/project/.cargo-home/x")), Path::new("/ww/cargo/x"));
        assert_eq!(prefixes.replace(Path::new("/home/me/projects")), Path::new("/home/me/projects"));
        let last = prefixes.0.last().unwrap();
        assert_eq!(last.1, "/ww/cargo", "the compiler takes the last match");
    }

    #[test]
    fn registries_have_one_name() {
        let name = |path: &str| prefixes().with_registry_of(Path::new(path)).replace(Path::new(path));
        for registry in ["mirror.example-1949cf8c6b5b557f", "mirror-0123"] {
            let package = format!("/home/me/project/.cargo-home/registry/src/{registry}/serde-1.0.0");
            assert_eq!(name(&package), Path::new("/ww/registry/serde-1.0.0"));
        }
        assert_eq!(name("/home/me/project/.cargo-home/git/x"), Path::new("/ww/cargo/git/x"));
        assert_eq!(name("/home/me/project/a"), Path::new("/ww/project/a"));
    }

    #[test]
    fn calls_that_compile_no_crate_pass() {
        for call in ["-vV", "- --crate-name ___ --print=file-names --crate-type bin --target wasm32-wasip2"] {
            assert_eq!(rewrite(words(call), &Crate::default(), &prefixes()), words(call));
        }
    }

    #[test]
    fn metadata_is_replaced_and_the_file_name_kept() {
        let arguments = "--crate-name schema src/lib.rs --crate-type lib -C metadata=0123 -C extra-filename=-4567";
        let result = rewritten(arguments, &crate_at("/home/me/project/schema"));
        let (before, after) = result.split_once("metadata=").unwrap();
        assert_eq!(before, "--crate-name schema src/lib.rs --crate-type lib -C ");
        assert_eq!(
            &after[16..],
            " -C extra-filename=-4567 --remap-path-prefix=/home/me/project=/ww/project \
             --remap-path-prefix=/home/me/project/.cargo-home=/ww/cargo"
        );
    }

    #[test]
    fn identity_does_not_depend_on_the_project_folder() {
        let arguments = words("--crate-name schema --crate-type lib -C metadata=1 --out-dir /a -L dependency=/a");
        let elsewhere = words("--crate-name schema --crate-type lib -C metadata=2 --out-dir /b -L dependency=/b");
        let other = Prefixes::new([(PathBuf::from("/b"), "/ww/project".to_owned())]);
        assert_eq!(
            identity(&arguments, &crate_at("/home/me/project/schema"), &prefixes()),
            identity(&elsewhere, &crate_at("/b/schema"), &other),
        );
    }

    #[test]
    fn identity_depends_on_what_the_crate_is() {
        let base = "--crate-name a --crate-type lib --target t";
        let digest = |arguments: &str, dir: &str| identity(&words(arguments), &crate_at(dir), &prefixes());
        let mut digests = vec![digest(base, "/home/me/project/a"), digest(base, "/home/me/project/b")];
        for other in [
            "--crate-name b --crate-type lib --target t",
            "--crate-name a --crate-type bin --target t",
            "--crate-name a --crate-type lib",
            "--crate-name a --crate-type lib --target t --cfg feature=\"x\"",
            "--crate-name a --crate-type lib --target t --test",
        ] {
            digests.push(digest(other, "/home/me/project/a"));
        }
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 7);
    }

    #[test]
    fn outputs_of_build_scripts_get_a_name() {
        let crate_ = Crate { out_dir: Some("/t/build/schema-0123/out".into()), ..crate_at("/x") };
        let result = rewritten("--crate-name schema -C metadata=0", &crate_);
        assert!(result.ends_with(" --remap-path-prefix=/t/build/schema-0123/out=/ww/out/schema-0.1.0"), "{result}");
    }

    #[test]
    fn wasm_modules_are_named_after_their_crate() {
        let name = |text: &str| wasm_module_name(&words(text)).map(str::to_owned);
        assert_eq!(name("--crate-name a --crate-type bin --target wasm32-wasip2").as_deref(), Some("a"));
        assert_eq!(
            name("--crate-name a --crate-type rlib --crate-type cdylib --target wasm32-wasip2").as_deref(),
            Some("a")
        );
        assert_eq!(name("--crate-name a --crate-type lib --target wasm32-wasip2"), None);
        assert_eq!(name("--crate-name a --crate-type bin"), None);
    }
}
