//! The bytes of an episode: its task, its seed and the replies so far, as JSON; and the hash of the state that they lead to.
//!
//! Does not play them; see [`crate::episode::Session::restore`].

use sdk::{Action, Fault, Finish, Message, Role, ToolCall};
use serde_json::{Value, json};

/// What a snapshot says.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    /// The task's id.
    pub task: String,
    /// The episode's seed.
    pub seed: u32,
    /// The hash of the state after the replies.
    pub state: u64,
    /// The replies, in order.
    pub replies: Vec<Reply>,
}

/// A reply, as far as an episode reads it.
#[derive(Clone, PartialEq, Debug)]
pub struct Reply {
    content: String,
    calls: Vec<ToolCall>,
    cut: bool,
}

impl From<&Action> for Reply {
    fn from(action: &Action) -> Self {
        Self {
            content: action.reply.content.clone(),
            calls: action.reply.tool_calls.clone(),
            cut: action.finish == Finish::Length,
        }
    }
}

impl From<Reply> for Action {
    fn from(reply: Reply) -> Self {
        let finish = match (reply.cut, reply.calls.is_empty()) {
            (true, _) => Finish::Length,
            (false, true) => Finish::Stop,
            (false, false) => Finish::ToolCalls,
        };
        let reply = Message {
            tool_calls: reply.calls,
            ..Message::new(Role::Assistant, reply.content)
        };
        Self { reply, finish }
    }
}

const VERSION: &str = "tool-call 1";

/// The contract's limit.
const MOST_BYTES: usize = 1 << 20;

impl Snapshot {
    /// The bytes.
    ///
    /// # Errors
    /// `unsupported` when the replies are too long to be kept; the host then replays the recorded actions.
    pub fn write(&self) -> Result<Vec<u8>, Fault> {
        let reply = |reply: &Reply| {
            let calls = reply.calls.iter();
            let calls: Vec<_> = calls
                .map(|call| json!([call.id, call.name, call.arguments_json]))
                .collect();
            json!([reply.content, reply.cut, calls])
        };
        let replies: Vec<_> = self.replies.iter().map(reply).collect();
        // As text: not every reader of JSON holds 64 bits in a number.
        let state = self.state.to_string();
        let bytes = json!([VERSION, self.task, self.seed, state, replies])
            .to_string()
            .into_bytes();
        if bytes.len() > MOST_BYTES {
            let what = format!("a snapshot of {} bytes of replies", bytes.len());
            return Err(Fault::Unsupported(what));
        }
        Ok(bytes)
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// `invalid-input` for bytes that are no snapshot of this version.
    pub fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let read = serde_json::from_slice(bytes)
            .ok()
            .and_then(|value| Self::of(&value));
        read.ok_or_else(|| {
            Fault::InvalidInput(format!(
                "these bytes are no snapshot of an episode (`{VERSION}`)"
            ))
        })
    }

    fn of(value: &Value) -> Option<Self> {
        let [version, task, seed, state, replies] = value.as_array()?.as_slice() else {
            return None;
        };
        if version.as_str() != Some(VERSION) {
            return None;
        }
        Some(Self {
            task: task.as_str()?.to_owned(),
            seed: u32::try_from(seed.as_u64()?).ok()?,
            state: state.as_str()?.parse().ok()?,
            replies: replies
                .as_array()?
                .iter()
                .map(Reply::of)
                .collect::<Option<_>>()?,
        })
    }
}

impl Reply {
    fn of(value: &Value) -> Option<Self> {
        let [content, cut, calls] = value.as_array()?.as_slice() else {
            return None;
        };
        Some(Self {
            content: content.as_str()?.to_owned(),
            calls: calls.as_array()?.iter().map(call).collect::<Option<_>>()?,
            cut: cut.as_bool()?,
        })
    }
}

fn call(value: &Value) -> Option<ToolCall> {
    let [id, name, arguments_json] = value.as_array()?.as_slice() else {
        return None;
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(ToolCall {
        id: text(id)?,
        name: text(name)?,
        arguments_json: text(arguments_json)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(content: &str) -> Snapshot {
        let call = ToolCall {
            id: "c1".into(),
            name: "add_event".into(),
            arguments_json: "{\"a".into(),
        };
        Snapshot {
            task: "calendar-book/1/1".into(),
            seed: u32::MAX,
            state: u64::MAX,
            replies: vec![Reply {
                content: content.into(),
                calls: vec![call],
                cut: true,
            }],
        }
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_written() {
        let snapshot = snapshot("I \"said\"\nthis: \u{1F600}");
        assert_eq!(Snapshot::read(&snapshot.write().unwrap()), Ok(snapshot));
    }

    #[test]
    fn bytes_that_are_none_are_faults_and_so_is_too_much_of_them() {
        let good = String::from_utf8(snapshot("x").write().unwrap()).unwrap();
        let other_version = good.replace(VERSION, "tool-call 0");
        let broken = [
            "",
            "\u{0}",
            "{}",
            "[]",
            "[\"tool-call 1\"]",
            &good[..good.len() - 1],
            &other_version,
        ];
        for bytes in broken {
            assert!(
                matches!(
                    Snapshot::read(bytes.as_bytes()),
                    Err(Fault::InvalidInput(_))
                ),
                "{bytes}"
            );
        }
        let long = snapshot(&"x".repeat(MOST_BYTES)).write();
        assert!(matches!(long, Err(Fault::Unsupported(_))));
    }
}
