//! Behaves well and badly on request: what the tests of the host run in a cell.
//!
//! The first argument says how. A behaviour whose row says `ok` prints a line `ok: …` to stdout and exits with 0 when the
//! host did what its interfaces promise; otherwise there is an error on stderr and the code is 1. An unknown behaviour, or
//! one with arguments that make no sense, ends with 2. PATH is a component in the cell's files; where the row names a
//! behaviour of the child, it must be this program.
//!
//! Without the RPC session:
//!
//! | behaviour | what it does |
//! |---|---|
//! | `exit N` | exits with N, 0 to 255 |
//! | `std-exit N` | the same with std's `process::exit` |
//! | `panic` | panics with the message "the probe panics" |
//! | `trap` | executes `unreachable` |
//! | `deep-trap` | the same, three calls deep: `outer`, `middle`, `inner` in `ending.rs` |
//! | `overflow-stack` | calls itself for ever |
//! | `spin` | prints `spinning`, then computes for ever |
//! | `sleep-forever` | prints `sleeping`, then waits in a host call for ever |
//! | `allocate MIB` | ok: that much memory was given and written |
//! | `flood-stdout [BYTES]`, `flood-stderr [BYTES]` | writes that many bytes, or for ever; stops at a closed stream |
//! | `cat` | copies stdin to stdout with std |
//! | `copy` | copies stdin to stdout with ww-guest |
//! | `fill BYTES` | writes that many bytes with ww-guest, 64 KiB at a time |
//! | `count BYTES` | exits with 0 if stdin had so many bytes; it is read with ww-guest |
//! | `no-read` | exits at once; its stdin is not read |
//! | `noisy-cat` | copies stdin to stdout while it floods stderr |
//! | `args` | prints each argument, this one included, in a line of its own, as Rust writes a string |
//! | `env` | prints the environment, sorted, one `NAME=value` in a line |
//! | `is-terminal` | prints whether WASI says that each standard stream is a terminal |
//! | `write-bytes HEX`, `write-bytes-to-stderr HEX` | writes the bytes that these digits are |
//! | `room` | prints to stderr how much can be written to stdout at once |
//! | `files PATH…` | prints `PATH: file of N bytes`, `PATH: folder: NAMES`, or `PATH: KIND` of the error |
//! | `fill PATH BYTES` | writes so many bytes; ok: how many there was room for |
//! | `write-file PATH` | ok: neither the file nor a folder at PATH could be made, nor anything removed |
//! | `malformed-rpc KIND` | ok: the host ended the session after `garbage`, `segments`, `nonsense`, `huge`, `truncated` or `chain` |
//! | `raw-rpc` | sends what comes from stdin to the host as RPC, and shows what the host says, until that ends |
//! | `close-rpc` | ok: the host ended the session after this end was closed |
//! | `guess-ids N` | ok: the host ended the session after a call of the capability N, which it was not given |
//! | `flood-rpc` | sends messages and reads no answer, for ever; ok: the host ended the session |
//!
//! With the session, alone:
//!
//! | behaviour | what it does |
//! |---|---|
//! | `greet` | writes `hello` with ww-guest |
//! | `return-error` | returns an error from its main future that has a cause |
//! | `deadlock` | waits for something that cannot happen |
//! | `roundtrips N` | ok: N echoes, one after the other; times on stderr |
//! | `pipelined N K` | ok: N echoes, K at a time; times on stderr |
//! | `connect ID ADDR…` | ok: connected, and ID is among the peers; prints these, and waits for the end of stdin, before |
//! | `hold-peers` | prints the node's addresses, then for each line of stdin the peers in a line |
//! | `bad-address` | ok: each call of `connect` that makes no sense is an error; prints them |
//! | `run-garbage` | ok: bytes that are no component are an error, and the session goes on |
//! | `bad-env` | ok: entries without a name are errors, and the session goes on |
//! | `restricted-roundtrips N` | ok: N echoes through a restricted executor; times on stderr |
//! | `terminal-size` | ok: the size of the terminal |
//! | `terminal-resized` | prints the size of the terminal, waits for another; ok: that |
//! | `terminal-raw END` | sets raw mode, hides the cursor, prints `raw`, waits for a byte, and does END: `exit`, `trap`, `spin`, `sleep` or `off` |
//! | `terminal-try-raw` | ok: raw mode was set, or why not |
//! | `without-terminal` | ok: the terminal was refused, and why |
//! | `load CONTENT ARG…` | loads what a CID names, and starts a child; ok: how it ended |
//! | `load-twice CONTENT ARG…` | ok: two children at once wrote the same |
//! | `has-nothing`, `has-host`, `has-restricted`, `has-revoked`, `is-served` | the children of those below |
//!
//! With children:
//!
//! | behaviour | what it does |
//! |---|---|
//! | `spawn PATH ARG…` | gives the child its stdin and shows what it writes; ok: how it ended |
//! | `spawn-many PATH N` | ok: N children that `cat` lived at once, and each answered |
//! | `spawn-time PATH N ARG…` | ok: N times a child that echoes a byte; times until the byte is back on stderr |
//! | `beside-spinning PATH N CALLS` | ok: CALLS echoes while N children `spin`; times on stderr |
//! | `kill-spinning PATH`, `kill-blocked PATH` | ok: a child that `spin`s or does `sleep-forever` was killed |
//! | `wait-twice PATH` | ok: two calls at once and one afterwards all have the status |
//! | `wait-dropped PATH` | ok: a wait that was cancelled took nothing with it |
//! | `nest PATH` | ok: a child started a child of its own, and ended; waits for the end of stdin before it ends |
//! | `nested` | the child of `nest`: reads a program from stdin, does `abandon` with it |
//! | `abandon PATH` | ok: ends while two children do `sleep-forever`, one of them from a module |
//! | `module-spawn PATH` | ok: a loaded module was started several times |
//! | `module-time PATH N ARG…` | as `spawn-time`, from a loaded module, with the host handed over |
//! | `first-byte PATH N ARG…` | the same with a child that reads nothing, until the first byte that it writes |
//! | `handed-nothing PATH` | ok: to a child that is handed nothing each call is an error; prints them |
//! | `handed-host PATH` | ok: a child uses the host of its parent |
//! | `restricted PATH` | ok: a child and its child had no more of the host than was listed; prints what is refused |
//! | `revoked PATH` | ok: after a revocation each use was an error |
//! | `serves PATH` | ok: a child was served by its parent, as far as that allowed |
//! | `hands-on-terminal PATH` | ok: children had the terminal as far as they were handed it; prints how far |
//! | `stdio-of-child PATH` | ok: prints how much the stdout of children holds |
//! | `limits-of-child PATH` | ok: limits and grants beyond its own are errors, which it prints, and others hold |
//! | `hand-fetch PATH CONTENT ARG…` | gives a child the grant `fetch`, which does `load`; ok: how it ended |
//! | `load-nonsense PATH` | ok: what names no content is an error; prints them |
//! | `usage PATH` | ok: what a child used was told |
//! | `null-stdio PATH` | ok: null streams give nothing and take everything |
//! | `throughput PATH BYTES` | ok: so many bytes went into a child that does `count`, out of one that does `fill`, and through one that does `copy`; the rates on stderr |
//! | `stderr-full PATH` | ok: 1 MiB went through a child that does `noisy-cat`, whose stderr nobody reads |
//! | `never-read PATH` | ok: a child that floods a pipe that nobody reads harms nobody, and can be killed |
//! | `huge-read PATH` | ok: a read of 4 GiB returns at most 64 KiB, one of 0 returns nothing |
//! | `read-after-close PATH` | ok: closing a readable stream ends the pending read and all later ones |
//! | `half-close PATH` | ok: the child reads everything and then the end; writing afterwards is an error |
//! | `broken-pipe PATH` | ok: writing to a child that has ended is an error |
//! | `output-after-end PATH` | ok: what a child wrote can be read after it has ended |
//! | `wrong-direction PATH` | ok: writing a readable stream and reading a writable one are errors |

