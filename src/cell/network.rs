//! What a cell was refused of the network, counted so that whoever runs it can be told: the guest learns no more than that
//! something is not permitted, and many a program says only that it has failed.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::component::Linker;
use wasmtime_wasi::p2::bindings::sockets::{ip_name_lookup, tcp_create_socket, udp_create_socket};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsCtxView, WasiSocketsView};

use super::process::CellState;

/// What a cell was refused of the network, for want of a grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkRefused {
    /// How often it was refused a socket, having no network at all.
    pub sockets: u64,
    /// How often it was refused the look-up of a name, likewise.
    pub lookups: u64,
    /// How often it could not reach an address that its network does not have.
    pub addresses: u64,
    /// The first of these.
    pub first_address: Option<IpAddr>,
}

impl NetworkRefused {
    /// Whether it was refused nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Counts what one cell is refused.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    sockets: AtomicU64,
    lookups: AtomicU64,
    addresses: AtomicU64,
    first_address: OnceLock<IpAddr>,
}

impl Refusals {
    pub(super) fn read(&self) -> NetworkRefused {
        NetworkRefused {
            sockets: self.sockets.load(Ordering::Relaxed),
            lookups: self.lookups.load(Ordering::Relaxed),
            addresses: self.addresses.load(Ordering::Relaxed),
            first_address: self.first_address.get().copied(),
        }
    }

    /// Notes an address that its grant does not have.
    pub(super) fn address(&self, address: IpAddr) {
        self.addresses.fetch_add(1, Ordering::Relaxed);
        let _ = self.first_address.set(address);
    }
}

/// Has the functions counted that a cell without a network is refused. Each of their interfaces has only one that such a cell
/// can get to.
pub(super) fn add_to_linker(linker: &mut Linker<CellState>) -> wasmtime::Result<()> {
    tcp_create_socket::add_to_linker::<_, WasiSockets>(linker, socket)?;
    udp_create_socket::add_to_linker::<_, WasiSockets>(linker, socket)?;
    ip_name_lookup::add_to_linker::<_, WasiSockets>(linker, lookup)
}

fn socket(state: &mut CellState) -> WasiSocketsCtxView<'_> {
    count(state, |refusals| &refusals.sockets);
    state.sockets()
}

fn lookup(state: &mut CellState) -> WasiSocketsCtxView<'_> {
    count(state, |refusals| &refusals.lookups);
    state.sockets()
}

fn count(state: &CellState, of: fn(&Refusals) -> &AtomicU64) {
    if !state.has_network {
        of(state.limiter.account().network_refusals()).fetch_add(1, Ordering::Relaxed);
    }
}
