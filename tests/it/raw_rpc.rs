//! Guests that send whatever they like as RPC, on a real host: what would once have ended the process.

use std::io::Write;
use std::process::Stdio;
use std::thread;

use capnp::any_pointer;
use capnp::capability::Client;
use capnp::message::{Builder, HeapAllocator, ReaderOptions};
use capnp::serialize;
use capnp::traits::{HasTypeId, ImbueMut};
use capnp_rpc::rpc_capnp::{cap_descriptor, message, promised_answer, return_};
use ww_schema::peer_capnp::host;

use crate::support::{finish, guest, image, probe_image, wait, ww_run};

type Message = Builder<HeapAllocator>;

/// Methods of `Host` by their numbers in the schema.
const ID: u16 = 0;
const REVOCABLE: u16 = 6;

fn message(fill: impl FnOnce(message::Builder<'_>)) -> Vec<u8> {
    let mut message = Message::new_default();
    fill(message.init_root());
    serialize::write_message_to_words(&message)
}

fn bootstrap() -> Vec<u8> {
    message(|message| message.init_bootstrap().set_question_id(0))
}

/// What a call is made on: something that was handed over, or the answer to a question.
enum Target {
    Import(u32),
    Answer(u32),
}

/// A call of a method of `Host`, with one capability if there is a writer for it.
fn call(
    question: u32,
    target: Target,
    method: u16,
    capability: Option<&dyn Fn(cap_descriptor::Builder<'_>)>,
) -> Vec<u8> {
    message(|message| {
        let mut call = message.init_call();
        call.set_question_id(question);
        call.set_interface_id(<host::Client as HasTypeId>::TYPE_ID);
        call.set_method_id(method);
        let mut on = call.reborrow().init_target();
        match target {
            Target::Import(id) => on.set_imported_cap(id),
            Target::Answer(question) => write_answer(question, on.init_promised_answer()),
        }
        if let Some(write) = capability {
            let mut params = call.init_params();
            write(params.reborrow().init_cap_table(1).get(0));
            name_first(params.get_content());
        }
    })
}

/// The first capability in an answer; that to the question 0 is one itself.
fn write_answer(question: u32, mut answer: promised_answer::Builder<'_>) {
    answer.set_question_id(question);
    if question != 0 {
        answer.init_transform(1).get(0).set_get_pointer_field(0);
    }
}

/// Points from the first field to the first capability of the message.
fn name_first(mut content: any_pointer::Builder<'_>) {
    let mut table = Vec::new();
    let mut content = content.reborrow();
    content.imbue_mut(&mut table);
    let broken: Client = capnp_rpc::new_broken_cap(capnp::Error::failed(String::new()));
    content.init_as::<host::revocable_params::Builder<'_>>().init_capability().set_as_capability(broken.hook);
}

/// Runs a guest that sends these bytes, and returns the texts of the exceptions that it got. The last question must be one
/// for the host's id, and be answered.
#[track_caller]
fn exceptions(bytes: Vec<u8>, last: u32) -> Vec<String> {
    let image = probe_image();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut command = ww_run(image.path(), &["--", "raw-rpc"]);
    let mut running = command.stdin(Stdio::piped()).stdout(file.reopen().unwrap()).spawn().unwrap();
    let mut stdin = running.stdin.take().unwrap();
    let writer = thread::spawn(move || drop(stdin.write_all(&bytes)));
    assert!(wait(&mut running).success());
    writer.join().unwrap();
    let said = std::fs::read(file.path()).unwrap();
    let mut rest = said.as_slice();
    let mut exceptions = Vec::new();
    let mut is_answered = false;
    while let Ok(message) = serialize::read_message(&mut rest, ReaderOptions::new()) {
        let message::Return(returned) = message.get_root::<message::Reader<'_>>().unwrap().which().unwrap() else {
            continue;
        };
        let returned = returned.unwrap();
        match returned.which().unwrap() {
            return_::Exception(exception) => {
                exceptions.push(exception.unwrap().get_reason().unwrap().to_string().unwrap());
            }
            _ => is_answered |= returned.get_answer_id() == last,
        }
    }
    assert!(is_answered, "the host is not there any more; {exceptions:?}");
    exceptions
}

#[test]
fn a_chain_of_promises_ends_nothing() {
    let mut bytes = bootstrap();
    bytes.extend(call(1, Target::Answer(0), REVOCABLE, Some(&|mut capability| capability.set_sender_promise(1))));
    for link in 1..50_000 {
        bytes.extend(message(|message| {
            let mut resolve = message.init_resolve();
            resolve.set_promise_id(link);
            resolve.init_cap().set_sender_promise(link + 1);
        }));
    }
    bytes.extend(call(2, Target::Answer(0), ID, None));
    assert!(exceptions(bytes, 2).is_empty());
}

#[test]
fn a_chain_of_calls_through_revocable_capabilities_ends_nothing() {
    let mut bytes = bootstrap();
    bytes.extend(call(1, Target::Answer(0), REVOCABLE, Some(&|mut capability| capability.set_sender_hosted(5))));
    // Nobody answers this one, and each of the others waits for the one before.
    bytes.extend(call(2, Target::Answer(1), ID, None));
    let mut last = 2;
    for link in 0..600 {
        let question = 10 + 2 * link;
        let before = last;
        let write =
            move |capability: cap_descriptor::Builder<'_>| write_answer(before, capability.init_receiver_answer());
        bytes.extend(call(question, Target::Answer(1), ID, Some(&write)));
        last = question + 1;
        // The host has handed over its bootstrap capability, two for the first call, and then one with each.
        bytes.extend(call(last, Target::Import(3 + link), ID, None));
    }
    bytes.extend(call(5000, Target::Answer(0), ID, None));
    let exceptions = exceptions(bytes, 5000);
    assert!(exceptions.iter().any(|text| text.contains("more than 64 calls wait for each other")), "{exceptions:?}");
}

/// A program that fills a message, with what no compiler has to look at.
#[test]
fn a_program_as_large_as_a_message_is_loaded() {
    let probe = guest("probe");
    let mut large = std::fs::read(&probe).unwrap();
    let padding = 60 * 1024 * 1024 - large.len();
    // A custom section: 0, its length in LEB128, the length of its name and that, and anything.
    large.push(0);
    let mut length = padding + 2;
    while length >= 0x80 {
        large.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    large.push(length as u8);
    large.extend([1, b'x']);
    large.resize(large.len() + padding, 0);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), large).unwrap();
    let image = image(&[("bin/main.wasm", &probe), ("bin/large.wasm", file.path())]);
    finish(&mut ww_run(image.path(), &["--", "module-spawn", "/bin/large.wasm"])).expect(0);
}
