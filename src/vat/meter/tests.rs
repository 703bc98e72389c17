use super::*;
use capnp::traits::ImbueMut;
use capnp::{Error, Word};
use capnp_rpc::rpc_capnp::{cap_descriptor, resolve};
use futures::{AsyncWriteExt, FutureExt};

use crate::vat::tables::{CAPABILITIES_MAX, CHAIN_MAX};

type Message = Builder<HeapAllocator>;

const LIMITS: Limits =
    Limits { message_size: 64 * 1024 * 1024, calls: 16 * 1024, calls_size: 4 * 64 * 1024 * 1024, handles: 64 };

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

    fn hold(&self, bytes: usize) -> Result<(), Overrun> {
        if self.held.get() + bytes > self.most {
            return Err(Overrun { limit: Limit::Memory, reason: "there is no room".into() });
        }
        self.held.update(|held| held + bytes);
        Ok(())
    }

    fn release(&self, bytes: usize) {
        self.held.update(|held| held - bytes);
    }
}

fn receive(meter: &Meter, message: &Message) -> Result<(Passage, Room), Refusal> {
    meter.coming(message.size_in_words() * size_of::<Word>())?;
    meter.received(message.get_root_as_reader()?)
}

/// Receives a message that is gone afterwards, and says how it passes.
#[track_caller]
fn pass(meter: &Meter, message: &Message) -> Passage {
    receive(meter, message).map(|(passage, _)| passage).unwrap()
}

#[track_caller]
fn refusal(meter: &Meter, message: &Message) -> String {
    Error::from(receive(meter, message).err().expect("it is refused")).to_string()
}

fn send(meter: &Meter, message: Message) -> Sent {
    let message = Rc::new(message);
    meter.sent(&message);
    message
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

/// A capability in a message.
#[derive(Clone, Copy)]
enum Capability {
    Hosted(u32),
    Promise(u32),
    Back(u32),
    Answer(u32),
}

impl Capability {
    fn write(self, mut descriptor: cap_descriptor::Builder<'_>) {
        match self {
            Self::Hosted(id) => descriptor.set_sender_hosted(id),
            Self::Promise(id) => descriptor.set_sender_promise(id),
            Self::Back(id) => descriptor.set_receiver_hosted(id),
            Self::Answer(question) => descriptor.init_receiver_answer().set_question_id(question),
        }
    }
}

use Capability::{Answer, Back, Hosted, Promise};

/// A call of `question` on `target` with these.
fn call_with(question: u32, target: u32, capabilities: &[Capability]) -> Message {
    let mut message = call(question, None, 0);
    let message::Call(Ok(mut call)) = message.get_root::<message::Builder<'_>>().unwrap().which().unwrap() else {
        panic!("it is a call");
    };
    call.reborrow().init_target().set_imported_cap(target);
    let mut table = call.init_params().init_cap_table(capabilities.len() as u32);
    for (index, capability) in (0..).zip(capabilities) {
        capability.write(table.reborrow().get(index));
    }
    message
}

fn resolve_to(promise: u32, capability: Option<Capability>) -> Message {
    let mut message = Message::new_default();
    let mut resolve = message.init_root::<message::Builder<'_>>().init_resolve();
    resolve.set_promise_id(promise);
    match capability {
        Some(capability) => capability.write(resolve.init_cap()),
        None => resolve.init_exception().set_reason("broken"),
    }
    message
}

fn release(id: u32) -> Message {
    let mut message = Message::new_default();
    let mut release = message.init_root::<message::Builder<'_>>().init_release();
    release.set_id(id);
    release.set_reference_count(1);
    message
}

fn finish(question: u32) -> Message {
    let mut message = Message::new_default();
    message.init_root::<message::Builder<'_>>().init_finish().set_question_id(question);
    message
}

fn answer_with(question: u32, no_finish_needed: bool, capabilities: &[Capability], size: u32) -> Message {
    let mut message = Message::new_default();
    let mut returned = message.init_root::<message::Builder<'_>>().init_return();
    returned.set_answer_id(question);
    returned.set_no_finish_needed(no_finish_needed);
    let mut results = returned.init_results();
    results.reborrow().init_content().initn_as::<capnp::data::Builder<'_>>(size);
    let mut table = results.init_cap_table(capabilities.len() as u32);
    for (index, capability) in (0..).zip(capabilities) {
        capability.write(table.reborrow().get(index));
    }
    message
}

