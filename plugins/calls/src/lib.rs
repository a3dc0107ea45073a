//! What passes between a model and its tools, in words: how a reply is read, and how a result is told.
//!
//! A library for guests whose models call tools (`tool-call`, `tool-import`), which cannot import each other: each exports the same functions
//! to the host. No guest itself, and knows no tool. Start at [`reader`]; [`answers`] is the way back.

pub mod answers;
pub mod reader;
