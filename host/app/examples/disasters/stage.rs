//! A host with the real model, two scripted users who talk through its HTTP gateway, and an exam.
//!
//! As in the demo, but nobody waits for the training: people go on talking while a step is computed and examined.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use app::config::{Config, ModelSection};
use app::demo::exam;
use app::host::{Host, Loaded};
use app::http_agent::HttpAgent;
use loops::rollout::{Assignment, Event, Watch};
use parking_lot::Mutex;
use rl::{EpisodeId, Sampling, Seed, TaskId};

/// The demo's own settings.
const RECIPE: &str = include_str!("../../src/demo/recipe.toml");
const PERSONA: &str = "brief";
const PEOPLE: [&str; 2] = ["anna", "ben"];
const TURNS: usize = 2;
const TOGETHER: usize = 2;
const DRAIN: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(200);

/// What every disaster is played with.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) from: usize,
    pub(crate) interactions: usize,
    pub(crate) questions: usize,
    pub(crate) seed: u64,
    pub(crate) model: String,
}

impl Plan {
    /// The demo's configuration on a folder of its own.
    pub(crate) fn config(&self, data: &std::path::Path) -> anyhow::Result<Config> {
        let mut config = Config::parse(RECIPE).context("the demo's recipe")?;
        config.data = data.to_owned();
        config.model = ModelSection {
            name: self.model.clone(),
            ..config.model
        };
        config.gateway.listen.set_port(0);
        config.loops.seed = Seed::new(self.seed);
        let section = config.plugins.config.entry("conversation".into());
        section
            .or_default()
            .insert("persona".into(), PERSONA.into());
        Ok(config)
    }

    pub(crate) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: 0.7,
            max_tokens: 96,
            seed: Seed::new(self.seed),
            ..Sampling::default()
        }
    }
}

/// What is put around the seams, at each start of the host.
pub(crate) type Around = Arc<dyn Fn(loops::Seams) -> loops::Seams + Send + Sync>;

/// How good the policy is on questions that nobody trains.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Mark {
    /// The share that keeps the users' preference.
    pub(crate) satisfied: f64,
    /// The share that is a finished thought at all: not empty, on topic, not in circles.
    pub(crate) sound: f64,
    /// The version that answered.
    pub(crate) version: u64,
}

/// What users got: is the reply of this turn a bad one?
pub(crate) type Replies = HashMap<String, bool>;

/// The host and its users.
pub(crate) struct Stage {
    pub(crate) host: Host,
    plan: Plan,
    config: Config,
    loaded: Loaded,
    around: Around,
    train: Vec<TaskId>,
    held_out: Vec<TaskId>,
    episode: usize,
    exams: usize,
    replies: Arc<Mutex<Replies>>,
}

impl Stage {
    pub(crate) async fn begin(
        plan: &Plan,
        config: Config,
        loaded: Loaded,
        around: Around,
    ) -> anyhow::Result<Self> {
        let own = Arc::clone(&around);
        let host = Host::start_with(config.clone(), loaded.clone(), |seams| own(seams)).await?;
        let of = |split: &str| -> anyhow::Result<Vec<TaskId>> {
            let mut tasks = host.environment().tasks(split)?;
            tasks.retain(|task| task.as_str().starts_with(&format!("{PERSONA}/")));
            Ok(tasks)
        };
        let (mut train, mut held_out) = (of("train")?, of("held-out")?);
        train.sort_by_key(|task| Seed::new(plan.seed).derive(task.as_str()).get());
        held_out.truncate(plan.questions);
        Ok(Self {
            host,
            plan: plan.clone(),
            config,
            loaded,
            around,
            train,
            held_out,
            episode: 0,
            exams: 0,
            replies: Arc::default(),
        })
    }

    /// Stops the host and starts it again on the same folder with other settings.
    pub(crate) async fn restart(self, change: impl FnOnce(&mut Config)) -> anyhow::Result<Self> {
        let Self {
            host, mut config, ..
        } = self;
        host.stop().await?;
        change(&mut config);
        let own = Arc::clone(&self.around);
        let host = Host::start_with(config.clone(), self.loaded.clone(), |seams| own(seams));
        Ok(Self {
            host: host.await?,
            config,
            ..self
        })
    }

