//! A part of a DAG as an archive that is written while it is read.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::blockstore::Blockstore;
use crate::dag::car::{encode_header, encode_section_head};
use crate::dag::{Block, Cid, Scope};

/// How many pieces wait to be sent: each is [`PIECE_BYTES`] or a block.
const QUEUE: usize = 4;

/// Small blocks are sent together until there are so many bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// What an archive has in it.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    /// The root in the header.
    pub(super) root: Cid,
    /// The blocks on the way from there, without what lies at its end.
    pub(super) path: Vec<Cid>,
    /// What lies at the end of the path.
    pub(super) end: Cid,
    pub(super) scope: Scope,
    pub(super) with_duplicates: bool,
}

/// The archive's pieces. They come from a thread that reads the store, and ends when nobody takes them any more.
///
/// Where a block cannot be read the last piece is an error: the answer is then cut off, so that nobody takes it for whole.
pub(super) fn pieces(store: Arc<dyn Blockstore>, contents: Contents) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let mut writer = Writer { sender, piece: BytesMut::new() };
        match write(&*store, &contents, &mut writer) {
            Ok(()) => writer.flush().unwrap_or_default(),
            Err(Stop::Gone) => {}
            Err(Stop::Failed(text)) => {
                tracing::warn!("an answer was cut off: {text}");
                // What came before it may still be of use.
                if writer.flush().is_ok() {
                    let _ = writer.sender.blocking_send(Err(io::Error::other(text)));
                }
            }
        }
    });
    receiver
}

/// Why an archive ends before its end.
enum Stop {
    /// Nobody wants it any more.
    Gone,
    Failed(String),
}

struct Writer {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
}

impl Writer {
    fn put(&mut self, block: &Block) -> Result<(), Stop> {
        let data = block.data();
        self.piece.extend_from_slice(&encode_section_head(block.cid(), data.len()));
        if data.len() >= PIECE_BYTES {
            self.flush()?;
            return self.send(data.clone());
        }
        self.piece.extend_from_slice(data);
        if self.piece.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = self.piece.split().freeze();
        self.send(piece)
    }

    fn send(&mut self, piece: Bytes) -> Result<(), Stop> {
        self.sender.blocking_send(Ok(piece)).map_err(|_| Stop::Gone)
    }
}

fn write(store: &dyn Blockstore, contents: &Contents, writer: &mut Writer) -> Result<(), Stop> {
    writer.piece.extend_from_slice(&encode_header(&[contents.root]));
    let mut seen = HashSet::new();
    for cid in &contents.path {
        let block = read(store, cid)?;
        if seen.insert(*cid) && !is_identity(cid) {
            writer.put(&block)?;
        }
    }
    // Depth first: the next block is the last one.
    let mut pending = vec![contents.end];
    while let Some(cid) = pending.pop() {
        let is_new = contents.with_duplicates || seen.insert(cid);
        if !is_new {
            continue;
        }
        let block = read(store, &cid)?;
        if !is_identity(&cid) {
            writer.put(&block)?;
        }
        // What links cannot be read from is given as it is.
        pending.extend(contents.scope.links(&block).unwrap_or_default().into_iter().rev());
    }
    Ok(())
}

fn is_identity(cid: &Cid) -> bool {
    Block::from_identity(cid).is_some()
}

fn read(store: &dyn Blockstore, cid: &Cid) -> Result<Block, Stop> {
    if let Some(block) = Block::from_identity(cid) {
        return Ok(block);
    }
    match store.get(cid) {
        Ok(Some(block)) => Ok(block),
        Ok(None) => Err(Stop::Failed(format!("block {cid} is not here"))),
        Err(error) => Err(Stop::Failed(error.to_string())),
    }
}
