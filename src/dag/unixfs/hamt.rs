//! Directories as hash array mapped tries (HAMT).
//!
//! The hash of an entry's name, taken from its highest bits down in groups of log2(fanout), says in which bucket it is at
//! each level. A bucket with one entry links to it, a bucket with several to a shard of the next level, which starts with
//! the next group. A link's name is the bucket in uppercase hexadecimal, of as many digits as the highest bucket needs,
//! followed by the name of the entry, or by nothing for a shard.
//!
//! The bit field has bit *i* in byte *i*/8 counted from its end, with value 2^(*i* mod 8), and no zero bytes at its start:
//! a big-endian number. That is what Kubo and all other implementations write (go-bitfield's `Bytes`), against the text
//! of the specification, which describes a little-endian field of full length.

use super::super::block::Block;
use super::super::pb;
use super::entries::{Entries, Place};
use super::murmur3::murmur3_x64_64;
use super::{BuildError, Data, Kind, Profile, Subtree, seal};

/// The multihash code of the hash function of names, which is the only one in use (multicodec table: `murmur3-x64-64`).
pub const HASH_MURMUR3: u64 = 0x22;

/// The most buckets that a shard may have. A number that is not checked made readers allocate or panic
/// (CVE-2023-23625, CVE-2023-23631); boxo has the same limit.
pub const FANOUT_MAX: usize = 1024;

/// The number of buckets of each shard of a HAMT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fanout {
    bits: u32,
}

impl Fanout {
    /// `None` if the number is not a power of two from 8 to [`FANOUT_MAX`].
    pub(super) fn new(buckets: usize) -> Option<Self> {
        let is_allowed = buckets.is_power_of_two() && (8..=FANOUT_MAX).contains(&buckets);
        is_allowed.then(|| Self { bits: buckets.trailing_zeros() })
    }

    pub(super) fn buckets(self) -> usize {
        1 << self.bits
    }

    /// Whether a hash has bits for this level, the root's being 0.
    pub(super) fn reaches(self, level: usize) -> bool {
        level < (u64::BITS / self.bits) as usize
    }

    /// The buckets of all levels down to this one, as one number; `None` where the hash has no bits left.
    pub(super) fn path(self, hash: u64, level: usize) -> Option<u64> {
        self.reaches(level).then(|| hash >> (u64::BITS - (level as u32 + 1) * self.bits))
    }

    /// The path to a bucket of the shard at this path.
    pub(super) fn extend(self, path: u64, bucket: usize) -> u64 {
        path << self.bits | bucket as u64
    }

    /// The bucket at this level; `None` where the hash has no bits left.
    pub(super) fn bucket(self, hash: u64, level: usize) -> Option<usize> {
        self.path(hash, level).map(|path| path as usize & (self.buckets() - 1))
    }

    /// The number of hexadecimal digits of a bucket in a link's name.
    pub(super) fn digits(self) -> usize {
        self.bits.div_ceil(4) as usize
    }
}

/// The hash that decides where an entry of this name is.
pub(super) fn hash_name(name: &str) -> u64 {
    murmur3_x64_64(name.as_bytes())
}

/// Makes the HAMT of these entries, whose names are different. `hashed` has all of them, sorted by the hashes of their names.
pub(super) fn build<E: From<BuildError>>(
    profile: &Profile,
    entries: &Entries,
    hashed: &[(u64, Place)],
    sink: &mut impl FnMut(Block) -> Result<(), E>,
) -> Result<Subtree, E> {
    let fanout = Fanout::new(profile.hamt_fanout).expect("the fanout of a profile is allowed");
    shard(profile, fanout, 0, entries, hashed, sink)
}

