//! A guest as an environment: live traffic over shared instances, hosted episodes each with an instance of its own.

use std::fmt;

use rl::{
    Action, Archive, Classification, Done, Environment, Episode, ModalityCard, NextState,
    Observation, Outcome, RequestView, Seed, Step, TaskId, Turn, seam::Nowhere, store::Session,
};
use wasmtime::component::ResourceAny;

use crate::{
    bindings::environment::{EnvironmentPlugin, exports::nextstate::plugin::environment as wit},
    check, convert,
    error::{Error, Result},
    instance::{Instance, Pool, refused},
    load::Plugin,
    manifest::{Capability, World},
};

/// Most tasks of a split.
const TASKS: usize = 100_000;

/// Longest task id, in bytes.
const TASK_BYTES: usize = 200;

/// Largest snapshot, in bytes.
const SNAPSHOT_BYTES: usize = 1 << 20;

/// Most metrics of an outcome.
const METRICS: usize = 64;

/// An environment plugin behind the seam [`Environment`].
pub struct GuestEnvironment {
    pool: Pool<EnvironmentPlugin>,
    card: ModalityCard,
    seeds: Seeds,
}

/// The seeds of what is asked of live traffic. Derived once: a hash costs as much as an empty call.
struct Seeds {
    classify: Seed,
    next_state: Seed,
    session_ends: Seed,
    tasks: Seed,
}

impl fmt::Debug for GuestEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestEnvironment")
            .field("card", &self.card)
            .finish_non_exhaustive()
    }
}

impl GuestEnvironment {
    /// Starts a plugin as an environment; all its random numbers on live traffic derive from `run`.
    ///
    /// # Errors
    /// [`Error::Load`] when it is no environment, and whatever its `describe` runs into.
    pub fn new(plugin: &Plugin, run: Seed) -> Result<Self> {
        plugin.expect_world(World::EnvironmentPlugin)?;
        let pool = Pool::new(plugin)?;
        let card = pool.call("describe", run, |guest: &EnvironmentPlugin, store| {
            guest.nextstate_plugin_environment().call_describe(store)
        })?;
        check_card(plugin, &card)?;
        let card = ModalityCard {
            name: card.name,
            version: card.version,
            tools: card.tools.into_iter().map(convert::tool_back).collect(),
        };
        Ok(Self {
            pool,
            card,
            seeds: Seeds {
                classify: run.derive("classify"),
                next_state: run.derive("next-state"),
                session_ends: run.derive("session-ends"),
                tasks: run.derive("tasks"),
            },
        })
    }

    /// Goes on with an episode from a snapshot.
    ///
    /// # Errors
    /// [`Error::Fault`] when the plugin does not offer it or does not know these bytes.
    pub fn restore(&self, snapshot: &[u8], seed: Seed) -> Result<GuestEpisode> {
        let session = self.stores().then(Session::default);
        GuestEpisode::begin(
            &self.pool,
            "episode.restore",
            seed,
            session,
            |guest, store| {
                guest
                    .nextstate_plugin_environment()
                    .episode()
                    .call_restore(store, snapshot)
            },
        )
    }

    fn stores(&self) -> bool {
        let wanted = &self.pool.plugin.manifest().capabilities;
        wanted.contains(&Capability::Store)
    }

    /// What its plugin stored; none for a plugin that stores nothing.
    fn session(&self, archive: &dyn Archive) -> rl::Result<Option<Session>> {
        let plugin = &self.pool.plugin.manifest().name;
        self.stores().then(|| archive.open(plugin)).transpose()
    }
}

/// The card must agree with the manifest, which is what the operator read.
fn check_card(plugin: &Plugin, card: &wit::ModalityCard) -> Result<()> {
    let manifest = plugin.manifest();
    let wrong = |what: String| Err(refused(plugin, "describe", what));
    if card.name != manifest.name {
        return wrong(format!(
            "the name `{}`, which is not that of its manifest",
            card.name
        ));
    }
    let wanted = [
        (wit::Capabilities::RANDOM, Capability::Random),
        (wit::Capabilities::CLOCK, Capability::Clock),
        (wit::Capabilities::CONFIG, Capability::Config),
        (wit::Capabilities::SHELL, Capability::Shell),
        (wit::Capabilities::BROWSER, Capability::Browser),
        (wit::Capabilities::MODEL, Capability::Model),
        (wit::Capabilities::HTTP, Capability::Http),
        (wit::Capabilities::STORE, Capability::Store),
    ];
    for (flag, capability) in wanted {
        if card.capabilities.contains(flag) && !manifest.capabilities.contains(&capability) {
            return wrong(format!(
                "the capability `{capability}`, which its manifest does not list"
            ));
        }
    }
    Ok(())
}

