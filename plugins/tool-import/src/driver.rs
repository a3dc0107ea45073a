//! The border to the Python driver (`driver/*.py`): other people's task lists and tool classes, in a machine that holds them.
//!
//! Does not decide: the driver says what came of calls as texts and digests, [`crate::imported`] compares. What an image holds is the
//! operator's, and may still be anything: whatever the driver cannot use is a fault that names the image and the reason.

use std::collections::BTreeMap;

use sdk::{Fault, shell::Ending};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{jail::Jail, text};

const FILES: [(&str, &str); 4] = [
    ("driver.py", include_str!("../driver/driver.py")),
    ("image.py", include_str!("../driver/image.py")),
    ("bfcl.py", include_str!("../driver/bfcl.py")),
    ("tau2_tasks.py", include_str!("../driver/tau2_tasks.py")),
];

/// Where the driver lies: out of the image's folder.
const PLACE: &str = "/tmp/import";

/// A list or a task is read in this time; for an image of some hundred megabytes on a busy machine.
const OWN_MS: u32 = 60_000;

/// A machine takes files of 1 MiB.
const MOST_REQUEST_BYTES: usize = 1_000_000;

/// Whose format an image has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The Berkeley Function Calling Leaderboard, multi-turn.
    Bfcl,
    /// tau2-bench.
    Tau2,
}

impl Format {
    /// The name in the config and for the driver.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bfcl => "bfcl",
            Self::Tau2 => "tau2",
        }
    }
}

/// A task as a list has it: its id, its family, and whether it is held out.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Listed(pub String, pub String, pub bool);

/// A tool as the model reads it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub parameters: Value,
}

/// A call.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Made {
    /// The tool.
    pub name: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

/// What the right calls give.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Right {
    /// Digests of the results, by request.
    pub results: Vec<Vec<String>>,
    /// The digest of the state after each request.
    pub states: Vec<String>,
}

/// A task.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Opened {
    /// Rules for the agent; empty for none.
    pub policy: String,
    /// All tools, those that are withheld at first included.
    pub tools: Vec<Tool>,
    /// What the user says, request by request.
    pub requests: Vec<String>,
    /// Tools that are there only from a request on, by its number.
    pub withheld: BTreeMap<usize, Vec<String>>,
    /// The right calls, by request.
    pub reference: Vec<Vec<Made>>,
    /// What they give.
    pub right: Right,
    /// The digest of the state before all calls.
    pub start: String,
    /// What the model's words have to name.
    pub communicate: Vec<String>,
    /// What the driver needs to begin again; nobody else reads it.
    pub setup: String,
}

/// What came of a call.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Told {
    /// What the model is shown.
    pub text: String,
    /// The digest of the whole.
    pub digest: String,
    /// Whether the call failed.
    pub failed: bool,
}

/// What came of the last calls.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Played {
    /// Result by result.
    pub results: Vec<Told>,
    /// The digest of the state.
    pub state: String,
}

/// A machine with the driver on it.
#[derive(Debug)]
pub struct Driver<J> {
    machine: J,
    image: String,
    format: Format,
}

impl<J: Jail> Driver<J> {
    /// A fresh machine.
    ///
    /// # Errors
    /// `internal` when there cannot be another one now.
    pub fn create(image: &str, format: Format) -> Result<Self, Fault> {
        let machine = J::create(image)?;
        for (name, source) in FILES {
            machine.write_file(&format!("{PLACE}/{name}"), source.as_bytes())?;
        }
        Ok(Self {
            machine,
            image: image.to_owned(),
            format,
        })
    }

    /// The image's tasks.
    ///
    /// # Errors
    /// `invalid-config` for an image that cannot be used.
    pub fn tasks(&self) -> Result<Vec<Listed>, Fault> {
        self.whole("list its tasks", &json!({"do": "list"}))
    }

