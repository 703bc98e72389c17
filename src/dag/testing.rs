//! What the tests of the codecs share.

use super::block::Cid;

/// CIDs of all kinds that links have, made from what proptest can make.
pub(super) mod any_cid {
    use super::Cid;
    use multihash::Multihash;

    /// Kind, digest.
    pub(in crate::dag) type Seed = (u8, [u8; 32]);

    pub(in crate::dag) fn from_seed((kind, digest): Seed) -> Cid {
        let sha2_256 = Multihash::wrap(0x12, &digest).unwrap();
        match kind % 4 {
            0 => Cid::new_v0(sha2_256).unwrap(),
            1 => Cid::new_v1(0x55, sha2_256),
            2 => Cid::new_v1(0x70, sha2_256),
            _ => Cid::new_v1(0x55, Multihash::wrap(0, &digest[..usize::from(kind % 32)]).unwrap()),
        }
    }
}

/// The bytes with some of them replaced, at places modulo their length.
pub(super) fn mutate(bytes: &[u8], places: &[(usize, u8)]) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    for (place, byte) in places {
        if !mutated.is_empty() {
            let index = place % mutated.len();
            mutated[index] = *byte;
        }
    }
    mutated
}

/// Bytes from hexadecimal digits.
pub(super) fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "an odd number of digits: {text}");
    (0..text.len()).step_by(2).map(|index| u8::from_str_radix(&text[index..index + 2], 16).unwrap()).collect()
}
