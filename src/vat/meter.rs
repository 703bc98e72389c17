//! What a peer may have in flight.
//!
//! capnp-rpc bounds nothing of this by itself: it takes calls as fast as they come, keeps answers for a peer that does
//! not read, and works on a chain of calls, each on the result of the one before, by recursion, so that a chain of
//! some hundred links overflows the stack. The meter sees every message that passes. It ends the connection of a peer
//! that asks for too much, and makes one wait that does not read.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use capnp::Error;
use capnp_rpc::rpc_capnp::{cap_descriptor, message, message_target, promised_answer};
use futures::AsyncWrite;
use tokio::sync::Notify;

use super::{Ledger, Limits, Overrun};

/// How many calls may be chained, each on the result of the one before, while the first is unanswered. A tenth of what
/// a thread's stack takes, and far more than interfaces have levels.
const CHAIN_MAX: usize = 64;

/// How many bytes may wait for a peer to read them before nothing more is taken from it.
const UNREAD_SIZE_MAX: usize = 4 * 1024 * 1024;

/// What a message that waits costs at least, in bytes; the first segment of a message in memory has a kilobyte.
const MESSAGE_COST_MIN: usize = 1024;

/// What an unanswered call costs besides its parameters, in bytes; about what the RPC system keeps of it.
const QUESTION_BYTES: usize = 1024;

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
    /// Why an answer cannot be kept for the peer.
    refused: RefCell<Option<Error>>,
    /// The peer's unanswered questions.
    questions: RefCell<HashMap<u32, Question>>,
    /// The sum of the sizes of `questions`.
    questions_size: Cell<usize>,
    /// The messages that were sent and not written, in their order.
    unread: RefCell<VecDeque<Unread>>,
    /// The sum of the costs of `unread`.
    unread_size: Cell<usize>,
    /// The part of it that answers the peer's own calls.
    unread_answers_size: Cell<usize>,
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
    cost: usize,
    is_answer: bool,
}

struct Question {
    /// How many questions it is chained to.
    chain: usize,
    size: usize,
}

impl Meter {
    pub(super) fn new(limits: Limits, ledger: impl Ledger) -> Self {
        Self(Rc::new(State {
            limits,
            ledger: Box::new(ledger),
            held: Cell::default(),
            incoming: Cell::default(),
            refused: RefCell::default(),
            questions: RefCell::default(),
            questions_size: Cell::default(),
            unread: RefCell::default(),
            unread_size: Cell::default(),
            unread_answers_size: Cell::default(),
            written: Notify::new(),
            overrun: Notify::new(),
        }))
    }

    /// Notes that a message of so many bytes is coming in. It is held until it has been [`received`](Self::received).
    ///
    /// # Errors
    ///
    /// There is no room for it.
    pub(super) fn coming(&self, bytes: usize) -> Result<(), Error> {
        // A larger one is an error that the reader finds before it makes room for it.
        if bytes <= self.0.limits.message_size {
            self.hold(bytes)?;
            self.0.incoming.update(|incoming| incoming + bytes);
        }
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

    /// The largest message that is accepted, in bytes.
    pub(super) fn message_size(&self) -> usize {
        self.0.limits.message_size
    }

    /// Notes a message of the peer.
    ///
    /// # Errors
    ///
    /// The message is malformed, or asks for too much.
    pub(super) fn received(&self, body: capnp::any_pointer::Reader<'_>) -> Result<(), Error> {
        // All that came is held as long as any of it is, whatever of it is pointed at.
        let size = self.0.incoming.take();
        self.release(size);
        match body.get_as::<message::Reader<'_>>()?.which()? {
            message::Bootstrap(bootstrap) => self.ask(bootstrap?.get_question_id(), Question { chain: 0, size }),
            message::Call(call) => {
                let call = call?;
                self.0.ledger.call();
                let mut chain = match call.get_target()?.which()? {
                    message_target::ImportedCap(_) => 0,
                    message_target::PromisedAnswer(answer) => self.chain_after(answer?),
                };
                for capability in call.get_params()?.get_cap_table()? {
                    if let cap_descriptor::ReceiverAnswer(answer) = capability.which()? {
                        chain = chain.max(self.chain_after(answer?));
                    }
                }
                self.ask(call.get_question_id(), Question { chain, size })
            }
            message::Finish(finish) => {
                self.forget(finish?.get_question_id());
                Ok(())
            }
            // What is unknown or answered is the RPC system's affair.
            _ => Ok(()),
        }
    }

