//! Membranes under calls that come over an RPC connection, as those of cells do.

use std::future::Future;

use capnp::message::ReaderOptions;
use capnp::traits::HasTypeId;
use capnp_rpc::rpc_twoparty_capnp::Side as RpcSide;
use capnp_rpc::{RpcSystem, twoparty};
use tokio::sync::Notify;
use ww_schema::peer_capnp::{byte_stream, executor, host, method, module, process};

use super::*;
use crate::cell::{PIECE_BYTES, pipe};
use crate::grant::Limits;
use crate::vat;

/// What is behind a membrane. It keeps what it is given, and counts the calls of `peers`.
#[derive(Default)]
struct Inside {
    given: RefCell<Option<host::Client>>,
    calls: Cell<usize>,
    /// Lets calls of `addrs` return.
    go_on: Notify,
}

impl host::Server for Inside {
    async fn id(self: Rc<Self>, _: host::IdParams, mut results: host::IdResults) -> Result<(), Error> {
        results.get().set_id("inside");
        Ok(())
    }

    async fn addrs(self: Rc<Self>, _: host::AddrsParams, mut results: host::AddrsResults) -> Result<(), Error> {
        self.go_on.notified().await;
        results.get().init_addrs(0);
        Ok(())
    }

    async fn peers(self: Rc<Self>, _: host::PeersParams, _: host::PeersResults) -> Result<(), Error> {
        self.calls.update(|calls| calls + 1);
        Ok(())
    }

    async fn executor(
        self: Rc<Self>,
        _: host::ExecutorParams,
        mut results: host::ExecutorResults,
    ) -> Result<(), Error> {
        tokio::task::yield_now().await;
        results.get().set_executor(capnp_rpc::new_client(InsideExecutor(self)));
        Ok(())
    }

    /// Keeps the capability, and gives it back.
    async fn restrict(
        self: Rc<Self>,
        params: host::RestrictParams,
        mut results: host::RestrictResults,
    ) -> Result<(), Error> {
        let given: host::Client = params.get()?.get_capability().get_as_capability()?;
        results.get().init_capability().set_as_capability(given.client.hook.add_ref());
        self.given.replace(Some(given));
        Ok(())
    }
}

struct InsideExecutor(Rc<Inside>);

impl executor::Server for InsideExecutor {
    async fn echo(
        self: Rc<Self>,
        params: executor::EchoParams,
        mut results: executor::EchoResults,
    ) -> Result<(), Error> {
        self.0.calls.update(|calls| calls + 1);
        results.get().set_response(params.get()?.get_message()?);
        Ok(())
    }
}

/// Makes a client of `bootstrap` over a connection, and drops everything at the end.
fn connected<Running: Future<Output = ()>>(bootstrap: Client, test: impl FnOnce(host::Client) -> Running) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async {
        let (to_server, server_input) = pipe(PIECE_BYTES);
        let (server_output, from_server) = pipe(PIECE_BYTES);
        let limits = vat::Limits::of(&Limits::default());
        tokio::task::spawn_local(vat::serve("test".into(), server_input, server_output, bootstrap, limits, ()));
        let network = twoparty::VatNetwork::new(from_server, to_server, RpcSide::Client, ReaderOptions::new());
        let mut system = RpcSystem::new(Box::new(network), None);
        let client = system.bootstrap(RpcSide::Server);
        tokio::task::spawn_local(system);
        test(client).await;
    });
}

/// Methods of the test.
fn methods(allowed: &[(u64, u16)]) -> Methods {
    let mut message = Builder::new_default();
    let mut list = message.initn_root::<capnp::struct_list::Builder<'_, method::Owned>>(allowed.len() as u32);
    for (index, (interface, number)) in (0..).zip(allowed) {
        let mut entry = list.reborrow().get(index);
        entry.set_interface(*interface);
        entry.set_method(*number);
    }
    Methods::read(list.into_reader()).unwrap()
}

const HOST: u64 = <host::Client as HasTypeId>::TYPE_ID;
const EXECUTOR: u64 = <executor::Client as HasTypeId>::TYPE_ID;
const ID: (u64, u16) = (HOST, 0);
const GET_EXECUTOR: (u64, u16) = (HOST, 4);
const RESTRICT: (u64, u16) = (HOST, 5);

fn membranes(limit: &str) -> Membranes {
    Membranes::new(&Account::new(limit.parse().unwrap()))
}

fn now<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    futures::FutureExt::now_or_never(future).expect("the capability is no promise")
}

/// What is inside, and how it is seen through a membrane with these methods.
fn restricted(allowed: &[(u64, u16)]) -> (Rc<Inside>, Client) {
    let inside = Rc::new(Inside::default());
    let client: host::Client = capnp_rpc::new_client_from_rc(inside.clone());
    (inside, now(membranes("handles=4096").restrict(client.client, methods(allowed))).unwrap())
}

