//! Conversations: reads the live traffic of chat clients, and hosts users with a hidden preference, scripted or with a model's words.
//!
//! Does not judge: the user only reacts, in words, as people do. The programmatic rule behind a persona is the episode's
//! oracle, for measuring; training goes by the words. Start at [`user`], then [`persona`] and [`text`], [`cast`] for who speaks when,
//! [`speech`] for a model's words; live traffic is in [`traffic`].

pub mod cast;
pub mod episode;
pub mod homework;
pub mod persona;
pub mod phrases;
pub mod questions;
pub mod speech;
pub mod taste;
pub mod text;
pub mod traffic;
pub mod user;

use sdk::{
    ActionKind, Capabilities, Environment, Fault, Line, Message, ModalityCard, Observation,
    ObservationKind, Request, Split, Turn, config,
};

use crate::{cast::Cast, episode::Conversation, user::Habits};

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
            capabilities: Capabilities::CONFIG | Capabilities::MODEL,
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
        let [persona, change, to] = ["persona", "change", "change-to"].map(config::text);
        let change = change?;
        let habits = habits()?;
        if change != "none" && habits.change_after >= habits.questions {
            let why =
                "`change-after` leaves no question after the change: `questions` must be more";
            return Err(Fault::InvalidConfig(why.into()));
        }
        let cast = Cast::new(&persona?, &change, &to?)?;
        Ok(episode::tasks(cast, split, &habits))
    }

    fn start(task: String, seed: u32) -> Result<Conversation, Fault> {
        Conversation::start(&task, seed, &habits()?)
    }

    fn restore(snapshot: Vec<u8>) -> Result<Conversation, Fault> {
        Conversation::restore(&snapshot, &habits()?)
    }
}

fn habits() -> Result<Habits, Fault> {
    Ok(Habits {
        questions: config::count("questions")?.max(1),
        retry_chance: config::number("retry-chance")?,
        change_after: config::count("change-after")?,
        model: match config::text("user")?.as_str() {
            "model" => Some(config::text("user-model")?),
            _ => None,
        },
    })
}

sdk::export_environment!(Plugin);
