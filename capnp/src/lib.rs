//! The Cap'n Proto interfaces between a cell and its host, as Rust.
//!
//! The schemas are the `.capnp` files beside this crate's manifest; they are the documentation. The Rust below is
//! generated from them and committed, so that a build needs no schema compiler. After changing a schema, run
//! `cargo run -p ww-schema --example generate` (needs `capnp`, from Debian's `capnproto` and `libcapnp-dev`).

/// Generated from `peer.capnp`: `Host`, `Executor`, `Module`, `Process`, `ByteStream`, `Revoker`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::unimplemented,
    clippy::unwrap_used,
    reason = "generated code; the documentation is in the schema"
)]
#[rustfmt::skip]
pub mod peer_capnp;
