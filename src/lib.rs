//! `ww` builds WebAssembly guests into images and runs them in sandboxed cells.

pub mod atomic_file;
pub mod cli;
pub mod escape;
pub mod wetfile;
