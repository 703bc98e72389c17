//! What one cell's store may have of wasmtime.

use std::fmt::Write as _;
use std::io;

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTableError;

use super::account::{Account, Held, LimitReached};
use crate::grant::Limit;
use crate::wasm_binary::Weight;

/// How many bytes one call of a guest to its host may bring along, such as the strings and lists among its arguments. The
/// largest that WASI's programs send at once, a piece of a file, is far smaller.
pub(super) const HOST_CALL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How wasmtime 48 ends what it says when a store has as many handles as it may have (`handle_table.rs`).
const HANDLES_FULL: &str = "store handle limit exceeded";

/// What an element of a table takes, in bytes.
const TABLE_ELEMENT_BYTES: usize = 16;

/// How many instances of core modules and tables a component may have. Those that compilers make have a handful; each takes
/// host memory that is not the guest's own.
const INSTANCES_MAX: usize = 256;

/// How many bytes of that all instances of a cell may take.
const INSTANCES_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How many bytes of that are not counted as the cell's memory. What compilers make takes less.
const INSTANCES_BYTES_FREE: u64 = 2 * 1024 * 1024;

/// How many memories a component may have. Each is some four gigabytes of addresses and a few mappings, of which a process has
/// 2^47 bytes and by default 65530: enough for 256 cells that have as many.
const MEMORIES_MAX: usize = 32;

/// Says what one cell's store may have: wasmtime asks it before memories and tables grow. What it had is given back when it
/// is dropped.
pub(super) struct Limiter {
    /// What this store's memories and tables take.
    held: Held,
    /// What was taken last, for what may not be had of the system after all.
    last_bytes: u64,
    /// Who refused memory, if it was refused.
    memory_refused: Option<LimitReached>,
    instances_max: usize,
}

impl Limiter {
    pub(super) fn new(account: Account) -> Self {
        Self { held: Held::new(account), last_bytes: 0, memory_refused: None, instances_max: INSTANCES_MAX }
    }

    /// Says what is to be instantiated, which takes memory that the guest cannot see.
    ///
    /// # Errors
    /// If it may not have so much.
    pub(super) fn carry(&mut self, weight: Weight) -> Result<(), LimitReached> {
        let most = INSTANCES_BYTES_MAX.checked_div(weight.instance_bytes).unwrap_or(u64::MAX).max(1);
        self.instances_max = usize::try_from(most).unwrap_or(usize::MAX).min(INSTANCES_MAX);
        // There will not be more of them.
        let instances_bytes = weight.instances_bytes.min(INSTANCES_BYTES_MAX.max(weight.instance_bytes));
        let all_bytes = instances_bytes.saturating_add(weight.context_bytes);
        self.held.take(all_bytes.saturating_sub(INSTANCES_BYTES_FREE))
    }

    pub(super) fn account(&self) -> &Account {
        &self.held.account
    }

    /// Takes memory for what the host keeps as long as the store lives.
    pub(super) fn keep(&mut self, bytes: u64) -> Result<(), LimitReached> {
        self.held.take(bytes)
    }

