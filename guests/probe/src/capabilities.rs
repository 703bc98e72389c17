//! Children that are handed something, or nothing, and what they can do with it.

use std::cell::RefCell;
use std::error::Error;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::io::{AsyncReadExt, AsyncWriteExt};
use ww_guest::capnp;
use ww_guest::capnp::capability::FromClientHook;
use ww_guest::peer_capnp::{byte_stream, executor, host, module, process};
use ww_guest::{Child, Method, Module, ModuleCommand, Status, restrict, revocable};

use crate::calls::{self, echo};
use crate::children::{Parent, stdin, stdout, wait_for_line};
use crate::measure::Times;
use crate::{Outcome, require};

/// The methods by their numbers in the schema.
pub(crate) const ID: u16 = 0;
const ADDRS: u16 = 1;
const EXECUTOR: u16 = 4;
const ECHO: u16 = 1;
const LOAD: u16 = 2;
const SPAWN: u16 = 0;

/// Runs a child and checks that it did what is good for it.
async fn ends_well(child: Child, promise: &str) -> Result<String, Box<dyn Error>> {
    let output = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    require(output.status.success(), format!("{promise}: {}\n{said}", output.status))?;
    io::stdout().write_all(&output.stdout)?;
    Ok(said)
}

pub(crate) async fn module_spawn(parent: &Parent) -> Outcome {
    let module = parent.load().await?;
    for round in 0..3 {
        let child = module.command().args(["args", &round.to_string()]).spawn().await?;
        ends_well(child, "a module can be started again").await?;
    }
    let mut child = module.command().arg("env").env("NAME", "value").spawn().await?;
    let mut line = String::new();
    stdout(&mut child)?.read_to_string(&mut line).await?;
    require(line == "NAME=value\n", "a child has the environment that it is given")?;
    // What the host gave to `Executor.load` is compiled once, so this is the same.
    parent.load().await?;
    Ok("a module was started".to_owned())
}

pub(crate) async fn handed_nothing(parent: &Parent) -> Outcome {
    let child = parent.load().await?.command().arg("has-nothing").spawn().await?;
    ends_well(child, "a child that is handed nothing has nothing").await?;
    Ok("each call is an error".to_owned())
}

/// The child of `handed-nothing`.
pub(crate) async fn has_nothing(host: &host::Client) -> Outcome {
    let calls = [
        ("id", host.id_request().send().promise.await.map(drop)),
        ("executor", host.executor_request().send().promise.await.map(drop)),
        ("executor.echo", echo_of(&calls::executor(host)).await),
    ];
    for (name, answer) in calls {
        let error = answer.err().ok_or_else(|| format!("{name} is no error"))?.to_string();
        require(error.contains("this cell was handed no capability"), format!("{name}: {error}"))?;
        writeln!(io::stdout(), "{name}: {error}")?;
    }
    Ok("nothing is there".to_owned())
}

async fn echo_of(executor: &executor::Client) -> Result<(), capnp::Error> {
    let mut request = executor.echo_request();
    request.get().set_message("hello");
    request.send().promise.await.map(drop)
}

pub(crate) async fn handed_host(parent: &Parent) -> Outcome {
    let child = parent.load().await?.command().arg("has-host").bootstrap(parent.host.clone()).spawn().await?;
    ends_well(child, "a child has the host that it is handed").await?;
    Ok("the child has its parent's host".to_owned())
}

/// The child of `handed-host`: uses it, and starts a child of its parent's.
pub(crate) async fn has_host(host: &host::Client) -> Outcome {
    host.id_request().send().promise.await?;
    echo(&calls::executor(host), "from the child").await?;
    Ok("the host is there".to_owned())
}

