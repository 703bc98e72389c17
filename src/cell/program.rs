//! Programs that can be run, and what the host keeps of them.
//!
//! Native code is mapped from a file, and can be given back. What wasmtime keeps beside it, a description of everything that
//! the component has, is on the heap of this process for as long as anybody has the program. So it is booked on the account
//! of each who has it, before it is there: [`Code`] is code that is found or compiled and whose description is not read yet,
//! [`HeldProgram`] is a program with the room for it.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use wasmtime::component::Component;
use wasmtime_wasi::p2::bindings::CommandPre;

use super::account::{Account, Held, LimitReached};
use super::code_cache::NewCode;
use super::component::ComponentError;
use super::engine::Engine;
use super::native::NativeCode;
use super::process::CellState;
use crate::wasm_binary::{self, Weight};

/// How many bytes of the heap a byte of the description takes at most, as it is in the file. Lists of parameters take most,
/// 48 (16 bytes for each of them, and three times that: with the component, among the types of the engine, and as the key by
/// which they are found there); globals and exports take some 10. Instances of components take 93 for their one byte, and are
/// counted by themselves ([`Weight::context_bytes`]).
const HEAP_PER_BYTE: u64 = 64;

/// What any program takes beside that, in bytes.
const PROGRAM_BYTES: u64 = 64 * 1024;

/// How much of that is not counted as the memory of a cell whose user has named the program. What compilers make of small
/// programs takes some two megabytes.
const OWN_BYTES_FREE: u64 = 8 * 1024 * 1024;

/// Code that has been compiled, and once somebody wants to run it the program that it is.
pub(super) struct Code {
    engine: Engine,
    weight: Weight,
    kept_bytes: u64,
    is_from_cache: bool,
    /// The code, until its description has been read. Locked for a moment.
    native: Mutex<Option<Arc<NativeCode>>>,
    command: OnceLock<Result<CommandPre<CellState>, ComponentError>>,
}

/// Where code was found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// In the cache.
    Cache,
    /// It was compiled, and is in a file now.
    Compiled,
    /// It was compiled, and is in memory.
    InMemory,
}

impl Code {
    /// The code that `wasm` has been compiled to; `None` if it is no such code.
    pub(super) fn new(engine: &Engine, native: NativeCode, origin: Origin, wasm: &[u8]) -> Option<Self> {
        let file_bytes = if origin == Origin::InMemory { native.file_bytes()? } else { 0 };
        let weight = wasm_binary::weight(wasm);
        let described = native.description_bytes()?.saturating_mul(HEAP_PER_BYTE);
        let rest = [PROGRAM_BYTES, weight.context_bytes, file_bytes];
        Some(Self {
            engine: engine.clone(),
            weight,
            kept_bytes: rest.into_iter().fold(described, u64::saturating_add),
            is_from_cache: origin == Origin::Cache,
            native: Mutex::new(Some(Arc::new(native))),
            command: OnceLock::new(),
        })
    }

    /// What the host keeps of it, in bytes; somewhat more than that.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// Whether what is wrong with it may be wrong with the cache.
    pub(super) fn is_from_cache(&self) -> bool {
        self.is_from_cache
    }

    /// Whether [`Code::read`] takes no time.
    pub(super) fn is_read(&self) -> bool {
        self.command.get().is_some()
    }

