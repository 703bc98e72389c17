//! What a request asks for.

use hyper::header::{ACCEPT, CACHE_CONTROL, HeaderMap};
use hyper::{StatusCode, Uri};

use crate::dag::{ContentPath, Scope};

/// What the answer to a request without a format is.
const WHAT_IS_SERVED: &str = "this is a trustless gateway: ask for a block with ?format=raw or for a DAG with ?format=car, \
                              or send `Accept: application/vnd.ipld.raw` or `Accept: application/vnd.ipld.car`";

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A block's bytes.
    Raw,
    /// An archive.
    Car {
        /// Whether blocks come as often as they are linked to.
        with_duplicates: bool,
        /// How much comes.
        scope: Scope,
    },
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) content: ContentPath,
    pub(super) format: Format,
    /// The name that a browser would save it under, if the client wants a certain one.
    pub(super) filename: Option<String>,
    /// Whether the client wants to hear 412 where the content is not here.
    pub(super) only_if_cached: bool,
}

/// Why a request is not answered with content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }
}

/// What the formats' parameters say, be it in the query or in a media type.
#[derive(Default)]
struct CarParameters {
    version: Option<String>,
    order: Option<String>,
    duplicates: Option<String>,
}

impl Asked {
    /// Reads a request's target and headers.
    pub(super) fn parse(uri: &Uri, headers: &HeaderMap) -> Result<Self, Refusal> {
        let content = content(uri.path())?;
        let query = Query(uri.query().unwrap_or_default());
        let accepted = accepted(headers);
        let asked = match query.get("format") {
            // The query counts more than the header, which has more to say of the same format.
            Some(format) => {
                let kind = kind(format).ok_or_else(|| Refusal::new(StatusCode::NOT_ACCEPTABLE, WHAT_IS_SERVED))?;
                let same = accepted.filter(|(accepted, _)| *accepted == kind);
                (kind, same.map(|(_, parameters)| parameters).unwrap_or_default())
            }
            None => accepted.ok_or_else(|| Refusal::new(StatusCode::NOT_ACCEPTABLE, WHAT_IS_SERVED))?,
        };
        let format = match asked {
            (Kind::Raw, _) if !content.path.is_empty() => {
                return Err(Refusal::bad("a raw block has no path below it: ask for its own CID, or for a CAR"));
            }
            (Kind::Raw, _) => Format::Raw,
            (Kind::Car, parameters) => car(&query, parameters)?,
        };
        let filename = query.get("filename").filter(|name| is_plain(name)).map(str::to_owned);
        let cache_control = headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let only_if_cached = cache_control.split(',').any(|part| part.trim().eq_ignore_ascii_case("only-if-cached"));
        Ok(Self { content, format, filename, only_if_cached })
    }
}

/// The content that a target names.
fn content(path: &str) -> Result<ContentPath, Refusal> {
    if !path.is_ascii() {
        return Err(Refusal::bad("the path is not encoded"));
    }
    if path.starts_with("/ipns/") {
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "names are not resolved here, only /ipfs/CID is served"));
    }
    let Some(below) = path.strip_prefix("/ipfs/") else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("only /ipfs/CID is served; {WHAT_IS_SERVED}")));
    };
    // A URI's path is encoded as that of an `ipfs` URI.
    format!("ipfs://{below}").parse().map_err(|error| Refusal::bad(causes(&error)))
}

fn causes(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", causes(source)),
        None => error.to_string(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Raw,
    Car,
}

/// A format by its name in a query.
fn kind(name: &str) -> Option<Kind> {
    match name {
        "raw" => Some(Kind::Raw),
        "car" => Some(Kind::Car),
        _ => None,
    }
}

fn car(query: &Query<'_>, accepted: CarParameters) -> Result<Format, Refusal> {
    let unsupported = |text: &str| Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, text));
    if query.get("entity-bytes").is_some() {
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "entity-bytes is not supported"));
    }
    let scope = match query.get("dag-scope") {
        Some(scope) => scope.parse().map_err(|error| Refusal::bad(format!("dag-scope: {error}")))?,
        None => Scope::All,
    };
    let either = |name: &str, accepted: Option<String>| query.get(name).map(str::to_owned).or(accepted);
    if either("car-version", accepted.version).is_some_and(|version| version != "1") {
        return unsupported("only version 1 of CAR is served");
    }
    if !matches!(either("car-order", accepted.order).as_deref(), None | Some("" | "dfs" | "unk")) {
        return unsupported("only order=dfs is served");
    }
    let with_duplicates = match either("car-dups", accepted.duplicates).as_deref() {
        None | Some("n") => false,
        Some("y") => true,
        Some(_) => return Err(Refusal::bad("dups is `y` or `n`")),
    };
    Ok(Format::Car { with_duplicates, scope })
}

