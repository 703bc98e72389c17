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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoQuantity {
    /// It is something else: what it should be, and what was probably meant.
    #[error("it is not {expected}{}", .meant.as_ref().map(|meant| format!("; write {meant}")).unwrap_or_default())]
    Malformed {
        /// What it should be.
        expected: &'static str,
        /// What was probably meant.
        meant: Option<String>,
    },
    /// The number is larger than any.
    #[error("it is too large")]
    TooLarge,
}

/// Other names of units than those that count: what other tools call them.
const BYTE_UNITS_MEANT: [(&str, u64); 8] = [
    ("k", 1 << 10),
    ("kb", 1 << 10),
    ("m", 1 << 20),
    ("mb", 1 << 20),
    ("g", 1 << 30),
    ("gb", 1 << 30),
    ("t", 1 << 40),
    ("tb", 1 << 40),
];
const SPAN_UNITS_MEANT: [(&str, u64); 13] = [
    ("msec", 1),
    ("sec", 1000),
    ("secs", 1000),
    ("second", 1000),
    ("seconds", 1000),
    ("m", 60_000),
    ("mins", 60_000),
    ("minute", 60_000),
    ("minutes", 60_000),
    ("hour", 3_600_000),
    ("hours", 3_600_000),
    ("d", 86_400_000),
    ("days", 86_400_000),
];

/// The number that was meant by one with a fraction, or with a unit that others use.
fn meant<'a>(text: &str, units: impl Iterator<Item = &'a (&'a str, u64)>) -> Option<u64> {
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim();
    let mut units = units;
    let (_, factor) = units.find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    let number = number.parse::<f64>().ok()? * *factor as f64;
    // Exact up to 2^53, which is 8 PiB.
    (number.fract() == 0.0 && number < (1_u64 << 53) as f64).then_some(number as u64)
}

/// Whether there is nothing wrong with a quantity but that its number is too large.
fn is_too_large(text: &str, is_unit: impl Fn(&str) -> bool) -> bool {
    let unit = text.trim_start_matches(|character: char| character.is_ascii_digit());
    text.len() > unit.len() && is_unit(unit.trim_start())
}

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
        size.map(Self).ok_or_else(|| {
            let is_unit = |unit: &str| unit.is_empty() || UNITS.iter().any(|(name, _)| name.eq_ignore_ascii_case(unit));
            if is_too_large(text, is_unit) {
                return NoQuantity::TooLarge;
            }
            let meant = meant(text, UNITS.iter().chain(&BYTE_UNITS_MEANT)).map(|bytes| Self(bytes).to_string());
            NoQuantity::Malformed { expected: "a number of bytes, KiB, MiB, GiB or TiB", meant }
        })
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
        span.map(|milliseconds| Self(Duration::from_millis(milliseconds))).ok_or_else(|| {
            if is_too_large(text, |unit| SPANS.iter().any(|(name, _)| *name == unit)) {
                return NoQuantity::TooLarge;
            }
            let meant = meant(text, SPANS.iter().chain(&SPAN_UNITS_MEANT))
                .map(|milliseconds| Self(Duration::from_millis(milliseconds)).to_string());
            NoQuantity::Malformed { expected: "a time such as 500ms, 10s, 5min or 1h", meant }
        })
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
    fn what_was_meant_is_said() {
        let size = |text: &str| text.parse::<Bytes>().unwrap_err().to_string();
        let of_size = |meant: &str| format!("it is not a number of bytes, KiB, MiB, GiB or TiB{meant}");
        for text in ["64MB", "64M", "64m", "64 mb", "64.0MiB"] {
            assert_eq!(size(text), of_size("; write 64MiB"), "{text}");
        }
        assert_eq!(size("1.5GiB"), of_size("; write 1536MiB"));
        for text in ["lots", "MB", "-1", "1.5.5MiB", "0.3B", "1e9", "inf"] {
            assert_eq!(size(text), of_size(""), "{text}");
        }
        assert_eq!(size("99999999999999999999"), "it is too large");
        assert_eq!(size("99999999999TiB"), "it is too large");
        let span = |text: &str| text.parse::<Span>().unwrap_err().to_string();
        let of_span = |meant: &str| format!("it is not a time such as 500ms, 10s, 5min or 1h{meant}");
        assert_eq!(span("10m"), of_span("; write 10min"));
        assert_eq!(span("1.5h"), of_span("; write 90min"));
        assert_eq!(span("2 days"), of_span("; write 48h"));
        assert_eq!(span("10"), of_span(""));
        assert_eq!(span("99999999999999999999s"), "it is too large");
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
