//! A trustless gateway over the local blockstore.
//!
//! <https://specs.ipfs.tech/http-gateways/trustless-gateway/>: `GET` and `HEAD` of `/ipfs/CID[/PATH]`, as a raw block or as
//! a CAR. Only what a pin reaches is served; of anything else is not even said whether it is here. Nothing is rendered for
//! people, no names are resolved, and nobody else is asked for what is missing. Scripts of web pages cannot read answers,
//! since none has CORS headers. A page whose name was made to lead to this machine could, since to its browser this would
//! be the place that it came from; so on a loopback address only requests for a host on this machine are answered.

mod car;
mod reach;
mod request;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, ETAG, HOST, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, VARY,
};
use hyper::http::response;
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};

use self::car::Contents;
use self::reach::Reach;
use self::request::{Asked, Format, Refusal};
use super::Server;
use super::listen::{Body, Service};
use crate::blockstore::{Blockstore, StoreError};
use crate::dag::block::CODEC_RAW;
use crate::dag::unixfs::{PathWalk, WalkError};
use crate::dag::{Block, Cid, Version};
use crate::escape;

/// Content never changes, so it may be kept for ever: a year, as long as caches go (RFC 9111).
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

const X_IPFS_PATH: HeaderName = HeaderName::from_static("x-ipfs-path");
const X_IPFS_ROOTS: HeaderName = HeaderName::from_static("x-ipfs-roots");
const X_CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// Answers for a store.
pub struct Gateway {
    store: Arc<dyn Blockstore>,
    reach: Arc<Reach>,
    /// Whether it listens for this machine alone.
    is_local: bool,
}

/// What was found for a request.
enum Found {
    Raw(Block),
    Car {
        contents: Contents,
        /// The roots of all directories on the way, and what lies at its end.
        roots: Vec<Cid>,
    },
}

impl Gateway {
    /// A gateway that serves what is pinned in `store`, also what is pinned later.
    pub fn new(store: Arc<dyn Blockstore>) -> Self {
        let reach = Arc::new(Reach::new(store.clone()));
        Self { store, reach, is_local: false }
    }

    /// Answers on a server's connections until `stop` is ready and the answers under way have ended.
    pub async fn serve(mut self, server: Server, stop: impl Future<Output = ()>) {
        self.is_local = server.is_local();
        server.run(Arc::new(self), stop).await;
    }

    async fn try_answer(&self, request: &Request<Incoming>) -> Result<Response<Body>, Refusal> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered"));
        }
        if self.is_local && !is_for_this_machine(request) {
            return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, "only hosts on this machine are served here"));
        }
        let asked = Asked::parse(request.uri(), request.headers())?;
        let (store, reach, content) = (self.store.clone(), self.reach.clone(), asked.clone());
        let found = tokio::task::spawn_blocking(move || find(&*store, &reach, &content)).await;
        let found = found.map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "failed"))?;
        let found = found.map_err(|refusal| match refusal.status {
            StatusCode::NOT_FOUND if asked.only_if_cached => {
                Refusal { status: StatusCode::PRECONDITION_FAILED, ..refusal }
            }
            _ => refusal,
        })?;
        let etag = etag(&asked);
        let head = head(&asked, &found, &etag, request.uri().path());
        if is_known(request.headers(), &etag) {
            let mut answer = head.body(empty()).map_err(internal)?;
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(answer);
        }
        let body = match found {
            // What answers HEAD is not sent. This one has a length to tell, and that of an archive is not known.
            Found::Raw(block) => full(block.data().clone()),
            Found::Car { .. } if *request.method() == Method::HEAD => StreamBody::new(stream::empty()).boxed_unsync(),
            Found::Car { contents, .. } => {
                let pieces = car::pieces(self.store.clone(), contents);
                let frames = stream::unfold(pieces, async |mut pieces| {
                    let piece: io::Result<Bytes> = pieces.recv().await?;
                    Some((piece.map(Frame::data), pieces))
                });
                StreamBody::new(frames).boxed_unsync()
            }
        };
        head.body(body).map_err(internal)
    }
}

impl Service for Gateway {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let answer = self.try_answer(&request).await.unwrap_or_else(refused);
        let target = request.uri().to_string();
        tracing::debug!(status = answer.status().as_u16(), "{} {}", request.method(), escape::text(&target));
        answer
    }
}

/// Whether the host that a request is for is this machine, or none is named, as old clients do and browsers never do.
fn is_for_this_machine(request: &Request<Incoming>) -> bool {
    let named = request.headers().get_all(HOST).into_iter().map(|host| host.to_str().ok()?.parse::<Authority>().ok());
    named.chain(request.uri().authority().cloned().map(Some)).all(|host| host.is_some_and(|host| is_local(host.host())))
}

