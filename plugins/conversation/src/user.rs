//! The scripted user as a state machine: asks, complains or thanks, and moves on.
//!
//! Seeded: the same seed and the same replies give the same words. Knows no plugin interface; see [`crate::episode`].

use sdk::random::Stream;

use crate::{
    persona::{self, Persona, Review, Violation},
    phrases,
    questions::Question,
};

/// How a user behaves, from the config.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Habits {
    /// Questions of one conversation.
    pub questions: usize,
    /// How often the same answer is asked for again after a complaint.
    pub retry_chance: f64,
}

/// A user in the middle of a conversation.
#[derive(Clone, PartialEq, Debug)]
pub struct User {
    /// What this user wants and never says.
    pub persona: Persona,
    /// What this user will ask, in order; at least one.
    pub questions: Vec<Question>,
    pub(crate) retry_chance: f64,
    pub(crate) stream: Stream,
    /// The question that is being answered.
    pub(crate) at: usize,
    /// Whether that question was asked again already.
    pub(crate) retried: bool,
    /// Complaints so far: they become concrete after the first.
    pub(crate) complaints: u32,
}

/// What a user says after a reply.
#[derive(Clone, PartialEq, Debug)]
pub struct Reaction {
    /// In words: the reaction, and the next question where there is one.
    pub text: String,
    /// Whether the conversation is over.
    pub over: bool,
    /// What the user thought.
    pub review: Review,
}

impl User {
    /// A user who has said nothing yet.
    pub fn new(persona: Persona, questions: Vec<Question>, retry_chance: f64, seed: u64) -> Self {
        Self {
            persona,
            questions,
            retry_chance,
            stream: Stream(seed),
            at: 0,
            retried: false,
            complaints: 0,
        }
    }

    /// The first message. Always the same for the same user: it is drawn from a copy of the stream.
    pub fn opening(&self) -> String {
        let opener = if self.questions.len() > 1 {
            self.stream.clone().pick(&phrases::OPENERS)
        } else {
            // A conversation of one question is a measurement: nothing but the question.
            ""
        };
        format!("{opener}{}", self.question().text)
    }

    /// The question that is being answered.
    pub fn question(&self) -> Question {
        self.questions
            .get(self.at)
            .or(self.questions.last())
            .copied()
            .unwrap_or(Question {
                text: "",
                keywords: &[],
            })
    }

    /// Reads a reply and says something.
    pub fn react(&mut self, reply: &str, truncated: bool) -> Reaction {
        let review = persona::review(self.persona, &self.question(), reply, truncated);
        let mut said = match review.complaint() {
            Some(violation) => self.complain(violation),
            None => self.stream.pick(&phrases::THANKS).to_owned(),
        };
        let complained = review.complaint().is_some();
        let again = self.stream.uniform() < self.retry_chance;
        if complained && again && !self.retried && self.questions.len() > 1 {
            self.retried = true;
            said = format!("{said} {}", self.stream.pick(&phrases::AGAIN));
            return Reaction {
                text: said,
                over: false,
                review,
            };
        }
        self.at += 1;
        self.retried = false;
        let over = self.at >= self.questions.len();
        if !over {
            let link = if complained {
                &phrases::MOVING_ON[..]
            } else {
                &phrases::NEXT[..]
            };
            said = format!("{said} {}{}", self.stream.pick(link), self.question().text);
        }
        Reaction {
            text: said,
            over,
            review,
        }
    }

    /// Vague the first time, mostly concrete afterwards.
    fn complain(&mut self, violation: Violation) -> String {
        let [vague, concrete] = phrases::complaints(violation);
        let is_vague = self.complaints == 0 || self.stream.uniform() < 0.2;
        self.complaints += 1;
        let phrase = self.stream.pick(if is_vague { vague } else { concrete });
        phrase.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::questions;

    const LONG: &str = "Bread. Bread is food. Bread is good food.";
    const SHORT: &str = "Use bread and water with soap at night.";

    fn user(seed: u64, retry_chance: f64) -> User {
        let questions = questions::of(Persona::Brief, sdk::Split::Train)[..3].to_vec();
        User::new(Persona::Brief, questions, retry_chance, seed)
    }

    #[test]
    fn a_kept_preference_is_thanked_and_the_next_question_comes_along() {
        let mut user = user(1, 1.0);
        let next = user.questions[1].text;
        let reaction = user.react(SHORT, false);
        assert!(
            phrases::THANKS
                .iter()
                .any(|thanks| reaction.text.starts_with(thanks))
        );
        assert!(
            reaction.text.ends_with(next) && !reaction.over,
            "{}",
            reaction.text
        );
        assert!(reaction.review.kept());
    }

    #[test]
    fn a_broken_preference_is_complained_about_vaguely_then_concretely() {
        let [vague, concrete] = phrases::complaints(Violation::TooLong);
        let mut concretely = 0;
        for seed in 0..40 {
            let mut user = user(seed, 0.0);
            let first = user.react(LONG, false).text;
            assert!(
                vague.iter().any(|phrase| first.starts_with(phrase)),
                "{first}"
            );
            let mut again = user.clone();
            again.at = 0;
            let second = again.react(LONG, false).text;
            concretely += usize::from(concrete.iter().any(|phrase| second.starts_with(phrase)));
        }
        assert!((20..40).contains(&concretely), "{concretely} of 40");
    }

    #[test]
    fn a_user_asks_again_at_most_once_a_question() {
        let mut user = user(3, 1.0);
        let first = user.react(LONG, false);
        assert!(
            phrases::AGAIN
                .iter()
                .any(|again| first.text.ends_with(again)),
            "{}",
            first.text
        );
        assert_eq!(user.at, 0);
        user.react(LONG, false);
        assert_eq!(user.at, 1);
    }

    #[test]
    fn the_same_seed_gives_the_same_words_and_another_one_others() {
        let talk = |seed| {
            let mut user = user(seed, 0.5);
            let replies = [LONG, SHORT, LONG, SHORT, LONG];
            replies.map(|reply| user.react(reply, false).text)
        };
        assert_eq!(talk(7), talk(7));
        assert_ne!(talk(7), talk(8));
    }

    #[test]
    fn the_rule_is_never_stated_up_front() {
        for seed in 0..50 {
            let opening = user(seed, 0.0).opening();
            assert!(
                opening.ends_with('?') && !opening.contains("sentence"),
                "{opening}"
            );
        }
    }
}
