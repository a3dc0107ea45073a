//! The policy as a user meets it, over HTTP: an [`rl::Agent`] that talks to any OpenAI-compatible gateway.
//!
//! The demo's scripted user and `rollout` against a remote host use it. The in-process agent is in `loops`.

use std::time::Duration;

use rl::{
    AgentReply, AgentRequest, Error, Message, PolicyVersion, Result, Role, ToolCall, TurnId,
    TurnKind,
};
use serde_json::{Value, json};

/// The longest wait for one reply: a person would have given up.
const REPLY_TIMEOUT: Duration = Duration::from_secs(300);
/// How often a busy host (429, 503) is asked again before the error is passed on.
const RETRIES: u32 = 8;

/// An agent behind an OpenAI-compatible gateway.
#[derive(Clone, Debug)]
pub struct HttpAgent {
    http: ureq::Agent,
    url: String,
    model: String,
    key: Option<String>,
    kind: TurnKind,
    users: Vec<String>,
}

impl HttpAgent {
    /// An agent that posts to `<base>/v1/chat/completions`, asking for `model`.
    pub fn new(base: &str, model: &str, key: Option<String>) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REPLY_TIMEOUT))
            .http_status_as_error(false)
            .build();
        Self {
            http: config.into(),
            url: format!("{}/v1/chat/completions", base.trim_end_matches('/')),
            model: model.to_owned(),
            key,
            kind: TurnKind::Main,
            users: Vec::new(),
        }
    }

    /// The same agent in the name of these people: each conversation belongs to one of them.
    #[must_use]
    pub fn for_users(mut self, users: &[String]) -> Self {
        self.users = users.to_vec();
        self
    }

    /// The same agent, but its turns are side turns: served and recorded, never trained (exams).
    #[must_use]
    pub fn side(mut self) -> Self {
        self.kind = TurnKind::Side;
        self
    }

    fn body(&self, request: &AgentRequest) -> Value {
        let sampling = &request.sampling;
        let mut body = json!({
            "model": self.model,
            "messages": request.messages.iter().map(message).collect::<Vec<_>>(),
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            // OpenAI's `seed` is a signed 64-bit number.
            "seed": sampling.seed.get() >> 1,
        });
        let bytes = request.session.as_str().bytes();
        let place = bytes.fold(0usize, |sum, byte| sum.wrapping_add(usize::from(byte)));
        if let Some(user) = self.users.get(place % self.users.len().max(1)) {
            body["user"] = json!(user);
        }
        if sampling.top_p < 1.0 {
            body["top_p"] = json!(sampling.top_p);
        }
        if !sampling.stop.is_empty() {
            body["stop"] = json!(sampling.stop);
        }
        if !request.tools.is_empty() {
            body["tools"] = request
                .tools
                .iter()
                .map(|tool| {
                    let parameters: Value =
                        serde_json::from_str(&tool.parameters).unwrap_or_else(|_| json!({}));
                    json!({"type": "function", "function": {
                        "name": tool.name, "description": tool.description, "parameters": parameters,
                    }})
                })
                .collect();
        }
        body
    }

    fn post(&self, request: &AgentRequest) -> Result<Value> {
        let mut post = self
            .http
            .post(&self.url)
            .header("x-session-id", request.session.as_str())
            .header(
                "x-turn-type",
                if self.kind == TurnKind::Side {
                    "side"
                } else {
                    "main"
                },
            );
        if request.session_done {
            post = post.header("x-session-done", "true");
        }
        if let Some(key) = &self.key {
            post = post.header("authorization", format!("Bearer {key}"));
        }
        let failed = |why: String| Error::Failed {
            what: format!("POST {}", self.url),
            why,
        };
        let mut response = post
            .send_json(self.body(request))
            .map_err(|e| failed(e.to_string()))?;
        let status = response.status().as_u16();
        let body: Value = response
            .body_mut()
            .read_json()
            .map_err(|e| failed(format!("status {status}, and the body is not JSON: {e}")))?;
        let said = || {
            body["error"]["message"]
                .as_str()
                .unwrap_or("no message")
                .to_owned()
        };
        match status {
            200 => Ok(body),
            429 | 503 => Err(Error::Unavailable {
                what: self.url.clone(),
                why: said(),
            }),
            400..500 => Err(Error::Refused {
                what: self.url.clone(),
                why: said(),
            }),
            _ => Err(failed(format!("status {status}: {}", said()))),
        }
    }
}

fn message(message: &Message) -> Value {
    let mut value = json!({"role": message.role.as_str(), "content": message.content});
    if !message.tool_calls.is_empty() {
        value["tool_calls"] = message
            .tool_calls
            .iter()
            .map(|call| {
                json!({"id": call.id, "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments}})
            })
            .collect();
    }
    if let Some(id) = &message.tool_call_id {
        value["tool_call_id"] = json!(id);
    }
    value
}

fn reply(body: &Value, url: &str) -> Result<AgentReply> {
    let missing = |field: &str| Error::Failed {
        what: format!("reading the reply of {url}"),
        why: format!("it has no `{field}`"),
    };
    let choice = body["choices"].get(0).ok_or_else(|| missing("choices"))?;
    let mut message = Message::new(
        Role::Assistant,
        choice["message"]["content"].as_str().unwrap_or_default(),
    );
    for call in choice["message"]["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        message.tool_calls.push(ToolCall {
            id: text(&call["id"]),
            name: text(&call["function"]["name"]),
            arguments: text(&call["function"]["arguments"]),
        });
    }
    let version = body["system_fingerprint"]
        .as_str()
        .and_then(|print| print.rsplit_once("@v"))
        .and_then(|(_, rest)| rest.split('-').next()?.parse().ok())
        .ok_or_else(|| missing("system_fingerprint"))?;
    Ok(AgentReply {
        turn: TurnId::new(body["id"].as_str().ok_or_else(|| missing("id"))?),
        message,
        truncated: choice["finish_reason"] == "length",
        version: PolicyVersion::new(version),
        tokens: body["usage"]["completion_tokens"]
            .as_u64()
            .map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX)),
    })
}

impl rl::Agent for HttpAgent {
    fn reply(&self, request: AgentRequest) -> Result<AgentReply> {
        let mut tries = 0;
        loop {
            match self.post(&request) {
                Ok(body) => return reply(&body, &self.url),
                Err(error) if error.is_retryable() && tries < RETRIES => {
                    tries += 1;
                    // A host that says "busy" is asked again after 0.25 s, 0.5 s, … 2 s.
                    let pause = Duration::from_millis(u64::from(250 * tries));
                    std::thread::park_timeout(pause);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_carries_its_turn_its_version_and_whether_it_was_cut() {
        let body = json!({"id": "chatcmpl-7", "system_fingerprint": "smollm2@v12-abcdef",
            "choices": [{"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "length"}],
            "usage": {"completion_tokens": 3}});
        let reply = reply(&body, "here").unwrap();
        assert_eq!(reply.version, PolicyVersion::new(12));
        assert!(reply.truncated);
        assert_eq!((reply.turn.as_str(), reply.tokens), ("chatcmpl-7", 3));
    }

    #[test]
    fn a_reply_without_a_version_is_an_error_that_names_the_field() {
        let body = json!({"id": "x", "choices": [{"message": {"content": "Yes."}}]});
        let error = reply(&body, "here").unwrap_err().to_string();
        assert!(error.contains("system_fingerprint"), "{error}");
    }
}
