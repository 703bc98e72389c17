//! Native code on disk: what one process has compiled, others of the same user need not.
//!
//! A [`CodeCache`] is a folder that is this user's alone, with one file for each component and each way to compile it:
//!
//! ```text
//! <64 hex digits>     native code, and at its end a trailer that tells whether it is whole
//! new-<pid>-<number>  one that is being written
//! ```
//!
//! Any number of processes use it at once, without locks: files are written under a name of their own, get their final
//! one by rename, and are never written to again. What is damaged, or not as it must be, is as if it were not there, and
//! is replaced. Nothing in it is waited for to be on disk, since a crash costs no more than another compilation.

use std::fs::{DirBuilder, File, FileTimes, Metadata};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::native::NativeCode;
use crate::checksum::Checksum;
use crate::escape;
use crate::folder::Folder;

#[cfg(test)]
mod tests;

/// How files that are being written begin.
const NEW_PREFIX: &str = "new-";

/// After this time nobody writes to such a file any more: no compilation may take that long.
const NEW_AGE_MAX: Duration = Duration::from_secs(60 * 60);

/// How old the time of a file's last use may be before it is written anew, so that most uses write nothing.
const USE_GRANULARITY: Duration = Duration::from_secs(10 * 60);

/// What is at the end of each file: this, the number of bytes before it, and their checksum, 8 bytes each, little-endian.
const TRAILER_MAGIC: [u8; 8] = *b"ww code\x01";
const TRAILER_BYTES: usize = 24;

/// How much is read at a time: more would cost more page faults than it saves calls.
const BUFFER_BYTES: usize = 32 << 10;

/// Permission bits with which others could change something.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What a file is found by: a digest of the component and of all that decides what it is compiled to.
pub(super) type Key = [u8; 32];

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum CodeCacheError {
    /// It cannot be made or opened.
    #[error("cannot use the folder {} for compiled code", escape::path(.path))]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is another user's, who could have put anything there.
    #[error("the folder {} belongs to another user (uid {owner}), so its code is not trusted", escape::path(.path))]
    Owner {
        /// The folder.
        path: PathBuf,
        /// The user's number.
        owner: u32,
    },
    /// Others than its owner can put files there.
    #[error("others can write to the folder {} (mode {mode:04o}), so its code is not trusted", escape::path(.path))]
    Writable {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// A folder with compiled code; a cheap handle.
#[derive(Clone, Debug)]
pub struct CodeCache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: Folder,
    size_bytes_max: u64,
    /// Tells the files apart that this process writes.
    written: AtomicU64,
}

impl CodeCache {
    /// Opens the folder at `path`, and makes it where it is missing. In it are kept at most `size_bytes_max` bytes, those
    /// that were used last.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, is a symlink, is another user's, or others can write to it.
    pub fn open(path: &Path, size_bytes_max: u64) -> Result<Self, CodeCacheError> {
        let failed = |source| CodeCacheError::Io { path: path.to_owned(), source };
        let folder = match Folder::open_real(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
                Folder::open_real(path).map_err(failed)?
            }
            folder => folder.map_err(failed)?,
        };
        let metadata = folder.metadata().map_err(failed)?;
        let mode = metadata.mode() & 0o7777;
        if metadata.uid() != this_user() {
            return Err(CodeCacheError::Owner { path: path.to_owned(), owner: metadata.uid() });
        }
        // Who could write could have put something there before; to take the right away now would not help.
        if mode & WRITABLE_BY_OTHERS != 0 {
            return Err(CodeCacheError::Writable { path: path.to_owned(), mode });
        }
        if mode != 0o700 {
            folder.make_private().map_err(failed)?;
        }
        Ok(Self(Arc::new(Inner { folder, size_bytes_max, written: AtomicU64::new(0) })))
    }

    /// The code that has this key; `None` if there is none that can be used.
    pub(super) fn find(&self, key: &Key) -> Option<NativeCode> {
        let name = name(key);
        let found = self.0.folder.file(&name).and_then(|file| {
            let metadata = file.metadata()?;
            if metadata.uid() != this_user() || metadata.mode() & WRITABLE_BY_OTHERS != 0 {
                return Err(io::Error::other("others may have written it"));
            }
            check(&file)?;
            note_use(&file, &metadata);
            Ok(NativeCode(file))
        });
        match found {
            Ok(code) => Some(code),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::debug!(file = name, %error, "compiled code is not used");
                None
            }
        }
    }

    /// A file for code that is to be kept.
    pub(super) fn create(&self) -> io::Result<NewCode> {
        loop {
            let number = self.0.written.fetch_add(1, Ordering::Relaxed);
            let name = format!("{NEW_PREFIX}{}-{number}", std::process::id());
            match self.0.folder.new_private_file(&name) {
                Ok(file) => return Ok(NewCode { file, name: Some((self.clone(), name)) }),
                // Left behind by a process that had the same number, or one in another container has it now.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes what was used longest ago, until the rest is as small as it must be.
    fn trim(&self) -> io::Result<()> {
        let mut files = Vec::new();
        let mut size = 0;
        let now = SystemTime::now();
        for name in self.0.folder.names()?.into_iter().filter_map(|name| name.into_string().ok()) {
            let Ok((_, stamp)) = self.0.folder.stamp(&name) else { continue };
            let used = SystemTime::UNIX_EPOCH + Duration::from_secs(stamp.mtime.0.try_into().unwrap_or(0));
            if name.starts_with(NEW_PREFIX) {
                if now.duration_since(used).is_ok_and(|age| age > NEW_AGE_MAX) {
                    self.0.folder.remove_file(&name)?;
                }
            } else if is_name(&name) {
                size += stamp.size_bytes;
                files.push((stamp.mtime, stamp.size_bytes, name));
            }
        }
        files.sort_unstable();
        for (_, size_bytes, name) in files {
            if size <= self.0.size_bytes_max {
                break;
            }
            self.0.folder.remove_file(&name)?;
            size -= size_bytes;
        }
        Ok(())
    }
}

/// A file that code is written to.
#[derive(Debug)]
pub(super) struct NewCode {
    file: File,
    /// Its name while it is being written, if it is in a cache.
    name: Option<(CodeCache, String)>,
}

impl NewCode {
    /// A file that is in no folder and is gone with its last use.
    pub(super) fn unnamed() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        let file = rustix::fs::memfd_create("ww-code", rustix::fs::MemfdFlags::CLOEXEC)?.into();
        #[cfg(not(target_os = "linux"))]
        let file = tempfile::tempfile()?;
        Ok(Self { file, name: None })
    }

    /// Whether it is to stay in a cache.
    pub(super) fn is_kept(&self) -> bool {
        self.name.is_some()
    }

    /// Another handle to the file, for whoever writes it.
    pub(super) fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Fills it with what another file holds, which has been checked.
    pub(super) fn copy_of(mut self, code: &NativeCode) -> io::Result<NativeCode> {
        let mut from = code.0.try_clone()?;
        from.rewind()?;
        io::copy(&mut from, &mut self.file)?;
        self.check()
    }

    /// Checks what has been written.
    ///
    /// # Errors
    ///
    /// It is not whole, or cannot be read.
    pub(super) fn check(&self) -> io::Result<NativeCode> {
        check(&self.file)?;
        Ok(NativeCode(self.file.try_clone()?))
    }

    /// Gives it the name under which it is found from now on, in place of what had that name.
    pub(super) fn keep(mut self, key: &Key) {
        let Some((cache, from)) = self.name.take() else { return };
        let kept = cache.0.folder.replace(&from, &cache.0.folder, &name(key));
        if kept.is_err() {
            self.name = Some((cache.clone(), from));
        }
        if let Err(error) = kept.and_then(|()| cache.trim()) {
            tracing::debug!(%error, "compiled code is not kept");
        }
    }
}

impl Drop for NewCode {
    fn drop(&mut self) {
        if let Some((cache, name)) = &self.name {
            // What stays is removed when it is old.
            let _ = cache.0.folder.remove_file(name);
        }
    }
}

/// Writes code with its trailer.
pub(super) fn write(mut to: impl Write, code: &[u8]) -> io::Result<()> {
    to.write_all(code)?;
    to.write_all(&trailer(code.len() as u64, Checksum::of(code)))?;
    to.flush()
}

fn trailer(length: u64, checksum: u64) -> [u8; TRAILER_BYTES] {
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..8].copy_from_slice(&TRAILER_MAGIC);
    trailer[8..16].copy_from_slice(&length.to_le_bytes());
    trailer[16..].copy_from_slice(&checksum.to_le_bytes());
    trailer
}

