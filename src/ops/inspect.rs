//! What is in an image: its layout with sizes and CIDs, and what its components import and export.

use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::blocks::{self, CONTENT_BYTES_MAX, GetBlock, ReadError, Source};
use super::listing::{Listed, ListedKind, Listing, ListingError};
use super::request::{self, AskedError, At};
use super::verify;
use crate::dag::Cid;
use crate::dag::unixfs::{self, Profile, Subtree};
use crate::grant::{REQUEST_BYTES_MAX, REQUEST_PATH, Request};
use crate::image::{self, EntryKind, ImageError};
use crate::tree::ImportOptions;
use crate::{escape, wasm_binary};

/// The package of interfaces that every program imports, more or less of it as its standard library pleases.
const WASI: &str = "wasi:";

/// Ends the names of the interfaces of WASI 0.2 when the patch is left out.
const WASI_VERSION: &str = "@0.2";

/// Why an image cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It cannot be named by its content.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// Its content cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Somebody changed it meanwhile.
    #[error("it changed while it was read")]
    Changed,
}

/// What an image holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The image itself.
    pub root: Subtree,
    /// How all CIDs were made.
    pub profile: Profile,
    /// Everything in it: each folder before what is in it, the names of a folder sorted by bytes.
    pub objects: Vec<InspectedObject>,
    /// What it asks for, or why that cannot be told; `None` if it does not ask.
    pub request: Option<Result<Request, AskedError>>,
}

/// One object of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedObject {
    /// Where it is: components joined by `/`.
    pub path: String,
    /// What names its content.
    pub cid: Cid,
    /// What it is.
    pub kind: InspectedKind,
}

/// What an object of an image is.
pub type InspectedKind = EntryKind;

/// Looks into the image in a folder. Nothing is run and nothing is compiled.
///
/// # Errors
///
/// [`InspectError`].
pub fn inspect(image: &Path, profile: Profile) -> Result<Inspected, InspectError> {
    let entries = image::inspect(image)?;
    let listing = Listing::of_disk(image, &ImportOptions::new(profile), None)?;
    if !entries.iter().map(|entry| &entry.path).eq(listing.objects.iter().map(|object| &object.path)) {
        return Err(InspectError::Changed);
    }
    let objects = entries.into_iter().zip(listing.objects);
    let objects =
        objects.map(|(entry, object)| InspectedObject { path: entry.path, cid: object.cid, kind: entry.kind });
    let objects = objects.collect::<Vec<_>>();
    let request = request(&objects, |object| {
        let read = verify::read_file(image, &object.path);
        read.map_err(|source| ImageError::Io { action: "read", path: image.join(&object.path), source }.into())
    })?;
    Ok(Inspected { root: listing.root, profile, objects, request })
}

/// What the image asks for; `read` gives the bytes of a file in it.
fn request(
    objects: &[InspectedObject],
    read: impl FnOnce(&InspectedObject) -> Result<Vec<u8>, InspectError>,
) -> Result<Option<Result<Request, AskedError>>, InspectError> {
    let find = |path: &str| objects.iter().find(|object| object.path == path);
    let located = request::locate(|path| {
        Some(match &find(path)?.kind {
            EntryKind::Folder => At::Folder,
            EntryKind::File { size_bytes, .. } => At::File { size_bytes: *size_bytes },
            EntryKind::Symlink { target } => At::Symlink(target),
        })
    });
    match located {
        Ok(None) => Ok(None),
        Ok(Some(path)) => {
            let object = find(&path).ok_or(InspectError::Changed)?;
            let bytes = read(object)?;
            // What was listed is what is read.
            match &object.kind {
                EntryKind::File { sha256, .. } if Sha256::digest(&bytes)[..] == sha256[..] => {}
                _ => return Err(InspectError::Changed),
            }
            Ok(Some(Request::from_bytes(&bytes).map_err(AskedError::from)))
        }
        Err(error) => Ok(Some(Err(error))),
    }
}

