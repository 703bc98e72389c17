//! Writing a DAG as an archive.

use std::collections::HashSet;
use std::io::{self, Write};

use crate::blockstore::{Blockstore, StoreError};
use crate::dag::block::split_cid;
use crate::dag::car::{encode_header, encode_section_head};
use crate::dag::pb::{self, PbError};
use crate::dag::{Block, Cid};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarExported {
    /// The blocks in the archive.
    pub blocks: u64,
    /// The length of the archive, in bytes.
    pub bytes: u64,
}

/// Why an archive was not written, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportCarError {
    /// The store does not have it all, or cannot be read.
    #[error("cannot read the DAG from the blockstore")]
    Store(#[from] StoreError),
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

/// Writes all that can be reached from a root as a CARv1, in the order of `ipfs dag export`: depth first, each block once.
/// Blocks of identity CIDs are left out, as they are in the links to them. Nothing is written unless everything is there.
///
/// # Errors
/// [`StoreError::Incomplete`] if something is missing; or if the store or the archive fails on the way.
pub fn export_car(store: &dyn Blockstore, root: &Cid, archive: &mut dyn Write) -> Result<CarExported, ExportCarError> {
    let _hold = store.hold()?;
    store.check_complete(root)?;
    let mut exported = CarExported { blocks: 0, bytes: 0 };
    let mut write = |bytes: &[u8]| {
        exported.bytes += bytes.len() as u64;
        archive.write_all(bytes).map_err(ExportCarError::Write)
    };
    write(&encode_header(&[*root]))?;
    let mut walk = DepthFirst::new(root);
    while let Some(cid) = walk.next() {
        let absent = || StoreError::Incomplete { root: Box::new(*root), missing: vec![cid], more: false };
        let block = store.get(&cid)?.ok_or_else(absent)?;
        if Block::from_identity(&cid).is_none() {
            write(&encode_section_head(&cid, block.data().len()))?;
            write(block.data())?;
            exported.blocks += 1;
        }
        walk.enter(&block)?;
    }
    archive.flush().map_err(ExportCarError::Write)?;
    Ok(exported)
}

/// A walk that comes to each CID once, to what a block links to before the block's next sibling.
///
/// It holds the links of the blocks on the way down, as bytes, and some 60 bytes for each CID that it has seen.
struct DepthFirst {
    /// The rest of the links of each block on the way down: CIDs one after the other.
    levels: Vec<Links>,
    seen: HashSet<Box<[u8]>>,
}

/// CIDs as bytes, of which some are taken already.
struct Links {
    bytes: Vec<u8>,
    taken: usize,
}

impl DepthFirst {
    fn new(root: &Cid) -> Self {
        Self { levels: vec![Links { bytes: root.to_bytes(), taken: 0 }], seen: HashSet::new() }
    }

    fn next(&mut self) -> Option<Cid> {
        loop {
            let links = self.levels.last_mut()?;
            let rest = &links.bytes[links.taken..];
            let Ok((cid, after)) = split_cid(rest) else {
                // There are none left.
                self.levels.pop();
                continue;
            };
            let cid_bytes = &rest[..rest.len() - after.len()];
            links.taken += cid_bytes.len();
            if !self.seen.contains(cid_bytes) {
                self.seen.insert(cid_bytes.into());
                return Some(cid);
            }
        }
    }

    fn enter(&mut self, block: &Block) -> Result<(), StoreError> {
        let links = pb::links(block).map_err(|source| match source {
            PbError::Codec(codec) => StoreError::UnknownCodec { cid: Box::new(*block.cid()), codec },
            source => StoreError::MalformedNode { cid: Box::new(*block.cid()), source },
        })?;
        let bytes = links.iter().flat_map(|link| link.to_bytes()).collect();
        self.levels.push(Links { bytes, taken: 0 });
        Ok(())
    }
}
