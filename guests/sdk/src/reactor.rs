//! Which tasks wait for which streams.
//!
//! A WASI stream has a pollable, which is ready when the stream is. A stream that cannot go on registers its pollable
//! and the waker of its task here; the executor calls [`wait`] when no task can go on. Readiness is a level, not an
//! edge: a stream that became ready between its last operation and `wait` ends the wait at once, so no wake-up is lost.

use std::cell::{OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};

use wasip2::io::poll::{self, Pollable};
use wasip2::io::streams::{InputStream, OutputStream};

thread_local! {
    static REGISTRY: RefCell<Registry<Pollable>> = const { RefCell::new(Registry::new()) };
}

/// Nothing is registered, so nothing can end the wait.
#[derive(Debug)]
pub(crate) struct NothingToWaitFor;

/// Blocks until a registered stream is ready, and wakes the tasks of all that are.
pub(crate) fn wait() -> Result<(), NothingToWaitFor> {
    wake_those(poll::poll)
}

/// Wakes the tasks of the registered streams that are ready, without blocking.
pub(crate) fn wake_ready() {
    let ready = |pollables: &[&Pollable]| (0..).zip(pollables).filter(|(_, it)| it.ready()).map(|(at, _)| at).collect();
    // Where nothing is registered, nobody is to be woken.
    let _ = wake_those(ready);
}

/// Wakes the tasks whose pollables `select` returns the positions of.
fn wake_those(select: impl FnOnce(&[&Pollable]) -> Vec<u32>) -> Result<(), NothingToWaitFor> {
    // The borrow ends before the wakers run, since a waker may drop a task and with it a stream.
    let wakers = REGISTRY.with_borrow_mut(|registry| registry.take(select))?;
    wakers.into_iter().for_each(Waker::wake);
    Ok(())
}

/// The waiting tasks.
///
/// Holds pollables weakly: a pollable belongs to its [`Source`], and the entry of a source that was dropped is
/// forgotten. There is at most one entry for each pollable.
struct Registry<P> {
    entries: Vec<Entry<P>>,
}

struct Entry<P> {
    pollable: Weak<P>,
    waker: Waker,
}

impl<P> Registry<P> {
    const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Has `waker` woken when `pollable` is ready, and no longer the waker that was registered for it before.
    fn register(&mut self, pollable: &Rc<P>, waker: &Waker) {
        match self.entries.iter_mut().find(|entry| std::ptr::eq(entry.pollable.as_ptr(), Rc::as_ptr(pollable))) {
            Some(entry) => entry.waker.clone_from(waker),
            None => self.entries.push(Entry { pollable: Rc::downgrade(pollable), waker: waker.clone() }),
        }
    }

    /// Removes the entries at the positions that `select` returns for the list of all pollables, and returns their
    /// wakers. `select` is not called with an empty list.
    fn take(&mut self, select: impl FnOnce(&[&P]) -> Vec<u32>) -> Result<Vec<Waker>, NothingToWaitFor> {
        self.entries.retain(|entry| entry.pollable.strong_count() > 0);
        let pollables: Vec<Rc<P>> = self.entries.iter().filter_map(|entry| entry.pollable.upgrade()).collect();
        if pollables.is_empty() {
            return Err(NothingToWaitFor);
        }
        let mut ready = select(&pollables.iter().map(Rc::as_ref).collect::<Vec<_>>());
        // From the back, so that removing one by swapping does not move another.
        ready.sort_unstable();
        ready.dedup();
        Ok(ready.iter().rev().map(|&position| self.entries.swap_remove(position as usize).waker).collect())
    }
}

/// What has a pollable that must not outlive it.
pub(crate) trait Subscribe {
    type Pollable;

    fn subscribe(&self) -> Self::Pollable;
}

impl Subscribe for InputStream {
    type Pollable = Pollable;

    fn subscribe(&self) -> Pollable {
        InputStream::subscribe(self)
    }
}

impl Subscribe for OutputStream {
    type Pollable = Pollable;

    fn subscribe(&self) -> Pollable {
        OutputStream::subscribe(self)
    }
}

/// A stream together with its pollable.
///
/// The host traps when a stream is dropped while a pollable of it lives ("resource has children"). Fields are dropped in
/// the order of their declaration, and nobody else keeps the pollable, so the order is right however a source ends.
pub(crate) struct Source<S: Subscribe> {
    // Before `stream`: see above.
    pollable: OnceCell<Rc<S::Pollable>>,
    stream: S,
}

