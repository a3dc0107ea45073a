//! The conversation with one chromium process: requests that are answered by id, events that belong to a page.
//!
//! Any number of threads ask; one thread hands in what chromium says ([`Connection::dispatch`]) and never blocks on a page.
//! Does not start the process, and does not know what a method means, except for the events that end or open targets.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    frames::{Frame, without_lone_surrogates},
    session::{Reaction, Session},
};

/// Why a request has no answer.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// Chromium says no, in its words.
    Said(String),
    /// The answer exceeds what is read.
    TooLarge,
    /// No answer in time.
    Late,
    /// The page, or chromium, is no more; why.
    Gone(String),
    /// The caller asked for what it may not have; why.
    Refused(String),
}

/// What chromium answered, or why it did not.
pub(super) type Outcome<T = Value> = Result<T, Trouble>;

/// When an operation has to be over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    pub(super) fn instant(self) -> Instant {
        self.0
    }

    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Waiting {
    id: u64,
    answer: Receiver<Outcome>,
}

#[derive(Debug)]
struct Asked {
    session: Option<String>,
    answer: SyncSender<Outcome>,
}

#[derive(Debug, Default)]
struct Table {
    /// Why there is no chromium any more.
    ended: Option<String>,
    asked: HashMap<u64, Asked>,
    sessions: HashMap<String, Arc<Session>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    /// To the thread that writes, so that a chromium that does not read blocks nobody.
    outgoing: Sender<Vec<u8>>,
    next: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    id: Option<u64>,
    method: Option<String>,
    #[serde(default)]
    params: Value,
    result: Option<Value>,
    error: Option<Complaint>,
    session_id: Option<String>,
}

#[derive(Deserialize)]
struct Complaint {
    message: String,
}

impl Connection {
    pub(super) fn new(outgoing: Sender<Vec<u8>>) -> Self {
        Self {
            outgoing,
            next: AtomicU64::new(1),
            table: Mutex::default(),
        }
    }

    /// Sends a request; the answer is for [`Connection::wait`].
    pub(super) fn begin(&self, session: Option<&str>, method: &str, params: Value) -> Waiting {
        let (sender, answer) = sync_channel(1);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut table = self.table.lock();
        let gone = match (&table.ended, session) {
            (Some(why), _) => Some(why.clone()),
            (None, Some(session)) if !table.sessions.contains_key(session) => {
                Some("it is closed".to_owned())
            }
            _ => None,
        };
        if let Some(why) = gone {
            sender.try_send(Err(Trouble::Gone(why))).ok();
        } else {
            let session = session.map(str::to_owned);
            let answer = sender;
            table.asked.insert(id, Asked { session, answer });
        }
        drop(table);
        self.send(id, session, method, params);
        Waiting { id, answer }
    }

