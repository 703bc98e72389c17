//! The layout of each image of this repository.
//!
//! They are what `ww inspect --format snapshot` shows; see `docs/snapshots.md`.

use ww::dag::unixfs::Profile;
use ww::ops;

use crate::support::root;

fn layout(image: &str) -> String {
    let path = root().join("examples/images").join(image);
    ops::snapshot(&ops::inspect(&path, Profile::default()).unwrap())
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
