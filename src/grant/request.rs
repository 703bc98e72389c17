//! What an image asks for: `etc/cell.toml`; and what a user gives it in a file of the same form.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use toml::Spanned;

use super::{Grant, GrantError, Grants, Limit, LimitError, Limits};

/// Where an image has it.
pub const REQUEST_PATH: &str = "etc/cell.toml";

/// The most bytes that it may have. A request that uses every name takes a few hundred.
pub const REQUEST_BYTES_MAX: u64 = 64 * 1024;

/// Deepest nesting in it; two is enough.
const NESTING_MAX: usize = 8;

/// The version of the format.
const VERSION: i64 = 1;

/// What a cell would like to have beyond the minimum, and to be limited to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// What it would like to do, in the order of the file.
    pub grants: Vec<Grant>,
    /// What it would like to use.
    pub limits: Limits,
}

/// Why a text is no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is not TOML, or not of this form.
    #[error("it is not valid{}: {}", at_line(*.line), crate::escape::text(.message))]
    Toml {
        /// The line, counted from 1, where one is to blame.
        line: Option<usize>,
        /// What is wrong there. Foreign text.
        message: String,
    },
    /// It is longer than any request.
    #[error("it has {size} bytes, and at most {REQUEST_BYTES_MAX} are read")]
    TooLong {
        /// How long it is, or so far.
        size: u64,
    },
    /// It is not UTF-8.
    #[error("it is not text in UTF-8")]
    NotText,
    /// There is a link in its place, to where nothing is.
    #[error("it is a link that leads nowhere")]
    DanglingLink,
    /// The version of the format is not one that this `ww` knows.
    #[error("its format is version {found}, and this ww knows version {VERSION}")]
    Version {
        /// The version.
        found: i64,
    },
    /// Something that it asks for does not exist, or not together with the rest.
    #[error("line {line}: {error}")]
    Grant {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        error: GrantError,
    },
    /// A limit that it asks for does not exist, or cannot have the value.
    #[error("line {line}: {error}")]
    Limit {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        error: LimitError,
    },
}

fn at_line(line: Option<usize>) -> String {
    line.map(|line| format!(" in line {line}")).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    cell: i64,
    #[serde(default)]
    grants: Vec<Spanned<String>>,
    #[serde(default)]
    limits: BTreeMap<Spanned<String>, Spanned<toml::Value>>,
}

