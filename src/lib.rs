//! `ww` builds WebAssembly guests into images and runs them in sandboxed cells.

pub mod atomic_file;
pub mod build;
pub mod cli;
pub mod escape;
pub mod image;
pub mod ops;
pub mod wasm_binary;
pub mod wetfile;
