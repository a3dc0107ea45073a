//! Conversations: reads the live traffic of chat clients, and hosts a scripted user with a hidden preference.
//!
//! Does not judge: the user only reacts, in words, as people do. The programmatic rule behind a persona is the episode's
//! oracle, for measuring; training goes by the words. Start at [`user`], then [`persona`] and [`text`]; live traffic is in
//! [`traffic`].

pub mod episode;
pub mod persona;
pub mod phrases;
pub mod questions;
pub mod text;
pub mod traffic;
pub mod user;

use sdk::{
    ActionKind, Capabilities, Environment, Fault, Line, Message, ModalityCard, Observation,
    ObservationKind, Request, Split, Turn, config,
};

use crate::{episode::Conversation, persona::Persona, user::Habits};

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Environment for Plugin {
    type Episode = Conversation;

    fn describe() -> ModalityCard {
        ModalityCard {
            name: "conversation".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            action: ActionKind::Text,
            observation: ObservationKind::Text,
            tools: Vec::new(),
            capabilities: Capabilities::CONFIG,
        }
    }

    fn classify(request: Request) -> Result<Line, Fault> {
        Ok(traffic::classify(&request.messages))
    }

    fn next_state(turn: Turn, new_messages: Vec<Message>) -> Result<Option<Observation>, Fault> {
        drop(turn);
        let messages = traffic::reactions(new_messages);
        Ok((!messages.is_empty()).then(|| Observation::new(messages)))
    }

    fn session_ends(messages: Vec<Message>) -> Result<bool, Fault> {
        Ok(traffic::ends(&messages))
    }

    fn tasks(split: Split) -> Result<Vec<String>, Fault> {
        let persona = Persona::parse(&config::text("persona")?)?;
        Ok(episode::tasks(persona, split, &habits()?))
    }

    fn start(task: String, seed: u32) -> Result<Conversation, Fault> {
        Conversation::start(&task, seed, habits()?)
    }

    fn restore(snapshot: Vec<u8>) -> Result<Conversation, Fault> {
        Conversation::restore(&snapshot, habits()?)
    }
}

fn habits() -> Result<Habits, Fault> {
    Ok(Habits {
        questions: config::count("questions")?.max(1),
        retry_chance: config::number("retry-chance")?,
    })
}

sdk::export_environment!(Plugin);
