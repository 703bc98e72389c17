//! Why this side takes no more from a peer.

use capnp::{Error, NotInSchema};

use super::Overrun;

/// Why a message is not taken, or a connection is ended.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The peer went over a limit that somebody sets.
    Limit(Overrun),
    /// It breaks the protocol, or asks for more than anybody gets.
    Error(Error),
}

impl From<Overrun> for Refusal {
    fn from(overrun: Overrun) -> Self {
        Self::Limit(overrun)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<NotInSchema> for Refusal {
    fn from(error: NotInSchema) -> Self {
        Self::Error(error.into())
    }
}

impl From<Overrun> for Error {
    fn from(overrun: Overrun) -> Self {
        Error::overloaded(overrun.reason)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Limit(overrun) => overrun.into(),
            Refusal::Error(error) => error,
        }
    }
}