    /// Which replies were bad, by turn.
    pub(crate) fn replies(&self) -> Replies {
        self.replies.lock().clone()
    }

    /// Asks the held-out questions.
    pub(crate) async fn exam(&mut self) -> anyhow::Result<Mark> {
        self.exams += 1;
        let agent = HttpAgent::new(&self.host.url(), &self.host.trained_model(), None).side();
        let environment = Arc::clone(self.host.environment());
        let (tasks, sampling) = (self.held_out.clone(), self.plan.sampling());
        let name = self.exams.to_string();
        let answers = tokio::task::spawn_blocking(move || {
            let seed = Seed::new(0).derive("exam");
            exam::sit(
                &*environment,
                &agent,
                &tasks,
                &sampling,
                seed,
                &name,
                &|_| {},
            )
        })
        .await??;
        let count = answers.len().max(1) as f64;
        let sound = answers.iter().filter(|answer| sound(&answer.guards));
        Ok(Mark {
            satisfied: answers.iter().map(|answer| answer.score).sum::<f64>() / count,
            sound: sound.count() as f64 / count,
            version: answers.last().map_or(0, |answer| answer.version),
        })
    }

    /// The scripted users send this many messages.
    pub(crate) async fn talk(&mut self, interactions: usize) -> anyhow::Result<()> {
        let agent = HttpAgent::new(&self.host.url(), &self.host.trained_model(), None);
        let agent = Arc::new(agent.for_users(&PEOPLE.map(str::to_owned)));
        let mut left = interactions;
        while left > 0 {
            let together = left.div_ceil(TURNS).min(TOGETHER);
            let config = loops::rollout::Config {
                concurrency: together,
                max_turns: u32::try_from(TURNS.min(left))?,
                sampling: self.plan.sampling(),
            };
            let assignments = (0..together).map(|_| self.assignment()).collect();
            let environment = Arc::clone(self.host.environment());
            let rollout = self
                .host
                .loops()
                .rollout(config, environment, agent.clone())?;
            let failed = Arc::default();
            let watch = self.watch(Arc::clone(&failed));
            rollout
                .run(assignments, self.host.shutdown(), watch)
                .await?;
            if let Some(error) = failed.lock().take() {
                return Err(anyhow::Error::new(error).context("a conversation failed"));
            }
            left = left.saturating_sub(together * TURNS);
        }
        Ok(())
    }

    fn assignment(&mut self) -> Assignment {
        let id = EpisodeId::new(format!("{PERSONA}-{}", self.episode));
        let task = self.train[self.episode % self.train.len()].clone();
        self.episode += 1;
        Assignment {
            seed: Seed::new(self.plan.seed).derive(id.as_str()),
            group: None,
            episode: id,
            task,
        }
    }

    fn watch(&self, failed: Arc<Mutex<Option<loops::Error>>>) -> Watch {
        let replies = Arc::clone(&self.replies);
        Arc::new(move |event| match event {
            Event::Turn(played) => {
                let guards = played.outcome.map(|outcome| outcome.metrics);
                let guards = guards.unwrap_or_default().into_iter().collect();
                let turn = played.reply.turn.to_string();
                replies.lock().insert(turn, !sound(&guards));
            }
            Event::Failed { error, .. } => *failed.lock() = Some(error),
            _ => {}
        })
    }

    /// Waits until everything was judged and no full batch is left.
    pub(crate) async fn drain(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + DRAIN;
        let batch = u64::try_from(self.config.loops.train.batch_size)?;
        loop {
            let status = self.host.loops().status();
            let depth = |name: &str| status.queues.get(name).map_or(0, |queue| queue.depth);
            if depth("judge") == 0 && depth("train") < batch && status.live == status.version {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "the loops did not finish");
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Whether a reply is one at all, by the persona's guards: whatever its manner.
fn sound(guards: &std::collections::BTreeMap<String, f64>) -> bool {
    ["non-empty", "on-topic", "no-repetition"]
        .iter()
        .all(|name| guards.get(*name).is_none_or(|guard| *guard >= 0.5))
}
