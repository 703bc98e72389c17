//! What a run has used up.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::cell::{Account, Arrival, LimitReached, NetworkRefused};

/// What a run has used up: its cell, and where that is said its children as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How long the cell lived.
    pub wall_time: Duration,
    /// How long it and its children computed.
    pub cpu_time: Duration,
    /// The most that memories and tables took at once, those of children included, in bytes.
    pub memory_peak_bytes: u64,
    /// How many children were started, with theirs.
    pub children: u64,
    /// How many RPC calls it and its children made to their hosts.
    pub calls: u64,
    /// How many bytes came over the network for it and its children: of its image, and of content that was loaded.
    pub fetched_bytes: u64,
    /// How many bytes it wrote to standard output.
    pub stdout_bytes: u64,
    /// How many bytes it wrote to standard error.
    pub stderr_bytes: u64,
}

/// Tells what a cell has used: so far, or to its end.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    cell: OnceLock<Measured>,
    ended: OnceLock<Usage>,
}

#[derive(Debug)]
struct Measured {
    started: Instant,
    account: Account,
    stdout: Option<Arrival>,
    stderr: Option<Arrival>,
}

impl Gauge {
    /// The cell begins; once.
    pub(super) fn begin(&self, account: Account, stdout: Option<Arrival>, stderr: Option<Arrival>) {
        let _ = self.cell.set(Measured { started: Instant::now(), account, stdout, stderr });
    }

    /// The cell has ended, and uses nothing any more.
    pub(super) fn end(&self) {
        if let Some(usage) = self.usage() {
            let _ = self.ended.set(usage);
        }
    }

    /// The limit that has kept it from writing to `/tmp`, if one has.
    pub(super) fn tmp_refused(&self) -> Option<LimitReached> {
        self.cell.get()?.account.tmp_refused()
    }

    /// What it was refused of the network so far.
    pub(super) fn network_refused(&self) -> NetworkRefused {
        self.cell.get().map(|cell| cell.account.network_refused()).unwrap_or_default()
    }

    /// What it has used; `None` if it has not begun.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.ended.get().copied().or_else(|| self.cell.get().map(Measured::usage))
    }
}

impl Measured {
    fn usage(&self) -> Usage {
        let written = |output: &Option<Arrival>| output.as_ref().map_or(0, Arrival::written_bytes);
        Usage {
            wall_time: self.started.elapsed(),
            cpu_time: self.account.cpu_time(),
            memory_peak_bytes: self.account.memory_peak_bytes(),
            children: self.account.children_started(),
            calls: self.account.calls(),
            fetched_bytes: self.account.fetched_bytes(),
            stdout_bytes: written(&self.stdout),
            stderr_bytes: written(&self.stderr),
        }
    }
}
