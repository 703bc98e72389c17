//! Writes an image: whole into a temporary folder beside its place, then swapped in by one rename.
//!
//! For an image at `images/pid0`, these names in `images/` are ours:
//!
//! ```text
//! pid0             the image
//! .pid0.ww         the marker: ww wrote the image (or was about to) and may replace it
//! .pid0.ww-work/   what is temporary while a build writes the image
//!   marker         the marker of this folder: there before all else, removed after all else
//!   tree/          the next image; after the swap the previous one
//!   old/           the previous image between two renames, on file systems that cannot exchange names
//!   next           the next `.pid0.ww` while it is written
//! ```
//!
//! The order is: new tree written and on disk, marker written, swap, old tree removed. So at every instant the image
//! is the old one or the new one, whole, and no image of ours is without its marker. The one exception is the instant
//! between the two renames of a file system without exchange; the next run completes it. What a killed run left is
//! removed by the next one: both hold the lock of the project, so there is no other run whose files these could be.
//! Nothing is removed, renamed or replaced for its name alone: a marker, or a folder seen when the run began, must say
//! that it is ours.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::layout::{self, Content, FileSource, Layout, Tree};
use super::marker::{self, Found};
use super::private_key::{self, KeyEvidence};
use super::{ImageError, Parts};
use crate::atomic_file;
use crate::folder::{FILE_MODE, FOLDER_MODE, Folder, Kind};
use crate::wasm_binary::{self, Kind as WasmKind};
use crate::wetfile::{Image, MAIN_PATH, ProjectPath};

/// Bytes that are read at a time when two files are compared.
const BUFFER_BYTES: usize = 64 << 10;

/// Bytes that are copied before it is asked whether to stop: some milliseconds.
const COPIED_BYTES_MAX: u64 = 16 << 20;

/// Names in the folder of temporary files.
const SIGN: &str = "marker";
const TREE: &str = "tree";
const OLD: &str = "old";
const NEXT_MARKER: &str = "next";

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
/// `root` is the project's folder. The caller holds the project's lock. `stopped` is asked all the time, and tells whether to give up.
///
/// # Errors
///
/// Any [`ImageError`]. What was at `out` before is then untouched.
///
/// # Panics
///
/// If `parts` lack something of the image, or `out` is the project's root, which no checked project has.
pub fn assemble(
    root: &Path,
    image: &Image,
    parts: &Parts<'_>,
    stopped: &dyn Fn() -> bool,
) -> Result<Assembled, ImageError> {
    assemble_checked(root, image, parts, stopped, &mut |_| Ok(()))
}

/// Puts back the marker beside an image, if it is not there. Only for an image that is known to be what `ww` wrote.
///
/// # Errors
///
/// [`ImageError`]; nothing has changed then.
pub fn keep_marker(root: &Path, image: &Image) -> Result<(), ImageError> {
    let name = image.out.components().last().expect("an image is not written to the project's root");
    let path = image.out.to_path(root).with_file_name(ProjectPath::marker_of(name));
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let folder = Folder::open(root).map_err(ImageError::io("open", root))?;
    // No symlink is on the way.
    let place = Place::open(&folder, root, image)?;
    let path = place.path(&place.marker);
    atomic_file::create(&path, &marker::bytes(&image.name), FILE_MODE).map_err(ImageError::io("write", &path))
}

/// As [`assemble`], but asks before anything is replaced: `check` is given the path of the whole tree that is to become the
/// image, or already is, and can refuse it.
///
/// # Errors
///
/// As [`assemble`], and [`ImageError::Refused`] with what `check` gave.
///
/// # Panics
///
/// As [`assemble`].
pub fn assemble_checked(
    root: &Path,
    image: &Image,
    parts: &Parts<'_>,
    stopped: &dyn Fn() -> bool,
    check: &mut Check<'_>,
) -> Result<Assembled, ImageError> {
    let sources = Sources { root: Folder::open(root).map_err(ImageError::io("open", root))?, stopped };
    let layout = Layout::plan(&sources.root, image, parts)?;
    let place = Place::open(&sources.root, root, image)?;
    place.recover()?;
    let present = place.present()?;
    if let Some(total) = place.holds(&present, &sources, &layout)? {
        check(&place.path(&place.name)).map_err(ImageError::Refused)?;
        return Ok(total.assembled(false));
    }
    let result = place.write(&sources, &layout, present, check);
    // After a success the previous image goes, after a failure the unfinished one.
    let cleaned = place.recover();
    result.and_then(|total| cleaned.map(|()| total.assembled(true)))
}

