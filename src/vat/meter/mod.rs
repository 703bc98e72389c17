//! What a peer may have in flight.
//!
//! capnp-rpc bounds nothing of this by itself: it takes calls as fast as they come, keeps answers for a peer that does
//! not read, and works on a chain of calls, each on the result of the one before, by recursion, so that a chain of
//! some hundred links overflows the stack. The meter sees every message that passes. It ends the connection of a peer
//! that asks for too much, and makes one wait that does not read. What others do not read of its calls is charged to it;
//! it does not wait for them, else they could stop it.
//!
//! What a message takes is booked until it is freed, which is not when the call is finished: a capability may have queued
//! it, and what was answered is there as long as somebody can ask for what is in it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use capnp::Error;
use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::message;
use futures::AsyncWrite;
use tokio::sync::Notify;

use super::tables::{Passage, Tables};
use super::{Ledger, Limits, Overrun};
use crate::grant::Bytes;

/// How many bytes may wait for a peer to read them before nothing more is taken from it.
const UNREAD_SIZE_MAX: usize = 4 * 1024 * 1024;

/// What a message that waits costs at least, in bytes; the first segment of a message in memory has a kilobyte.
const MESSAGE_COST_MIN: usize = 1024;

/// How many answers that were read are looked at with each message, whether they are still kept: more than come along.
const LOOKS: usize = 2;

/// A message that was sent.
pub(super) type Sent = Rc<Builder<HeapAllocator>>;

/// Counts what one peer has in flight. A cheap handle; all clones are the same meter, on one thread.
#[derive(Clone)]
pub(super) struct Meter(Rc<State>);

struct State {
    limits: Limits,
    ledger: Box<dyn Ledger>,
    /// What the ledger has booked, in bytes.
    held: Cell<usize>,
    /// The part of it that is for the message that is coming in.
    incoming: Cell<usize>,
    /// The part of it that is for messages that have come in and are still there.
    received_size: Cell<usize>,
    /// Why no more can be kept for the peer.
    refused: RefCell<Option<Error>>,
    tables: RefCell<Tables>,
    /// The messages that were sent and not written, in their order; `None` when no more will be written.
    unread: RefCell<Option<VecDeque<Unread>>>,
    /// The sum of the costs of those in `unread` that it has itself given rise to.
    unread_size: Cell<usize>,
    /// The sum of the costs of the messages that it has given rise to and that others have not read.
    elsewhere_size: Cell<usize>,
    /// The answers that were read and are still there.
    kept: RefCell<VecDeque<Kept>>,
    /// The sum of the costs of `kept` and of the answers in `unread`.
    answers_size: Cell<usize>,
    /// Signalled when messages have been written.
    written: Notify,
    /// Signalled when more answers wait than may.
    overrun: Notify,
}

impl Drop for State {
    fn drop(&mut self) {
        self.ledger.release(self.held.get());
    }
}

struct Unread {
    message: Weak<Builder<HeapAllocator>>,
    cost: usize,
    is_answer: bool,
    /// Who has given rise to it, if that is somebody else.
    payer: Option<Meter>,
}

struct Kept {
    message: Weak<Builder<HeapAllocator>>,
    cost: usize,
}

/// Room for a message that has come in, as long as it is there.
pub(super) struct Room {
    meter: Meter,
    size: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.meter.release(self.size);
        self.meter.0.received_size.update(|size| size - self.size);
    }
}

