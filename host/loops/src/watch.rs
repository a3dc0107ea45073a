//! Watching what is live: every served turn and every verdict goes to the live guard, and a trip becomes an order to revert.
//!
//! What trips is [`crate::guard`]'s; reverting is the train loop's, which obeys even in the middle of a step.

use std::sync::Arc;

use parking_lot::Mutex;
use rl::{PolicyVersion, Turn, Verdict};

use crate::{
    guard::{GuardConfig, LiveGuard, Trip},
    orders::{Control, Order},
};

/// The live guard and who acts on its word. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    guard: Arc<Mutex<LiveGuard>>,
    control: Control,
}

impl Watch {
    pub(crate) fn new(config: GuardConfig, live: PolicyVersion, control: Control) -> Self {
        Self {
            guard: Arc::new(Mutex::new(LiveGuard::new(config, live))),
            control,
        }
    }

    /// A turn was served.
    pub(crate) fn served(&self, turn: &Turn) {
        if turn.adapter.is_some() {
            let trip = self.guard.lock().served(turn);
            self.act(trip);
        }
    }

    /// A turn of this version was judged.
    pub(crate) fn judged(&self, version: PolicyVersion, verdict: Option<Verdict>) {
        if let Some(verdict) = verdict {
            let trip = self.guard.lock().judged(version, verdict.value);
            self.act(trip);
        }
    }

    /// Another version is live: a new one, or an older one's weights.
    pub(crate) fn moved(&self, version: PolicyVersion, back: bool) {
        let mut guard = self.guard.lock();
        if version == guard.version() {
            return;
        }
        if back {
            guard.reverted(version);
        } else {
            guard.promoted(version);
        }
    }

    fn act(&self, trip: Option<Trip>) {
        if let Some(trip) = trip.filter(|_| !ledger::mutant::on("trip-ignored")) {
            tracing::error!(version = %trip.version, guard = %trip.guard, why = %trip.why, "a live guard tripped");
            self.control.order(Order::Trip(trip));
        }
    }
}
