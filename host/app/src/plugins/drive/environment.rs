//! An environment's calls: live requests of several kinds, and episodes of its first tasks with made-up replies.

use rl::{
    Action, Environment, Message, RequestView, Role, Seed, TaskId, ToolSpec, seam::conformance,
};

use super::{Transcript, quoted};

/// Tasks of each split that are played, and most replies in each.
const TASKS: usize = 2;
const REPLIES: usize = 12;
const ACTIONS: [&str; 3] = [
    "I think it is 7.",
    "Let me think about that step by step, then answer.",
    "",
];

pub(super) fn drive(environment: &dyn Environment, transcript: &mut Transcript) {
    live(environment, transcript);
    for split in ["train", "held-out"] {
        let tasks = environment.tasks(split);
        let tasks = transcript.note("tasks", split, tasks, |tasks| {
            let first: Vec<&str> = tasks.iter().take(3).map(TaskId::as_str).collect();
            let more = if tasks.len() > first.len() {
                " …"
            } else {
                ""
            };
            format!("{} tasks: {}{more}", tasks.len(), first.join(", "))
        });
        for task in tasks.iter().flatten().take(TASKS) {
            play(environment, task, transcript);
        }
    }
    let unknown = environment.start(&"no such task".into(), Seed::new(1));
    transcript.must_refuse("start", "an unknown task", unknown.map(drop));
}

fn live(environment: &dyn Environment, transcript: &mut Transcript) {
    let tool = ToolSpec {
        name: "search".to_owned(),
        description: "Searches.".to_owned(),
        parameters: r#"{"type": "object"}"#.to_owned(),
    };
    let requests = [
        (
            "a question",
            vec![Message::user("How do I boil an egg?")],
            vec![],
        ),
        (
            "a question with tools",
            vec![Message::user("Find a recipe.")],
            vec![tool],
        ),
        (
            "a request for a title",
            vec![
                Message::new(
                    Role::System,
                    "Generate a short title for this conversation.",
                ),
                Message::user("How do I boil an egg?"),
            ],
            vec![],
        ),
        ("no messages", vec![], vec![]),
    ];
    for (given, messages, tools) in &requests {
        let view = RequestView { messages, tools };
        let line = environment.classify(view);
        transcript.note("classify", *given, line, |line| {
            format!("{line:?}").to_lowercase()
        });
    }
    let turn = conformance::turn("How do I boil an egg?", "In water.");
    let followed = [
        ("the user's reply", vec![Message::user("Thanks.")]),
        (
            "a tool's result",
            vec![Message::new(Role::Tool, "3 recipes found")],
        ),
        ("nothing", vec![]),
    ];
    for (given, messages) in &followed {
        let next = environment.next_state(&turn, messages);
        transcript.note("next-state", *given, next, |next| {
            next.as_ref()
                .map_or("no next state".to_owned(), |next| quoted(&next.text))
        });
        let ends = environment.session_ends(messages);
        transcript.note("session-ends", *given, ends, bool::to_string);
    }
}

fn play(environment: &dyn Environment, task: &TaskId, transcript: &mut Transcript) {
    let started = environment.start(task, Seed::new(7));
    let given = format!("task {task}, seed 7");
    let Some(mut episode) = transcript.note("start", given, started, |_| "an episode".to_owned())
    else {
        return;
    };
    let says = |messages: &[Message]| {
        let all: Vec<&str> = messages.iter().map(|message| &*message.content).collect();
        quoted(&all.join("\n"))
    };
    transcript.note("observe", task.as_str(), episode.observe(), |seen| {
        says(&seen.messages)
    });
    let mut over = false;
    for reply in ACTIONS.iter().cycle().take(REPLIES) {
        let action = Action {
            message: Message::assistant(*reply),
            truncated: false,
        };
        let step = transcript.note("act", quoted(reply), episode.act(&action), |step| {
            let done = step
                .done
                .map_or(String::new(), |done| format!(", and ends: {done:?}"));
            format!(
                "{}{}",
                says(&step.observation.messages),
                done.to_lowercase()
            )
        });
        let Some(step) = step else { return };
        if step.done.is_some() {
            over = true;
            transcript.must_refuse("act", "after the end", episode.act(&action));
            break;
        }
    }
    transcript.note("outcome", task.as_str(), episode.outcome(), |outcome| {
        outcome.as_ref().map_or("no oracle".to_owned(), |outcome| {
            let metrics: Vec<String> = outcome
                .metrics
                .iter()
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            format!("score {} {}", outcome.score, metrics.join(", "))
                .trim_end()
                .to_owned()
        })
    });
    if !over {
        transcript.note("snapshot", task.as_str(), episode.snapshot(), |bytes| {
            bytes
                .as_ref()
                .map_or("offers none: actions are replayed".to_owned(), |bytes| {
                    format!("{} bytes", bytes.len())
                })
        });
    }
}
