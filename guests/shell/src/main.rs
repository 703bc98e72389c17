//! An interactive prompt over the capabilities of a cell.
//!
//! Reads commands from stdin, one in a line; words are split and quoted as in a POSIX shell, and `#` begins a comment.
//! `help` lists the commands. Editing a line is left to the terminal. Where stdin is no terminal there is neither a prompt
//! nor a greeting, so that a script can be piped in; and none is one that the shell is not given (`ww run shell --grant terminal`).
//!
//! As in `sh`, each command has a status: 0, 1 where it failed, 2 where it was used wrongly, 127 where there is no such
//! command, and for `run` what the child exited with, 134 for a trap, 137 where it was killed. At the end of stdin, and
//! with `exit` alone, the shell exits with the status of the last command.
//!
//! A child that is started with `run` finds its stdin at its end, whether or not the shell's stdin is a terminal, so it
//! takes nothing from the commands that follow. With `run -i` it gets the shell's stdin while it runs, as with
//! `docker run -i`. What the child's pipe has accepted by the time the child ends, at most 64 KiB beyond what the child
//! has read, is lost; everything after that is read as commands again. At a terminal, ending the input (Ctrl-D) ends that of
//! the child only.

mod commands;
mod escape;
mod run;

use std::error::Error;
use std::io::IsTerminal;

use futures::io::{AsyncBufReadExt, AsyncWriteExt};
use ww_guest::peer_capnp::{executor, host};
use ww_guest::{ExitCode, StreamReader, StreamWriter};

const PROMPT: &str = "ww> ";

/// Printed at the start, where there is somebody to read it.
const GREETING_PATH: &str = "/etc/motd";

/// The status of a command that was used wrongly.
const USAGE: u8 = 2;
/// The status of a command that does not exist.
const NOT_FOUND: u8 = 127;

fn main() {
    ww_guest::run(shell)
}

async fn shell(host: host::Client) -> Result<ExitCode, Box<dyn Error>> {
    let mut shell = Shell::start(host).await?;
    if let Some(argument) = std::env::args().nth(1) {
        shell.complain(&format!("it takes no arguments, but has {:?}; commands come from stdin", argument)).await?;
        return Ok(ExitCode(USAGE));
    }
    shell.greet().await?;
    while let Some(line) = shell.read_line().await? {
        if let Next::Exit(code) = shell.obey(&line).await? {
            return Ok(ExitCode(code));
        }
    }
    Ok(ExitCode(shell.status))
}

/// The capabilities and streams of the shell, and how the last command ended.
struct Shell {
    host: host::Client,
    executor: executor::Client,
    stdin: StreamReader,
    stdout: StreamWriter,
    stderr: StreamWriter,
    /// Whether somebody types the commands.
    interactive: bool,
    status: u8,
}

/// What comes after a command.
enum Next {
    Command,
    Exit(u8),
}

impl Shell {
    async fn start(host: host::Client) -> Result<Self, Box<dyn Error>> {
        let executor = host.executor_request().send().promise.await?.get()?.get_executor()?;
        Ok(Self {
            host,
            executor,
            stdin: ww_guest::stdin(),
            stdout: ww_guest::stdout(),
            stderr: ww_guest::stderr(),
            interactive: std::io::stdin().is_terminal(),
            status: 0,
        })
    }

    async fn greet(&mut self) -> Result<(), Box<dyn Error>> {
        if self.interactive
            && let Ok(greeting) = std::fs::read_to_string(GREETING_PATH)
        {
            self.stdout.write_all(escape::lines(&greeting).as_bytes()).await?;
        }
        Ok(())
    }

    /// The next line, as it was typed; `None` at the end of stdin.
    async fn read_line(&mut self) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
        if self.interactive {
            self.stdout.write_all(PROMPT.as_bytes()).await?;
            self.stdout.flush().await?;
        }
        let mut line = Vec::new();
        let read_bytes = self.stdin.read_until(b'\n', &mut line).await?;
        Ok((read_bytes > 0).then_some(line))
    }

    /// Does what the line says, and sets the status. Fails only where the shell's own streams do.
    async fn obey(&mut self, line: &[u8]) -> Result<Next, Box<dyn Error>> {
        let Some(words) = std::str::from_utf8(line).ok().and_then(shlex::split) else {
            self.complain("a quote is not closed, or the line is not UTF-8").await?;
            self.status = USAGE;
            return Ok(Next::Command);
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] => {}
            ["exit"] => return Ok(Next::Exit(self.status)),
            ["exit", code] if let Ok(code) = code.parse() => return Ok(Next::Exit(code)),
            [name, args @ ..] => self.status = self.command(name, args).await?,
        }
        Ok(Next::Command)
    }

    /// Runs a command, shows what it has to say, and returns its status.
    async fn command(&mut self, name: &str, args: &[&str]) -> Result<u8, Box<dyn Error>> {
        match commands::call(self, name, args).await {
            Ok(reply) => {
                self.stdout.write_all(&reply.output).await?;
                self.stdout.flush().await?;
                Ok(reply.status)
            }
            Err(failure) => {
                self.complain(&format!("{}: {failure}", escape::text(name))).await?;
                Ok(failure.status())
            }
        }
    }

    /// Says on stderr what is wrong.
    async fn complain(&mut self, problem: &str) -> Result<(), Box<dyn Error>> {
        self.stderr.write_all(format!("shell: {problem}\n").as_bytes()).await?;
        Ok(self.stderr.flush().await?)
    }
}
