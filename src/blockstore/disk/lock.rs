//! Who may write, and who may collect.
//!
//! `gc.lock` is held shared by those who need blocks to stay, and alone by those who remove some. Whoever wants it goes
//! through `turn.lock` first and keeps that while it waits: so a collector that waits for writers is not passed by new ones.
//! The locks are `flock`s, which end with the process, however it ends. What is asked for again and again in place of one
//! wait, is asked for so that the wait can be cut short.

use std::fs::{File, TryLockError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::super::StoreError;
use super::layout::Layout;
use super::{Options, StoreEvent};

/// How often a lock is asked for.
const POLL: Duration = Duration::from_millis(10);

/// A locked file. It is unlocked and not only closed at the end: a child process that has just been forked still has it open.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Of a file that was locked just now.
    pub(super) fn of(file: File) -> Self {
        Self(file)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The lock ends with the file at the latest.
        let _ = self.0.unlock();
    }
}

/// Keeps blocks from being removed.
#[derive(Debug)]
pub(super) struct Shared {
    _lock: Lock,
}

/// Keeps everybody else from writing and collecting.
#[derive(Debug)]
pub(super) struct Exclusive {
    _lock: Lock,
}

/// The shared lock of this process: one for all who need it, so that none of them waits for a collector that waits for
/// another of them.
#[derive(Debug, Default)]
pub(super) struct Holders(Mutex<Weak<Shared>>);

impl Holders {
    /// Takes the lock shared.
    pub(super) fn hold(&self, layout: &Layout, options: &Options) -> Result<Arc<Shared>, StoreError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = held.upgrade() {
            return Ok(shared);
        }
        let mut waiting = said_once(options, StoreEvent::WaitingForCollector);
        let turn = wait(layout, "turn.lock", File::try_lock, options, &mut waiting)?;
        let lock = wait(layout, "gc.lock", File::try_lock_shared, options, &mut waiting)?;
        drop(turn);
        let shared = Arc::new(Shared { _lock: lock });
        *held = Arc::downgrade(&shared);
        Ok(shared)
    }

    /// Takes the lock shared if that needs no waiting.
    pub(super) fn try_hold(&self, layout: &Layout) -> Result<Option<Arc<Shared>>, StoreError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = held.upgrade() {
            return Ok(Some(shared));
        }
        let lock = try_once(layout, "gc.lock", File::try_lock_shared)?;
        let shared = lock.map(|lock| Arc::new(Shared { _lock: lock }));
        *held = shared.as_ref().map_or_else(Weak::new, Arc::downgrade);
        Ok(shared)
    }
}

/// Takes the lock alone.
pub(super) fn exclude(layout: &Layout, options: &Options) -> Result<Exclusive, StoreError> {
    let mut waiting = said_once(options, StoreEvent::WaitingForWriters);
    let turn = wait(layout, "turn.lock", File::try_lock, options, &mut waiting)?;
    let lock = wait(layout, "gc.lock", File::try_lock, options, &mut waiting)?;
    drop(turn);
    Ok(Exclusive { _lock: lock })
}

/// Takes the lock alone if that needs no waiting.
pub(super) fn try_exclude(layout: &Layout) -> Result<Option<Exclusive>, StoreError> {
    Ok(try_once(layout, "gc.lock", File::try_lock)?.map(|lock| Exclusive { _lock: lock }))
}

/// Takes a lock alone for a moment's work, waiting for others who do the same.
pub(super) fn moment(layout: &Layout, name: &str, options: &Options) -> Result<Lock, StoreError> {
    wait(layout, name, File::try_lock, options, &mut || {})
}

/// As [`moment`], beside others who take it so, but not beside one who takes it alone.
pub(super) fn shared_moment(layout: &Layout, name: &str, options: &Options) -> Result<Lock, StoreError> {
    wait(layout, name, File::try_lock_shared, options, &mut || {})
}

/// Says something the first time that it is called.
fn said_once(options: &Options, event: StoreEvent) -> impl FnMut() + use<'_> {
    let mut event = Some(event);
    move || event.take().into_iter().for_each(|event| (options.events)(event))
}

type TryLock = fn(&File) -> Result<(), TryLockError>;

fn try_once(layout: &Layout, name: &str, try_lock: TryLock) -> Result<Option<Lock>, StoreError> {
    let file = layout.lock_file(name)?;
    match try_lock(&file) {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", layout.path(name))(error)),
    }
}

fn wait(
    layout: &Layout,
    name: &str,
    try_lock: TryLock,
    options: &Options,
    waiting: &mut dyn FnMut(),
) -> Result<Lock, StoreError> {
    let mut is_first = true;
    loop {
        if let Some(lock) = try_once(layout, name, try_lock)? {
            return Ok(lock);
        }
        if options.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        if std::mem::take(&mut is_first) {
            waiting();
        }
        thread::sleep(POLL);
    }
}
