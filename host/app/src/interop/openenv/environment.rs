//! A server as an environment, and one of its sessions as an episode.
//!
//! | here | there |
//! |---|---|
//! | task `seed-17` | `reset` with `seed: 17`; the episode's own seed changes nothing |
//! | observation | a user's message ([`super::wire::text`]) |
//! | action | the reply, put into the server's schema ([`super::action`]) |
//! | outcome | the sum of all rewards, from `reward-min` to `reward-max` |
//!
//! A session cannot be saved. An episode that a restart interrupts is played again from its recorded actions, which comes to the same
//! only where the server does the same for the same seed.

use std::sync::Arc;

use anyhow::Context as _;
use rl::{
    Action, Classification, Done, Environment, Episode, Error, Message, ModalityCard, NextState,
    Observation, Outcome, RequestView, Result, Seed, Step, TaskId, Turn,
};
use serde_json::{Value, json};

use super::{
    Config, SECTION,
    action::Form,
    session::{Server, Session, Stepped},
    slots::{Slot, Slots},
    wire::{Observed, short, text},
};

/// One seed of so many is held out, whatever the counts: what was trained once is never examined later.
const HELD_OUT: u64 = 10;

/// A server that speaks OpenEnv.
#[derive(Debug)]
pub struct Remote {
    server: Server,
    config: Config,
    form: Form,
    card: ModalityCard,
    slots: Arc<Slots>,
}

/// Asks the server at this address what it is; `section` is `[plugins.config.openenv]`.
///
/// # Errors
/// The address or the section is wrong, nobody answers, or whoever answers does not speak OpenEnv.
pub fn open(address: &str, section: &toml::Table) -> anyhow::Result<Remote> {
    let config = Config::read(section).context("[plugins.config.openenv]")?;
    let server = Server::new(address, &config).map_err(anyhow::Error::msg)?;
    let remote = Remote::ask(server, config);
    remote.with_context(|| format!("failed to use the environment {SECTION}:{address}"))
}

impl Remote {
    fn ask(server: Server, config: Config) -> Result<Self> {
        let schema = server.get("/schema")?.ok_or_else(|| {
            server.wrong(
                "/schema",
                "there is no such route: it does not speak OpenEnv",
            )
        })?;
        let form = Form::read(&schema["action"], config.action_field.as_deref())
            .map_err(|why| server.wrong("/schema", why))?;
        let about = server.get("/metadata")?.unwrap_or_default();
        let said = |key: &str, else_: &str| short(about[key].as_str().unwrap_or(else_));
        let card = ModalityCard {
            name: format!("{SECTION}/{}", said("name", "environment")),
            version: said("version", "unknown"),
            tools: Vec::new(),
        };
        let slots = Slots::new(config.sessions);
        Ok(Self {
            server,
            config,
            form,
            card,
            slots,
        })
    }

    fn refused(&self, why: String) -> Error {
        Error::Refused {
            what: self.server.name(),
            why,
        }
    }
}

/// The seeds of a split, in order.
fn seeds(held_out: bool, count: u64) -> Vec<TaskId> {
    let is_held_out = |seed: &u64| seed % HELD_OUT == HELD_OUT - 1;
    (0..)
        .filter(|seed| is_held_out(seed) == held_out)
        .take(usize::try_from(count).unwrap_or(usize::MAX))
        .map(|seed| TaskId::new(format!("seed-{seed}")))
        .collect()
}

impl Environment for Remote {
    fn card(&self) -> ModalityCard {
        self.card.clone()
    }

    fn classify(&self, _request: RequestView<'_>) -> Result<Classification> {
        Ok(Classification::Main)
    }

    fn next_state(&self, _turn: &Turn, new_messages: &[Message]) -> Result<Option<NextState>> {
        Ok((!new_messages.is_empty()).then(|| NextState::of(new_messages.to_vec())))
    }

    fn session_ends(&self, _messages: &[Message]) -> Result<bool> {
        Ok(false)
    }

    fn tasks(&self, split: &str) -> Result<Vec<TaskId>> {
        match split {
            "train" => Ok(seeds(false, self.config.train_tasks)),
            "held-out" => Ok(seeds(true, self.config.held_out_tasks)),
            other => Err(self.refused(format!(
                "there is no split `{other}`: it has `train` and `held-out`"
            ))),
        }
    }

    fn start(&self, task: &TaskId, _seed: Seed) -> Result<Box<dyn Episode>> {
        let seed: u64 = task
            .as_str()
            .strip_prefix("seed-")
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| {
                self.refused(format!(
                    "there is no task `{task}`: tasks are seed-0, seed-1, …"
                ))
            })?;
        let slot = self
            .slots
            .take(self.config.session_wait)
            .ok_or_else(|| Error::Unavailable {
                what: self.server.name(),
                why: format!(
                    "all {} sessions were in use for {:?}; `sessions` and `session-wait` in [plugins.config.openenv] say how many and how long",
                    self.config.sessions, self.config.session_wait
                ),
            })?;
        let mut session = self.server.session()?;
        let reset = self.reset_data(seed)?;
        let first = session.reset(&reset)?;
        if first.done {
            let why = "the episode was over before the first action";
            return Err(self.server.wrong("reset", why));
        }
        let shown = self.shown(&first)?;
        let told = match &self.config.instructions {
            Some(told) => told.clone(),
            None => self.form.describe(),
        };
        Ok(Box::new(RemoteEpisode {
            beginning: Message::user(format!("{told}\n\n{shown}")),
            remote: Limits {
                server: self.server.clone(),
                form: self.form.clone(),
                config: self.config.clone(),
            },
            session: Some(session),
            total: first.reward.unwrap_or(0.0),
            rewarded: first.reward.is_some(),
            turns: 0,
            invalid: 0,
            _slot: slot,
        }))
    }
}

