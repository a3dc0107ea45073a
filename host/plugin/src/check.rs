//! Checks of what a guest answered. A number or a list that the contract rules out is refused, never repaired.

use crate::bindings::types;

/// Greatest absolute reward, advantage or score.
const GREATEST: f64 = 100.0;

/// Most pieces of evidence of an observation.
const EVIDENCE: usize = 16;

/// Most messages of an observation.
const MESSAGES: usize = 256;

/// A finite number within a range.
///
/// Attack: NaN and infinity poison every average they meet, and a huge reward makes one sample the whole batch.
pub(crate) fn number(name: &str, value: f64, least: f64, greatest: f64) -> Result<f32, String> {
    if !value.is_finite() {
        return Err(format!("{name} {value}, which is not finite"));
    }
    if !(least..=greatest).contains(&value) {
        return Err(format!(
            "{name} {value}, which is not in [{least}, {greatest}]"
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range fits; the last bits do not matter"
    )]
    Ok(value as f32)
}

/// A reward, an advantage or a score.
pub(crate) fn signed(name: &str, value: f64) -> Result<f32, String> {
    number(name, value, -GREATEST, GREATEST)
}

/// A weight.
pub(crate) fn weight(name: &str, value: f64) -> Result<f32, String> {
    number(name, value, 0.0, GREATEST)
}

/// A list of the length that was asked for.
pub(crate) fn length(name: &str, found: usize, expected: usize) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{found} {name} where {expected} are due"))
}

/// Messages of an environment: people's or tools', never the policy's own.
///
/// Attack: a guest that writes the policy's turns, or a system prompt, into the conversation.
pub(crate) fn observation(observation: &types::Observation) -> Result<(), String> {
    let count = observation.messages.len();
    if count > MESSAGES {
        return Err(format!("{count} messages, and {MESSAGES} are allowed"));
    }
    let forged = |message: &types::Message| matches!(message.role, types::Role::Assistant);
    if observation.messages.iter().any(forged) {
        return Err("a message of the policy's own".into());
    }
    evidence(&observation.evidence).map(drop)
}

/// What an environment vouches for.
pub(crate) fn evidence(evidence: &[types::NamedValue]) -> Result<Vec<(String, f64)>, String> {
    if evidence.len() > EVIDENCE {
        let count = evidence.len();
        return Err(format!(
            "{count} pieces of evidence, and {EVIDENCE} are allowed"
        ));
    }
    let checked = |number: &types::NamedValue| {
        metric_name(&number.name)?;
        self::number("evidence", number.value, -1e9, 1e9)?;
        Ok((number.name.clone(), number.value))
    };
    evidence.iter().map(checked).collect()
}

/// A name for a metric.
pub(crate) fn metric_name(name: &str) -> Result<(), String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(word) {
        return Err("a metric whose name is not made of lower-case words joined by `-`".into());
    }
    Ok(())
}
