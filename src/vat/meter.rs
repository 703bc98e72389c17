//! What a peer may have in flight.
//!
//! capnp-rpc bounds nothing of this by itself: it takes calls as fast as they come, keeps answers for a peer that does
//! not read, and works on a chain of calls, each on the result of the one before, by recursion, so that a chain of
//! some hundred links overflows the stack. It makes an object for each capability of a message, and never forgets a call
//! that was cancelled. The meter sees every message that passes. It ends the connection of a peer that asks for too much,
//! and makes one wait that does not read.
//!
//! What is held for the peer is counted in bytes: calls until they are answered, the results that wait to be read, and what
//! there is of a message that is not whole. All of it is also booked with the peer's [`Allowance`].

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use capnp::Error;
use capnp::struct_list;
use capnp_rpc::rpc_capnp::{call, cap_descriptor, message, message_target, promised_answer, return_};
use futures::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use super::{Allowance, Limits};

/// How many calls may be chained, each on the result of the one before, while the first is unanswered. A tenth of what
/// a thread's stack takes, and far more than interfaces have levels.
const CHAIN_MAX: usize = 64;

/// How many capabilities a message may bring along. The RPC system makes an object for each, many times as large as the
/// sixteen bytes that it is in the message.
const CAPABILITIES_MAX: u32 = 1024;

/// What such an object is counted as, in bytes.
const CAPABILITY_COST: usize = 512;

/// What an unanswered call is counted as beside its parameters, in bytes. Also what one costs for good that was cancelled
/// before it was answered: the RPC system never forgets it, unless it is answered after all.
const CALL_COST: usize = 512;

/// How many bytes may wait for a peer to read them before nothing more is taken from it.
const UNREAD_SIZE_MAX: usize = 4 * 1024 * 1024;

/// What a message that waits costs at least, in bytes; the first segment of a message in memory has a kilobyte.
const MESSAGE_COST_MIN: usize = 1024;

/// Counts what one peer has in flight. A cheap handle; all clones are the same meter, on one thread.
#[derive(Clone)]
pub(super) struct Meter(Rc<State>);

struct State {
    limits: Limits,
    /// What is held for the peer, for those that it shares that with.
    allowance: RefCell<Box<dyn Allowance>>,
    /// The peer's questions that the RPC system has not forgotten.
    questions: RefCell<HashMap<u32, Question>>,
    /// How many questions there were.
    serials: Cell<u64>,
    /// How many of them are unanswered and not cancelled.
    calls: Cell<usize>,
    /// The sum of the sizes of `questions`.
    questions_size: Cell<usize>,
    /// How much there is of a message that is not whole yet.
    partial_size: Cell<usize>,
    /// The messages that were sent and not written, in their order.
    unread: RefCell<VecDeque<Unread>>,
    /// The sum of the costs of `unread`.
    unread_size: Cell<usize>,
    /// The part of it that answers the peer's own calls.
    unread_answers_size: Cell<usize>,
    /// Signalled when messages have been written.
    written: Notify,
    /// Signalled when more answers wait than may, or more is held than may be.
    overrun: Notify,
    /// Why more is held than may be, once that is so.
    too_much: RefCell<Option<String>>,
}

struct Unread {
    cost: usize,
    is_answer: bool,
}

struct Question {
    /// How many questions it is chained to.
    chain: usize,
    /// What is held for it.
    size: usize,
    /// Which one it is; unlike the peer's number never another's later.
    serial: u64,
    /// Those that it is made on, or that it passes on the answers of, as their numbers and which they are. They are held for
    /// as long as it is.
    on: Vec<(u32, u64)>,
    /// How many are made on it.
    dependents: usize,
    is_answered: bool,
    is_finished: bool,
    /// It was cancelled, and nothing is left of it but a place in the RPC system's table.
    is_forgotten: bool,
}

impl Question {
    /// One that is not made on others.
    fn plain(size: usize) -> Self {
        Self {
            chain: 0,
            size,
            serial: 0,
            on: Vec::new(),
            dependents: 0,
            is_answered: false,
            is_finished: false,
            is_forgotten: false,
        }
    }
}

impl Meter {
    pub(super) fn new(limits: Limits, allowance: impl Allowance + 'static) -> Self {
        Self(Rc::new(State {
            limits,
            allowance: RefCell::new(Box::new(allowance)),
            questions: RefCell::default(),
            serials: Cell::default(),
            calls: Cell::default(),
            questions_size: Cell::default(),
            partial_size: Cell::default(),
            unread: RefCell::default(),
            unread_size: Cell::default(),
            unread_answers_size: Cell::default(),
            written: Notify::new(),
            overrun: Notify::new(),
            too_much: RefCell::default(),
        }))
    }

