//! Membranes: capabilities around others, which let pass what was granted, until they are revoked.
//!
//! A membrane stands between those who hold a capability, outside, and what is behind it, inside. Whatever passes is
//! wrapped: a capability that comes out, in a result or in the parameters of a call back, is reached through the same
//! membrane, and one that goes in can be called back only while the membrane is not revoked. So what holds for a
//! capability holds for all that is ever got through it.
//!
//! A wrapped capability is never unwrapped, not even where it goes back to the side that it came from. Inside may be an
//! `Executor`, which hands what it is given to somebody else; that must not be more than the giver had.
//!
//! To the RPC system a membrane is a local capability that is no promise. Hence nobody is ever referred to what is behind
//! it: calls on promised results wait at the membrane until the result is there and is wrapped.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use capnp::capability::{Client, DispatchCallResult, FromServer, Params, Promise, Results, Server};
use capnp::message::{Builder, HeapAllocator};
use capnp::private::capability::ClientHook;
use capnp::traits::{Imbue, ImbueMut};
use capnp::{Error, any_pointer};
use tokio_util::sync::CancellationToken;

use super::methods::Methods;
use crate::cell::{Account, Held, LimitReached};
use crate::grant::Limit;

/// How many membranes may be around one capability. A call goes through them by recursion, and so does the end of the
/// capability; each takes a few kilobytes of the stack. More than a chain of cells needs that each restrict what they pass
/// on ([`Limit::Depth`] is 8 unless it is set).
const LAYERS_MAX: usize = 16;

/// How many calls through membranes may wait for each other, each polled by the one that waits for it. As many as a peer
/// may have in a chain (`vat`); a call through a membrane is no link of that.
const CHAIN_MAX: usize = 64;

/// Which part of a cell's handles may be held through one of its membranes, so that no holder of one uses up all of them.
const SHARE: usize = 4;

/// What may be held through a membrane in any case: as many as the least number of handles.
const SHARE_MIN: usize = 16;

/// Makes membranes on behalf of one cell, and counts what is held through them. A cheap handle.
#[derive(Clone)]
pub(super) struct Membranes(Rc<Tally>);

struct Tally {
    /// How many capabilities there are.
    count: Cell<usize>,
    max: usize,
    /// What is said when there are as many as may be.
    full: LimitReached,
    /// On which it is booked what is kept for a membrane.
    account: Account,
}

/// What a membrane and its capability take beside its methods, in bytes.
const POLICY_BYTES: u64 = 512;

impl Membranes {
    /// For a cell with this account.
    pub(super) fn new(account: &Account) -> Self {
        let max = account.limits().size(Limit::Handles);
        let (full, account) = (account.reached(Limit::Handles), account.clone());
        Self(Rc::new(Tally { count: Cell::new(0), max, full, account }))
    }

    /// The capability as far as these methods go.
    ///
    /// # Errors
    ///
    /// Too many membranes are around it, or are there, or the cell has no memory left for what is kept of this one.
    pub(super) async fn restrict(&self, capability: Client, methods: Methods) -> Result<Client, Error> {
        self.wrap(capability, Some(methods), CancellationToken::new()).await
    }

    /// The capability until the token is cancelled.
    ///
    /// # Errors
    ///
    /// As [`Membranes::restrict`].
    pub(super) async fn revocable(&self, capability: Client, revoked: CancellationToken) -> Result<Client, Error> {
        self.wrap(capability, None, revoked).await
    }

    async fn wrap(
        &self,
        capability: Client,
        methods: Option<Methods>,
        revoked: CancellationToken,
    ) -> Result<Client, Error> {
        let bytes = POLICY_BYTES + methods.as_ref().map_or(0, Methods::size_bytes);
        let held = self.0.account.hold(bytes).map_err(|full| Error::failed(full.to_string()))?;
        // Of a promise it cannot be told how many membranes are around it.
        let capability = settled(capability.hook).await;
        let policy = Policy { methods, revoked, tally: self.0.clone(), count: Cell::new(0), _held: held };
        Ok(Client::new(Rc::new(policy).wrap(capability, Side::Inside)?))
    }
}

/// What a capability is when it is no promise of this host any more. One of a cell's becomes nothing but what is that
/// cell's, too (`vat`), around which there is no membrane.
async fn settled(mut hook: Box<dyn ClientHook>) -> Box<dyn ClientHook> {
    loop {
        hook = resolved(hook);
        match hook.when_more_resolved() {
            Some(promise) if hook.get_brand() == 0 => match promise.await {
                Ok(resolved) => hook = resolved,
                // It is an error, which each call of it will tell.
                Err(_) => return resolved(hook),
            },
            _ => return hook,
        }
    }
}

