//! Rules that hold for the source text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers of `ARCHITECTURE.md`, the highest first. A module uses modules of lower layers only.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["ops"],
    &["host"],
    &["caps"],
    &["cell", "vat", "swarm", "build", "image", "remote", "serve", "terminal"],
    &["wetfile", "blockstore", "vfs"],
    &["tree"],
    &["dag", "grant"],
    &["atomic_file", "checksum", "escape", "folder", "private_file", "quantity", "toml_nesting", "wasm_binary"],
];

/// Crates that only some modules may name.
const OWNERS: &[(&str, &[&str])] = &[
    ("libp2p", &["swarm"]),
    ("wasmtime", &["cell"]),
    ("wasmtime_wasi", &["cell"]),
    ("capnp", &["vat", "caps"]),
    ("capnp_rpc", &["vat", "caps", "host"]),
    ("hyper", &["remote", "serve"]),
    ("hyper_util", &["remote", "serve"]),
    ("http_body_util", &["remote", "serve"]),
    ("reqwest", &["remote"]),
    ("rustls_platform_verifier", &["remote"]),
    ("tokio_rustls", &["remote"]),
    ("clap", &["cli"]),
    ("annotate_snippets", &["cli"]),
    ("cargo_metadata", &["build"]),
    ("globset", &["build", "wetfile"]),
    ("ignore", &["build"]),
    ("wasi_preview1_component_adapter_provider", &["build"]),
    ("wit_component", &["build"]),
    ("rusqlite", &["blockstore"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module a file belongs to, and its lines without comments.
fn sources() -> Vec<(String, PathBuf, String)> {
    let source_dir = root().join("src");
    let mut files = Vec::new();
    rust_files(&source_dir, &mut files);
    files.sort();
    let code = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
    };
    files
        .into_iter()
        .map(|path| {
            let below = path.strip_prefix(&source_dir).unwrap().with_extension("");
            let module = below.iter().next().unwrap().to_str().unwrap().to_owned();
            let text = code(&path);
            (module, path, text)
        })
        .collect()
}

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|modules| modules.contains(&module))
        .unwrap_or_else(|| panic!("module `{module}` is in no layer: add it to ARCHITECTURE.md and to this test"))
}

/// The identifiers that follow each `prefix` in `text`, also those in a group: `prefix{a, b::c}`.
fn names_after(text: &str, prefix: &str) -> BTreeSet<String> {
    let identifier = |text: &str| -> String {
        text.trim_start().chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
    };
    let mut names = BTreeSet::new();
    for (place, _) in text.match_indices(prefix) {
        let rest = &text[place + prefix.len()..];
        match rest.strip_prefix('{') {
            None => names.extend([identifier(rest)]),
            Some(group) => {
                let group = group.split("};").next().unwrap();
                let mut depth = 0;
                let mut start = 0;
                for (index, character) in group.char_indices() {
                    match character {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            names.insert(identifier(&group[start..index]));
                            start = index + 1;
                        }
                        _ => {}
                    }
                }
                names.insert(identifier(&group[start..]));
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn modules_use_lower_layers_only() {
    let mut wrong = Vec::new();
    let mut seen = BTreeMap::<String, BTreeSet<String>>::new();
    for (module, path, text) in sources() {
        // Tests of a module may look at what others make of its results.
        if module == "lib" || module == "main" || path.ends_with("tests.rs") {
            continue;
        }
        for used in names_after(&text, "crate::") {
            if used != module && layer(&used) <= layer(&module) {
                wrong.push(format!("{}: `{module}` uses `{used}`", path.display()));
            }
            seen.entry(module.clone()).or_default().insert(used);
        }
    }
    assert!(wrong.is_empty(), "arrows that point up or sideways:\n{}", wrong.join("\n"));
    assert!(seen["host"].contains("caps") && seen["cli"].contains("ops"), "the test does not see the arrows: {seen:?}");
}

#[test]
fn outside_systems_have_one_owner() {
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for (module, path, text) in sources() {
        for (name, owners) in OWNERS {
            let is_named = text.match_indices(&format!("{name}::")).any(|(place, _)| {
                !text[..place].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
            });
            if is_named {
                named.insert(*name);
                if !owners.contains(&module.as_str()) {
                    wrong.push(format!("{}: `{module}` names `{name}`", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(named.len(), OWNERS.len(), "the table lists a crate that nobody names, or the test does not see it");
}

#[test]
fn every_module_is_in_the_architecture() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let modules: BTreeSet<_> = sources().into_iter().map(|(module, ..)| module).collect();
    for module in modules.iter().filter(|module| !["lib", "main"].contains(&module.as_str())) {
        assert!(architecture.contains(&format!("`{module}`")), "`{module}` is not in ARCHITECTURE.md");
    }
    for module in LAYERS.iter().copied().flatten() {
        assert!(modules.contains(*module), "`{module}` is in the table of layers and not in src");
    }
}

#[test]
fn no_test_is_ignored() {
    let mut files = Vec::new();
    for dir in ["src", "tests", "capnp/examples", "guests"] {
        rust_files(&root().join(dir), &mut files);
    }
    let ignored = concat!("#[", "ignore");
    for path in files.iter().filter(|path| !path.components().any(|part| part.as_os_str() == "target")) {
        let text = fs::read_to_string(path).unwrap();
        assert!(!text.contains(ignored), "{} has an ignored test", path.display());
    }
}
