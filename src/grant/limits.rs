//! How much a cell may use up.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::quantity::{Bytes, NoQuantity, Span};

/// What is limited. The order is that of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// All its memories and tables together.
    Memory,
    /// How long it computes.
    CpuTime,
    /// How long it lives.
    WallTime,
    /// How many children it has at once, with theirs.
    Children,
    /// How many generations of children are below it.
    Depth,
    /// Open files, directories, streams, and what it waits for.
    Handles,
    /// What each of its standard streams holds.
    Stdio,
    /// RPC calls without an answer.
    Calls,
    /// The parameters of these calls together.
    CallBytes,
    /// One RPC message.
    Message,
    /// A program that it starts.
    Wasm,
    /// What it and its children keep in `/tmp`.
    Tmp,
    /// What comes over the network since it, or one of its children, asks for content.
    Fetched,
}

/// The value of a limit, in the unit that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitValue {
    /// A number of things.
    Count(u64),
    /// A number of bytes.
    Bytes(Bytes),
    /// A span of time.
    Time(Span),
}

/// A kind of limit, as the table has it.
struct Row {
    limit: Limit,
    name: &'static str,
    what: &'static str,
    /// `None` is no limit.
    default: Option<LimitValue>,
    /// The least that makes sense and the most that the host can do.
    range: (u64, u64),
}

const MIB: u64 = 1 << 20;

/// A limit in bytes.
const fn bytes(limit: Limit, name: &'static str, what: &'static str, default: u64, range: (u64, u64)) -> Row {
    Row { limit, name, what, default: Some(LimitValue::Bytes(Bytes(default))), range }
}

/// A limit of numbers.
const fn count(limit: Limit, name: &'static str, what: &'static str, default: u64, range: (u64, u64)) -> Row {
    Row { limit, name, what, default: Some(LimitValue::Count(default)), range }
}

/// A limit of time, in milliseconds, of which there is none by default.
const fn time(limit: Limit, name: &'static str, what: &'static str) -> Row {
    Row { limit, name, what, default: None, range: (1, u64::MAX) }
}

/// All limits, in the order of [`Limit`].
const TABLE: [Row; 13] = [
    bytes(
        Limit::Memory,
        "memory",
        "all its memories and tables, and what is kept for it",
        1024 * MIB,
        (64 * 1024, 64 * 1024 * MIB),
    ),
    time(Limit::CpuTime, "cpu-time", "how long it computes"),
    time(Limit::WallTime, "wall-time", "how long it lives"),
    count(Limit::Children, "children", "children at once, with theirs", 256, (0, 100_000)),
    count(Limit::Depth, "depth", "generations of children below it", 8, (0, 64)),
    count(Limit::Handles, "handles", "open files, streams, and what it waits for", 4096, (16, 1_000_000)),
    // The default is that of a pipe on Linux. Less than a page makes each piece of output wait for its reader, and beyond
    // some MiB nothing gets faster; a cell with its children can have three such pipes for each of them.
    bytes(Limit::Stdio, "stdio", "what each of its standard streams holds", 64 * 1024, (4 * 1024, 16 * MIB)),
    count(Limit::Calls, "calls", "RPC calls without an answer", 16 * 1024, (1, 1_000_000)),
    bytes(Limit::CallBytes, "call-bytes", "the parameters of these calls", 256 * MIB, (64 * 1024, 4096 * MIB)),
    bytes(Limit::Message, "message", "one RPC message", 64 * MIB, (64 * 1024, 512 * MIB)),
    bytes(Limit::Wasm, "wasm", "a program that it starts", 64 * MIB, (1024, 512 * MIB)),
    bytes(Limit::Tmp, "tmp", "what it keeps in /tmp", 64 * MIB, (0, 64 * 1024 * MIB)),
    // Enough for all of a large image, and less than what the blockstore keeps of all that was ever fetched.
    bytes(Limit::Fetched, "fetched", "content that is fetched for it", 4096 * MIB, (0, 1024 * 1024 * MIB)),
];

/// Why a limit cannot be set so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// There is no limit of this name.
    #[error(
        "`{}` is no limit; {}",
        crate::escape::short(.name),
        super::meant_or(.name, &TABLE.map(|row| row.name), &limit_names())
    )]
    Unknown {
        /// The name.
        name: String,
    },
    /// The value is not of the limit's unit.
    #[error("`{}` is no value for the limit {limit}: {reason}", crate::escape::short(.value))]
    Value {
        /// The limit.
        limit: Limit,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The text has no `=`.
    #[error("`{}` is not of the form NAME=VALUE", crate::escape::short(.text))]
    Form {
        /// The text.
        text: String,
    },
    /// A child is to have more than its parent.
    #[error("a child cannot have the limit {limit} of {asked}, since its parent has {most}")]
    MoreThanParent {
        /// The limit.
        limit: Limit,
        /// What the child was to have.
        asked: LimitValue,
        /// What its parent has.
        most: LimitValue,
    },
}