mod calls;
mod capabilities;
mod children;
mod content;
mod ending;
mod files;
mod measure;
mod raw;
mod stdio;
mod streams;
mod terminal;

use std::error::Error;
use std::io::{self, Write};

use ww_guest::peer_capnp::host;
use ww_guest::{ExitCode, Termination};

/// What a behaviour comes to; the text is what the host did right.
type Outcome = Result<String, Box<dyn Error>>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match without_session(&words) {
        Some(outcome) => ww_guest::exit(report(outcome).report().0),
        None => ww_guest::run(|host| async move { report(with_session(&host, args).await) }),
    }
}

/// `None` where the behaviour needs the session, or does not exist.
fn without_session(words: &[&str]) -> Option<Outcome> {
    Some(match words {
        ["exit", code] => ending::exit(code),
        ["std-exit", code] => ending::std_exit(code),
        ["panic"] => ending::panic(),
        ["trap"] => ending::trap(),
        ["deep-trap"] => ending::deep_trap(),
        ["overflow-stack"] => ending::overflow_stack(),
        ["spin"] => ending::spin(),
        ["sleep-forever"] => ending::sleep_forever(),
        ["allocate", mib] => ending::allocate(mib),
        ["flood-stdout", bytes @ ..] if bytes.len() < 2 => stdio::flood(io::stdout(), bytes.first()),
        ["flood-stderr", bytes @ ..] if bytes.len() < 2 => stdio::flood(io::stderr(), bytes.first()),
        ["cat"] => stdio::cat(),
        ["copy"] => stdio::copy(),
        ["fill", bytes] => stdio::fill(number(bytes).ok()?),
        ["count", bytes] => stdio::count(number(bytes).ok()?),
        ["no-read"] => Ok(String::new()),
        ["noisy-cat"] => stdio::noisy_cat(),
        ["args", ..] => stdio::args(),
        ["env"] => stdio::env(),
        ["is-terminal"] => terminal::is_terminal(),
        ["write-bytes", digits] => terminal::write_bytes(io::stdout(), digits),
        ["write-bytes-to-stderr", digits] => terminal::write_bytes(io::stderr(), digits),
        ["room"] => terminal::room(),
        ["files", paths @ ..] => files::describe(paths),
        ["fill", path, bytes] => files::fill(path, number(bytes).ok()?),
        ["write-file", path] => files::write(path),
        ["malformed-rpc", kind] => raw::malformed(kind),
        ["raw-rpc"] => raw::relay(),
        ["close-rpc"] => raw::close(),
        ["flood-rpc"] => raw::flood(),
        ["guess-ids", count] => raw::guess_ids(number(count).ok()?),
        _ => return None,
    })
}

