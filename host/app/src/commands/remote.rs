//! A running host, as commands reach it: over its own HTTP.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

/// Where a running host is, and how to be let in.
#[derive(Debug, Clone, clap::Args)]
pub struct Remote {
    /// The host's address
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8321",
        env = "NEXTSTATE_URL"
    )]
    pub url: String,
    /// The API key, when the host asks for one
    #[arg(
        long,
        value_name = "KEY",
        env = "NEXTSTATE_API_KEY",
        hide_env_values = true
    )]
    pub key: Option<String>,
}

impl Remote {
    fn agent() -> ureq::Agent {
        ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .http_status_as_error(false)
            .build()
            .into()
    }

    fn bearer(&self) -> String {
        self.key
            .as_deref()
            .map(|key| format!("Bearer {key}"))
            .unwrap_or_default()
    }

    /// Gets a JSON document.
    ///
    /// # Errors
    /// The host cannot be reached, or refuses; its own words are in the error.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        let mut response = Self::agent()
            .get(&url)
            .header("authorization", self.bearer())
            .call()
            .with_context(|| {
                format!(
                    "failed to reach a host at {} (is `nextstate serve` running?)",
                    self.url
                )
            })?;
        let status = response.status();
        let body: Value = response.body_mut().read_json().unwrap_or_default();
        anyhow::ensure!(status.is_success(), "GET {url}: {status}: {}", said(&body));
        Ok(body)
    }

    /// Posts a JSON document whose answer comes line by line, for as long as it takes.
    ///
    /// # Errors
    /// As [`Remote::get`].
    pub fn stream(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> anyhow::Result<ureq::BodyReader<'static>> {
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        // An answer may take hours; only reaching the host has a limit.
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(30)))
            .http_status_as_error(false)
            .build()
            .into();
        let mut response = agent
            .post(&url)
            .header("authorization", self.bearer())
            .send_json(body)
            .with_context(|| {
                format!(
                    "failed to reach a host at {} (is `nextstate serve` running? --data DIR works without one)",
                    self.url
                )
            })?;
        let status = response.status();
        if !status.is_success() {
            let body: Value = response.body_mut().read_json().unwrap_or_default();
            anyhow::bail!("{}", refusal(status.as_u16(), &body));
        }
        Ok(response.into_body().into_reader())
    }

    /// Posts a JSON document.
    ///
    /// # Errors
    /// As [`Remote::get`].
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        let mut response = Self::agent()
            .post(&url)
            .header("authorization", self.bearer())
            .send_json(body)
            .with_context(|| {
                format!(
                    "failed to reach a host at {} (is `nextstate serve` running?)",
                    self.url
                )
            })?;
        let status = response.status();
        let body: Value = response.body_mut().read_json().unwrap_or_default();
        anyhow::ensure!(status.is_success(), "POST {url}: {status}: {}", said(&body));
        Ok(body)
    }
}

/// A refusal as a person reads it: the host's own words, and what to do when they are about who asks.
fn refusal(status: u16, body: &Value) -> String {
    match status {
        401 => format!("the host asks for an API key (--key): {}", said(body)),
        404 => format!(
            "the host knows no such request: is it an older one? ({})",
            said(body)
        ),
        _ => said(body),
    }
}

fn said(body: &Value) -> String {
    body["error"]["message"]
        .as_str()
        .unwrap_or("no message")
        .to_owned()
}
