//! CAR: archives of blocks, read and written in one pass.
//!
//! A CARv1 (<https://ipld.io/specs/transport/car/carv1/>) is a header and any number of sections:
//!
//! ```text
//! varint length | header in DAG-CBOR: {"roots": [CID, …], "version": 1}
//! varint length | CID | data          a section: the length counts the CID and the data
//! …
//! ```
//!
//! A CARv2 (<https://ipld.io/specs/transport/car/carv2/>) wraps a CARv1:
//!
//! ```text
//! 0a a1 67 "version" 02               the header of a CARv1, but with version 2
//! 16 bytes characteristics | u64 data offset | u64 data size | u64 index offset    little-endian
//! … the CARv1 at the data offset … the index
//! ```
//!
//! [`Decoder`] reads both; it is given bytes as they come, and forgets what it has handed out. [`encode_header`] and
//! [`encode_section_head`] write CARv1. Neither writing CARv2 nor its index is supported, and no padding with zeros.

use bytes::{Bytes, BytesMut};

use super::block::{BLOCK_BYTES_MAX, Block, BlockError, Cid, parse_cid, split_cid};
use super::protobuf::put_varint;

/// The longest header, in bytes: room for more than 20,000 roots. go-car allows 32 MiB, which nobody has a use for.
pub const HEADER_BYTES_MAX: usize = 1024 * 1024;

/// The longest section, in bytes: a block of [`BLOCK_BYTES_MAX`] and the longest CID that is not an identity.
pub const SECTION_BYTES_MAX: usize = BLOCK_BYTES_MAX + 256;

/// The bytes at the start of every CARv2.
const PRAGMA_V2: [u8; 11] = *b"\x0a\xa1\x67version\x02";

/// The length of the fixed header that follows the pragma.
const HEADER_V2_BYTES: usize = 40;

/// Why bytes are not a CAR. Places are counted in bytes from the archive's start.
#[derive(Debug, thiserror::Error)]
pub enum CarError {
    /// The archive ends within its header or a section.
    #[error("truncated at byte {end}, within {}", Place(last_block))]
    Truncated {
        /// Where the bytes end.
        end: u64,
        /// The last block that came whole; `None` if none did.
        last_block: Option<Box<Cid>>,
    },
    /// A length is not a minimal varint of at most 64 bits.
    #[error("malformed length at byte {at}")]
    Length {
        /// Where it stands.
        at: u64,
    },
    /// The header is longer than [`HEADER_BYTES_MAX`].
    #[error("header of {size_bytes} bytes is over the limit of {HEADER_BYTES_MAX}")]
    HeaderTooLong {
        /// Its declared length.
        size_bytes: u64,
    },
    /// The header is not what CAR has.
    #[error("malformed header: {0}")]
    Header(&'static str),
    /// A root in the header is not a CID.
    #[error("malformed root in the header")]
    Root(#[source] BlockError),
    /// Neither version 1 nor 2.
    #[error("version {0} is not supported")]
    Version(u64),
    /// A section is longer than [`SECTION_BYTES_MAX`].
    #[error("section of {size_bytes} bytes at byte {at} is over the limit of {SECTION_BYTES_MAX}")]
    SectionTooLong {
        /// Where its length stands.
        at: u64,
        /// Its declared length.
        size_bytes: u64,
    },
    /// A section of no bytes: padding, which go-car refuses unless told otherwise.
    #[error("empty section at byte {at}")]
    EmptySection {
        /// Where its length stands.
        at: u64,
    },
    /// A section reaches over the end of the CARv1 in a CARv2.
    #[error("section at byte {at} reaches beyond the data of the CARv2")]
    BeyondData {
        /// Where its length stands.
        at: u64,
    },
    /// A section does not start with a CID.
    #[error("malformed CID in the section at byte {at}")]
    SectionCid {
        /// Where its length stands.
        at: u64,
        /// What is wrong with the CID.
        #[source]
        source: BlockError,
    },
}

/// The part of a CAR after a block, for a message.
struct Place<'a>(&'a Option<Box<Cid>>);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(cid) => write!(formatter, "what follows block {cid}"),
            None => formatter.write_str("the header or the first block"),
        }
    }
}

