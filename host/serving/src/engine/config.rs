//! `[engine]` of the host's configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// On two cores a step of 128 rows of a 135M model takes a tenth of a second.
const PREFILL_ROWS: usize = 128;

/// A GPU's products reach their speed at some thousands of rows; these of a 4B model take an H200 some 40 ms, reckoned from six layers.
const PREFILL_ROWS_ON_A_GPU: usize = 2048;

/// `[engine]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Most tokens of prompt and reply together; never more than the model's own, or than `kv-bytes` can hold.
    pub context: usize,
    /// Most sequences computed at once; the others wait.
    pub max_sequences: usize,
    /// Most of them for the loops' own work (votes, hints, teacher log-probs).
    pub max_loop_sequences: usize,
    /// Most versions of trained adapters that running sequences hold at once: each keeps the one that it began with. One of them is the
    /// loops' own, for the version that the gate examines. A request for one more waits until the last reply of one of them has ended;
    /// others pass it meanwhile. At least 2.
    pub max_versions: usize,
    /// Rows of prompts in one step. A long prompt is taken in pieces of this size, between the tokens of others. 0 takes what suits where
    /// the model computes: 128 on cores, 2,048 on a GPU.
    pub prefill_rows: usize,
    /// Memory for keys and values of running sequences.
    pub kv_bytes: u64,
    /// Memory for keys and values that are kept for prompts that begin alike; 0 keeps none.
    pub prefix_bytes: u64,
    /// Most requests that wait; more are refused (429).
    pub max_waiting: usize,
    /// Most requests of one tenant that wait.
    pub max_waiting_per_tenant: usize,
    /// How long a request may wait for its turn; then it is told to try again (503).
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            context: 8192,
            max_sequences: 16,
            max_loop_sequences: 8,
            // A reply of a minute sees a few steps of training on two cores; short ones beside it are of the newest versions. One more
            // is examined.
            max_versions: 6,
            prefill_rows: 0,
            kv_bytes: 1 << 30,
            prefix_bytes: 256 << 20,
            max_waiting: 256,
            max_waiting_per_tenant: 64,
            max_wait: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// [`Config::prefill_rows`], where a model computes on a GPU or not.
    pub fn prompt_rows(&self, on_gpu: bool) -> usize {
        match self.prefill_rows {
            0 if on_gpu => PREFILL_ROWS_ON_A_GPU,
            0 => PREFILL_ROWS,
            rows => rows,
        }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("context", self.context, 2),
            ("max-sequences", self.max_sequences, 1),
            ("max-loop-sequences", self.max_loop_sequences, 1),
            ("max-versions", self.max_versions, 2),
            ("max-waiting", self.max_waiting, 1),
            ("max-waiting-per-tenant", self.max_waiting_per_tenant, 1),
        ];
        for (key, value, least) in sizes {
            if value < least {
                let rule = if least == 2 {
                    "at least 2"
                } else {
                    "at least 1"
                };
                return Err(Error::Setting {
                    key,
                    value: value.to_string(),
                    rule,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_prompts_follow_the_device_unless_they_are_set() {
        let set = Config {
            prefill_rows: 32,
            ..Config::default()
        };
        for (config, on_cores, on_a_gpu) in [(Config::default(), 128, 2048), (set, 32, 32)] {
            assert_eq!(config.prompt_rows(false), on_cores);
            assert_eq!(config.prompt_rows(true), on_a_gpu);
        }
    }
}
