//! What is known of one page from its events: whether it lives, whether it loads, what it was kept from.
//!
//! Updated by the thread that reads, in the order of events: who has the answer to a request sees all that happened before it.
//! Does not talk to chromium itself; [`Reaction`] says what is to be said.

use std::sync::mpsc::{SyncSender, TrySendError};

use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

use super::{
    connection::{Deadline, Outcome, Trouble},
    request::Paused,
};

/// Most requests that wait for their files: no honest page comes near.
pub(super) const REQUESTS: usize = 4_096;

/// A page's main target, attached to.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    /// Its target, whose id is that of the main frame.
    pub(super) target: String,
    /// Its browser context.
    pub(super) context: String,
    state: Mutex<State>,
    changed: Condvar,
    requests: SyncSender<Paused>,
}

/// What an event asks for.
#[derive(Debug)]
pub(super) enum Reaction {
    None,
    Reply(&'static str, Value),
    /// The page may not go on; why.
    Close(&'static str),
}

/// How far the main frame is from showing something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Still,
    /// It asked for a navigation, which may come to nothing without a word.
    Asked,
    Loading,
}

#[derive(Debug)]
struct State {
    dead: Option<String>,
    phase: Phase,
    /// Documents so far; node ids are of one of them.
    document: u64,
    /// Loaders whose document came, since the last [`Session::expect`].
    committed: Vec<String>,
    /// Where the page wanted to go, and may not.
    blocked: Option<String>,
    /// What a drag carries, once the page began one of its own.
    dragged: Option<Value>,
}

impl Session {
    pub(super) fn new(
        id: String,
        target: String,
        context: String,
        requests: SyncSender<Paused>,
    ) -> Self {
        let state = State {
            dead: None,
            phase: Phase::Still,
            document: 0,
            committed: Vec::new(),
            blocked: None,
            dragged: None,
        };
        Self {
            id,
            target,
            context,
            state: Mutex::new(state),
            changed: Condvar::new(),
            requests,
        }
    }

    /// Takes in an event.
    pub(super) fn observe(&self, method: &str, mut params: Value) -> Reaction {
        match method {
            "Fetch.requestPaused" => match self.requests.try_send(Paused::from_event(&params)) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => Reaction::None,
                Err(TrySendError::Full(_)) => Reaction::Close("it made too many requests at once"),
            },
            "Page.javascriptDialogOpening" => {
                let text = params["defaultPrompt"].take();
                let text = text.as_str().unwrap_or_default();
                let answer = json!({ "accept": true, "promptText": text });
                Reaction::Reply("Page.handleJavaScriptDialog", answer)
            }
            "Inspector.targetCrashed" => Reaction::Close(
                "its process crashed, which mostly means that it used up its memory",
            ),
            "Input.dragIntercepted" => {
                self.state.lock().dragged = Some(params["data"].take());
                self.changed.notify_all();
                Reaction::None
            }
            _ => {
                self.follow(method, &params);
                Reaction::None
            }
        }
    }

    /// Events of navigation.
    fn follow(&self, method: &str, params: &Value) {
        let is_main = params["frameId"] == *self.target;
        let mut state = self.state.lock();
        match method {
            "Page.frameRequestedNavigation" if is_main && params["disposition"] == "currentTab" => {
                if state.phase == Phase::Still {
                    state.phase = Phase::Asked;
                }
                let url = params["url"].as_str().unwrap_or_default();
                // These are not requests: chromium would hand them to a program of the machine.
                if !["https:", "http:", "about:", "blob:", "data:"]
                    .iter()
                    .any(|scheme| url.starts_with(scheme))
                {
                    state.block(url);
                }
            }
            "Page.frameStartedLoading" if is_main => state.phase = Phase::Loading,
            "Page.frameStoppedLoading" if is_main => state.phase = Phase::Still,
            "Page.navigatedWithinDocument" if is_main && state.phase == Phase::Asked => {
                state.phase = Phase::Still;
            }
            "Page.frameNavigated" if params["frame"]["id"] == *self.target => {
                state.document += 1;
                let loader = params["frame"]["loaderId"].as_str().unwrap_or_default();
                // A page that replaces itself without end: any of its first documents will do.
                if state.committed.len() < 64 {
                    state.committed.push(loader.to_owned());
                }
            }
            _ => return,
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The page is no more.
    pub(super) fn die(&self, why: &str) {
        let mut state = self.state.lock();
        state.dead.get_or_insert_with(|| why.to_owned());
        drop(state);
        self.changed.notify_all();
    }

    /// The number of the document that is shown.
    pub(super) fn document(&self) -> u64 {
        self.state.lock().document
    }

    /// The page wanted to go there, and may not.
    pub(super) fn block(&self, url: &str) {
        self.state.lock().block(url);
    }

    /// Forgets what the page was kept from, and any drag, before something new is done to it.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        state.blocked = None;
        state.dragged = None;
    }

    pub(super) fn take_blocked(&self) -> Option<String> {
        self.state.lock().blocked.take()
    }

    pub(super) fn take_dragged(&self) -> Option<Value> {
        self.state.lock().dragged.take()
    }

    /// A navigation of ours begins now.
    pub(super) fn expect(&self) {
        let mut state = self.state.lock();
        state.committed.clear();
        state.phase = Phase::Loading;
    }

    /// The navigation of ours came to nothing.
    pub(super) fn expect_nothing(&self) {
        self.state.lock().phase = Phase::Still;
    }

    /// Waits until the document of this loader came, and it, or what replaced it, is loaded.
    pub(super) fn until_loaded(&self, loader: &str, deadline: Deadline) -> Outcome<()> {
        self.until(deadline, |state| {
            state.phase == Phase::Still && state.committed.iter().any(|seen| seen == loader)
        })
    }

    /// Waits until nothing loads. A navigation that was only asked for is given until `patience`.
    pub(super) fn until_still(&self, patience: Deadline, deadline: Deadline) -> Outcome<()> {
        match self.until(patience, |state| state.phase == Phase::Still) {
            Err(Trouble::Late) => {}
            done => return done,
        }
        let mut state = self.state.lock();
        if state.phase == Phase::Asked {
            state.phase = Phase::Still;
        }
        drop(state);
        self.until(deadline, |state| state.phase != Phase::Loading)
    }

    fn until(&self, deadline: Deadline, done: impl Fn(&State) -> bool) -> Outcome<()> {
        let mut state = self.state.lock();
        loop {
            if let Some(why) = &state.dead {
                return Err(Trouble::Gone(why.clone()));
            }
            if done(&state) {
                return Ok(());
            }
            if self
                .changed
                .wait_until(&mut state, deadline.instant())
                .timed_out()
            {
                return Err(Trouble::Late);
            }
        }
    }
}

impl State {
    fn block(&mut self, url: &str) {
        let shown: String = url.chars().take(200).collect();
        self.blocked.get_or_insert(shown);
    }
}
