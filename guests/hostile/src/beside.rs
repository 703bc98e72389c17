//! Those who are attacked: they call their host all the time, and measure how long it takes.

use std::cell::Cell;
use std::error::Error;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::io::{AsyncReadExt, AsyncWriteExt};
use ww_guest::peer_capnp::{executor, host};
use ww_guest::{ByteReader, Child, Command, Module};

use crate::Outcome;

/// An attack, and what it is made by.
pub(crate) struct Plan<'a> {
    /// The component that attacks.
    pub(crate) attacker: &'a str,
    /// The component that is its neighbour: this program.
    pub(crate) neighbour: &'a str,
    /// Whether the attackers have a host of their own, or are handed this one's.
    pub(crate) has_own_host: bool,
    /// After which time they are killed.
    pub(crate) time: Duration,
    /// Their limits, where they are handed a host.
    pub(crate) limits: &'a [&'a str],
    /// Their arguments.
    pub(crate) attack: &'a [&'a str],
}

/// How many attackers there are: one for each of the threads that a small host has, so that everybody has one beside it.
const ATTACKERS: usize = 2;

fn executor(host: &host::Client) -> executor::Client {
    host.executor_request().send().pipeline.get_executor()
}

/// One call, which must come back as it was sent.
async fn ping(executor: &executor::Client, number: usize) -> Result<(), Box<dyn Error>> {
    let message = number.to_string();
    let mut request = executor.echo_request();
    request.get().set_message(&message);
    let response = request.send().promise.await?;
    match response.get()?.get_response()?.to_str()? == message {
        true => Ok(()),
        false => Err("an echo came back as another".into()),
    }
}

#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    async fn ping(&mut self, executor: &executor::Client) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        ping(executor, self.0.len()).await?;
        self.0.push(start.elapsed());
        Ok(())
    }

    fn text(mut self) -> String {
        self.0.sort_unstable();
        let at = |per_mille: usize| self.0[(self.0.len() - 1) * per_mille / 1000].as_micros();
        format!("{} calls, p50 {} p99 {} max {} us", self.0.len(), at(500), at(990), at(1000))
    }
}

/// Calls its host until the end of stdin.
pub(crate) async fn neighbour(host: &host::Client) -> Outcome {
    let ended = Rc::new(Cell::new(false));
    let end = ended.clone();
    ww_guest::spawn(async move {
        let _ = ww_guest::stdin().read_to_end(&mut Vec::new()).await;
        end.set(true);
    });
    let executor = executor(host);
    let mut times = Times::default();
    while !ended.get() || times.0.is_empty() {
        times.ping(&executor).await?;
    }
    Ok(times.text())
}

async fn start_neighbour(executor: &executor::Client, wasm: &[u8]) -> Result<Child, Box<dyn Error>> {
    Ok(Command::new(wasm).arg("neighbour").spawn(executor).await?)
}

/// What the neighbour has to say at its end, which must be a good one.
async fn end_neighbour(child: Child) -> Outcome {
    let output = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(format!("the neighbour noticed: {}: {said}", output.status).into()),
    }
}

