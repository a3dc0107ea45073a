//! Episodes: what the model writes is read, its calls are made by a [`World`], and the user goes on or is content.
//!
//! Right or wrong: an episode is worth 1 when every request was done and the model ended it, and 0 otherwise. Nothing is drawn, so that a
//! seed changes nothing; after a restart the host replays the actions.

use std::collections::BTreeSet;

use calls::{
    answers,
    reader::{self, Call, Reading},
};
use sdk::{
    Action, Done, Episode, Fault, Finish, Message, NamedValue, Observation, OutcomeScore, Step,
    ToolCall,
};

use crate::{
    text,
    wire::{self, ToolsIn},
    world::{Answer, Batch, Script, User, World},
};

/// How an episode goes, from the config.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Where the model reads which tools there are.
    pub tools_in: ToolsIn,
    /// Replies after which it is over.
    pub max_turns: usize,
    /// Calls after which it is over.
    pub max_calls: usize,
    /// Most calls of one reply.
    pub calls_per_reply: usize,
    /// Replies in a row that cannot be read, after which it is abandoned.
    pub patience: usize,
    /// How much of a result is shown.
    pub output_chars: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Tally {
    replies: usize,
    calls: usize,
    errors: usize,
    malformed: usize,
    cut: usize,
    repeated: usize,
    /// Replies in a row that could not be read.
    streak: usize,
}

/// One attempt at one task.
#[derive(Debug)]
pub struct Session {
    script: Script,
    rules: Rules,
    world: Box<dyn World>,
    /// The names of the tools that are there now.
    tools: BTreeSet<String>,
    /// Whether each request that was ended was done.
    done: Vec<bool>,
    /// All that the model said in words.
    said: Vec<String>,
    /// The model's last reply was words, and the user confirmed them.
    confirmed: bool,
    /// The calls of the reply before, where nobody spoke since.
    last: Vec<Call>,
    tally: Tally,
    over: bool,
}

/// What becomes of a reply.
#[derive(Default)]
struct Reaction {
    messages: Vec<Message>,
    error: Option<bool>,
    repeated: Option<bool>,
    changed: Option<bool>,
}

impl Reaction {
    fn spoken(words: impl Into<String>) -> Self {
        Self {
            messages: vec![Message::user(words)],
            ..Self::default()
        }
    }

    fn observation(self) -> Observation {
        let mut observation = Observation::new(self.messages);
        for (name, value) in [
            ("error", self.error),
            ("repeated", self.repeated),
            ("changed", self.changed),
        ] {
            if let Some(value) = value {
                observation = observation.with_evidence(name, f64::from(u8::from(value)));
            }
        }
        observation
    }
}

/// Most results of one reply: more calls than this get no answer each, since the host takes no more than 256 messages.
const MOST_RESULTS: usize = 200;

/// What the arguments of one call may take: all calls of an episode are sent to the machine with every reply.
const MOST_ARGUMENT_BYTES: usize = 4_000;

const YES: &str = "Yes, please go on with what I asked for. I have told you all that I know; if everything is done, or cannot be done, say so.";
const THANKS: &str = "Thank you.";

impl Session {
    /// Begins.
    pub fn new(script: Script, world: Box<dyn World>, rules: Rules) -> Self {
        let mut session = Self {
            script,
            rules,
            world,
            tools: BTreeSet::new(),
            done: Vec::new(),
            said: Vec::new(),
            confirmed: false,
            last: Vec::new(),
            tally: Tally::default(),
            over: false,
        };
        session.unlock();
        session
    }

    /// The tools of the request that is worked on are there now.
    fn unlock(&mut self) {
        if let Some(request) = self.script.requests.get(self.done.len()) {
            let names = request.tools.iter().map(|tool| tool.name.clone());
            self.tools.extend(names);
        }
    }

