//! `[plugins.config.openenv]`: what the protocol does not say about an environment, and how much a server may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Tasks of a split at most: they are listed whole.
const TASKS: u64 = 1_000_000;

/// `[plugins.config.openenv]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The sum of an episode's rewards that scores 0. What is below counts as it.
    pub reward_min: f64,
    /// The sum that scores 1. What is above counts as it.
    pub reward_max: f64,
    /// Added to the sum for every reply that is no action. Less than nothing where not acting would pay better than acting badly.
    pub invalid_reward: f64,
    /// Tasks of the split `train`. A task is a seed; every seed that ends in 9 is held out.
    pub train_tasks: u64,
    /// Tasks of the split `held-out`.
    pub held_out_tasks: u64,
    /// Turns after which an episode that does not end by itself is over. Many environments have no end of their own.
    pub max_turns: u32,
    /// Sessions at once. OpenEnv's servers allow one if they are not told otherwise (`max_concurrent_envs`).
    pub sessions: usize,
    /// How long an episode waits for one of them.
    #[serde(with = "humantime_serde")]
    pub session_wait: Duration,
    /// How long a server may take to accept a connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long it may take for one answer, all of it.
    #[serde(with = "humantime_serde")]
    pub call_timeout: Duration,
    /// Largest answer, in bytes.
    pub max_message_bytes: usize,
    /// Longest observation as text, in bytes: what the policy reads.
    pub max_text_bytes: usize,
    /// Told to the policy before the first observation, instead of what the server's schema says about actions.
    pub instructions: Option<String>,
    /// The field of an action that takes the reply's text, where the schema leaves a choice.
    pub action_field: Option<String>,
    /// Sent with every reset, beside the seed.
    pub reset: toml::Table,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            reward_min: 0.0,
            reward_max: 1.0,
            invalid_reward: 0.0,
            train_tasks: 1_000,
            held_out_tasks: 100,
            max_turns: 50,
            sessions: 1,
            session_wait: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(60),
            max_message_bytes: 1 << 20,
            max_text_bytes: 32 << 10,
            instructions: None,
            action_field: None,
            reset: toml::Table::new(),
        }
    }
}

impl Config {
    /// Reads a recipe's section, and checks its ranges.
    ///
    /// # Errors
    /// The key that is unknown, of another type or out of range.
    pub fn read(section: &toml::Table) -> anyhow::Result<Self> {
        let config: Self = section.clone().try_into()?;
        let (min, max) = (config.reward_min, config.reward_max);
        anyhow::ensure!(
            min < max && (max - min).is_finite(),
            "`reward-min` is {min} and `reward-max` is {max}; the first must be less"
        );
        anyhow::ensure!(
            config.invalid_reward.is_finite(),
            "`invalid-reward` is no finite number"
        );
        let counts = [
            ("train-tasks", config.train_tasks),
            ("held-out-tasks", config.held_out_tasks),
        ];
        for (key, value) in counts {
            anyhow::ensure!(
                value <= TASKS,
                "`{key}` is {value}; at most {TASKS} are allowed"
            );
        }
        anyhow::ensure!(
            (1..=100_000).contains(&config.max_turns),
            "`max-turns` is {}; 1 to 100000 are allowed",
            config.max_turns
        );
        anyhow::ensure!(
            (1..=1024).contains(&config.sessions),
            "`sessions` is {}; 1 to 1024 are allowed",
            config.sessions
        );
        let times = [
            ("session-wait", config.session_wait),
            ("connect-timeout", config.connect_timeout),
            ("call-timeout", config.call_timeout),
        ];
        for (key, value) in times {
            anyhow::ensure!(
                !value.is_zero() && value <= Duration::from_secs(86_400),
                "`{key}` must be more than nothing and at most a day"
            );
        }
        let sizes = [
            ("max-message-bytes", config.max_message_bytes),
            ("max-text-bytes", config.max_text_bytes),
        ];
        for (key, value) in sizes {
            anyhow::ensure!(
                (1 << 10..=1 << 28).contains(&value),
                "`{key}` is {value}; 1 KiB to 256 MiB are allowed"
            );
        }
        anyhow::ensure!(
            !config.reset.contains_key("seed"),
            "`reset` must not set `seed`: the seed is the task"
        );
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Config> {
        Config::read(&text.parse::<toml::Table>()?)
    }

    #[test]
    fn an_empty_section_is_the_default() {
        assert_eq!(read("").unwrap(), Config::default());
    }

    #[test]
    fn what_is_unknown_or_out_of_range_is_refused_by_name() {
        for (text, key) in [
            ("reward-mim = 1.0", "reward-mim"),
            ("reward-min = 1.0", "reward-max"),
            ("reward-max = inf", "reward-max"),
            ("invalid-reward = nan", "invalid-reward"),
            ("sessions = 0", "sessions"),
            ("max-turns = 0", "max-turns"),
            ("call-timeout = \"0s\"", "call-timeout"),
            ("max-text-bytes = 3", "max-text-bytes"),
            ("train-tasks = 1000000000", "train-tasks"),
            ("reset = { seed = 3 }", "seed"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(key), "{text}: {error}");
        }
    }
}
