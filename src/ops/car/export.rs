//! Writing a DAG as an archive.

use std::collections::HashMap;
use std::io::{self, Write};
use std::rc::Rc;

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
/// [`StoreError::Incomplete`] if something is missing; or if the store or the archive fails on the way; or
/// [`StoreError::Cancelled`] when `cancel` says so.
pub fn export_car(
    store: &dyn Blockstore,
    root: &Cid,
    archive: &mut dyn Write,
    cancel: &dyn Fn() -> bool,
) -> Result<CarExported, ExportCarError> {
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
        if cancel() {
            return Err(StoreError::Cancelled.into());
        }
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
/// What is to come is a stack. A CID that a block links to and that is in the stack already comes to its top, as it is
/// reached from there first; the place where it was is void. So there are no more places in use than CIDs, some 150 bytes
/// each, whatever the blocks link to and however deep they are.
struct DepthFirst {
    /// CIDs as bytes, the next one last, each with the number of its place.
    stack: Vec<(Rc<[u8]>, u64)>,
    /// All CIDs that were met, with the number of the place that is in use, or `None` where the walk has come to it.
    met: HashMap<Rc<[u8]>, Option<u64>>,
    next_number: u64,
    /// How many places are in use.
    pending: usize,
}

/// How many void places are not worth the work of removing them.
const VOID_PLACES: usize = 4096;

impl DepthFirst {
    fn new(root: &Cid) -> Self {
        let mut walk = Self { stack: Vec::new(), met: HashMap::new(), next_number: 0, pending: 0 };
        walk.push(root);
        walk
    }

    fn push(&mut self, cid: &Cid) {
        let bytes: Rc<[u8]> = match self.met.get_key_value(&*cid.to_bytes()) {
            Some((_, None)) => return,
            Some((bytes, Some(_))) => bytes.clone(),
            None => {
                self.pending += 1;
                cid.to_bytes().into()
            }
        };
        self.next_number += 1;
        self.met.insert(bytes.clone(), Some(self.next_number));
        self.stack.push((bytes, self.next_number));
    }

    fn next(&mut self) -> Option<Cid> {
        while let Some((bytes, number)) = self.stack.pop() {
            if let Some(place) = self.met.get_mut(&bytes)
                && *place == Some(number)
            {
                *place = None;
                self.pending -= 1;
                return split_cid(&bytes).ok().map(|(cid, _)| cid);
            }
        }
        None
    }

    fn enter(&mut self, block: &Block) -> Result<(), StoreError> {
        let links = pb::links(block).map_err(|source| match source {
            PbError::Codec(codec) => StoreError::UnknownCodec { cid: Box::new(*block.cid()), codec },
            source => StoreError::MalformedNode { cid: Box::new(*block.cid()), source },
        })?;
        links.iter().rev().for_each(|link| self.push(link));
        if self.stack.len() > 2 * self.pending + VOID_PLACES {
            let met = &self.met;
            self.stack.retain(|(bytes, number)| met.get(bytes) == Some(&Some(*number)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::Version;
    use crate::dag::block::CODEC_RAW;
    use crate::dag::unixfs::{self, Entry, EntryName, Profile, Subtree};

    fn leaf(number: u32) -> Subtree {
        let block = Block::seal(Version::V1, CODEC_RAW, number.to_le_bytes().to_vec().into()).unwrap();
        Subtree { cid: *block.cid(), dag_size: 4 }
    }

    fn node(targets: impl Iterator<Item = Subtree>) -> (Block, Subtree) {
        let entry = |(index, target)| Entry { name: EntryName::new(format!("{index:08}")).unwrap(), target };
        let profile = Profile { directory_size_max: usize::MAX, ..Profile::default() };
        let mut made = None;
        let mut keep = |block| {
            made = Some(block);
            Ok::<_, unixfs::BuildError>(())
        };
        let subtree = unixfs::directory(&profile, targets.enumerate().map(entry).collect(), &mut keep).unwrap();
        (made.unwrap(), subtree)
    }

    /// A chain of nodes, each of which links to the next one and then to the same leaves.
    #[test]
    fn places_are_no_more_than_cids() {
        const LEAVES: u32 = 1000;
        let mut chain = vec![node((0..LEAVES).map(leaf))];
        for _ in 0..200 {
            let next = chain.last().unwrap().1;
            chain.push(node(std::iter::once(next).chain((0..LEAVES).map(leaf))));
        }
        let mut walk = DepthFirst::new(&chain.last().unwrap().1.cid);
        for (block, subtree) in chain.iter().rev() {
            assert_eq!(walk.next(), Some(subtree.cid));
            walk.enter(block).unwrap();
            assert!(walk.stack.len() <= 2 * (LEAVES as usize + 1) + VOID_PLACES, "{}", walk.stack.len());
        }
        for number in 0..LEAVES {
            assert_eq!(walk.next(), Some(leaf(number).cid));
        }
        assert_eq!((walk.next(), walk.pending), (None, 0));
    }

    #[test]
    fn a_cid_that_is_linked_to_twice_comes_where_it_is_met_first() {
        let inner = node([leaf(2), leaf(1), leaf(2)].into_iter());
        let outer = node([leaf(3), inner.1, leaf(1), leaf(4), leaf(3)].into_iter());
        let mut walk = DepthFirst::new(&outer.1.cid);
        let mut order = Vec::new();
        while let Some(cid) = walk.next() {
            order.push(cid);
            [&inner, &outer]
                .iter()
                .filter(|(_, subtree)| subtree.cid == cid)
                .for_each(|(block, _)| walk.enter(block).unwrap());
        }
        assert_eq!(order, [outer.1, leaf(3), inner.1, leaf(2), leaf(1), leaf(4)].map(|subtree| subtree.cid));
    }
}