/// Looks at a tree and says why it must not become the image.
pub type Check<'a> = dyn FnMut(&Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Where an image goes: the folder that holds it, and the names there.
struct Place<'a> {
    image: &'a Image,
    parent: Folder,
    /// Path of `parent`, for messages.
    parent_path: PathBuf,
    name: String,
    marker: String,
    work: String,
}

/// Where the files of an image are, for as long as they are wanted.
struct Sources<'a> {
    root: Folder,
    stopped: &'a dyn Fn() -> bool,
}

/// What is where an image goes.
enum Present {
    Nothing,
    EmptyFolder,
    /// A folder that `ww` wrote.
    Image(Folder),
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

impl<'a> Place<'a> {
    /// Opens the folder that `out` lies in, and makes it if need be. No component of it may be a symlink.
    fn open(root: &Folder, root_path: &Path, image: &'a Image) -> Result<Self, ImageError> {
        let mut components: Vec<&str> = image.out.components().collect();
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
        let marker = ProjectPath::marker_of(&name);
        Ok(Self { image, parent, parent_path: root_path.join(path), name, work: format!("{marker}-work"), marker })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.parent_path.join(name)
    }

    fn kind(&self, name: &str) -> Result<Option<Kind>, ImageError> {
        let stat = self.parent.stat(name).map_err(ImageError::io("read", self.path(name)))?;
        Ok(stat.map(|stat| stat.kind))
    }

    /// Completes or undoes what this run, or one that was killed, left: only the image and its marker remain.
    fn recover(&self) -> Result<(), ImageError> {
        let Some(work) = self.open_work()? else { return Ok(()) };
        let has = |name: &str| Ok(work.stat(name).map_err(ImageError::io("read", self.path(&self.work)))?.is_some());
        if has(OLD)? && self.kind(&self.name)?.is_none() {
            // Between two renames. The new tree was complete before the first of them.
            let whole = if has(TREE)? { TREE } else { OLD };
            let moved = work.move_new(whole, &self.parent, &self.name);
            moved.map_err(ImageError::io("make", self.path(&self.name)))?;
        }
        let removed = work.clear(SIGN).and_then(|()| work.remove_file(SIGN));
        let removed = removed.and_then(|()| self.parent.remove_empty(&self.work));
        removed.map_err(ImageError::io("remove", self.path(&self.work)))
    }

    /// The folder of temporary files, if there is one and it is ours.
    fn open_work(&self) -> Result<Option<Folder>, ImageError> {
        let path = self.path(&self.work);
        let Some(work) = layout::open_real(&self.parent, &self.work, &path.to_string_lossy())? else {
            return Ok(None);
        };
        let is_ours = marker::find(&work, SIGN).map_err(ImageError::io("read", &path))? == Found::Ours
            || is_barely_begun(&work).map_err(ImageError::io("read", &path))?;
        if is_ours { Ok(Some(work)) } else { Err(ImageError::Marker { path }) }
    }

    /// Looks at what is where the image goes, and refuses to replace what `ww` did not write.
    fn present(&self) -> Result<Present, ImageError> {
        let marker_path = self.path(&self.marker);
        let found = marker::find(&self.parent, &self.marker).map_err(ImageError::io("read", &marker_path))?;
        if found == Found::Unknown {
            return Err(ImageError::Marker { path: marker_path });
        }
        match self.kind(&self.name)? {
            None => return Ok(Present::Nothing),
            Some(Kind::Folder) => {}
            Some(_) => return Err(self.not_ours()),
        }
        let path = self.path(&self.name);
        let folder = self.parent.folder(&self.name).map_err(ImageError::io("open", &path))?;
        if folder.names().map_err(ImageError::io("read", &path))?.is_empty() {
            return Ok(Present::EmptyFolder);
        }
        if found == Found::Ours { Ok(Present::Image(folder)) } else { Err(self.not_ours()) }
    }

    fn not_ours(&self) -> ImageError {
        ImageError::NotOurs { out: self.image.out.clone(), marker: self.marker.clone() }
    }

    /// Compares the image that is there with the layout: `Some` if it is the same to the last bit.
    fn holds(&self, present: &Present, sources: &Sources<'_>, layout: &Layout) -> Result<Option<Total>, ImageError> {
        let Present::Image(present) = present else { return Ok(None) };
        let mut total = Total::default();
        if !sources.are_in(present, &layout.tree, &self.path(&self.name), &mut total)? {
            return Ok(None);
        }
        check_main(present)?;
        Ok(Some(total))
    }

