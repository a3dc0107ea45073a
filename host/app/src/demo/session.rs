//! One run of the demo, from a fresh ledger to its story.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ledger::{Ledger, Seq};
use loops::records::{JUDGED, JudgedRecord, TURN, TurnRecord};
use loops::rollout::{Assignment, Event, Played, Watch};
use parking_lot::Mutex;
use rl::algorithm::Method;
use rl::{
    Environment, EpisodeId, Policy as _, PolicyVersion, Role, Sampling, ScoreRequest, Seed, TaskId,
    VoteValue, Weights,
};

use super::exam::{self, Answer, Exam};
use super::stats::Estimate;
use super::story::{Figures, Interaction, Story, VersionRow, peak_memory};
use super::view::{View, short};
use crate::config::Config;
use crate::host::{Host, Loaded};
use crate::http_agent::HttpAgent;

/// User messages of one conversation: a question, and a reaction with the next question; the last reaction ends it.
const TURNS_PER_EPISODE: usize = 2;
/// Who talks: one taste, two people, so that one of them can be forgotten.
const PEOPLE: [&str; 2] = ["anna", "ben"];
/// Conversations at the same time: the engine batches them, and the wait for one is filled by the other.
const EPISODES_TOGETHER: usize = 2;
/// How often the panel is brought up to date.
const REFRESH: Duration = Duration::from_millis(250);
/// The loops are given this long to judge and train what is left when the talking is over.
const DRAIN: Duration = Duration::from_secs(600);
/// Longest reply; one that is cut off has not kept any preference.
const MAX_TOKENS: u32 = 96;
/// Below 1, so that a small model's sentences hold together; above 0, so that it explores.
const TEMPERATURE: f32 = 0.7;

/// What to play.
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) folder: PathBuf,
    pub(super) persona: String,
    pub(super) method: Method,
    pub(super) interactions: usize,
    pub(super) questions: usize,
    pub(super) seed: u64,
}

impl Plan {
    fn host_config(&self) -> Config {
        let mut config = self.config.clone();
        config.data = self.folder.clone();
        // Any free port: a host that serves already is not disturbed.
        config.gateway.listen.set_port(0);
        config.loops.seed = Seed::new(self.seed);
        config.loops.algorithm.method = self.method;
        let section = config
            .plugins
            .config
            .entry("conversation".into())
            .or_default();
        section.insert("persona".into(), self.persona.clone().into());
        if self.method == Method::Binary && config.plugins.reward == "combined-reward" {
            config.plugins.reward = "binary-reward".into();
        }
        config
    }

    fn sampling(&self) -> Sampling {
        Sampling {
            temperature: TEMPERATURE,
            max_tokens: MAX_TOKENS,
            seed: Seed::new(self.seed),
            ..Sampling::default()
        }
    }
}

/// Plays one run.
pub(super) async fn play(plan: Plan, loaded: Loaded) -> anyhow::Result<Story> {
    let begun = Instant::now();
    let view = Arc::new(Mutex::new(View::new()));
    let host = Host::start(plan.host_config(), loaded).await?;
    view.lock().say(&format!(
        "{} at {} · persona {} · method {} · seed {} · run folder {}",
        host.trained_model(),
        host.url(),
        plan.persona,
        super::name(plan.method),
        plan.seed,
        plan.folder.display()
    ));
    let (train, held_out) = tasks(host.environment().as_ref(), &plan)?;

    let before = examine(&host, &plan, &held_out, "before", &view).await?;
    view.lock()
        .say(&said("held-out before", before.satisfaction()));

    let talking = Instant::now();
    let rows = || host.engine().map_or(0, |engine| engine.stats().rows);
    let before_talking = rows();
    let interactions = talk(&host, &plan, &train, &view).await?;
    let elapsed = talking.elapsed();
    let figures = Figures {
        tokens_per_second: (rows() - before_talking) as f64 / elapsed.as_secs_f64(),
        ..figures(&host, &interactions, elapsed)?
    };

    let after = examine(&host, &plan, &held_out, "after", &view).await?;
    view.lock()
        .say(&said("held-out after", after.satisfaction()));
    view.lock().close();

    let versions = ledger::lineage::Lineage::read(host.ledger())?
        .all()
        .iter()
        .map(|v| VersionRow {
            version: v.version,
            samples: v.samples.len(),
            metrics: v.metrics.clone(),
        })
        .collect();
    let story = Story {
        model: host.base_model().to_owned(),
        rule: rule(&plan.persona).to_owned(),
        persona: plan.persona.clone(),
        method: super::name(plan.method).to_owned(),
        seed: plan.seed,
        before,
        after,
        interactions: interactions
            .into_iter()
            .map(|(interaction, _)| interaction)
            .collect(),
        versions,
        figures: Figures {
            seconds_total: begun.elapsed().as_secs_f64(),
            peak_memory: peak_memory(),
            ..figures
        },
    };
    host.stop().await?;
    Ok(story)
}

