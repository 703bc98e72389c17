//! The folder of a store: its files, and how it comes to be.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::super::StoreError;
use super::{Options, lock};
use crate::folder::{Folder, Kind};

/// The version of everything in the folder. Packs and pins of an older one are kept, its index is made again.
const FORMAT: u32 = 1;

/// Mode of folders: what a user keeps is nobody else's.
const FOLDER_MODE: u32 = 0o700;

/// The name of a pack: a random number, never used twice, so that nothing is mistaken for what had the number before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PackId(pub(super) i64);

impl PackId {
    /// The pack that a file's name stands for, and whether it is a finished one.
    fn of_file(name: &OsStr) -> Option<(Self, bool)> {
        let (number, extension) = name.to_str()?.split_once('.')?;
        let is_number = number.len() == 16 && number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let id = i64::from_str_radix(number, 16).ok().filter(|_| is_number)?;
        match extension {
            "car" => Some((Self(id), true)),
            "part" => Some((Self(id), false)),
            _ => None,
        }
    }

    /// The name of the pack's file.
    pub(super) fn file_name(self) -> String {
        format!("{:016x}.car", self.0)
    }

    /// The name of the pack's file until it is finished.
    pub(super) fn part_name(self) -> String {
        format!("{:016x}.part", self.0)
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.file_name())
    }
}

/// The open folder of a store.
#[derive(Debug)]
pub(super) struct Layout {
    /// Absolute, and without symlinks when it was opened.
    pub(super) dir: PathBuf,
    root: Folder,
    pub(super) packs: Folder,
    /// Whether it was made just now.
    pub(super) is_new: bool,
}

impl Layout {
    /// Opens the folder, and makes it if there is none.
    pub(super) fn open(dir: &Path, options: &Options) -> Result<Self, StoreError> {
        let made = make_folders(dir)?;
        let dir = fs::canonicalize(dir).map_err(StoreError::io("open", dir))?;
        let root = Folder::open(&dir).map_err(|error| misplaced(error, &dir, "a folder"))?;
        let is_new = match root.stat("packs").map_err(StoreError::io("read", dir.join("packs")))? {
            None => true,
            Some(stat) if stat.kind == Kind::Folder => false,
            Some(_) => return Err(StoreError::Misplaced { path: dir.join("packs"), expected: "a folder" }),
        };
        let packs = root.private_folder_or_new("packs");
        let packs = packs.map_err(|error| misplaced(error, &dir.join("packs"), "a folder"))?;
        let layout = Self { dir, root, packs, is_new };
        if is_new {
            // What a commit brings to disk must be found there.
            layout.root.sync().map_err(StoreError::io("write", &layout.dir))?;
            for folder in made.iter().filter_map(|made| made.parent()) {
                let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
                File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("write", folder))?;
            }
        }
        layout.check_format(options)?;
        Ok(layout)
    }

    /// A file or folder in the store's own folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The place of a finished pack.
    pub(super) fn pack_path(&self, pack: PackId) -> PathBuf {
        self.packs_path(&pack.file_name())
    }

    /// A file in the folder of packs.
    pub(super) fn packs_path(&self, name: &str) -> PathBuf {
        self.dir.join("packs").join(name)
    }

    /// The store's own folder.
    pub(super) fn root(&self) -> &Folder {
        &self.root
    }

    /// The folder of leases.
    pub(super) fn leases(&self) -> io::Result<Folder> {
        self.root.private_folder_or_new("leases")
    }

    /// The folder of leases, if there ever was one.
    pub(super) fn leases_if_any(&self) -> io::Result<Option<Folder>> {
        match self.root.folder("leases") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            folder => folder.map(Some),
        }
    }

    /// Opens a file that is there to be locked.
    pub(super) fn lock_file(&self, name: &str) -> Result<File, StoreError> {
        let file = self.root.private_file_or_new(name);
        file.map_err(|error| misplaced(error, &self.path(name), "a regular file"))
    }

    /// All packs: first the finished ones, then the others, both ascending.
    pub(super) fn packs(&self) -> Result<(Vec<PackId>, Vec<PackId>), StoreError> {
        let names = self.packs.names().map_err(StoreError::io("list", self.dir.join("packs")))?;
        let packs = names.iter().filter_map(|name| PackId::of_file(name));
        let (finished, parts): (Vec<_>, Vec<_>) = packs.partition(|(_, is_finished)| *is_finished);
        let ids = |packs: Vec<(PackId, bool)>| packs.into_iter().map(|(id, _)| id).collect();
        Ok((ids(finished), ids(parts)))
    }

    /// Brings the store to this version's format.
    ///
    /// The file is not waited for to be on disk. A file that is not there, or empty, is one that a crash took, which can
    /// only be that of this version.
    fn check_format(&self, options: &Options) -> Result<(), StoreError> {
        if self.format()? == Some(FORMAT) {
            return Ok(());
        }
        // Several who open the store at once may have found the same.
        let _lock = lock::moment(self, "index.lock", options)?;
        match self.format()? {
            Some(FORMAT) => return Ok(()),
            Some(_) => {
                self.root.remove_file("index.sqlite").map_err(StoreError::io("remove", self.path("index.sqlite")))?
            }
            None => {}
        }
        let written = self
            .root
            .remove_file("format.new")
            .and_then(|()| self.root.new_private_file("format.new")?.write_all(format!("{FORMAT}\n").as_bytes()));
        written
            .and_then(|()| self.root.replace("format.new", &self.root, "format"))
            .map_err(StoreError::io("write", self.path("format")))
    }

    /// The format of the store; `None` if the file is lost.
    fn format(&self) -> Result<Option<u32>, StoreError> {
        let path = self.path("format");
        let text = match self.root.file("format").and_then(io::read_to_string) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(misplaced(error, &path, "a regular file")),
        };
        match text.trim().parse::<u32>() {
            Ok(newer) if newer > FORMAT => Err(StoreError::Newer { dir: self.dir.clone() }),
            Ok(format) => Ok(Some(format)),
            Err(_) if text.trim().is_empty() => Ok(None),
            Err(_) => Err(StoreError::Misplaced { path, expected: "the number of a format" }),
        }
    }
}

/// Makes a folder and those above it that are not there; gives those that were made.
fn make_folders(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let missing = dir.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists());
    let missing: Vec<_> = missing.map(Path::to_owned).collect();
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir).map_err(StoreError::io("make", dir))?;
    Ok(missing)
}

/// An error of opening something that may be of the wrong kind.
pub(super) fn misplaced(error: io::Error, path: &Path, expected: &'static str) -> StoreError {
    let wrong_kinds = [Errno::NOTDIR, Errno::LOOP, Errno::ISDIR, Errno::INVAL].map(|errno| Some(errno.raw_os_error()));
    let is_wrong_kind = error.kind() == io::ErrorKind::InvalidInput || wrong_kinds.contains(&error.raw_os_error());
    match error {
        _ if is_wrong_kind => StoreError::Misplaced { path: path.to_owned(), expected },
        source => StoreError::io("open", path)(source),
    }
}