/// The names of all limits, as a list.
pub fn limit_names() -> String {
    TABLE.map(|row| row.name).join(", ")
}

impl Limit {
    /// All of them, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.limit)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Its name in flags and in `etc/cell.toml`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What it limits, as a fragment.
    pub fn what(self) -> &'static str {
        self.row().what
    }

    /// Its value where none is set; `None` is no limit.
    pub fn default_value(self) -> Option<LimitValue> {
        self.row().default
    }

    /// The least and the most that it can be set to, where there are bounds; a time can be [`LimitValue::NO_LIMIT`] as well.
    pub fn range(self) -> Option<(LimitValue, LimitValue)> {
        let (least, most) = self.row().range;
        self.default_value().map(|value| (value.with_number(least), value.with_number(most)))
    }

    /// Reads a value in the limit's unit; a time can be `none`.
    ///
    /// # Errors
    /// If it is malformed or out of range.
    pub fn parse_value(self, text: &str) -> Result<LimitValue, LimitError> {
        let wrong = |reason: String| LimitError::Value { limit: self, value: text.to_owned(), reason };
        let value = match self.default_value() {
            None if text == LimitValue::NO_LIMIT_NAME => LimitValue::NO_LIMIT,
            None => LimitValue::Time(text.parse().map_err(|error: NoQuantity| wrong(error.to_string()))?),
            Some(LimitValue::Bytes(_)) => {
                LimitValue::Bytes(text.parse().map_err(|error: NoQuantity| wrong(error.to_string()))?)
            }
            Some(_) => LimitValue::Count(text.parse().map_err(|_| {
                let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                wrong(if is_number { "it is too large" } else { "it is not a number" }.into())
            })?),
        };
        let (least, most) = self.row().range;
        if (least..=most).contains(&value.number()) {
            return Ok(value);
        }
        let (least, most) = (value.with_number(least), value.with_number(most));
        Err(wrong(if value < least { format!("it is less than {least}") } else { format!("it is more than {most}") }))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(name: &str) -> Result<Self, LimitError> {
        let found = TABLE.iter().find(|row| row.name == name);
        found.map(|row| row.limit).ok_or_else(|| LimitError::Unknown { name: name.to_owned() })
    }
}

impl LimitValue {
    /// That of a time that is not limited, whatever is asked for.
    pub const NO_LIMIT: Self = Self::Time(Span(Duration::MAX));

    /// What that is called in flags and files.
    const NO_LIMIT_NAME: &'static str = "none";

    /// The bare number: bytes, milliseconds, or how many.
    pub fn number(self) -> u64 {
        match self {
            Self::Count(count) => count,
            Self::Bytes(bytes) => bytes.0,
            Self::Time(span) => u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn with_number(self, number: u64) -> Self {
        match self {
            Self::Count(_) => Self::Count(number),
            Self::Bytes(_) => Self::Bytes(Bytes(number)),
            Self::Time(_) => Self::Time(Span(Duration::from_millis(number))),
        }
    }
}

impl fmt::Display for LimitValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(formatter),
            Self::Bytes(bytes) => bytes.fmt(formatter),
            _ if *self == Self::NO_LIMIT => formatter.write_str(Self::NO_LIMIT_NAME),
            Self::Time(span) => span.fmt(formatter),
        }
    }
}

/// The limits of one cell. Those that were not set have their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits(BTreeMap<Limit, LimitValue>);

impl Limits {
    /// Sets a limit; the last of a kind counts.
    pub fn set(&mut self, limit: Limit, value: LimitValue) {
        self.0.insert(limit, value);
    }

    /// The value of a limit as a bare number; `None` is no limit.
    pub fn number(&self, limit: Limit) -> Option<u64> {
        self.value(limit).map(LimitValue::number)
    }

    /// As [`Limits::number`], for those that always have a value, as a size in memory.
    pub fn size(&self, limit: Limit) -> usize {
        self.number(limit).and_then(|number| usize::try_from(number).ok()).unwrap_or(usize::MAX)
    }

    /// As [`Limits::number`], as a span of time.
    pub fn time(&self, limit: Limit) -> Option<Duration> {
        self.number(limit).map(Duration::from_millis)
    }

