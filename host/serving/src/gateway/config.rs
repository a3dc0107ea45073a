//! `[gateway]` of the host's configuration.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::auth::KeyConfig;
use crate::error::{Error, Result};

/// As many as have descriptors on most systems, and as 2 GiB hold.
const MOST_CONNECTIONS: usize = 1 << 16;

/// `[gateway]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where to listen. An address that is not loopback needs `keys`.
    pub listen: SocketAddr,
    /// API keys; when there are any, every caller needs one.
    pub keys: Vec<KeyConfig>,
    /// Most connections that are open at once. When there are as many, a new one takes the place of one without a
    /// request. 2 to 65536.
    pub max_connections: usize,
    /// Most tokens of a reply whose request names no limit.
    pub default_max_tokens: u32,
    /// Largest body of a request.
    pub max_body_bytes: usize,
    /// Most bytes of bodies of all requests that are worked on, from their arrival until their turns are durable. A tenant has half of it, or
    /// one of the largest, at most.
    pub body_bytes: usize,
    /// How long a request may wait until there is room for its body; then it is told to try again (503).
    #[serde(with = "humantime_serde")]
    pub max_body_wait: Duration,
    /// How often a comment keeps a silent stream alive.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// How long streams may go on after the host was told to stop; then they end and are recorded as cut off.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8321)),
            keys: Vec::new(),
            // A tenant's half is more than it may have wait and run at once (64 and 16).
            max_connections: 256,
            // Longer than nearly every chat reply; a small model that loops is stopped after about a minute on a CPU.
            default_max_tokens: 1024,
            // A context of 128k tokens is about half a megabyte; agents repeat it with tools and JSON around it.
            max_body_bytes: 8 << 20,
            // Two of the largest, or all that can wait and run (256 and 16) with 60 KB each.
            body_bytes: 16 << 20,
            // As long as a client's connection may take; its request waits again for its turn.
            max_body_wait: Duration::from_secs(10),
            // Half of the shortest idle time-out in common proxies (30 s).
            keep_alive: Duration::from_secs(15),
            drain: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Checks ranges, and that a public address has keys.
    ///
    /// # Errors
    /// [`Error::KeysRequired`] and [`Error::Setting`].
    pub fn validate(&self) -> Result<()> {
        if !self.listen.ip().is_loopback() && self.keys.is_empty() {
            return Err(Error::KeysRequired { addr: self.listen });
        }
        let least = [
            ("default-max-tokens", u64::from(self.default_max_tokens)),
            ("max-body-bytes", self.max_body_bytes as u64),
            (
                "keep-alive",
                u64::try_from(self.keep_alive.as_millis()).unwrap_or(u64::MAX),
            ),
        ];
        for (key, value) in least {
            if value == 0 {
                return Err(Error::Setting {
                    key,
                    value: value.to_string(),
                    rule: "above 0",
                });
            }
        }
        if !(2..=MOST_CONNECTIONS).contains(&self.max_connections) {
            return Err(Error::Setting {
                key: "max-connections",
                value: self.max_connections.to_string(),
                rule: "2 to 65536",
            });
        }
        if self.body_bytes < self.max_body_bytes {
            return Err(Error::Setting {
                key: "body-bytes",
                value: self.body_bytes.to_string(),
                rule: "at least max-body-bytes",
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_as_many_as_leave_a_place_and_as_there_can_be() {
        for (max_connections, fits) in [(1, false), (2, true), (1 << 16, true), (usize::MAX, false)]
        {
            let config = Config {
                max_connections,
                ..Config::default()
            };
            assert_eq!(config.validate().is_ok(), fits, "{max_connections}");
        }
    }
}
