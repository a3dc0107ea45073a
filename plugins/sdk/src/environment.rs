//! The trait of an environment plugin, and its bridge to the generated bindings.
//!
//! Not the live-traffic rules of any client: the defaults here suit a plugin that only hosts episodes.

use std::{cell::RefCell, marker::PhantomData};

use crate::{
    Action, Fault, Line, Message, ModalityCard, Observation, OutcomeScore, Request, Role, Split,
    Step, Turn, bindings::environment::exports::nextstate::plugin::environment as exports, log,
};

/// A modality. See `wit/environment.wit` for what each function promises.
pub trait Environment: 'static {
    /// One attempt at one task; [`NoEpisodes`] for a plugin that only reads live traffic.
    type Episode: Episode;

    /// What this plugin is.
    fn describe() -> ModalityCard;

    /// Which line a request is on. By default this plugin cannot tell.
    fn classify(request: Request) -> Result<Line, Fault> {
        drop(request);
        Ok(Line::Unknown)
    }

    /// What reacts to a turn. By default every new message that is not the policy's own.
    fn next_state(turn: Turn, new_messages: Vec<Message>) -> Result<Option<Observation>, Fault> {
        drop(turn);
        let reacts = |message: &Message| matches!(message.role, Role::User | Role::Tool);
        let messages: Vec<_> = new_messages.into_iter().filter(reacts).collect();
        Ok((!messages.is_empty()).then(|| Observation::new(messages)))
    }

    /// Whether the session is over. By default only a header or a time-out ends it.
    fn session_ends(messages: Vec<Message>) -> Result<bool, Fault> {
        drop(messages);
        Ok(false)
    }

    /// The ids of the hosted tasks. By default there are none.
    fn tasks(split: Split) -> Result<Vec<String>, Fault> {
        let _ = split;
        Ok(Vec::new())
    }

    /// Begins a task. By default there is none to begin.
    fn start(task: String, seed: u32) -> Result<Self::Episode, Fault> {
        let _ = seed;
        Err(Fault::InvalidInput(format!("no task `{task}`")))
    }

    /// Goes on from a snapshot. By default the host replays the actions instead.
    fn restore(snapshot: Vec<u8>) -> Result<Self::Episode, Fault> {
        drop(snapshot);
        Err(Fault::Unsupported("restore".into()))
    }
}

/// One attempt at one task; single-use.
pub trait Episode: 'static {
    /// What the model is shown first.
    fn observe(&mut self) -> Result<Observation, Fault>;

    /// Takes the model's action and returns what follows.
    fn act(&mut self, action: Action) -> Result<Step, Fault>;

    /// The oracle's score so far. By default there is no oracle.
    fn outcome(&mut self) -> Result<Option<OutcomeScore>, Fault> {
        Ok(None)
    }

    /// All that [`Environment::restore`] needs. By default the host replays the actions instead.
    fn snapshot(&mut self) -> Result<Vec<u8>, Fault> {
        Err(Fault::Unsupported("snapshot".into()))
    }
}

/// The episode of a plugin that hosts none: it cannot be made.
#[derive(Debug)]
pub enum NoEpisodes {}

impl Episode for NoEpisodes {
    fn observe(&mut self) -> Result<Observation, Fault> {
        match *self {}
    }

    fn act(&mut self, _: Action) -> Result<Step, Fault> {
        match *self {}
    }
}

/// The bridge from the generated bindings to [`Environment`].
#[doc(hidden)]
#[derive(Debug)]
pub struct Adapter<E>(PhantomData<E>);

/// The bridge from the generated resource to [`Episode`].
#[doc(hidden)]
#[derive(Debug)]
pub struct EpisodeCell<E: Environment>(RefCell<E::Episode>);

impl<E: Environment> exports::Guest for Adapter<E> {
    type Episode = EpisodeCell<E>;

    fn describe() -> Result<ModalityCard, Fault> {
        log::install_panic_hook();
        Ok(E::describe())
    }

    fn classify(request: Request) -> Result<Line, Fault> {
        log::install_panic_hook();
        E::classify(request)
    }

    fn next_state(turn: Turn, new_messages: Vec<Message>) -> Result<Option<Observation>, Fault> {
        log::install_panic_hook();
        E::next_state(turn, new_messages)
    }

    fn session_ends(messages: Vec<Message>) -> Result<bool, Fault> {
        log::install_panic_hook();
        E::session_ends(messages)
    }

    fn tasks(split: Split) -> Result<Vec<String>, Fault> {
        log::install_panic_hook();
        E::tasks(split)
    }
}

impl<E: Environment> exports::GuestEpisode for EpisodeCell<E> {
    fn start(task: String, seed: u32) -> Result<exports::Episode, Fault> {
        log::install_panic_hook();
        Ok(exports::Episode::new(Self(RefCell::new(E::start(
            task, seed,
        )?))))
    }

    fn restore(snapshot: Vec<u8>) -> Result<exports::Episode, Fault> {
        log::install_panic_hook();
        Ok(exports::Episode::new(Self(RefCell::new(E::restore(
            snapshot,
        )?))))
    }

    fn observe(&self) -> Result<Observation, Fault> {
        self.0.borrow_mut().observe()
    }

    fn act(&self, action: Action) -> Result<Step, Fault> {
        self.0.borrow_mut().act(action)
    }

    fn outcome(&self) -> Result<Option<OutcomeScore>, Fault> {
        self.0.borrow_mut().outcome()
    }

    fn snapshot(&self) -> Result<Vec<u8>, Fault> {
        self.0.borrow_mut().snapshot()
    }
}

/// Exports a type that implements [`Environment`] as this component's `environment`.
#[macro_export]
macro_rules! export_environment {
    ($plugin:ty) => {
        // The expansion holds `unsafe` functions with WebAssembly export names; natively there is nothing to export to.
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::EnvironmentAdapter<$plugin>;
            $crate::bindings::environment::export_world!(Exported with_types_in $crate::bindings::environment);
        };
    };
}