fn answer(meter: &Meter, question: u32, no_finish_needed: bool) {
    send(meter, answer_with(question, no_finish_needed, &[], 0));
}

fn write_one(writer: &mut WatchedWriter<futures::io::Sink>) {
    writer.flush().now_or_never().unwrap().unwrap();
}

#[track_caller]
fn overrun(meter: &Meter) -> String {
    Error::from(meter.overrun().now_or_never().expect("it is too much")).to_string()
}

#[test]
fn a_chain_of_unanswered_calls_is_bounded() {
    let meter = meter();
    pass(&meter, &call(0, None, 0));
    for question in 1..=CHAIN_MAX as u32 {
        pass(&meter, &call(question, Some(question - 1), 0));
    }
    let end = CHAIN_MAX as u32;
    let error = refusal(&meter, &call(end + 1, Some(end), 0));
    assert!(error.contains("64 calls are chained"), "{error}");
    assert!(refusal(&meter, &call_with(end + 2, 0, &[Answer(end)])).contains("64 calls are chained"));
}

#[test]
fn a_chain_goes_on_behind_promises_of_other_connections() {
    let (left, right) = (meter(), meter());
    let mut refused = None;
    for round in 0..2 * CHAIN_MAX as u32 {
        // Each calls what the other has promised it, and passes the promised answer on.
        for (meter, other) in [(&left, &right), (&right, &left)] {
            let promise = if round == 0 { 9999 } else { round };
            if let Err(error) = receive(meter, &call_with(round, promise, &[])) {
                refused.get_or_insert((round, Error::from(error).to_string()));
            }
            let system = Box::pin(async { send(other, call_with(round, 0, &[Promise(round + 1)])) });
            meter.drive(system).now_or_never().unwrap();
        }
    }
    let (round, error) = refused.expect("it goes on for ever");
    assert!(round <= CHAIN_MAX as u32 && error.contains("64 calls are chained"), "{round}: {error}");
}

#[test]
fn what_is_resolved_is_no_chain() {
    let meter = meter();
    for question in 0..40 {
        send(&meter, call_with(question, 0, &[Promise(question)]));
        send(&meter, resolve_to(question, Some(Back(7))));
        pass(&meter, &call_with(question, question, &[]));
        assert_eq!(meter.0.tables.borrow().chain_max(), 0);
    }
}

#[test]
fn calls_are_told() {
    let booked = Booked { most: 10_000, ..Booked::default() };
    let meter = Meter::new(LIMITS, booked.clone());
    for message in [call(0, None, 0), finish(0), call(1, None, 0)] {
        pass(&meter, &message);
    }
    assert_eq!(booked.calls.get(), 2);
}

#[test]
fn what_is_held_is_booked_until_it_is_freed() {
    let booked = Booked { most: 100_000, ..Booked::default() };
    let meter = Meter::new(LIMITS, booked.clone());
    meter.coming(60_000).unwrap();
    assert_eq!(booked.held.get(), 60_000);
    meter.received(call(9, None, 0).get_root_as_reader().unwrap()).unwrap();
    let kept = receive(&meter, &call(0, None, 60_000)).unwrap();
    assert!(meter.coming(60_000).unwrap_err().reason.contains("there is no room"));
    assert!(refusal(&meter, &call(1, None, 60_000)).contains("there is no room"));
    // Who was called has it still.
    pass(&meter, &finish(0));
    assert!(booked.held.get() > 60_000);
    drop(kept);
    assert!(booked.held.get() < 5_000, "{}", booked.held.get());
    pass(&meter, &call(2, None, 50_000));
    let refused = meter.coming(usize::MAX).unwrap_err();
    assert_eq!(
        (refused.limit, refused.reason.as_str()),
        (Limit::Message, "a message has more than 64MiB, the limit `message`")
    );
    drop(meter);
    assert_eq!(booked.held.get(), 0, "nothing is left when the connection has ended");
}

#[test]
fn answers_are_booked_until_nobody_can_look_into_them() {
    let limits = Limits { calls_size: 100_000, ..LIMITS };
    let booked = Booked { most: 1_000_000, ..Booked::default() };
    let meter = Meter::new(limits, booked.clone());
    let mut writer = meter.watch(futures::io::sink());
    // The writer has one reference, which it drops when it has written.
    let kept: Vec<_> = (0..3)
        .map(|question| send(&meter, answer_with(question, false, &[], 30_000)))
        .map(|sent| (sent.clone(), sent))
        .collect();
    for _ in 0..3 {
        write_one(&mut writer);
    }
    assert!(booked.held.get() >= 90_000);
    assert!(meter.overrun().now_or_never().is_none());
    drop(kept);
    answer(&meter, 7, true);
    let _more = send(&meter, answer_with(3, false, &[], 90_000));
    assert!(meter.overrun().now_or_never().is_none(), "what is gone does not count");
    let _too_many = send(&meter, answer_with(4, false, &[], 30_000));
    assert!(overrun(&meter).contains("more than 100000 bytes, the limit `call-bytes`"));
}

