//! Core modules for WASI 0.1 (`wasi_snapshot_preview1`) made into components, by the adapter of wasmtime.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

use crate::build::BuildError;
use crate::wasm_binary::{self, Kind};

/// The function that a program begins with (WebAssembly/WASI, legacy/application-abi.md).
const START: &str = "_start";

/// How the sections begin in which bindings leave what they have made imports of (wit-component, `metadata`).
const BINDINGS_PREFIX: &str = "component-type";

/// What is looked at of a core module.
#[derive(Debug, Default, PartialEq, Eq)]
struct Module {
    /// The first import from elsewhere than WASI 0.1, as module and name.
    foreign_import: Option<(String, String)>,
    /// Whether it is a program.
    has_start: bool,
    /// Whether it says by itself what its imports and exports mean.
    has_bindings: bool,
}

/// Takes a component as it is, and makes one of a program for WASI 0.1.
///
/// # Errors
///
/// [`BuildError::NotComponent`] for what is no wasm, [`BuildError::ForeignImport`] and [`BuildError::NoStart`] for modules
/// of which no program can be made, [`BuildError::Adapt`] for such as are malformed.
pub(in crate::build) fn to_component(bytes: Vec<u8>) -> Result<Vec<u8>, BuildError> {
    match wasm_binary::kind(&bytes) {
        Kind::Component => return Ok(bytes),
        Kind::Module => {}
        kind => return Err(BuildError::NotComponent { found: kind.to_string() }),
    }
    let module = read(&bytes).map_err(|error| BuildError::Adapt { source: error.into() })?;
    if let Some((module, name)) = module.foreign_import.filter(|_| !module.has_bindings) {
        return Err(BuildError::ForeignImport { module, name });
    }
    let adapter = match (module.has_start, module.has_bindings) {
        (true, _) => WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
        (false, true) => WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
        (false, false) => return Err(BuildError::NoStart),
    };
    encode(&bytes, adapter).map_err(|source| BuildError::Adapt { source })
}

fn encode(module: &[u8], adapter: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let encoder = ComponentEncoder::default().validate(true).module(module)?;
    Ok(encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?.encode()?)
}

fn read(bytes: &[u8]) -> wasmparser::Result<Module> {
    let mut module = Module::default();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    if import.module != WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME && module.foreign_import.is_none() {
                        module.foreign_import = Some((import.module.to_owned(), import.name.to_owned()));
                    }
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    module.has_start |= export?.name == START;
                }
            }
            Payload::CustomSection(section) => module.has_bindings |= section.name().starts_with(BINDINGS_PREFIX),
            _ => {}
        }
    }
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wetfile::lock::Digest;

    /// A program that ends at once.
    const PROGRAM: &str = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start") (call $exit (i32.const 0))))"#;

    fn of(text: &str) -> Result<Vec<u8>, BuildError> {
        to_component(wat::parse_str(text).unwrap())
    }

    #[test]
    fn a_program_becomes_a_component_that_can_be_run() {
        let component = of(PROGRAM).unwrap();
        assert!(wasm_binary::interface(&component).unwrap().is_program());
        // What is one is left alone.
        assert_eq!(to_component(component.clone()).unwrap(), component);
    }

    /// When this fails since a dependency has changed, raise `RECIPE` of `lang::language` with it: the lock keeps apart
    /// what older versions made.
    #[test]
    fn what_is_made_belongs_to_a_recipe() {
        let made = Digest::of(&of(PROGRAM).unwrap());
        insta::assert_snapshot!(format!("recipe {}: {made}", super::super::language::RECIPE));
    }

    #[test]
    fn what_is_imported_from_elsewhere_is_named() {
        let text = r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
            (import "env" "host\07call" (func))
            (func (export "_start")))"#;
        let error = of(text).unwrap_err().to_string();
        assert!(error.contains("imports `host\\u{7}call` from `env`"), "{error}");
    }

    #[test]
    fn libraries_and_other_bytes_are_no_programs() {
        assert!(matches!(of(r#"(module (func (export "run")))"#), Err(BuildError::NoStart)));
        assert!(matches!(to_component(Vec::new()), Err(BuildError::NotComponent { .. })));
        assert!(matches!(to_component(b"#!/bin/sh".to_vec()), Err(BuildError::NotComponent { .. })));
    }

    #[test]
    fn damaged_modules_are_errors() {
        let module = wat::parse_str(PROGRAM).unwrap();
        for length in 0..module.len() {
            // A cut between two sections leaves a module that may be without its end.
            let _ = to_component(module[..length].to_vec());
        }
        for at in 8..module.len() {
            let mut changed = module.clone();
            changed[at] ^= 0x5a;
            let _ = to_component(changed);
        }
        let start_of_another_type = PROGRAM.replace("(export \"_start\")", "(export \"_start\") (param i32)");
        assert!(matches!(of(&start_of_another_type), Err(BuildError::Adapt { .. })));
    }
}