/// Reads a file from beginning to end, wherever its handle stands, and holds its trailer against what comes before it.
fn check(file: &File) -> io::Result<()> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
    let length = file.metadata()?.len().checked_sub(TRAILER_BYTES as u64).ok_or_else(damaged)?;
    let mut found = [0; TRAILER_BYTES];
    file.read_exact_at(&mut found, length)?;
    // Before all of it is read for nothing.
    if found[..16] != trailer(length, 0)[..16] {
        return Err(damaged());
    }
    let mut checksum = Checksum::new();
    let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(length).unwrap_or(BUFFER_BYTES))];
    let mut place = 0;
    while place < length {
        let count = buffer.len().min(usize::try_from(length - place).unwrap_or(BUFFER_BYTES));
        file.read_exact_at(&mut buffer[..count], place)?;
        checksum.update(&buffer[..count]);
        place += count as u64;
    }
    if found == trailer(length, checksum.finish()) { Ok(()) } else { Err(damaged()) }
}

/// Has the file count as used now.
fn note_use(file: &File, metadata: &Metadata) {
    let now = SystemTime::now();
    let is_recent = |used: SystemTime| now.duration_since(used).is_ok_and(|age| age < USE_GRANULARITY);
    if !metadata.modified().is_ok_and(is_recent) {
        // Where it cannot be said, it goes earlier.
        let _ = file.set_times(FileTimes::new().set_modified(now));
    }
}

fn name(key: &Key) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_name(name: &str) -> bool {
    name.len() == 2 * size_of::<Key>() && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn this_user() -> u32 {
    rustix::process::geteuid().as_raw()
}
