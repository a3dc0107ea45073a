//! The terminal: episodes on a jailed machine, and the live traffic of terminal agents.
//!
//! The model writes one command a turn, sees what it printed, and says when it is done. A check of the machine's state decides; text never
//! does. Does not judge turns. Start at [`episode`]; a task is in [`task`], the kinds of tasks in [`families`]; what the model may
//! write is in [`action`], what it is shown in [`screen`]; live traffic is in [`traffic`].

pub mod action;
mod check;
pub mod draw;
pub mod episode;
pub mod families;
pub mod screen;
pub mod task;
pub mod traffic;
pub mod world;

use sdk::{
    ActionKind, Capabilities, Environment, Fault, Line, Message, ModalityCard, Observation,
    ObservationKind, Request, Split, Turn, config,
};

use crate::{
    episode::{Rules, Terminal},
    families::Listing,
};

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Environment for Plugin {
    type Episode = Terminal;

    fn describe() -> ModalityCard {
        ModalityCard {
            name: "terminal".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            action: ActionKind::Text,
            observation: ObservationKind::Text,
            tools: action::tools(),
            capabilities: Capabilities::CONFIG | Capabilities::SHELL,
        }
    }

    fn classify(request: Request) -> Result<Line, Fault> {
        Ok(traffic::classify(&request.messages))
    }

    fn next_state(turn: Turn, new_messages: Vec<Message>) -> Result<Option<Observation>, Fault> {
        Ok(traffic::next_state(&turn, new_messages))
    }

    fn session_ends(messages: Vec<Message>) -> Result<bool, Fault> {
        Ok(traffic::ends(&messages))
    }

    fn tasks(split: Split) -> Result<Vec<String>, Fault> {
        let count = match split {
            Split::Train => "tasks",
            Split::HeldOut => "held-out-tasks",
        };
        let listing = Listing {
            families: config::texts("families")?,
            difficulty: config::count("difficulty")?,
            count: config::count(count)?,
        };
        listing.ids(split)
    }

    fn start(task: String, seed: u32) -> Result<Terminal, Fault> {
        // The number in a task's id draws it: attempts at one task differ in nothing but what the model does.
        let _ = seed;
        Terminal::start(&task, rules()?)
    }
}

fn rules() -> Result<Rules, Fault> {
    Ok(Rules {
        max_turns: config::count("max-turns")?,
        command_ms: 1000 * u32::try_from(config::integer("command-seconds")?).unwrap_or(1),
        output_chars: config::count("output-chars")?,
        end_when_solved: config::boolean("end-when-solved")?,
        watch_changes: config::boolean("watch-changes")?,
        examples: config::count("examples")?,
    })
}

sdk::export_environment!(Plugin);
