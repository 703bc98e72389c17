//! Programs and images that are loaded by their CID.

use std::io::{self, Write};

use futures::future;
use ww_guest::peer_capnp::{executor, host};
use ww_guest::{Child, Module, Status};

use crate::calls;
use crate::children::Parent;
use crate::{Outcome, require};

/// Loads content and starts a child from it; shows what that writes.
pub(crate) async fn load(host: &host::Client, content: &str, args: &[&str]) -> Outcome {
    let module = Module::load_content(&calls::executor(host), content).await?;
    let child = module.command().args(args.iter().copied()).null_stdin().spawn().await?;
    Ok(show(child).await?.to_string())
}

/// The same with two children at once; shows what the first writes.
pub(crate) async fn load_twice(host: &host::Client, content: &str, args: &[&str]) -> Outcome {
    let module = Module::load_content(&calls::executor(host), content).await?;
    let mut command = module.command();
    command.args(args.iter().copied()).null_stdin();
    let (first, second) = future::try_join(command.spawn(), command.spawn()).await?;
    let outputs = future::try_join(first.wait_with_output(), second.wait_with_output()).await?;
    io::stdout().write_all(&outputs.0.stdout)?;
    require(outputs.0.stdout == outputs.1.stdout, "both find the same")?;
    require(outputs.0.status.success() && outputs.1.status.success(), "both end well")?;
    Ok("two children".to_owned())
}

/// Hands a child the grant to load, which it does.
pub(crate) async fn hand_fetch(parent: &Parent, content: &str, args: &[&str]) -> Outcome {
    let module = parent.load().await?;
    let mut command = module.command();
    command.args(["load", content]).args(args.iter().copied()).grant("fetch").null_stdin();
    let mut child = command.spawn().await?;
    let usage = child.process.clone();
    let status = show_all(&mut child).await?;
    let fetched = usage.usage_request().send().promise.await?.get()?.get_fetched_bytes();
    writeln!(io::stdout(), "fetched for it: {}", if fetched > 0 { "something" } else { "nothing" })?;
    Ok(status.to_string())
}

/// Calls `load` with too much and too little.
pub(crate) async fn load_nonsense(parent: &Parent) -> Outcome {
    let mut both = parent.executor.load_request();
    both.get().set_wasm(parent.wasm()?);
    both.get().set_cid("bafkqaaa");
    say("both", both.send().promise.await.map(drop))?;
    say("neither", parent.executor.load_request().send().promise.await.map(drop))?;
    for content in ["", "bafy", "\u{1b}[2J", "/ipns/example.org", "/ipfs/bafkqaaa/../x"] {
        say(&format!("{content:?}"), load_request(&parent.executor, content).await)?;
    }
    say("long", load_request(&parent.executor, &"x".repeat(1 << 20)).await)?;
    let module = parent.load().await?;
    let beside = module.command().grant("fetch").bootstrap(parent.host.clone()).spawn().await;
    say("the grant and a capability", beside.map(drop))?;
    calls::echo(&parent.executor, "still there").await?;
    Ok("each is an error".to_owned())
}

async fn load_request(executor: &executor::Client, content: &str) -> Result<(), ww_guest::capnp::Error> {
    Module::load_content(executor, content).await.map(drop)
}

fn say(what: &str, answer: Result<(), ww_guest::capnp::Error>) -> Result<(), Box<dyn std::error::Error>> {
    let error = answer.err().ok_or_else(|| format!("{what} is no error"))?;
    Ok(writeln!(io::stdout(), "{what}: {error}")?)
}

async fn show(mut child: Child) -> Result<Status, Box<dyn std::error::Error>> {
    show_all(&mut child).await
}

async fn show_all(child: &mut Child) -> Result<Status, Box<dyn std::error::Error>> {
    let mut output = child.stdout.take().ok_or("the child has no stdout")?;
    let mut errors = child.stderr.take().ok_or("the child has no stderr")?;
    let (mut out, mut err) = (ww_guest::stdout(), ww_guest::stderr());
    let shown = future::try_join(ww_guest::copy(&mut output, &mut out), ww_guest::copy(&mut errors, &mut err));
    let (shown, status) = future::join(shown, child.wait()).await;
    shown?;
    Ok(status?)
}