    fn react(&mut self, action: &Action) -> Result<Reaction, Fault> {
        let reply = &action.reply;
        if action.finish == Finish::Length {
            self.tally.cut += 1;
            return Ok(refusal(
                reply,
                Message::user(answers::CUT_OFF),
                answers::CUT_OFF,
            ));
        }
        if !reply.tool_calls.is_empty() {
            return self.call_tools(reply);
        }
        match reader::read(&reply.content) {
            Err(why) => Ok(self.malformed(reply, &why)),
            Ok(Reading::Calls(calls)) if calls.len() > self.rules.calls_per_reply => {
                Ok(self.malformed(reply, &self.too_many(calls.len())))
            }
            Ok(Reading::Calls(calls)) => {
                self.tally.streak = 0;
                let names: Vec<_> = calls.iter().map(|call| call.name.clone()).collect();
                let (answers, mut reaction) = self.make(calls)?;
                let results = names.into_iter().zip(answers).collect();
                reaction.messages = vec![wire::results(results)];
                Ok(reaction)
            }
            Ok(Reading::Answer(said)) => Ok(self.listen(said)),
        }
    }

    fn too_many(&self, calls: usize) -> String {
        let most = self.rules.calls_per_reply;
        format!("these are {calls} calls, and {most} are allowed in one reply")
    }

    fn malformed(&mut self, reply: &Message, why: &str) -> Reaction {
        self.tally.malformed += 1;
        self.tally.errors += 1;
        self.tally.streak += 1;
        Reaction {
            error: Some(true),
            ..refusal(reply, answers::format_error(why), &format!("Error: {why}"))
        }
    }

    /// Real tool calls: all are made, or, where one cannot be read, none.
    fn call_tools(&mut self, reply: &Message) -> Result<Reaction, Fault> {
        if reply.tool_calls.len() > self.rules.calls_per_reply {
            return Ok(self.malformed(reply, &self.too_many(reply.tool_calls.len())));
        }
        let read = |call: &ToolCall| {
            let arguments = reader::arguments_of(&call.arguments_json)?;
            let name = call.name.clone();
            Ok(Call { name, arguments })
        };
        let calls: Result<Vec<Call>, String> = reply.tool_calls.iter().map(read).collect();
        let calls = match calls {
            Ok(calls) => calls,
            Err(why) => return Ok(self.malformed(reply, &why)),
        };
        self.tally.streak = 0;
        if !reply.content.trim().is_empty() {
            self.said.push(reply.content.clone());
        }
        let (answers, mut reaction) = self.make(calls)?;
        let answered = reply.tool_calls.iter().zip(answers);
        reaction.messages = answered
            .map(|(call, answer)| answers::tool_message(&call.id, &call.name, answer.text))
            .collect();
        Ok(reaction)
    }

    /// Makes the calls of a reply. Those of unknown tools, and those beyond the limits, are answered here and reach no machine.
    fn make(&mut self, calls: Vec<Call>) -> Result<(Vec<Answer>, Reaction), Fault> {
        self.confirmed = false;
        let mut answers: Vec<Option<Answer>> = Vec::new();
        let mut wanted = Vec::new();
        for call in &calls {
            self.tally.calls += 1;
            let refused = self.refused(call);
            if refused.is_none() {
                wanted.push(call.clone());
            }
            answers.push(refused);
        }
        let batch = if wanted.is_empty() {
            Batch {
                answers: Vec::new(),
                changed: Some(false),
            }
        } else {
            self.world.make(&wanted)?
        };
        let mut made = batch.answers.into_iter();
        let missing = || Answer::refused("there is no result");
        let answers: Vec<Answer> = answers
            .into_iter()
            .map(|refused| refused.or_else(|| made.next()).unwrap_or_else(missing))
            .map(|answer| Answer {
                text: text::cut(&answer.text, self.rules.output_chars),
                ..answer
            })
            .collect();
        let failed = answers.iter().filter(|answer| answer.failed).count();
        self.tally.errors += failed;
        let repeated = calls == self.last;
        self.tally.repeated += usize::from(repeated);
        self.last = calls;
        let reaction = Reaction {
            messages: Vec::new(),
            error: Some(failed > 0),
            repeated: Some(repeated),
            changed: batch.changed,
        };
        Ok((answers, reaction))
    }

