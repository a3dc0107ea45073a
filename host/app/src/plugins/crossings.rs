//! What crosses the border between a host and an environment during an episode, recorded, and played again to another build.
//!
//! One file an episode, one JSON object a line: what the host asked and the guest answered, and what the guest asked of `shell`,
//! `browser`, `http`, `model` and `store` meanwhile with what it got. A replay needs no model, no machine and no browser: the recorded answers stand in for them.
//! Calls of an episode run on one thread, which is how what is asked outside finds its episode.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use plugin::outside::{
    Account, ChangeKind, Client, Completion, CompletionRequest, Gesture, Machine, Machines, Models,
    Network, Node, Output, Outside, Page, Pages, Refusal, Request, Response, Store, Stores,
};
use rl::{
    Action, Archive, Classification, Environment, Episode, Message, ModalityCard, NextState,
    Observation, Outcome, RequestView, Seed, Step, TaskId, Turn, seam::Nowhere, store::Session,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// One line of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crossing {
    /// `start`, `observe`, `act`, `outcome`.
    pub call: String,
    /// What the host gave.
    pub given: Value,
    /// What the guest answered, or why it did not.
    pub answer: Result<Value, String>,
    /// What the guest asked outside meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Asked>,
}

/// Something that a guest asked of an outside capability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// For example `machine.run`.
    pub what: String,
    /// With what.
    pub with: Value,
    /// What it got.
    pub got: Result<Value, Refusal>,
}

