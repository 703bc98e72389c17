//! The functions of this host that a component can import.

use wasmtime::component::{Component, InstancePre, Linker, Resource};
use wasmtime::{Engine, StoreContextMut};
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::p2::bindings::{cli, random, sockets};
use wasmtime_wasi::p2::{self, DynInputStream, DynOutputStream};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView as _};

use super::filesystem;
use super::network;
use super::process::CellState;

/// Name of the interface that gives a guest its RPC channel; its WIT is in `guests/sdk/wit`.
const RPC_INTERFACE: &str = "ww:cell/rpc@0.1.0";

/// How the names of interfaces begin that few programs import.
const FILESYSTEM: &str = "wasi:filesystem/";
const SOCKETS: &str = "wasi:sockets/";

/// The host's functions, as far as a component has asked for them: to put all of them together takes longer than a small
/// program takes to run.
pub(super) struct Functions {
    linker: Linker<CellState>,
    added: Added,
}

/// Which are in the linker.
#[derive(Default)]
struct Added {
    basics: bool,
    filesystem: bool,
    sockets: bool,
}

impl Functions {
    pub(super) fn new(engine: &Engine) -> Self {
        Self { linker: Linker::new(engine), added: Added::default() }
    }

    /// Gives a component what it imports.
    ///
    /// # Errors
    ///
    /// It imports what is not there.
    pub(super) fn link(&mut self, component: &Component) -> wasmtime::Result<InstancePre<CellState>> {
        let engine = self.linker.engine().clone();
        let imports = component.component_type();
        let is_imported = |prefix: &str| imports.imports(&engine).any(|(name, _)| name.starts_with(prefix));
        if !std::mem::replace(&mut self.added.basics, true) {
            add_basics(&mut self.linker)?;
        }
        if is_imported(FILESYSTEM) && !std::mem::replace(&mut self.added.filesystem, true) {
            filesystem::add_to_linker(&mut self.linker)?;
        }
        if is_imported(SOCKETS) && !std::mem::replace(&mut self.added.sockets, true) {
            add_sockets(&mut self.linker)?;
        }
        self.linker.instantiate_pre(component)
    }
}

/// Adds what most programs have whatever they do: all of the world `wasi:cli/imports` but files and sockets.
fn add_basics(linker: &mut Linker<CellState>) -> wasmtime::Result<()> {
    type T = CellState;
    // Streams, clocks, secure random numbers, and the standard streams.
    p2::add_to_linker_proxy_interfaces_async(linker)?;
    random::insecure::add_to_linker::<T, WasiRandom>(linker, |state| state.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<T, WasiRandom>(linker, |state| state.ctx().ctx.random())?;
    cli::exit::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::environment::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_input::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_output::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_stdin::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_stdout::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_stderr::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    linker.instance(RPC_INTERFACE)?.func_wrap("connect", connect)
}

fn add_sockets(linker: &mut Linker<CellState>) -> wasmtime::Result<()> {
    type T = CellState;
    sockets::tcp::add_to_linker::<T, WasiSockets>(linker, T::sockets)?;
    sockets::udp::add_to_linker::<T, WasiSockets>(linker, T::sockets)?;
    sockets::instance_network::add_to_linker::<T, WasiSockets>(linker, T::sockets)?;
    sockets::network::add_to_linker::<T, WasiSockets>(linker, &Default::default(), T::sockets)?;
    // What a cell is refused there is counted.
    network::add_to_linker(linker)
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
