//! Child cells.

use std::fmt;
use std::io;
use std::time::Duration;

use futures::FutureExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};

use crate::byte_stream::{ByteReader, ByteWriter};
use crate::peer_capnp::{byte_stream, executor, exit_status, process};

/// A child cell to start, in the manner of `std::process::Command`.
///
/// The program's name, `main.wasm`, is no argument of the list. The child sees no environment but what is set here.
#[derive(Clone, Debug)]
pub struct Command<'wasm> {
    wasm: &'wasm [u8],
    args: Vec<String>,
    env: Vec<String>,
}

impl<'wasm> Command<'wasm> {
    /// A child that runs the component `wasm`, with no arguments and an empty environment.
    pub fn new(wasm: &'wasm [u8]) -> Self {
        Self { wasm, args: Vec::new(), env: Vec::new() }
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl Into<String>) -> &mut Self {
        self.args.push(arg.into());
        self
    }

    /// Adds several arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item: Into<String>>) -> &mut Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable.
    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Starts the child; costs one round trip.
    ///
    /// # Errors
    ///
    /// When the host refuses, because `wasm` is not a component that it can run, or the connection has failed.
    pub async fn spawn(&self, executor: &executor::Client) -> Result<Child, capnp::Error> {
        let response = self.request(executor)?.send().promise.await?;
        let started = response.get()?;
        Ok(Child::new(started.get_process()?, started.get_stdin()?, started.get_stdout()?, started.get_stderr()?))
    }

    fn request(&self, executor: &executor::Client) -> Result<RunBytes, capnp::Error> {
        let mut request = executor.run_bytes_request();
        let mut params = request.get();
        params.set_wasm(self.wasm);
        params.set_args(self.args.as_slice())?;
        params.set_env(self.env.as_slice())?;
        Ok(request)
    }
}

type RunBytes = capnp::capability::Request<executor::run_bytes_params::Owned, executor::run_bytes_results::Owned>;

/// A child cell that was started.
///
/// Each of its streams is a pipe of 64 KiB: a child that writes more waits until it is read. So a parent that writes
/// much to its child, or reads one stream to the end and then the other, does these things at once (`futures::join!`),
/// as [`wait_with_output`](Self::wait_with_output) does. Dropping a child does not end it.
pub struct Child {
    /// What the child reads. The child learns of the end when this is closed; dropping it is not enough.
    pub stdin: Option<ByteWriter>,
    /// What the child writes to its standard output.
    pub stdout: Option<ByteReader>,
    /// What the child writes to its standard error.
    pub stderr: Option<ByteReader>,
    /// The child itself.
    pub process: process::Client,
}

impl Child {
    pub(crate) fn new(
        process: process::Client,
        stdin: byte_stream::Client,
        stdout: byte_stream::Client,
        stderr: byte_stream::Client,
    ) -> Self {
        Self {
            stdin: Some(ByteWriter::new(stdin)),
            stdout: Some(ByteReader::new(stdout)),
            stderr: Some(ByteReader::new(stderr)),
            process,
        }
    }

    /// What the child and all below it use and have used. May be called at any time.
    ///
    /// # Errors
    ///
    /// When the connection has failed.
    pub async fn usage(&self) -> Result<Usage, capnp::Error> {
        let response = self.process.usage_request().send().promise.await?;
        let usage = response.get()?;
        Ok(Usage {
            cpu_time: Duration::from_nanos(usage.get_cpu_time_nanos()),
            memory_bytes: usage.get_memory_bytes(),
            memory_peak_bytes: usage.get_memory_peak_bytes(),
            fetched_bytes: usage.get_fetched_bytes(),
        })
    }

    /// Waits until the child has ended. May be called at any time and any number of times.
    ///
    /// # Errors
    ///
    /// When the connection has failed.
    pub async fn wait(&self) -> Result<Status, capnp::Error> {
        let response = self.process.wait_request().send().promise.await?;
        Status::read(response.get()?.get_status()?)
    }

