//! Tells what is in an image that lies on disk.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::ImageError;
use crate::folder::{Folder, Kind};
use crate::wasm_binary::{self, Interface, Kind as WasmKind};
use crate::wetfile::COMPONENTS_MAX;

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// One object of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is in the image: components joined by `/`.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
}

/// What an object of an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder; what is in it follows.
    Folder,
    /// A file.
    File {
        /// Its size in bytes.
        size_bytes: u64,
        /// The SHA-256 of its bytes.
        sha256: [u8; 32],
        /// What it imports and exports, if it is a well-formed component.
        interface: Option<Interface>,
    },
    /// A symlink.
    Symlink {
        /// Its target as stored.
        target: String,
    },
}

/// Lists a tree: each folder before what is in it, the names of a folder sorted by bytes, symlinks not followed.
///
/// # Errors
///
/// [`ImageError::Io`] when something cannot be read, and [`ImageError::NameNotUtf8`], [`ImageError::TargetNotUtf8`],
/// [`ImageError::NotStorable`] and [`ImageError::TooLong`] for what no image holds.
pub fn inspect(image: &Path) -> Result<Vec<Entry>, ImageError> {
    let folder = Folder::open(image).map_err(ImageError::io("open", image))?;
    let mut entries = Vec::new();
    list(&folder, "", &mut entries)?;
    Ok(entries)
}

fn list(folder: &Folder, path: &str, entries: &mut Vec<Entry>) -> Result<(), ImageError> {
    for name in folder.names().map_err(ImageError::io("read", path))? {
        let name = name.into_string().map_err(|name| ImageError::NameNotUtf8 { path: Path::new(path).join(name) })?;
        let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        if path.split('/').count() > COMPONENTS_MAX {
            return Err(ImageError::TooLong { path });
        }
        let stat = folder.stat(&name).map_err(ImageError::io("read", &path))?;
        let kind = match stat.map(|stat| stat.kind) {
            Some(Kind::Folder) => {
                entries.push(Entry { path: path.clone(), kind: EntryKind::Folder });
                let inner = folder.folder(&name).map_err(ImageError::io("open", &path))?;
                list(&inner, &path, entries)?;
                continue;
            }
            Some(Kind::File) => file(folder, &name, &path)?,
            Some(Kind::Symlink) => symlink(folder, &name, &path)?,
            Some(Kind::Other) => return Err(ImageError::NotStorable { path }),
            // Removed since the names were read.
            None => continue,
        };
        entries.push(Entry { path, kind });
    }
    Ok(())
}

fn symlink(folder: &Folder, name: &str, path: &str) -> Result<EntryKind, ImageError> {
    let target = folder.symlink_target(name).map_err(ImageError::io("read", path))?;
    let target = target.into_string().map_err(|target| ImageError::TargetNotUtf8 { path: path.to_owned(), target })?;
    Ok(EntryKind::Symlink { target })
}

fn file(folder: &Folder, name: &str, path: &str) -> Result<EntryKind, ImageError> {
    let read = folder.file(name).and_then(describe);
    read.map_err(ImageError::io("read", path))
}

/// What a file amounts to. One that is larger than programs are is not looked into.
fn describe(file: File) -> io::Result<EntryKind> {
    let may_be_program = wasm_binary::check_size(&file).is_ok();
    let (mut digest, mut size_bytes, mut kept) = (Sha256::new(), 0, Vec::new());
    let mut input = BufReader::with_capacity(BUFFER_BYTES, file);
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        digest.update(bytes);
        size_bytes += bytes.len() as u64;
        if may_be_program && size_bytes <= wasm_binary::SIZE_BYTES_MAX {
            kept.extend_from_slice(bytes);
        }
        let used = bytes.len();
        input.consume(used);
    }
    let is_component = kept.len() as u64 == size_bytes && wasm_binary::kind(&kept) == WasmKind::Component;
    let interface = is_component.then(|| wasm_binary::interface(&kept).ok()).flatten();
    Ok(EntryKind::File { size_bytes, sha256: digest.finalize().into(), interface })
}