#[test]
fn answers_that_there_is_no_room_for_end_the_connection() {
    let meter = Meter::new(LIMITS, Booked { most: 3 * MESSAGE_COST_MIN, ..Booked::default() });
    for _ in 0..3 {
        answer(&meter, 0, false);
    }
    assert!(meter.overrun().now_or_never().is_none());
    answer(&meter, 0, false);
    assert!(overrun(&meter).contains("there is no room"));
    let mut writer = meter.watch(futures::io::sink());
    for _ in 0..4 {
        write_one(&mut writer);
    }
    assert_eq!(meter.0.held.get(), 0);
}

#[test]
fn calls_on_finished_answers_start_a_new_chain() {
    let meter = meter();
    pass(&meter, &call(0, None, 0));
    for question in 1..10 * CHAIN_MAX as u32 {
        pass(&meter, &call(question, Some(question - 1), 0));
        if question % 50 == 0 {
            answer(&meter, question, false);
        }
    }
}

#[test]
fn unanswered_calls_are_bounded_and_finished_ones_do_not_count() {
    let meter = meter();
    for question in 0..3 * LIMITS.calls as u32 {
        pass(&meter, &call(question, None, 0));
        match question % 2 {
            0 => drop(pass(&meter, &finish(question))),
            _ => answer(&meter, question, true),
        }
    }
    let first = 3 * LIMITS.calls as u32;
    for question in 0..LIMITS.calls as u32 {
        pass(&meter, &call(first + question, None, 0));
    }
    answer(&meter, first, false);
    let next = call(2 * first, None, 0);
    assert!(refusal(&meter, &next).contains("calls are unanswered, the limit `calls`"));
    pass(&meter, &finish(first));
    pass(&meter, &next);
}

#[test]
fn what_cancelled_calls_leave_behind_is_booked_and_bounded() {
    let booked = Booked { most: usize::MAX, ..Booked::default() };
    let meter = Meter::new(LIMITS, booked.clone());
    let mut number = 0;
    let refused = loop {
        pass(&meter, &call(number, None, 0));
        if let Err(error) = receive(&meter, &finish(number)) {
            break Error::from(error).to_string();
        }
        number += 1;
        assert!(booked.held.get() >= number as usize * 500, "{number} calls");
    };
    assert!(refused.contains("more than 65536 calls were cancelled"), "{refused}");
    // Unless they return after all.
    let meter = Meter::new(LIMITS, booked.clone());
    let before = booked.held.get();
    let mut writer = meter.watch(futures::io::sink());
    for number in 0..100_000 {
        pass(&meter, &call(number, None, 0));
        pass(&meter, &finish(number));
        answer(&meter, number, false);
        write_one(&mut writer);
    }
    assert_eq!(booked.held.get(), before);
}

#[test]
fn the_size_of_calls_that_are_kept_is_bounded() {
    let meter = meter();
    let large = 60 * 1024 * 1024;
    let mut kept = Vec::new();
    for question in 0..4 {
        kept.push(receive(&meter, &call(question, None, large)).unwrap());
        pass(&meter, &finish(question));
    }
    assert!(refusal(&meter, &call(4, None, large)).contains("the limit `call-bytes`"));
    kept.clear();
    pass(&meter, &call(5, None, large));
}

#[test]
fn a_number_that_is_in_use_is_refused() {
    let meter = meter();
    pass(&meter, &call(1, None, 0));
    assert!(refusal(&meter, &call(1, None, 0)).contains("the number 1 of a question is in use"));
}

