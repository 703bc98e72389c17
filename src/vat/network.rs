//! A vat network around another one, which watches the messages that pass: for the meter and for the log.

use capnp::Error;
use capnp::capability::Promise;
use capnp_rpc::{Connection, FlowController, IncomingMessage, OutgoingMessage, VatNetwork};
use futures::FutureExt;

use super::describe::{describe, shown};
use super::meter::Meter;

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
        let Watcher { name, meter } = self.watcher.clone();
        let received = self.connection.receive_incoming_message();
        Promise::from_future(async move {
            let received = async {
                meter.wait_for_reader().await;
                received.await
            };
            let message = tokio::select! {
                biased;
                error = meter.overrun() => return Err(error),
                message = received => message?,
            };
            if let Some(message) = &message {
                meter.whole();
                tracing::trace!(cell = name, "received {}", describe(message.get_body()));
                meter.received(message.get_body()?)?;
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

    fn send(
        self: Box<Self>,
    ) -> (Promise<(), Error>, std::rc::Rc<capnp::message::Builder<capnp::message::HeapAllocator>>) {
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
