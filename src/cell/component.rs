//! From bytes to something that can be run: checking, compiling, and remembering.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wasmtime::component::Component;
use wasmtime_wasi::p2::bindings::CommandPre;

use super::engine::Engine;
use super::process::CellState;

/// How many compiled components are kept in memory. A node runs few different programs many times.
const COMPILED_COUNT_MAX: usize = 64;

/// Why bytes cannot be run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ComponentError {
    /// There are no bytes.
    #[error("it is empty")]
    Empty,
    /// The bytes are something else.
    #[error("it is not WebAssembly: it does not begin with the bytes `\\0asm`")]
    NotWasm,
    /// A core module: WebAssembly without the component model.
    #[error("it is a core module, not a component")]
    CoreModule,
    /// The version field says neither module nor component.
    #[error("it is WebAssembly of an unknown kind (version {version}, layer {layer})")]
    UnknownKind {
        /// The header's version.
        version: u16,
        /// The header's layer: 0 for modules, 1 for components.
        layer: u16,
    },
    /// A component, but damaged, or with features that are switched off.
    #[error("it is not a valid component")]
    Invalid(#[source] Arc<wasmtime::Error>),
    /// It asks for something that no cell has.
    #[error("it imports what this host does not have")]
    Import(#[source] Arc<wasmtime::Error>),
    /// A component that is not a program.
    #[error("it does not export `wasi:cli/run`, so it is a library and not a program; it exports {}", list(.exports))]
    NoRun {
        /// What it exports, sorted.
        exports: Vec<String>,
    },
    /// The compiler ended without an answer.
    #[error("the compiler was stopped")]
    Stopped,
}

fn list(exports: &[String]) -> String {
    if exports.is_empty() {
        return "nothing".into();
    }
    let shown: Vec<_> = exports.iter().map(|export| format!("`{}`", crate::escape::text(export))).collect();
    shown.join(", ")
}

/// A component that has been checked and compiled, ready to be instantiated any number of times.
#[derive(Clone)]
pub struct Program(Arc<Inner>);

struct Inner {
    engine: Engine,
    command: CommandPre<CellState>,
}

impl Program {
    pub(super) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(super) fn command(&self) -> &CommandPre<CellState> {
        &self.0.command
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Program").finish_non_exhaustive()
    }
}

type Digest256 = [u8; 32];
type Compiling = Shared<BoxFuture<'static, Result<Program, ComponentError>>>;

/// Compiles components for one engine. Equal bytes are compiled once, also when several ask at the same time.
///
/// The work is done on the blocking threads of the runtime whose handle it was given, at most one component per
/// processor at a time; cells and RPC go on meanwhile. Compiling cannot be cancelled: whoever stops waiting leaves the
/// result to the next who asks.
#[derive(Clone)]
pub struct Compiler(Arc<Shop>);

struct Shop {
    engine: Engine,
    runtime: Handle,
    /// How many compile at once. Cranelift uses all processors for one component already.
    slots: Arc<Semaphore>,
    /// The newest first. Bounded by [`COMPILED_COUNT_MAX`]; locked for a look-up only.
    known: Mutex<VecDeque<(Digest256, Compiling)>>,
}

impl Compiler {
    /// Compiles for `engine` on the blocking threads of `runtime`.
    pub fn new(engine: Engine, runtime: Handle) -> Self {
        let slots = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Shop { engine, runtime, slots: Arc::new(Semaphore::new(slots)), known: Mutex::default() }))
    }

    /// Compiles `wasm`, or finds it compiled. Cancel safe.
    ///
    /// # Errors
    ///
    /// The bytes are not a program that this host can run.
    pub async fn compile(&self, wasm: Bytes) -> Result<Program, ComponentError> {
        check_header(&wasm)?;
        let hashed = wasm.clone();
        let digest = self.0.runtime.spawn_blocking(move || Sha256::digest(&hashed).into());
        let digest = digest.await.map_err(|_| ComponentError::Stopped)?;
        let compiling = self.0.find_or_start(digest, wasm);
        let compiled = compiling.await;
        if compiled.is_err() {
            self.0.forget(&digest);
        }
        compiled
    }
}

impl Shop {
    fn find_or_start(&self, digest: Digest256, wasm: Bytes) -> Compiling {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.iter().position(|(known, _)| *known == digest)
            && let Some(entry) = known.remove(place)
        {
            let compiling = entry.1.clone();
            known.push_front(entry);
            return compiling;
        }
        let compiling = self.start(wasm);
        known.push_front((digest, compiling.clone()));
        known.truncate(COMPILED_COUNT_MAX);
        compiling
    }

    fn start(&self, wasm: Bytes) -> Compiling {
        let engine = self.engine.clone();
        let slots = self.slots.clone();
        let runtime = self.runtime.clone();
        // A task of its own, so that the work goes on when whoever asked first goes away.
        let task = self.runtime.spawn(async move {
            let _slot = slots.acquire_owned().await.map_err(|_| ComponentError::Stopped)?;
            runtime.spawn_blocking(move || compile(&engine, &wasm)).await.map_err(|_| ComponentError::Stopped)?
        });
        async move { task.await.unwrap_or(Err(ComponentError::Stopped)) }.boxed().shared()
    }

    fn forget(&self, digest: &Digest256) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(known, _)| known != digest);
    }
}

