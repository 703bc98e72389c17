//! Attacks its host on request, beside neighbours that must not notice.
//!
//! An attack that comes to an end by itself says on stdout what the host has answered; one that is refused with an error says
//! that, and ends with 1. Many never end.
//!
//! | attack | what it does |
//! |---|---|
//! | `spin`, `recurse`, `exit-inside`, `escapes` | computes for ever; calls itself for ever; exits while calls wait; prints escape codes, and panics with some |
//! | `memory`, `fill` | asks for memory until there is none, and goes on; fills half a gigabyte again and again |
//! | `sleep` | waits in a host call for ever |
//! | `pollables`, `streams`, `channels`, `sockets` | makes clocks, streams, RPC channels, sockets, and drops none |
//! | `poll` | polls a list of 100,000 again and again |
//! | `random`, `random-again`, `ask-lengths` | asks for 2^64 random bytes, or for as many as it gets; reads, skips, splices and writes of 4 GiB and 2^64 bytes |
//! | `large-list` | hands the host a list of 64 MiB |
//! | `flood-stdout`, `flood-stderr` | writes for ever |
//! | `flood-calls`, `flood-bytes`, `flood-large`, `flood-half` | calls and reads no answer; the same with 1 MiB each, and with the largest messages; messages that never become whole |
//! | `pending`, `cancel`, `chain` | calls that never return; the same, each cancelled; the same, each on the result of the one before, which is cancelled |
//! | `capabilities`, `yourself` | a message with a million capabilities; results that are to be kept |
//! | `malformed KIND` | sends what is no message, or makes no sense: `malformed` alone tells of which kinds |
//! | `guess N` | calls the capability N in four ways |
//! | `fork-chain`, `fork-fan`, `fork-zombies`, `fork-arguments` | reads its own program from stdin; children of children; many; many that end, kept; some with very much to be told |
//! | `fork-programs` | the same; loads programs that take much memory |
//! | `idle`, `say-much` | ends at once, in place of an attack, to compare with; the same with full standard streams |
//!
//! Only where there are files:
//!
//! | attack | what it does |
//! |---|---|
//! | `tmp-bytes`, `tmp-files`, `tmp-deep`, `tmp-names`, `tmp-sparse` | fills `/tmp` with bytes, files, directories in each other, long names; makes huge holes |
//! | `open-files`, `listings` | opens files, and lists a large directory, and closes nothing |
//! | `paths` | opens what is outside |
//! | `file-lengths` | reads and writes of 4 GiB and 2^64 bytes in files |
//!
//! And those who are attacked:
//!
//! | | |
//! |---|---|
//! | `beside ATTACKER NEIGHBOUR MODE MS [LIMIT=VALUE…] -- ATTACK…` | starts a neighbour and two attackers from these components, calls its host itself until the attackers have ended, or for MS milliseconds, and says how everybody ended. MODE is `own` where the attackers have a host of their own, and `handed` where it is this one's |
//! | `among NEIGHBOUR MS -- ATTACK…` | starts two neighbours, then attacks by itself, for at most MS milliseconds where the attack never ends |
//! | `neighbour` | calls its host until the end of stdin, and says how often and how long it took |

mod ask;
mod beside;
mod compute;
mod files;
mod fork;
mod handles;
mod malformed;
mod raw;

use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use ww_guest::peer_capnp::host;

/// What an attack comes to.
type Outcome = Result<String, Box<dyn Error>>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match alone(&words) {
        Some(outcome) => ww_guest::exit(report(outcome)),
        None => ww_guest::run(|host| async move { report(with_session(&host, args).await) }),
    }
}

