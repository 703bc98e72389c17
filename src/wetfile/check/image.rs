//! Checks of images, `out` aside.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{Context, Input, image_name, out, place, request, source};
use crate::escape;
use crate::grant::REQUEST_PATH;
use crate::wetfile::MAIN_PATH;
use crate::wetfile::diagnostic::{Code, Diagnostic, Sink, quoted};
use crate::wetfile::name::ImageName;
use crate::wetfile::path::{ImagePath, ProjectPath};
use crate::wetfile::project::{Base, Image, Source};
use crate::wetfile::schema::{BaseTable, FileEntry, ImageTable, Written};
use crate::wetfile::tree::Kind;

/// The folder of [`MAIN_PATH`], and the name in it.
const MAIN_FOLDER: &str = "bin";
const MAIN_FILE: &str = "main.wasm";

/// The folder of [`REQUEST_PATH`], and the name in it.
const REQUEST_FOLDER: &str = "etc";
const REQUEST_FILE: &str = "cell.toml";

/// What to do about two entries that cannot both be there.
const REMOVE: &str = "rename or remove one of the two";

/// An entry that is in order.
pub(super) struct Entry<'e> {
    pub(super) key: &'e Written<String>,
    pub(super) source: Source,
    /// What it is, as far as that is known without what it comes from.
    pub(super) kind: Option<Kind>,
    /// Whether it takes the place of what the base has.
    pub(super) replaces: bool,
}

/// What came of an image.
pub(super) struct Checked<'e> {
    /// `None` if something of it was reported.
    pub(super) image: Option<Image>,
    /// The entries that are in order.
    pub(super) entries: BTreeMap<ImagePath, Entry<'e>>,
}

/// Checks one image and adds what it reads to `inputs`.
pub(super) fn check<'e>(
    ctx: &Context<'_>,
    table: &'e ImageTable,
    inputs: &mut Vec<Input>,
    sink: &mut Sink<'_>,
) -> Checked<'e> {
    let out = table.out.given().and_then(|text| out::check(ctx, table, text, sink));
    let base = table.base.given().map(|base| base_of(ctx, &base.value, sink));
    let request = request::check(table, sink);
    let Some(files) = table.files.given() else { return Checked { image: None, entries: BTreeMap::new() } };
    check_replaces(table, &files.value, sink);
    let entries = entries(ctx, table, &files.value, inputs, sink);
    check_ancestors(table, &entries, sink);
    // An entry that was reported may have been meant as the program, and a base may have one.
    if entries.len() == files.value.len() {
        check_main(ctx, table, &files.span, &entries, sink);
    }
    if let Some(asked) = asked(table) {
        check_request(ctx, table, asked, &entries, sink);
    }
    let mut files: BTreeMap<_, _> = entries.iter().map(|(path, entry)| (path.clone(), entry.source.clone())).collect();
    let replacing = entries.iter().filter(|(_, entry)| entry.replaces).map(|(path, _)| path.clone());
    let mut replaces: BTreeSet<_> = replacing.collect();
    if !request.is_empty() {
        let path = ImagePath::new(REQUEST_PATH).expect("it is an image path");
        // What an image asks for, it says whole: nothing of what its base asks for is left.
        replaces.insert(path.clone());
        files.insert(path, Source::Text(request.to_text()));
    }
    let image = || {
        let base = match (&table.base, base) {
            (field, None) if field.is_absent() => None,
            (_, base) => Some(base??),
        };
        Some(Image { name: ImageName::new(&table.name.value).ok()?, out: out?, base, files, replaces })
    };
    Checked { image: image(), entries }
}

fn base_of(ctx: &Context<'_>, base: &BaseTable, sink: &mut Sink<'_>) -> Option<Base> {
    match base {
        BaseTable::Image(name) => image_name(ctx, name, sink).map(Base::Image),
        BaseTable::Cid(text) => source::cid(text, sink).map(Base::Content),
    }
}

