//! Packs: files of blocks, one for each commit. A pack is a CARv1 without roots, so that any tool can read it.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::{AT_ONCE_BYTES_MAX, DamageError, StoreError};
use super::layout::{Layout, PackId};
use crate::dag::block::{BLOCK_BYTES_MAX, Block, BlockError, Cid};
use crate::dag::car::{Decoder, Item, Section, encode_header, encode_section_head};
use crate::folder::begin_writing_back;

/// Bytes that are gathered before they are written; longer blocks are written by themselves.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// After so many bytes the system is told to begin to write them to disk: so the disk works while more is read and hashed, and
/// the fsync at the end, which would else do all of it, has little left to do (10 MiB: 0.7 ms in place of 6).
const WRITE_BACK_BYTES: u64 = 1 << 20;

/// Bytes that are read at a time where a whole pack is read.
const READ_BUFFER_BYTES: usize = 1 << 20;

/// Packs that are kept open for reading. A tree is mostly in one; a process has some 1,000 handles.
const OPEN_PACKS_MAX: usize = 32;

/// Where in a pack the data of a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) at: u64,
    pub(super) size: u32,
}

/// A pack that is being written. It is locked while this lives, and removed if it is dropped unfinished.
#[derive(Debug)]
pub(super) struct PackWriter {
    layout: Arc<Layout>,
    pub(super) id: PackId,
    file: File,
    buffer: Vec<u8>,
    /// Bytes in the file, without those in the buffer.
    written: u64,
    /// How many of them the system was told to write to disk.
    written_back: u64,
    /// The name under which the file is to be removed when this is dropped.
    unfinished: Option<String>,
}

impl PackWriter {
    /// A new pack.
    pub(super) fn create(layout: &Arc<Layout>) -> Result<Self, StoreError> {
        let id = PackId(random()? & i64::MAX);
        let name = id.part_name();
        let error = |action| StoreError::io(action, layout.packs_path(&name));
        let file = layout.packs.new_private_file(&name).map_err(error("create"))?;
        let buffer = Vec::with_capacity(WRITE_BUFFER_BYTES);
        let mut writer = Self {
            layout: layout.clone(),
            id,
            file,
            buffer,
            written: 0,
            written_back: 0,
            unfinished: Some(name.clone()),
        };
        writer.file.lock().map_err(error("lock"))?;
        writer.buffer.extend(encode_header(&[]));
        Ok(writer)
    }

    /// Adds a block.
    pub(super) fn append(&mut self, cid: &Cid, data: &[u8]) -> Result<Extent, StoreError> {
        let head = encode_section_head(cid, data.len());
        if self.buffer.len() + head.len() + data.len() > WRITE_BUFFER_BYTES {
            self.flush()?;
        }
        self.buffer.extend_from_slice(&head);
        let at = self.len();
        if self.buffer.len() + data.len() > WRITE_BUFFER_BYTES {
            self.flush()?;
            self.write(data)?;
        } else {
            self.buffer.extend_from_slice(data);
        }
        Ok(Extent { at, size: u32::try_from(data.len()).expect("a block is shorter than 4 GiB") })
    }

    /// Its length, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// The data of a block that was added.
    pub(super) fn read(&mut self, extent: Extent) -> Result<Vec<u8>, StoreError> {
        self.flush()?;
        let mut data = vec![0; extent.size as usize];
        self.file.read_exact_at(&mut data, extent.at).map_err(self.error("read"))?;
        Ok(data)
    }

    /// Brings the pack to disk.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        self.flush()?;
        self.file.sync_data().map_err(self.error("write"))
    }

    /// Gives the pack the name of a finished one. It is still removed when this is dropped, unless it is kept.
    pub(super) fn rename(&mut self) -> Result<(), StoreError> {
        let (from, to) = (self.id.part_name(), self.id.file_name());
        self.layout.packs.replace(&from, &self.layout.packs, &to).map_err(self.error("rename"))?;
        self.unfinished = Some(to);
        Ok(())
    }

    /// Leaves the pack where it is.
    pub(super) fn keep(mut self) {
        self.unfinished = None;
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.write(&buffer);
        buffer.clear();
        self.buffer = buffer;
        result
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(self.error("write"))?;
        self.written += bytes.len() as u64;
        let length = self.written - self.written_back;
        if length >= WRITE_BACK_BYTES {
            begin_writing_back(&self.file, self.written_back, length);
            self.written_back = self.written;
        }
        Ok(())
    }

    fn error(&self, action: &'static str) -> impl FnOnce(io::Error) -> StoreError + use<> {
        StoreError::io(action, self.layout.packs_path(&self.id.part_name()))
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        if let Some(name) = &self.unfinished {
            // What cannot be removed is a leftover, as after a crash.
            let _ = self.layout.packs.remove_file(name);
        }
        // A child process that has just been forked still has the file open.
        let _ = self.file.unlock();
    }
}

