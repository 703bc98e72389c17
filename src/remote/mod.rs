//! Clients of other people's services that keep content: a place to push blocks to and to pull them from.
//!
//! * [`gateway`]: trustless HTTP gateways.
//! * [`kubo`]: the RPC of a Kubo node.
//! * [`Blocks`]: the blocks of a CAR that somebody sends, each checked against its CID.
//!
//! Every answer is taken for hostile. Nothing of it is kept before it is compared with a limit, no block leaves here
//! that was not checked against its CID, foreign text in errors is escaped, and everything ends within the [`Deadlines`].
//! What is not here: where blocks are stored, which of several sources is asked, and whether a DAG is complete; whoever
//! asks for one walks it.

mod blocks;
pub mod gateway;
pub mod kubo;
#[cfg(test)]
mod testing;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::dag::car::CarError;
use crate::dag::{BlockError, Cid};
use crate::escape;

pub use blocks::Blocks;

/// Any error, for causes that lie in a library.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The longest piece of foreign text that is shown in an error, in bytes: some lines of a terminal.
const SHOWN_BYTES_MAX: usize = 1024;

/// How long a request may take, by stage. Every stage of every request has an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// To resolve the name and to connect, with TLS.
    pub connect: Duration,
    /// From the end of the request to the head of the answer: the other side may have to look for the content.
    pub head: Duration,
    /// Between two pieces of an answer, or of what is sent. A piece counts once it is [`Self::PIECE_BYTES_MIN`] long, so
    /// that nobody keeps a request alive by a byte now and then.
    pub idle: Duration,
    /// For all of a request with a short answer.
    pub total: Duration,
    /// For all of a request that moves a whole DAG.
    pub transfer: Duration,
}

impl Deadlines {
    /// Default of [`Self::connect`]: a SYN is sent again after 1, 3 and 7 s, so that two may get lost.
    pub const CONNECT: Duration = Duration::from_secs(5);
    /// Default of [`Self::head`]: a node takes some seconds to find a provider in the DHT.
    pub const HEAD: Duration = Duration::from_secs(30);
    /// Default of [`Self::idle`].
    pub const IDLE: Duration = Duration::from_secs(30);
    /// Default of [`Self::total`]: a block of 2 MiB over a line of 50 KB/s.
    pub const TOTAL: Duration = Duration::from_secs(60);
    /// Default of [`Self::transfer`]: 100 GiB over a line of 5 MB/s.
    pub const TRANSFER: Duration = Duration::from_secs(6 * 60 * 60);
    /// What must have moved within [`Self::idle`], in bytes, unless the request ends before.
    pub const PIECE_BYTES_MIN: u64 = 1024;
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Self::CONNECT,
            head: Self::HEAD,
            idle: Self::IDLE,
            total: Self::TOTAL,
            transfer: Self::TRANSFER,
        }
    }
}

/// Why a request to a remote failed. Everything in it may be shown.
#[derive(Debug, thiserror::Error)]
#[error("{request} failed at {remote}")]
pub struct RemoteError {
    /// Where the request went, such as `http://127.0.0.1:5001`. Escaped.
    pub remote: String,
    /// What was asked for, such as `dag/import`. Escaped.
    pub request: String,
    /// Why it failed.
    #[source]
    pub cause: Cause,
}

/// What a deadline was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// [`Deadlines::connect`].
    Connect,
    /// [`Deadlines::head`].
    Head,
    /// [`Deadlines::idle`], while it was sent.
    Send,
    /// [`Deadlines::idle`], while the answer came.
    Receive,
    /// [`Deadlines::total`] or [`Deadlines::transfer`].
    Total,
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Connect => "no connection came about",
            Self::Head => "no answer came",
            Self::Send => "nothing more was taken",
            Self::Receive => "nothing more came",
            Self::Total => "it was not done",
        })
    }
}

