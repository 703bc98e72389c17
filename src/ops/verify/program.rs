//! Whether what an image has in `bin/` can be run, and what it asks for be told.

use std::io;

use super::host::is_provided;
use super::{Finding, FindingKind};
use crate::escape;
use crate::grant::{REQUEST_PATH, Request};
use crate::ops::listing::{ListedKind, Listing};
use crate::ops::request::{self, At};
use crate::wasm_binary::{self, Kind};
use crate::wetfile::MAIN_PATH;

/// Where an image has its programs, and what their names end with.
const PROGRAMS: &str = "bin/";
const EXTENSION: &str = ".wasm";

/// Reads a file of an image whole, if it is no larger than programs are.
pub(in crate::ops) type ReadFile<'a> = &'a dyn Fn(&str) -> io::Result<Vec<u8>>;

/// Looks at `bin/main.wasm`, at what the other components in `bin/` import, and at `etc/cell.toml`.
///
/// Libraries in `usr/lib/` are not looked at: they satisfy nobody's imports yet.
pub(super) fn check(subject: &str, listing: &Listing, read: ReadFile<'_>, findings: &mut Vec<Finding>) {
    for object in &listing.objects {
        let is_main = object.path == MAIN_PATH;
        let is_program = is_main || (object.path.starts_with(PROGRAMS) && object.path.ends_with(EXTENSION));
        if !is_program {
            continue;
        }
        let found = match object.kind {
            ListedKind::File { .. } => check_file(subject, &object.path, is_main, read),
            ListedKind::Symlink { .. } if is_main => not_component(subject, "is a symlink"),
            ListedKind::Folder { .. } if is_main => not_component(subject, "is a folder"),
            _ => Vec::new(),
        };
        findings.extend(found.into_iter().map(|finding| finding.with_path(&object.path)));
    }
    findings.extend(check_request(subject, listing, read));
}

/// Looks at what the image asks for.
fn check_request(subject: &str, listing: &Listing, read: ReadFile<'_>) -> Option<Finding> {
    let message = request_problem(listing, read)?;
    Some(Finding::new(FindingKind::Request, subject, message).with_path(REQUEST_PATH))
}

/// What is wrong with what an image asks for, ready to be shown; `listing` has all that is in it.
pub(in crate::ops) fn request_problem(listing: &Listing, read: ReadFile<'_>) -> Option<String> {
    let located = request::locate(|path| {
        let object = listing.objects.iter().find(|object| object.path == path)?;
        Some(match &object.kind {
            ListedKind::Folder { .. } => At::Folder,
            ListedKind::File { size_bytes } => At::File { size_bytes: *size_bytes },
            ListedKind::Symlink { target } => At::Symlink(target),
        })
    });
    let problem = match located {
        Ok(None) => return None,
        Ok(Some(path)) => match read(&path) {
            Ok(bytes) => Request::from_bytes(&bytes).err()?.to_string(),
            Err(error) => format!("it cannot be read: {error}"),
        },
        Err(error) => error.to_string(),
    };
    Some(format!("`{REQUEST_PATH}` cannot be used: {}", escape::text(&problem)))
}

fn not_component(subject: &str, problem: &str) -> Vec<Finding> {
    vec![Finding::new(
        FindingKind::NotComponent,
        subject,
        format!("`{MAIN_PATH}` {problem}, where a component is needed"),
    )]
}

fn check_file(subject: &str, path: &str, is_main: bool, read: ReadFile<'_>) -> Vec<Finding> {
    let shown = escape::text(path);
    let problem = |kind, text: String| vec![Finding::new(kind, subject, format!("`{shown}` {text}"))];
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) => return problem(FindingKind::NotComponent, format!("cannot be read: {error}")),
    };
    match wasm_binary::kind(&bytes) {
        Kind::Component => {}
        kind if is_main => {
            return problem(FindingKind::NotComponent, format!("is {kind}, where a component is needed"));
        }
        // Whatever it is for, nothing starts it.
        _ => return Vec::new(),
    }
    let interface = match wasm_binary::interface(&bytes) {
        Ok(interface) => interface,
        Err(error) => {
            let error = crate::ops::lock::with_causes(&error);
            return problem(FindingKind::NotComponent, format!("is damaged: {error}"));
        }
    };
    let list = |names: &[String]| match names {
        [] => "nothing".to_owned(),
        names => escape::text(&names.join(", ")).into_owned(),
    };
    let mut found = Vec::new();
    if is_main && !interface.is_program() {
        let exports = list(&interface.exports);
        let text = format!("is a library, not a program: it does not export wasi:cli/run@0.2 but {exports}");
        found.extend(problem(FindingKind::NotProgram, text));
    }
    for import in interface.imports.iter().filter(|import| !is_provided(import)) {
        let text = format!("imports `{}`, which no cell has", escape::text(import));
        found.extend(problem(FindingKind::Import, text));
    }
    found
}