/// Reports entries that say that they replace something where there is nothing.
fn check_replaces(table: &ImageTable, files: &[FileEntry], sink: &mut Sink<'_>) {
    if !table.base.is_absent() {
        return;
    }
    for (key, span) in files.iter().filter_map(|file| Some((&file.key, file.replace.as_ref()?))) {
        let label = sink.label(span, "there is nothing to replace");
        let message =
            format!("{} replaces something, and image {} has no base", quoted(&key.value), quoted(&table.name.value));
        let help = "leave `replace` out, or add `base`, the tree that the image begins as";
        sink.push(Diagnostic::error(Code::ConflictingKey, message, label, help));
    }
}

/// The entries that are in order by their normalised paths.
fn entries<'e>(
    ctx: &Context<'_>,
    table: &ImageTable,
    files: &'e [FileEntry],
    inputs: &mut Vec<Input>,
    sink: &mut Sink<'_>,
) -> BTreeMap<ImagePath, Entry<'e>> {
    let mut entries: BTreeMap<ImagePath, Entry<'e>> = BTreeMap::new();
    for file in files {
        let path = image_path(&file.key, sink);
        let source = file.source.as_ref().and_then(|source| source::check(ctx, table, file, source, inputs, sink));
        let (Some(path), Some((source, kind))) = (path, source) else { continue };
        match entries.get(&path) {
            Some(earlier) => {
                let message =
                    format!("image {} has two entries at {}", quoted(&table.name.value), quoted(path.as_str()));
                collision(message, (&file.key, "again here"), (earlier.key, "first here"), REMOVE, sink);
            }
            None => {
                let replaces = file.replace.is_some();
                entries.insert(path, Entry { key: &file.key, source, kind, replaces });
            }
        }
    }
    entries
}

fn image_path(key: &Written<String>, sink: &mut Sink<'_>) -> Option<ImagePath> {
    let error = match ImagePath::new(&key.value) {
        Ok(path) => return Some(path),
        Err(error) => error,
    };
    let label = sink.label(&key.span, format!("this path {error}"));
    let message = format!("{} is not a path inside an image: it {error}", quoted(&key.value));
    let help = "write a path relative to the image's root, such as `\"usr/lib/x.wasm\"`";
    sink.push(Diagnostic::error(Code::InvalidImagePath, message, label, help));
    None
}

/// Reports entries that lie below one that is no folder.
fn check_ancestors(table: &ImageTable, entries: &BTreeMap<ImagePath, Entry<'_>>, sink: &mut Sink<'_>) {
    for (path, entry) in entries {
        let files = path.ancestors().filter_map(|ancestor| entries.get(&ancestor));
        if let Some(file) = files.into_iter().find(|ancestor| ancestor.kind.is_some_and(|kind| kind != Kind::Folder)) {
            let (below, above) = (quoted(&entry.key.value), quoted(&file.key.value));
            let message = format!("image {} cannot have {below} below {above}", quoted(&table.name.value));
            collision(message, (entry.key, "below it"), (file.key, "a file, not a folder"), REMOVE, sink);
        }
    }
}

pub(super) fn collision(
    message: String,
    here: (&Written<String>, &str),
    there: (&Written<String>, &str),
    help: &str,
    sink: &mut Sink<'_>,
) {
    let label = sink.label(&here.0.span, here.1);
    let other = sink.label(&there.0.span, there.1);
    sink.push(Diagnostic::error(Code::CollidingFiles, message, label, help).with_secondary([other]));
}

