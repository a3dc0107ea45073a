//! The run: exam, rounds, exam.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use loops::records::{self, EPISODE, EpisodeRecord, PAID, PaidRecord};
use loops::rollout::{Assignment, Event, Rollout, Watch};
use parking_lot::Mutex;
use rl::{Agent, Environment, EpisodeId, Seed, TaskId};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::Section;
use crate::config::Config;
use crate::demo::stats::{Estimate, mean};
use crate::host::{Host, Loaded};
use crate::http_agent::HttpAgent;
use crate::plugins::crossings::Recorder;

/// The loops are given this long to judge and train a round.
const DRAIN: Duration = Duration::from_secs(1_800);
/// Whose episodes they are: the agent speaks without a key, as whoever is on this machine.
const TENANT: &str = "local";
/// How often they are asked.
const REFRESH: Duration = Duration::from_millis(50);

/// What a run leaves behind.
#[derive(Clone, Debug, Serialize)]
pub struct Story {
    /// The environment's name and version.
    pub environment: String,
    /// The reward plugin, as the recipe names it.
    pub reward: String,
    /// The base model.
    pub model: String,
    /// The run's seed.
    pub seed: u64,
    /// The exam with the weights of the run's beginning, also where it goes on; none without an exam.
    pub before: Option<Exam>,
    /// The exam with the weights of the end.
    pub after: Option<Exam>,
    /// Every round.
    pub rounds: Vec<Round>,
    /// Steps that were taken.
    pub versions: u64,
    /// Samples that were trained.
    pub trained: u64,
    /// Turns that were not, by reason.
    pub not_trainable: BTreeMap<String, u64>,
    /// Episodes that failed in the environment or the agent.
    pub failed: Vec<String>,
    /// Wall clock of the whole run, in seconds.
    pub seconds: f64,
    /// Replies a second while practising, exams not counted.
    pub turns_per_second: f64,
}

/// An exam.
#[derive(Clone, Debug, Serialize)]
pub struct Exam {
    /// The oracle's score of every episode.
    pub scores: Vec<f64>,
    /// The means of the oracle's named numbers.
    pub metrics: BTreeMap<String, f64>,
    /// The first episode as a transcript, for the reader.
    pub transcript: Vec<String>,
}

impl Exam {
    /// The mean score with its interval.
    pub fn score(&self) -> Estimate {
        mean(&self.scores).unwrap_or(Estimate {
            value: 0.0,
            low: 0.0,
            high: 1.0,
        })
    }
}

/// A round of practice.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// From 1.
    pub round: u32,
    /// The mean outcome of its episodes.
    pub outcome: f64,
    /// The means of the oracle's named numbers.
    pub metrics: BTreeMap<String, f64>,
    /// Replies.
    pub turns: usize,
    /// Groups whose attempts differed, so that there was something to prefer.
    pub useful_groups: usize,
    /// The version that answers after it.
    pub version: u64,
    /// Seconds.
    pub seconds: f64,
}

