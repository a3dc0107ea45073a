//! Something that there is only so much of, shared by tenants: nobody has more than a share, and whoever waits gets it in turns by tenant.
//!
//! What is asked for first is given first only among one tenant's: a request that waits for much, or many that wait, hold up nobody else. A
//! large request waits while smaller ones of others fit. Does not know what a unit is.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rl::TenantId;
use tokio::sync::oneshot;

/// What is shared. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shares {
    state: Arc<Mutex<State>>,
    /// Most units of a tenant.
    share: usize,
}

/// What one request has, given back when it is dropped.
pub(crate) struct Room {
    of: Shares,
    tenant: TenantId,
    units: usize,
}

struct State {
    free: usize,
    /// Those who have or want some.
    tenants: HashMap<TenantId, Tenant>,
    /// Those who want some; the first one's turn is next.
    order: VecDeque<TenantId>,
}

#[derive(Default)]
struct Tenant {
    held: usize,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    units: usize,
    give: oneshot::Sender<Room>,
}

/// Somebody who waits, and leaves the queue when dropped.
struct Waiting<'a> {
    of: &'a Shares,
    tenant: &'a TenantId,
    given: oneshot::Receiver<Room>,
}

/// What was given while the state was locked; giving it to somebody who is gone locks it again.
type Given = Vec<(oneshot::Sender<Room>, Room)>;

impl Shares {
    /// `units` in all, of which a tenant has `share` at most.
    pub(crate) fn new(units: usize, share: usize) -> Self {
        let state = State {
            free: units,
            tenants: HashMap::new(),
            order: VecDeque::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            share: share.min(units),
        }
    }

    /// Most units of a tenant: nobody gets more at once.
    pub(crate) fn share(&self) -> usize {
        self.share
    }

    /// Waits for units, a share of them at most. A caller that stops waiting leaves the queue.
    pub(crate) async fn take(&self, tenant: &TenantId, units: usize) -> Room {
        let (give, given) = oneshot::channel();
        let units = units.min(self.share);
        self.change(|state| {
            let queue = &mut state.tenants.entry(tenant.clone()).or_default().waiting;
            queue.push_back(Waiter { units, give });
            if queue.len() == 1 {
                state.order.push_back(tenant.clone());
            }
        });
        let mut waiting = Waiting {
            of: self,
            tenant,
            given,
        };
        match (&mut waiting.given).await {
            Ok(room) => room,
            // A sender leaves the queue by giving, or when its waiter is gone.
            Err(_) => std::future::pending().await,
        }
    }

    /// Units that are free now, whoever waits.
    pub(crate) fn try_take(&self, tenant: &TenantId, units: usize) -> Option<Room> {
        let mut state = self.state.lock();
        let held = state.tenants.get(tenant).map_or(0, |tenant| tenant.held);
        if units > state.free || held + units > self.share {
            return None;
        }
        state.free -= units;
        state.tenants.entry(tenant.clone()).or_default().held += units;
        drop(state);
        Some(self.room(tenant, units))
    }

    fn room(&self, tenant: &TenantId, units: usize) -> Room {
        Room {
            of: self.clone(),
            tenant: tenant.clone(),
            units,
        }
    }

    fn give_back(&self, tenant: &TenantId, units: usize) {
        self.change(|state| {
            state.free += units;
            if let Some(tenant) = state.tenants.get_mut(tenant) {
                tenant.held -= units;
            }
        });
    }

    /// Changes the state, and gives what can be given then.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let given = {
            let mut state = self.state.lock();
            change(&mut state);
            self.give(&mut state)
        };
        for (give, room) in given {
            // Who has gone meanwhile gives it back.
            drop(give.send(room));
        }
    }

    /// One request of each tenant in turn, until no tenant's first one fits.
    fn give(&self, state: &mut State) -> Given {
        let mut given = Given::new();
        let mut passed = 0;
        while passed < state.order.len() {
            let Some(name) = state.order.pop_front() else {
                break;
            };
            passed += 1;
            let Some(tenant) = state.tenants.get_mut(&name) else {
                continue;
            };
            let fits = |waiter: &mut Waiter| {
                waiter.units <= state.free && tenant.held + waiter.units <= self.share
            };
            if let Some(Waiter { units, give }) = tenant.waiting.pop_front_if(fits) {
                state.free -= units;
                tenant.held += units;
                given.push((give, self.room(&name, units)));
                passed = 0;
            }
            if !tenant.waiting.is_empty() {
                state.order.push_back(name);
            }
        }
        let idle = |tenant: &Tenant| tenant.held == 0 && tenant.waiting.is_empty();
        state.tenants.retain(|_, tenant| !idle(tenant));
        given
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.given.close();
        self.of.change(|state| {
            if let Some(tenant) = state.tenants.get_mut(self.tenant) {
                tenant.waiting.retain(|waiter| !waiter.give.is_closed());
                if tenant.waiting.is_empty() {
                    state.order.retain(|name| name != self.tenant);
                }
            }
        });
    }
}

