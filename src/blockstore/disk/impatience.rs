//! Doing without what would have to be waited for.

use std::cell::Cell;

thread_local! {
    /// Whether this thread must not wait.
    static IS_IMPATIENT: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is within [`without_waiting`].
pub(super) fn is_impatient() -> bool {
    IS_IMPATIENT.get()
}

/// Does some work, in which a store gives up with [`StoreError::Cancelled`](super::StoreError::Cancelled) where it would have to
/// wait for another process, or to read all that it has. What it only has to read from a disk is waited for.
///
/// For a thread that has something else to attend to, such as signals: most of the time nothing has to be waited for, and to
/// have another thread find that out takes longer than all the work.
pub fn without_waiting<T>(work: impl FnOnce() -> T) -> T {
    struct Restored(bool);
    impl Drop for Restored {
        fn drop(&mut self) {
            IS_IMPATIENT.set(self.0);
        }
    }
    let _restored = Restored(IS_IMPATIENT.replace(true));
    work()
}
