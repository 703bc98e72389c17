//! Capabilities that are less than others.

use capnp::capability::FromClientHook;
use capnp::traits::HasTypeId;

use crate::peer_capnp::{host, revoker};

/// Methods of an interface that a restricted capability has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    interface: u64,
    /// `None` is all of them.
    number: Option<u16>,
}

impl Method {
    /// The method with this number in the schema of an interface, such as `Method::of::<host::Client>(0)` for `Host.id`.
    pub fn of<Interface: HasTypeId>(number: u16) -> Self {
        Self { interface: Interface::TYPE_ID, number: Some(number) }
    }

    /// All methods of an interface.
    pub fn all<Interface: HasTypeId>() -> Self {
        Self { interface: Interface::TYPE_ID, number: None }
    }
}

/// The capability as far as `methods` go. The list holds for everything that is got through it, too.
///
/// # Errors
///
/// When the host refuses, or the connection has failed.
pub async fn restrict<C: FromClientHook>(
    host: &host::Client,
    capability: C,
    methods: &[Method],
) -> Result<C, capnp::Error> {
    let mut request = host.restrict_request();
    let mut params = request.get();
    params.reborrow().init_capability().set_as_capability(capability.into_client_hook());
    let mut list = params.init_methods(methods.len() as u32);
    for (index, method) in (0..).zip(methods) {
        let mut entry = list.reborrow().get(index);
        entry.set_interface(method.interface);
        match method.number {
            Some(number) => entry.set_method(number),
            None => entry.set_all(()),
        }
    }
    request.send().promise.await?.get()?.get_capability().get_as_capability()
}

/// The capability in a form that can be taken back, and what takes it back.
///
/// # Errors
///
/// When the host refuses, or the connection has failed.
pub async fn revocable<C: FromClientHook>(
    host: &host::Client,
    capability: C,
) -> Result<(C, revoker::Client), capnp::Error> {
    let mut request = host.revocable_request();
    request.get().init_capability().set_as_capability(capability.into_client_hook());
    let response = request.send().promise.await?;
    let results = response.get()?;
    Ok((results.get_capability().get_as_capability()?, results.get_revoker()?))
}
