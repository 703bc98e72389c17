//! Finding everything that can be reached from a root.
//!
//! Blocks are numbered by who keeps them, so that what was seen takes two bits each. What waits to be followed takes 40
//! bytes a block, and no block waits twice; a raw block never waits.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::StoreError;
use super::key::Key;
use crate::dag::block::{CODEC_DAG_PB, CODEC_RAW};
use crate::dag::pb::{self, PbError};
use crate::dag::{Block, Cid};

/// The most missing blocks that are named: a handful tells a person what kind of thing is missing.
pub const MISSING_MAX: usize = 8;

/// Where blocks are looked for.
pub(super) trait Graph {
    /// The number of a block; `None` if it is not here. Never asked for an identity CID.
    fn number(&mut self, cid: &Cid) -> Result<Option<u64>, StoreError>;

    /// A block that was said to be here.
    fn block(&mut self, cid: &Cid) -> Result<Option<Block>, StoreError>;
}

/// A set of numbers, which are mostly close to each other.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Bits by the number without its last twelve bits.
    pages: HashMap<u64, Box<[u64; 64]>>,
}

impl Numbers {
    /// Adds a number; `false` if it was in already.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let page = self.pages.entry(number >> 12).or_insert_with(|| Box::new([0; 64]));
        let word = &mut page[(number >> 6) as usize & 63];
        let bit = 1 << (number & 63);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Adds all numbers of another set.
    fn extend(&mut self, other: Self) {
        for (page, words) in other.pages {
            match self.pages.entry(page) {
                Entry::Vacant(vacant) => drop(vacant.insert(words)),
                Entry::Occupied(mut own) => {
                    own.get_mut().iter_mut().zip(*words).for_each(|(own, other)| *own |= other);
                }
            }
        }
    }

    /// Whether a number is in.
    pub(super) fn contains(&self, number: u64) -> bool {
        let page = self.pages.get(&(number >> 12));
        page.is_some_and(|page| page[(number >> 6) as usize & 63] & (1 << (number & 63)) != 0)
    }
}

/// What has been reached so far.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// Blocks that were seen.
    pub(super) seen: Numbers,
    /// Those of them whose links were followed: not the same, as a block may be linked to as raw and as dag-pb.
    followed: Numbers,
    /// Blocks whose links need not be followed.
    known: Numbers,
    pending: Vec<Key>,
}

/// What can be reached from roots that are whole.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// Blocks whose links were followed.
    followed: Numbers,
}

impl Whole {
    /// Adds all that can be reached from a root, if that is whole.
    ///
    /// # Errors
    /// As [`Reached::add`]; nothing is added then.
    pub(super) fn add(&mut self, graph: &mut dyn Graph, root: &Cid) -> Result<(), StoreError> {
        let mut reached = Reached { known: std::mem::take(&mut self.followed), ..Reached::default() };
        let result = reached.add(graph, root);
        self.followed = reached.known;
        if result.is_ok() {
            self.followed.extend(reached.followed);
        }
        result
    }
}

/// The roots without those that came before.
pub(super) fn once_each(roots: &[Cid]) -> impl Iterator<Item = Cid> {
    let mut seen = HashSet::new();
    roots.iter().copied().filter(move |root| seen.insert(*root))
}