async fn with_session(host: &host::Client, args: Vec<String>) -> Outcome {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["greet"] => stdio::greet().await,
        ["return-error"] => ending::return_error(),
        ["deadlock"] => ending::deadlock().await,
        ["roundtrips", count] => calls::roundtrips(host, number(count)?).await,
        ["pipelined", count, in_flight] => calls::pipelined(host, number(count)?, number(in_flight)?).await,
        ["connect", id, addrs @ ..] => calls::connect(host, id, addrs).await,
        ["hold-peers"] => calls::hold_peers(host).await,
        ["bad-address"] => calls::bad_address(host).await,
        ["run-garbage"] => children::run_garbage(host).await,
        ["bad-env"] => children::bad_env(host).await,
        ["nested"] => children::nested(host).await,
        ["terminal-size"] => terminal::size(host).await,
        ["terminal-resized"] => terminal::resized(host).await,
        ["terminal-raw", end] => terminal::raw(host, end).await,
        ["terminal-try-raw"] => terminal::try_raw(host).await,
        ["without-terminal"] => terminal::without_terminal(host).await,
        ["has-nothing"] => capabilities::has_nothing(host).await,
        ["has-host"] => capabilities::has_host(host).await,
        ["has-restricted", ..] => capabilities::has_restricted(host).await,
        ["has-revoked"] => capabilities::has_revoked(host).await,
        ["is-served"] => capabilities::is_served(host).await,
        ["restricted-roundtrips", count] => capabilities::restricted_roundtrips(host, number(count)?).await,
        ["load", content, args @ ..] => content::load(host, content, args).await,
        ["load-twice", content, args @ ..] => content::load_twice(host, content, args).await,
        [behaviour, path, args @ ..] => with_children(&children::Parent::new(host, path), behaviour, args).await,
        _ => Err(Usage.into()),
    }
}