/// The rule in words, for the reader of the report.
fn rule(persona: &str) -> &'static str {
    match persona {
        "brief" => "no markup, at most two sentences",
        "warm" => "addresses the user kindly, ends on encouragement",
        "metric" => "a number first, metric units",
        "student" => "nothing that looks written by a machine, the right number",
        "ta" => "names the mistake kindly, the right number",
        "teacher" => "warm and in detail, the right number",
        _ => "the plugin's own rule",
    }
}

fn said(what: &str, e: Estimate) -> String {
    format!("{what}: {:.2} ({:.2} to {:.2})", e.value, e.low, e.high)
}

fn tasks(environment: &dyn Environment, plan: &Plan) -> anyhow::Result<(Vec<TaskId>, Vec<TaskId>)> {
    let of = |split: &str| -> anyhow::Result<Vec<TaskId>> {
        let prefix = format!("{}/", plan.persona);
        let tasks: Vec<TaskId> = environment
            .tasks(split)?
            .into_iter()
            .filter(|task| task.as_str().starts_with(&prefix))
            .collect();
        anyhow::ensure!(
            !tasks.is_empty(),
            "environment {} has no {split} task of persona `{}` (brief, warm, metric, student, ta and teacher are shipped)",
            environment.card().name,
            plan.persona
        );
        Ok(tasks)
    };
    let train = of("train")?;
    let held_out = of("held-out")?;
    // The order of the conversations is the seed's; the exam is always the same.
    let mut train: Vec<(u64, TaskId)> = train
        .into_iter()
        .map(|task| (Seed::new(plan.seed).derive(task.as_str()).get(), task))
        .collect();
    train.sort();
    let train = train.into_iter().map(|(_, task)| task).collect();
    Ok((train, held_out.into_iter().take(plan.questions).collect()))
}

async fn examine(
    host: &Host,
    plan: &Plan,
    tasks: &[TaskId],
    name: &'static str,
    view: &Arc<Mutex<View>>,
) -> anyhow::Result<Exam> {
    view.lock().stage(&format!("exam {name}"), tasks.len());
    let agent = HttpAgent::new(&host.url(), &host.trained_model(), None).side();
    let environment = Arc::clone(host.environment());
    let (tasks, sampling, view) = (tasks.to_vec(), plan.sampling(), Arc::clone(view));
    // The exam's seed is the same before and after, and for every run: only the weights differ.
    let seed = Seed::new(0).derive("exam");
    let answers = tokio::task::spawn_blocking(move || {
        exam::sit(
            environment.as_ref(),
            &agent,
            &tasks,
            &sampling,
            seed,
            name,
            &|done| view.lock().at(done),
        )
    })
    .await??;
    let kl_to_base = kl_to_base(host, &answers, name).await?;
    Ok(Exam {
        answers,
        kl_to_base,
    })
}

/// Mean over the exam replies' tokens of `log π_θ − log π_base`, both at the sampling temperature.
async fn kl_to_base(host: &Host, answers: &[Answer], name: &str) -> anyhow::Result<f64> {
    if answers
        .iter()
        .all(|answer| PolicyVersion::new(answer.version) == PolicyVersion::BASE)
    {
        return Ok(0.0);
    }
    let engine = host.engine().context("the engine has stopped")?;
    let prefix = format!("exam-{name}-");
    let turns: Vec<_> = turns(host.ledger())?
        .into_iter()
        .filter(|record| record.turn.session.as_str().starts_with(&prefix))
        .collect();
    tokio::task::spawn_blocking(move || {
        let (mut sum, mut tokens) = (0.0, 0usize);
        for TurnRecord { turn, .. } in turns {
            let base = engine.score(ScoreRequest {
                weights: Weights::Base,
                temperature: turn.sampling.logprob_temperature(),
                continuations: vec![turn.response],
                prompt: turn.prompt,
            })?;
            for (own, base) in turn.logprobs.iter().zip(base.iter().flatten()) {
                sum += f64::from(*own) - f64::from(*base);
                tokens += 1;
            }
        }
        Ok(sum / tokens.max(1) as f64)
    })
    .await?
}

