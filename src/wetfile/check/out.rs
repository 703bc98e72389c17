//! Checks of `out`: the one place where `ww` replaces a folder of the project, so a typo there must do no harm.

use super::{Context, Input};
use crate::wetfile::FILE_NAME;
use crate::wetfile::diagnostic::{Code, Diagnostic, Sink, quoted};
use crate::wetfile::path::{PathError, ProjectPath};
use crate::wetfile::schema::{ImageTable, Written};
use crate::wetfile::tree::Kind;

/// Names in the project's root that are not for images: cargo's and `ww`'s own.
const RESERVED: [&str; 3] = ["target", FILE_NAME, "Wetfile.lock"];

/// Takes an `out`, and reports it when it is no place for an image by itself.
pub(super) fn check(
    ctx: &Context<'_>,
    table: &ImageTable,
    text: &Written<String>,
    sink: &mut Sink<'_>,
) -> Option<ProjectPath> {
    let (problem, help) = match ProjectPath::new(&text.value) {
        Err(error @ (PathError::Absolute | PathError::Leaves)) => {
            (error.to_string(), "an image is written inside the project")
        }
        Err(error) => (error.to_string(), "write a path such as `images/out`"),
        Ok(path) if path.is_root() => (
            "is the project's own folder".to_owned(),
            "the whole folder `out` is replaced by the image; name one that holds nothing else",
        ),
        Ok(path) if path.components().next().is_some_and(|first| RESERVED.contains(&first)) => {
            (reserved(&path), "name a folder outside of `target` that holds nothing else")
        }
        Ok(path) if path.reserved_component().is_some() => {
            ("has a name of the form `.NAME.ww`".to_owned(), "ww gives such names to its own files beside images")
        }
        Ok(path) => match obstacle(ctx, &path) {
            None => return Some(path),
            Some(problem) => {
                (problem, "name a folder that holds nothing but the image, with no symlink on the way to it")
            }
        },
    };
    let label = sink.label(&text.span, format!("this path {problem}"));
    let message =
        format!("image {} cannot be written to {}: it {problem}", quoted(&table.name.value), quoted(&text.value));
    sink.push(Diagnostic::error(Code::InvalidOut, message, label, help));
    None
}

fn reserved(path: &ProjectPath) -> String {
    match path.as_str().split_once('/') {
        Some((first, _)) => format!("lies in `{first}`, which is kept for other files"),
        None => "is kept for another file".to_owned(),
    }
}

/// What lies in the way of a folder at this path.
fn obstacle(ctx: &Context<'_>, path: &ProjectPath) -> Option<String> {
    for prefix in path.prefixes() {
        let kind = match ctx.tree.kind(&prefix) {
            Ok(None) => return None,
            Ok(Some(Kind::Folder)) => continue,
            Ok(Some(Kind::Symlink)) => "symlink",
            Ok(Some(Kind::File | Kind::Other)) => "file",
            Err(error) => return Some(format!("cannot be looked at: {error}")),
        };
        return Some(if prefix == *path {
            format!("is a {kind}")
        } else {
            format!("leads through the {kind} {}", quoted(prefix.as_str()))
        });
    }
    None
}

/// Reports each `out` that holds, or lies in, another one or an input.
///
/// A guest in the project's root, and a glob that begins there, are no reason: they hold every `out`, and what lies in
/// an `out` is never an input. The folder of an image's source is read as it is.
pub(super) fn check_overlaps(images: &[ImageTable], inputs: &[Input], sink: &mut Sink<'_>) {
    let out = |image: &ImageTable| {
        let text = image.out.given()?;
        let path = ProjectPath::new(&text.value).ok().filter(|path| !path.is_root())?;
        let what = format!("the `out` of image {}", quoted(&image.name.value));
        Some(Input { path, what, span: text.span.clone(), is_read_whole: true })
    };
    let outs: Vec<Input> = images.iter().filter_map(out).collect();
    for (at, out) in outs.iter().enumerate() {
        let others =
            outs[..at].iter().chain(inputs.iter().filter(|input| input.is_read_whole || !input.path.is_root()));
        if let Some(other) = others.into_iter().find(|other| overlap(&out.path, &other.path)) {
            report_overlap(out, other, sink);
        }
    }
}

fn overlap(one: &ProjectPath, other: &ProjectPath) -> bool {
    one.is_within(other) || other.is_within(one)
}

fn report_overlap(out: &Input, other: &Input, sink: &mut Sink<'_>) {
    let relation = relation(&out.path, &other.path);
    let place = if other.path.is_root() { "the project's folder".to_owned() } else { quoted(other.path.as_str()) };
    let label = sink.label(&out.span, format!("{relation} {place}"));
    let other_label = sink.label(&other.span, other.what.clone());
    let message = format!("{} {relation} {}", out.what, other.what);
    let help = "the whole folder `out` is replaced by the image; name one that holds nothing else";
    sink.push(Diagnostic::error(Code::OutOverlap, message, label, help).with_secondary([other_label]));
}

fn relation(out: &ProjectPath, other: &ProjectPath) -> &'static str {
    if out == other {
        "is also"
    } else if out.is_within(other) {
        "lies in"
    } else {
        "holds"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(one: &str, other: &str, expected: bool) {
        let (one, other) = (ProjectPath::new(one).unwrap(), ProjectPath::new(other).unwrap());
        assert_eq!(overlap(&one, &other), expected);
        assert_eq!(overlap(&other, &one), expected);
    }

    #[test]
    fn overlaps() {
        check("a", "a", true);
        check("a", "a/b", true);
        check("a", "ab", false);
        check("a/b", "a/c", false);
    }
}
