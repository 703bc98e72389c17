//! The hash function of HAMTs.

/// The first half of MurmurHash3's `x64_128` with seed 0 (multicodec table: `murmur3-x64-64`).
///
/// <https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp>. It is not cryptographic: anyone can make names
/// with equal hashes.
pub(super) fn murmur3_x64_64(bytes: &[u8]) -> u64 {
    let (mut low, mut high) = (0u64, 0u64);
    let (blocks, tail) = bytes.as_chunks::<16>();
    for block in blocks {
        let (first, second) = words(block);
        low ^= mix_first(first);
        low = low.rotate_left(27).wrapping_add(high).wrapping_mul(5).wrapping_add(0x52dc_e729);
        high ^= mix_second(second);
        high = high.rotate_left(31).wrapping_add(low).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let mut padded = [0; 16];
    padded[..tail.len()].copy_from_slice(tail);
    let (first, second) = words(&padded);
    low ^= mix_first(first);
    high ^= mix_second(second);

    low ^= bytes.len() as u64;
    high ^= bytes.len() as u64;
    low = low.wrapping_add(high);
    high = high.wrapping_add(low);
    finish(low).wrapping_add(finish(high))
}

fn words(block: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*block);
    (both as u64, (both >> 64) as u64)
}

const FACTOR_FIRST: u64 = 0x87c3_7b91_1142_53d5;
const FACTOR_SECOND: u64 = 0x4cf5_ad43_2745_937f;

fn mix_first(word: u64) -> u64 {
    word.wrapping_mul(FACTOR_FIRST).rotate_left(31).wrapping_mul(FACTOR_SECOND)
}

fn mix_second(word: u64) -> u64 {
    word.wrapping_mul(FACTOR_SECOND).rotate_left(33).wrapping_mul(FACTOR_FIRST)
}

fn finish(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of github.com/spaolacci/murmur3, which Kubo uses.
    #[test]
    fn known_hashes() {
        let check = |text: &str, expected| assert_eq!(murmur3_x64_64(text.as_bytes()), expected, "{text}");
        check("", 0);
        check("hello", 0xcbd8_a7b3_41bd_9b02);
        check("hello, world", 0x342f_ac62_3a5e_bc8e);
        check("19 Jan 2038 at 3:14:07 AM", 0xb89e_5988_b737_affc);
        check("The quick brown fox jumps over the lazy dog.", 0xcd99_481f_9ee9_02c9);
    }
}