/// Tells the kinds of file apart that people give instead of a component, so that each gets its own message.
///
/// The header is `\0asm`, a version and a layer of 16 bits each, little-endian (component model, `Binary.md`).
fn check_header(wasm: &[u8]) -> Result<(), ComponentError> {
    const MAGIC: &[u8] = b"\0asm";
    const MODULE_VERSION: u16 = 1;
    const MODULE_LAYER: u16 = 0;
    const COMPONENT_LAYER: u16 = 1;

    if wasm.is_empty() {
        return Err(ComponentError::Empty);
    }
    let Some([v0, v1, l0, l1]) = wasm.strip_prefix(MAGIC).and_then(|rest| rest.first_chunk()) else {
        return Err(ComponentError::NotWasm);
    };
    let (version, layer) = (u16::from_le_bytes([*v0, *v1]), u16::from_le_bytes([*l0, *l1]));
    match layer {
        COMPONENT_LAYER => Ok(()),
        MODULE_LAYER if version == MODULE_VERSION => Err(ComponentError::CoreModule),
        _ => Err(ComponentError::UnknownKind { version, layer }),
    }
}

fn compile(engine: &Engine, wasm: &[u8]) -> Result<Program, ComponentError> {
    let component =
        Component::from_binary(&engine.wasmtime, wasm).map_err(|error| ComponentError::Invalid(Arc::new(error)))?;
    let instance =
        engine.linker.instantiate_pre(&component).map_err(|error| ComponentError::Import(Arc::new(error)))?;
    let command = CommandPre::new(instance).map_err(|_| ComponentError::NoRun { exports: exports(&component) })?;
    Ok(Program(Arc::new(Inner { engine: engine.clone(), command })))
}

fn exports(component: &Component) -> Vec<String> {
    let mut exports: Vec<_> =
        component.component_type().exports(component.engine()).map(|(name, _)| name.to_owned()).collect();
    exports.sort();
    exports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::EngineOptions;

    fn compiler() -> Compiler {
        Compiler::new(Engine::new(EngineOptions::default()).unwrap(), Handle::current())
    }

    async fn refusal(wasm: impl Into<Bytes>) -> String {
        let error = compiler().compile(wasm.into()).await.unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }

    #[tokio::test]
    async fn each_kind_of_wrong_file_has_its_own_message() {
        assert_eq!(refusal("").await, "it is empty");
        assert_eq!(refusal("not wasm").await, "it is not WebAssembly: it does not begin with the bytes `\\0asm`");
        assert_eq!(refusal("\0as").await, "it is not WebAssembly: it does not begin with the bytes `\\0asm`");
        assert_eq!(refusal(&b"\0asm\x01\0\0\0"[..]).await, "it is a core module, not a component");
        assert_eq!(
            refusal(&b"\0asm\x02\0\x07\0"[..]).await,
            "it is WebAssembly of an unknown kind (version 2, layer 7)"
        );
        assert_eq!(
            refusal(&b"\0asm\x0d\0\x01\0"[..]).await,
            "it does not export `wasi:cli/run`, so it is a library and not a program; it exports nothing"
        );
    }

    #[tokio::test]
    async fn a_damaged_component_is_invalid() {
        let text = refusal(&b"\0asm\x0d\0\x01\0\x01\xff\xff"[..]).await;
        assert!(text.starts_with("it is not a valid component: "), "{text}");
    }

    #[tokio::test]
    async fn a_library_is_told_from_a_program() {
        let library = r#"(component (instance $empty) (export "b" (instance $empty)) (export "a" (instance $empty)))"#;
        assert_eq!(
            refusal(wat::parse_str(library).unwrap()).await,
            "it does not export `wasi:cli/run`, so it is a library and not a program; it exports `a`, `b`"
        );
    }

    #[tokio::test]
    async fn an_import_that_no_host_has_is_named() {
        let text = refusal(
            wat::parse_str(
                r#"(component (import "acme:door/open@1.0.0" (instance
            (export "push" (func)))))"#,
            )
            .unwrap(),
        )
        .await;
        assert!(
            text.contains("imports what this host does not have") && text.contains("acme:door/open@1.0.0"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn equal_bytes_are_compiled_once() {
        let wasm = wat::parse_str(MINIMAL_PROGRAM).unwrap();
        let compiler = compiler();
        let (one, two) = futures::join!(compiler.compile(wasm.clone().into()), compiler.compile(wasm.clone().into()));
        let three = compiler.compile(wasm.into()).await.unwrap();
        assert!(Arc::ptr_eq(&one.unwrap().0, &three.0));
        assert!(Arc::ptr_eq(&two.unwrap().0, &three.0));
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let compiler = compiler();
        for _ in 0..2 {
            compiler.compile(Bytes::from_static(b"\0asm\x0d\0\x01\0")).await.unwrap_err();
            assert!(compiler.0.known.lock().unwrap().is_empty());
        }
    }

    /// A program that returns success at once.
    const MINIMAL_PROGRAM: &str = r#"(component
        (core module $m (func (export "run") (result i32) i32.const 0))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (component $c (import "f" (func $f (result (result)))) (export "run" (func $f)))
        (instance $r (instantiate $c (with "f" (func $run))))
        (export "wasi:cli/run@0.2.0" (instance $r)))"#;
}
