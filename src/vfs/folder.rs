//! A folder of this machine as a tree.
//!
//! Each directory of the tree is an open directory of the host. What is asked for in it is one name, opened in that
//! directory without following links, so nothing outside can be reached, whatever somebody does to the folder meanwhile.
//!
//! An image's folder ([`open_image`]) cannot be written, and shows neither times nor inodes, so that it looks like the
//! same image read from blocks. Nobody is expected to change it: directories of it that were looked up lately stay open, and
//! are not looked for again. A mount ([`open_mount`]) shows what is there.
//!
//! What the kernel can answer without waiting for a disk is asked on the spot, and all else on a blocking thread.

#![allow(clippy::unnecessary_cast, reason = "the types of what the system tells differ between systems")]

use std::any::Any;
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::content::{ROOT_IDENTITY, child_identity, image_metadata};
use super::{
    Access, Answer, Directory, Entry, File, Identity, Kind, LISTING_ENTRIES_MAX, Metadata, Name, NewTime, NewTimes,
    Node, OpenFile, PATH_BYTES_MAX, READ_BYTES_MAX, Symlink, Times, VfsError,
};

/// The most directories of an image that stay open because they were looked up. A process has some 1,000 handles; a program
/// that walks a tree, or reads one file after the other, is in a few at a time.
const KEPT_DIRECTORIES_MAX: usize = 64;

/// How a folder is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    /// As an image: read-only, without times, and with identities that follow from the paths.
    Image,
    /// As it is, to be read, and written where that is said.
    Mount { writable: bool },
}

/// An image's folder.
///
/// # Errors
/// If it is no directory or cannot be opened.
pub fn open_image(path: &Path) -> io::Result<Arc<dyn Directory>> {
    let (fd, kept) = (Arc::new(open_root(path)?), Some(Arc::default()));
    Ok(Arc::new(FolderDirectory { fd, identity: ROOT_IDENTITY, show: Show::Image, kept, folder: next_folder() }))
}

/// A folder of the user's, as it is.
///
/// # Errors
/// If it is no directory or cannot be opened.
pub fn open_mount(path: &Path, writable: bool) -> io::Result<Arc<dyn Directory>> {
    let fd = open_root(path)?;
    let identity = host_identity(&rustix::fs::fstat(&fd)?);
    let show = Show::Mount { writable };
    Ok(Arc::new(FolderDirectory { fd: Arc::new(fd), identity, show, kept: None, folder: next_folder() }))
}

/// A number for a folder that is shown. What the system calls one device may be shown more than once.
fn next_folder() -> u64 {
    static SHOWN: AtomicU64 = AtomicU64::new(0);
    SHOWN.fetch_add(1, Ordering::Relaxed)
}

fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Runs what may wait for a disk where that disturbs nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VfsError> + Send + 'static,
) -> Result<T, VfsError> {
    tokio::task::spawn_blocking(work).await.map_err(VfsError::failed)?
}

/// Opens a name if the kernel has all that it takes in memory. `None` if it has not, or cannot tell.
#[cfg(target_os = "linux")]
fn open_cached(directory: &OwnedFd, name: &str, flags: OFlags) -> Option<Result<OwnedFd, Errno>> {
    use rustix::fs::{ResolveFlags, openat2};
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::CACHED;
    match openat2(directory, name, flags, Mode::empty(), resolve) {
        Ok(fd) => Some(Ok(fd)),
        Err(Errno::NOENT) => Some(Err(Errno::NOENT)),
        Err(_) => None,
    }
}

#[cfg(not(target_os = "linux"))]
fn open_cached(_: &OwnedFd, _: &str, _: OFlags) -> Option<Result<OwnedFd, Errno>> {
    None
}

/// Opens a name, and looks at what that is; where the first waits for a disk, the second may as well.
async fn open_at(directory: &Arc<OwnedFd>, name: &str, flags: OFlags) -> Result<(OwnedFd, Stat), VfsError> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let look = |fd: OwnedFd| {
        let fd = spare(fd)?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok((fd, stat))
    };
    if let Some(opened) = open_cached(directory, name, flags) {
        return look(opened?);
    }
    let (directory, name) = (directory.clone(), name.to_owned());
    blocking(move || look(rustix::fs::openat(&directory, name, flags, Mode::empty())?)).await
}

