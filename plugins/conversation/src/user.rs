//! The user as a state machine: asks, complains or thanks, and moves on.
//!
//! Seeded: the same seed and the same replies give the same words. Knows no plugin interface; see [`crate::episode`], which may let a
//! model say in other words what is scripted here.

use sdk::random::Stream;

use crate::{
    persona::{self, Persona, Review, Violation},
    phrases,
    questions::Question,
};

/// How a user behaves, from the config.
#[derive(Clone, PartialEq, Debug)]
pub struct Habits {
    /// Questions of one conversation.
    pub questions: usize,
    /// How often the same answer is asked for again after a complaint.
    pub retry_chance: f64,
    /// Questions before a change of taste or person.
    pub change_after: usize,
    /// The model that writes the user's words, by the operator's name; none for scripted ones.
    pub model: Option<String>,
}

/// A question, by whom, and by whose taste its answer is measured.
#[derive(Clone, PartialEq, Debug)]
pub struct Asked {
    /// The question.
    pub question: Question,
    /// Who asks.
    pub speaker: Persona,
    /// Whose rule holds: another one's after a drift. Never said.
    pub rule: Persona,
}

/// A user in the middle of a conversation.
#[derive(Clone, PartialEq, Debug)]
pub struct User {
    /// What will be asked, in order; at least one.
    pub asks: Vec<Asked>,
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
    /// The reaction, in words.
    pub said: String,
    /// What follows it: the wish for another answer, or the next question; empty at the end.
    pub follow: String,
    /// Whether the conversation is over.
    pub over: bool,
    /// What the user thought.
    pub review: Review,
}

impl Reaction {
    /// All that is said.
    pub fn text(&self) -> String {
        [self.said.as_str(), self.follow.as_str()]
            .join(" ")
            .trim_end()
            .to_owned()
    }
}

impl User {
    /// A user who has said nothing yet.
    pub fn new(asks: Vec<Asked>, retry_chance: f64, seed: u64) -> Self {
        Self {
            asks,
            retry_chance,
            stream: Stream(seed),
            at: 0,
            retried: false,
            complaints: 0,
        }
    }

    /// The first message. Always the same for the same user: it is drawn from a copy of the stream.
    pub fn opening(&self) -> String {
        let opener = if self.asks.len() > 1 {
            self.stream.clone().pick(&phrases::OPENERS)
        } else {
            // A conversation of one question is a measurement: nothing but the question.
            ""
        };
        format!("{opener}{}", self.asked().question.text)
    }

    /// The question that is being answered.
    pub fn asked(&self) -> Asked {
        let asked = self.asks.get(self.at).or(self.asks.last()).cloned();
        asked.unwrap_or_else(|| Asked {
            question: Question::default(),
            speaker: Persona::Brief,
            rule: Persona::Brief,
        })
    }

    /// Reads a reply and says something.
    pub fn react(&mut self, reply: &str, truncated: bool) -> Reaction {
        let asked = self.asked();
        let review = persona::review(asked.rule, &asked.question, reply, truncated);
        let said = match review.complaint() {
            Some(violation) => self.complain(violation),
            None => self.stream.pick(&phrases::THANKS).to_owned(),
        };
        let complained = review.complaint().is_some();
        let again = self.stream.uniform() < self.retry_chance;
        let follow = if complained && again && !self.retried && self.asks.len() > 1 {
            self.retried = true;
            self.stream.pick(&phrases::AGAIN).to_owned()
        } else {
            self.at += 1;
            self.retried = false;
            self.next(asked.speaker, complained)
        };
        Reaction {
            said,
            follow,
            over: self.at >= self.asks.len(),
            review,
        }
    }

    /// The next question; nothing after the last one.
    fn next(&mut self, before: Persona, complained: bool) -> String {
        if self.at >= self.asks.len() {
            return String::new();
        }
        let links = if complained {
            &phrases::MOVING_ON[..]
        } else {
            &phrases::NEXT[..]
        };
        let mut link = self.stream.pick(links);
        let asked = self.asked();
        if asked.speaker != before {
            link = self.stream.pick(&phrases::HANDOVERS);
        }
        format!("{link}{}", asked.question.text)
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
    use crate::cast::Cast;

    const LONG: &str = "Bread. Bread is food. Bread is good food.";
    const SHORT: &str = "Use bread and water with soap at night.";

    fn user(seed: u64, retry_chance: f64) -> User {
        let asks = Cast::parse("brief").unwrap().block(0, 3, 3);
        User::new(asks, retry_chance, seed)
    }

    #[test]
    fn a_kept_preference_is_thanked_and_the_next_question_comes_along() {
        let mut user = user(1, 1.0);
        let next = user.asks[1].question.text.clone();
        let reaction = user.react(SHORT, false);
        assert!(
            phrases::THANKS
                .iter()
                .any(|thanks| reaction.said == *thanks)
        );
        assert!(
            reaction.text().ends_with(&*next) && !reaction.over,
            "{reaction:?}"
        );
        assert!(reaction.review.kept());
    }

    #[test]
    fn a_broken_preference_is_complained_about_vaguely_then_concretely() {
        let [vague, concrete] = phrases::complaints(Violation::TooLong);
        let mut concretely = 0;
        for seed in 0..40 {
            let mut user = user(seed, 0.0);
            let first = user.react(LONG, false).text();
            assert!(
                vague.iter().any(|phrase| first.starts_with(phrase)),
                "{first}"
            );
            let mut again = user.clone();
            again.at = 0;
            let second = again.react(LONG, false).text();
            concretely += usize::from(concrete.iter().any(|phrase| second.starts_with(phrase)));
        }
        assert!((20..40).contains(&concretely), "{concretely} of 40");
    }

    #[test]
    fn a_user_asks_again_at_most_once_a_question() {
        let mut user = user(3, 1.0);
        let first = user.react(LONG, false);
        assert!(
            phrases::AGAIN.iter().any(|again| first.follow == *again),
            "{first:?}"
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
            replies.map(|reply| user.react(reply, false).text())
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

    #[test]
    fn who_takes_over_says_so_and_a_taste_that_drifts_does_not() {
        for (name, told) in [("brief-switch-ta", true), ("brief-drift-warm", false)] {
            let asks = Cast::parse(name).unwrap().block(0, 3, 1);
            let mut user = User::new(asks, 0.0, 5);
            let follow = user.react(SHORT, false).follow;
            let takes_over = |one: &&str| follow.starts_with(*one);
            assert_eq!(phrases::HANDOVERS.iter().any(takes_over), told, "{follow}");
            assert_ne!(user.asked().rule, Persona::Brief);
        }
    }
}