impl Room {
    /// Makes it `units` large: gives back the rest, or takes more if it is there. Whoever has some does not wait for more: two of that kind
    /// would wait for each other.
    pub(crate) fn resize(&mut self, units: usize) -> bool {
        if units > self.units {
            let Some(mut more) = self.of.try_take(&self.tenant, units - self.units) else {
                return false;
            };
            self.units += std::mem::take(&mut more.units);
        } else {
            let rest = self.units - units;
            self.units = units;
            self.of.give_back(&self.tenant, rest);
        }
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.of.give_back(&self.tenant, self.units);
    }
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shares").finish_non_exhaustive()
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("units", &self.units).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn anna() -> TenantId {
        TenantId::new("anna")
    }

    fn ben() -> TenantId {
        TenantId::new("ben")
    }

    #[tokio::test]
    async fn whoever_waits_for_much_holds_up_no_other_tenant() {
        let shares = Shares::new(16, 8);
        let held = shares.take(&ben(), 8).await;
        let small = shares.take(&TenantId::new("carl"), 4).await;
        let (anna, ben) = (anna(), ben());
        let mut large = Box::pin(shares.take(&anna, 8));
        assert!((&mut large).now_or_never().is_none());
        drop(held);
        drop(large.now_or_never().expect("there is room"));
        let held = shares.take(&anna, 8).await;
        let mut large = Box::pin(shares.take(&ben, 8));
        assert!((&mut large).now_or_never().is_none());
        let dora = TenantId::new("dora");
        let other = shares.take(&dora, 2).now_or_never();
        assert!(other.is_some(), "a small one fits beside it");
        drop((held, other, small));
        assert!(large.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_tenant_with_many_requests_and_one_with_few_get_turns() {
        let shares = Shares::new(1, 1);
        let (anna, ben) = (anna(), ben());
        let first = shares.take(&anna, 1).await;
        let mut flood: Vec<_> = (0..5).map(|_| Box::pin(shares.take(&anna, 1))).collect();
        for waiting in &mut flood {
            assert!(waiting.now_or_never().is_none());
        }
        let mut other = Box::pin(shares.take(&ben, 1));
        assert!((&mut other).now_or_never().is_none());
        drop(first);
        drop((&mut flood[0]).now_or_never().expect("anna's turn"));
        let given = (&mut other).now_or_never();
        assert!(given.is_some(), "ben's turn, before the rest of anna's");
        drop(given);
        assert!((&mut flood[1]).now_or_never().is_some());
    }

    #[tokio::test]
    async fn whoever_stops_waiting_leaves_the_queue_and_nothing_is_kept_of_those_who_are_gone() {
        let shares = Shares::new(2, 2);
        let (anna, ben) = (anna(), ben());
        let held = shares.take(&anna, 1).await;
        let mut gone = Box::pin(shares.take(&ben, 2));
        assert!((&mut gone).now_or_never().is_none());
        let mut behind = Box::pin(shares.take(&ben, 1));
        assert!((&mut behind).now_or_never().is_none());
        drop(gone);
        let given = behind.now_or_never();
        assert!(given.is_some(), "nothing is in its way");
        // One that was given some and never looked gives it back.
        let mut never = Box::pin(shares.take(&anna, 1));
        assert!((&mut never).now_or_never().is_none());
        drop(given);
        drop(never);
        drop(held);
        let state = shares.state.lock();
        assert_eq!(
            (state.free, state.tenants.len(), state.order.len()),
            (2, 0, 0)
        );
    }
}
