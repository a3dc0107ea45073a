//! Judges one action of an agent by what came back: in a terminal, a repository, on a page, with tools.
//!
//! The environment's numbers come first: where they are clear no model is asked. Else a few-shot prompt without a chat template, read
//! by constrained choice, shows the task, a bounded piece of history, the action, all of what came back, and the numbers in words of
//! ours. People's reactions to replies are `reaction-judge`'s business. Start at [`evidence`], then [`scene`] and [`vote`];
//! `data/steps.jsonl` holds labelled actions.

pub mod evidence;
pub mod hint;
pub mod outside;
pub mod scene;
pub mod vote;

use sdk::{
    Completion, Fault, Finish, Hint, Judge, Message, Observation, Prompt, Question, Turn, Vote,
    answers, config,
};

use crate::evidence::{Clarity, Evidence};

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Judge for Plugin {
    fn evaluate(turn: Turn, next: Observation) -> Result<Question, Fault> {
        if !is_judged(&turn, &next) {
            return Ok(Question::Skip);
        }
        if config::boolean("decide-by-evidence")? {
            let evidence = Evidence::of(&next);
            if let Some(sign) = evidence.decide(Clarity::configured()?) {
                return Ok(Question::Decided(Vote { sign, score: None }));
            }
        }
        Ok(Question::Ask(vote::ask(&turn, &next)?))
    }

    fn read_vote(_: Turn, _: Observation, completion: Completion) -> Result<Option<Vote>, Fault> {
        vote::read(&completion)
    }

    fn ask_hint(turn: Turn, next: Observation) -> Result<Option<Prompt>, Fault> {
        if config::text("hint-mode")? == "off" || !is_judged(&turn, &next) {
            return Ok(None);
        }
        hint::ask(&next)
    }

    fn read_hint(_: Turn, _: Observation, completion: Completion) -> Result<Option<Hint>, Fault> {
        hint::read(&completion)
    }

    fn place_hint(messages: Vec<Message>, hint: Hint) -> Result<Vec<Message>, Fault> {
        answers::place_hint(messages, &hint, &config::text("hint-heading")?)
    }
}

/// Whether there is an action to judge, and something to judge it by. A reply that was cut off is not finished, and an error that
/// follows it says nothing about what it would have been.
fn is_judged(turn: &Turn, next: &Observation) -> bool {
    let is_whole = !matches!(turn.finish, Finish::Length | Finish::Cancelled);
    is_whole && !(next.messages.is_empty() && next.evidence.is_empty())
}

sdk::export_judge!(Plugin);
