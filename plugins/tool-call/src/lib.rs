//! Multi-turn work with typed APIs, simulated inside the guest.
//!
//! A user asks for something, the model calls functions, and the hash of the API's state decides; see the README for families, format and
//! score. Start at [`episode`]: a [`task`] is drawn ([`draw`]) by one of the [`families`], played against one of the [`apis`], and weighed
//! by the [`oracle`]. What a model may write is in [`reader`], live traffic in [`traffic`]. Nothing here reaches outside: the APIs are state
//! machines in memory.

pub mod apis;
pub mod draw;
pub mod episode;
pub mod families;
pub mod oracle;
pub mod plan;
pub mod schema;
pub mod snapshot;
pub mod task;
pub mod traffic;
pub mod wire;

pub use calls::reader;

use sdk::{
    ActionKind, Capabilities, Environment, Fault, Line, Message, ModalityCard, Observation,
    ObservationKind, Request, Split, ToolSpec, Turn, config,
};

use crate::{
    draw::Style,
    episode::{Rules, Session},
    task::Choice,
    wire::ToolsIn,
};

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Environment for Plugin {
    type Episode = Session;

    fn describe() -> ModalityCard {
        let action = if tools_in() == Ok(ToolsIn::Card) {
            ActionKind::ToolCalls
        } else {
            ActionKind::Text
        };
        ModalityCard {
            name: "tool-call".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            action,
            observation: ObservationKind::Text,
            tools: card_tools(),
            capabilities: Capabilities::CONFIG,
        }
    }

    fn classify(request: Request) -> Result<Line, Fault> {
        Ok(traffic::classify(&request.messages))
    }

    fn next_state(turn: Turn, new_messages: Vec<Message>) -> Result<Option<Observation>, Fault> {
        Ok(traffic::next_state(&turn, new_messages))
    }

    fn tasks(split: Split) -> Result<Vec<String>, Fault> {
        let small = |key: &str| {
            let number = config::count(key)?;
            u32::try_from(number)
                .map_err(|_| Fault::InvalidConfig(format!("`{key}` is {number}: too large")))
        };
        let difficulty = small("difficulty")?;
        let choice = Choice {
            families: config::texts("families")?,
            difficulty: u8::try_from(difficulty).unwrap_or(u8::MAX),
            train: small("tasks-per-family")?,
            held_out: small("held-out-tasks")?,
        };
        task::ids(&choice, split)
    }

    fn start(task: String, seed: u32) -> Result<Session, Fault> {
        Session::start(&task, seed, rules()?)
    }

    fn restore(snapshot: Vec<u8>) -> Result<Session, Fault> {
        Session::restore(&snapshot, rules()?)
    }
}

fn tools_in() -> Result<ToolsIn, Fault> {
    match config::text("tools-in")?.as_str() {
        "message" => Ok(ToolsIn::Message),
        "system" => Ok(ToolsIn::System),
        "card" => Ok(ToolsIn::Card),
        other => Err(unusable("tools-in", other, "message, system or card")),
    }
}

fn rules() -> Result<Rules, Fault> {
    let style = match config::text("style")?.as_str() {
        "plain" => Style::Plain,
        "varied" => Style::Varied,
        other => return Err(unusable("style", other, "plain or varied")),
    };
    Ok(Rules {
        style,
        tools_in: tools_in()?,
        max_turns: config::count("max-turns")?.max(1),
        max_calls: config::count("max-calls")?.max(1),
        calls_per_reply: config::count("calls-per-reply")?.max(1),
        patience: config::count("patience")?.max(1),
        examples: config::count("examples")?,
    })
}

fn unusable(key: &str, value: &str, allowed: &str) -> Fault {
    Fault::InvalidConfig(format!("`{key}` is `{value}`, and it can be {allowed}"))
}

/// The tools that go with every request: those of the APIs that the chosen families need, where the config wants them in the card.
///
/// A host sends the card's tools with each request of every episode, so that a card with all of them would fill a small model's
/// context; in the other places an episode names only its own.
fn card_tools() -> Vec<ToolSpec> {
    let choice = Choice {
        families: config::texts("families").unwrap_or_default(),
        difficulty: 1,
        train: 1,
        held_out: 1,
    };
    let families = match (tools_in(), choice.families()) {
        (Ok(ToolsIn::Card), Ok(families)) => families,
        _ => return Vec::new(),
    };
    let used = |name: &str| families.iter().any(|family| family.api == name);
    let apis = apis::NAMES.iter().filter(|(name, _)| used(name));
    let functions = apis.flat_map(|(_, functions)| functions.iter());
    let spec = |function: &schema::Function| ToolSpec {
        name: function.name.into(),
        description: function.doc.into(),
        parameters_json_schema: function.json_schema().to_string(),
    };
    functions.map(spec).collect()
}

sdk::export_environment!(Plugin);

#[cfg(test)]
mod tests;
