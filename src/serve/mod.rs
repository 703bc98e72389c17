//! Servers of ours.
//!
//! * [`gateway`]: answers for the local blockstore over HTTP, as a trustless gateway does.
//! * [`Server`]: connections over HTTP/1.1, within bounds: so many at once, each with so much time.
//!
//! Whoever connects may be anybody. Nothing that a client does, or does not do, holds more than its connection.

pub mod gateway;
mod listen;
mod steady;

pub use listen::{Limits, Server};
