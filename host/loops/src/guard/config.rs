//! `[loops.guard]` and `[loops.stage]`: when a live version is taken back, and how a new one is tried out.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// `[loops.guard]`
///
/// Every comparison allows the new version to be worse by its limit; beyond that, evidence counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GuardConfig {
    /// Whether live versions are watched.
    pub enabled: bool,
    /// The chance that one guard ever takes back a version that is within its limits, counted from the last one that nothing
    /// spoke against. Six guards watch each version, so a host with a thousand good versions loses about six of them.
    pub alpha: f64,
    /// The newest replies and verdicts that the next version is compared with. Evidence comes in pairs: a version that
    /// was no worse over as many is not watched by pairs any longer.
    pub window: usize,
    /// Broken replies in a row that trip at once, where they were rare before.
    pub burst: usize,
    /// The share of broken replies that is rare.
    pub rare: f64,
    /// Rise of the share of broken replies that is allowed.
    pub errors: f64,
    /// Rise of the share of replies that a limit cut off. A persona that likes detail may be cut off more often.
    pub cut_off: f64,
    /// Rise of the share of repeated phrases.
    pub repetition: f64,
    /// A reply this many times longer than the mean before, or shorter than the mean divided by it, is out of line. Learned
    /// brevity took the demo from 90 tokens to 25 over nine versions, never by more than half at once.
    pub length: f64,
    /// Rise of the share of replies that are out of line.
    pub lengths: f64,
    /// Rise of the share of negative verdicts. People's moods differ by the day.
    pub negative: f64,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            alpha: 0.001,
            window: 64,
            burst: 5,
            rare: 0.1,
            errors: 0.1,
            cut_off: 0.3,
            repetition: 0.2,
            length: 6.0,
            lengths: 0.2,
            negative: 0.15,
        }
    }
}

impl GuardConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        let ranges = [
            ("alpha", self.alpha, 1e-9, 0.5),
            ("window", self.window as f64, 1.0, 65_536.0),
            ("burst", self.burst as f64, 2.0, 65_536.0),
            ("rare", self.rare, 0.0, 1.0),
            ("errors", self.errors, 0.0, 1.0),
            ("cut-off", self.cut_off, 0.0, 1.0),
            ("repetition", self.repetition, 0.0, 1.0),
            ("length", self.length, 1.0, 1e6),
            ("lengths", self.lengths, 0.0, 1.0),
            ("negative", self.negative, 0.0, 1.0),
        ];
        within(&ranges)
    }
}

/// `[loops.stage]`: a version that passed the gate is served to a share of the sessions first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct StageConfig {
    /// The share of the sessions that get the candidate; none makes it live for all at once.
    pub share: Option<f64>,
    /// Replies of the candidate after which it is made live, if nothing spoke against it.
    pub turns: u64,
}

impl Default for StageConfig {
    fn default() -> Self {
        Self {
            share: None,
            // Enough for every guard to find a disaster, which takes about 20 pairs.
            turns: 32,
        }
    }
}

impl StageConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        // A share of 1 leaves nobody to compare with.
        let share = self.share.unwrap_or(0.5);
        within(&[("share", share, 0.001, 0.999)])?;
        within(&[("turns", self.turns as f64, 1.0, 1e6)])
    }
}

fn within(ranges: &[(&'static str, f64, f64, f64)]) -> Result<()> {
    match ranges
        .iter()
        .find(|(_, value, least, most)| !(least..=most).contains(&value))
    {
        Some((key, value, ..)) => Err(Error::Config {
            key,
            value: value.to_string(),
            allowed: "it is out of its range",
        }),
        None => Ok(()),
    }
}
