//! Checks of images that are based on others: cycles, depth, and entries that both have.

use std::collections::BTreeMap;

use super::cycles::{self, Edge};
use super::image::{Checked, Entry, collision};
use crate::wetfile::diagnostic::{Code, Diagnostic, Sink, quoted};
use crate::wetfile::path::ImagePath;
use crate::wetfile::project::BASES_MAX;
use crate::wetfile::schema::{BaseTable, ImageTable, Written};
use crate::wetfile::tree::Kind;

/// An image as written, and what came of it.
type Images<'i, 'e> = BTreeMap<&'i str, (&'i ImageTable, &'i Checked<'e>)>;

/// Checks what images have to do with each other. `checked` has what came of each of `tables`.
pub(super) fn check(tables: &[ImageTable], checked: &[Checked<'_>], sink: &mut Sink<'_>) {
    let images: Images<'_, '_> =
        tables.iter().zip(checked).map(|(table, checked)| (table.name.value.as_str(), (table, checked))).collect();
    let before = sink.count();
    check_cycles(&images, sink);
    if sink.count() > before {
        return;
    }
    for (table, checked) in images.values() {
        let bases: Vec<_> = std::iter::successors(base(&images, table), |(table, _)| base(&images, table))
            .take(BASES_MAX + 1)
            .collect();
        if bases.len() > BASES_MAX {
            too_many(table, sink);
            continue;
        }
        for (path, entry) in checked.entries.iter().filter(|(_, entry)| !entry.replaces) {
            let both = bases.iter().find_map(|(base, of_base)| Some((base, present(&of_base.entries, path, entry)?)));
            if let Some((base, (other_path, other))) = both {
                let (image, base) = (quoted(&table.name.value), quoted(&base.name.value));
                let (path, other_path) = (quoted(path.as_str()), quoted(other_path.as_str()));
                let message = match path == other_path {
                    true => format!("image {image} and its base {base} both have {path}"),
                    false => {
                        format!("image {image} has {path}, which cannot be beside {other_path} of its base {base}")
                    }
                };
                let help = "add `replace = true` to take this one, or rename one of the two";
                collision(message, (entry.key, "this one"), (other.key, "that of the base"), help, sink);
            }
        }
    }
}

/// The image that an image is based on, if it is on one that is there.
fn base<'i, 'e>(images: &Images<'i, 'e>, table: &ImageTable) -> Option<(&'i ImageTable, &'i Checked<'e>)> {
    images.get(name(table)?.value.as_str()).copied()
}

fn name(table: &ImageTable) -> Option<&Written<String>> {
    match &table.base.given()?.value {
        BaseTable::Image(name) => Some(name),
        BaseTable::Cid(_) => None,
    }
}

fn check_cycles(images: &Images<'_, '_>, sink: &mut Sink<'_>) {
    let mut edges = Vec::new();
    for (from, (table, _)) in images {
        let Some(base) = name(table) else { continue };
        if base.value == *from {
            let label = sink.label(&base.span, "the image itself");
            let message = format!("image {} is based on itself", quoted(from));
            sink.push(Diagnostic::error(Code::Cycle, message, label, "remove `base`, or name another image"));
        } else if let Some((to, _)) = images.get_key_value(base.value.as_str()) {
            edges.push(Edge { from, to, span: &base.span, key: "base", verb: "is based on" });
        }
    }
    cycles::report(images.keys().copied(), &edges, |_| "images are based on each other", sink);
}

fn too_many(table: &ImageTable, sink: &mut Sink<'_>) {
    let Some(base) = name(table) else { return };
    let label = sink.label(&base.span, "this one is based on others");
    let message = format!("image {} is based on more than {BASES_MAX} images", quoted(&table.name.value));
    sink.push(Diagnostic::error(Code::TooMany, message, label, "put the files of several of them into one"));
}

/// The entry of a base that cannot be there beside one at `path`: at the same place or above it, unless both may be
/// folders, whose files are compared when the image is assembled.
fn present<'b, 'e>(
    of_base: &'b BTreeMap<ImagePath, Entry<'e>>,
    path: &ImagePath,
    entry: &Entry<'_>,
) -> Option<(&'b ImagePath, &'b Entry<'e>)> {
    let is_file = |entry: &Entry<'_>| entry.kind.is_some_and(|kind| kind != Kind::Folder);
    let at_place = of_base.get_key_value(path).filter(|(_, other)| {
        let may_be_folder = |entry: &Entry<'_>| entry.kind.is_none_or(|kind| kind == Kind::Folder);
        !(may_be_folder(entry) && may_be_folder(other))
    });
    let above =
        || path.ancestors().filter_map(|ancestor| of_base.get_key_value(&ancestor)).find(|(_, other)| is_file(other));
    let below = || {
        let mut after =
            of_base.range(path.clone()..).take_while(|(other, _)| other.as_str().starts_with(path.as_str()));
        let below = after.find(|(other, _)| other.ancestors().any(|ancestor| ancestor == *path));
        below.filter(|_| is_file(entry))
    };
    at_place.or_else(above).or_else(below)
}
