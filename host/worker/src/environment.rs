//! The seam `Environment` over worker processes.

use std::{borrow::Cow, fmt, sync::Arc};

use rl::{
    Action, Archive, Classification, Environment, Episode, Message, ModalityCard, NextState,
    Observation, Outcome, RequestView, Seed, Step, TaskId, Turn, seam::Nowhere,
};
use serde_bytes::ByteBuf;

use crate::{answers, process::Process, things::Things, wire::Call, workers::Workers};

/// An environment plugin in processes of its own. An episode lives and dies with the process it began in.
pub struct SealedEnvironment {
    workers: Workers,
    card: ModalityCard,
}

impl fmt::Debug for SealedEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedEnvironment")
            .field("card", &self.card)
            .finish_non_exhaustive()
    }
}

impl SealedEnvironment {
    /// The environment that these workers have loaded.
    ///
    /// # Errors
    /// [`plugin::Error::Load`] when it is another kind of plugin.
    pub fn new(workers: Workers) -> Result<Self, plugin::Error> {
        workers.check_world(plugin::World::EnvironmentPlugin)?;
        let started = workers.current().map_err(|error| plugin::Error::Start {
            problem: error.to_string(),
        })?;
        let manifest = workers.manifest();
        let card = started.loaded().card.clone();
        let card = card.filter(|card| card.name == manifest.name);
        let card = card.ok_or_else(|| plugin::Error::Answer {
            plugin: manifest.name.clone(),
            function: "describe",
            what: "no card, or one of another name".into(),
        })?;
        Ok(Self { workers, card })
    }

    /// Its workers.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }
}

impl Environment for SealedEnvironment {
    fn card(&self) -> ModalityCard {
        self.card.clone()
    }

    fn classify(&self, request: RequestView<'_>) -> rl::Result<Classification> {
        let RequestView { messages, tools } = request;
        self.workers
            .call(&Call::Classify(messages.into(), tools.into()))
    }

    fn next_state(&self, turn: &Turn, new: &[Message]) -> rl::Result<Option<NextState>> {
        self.next_state_with(turn, new, &Nowhere)
    }

    fn next_state_with(
        &self,
        turn: &Turn,
        new: &[Message],
        archive: &dyn Archive,
    ) -> rl::Result<Option<NextState>> {
        let call = Call::NextState(Cow::Borrowed(turn), new.into());
        let workers = &self.workers;
        let things = || Ok(workers.things(false).lending(workers.session(archive)?));
        let next: Option<NextState> = workers.call_with(&call, things)?;
        let Some(next) = next else { return Ok(None) };
        answers::observation(&next.messages)
            .and_then(|()| answers::evidence(&next.evidence))
            .map_err(|what| self.workers.refuse(&call, what))?;
        // The text is made here: the judge reads what the messages say.
        Ok(Some(NextState {
            evidence: next.evidence,
            ..NextState::of(next.messages)
        }))
    }

    fn session_ends(&self, messages: &[Message]) -> rl::Result<bool> {
        self.workers.call(&Call::SessionEnds(messages.into()))
    }

    fn tasks(&self, split: &str) -> rl::Result<Vec<TaskId>> {
        let call = Call::Tasks(split.into());
        let tasks: Vec<TaskId> = self.workers.call(&call)?;
        answers::tasks(&tasks).map_err(|what| self.workers.refuse(&call, what))?;
        Ok(tasks)
    }

    fn start(&self, task: &TaskId, seed: Seed) -> rl::Result<Box<dyn Episode>> {
        self.start_with(task, seed, &Nowhere)
    }

    fn start_with(
        &self,
        task: &TaskId,
        seed: Seed,
        archive: &dyn Archive,
    ) -> rl::Result<Box<dyn Episode>> {
        let session = self.workers.session(archive)?;
        let process = self.workers.current()?;
        let mut episode = SealedEpisode {
            number: process.number(),
            things: self.workers.things(true).lending(session),
            workers: self.workers.clone(),
            process,
        };
        let (task, number) = (task.clone(), episode.number);
        episode.call::<()>(Call::Start {
            episode: number,
            task,
            seed,
        })?;
        Ok(Box::new(episode))
    }
}

/// One hosted episode in a worker process.
struct SealedEpisode {
    process: Arc<Process>,
    number: u64,
    things: Things,
    workers: Workers,
}

impl SealedEpisode {
    fn call<T: serde::de::DeserializeOwned>(&mut self, call: Call<'_>) -> rl::Result<T> {
        let answer = self.process.call(&call, &mut self.things);
        answer.map_err(|error| error.why)
    }

    fn refuse(&self, call: &Call<'_>, what: String) -> rl::Error {
        self.workers.refuse(call, what)
    }
}

impl Episode for SealedEpisode {
    fn observe(&mut self) -> rl::Result<Observation> {
        let call = Call::Observe(self.number);
        let observation: Observation = self.call(call.clone())?;
        answers::observation(&observation.messages).map_err(|what| self.refuse(&call, what))?;
        Ok(observation)
    }

    fn act(&mut self, action: &Action) -> rl::Result<Step> {
        let call = Call::Act(self.number, Cow::Borrowed(action));
        let step: Step = self.call(call.clone())?;
        answers::observation(&step.observation.messages)
            .map_err(|what| self.refuse(&call, what))?;
        Ok(step)
    }

    fn outcome(&mut self) -> rl::Result<Option<Outcome>> {
        let call = Call::Outcome(self.number);
        let outcome: Option<Outcome> = self.call(call.clone())?;
        if let Some(outcome) = &outcome {
            answers::outcome(outcome).map_err(|what| self.refuse(&call, what))?;
        }
        Ok(outcome)
    }

    fn snapshot(&mut self) -> rl::Result<Option<Vec<u8>>> {
        let call = Call::Snapshot(self.number);
        let bytes: Option<ByteBuf> = self.call(call.clone())?;
        let length = bytes.as_ref().map_or(0, |bytes| bytes.len());
        answers::snapshot(length).map_err(|what| self.refuse(&call, what))?;
        Ok(bytes.map(ByteBuf::into_vec))
    }
}

impl Drop for SealedEpisode {
    fn drop(&mut self) {
        self.process.over(self.number);
    }
}
