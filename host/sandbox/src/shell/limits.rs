//! The contract's own numbers (`wit/capabilities.wit`). What an operator may set is in [`super::Config`].

use std::time::Duration;

/// Longest time of one command.
pub(super) const LONGEST_TIME: Duration = Duration::from_secs(60);
/// Bytes of stdout, and of stderr, that a caller gets.
pub(super) const LONGEST_TEXT: usize = 65_536;
/// Bytes of a command: half of what the kernel takes as one argument.
pub(super) const LONGEST_COMMAND: usize = 65_536;
/// Bytes of a path: the kernel's own limit.
pub(super) const LONGEST_PATH: usize = 4_096;
/// Bytes of a file that is read or written from outside.
pub(super) const LARGEST_FILE: usize = 1 << 20;
/// Kept states of one machine.
pub(super) const SNAPSHOTS: usize = 16;
/// Changes that a caller gets.
pub(super) const CHANGES: usize = 1_000;
/// The image that is always there.
pub(super) const EMPTY: &str = "empty";
