//! The serve loop: records every turn before it is acknowledged, and finds out what each turn's next state is.
//!
//! It hands out [`Handle`]s, which are what the gateway calls ([`rl::TurnSink`]); its own loop ends sessions that went
//! idle. It computes no token, asks no judge and trains nothing. Sessions and their history are [`crate::session`].

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ledger::{Entry, Ledger};
use parking_lot::Mutex;
use rl::{
    AdapterName, BoxFuture, Classification, Environment, Feedback, FinishReason, Message,
    NextState, NotTrainable, RequestView, Seed, Served, Ticket, Turn, TurnId, TurnKind,
    TurnRequest, TurnSink,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    Error, Result, Shutdown,
    call::Caller,
    records::{self, ClosedRecord, Closing, FEEDBACK, TurnRecord},
    session::{Continued, SessionKey, Sessions},
    status::Board,
};

/// A correction longer than this is refused: it becomes part of a prompt.
const MAX_CORRECTION: usize = 2_000;
/// Calls of the environment plugin at once, from all requests together.
const PLUGIN_CALLS: usize = 32;

/// `[loops.serve]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// A session that nobody uses for this long is over. Far longer than any generation, or reactions come too late.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// A turn that was begun and not finished for this long is given up.
    #[serde(with = "humantime_serde")]
    pub abandoned_after: Duration,
    /// The environment plugin has this long to look at a request.
    #[serde(with = "humantime_serde")]
    pub plugin_timeout: Duration,
    /// More sessions than this end the ones that were idle longest.
    pub max_sessions: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(30 * 60),
            abandoned_after: Duration::from_secs(60 * 60),
            plugin_timeout: Duration::from_secs(5),
            max_sessions: 10_000,
        }
    }
}

impl Config {
    pub(crate) fn validate(&self) -> Result<()> {
        let out_of_range = |key, value: String, allowed| {
            Err(Error::Config {
                key,
                value,
                allowed,
            })
        };
        if self.idle_timeout.is_zero() {
            return out_of_range("idle-timeout", "0s".to_owned(), "it must be above 0");
        }
        if self.plugin_timeout.is_zero() {
            return out_of_range("plugin-timeout", "0s".to_owned(), "it must be above 0");
        }
        if self.max_sessions == 0 {
            return out_of_range("max-sessions", "0".to_owned(), "it must be at least 1");
        }
        Ok(())
    }
}

/// The loop.
#[derive(Debug)]
pub struct Serve(Arc<Inner>);

/// What the gateway and the rollout loop hold. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Inner>);

/// A turn that is being computed.
#[derive(Debug)]
struct Begun {
    request: TurnRequest,
    key: SessionKey,
    derived: bool,
    /// The session ends with this turn.
    last: bool,
    at: Instant,
}

struct Inner {
    config: Config,
    trained: Vec<AdapterName>,
    ledger: Ledger,
    environment: Arc<dyn Environment>,
    caller: Caller,
    board: Board,
    sessions: Mutex<Sessions>,
    begun: Mutex<HashMap<TurnId, Begun>>,
    ids: Ids,
}

/// Names turns: the same run of the same ledger names the same turn the same, and no recorded turn's name comes again.
#[derive(Debug)]
struct Ids {
    seed: Seed,
    start: u64,
    count: AtomicU64,
}

impl Ids {
    fn next(&self) -> TurnId {
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        let at = format!("turn/{}/{n}", self.start);
        let (high, low) = (
            self.seed.derive(&at),
            self.seed.derive(&format!("{at}/low")),
        );
        TurnId::new(format!("chatcmpl-{:016x}{:016x}", high.get(), low.get()))
    }
}

/// Builds the loop. `trained` are the adapters that a trainer owns; `sessions` is what [`crate::recovery`] found.
pub(crate) fn build(
    config: Config,
    trained: Vec<AdapterName>,
    seed: Seed,
    ledger: Ledger,
    environment: Arc<dyn Environment>,
    board: Board,
    sessions: Sessions,
) -> (Serve, Handle) {
    let ids = Ids {
        seed,
        start: ledger.durable().get(),
        count: AtomicU64::new(0),
    };
    let caller = Caller::new(PLUGIN_CALLS, config.plugin_timeout);
    let inner = Arc::new(Inner {
        config,
        trained,
        ledger,
        environment,
        caller,
        board,
        sessions: Mutex::new(sessions),
        begun: Mutex::default(),
        ids,
    });
    (Serve(inner.clone()), Handle(inner))
}

