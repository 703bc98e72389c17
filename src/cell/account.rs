//! What a cell uses and may use, its children included.
//!
//! Each cell has an [`Account`]. What a cell uses is booked on its own account and on those of all its ancestors, so what
//! children use comes out of what their parent may use.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::engine::processors;
use super::network::{NetworkRefused, Refusals};
use super::thread_time;
use crate::grant::{Limit, LimitValue, Limits, Span};
use crate::vfs::memory::Room;

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
    /// What memories and tables take, and what the host holds for it, in bytes.
    memory: Counter,
    /// What files in memory take, in bytes.
    tmp: Counter,
    /// What came over the network for it and those below, in bytes.
    fetched: AtomicU64,
    /// How many cells live below.
    children: Counter,
    /// How many have begun to run below.
    children_started: AtomicU64,
    /// How many RPC calls it and those below have made to their hosts.
    calls: AtomicU64,
    /// What it was itself refused of the network.
    refused: Refusals,
    /// Whether something did not fit into `/tmp`.
    is_tmp_full: AtomicBool,
    /// The programs that are kept for it and those below, by an address, with how many of them hold each. Locked for a moment.
    codes: Mutex<HashMap<usize, usize>>,
    /// How many images and programs are read by their CIDs at once for it and those below.
    roots: Counter,
    /// How many components may be compiled at a time for it and those below.
    compiling: Semaphore,
}

/// How many images and programs may be read by their CIDs at once. Each is an open file, and keeps what it names from being
/// collected. A cell without a parent has three quarters of them with those below, and any other a quarter.
pub const ROOTS_MAX: u64 = 128;

