//! Cells that send whatever they like as RPC, alone and two against each other.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::rc::Rc;

use capnp::capability::Client;
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::serialize::{self, OwnedSegments};
use capnp::traits::HasTypeId;
use capnp::{Error, any_pointer};
use capnp_rpc::rpc_capnp::{cap_descriptor, message, promised_answer, return_};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio_util::sync::CancellationToken;
use ww_schema::peer_capnp::{executor, host};

use super::executor::{Child, Loadable, Loaded, Order, Spawn, SpawnError};
use super::membrane::Membranes;
use super::revoker::revoker;
use crate::cell::{Account, PIECE_BYTES, PipeReader, PipeWriter, pipe};
use crate::grant::Limits;
use crate::vat;

/// What the cells have as their bootstrap capability.
struct Desk {
    membranes: Membranes,
    /// What `restrict` was given last.
    given: Rc<RefCell<Option<Client>>>,
}

impl host::Server for Desk {
    async fn id(self: Rc<Self>, _: host::IdParams, mut results: host::IdResults) -> Result<(), Error> {
        results.get().set_id("desk");
        Ok(())
    }

    async fn addrs(self: Rc<Self>, _: host::AddrsParams, _: host::AddrsResults) -> Result<(), Error> {
        pending().await
    }

    async fn restrict(
        self: Rc<Self>,
        params: host::RestrictParams,
        mut results: host::RestrictResults,
    ) -> Result<(), Error> {
        let given: Client = params.get()?.get_capability().get_as_capability()?;
        results.get().init_capability().set_as_capability(given.hook.add_ref());
        self.given.replace(Some(given));
        Ok(())
    }

    async fn revocable(
        self: Rc<Self>,
        params: host::RevocableParams,
        mut results: host::RevocableResults,
    ) -> Result<(), Error> {
        let inner = params.get()?.get_capability().get_as_capability()?;
        let revoked = CancellationToken::new();
        let revocable = self.membranes.revocable(inner, revoked.clone()).await?;
        let mut results = results.get();
        results.reborrow().init_capability().set_as_capability(revocable.hook);
        results.set_revoker(revoker(revoked));
        Ok(())
    }
}

const HOST: u64 = <host::Client as HasTypeId>::TYPE_ID;
const ID: u16 = 0;
const ADDRS: u16 = 1;
const RESTRICT: u16 = 5;
const REVOCABLE: u16 = 6;

/// One side of a connection, in the hands of somebody who sends what he likes.
struct Raw {
    to_host: PipeWriter,
    from_host: PipeReader,
    bytes: Vec<u8>,
}

/// How many bytes are held on behalf of a cell.
#[derive(Clone, Default)]
struct Books(Rc<Cell<usize>>);

impl vat::Ledger for Books {
    fn call(&self) {}

    fn hold(&self, bytes: usize) -> Result<(), vat::Overrun> {
        self.0.update(|held| held + bytes);
        Ok(())
    }

    fn release(&self, bytes: usize) {
        self.0.update(|held| held - bytes);
    }
}

type Message = Builder<HeapAllocator>;
type Received = Reader<OwnedSegments>;

impl Raw {
    /// A cell with this bootstrap capability and these limits.
    fn serve(bootstrap: Client, limits: &str) -> Self {
        Self::serve_with(bootstrap, limits, Books::default())
    }

    /// The same, on whose behalf `books` are kept.
    fn serve_with(bootstrap: Client, limits: &str, books: Books) -> Self {
        let (to_host, input) = pipe(PIECE_BYTES);
        let (output, from_host) = pipe(PIECE_BYTES);
        let mut all = Limits::default();
        all.extend(limits.split_whitespace().map(|limit| limit.parse::<Limits>().unwrap()));
        tokio::task::spawn_local(vat::serve("test".into(), input, output, bootstrap, vat::Limits::of(&all), books));
        Self { to_host, from_host, bytes: Vec::new() }
    }

