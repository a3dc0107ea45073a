//! The live guard: watches what is served after a version was made live, and says when it must go.
//!
//! A pure state machine: no I/O, no clock, no policy. Whoever feeds it acts on its word (shows the version before, records
//! why). It compares the replies and verdicts of the live version, in the order in which they come, with those of the version
//! before it, by tests that may be looked at after each of them ([`crate::evidence`]). [`Trial`] compares in the same way
//! while both versions are served.

mod compare;
mod config;
mod trial;

use std::collections::VecDeque;

use rl::{FinishReason, PolicyVersion, Turn, TurnKind, VoteValue};
use serde::{Deserialize, Serialize};

use self::compare::{Comparison, Signs};
pub use self::{
    config::{GuardConfig, StageConfig},
    trial::{Decision, Ended, Side, Trial},
};

/// A guard has tripped: the version must not be served any longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Trip {
    /// The version that is live.
    pub version: PolicyVersion,
    /// The first version that is under suspicion: what was live before it is trusted.
    pub since: PolicyVersion,
    /// The guard.
    pub guard: String,
    /// What it saw, in words.
    pub why: String,
    /// Replies (for `negative`: verdicts) of these versions that show what the guard is for.
    pub bad_replies: u64,
    /// Replies (for `negative`: verdicts) of these versions seen in all.
    pub seen: u64,
}

/// Watches one adapter.
#[derive(Clone, Debug)]
pub struct LiveGuard {
    config: GuardConfig,
    live: PolicyVersion,
    /// The first version of those that are watched together, up to the live one.
    since: PolicyVersion,
    /// What they are compared with: the last window of what was served before them.
    before: Window,
    /// What they have shown; becomes `before` when the next one is promoted and nothing speaks against them.
    now: Window,
    comparison: Comparison,
    /// Broken replies without a sound one between them.
    in_a_row: usize,
    tripped: bool,
}

/// The newest replies and verdicts of a time.
#[derive(Clone, Debug, Default)]
struct Window {
    signs: VecDeque<Signs>,
    negative: VecDeque<bool>,
}

impl Window {
    fn keep(&mut self, most: usize) {
        let extra = self.signs.len().saturating_sub(most);
        self.signs.drain(..extra);
        let extra = self.negative.len().saturating_sub(most);
        self.negative.drain(..extra);
    }

    fn mean_tokens(&self) -> Option<f64> {
        let sum: f64 = self.signs.iter().map(|signs| signs.tokens).sum();
        (!self.signs.is_empty()).then(|| sum / self.signs.len() as f64)
    }

    fn broken(&self) -> f64 {
        let broken = self.signs.iter().filter(|signs| signs.broken.is_some());
        broken.count() as f64 / self.signs.len().max(1) as f64
    }
}

impl LiveGuard {
    /// A guard that begins while this version is live, with nothing to compare it with yet.
    pub fn new(config: GuardConfig, live: PolicyVersion) -> Self {
        Self {
            comparison: Comparison::new(&config),
            config,
            live,
            since: live,
            before: Window::default(),
            now: Window::default(),
            in_a_row: 0,
            tripped: false,
        }
    }

    /// The version that it watches.
    pub fn version(&self) -> PolicyVersion {
        self.live
    }

    /// A better version is live from now on. What the one before has shown, filled up with what came before that, is what it
    /// is compared with; unless something speaks against the one before. Then the new one, which was made from it, inherits
    /// that: versions may follow each other faster than any of them can be found out.
    pub fn promoted(&mut self, version: PolicyVersion) {
        if self.suspects() && !ledger::mutant::on("every-version-starts-clean") {
            self.live = version;
            self.tripped = false;
            return;
        }
        let now = std::mem::take(&mut self.now);
        self.before.signs.extend(now.signs);
        self.before.negative.extend(now.negative);
        self.before.keep(self.config.window);
        self.watch(version);
    }

    /// An older state is live again: what was seen meanwhile is no measure for anything.
    pub fn reverted(&mut self, version: PolicyVersion) {
        self.now = Window::default();
        self.watch(version);
    }

