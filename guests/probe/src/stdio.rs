//! The standard streams, the arguments and the environment.

use std::io::{self, ErrorKind, Write};

use futures::io::AsyncWriteExt;

use crate::{Outcome, number, require};

/// What a flood consists of.
const LINE: &[u8; 64] = b"the quick brown fox jumps over the lazy dog, again and again...\n";

pub(crate) fn flood(mut stream: impl Write, bytes: Option<&&str>) -> Outcome {
    let mut left: u64 = bytes.map_or(Ok(u64::MAX), |bytes| number(bytes))?;
    let block = LINE.repeat(64);
    while left > 0 {
        let size = left.min(block.len() as u64);
        match stream.write_all(&block[..size as usize]).and_then(|()| stream.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            outcome => outcome?,
        }
        left -= size;
    }
    Ok(String::new())
}

pub(crate) fn cat() -> Outcome {
    io::copy(&mut io::stdin(), &mut io::stdout())?;
    io::stdout().flush()?;
    Ok(String::new())
}

pub(crate) fn count(bytes: u64) -> Outcome {
    let read_bytes = ww_guest::block_on(async { crate::streams::count(&mut ww_guest::stdin()).await })?;
    require(read_bytes == bytes, format!("{bytes} bytes come in, not {read_bytes}"))?;
    Ok(String::new())
}

pub(crate) fn fill(bytes: u64) -> Outcome {
    let block = vec![b'x'; ww_guest::CHUNK_BYTES];
    ww_guest::block_on(async move {
        let mut output = ww_guest::stdout();
        let mut left = bytes;
        while left > 0 {
            let size = left.min(block.len() as u64);
            output.write_all(&block[..size as usize]).await?;
            left -= size;
        }
        output.flush().await
    })?;
    Ok(String::new())
}

pub(crate) async fn greet() -> Outcome {
    let mut output = ww_guest::stdout();
    output.write_all(b"hello\n").await?;
    output.flush().await?;
    Ok(String::new())
}

pub(crate) fn copy() -> Outcome {
    ww_guest::block_on(async { ww_guest::copy(&mut ww_guest::stdin(), &mut ww_guest::stdout()).await })?;
    Ok(String::new())
}

pub(crate) fn noisy_cat() -> Outcome {
    ww_guest::block_on(async {
        ww_guest::spawn(async {
            let mut endless = futures::io::BufReader::new(futures::io::repeat(b'!'));
            // Ends when stderr is closed, or this program does.
            let _ = ww_guest::copy(&mut endless, &mut ww_guest::stderr()).await;
        });
        ww_guest::copy(&mut ww_guest::stdin(), &mut ww_guest::stdout()).await
    })?;
    Ok(String::new())
}

pub(crate) fn args() -> Outcome {
    for arg in std::env::args() {
        writeln!(io::stdout(), "{arg:?}")?;
    }
    Ok(String::new())
}

pub(crate) fn env() -> Outcome {
    let mut variables: Vec<(String, String)> = std::env::vars().collect();
    variables.sort();
    for (name, value) in variables {
        writeln!(io::stdout(), "{name}={value}")?;
    }
    Ok(String::new())
}