/// How many components may be compiled at a time for a cell without a parent and those below. Cranelift uses all processors for
/// one already.
pub(super) fn compiling_max() -> usize {
    processors().max(2)
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
        let (compiling, roots) =
            if parent.is_some() { (1, ROOTS_MAX / 4) } else { (compiling_max(), ROOTS_MAX * 3 / 4) };
        Self(Arc::new(Inner {
            parent,
            depth_left,
            computed: AtomicU64::new(0),
            memory: Counter::new(limits.number(Limit::Memory)),
            tmp: Counter::new(limits.number(Limit::Tmp)),
            fetched: AtomicU64::new(0),
            children: Counter::new(limits.number(Limit::Children)),
            children_started: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            refused: Refusals::default(),
            is_tmp_full: AtomicBool::new(false),
            codes: Mutex::default(),
            roots: Counter::new(Some(roots)),
            compiling: Semaphore::new(compiling),
            limits,
        }))
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// How long it and those below have computed: how long their threads had a processor for them, and how long compilers
    /// worked on what they load.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.0.computed.load(Ordering::Relaxed))
    }

    /// The limit of what it and those below keep in `/tmp`, if something was refused for its sake.
    pub fn tmp_refused(&self) -> Option<LimitReached> {
        self.0.is_tmp_full.load(Ordering::Relaxed).then(|| self.reached(Limit::Tmp))
    }

    /// What the memories and tables take now, and what the host holds, in bytes.
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
        self.add(|inner| &inner.calls, 1);
    }

    /// What the cell itself was refused of the network, and not those below, whose network is their parents' affair.
    pub fn network_refused(&self) -> NetworkRefused {
        self.0.refused.read()
    }

    pub(super) fn network_refusals(&self) -> &Refusals {
        &self.0.refused
    }

    /// Takes so many bytes of what it may have as memory.
    ///
    /// # Errors
    /// If there are not as many left, here or further up; then none are taken.
    pub fn take_memory(&self, bytes: u64) -> Result<(), LimitReached> {
        self.book(|inner| &inner.memory, bytes).map_err(|full| full.reached(Limit::Memory))
    }

    /// Takes so many bytes of what it may have as memory, for as long as the value lives.
    ///
    /// # Errors
    /// As for [`Account::take_memory`].
    pub fn hold(&self, bytes: u64) -> Result<Held, LimitReached> {
        let mut held = Held::new(self.clone());
        held.take(bytes)?;
        Ok(held)
    }

    /// Gives back what was taken with [`Account::take_memory`].
    pub fn give_memory(&self, bytes: u64) {
        self.unbook(|inner| &inner.memory, bytes);
    }

    /// Takes memory for what is kept of a program, unless somebody at or below this account has done so: it is there once. What
    /// is at an address must be there until that is given back.
    ///
    /// # Errors
    /// As for [`Account::take_memory`].
    pub(super) fn hold_code(&self, address: usize, bytes: u64) -> Result<(), LimitReached> {
        let mut codes = self.codes();
        if let Some(holders) = codes.get_mut(&address) {
            *holders += 1;
            return Ok(());
        }
        if !self.0.memory.add(bytes) {
            return Err(self.reached(Limit::Memory));
        }
        if let Some(parent) = &self.0.parent
            && let Err(reached) = parent.hold_code(address, bytes)
        {
            self.0.memory.subtract(bytes);
            return Err(reached);
        }
        codes.insert(address, 1);
        Ok(())
    }

    /// Gives back what was taken with [`Account::hold_code`].
    pub(super) fn give_code(&self, address: usize, bytes: u64) {
        let mut codes = self.codes();
        let Some(holders) = codes.get_mut(&address) else { return };
        *holders -= 1;
        if *holders == 0 {
            codes.remove(&address);
            self.0.memory.subtract(bytes);
            if let Some(parent) = &self.0.parent {
                parent.give_code(address, bytes);
            }
        }
    }

    /// Takes one of the images and programs that may be read by their CIDs at once, for as long as the value lives.
    ///
    /// # Errors
    /// If there are as many as there may be, here or further up: that number.
    pub fn hold_root(&self) -> Result<HeldRoot, u64> {
        match self.book(|inner| &inner.roots, 1) {
            Ok(()) => Ok(HeldRoot(self.clone())),
            Err(full) => Err(full.0.roots.max),
        }
    }

    fn codes(&self) -> MutexGuard<'_, HashMap<usize, usize>> {
        self.0.codes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something may be compiled for this cell, which those above and beside it have as much a right to; for as long
    /// as this is held.
    pub(super) async fn compile_turn(&self) -> Vec<SemaphorePermit<'_>> {
        let mut permits = Vec::new();
        // From below to above, so that at each cell no more than one of each of its children waits.
        for account in self.line() {
            permits.push(account.0.compiling.acquire().await.expect("it is never closed"));
        }
        permits
    }

    /// What came over the network for it and those below, in bytes.
    pub fn fetched_bytes(&self) -> u64 {
        self.0.fetched.load(Ordering::Relaxed)
    }

    /// Notes that so many bytes came over the network for it. They have come, whether or not that is an error.
    ///
    /// # Errors
    /// If more has come than may come, here or further up.
    pub fn count_fetched(&self, bytes: u64) -> Result<(), LimitReached> {
        self.add(|inner| &inner.fetched, bytes);
        self.fetched_beyond(|fetched, most| fetched > most)
    }

    /// Whether anything more may come over the network for it.
    ///
    /// # Errors
    /// If as much has come as may come, here or further up.
    pub fn check_fetched(&self) -> Result<(), LimitReached> {
        self.fetched_beyond(|fetched, most| fetched >= most)
    }

    fn fetched_beyond(&self, is_beyond: impl Fn(u64, u64) -> bool) -> Result<(), LimitReached> {
        let is_full = |account: &&Self| {
            let most = account.0.limits.number(Limit::Fetched).unwrap_or(u64::MAX);
            is_beyond(account.fetched_bytes(), most)
        };
        self.line().find(is_full).map_or(Ok(()), |account| Err(account.reached(Limit::Fetched)))
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

    /// Adds to a sum without a bound, here and further up.
    fn add(&self, sum: impl Fn(&Inner) -> &AtomicU64, number: u64) {
        self.line().for_each(|account| {
            sum(&account.0).fetch_add(number, Ordering::Relaxed);
        });
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
        if let Some(parent) = &self.0.parent {
            parent.add(|inner| &inner.children_started, 1);
        }
        thread_time::begin();
        let mut cell = pin!(cell);
        poll_fn(|context| {
            let start = Instant::now();
            let polled = cell.as_mut().poll(context);
            self.count_computed(thread_time::computed(start.elapsed()));
            polled
        })
        .await
    }

    /// Notes that it has computed for so long, or that this machine has on its behalf.
    pub(super) fn count_computed(&self, time: Duration) {
        self.add(|inner| &inner.computed, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Whether it, or one above it, has computed for as long as it may.
    pub(super) fn out_of_time(&self) -> Option<LimitReached> {
        let is_out =
            |account: &&Self| account.0.limits.time(Limit::CpuTime).is_some_and(|limit| account.cpu_time() >= limit);
        self.line().find(is_out).map(|account| account.reached(Limit::CpuTime))
    }
}

/// The room for files in memory.
impl Room for Account {
    fn take(&self, bytes: u64) -> bool {
        let booked = self.book(|inner| &inner.tmp, bytes);
        if let Err(full) = booked {
            full.0.is_tmp_full.store(true, Ordering::Relaxed);
        }
        booked.is_ok()
    }

    fn give(&self, bytes: u64) {
        self.unbook(|inner| &inner.tmp, bytes);
    }
}

/// The room for one child.
#[derive(Debug)]
pub struct Admission(Account);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.unbook(|inner| &inner.children, 1);
    }
}

