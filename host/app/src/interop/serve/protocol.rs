//! The shapes that OpenEnv's clients send and read, for our messages.
//!
//! Reads and writes JSON; plays nothing.

use rl::{Action, Done, Message, ModalityCard, Observation, Outcome, Role, ToolCall};
use serde_json::{Map, Value, json};

/// Why a request came to nothing, as OpenEnv sorts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The message is not JSON.
    Json(String),
    /// There is no message of this type.
    Unknown(String),
    /// Fields are missing, unknown or of another type.
    Invalid(String),
    /// There is no such episode, task or split.
    Missing(String),
    /// The episode is over.
    Over(String),
    /// As many episodes as may be are open.
    Full(String),
    /// The environment failed.
    Failed(String),
}

impl Failure {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Json(_) => "INVALID_JSON",
            Self::Unknown(_) => "UNKNOWN_TYPE",
            Self::Invalid(_) => "VALIDATION_ERROR",
            Self::Full(_) => "CAPACITY_REACHED",
            Self::Missing(_) | Self::Over(_) | Self::Failed(_) => "EXECUTION_ERROR",
        }
    }

    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Json(_) => 400,
            Self::Unknown(_) | Self::Missing(_) => 404,
            Self::Over(_) => 409,
            Self::Invalid(_) => 422,
            Self::Full(_) => 503,
            Self::Failed(_) => 500,
        }
    }

    pub(super) fn why(&self) -> &str {
        match self {
            Self::Json(why)
            | Self::Unknown(why)
            | Self::Invalid(why)
            | Self::Missing(why)
            | Self::Over(why)
            | Self::Full(why)
            | Self::Failed(why) => why,
        }
    }

    /// As a message of a session.
    pub(super) fn message(&self) -> Value {
        let mut data = json!({"code": self.code(), "message": self.why()});
        if matches!(self, Self::Invalid(_)) {
            data["errors"] = json!([{"type": "value_error", "loc": ["data"], "msg": self.why()}]);
        }
        json!({"type": "error", "data": data})
    }
}

/// What `reset` was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reset {
    pub(super) seed: Option<u64>,
    pub(super) episode: Option<String>,
    pub(super) task: Option<String>,
    pub(super) split: Option<String>,
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, Failure> {
    value
        .as_object()
        .ok_or_else(|| Failure::Invalid(format!("{what} is no object")))
}

/// A short text, when it is given.
fn name(fields: &Map<String, Value>, key: &str) -> Result<Option<String>, Failure> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= 255 => Ok(Some(text.clone())),
        Some(_) => Err(Failure::Invalid(format!(
            "`{key}` is no string of at most 255 bytes"
        ))),
    }
}

/// The episode that a request names.
pub(super) fn episode_id(data: &Value) -> Result<Option<String>, Failure> {
    name(object(data, "the request")?, "episode_id")
}

/// Reads the data of a `reset`.
pub(super) fn reset(data: &Value) -> Result<Reset, Failure> {
    let fields = object(data, "the data of a reset")?;
    let seed = match fields.get("seed") {
        None | Some(Value::Null) => None,
        Some(seed) => Some(
            seed.as_u64()
                .ok_or_else(|| Failure::Invalid("`seed` is no integer from 0 on".to_owned()))?,
        ),
    };
    Ok(Reset {
        seed,
        episode: name(fields, "episode_id")?,
        task: name(fields, "task")?,
        split: name(fields, "split")?,
    })
}