fn is_local(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(number) => number.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// Looks for what was asked for. It waits for disks.
fn find(store: &dyn Blockstore, reach: &Reach, asked: &Asked) -> Result<Found, Refusal> {
    let root = asked.content.root;
    match asked.format {
        Format::Raw => get(store, reach, &root).map(Found::Raw),
        Format::Car { with_duplicates, scope } => {
            let mut walk = PathWalk::new(root, &asked.content.path).map_err(|error| not_found(&error))?;
            let (mut path, mut roots) = (Vec::new(), vec![root]);
            while let Some(cid) = walk.wanted().copied() {
                walk.supply(&get(store, reach, &cid)?).map_err(|error| wrong_path(&error))?;
                path.push(cid);
                if roots.last() != Some(walk.reached()) {
                    roots.push(*walk.reached());
                }
            }
            let end = *walk.found().unwrap_or(&root);
            get(store, reach, &end)?;
            Ok(Found::Car { contents: Contents { root, path, end, scope, with_duplicates }, roots })
        }
    }
}

/// A block that may be seen.
fn get(store: &dyn Blockstore, reach: &Reach, cid: &Cid) -> Result<Block, Refusal> {
    let absent = || Refusal::new(StatusCode::NOT_FOUND, format!("{cid} is not below any pin of this gateway"));
    if !reach.has(cid).map_err(|error| broken(&error))? {
        return Err(absent());
    }
    if let Some(block) = Block::from_identity(cid) {
        return Ok(block);
    }
    store.get(cid).map_err(|error| broken(&error))?.ok_or_else(absent)
}

fn not_found(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, escape::text(&error.to_string()).into_owned())
}

fn wrong_path(error: &WalkError) -> Refusal {
    not_found(error)
}

/// The store's own words stay here: they have names of files.
fn broken(error: &StoreError) -> Refusal {
    tracing::error!("the blockstore cannot be read: {error}");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the blockstore cannot be read")
}

fn internal(error: hyper::http::Error) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// A name for the bytes of an answer. Those of an archive may be others in a later version, so that name is a weak one.
fn etag(asked: &Asked) -> String {
    let root = asked.content.root;
    match asked.format {
        Format::Raw => format!("\"{root}.raw\""),
        Format::Car { with_duplicates, scope } => {
            let which = format!("{scope} {with_duplicates} {}", asked.content.path);
            let which = Block::seal(Version::V1, CODEC_RAW, which.into()).map(|block| block.cid().to_string());
            format!("W/\"{root}.car.{}\"", which.unwrap_or_default())
        }
    }
}

/// Whether a client says that it has an answer already (RFC 9110, section 13.1.2, with weak comparison).
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let mut known = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    known.any(|value| value.split(',').any(|tag| tag.trim() == "*" || strong(tag) == strong(etag)))
}

/// The head of an answer with content.
fn head(asked: &Asked, found: &Found, etag: &str, path: &str) -> response::Builder {
    let (kind, extension) = match asked.format {
        Format::Raw => ("application/vnd.ipld.raw".to_owned(), "bin"),
        Format::Car { with_duplicates, .. } => {
            let duplicates = if with_duplicates { 'y' } else { 'n' };
            (format!("application/vnd.ipld.car; version=1; order=dfs; dups={duplicates}"), "car")
        }
    };
    let roots = match found {
        Found::Raw(block) => block.cid().to_string(),
        Found::Car { roots, .. } => roots.iter().map(Cid::to_string).collect::<Vec<_>>().join(","),
    };
    let filename = asked.filename.clone().unwrap_or_else(|| format!("{}.{extension}", asked.content.root));
    Response::builder()
        .header(CONTENT_TYPE, kind)
        .header(CONTENT_DISPOSITION, format!("attachment; filename=\"{filename}\""))
        .header(ETAG, etag)
        .header(CACHE_CONTROL, IMMUTABLE)
        // The format may come from there.
        .header(VARY, ACCEPT.as_str())
        // As it came: encoded, so that it can stand in a header.
        .header(X_IPFS_PATH, path)
        .header(X_IPFS_ROOTS, roots)
        .header(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
}

fn refused(refusal: Refusal) -> Response<Body> {
    let mut answer = Response::new(full(format!("{}\n", refusal.text).into()));
    *answer.status_mut() = refusal.status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // What is not here may be here in a moment.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    answer
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