/// `None` where the RPC session is needed, or there is no such attack.
fn alone(words: &[&str]) -> Option<Outcome> {
    Some(match words {
        ["idle"] => Ok("nothing was done".into()),
        ["say-much"] => compute::say_much(),
        ["spin"] => compute::spin(),
        ["recurse"] => compute::recurse(),
        ["escapes"] => compute::escapes(),
        ["memory"] => compute::memory(),
        ["fill"] => compute::fill(),
        ["sleep"] => compute::sleep(),
        ["pollables"] => handles::pollables(),
        ["streams"] => handles::streams(),
        ["channels"] => handles::channels(),
        ["sockets"] => handles::sockets(),
        ["poll"] => handles::poll_lists(),
        ["random"] => ask::random(),
        ["random-again"] => ask::random_again(),
        ["ask-lengths"] => ask::lengths(),
        ["large-list"] => ask::large_list(),
        ["flood-stdout"] => compute::flood(io::stdout()),
        ["flood-stderr"] => compute::flood(io::stderr()),
        ["flood-calls"] => raw::flood_calls(),
        ["flood-bytes"] => raw::flood_bytes(1 << 20),
        ["flood-large"] => raw::flood_bytes(60 << 20),
        ["flood-half"] => raw::flood_half(),
        ["pending"] => raw::pending(),
        ["cancel"] => raw::cancel(),
        ["chain"] => raw::chain(),
        ["capabilities"] => raw::capabilities(),
        ["yourself"] => raw::yourself(),
        ["malformed"] => Ok(malformed::KINDS.join(" ")),
        ["malformed", kind] => malformed::send(kind),
        ["guess", number] => malformed::guess(number.parse().ok()?),
        ["tmp-bytes"] => files::bytes(),
        ["tmp-files"] => files::many(),
        ["tmp-deep"] => files::deep(),
        ["tmp-names"] => files::names(),
        ["tmp-sparse"] => files::sparse(),
        ["open-files"] => files::open(),
        ["listings"] => files::listings(),
        ["paths"] => files::paths(),
        ["file-lengths"] => files::lengths(),
        _ => return None,
    })
}

async fn with_session(host: &host::Client, args: Vec<String>) -> Outcome {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["beside", attacker, neighbour, mode, ms, rest @ ..] => {
            let split = rest.iter().position(|word| *word == "--").ok_or("there is no attack")?;
            let plan = beside::Plan {
                attacker,
                neighbour,
                has_own_host: *mode == "own",
                time: Duration::from_millis(ms.parse()?),
                limits: &rest[..split],
                attack: &rest[split + 1..],
            };
            beside::beside(host, &plan).await
        }
        ["among", neighbour, ms, "--", attack @ ..] => {
            let time = Duration::from_millis(ms.parse()?);
            beside::among(host, neighbour, time, || alone(attack).ok_or("there is no such attack")?).await
        }
        ["neighbour"] => beside::neighbour(host).await,
        ["exit-inside"] => fork::exit_inside(host).await,
        ["fork-chain"] => fork::chain(host).await,
        ["fork-fan"] => fork::fan(host).await,
        ["fork-zombies"] => fork::zombies(host).await,
        ["fork-arguments"] => fork::arguments(host).await,
        ["fork-programs"] => fork::programs(host).await,
        _ => Err("there is no such attack; see the documentation of hostile's main.rs".into()),
    }
}

/// Says what it came to, and the exit code of that.
fn report(outcome: Outcome) -> u8 {
    let (text, code) = match outcome {
        Ok(text) => (text, 0),
        Err(error) => (format!("refused: {error}"), 1),
    };
    // Who reads it may be gone.
    let _ = writeln!(io::stdout(), "{text}");
    code
}

/// Does something again and again until it is an error, which it returns with the number of times that it went well; for
/// no longer than a few seconds, so that an attack that nothing stops comes to an end where no limit is set to its time.
fn until_refused<T, E: std::fmt::Debug>(mut attack: impl FnMut(u64) -> Result<T, E>) -> Outcome {
    let start = Instant::now();
    for number in 0_u64.. {
        match attack(number) {
            // Kept for ever.
            Ok(made) => std::mem::forget(made),
            Err(error) => return Err(format!("after {number}: {error:?}").into()),
        }
        if number % 64 == 0 && start.elapsed() > ENOUGH {
            return Ok(format!("{number} times, and no end"));
        }
    }
    Ok(String::new())
}

/// How long an attack goes on that nothing stops.
const ENOUGH: Duration = Duration::from_secs(3);
