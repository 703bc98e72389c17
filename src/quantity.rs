//! Numbers of bytes and spans of time, as people write them: in flags, variables, manifests and messages.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// The units of [`Bytes`], the largest first.
const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A text that is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not {0}")]
pub struct NoQuantity(&'static str);

/// The number at the start, and the unit after it.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

impl FromStr for Bytes {
    type Err = NoQuantity;

    fn from_str(text: &str) -> Result<Self, NoQuantity> {
        let size = split(text).and_then(|(number, unit)| {
            let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor);
            number.checked_mul(factor.or(unit.is_empty().then_some(1))?)
        });
        size.map(Self).ok_or(NoQuantity("a number of bytes, KiB, MiB, GiB or TiB"))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            UNITS.into_iter().find(|(_, factor)| self.0.is_multiple_of(*factor) && self.0 > 0).unwrap_or(("B", 1));
        write!(formatter, "{}{unit}", self.0 / factor)
    }
}

/// A span of time, in whole milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// The units of [`Span`], the largest first, in milliseconds.
const SPANS: [(&str, u64); 4] = [("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for Span {
    type Err = NoQuantity;

    fn from_str(text: &str) -> Result<Self, NoQuantity> {
        let span = split(text).and_then(|(number, unit)| {
            let factor = SPANS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)?;
            number.checked_mul(factor)
        });
        span.map(|milliseconds| Self(Duration::from_millis(milliseconds)))
            .ok_or(NoQuantity("a time such as 500ms, 10s, 5min or 1h"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (unit, factor) = SPANS
            .into_iter()
            .find(|(_, factor)| milliseconds.is_multiple_of(*factor) && milliseconds > 0)
            .unwrap_or(("ms", 1));
        write!(formatter, "{}{unit}", milliseconds / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expected: u64, shown: &str| {
            let size: Bytes = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (expected, shown), "{text}");
        };
        check("0", 0, "0B");
        check("1023", 1023, "1023B");
        check("1024b", 1024, "1KiB");
        check("1536 MiB", 1536 << 20, "1536MiB");
        check("64gib", 64 << 30, "64GiB");
        for wrong in ["", "MiB", "1.5GiB", "-1", "1XB", "99999999999TiB", "1MB"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn spans() {
        let check = |text: &str, expected: u64, shown: &str| {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.0, span.to_string().as_str()), (Duration::from_millis(expected), shown), "{text}");
        };
        check("500ms", 500, "500ms");
        check("1500 ms", 1500, "1500ms");
        check("10s", 10_000, "10s");
        check("120s", 120_000, "2min");
        check("1h", 3_600_000, "1h");
        check("0s", 0, "0ms");
        for wrong in ["", "10", "s", "1.5s", "-1s", "1d", "10S"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }
}
