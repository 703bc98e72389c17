//! What cargo's configuration files mean for a guest.
//!
//! Cargo merges the files of the project with those of the user, in folders above the project and in `CARGO_HOME`. The
//! former are sources like others; the latter must not change what a guest compiles to. So the compiler's flags, which
//! users set most, are taken from the project's files alone and handed to cargo in the environment, which comes before
//! all files. For the few other settings of users that change results there is no such way, so they are found and
//! told. Everything else, such as registries, proxies and linkers for build scripts, is left to cargo.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cargo_metadata::cargo_platform::{Cfg, Platform};
use toml::{Table, Value};

use crate::build::{BuildError, TARGET};
use crate::wetfile::ProjectPath;

/// Names of a configuration file in a folder; the first that exists is the one that cargo reads.
const FILES: [&str; 2] = [".cargo/config", ".cargo/config.toml"];

/// Settings that change what is compiled, and that neither an argument nor the environment takes back.
const UNSAFE_SETTINGS: [&str; 5] = ["profile", "patch", "paths", "env", "unstable"];

/// The same among those of `[build]`.
const UNSAFE_BUILD_SETTINGS: [&str; 2] = ["rustc", "rustc-workspace-wrapper"];

/// Settings of a target that do not change what is compiled: flags come from the environment, and nothing is run. All
/// others, `linker` and what replaces build scripts, do.
const SAFE_TARGET_SETTINGS: [&str; 4] = ["rustflags", "rustdocflags", "runner", "ar"];

/// The flags for the compiler that the project's own files set for guests in `dir`.
///
/// As cargo does, those of the target win over those of `build`, and outer folders' flags come before inner ones'.
/// `cfgs` is what the compiler's `--print cfg` says about the target.
pub(super) fn rustflags(root: &Path, dir: &ProjectPath, cfgs: &[String]) -> Result<Vec<String>, BuildError> {
    let cfgs: Vec<Cfg> = cfgs.iter().filter_map(|cfg| cfg.parse().ok()).collect();
    let (mut by_target, mut by_cfg, mut by_build) = (Vec::new(), Vec::new(), Vec::new());
    for folder in std::iter::once(root.to_owned()).chain(dir.prefixes().map(|prefix| prefix.to_path(root))) {
        let Some(config) = read(&folder)? else { continue };
        for (platform, settings) in table(&config, "target").into_iter().flatten() {
            match platform.parse::<Platform>() {
                Ok(platform) if !platform.matches(TARGET, &cfgs) => {}
                Ok(Platform::Name(_)) => by_target.extend(flags(settings.get("rustflags"))),
                Ok(Platform::Cfg(_)) => by_cfg.extend(flags(settings.get("rustflags"))),
                // Cargo reads the file as well and says what is wrong with it.
                Err(_) => {}
            }
        }
        by_build.extend(flags(table(&config, "build").and_then(|build| build.get("rustflags"))));
    }
    by_target.append(&mut by_cfg);
    Ok(if by_target.is_empty() { by_build } else { by_target })
}

/// The user's configuration files that may change what guests compile to, each with the settings that do.
///
/// These are the files above the project and in `cargo_home`. A file that cannot be read or parsed is left to cargo.
/// `cfgs` is as for [`rustflags`].
pub(super) fn unsafe_settings(root: &Path, cargo_home: Option<&Path>, cfgs: &[String]) -> Vec<(PathBuf, Vec<String>)> {
    let cfgs: Vec<Cfg> = cfgs.iter().filter_map(|cfg| cfg.parse().ok()).collect();
    let found = |path: PathBuf| {
        let config: Table = fs::read_to_string(&path).ok()?.parse().ok()?;
        let settings = unsafe_settings_of(&config, &cfgs);
        (!settings.is_empty()).then_some((path, settings))
    };
    files_of_user(root, cargo_home).into_iter().filter_map(found).collect()
}

/// As [`unsafe_settings`], of the files in the folders above one, where no more is known of the target than its name.
pub fn settings_above(folder: &Path) -> Vec<(PathBuf, Vec<String>)> {
    unsafe_settings(folder, None, &[])
}

/// Where cargo looks for settings that are not the project's: above its folder, and in `cargo_home`. Sorted.
pub(super) fn files_of_user(root: &Path, cargo_home: Option<&Path>) -> Vec<PathBuf> {
    let above = root.ancestors().skip(1).flat_map(|folder| FILES.map(|file| folder.join(file)));
    let home = cargo_home.into_iter().flat_map(|home| ["config", "config.toml"].map(|file| home.join(file)));
    let mut files: Vec<PathBuf> = above.chain(home).collect();
    files.sort();
    files.dedup();
    files
}

