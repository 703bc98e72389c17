//! Starting children, waiting for them, and ending them.

use std::cell::OnceCell;
use std::error::Error;
use std::io::{self, Write};
use std::time::Instant;

use futures::future;
use futures::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use ww_guest::peer_capnp::{executor, host};
use ww_guest::{ByteReader, ByteWriter, Child, Command, Module, Status};

use crate::calls::{self, echo, timed_echo};
use crate::measure::Times;
use crate::{Outcome, require};

/// What it takes to have children.
pub(crate) struct Parent {
    pub(crate) host: host::Client,
    pub(crate) executor: executor::Client,
    path: String,
    /// The component at `path`, once the first child was started.
    wasm: OnceCell<Vec<u8>>,
}

impl Parent {
    pub(crate) fn new(host: &host::Client, path: &str) -> Self {
        Self { host: host.clone(), executor: calls::executor(host), path: path.to_owned(), wasm: OnceCell::new() }
    }

    pub(crate) async fn load(&self) -> Result<Module, Box<dyn Error>> {
        Ok(Module::load(&self.executor, self.wasm()?).await?)
    }

    pub(crate) async fn spawn(&self, args: &[&str]) -> Result<Child, Box<dyn Error>> {
        Ok(Command::new(self.wasm()?).args(args.iter().copied()).spawn(&self.executor).await?)
    }

    pub(crate) fn wasm(&self) -> Result<&[u8], Box<dyn Error>> {
        if let Some(wasm) = self.wasm.get() {
            return Ok(wasm);
        }
        let wasm = std::fs::read(&self.path).map_err(|error| format!("{}: {error}", self.path))?;
        Ok(self.wasm.get_or_init(|| wasm))
    }
}

/// The child's stdin, which it has until somebody takes it.
pub(crate) fn stdin(child: &mut Child) -> Result<ByteWriter, &'static str> {
    child.stdin.take().ok_or("the child has no stdin")
}

/// The child's stdout, which it has until somebody takes it.
pub(crate) fn stdout(child: &mut Child) -> Result<ByteReader, &'static str> {
    child.stdout.take().ok_or("the child has no stdout")
}

pub(crate) async fn spawn(parent: &Parent, args: &[&str]) -> Outcome {
    let mut child = parent.spawn(args).await?;
    let (mut input, mut output) = (stdin(&mut child)?, stdout(&mut child)?);
    let mut errors = child.stderr.take().ok_or("the child has no stderr")?;
    ww_guest::spawn(async move {
        // Ends early where the child does not read.
        let _ = ww_guest::copy(&mut ww_guest::stdin(), &mut input).await;
        let _ = input.close().await;
    });
    let (mut out, mut err) = (ww_guest::stdout(), ww_guest::stderr());
    let shown = future::try_join(ww_guest::copy(&mut output, &mut out), ww_guest::copy(&mut errors, &mut err));
    let (shown, status) = future::join(shown, child.wait()).await;
    shown?;
    Ok(status?.to_string())
}

pub(crate) async fn spawn_many(parent: &Parent, count: usize) -> Outcome {
    let mut children = Vec::new();
    for _ in 0..count {
        children.push(parent.spawn(&["cat"]).await?);
    }
    for (number, child) in children.into_iter().enumerate() {
        let text = number.to_string();
        let mut child = child;
        let mut input = stdin(&mut child)?;
        input.write_all(text.as_bytes()).await?;
        input.close().await?;
        let output = child.wait_with_output().await?;
        require(output.status.success() && output.stdout == text.as_bytes(), "each child answers")?;
    }
    Ok(format!("{count} children"))
}

pub(crate) async fn spawn_time(parent: &Parent, count: usize, args: &[&str]) -> Outcome {
    let mut times = Times::default();
    for _ in 0..count {
        let start = Instant::now();
        let mut child = parent.spawn(args).await?;
        let (mut input, mut output) = (stdin(&mut child)?, stdout(&mut child)?);
        input.write_all(b"x").await?;
        input.close().await?;
        output.read_exact(&mut [0]).await?;
        times.add_since(start);
        require(child.wait().await?.success(), "the child ends well")?;
    }
    times.print("spawn to first byte")?;
    Ok(format!("{count} children"))
}

pub(crate) async fn beside_spinning(parent: &Parent, count: usize, calls: usize) -> Outcome {
    let mut children = Vec::new();
    for _ in 0..count {
        let mut child = parent.spawn(&["spin"]).await?;
        wait_for_line(&mut child).await?;
        children.push(child);
    }
    let mut times = Times::default();
    for call in 0..calls {
        times.add_since(timed_echo(&parent.executor, call).await?);
    }
    times.print("echo")?;
    future::try_join_all(children.iter().map(Child::kill)).await?;
    Ok(format!("{calls} echoes beside {count} children"))
}

