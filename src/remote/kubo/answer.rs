//! The answer of a Kubo node: read in pieces or lines, within its limits and deadlines, to its very end.
//!
//! Kubo says 200 before it knows how a call ends. An error after that comes as the trailer `X-Stream-Error`, which every
//! answer announces and only a failed one has, or as the last JSON object. So an answer is good only once it was read to
//! its end.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::BoxStream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::http::response::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::{Client, connect};
use crate::remote::{Cause, Deadlines, Stage, shown};

/// The trailer with the error of a call that failed after its answer began.
const STREAM_ERROR: &str = "x-stream-error";

/// The longest line of an answer, in bytes. The longest in use is that of `id`, with all addresses and protocols of a
/// node, which stay below 64 KiB.
pub(super) const LINE_BYTES_MAX: usize = 1024 * 1024;

/// An answer with status 200, of which the body is still to come.
pub(super) struct Answer {
    client: Client,
    /// `None` once the connection was given back.
    line: Option<connect::Line>,
    is_kept: bool,
    body: Incoming,
    idle: Duration,
    total: Instant,
    total_limit: Duration,
    bytes: u64,
    bytes_max: u64,
    /// Bytes since the last progress, and when it was.
    since: u64,
    last: Instant,
    is_ended: bool,
}

/// The limits of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes_max: u64,
    pub(super) total: Instant,
    pub(super) total_limit: Duration,
    /// Whether the connection can be used again. After an upload it cannot: there may be half of it on the way.
    pub(super) is_kept: bool,
}

impl Answer {
    pub(super) fn new(client: Client, line: connect::Line, body: Incoming, limits: Limits) -> Self {
        let idle = client.deadlines().idle;
        let Limits { bytes_max, total, total_limit, is_kept } = limits;
        let (line, last) = (Some(line), Instant::now());
        Self {
            client,
            line,
            is_kept,
            body,
            idle,
            total,
            total_limit,
            bytes: 0,
            bytes_max,
            since: 0,
            last,
            is_ended: false,
        }
    }

    /// The next bytes; `None` at the end of an answer that is whole and has no error.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Cause> {
        if self.is_ended {
            return Ok(None);
        }
        loop {
            let Some(frame) = self.frame().await? else {
                self.is_ended = true;
                if let Some(line) = self.line.take().filter(|_| self.is_kept) {
                    self.client.keep(line);
                }
                return Ok(None);
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    self.count(data.len())?;
                    return Ok(Some(data));
                }
                Err(frame) => {
                    let error = frame.trailers_ref().and_then(|trailers| trailers.get(STREAM_ERROR));
                    if let Some(error) = error.filter(|error| !error.is_empty()) {
                        return Err(Cause::Reported(shown(&String::from_utf8_lossy(error.as_bytes()))));
                    }
                }
            }
        }
    }

    async fn frame(&mut self) -> Result<Option<hyper::body::Frame<Bytes>>, Cause> {
        let idle = self.last + self.idle;
        match timeout_at(idle.min(self.total), self.body.frame()).await {
            Ok(frame) => frame.transpose().map_err(|error| Cause::Cut(error.into())),
            Err(_) if self.total <= idle => Err(Cause::Late { stage: Stage::Total, limit: self.total_limit }),
            Err(_) => Err(Cause::Late { stage: Stage::Receive, limit: self.idle }),
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), Cause> {
        self.since += bytes as u64;
        if self.since >= Deadlines::PIECE_BYTES_MIN {
            (self.since, self.last) = (0, Instant::now());
        }
        self.bytes += bytes as u64;
        if self.bytes > self.bytes_max {
            return Err(Cause::TooLong { what: "the body", limit: self.bytes_max });
        }
        Ok(())
    }

    /// All of it.
    pub(super) async fn all(mut self) -> Result<Bytes, Cause> {
        let Some(first) = self.piece().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.piece().await? else { return Ok(first) };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(piece) = self.piece().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// The one JSON object that it consists of.
    pub(super) async fn value<T: DeserializeOwned>(self) -> Result<T, Cause> {
        let mut lines = Lines::new(self);
        let value = lines.next().await?.ok_or(Cause::Empty)?;
        match lines.next::<serde::de::IgnoredAny>().await? {
            None => Ok(value),
            Some(_) => Err(Cause::malformed("something follows what was asked for")),
        }
    }

    /// Its pieces.
    pub(super) fn into_stream(self) -> BoxStream<'static, Result<Bytes, Cause>> {
        let next = |mut answer: Self| async move { Ok(answer.piece().await?.map(|piece| (piece, answer))) };
        Box::pin(futures::stream::try_unfold(self, next))
    }
}

/// Refuses an answer of which nobody could tell whether it is whole.
pub(super) fn check_framed(head: &Parts) -> Result<(), Cause> {
    let is_framed = head.headers.contains_key(TRANSFER_ENCODING) || head.headers.contains_key(CONTENT_LENGTH);
    if is_framed { Ok(()) } else { Err(Cause::Unframed) }
}

/// The error that Kubo sends as a JSON object, as the body of a status 500 or as the last line of an answer.
#[derive(Deserialize)]
struct Report {
    #[serde(rename = "Message")]
    message: String,
    #[serde(rename = "Type")]
    kind: String,
}

/// What Kubo reports in `text`, if it is such a report.
pub(super) fn reported(text: &[u8]) -> Option<String> {
    let report: Report = serde_json::from_slice(text).ok()?;
    (report.kind == "error").then(|| shown(&report.message))
}

/// An answer as JSON values, one a line.
pub(super) struct Lines {
    answer: Answer,
    buffer: BytesMut,
    /// Bytes at the start of the buffer that were searched for an end of line.
    searched: usize,
}

impl Lines {
    pub(super) fn new(answer: Answer) -> Self {
        Self { answer, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next value; `None` at the end of an answer that is whole and has no error in it.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Cause> {
        loop {
            let Some(line) = self.line().await? else { return Ok(None) };
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            if let Some(message) = reported(line) {
                return Err(Cause::Reported(message));
            }
            return match serde_json::from_slice(line) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(Cause::malformed(shown(&error.to_string()))),
            };
        }
    }

    async fn line(&mut self) -> Result<Option<Bytes>, Cause> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > LINE_BYTES_MAX {
                return Err(Cause::TooLong { what: "a line", limit: LINE_BYTES_MAX as u64 });
            }
            match self.answer.piece().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    self.searched = 0;
                    return Ok(Some(self.buffer.split().freeze()));
                }
            }
        }
    }
}
