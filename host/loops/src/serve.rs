//! The serve loop: records every turn before it is acknowledged, and finds out what each turn's next state is.
//!
//! It hands out [`Handle`]s, which are what the gateway calls ([`rl::TurnSink`]); its own loop ends sessions that went
//! idle. It computes no token, asks no judge and trains nothing. Sessions and their history are [`crate::session`].

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ledger::Ledger;
use parking_lot::Mutex;
use rl::{
    AdapterName, BoxFuture, Environment, Feedback, Message, Seed, Served, Ticket, TurnId,
    TurnRequest, TurnSink,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    Error, Result, Shutdown,
    call::Caller,
    fingerprints::Fingerprints,
    session::{Continued, SessionKey, Sessions},
    status::Board,
    store::Stores,
    watch::Watch,
};

/// A correction longer than this is refused: it becomes part of a prompt.
pub(crate) const MAX_CORRECTION: usize = 2_000;
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
pub(crate) struct Begun {
    pub(crate) request: TurnRequest,
    pub(crate) key: SessionKey,
    pub(crate) derived: bool,
    /// The session ends with this turn.
    pub(crate) last: bool,
    pub(crate) at: Instant,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) trained: Vec<AdapterName>,
    pub(crate) ledger: Ledger,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) stores: Stores,
    pub(crate) caller: Caller,
    pub(crate) board: Board,
    pub(crate) watch: Watch,
    pub(crate) sessions: Mutex<Sessions>,
    pub(crate) begun: Mutex<HashMap<TurnId, Begun>>,
    pub(crate) ids: Ids,
    pub(crate) fingerprints: Fingerprints,
}

/// Names turns: the same run of the same ledger names the same turn the same, and no recorded turn's name comes again.
#[derive(Debug)]
pub(crate) struct Ids {
    seed: Seed,
    start: u64,
    count: AtomicU64,
}

impl Ids {
    pub(crate) fn next(&self) -> TurnId {
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
    (environment, stores): (Arc<dyn Environment>, Stores),
    (board, watch): (Board, Watch),
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
        stores,
        caller,
        board,
        watch,
        sessions: Mutex::new(sessions),
        begun: Mutex::default(),
        ids,
        fingerprints: Fingerprints::default(),
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
    /// These turns are forgotten: nothing of their conversations stays in memory.
    pub(crate) fn forget(&self, turns: &[TurnId]) {
        self.0.sessions.lock().forget(turns);
    }

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

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

pub(crate) fn no_reply(turn: &TurnId) -> Error {
    Error::NoReply {
        turn: turn.to_string(),
    }
}
