//! The gate between training and users: a version that is not live yet answers a canary set, and guards compare it with the
//! live version and with the base.
//!
//! Blocking and a function of its arguments: equal weights, settings and memory give equal findings, bit for bit, so that a
//! replay of the ledger comes to the same verdicts (only [`Examination::seconds`] is the clock's). It promotes nothing and
//! records nothing; who asks does. Start at [`examine`]; what is compared is in `guards`, the settings in [`GateConfig`].

mod asking;
mod config;
mod guards;

use std::{collections::BTreeMap, time::Instant};

use rl::{AdapterName, Policy, PolicyVersion, Seed, Weights};
use serde::{Deserialize, Serialize};

use self::{
    asking::{Asker, Replies, Spoken},
    guards::{Guards, Scene},
};
pub use self::{
    config::{GateConfig, Limits, Probe, TenantGate},
    guards::Finding,
};
use crate::evidence::Wealth;

/// Who is examined, and against whom.
#[derive(Clone, Copy, Debug)]
pub struct Contest<'a> {
    /// The adapter whose version it is.
    pub adapter: &'a AdapterName,
    /// Where the candidate answers, for example [`rl::candidate_of`] the adapter.
    pub candidate: &'a Weights,
    /// The version that it would become. Each examination of a line has another; draws are derived from it.
    pub version: PolicyVersion,
    /// Where the live version answers.
    pub live: &'a Weights,
    /// The live version.
    pub live_version: PolicyVersion,
}

/// What one examination leaves for the next. It is in every [`Examination`], so that the ledger has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GateMemory {
    /// The version that passed last.
    passed: Option<PolicyVersion>,
    /// Its replies, so that the live version need not be asked again; and what they answered.
    replies: Vec<Spoken>,
    canary: u64,
    /// Evidence about the task score of the line that leads to `passed`, for the host (`""`) and each tenant.
    scores: BTreeMap<String, Wealth>,
}

/// A probe, asked and answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProbeReply {
    /// What was asked.
    pub prompt: String,
    /// What the candidate replied.
    pub reply: String,
    /// What the live version replied (to its own draw, when it was examined itself).
    pub live_reply: String,
    /// What the base replied.
    pub base_reply: String,
    /// Tokens of the candidate's reply.
    pub tokens: u64,
    /// Whether the candidate did the task; none when the probe is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<bool>,
    /// Why its reply is broken, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// What the gate says about a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Examination {
    /// Whether it may be served: every guard of the host and of every tenant passed.
    pub passed: bool,
    /// The digest of the weights that answered; must be the candidate's.
    pub digest: String,
    /// Every guard.
    pub guards: Vec<Finding>,
    /// Every probe.
    pub replies: Vec<ProbeReply>,
    /// The host's guards' numbers by name, as far as they are finite; and `nats-live`, the KL to the live version for a whole reply.
    pub metrics: BTreeMap<String, f64>,
    /// What the next examination must be given.
    pub memory: GateMemory,
    /// How long it took.
    pub seconds: f64,
}

impl Examination {
    /// Why it did not pass, in one line; none when it did.
    pub fn why(&self) -> Option<String> {
        let failed: Vec<String> = self
            .guards
            .iter()
            .filter(|finding| !finding.passed)
            .map(|finding| match &finding.tenant {
                Some(tenant) => format!("{} (of {tenant}): {}", finding.name, finding.why),
                None => format!("{}: {}", finding.name, finding.why),
            })
            .collect();
        (!failed.is_empty()).then(|| failed.join("; "))
    }
}