    /// Notes a message of the peer.
    ///
    /// # Errors
    ///
    /// The message is malformed, or asks for too much.
    pub(super) fn received(&self, body: capnp::any_pointer::Reader<'_>) -> Result<(), Error> {
        let size = usize::try_from(body.target_size()?.word_count).unwrap_or(usize::MAX).saturating_mul(8);
        match body.get_as::<message::Reader<'_>>()?.which()? {
            message::Bootstrap(bootstrap) => self.ask(bootstrap?.get_question_id(), Question::plain(size)),
            message::Call(call) => self.called(call?, size),
            message::Return(returned) => match returned?.which()? {
                return_::Results(results) => check_capabilities(results?.get_cap_table()?),
                _ => Ok(()),
            },
            message::Finish(finish) => {
                self.finished(finish?.get_question_id());
                Ok(())
            }
            // What is unknown or answered is the RPC system's affair.
            _ => Ok(()),
        }
    }

    fn called(&self, call: call::Reader<'_>, size: usize) -> Result<(), Error> {
        self.0.allowance.borrow_mut().called();
        // The RPC system would keep the results for ever. No peer asks for that that does not forward calls by itself.
        if let call::send_results_to::Yourself(()) = call.get_send_results_to().which()? {
            return Err(Error::unimplemented("results that are to be kept, `sendResultsTo.yourself`".into()));
        }
        let capabilities = call.get_params()?.get_cap_table()?;
        check_capabilities(capabilities)?;
        let mut question = Question::plain(size.saturating_add(capabilities.len() as usize * CAPABILITY_COST));
        if let message_target::PromisedAnswer(answer) = call.get_target()?.which()? {
            self.chain(&mut question, answer?);
        }
        for capability in capabilities {
            if let cap_descriptor::ReceiverAnswer(answer) = capability.which()? {
                self.chain(&mut question, answer?);
            }
        }
        self.ask(call.get_question_id(), question)
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
        self.0.unread.borrow_mut().push_back(Unread { cost, is_answer: returned.is_some() });
        self.0.unread_size.update(|size| size + cost);
        if let Err(error) = self.hold(cost) {
            self.0.too_much.replace(Some(error));
            self.0.overrun.notify_one();
        }
        if let Some(returned) = returned {
            self.0.unread_answers_size.update(|size| size + cost);
            if self.0.unread_answers_size.get() > self.0.limits.calls_size {
                self.0.overrun.notify_one();
            }
            self.answered(returned.get_answer_id(), returned.get_no_finish_needed());
        }
    }

    /// Notes that the message that was being received is there. It counts as what it asks for from now on.
    pub(super) fn whole(&self) {
        self.release(self.0.partial_size.take());
    }

    /// Waits until the peer has read so much that more may be taken from it.
    pub(super) async fn wait_for_reader(&self) {
        while self.0.unread_size.get() > UNREAD_SIZE_MAX {
            self.0.written.notified().await;
        }
    }

    /// Waits until more answers wait for the peer than may, or more is held for it than may be. Those who answer may be other
    /// cells, so how large their answers are is not for this host to say, and nothing that was asked for is still to be taken
    /// from the peer.
    pub(super) async fn overrun(&self) -> Error {
        let size_max = self.0.limits.calls_size;
        loop {
            if let Some(reason) = &*self.0.too_much.borrow() {
                return Error::overloaded(reason.clone());
            }
            if self.0.unread_answers_size.get() > size_max {
                let text =
                    format!("answers that were not read have more than {size_max} bytes, the limit `call-bytes`");
                return Error::overloaded(text);
            }
            self.0.overrun.notified().await;
        }
    }

    /// Watches the stream of one direction. One that is written must be flushed once after each message.
    pub(super) fn watch<S>(&self, stream: S) -> Watched<S> {
        Watched { stream, meter: self.clone() }
    }

    fn hold(&self, bytes: usize) -> Result<(), String> {
        self.0.allowance.borrow_mut().hold(bytes as u64)
    }

    fn release(&self, bytes: usize) {
        self.0.allowance.borrow_mut().release(bytes as u64);
    }

    fn ask(&self, id: u32, mut question: Question) -> Result<(), Error> {
        if question.chain > CHAIN_MAX {
            return Err(Error::failed(format!("more than {CHAIN_MAX} calls are chained to an unanswered one")));
        }
        let Limits { calls, calls_size, .. } = self.0.limits;
        if self.0.calls.get() >= calls {
            return Err(Error::overloaded(format!("more than {calls} calls are unanswered, the limit `calls`")));
        }
        question.size = question.size.saturating_add(CALL_COST);
        let size = self.0.questions_size.get().saturating_add(question.size);
        if size > calls_size {
            let text =
                format!("unanswered calls have more than {calls_size} bytes of parameters, the limit `call-bytes`");
            return Err(Error::overloaded(text));
        }
        // A number that is in use is an error, which the RPC system will find.
        if self.0.questions.borrow().contains_key(&id) {
            return Ok(());
        }
        self.hold(question.size).map_err(Error::overloaded)?;
        self.0.questions_size.set(size);
        self.0.calls.update(|calls| calls + 1);
        let mut questions = self.0.questions.borrow_mut();
        for (on, _) in &question.on {
            if let Some(on) = questions.get_mut(on) {
                on.dependents += 1;
            }
        }
        question.serial = self.0.serials.get();
        self.0.serials.set(question.serial + 1);
        questions.insert(id, question);
        Ok(())
    }

    /// Chains a call to the question whose answer it is made on, or passes on.
    fn chain(&self, question: &mut Question, answer: promised_answer::Reader<'_>) {
        let id = answer.get_question_id();
        // A call on an answer that is finished is an error at once.
        if let Some(on) = self.0.questions.borrow().get(&id)
            && !on.is_finished
        {
            question.chain = question.chain.max(on.chain + 1);
            question.on.push((id, on.serial));
        }
    }

    fn answered(&self, id: u32, no_finish_needed: bool) {
        self.change(id, |question| {
            question.is_answered = true;
            question.is_finished |= no_finish_needed;
        });
    }

    fn finished(&self, id: u32) {
        self.change(id, |question| question.is_finished = true);
    }

    /// Changes a question, and lets go of what is not held for it any more, and for those that it was made on.
    fn change(&self, id: u32, change: impl FnOnce(&mut Question)) {
        let mut questions = self.0.questions.borrow_mut();
        let Some(question) = questions.get_mut(&id) else { return };
        change(question);
        let mut released = 0;
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            let Some(question) = questions.get_mut(&id) else { continue };
            let is_cancelled = !question.is_answered && question.dependents == 0;
            if !question.is_finished || question.is_forgotten || !(question.is_answered || is_cancelled) {
                // One that was cancelled may be answered after all.
                if question.is_forgotten && question.is_answered {
                    released += question.size;
                    questions.remove(&id);
                }
                continue;
            }
            let on = std::mem::take(&mut question.on);
            let kept = if question.is_answered { 0 } else { CALL_COST };
            released += question.size - kept;
            question.size = kept;
            question.is_forgotten = true;
            if question.is_answered {
                questions.remove(&id);
            }
            self.0.calls.update(|calls| calls - 1);
            for (on, serial) in on {
                if let Some(question) = questions.get_mut(&on)
                    && question.serial == serial
                {
                    question.dependents -= 1;
                    pending.push(on);
                }
            }
        }
        drop(questions);
        self.0.questions_size.update(|size| size - released);
        self.release(released);
    }

    fn message_written(&self) {
        if let Some(Unread { cost, is_answer }) = self.0.unread.borrow_mut().pop_front() {
            self.0.unread_size.update(|size| size - cost);
            self.release(cost);
            if is_answer {
                self.0.unread_answers_size.update(|size| size - cost);
            }
            self.0.written.notify_one();
        }
    }
}