    async fn send(&self, message: Message) {
        // The host may end the connection at any time.
        let _ = self.to_host.write_all(&serialize::write_message_to_words(&message)).await;
    }

    /// The next message of the host; `None` at the end.
    async fn receive(&mut self) -> Option<Received> {
        loop {
            let mut rest = self.bytes.as_slice();
            let left = rest.len();
            if let Ok(message) = serialize::read_message(&mut rest, ReaderOptions::new()) {
                let read = left - rest.len();
                self.bytes.drain(..read);
                return Some(message);
            }
            let more = self.from_host.read(usize::MAX).await;
            if more.is_empty() {
                return None;
            }
            self.bytes.extend_from_slice(&more);
        }
    }

    /// The next call that comes: its number, and the capability that it is handed, if it is one that the host serves.
    async fn receive_call(&mut self) -> (u32, Option<u32>) {
        loop {
            let message = self.receive().await.expect("the connection is there");
            if let message::Call(call) = message.get_root::<message::Reader<'_>>().unwrap().which().unwrap() {
                let call = call.unwrap();
                let hosted = call.get_params().unwrap().get_cap_table().unwrap().iter().find_map(hosted);
                return (call.get_question_id(), hosted);
            }
        }
    }

    /// What the answer to a question is: a text, an exception, or a capability. What comes before is left out.
    async fn answer(&mut self, question: u32) -> String {
        loop {
            let message = self.receive().await.expect("the connection is there");
            let message::Return(returned) = message.get_root::<message::Reader<'_>>().unwrap().which().unwrap() else {
                continue;
            };
            let returned = returned.unwrap();
            if returned.get_answer_id() != question {
                continue;
            }
            return match returned.which().unwrap() {
                return_::Exception(exception) => exception.unwrap().get_reason().unwrap().to_string().unwrap(),
                return_::Results(results) => {
                    let results = results.unwrap();
                    match results.get_cap_table().unwrap().iter().find_map(hosted) {
                        Some(id) => format!("capability {id}"),
                        None => {
                            let id = results.get_content().get_as::<host::id_results::Reader<'_>>().unwrap();
                            id.get_id().map_or_else(|_| "no text".into(), |id| id.to_string().unwrap())
                        }
                    }
                }
                _ => "neither results nor an exception".into(),
            };
        }
    }

    /// Whether the host still answers, `question` being new.
    async fn is_there(&mut self, question: u32) {
        self.send(call(question, Target::Answer(0), ID, &[])).await;
        assert_eq!(self.answer(question).await, "desk");
    }
}

fn hosted(descriptor: cap_descriptor::Reader<'_>) -> Option<u32> {
    match descriptor.which().unwrap() {
        cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id) => Some(id),
        _ => None,
    }
}

#[derive(Clone, Copy)]
enum Target {
    Import(u32),
    /// The first capability of an answer; of that to the bootstrap question, 0, the only one.
    Answer(u32),
}

#[derive(Clone, Copy)]
enum Own {
    Hosted(u32),
    Promise(u32),
    Back(u32),
    Answer(u32),
}

impl Own {
    fn write(self, mut descriptor: cap_descriptor::Builder<'_>) {
        match self {
            Self::Hosted(id) => descriptor.set_sender_hosted(id),
            Self::Promise(id) => descriptor.set_sender_promise(id),
            Self::Back(id) => descriptor.set_receiver_hosted(id),
            Self::Answer(question) => write_answer(question, descriptor.init_receiver_answer()),
        }
    }
}

fn write_answer(question: u32, mut answer: promised_answer::Builder<'_>) {
    answer.set_question_id(question);
    if question != 0 {
        answer.init_transform(1).get(0).set_get_pointer_field(0);
    }
}

fn bootstrap() -> Message {
    let mut message = Message::new_default();
    message.init_root::<message::Builder<'_>>().init_bootstrap().set_question_id(0);
    message
}

