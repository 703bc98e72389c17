//! `ww` builds WebAssembly guests into images and runs them in sandboxed cells.
//!
//! The way from a `Wetfile.toml` to a running cell:
//!
//! 1. `wetfile` parses the manifest into a checked project with a dependency graph.
//! 2. `build` compiles the guests in dependency order, each with a compiler call of its own.
//! 3. `image` lays the results out as a tree (`bin/main.wasm`, `etc/`, `usr/lib/`) and swaps it in whole.
//! 4. `cell` compiles `bin/main.wasm` and runs it in a sandbox.
//! 5. `vat` carries Cap'n Proto RPC between the sandbox and its host, `caps` are the capabilities it finds there,
//!    and `swarm` is the libp2p node behind them; `host` joins these to a running cell.
//!
//! `dag` has the codecs of IPFS, which name a tree by its content; `tree` reads and writes such trees on disk, `blockstore`
//! keeps the blocks that they become, `remote` asks others for blocks and brings them some.
//!
//! `ops` has one function per thing a user can ask for, and `cli` is the command line over it. `ARCHITECTURE.md`
//! tells which module may use which, who owns what on disk, and where trust ends.
//!
//! The features `cell` and `swarm` are on by default. Without them the crate has what needs neither wasmtime nor libp2p.

pub mod atomic_file;
pub mod blockstore;
pub mod build;
#[cfg(all(feature = "cell", feature = "swarm"))]
pub mod caps;
#[cfg(feature = "cell")]
pub mod cell;
mod checksum;
#[cfg(all(feature = "cell", feature = "swarm"))]
pub mod cli;
pub mod dag;
pub mod escape;
mod folder;
pub mod grant;
#[cfg(all(feature = "cell", feature = "swarm"))]
pub mod host;
pub mod image;
#[cfg(all(feature = "cell", feature = "swarm"))]
pub mod ops;
mod private_file;
pub mod quantity;
pub mod remote;
pub mod serve;
#[cfg(feature = "swarm")]
pub mod swarm;
#[cfg(feature = "cell")]
pub mod terminal;
mod toml_nesting;
pub mod tree;
#[cfg(feature = "cell")]
pub mod vat;
pub mod vfs;
pub mod wasm_binary;
pub mod wetfile;
