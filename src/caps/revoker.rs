//! `Revoker`: takes a capability back.

use std::rc::Rc;

use capnp::Error;
use tokio_util::sync::CancellationToken;
use ww_schema::peer_capnp::revoker;

use super::membrane::Counted;

/// The capability that cancels `revoked`. Dropping it cancels nothing.
pub(super) fn revoker(revoked: CancellationToken, counted: Counted) -> revoker::Client {
    capnp_rpc::new_client(Server(revoked, counted))
}

struct Server(CancellationToken, #[expect(dead_code, reason = "is counted")] Counted);

impl revoker::Server for Server {
    async fn revoke(self: Rc<Self>, _: revoker::RevokeParams, _: revoker::RevokeResults) -> Result<(), Error> {
        self.0.cancel();
        Ok(())
    }
}
