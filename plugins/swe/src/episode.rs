//! One attempt at one task: actions on a machine, what the model is shown of them, and the score.
//!
//! Does not read replies ([`crate::action`]) and does not grade ([`crate::oracle`]).

use std::{collections::BTreeSet, fmt};

use sdk::{Done, Episode, Fault, Message, Observation, OutcomeScore, Role, Step};

use crate::{
    action::{self, Action, GRAMMAR},
    edit,
    jail::Jail,
    oracle::{self, Work},
    task::{ENVIRONMENT, Task, own_command},
    text,
};

/// Limits of an episode, from the config.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Actions.
    pub max_turns: usize,
    /// How long a command may take.
    pub command_ms: u32,
    /// How much of its output is shown.
    pub output_chars: usize,
}

/// An attempt.
pub struct Attempt<J> {
    task: Task,
    limits: Limits,
    /// None once the episode is over and its work was collected: the oracle needs the room.
    machine: Option<J>,
    base: u32,
    /// The state of the files, as a digest; none where it could not be told.
    files: Option<String>,
    /// Every action with the state that it met.
    seen: BTreeSet<(String, Option<String>)>,
    turns: usize,
    edits: usize,
    commands: usize,
    over: bool,
    work: Option<Work>,
    outcome: Option<OutcomeScore>,
}

impl<J> fmt::Debug for Attempt<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("folder", &self.task.folder())
            .field("turns", &self.turns)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

/// What came of an action.
struct Came {
    text: String,
    /// None where nothing ran.
    exit_code: Option<u32>,
}

impl<J: Jail> Attempt<J> {
    /// Begins a task.
    ///
    /// # Errors
    /// Whatever the machine says no to.
    pub fn start(task: Task, limits: Limits) -> Result<Self, Fault> {
        let machine: J = task.lay_out()?;
        task.commit(&machine)?;
        let base = machine.snapshot()?;
        let files = digest(&machine, task.folder());
        Ok(Self {
            task,
            limits,
            machine: Some(machine),
            base,
            files,
            seen: BTreeSet::new(),
            turns: 0,
            edits: 0,
            commands: 0,
            over: false,
            work: None,
            outcome: None,
        })
    }

    fn machine(&self) -> Result<&J, Fault> {
        let gone = || Fault::InvalidInput("the episode is over".into());
        self.machine.as_ref().ok_or_else(gone)
    }

    fn perform(&mut self, action: &Action) -> Result<Came, Fault> {
        match action {
            Action::Run(command) => self.run(command),
            Action::Edit { path, replacements } => self.edit(path, replacements),
            Action::Diff(diff) => self.diff(diff),
            Action::Submit => Ok(Came {
                text: "submitted".into(),
                exit_code: None,
            }),
        }
    }

    fn run(&mut self, command: &str) -> Result<Came, Fault> {
        self.commands += 1;
        let command = format!("{ENVIRONMENT}{command}");
        let (folder, time) = (self.task.folder(), self.limits.command_ms);
        let output = self.machine()?.run(&command, folder, time)?;
        Ok(Came {
            text: text::report(&output, self.limits.output_chars),
            exit_code: Some(text::exit_code(&output.ending)),
        })
    }

    fn edit(&mut self, path: &str, replacements: &[edit::Replacement]) -> Result<Came, Fault> {
        let said = match self.edited(path, replacements)? {
            Ok(()) => {
                self.edits += 1;
                return Ok(done(format!("edited {path}")));
            }
            Err(why) => format!("nothing was edited in `{path}`: {why}"),
        };
        Ok(failed(said))
    }

    fn edited(
        &self,
        path: &str,
        replacements: &[edit::Replacement],
    ) -> Result<Result<(), String>, Fault> {
        let place = match edit::path_within(self.task.folder(), path) {
            Ok(place) => place,
            Err(why) => return Ok(Err(why)),
        };
        let machine = self.machine()?;
        let before = match machine.read_file(&place) {
            Ok(before) => before,
            Err(Fault::InvalidInput(why)) => return Ok(Err(why)),
            Err(fault) => return Err(fault),
        };
        let before = match before.map(String::from_utf8).transpose() {
            Ok(before) => before,
            Err(_) => return Ok(Err("it is no text in UTF-8".into())),
        };
        let after = match edit::apply(before.as_deref(), replacements) {
            Ok(after) => after,
            Err(why) => return Ok(Err(why)),
        };
        match machine.write_file(&place, after.as_bytes()) {
            Ok(()) => Ok(Ok(())),
            Err(Fault::InvalidInput(why)) => Ok(Err(why)),
            Err(fault) => Err(fault),
        }
    }