/// Reports an image in which no `bin/main.wasm` can be.
fn check_main(
    ctx: &Context<'_>,
    table: &ImageTable,
    files: &Range<usize>,
    entries: &BTreeMap<ImagePath, Entry<'_>>,
    sink: &mut Sink<'_>,
) {
    let entry = |path: &str| ImagePath::new(path).ok().and_then(|path| entries.get(&path));
    let (span, found) = match (entry(MAIN_PATH), entry(MAIN_FOLDER)) {
        // What it is shows when the image is assembled.
        (Some(Entry { kind: None, .. }), _) | (None, Some(Entry { kind: None, .. })) => return,
        (Some(main), _) => (&main.key.span, main.kind),
        (None, _) if !table.base.is_absent() => return,
        (None, Some(Entry { key, source: Source::Path(folder), kind: Some(Kind::Folder), .. })) => {
            (&key.span, folder.join(MAIN_FILE).ok().and_then(|main| kind_of(ctx, &main)))
        }
        (None, Some(Entry { key, source: Source::Glob { folder, glob }, .. })) => {
            let main = folder.join(MAIN_FILE).ok().filter(|_| glob.matcher().fits(MAIN_FILE));
            (&key.span, main.and_then(|main| kind_of(ctx, &main)))
        }
        (None, _) => (files, None),
    };
    let problem = match found {
        Some(Kind::File) => return,
        Some(Kind::Symlink) => "`bin/main.wasm` is a symlink, which is stored and not followed",
        Some(Kind::Folder) => "`bin/main.wasm` is a folder",
        Some(Kind::Other) => "`bin/main.wasm` is no file",
        None if span == files => "no entry is `bin/main.wasm`",
        None => "there is no `main.wasm` in this folder",
    };
    let label = sink.label(span, problem);
    let message = format!("image {} has no program at `{MAIN_PATH}`", quoted(&table.name.value));
    let guest = ctx.guests.keys().next().filter(|_| ctx.guests.len() == 1).copied().unwrap_or("NAME");
    let help = format!("add `\"{MAIN_PATH}\" = {{ guest = \"{}\" }}`", escape::text(guest));
    sink.push(Diagnostic::error(Code::NoMain, message, label, help));
}

/// Where an image asks for something, if it does.
fn asked(table: &ImageTable) -> Option<(&'static str, &Range<usize>)> {
    let grants = table.grants.given().filter(|grants| !grants.value.is_empty()).map(|grants| ("grants", &grants.span));
    let limits = table.limits.given().filter(|limits| !limits.value.is_empty()).map(|limits| ("limits", &limits.span));
    grants.or(limits)
}

/// Reports an entry at the path of the file that is made of what the image asks for.
fn check_request(
    ctx: &Context<'_>,
    table: &ImageTable,
    (key, asked): (&str, &Range<usize>),
    entries: &BTreeMap<ImagePath, Entry<'_>>,
    sink: &mut Sink<'_>,
) {
    for (path, entry) in entries {
        let is_below = path.ancestors().any(|ancestor| ancestor.as_str() == REQUEST_PATH);
        let problem = match (path.as_str(), &entry.source) {
            (REQUEST_PATH, _) => "an entry gives it, too",
            (REQUEST_FOLDER, Source::Path(folder) | Source::Glob { folder, .. })
                if entry.kind == Some(Kind::Folder) =>
            {
                let is_left_out = match &entry.source {
                    Source::Glob { glob, .. } => !glob.matcher().fits(REQUEST_FILE),
                    _ => false,
                };
                let file = folder.join(REQUEST_FILE).ok();
                if is_left_out || file.and_then(|file| kind_of(ctx, &file)).is_none() {
                    continue;
                }
                "there is a `cell.toml` in this folder, too"
            }
            // What is in it shows when the image is assembled.
            (REQUEST_FOLDER, Source::Content(_)) => continue,
            (REQUEST_FOLDER, _) => "this is a file, not a folder",
            _ if is_below => "this is below it",
            _ => continue,
        };
        let label = sink.label(&entry.key.span, problem);
        let other = sink.label(asked, format!("`{REQUEST_PATH}` is made of this"));
        let message = format!("image {} has two sources of `{REQUEST_PATH}`", quoted(&table.name.value));
        let help = format!("keep one of the two: the entry, or `{key}`");
        sink.push(Diagnostic::error(Code::CollidingFiles, message, label, help).with_secondary([other]));
    }
}

/// What lies at a path, if it can be reached.
fn kind_of(ctx: &Context<'_>, path: &ProjectPath) -> Option<Kind> {
    match place::look(ctx.tree, path) {
        place::Found::Kind(kind) => Some(kind),
        _ => None,
    }
}
