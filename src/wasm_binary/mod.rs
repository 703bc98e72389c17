//! What a file that ought to be a wasm component is, and what it imports and exports.
//!
//! Only the outermost layer is read, and nothing is validated: that is the business of the engine that compiles it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use wasmparser::{Parser, Payload};

mod weight;

pub use weight::{Weight, weight};

/// The largest program that is read, in bytes; the largest known components, interpreters of JavaScript and Python,
/// have less than 20 MiB.
pub const SIZE_BYTES_MAX: u64 = 256 << 20;

/// First four bytes of every wasm binary.
const MAGIC: [u8; 4] = *b"\0asm";

/// Length of the preamble in bytes: the magic, then version and layer with two bytes each (component model, Binary.md).
const PREAMBLE_BYTES: usize = 8;

/// Layer of a core module and of a component.
const LAYER_MODULE: [u8; 2] = [0, 0];
const LAYER_COMPONENT: [u8; 2] = [1, 0];

/// The interface whose export makes a component a program. Every 0.2 release is compatible with the others.
const RUN_INTERFACE: &str = "wasi:cli/run@0.2.";

/// What bytes are, by their first eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No bytes at all.
    Empty,
    /// Anything without a preamble that is known.
    NotWasm,
    /// A core module.
    Module,
    /// A component.
    Component,
}

/// Shown with its article: `a core module`.
impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "an empty file",
            Self::NotWasm => "not WebAssembly",
            Self::Module => "a core module",
            Self::Component => "a component",
        })
    }
}

/// Tells what bytes are; their first eight are enough.
pub fn kind(bytes: &[u8]) -> Kind {
    if bytes.is_empty() {
        return Kind::Empty;
    }
    let Some(preamble) = bytes.first_chunk::<PREAMBLE_BYTES>() else { return Kind::NotWasm };
    match (preamble.starts_with(&MAGIC), [preamble[6], preamble[7]]) {
        (true, LAYER_MODULE) => Kind::Module,
        (true, LAYER_COMPONENT) => Kind::Component,
        _ => Kind::NotWasm,
    }
}

/// Refuses a file of more than [`SIZE_BYTES_MAX`], by what the file system says about it.
///
/// # Errors
///
/// `FileTooLarge`, with a message that has both sizes, or any error of the file system.
pub fn check_size(file: &File) -> io::Result<()> {
    match file.metadata()?.len() {
        ..=SIZE_BYTES_MAX => Ok(()),
        size => Err(too_large(&format!("{size} bytes"))),
    }
}

/// Reads a file, if it is not too large.
///
/// # Errors
///
/// As for [`check_size`].
pub fn read(file: File) -> io::Result<Vec<u8>> {
    check_size(&file)?;
    let mut bytes = Vec::new();
    file.take(SIZE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    // It may have grown meanwhile.
    if bytes.len() as u64 > SIZE_BYTES_MAX { Err(too_large("more bytes")) } else { Ok(bytes) }
}

fn too_large(size: &str) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {size}, and at most {SIZE_BYTES_MAX} are read"))
}

/// What a component imports and exports: names with versions, such as `wasi:cli/run@0.2.6`, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// What it needs from its host.
    pub imports: Vec<String>,
    /// What it offers.
    pub exports: Vec<String>,
}

impl Interface {
    /// Whether the component is a program: whether it exports `wasi:cli/run` of WASI 0.2.
    pub fn is_program(&self) -> bool {
        let is_run = |name: &String| name.strip_prefix(RUN_INTERFACE).is_some_and(is_patch_version);
        self.exports.iter().any(is_run)
    }
}

/// A component that is damaged, or of a version that is not known.
#[derive(Debug, thiserror::Error)]
#[error("not a well-formed component")]
pub struct MalformedComponent(#[source] wasmparser::BinaryReaderError);

/// Reads the imports and exports of a component.
///
/// # Errors
///
/// [`MalformedComponent`] when the bytes are cut short or otherwise no component.
pub fn interface(component: &[u8]) -> Result<Interface, MalformedComponent> {
    let mut interface = Interface::default();
    collect(component, &mut interface).map_err(MalformedComponent)?;
    interface.imports.sort_unstable();
    interface.exports.sort_unstable();
    Ok(interface)
}

/// The parser descends into nested modules and components by itself: `depth` tells whose section it is at.
fn collect(component: &[u8], interface: &mut Interface) -> wasmparser::Result<()> {
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    interface.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    interface.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_patch_version(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_preamble() {
        let check = |bytes: &[u8], expected| assert_eq!(kind(bytes), expected, "{bytes:?}");
        check(b"", Kind::Empty);
        check(b"not wasm", Kind::NotWasm);
        check(b"\0asm", Kind::NotWasm);
        check(b"\0asm\x01\0\0\0", Kind::Module);
        check(b"\0asm\x0d\0\x01\0", Kind::Component);
        check(b"\0asm\x0d\0\x02\0", Kind::NotWasm);
    }

    #[test]
    fn sizes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE_BYTES_MAX).unwrap();
        check_size(&file).unwrap();
        file.set_len(SIZE_BYTES_MAX + 1).unwrap();
        let error = read(file).unwrap_err();
        assert_eq!(error.to_string(), "it has 268435457 bytes, and at most 268435456 are read");
    }

    #[test]
    fn the_outermost_imports_and_exports_sorted() {
        let component = wat::parse_str(
            r#"(component
                (import "wasi:io/poll@0.2.6" (instance))
                (import "wasi:cli/environment@0.2.6" (instance $environment))
                (component (import "inner:pkg/hidden" (instance)))
                (core module (import "env" "hidden" (func)))
                (export "wasi:cli/run@0.2.6" (instance $environment)))"#,
        )
        .unwrap();
        let interface = interface(&component).unwrap();
        assert_eq!(interface.imports, ["wasi:cli/environment@0.2.6", "wasi:io/poll@0.2.6"]);
        assert_eq!(interface.exports, ["wasi:cli/run@0.2.6"]);
        assert!(interface.is_program());
    }

    #[test]
    fn programs_export_run_of_wasi_0_2() {
        let exports = |name: &str| Interface { imports: Vec::new(), exports: vec![name.to_owned()] };
        assert!(exports("wasi:cli/run@0.2.0").is_program());
        assert!(exports("wasi:cli/run@0.2.12").is_program());
        for other in ["wasi:cli/run@0.3.0", "wasi:cli/run@0.2.0-rc", "wasi:cli/run@0.2.", "wasi:cli/run", "run"] {
            assert!(!exports(other).is_program(), "{other}");
        }
    }

    #[test]
    fn an_empty_component_has_no_interface() {
        assert_eq!(interface(b"\0asm\x0d\0\x01\0").unwrap(), Interface::default());
    }

    #[test]
    fn damaged_components_are_errors() {
        let component = wat::parse_str(r#"(component (import "a:b/c" (instance)))"#).unwrap();
        for length in 9..component.len() {
            // A cut between two sections leaves a shorter component that is well-formed.
            let _ = interface(&component[..length]);
        }
        assert!(interface(&component[..component.len() - 1]).is_err());
        assert!(interface(b"\0asm\x01\0\0\0\x01\xff").is_err());
    }
}
