//! What belongs to a DAG, as far as its blocks are known.

use std::collections::{HashMap, HashSet};

use super::{DagRequest, FetchError, FetchLimits};
use crate::dag::block::{CODEC_DAG_PB, CODEC_RAW, HASH_IDENTITY, HASH_SHA2_256, HASH_SHA2_512};
use crate::dag::unixfs::{PathWalk, WalkError};
use crate::dag::{Block, Cid, Scope};

/// The way along a path, and then through everything below its end that belongs to the scope. It has no blocks: it says
/// which ones it needs, and is given them in any order.
pub(super) struct Walk {
    request: DagRequest,
    limits: FetchLimits,
    /// `None` once the end is reached.
    path: Option<PathWalk>,
    /// Whether the block that the path needs was said.
    is_path_said: bool,
    end: Option<Cid>,
    /// Found and not said yet, with their depth below the end. The next one is the last.
    found: Vec<(Cid, u32)>,
    /// Said and not supplied yet.
    open: HashMap<Cid, u32>,
    /// All that was ever found below the end, by the bytes of the CID: a [`Cid`] has room for much longer hashes.
    seen: HashSet<Box<[u8]>>,
}

impl Walk {
    pub(super) fn new(request: DagRequest, limits: FetchLimits) -> Result<Self, FetchError> {
        let path =
            PathWalk::new(request.root, &request.path).map_err(|error| FetchError::Path(WalkError::Path(error)))?;
        check_supported(&request.root)?;
        let mut walk = Self {
            limits,
            path: None,
            is_path_said: false,
            end: None,
            found: Vec::new(),
            open: HashMap::new(),
            seen: HashSet::new(),
            request,
        };
        walk.set_path(path)?;
        Ok(walk)
    }

    /// Where the path leads, once that is known.
    pub(super) fn end(&self) -> Option<Cid> {
        self.end
    }

    /// A block that is needed and was not said before. Each that is said is to be supplied.
    pub(super) fn next(&mut self) -> Option<Cid> {
        if let Some(wanted) = self.path.as_ref().and_then(PathWalk::wanted) {
            return (!std::mem::replace(&mut self.is_path_said, true)).then_some(*wanted);
        }
        let (cid, depth) = self.found.pop()?;
        self.open.insert(cid, depth);
        Some(cid)
    }

    /// Whether only the fact that the block is there matters, not what it links to.
    pub(super) fn is_leaf(&self, cid: &Cid) -> bool {
        self.path.is_none() && (cid.codec() == CODEC_RAW || self.request.scope == Scope::Block)
    }

    /// A request for the block that gives all that the walk needs below it.
    pub(super) fn whole(&self, cid: &Cid) -> Option<DagRequest> {
        if self.path.is_some() {
            return (*cid == self.request.root).then(|| self.request.clone());
        }
        // Below the end, a request cannot say what the scope of the whole was.
        let is_known = self.request.scope == Scope::All || self.end == Some(*cid);
        let has_more = !self.is_leaf(cid);
        (is_known && has_more).then(|| DagRequest { root: *cid, path: String::new(), scope: self.request.scope })
    }

    /// Whether a block was said and not supplied yet.
    pub(super) fn wants(&self, cid: &Cid) -> bool {
        match &self.path {
            Some(path) => self.is_path_said && path.wanted() == Some(cid),
            None => self.open.contains_key(cid),
        }
    }

    /// Takes a block that was said.
    ///
    /// # Errors
    /// If it is not what its CID says it is, the path does not lead on from it, or it leads beyond a limit.
    pub(super) fn supply(&mut self, block: &Block) -> Result<(), FetchError> {
        if let Some(mut path) = self.path.take() {
            path.supply(block).map_err(FetchError::Path)?;
            return self.set_path(path);
        }
        let Some(depth) = self.open.remove(block.cid()) else { return Ok(()) };
        let links = self.request.scope.links(block);
        let links = links.map_err(|source| FetchError::Malformed { cid: Box::new(*block.cid()), source })?;
        for cid in links.into_iter().rev() {
            check_supported(&cid)?;
            self.find(cid, depth + 1)?;
        }
        Ok(())
    }

    /// Notes that a block for which [`Walk::is_leaf`] holds is there.
    pub(super) fn supply_leaf(&mut self, cid: &Cid) {
        self.open.remove(cid);
    }

    fn set_path(&mut self, path: PathWalk) -> Result<(), FetchError> {
        match path.found().copied() {
            Some(end) => {
                self.end = Some(end);
                check_supported(&end)?;
                self.find(end, 0)
            }
            None => {
                self.is_path_said = false;
                self.path = Some(path);
                Ok(())
            }
        }
    }

    fn find(&mut self, cid: Cid, depth: u32) -> Result<(), FetchError> {
        if depth > self.limits.depth {
            return Err(FetchError::TooDeep { cid: Box::new(cid), limit: self.limits.depth });
        }
        if self.seen.insert(cid.to_bytes().into_boxed_slice()) {
            if self.seen.len() as u64 > self.limits.blocks {
                return Err(FetchError::TooManyBlocks { limit: self.limits.blocks });
            }
            self.found.push((cid, depth));
        }
        Ok(())
    }
}

/// Blocks that cannot be checked or whose links are not known are not looked for.
fn check_supported(cid: &Cid) -> Result<(), FetchError> {
    let is_hash_known = matches!(cid.hash().code(), HASH_SHA2_256 | HASH_SHA2_512 | HASH_IDENTITY);
    let is_codec_known = matches!(cid.codec(), CODEC_RAW | CODEC_DAG_PB);
    if is_hash_known && is_codec_known { Ok(()) } else { Err(FetchError::Unsupported { cid: Box::new(*cid) }) }
}
