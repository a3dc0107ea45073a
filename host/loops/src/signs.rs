//! What can be told of a reply without understanding it: that it is broken, cut off, or goes round in circles.
//!
//! Pure functions of tokens and text, used by the gate on probes and by the live guard on what users get.

use std::collections::{BTreeMap, BTreeSet};

use rl::TokenId;

/// Tokens of a phrase whose return counts as repetition: shorter ones return in any healthy text.
const PHRASE: usize = 4;
/// A token that makes up this share of a reply of at least [`LONG`] tokens is an attractor.
const ATTRACTOR: f64 = 0.6;
const LONG: usize = 8;
/// A reply of at least [`ROUND`] tokens with this share of repeated phrases goes in circles: a few tokens take turns, so that
/// none of them is an attractor. Healthy text stays far below, and a list that begins every line alike does, too.
const CIRCLES: f64 = 0.6;
const ROUND: usize = 16;
/// More characters than this share that are no text (control, replacement, private use) make a reply unreadable.
const NOISE: f64 = 0.3;

/// The share of four-token phrases that were said before in the same reply; 0 for a reply too short to hold two.
pub(crate) fn repetition(tokens: &[TokenId]) -> f64 {
    let phrases: BTreeSet<&[TokenId]> = tokens.windows(PHRASE).collect();
    let all = tokens.len().saturating_sub(PHRASE - 1);
    if all < 2 {
        return 0.0;
    }
    1.0 - phrases.len() as f64 / all as f64
}

/// Why a reply is no reply at all, if it is none.
pub(crate) fn broken(text: &str, tokens: &[TokenId], logprobs: &[f32]) -> Option<&'static str> {
    if text.trim().is_empty() {
        return Some("it is empty");
    }
    if logprobs.iter().any(|logprob| !logprob.is_finite()) {
        return Some("a log-prob is no number");
    }
    let noise = text.chars().filter(|c| is_noise(*c)).count();
    if noise as f64 > NOISE * text.chars().count() as f64 {
        return Some("most of it is no text");
    }
    let mut counts = BTreeMap::new();
    for token in tokens {
        *counts.entry(token).or_insert(0_usize) += 1;
    }
    let most = counts.into_values().max().unwrap_or(0);
    if tokens.len() >= LONG && most as f64 >= ATTRACTOR * tokens.len() as f64 {
        return Some("it says one token again and again");
    }
    if tokens.len() >= ROUND && repetition(tokens) >= CIRCLES {
        return Some("it goes in circles");
    }
    None
}

fn is_noise(c: char) -> bool {
    let is_private = matches!(u32::from(c), 0xE000..=0xF8FF | 0xF_0000..=0x10_FFFF);
    (c.is_control() && !c.is_whitespace()) || c == char::REPLACEMENT_CHARACTER || is_private
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_in_circles_is_told_from_a_healthy_one() {
        let healthy: Vec<TokenId> = (0..40).collect();
        let circles: Vec<TokenId> = (0..40).map(|at| at % 5).collect();
        assert!(repetition(&healthy) < 0.01);
        assert!(repetition(&circles) > 0.8);
        assert!(repetition(&[1, 2, 3, 4]) < 0.01);
        assert!(repetition(&[]) < 0.01);
    }

    #[test]
    fn broken_replies_are_told_with_the_reason() {
        let many = |token: TokenId| vec![token; 12];
        let varied: Vec<TokenId> = (0..12).collect();
        let taking_turns = |count: TokenId| (0..24).map(|at| at % count).collect::<Vec<_>>();
        // Eight lines that begin with the same four tokens and say something else.
        let list: Vec<TokenId> = (0..64)
            .map(|at| if at % 8 < 4 { at % 8 } else { at })
            .collect();
        for (text, tokens, logprob, why) in [
            (" \n", many(1), -1.0, Some("empty")),
            ("fine", varied.clone(), f32::NAN, Some("no number")),
            ("\u{fffd}\u{fffd}a", varied.clone(), -1.0, Some("no text")),
            ("xxxx", many(7), -1.0, Some("again and again")),
            ("elfth", taking_turns(2), -1.0, Some("in circles")),
            ("la di da", taking_turns(5), -1.0, Some("in circles")),
            ("a list", list, -1.0, None),
            ("ha ha", many(7)[..3].to_vec(), -1.0, None),
            ("Größe:\n\t10 µm ✓", varied, -1.0, None),
        ] {
            let found = broken(text, &tokens, &[logprob]);
            assert_eq!(
                found.is_some_and(|found| found.contains(why.unwrap_or("?"))),
                why.is_some(),
                "{text:?}: {found:?}"
            );
        }
    }
}
