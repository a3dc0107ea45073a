//! An environment of ours, hosted for OpenEnv's clients.
//!
//! | route | |
//! |---|---|
//! | `GET /ws` | a session: one WebSocket, an episode at a time |
//! | `POST /reset`, `POST /step`, `GET /state` | the same without a WebSocket: an episode is named by `episode_id` |
//! | `GET /health`, `GET /metadata`, `GET /schema` | what it is |
//! | `GET /list_environments`, `GET /<name>/splits`, `POST /<name>/tasks`, `POST /<name>/num_tasks` | its tasks |
//!
//! OpenEnv's own server forgets an episode after each `POST`; here it lasts until it is over or nobody asks for a while. The reward is
//! the oracle's score, given once, when an episode ends; before that it is only in `metadata`, which is for whoever trains and not
//! for the policy. No keys: it listens on loopback, and turns web pages away. Start at [`Server`].

mod episodes;
mod http;
mod protocol;
mod server;
mod session;
#[cfg(test)]
mod tests;

pub use episodes::Limits;
pub use server::{Handle, Server};
