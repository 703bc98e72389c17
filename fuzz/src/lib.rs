//! What is fuzzed: each target takes any bytes, and panics if the code under it does, or if something does not hold that
//! must hold for all input.
//!
//! `scripts/fuzz` runs the targets under libFuzzer. Ordinary tests (`tests/it/fuzz.rs`) run them on the committed corpora
//! only; they include this file.

mod dag;
mod kubo;
mod store;
mod text;
mod walks;

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All targets with their names, each of which has a file in `fuzz_targets/` and a folder in `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("car", dag::car),
    ("cid", text::cid),
    ("dag_pb", dag::dag_pb),
    ("kubo", kubo::answer),
    ("lock", text::lock),
    ("request", text::request),
    ("stat_cache", dag::stat_cache),
    ("store", store::store),
    ("text", text::forms),
    ("unixfs", dag::unixfs),
    ("walks", walks::walks),
    ("wetfile", text::wetfile),
];

/// Runs the target of this name.
///
/// # Panics
/// If there is none, or if it finds a mistake.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no target {name}"));
    target(bytes);
}