/// Looks into the image that a DAG is, as [`inspect`] does. `block` gives its blocks.
///
/// # Errors
///
/// [`InspectError`].
pub fn inspect_dag(root: Cid, profile: Profile, block: GetBlock<'_>) -> Result<Inspected, InspectError> {
    let listing = Listing::of_blocks(Subtree { cid: root, dag_size: 0 }, block, true)?;
    let mut budget = CONTENT_BYTES_MAX;
    let object = |object: Listed| {
        let kind = match object.kind {
            ListedKind::Folder { .. } => EntryKind::Folder,
            ListedKind::Symlink { target } => EntryKind::Symlink { target },
            ListedKind::File { .. } => describe(object.cid, block, &mut budget)?,
        };
        Ok(InspectedObject { path: object.path, cid: object.cid, kind })
    };
    let objects = listing.objects.into_iter().map(object).collect::<Result<Vec<_>, ReadError>>()?;
    let request = request(&objects, |object| {
        let read = blocks::read_file(block, object.cid, REQUEST_BYTES_MAX);
        read.map_err(|source| ImageError::Io { action: "read", path: (&object.path).into(), source }.into())
    })?;
    Ok(Inspected { root: listing.root, profile, objects, request })
}

/// What a file amounts to. One that is larger than programs are is not looked into.
fn describe(cid: Cid, block: GetBlock<'_>, budget: &mut u64) -> Result<EntryKind, ReadError> {
    let (mut digest, mut size_bytes, mut kept) = (Sha256::new(), 0, Vec::new());
    unixfs::read_file(&Source(block), cid, &mut |piece: Bytes| {
        *budget = budget.checked_sub(piece.len() as u64).ok_or(ReadError::TooLarge)?;
        digest.update(&piece);
        size_bytes += piece.len() as u64;
        if size_bytes <= wasm_binary::SIZE_BYTES_MAX {
            kept.extend_from_slice(&piece);
        }
        Ok::<_, ReadError>(())
    })?;
    let is_component = kept.len() as u64 == size_bytes && wasm_binary::kind(&kept) == wasm_binary::Kind::Component;
    let interface = is_component.then(|| wasm_binary::interface(&kept).ok()).flatten();
    Ok(EntryKind::File { size_bytes, sha256: digest.finalize().into(), interface })
}

/// The layout as a text that stays the same as long as the image means the same: for snapshot tests.
///
/// Components are shown by what they import and export, since their bytes belong to a compiler. Patch versions are left
/// out, and of WASI 0.2 only that it is imported: which of its interfaces, is the standard library's choice.
/// Everything else is shown by its size and digest. What the image asks for, if it does, comes last.
pub fn snapshot(inspected: &Inspected) -> String {
    let mut shown = String::new();
    for object in &inspected.objects {
        let path = escape::text(&object.path);
        match &object.kind {
            EntryKind::Folder => line(&mut shown, format_args!("{path}/")),
            EntryKind::Symlink { target } => line(&mut shown, format_args!("{path} -> {}", escape::text(target))),
            EntryKind::File { interface: Some(interface), .. } => {
                line(&mut shown, format_args!("{path}: component"));
                let imports: Vec<&str> = interface.imports.iter().map(|import| compatible(import)).collect();
                if imports.iter().any(|import| is_wasi(import)) {
                    line(&mut shown, format_args!("    imports of WASI 0.2"));
                }
                for import in imports.into_iter().filter(|import| !is_wasi(import)) {
                    line(&mut shown, format_args!("    imports {}", escape::text(import)));
                }
                for export in &interface.exports {
                    line(&mut shown, format_args!("    exports {}", escape::text(compatible(export))));
                }
            }
            EntryKind::File { size_bytes, sha256, interface: None } => {
                let digest: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
                line(&mut shown, format_args!("{path}: {size_bytes} bytes, sha256 {digest}"));
            }
        }
    }
    match &inspected.request {
        None => {}
        Some(Ok(request)) => {
            for grant in &request.grants {
                line(&mut shown, format_args!("asks for {}", escape::text(&grant.to_string())));
            }
            for (limit, value) in request.limits.set_values() {
                line(&mut shown, format_args!("asks for {limit}={value}"));
            }
        }
        Some(Err(error)) => line(&mut shown, format_args!("{REQUEST_PATH} cannot be used: {error}")),
    }
    shown
}

fn line(shown: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(shown, "{text}").expect("writing to a String does not fail");
}

/// Whether something that a component imports is an interface of WASI 0.2, of whatever patch.
pub fn is_of_wasi(import: &str) -> bool {
    is_wasi(compatible(import))
}

fn is_wasi(import: &str) -> bool {
    import.starts_with(WASI) && import.ends_with(WASI_VERSION)
}

/// The name without the patch of its version, such as `wasi:cli/run@0.2`: patches are compatible.
fn compatible(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((compatible, _)) if name.contains('@') => compatible,
        _ => name,
    }
}
