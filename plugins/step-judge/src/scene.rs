//! What the model is shown of an action: the task, what happened before, the action, and all of what came back.
//!
//! Everything here is outside text, bounded by the config; see [`crate::outside`]. The hidden reasoning of a reply is left out: a
//! judge that reads it can be talked to.

use sdk::{Fault, Message, Observation, PromptPart, Role, Turn, config};

use crate::{
    evidence::Evidence,
    outside::{self, Fence},
};

/// Fewest characters that are worth showing of one message among several.
const LEAST: usize = 24;

/// The lines of the action that is to be judged.
pub fn lines(turn: &Turn, next: &Observation, fence: &Fence) -> Result<Vec<PromptPart>, Fault> {
    let mut parts = Vec::new();
    let (task, earlier) = split(&turn.request)?;
    let bounded = |text: &str, key: &str| {
        let limit = config::count(key)?;
        Ok::<_, Fault>(outside::cut(&outside::flat(text), limit))
    };
    if let Some(task) = task {
        parts.extend(fence.line("Task", &[bounded(&task.content, "task-chars")?]));
    }
    let first = earlier
        .len()
        .saturating_sub(config::count("history-messages")?);
    for message in earlier.into_iter().skip(first) {
        let label = match message.role {
            Role::Assistant => "Earlier action",
            _ => "Earlier result",
        };
        parts.extend(fence.line(label, &[bounded(&words(message), "history-chars")?]));
    }
    parts.extend(fence.line(
        "Action",
        &[bounded(&words(&turn.response), "action-chars")?],
    ));
    parts.extend(result(next, fence)?);
    Ok(parts)
}

/// The lines of what came back, and what the environment reports about it.
pub fn result(next: &Observation, fence: &Fence) -> Result<Vec<PromptPart>, Fault> {
    let evidence = Evidence::of(next);
    let mut parts = fence.line("Result", &came_back(next, config::count("next-chars")?));
    if !evidence.others.is_empty() {
        // Whatever an environment calls a number, it is no instruction.
        let others = outside::cut(&outside::flat(&evidence.others.join(", ")), OTHERS);
        parts.extend(fence.line("Numbers", &[others]));
    }
    parts.extend(evidence.report().map(|report| reported(&report)));
    Ok(parts)
}

/// Most characters of the numbers that have no words of ours.
const OTHERS: usize = 200;

/// A report as a line of the prompt.
pub fn reported(report: &str) -> PromptPart {
    PromptPart::Instruction(format!("The environment reports: {report}.\n"))
}

/// Every message that came back, in part where they are long; all of them as one text where there are too many to show.
fn came_back(next: &Observation, limit: usize) -> Vec<String> {
    let texts: Vec<_> = next
        .messages
        .iter()
        .filter(|message| matches!(message.role, Role::User | Role::Tool))
        .map(|message| outside::flat(&message.content))
        .collect();
    if texts.is_empty() {
        return vec![String::new()];
    }
    if limit / texts.len() < LEAST {
        return vec![outside::cut(&texts.join(" "), limit)];
    }
    let lengths: Vec<_> = texts.iter().map(|text| text.chars().count()).collect();
    let shares = outside::shares(&lengths, limit);
    let pairs = texts.iter().zip(shares);
    pairs
        .map(|(text, share)| outside::cut(text, share))
        .collect()
}

/// A message's text, and the calls that it asks for.
fn words(message: &Message) -> String {
    let mut words = message.content.clone();
    for call in &message.tool_calls {
        for piece in [" ", &call.name, " ", &call.arguments_json] {
            words.push_str(piece);
        }
    }
    words
}

/// The message that sets the task, and what happened since.
///
/// Where tools answer in messages of their own, people's words are people's, and the last of them is the task. Where an
/// environment answers as the user, the first one is.
fn split(request: &[Message]) -> Result<(Option<&Message>, Vec<&Message>), Fault> {
    let is_users = |message: &Message| message.role == Role::User;
    let last = match config::text("task")?.as_str() {
        "first" => false,
        "last" => true,
        _ => request.iter().any(|message| message.role == Role::Tool),
    };
    let at = if last {
        request.iter().rposition(is_users)
    } else {
        request.iter().position(is_users)
    };
    let since = request.iter().skip(at.map_or(0, |at| at + 1));
    let earlier = since
        .filter(|message| message.role != Role::System)
        .collect();
    Ok((at.and_then(|at| request.get(at)), earlier))
}
