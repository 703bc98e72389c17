//! Tests that run the real `ww`, with real guests and real compilers. They need what `make guests images` builds, and a
//! Rust toolchain that has wasm32-wasip2.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod asks;
mod authority;
mod build;
mod build_command;
mod build_messages;
mod capabilities;
mod children;
mod compile;
mod content;
mod docs;
mod doctor;
mod exit_codes;
mod fetch;
mod freshness;
mod fuzz;
mod hostile;
mod init;
mod keep_going;
mod kubo;
mod languages;
mod layout;
mod lazy;
mod lock;
mod manifest;
/// A server that plays what a test tells it; the unit tests of the clients have it, too.
#[allow(dead_code, reason = "not every test wants all of it")]
#[path = "../../src/remote/testing.rs"]
mod mock;
#[cfg(target_os = "linux")]
mod no_op;
mod oracle;
mod programs;
mod project;
mod pty;
mod publish;
mod raw_rpc;
mod rebuild;
mod run;
mod run_names;
mod store;
mod support;
mod swarm;
mod terminal;
mod tidy;
#[cfg(target_os = "linux")]
mod trace;
mod verify;
mod wasi;
mod watch;