    /// Writes the layout to the temporary folder and swaps it in.
    fn write(
        &self,
        sources: &Sources<'_>,
        layout: &Layout,
        present: Present,
        check: &mut Check<'_>,
    ) -> Result<Total, ImageError> {
        let path = self.path(&self.work);
        let make = || {
            let work = self.parent.new_folder(&self.work)?;
            marker::write(&work, SIGN, &self.image.name)?;
            let tree = work.new_folder(TREE)?;
            Ok((work, tree))
        };
        let (work, tree) = make().map_err(ImageError::io("make", &path))?;
        let mut total = Total::default();
        sources.write(&tree, &layout.tree, &path.join(TREE), &mut total)?;
        check_main(&tree)?;
        tree.sync_tree().map_err(ImageError::io("sync", &path))?;
        sources.check_stopped()?;
        check(&path.join(TREE)).map_err(ImageError::Refused)?;
        self.write_marker(&work)?;
        self.swap(&work, present)?;
        Ok(total)
    }

    /// Writes the marker; after a crash there is the whole marker or none.
    fn write_marker(&self, work: &Folder) -> Result<(), ImageError> {
        let write = || {
            marker::write(work, NEXT_MARKER, &self.image.name)?;
            work.replace(NEXT_MARKER, &self.parent, &self.marker)?;
            self.parent.sync()
        };
        write().map_err(ImageError::io("write", self.path(&self.marker)))
    }

    /// Puts the new tree in its place. Only the folder that was seen to be ours is replaced, and not what somebody has
    /// put there since.
    fn swap(&self, work: &Folder, present: Present) -> Result<(), ImageError> {
        match present {
            Present::Image(previous) if self.is_at_place(&previous) => self.replace(work, &previous),
            Present::EmptyFolder => {
                // Where it is not empty any more, the next step tells.
                let _ = self.parent.remove_empty(&self.name);
                self.put(work)
            }
            Present::Nothing | Present::Image(_) => self.put(work),
        }?;
        self.parent.sync().map_err(ImageError::io("sync", &self.parent_path))
    }

    fn is_at_place(&self, folder: &Folder) -> bool {
        self.parent.folder(&self.name).and_then(|present| present.is(folder)).unwrap_or(false)
    }

    /// Moves the new tree to where nothing is.
    fn put(&self, work: &Folder) -> Result<(), ImageError> {
        work.move_new(TREE, &self.parent, &self.name).map_err(|error| {
            // The marker would call whatever is there ours.
            let removed = self.parent.remove_file(&self.marker);
            match (error.kind(), removed) {
                (_, Err(error)) => ImageError::io("remove", self.path(&self.marker))(error),
                (io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory, _) => {
                    self.not_ours()
                }
                _ => ImageError::io("make", self.path(&self.name))(error),
            }
        })
    }

    /// Swaps the new tree with the image that is there, which then has a temporary name.
    fn replace(&self, work: &Folder, previous: &Folder) -> Result<(), ImageError> {
        // Whoever owns it can be helped; for others the rename tells why not.
        let _ = previous.make_writable();
        let replace = || match work.exchange(TREE, &self.parent, &self.name)? {
            true => Ok(()),
            false => self.replace_in_two_steps(work),
        };
        replace().map_err(ImageError::io("replace", self.path(&self.name)))
    }

    /// For file systems that cannot exchange names. Between the steps there is no image; see [`Place::recover`].
    fn replace_in_two_steps(&self, work: &Folder) -> io::Result<()> {
        self.parent.move_new(&self.name, work, OLD)?;
        work.move_new(TREE, &self.parent, &self.name)?;
        work.move_new(OLD, work, TREE)
    }
}

/// Whether a run was killed before it had made more of the folder than an empty file.
fn is_barely_begun(work: &Folder) -> io::Result<bool> {
    let is_empty_file = |stat: crate::folder::Stat| stat.kind == Kind::File && stat.size_bytes == 0;
    Ok(work.names()?.iter().all(|name| name == SIGN) && work.stat(SIGN)?.is_none_or(is_empty_file))
}

impl Sources<'_> {
    fn check_stopped(&self) -> Result<(), ImageError> {
        if (self.stopped)() { Err(ImageError::Cancelled) } else { Ok(()) }
    }