/// Restricts the host to its id, its executor, and what starting a child from a module takes, and looks what a child can do
/// with that.
pub(crate) async fn restricted(parent: &Parent) -> Outcome {
    let methods = [
        Method::of::<host::Client>(ID),
        Method::of::<host::Client>(EXECUTOR),
        Method::of::<executor::Client>(LOAD),
        Method::of::<module::Client>(SPAWN),
        Method::all::<process::Client>(),
        Method::all::<byte_stream::Client>(),
    ];
    let host = restrict(&parent.host, parent.host.clone(), &methods).await?;
    let mut child = parent.load().await?.command().arg("has-restricted").bootstrap(host).spawn().await?;
    let mut input = stdin(&mut child)?;
    input.write_all(parent.wasm()?).await?;
    input.close().await?;
    ends_well(child, "a restricted host is no more than that").await?;
    Ok("the child has no more than it was handed".to_owned())
}

/// The child of `restricted`, and its child in turn, which is handed the same host.
pub(crate) async fn has_restricted(host: &host::Client) -> Outcome {
    let mut wasm = Vec::new();
    ww_guest::stdin().read_to_end(&mut wasm).await?;
    require(!host.id_request().send().promise.await?.get()?.get_id()?.is_empty(), "what is listed is there")?;
    refused("a method", "Host.addrs", host.addrs_request().send().promise.await)?;
    refused("another", "Host.connect", host.connect_request().send().promise.await)?;
    refused("a method of a promise", "Executor.echo", echo_of(&calls::executor(host)).await)?;
    let executor = host.executor_request().send().promise.await?.get()?.get_executor()?;
    refused("a method of a result", "Executor.echo", echo_of(&executor).await)?;
    let mut run = executor.run_bytes_request();
    run.get().set_wasm(&wasm);
    refused("another way to start a child", "Executor.runBytes", run.send().promise.await)?;
    let own = restrict(host, host.clone(), &[Method::all::<host::Client>()]).await;
    refused("lifting the restriction", "Host.restrict", own)?;
    let as_another: process::Client = FromClientHook::new(host.client.hook.clone());
    let killed = as_another.kill_request().send().promise.await;
    require(killed.is_err(), "a host is no process, whatever it is called with")?;
    if std::env::args().any(|word| word == "last") {
        return Ok("the grandchild has no more".to_owned());
    }
    let module = Module::load(&executor, &wasm).await?;
    let mut child = module.command().args(["has-restricted", "last"]).bootstrap(host.clone()).spawn().await?;
    let mut input = stdin(&mut child)?;
    input.write_all(&wasm).await?;
    input.close().await?;
    ends_well(child, "handing it on adds nothing").await?;
    Ok("what is not listed is refused".to_owned())
}

/// An error unless the answer says that this method was not granted.
fn refused<T>(what: &str, method: &str, answer: Result<T, capnp::Error>) -> Result<(), Box<dyn Error>> {
    let error = answer.err().ok_or_else(|| format!("{what}: {method} was not refused"))?.to_string();
    require(error.contains(&format!("not permitted: {method} was not granted")), format!("{what}: {error}"))?;
    writeln!(io::stdout(), "{what}: {error}")?;
    Ok(())
}

/// Hands a child a host that can be taken back, and takes it back.
pub(crate) async fn revoked(parent: &Parent) -> Outcome {
    let (host, revoker) = revocable(&parent.host, parent.host.clone()).await?;
    let mut child = parent.load().await?.command().arg("has-revoked").bootstrap(host.clone()).spawn().await?;
    let (mut input, mut output) = (stdin(&mut child)?, futures::io::BufReader::new(stdout(&mut child)?));
    require(line(&mut output).await? == "using\n", "the child can use it")?;
    revoker.revoke_request().send().promise.await?;
    revoker.revoke_request().send().promise.await?;
    is_revoked("here", host.id_request().send().promise.await)?;
    input.write_all(b"revoked\n").await?;
    let mut said = String::new();
    output.read_to_string(&mut said).await?;
    io::stdout().write_all(said.as_bytes())?;
    require(child.wait().await?.success(), "each use afterwards is an error")?;
    // What it was made of is as it was.
    echo(&parent.executor, "still there").await?;
    Ok("nothing of it is left".to_owned())
}

async fn line(input: &mut (impl futures::io::AsyncBufRead + Unpin)) -> Result<String, Box<dyn Error>> {
    let mut line = String::new();
    futures::io::AsyncBufReadExt::read_line(input, &mut line).await?;
    Ok(line)
}

