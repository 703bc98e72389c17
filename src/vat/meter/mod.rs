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
use std::task::{Context, Poll, ready};
use std::time::Instant;

use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::message;
use futures::AsyncWrite;
use tokio::sync::Notify;
use tokio::time::Sleep;

use super::pause::{self, OneConnection};
use super::refusal::Refusal;
use super::tables::{Passage, Tables};
use super::{Ledger, Limits, Overrun};
use crate::grant::{Bytes, Limit};

/// How many bytes may wait for a peer to read them before nothing more is taken from it.
const UNREAD_SIZE_MAX: usize = 4 * 1024 * 1024;

/// What a message that waits costs at least, in bytes: the first segment of it.
const MESSAGE_COST_MIN: usize = FIRST_SEGMENT_WORDS_MAX as usize * size_of::<capnp::Word>();

/// The most that the first segment of a message has that is sent, in words. capnp-rpc would make those of calls eight times as
/// large, most of which would stay empty.
pub(super) const FIRST_SEGMENT_WORDS_MAX: u32 = 128;

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
    /// Why no more can be taken from the peer, or kept for it.
    refused: RefCell<Option<Refusal>>,
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
    /// The part of the cost that is booked: none of it, where there was no room.
    booked: usize,
    is_answer: bool,
    /// Who has given rise to it, if that is somebody else.
    payer: Option<Meter>,
}

struct Kept {
    message: Weak<Builder<HeapAllocator>>,
    cost: usize,
    booked: usize,
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

fn working() -> Option<Meter> {
    // The thread may be ending.
    WORKING.try_with(|working| working.borrow().clone()).ok().flatten()
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
        Driven { meter: self.clone(), system: Some(system), pause: None, _counted: OneConnection::new() }
    }

    /// Notes that a message of so many bytes is coming in. It is held until it has been [`received`](Self::received).
    ///
    /// # Errors
    ///
    /// It is too large, or there is no room for it. That is also what [`refusal`](Self::refusal) says then.
    pub(super) fn coming(&self, bytes: usize) -> Result<(), Overrun> {
        let message_size = self.0.limits.message_size;
        let held = match bytes > message_size {
            true => Err(Overrun {
                limit: Limit::Message,
                reason: format!("a message has more than {}, the limit `message`", Bytes(message_size as u64)),
            }),
            false => self.hold(bytes),
        };
        match &held {
            Ok(()) => self.0.incoming.update(|incoming| incoming + bytes),
            Err(overrun) => self.refuse(overrun.clone()),
        }
        held
    }

    fn hold(&self, bytes: usize) -> Result<(), Overrun> {
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
    pub(super) fn received(&self, body: capnp::any_pointer::Reader<'_>) -> Result<(Passage, Room), Refusal> {
        let size = self.0.incoming.take();
        self.0.received_size.update(|received| received + size);
        let mut room = Room { meter: self.clone(), size };
        self.look_at_kept(LOOKS);
        let message = body.get_as::<message::Reader<'_>>()?;
        if let message::Call(_) = message.which()? {
            self.0.ledger.call();
            let calls_size = self.0.limits.calls_size;
            if self.0.received_size.get() > calls_size {
                let reason =
                    format!("unanswered calls have more than {calls_size} bytes of parameters, the limit `call-bytes`");
                return Err(Overrun { limit: Limit::CallBytes, reason }.into());
            }
        }
        let taken = self.note(|tables| tables.received(message))?;
        self.hold(taken.size)?;
        self.0.received_size.update(|received| received + taken.size);
        room.size += taken.size;
        Ok((taken.passage, room))
    }

    /// Changes the tables, and books what that costs.
    fn note<T>(&self, change: impl FnOnce(&mut Tables) -> Result<T, Refusal>) -> Result<T, Refusal> {
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
        let payer = working().unwrap_or_else(|| self.clone());
        let chain = payer.0.tables.borrow().chain_max() + 1;
        let body = message.get_root_as_reader::<message::Reader<'_>>();
        let is_answer = matches!(body.as_ref().map(|body| body.which()), Ok(Ok(message::Return(_))));
        let is_own = Rc::ptr_eq(&payer.0, &self.0);
        let noted = body.map_err(Refusal::from);
        if let Err(refusal) = noted.and_then(|body| self.note(|tables| tables.sent(body, chain, is_own))) {
            self.refuse(refusal);
        }
        let cost = message.size_in_words().saturating_mul(size_of::<capnp::Word>()).max(MESSAGE_COST_MIN);
        // It is on its way in any case, and so is the end of a connection that there is no room for.
        let booked = payer.hold_or_refuse(cost);
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
            unread.push_back(Unread { message: Rc::downgrade(message), cost, booked, is_answer, payer });
        }
    }