/// A call of a method of `Host` with these capabilities, of which the first is its parameter.
fn call(question: u32, target: Target, method: u16, capabilities: &[Own]) -> Message {
    let mut message = Message::new_default();
    let mut call = message.init_root::<message::Builder<'_>>().init_call();
    call.set_question_id(question);
    call.set_interface_id(HOST);
    call.set_method_id(method);
    let mut on = call.reborrow().init_target();
    match target {
        Target::Import(id) => on.set_imported_cap(id),
        Target::Answer(question) => write_answer(question, on.init_promised_answer()),
    }
    let mut params = call.init_params();
    let mut table = params.reborrow().init_cap_table(capabilities.len() as u32);
    for (index, capability) in (0..).zip(capabilities) {
        capability.write(table.reborrow().get(index));
    }
    if !capabilities.is_empty() {
        name_first(params.get_content());
    }
    message
}

/// Points from the first field to the first capability of the message.
fn name_first(mut content: any_pointer::Builder<'_>) {
    use capnp::traits::ImbueMut;
    let mut table = Vec::new();
    let mut content = content.reborrow();
    content.imbue_mut(&mut table);
    let params = content.init_as::<host::restrict_params::Builder<'_>>();
    params.init_capability().set_as_capability(capnp_rpc::new_broken_cap(Error::failed(String::new())).hook);
}

/// A call of `id` with so many bytes that mean nothing.
fn large_call(question: u32, target: Target, size: u32) -> Message {
    large_call_of(ID, question, target, size)
}

fn large_call_of(method: u16, question: u32, target: Target, size: u32) -> Message {
    let mut message = call(question, target, method, &[]);
    let message::Call(Ok(call)) = message.get_root::<message::Builder<'_>>().unwrap().which().unwrap() else {
        panic!("it is a call");
    };
    call.get_params().unwrap().get_content().init_as::<host::id_results::Builder<'_>>().init_id(size);
    message
}

fn answer_id(question: u32, id: &str) -> Message {
    let mut message = Message::new_default();
    let mut returned = message.init_root::<message::Builder<'_>>().init_return();
    returned.set_answer_id(question);
    returned.init_results().get_content().init_as::<host::id_results::Builder<'_>>().set_id(id);
    message
}

fn resolve(promise: u32, capability: Option<Own>) -> Message {
    let mut message = Message::new_default();
    let mut resolve = message.init_root::<message::Builder<'_>>().init_resolve();
    resolve.set_promise_id(promise);
    match capability {
        Some(capability) => capability.write(resolve.init_cap()),
        None => resolve.init_exception().set_reason("broken"),
    }
    message
}

fn finish(question: u32) -> Message {
    let mut message = Message::new_default();
    message.init_root::<message::Builder<'_>>().init_finish().set_question_id(question);
    message
}

/// A cell before a desk, and what it has passed in.
fn at_desk(limits: &str) -> (Raw, Rc<RefCell<Option<Client>>>) {
    let given = Rc::new(RefCell::new(None));
    let membranes = Membranes::new(&Account::new("handles=4096".parse().unwrap()));
    let desk: host::Client = capnp_rpc::new_client(Desk { membranes, given: given.clone() });
    (Raw::serve(desk.client, limits), given)
}

/// A cell, and another one which has a capability of the former as its bootstrap capability.
async fn parent_and_child(parent_limits: &str, child_limits: &str) -> (Raw, Raw) {
    let (mut parent, given) = at_desk(parent_limits);
    parent.send(bootstrap()).await;
    parent.send(call(1, Target::Answer(0), RESTRICT, &[Own::Hosted(50)])).await;
    parent.answer(1).await;
    let child = Raw::serve(given.take().unwrap(), child_limits);
    child.send(bootstrap()).await;
    (parent, child)
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(test);
}

