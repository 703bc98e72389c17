//! What blocks are kept by.

use multihash::Multihash;

use crate::dag::Cid;
use crate::dag::block::{CODEC_DAG_PB, HASH_SHA2_256, HASH_SHA2_512};

/// The digest in a CID. Its length tells the hash function, since only two are supported and never truncated.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// SHA2-256.
    Short([u8; 32]),
    /// SHA2-512. In a box, for there may be millions of keys and hardly one of these.
    Long(Box<[u8; 64]>),
}

impl Key {
    /// The key of a CID; `None` if its hash is none that a store keeps blocks of.
    pub(super) fn new(cid: &Cid) -> Option<Self> {
        let digest = cid.hash().digest();
        match (cid.hash().code(), digest.len()) {
            (HASH_SHA2_256, 32) | (HASH_SHA2_512, 64) => Self::of_digest(digest),
            _ => None,
        }
    }

    /// The key of a digest; `None` if it has the length of none.
    pub(super) fn of_digest(digest: &[u8]) -> Option<Self> {
        let short = digest.try_into().ok().map(Self::Short);
        short.or_else(|| digest.try_into().ok().map(|digest| Self::Long(Box::new(digest))))
    }

    /// The digest, by which the index has the block.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(digest) => digest,
            Self::Long(digest) => &digest[..],
        }
    }

    /// A CID of the block, as a dag-pb node.
    pub(super) fn to_node_cid(&self) -> Cid {
        let code = match self {
            Self::Short(_) => HASH_SHA2_256,
            Self::Long(_) => HASH_SHA2_512,
        };
        Cid::new_v1(CODEC_DAG_PB, Multihash::wrap(code, self.as_bytes()).expect("64 bytes fit"))
    }
}
