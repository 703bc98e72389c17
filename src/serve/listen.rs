//! Taking connections, and ending them.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::steady::{Pace, Steady};

/// An answer's body: bytes, or the error that cuts it off.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The longest head of a request, in bytes. Hyper keeps twice that for each connection at most.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long nothing is taken after a connection could not be: the process is out of files, say.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// What clients may use up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. More of them wait until one ends.
    pub connections: usize,
    /// From the start of a connection, or the end of an answer, to the end of the next request's head.
    pub head: Duration,
    /// How long a client that is being answered may read less than [`Limits::PACE_BYTES`].
    pub window: Duration,
    /// How long answers may go on when the server is told to stop.
    pub stop: Duration,
}

impl Limits {
    /// What a client must read in [`Limits::window`], in bytes.
    pub const PACE_BYTES: usize = 16 * 1024;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            head: Duration::from_secs(30),
            window: Duration::from_secs(30),
            stop: Duration::from_secs(5),
        }
    }
}

/// Answers requests over HTTP/1.1.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    limits: Limits,
}

/// What answers requests.
pub(super) trait Service: Send + Sync + 'static {
    /// Answers one. Whatever goes wrong is an answer, too.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

impl Server {
    /// A server that takes connections from `listener`.
    pub fn new(listener: TcpListener, limits: Limits) -> Self {
        Self { listener, limits }
    }

    /// Whether only this machine can connect.
    pub(super) fn is_local(&self) -> bool {
        self.listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback())
    }

    /// Answers until `stop` is ready; then takes nothing more, and returns when the answers under way have ended or
    /// [`Limits::stop`] has passed.
    pub(super) async fn run(self, service: Arc<impl Service>, stop: impl Future<Output = ()>) {
        let connections = Arc::new(Semaphore::new(self.limits.connections));
        let graceful = GracefulShutdown::new();
        let take = async {
            loop {
                let (stream, permit) = self.take(&connections).await;
                tokio::spawn(talk(stream, self.limits, service.clone(), graceful.watcher(), permit));
            }
        };
        tokio::select! {
            () = stop => {}
            () = take => {}
        }
        drop(self.listener);
        let _ = timeout(self.limits.stop, graceful.shutdown()).await;
    }

    /// The next connection, once there is room for it.
    async fn take(&self, connections: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
        let permit = connections.clone().acquire_owned().await.expect("nobody closes it");
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return (stream, permit),
                Err(error) => {
                    tracing::warn!("cannot take a connection: {error}");
                    sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }
}

async fn talk(
    stream: TcpStream,
    limits: Limits,
    service: Arc<impl Service>,
    watcher: Watcher,
    _permit: OwnedSemaphorePermit,
) {
    // Small answers are not to wait for the acknowledgement of what went before.
    let _ = stream.set_nodelay(true);
    let stream = Steady::new(stream, Pace { bytes: Limits::PACE_BYTES, window: limits.window });
    let answer = service_fn(|request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!("a connection broke: {error}");
    }
}
