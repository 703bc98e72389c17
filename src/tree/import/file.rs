//! Files of more than one piece, which several threads read.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::ImportError;
use super::node::Node;
use super::work::{Local, PutError, Shared, small};
use crate::dag::unixfs::{FileBuilder, FilePart, Profile};
use crate::folder::Stamp;

/// A file that is being read.
pub(super) struct LargeFile {
    node: Arc<Node>,
    name: Box<str>,
    file: File,
    stamp: Stamp,
    piece_bytes: u64,
    /// The index of the next piece that nobody has taken.
    next: AtomicU64,
    /// Locked for the length of a push, by whoever has a piece.
    state: Mutex<State>,
}

struct State {
    /// `None` once it is finished.
    builder: Option<FileBuilder>,
    /// How many pieces the builder has.
    pushed: u64,
    /// Pieces that are done before others that come before them, by index. Threads take pieces in order, so there are few
    /// as long as none of them is kept waiting.
    early: BTreeMap<u64, FilePart>,
}

impl LargeFile {
    pub(super) fn new(node: Arc<Node>, name: Box<str>, file: File, stamp: Stamp, profile: &Profile) -> Self {
        let state = State { builder: Some(FileBuilder::new(*profile)), pushed: 0, early: BTreeMap::new() };
        let piece_bytes = profile.chunk_bytes as u64;
        Self { node, name, file, stamp, piece_bytes, next: AtomicU64::new(0), state: Mutex::new(state) }
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.pieces()
    }

    fn pieces(&self) -> u64 {
        self.stamp.size_bytes.div_ceil(self.piece_bytes)
    }
}

impl Shared<'_, '_> {
    /// Reads pieces of a file until all are taken.
    pub(super) fn do_pieces(&self, large: &LargeFile, local: &mut Local) -> Result<(), ImportError> {
        loop {
            let index = large.next.fetch_add(1, Ordering::Relaxed);
            if index >= large.pieces() {
                return Ok(());
            }
            self.check_stopped()?;
            let offset = index * large.piece_bytes;
            let size = large.piece_bytes.min(large.stamp.size_bytes - offset);
            let part = self.piece(&large.node, &large.name, &large.file, offset, size, local)?;
            self.push(large, index, part, local)?;
        }
    }

    /// Takes a piece that is done, and makes the file if it was the last one missing.
    fn push(&self, large: &LargeFile, index: u64, part: FilePart, local: &mut Local) -> Result<(), ImportError> {
        let failed = |error: PutError| error.at(|| large.node.shown(self.root, &large.name));
        let mut state = large.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { builder, pushed, early } = &mut *state;
        early.insert(index, part);
        while let Some(part) = early.remove(pushed)
            && let Some(builder) = builder
        {
            builder.push_leaf(part, &mut |block| self.put(&block)).map_err(failed)?;
            *pushed += 1;
        }
        if *pushed < large.pieces() {
            return Ok(());
        }
        let Some(builder) = builder.take() else { return Ok(()) };
        drop(state);
        let subtree = builder.finish(&mut |block| self.put(&block)).map_err(failed)?.subtree();
        let root = small(&subtree);
        self.check_unchanged(&large.node, &large.name, &large.file, &large.stamp)?;
        local.count_file(&large.stamp);
        let mut contents = self.single(&large.node, &large.name, root)?;
        contents.fresh.extend(self.cached(&large.name, &large.stamp, root));
        self.add(&large.node, contents, 1)
    }
}
