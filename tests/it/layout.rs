//! The layout of each image of this repository.
//!
//! What compilers made is shown by its imports and exports, since its bytes belong to a toolchain; everything else by
//! its size and digest. Which interfaces of WASI a program imports is its standard library's choice, and differs between
//! toolchains, so these are checked for their version and not listed.

use std::fmt::Write;

use ww::image::{EntryKind, inspect};

use crate::support::root;

fn layout(image: &str) -> String {
    let mut shown = String::new();
    for entry in inspect(&root().join("examples/images").join(image)).unwrap() {
        match entry.kind {
            EntryKind::Folder => writeln!(shown, "{}/", entry.path).unwrap(),
            EntryKind::Symlink { target } => writeln!(shown, "{} -> {target}", entry.path).unwrap(),
            EntryKind::File { interface: Some(interface), .. } => {
                writeln!(shown, "{}: component", entry.path).unwrap();
                let (wasi, own): (Vec<_>, Vec<_>) = interface
                    .imports
                    .iter()
                    .map(|import| compatible(import))
                    .partition(|name| name.starts_with("wasi:"));
                assert!(wasi.iter().all(|name| name.ends_with("@0.2")), "{}: {wasi:?}", entry.path);
                writeln!(shown, "    imports of WASI 0.2").unwrap();
                for import in own {
                    writeln!(shown, "    imports {import}").unwrap();
                }
                for export in interface.exports {
                    writeln!(shown, "    exports {}", compatible(&export)).unwrap();
                }
            }
            EntryKind::File { size_bytes, sha256, interface: None } => {
                let digest: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(shown, "{}: {size_bytes} bytes, sha256 {digest}", entry.path).unwrap();
            }
        }
    }
    shown
}

/// The name without the patch of its version, such as `wasi:cli/run@0.2`: patches differ between toolchains, and are
/// compatible.
fn compatible(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((compatible, _)) if name.contains('@') => compatible,
        _ => name,
    }
}

#[test]
fn layout_of_child_echo() {
    insta::assert_snapshot!(layout("child-echo"));
}

#[test]
fn layout_of_pid0() {
    insta::assert_snapshot!(layout("pid0"));
}

#[test]
fn layout_of_shell() {
    insta::assert_snapshot!(layout("shell"));
}

#[test]
fn every_image_of_the_wetfile_has_a_snapshot() {
    let project = ww::wetfile::load(root()).unwrap();
    let names: Vec<_> = project.images.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["child-echo", "pid0", "shell"]);
}
