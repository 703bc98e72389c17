//! Tests of whole operations, with real compilers. They need a Rust toolchain that has wasm32-wasip2.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod build;
mod project;
