//! A vat network around another one, which watches the messages that pass: for the meter and for the log. A few it keeps
//! back, and has others stand in for them.

use std::cell::RefCell;
use std::rc::Rc;

use capnp::Error;
use capnp::capability::Promise;
use capnp_rpc::rpc_capnp::message;
use capnp_rpc::{Connection, FlowController, IncomingMessage, OutgoingMessage, VatNetwork};
use futures::FutureExt;

use super::describe::{describe, shown};
use super::meter::{FIRST_SEGMENT_WORDS_MAX, Meter, Room, Sent};
use super::refusal::Refusal;
use super::stand_in::{self, Asides};
use super::tables::Passage;

/// Passes everything on to `N`, has each message counted, logs it at trace level, and keeps errors of the connection out
/// of the library's own reporting.
pub(super) struct Watched<N> {
    network: N,
    watcher: Watcher,
}

impl<N> Watched<N> {
    pub(super) fn new(network: N, name: String, meter: Meter) -> Self {
        Self { network, watcher: Watcher { name, meter, asides: Rc::default() } }
    }
}

/// Who sees the messages of one connection.
#[derive(Clone)]
struct Watcher {
    /// The connection's name in the log.
    name: String,
    meter: Meter,
    asides: Rc<Asides>,
}

impl Watcher {
    /// Tells why this side ends the connection, if a limit is why.
    fn end(&self, refusal: Refusal) -> Error {
        if let Refusal::Limit(overrun) = &refusal {
            self.meter.overran(overrun.clone());
        }
        refusal.into()
    }

    /// The same, where reading has failed: the meter may have seen to that.
    fn failed(&self, error: Error) -> Error {
        self.meter.refusal().map_or(error, |refusal| self.end(refusal))
    }
}

impl<N: VatNetwork<Id>, Id: 'static> VatNetwork<Id> for Watched<N> {
    fn connect(&mut self, host_id: Id) -> Option<Box<dyn Connection<Id>>> {
        let connection = self.network.connect(host_id)?;
        Some(Box::new(WatchedConnection::new(connection, self.watcher.clone())))
    }

    fn accept(&mut self) -> Promise<Box<dyn Connection<Id>>, Error> {
        let watcher = self.watcher.clone();
        let accepted = self.network.accept();
        Promise::from_future(async move {
            let connection = accepted.await?;
            Ok(Box::new(WatchedConnection::new(connection, watcher)) as Box<dyn Connection<Id>>)
        })
    }

    fn drive_until_shutdown(&mut self) -> Promise<(), Error> {
        self.network.drive_until_shutdown()
    }
}

type Received = Option<Box<dyn IncomingMessage>>;

struct WatchedConnection<Id: 'static> {
    connection: Rc<RefCell<Box<dyn Connection<Id>>>>,
    watcher: Watcher,
    /// The message that is coming in, while it is not waited for.
    receiving: Rc<RefCell<Option<Promise<Received, Error>>>>,
}

impl<Id: 'static> WatchedConnection<Id> {
    fn new(connection: Box<dyn Connection<Id>>, watcher: Watcher) -> Self {
        Self { connection: Rc::new(RefCell::new(connection)), watcher, receiving: Rc::default() }
    }
}

impl<Id: 'static> Connection<Id> for WatchedConnection<Id> {
    fn get_peer_vat_id(&self) -> Id {
        self.connection.borrow().get_peer_vat_id()
    }

    fn new_outgoing_message(&mut self, first_segment_word_size: u32) -> Box<dyn OutgoingMessage> {
        let first_segment_words = first_segment_word_size.min(FIRST_SEGMENT_WORDS_MAX);
        let message = self.connection.borrow_mut().new_outgoing_message(first_segment_words);
        let (connection, watcher) = (self.connection.clone(), self.watcher.clone());
        Box::new(WatchedMessage { message, connection, watcher })
    }

    fn receive_incoming_message(&mut self) -> Promise<Received, Error> {
        let (connection, watcher, receiving) = (self.connection.clone(), self.watcher.clone(), self.receiving.clone());
        Promise::from_future(async move {
            loop {
                if let Some(aside) = watcher.asides.take() {
                    if let Some(question) = aside.answers {
                        watcher.meter.answered_here(question);
                    }
                    return Ok(Some(Box::new(aside.message) as Box<dyn IncomingMessage>));
                }
                let kept = receiving.take();
                let mut coming = kept.unwrap_or_else(|| connection.borrow_mut().receive_incoming_message());
                let received = async {
                    watcher.meter.wait_for_reader().await;
                    (&mut coming).await
                };
                let message = tokio::select! {
                    biased;
                    refusal = watcher.meter.overrun() => return Err(watcher.end(refusal)),
                    () = watcher.asides.arrival() => None,
                    message = received => Some(message.map_err(|error| watcher.failed(error))?),
                };
                match message {
                    Some(Some(message)) => {
                        if let Some(message) = watcher.receive(message).map_err(|refusal| watcher.end(refusal))? {
                            return Ok(Some(message));
                        }
                    }
                    Some(None) => return Ok(None),
                    None => drop(receiving.replace(Some(coming))),
                }
            }
        })
    }

    fn new_stream(&mut self) -> (Box<dyn FlowController>, Promise<(), Error>) {
        self.connection.borrow_mut().new_stream()
    }

    fn shutdown(&mut self, result: capnp::Result<()>) -> Promise<(), Error> {
        let name = self.watcher.name.clone();
        let shutdown = self.connection.borrow_mut().shutdown(result);
        // capnp-rpc prints what this promise fails with to standard output, which belongs to the guest.
        Promise::from_future(shutdown.map(move |result| {
            if let Err(error) = result {
                tracing::debug!(cell = name, error = %shown(&error), "shutdown failed");
            }
            Ok(())
        }))
    }
}

