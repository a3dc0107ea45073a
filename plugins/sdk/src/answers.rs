//! What judges do with a model's answers, whatever they ask: votes from the log-odds of two answers, and hints in their place.
//!
//! Pure functions; which answers, which heading and which bias are the judge's own business.

use crate::{Completion, Fault, Hint, Message, Role, Sign, Vote};

/// The log-odds of a good answer against a bad one, without their `bias`, as a vote: neutral within `margin` of 0. None when an
/// answer is missing or has no log-prob.
pub fn vote(
    completion: &Completion,
    (good, bad): (&str, &str),
    bias: f64,
    margin: f64,
) -> Option<Vote> {
    let log_prob = |answer: &str| {
        let scored = &completion.answers;
        let scored = scored.iter().find(|scored| scored.text == answer)?;
        Some(scored.log_prob).filter(|log_prob| log_prob.is_finite())
    };
    let score = log_prob(good)? - log_prob(bad)? - bias;
    let sign = if score.abs() <= margin {
        Sign::Neutral
    } else if score > 0.0 {
        Sign::Good
    } else {
        Sign::Bad
    };
    // What the contract allows for a score.
    let score = Some(score.clamp(-100.0, 100.0));
    Some(Vote { sign, score })
}

/// Appends a hint to the last user message, under a heading.
///
/// # Errors
/// [`Fault::InvalidInput`] for a request without a user message.
pub fn place_hint(
    mut messages: Vec<Message>,
    hint: &Hint,
    heading: &str,
) -> Result<Vec<Message>, Fault> {
    let last = messages
        .iter_mut()
        .rev()
        .find(|message| message.role == Role::User);
    let last = last
        .ok_or_else(|| Fault::InvalidInput("there is no user message to place a hint in".into()))?;
    last.content = format!("{}\n\n{heading} {}", last.content, hint.text);
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Finish, ScoredAnswer};

    fn said(good: f64, bad: f64) -> Option<Vote> {
        let answer = |text: &str, log_prob| ScoredAnswer {
            text: text.to_owned(),
            log_prob,
        };
        let completion = Completion {
            text: String::new(),
            answers: vec![answer(" good", good), answer(" bad", bad)],
            finish: Finish::Stop,
        };
        vote(&completion, (" good", " bad"), 0.5, 0.25)
    }

    #[test]
    fn a_vote_is_the_log_odds_without_their_bias() {
        let seen = |good, bad| said(good, bad).map(|vote| (vote.sign, vote.score));
        assert_eq!(seen(-1.0, -2.0), Some((Sign::Good, Some(0.5))));
        assert_eq!(seen(-1.0, -1.75), Some((Sign::Neutral, Some(0.25))));
        assert_eq!(seen(-2.0, -1.0), Some((Sign::Bad, Some(-1.5))));
        assert_eq!(seen(-1e9, -1.0), Some((Sign::Bad, Some(-100.0))));
        assert_eq!(seen(f64::NAN, -1.0), None, "missing is not zero");
    }

    #[test]
    fn a_hint_extends_the_last_user_message_and_nothing_else() {
        let hint = Hint {
            text: "Be brief.".into(),
        };
        let messages = vec![
            Message::user("one"),
            Message::user("two"),
            Message::new(Role::Assistant, "three"),
        ];
        let placed = place_hint(messages.clone(), &hint, "Hint:").unwrap();
        assert_eq!(placed[1].content, "two\n\nHint: Be brief.");
        assert_eq!((&placed[0], &placed[2]), (&messages[0], &messages[2]));
        assert!(place_hint(vec![], &hint, "Hint:").is_err());
    }
}