async fn with_children(parent: &children::Parent, behaviour: &str, args: &[&str]) -> Outcome {
    match (behaviour, args) {
        ("spawn", args) => children::spawn(parent, args).await,
        ("spawn-many", [count]) => children::spawn_many(parent, number(count)?).await,
        ("spawn-time", [count, args @ ..]) => children::spawn_time(parent, number(count)?, args).await,
        ("beside-spinning", [count, calls]) => children::beside_spinning(parent, number(count)?, number(calls)?).await,
        ("kill-spinning", []) => children::kill(parent, "spin").await,
        ("kill-blocked", []) => children::kill(parent, "sleep-forever").await,
        ("wait-twice", []) => children::wait_twice(parent).await,
        ("wait-dropped", []) => children::wait_dropped(parent).await,
        ("nest", []) => children::nest(parent).await,
        ("abandon", []) => children::abandon(parent).await,
        ("module-spawn", []) => capabilities::module_spawn(parent).await,
        ("module-time", [count, args @ ..]) => capabilities::module_time(parent, number(count)?, b"x", args).await,
        ("first-byte", [count, args @ ..]) => capabilities::module_time(parent, number(count)?, b"", args).await,
        ("handed-nothing", []) => capabilities::handed_nothing(parent).await,
        ("handed-host", []) => capabilities::handed_host(parent).await,
        ("restricted", []) => capabilities::restricted(parent).await,
        ("revoked", []) => capabilities::revoked(parent).await,
        ("serves", []) => capabilities::serves(parent).await,
        ("limits-of-child", []) => capabilities::limits_of_child(parent).await,
        ("hand-fetch", [content, args @ ..]) => content::hand_fetch(parent, content, args).await,
        ("load-nonsense", []) => content::load_nonsense(parent).await,
        ("usage", []) => capabilities::usage(parent).await,
        ("hands-on-terminal", []) => terminal::hands_on(parent).await,
        ("stdio-of-child", []) => terminal::stdio_of_child(parent).await,
        ("null-stdio", []) => capabilities::null_stdio(parent).await,
        ("throughput", [bytes]) => streams::throughput(parent, number(bytes)?).await,
        ("stderr-full", []) => streams::stderr_full(parent).await,
        ("never-read", []) => streams::never_read(parent).await,
        ("huge-read", []) => streams::huge_read(parent).await,
        ("read-after-close", []) => streams::read_after_close(parent).await,
        ("half-close", []) => streams::half_close(parent).await,
        ("broken-pipe", []) => streams::broken_pipe(parent).await,
        ("output-after-end", []) => streams::output_after_end(parent).await,
        ("wrong-direction", []) => streams::wrong_direction(parent).await,
        _ => Err(Usage.into()),
    }
}

/// Prints what the host did right, if that is to be said.
fn report(outcome: Outcome) -> Result<ExitCode, Box<dyn Error>> {
    match outcome {
        Ok(right) if right.is_empty() => Ok(ExitCode::SUCCESS),
        Ok(right) => {
            writeln!(io::stdout(), "ok: {right}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if error.is::<Usage>() => {
            writeln!(io::stderr(), "error: {error}")?;
            Ok(ExitCode(2))
        }
        Err(error) => Err(error),
    }
}

/// The arguments make no sense.
#[derive(Debug)]
struct Usage;

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no such behaviour, or not with these arguments; see the documentation of probe's main.rs")
    }
}

impl Error for Usage {}

fn number<N: std::str::FromStr>(word: &str) -> Result<N, Usage> {
    word.parse().map_err(|_| Usage)
}

/// An error unless what the host promises holds.
fn require(holds: bool, promise: impl Into<String>) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(format!("broken promise: {}", promise.into()).into()) }
}
