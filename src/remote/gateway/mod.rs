//! A client of trustless HTTP gateways.
//!
//! <https://specs.ipfs.tech/http-gateways/trustless-gateway/>. A [`Client`] asks one gateway for a block
//! (`?format=raw`) or for a DAG as a CAR (`?format=car`). Nothing that a gateway says is believed: each block is checked
//! against its CID before it is handed out, and the roots in a CAR's header are ignored. What a CAR lacks, or has beyond
//! what was wanted, only who walks the DAG can tell.
//!
//! This goes through reqwest, with the certificates and the proxies of the system (`HTTPS_PROXY` and the like, which
//! reqwest reads itself; not for addresses of this machine). Since nothing secret is sent and every byte is checked, this
//! client follows redirects, a few: gateways lead from `/ipfs/CID` to `CID.ipfs.HOST`. Neither compressed answers nor IPNS
//! names are supported.

mod address;
mod answer;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, LOCATION};
use reqwest::{Response, StatusCode, Url};
use tokio::time::{Instant, timeout};

use super::{Blocks, BoxError, Cause, Deadlines, RemoteError, Stage, shown};
use crate::dag::{BLOCK_BYTES_MAX, Block, Cid, Scope};

pub use address::{Address, AddressError};

/// How often an answer may send the client elsewhere: from `http` to `https`, from a path to a subdomain, and to spare.
pub const REDIRECTS_MAX: usize = 5;

const TYPE_RAW: &str = "application/vnd.ipld.raw";
const TYPE_CAR: &str = "application/vnd.ipld.car";
const ACCEPT_CAR: &str = "application/vnd.ipld.car;version=1;order=dfs;dups=n";

/// A client of one gateway. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    address: Address,
    deadlines: Deadlines,
}

/// What one request is about, for its URL and for errors.
struct Request<'a> {
    /// `raw` or `car`, as it is shown.
    shown: String,
    url: Url,
    accept: &'a str,
    /// The content type of the answer.
    expected: &'static str,
}

impl Client {
    /// A client of the gateway at `address`. It connects when it is first asked.
    ///
    /// # Errors
    /// If TLS cannot be set up, say because the system's certificates cannot be read.
    pub fn new(address: Address, deadlines: Deadlines) -> Result<Self, RemoteError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("ww/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(deadlines.connect)
            // They are followed here, where an error can say which one was not.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false);
        if address.is_loopback() {
            // A proxy's own loopback interface is another one.
            builder = builder.no_proxy().dns_resolver(Arc::new(Localhost));
        } else {
            builder = builder.dns_resolver(Arc::new(Elsewhere));
        }
        let http = builder.build().map_err(|error| RemoteError {
            remote: address.to_string(),
            request: "setting up the HTTP client".into(),
            cause: Cause::Tls(error.into()),
        })?;
        Ok(Self { http, address, deadlines })
    }

    /// The address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Asks for one block.
    ///
    /// Cancel safe: dropping the future ends the request.
    ///
    /// # Errors
    /// Whatever comes in place of the block.
    pub async fn block(&self, cid: &Cid) -> Result<Block, RemoteError> {
        let request = Request {
            shown: format!("GET /ipfs/{cid}?format=raw"),
            url: self.address.content(cid, "", "format=raw"),
            accept: TYPE_RAW,
            expected: TYPE_RAW,
        };
        self.try_block(cid, &request).await.map_err(|cause| self.error(&request, cause))
    }

    async fn try_block(&self, cid: &Cid, request: &Request<'_>) -> Result<Block, Cause> {
        let deadline = Instant::now() + self.deadlines.total;
        let answer = self.get(request).await?;
        let limit = BLOCK_BYTES_MAX as u64;
        if answer.content_length().is_some_and(|length| length > limit) {
            return Err(Cause::TooLong { what: "the block", limit });
        }
        let mut pieces = answer::pieces(answer, self.deadlines.idle, deadline, self.deadlines.total).boxed();
        let mut data = BytesMut::new();
        while let Some(piece) = pieces.try_next().await? {
            if data.len() + piece.len() > BLOCK_BYTES_MAX {
                return Err(Cause::TooLong { what: "the block", limit });
            }
            data.extend_from_slice(&piece);
        }
        Block::new(*cid, data.freeze()).map_err(Cause::Block)
    }

