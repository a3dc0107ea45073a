//! A server that speaks OpenEnv, as an [`rl::Environment`].
//!
//! [`Remote`] is the environment; its tasks are seeds. [`Config`] is `[plugins.config.openenv]`. Does not start servers, and does not
//! call their MCP tools: an action is what the server's schema says it is. Start at [`open`].

mod action;
mod config;
mod environment;
#[cfg(test)]
mod hostile;
mod session;
mod slots;
mod wire;

pub use config::Config;
pub use environment::{Remote, open};

/// What a configuration calls such an environment: this, then the server's address.
pub const PREFIX: &str = "openenv:";

/// The section of its config.
pub const SECTION: &str = "openenv";

/// The address, where `[plugins] environment` names an OpenEnv server.
pub fn address(environment: &str) -> Option<&str> {
    environment.strip_prefix(PREFIX)
}