    /// Sends a request whose answer nobody wants.
    pub(super) fn post(&self, session: Option<&str>, method: &str, params: Value) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.send(id, session, method, params);
    }

    fn send(&self, id: u64, session: Option<&str>, method: &str, params: Value) {
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        // Nobody reads it when chromium is gone, which the reader says to everybody who waits.
        self.outgoing.send(bytes).ok();
    }

    pub(super) fn wait(&self, waiting: Waiting, deadline: Deadline) -> Outcome {
        match waiting.answer.recv_timeout(deadline.left()) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                self.table.lock().asked.remove(&waiting.id);
                Err(Trouble::Late)
            }
            Err(RecvTimeoutError::Disconnected) => Err(Trouble::Gone("it is closed".to_owned())),
        }
    }

    pub(super) fn call(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
        deadline: Deadline,
    ) -> Outcome {
        self.wait(self.begin(session, method, params), deadline)
    }

    /// From now on the session's events reach it.
    pub(super) fn register(&self, session: Arc<Session>) {
        let mut table = self.table.lock();
        table.sessions.insert(session.id.clone(), session);
    }

    /// Nobody listens to this session any more: everybody who waits for it is told why.
    pub(super) fn forget(&self, session: &str, why: &str) {
        let mut table = self.table.lock();
        if let Some(session) = table.sessions.remove(session) {
            session.die(why);
        }
        let theirs = |asked: &Asked| asked.session.as_deref() == Some(session);
        for (_, asked) in table.asked.extract_if(|_, asked| theirs(asked)) {
            let gone = Trouble::Gone(why.to_owned());
            asked.answer.try_send(Err(gone)).ok();
        }
    }

    /// Chromium is no more: everybody who waits, or will, is told why.
    pub(super) fn end(&self, why: &str) {
        let mut table = self.table.lock();
        table.ended.get_or_insert_with(|| why.to_owned());
        for (_, session) in table.sessions.drain() {
            session.die(why);
        }
        for (_, asked) in table.asked.drain() {
            let gone = Trouble::Gone(why.to_owned());
            asked.answer.try_send(Err(gone)).ok();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.table.lock().ended.is_some()
    }

    /// Takes in one message.
    pub(super) fn dispatch(&self, frame: Frame) {
        match frame {
            Frame::Whole(bytes) => match parse(&bytes) {
                Some(message) => self.take(message),
                None => self.answer(id_at_start(&bytes), Err(Trouble::TooLarge)),
            },
            // An event that is too large is a request with a huge body, which stays unanswered.
            Frame::TooLarge(head) => self.answer(id_at_start(&head), Err(Trouble::TooLarge)),
        }
    }

    fn answer(&self, id: Option<u64>, outcome: Outcome) {
        if let Some(asked) = id.and_then(|id| self.table.lock().asked.remove(&id)) {
            asked.answer.try_send(outcome).ok();
        }
    }

    fn take(&self, message: Message) {
        let Message { id, params, .. } = message;
        if id.is_some() {
            let outcome = match message.error {
                Some(complaint) => Err(Trouble::Said(complaint.message)),
                None => Ok(message.result.unwrap_or_default()),
            };
            return self.answer(id, outcome);
        }
        let Some(method) = message.method else { return };
        match message.session_id {
            Some(id) => self.to_session(&id, &method, params),
            None => self.to_browser(&method, &params),
        }
    }

    fn to_session(&self, id: &str, method: &str, params: Value) {
        let Some(session) = self.table.lock().sessions.get(id).cloned() else {
            return;
        };
        match session.observe(method, params) {
            Reaction::None => {}
            Reaction::Reply(method, params) => self.post(Some(id), method, params),
            Reaction::Close(why) => {
                self.forget(id, why);
                let context = json!({ "browserContextId": session.context });
                self.post(None, "Target.disposeBrowserContext", context);
            }
        }
    }

    fn to_browser(&self, method: &str, params: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match method {
            "Target.detachedFromTarget" => {
                self.forget(&text(&params["sessionId"]), "it was closed");
            }
            // Whatever else opens in a page's context was opened by the page: it is closed before anybody sees it.
            "Target.targetCreated" => {
                let target = &params["targetInfo"];
                let (context, id) = (text(&target["browserContextId"]), text(&target["targetId"]));
                let is_popup = target["type"] == "page"
                    && self
                        .table
                        .lock()
                        .sessions
                        .values()
                        .any(|session| session.context == context && session.target != id);
                if is_popup {
                    self.post(None, "Target.closeTarget", json!({ "targetId": id }));
                }
            }
            _ => {}
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Message> {
    let text = str::from_utf8(bytes).ok()?;
    serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(&without_lone_surrogates(text)))
        .ok()
}

fn id_at_start(message: &[u8]) -> Option<u64> {
    let digits: Vec<u8> = message
        .strip_prefix(b"{\"id\":")?
        .iter()
        .copied()
        .take_while(u8::is_ascii_digit)
        .collect();
    str::from_utf8(&digits).ok()?.parse().ok()
}
