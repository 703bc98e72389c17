//! Messages that are none, or make no sense.

use capnp_rpc::rpc_capnp::{message, resolve};
use ww_guest::capnp::message::Builder;
use ww_guest::capnp::traits::HasTypeId;
use ww_guest::peer_capnp::host;

use crate::Outcome;
use crate::raw::{ID, Message, Session, bootstrap, call, fill, finish, host_call};

/// What can be sent.
pub(crate) const KINDS: [&str; 41] = [
    "random",
    "segments",
    "many-segments",
    "empty",
    "nonsense",
    "huge",
    "huge-list",
    "truncated",
    "far-loop",
    "double-far",
    "deep",
    "amplified",
    "return-unknown",
    "return-taken",
    "finish-unknown",
    "resolve-unknown",
    "resolve-none",
    "resolve-exception",
    "disembargo-unknown",
    "disembargo-sender",
    "disembargo-answer",
    "release-unknown",
    "release-many",
    "question-twice",
    "bootstrap-twice",
    "unimplemented-bootstrap",
    "unimplemented-resolve",
    "accept",
    "provide",
    "join",
    "third-party",
    "third-party-capability",
    "abort",
    "unknown-method",
    "unknown-interface",
    "transform-nowhere",
    "transform-long",
    "capability-nowhere",
    "answer-nowhere",
    "target-nowhere",
    "bad-text",
];

/// Sends the host's own bootstrap question before, so that there is something to refer to.
pub(crate) fn send(kind: &str) -> Outcome {
    let mut session = Session::bootstrap()?;
    // The host may end the session before it has taken everything.
    match bytes(kind) {
        Some(bytes) => drop(session.send_bytes(&bytes)),
        None => {
            let messages = messages(kind).ok_or("there is no such kind")?;
            let _ = messages.iter().try_for_each(|message| session.send(message));
        }
    }
    session.end()
}

