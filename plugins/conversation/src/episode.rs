//! Episodes of the user, as the contract wants them: task ids, acts, outcome, snapshot.
//!
//! A task is `cast/train/i` (a conversation of several questions) or `cast/held-out/i` (one question, for measuring, always
//! scripted). Who speaks is in [`crate::cast`].

use sdk::{
    Action, Done, Episode, Fault, Finish, Message, Observation, OutcomeScore, Split, Step, log,
    random::Stream,
};

use crate::{
    cast::Cast,
    persona::{Review, review},
    speech::{self, REMEMBERED, Situation},
    user::{Asked, Habits, Reaction, User},
};

/// A conversation with one user.
#[derive(Clone, PartialEq, Debug)]
pub struct Conversation {
    task: String,
    seed: u32,
    user: User,
    /// What was said last, the user's and the assistant's texts in turn.
    history: Vec<String>,
    /// Whether the last reply was cut off, and the place of the question that it answered.
    last: Option<(bool, usize)>,
    over: bool,
    /// Who writes the user's words.
    model: Option<String>,
}

/// The tasks of a cast in a split.
pub fn tasks(cast: Cast, split: Split, habits: &Habits) -> Vec<String> {
    let word = match split {
        Split::Train => "train",
        Split::HeldOut => "held-out",
    };
    (0..cast.tasks(split, habits.questions))
        .map(|index| format!("{}/{word}/{index}", cast.name()))
        .collect()
}

/// The split and the questions of a task.
fn task_questions(task: &str, habits: &Habits) -> Result<(Split, Vec<Asked>), Fault> {
    let unknown = || Fault::InvalidInput(format!("there is no task `{task}`"));
    let mut parts = task.split('/');
    let (Some(cast), Some(split), Some(index), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(unknown());
    };
    let cast = Cast::parse(cast)?;
    let split = match split {
        "train" => Split::Train,
        "held-out" => Split::HeldOut,
        _ => return Err(unknown()),
    };
    let index: usize = index.parse().map_err(|_| unknown())?;
    if index >= cast.tasks(split, habits.questions) {
        return Err(unknown());
    }
    let asks = match split {
        Split::Train => cast.block(index, habits.questions, habits.change_after),
        Split::HeldOut => vec![cast.held_out(index)],
    };
    Ok((split, asks))
}

impl Conversation {
    /// Begins a task.
    ///
    /// # Errors
    /// `invalid-input` for a task that does not exist.
    pub fn start(task: &str, seed: u32, habits: &Habits) -> Result<Self, Fault> {
        let (split, asks) = task_questions(task, habits)?;
        let user = User::new(asks, habits.retry_chance, u64::from(seed));
        Ok(Self {
            task: task.to_owned(),
            seed,
            history: vec![user.opening()],
            user,
            last: None,
            over: false,
            model: habits.model.clone().filter(|_| split == Split::Train),
        })
    }

    /// Goes on from [`Episode::snapshot`]'s bytes, which are lines of text: a version, then one field a line; then each text of the
    /// history, its length in bytes in a line before it.
    ///
    /// # Errors
    /// `invalid-input` for bytes that are no snapshot.
    pub fn restore(snapshot: &[u8], habits: &Habits) -> Result<Self, Fault> {
        let broken = || Fault::InvalidInput("this is no snapshot of a conversation".into());
        let mut rest = str::from_utf8(snapshot).map_err(|_| broken())?;
        let mut line = || {
            let (line, after) = rest.split_once('\n').ok_or_else(broken)?;
            rest = after;
            Ok::<_, Fault>(line)
        };
        if line()? != SNAPSHOT_VERSION {
            return Err(broken());
        }
        let task = line()?.to_owned();
        let mut number = || line()?.parse::<u64>().map_err(|_| broken());
        let small = |number: u64| usize::try_from(number).map_err(|_| broken());
        let (seed, stream, at, retried) = (number()?, number()?, small(number()?)?, number()? == 1);
        let (complaints, over, answered) = (number()?, number()? == 1, small(number()?)?);
        let replied = number()?;
        let spoken = number()? == 1;
        let mut history = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_once('\n').ok_or_else(broken)?;
            let length = length.parse().map_err(|_| broken())?;
            let text = after.get(..length).ok_or_else(broken)?;
            history.push(text.to_owned());
            rest = &after[length..];
        }
        let seed = u32::try_from(seed).map_err(|_| broken())?;
        let mut conversation = Self::start(&task, seed, habits)?;
        conversation.user.stream = Stream(stream);
        conversation.user.at = at;
        conversation.user.retried = retried;
        conversation.user.complaints = u32::try_from(complaints).map_err(|_| broken())?;
        conversation.over = over;
        conversation.history = history;
        conversation.last = (replied > 0).then_some((replied == 2, answered));
        conversation.model = conversation.model.filter(|_| spoken);
        Ok(conversation)
    }

    fn last_review(&self) -> Option<Review> {
        let (truncated, at) = self.last?;
        let asked = self.user.asks.get(at)?;
        // After it the user said something.
        let reply = self.history.iter().rev().nth(1)?;
        Some(review(asked.rule, &asked.question, reply, truncated))
    }

    /// What is said: scripted, or the same in a model's words.
    fn words(&mut self, asked: &Asked, mut reaction: Reaction) -> Result<String, Fault> {
        let Some(model) = &self.model else {
            return Ok(reaction.text());
        };
        let situation = Situation {
            asked,
            history: &self.history,
            phrase: &reaction.said,
            complains: reaction.review.complaint().is_some(),
        };
        let said = speech::say(model, &situation)?;
        if let Some(text) = said.text {
            reaction.said = text;
        }
        if !said.goes_on && !reaction.over {
            log::warn(
                "the budget of the user's model is nearly used up: the rest of the conversation is scripted",
            );
            self.model = None;
        }
        Ok(reaction.text())
    }

    fn remember(&mut self, text: String) {
        self.history.push(text);
        let extra = self.history.len().saturating_sub(REMEMBERED);
        self.history.drain(..extra);
    }
}

