//! One file per command: its flags, and the operation that they are turned into.

pub(super) mod build;
pub(super) mod inspect;
pub(super) mod publish;
pub(super) mod run;
pub(super) mod verify;
