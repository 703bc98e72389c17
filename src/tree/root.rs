//! Roots of files, folders and symlinks in little memory: there may be a million of them.

use multihash::Multihash;

use crate::dag::block::{CODEC_DAG_PB, CODEC_RAW, HASH_SHA2_256};
use crate::dag::unixfs::Subtree;
use crate::dag::{Cid, Version};

/// The length of a SHA2-256, in bytes.
pub(super) const DIGEST_BYTES: usize = 32;

/// A [`Subtree`], as the profiles that there are make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) form: CidForm,
    /// The SHA2-256.
    pub(super) digest: [u8; DIGEST_BYTES],
    pub(super) dag_size: u64,
}

/// What a CID has beside its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CidForm {
    Raw = 0,
    DagPbV0 = 1,
    DagPbV1 = 2,
}

impl Root {
    /// `None` if the CID is of a form that no profile makes.
    pub(super) fn new(subtree: &Subtree) -> Option<Self> {
        let form = match (subtree.cid.version(), subtree.cid.codec()) {
            (Version::V1, CODEC_RAW) => CidForm::Raw,
            (Version::V0, CODEC_DAG_PB) => CidForm::DagPbV0,
            (Version::V1, CODEC_DAG_PB) => CidForm::DagPbV1,
            _ => return None,
        };
        let hash = subtree.cid.hash();
        let digest = hash.digest().try_into().ok().filter(|_| hash.code() == HASH_SHA2_256)?;
        Some(Self { form, digest, dag_size: subtree.dag_size })
    }

    pub(super) fn subtree(&self) -> Subtree {
        let hash = Multihash::wrap(HASH_SHA2_256, &self.digest).expect("a digest of 32 bytes fits");
        let cid = match self.form {
            CidForm::Raw => Cid::new_v1(CODEC_RAW, hash),
            CidForm::DagPbV0 => Cid::new_v0(hash).expect("the hash is SHA2-256"),
            CidForm::DagPbV1 => Cid::new_v1(CODEC_DAG_PB, hash),
        };
        Subtree { cid, dag_size: self.dag_size }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::dag::Block;

    #[test]
    fn roots_come_back() {
        for version in [Version::V0, Version::V1] {
            for codec in [CODEC_RAW, CODEC_DAG_PB] {
                let Ok(block) = Block::seal(version, codec, Bytes::from_static(b"x")) else { continue };
                let subtree = Subtree { cid: *block.cid(), dag_size: u64::MAX };
                assert_eq!(Root::new(&subtree).unwrap().subtree(), subtree);
            }
        }
        let identity = "bafkqaaa".parse().unwrap();
        assert!(Root::new(&Subtree { cid: identity, dag_size: 0 }).is_none());
    }

    #[test]
    fn roots_are_small() {
        assert!(size_of::<Root>() <= 48 && size_of::<Root>() < size_of::<Subtree>() / 2);
    }
}