impl Request {
    /// Reads what is in the file.
    ///
    /// # Errors
    /// If it is too long or no text, and those of [`Request::parse`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RequestError> {
        Self::parse(text(bytes)?)
    }

    /// Reads what is in a file in which a user gives, where a mount has its source.
    ///
    /// # Errors
    /// If it is too long or no text, and those of [`Request::parse_given`].
    pub fn given_from_bytes(bytes: &[u8]) -> Result<(Grants, Limits), RequestError> {
        Self::parse_given(text(bytes)?)
    }

    /// Reads the text of the file.
    ///
    /// # Errors
    /// If it is malformed, or asks for something that does not exist.
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        Self::parse_with(text, Grant::parse_request)
    }

    /// Reads the text of a file in which a user gives, where a mount has its source.
    ///
    /// # Errors
    /// If it is malformed, or gives something that does not exist.
    pub fn parse_given(text: &str) -> Result<(Grants, Limits), RequestError> {
        Self::parse_with(text, str::parse).map(|given| (Grants(given.grants), given.limits))
    }

    fn parse_with(text: &str, parse_grant: impl Fn(&str) -> Result<Grant, GrantError>) -> Result<Self, RequestError> {
        if let Some(place) = crate::toml_nesting::deeper_than(NESTING_MAX, text) {
            let message = "it is nested too deep".to_owned();
            return Err(RequestError::Toml { line: Some(line(text, place.start)), message });
        }
        let written: Written = toml::from_str(text).map_err(|error| RequestError::Toml {
            // Where something is missing, the place is all of the file, or none.
            line: error.span().filter(|place| place.start > 0).map(|place| line(text, place.start)),
            message: error.message().to_owned(),
        })?;
        if written.cell != VERSION {
            return Err(RequestError::Version { found: written.cell });
        }
        let of_grant =
            |written: &Spanned<String>, error| RequestError::Grant { line: line(text, written.span().start), error };
        let parse = |written: &Spanned<String>| parse_grant(written.as_ref()).map_err(|error| of_grant(written, error));
        let grants: Vec<_> = written.grants.iter().map(parse).collect::<Result<_, _>>()?;
        super::check(&grants).map_err(|(index, error)| of_grant(&written.grants[index], error))?;
        let mut limits = Limits::default();
        for (name, value) in written.limits {
            let place = line(text, name.span().start);
            let of_limit = |error| RequestError::Limit { line: place, error };
            let limit: Limit = name.as_ref().parse().map_err(of_limit)?;
            let value = match value.into_inner() {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                other => other.to_string(),
            };
            limits.set(limit, limit.parse_value(&value).map_err(of_limit)?);
        }
        Ok(Self { grants, limits })
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let mut text = format!("cell = {VERSION}\n");
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        if !self.grants.is_empty() {
            let grants: Vec<_> = self.grants.iter().map(|grant| quoted(&grant.to_string())).collect();
            let _ = writeln!(text, "grants = [{}]", grants.join(", "));
        }
        let mut limits = self.limits.set_values().peekable();
        if limits.peek().is_some() {
            text.push_str("\n[limits]\n");
        }
        for (limit, value) in limits {
            let _ = match value {
                super::LimitValue::Count(count) => writeln!(text, "{limit} = {count}"),
                other => writeln!(text, "{limit} = {}", quoted(&other.to_string())),
            };
        }
        text
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn text(bytes: &[u8]) -> Result<&str, RequestError> {
    if bytes.len() as u64 > REQUEST_BYTES_MAX {
        return Err(RequestError::TooLong { size: bytes.len() as u64 });
    }
    str::from_utf8(bytes).map_err(|_| RequestError::NotText)
}

/// The number of the line that a byte is in.
fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back() {
        let text = "cell = 1\ngrants = [\"connect\", \"mount:/data:rw\"]\n\n[limits]\nmemory = \"64MiB\"\n\
                    cpu-time = \"10s\"\nchildren = 4\n";
        assert_eq!(Request::parse(text).unwrap().to_text(), text);
        assert_eq!(Request::parse("cell = 1").unwrap().to_text(), "cell = 1\n");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let check = |text: &str, expected: &str| {
            let error = Request::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("", "missing field `cell`");
        check("cell = 2", "its format is version 2, and this ww knows version 1");
        check("cell = 1\ngrant = []", "unknown field `grant`");
        check("cell = 1\ngrants = [\n  \"connect\",\n  \"root\"]", "line 4: `root` is no grant; there are connect");
        check("cell = 1\ngrants = [\"conect\"]", "line 2: `conect` is no grant; did you mean `connect`?");
        check("cell = 1\n[limits]\nmemroy = 1", "line 3: `memroy` is no limit; did you mean `memory`?");
        check("cell = 1\ngrants = [\"connect\", \"connect\"]", "`connect` is there twice");
        check("cell = 1\ngrants = [\"mount:/tmp\"]", "/tmp is the guest's own");
        check("cell = 1\ngrants = [\"mount:/a\", \"mount:/a:rw\"]", "two mounts have the place `/a`");
        check("cell = 1\ngrants = [\"env:A;touch x\"]", "is no name of a variable");
        check("cell = 1\n[limits]\nmemory = \"1\"", "it is less than 64KiB");
        check("cell = 1\n[limits]\nmemory = true", "`true` is no value for the limit memory");
        check("cell = 1\n[limits]\ndisk = 1", "`disk` is no limit");
        check("\0", "it is not valid");
        check("cell = 1\ngrants = [\"mount:/a:/b\"]", "is not of the form mount:DST");
        check("cell = 1\n\ngrants = [", "it is not valid in line 3: ");
        let deep = format!("cell = 1\nlimits{} = 1", ".a = {a".repeat(70).repeat(70));
        check(&deep, "it is not valid in line 2: it is nested too deep");
    }

    #[test]
    fn what_is_given_names_the_folders_that_are_mounted() {
        let text = "cell = 1\ngrants = [\"env:A\", \"mount:/a:/b\"]\nlimits = { children = 4 }";
        let (grants, limits) = Request::parse_given(text).unwrap();
        assert_eq!(grants.0, ["env:A", "mount:/a:/b"].map(|text| text.parse().unwrap()));
        assert_eq!(limits, "children=4".parse().unwrap());
        let error = Request::parse_given("cell = 1\ngrants = [\"mount:/b\"]").unwrap_err().to_string();
        assert!(error.contains("is not of the form mount:SRC:DST"), "{error}");
    }
}
