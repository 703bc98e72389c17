//! Where a Kubo node's RPC is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;

use crate::{escape, remote};

/// The address of a Kubo node's RPC: a host with a port, with or without TLS, or a unix socket.
///
/// Its text forms are `http://HOST:PORT` and `https://HOST:PORT`, which may have a path in front of `/api/v0` as reverse
/// proxies do; the multiaddrs `/ip4/…/tcp/PORT`, `/ip6/…` and `/dns…/…`, each with or without `/http` or `/https` behind
/// it, and `/unix/PATH`; and `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(pub(super) Place);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(Tcp),
    /// The path of a unix socket; absolute.
    Unix(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tcp {
    pub(super) tls: bool,
    pub(super) host: Host,
    pub(super) port: u16,
    /// What stands before `/api/v0`: empty, or a path that starts with a slash and does not end with one.
    pub(super) prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Ip(IpAddr),
    Name(String, Family),
}

/// Which addresses of a name are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

/// Why a text is no address of a Kubo RPC.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no address of a Kubo RPC: {reason}", remote::shown(text))]
pub struct AddressError {
    /// The text, as it was given. A password in it is left out.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Address {
    /// Where a Kubo node listens that nobody configured: `http://localhost:5001`.
    pub fn default_local() -> Self {
        let host = Host::Name("localhost".into(), Family::Any);
        Self(Place::Tcp(Tcp { tls: false, host, port: 5001, prefix: String::new() }))
    }

    /// Whether what is sent there may pass others: it is neither encrypted nor stays on this machine. Of names only
    /// `localhost` is taken for this machine, whatever others resolve to at the moment.
    pub fn is_exposed(&self) -> bool {
        match &self.0 {
            Place::Unix(_) => false,
            Place::Tcp(tcp) => !tcp.tls && !tcp.is_local(),
        }
    }
}

impl Tcp {
    pub(super) fn is_local(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
            Host::Name(name, _) => is_localhost(name),
        }
    }

    /// The host and the port, as in the header `Host` and in a URL.
    pub(super) fn authority(&self) -> String {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
            Host::Ip(IpAddr::V4(ip)) => format!("{ip}:{}", self.port),
            Host::Name(name, _) => format!("{name}:{}", self.port),
        }
    }
}

fn is_localhost(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Unix(path) => write!(formatter, "unix:{}", escape::path(path)),
            Place::Tcp(tcp) => {
                let scheme = if tcp.tls { "https" } else { "http" };
                write!(formatter, "{scheme}://{}{}", escape::text(&tcp.authority()), escape::text(&tcp.prefix))
            }
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let place = if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///path` is a URL with an empty host.
            unix(path.strip_prefix("//").unwrap_or(path))
        } else if let Some(path) = text.strip_prefix("/unix/") {
            unix(&format!("/{}", path.trim_start_matches('/')))
        } else if text.starts_with('/') {
            multiaddr(text)
        } else {
            url(text)
        };
        place.map(Self).map_err(|reason| AddressError { text: without_password(text), reason })
    }
}

fn unix(path: &str) -> Result<Place, &'static str> {
    let path = PathBuf::from(path);
    if !path.is_absolute() {
        return Err("the path of a unix socket must be absolute");
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err("the path has a zero byte");
    }
    Ok(Place::Unix(path))
}

