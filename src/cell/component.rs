//! From bytes to something that can be run: checking, compiling, and remembering.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::account::{Account, LimitReached, compiling_max};
use super::code_cache::{self, CodeCache, Key, NewCode};
use super::compile_child::{ChildCompiler, CompileLimit, Failed};
use super::engine::Engine;
use super::known::{Compiling, Digest256, Found, Known};
use super::program::{Code, HeldProgram, Origin, Payer, Program};

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
    /// It has components that come from elsewhere, or too many of them.
    #[error(
        "it instantiates a component that it is handed or finds in an instance, or so many that what they take cannot be told"
    )]
    Boundless,
    /// What the host keeps of it is more than the cell may have.
    #[error("what the host keeps of it does not fit")]
    Limit(#[from] LimitReached),
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
/// wait, a few components at a time; cells and RPC go on meanwhile. When nobody waits for a component
/// any more, its process is ended. On a thread compiling cannot be ended, and the result goes to the cache.
///
/// Each cell has, with those below it, one component compiled at a time, so that a neighbour waits for one and not for all that
/// children without end ask for; a cell without a parent has some. Who waits for a component that another has asked for
/// before has it compiled when it is his own turn, if that is sooner.
#[derive(Clone)]
pub struct Compiler(Arc<Shop>);

struct Shop {
    engine: Engine,
    options: CompilerOptions,
    runtime: Handle,
    /// How many compile at once: one more than a cell without a parent may have. Made when something is compiled.
    slots: OnceLock<Arc<Semaphore>>,
    /// Locked for a look-up only.
    known: Mutex<Known>,
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

    /// Finds `wasm` compiled, if it is, for the cell with this account that is to run it. Blocks for as long as it takes to read
    /// the code, which for a small program is less than it takes to have another thread do it.
    ///
    /// # Errors
    ///
    /// As for [`Compiler::compile_for`].
    pub fn find_own(&self, wasm: &[u8], account: &Account) -> Option<Result<HeldProgram, ComponentError>> {
        self.find_and_book(wasm, &Payer::Own(account.clone()))
    }

    /// As [`Compiler::find_own`], on behalf of nobody who is limited.
    ///
    /// # Errors
    ///
    /// As for [`Compiler::compile`].
    pub fn find(&self, wasm: &[u8]) -> Option<Result<Program, ComponentError>> {
        Some(self.find_and_book(wasm, &Payer::Nobody)?.map(|held| held.program().clone()))
    }

    fn find_and_book(&self, wasm: &[u8], payer: &Payer) -> Option<Result<HeldProgram, ComponentError>> {
        if let Err(error) = check_header(wasm) {
            return Some(Err(error));
        }
        let digest = Sha256::digest(wasm).into();
        let found = self.0.known().look_up(&digest);
        let code = match found {
            Some(Found::Code(code)) => code,
            Some(Found::Compiling(..)) => return None,
            None => {
                let code = Arc::new(self.0.find(&key(&self.0.engine, &digest), wasm)?);
                self.0.known().add(digest, &code);
                code
            }
        };
        let held = payer
            .room(&code)
            .map_err(ComponentError::from)
            .and_then(|room| Ok(HeldProgram::new(Program::new(code.clone())?, Arc::new(room))));
        match held {
            Err(ComponentError::Limit(reached)) => Some(Err(reached.into())),
            Err(error) => {
                self.0.known().forget(&digest);
                let may_be_another = matches!(error, ComponentError::Compiler(_)) && code.is_from_cache();
                (!may_be_another).then_some(Err(error))
            }
            held => Some(held),
        }
    }

    /// Compiles `wasm`, or finds it compiled, on behalf of nobody who is limited. Cancel safe.
    ///
    /// # Errors
    ///
    /// The bytes are not a program that this host can run, or compiling them takes more than it may.
    pub async fn compile(&self, wasm: Bytes) -> Result<Program, ComponentError> {
        Ok(self.compile_and_book(wasm, Payer::Nobody).await?.program().clone())
    }

    /// As [`Compiler::compile`], for a cell with this account that starts others from it: while something is compiled that
    /// nobody else has asked for before, it computes, and what is kept of the program is its memory, once for it and all below
    /// it.
    ///
    /// # Errors
    ///
    /// As for [`Compiler::compile`], or there is not so much memory.
    pub async fn compile_for(&self, wasm: Bytes, account: &Account) -> Result<HeldProgram, ComponentError> {
        self.compile_and_book(wasm, Payer::Parent(account.clone())).await
    }

    /// As [`Compiler::compile`], for the cell with this account that is to run it: what is kept of the program is its memory,
    /// where it is more than small programs take.
    ///
    /// # Errors
    ///
    /// As for [`Compiler::compile_for`].
    pub async fn compile_own(&self, wasm: Bytes, account: &Account) -> Result<HeldProgram, ComponentError> {
        self.compile_and_book(wasm, Payer::Own(account.clone())).await
    }

    async fn compile_and_book(&self, wasm: Bytes, payer: Payer) -> Result<HeldProgram, ComponentError> {
        check_header(&wasm)?;
        let hashed = wasm.clone();
        let digest = self.0.runtime.spawn_blocking(move || Sha256::digest(&hashed).into());
        let digest = digest.await.map_err(|_| ComponentError::Stopped)?;
        let mut is_anew = false;
        loop {
            let code = self.code(digest, wasm.clone(), &payer, is_anew).await?;
            let read = self.read(code.clone(), &payer).await;
            match read {
                // Code of ours that is whole and cannot be used, for whatever reason.
                Err(ComponentError::Compiler(_)) if code.is_from_cache() && !is_anew => is_anew = true,
                // Others may have it nevertheless.
                Err(ComponentError::Limit(reached)) => return Err(reached.into()),
                Err(error) => {
                    self.0.known().forget(&digest);
                    return Err(error);
                }
                held => return held,
            }
        }
    }

    /// The code of a component: that which is known or in the cache, unless it is to be made anew.
    async fn code(
        &self,
        digest: Digest256,
        wasm: Bytes,
        payer: &Payer,
        is_anew: bool,
    ) -> Result<Arc<Code>, ComponentError> {
        let (compiling, go) = match self.0.find_or_start(digest, wasm, payer, is_anew) {
            Found::Code(code) => return Ok(code),
            Found::Compiling(compiling, go) => (compiling, go),
        };
        let turn = async {
            let _turn = match payer.account() {
                Some(account) => account.compile_turn().await,
                None => Vec::new(),
            };
            go.notify_one();
            std::future::pending().await
        };
        let compiled = tokio::select! {
            biased;
            compiled = compiling => compiled,
            never = turn => never,
        };
        match &compiled {
            Ok(code) => self.0.known().add(digest, code),
            Err(_) => self.0.known().forget(&digest),
        }
        compiled
    }

    /// Makes room for what is kept of a program, and then reads it. The room is there for as long as that takes, also where
    /// nobody waits for it any more.
    async fn read(&self, code: Arc<Code>, payer: &Payer) -> Result<HeldProgram, ComponentError> {
        let room = Arc::new(payer.room(&code)?);
        if !code.is_read() {
            let (code, room) = (code.clone(), room.clone());
            let read = self.0.runtime.spawn_blocking(move || {
                let _room = room;
                code.read()
            });
            read.await.map_err(|_| ComponentError::Stopped)??;
        }
        Ok(HeldProgram::new(Program::new(code)?, room))
    }
}

impl Shop {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a component in memory, or begins to look for it elsewhere.
    fn find_or_start(self: &Arc<Self>, digest: Digest256, wasm: Bytes, payer: &Payer, is_anew: bool) -> Found {
        let mut known = self.known();
        if let Some(found) = known.look_up(&digest).filter(|found| !is_anew || matches!(found, Found::Compiling(..))) {
            return found;
        }
        let go = Arc::new(Notify::new());
        let compiling = self.start(digest, wasm, payer.computes().cloned(), go.clone(), is_anew);
        known.begin(digest, &compiling, &go);
        Found::Compiling(compiling, go)
    }

    fn start(
        self: &Arc<Self>,
        digest: Digest256,
        wasm: Bytes,
        payer: Option<Account>,
        go: Arc<Notify>,
        is_anew: bool,
    ) -> Compiling {
        let stop = CancellationToken::new();
        let task = self.runtime.spawn(self.clone().make(digest, wasm, payer, go, is_anew, stop.clone()));
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
        go: Arc<Notify>,
        is_anew: bool,
        stop: CancellationToken,
    ) -> Result<Arc<Code>, ComponentError> {
        let key = key(&self.engine, &digest);
        if self.options.cache.is_some() && !is_anew {
            let (shop, wasm) = (self.clone(), wasm.clone());
            let found = self.runtime.spawn_blocking(move || shop.find(&key, &wasm));
            if let Some(code) = found.await.map_err(|_| ComponentError::Stopped)? {
                return Ok(Arc::new(code));
            }
        }
        let slots = self.slots.get_or_init(|| Arc::new(Semaphore::new(compiling_max() + 1))).clone();
        let slot = stop.run_until_cancelled(async {
            go.notified().await;
            slots.acquire_owned().await
        });
        let Some(Ok(_slot)) = slot.await else { return Err(ComponentError::Stopped) };
        let shop = self.clone();
        let compiled = self.runtime.spawn_blocking(move || {
            let start = Instant::now();
            let compiled = shop.compile_now(&wasm, &key, &stop);
            // Also where nothing came of it.
            if let Some(payer) = payer {
                payer.count_computed(start.elapsed());
            }
            compiled
        });
        compiled.await.map_err(|_| ComponentError::Stopped)?.map(Arc::new)
    }

    /// Looks into the cache.
    fn find(&self, key: &Key, wasm: &[u8]) -> Option<Code> {
        let native = self.options.cache.as_ref()?.find(key)?;
        let code = Code::new(&self.engine, native, Origin::Cache, wasm);
        match &code {
            Some(_) => tracing::debug!("found compiled"),
            None => tracing::debug!("compiled code is not used"),
        }
        code
    }

    /// Compiles, and keeps what comes of it.
    fn compile_now(&self, wasm: &[u8], key: &Key, stop: &CancellationToken) -> Result<Code, ComponentError> {
        let mut new = self.new_code()?;
        let no_file = |error: String| ComponentError::compiler(io::Error::other(error));
        loop {
            let to = new.writer().map_err(ComponentError::compiler)?;
            let compiled = match &self.options.child {
                Some(child) => child.compile(self.engine.options, wasm, to, stop),
                None => self.compile_here(wasm, to),
            };
            match compiled {
                Ok(()) => break,
                Err(Failed::Component(error)) => return Err(error),
                // The disk is full, perhaps.
                Err(Failed::Write(error)) if new.is_kept() => {
                    tracing::debug!(error, "compiled code is not kept");
                    new = NewCode::unnamed().map_err(ComponentError::compiler)?;
                }
                Err(Failed::Write(error)) => return Err(no_file(error)),
            }
        }
        let native = new.check().map_err(ComponentError::compiler)?;
        let origin = if new.is_kept() { Origin::Compiled } else { Origin::InMemory };
        let code = Code::new(&self.engine, native, origin, wasm);
        new.keep(key);
        code.ok_or_else(|| no_file("it has made no code".into()))
    }

    /// Compiles on this thread.
    fn compile_here(&self, wasm: &[u8], to: File) -> Result<(), Failed> {
        let invalid = |error| Failed::Component(ComponentError::invalid(error));
        let code = self.engine.wasmtime.precompile_component(wasm).map_err(invalid)?;
        code_cache::write(to, &code).map_err(|error| Failed::Write(error.to_string()))
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
        assert!(one.unwrap().is_same(&three));
        assert!(two.unwrap().is_same(&three));
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
        assert!(compiler.compile_own(invalid.clone(), third).await.is_err());
        assert!(third.cpu_time().is_zero(), "its own program is compiled for who runs it");
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
        assert!(found.is_same(&two.compile(wasm.clone()).await.unwrap()));
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
            assert!(cache.find(&key).is_some() && compiler.0.find(&key, &wasm).is_none());
        }
        compiler.compile(wasm.clone()).await.unwrap();
        assert!(compiler.0.find(&key, &wasm).is_some());
    }

    /// A program with a module beside it that has so many globals, each of which takes some 70 bytes of the heap.
    fn with_globals(count: usize) -> Bytes {
        let globals = "(global i32 (i32.const 0))".repeat(count);
        let text = MINIMAL_PROGRAM.replacen("(component", &format!("(component (core module {globals})"), 1);
        wat::parse_str(text).unwrap().into()
    }

    #[tokio::test]
    async fn what_is_kept_of_a_program_is_memory() {
        let wasm = with_globals(100_000);
        let compiler = compiler();
        let limited = |text: &str| {
            let mut limits = Limits::default();
            limits.extend([text.parse().unwrap()]);
            Account::new(limits)
        };
        let root = limited("memory=64MiB");
        let child = root.below(Limits::default()).unwrap();
        let one = compiler.compile_for(wasm.clone(), &child).await.unwrap();
        let kept_bytes = root.memory_bytes();
        assert!(kept_bytes >= 7_000_000, "{kept_bytes}");
        let two = compiler.compile_for(wasm.clone(), &root).await.unwrap();
        assert!(one.program().is_same(two.program()));
        assert_eq!((root.memory_bytes(), child.memory_bytes()), (kept_bytes, kept_bytes));
        drop((one, two));
        assert_eq!((root.memory_bytes(), child.memory_bytes()), (0, 0));
        for small in [limited("memory=1MiB"), limited("memory=1MiB").below(Limits::default()).unwrap()] {
            let error = compiler.compile_for(wasm.clone(), &small).await.unwrap_err();
            assert!(matches!(error, ComponentError::Limit(_)), "{error}");
            assert_eq!(small.memory_bytes(), 0);
        }
        // What a user starts himself counts where it is not small.
        let own = limited("memory=64MiB");
        let _held = compiler.compile_own(wasm, &own).await.unwrap();
        assert!((kept_bytes - (8 << 20)..kept_bytes).contains(&own.memory_bytes()), "{}", own.memory_bytes());
        let (least, minimal) = (limited("memory=64KiB"), wat::parse_str(MINIMAL_PROGRAM).unwrap());
        compiler.compile_own(minimal.into(), &least).await.unwrap();
    }

    #[tokio::test]
    async fn what_takes_much_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(dir.path(), 1 << 30).unwrap();
        let engine = Engine::new(EngineOptions::default()).unwrap();
        let options = CompilerOptions { cache: Some(cache), child: None };
        let compiler = Compiler::with_options(engine, Handle::current(), options);
        let wasm = with_globals(300_000);
        let digest = Sha256::digest(&wasm).into();
        let program = compiler.compile(wasm.clone()).await.unwrap();
        // As long as somebody has it, others have the same.
        assert!(compiler.compile(wasm).await.unwrap().is_same(&program));
        drop(program);
        assert!(compiler.0.known().look_up(&digest).is_none());
    }

    #[tokio::test]
    async fn who_waits_for_what_another_has_asked_for_has_it_compiled_at_his_own_turn() {
        let compiler = compiler();
        let root = Account::new(Limits::default());
        let [first, second]: [_; 2] = std::array::from_fn(|_| root.below(Limits::default()).unwrap());
        let below = first.below(Limits::default()).unwrap();
        let wasm = Bytes::from(wat::parse_str(MINIMAL_PROGRAM).unwrap());
        // Something of the first one is being compiled.
        let turn = below.compile_turn().await;
        let mut waiting = Box::pin(compiler.compile_for(wasm.clone(), &first));
        let soon = tokio::time::timeout(std::time::Duration::from_millis(50), &mut waiting).await;
        assert!(soon.is_err(), "it is not its turn");
        let (one, two) = futures::join!(waiting, compiler.compile_for(wasm, &second));
        assert!(one.unwrap().program().is_same(two.unwrap().program()));
        drop(turn);
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
