//! One attempt at one task on a machine of its own.
//!
//! Thin on purpose: it asks the machine and puts the answers together. What a reply means is [`action`]'s, what is
//! shown [`screen`]'s, what is right [`task`](crate::task)'s; what is counted is [`Progress`], which knows no machine. There
//! is no snapshot: after a restart the host replays the actions, on a fresh machine.

use sdk::{
    Action, Done, Episode, Fault, Message, NamedValue, Observation, OutcomeScore, Role, Step, log,
    shell::{Ending, Machine, Output},
};

use crate::{
    action::{self, Intent, Problem},
    families,
    screen::{self, Report},
    task::{ENVIRONMENT, Task, Verdict},
    traffic::flag,
    world::quote,
};

/// The config of an episode; see `plugin.toml`.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Replies after which it is over.
    pub max_turns: usize,
    /// Milliseconds that a command may take.
    pub command_ms: u32,
    /// Most characters of an output that are shown.
    pub output_chars: usize,
    /// Whether the check runs after each command, and ends the episode when it passes.
    pub end_when_solved: bool,
    /// Whether the evidence says if `/work` changed.
    pub watch_changes: bool,
    /// Solved tasks that are shown before the task.
    pub examples: usize,
}

/// What the model is told before the task.
pub const INSTRUCTION: &str = "You work in a bash shell on a Linux machine, in the folder /work. \
Reply with one command in a ```bash block and you are shown what it prints. Paths of the task begin there. When the task is done, reply with the word done.";

/// Snapshots that a machine keeps at most.
const SNAPSHOTS: usize = 16;

/// Time of a setup, and of a check, in milliseconds: both are ours, and short.
const OWN_MS: u32 = 30_000;

/// Where shells begin, before they go to where they belong. Not `/work`: a model that closes it can still open it again.
const SHELL_FOLDER: &str = "/tmp";

/// Where a command leaves the name of the folder that it ended in. Only the next command goes by it, never the check.
const FOLDER_FILE: &str = "/tmp/.folder";

/// What is counted of an episode.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Progress {
    turns: usize,
    commands: usize,
    errors: usize,
    misread: usize,
    done_said: bool,
    over: bool,
    last_command: Option<String>,
    /// What the check said; none since the last command.
    verdict: Option<Verdict>,
}

impl Progress {
    /// Notes a command and says whether it is the one before it, again.
    fn begin_command(&mut self, command: &str) -> bool {
        self.commands += 1;
        self.verdict = None;
        let repeated = self.last_command.as_deref() == Some(command);
        self.last_command = Some(command.to_owned());
        repeated
    }

    /// Why the episode is over after this turn, if it is.
    fn ending(&self, rules: &Rules) -> Option<Done> {
        let solved = self.verdict.is_some_and(|verdict| verdict.solved);
        if self.done_said || (rules.end_when_solved && solved) {
            Some(Done::Finished)
        } else if self.turns >= rules.max_turns {
            Some(Done::Truncated)
        } else {
            None
        }
    }

    /// The score by a verdict.
    fn outcome(&self, verdict: Verdict) -> OutcomeScore {
        // Turns are at most 100.
        let number = |count: usize| u32::try_from(count).map_or(0.0, f64::from);
        let valid = 1.0 - number(self.misread) / number(self.turns).max(1.0);
        let metrics = [
            ("solved", flag(verdict.solved)),
            ("commands", number(self.commands)),
            ("errors", number(self.errors)),
            ("format-valid", valid),
            ("turns", number(self.turns)),
            ("done-said", flag(self.done_said)),
        ];
        OutcomeScore {
            value: verdict.value,
            metrics: metrics
                .map(|(name, value)| NamedValue::new(name, value))
                .into(),
        }
    }
}

/// An episode.
#[derive(Debug)]
pub struct Terminal {
    rules: Rules,
    task: Task,
    /// What the model is shown before the task.
    examples: String,
    machine: Machine,
    folder: String,
    progress: Progress,
    /// The newest snapshot and how many there are; none when nobody watches.
    watched: Option<(u32, usize)>,
}