#[test]
fn answers_that_nobody_reads_end_the_connection() {
    let limits = Limits { calls_size: 100_000, ..LIMITS };
    let meter = Meter::new(limits, ());
    send(&meter, call(0, None, 1_000_000));
    assert!(meter.overrun().now_or_never().is_none(), "calls of others are no answers");
    send(&meter, answer_with(0, true, &[], 90_000));
    assert!(meter.overrun().now_or_never().is_none());
    send(&meter, answer_with(1, true, &[], 10_000));
    let error = overrun(&meter);
    assert!(error.contains("more than 100000 bytes, the limit `call-bytes`"), "{error}");
    let mut writer = meter.watch(futures::io::sink());
    for _ in 0..3 {
        write_one(&mut writer);
    }
    assert_eq!((meter.0.unread_size.get(), meter.0.answers_size.get()), (0, 0));
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
    write_one(&mut writer);
    assert!(waiting.now_or_never().is_some());
}

#[test]
fn who_sends_to_one_who_does_not_read_pays() {
    let booked = Booked { most: usize::MAX, ..Booked::default() };
    let (sender, reader) = (Meter::new(LIMITS, booked.clone()), Meter::new(LIMITS, Booked::default()));
    let mut writer = reader.watch(futures::io::sink());
    let system = Box::pin(async { send(&reader, call(0, None, 5 * 1024 * 1024)) });
    sender.drive(system).now_or_never().unwrap();
    assert!(booked.held.get() > 5 * 1024 * 1024);
    assert!(reader.wait_for_reader().now_or_never().is_some());
    assert!(reader.overrun().now_or_never().is_none());
    assert!(sender.wait_for_reader().now_or_never().is_some());
    let check = |size: usize| {
        let system = Box::pin(async { reader.check_caller(size) });
        sender.drive(system).now_or_never().unwrap()
    };
    check(1000).unwrap();
    assert!(check(LIMITS.calls_size).unwrap_err().reason.contains("have not read"));
    write_one(&mut writer);
    check(LIMITS.calls_size).unwrap();
    assert_eq!(booked.held.get(), 0);
    // What is never read is given back with the connection.
    let system = Box::pin(async { send(&reader, call(1, None, 100)) });
    sender.drive(system).now_or_never().unwrap();
    assert!(booked.held.get() > 0);
    drop(writer);
    assert_eq!(booked.held.get(), 0);
}

#[test]
fn many_capabilities_in_one_message_are_refused() {
    let meter = meter();
    let many: Vec<_> = (0..=CAPABILITIES_MAX).map(|_| Hosted(1)).collect();
    assert!(refusal(&meter, &call_with(0, 0, &many)).contains("more than 1024 capabilities"));
    // One entry of the table can be named any number of times.
    let mut message = call_with(0, 0, &[Hosted(1)]);
    let message::Call(Ok(call)) = message.get_root::<message::Builder<'_>>().unwrap().which().unwrap() else {
        panic!("it is a call");
    };
    let content = call.get_params().unwrap().get_content();
    let mut places = content.initn_as::<capnp::any_pointer_list::Builder<'_>>(CAPABILITIES_MAX + 1);
    for index in 0..=CAPABILITIES_MAX {
        let mut table = Vec::new();
        let mut place = places.reborrow().get(index);
        place.imbue_mut(&mut table);
        place.set_as_capability(capnp_rpc::new_broken_cap(Error::failed(String::new())).hook);
    }
    assert!(refusal(&meter, &message).contains("more than 1024 capabilities"));
}

#[test]
fn what_a_peer_holds_and_has_held_is_bounded_and_booked() {
    let booked = Booked { most: usize::MAX, ..Booked::default() };
    let meter = Meter::new(LIMITS, booked.clone());
    for id in 0..LIMITS.handles as u32 {
        pass(&meter, &call_with(id, 0, &[Hosted(id), Hosted(id)]));
        answer(&meter, id, true);
    }
    assert!(meter.0.tables.borrow().cost() >= LIMITS.handles * 500);
    assert!(refusal(&meter, &call_with(64, 0, &[Promise(64)])).contains("64 capabilities are held at once"));
    let meter = Meter::new(LIMITS, ());
    for id in 0..LIMITS.handles as u32 {
        send(&meter, answer_with(id, false, &[Hosted(id)], 0));
    }
    pass(&meter, &release(0));
    send(&meter, call_with(0, 0, &[Hosted(100)]));
    assert!(meter.overrun().now_or_never().is_none());
    send(&meter, call_with(1, 0, &[Hosted(101)]));
    assert!(overrun(&meter).contains("more than 64 capabilities are held at once, the limit `handles`"));
}