impl Remote {
    fn reset_data(&self, seed: u64) -> Result<Value> {
        let mut data = serde_json::to_value(&self.config.reset)
            .map_err(|error| self.refused(format!("`reset` cannot be sent: {error}")))?;
        data["seed"] = json!(seed);
        Ok(data)
    }

    fn shown(&self, observed: &Observed) -> Result<String> {
        shown(&self.server, &self.config, "reset", observed)
    }
}

fn shown(server: &Server, config: &Config, function: &str, observed: &Observed) -> Result<String> {
    let text = text(&observed.observation);
    if text.len() > config.max_text_bytes {
        let why = format!(
            "the observation has {} bytes of text; `max-text-bytes` allows {}",
            text.len(),
            config.max_text_bytes
        );
        return Err(server.wrong(function, why));
    }
    Ok(text)
}

/// What an episode needs of its environment.
struct Limits {
    server: Server,
    form: Form,
    config: Config,
}

struct RemoteEpisode {
    beginning: Message,
    remote: Limits,
    /// None when the episode is over or the session broke. Dropped before the slot is given back.
    session: Option<Session>,
    total: f64,
    rewarded: bool,
    turns: u32,
    invalid: u32,
    _slot: Slot,
}

impl RemoteEpisode {
    /// Plays the action; the next state's text, and whether the server ended the episode.
    fn play(&mut self, session: &mut Session, action: &Action) -> Result<(String, bool)> {
        let form = &self.remote.form;
        let stepped = match form.action(&action.message.content) {
            Ok(wanted) => session.step(&wanted)?,
            Err(why) => Stepped::NoAction(why),
        };
        let observed = match stepped {
            Stepped::Observed(observed) => observed,
            Stepped::NoAction(why) => {
                // The policy's mistake costs it a turn; it is no failure of the environment's.
                self.invalid += 1;
                self.add(self.remote.config.invalid_reward)?;
                let form = self.remote.form.describe();
                return Ok((format!("That was no action: {why}.\n{form}"), false));
            }
        };
        let text = shown(&self.remote.server, &self.remote.config, "step", &observed)?;
        if let Some(reward) = observed.reward {
            self.add(reward)?;
            self.rewarded = true;
        }
        Ok((text, observed.done))
    }

    fn add(&mut self, reward: f64) -> Result<()> {
        let total = self.total + reward;
        if !total.is_finite() {
            let why = "the sum of its rewards is no finite number";
            return Err(self.remote.server.wrong("step", why));
        }
        self.total = total;
        Ok(())
    }
}

impl Episode for RemoteEpisode {
    fn observe(&mut self) -> Result<Observation> {
        Ok(Observation {
            messages: vec![self.beginning.clone()],
        })
    }

    fn act(&mut self, action: &Action) -> Result<Step> {
        // It comes back only when it can be used again: after an error its answers belong to earlier calls.
        let mut session = self.session.take().ok_or_else(|| Error::Refused {
            what: self.remote.server.name(),
            why: "the episode is over".into(),
        })?;
        let (text, over) = self.play(&mut session, action)?;
        self.turns += 1;
        let done = match (over, self.turns >= self.remote.config.max_turns) {
            (true, _) => Some(Done::Finished),
            (false, true) => Some(Done::TurnLimit),
            (false, false) => None,
        };
        if done.is_none() {
            self.session = Some(session);
        }
        Ok(Step {
            observation: Observation {
                messages: vec![Message::user(text)],
            },
            done,
        })
    }

    fn outcome(&mut self) -> Result<Option<Outcome>> {
        // An environment that took actions and paid for none has no oracle. One that never got an action has its say: were it left
        // out, replies that are no actions would cost nothing.
        if !self.rewarded && (self.turns == 0 || self.turns > self.invalid) {
            return Ok(None);
        }
        let (min, max) = (self.remote.config.reward_min, self.remote.config.reward_max);
        let share = (self.total - min) / (max - min);
        let valid = f64::from(self.turns - self.invalid) / f64::from(self.turns.max(1));
        Ok(Some(Outcome {
            score: share.clamp(0.0, 1.0),
            metrics: vec![
                ("reward-points".into(), self.total),
                (
                    "reward-in-range".into(),
                    f64::from(u8::from((0.0..=1.0).contains(&share))),
                ),
                ("valid-replies".into(), valid),
            ],
        }))
    }

    fn snapshot(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_belongs_to_one_split_whatever_the_counts() {
        let (few, many) = (seeds(false, 20), seeds(false, 2_000));
        assert_eq!((few.len(), many.len()), (20, 2_000));
        assert_eq!(many[..20], few[..]);
        let train: BTreeSet<_> = many.into_iter().collect();
        let held_out = seeds(true, 300);
        assert_eq!(held_out[0].as_str(), "seed-9");
        assert!(held_out.iter().all(|task| !train.contains(task)));
    }

    #[test]
    fn an_address_that_cannot_be_used_is_refused_with_the_reason() {
        for (address, why) in [
            ("https://example.org", "TLS"),
            ("example.org:80", "http://"),
            ("ftp://example.org", "http://"),
            ("http://", "no address"),
            ("http://a/?b", "`?`"),
        ] {
            let error = format!("{:#}", open(address, &toml::Table::new()).unwrap_err());
            assert!(error.contains(why), "{address}: {error}");
        }
    }
}