    fn diff(&mut self, diff: &str) -> Result<Came, Fault> {
        let machine = self.machine()?;
        machine.write_file("/tmp/.action.diff", diff.as_bytes())?;
        // `--recount`: the lines count, not the numbers that a model wrote above them.
        let command = format!(
            "{ENVIRONMENT}git apply --recount --whitespace=nowarn -v /tmp/.action.diff; \
             code=$?; rm -f /tmp/.action.diff; exit $code"
        );
        let (folder, time) = (self.task.folder(), self.limits.command_ms);
        let output = machine.run(&command, folder, time)?;
        self.edits += usize::from(output.succeeded());
        Ok(Came {
            text: text::report(&output, self.limits.output_chars),
            exit_code: Some(text::exit_code(&output.ending)),
        })
    }

    /// What follows an action that could be read.
    fn follow(&mut self, action: &Action) -> Result<Observation, Fault> {
        let key = (format!("{action:?}"), self.files.clone());
        let repeated = !self.seen.insert(key);
        let result = self.perform(action)?;
        let files = digest(self.machine()?, self.task.folder());
        let flag = |yes: bool| f64::from(u8::from(yes));
        let mut next = Observation::new(vec![Message::user(result.text)]);
        if let Some(code) = result.exit_code {
            next = next
                .with_evidence("exit-code", f64::from(code))
                .with_evidence("error", flag(code != 0));
        }
        if *action != Action::Submit {
            next = next.with_evidence("repeated", flag(repeated));
            if let (Some(before), Some(after)) = (&self.files, &files) {
                next = next.with_evidence("changed", flag(before != after));
            }
        }
        self.files = files;
        Ok(next)
    }

    /// The score of what was done so far. Once the episode is over the model's machine goes, and with it whatever still runs there.
    fn score(&mut self) -> Result<OutcomeScore, Fault> {
        let work = match self.work.take() {
            Some(work) => work,
            None => oracle::collect(&self.task, self.machine()?, self.base)?,
        };
        if self.over {
            self.machine = None;
            self.work = Some(work.clone());
        }
        let grade = oracle::examine::<J>(&self.task, &work)?;
        let void = work.void.is_some();
        Ok(grade.outcome(void, self.edits, self.commands))
    }
}

fn done(said: String) -> Came {
    Came {
        text: format!("exit code: 0\n{said}"),
        exit_code: Some(0),
    }
}

fn failed(said: String) -> Came {
    Came {
        text: format!("exit code: 1\n{said}"),
        exit_code: Some(1),
    }
}

/// A digest of all files but git's and bytecode; none where it could not be made.
fn digest<J: Jail>(machine: &J, folder: &str) -> Option<String> {
    let command = "find . -path ./.git -prune -o -type f ! -path '*/__pycache__/*' -print0 \
                   | sort -z | xargs -0 -r sha1sum | sha1sum";
    own_command(machine, command, folder).ok()
}

/// The answer to a reply: a tool message for every call, else a user's.
fn addressed(next: Observation, reply: &Message) -> Observation {
    if reply.tool_calls.is_empty() {
        return next;
    }
    let text: Vec<_> = next
        .messages
        .iter()
        .map(|message| message.content.as_str())
        .collect();
    let text = text.join("\n");
    let answers = reply.tool_calls.iter().map(|call| {
        let mut answer = Message::new(Role::Tool, text.clone());
        answer.tool_call_id = Some(call.id.clone());
        answer.name = Some(call.name.clone());
        answer
    });
    let messages = answers.collect();
    Observation { messages, ..next }
}

impl<J: Jail> Episode for Attempt<J> {
    fn observe(&mut self) -> Result<Observation, Fault> {
        let rules = format!(
            "You fix a bug in a small repository in {}, on a Linux machine without a network. You have {} turns.\n\n{GRAMMAR}",
            self.task.folder(),
            self.limits.max_turns
        );
        Ok(Observation::new(vec![
            Message::new(Role::System, rules),
            Message::user(self.task.issue.clone()),
        ]))
    }

    fn act(&mut self, action: sdk::Action) -> Result<Step, Fault> {
        if self.over {
            return Err(Fault::InvalidInput("the episode is over".into()));
        }
        let read = action::read(&action.reply, action.finish);
        let next = match &read {
            Ok(action) => self.follow(action)?,
            Err(why) => {
                let said = Message::user(format!("error: {why}"));
                Observation::new(vec![said]).with_evidence("error", 1.0)
            }
        };
        self.turns += 1;
        self.outcome = None;
        let done = if read == Ok(Action::Submit) {
            Some(Done::Finished)
        } else {
            (self.turns >= self.limits.max_turns).then_some(Done::Truncated)
        };
        self.over = done.is_some();
        Ok(Step {
            next: addressed(next, &action.reply),
            done,
        })
    }

    fn outcome(&mut self) -> Result<Option<OutcomeScore>, Fault> {
        if self.turns == 0 {
            return Ok(None);
        }
        if self.outcome.is_none() {
            self.outcome = Some(self.score()?);
        }
        Ok(self.outcome.clone())
    }
}
