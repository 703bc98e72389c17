//! What a cell hands to its children, and what they can do with it.

use crate::support::{Done, finish, probe_image, ww_run};

const PROBE: &str = "/bin/probe.wasm";

/// Runs a behaviour of the probe that says itself whether the host did right.
#[track_caller]
fn ok(options: &[&str], args: &[&str]) -> String {
    let done = run(options, args).expect(0);
    let said = done.stdout.lines().any(|line| line.starts_with("ok: "));
    assert!(said, "--- stdout\n{}\n--- stderr\n{}", done.stdout, done.stderr);
    done.stdout
}

fn run(options: &[&str], args: &[&str]) -> Done {
    let image = probe_image();
    finish(ww_run(image.path(), options).arg("--").args(args))
}

#[test]
fn a_module_is_loaded_once_and_started_often() {
    ok(&[], &["module-spawn", PROBE]);
}

#[test]
fn a_child_that_is_handed_nothing_has_nothing() {
    insta::assert_snapshot!(ok(&[], &["handed-nothing", PROBE]));
}

#[test]
fn a_child_can_be_handed_the_host_of_its_parent() {
    ok(&[], &["handed-host", PROBE]);
}

#[test]
fn a_restricted_capability_is_what_was_listed_and_no_more() {
    insta::assert_snapshot!(ok(&[], &["restricted", PROBE]));
}

#[test]
fn a_revoked_capability_is_gone_with_all_that_came_through_it() {
    insta::assert_snapshot!(ok(&[], &["revoked", PROBE]));
}

#[test]
fn a_parent_can_serve_its_child() {
    ok(&[], &["serves", PROBE]);
}

#[test]
fn a_child_has_no_more_than_its_parent() {
    insta::assert_snapshot!(ok(&[], &["limits-of-child", PROBE]));
    let less = run(&["--limit", "memory=40MiB"], &["limits-of-child", PROBE]).expect(1);
    assert!(less.stderr.contains("memory of 64MiB, since its parent has 40MiB"), "{}", less.stderr);
    // What the parent has, it can give.
    let given = run(&["--grant", "network:127.0.0.0/8"], &["limits-of-child", PROBE]).expect(1);
    assert!(
        given.stdout.ends_with(
            "network: Failed: remote exception: a child cannot have the grant `network` beyond that of its parent\n"
        ),
        "{}",
        given.stdout
    );
    assert!(given.stderr.contains("a grant was exceeded"), "{}", given.stderr);
}

#[test]
fn a_child_without_room_for_files_has_none() {
    let args = ["spawn", PROBE, "files", "/tmp"];
    assert!(run(&[], &args).expect(0).stdout.contains("/tmp: folder: "));
    assert!(!run(&["--limit", "tmp=0"], &args).expect(0).stdout.contains("folder"));
}

#[test]
fn the_room_of_a_child_is_free_when_its_end_is_known() {
    run(&["--limit", "children=1"], &["module-time", PROBE, "300", "copy"]).expect(0);
}

#[test]
fn what_a_child_used_is_told() {
    ok(&[], &["usage", PROBE]);
}

#[test]
fn null_streams_stop_nobody() {
    ok(&[], &["null-stdio", PROBE]);
}

#[test]
fn capabilities_cannot_be_guessed() {
    for number in ["1", "2", "7", "4294967295"] {
        ok(&[], &["guess-ids", number]);
    }
}

#[test]
fn children_of_modules_end_with_their_parent_and_count_as_others() {
    let deep = run(&["--limit", "depth=0"], &["handed-nothing", PROBE]).expect(1);
    assert!(deep.stderr.contains("the limit `depth` is reached, which is 0"), "{}", deep.stderr);
    let none = run(&["--limit", "children=0"], &["handed-nothing", PROBE]).expect(1);
    assert!(none.stderr.contains("the limit `children` is reached, which is 0"), "{}", none.stderr);
}