    /// Notes that something else is sent instead of the answer to a question of the peer.
    pub(super) fn refused_answer(&self, question: u32) {
        self.0.tables.borrow_mut().refused(question);
    }

    /// Has the connection ended.
    fn refuse(&self, refusal: impl Into<Refusal>) {
        self.0.refused.borrow_mut().get_or_insert_with(|| refusal.into());
        self.0.overrun.notify_one();
    }

    /// Holds so many bytes, or none and has the connection ended. Returns how many it holds.
    fn hold_or_refuse(&self, bytes: usize) -> usize {
        match self.hold(bytes) {
            Ok(()) => bytes,
            Err(overrun) => {
                self.refuse(overrun);
                0
            }
        }
    }

    fn check_answers(&self) {
        let size_max = self.0.limits.calls_size;
        if self.0.answers_size.get() > size_max {
            self.look_at_kept(usize::MAX);
        }
        if self.0.answers_size.get() > size_max {
            let reason = format!(
                "answers that were not read, or calls that are not finished, have more than {size_max} bytes, the limit \
                 `call-bytes`"
            );
            self.refuse(Overrun { limit: Limit::CallBytes, reason });
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
                self.release(answer.booked);
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
    pub(super) fn check_caller(&self, size: usize) -> Result<(), Overrun> {
        let caller = working().filter(|caller| !Rc::ptr_eq(&caller.0, &self.0));
        let Some(caller) = caller else { return Ok(()) };
        let calls_size = caller.0.limits.calls_size;
        if caller.0.elsewhere_size.get() + size > calls_size {
            let reason = format!(
                "calls that those who are called have not read have more than {calls_size} bytes, the limit `call-bytes`"
            );
            return Err(Overrun { limit: Limit::CallBytes, reason });
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
    pub(super) async fn overrun(&self) -> Refusal {
        loop {
            if let Some(refusal) = self.refusal() {
                return refusal;
            }
            self.0.overrun.notified().await;
        }
    }

    /// Why the connection is to be ended, if it is; taken once.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.0.refused.borrow_mut().take()
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

    fn was_read(&self, Unread { message, cost, booked, is_answer, payer }: Unread) {
        match &payer {
            Some(payer) => payer.0.elsewhere_size.update(|size| size - cost),
            None => self.0.unread_size.update(|size| size - cost),
        }
        let payer = payer.unwrap_or_else(|| self.clone());
        payer.0.written.notify_one();
        // The writer has it still, and nobody else if it has done its duty. Whoever paid for its way, what is kept is kept
        // for the one who can look into it.
        if is_answer && message.strong_count() > 1 {
            let booked = match Rc::ptr_eq(&payer.0, &self.0) {
                true => booked,
                false => {
                    payer.release(booked);
                    self.hold_or_refuse(cost)
                }
            };
            self.0.kept.borrow_mut().push_back(Kept { message, cost, booked });
            return;
        }
        if is_answer {
            self.0.answers_size.update(|size| size - cost);
        }
        payer.release(booked);
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
    /// There until the end.
    system: Option<F>,
    /// What it waits for before it goes on.
    pause: Option<Pin<Box<Sleep>>>,
    _counted: OneConnection,
}

impl<F: Future + Unpin> Future for Driven<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let Some(system) = &mut this.system else { return Poll::Pending };
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(context));
            this.pause = None;
        }
        let start = Instant::now();
        let polled = {
            let _working = Working::on_behalf_of(&this.meter);
            Pin::new(system).poll(context)
        };
        if polled.is_pending()
            && let Some(pause) = pause::after(start.elapsed())
        {
            // One that is over already, as after a time that the thread slept, is no pause.
            let mut pause = Box::pin(pause);
            if pause.as_mut().poll(context).is_pending() {
                this.pause = Some(pause);
            } else {
                context.waker().wake_by_ref();
            }
        }
        polled
    }
}

impl<F> Drop for Driven<F> {
    /// What it tells others at its end, it has given rise to as well.
    fn drop(&mut self) {
        let _working = Working::on_behalf_of(&self.meter);
        self.system = None;
    }
}

/// Whose messages were worked on before, and will be again.
struct Working(Option<Meter>);

impl Working {
    fn on_behalf_of(meter: &Meter) -> Self {
        // The thread may be ending.
        Self(WORKING.try_with(|working| working.replace(Some(meter.clone()))).ok().flatten())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let _ = WORKING.try_with(|working| working.replace(self.0.take()));
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
