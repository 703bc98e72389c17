//! What a cell offers to a component: the names of interfaces, as [`crate::cell`] links them.

/// Interfaces of WASI 0.2 that a cell has. Every 0.2 release is compatible with the others.
const WASI: [&str; 27] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// The channel to the host; see `guests/sdk/wit`.
const RPC: &str = "ww:cell/rpc@0.1.0";

/// The prefix of WASI's versions that a cell has.
const WASI_VERSION: &str = "0.2.";

/// Whether a cell has an interface of this name, such as `wasi:io/poll@0.2.6`.
///
/// Only the name is looked at. A function that the interface got in a later patch than the host's is missing when the
/// program is compiled to be run.
pub fn is_provided(import: &str) -> bool {
    if import == RPC {
        return true;
    }
    let Some((name, version)) = import.split_once('@') else { return false };
    let patch = version.strip_prefix(WASI_VERSION);
    let is_patch = |patch: &str| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit());
    WASI.contains(&name) && patch.is_some_and(is_patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{Compiler, ComponentError, Engine, EngineOptions};

    /// Something that each interface has, in the order of [`WASI`].
    const MEMBERS: [&str; WASI.len()] = [
        "get-arguments",
        "exit",
        "get-stderr",
        "get-stdin",
        "get-stdout",
        "terminal-input",
        "terminal-output",
        "get-terminal-stderr",
        "get-terminal-stdin",
        "get-terminal-stdout",
        "now",
        "now",
        "get-directories",
        "descriptor",
        "error",
        "pollable",
        "input-stream",
        "get-insecure-random-bytes",
        "insecure-seed",
        "get-random-bytes",
        "instance-network",
        "resolve-addresses",
        "network",
        "tcp-socket",
        "create-tcp-socket",
        "udp-socket",
        "create-udp-socket",
    ];

    /// Whether cells have a member of an interface, whatever it is. It is imported as a function without parameters and
    /// results, so that the compiler says either that it is missing or that it is something else.
    async fn is_linked(import: &str, member: &str) -> bool {
        let text = format!("(component (import \"{import}\" (instance (export \"{member}\" (func)))))");
        let component = wat::parse_str(text).unwrap();
        let compiler = Compiler::new(Engine::new(EngineOptions::default()).unwrap(), tokio::runtime::Handle::current());
        match compiler.compile(component.into()).await {
            Err(ComponentError::Import(error)) => !format!("{error:?}").contains("implementation is missing"),
            // It is no program, which is told after its imports.
            Err(ComponentError::NoRun { .. }) => true,
            other => panic!("{import}: {other:?}"),
        }
    }

    #[tokio::test]
    async fn cells_have_what_is_listed() {
        for (name, member) in WASI.into_iter().zip(MEMBERS) {
            for version in ["0.2.0", "0.2.6"] {
                let import = format!("{name}@{version}");
                assert!(is_provided(&import) && is_linked(&import, member).await, "{import} {member}");
                assert!(!is_linked(&import, "nothing").await, "{import}");
            }
        }
        assert!(is_provided(RPC) && is_linked(RPC, "connect").await);
    }

    #[tokio::test]
    async fn cells_have_nothing_else() {
        for (import, member) in [
            ("wasi:cli/run@0.2.0", "run"),
            ("wasi:http/types@0.2.0", "fields"),
            ("ww:cell/rpc@0.2.0", "connect"),
            ("wasi:io/poll@0.3.0", "pollable"),
            ("a:b/c", "d"),
        ] {
            assert!(!is_provided(import) && !is_linked(import, member).await, "{import}");
        }
        for import in ["wasi:io/poll@0.2.", "wasi:io/poll@0.2.0-rc", "wasi:io/poll", "", "@0.2.0"] {
            assert!(!is_provided(import), "{import}");
        }
    }
}