fn revocable() -> (Rc<Inside>, Client, CancellationToken) {
    let inside = Rc::new(Inside::default());
    let client: host::Client = capnp_rpc::new_client_from_rc(inside.clone());
    let revoked = CancellationToken::new();
    let revocable = now(membranes("handles=4096").revocable(client.client, revoked.clone())).unwrap();
    (inside, revocable, revoked)
}

fn refusal<T>(answer: Result<T, Error>) -> String {
    answer.err().expect("the call is refused").to_string()
}

async fn id(host: &host::Client) -> Result<String, Error> {
    Ok(host.id_request().send().promise.await?.get()?.get_id()?.to_string()?)
}

async fn echo(executor: &executor::Client) -> Result<String, Error> {
    let mut request = executor.echo_request();
    request.get().set_message("hello");
    Ok(request.send().promise.await?.get()?.get_response()?.to_string()?)
}

async fn executor(host: &host::Client) -> Result<executor::Client, Error> {
    host.executor_request().send().promise.await?.get()?.get_executor()
}

/// Passes a capability in, and returns it as it comes back.
async fn pass(host: &host::Client, capability: &Client) -> Result<host::Client, Error> {
    let mut request = host.restrict_request();
    request.get().init_capability().set_as_capability(capability.hook.add_ref());
    request.send().promise.await?.get()?.get_capability().get_as_capability()
}

const NOT_PERMITTED: &str = "not permitted: Executor.echo was not granted";

#[test]
fn what_is_not_listed_is_refused_and_never_reached() {
    let (inside, client) = restricted(&[ID]);
    connected(client, async |host| {
        assert_eq!(id(&host).await.unwrap(), "inside");
        let refused = refusal(host.peers_request().send().promise.await);
        assert!(refused.contains("not permitted: Host.peers was not granted"), "{refused}");
        let executor: executor::Client = capnp::capability::FromClientHook::new(host.client.hook.add_ref());
        assert!(refusal(echo(&executor).await).contains(NOT_PERMITTED), "as another interface");
        assert_eq!(id(&host).await.unwrap(), "inside");
    });
    assert_eq!(inside.calls.get(), 0);
}

#[test]
fn what_is_kept_for_a_restriction_is_memory() {
    let account = Account::new("memory=64KiB".parse().unwrap());
    let membranes = Membranes::new(&account);
    let all: Vec<_> = (0..1024).map(|interface| (interface, 0)).collect();
    let restricted = || {
        let client: host::Client = capnp_rpc::new_client(Inside::default());
        now(membranes.restrict(client.client, methods(&all)))
    };
    let kept: Vec<_> = (0..3).map(|_| restricted().unwrap()).collect();
    assert!(account.memory_bytes() >= 3 * 1024 * 10, "{}", account.memory_bytes());
    assert!(refusal(restricted()).contains("the limit `memory` is reached, which is 64KiB"));
    drop(kept);
    assert_eq!(account.memory_bytes(), 0);
}

#[test]
fn what_an_allowed_method_returns_is_restricted() {
    let (inside, client) = restricted(&[GET_EXECUTOR]);
    connected(client, async |host| {
        let executor = executor(&host).await.unwrap();
        assert!(refusal(echo(&executor).await).contains(NOT_PERMITTED));
    });
    assert_eq!(inside.calls.get(), 0);
    let (inside, client) = restricted(&[GET_EXECUTOR, (EXECUTOR, 1)]);
    connected(client, async |host| {
        assert_eq!(echo(&executor(&host).await.unwrap()).await.unwrap(), "hello");
    });
    assert_eq!(inside.calls.get(), 1);
}

#[test]
fn promised_results_are_restricted() {
    let (inside, client) = restricted(&[GET_EXECUTOR]);
    connected(client, async |host| {
        // Both calls are on their way before there is an executor.
        let promised = host.executor_request().send();
        let executor = promised.pipeline.get_executor();
        assert!(refusal(echo(&executor).await).contains(NOT_PERMITTED));
        promised.promise.await.unwrap();
        assert!(refusal(echo(&executor).await).contains(NOT_PERMITTED), "when it is resolved");
    });
    assert_eq!(inside.calls.get(), 0);
}

#[test]
fn after_a_revocation_every_call_fails() {
    let (inside, client, revoked) = revocable();
    connected(client, async |host| {
        let kept = executor(&host).await.unwrap();
        assert_eq!(echo(&kept).await.unwrap(), "hello");
        let promised = host.executor_request().send().pipeline.get_executor();
        let pending = host.addrs_request().send().promise;
        id(&host).await.unwrap();
        revoked.cancel();
        assert!(refusal(pending.await).contains("revoked: "), "a call on its way");
        inside.go_on.notify_one();
        assert!(refusal(id(&host).await).contains("revoked: "));
        assert!(refusal(executor(&host).await).contains("revoked: "));
        assert!(refusal(echo(&kept).await).contains("revoked: "), "what came through it before");
        assert!(refusal(echo(&promised).await).contains("revoked: "), "what was promised");
        revoked.cancel();
        assert!(refusal(id(&host).await).contains("revoked: "), "revoked twice");
        assert_eq!(inside.calls.get(), 1);
    });
}

