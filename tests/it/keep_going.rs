//! `ww build -k`: what does not depend on a failure is built, and said.

use std::fs;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::build_command::{build, project, result};
use crate::support::{finish, guest, ww};

/// A CID that nobody has.
const NOBODY_HAS: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";

fn image(name: &str, guest: &str, more: &str) -> String {
    format!(
        "[image.{name}]\nout = \"images/{name}\"\n[image.{name}.files]\n\"bin/main.wasm\" = {{ guest = \"{guest}\" }}\n\
         \"etc\" = {{ path = \"etc-{name}\" }}\n{more}\n"
    )
}

/// Images `a`, `b` and `c` of a guest that is there already, and these tables.
fn three_images(of_b: &str, more: &str) -> TempDir {
    let guest_table = "[guest.echo]\nbuild = [\"cp\", \"echo.wasm\", \"{out}\"]\ninputs = [\"echo.wasm\"]\n";
    let images = [image("a", "echo", ""), image("b", "echo", of_b), image("c", "echo", "")].concat();
    let dir = project(&format!("{guest_table}{images}{more}"));
    fs::copy(guest("child-echo"), dir.path().join("echo.wasm")).unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        fs::create_dir(dir.path().join(format!("etc-{name}"))).unwrap();
        fs::write(dir.path().join(format!("etc-{name}/motd")), name).unwrap();
    }
    dir
}

/// The images of which there is a line.
fn lines(stdout: &str) -> Vec<&str> {
    stdout.lines().map(|line| line.split([' ', ':']).nth(1).unwrap()).collect()
}

fn in_lock(dir: &Path) -> Vec<String> {
    let lock = fs::read_to_string(dir.join("Wetfile.lock")).unwrap();
    let images = lock.lines().filter_map(|line| line.strip_prefix("[image.")?.strip_suffix(']'));
    images.filter(|name| !name.contains('.')).map(str::to_owned).collect()
}

#[test]
fn an_image_that_fails_does_not_stop_others() {
    let based = "[image.d]\nout = \"images/d\"\nbase = { image = \"b\" }\n[image.d.files]\n";
    let dir = three_images("", based);
    fs::create_dir_all(dir.path().join("images/b")).unwrap();
    fs::write(dir.path().join("images/b/mine"), "p").unwrap();
    let done = build(dir.path(), &["-k"]).expect(5);
    assert_eq!(lines(&done.stdout), ["a", "c"]);
    assert!(done.stderr.contains("not built, as they need what failed: image d\n"), "{}", done.stderr);
    assert!(done.stderr.contains("error: image `b` was not assembled\n"), "{}", done.stderr);
    assert_eq!(in_lock(dir.path()), ["a", "c"]);
    // Nothing of that is done twice, and what is mended is made.
    let done = build(dir.path(), &["-k", "--json"]).expect(5);
    let end = result(&done);
    assert_eq!(end["images"].as_array().unwrap().iter().filter(|image| image["changed"] == true).count(), 0);
    assert_eq!((&end["event"], &end["skipped"]), (&json!("error"), &json!({ "guests": [], "images": ["d"] })));
    fs::remove_file(dir.path().join("images/b/mine")).unwrap();
    assert_eq!(lines(&build(dir.path(), &["-k"]).expect(0).stdout).len(), 4);
    assert_eq!(in_lock(dir.path()), ["a", "b", "c", "d"]);
}

#[test]
fn what_cannot_be_read_does_not_stop_others() {
    let dir = three_images("", "");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("etc-c/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let done = build(dir.path(), &["-k"]).expect(5);
    assert_eq!(lines(&done.stdout), ["a", "b"]);
    assert!(done.stderr.contains("error: cannot read what image `c` is to hold\n"), "{}", done.stderr);
    assert_eq!(in_lock(dir.path()), ["a", "b"]);
    // Without -k it is the first thing that is said, and the last.
    assert_eq!(build(dir.path(), &[]).expect(5).stdout, "");
}

/// Which image wants what nobody has, and where, is said.
#[test]
fn content_that_nobody_has_does_not_stop_others() {
    let dir = three_images(&format!("\"usr/share/x\" = {{ cid = \"{NOBODY_HAS}\" }}\n"), "");
    let said = format!("error: the content {NOBODY_HAS} is not here, which image `b` takes for `usr/share/x`\n");
    let home = tempfile::tempdir().unwrap();
    let build = |args: &[&str]| {
        finish(ww(&["build", "--offline"]).args(args).env("WW_HOME", home.path()).current_dir(dir.path()))
    };
    let done = build(&[]).expect(7);
    assert!(done.stderr.contains(&said) && done.stdout.is_empty(), "{}", done.stderr);
    assert!(!dir.path().join("images").exists());
    let done = build(&["-k"]).expect(7);
    assert_eq!(lines(&done.stdout), ["a", "c"]);
    assert!(done.stderr.contains(&said), "{}", done.stderr);
    assert_eq!(in_lock(dir.path()), ["a", "c"]);
}

/// All that failed is listed, and all that was built is printed.
#[test]
fn a_guest_that_fails_takes_only_what_needs_it() {
    let guests = "[guest.bad]\nbuild = \"exit 3; echo $WW_OUT\"\ninputs = []\n\
                  [guest.after]\nbuild = \"cp echo.wasm $WW_OUT\"\ninputs = []\nneeds = [\"bad\"]\n";
    let dir = three_images("", &[guests, &image("d", "bad", ""), &image("e", "after", "")].concat());
    fs::create_dir_all(dir.path().join("images/b")).unwrap();
    fs::write(dir.path().join("images/b/mine"), "p").unwrap();
    let done = build(dir.path(), &["-k"]).expect(4);
    assert_eq!(lines(&done.stdout), ["a", "c"]);
    let said = "not built, as they need what failed: guest after, image d, image e\n\
                error: 1 guest and 1 image were not built\n  guest `bad`: `/bin/sh` failed with exit code 3\n  image `b`: ";
    assert!(done.stderr.contains(said), "{}", done.stderr);
    assert_eq!(in_lock(dir.path()), ["a", "c"]);
    // Without it nothing is assembled.
    fs::remove_dir_all(dir.path().join("images/a")).unwrap();
    assert_eq!(build(dir.path(), &[]).expect(4).stdout, "");
    assert!(!dir.path().join("images/a").exists());
}
