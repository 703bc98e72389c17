//! The fuzz targets, on their committed corpora. What a fuzzer finds is added to these.

use std::fs;
use std::panic::catch_unwind;

use crate::support::root;

#[expect(dead_code, unreachable_pub, reason = "it is the root of a crate of its own")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

#[test]
fn corpora_do_no_harm() {
    for (name, target) in targets::TARGETS {
        let mut inputs: Vec<_> = fs::read_dir(root().join("fuzz/corpus").join(name))
            .unwrap_or_else(|error| panic!("target {name} has no corpus: {error}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(inputs.len() > 2, "the corpus of {name} is empty");
        inputs.sort();
        for path in inputs {
            let bytes = fs::read(&path).unwrap();
            assert!(catch_unwind(|| target(&bytes)).is_ok(), "found by {}", path.display());
        }
    }
}

#[test]
fn every_target_is_a_program() {
    for (name, _) in targets::TARGETS {
        let program = root().join(format!("fuzz/fuzz_targets/{name}.rs"));
        assert!(fs::read_to_string(&program).unwrap().contains(&format!("{name:?}")), "{}", program.display());
    }
    let programs = fs::read_dir(root().join("fuzz/fuzz_targets")).unwrap().count();
    assert_eq!(programs, targets::TARGETS.len());
}
