//! `Host`: the machine, as far as a cell may see it.

use std::rc::Rc;

use capnp::Error;
use ww_schema::peer_capnp::{executor, host};

use super::executor::{failed, texts};
use crate::grant::Reach;
use crate::swarm::Swarm;

/// The capability over this node's `swarm`, with the `executor` that belongs to the cell it is made for, and with where
/// that cell may make the node connect to, if anywhere.
pub fn host(swarm: Swarm, executor: executor::Client, connect: Option<Reach>) -> host::Client {
    capnp_rpc::new_client(Server { swarm, executor, connect })
}

/// What a cell is told that may not make the node connect.
const NO_CONNECT: &str = "this cell may not connect to others; `--grant connect` lets it reach public addresses, and \
                          `--grant connect:NETWORK` those of a network such as 192.168.0.0/16";

struct Server {
    swarm: Swarm,
    executor: executor::Client,
    connect: Option<Reach>,
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
}

fn fill(mut list: capnp::text_list::Builder<'_>, texts: &[String]) {
    for (index, text) in (0..).zip(texts) {
        list.set(index, text);
    }
}