    /// The value of a limit; `None` is no limit.
    pub fn value(&self, limit: Limit) -> Option<LimitValue> {
        let value = self.0.get(&limit).copied().or_else(|| limit.default_value());
        value.filter(|value| *value != LimitValue::NO_LIMIT)
    }

    /// Those that were set, in the order of the documentation.
    pub fn set_values(&self) -> impl Iterator<Item = (Limit, LimitValue)> {
        self.0.iter().map(|(limit, value)| (*limit, *value))
    }

    /// What a cell gets that asks for these where `given` is what its user says: what the user says, and else what it asks
    /// for, but no more than the default. The second is what it asked for and does not get.
    pub fn grant(&self, given: &Self) -> (Self, Vec<(Limit, LimitValue)>) {
        let mut granted = given.clone();
        let mut refused = Vec::new();
        for (limit, asked) in self.set_values() {
            let most = given.value(limit);
            if most.is_some_and(|most| asked > most) {
                refused.push((limit, asked));
            } else if !given.0.contains_key(&limit) {
                granted.set(limit, asked);
            }
        }
        (granted, refused)
    }

    /// The limits of a child for which `asked` are set, where these are its parent's. Those that are not set are the
    /// parent's.
    ///
    /// # Errors
    /// If one is more than the parent has.
    pub fn of_child(&self, asked: &Self) -> Result<Self, LimitError> {
        let mut limits = self.clone();
        for (limit, asked) in asked.set_values() {
            match self.value(limit) {
                Some(most) if asked > most => return Err(LimitError::MoreThanParent { limit, asked, most }),
                _ => limits.set(limit, asked),
            }
        }
        Ok(limits)
    }
}

impl Limits {
    /// Lowers those that an image asks to be lower than they are, where nobody has `set` them.
    pub fn lower(&mut self, asked: &Self, set: &Self) {
        for (limit, asked) in asked.set_values() {
            if !set.0.contains_key(&limit) && self.value(limit).is_none_or(|most| asked < most) {
                self.set(limit, asked);
            }
        }
    }
}

/// Reads `NAME=VALUE`.
pub(super) fn parse_pair(text: &str) -> Result<(Limit, LimitValue), LimitError> {
    let (name, value) = text.split_once('=').ok_or_else(|| LimitError::Form { text: text.to_owned() })?;
    let limit: Limit = name.parse()?;
    Ok((limit, limit.parse_value(value)?))
}

/// A limit as a flag gives it.
impl FromStr for Limits {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        parse_pair(text).map(|(limit, value)| Self(BTreeMap::from([(limit, value)])))
    }
}

/// Later ones replace earlier ones.
impl Extend<Limits> for Limits {
    fn extend<I: IntoIterator<Item = Limits>>(&mut self, others: I) {
        for other in others {
            self.0.extend(other.0);
        }
    }
}

