//! The place where the trainer puts a version and the engine finds it.
//!
//! Publishing is one pointer swap; a reader keeps what it has loaded for as long as it wants. The versions deployed last stay
//! in memory, so that going back is a swap, too. During a trial a share of the sessions gets a candidate. Loops never see
//! weights, only the version number; what they switch with is [`crate::SlotShelf`].

use crate::adapter::Adapter;
use arc_swap::ArcSwap;
use rl::PolicyVersion;
use std::sync::Arc;

/// Versions kept in memory, the live one included. An adapter of a small model takes about 20 MB; whoever goes back goes
/// back to the one before, or the one before that.
const KEPT: usize = 4;

/// The bucket of whoever belongs to no session (the loops' own requests): no trial gives it the candidate.
pub const NO_BUCKET: u64 = u64::MAX;

/// A version and the adapter that makes it; without an adapter it is the base model.
#[derive(Clone, Debug, Default)]
pub struct Deployed {
    /// The version.
    pub version: PolicyVersion,
    /// Its adapter; none for the weights on disk.
    pub adapter: Option<Arc<Adapter>>,
}

/// The deployed version, read between steps and replaced at any time.
#[derive(Debug)]
pub struct Slot {
    view: ArcSwap<View>,
}

/// Everything that a reader may ask for, replaced as a whole.
#[derive(Clone, Debug)]
struct View {
    live: Arc<Deployed>,
    /// What was deployed or tried out last, the newest at the end.
    recent: Vec<Arc<Deployed>>,
    trial: Option<Trial>,
}

#[derive(Clone, Debug)]
struct Trial {
    candidate: Arc<Deployed>,
    share: f64,
}

impl View {
    fn keep(&mut self, deployed: &Arc<Deployed>) {
        self.recent.retain(|old| old.version != deployed.version);
        self.recent.push(Arc::clone(deployed));
        let extra = self.recent.len().saturating_sub(KEPT);
        self.recent.drain(..extra);
    }
}

impl Slot {
    /// A slot that holds `deployed`.
    pub fn new(deployed: Deployed) -> Slot {
        let live = Arc::new(deployed);
        Slot {
            view: ArcSwap::from_pointee(View {
                recent: vec![Arc::clone(&live)],
                live,
                trial: None,
            }),
        }
    }

    /// What is deployed now.
    pub fn load(&self) -> Arc<Deployed> {
        Arc::clone(&self.view.load().live)
    }

    /// What a session of this bucket gets: the candidate of a trial when `bucket / 2^64` is below its share, else what is
    /// deployed. The same bucket gets the same answer for as long as nothing is switched.
    pub fn load_for(&self, bucket: u64) -> Arc<Deployed> {
        let view = self.view.load();
        match &view.trial {
            Some(trial) if place(bucket) < trial.share => Arc::clone(&trial.candidate),
            _ => Arc::clone(&view.live),
        }
    }

    /// Replaces what is deployed; the next reader sees it. Ends a trial: what was compared with the candidate is no more.
    pub fn publish(&self, deployed: Deployed) {
        self.put(&Arc::new(deployed));
    }

    /// Makes a version live again that was deployed or tried out lately; false when it is not kept any more.
    pub fn show(&self, version: PolicyVersion) -> bool {
        let found = self.recent(version);
        if let Some(deployed) = &found {
            self.put(deployed);
        }
        found.is_some()
    }

    /// A version that was deployed or tried out lately, if it is still kept.
    pub fn recent(&self, version: PolicyVersion) -> Option<Arc<Deployed>> {
        let view = self.view.load();
        let found = view.recent.iter().find(|kept| kept.version == version);
        found.cloned()
    }

    /// Lets a share (0 to 1) of the sessions have this version until [`Slot::end_trial`] or the next deployment.
    pub fn try_out(&self, deployed: Deployed, share: f64) {
        self.begin_trial(Arc::new(deployed), share);
    }

    pub(crate) fn begin_trial(&self, candidate: Arc<Deployed>, share: f64) {
        self.change(|view| {
            view.keep(&candidate);
            view.trial = Some(Trial {
                candidate: Arc::clone(&candidate),
                share,
            });
        });
    }

    /// Everybody gets what is deployed again.
    pub fn end_trial(&self) {
        self.change(|view| view.trial = None);
    }