#[test]
fn a_chain_of_promises_takes_no_stack_and_no_memory() {
    run(async {
        let (mut cell, _) = at_desk("");
        cell.send(bootstrap()).await;
        cell.send(call(1, Target::Answer(0), REVOCABLE, &[Own::Promise(1)])).await;
        assert!(cell.answer(1).await.starts_with("capability"));
        let links = (1..50_000).map(|link| resolve(link, Some(Own::Promise(link + 1))));
        let bytes: Vec<u8> = links
            .chain([call(2, Target::Answer(0), ID, &[])])
            .flat_map(|message| serialize::write_message_to_words(&message))
            .collect();
        let to_host = cell.to_host.clone();
        let writing = tokio::task::spawn_local(async move { to_host.write_all(&bytes).await.unwrap() });
        assert_eq!(cell.answer(2).await, "desk");
        writing.await.unwrap();
    });
}

#[test]
fn a_chain_of_calls_through_membranes_ends_in_an_error() {
    run(async {
        let (mut cell, _) = at_desk("");
        cell.send(bootstrap()).await;
        // Its own capability in a membrane: what is passed to it comes back in a membrane.
        cell.send(call(1, Target::Answer(0), REVOCABLE, &[Own::Hosted(5)])).await;
        cell.send(call(2, Target::Answer(0), REVOCABLE, &[Own::Hosted(6)])).await;
        cell.answer(2).await;
        let mut last = 2;
        let mut refused = None;
        // A call that is never answered; then each waits for the one before.
        cell.send(call(3, Target::Answer(2), RESTRICT, &[Own::Hosted(7)])).await;
        cell.receive_call().await;
        last = last.max(3);
        for link in 0..600 {
            let question = 10 + 2 * link;
            cell.send(call(question, Target::Answer(1), RESTRICT, &[Own::Answer(last)])).await;
            let (_, promise) = cell.receive_call().await;
            last = question + 1;
            cell.send(call(last, Target::Import(promise.unwrap()), REVOCABLE, &[])).await;
            if link == 70 {
                // By now one of them has failed.
                refused = Some(cell.answer(last).await);
                break;
            }
        }
        let refused = refused.unwrap();
        assert!(refused.contains("more than 64 calls wait for each other"), "{refused}");
        cell.is_there(5000).await;
    });
}

/// capnp-rpc panics where a promise turns out to be on this side, or an error, once somebody calls it with capabilities.
#[test]
fn a_promise_that_becomes_something_else_can_be_called() {
    run(async {
        let (mut parent, mut child) = parent_and_child("", "").await;
        for (question, becomes) in [(10, Some(Own::Back(0))), (20, None), (30, Some(Own::Answer(1)))] {
            // The parent has a promise of itself around which there is a membrane, and one without.
            parent.send(call(question, Target::Answer(0), REVOCABLE, &[Own::Promise(question)])).await;
            parent.answer(question).await;
            parent.send(resolve(question, becomes)).await;
            parent.send(call(question + 1, Target::Answer(question), RESTRICT, &[Own::Hosted(77)])).await;
            let (called, _) = parent.receive_call().await;
            parent.send(answer_id(called, "reached")).await;
            parent.is_there(question + 2).await;
        }
        // The child is answered with a promise of its parent's, and calls that.
        child.send(call(1, Target::Answer(0), RESTRICT, &[Own::Hosted(1)])).await;
        let (called, _) = parent.receive_call().await;
        let mut answer = answer_id(called, "");
        let message::Return(Ok(returned)) = answer.get_root::<message::Builder<'_>>().unwrap().which().unwrap() else {
            panic!("it is an answer");
        };
        let mut results = returned.init_results();
        Own::Promise(40).write(results.reborrow().init_cap_table(1).get(0));
        name_first(results.get_content());
        parent.send(answer).await;
        parent.send(resolve(40, Some(Own::Back(0)))).await;
        parent.is_there(50).await;
        child.send(call(2, Target::Answer(1), RESTRICT, &[Own::Hosted(1)])).await;
        let (called, _) = parent.receive_call().await;
        parent.send(answer_id(called, "reached")).await;
        assert_eq!(child.answer(2).await, "reached");
    });
}