    /// Notes a message to the peer.
    pub(super) fn sent(&self, body: capnp::Result<capnp::any_pointer::Reader<'_>>, size_words: usize) {
        let cost = size_words.saturating_mul(8).max(MESSAGE_COST_MIN);
        let returned =
            body.and_then(|body| body.get_as::<message::Reader<'_>>()).and_then(|message| match message.which() {
                Ok(message::Return(returned)) => returned.map(Some),
                _ => Ok(None),
            });
        let returned = returned.unwrap_or_default();
        match self.hold(cost) {
            Ok(()) => {}
            Err(error) => {
                *self.0.refused.borrow_mut() = Some(error);
                self.0.overrun.notify_one();
                return;
            }
        }
        self.0.unread.borrow_mut().push_back(Unread { cost, is_answer: returned.is_some() });
        self.0.unread_size.update(|size| size + cost);
        if let Some(returned) = returned {
            self.0.unread_answers_size.update(|size| size + cost);
            if self.0.unread_answers_size.get() > self.0.limits.calls_size {
                self.0.overrun.notify_one();
            }
            if returned.get_no_finish_needed() {
                self.forget(returned.get_answer_id());
            }
        }
    }

    /// Waits until the peer has read so much that more may be taken from it.
    pub(super) async fn wait_for_reader(&self) {
        while self.0.unread_size.get() > UNREAD_SIZE_MAX {
            self.0.written.notified().await;
        }
    }

    /// Waits until more answers wait for the peer than may. Those who answer may be other cells, so how large their answers
    /// are is not for this host to say, and nothing that was asked for is still to be taken from the peer.
    pub(super) async fn overrun(&self) -> Error {
        let size_max = self.0.limits.calls_size;
        while self.0.unread_answers_size.get() <= size_max {
            self.0.overrun.notified().await;
            if let Some(error) = self.0.refused.borrow_mut().take() {
                return error;
            }
        }
        Error::overloaded(format!("answers that were not read have more than {size_max} bytes, the limit `call-bytes`"))
    }

    /// Watches a writer, which must be flushed once after each message.
    pub(super) fn watch<W>(&self, writer: W) -> WatchedWriter<W> {
        WatchedWriter { writer, meter: self.clone() }
    }

    fn ask(&self, id: u32, question: Question) -> Result<(), Error> {
        if question.chain > CHAIN_MAX {
            return Err(Error::failed(format!("more than {CHAIN_MAX} calls are chained to an unanswered one")));
        }
        let size = self.0.questions_size.get() + question.size;
        let mut questions = self.0.questions.borrow_mut();
        let Limits { calls, calls_size, .. } = self.0.limits;
        if questions.len() >= calls {
            return Err(Error::overloaded(format!("more than {calls} calls are unanswered, the limit `calls`")));
        }
        if size > calls_size {
            let text =
                format!("unanswered calls have more than {calls_size} bytes of parameters, the limit `call-bytes`");
            return Err(Error::overloaded(text));
        }
        self.hold(question.size + QUESTION_BYTES)?;
        self.0.questions_size.set(size);
        // A number that is in use is an error, which the RPC system will find.
        if let Some(replaced) = questions.insert(id, question) {
            self.answered(&replaced);
        }
        Ok(())
    }

    /// The chain of a call on the answer to a question.
    fn chain_after(&self, answer: promised_answer::Reader<'_>) -> usize {
        self.0.questions.borrow().get(&answer.get_question_id()).map_or(0, |question| question.chain + 1)
    }

    fn forget(&self, id: u32) {
        if let Some(question) = self.0.questions.borrow_mut().remove(&id) {
            self.answered(&question);
        }
    }

    fn answered(&self, question: &Question) {
        self.0.questions_size.update(|size| size - question.size);
        self.release(question.size + QUESTION_BYTES);
    }

    fn message_written(&self) {
        if let Some(Unread { cost, is_answer }) = self.0.unread.borrow_mut().pop_front() {
            self.release(cost);
            self.0.unread_size.update(|size| size - cost);
            if is_answer {
                self.0.unread_answers_size.update(|size| size - cost);
            }
            self.0.written.notify_one();
        }
    }
}