fn turns(ledger: &Ledger) -> anyhow::Result<Vec<TurnRecord>> {
    ledger
        .by_kind(TURN, Seq::FIRST)
        .map(|record| Ok(loops::records::decode(&record?)?))
        .collect()
}

fn judged(ledger: &Ledger) -> anyhow::Result<Vec<(i64, JudgedRecord)>> {
    ledger
        .by_kind(JUDGED, Seq::FIRST)
        .map(|record| {
            let record = record?;
            Ok((record.at_ms, loops::records::decode(&record)?))
        })
        .collect()
}

type Talked = Vec<(Interaction, String)>;

/// Talks until every interaction has happened, was judged, and is trained as far as batches fill.
async fn talk(
    host: &Host,
    plan: &Plan,
    tasks: &[TaskId],
    view: &Arc<Mutex<View>>,
) -> anyhow::Result<Talked> {
    view.lock().stage("talking", plan.interactions);
    let talked: Arc<Mutex<Talked>> = Arc::default();
    let failed: Arc<Mutex<Option<loops::Error>>> = Arc::default();
    let watch = watcher(
        Arc::clone(&talked),
        Arc::clone(&failed),
        Arc::clone(view),
        plan.interactions,
    );
    let agent = HttpAgent::new(&host.url(), &host.trained_model(), None);
    let agent = Arc::new(agent.for_users(&PEOPLE.map(str::to_owned)));
    let mut left = plan.interactions;
    let mut episode = 0;
    let ticker = Ticker::start(host, view);
    while left > 0 {
        // The last conversation is cut so that the number of interactions is what was asked for.
        let turns = left.min(TURNS_PER_EPISODE);
        let together = (left / turns).clamp(1, EPISODES_TOGETHER);
        let config = loops::rollout::Config {
            concurrency: together,
            max_turns: u32::try_from(turns)?,
            sampling: plan.sampling(),
        };
        let assignments = (0..together)
            .map(|_| {
                let task = tasks[episode % tasks.len()].clone();
                let id = EpisodeId::new(format!("{}-{episode}", plan.persona));
                episode += 1;
                Assignment {
                    seed: Seed::new(plan.seed).derive(id.as_str()),
                    group: None,
                    episode: id,
                    task,
                }
            })
            .collect();
        let before = talked.lock().len();
        let rollout =
            host.loops()
                .rollout(config, Arc::clone(host.environment()), agent.clone())?;
        rollout
            .run(assignments, host.shutdown(), Arc::clone(&watch))
            .await?;
        if let Some(error) = failed.lock().take() {
            return Err(anyhow::Error::new(error).context("a conversation failed"));
        }
        let played = talked.lock().len() - before;
        anyhow::ensure!(played > 0, "the conversations ended without a single reply");
        left = left.saturating_sub(played);
        // People type slower than a script: the next conversation begins when the last one has been learned from.
        drain(host, plan).await?;
    }
    ticker.stop();
    let talked = std::mem::take(&mut *talked.lock());
    Ok(talked)
}

fn watcher(
    talked: Arc<Mutex<Talked>>,
    failed: Arc<Mutex<Option<loops::Error>>>,
    view: Arc<Mutex<View>>,
    total: usize,
) -> Watch {
    Arc::new(move |event| match event {
        Event::Turn(played) => {
            let Played {
                asked,
                reply,
                reaction,
                outcome,
                ..
            } = *played;
            let mut talked = talked.lock();
            let user = reaction
                .iter()
                .filter(|m| m.role == Role::User)
                .map(|m| m.content.as_str());
            let interaction = Interaction {
                number: talked.len() + 1,
                said: asked.map(|m| m.content).unwrap_or_default(),
                reply: reply.message.content,
                reaction: user.collect::<Vec<_>>().join("\n"),
                score: outcome.map_or(0.0, |outcome| outcome.score),
                version: reply.version.get(),
                tokens: reply.tokens,
            };
            view.lock().interaction(&interaction, total);
            talked.push((interaction, reply.turn.to_string()));
        }
        Event::Failed { error, .. } => *failed.lock() = Some(error),
        _ => {}
    })
}