/// Makes one shard, of those entries that `hashed` has, and those below it. They are sorted by hash and agree in the bits of the
/// levels above. Recurses at most as deep as a hash has bits.
fn shard<E: From<BuildError>>(
    profile: &Profile,
    fanout: Fanout,
    level: usize,
    entries: &Entries,
    hashed: &[(u64, Place)],
    sink: &mut impl FnMut(Block) -> Result<(), E>,
) -> Result<Subtree, E> {
    let bucket_of = |(hash, _): &(u64, Place)| fanout.bucket(*hash, level);
    let mut children = Vec::new();
    for group in hashed.chunk_by(|first, second| bucket_of(first) == bucket_of(second)) {
        let collision = || BuildError::HashCollision { name: entries.entry_name(group[0].1) };
        let bucket = bucket_of(&group[0]).ok_or_else(collision)?;
        let (name, target) = match group {
            [(_, place)] => (entries.name(*place), entries.target(*place)),
            _ => ("", shard(profile, fanout, level + 1, entries, group, sink)?),
        };
        children.push((bucket, format!("{bucket:0digits$X}{name}", digits = fanout.digits()), target));
    }
    let links = children.iter().map(|(_, name, target)| pb::Link {
        cid: target.cid,
        name: Some(name),
        tsize: Some(target.dag_size),
    });
    let bit_field = encode_bit_field(fanout, children.iter().map(|(bucket, ..)| *bucket));
    let data = Data {
        data: Some(&bit_field),
        hash_type: Some(HASH_MURMUR3),
        fanout: Some(fanout.buckets() as u64),
        ..Data::new(Kind::HamtShard)
    };
    let (block, subtree) = seal(profile, links.collect(), &data)?;
    sink(block)?;
    Ok(subtree)
}

fn encode_bit_field(fanout: Fanout, buckets: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut field = vec![0u8; fanout.buckets() / 8];
    for bucket in buckets {
        let byte = field.len() - 1 - bucket / 8;
        field[byte] |= 1 << (bucket % 8);
    }
    let zeros = field.iter().take_while(|byte| **byte == 0).count();
    field.split_off(zeros)
}

/// The buckets whose bits are set, ascending; `None` if the field is longer than the fanout allows.
pub(super) fn decode_bit_field(fanout: Fanout, field: &[u8]) -> Option<impl Iterator<Item = usize>> {
    let is_set = |bucket: &usize| {
        let byte = field.len().checked_sub(1 + bucket / 8).map_or(0, |index| field[index]);
        byte & 1 << (bucket % 8) != 0
    };
    (field.len() <= fanout.buckets() / 8).then(|| (0..fanout.buckets()).filter(is_set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fanouts_have_limits() {
        let allowed: Vec<_> = (0..5000).filter(|buckets| Fanout::new(*buckets).is_some()).collect();
        assert_eq!(allowed, [8, 16, 32, 64, 128, 256, 512, 1024]);
        assert!(Fanout::new(usize::MAX).is_none());
    }

    #[test]
    fn buckets_are_groups_of_bits_from_the_top() {
        let hash = 0x0123_4567_89ab_cdef;
        let buckets = |fanout: usize| {
            let fanout = Fanout::new(fanout).unwrap();
            (0..).map_while(|level| fanout.bucket(hash, level)).collect::<Vec<_>>()
        };
        assert_eq!(buckets(256), [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        assert_eq!(buckets(16), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(buckets(1024), [4, 564, 345, 905, 687, 222]);
        assert_eq!(Fanout::new(256).unwrap().bucket(hash, usize::MAX), None);
    }

    #[test]
    fn bit_fields_are_big_endian_without_leading_zeros() {
        let check = |buckets: &[usize], expected: &[u8]| {
            let fanout = Fanout::new(256).unwrap();
            assert_eq!(encode_bit_field(fanout, buckets.iter().copied()), expected);
            assert_eq!(decode_bit_field(fanout, expected).unwrap().collect::<Vec<_>>(), buckets);
        };
        check(&[], &[]);
        check(&[0], &[1]);
        check(&[7, 8], &[1, 0x80]);
        check(&[255], &[&[0x80][..], &[0; 31]].concat());
        let fanout = Fanout::new(256).unwrap();
        assert!(decode_bit_field(fanout, &[0; 33]).is_none());
        assert_eq!(decode_bit_field(fanout, &[0, 0, 3]).unwrap().collect::<Vec<_>>(), [0, 1]);
    }
}
