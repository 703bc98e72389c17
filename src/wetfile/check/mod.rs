//! From the Wetfile as written to the checked project.
//!
//! Each part of the manifest is checked on its own and reports all that is wrong with it. Only where something is
//! already reported is what follows from it left out.

mod cargo;
mod cycles;
mod guest;
mod image;
mod language;
mod layers;
mod out;
mod place;
mod profile;
mod request;
mod source;

pub use guest::RESERVED_FOR_RUST;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use super::diagnostic::{Code, Diagnostic, Sink, quoted};
use super::name::{GuestName, ImageName, NAME_BYTES_MAX, nearest_name};
use super::path::ProjectPath;
use super::project::Project;
use super::schema::{Field, GuestTable, Manifest, ProjectTable, Written, check_name};
use super::suggest::nearest;
use super::tree::Tree;

/// What all checks look at.
struct Context<'c> {
    /// The project's root; only to be shown.
    root: &'c Path,
    tree: &'c dyn Tree,
    /// The name of every guest, those included that are broken, so that a broken guest is not reported again by those
    /// that use it.
    guest_names: &'c BTreeSet<String>,
    /// The same of images.
    image_names: &'c BTreeSet<String>,
    /// Every guest that could be read, valid or not.
    guests: BTreeMap<&'c str, &'c GuestTable>,
}

/// A place of the project that is read, for the check of `out`.
struct Input {
    path: ProjectPath,
    /// How messages name it.
    what: String,
    span: Range<usize>,
    /// Whether all of it is read, also what lies in an `out`.
    is_read_whole: bool,
}

/// Checks a whole manifest. What is wrong goes to the sink; the project is to be used only when nothing did.
pub(super) fn check(manifest: &Manifest, file: &Path, tree: &dyn Tree, sink: &mut Sink<'_>) -> Project {
    let root = file.parent().unwrap_or(Path::new(""));
    let guests = manifest.guests.iter().map(|guest| (guest.name.value.as_str(), guest)).collect();
    let ctx = Context { root, tree, guest_names: &manifest.guest_names, image_names: &manifest.image_names, guests };
    let (name, version) = project(&manifest.project, sink);
    let mut inputs = Vec::new();
    let guests = manifest.guests.iter().filter_map(|table| guest::check(&ctx, table, &mut inputs, sink));
    let guests: BTreeMap<_, _> = guests.map(|guest| (guest.name.clone(), guest)).collect();
    guest::check_cycles(&ctx, sink);
    let profiles = manifest.profiles.iter();
    let profiles = profiles.filter_map(|table| profile::check(&ctx, table, &guests, &mut inputs, sink)).collect();
    let images: Vec<_> = manifest.images.iter().map(|table| image::check(&ctx, table, &mut inputs, sink)).collect();
    layers::check(&manifest.images, &images, sink);
    out::check_overlaps(&manifest.images, &inputs, sink);
    let images = images.into_iter().filter_map(|checked| checked.image);
    Project {
        root: root.to_owned(),
        file: file.to_owned(),
        name,
        version,
        guests,
        images: images.map(|image| (image.name.clone(), image)).collect(),
        profiles,
        profile: None,
    }
}

/// Checks `[project]` and gives name and version.
fn project(table: &ProjectTable, sink: &mut Sink<'_>) -> (String, String) {
    if let Some(name) = table.name.given() {
        check_name(name, sink);
    }
    if let Some(version) = table.version.given().filter(|version| !is_version(&version.value)) {
        let label = sink.label(&version.span, "not a version");
        let message = format!("{} is not a valid version", quoted(&version.value));
        let help =
            format!("a version has letters, digits, `.`, `-`, `+` and `_`, and at most {NAME_BYTES_MAX} of them");
        sink.push(Diagnostic::error(Code::InvalidValue, message, label, help));
    }
    (text(&table.name), text(&table.version))
}

fn text(field: &Field<String>) -> String {
    field.given().map(|written| written.value.clone()).unwrap_or_default()
}

fn is_version(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+' | b'_'))
}

/// Takes a reference to a guest, and reports it when there is no such guest.
fn guest_name(ctx: &Context<'_>, name: &Written<String>, sink: &mut Sink<'_>) -> Option<GuestName> {
    is_known(ctx.guest_names, name, ("guest", Code::UnknownGuest), sink).then(|| GuestName::new(&name.value).ok())?
}

/// Takes a reference to an image, and reports it when there is no such image.
fn image_name(ctx: &Context<'_>, name: &Written<String>, sink: &mut Sink<'_>) -> Option<ImageName> {
    is_known(ctx.image_names, name, ("image", Code::UnknownImage), sink).then(|| ImageName::new(&name.value).ok())?
}

/// Whether there is something of a kind that has this name; reports it when there is not.
fn is_known(known: &BTreeSet<String>, name: &Written<String>, (kind, code): (&str, Code), sink: &mut Sink<'_>) -> bool {
    if known.contains(&name.value) {
        return true;
    }
    if !sink.is_full() {
        let label = sink.label(&name.span, format!("no {kind} has this name"));
        let message = format!("there is no {kind} {}", quoted(&name.value));
        let help = match nearest(&name.value, known.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("add `[{kind}.{}]`", nearest_name(&name.value).as_deref().unwrap_or("NAME")),
        };
        sink.push(Diagnostic::error(code, message, label, help));
    }
    false
}
