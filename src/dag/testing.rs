//! What the tests of the codecs share.

use std::io::Write;

use super::block::Cid;

/// The value of a variable for tests.
#[expect(clippy::disallowed_methods, reason = "only the environment of a test can tell what it may use")]
pub(super) fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

/// Says that a test was skipped, past the harness, which would hide it. A word of the variable `WW_REQUIRE` that is `what`
/// makes it a failure.
pub(super) fn skipped(what: &str, why: &str) {
    let required = variable("WW_REQUIRE").unwrap_or_default();
    let is_required = required.to_string_lossy().split_whitespace().any(|word| word == what);
    assert!(!is_required, "WW_REQUIRE has `{what}`, but {why}");
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
}

/// Whether tests that take long are to run. If not, this one is said to be skipped.
pub(super) fn is_slow_wanted() -> bool {
    let is_wanted = variable("WW_SLOW").is_some();
    if !is_wanted {
        skipped("slow", "it takes long, and WW_SLOW is not set");
    }
    is_wanted
}

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
