//! What a cell uses and may use, its children included.
//!
//! Each cell has an [`Account`]. What a cell uses is booked on its own account and on those of all its ancestors, so what
//! children use comes out of what their parent may use.

use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTableError;

use crate::grant::{Limit, LimitValue, Limits, Span};
use crate::wasm_binary::Weight;

/// How many bytes one call of a guest to its host may bring along, such as the strings and lists among its arguments. The
/// largest that WASI's programs send at once, a piece of a file, is far smaller.
pub(super) const HOST_CALL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What wasmtime says where a component has as many handles as it may; there is no type for it.
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

/// How much of a cell's calls is nobody's but its own, in bytes: so much is not booked on those above, so that what its
/// neighbours do does not stop one that calls with little. As much as the pipes between a cell and its host hold anyway.
const CALLS_OF_ITS_OWN_BYTES: u64 = 128 * 1024;

/// What a cell and all below it use, and may use. A cheap handle.
#[derive(Clone, Debug)]
pub struct Account(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parent: Option<Account>,
    limits: Limits,
    /// How many generations are allowed below.
    depth_left: u64,
    /// How long it and those below had their threads, in nanoseconds; up to the last time that they gave them back.
    computed: AtomicU64,
    /// What memories and tables take, in bytes.
    memory: Counter,
    /// How many cells live below.
    children: Counter,
    /// How many have begun to run below.
    children_started: AtomicU64,
    /// How many RPC calls it and those below have made to their hosts.
    calls: AtomicU64,
    /// What the host holds of the calls of it and those below, in bytes, but for what is each one's own.
    call_bytes: Counter,
}

/// A number with its bound.
#[derive(Debug)]
struct Counter {
    now: AtomicU64,
    peak: AtomicU64,
    max: u64,
}

impl Counter {
    fn new(max: Option<u64>) -> Self {
        Self { now: AtomicU64::new(0), peak: AtomicU64::new(0), max: max.unwrap_or(u64::MAX) }
    }

    fn add(&self, number: u64) -> bool {
        let after = |now: u64| now.checked_add(number).filter(|after| *after <= self.max);
        let added = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        if let Ok(before) = added {
            self.peak.fetch_max(before + number, Ordering::Relaxed);
        }
        added.is_ok()
    }

    fn subtract(&self, number: u64) {
        self.now.fetch_sub(number, Ordering::Relaxed);
    }
}

/// A limit that does not allow something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit `{limit}` is reached, which is {value}")]
pub struct LimitReached {
    /// The limit.
    pub limit: Limit,
    /// What it is.
    pub value: LimitValue,
}

impl Account {
    /// The account of a cell without a parent.
    pub fn new(limits: Limits) -> Self {
        let depth = limits.number(Limit::Depth).unwrap_or(u64::MAX);
        Self::with(limits, None, depth)
    }

    /// The account of a child, as far down as that is allowed.
    ///
    /// # Errors
    /// If no further generation is allowed.
    pub fn below(&self, limits: Limits) -> Result<Self, LimitReached> {
        let depth = self.0.depth_left.checked_sub(1).ok_or_else(|| self.reached(Limit::Depth))?;
        let depth = depth.min(limits.number(Limit::Depth).unwrap_or(u64::MAX));
        Ok(Self::with(limits, Some(self.clone()), depth))
    }

    fn with(limits: Limits, parent: Option<Self>, depth_left: u64) -> Self {
        Self(Arc::new(Inner {
            parent,
            depth_left,
            computed: AtomicU64::new(0),
            memory: Counter::new(limits.number(Limit::Memory)),
            children: Counter::new(limits.number(Limit::Children)),
            children_started: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            call_bytes: Counter::new(limits.number(Limit::CallBytes)),
            limits,
        }))
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// How long it and those below have computed: had their threads, which they share with others.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.0.computed.load(Ordering::Relaxed))
    }