fn multiaddr(text: &str) -> Result<Place, &'static str> {
    let mut parts = text[1..].trim_end_matches('/').split('/');
    let mut part = || parts.next().filter(|part| !part.is_empty());
    let protocol = part().ok_or("it is empty")?;
    let value = part().ok_or("a part of the multiaddr is missing")?;
    let host = match protocol {
        "ip4" => Host::Ip(IpAddr::V4(value.parse::<Ipv4Addr>().map_err(|_| "malformed IPv4 address")?)),
        "ip6" => Host::Ip(IpAddr::V6(value.parse::<Ipv6Addr>().map_err(|_| "malformed IPv6 address")?)),
        "dns" => Host::Name(name(value)?, Family::Any),
        "dns4" => Host::Name(name(value)?, Family::V4),
        "dns6" => Host::Name(name(value)?, Family::V6),
        _ => return Err("a multiaddr starts with /ip4, /ip6, /dns, /dns4, /dns6 or /unix here"),
    };
    if part() != Some("tcp") {
        return Err("the RPC is spoken over /tcp");
    }
    let port = part().and_then(port).ok_or("malformed port")?;
    let tls = match (part(), part()) {
        (None, None) | (Some("http"), None) => false,
        (Some("https"), None) | (Some("tls"), Some("http")) => true,
        _ => return Err("behind the port of the multiaddr only /http or /https is known"),
    };
    if parts.next().is_some() {
        return Err("the multiaddr goes on after /http");
    }
    Ok(Place::Tcp(Tcp { tls, host, port, prefix: String::new() }))
}

fn url(text: &str) -> Result<Place, &'static str> {
    if !text.contains("://") {
        return Err("write http://HOST:PORT, https://HOST:PORT, unix:PATH or a multiaddr");
    }
    let uri: Uri = text.parse().map_err(|_| "malformed URL")?;
    let (tls, default_port) = match uri.scheme_str() {
        Some("http") => (false, 80),
        Some("https") => (true, 443),
        _ => return Err("only http and https are spoken"),
    };
    let authority = uri.authority().ok_or("the URL has no host")?;
    if authority.as_str().contains('@') {
        return Err("user and password belong in a token file");
    }
    // The parser takes `HOST:` and `HOST:99999` for hosts without a port.
    let written = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let port = match written.strip_prefix(':') {
        Some(digits) => port(digits).ok_or("malformed port")?,
        None => default_port,
    };
    if uri.query().is_some() || text.contains('#') {
        return Err("the URL must end with its path");
    }
    let path = uri.path().trim_end_matches('/');
    let prefix = path.strip_suffix("/api/v0").unwrap_or(path).trim_end_matches('/').to_owned();
    let host = authority.host();
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(ip) => Host::Ip(IpAddr::V6(ip.parse().map_err(|_| "malformed IPv6 address")?)),
        None => match host.parse() {
            Ok(ip) => Host::Ip(IpAddr::V4(ip)),
            Err(_) => Host::Name(name(host)?, Family::Any),
        },
    };
    Ok(Place::Tcp(Tcp { tls, host, port, prefix }))
}

