//! What was seen of files, so that whether they have changed can be told without reading any of them.
//!
//! A [`Seen`] has the stamp of every folder that was listed and of every file that was read. Where all of them are as they
//! were, so is the digest: a file that was written to has another time of change, which nobody can set, and a folder in which
//! a name came or went has another time, too. A file or folder that was touched in the moment in which it was looked at has
//! no stamp here (see git's `racy-git`), and is looked at again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::links;
use crate::folder::{Folder, Kind, Stamp};
use crate::wetfile::lock::Digest;

/// Bytes of a name, which need not be UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name(Box<[u8]>);

impl Name {
    pub(super) fn new(name: &OsStr) -> Self {
        Self(name.as_bytes().into())
    }

    pub(super) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes: &[u8] = Deserialize::deserialize(deserializer)?;
        Ok(Self(bytes.into()))
    }
}

/// What was seen of a file or of the files below a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What names their paths and contents.
    pub digest: Digest,
    /// What else has decided which files they are.
    pub(super) context: Digest,
    pub(super) folders: Vec<SeenFolder>,
}

/// A folder with the files in it that were looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeenFolder {
    /// Relative to the project's root, for which it is empty; absolute outside of the project.
    pub(super) path: Name,
    pub(super) listing: SeenListing,
    pub(super) files: Vec<SeenFile>,
}

/// Whether it matters which names a folder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SeenListing {
    /// Only those of the files that were looked at.
    Unlisted,
    /// All of them; the stamp that the folder had, if it can be trusted.
    Listed(Option<Stamp>),
}

/// Something at a name of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeenFile {
    pub(super) name: Name,
    pub(super) kind: SeenKind,
    /// Its stamp, if that can be trusted.
    pub(super) stamp: Option<Stamp>,
    pub(super) digest: Digest,
}

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SeenKind {
    /// A file.
    File,
    /// A symlink of which it matters what is behind it, so that it has to be looked at each time.
    Symlink,
    /// A symlink of which only the target's name matters.
    Link,
    /// Nothing.
    Absent,
}

/// How a file differs between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It has another content, or is something else.
    Changed,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
}

/// Something in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenObject {
    /// A folder.
    Folder,
    /// A file with this content.
    File(Digest),
    /// A symlink with this target.
    Link(Digest),
}

/// The folder of a path among others, which is added if it is not there.
pub(super) fn folder_at<'f>(folders: &'f mut BTreeMap<OsString, SeenFolder>, path: &Path) -> &'f mut SeenFolder {
    folders.entry(path.as_os_str().to_owned()).or_insert_with(|| SeenFolder {
        path: Name::new(path.as_os_str()),
        listing: SeenListing::Unlisted,
        files: Vec::new(),
    })
}

impl Seen {
    /// Whether everything is as it was seen, as far as stamps tell: `false` where they cannot.
    pub(super) fn is_unchanged(&self, root: &Folder, context: &Digest) -> bool {
        // Of nothing that was looked at nothing can be told.
        let is_something = !self.folders.is_empty();
        is_something && self.context == *context && self.folders.iter().all(|folder| folder.is_unchanged(root))
    }

