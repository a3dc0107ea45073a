//! Reads what a server says: observations, and its errors by code.
//!
//! Strict where a mistake would become a reward, lenient where OpenEnv's own client is (a missing `done` is false). Opens no
//! connection.

use serde_json::{Map, Value};

/// Most characters of a server's text that an error repeats.
const REPEATED: usize = 300;

/// What came back after a reset or a step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observed {
    /// The observation's fields.
    pub(super) observation: Map<String, Value>,
    /// The reward of the last action; none where the environment gives none.
    pub(super) reward: Option<f64>,
    /// Whether the episode is over.
    pub(super) done: bool,
}

/// What is not an observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// All sessions of the server are in use.
    Capacity(String),
    /// The action does not fit the server's schema: the policy's mistake.
    Action(String),
    /// Anything else: the server's mistake.
    Server(String),
}

fn server(why: impl Into<String>) -> Wrong {
    Wrong::Server(why.into())
}

/// Shortens foreign text for an error, and takes away what could steer a terminal.
pub(super) fn short(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(REPEATED)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Reads one message of a session.
pub(super) fn observed(text: &str) -> Result<Observed, Wrong> {
    let message: Value = serde_json::from_str(text).map_err(|error| {
        // Python writes NaN and Infinity where JSON has no such number.
        server(format!("it is not JSON ({error}): {}", short(text)))
    })?;
    let data = &message["data"];
    match message["type"].as_str() {
        Some("observation") => {}
        Some("error") => return Err(failure(data)),
        _ => {
            return Err(server(format!(
                "it is no message of OpenEnv's protocol: {}",
                short(text)
            )));
        }
    }
    let Some(observation) = data["observation"].as_object() else {
        return Err(server(format!(
            "its `observation` is no object: {}",
            short(text)
        )));
    };
    let reward = match &data["reward"] {
        Value::Null => None,
        Value::Bool(right) => Some(f64::from(u8::from(*right))),
        Value::Number(number) => number.as_f64().filter(|reward| reward.is_finite()),
        other => {
            return Err(server(format!(
                "its `reward` is no number: {}",
                short(&other.to_string())
            )));
        }
    };
    let done = match &data["done"] {
        Value::Null => false,
        Value::Bool(done) => *done,
        other => {
            return Err(server(format!(
                "its `done` is neither true nor false: {}",
                short(&other.to_string())
            )));
        }
    };
    Ok(Observed {
        observation: observation.clone(),
        reward,
        done,
    })
}

fn failure(data: &Value) -> Wrong {
    let code = data["code"].as_str().unwrap_or("no code");
    let said = data["message"].as_str().unwrap_or("no message");
    match code {
        "CAPACITY_REACHED" => Wrong::Capacity(short(said)),
        "VALIDATION_ERROR" => Wrong::Action(validation(data)),
        code => server(format!("{}: {}", short(code), short(said))),
    }
}

/// What is wrong with an action, from pydantic's list of errors.
fn validation(data: &Value) -> String {
    let errors = data["errors"].as_array().map_or(&[][..], Vec::as_slice);
    let mut parts = Vec::new();
    // The first few say enough for the policy to do better.
    for error in errors.iter().take(4) {
        let place = error["loc"].as_array().map_or(&[][..], Vec::as_slice);
        let place: Vec<String> = place
            .iter()
            .map(|part| {
                part.as_str()
                    .map_or_else(|| part.to_string(), str::to_owned)
            })
            .collect();
        let said = error["msg"].as_str().unwrap_or("invalid");
        parts.push(format!("{}: {said}", place.join(".")));
    }
    if parts.is_empty() {
        return "it does not fit the schema".to_owned();
    }
    short(&parts.join("; "))
}

/// An observation as the policy reads it: strings as they are, everything else as compact JSON.
///
/// `metadata` is left out: it is for whoever trains, and may hold the answer.
pub(super) fn text(observation: &Map<String, Value>) -> String {
    let shown: Vec<(&String, &Value)> = observation
        .iter()
        .filter(|(name, value)| name.as_str() != "metadata" && !value.is_null())
        .collect();
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if let [(_, Value::String(only))] = shown.as_slice() {
        return only.clone();
    }
    let lines: Vec<String> = shown
        .into_iter()
        .map(|(name, value)| format!("{name}: {}", plain(value)))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        match observed(text).unwrap_err() {
            Wrong::Server(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_observation_is_read_as_the_official_client_reads_it() {
        let text = r#"{"type":"observation","data":{"observation":{"a":1},"reward":true}}"#;
        let read = observed(text).unwrap();
        assert_eq!((read.reward, read.done), (Some(1.0), false));
        assert_eq!(read.observation["a"], 1);
    }

    #[test]
    fn a_reward_that_is_no_number_is_an_error_and_not_a_zero() {
        let with = |reward: &str| {
            format!(r#"{{"type":"observation","data":{{"observation":{{}},"reward":{reward}}}}}"#)
        };
        assert!(wrong(&with("NaN")).contains("not JSON"));
        assert!(wrong(&with("1e999")).contains("not JSON"));
        assert!(wrong(&with("\"1\"")).contains("`reward`"));
        assert_eq!(observed(&with("null")).unwrap().reward, None);
    }

    #[test]
    fn what_is_no_message_of_the_protocol_is_named() {
        for (text, named) in [
            ("<html>", "not JSON"),
            ("[]", "no message"),
            (r#"{"type":"state","data":{}}"#, "no message"),
            (r#"{"type":"observation","data":{}}"#, "`observation`"),
            (
                r#"{"type":"observation","data":{"observation":{},"done":1}}"#,
                "`done`",
            ),
            (
                r#"{"type":"error","data":{"code":"EXECUTION_ERROR","message":"it\u001b[2J broke"}}"#,
                "EXECUTION_ERROR: it [2J broke",
            ),
        ] {
            assert!(wrong(text).contains(named), "{text}: {}", wrong(text));
        }
    }

    #[test]
    fn an_action_that_the_server_refuses_is_the_policys_mistake() {
        let text = r#"{"type":"error","data":{"code":"VALIDATION_ERROR","message":"Invalid message",
            "errors":[{"loc":["action",0],"msg":"should be an integer","input":"left"}]}}"#;
        let Wrong::Action(why) = observed(text).unwrap_err() else {
            panic!("not the policy's");
        };
        assert_eq!(why, "action.0: should be an integer");
    }

    #[test]
    fn strings_are_shown_as_they_are_and_metadata_is_not_shown() {
        let shown = |value: Value| text(value.as_object().unwrap());
        let only = serde_json::json!({"board": "S F\nF G", "metadata": {"answer": 42}, "x": null});
        assert_eq!(shown(only), "S F\nF G");
        let several = serde_json::json!({"at": {"x": 1}, "board": "S F", "legal": [0, 1]});
        assert_eq!(shown(several), "at: {\"x\":1}\nboard: S F\nlegal: [0,1]");
    }
}
