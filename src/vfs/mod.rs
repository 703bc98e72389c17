//! Trees that a cell sees as its files.
//!
//! A tree is reached from its root [`Directory`], one name at a time. There are three kinds: [`folder`] shows a folder of
//! this machine, [`content`] shows what a CID names, block by block as it is read, and [`memory`] keeps files in memory
//! within a bound. [`Namespace`] joins a root and what is mounted below it to what one cell sees, and [`Place`] walks
//! paths through it.
//!
//! A path that a guest names is walked here, component by component, symbolic links included; no kernel ever resolves
//! one. What a tree is asked for is a [`Name`], which cannot lead anywhere but into the directory that is asked.
//!
//! Everything is asynchronous, since a block may have to come from another machine. Nothing here knows WASI.

pub mod content;
mod error;
pub mod folder;
pub mod memory;
mod name;
mod namespace;
mod walk;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

pub use error::VfsError;
pub use name::{NAME_BYTES_MAX, Name};
pub use namespace::{Mount, MountError, Namespace, Place, empty_root};
pub use walk::{DEPTH_MAX, Follow, LINKS_MAX, PATH_BYTES_MAX, Target};

/// The most bytes that one read gives, whatever is asked for.
pub const READ_BYTES_MAX: usize = 256 * 1024;

/// The most entries that a directory may have to be listed, and the most bytes of their names together. It bounds what a
/// guest can make the host hold by listing; a larger directory can still be used, name by name.
pub const LISTING_ENTRIES_MAX: usize = 256 * 1024;

/// What a tree answers, now or later.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, VfsError>>;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link.
    Symlink,
    /// Something else, such as a device, which cannot be opened; in a listing also what is not known.
    Other,
}

/// Which object something is: two with the same identity are the same object, within one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The tree, or the file system of the host.
    pub tree: u64,
    /// The object in it.
    pub object: u64,
}

/// When a node was last used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When it was last read.
    pub accessed: SystemTime,
    /// When its content last changed.
    pub modified: SystemTime,
    /// When anything about it last changed.
    pub changed: SystemTime,
}

/// What is known of a node beside its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// The length of a file's content or of a symbolic link's target, in bytes; 0 for all else.
    pub size_bytes: u64,
    /// How many names it has.
    pub links: u64,
    /// Images have no times: the same tree is to look the same wherever it comes from.
    pub times: Option<Times>,
}

/// A time to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewTime {
    /// It stays.
    Keep,
    /// The present.
    Now,
    /// This.
    At(SystemTime),
}

/// Times to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTimes {
    /// When it was last read.
    pub accessed: NewTime,
    /// When its content last changed.
    pub modified: NewTime,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is, as far as that can be told without fetching anything.
    pub kind: Kind,
}

/// What a name stands for.
#[derive(Clone)]
pub enum Node {
    /// A directory.
    Directory(Arc<dyn Directory>),
    /// A file.
    File(Arc<dyn File>),
    /// A symbolic link.
    Symlink(Arc<Symlink>),
    /// Something that cannot be opened.
    Other(Identity, Metadata),
}

/// A symbolic link.
#[derive(Clone, Debug)]
pub struct Symlink {
    /// Which object it is.
    pub identity: Identity,
    /// What is known of it.
    pub metadata: Metadata,
    /// Where it leads, as it was written.
    pub target: String,
}

/// A directory of a tree. Without the methods that change it, it is read-only.
pub trait Directory: Any + Send + Sync {
    /// Which object it is.
    fn identity(&self) -> Identity;

    /// What is known of it.
    fn metadata(&self) -> Answer<'_, Metadata>;

    /// What is there under a name; [`VfsError::NoEntry`] if nothing is. Links are not followed.
    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Node>;

    /// Which object is there under a name; as [`Directory::lookup`], but without a look at the object where it can be told
    /// without.
    fn identity_of<'a>(&'a self, name: Name<'a>) -> Answer<'a, Identity> {
        async move { Ok(self.lookup(name).await?.identity()) }.boxed()
    }

    /// All entries, sorted by the bytes of their names.
    fn entries(&self) -> Answer<'_, Vec<Entry>>;

    /// Makes an empty file; [`VfsError::Exists`] if the name is taken.
    fn create_file<'a>(&'a self, _name: Name<'a>) -> Answer<'a, Arc<dyn File>> {
        read_only()
    }

    /// Makes an empty directory; [`VfsError::Exists`] if the name is taken.
    fn create_directory<'a>(&'a self, _name: Name<'a>) -> Answer<'a, ()> {
        read_only()
    }

