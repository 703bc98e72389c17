//! Runs steps that wait for each other, some at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A step.
#[derive(Clone, Debug)]
pub struct Step<K> {
    /// The steps that must have succeeded before. Those that are not in the queue have.
    pub after: BTreeSet<K>,
    /// How long it takes, as far as is known. Steps on the longest way to the end start first.
    pub cost: Duration,
    /// Steps with the same one never run at the same time.
    pub exclusive: Option<String>,
}

/// What came of the steps of a queue.
#[derive(Debug)]
pub struct Outcome<K, T, E> {
    /// Those that succeeded.
    pub done: BTreeMap<K, T>,
    /// Those that failed, in the order in which they did.
    pub failed: Vec<(K, E)>,
    /// Those that were not started: they wait for one that failed, or nothing was to be started any more.
    pub left: BTreeSet<K>,
}

/// Whether to go on after a failure with what does not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterFailure {
    /// Starts nothing more, and waits for what runs.
    #[default]
    Stop,
    /// Goes on.
    KeepGoing,
}

struct Shared<K, T, E> {
    waiting: BTreeMap<K, BTreeSet<K>>,
    busy: BTreeSet<String>,
    running: usize,
    done: BTreeMap<K, T>,
    failed: Vec<(K, E)>,
}

/// Runs all steps, up to `jobs` at a time, and each after those that it waits for. `work` is given what those before it,
/// directly or not, have come to.
///
/// Which steps run does not depend on `jobs`, and neither does in which order those run of which one waits for the other.
///
/// # Panics
///
/// If steps wait for each other in a cycle, or `work` panics.
pub fn run<K, T, E>(
    steps: &BTreeMap<K, Step<K>>,
    jobs: usize,
    after_failure: AfterFailure,
    work: impl Fn(&K, &BTreeMap<K, T>) -> Result<T, E> + Sync,
) -> Outcome<K, T, E>
where
    K: Clone + Ord + Send + Sync,
    T: Clone + Send,
    E: Send,
{
    let ways = longest_ways(steps);
    let waiting = steps.iter().map(|(key, step)| {
        (key.clone(), step.after.iter().filter(|before| steps.contains_key(*before)).cloned().collect())
    });
    let shared = Mutex::new(Shared {
        waiting: waiting.collect(),
        busy: BTreeSet::new(),
        running: 0,
        done: BTreeMap::new(),
        failed: Vec::new(),
    });
    let changed = Condvar::new();
    thread::scope(|scope| {
        for _ in 1..jobs.min(steps.len()) {
            // Where there can be no more threads, fewer steps run at a time.
            let _ = thread::Builder::new()
                .name("ww-build".into())
                .spawn_scoped(scope, || serve(steps, &ways, after_failure, &shared, &changed, &work));
        }
        serve(steps, &ways, after_failure, &shared, &changed, &work);
    });
    let shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    Outcome { done: shared.done, failed: shared.failed, left: shared.waiting.into_keys().collect() }
}

/// Runs steps until there is none left that can run.
fn serve<K, T, E>(
    steps: &BTreeMap<K, Step<K>>,
    ways: &BTreeMap<K, Duration>,
    after_failure: AfterFailure,
    shared: &Mutex<Shared<K, T, E>>,
    changed: &Condvar,
    work: &(impl Fn(&K, &BTreeMap<K, T>) -> Result<T, E> + Sync),
) where
    K: Clone + Ord,
    T: Clone,
{
    let mut state = lock(shared);
    loop {
        let may_start = state.failed.is_empty() || after_failure == AfterFailure::KeepGoing;
        let next = if may_start { choose(steps, ways, &state) } else { None };
        let Some(key) = next else {
            if state.running == 0 {
                // Whoever waits would wait for ever.
                changed.notify_all();
                return;
            }
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        state.waiting.remove(&key);
        state.running += 1;
        state.busy.extend(steps[&key].exclusive.clone());
        let before =
            all_before(steps, &key).into_iter().filter_map(|key| Some((key.clone(), state.done.get(key)?.clone())));
        let before = before.collect();
        drop(state);
        // A panic must not leave others waiting.
        let guard = Finished { shared, changed };
        let result = work(&key, &before);
        state = lock(shared);
        std::mem::forget(guard);
        state.running -= 1;
        if let Some(exclusive) = &steps[&key].exclusive {
            state.busy.remove(exclusive);
        }
        match result {
            Ok(value) => {
                for before in state.waiting.values_mut() {
                    before.remove(&key);
                }
                state.done.insert(key, value);
            }
            Err(error) => state.failed.push((key, error)),
        }
        changed.notify_all();
    }
}

/// Says that a step has ended when its thread panics.
struct Finished<'a, K, T, E> {
    shared: &'a Mutex<Shared<K, T, E>>,
    changed: &'a Condvar,
}

