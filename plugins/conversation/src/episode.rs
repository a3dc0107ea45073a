//! Episodes of the scripted user, as the contract wants them: task ids, acts, outcome, snapshot.
//!
//! A task is `persona/train/i` (a conversation of several questions) or `persona/held-out/i` (one question, for measuring).

use sdk::{
    Action, Done, Episode, Fault, Finish, Message, Observation, OutcomeScore, Split, Step,
    random::Stream,
};

use crate::{
    persona::{Persona, Review, review},
    questions::{self, Question},
    user::{Habits, User},
};

/// A conversation with one user.
#[derive(Clone, PartialEq, Debug)]
pub struct Conversation {
    task: String,
    seed: u32,
    user: User,
    /// The last reply and the place of the question that it answered.
    last: Option<(String, bool, usize)>,
    over: bool,
}

/// The tasks of a persona in a split.
pub fn tasks(persona: Persona, split: Split, habits: &Habits) -> Vec<String> {
    let questions = questions::of(persona, split).len();
    let (word, count) = match split {
        Split::Train => ("train", questions.div_ceil(habits.questions)),
        Split::HeldOut => ("held-out", questions),
    };
    (0..count)
        .map(|index| format!("{}/{word}/{index}", persona.name()))
        .collect()
}

/// The questions of a task: a block of the split's list, so that all tasks together ask everything.
fn task_questions(task: &str, habits: &Habits) -> Result<(Persona, Vec<Question>), Fault> {
    let unknown = || Fault::InvalidInput(format!("there is no task `{task}`"));
    let mut parts = task.split('/');
    let (Some(persona), Some(split), Some(index), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(unknown());
    };
    let persona = Persona::parse(persona)?;
    let split = match split {
        "train" => Split::Train,
        "held-out" => Split::HeldOut,
        _ => return Err(unknown()),
    };
    let index: usize = index.parse().map_err(|_| unknown())?;
    if index >= tasks(persona, split, habits).len() {
        return Err(unknown());
    }
    let all = questions::of(persona, split);
    let count = if split == Split::Train {
        habits.questions
    } else {
        1
    };
    let first = index * count;
    let block = (first..first + count).map(|at| all[at % all.len()]);
    Ok((persona, block.collect()))
}

impl Conversation {
    /// Begins a task.
    ///
    /// # Errors
    /// `invalid-input` for a task that does not exist.
    pub fn start(task: &str, seed: u32, habits: Habits) -> Result<Self, Fault> {
        let (persona, questions) = task_questions(task, &habits)?;
        let user = User::new(persona, questions, habits.retry_chance, u64::from(seed));
        Ok(Self {
            task: task.to_owned(),
            seed,
            user,
            last: None,
            over: false,
        })
    }

    /// Goes on from [`Episode::snapshot`]'s bytes, which are lines of text: a version, then one field a line, and the last reply.
    ///
    /// # Errors
    /// `invalid-input` for bytes that are no snapshot.
    pub fn restore(snapshot: &[u8], habits: Habits) -> Result<Self, Fault> {
        let broken = || Fault::InvalidInput("this is no snapshot of a conversation".into());
        let text = str::from_utf8(snapshot).map_err(|_| broken())?;
        let mut lines = text.splitn(11, '\n');
        let mut line = || lines.next().ok_or_else(broken);
        if line()? != SNAPSHOT_VERSION {
            return Err(broken());
        }
        let task = line()?.to_owned();
        let mut number = || line()?.parse::<u64>().map_err(|_| broken());
        let small = |number: u64| usize::try_from(number).map_err(|_| broken());
        let (seed, stream, at, retried) = (number()?, number()?, small(number()?)?, number()? == 1);
        let (complaints, over, answered) = (number()?, number()? == 1, small(number()?)?);
        let replied = number()?;
        let reply = line()?;
        let seed = u32::try_from(seed).map_err(|_| broken())?;
        let mut conversation = Self::start(&task, seed, habits)?;
        conversation.user.stream = Stream(stream);
        conversation.user.at = at;
        conversation.user.retried = retried;
        conversation.user.complaints = u32::try_from(complaints).map_err(|_| broken())?;
        conversation.over = over;
        conversation.last = (replied > 0).then(|| (reply.to_owned(), replied == 2, answered));
        Ok(conversation)
    }

    fn last_review(&self) -> Option<Review> {
        let (reply, truncated, at) = self.last.as_ref()?;
        let question = self.user.questions.get(*at)?;
        Some(review(self.user.persona, question, reply, *truncated))
    }
}

const SNAPSHOT_VERSION: &str = "conversation 1";

impl Episode for Conversation {
    fn observe(&mut self) -> Result<Observation, Fault> {
        Ok(Observation::new(vec![Message::user(self.user.opening())]))
    }

    fn act(&mut self, action: Action) -> Result<Step, Fault> {
        if self.over {
            return Err(Fault::InvalidInput("the conversation is over".into()));
        }
        let truncated = action.finish == Finish::Length;
        let answered = self.user.at;
        let reaction = self.user.react(&action.reply.content, truncated);
        self.over = reaction.over;
        self.last = Some((action.reply.content, truncated, answered));
        Ok(Step {
            next: Observation::new(vec![Message::user(reaction.text)]),
            done: reaction.over.then_some(Done::Finished),
        })
    }

    fn outcome(&mut self) -> Result<Option<OutcomeScore>, Fault> {
        Ok(self.last_review().map(|review| review.outcome()))
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Fault> {
        let user = &self.user;
        let (reply, replied, answered) = match &self.last {
            None => ("", 0, 0),
            Some((reply, truncated, at)) => (reply.as_str(), 1 + u64::from(*truncated), *at),
        };
        let numbers = [
            u64::from(self.seed),
            user.stream.0,
            user.at as u64,
            u64::from(user.retried),
            u64::from(user.complaints),
            u64::from(self.over),
            answered as u64,
            replied,
        ];
        let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
        Ok(format!(
            "{SNAPSHOT_VERSION}\n{}\n{}\n{reply}",
            self.task,
            numbers.join("\n")
        )
        .into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HABITS: Habits = Habits {
        questions: 3,
        retry_chance: 0.5,
    };

    fn start(task: &str, seed: u32) -> Conversation {
        Conversation::start(task, seed, HABITS).unwrap()
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
                let asked: std::collections::BTreeSet<_> = tasks(persona, split, &HABITS)
                    .iter()
                    .flat_map(|task| task_questions(task, &HABITS).unwrap().1)
                    .map(|question| question.text)
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
            let mut restored = Conversation::restore(&snapshot, HABITS).unwrap();
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

    #[test]
    fn bytes_that_are_no_snapshot_and_tasks_that_do_not_exist_are_faults() {
        for bytes in [
            &b""[..],
            b"\xff",
            b"conversation 1",
            b"conversation 1\nbrief/train/0\nx",
        ] {
            assert!(matches!(
                Conversation::restore(bytes, HABITS),
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
            assert!(Conversation::start(task, 1, HABITS).is_err(), "{task}");
        }
    }
}