impl Watcher {
    /// What the RPC system gets of a message of the peer, if anything.
    fn receive(&self, message: Box<dyn IncomingMessage>) -> Result<Received, Refusal> {
        tracing::trace!(cell = self.name, "received {}", describe(message.get_body()));
        let (passage, room) = self.meter.received(message.get_body()?)?;
        match passage {
            Passage::Passes => Ok(Some(Box::new(KeptMessage { message, _room: room }))),
            Passage::Ends => Ok(None),
            Passage::Finishes { question } => Ok(Some(Box::new(stand_in::finish(question)))),
            Passage::GivenBack { no_promise } => {
                let message::Resolve(resolve) = message.get_body()?.get_as::<message::Reader<'_>>()?.which()? else {
                    return Ok(None);
                };
                Ok(Some(Box::new(stand_in::give_back(resolve?, no_promise)?)))
            }
        }
    }
}

/// A message of the peer, which has its room for as long as it is there.
struct KeptMessage {
    message: Box<dyn IncomingMessage>,
    _room: Room,
}

impl IncomingMessage for KeptMessage {
    fn get_body(&self) -> capnp::Result<capnp::any_pointer::Reader<'_>> {
        self.message.get_body()
    }
}

struct WatchedMessage<Id: 'static> {
    message: Box<dyn OutgoingMessage>,
    connection: Rc<RefCell<Box<dyn Connection<Id>>>>,
    watcher: Watcher,
}

impl<Id: 'static> WatchedMessage<Id> {
    /// Has whoever made this call learn that it is not made.
    fn refuse_call(&self, reason: &str) -> Result<(), Error> {
        match self.message.get_body_as_reader()?.get_as::<message::Reader<'_>>()?.which()? {
            message::Call(call) => self.watcher.asides.refuse_call(call?, reason),
            _ => Ok(()),
        }
    }

    fn is_call(&self) -> bool {
        let body = self.message.get_body_as_reader().and_then(|body| body.get_as::<message::Reader<'_>>());
        matches!(body.as_ref().map(|body| body.which()), Ok(Ok(message::Call(_))))
    }

    /// Sees to it that whoever waits for a message that is larger than the peer takes learns of it. What is left is to be
    /// sent instead.
    fn refuse(&mut self, size: usize) -> Result<Option<Box<dyn OutgoingMessage>>, Error> {
        let size_max = self.watcher.meter.message_size_max();
        let takes = format!("the one that it is for takes {size_max} at most, its limit `message`");
        let asides = &self.watcher.asides;
        match self.message.get_body_as_reader()?.get_as::<message::Reader<'_>>()?.which()? {
            message::Call(_) => {
                self.refuse_call(&format!("the call has {size} bytes, and {takes}"))?;
                Ok(None)
            }
            message::Return(answer) => {
                let answer = answer?;
                asides.refuse_answer(answer)?;
                self.watcher.meter.refused_answer(answer.get_answer_id());
                let mut instead = self.connection.borrow_mut().new_outgoing_message(0);
                let reason = format!("the answer has {size} bytes, and {takes}");
                stand_in::write_refusal(answer, &reason, instead.get_body()?.init_as());
                Ok(Some(instead))
            }
            // Nobody waits for others, and none of this host's is so large.
            _ => Err(Error::failed(format!("a message has {size} bytes, and {takes}"))),
        }
    }
}

impl<Id: 'static> OutgoingMessage for WatchedMessage<Id> {
    fn get_body(&mut self) -> capnp::Result<capnp::any_pointer::Builder<'_>> {
        self.message.get_body()
    }

    fn get_body_as_reader(&self) -> capnp::Result<capnp::any_pointer::Reader<'_>> {
        self.message.get_body_as_reader()
    }

    fn send(mut self: Box<Self>) -> (Promise<(), Error>, Sent) {
        let Watcher { name, meter, .. } = self.watcher.clone();
        let send = |message: Box<dyn OutgoingMessage>| {
            tracing::trace!(cell = name, "sent {}", describe(message.get_body_as_reader()));
            let (written, message) = message.send();
            meter.sent(&message);
            (written, message)
        };
        let size = self.message.size_in_words().saturating_mul(size_of::<capnp::Word>());
        if size <= meter.message_size_max() {
            let checked = if self.is_call() { meter.check_caller(size) } else { Ok(()) };
            let Err(overrun) = checked else { return send(self.message) };
            let refused = self.refuse_call(&overrun.reason);
            return (refused.into(), Rc::new(self.message.take()));
        }
        let written = match self.refuse(size) {
            Ok(Some(instead)) => send(instead).0,
            Ok(None) => Promise::ok(()),
            Err(error) => Promise::err(error),
        };
        // An answer would be kept until the peer has finished its question, and nobody would pay for that.
        (written, Rc::new(stand_in::empty_answer()))
    }

    fn take(self: Box<Self>) -> capnp::message::Builder<capnp::message::HeapAllocator> {
        self.message.take()
    }

    fn size_in_words(&self) -> usize {
        self.message.size_in_words()
    }
}