/// Waits until everything was judged and no full batch is left.
async fn drain(host: &Host, plan: &Plan) -> anyhow::Result<()> {
    let deadline = Instant::now() + DRAIN;
    let batch = u64::try_from(plan.config.loops.train.batch_size)?;
    loop {
        let status = host.loops().status();
        let depth = |name: &str| status.queues.get(name).map_or(0, |queue| queue.depth);
        if depth("judge") == 0 && depth("train") < batch && status.live == status.version {
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

/// Brings the panel up to date until it is stopped.
struct Ticker(tokio::task::JoinHandle<()>);

impl Ticker {
    fn start(host: &Host, view: &Arc<Mutex<View>>) -> Self {
        let (loops, engine, view) = (host.loops().clone(), host.engine(), Arc::clone(view));
        let ledger = host.ledger().clone();
        Self(tokio::spawn(async move {
            let mut seen = Seq::FIRST;
            let mut last = (
                Instant::now(),
                engine.as_ref().map_or(0, |e| e.stats().rows),
            );
            let mut speed = 0.0;
            loop {
                tokio::time::sleep(REFRESH).await;
                if last.0.elapsed() > Duration::from_secs(2) {
                    let rows = engine.as_ref().map_or(0, |e| e.stats().rows);
                    speed = (rows - last.1) as f64 / last.0.elapsed().as_secs_f64();
                    last = (Instant::now(), rows);
                }
                view.lock().status(&loops.status(), speed);
                for record in ledger.by_kind(JUDGED, seen).flatten() {
                    seen = record.seq.next();
                    if let Ok(judged) = loops::records::decode::<JudgedRecord>(&record) {
                        view.lock().judged(&verdict_line(&judged));
                    }
                }
            }
        }))
    }

    fn stop(self) {
        self.0.abort();
    }
}

fn verdict_line(judged: &JudgedRecord) -> String {
    let sign = |value: Option<VoteValue>| match value {
        Some(VoteValue::Positive) => "+",
        Some(VoteValue::Negative) => "−",
        Some(VoteValue::Ambiguous) => "0",
        None => "?",
    };
    let votes: String = judged.votes.iter().map(|vote| sign(vote.value)).collect();
    let hint = judged.teachers.first().map_or_else(
        || "no hint".to_owned(),
        |teacher| format!("hint “{}”", short(&teacher.hint.text, 90)),
    );
    format!(
        "votes {votes} → {} · {hint}",
        sign(judged.verdict.map(|v| v.value))
    )
}

fn figures(host: &Host, talked: &Talked, talking: Duration) -> anyhow::Result<Figures> {
    let rule: HashMap<&str, &Interaction> =
        talked.iter().map(|(i, turn)| (turn.as_str(), i)).collect();
    let mut figures = Figures {
        seconds_talking: talking.as_secs_f64(),
        ..Figures::default()
    };
    let (mut agree, mut both) = (0u32, 0u32);
    let closed: HashMap<String, i64> = host
        .ledger()
        .by_kind(loops::records::CLOSED, Seq::FIRST)
        .map(|record| record.map(|record| (record.subject.clone(), record.at_ms)))
        .collect::<Result<_, _>>()?;
    for (at_ms, judged) in judged(host.ledger())? {
        let slot = match judged.verdict.map(|v| v.value) {
            Some(VoteValue::Positive) => 0,
            Some(VoteValue::Negative) => 1,
            Some(VoteValue::Ambiguous) => 2,
            None => 3,
        };
        figures.verdicts[slot] += 1;
        figures.hints += judged.teachers.len() as u64;
        if let Some(interaction) = rule.get(judged.turn.as_str()) {
            figures.tokens_judged += u64::from(interaction.tokens);
            if slot < 2 {
                both += 1;
                agree += u32::from((slot == 0) == (interaction.score >= 0.5));
            }
        }
        // From the reaction's record to the verdict's: waiting for the engine is part of it.
        let since = closed
            .get(judged.turn.as_str())
            .map_or(0, |from| at_ms.saturating_sub(*from).max(0));
        figures.seconds_to_verdict += since as f64 / 1e3;
    }
    let judged = figures.verdicts.iter().sum::<u64>();
    figures.seconds_to_verdict /= judged.max(1) as f64;
    figures.judge_agreement = (both > 0).then(|| f64::from(agree) / f64::from(both));
    for version in ledger::lineage::Lineage::read(host.ledger())?.all() {
        let metric = |name: &str| version.metrics.get(name).copied().unwrap_or(0.0);
        figures.tokens_trained += metric("tokens") as u64;
        figures.mismatched += metric("mismatched") as u64;
        figures.seconds_training += metric("seconds");
    }
    Ok(figures)
}