impl Serve {
    /// Ends idle sessions until the shutdown.
    ///
    /// # Errors
    /// The ledger's.
    pub(crate) async fn run(&self, shutdown: Shutdown) -> Result<()> {
        let pause = (self.0.config.idle_timeout / 8).max(Duration::from_millis(10));
        loop {
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                () = sleep(pause) => self.0.sweep().await?,
            }
        }
    }

    pub(crate) fn another(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Handle {
    /// Hands over what came back after a turn, where no further request will bring it: the end of a hosted episode.
    ///
    /// # Errors
    /// [`Error::NoReply`] for an unknown turn; the ledger's.
    pub async fn react(&self, turn: &TurnId, messages: Vec<Message>, ends: bool) -> Result<()> {
        let inner = &self.0;
        let record = inner.load(turn).await?.ok_or_else(|| no_reply(turn))?;
        let key = SessionKey {
            tenant: record.turn.tenant.clone(),
            session: record.turn.session.clone(),
        };
        if record.not_trainable.is_none() && !messages.is_empty() {
            let continued = Continued {
                turn: turn.clone(),
                messages,
            };
            let closing = inner.next_state(continued).await;
            inner
                .close(&key, closing.into_iter().collect(), None)
                .await?;
        }
        if ends {
            inner.end_session(&key).await?;
        }
        Ok(())
    }

    /// How many sessions are going on.
    pub fn sessions(&self) -> usize {
        self.0.sessions.lock().len()
    }
}

impl TurnSink for Handle {
    fn begin(&self, request: TurnRequest) -> BoxFuture<'_, rl::Result<Ticket>> {
        Box::pin(async move { Ok(self.0.begin(request).await?) })
    }

    fn finish(&self, ticket: Ticket, served: Served) -> BoxFuture<'_, rl::Result<()>> {
        Box::pin(async move { Ok(self.0.finish(ticket, served).await?) })
    }

    fn feedback(&self, feedback: Feedback) -> BoxFuture<'_, rl::Result<()>> {
        Box::pin(async move { Ok(self.0.feedback(feedback).await?) })
    }
}

impl Inner {
    async fn begin(&self, request: TurnRequest) -> Result<Ticket> {
        self.ledger
            .health()
            .map_err(Error::ledger("serve", "begin a turn"))?;
        let turn = self.ids.next();
        let (kind, ends) = self.look(&request).await;
        let found = self.sessions.lock().begin(&request, &turn, Instant::now());
        let ticket = Ticket {
            turn: turn.clone(),
            session: found.key.session.clone(),
            kind,
            parent: found.parent,
        };
        let begun = Begun {
            request,
            key: found.key.clone(),
            derived: found.derived,
            last: ends,
            at: Instant::now(),
        };
        self.begun.lock().insert(turn.clone(), begun);
        // A side request quotes the conversation: what follows the reply in it is the agent's own, nobody's reaction.
        if kind == TurnKind::Main {
            let mut closings = Vec::new();
            for continued in found.continued {
                closings.extend(self.next_state(continued).await);
            }
            let orphaned = Closing::Without(NotTrainable::Orphaned);
            closings.extend(
                found
                    .orphaned
                    .into_iter()
                    .map(|turn| (turn, orphaned.clone())),
            );
            self.close(&found.key, closings, Some(&turn)).await?;
        }
        Ok(ticket)
    }