    /// Why a call is not made.
    fn refused(&self, call: &Call) -> Option<Answer> {
        if self.tally.calls > self.rules.max_calls {
            return Some(Answer::refused("no more calls are allowed"));
        }
        if !self.tools.contains(&call.name) {
            let there: Vec<_> = self.tools.iter().map(String::as_str).collect();
            let there = there.join(", ");
            return Some(Answer::refused(format!(
                "there is no tool `{}`; there are {there}",
                text::cut(&call.name, 60)
            )));
        }
        let long = call.to_json().len() > MOST_ARGUMENT_BYTES;
        long.then(|| Answer::refused("the arguments are too long"))
    }

    /// Words without a call.
    fn listen(&mut self, said: String) -> Reaction {
        self.tally.streak = 0;
        self.last.clear();
        self.said.push(said);
        if self.script.user == User::Confirms && !self.confirmed {
            self.confirmed = true;
            return Reaction::spoken(YES);
        }
        self.done.push(self.world.end(&self.said));
        self.unlock();
        match self.script.requests.get(self.done.len()) {
            Some(next) => Reaction::spoken(wire::request(&next.words, &next.tools)),
            None => Reaction::spoken(THANKS),
        }
    }

    fn ending(&self) -> Option<Done> {
        if self.done.len() >= self.script.requests.len() {
            Some(Done::Finished)
        } else if self.tally.streak >= self.rules.patience {
            Some(Done::Abandoned)
        } else {
            let spent = self.tally.replies >= self.rules.max_turns
                || self.tally.calls > self.rules.max_calls;
            spent.then_some(Done::Truncated)
        }
    }
}

/// Nothing is done. Real calls are answered each, as the API of chat completions wants it.
fn refusal(reply: &Message, in_words: Message, result: &str) -> Reaction {
    let answered = reply.tool_calls.iter().take(MOST_RESULTS);
    let answered: Vec<_> = answered
        .map(|call| answers::tool_message(&call.id, &call.name, result.to_owned()))
        .collect();
    Reaction {
        messages: if answered.is_empty() {
            vec![in_words]
        } else {
            answered
        },
        ..Reaction::default()
    }
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        count(part) / count(whole)
    }
}

impl Episode for Session {
    fn observe(&mut self) -> Result<Observation, Fault> {
        Ok(Observation::new(wire::opening(
            &self.script,
            self.rules.tools_in,
        )))
    }

    fn act(&mut self, action: Action) -> Result<Step, Fault> {
        if self.over {
            return Err(Fault::InvalidInput("reply: the episode is over".into()));
        }
        let reaction = self.react(&action)?;
        self.tally.replies += 1;
        let done = self.ending();
        self.over = done.is_some();
        let next = reaction.observation();
        Ok(Step { next, done })
    }

    fn outcome(&mut self) -> Result<Option<OutcomeScore>, Fault> {
        if self.tally.replies == 0 {
            return Ok(None);
        }
        let requests = self.script.requests.len();
        let right = self.done.iter().filter(|done| **done).count();
        let tally = &self.tally;
        let whole = tally.replies - tally.cut;
        let number = |name: &str, value: f64| NamedValue::new(name, value);
        let metrics = vec![
            number("requests-right", share(right, requests)),
            number("format-valid", share(whole - tally.malformed, whole)),
            number("replies", count(tally.replies)),
            number("calls", count(tally.calls)),
            number("errors", count(tally.errors)),
            number("repeated", count(tally.repeated)),
            number("cut", count(tally.cut)),
        ];
        Ok(Some(OutcomeScore {
            value: f64::from(u8::from(right == requests)),
            metrics,
        }))
    }
}

#[cfg(test)]
mod tests;