/// The child of `revoked`.
pub(crate) async fn has_revoked(host: &host::Client) -> Outcome {
    let executor = host.executor_request().send().promise.await?.get()?.get_executor()?;
    echo(&executor, "before").await?;
    let promised = calls::executor(host);
    writeln!(io::stdout(), "using")?;
    line(&mut ww_guest::stdin()).await?;
    is_revoked("a call", host.id_request().send().promise.await)?;
    is_revoked("a call on what it returned", echo_of(&executor).await)?;
    is_revoked("a call on what it promised", echo_of(&promised).await)?;
    is_revoked("a call on a new promise", echo_of(&calls::executor(host)).await)?;
    Ok("each use is an error".to_owned())
}

fn is_revoked<T>(what: &str, answer: Result<T, capnp::Error>) -> Result<(), Box<dyn Error>> {
    let error = answer.err().ok_or_else(|| format!("{what} was not refused"))?.to_string();
    require(error.contains("revoked: "), format!("{what}: {error}"))?;
    writeln!(io::stdout(), "{what}: revoked")?;
    Ok(())
}

/// Serves its child a capability of its own, which is restricted and then revoked.
pub(crate) async fn serves(parent: &Parent) -> Outcome {
    let asked = Rc::new(RefCell::new(Vec::new()));
    let own: host::Client = capnp_rpc::new_client(Served(asked.clone()));
    let listed = restrict(&parent.host, own, &[Method::of::<host::Client>(ID)]).await?;
    let child = parent.load().await?.command().arg("is-served").bootstrap(listed).spawn().await?;
    ends_well(child, "a child is served by its parent").await?;
    let asked = asked.take();
    require(asked == ["id"], format!("what is refused never arrives: {asked:?}"))?;
    Ok("the parent served its child".to_owned())
}

