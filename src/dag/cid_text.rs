//! CIDs as people type them, and what they have in them by name.

use std::fmt;

use super::block::Cid;
use crate::escape;

/// The multicodec of keys, of which the CIDs are IPNS names (multicodec table: `libp2p-key`).
const CODEC_LIBP2P_KEY: u64 = 0x72;

/// How long a CID of version 0 is in base58, in characters.
const V0_CHARACTERS: usize = 46;

/// How long one of version 1 with a SHA2-256 is in base32, in characters; the first is that of the base.
const V1_CHARACTERS: usize = 59;

/// Why a text is not a CID that content can be found by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidTextError {
    /// There is nothing.
    #[error("there is no CID: one looks like bafy… or Qm…")]
    Empty,
    /// It is an IPNS name, which stands for different content at different times.
    #[error(
        "`{shown}` is an IPNS name, which ww does not resolve yet: `ipfs name resolve {shown}` tells the /ipfs/ path it \
         stands for",
        shown = escape::text(.0)
    )]
    Ipns(String),
    /// It begins as a CID does.
    #[error(
        "`{}` is not a CID, though it begins as one: is it whole? It has {} characters; those that begin with Qm have \
         {V0_CHARACTERS}, and most that begin with baf {V1_CHARACTERS}, in small letters",
        escape::text(.0), .0.chars().count()
    )]
    Damaged(String),
    /// It is something else.
    #[error("`{}` is not a CID: one looks like bafy… or Qm…", escape::text(.0))]
    Other(String),
}

/// Reads a CID that somebody typed.
///
/// # Errors
/// [`CidTextError`], also for the CID of a key: it is well-formed, and no content has it.
pub fn parse_cid_text(text: &str) -> Result<Cid, CidTextError> {
    match text.parse::<Cid>() {
        Ok(cid) if cid.codec() == CODEC_LIBP2P_KEY => Err(CidTextError::Ipns(format!("/ipns/{text}"))),
        Ok(cid) => Ok(cid),
        Err(_) if text.is_empty() => Err(CidTextError::Empty),
        Err(_) if ["Qm", "baf", "BAF"].iter().any(|start| text.starts_with(start)) => {
            Err(CidTextError::Damaged(text.to_owned()))
        }
        Err(_) => Err(CidTextError::Other(text.to_owned())),
    }
}

/// A hash function by its multihash code, for a message: `blake2b-256 (0xb220)`.
pub struct HashName(pub u64);

impl fmt::Display for HashName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_named(formatter, &HASHES, self.0)
    }
}

/// A codec by its multicodec code, for a message: `dag-cbor (0x71)`.
pub struct CodecName(pub u64);

impl fmt::Display for CodecName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_named(formatter, &CODECS, self.0)
    }
}

/// What is met in CIDs (multicodec table, tag `multihash`).
const HASHES: [(u64, &str); 16] = [
    (0x00, "identity"),
    (0x11, "sha1"),
    (0x12, "sha2-256"),
    (0x13, "sha2-512"),
    (0x14, "sha3-512"),
    (0x15, "sha3-384"),
    (0x16, "sha3-256"),
    (0x17, "sha3-224"),
    (0x1b, "keccak-256"),
    (0x1e, "blake3"),
    (0x20, "sha2-384"),
    (0x56, "dbl-sha2-256"),
    (0xd5, "md5"),
    (0xb220, "blake2b-256"),
    (0xb240, "blake2b-512"),
    (0xb260, "blake2s-256"),
];

/// The same of codecs (tags `ipld` and `serialization`).
const CODECS: [(u64, &str); 11] = [
    (0x51, "cbor"),
    (0x55, "raw"),
    (0x70, "dag-pb"),
    (0x71, "dag-cbor"),
    (CODEC_LIBP2P_KEY, "libp2p-key"),
    (0x78, "git-raw"),
    (0x85, "dag-jose"),
    (0x90, "eth-block"),
    (0x129, "dag-json"),
    (0x200, "json"),
    (0x202, "car"),
];

fn write_named(formatter: &mut fmt::Formatter<'_>, names: &[(u64, &str)], code: u64) -> fmt::Result {
    match names.iter().find(|(known, _)| *known == code) {
        Some((_, name)) => write!(formatter, "{name} (0x{code:x})"),
        None => write!(formatter, "0x{code:x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_cid_is_told_from_another() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse_cid_text(text).unwrap_err().to_string(), expected, "{text}");
        };
        check("", "there is no CID: one looks like bafy… or Qm…");
        check("tree", "`tree` is not a CID: one looks like bafy… or Qm…");
        let damaged = "is not a CID, though it begins as one: is it whole? It has 6 characters; those that begin with Qm have \
                       46, and most that begin with baf 59, in small letters";
        check("QmUNLL", &format!("`QmUNLL` {damaged}"));
        check("bafkre", &format!("`bafkre` {damaged}"));
        let key = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8";
        check(
            key,
            &format!(
                "`/ipns/{key}` is an IPNS name, which ww does not resolve yet: `ipfs name resolve /ipns/{key}` tells the \
                 /ipfs/ path it stands for"
            ),
        );
        // Whether what it names can be checked is for others to say.
        parse_cid_text("bafy2bzaced4ueelaegfs5fqu4tzsh6ywbbpfk3cxppupmxfdhbpbhzawfw5oy").unwrap();
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(HashName(0xb220).to_string(), "blake2b-256 (0xb220)");
        assert_eq!(HashName(0xb221).to_string(), "0xb221");
        assert_eq!(CodecName(0x71).to_string(), "dag-cbor (0x71)");
    }
}