/// What a turn leads to.
struct Seen {
    text: String,
    evidence: Vec<(&'static str, f64)>,
}

impl Terminal {
    /// Makes a machine and sets the task up on it.
    ///
    /// # Errors
    /// `invalid-input` for a task that does not exist; what the host says when there is no machine; `internal` when the setup fails.
    pub fn start(id: &str, rules: Rules) -> Result<Self, Fault> {
        let task = families::task(id)?;
        let examples = examples(id, rules.examples)?;
        let machine = Machine::create("empty")?;
        let output = machine.run(&task.setup(), "/work", OWN_MS)?;
        if !output.succeeded() {
            return Err(Fault::Internal(format!(
                "failed to set up the task `{id}`: {}",
                screen::render(&output, OWN_MS, 500)
            )));
        }
        let watched = if rules.watch_changes {
            Some((machine.snapshot()?, 1))
        } else {
            None
        };
        Ok(Self {
            rules,
            task,
            examples,
            machine,
            folder: "/work".to_owned(),
            progress: Progress::default(),
            watched,
        })
    }

    fn command(&mut self, command: &str) -> Result<Seen, Fault> {
        let repeated = self.progress.begin_command(command);
        let wrapped = wrapped(command, &self.folder);
        let output = self
            .machine
            .run(&wrapped, SHELL_FOLDER, self.rules.command_ms)?;
        self.folder = folder(self.machine.read_file(FOLDER_FILE).ok().flatten());
        let report = Report::of(output.ending);
        let failed = report.failed == Some(true);
        self.progress.errors += usize::from(failed);
        let mut evidence = vec![("error", flag(failed)), ("repeated", flag(repeated))];
        if let Some(code) = report.exit_code {
            evidence.push(("exit-code", f64::from(code)));
        }
        if let Some(changed) = self.changed() {
            evidence.push(("changed", flag(changed)));
        }
        let text = screen::render(&output, self.rules.command_ms, self.rules.output_chars);
        Ok(Seen { text, evidence })
    }

    /// Whether `/work` is another than after the command before; none when nobody watches. A machine that cannot say so costs the evidence,
    /// not the episode.
    fn changed(&mut self) -> Option<bool> {
        let (since, count) = self.watched?;
        let changed = match self.machine.changes(since) {
            Ok(changes) => !changes.is_empty(),
            Err(fault) => return self.unwatch(&fault),
        };
        if changed && count >= SNAPSHOTS {
            self.watched = None;
        } else if changed {
            match self.machine.snapshot() {
                Ok(snapshot) => self.watched = Some((snapshot, count + 1)),
                Err(fault) => return self.unwatch(&fault),
            }
        }
        Some(changed)
    }

    fn unwatch(&mut self, fault: &Fault) -> Option<bool> {
        log::warn(&format!(
            "failed to compare /work: {}; `changed` is left out from here on",
            fault.text()
        ));
        self.watched = None;
        None
    }

    /// What the check says of the state as it is.
    fn verdict(&mut self) -> Result<Verdict, Fault> {
        if let Some(verdict) = self.progress.verdict {
            return Ok(verdict);
        }
        let verdict = match self.machine.run(&self.task.check(), SHELL_FOLDER, OWN_MS) {
            Ok(output) => judged(&self.task, &output),
            // Attack: a folder that nobody can enter any more, so that there is no verdict.
            Err(Fault::InvalidInput(_)) => Verdict::default(),
            Err(fault) => return Err(fault),
        };
        self.progress.verdict = Some(verdict);
        Ok(verdict)
    }
}

/// Tasks of the same kind with their reference solutions, ready to stand before a task; nothing when none are wanted.
fn examples(id: &str, count: usize) -> Result<String, Fault> {
    use std::fmt::Write as _;

    let mut shown = String::new();
    for task in families::alike(id, count)? {
        let solution = task.solution.join("\n");
        // Writing to a text cannot fail.
        let _ = write!(shown, "{}\n```bash\n{solution}\n```\n\n", task.prompt);
    }
    Ok(shown)
}

/// A check that was cut or broke off is no solution.
fn judged(task: &Task, output: &Output) -> Verdict {
    if output.ending == Ending::Exited(0) && !output.cut {
        task.judge(&output.stdout)
    } else {
        Verdict::default()
    }
}

impl Episode for Terminal {
    fn observe(&mut self) -> Result<Observation, Fault> {
        Ok(Observation::new(vec![
            Message::new(Role::System, INSTRUCTION),
            Message::user(format!("{}{}", self.examples, self.task.prompt)),
        ]))
    }

