//! Running a component of the image.

use std::fs;
use std::pin::pin;

use futures::future::{self, Either};
use futures::io::AsyncWriteExt;
use ww_guest::{ByteReader, ByteWriter, Child, Command, Status, StreamReader, StreamWriter};

use crate::commands::{Failure, Reply, at, in_image};
use crate::{Shell, escape};

/// What the child reads.
pub(crate) enum Input {
    /// Nothing.
    Empty,
    /// What the shell would read.
    Shell,
}

/// Starts the component at `path` and shows what it writes until it has ended.
pub(crate) async fn run(shell: &mut Shell, path: &str, args: &[&str], input: Input) -> Result<Reply, Failure> {
    let wasm = fs::read(in_image(path)).map_err(at(path))?;
    let child = Command::new(&wasm).args(args.iter().copied()).spawn(&shell.executor).await?;
    let status = attend(shell, child, input).await?;
    if !status.success() {
        shell.complain(&format!("{}: {}", escape::text(path), escape::lines(&status.to_string()))).await?;
    }
    Ok(Reply { output: Vec::new(), status: status.shell_code() })
}

/// Connects the child's streams with those of the shell until the child has ended.
async fn attend(shell: &mut Shell, mut child: Child, input: Input) -> Result<Status, Failure> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let ending = async {
        let status = child.wait();
        future::join3(show(stdout, &mut shell.stdout), show(stderr, &mut shell.stderr), status).await.2
    };
    let source = match input {
        Input::Empty => None,
        Input::Shell => Some(&mut shell.stdin),
    };
    // The end of the child ends the feeding, too: what is not in the child's pipe by then stays with the shell.
    let (status, source_ended) = match future::select(pin!(ending), pin!(feed(source, stdin))).await {
        Either::Left((status, _)) => (status, false),
        Either::Right((source_ended, ending)) => (ending.await, source_ended),
    };
    if source_ended && shell.interactive {
        // Who ends the input at a terminal means that of the child. The terminal has more, for a new stream.
        shell.stdin = ww_guest::stdin();
    }
    Ok(status?)
}

/// Copies what the child writes. When the shell cannot write it, the child learns that nobody reads it.
async fn show(output: Option<ByteReader>, target: &mut StreamWriter) {
    let Some(mut output) = output else { return };
    if ww_guest::copy(&mut output, target).await.is_err() {
        // Fails only with the session, and then waiting for the child fails as well.
        let _ = output.close().await;
    }
}

/// Copies the source to the child, then its end. A child that does not read is no failure. Says whether the source has
/// ended.
async fn feed(source: Option<&mut StreamReader>, input: Option<ByteWriter>) -> bool {
    let Some(mut input) = input else { return false };
    let source_ended = match source {
        Some(source) => ww_guest::copy(source, &mut input).await.is_ok(),
        None => false,
    };
    // Fails where the child has not read everything.
    let _ = input.close().await;
    source_ended
}
