//! Answers: what their heads say, and their bodies within bounds of time.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use reqwest::{Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::remote::{Cause, Deadlines, Stage, shown};

/// The longest text of a failure that is read, in bytes: some lines of a terminal.
const MESSAGE_BYTES_MAX: usize = 512;

fn header(answer: &Response, name: HeaderName) -> Option<String> {
    let value = answer.headers().get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Checks whether an answer says that it is of the type `expected`, and not compressed.
pub(super) fn check_headers(answer: &Response, expected: &'static str) -> Result<(), Cause> {
    if let Some(encoding) = header(answer, CONTENT_ENCODING)
        && !encoding.eq_ignore_ascii_case("identity")
    {
        let text = format!("it is compressed as `{}`, which was not asked for", shown(&encoding));
        return Err(Cause::Malformed(text.into()));
    }
    let found = header(answer, CONTENT_TYPE).unwrap_or_default();
    let essence = found.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(expected) { Ok(()) } else { Err(Cause::Kind { expected, found: shown(&found) }) }
}

/// What an answer with another status than 200 means, with what it says in its body if that is text and comes soon.
pub(super) async fn failure(status: StatusCode, answer: Response, patience: Duration) -> Cause {
    let is_text = header(&answer, CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/plain"));
    let message = if is_text { shown(&first_line(answer, patience).await) } else { String::new() };
    match status.as_u16() {
        // 412 is the answer to `only-if-cached`; some gateways give it, or 410, for what they do not want to have.
        404 | 410 | 412 => Cause::NotFound { message },
        status @ (401 | 403) => Cause::Denied { status, message },
        status => Cause::Status { status, message },
    }
}

async fn first_line(mut answer: Response, patience: Duration) -> String {
    let mut said = Vec::new();
    let deadline = Instant::now() + patience;
    while said.len() < MESSAGE_BYTES_MAX {
        let Ok(Ok(Some(piece))) = timeout_at(deadline, answer.chunk()).await else { break };
        said.extend_from_slice(&piece[..piece.len().min(MESSAGE_BYTES_MAX - said.len())]);
    }
    let said = String::from_utf8_lossy(&said);
    said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// A body that is being read.
struct Body {
    answer: Response,
    idle: Duration,
    /// When [`Deadlines::PIECE_BYTES_MIN`] must have come.
    idle_at: Instant,
    /// How many bytes of that have come.
    piece_bytes: u64,
}

/// The pieces of an answer's body, each no longer than the buffer of the HTTP client. The body must keep moving as
/// [`Deadlines::idle`] says, and end by `deadline`, which is `total` after the start.
pub(super) fn pieces(
    answer: Response,
    idle: Duration,
    deadline: Instant,
    total: Duration,
) -> impl Stream<Item = Result<Bytes, Cause>> + Send + 'static {
    let body = Body { answer, idle, idle_at: Instant::now() + idle, piece_bytes: 0 };
    stream::try_unfold(body, move |mut body| async move {
        let piece = timeout_at(body.idle_at.min(deadline), body.answer.chunk()).await.map_err(|_| {
            if body.idle_at < deadline {
                Cause::Late { stage: Stage::Receive, limit: body.idle }
            } else {
                Cause::Late { stage: Stage::Total, limit: total }
            }
        })?;
        let Some(piece) = piece.map_err(|error| Cause::Cut(error.without_url().into()))? else { return Ok(None) };
        body.piece_bytes += piece.len() as u64;
        if body.piece_bytes >= Deadlines::PIECE_BYTES_MIN {
            body.piece_bytes = 0;
            body.idle_at = Instant::now() + body.idle;
        }
        Ok(Some((piece, body)))
    })
}
