//! Blocks: bytes with the CID that names them.

use bytes::Bytes;
use cid::Version;
use multihash::Multihash;
use sha2::{Digest, Sha256, Sha512};

use super::cid_text::HashName;

/// A content identifier. Its text form is base58 for version 0 and base32 for version 1.
///
/// It has room for the longest identity digest that UnixFS allows, and for every hash in use.
pub type Cid = cid::CidGeneric<DIGEST_BYTES_MAX>;

/// The longest digest in a CID, in bytes: the limit for identity CIDs (UnixFS specification, "identity" CIDs; Kubo's
/// `verifcid`).
pub const DIGEST_BYTES_MAX: usize = 128;

/// The longest block, in bytes. Bitswap peers and `dag import` of Kubo refuse longer ones (Kubo 0.40 and later).
pub const BLOCK_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The multicodec of blocks that are plain bytes (multicodec table: `raw`).
pub const CODEC_RAW: u64 = 0x55;

/// The multicodec of blocks that are dag-pb nodes (multicodec table: `dag-pb`).
pub const CODEC_DAG_PB: u64 = 0x70;

/// The multihash code of SHA2-256 (multicodec table: `sha2-256`).
pub const HASH_SHA2_256: u64 = 0x12;

/// The multihash code of SHA2-512 (multicodec table: `sha2-512`). Only read, never written.
pub const HASH_SHA2_512: u64 = 0x13;

/// The multihash code of a digest that is the content itself (multicodec table: `identity`).
pub const HASH_IDENTITY: u64 = 0x00;

/// Why bytes are not the block that a CID names.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The block is longer than [`BLOCK_BYTES_MAX`].
    #[error("block of {size_bytes} bytes is over the limit of {BLOCK_BYTES_MAX}")]
    TooLong {
        /// Its length.
        size_bytes: usize,
    },
    /// The bytes have another hash than the CID says.
    #[error("bytes do not match the hash in {cid}")]
    HashMismatch {
        /// The CID that was asked for.
        cid: Box<Cid>,
    },
    /// The CID has a hash function that is not supported, so nothing can be checked against it.
    #[error("hash function {} of {cid} is not supported", HashName(*.hash))]
    UnsupportedHash {
        /// The CID.
        cid: Box<Cid>,
        /// Its multihash code.
        hash: u64,
    },
    /// Bytes that should be a CID are none.
    #[error("malformed CID")]
    MalformedCid(#[source] cid::Error),
    /// There are bytes after a CID.
    #[error("{extra_bytes} bytes follow a CID")]
    BytesAfterCid {
        /// How many.
        extra_bytes: usize,
    },
}

/// Bytes and the CID that names them.
///
/// Who holds one knows that the bytes hash to the CID and are no longer than [`BLOCK_BYTES_MAX`]; not that they are
/// well-formed in the CID's codec. Clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    cid: Cid,
    data: Bytes,
}

impl Block {
    /// Checks `data` against `cid`.
    ///
    /// # Errors
    /// If the data is too long or has another hash, or if the hash function is none of SHA2-256, SHA2-512 and identity.
    pub fn new(cid: Cid, data: Bytes) -> Result<Self, BlockError> {
        check_length(&data)?;
        let matches = match cid.hash().code() {
            HASH_SHA2_256 => cid.hash().digest() == Sha256::digest(&data).as_slice(),
            HASH_SHA2_512 => cid.hash().digest() == Sha512::digest(&data).as_slice(),
            HASH_IDENTITY => cid.hash().digest() == data,
            hash => return Err(BlockError::UnsupportedHash { cid: Box::new(cid), hash }),
        };
        if matches { Ok(Self { cid, data }) } else { Err(BlockError::HashMismatch { cid: Box::new(cid) }) }
    }

    /// Names `data` by its SHA2-256.
    ///
    /// # Errors
    /// If the data is too long, or for version 0 with another codec than dag-pb.
    pub fn seal(version: Version, codec: u64, data: Bytes) -> Result<Self, BlockError> {
        check_length(&data)?;
        let hash = Multihash::wrap(HASH_SHA2_256, &Sha256::digest(&data)).expect("a digest of 32 bytes fits");
        let cid = Cid::new(version, codec, hash).map_err(BlockError::MalformedCid)?;
        Ok(Self { cid, data })
    }

    /// The block that an identity CID holds in itself; `None` for other CIDs. Stores do not keep such blocks.
    pub fn from_identity(cid: &Cid) -> Option<Self> {
        let is_identity = cid.hash().code() == HASH_IDENTITY;
        is_identity.then(|| Self { cid: *cid, data: Bytes::copy_from_slice(cid.hash().digest()) })
    }

    /// Its name.
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    /// Its bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
}

fn check_length(data: &[u8]) -> Result<(), BlockError> {
    if data.len() > BLOCK_BYTES_MAX { Err(BlockError::TooLong { size_bytes: data.len() }) } else { Ok(()) }
}

