//! Serving the blockstore over HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::blockstore::Blockstore;
use crate::serve::gateway::Gateway;
use crate::serve::{Limits, Server};

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The address cannot be listened on: it is taken, say, or not one of this machine.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Serves what is pinned in `store` as a trustless gateway, until `stop` is ready and the answers under way have ended, or
/// had their time. `is_ready` is told the address, in which port 0 has become a free one.
///
/// # Errors
/// If the address cannot be listened on, or `is_ready` fails.
pub async fn serve_gateway<E: From<GatewayError>>(
    store: Arc<dyn Blockstore>,
    address: SocketAddr,
    is_ready: impl FnOnce(SocketAddr) -> Result<(), E>,
    stop: impl Future<Output = ()>,
) -> Result<(), E> {
    let failed = |source| GatewayError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    is_ready(listener.local_addr().map_err(failed)?)?;
    Gateway::new(store).serve(Server::new(listener, Limits::default()), stop).await;
    Ok(())
}