/// Examines a candidate. `memory` is what the last examination of the adapter left ([`Examination::memory`]), and empty for
/// the first; it moves only when the candidate passes, so that a refused version leaves no trace in the next one's verdict.
///
/// # Errors
/// Those of [`Policy`]; [`rl::Error::Failed`] when other weights answered half-way.
pub fn examine(
    config: &GateConfig,
    policy: &dyn Policy,
    contest: &Contest<'_>,
    memory: &mut GateMemory,
) -> rl::Result<Examination> {
    let started = Instant::now();
    let asker = Asker::new(config, policy, contest)?;
    let canary = canary(config);
    let follows = memory.passed == Some(contest.live_version);
    let kept = (follows && memory.canary == canary).then(|| memory.replies.clone());
    let live_is_base =
        contest.live_version == PolicyVersion::BASE || *contest.live == Weights::Base;
    let asked_live = kept.is_none() && !live_is_base;
    let mut who = vec![contest.candidate, &Weights::Base];
    who.extend(asked_live.then_some(contest.live));
    let mut sets = asker.replies(&who)?.into_iter();
    let mut next = || sets.next().map(|set: Replies| (set.spoken, set.digest));
    let (candidate, digest) = next().unwrap_or_default();
    let (base, _) = next().unwrap_or_default();
    let live = match (kept, next()) {
        (Some(kept), _) => kept,
        (None, Some((asked, _))) => asked,
        (None, None) => base.clone(),
    };
    let mut items: Vec<(&Weights, &[Spoken])> =
        vec![(&Weights::Base, &candidate), (contest.candidate, &live)];
    if !live_is_base {
        items.push((contest.live, &candidate));
    }
    let scores = asker.scores(&items)?;
    let (under_base, live_under_candidate) = (&scores[0], &scores[1]);
    let under_live = scores.get(2).unwrap_or(under_base);
    let elsewhere = asker.elsewhere(&[&candidate, &base])?;
    let scenes: Vec<Scene<'_>> = config
        .all_probes()
        .into_iter()
        .enumerate()
        .map(|(at, probe)| Scene {
            probe,
            candidate: &candidate[at],
            live: &live[at],
            base: &base[at],
            under_live: &under_live[at],
            under_base: &under_base[at],
            elsewhere: [elsewhere[0][at], elsewhere[1][at]],
            live_under_candidate: &live_under_candidate[at],
        })
        .collect();
    // After a revert another line begins, with evidence of its own.
    let mut lines = if follows || memory.passed.is_none() {
        memory.scores.clone()
    } else {
        BTreeMap::new()
    };
    let guards = all_guards(config, &scenes, &mut lines)?;
    let passed = guards.iter().all(|finding| finding.passed);
    let replies = scenes.iter().map(reply).collect();
    if passed {
        *memory = GateMemory {
            passed: Some(contest.version),
            replies: candidate.clone(),
            canary,
            scores: lines,
        };
    }
    let mut metrics: BTreeMap<String, f64> = guards
        .iter()
        .filter(|finding| finding.tenant.is_none())
        .filter_map(|finding| Some((finding.name.clone(), finding.value?)))
        .collect();
    if let Some(token) = metrics.get("kl-live") {
        let hosts = &candidate[..config.probes.len().min(candidate.len())];
        let tokens: usize = hosts.iter().map(|spoken| spoken.tokens.len()).sum();
        let nats = token.max(0.0) * tokens as f64 / hosts.len().max(1) as f64;
        metrics.insert("nats-live".to_owned(), nats);
    }
    Ok(Examination {
        passed,
        digest,
        metrics,
        guards,
        replies,
        memory: memory.clone(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// The host's guards on its probes, and every tenant's on the host's and its own.
fn all_guards(
    config: &GateConfig,
    scenes: &[Scene<'_>],
    lines: &mut BTreeMap<String, Wealth>,
) -> rl::Result<Vec<Finding>> {
    let mut line = |name: &str, guards: Guards<'_>| {
        let line = lines.entry(name.to_owned());
        guards.findings(line.or_insert_with(Wealth::in_rounds))
    };
    let hosts = config.probes.len().min(scenes.len());
    let (common, mut rest) = scenes.split_at(hosts);
    let host = Guards {
        tenant: None,
        limits: &config.limits,
        scenes: common,
    };
    let mut found = line("", host);
    for (name, tenant) in &config.tenants {
        let (own, others) = rest.split_at(tenant.probes.len().min(rest.len()));
        rest = others;
        let limits = config.merged(tenant).map_err(|error| rl::Error::Refused {
            what: "the gate".into(),
            why: error.to_string(),
        })?;
        let scenes: Vec<Scene<'_>> = common.iter().chain(own).copied().collect();
        let guards = Guards {
            tenant: Some(name),
            limits: &limits,
            scenes: &scenes,
        };
        found.extend(line(name, guards));
    }
    Ok(found)
}

/// Two configurations with the same number ask the same.
fn canary(config: &GateConfig) -> u64 {
    let mut seed = Seed::new(u64::from(config.reply_tokens));
    seed = seed.derive(&config.temperature.to_bits().to_string());
    for probe in config.all_probes() {
        seed = seed.derive(&probe.prompt);
    }
    seed.get()
}

fn reply(scene: &Scene<'_>) -> ProbeReply {
    ProbeReply {
        prompt: scene.probe.prompt.clone(),
        reply: scene.candidate.text.clone(),
        live_reply: scene.live.text.clone(),
        base_reply: scene.base.text.clone(),
        tokens: scene.candidate.tokens.len() as u64,
        done: scene.tasks().map(|(done, _)| done),
        broken: scene.candidate.broken().map(str::to_owned),
    }
}
