//! The judge with the defaults of its manifest: its questions, its labelled actions, and hostile texts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod hints;
mod hostile;
mod manifest;
mod steps;
mod votes;