/// Reads an action.
pub(super) fn action(data: &Value) -> Result<Action, Failure> {
    let fields = object(data, "an action")?;
    let known = ["message", "tool_calls", "truncated", "metadata"];
    if let Some(unknown) = fields.keys().find(|key| !known.contains(&key.as_str())) {
        let unknown: String = unknown.chars().take(64).collect();
        return Err(Failure::Invalid(format!(
            "an action has no field `{unknown}`; it has {}",
            known.join(", ")
        )));
    }
    let text = fields
        .get("message")
        .and_then(Value::as_str)
        .ok_or_else(|| Failure::Invalid("`message` is no string".into()))?;
    let mut message = Message::assistant(text);
    message.tool_calls = match fields.get("tool_calls") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(calls)) => calls
            .iter()
            .enumerate()
            .map(|(index, call)| tool_call(index, call))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(Failure::Invalid("`tool_calls` is no list".into())),
    };
    let truncated = match fields.get("truncated") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(truncated)) => *truncated,
        Some(_) => {
            return Err(Failure::Invalid(
                "`truncated` is neither true nor false".into(),
            ));
        }
    };
    Ok(Action { message, truncated })
}

fn tool_call(index: usize, call: &Value) -> Result<ToolCall, Failure> {
    let fields = object(call, "a tool call")?;
    let name = fields
        .get("name")
        .and_then(Value::as_str)
        .ok_or_else(|| Failure::Invalid("a tool call's `name` is no string".into()))?;
    let arguments = match fields.get("arguments") {
        // As a model wrote them: broken JSON is part of what is trained.
        Some(Value::String(text)) => text.clone(),
        Some(arguments @ Value::Object(_)) => arguments.to_string(),
        None | Some(Value::Null) => "{}".to_owned(),
        Some(_) => {
            return Err(Failure::Invalid(
                "a tool call's `arguments` are neither an object nor text".into(),
            ));
        }
    };
    let id = fields.get("id").and_then(Value::as_str);
    Ok(ToolCall {
        id: id.map_or_else(|| format!("call-{index}"), str::to_owned),
        name: name.to_owned(),
        arguments,
    })
}

fn message(message: &Message) -> Value {
    let mut value = json!({"role": message.role.as_str(), "content": message.content});
    if !message.tool_calls.is_empty() {
        let calls = message
            .tool_calls
            .iter()
            .map(|call| json!({"id": call.id, "name": call.name, "arguments": call.arguments}));
        value["tool_calls"] = calls.collect();
    }
    if let Some(id) = &message.tool_call_id {
        value["tool_call_id"] = json!(id);
    }
    value
}

/// Where an episode stands, for whoever trains.
#[derive(Debug)]
pub(super) struct Standing<'a> {
    pub(super) episode: &'a str,
    pub(super) task: &'a str,
    pub(super) steps: u32,
    pub(super) done: Option<Done>,
    pub(super) outcome: Option<&'a Outcome>,
}

/// The answer to a reset or a step.
pub(super) fn observed(observation: &Observation, standing: &Standing<'_>) -> Value {
    let texts: Vec<String> = observation
        .messages
        .iter()
        .map(|message| match message.role {
            Role::User => message.content.clone(),
            role => format!("{}: {}", role.as_str(), message.content),
        })
        .collect();
    let metadata = json!({
        "episode_id": standing.episode,
        "task": standing.task,
        "done_reason": standing.done,
        "score": standing.outcome.map(|outcome| outcome.score),
        "metrics": standing.outcome.map(|outcome| {
            let metrics = outcome.metrics.iter().map(|(name, value)| (name.clone(), json!(value)));
            metrics.collect::<Map<String, Value>>()
        }),
    });
    let messages: Vec<Value> = observation.messages.iter().map(message).collect();
    let paid = standing.outcome.filter(|_| standing.done.is_some());
    json!({
        "observation": {"text": texts.join("\n"), "messages": messages, "metadata": metadata},
        "reward": paid.map(|outcome| outcome.score),
        "done": standing.done.is_some(),
        "metadata": metadata,
    })
}

/// `GET /metadata`
pub(super) fn metadata(card: &ModalityCard) -> Value {
    json!({
        "name": card.name,
        "description": format!("The environment plugin {} of nextstate", card.name),
        "version": card.version,
    })
}