/// What a CAR says of itself before its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The CIDs that the archive is about. They need not be in it, and it may be about none.
    pub roots: Vec<Cid>,
}

/// A block in a CAR, not yet checked: [`Section::into_block`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The name of the block, as the archive claims.
    pub cid: Cid,
    /// Its bytes. They share memory with what was pushed at the same time.
    pub data: Bytes,
    /// Where the bytes stand, counted from the archive's start.
    pub data_offset: u64,
}

impl Section {
    /// Checks the bytes against the CID.
    ///
    /// # Errors
    /// As [`Block::new`].
    pub fn into_block(self) -> Result<Block, BlockError> {
        Block::new(self.cid, self.data)
    }
}

/// What a [`Decoder`] has read: first the header, then sections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The header; exactly once.
    Header(Header),
    /// A block.
    Section(Section),
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before the pragma of a CARv2 or the header of a CARv1.
    Start,
    /// Before the fixed header of a CARv2.
    HeaderV2,
    /// Before the CARv1 in a CARv2, which starts at this place.
    SkipTo(u64),
    /// Before the header of that CARv1.
    InnerHeader,
    Sections,
    /// After the CARv1 in a CARv2.
    Index,
}

/// Reads a CAR from bytes that come in pieces of any size.
///
/// Push a piece, take items until there is none, push the next; at last call [`Decoder::finish`]. So it holds at most the
/// piece and one section. After an error nothing more comes.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    buffer: BytesMut,
    /// The place of the buffer's first byte.
    position: u64,
    /// Where the CARv1 in a CARv2 ends.
    data_end: Option<u64>,
    last_block: Option<Cid>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Start, buffer: BytesMut::new(), position: 0, data_end: None, last_block: None }
    }
}

impl Decoder {
    /// A decoder at the start of an archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the archive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item; `None` if it needs more bytes.
    ///
    /// # Errors
    /// As soon as the bytes cannot be the start of a CAR.
    pub fn next_item(&mut self) -> Result<Option<Item>, CarError> {
        loop {
            let advanced = match self.state {
                State::Start => match self.header()? {
                    Some((1, header)) => {
                        self.state = State::Sections;
                        return Ok(Some(Item::Header(header)));
                    }
                    Some(_) => {
                        self.state = State::HeaderV2;
                        true
                    }
                    None => false,
                },
                State::HeaderV2 => self.header_v2()?,
                State::SkipTo(place) => self.skip_to(place),
                State::InnerHeader => match self.header()? {
                    Some((1, header)) => {
                        self.state = State::Sections;
                        return Ok(Some(Item::Header(header)));
                    }
                    Some(_) => return Err(CarError::Header("a CARv2 within a CARv2")),
                    None => false,
                },
                State::Sections if self.data_end == Some(self.position) => {
                    self.state = State::Index;
                    true
                }
                State::Sections => return Ok(self.section()?.map(Item::Section)),
                State::Index => {
                    self.consume(self.buffer.len());
                    false
                }
            };
            if !advanced {
                return Ok(None);
            }
        }
    }

    /// Says that no bytes follow those that were pushed. All items must have been taken.
    ///
    /// # Errors
    /// If the archive ends within its header or a section.
    pub fn finish(self) -> Result<(), CarError> {
        let is_whole = match self.state {
            State::Sections => self.buffer.is_empty() && self.data_end.is_none_or(|end| end == self.position),
            State::Index => true,
            State::Start | State::HeaderV2 | State::SkipTo(_) | State::InnerHeader => false,
        };
        if is_whole { Ok(()) } else { Err(self.truncated()) }
    }

    fn truncated(&self) -> CarError {
        let end = self.position + self.buffer.len() as u64;
        CarError::Truncated { end, last_block: self.last_block.map(Box::new) }
    }