thread_local! {
    /// Whose messages are being worked on.
    static WORKING: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

impl Meter {
    pub(super) fn new(limits: Limits, ledger: impl Ledger) -> Self {
        Self(Rc::new(State {
            limits,
            ledger: Box::new(ledger),
            held: Cell::default(),
            incoming: Cell::default(),
            received_size: Cell::default(),
            refused: RefCell::default(),
            tables: RefCell::new(Tables::new(limits)),
            unread: RefCell::new(Some(VecDeque::new())),
            unread_size: Cell::default(),
            elsewhere_size: Cell::default(),
            kept: RefCell::default(),
            answers_size: Cell::default(),
            written: Notify::new(),
            overrun: Notify::new(),
        }))
    }

    /// The largest message that the peer sends and takes, in bytes.
    pub(super) fn message_size_max(&self) -> usize {
        self.0.limits.message_size
    }

    /// Drives the RPC system of the peer's connection. What it sends meanwhile to others, the peer has given rise to.
    pub(super) fn drive<F: Future + Unpin>(&self, system: F) -> Driven<F> {
        Driven { meter: self.clone(), system }
    }

    /// Notes that a message of so many bytes is coming in. It is held until it has been [`received`](Self::received).
    ///
    /// # Errors
    ///
    /// It is too large, or there is no room for it.
    pub(super) fn coming(&self, bytes: usize) -> Result<(), Error> {
        let message_size = self.0.limits.message_size;
        if bytes > message_size {
            let most = Bytes(message_size as u64);
            return Err(Error::failed(format!("a message has more than {most}, the limit `message`")));
        }
        self.hold(bytes)?;
        self.0.incoming.update(|incoming| incoming + bytes);
        Ok(())
    }

    fn hold(&self, bytes: usize) -> Result<(), Error> {
        self.0.ledger.hold(bytes)?;
        self.0.held.update(|held| held + bytes);
        Ok(())
    }

    fn release(&self, bytes: usize) {
        self.0.ledger.release(bytes);
        self.0.held.update(|held| held - bytes);
    }

    /// Notes that the connection is ended since the peer went over a limit.
    pub(super) fn overran(&self, overrun: Overrun) {
        self.0.ledger.overrun(overrun);
    }

    /// Notes a message of the peer. What is returned with what is to happen with it is to be kept as long as the message.
    ///
    /// # Errors
    ///
    /// The message is malformed, or asks for too much.
    pub(super) fn received(&self, body: capnp::any_pointer::Reader<'_>) -> Result<(Passage, Room), Error> {
        let size = self.0.incoming.take();
        self.0.received_size.update(|received| received + size);
        let room = Room { meter: self.clone(), size };
        self.look_at_kept(LOOKS);
        let message = body.get_as::<message::Reader<'_>>()?;
        if let message::Call(_) = message.which()? {
            self.0.ledger.call();
            let calls_size = self.0.limits.calls_size;
            if self.0.received_size.get() > calls_size {
                return Err(Error::overloaded(format!(
                    "unanswered calls have more than {calls_size} bytes of parameters, the limit `call-bytes`"
                )));
            }
        }
        let passage = self.note(|tables| tables.received(message))?;
        Ok((passage, room))
    }

    /// Changes the tables, and books what that costs.
    fn note<T>(&self, change: impl FnOnce(&mut Tables) -> Result<T, Error>) -> Result<T, Error> {
        let (before, changed, after) = {
            let mut tables = self.0.tables.borrow_mut();
            let before = tables.cost();
            let changed = change(&mut tables);
            (before, changed, tables.cost())
        };
        match after >= before {
            true => self.hold(after - before)?,
            false => self.release(before - after),
        }
        changed
    }

    /// Notes a message to the peer.
    pub(super) fn sent(&self, message: &Sent) {
        self.look_at_kept(LOOKS);
        if self.0.unread.borrow().is_none() {
            return;
        }
        let payer = WORKING.with_borrow(Clone::clone).unwrap_or_else(|| self.clone());
        let chain = payer.0.tables.borrow().chain_max() + 1;
        let body = message.get_root_as_reader::<message::Reader<'_>>();
        let is_answer = matches!(body.as_ref().map(|body| body.which()), Ok(Ok(message::Return(_))));
        let is_own = Rc::ptr_eq(&payer.0, &self.0);
        if let Err(error) = body.and_then(|body| self.note(|tables| tables.sent(body, chain, is_own))) {
            self.refuse(error);
        }
        let cost = message.size_in_words().saturating_mul(size_of::<capnp::Word>()).max(MESSAGE_COST_MIN);
        let cost = match payer.hold(cost) {
            Ok(()) => cost,
            // It is on its way, and the end of the payer's connection too.
            Err(error) => {
                payer.refuse(error);
                0
            }
        };
        let payer = (!is_own).then_some(payer);
        match &payer {
            Some(payer) => payer.0.elsewhere_size.update(|size| size + cost),
            None => self.0.unread_size.update(|size| size + cost),
        }
        if is_answer {
            self.0.answers_size.update(|size| size + cost);
            self.check_answers();
        }
        if let Some(unread) = &mut *self.0.unread.borrow_mut() {
            unread.push_back(Unread { message: Rc::downgrade(message), cost, is_answer, payer });
        }
    }

    fn refuse(&self, error: Error) {
        self.0.refused.borrow_mut().get_or_insert(error);
        self.0.overrun.notify_one();
    }

    fn check_answers(&self) {
        let size_max = self.0.limits.calls_size;
        if self.0.answers_size.get() > size_max {
            self.look_at_kept(usize::MAX);
        }
        if self.0.answers_size.get() > size_max {
            self.refuse(Error::overloaded(format!(
                "answers that were not read, or calls that are not finished, have more than {size_max} bytes, the limit \
                 `call-bytes`"
            )));
        }
    }

    /// Gives back the room of answers that are gone; so many are looked at.
    fn look_at_kept(&self, count: usize) {
        let mut kept = self.0.kept.borrow_mut();
        for _ in 0..count.min(kept.len()) {
            let Some(answer) = kept.pop_front() else { break };
            if answer.message.strong_count() > 0 {
                kept.push_back(answer);
            } else {
                self.0.answers_size.update(|size| size - answer.cost);
                self.release(answer.cost);
            }
        }
    }

    /// Notes that a question of the host was answered here, and not by the peer.
    pub(super) fn answered_here(&self, question: u32) {
        // Less cannot be refused.
        let _ = self.note(|tables| {
            tables.answered_here(question);
            Ok(())
        });
    }

    /// Checks that somebody may make one more call of so many bytes of the peer, if it is not the peer's own doing.
    ///
    /// # Errors
    ///
    /// Too much waits already for those whom he calls and who do not read.
    pub(super) fn check_caller(&self, size: usize) -> Result<(), Error> {
        let caller = WORKING.with_borrow(Clone::clone).filter(|caller| !Rc::ptr_eq(&caller.0, &self.0));
        let Some(caller) = caller else { return Ok(()) };
        let calls_size = caller.0.limits.calls_size;
        if caller.0.elsewhere_size.get() + size > calls_size {
            return Err(Error::overloaded(format!(
                "calls that those who are called have not read have more than {calls_size} bytes, the limit `call-bytes`"
            )));
        }
        caller.hold(size)?;
        caller.release(size);
        Ok(())
    }

    /// Waits until the peer has read so much that more may be taken from it.
    pub(super) async fn wait_for_reader(&self) {
        while self.0.unread_size.get() > UNREAD_SIZE_MAX {
            self.0.written.notified().await;
        }
    }

    /// Waits until more is kept for the peer than may be. Those who answer may be other cells, so how large their answers
    /// are is not for this host to say, and nothing that was asked for is still to be taken from the peer.
    pub(super) async fn overrun(&self) -> Error {
        loop {
            if let Some(error) = self.0.refused.borrow_mut().take() {
                return error;
            }
            self.0.overrun.notified().await;
        }
    }

    /// Watches a writer, which must be flushed once after each message.
    pub(super) fn watch<W>(&self, writer: W) -> WatchedWriter<W> {
        WatchedWriter { writer, meter: self.clone() }
    }

    fn message_written(&self) {
        let written = self.0.unread.borrow_mut().as_mut().and_then(VecDeque::pop_front);
        if let Some(written) = written {
            self.was_read(written);
        }
    }

    fn was_read(&self, Unread { message, cost, is_answer, payer }: Unread) {
        let payer = match payer {
            Some(payer) => {
                payer.0.elsewhere_size.update(|size| size - cost);
                payer
            }
            None => {
                self.0.unread_size.update(|size| size - cost);
                self.clone()
            }
        };
        payer.0.written.notify_one();
        // The writer has it still, and nobody else if it has done its duty.
        if is_answer && message.strong_count() > 1 && Rc::ptr_eq(&payer.0, &self.0) {
            self.0.kept.borrow_mut().push_back(Kept { message, cost });
            return;
        }
        if is_answer {
            self.0.answers_size.update(|size| size - cost);
        }
        payer.release(cost);
    }

    /// Notes that nothing more is written.
    fn close(&self) {
        let unread = self.0.unread.take();
        unread.into_iter().flatten().for_each(|unread| self.was_read(unread));
    }
}

/// A future that is polled on behalf of a peer.
pub(super) struct Driven<F> {
    meter: Meter,
    system: F,
}

impl<F: Future + Unpin> Future for Driven<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _working = Working(WORKING.replace(Some(self.meter.clone())));
        Pin::new(&mut self.system).poll(context)
    }
}

/// Whose messages were worked on before, and will be again.
struct Working(Option<Meter>);

impl Drop for Working {
    fn drop(&mut self) {
        WORKING.set(self.0.take());
    }
}

/// A writer whose flushes tell the meter that a message was written.
pub(super) struct WatchedWriter<W> {
    writer: W,
    meter: Meter,
}

impl<W> Drop for WatchedWriter<W> {
    fn drop(&mut self) {
        self.meter.close();
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for WatchedWriter<W> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.writer).poll_flush(context);
        if flushed.is_ready() {
            self.meter.message_written();
        }
        flushed
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_close(context)
    }
}

#[cfg(test)]
mod tests;
