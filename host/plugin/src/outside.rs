//! What reaches beyond a guest's own memory: the traits behind the capabilities `shell`, `browser`, `http`, `model` and
//! `store`.
//!
//! The host's owner gives implementations to [`crate::PluginHost::with`]; this crate knows no jail, browser, network, model or ledger. What a
//! guest may ask of them is in `wit/capabilities.wit`.

use std::{fmt, sync::Arc, time::Duration};

use rl::store::{Session, Unfit};
use serde::{Deserialize, Serialize};

/// What a plugin host can offer beyond computation. Nothing by default.
#[derive(Clone, Default)]
pub struct Outside {
    /// Behind the capability `shell`.
    pub shell: Option<Arc<dyn Machines>>,
    /// Behind the capability `browser`.
    pub browser: Option<Arc<dyn Pages>>,
    /// Behind the capability `model`.
    pub model: Option<Arc<dyn Models>>,
    /// Behind the capability `http`.
    pub http: Option<Arc<dyn Network>>,
    /// Behind the capability `store`.
    pub store: Option<Arc<dyn Stores>>,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside")
            .field("shell", &self.shell.is_some())
            .field("browser", &self.browser.is_some())
            .field("model", &self.model.is_some())
            .field("http", &self.http.is_some())
            .field("store", &self.store.is_some())
            .finish()
    }
}

/// Why an outside capability did not do what a guest asked. It becomes a fault that the guest reads.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The guest asked for what it may not have.
    #[error("{0}")]
    Invalid(String),
    /// This host does not offer it.
    #[error("{0}")]
    Unsupported(String),
    /// It broke.
    #[error("{0}")]
    Failed(String),
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ending {
    /// With this code.
    Exited(u32),
    /// By this signal.
    Killed(u32),
    /// Out of time.
    TimedOut,
}

/// What a command did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Output {
    /// How it ended.
    pub ending: Ending,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Whether either was cut.
    pub cut: bool,
}

/// How a file differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is another.
    Modified,
    /// It is gone.
    Removed,
}

/// Makes jailed machines.
pub trait Machines: Send + Sync {
    /// A fresh machine with the files of an image.
    ///
    /// # Errors
    /// An unknown image, or no room.
    fn create(&self, image: &str) -> Result<Box<dyn Machine>, Refusal>;
}

/// A jailed machine; destroyed when it is dropped. Every method blocks, for a bounded time.
pub trait Machine: Send {
    /// Runs `bash -c command` in a folder.
    ///
    /// # Errors
    /// A bad folder or time; a machine that broke.
    fn run(&mut self, command: &str, folder: &str, timeout: Duration) -> Result<Output, Refusal>;
    /// Writes a file.
    ///
    /// # Errors
    /// A path that leads outside, or no space.
    fn write_file(&mut self, path: &str, content: &[u8], executable: bool) -> Result<(), Refusal>;
    /// Reads a file.
    ///
    /// # Errors
    /// A path that leads outside, or a file that is too large.
    fn read_file(&mut self, path: &str) -> Result<Option<Vec<u8>>, Refusal>;
    /// Keeps the state of the working folder.
    ///
    /// # Errors
    /// Too many of them.
    fn snapshot(&mut self) -> Result<u32, Refusal>;
    /// Goes back to a state that was kept.
    ///
    /// # Errors
    /// An unknown number.
    fn roll_back(&mut self, snapshot: u32) -> Result<(), Refusal>;
    /// What differs from a state that was kept.
    ///
    /// # Errors
    /// An unknown number.
    fn changes(&mut self, since: u32) -> Result<Vec<(String, ChangeKind)>, Refusal>;
}

/// A node of an accessibility tree; see `wit/capabilities.wit`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the contract's own names")]
pub struct Node {
    pub id: u32,
    pub depth: u32,
    pub role: String,
    pub name: String,
    pub value: String,
    pub states: Vec<String>,
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

/// Makes headless pages.
pub trait Pages: Send + Sync {
    /// A fresh, empty page.
    ///
    /// # Errors
    /// No room, or no browser.
    fn create(&self) -> Result<Box<dyn Page>, Refusal>;
}

/// One thing that is done to a page.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Gesture {
    /// Clicks the middle of a node.
    Click(u32),
    /// Clicks a point.
    ClickAt(f64, f64),
    /// Drags from one point to another.
    Drag((f64, f64), (f64, f64)),
    /// Replaces what a field holds, or chooses from a list.
    Fill(u32, String),
    /// Types where the focus is.
    Type(String),
    /// Presses a key.
    Press(String),
    /// Scrolls.
    Scroll(f64, f64),
}

