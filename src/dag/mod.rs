//! Codecs for content that is named by its hash, as IPFS has it.
//!
//! * [`block`]: a [`Block`] is bytes and the [`Cid`] that they were checked against.
//! * [`pb`]: dag-pb, the format of a node with links.
//! * [`car`]: archives of blocks.
//!
//! Everything here is pure: values in, values or errors out.

pub mod block;
pub mod car;
pub mod pb;
mod protobuf;
#[cfg(test)]
mod testing;

pub use block::{BLOCK_BYTES_MAX, Block, BlockError, Cid};
pub use cid::Version;
