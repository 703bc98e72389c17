//! Writes an image: whole into a temporary folder beside its place, then swapped in by one rename.
//!
//! For an image at `images/pid0`, these names in `images/` are ours:
//!
//! ```text
//! pid0            the image
//! .pid0.ww        the marker: ww wrote the image (or was about to) and may replace it
//! .pid0.ww-new    the next image while it is written; after the swap the previous one while it is removed
//! .pid0.ww-old    the previous image between two renames, on file systems that cannot exchange names
//! .pid0.ww-marker the next marker while it is written
//! ```
//!
//! The order is: new tree written and on disk, marker written, swap, old tree removed. So at every instant the image
//! is the old one or the new one, whole, and no image of ours is without its marker. The one exception is the instant
//! between the two renames of a file system without exchange; the next run completes it. What a killed run left is
//! removed by the next one: both hold the lock of the project, so there is no other run whose files these could be.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::ImageError;
use super::folder::{FILE_MODE, FOLDER_MODE, Folder, Kind};
use super::layout::{self, Content, FileSource, Layout, MAIN_PATH, Tree};
use super::marker::{self, Found};
use super::private_key::{self, KeyEvidence};
use crate::wasm_binary::{self, Kind as WasmKind};
use crate::wetfile::{GuestName, Image, ProjectPath};

/// Bytes that are read at a time when two files are compared or one is copied.
const BUFFER_BYTES: usize = 64 << 10;

/// What [`assemble`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assembled {
    /// Number of regular files in the image.
    pub files: u64,
    /// Sum of their sizes in bytes.
    pub size_bytes: u64,
    /// Whether anything was written; an image that is as it should be is left alone.
    pub changed: bool,
}

/// Assembles an image at its `out`.
///
/// `root` is the project's folder and `artifacts` has the file of every guest that the image uses. The caller holds
/// the project's lock.
///
/// # Errors
///
/// Any [`ImageError`]. What was at `out` before is then untouched.
///
/// # Panics
///
/// If `artifacts` lacks a guest of the image, or `out` is the project's root, which no checked project has.
pub fn assemble(root: &Path, image: &Image, artifacts: &BTreeMap<GuestName, PathBuf>) -> Result<Assembled, ImageError> {
    let root_folder = Folder::open(root).map_err(ImageError::io("open", root))?;
    let layout = Layout::plan(&root_folder, image, artifacts)?;
    let place = Place::open(&root_folder, root, &image.out)?;
    place.recover()?;
    place.check_ours(&image.out)?;
    if let Some(total) = place.holds(&root_folder, &layout)? {
        return Ok(total.assembled(false));
    }
    let result = place.write_new(&root_folder, &layout).and_then(|total| {
        place.write_marker(image)?;
        place.swap()?;
        Ok(total.assembled(true))
    });
    // After a success the previous image goes, after a failure the unfinished one.
    let cleaned = place.recover();
    result.and_then(|assembled| cleaned.map(|()| assembled))
}

/// Where an image goes: the folder that holds it, and the names there.
struct Place {
    parent: Folder,
    /// Path of `parent`, for messages.
    parent_path: PathBuf,
    name: String,
    marker: String,
    new: String,
    old: String,
    new_marker: String,
}

/// What a tree amounts to.
#[derive(Clone, Copy, Default)]
struct Total {
    files: u64,
    size_bytes: u64,
}

impl Total {
    fn add(&mut self, size_bytes: u64) {
        self.files += 1;
        self.size_bytes += size_bytes;
    }

    fn assembled(self, changed: bool) -> Assembled {
        Assembled { files: self.files, size_bytes: self.size_bytes, changed }
    }
}

