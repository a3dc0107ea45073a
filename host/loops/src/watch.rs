//! Watching what is served: every turn and every verdict goes to the live guard and to the trial that is on, and what they
//! decide becomes an order.
//!
//! What trips or wins is [`crate::guard`]'s; acting is the train loop's, which reverts even in the middle of a step.

use std::sync::Arc;

use parking_lot::Mutex;
use rl::{PolicyVersion, Turn, Verdict};

use crate::{
    guard::{GuardConfig, LiveGuard, Trial, Trip},
    orders::{Control, Order},
};

/// Who watches, and who acts on it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    watchers: Arc<Mutex<Watchers>>,
    control: Control,
}

#[derive(Debug)]
struct Watchers {
    guard: LiveGuard,
    trial: Option<Trial>,
}

impl Watch {
    pub(crate) fn new(config: GuardConfig, live: PolicyVersion, control: Control) -> Self {
        let watchers = Watchers {
            guard: LiveGuard::new(config, live),
            trial: None,
        };
        Self {
            watchers: Arc::new(Mutex::new(watchers)),
            control,
        }
    }

    /// A turn was served.
    pub(crate) fn served(&self, turn: &Turn) {
        if turn.adapter.is_some() {
            let mut watchers = self.watchers.lock();
            let trip = watchers.guard.served(turn);
            if let Some(trial) = &mut watchers.trial {
                trial.served(turn);
            }
            self.act(trip, &mut watchers);
        }
    }

    /// A turn of this version was judged.
    pub(crate) fn judged(&self, version: PolicyVersion, verdict: Option<Verdict>) {
        if let Some(verdict) = verdict {
            let mut watchers = self.watchers.lock();
            let trip = watchers.guard.judged(version, verdict.value);
            if let Some(trial) = &mut watchers.trial {
                trial.judged(version, verdict.value);
            }
            self.act(trip, &mut watchers);
        }
    }

    /// Another version is live: a new one, or an older one's weights. A trial against the one before is over.
    pub(crate) fn moved(&self, version: PolicyVersion, back: bool) {
        let mut watchers = self.watchers.lock();
        if version == watchers.guard.version() {
            return;
        }
        watchers.trial = None;
        if back {
            watchers.guard.reverted(version);
        } else {
            watchers.guard.promoted(version);
        }
    }

    /// A version is on trial from now on.
    pub(crate) fn trial(&self, trial: Trial) {
        let mut watchers = self.watchers.lock();
        watchers.trial = Some(trial);
        self.act(None, &mut watchers);
    }

    /// Whether this version is on trial.
    pub(crate) fn tries(&self, version: PolicyVersion) -> bool {
        let watchers = self.watchers.lock();
        watchers
            .trial
            .as_ref()
            .is_some_and(|t| t.candidate() == version)
    }

    /// No version is on trial.
    pub(crate) fn no_trial(&self) {
        self.watchers.lock().trial = None;
    }

    fn act(&self, trip: Option<Trip>, watchers: &mut Watchers) {
        if let Some(trip) = trip.filter(|_| !ledger::mutant::on("trip-ignored")) {
            tracing::error!(version = %trip.version, guard = %trip.guard, why = %trip.why, "a live guard tripped");
            self.control.order(Order::Trip(trip));
        }
        let ended = watchers.trial.as_ref().and_then(Trial::ended);
        // Until the order is obeyed the sessions keep what they have; it is given once.
        if let Some(ended) = ended
            && self.control.order(Order::EndTrial(Box::new(ended)))
        {
            watchers.trial = None;
        }
    }
}
