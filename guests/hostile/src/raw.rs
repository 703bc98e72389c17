//! The RPC channel in the hands of somebody who means no good, and keeps to the protocol as far as that helps.

use std::io::{self, Read, Write};
use std::time::Instant;

use capnp_rpc::rpc_capnp::message;
use wasip2::io::streams::{InputStream, OutputStream};
use ww_guest::capnp;
use ww_guest::capnp::message::{Builder, HeapAllocator, ReaderOptions};
use ww_guest::capnp::serialize;
use ww_guest::capnp::traits::{HasTypeId, ImbueMut};
use ww_guest::peer_capnp::{executor, host};

use crate::{ENOUGH, Outcome};

/// Methods by their numbers in the schema.
pub(crate) const ID: u16 = 0;
const EXECUTOR: u16 = 4;
const RESTRICT: u16 = 5;
const ECHO: u16 = 1;

pub(crate) type Message = Builder<HeapAllocator>;

/// Both directions, in which nothing is done by itself.
pub(crate) struct Session {
    input: InputStream,
    output: OutputStream,
}

impl Session {
    pub(crate) fn open() -> Result<Self, &'static str> {
        let (input, output) = ww_guest::take_channel().ok_or("the host offers no RPC channel")?;
        Ok(Self { input, output })
    }

    /// The same, with the bootstrap capability as the answer to question 0.
    pub(crate) fn bootstrap() -> Result<Self, Box<dyn std::error::Error>> {
        let mut session = Self::open()?;
        session.send(&bootstrap(0))?;
        Ok(session)
    }

    pub(crate) fn send(&mut self, message: &Message) -> io::Result<()> {
        self.send_bytes(&serialize::write_message_to_words(message))
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)
    }

    /// Says no more, reads everything, and tells what the host said last.
    pub(crate) fn end(self) -> Outcome {
        let Self { mut input, output } = self;
        // An error if the host has closed it.
        let _ = { output }.flush();
        let mut answers = Vec::new();
        input.read_to_end(&mut answers)?;
        let mut rest = answers.as_slice();
        let mut last = "nothing".to_owned();
        let mut count = 0;
        while let Ok(answer) = serialize::read_message_from_flat_slice(&mut rest, ReaderOptions::new()) {
            count += 1;
            if let Ok(message::Abort(Ok(abort))) = answer.get_root::<message::Reader<'_>>()?.which() {
                last = abort.get_reason()?.to_string()?.escape_debug().to_string();
            }
        }
        let some = if count > 1 { "answers" } else { "no answer" };
        Ok(format!("the host ended the session after {some}, and said: {last}"))
    }

    /// Sends what `next` makes for each question, for as long as the host takes it, and reads nothing.
    fn flood(self, next: impl FnMut(u32) -> capnp::Result<Vec<Message>>) -> Outcome {
        self.send_all(next, |_| ())
    }

    /// As `flood`, but throws away what the host answers, so that it is not held up by that.
    fn stream(self, next: impl FnMut(u32) -> capnp::Result<Vec<Message>>) -> Outcome {
        self.send_all(next, |input| while matches!(input.read(1 << 16), Ok(bytes) if !bytes.is_empty()) {})
    }

    fn send_all(
        mut self,
        mut next: impl FnMut(u32) -> capnp::Result<Vec<Message>>,
        read: impl Fn(&InputStream),
    ) -> Outcome {
        let start = Instant::now();
        for question in 1.. {
            read(&self.input);
            for message in next(question)? {
                if self.send(&message).is_err() {
                    return Err(self.end()?.into());
                }
            }
            if question % 64 == 0 && start.elapsed() > ENOUGH {
                return Ok(format!("no end after {} calls", if question > 1000 { "many" } else { "some" }));
            }
        }
        Ok(String::new())
    }
}

pub(crate) fn bootstrap(question: u32) -> Message {
    let mut message = Builder::new_default();
    message.init_root::<message::Builder<'_>>().init_bootstrap().set_question_id(question);
    message
}

pub(crate) fn finish(question: u32) -> Message {
    let mut message = Builder::new_default();
    let mut finish = message.init_root::<message::Builder<'_>>().init_finish();
    finish.set_question_id(question);
    finish.set_release_result_caps(true);
    message
}