#[test]
fn what_is_passed_in_is_called_back_through_the_membrane() {
    let (inside, client) = restricted(&[RESTRICT]);
    let outside = Rc::new(Inside::default());
    let own: host::Client = capnp_rpc::new_client_from_rc(outside.clone());
    let (held, seen) = (inside.clone(), outside.clone());
    connected(client, async move |host| {
        pass(&host, &own.client).await.unwrap();
        let callback = held.given.take().unwrap();
        // The list is for those who are outside.
        callback.peers_request().send().promise.await.unwrap();
        assert_eq!(seen.calls.get(), 1);
        // What is inside calls back with something of its own.
        let secret: host::Client = capnp_rpc::new_client_from_rc(held.clone());
        pass(&callback, &secret.client).await.unwrap();
        let given = seen.given.take().unwrap();
        let refused = refusal(given.peers_request().send().promise.await);
        assert!(refused.contains("not permitted: Host.peers was not granted"), "{refused}");
        assert_eq!(held.calls.get(), 0);
    });
}

#[test]
fn a_revocation_leaves_no_way_back() {
    let (inside, client, revoked) = revocable();
    let outside = Rc::new(Inside::default());
    let own: host::Client = capnp_rpc::new_client_from_rc(outside.clone());
    connected(client, async move |host| {
        pass(&host, &own.client).await.unwrap();
        let callback = inside.given.take().unwrap();
        let secret: host::Client = capnp_rpc::new_client_from_rc(inside.clone());
        pass(&callback, &secret.client).await.unwrap();
        let given = outside.given.take().unwrap();
        assert_eq!(id(&given).await.unwrap(), "inside");
        revoked.cancel();
        assert!(refusal(id(&given).await).contains("revoked: "), "what was given in a call back");
        assert!(refusal(pass(&callback, &secret.client).await).contains("revoked: "));
        assert!(refusal(callback.peers_request().send().promise.await).contains("revoked: "));
        assert_eq!(outside.calls.get(), 0);
    });
}

/// Else somebody could have it handed, unrestricted, to somebody else.
#[test]
fn what_goes_back_in_stays_restricted() {
    let (inside, client) = restricted(&[RESTRICT, ID]);
    connected(client, async move |host| {
        let returned = pass(&host, &host.client).await.unwrap();
        let within = inside.given.take().unwrap();
        for host in [returned, within] {
            assert_eq!(id(&host).await.unwrap(), "inside");
            let refused = refusal(host.peers_request().send().promise.await);
            assert!(refused.contains("not permitted: Host.peers was not granted"), "{refused}");
        }
        assert_eq!(inside.calls.get(), 0);
    });
}

#[test]
fn restrictions_add_up_and_are_bounded() {
    let membranes = membranes("handles=4096");
    let inside: host::Client = capnp_rpc::new_client(Inside::default());
    let mut capability = inside.client;
    let mut allowed = vec![ID, GET_EXECUTOR, (EXECUTOR, 1)];
    for layer in 0..LAYERS_MAX {
        if layer == 3 {
            allowed.pop();
        }
        capability = now(membranes.restrict(capability, methods(&allowed))).unwrap();
    }
    let refused = refusal(now(membranes.restrict(capability.clone(), methods(&allowed))));
    assert!(refused.contains("more than 16 restrictions are around a capability"), "{refused}");
    connected(capability, async |host| {
        assert_eq!(id(&host).await.unwrap(), "inside");
        let executor = host.executor_request().send().pipeline.get_executor();
        assert!(refusal(echo(&executor).await).contains(NOT_PERMITTED));
    });
    assert_eq!(membranes.0.count.get(), 0, "nothing is left");
    LIVE.with_borrow(|live| assert!(live.is_empty()));
}

/// Each call adds restrictions to what it returns, while it is a promise still.
#[test]
fn promises_do_not_hide_restrictions() {
    let (_, client) = restricted(&[RESTRICT]);
    connected(client, async |host| {
        let mut capability: host::Client = host.clone();
        let mut refused = None;
        for _ in 0..4 * LAYERS_MAX {
            let mut request = host.restrict_request();
            request.get().init_capability().set_as_capability(capability.client.hook.add_ref());
            let answer = request.send();
            capability = capnp::capability::FromClientHook::new(answer.pipeline.get_capability().as_cap());
            if let Err(error) = answer.promise.await {
                refused.get_or_insert(error.to_string());
            }
        }
        let refused = refused.expect("it goes on for ever");
        assert!(refused.contains("more than 16 restrictions"), "{refused}");
    });
}

