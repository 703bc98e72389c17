//! `wasi:io`, and the standard streams.

use std::io::{self, Write};

use wasip2::cli::{stdin::get_stdin, stdout::get_stdout};
use wasip2::filesystem::types::{ErrorCode, filesystem_error_code};
use wasip2::io::poll::poll;
use wasip2::io::streams::StreamError;

use crate::{Outcome, require};

/// One pollable may be there several times, and so may others of the same stream. Stdin has something, or is at its end.
pub(crate) fn poll_same() -> Outcome {
    let stdin = get_stdin();
    let (first, second) = (stdin.subscribe(), stdin.subscribe());
    let ready = poll(&[&first, &second, &first, &second]);
    require(ready == [0, 2, 1, 3] || ready == [0, 1, 2, 3] || ready == [1, 3, 0, 2], "each that is ready is told")
}

pub(crate) fn poll_empty() {
    poll(&[]);
}

/// Pollables can be used again, and go before their streams.
pub(crate) fn poll_stream() -> Outcome {
    let stdin = get_stdin();
    let pollable = stdin.subscribe();
    pollable.block();
    require(pollable.ready(), "what was waited for is ready")?;
    drop(pollable);
    drop(stdin);
    let stdout = get_stdout();
    let pollable = stdout.subscribe();
    for _ in 0..10 {
        pollable.block();
        require(pollable.ready(), "what was waited for is ready")?;
        let permit = stdout.check_write()?;
        require(permit >= 50, "there is room for some bytes")?;
        stdout.write(&[b'a'; 50])?;
    }
    stdout.blocking_write_and_flush(b"\n")?;
    Ok(())
}

pub(crate) fn drop_stream_first() {
    let stdin = get_stdin();
    let pollable = stdin.subscribe();
    pollable.block();
    drop(stdin);
    drop(pollable);
}

pub(crate) fn read_nothing() -> Outcome {
    let stdin = get_stdin();
    require(stdin.read(0)?.is_empty() && stdin.blocking_read(0)?.is_empty(), "a read of nothing gives nothing")?;
    require(stdin.blocking_skip(0)? == 0, "nothing is skipped")
}

/// Stdin is a directory, which is what the error says.
pub(crate) fn read_error() -> Outcome {
    let stdin = get_stdin();
    stdin.subscribe().block();
    match stdin.blocking_read(1024) {
        Err(StreamError::LastOperationFailed(error)) => {
            let code = filesystem_error_code(&error);
            require(code == Some(ErrorCode::IsDirectory), "the reason is said")
        }
        other => Err(format!("there is an error, and not {other:?}").into()),
    }
}

/// What is flushed is there before the input.
pub(crate) fn prompt() -> Outcome {
    write!(io::stdout(), "> ")?;
    io::stdout().flush()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(write!(io::stdout(), "{line:?}")?)
}

/// Nobody reads: that is the end of the stream, and no failure of it.
pub(crate) fn closed_stdout() -> Outcome {
    let stdout = get_stdout();
    loop {
        match stdout.blocking_write_and_flush(&[b'x'; 4096]) {
            Ok(()) => {}
            Err(StreamError::Closed) => return Ok(writeln!(io::stderr(), "closed")?),
            Err(error) => return Err(error.into()),
        }
    }
}

pub(crate) fn much_stdout(text: &str, count: usize) -> Outcome {
    let stdout = get_stdout();
    for _ in 0..count {
        for piece in text.as_bytes().chunks(4096) {
            stdout.blocking_write_and_flush(piece)?;
        }
    }
    Ok(())
}

pub(crate) fn splice() -> Outcome {
    writeln!(io::stdout(), "before")?;
    let (stdin, stdout) = (get_stdin(), get_stdout());
    let mut bytes = 0;
    loop {
        match stdout.blocking_splice(&stdin, 4096) {
            Ok(moved) => bytes += moved,
            Err(StreamError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    stdout.blocking_flush()?;
    drop((stdin, stdout));
    Ok(writeln!(io::stdout(), "\nafter {bytes}")?)
}

/// At most 4096 bytes are written at once and waited for.
pub(crate) fn write_too_much() {
    let _ = get_stdout().blocking_write_and_flush(&[b'x'; 4097]);
}

pub(crate) fn zeroes_too_many() {
    let _ = get_stdout().blocking_write_zeroes_and_flush(4097);
}