/// A writer whose flushes tell the meter that a message was written.
pub(super) struct WatchedWriter<W> {
    writer: W,
    meter: Meter,
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
mod tests {
    use super::*;
    use capnp::message::{Builder, HeapAllocator};
    use futures::{AsyncWriteExt, FutureExt};

    type Message = Builder<HeapAllocator>;

    const LIMITS: Limits =
        Limits { message_size: 64 * 1024 * 1024, calls: 16 * 1024, calls_size: 4 * 64 * 1024 * 1024 };

    fn meter() -> Meter {
        Meter::new(LIMITS, ())
    }

    /// Books so many bytes at most, and counts calls.
    #[derive(Clone, Default)]
    struct Booked {
        calls: Rc<Cell<usize>>,
        held: Rc<Cell<usize>>,
        most: usize,
    }

    impl Ledger for Booked {
        fn call(&self) {
            self.calls.update(|calls| calls + 1);
        }

        fn hold(&self, bytes: usize) -> Result<(), Error> {
            if self.held.get() + bytes > self.most {
                return Err(Error::overloaded("there is no room".into()));
            }
            self.held.update(|held| held + bytes);
            Ok(())
        }

        fn release(&self, bytes: usize) {
            self.held.update(|held| held - bytes);
        }
    }

    fn receive(meter: &Meter, message: &Message) -> Result<(), Error> {
        meter.coming(8 * message.size_in_words())?;
        meter.received(message.get_root_as_reader()?)
    }

    /// A call of `question` on the answer to `on`, or on an imported capability, with `size` bytes of parameters.
    fn call(question: u32, on: Option<u32>, size: u32) -> Message {
        let mut message = Message::new_default();
        let mut call = message.init_root::<message::Builder<'_>>().init_call();
        call.set_question_id(question);
        match on {
            Some(question) => call.reborrow().init_target().init_promised_answer().set_question_id(question),
            None => call.reborrow().init_target().set_imported_cap(0),
        }
        call.init_params().init_content().initn_as::<capnp::data::Builder<'_>>(size);
        message
    }

    fn finish(question: u32) -> Message {
        let mut message = Message::new_default();
        message.init_root::<message::Builder<'_>>().init_finish().set_question_id(question);
        message
    }

    fn answer(meter: &Meter, question: u32, no_finish_needed: bool) {
        let mut message = Message::new_default();
        let mut returned = message.init_root::<message::Builder<'_>>().init_return();
        returned.set_answer_id(question);
        returned.set_no_finish_needed(no_finish_needed);
        meter.sent(message.get_root_as_reader(), 8);
    }

    #[test]
    fn a_chain_of_unanswered_calls_is_bounded() {
        let meter = meter();
        receive(&meter, &call(0, None, 0)).unwrap();
        for question in 1..=CHAIN_MAX as u32 {
            receive(&meter, &call(question, Some(question - 1), 0)).unwrap();
        }
        let end = CHAIN_MAX as u32;
        let error = receive(&meter, &call(end + 1, Some(end), 0)).unwrap_err();
        assert!(error.to_string().contains("64 calls are chained"), "{error}");
    }

    #[test]
    fn calls_are_told() {
        let booked = Booked { most: 10_000, ..Booked::default() };
        let meter = Meter::new(LIMITS, booked.clone());
        for message in [call(0, None, 0), finish(0), call(1, None, 0)] {
            receive(&meter, &message).unwrap();
        }
        assert_eq!(booked.calls.get(), 2);
    }

    #[test]
    fn what_is_held_is_booked_and_released() {
        let booked = Booked { most: 100_000, ..Booked::default() };
        let meter = Meter::new(LIMITS, booked.clone());
        receive(&meter, &call(0, None, 60_000)).unwrap();
        let of_call = booked.held.get();
        assert!((60_000..62_000).contains(&of_call), "{of_call}");
        assert!(meter.coming(60_000).unwrap_err().to_string().contains("there is no room"));
        assert!(receive(&meter, &call(1, None, 60_000)).is_err());
        receive(&meter, &finish(0)).unwrap();
        assert_eq!(booked.held.get(), 0);
        receive(&meter, &call(2, None, 50_000)).unwrap();
        meter.coming(usize::MAX).unwrap();
        drop(meter);
        assert_eq!(booked.held.get(), 0, "nothing is left when the connection has ended");
    }

