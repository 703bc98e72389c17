//! Tests that run the real `ww`, with real guests and real compilers. They need what `make guests images` builds, and a
//! Rust toolchain that has wasm32-wasip2.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod build;
mod build_command;
mod children;
mod docs;
mod kubo;
mod layout;
mod project;
mod run;
mod store;
mod support;
mod swarm;
mod tidy;