#[test]
fn what_others_hand_to_a_peer_uses_up_nothing_of_its_own() {
    let (peer, other) = (meter(), meter());
    for id in 0..3 * LIMITS.handles as u32 {
        let system = Box::pin(async { send(&peer, call_with(id, 0, &[Hosted(1000 + id)])) });
        other.drive(system).now_or_never().unwrap();
    }
    for id in 0..LIMITS.handles as u32 {
        send(&peer, answer_with(id, false, &[Hosted(id)], 0));
    }
    assert!(peer.overrun().now_or_never().is_none());
    pass(&peer, &release(1000));
    send(&peer, answer_with(100, false, &[Hosted(100)], 0));
    assert!(overrun(&peer).contains("64 capabilities are held at once"));
}

#[test]
fn what_is_given_back_does_not_count() {
    let meter = meter();
    for id in 0..10 * LIMITS.handles as u32 {
        pass(&meter, &call_with(id, 0, &[Hosted(id)]));
        send(&meter, answer_with(id, false, &[Hosted(id)], 0));
        // With what was in the answer.
        pass(&meter, &finish(id));
        send(&meter, release(id));
    }
    assert!(meter.overrun().now_or_never().is_none());
    // What is in answers that the host has given up is not taken.
    for id in 0..10 * LIMITS.handles as u32 {
        send(&meter, finish(id));
        pass(&meter, &answer_with(id, false, &[Hosted(5000 + id)], 0));
    }
    assert_eq!(meter.0.tables.borrow().cost(), 0);
}

#[test]
fn promises_become_what_their_peer_serves_and_nothing_else() {
    let meter = meter();
    pass(&meter, &call_with(0, 0, &[Promise(1), Promise(2), Promise(3), Hosted(4)]));
    assert_eq!(pass(&meter, &resolve_to(1, Some(Hosted(4)))), Passage::Passes);
    let given_back = Passage::GivenBack { no_promise: u32::MAX };
    assert_eq!(pass(&meter, &resolve_to(2, Some(Hosted(3)))), given_back, "which is a promise");
    assert_eq!(pass(&meter, &resolve_to(2, Some(Promise(u32::MAX)))), Passage::GivenBack { no_promise: u32::MAX - 1 });
    assert_eq!(pass(&meter, &resolve_to(2, Some(Back(0)))), Passage::Ends);
    assert_eq!(pass(&meter, &resolve_to(2, Some(Answer(0)))), Passage::Ends);
    assert_eq!(pass(&meter, &resolve_to(2, None)), Passage::Ends);
}

#[test]
fn what_the_rpc_system_cannot_do_is_refused() {
    let meter = meter();
    send(&meter, call_with(0, 0, &[Promise(7)]));
    assert!(refusal(&meter, &call_with(0, 7, &[Back(7)])).contains("handed to itself"));
    pass(&meter, &call_with(1, 7, &[Hosted(7)]));
    let mut elsewhere = call(2, None, 0);
    let message::Call(Ok(mut call)) = elsewhere.get_root::<message::Builder<'_>>().unwrap().which().unwrap() else {
        panic!("it is a call");
    };
    call.reborrow().get_send_results_to().set_yourself(());
    assert!(refusal(&meter, &elsewhere).contains("results are sent to the caller"));
    let mut deep = self::call(3, Some(1), 0);
    let message::Call(Ok(call)) = deep.get_root::<message::Builder<'_>>().unwrap().which().unwrap() else {
        panic!("it is a call");
    };
    call.init_target().init_promised_answer().init_transform(65);
    assert!(refusal(&meter, &deep).contains("more than 64 levels deep"));
}

#[test]
fn a_resolve_keeps_its_kind() {
    let message = resolve_to(7, Some(Hosted(9)));
    let message::Resolve(Ok(resolve)) = message.get_root_as_reader::<message::Reader<'_>>().unwrap().which().unwrap()
    else {
        panic!("it is a resolve");
    };
    let made = crate::vat::stand_in::give_back(resolve, 3).unwrap();
    let body = capnp_rpc::IncomingMessage::get_body(&made).unwrap();
    let message::Resolve(Ok(made)) = body.get_as::<message::Reader<'_>>().unwrap().which().unwrap() else {
        panic!("it is a resolve");
    };
    assert_eq!(made.get_promise_id(), 3);
    let resolve::Cap(Ok(descriptor)) = made.which().unwrap() else { panic!("it is a capability") };
    assert!(matches!(descriptor.which().unwrap(), cap_descriptor::SenderHosted(9)));
}

