//! The capabilities that a cell can hold, one file per interface of the schema.
//!
//! They check what a guest says, and pass it on to whoever does the work: to the [`Swarm`](crate::swarm::Swarm), to a
//! [`Process`](crate::cell::Process) and its pipes, or, for new cells, to a [`Spawn`] of the layer above. Each holds what
//! it gives access to and nothing more, so handing one to another cell hands over just that. A [`membrane`] around any
//! capability hands over less.
//!
//! A guest can call anything with anything, at any time and from many calls at once: no method holds a lock while it
//! waits, and a call that is cancelled takes nothing with it.

mod byte_stream;
mod connects;
mod executor;
mod host;
mod membrane;
mod methods;
mod module;
mod process;
mod revoker;
mod terminal;
#[cfg(test)]
mod tests;
mod texts;

pub use executor::{
    Bootstrap, Child, Loadable, Loaded, LoadedImage, Order, Room, Spawn, SpawnError, Stream, Wasm, executor,
};
pub use host::{HostGrants, host, nothing};