/// The right to read what one CID names.
#[derive(Debug)]
pub struct HeldRoot(Account);

impl Drop for HeldRoot {
    fn drop(&mut self) {
        self.0.unbook(|inner| &inner.roots, 1);
    }
}

/// Bytes that are taken from what a cell may have as memory, until this is dropped.
#[derive(Debug)]
pub struct Held {
    pub(super) account: Account,
    bytes: u64,
}

impl Held {
    pub(super) fn new(account: Account) -> Self {
        Self { account, bytes: 0 }
    }

    /// Takes so many more.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), LimitReached> {
        self.account.take_memory(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back so many of them.
    pub(super) fn give(&mut self, bytes: u64) {
        self.account.give_memory(bytes);
        self.bytes -= bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.give_memory(self.bytes);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::limits;
    use futures::FutureExt;

    #[test]
    fn what_the_host_holds_for_a_cell_is_memory() {
        let parent = Account::new(limits(&["memory=1MiB"]));
        let held = parent.below(Limits::default()).unwrap().hold(1 << 20).unwrap();
        assert_eq!(parent.hold(1).unwrap_err().limit, Limit::Memory);
        drop(held);
        assert_eq!((parent.memory_bytes(), parent.memory_peak_bytes()), (0, 1 << 20));
    }

    #[test]
    fn a_program_is_memory_once_for_all_who_have_it() {
        let root = Account::new(limits(&["memory=1MiB"]));
        let parents: [_; 2] = std::array::from_fn(|_| root.below(Limits::default()).unwrap());
        let child = parents[0].below(limits(&["memory=100KiB"])).unwrap();
        let bytes = |account: &Account| account.memory_bytes() >> 10;
        let now = || (bytes(&root), bytes(&parents[0]), bytes(&parents[1]), bytes(&child));
        child.hold_code(7, 64 << 10).unwrap();
        assert_eq!(now(), (64, 64, 0, 64));
        child.hold_code(7, 64 << 10).unwrap();
        parents[1].hold_code(7, 64 << 10).unwrap();
        parents[0].hold_code(7, 64 << 10).unwrap();
        assert_eq!(now(), (64, 64, 64, 64));
        assert_eq!(
            child.hold_code(8, 64 << 10).unwrap_err().to_string(),
            "the limit `memory` is reached, which is 100KiB"
        );
        parents[1].hold_code(8, 960 << 10).unwrap();
        assert!(parents[0].hold_code(9, 1).is_err());
        assert_eq!(now(), (1024, 64, 1024, 64), "nothing is left booked");
        parents[1].give_code(8, 960 << 10);
        child.give_code(7, 64 << 10);
        parents[1].give_code(7, 64 << 10);
        assert_eq!(now(), (64, 64, 0, 64));
        child.give_code(7, 64 << 10);
        assert_eq!(now(), (64, 64, 0, 0));
        parents[0].give_code(7, 64 << 10);
        assert_eq!(now(), (0, 0, 0, 0));
    }

    #[test]
    fn no_child_reads_all_that_can_be_read_by_cid() {
        let root = Account::new(Limits::default());
        let [first, second]: [_; 2] = std::array::from_fn(|_| root.below(Limits::default()).unwrap());
        let below = first.below(Limits::default()).unwrap();
        let mut held: Vec<_> = (0..16).map(|_| first.hold_root().unwrap()).collect();
        held.extend((0..16).map(|_| below.hold_root().unwrap()));
        assert_eq!((first.hold_root().unwrap_err(), below.hold_root().unwrap_err()), (32, 32));
        let _others: Vec<_> = (0..32).map(|_| second.hold_root().unwrap()).collect();
        let _own: Vec<_> = (0..32).map(|_| root.hold_root().unwrap()).collect();
        assert_eq!(root.hold_root().unwrap_err(), 96);
        held.truncate(31);
        below.hold_root().unwrap();
    }

    #[test]
    fn one_of_each_child_waits_to_be_compiled() {
        let root = Account::new(Limits::default());
        let [first, second]: [_; 2] = std::array::from_fn(|_| root.below(Limits::default()).unwrap());
        let below: [_; 3] = std::array::from_fn(|_| first.below(Limits::default()).unwrap());
        let turn = below[0].compile_turn().now_or_never().unwrap();
        let mut waiting = below[1..].iter().map(|account| Box::pin(account.compile_turn())).collect::<Vec<_>>();
        waiting.push(Box::pin(first.compile_turn()));
        for waiting in &mut waiting {
            assert!(waiting.now_or_never().is_none());
        }
        // However many of the first one's wait, the second one goes on, and where all are busy it is the next.
        drop(second.compile_turn().now_or_never().unwrap());
        let others: Vec<_> = (1..compiling_max()).map(|_| root.below(Limits::default()).unwrap()).collect();
        let _turns: Vec<_> = others.iter().map(|other| other.compile_turn().now_or_never().unwrap()).collect();
        let mut next = Box::pin(second.compile_turn());
        assert!((&mut next).now_or_never().is_none());
        drop(turn);
        assert!((&mut waiting[0]).now_or_never().is_none());
        assert!(next.now_or_never().is_some());
        let turn = (&mut waiting[0]).now_or_never().unwrap();
        assert!((&mut waiting[1]).now_or_never().is_none());
        drop(turn);
        assert!((&mut waiting[1]).now_or_never().is_some());
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

    #[test]
    fn files_of_children_come_out_of_what_their_parent_may_keep() {
        let parent = Account::new(limits(&["tmp=10KiB"]));
        let child = parent.below(limits(&["tmp=4KiB"])).unwrap();
        assert!(child.take(4096) && !child.take(1));
        assert!(parent.take(6144) && !parent.take(1), "no more than both together");
        child.give(4096);
        assert!(parent.take(4096) && !child.take(1));
        assert_eq!(child.0.tmp.now.load(Ordering::Relaxed), 0, "nothing is left booked");
    }

    #[test]
    fn what_was_fetched_is_counted_upwards() {
        let parent = Account::new(limits(&["fetched=10KiB"]));
        let child = parent.below(limits(&["fetched=4KiB"])).unwrap();
        child.check_fetched().unwrap();
        child.count_fetched(4096).unwrap();
        assert_eq!(child.check_fetched().unwrap_err().to_string(), "the limit `fetched` is reached, which is 4KiB");
        parent.check_fetched().unwrap();
        assert!(child.count_fetched(1).is_err());
        assert_eq!(parent.fetched_bytes(), 4097);
        let other = parent.below(limits(&["fetched=10KiB"])).unwrap();
        other.count_fetched(6143).unwrap();
        assert!(other.check_fetched().is_err(), "its parent has fetched as much as it may");
    }

    #[tokio::test]
    async fn time_is_booked_upwards() {
        let root = Account::new(limits(&["cpu-time=1ms"]));
        let child = root.below(Limits::default()).unwrap();
        let computes = async {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(2) {}
        };
        child.time(computes).await;
        assert!(root.cpu_time() >= Duration::from_millis(1));
        assert_eq!(child.out_of_time().unwrap().to_string(), "the limit `cpu-time` is reached, which is 1ms");
        assert_eq!(Account::new(Limits::default()).out_of_time(), None);
        child.count_call();
        child.below(Limits::default()).unwrap().time(async {}).await;
        assert_eq!((root.children_started(), child.children_started()), (2, 1));
        assert_eq!((root.calls(), child.calls()), (1, 1));
    }
}
