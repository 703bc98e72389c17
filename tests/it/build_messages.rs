//! What `ww build` says where it cannot do as it is told: what, where, and what to do about it.

use crate::build_command::{build, copying_project};

/// Whoever would wait for itself is told so.
#[test]
fn a_command_that_builds_its_own_project_does_not_wait_for_ever() {
    let ww = env!("CARGO_BIN_EXE_ww");
    for inner in ["build", "run echo"] {
        let dir = copying_project(&format!("\"cp echo.wasm $WW_OUT; {ww} {inner}\""));
        let done = build(dir.path(), &[]).expect(4);
        let said = "echo: error: cannot use the project's build state\n\
                    echo:   caused by: this `ww` was started by a build of ";
        assert!(done.stderr.contains(said), "{}", done.stderr);
        assert!(done.stderr.contains("echo:   help: take it out of the guest's command: `embeds`"), "{}", done.stderr);
        assert!(!done.stderr.contains("waiting for another ww"), "{}", done.stderr);
    }
}