    fn watch(&mut self, version: PolicyVersion) {
        (self.live, self.since) = (version, version);
        self.comparison = Comparison::new(&self.config);
        self.in_a_row = 0;
        self.tripped = false;
    }

    /// Whether something speaks against what is watched, and more may be seen of it: a comparison whose pairs are used up,
    /// and that did not trip, is over.
    fn suspects(&self) -> bool {
        // Nothing was before: what they do may be what the base model does.
        if self.before.signs.is_empty() {
            return false;
        }
        let left = |seen: u64, known: usize| usize::try_from(seen).is_ok_and(|seen| seen < known);
        let replies = left(self.comparison.replies(), self.before.signs.len());
        let verdicts = left(self.comparison.verdicts(), self.before.negative.len());
        let burst = self.in_a_row > 0 && self.before.broken() <= self.config.rare;
        burst || self.comparison.suspects(replies, verdicts)
    }

    fn watches(&self, version: PolicyVersion) -> bool {
        (self.since..=self.live).contains(&version)
    }

    /// A turn was served. Turns of other versions, side turns and cancelled ones say nothing. A guard trips once.
    pub fn served(&mut self, turn: &Turn) -> Option<Trip> {
        let ours = self.watches(turn.version) || ledger::mutant::on("guard-counts-other-versions");
        if !self.config.enabled || !ours {
            return None;
        }
        let signs = Signs::of(turn)?;
        self.in_a_row = match signs.broken {
            Some(_) => self.in_a_row + 1,
            None => 0,
        };
        let at = usize::try_from(self.comparison.replies()).unwrap_or(usize::MAX);
        let pair = self.before.signs.get(at).zip(self.before.mean_tokens());
        self.comparison.reply(&signs, pair);
        let broken = signs.broken;
        self.now.signs.push_back(signs);
        self.now.keep(self.config.window);
        self.burst(broken).or_else(|| self.compared())
    }

    /// A turn of this version was judged.
    pub fn judged(&mut self, version: PolicyVersion, verdict: VoteValue) -> Option<Trip> {
        if !self.config.enabled || !self.watches(version) {
            return None;
        }
        let negative = verdict == VoteValue::Negative;
        let at = usize::try_from(self.comparison.verdicts()).unwrap_or(usize::MAX);
        let before = self.before.negative.get(at).copied();
        self.comparison.verdict(negative, before);
        self.now.negative.push_back(negative);
        self.now.keep(self.config.window);
        self.compared()
    }

    /// Some broken replies in a row, where they used to be rare, are enough: no user should wait for a test's certainty.
    fn burst(&mut self, broken: Option<&'static str>) -> Option<Trip> {
        let rare = self.before.broken() <= self.config.rare;
        if self.in_a_row < self.config.burst || !rare {
            return None;
        }
        let why = format!(
            "{} broken replies in a row (the last: {})",
            self.in_a_row,
            broken.unwrap_or("broken")
        );
        let (bad, seen) = (self.in_a_row as u64, self.comparison.replies());
        self.trip("burst", why, bad, seen)
    }

    fn compared(&mut self) -> Option<Trip> {
        let found = self.comparison.found()?;
        self.trip(found.guard, found.why, found.bad, found.seen)
    }

    fn trip(&mut self, guard: &str, why: String, bad_replies: u64, seen: u64) -> Option<Trip> {
        if std::mem::replace(&mut self.tripped, true) {
            return None;
        }
        Some(Trip {
            version: self.live,
            since: self.since,
            guard: guard.to_owned(),
            why,
            bad_replies,
            seen,
        })
    }
}

impl Signs {
    /// What can be told of a turn; none when it is nobody's reply.
    fn of(turn: &Turn) -> Option<Self> {
        if turn.kind == TurnKind::Side || turn.finish == FinishReason::Cancelled {
            return None;
        }
        let called = !turn.reply.tool_calls.is_empty();
        let text = if called {
            "(calls)"
        } else {
            &turn.reply.content
        };
        Some(Self {
            broken: crate::signs::broken(text, &turn.response, &turn.logprobs),
            cut_off: turn.finish == FinishReason::Length,
            repetition: crate::signs::repetition(&turn.response),
            tokens: turn.response.len() as f64,
        })
    }
}

#[cfg(test)]
mod tests;
