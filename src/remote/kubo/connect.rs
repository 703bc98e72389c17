//! Connections to a Kubo node: TCP, TLS and unix sockets, and those that are kept for the next request.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig};

use super::CONNECTIONS_KEPT_MAX;
use super::address::{Family, Host, Place, Tcp};
use super::upload::RequestBody;
use crate::escape;
use crate::remote::Cause;

/// The most addresses of a name that are tried. Names of services have one or two for each family.
const ADDRESSES_MAX: usize = 8;

/// Bytes that are read ahead of who takes the answer.
const BUFFER_BYTES: usize = 256 * 1024;

/// Makes connections, and keeps those that are free.
pub(super) struct Connector {
    place: Place,
    tls: Option<TlsConnector>,
    kept: Mutex<Vec<Line>>,
}

/// A connection with its task, which ends with it.
pub(super) struct Line {
    pub(super) sender: SendRequest<RequestBody>,
    /// Whether it has had a request before, so that the other side may have closed it meanwhile.
    pub(super) is_used: bool,
    task: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connector {
    /// Reads the certificates that the system trusts, if they are needed.
    pub(super) fn new(place: Place) -> Result<Self, rustls::Error> {
        let tls = match &place {
            Place::Tcp(tcp) if tcp.tls => Some(tls_connector()?),
            _ => None,
        };
        Ok(Self { place, tls, kept: Mutex::default() })
    }

    /// A connection that was kept, or a new one.
    pub(super) async fn line(&self, deadline: Instant) -> Result<Line, Cause> {
        while let Some(mut line) = self.take() {
            if line.sender.ready().await.is_ok() {
                return Ok(line);
            }
        }
        self.new_line(deadline).await
    }

    /// A new connection.
    pub(super) async fn new_line(&self, deadline: Instant) -> Result<Line, Cause> {
        let stream = match &self.place {
            Place::Unix(path) => {
                let address = escape::path(path);
                let stream = UnixStream::connect(path).await;
                Box::new(stream.map_err(|source| Cause::Connect { address, source })?) as BoxStream
            }
            Place::Tcp(tcp) => self.tcp_stream(tcp, deadline).await?,
        };
        let handshake = http1::Builder::new().max_buf_size(BUFFER_BYTES).handshake(TokioIo::new(ReadsOn::new(stream)));
        let (sender, connection) = handshake.await.map_err(|error| Cause::Broken(error.into()))?;
        // Its errors reach whoever has a request on it.
        let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Line { sender, is_used: false, task })
    }

    /// Keeps a connection on which an answer ended, for the next request.
    pub(super) fn keep(&self, mut line: Line) {
        line.is_used = true;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < CONNECTIONS_KEPT_MAX && !line.sender.is_closed() {
            kept.push(line);
        }
    }

    fn take(&self) -> Option<Line> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn tcp_stream(&self, tcp: &Tcp, deadline: Instant) -> Result<BoxStream, Cause> {
        let stream = connect(&addresses(tcp).await?, deadline).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = match &tcp.host {
            Host::Ip(ip) => ServerName::from(*ip),
            Host::Name(name, _) => ServerName::try_from(name.clone()).map_err(|error| Cause::Tls(error.into()))?,
        };
        let stream = tls.connect(name, stream).await.map_err(|error| Cause::Tls(error.into()))?;
        Ok(Box::new(stream))
    }
}

/// Trusts what the system trusts. The provider is named, since another library in this process may bring its own.
fn tls_connector() -> Result<TlsConnector, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_platform_verifier()?;
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The addresses of a host. Those of `localhost` are of this machine, whatever a resolver says.
async fn addresses(tcp: &Tcp) -> Result<Vec<SocketAddr>, Cause> {
    let (name, family) = match &tcp.host {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, tcp.port)]),
        Host::Name(name, family) => (name, *family),
    };
    let host = escape::text(name).into_owned();
    let found = tokio::net::lookup_host((name.as_str(), tcp.port)).await;
    let found = found.map_err(|source| Cause::Resolve { host: host.clone(), source })?;
    let is_wanted = |ip: IpAddr| match family {
        Family::Any => true,
        Family::V4 => ip.is_ipv4(),
        Family::V6 => ip.is_ipv6(),
    };
    let is_allowed = |ip: IpAddr| !tcp.is_local() || ip.to_canonical().is_loopback();
    let usable = found.filter(|address| is_wanted(address.ip()) && is_allowed(address.ip()));
    let usable: Vec<_> = usable.take(ADDRESSES_MAX).collect();
    if usable.is_empty() {
        let wanted = if tcp.is_local() { "loopback" } else { "usable" };
        return Err(Cause::NoAddress { host, wanted });
    }
    Ok(usable)
}

/// Connects to the first address that can be reached. Each gets its share of the time that is left, so that one that
/// drops packets does not keep the others from being tried.
async fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Cause> {
    let mut failed = None;
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let shares = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let source = match tokio::time::timeout(left / shares, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests are written whole. Where the option is not known, they only take longer.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        failed = Some(Cause::Connect { address: address.to_string(), source });
    }
    Err(failed.expect("a host has at least one address"))
}

trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

type BoxStream = Box<dyn ByteStream>;

/// A stream that is still read when it takes no more.
///
/// Kubo may answer a request before it has read it, and then closes the connection. What is written after that fails,
/// and would have hyper drop the answer, which says why. So here a failed write waits for ever: reading brings the
/// answer or the end of the stream, and otherwise a deadline passes.
struct ReadsOn {
    stream: BoxStream,
    is_write_broken: bool,
}

impl ReadsOn {
    fn new(stream: BoxStream) -> Self {
        Self { stream, is_write_broken: false }
    }

    fn unless_broken<T>(
        &mut self,
        write: impl FnOnce(Pin<&mut BoxStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.is_write_broken {
            return Poll::Pending;
        }
        let written = write(Pin::new(&mut self.stream));
        self.is_write_broken = matches!(written, Poll::Ready(Err(_)));
        if self.is_write_broken { Poll::Pending } else { written }
    }
}

impl AsyncRead for ReadsOn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ReadsOn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.unless_broken(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unless_broken(|stream| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unless_broken(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_write_broken {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
