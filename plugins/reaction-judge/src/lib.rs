//! Reads a person's reaction with a small model: was the reply good, and how should it have been different?
//!
//! Few-shot prompts without a chat template, read by constrained choice: a model of 135 million parameters follows examples, not
//! instructions. Every example, threshold and bias is config, since they belong to a model and not to the method. Outside text is
//! cut, put on one line, and enclosed by a random word. Start at [`vote`], then [`hint`]; `data/reactions.jsonl` measures both.

pub mod choose;
pub mod hint;
pub mod outside;
pub mod vote;

use sdk::{
    Completion, Fault, Hint, Judge, Message, Observation, Prompt, Question, Turn, Vote, answers,
    config,
};

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Judge for Plugin {
    fn evaluate(turn: Turn, next: Observation) -> Result<Question, Fault> {
        Ok(vote::ask(&turn, &next)?.into())
    }

    fn read_vote(_: Turn, _: Observation, completion: Completion) -> Result<Option<Vote>, Fault> {
        vote::read(&completion)
    }

    fn ask_hint(turn: Turn, next: Observation) -> Result<Option<Prompt>, Fault> {
        match config::text("hint-mode")?.as_str() {
            "off" => Ok(None),
            "choose" => choose::ask(&next),
            "quote" => vote::ask(&turn, &next),
            _ => hint::ask_what(&next),
        }
    }

    fn read_hint(
        _: Turn,
        next: Observation,
        completion: Completion,
    ) -> Result<Option<Hint>, Fault> {
        match config::text("hint-mode")?.as_str() {
            "choose" => choose::read(&completion),
            "quote" => hint::quote(&next, &completion),
            _ => hint::read(&next, &completion),
        }
    }

    fn place_hint(messages: Vec<Message>, hint: Hint) -> Result<Vec<Message>, Fault> {
        answers::place_hint(messages, &hint, &config::text("hint-heading")?)
    }
}

sdk::export_judge!(Plugin);