const SNAPSHOT_VERSION: &str = "conversation 2";

impl Episode for Conversation {
    fn observe(&mut self) -> Result<Observation, Fault> {
        Ok(Observation::new(vec![Message::user(self.user.opening())]))
    }

    fn act(&mut self, action: Action) -> Result<Step, Fault> {
        if self.over {
            return Err(Fault::InvalidInput("the conversation is over".into()));
        }
        let truncated = action.finish == Finish::Length;
        let before = self.clone();
        let (answered, asked) = (self.user.at, self.user.asked());
        let reaction = self.user.react(&action.reply.content, truncated);
        let over = reaction.over;
        self.remember(action.reply.content);
        let text = match self.words(&asked, reaction) {
            Ok(text) => text,
            Err(fault) => {
                // As if nobody had replied: the host may try again.
                *self = before;
                return Err(fault);
            }
        };
        self.remember(text.clone());
        self.over = over;
        self.last = Some((truncated, answered));
        Ok(Step {
            next: Observation::new(vec![Message::user(text)]),
            done: over.then_some(Done::Finished),
        })
    }

    fn outcome(&mut self) -> Result<Option<OutcomeScore>, Fault> {
        Ok(self.last_review().map(|review| review.outcome()))
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Fault> {
        let user = &self.user;
        let replied = self
            .last
            .map_or(0, |(truncated, _)| 1 + u64::from(truncated));
        let answered = self.last.map_or(0, |(_, at)| at as u64);
        let numbers = [
            u64::from(self.seed),
            user.stream.0,
            user.at as u64,
            u64::from(user.retried),
            u64::from(user.complaints),
            u64::from(self.over),
            answered,
            replied,
            u64::from(self.model.is_some()),
        ];
        let head = [SNAPSHOT_VERSION.to_owned(), self.task.clone()];
        let numbers = numbers.iter().map(u64::to_string);
        let texts = self.history.iter();
        let texts = texts.map(|said| format!("{}\n{said}", said.len()));
        let lines = head.into_iter().chain(numbers).map(|line| line + "\n");
        Ok(lines.chain(texts).collect::<String>().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{persona::Persona, questions};

    const HABITS: Habits = Habits {
        questions: 3,
        retry_chance: 0.5,
        change_after: 2,
        model: None,
    };

    fn start(task: &str, seed: u32) -> Conversation {
        Conversation::start(task, seed, &HABITS).unwrap()
    }

    fn reply(text: &str) -> Action {
        let reply = Message::new(sdk::Role::Assistant, text);
        Action {
            reply,
            finish: Finish::Stop,
        }
    }

    #[test]
    fn all_tasks_together_ask_every_question() {
        for persona in Persona::ALL {
            for split in [Split::Train, Split::HeldOut] {
                let cast = Cast::parse(persona.name()).unwrap();
                let asked: std::collections::BTreeSet<_> = tasks(cast, split, &HABITS)
                    .iter()
                    .flat_map(|task| task_questions(task, &HABITS).unwrap().1)
                    .map(|asked| asked.question.text)
                    .collect();
                assert_eq!(asked.len(), questions::of(persona, split).len());
            }
        }
    }

    #[test]
    fn a_held_out_episode_is_one_bare_question() {
        let mut episode = start("brief/held-out/0", 5);
        let opening = episode.observe().unwrap().messages[0].content.clone();
        assert_eq!(opening, "How do I iron a cotton dress?");
        assert_eq!(episode.outcome().unwrap(), None);
        let step = episode.act(reply("Iron the dress with steam.")).unwrap();
        assert_eq!(step.done, Some(Done::Finished));
        assert_eq!(step.next.messages.len(), 1);
        assert_eq!(
            episode.outcome().unwrap().map(|outcome| outcome.value),
            Some(1.0)
        );
        assert!(matches!(
            episode.act(reply("More.")),
            Err(Fault::InvalidInput(_))
        ));
    }

    #[test]
    fn trap_15_a_reply_that_was_cut_off_is_not_finished() {
        let mut episode = start("brief/held-out/0", 5);
        let cut = Action {
            finish: Finish::Length,
            ..reply("Iron the dress with")
        };
        episode.act(cut).unwrap();
        let outcome = episode.outcome().unwrap().unwrap();
        let finished = outcome
            .metrics
            .iter()
            .find(|metric| metric.name == "finished");
        assert_eq!(
            (outcome.value, finished.map(|metric| metric.value)),
            (0.0, Some(0.0))
        );
    }

    #[test]
    fn a_snapshot_goes_on_exactly_where_it_was_taken() {
        let replies = [
            "Bread. Is. Good.",
            "Soap\nand water.",
            "Sleep in a dark room.",
            "Sleep.",
            "Bed.",
        ];
        for cut in 0..3 {
            let mut original = start("brief/train/0", 9);
            for text in &replies[..cut] {
                original.act(reply(text)).unwrap();
            }
            let snapshot = original.snapshot().unwrap();
            let mut restored = Conversation::restore(&snapshot, &HABITS).unwrap();
            assert_eq!(restored, original);
            assert_eq!(restored.outcome().unwrap(), original.outcome().unwrap());
            for text in &replies[cut..] {
                if original.over {
                    break;
                }
                assert_eq!(
                    restored.act(reply(text)).unwrap(),
                    original.act(reply(text)).unwrap()
                );
            }
        }
    }

    /// A conversation whose words are a model's.
    fn spoken() -> Conversation {
        let habits = Habits {
            model: Some("user".into()),
            ..HABITS
        };
        Conversation::start("student/train/0", 9, &habits).unwrap()
    }

    fn says(text: &'static str, left: u32) {
        sdk::native::set_model(move |request| {
            assert_eq!(request.model, "user");
            Ok(sdk::model::Completion {
                text: text.into(),
                finish: Finish::Stop,
                tokens: 200,
                left,
            })
        });
    }

    #[test]
    fn a_model_writes_the_reaction_and_the_next_question_stays_as_it_is() {
        says("I can't hand that in.", 8_000);
        let (mut episode, mut scripted) = (spoken(), start("student/train/0", 9));
        for text in ["**No**", "Step 1: no.", "It is 7.", "No.", "No."] {
            if episode.over {
                break;
            }
            let said = episode.act(reply(text)).unwrap();
            let usual = scripted.act(reply(text)).unwrap();
            let content = &said.next.messages[0].content;
            assert!(content.starts_with("I can't hand that in."), "{content}");
            let follow = |text: &str| {
                text.split_once("homework.txt")
                    .map(|(_, after)| after.to_owned())
            };
            assert_eq!(follow(content), follow(&usual.next.messages[0].content));
            assert_eq!(episode.outcome().unwrap(), scripted.outcome().unwrap());
            assert_eq!(said.done, usual.done);
        }
    }

    #[test]
    fn praise_of_what_the_rule_refuses_is_not_said_and_a_spent_budget_ends_the_model_s_part() {
        says("Thanks, that's perfect!", 8_000);
        let (mut episode, mut scripted) = (spoken(), start("student/train/0", 9));
        assert_eq!(
            episode.act(reply("**No**")).unwrap(),
            scripted.act(reply("**No**")).unwrap()
        );
        says("I can't hand that in.", 10);
        episode.act(reply("**No**")).unwrap();
        assert_eq!(episode.model, None);
        let mut restored = Conversation::restore(&episode.snapshot().unwrap(), &HABITS).unwrap();
        assert_eq!(restored, episode);
        assert_eq!(restored.outcome().unwrap(), episode.outcome().unwrap());
    }

    #[test]
    fn held_out_conversations_are_scripted_and_a_host_without_a_model_is_a_fault() {
        let habits = Habits {
            model: Some("user".into()),
            ..HABITS
        };
        let mut episode = Conversation::start("ta/held-out/3", 9, &habits).unwrap();
        assert!(episode.act(reply("No.")).unwrap().done.is_some());
        let mut episode = spoken();
        let fault = episode.act(reply("No."));
        assert!(matches!(fault, Err(Fault::Unsupported(_))), "{fault:?}");
        assert_eq!(episode, spoken(), "and nothing was said");
    }

    #[test]
    fn bytes_that_are_no_snapshot_and_tasks_that_do_not_exist_are_faults() {
        for bytes in [
            &b""[..],
            b"\xff",
            b"conversation 2",
            b"conversation 1\nbrief/train/0\n1\n1\n0\n0\n0\n0\n0\n0\n0\n",
            b"conversation 2\nbrief/train/0\nx",
            b"conversation 2\nbrief/train/0\n1\n1\n0\n0\n0\n0\n0\n0\n0\n99\nshort",
        ] {
            assert!(matches!(
                Conversation::restore(bytes, &HABITS),
                Err(Fault::InvalidInput(_))
            ));
        }
        for task in [
            "",
            "brief",
            "brief/train",
            "brief/train/99",
            "brief/train/0/0",
            "brief/test/0",
            "x/train/0",
            "brief/train/-1",
        ] {
            assert!(Conversation::start(task, 1, &HABITS).is_err(), "{task}");
        }
    }
}
