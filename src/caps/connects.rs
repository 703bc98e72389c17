//! How much of the node's connections one cell may use up.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use capnp::Error;

/// How many calls of `Host.connect` may be under way for one cell: a quarter of what the node dials at once.
const UNDER_WAY_MAX: usize = 8;

/// How many peers that one cell had the node connect to may be connected: half of what the node keeps free of those that
/// others open.
const PEERS_MAX: usize = 32;

/// What one cell has had the node connect to. Whoever it hands its `Host` to shares it.
#[derive(Default)]
pub(super) struct Connects {
    under_way: Cell<usize>,
    peers: RefCell<BTreeSet<String>>,
}

/// One call that is under way.
pub(super) struct UnderWay<'a>(&'a Connects);

impl Connects {
    /// Begins a call.
    ///
    /// # Errors
    ///
    /// There are as many as there may be.
    pub(super) fn begin(&self) -> Result<UnderWay<'_>, Error> {
        if self.under_way.get() >= UNDER_WAY_MAX {
            let text =
                format!("{UNDER_WAY_MAX} calls of `connect` are under way, which is the most that a cell may have");
            return Err(Error::overloaded(text));
        }
        self.under_way.update(|count| count + 1);
        Ok(UnderWay(self))
    }

    /// Makes room for one more peer, where `connected` tells who is connected.
    ///
    /// # Errors
    ///
    /// There are as many as there may be.
    pub(super) async fn check(
        &self,
        peer: &str,
        connected: impl Future<Output = BTreeSet<String>>,
    ) -> Result<(), Error> {
        if self.is_full(peer) {
            let connected = connected.await;
            self.peers.borrow_mut().retain(|peer| connected.contains(peer));
        }
        match self.is_full(peer) {
            true => Err(Error::overloaded(format!(
                "this cell has had the node connect to {PEERS_MAX} peers, which is the most that it may have"
            ))),
            false => Ok(()),
        }
    }

    fn is_full(&self, peer: &str) -> bool {
        let peers = self.peers.borrow();
        peers.len() >= PEERS_MAX && !peers.contains(peer)
    }
}

impl UnderWay<'_> {
    /// Notes that the peer is connected.
    pub(super) fn succeed(self, peer: &str) {
        self.0.peers.borrow_mut().insert(peer.to_owned());
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.update(|count| count - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn calls_under_way_are_bounded() {
        let connects = Connects::default();
        let mut under_way: Vec<_> = (0..UNDER_WAY_MAX).map(|_| connects.begin().unwrap()).collect();
        let error = connects.begin().map(drop).unwrap_err().extra;
        assert_eq!(error, "8 calls of `connect` are under way, which is the most that a cell may have");
        under_way.pop();
        connects.begin().unwrap();
    }

    #[test]
    fn peers_are_bounded_as_long_as_they_are_connected() {
        let connects = Connects::default();
        let names: Vec<_> = (0..=PEERS_MAX).map(|number| number.to_string()).collect();
        let check = |peer: &str, connected: &[String]| {
            let connected = connected.iter().cloned().collect();
            connects.check(peer, async { connected }).now_or_never().unwrap()
        };
        for peer in &names[..PEERS_MAX] {
            check(peer, &[]).unwrap();
            connects.begin().unwrap().succeed(peer);
        }
        check(&names[0], &names).expect("it is connected");
        let error = check(&names[PEERS_MAX], &names).unwrap_err().extra;
        assert!(error.contains("connect to 32 peers"), "{error}");
        check(&names[PEERS_MAX], &names[1..]).expect("one has gone");
    }
}
