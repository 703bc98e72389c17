//! The `ww` binary.

fn main() {}