    /// What the cell was refused before it trapped with this error, as a sentence: that may be why.
    pub(super) fn refused(&self, error: &wasmtime::Error) -> Option<String> {
        // wasmtime has no type for its own table being full.
        let is_full = |cause: &(dyn std::error::Error + 'static)| cause.to_string().ends_with(HANDLES_FULL);
        let handles_full = matches!(error.downcast_ref(), Some(ResourceTableError::Full)) || error.chain().any(is_full);
        let refused = match handles_full {
            true => self.account().reached(Limit::Handles),
            false => self.memory_refused?,
        };
        let mut text = refused.to_string();
        let _ = write!(text, "; `--limit {}=…` sets another", refused.limit);
        Some(text)
    }

    fn grow(&mut self, bytes: usize) -> bool {
        match self.held.take(bytes as u64) {
            Ok(()) => {
                self.last_bytes = bytes as u64;
                true
            }
            Err(refused) => {
                self.memory_refused = Some(refused);
                false
            }
        }
    }

    /// Gives back what was allowed last and could not be had.
    fn give_last_back(&mut self) {
        let bytes = std::mem::take(&mut self.last_bytes);
        self.held.give(bytes);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // What the memory itself does not allow is not given, and so not counted.
        let is_allowed = maximum.is_none_or(|maximum| desired <= maximum);
        Ok(is_allowed && self.grow(desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // It is also called for what was never asked here: a size that the memory's type does not have.
        if error.is::<io::Error>() {
            tracing::debug!(%error, "the system has no memory");
            self.give_last_back();
        }
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let is_allowed = maximum.is_none_or(|maximum| desired <= maximum);
        Ok(is_allowed && self.grow(desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn instances(&self) -> usize {
        self.instances_max
    }

    fn tables(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::limits;

    #[test]
    fn what_the_system_does_not_have_is_not_booked() {
        let mut limiter = Limiter::new(Account::new(limits(&["memory=1MiB"])));
        assert!(limiter.memory_growing(0, 65536, None).unwrap());
        let unasked = wasmtime::Error::msg("memory growth exceeds memory type's limits");
        limiter.memory_grow_failed(unasked).unwrap();
        assert_eq!(limiter.account().memory_bytes(), 65536);
        for _ in 0..2 {
            limiter.memory_grow_failed(io::Error::from(io::ErrorKind::OutOfMemory).into()).unwrap();
            assert_eq!(limiter.account().memory_bytes(), 0);
        }
    }

    #[test]
    fn memories_and_tables_are_counted_together() {
        let mut limiter = Limiter::new(Account::new(limits(&["memory=1MiB"])));
        assert!(limiter.memory_growing(0, 512 * 1024, None).unwrap());
        assert!(limiter.memory_growing(0, 256 * 1024, Some(256 * 1024)).unwrap());
        assert!(!limiter.memory_growing(256 * 1024, 512 * 1024, Some(256 * 1024)).unwrap(), "over its own maximum");
        assert_eq!(limiter.memory_refused, None);
        assert!(limiter.table_growing(0, 16 * 1024, None).unwrap());
        assert!(!limiter.table_growing(16 * 1024, 16 * 1024 + 1, None).unwrap());
        assert!(!limiter.memory_growing(0, usize::MAX, None).unwrap());
        let refused = limiter.refused(&wasmtime::Error::msg("trap")).unwrap();
        assert_eq!(refused, "the limit `memory` is reached, which is 1MiB; `--limit memory=…` sets another");
        let account = limiter.account().clone();
        drop(limiter);
        assert_eq!((account.memory_bytes(), account.memory_peak_bytes()), (0, 1 << 20));
    }

    #[test]
    fn what_children_use_comes_out_of_what_their_parent_may_use() {
        let parent = Account::new(limits(&["memory=1MiB"]));
        let mut own = Limiter::new(parent.clone());
        assert!(own.memory_growing(0, 512 * 1024, None).unwrap());
        let mut child = Limiter::new(parent.below(limits(&["memory=1GiB"])).unwrap());
        assert!(!child.memory_growing(0, 768 * 1024, None).unwrap());
        assert_eq!(child.account().memory_bytes(), 0, "nothing is left booked");
        assert!(child.memory_growing(0, 512 * 1024, None).unwrap());
        assert!(!own.memory_growing(512 * 1024, 512 * 1024 + 1, None).unwrap());
        drop(child);
        assert!(own.memory_growing(512 * 1024, 1 << 20, None).unwrap());
    }

    #[test]
    fn instances_that_take_much_are_few_and_are_memory() {
        let carried_with = |context_bytes, instance_bytes, instances_bytes, memory| {
            let mut limiter = Limiter::new(Account::new(limits(&[memory])));
            let carried = limiter.carry(Weight { instance_bytes, instances_bytes, context_bytes });
            (carried.is_ok(), limiter.instances(), limiter.account().memory_bytes())
        };
        let carried =
            |instance_bytes, instances_bytes, memory| carried_with(0, instance_bytes, instances_bytes, memory);
        assert_eq!(carried(0, 0, "memory=64KiB"), (true, INSTANCES_MAX, 0));
        assert_eq!(carried(200_000, 300_000, "memory=64KiB"), (true, INSTANCES_MAX, 0), "what compilers make");
        assert_eq!(carried(8 << 20, 64 << 20, "memory=1GiB"), (true, 8, (64 - 2) << 20));
        assert_eq!(carried(100 << 20, 100 << 20, "memory=64MiB"), (false, 1, 0));
        assert_eq!(
            carried(128 << 10, u64::MAX, "memory=64MiB"),
            (true, INSTANCES_MAX, (64 - 2) << 20),
            "no more of them"
        );
        assert_eq!(carried_with(8 << 20, 0, 0, "memory=64MiB"), (true, INSTANCES_MAX, 6 << 20));
        assert_eq!(carried_with(u64::MAX, 1 << 20, 1 << 20, "memory=64GiB"), (false, 64, 0));
    }
}
