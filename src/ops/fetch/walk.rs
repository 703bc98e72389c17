//! What belongs to a DAG, as far as its blocks are known.

use std::collections::HashMap;
use std::sync::Arc;

use super::{DagRequest, FetchError, FetchLimits};
use crate::dag::block::{CODEC_DAG_PB, CODEC_RAW, HASH_IDENTITY, HASH_SHA2_256, HASH_SHA2_512};
use crate::dag::unixfs::{PathWalk, WalkError};
use crate::dag::{Block, Cid, Scope};

/// How many blocks are said and not supplied at once. What is beyond costs no more than its CID; this is far more than
/// all sources are asked for at once.
pub(super) const OPEN_MAX: usize = 4096;

/// The bytes of a CID: a [`Cid`] has room for much longer hashes.
type Key = Arc<[u8]>;

fn key(cid: &Cid) -> Key {
    cid.to_bytes().into()
}

/// A block below the end of the path.
struct Node {
    /// Below the end.
    depth: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Found and not said yet.
    Found,
    /// Said and not supplied yet.
    Open,
    Supplied,
}

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
    /// Found and not said yet, with who found them; also some that were supplied before they were said. The next one is
    /// the last.
    found: Vec<(Key, u64)>,
    /// How many were said and not supplied yet.
    open: usize,
    /// All that was ever found below the end.
    nodes: HashMap<Key, Node>,
}

impl Walk {
    /// `origin` is who finds the first block.
    pub(super) fn new(request: DagRequest, limits: FetchLimits, origin: u64) -> Result<Self, FetchError> {
        let path =
            PathWalk::new(request.root, &request.path).map_err(|error| FetchError::Path(WalkError::Path(error)))?;
        check_supported(&request.root)?;
        let mut walk = Self {
            limits,
            path: None,
            is_path_said: false,
            end: None,
            found: Vec::new(),
            open: 0,
            nodes: HashMap::new(),
            request,
        };
        walk.set_path(path, origin)?;
        Ok(walk)
    }

    /// Where the path leads, once that is known.
    pub(super) fn end(&self) -> Option<Cid> {
        self.end
    }

    /// A block that is needed and was not said before, and who found it, if that is known. Each that is said is to be
    /// supplied; there is none while [`OPEN_MAX`] are not.
    pub(super) fn next(&mut self) -> Option<(Cid, Option<u64>)> {
        if let Some(wanted) = self.path.as_ref().and_then(PathWalk::wanted) {
            return (!std::mem::replace(&mut self.is_path_said, true)).then_some((*wanted, None));
        }
        while self.open < OPEN_MAX {
            let (key, origin) = self.found.pop()?;
            let Some(node) = self.nodes.get_mut(&key).filter(|node| node.state == State::Found) else { continue };
            let Ok(cid) = Cid::try_from(&*key) else { continue };
            node.state = State::Open;
            self.open += 1;
            return Some((cid, Some(origin)));
        }
        None
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

    /// Whether a block is needed and was not supplied yet. Below the end of the path it need not have been said.
    pub(super) fn wants(&self, cid: &Cid) -> bool {
        match &self.path {
            Some(path) => self.is_path_said && path.wanted() == Some(cid),
            None => self.state(cid).is_some_and(|state| state != State::Supplied),
        }
    }

    /// Whether a block that is needed was said.
    pub(super) fn is_said(&self, cid: &Cid) -> bool {
        self.path.is_some() || self.state(cid) == Some(State::Open)
    }

    fn state(&self, cid: &Cid) -> Option<State> {
        self.nodes.get(&*cid.to_bytes()).map(|node| node.state)
    }

    /// Takes a block that is wanted. `origin` is who brought it.
    ///
    /// # Errors
    /// If it is not what its CID says it is, the path does not lead on from it, or it leads beyond a limit.
    pub(super) fn supply(&mut self, block: &Block, origin: u64) -> Result<(), FetchError> {
        if let Some(mut path) = self.path.take() {
            path.supply(block).map_err(FetchError::Path)?;
            return self.set_path(path, origin);
        }
        let Some(depth) = self.close(block.cid()) else { return Ok(()) };
        let links = self.request.scope.links(block);
        let links = links.map_err(|source| FetchError::Malformed { cid: Box::new(*block.cid()), source })?;
        for cid in links.into_iter().rev() {
            check_supported(&cid)?;
            self.find(&cid, depth + 1, origin)?;
        }
        Ok(())
    }

    /// Notes that a block for which [`Walk::is_leaf`] holds is there.
    pub(super) fn supply_leaf(&mut self, cid: &Cid) {
        self.close(cid);
    }

    /// Notes that a block was supplied; gives its depth if it was not before.
    fn close(&mut self, cid: &Cid) -> Option<u32> {
        let node = self.nodes.get_mut(&*cid.to_bytes())?;
        match std::mem::replace(&mut node.state, State::Supplied) {
            State::Found => {}
            State::Open => self.open -= 1,
            State::Supplied => return None,
        }
        Some(node.depth)
    }

    fn set_path(&mut self, path: PathWalk, origin: u64) -> Result<(), FetchError> {
        match path.found().copied() {
            Some(end) => {
                self.end = Some(end);
                check_supported(&end)?;
                self.find(&end, 0, origin)
            }
            None => {
                self.is_path_said = false;
                self.path = Some(path);
                Ok(())
            }
        }
    }

    fn find(&mut self, cid: &Cid, depth: u32, origin: u64) -> Result<(), FetchError> {
        if depth > self.limits.depth {
            return Err(FetchError::TooDeep { cid: Box::new(*cid), limit: self.limits.depth });
        }
        let key = key(cid);
        if self.nodes.contains_key(&key) {
            return Ok(());
        }
        if self.nodes.len() as u64 >= self.limits.blocks {
            return Err(FetchError::TooManyBlocks { limit: self.limits.blocks });
        }
        self.nodes.insert(key.clone(), Node { depth, state: State::Found });
        self.found.push((key, origin));
        Ok(())
    }
}

/// Blocks that cannot be checked or whose links are not known are not looked for.
pub(super) fn check_supported(cid: &Cid) -> Result<(), FetchError> {
    let is_hash_known = matches!(cid.hash().code(), HASH_SHA2_256 | HASH_SHA2_512 | HASH_IDENTITY);
    let is_codec_known = matches!(cid.codec(), CODEC_RAW | CODEC_DAG_PB);
    if is_hash_known && is_codec_known { Ok(()) } else { Err(FetchError::Unsupported { cid: Box::new(*cid) }) }
}
