//! `[engine]` of the host's configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

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
    /// Rows of prompts in one step. A long prompt is taken in pieces of this size, between the tokens of others.
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
            // On two cores a step of 128 rows of a 135M model takes about a quarter of a second.
            prefill_rows: 128,
            kv_bytes: 1 << 30,
            prefix_bytes: 256 << 20,
            max_waiting: 256,
            max_waiting_per_tenant: 64,
            max_wait: Duration::from_secs(60),
        }
    }
}

impl Config {
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
            ("prefill-rows", self.prefill_rows, 1),
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