    /// Writes a tree into an empty folder.
    fn write(&self, folder: &Folder, tree: &Tree, path: &Path, total: &mut Total) -> Result<(), ImageError> {
        for (name, node) in tree {
            let path = path.join(name);
            match &node.content {
                Content::Folder(inner) => {
                    let folder = folder.new_folder(name).map_err(ImageError::io("make", &path))?;
                    self.write(&folder, inner, &path, total)?;
                }
                Content::Symlink(target) => {
                    folder.new_symlink(name, target).map_err(ImageError::io("make", &path))?;
                }
                Content::File(source) => {
                    let file = folder.new_file(name).map_err(ImageError::io("make", &path))?;
                    total.add(self.copy(source, file, &path)?);
                }
            }
        }
        Ok(())
    }

    /// Opens a file and reads its beginning, or all of it where it is small enough to be a private key: it is none. Of a
    /// text that is in no file there is no more than that.
    fn open_checked(&self, source: &FileSource) -> Result<(Vec<u8>, Option<File>), ImageError> {
        self.check_stopped()?;
        let mut file = source.open(&self.root).map_err(ImageError::io("open", source.path()))?;
        let mut head = match source {
            FileSource::Text(text) => text.clone().into_bytes(),
            FileSource::Project(_) | FileSource::Artifact(_) | FileSource::Content { .. } => Vec::new(),
        };
        if let Some(file) = &mut file {
            let mut limited = Read::by_ref(file).take(private_key::CONTENT_BYTES_MAX + 1);
            limited.read_to_end(&mut head).map_err(ImageError::io("read", source.path()))?;
        }
        if head.len() as u64 <= private_key::CONTENT_BYTES_MAX && private_key::is_key_content(&head) {
            let path = source.path().to_string_lossy().into_owned();
            return Err(ImageError::PrivateKey { path, evidence: KeyEvidence::Content });
        }
        Ok((head, file))
    }

    /// Copies a file and returns its size in bytes.
    fn copy(&self, source: &FileSource, mut to: File, to_path: &Path) -> Result<u64, ImageError> {
        let (head, rest) = self.open_checked(source)?;
        to.write_all(&head).map_err(ImageError::io("write", to_path))?;
        let mut size_bytes = head.len() as u64;
        let Some(mut rest) = rest else { return Ok(size_bytes) };
        loop {
            let mut part = Read::by_ref(&mut rest).take(COPIED_BYTES_MAX);
            let copied = io::copy(&mut part, &mut to).map_err(ImageError::io("copy", source.path()))?;
            size_bytes += copied;
            if copied < COPIED_BYTES_MAX {
                return Ok(size_bytes);
            }
            self.check_stopped()?;
        }
    }

    /// Whether a folder holds exactly what the tree says: names, kinds, modes, targets and bytes.
    fn are_in(&self, folder: &Folder, tree: &Tree, path: &Path, total: &mut Total) -> Result<bool, ImageError> {
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
                    self.are_in(&folder, inner, &path, total)?
                }
                (Content::Symlink(target), Kind::Symlink) => {
                    folder.symlink_target(name).map_err(ImageError::io("read", &path))? == target.as_str()
                }
                (Content::File(source), Kind::File) if stat.mode == FILE_MODE => {
                    total.add(stat.size_bytes);
                    let present = folder.file(name).map_err(ImageError::io("open", &path))?;
                    self.is_same_file(source, present, &path)?
                }
                _ => false,
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_same_file(&self, source: &FileSource, mut present: File, path: &Path) -> Result<bool, ImageError> {
        let (head, rest) = self.open_checked(source)?;
        let size = |file: &File| Ok(file.metadata().map_err(ImageError::io("read", path))?.len());
        let source_size = rest.as_ref().map_or(Ok(head.len() as u64), size)?;
        if source_size != size(&present)? {
            return Ok(false);
        }
        let head = io::Cursor::new(head);
        let mut bytes: Box<dyn Read> = match rest {
            Some(rest) => Box::new(head.chain(rest)),
            None => Box::new(head),
        };
        loop {
            self.check_stopped()?;
            match compare_next(&mut bytes, &mut present).map_err(ImageError::io("read", path))? {
                Compared::Different => return Ok(false),
                Compared::Same => {}
                Compared::End => return Ok(true),
            }
        }
    }
}

/// How the next bytes of two files compare.
enum Compared {
    Same,
    Different,
    /// There are none in either.
    End,
}

fn compare_next(one: &mut impl Read, other: &mut impl Read) -> io::Result<Compared> {
    let (mut left, mut right) = ([0; BUFFER_BYTES], [0; BUFFER_BYTES]);
    let length = one.read(&mut left)?;
    if length == 0 {
        return Ok(if other.read(&mut right)? == 0 { Compared::End } else { Compared::Different });
    }
    match other.read_exact(&mut right[..length]) {
        Ok(()) if left[..length] == right[..length] => Ok(Compared::Same),
        Ok(()) => Ok(Compared::Different),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Compared::Different),
        Err(error) => Err(error),
    }
}