    /// What the memories and tables take now, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.0.memory.now.load(Ordering::Relaxed)
    }

    /// The most that they ever took.
    pub fn memory_peak_bytes(&self) -> u64 {
        self.0.memory.peak.load(Ordering::Relaxed)
    }

    /// How many cells have begun to run below it, those included that have ended.
    pub fn children_started(&self) -> u64 {
        self.0.children_started.load(Ordering::Relaxed)
    }

    /// How many RPC calls it and those below have made to their hosts.
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    /// Notes that it has made an RPC call.
    pub fn count_call(&self) {
        self.line().for_each(|account| {
            account.0.calls.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// What the host holds of the calls of one connection of this cell; nothing yet.
    pub fn hold_calls(&self) -> CallsHold {
        CallsHold { account: self.clone(), bytes: 0 }
    }

    /// Counts what the host holds for the cell as its memory, for as long as the value lives.
    ///
    /// # Errors
    /// If it may not have so much, or one above it.
    pub(super) fn hold_memory(&self, bytes: u64) -> Result<MemoryHold, LimitReached> {
        match self.book(|inner| &inner.memory, bytes) {
            Ok(()) => Ok(MemoryHold { account: self.clone(), bytes }),
            Err(full) => Err(full.reached(Limit::Memory)),
        }
    }

    /// Makes room for a child, for as long as the value lives.
    ///
    /// # Errors
    /// If there are as many as there may be, here or further up.
    pub fn admit_child(&self) -> Result<Admission, LimitReached> {
        match self.book(|inner| &inner.children, 1) {
            Ok(()) => Ok(Admission(self.clone())),
            Err(full) => Err(full.reached(Limit::Children)),
        }
    }

    /// The limit as an error.
    pub fn reached(&self, limit: Limit) -> LimitReached {
        let value = self.0.limits.value(limit).unwrap_or(LimitValue::Count(0));
        LimitReached { limit, value }
    }

    /// This account and those above.
    fn line(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |account| account.0.parent.as_ref())
    }

    /// Adds to a counter here and further up, or nowhere; the error is the account that does not allow it.
    fn book(&self, counter: impl Fn(&Inner) -> &Counter, number: u64) -> Result<(), &Self> {
        let Some(full) = self.line().find(|account| !counter(&account.0).add(number)) else { return Ok(()) };
        for account in self.line().take_while(|account| !Arc::ptr_eq(&account.0, &full.0)) {
            counter(&account.0).subtract(number);
        }
        Err(full)
    }

    fn unbook(&self, counter: impl Fn(&Inner) -> &Counter, number: u64) {
        self.line().for_each(|account| counter(&account.0).subtract(number));
    }

    /// Drives the future that runs the cell, and takes the time. Once for each cell.
    pub(super) async fn time<T>(&self, cell: impl Future<Output = T>) -> T {
        self.line().skip(1).for_each(|account| {
            account.0.children_started.fetch_add(1, Ordering::Relaxed);
        });
        let mut cell = pin!(cell);
        poll_fn(|context| {
            let start = Instant::now();
            let polled = cell.as_mut().poll(context);
            let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.line().for_each(|account| {
                account.0.computed.fetch_add(nanoseconds, Ordering::Relaxed);
            });
            polled
        })
        .await
    }

    /// Whether it, or one above it, has computed for as long as it may.
    pub(super) fn out_of_time(&self) -> Option<LimitReached> {
        let is_out =
            |account: &&Self| account.0.limits.time(Limit::CpuTime).is_some_and(|limit| account.cpu_time() >= limit);
        self.line().find(is_out).map(|account| account.reached(Limit::CpuTime))
    }
}

/// The room for one child. It is the child's, and that of those who hold what is left of it.
#[derive(Debug)]
pub struct Admission(Account);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.unbook(|inner| &inner.children, 1);
    }
}

/// Memory of the host that counts as the cell's.
#[derive(Debug)]
pub(super) struct MemoryHold {
    account: Account,
    bytes: u64,
}

impl Drop for MemoryHold {
    fn drop(&mut self) {
        self.account.unbook(|inner| &inner.memory, self.bytes);
    }
}

/// What the host holds of the calls of one connection. Given back when it is dropped.
#[derive(Debug)]
pub struct CallsHold {
    account: Account,
    bytes: u64,
}