    fn act(&mut self, action: Action) -> Result<Step, Fault> {
        if self.progress.over {
            return Err(Fault::InvalidInput("the episode is over".into()));
        }
        let intent = action::read(&action);
        let seen = match &intent {
            Ok(Intent::Run(command)) => Some(self.command(command)?),
            Ok(Intent::Done) => None,
            Err(problem) => Some(misread(*problem)),
        };
        self.progress.turns += 1;
        self.progress.misread += usize::from(intent.is_err());
        self.progress.done_said = intent == Ok(Intent::Done);
        if self.rules.end_when_solved && matches!(intent, Ok(Intent::Run(_))) {
            self.verdict()?;
        }
        let done = self.progress.ending(&self.rules);
        self.progress.over = done.is_some();
        let mut seen = seen.unwrap_or_else(|| Seen {
            text: String::new(),
            evidence: Vec::new(),
        });
        if done.is_some() {
            let solved = self.verdict()?.solved;
            let word = if solved {
                "the task is solved"
            } else {
                "the task is not solved"
            };
            let line = if seen.text.is_empty() { "" } else { "\n" };
            seen.text = format!("{}{line}{word}", seen.text);
            seen.evidence.push(("solved", flag(solved)));
        }
        let mut next = Observation::new(messages(&action.reply, seen.text));
        for (name, value) in seen.evidence {
            next = next.with_evidence(name, value);
        }
        Ok(Step { next, done })
    }