    /// Reads the description, unless that has been done, and gives the component what it imports. Blocks.
    ///
    /// # Errors
    ///
    /// The code cannot be used, or it is not a program that this host can run.
    pub(super) fn read(&self) -> Result<(), ComponentError> {
        let command = self.command.get_or_init(|| {
            let native = self.native().clone();
            let native = native.ok_or(ComponentError::Stopped)?;
            let component =
                load(&native, &self.engine).map_err(|error| ComponentError::compiler(std::io::Error::other(error)))?;
            if self.weight.is_boundless() {
                return Err(ComponentError::Boundless);
            }
            let instance = self.engine.link(&component).map_err(|error| ComponentError::Import(Arc::new(error)))?;
            CommandPre::new(instance).map_err(|_| ComponentError::NoRun { exports: exports(&component) })
        });
        *self.native() = None;
        command.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn native(&self) -> std::sync::MutexGuard<'_, Option<Arc<NativeCode>>> {
        self.native.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maps code into memory; a copy of it where its file system allows no code to be run.
fn load(code: &NativeCode, engine: &Engine) -> wasmtime::Result<Component> {
    code.load(&engine.wasmtime).or_else(|error| {
        let copy = NewCode::unnamed().and_then(|new| new.copy_of(code)).map_err(|_| error)?;
        copy.load(&engine.wasmtime)
    })
}

fn exports(component: &Component) -> Vec<String> {
    let mut exports: Vec<_> =
        component.component_type().exports(component.engine()).map(|(name, _)| name.to_owned()).collect();
    exports.sort();
    exports
}

/// A component that has been checked and compiled, ready to be instantiated any number of times. A cheap handle.
#[derive(Clone)]
pub struct Program(Arc<Code>);

impl Program {
    /// The program that this code is, which has been read.
    ///
    /// # Errors
    ///
    /// As for [`Code::read`].
    pub(super) fn new(code: Arc<Code>) -> Result<Self, ComponentError> {
        code.read()?;
        Ok(Self(code))
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(super) fn weight(&self) -> Weight {
        self.0.weight
    }

    pub(super) fn command(&self) -> &CommandPre<CellState> {
        let command = self.0.command.get().and_then(|command| command.as_ref().ok());
        command.expect("it was read when this was made")
    }

    #[cfg(test)]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Program").finish_non_exhaustive()
    }
}

/// Who has a program compiled.
#[derive(Clone, Debug)]
pub(super) enum Payer {
    /// Nobody who is limited.
    Nobody,
    /// The cell that is to run it.
    Own(Account),
    /// A cell that starts others from it.
    Parent(Account),
}

impl Payer {
    pub(super) fn account(&self) -> Option<&Account> {
        match self {
            Self::Nobody => None,
            Self::Own(account) | Self::Parent(account) => Some(account),
        }
    }

    /// The account that the time of a compiler is booked on. Who runs an image has its own program compiled.
    pub(super) fn computes(&self) -> Option<&Account> {
        match self {
            Self::Nobody | Self::Own(_) => None,
            Self::Parent(account) => Some(account),
        }
    }

    /// Makes room for what is kept of this code.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(super) fn room(&self, code: &Arc<Code>) -> Result<Room, LimitReached> {
        Ok(match self {
            Self::Nobody => Room::None,
            Self::Own(account) => Room::Own(account.hold(code.kept_bytes.saturating_sub(OWN_BYTES_FREE))?),
            Self::Parent(account) => {
                account.hold_code(address(code), code.kept_bytes)?;
                Room::Shared(account.clone(), code.clone())
            }
        })
    }
}

/// By what accounts tell apart what is kept of programs.
fn address(code: &Arc<Code>) -> usize {
    Arc::as_ptr(code).addr()
}

/// The room for what is kept of a program.
pub(super) enum Room {
    /// Nobody counts it.
    None,
    /// It is counted once for each that has it.
    Own(#[expect(dead_code, reason = "is given back when it is dropped")] Held),
    /// It is counted once for all cells of a family that have this program.
    Shared(Account, Arc<Code>),
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Self::Shared(account, code) = self {
            // The code is there until after this, so nothing else has its address.
            account.give_code(address(code), code.kept_bytes);
        }
    }
}

/// A program and the room for what is kept of it. A cheap handle.
#[derive(Clone)]
pub struct HeldProgram {
    program: Program,
    _room: Arc<Room>,
}

impl HeldProgram {
    pub(super) fn new(program: Program, room: Arc<Room>) -> Self {
        Self { program, _room: room }
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }
}

impl fmt::Debug for HeldProgram {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HeldProgram").finish_non_exhaustive()
    }
}
