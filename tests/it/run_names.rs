//! What `ww run` runs where a name may mean several things.

use std::fs;
use std::path::Path;

use crate::build_command::{COPY, copying_project};
use crate::support::{Done, finish, guest, image_of, ww};

fn run(dir: &Path, args: &[&str]) -> Done {
    let mut command = ww(&["-q", "run", "--listen", "none"]);
    finish(command.args(args).current_dir(dir))
}

/// A guest's sources lie in a folder that has the image's name, as often as not.
#[test]
fn a_folder_that_is_no_image_yields_to_the_wetfile() {
    let dir = copying_project(COPY);
    fs::create_dir(dir.path().join("echo")).unwrap();
    fs::write(dir.path().join("echo/main.c"), "int main() {}").unwrap();
    run(dir.path(), &["echo", "--", "--exit", "7"]).expect(7);
    assert!(dir.path().join("out/bin/main.wasm").is_file());
    // Others that are told of an image take the same.
    for command in [["inspect", "echo"], ["verify", "echo"]] {
        finish(ww(&command).current_dir(dir.path())).expect(0);
    }
    // A folder by its path is meant as one.
    let done = run(dir.path(), &["./echo"]).expect(127);
    assert!(done.stderr.contains("has no bin/main.wasm"), "{}", done.stderr);
    // And so is one that is an image.
    let probe = image_of("probe");
    fs::create_dir(dir.path().join("echo/bin")).unwrap();
    fs::copy(probe.path().join("bin/main.wasm"), dir.path().join("echo/bin/main.wasm")).unwrap();
    fs::remove_dir_all(dir.path().join("out")).unwrap();
    assert_ne!(run(dir.path(), &["echo", "--", "--exit", "7"]).code, Some(7));
    assert!(!dir.path().join("out").exists());
}

/// What is there is not lost by a slip, however the image is named.
#[test]
fn a_status_file_takes_the_place_of_nothing_of_the_project() {
    let dir = copying_project(COPY);
    run(dir.path(), &["echo", "--", "--exit", "7"]).expect(7);
    let wetfile = fs::read(dir.path().join("Wetfile.toml")).unwrap();
    for image in ["echo", "ecko", "out"] {
        for (place, what) in [
            ("Wetfile.toml", "the project"),
            ("Wetfile.lock", "the project"),
            ("target/ww/ledger", "the project"),
            ("out/bin/main.wasm", "the image"),
            ("out/new", "the image"),
        ] {
            if image == "ecko" && what == "the image" {
                continue;
            }
            let done = run(dir.path(), &[image, "--status-file", place, "--", "--exit", "7"]).expect(125);
            assert!(done.stderr.contains(&format!("is a file of {what}")), "{}", done.stderr);
        }
    }
    assert_eq!(fs::read(dir.path().join("Wetfile.toml")).unwrap(), wetfile);
    fs::create_dir(dir.path().join("echo")).unwrap();
    run(dir.path(), &["echo", "--status-file", "echo/status", "--", "--exit", "7"]).expect(7);
    assert!(dir.path().join("echo/status").is_file());
}

#[test]
fn what_was_meant_is_said() {
    let dir = copying_project(COPY);
    fs::copy(guest("child-echo"), dir.path().join("prog.wasm")).unwrap();
    for args in [["ecko"].as_slice(), &["--watch", "ecko"]] {
        let done = run(dir.path(), args).expect(127);
        assert!(done.stderr.contains("did you mean `echo`?"), "{}", done.stderr);
    }
}
