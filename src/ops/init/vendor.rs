//! The crates that Rust guests use, as they are in the repository of this `ww`.
//!
//! Their manifests inherit from workspaces that are not there in a new project, so there are others of these in
//! `templates/vendor`; a test holds them against those of the repository.

/// A file of the repository, as where it is written in a project, where it is taken from, and its text.
type Copied = (&'static str, &'static str, &'static str);

macro_rules! copied {
    ($($to:literal from $from:literal,)*) => {
        &[$(($to, $from, include_str!(concat!("../../../", $from)))),*]
    };
}

/// What is copied as it is.
pub(super) const COPIED: &[Copied] = copied! {
    "vendor/LICENSE-APACHE" from "LICENSE-APACHE",
    "vendor/LICENSE-MIT" from "LICENSE-MIT",
    "vendor/ww-guest/src/attenuate.rs" from "guests/sdk/src/attenuate.rs",
    "vendor/ww-guest/src/bindings.rs" from "guests/sdk/src/bindings.rs",
    "vendor/ww-guest/src/budget.rs" from "guests/sdk/src/budget.rs",
    "vendor/ww-guest/src/byte_stream.rs" from "guests/sdk/src/byte_stream.rs",
    "vendor/ww-guest/src/executor.rs" from "guests/sdk/src/executor.rs",
    "vendor/ww-guest/src/exit.rs" from "guests/sdk/src/exit.rs",
    "vendor/ww-guest/src/lib.rs" from "guests/sdk/src/lib.rs",
    "vendor/ww-guest/src/logger.rs" from "guests/sdk/src/logger.rs",
    "vendor/ww-guest/src/module.rs" from "guests/sdk/src/module.rs",
    "vendor/ww-guest/src/process.rs" from "guests/sdk/src/process.rs",
    "vendor/ww-guest/src/reactor.rs" from "guests/sdk/src/reactor.rs",
    "vendor/ww-guest/src/rpc.rs" from "guests/sdk/src/rpc.rs",
    "vendor/ww-guest/src/stream.rs" from "guests/sdk/src/stream.rs",
    "vendor/ww-guest/src/terminal.rs" from "guests/sdk/src/terminal.rs",
    "vendor/ww-guest/wit/cell.wit" from "guests/sdk/wit/cell.wit",
    "vendor/ww-guest/wit/deps/io/LICENSE" from "guests/sdk/wit/deps/io/LICENSE",
    "vendor/ww-guest/wit/deps/io/io.wit" from "guests/sdk/wit/deps/io/io.wit",
    "vendor/ww-schema/peer.capnp" from "capnp/peer.capnp",
    "vendor/ww-schema/src/lib.rs" from "capnp/src/lib.rs",
    "vendor/ww-schema/src/peer_capnp.rs" from "capnp/src/peer_capnp.rs",
};

/// The manifests, as where they are written, and their text.
pub(super) const MANIFESTS: [(&str, &str); 2] = [
    ("vendor/ww-guest/Cargo.toml", include_str!("templates/vendor/ww-guest.toml")),
    ("vendor/ww-schema/Cargo.toml", include_str!("templates/vendor/ww-schema.toml")),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use toml::{Table, Value};

    use super::*;

    fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    fn files_below(folder: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(repository().join(folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            match entry.file_type().unwrap().is_dir() {
                true => files_below(&path, found),
                false => drop(found.insert(path)),
            }
        }
    }

    /// A file of these crates that is not in the table fails here, and so does one that was changed since this was compiled.
    #[test]
    fn all_of_the_crates_is_embedded_as_it_is_in_the_repository() {
        let mut there = BTreeSet::from(["LICENSE-APACHE", "LICENSE-MIT", "capnp/peer.capnp"].map(str::to_owned));
        for folder in ["guests/sdk/src", "guests/sdk/wit", "capnp/src"] {
            files_below(folder, &mut there);
        }
        let embedded: BTreeSet<String> = COPIED.iter().map(|(_, from, _)| (*from).to_owned()).collect();
        assert_eq!(embedded, there);
        let schemas = fs::read_dir(repository().join("capnp")).unwrap().map(|entry| entry.unwrap().path());
        assert_eq!(schemas.filter(|path| path.extension().is_some_and(|ending| ending == "capnp")).count(), 1);
        for (to, from, text) in COPIED {
            assert_eq!(*text, fs::read_to_string(repository().join(from)).unwrap(), "{from}");
            let expected = from.replace("guests/sdk/", "vendor/ww-guest/").replace("capnp/", "vendor/ww-schema/");
            assert!(*to == expected || *to == format!("vendor/{from}"), "{from} goes to {to}");
        }
    }

    fn table(path: &str) -> Table {
        fs::read_to_string(repository().join(path)).unwrap().parse().unwrap()
    }

    /// A value with what it inherits from a workspace.
    fn resolved(value: &Value, inherited: Option<&Value>) -> Value {
        match value.get("workspace") {
            Some(Value::Boolean(true)) => inherited.unwrap().clone(),
            _ => value.clone(),
        }
    }

    #[test]
    fn the_manifests_are_those_of_the_repository_without_their_workspaces() {
        for (of, workspace, (_, text)) in [("guests/sdk", "guests", MANIFESTS[0]), ("capnp", ".", MANIFESTS[1])] {
            let (repository, vendored) = (table(&format!("{of}/Cargo.toml")), text.parse::<Table>().unwrap());
            let workspace = &table(&format!("{workspace}/Cargo.toml"))["workspace"];
            for part in ["package", "dependencies"] {
                let keys = |table: &Table| -> BTreeSet<String> {
                    table[part].as_table().unwrap().keys().filter(|key| *key != "publish").cloned().collect()
                };
                assert_eq!(keys(&repository), keys(&vendored), "{of}");
                for key in keys(&vendored) {
                    let expected = resolved(&repository[part][&key], workspace[part].get(&key));
                    let is_path = vendored[part][&key].get("path").is_some();
                    assert!(expected == vendored[part][&key] || is_path, "{key} of {of} is {expected}");
                }
            }
        }
    }
}