#[test]
fn a_call_that_is_too_large_for_who_is_called_is_an_error_of_the_caller() {
    run(async {
        let (mut parent, mut child) = parent_and_child("message=64KiB handles=64", "").await;
        for question in 1..200 {
            child.send(large_call(question, Target::Answer(0), 100_000)).await;
            let refused = child.answer(question).await;
            assert!(refused.contains("the call has") && refused.contains("takes 65536 at most"), "{refused}");
        }
        // Nor has it been made to hold anything.
        parent.is_there(2).await;
        child.send(large_call(500, Target::Answer(0), 1000)).await;
        let (called, _) = parent.receive_call().await;
        parent.send(answer_id(called, "small")).await;
        assert_eq!(child.answer(500).await, "small");
    });
}

#[test]
fn an_answer_that_is_too_large_for_who_asked_is_an_error() {
    run(async {
        let (mut parent, mut child) = parent_and_child("", "message=64KiB").await;
        for (question, size) in [(1, 100_000), (2, 1000), (3, 100_000)] {
            child.send(call(question, Target::Answer(0), ID, &[])).await;
            let (called, _) = parent.receive_call().await;
            parent.send(answer_id(called, &"x".repeat(size))).await;
            let answer = child.answer(question).await;
            assert!(answer.contains("the answer has") == (size > 1000), "{answer}");
        }
    });
}

#[test]
fn who_calls_somebody_who_does_not_read_is_told() {
    run(async {
        let (mut parent, mut child) = parent_and_child("", "call-bytes=1MiB").await;
        let mut made = 0;
        let refused = loop {
            made += 1;
            child.send(large_call(2 * made, Target::Answer(0), 60_000)).await;
            child.send(finish(2 * made)).await;
            if made == 100 {
                child.send(large_call(1, Target::Answer(0), 60_000)).await;
                break child.answer(1).await;
            }
        };
        assert!(refused.contains("have not read have more than 1048576 bytes"), "{refused}");
        // When it has read them, it can be called again.
        let mut read = 0;
        while read < 17 {
            parent.receive_call().await;
            read += 1;
        }
        parent.is_there(60).await;
        child.send(large_call(3, Target::Answer(0), 1000)).await;
        let (called, _) = parent.receive_call().await;
        parent.send(answer_id(called, "again")).await;
        assert_eq!(child.answer(3).await, "again");
    });
}

#[test]
fn what_a_cell_is_handed_is_given_back_when_a_call_is_too_large() {
    run(async {
        let (_parent, mut child) = parent_and_child("message=64KiB handles=64", "handles=64").await;
        for question in 1..500 {
            let mut message = call(question, Target::Answer(0), RESTRICT, &[Own::Hosted(question)]);
            let message::Call(Ok(call)) = message.get_root::<message::Builder<'_>>().unwrap().which().unwrap() else {
                panic!("it is a call");
            };
            let content = call.get_params().unwrap().get_content();
            content.get_as::<host::restrict_params::Builder<'_>>().unwrap().init_methods(10_000);
            child.send(message).await;
            let refused = child.answer(question).await;
            assert!(refused.contains("the call has"), "{refused}");
            child.send(finish(question)).await;
        }
    });
}

#[test]
fn calls_that_never_return_can_be_cancelled() {
    run(async {
        let (mut cell, _) = at_desk("calls=16");
        cell.send(bootstrap()).await;
        for question in 1..1000 {
            cell.send(call(question, Target::Answer(0), ADDRS, &[])).await;
            cell.send(finish(question)).await;
        }
        cell.is_there(1000).await;
    });
}

