//! Texts that people, peers and files give.

use std::io;
use std::path::Path;

use ww::blockstore::PinName;
use ww::dag::Cid;
use ww::dag::block::parse_cid;
use ww::dag::unixfs::{EntryName, PathWalk, Profile};
use ww::grant::Request;
use ww::remote::kubo::Address;
use ww::wetfile::{self, FILE_BYTES_MAX, Kind, ProjectPath, Tree, lock};

/// CIDs as bytes and as text, with a path after them.
pub(crate) fn cid(bytes: &[u8]) {
    if let Ok(cid) = parse_cid(bytes) {
        assert_eq!(parse_cid(&cid.to_bytes()).expect("it was just written"), cid);
        assert_eq!(cid.to_string().parse::<Cid>().expect("it was just written"), cid);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (root, path) = text.split_once('/').unwrap_or((text, ""));
    let Ok(cid) = root.parse::<Cid>() else { return };
    assert_eq!(cid.to_string().parse::<Cid>().expect("it was just written"), cid);
    if let Ok(walk) = PathWalk::new(cid, path) {
        assert_eq!(walk.found().is_some(), path.split('/').all(str::is_empty));
    }
}

/// Short texts with a form. Neither they nor what is wrong with them are shown as they came.
pub(crate) fn forms(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<Address>() {
        Ok(address) => assert!(!address.to_string().chars().any(char::is_control), "{address:?}"),
        Err(error) => check_shown(&error),
    }
    match PinName::new(text) {
        Ok(name) => assert_eq!(name.as_str(), text),
        Err(error) => check_shown(&error),
    }
    match EntryName::new(text) {
        Ok(name) => assert_eq!(name.as_str(), text),
        Err(error) => check_shown(&error),
    }
    if let Err(error) = text.parse::<Profile>() {
        check_shown(&error);
    }
}

/// A text from somebody else must not be able to command a terminal.
fn check_shown(error: &dyn std::error::Error) {
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// A lock that is read comes back when it is written and read again.
pub(crate) fn lock(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match lock::parse(text) {
        Ok(lock) => assert_eq!(lock::parse(&lock.render()).expect("it was just written"), lock),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What an image asks for comes back when it is written and read again, and what is wrong is not shown as it came.
pub(crate) fn request(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Request::parse(text) {
        Ok(request) => assert_eq!(Request::parse(&request.to_text()).expect("it was just written"), request),
        Err(error) => check_shown(&error),
    }
    if let Err(error) = Request::parse_given(text) {
        check_shown(&error);
    }
}

/// A folder in which what a path leads to is decided by the path.
struct SomeTree;

impl Tree for SomeTree {
    fn kind(&self, path: &ProjectPath) -> io::Result<Option<Kind>> {
        let kinds = [None, Some(Kind::File), Some(Kind::Folder), Some(Kind::Symlink), Some(Kind::Other)];
        Ok(kinds[path.to_path(Path::new("/")).as_os_str().len() % kinds.len()])
    }

    fn files(&self, folder: &ProjectPath) -> io::Result<Vec<String>> {
        let names = ["app.py", "build.zig", "go.mod", "main.c", "package.json"];
        let count = folder.to_path(Path::new("/")).as_os_str().len() % (names.len() + 1);
        Ok(names[..count].iter().map(|name| (*name).to_owned()).collect())
    }
}

/// A Wetfile: a project, or places in the text where it is wrong.
pub(crate) fn wetfile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.len() > FILE_BYTES_MAX {
        return;
    }
    if let Err(diagnostics) = wetfile::parse(text, Path::new("Wetfile.toml"), &SomeTree) {
        assert!(!diagnostics.is_empty());
    }
}