impl CallsHold {
    /// Holds more.
    ///
    /// # Errors
    /// If the cell may not have so much, or one above it.
    pub fn add(&mut self, bytes: u64) -> Result<(), LimitReached> {
        let after = self.bytes.saturating_add(bytes);
        let more = booked(after) - booked(self.bytes);
        if more > 0
            && let Err(full) = self.account.book(|inner| &inner.call_bytes, more)
        {
            return Err(full.reached(Limit::CallBytes));
        }
        self.bytes = after;
        Ok(())
    }

    /// Holds less.
    pub fn subtract(&mut self, bytes: u64) {
        let after = self.bytes.saturating_sub(bytes);
        let less = booked(self.bytes) - booked(after);
        if less > 0 {
            self.account.unbook(|inner| &inner.call_bytes, less);
        }
        self.bytes = after;
    }
}

impl Drop for CallsHold {
    fn drop(&mut self) {
        self.subtract(self.bytes);
    }
}

/// The part that is not the cell's own.
fn booked(bytes: u64) -> u64 {
    bytes.saturating_sub(CALLS_OF_ITS_OWN_BYTES)
}

/// Ready when a cell has lived for so long; never without a limit.
pub(super) async fn wall_time(limit: Option<Duration>) -> LimitReached {
    match limit {
        Some(time) => {
            tokio::time::sleep(time).await;
            LimitReached { limit: Limit::WallTime, value: LimitValue::Time(Span(time)) }
        }
        None => std::future::pending().await,
    }
}

/// Says what one cell's store may have: wasmtime asks it before memories and tables grow. What it had is given back when it
/// is dropped.
pub(super) struct Limiter {
    account: Account,
    /// What this store's memories and tables take, in bytes.
    memory: u64,
    /// Who refused memory, if it was refused.
    memory_refused: Option<LimitReached>,
    instances_max: usize,
}

impl Limiter {
    pub(super) fn new(account: Account) -> Self {
        Self { account, memory: 0, memory_refused: None, instances_max: INSTANCES_MAX }
    }