/// The format that the header `Accept` prefers of those that there are (RFC 9110, section 12.5.1). Whoever accepts
/// anything wants a page, and is to say which format.
fn accepted(headers: &HeaderMap) -> Option<(Kind, CarParameters)> {
    let mut best: Option<(f32, Kind, CarParameters)> = None;
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "application/vnd.ipld.raw" => Kind::Raw,
            "application/vnd.ipld.car" => Kind::Car,
            _ => continue,
        };
        let (mut quality, mut parameters) = (1.0, CarParameters::default());
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.parse().unwrap_or(0.0),
                "version" => parameters.version = Some(value.to_owned()),
                "order" => parameters.order = Some(value.to_owned()),
                "dups" => parameters.duplicates = Some(value.to_owned()),
                _ => {}
            }
        }
        if quality > best.as_ref().map_or(0.0, |(best, ..)| *best) {
            best = Some((quality, kind, parameters));
        }
    }
    best.map(|(_, kind, parameters)| (kind, parameters))
}

/// A URL's query. Values that would have to be decoded are none that are known here.
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// Whether a file name can stand in a header as it is.
fn is_plain(name: &str) -> bool {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
    (1..=128).contains(&name.len()) && name.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "bafkreifgmwsfsiccf6ouc7sim7x5yt5yubfb6p77d6qh5gmoq337pit24m";

    fn parse(target: &str, accept: &str) -> Result<Asked, Refusal> {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(ACCEPT, accept.parse().unwrap());
        }
        Asked::parse(&target.replace("CID", CID).parse().unwrap(), &headers)
    }

    fn format(target: &str, accept: &str) -> String {
        match parse(target, accept) {
            Ok(Asked { format: Format::Raw, .. }) => "raw".into(),
            Ok(Asked { format: Format::Car { with_duplicates, scope }, .. }) => {
                format!("car {scope}{}", if with_duplicates { " dups" } else { "" })
            }
            Err(refusal) => refusal.status.as_u16().to_string(),
        }
    }

    fn check(target: &str, accept: &str, expected: &str) {
        assert_eq!(format(target, accept), expected, "{target} {accept}");
    }

    #[test]
    fn the_query_tells_the_format() {
        check("/ipfs/CID?format=raw", "", "raw");
        check("/ipfs/CID?format=car", "", "car all");
        check("/ipfs/CID?format=car&dag-scope=entity&car-dups=y&car-order=dfs&car-version=1", "", "car entity dups");
        check("/ipfs/CID?format=car&dag-scope=block&car-order=unk&car-dups=n", "", "car block");
        check("/ipfs/CID?format=tar", "", "406");
        check("/ipfs/CID?format=car&dag-scope=some", "", "400");
        check("/ipfs/CID?format=car&car-version=2", "", "406");
        check("/ipfs/CID?format=car&car-order=bfs", "", "406");
        check("/ipfs/CID?format=car&car-dups=x", "", "400");
        check("/ipfs/CID?format=car&entity-bytes=0:1", "", "501");
    }

    #[test]
    fn the_header_tells_the_format_where_the_query_does_not() {
        check("/ipfs/CID", "application/vnd.ipld.raw", "raw");
        check("/ipfs/CID", "Application/vnd.ipld.car; version=1; order=dfs; dups=y", "car all dups");
        check("/ipfs/CID?format=car", "application/vnd.ipld.car;dups=y", "car all dups");
        check("/ipfs/CID?format=car&car-dups=n", "application/vnd.ipld.car;dups=y", "car all");
        check("/ipfs/CID?format=raw", "application/vnd.ipld.car;dups=y", "raw");
        check("/ipfs/CID", "text/html, application/vnd.ipld.car;q=0.5, application/vnd.ipld.raw;q=0.7", "raw");
        check("/ipfs/CID", "application/vnd.ipld.raw;q=0", "406");
        check("/ipfs/CID", "application/vnd.ipld.car;version=2", "406");
        for accept in ["", "*/*", "text/html", "application/*"] {
            check("/ipfs/CID", accept, "406");
        }
    }

    #[test]
    fn the_path_is_read_as_a_uri() {
        let asked = parse("/ipfs/CID/a%20b/%C3%BC/?format=car&filename=x.car", "").unwrap();
        assert_eq!((asked.content.path.as_str(), asked.filename.as_deref()), ("a b/ü", Some("x.car")));
        check("/ipfs/CID/a?format=raw", "", "400");
        check("/ipfs/x?format=raw", "", "400");
        check("/ipfs/?format=raw", "", "400");
        check("/ipfs/CID/%2e%2e/x?format=car", "", "400");
        check("/ipfs/CID/../x?format=car", "", "400");
        check("/ipfs/CID/%ff?format=car", "", "400");
        check("/ipns/example.com?format=raw", "", "501");
        check("/?format=raw", "", "404");
        check("/api/v0/id?format=raw", "", "404");
    }

    #[test]
    fn file_names_that_could_do_harm_are_left_out() {
        for name in ["a\"b", "a%22", "..;x", "a b"] {
            let target = format!("/ipfs/CID?format=raw&filename={}", name.replace(' ', "+").replace('"', "%22"));
            assert_eq!(parse(&target, "").unwrap().filename, None, "{name}");
        }
    }
}