    fn consume(&mut self, length: usize) -> BytesMut {
        self.position += length as u64;
        self.buffer.split_to(length)
    }

    /// Reads a header with its length; gives the version, and for version 1 the header.
    fn header(&mut self) -> Result<Option<(u64, Header)>, CarError> {
        let Some((length, length_bytes)) = self.length()? else { return Ok(None) };
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size > HEADER_BYTES_MAX {
            return Err(CarError::HeaderTooLong { size_bytes: length });
        }
        self.check_within_data(length_bytes + size)?;
        if self.buffer.len() < length_bytes + size {
            return Ok(None);
        }
        let header = decode_header(&self.buffer[length_bytes..length_bytes + size])?;
        self.consume(length_bytes + size);
        Ok(Some(header))
    }

    fn header_v2(&mut self) -> Result<bool, CarError> {
        let Some(fields) = self.buffer.get(16..HEADER_V2_BYTES) else { return Ok(false) };
        let field = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().expect("eight bytes"));
        let (data_offset, data_size) = (field(0), field(8));
        if data_offset < (PRAGMA_V2.len() + HEADER_V2_BYTES) as u64 {
            return Err(CarError::Header("the data of the CARv2 overlaps its header"));
        }
        let Some(data_end) = data_offset.checked_add(data_size).filter(|_| data_size > 0) else {
            return Err(CarError::Header("the data of the CARv2 has an impossible size"));
        };
        self.consume(HEADER_V2_BYTES);
        self.data_end = Some(data_end);
        self.state = State::SkipTo(data_offset);
        Ok(true)
    }

    fn skip_to(&mut self, place: u64) -> bool {
        let gap = usize::try_from(place - self.position).unwrap_or(usize::MAX);
        self.consume(gap.min(self.buffer.len()));
        if self.position == place {
            self.state = State::InnerHeader;
        }
        self.position == place
    }

    fn section(&mut self) -> Result<Option<Section>, CarError> {
        let at = self.position;
        let Some((length, length_bytes)) = self.length()? else { return Ok(None) };
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size == 0 {
            return Err(CarError::EmptySection { at });
        }
        if size > SECTION_BYTES_MAX {
            return Err(CarError::SectionTooLong { at, size_bytes: length });
        }
        self.check_within_data(length_bytes + size)?;
        if self.buffer.len() < length_bytes + size {
            return Ok(None);
        }
        let section = self.buffer[length_bytes..length_bytes + size].as_ref();
        let (cid, data) = split_cid(section).map_err(|source| CarError::SectionCid { at, source })?;
        let data_at = length_bytes + size - data.len();
        let data = self.consume(length_bytes + size).freeze().slice(data_at..);
        self.last_block = Some(cid);
        Ok(Some(Section { cid, data, data_offset: at + data_at as u64 }))
    }

    /// Reads the length at the start of the buffer without taking it; gives it and the number of its own bytes.
    fn length(&self) -> Result<Option<(u64, usize)>, CarError> {
        use unsigned_varint::decode::{self, Error};
        match decode::u64(&self.buffer) {
            Ok((length, rest)) => Ok(Some((length, self.buffer.len() - rest.len()))),
            Err(Error::Insufficient) => Ok(None),
            Err(_) => Err(CarError::Length { at: self.position }),
        }
    }

    fn check_within_data(&self, size: usize) -> Result<(), CarError> {
        match self.data_end {
            Some(end) if self.position + size as u64 > end => Err(CarError::BeyondData { at: self.position }),
            _ => Ok(()),
        }
    }
}

/// The start of a CARv1: the length and the header.
pub fn encode_header(roots: &[Cid]) -> Vec<u8> {
    let mut header = b"\xa2\x65roots".to_vec();
    cbor::put_head(&mut header, cbor::ARRAY, roots.len() as u64);
    for root in roots {
        let bytes = root.to_bytes();
        cbor::put_head(&mut header, cbor::TAG, cbor::TAG_CID);
        // The zero byte is the multibase prefix for binary.
        cbor::put_head(&mut header, cbor::BYTES, bytes.len() as u64 + 1);
        header.push(0);
        header.extend_from_slice(&bytes);
    }
    header.extend_from_slice(b"\x67version\x01");
    let mut out = Vec::with_capacity(header.len() + 5);
    put_varint(&mut out, header.len() as u64);
    out.extend_from_slice(&header);
    out
}

