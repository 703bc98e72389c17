//! Images that are run from the blockstore: written as files for as long as they are needed.
//!
//! Each has a folder of its own, `run-XXXXXXXXXXXX`, which its process keeps locked (`flock`). A folder that nobody has
//! locked was left by a process that was killed, and is removed by whoever comes next.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use tempfile::TempDir;

use super::content::Local;
use crate::blockstore::Blockstore;
use crate::dag::Cid;
use crate::escape;
use crate::tree::{self, ExportError, ExportOptions};

/// How the folders begin.
const PREFIX: &str = "run-";

/// How often a folder is made anew when somebody takes it for left behind before it is locked.
const ATTEMPTS: usize = 8;

/// A tree of files that goes when the value is dropped.
#[derive(Debug)]
pub struct Checkout {
    /// Removed when dropped, and so before the lock is.
    dir: TempDir,
    _lock: File,
}

/// Why there is no checkout.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// The folder for it cannot be made.
    #[error("cannot make a folder in {}", escape::path(parent))]
    Folder {
        /// Where.
        parent: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The tree cannot be written.
    #[error("cannot write it as files")]
    Export(#[from] ExportError),
}

/// Writes the tree that `root` names, all of whose blocks are in `store`, to a folder of its own in `parent`, which is
/// made where it is missing. Only this user can look into it.
///
/// # Errors
/// If the folder cannot be made, or the tree cannot be written.
pub fn checkout(
    store: &dyn Blockstore,
    root: Cid,
    parent: &Path,
    options: &ExportOptions<'_>,
) -> Result<Checkout, CheckoutError> {
    let failed = |source| CheckoutError::Folder { parent: parent.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    remove_leftovers(parent);
    let (dir, lock) = locked_folder(parent).map_err(failed)?;
    let checkout = Checkout { dir, _lock: lock };
    tree::export(&Local(store), root, &checkout.image(), options)?;
    Ok(checkout)
}

impl Checkout {
    /// The root of the tree.
    pub fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }
}

fn locked_folder(parent: &Path) -> io::Result<(TempDir, File)> {
    for _ in 0..ATTEMPTS {
        let mut folder = tempfile::Builder::new();
        folder.prefix(PREFIX).rand_bytes(12).permissions(Permissions::from_mode(0o700));
        let dir = folder.tempdir_in(parent)?;
        let Some(lock) = lock(dir.path())? else { continue };
        let is_same = |there: fs::Metadata| Ok::<_, io::Error>(there.ino() == lock.metadata()?.ino());
        // Somebody may have removed it between its making and the lock.
        if dir.path().symlink_metadata().and_then(is_same).unwrap_or(false) {
            return Ok((dir, lock));
        }
    }
    Err(io::Error::other("others remove it again and again"))
}

/// Locks a folder; `None` if somebody else has, or it is gone.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(dir, flags, rustix::fs::Mode::empty()).map(File::from);
    let file = match opened.map_err(io::Error::from) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
        Ok(()) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes what killed processes left. What cannot be removed is left for the next time.
fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_ours = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
        if is_ours
            && let Ok(Some(_lock)) = lock(&path)
            && let Err(error) = fs::remove_dir_all(&path)
        {
            tracing::warn!("cannot remove {}: {error}", escape::path(&path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blockstore::MemoryBlockstore;
    use crate::dag::Block;
    use crate::dag::unixfs::{self, BuildError, Entry, EntryName, Profile};

    fn store_with_image() -> (MemoryBlockstore, Cid) {
        let store = MemoryBlockstore::default();
        let mut writer = store.writer().unwrap();
        let (file, part) = unixfs::leaf(&Profile::UNIXFS_V1_2025, (&b"content"[..]).into()).unwrap();
        writer.put(&file).unwrap();
        let entry = Entry { name: EntryName::new("file").unwrap(), target: part.subtree() };
        let mut sink = |block: Block| {
            writer.put(&block).unwrap();
            Ok::<_, BuildError>(())
        };
        let root = unixfs::directory(&Profile::UNIXFS_V1_2025, vec![entry], &mut sink).unwrap();
        writer.commit(&[]).unwrap();
        (store, root.cid)
    }

    #[test]
    fn the_tree_is_there_as_long_as_the_value() {
        let (store, root) = store_with_image();
        let parent = tempfile::tempdir().unwrap();
        let parent = parent.path().join("a/checkouts");
        let checkout = checkout(&store, root, &parent, &ExportOptions::default()).unwrap();
        let image = checkout.image();
        assert_eq!(fs::read(image.join("file")).unwrap(), b"content");
        assert_eq!(image.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(checkout);
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 0);
    }

    #[test]
    fn leftovers_go_and_live_ones_stay() {
        let (store, root) = store_with_image();
        let parent = tempfile::tempdir().unwrap();
        let options = ExportOptions::default();
        let live = checkout(&store, root, parent.path(), &options).unwrap();
        let left = parent.path().join("run-left");
        fs::create_dir_all(left.join("image/sub")).unwrap();
        fs::create_dir(parent.path().join("other")).unwrap();
        fs::write(parent.path().join("run-file"), "").unwrap();
        let second = checkout(&store, root, parent.path(), &options).unwrap();
        assert!(!left.exists() && live.image().join("file").exists() && second.image().join("file").exists());
        assert!(parent.path().join("other").exists() && parent.path().join("run-file").exists());
    }

    #[test]
    fn nothing_stays_of_what_cannot_be_written() {
        let (store, _) = store_with_image();
        let parent = tempfile::tempdir().unwrap();
        let absent = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354".parse().unwrap();
        let error = checkout(&store, absent, parent.path(), &ExportOptions::default()).unwrap_err();
        assert!(matches!(error, CheckoutError::Export(ExportError::Missing { .. })), "{error:?}");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn many_at_once_do_not_remove_each_other() {
        let (store, root) = store_with_image();
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let checkout = checkout(&store, root, parent.path(), &ExportOptions::default()).unwrap();
                        assert!(checkout.image().join("file").exists());
                    }
                });
            }
        });
    }
}