/// What a capability is now.
fn resolved(mut hook: Box<dyn ClientHook>) -> Box<dyn ClientHook> {
    while let Some(resolved) = hook.get_resolved() {
        hook = resolved;
    }
    hook
}

/// What a membrane lets pass.
struct Policy {
    /// What may be called inside; `None` is everything.
    methods: Option<Methods>,
    revoked: CancellationToken,
    tally: Rc<Tally>,
    /// How many capabilities there are of this one.
    count: Cell<usize>,
    /// The room for what is kept of it.
    _held: Held,
}

/// Where a capability is that the other side holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Inside,
    Outside,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Inside => Self::Outside,
            Self::Outside => Self::Inside,
        }
    }
}

impl Policy {
    /// What the other side gets for a capability of this one.
    fn wrap(self: &Rc<Self>, inner: Box<dyn ClientHook>, side: Side) -> Result<Box<dyn ClientHook>, Error> {
        if layers(&*inner) >= LAYERS_MAX {
            return Err(Error::failed(format!("more than {LAYERS_MAX} restrictions are around a capability")));
        }
        self.check_room(1)?;
        self.tally.count.update(|count| count + 1);
        self.count.update(|count| count + 1);
        let membrane = Rc::new(Membrane { inner, policy: self.clone(), side });
        LIVE.with_borrow_mut(|live| live.insert(membrane.address(), Rc::downgrade(&membrane)));
        Ok(capnp_rpc::new_client_from_rc::<Client, _>(membrane).hook)
    }

    /// An error unless so many more capabilities may be held.
    fn check_room(&self, more: usize) -> Result<(), Error> {
        let tally = &self.tally;
        let share = (tally.max / SHARE).max(SHARE_MIN);
        if tally.count.get() + more > tally.max {
            return Err(Error::failed(tally.full.to_string()));
        }
        match self.count.get() + more > share {
            true => Err(Error::failed(format!(
                "more than {share} capabilities are held through a restricted or revocable one; {}",
                tally.full
            ))),
            false => Ok(()),
        }
    }

    fn check(&self, side: Side, interface: u64, method: u16) -> Result<(), Error> {
        match &self.methods {
            Some(methods) if side == Side::Inside => methods.check(interface, method),
            _ => Ok(()),
        }
    }
}

thread_local! {
    /// The membranes of this thread, by their addresses.
    static LIVE: RefCell<HashMap<usize, Weak<Membrane>>> = RefCell::default();
}

/// How many membranes are around what is behind `hook`. Counts those around a promise until that is resolved.
fn layers(hook: &dyn ClientHook) -> usize {
    let mut hook = hook.add_ref();
    for count in 0..LAYERS_MAX {
        hook = resolved(hook);
        // An address says what is there for as long as it is there, which `hook` sees to.
        let found = LIVE.with_borrow(|live| live.get(&hook.get_ptr()).and_then(Weak::upgrade));
        match found {
            Some(membrane) => hook = membrane.inner.add_ref(),
            None => return count,
        }
    }
    LAYERS_MAX
}

/// One capability that is reached through a membrane.
struct Membrane {
    inner: Box<dyn ClientHook>,
    policy: Rc<Policy>,
    /// Where `inner` is.
    side: Side,
}

impl Membrane {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Makes the call on the other side, and returns what comes of it.
    ///
    /// Up to the first wait this does everything that the order of calls depends on.
    async fn forward(
        self: Rc<Self>,
        interface: u64,
        method: u16,
        params: Params<any_pointer::Owned>,
        mut results: Results<any_pointer::Owned>,
    ) -> Result<(), Error> {
        let revoked = &self.policy.revoked;
        if revoked.is_cancelled() {
            return Err(is_revoked());
        }
        self.policy.check(self.side, interface, method)?;
        // Promises that were resolved since may have brought others along.
        if layers(&*self.inner) >= LAYERS_MAX {
            return Err(Error::failed(format!("more than {LAYERS_MAX} restrictions are around a capability")));
        }
        // A request to a promise that is resolved is copied, which fails where there are capabilities in it.
        let mut request = resolved(self.inner.add_ref()).new_call(interface, method, None);
        self.pass(params.hook.get()?, self.side.other(), request.hook.get())?;
        // Nobody books the copy, which may be waited with on the other side. The message is booked for as long as it is there,
        // and so it stays as long as the copy may.
        let answered = revoked.run_until_cancelled(request.send().promise).await;
        drop(params);
        let answer = answered.ok_or_else(is_revoked)??;
        self.pass(answer.hook.get()?, self.side, results.hook.get()?)
    }

