//! Ways to end, and ways not to.

use std::convert::Infallible;
use std::hint::black_box;
use std::io::{self, Write};
use std::{fmt, future};

use crate::{Outcome, number};

pub(crate) fn exit(code: &str) -> Outcome {
    ww_guest::exit(number(code)?)
}

#[expect(clippy::disallowed_methods, reason = "that is what the host is to be tested with")]
pub(crate) fn std_exit(code: &str) -> Outcome {
    std::process::exit(number(code)?)
}

pub(crate) fn panic() -> Outcome {
    panic!("the probe panics")
}

pub(crate) fn trap() -> Outcome {
    unreachable_instruction()
}

#[cfg(target_arch = "wasm32")]
fn unreachable_instruction() -> ! {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn unreachable_instruction() -> ! {
    std::process::abort()
}

pub(crate) fn deep_trap() -> Outcome {
    outer(black_box(1));
    Ok(String::new())
}

// `black_box` after each call keeps them from being tail calls, which leave no frame.

#[inline(never)]
fn outer(depth: u32) -> u32 {
    black_box(middle(black_box(depth + 1)))
}

#[inline(never)]
fn middle(depth: u32) -> u32 {
    black_box(inner(black_box(depth + 1)))
}

#[inline(never)]
fn inner(depth: u32) -> u32 {
    if black_box(depth) > 0 {
        unreachable_instruction()
    }
    depth
}

pub(crate) fn overflow_stack() -> Outcome {
    Ok(format!("reached depth {}", fall(0)))
}

#[expect(unconditional_recursion, reason = "that is what the host is to be tested with")]
fn fall(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    black_box(fall(frame[0] + 1)) + frame[1]
}

pub(crate) fn spin() -> Outcome {
    say("spinning")?;
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

/// Waits for a clock that has 292 years to go.
pub(crate) fn sleep_forever() -> Outcome {
    say("sleeping")?;
    loop {
        wasip2::clocks::monotonic_clock::subscribe_duration(i64::MAX as u64).block();
    }
}

pub(crate) fn allocate(mib: &str) -> Outcome {
    let mib: usize = number(mib)?;
    let mut pieces = Vec::new();
    for piece in 0..mib {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(1 << 20).map_err(|_| format!("no more than {piece} MiB"))?;
        bytes.resize(1 << 20, 1_u8);
        pieces.push(black_box(bytes));
    }
    Ok(format!("{mib} MiB"))
}

pub(crate) fn return_error() -> Outcome {
    Err(Outer(io::Error::other("the inner error")).into())
}

/// An error with a cause.
#[derive(Debug)]
struct Outer(io::Error);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the outer error")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// The session waits for the host, so this is a deadlock only once the host has ended it.
pub(crate) async fn deadlock() -> Outcome {
    match future::pending::<Infallible>().await {}
}

/// Prints a line at once, for the parent to know how far this is.
fn say(what: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{what}")
}
