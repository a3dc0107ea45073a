//! Tasks of an image: the model's calls are made by the image's own classes, and what came of them is compared with the right calls.
//!
//! A request is done when the state has the digest that the right calls lead to. For BFCL the results of the right calls must be among the model's,
//! as there; for tau2 the words must name what the user was to be told. Doing nothing is never right where calls were to be made.

use calls::reader::Call;
use sdk::Fault;

use crate::{
    driver::{Driver, Format, Made, Opened, Tool},
    jail::Jail,
    world::{Answer, Batch, Request, Script, User, World},
};

/// A task under way.
#[derive(Debug)]
pub struct Imported<J> {
    driver: Driver<J>,
    format: Format,
    opened: Opened,
    /// All calls, by request; the last is worked on.
    turns: Vec<Vec<Made>>,
    /// The digests of all results.
    results: Vec<String>,
    state: String,
    timeout_ms: u32,
}

const ENDING: &str = "When all is done, reply in words, without a call.";
const ENDING_AFTER_YES: &str = "Words without a call go to the user, who answers with a yes once; when all is done, or cannot be done, \
     say so in words.";

impl<J: Jail> Imported<J> {
    /// Begins a task of an image.
    ///
    /// # Errors
    /// `invalid-config` for an image or a task that cannot be used.
    pub fn start(
        image: &str,
        format: Format,
        task: &str,
        timeout_ms: u32,
    ) -> Result<(Script, Self), Fault> {
        let driver: Driver<J> = Driver::create(image, format)?;
        let opened = driver.open(task)?;
        let script = Script {
            policy: opened.policy.clone(),
            requests: requests(&opened),
            user: match format {
                Format::Bfcl => User::Asks,
                Format::Tau2 => User::Confirms,
            },
            ending: match format {
                Format::Bfcl => ENDING,
                Format::Tau2 => ENDING_AFTER_YES,
            },
        };
        let world = Self {
            driver,
            format,
            state: opened.start.clone(),
            opened,
            turns: vec![Vec::new()],
            results: Vec::new(),
            timeout_ms,
        };
        Ok((script, world))
    }

    /// The right calls, by request.
    pub fn reference(&self) -> &[Vec<Made>] {
        &self.opened.reference
    }
}

/// The requests, each with the tools that are new with it.
fn requests(opened: &Opened) -> Vec<Request> {
    let first_at = |tool: &Tool| {
        let holds = |(_, names): &(&usize, &Vec<String>)| names.contains(&tool.name);
        opened.withheld.iter().find(holds).map_or(0, |(at, _)| *at)
    };
    let words = opened.requests.iter().enumerate();
    words
        .map(|(at, words)| {
            let tools = opened.tools.iter().filter(|tool| first_at(tool) == at);
            Request {
                words: words.clone(),
                tools: tools.cloned().collect(),
            }
        })
        .collect()
}

impl<J: Jail> World for Imported<J> {
    fn make(&mut self, calls: &[Call]) -> Result<Batch, Fault> {
        let before: usize = self.turns.iter().map(Vec::len).sum();
        let made = calls.iter().map(|call| Made {
            name: call.name.clone(),
            arguments: call.arguments.clone(),
        });
        let mut turns = self.turns.clone();
        if let Some(turn) = turns.last_mut() {
            turn.extend(made);
        }
        let setup = &self.opened.setup;
        let played = self.driver.play(setup, &turns, before, self.timeout_ms)?;
        let Some(played) = played.filter(|played| played.results.len() == calls.len()) else {
            // It has not happened: calls that never end would otherwise be made again with every call that follows.
            let why = "this took too long or too much memory, and nothing was done";
            return Ok(Batch {
                answers: vec![Answer::refused(why); calls.len()],
                changed: Some(false),
            });
        };
        self.turns = turns;
        let changed = Some(played.state != self.state);
        self.state = played.state;
        self.results
            .extend(played.results.iter().map(|told| told.digest.clone()));
        let answer = |told: crate::driver::Told| Answer {
            text: told.text,
            failed: told.failed,
        };
        let answers = played.results.into_iter().map(answer).collect();
        Ok(Batch { answers, changed })
    }

    fn end(&mut self, said: &[String]) -> bool {
        let at = self.turns.len() - 1;
        let made = self.turns.last().is_some_and(|turn| !turn.is_empty());
        self.turns.push(Vec::new());
        let right = &self.opened.right;
        let (Some(reference), Some(state), Some(results)) = (
            self.opened.reference.get(at),
            right.states.get(at),
            right.results.get(at),
        ) else {
            return false;
        };
        match self.format {
            // Nothing is to be done yet: what is done all the same shows in the state of the next request.
            Format::Bfcl if reference.is_empty() => true,
            Format::Bfcl => made && self.state == *state && among(results, &self.results),
            Format::Tau2 => {
                let worked = made || reference.is_empty();
                worked && self.state == *state && named(&self.opened.communicate, said)
            }
        }
    }
}

/// Whether all of `needed` are there, as often as they are needed.
fn among(needed: &[String], there: &[String]) -> bool {
    let mut left: Vec<_> = there.iter().collect();
    needed.iter().all(|wanted| {
        let place = left.iter().position(|one| *one == wanted);
        place.map(|at| left.swap_remove(at)).is_some()
    })
}

/// Whether each text is part of something that was said; commas in what was said do not count, nor does the case.
fn named(needed: &[String], said: &[String]) -> bool {
    let said: Vec<_> = said
        .iter()
        .map(|words| words.to_lowercase().replace(',', ""))
        .collect();
    needed
        .iter()
        .map(|info| info.to_lowercase())
        .all(|info| said.iter().any(|words| words.contains(&info)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn results_count_as_often_as_they_came_and_in_any_order() {
        let there = texts(&["b", "a", "b"]);
        for (needed, is) in [
            (texts(&[]), true),
            (texts(&["a", "b"]), true),
            (texts(&["b", "b", "a"]), true),
            (texts(&["a", "a"]), false),
            (texts(&["c"]), false),
        ] {
            assert_eq!(among(&needed, &there), is, "{needed:?}");
        }
    }

    #[test]
    fn what_the_user_was_to_be_told_may_be_in_any_reply_with_or_without_commas() {
        let said = texts(&["Your refund is $1,234.50.", "All DONE."]);
        assert!(named(&texts(&["1234.50", "done"]), &said));
        assert!(!named(&texts(&["1234.51"]), &said));
        assert!(named(&[], &[]));
    }
}
