//! Real jails, with what guests do and with what hostile guests try.
//!
//! Needs bubblewrap (without it these tests are skipped, see `needs`) and user namespaces. What is left behind after
//! the end of a host is in `shell_cleanup.rs`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod needs;

#[path = "shell/hostile.rs"]
mod hostile;
#[path = "shell/isolation.rs"]
mod isolation;
#[path = "shell/ordinary_user.rs"]
mod ordinary_user;
#[path = "shell/paths.rs"]
mod paths;
#[path = "shell/states.rs"]
mod states;
#[path = "shell/support.rs"]
mod support;
#[path = "shell/work.rs"]
mod work;