    #[test]
    fn answers_that_there_is_no_room_for_end_the_connection() {
        let meter = Meter::new(LIMITS, Booked { most: 3 * MESSAGE_COST_MIN, ..Booked::default() });
        for _ in 0..3 {
            answer(&meter, 0, false);
        }
        let mut overrun = Box::pin(meter.overrun());
        assert!(overrun.as_mut().now_or_never().is_none());
        answer(&meter, 0, false);
        assert!(overrun.now_or_never().unwrap().to_string().contains("there is no room"));
        let mut writer = meter.watch(futures::io::sink());
        for _ in 0..4 {
            writer.flush().now_or_never().unwrap().unwrap();
        }
        assert_eq!(meter.0.held.get(), 0);
    }

    #[test]
    fn calls_on_finished_answers_start_a_new_chain() {
        let meter = meter();
        receive(&meter, &call(0, None, 0)).unwrap();
        for question in 1..10 * CHAIN_MAX as u32 {
            receive(&meter, &call(question, Some(question - 1), 0)).unwrap();
            if question % 50 == 0 {
                receive(&meter, &finish(question)).unwrap();
            }
        }
    }

    #[test]
    fn unanswered_calls_are_bounded_and_finished_ones_do_not_count() {
        let meter = meter();
        for question in 0..3 * LIMITS.calls as u32 {
            receive(&meter, &call(question, None, 0)).unwrap();
            match question % 2 {
                0 => receive(&meter, &finish(question)).unwrap(),
                _ => answer(&meter, question, true),
            }
        }
        assert_eq!(meter.0.questions_size.get(), 0);
        for question in 0..LIMITS.calls as u32 {
            receive(&meter, &call(question, None, 0)).unwrap();
        }
        answer(&meter, 0, false);
        receive(&meter, &call(LIMITS.calls as u32, None, 0)).unwrap_err();
        receive(&meter, &finish(0)).unwrap();
        receive(&meter, &call(LIMITS.calls as u32, None, 0)).unwrap();
    }

    #[test]
    fn the_size_of_unanswered_calls_is_bounded() {
        let meter = meter();
        let large = call(0, None, 60 * 1024 * 1024);
        for _ in 0..2 {
            // The same number again replaces what was counted for it.
            receive(&meter, &large).unwrap();
        }
        for question in 1..4 {
            receive(&meter, &call(question, None, 60 * 1024 * 1024)).unwrap();
        }
        receive(&meter, &call(4, None, 60 * 1024 * 1024)).unwrap_err();
    }

    #[test]
    fn answers_that_nobody_reads_end_the_connection() {
        let limits = Limits { calls_size: 100_000, ..LIMITS };
        let meter = Meter::new(limits, ());
        let mut message = Message::new_default();
        message.init_root::<message::Builder<'_>>().init_call();
        meter.sent(message.get_root_as_reader(), 1_000_000);
        let mut overrun = Box::pin(meter.overrun());
        assert!(overrun.as_mut().now_or_never().is_none(), "calls of others are no answers");
        let mut message = Message::new_default();
        message.init_root::<message::Builder<'_>>().init_return();
        meter.sent(message.get_root_as_reader(), 12_000);
        assert!(overrun.as_mut().now_or_never().is_none());
        meter.sent(message.get_root_as_reader(), 1_000);
        let error = overrun.now_or_never().unwrap();
        assert!(error.to_string().contains("more than 100000 bytes, the limit `call-bytes`"), "{error}");
        let mut writer = meter.watch(futures::io::sink());
        for _ in 0..3 {
            writer.flush().now_or_never().unwrap().unwrap();
        }
        assert_eq!((meter.0.unread_size.get(), meter.0.unread_answers_size.get()), (0, 0));
    }

    #[test]
    fn who_does_not_read_waits() {
        let meter = meter();
        let mut writer = meter.watch(futures::io::sink());
        let fitting = UNREAD_SIZE_MAX / MESSAGE_COST_MIN;
        for _ in 0..fitting {
            answer(&meter, 0, true);
        }
        assert!(meter.wait_for_reader().now_or_never().is_some());
        answer(&meter, 0, true);
        let mut waiting = Box::pin(meter.wait_for_reader());
        assert!(waiting.as_mut().now_or_never().is_none());
        writer.flush().now_or_never().unwrap().unwrap();
        assert!(waiting.now_or_never().is_some());
    }
}
