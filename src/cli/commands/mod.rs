//! One file per command: its flags, and the operation that they are turned into.

pub(super) mod build;
pub(super) mod car;
pub(super) mod cat;
pub(super) mod cid;
pub(super) mod completions;
pub(super) mod doctor;
pub(super) mod gateway;
pub(super) mod gc;
pub(super) mod get;
pub(super) mod graph;
pub(super) mod init;
pub(super) mod inspect;
pub(super) mod ls;
pub(super) mod pin;
pub(super) mod publish;
mod rebuild;
pub(super) mod run;
mod run_watch;
pub(super) mod schema;
pub(super) mod store;
pub(super) mod verify;
pub(super) mod why;