    fn outcome(&mut self) -> Result<Option<OutcomeScore>, Fault> {
        if self.progress.turns == 0 {
            return Ok(None);
        }
        let verdict = self.verdict()?;
        Ok(Some(self.progress.outcome(verdict)))
    }
}

fn misread(problem: Problem) -> Seen {
    let text = format!(
        "format error: {}. Reply with one command in a ```bash block, or with the word done.",
        problem.text()
    );
    Seen {
        text,
        evidence: vec![("error", 1.0)],
    }
}

/// A result for each call, or a user's message after a reply without calls.
fn messages(reply: &Message, text: String) -> Vec<Message> {
    if reply.tool_calls.is_empty() {
        return vec![Message::user(text)];
    }
    let mut texts = vec![text];
    texts.resize(
        reply.tool_calls.len(),
        "not run: only the first call of a reply is".to_owned(),
    );
    let calls = reply.tool_calls.iter().zip(texts);
    calls
        .map(|(call, text)| Message {
            tool_call_id: Some(call.id.clone()),
            name: Some(call.name.clone()),
            ..Message::new(Role::Tool, text)
        })
        .collect()
}

/// The command as the machine runs it: in the folder of the command before, which is noted again when the shell ends, whichever way.
fn wrapped(command: &str, folder: &str) -> String {
    format!(
        "umask 022; exec </dev/null; {ENVIRONMENT}; cd {} 2>/dev/null || cd /work; trap 'pwd -P >{FOLDER_FILE}' EXIT; eval {}",
        quote(folder),
        quote(command)
    )
}

/// The folder that a command left, if that is a name of one; a command may have written anything there.
fn folder(noted: Option<Vec<u8>>) -> String {
    let noted = noted.and_then(|noted| String::from_utf8(noted).ok());
    let path = noted.as_deref().map(|noted| noted.trim_end_matches('\n'));
    let fits = |path: &&str| path.starts_with('/') && path.len() <= 4096 && !path.contains('\0');
    path.filter(fits).unwrap_or("/work").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_other_training_tasks_with_their_solutions_and_never_the_task_itself() {
        let check = |id: &str| {
            let own = families::task(id).unwrap();
            let shown = examples(id, 3).unwrap();
            assert_eq!(shown.matches("```bash\n").count(), 3, "{shown}");
            assert!(!shown.contains(&own.prompt), "{shown}");
            assert_eq!(shown, examples(id, 3).unwrap());
        };
        check("make-file/1/0");
        check("make-file/1/999");
        check("make-file/1/1000");
        assert_eq!(examples("make-file/1/0", 0).unwrap(), "");
    }

    const RULES: Rules = Rules {
        examples: 0,
        max_turns: 3,
        command_ms: 1000,
        output_chars: 100,
        end_when_solved: true,
        watch_changes: false,
    };

    fn solved() -> Option<Verdict> {
        Some(Verdict {
            solved: true,
            value: 1.0,
            parts: 1,
        })
    }

    #[test]
    fn an_episode_ends_when_done_is_said_when_it_is_solved_or_when_turns_run_out() {
        let mut progress = Progress {
            turns: 2,
            ..Progress::default()
        };
        assert_eq!(progress.ending(&RULES), None);
        progress.verdict = solved();
        assert_eq!(progress.ending(&RULES), Some(Done::Finished));
        let patient = Rules {
            end_when_solved: false,
            ..RULES
        };
        assert_eq!(progress.ending(&patient), None);
        progress.turns = 3;
        assert_eq!(progress.ending(&patient), Some(Done::Truncated));
        progress.done_said = true;
        assert_eq!(progress.ending(&patient), Some(Done::Finished));
    }

    #[test]
    fn a_command_makes_the_last_verdict_void_and_knows_its_own_repetition() {
        let mut progress = Progress {
            verdict: solved(),
            ..Progress::default()
        };
        assert!(!progress.begin_command("ls"));
        assert_eq!(progress.verdict, None);
        assert!(progress.begin_command("ls"));
        assert!(!progress.begin_command("ls -a"));
    }

    #[test]
    fn the_score_is_the_verdicts_and_the_metrics_count_what_happened() {
        let progress = Progress {
            turns: 4,
            commands: 3,
            errors: 1,
            misread: 1,
            ..Progress::default()
        };
        let outcome = progress.outcome(Verdict {
            solved: false,
            value: 0.25,
            parts: 1,
        });
        let metric = |name: &str| {
            outcome
                .metrics
                .iter()
                .find(|metric| metric.name == name)
                .unwrap()
                .value
        };
        assert_eq!(outcome.value, 0.25);
        let names = [
            "solved",
            "commands",
            "errors",
            "format-valid",
            "turns",
            "done-said",
        ];
        assert_eq!(names.map(metric), [0.0, 3.0, 1.0, 0.75, 4.0, 0.0]);
    }

    #[test]
    fn a_noted_folder_that_is_none_leads_back_to_work() {
        let check = |noted: Option<&[u8]>, expected| {
            assert_eq!(folder(noted.map(<[u8]>::to_vec)), expected);
        };
        check(Some(b"/work/a b\n"), "/work/a b");
        check(None, "/work");
        check(Some(b""), "/work");
        check(Some(b"a; rm -r ."), "/work");
        check(Some(b"/\xff"), "/work");
    }

    #[test]
    fn every_call_of_a_reply_gets_a_result() {
        let mut reply = Message::new(Role::Assistant, "");
        for id in ["1", "2"] {
            reply.tool_calls.push(sdk::ToolCall {
                id: id.into(),
                name: "run".into(),
                arguments_json: "{}".into(),
            });
        }
        let results = messages(&reply, "exit code: 0".into());
        let ids: Vec<_> = results
            .iter()
            .map(|result| result.tool_call_id.as_deref())
            .collect();
        assert_eq!(ids, [Some("1"), Some("2")]);
        assert_eq!(results[0].content, "exit code: 0");
        assert!(results[1].content.starts_with("not run"));
    }
}
