//! Children without end.

use futures::io::{AsyncReadExt, AsyncWriteExt};
use ww_guest::peer_capnp::{executor, host};
use ww_guest::{Child, Module};

use crate::Outcome;

fn executor(host: &host::Client) -> executor::Client {
    host.executor_request().send().pipeline.get_executor()
}

/// This program, from stdin.
async fn load(host: &host::Client) -> Result<(Vec<u8>, Module), Box<dyn std::error::Error>> {
    let mut wasm = Vec::new();
    ww_guest::stdin().read_to_end(&mut wasm).await?;
    let module = Module::load(&executor(host), &wasm).await?;
    Ok((wasm, module))
}

/// A child that does the same, with a host of its own, and waits for the end of it.
pub(crate) async fn chain(host: &host::Client) -> Outcome {
    let mut wasm = Vec::new();
    ww_guest::stdin().read_to_end(&mut wasm).await?;
    let mut command = ww_guest::Command::new(&wasm);
    let mut child = command.arg("fork-chain").spawn(&executor(host)).await?;
    let mut input = child.stdin.take().ok_or("there is no stdin")?;
    input.write_all(&wasm).await?;
    input.close().await?;
    let output = child.wait_with_output().await?;
    Err(String::from_utf8_lossy(&output.stdout).trim_end().trim_start_matches("refused: ").into())
}

/// As many as there can be, and then some more.
pub(crate) async fn fan(host: &host::Client) -> Outcome {
    let (_, module) = load(host).await?;
    let mut children = Vec::new();
    let error = loop {
        match module.command().arg("sleep").bootstrap(host.clone()).spawn().await {
            Ok(child) => children.push(child),
            Err(error) => break error,
        }
    };
    for _ in 0..1000 {
        if module.command().arg("sleep").spawn().await.is_ok() {
            return Ok("there is room again".into());
        }
    }
    Err(format!("after some children: {error}").into())
}

/// Children that have written something, and have ended, and are kept.
pub(crate) async fn zombies(host: &host::Client) -> Outcome {
    let (_, module) = load(host).await?;
    let mut kept: Vec<Child> = Vec::new();
    for _ in 0..5000 {
        match module.command().arg("say-much").spawn().await {
            Ok(child) => {
                child.wait().await?;
                kept.push(child);
            }
            Err(error) => return Err(format!("after some children: {error}").into()),
        }
    }
    Ok(format!("{} ended children are kept", kept.len()))
}

/// Children with more arguments than anybody has.
pub(crate) async fn arguments(host: &host::Client) -> Outcome {
    let (_, module) = load(host).await?;
    let mut kept: Vec<Child> = Vec::new();
    let long = "x".repeat(8 << 20);
    for _ in 0..64 {
        let mut command = module.command();
        match command.args(["sleep", &long, &long, &long]).env("NAME", &long).spawn().await {
            Ok(child) => kept.push(child),
            Err(error) => return Err(format!("after {} children: {error}", kept.len()).into()),
        }
    }
    Ok(format!("{} children were told everything", kept.len()))
}

/// Programs that take little to say and much to have: this one, with a core module behind it that has nothing but globals, and a
/// number that makes each another one.
pub(crate) async fn programs(host: &host::Client) -> Outcome {
    const GLOBALS: usize = 300_000;
    let mut wasm = Vec::new();
    ww_guest::stdin().read_to_end(&mut wasm).await?;
    let mut globals = number(GLOBALS);
    globals.extend([0x7f, 0, 0x41, 0, 0x0b].repeat(GLOBALS));
    let module = [b"\0asm\x01\0\0\0".to_vec(), section(6, &globals)].concat();
    wasm.extend(section(1, &module));
    let mut kept = Vec::new();
    for nonce in 0..64_u8 {
        let other = [wasm.clone(), section(0, &[1, b'n', nonce])].concat();
        match Module::load(&executor(host), &other).await {
            Ok(module) => kept.push(module),
            Err(error) => return Err(format!("after some programs: {error}").into()),
        }
    }
    Ok(format!("{} programs are loaded", kept.len()))
}

/// A section of a component or a module.
fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [vec![id], number(content.len()), content.to_vec()].concat()
}

/// A number in LEB128.
fn number(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Ends while calls of its own are on their way, and while it is itself called.
pub(crate) async fn exit_inside(host: &host::Client) -> Outcome {
    let executor = executor(host);
    for number in 0..1000 {
        let mut request = executor.echo_request();
        request.get().set_message(format!("{number}"));
        let sent = request.send().promise;
        ww_guest::spawn(async move {
            if number == 500 {
                ww_guest::exit(7);
            }
            drop(sent.await);
        });
    }
    futures::future::pending::<()>().await;
    Ok(String::new())
}
