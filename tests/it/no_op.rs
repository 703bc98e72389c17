//! What a build that finds nothing to do does not do: it starts nothing, and reads nothing that it has read before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::libc::{SIGILL, SYS_epoll_create1};
use rustix::fs::inotify;

use crate::manifest::publish;
use crate::project::Project;
use crate::support::{finish, guest, ww};
use crate::trace::trace;

/// A guest of a command, and an image of it that takes a folder, what a glob fits, a text, and a tree by its CID.
fn project() -> Project {
    let project = Project::new("p");
    fs::copy(guest("child-echo"), project.path("echo.wasm")).unwrap();
    project.write("in.txt", "one");
    project.write("etc/motd", "hello");
    project.write("docs/a.md", "a");
    project.write("docs/sub/b.md", "b");
    project.write("docs/sub/c.txt", "c");
    project.write("docs/other/d.txt", "d");
    project.write("tree/from/afar", "far");
    let cid = publish(&project, "tree", "unixfs-v1-2025");
    fs::remove_dir_all(project.path("tree")).unwrap();
    project.wetfile(&format!(
        "[guest.x]\nbuild = 'cat in.txt; cp echo.wasm $WW_OUT'\ninputs = ['in.txt', 'echo.wasm']\n\
         [image.i]\nout = 'out'\n[image.i.files]\n'bin/main.wasm' = {{ guest = 'x' }}\n'etc' = {{ path = 'etc' }}\n\
         'usr/share' = {{ path = 'docs', glob = '**/*.md' }}\n'srv' = {{ cid = '{cid}' }}\n'motd' = {{ text = 'x' }}\n"
    ));
    project
}

fn command(project: &Project, args: &[&str]) -> Command {
    let mut command = ww(args);
    let home = project.path("../home");
    command.current_dir(project.path("")).env("WW_HOME", &home).env("IPFS_PATH", home);
    command
}

/// Builds until all is known by its times: files that have just been written are not.
fn build(project: &Project) {
    for _ in 0..2 {
        finish(&mut command(project, &["build", "--offline"])).expect(0);
        thread::sleep(Duration::from_millis(150));
    }
}

#[test]
fn nothing_is_started() {
    let project = project();
    build(&project);
    let build = command(&project, &["build", "--offline"]);
    let idle = trace(&build);
    assert_eq!((idle.code, idle.processes, idle.programs), (Some(0), 0, 1), "{idle:?}");
    // One waits for signals.
    assert!(idle.threads <= 1, "{idle:?}");
    assert!(!idle.calls.contains(&SYS_epoll_create1), "there is an async runtime: {idle:?}");
    assert!(!idle.handles(SIGILL), "there is a wasm engine: {idle:?}");

    // All of that can be seen where it is.
    project.write("in.txt", "two");
    let busy = trace(&build);
    assert_eq!(busy.code, Some(0), "{busy:?}");
    assert!(busy.processes >= 1 && busy.programs >= 2, "{busy:?}");
    let run = trace(&command(&project, &["-q", "run", "--listen", "none", "i"]));
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.threads > 1 && run.calls.contains(&SYS_epoll_create1) && run.handles(SIGILL), "{run:?}");
}

/// Whether one of these files was opened while something was done.
fn opens(files: &[PathBuf], act: impl FnOnce()) -> bool {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    for file in files {
        inotify::add_watch(&watch, file, inotify::WatchFlags::OPEN).unwrap();
    }
    act();
    match rustix::io::read(&watch, &mut [0_u8; 4096]) {
        Ok(length) => length > 0,
        Err(rustix::io::Errno::AGAIN) => false,
        Err(error) => panic!("{error}"),
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn nothing_is_read_that_was_read_before() {
    let project = project();
    build(&project);
    let of_image = [files(&project.path("etc")), files(&project.path("docs")), files(&project.path("out"))].concat();
    let content = files(&project.path("target/ww/content"));
    let of_guest = ["in.txt", "echo.wasm", "target/ww/guests/x.wasm"].map(|path| project.path(path)).to_vec();
    let all = [of_image, content, of_guest].concat();
    assert!(all.len() > 10, "{all:?}");
    let build = || drop(finish(&mut command(&project, &["build", "--offline"])).expect(0));
    let is_planned = || finish(&mut command(&project, &["build", "--plan"])).expect(0).stdout;
    assert!(!opens(&all, build));
    // One that was written anew is, and what no glob fits is no reason.
    project.write("docs/sub/b.md", "b");
    assert!(opens(&[project.path("docs/sub/b.md")], build));
    project.write("docs/other/e.txt", "new");
    build();
    assert_eq!(is_planned(), "");

    // What fits and is new is seen also where nothing did before.
    project.write("docs/other/e.md", "new");
    assert_eq!(is_planned(), "image i: docs/other/e.md is new\n");
    build();
    assert_eq!(project.read("out/usr/share/other/e.md"), b"new");
    assert_eq!(is_planned(), "");
}