thread_local! {
    /// What the episode's call that runs on this thread has asked; none outside such a call.
    static TAPE: RefCell<Option<Vec<Asked>>> = const { RefCell::new(None) };
    /// What a replayed call shall get, in order.
    static SCRIPT: RefCell<Option<std::vec::IntoIter<Asked>>> = const { RefCell::new(None) };
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// Asks for real, and notes it.
fn noted<T: Serialize>(
    what: &str,
    with: impl FnOnce() -> Value,
    ask: impl FnOnce() -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    // Nobody records: nothing is copied.
    if TAPE.with_borrow(Option::is_none) {
        return ask();
    }
    let with = with();
    let got = ask();
    TAPE.with_borrow_mut(|tape| {
        if let Some(tape) = tape {
            tape.push(Asked {
                what: what.to_owned(),
                with,
                got: got.as_ref().map(json).map_err(Clone::clone),
            });
        }
    });
    got
}

/// Gives what was recorded, when the same was asked.
fn scripted<T: DeserializeOwned>(what: &str, with: &Value) -> Result<T, Refusal> {
    let next = SCRIPT.with_borrow_mut(|script| script.as_mut().and_then(Iterator::next));
    let failed = |why: String| Err(Refusal::Failed(format!("replay: {why}")));
    match next {
        None => failed(format!("{what} was not asked for when it was recorded")),
        Some(asked) if asked.what != what || asked.with != *with => failed(format!(
            "{what} {with} is asked for where {} {} was",
            asked.what, asked.with
        )),
        Some(asked) => match asked.got {
            Err(refusal) => Err(refusal),
            Ok(value) => serde_json::from_value(value)
                .or_else(|error| failed(format!("what {what} got cannot be read: {error}"))),
        },
    }
}

/// The same capabilities, with everything that is asked of them noted.
pub fn noting(offers: Outside) -> Outside {
    Outside {
        shell: offers
            .shell
            .map(|inner| Arc::new(Noting(inner)) as Arc<dyn Machines>),
        browser: offers
            .browser
            .map(|inner| Arc::new(Noting(inner)) as Arc<dyn Pages>),
        model: offers
            .model
            .map(|inner| Arc::new(Noting(inner)) as Arc<dyn Models>),
        http: offers
            .http
            .map(|inner| Arc::new(Noting(inner)) as Arc<dyn Network>),
        store: offers
            .store
            .map(|inner| Arc::new(Noting(inner)) as Arc<dyn Stores>),
    }
}

/// Capabilities that answer from a recording.
fn script() -> Outside {
    Outside {
        shell: Some(Arc::new(Scripted)),
        browser: Some(Arc::new(Scripted)),
        model: Some(Arc::new(Scripted)),
        http: Some(Arc::new(Scripted)),
        store: Some(Arc::new(Scripted)),
    }
}

struct Noting<T: ?Sized>(T);

struct Scripted;

impl Machines for Noting<Arc<dyn Machines>> {
    fn create(&self, image: &str) -> Result<Box<dyn Machine>, Refusal> {
        let mut made = None;
        noted(
            "machine.create",
            || json(&image),
            || {
                made = Some(self.0.create(image)?);
                Ok(())
            },
        )?;
        let machine = made.ok_or_else(|| Refusal::Failed("no machine".into()))?;
        Ok(Box::new(Noting(machine)))
    }
}

impl Machines for Scripted {
    fn create(&self, image: &str) -> Result<Box<dyn Machine>, Refusal> {
        scripted::<()>("machine.create", &json(&image))?;
        Ok(Box::new(Self))
    }
}

impl Pages for Noting<Arc<dyn Pages>> {
    fn create(&self) -> Result<Box<dyn Page>, Refusal> {
        let mut made = None;
        noted(
            "page.create",
            || Value::Null,
            || {
                made = Some(self.0.create()?);
                Ok(())
            },
        )?;
        let page = made.ok_or_else(|| Refusal::Failed("no page".into()))?;
        Ok(Box::new(Noting(page)))
    }
}

impl Pages for Scripted {
    fn create(&self) -> Result<Box<dyn Page>, Refusal> {
        scripted::<()>("page.create", &Value::Null)?;
        Ok(Box::new(Self))
    }
}

// An account is opened without a word: only what is asked crosses.
impl Models for Noting<Arc<dyn Models>> {
    fn account(&self) -> Box<dyn Account> {
        Box::new(Noting(self.0.account()))
    }
}

impl Models for Scripted {
    fn account(&self) -> Box<dyn Account> {
        Box::new(Self)
    }
}

impl Network for Noting<Arc<dyn Network>> {
    fn client(&self) -> Box<dyn Client> {
        Box::new(Noting(self.0.client()))
    }
}

impl Network for Scripted {
    fn client(&self) -> Box<dyn Client> {
        Box::new(Self)
    }
}

// What a replayed episode reads is what was read when it was recorded, whatever is stored now; what it writes goes nowhere.
impl Stores for Noting<Arc<dyn Stores>> {
    fn open(&self, session: Session) -> Box<dyn Store> {
        Box::new(Noting(self.0.open(session)))
    }
}

impl Stores for Scripted {
    fn open(&self, _: Session) -> Box<dyn Store> {
        Box::new(Self)
    }
}

/// A method that is noted by one type and scripted by the other.
macro_rules! both {
    ($trait:ident, $inner:ty, $prefix:literal; $($name:ident($($arg:ident: $kind:ty),*) -> $answer:ty;)*) => {
        impl $trait for Noting<$inner> {
            $(fn $name(&mut self, $($arg: $kind),*) -> Result<$answer, Refusal> {
                // Written down first: asking takes the arguments.
                let recorded = TAPE.with_borrow(Option::is_some);
                let with = if recorded { json(&($(&$arg,)*)) } else { Value::Null };
                noted(concat!($prefix, stringify!($name)), || with, || self.0.$name($($arg),*))
            })*
        }
        impl $trait for Scripted {
            $(fn $name(&mut self, $($arg: $kind),*) -> Result<$answer, Refusal> {
                scripted(concat!($prefix, stringify!($name)), &json(&($(&$arg,)*)))
            })*
        }
    };
}

both! { Machine, Box<dyn Machine>, "machine.";
    run(command: &str, folder: &str, timeout: Duration) -> Output;
    write_file(path: &str, content: &[u8], executable: bool) -> ();
    read_file(path: &str) -> Option<Vec<u8>>;
    snapshot() -> u32;
    roll_back(snapshot: u32) -> ();
    changes(since: u32) -> Vec<(String, ChangeKind)>;
}

both! { Page, Box<dyn Page>, "page.";
    show(html: &str) -> ();
    open(site: &str, path: &str) -> ();
    tree() -> Vec<Node>;
    act(gesture: Gesture) -> ();
    evaluate_json(script: &str) -> String;
    screenshot_png() -> Vec<u8>;
}

both! { Account, Box<dyn Account>, "model.";
    complete(request: CompletionRequest) -> Completion;
}

both! { Client, Box<dyn Client>, "http.";
    fetch(request: Request) -> Response;
}

both! { Store, Box<dyn Store>, "store.";
    get(key: &str) -> Option<Vec<u8>>;
    put(key: &str, value: &[u8]) -> ();
    remove(key: &str) -> ();
    keys(prefix: &str) -> Vec<String>;
}

/// An environment whose hosted episodes are written down, one file each.
pub struct Recorder {
    inner: Arc<dyn Environment>,
    folder: PathBuf,
    episodes: AtomicUsize,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Recorder {
    /// Writes into this folder, which is made.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(inner: Arc<dyn Environment>, folder: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder)
            .with_context(|| format!("failed to make the folder {}", folder.display()))?;
        Ok(Self {
            inner,
            folder,
            episodes: AtomicUsize::new(0),
        })
    }
}

impl Environment for Recorder {
    fn card(&self) -> ModalityCard {
        self.inner.card()
    }

    fn classify(&self, request: RequestView<'_>) -> rl::Result<Classification> {
        self.inner.classify(request)
    }

    fn next_state(&self, turn: &Turn, new_messages: &[Message]) -> rl::Result<Option<NextState>> {
        self.inner.next_state(turn, new_messages)
    }

    fn session_ends(&self, messages: &[Message]) -> rl::Result<bool> {
        self.inner.session_ends(messages)
    }

    fn tasks(&self, split: &str) -> rl::Result<Vec<TaskId>> {
        self.inner.tasks(split)
    }

    fn next_state_with(
        &self,
        turn: &Turn,
        new_messages: &[Message],
        archive: &dyn Archive,
    ) -> rl::Result<Option<NextState>> {
        self.inner.next_state_with(turn, new_messages, archive)
    }

    fn start(&self, task: &TaskId, seed: Seed) -> rl::Result<Box<dyn Episode>> {
        self.start_with(task, seed, &Nowhere)
    }

    fn start_with(
        &self,
        task: &TaskId,
        seed: Seed,
        archive: &dyn Archive,
    ) -> rl::Result<Box<dyn Episode>> {
        let mut crossings = Vec::new();
        let given = json(&(task, seed));
        let inner = &self.inner;
        let mut started = None;
        crossing(&mut crossings, "start", given, || {
            started = Some(inner.start_with(task, seed, archive)?);
            Ok(())
        })?;
        let episode = started.ok_or_else(|| rl::Error::Failed {
            what: "start".into(),
            why: "no episode".into(),
        })?;
        let name: String = format!("{task}-{:016x}", seed.get())
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        // Attempts at one task have one seed: the file's name tells them apart, also from those of an earlier run.
        let path = loop {
            let number = self.episodes.fetch_add(1, Ordering::Relaxed);
            let path = self.folder.join(format!("{name}-{number}.jsonl"));
            if !path.exists() {
                break path;
            }
        };
        Ok(Box::new(Recording {
            episode,
            crossings,
            path,
        }))
    }
}

struct Recording {
    episode: Box<dyn Episode>,
    crossings: Vec<Crossing>,
    path: PathBuf,
}

/// Calls the guest and writes down what crossed.
fn crossing<T: Serialize>(
    crossings: &mut Vec<Crossing>,
    call: &str,
    given: Value,
    ask: impl FnOnce() -> rl::Result<T>,
) -> rl::Result<T> {
    TAPE.set(Some(Vec::new()));
    let answer = ask();
    let asked = TAPE.take().unwrap_or_default();
    crossings.push(Crossing {
        call: call.to_owned(),
        given,
        answer: answer.as_ref().map(json).map_err(ToString::to_string),
        asked,
    });
    answer
}

impl Episode for Recording {
    fn observe(&mut self) -> rl::Result<Observation> {
        let episode = &mut self.episode;
        crossing(&mut self.crossings, "observe", Value::Null, || {
            episode.observe()
        })
    }

    fn act(&mut self, action: &Action) -> rl::Result<Step> {
        let episode = &mut self.episode;
        crossing(&mut self.crossings, "act", json(action), || {
            episode.act(action)
        })
    }

    fn outcome(&mut self) -> rl::Result<Option<Outcome>> {
        let episode = &mut self.episode;
        crossing(&mut self.crossings, "outcome", Value::Null, || {
            episode.outcome()
        })
    }

    fn snapshot(&mut self) -> rl::Result<Option<Vec<u8>>> {
        self.episode.snapshot()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let lines: Vec<String> = self
            .crossings
            .iter()
            .filter_map(|crossing| serde_json::to_string(crossing).ok())
            .collect();
        if let Err(error) = fs::write(&self.path, lines.join("\n") + "\n") {
            tracing::error!(path = %self.path.display(), %error, "failed to write a recording");
        }
    }
}

/// Where a replay parted from its recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Parting {
    /// The line, from 1.
    pub line: usize,
    /// The call.
    pub call: String,
    /// What was recorded.
    pub recorded: Result<Value, String>,
    /// What this build answers.
    pub now: Result<Value, String>,
}

