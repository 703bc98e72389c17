//! Computing, memory, and the standard streams.

use std::hint::black_box;
use std::io::{self, ErrorKind, Write};

use crate::Outcome;

pub(crate) fn spin() -> Outcome {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

/// A call of itself that takes nothing of the program's own stack, which lies in its memory, but only the engine's.
trait Step {
    fn step(&self, number: u64, next: &dyn Step) -> u64;
}

struct Down;

impl Step for Down {
    fn step(&self, number: u64, next: &dyn Step) -> u64 {
        next.step(number + 1, next).rotate_left(1) ^ number
    }
}

pub(crate) fn recurse() -> Outcome {
    let next: Box<dyn Step> = black_box(Box::new(Down));
    Ok(format!("{} is the end", next.step(0, &*next)))
}

pub(crate) fn escapes() -> Outcome {
    writeln!(io::stderr(), "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m on stderr")?;
    panic!("a panic\u{1b}[31m with\u{7} escapes\r over it");
}

/// Takes all that there is, and asks on.
pub(crate) fn memory() -> Outcome {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut refused = 0;
    while refused < 10_000 {
        let mut piece = Vec::new();
        match piece.try_reserve_exact(1 << 20) {
            Ok(()) => {
                piece.resize(1 << 20, 1_u8);
                pieces.push(black_box(piece));
            }
            Err(_) => refused += 1,
        }
    }
    Err(format!("there is no more memory after {} MiB", pieces.len()).into())
}

/// Has one instruction work for long.
pub(crate) fn fill() -> Outcome {
    let mut bytes = Vec::new();
    let mut size = 512 << 20;
    while bytes.try_reserve_exact(size).is_err() {
        size /= 2;
    }
    for value in 0_u64.. {
        bytes.clear();
        bytes.resize(size, black_box(value as u8));
        black_box(&mut bytes);
    }
    Ok(String::new())
}

pub(crate) fn sleep() -> Outcome {
    loop {
        wasip2::clocks::monotonic_clock::subscribe_duration(u64::MAX).block();
    }
}

pub(crate) fn flood(mut stream: impl Write) -> Outcome {
    let block = b"the quick brown fox jumps over the lazy dog, again and again...\n".repeat(64);
    loop {
        match stream.write_all(&block).and_then(|()| stream.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Err("the stream is closed".into()),
            outcome => outcome?,
        }
    }
}

/// Leaves as much behind as pipes hold.
pub(crate) fn say_much() -> Outcome {
    let words = vec![b'x'; 60_000];
    io::stderr().write_all(&words)?;
    io::stdout().write_all(&words)?;
    Ok(String::new())
}
