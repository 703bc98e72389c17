//! Shows what a cell can do: says where it runs, and starts a child of its own.
//!
//! Ends with the line `pid0: ok` on stdout when the child did what it should, and otherwise with an error on stderr and
//! a code that is not 0.

use std::error::Error;
use std::io::{self, Write};

use futures::io::AsyncWriteExt;
use ww_guest::peer_capnp::{executor, host};
use ww_guest::{Command, Output, Status};

/// The child's component; empty where it was missing when this was built.
const CHILD_ECHO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/child-echo.wasm"));

/// What the child reads.
const LINE: &[u8] = b"a line from pid0\n";

fn main() {
    ww_guest::run(pid0)
}

async fn pid0(host: host::Client) -> Result<(), Box<dyn Error>> {
    introduce(&host).await?;
    let executor = host.executor_request().send().promise.await?.get()?.get_executor()?;
    let output = run_child(&executor).await?;
    say(&format!("child stdout: {}", String::from_utf8_lossy(&output.stdout).trim_end()))?;
    say(&format!("child stderr: {}", String::from_utf8_lossy(&output.stderr).trim_end()))?;
    check(&output)?;
    say("ok")?;
    Ok(())
}

/// Says which node this is and where it listens.
async fn introduce(host: &host::Client) -> Result<(), Box<dyn Error>> {
    let (id, addrs) = futures::try_join!(host.id_request().send().promise, host.addrs_request().send().promise)?;
    say(&format!("id {}", id.get()?.get_id()?.to_str()?))?;
    for addr in addrs.get()?.get_addrs()? {
        say(&format!("listening on {}", addr?.to_str()?))?;
    }
    Ok(())
}

/// Starts child-echo, writes a line to it, and waits for what it says.
async fn run_child(executor: &executor::Client) -> Result<Output, Box<dyn Error>> {
    if CHILD_ECHO.is_empty() {
        return Err("built without child-echo; run `ww build`".into());
    }
    let mut child = Command::new(CHILD_ECHO).spawn(executor).await?;
    let mut stdin = child.stdin.take().ok_or("the child has no stdin")?;
    stdin.write_all(LINE).await?;
    stdin.close().await?;
    Ok(child.wait_with_output().await?)
}

/// The child must end well, with exactly the line on stdout, and with what the host echoed to it on stderr.
fn check(output: &Output) -> Result<(), String> {
    if output.status != Status::Code(0) {
        return Err(format!("the child should exit with code 0, but: {}", output.status));
    }
    if output.stdout != LINE {
        return Err(format!("the child should write {:?}, not {:?}", LINE.escape_ascii().to_string(), output.stdout));
    }
    if !output.stderr.ends_with(b"child-echo\n") {
        return Err(format!("the child should write what the host echoed to stderr, not {:?}", output.stderr));
    }
    Ok(())
}

/// Prints a line to stdout.
fn say(what: &str) -> io::Result<()> {
    writeln!(io::stdout(), "pid0: {what}")
}
