//! Does what the interfaces of WASI promise, and says where one of them does not hold.
//!
//! The first argument says what; `tests/it/wasi.rs` has the list, with where each promise comes from. What holds is a line
//! `ok` on stdout and exit code 0, what does not an error on stderr and 1. Those that are to trap do that.

mod files;
mod sockets;
mod streams;

use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime};

use wasip2::clocks::monotonic_clock;
use wasip2::random::{insecure, insecure_seed, random};

pub(crate) type Outcome = Result<(), Box<dyn Error>>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let code = match run(&words) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            1
        }
    };
    ww_guest::exit(code)
}

fn run(words: &[&str]) -> Outcome {
    match words {
        ["return"] => return Ok(()),
        ["clocks"] => clocks()?,
        ["sleep"] => sleep()?,
        ["random"] => random_bytes()?,
        ["directory"] => say(&format!("{:?}", wasip2::cli::environment::initial_cwd()))?,
        ["append"] => files::append()?,
        ["sync"] => files::sync()?,
        ["seek", path] => files::seek(path)?,
        ["read-only", path] => files::read_only(path)?,
        ["read-write"] => files::read_write()?,
        ["across", path] => files::across(path)?,
        ["times"] => files::times()?,
        ["permissions", path] => files::permissions(path)?,
        ["trailing-slashes"] => files::trailing_slashes()?,
        ["lengths", path] => files::lengths(path)?,
        ["full"] => files::full()?,
        ["poll-same"] => streams::poll_same()?,
        ["poll-empty"] => streams::poll_empty(),
        ["poll-stream"] => streams::poll_stream()?,
        ["drop-stream-first"] => streams::drop_stream_first(),
        ["read-nothing"] => streams::read_nothing()?,
        ["read-error"] => streams::read_error()?,
        ["prompt"] => return streams::prompt(),
        ["closed-stdout"] => return streams::closed_stdout(),
        ["much-stdout", text, count] => return streams::much_stdout(text, count.parse()?),
        ["splice"] => return streams::splice(),
        ["write-too-much"] => streams::write_too_much(),
        ["zeroes-too-many"] => streams::zeroes_too_many(),
        ["tcp", address] => sockets::tcp(address.parse()?)?,
        ["udp", address] => sockets::udp(address.parse()?)?,
        ["listen"] => sockets::listen()?,
        ["lookup"] => sockets::lookup()?,
        _ => return Err("there is nothing of this name".into()),
    }
    say("ok")
}

fn say(text: &str) -> Outcome {
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// An error unless it holds.
pub(crate) fn require(holds: bool, promise: &str) -> Outcome {
    if holds { Ok(()) } else { Err(format!("it does not hold that {promise}").into()) }
}

fn clocks() -> Outcome {
    let (first, second) = (Instant::now(), Instant::now());
    require(second >= first, "time does not go back")?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    require(now > Duration::from_secs(1_700_000_000), "it is later than 2023")?;
    require(monotonic_clock::resolution() > 0, "a clock has a resolution")?;
    // What has no time to go is ready after a few looks.
    let pollable = monotonic_clock::subscribe_duration(0);
    let is_ready = (0..20).any(|_| {
        monotonic_clock::subscribe_duration(0).block();
        pollable.ready()
    });
    require(is_ready, "a wait of nothing is over")
}

fn sleep() -> Outcome {
    let wait = 10_000_000;
    let start = Instant::now();
    monotonic_clock::subscribe_instant(monotonic_clock::now() + wait).block();
    monotonic_clock::subscribe_duration(wait).block();
    require(start.elapsed() >= Duration::from_nanos(2 * wait), "a wait takes its time")?;
    // What has been is ready.
    monotonic_clock::subscribe_instant(monotonic_clock::now()).block();
    monotonic_clock::subscribe_instant(monotonic_clock::now().saturating_sub(1)).block();
    monotonic_clock::subscribe_instant(0).block();
    monotonic_clock::subscribe_duration(0).block();
    std::thread::sleep(Duration::from_nanos(100));
    let never = monotonic_clock::subscribe_duration(u64::MAX);
    require(!never.ready(), "what is never is not ready")
}

fn random_bytes() -> Outcome {
    for length in [0, 1, 256, 256 * 1024] {
        let (secure, other) = (random::get_random_bytes(length), insecure::get_insecure_random_bytes(length));
        require(secure.len() as u64 == length && other.len() as u64 == length, "there are as many as are asked for")?;
        require(length < 32 || secure != other, "they are not the same")?;
    }
    require((0..100).any(|_| random::get_random_u64() != 0), "not all are 0")?;
    require((0..100).any(|_| insecure::get_insecure_random_u64() != 0), "not all are 0")?;
    require(insecure_seed::insecure_seed() == insecure_seed::insecure_seed(), "the seed is always the same")
}