/// Reads a recording.
///
/// # Errors
/// The file cannot be read, or the line that is none of a recording.
pub fn read(path: &Path) -> anyhow::Result<Vec<Crossing>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("failed to read the recording {}", path.display()))?;
    let line = |(at, line): (usize, &str)| {
        serde_json::from_str(line)
            .with_context(|| format!("{}, line {}, is no crossing", path.display(), at + 1))
    };
    text.lines().enumerate().map(line).collect()
}

/// Plays a recording to an environment that was loaded with [`offers_of_a_replay`]; none when every answer is the same.
///
/// # Errors
/// A recording that does not begin with a start, or whose arguments cannot be read.
pub fn replay(
    environment: &dyn Environment,
    crossings: &[Crossing],
) -> anyhow::Result<Option<Parting>> {
    let mut episode: Option<Box<dyn Episode>> = None;
    for (at, crossing) in crossings.iter().enumerate() {
        SCRIPT.set(Some(crossing.asked.clone().into_iter()));
        let given = || crossing.given.clone();
        let now = match (crossing.call.as_str(), &mut episode) {
            ("start", none) => {
                let (task, seed): (TaskId, Seed) = serde_json::from_value(given())
                    .context("the recording's task and seed cannot be read")?;
                environment.start(&task, seed).map(|started| {
                    *none = Some(started);
                    Value::Null
                })
            }
            (_, None) => anyhow::bail!("the recording does not begin with the start of an episode"),
            ("observe", Some(episode)) => episode.observe().map(|answer| json(&answer)),
            ("act", Some(episode)) => {
                let action: Action = serde_json::from_value(given())
                    .with_context(|| format!("the action of line {} cannot be read", at + 1))?;
                episode.act(&action).map(|answer| json(&answer))
            }
            ("outcome", Some(episode)) => episode.outcome().map(|answer| json(&answer)),
            (other, _) => anyhow::bail!("line {} has a call `{other}`, which is none", at + 1),
        };
        let now = now.map_err(|error| error.to_string());
        let left = SCRIPT.take().map_or(0, |left| left.len());
        let same = match (&now, &crossing.answer) {
            (Ok(now), Ok(then)) => now == then && left == 0,
            // Words about a failure may be others in another build.
            (Err(_), Err(_)) => true,
            _ => false,
        };
        if !same {
            return Ok(Some(Parting {
                line: at + 1,
                call: crossing.call.clone(),
                recorded: crossing.answer.clone(),
                now,
            }));
        }
        if now.is_err() {
            return Ok(None);
        }
    }
    Ok(None)
}

/// What an environment that is replayed is loaded with.
pub fn offers_of_a_replay() -> Outside {
    script()
}