/// What a membrane has passed on is a copy, which nobody books.
#[test]
fn a_call_through_a_membrane_is_booked_until_it_returns() {
    run(async {
        let books = Books::default();
        let membranes = Membranes::new(&Account::new("handles=4096".parse().unwrap()));
        let desk: host::Client = capnp_rpc::new_client(Desk { membranes, given: Rc::default() });
        let mut cell = Raw::serve_with(desk.client, "", books.clone());
        cell.send(bootstrap()).await;
        cell.send(call(1, Target::Answer(0), REVOCABLE, &[Own::Back(0)])).await;
        cell.answer(1).await;
        for question in 10..20 {
            cell.send(large_call_of(ADDRS, question, Target::Answer(1), 1_000_000)).await;
        }
        cell.is_there(20).await;
        assert!(books.0.get() > 10_000_000, "{}", books.0.get());
        for question in 10..20 {
            cell.send(finish(question)).await;
        }
        cell.is_there(21).await;
        assert!(books.0.get() < 100_000, "{}", books.0.get());
    });
}

/// Loads nothing, for ever.
struct Never;

impl Spawn for Never {
    fn load(&self, what: Loadable) -> LocalBoxFuture<'static, Result<Loaded, SpawnError>> {
        async move {
            let _what = what;
            pending().await
        }
        .boxed_local()
    }

    fn spawn(&self, _: Loaded, _: Order) -> LocalBoxFuture<'static, Result<Child, SpawnError>> {
        pending().boxed_local()
    }
}

#[test]
fn programs_that_wait_to_be_loaded_are_booked() {
    run(async {
        let books = Books::default();
        let executor = super::executor(Never);
        let cell = Raw::serve_with(executor.client, "", books.clone());
        cell.send(bootstrap()).await;
        for question in 1..=20 {
            let mut message = Message::new_default();
            let mut call = message.init_root::<message::Builder<'_>>().init_call();
            call.set_question_id(question);
            call.set_interface_id(<executor::Client as HasTypeId>::TYPE_ID);
            call.set_method_id(if question % 2 == 0 { 0 } else { 2 });
            write_answer(0, call.reborrow().init_target().init_promised_answer());
            let params = call.init_params().init_content().init_as::<executor::load_params::Builder<'_>>();
            params.init_wasm(1_000_000);
            cell.send(message).await;
        }
        while books.0.get() < 20_000_000 {
            tokio::task::yield_now().await;
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert!(books.0.get() > 20_000_000, "{}", books.0.get());
    });
}

/// What does not fit for who asked is not kept for him either, and what was in it is given back once.
#[test]
fn an_answer_that_is_too_large_leaves_nothing_behind() {
    run(async {
        let (mut parent, mut child) = parent_and_child("handles=64", "message=64KiB call-bytes=256KiB").await;
        for question in 1..200 {
            child.send(call(question, Target::Answer(0), RESTRICT, &[])).await;
            let (called, _) = parent.receive_call().await;
            let mut answer = answer_id(called, "");
            let message::Return(Ok(returned)) = answer.get_root::<message::Builder<'_>>().unwrap().which().unwrap()
            else {
                panic!("it is an answer");
            };
            let mut results = returned.init_results();
            Own::Hosted(question).write(results.reborrow().init_cap_table(1).get(0));
            name_first(results.reborrow().get_content());
            let content = results.get_content();
            content.get_as::<host::restrict_params::Builder<'_>>().unwrap().init_methods(10_000);
            parent.send(answer).await;
            let refused = child.answer(question).await;
            assert!(refused.contains("the answer has"), "{refused}");
            child.send(call(1000 + question, Target::Answer(question), ID, &[])).await;
            let refused = child.answer(1000 + question).await;
            assert!(refused.contains("capability"), "{refused}");
            // With what was in the answer or without, of which the child knows nothing.
            let mut message = finish(question);
            let message::Finish(Ok(mut finish)) = message.get_root::<message::Builder<'_>>().unwrap().which().unwrap()
            else {
                panic!("it is the end of a question");
            };
            finish.set_release_result_caps(question % 2 == 0);
            child.send(message).await;
            child.send(self::finish(1000 + question)).await;
        }
    });
}
