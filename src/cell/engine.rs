//! The wasmtime engine that all cells of a process share, and the clock that pre-empts them.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use wasmtime::component::{Linker, Resource};
use wasmtime::{Config, StoreContextMut, WasmBacktraceDetails};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream};

use super::filesystem;
use super::network;
use super::process::CellState;

/// How long a cell computes before it lets others on its thread go on. Short, so that an RPC call next to spinning
/// cells waits milliseconds; the tick itself costs one atomic increment.
const EPOCH: Duration = Duration::from_millis(1);

/// Name of the interface that gives a guest its RPC channel; its WIT is in `guests/sdk/wit`.
const RPC_INTERFACE: &str = "ww:cell/rpc@0.1.0";

/// How many processors this process may use. Found out once: it takes some files of the system.
pub fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// Settings of an [`Engine`].
#[derive(Debug, Clone, Copy, Default)]
pub struct EngineOptions {
    /// Compile debug information into the native code and show files and lines in trap backtraces, where the guest
    /// has them.
    pub debug: bool,
}

/// An engine could not be made: the machine lacks something that wasmtime needs.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up the WebAssembly engine")]
pub struct EngineError(#[from] wasmtime::Error);

/// Compiler settings, code memory and host functions; a cheap handle. One is enough for a process.
#[derive(Clone)]
pub struct Engine {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) options: EngineOptions,
    linker: Arc<OnceLock<Linker<CellState>>>,
    clock: Arc<Clock>,
}

impl Engine {
    /// Makes an engine and starts its clock thread, which sleeps while no cell is alive.
    ///
    /// # Errors
    ///
    /// wasmtime refuses the settings, for example on a processor that it has no compiler for.
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        let wasmtime = bare(options)?;
        let clock = Clock::start(wasmtime.weak());
        Ok(Self { wasmtime, options, linker: Arc::default(), clock })
    }

    /// The host's functions. Put together when they are first asked for, by whoever loads the first component, while
    /// others start the rest of the process.
    pub(super) fn linker(&self) -> &Linker<CellState> {
        let make = || linker(&self.wasmtime).expect("the names of the host's functions differ");
        self.linker.get_or_init(make)
    }

    /// Keeps the clock going for as long as the guard lives.
    pub(super) fn tick(&self) -> TickGuard {
        self.clock.add();
        TickGuard(self.clock.clone())
    }
}

/// wasmtime's part of an [`Engine`], which is enough to compile with. Equal options give compatible code.
pub(super) fn bare(options: EngineOptions) -> wasmtime::Result<wasmtime::Engine> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.debug_info(options.debug);
    config.wasm_backtrace_details(if options.debug {
        WasmBacktraceDetails::Enable
    } else {
        WasmBacktraceDetails::Disable
    });
    wasmtime::Engine::new(&config)
}

fn linker(wasmtime: &wasmtime::Engine) -> wasmtime::Result<Linker<CellState>> {
    let mut linker = Linker::new(wasmtime);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    linker.allow_shadowing(true);
    filesystem::add_to_linker(&mut linker)?;
    network::add_to_linker(&mut linker)?;
    linker.allow_shadowing(false);
    linker.instance(RPC_INTERFACE)?.func_wrap("connect", connect)?;
    Ok(linker)
}

type Channel = (Resource<DynInputStream>, Resource<DynOutputStream>);

/// `ww:cell/rpc.connect`: hands the guest its RPC channel, once.
fn connect(mut store: StoreContextMut<'_, CellState>, (): ()) -> wasmtime::Result<(Option<Channel>,)> {
    let state = store.data_mut();
    let Some(channel) = state.rpc.take() else { return Ok((None,)) };
    let input: DynInputStream = Box::new(channel.input);
    let output: DynOutputStream = Box::new(channel.output);
    Ok((Some((state.table.push(input)?, state.table.push(output)?)),))
}

/// Advances the engine's epoch while there are cells.
struct Clock {
    /// How many cells are alive. Written when one starts or ends, read by the clock thread.
    cells: Mutex<usize>,
    changed: Condvar,
}

impl Clock {
    fn start(engine: wasmtime::EngineWeak) -> Arc<Self> {
        let clock = Arc::new(Self { cells: Mutex::new(0), changed: Condvar::new() });
        let weak = Arc::downgrade(&clock);
        // The thread ends with the engine or the clock, whichever goes first.
        thread::Builder::new()
            .name("ww-epoch".into())
            .spawn(move || {
                while let (Some(engine), Some(clock)) = (engine.upgrade(), weak.upgrade()) {
                    engine.increment_epoch();
                    drop(engine);
                    clock.wait_for_cells();
                    drop(clock);
                    thread::sleep(EPOCH);
                }
            })
            .expect("a process that cannot start one thread cannot run cells");
        clock
    }

    fn add(&self) {
        *self.cells.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_one();
    }

    fn remove(&self) {
        *self.cells.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }

    /// Waits until there is a cell, or for a second, so that the thread notices when the engine is gone.
    fn wait_for_cells(&self) {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if *cells == 0 {
            drop(self.changed.wait_timeout(cells, Duration::from_secs(1)));
        }
    }
}

pub(super) struct TickGuard(Arc<Clock>);

impl Drop for TickGuard {
    fn drop(&mut self) {
        self.0.remove();
    }
}