impl Environment for GuestEnvironment {
    fn card(&self) -> ModalityCard {
        self.card.clone()
    }

    fn classify(&self, request: RequestView<'_>) -> rl::Result<Classification> {
        let request = wit::Request {
            messages: convert::messages(request.messages),
            tools: request.tools.iter().map(convert::tool).collect(),
        };
        let line = self
            .pool
            .call("classify", self.seeds.classify, |guest, store| {
                guest
                    .nextstate_plugin_environment()
                    .call_classify(store, &request)
            })?;
        Ok(match line {
            wit::Line::Main => Classification::Main,
            wit::Line::Side => Classification::Side,
            wit::Line::Unknown => Classification::Unknown,
        })
    }

    fn next_state(
        &self,
        turn: &Turn,
        new_messages: &[rl::Message],
    ) -> rl::Result<Option<NextState>> {
        self.next_state_with(turn, new_messages, &Nowhere)
    }

    fn next_state_with(
        &self,
        turn: &Turn,
        new_messages: &[rl::Message],
        archive: &dyn Archive,
    ) -> rl::Result<Option<NextState>> {
        let (wit_turn, new_messages) = (convert::turn(turn), convert::messages(new_messages));
        let session = self.session(archive)?;
        let seed = self.seeds.next_state.derive(turn.id.as_str());
        let next = self
            .pool
            .call_with(session, "next-state", seed, |guest, store| {
                guest.nextstate_plugin_environment().call_next_state(
                    store,
                    &wit_turn,
                    &new_messages,
                )
            })?;
        let Some(next) = next else { return Ok(None) };
        let refuse = |what| self.pool.refuse("next-state", what);
        check::observation(&next).map_err(refuse)?;
        let evidence = check::evidence(&next.evidence).map_err(refuse)?;
        let messages = convert::messages_back(next.messages);
        Ok(Some(NextState {
            evidence,
            ..NextState::of(messages)
        }))
    }

    fn session_ends(&self, messages: &[rl::Message]) -> rl::Result<bool> {
        let messages = convert::messages(messages);
        let seed = self.seeds.session_ends;
        let ends = self.pool.call("session-ends", seed, |guest, store| {
            guest
                .nextstate_plugin_environment()
                .call_session_ends(store, &messages)
        })?;
        Ok(ends)
    }

    fn tasks(&self, split: &str) -> rl::Result<Vec<TaskId>> {
        let split = match split {
            "train" => wit::Split::Train,
            "held-out" => wit::Split::HeldOut,
            other => {
                return Err(rl::Error::Refused {
                    what: format!("environment {}", self.card.name),
                    why: format!("there is no split `{other}`; there are `train` and `held-out`"),
                });
            }
        };
        let tasks = self.pool.call("tasks", self.seeds.tasks, |guest, store| {
            guest
                .nextstate_plugin_environment()
                .call_tasks(store, split)
        })?;
        if tasks.len() > TASKS
            || tasks
                .iter()
                .any(|task| task.is_empty() || task.len() > TASK_BYTES)
        {
            let what =
                format!("too many tasks, or an id that is empty or longer than {TASK_BYTES} bytes");
            return Err(self.pool.refuse("tasks", what).into());
        }
        Ok(tasks.into_iter().map(TaskId::new).collect())
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
        let session = self.session(archive)?;
        let short = u32::try_from(seed.derive(task.as_str()).get() >> 32).unwrap_or(0);
        let episode = GuestEpisode::begin(
            &self.pool,
            "episode.start",
            seed,
            session,
            |guest, store| {
                guest.nextstate_plugin_environment().episode().call_start(
                    store,
                    task.as_str(),
                    short,
                )
            },
        )?;
        Ok(Box::new(episode))
    }
}

/// One hosted episode: it owns its instance, so that it can neither see nor break another.
pub struct GuestEpisode {
    plugin: Plugin,
    /// None after a trap or a limit.
    running: Option<(Box<Instance<EnvironmentPlugin>>, ResourceAny)>,
    seed: Seed,
    calls: u64,
}

