#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ww_fuzz::run("request", bytes));

#[cfg(not(fuzzing))]
fn main() {}
