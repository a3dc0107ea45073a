//! The trait of a judge plugin, and its bridge to the generated bindings.

use std::marker::PhantomData;

use crate::{
    Completion, Fault, Hint, Message, Observation, Prompt, Question, Turn, Vote,
    bindings::judge::exports::nextstate::plugin::judge as exports, log,
};

/// The prompts of the process reward model. See `wit/judge.wit` for what each function promises.
pub trait Judge: 'static {
    /// The evaluative question about a turn, or what the evidence alone decides about it.
    fn evaluate(turn: Turn, next: Observation) -> Result<Question, Fault>;

    /// Reads an answer; none means that the vote is absent, never that it is neutral.
    fn read_vote(
        turn: Turn,
        next: Observation,
        completion: Completion,
    ) -> Result<Option<Vote>, Fault>;

    /// The directive question. By default this judge gives no hints.
    fn ask_hint(turn: Turn, next: Observation) -> Result<Option<Prompt>, Fault> {
        let _ = (turn, next);
        Ok(None)
    }

    /// Reads an answer; none when no acceptable hint is in it.
    fn read_hint(
        turn: Turn,
        next: Observation,
        completion: Completion,
    ) -> Result<Option<Hint>, Fault> {
        let _ = (turn, next, completion);
        Ok(None)
    }

    /// Puts a hint into a turn's request, for the teacher.
    fn place_hint(messages: Vec<Message>, hint: Hint) -> Result<Vec<Message>, Fault> {
        let _ = (messages, hint);
        Err(Fault::Unsupported("place-hint".into()))
    }
}

/// The bridge from the generated bindings to [`Judge`].
#[doc(hidden)]
#[derive(Debug)]
pub struct Adapter<J>(PhantomData<J>);

impl<J: Judge> exports::Guest for Adapter<J> {
    fn evaluate(turn: Turn, next: Observation) -> Result<Question, Fault> {
        log::install_panic_hook();
        J::evaluate(turn, next)
    }

    fn read_vote(
        turn: Turn,
        next: Observation,
        completion: Completion,
    ) -> Result<Option<Vote>, Fault> {
        log::install_panic_hook();
        J::read_vote(turn, next, completion)
    }

    fn ask_hint(turn: Turn, next: Observation) -> Result<Option<Prompt>, Fault> {
        log::install_panic_hook();
        J::ask_hint(turn, next)
    }

    fn read_hint(
        turn: Turn,
        next: Observation,
        completion: Completion,
    ) -> Result<Option<Hint>, Fault> {
        log::install_panic_hook();
        J::read_hint(turn, next, completion)
    }

    fn place_hint(messages: Vec<Message>, hint: Hint) -> Result<Vec<Message>, Fault> {
        log::install_panic_hook();
        J::place_hint(messages, hint)
    }
}

/// Exports a type that implements [`Judge`] as this component's `judge`.
#[macro_export]
macro_rules! export_judge {
    ($plugin:ty) => {
        // The expansion holds `unsafe` functions with WebAssembly export names; natively there is nothing to export to.
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::JudgeAdapter<$plugin>;
    $crate::bindings::judge::export_world!(Exported with_types_in $crate::bindings::judge);
        };
    };
}