/// How many file descriptors of this process cells leave to all else: to connections, to compilers, to the blockstore.
const DESCRIPTORS_LEFT: u64 = 128;

/// How many file descriptors this process may have, as it is when the first file is opened for a cell.
static DESCRIPTORS_MAX: LazyLock<Option<u64>> =
    LazyLock::new(|| rustix::process::getrlimit(rustix::process::Resource::Nofile).current);

/// The descriptor, unless it is one of the last that the process may have: the system gives the lowest that is free.
fn spare(fd: OwnedFd) -> Result<OwnedFd, VfsError> {
    let most = *DESCRIPTORS_MAX;
    let number = u64::try_from(fd.as_raw_fd()).unwrap_or(0);
    match most.is_some_and(|most| number >= most.saturating_sub(DESCRIPTORS_LEFT)) {
        true => Err(VfsError::NoMemory),
        false => Ok(fd),
    }
}

fn host_identity(stat: &Stat) -> Identity {
    // The first tree is the image's.
    Identity { tree: (stat.st_dev as u64).wrapping_add(1), object: stat.st_ino as u64 }
}

fn kind(stat: &Stat) -> Kind {
    kind_of(FileType::from_raw_mode(stat.st_mode))
}

fn kind_of(file_type: FileType) -> Kind {
    match file_type {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Other,
    }
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let nanoseconds = Duration::from_nanos(nanoseconds);
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base =
        if seconds < 0 { SystemTime::UNIX_EPOCH.checked_sub(whole) } else { SystemTime::UNIX_EPOCH.checked_add(whole) };
    base.and_then(|base| base.checked_add(nanoseconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Show {
    fn metadata(self, stat: &Stat) -> Metadata {
        let kind = kind(stat);
        let size_bytes =
            if matches!(kind, Kind::File | Kind::Symlink) { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        match self {
            Self::Image => image_metadata(kind, size_bytes),
            Self::Mount { .. } => Metadata {
                kind,
                size_bytes,
                links: stat.st_nlink as u64,
                times: Some(Times {
                    accessed: time(stat.st_atime as i64, stat.st_atime_nsec as u64),
                    modified: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
                    changed: time(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
                }),
            },
        }
    }

    fn check_writable(self) -> Result<(), VfsError> {
        if self == (Self::Mount { writable: true }) { Ok(()) } else { Err(VfsError::ReadOnly) }
    }
}

/// Directories of an image that are open, by their identities, each with its name. The lock is held for a look only.
#[derive(Default)]
struct KeptDirectories(Mutex<HashMap<Identity, (String, Arc<OwnedFd>)>>);

impl KeptDirectories {
    fn get(&self, identity: Identity, name: Name<'_>) -> Option<Arc<OwnedFd>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Identities are digests of paths. Whoever makes an image may find two that are equal, and confuses himself.
        kept.get(&identity).filter(|(kept_name, _)| kept_name == name.as_str()).map(|(_, fd)| fd.clone())
    }

    fn insert(&self, identity: Identity, name: Name<'_>, fd: Arc<OwnedFd>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_DIRECTORIES_MAX {
            kept.clear();
        }
        kept.insert(identity, (name.as_str().to_owned(), fd));
    }
}

#[derive(Clone)]
struct FolderDirectory {
    fd: Arc<OwnedFd>,
    identity: Identity,
    show: Show,
    /// Those of the whole tree, where it is an image.
    kept: Option<Arc<KeptDirectories>>,
    /// The number of the folder that is shown.
    folder: u64,
}

impl FolderDirectory {
    async fn find(&self, name: Name<'_>) -> Result<Node, VfsError> {
        if let Some(kept) = &self.kept {
            let identity = child_identity(self.identity, name);
            if let Some(fd) = kept.get(identity, name) {
                return Ok(self.child(identity, fd));
            }
        }
        let (fd, stat) = open_at(&self.fd, name.as_str(), OFlags::PATH).await?;
        let metadata = self.show.metadata(&stat);
        let identity = match self.show {
            Show::Image => child_identity(self.identity, name),
            Show::Mount { .. } => host_identity(&stat),
        };
        Ok(match metadata.kind {
            Kind::Directory => {
                let fd = Arc::new(fd);
                if let Some(kept) = &self.kept {
                    kept.insert(identity, name, fd.clone());
                }
                self.child(identity, fd)
            }
            Kind::File => Node::File(Arc::new(FolderFile {
                directory: self.fd.clone(),
                name: name.as_str().to_owned(),
                inode: (stat.st_dev as u64, stat.st_ino as u64),
                identity,
                metadata,
                show: self.show,
            })),
            Kind::Symlink => {
                let (directory, name) = (self.fd.clone(), name.as_str().to_owned());
                let read = move || Ok(rustix::fs::readlinkat(&directory, name, Vec::new())?);
                let target = match self.show {
                    // There are few, in folders that are read from a disk and stay in memory.
                    Show::Image => read()?,
                    Show::Mount { .. } => blocking(read).await?,
                };
                let target = target.into_string().map_err(|_| VfsError::IllegalName)?;
                if target.len() > PATH_BYTES_MAX {
                    return Err(VfsError::NameTooLong);
                }
                Node::Symlink(Arc::new(Symlink { identity, metadata, target }))
            }
            Kind::Other => Node::Other(identity, metadata),
        })
    }

    fn child(&self, identity: Identity, fd: Arc<OwnedFd>) -> Node {
        Node::Directory(Arc::new(Self { fd, identity, show: self.show, kept: self.kept.clone(), folder: self.folder }))
    }

    /// Does something that changes the folder.
    fn change<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&OwnedFd) -> Result<T, Errno> + Send + 'static,
    ) -> Answer<'a, T> {
        if let Err(error) = self.show.check_writable() {
            return futures::future::ready(Err(error)).boxed();
        }
        let fd = self.fd.clone();
        blocking(move || Ok(work(&fd)?)).boxed()
    }

    /// The other directory of a change that concerns two, if it is in the same folder and on the same device. Who is told that
    /// it is not copies, which may be allowed.
    fn partner(&self, to: &Arc<dyn Directory>) -> Result<Arc<OwnedFd>, VfsError> {
        let to: &dyn Any = &**to;
        let to = to.downcast_ref::<Self>().ok_or(VfsError::CrossDevice)?;
        if to.folder != self.folder || to.identity.tree != self.identity.tree {
            return Err(VfsError::CrossDevice);
        }
        to.show.check_writable()?;
        Ok(to.fd.clone())
    }
}

fn list(directory: &OwnedFd) -> Result<Vec<Entry>, VfsError> {
    let readable =
        rustix::fs::openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::new(readable)? {
        let entry = entry?;
        // A name that is not UTF-8 cannot be said in WASI, so no guest could use it.
        let Ok(name) = entry.file_name().to_str() else { continue };
        if matches!(name, "." | "..") {
            continue;
        }
        if entries.len() == LISTING_ENTRIES_MAX {
            return Err(VfsError::NoMemory);
        }
        let file_type = match entry.file_type() {
            FileType::Unknown => match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            },
            known => known,
        };
        entries.push(Entry { name: name.to_owned(), kind: kind_of(file_type) });
    }
    entries.sort_unstable_by(|first, second| first.name.cmp(&second.name));
    Ok(entries)
}

