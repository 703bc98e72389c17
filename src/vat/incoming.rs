//! What comes in, seen before it is kept: the lengths of messages.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::AsyncRead;

use super::meter::Meter;

/// The most segments of a message; the library reads none that has more.
const SEGMENTS_MAX: u32 = 512;

/// A reader that tells the meter how long each message is, as soon as that was read: before the library makes room for it.
///
/// The stream is in the form of <https://capnproto.org/encoding.html#serialization-over-a-stream>: the number of segments
/// less one, the length of each in words, all as 32 bits, little endian; zeros up to a whole word; then the segments.
pub(super) struct WatchedReader<R> {
    reader: R,
    meter: Meter,
    lengths: Lengths,
}

impl<R> WatchedReader<R> {
    pub(super) fn new(reader: R, meter: Meter) -> Self {
        Self { reader, meter, lengths: Lengths::default() }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for WatchedReader<R> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, target: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let size = ready!(Pin::new(&mut this.reader).poll_read(context, target))?;
        let mut bytes = &target[..size];
        while let Some(length) = this.lengths.next(&mut bytes) {
            // The meter keeps why; what the library makes of this error is a text.
            this.meter.coming(length).map_err(|_| io::Error::other("the message is not taken"))?;
        }
        Poll::Ready(Ok(size))
    }
}

/// Finds the lengths of messages in a stream of them, however it is cut into pieces.
#[derive(Default)]
struct Lengths {
    /// The number that is being read, and how many bytes of it are there.
    number: [u8; 4],
    number_bytes: usize,
    expected: Expected,
    /// How many bytes of the present message are still to come.
    left_bytes: usize,
}

#[derive(Clone, Copy, Default)]
enum Expected {
    /// The number of segments less one.
    #[default]
    Count,
    /// The lengths of so many segments; those before have so many words.
    Length { left: u32, words: usize, is_padded: bool },
    /// Zeros, before a message of so many words.
    Padding { words: usize },
    /// Anything: this is no stream of messages, which the library will find.
    Nothing,
}

impl Lengths {
    /// Goes on to the next length, in bytes, and takes what comes before its segments; `None` when `bytes` are used up.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<usize> {
        loop {
            let skipped = self.left_bytes.min(bytes.len());
            self.left_bytes -= skipped;
            *bytes = &bytes[skipped..];
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            self.number[self.number_bytes] = *byte;
            self.number_bytes += 1;
            if self.number_bytes < self.number.len() {
                continue;
            }
            self.number_bytes = 0;
            let number = u32::from_le_bytes(self.number);
            let done = match self.expected {
                Expected::Count if number >= SEGMENTS_MAX => {
                    self.expected = Expected::Nothing;
                    None
                }
                Expected::Count => {
                    let count = number + 1;
                    // With the count itself they fill whole words if they are odd.
                    self.expected = Expected::Length { left: count, words: 0, is_padded: count.is_multiple_of(2) };
                    None
                }
                Expected::Length { left, words, is_padded } => {
                    let words = words.saturating_add(number as usize);
                    match (left - 1, is_padded) {
                        (0, true) => {
                            self.expected = Expected::Padding { words };
                            None
                        }
                        (0, false) => Some(words),
                        (left, _) => {
                            self.expected = Expected::Length { left, words, is_padded };
                            None
                        }
                    }
                }
                Expected::Padding { words } => Some(words),
                Expected::Nothing => None,
            };
            if let Some(words) = done {
                self.expected = Expected::Count;
                self.left_bytes = words.saturating_mul(size_of::<capnp::Word>());
                return Some(self.left_bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capnp::message::{Builder, HeapAllocator};
    use proptest::prelude::*;

    /// A message with so many bytes of data in one segment or, if they do not fit into its first, in several.
    fn message(data_bytes: u32, first_segment_words: u32) -> Vec<u8> {
        let mut message = Builder::new(HeapAllocator::new().first_segment_words(first_segment_words));
        message.initn_root::<capnp::data::Builder<'_>>(data_bytes);
        let mut bytes = Vec::new();
        capnp::serialize::write_message(&mut bytes, &message).unwrap();
        bytes
    }

    fn lengths(pieces: &[&[u8]]) -> Vec<usize> {
        let mut lengths = Lengths::default();
        let mut found = Vec::new();
        for piece in pieces {
            let mut bytes = *piece;
            while let Some(length) = lengths.next(&mut bytes) {
                found.push(length);
            }
        }
        found
    }

    proptest! {
        #[test]
        fn lengths_are_found_however_the_stream_is_cut(
            messages in prop::collection::vec((0..200_u32, 1..20_u32), 0..6),
            cuts in prop::collection::vec(1..40_usize, 1..40),
        ) {
            let messages: Vec<_> = messages.into_iter().map(|(data, first)| message(data, first)).collect();
            let expected: Vec<_> = messages.iter().map(|message| {
                let segments = u32::from_le_bytes(message[..4].try_into().unwrap()) as usize + 1;
                message.len() - (4 + 4 * segments).next_multiple_of(8)
            }).collect();
            let stream = messages.concat();
            let (mut rest, mut pieces) = (stream.as_slice(), Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, others) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = others;
            }
            prop_assert_eq!(lengths(&pieces), expected);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            lengths(&[&bytes]);
        }
    }

    #[test]
    fn what_is_no_message_has_no_length() {
        assert_eq!(lengths(&[&[0xff; 64]]), [0_usize; 0]);
        let mut huge = vec![1, 0, 0, 0];
        huge.extend([0xff; 8]);
        huge.extend([0; 4]);
        assert_eq!(lengths(&[&huge]), [2 * (u32::MAX as usize) * 8]);
    }
}