/// Plays a run.
///
/// # Errors
/// What could not be started; an environment without tasks; a round in which every episode failed.
pub async fn play(
    config: Config,
    loaded: Loaded,
    record: Option<PathBuf>,
) -> anyhow::Result<Story> {
    let begun = Instant::now();
    let section = config.rollout.clone();
    let (seed, reward) = (config.loops.seed.get(), config.plugins.reward.clone());
    let batch = u64::try_from(config.loops.train.batch_size)?;
    let recipe = recipe(&config)?;
    let host = Host::start(config, loaded).await?;
    let card = host.environment().card();
    let practice = Practice {
        recipe,
        section: &section,
        host: &host,
        seed: Seed::new(seed).derive("rollout"),
        train: tasks(&host, "train", seed)?,
        batch,
        environment: match record {
            None => Arc::clone(host.environment()),
            Some(folder) => Arc::new(Recorder::new(Arc::clone(host.environment()), folder)?),
        },
        failed: Arc::default(),
    };
    eprintln!(
        "{} {} · {} · reward {reward} · {} rounds of {} tasks × {} attempts · seed {seed}",
        card.name,
        card.version,
        host.trained_model(),
        section.rounds,
        section.groups,
        section.attempts
    );
    let before = practice.examine("before").await?;
    let mut rounds = Vec::new();
    let practising = Instant::now();
    for round in 1..=section.rounds {
        let played = practice.round(round).await?;
        say(&played, section.rounds);
        rounds.push(played);
    }
    let turns: usize = rounds.iter().map(|round| round.turns).sum();
    let turns_per_second = turns as f64 / practising.elapsed().as_secs_f64().max(1e-9);
    let after = practice.examine("after").await?;
    let failed = practice.failed.lock().clone();
    let status = host.loops().status();
    let name = |reason: &rl::NotTrainable| {
        let name = serde_json::to_value(reason).ok();
        name.and_then(|name| name.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let counted = status.not_trainable.iter().filter(|(_, count)| **count > 0);
    let story = Story {
        environment: format!("{} {}", card.name, card.version),
        reward,
        model: host.base_model().to_owned(),
        seed,
        before,
        after,
        rounds,
        versions: status.version.get(),
        trained: status.trained,
        not_trainable: counted.map(|(why, count)| (name(why), *count)).collect(),
        failed,
        seconds: begun.elapsed().as_secs_f64(),
        turns_per_second,
    };
    host.stop().await?;
    Ok(story)
}

/// Eight digits of what shapes the episodes and their pay. How many rounds there are does not: a run can be made longer.
fn recipe(config: &Config) -> anyhow::Result<String> {
    let rollout = Section {
        rounds: 0,
        exam: 0,
        concurrency: 0,
        ..config.rollout.clone()
    };
    let models = &config.models;
    let shapes = (
        &config.plugins,
        &config.loops,
        &config.train,
        rollout,
        models,
    );
    let digest = Sha256::digest(serde_json::to_vec(&shapes)?);
    Ok(hex::encode(&digest[..4]))
}

fn say(round: &Round, of: u32) {
    let metrics: Vec<String> = round
        .metrics
        .iter()
        .map(|(name, value)| format!("{name} {value:.2}"))
        .collect();
    eprintln!(
        "round {:>3}/{of}: outcome {:.2} · {} · {} turns · {} useful groups · v{} · {:.0} s",
        round.round,
        round.outcome,
        metrics.join(" · "),
        round.turns,
        round.useful_groups,
        round.version,
        round.seconds
    );
}

/// The tasks of a split, in an order of the seed's.
fn tasks(host: &Host, split: &str, seed: u64) -> anyhow::Result<Vec<TaskId>> {
    let card = host.environment().card();
    let tasks = host.environment().tasks(split)?;
    anyhow::ensure!(
        !tasks.is_empty(),
        "environment {} hosts no {split} task with this configuration: `nextstate plugin test {}` shows what it has",
        card.name,
        card.name
    );
    let mut tasks: Vec<(u64, TaskId)> = tasks
        .into_iter()
        .map(|task| (Seed::new(seed).derive(task.as_str()).get(), task))
        .collect();
    tasks.sort();
    Ok(tasks.into_iter().map(|(_, task)| task).collect())
}

struct Practice<'a> {
    /// Names what shapes the episodes: an episode that was played by another recipe is another one, whatever lies in the folder.
    recipe: String,
    section: &'a Section,
    host: &'a Host,
    seed: Seed,
    train: Vec<TaskId>,
    batch: u64,
    environment: Arc<dyn Environment>,
    failed: Arc<Mutex<Vec<String>>>,
}

impl Practice<'_> {
    fn rollout(&self, agent: HttpAgent, sampling: rl::Sampling) -> anyhow::Result<Rollout> {
        let config = loops::rollout::Config {
            concurrency: self.section.concurrency,
            max_turns: self.section.max_turns,
            sampling,
        };
        let environment = Arc::clone(&self.environment);
        let agent: Arc<dyn Agent> = Arc::new(agent);
        Ok(self.host.loops().rollout(config, environment, agent)?)
    }

    fn agent(&self) -> HttpAgent {
        HttpAgent::new(&self.host.url(), &self.host.trained_model(), None)
    }

    fn watch(&self) -> Watch {
        let failed = Arc::clone(&self.failed);
        Arc::new(move |event| {
            if let Event::Failed { episode, error } = event {
                failed.lock().push(format!("{episode}: {}", error.chain()));
            }
        })
    }

    fn group(&self, index: u32) -> String {
        format!("practice-{}-{index}", self.recipe)
    }

    /// For whoever has to be told that nothing came of many episodes.
    fn first_failure(&self) -> String {
        let failed = self.failed.lock();
        failed
            .first()
            .map_or_else(String::new, |first| format!("; the first to fail: {first}"))
    }

    /// One round, played, judged, paid and trained.
    async fn round(&self, round: u32) -> anyhow::Result<Round> {
        let begun = Instant::now();
        let mut assignments = Vec::new();
        for group in 0..self.section.groups {
            let index = (round - 1) * self.section.groups + group;
            let task = &self.train[usize::try_from(index)? % self.train.len()];
            let name = self.group(index);
            for attempt in 0..self.section.attempts {
                let episode = EpisodeId::new(format!("{name}-{attempt}"));
                assignments.push(Assignment {
                    // The environment's seed is the group's: all attempts meet the same.
                    seed: self.seed.derive(&name),
                    task: task.clone(),
                    group: Some(name.clone()),
                    episode,
                });
            }
        }
        let count = assignments.len();
        let rollout = self.rollout(self.agent(), self.section.sampling.clone())?;
        let rollout = rollout.storing_for(TENANT.into());
        let played = rollout
            .run(assignments, self.host.shutdown(), self.watch())
            .await?;
        anyhow::ensure!(
            !played.is_empty(),
            "all {count} episodes of round {round} failed{}",
            self.first_failure()
        );
        self.drain().await?;
        let (scores, metrics) = marks(&played);
        Ok(Round {
            round,
            outcome: mean(&scores).map_or(0.0, |outcome| outcome.value),
            metrics,
            turns: played.iter().map(|episode| episode.turns.len()).sum(),
            useful_groups: self.useful(round)?,
            version: self.host.loops().status().version.get(),
            seconds: begun.elapsed().as_secs_f64(),
        })
    }

    /// Groups of a round in which some advantage is not 0.
    fn useful(&self, round: u32) -> anyhow::Result<usize> {
        let mut useful = 0;
        for group in 0..self.section.groups {
            let index = (round - 1) * self.section.groups + group;
            let key = records::paid_key(&self.group(index));
            let Some(record) = self.host.ledger().by_key(&key)? else {
                continue;
            };
            let paid: PaidRecord = records::decode(&record)
                .with_context(|| format!("failed to read the {PAID} record {key}"))?;
            let mut advantages = paid.attempts.iter().flat_map(|one| &one.advantages);
            useful += usize::from(advantages.any(|advantage| advantage.is_some_and(|a| a != 0.0)));
        }
        Ok(useful)
    }

    /// Waits until everything was judged and no full batch is left.
    async fn drain(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + DRAIN;
        loop {
            let status = self.host.loops().status();
            let depth = |name: &str| status.queues.get(name).map_or(0, |queue| queue.depth);
            let awaiting = status.not_trainable.get(&rl::NotTrainable::AwaitsGroup);
            if depth("judge") == 0
                && awaiting.is_none_or(|count| *count == 0)
                && depth("train") < self.batch
                && status.live == status.version
            {
                return Ok(());
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "the loops did not finish within {} s: {} turns to judge, {} samples to train",
                DRAIN.as_secs(),
                depth("judge"),
                depth("train")
            );
            tokio::time::sleep(REFRESH).await;
        }
    }

    /// Plays the exam: whole episodes as a side line, which is recorded and never trained.
    async fn examine(&self, name: &str) -> anyhow::Result<Option<Exam>> {
        if self.section.exam == 0 {
            return Ok(None);
        }
        let tasks = self.host.environment().tasks("held-out")?;
        anyhow::ensure!(
            !tasks.is_empty(),
            "the environment hosts no held-out task, so that there is no exam: `[rollout] exam = 0` goes on without one"
        );
        let assignments = self.exam_assignments(name, &tasks)?;
        eprintln!("exam {name}: {} episodes", assignments.len());
        let rollout = self.rollout(self.agent().side(), self.section.exam_sampling.clone())?;
        let played = rollout
            .run(assignments, self.host.shutdown(), self.watch())
            .await?;
        let (scores, metrics) = marks(&played);
        anyhow::ensure!(
            !scores.is_empty(),
            "the environment's oracle scored no episode of the exam{}",
            self.first_failure()
        );
        let transcript = played.first().map(|one| self.transcript(one)).transpose()?;
        let exam = Exam {
            scores,
            metrics,
            transcript: transcript.unwrap_or_default(),
        };
        let score = exam.score();
        eprintln!(
            "exam {name}: outcome {:.2} ({:.2} to {:.2})",
            score.value, score.low, score.high
        );
        Ok(Some(exam))
    }

    /// The episodes of an exam. Of a run that goes on, "before" is what was played then, and nothing more.
    fn exam_assignments(&self, name: &str, tasks: &[TaskId]) -> anyhow::Result<Vec<Assignment>> {
        // Spread over all of them: tasks of one family stand together.
        let most = usize::try_from(self.section.exam)?.min(tasks.len());
        let chosen: Vec<&TaskId> = (0..most).map(|i| &tasks[i * tasks.len() / most]).collect();
        let seed = Seed::new(0).derive("exam");
        let id = |version: u64, task: &TaskId, attempt: u32| {
            format!("exam-{}-{name}-v{version}-{task}-{attempt}", self.recipe)
        };
        let live = self.host.loops().status().live.get();
        let version = match name {
            "before" => earliest(live, |version| {
                // Any of them: an episode that failed left nothing.
                for task in &chosen {
                    let key = records::episode_key(&EpisodeId::new(id(version, task, 0)));
                    if self.host.ledger().by_key(&key)?.is_some() {
                        return Ok(true);
                    }
                }
                Ok(false)
            })?,
            _ => live,
        };
        let mut assignments = Vec::new();
        for task in &chosen {
            for attempt in 0..self.section.exam_attempts {
                let episode = id(version, task, attempt);
                assignments.push(Assignment {
                    seed: seed.derive(&format!("{task}/{attempt}")),
                    task: (*task).clone(),
                    group: None,
                    episode: EpisodeId::new(episode),
                });
            }
        }
        if version == live {
            return Ok(assignments);
        }
        // Whoever would answer now is not who was examined then.
        let ledger = self.host.ledger();
        let wanted = assignments.len();
        let mut kept = Vec::new();
        for one in assignments {
            if ledger
                .by_key(&records::episode_key(&one.episode))?
                .is_some()
            {
                kept.push(one);
            }
        }
        if kept.len() < wanted {
            let missing = wanted - kept.len();
            eprintln!(
                "exam {name}: {missing} episodes were not played with v{version} and are left out"
            );
        }
        Ok(kept)
    }

    /// What was said in an episode, as far as its last request shows it, and the last reply.
    fn transcript(&self, episode: &EpisodeRecord) -> anyhow::Result<Vec<String>> {
        let Some(last) = episode.turns.last() else {
            return Ok(Vec::new());
        };
        let record = self
            .host
            .ledger()
            .by_key(&records::turn_key(last))?
            .with_context(|| {
                format!("{EPISODE} {} has a turn that is not there", episode.episode)
            })?;
        let turn = records::decode::<records::TurnRecord>(&record)?.turn;
        let line = |message: &rl::Message| {
            let calls: String = message
                .tool_calls
                .iter()
                .map(|call| format!(" {}({})", call.name, call.arguments))
                .collect();
            format!("{}: {}{calls}", message.role.as_str(), message.content)
        };
        Ok(turn
            .messages
            .iter()
            .chain([&turn.reply])
            .map(line)
            .collect())
    }
}

