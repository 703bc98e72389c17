//! The wasmtime engine that all cells of a process share, and the clock that pre-empts them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use wasmtime::component::{Component, InstancePre};
use wasmtime::{Config, WasmBacktraceDetails};

use super::functions::Functions;
use super::process::CellState;

/// How long a cell computes before it lets others on its thread go on. Short, so that an RPC call next to spinning
/// cells waits milliseconds; the tick itself costs one atomic increment.
const EPOCH: Duration = Duration::from_millis(1);

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
    functions: Arc<Mutex<Functions>>,
    clock: Arc<Clock>,
}

impl Engine {
    /// Makes an engine. Its clock is a thread that starts with the first cell and sleeps while none is alive.
    ///
    /// # Errors
    ///
    /// wasmtime refuses the settings, for example on a processor that it has no compiler for.
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        let wasmtime = bare(options)?;
        let functions = Arc::new(Mutex::new(Functions::new(&wasmtime)));
        let clock = Arc::new(Clock::new(wasmtime.weak()));
        Ok(Self { wasmtime, options, functions, clock })
    }

    /// Gives a component what it imports.
    ///
    /// # Errors
    ///
    /// It imports what this host does not have.
    pub(super) fn link(&self, component: &Component) -> wasmtime::Result<InstancePre<CellState>> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner).link(component)
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

/// Advances the engine's epoch while there are cells.
struct Clock {
    engine: wasmtime::EngineWeak,
    /// Written when a cell starts or ends, read by the clock's thread.
    state: Mutex<ClockState>,
    changed: Condvar,
}

#[derive(Default)]
struct ClockState {
    /// How many cells are alive.
    cells: usize,
    /// Whether there has been one, and with it the thread.
    has_thread: bool,
}

impl Clock {
    fn new(engine: wasmtime::EngineWeak) -> Self {
        Self { engine, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, ClockState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>) {
        let mut state = self.state();
        state.cells += 1;
        if std::mem::replace(&mut state.has_thread, true) {
            drop(state);
            self.changed.notify_one();
            return;
        }
        let weak = Arc::downgrade(self);
        // The thread ends with the engine or the clock, whichever goes first.
        thread::Builder::new()
            .name("ww-epoch".into())
            .spawn(move || {
                while let Some(clock) = weak.upgrade() {
                    clock.wait_for_cells();
                    drop(clock);
                    thread::sleep(EPOCH);
                    let Some(clock) = weak.upgrade() else { break };
                    let Some(engine) = clock.engine.upgrade() else { break };
                    engine.increment_epoch();
                }
            })
            .expect("a process that cannot start one thread cannot run cells");
    }

    fn remove(&self) {
        self.state().cells -= 1;
    }

    /// Waits until there is a cell, or for a second, so that the thread notices when the engine is gone.
    fn wait_for_cells(&self) {
        let state = self.state();
        if state.cells == 0 {
            drop(self.changed.wait_timeout(state, Duration::from_secs(1)));
        }
    }
}

pub(super) struct TickGuard(Arc<Clock>);

impl Drop for TickGuard {
    fn drop(&mut self) {
        self.0.remove();
    }
}
