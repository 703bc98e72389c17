//! From bytes to something that can be run: checking, compiling, and remembering.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use std::{fmt, io};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wasmtime::component::Component;
use wasmtime_wasi::p2::bindings::CommandPre;

use super::account::Account;
use super::code_cache::{self, CodeCache, Key, NewCode};
use super::compile_child::{ChildCompiler, CompileLimit, Failed};
use super::engine::{Engine, processors};
use super::native::NativeCode;
use super::process::CellState;
use crate::wasm_binary::{self, Weight};

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
    /// It is a compile bomb, or far larger than any known program.
    #[error("compiling it takes more than {0}")]
    TooExpensive(CompileLimit),
    /// The compiler could not be started, or failed in a way that it must not.
    #[error("the compiler failed")]
    Compiler(#[source] Arc<io::Error>),
    /// The compiler ended without an answer.
    #[error("the compiler was stopped")]
    Stopped,
}

impl ComponentError {
    pub(super) fn invalid(error: wasmtime::Error) -> Self {
        Self::Invalid(Arc::new(error))
    }

    pub(super) fn compiler(error: io::Error) -> Self {
        Self::Compiler(Arc::new(error))
    }
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
    weight: Weight,
}

impl Program {
    pub(super) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(super) fn weight(&self) -> Weight {
        self.0.weight
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

/// What is decided anew when the key of [`CodeCache`] is to be another for all components.
const KEY_VERSION: &[u8] = b"ww compiled component 1";

/// Where a [`Compiler`] compiles, and where it keeps what it has compiled.
#[derive(Clone, Debug, Default)]
pub struct CompilerOptions {
    /// Where native code is kept, for this process and others.
    pub cache: Option<CodeCache>,
    /// The process that compiles; without one it is done on a thread of this process, without limits.
    pub child: Option<ChildCompiler>,
}

/// Compiles components for one engine. Equal bytes are compiled once, also when several ask at the same time; what has
/// been compiled is looked for in memory and then in the cache.
///
/// The work is done on the blocking threads of the runtime whose handle it was given, or in processes for which these
/// wait, at most one component per processor at a time; cells and RPC go on meanwhile. When nobody waits for a component
/// any more, its process is ended. On a thread compiling cannot be ended, and the result goes to the cache.
#[derive(Clone)]
pub struct Compiler(Arc<Shop>);

struct Shop {
    engine: Engine,
    options: CompilerOptions,
    runtime: Handle,
    /// How many compile at once. Cranelift uses all processors for one component already. Made when something is compiled.
    slots: OnceLock<Arc<Semaphore>>,
    /// The newest first. Bounded by [`COMPILED_COUNT_MAX`]; locked for a look-up only.
    known: Mutex<VecDeque<(Digest256, Known)>>,
}

/// What is known of a component.
enum Known {
    /// It is ready.
    Program(Program),
    /// Somebody has asked for it. Those who wait own the future, so that it ends with the last of them.
    Compiling(WeakShared<BoxFuture<'static, Result<Program, ComponentError>>>),
}

impl Compiler {
    /// Compiles for `engine` on the blocking threads of `runtime`, and keeps nothing on disk.
    pub fn new(engine: Engine, runtime: Handle) -> Self {
        Self::with_options(engine, runtime, CompilerOptions::default())
    }

    /// As [`Compiler::new`], with a cache and a process that compiles.
    pub fn with_options(engine: Engine, runtime: Handle, options: CompilerOptions) -> Self {
        Self(Arc::new(Shop { engine, options, runtime, slots: OnceLock::new(), known: Mutex::default() }))
    }

    /// Finds `wasm` compiled, if it is. Blocks for as long as it takes to read the code, which for a small program is less
    /// than it takes to have another thread do it.
    ///
    /// # Errors
    ///
    /// As for [`Compiler::compile`].
    pub fn find(&self, wasm: &[u8]) -> Option<Result<Program, ComponentError>> {
        if let Err(error) = check_header(wasm) {
            return Some(Err(error));
        }
        let digest = Sha256::digest(wasm).into();
        match look_up(&mut self.0.known(), &digest) {
            Some(Found::Program(program)) => return Some(Ok(program)),
            Some(Found::Compiling(_)) => return None,
            None => {}
        }
        let found = program(&self.0.engine, &self.0.find(&key(&self.0.engine, &digest))?, wasm);
        if let Ok(program) = &found {
            let mut known = self.0.known();
            known.push_front((digest, Known::Program(program.clone())));
            known.truncate(COMPILED_COUNT_MAX);
        }
        Some(found)
    }

    /// Compiles `wasm`, or finds it compiled. Cancel safe.
    ///
    /// # Errors
    ///
    /// The bytes are not a program that this host can run, or compiling them takes more than it may.
    pub async fn compile(&self, wasm: Bytes) -> Result<Program, ComponentError> {
        self.compile_and_book(wasm, None).await
    }

    /// As [`Compiler::compile`], on behalf of a cell with this account: while something is compiled that nobody else has asked
    /// for before, it computes.
    ///
    /// # Errors
    ///
    /// As for [`Compiler::compile`].
    pub async fn compile_for(&self, wasm: Bytes, account: &Account) -> Result<Program, ComponentError> {
        self.compile_and_book(wasm, Some(account.clone())).await
    }

    async fn compile_and_book(&self, wasm: Bytes, payer: Option<Account>) -> Result<Program, ComponentError> {
        check_header(&wasm)?;
        let hashed = wasm.clone();
        let digest = self.0.runtime.spawn_blocking(move || Sha256::digest(&hashed).into());
        let digest = digest.await.map_err(|_| ComponentError::Stopped)?;
        let compiling = match self.0.find_or_start(digest, wasm, payer) {
            Found::Program(program) => return Ok(program),
            Found::Compiling(compiling) => compiling,
        };
        let compiled = compiling.await;
        self.0.remember(&digest, &compiled);
        compiled
    }
}

/// As [`Known`], held.
enum Found {
    Program(Program),
    Compiling(Compiling),
}

impl Shop {
    fn known(&self) -> MutexGuard<'_, VecDeque<(Digest256, Known)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a component in memory, or begins to look for it elsewhere.
    fn find_or_start(self: &Arc<Self>, digest: Digest256, wasm: Bytes, payer: Option<Account>) -> Found {
        let mut known = self.known();
        if let Some(found) = look_up(&mut known, &digest) {
            return found;
        }
        let compiling = self.start(digest, wasm, payer);
        if let Some(weak) = compiling.downgrade() {
            known.push_front((digest, Known::Compiling(weak)));
            known.truncate(COMPILED_COUNT_MAX);
        }
        Found::Compiling(compiling)
    }

    fn start(self: &Arc<Self>, digest: Digest256, wasm: Bytes, payer: Option<Account>) -> Compiling {
        let stop = CancellationToken::new();
        let task = self.runtime.spawn(self.clone().make(digest, wasm, payer, stop.clone()));
        // Dropped with the future, when nobody waits for it any more.
        let guard = stop.drop_guard();
        let waiting = async move {
            let _guard = guard;
            task.await.unwrap_or(Err(ComponentError::Stopped))
        };
        waiting.boxed().shared()
    }

    /// Finds a component in the cache, or compiles it.
    async fn make(
        self: Arc<Self>,
        digest: Digest256,
        wasm: Bytes,
        payer: Option<Account>,
        stop: CancellationToken,
    ) -> Result<Program, ComponentError> {
        let key = key(&self.engine, &digest);
        if self.options.cache.is_some() {
            let (shop, wasm) = (self.clone(), wasm.clone());
            let find = move || shop.find(&key).map(|found| program(&shop.engine, &found, &wasm));
            let found = self.runtime.spawn_blocking(find);
            if let Some(program) = found.await.map_err(|_| ComponentError::Stopped)? {
                return program;
            }
        }
        let slots = self.slots.get_or_init(|| Arc::new(Semaphore::new(processors()))).clone();
        let slot = stop.run_until_cancelled(slots.acquire_owned()).await;
        let Some(Ok(_slot)) = slot else { return Err(ComponentError::Stopped) };
        let shop = self.clone();
        let compiled = self.runtime.spawn_blocking(move || {
            let start = Instant::now();
            let compiled = match &shop.options.child {
                Some(child) => shop.compile_in(child, &wasm, &key, &stop),
                None => shop.compile_here(&wasm, &key),
            };
            // Also where nothing came of it.
            if let Some(payer) = payer {
                payer.count_computed(start.elapsed());
            }
            let component = compiled?;
            program(&shop.engine, &component, &wasm)
        });
        compiled.await.map_err(|_| ComponentError::Stopped)?
    }

    /// Looks into the cache.
    fn find(&self, key: &Key) -> Option<Component> {
        let code = self.options.cache.as_ref()?.find(key)?;
        let loaded = self.load(&code);
        if let Err(error) = &loaded {
            tracing::debug!(%error, "compiled code is not used");
        }
        loaded.ok().inspect(|_| tracing::debug!("found compiled"))
    }

    /// Maps code into memory; a copy of it where its file system allows no code to be run.
    fn load(&self, code: &NativeCode) -> wasmtime::Result<Component> {
        code.load(&self.engine.wasmtime).or_else(|error| {
            let copy = NewCode::unnamed().and_then(|new| new.copy_of(code)).map_err(|_| error)?;
            copy.load(&self.engine.wasmtime)
        })
    }

    /// Compiles in a process of its own.
    fn compile_in(
        &self,
        child: &ChildCompiler,
        wasm: &[u8],
        key: &Key,
        stop: &CancellationToken,
    ) -> Result<Component, ComponentError> {
        let mut new = self.new_code()?;
        loop {
            let to = new.writer().map_err(ComponentError::compiler)?;
            match child.compile(self.engine.options, wasm, to, stop) {
                Ok(()) => break,
                Err(Failed::Component(error)) => return Err(error),
                // The disk is full, perhaps.
                Err(Failed::Write(error)) if new.is_kept() => {
                    tracing::debug!(error, "compiled code is not kept");
                    new = NewCode::unnamed().map_err(ComponentError::compiler)?;
                }
                Err(Failed::Write(error)) => return Err(ComponentError::compiler(io::Error::other(error))),
            }
        }
        let code = new.check().map_err(ComponentError::compiler)?;
        let component = self.load(&code).map_err(|error| ComponentError::compiler(io::Error::other(error)))?;
        new.keep(key);
        Ok(component)
    }

    /// Compiles on this thread.
    fn compile_here(&self, wasm: &[u8], key: &Key) -> Result<Component, ComponentError> {
        let component = Component::from_binary(&self.engine.wasmtime, wasm).map_err(ComponentError::invalid)?;
        if let Some(cache) = &self.options.cache {
            let kept = cache.create().and_then(|new| {
                let code = component.serialize().map_err(io::Error::other)?;
                code_cache::write(new.writer()?, &code)?;
                new.keep(key);
                Ok(())
            });
            if let Err(error) = kept {
                tracing::debug!(%error, "compiled code is not kept");
            }
        }
        Ok(component)
    }

    /// A file for code, in the cache where that is possible.
    fn new_code(&self) -> Result<NewCode, ComponentError> {
        match self.options.cache.as_ref().map(CodeCache::create) {
            Some(Ok(new)) => return Ok(new),
            Some(Err(error)) => tracing::debug!(%error, "compiled code is not kept"),
            None => {}
        }
        NewCode::unnamed().map_err(ComponentError::compiler)
    }

    /// Keeps a program for the next who asks, and forgets a failure.
    fn remember(&self, digest: &Digest256, compiled: &Result<Program, ComponentError>) {
        let mut known = self.known();
        match compiled {
            Ok(program) => {
                if let Some((_, entry)) = known.iter_mut().find(|(known, _)| known == digest) {
                    *entry = Known::Program(program.clone());
                }
            }
            Err(_) => known.retain(|(known, _)| known != digest),
        }
    }
}

/// Looks into memory. What is found counts as the newest.
fn look_up(known: &mut VecDeque<(Digest256, Known)>, digest: &Digest256) -> Option<Found> {
    let place = known.iter().position(|(known, _)| known == digest)?;
    let (_, entry) = known.remove(place)?;
    let found = match &entry {
        Known::Program(program) => Found::Program(program.clone()),
        Known::Compiling(compiling) => Found::Compiling(compiling.upgrade()?),
    };
    known.push_front((*digest, entry));
    Some(found)
}

/// What the code of a component is found by. wasmtime's hash has its exact version in it, where the header of its files has
/// only the first number: what one with a known flaw compiled is not used by the next.
fn key(engine: &Engine, component: &Digest256) -> Key {
    struct Sink(Sha256);
    impl Hasher for Sink {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut sink = Sink(Sha256::new());
    sink.write(KEY_VERSION);
    sink.write(component);
    engine.wasmtime.precompile_compatibility_hash().hash(&mut sink);
    sink.0.finalize().into()
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

/// Checks that the component is a program, and that this host has what it imports.
fn program(engine: &Engine, component: &Component, wasm: &[u8]) -> Result<Program, ComponentError> {
    let instance = engine.link(component).map_err(|error| ComponentError::Import(Arc::new(error)))?;
    let command = CommandPre::new(instance).map_err(|_| ComponentError::NoRun { exports: exports(component) })?;
    Ok(Program(Arc::new(Inner { engine: engine.clone(), command, weight: wasm_binary::weight(wasm) })))
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
    use crate::grant::Limits;

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
    async fn who_asks_first_computes() {
        let accounts: [_; 3] = std::array::from_fn(|_| Account::new(Limits::default()));
        let (compiler, wasm) = (compiler(), Bytes::from(wat::parse_str(MINIMAL_PROGRAM).unwrap()));
        let [first, second, third] = &accounts;
        let (one, two) =
            futures::join!(compiler.compile_for(wasm.clone(), first), compiler.compile_for(wasm.clone(), second));
        compiler.compile_for(wasm, third).await.unwrap();
        assert!(one.is_ok() && two.is_ok());
        let has_computed = accounts.each_ref().map(|account| !account.cpu_time().is_zero());
        assert_eq!(has_computed.iter().filter(|has| **has).count(), 1, "{has_computed:?}");
        assert!(!has_computed[2]);
        let invalid = Bytes::from_static(b"\0asm\x0d\0\x01\0\xff");
        compiler.compile_for(invalid, third).await.unwrap_err();
        assert!(!third.cpu_time().is_zero(), "also for what cannot be compiled");
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let compiler = compiler();
        for _ in 0..2 {
            compiler.compile(Bytes::from_static(b"\0asm\x0d\0\x01\0")).await.unwrap_err();
            assert!(compiler.0.known.lock().unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn what_one_has_compiled_others_find() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(dir.path(), 1 << 20).unwrap();
        let engine = |debug| Engine::new(EngineOptions { debug }).unwrap();
        let compiler = |debug| {
            let options = CompilerOptions { cache: Some(cache.clone()), child: None };
            Compiler::with_options(engine(debug), Handle::current(), options)
        };
        let wasm = Bytes::from(wat::parse_str(MINIMAL_PROGRAM).unwrap());
        let one = compiler(false);
        assert!(one.find(&wasm).is_none());
        one.compile(wasm.clone()).await.unwrap();
        assert!(one.find(&wasm).unwrap().is_ok());
        let two = compiler(false);
        let found = two.find(&wasm).unwrap().unwrap();
        assert!(Arc::ptr_eq(&found.0, &two.compile(wasm.clone()).await.unwrap().0));
        // Under other settings it is other code.
        assert!(compiler(true).find(&wasm).is_none());
        compiler(true).compile(wasm.clone()).await.unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn code_of_something_else_is_not_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(dir.path(), 1 << 20).unwrap();
        let options = CompilerOptions { cache: Some(cache.clone()), child: None };
        let compiler =
            Compiler::with_options(Engine::new(EngineOptions::default()).unwrap(), Handle::current(), options);
        let wasm = Bytes::from(wat::parse_str(MINIMAL_PROGRAM).unwrap());
        let key = key(&compiler.0.engine, &Sha256::digest(&wasm).into());
        for code in [&b""[..], b"\x7fELF and so on", &wasm] {
            let new = cache.create().unwrap();
            code_cache::write(new.writer().unwrap(), code).unwrap();
            new.keep(&key);
            assert!(cache.find(&key).is_some() && compiler.0.find(&key).is_none());
        }
        compiler.compile(wasm).await.unwrap();
        assert!(compiler.0.find(&key).is_some());
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