/// A host name that a resolver may be asked for: nothing that a header or a message could be broken with.
fn name(text: &str) -> Result<String, &'static str> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    // The longest name in DNS.
    if text.is_empty() || text.len() > 253 || !text.bytes().all(is_fine) {
        return Err("malformed host name");
    }
    // Resolvers read `0x7f.1` and `2130706433` as IPv4 addresses.
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    if last.starts_with(|first: char| first.is_ascii_digit()) {
        return Err("malformed IPv4 address");
    }
    Ok(text.to_owned())
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The text with `…` in place of what stands before an `@`. It may be a password, however malformed the rest is.
fn without_password(text: &str) -> String {
    let Some(at) = text.rfind('@') else { return text.to_owned() };
    let scheme = ["http://", "https://"].into_iter().find(|scheme| text[..at].starts_with(scheme));
    format!("{}…{}", scheme.unwrap_or_default(), &text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, shown) in [
            ("http://127.0.0.1:5001", "http://127.0.0.1:5001"),
            ("http://localhost:5001/", "http://localhost:5001"),
            ("http://localhost:5001/api/v0", "http://localhost:5001"),
            ("http://[::1]:5001", "http://[::1]:5001"),
            ("https://kubo.example", "https://kubo.example:443"),
            ("https://example.org/rpc/api/v0/", "https://example.org:443/rpc"),
            ("http://kubo", "http://kubo:80"),
            ("/ip4/127.0.0.1/tcp/5001", "http://127.0.0.1:5001"),
            (" /ip4/127.0.0.1/tcp/5001\n", "http://127.0.0.1:5001"),
            ("/ip6/::1/tcp/5001/http", "http://[::1]:5001"),
            ("/dns4/kubo.example/tcp/443/https", "https://kubo.example:443"),
            ("/dns/kubo/tcp/5001/tls/http", "https://kubo:5001"),
            ("/unix/tmp/k.sock", "unix:/tmp/k.sock"),
            ("/unix//tmp/k.sock", "unix:/tmp/k.sock"),
            ("unix:/tmp/k.sock", "unix:/tmp/k.sock"),
            ("unix:///tmp/k.sock", "unix:/tmp/k.sock"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown, "{text}");
            assert_eq!(address.to_string().parse::<Address>().unwrap().to_string(), shown, "{text}");
        }
        assert_eq!(Address::default_local(), "http://localhost:5001".parse().unwrap());
    }

    #[test]
    fn what_is_no_address_is_said() {
        for (text, reason) in [
            ("", "write http"),
            ("localhost:5001", "write http"),
            ("ftp://localhost:5001", "only http"),
            ("http://localhost:0", "malformed port"),
            ("http://localhost:", "malformed port"),
            ("http://localhost:99999", "malformed"),
            ("http://localhost:+80", "malformed"),
            ("http://", "malformed URL"),
            ("http://a:b@localhost:5001", "token file"),
            ("a:b@localhost:5001", "write http"),
            ("http:a:b@localhost:5001", "write http"),
            ("ftp://a:b@localhost:5001", "only http"),
            ("http://a:b/c@localhost:5001", "malformed"),
            ("http://localhost:5001/?x", "end with its path"),
            ("http://localhost:5001/#x", "end with its path"),
            ("http://ex\u{202e}ample:5001", "malformed"),
            ("http://[::1", "malformed"),
            ("http://0x7f.1:5001", "malformed IPv4"),
            ("http://2130706433:5001", "malformed IPv4"),
            ("http://127.1:5001", "malformed IPv4"),
            ("/", "it is empty"),
            ("/ip4", "missing"),
            ("/ip4/127.0.0.1", "over /tcp"),
            ("/ip4/127.0.0.1/udp/5001", "over /tcp"),
            ("/ip4/127.0.0.1/tcp/x", "malformed port"),
            ("/ip4/127.0.0.1/tcp/5001/ws", "only /http"),
            ("/ip4/127.0.0.1/tcp/5001/http/p2p/x", "only /http"),
            ("/ip4/127.0.0.1/tcp/5001/tls/http/x", "goes on"),
            ("/ip4/::1/tcp/5001", "malformed IPv4"),
            ("/dns4/a b/tcp/5001", "malformed host"),
            ("/onion/x/tcp/1", "starts with"),
            ("unix:k.sock", "must be absolute"),
            ("unix:", "must be absolute"),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
            assert!(!error.to_string().contains("a:b"), "{error}");
        }
    }

    #[test]
    fn only_this_machine_is_local() {
        for (text, exposed) in [
            ("http://localhost:5001", false),
            ("http://LOCALHOST:5001", false),
            ("http://127.0.0.1:5001", false),
            ("http://127.9.9.9:5001", false),
            ("http://[::1]:5001", false),
            ("http://[::ffff:127.0.0.1]:5001", false),
            ("/unix/k.sock", false),
            ("https://kubo.example", false),
            ("http://kubo.example", true),
            ("http://localhost.example:5001", true),
            ("http://x.localhost:5001", true),
            ("http://192.168.0.1:5001", true),
            ("http://0.0.0.0:5001", true),
            ("http://[::]:5001", true),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().is_exposed(), exposed, "{text}");
        }
    }
}
