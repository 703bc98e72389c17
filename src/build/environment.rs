//! What compilers see of the environment.
//!
//! They start from nothing and get four things: a few `FIXED` values, what is on the list `PASSED` (where things
//! are on this machine, and how it reaches the network: nothing that ought to change a result), what the Wetfile
//! declares, and `ww`'s own `WW_…`. Everything else is stripped. That takes care of what would change results unseen,
//! such as `RUSTFLAGS`, `CARGO_PROFILE_…`, `RUSTUP_TOOLCHAIN` (which cargo exports, and which beats the toolchain that
//! the guest's folder asks for), `MAKEFLAGS`, `CFLAGS`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::wetfile::{EnvValue, Guest, GuestName};

/// The variables of a process.
pub type Variables = BTreeMap<OsString, OsString>;

/// Variables with one value everywhere; a Wetfile may set others.
///
/// `SOURCE_DATE_EPOCH` (reproducible-builds.org/specs/source-date-epoch) is 1980-01-01T00:00:00Z, the earliest time
/// that zip archives can hold. `LC_ALL` and `TZ` keep sort orders and local times out of what build scripts write.
const FIXED: [(&str, &str); 3] = [("SOURCE_DATE_EPOCH", "315532800"), ("LC_ALL", "C"), ("TZ", "UTC")];

/// Variables that are passed as they are, and do not count as inputs.
const PASSED: [&str; 47] = [
    // Where programs, homes and temporary files are.
    "HOME",
    "USER",
    "LOGNAME",
    "PATH",
    "TMPDIR",
    "XDG_CACHE_HOME",
    // Where Rust, Go and Zig keep what they have fetched and compiled, and from where they fetch.
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_DIST_SERVER",
    "RUSTUP_UPDATE_ROOT",
    "RUSTUP_AUTO_INSTALL",
    "GOPATH",
    "GOCACHE",
    "GOMODCACHE",
    "GOPROXY",
    "GOAUTH",
    "GOINSECURE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPRIVATE",
    "GOSUMDB",
    "GOVCS",
    "NETRC",
    "ZIG_GLOBAL_CACHE_DIR",
    // Proxies.
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "CARGO_HTTP_PROXY",
    // Certificate bundles.
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "NIX_SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    // Keys that fetch sources.
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GIT_SSH_COMMAND",
];

/// The environment of a guest's compiler.
///
/// `parent` is the environment of this process; `artifacts` has the path of every guest that is embedded, which the
/// build sees as `WW_DEP_` and the name in capitals, with `_` for `-`.
pub(super) fn of_guest(parent: &Variables, guest: &Guest, artifacts: &BTreeMap<GuestName, PathBuf>) -> Variables {
    let mut variables = of_any_guest(parent);
    let pass = |variables: &mut Variables, name: &str| {
        if let Some((name, value)) = parent.get_key_value(&OsString::from(name)) {
            variables.insert(name.clone(), value.clone());
        }
    };
    if let Some(toolchain) = parent.get(OsStr::new(&toolchain_variable(&guest.name))) {
        variables.insert("RUSTUP_TOOLCHAIN".into(), toolchain.clone());
    }
    for name in guest.env.iter().filter(|(_, value)| **value == EnvValue::Inherit).map(|(name, _)| name) {
        pass(&mut variables, name);
    }
    for (name, value) in &guest.env {
        if let EnvValue::Set(value) = value {
            variables.insert(name.into(), value.into());
        }
    }
    for dep in &guest.embeds {
        variables.insert(dep_variable(dep).into(), artifacts[dep].clone().into());
    }
    variables
}

/// What the compiler of every guest sees of it.
pub(super) fn of_any_guest(parent: &Variables) -> Variables {
    let passed = PASSED.into_iter().filter_map(|name| parent.get_key_value(&OsString::from(name)));
    let passed = passed.map(|(name, value)| (name.clone(), value.clone()));
    FIXED.map(|(name, value)| (name.into(), value.into())).into_iter().chain(passed).collect()
}

/// The variable by which `ww` tells another `ww`, which builds a guest in a folder that is not its own, which Rust toolchain
/// its own folder chooses.
pub fn toolchain_variable(guest: &GuestName) -> String {
    format!("WW_RUSTUP_TOOLCHAIN_{}", in_capitals(guest))
}