impl fmt::Debug for GuestEpisode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestEpisode")
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl GuestEpisode {
    fn begin(
        pool: &Pool<EnvironmentPlugin>,
        function: &'static str,
        seed: Seed,
        session: Option<Session>,
        start: impl FnOnce(
            &EnvironmentPlugin,
            &mut wasmtime::Store<crate::capabilities::State>,
        ) -> crate::instance::Answered<ResourceAny>,
    ) -> Result<Self> {
        let mut instance = pool.instance()?;
        if let Some(session) = session {
            instance.lend(session);
        }
        let (episode, _) = instance.call(function, seed.derive("call-0"), start);
        let running = Some((instance, episode?));
        Ok(Self {
            plugin: pool.plugin.clone(),
            running,
            seed,
            calls: 0,
        })
    }

    fn call<T>(
        &mut self,
        function: &'static str,
        call: impl FnOnce(
            &wit::GuestEpisode<'_>,
            &mut wasmtime::Store<crate::capabilities::State>,
            ResourceAny,
        ) -> crate::instance::Answered<T>,
    ) -> Result<T> {
        let Some((mut instance, episode)) = self.running.take() else {
            let plugin = self.plugin.manifest().name.clone();
            return Err(Error::Ended { plugin, function });
        };
        self.calls += 1;
        let seed = self.seed.derive(&format!("call-{}", self.calls));
        let (answer, reusable) = instance.call(function, seed, |guest, store| {
            call(
                &guest.nextstate_plugin_environment().episode(),
                store,
                episode,
            )
        });
        if reusable {
            self.running = Some((instance, episode));
        }
        answer
    }

    fn checked(
        &self,
        function: &'static str,
        observation: wit::Observation,
    ) -> Result<Observation> {
        check::observation(&observation).map_err(|what| refused(&self.plugin, function, what))?;
        Ok(Observation {
            messages: convert::messages_back(observation.messages),
        })
    }
}

impl Episode for GuestEpisode {
    fn observe(&mut self) -> rl::Result<Observation> {
        let observation = self.call("episode.observe", |episode, store, this| {
            episode.call_observe(store, this)
        })?;
        Ok(self.checked("episode.observe", observation)?)
    }

    fn act(&mut self, action: &Action) -> rl::Result<Step> {
        let finish = match (action.truncated, action.message.tool_calls.is_empty()) {
            (true, _) => crate::bindings::types::Finish::Length,
            (false, true) => crate::bindings::types::Finish::Stop,
            (false, false) => crate::bindings::types::Finish::ToolCalls,
        };
        let action = wit::Action {
            reply: convert::message(&action.message),
            finish,
        };
        let step = self.call("episode.act", |episode, store, this| {
            episode.call_act(store, this, &action)
        })?;
        let observation = self.checked("episode.act", step.next)?;
        let done = step.done.map(|done| match done {
            wit::Done::Finished => Done::Finished,
            wit::Done::Abandoned => Done::Aborted,
            wit::Done::Truncated => Done::TurnLimit,
        });
        Ok(Step { observation, done })
    }

    fn outcome(&mut self) -> rl::Result<Option<Outcome>> {
        const FUNCTION: &str = "episode.outcome";
        let outcome = self.call(FUNCTION, |episode, store, this| {
            episode.call_outcome(store, this)
        })?;
        let Some(outcome) = outcome else {
            return Ok(None);
        };
        let refuse = |what: String| refused(&self.plugin, FUNCTION, what);
        check::number("the score", outcome.value, 0.0, 1.0).map_err(refuse)?;
        if outcome.metrics.len() > METRICS {
            return Err(refuse(format!(
                "{} metrics, and {METRICS} are allowed",
                outcome.metrics.len()
            ))
            .into());
        }
        let mut metrics = Vec::with_capacity(outcome.metrics.len());
        for wit::NamedValue { name, value } in outcome.metrics {
            check::metric_name(&name).map_err(refuse)?;
            check::number("a metric", value, -1e9, 1e9).map_err(refuse)?;
            metrics.push((name, value));
        }
        Ok(Some(Outcome {
            score: outcome.value,
            metrics,
        }))
    }

    fn snapshot(&mut self) -> rl::Result<Option<Vec<u8>>> {
        const FUNCTION: &str = "episode.snapshot";
        match self.call(FUNCTION, |episode, store, this| {
            episode.call_snapshot(store, this)
        }) {
            Ok(bytes) if bytes.len() > SNAPSHOT_BYTES => {
                let what = format!(
                    "a snapshot of {} bytes, and {SNAPSHOT_BYTES} are allowed",
                    bytes.len()
                );
                Err(refused(&self.plugin, FUNCTION, what).into())
            }
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_unsupported() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