/// Waits until the child says that it is about to do what it was started for.
pub(crate) async fn wait_for_line(child: &mut Child) -> Result<(), Box<dyn Error>> {
    let mut line = String::new();
    futures::io::BufReader::new(stdout(child)?).read_line(&mut line).await?;
    require(line.ends_with('\n'), "the child gets as far as its first line")
}

pub(crate) async fn kill(parent: &Parent, behaviour: &str) -> Outcome {
    let mut child = parent.spawn(&[behaviour]).await?;
    wait_for_line(&mut child).await?;
    let waiting = child.process.wait_request().send().promise;
    child.kill().await?;
    waiting.await?;
    require(child.wait().await? == Status::Killed, "a killed child was killed")?;
    child.kill().await?;
    require(child.wait().await? == Status::Killed, "killing it again changes nothing")?;
    Ok(Status::Killed.to_string())
}

pub(crate) async fn wait_twice(parent: &Parent) -> Outcome {
    let child = parent.spawn(&["exit", "7"]).await?;
    let (first, second) = future::try_join(child.wait(), child.wait()).await?;
    let third = child.wait().await?;
    require([first, second, third] == [const { Status::Code(7) }; 3], "everybody learns the status")?;
    Ok(Status::Code(7).to_string())
}

pub(crate) async fn wait_dropped(parent: &Parent) -> Outcome {
    let mut child = parent.spawn(&["cat"]).await?;
    let waiting = child.process.wait_request().send().promise;
    // By the time of an answer to a later call, the wait is there as well.
    echo(&parent.executor, "sent").await?;
    drop(waiting);
    echo(&parent.executor, "cancelled").await?;
    stdin(&mut child)?.close().await?;
    require(child.wait().await? == Status::Code(0), "the status is not lost")?;
    Ok(Status::Code(0).to_string())
}

pub(crate) async fn nest(parent: &Parent) -> Outcome {
    let mut child = parent.spawn(&["nested"]).await?;
    let mut input = stdin(&mut child)?;
    input.write_all(parent.wasm()?).await?;
    input.close().await?;
    let output = child.wait_with_output().await?;
    require(output.status.success(), format!("the child ends well: {}", String::from_utf8_lossy(&output.stderr)))?;
    writeln!(io::stdout(), "the child has ended")?;
    ww_guest::stdin().read_to_end(&mut Vec::new()).await?;
    Ok("and so has its own".to_owned())
}

pub(crate) async fn nested(host: &host::Client) -> Outcome {
    let mut wasm = Vec::new();
    ww_guest::stdin().read_to_end(&mut wasm).await?;
    let parent =
        Parent { host: host.clone(), executor: calls::executor(host), path: "stdin".to_owned(), wasm: wasm.into() };
    abandon(&parent).await
}

pub(crate) async fn abandon(parent: &Parent) -> Outcome {
    let mut child = parent.spawn(&["sleep-forever"]).await?;
    wait_for_line(&mut child).await?;
    let module = parent.load().await?;
    let mut child = module.command().arg("sleep-forever").bootstrap(parent.host.clone()).spawn().await?;
    wait_for_line(&mut child).await?;
    Ok("two children are left".to_owned())
}

pub(crate) async fn run_garbage(host: &host::Client) -> Outcome {
    let executor = calls::executor(host);
    let core_module = b"\0asm\x01\0\0\0";
    let empty_component = b"\0asm\x0d\0\x01\0";
    let zeros = vec![0; 100_000];
    for wasm in [&b""[..], b"garbage", core_module, empty_component, &zeros] {
        let error = Command::new(wasm).spawn(&executor).await.err().ok_or("garbage was started")?;
        writeln!(io::stdout(), "{} bytes: {error}", wasm.len())?;
        echo(&executor, "still there").await?;
    }
    Ok("each is an error".to_owned())
}

pub(crate) async fn bad_env(host: &host::Client) -> Outcome {
    let executor = calls::executor(host);
    for entry in ["NAME", "", "=value"] {
        let mut request = executor.run_bytes_request();
        request.get().set_wasm(b"\0asm\x0d\0\x01\0");
        request.get().set_env(&[entry])?;
        let error = request.send().promise.await.map(drop).err().ok_or("a bad entry was accepted")?;
        writeln!(io::stdout(), "{entry:?}: {error}")?;
        echo(&executor, "still there").await?;
    }
    Ok("each is an error".to_owned())
}
