//! Says which node it runs on, and where that listens.

use std::error::Error;

use ww_guest::peer_capnp::host;

fn main() {
    ww_guest::run(introduce)
}

/// `host` is what a cell begins with; `vendor/ww-schema/peer.capnp` says what can be done with it.
async fn introduce(host: host::Client) -> Result<(), Box<dyn Error>> {
    let id = host.id_request().send().promise.await?;
    println!("id {}", id.get()?.get_id()?.to_str()?);
    let addrs = host.addrs_request().send().promise.await?;
    for addr in addrs.get()?.get_addrs()? {
        println!("listening on {}", addr?.to_str()?);
    }
    Ok(())
}