fn check_capabilities(table: struct_list::Reader<'_, cap_descriptor::Owned>) -> Result<(), Error> {
    match table.len() {
        ..=CAPABILITIES_MAX => Ok(()),
        count => Err(Error::failed(format!("a message has {count} capabilities, and {CAPABILITIES_MAX} are allowed"))),
    }
}

/// A stream of which the meter is told what is read, and of whose flushes that a message was written.
pub(super) struct Watched<S> {
    stream: S,
    meter: Meter,
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(size)) = read {
            self.meter.hold(size).map_err(io::Error::other)?;
            self.meter.0.partial_size.update(|partial| partial + size);
        }
        read
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Watched<W> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.meter.message_written();
        }
        flushed
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
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

    /// Tells what is held, of which 100,000 bytes are allowed, and how many calls there were.
    #[derive(Clone, Default)]
    struct Told(Rc<Cell<u64>>, Rc<Cell<usize>>);

    impl Allowance for Told {
        fn called(&mut self) {
            self.1.update(|calls| calls + 1);
        }

        fn hold(&mut self, bytes: u64) -> Result<(), String> {
            let held = self.0.get() + bytes;
            if held > 100_000 {
                return Err("it is too much".into());
            }
            self.0.set(held);
            Ok(())
        }

        fn release(&mut self, bytes: u64) {
            self.0.update(|held| held - bytes);
        }
    }

    fn receive(meter: &Meter, message: &Message) -> Result<(), Error> {
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
        let told = Told::default();
        let meter = Meter::new(LIMITS, told.clone());
        for message in [call(0, None, 0), finish(0), call(1, None, 0)] {
            receive(&meter, &message).unwrap();
        }
        assert_eq!(told.1.get(), 2);
    }

    #[test]
    fn what_is_held_is_booked_and_given_back() {
        let told = Told::default();
        let meter = Meter::new(LIMITS, told.clone());
        let held = |expected: std::ops::RangeInclusive<u64>| {
            assert!(expected.contains(&told.0.get()), "{} is not in {expected:?}", told.0.get());
        };
        receive(&meter, &call(0, None, 40_000)).unwrap();
        receive(&meter, &call(1, None, 40_000)).unwrap();
        held(80_000..=82_000);
        let error = receive(&meter, &call(2, None, 40_000)).unwrap_err();
        assert!(error.to_string().contains("it is too much"), "{error}");
        answer(&meter, 0, true);
        held(40_000..=43_000);
        // Cancelled, so its parameters are gone; answered after all, it is gone as well.
        receive(&meter, &finish(1)).unwrap();
        held(1024 + CALL_COST as u64..=1024 + CALL_COST as u64);
        answer(&meter, 1, false);
        held(2048..=2048);
        let mut writer = meter.watch(futures::io::sink());
        for _ in 0..2 {
            writer.flush().now_or_never().unwrap().unwrap();
        }
        held(0..=0);
        let mut reader = meter.watch(&[7; 1000][..]);
        futures::AsyncReadExt::read_exact(&mut reader, &mut [0; 600]).now_or_never().unwrap().unwrap();
        held(600..=600);
        meter.whole();
        held(0..=0);
    }

    #[test]
    fn a_cancelled_call_is_held_by_those_that_are_made_on_it() {
        let told = Told::default();
        let meter = Meter::new(LIMITS, told.clone());
        receive(&meter, &call(0, None, 10_000)).unwrap();
        for question in 1..=3 {
            receive(&meter, &call(question, Some(question - 1), 10_000)).unwrap();
            receive(&meter, &finish(question - 1)).unwrap();
        }
        assert!(told.0.get() > 40_000, "all four are there");
        receive(&meter, &finish(3)).unwrap();
        assert_eq!(told.0.get(), 4 * CALL_COST as u64);
        assert_eq!(meter.0.calls.get(), 0);
    }

    /// The number of a question that was answered is another's by then.
    #[test]
    fn a_question_is_not_taken_for_another_of_its_number() {
        let told = Told::default();
        let meter = Meter::new(LIMITS, told.clone());
        receive(&meter, &call(0, None, 1_000)).unwrap();
        receive(&meter, &call(1, Some(0), 1_000)).unwrap();
        answer(&meter, 0, true);
        receive(&meter, &call(0, None, 1_000)).unwrap();
        receive(&meter, &call(2, Some(0), 1_000)).unwrap();
        let before = told.0.get();
        receive(&meter, &finish(1)).unwrap();
        receive(&meter, &finish(0)).unwrap();
        assert!(before - told.0.get() < 1_500, "the second is held by the third");
    }

    #[test]
    fn calls_that_were_cancelled_are_bounded() {
        let meter = Meter::new(LIMITS, Told::default());
        let cancelled = (0..1_000_000).take_while(|question| {
            receive(&meter, &call(*question, None, 0)).and_then(|()| receive(&meter, &finish(*question))).is_ok()
        });
        assert!((190..200).contains(&cancelled.count()));
    }

    #[test]
    fn a_message_with_many_capabilities_is_refused() {
        let with = |count| {
            let mut message = call(0, None, 0);
            let message::Call(Ok(call)) = message.get_root::<message::Builder<'_>>().unwrap().which().unwrap() else {
                unreachable!("it is a call");
            };
            call.get_params().unwrap().init_cap_table(count);
            receive(&meter(), &message)
        };
        with(CAPABILITIES_MAX).unwrap();
        let error = with(CAPABILITIES_MAX + 1).unwrap_err();
        assert!(error.to_string().contains("a message has 1025 capabilities, and 1024 are allowed"), "{error}");
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
        let others = 1_000_000;
        for question in others..others + 3 * LIMITS.calls as u32 {
            receive(&meter, &call(question, None, 0)).unwrap();
            match question % 2 {
                0 => receive(&meter, &finish(question)).unwrap(),
                _ => answer(&meter, question, true),
            }
        }
        assert_eq!(meter.0.questions_size.get(), 3 * LIMITS.calls / 2 * CALL_COST, "half of them were cancelled");
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
