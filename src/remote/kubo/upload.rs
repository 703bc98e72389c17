//! The body of a request: nothing, or a CAR as the one file of a form, sent while it is made.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::BoxStream;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::remote::{BoxError, Deadlines};

/// Bytes that are handed out at a time: what the deadline for progress is measured with.
const PIECE_BYTES: usize = 64 * 1024;

/// The body of a request.
pub(super) enum RequestBody {
    Empty,
    Upload(Upload),
}

/// A CAR on its way.
pub(super) struct Upload {
    boundary: String,
    /// What is still to be handed out before the stream is asked for more.
    ready: Bytes,
    /// The CAR; `None` after its end.
    car: Option<BoxStream<'static, Result<Bytes, BoxError>>>,
    watch: Arc<Watch>,
}

/// How far an upload has come, for whoever waits for the answer.
pub(super) struct Watch(Mutex<Sent>);

struct Sent {
    /// When the last piece was handed out that completed [`Deadlines::PIECE_BYTES_MIN`].
    last: Instant,
    /// Bytes since then.
    since: u64,
    is_done: bool,
    is_stopped: bool,
    /// Why the CAR ended early.
    failed: Option<BoxError>,
}

impl Upload {
    /// The form with this CAR, and what watches it.
    pub(super) fn new(car: BoxStream<'static, Result<Bytes, BoxError>>) -> (Self, Arc<Watch>) {
        let boundary = boundary();
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"ww.car\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let watch = Arc::new(Watch::new(false));
        (Self { boundary, ready: Bytes::from(head), car: Some(car), watch: watch.clone() }, watch)
    }
}

/// What separates the parts of the form: random, so that no block has it in it, be it one with this source text.
fn boundary() -> String {
    // Each of them has keys of its own from the system's random numbers.
    let random = || RandomState::new().build_hasher().finish();
    format!("ww-{:016x}{:016x}", random(), random())
}

impl Watch {
    /// For a request of which everything is sent already, or nothing.
    pub(super) fn new(is_done: bool) -> Self {
        Self(Mutex::new(Sent { last: Instant::now(), since: 0, is_done, is_stopped: false, failed: None }))
    }

    /// Whether all was handed out, and when the last progress was.
    pub(super) fn progress(&self) -> (bool, Instant) {
        let sent = self.sent();
        (sent.is_done, sent.last)
    }

    /// Has nothing more handed out: the answer is there and is a refusal.
    pub(super) fn stop(&self) {
        self.sent().is_stopped = true;
    }

    /// Why what was to be sent could not be read, if so.
    pub(super) fn take_failure(&self) -> Option<BoxError> {
        self.sent().failed.take()
    }

    fn sent(&self) -> std::sync::MutexGuard<'_, Sent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, bytes: usize) {
        let mut sent = self.sent();
        sent.since += bytes as u64;
        if sent.since >= Deadlines::PIECE_BYTES_MIN {
            (sent.since, sent.last) = (0, Instant::now());
        }
    }

    fn done(&self) {
        let mut sent = self.sent();
        (sent.is_done, sent.last) = (true, Instant::now());
    }
}

impl RequestBody {
    /// The content type that it is sent with.
    pub(super) fn content_type(&self) -> Option<String> {
        match self {
            Self::Empty => None,
            Self::Upload(upload) => Some(format!("multipart/form-data; boundary={}", upload.boundary)),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Upload(upload) => upload.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload(_) => SizeHint::new(),
        }
    }
}

impl Upload {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.watch.sent().is_stopped {
            // The connection is dropped with the answer. To end the body here would make it look whole.
            return Poll::Pending;
        }
        while self.ready.is_empty() {
            let Some(car) = &mut self.car else {
                self.watch.done();
                return Poll::Ready(None);
            };
            match std::task::ready!(car.as_mut().poll_next(cx)) {
                Some(Ok(piece)) => self.ready = piece,
                Some(Err(error)) => {
                    self.car = None;
                    // hyper takes it for a reason to break the connection, and tells nobody more than that.
                    self.watch.sent().failed = Some(error);
                    return Poll::Ready(Some(Err("what was to be sent cannot be read".into())));
                }
                None => {
                    self.car = None;
                    self.ready = Bytes::from(format!("\r\n--{}--\r\n", self.boundary));
                }
            }
        }
        let piece = self.ready.split_to(self.ready.len().min(PIECE_BYTES));
        self.watch.add(piece.len());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}