    async fn finish(&self, ticket: Ticket, served: Served) -> Result<()> {
        let begun = self.begun.lock().remove(&ticket.turn);
        let begun = begun.ok_or_else(|| Error::UnknownTurn {
            turn: ticket.turn.to_string(),
        })?;
        if let Some(at) = served
            .logprobs
            .iter()
            .position(|logprob| !logprob.is_finite())
        {
            return Err(Error::NotFinite {
                turn: ticket.turn.to_string(),
                at,
            });
        }
        let Begun {
            request,
            key,
            derived,
            last,
            ..
        } = begun;
        let turn = Turn {
            id: ticket.turn,
            tenant: request.tenant,
            session: ticket.session,
            parent: ticket.parent,
            kind: ticket.kind,
            adapter: request.adapter,
            version: served.version,
            adapter_digest: served.adapter_digest,
            messages: request.messages,
            tools: request.tools,
            prompt: served.prompt,
            response: served.response,
            logprobs: served.logprobs,
            sampling: served.sampling,
            reply: served.reply,
            finish: served.finish,
        };
        let not_trainable = self.not_trainable(&turn);
        let record = TurnRecord {
            turn,
            key: request.key,
            derived,
            not_trainable,
        };
        self.append(vec![record.to_entry()?], "record a turn")
            .await?;
        let TurnRecord {
            turn, key: api_key, ..
        } = &record;
        tracing::debug!(turn = %turn.id, session = %turn.session, kind = ?turn.kind, "recorded");
        self.board.turn(turn.kind, not_trainable);
        if turn.kind == TurnKind::Main {
            let open = not_trainable.is_none();
            self.sessions
                .lock()
                .served(api_key, derived, turn, open, Instant::now());
        }
        if last {
            self.end_session(&key).await?;
        }
        Ok(())
    }

    async fn feedback(&self, feedback: Feedback) -> Result<()> {
        if let Some(correction) = &feedback.correction
            && correction.chars().count() > MAX_CORRECTION
        {
            return Err(Error::Config {
                key: "correction",
                value: format!("{} characters long", correction.chars().count()),
                allowed: "at most 2000 are allowed",
            });
        }
        let record = self.load(&feedback.turn).await?;
        let record = record
            .filter(|record| record.turn.tenant == feedback.tenant)
            .ok_or_else(|| no_reply(&feedback.turn))?;
        let entry = records::encode(FEEDBACK, feedback.turn.as_str(), &feedback)?;
        self.append(vec![entry], "record feedback").await?;
        self.board.feedback();
        self.board
            .judge
            .added(usize::from(record.not_trainable.is_none()));
        Ok(())
    }

    /// Main or side, and whether the session ends. A plugin that fails leaves the turn undecided, and serving goes on.
    async fn look(&self, request: &TurnRequest) -> (TurnKind, bool) {
        let environment = self.environment.clone();
        let (messages, tools) = (request.messages.clone(), request.tools.clone());
        let asked = request.kind;
        let looked = self.caller.call("the environment plugin", move |_| {
            let view = RequestView {
                messages: &messages,
                tools: &tools,
            };
            let kind = match asked {
                Some(kind) => kind,
                None => match environment.classify(view)? {
                    Classification::Main => TurnKind::Main,
                    Classification::Side => TurnKind::Side,
                    Classification::Unknown => TurnKind::Unclassified,
                },
            };
            Ok((kind, environment.session_ends(&messages)?))
        });
        match looked.await {
            Ok((kind, ends)) => (kind, ends || request.session_done),
            Err(error) => {
                tracing::warn!(%error, "the environment plugin could not classify a request");
                self.board.plugin_failed("classify");
                (
                    asked.unwrap_or(TurnKind::Unclassified),
                    request.session_done,
                )
            }
        }
    }

    /// The next state in what came back; none when it was synthetic only, or the plugin failed: the turn goes on waiting.
    async fn next_state(&self, continued: Continued) -> Option<(TurnId, Closing)> {
        let Continued { turn, messages } = continued;
        let record = match self.load(&turn).await {
            Ok(Some(record)) => record,
            Ok(None) => return None,
            Err(error) => {
                tracing::warn!(%turn, error = %error.chain(), "a turn could not be read back");
                return None;
            }
        };
        let environment = self.environment.clone();
        let read = move |_: &_| environment.next_state(&record.turn, &messages);
        match self.caller.call("the environment plugin", read).await {
            Ok(next) => next.map(|next: NextState| (turn, Closing::Next(next))),
            Err(error) => {
                tracing::warn!(%turn, %error, "the environment plugin could not read a next state");
                self.board.plugin_failed("next-state");
                None
            }
        }
    }

