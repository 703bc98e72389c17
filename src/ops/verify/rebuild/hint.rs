//! What bytes that differ between two builds may come from.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::section::Place;

/// Bytes that are looked at before and after the first that differs.
const BEFORE_BYTES: usize = 512;
const AFTER_BYTES: usize = 4096;

/// Bytes around the first that differs in which a time is looked for.
const TIME_BYTES: usize = 64;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// What was not the same for both builds.
#[derive(Clone, Debug)]
pub(super) struct Traces {
    /// Folders, with what they are called in a hint.
    pub(super) folders: Vec<(&'static str, PathBuf)>,
    /// When the build began and ended, in seconds since 1970.
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// What the difference may come from, to stand as a sentence of its own.
pub(super) fn hint(bytes: [&[u8]; 2], place: &Place, traces: [&Traces; 2]) -> String {
    let window = |side: usize, before: usize, after: usize| {
        let (body, offset) = (&place.bodies[side], place.offsets[side]);
        let start = offset.saturating_sub(before).max(body.start);
        &bytes[side][start..offset.saturating_add(after).min(body.end).max(start)]
    };
    let near = [0, 1].map(|side| window(side, BEFORE_BYTES, AFTER_BYTES));
    if let Some(what) = folder_in(near, traces) {
        return format!("it contains the path of {what}");
    }
    if [0, 1].into_iter().all(|side| has_time(window(side, TIME_BYTES, TIME_BYTES), traces[side])) {
        return "it contains the time".to_owned();
    }
    // Where a text is longer, what comes before it in the file differs by its length.
    if let Some(what) = folder_in(bytes, traces) {
        return format!("elsewhere it contains the path of {what}");
    }
    let bodies = [0, 1].map(|side| &bytes[side][place.bodies[side].clone()]);
    if histogram(bodies[0]) == histogram(bodies[1]) {
        return "these are the same bytes in another order: is it that of a hash map, of a folder's files, or of threads?"
            .to_owned();
    }
    "neither a path of the build nor its time is there: is it a random number, or something that follows from one of \
     these, such as a digest?"
        .to_owned()
}

/// The folder whose path both have, each its own.
fn folder_in(bytes: [&[u8]; 2], traces: [&Traces; 2]) -> Option<&'static str> {
    let is_in = |side: usize, index: usize| {
        let folder = traces[side].folders.get(index).map(|(_, folder)| folder.as_os_str().as_bytes());
        folder.is_some_and(|folder| memchr::memmem::find(bytes[side], folder).is_some())
    };
    let mut folders = traces[0].folders.iter().enumerate();
    folders.find(|(index, _)| is_in(0, *index) && is_in(1, *index)).map(|(_, (what, _))| *what)
}

/// How often each byte occurs.
fn histogram(bytes: &[u8]) -> [usize; 256] {
    bytes.iter().fold([0; 256], |mut counts, byte| {
        counts[usize::from(*byte)] += 1;
        counts
    })
}

/// Whether bytes have a time of the build in them: as a number in decimal digits or in binary, in seconds or in fractions
/// of them, or as a date.
fn has_time(bytes: &[u8], traces: &Traces) -> bool {
    let is_time = |seconds: u64| (traces.begin.saturating_sub(1)..=traces.end + 1).contains(&seconds);
    let is_in_fractions = |value: u64| [1, 1_000, 1_000_000, 1_000_000_000].iter().any(|unit| is_time(value / unit));
    let is_digits = |digits: &[u8]| {
        let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        text.and_then(|text| text.parse().ok()).is_some_and(is_time)
    };
    let dates = [traces.begin, traces.end].map(|seconds| date(seconds / DAY));
    bytes.windows(10).any(|digits| is_digits(digits) || dates.iter().any(|date| date.as_bytes() == digits))
        || bytes.windows(8).filter_map(<[u8]>::first_chunk).any(|chunk| is_in_fractions(u64::from_le_bytes(*chunk)))
        || bytes.windows(4).filter_map(<[u8]>::first_chunk).any(|chunk| is_time(u32::from_le_bytes(*chunk).into()))
}

/// `2026-01-31`, of a number of days since 1970.
fn date(mut days: u64) -> String {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while month < 11 && days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::verify::rebuild::section::first_difference;

    #[track_caller]
    fn check(one: &[u8], other: &[u8], expected: &str) {
        let traces = |folder: &str, begin: u64| Traces {
            folders: vec![("the folder that it was built in", folder.into())],
            begin,
            end: begin + 10,
        };
        let traces = [traces("/tmp/x/a/p", 1_780_000_000), traces("/tmp/x/longer/p", 1_780_000_020)];
        let place = first_difference(one, other).unwrap();
        let hint = hint([one, other], &place, [&traces[0], &traces[1]]);
        assert!(hint.contains(expected), "{hint}");
    }

    #[test]
    fn causes_are_told() {
        check(b"built in /tmp/x/a/p.", b"built in /tmp/x/longer/p.", "the path of the folder that it was built in");
        check(b"at 1780000003", b"at 1780000025", "the time");
        check(b"at 1780000003123", b"at 1780000025456", "the time");
        let binary = |seconds: u32| [b"at ", &seconds.to_le_bytes()[..]].concat();
        check(&binary(1_780_000_003), &binary(1_780_000_025), "the time");
        let binary = |millis: u64| [b"at ", &millis.to_le_bytes()[..]].concat();
        check(&binary(1_780_000_003_999), &binary(1_780_000_025_001), "the time");
        check(b"one, two", b"two, one", "in another order");
        check(b"7c11", b"9d2f", "a random number");
        check(b"at 1580000003", b"at 1780000025", "a random number");
        check(b"", b"x", "a random number");
    }

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(date(19_722), "2023-12-31");
        assert_eq!(date(20_544), "2026-04-01");
    }
}