    /// The version that is tried out, and by which share of the sessions.
    pub fn trial(&self) -> Option<(PolicyVersion, f64)> {
        let view = self.view.load();
        let trial = view.trial.as_ref()?;
        Some((trial.candidate.version, trial.share))
    }

    /// Keeps nothing but what is deployed: after an erasure, weights that learned from what was erased must be gone.
    pub fn forget(&self) {
        self.change(|view| {
            view.trial = None;
            view.recent = vec![Arc::clone(&view.live)];
        });
    }

    pub(crate) fn put(&self, deployed: &Arc<Deployed>) {
        self.change(|view| {
            view.keep(deployed);
            view.live = Arc::clone(deployed);
            view.trial = None;
        });
    }

    /// Changes may race: none is lost, each is seen whole.
    fn change(&self, change: impl Fn(&mut View)) {
        self.view.rcu(|view| {
            let mut next = View::clone(view);
            change(&mut next);
            next
        });
    }
}

/// Where a bucket lies in [0, 1).
fn place(bucket: u64) -> f64 {
    // 2^-64: the product is exact up to the 53 bits that an f64 holds; the last bucket becomes 1.0, which no share exceeds.
    bucket as f64 * 2f64.powi(-64)
}

impl Default for Slot {
    /// The base model as version 0.
    fn default() -> Self {
        Slot::new(Deployed::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64) -> Deployed {
        Deployed {
            version: PolicyVersion::new(number),
            adapter: None,
        }
    }

    #[test]
    fn a_reader_keeps_its_version_while_another_is_published() {
        let slot = Slot::default();
        let before = slot.load();
        slot.publish(version(3));
        assert_eq!(before.version, PolicyVersion::new(0));
        assert_eq!(slot.load().version, PolicyVersion::new(3));
    }

    #[test]
    fn the_last_versions_are_shown_again_by_the_very_same_pointer_and_older_ones_are_not() {
        let slot = Slot::default();
        (1..=4).for_each(|number| slot.publish(version(number)));
        let third = slot.recent(PolicyVersion::new(3)).unwrap();
        assert!(slot.show(PolicyVersion::new(3)));
        assert!(Arc::ptr_eq(&slot.load(), &third));
        assert!(!slot.show(PolicyVersion::BASE), "only four are kept");
        assert_eq!(slot.load().version, PolicyVersion::new(3));
        // Shown again, it is the newest of the kept ones.
        (5..=7).for_each(|number| slot.publish(version(number)));
        assert!(slot.recent(PolicyVersion::new(3)).is_some());
        slot.forget();
        assert!(slot.recent(PolicyVersion::new(6)).is_none());
        assert!(slot.recent(PolicyVersion::new(7)).is_some());
    }

    #[test]
    fn a_trial_gives_its_share_of_the_buckets_the_candidate_and_the_same_bucket_the_same_answer() {
        let slot = Slot::new(version(1));
        slot.try_out(version(2), 0.25);
        let got = |slot: &Slot, bucket| slot.load_for(bucket).version.get();
        let quarter = u64::MAX / 4;
        assert_eq!(got(&slot, 0), 2);
        assert_eq!(got(&slot, quarter - 4096), 2);
        assert_eq!(got(&slot, quarter + 4096), 1);
        assert_eq!(
            slot.load().version.get(),
            1,
            "without a bucket nobody tries"
        );
        let mut tried = 0;
        for session in 0..4000 {
            let bucket = rl::Seed::new(session).derive("bucket").get();
            assert_eq!(got(&slot, bucket), got(&slot, bucket));
            tried += u64::from(got(&slot, bucket) == 2);
        }
        assert!((900..1100).contains(&tried), "{tried} of 4000");
        slot.end_trial();
        assert_eq!(got(&slot, 0), 1);
        assert!(slot.show(PolicyVersion::new(2)), "a candidate is kept");
    }

    #[test]
    fn a_deployment_ends_the_trial_and_a_full_share_leaves_the_loops_out() {
        let slot = Slot::new(version(1));
        slot.try_out(version(2), 1.0);
        assert_eq!(slot.trial(), Some((PolicyVersion::new(2), 1.0)));
        assert_eq!(slot.load_for(u64::MAX - (1 << 20)).version.get(), 2);
        assert_eq!(slot.load_for(NO_BUCKET).version.get(), 1);
        slot.publish(version(3));
        assert_eq!(slot.trial(), None);
        assert_eq!(slot.load_for(0).version.get(), 3);
    }
}
