//! A vat network around another one, which watches the messages that pass: for the meter and for the log.

use std::rc::Rc;

use capnp::Error;
use capnp::capability::Promise;
use capnp_rpc::{Connection, FlowController, IncomingMessage, OutgoingMessage, VatNetwork};
use futures::FutureExt;

use super::Overrun;
use super::describe::{describe, shown};
use super::meter::Meter;
use crate::grant::{Bytes, Limit};

/// Passes everything on to `N`, has each message counted, logs it at trace level, and keeps errors of the connection out
/// of the library's own reporting.
pub(super) struct Watched<N> {
    network: N,
    watcher: Watcher,
}

impl<N> Watched<N> {
    pub(super) fn new(network: N, name: String, meter: Meter) -> Self {
        Self { network, watcher: Watcher { name, meter } }
    }
}

/// Who sees the messages of one connection.
#[derive(Clone)]
struct Watcher {
    /// The connection's name in the log.
    name: String,
    meter: Meter,
}

impl Watcher {
    /// Tells of an error of this side, if a limit is why there is one.
    fn note(&self, error: Error) -> Error {
        if let Some(overrun) = overrun(&error, &self.meter) {
            self.meter.overran(overrun);
        }
        error
    }
}

/// What an error of this side says of a limit: the meter ends its own with the limit's name, and the library has a sentence for
/// messages that are too large.
fn overrun(error: &Error, meter: &Meter) -> Option<Overrun> {
    if error.extra.starts_with("Message has ") && error.extra.contains(" words, which is too large") {
        let (limit, most) = (Limit::Message, Bytes(meter.message_size() as u64));
        return Some(Overrun {
            limit,
            reason: format!("it sent a message larger than the limit `{limit}`, which is {most}"),
        });
    }
    let limit = error.extra.strip_suffix('`')?.rsplit_once("the limit `")?.1.parse().ok()?;
    Some(Overrun { limit, reason: error.extra.clone() })
}

impl<N: VatNetwork<Id>, Id: 'static> VatNetwork<Id> for Watched<N> {
    fn connect(&mut self, host_id: Id) -> Option<Box<dyn Connection<Id>>> {
        let connection = self.network.connect(host_id)?;
        Some(Box::new(WatchedConnection { connection, watcher: self.watcher.clone() }))
    }

    fn accept(&mut self) -> Promise<Box<dyn Connection<Id>>, Error> {
        let watcher = self.watcher.clone();
        let accepted = self.network.accept();
        Promise::from_future(async move {
            let connection = accepted.await?;
            Ok(Box::new(WatchedConnection { connection, watcher }) as Box<dyn Connection<Id>>)
        })
    }

    fn drive_until_shutdown(&mut self) -> Promise<(), Error> {
        self.network.drive_until_shutdown()
    }
}

struct WatchedConnection<Id: 'static> {
    connection: Box<dyn Connection<Id>>,
    watcher: Watcher,
}

impl<Id: 'static> Connection<Id> for WatchedConnection<Id> {
    fn get_peer_vat_id(&self) -> Id {
        self.connection.get_peer_vat_id()
    }

    fn new_outgoing_message(&mut self, first_segment_word_size: u32) -> Box<dyn OutgoingMessage> {
        let message = self.connection.new_outgoing_message(first_segment_word_size);
        Box::new(WatchedMessage { message, watcher: self.watcher.clone() })
    }

    fn receive_incoming_message(&mut self) -> Promise<Option<Box<dyn IncomingMessage>>, Error> {
        let watcher = self.watcher.clone();
        let received = self.connection.receive_incoming_message();
        Promise::from_future(async move {
            let Watcher { name, meter } = &watcher;
            let received = async {
                meter.wait_for_reader().await;
                received.await
            };
            let message = tokio::select! {
                biased;
                error = meter.overrun() => return Err(watcher.note(error)),
                message = received => message.map_err(|error| watcher.note(error))?,
            };
            if let Some(message) = &message {
                tracing::trace!(cell = name, "received {}", describe(message.get_body()));
                meter.received(message.get_body()?).map_err(|error| watcher.note(error))?;
            }
            Ok(message)
        })
    }

    fn new_stream(&mut self) -> (Box<dyn FlowController>, Promise<(), Error>) {
        self.connection.new_stream()
    }

    fn shutdown(&mut self, result: capnp::Result<()>) -> Promise<(), Error> {
        let name = self.watcher.name.clone();
        let shutdown = self.connection.shutdown(result);
        // capnp-rpc prints what this promise fails with to standard output, which belongs to the guest.
        Promise::from_future(shutdown.map(move |result| {
            if let Err(error) = result {
                tracing::debug!(cell = name, error = %shown(&error), "shutdown failed");
            }
            Ok(())
        }))
    }
}

struct WatchedMessage {
    message: Box<dyn OutgoingMessage>,
    watcher: Watcher,
}

impl OutgoingMessage for WatchedMessage {
    fn get_body(&mut self) -> capnp::Result<capnp::any_pointer::Builder<'_>> {
        self.message.get_body()
    }

    fn get_body_as_reader(&self) -> capnp::Result<capnp::any_pointer::Reader<'_>> {
        self.message.get_body_as_reader()
    }

    fn send(self: Box<Self>) -> (Promise<(), Error>, Rc<capnp::message::Builder<capnp::message::HeapAllocator>>) {
        tracing::trace!(cell = self.watcher.name, "sent {}", describe(self.message.get_body_as_reader()));
        self.watcher.meter.sent(self.message.get_body_as_reader(), self.message.size_in_words());
        self.message.send()
    }

    fn take(self: Box<Self>) -> capnp::message::Builder<capnp::message::HeapAllocator> {
        self.message.take()
    }

    fn size_in_words(&self) -> usize {
        self.message.size_in_words()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vat::Limits;

    #[test]
    fn errors_of_this_side_name_the_limit() {
        let meter = Meter::new(Limits { message_size: 65_536, calls: 4, calls_size: 9 }, ());
        let check = |error: Error, expected: Option<(Limit, &str)>| {
            let found = overrun(&error, &meter).map(|overrun| (overrun.limit, overrun.reason));
            assert_eq!(found, expected.map(|(limit, reason)| (limit, reason.to_owned())));
        };
        let calls = "more than 4 calls are unanswered, the limit `calls`";
        check(Error::overloaded(calls.into()), Some((Limit::Calls, calls)));
        let answers = "answers that were not read have more than 9 bytes, the limit `call-bytes`";
        check(Error::overloaded(answers.into()), Some((Limit::CallBytes, answers)));
        let large = "it sent a message larger than the limit `message`, which is 64KiB";
        check(Error::failed("Message has 9 words, which is too large. To…".into()), Some((Limit::Message, large)));
        check(Error::failed("more than 64 calls are chained to an unanswered one".into()), None);
        check(Error::failed("the limit `speed`".into()), None);
    }
}
