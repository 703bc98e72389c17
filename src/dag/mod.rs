//! Codecs for content that is named by its hash, as IPFS has it: blocks, dag-pb, UnixFS and CAR.
//!
//! * [`block`]: a [`Block`] is bytes and the [`Cid`] that they were checked against.
//! * [`pb`]: dag-pb, the format of a node with links.
//! * [`unixfs`]: files, directories and symbolic links as dag-pb nodes; built under a named [`unixfs::Profile`], such that
//!   the CIDs are those that Kubo gives, and walked again.
//! * [`car`]: archives of blocks.
//! * [`ContentPath`]: `/ipfs/CID/a/b` and the like, as people type it; [`Scope`]: how much of what is there.
//!
//! Everything here is pure: values in, values or errors out. Nothing opens a file, waits, or keeps a block; who calls
//! brings the bytes and takes them. Everything that decodes takes bytes from anyone: it never panics, recurses no deeper
//! than a constant, and allocates nothing by a length that it has not compared with what is there.
//!
//! Not here: hash functions other than SHA2 and identity, codecs other than raw and dag-pb (DAG-CBOR only as far as
//! the header of a CAR needs it), writing CARv2 or its index, chunking by content, storing of modes and times.

pub mod block;
pub mod car;
mod cid_text;
mod path;
pub mod pb;
mod protobuf;
mod scope;
#[cfg(test)]
pub(crate) mod suites;
#[cfg(test)]
mod testing;
pub mod unixfs;

pub use block::{BLOCK_BYTES_MAX, Block, BlockError, Cid};
pub use cid::Version;
pub use cid_text::{CidTextError, CodecName, HashName, parse_cid_text};
pub use path::{ContentPath, ContentPathError};
pub use scope::{Scope, UnknownScope};
