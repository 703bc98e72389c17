//! What people type who know other tools that run things, and what it is called here.

use clap::error::{ContextKind, ContextValue};

/// Flags of `docker run` and of wasm runtimes, and what to say of them.
const RUN_FLAGS: [(&[&str], &str); 10] = [
    (&["--volume", "--dir", "--mapdir", "--bind"], "a folder is given with --mount SRC:DST[:rw]"),
    (&["-e", "--env-file"], "a variable is set with --env NAME=VALUE; --grant env:NAME passes one on"),
    (&["--inherit-env"], "variables are passed on by name: --grant env:NAME"),
    (&["--memory", "-m", "--max-memory-size"], "memory is limited with --limit memory=256MiB"),
    (&["--timeout"], "time is limited with --limit wall-time=10s, or cpu-time=10s"),
    (&["--cpus", "--fuel"], "time to compute is limited with --limit cpu-time=10s"),
    (
        &["--allow-net", "--net", "--network", "--inherit-network", "--tcplisten"],
        "connections of its own are granted with --grant network, or network:NETWORK",
    ),
    (&["--publish", "-p"], "a guest does not listen; the node does, on what --port and --listen say"),
    (&["-it", "-i", "-t", "--interactive", "--tty", "--rm"], "it is not needed: the guest has the standard streams"),
    (&["--allow-read", "--allow-write"], "a folder is given with --mount SRC:DST, to be written with :rw after it"),
];

/// What to say of an argument of `ww run` that it does not know.
pub(super) fn meant(error: &clap::Error) -> Option<&'static str> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return None };
    let name = argument.split('=').next().unwrap_or_default();
    let found = RUN_FLAGS.iter().find(|(names, _)| names.contains(&name));
    // `-v SRC:DST`: -v is something else here, so it is its value that is too much.
    let is_mount = argument.split_once(":/").is_some_and(|(source, _)| !source.is_empty() && !source.contains("//"));
    found.map(|(_, text)| *text).or(is_mount.then_some(RUN_FLAGS[0].1))
}

/// Takes back what clap suggests by the spelling alone, which for such a flag is something else; it is in the usage, too.
pub(super) fn drop_suggestion(error: &mut clap::Error) {
    for kind in [ContextKind::SuggestedArg, ContextKind::Suggested, ContextKind::Usage] {
        error.remove(kind);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::Parser;

    #[test]
    fn flags_of_other_tools_are_known() {
        let check = |flags: &[&str], expected: Option<&str>| {
            let mut error = Cli::try_parse_from([&["ww", "run", "image"], flags].concat()).unwrap_err();
            let meant = meant(&error);
            assert!(meant.is_some() == expected.is_some(), "{flags:?}");
            assert!(meant.unwrap_or_default().contains(expected.unwrap_or_default()), "{flags:?}: {meant:?}");
            drop_suggestion(&mut error);
            assert!(!error.to_string().contains("similar"), "{error}");
        };
        check(&["--volume", "m:/d"], Some("--mount"));
        check(&["-v", "m:/d"], Some("--mount"));
        check(&["--dir=."], Some("--mount"));
        check(&["-e", "A=1"], Some("--env"));
        check(&["--memory", "1g"], Some("--limit memory"));
        check(&["--allow-net"], Some("--grant network"));
        check(&["--unknown"], None);
        check(&["word"], None);
    }

    /// What is a flag of ours is no other's.
    #[test]
    fn none_is_a_flag_of_ours() {
        for name in RUN_FLAGS.iter().flat_map(|(names, _)| *names) {
            let error = Cli::try_parse_from(["ww", "run", "image", name]).unwrap_err();
            assert!(meant(&error).is_some(), "{name}");
        }
    }
}