impl Reached {
    /// Adds all that can be reached from a root.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] if some of it is missing, and all reasons for which a block's links cannot be read.
    pub(super) fn add(&mut self, graph: &mut dyn Graph, root: &Cid) -> Result<(), StoreError> {
        self.pending.clear();
        let mut missing = Vec::new();
        self.meet(graph, root, &mut missing)?;
        while let Some(key) = self.pending.pop() {
            let cid = key.to_node_cid();
            match graph.block(&cid)? {
                Some(block) => self.follow(graph, &block, &mut missing)?,
                None => missing.push(cid),
            }
            if missing.len() > MISSING_MAX {
                break;
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let more = missing.len() > MISSING_MAX;
        missing.truncate(MISSING_MAX);
        Err(StoreError::Incomplete { root: Box::new(*root), missing, more })
    }

    /// Adds all that is here of what can be reached from a root, over blocks that are here.
    ///
    /// # Errors
    /// If blocks cannot be read.
    pub(super) fn add_present(&mut self, graph: &mut dyn Graph, root: &Cid) -> Result<(), StoreError> {
        let mut links = vec![*root];
        self.pending.clear();
        loop {
            for link in links {
                // Missing ones are forgotten one by one, so they are never too many; what cannot be followed is left out.
                match self.meet(graph, &link, &mut Vec::new()) {
                    Ok(()) | Err(StoreError::UnknownCodec { .. } | StoreError::MalformedNode { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let Some(key) = self.pending.pop() else { return Ok(()) };
            let block = graph.block(&key.to_node_cid())?;
            links = block.and_then(|block| pb::links(&block).ok()).unwrap_or_default();
        }
    }

    fn follow(&mut self, graph: &mut dyn Graph, block: &Block, missing: &mut Vec<Cid>) -> Result<(), StoreError> {
        for link in links(block)? {
            if missing.len() > MISSING_MAX {
                break;
            }
            self.meet(graph, &link, missing)?;
        }
        Ok(())
    }

    fn meet(&mut self, graph: &mut dyn Graph, cid: &Cid, missing: &mut Vec<Cid>) -> Result<(), StoreError> {
        if let Some(block) = Block::from_identity(cid) {
            // What is in an identity CID is shorter than the CID, so this ends.
            return self.follow(graph, &block, missing);
        }
        let is_node = match cid.codec() {
            CODEC_RAW => false,
            CODEC_DAG_PB => true,
            codec => return Err(StoreError::UnknownCodec { cid: Box::new(*cid), codec }),
        };
        let Some(number) = graph.number(cid)? else {
            // A missing block is named once, however often it is linked to.
            if !missing.contains(cid) {
                missing.push(*cid);
            }
            return Ok(());
        };
        self.seen.insert(number);
        if is_node && !self.known.contains(number) && self.followed.insert(number) {
            self.pending.extend(Key::new(cid));
        }
        Ok(())
    }
}

fn links(block: &Block) -> Result<Vec<Cid>, StoreError> {
    let cid = || Box::new(*block.cid());
    pb::links(block).map_err(|error| match error {
        PbError::Codec(codec) => StoreError::UnknownCodec { cid: cid(), codec },
        source => StoreError::MalformedNode { cid: cid(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::node;
    use super::*;

    /// A chain of nodes, the number of each being its place.
    struct Chain {
        blocks: Vec<Block>,
        reads: usize,
    }

    impl Graph for Chain {
        fn number(&mut self, cid: &Cid) -> Result<Option<u64>, StoreError> {
            Ok(self.blocks.iter().position(|block| block.cid() == cid).map(|place| place as u64))
        }

        fn block(&mut self, cid: &Cid) -> Result<Option<Block>, StoreError> {
            self.reads += 1;
            Ok(self.blocks.iter().find(|block| block.cid() == cid).cloned())
        }
    }

    #[test]
    fn what_roots_have_in_common_is_read_once() {
        const ROOTS: usize = 50;
        let mut chain = Chain { blocks: vec![node(&[])], reads: 0 };
        for _ in 1..ROOTS {
            let below = *chain.blocks.last().unwrap().cid();
            chain.blocks.push(node(&[below]));
        }
        let roots: Vec<_> = chain.blocks.iter().map(|block| *block.cid()).collect();
        for roots in [roots.clone(), roots.into_iter().rev().collect()] {
            let mut whole = Whole::default();
            chain.reads = 0;
            once_each(&[&roots[..], &roots].concat()).for_each(|root| whole.add(&mut chain, &root).unwrap());
            assert_eq!(chain.reads, ROOTS);
        }
    }

    #[test]
    fn numbers_are_a_set() {
        let mut numbers = Numbers::default();
        for number in [0, 1, 63, 64, 4095, 4096, u64::MAX] {
            assert!(!numbers.contains(number));
            assert!(numbers.insert(number) && !numbers.insert(number) && numbers.contains(number));
        }
        assert!(!numbers.contains(2) && !numbers.contains(u64::MAX - 1));
    }
}
