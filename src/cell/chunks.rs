//! The bytes that wait in a pipe.

use std::collections::VecDeque;
use std::mem;

use bytes::{Buf, Bytes, BytesMut};

/// Pieces of at least so many bytes are kept as they came, smaller ones are put together: copying costs less then than keeping
/// many does.
const KEPT_BYTES_MIN: usize = 16 * 1024;

/// Bytes in the order of their coming. Holds no memory to speak of when there are none.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Those that came first.
    whole: VecDeque<Bytes>,
    /// Those that came after them.
    last: BytesMut,
    /// How many there are in all.
    length: usize,
}

impl Chunks {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends a copy of `bytes`.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        self.last.extend_from_slice(bytes);
    }

    /// Appends `bytes`, without copying them if they are many.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if bytes.len() < KEPT_BYTES_MIN {
            return self.extend(&bytes);
        }
        if !self.last.is_empty() {
            self.whole.push_back(mem::take(&mut self.last).freeze());
        }
        self.length += bytes.len();
        self.whole.push_back(bytes);
    }

    /// Takes the first bytes, at most `size_max`, and none only where there are none.
    pub(super) fn take(&mut self, size_max: usize) -> Bytes {
        let taken = match self.whole.front_mut() {
            Some(first) if first.len() > size_max => first.split_to(size_max),
            Some(first) => {
                let taken = mem::take(first);
                self.whole.pop_front();
                taken
            }
            None if self.last.len() <= size_max => mem::take(&mut self.last).freeze(),
            None if size_max >= KEPT_BYTES_MIN => self.last.split_to(size_max).freeze(),
            None => Bytes::copy_from_slice(&self.last.split_to(size_max)),
        };
        self.length -= taken.len();
        taken
    }

    /// Takes as many of the first bytes as there are, and as fit into `target`; says how many that was.
    pub(super) fn copy_to(&mut self, target: &mut [u8]) -> usize {
        let mut copied = 0;
        while copied < target.len()
            && let Some(first) = self.whole.front_mut()
        {
            let size = first.len().min(target.len() - copied);
            first.copy_to_slice(&mut target[copied..copied + size]);
            copied += size;
            if first.is_empty() {
                self.whole.pop_front();
            }
        }
        let size = self.last.len().min(target.len() - copied);
        self.last.copy_to_slice(&mut target[copied..copied + size]);
        copied += size;
        if self.last.is_empty() {
            self.last = BytesMut::new();
        }
        self.length -= copied;
        copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_out_in_their_order(
            steps in prop::collection::vec((0..5_u8, prop_oneof![0..40_usize, 0..3 * KEPT_BYTES_MIN]), 0..40)
        ) {
            let mut chunks = Chunks::default();
            let (mut put, mut got) = (0_usize, 0_usize);
            let number = |at: usize| (at % 251) as u8;
            for (step, size) in steps {
                let bytes: Vec<u8> = (put..put + size).map(number).collect();
                let taken = match step {
                    0 => { chunks.extend(&bytes); put += size; Bytes::new() }
                    1 => { chunks.push(bytes.into()); put += size; Bytes::new() }
                    2 => {
                        let mut target = vec![0; size];
                        let copied = chunks.copy_to(&mut target);
                        prop_assert_eq!(copied, size.min(put - got));
                        target.truncate(copied);
                        target.into()
                    }
                    _ => {
                        let taken = chunks.take(size);
                        prop_assert!(taken.len() <= size && taken.is_empty() == (size == 0 || put == got));
                        taken
                    }
                };
                prop_assert!(taken.iter().copied().eq((got..got + taken.len()).map(number)));
                got += taken.len();
                prop_assert_eq!(chunks.len(), put - got);
                prop_assert_eq!(chunks.is_empty(), put == got);
            }
        }
    }
}