/// Limits by their texts.
#[cfg(test)]
pub(crate) fn limits(texts: &[&str]) -> Limits {
    let mut limits = Limits::default();
    limits.extend(texts.iter().map(|text| text.parse::<Limits>().unwrap()));
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.limit as usize, index);
            assert_eq!(row.name.parse::<Limit>().unwrap(), row.limit);
            if let Some(default) = row.default {
                assert!((row.range.0..=row.range.1).contains(&default.number()), "{}", row.name);
            }
        }
    }

    #[test]
    fn values_have_units() {
        let check = |text: &str, expected: &str| {
            let shown = match text.parse::<Limits>() {
                Ok(limits) => limits.set_values().map(|(limit, value)| format!("{limit}={value}")).collect(),
                Err(error) => error.to_string(),
            };
            assert_eq!(shown, expected, "{text}");
        };
        check("memory=64 MiB", "memory=64MiB");
        check("cpu-time=1500ms", "cpu-time=1500ms");
        check("children=0", "children=0");
        check("memory", "`memory` is not of the form NAME=VALUE");
        check("memroy=1MiB", "`memroy` is no limit; did you mean `memory`?");
        check(
            "speed=1",
            "`speed` is no limit; there are memory, cpu-time, wall-time, children, depth, handles, stdio, calls, \
             call-bytes, message, wasm, tmp, fetched",
        );
        check(
            "memory=big",
            "`big` is no value for the limit memory: it is not a number of bytes, KiB, MiB, GiB or TiB",
        );
        check("memory=1", "`1` is no value for the limit memory: it is less than 64KiB");
        check("memory=1TiB", "`1TiB` is no value for the limit memory: it is more than 64GiB");
        check(
            "wall-time=10",
            "`10` is no value for the limit wall-time: it is not a time such as 500ms, 10s, 5min or 1h",
        );
        check("wall-time=0s", "`0s` is no value for the limit wall-time: it is less than 1ms");
        check("wall-time=none", "wall-time=none");
        check(
            "tmp=64MB",
            "`64MB` is no value for the limit tmp: it is not a number of bytes, KiB, MiB, GiB or TiB; write 64MiB",
        );
        check("calls=99999999999999999999", "`99999999999999999999` is no value for the limit calls: it is too large");
        check("stdio=16KiB", "stdio=16KiB");
        check("stdio=1KiB", "`1KiB` is no value for the limit stdio: it is less than 4KiB");
        check("stdio=1GiB", "`1GiB` is no value for the limit stdio: it is more than 16MiB");
        check("depth=-1", "`-1` is no value for the limit depth: it is not a number");
        check("depth=65", "`65` is no value for the limit depth: it is more than 64");
    }

    #[test]
    fn a_child_has_no_more_than_its_parent() {
        let check = |parent: &[&str], asked: &[&str], expected: Result<&[&str], &str>| {
            let child = limits(parent).of_child(&limits(asked)).map_err(|error| error.to_string());
            assert_eq!(child, expected.map(limits).map_err(str::to_owned));
        };
        check(&[], &[], Ok(&[]));
        check(&["memory=64MiB"], &[], Ok(&["memory=64MiB"]));
        check(&["memory=64MiB", "tmp=0B"], &["memory=64MiB"], Ok(&["memory=64MiB", "tmp=0B"]));
        check(&[], &["cpu-time=1h", "children=0"], Ok(&["cpu-time=1h", "children=0"]));
        check(
            &["stdio=8KiB"],
            &["stdio=9KiB"],
            Err("a child cannot have the limit stdio of 9KiB, since its parent has 8KiB"),
        );
        check(&[], &["memory=2GiB"], Err("a child cannot have the limit memory of 2GiB, since its parent has 1GiB"));
        check(
            &["wall-time=1s"],
            &["children=1", "wall-time=1001ms"],
            Err("a child cannot have the limit wall-time of 1001ms, since its parent has 1s"),
        );
        check(
            &["wall-time=1s"],
            &["wall-time=none"],
            Err("a child cannot have the limit wall-time of none, since its parent has 1s"),
        );
    }

    #[test]
    fn asking_gives_less_and_never_more() {
        let check = |asked: &[&str], given: &[&str], expected: &[&str], refused: &[&str]| {
            let (granted, not) = limits(asked).grant(&limits(given));
            assert_eq!(granted, limits(expected));
            assert_eq!(not.iter().map(|(limit, value)| format!("{limit}={value}")).collect::<Vec<_>>(), refused);
        };
        check(&["memory=64MiB"], &[], &["memory=64MiB"], &[]);
        check(&["memory=2GiB"], &[], &[], &["memory=2GiB"]);
        check(&["memory=2GiB"], &["memory=3GiB"], &["memory=3GiB"], &[]);
        check(&["memory=64MiB"], &["memory=32MiB"], &["memory=32MiB"], &["memory=64MiB"]);
        check(&["cpu-time=1s"], &[], &["cpu-time=1s"], &[]);
        check(&["cpu-time=10s"], &["cpu-time=1s"], &["cpu-time=1s"], &["cpu-time=10s"]);
        check(&["cpu-time=10s"], &["cpu-time=none"], &["cpu-time=none"], &[]);
        check(&["cpu-time=none"], &["cpu-time=1s"], &["cpu-time=1s"], &["cpu-time=none"]);
        assert_eq!(limits(&["cpu-time=none"]).time(Limit::CpuTime), None);
    }

    /// The table of the page and the one of the code say the same.
    #[test]
    fn the_documentation_has_all_limits() {
        let page = include_str!("../../docs/authority.md");
        for limit in Limit::all() {
            let default = limit.default_value().map_or("none".to_owned(), |value| value.to_string());
            let range = limit.range().map_or("from 1ms".to_owned(), |(least, most)| format!("{least} to {most}"));
            let begins = format!("| `{limit}` | ");
            let row =
                page.lines().find(|line| line.starts_with(&begins)).unwrap_or_else(|| panic!("no row `{begins}`"));
            assert!(row.contains(&format!(" | {default} | {range} | ")), "`{row}` should have | {default} | {range} |");
        }
    }
}