/// `GET /schema`
pub(super) fn schema(card: &ModalityCard) -> Value {
    let metadata = json!({"type": "object", "additionalProperties": true});
    let tools: Vec<Value> = card
        .tools
        .iter()
        .map(|tool| {
            let parameters = serde_json::from_str(&tool.parameters);
            json!({"name": tool.name, "description": tool.description,
                "parameters": parameters.unwrap_or_else(|_| json!(tool.parameters))})
        })
        .collect();
    let call = json!({"type": "object", "required": ["name"], "properties": {
        "id": {"type": "string"}, "name": {"type": "string"},
        "arguments": {"description": "An object, or JSON text as the model wrote it"}}});
    json!({
        "action": {"title": "Action", "type": "object", "required": ["message"],
            "additionalProperties": false,
            "properties": {
                "message": {"type": "string", "description": "The reply"},
                "tool_calls": {"type": "array", "items": call, "description": "Calls of the tools in x-tools"},
                "truncated": {"type": "boolean", "description": "Whether the reply was cut by its token limit"},
                "metadata": metadata,
            },
            "x-tools": tools},
        "observation": {"title": "Observation", "type": "object", "properties": {
            "text": {"type": "string", "description": "The messages, joined"},
            "messages": {"type": "array", "items": {"type": "object"},
                "description": "What is new since the last action"},
            "metadata": metadata}},
        "state": {"title": "State", "type": "object", "properties": {
            "episode_id": {"type": "string"}, "step_count": {"type": "integer", "minimum": 0},
            "task": {"type": "string"}, "done": {"type": "boolean"}}},
    })
}

/// `GET /state`
pub(super) fn state(standing: &Standing<'_>) -> Value {
    json!({
        "episode_id": standing.episode,
        "step_count": standing.steps,
        "task": standing.task,
        "done": standing.done.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid<T: std::fmt::Debug>(read: Result<T, Failure>) -> String {
        match read.unwrap_err() {
            Failure::Invalid(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_action_is_text_and_calls_as_the_model_wrote_them() {
        let data = json!({"message": "Look.", "tool_calls": [
            {"name": "find", "arguments": {"a": 1}}, {"id": "x", "name": "get", "arguments": "{broken"}]});
        let read = action(&data).unwrap();
        assert_eq!(read.message.content, "Look.");
        let calls = &read.message.tool_calls;
        assert_eq!(
            (calls[0].id.as_str(), calls[0].arguments.as_str()),
            ("call-0", "{\"a\":1}")
        );
        assert_eq!(
            (calls[1].id.as_str(), calls[1].arguments.as_str()),
            ("x", "{broken")
        );
    }

    #[test]
    fn what_is_no_action_is_refused_by_the_field() {
        for (data, named) in [
            (json!([]), "no object"),
            (json!({}), "`message`"),
            (json!({"message": 1}), "`message`"),
            (json!({"message": "", "tool_calls": {}}), "`tool_calls`"),
            (json!({"message": "", "tool_calls": [{}]}), "`name`"),
            (json!({"message": "", "truncated": 1}), "`truncated`"),
            (json!({"mesage": ""}), "no field `mesage`"),
        ] {
            let why = invalid(action(&data));
            assert!(why.contains(named), "{data}: {why}");
        }
        assert!(invalid(reset(&json!({"seed": -1}))).contains("`seed`"));
        assert!(invalid(reset(&json!({"task": "x".repeat(256)}))).contains("`task`"));
    }

    #[test]
    fn the_score_is_a_reward_only_when_the_episode_is_over() {
        let outcome = Outcome {
            score: 0.25,
            metrics: vec![("right".into(), 0.5)],
        };
        let seen = |done| {
            let standing = Standing {
                episode: "e",
                task: "t",
                steps: 1,
                done,
                outcome: Some(&outcome),
            };
            observed(
                &Observation {
                    messages: vec![Message::user("Hi.")],
                },
                &standing,
            )
        };
        assert_eq!(seen(None)["reward"], Value::Null);
        let over = seen(Some(Done::Finished));
        assert_eq!(
            (&over["reward"], &over["done"]),
            (&json!(0.25), &json!(true))
        );
        assert_eq!(over["metadata"]["metrics"]["right"], 0.5);
        assert_eq!(over["observation"]["text"], "Hi.");
    }
}