/// What stands before the `data_bytes` bytes of a block in a CARv1: the length of the section and the CID.
pub fn encode_section_head(cid: &Cid, data_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, (cid.encoded_len() + data_bytes) as u64);
    out.extend_from_slice(&cid.to_bytes());
    out
}

/// Reads a header without its length; gives the version, and what version 1 has beside it.
fn decode_header(bytes: &[u8]) -> Result<(u64, Header), CarError> {
    let mut reader = cbor::Reader { rest: bytes };
    let keys = reader.expect(cbor::MAP)?;
    let (mut version, mut roots) = (None, None);
    for _ in 0..keys {
        match reader.text()? {
            b"version" if version.is_none() => version = Some(reader.expect(cbor::UNSIGNED)?),
            b"roots" if roots.is_none() => roots = Some(decode_roots(&mut reader)?),
            _ => return Err(CarError::Header("a key is unknown or repeated")),
        }
    }
    if !reader.rest.is_empty() {
        return Err(CarError::Header("bytes follow it"));
    }
    match (version, roots) {
        (Some(1), Some(roots)) => Ok((1, Header { roots })),
        (Some(1), None) => Err(CarError::Header("it has no roots")),
        (Some(2), None) => Ok((2, Header { roots: Vec::new() })),
        (Some(2), Some(_)) => Err(CarError::Header("the first header of a CARv2 has roots")),
        (Some(version), _) => Err(CarError::Version(version)),
        (None, _) => Err(CarError::Header("it has no version")),
    }
}

fn decode_roots(reader: &mut cbor::Reader<'_>) -> Result<Vec<Cid>, CarError> {
    let count = reader.expect(cbor::ARRAY)?;
    let mut roots = Vec::new();
    for _ in 0..count {
        if reader.expect(cbor::TAG)? != cbor::TAG_CID {
            return Err(CarError::Header("a root is not a CID"));
        }
        match reader.bytes()? {
            [0, cid @ ..] => roots.push(parse_cid(cid).map_err(CarError::Root)?),
            _ => return Err(CarError::Header("a root does not start with a zero byte")),
        }
    }
    Ok(roots)
}

/// The part of DAG-CBOR that a header needs.
///
/// <https://ipld.io/specs/codecs/dag-cbor/spec/>, <https://www.rfc-editor.org/rfc/rfc8949#section-3>: an item starts with
/// its major type in three bits and an argument, which must be encoded in as few bytes as possible.
mod cbor {
    use super::CarError;

    pub(super) const UNSIGNED: u8 = 0;
    pub(super) const BYTES: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const ARRAY: u8 = 4;
    pub(super) const MAP: u8 = 5;
    pub(super) const TAG: u8 = 6;

    /// The tag of a CID.
    pub(super) const TAG_CID: u64 = 42;