/// The library keeps something for each time that an answer is named, as long as it is not there.
#[test]
fn references_to_answers_that_are_not_there_are_booked_until_they_are() {
    let booked = Booked { most: usize::MAX, ..Booked::default() };
    let meter = Meter::new(LIMITS, booked.clone());
    pass(&meter, &call(0, None, 0));
    let before = booked.held.get();
    for question in 1..=10 {
        pass(&meter, &call_with(question, 0, &[Answer(0); 100]));
        answer(&meter, question, true);
    }
    let mut writer = meter.watch(futures::io::sink());
    for _ in 0..10 {
        write_one(&mut writer);
    }
    assert!(booked.held.get() >= before + 1000 * 1000, "{}", booked.held.get());
    answer(&meter, 0, true);
    write_one(&mut writer);
    assert_eq!(booked.held.get(), 0);
    // Who gives up what nobody else waits for, gives up that as well.
    pass(&meter, &call(20, None, 0));
    pass(&meter, &call(21, Some(20), 0));
    pass(&meter, &finish(21));
    pass(&meter, &finish(20));
    assert_eq!(booked.held.get(), 2 * 1024, "what calls leave behind that are cancelled");
}

/// Whoever holds it goes on waiting for it.
#[test]
fn an_answer_that_was_handed_on_stays_in_the_chain_when_it_is_finished() {
    let meter = meter();
    pass(&meter, &call(0, None, 0));
    for question in 1..CHAIN_MAX as u32 {
        pass(&meter, &call(question, Some(question - 1), 0));
    }
    let last = CHAIN_MAX as u32 - 1;
    pass(&meter, &call_with(100, 0, &[Answer(last)]));
    for question in (0..=last).chain([100]) {
        pass(&meter, &finish(question));
    }
    assert_eq!(meter.0.tables.borrow().chain_max(), CHAIN_MAX - 1);
    answer(&meter, last, false);
    assert_eq!(meter.0.tables.borrow().chain_max(), 0);
}

#[test]
fn answers_are_kept_at_the_cost_of_who_asked_for_them() {
    let books = || Booked { most: usize::MAX, ..Booked::default() };
    let (asking, answering) = (books(), books());
    let (asker, other) = (Meter::new(LIMITS, asking.clone()), Meter::new(LIMITS, answering.clone()));
    let mut writer = asker.watch(futures::io::sink());
    let system = Box::pin(async { send(&asker, answer_with(0, false, &[], 50_000)) });
    let sent = other.drive(system).now_or_never().unwrap();
    let kept = sent.clone();
    assert!(answering.held.get() >= 50_000);
    write_one(&mut writer);
    drop(sent);
    assert_eq!(answering.held.get(), 0);
    assert!(asking.held.get() >= 50_000, "{}", asking.held.get());
    drop(kept);
    answer(&asker, 1, true);
    assert!(asking.held.get() < 5000);
}

#[test]
fn an_answer_is_in_its_message() {
    let meter = meter();
    let mut message = Message::new_default();
    let mut returned = message.init_root::<message::Builder<'_>>().init_return();
    returned.set_take_from_other_question(1);
    assert!(refusal(&meter, &message).contains("an answer is in its message"));
}

#[test]
fn what_was_in_an_answer_that_was_not_sent_is_not_given_back_twice() {
    let meter = meter();
    pass(&meter, &call(0, None, 0));
    meter.refused_answer(0);
    send(&meter, failed_answer(0));
    assert_eq!(pass(&meter, &finish(0)), Passage::Finishes { question: 0 });
    assert_eq!(pass(&meter, &finish(0)), Passage::Passes, "there is no such question any more");
}

/// An answer that is an error.
fn failed_answer(question: u32) -> Message {
    let mut message = Message::new_default();
    let mut returned = message.init_root::<message::Builder<'_>>().init_return();
    returned.set_answer_id(question);
    returned.init_exception().set_reason("too large");
    message
}

/// What somebody had under way tells others that it is not wanted any more, at the cost of who had it.
#[test]
fn who_ends_pays_for_what_others_are_told_then() {
    struct Telling(Meter);
    impl Drop for Telling {
        fn drop(&mut self) {
            send(&self.0, finish(0));
        }
    }
    impl Future for Telling {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }
    let booked = Booked { most: usize::MAX, ..Booked::default() };
    let (ending, told) = (Meter::new(LIMITS, booked.clone()), meter());
    drop(ending.drive(Telling(told.clone())));
    assert_eq!((told.0.unread_size.get(), booked.held.get()), (0, MESSAGE_COST_MIN));
    told.close();
    assert_eq!(booked.held.get(), 0);
}