impl<S: Subscribe> Source<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { pollable: OnceCell::new(), stream }
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// The pollable, which is made once and kept: it can be asked any number of times.
    fn pollable(&self) -> &Rc<S::Pollable> {
        self.pollable.get_or_init(|| Rc::new(self.stream.subscribe()))
    }
}

impl<S: Subscribe<Pollable = Pollable>> Source<S> {
    /// Has the task woken when the stream is ready. To be called when the stream has said that it is not.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        REGISTRY.with_borrow_mut(|registry| registry.register(self.pollable(), cx.waker()));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn waker() -> (Arc<Counter>, Waker) {
        let counter = Arc::new(Counter::default());
        (counter.clone(), counter.into())
    }

    fn count(counter: &Counter) -> usize {
        counter.0.load(Ordering::Relaxed)
    }

    #[test]
    fn wakes_exactly_the_ready() {
        let mut registry = Registry::new();
        let pollables: Vec<Rc<u32>> = (0..5).map(Rc::new).collect();
        let counters: Vec<Arc<Counter>> = pollables
            .iter()
            .map(|pollable| {
                let (counter, waker) = waker();
                registry.register(pollable, &waker);
                counter
            })
            .collect();
        let woken = registry.take(|_| vec![3, 0, 3]).unwrap();
        assert_eq!(woken.len(), 2);
        woken.into_iter().for_each(Waker::wake);
        assert_eq!(counters.iter().map(|it| count(it)).collect::<Vec<_>>(), [1, 0, 0, 1, 0]);
        let mut left = Vec::new();
        assert!(
            registry
                .take(|rest| {
                    left = rest.iter().map(|it| **it).collect();
                    vec![]
                })
                .unwrap()
                .is_empty()
        );
        left.sort_unstable();
        assert_eq!(left, [1, 2, 4]);
    }

    #[test]
    fn the_last_waker_counts() {
        let mut registry = Registry::new();
        let pollable = Rc::new(());
        let (first, first_waker) = waker();
        let (second, second_waker) = waker();
        registry.register(&pollable, &first_waker);
        registry.register(&pollable, &second_waker);
        registry.take(|all| (0..all.len() as u32).collect()).unwrap().into_iter().for_each(Waker::wake);
        assert_eq!((count(&first), count(&second)), (0, 1));
    }

    #[test]
    fn forgets_what_was_dropped() {
        let mut registry = Registry::new();
        let (_, waker) = waker();
        let kept = Rc::new(1);
        let dropped = Rc::new(2);
        registry.register(&dropped, &waker);
        registry.register(&kept, &waker);
        drop(dropped);
        let woken = registry.take(|all| {
            assert_eq!(all, [&1]);
            vec![0]
        });
        assert_eq!(woken.unwrap().len(), 1);
        assert!(registry.take(|_| unreachable!("nothing is registered")).is_err());
    }

    /// A stream that, like a host, does not allow to be dropped before its pollables.
    struct Strict(Rc<Cell<usize>>);
    struct StrictPollable(Rc<Cell<usize>>);

    impl Subscribe for Strict {
        type Pollable = StrictPollable;

        fn subscribe(&self) -> StrictPollable {
            self.0.update(|children| children + 1);
            StrictPollable(self.0.clone())
        }
    }

    impl Drop for Strict {
        fn drop(&mut self) {
            assert_eq!(self.0.get(), 0, "resource has children");
        }
    }

    impl Drop for StrictPollable {
        fn drop(&mut self) {
            self.0.update(|children| children - 1);
        }
    }

    fn registered(registry: &mut Registry<StrictPollable>) -> Source<Strict> {
        let source = Source::new(Strict(Rc::default()));
        registry.register(source.pollable(), Waker::noop());
        registry.register(source.pollable(), Waker::noop());
        assert_eq!(source.stream().0.get(), 1);
        source
    }

    #[test]
    fn pollables_go_before_their_streams() {
        let mut registry = Registry::new();
        drop(Source::new(Strict(Rc::default())));
        // While registered, after having been woken, and after the registry.
        drop(registered(&mut registry));
        let source = registered(&mut registry);
        registry.take(|_| vec![0]).unwrap().into_iter().for_each(Waker::wake);
        drop(source);
        let source = registered(&mut registry);
        drop(registry);
        drop(source);
    }

    #[test]
    fn a_replaced_source_is_dropped_in_order() {
        let mut registry = Registry::new();
        let mut slot = Some(registered(&mut registry));
        assert!(slot.replace(registered(&mut registry)).is_some());
        assert!(slot.take().is_some());
        assert!(registry.take(|_| unreachable!("both are gone")).is_err());
    }
}
