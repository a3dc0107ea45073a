//! What the handlers share: keys, the backend once there is one, and whether the host is ready.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rl::{TenantId, TurnSink, Weights};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Config;
use super::api_error::ApiError;
use super::auth::Keys;
use super::bodies::Bodies;
use super::connections::{Connections, Open};
use super::pieces::Replies;
use super::shares::Shares;
use crate::engine::EngineHandle;
use crate::metrics::{GatewayMetrics, SharedRegistry};

/// The loops' state as one JSON value, for this tenant's eyes.
pub type StatusFn = dyn Fn(&TenantId) -> serde_json::Value + Send + Sync;

/// Seconds since 1970, for the `created` fields.
pub type UnixSeconds = dyn Fn() -> u64 + Send + Sync;

/// Whether this tenant is an operator of the host.
pub type AdmitFn = dyn Fn(&TenantId) -> bool + Send + Sync;

/// Hears a line of an answer; breaks when the client has gone.
pub type LineFn<'a> = dyn FnMut(serde_json::Value) -> ControlFlow<()> + 'a;

/// Answers an operator's request, one JSON value a line. It runs on a thread that may block, and to its end: whether what it was asked for is
/// done when its client has gone is its own decision.
pub type AnswerFn = dyn Fn(serde_json::Value, &mut LineFn<'_>) + Send + Sync;

/// What operators can ask of the application over `POST /v1/history`; the gateway reads neither requests nor answers.
#[derive(Clone)]
pub struct Operator {
    /// Who may ask.
    pub admits: Arc<AdmitFn>,
    /// Largest body of a request. One that is larger than a client's may be is read when no other of its kind is.
    pub largest: usize,
    /// What is answered. A first line with an `error` is sent as a refusal with status 400.
    pub answer: Arc<AnswerFn>,
}

/// What answers requests.
pub struct Backend {
    /// The policy.
    pub engine: EngineHandle,
    /// Where turns go.
    pub sink: Arc<dyn TurnSink>,
    /// The body of `GET /v1/status`.
    pub status: Arc<StatusFn>,
    /// The answers to `POST /v1/history`.
    pub operator: Operator,
}

impl Default for Operator {
    /// Nobody is an operator.
    fn default() -> Self {
        Self {
            admits: Arc::new(|_| false),
            largest: 0,
            answer: Arc::new(|_, _| {}),
        }
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator").finish_non_exhaustive()
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// The gateway's state.
pub(crate) struct Service {
    pub(crate) config: Config,
    pub(crate) keys: Keys,
    pub(crate) registry: SharedRegistry,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) now: Arc<UnixSeconds>,
    pub(crate) started: u64,
    pub(crate) backend: OnceLock<Arc<Backend>>,
    pub(crate) draining: AtomicBool,
    /// Turns that have not ended.
    pub(crate) turns: TaskTracker,
    /// Ends every turn at its next token: the drain took too long.
    pub(crate) abort: CancellationToken,
    /// The places of connections.
    pub(crate) connections: Connections,
    /// The requests of tenants that keep theirs.
    pub(crate) open: Open,
    /// The memory of requests.
    pub(crate) bodies: Bodies,
    /// That of what operators ask in few words.
    pub(crate) words: Bodies,
    /// That of replies that are not read yet.
    pub(crate) replies: Replies,
    /// Held while a prompt is made of messages: more at once would take memory and threads from others, and be no faster.
    pub(crate) encoding: Shares,
    /// Held by an operator's request that is larger than a client's may be.
    pub(crate) large: Arc<Semaphore>,
}

impl Service {
    /// The backend, when requests can be served.
    pub(crate) fn backend(&self) -> Result<Arc<Backend>, ApiError> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(ApiError::unavailable("draining", "The host is stopping."));
        }
        self.backend
            .get()
            .cloned()
            .ok_or_else(|| ApiError::unavailable("starting", "The host is loading its model."))
    }
}

impl Backend {
    /// Every name that `model` may have, and its weights. A candidate has no name that a client could ask for.
    pub(crate) fn models(&self) -> BTreeMap<String, Weights> {
        let base = &self.engine.card().model;
        let adapters = self
            .engine
            .adapters()
            .filter(|name| !rl::is_candidate(name))
            .map(|name| (format!("{base}:{name}"), Weights::Adapter(name.clone())));
        std::iter::once((base.clone(), Weights::Base))
            .chain(adapters)
            .collect()
    }

    /// The weights that `model` names.
    pub(crate) fn resolve(&self, model: &str) -> Result<Weights, ApiError> {
        let mut models = self.models();
        models.remove(model).ok_or_else(|| {
            let mut names: Vec<String> = models.into_keys().collect();
            names.sort();
            ApiError::unknown_model(model, &names)
        })
    }
}
