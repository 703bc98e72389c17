//! Numbers of bytes as people write them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cli) struct Size(pub(in crate::cli) u64);

/// The units of a [`Size`], the largest first.
const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) =
            text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len()));
        let unit = unit.trim_start();
        let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor);
        let factor = factor.or(unit.is_empty().then_some(1));
        let size = number.parse().ok().zip(factor).and_then(|(number, factor): (u64, u64)| number.checked_mul(factor));
        size.map(Self).ok_or_else(|| "it is not a number of bytes, KiB, MiB, GiB or TiB".into())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            UNITS.into_iter().find(|(_, factor)| self.0.is_multiple_of(*factor) && self.0 > 0).unwrap_or(("B", 1));
        write!(formatter, "{}{unit}", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expected: u64, shown: &str| {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (expected, shown), "{text}");
        };
        check("0", 0, "0B");
        check("1023", 1023, "1023B");
        check("1024b", 1024, "1KiB");
        check("1536 MiB", 1536 << 20, "1536MiB");
        check("64gib", 64 << 30, "64GiB");
        for wrong in ["", "MiB", "1.5GiB", "-1", "1XB", "99999999999TiB", "1MB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
