//! `Process`: a child and its three streams.

use std::rc::Rc;

use capnp::Error;
use ww_schema::peer_capnp::{byte_stream, exit_status, process};

use super::byte_stream::{readable, writable};
use super::executor::{Child, Room};
use crate::cell::{self, ExitStatus, Held};

/// The capabilities over a child. Dropping the last references closes the child's streams and leaves it running.
pub(super) struct Started {
    /// The child itself, which refers to the others.
    pub(super) process: process::Client,
    /// What it reads.
    pub(super) stdin: byte_stream::Client,
    /// What it writes to its standard output.
    pub(super) stdout: byte_stream::Client,
    /// What it writes to its standard error.
    pub(super) stderr: byte_stream::Client,
}

impl Started {
    pub(super) fn new(child: Child) -> Self {
        let Room { status, input, outputs } = child.room;
        let outputs = Rc::new(outputs);
        let stdin = writable(child.stdin, input);
        let stdout = readable(child.stdout, outputs.clone());
        let stderr = readable(child.stderr, outputs);
        let server = Server {
            process: child.process,
            stdin: stdin.clone(),
            stdout: stdout.clone(),
            stderr: stderr.clone(),
            _room: status,
        };
        Self { process: capnp_rpc::new_client(server), stdin, stdout, stderr }
    }
}

struct Server {
    process: cell::Process,
    stdin: byte_stream::Client,
    stdout: byte_stream::Client,
    stderr: byte_stream::Client,
    _room: Held,
}

impl process::Server for Server {
    async fn stdin(self: Rc<Self>, _: process::StdinParams, mut results: process::StdinResults) -> Result<(), Error> {
        results.get().set_stream(self.stdin.clone());
        Ok(())
    }

    async fn stdout(
        self: Rc<Self>,
        _: process::StdoutParams,
        mut results: process::StdoutResults,
    ) -> Result<(), Error> {
        results.get().set_stream(self.stdout.clone());
        Ok(())
    }

    async fn stderr(
        self: Rc<Self>,
        _: process::StderrParams,
        mut results: process::StderrResults,
    ) -> Result<(), Error> {
        results.get().set_stream(self.stderr.clone());
        Ok(())
    }

    async fn wait(self: Rc<Self>, _: process::WaitParams, mut results: process::WaitResults) -> Result<(), Error> {
        let status = self.process.wait().await;
        write_status(&status, results.get().init_status());
        Ok(())
    }

    async fn kill(self: Rc<Self>, _: process::KillParams, _: process::KillResults) -> Result<(), Error> {
        self.process.kill();
        self.process.wait().await;
        Ok(())
    }

    async fn usage(self: Rc<Self>, _: process::UsageParams, mut results: process::UsageResults) -> Result<(), Error> {
        let account = self.process.account();
        let mut usage = results.get();
        usage.set_cpu_time_nanos(u64::try_from(account.cpu_time().as_nanos()).unwrap_or(u64::MAX));
        usage.set_memory_bytes(account.memory_bytes());
        usage.set_memory_peak_bytes(account.memory_peak_bytes());
        usage.set_fetched_bytes(account.fetched_bytes());
        Ok(())
    }
}

fn write_status(status: &ExitStatus, mut builder: exit_status::Builder<'_>) {
    match status {
        ExitStatus::Exited(code) => builder.set_code(*code),
        ExitStatus::Trapped(text) => builder.set_trap(text.as_str()),
        ExitStatus::Killed => builder.set_killed(()),
        ExitStatus::LimitReached(reached) => {
            let mut limit = builder.init_limit();
            limit.set_name(reached.limit.name());
            limit.set_value(reached.value.to_string());
        }
    }
}
