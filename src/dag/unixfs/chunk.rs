//! Cutting a file's bytes into pieces.

use bytes::Bytes;

/// Cuts bytes that come in pieces of any size into pieces of one size. Holds at most one piece.
///
/// Who can read pieces of the right size to begin with does not need it.
#[derive(Debug)]
pub struct Chunker {
    chunk_bytes: usize,
    partial: Vec<u8>,
}

impl Chunker {
    /// A chunker for pieces of `chunk_bytes` bytes, such as [`super::Profile::chunk_bytes`].
    ///
    /// # Panics
    /// If that is zero.
    pub fn new(chunk_bytes: usize) -> Self {
        assert!(chunk_bytes > 0, "pieces of no bytes");
        Self { chunk_bytes, partial: Vec::new() }
    }

    /// Takes bytes from the front of `input`, until there are none or a piece is full; gives that piece. Call it until
    /// `input` is empty.
    pub fn next_chunk(&mut self, input: &mut &[u8]) -> Option<Bytes> {
        let missing = self.chunk_bytes - self.partial.len();
        let (taken, rest) = input.split_at(missing.min(input.len()));
        *input = rest;
        if self.partial.is_empty() && taken.len() == self.chunk_bytes {
            return Some(Bytes::copy_from_slice(taken));
        }
        self.partial.extend_from_slice(taken);
        let is_full = self.partial.len() == self.chunk_bytes;
        is_full.then(|| Bytes::from(std::mem::take(&mut self.partial)))
    }

    /// The last piece, if bytes are left.
    pub fn finish(self) -> Option<Bytes> {
        (!self.partial.is_empty()).then(|| Bytes::from(self.partial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_do_not_depend_on_how_bytes_come(bytes: Vec<u8>, chunk_bytes in 1usize..40, piece_bytes in 1usize..90) {
            let mut chunker = Chunker::new(chunk_bytes);
            let mut chunks = Vec::new();
            for mut piece in bytes.chunks(piece_bytes) {
                while !piece.is_empty() {
                    chunks.extend(chunker.next_chunk(&mut piece));
                }
            }
            chunks.extend(chunker.finish());
            let expected: Vec<&[u8]> = bytes.chunks(chunk_bytes).collect();
            prop_assert_eq!(chunks, expected);
        }
    }
}