    pub(super) struct Reader<'a> {
        pub(super) rest: &'a [u8],
    }

    impl<'a> Reader<'a> {
        /// Reads the start of an item of this major type; gives its argument.
        pub(super) fn expect(&mut self, major: u8) -> Result<u64, CarError> {
            let head = self.take(1)?[0];
            if head >> 5 != major {
                return Err(CarError::Header("an item has an unexpected type"));
            }
            let argument_bytes = match head & 0x1f {
                argument @ 0..24 => return Ok(argument.into()),
                24 => 1,
                25 => 2,
                26 => 4,
                27 => 8,
                _ => return Err(CarError::Header("an item has no definite length")),
            };
            let argument = self.take(argument_bytes)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
            let shorter_max = if argument_bytes == 1 { 23 } else { u64::MAX >> (64 - 4 * argument_bytes) };
            if argument <= shorter_max {
                return Err(CarError::Header("a number is longer than needed"));
            }
            Ok(argument)
        }

        pub(super) fn text(&mut self) -> Result<&'a [u8], CarError> {
            let length = self.expect(TEXT)?;
            self.take(usize::try_from(length).unwrap_or(usize::MAX))
        }

        pub(super) fn bytes(&mut self) -> Result<&'a [u8], CarError> {
            let length = self.expect(BYTES)?;
            self.take(usize::try_from(length).unwrap_or(usize::MAX))
        }

        fn take(&mut self, length: usize) -> Result<&'a [u8], CarError> {
            let (taken, rest) =
                self.rest.split_at_checked(length).ok_or(CarError::Header("an item reaches over its end"))?;
            self.rest = rest;
            Ok(taken)
        }
    }

    /// Appends the start of an item.
    pub(super) fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
        let bytes = argument.to_be_bytes();
        let (code, skipped) = match argument {
            0..24 => return out.push(major << 5 | argument as u8),
            24..=0xff => (24, 7),
            0x100..=0xffff => (25, 6),
            0x1_0000..=0xffff_ffff => (26, 4),
            _ => (27, 0),
        };
        out.push(major << 5 | code);
        out.extend_from_slice(&bytes[skipped..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::testing::{any_cid, hex, mutate};
    use proptest::prelude::*;

    /// A CAR whose root and only block is the raw block `123`, as `ipfs dag export` writes it.
    const ONE_BLOCK: &str = "3aa265726f6f747381d82a58250001551220a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a2\
                             7ae36776657273696f6e012701551220a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3\
                             313233";
    const CID: &str = "bafkreifgmwsfsiccf6ouc7sim7x5yt5yubfb6p77d6qh5gmoq337pit24m";
    /// The length of that header with its length.
    const HEADER_BYTES: usize = 59;

    /// Reads an archive that comes in pieces of this size.
    fn read_in_pieces(archive: &[u8], piece_bytes: usize) -> Result<(Header, Vec<Section>), CarError> {
        let mut decoder = Decoder::new();
        let mut header = None;
        let mut sections = Vec::new();
        for piece in archive.chunks(piece_bytes) {
            decoder.push(piece);
            while let Some(item) = decoder.next_item()? {
                match item {
                    Item::Header(first) => assert!(header.replace(first).is_none(), "two headers"),
                    Item::Section(section) => sections.push(section),
                }
            }
        }
        decoder.finish()?;
        Ok((header.expect("a whole archive has a header"), sections))
    }

    fn read(archive: &[u8]) -> Result<(Header, Vec<Section>), CarError> {
        read_in_pieces(archive, 7)
    }

    fn write(roots: &[Cid], blocks: &[(Cid, Vec<u8>)]) -> Vec<u8> {
        let mut out = encode_header(roots);
        for (cid, data) in blocks {
            out.extend(encode_section_head(cid, data.len()));
            out.extend(data);
        }
        out
    }

    /// A CARv2 around a CARv1, with a gap of 9 bytes before it and some bytes as index after it.
    fn wrap(archive: &[u8]) -> Vec<u8> {
        let (offset, size) = (60u64, archive.len() as u64);
        let numbers = [offset, size, offset + size].map(u64::to_le_bytes).concat();
        [&PRAGMA_V2[..], &[0; 16], &numbers, &[0; 9], archive, b"index"].concat()
    }

    #[test]
    fn archive_of_one_block() {
        let archive = hex(ONE_BLOCK);
        let cid: Cid = CID.parse().unwrap();
        let (header, sections) = read(&archive).unwrap();
        assert_eq!(header.roots, [cid]);
        assert_eq!(sections, [Section { cid, data: Bytes::from_static(b"123"), data_offset: 96 }]);
        assert_eq!(sections[0].clone().into_block().unwrap().data(), "123");
        assert_eq!(write(&[cid], &[(cid, b"123".to_vec())]), archive);
    }

    #[test]
    fn every_part_of_an_archive_is_truncated() {
        let archive = hex(ONE_BLOCK);
        for length in 0..archive.len() {
            match read(&archive[..length]) {
                Ok((_, sections)) => assert!(length == HEADER_BYTES && sections.is_empty(), "{length}"),
                Err(CarError::Truncated { end, last_block: None }) => assert_eq!(end, length as u64),
                Err(other) => panic!("{length}: {other}"),
            }
        }
        let error = read(&[&archive[..], &[0xa0]].concat()).unwrap_err();
        assert_eq!(error.to_string(), format!("truncated at byte 100, within what follows block {CID}"));
    }

    #[test]
    fn other_bytes_are_found_when_checked() {
        let mut archive = hex(ONE_BLOCK);
        *archive.last_mut().unwrap() = 0x34;
        let (_, sections) = read(&archive).unwrap();
        let error = sections[0].clone().into_block().unwrap_err();
        assert_eq!(error.to_string(), format!("bytes do not match the hash in {CID}"));
    }

    #[test]
    fn lengths_are_limited_before_anything_is_kept() {
        let huge = hex("ffffffffffffffff7f");
        assert!(matches!(read(&huge), Err(CarError::HeaderTooLong { size_bytes: 0x7fff_ffff_ffff_ffff })));
        let header = &hex(ONE_BLOCK)[..HEADER_BYTES];
        let error = read(&[header, &huge].concat()).unwrap_err();
        assert!(matches!(error, CarError::SectionTooLong { at: 59, size_bytes: 0x7fff_ffff_ffff_ffff }));
        // A CID that declares a digest of 2^31 bytes.
        let section = [&hex("2701551280808080 08".replace(' ', "").as_str())[..], &[0; 40]].concat();
        assert!(matches!(read(&[header, &section].concat()), Err(CarError::SectionCid { at: 59, .. })));
        // Over ten bytes, and not minimal.
        for length in ["ffffffffffffffffffff01", "8000"] {
            assert!(matches!(read(&[header, &hex(length)].concat()), Err(CarError::Length { at: 59 })));
        }
        assert!(matches!(read(&[header, &[0]].concat()), Err(CarError::EmptySection { at: 59 })));
    }

    #[test]
    fn longest_block_is_read_and_a_longer_section_refused() {
        let cid: Cid = CID.parse().unwrap();
        let archive = write(&[cid], &[(cid, vec![0; BLOCK_BYTES_MAX])]);
        assert_eq!(read_in_pieces(&archive, 100_000).unwrap().1[0].data.len(), BLOCK_BYTES_MAX);
        let archive = write(&[cid], &[(cid, vec![0; SECTION_BYTES_MAX])]);
        assert!(matches!(read_in_pieces(&archive, 100_000), Err(CarError::SectionTooLong { .. })));
    }

    #[test]
    fn headers() {
        let check = |header: &str, expected: &str| {
            let header = hex(&header.replace(' ', ""));
            let archive = [&[header.len() as u8][..], &header].concat();
            match read(&archive) {
                Ok((header, _)) => assert_eq!(format!("{} roots", header.roots.len()), expected),
                Err(error) => assert_eq!(error.to_string(), expected),
            }
        };
        let (version, roots) = ("67 76657273696f6e", "65 726f6f7473");
        check(&format!("a2 {roots} 80 {version} 01"), "0 roots");
        check(&format!("a2 {version} 01 {roots} 80"), "0 roots");
        check(&format!("a1 {version} 01"), "malformed header: it has no roots");
        check(&format!("a1 {roots} 80"), "malformed header: it has no version");
        check(&format!("a1 {version} 182a"), "version 42 is not supported");
        check(&format!("a2 {roots} 80 {version} 02"), "malformed header: the first header of a CARv2 has roots");
        check(&format!("a2 {roots} f6 {version} 01"), "malformed header: an item has an unexpected type");
        check(&format!("a2 {version} 01 {version} 01"), "malformed header: a key is unknown or repeated");
        check(&format!("a2 {roots} 9f {version} 01"), "malformed header: an item has no definite length");
        check(&format!("a2 {roots} 80 {version} 1801"), "malformed header: a number is longer than needed");
        check(&format!("a2 {roots} 80 {version} 01 00"), "malformed header: bytes follow it");
        check(&format!("a2 {roots} 9bffffffffffffffff"), "malformed header: an item reaches over its end");
        check(&format!("a2 {roots} 81 d82b 4100 {version} 01"), "malformed header: a root is not a CID");
        check(
            &format!("a2 {roots} 81 d82a 4101 {version} 01"),
            "malformed header: a root does not start with a zero byte",
        );
        check(&format!("a2 {roots} 81 d82a 4100 {version} 01"), "malformed root in the header");
        check("80", "malformed header: an item has an unexpected type");
        check("", "malformed header: an item reaches over its end");
    }

    #[test]
    fn version_2_holds_a_version_1() {
        let archive = hex(ONE_BLOCK);
        let wrapped = wrap(&archive);
        let (header, sections) = read(&wrapped).unwrap();
        assert_eq!(header, read(&archive).unwrap().0);
        assert_eq!(&wrapped[sections[0].data_offset as usize..][..3], b"123");
        // Of the index nothing is needed, of the data everything.
        let data_end = 60 + archive.len();
        for length in 0..wrapped.len() {
            let is_whole = read(&wrapped[..length]).is_ok();
            assert_eq!(is_whole, length >= data_end, "{length}");
        }
    }

    #[test]
    fn version_2_that_lies_is_refused() {
        let archive = hex(ONE_BLOCK);
        let check = |offset: u64, size: u64, expected: &str| {
            let mut wrapped = wrap(&archive);
            wrapped[27..35].copy_from_slice(&offset.to_le_bytes());
            wrapped[35..43].copy_from_slice(&size.to_le_bytes());
            assert_eq!(read(&wrapped).unwrap_err().to_string(), expected);
        };
        check(50, 99, "malformed header: the data of the CARv2 overlaps its header");
        check(60, 0, "malformed header: the data of the CARv2 has an impossible size");
        check(u64::MAX, 1, "malformed header: the data of the CARv2 has an impossible size");
        check(u64::MAX - 1, 1, "truncated at byte 164, within the header or the first block");
        check(60, 98, "section at byte 119 reaches beyond the data of the CARv2");
        check(60, 20, "section at byte 60 reaches beyond the data of the CARv2");
        let twice = wrap(&wrap(&archive));
        assert_eq!(read(&twice).unwrap_err().to_string(), "malformed header: a CARv2 within a CARv2");
    }

    proptest! {
        #[test]
        fn archives_come_back(
            roots: Vec<any_cid::Seed>,
            blocks: Vec<(any_cid::Seed, Vec<u8>)>,
            piece_bytes in 1usize..300,
            places: Vec<(usize, u8)>,
        ) {
            let roots: Vec<Cid> = roots.into_iter().map(any_cid::from_seed).collect();
            let blocks: Vec<_> = blocks.into_iter().map(|(seed, data)| (any_cid::from_seed(seed), data)).collect();
            let archive = write(&roots, &blocks);
            for archive in [&archive, &wrap(&archive)] {
                let (header, sections) = read_in_pieces(archive, piece_bytes).unwrap();
                prop_assert_eq!(&header.roots, &roots);
                for section in &sections {
                    prop_assert_eq!(&archive[section.data_offset as usize..][..section.data.len()], &section.data);
                }
                let found: Vec<_> = sections.into_iter().map(|section| (section.cid, section.data.to_vec())).collect();
                prop_assert_eq!(&found, &blocks);
                let _ = read_in_pieces(&mutate(archive, &places), piece_bytes);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, prefix in 0usize..60) {
            let _ = read(&bytes);
            let _ = read(&[&hex(ONE_BLOCK)[..prefix], &bytes].concat());
        }
    }
}
