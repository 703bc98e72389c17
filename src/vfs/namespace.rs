//! What one cell sees: a root tree, and others that are mounted in it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use futures::FutureExt;

use super::walk::DEPTH_MAX;
use super::{Answer, Directory, Entry, Identity, Kind, Metadata, Name, Node, VfsError};

/// A cell's files.
#[derive(Clone)]
pub struct Namespace {
    root: Place,
}

/// A tree that is mounted below the root.
#[derive(Clone)]
pub struct Mount {
    /// Where: an absolute path of names, such as `/data/in`, or `/` itself.
    pub path: String,
    /// Its root.
    pub directory: Arc<dyn Directory>,
    /// Whether symbolic links in it may lead out of it, into the rest of the namespace.
    pub links_may_leave: bool,
}

/// Why trees cannot be mounted together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The path is not an absolute path of names.
    #[error("`{}` is no place for a mount: it has to be an absolute path such as /data", crate::escape::text(.path))]
    Path {
        /// The path.
        path: String,
    },
    /// On the way to the place, the image has a link.
    #[error(
        "nothing can be mounted at `{}`, since `{}` is a link of the image to `{}`",
        crate::escape::text(.path),
        crate::escape::text(.at),
        crate::escape::text(.target)
    )]
    Link {
        /// The path.
        path: String,
        /// Where the link is.
        at: String,
        /// What it says.
        target: String,
    },
    /// At the place or on the way to it, the image has something that is no folder.
    #[error("nothing can be mounted at `{}`, since `{}` of the image is no folder", crate::escape::text(.path), crate::escape::text(.at))]
    NotFolder {
        /// The path.
        path: String,
        /// Where that is.
        at: String,
    },
    /// Two mounts have the same place.
    #[error("two mounts have the place `{}`", crate::escape::text(.path))]
    Twice {
        /// The path.
        path: String,
    },
}

/// The mounts below a directory, by name.
#[derive(Clone, Default)]
struct Mounts(BTreeMap<String, MountPoint>);

/// What is mounted below most directories.
static NO_MOUNTS: LazyLock<Arc<Mounts>> = LazyLock::new(Arc::default);

#[derive(Clone, Default)]
struct MountPoint {
    /// What is mounted there; `None` on the way to a mount.
    mount: Option<Mounted>,
    below: Arc<Mounts>,
}

#[derive(Clone)]
struct Mounted {
    directory: Arc<dyn Directory>,
    links_may_leave: bool,
}

impl Namespace {
    /// A namespace of `root` with these mounts. One at `/` is there instead of the root.
    ///
    /// # Errors
    /// If a mount's path is malformed or there twice.
    pub fn new(root: Arc<dyn Directory>, mounts: &[Mount]) -> Result<Self, MountError> {
        let mut table = Mounts::default();
        let (instead, mounts): (Vec<_>, Vec<_>) = mounts.iter().partition(|mount| mount.path == "/");
        if instead.len() > 1 {
            return Err(MountError::Twice { path: "/".into() });
        }
        for mount in &mounts {
            table.add(mount)?;
        }
        let (root, links_may_leave) = match instead.first() {
            Some(mount) => (mount.directory.clone(), mount.links_may_leave),
            None => (root, true),
        };
        let root = Place(Arc::new(Inner {
            directory: root,
            above: None,
            depth: 0,
            mounts: Arc::new(table),
            is_mount: false,
            links_may_leave,
        }));
        Ok(Self { root })
    }

    /// Its root, the only place that a guest finds open: from there it sees all that is mounted, as in POSIX.
    pub fn root(&self) -> &Place {
        &self.root
    }
}

impl Mounts {
    fn add(&mut self, mount: &Mount) -> Result<(), MountError> {
        let malformed = || MountError::Path { path: mount.path.clone() };
        let names: Vec<&str> = mount.path.strip_prefix('/').ok_or_else(malformed)?.split('/').collect();
        if names.len() >= DEPTH_MAX || names.iter().any(|name| Name::new(name).is_err()) {
            return Err(malformed());
        }
        let mounted = Mounted { directory: mount.directory.clone(), links_may_leave: mount.links_may_leave };
        let mut table = self;
        for (index, name) in names.iter().enumerate() {
            let point = table.0.entry((*name).to_owned()).or_default();
            if index + 1 == names.len() {
                if point.mount.replace(mounted).is_some() {
                    return Err(MountError::Twice { path: mount.path.clone() });
                }
                break;
            }
            table = Arc::make_mut(&mut point.below);
        }
        Ok(())
    }
}

/// A directory in a namespace, with the way that led to it. A cheap handle.
///
/// The way up from it is the way that led down, so it never leaves the namespace, whatever happens to the tree meanwhile.
#[derive(Clone)]
pub struct Place(Arc<Inner>);

