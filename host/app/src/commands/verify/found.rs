//! What a check found: counts of tokens by everything that was varied, and the first that differ.
//!
//! Counts only; [`super::check`] compares.

use rl::TokenId;
use serde::Serialize;

/// Mismatches that are shown one by one.
const SHOWN: usize = 5;

/// How requests are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Setting {
    /// Compute threads.
    pub(super) threads: usize,
    /// Most rows of prompts in a step.
    pub(super) prompt_rows: usize,
    /// Most requests at once.
    pub(super) requests: usize,
}

/// Tokens compared under one value of one thing that was varied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Row {
    /// What was varied.
    pub(super) variation: &'static str,
    /// Its value.
    pub(super) value: String,
    /// Tokens compared.
    pub(super) tokens: u64,
    /// Those that differ in any bit.
    pub(super) mismatched: u64,
}

/// A token whose two log-probs differ.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Mismatch {
    /// How it was served.
    #[serde(flatten)]
    pub(super) setting: Setting,
    /// The request's number.
    pub(super) request: usize,
    /// The token's place in the reply.
    pub(super) at: usize,
    /// The token.
    pub(super) token: TokenId,
    /// What serving recorded.
    pub(super) served: f32,
    /// What training computes.
    pub(super) trained: f32,
}

/// What a check found.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Found {
    /// By variation.
    pub(super) rows: Vec<Row>,
    /// Sampled tokens compared with training.
    pub(super) tokens: u64,
    /// Log-probs compared, those of further comparisons of the same tokens included.
    pub(super) compared: u64,
    /// Those that differ in any bit.
    pub(super) mismatched: u64,
    /// Prompt tokens that the prefix cache had.
    pub(super) reused: u64,
    /// The first mismatches of serving and training.
    pub(super) first: Vec<Mismatch>,
}

impl Found {
    /// Counts one comparison of as many tokens as `differ` has, under each of `variations`.
    pub(super) fn count(&mut self, variations: &[(&'static str, String)], differ: &[bool]) {
        let tokens = differ.len() as u64;
        let mismatched = differ.iter().filter(|d| **d).count() as u64;
        self.compared += tokens;
        self.mismatched += mismatched;
        for (variation, value) in variations {
            let mut rows = self.rows.iter_mut();
            match rows.find(|row| row.variation == *variation && row.value == *value) {
                Some(row) => {
                    row.tokens += tokens;
                    row.mismatched += mismatched;
                }
                None => {
                    // Beside its like.
                    let like = self
                        .rows
                        .iter()
                        .rposition(|row| row.variation == *variation);
                    let place = like.map_or(self.rows.len(), |last| last + 1);
                    self.rows.insert(
                        place,
                        Row {
                            variation,
                            value: value.clone(),
                            tokens,
                            mismatched,
                        },
                    );
                }
            }
        }
    }

    /// Keeps a mismatch if it is among the first.
    pub(super) fn show(&mut self, mismatch: Mismatch) {
        if self.first.len() < SHOWN {
            self.first.push(mismatch);
        }
    }
}
