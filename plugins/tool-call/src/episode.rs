//! Episodes: a user with requests, a world that the model's calls change, and the score.
//!
//! What a task is comes from [`crate::plan`], what work is worth from [`crate::oracle`], the words from [`crate::wire`]. The seed only
//! chooses how the user reacts. A snapshot is the replies so far: playing them again is exact and takes no time.

use sdk::{
    Action, Done, Episode, Fault, Finish, Message, NamedValue, Observation, OutcomeScore, Role,
    Step, ToolCall, Turn, random::Stream,
};
use serde_json::Value;

use crate::{
    apis::{Answer, World, fnv},
    draw::{Draw, Style},
    oracle::{self, Grade, Made, Work},
    plan::{Plan, Request},
    reader::{self, Call, Reading},
    snapshot::{Reply, Snapshot},
    task::{TRAIN, Task},
    wire::{self, ToolsIn},
};

/// How an episode goes, from the config.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// How the user asks.
    pub style: Style,
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
    /// Solved requests of the same kind that are shown before the first.
    pub examples: usize,
}

/// The user's requests of a task, each with its reference solution and what the final answer has to say.
///
/// # Errors
/// `invalid-input` for a task that does not exist.
pub fn reference(task: &str, style: Style) -> Result<Vec<Request>, Fault> {
    plan(&Task::read(task)?, style).map(|plan| plan.requests)
}

/// Other training tasks of the same family and difficulty, each with the first call of its reference solution.
fn examples(task: &Task, rules: Rules) -> Result<Vec<(String, String)>, Fault> {
    let others = TRAIN.rev().filter(|number| *number != task.number);
    let mut examples = Vec::new();
    for number in others.take(rules.examples) {
        let plan = plan(&Task { number, ..*task }, rules.style)?;
        let first = plan.requests.into_iter().next();
        examples
            .extend(first.and_then(|first| Some((first.words, first.calls.first()?.to_json()))));
    }
    Ok(examples)
}