impl<K, T, E> Drop for Finished<'_, K, T, E> {
    fn drop(&mut self) {
        let mut state = lock(self.shared);
        state.running -= 1;
        state.waiting.clear();
        self.changed.notify_all();
    }
}

/// The step to start next: of those that wait for nothing, the one with the longest way to the end.
fn choose<K: Clone + Ord, T, E>(
    steps: &BTreeMap<K, Step<K>>,
    ways: &BTreeMap<K, Duration>,
    state: &Shared<K, T, E>,
) -> Option<K> {
    let is_free = |key: &K| steps[key].exclusive.as_ref().is_none_or(|exclusive| !state.busy.contains(exclusive));
    let ready = state.waiting.iter().filter(|(key, before)| before.is_empty() && is_free(key)).map(|(key, _)| key);
    // Of equals the first, so that the order is always the same.
    ready.rev().max_by_key(|key| ways[*key]).cloned()
}

/// How long it takes from the beginning of each step to the end of the last one that waits for it.
fn longest_ways<K: Clone + Ord>(steps: &BTreeMap<K, Step<K>>) -> BTreeMap<K, Duration> {
    let mut dependents: BTreeMap<&K, Vec<&K>> = BTreeMap::new();
    let mut open: BTreeMap<&K, usize> = steps.keys().map(|key| (key, 0)).collect();
    for (key, step) in steps {
        for before in step.after.iter().filter(|before| steps.contains_key(*before)) {
            dependents.entry(before).or_default().push(key);
            *open.get_mut(before).expect("it is a step") += 1;
        }
    }
    // From the end to the beginning.
    let mut ways: BTreeMap<K, Duration> = BTreeMap::new();
    let mut ready: Vec<&K> = open.iter().filter(|(_, count)| **count == 0).map(|(key, _)| *key).collect();
    while let Some(key) = ready.pop() {
        let after = dependents.get(key).into_iter().flatten().map(|after| ways[*after]).max().unwrap_or_default();
        ways.insert(key.clone(), after + steps[key].cost);
        for before in steps[key].after.iter().filter(|before| steps.contains_key(*before)) {
            let count = open.get_mut(before).expect("it is a step");
            *count -= 1;
            if *count == 0 {
                ready.push(before);
            }
        }
    }
    assert_eq!(ways.len(), steps.len(), "no step waits for itself");
    ways
}

/// Everything that a step waits for, directly or not.
fn all_before<'s, K: Ord>(steps: &'s BTreeMap<K, Step<K>>, key: &K) -> BTreeSet<&'s K> {
    let (mut all, mut pending) = (BTreeSet::new(), vec![key]);
    while let Some(key) = pending.pop() {
        for before in steps.get(key).into_iter().flat_map(|step| &step.after) {
            if let Some((before, _)) = steps.get_key_value(before)
                && all.insert(before)
            {
                pending.push(before);
            }
        }
    }
    all
}

