//! One call: the request, the wait for its answer, and what the head of the answer means.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Client;
use super::address::Place;
use super::answer::{Answer, Limits, check_framed, reported};
use super::connect::Line;
use super::upload::{RequestBody, Upload, Watch};
use crate::remote::{Cause, Stage, shown};

/// The longest body of an error that is read, in bytes. What is longer is no message for a person.
const ERROR_BYTES_MAX: u64 = 64 * 1024;

/// What a program says of itself. Kubo refuses what starts with `Mozilla`.
const AGENT: &str = concat!("ww/", env!("CARGO_PKG_VERSION"));

/// A call of the RPC.
pub(super) struct Call {
    /// Such as `dag/import`.
    pub(super) name: &'static str,
    /// The parameters, not yet encoded.
    pub(super) query: Vec<(&'static str, String)>,
    /// From the end of the request to the head of the answer.
    pub(super) head: Duration,
    /// For all of it.
    pub(super) total: Duration,
    /// The longest body of the answer, in bytes.
    pub(super) bytes_max: u64,
}

impl Call {
    /// Adds a parameter.
    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }
}

impl Client {
    /// Makes a call without content; gives an answer that is no error until now.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, Cause> {
        let watch = Watch::new(true);
        self.exchange(call, false, || RequestBody::Empty, &watch).await
    }

    /// Makes a call with a CAR.
    pub(super) async fn upload(&self, call: &Call, upload: Upload, watch: &Arc<Watch>) -> Result<Answer, Cause> {
        let mut upload = Some(upload);
        let body =
            || RequestBody::Upload(upload.take().expect("a new connection was not used, so this is not repeated"));
        self.exchange(call, true, body, watch).await
    }

    async fn exchange(
        &self,
        call: &Call,
        is_upload: bool,
        mut body: impl FnMut() -> RequestBody,
        watch: &Watch,
    ) -> Result<Answer, Cause> {
        let total = Instant::now() + call.total;
        // What can be sent once only must not meet a connection that was closed meanwhile.
        let mut is_new = is_upload;
        let (line, response) = loop {
            let mut line = self.line(is_new, total, call).await?;
            match self.response(call, &mut line, body(), watch, total).await {
                // The other side closed a connection that was kept. Every call without content may be made twice.
                Err(Cause::Broken(_)) if line.is_used => is_new = true,
                response => break (line, response?),
            }
        };
        let is_kept = !is_upload;
        let (head, body) = response.into_parts();
        if head.status == StatusCode::OK {
            check_kind(&head.headers)?;
            check_framed(&head)?;
            let limits = Limits { bytes_max: call.bytes_max, total, total_limit: call.total, is_kept };
            return Ok(Answer::new(self.clone(), line, body, limits));
        }
        watch.stop();
        let limits = Limits { bytes_max: ERROR_BYTES_MAX, total, total_limit: call.total, is_kept };
        Err(refusal(head.status, &head.headers, Answer::new(self.clone(), line, body, limits)).await)
    }

    /// A connection; a new one if the kept ones are not wanted.
    async fn line(&self, is_new: bool, total: Instant, call: &Call) -> Result<Line, Cause> {
        let limit = self.deadlines().connect;
        let deadline = (Instant::now() + limit).min(total);
        let connector = self.connector();
        let connecting =
            async { if is_new { connector.new_line(deadline).await } else { connector.line(deadline).await } };
        match timeout_at(deadline, connecting).await {
            Ok(line) => line,
            Err(_) if deadline == total => Err(Cause::Late { stage: Stage::Total, limit: call.total }),
            Err(_) => Err(Cause::Late { stage: Stage::Connect, limit }),
        }
    }

    /// Sends a request and waits for the head of the answer, which may come before all is sent.
    async fn response(
        &self,
        call: &Call,
        line: &mut Line,
        body: RequestBody,
        watch: &Watch,
        total: Instant,
    ) -> Result<Response<Incoming>, Cause> {
        let mut sending = std::pin::pin!(line.sender.send_request(self.request(call, body)?));
        loop {
            let (is_sent, last) = watch.progress();
            let (stage, limit) = if is_sent { (Stage::Head, call.head) } else { (Stage::Send, self.deadlines().idle) };
            let deadline = (last + limit).min(total);
            tokio::select! {
                biased;
                response = &mut sending => {
                    return response.map_err(|error| match watch.take_failure() {
                        Some(failure) => Cause::Source(failure),
                        None => Cause::Broken(error.into()),
                    });
                }
                () = sleep_until(deadline) => {
                    if deadline == total {
                        return Err(Cause::Late { stage: Stage::Total, limit: call.total });
                    }
                    if watch.progress() == (is_sent, last) {
                        return Err(Cause::Late { stage, limit });
                    }
                }
            }
        }
    }

    fn request(&self, call: &Call, body: RequestBody) -> Result<Request<RequestBody>, Cause> {
        let (prefix, host) = match &self.address().0 {
            Place::Unix(_) => ("", "localhost".to_owned()),
            Place::Tcp(tcp) => (tcp.prefix.as_str(), tcp.authority()),
        };
        let mut path = format!("{prefix}/api/v0/{}", call.name);
        for (index, (name, value)) in call.query.iter().enumerate() {
            path.push(if index == 0 { '?' } else { '&' });
            path.push_str(name);
            path.push('=');
            percent_encode(&mut path, value);
        }
        let mut request = Request::builder().method(Method::POST).uri(path).header(HOST, host);
        request = request.header(USER_AGENT, AGENT).header(ACCEPT, "*/*");
        if let Some(token) = self.token() {
            request = request.header(AUTHORIZATION, token.header());
        }
        request = match body.content_type() {
            Some(kind) => request.header(CONTENT_TYPE, kind),
            None => request.header(CONTENT_LENGTH, 0),
        };
        request.body(body).map_err(|error| Cause::Broken(error.into()))
    }
}