impl Place {
    /// Opens the folder that `out` lies in, and makes it if need be. No component of it may be a symlink.
    fn open(root: &Folder, root_path: &Path, out: &ProjectPath) -> Result<Self, ImageError> {
        let mut components: Vec<&str> = out.components().collect();
        let name = components.pop().expect("an image is not written to the project's root").to_owned();
        let mut parent = root.folder(".").map_err(ImageError::io("open", root_path))?;
        let mut path = String::new();
        for component in components {
            path = if path.is_empty() { component.to_owned() } else { format!("{path}/{component}") };
            parent = match layout::open_real(&parent, component, &path)? {
                Some(folder) => folder,
                None => parent.folder_or_new(component).map_err(ImageError::io("make", &path))?,
            };
        }
        let marker = marker::name(&name);
        Ok(Self {
            parent,
            parent_path: root_path.join(path),
            name,
            new: format!("{marker}-new"),
            old: format!("{marker}-old"),
            new_marker: format!("{marker}-marker"),
            marker,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.parent_path.join(name)
    }

    fn exists(&self, name: &str) -> Result<bool, ImageError> {
        Ok(self.kind(name)?.is_some())
    }

    fn kind(&self, name: &str) -> Result<Option<Kind>, ImageError> {
        let stat = self.parent.stat(name).map_err(ImageError::io("read", self.path(name)))?;
        Ok(stat.map(|stat| stat.kind))
    }

    fn remove(&self, name: &str) -> Result<(), ImageError> {
        self.parent.remove(&OsString::from(name)).map_err(ImageError::io("remove", self.path(name)))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), ImageError> {
        self.parent.rename_new(from, to).map_err(ImageError::io("rename", self.path(from)))
    }

    /// Completes or undoes what this run, or one that was killed, left: only the image and its marker remain.
    fn recover(&self) -> Result<(), ImageError> {
        if self.exists(&self.old)? && !self.exists(&self.name)? {
            // Between two renames. The new tree was complete before the first of them.
            let whole = if self.exists(&self.new)? { &self.new } else { &self.old };
            self.rename(whole, &self.name)?;
        }
        [&self.old, &self.new, &self.new_marker].into_iter().try_for_each(|name| self.remove(name))
    }

    /// Refuses to replace what `ww` did not write.
    fn check_ours(&self, out: &ProjectPath) -> Result<(), ImageError> {
        let marker_path = self.path(&self.marker);
        let not_ours = || ImageError::NotOurs { out: out.clone(), marker: self.marker.clone() };
        match marker::find(&self.parent, &self.marker).map_err(ImageError::io("read", &marker_path))? {
            Found::Unknown => Err(ImageError::Marker { path: marker_path }),
            found => match self.kind(&self.name)? {
                None => Ok(()),
                Some(Kind::Folder) if found == Found::Ours || self.is_empty()? => Ok(()),
                Some(_) => Err(not_ours()),
            },
        }
    }

    fn is_empty(&self) -> Result<bool, ImageError> {
        let names = self.parent.folder(&self.name).and_then(|folder| folder.names());
        Ok(names.map_err(ImageError::io("read", self.path(&self.name)))?.is_empty())
    }

    /// Compares the image that is there with the layout: `Some` if it is the same to the last bit.
    fn holds(&self, root: &Folder, layout: &Layout) -> Result<Option<Total>, ImageError> {
        if !self.exists(&self.name)? {
            return Ok(None);
        }
        let path = self.path(&self.name);
        let mut total = Total::default();
        let present = self.parent.folder(&self.name).map_err(ImageError::io("open", &path))?;
        let same = is_same_tree(root, &present, &layout.tree, &path, &mut total)?;
        Ok(same.then_some(total))
    }

    /// Writes the layout to the temporary folder, checks its program, and waits until all of it is on disk.
    fn write_new(&self, root: &Folder, layout: &Layout) -> Result<Total, ImageError> {
        let path = self.path(&self.new);
        let folder = self.parent.new_folder(&self.new).map_err(ImageError::io("make", &path))?;
        let mut total = Total::default();
        write_tree(root, &folder, &layout.tree, &path, &mut total)?;
        check_main(&folder)?;
        folder.sync_tree().map_err(ImageError::io("sync", &path))?;
        Ok(total)
    }

    /// Writes the marker; after a crash there is the whole marker or none.
    fn write_marker(&self, image: &Image) -> Result<(), ImageError> {
        let bytes = marker::bytes(&image.name);
        let write = || {
            let mut file = self.parent.new_file(&self.new_marker)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            self.parent.replace(&self.new_marker, &self.marker)?;
            self.parent.sync()
        };
        write().map_err(ImageError::io("write", self.path(&self.marker)))
    }

    /// Puts the new tree in its place; the previous one, if there was one, then has a temporary name.
    fn swap(&self) -> Result<(), ImageError> {
        if !self.exists(&self.name)? {
            self.rename(&self.new, &self.name)?;
        } else if !self.exchange()? {
            self.swap_in_two_steps()?;
        }
        self.parent.sync().map_err(ImageError::io("sync", &self.parent_path))
    }

    /// For file systems that cannot exchange names. Between the steps there is no image; see [`Place::recover`].
    fn swap_in_two_steps(&self) -> Result<(), ImageError> {
        self.rename(&self.name, &self.old)?;
        self.rename(&self.new, &self.name)
    }

    fn exchange(&self) -> Result<bool, ImageError> {
        self.parent.exchange(&self.name, &self.new).map_err(ImageError::io("replace", self.path(&self.name)))
    }
}

fn write_tree(root: &Folder, folder: &Folder, tree: &Tree, path: &Path, total: &mut Total) -> Result<(), ImageError> {
    for (name, node) in tree {
        let path = path.join(name);
        match &node.content {
            Content::Folder(inner) => {
                let folder = folder.new_folder(name).map_err(ImageError::io("make", &path))?;
                write_tree(root, &folder, inner, &path, total)?;
            }
            Content::Symlink(target) => {
                folder.new_symlink(name, target).map_err(ImageError::io("make", &path))?;
            }
            Content::File(source) => {
                let file = folder.new_file(name).map_err(ImageError::io("make", &path))?;
                total.add(copy(root, source, file, &path)?);
            }
        }
    }
    Ok(())
}

/// Copies a file and returns its size in bytes. What is small enough to be a private key is looked at first.
fn copy(root: &Folder, source: &FileSource, mut to: File, to_path: &Path) -> Result<u64, ImageError> {
    let mut from = source.open(root).map_err(ImageError::io("open", source.path()))?;
    let mut head = Vec::new();
    let mut limited = Read::by_ref(&mut from).take(private_key::CONTENT_BYTES_MAX + 1);
    limited.read_to_end(&mut head).map_err(ImageError::io("read", source.path()))?;
    if head.len() as u64 <= private_key::CONTENT_BYTES_MAX && private_key::is_key_content(&head) {
        let path = source.path().to_string_lossy().into_owned();
        return Err(ImageError::PrivateKey { path, evidence: KeyEvidence::Content });
    }
    to.write_all(&head).map_err(ImageError::io("write", to_path))?;
    let rest = io::copy(&mut from, &mut to).map_err(ImageError::io("copy", source.path()))?;
    Ok(head.len() as u64 + rest)
}

/// Checks that `bin/main.wasm` of a tree is a program.
fn check_main(tree: &Folder) -> Result<(), ImageError> {
    let mut bytes = Vec::new();
    let (folder, name) = MAIN_PATH.split_once('/').expect("the program lies in a folder");
    let read = tree.folder(folder).and_then(|folder| folder.file(name)?.read_to_end(&mut bytes));
    read.map_err(ImageError::io("read", MAIN_PATH))?;
    match wasm_binary::kind(&bytes) {
        WasmKind::Component => {}
        kind => return Err(ImageError::MainKind { kind }),
    }
    let interface = wasm_binary::interface(&bytes).map_err(ImageError::MainDamaged)?;
    if interface.is_program() { Ok(()) } else { Err(ImageError::MainNotProgram { exports: interface.exports }) }
}

/// Whether a folder holds exactly what the tree says: names, kinds, modes, targets and bytes.
fn is_same_tree(
    root: &Folder,
    folder: &Folder,
    tree: &Tree,
    path: &Path,
    total: &mut Total,
) -> Result<bool, ImageError> {
    let names = folder.names().map_err(ImageError::io("read", path))?;
    let mode = folder.mode().map_err(ImageError::io("read", path))?;
    if mode != FOLDER_MODE || !names.iter().map(OsString::as_os_str).eq(tree.keys().map(OsStr::new)) {
        return Ok(false);
    }
    for (name, node) in tree {
        let path = path.join(name);
        let Some(stat) = folder.stat(name).map_err(ImageError::io("read", &path))? else { return Ok(false) };
        let same = match (&node.content, stat.kind) {
            (Content::Folder(inner), Kind::Folder) => {
                let folder = folder.folder(name).map_err(ImageError::io("open", &path))?;
                is_same_tree(root, &folder, inner, &path, total)?
            }
            (Content::Symlink(target), Kind::Symlink) => {
                folder.symlink_target(name).map_err(ImageError::io("read", &path))? == target.as_str()
            }
            (Content::File(source), Kind::File) if stat.mode == FILE_MODE => {
                total.add(stat.size_bytes);
                let present = folder.file(name).map_err(ImageError::io("open", &path))?;
                let source_file = source.open(root).map_err(ImageError::io("open", source.path()))?;
                is_same_file(source_file, present).map_err(ImageError::io("read", &path))?
            }
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_same_file(mut one: File, mut other: File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    loop {
        let length = one.read(&mut left)?;
        if length == 0 {
            return Ok(other.read(&mut right)? == 0);
        }
        match other.read_exact(&mut right[..length]) {
            Ok(()) if left[..length] == right[..length] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the file system here can do, both ways end alike.
    #[test]
    fn both_ways_to_swap_leave_the_new_tree_alone() {
        for swap in [Place::swap, Place::swap_in_two_steps] {
            let dir = tempfile::tempdir().unwrap();
            let root = Folder::open(dir.path()).unwrap();
            let place = Place::open(&root, dir.path(), &ProjectPath::new("images/x").unwrap()).unwrap();
            for (name, file) in [("x", "one"), (".x.ww-new", "two")] {
                place.parent.new_folder(name).unwrap().new_file(file).unwrap();
            }
            swap(&place).unwrap();
            place.recover().unwrap();
            assert_eq!(place.parent.names().unwrap(), ["x"]);
            assert_eq!(place.parent.folder("x").unwrap().names().unwrap(), ["two"]);
        }
    }
}