/// A message of one segment.
fn segment(words: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend((words.len() as u32).to_le_bytes());
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

/// A pointer to a struct that begins so many words after it (encoding.html).
const fn to_struct(offset: u32, data_words: u16, pointers: u16) -> u64 {
    (offset as u64) << 2 | (data_words as u64) << 32 | (pointers as u64) << 48
}

/// A pointer to a list of so many elements of this size class.
const fn to_list(offset: u32, class: u64, count: u32) -> u64 {
    1 | (offset as u64) << 2 | class << 32 | (count as u64) << 35
}

/// A bootstrap message (number 8 in `Message`) whose `deprecatedObjectId` is the first of these words.
fn with_object(words: &[u64]) -> Vec<u8> {
    let mut all = vec![to_struct(0, 1, 1), 8, to_struct(0, 1, 1), 1];
    all.extend_from_slice(words);
    segment(&all)
}

fn bytes(kind: &str) -> Option<Vec<u8>> {
    Some(match kind {
        "random" => (0..100_000_u32).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect(),
        // 2^32 segments.
        "segments" => vec![0xff; 4096],
        "many-segments" => [&100_000_u32.to_le_bytes()[..], &[0; 400_004]].concat(),
        // One segment without a word, again and again.
        "empty" => vec![0; 800_000],
        // A struct pointer to far outside.
        "nonsense" => segment(&[to_struct(0x1fff_ffff, 0xffff, 0xffff), u64::MAX]),
        // One segment of 2^32 - 1 words, which do not follow.
        "huge" => [[0; 4], [0xff; 4], [0; 4], [0; 4]].concat(),
        "huge-list" => with_object(&[to_list(0, 7, 0x1fff_ffff), to_struct(0x1fff_ffff, 0, 0)]),
        // One segment of 16 words, of which half a word follows.
        "truncated" => [[0; 4], [16, 0, 0, 0], [0; 4]].concat(),
        // A far pointer is 2 in the lowest bits, whether it is a double one, where in the segment, and which segment.
        "far-loop" => segment(&[2, 2, 2]),
        "double-far" => segment(&[2 | 1 << 2, 2 | 1 << 2, 2 | 1 << 2]),
        "deep" => with_object(&vec![to_struct(0, 0, 1); 1_000_000]),
        "amplified" => {
            // A thousand pointers to one list of a million words.
            let pointers = 1000_u32;
            let mut words = vec![to_list(0, 6, pointers)];
            words.extend((0..pointers).map(|number| to_list(pointers - 1 - number, 5, 1_000_000)));
            words.extend(vec![7; 1_000_000]);
            with_object(&words)
        }
        _ => return None,
    })
}

fn built(build: impl FnOnce(message::Builder<'_>)) -> Message {
    let mut message = Builder::new_default();
    build(message.init_root());
    message
}

fn messages(kind: &str) -> Option<Vec<Message>> {
    let host = <host::Client as HasTypeId>::TYPE_ID;
    Some(match kind {
        "return-unknown" => vec![built(|message| message.init_return().set_answer_id(77))],
        "return-taken" => vec![built(|message| message.init_return().set_take_from_other_question(0))],
        "finish-unknown" => (0..10_000).map(|number| finish(1000 + number)).collect(),
        "resolve-unknown" => vec![built(|message| {
            let mut resolve = message.init_resolve();
            resolve.set_promise_id(9);
            resolve.init_cap().set_sender_hosted(9);
        })],
        "resolve-none" => vec![built(|message| message.init_resolve().init_cap().set_none(()))],
        "resolve-exception" => vec![built(|message| {
            let resolve: resolve::Builder<'_> = message.init_resolve();
            resolve.init_exception().set_reason("because");
        })],
        "disembargo-unknown" => {
            vec![built(|message| message.init_disembargo().init_context().set_receiver_loopback(7))]
        }
        "disembargo-sender" => vec![built(|message| {
            let mut disembargo = message.init_disembargo();
            disembargo.reborrow().init_context().set_sender_loopback(7);
            disembargo.init_target().set_imported_cap(0);
        })],
        "disembargo-answer" => vec![built(|message| {
            let mut disembargo = message.init_disembargo();
            disembargo.reborrow().init_context().set_sender_loopback(7);
            disembargo.init_target().init_promised_answer().set_question_id(0);
        })],
        "release-unknown" => vec![built(|message| {
            let mut release = message.init_release();
            release.set_id(99);
            release.set_reference_count(1);
        })],
        "release-many" => vec![built(|message| message.init_release().set_reference_count(u32::MAX))],
        "question-twice" => vec![host_call(1, ID), host_call(1, ID)],
        "bootstrap-twice" => vec![bootstrap(0)],
        "unimplemented-bootstrap" => vec![built(|message| {
            message.init_unimplemented().init_bootstrap();
        })],
        "unimplemented-resolve" => vec![built(|message| {
            message.init_unimplemented().init_resolve().init_cap().set_sender_hosted(12);
        })],
        "accept" => vec![built(|message| message.init_accept().set_question_id(3))],
        "provide" => vec![built(|message| message.init_provide().set_question_id(3))],
        "join" => vec![built(|message| message.init_join().set_question_id(3))],
        "third-party" => vec![changed(|call| {
            call.init_send_results_to().init_third_party();
        })],
        "third-party-capability" => {
            vec![changed(|call| {
                call.init_params().init_cap_table(1).get(0).init_third_party_hosted();
            })]
        }
        "abort" => vec![built(|message| message.init_abort().set_reason("\u{1b}[2J"))],
        "unknown-method" => vec![host_call(1, u16::MAX)],
        "unknown-interface" => vec![call(1, 0x1234, 0, 0, false)],
        "transform-nowhere" => vec![changed(|call| {
            let mut answer = call.init_target().init_promised_answer();
            answer.reborrow().init_transform(1).get(0).set_get_pointer_field(u16::MAX);
        })],
        "transform-long" => vec![changed(|call| {
            let mut transform = call.init_target().init_promised_answer().init_transform(1_000_000);
            for index in 0..1_000_000 {
                transform.reborrow().get(index).set_get_pointer_field(0);
            }
        })],
        "capability-nowhere" => {
            vec![changed(|call| call.init_params().init_cap_table(1).get(0).set_receiver_hosted(4_000_000_000))]
        }
        "answer-nowhere" => vec![changed(|call| {
            call.init_params().init_cap_table(1).get(0).init_receiver_answer().set_question_id(4_000_000_000);
        })],
        "target-nowhere" => vec![call(1, host, ID, 4_000_000_000, true)],
        // The text of an abort is shown in the log.
        "bad-text" => vec![built(|message| {
            message.init_abort().set_reason(ww_guest::capnp::text::Reader(b"\xff\xfe\x1b[2J"));
        })],
        _ => return None,
    })
}

/// A call of `Host.id` with something else about it.
fn changed(change: impl FnOnce(capnp_rpc::rpc_capnp::call::Builder<'_>)) -> Message {
    let mut message = host_call(1, ID);
    let filled = fill(&mut message, |call| {
        change(call);
        Ok(())
    });
    debug_assert!(filled.is_ok());
    message
}

/// Refers to the host's capability of this number, as the target of a call, as its parameter, in a release, and as the answer
/// to a question.
pub(crate) fn guess(number: u32) -> Outcome {
    let mut session = Session::bootstrap()?;
    let mut target = host_call(1, ID);
    fill(&mut target, |call| {
        call.init_target().set_imported_cap(number);
        Ok(())
    })?;
    let _ = session.send(&target);
    session.end()
}