    /// Says what is to be instantiated, which takes memory that the guest cannot see.
    ///
    /// # Errors
    /// If it may not have so much.
    pub(super) fn carry(&mut self, weight: Weight) -> Result<(), LimitReached> {
        let most = INSTANCES_BYTES_MAX.checked_div(weight.instance_bytes).unwrap_or(u64::MAX).max(1);
        self.instances_max = usize::try_from(most).unwrap_or(usize::MAX).min(INSTANCES_MAX);
        let counted = usize::try_from(weight.all_bytes.saturating_sub(INSTANCES_BYTES_FREE)).unwrap_or(usize::MAX);
        match self.grow(counted) {
            true => Ok(()),
            false => Err(self.account.reached(Limit::Memory)),
        }
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// What the cell was refused before it trapped with this error, as a sentence: that may be why.
    pub(super) fn refused(&self, error: &wasmtime::Error) -> Option<String> {
        let handles_full = matches!(error.downcast_ref(), Some(ResourceTableError::Full))
            || error.chain().any(|cause| cause.to_string().contains(HANDLES_FULL));
        let refused = match handles_full {
            true => self.account.reached(Limit::Handles),
            false => self.memory_refused?,
        };
        let mut text = refused.to_string();
        let _ = write!(text, "; `--limit {}=…` sets another", refused.limit);
        Some(text)
    }

    fn grow(&mut self, bytes: usize) -> bool {
        match self.account.book(|inner| &inner.memory, bytes as u64) {
            Ok(()) => {
                self.memory += bytes as u64;
                true
            }
            Err(full) => {
                self.memory_refused = Some(full.reached(Limit::Memory));
                false
            }
        }
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.account.unbook(|inner| &inner.memory, self.memory);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // What the memory itself does not allow is not given, and so not counted.
        let is_allowed = maximum.is_none_or(|maximum| desired <= maximum);
        Ok(is_allowed && self.grow(desired.saturating_sub(current)))
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

    fn limits(texts: &[&str]) -> Limits {
        let mut limits = Limits::default();
        limits.extend(texts.iter().map(|text| text.parse::<Limits>().unwrap()));
        limits
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
    fn what_is_held_of_the_calls_of_children_is_their_parents_as_well() {
        let parent = Account::new(limits(&["call-bytes=1MiB"]));
        let child = |limit| parent.below(limits(&[limit])).unwrap();
        let (mut large, mut small) = (child("call-bytes=1GiB").hold_calls(), child("call-bytes=64KiB").hold_calls());
        large.add(CALLS_OF_ITS_OWN_BYTES + (1 << 20)).unwrap();
        let full = large.add(1).unwrap_err();
        assert_eq!(full.to_string(), "the limit `call-bytes` is reached, which is 1MiB");
        small.add(CALLS_OF_ITS_OWN_BYTES).unwrap();
        assert!(small.add(1).is_err(), "its own is all that is left");
        large.subtract(1000);
        small.add(1000).unwrap();
        small.subtract(CALLS_OF_ITS_OWN_BYTES + 1000);
        drop(large);
        assert_eq!(parent.0.call_bytes.now.load(Ordering::Relaxed), 0);
        assert!(small.add(CALLS_OF_ITS_OWN_BYTES + 64 * 1024 + 1).is_err(), "its own limit");
    }

    #[test]
    fn instances_that_take_much_are_few_and_are_memory() {
        let carried = |instance_bytes, all_bytes, memory| {
            let mut limiter = Limiter::new(Account::new(limits(&[memory])));
            let carried = limiter.carry(Weight { instance_bytes, all_bytes });
            (carried.is_ok(), limiter.instances(), limiter.account().memory_bytes())
        };
        assert_eq!(carried(0, 0, "memory=64KiB"), (true, INSTANCES_MAX, 0));
        assert_eq!(carried(200_000, 300_000, "memory=64KiB"), (true, INSTANCES_MAX, 0), "what compilers make");
        assert_eq!(carried(8 << 20, 64 << 20, "memory=1GiB"), (true, 8, (64 - 2) << 20));
        assert_eq!(carried(100 << 20, 100 << 20, "memory=64MiB"), (false, 1, 0));
    }

    #[test]
    fn what_the_host_holds_for_a_cell_is_memory() {
        let parent = Account::new(limits(&["memory=1MiB"]));
        let held = parent.below(Limits::default()).unwrap().hold_memory(1 << 20).unwrap();
        assert_eq!(parent.hold_memory(1).unwrap_err().limit, Limit::Memory);
        drop(held);
        assert_eq!((parent.memory_bytes(), parent.memory_peak_bytes()), (0, 1 << 20));
    }

    #[test]
    fn children_are_counted_with_theirs() {
        let root = Account::new(limits(&["children=3", "depth=2"]));
        let _first = root.admit_child().unwrap();
        let child = root.below(limits(&["children=100", "depth=9"])).unwrap();
        let second = child.admit_child().unwrap();
        let third = child.admit_child().unwrap();
        let full = child.admit_child().unwrap_err();
        assert_eq!(full.to_string(), "the limit `children` is reached, which is 3");
        drop((second, third));
        assert_eq!(child.0.children.now.load(Ordering::Relaxed), 0);
        let grandchild = child.below(Limits::default()).unwrap();
        assert_eq!(grandchild.below(Limits::default()).unwrap_err().limit, Limit::Depth);
    }

    #[tokio::test]
    async fn time_is_booked_upwards() {
        let root = Account::new(limits(&["cpu-time=1ms"]));
        let child = root.below(Limits::default()).unwrap();
        child.time(async { std::thread::sleep(Duration::from_millis(2)) }).await;
        assert!(root.cpu_time() >= Duration::from_millis(2));
        assert_eq!(child.out_of_time().unwrap().to_string(), "the limit `cpu-time` is reached, which is 1ms");
        assert_eq!(Account::new(Limits::default()).out_of_time(), None);
        child.count_call();
        child.below(Limits::default()).unwrap().time(async {}).await;
        assert_eq!((root.children_started(), child.children_started()), (2, 1));
        assert_eq!((root.calls(), child.calls()), (1, 1));
    }
}
