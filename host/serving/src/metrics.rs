//! What serving counts, in one place. Names carry their unit; nothing here holds a text or a key.
//!
//! The registry is handed in, so that the loops' metrics appear at the same `/metrics`.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A registry that several components fill and `/metrics` reads.
pub type SharedRegistry = Arc<Mutex<Registry>>;

/// Labels of `http_requests_total`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) route: &'static str,
    pub(crate) status: u16,
}

/// What the gateway counts.
#[derive(Clone, Debug)]
pub(crate) struct GatewayMetrics {
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) turns_in_flight: Gauge,
    pub(crate) turns_cancelled: Counter,
    pub(crate) turns_unread: Counter,
    pub(crate) connections: Gauge,
    pub(crate) connections_displaced: Counter,
    pub(crate) connections_refused: Counter,
    pub(crate) first_token_seconds: Histogram,
    pub(crate) turn_seconds: Histogram,
}

impl GatewayMetrics {
    pub(crate) fn register(registry: &SharedRegistry) -> Self {
        // 5 ms to about 160 s.
        let seconds = || Histogram::new(exponential_buckets(0.005, 2.0, 16));
        let metrics = Self {
            requests: Family::default(),
            turns_in_flight: Gauge::default(),
            turns_cancelled: Counter::default(),
            turns_unread: Counter::default(),
            connections: Gauge::default(),
            connections_displaced: Counter::default(),
            connections_refused: Counter::default(),
            first_token_seconds: seconds(),
            turn_seconds: seconds(),
        };
        let mut registry = registry.lock();
        let registry = registry.sub_registry_with_prefix("gateway");
        registry.register(
            "http_requests",
            "Answered requests",
            metrics.requests.clone(),
        );
        registry.register(
            "turns_in_flight",
            "Turns that have begun and are not yet durable",
            metrics.turns_in_flight.clone(),
        );
        registry.register(
            "turns_cancelled",
            "Turns whose client went away before the end",
            metrics.turns_cancelled.clone(),
        );
        registry.register(
            "turns_unread",
            "Turns cut off because their client did not read the reply",
            metrics.turns_unread.clone(),
        );
        registry.register(
            "connections_open",
            "Connections that are open",
            metrics.connections.clone(),
        );
        registry.register(
            "connections_displaced",
            "Connections without a request that were closed for new ones",
            metrics.connections_displaced.clone(),
        );
        registry.register(
            "connections_refused",
            "New connections that were closed because all others had a request",
            metrics.connections_refused.clone(),
        );
        registry.register(
            "first_token_seconds",
            "From a request's arrival to its first token",
            metrics.first_token_seconds.clone(),
        );
        registry.register(
            "turn_seconds",
            "From a request's arrival until its turn is durable",
            metrics.turn_seconds.clone(),
        );
        metrics
    }
}

/// What the engine counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct EngineMetrics {
    pub(crate) steps: Counter,
    pub(crate) rows: Counter,
    pub(crate) prompt_tokens: Counter,
    pub(crate) reused_tokens: Counter,
    pub(crate) sampled_tokens: Counter,
    pub(crate) scored_tokens: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) waiting: Gauge,
    pub(crate) live: Gauge,
    pub(crate) kv_bytes: Gauge,
    pub(crate) prefix_bytes: Gauge,
}

impl EngineMetrics {
    pub(crate) fn register(registry: &SharedRegistry) -> Self {
        let metrics = Self::default();
        let mut registry = registry.lock();
        let registry = registry.sub_registry_with_prefix("engine");
        let counters = [
            ("steps", "Forward passes", &metrics.steps),
            ("rows", "Token rows computed", &metrics.rows),
            (
                "prompt_tokens",
                "Prompt tokens of admitted requests",
                &metrics.prompt_tokens,
            ),
            (
                "reused_tokens",
                "Prompt tokens whose keys and values were copied",
                &metrics.reused_tokens,
            ),
            ("sampled_tokens", "Tokens sampled", &metrics.sampled_tokens),
            (
                "scored_tokens",
                "Given tokens whose log-prob was computed",
                &metrics.scored_tokens,
            ),
            (
                "cancelled",
                "Requests dropped because their caller went away",
                &metrics.cancelled,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gauges = [
            (
                "waiting_requests",
                "Requests in the admission queue",
                &metrics.waiting,
            ),
            (
                "live_sequences",
                "Sequences that are being computed",
                &metrics.live,
            ),
            (
                "kv_bytes",
                "Key and value memory reserved by live sequences",
                &metrics.kv_bytes,
            ),
            (
                "prefix_bytes",
                "Key and value memory kept for reuse",
                &metrics.prefix_bytes,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        metrics
    }
}
