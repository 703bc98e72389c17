//! A vat network around another one, which watches the messages that pass.

use capnp::Error;
use capnp::capability::Promise;
use capnp_rpc::{Connection, FlowController, IncomingMessage, OutgoingMessage, VatNetwork};
use futures::FutureExt;

use super::describe::describe;

/// Passes everything on to `N`, logs each message at trace level, and keeps errors of the connection out of the
/// library's own reporting.
pub(super) struct Watched<N> {
    network: N,
    name: String,
}

impl<N> Watched<N> {
    pub(super) fn new(network: N, name: String) -> Self {
        Self { network, name }
    }
}

impl<N: VatNetwork<Id>, Id: 'static> VatNetwork<Id> for Watched<N> {
    fn connect(&mut self, host_id: Id) -> Option<Box<dyn Connection<Id>>> {
        let connection = self.network.connect(host_id)?;
        Some(Box::new(WatchedConnection { connection, name: self.name.clone() }))
    }

    fn accept(&mut self) -> Promise<Box<dyn Connection<Id>>, Error> {
        let name = self.name.clone();
        let accepted = self.network.accept();
        Promise::from_future(async move {
            let connection = accepted.await?;
            Ok(Box::new(WatchedConnection { connection, name }) as Box<dyn Connection<Id>>)
        })
    }

    fn drive_until_shutdown(&mut self) -> Promise<(), Error> {
        self.network.drive_until_shutdown()
    }
}

struct WatchedConnection<Id: 'static> {
    connection: Box<dyn Connection<Id>>,
    name: String,
}

impl<Id: 'static> Connection<Id> for WatchedConnection<Id> {
    fn get_peer_vat_id(&self) -> Id {
        self.connection.get_peer_vat_id()
    }

    fn new_outgoing_message(&mut self, first_segment_word_size: u32) -> Box<dyn OutgoingMessage> {
        let message = self.connection.new_outgoing_message(first_segment_word_size);
        if !tracing::enabled!(tracing::Level::TRACE) {
            return message;
        }
        Box::new(WatchedMessage { message, name: self.name.clone() })
    }

    fn receive_incoming_message(&mut self) -> Promise<Option<Box<dyn IncomingMessage>>, Error> {
        let received = self.connection.receive_incoming_message();
        if !tracing::enabled!(tracing::Level::TRACE) {
            return received;
        }
        let name = self.name.clone();
        Promise::from_future(async move {
            let message = received.await?;
            if let Some(message) = &message {
                tracing::trace!(cell = name, "received {}", describe(message.get_body()));
            }
            Ok(message)
        })
    }

    fn new_stream(&mut self) -> (Box<dyn FlowController>, Promise<(), Error>) {
        self.connection.new_stream()
    }

    fn shutdown(&mut self, result: capnp::Result<()>) -> Promise<(), Error> {
        let name = self.name.clone();
        let shutdown = self.connection.shutdown(result);
        // capnp-rpc prints what this promise fails with to standard output, which belongs to the guest.
        Promise::from_future(shutdown.map(move |result| {
            if let Err(error) = result {
                tracing::debug!(cell = name, %error, "shutdown failed");
            }
            Ok(())
        }))
    }
}

struct WatchedMessage {
    message: Box<dyn OutgoingMessage>,
    name: String,
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
        tracing::trace!(cell = self.name, "sent {}", describe(self.message.get_body_as_reader()));
        self.message.send()
    }

    fn take(self: Box<Self>) -> capnp::message::Builder<capnp::message::HeapAllocator> {
        self.message.take()
    }

    fn size_in_words(&self) -> usize {
        self.message.size_in_words()
    }
}
