//! `Host`: the machine, as far as a cell may see it.

use std::rc::Rc;

use capnp::capability::Client;
use capnp::{Error, any_pointer};
use tokio_util::sync::CancellationToken;
use ww_schema::peer_capnp::{executor, host};

use super::executor::{failed, texts};
use super::membrane::Membranes;
use super::methods::Methods;
use super::revoker::revoker;
use crate::cell::Account;
use crate::grant::Reach;
use crate::swarm::Swarm;

/// The capability over this node's `swarm`, for the cell with this `account`: with the `executor` that belongs to it, and
/// with where it may make the node connect to, if anywhere.
pub fn host(swarm: Swarm, executor: executor::Client, connect: Option<Reach>, account: &Account) -> host::Client {
    capnp_rpc::new_client(Server { swarm, executor, connect, membranes: Membranes::new(account) })
}

/// What a cell has in place of a first capability that was handed nothing.
pub fn nothing() -> Client {
    capnp_rpc::new_broken_cap(Error::failed(NOTHING.into()))
}

/// What a cell is told that was handed nothing.
const NOTHING: &str = "this cell was handed no capability; its parent can give it one as `bootstrap` in `Module.spawn`";

/// What a cell is told that may not make the node connect.
const NO_CONNECT: &str = "this cell may not connect to others; `--grant connect` lets it reach public addresses, and \
                          `--grant connect:NETWORK` those of a network such as 192.168.0.0/16";

struct Server {
    swarm: Swarm,
    executor: executor::Client,
    connect: Option<Reach>,
    membranes: Membranes,
}

impl host::Server for Server {
    async fn id(self: Rc<Self>, _: host::IdParams, mut results: host::IdResults) -> Result<(), Error> {
        results.get().set_id(self.swarm.id());
        Ok(())
    }

    async fn addrs(self: Rc<Self>, _: host::AddrsParams, mut results: host::AddrsResults) -> Result<(), Error> {
        let addrs = self.swarm.addrs().await;
        fill(results.get().init_addrs(addrs.len() as u32), &addrs);
        Ok(())
    }

    async fn peers(self: Rc<Self>, _: host::PeersParams, mut results: host::PeersResults) -> Result<(), Error> {
        let peers = self.swarm.peers().await;
        let mut list = results.get().init_peers(peers.len() as u32);
        for (index, peer) in (0..).zip(&peers) {
            let mut entry = list.reborrow().get(index);
            entry.set_id(&peer.id);
            fill(entry.init_addrs(peer.addrs.len() as u32), &peer.addrs);
        }
        Ok(())
    }

    async fn connect(self: Rc<Self>, params: host::ConnectParams, _: host::ConnectResults) -> Result<(), Error> {
        let reach = self.connect.as_ref().ok_or_else(|| Error::failed(NO_CONNECT.into()))?;
        let params = params.get()?;
        let id = params.get_id()?.to_str()?;
        let addrs = texts(params.get_addrs()?)?;
        self.swarm.connect_within(id, &addrs, reach).await.map_err(|error| failed(&error))
    }

    async fn executor(
        self: Rc<Self>,
        _: host::ExecutorParams,
        mut results: host::ExecutorResults,
    ) -> Result<(), Error> {
        results.get().set_executor(self.executor.clone());
        Ok(())
    }

    async fn restrict(
        self: Rc<Self>,
        params: host::RestrictParams,
        mut results: host::RestrictResults,
    ) -> Result<(), Error> {
        let (inner, methods) = {
            let params = params.get()?;
            (capability(params.get_capability())?, Methods::read(params.get_methods()?)?)
        };
        let restricted = self.membranes.restrict(inner, methods).await?;
        results.get().init_capability().set_as_capability(restricted.hook);
        Ok(())
    }

    async fn revocable(
        self: Rc<Self>,
        params: host::RevocableParams,
        mut results: host::RevocableResults,
    ) -> Result<(), Error> {
        let inner = capability(params.get()?.get_capability())?;
        let revoked = CancellationToken::new();
        let counted = self.membranes.count()?;
        let revocable = self.membranes.revocable(inner, revoked.clone()).await?;
        let mut results = results.get();
        results.reborrow().init_capability().set_as_capability(revocable.hook);
        results.set_revoker(revoker(revoked, counted));
        Ok(())
    }
}

/// The capability that a caller passes in.
fn capability(pointer: any_pointer::Reader<'_>) -> Result<Client, Error> {
    match pointer.is_null() {
        true => Err(Error::failed("`capability` is null".into())),
        false => pointer.get_as_capability(),
    }
}

fn fill(mut list: capnp::text_list::Builder<'_>, texts: &[String]) {
    for (index, text) in (0..).zip(texts) {
        list.set(index, text);
    }
}
