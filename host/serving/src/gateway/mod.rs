//! The OpenAI-compatible gateway: HTTP in, turns out.
//!
//! | route | |
//! |---|---|
//! | `POST /v1/chat/completions` | a reply, whole or streamed (fields: `request.rs`, `reply.rs`) |
//! | `GET /v1/models`, `GET /v1/models/{id}` | `<base>` and every `<base>:<adapter>`, with version and digest |
//! | `POST /v1/feedback` | `{"id": "chatcmpl-…", "rating": "up" \| "down", "correction": "…"}`, either or both |
//! | `GET /v1/status` | the loops' state, from a closure of the application |
//! | `POST /v1/history` | operators only: a JSON request, answered by a closure of the application, one JSON object a line |
//! | `GET /healthz`, `GET /readyz` | the process lives; requests would be served (503 while starting or draining) |
//! | `GET /metrics` | Prometheus text |
//!
//! Headers of a request: `authorization: Bearer <key>`, `x-session-id`, `x-turn-type: main|side`,
//! `x-session-done: true`. Headers of a reply: `x-policy-version` (a number), `x-adapter-digest` (absent for the base
//! weights), `x-session-id`, `x-turn-type` as it was decided. `system_fingerprint` is `<model>@v<version>` and, with an
//! adapter, `-` and the first 12 digits of its digest.
//!
//! A reply's last piece is sent only when its turn is durable. Does not know how tokens are made ([`crate::engine`]) or
//! what becomes of a turn ([`rl::TurnSink`]). Never logs a text at `info`.

mod api_error;
mod auth;
mod bodies;
mod config;
mod connections;
mod fields;
mod http;
mod messages;
mod operator;
mod parse;
mod patience;
mod pieces;
mod reply;
mod request;
mod routes;
mod server;
mod service;
mod shares;
mod stream;
mod turn;

pub use auth::KeyConfig;
pub use config::Config;
pub use http::CONNECTION_BYTES;
pub use pieces::UNREAD_BYTES;
pub use request::understand;
pub use server::{Gateway, Handle, PROMPTS_AT_ONCE};
pub use service::{AdmitFn, AnswerFn, Backend, LineFn, Operator, StatusFn, UnixSeconds};