struct Inner {
    directory: Arc<dyn Directory>,
    above: Option<Place>,
    /// How many places are above; bounded by [`DEPTH_MAX`], since a place that goes takes those above with it, one inside
    /// the other.
    depth: usize,
    mounts: Arc<Mounts>,
    /// Whether a tree is mounted here.
    is_mount: bool,
    links_may_leave: bool,
}

impl Place {
    /// The directory itself.
    pub fn directory(&self) -> &Arc<dyn Directory> {
        &self.0.directory
    }

    /// The place above, or this place itself at the root of the namespace.
    pub(super) fn above(&self) -> Place {
        self.0.above.clone().unwrap_or_else(|| self.clone())
    }

    /// The root of the namespace.
    pub(super) fn root(&self) -> Place {
        let mut place = self.clone();
        while let Some(above) = &place.0.above {
            place = above.clone();
        }
        place
    }

    /// How many places are above it, each of which it keeps.
    pub fn depth(&self) -> usize {
        self.0.depth
    }

    pub(super) fn links_may_leave(&self) -> bool {
        self.0.links_may_leave
    }

    /// Whether the way up from here leaves the tree that this place is in.
    pub(super) fn is_root_of_tree(&self) -> bool {
        self.0.is_mount || self.0.above.is_none()
    }

    /// Whether something is mounted at the name, or below it, so that the name cannot go.
    pub fn is_mount_point(&self, name: Name<'_>) -> bool {
        self.0.mounts.0.contains_key(name.as_str())
    }

    /// What is there under a name, mounts included.
    pub(super) async fn lookup(&self, name: Name<'_>) -> Result<Node, VfsError> {
        let Some(point) = self.0.mounts.0.get(name.as_str()) else {
            return self.0.directory.lookup(name).await;
        };
        if let Some(mount) = &point.mount {
            return Ok(Node::Directory(mount.directory.clone()));
        }
        match self.0.directory.lookup(name).await {
            Ok(node @ Node::Directory(_)) => Ok(node),
            Ok(_) | Err(VfsError::NoEntry) => Ok(Node::Directory(Arc::new(WayToMount(
                super::content::child_identity(self.0.directory.identity(), name),
            )))),
            Err(error) => Err(error),
        }
    }

    /// The place of a directory that a name stands for here.
    ///
    /// # Errors
    /// If it is too deep.
    pub(super) fn enter(&self, name: Name<'_>, directory: Arc<dyn Directory>) -> Result<Place, VfsError> {
        if self.0.depth >= DEPTH_MAX {
            return Err(VfsError::NameTooLong);
        }
        let point = self.0.mounts.0.get(name.as_str());
        let mount = point.and_then(|point| point.mount.as_ref());
        Ok(Self(Arc::new(Inner {
            directory,
            above: Some(self.clone()),
            depth: self.0.depth + 1,
            mounts: point.map_or_else(|| NO_MOUNTS.clone(), |point| point.below.clone()),
            is_mount: mount.is_some(),
            links_may_leave: mount.map_or(self.0.links_may_leave, |mount| mount.links_may_leave),
        })))
    }

    /// All entries, mounts included, sorted by the bytes of their names.
    ///
    /// # Errors
    /// If they cannot be had.
    pub async fn entries(&self) -> Result<Vec<Entry>, VfsError> {
        let mut entries = self.0.directory.entries().await?;
        let mounts = &self.0.mounts.0;
        if !mounts.is_empty() {
            entries.retain(|entry| !mounts.contains_key(&entry.name));
            entries.extend(mounts.keys().map(|name| Entry { name: name.clone(), kind: Kind::Directory }));
            entries.sort_unstable_by(|first, second| first.name.cmp(&second.name));
        }
        Ok(entries)
    }
}

/// A root without entries, for a cell that has only what is mounted.
pub fn empty_root() -> Arc<dyn Directory> {
    Arc::new(WayToMount(super::content::ROOT_IDENTITY))
}

/// A directory that is there only because something is mounted below it.
struct WayToMount(Identity);

impl Directory for WayToMount {
    fn identity(&self) -> Identity {
        self.0
    }

    fn metadata(&self) -> Answer<'_, Metadata> {
        futures::future::ready(Ok(Metadata { kind: Kind::Directory, size_bytes: 0, links: 1, times: None })).boxed()
    }

    fn lookup<'a>(&'a self, _: Name<'a>) -> Answer<'a, Node> {
        futures::future::ready(Err(VfsError::NoEntry)).boxed()
    }

    fn entries(&self) -> Answer<'_, Vec<Entry>> {
        futures::future::ready(Ok(Vec::new())).boxed()
    }
}
