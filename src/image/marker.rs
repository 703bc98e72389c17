//! The file that says that `ww` wrote something and may replace it: `.NAME.ww` beside an image `NAME`, and one in the
//! folder of an image's temporary files.
//!
//! It lies beside the tree and never in it, so that it is no part of what is published.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use crate::folder::{Folder, Kind};
use crate::wetfile::ImageName;

/// Version of the marker's format. A higher one is not ours to overwrite.
const FORMAT: u32 = 1;

/// Longest marker that is read, in bytes; ours have less than 200.
const BYTES_MAX: u64 = 4096;

/// What a marker says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    /// Version of the format.
    format: u32,
    /// The image that was written last.
    image: String,
}

/// What lies under a marker's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A marker of this format.
    Ours,
    /// Something that is not understood: of a newer format, damaged, or no file.
    Unknown,
}

/// Looks for a marker.
pub(super) fn find(parent: &Folder, name: &str) -> std::io::Result<Found> {
    match parent.stat(name)? {
        None => return Ok(Found::Nothing),
        Some(stat) if stat.kind != Kind::File => return Ok(Found::Unknown),
        Some(_) => {}
    }
    let mut text = Vec::new();
    parent.file(name)?.take(BYTES_MAX).read_to_end(&mut text)?;
    match serde_json::from_slice::<Marker>(&text) {
        Ok(marker) if marker.format == FORMAT => Ok(Found::Ours),
        _ => Ok(Found::Unknown),
    }
}

/// Writes a marker that must not exist yet, and waits until it is on disk.
pub(super) fn write(folder: &Folder, name: &str, image: &ImageName) -> std::io::Result<()> {
    let mut file = folder.new_file(name)?;
    file.write_all(&bytes(image))?;
    file.sync_all()
}

/// The content of a marker.
pub(super) fn bytes(image: &ImageName) -> Vec<u8> {
    let marker = Marker { format: FORMAT, image: image.to_string() };
    let mut bytes = serde_json::to_vec(&marker).expect("a marker has nothing that JSON cannot hold");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content: &[u8], expected: Found) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".x.ww"), content).unwrap();
        let parent = Folder::open(dir.path()).unwrap();
        assert_eq!(find(&parent, ".x.ww").unwrap(), expected);
    }

    #[test]
    fn markers_are_found_and_told_apart() {
        check(&bytes(&ImageName::new("pid0").unwrap()), Found::Ours);
        check(b"{\"format\":2,\"image\":\"pid0\"}", Found::Unknown);
        check(b"", Found::Unknown);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(&Folder::open(dir.path()).unwrap(), ".x.ww").unwrap(), Found::Nothing);
        std::fs::create_dir(dir.path().join(".x.ww")).unwrap();
        assert_eq!(find(&Folder::open(dir.path()).unwrap(), ".x.ww").unwrap(), Found::Unknown);
    }
}