    /// Copies a message to the other side, its capabilities wrapped. They are on `side`.
    fn pass(&self, from: any_pointer::Reader<'_>, side: Side, mut to: any_pointer::Builder<'_>) -> Result<(), Error> {
        let count = from.target_size()?.cap_count as usize;
        if count == 0 {
            return to.set_as(from);
        }
        self.policy.check_room(count)?;
        // The capabilities of a message can be seen in a copy of it only.
        let mut copy = Builder::new(HeapAllocator::new().first_segment_words(COPY_WORDS));
        let mut capabilities = Vec::new();
        let mut root: any_pointer::Builder<'_> = copy.init_root();
        root.imbue_mut(&mut capabilities);
        root.set_as(from)?;
        let wrap = |inner: Option<Box<dyn ClientHook>>| inner.map(|inner| self.policy.wrap(inner, side)).transpose();
        let wrapped = capabilities.into_iter().map(wrap).collect::<Result<Vec<_>, _>>()?;
        let mut root: any_pointer::Reader<'_> = copy.get_root_as_reader()?;
        root.imbue(&wrapped);
        to.set_as(root)
    }
}

/// The first piece of a message's copy, in words. Most messages are smaller; larger pieces follow as they are needed.
const COPY_WORDS: u32 = 128;

fn is_revoked() -> Error {
    Error::failed("revoked: this capability was taken back by whoever handed it out".into())
}

impl Drop for Membrane {
    fn drop(&mut self) {
        let address = self.address();
        // The thread may be ending.
        let _ = LIVE.try_with(|live| live.borrow_mut().remove(&address));
        self.policy.tally.count.update(|count| count - 1);
        self.policy.count.update(|count| count - 1);
    }
}

thread_local! {
    /// How many calls through membranes are being polled, each by the one before.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Whether one was not polled, since there are too many.
    static IS_TOO_DEEP: Cell<bool> = const { Cell::new(false) };
}

/// A call through a membrane. Where it waits for what another call returns, it polls that one, and so on; each takes some
/// kilobytes of the stack.
struct Forwarding<F>(Pin<Box<F>>);

impl<F: Future<Output = Result<(), Error>>> Future for Forwarding<F> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let _level = match Level::enter() {
            Some(level) => level,
            None => {
                // The last of them has failed by then, and nothing is left that waits here.
                IS_TOO_DEEP.set(true);
                return Poll::Pending;
            }
        };
        let polled = self.0.as_mut().poll(context);
        let is_too_deep = DEPTH.get() == 1 && IS_TOO_DEEP.take();
        match polled {
            Poll::Pending if is_too_deep => Poll::Ready(Err(Error::failed(format!(
                "more than {CHAIN_MAX} calls wait for each other through restricted or revocable capabilities"
            )))),
            polled => polled,
        }
    }
}

/// One of the calls that are being polled.
struct Level;

impl Level {
    fn enter() -> Option<Self> {
        let depth = DEPTH.get();
        (depth < CHAIN_MAX).then(|| {
            DEPTH.set(depth + 1);
            Self
        })
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// How the RPC system calls a membrane.
#[derive(Clone)]
struct Gate(Rc<Membrane>);

impl Deref for Gate {
    type Target = Membrane;

    fn deref(&self) -> &Membrane {
        &self.0
    }
}

impl Server for Gate {
    fn dispatch_call(
        self,
        interface: u64,
        method: u16,
        params: Params<any_pointer::Owned>,
        results: Results<any_pointer::Owned>,
    ) -> DispatchCallResult {
        // Whether it is a streaming call is for the other side to know, which keeps such calls in order.
        let forwarding = Forwarding(Box::pin(self.0.forward(interface, method, params, results)));
        DispatchCallResult::new(Promise::from_future(forwarding), false)
    }

    fn as_ptr(&self) -> usize {
        self.0.address()
    }
}

impl FromServer<Membrane> for Client {
    type Dispatch = Gate;

    fn from_server(membrane: Rc<Membrane>) -> Gate {
        Gate(membrane)
    }
}

#[cfg(test)]
mod tests;