#[test]
fn what_is_held_through_membranes_is_bounded() {
    let inside: host::Client = capnp_rpc::new_client(Inside::default());
    let membranes = membranes("handles=16");
    let client = now(membranes.restrict(inside.client, methods(&[GET_EXECUTOR]))).unwrap();
    connected(client, async move |host| {
        let mut held = Vec::new();
        let refused = loop {
            match executor(&host).await {
                Ok(executor) => held.push(executor),
                Err(error) => break error.to_string(),
            }
        };
        assert!(refused.contains("the limit `handles` is reached, which is 16"), "{refused}");
        assert_eq!(held.len(), 15);
        held.clear();
        // The release is on its way before this call.
        executor(&host).await.unwrap();
    });
}

/// A stream that notes what is done to it.
#[derive(Default)]
struct Stream(Rc<RefCell<Vec<String>>>);

impl byte_stream::Server for Stream {
    async fn write(self: Rc<Self>, params: byte_stream::WriteParams) -> Result<(), Error> {
        let text = String::from_utf8_lossy(params.get()?.get_data()?).into_owned();
        for _ in 0..text.len() % 3 {
            tokio::task::yield_now().await;
        }
        self.0.borrow_mut().push(text);
        Ok(())
    }

    async fn close(self: Rc<Self>, _: byte_stream::CloseParams, _: byte_stream::CloseResults) -> Result<(), Error> {
        self.0.borrow_mut().push("closed".into());
        Ok(())
    }
}

#[test]
fn calls_keep_their_order() {
    let written = Rc::new(RefCell::new(Vec::new()));
    let stream: byte_stream::Client = capnp_rpc::new_client(Stream(written.clone()));
    let client = now(membranes("handles=16").revocable(stream.client, CancellationToken::new())).unwrap();
    connected(client, async move |host| {
        let stream: byte_stream::Client = capnp::capability::FromClientHook::new(host.client.hook);
        let mut sent = Vec::new();
        for number in 0..100 {
            let text = "x".repeat(number % 7) + &number.to_string();
            let mut request = stream.write_request();
            request.get().set_data(text.as_bytes());
            request.send().await.unwrap();
            sent.push(text);
        }
        stream.close_request().send().promise.await.unwrap();
        sent.push("closed".into());
        assert_eq!(*written.borrow(), sent);
    });
}

/// A restricted executor that may load and spawn, and a child that is handed what its starter holds.
struct Spawning(Rc<RefCell<Option<host::Client>>>);

impl executor::Server for Spawning {
    async fn load(self: Rc<Self>, _: executor::LoadParams, mut results: executor::LoadResults) -> Result<(), Error> {
        let module: module::Client = capnp_rpc::new_client(Spawning(self.0.clone()));
        results.get().set_module(module);
        Ok(())
    }
}

impl module::Server for Spawning {
    async fn spawn(
        self: Rc<Self>,
        params: module::SpawnParams,
        mut results: module::SpawnResults,
    ) -> Result<(), Error> {
        self.0.replace(Some(params.get()?.get_bootstrap().get_as_capability()?));
        results.get().set_process(capnp_rpc::new_client::<process::Client, _>(NoProcess));
        Ok(())
    }
}

struct NoProcess;

impl process::Server for NoProcess {}

#[test]
fn a_child_gets_no_more_than_its_starter_has() {
    let handed = Rc::new(RefCell::new(None));
    let executor: executor::Client = capnp_rpc::new_client(Spawning(handed.clone()));
    let membranes = membranes("handles=64");
    let (inside, host) = restricted(&[ID]);
    let module = <module::Client as HasTypeId>::TYPE_ID;
    let executor = now(membranes.restrict(executor.client, methods(&[(EXECUTOR, 2), (module, 0)]))).unwrap();
    connected(executor, async move |executor| {
        let executor: executor::Client = capnp::capability::FromClientHook::new(executor.client.hook);
        let module = executor.load_request().send().pipeline.get_module();
        let mut request = module.spawn_request();
        request.get().init_bootstrap().set_as_capability(host.hook);
        let process = request.send().promise.await.unwrap().get().unwrap().get_process().unwrap();
        let refused = refusal(process.kill_request().send().promise.await);
        assert!(refused.contains("not permitted: Process.kill was not granted"), "{refused}");
        let of_child = handed.take().unwrap();
        assert_eq!(id(&of_child).await.unwrap(), "inside");
        assert!(refusal(of_child.peers_request().send().promise.await).contains("not permitted"));
        assert_eq!(inside.calls.get(), 0);
    });
}
