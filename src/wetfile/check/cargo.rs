//! Checks of what a Rust guest tells cargo. Each text becomes a part of an argument, so none may be taken for an option.

use std::ops::Range;

use crate::wetfile::diagnostic::{Code, Diagnostic, Sink, quoted};
use crate::wetfile::project::CargoOptions;
use crate::wetfile::schema::{Field, GuestTable, Written};

/// Longest name of a feature, a program, a profile or a toolchain, in bytes. Cargo and rustup have no limit; file systems
/// have, and these become names of files and folders.
const TEXT_BYTES_MAX: usize = 128;

/// The variable by which rustup is told a toolchain.
const TOOLCHAIN_VARIABLE: &str = "RUSTUP_TOOLCHAIN";

/// What is told to cargo. `None` if anything of it was reported.
pub(super) fn options(table: &GuestTable, sink: &mut Sink<'_>) -> Option<CargoOptions> {
    let before = sink.count();
    let toolchain = text(&table.toolchain, "a toolchain", is_toolchain, TOOLCHAIN_HELP, sink);
    if let (Some(_), Some((name, _))) =
        (&toolchain, table.env.iter().find(|(name, _)| name.value == TOOLCHAIN_VARIABLE))
    {
        let label = sink.label(&name.span, "says it, too");
        let message = format!("guest {} says twice which toolchain compiles it", quoted(&table.name.value));
        let help = format!("remove `{TOOLCHAIN_VARIABLE}`: `toolchain` sets it");
        let mut diagnostic = Diagnostic::error(Code::ConflictingKey, message, label, help);
        if let Some(toolchain) = table.toolchain.given() {
            diagnostic = diagnostic.with_secondary([sink.label(&toolchain.span, "the toolchain")]);
        }
        sink.push(diagnostic);
    }
    let features = table.features.given().map_or(&[][..], |features| &features.value);
    for feature in features {
        check(feature, "a feature", is_feature, FEATURE_HELP, sink);
    }
    let options = CargoOptions {
        toolchain,
        features: features.iter().map(|feature| feature.value.clone()).collect(),
        default_features: table.default_features.given().is_none_or(|is_on| is_on.value),
        bin: text(&table.bin, "the name of a program", is_name, NAME_HELP, sink),
        profile: profile(&table.cargo_profile, sink).unwrap_or_else(|| CargoOptions::PROFILE.to_owned()),
    };
    let is_valid = sink.count() == before && !matches!(table.features, Field::Invalid);
    is_valid.then_some(options)
}

/// The value of `cargo-profile`.
pub(super) fn profile(field: &Field<String>, sink: &mut Sink<'_>) -> Option<String> {
    text(field, "the name of a cargo profile", is_name, NAME_HELP, sink)
}

/// Reports what only Rust guests have.
pub(super) fn refuse(table: &GuestTable, sink: &mut Sink<'_>) {
    let keys: [(&str, Option<&Range<usize>>); 5] = [
        ("features", table.features.given().map(|written| &written.span)),
        ("default-features", table.default_features.given().map(|written| &written.span)),
        ("bin", table.bin.given().map(|written| &written.span)),
        ("toolchain", table.toolchain.given().map(|written| &written.span)),
        ("cargo-profile", table.cargo_profile.given().map(|written| &written.span)),
    ];
    for (key, span) in keys.into_iter().filter_map(|(key, span)| Some((key, span?))) {
        let label = sink.label(span, "goes with Rust guests alone");
        let message = format!("`{key}` of guest {} is for cargo, which does not build it", quoted(&table.name.value));
        let help = format!("leave `{key}` out, or say it in `build`");
        sink.push(Diagnostic::error(Code::ConflictingKey, message, label, help));
    }
}

const TOOLCHAIN_HELP: &str = "write it as `rustup toolchain list` does, such as `1.95.0` or `nightly-2026-01-01`";
const FEATURE_HELP: &str =
    "a feature has letters, digits, `_`, `-`, `+` and `.`; that of a dependency `DEPENDENCY/FEATURE`";
const NAME_HELP: &str = "use letters, digits, `-` and `_`, and no `-` at the beginning";

fn text(
    field: &Field<String>,
    what: &str,
    is_valid: fn(&str) -> bool,
    help: &str,
    sink: &mut Sink<'_>,
) -> Option<String> {
    let written = field.given()?;
    check(written, what, is_valid, help, sink).then(|| written.value.clone())
}

/// Whether a text is valid; reports it when it is not.
fn check(written: &Written<String>, what: &str, is_valid: fn(&str) -> bool, help: &str, sink: &mut Sink<'_>) -> bool {
    let is_valid = (1..=TEXT_BYTES_MAX).contains(&written.value.len()) && is_valid(&written.value);
    if !is_valid && !sink.is_full() {
        let label = sink.label(&written.span, format!("not {what}"));
        sink.push(Diagnostic::error(
            Code::InvalidValue,
            format!("{} is not {what}", quoted(&written.value)),
            label,
            help,
        ));
    }
    is_valid
}

fn consists_of(text: &str, others: &[u8]) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
}

fn is_name(text: &str) -> bool {
    consists_of(text, b"_-")
}

fn is_toolchain(text: &str) -> bool {
    consists_of(text, b"_-.+")
}

/// `FEATURE`, `DEPENDENCY/FEATURE` or `DEPENDENCY?/FEATURE`.
fn is_feature(text: &str) -> bool {
    match text.split_once('/') {
        Some((dependency, feature)) => {
            is_name(dependency.strip_suffix('?').unwrap_or(dependency)) && consists_of(feature, b"_-+.")
        }
        None => consists_of(text, b"_-+."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_can_be_told() {
        for feature in ["std", "_x", "a-b", "1.0", "serde/derive", "serde?/derive", "c++17"] {
            assert!(is_feature(feature), "{feature}");
        }
        for feature in ["", "-x", "a b", "a,b", "/a", "a/", "a//b", "a/-b", "?/a", "a??/b", "ä", "--all"] {
            assert!(!is_feature(feature), "{feature}");
        }
        assert!(is_toolchain("nightly-2026-01-01-x86_64-unknown-linux-gnu") && is_toolchain("1.95.0"));
        assert!(!is_toolchain("+nightly") && !is_toolchain("../x") && !is_toolchain("a/b") && !is_toolchain("-x"));
        assert!(is_name("my_bin-2") && !is_name("-v") && !is_name("a.b") && !is_name("a/b"));
    }
}
