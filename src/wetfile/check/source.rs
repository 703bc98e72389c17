//! Checks of sources: what an entry of an image comes from.

use super::{Context, Input, guest_name, place};
use crate::dag::{Cid, parse_cid_text};
use crate::wetfile::diagnostic::{Code, Diagnostic, Sink, quoted};
use crate::wetfile::glob::{Glob, GlobError, split_glob};
use crate::wetfile::path::ProjectPath;
use crate::wetfile::project::{Source, TEXT_BYTES_MAX};
use crate::wetfile::schema::{FileEntry, ImageTable, SourceTable, Written};
use crate::wetfile::tree::Kind;

/// Checks a source, adds what it reads to `inputs`, and tells what it is, as far as that is known.
pub(super) fn check(
    ctx: &Context<'_>,
    table: &ImageTable,
    file: &FileEntry,
    source: &SourceTable,
    inputs: &mut Vec<Input>,
    sink: &mut Sink<'_>,
) -> Option<(Source, Option<Kind>)> {
    let what = format!("the source of {} in image {}", quoted(&file.key.value), quoted(&table.name.value));
    match source {
        SourceTable::Guest(name) => Some((Source::Guest(guest_name(ctx, name, sink)?), Some(Kind::File))),
        SourceTable::Text(text) => Some((Source::Text(check_text(text, &what, sink)?), Some(Kind::File))),
        SourceTable::Cid(text) => Some((Source::Content(cid(text, sink)?), None)),
        SourceTable::Path { path: text, glob: None } => {
            let path = place::path(&ProjectPath::root(), text, &what, sink)?;
            let kind = place::existing(ctx, &path, text, &what, sink)?;
            inputs.push(Input { path: path.clone(), what, span: text.span.clone(), is_read_whole: true });
            Some((Source::Path(path), Some(kind)))
        }
        SourceTable::Path { path: text, glob: Some(pattern) } => {
            let glob = check_glob(pattern, &what, sink);
            let folder = place::path(&ProjectPath::root(), text, &what, sink)?;
            place::folder(ctx, &folder, text, &what, sink)?;
            let glob = glob?;
            let read = folder.join(split_glob(glob.as_str()).0).unwrap_or_else(|_| folder.clone());
            inputs.push(Input { path: read, what, span: pattern.span.clone(), is_read_whole: false });
            Some((Source::Glob { folder, glob }, Some(Kind::Folder)))
        }
    }
}

fn check_text(text: &Written<String>, what: &str, sink: &mut Sink<'_>) -> Option<String> {
    if text.value.len() <= TEXT_BYTES_MAX {
        return Some(text.value.clone());
    }
    let label = sink.label(&text.span, format!("{} bytes", text.value.len()));
    let message = format!("{what} has more than {TEXT_BYTES_MAX} bytes");
    sink.push(Diagnostic::error(Code::TooMany, message, label, "put it into a file, and name that with `path`"));
    None
}

fn check_glob(text: &Written<String>, what: &str, sink: &mut Sink<'_>) -> Option<Glob> {
    let error = match Glob::new(&text.value) {
        Ok(glob) => return Some(glob),
        Err(error) => error,
    };
    let label = sink.label(&text.span, format!("this glob {error}"));
    let message = format!("{what} has no valid glob: it {error}");
    let (code, help) = match error {
        GlobError::Wildcards(_) => (Code::InvalidValue, "put `\\` before a wildcard that is meant as it is"),
        GlobError::Path(_) | GlobError::Parent => {
            (Code::InvalidPath, "write it relative to the folder `path`, such as `**/*.txt`")
        }
    };
    sink.push(Diagnostic::error(code, message, label, help));
    None
}

/// Takes a CID, and reports a text that is none.
pub(super) fn cid(text: &Written<String>, sink: &mut Sink<'_>) -> Option<Cid> {
    let problem = match parse_cid_text(&text.value) {
        Ok(cid) if !text.value.contains('/') => return Some(cid),
        Ok(_) => format!("{} is more than a CID", quoted(&text.value)),
        Err(error) => error.to_string(),
    };
    let label = sink.label(&text.span, "not a CID");
    let help = "write a CID alone, without `/ipfs/` before it and without a path after it";
    sink.push(Diagnostic::error(Code::InvalidValue, problem, label, help));
    None
}