/// Why a request failed. Foreign text in it is escaped and bounded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The name of the host could not be resolved.
    #[error("cannot resolve `{host}`")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The name of the host has no address that may be used.
    #[error("`{host}` has no {wanted} address")]
    NoAddress {
        /// The name.
        host: String,
        /// What kind of address was looked for.
        wanted: &'static str,
    },
    /// Nobody listens there, or the connection was refused on the way.
    #[error("cannot connect to {address}")]
    Connect {
        /// The address, or the path of a unix socket.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificate is not trusted, or it is no TLS.
    #[error("no TLS connection came about")]
    Tls(#[source] BoxError),
    /// A deadline passed.
    #[error("{stage} within {}", Seconds(*limit))]
    Late {
        /// What was waited for.
        stage: Stage,
        /// How long.
        limit: Duration,
    },
    /// It is not HTTP what the other side speaks, or the connection broke before an answer came.
    #[error("the exchange broke off")]
    Broken(#[source] BoxError),
    /// The answer began, and broke off.
    #[error("the answer is cut off")]
    Cut(#[source] BoxError),
    /// The answer has neither a length nor an end mark, so nobody can tell whether it is whole.
    #[error("the answer has no mark of its end")]
    Unframed,
    /// The answer is a redirect. None is followed.
    #[error("it redirects (HTTP {status}) to `{location}`, which is not followed")]
    Redirect {
        /// The status.
        status: u16,
        /// Where to.
        location: String,
    },
    /// It does not let us (HTTP 401 or 403).
    #[error("access is denied (HTTP {status}){}", Said(message))]
    Denied {
        /// The status.
        status: u16,
        /// What it said; may be empty.
        message: String,
    },
    /// It does not know the request (HTTP 404 or 405): it is another service than expected, or a very old one.
    #[error("it does not know this request (HTTP {status}){}", Said(message))]
    Unknown {
        /// The status.
        status: u16,
        /// What it said; may be empty.
        message: String,
    },
    /// It answers with another error, or with a status that makes no sense.
    #[error("it answered with HTTP {status}{}", Said(message))]
    Status {
        /// The status.
        status: u16,
        /// What it said; may be empty.
        message: String,
    },
    /// The answer is of another kind than expected, an HTML page above all.
    #[error("the answer is `{found}` where {expected} was expected")]
    Kind {
        /// What was expected.
        expected: &'static str,
        /// The content type that came.
        found: String,
    },
    /// It understood the request, and says why it failed.
    #[error("it says: {0}")]
    Reported(String),
    /// It does not have the content and was not to look for it, or did not find it.
    #[error("it does not have the content{}", Said(message))]
    NotFound {
        /// What it said; may be empty.
        message: String,
    },
    /// The answer has nothing in it, where it must.
    #[error("the answer is empty")]
    Empty,
    /// The answer does not say what it must.
    #[error("the answer is malformed: {0}")]
    Malformed(Cow<'static, str>),
    /// The answer, or a part of it, is over a limit.
    #[error("{what} of the answer is over the limit of {limit} bytes")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// A block is not what its CID says.
    #[error("it sent a bad block")]
    Block(#[source] BlockError),
    /// A CAR is none.
    #[error("it sent a bad CAR")]
    Car(#[source] CarError),
    /// It answers about another root than asked.
    #[error("it answered about {found} instead of {expected}")]
    Root {
        /// What was asked for.
        expected: Box<Cid>,
        /// What the answer is about; escaped.
        found: String,
    },
    /// What was to be sent could not be read.
    #[error("what was to be sent cannot be read")]
    Source(#[source] BoxError),
}

impl Cause {
    /// An answer that does not say what it must.
    pub fn malformed(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed(what.into())
    }
}

/// Foreign text as a part of an error: escaped, of one line, and cut to some lines of a terminal.
pub fn shown(foreign: &str) -> String {
    let text = foreign.trim();
    if text.len() <= SHOWN_BYTES_MAX {
        return escape::text(text).into_owned();
    }
    let end = (0..=SHOWN_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", escape::text(&text[..end]))
}

/// What somebody said, after a message; nothing if they said nothing.
struct Said<'a>(&'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(formatter, ": {}", self.0) }
    }
}

/// A duration for a message.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_nanos() == 0 {
            write!(formatter, "{} s", self.0.as_secs())
        } else {
            write!(formatter, "{} ms", self.0.as_millis())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_short_and_harmless() {
        assert_eq!(shown(" a\x1b[2J\n"), "a\\u{1b}[2J");
        let long = shown(&"ü".repeat(SHOWN_BYTES_MAX));
        assert_eq!(long.len(), SHOWN_BYTES_MAX + "…".len());
    }

    #[test]
    fn deadlines_read_well() {
        let late = |stage, limit| Cause::Late { stage, limit }.to_string();
        assert_eq!(late(Stage::Head, Deadlines::HEAD), "no answer came within 30 s");
        assert_eq!(late(Stage::Connect, Duration::from_millis(1500)), "no connection came about within 1500 ms");
    }
}
