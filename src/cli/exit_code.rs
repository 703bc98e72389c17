//! The exit codes of `ww`; `docs/exit-codes.md` is the table for users.

/// All went well.
pub(super) const SUCCESS: u8 = 0;
/// Anything without a code of its own.
pub(super) const FAILURE: u8 = 1;
/// The command line is wrong.
pub(super) const USAGE: u8 = 2;
/// There is no Wetfile, or it has errors.
pub(super) const WETFILE: u8 = 3;
/// A guest could not be built.
pub(super) const BUILD: u8 = 4;
/// An image could not be assembled.
pub(super) const IMAGE: u8 = 5;
/// All was published in the local blockstore, but not pushed to the Kubo node.
pub(super) const PUSH: u8 = 6;
/// What an argument names is not there: content, a pin, a file or folder, or a guest or image of the Wetfile.
pub(super) const NOT_FOUND: u8 = 7;
/// Content is malformed, or over a limit.
pub(super) const INVALID: u8 = 8;
/// The blockstore is damaged.
pub(super) const STORE_DAMAGED: u8 = 9;
/// The lock is missing, cannot be used, or is out of date. This and the following are the findings of `ww verify`; of
/// several the first in this order counts.
pub(super) const LOCK: u8 = 10;
/// `ww verify`: a file is not what it was, is missing, or is too much.
pub(super) const ALTERED: u8 = 11;
/// `ww verify --rebuild`: two builds of the same differ, or differ from the lock. It comes before those that follow.
pub(super) const NOT_REPRODUCIBLE: u8 = 18;
/// `ww verify`: a program is empty or no component.
pub(super) const NOT_COMPONENT: u8 = 12;
/// `ww verify`: `bin/main.wasm` does not export `wasi:cli/run`.
pub(super) const NOT_PROGRAM: u8 = 13;
/// `ww verify`: a program imports what no cell has.
pub(super) const IMPORT: u8 = 14;
/// `ww verify`: what an image asks for cannot be told. It comes before the following two.
pub(super) const REQUEST: u8 = 17;
/// `ww verify`: a CID was made under another profile.
pub(super) const PROFILE: u8 = 15;
/// `ww verify`: a guest was compiled by a toolchain that the lock does not know, and all else agrees.
pub(super) const INCONCLUSIVE: u8 = 16;

/// `ww run`: `ww` itself failed, also by a wrong command line. This and the following are those of shells and of
/// `docker run`.
pub(super) const RUN_FAILURE: u8 = 125;
/// `ww run`: what was to be run cannot be run.
pub(super) const RUN_NOT_RUNNABLE: u8 = 126;
/// `ww run`: what was to be run is not there.
pub(super) const RUN_NOT_FOUND: u8 = 127;
/// `ww run`: the guest ran for as long as it may. What `timeout` of GNU ends with.
pub(super) const RUN_OUT_OF_TIME: u8 = 124;
/// `ww run`: the guest trapped. 128 + 6, as after `SIGABRT`.
pub(super) const RUN_TRAPPED: u8 = 134;
/// `ww run`: the guest was killed. 128 + 9, as after `SIGKILL`.
pub(super) const RUN_KILLED: u8 = 137;
/// Nobody reads standard output any more. 128 + 13, as after `SIGPIPE`, with which other programs end then.
pub(super) const READER_GONE: u8 = 141;
/// Added to the number of a signal that ended the command.
pub(super) const SIGNAL_BASE: u8 = 128;