/// Reads the CID at the start of `bytes`; gives it and what follows.
///
/// # Errors
/// If there is no well-formed CID, or one with a digest longer than [`DIGEST_BYTES_MAX`].
pub fn split_cid(bytes: &[u8]) -> Result<(Cid, &[u8]), BlockError> {
    let mut rest = bytes;
    let cid = Cid::read_bytes(&mut rest).map_err(BlockError::MalformedCid)?;
    Ok((cid, rest))
}

/// Reads a CID that is all of `bytes`.
///
/// # Errors
/// As [`split_cid`], and if anything follows.
pub fn parse_cid(bytes: &[u8]) -> Result<Cid, BlockError> {
    match split_cid(bytes)? {
        (cid, []) => Ok(cid),
        (_, rest) => Err(BlockError::BytesAfterCid { extra_bytes: rest.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // printf hello\ world | ipfs add -Q --cid-version=1
    const HELLO_WORLD: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";

    fn cid(text: &str) -> Cid {
        text.parse().unwrap()
    }

    #[test]
    fn sealed_blocks_have_the_known_cid() {
        let block = Block::seal(Version::V1, CODEC_RAW, Bytes::from_static(b"hello world")).unwrap();
        assert_eq!(block.cid().to_string(), HELLO_WORLD);
        assert_eq!(Block::new(*block.cid(), block.data().clone()).unwrap(), block);
    }

    #[test]
    fn other_bytes_are_refused() {
        let error = Block::new(cid(HELLO_WORLD), Bytes::from_static(b"hello World")).unwrap_err();
        assert_eq!(error.to_string(), format!("bytes do not match the hash in {HELLO_WORLD}"));
    }

    #[test]
    fn truncated_digests_are_refused() {
        let digest = Sha256::digest(b"x");
        let short = Cid::new_v1(CODEC_RAW, Multihash::wrap(HASH_SHA2_256, &digest[..20]).unwrap());
        assert!(matches!(Block::new(short, Bytes::from_static(b"x")), Err(BlockError::HashMismatch { .. })));
    }

    #[test]
    fn limits_hold() {
        let longest = Bytes::from(vec![0; BLOCK_BYTES_MAX]);
        let block = Block::seal(Version::V1, CODEC_RAW, longest).unwrap();
        let longer = Bytes::from(vec![0; BLOCK_BYTES_MAX + 1]);
        assert!(matches!(Block::new(*block.cid(), longer.clone()), Err(BlockError::TooLong { .. })));
        assert!(matches!(Block::seal(Version::V1, CODEC_RAW, longer), Err(BlockError::TooLong { .. })));
    }

    #[test]
    fn version_0_names_dag_pb_only() {
        assert!(Block::seal(Version::V0, CODEC_RAW, Bytes::new()).is_err());
        assert!(Block::seal(Version::V0, CODEC_DAG_PB, Bytes::new()).is_ok());
    }

    #[test]
    fn identity_cids_hold_their_block() {
        // The probe of trustless gateways: raw, identity, empty.
        let empty = Block::from_identity(&cid("bafkqaaa")).unwrap();
        assert!(empty.data().is_empty());
        assert!(Block::from_identity(&cid(HELLO_WORLD)).is_none());
        assert!(Block::new(cid("bafkqaaa"), Bytes::from_static(b"x")).is_err());
    }

    #[test]
    fn identity_digests_end_at_128_bytes() {
        let bytes = |length: usize| {
            let mut bytes = vec![1, 0x55, 0, 0x80 | (length & 0x7f) as u8, (length >> 7) as u8];
            bytes.resize(bytes.len() + length, b'a');
            bytes
        };
        assert_eq!(parse_cid(&bytes(128)).unwrap().hash().digest().len(), 128);
        assert!(matches!(parse_cid(&bytes(129)), Err(BlockError::MalformedCid(_))));
    }

    #[test]
    fn sha2_512_is_checked() {
        let digest = Sha512::digest(b"x");
        let cid = Cid::new_v1(CODEC_RAW, Multihash::wrap(HASH_SHA2_512, &digest).unwrap());
        assert!(Block::new(cid, Bytes::from_static(b"x")).is_ok());
        assert!(matches!(Block::new(cid, Bytes::from_static(b"y")), Err(BlockError::HashMismatch { .. })));
    }

    #[test]
    fn hash_functions_that_are_not_known_are_said() {
        // blake2b-256
        let hash = Multihash::wrap(0xb220, &[7; 32]).unwrap();
        let error = Block::new(Cid::new_v1(CODEC_RAW, hash), Bytes::new()).unwrap_err();
        assert!(matches!(error, BlockError::UnsupportedHash { hash: 0xb220, .. }));
    }

    #[test]
    fn nothing_follows_a_cid() {
        let mut bytes = cid(HELLO_WORLD).to_bytes();
        assert_eq!(parse_cid(&bytes).unwrap(), cid(HELLO_WORLD));
        bytes.push(0);
        assert!(matches!(parse_cid(&bytes), Err(BlockError::BytesAfterCid { extra_bytes: 1 })));
        assert!(parse_cid(&[]).is_err());
    }
}
