//! `ww`

pub mod atomic_file;
#[cfg(feature = "cell")]
pub mod cell;
pub mod escape;
#[cfg(feature = "swarm")]
pub mod swarm;
#[cfg(feature = "cell")]
pub mod vat;
