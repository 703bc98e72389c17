//! The blocks of a CAR that comes over the network.

use std::fmt;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::{Cause, RemoteError};
use crate::dag::Block;
use crate::dag::car::{Decoder, Item};

/// Blocks that somebody sends as a CAR, in their order. Each was checked against its CID.
///
/// Which blocks they are, and whether they are all, is not known: the header's roots are claims and are ignored, the
/// sender may repeat blocks, leave some out and add others. It holds one section and one piece of the answer at a time.
pub struct Blocks {
    /// The CAR in pieces. `None` after its end or an error.
    pieces: Option<BoxStream<'static, Result<Bytes, Cause>>>,
    decoder: Decoder,
    bytes: u64,
    bytes_max: u64,
    remote: String,
    request: String,
}

impl Blocks {
    /// Reads the CAR that comes in `pieces`, which may be `bytes_max` long altogether. `remote` and `request` are those of
    /// [`RemoteError`].
    pub fn new(
        pieces: BoxStream<'static, Result<Bytes, Cause>>,
        bytes_max: u64,
        remote: impl Into<String>,
        request: impl Into<String>,
    ) -> Self {
        let (remote, request) = (remote.into(), request.into());
        Self { pieces: Some(pieces), decoder: Decoder::new(), bytes: 0, bytes_max, remote, request }
    }

    /// The next block; `None` after a CAR that came whole. Nothing comes after an error.
    ///
    /// Cancel safe: a piece that was taken is kept.
    ///
    /// # Errors
    /// If the transfer fails or is over the limit, it is no CAR, or a block is not what its CID says.
    pub async fn next(&mut self) -> Option<Result<Block, RemoteError>> {
        let next = self.try_next().await;
        if next.is_err() {
            self.pieces = None;
        }
        let (remote, request) = (&self.remote, &self.request);
        next.map_err(|cause| RemoteError { remote: remote.clone(), request: request.clone(), cause }).transpose()
    }

    async fn try_next(&mut self) -> Result<Option<Block>, Cause> {
        loop {
            let Some(pieces) = &mut self.pieces else { return Ok(None) };
            match self.decoder.next_item().map_err(Cause::Car)? {
                Some(Item::Header(_)) => {}
                Some(Item::Section(section)) => return section.into_block().map(Some).map_err(Cause::Block),
                None => match pieces.next().await.transpose()? {
                    Some(piece) => {
                        self.bytes = self.bytes.saturating_add(piece.len() as u64);
                        if self.bytes > self.bytes_max {
                            return Err(Cause::TooLong { what: "the CAR", limit: self.bytes_max });
                        }
                        self.decoder.push(&piece);
                    }
                    None => {
                        self.pieces = None;
                        std::mem::take(&mut self.decoder).finish().map_err(Cause::Car)?;
                    }
                },
            }
        }
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Blocks")
            .field("remote", &self.remote)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::BlockError;

    /// Base G of `cases.md`: a header with one root, and that root: the raw block "123".
    fn car() -> Vec<u8> {
        let cid = "bafkreifgmwsfsiccf6ouc7sim7x5yt5yubfb6p77d6qh5gmoq337pit24m".parse().unwrap();
        let mut car = crate::dag::car::encode_header(&[cid]);
        car.extend(crate::dag::car::encode_section_head(&cid, 3));
        car.extend(b"123");
        car
    }

    /// What comes of a CAR that is sent in pieces of `piece` bytes: the number of blocks, and the error.
    async fn read(car: &[u8], piece: usize, bytes_max: u64) -> (usize, Option<Cause>) {
        let pieces: Vec<_> = car.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut blocks = Blocks::new(futures::stream::iter(pieces).boxed(), bytes_max, "mock", "car");
        let mut count = 0;
        loop {
            match blocks.next().await {
                None => return (count, None),
                Some(Ok(_)) => count += 1,
                Some(Err(error)) => {
                    assert!(blocks.next().await.is_none(), "nothing follows an error");
                    return (count, Some(error.cause));
                }
            }
        }
    }

    #[tokio::test]
    async fn blocks_come_in_whatever_pieces() {
        for piece in [1, 7, 1000] {
            let (count, error) = read(&car(), piece, 1000).await;
            assert!(count == 1 && error.is_none(), "{error:?}");
        }
    }

    #[tokio::test]
    async fn bad_cars_are_errors() {
        let whole = car();
        assert!(matches!(read(&whole, 10, 98).await, (0, Some(Cause::TooLong { limit: 98, .. }))));
        for end in 0..whole.len() {
            let (count, error) = read(&whole[..end], 10, 1000).await;
            // Only the header, which is all that the 59 bytes are, makes a CAR: one without blocks.
            assert!(count == 0 && (end == 59) == error.is_none(), "{end}: {error:?}");
        }
        let mut other = whole.clone();
        *other.last_mut().unwrap() = b'4';
        let (_, error) = read(&other, 10, 1000).await;
        assert!(matches!(error, Some(Cause::Block(BlockError::HashMismatch { .. }))), "{error:?}");
        let (count, error) = read(&[&whole[..], &[0xa0]].concat(), 10, 1000).await;
        assert!(count == 1 && matches!(error, Some(Cause::Car(_))), "{error:?}");
    }
}
