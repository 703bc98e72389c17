//! Leases: roots that somebody reads while no pin holds them.
//!
//! Each is a file in `leases/` with a CID in it, which its process keeps locked (`flock`), so that it ends with the process,
//! however that ends. A file that nobody has locked is of a process that is gone, or free for the next lease. Files are made,
//! and written, by those who hold the shared lock, and removed by those who have it alone or are done, so a collection sees
//! each one whole and locked, or not at all.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::sync::Arc;

use super::super::StoreError;
use super::layout::Layout;
use super::lock::Lock;
use super::{Inner, pack};
use crate::dag::Cid;

/// How the files' names end.
const EXTENSION: &str = ".lease";

/// How many files stay for the next leases. A process that begins soon after another is not to make a file again: ext4 passes
/// over the inodes of files that were removed in the last seconds, one after the other, which took a millisecond after some
/// hundred runs.
const KEPT_FILES: usize = 4;

/// The longest file that is read, in bytes: far more than any CID takes.
const FILE_BYTES_MAX: u64 = 1024;

/// A lease that ends when it is dropped.
pub(super) struct Lease {
    /// The file, unless it stays.
    own: Option<(Arc<Layout>, String)>,
    _lock: Lock,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // What stays is not locked any more, and is removed by the next collection.
        if let Some((layout, name)) = &self.own
            && let Ok(leases) = layout.leases()
        {
            let _ = leases.remove_file(name);
        }
    }
}

/// Makes a text the content of a file, unless it is.
fn replace(file: &mut File, text: &str) -> io::Result<()> {
    let mut before = Vec::new();
    Read::by_ref(file).take(FILE_BYTES_MAX).read_to_end(&mut before)?;
    if before != text.as_bytes() {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}

impl Inner {
    /// Makes a lease. The caller holds the shared lock.
    pub(super) fn lease(&self, root: &Cid) -> Result<Lease, StoreError> {
        let path = self.layout.path("leases");
        let failed = |action| StoreError::io(action, path.clone());
        let leases = self.layout.leases().map_err(failed("open"))?;
        let text = root.to_string();
        for number in 0..KEPT_FILES {
            let mut file = leases.private_file_or_new(&format!("{number}{EXTENSION}")).map_err(failed("write"))?;
            match file.try_lock() {
                Ok(()) => {
                    replace(&mut file, &text).map_err(failed("write"))?;
                    return Ok(Lease { own: None, _lock: Lock::of(file) });
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed("lock")(error)),
            }
        }
        let name = format!("{:016x}{EXTENSION}", pack::random()?);
        let mut file = leases.new_private_file(&name).map_err(failed("write"))?;
        file.write_all(text.as_bytes()).map_err(failed("write"))?;
        // Who looks whether it is alive has it for a moment.
        file.lock().map_err(failed("lock"))?;
        Ok(Lease { own: Some((self.layout.clone(), name)), _lock: Lock::of(file) })
    }

    /// The roots of all leases that are alive. Others are removed, if the caller has the lock alone.
    pub(super) fn leased(&self, is_alone: bool) -> Result<Vec<Cid>, StoreError> {
        let path = self.layout.path("leases");
        let failed = |action| StoreError::io(action, path.clone());
        let Some(leases) = self.layout.leases_if_any().map_err(failed("open"))? else { return Ok(Vec::new()) };
        let mut roots = Vec::new();
        for name in leases.names().map_err(failed("list"))? {
            let Some(name) = name.to_str().filter(|name| name.ends_with(EXTENSION)) else { continue };
            // One that ends at this moment is gone.
            let Ok(file) = leases.file(name) else { continue };
            match file.try_lock_shared() {
                Ok(()) if is_alone => leases.remove_file(name).map_err(failed("clear"))?,
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed("read"))?;
                    // A file that is written at this moment is that of somebody who has not begun to read.
                    roots.extend(text.parse::<Cid>().ok());
                }
                Err(TryLockError::Error(error)) => return Err(failed("lock")(error)),
            }
        }
        Ok(roots)
    }
}