    /// A task. Afterwards its machine holds neither the list nor the answers.
    ///
    /// # Errors
    /// `invalid-config` for an image that cannot be used, or a task that is not there.
    pub fn open(&self, task: &str) -> Result<Opened, Fault> {
        let what = format!("open its task `{task}`");
        let opened: Opened = self.whole(&what, &json!({"do": "open", "task": task}))?;
        let requests = opened.requests.len();
        let right = &opened.right;
        let lengths = [
            opened.reference.len(),
            right.results.len(),
            right.states.len(),
        ];
        if requests == 0 || lengths != [requests; 3] {
            let why = format!("it has {requests} requests, and right calls for {lengths:?}");
            return Err(self.unusable(&what, &why));
        }
        Ok(opened)
    }

    /// Makes all calls of an episode, and gives what came of those after the first `known`. None where they could not be made to the end: too
    /// slow, too large, or the death of the process.
    ///
    /// # Errors
    /// Only where the machine itself is broken.
    pub fn play(
        &self,
        setup: &str,
        turns: &[Vec<Made>],
        known: usize,
        timeout_ms: u32,
    ) -> Result<Option<Played>, Fault> {
        let request = json!({"do": "play", "setup": setup, "turns": turns, "known": known});
        Ok(self.ask(&request, timeout_ms)?.ok())
    }

    /// What the driver has to be able to do with every image.
    fn whole<T: DeserializeOwned>(&self, what: &str, request: &Value) -> Result<T, Fault> {
        let answer = self.ask(request, OWN_MS)?;
        answer.map_err(|why| self.unusable(what, &why))
    }

    fn unusable(&self, what: &str, why: &str) -> Fault {
        let (image, format) = (&self.image, self.format.name());
        Fault::InvalidConfig(format!(
            "use the image `{image}` as tasks of {format}: {what}: {why}"
        ))
    }

    /// One run of the driver: its answer, or why there is none.
    fn ask<T: DeserializeOwned>(
        &self,
        request: &Value,
        timeout_ms: u32,
    ) -> Result<Result<T, String>, Fault> {
        let mut request = request.clone();
        request["from"] = self.format.name().into();
        let request = request.to_string();
        if request.len() > MOST_REQUEST_BYTES {
            return Ok(Err(format!("the request has {} bytes", request.len())));
        }
        let (asked, answer) = (
            format!("{PLACE}/request.json"),
            format!("{PLACE}/answer.json"),
        );
        self.machine.write_file(&asked, request.as_bytes())?;
        // `-S`: the same modules on every host, those of the image and of Python itself.
        let command = format!(
            "rm -f {answer}; export LC_ALL=C.UTF-8 TZ=UTC PYTHONHASHSEED=0; exec python3 -S -s -B {PLACE}/driver.py {asked} {answer}"
        );
        let output = self.machine.run(&command, timeout_ms)?;
        if !output.succeeded() {
            let last = text::cut(output.stderr.trim(), 600);
            return Ok(Err(match output.ending {
                Ending::TimedOut => format!("it took more than {timeout_ms} ms"),
                other => format!("the driver ended with {other:?}: {last}"),
            }));
        }
        let answer = match self.machine.read_file(&answer) {
            Ok(answer) => answer.unwrap_or_default(),
            Err(Fault::InvalidInput(why)) => return Ok(Err(why)),
            Err(fault) => return Err(fault),
        };
        Ok(read(&answer))
    }
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, String> {
    let mut answer: Map<String, Value> =
        serde_json::from_slice(answer).map_err(|error| format!("no answer: {error}"))?;
    match (answer.remove("ok"), answer.remove("error")) {
        (Some(value), None) => {
            serde_json::from_value(value).map_err(|error| format!("no usable answer: {error}"))
        }
        (None, Some(Value::String(why))) => Err(why),
        _ => Err("an answer that is neither right nor wrong".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_driver_answers_is_read_or_has_a_reason() {
        let table = [
            (r#"{"ok": ["a", "b", true]}"#, Ok(())),
            (r#"{"error": "gone"}"#, Err("gone")),
            (r#"{"ok": 3}"#, Err("no usable answer")),
            ("{}", Err("neither")),
            ("", Err("no answer")),
            ("[]", Err("no answer")),
        ];
        for (answer, expected) in table {
            match (read::<Listed>(answer.as_bytes()), expected) {
                (Ok(listed), Ok(())) => assert_eq!(listed.0, "a"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{answer}: {why}"),
                other => panic!("{answer}: {other:?}"),
            }
        }
    }
}