    /// Ends the child, whatever it is doing, and waits until it has ended.
    ///
    /// # Errors
    ///
    /// When the connection has failed.
    pub async fn kill(&self) -> Result<(), capnp::Error> {
        self.process.kill_request().send().promise.await.map(drop)
    }

    /// Closes stdin, reads the other two streams to their ends, and waits for the end of the child.
    ///
    /// A stream that was taken from the child is left alone, and its output is empty. That the child did not read all of
    /// its stdin is no error.
    ///
    /// # Errors
    ///
    /// When the connection has failed.
    pub async fn wait_with_output(mut self) -> io::Result<Output> {
        let stdin = close(self.stdin.take()).map(Ok);
        let (stdout, stderr) = (read_all(self.stdout.take()), read_all(self.stderr.take()));
        let status = async { self.wait().await.map_err(io::Error::other) };
        let ((), stdout, stderr, status) = futures::try_join!(stdin, stdout, stderr, status)?;
        Ok(Output { status, stdout, stderr })
    }
}

async fn close(writer: Option<ByteWriter>) {
    if let Some(mut writer) = writer {
        // Fails where the child has not read what was written.
        let _ = writer.close().await;
    }
}

async fn read_all(reader: Option<ByteReader>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut reader) = reader {
        reader.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// What a child left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: Status,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

/// What a child and all below it use and have used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// How long they had a processor, up to the last time that they gave it back.
    pub cpu_time: Duration,
    /// What their memories and tables take.
    pub memory_bytes: u64,
    /// The most that these ever took.
    pub memory_peak_bytes: u64,
    /// How many bytes of content came over the network for them.
    pub fetched_bytes: u64,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// By itself, with this code.
    Code(u8),
    /// By a trap. The text has the reason and the backtrace, and is as trustworthy as the child.
    Trap(String),
    /// By [`Child::kill`], or because its parent ended.
    Killed,
    /// It had used up what it, or a cell above it, may use.
    Limit {
        /// The name of the limit, such as `cpu-time`.
        name: String,
        /// What it is, such as `10s`.
        value: String,
    },
}

impl Status {
    /// Whether the process ended by itself with code 0.
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }

    /// The code that a shell reports: 124 for a limit, 134 for a trap and 137 for a killed process, which a process could have
    /// chosen, too.
    pub fn shell_code(&self) -> u8 {
        match self {
            Self::Code(code) => *code,
            Self::Trap(_) => 134,
            Self::Killed => 137,
            Self::Limit { .. } => 124,
        }
    }

    fn read(status: exit_status::Reader<'_>) -> Result<Self, capnp::Error> {
        Ok(match status.which()? {
            exit_status::Code(code) => Self::Code(code),
            exit_status::Trap(reason) => Self::Trap(reason?.to_string()?),
            exit_status::Killed(()) => Self::Killed,
            exit_status::Limit(limit) => {
                let limit = limit?;
                Self::Limit { name: limit.get_name()?.to_string()?, value: limit.get_value()?.to_string()? }
            }
        })
    }
}

