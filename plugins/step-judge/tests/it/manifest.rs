//! The defaults of `plugin.toml` as this thread's config, and small helpers.

use sdk::{
    Completion, Finish, Message, Observation, Prompt, PromptPart, Role, ScoredAnswer, Turn,
    config::Value, native,
};

/// Sets every key to its default, as the host does for an empty section of a recipe.
pub(crate) fn configure() {
    let manifest: toml::Table = include_str!("../../plugin.toml").parse().unwrap();
    for key in manifest["config"].as_array().unwrap() {
        let value = match (&key["type"], &key["default"]) {
            (_, toml::Value::String(text)) => Value::Text(text.clone()),
            (_, toml::Value::Integer(number)) => Value::Integer(i32::try_from(*number).unwrap()),
            (_, toml::Value::Float(number)) => Value::Number(*number),
            (_, toml::Value::Boolean(yes)) => Value::Boolean(*yes),
            (_, toml::Value::Array(texts)) => Value::Texts(
                texts
                    .iter()
                    .map(|text| text.as_str().unwrap().to_owned())
                    .collect(),
            ),
            (kind, default) => panic!("{kind} with the default {default}"),
        };
        native::set_config(key["name"].as_str().unwrap(), value);
    }
}

pub(crate) fn set(key: &str, value: Value) {
    native::set_config(key, value);
}

pub(crate) fn texts(list: &[&str]) -> Value {
    Value::Texts(list.iter().map(|text| (*text).to_owned()).collect())
}

pub(crate) fn turn(request: Vec<Message>, action: &str) -> Turn {
    Turn {
        request,
        response: Message::new(Role::Assistant, action),
        finish: Finish::Stop,
    }
}

pub(crate) fn result(text: &str) -> Observation {
    Observation::new(vec![Message::new(Role::Tool, text)])
}

/// All parts of a prompt as the model reads them.
pub(crate) fn shown(prompt: &Prompt) -> String {
    let text = |part: &PromptPart| match part {
        PromptPart::Instruction(text) | PromptPart::Data(text) => text.clone(),
    };
    prompt
        .messages
        .iter()
        .flat_map(|message| &message.parts)
        .map(text)
        .collect()
}

/// The parts that are ours, and those that are from outside.
pub(crate) fn sorted(prompt: &Prompt) -> (Vec<&str>, Vec<&str>) {
    let (mut ours, mut outside) = (Vec::new(), Vec::new());
    for part in prompt.messages.iter().flat_map(|message| &message.parts) {
        match part {
            PromptPart::Instruction(text) => ours.push(text.as_str()),
            PromptPart::Data(text) => outside.push(text.as_str()),
        }
    }
    (ours, outside)
}

pub(crate) fn answered(answers: &[(&str, f64)]) -> Completion {
    let scored = |(text, log_prob): &(&str, f64)| ScoredAnswer {
        text: (*text).to_owned(),
        log_prob: *log_prob,
    };
    Completion {
        text: answers.first().map_or("", |(text, _)| text).to_owned(),
        answers: answers.iter().map(scored).collect(),
        finish: Finish::Stop,
    }
}
