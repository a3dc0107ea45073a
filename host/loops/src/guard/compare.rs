//! Two streams of replies and verdicts, compared pair by pair.
//!
//! Each guard bets on its own ([`Wealth`]); none knows where the pairs come from.

use super::config::GuardConfig;
use crate::evidence::Wealth;

/// What can be told of one reply.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Signs {
    pub(super) broken: Option<&'static str>,
    pub(super) cut_off: bool,
    pub(super) repetition: f64,
    pub(super) tokens: f64,
}

/// One guard's bets.
#[derive(Clone, Debug)]
struct Bets {
    guard: &'static str,
    what: &'static str,
    tolerance: f64,
    wealth: Wealth,
    pairs: u64,
    new: f64,
    old: f64,
    /// Of all, paired or not.
    bad: u64,
}

impl Bets {
    /// `old` is none when there is nothing to compare with: counted, not bet on.
    fn see(&mut self, new: f64, old: Option<f64>) {
        self.bad += u64::from(new >= 0.5);
        if let Some(old) = old {
            self.pairs += 1;
            self.new += new;
            self.old += old;
            self.wealth.see(new, old, self.tolerance);
        }
    }
}

/// What speaks against the new one.
pub(super) struct Found {
    pub(super) guard: &'static str,
    pub(super) why: String,
    pub(super) bad: u64,
    pub(super) seen: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Comparison {
    most: f64,
    length: f64,
    replies: u64,
    verdicts: u64,
    of_replies: [Bets; 5],
    of_verdicts: Bets,
}

impl Comparison {
    pub(super) fn new(config: &GuardConfig) -> Self {
        let bets = |guard, what, tolerance| Bets {
            guard,
            what,
            tolerance,
            wealth: Wealth::at_once(),
            pairs: 0,
            new: 0.0,
            old: 0.0,
            bad: 0,
        };
        Self {
            most: 1.0 / config.alpha,
            length: config.length,
            replies: 0,
            verdicts: 0,
            of_replies: [
                bets("errors", "replies are broken", config.errors),
                bets("cut-off", "replies are cut off", config.cut_off),
                bets("repetition", "of phrases are repeated", config.repetition),
                bets("longer", "replies are far too long", config.lengths),
                bets("shorter", "replies are far too short", config.lengths),
            ],
            of_verdicts: bets("negative", "verdicts are negative", config.negative),
        }
    }

    /// Replies of the new one so far.
    pub(super) fn replies(&self) -> u64 {
        self.replies
    }

    /// Verdicts on the new one so far.
    pub(super) fn verdicts(&self) -> u64 {
        self.verdicts
    }

    /// A reply of the new one, with one of the old one and the mean length of the old one's, if there are any.
    pub(super) fn reply(&mut self, new: &Signs, old: Option<(&Signs, f64)>) {
        self.replies += 1;
        let mean = old.map_or(new.tokens, |(_, mean)| mean).max(1.0);
        let measure = |signs: &Signs| {
            let yes = |is: bool| f64::from(u8::from(is));
            [
                yes(signs.broken.is_some()),
                yes(signs.cut_off),
                signs.repetition,
                yes(signs.tokens > mean * self.length),
                yes(signs.tokens * self.length < mean),
            ]
        };
        let news = measure(new);
        let olds = old.map(|(signs, _)| measure(signs));
        for (at, bets) in self.of_replies.iter_mut().enumerate() {
            bets.see(news[at], olds.map(|olds| olds[at]));
        }
    }

    /// A verdict on the new one, with one on the old one if there is any.
    pub(super) fn verdict(&mut self, new: bool, old: Option<bool>) {
        self.verdicts += 1;
        let yes = |is: bool| f64::from(u8::from(is));
        self.of_verdicts.see(yes(new), old.map(yes));
    }

    /// Whether some evidence speaks for "it is worse": of the replies, of the verdicts, as far as those are asked for.
    pub(super) fn suspects(&self, replies: bool, verdicts: bool) -> bool {
        let speaks = |bets: &Bets| bets.wealth.value() > 1.0;
        (replies && self.of_replies.iter().any(speaks)) || (verdicts && speaks(&self.of_verdicts))
    }

    /// The first guard whose wealth says that the new one is worse.
    pub(super) fn found(&self) -> Option<Found> {
        let mut all = self.of_replies.iter().chain([&self.of_verdicts]);
        let bets = all.find(|bets| bets.wealth.value() >= self.most)?;
        let share = |sum: f64| 100.0 * sum / bets.pairs.max(1) as f64;
        let why = format!(
            "{:.0} % {}, {:.0} % before, in {} pairs; at most {:.0} % more are allowed",
            share(bets.new),
            bets.what,
            share(bets.old),
            bets.pairs,
            100.0 * bets.tolerance
        );
        let verdict = bets.guard == self.of_verdicts.guard;
        let seen = if verdict { self.verdicts } else { self.replies };
        Some(Found {
            guard: bets.guard,
            why,
            bad: bets.bad,
            seen,
        })
    }
}
