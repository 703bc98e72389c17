//! Where a gateway is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;

use crate::dag::Cid;
use crate::escape;

/// The address of a trustless gateway: `https://HOST[:PORT][/PREFIX]`, below which it serves `/ipfs/…`.
///
/// Plain `http` is allowed to any host: what comes is checked against its CID, and nothing secret is sent. Addresses with
/// a user's name or password, a query or a fragment are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    url: Url,
}

/// Why a text is not the address of a gateway.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is not a URL.
    #[error("it is not a URL such as https://example.com: {0}")]
    NotAUrl(String),
    /// It is a URL but for its scheme.
    #[error("it is not a URL: write {0}")]
    NoScheme(Address),
    /// It is that of some content.
    #[error("it is the address of content, not of a gateway: write {0}")]
    Content(Address),
    /// It has another scheme.
    #[error("its scheme is `{}`, and only http and https are supported", escape::text(.0))]
    Scheme(String),
    /// It has a name or a password, which a gateway has no use for.
    #[error("it has a user name or a password")]
    Credentials,
    /// It has a query or a fragment.
    #[error("it has a `?` or a `#`")]
    Query,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // `localhost:8080` would be a URL with the scheme `localhost`.
        let mut url = match Url::parse(text) {
            Ok(url) if text.contains("://") => url,
            parsed => {
                let reason = parsed.err().map_or_else(|| "it has no host".to_owned(), |error| error.to_string());
                return Err(with_scheme(text).map_or(AddressError::NotAUrl(reason), AddressError::NoScheme));
            }
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(AddressError::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(AddressError::Query);
        }
        // People copy addresses with the part that is the same everywhere.
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix("/ipfs").unwrap_or(path).to_owned();
        url.set_path(&path);
        match path.find("/ipfs/").or_else(|| path.find("/ipns/")) {
            Some(end) => {
                url.set_path(&path[..end]);
                Err(AddressError::Content(Self { url }))
            }
            None => Ok(Self { url }),
        }
    }
}

/// The address that was meant by one without a scheme. This machine's own seldom have TLS.
fn with_scheme(text: &str) -> Option<Address> {
    let address: Address = format!("https://{text}").parse().ok().filter(|_| !text.contains("://"))?;
    match address.is_loopback() {
        true => format!("http://{text}").parse().ok(),
        false => Some(address),
    }
}

impl fmt::Display for Address {
    /// A URL has no characters that need escaping.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

impl Address {
    /// Whether it is this machine's own.
    pub(super) fn is_loopback(&self) -> bool {
        leads_here(&self.url)
    }

    /// The URL of a CID or what lies below it, with this query.
    pub(super) fn content(&self, cid: &Cid, path: &str, query: &str) -> Url {
        let mut url = self.url.clone();
        {
            let mut segments = url.path_segments_mut().expect("an http URL has a path");
            segments.pop_if_empty().push("ipfs").push(&cid.to_string());
            // Each segment is encoded, also a `%` or a `?` in it.
            segments.extend(path.split('/').filter(|name| !name.is_empty()));
        }
        url.set_query(Some(query));
        url
    }
}

/// Whether a URL's host is this machine by its name or number. What a name resolves to is another question.
fn leads_here(url: &Url) -> bool {
    match host(url) {
        Ok(number) => is_this_machine(number),
        Err(name) => is_localhost(name),
    }
}

/// Whether a URL's host can only be meant by somebody on this machine: it is the machine itself, or a number that
/// each link has for itself.
pub(super) fn is_near(url: &Url) -> bool {
    leads_here(url) || host(url).is_ok_and(is_near_number)
}

/// The same for a number.
pub(super) fn is_near_number(number: IpAddr) -> bool {
    let is_of_link = match number.to_canonical() {
        IpAddr::V4(number) => number.is_link_local(),
        IpAddr::V6(number) => number.is_unicast_link_local(),
    };
    is_of_link || is_this_machine(number)
}

/// Whether a name is one that is this machine everywhere (RFC 6761, section 6.3).
pub(super) fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

fn is_this_machine(number: IpAddr) -> bool {
    let number = number.to_canonical();
    number.is_loopback() || number.is_unspecified()
}

/// A URL's host as a number, or else as a name.
fn host(url: &Url) -> Result<IpAddr, &str> {
    let host = url.host_str().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let shown = match text.parse::<Address>() {
            Ok(address) => address.content(&"bafkqaaa".parse().unwrap(), "a b/%?#", "format=raw").to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn content_lies_below_the_address() {
        let rest = "ipfs/bafkqaaa/a%20b/%25%3F%23?format=raw";
        check("https://example.com", &format!("https://example.com/{rest}"));
        check("http://example.com:8080/", &format!("http://example.com:8080/{rest}"));
        check("https://example.com/ipfs/", &format!("https://example.com/{rest}"));
        check("https://example.com/a/b", &format!("https://example.com/a/b/{rest}"));
        check("http://[::1]:80/ipfs", &format!("http://[::1]/{rest}"));
    }

    #[test]
    fn what_is_no_address_is_said() {
        check("example.com", "it is not a URL: write https://example.com");
        check("example.com:8080/a/", "it is not a URL: write https://example.com:8080/a");
        check("localhost:8080", "it is not a URL: write http://localhost:8080");
        check("me:secret@example.com", "it is not a URL such as https://example.com: it has no host");
        check("", "it is not a URL such as https://example.com: relative URL without a base");
        let content = "it is the address of content, not of a gateway: write https://example.com";
        check("https://example.com/ipfs/bafkqaaa/a", content);
        check("https://example.com/ipns/example.org", content);
        check("ftp://example.com", "its scheme is `ftp`, and only http and https are supported");
        check("https://me@example.com", "it has a user name or a password");
        check("https://:secret@example.com", "it has a user name or a password");
        check("https://example.com/?a", "it has a `?` or a `#`");
    }

    #[test]
    fn addresses_are_shown_as_typed() {
        for text in ["https://example.com", "http://127.0.0.1:8080", "https://example.com/a"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn this_machine_is_known() {
        for text in ["http://localhost:1", "http://a.localhost", "http://127.9.9.9", "http://[::1]", "http://0.0.0.0"] {
            assert!(text.parse::<Address>().unwrap().is_loopback(), "{text}");
        }
        for text in ["http://[::ffff:127.0.0.1]", "http://LOCALHOST.:1", "http://a.localhost.", "http://0x7f.1"] {
            assert!(text.parse::<Address>().unwrap().is_loopback(), "{text}");
        }
        for text in ["http://localhost.example", "http://10.0.0.1", "https://[2001:db8::1]", "http://169.254.169.254"] {
            assert!(!text.parse::<Address>().unwrap().is_loopback(), "{text}");
        }
    }

    #[test]
    fn what_is_near_is_known() {
        let is_near = |text: &str| is_near(&Url::parse(text).unwrap());
        for text in ["http://[::ffff:7f00:1]", "http://localhost.", "http://169.254.169.254", "http://[fe80::1]"] {
            assert!(is_near(text), "{text}");
        }
        for text in ["http://example.com", "http://10.0.0.1", "http://[2001:db8::1]"] {
            assert!(!is_near(text), "{text}");
        }
    }
}