    /// Makes a symbolic link; [`VfsError::Exists`] if the name is taken.
    fn create_symlink<'a>(&'a self, _name: Name<'a>, _target: &'a str) -> Answer<'a, ()> {
        read_only()
    }

    /// Gives what is not a directory another name, in another directory of the same tree.
    fn link<'a>(&'a self, _name: Name<'a>, to: &'a Arc<dyn Directory>, _to_name: Name<'a>) -> Answer<'a, ()> {
        other_tree_or_read_only(self.identity(), to)
    }

    /// Takes the name from what is not a directory.
    fn remove_file<'a>(&'a self, _name: Name<'a>) -> Answer<'a, ()> {
        read_only()
    }

    /// Removes an empty directory.
    fn remove_directory<'a>(&'a self, _name: Name<'a>) -> Answer<'a, ()> {
        read_only()
    }

    /// Moves an entry to another directory of the same tree, where it replaces what has its name, as POSIX has it.
    fn rename<'a>(&'a self, _name: Name<'a>, to: &'a Arc<dyn Directory>, _to_name: Name<'a>) -> Answer<'a, ()> {
        other_tree_or_read_only(self.identity(), to)
    }

    /// Sets the times of the entry, a link's own, or those of this directory itself.
    fn set_times<'a>(&'a self, _name: Option<Name<'a>>, _times: NewTimes) -> Answer<'a, ()> {
        read_only()
    }

    /// Waits until what was changed is on the disk, where there is one.
    fn sync(&self) -> Answer<'_, ()> {
        futures::future::ready(Ok(())).boxed()
    }
}

/// A file that is not open.
pub trait File: Send + Sync {
    /// Which object it is.
    fn identity(&self) -> Identity;

    /// What is known of it.
    fn metadata(&self) -> Answer<'_, Metadata>;

    /// Opens it for reading, and where that is asked for also for writing.
    fn open(&self, access: Access) -> Answer<'_, Arc<dyn OpenFile>>;
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
    /// Writing alone.
    Write,
}

/// An open file. Without the methods that change it, it is read-only.
pub trait OpenFile: Send + Sync {
    /// Which object it is.
    fn identity(&self) -> Identity;

    /// What is known of it.
    fn metadata(&self) -> Answer<'_, Metadata>;

    /// Reads from a byte of the content on: at least one byte and at most `size` of them or [`READ_BYTES_MAX`], and
    /// nothing at and beyond the end.
    fn read_at(self: Arc<Self>, offset: u64, size: usize) -> Answer<'static, Bytes>;

    /// Writes all of `bytes` from a byte of the content on. What lies between the end and there becomes zeros.
    fn write_at(self: Arc<Self>, _offset: u64, _bytes: Bytes) -> Answer<'static, ()> {
        read_only()
    }

    /// Writes all of `bytes` to the end.
    fn append(self: Arc<Self>, _bytes: Bytes) -> Answer<'static, ()> {
        read_only()
    }

    /// Cuts the content off, or fills it up with zeros.
    fn set_size(&self, _size_bytes: u64) -> Answer<'_, ()> {
        read_only()
    }

    /// Sets its times.
    fn set_times(&self, _times: NewTimes) -> Answer<'_, ()> {
        read_only()
    }

    /// Waits until what was written is on the disk, where there is one.
    fn sync(&self) -> Answer<'_, ()> {
        futures::future::ready(Ok(())).boxed()
    }
}

impl Node {
    /// What is known of it.
    pub fn metadata(&self) -> Answer<'_, Metadata> {
        match self {
            Self::Directory(directory) => directory.metadata(),
            Self::File(file) => file.metadata(),
            Self::Symlink(symlink) => futures::future::ready(Ok(symlink.metadata)).boxed(),
            Self::Other(_, metadata) => futures::future::ready(Ok(*metadata)).boxed(),
        }
    }

    /// Which object it is.
    pub fn identity(&self) -> Identity {
        match self {
            Self::Directory(directory) => directory.identity(),
            Self::File(file) => file.identity(),
            Self::Symlink(symlink) => symlink.identity,
            Self::Other(identity, _) => *identity,
        }
    }
}

/// What a read-only directory says of a change that concerns another one as well. Who is told that it is in another tree copies,
/// which is allowed.
fn other_tree_or_read_only<'a>(this: Identity, to: &Arc<dyn Directory>) -> Answer<'a, ()> {
    match this.tree == to.identity().tree {
        true => read_only(),
        false => futures::future::ready(Err(VfsError::CrossDevice)).boxed(),
    }
}

fn read_only<'a, T: Send + 'a>() -> Answer<'a, T> {
    futures::future::ready(Err(VfsError::ReadOnly)).boxed()
}
