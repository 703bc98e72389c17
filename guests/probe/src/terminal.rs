//! The terminal of whoever runs the cell.

use std::io::{self, Write};

use futures::io::AsyncReadExt;
use ww_guest::peer_capnp::{host, terminal};
use ww_guest::{Method, Terminal, restrict};

use crate::children::Parent;
use crate::{Outcome, Usage, ending, require};

/// The number of `Host.terminal` in the schema.
const TERMINAL: u16 = 7;

pub(crate) fn is_terminal() -> Outcome {
    let streams = [
        ("stdin", wasip2::cli::terminal_stdin::get_terminal_stdin().is_some()),
        ("stdout", wasip2::cli::terminal_stdout::get_terminal_stdout().is_some()),
        ("stderr", wasip2::cli::terminal_stderr::get_terminal_stderr().is_some()),
    ];
    for (name, is_terminal) in streams {
        writeln!(io::stdout(), "{name}: {is_terminal}")?;
    }
    Ok(String::new())
}

/// Writes the bytes that these hexadecimal digits are.
pub(crate) fn write_bytes(mut stream: impl Write, digits: &str) -> Outcome {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    stream.write_all(&bytes.ok_or(Usage)?)?;
    stream.flush()?;
    Ok(String::new())
}

/// Says how large a standard stream is: how much can be written before anybody has read.
pub(crate) fn room() -> Outcome {
    let room = wasip2::cli::stdout::get_stdout().check_write()?;
    writeln!(io::stderr(), "room: {room}")?;
    Ok(String::new())
}

pub(crate) async fn size(host: &host::Client) -> Outcome {
    let size = Terminal::of(host).await?.size().await?;
    Ok(format!("{} columns, {} rows", size.columns, size.rows))
}

pub(crate) async fn resized(host: &host::Client) -> Outcome {
    let terminal = Terminal::of(host).await?;
    let before = terminal.size().await?;
    require(terminal.resized(Default::default()).await? == before, "a size that is another already is told at once")?;
    writeln!(io::stdout(), "before: {} columns, {} rows", before.columns, before.rows)?;
    let after = terminal.resized(before).await?;
    Ok(format!("{} columns, {} rows", after.columns, after.rows))
}

/// Sets raw mode, hides the cursor, says so, waits for a byte, and ends so.
pub(crate) async fn raw(host: &host::Client, end: &str) -> Outcome {
    let terminal = Terminal::of(host).await?;
    terminal.set_raw(true).await?;
    // Once more is no error.
    terminal.set_raw(true).await?;
    write!(io::stdout(), "\x1b[?25lraw\r\n")?;
    let mut byte = [0];
    ww_guest::stdin().read_exact(&mut byte).await?;
    write!(io::stdout(), "got {}\r\n", byte[0])?;
    match end {
        "exit" => Ok(String::new()),
        "trap" => ending::trap(),
        "spin" => ending::spin(),
        "sleep" => ending::sleep_forever(),
        "off" => {
            terminal.set_raw(false).await?;
            writeln!(io::stdout(), "cooked")?;
            ww_guest::stdin().read_exact(&mut byte).await?;
            Ok(String::new())
        }
        _ => Err(Usage.into()),
    }
}

/// Tries to set raw mode, and goes on.
pub(crate) async fn try_raw(host: &host::Client) -> Outcome {
    let terminal = Terminal::of(host).await?;
    match terminal.set_raw(true).await {
        Ok(()) => Ok("raw".to_owned()),
        Err(error) => Ok(format!("refused: {error}")),
    }
}

pub(crate) async fn without_terminal(host: &host::Client) -> Outcome {
    let error = Terminal::of(host).await.err().ok_or("the terminal is there")?;
    Ok(error.to_string())
}

/// Starts children that are handed the terminal, or not.
pub(crate) async fn hands_on(parent: &Parent) -> Outcome {
    let module = parent.load().await?;
    let less = restrict(&parent.host, parent.host.clone(), &[Method::of::<host::Client>(0)]).await?;
    let only_size = [Method::of::<host::Client>(TERMINAL), Method::of::<terminal::Client>(0)];
    let only_size = restrict(&parent.host, parent.host.clone(), &only_size).await?;
    for (name, behaviour, handed) in [
        ("handed", "terminal-size", parent.host.clone()),
        ("restricted", "without-terminal", less),
        ("size only", "terminal-size", only_size.clone()),
        ("no mode", "terminal-try-raw", only_size),
    ] {
        let output = module.command().arg(behaviour).bootstrap(handed).spawn().await?.wait_with_output().await?;
        write!(io::stdout(), "{name}: {}", String::from_utf8_lossy(&output.stdout))?;
        require(output.status.success(), String::from_utf8_lossy(&output.stderr))?;
    }
    let mut child = ww_guest::Command::new(parent.wasm()?);
    let output = child.arg("without-terminal").spawn(&parent.executor).await?.wait_with_output().await?;
    write!(io::stdout(), "a host of its own: {}", String::from_utf8_lossy(&output.stdout))?;
    Ok("a child has what it is handed".to_owned())
}

/// Starts children whose standard streams hold as much as is said, or as this one's.
pub(crate) async fn stdio_of_child(parent: &Parent) -> Outcome {
    let module = parent.load().await?;
    for value in [None, Some("4KiB"), Some("16KiB")] {
        let mut command = module.command();
        command.arg("room");
        if let Some(value) = value {
            command.limit("stdio", value);
        }
        match command.spawn().await {
            Ok(child) => {
                let output = child.wait_with_output().await?;
                write!(io::stdout(), "{value:?}: {}", String::from_utf8_lossy(&output.stderr))?;
            }
            Err(error) => writeln!(io::stdout(), "{value:?}: {error}")?,
        }
    }
    Ok("streams hold what they may".to_owned())
}