    /// What was seen of a tree, read whole after `start`.
    ///
    /// `path` is that of its root, relative to the project's at `project`, and `objects` are everything in it by path below
    /// that root, with what names the content of a file or symlink; a root that is a file or symlink is the only one. `context`
    /// is what else has decided which they are, if there is such a thing.
    ///
    /// # Errors
    ///
    /// If something of it is not there any more.
    pub fn of_tree<'o>(
        project: &Path,
        path: &Path,
        digest: Digest,
        objects: impl IntoIterator<Item = (&'o str, SeenObject)>,
        start: SystemTime,
        context: Digest,
    ) -> io::Result<Self> {
        let mut folders = BTreeMap::<OsString, SeenFolder>::new();
        let stamp = |path: &Path| -> io::Result<Option<Stamp>> {
            let stamp = Stamp::of_name(&project.join(path))?;
            let stamp = stamp.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            Ok(Some(stamp).filter(|stamp| stamp.is_settled(start)))
        };
        let mut root = vec![("", SeenObject::Folder)];
        let mut objects = objects.into_iter().peekable();
        if objects.peek().is_some_and(|(path, _)| path.is_empty()) {
            root.clear();
        }
        for (below, object) in root.into_iter().chain(objects) {
            let path = if below.is_empty() { path.to_owned() } else { path.join(below) };
            let stamp = stamp(&path)?;
            let (kind, digest) = match object {
                SeenObject::Folder => {
                    folder_at(&mut folders, &path).listing = SeenListing::Listed(stamp);
                    continue;
                }
                SeenObject::File(digest) => (SeenKind::File, digest),
                SeenObject::Link(digest) => (SeenKind::Link, digest),
            };
            if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                let file = SeenFile { name: Name::new(name), kind, stamp, digest };
                folder_at(&mut folders, parent).files.push(file);
            }
        }
        Ok(Self { digest, context, folders: folders.into_values().collect() })
    }

    /// Whether a tree of [`Seen::of_tree`] is as it was seen, as far as stamps tell.
    pub fn is_tree_unchanged(&self, project: &Path, context: &Digest) -> bool {
        Folder::open(project).is_ok_and(|project| self.is_unchanged(&project, context))
    }

    /// The folders that were listed, as [`Seen::folders`] has them.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Path> {
        let listed = self.folders.iter().filter(|folder| matches!(folder.listing, SeenListing::Listed(_)));
        listed.map(|folder| Path::new(folder.path.as_os_str()))
    }

    /// The files and symlinks that are there, by path as [`Seen::folders`] has those.
    pub(super) fn present(&self) -> impl Iterator<Item = PathBuf> {
        self.folders.iter().flat_map(|folder| {
            let there = folder.files.iter().filter(|file| file.kind != SeenKind::Absent);
            there.map(|file| Path::new(folder.path.as_os_str()).join(file.name.as_os_str()))
        })
    }

    /// The folders that were looked into, relative to the project's root; absolute outside of the project.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders.iter().map(|folder| Path::new(folder.path.as_os_str()))
    }

    /// The folders in which something happens whenever something that was seen becomes another, relative to the project's
    /// root at `project`: those that were looked into, and those on the way from a symlink to what it leads to.
    pub(super) fn watched(&self, project: &Path) -> BTreeSet<PathBuf> {
        // Of what is not there, where it would come.
        let there = |folder: &Path| folder.ancestors().find(|folder| project.join(folder).is_dir()).map(Path::to_owned);
        let mut folders: BTreeSet<PathBuf> = self.folders().filter_map(there).collect();
        for folder in &self.folders {
            let path = Path::new(folder.path.as_os_str());
            let links = folder.files.iter().filter(|file| file.kind == SeenKind::Symlink);
            links.for_each(|link| links::follow(project, &path.join(link.name.as_os_str()), &mut folders));
        }
        folders
    }

    /// Whether one of the files was changed, or only touched, since a time.
    pub(super) fn is_touched_since(&self, root: &Path, time: SystemTime) -> bool {
        let Ok(time) = time.duration_since(SystemTime::UNIX_EPOCH) else { return true };
        let time = (i64::try_from(time.as_secs()).unwrap_or(i64::MAX), time.subsec_nanos());
        self.folders.iter().any(|folder| {
            let path = root.join(folder.path.as_os_str());
            folder.files.iter().any(|file| {
                let stamp = Stamp::of_name(&path.join(file.name.as_os_str()));
                stamp.ok().flatten().is_some_and(|stamp| stamp.ctime >= time)
            })
        })
    }

    /// The files by folder and name, to be found again.
    pub(super) fn files(&self) -> HashMap<(&OsStr, &OsStr), &SeenFile> {
        self.folders
            .iter()
            .flat_map(|folder| {
                folder.files.iter().map(move |file| ((folder.path.as_os_str(), file.name.as_os_str()), file))
            })
            .collect()
    }

    /// The files that differ from what was seen `before`, by path relative to the project's root, or absolute outside of it;
    /// what is not UTF-8 in a path is replaced.
    pub fn changes_since(&self, before: &Self) -> Vec<(String, Change)> {
        let (before, now) = (before.contents(), self.contents());
        let mut changes = Vec::new();
        for (path, digest) in &before {
            match now.get(path) {
                None => changes.push((path.clone(), Change::Removed)),
                Some(present) if present != digest => changes.push((path.clone(), Change::Changed)),
                Some(_) => {}
            }
        }
        changes.extend(now.into_keys().filter(|path| !before.contains_key(path)).map(|path| (path, Change::Added)));
        changes.sort();
        changes
    }

    fn contents(&self) -> BTreeMap<String, Digest> {
        let mut contents = BTreeMap::new();
        for folder in &self.folders {
            for file in folder.files.iter().filter(|file| file.kind != SeenKind::Absent) {
                let (folder, name) =
                    (folder.path.as_os_str().to_string_lossy(), file.name.as_os_str().to_string_lossy());
                let path = if folder.is_empty() { name.into_owned() } else { format!("{folder}/{name}") };
                contents.insert(path, file.digest);
            }
        }
        contents
    }
}

impl SeenFolder {
    fn is_unchanged(&self, root: &Folder) -> bool {
        let path = self.path.as_os_str();
        let folder = match root.glance(if path.is_empty() { OsStr::new(".") } else { path }) {
            Ok(folder) => folder,
            Err(error) => {
                // A symlink, say, may lead to a folder, in which something is.
                let is_absent = error.kind() == io::ErrorKind::NotFound
                    && self.files.iter().all(|file| file.kind == SeenKind::Absent);
                return is_absent && self.listing == SeenListing::Unlisted;
            }
        };
        let is_listing_unchanged = match self.listing {
            SeenListing::Unlisted => true,
            SeenListing::Listed(None) => false,
            SeenListing::Listed(Some(stamp)) => folder.own_stamp().is_ok_and(|present| present == stamp),
        };
        is_listing_unchanged && self.files.iter().all(|file| file.is_unchanged(&folder))
    }
}

impl SeenFile {
    fn is_at(&self, kind: Kind, present: io::Result<(Kind, Stamp)>) -> bool {
        self.stamp.is_some_and(|stamp| present.is_ok_and(|present| present == (kind, stamp)))
    }

    fn is_unchanged(&self, folder: &Folder) -> bool {
        let present = folder.stamp(self.name.as_os_str());
        match self.kind {
            SeenKind::Symlink => false,
            SeenKind::Absent => present.is_err_and(|error| error.kind() == io::ErrorKind::NotFound),
            SeenKind::File => self.is_at(Kind::File, present),
            SeenKind::Link => self.is_at(Kind::Symlink, present),
        }
    }
}
