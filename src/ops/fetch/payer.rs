//! Whose account what is fetched is booked on.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cell::{Account, Held, LimitReached};

/// Who has something fetched: a cell, which may be one that is still to be started.
#[derive(Debug, Default)]
pub struct Payer {
    /// Set once: what a cell may use is known only after a part of its image was read.
    account: OnceLock<Account>,
    /// What was fetched before, in bytes.
    before: AtomicU64,
}

impl Payer {
    /// The cell that has this account.
    pub fn of(account: Account) -> Self {
        Self { account: account.into(), before: AtomicU64::new(0) }
    }

    /// From now on the cell that has this account; it is booked what was fetched before as well, whatever it may fetch.
    pub(in crate::ops) fn becomes(&self, account: &Account) {
        if self.account.set(account.clone()).is_ok() {
            let _ = account.count_fetched(self.before.load(Ordering::Relaxed));
        }
    }

    /// Takes so many bytes of its memory, for as long as the value lives; of one that is still to be started none.
    ///
    /// # Errors
    /// If there are not as many.
    pub(in crate::ops) fn hold(&self, bytes: u64) -> Result<Option<Held>, LimitReached> {
        self.account.get().map(|account| account.hold(bytes)).transpose()
    }

    /// Whether anything more may be fetched for it.
    pub(super) fn check(&self) -> Result<(), LimitReached> {
        self.account.get().map_or(Ok(()), Account::check_fetched)
    }

    /// Notes that so many bytes have come.
    ///
    /// # Errors
    /// If these are more than may come.
    pub(in crate::ops) fn count(&self, bytes: u64) -> Result<(), LimitReached> {
        match self.account.get() {
            Some(account) => account.count_fetched(bytes),
            None => {
                self.before.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}