    /// Asks for a DAG: the blocks on the way along `path`, names with slashes between them, and then as many below its end
    /// as `scope` says. At most `bytes_max` bytes are read.
    ///
    /// Cancel safe: dropping the future or what it gives ends the request.
    ///
    /// # Errors
    /// Whatever comes in place of a CAR. The blocks come later, with errors of their own.
    pub async fn dag(&self, root: &Cid, path: &str, scope: Scope, bytes_max: u64) -> Result<Blocks, RemoteError> {
        let query = format!("format=car&dag-scope={}&car-order=dfs&car-dups=n", scope.as_str());
        let request = Request {
            shown: format!("GET /ipfs/{root}?format=car"),
            url: self.address.content(root, path, &query),
            accept: ACCEPT_CAR,
            expected: TYPE_CAR,
        };
        let deadline = Instant::now() + self.deadlines.transfer;
        let answer = self.get(&request).await.map_err(|cause| self.error(&request, cause))?;
        if answer.content_length().is_some_and(|length| length > bytes_max) {
            return Err(self.error(&request, Cause::TooLong { what: "the CAR", limit: bytes_max }));
        }
        let pieces = answer::pieces(answer, self.deadlines.idle, deadline, self.deadlines.transfer).boxed();
        Ok(Blocks::new(pieces, bytes_max, self.address.to_string(), request.shown))
    }

    fn error(&self, request: &Request<'_>, cause: Cause) -> RemoteError {
        RemoteError { remote: self.address.to_string(), request: request.shown.clone(), cause }
    }

    /// Gives an answer of status 200 and the right type.
    async fn get(&self, request: &Request<'_>) -> Result<Response, Cause> {
        let late = |_| Cause::Late { stage: Stage::Head, limit: self.deadlines.head };
        let answer = timeout(self.deadlines.head, self.follow(request)).await.map_err(late)??;
        match answer.status() {
            StatusCode::OK => answer::check_headers(&answer, request.expected)?,
            status => return Err(answer::failure(status, answer, self.deadlines.idle).await),
        }
        Ok(answer)
    }

    /// Gives the first answer that is no redirect.
    async fn follow(&self, request: &Request<'_>) -> Result<Response, Cause> {
        let mut url = request.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let sent = self.http.get(url.clone()).header(ACCEPT, request.accept).send().await;
            let answer = sent.map_err(|error| not_sent(error, &url, &self.deadlines))?;
            let Some(location) = location(&answer) else { return Ok(answer) };
            url = redirect(&self.address, &url, &location)
                .ok_or_else(|| Cause::Redirect { status: answer.status().as_u16(), location: shown(&location) })?;
        }
        Err(Cause::Malformed(format!("it redirects more than {REDIRECTS_MAX} times").into()))
    }
}

/// Knows that `NAME.localhost` is this machine (RFC 6761, section 6.3), to which a gateway at `localhost` leads. Not every
/// system's resolver does.
struct Localhost;

impl Resolve for Localhost {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let name = if address::is_localhost(&name) { "localhost" } else { &name };
            let addresses: Vec<_> = tokio::net::lookup_host((name, 0)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Does not find this machine, whatever a name resolves to: a gateway elsewhere can redirect to any name, and have that
/// resolve to anything. Only `localhost` is what it is: redirects to it are not followed, so it is a proxy's name.
struct Elsewhere;

impl Resolve for Elsewhere {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let addresses: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let kept = if address::is_localhost(&name) { addresses } else { elsewhere(addresses)? };
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

/// Those of the addresses that are not this machine's.
fn elsewhere(mut addresses: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    addresses.retain(|address| !address::is_near_number(address.ip()));
    let nothing = || io::Error::other("the name leads only to this machine or its own link");
    if addresses.is_empty() { Err(nothing()) } else { Ok(addresses) }
}

/// Where an answer leads, if it is a redirect.
fn location(answer: &Response) -> Option<String> {
    let is_redirect = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = answer.headers().get(LOCATION).filter(|_| is_redirect)?;
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

/// The URL that a redirect leads to, if it may be followed: `http` or `https`, not from `https` back to `http`, and not from
/// a gateway elsewhere to this machine, whose other services are none of its business.
fn redirect(gateway: &Address, from: &Url, location: &str) -> Option<Url> {
    let to = from.join(location).ok()?;
    let scheme_fits = to.scheme() == "https" || (to.scheme() == "http" && from.scheme() == "http");
    let has_credentials = !to.username().is_empty() || to.password().is_some();
    let leads_here = address::is_near(&to) && !gateway.is_loopback();
    (scheme_fits && !has_credentials && !leads_here).then_some(to)
}

/// Why a request got no answer.
fn not_sent(error: reqwest::Error, url: &Url, deadlines: &Deadlines) -> Cause {
    let error = error.without_url();
    let host = shown(url.host_str().unwrap_or_default());
    if !error.is_connect() {
        return Cause::Broken(error.into());
    }
    if error.is_timeout() {
        return Cause::Late { stage: Stage::Connect, limit: deadlines.connect };
    }
    if error.is_dns() {
        return Cause::Resolve { host, source: io::Error::other(last_cause(error)) };
    }
    let port = url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
    Cause::Connect { address: format!("{host}{port}"), source: io::Error::other(last_cause(error)) }
}

/// The text of an error's last cause, which is the one that says something: the others tell reqwest's layers.
fn last_cause(error: reqwest::Error) -> BoxError {
    let mut last: &dyn std::error::Error = &error;
    while let Some(source) = last.source() {
        last = source;
    }
    shown(&last.to_string()).into()
}
