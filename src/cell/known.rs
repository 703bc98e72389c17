//! The compiled code that a process has in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::Notify;

use super::component::ComponentError;
use super::program::Code;

/// How many components are known. A node runs few different programs many times.
const KNOWN_COUNT_MAX: usize = 64;

/// How much of what is kept of them stays when nobody has them any more, in bytes, which no account counts: some ten small
/// programs. Others are found in the cache again.
const KEPT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What a component is known by.
pub(super) type Digest256 = [u8; 32];

/// The code that somebody waits for.
pub(super) type Compiling = Shared<BoxFuture<'static, Result<Arc<Code>, ComponentError>>>;

/// Components that were asked for lately, the newest first. Bounded by [`KNOWN_COUNT_MAX`].
#[derive(Default)]
pub(super) struct Known(VecDeque<(Digest256, Entry)>);

/// What is known of a component.
enum Entry {
    /// There is code, as long as somebody has it.
    Code(Weak<Code>),
    /// There is code, and it stays.
    Kept(Arc<Code>),
    /// Somebody has asked for it. Those who wait own the future, so that it ends with the last of them.
    Compiling(WeakShared<BoxFuture<'static, Result<Arc<Code>, ComponentError>>>, Arc<Notify>),
}

/// What was found.
pub(super) enum Found {
    /// The code.
    Code(Arc<Code>),
    /// Whoever waits for it, and has the right to have something compiled, says so to the other.
    Compiling(Compiling, Arc<Notify>),
}

impl Known {
    /// Looks for a component. What is found counts as the newest.
    pub(super) fn look_up(&mut self, digest: &Digest256) -> Option<Found> {
        let place = self.0.iter().position(|(known, _)| known == digest)?;
        let (_, entry) = self.0.remove(place)?;
        let found = match &entry {
            Entry::Code(code) => Found::Code(code.upgrade()?),
            Entry::Kept(code) => Found::Code(code.clone()),
            Entry::Compiling(compiling, go) => Found::Compiling(compiling.upgrade()?, go.clone()),
        };
        match &found {
            Found::Code(code) => self.add_code(*digest, code),
            Found::Compiling(..) => self.0.push_front((*digest, entry)),
        }
        Some(found)
    }

    /// Notes that a component is being compiled.
    pub(super) fn begin(&mut self, digest: Digest256, compiling: &Compiling, go: &Arc<Notify>) {
        self.forget(&digest);
        if let Some(weak) = compiling.downgrade() {
            self.0.push_front((digest, Entry::Compiling(weak, go.clone())));
            self.0.truncate(KNOWN_COUNT_MAX);
        }
    }

    /// Remembers code for the next who asks.
    pub(super) fn add(&mut self, digest: Digest256, code: &Arc<Code>) {
        self.forget(&digest);
        self.add_code(digest, code);
    }

    pub(super) fn forget(&mut self, digest: &Digest256) {
        self.0.retain(|(known, _)| known != digest);
    }

    fn add_code(&mut self, digest: Digest256, code: &Arc<Code>) {
        self.0.push_front((digest, Entry::Kept(code.clone())));
        self.0.truncate(KNOWN_COUNT_MAX);
        let mut kept_bytes = 0_u64;
        for (_, entry) in &mut self.0 {
            if let Entry::Kept(code) = entry {
                kept_bytes = kept_bytes.saturating_add(code.kept_bytes());
                if kept_bytes > KEPT_BYTES_MAX {
                    *entry = Entry::Code(Arc::downgrade(code));
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
