//! Asking for more than there can be.

use std::time::Instant;

use wasip2::io::streams::{InputStream, OutputStream};
use wasip2::random::{insecure, random as secure};

use crate::{ENOUGH, Outcome};

/// 2^64 bytes do not even fit into this program's memory.
pub(crate) fn random() -> Outcome {
    Ok(format!("there are {} bytes", secure::get_random_bytes(u64::MAX).len()))
}

/// As many as there are at once, again and again.
pub(crate) fn random_again() -> Outcome {
    let start = Instant::now();
    let mut bytes = 0;
    while start.elapsed() < ENOUGH {
        bytes += secure::get_random_bytes(RANDOM_BYTES_MAX).len();
        bytes += insecure::get_insecure_random_bytes(RANDOM_BYTES_MAX).len();
    }
    Ok(format!("there are {} random bytes", if bytes > 0 { "many" } else { "no" }))
}

/// The most that the host gives at once.
const RANDOM_BYTES_MAX: u64 = 256 * 1024;

const LENGTHS: [u64; 3] = [4 << 30, u32::MAX as u64, u64::MAX];

/// What standard streams do with lengths that make no sense. Stdin is to be at its end, or to have a few bytes.
pub(crate) fn lengths() -> Outcome {
    let (input, output) = (wasip2::cli::stdin::get_stdin(), wasip2::cli::stdout::get_stdout());
    let mut read_bytes = 0;
    for length in LENGTHS {
        read_bytes += read(&input, length)?;
    }
    for length in LENGTHS {
        // None of it can be skipped any more, and nothing is left to be moved.
        let ended = [input.blocking_skip(length).is_err(), input.skip(length).is_err()];
        let moved = output.splice(&input, length).is_err() && output.blocking_splice(&input, length).is_err();
        if ended != [true; 2] || !moved {
            return Err("there is something beyond the end".into());
        }
    }
    Ok(format!("{read_bytes} bytes were read"))
}

fn read(input: &InputStream, length: u64) -> Result<usize, String> {
    let now = input.read(length).map_or(0, |bytes| bytes.len());
    let later = input.blocking_read(length).map_or(0, |bytes| bytes.len());
    if now.max(later) > 1 << 20 {
        return Err(format!("{now} and {later} bytes were read at once"));
    }
    Ok(now + later)
}

/// A list that no call may bring along.
pub(crate) fn large_list() -> Outcome {
    let output: OutputStream = wasip2::cli::stdout::get_stdout();
    Ok(format!("the list was taken: {:?}", output.write(&vec![b'x'; 64 << 20])))
}