/// A call on the answer to a question, or on the capability in the first pointer of it.
pub(crate) fn call(question: u32, interface: u64, method: u16, on: u32, in_field: bool) -> Message {
    let mut message = Builder::new_default();
    let mut call = message.init_root::<message::Builder<'_>>().init_call();
    call.set_question_id(question);
    call.set_interface_id(interface);
    call.set_method_id(method);
    let mut target = call.init_target().init_promised_answer();
    target.set_question_id(on);
    if in_field {
        target.init_transform(1).get(0).set_get_pointer_field(0);
    }
    message
}

pub(crate) fn host_call(question: u32, method: u16) -> Message {
    call(question, <host::Client as HasTypeId>::TYPE_ID, method, 0, false)
}

/// What a message has of a call.
pub(crate) fn fill(
    message: &mut Message,
    fill: impl FnOnce(capnp_rpc::rpc_capnp::call::Builder<'_>) -> capnp::Result<()>,
) -> capnp::Result<()> {
    match message.get_root::<message::Builder<'_>>()?.which()? {
        message::Call(call) => fill(call?),
        _ => Ok(()),
    }
}

/// A call that returns only when a promise of this program is resolved: never. Its parameters have so many capabilities.
fn endless(question: u32, capabilities: u32) -> capnp::Result<Message> {
    let mut message = host_call(question, RESTRICT);
    fill(&mut message, |call| {
        let mut payload = call.init_params();
        // Stands for the first entry of the table that is written below.
        let first: capnp::capability::Client = capnp_rpc::new_broken_cap(capnp::Error::failed(String::new()));
        let mut table = Vec::new();
        let mut content = payload.reborrow().init_content();
        content.imbue_mut(&mut table);
        content.init_as::<host::restrict_params::Builder<'_>>().init_capability().set_as_capability(first.hook);
        let mut table = payload.init_cap_table(capabilities);
        table.reborrow().get(0).set_sender_promise(question);
        for index in 1..capabilities {
            table.reborrow().get(index).set_sender_hosted(question + index);
        }
        Ok(())
    })?;
    Ok(message)
}

/// Calls, and reads no answer.
pub(crate) fn flood_calls() -> Outcome {
    Session::bootstrap()?.flood(|question| Ok(vec![host_call(question, ID)]))
}

/// Calls with so many bytes, each to be returned, and reads nothing.
pub(crate) fn flood_bytes(size: usize) -> Outcome {
    let mut session = Session::bootstrap()?;
    session.send(&host_call(1, EXECUTOR))?;
    let text = "x".repeat(size);
    session.flood(|question| {
        let mut message = call(question + 1, <executor::Client as HasTypeId>::TYPE_ID, ECHO, 1, true);
        fill(&mut message, |call| {
            call.init_params().init_content().init_as::<executor::echo_params::Builder<'_>>().set_message(&text);
            Ok(())
        })?;
        Ok(vec![message])
    })
}

/// The beginning of a message that never becomes whole.
pub(crate) fn flood_half() -> Outcome {
    let mut session = Session::bootstrap()?;
    let words = 60_u32 << 17;
    session.send_bytes(&[0; 4])?;
    session.send_bytes(&words.to_le_bytes())?;
    let piece = vec![0x55; 1 << 20];
    for _ in 0..59 {
        if session.send_bytes(&piece).is_err() {
            return Err(session.end()?.into());
        }
    }
    let mut answers = Vec::new();
    session.input.read_to_end(&mut answers)?;
    Ok("the host ended the session".into())
}

pub(crate) fn pending() -> Outcome {
    Session::bootstrap()?.flood(|question| Ok(vec![endless(question, 1)?]))
}

pub(crate) fn cancel() -> Outcome {
    Session::bootstrap()?.stream(|question| Ok(vec![endless(question, 1)?, finish(question)]))
}

pub(crate) fn chain() -> Outcome {
    let interface = <host::Client as HasTypeId>::TYPE_ID;
    Session::bootstrap()?.flood(|question| match question {
        1 => Ok(vec![endless(1, 1)?]),
        _ => Ok(vec![call(question, interface, ID, question - 1, true), finish(question - 1)]),
    })
}

pub(crate) fn capabilities() -> Outcome {
    let message = endless(1, 1_000_000)?;
    let mut session = Session::bootstrap()?;
    let _ = session.send(&message);
    drop(message);
    Err(session.end()?.into())
}

pub(crate) fn yourself() -> Outcome {
    Session::bootstrap()?.stream(|question| {
        let mut message = host_call(question, ID);
        fill(&mut message, |call| {
            call.init_send_results_to().set_yourself(());
            Ok(())
        })?;
        Ok(vec![message, finish(question)])
    })
}
