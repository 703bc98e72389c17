//! Reading trees out of blocks that can be had without waiting.

use std::io;

use bytes::Bytes;

use crate::dag::unixfs::{self, Blocks, BuildError, WalkError};
use crate::dag::{Block, Cid};
use crate::tree::BoxError;

/// Most bytes of files that are read from a DAG. Its parts may be shared, so a small one can stand for more than there is.
pub(super) const CONTENT_BYTES_MAX: u64 = 64 << 30;

/// Gives the block that a CID names, checked; `None` if it is not there.
pub type GetBlock<'a> = &'a dyn Fn(&Cid) -> Result<Option<Block>, BoxError>;

/// Why a DAG could not be read through.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A block of it is not there.
    #[error("block {cid} is missing")]
    Missing {
        /// The block.
        cid: Box<Cid>,
    },
    /// A block of it could not be had.
    #[error("cannot read a block")]
    Block(#[source] BoxError),
    /// It is not built as UnixFS is.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// It cannot be built again.
    #[error("it cannot be built again")]
    Build(#[from] BuildError),
    /// Its files are too large, all together.
    #[error("its files have more than {CONTENT_BYTES_MAX} bytes")]
    TooLarge,
    /// It was stopped from outside.
    #[error("stopped")]
    Stopped,
}

/// Blocks for the walks of [`unixfs`].
pub(super) struct Source<'a>(pub(super) GetBlock<'a>);

impl Blocks for Source<'_> {
    type Error = ReadError;

    fn block(&self, cid: &Cid) -> Result<Block, ReadError> {
        let found = (self.0)(cid).map_err(ReadError::Block)?;
        found.ok_or_else(|| ReadError::Missing { cid: Box::new(*cid) })
    }
}

/// Finds what a path below a root leads to.
///
/// # Errors
///
/// [`ReadError`].
pub fn resolve(block: GetBlock<'_>, root: Cid, path: &str) -> Result<Cid, ReadError> {
    unixfs::resolve(&Source(block), root, path)
}

/// Reads a file whole, if it has no more than so many bytes.
pub(super) fn read_file(block: GetBlock<'_>, cid: Cid, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = unixfs::read_file(&Source(block), cid, &mut |piece: Bytes| {
        if (bytes.len() + piece.len()) as u64 > bytes_max {
            return Err(ReadError::TooLarge);
        }
        bytes.extend_from_slice(&piece);
        Ok(())
    });
    read.map_err(io::Error::other)?;
    Ok(bytes)
}