/// A digest of those variables that not every guest's compiler sees, such as the Wetfile declares; `None` if there are
/// none.
pub(super) fn digest_of_own(guest: &Guest, variables: &Variables) -> Option<String> {
    let names: BTreeSet<String> = guest.env.keys().cloned().chain(guest.embeds.iter().map(dep_variable)).collect();
    if names.is_empty() {
        return None;
    }
    let mut digest = Sha256::new();
    for name in names {
        let value = variables.get(OsStr::new(&name));
        for fact in [name.as_bytes(), value.map_or(b"".as_slice(), |value| value.as_bytes())] {
            digest.update((fact.len() as u64).to_le_bytes());
            digest.update(fact);
        }
        digest.update([u8::from(value.is_some())]);
    }
    Some(digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

fn dep_variable(guest: &GuestName) -> String {
    format!("WW_DEP_{}", in_capitals(guest))
}

fn in_capitals(guest: &GuestName) -> String {
    guest.as_str().to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wetfile::{CargoOptions, ProjectPath, Recipe};

    fn guest(env: &[(&str, EnvValue)]) -> Guest {
        Guest {
            name: GuestName::new("pid0").unwrap(),
            dir: ProjectPath::root(),
            recipe: Recipe::Rust(CargoOptions::default()),
            embeds: vec![GuestName::new("child-echo").unwrap()],
            needs: Vec::new(),
            reproducible: true,
            env: env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        }
    }

    fn of(parent: &[(&str, &str)], env: &[(&str, EnvValue)]) -> BTreeMap<String, String> {
        let parent = parent.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let artifacts = [(GuestName::new("child-echo").unwrap(), PathBuf::from("/p/child-echo.wasm"))].into();
        let variables = of_guest(&parent, &guest(env), &artifacts);
        let text = |text: OsString| text.into_string().unwrap();
        variables.into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn only_what_is_listed_is_passed() {
        let stripped =
            ["CARGO", "CARGO_PROFILE_RELEASE_LTO", "CARGO_BUILD_TARGET_DIR", "RUSTFLAGS", "RUSTC", "MAKEFLAGS"];
        let mut parent = vec![("PATH", "/bin"), ("CARGO_HOME", "/c"), ("SSH_AUTH_SOCK", "/s"), ("TZ", "Asia/Tokyo")];
        parent.extend(stripped.map(|name| (name, "x")));
        parent.extend([("RUSTUP_TOOLCHAIN", "x"), ("SECRET", "x"), ("WW_HOME", "x")]);
        let variables = of(&parent, &[]);
        let expected = [
            ("CARGO_HOME", "/c"),
            ("LC_ALL", "C"),
            ("PATH", "/bin"),
            ("SOURCE_DATE_EPOCH", "315532800"),
            ("SSH_AUTH_SOCK", "/s"),
            ("TZ", "UTC"),
            ("WW_DEP_CHILD_ECHO", "/p/child-echo.wasm"),
        ];
        assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn the_toolchain_of_another_folder_is_handed_to_its_guest_alone() {
        let variables = of(&[("WW_RUSTUP_TOOLCHAIN_PID0", "1.95"), ("WW_RUSTUP_TOOLCHAIN_X", "nightly")], &[]);
        assert_eq!(variables["RUSTUP_TOOLCHAIN"], "1.95");
        assert!(variables.keys().all(|name| !name.starts_with("WW_RUSTUP")));
    }

    #[test]
    fn what_the_wetfile_declares_wins() {
        let set = |value: &str| EnvValue::Set(value.to_owned());
        let env =
            [("TZ", set("CET")), ("LEVEL", set("3")), ("TOKEN", EnvValue::Inherit), ("ABSENT", EnvValue::Inherit)];
        let variables = of(&[("TOKEN", "t"), ("LEVEL", "1")], &env);
        assert_eq!((variables["TZ"].as_str(), variables["LEVEL"].as_str()), ("CET", "3"));
        assert_eq!(variables["TOKEN"], "t");
        assert!(!variables.contains_key("ABSENT"));
    }

    #[test]
    fn the_digest_is_of_what_others_do_not_see() {
        let digest = |env: &[(&str, EnvValue)], embeds: &[&str], token: Option<&str>| {
            let mut guest = guest(env);
            guest.embeds = embeds.iter().map(|name| GuestName::new(name).unwrap()).collect();
            let parent = token.map(|token| ("TOKEN".into(), token.into())).into_iter().collect();
            let artifacts = embeds.iter().map(|name| (GuestName::new(name).unwrap(), PathBuf::from("/p"))).collect();
            digest_of_own(&guest, &of_guest(&parent, &guest, &artifacts))
        };
        assert_eq!(digest(&[], &[], Some("x")), None);
        let set = |value: &str| [("A", EnvValue::Set(value.to_owned()))];
        let token = [("TOKEN", EnvValue::Inherit)];
        let digests = [
            digest(&set(""), &[], None),
            digest(&set("1"), &[], None),
            digest(&[], &["a"], None),
            digest(&[], &["b"], None),
            digest(&token, &[], None),
            digest(&token, &[], Some("")),
            digest(&token, &[], Some("t")),
        ];
        assert_eq!(digests.iter().flatten().collect::<BTreeSet<_>>().len(), 7);
        assert_eq!(digest(&set("1"), &[], Some("x")), digests[1]);
    }
}