    /// Records closings, each turn's first one only.
    async fn close(
        &self,
        key: &SessionKey,
        closings: Vec<(TurnId, Closing)>,
        by: Option<&TurnId>,
    ) -> Result<()> {
        if closings.is_empty() {
            return Ok(());
        }
        let mut closed = Vec::with_capacity(closings.len());
        for (turn, closing) in closings {
            closed.push(ClosedRecord {
                turn,
                closing,
                by: by.cloned(),
            });
        }
        let entries = closed
            .iter()
            .map(ClosedRecord::to_entry)
            .collect::<Result<Vec<_>>>()?;
        let fresh = self.append(entries, "record a next state").await?;
        for (record, fresh) in closed.iter().zip(fresh) {
            self.sessions.lock().closed(key, &record.turn);
            if fresh {
                let judged = match record.closing {
                    Closing::Next(_) => false,
                    Closing::Without(_) => self.was_judged(&record.turn).await?,
                };
                self.board.closed(&record.closing, judged);
            }
            let count = fresh && matches!(record.closing, Closing::Next(_));
            self.board.judge.added(usize::from(count));
        }
        Ok(())
    }

    async fn end_session(&self, key: &SessionKey) -> Result<()> {
        let waiting = self.sessions.lock().end(key);
        let closings = waiting
            .into_iter()
            .map(|(turn, reason)| (turn, Closing::Without(reason)))
            .collect();
        self.close(key, closings, None).await
    }

    async fn sweep(&self) -> Result<()> {
        let now = Instant::now();
        let busy: HashSet<SessionKey> = {
            let mut begun = self.begun.lock();
            begun.retain(|_, b| now.duration_since(b.at) < self.config.abandoned_after);
            begun.values().map(|b| b.key.clone()).collect()
        };
        let expired = {
            let sessions = self.sessions.lock();
            sessions.expired(
                now,
                self.config.idle_timeout,
                self.config.max_sessions,
                &busy,
            )
        };
        for key in expired {
            tracing::debug!(session = %key.session, "a session went idle");
            self.end_session(&key).await?;
        }
        let sessions = self.sessions.lock().len();
        self.board
            .metrics
            .sessions
            .set(i64::try_from(sessions).unwrap_or(i64::MAX));
        Ok(())
    }

    fn not_trainable(&self, turn: &Turn) -> Option<NotTrainable> {
        match (turn.kind, &turn.adapter) {
            (TurnKind::Side, _) => Some(NotTrainable::Side),
            (TurnKind::Unclassified, _) => Some(NotTrainable::Unclassified),
            (TurnKind::Main, None) => Some(NotTrainable::BaseWeights),
            (TurnKind::Main, Some(adapter)) if !self.trained.contains(adapter) => {
                Some(NotTrainable::StaticAdapter)
            }
            _ if turn.finish == FinishReason::Cancelled => Some(NotTrainable::Cancelled),
            _ if turn.response.is_empty() => Some(NotTrainable::Empty),
            _ => None,
        }
    }

    /// Appends, and says of each entry whether it is new.
    async fn append(&self, entries: Vec<Entry>, action: &'static str) -> Result<Vec<bool>> {
        let receipts = self
            .ledger
            .append_all(entries)
            .await
            .map_err(Error::ledger("serve", action))?;
        Ok(receipts.into_iter().map(|receipt| receipt.fresh).collect())
    }

    async fn load(&self, turn: &TurnId) -> Result<Option<TurnRecord>> {
        match self.by_key(records::turn_key(turn)).await? {
            Some(record) => records::decode(&record).map(Some),
            None => Ok(None),
        }
    }

    async fn was_judged(&self, turn: &TurnId) -> Result<bool> {
        let key = format!("{}/{turn}/0", records::JUDGED);
        Ok(self.by_key(key).await?.is_some())
    }

    async fn by_key(&self, key: String) -> Result<Option<ledger::Record>> {
        let ledger = self.ledger.clone();
        tokio::task::spawn_blocking(move || ledger.by_key(&key))
            .await
            .map_err(|_| Error::Panicked {
                what: "reading the ledger".to_owned(),
            })?
            .map_err(Error::ledger("serve", "read a record"))
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn no_reply(turn: &TurnId) -> Error {
    Error::NoReply {
        turn: turn.to_string(),
    }
}