/// `exit code 3`, `killed`, the limit that was reached, or the text of the trap, which has several lines.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Trap(reason) => write!(f, "trap: {reason}"),
            Self::Killed => f.write_str("killed"),
            Self::Limit { name, value } => write!(f, "the limit `{name}` is reached, which is {value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use futures::executor::block_on;

    use super::*;

    /// Starts processes that end with the number of their arguments and repeat their stdin after their environment.
    struct Executor;

    impl executor::Server for Executor {
        async fn run_bytes(
            self: Rc<Self>,
            params: executor::RunBytesParams,
            mut results: executor::RunBytesResults,
        ) -> Result<(), capnp::Error> {
            let params = params.get()?;
            if params.get_wasm()? != b"wasm" {
                return Err(capnp::Error::failed("no component".into()));
            }
            let written = params.get_env()?.get(0)?.as_bytes().to_vec();
            let echo = Rc::new(Echo { written: RefCell::new(written), closed: RefCell::default() });
            let ended = Echo { written: RefCell::default(), closed: RefCell::new(true) };
            let stream: byte_stream::Client = capnp_rpc::new_client_from_rc(echo);
            let mut results = results.get();
            results.set_process(capnp_rpc::new_client(Process(params.get_args()?.len() as u8)));
            results.set_stdin(stream.clone());
            results.set_stdout(stream);
            results.set_stderr(capnp_rpc::new_client(ended));
            Ok(())
        }
    }

    struct Process(u8);

    impl process::Server for Process {
        async fn wait(
            self: Rc<Self>,
            _: process::WaitParams,
            mut results: process::WaitResults,
        ) -> Result<(), capnp::Error> {
            results.get().init_status().set_code(self.0);
            Ok(())
        }
    }

    struct Echo {
        written: RefCell<Vec<u8>>,
        closed: RefCell<bool>,
    }

    impl byte_stream::Server for Echo {
        async fn read(
            self: Rc<Self>,
            _: byte_stream::ReadParams,
            mut results: byte_stream::ReadResults,
        ) -> Result<(), capnp::Error> {
            assert!(*self.closed.borrow(), "stdin is closed before the output is awaited");
            results.get().set_data(&self.written.take());
            Ok(())
        }

        async fn write(self: Rc<Self>, params: byte_stream::WriteParams) -> Result<(), capnp::Error> {
            self.written.borrow_mut().extend(params.get()?.get_data()?);
            Ok(())
        }

        async fn close(
            self: Rc<Self>,
            _: byte_stream::CloseParams,
            _: byte_stream::CloseResults,
        ) -> Result<(), capnp::Error> {
            self.closed.replace(true);
            Ok(())
        }
    }

    #[test]
    fn starts_a_child_and_collects_its_output() {
        let executor: executor::Client = capnp_rpc::new_client(Executor);
        let output = block_on(async {
            let mut command = Command::new(b"wasm");
            let mut child = command.arg("a").args(["b", "c"]).env("NAME", "x=y").spawn(&executor).await.unwrap();
            child.stdin.as_mut().unwrap().write_all(b" text").await.unwrap();
            assert_eq!(child.wait().await.unwrap(), Status::Code(3));
            child.wait_with_output().await.unwrap()
        });
        assert_eq!(output.status, Status::Code(3));
        assert_eq!(output.stdout, b"NAME=x=y text");
        assert_eq!(output.stderr, b"");
    }

    #[test]
    fn a_child_that_cannot_be_started_is_an_error() {
        let executor: executor::Client = capnp_rpc::new_client(Executor);
        let error = block_on(Command::new(b"no").spawn(&executor)).map(drop).unwrap_err();
        assert!(error.to_string().contains("no component"), "{error}");
    }

    fn check(set: impl FnOnce(exit_status::Builder<'_>), expected: Status, shown: &str, code: u8) {
        let mut message = capnp::message::Builder::new_default();
        set(message.init_root());
        let status = Status::read(message.get_root_as_reader().unwrap()).unwrap();
        assert_eq!(status, expected);
        assert_eq!(status.to_string(), shown);
        assert_eq!(status.shell_code(), code);
        assert_eq!(status.success(), code == 0);
    }

    #[test]
    fn reads_every_status() {
        check(|mut it| it.set_code(0), Status::Code(0), "exit code 0", 0);
        check(|mut it| it.set_code(255), Status::Code(255), "exit code 255", 255);
        check(|mut it| it.set_trap("why"), Status::Trap("why".into()), "trap: why", 134);
        check(|mut it| it.set_killed(()), Status::Killed, "killed", 137);
        let limit = |it: exit_status::Builder<'_>| {
            let mut limit = it.init_limit();
            limit.set_name("cpu-time");
            limit.set_value("10s");
        };
        let status = Status::Limit { name: "cpu-time".into(), value: "10s".into() };
        check(limit, status, "the limit `cpu-time` is reached, which is 10s", 124);
    }
}
