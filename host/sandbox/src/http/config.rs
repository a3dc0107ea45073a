//! What the operator decides about requests over HTTP.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

use super::{headers, secret, target::Origin};

/// Listed hosts. By default there is none, and nothing is reached.
///
/// ```toml
/// [http.hosts."https://api.example.com"]
/// path = "/v1/"
/// methods = ["get", "post"]
/// secrets = { "authorization" = "Bearer env:EXAMPLE_KEY" }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// What may be reached, by exact origin: scheme, host, and the port where it is not the scheme's own. No wildcards: a name is
    /// what somebody vouches for.
    pub hosts: BTreeMap<String, Host>,
    /// Most requests under way at once, of all guests together.
    pub at_once: usize,
}

/// One listed host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Host {
    /// Headers that the host adds to every request, by name: `env:NAME` is the value of an environment variable, `file:PATH` what is in
    /// a file, and a word before it stays, as in `Bearer env:NAME`. Read once, when the first guest asks. No guest sees a value or can
    /// send a header of that name; a value has at least 8 bytes, because it is masked where a response repeats it.
    pub secrets: BTreeMap<String, String>,
    /// Whether the name may stand for this machine or a private network. Never for a cloud's metadata service.
    pub private: bool,
    /// Only this path and what is below it.
    pub path: String,
    /// Only these methods.
    pub methods: Vec<Method>,
    /// Longest time of one request, from the resolution of the name to the last byte of the answer.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Largest body of a request.
    pub request_bytes: usize,
    /// Largest body of a response.
    pub response_bytes: usize,
    /// Most requests of one episode, or of one call on live traffic.
    pub requests: u32,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the protocol's own names")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            at_once: 32,
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self {
            secrets: BTreeMap::new(),
            private: false,
            path: "/".to_owned(),
            // What only reads; the rest takes a word of the operator's.
            methods: vec![Method::Get, Method::Head],
            timeout: Duration::from_secs(10),
            request_bytes: 256 << 10,
            response_bytes: 1 << 20,
            requests: 100,
        }
    }
}

impl Config {
    /// Checks every origin, range and name of a secret; reads no secret.
    ///
    /// # Errors
    /// [`Error::Refused`] names the key.
    pub fn validate(&self) -> Result<()> {
        let refuse = |why: String| {
            let action = "configure http".to_owned();
            Err(Error::Refused { action, why })
        };
        if !(1..=1_024).contains(&self.at_once) {
            return refuse(format!("`at-once` is {}, not 1 to 1,024", self.at_once));
        }
        for (origin, host) in &self.hosts {
            let checked = Origin::of_config(origin).and_then(|parsed| host.check(&parsed));
            if let Err(why) = checked {
                return refuse(format!("the host `{origin}`: {why}"));
            }
        }
        Ok(())
    }
}

impl Host {
    fn check(&self, origin: &Origin) -> std::result::Result<(), String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-_.~".contains(&b);
        let is_up = |segment: &str| matches!(segment, "." | "..");
        if !self.path.starts_with('/')
            || !self.path.bytes().all(plain)
            || self.path.split('/').any(is_up)
        {
            return Err(format!(
                "`path` is `{}`, not `/` or letters, digits, `-_.~` and `/` after it",
                self.path
            ));
        }
        if self.methods.is_empty() {
            return Err("`methods` is empty, so that nothing could be asked".to_owned());
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&self.timeout) {
            return Err(format!(
                "`timeout` is {:?}, not 100 ms to 60 s",
                self.timeout
            ));
        }
        for (key, value, most) in [
            ("request-bytes", self.request_bytes, 4 << 20),
            ("response-bytes", self.response_bytes, 16 << 20),
        ] {
            if value > most {
                return Err(format!("`{key}` is {value}, and {most} is the most"));
            }
        }
        for (name, value) in &self.secrets {
            headers::check_secret_name(name)?;
            secret::parse(value).map_err(|why| format!("the secret `{name}` {why}"))?;
        }
        // Attack: whoever listens on the way reads it.
        if !self.secrets.is_empty() && !origin.is_https() && !self.private {
            return Err(
                "it has secrets, which would cross a network in the clear; use https".to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(origin: &str, change: impl FnOnce(&mut Host)) -> String {
        let mut host = Host::default();
        change(&mut host);
        let mut config = Config::default();
        config.hosts.insert(origin.to_owned(), host);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_default_reaches_nothing_and_survives_json() {
        let mut config = Config::default();
        assert!(config.hosts.is_empty());
        config
            .hosts
            .insert("https://a.example".into(), Host::default());
        config.validate().unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    }

    #[test]
    fn an_origin_is_written_in_one_way() {
        for (origin, expected) in [
            ("https://a.example/", "`https://a.example`"),
            ("https://A.example", "`https://a.example`"),
            ("https://a.example:443", "`https://a.example`"),
            ("https://0x7f.1", "`https://127.0.0.1`"),
            (
                "https://münchen.example",
                "`https://xn--mnchen-3ya.example`",
            ),
            ("https://u@a.example", "`https://a.example`"),
            ("https://a.example/v1", "`path`"),
            ("https://*.example", "stands for nothing"),
            ("ftp://a.example", "scheme"),
            ("a.example", "no URL"),
        ] {
            let why = refused(origin, |_| {});
            assert!(why.contains(expected), "{origin}: {why}");
        }
    }

    #[test]
    fn a_value_out_of_range_is_refused_by_name() {
        let origin = "https://a.example";
        for path in ["", "v1", "/a/../b", "/a%2f", "/a?b", "/a;b"] {
            assert!(refused(origin, |h| h.path = path.into()).contains("`path`"));
        }
        assert!(refused(origin, |h| h.methods.clear()).contains("`methods`"));
        assert!(refused(origin, |h| h.timeout = Duration::ZERO).contains("`timeout`"));
        assert!(refused(origin, |h| h.request_bytes = 1 << 30).contains("`request-bytes`"));
        assert!(refused(origin, |h| h.response_bytes = 1 << 30).contains("`response-bytes`"));
        let config = Config {
            at_once: 0,
            ..Config::default()
        };
        assert!(
            config
                .validate()
                .unwrap_err()
                .to_string()
                .contains("`at-once`")
        );
        let unknown =
            serde_json::from_str::<Config>(r#"{"hosts": {"https://a.example": {"method": []}}}"#);
        assert!(unknown.unwrap_err().to_string().contains("`method`"));
    }

    #[test]
    fn a_secret_has_a_header_of_its_own_a_source_and_a_private_way() {
        for (origin, name, value, expected) in [
            ("https://a.example", "authorization", "hunter22", "env:NAME"),
            ("https://a.example", "authorization", "env:", "env:NAME"),
            (
                "https://a.example",
                "authorization",
                "Bearer\nenv:A",
                "env:NAME",
            ),
            ("https://a.example", "Authorization", "env:A", "lower case"),
            ("https://a.example", "host", "env:A", "`host`"),
            ("https://a.example", "x y", "env:A", "lower case"),
            ("http://a.example", "authorization", "env:A", "in the clear"),
        ] {
            let why = refused(origin, |h| {
                h.secrets.insert(name.into(), value.into());
            });
            assert!(why.contains(expected), "{name} {value}: {why}");
        }
    }
}