/// Reads a stream to its end, and returns how it began.
async fn beginning(mut stream: ByteReader) -> String {
    let mut kept = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    while let Ok(size @ 1..) = stream.read(&mut piece).await {
        let room = KEPT_BYTES - kept.len();
        kept.extend_from_slice(&piece[..size.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

const KEPT_BYTES: usize = 4096;

/// An attacker's end and its first words, as one text.
async fn watch(mut child: Child, stdin: Option<Vec<u8>>, killed: Rc<Cell<bool>>) -> Outcome {
    let (Some(mut input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err("a child has no streams".into());
    };
    let feed = async move {
        // It need not read it.
        if let Some(bytes) = stdin {
            let _ = input.write_all(&bytes).await;
        }
        let _ = input.close().await;
    };
    let ((), said, complained, status) = futures::join!(feed, beginning(output), beginning(errors), child.wait());
    let status = status?.to_string();
    killed.set(true);
    Ok(format!("{} — {} {}", in_one_line(&status), in_one_line(&said), in_one_line(&complained)))
}

/// The first and the last lines of a text, which has a backtrace in the middle, perhaps.
fn in_one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let shown = match lines.as_slice() {
        [first, second, .., last] => format!("{first} | {second} | … | {last}"),
        lines => lines.join(" | "),
    };
    shown.escape_debug().to_string()
}

/// Says everything, and waits for the end of stdin, so that somebody can look at the host as it is then.
async fn say(lines: Vec<String>) -> Outcome {
    writeln!(io::stdout(), "{}", lines.join("\n"))?;
    ww_guest::stdin().read_to_end(&mut Vec::new()).await?;
    Ok("end".into())
}

pub(crate) async fn beside(host: &host::Client, plan: &Plan<'_>) -> Outcome {
    let executor = executor(host);
    let read = |path: &str| std::fs::read(path).map_err(|error| format!("{path}: {error}"));
    let (attacker, neighbour_wasm) = (read(plan.attacker)?, read(plan.neighbour)?);
    let module = Module::load(&executor, &attacker).await?;
    let neighbour = start_neighbour(&executor, &neighbour_wasm).await?;
    let mut times = Times::default();
    for _ in 0..100 {
        ping(&executor, 0).await?;
    }
    let mut watched = Vec::new();
    let mut attackers = Vec::new();
    for _ in 0..ATTACKERS {
        let child = if plan.has_own_host {
            Command::new(&attacker).args(plan.attack.iter().copied()).spawn(&executor).await?
        } else {
            let mut command = module.command();
            command.args(plan.attack.iter().copied()).bootstrap(host.clone());
            for limit in plan.limits {
                let (name, value) = limit.split_once('=').ok_or("a limit has no value")?;
                command.limit(name, value);
            }
            command.spawn().await?
        };
        let stdin =
            plan.attack.first().is_some_and(|attack| attack.starts_with("fork")).then(|| neighbour_wasm.clone());
        let ended = Rc::new(Cell::new(false));
        let (sender, receiver) = futures::channel::oneshot::channel();
        attackers.push((child.process.clone(), ended.clone()));
        watched.push(receiver);
        ww_guest::spawn(async move {
            let outcome = watch(child, stdin, ended.clone()).await.unwrap_or_else(|error| format!("error: {error}"));
            ended.set(true);
            let _ = sender.send(outcome);
        });
    }
    let start = Instant::now();
    while start.elapsed() < plan.time && attackers.iter().any(|(_, ended)| !ended.get()) {
        times.ping(&executor).await?;
    }
    for (process, _) in &attackers {
        process.kill_request().send().promise.await?;
    }
    let mut said = Vec::new();
    for outcome in watched {
        said.push(format!("attacker: {}", outcome.await?));
    }
    // Afterwards all is as before: others can be started, and the host answers.
    let mut afterwards = Command::new(&neighbour_wasm).arg("idle").spawn(&executor).await?;
    drop(afterwards.stdin.take());
    let afterwards = afterwards.wait_with_output().await?;
    if !afterwards.status.success() {
        return Err(format!("no child can be started afterwards: {}", afterwards.status).into());
    }
    times.ping(&executor).await?;
    said.push(format!("parent: {}", times.text()));
    said.push(format!("neighbour: {}", end_neighbour(neighbour).await?));
    said.push("over".into());
    say(said).await
}

/// Attacks by itself, beside two children.
pub(crate) async fn among(
    host: &host::Client,
    neighbour: &str,
    time: Duration,
    attack: impl FnOnce() -> Outcome,
) -> Outcome {
    let executor = executor(host);
    let wasm = std::fs::read(neighbour).map_err(|error| format!("{neighbour}: {error}"))?;
    let neighbours = [start_neighbour(&executor, &wasm).await?, start_neighbour(&executor, &wasm).await?];
    let start = Instant::now();
    let outcome = attack().unwrap_or_else(|error| format!("refused: {error}"));
    let mut times = Times::default();
    while start.elapsed() < time || times.0.is_empty() {
        times.ping(&executor).await?;
    }
    let mut said = vec![format!("attacker: exit code 0 — {outcome}")];
    for neighbour in neighbours {
        said.push(format!("neighbour: {}", end_neighbour(neighbour).await?));
    }
    said.push("over".into());
    say(said).await
}