fn plan(task: &Task, style: Style) -> Result<Plan, Fault> {
    let plan = (task.family.plan)(&mut Draw::new(task, style), task.difficulty);
    if plan.requests.is_empty() {
        return Err(Fault::Internal(format!(
            "the plan of `{task}` asks for nothing"
        )));
    }
    Ok(plan)
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Tally {
    replies: usize,
    calls: usize,
    /// Calls that failed, and replies that could not be read.
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
    task: Task,
    seed: u32,
    rules: Rules,
    requests: Vec<Request>,
    /// The hash of the state after each request, as the reference leaves it.
    goals: Vec<u64>,
    world: World,
    stream: Stream,
    /// What was done for each request so far; the last is the one that is being worked on, until the episode is over.
    work: Vec<Work>,
    /// The grades of requests that the model ended.
    grades: Vec<Grade>,
    /// Every result that the model was given.
    seen: Vec<String>,
    tally: Tally,
    /// The last reply and what came back, for the evidence of the next; empty after the user spoke.
    last: Vec<Message>,
    replies: Vec<Reply>,
    over: bool,
}

/// What becomes of a reply.
struct Reaction {
    messages: Vec<Message>,
    /// The user spoke: what was done before does not count as repeated.
    by_user: bool,
}

/// Most results of one reply: more calls than this get no answer each, since the host takes no more than 256 messages.
const MOST_RESULTS: usize = 200;

impl Session {
    /// Begins a task.
    ///
    /// # Errors
    /// `invalid-input` for a task that does not exist.
    pub fn start(task: &str, seed: u32, rules: Rules) -> Result<Self, Fault> {
        let task = Task::read(task)?;
        let plan = plan(&task, rules.style)?;
        let mark = fnv(task.to_string().as_bytes());
        Ok(Self {
            goals: plan.goals(),
            requests: plan.requests,
            world: plan.world,
            stream: Stream(mark ^ u64::from(seed)),
            task,
            seed,
            rules,
            work: vec![Work::default()],
            grades: Vec::new(),
            seen: Vec::new(),
            tally: Tally::default(),
            last: Vec::new(),
            replies: Vec::new(),
            over: false,
        })
    }

    /// Goes on from [`Episode::snapshot`]'s bytes.
    ///
    /// # Errors
    /// `invalid-input` for bytes that are no snapshot, or one of another version or config.
    pub fn restore(snapshot: &[u8], rules: Rules) -> Result<Self, Fault> {
        let Snapshot {
            task,
            seed,
            state,
            replies,
        } = Snapshot::read(snapshot)?;
        let mut session = Self::start(&task, seed, rules)?;
        for reply in replies {
            session.act(reply.into())?;
        }
        if session.world.hash() != state {
            return Err(Fault::InvalidInput(format!(
                "go on with `{task}` from a snapshot: the replies in it lead to another state; it was made by another version of this plugin, or with another config"
            )));
        }
        Ok(session)
    }

    fn react(&mut self, action: &Action) -> Reaction {
        let reply = &action.reply;
        if action.finish == Finish::Length {
            self.tally.cut += 1;
            return Self::refuse(reply, Message::user(wire::CUT_OFF), wire::CUT_OFF);
        }
        if !reply.tool_calls.is_empty() {
            return self.call_tools(reply);
        }
        match reader::read(&reply.content) {
            Err(why) => self.malformed(reply, &why),
            Ok(Reading::Calls(calls)) if calls.len() > self.rules.calls_per_reply => {
                self.malformed(reply, &self.too_many(calls.len()))
            }
            Ok(Reading::Calls(calls)) => {
                self.tally.streak = 0;
                let mut make = |call: Call| (call.name.clone(), self.make(Ok(call)));
                let results: Vec<_> = calls.into_iter().map(&mut make).collect();
                Reaction {
                    messages: vec![wire::results(&results)],
                    by_user: false,
                }
            }
            Ok(Reading::Answer(said)) => self.end_request(&said),
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
        self.current(|work| work.malformed += 1);
        let result = Answer::error(&format!("bad-call: {why}"), false).result;
        Self::refuse(reply, wire::format_error(why), &result.to_string())
    }

    /// Nothing is done. Real calls are answered each, as the API of chat completions wants it.
    fn refuse(reply: &Message, in_words: Message, result: &str) -> Reaction {
        let answers = reply.tool_calls.iter().take(MOST_RESULTS);
        let answers: Vec<_> = answers
            .map(|call| wire::tool_message(&call.id, &call.name, result.to_owned()))
            .collect();
        Reaction {
            messages: if answers.is_empty() {
                vec![in_words]
            } else {
                answers
            },
            by_user: false,
        }
    }

    fn call_tools(&mut self, reply: &Message) -> Reaction {
        if reply.tool_calls.len() > self.rules.calls_per_reply {
            return self.malformed(reply, &self.too_many(reply.tool_calls.len()));
        }
        let read = |call: &ToolCall| {
            let arguments = reader::arguments_of(&call.arguments_json)?;
            let name = call.name.clone();
            Ok(Call { name, arguments })
        };
        let calls: Vec<Result<Call, String>> = reply.tool_calls.iter().map(read).collect();
        let readable = calls.iter().all(Result::is_ok);
        self.tally.malformed += usize::from(!readable);
        self.tally.streak = if readable { 0 } else { self.tally.streak + 1 };
        let messages = reply.tool_calls.iter().zip(calls).map(|(asked, call)| {
            wire::tool_message(&asked.id, &asked.name, self.make(call).to_string())
        });
        Reaction {
            messages: messages.collect(),
            by_user: false,
        }
    }

    /// Makes one call, and gives its result.
    fn make(&mut self, call: Result<Call, String>) -> Value {
        self.tally.calls += 1;
        let answer = match &call {
            _ if self.tally.calls > self.rules.max_calls => {
                Answer::error("limit: no more calls are allowed", true)
            }
            Ok(call) => self.world.call(&call.name, &call.arguments),
            Err(why) => Answer::error(&format!("bad-json: {why}"), true),
        };
        self.tally.errors += usize::from(answer.failed);
        match call {
            Ok(call) => self.current(|work| {
                work.made.push(Made {
                    call,
                    known: answer.known,
                    changed: answer.changed,
                });
            }),
            Err(_) => self.current(|work| work.malformed += 1),
        }
        self.seen.push(answer.result.to_string());
        answer.result
    }

    fn current(&mut self, change: impl FnOnce(&mut Work)) {
        if let Some(work) = self.work.last_mut() {
            change(work);
        }
    }

    fn end_request(&mut self, said: &str) -> Reaction {
        self.tally.streak = 0;
        let grade = self.grade(Some(said));
        self.grades.push(grade);
        let phrases = if grade.right {
            &wire::THANKS
        } else {
            &wire::COMPLAINTS
        };
        let mut words = self.stream.pick(phrases).to_owned();
        if let Some(next) = self.requests.get(self.grades.len()) {
            words = format!("{words} {}", next.words);
            self.work.push(Work::default());
        }
        Reaction {
            messages: vec![Message::user(words)],
            by_user: true,
        }
    }

    /// The grade of the request that is being worked on, were it ended with these words.
    fn grade(&self, said: Option<&str>) -> Grade {
        let at = self.grades.len();
        let (Some(request), Some(goal), Some(work)) =
            (self.requests.get(at), self.goals.get(at), self.work.get(at))
        else {
            return Grade::default();
        };
        oracle::grade(request, work, self.world.hash() == *goal, said, &self.seen)
    }

    /// One grade a request; those that were not reached are worth nothing.
    fn all_grades(&self) -> Vec<Grade> {
        let mut grades = self.grades.clone();
        if grades.len() < self.requests.len() {
            grades.push(self.grade(None));
        }
        grades.resize(self.requests.len(), Grade::default());
        grades
    }

    fn ending(&self) -> Option<Done> {
        if self.grades.len() == self.requests.len() {
            Some(Done::Finished)
        } else if self.tally.streak >= self.rules.patience {
            Some(Done::Abandoned)
        } else {
            let spent = self.tally.replies >= self.rules.max_turns
                || self.tally.calls > self.rules.max_calls;
            spent.then_some(Done::Truncated)
        }
    }

    /// The reaction with its evidence: what live traffic would find in the same messages.
    fn observed(&mut self, reply: Message, finish: Finish, reaction: Reaction) -> Observation {
        let turn = Turn {
            request: std::mem::take(&mut self.last),
            response: reply,
            finish,
        };
        let observation = crate::traffic::with_evidence(&turn, reaction.messages);
        self.tally.repeated += usize::from(observation.evidence("repeated") == Some(1.0));
        if !reaction.by_user {
            self.last = vec![turn.response];
            self.last.extend(observation.messages.iter().cloned());
        }
        observation
    }
}

impl Episode for Session {
    fn observe(&mut self) -> Result<Observation, Fault> {
        let request = self
            .requests
            .first()
            .map_or("", |request| request.words.as_str());
        let functions = self.world.functions();
        Ok(Observation::new(wire::opening(
            functions,
            self.rules.tools_in,
            &examples(&self.task, self.rules)?,
            request,
        )))
    }

    fn act(&mut self, action: Action) -> Result<Step, Fault> {
        if self.over {
            return Err(Fault::InvalidInput(format!(
                "reply in `{}`: the episode is over",
                self.task
            )));
        }
        self.replies.push(Reply::from(&action));
        self.tally.replies += 1;
        let reaction = self.react(&action);
        let reply = Message {
            role: Role::Assistant,
            reasoning: None,
            ..action.reply
        };
        let next = self.observed(reply, action.finish, reaction);
        let done = self.ending();
        self.over = done.is_some();
        Ok(Step { next, done })
    }

    fn outcome(&mut self) -> Result<Option<OutcomeScore>, Fault> {
        if self.tally.replies == 0 {
            return Ok(None);
        }
        let grades = self.all_grades();
        let tally = &self.tally;
        let whole = tally.replies - tally.cut;
        let right = grades.iter().filter(|grade| grade.right).count();
        let number = |name: &str, value: f64| NamedValue::new(name, value);
        let metrics = vec![
            number(
                "format-valid",
                oracle::share(oracle::count(whole - tally.malformed), whole),
            ),
            number("tool-right", oracle::mean(&grades, |grade| grade.tools)),
            number(
                "arguments-right",
                oracle::mean(&grades, |grade| grade.arguments),
            ),
            number("state-right", f64::from(u8::from(right == grades.len()))),
            number(
                "requests-right",
                oracle::share(oracle::count(right), grades.len()),
            ),
            number("replies", oracle::count(tally.replies)),
            number("calls", oracle::count(tally.calls)),
            number("errors", oracle::count(tally.errors)),
            number("repeated", oracle::count(tally.repeated)),
            number("cut", oracle::count(tally.cut)),
        ];
        Ok(Some(OutcomeScore {
            value: oracle::value(&grades),
            metrics,
        }))
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Fault> {
        let snapshot = Snapshot {
            task: self.task.to_string(),
            seed: self.seed,
            state: self.world.hash(),
            replies: self.replies.clone(),
        };
        snapshot.write()
    }
}

#[cfg(test)]
mod tests;
