//! Messages that stand in for others: what the RPC system is told in the peer's stead, and the peer in the RPC system's.

use std::cell::RefCell;
use std::collections::VecDeque;

use capnp::Error;
use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::IncomingMessage;
use capnp_rpc::rpc_capnp::{cap_descriptor, exception, message, payload, resolve, return_};
use tokio::sync::Notify;

/// Messages for the RPC system that did not come from the peer.
#[derive(Default)]
pub(super) struct Asides {
    waiting: RefCell<VecDeque<Aside>>,
    arrived: Notify,
}

/// One of them.
pub(super) struct Aside {
    pub(super) message: Message,
    /// The question that it answers.
    pub(super) answers: Option<u32>,
}

impl Asides {
    /// Takes the next.
    pub(super) fn take(&self) -> Option<Aside> {
        self.waiting.borrow_mut().pop_front()
    }

    /// Waits until there is one.
    pub(super) async fn arrival(&self) {
        while self.waiting.borrow().is_empty() {
            self.arrived.notified().await;
        }
    }

    fn add(&self, message: Message, answers: Option<u32>) {
        self.waiting.borrow_mut().push_back(Aside { message, answers });
        self.arrived.notify_one();
    }

    /// Answers a call that is not sent, and gives back what is handed over in it.
    pub(super) fn refuse_call(&self, call: capnp_rpc::rpc_capnp::call::Reader<'_>, reason: &str) -> Result<(), Error> {
        let mut message = Message::default();
        let mut returned = message.0.init_root::<message::Builder<'_>>().init_return();
        returned.set_answer_id(call.get_question_id());
        returned.set_no_finish_needed(true);
        fail(returned.init_exception(), reason);
        self.add(message, Some(call.get_question_id()));
        self.give_back(call.get_params()?)
    }

    /// Gives back what is handed over in an answer that is not sent.
    pub(super) fn refuse_answer(&self, answer: return_::Reader<'_>) -> Result<(), Error> {
        match answer.which()? {
            return_::Results(results) => self.give_back(results?),
            _ => Ok(()),
        }
    }

    fn give_back(&self, payload: payload::Reader<'_>) -> Result<(), Error> {
        for descriptor in payload.get_cap_table()? {
            if let cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id) = descriptor.which()? {
                let mut message = Message::default();
                let mut release = message.0.init_root::<message::Builder<'_>>().init_release();
                release.set_id(id);
                release.set_reference_count(1);
                self.add(message, None);
            }
        }
        Ok(())
    }
}

/// A message that was made here.
pub(super) struct Message(Builder<HeapAllocator>);

impl Default for Message {
    fn default() -> Self {
        Self(Builder::new(HeapAllocator::new().first_segment_words(64)))
    }
}

impl IncomingMessage for Message {
    fn get_body(&self) -> capnp::Result<capnp::any_pointer::Reader<'_>> {
        self.0.get_root_as_reader()
    }
}

/// What has the RPC system give back what a `Resolve` names, where there is no promise of this number.
pub(super) fn give_back(resolve: resolve::Reader<'_>, no_promise: u32) -> Result<Message, Error> {
    let mut message = Message::default();
    let mut replaced = message.0.init_root::<message::Builder<'_>>().init_resolve();
    replaced.set_promise_id(no_promise);
    if let resolve::Cap(descriptor) = resolve.which()? {
        match descriptor?.which()? {
            cap_descriptor::SenderHosted(id) => replaced.init_cap().set_sender_hosted(id),
            cap_descriptor::SenderPromise(id) => replaced.init_cap().set_sender_promise(id),
            _ => {}
        }
    }
    Ok(message)
}

/// What has the RPC system take a question for finished, and release nothing for that.
pub(super) fn finish(question: u32) -> Message {
    let mut message = Message::default();
    let mut finish = message.0.init_root::<message::Builder<'_>>().init_finish();
    finish.set_question_id(question);
    finish.set_release_result_caps(false);
    message
}

/// What the RPC system keeps of an answer that is not sent, as long as the peer can look into it: there is nothing in it.
pub(super) fn empty_answer() -> Builder<HeapAllocator> {
    let mut message = Message::default();
    message.0.init_root::<message::Builder<'_>>().init_return().init_results();
    message.0
}

/// Writes, instead of an answer that is not sent, why it is not.
pub(super) fn write_refusal(answer: return_::Reader<'_>, reason: &str, message: message::Builder<'_>) {
    let mut returned = message.init_return();
    returned.set_answer_id(answer.get_answer_id());
    returned.set_release_param_caps(false);
    returned.set_no_finish_needed(answer.get_no_finish_needed());
    fail(returned.init_exception(), reason);
}

fn fail(mut exception: exception::Builder<'_>, reason: &str) {
    exception.set_type(exception::Type::Failed);
    exception.set_reason(reason);
}