/// The first version that was examined: a run that goes on compares with where it began, not with where it was interrupted. None was
/// before the first exam, which is the live one's.
fn earliest(
    live: u64,
    mut examined: impl FnMut(u64) -> anyhow::Result<bool>,
) -> anyhow::Result<u64> {
    for version in 0..live {
        if examined(version)? {
            return Ok(version);
        }
    }
    Ok(live)
}

/// The scores of the episodes that have one, and the means of the named numbers.
fn marks(played: &[EpisodeRecord]) -> (Vec<f64>, BTreeMap<String, f64>) {
    let outcomes: Vec<_> = played
        .iter()
        .filter_map(|one| one.outcome.as_ref())
        .collect();
    let scores = outcomes.iter().map(|outcome| outcome.score).collect();
    let mut sums: BTreeMap<String, (f64, u32)> = BTreeMap::new();
    for (name, value) in outcomes.iter().flat_map(|outcome| &outcome.metrics) {
        let (sum, count) = sums.entry(name.clone()).or_default();
        *sum += value;
        *count += 1;
    }
    let means = sums
        .into_iter()
        .map(|(name, (sum, count))| (name, sum / f64::from(count)));
    (scores, means.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_goes_on_is_compared_with_the_version_that_it_began_with() {
        let check = |examined: &[u64], expected: u64| {
            let found = earliest(9, |version| Ok(examined.contains(&version))).unwrap();
            assert_eq!(found, expected, "{examined:?}");
        };
        check(&[], 9);
        check(&[0], 0);
        check(&[3, 5], 3);
        assert!(earliest(1, |_| anyhow::bail!("unreadable")).is_err());
    }

    #[test]
    fn another_recipe_plays_other_episodes_and_a_longer_run_goes_on() {
        let name = |text: &str| recipe(&Config::parse(text).unwrap()).unwrap();
        let first = name("");
        assert_eq!(first.len(), 8);
        assert_eq!(first, name("[rollout]\nrounds = 99\nexam = 3"));
        for other in [
            "[plugins]\nreward = 'grpo-reward'",
            "[plugins.config.tool-call]\ndifficulty = 2",
            "[rollout]\nattempts = 4",
            "[rollout.sampling]\ntemperature = 0.5",
            "[train]\nlr = 0.5",
        ] {
            assert_ne!(first, name(other), "{other}");
        }
    }
}
