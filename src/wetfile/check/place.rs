//! Paths that must lead to something in the project.
//!
//! A path is followed component by component and must not lead through a symlink: what lies behind one may be outside
//! of the project, and may be something else on the next machine. What is found here can be replaced a moment later,
//! so whoever opens a path afterwards still must not follow symlinks.

use std::io;

use super::Context;
use crate::escape;
use crate::wetfile::diagnostic::{Code, Diagnostic, Sink, quoted};
use crate::wetfile::path::{PathError, ProjectPath};
use crate::wetfile::schema::Written;
use crate::wetfile::tree::{Kind, Tree};

/// What a path leads to.
pub(super) enum Found {
    Kind(Kind),
    Nothing,
    /// This component on the way is a symlink.
    ThroughSymlink(ProjectPath),
    Unreadable(io::Error),
}

/// Follows a path.
pub(super) fn look(tree: &dyn Tree, path: &ProjectPath) -> Found {
    let mut found = Found::Kind(Kind::Folder);
    for prefix in path.prefixes() {
        found = match tree.kind(&prefix) {
            Err(error) => return Found::Unreadable(error),
            Ok(None) => return Found::Nothing,
            Ok(Some(Kind::Symlink)) if prefix != *path => return Found::ThroughSymlink(prefix),
            Ok(Some(Kind::File | Kind::Other)) if prefix != *path => return Found::Nothing,
            Ok(Some(kind)) => Found::Kind(kind),
        };
    }
    found
}

/// Takes a path as written, relative to a folder of the project, and reports what is wrong with it.
///
/// `what` names the thing in messages: "input `a.c` of guest `x`".
pub(super) fn path(dir: &ProjectPath, text: &Written<String>, what: &str, sink: &mut Sink<'_>) -> Option<ProjectPath> {
    let (code, problem, help) = match dir.join(&text.value) {
        Ok(path) if path.reserved_component().is_none() => return Some(path),
        Ok(_) => (
            Code::InvalidPath,
            "has a name of the form `.NAME.ww`".to_owned(),
            "ww gives such names to its own files beside images, and removes them",
        ),
        Err(error @ (PathError::Absolute | PathError::Leaves)) => (
            Code::OutsideProject,
            error.to_string(),
            "everything that is read lies in the folder of the Wetfile; write a path relative to it",
        ),
        Err(error) => (Code::InvalidPath, error.to_string(), "write a path such as `guests/hello`"),
    };
    let label = sink.label(&text.span, format!("this path {problem}"));
    sink.push(Diagnostic::error(code, format!("{what} {problem}: {}", quoted(&text.value)), label, help));
    None
}

/// Looks whether something lies at a path, and reports when nothing usable does.
pub(super) fn existing(
    ctx: &Context<'_>,
    path: &ProjectPath,
    text: &Written<String>,
    what: &str,
    sink: &mut Sink<'_>,
) -> Option<Kind> {
    let shown = quoted(&path.to_string());
    let (code, message, label, help) = match look(ctx.tree, path) {
        Found::Kind(Kind::Other) => (
            Code::UnsupportedFile,
            format!("{what} is neither a file, a folder nor a symlink: {shown}"),
            "a socket, a device or a pipe".to_owned(),
            "name something else".to_owned(),
        ),
        Found::Kind(kind) => return Some(kind),
        Found::Nothing => (
            Code::MissingPath,
            format!("{what} is missing: there is no {shown}"),
            "nothing is there".to_owned(),
            format!("create it or mend the path; looked for `{}`", escape::path(&path.to_path(ctx.root))),
        ),
        Found::ThroughSymlink(link) => (
            Code::SymlinkInPath,
            format!("{what} lies behind a symlink: {shown}"),
            format!("{} is a symlink", quoted(link.as_str())),
            "write the path without the symlink; what it points to must be in the project".to_owned(),
        ),
        Found::Unreadable(error) => (
            Code::Unreadable,
            format!("{what} cannot be looked at: {error}"),
            "this path".to_owned(),
            format!("check the permissions on the way to `{}`", escape::path(&path.to_path(ctx.root))),
        ),
    };
    let label = sink.label(&text.span, label);
    sink.push(Diagnostic::error(code, message, label, help));
    None
}

/// Like [`existing`], for what must be a folder.
pub(super) fn folder(
    ctx: &Context<'_>,
    path: &ProjectPath,
    text: &Written<String>,
    what: &str,
    sink: &mut Sink<'_>,
) -> Option<()> {
    let kind = existing(ctx, path, text, what, sink)?;
    if kind == Kind::Folder {
        return Some(());
    }
    let shown = quoted(&path.to_string());
    let (code, message, label, help) = if kind == Kind::Symlink {
        (
            Code::SymlinkInPath,
            format!("{what} is a symlink: {shown}"),
            "a symlink",
            "name the folder that it points to; it must be in the project",
        )
    } else {
        (Code::NotAFolder, format!("{what} is not a folder: {shown}"), "a file", "name the folder that it lies in")
    };
    let label = sink.label(&text.span, label);
    sink.push(Diagnostic::error(code, message, label, help));
    None
}