/// Refuses an answer that is a page for people: whoever listens there is no Kubo node.
fn check_kind(headers: &HeaderMap) -> Result<(), Cause> {
    let kind = content_type(headers);
    let is_page = kind.starts_with("text/html") || kind.starts_with("application/xhtml");
    if is_page { Err(Cause::Kind { expected: "an answer of Kubo", found: shown(&kind) }) } else { Ok(()) }
}

fn content_type(headers: &HeaderMap) -> String {
    let kind = headers.get(CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase());
    kind.unwrap_or_default()
}

/// What an answer with another status than 200 means.
async fn refusal(status: StatusCode, headers: &HeaderMap, answer: Answer) -> Cause {
    let number = status.as_u16();
    if status.is_redirection() {
        let location = headers.get(LOCATION).map(|to| shown(&String::from_utf8_lossy(to.as_bytes())));
        return Cause::Redirect { status: number, location: location.unwrap_or_default() };
    }
    let is_page = check_kind(headers).is_err();
    let body = answer.all().await;
    let report = body.as_ref().ok().and_then(|body| reported(body));
    let message = match (&report, body) {
        (Some(message), _) => message.clone(),
        // Why the rest of a message did not come matters less than the status.
        (None, Err(_)) => String::new(),
        (None, Ok(_)) if is_page => "an HTML page".into(),
        (None, Ok(body)) => shown(&String::from_utf8_lossy(&body)),
    };
    match number {
        401 | 403 => Cause::Denied { status: number, message },
        404 | 405 => Cause::Unknown { status: number, message },
        500 if report.is_some() && is_absence(&message) => Cause::NotFound { message },
        500 if report.is_some() => Cause::Reported(message),
        _ => Cause::Status { status: number, message },
    }
}

/// Whether Kubo says that it does not have a block. There is no code for it: this is the text of `ipld.ErrNotFound` in
/// go-ipld-format, which is in every message about it.
fn is_absence(message: &str) -> bool {
    message.contains("ipld: could not find ")
}

/// Appends `text` with all but the unreserved characters of RFC 3986 encoded.
fn percent_encode(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_encoded() {
        let mut out = String::new();
        percent_encode(&mut out, "a@1.0/ü &=%+\n");
        assert_eq!(out, "a%401.0%2F%C3%BC%20%26%3D%25%2B%0A");
    }
}
