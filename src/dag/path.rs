//! Paths to content: a CID and the way below it, in the forms that people type.

use std::fmt;
use std::str::FromStr;

use super::block::Cid;
use super::cid_text::{CidTextError, parse_cid_text};
use super::unixfs::{EntryName, NameError};

/// A DAG's root and a path below it.
///
/// Read from `CID`, `CID/a/b`, `/ipfs/CID/a/b` and `ipfs://CID/a/b`. In the last form, which is a URI, `%NN` stands for a
/// byte (RFC 3986); in the others it stands for itself. Shown as `/ipfs/CID/a/b`, escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentPath {
    /// The root.
    pub root: Cid,
    /// The names below it with `/` between them; empty for the root itself. Each can be the name of an entry.
    pub path: String,
}

/// Why a text is not the path to content.
#[derive(Debug, thiserror::Error)]
pub enum ContentPathError {
    /// What should be a CID is none.
    #[error(transparent)]
    Cid(#[from] CidTextError),
    /// A part of the path cannot be a name.
    #[error("malformed path below the CID")]
    Name(#[from] NameError),
    /// The URI has a query or a fragment, which mean nothing here.
    #[error("`{}` has a `?` or `#`: write %3F or %23 in a URI where a name has one", crate::escape::text(text))]
    Query {
        /// The URI.
        text: String,
    },
    /// The URI has a `%` that no two hexadecimal digits follow, or what they say is not UTF-8.
    #[error("`{}` has a malformed `%NN`", crate::escape::text(text))]
    Percent {
        /// The URI.
        text: String,
    },
}

impl ContentPath {
    /// Whether a text was meant as a path to content, and not to a file: it begins with `/ipfs/` or `ipfs://`, or with
    /// `/ipns/` or `ipns://`, which are refused.
    pub fn is_meant(text: &str) -> bool {
        let is_path = ["/ipfs/", "/ipns/"].iter().any(|start| text.starts_with(start));
        is_path || ["ipfs://", "ipns://"].iter().any(|scheme| strip_scheme(text, scheme).is_some())
    }
}

impl FromStr for ContentPath {
    type Err = ContentPathError;

    fn from_str(text: &str) -> Result<Self, ContentPathError> {
        if let Some(uri) = strip_scheme(text, "ipfs://") {
            if uri.contains(['?', '#']) {
                return Err(ContentPathError::Query { text: text.to_owned() });
            }
            let decoded = decode_percent(uri).ok_or_else(|| ContentPathError::Percent { text: text.to_owned() })?;
            return parse(&decoded);
        }
        if text.starts_with("/ipns/") || strip_scheme(text, "ipns://").is_some() {
            let name = strip_scheme(text, "ipns://").map(|name| format!("/ipns/{name}"));
            return Err(CidTextError::Ipns(name.unwrap_or_else(|| text.to_owned())).into());
        }
        parse(text.strip_prefix("/ipfs/").unwrap_or(text))
    }
}

impl From<Cid> for ContentPath {
    fn from(root: Cid) -> Self {
        Self { root, path: String::new() }
    }
}

impl fmt::Display for ContentPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.path.is_empty() { "" } else { "/" };
        write!(formatter, "/ipfs/{}{slash}{}", self.root, crate::escape::text(&self.path))
    }
}

/// What follows a scheme such as `ipfs://`, where a text begins with it. Schemes are the same in upper case (RFC 3986,
/// section 3.1).
fn strip_scheme<'t>(text: &'t str, scheme: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn parse(text: &str) -> Result<ContentPath, ContentPathError> {
    let (cid, path) = text.split_once('/').unwrap_or((text, ""));
    let root = parse_cid_text(cid)?;
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    for name in &names {
        EntryName::new(*name)?;
    }
    Ok(ContentPath { root, path: names.join("/") })
}

/// Replaces each `%NN`; `None` where one is malformed or the result is not UTF-8.
fn decode_percent(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            decoded.push(u8::try_from(digit()? << 4 | digit()?).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
    const CID_V0: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";

    #[test]
    fn all_forms_are_read() {
        let check = |text: &str, cid: &str, path: &str| {
            let read: ContentPath = text.parse().unwrap();
            assert_eq!((read.root.to_string().as_str(), read.path.as_str()), (cid, path), "{text}");
        };
        for cid in [CID, CID_V0] {
            check(cid, cid, "");
            check(&format!("{cid}/"), cid, "");
            check(&format!("{cid}//a b//c%20d/"), cid, "a b/c%20d");
            check(&format!("/ipfs/{cid}"), cid, "");
            check(&format!("/ipfs/{cid}/a?b#c"), cid, "a?b#c");
            check(&format!("ipfs://{cid}"), cid, "");
            check(&format!("IPFS://{cid}/a%20b/%C3%bc/+"), cid, "a b/ü/+");
        }
    }

    #[test]
    fn malformed_paths_are_refused() {
        let check = |text: &str, expected: &str| {
            let error = text.parse::<ContentPath>().unwrap_err();
            assert_eq!(error.to_string(), expected, "{text}");
        };
        let form = "one looks like bafy… or Qm…";
        check("", &format!("there is no CID: {form}"));
        check("/ipfs/", &format!("there is no CID: {form}"));
        check("/ipfs//a", &format!("there is no CID: {form}"));
        check("examples/images", &format!("`examples` is not a CID: {form}"));
        check("a\x1b[2J", &format!("`a\\u{{1b}}[2J` is not a CID: {form}"));
        for ipns in ["/ipns/example.org/a", "ipns://example.org/a", "IPNS://example.org/a"] {
            check(
                ipns,
                "`/ipns/example.org/a` is an IPNS name, which ww does not resolve yet: \
                 `ipfs name resolve /ipns/example.org/a` tells the /ipfs/ path it stands for",
            );
        }
        check(&format!("{CID}/a/../b"), "malformed path below the CID");
        check(&format!("{CID}/."), "malformed path below the CID");
        check(&format!("{CID}/a\0b"), "malformed path below the CID");
        check(&format!("ipfs://{CID}/%2e%2e"), "malformed path below the CID");
        check(
            &format!("ipfs://{CID}?x=y"),
            &format!("`ipfs://{CID}?x=y` has a `?` or `#`: write %3F or %23 in a URI where a name has one"),
        );
        for bad in ["%", "%4", "%zz", "%+1", "%ff"] {
            check(&format!("ipfs://{CID}/{bad}"), &format!("`ipfs://{CID}/{bad}` has a malformed `%NN`"));
        }
    }

    #[test]
    fn shown_in_one_form() {
        let shown = |text: &str| text.parse::<ContentPath>().unwrap().to_string();
        assert_eq!(shown(CID), format!("/ipfs/{CID}"));
        assert_eq!(shown(&format!("ipfs://{CID}/a%0Ab/")), format!("/ipfs/{CID}/a\\nb"));
        assert!(ContentPath::is_meant("/ipfs/x") && ContentPath::is_meant("ipfs://x"));
        assert!(ContentPath::is_meant("/ipns/x") && ContentPath::is_meant("ipns://x"));
        assert!(!ContentPath::is_meant(CID) && !ContentPath::is_meant("ipfs") && !ContentPath::is_meant("/ipfs"));
    }
}