/// Checks that `bin/main.wasm` of a tree is a program.
fn check_main(tree: &Folder) -> Result<(), ImageError> {
    let (folder, name) = MAIN_PATH.split_once('/').expect("the program lies in a folder");
    let read = || wasm_binary::read(tree.folder(folder)?.file(name)?);
    let bytes = read().map_err(ImageError::io("read", MAIN_PATH))?;
    match wasm_binary::kind(&bytes) {
        WasmKind::Component => {}
        kind => return Err(ImageError::MainKind { kind }),
    }
    let interface = wasm_binary::interface(&bytes).map_err(ImageError::MainDamaged)?;
    if interface.is_program() { Ok(()) } else { Err(ImageError::MainNotProgram { exports: interface.exports }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wetfile::ImageName;
    use std::collections::{BTreeMap, BTreeSet};

    /// Whatever the file system here can do, both ways end alike.
    #[test]
    fn both_ways_to_replace_leave_the_new_tree_alone() {
        let in_two_steps = |place: &Place<'_>, work: &Folder, _: &Folder| place.replace_in_two_steps(work).unwrap();
        let at_once = |place: &Place<'_>, work: &Folder, previous: &Folder| place.replace(work, previous).unwrap();
        for replace in [&in_two_steps as &dyn Fn(&Place<'_>, &Folder, &Folder), &at_once] {
            let dir = tempfile::tempdir().unwrap();
            let root = Folder::open(dir.path()).unwrap();
            let out = ProjectPath::new("images/x").unwrap();
            let image = Image {
                name: ImageName::new("x").unwrap(),
                out,
                base: None,
                files: BTreeMap::new(),
                replaces: BTreeSet::new(),
            };
            let place = Place::open(&root, dir.path(), &image).unwrap();
            let previous = place.parent.new_folder("x").unwrap();
            previous.new_file("one").unwrap();
            let work = place.parent.new_folder(".x.ww-work").unwrap();
            marker::write(&work, SIGN, &image.name).unwrap();
            work.new_folder(TREE).unwrap().new_file("two").unwrap();
            replace(&place, &work, &previous);
            assert_eq!(work.folder(TREE).unwrap().names().unwrap(), ["one"]);
            place.recover().unwrap();
            assert_eq!(place.parent.names().unwrap(), ["x"]);
            assert_eq!(place.parent.folder("x").unwrap().names().unwrap(), ["two"]);
        }
    }

    /// What somebody puts at `out` while the image is copied stays.
    #[test]
    fn what_appears_meanwhile_is_not_replaced() {
        let check = |before: &[&str], meanwhile: &dyn Fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            let root = Folder::open(dir.path()).unwrap();
            let out = ProjectPath::new("x").unwrap();
            let image = Image {
                name: ImageName::new("x").unwrap(),
                out,
                base: None,
                files: BTreeMap::new(),
                replaces: BTreeSet::new(),
            };
            let place = Place::open(&root, dir.path(), &image).unwrap();
            for path in before {
                std::fs::create_dir_all(dir.path().join(path)).unwrap();
                if *path != "x" {
                    std::fs::write(dir.path().join(".x.ww"), "{\"format\":1,\"image\":\"x\"}").unwrap();
                }
            }
            let present = place.present().unwrap();
            let work = place.parent.new_folder(&place.work).unwrap();
            marker::write(&work, SIGN, &image.name).unwrap();
            work.new_folder(TREE).unwrap();
            meanwhile(&dir.path().join("x"));
            place.write_marker(&work).unwrap();
            let error = place.swap(&work, present).unwrap_err();
            assert!(matches!(error, ImageError::NotOurs { .. }), "{error}");
            place.recover().unwrap();
            assert_eq!(place.parent.names().unwrap(), ["x"], "a marker would call it ours");
            assert!(dir.path().join("x").exists());
        };
        let folder = |out: &Path| std::fs::create_dir_all(out.join("precious")).unwrap();
        check(&[], &folder);
        check(&[], &|out| std::fs::write(out, "precious").unwrap());
        check(&["x"], &folder);
        check(&["x/etc"], &|out| {
            std::fs::rename(out, out.with_file_name("y")).unwrap();
            folder(out);
            std::fs::remove_dir_all(out.with_file_name("y")).unwrap();
        });
    }
}
