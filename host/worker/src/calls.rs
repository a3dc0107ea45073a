//! Calls that are under way, by number: who waits for which.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

/// Messages that may wait for one call: one is due at a time, and whoever sends more floods.
const DUE: usize = 1;

/// Where a message for a call goes.
pub(crate) struct Calls<M> {
    waiting: Mutex<Waiting<M>>,
    next: AtomicU64,
}

struct Waiting<M> {
    calls: HashMap<u64, Sender<M>>,
    closed: bool,
}

/// One call's number and its messages; it is forgotten when this is dropped.
pub(crate) struct Open<'a, M> {
    pub(crate) id: u64,
    pub(crate) messages: Receiver<M>,
    calls: &'a Calls<M>,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Routed {
    Delivered,
    /// The call is over, or there never was one.
    Nobody,
    Flood,
}

impl<M> Default for Calls<M> {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                calls: HashMap::new(),
                closed: false,
            }),
            next: AtomicU64::new(1),
        }
    }
}

impl<M> Calls<M> {
    /// A new number; none when the other side is gone.
    pub(crate) fn open(&self) -> Option<Open<'_, M>> {
        self.open_as(self.number())
    }

    /// The other side's number.
    pub(crate) fn open_as(&self, id: u64) -> Option<Open<'_, M>> {
        let (sender, messages) = bounded(DUE);
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return None;
        }
        waiting.calls.insert(id, sender);
        Some(Open {
            id,
            messages,
            calls: self,
        })
    }

    /// A number that nothing else has.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn route(&self, id: u64, message: M) -> Routed {
        match self.waiting.lock().calls.get(&id) {
            None => Routed::Nobody,
            Some(call) if call.try_send(message).is_ok() => Routed::Delivered,
            Some(_) => Routed::Flood,
        }
    }

    /// Ends all of them; there will be no more.
    pub(crate) fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        waiting.calls.clear();
    }
}

impl<M> Drop for Open<'_, M> {
    fn drop(&mut self) {
        self.calls.waiting.lock().calls.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_finds_its_call_until_the_call_is_over() {
        let calls = Calls::default();
        let one = calls.open().unwrap();
        let other = calls.open().unwrap();
        assert_eq!(calls.route(other.id, "for the other"), Routed::Delivered);
        assert!(one.messages.is_empty());
        assert_eq!(other.messages.recv(), Ok("for the other"));
        let id = other.id;
        drop(other);
        assert_eq!(calls.route(id, "late"), Routed::Nobody);
        for _ in 0..DUE {
            assert_eq!(calls.route(one.id, "more"), Routed::Delivered);
        }
        assert_eq!(calls.route(one.id, "too much"), Routed::Flood);
        calls.close();
        assert!(calls.open().is_none());
    }
}