/// A headless page; closed when it is dropped. Every method blocks, for a bounded time.
pub trait Page: Send {
    /// Shows HTML.
    ///
    /// # Errors
    /// Too much of it; a page that hangs.
    fn show(&mut self, html: &str) -> Result<(), Refusal>;
    /// Opens a file of a site.
    ///
    /// # Errors
    /// An unknown site or file; a page that hangs.
    fn open(&mut self, site: &str, path: &str) -> Result<(), Refusal>;
    /// The accessibility tree.
    ///
    /// # Errors
    /// A page that hangs or is gone.
    fn tree(&mut self) -> Result<Vec<Node>, Refusal>;
    /// Does something to the page.
    ///
    /// # Errors
    /// An unknown node or key; a page that hangs or is gone.
    fn act(&mut self, gesture: Gesture) -> Result<(), Refusal>;
    /// The value of a script, as JSON.
    ///
    /// # Errors
    /// A script that throws or hangs, or too large a value.
    fn evaluate_json(&mut self, script: &str) -> Result<String, Refusal>;
    /// The page as PNG.
    ///
    /// # Errors
    /// A page that hangs or is gone.
    fn screenshot_png(&mut self) -> Result<Vec<u8>, Refusal>;
}

/// What a model shall complete; see `wit/capabilities.wit`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CompletionRequest {
    /// The operator's name for it.
    pub model: String,
    /// What it goes on from. Texts are data.
    pub messages: Vec<rl::Message>,
    /// Most tokens of the completion.
    pub max_tokens: u32,
    /// 0 takes the likeliest.
    pub temperature: f64,
    /// Texts that end it.
    pub stop: Vec<String>,
    /// The host's: of the episode, and of the call.
    pub seed: rl::Seed,
}

/// What a model said.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Completion {
    /// Without special tokens.
    pub text: String,
    /// Why it ended.
    pub finish: rl::FinishReason,
    /// Tokens of prompt and completion.
    pub tokens: u32,
    /// Tokens that the account has left for this model.
    pub left: u32,
}

/// The models that guests may ask.
pub trait Models: Send + Sync {
    /// A fresh account: nothing of any budget is used. One for each episode that asks.
    fn account(&self) -> Box<dyn Account>;
}

/// What one episode asks, on its budget.
pub trait Account: Send {
    /// Completes; blocks, for a bounded time.
    ///
    /// # Errors
    /// An unknown name, a budget that has no room, messages that the model refuses, an engine that is busy or broken.
    fn complete(&mut self, request: CompletionRequest) -> Result<Completion, Refusal>;
}

/// What a request over HTTP asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the protocol's own names")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

/// A request over HTTP; see `wit/capabilities.wit`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the contract's own names")]
pub struct Request {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
}

/// A response over HTTP; see `wit/capabilities.wit`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the contract's own names")]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Reaches listed hosts.
pub trait Network: Send + Sync {
    /// A guest's way to them, which counts its requests.
    fn client(&self) -> Box<dyn Client>;
}

/// One guest's requests: those of an episode, or of one call on live traffic.
pub trait Client: Send {
    /// Asks and waits for the answer, for a bounded time.
    ///
    /// # Errors
    /// What the list does not allow; a network or a server that does not answer well.
    fn fetch(&mut self, request: Request) -> Result<Response, Refusal>;
}

/// Gives guests their way to what their plugins stored.
pub trait Stores: Send + Sync {
    /// The way to this session: that of an episode, or of one turn of live traffic.
    fn open(&self, session: Session) -> Box<dyn Store>;
}

/// What one episode, or one turn, reads and writes; see `wit/capabilities.wit`.
pub trait Store: Send {
    /// The value of a key.
    ///
    /// # Errors
    /// A key that can be none; an episode that is over.
    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, Refusal>;
    /// Stores a value.
    ///
    /// # Errors
    /// A key or value that can be none, no room; an episode that is over.
    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), Refusal>;
    /// Removes a key.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn remove(&mut self, key: &str) -> Result<(), Refusal>;
    /// The keys that begin with this.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn keys(&mut self, prefix: &str) -> Result<Vec<String>, Refusal>;
}

/// The sessions themselves, where they were opened.
#[derive(Clone, Copy, Debug)]
pub struct Sessions;

impl Stores for Sessions {
    fn open(&self, session: Session) -> Box<dyn Store> {
        Box::new(session)
    }
}

fn unfit(unfit: Unfit) -> Refusal {
    Refusal::Invalid(unfit.to_string())
}

impl Store for Session {
    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        let value = Session::get(self, key).map_err(unfit)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), Refusal> {
        Session::put(self, key, value).map_err(unfit)
    }

    fn remove(&mut self, key: &str) -> Result<(), Refusal> {
        Session::remove(self, key).map_err(unfit)
    }

    fn keys(&mut self, prefix: &str) -> Result<Vec<String>, Refusal> {
        Session::keys(self, prefix).map_err(unfit)
    }
}