/// 64 random bits, of the system.
pub(super) fn random() -> Result<i64, StoreError> {
    let mut bytes = [0; 8];
    let path = "/dev/urandom";
    File::open(path).and_then(|mut file| file.read_exact(&mut bytes)).map_err(StoreError::io("read", path))?;
    Ok(i64::from_ne_bytes(bytes))
}

/// What is in a pack, from its start on.
pub(super) struct PackReader {
    file: File,
    decoder: Decoder,
    buffer: Vec<u8>,
    /// Bytes read so far.
    pub(super) read_bytes: u64,
}

/// Why a pack cannot be read further.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    Car(#[from] crate::dag::car::CarError),
}

impl PackReader {
    /// Opens a finished pack.
    pub(super) fn open(layout: &Layout, pack: PackId) -> Result<Self, PackError> {
        Ok(Self::of_file(layout.packs.file(&pack.file_name())?))
    }

    /// Opens a pack for which no writer lives any more; `None` if one does. None begins while this lives.
    pub(super) fn open_abandoned(layout: &Layout, pack: PackId) -> Result<Option<Self>, PackError> {
        let file = layout.packs.file(&pack.file_name())?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self::of_file(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    fn of_file(file: File) -> Self {
        Self { file, decoder: Decoder::new(), buffer: vec![0; READ_BUFFER_BYTES], read_bytes: 0 }
    }

    /// The next block, as it is there; `None` at the end.
    pub(super) fn next_section(&mut self) -> Result<Option<Section>, PackError> {
        loop {
            match self.decoder.next_item()? {
                Some(Item::Section(section)) => return Ok(Some(section)),
                Some(Item::Header(_)) => continue,
                None => {}
            }
            let length = self.file.read(&mut self.buffer)?;
            if length == 0 {
                std::mem::take(&mut self.decoder).finish()?;
                return Ok(None);
            }
            self.read_bytes += length as u64;
            self.decoder.push(&self.buffer[..length]);
        }
    }
}

/// Finished packs that are open for reading.
#[derive(Debug, Default)]
pub(super) struct OpenPacks(Mutex<Vec<(PackId, Arc<File>)>>);

impl OpenPacks {
    /// The block of a CID, which the index has at this place. An error that says `NotFound` may mean that it was moved.
    pub(super) fn read(&self, layout: &Layout, pack: PackId, extent: Extent, cid: &Cid) -> Result<Block, DamageError> {
        let unreadable = |source| DamageError::Pack { pack: layout.pack_path(pack), source };
        let size = extent.size as usize;
        if size > BLOCK_BYTES_MAX {
            return Err(BlockError::TooLong { size_bytes: size }.into());
        }
        let file = self.file(layout, pack).map_err(unreadable)?;
        let mut data = vec![0; size];
        file.read_exact_at(&mut data, extent.at).map_err(unreadable)?;
        Ok(Block::new(*cid, data.into())?)
    }

    /// As [`OpenPacks::read`], if that needs no waiting. `None` where it does, and where anything is not as it should be:
    /// [`OpenPacks::read`] tells what.
    pub(super) fn read_at_once(&self, pack: PackId, extent: Extent, cid: &Cid) -> Option<Block> {
        let size = extent.size as usize;
        if size > AT_ONCE_BYTES_MAX {
            return None;
        }
        // Who has it may be opening a file.
        let open = self.0.try_lock().ok()?;
        let file = open.iter().find(|(id, _)| *id == pack)?.1.clone();
        drop(open);
        // One that has no name any more is to be closed.
        if is_removed(&file) {
            return None;
        }
        let mut data = vec![0; size];
        let is_read = size == 0 || read_cached(&file, &mut data, extent.at)? == size;
        is_read.then(|| Block::new(*cid, data.into()).ok())?
    }

    /// Forgets all: after packs were removed, their bytes stay on disk while they are open.
    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn file(&self, layout: &Layout, pack: PackId) -> io::Result<Arc<File>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = open.iter().position(|(id, _)| *id == pack);
        let found = match place {
            Some(place) if !is_removed(&open[place].1) => {
                if place == 0 {
                    return Ok(open[0].1.clone());
                }
                open.remove(place)
            }
            _ => {
                // Others have collected, perhaps: a good time to give up what they removed.
                open.retain(|(_, file)| !is_removed(file));
                (pack, Arc::new(layout.packs.file(&pack.file_name())?))
            }
        };
        let file = found.1.clone();
        open.insert(0, found);
        open.truncate(OPEN_PACKS_MAX);
        Ok(file)
    }
}

/// Reads if the system has the bytes in memory; gives how many they were.
#[cfg(target_os = "linux")]
fn read_cached(file: &File, bytes: &mut [u8], offset: u64) -> Option<usize> {
    use rustix::io::{ReadWriteFlags, preadv2};
    preadv2(file, &mut [io::IoSliceMut::new(bytes)], offset, ReadWriteFlags::NOWAIT).ok()
}

#[cfg(not(target_os = "linux"))]
fn read_cached(_: &File, _: &mut [u8], _: u64) -> Option<usize> {
    None
}

/// Whether the file has no name any more, so that only those who have it open keep its bytes on disk.
fn is_removed(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
}