fn lock<K, T, E>(shared: &Mutex<Shared<K, T, E>>) -> MutexGuard<'_, Shared<K, T, E>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn step(after: &[usize], cost_ms: u64, exclusive: Option<&str>) -> Step<usize> {
        let exclusive = exclusive.map(str::to_owned);
        Step { after: after.iter().copied().collect(), cost: Duration::from_millis(cost_ms), exclusive }
    }

    type Steps = BTreeMap<usize, Step<usize>>;

    /// Runs steps one at a time, and gives the order.
    fn order(steps: &Steps) -> Vec<usize> {
        let order = Mutex::new(Vec::new());
        let outcome = run(steps, 1, AfterFailure::Stop, |key, _| {
            order.lock().unwrap().push(*key);
            Ok::<_, ()>(())
        });
        assert!(outcome.failed.is_empty() && outcome.left.is_empty());
        order.into_inner().unwrap()
    }

    #[test]
    fn the_longest_way_starts_first() {
        let steps =
            [(1, step(&[], 1, None)), (2, step(&[], 5, None)), (3, step(&[1], 10, None)), (4, step(&[], 5, None))];
        assert_eq!(order(&steps.into()), [1, 3, 2, 4]);
    }

    #[test]
    fn what_depends_on_a_failure_is_left() {
        let steps: Steps = [(1, step(&[], 9, None)), (2, step(&[1], 0, None)), (3, step(&[], 0, None))].into();
        let fail = |key: &usize, _: &BTreeMap<usize, ()>| if *key == 1 { Err("no") } else { Ok(()) };
        let outcome = run(&steps, 1, AfterFailure::Stop, fail);
        assert_eq!((outcome.failed, outcome.left), (vec![(1, "no")], [2, 3].into()));
        let outcome = run(&steps, 1, AfterFailure::KeepGoing, fail);
        assert_eq!(outcome.done.into_keys().collect::<Vec<_>>(), [3]);
        assert_eq!((outcome.failed, outcome.left), (vec![(1, "no")], [2].into()));
    }

    #[test]
    fn exclusive_steps_run_one_at_a_time() {
        let steps: Steps = (0..8).map(|key| (key, step(&[], 0, Some("cargo")))).collect();
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let outcome = run(&steps, 8, AfterFailure::Stop, |_, _| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, ()>(())
        });
        assert_eq!((outcome.done.len(), most.into_inner()), (8, 1));
    }

    fn graphs() -> impl Strategy<Value = Steps> {
        let node = (prop::collection::btree_set(0..20_usize, 0..5), 0..50_u64, prop::option::of(0..3_u8));
        prop::collection::vec(node, 1..20).prop_map(|nodes| {
            let steps = nodes.into_iter().enumerate().map(|(key, (after, cost, exclusive))| {
                let after: Vec<usize> = after.into_iter().filter(|before| *before < key).collect();
                (key, step(&after, cost, exclusive.map(|name| name.to_string()).as_deref()))
            });
            steps.collect()
        })
    }

    proptest! {
        /// Whatever runs beside what, each step sees the results of all that it waits for, and the same as one by one.
        #[test]
        fn at_once_is_as_one_by_one(steps in graphs(), jobs in 2..5_usize) {
            let sum = |key: &usize, before: &BTreeMap<usize, u64>| {
                assert!(steps[key].after.iter().all(|before_key| before.contains_key(before_key)));
                Ok::<u64, ()>(before.values().sum::<u64>() + 1)
            };
            let one = run(&steps, 1, AfterFailure::Stop, sum);
            let more = run(&steps, jobs, AfterFailure::Stop, sum);
            prop_assert_eq!(one.done.len(), steps.len());
            prop_assert_eq!(one.done, more.done);
        }

        #[test]
        fn the_order_is_valid(steps in graphs()) {
            let order = order(&steps);
            let place: BTreeMap<usize, usize> = order.iter().enumerate().map(|(at, key)| (*key, at)).collect();
            prop_assert_eq!(place.len(), steps.len());
            for (key, step) in &steps {
                prop_assert!(step.after.iter().all(|before| place[before] < place[key]));
            }
        }

        /// What does not run after a failure is what waits for it, and nothing else.
        #[test]
        fn a_failure_stops_what_waits_for_it(steps in graphs(), jobs in 1..4_usize, which in any::<prop::sample::Index>()) {
            let failing = which.index(steps.len());
            let outcome = run(&steps, jobs, AfterFailure::KeepGoing, |key, _: &BTreeMap<usize, ()>| {
                if *key == failing { Err(()) } else { Ok(()) }
            });
            let expected: BTreeSet<usize> =
                steps.keys().copied().filter(|key| all_before(&steps, key).contains(&failing)).collect();
            prop_assert_eq!(outcome.left, expected);
        }
    }
}