fn unsafe_settings_of(config: &Table, cfgs: &[Cfg]) -> Vec<String> {
    let whole = UNSAFE_SETTINGS.into_iter().filter(|setting| config.contains_key(*setting));
    let mut found: Vec<String> = whole.map(str::to_owned).collect();
    if let Some(build) = table(config, "build") {
        let settings = UNSAFE_BUILD_SETTINGS.into_iter().filter(|setting| build.contains_key(*setting));
        found.extend(settings.map(|setting| format!("build.{setting}")));
    }
    let is_ours = |platform: &str| platform.parse::<Platform>().is_ok_and(|platform| platform.matches(TARGET, cfgs));
    for (platform, settings) in table(config, "target").into_iter().flatten() {
        let settings = settings.as_table().filter(|_| is_ours(platform)).into_iter().flat_map(Table::keys);
        let settings = settings.filter(|setting| !SAFE_TARGET_SETTINGS.contains(&setting.as_str()));
        found.extend(settings.map(|setting| format!("{setting} of the target")));
    }
    for (name, source) in table(config, "source").into_iter().flatten() {
        // Any other replacement is unpacked below `CARGO_HOME`, where its name does not matter.
        if source.get("directory").is_some() {
            found.push(format!("source.{name}.directory"));
        }
    }
    found
}

fn read(folder: &Path) -> Result<Option<Table>, BuildError> {
    for path in FILES.map(|file| folder.join(file)) {
        match fs::read_to_string(&path) {
            Ok(text) => {
                let config =
                    text.parse().map_err(|source| BuildError::CargoConfig { path, source: Box::new(source) })?;
                return Ok(Some(config));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(BuildError::io("read", path)(error)),
        }
    }
    Ok(None)
}

fn table<'a>(table: &'a Table, key: &str) -> Option<&'a Table> {
    table.get(key)?.as_table()
}

/// Flags are a list, or a text with spaces between them.
fn flags(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
        Some(Value::Array(items)) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CFGS: [&str; 3] = ["target_family=\"wasm\"", "target_os=\"wasi\"", "panic=\"abort\""];

    fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[track_caller]
    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let root = project(files);
        let dir = ProjectPath::new("guests/pid0").unwrap();
        let flags = rustflags(root.path(), &dir, &CFGS.map(str::to_owned)).unwrap();
        assert_eq!(flags, expected);
    }

    #[test]
    fn flags_of_the_project_outer_folders_first() {
        check(&[], &[]);
        check(
            &[
                ("guests/.cargo/config.toml", "build.rustflags = '-C  b'"),
                (".cargo/config.toml", "[build]\nrustflags = ['-C', 'a b']"),
                ("other/.cargo/config.toml", "build.rustflags = 'x'"),
            ],
            &["-C", "a b", "-C", "b"],
        );
    }

    #[test]
    fn flags_of_the_target_win() {
        check(
            &[(
                ".cargo/config.toml",
                "build.rustflags = 'b'\n[target.wasm32-wasip2]\nrustflags = ['t']\n\
                 [target.'cfg(target_family = \"wasm\")']\nrustflags = 'c'\n\
                 [target.'cfg(unix)']\nrustflags = 'u'\n[target.x86_64-unknown-linux-gnu]\nrustflags = 'x'",
            )],
            &["t", "c"],
        );
    }

    #[test]
    fn the_old_name_comes_first() {
        check(&[(".cargo/config", "build.rustflags = 'o'"), (".cargo/config.toml", "build.rustflags = 'n'")], &["o"]);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let root = project(&[(".cargo/config.toml", "build.")]);
        let error = rustflags(root.path(), &ProjectPath::root(), &[]).unwrap_err();
        assert!(matches!(error, BuildError::CargoConfig { path, .. } if path.ends_with(".cargo/config.toml")));
    }

    #[test]
    fn settings_of_users_that_change_results() {
        let folder = project(&[
            (".cargo/config.toml", "[profile.release]\nlto = true\n[net]\noffline = true"),
            (
                "home/config.toml",
                "[build]\nrustflags = 'x'\nrustc = 'y'\n[target.wasm32-wasip2]\nrustflags = 'x'\nlinker = 'l'\n\
                 [target.'cfg(unix)']\nlinker = 'l'\n[source.crates-io]\nreplace-with = 'v'\n\
                 [source.v]\ndirectory = 'vendor'",
            ),
            ("project/.cargo/config.toml", "[patch.crates-io]"),
        ]);
        let home = folder.path().join("home");
        let found = unsafe_settings(&folder.path().join("project"), Some(&home), &CFGS.map(str::to_owned));
        let expected: [(PathBuf, &[&str]); 2] = [
            (folder.path().join(".cargo/config.toml"), &["profile"]),
            (home.join("config.toml"), &["build.rustc", "linker of the target", "source.v.directory"]),
        ];
        assert_eq!(
            found,
            expected.map(|(path, settings)| (path, settings.iter().map(|text| (*text).to_owned()).collect()))
        );
    }
}