struct Served(Rc<RefCell<Vec<&'static str>>>);

impl host::Server for Served {
    async fn id(self: Rc<Self>, _: host::IdParams, mut results: host::IdResults) -> Result<(), capnp::Error> {
        self.0.borrow_mut().push("id");
        results.get().set_id("served");
        Ok(())
    }

    async fn addrs(self: Rc<Self>, _: host::AddrsParams, _: host::AddrsResults) -> Result<(), capnp::Error> {
        self.0.borrow_mut().push("addrs");
        Ok(())
    }
}

/// The child of `serves`.
pub(crate) async fn is_served(host: &host::Client) -> Outcome {
    require(host.id_request().send().promise.await?.get()?.get_id()? == "served", "the parent answers")?;
    refused("a method", "Host.addrs", host.addrs_request().send().promise.await)?;
    Ok("the parent is there".to_owned())
}

/// Asks for children with limits and grants, some of which its own do not allow.
pub(crate) async fn limits_of_child(parent: &Parent) -> Outcome {
    let module = parent.load().await?;
    for (name, value) in [
        ("memory", "512GiB"),
        ("memory", "2GiB"),
        ("depth", "9"),
        ("children", "257"),
        ("speed", "1"),
        ("memory", "much"),
    ] {
        let error = module.command().limit(name, value).spawn().await.err().ok_or("a limit was exceeded")?;
        writeln!(io::stdout(), "{name}={value}: {error}")?;
    }
    for grant in
        ["network", "network:127.0.0.0/8", "fetch", "connect", "env:HOME", "mount:/:/", "terminal", "everything"]
    {
        let error = module.command().grant(grant).spawn().await.err().ok_or("a grant was exceeded")?;
        writeln!(io::stdout(), "{grant}: {error}")?;
    }
    let spun = status_of(module.command().arg("spin").limit("cpu-time", "50ms")).await?;
    require(spun == Status::Limit { name: "cpu-time".into(), value: "50ms".into() }, format!("it spins: {spun}"))?;
    let slept = status_of(module.command().arg("sleep-forever").limit("wall-time", "50ms")).await?;
    require(slept == Status::Limit { name: "wall-time".into(), value: "50ms".into() }, format!("it sleeps: {slept}"))?;
    let small = status_of(module.command().args(["allocate", "16"]).limit("memory", "16MiB")).await?;
    require(small == Status::Code(1), format!("it wants too much: {small}"))?;
    let large = status_of(module.command().args(["allocate", "16"]).limit("memory", "64MiB")).await?;
    require(large == Status::Code(0), format!("it has enough: {large}"))?;
    echo(&parent.executor, "still there").await?;
    Ok("a child has no more than its parent".to_owned())
}

async fn status_of(command: &ModuleCommand<'_>) -> Result<Status, capnp::Error> {
    command.spawn().await?.wait().await
}

pub(crate) async fn usage(parent: &Parent) -> Outcome {
    let module = parent.load().await?;
    let mut child = module.command().arg("spin").spawn().await?;
    wait_for_line(&mut child).await?;
    let start = Instant::now();
    let mut before = child.usage().await?;
    require(before.memory_bytes > 0, "it has a memory")?;
    for _ in 0..3 {
        // It gives back its processor each millisecond, so that its time can be seen to go by.
        let mut now = child.usage().await?;
        while now.cpu_time <= before.cpu_time {
            require(start.elapsed() < Duration::from_secs(60), "the time of a child that spins goes by")?;
            now = child.usage().await?;
        }
        before = now;
    }
    child.kill().await?;
    let after = child.usage().await?;
    require(after.memory_bytes == 0, "what has ended takes no memory")?;
    require(after.memory_peak_bytes >= before.memory_bytes, "the most that it ever took is known")?;
    require(after.cpu_time >= before.cpu_time, "so is its time")?;
    Ok("usage was told".to_owned())
}

pub(crate) async fn null_stdio(parent: &Parent) -> Outcome {
    let module = parent.load().await?;
    let mut child = module.command().arg("cat").null_stdin().spawn().await?;
    let mut said = Vec::new();
    stdout(&mut child)?.read_to_end(&mut said).await?;
    require(said.is_empty() && child.wait().await?.success(), "a null input is at its end")?;
    let mut flood = module.command();
    let mut child = flood.args(["flood-stdout", "1000000"]).null_stdout().null_stderr().spawn().await?;
    require(child.wait().await?.success(), "a null output takes everything")?;
    stdout(&mut child)?.read_to_end(&mut said).await?;
    require(said.is_empty(), "and gives nothing")?;
    Ok("null is null".to_owned())
}

/// Times from a module to the first byte, like `spawn-time`.
/// Times children from the call that starts them to the first byte of their stdout: that of what they read, where they are
/// given something, and what they write by themselves otherwise.
pub(crate) async fn module_time(parent: &Parent, count: usize, input: &[u8], args: &[&str]) -> Outcome {
    let module = parent.load().await?;
    let mut times = Times::default();
    for _ in 0..count {
        let start = Instant::now();
        let mut command = module.command();
        let mut child = command.args(args.iter().copied()).bootstrap(parent.host.clone()).spawn().await?;
        let mut output = stdout(&mut child)?;
        if !input.is_empty() {
            let mut stdin = stdin(&mut child)?;
            stdin.write_all(input).await?;
            stdin.close().await?;
        }
        output.read_exact(&mut [0]).await?;
        times.add_since(start);
        require(child.wait().await?.success(), "the child ends well")?;
    }
    times.print("spawn to first byte")?;
    Ok(format!("{count} children"))
}

/// Echoes through a restricted executor, to compare with `roundtrips`.
pub(crate) async fn restricted_roundtrips(host: &host::Client, count: usize) -> Outcome {
    let methods = [Method::of::<executor::Client>(ECHO), Method::of::<host::Client>(ADDRS)];
    let executor = restrict(host, calls::executor(host), &methods).await?;
    echo(&executor, "warm").await?;
    let mut times = Times::default();
    for number in 0..count {
        times.add_since(calls::timed_echo(&executor, number).await?);
    }
    times.print("restricted echo")?;
    Ok(format!("{count} echoes"))
}