impl Directory for FolderDirectory {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn metadata(&self) -> Answer<'_, Metadata> {
        let metadata = rustix::fs::fstat(&self.fd).map(|stat| self.show.metadata(&stat)).map_err(VfsError::from);
        futures::future::ready(metadata).boxed()
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Node> {
        self.find(name).boxed()
    }

    fn entries(&self) -> Answer<'_, Vec<Entry>> {
        let fd = self.fd.clone();
        blocking(move || list(&fd)).boxed()
    }

    fn create_file<'a>(&'a self, name: Name<'a>) -> Answer<'a, Arc<dyn File>> {
        let text = name.as_str().to_owned();
        let made = self.change(move |directory| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(directory, text, flags, Mode::from_raw_mode(0o666)).map(drop)
        });
        async move {
            made.await?;
            match self.find(name).await? {
                Node::File(file) => Ok(file),
                _ => Err(VfsError::Exists),
            }
        }
        .boxed()
    }

    fn create_directory<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        let name = name.as_str().to_owned();
        self.change(move |directory| rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o777)))
    }

    fn create_symlink<'a>(&'a self, name: Name<'a>, target: &'a str) -> Answer<'a, ()> {
        // It could not be followed here, and would mislead the host's own programs.
        if target.starts_with('/') {
            return futures::future::ready(Err(VfsError::NotPermitted)).boxed();
        }
        let (name, target) = (name.as_str().to_owned(), target.to_owned());
        self.change(move |directory| rustix::fs::symlinkat(target, directory, name))
    }

    fn link<'a>(&'a self, name: Name<'a>, to: &'a Arc<dyn Directory>, to_name: Name<'a>) -> Answer<'a, ()> {
        let (name, to_name) = (name.as_str().to_owned(), to_name.as_str().to_owned());
        match self.partner(to) {
            Ok(to) => self.change(move |directory| rustix::fs::linkat(directory, name, &to, to_name, AtFlags::empty())),
            Err(error) => futures::future::ready(Err(error)).boxed(),
        }
    }

    fn remove_file<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        let name = name.as_str().to_owned();
        self.change(move |directory| rustix::fs::unlinkat(directory, name, AtFlags::empty()))
    }

    fn remove_directory<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        let name = name.as_str().to_owned();
        self.change(move |directory| rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR))
    }

    fn rename<'a>(&'a self, name: Name<'a>, to: &'a Arc<dyn Directory>, to_name: Name<'a>) -> Answer<'a, ()> {
        let (name, to_name) = (name.as_str().to_owned(), to_name.as_str().to_owned());
        match self.partner(to) {
            Ok(to) => self.change(move |directory| rustix::fs::renameat(directory, name, &to, to_name)),
            Err(error) => futures::future::ready(Err(error)).boxed(),
        }
    }

    fn set_times<'a>(&'a self, name: Option<Name<'a>>, times: NewTimes) -> Answer<'a, ()> {
        let name = name.map_or_else(|| ".".to_owned(), |name| name.as_str().to_owned());
        self.change(move |directory| {
            rustix::fs::utimensat(directory, name, &timestamps(times), AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    fn sync(&self) -> Answer<'_, ()> {
        let fd = self.fd.clone();
        blocking(move || {
            let readable = rustix::fs::openat(&fd, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            Ok(rustix::fs::fsync(readable)?)
        })
        .boxed()
    }
}

fn timestamps(times: NewTimes) -> Timestamps {
    Timestamps { last_access: timespec(times.accessed), last_modification: timespec(times.modified) }
}

fn timespec(time: NewTime) -> Timespec {
    match time {
        NewTime::Keep => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        NewTime::Now => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        NewTime::At(time) => {
            // WASI has no times before 1970.
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Timespec {
                tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: since.subsec_nanos().into(),
            }
        }
    }
}

struct FolderFile {
    directory: Arc<OwnedFd>,
    name: String,
    /// Device and inode of what was looked up; what is opened must be that.
    inode: (u64, u64),
    identity: Identity,
    metadata: Metadata,
    show: Show,
}

impl File for FolderFile {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn metadata(&self) -> Answer<'_, Metadata> {
        futures::future::ready(Ok(self.metadata)).boxed()
    }

    fn open(&self, access: Access) -> Answer<'_, Arc<dyn OpenFile>> {
        async move {
            let mode = match access {
                Access::Read => OFlags::RDONLY,
                Access::ReadWrite => OFlags::RDWR,
                Access::Write => OFlags::WRONLY,
            };
            if access != Access::Read {
                self.show.check_writable()?;
            }
            // Should it have become something else meanwhile, opening it neither waits nor does anything else.
            let flags = mode | OFlags::NONBLOCK | OFlags::NOCTTY;
            let (fd, stat) = open_at(&self.directory, &self.name, flags).await?;
            if kind(&stat) != Kind::File || (stat.st_dev as u64, stat.st_ino as u64) != self.inode {
                return Err(VfsError::Replaced);
            }
            Ok(Arc::new(OpenFolderFile { fd, identity: self.identity, show: self.show }) as Arc<dyn OpenFile>)
        }
        .boxed()
    }
}

struct OpenFolderFile {
    fd: OwnedFd,
    identity: Identity,
    show: Show,
}

/// Reads if the kernel has the bytes in memory.
#[cfg(target_os = "linux")]
fn read_cached(fd: &OwnedFd, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
    rustix::io::preadv2(fd, &mut [IoSliceMut::new(bytes)], offset, rustix::io::ReadWriteFlags::NOWAIT)
}

#[cfg(not(target_os = "linux"))]
fn read_cached(_: &OwnedFd, _: &mut [u8], _: u64) -> Result<usize, Errno> {
    Err(Errno::AGAIN)
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), VfsError> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, offset) {
            Ok(0) => return Err(VfsError::NoSpace),
            Ok(size) => {
                bytes = &bytes[size..];
                offset += size as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes to the end, wherever that is by then.
#[cfg(target_os = "linux")]
fn append_all(fd: &OwnedFd, mut bytes: &[u8]) -> Result<(), VfsError> {
    while !bytes.is_empty() {
        let piece = [io::IoSlice::new(bytes)];
        match rustix::io::pwritev2(fd, &piece, 0, rustix::io::ReadWriteFlags::APPEND) {
            Ok(0) => return Err(VfsError::NoSpace),
            Ok(size) => bytes = &bytes[size..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn append_all(fd: &OwnedFd, bytes: &[u8]) -> Result<(), VfsError> {
    let size = u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0);
    write_all(fd, bytes, size)
}

impl OpenFile for OpenFolderFile {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn metadata(&self) -> Answer<'_, Metadata> {
        let metadata = rustix::fs::fstat(&self.fd).map(|stat| self.show.metadata(&stat)).map_err(VfsError::from);
        futures::future::ready(metadata).boxed()
    }

    fn read_at(self: Arc<Self>, offset: u64, size: usize) -> Answer<'static, Bytes> {
        // No file is so long, and beyond it the kernel takes the end of the piece for an error.
        if offset > i64::MAX as u64 - READ_BYTES_MAX as u64 {
            return futures::future::ready(Ok(Bytes::new())).boxed();
        }
        let mut bytes = vec![0; size.min(READ_BYTES_MAX)];
        if let Ok(size) = read_cached(&self.fd, &mut bytes, offset) {
            bytes.truncate(size);
            return futures::future::ready(Ok(bytes.into())).boxed();
        }
        blocking(move || {
            let size = loop {
                match rustix::io::pread(&self.fd, &mut bytes, offset) {
                    Err(Errno::INTR) => {}
                    read => break read?,
                }
            };
            bytes.truncate(size);
            Ok(bytes.into())
        })
        .boxed()
    }

    fn write_at(self: Arc<Self>, offset: u64, bytes: Bytes) -> Answer<'static, ()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| i64::try_from(end).is_err()) {
            return futures::future::ready(Err(VfsError::FileTooLarge)).boxed();
        }
        blocking(move || write_all(&self.fd, &bytes, offset)).boxed()
    }

    fn append(self: Arc<Self>, bytes: Bytes) -> Answer<'static, ()> {
        blocking(move || append_all(&self.fd, &bytes)).boxed()
    }

    fn set_size(&self, size_bytes: u64) -> Answer<'_, ()> {
        let fd = self.fd.as_fd().try_clone_to_owned();
        blocking(move || Ok(rustix::fs::ftruncate(fd?, size_bytes)?)).boxed()
    }

    fn set_times(&self, times: NewTimes) -> Answer<'_, ()> {
        if let Err(error) = self.show.check_writable() {
            return futures::future::ready(Err(error)).boxed();
        }
        let fd = self.fd.as_fd().try_clone_to_owned();
        blocking(move || Ok(rustix::fs::futimens(fd?, &timestamps(times))?)).boxed()
    }

    fn sync(&self) -> Answer<'_, ()> {
        let fd = self.fd.as_fd().try_clone_to_owned();
        blocking(move || Ok(rustix::fs::fsync(fd?)?)).boxed()
    }
}
