//! Environments of other people, and ours for them: the OpenEnv protocol in both directions.
//!
//! [`openenv`] makes a server that speaks OpenEnv an [`rl::Environment`]: `[plugins] environment = "openenv:http://127.0.0.1:8000"`.
//! [`serve`] hosts an environment plugin for OpenEnv's clients: `nextstate serve-env`. Gymnasium and reasoning-gym come through a
//! bridge in Python that speaks the same protocol (`examples/interop`). A session is one WebSocket: OpenEnv's `POST /reset` and
//! `POST /step` each make an environment of their own and forget it, so no episode of two turns can be played over them.
//!
//! What a server says is data: it is bounded, shown to the policy as a user's message, and never an instruction to the host.

pub mod command;
mod deadline;
pub mod openenv;
pub mod serve;
