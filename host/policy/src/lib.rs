//! The model that acts: loads real weights, turns conversations into tokens, runs them, learns adapters, samples.
//!
//! Files on disk: [`checkpoint`], [`config`], [`peft`]. Text: [`tokenizer`], [`template`], [`detokenize`], [`toolcalls`].
//! It has never heard of rewards, HTTP or async. Start at [`Checkpoint::open`].

pub mod checkpoint;
pub mod config;
pub mod error;
pub mod template;
pub mod tokenizer;

pub use checkpoint::Checkpoint;
pub use config::{Architecture, ModelConfig, Rope, RopeScaling};
pub use error::{Error, Problem, Result};
pub use template::ChatTemplate;
pub use tokenizer::{Special, Tokenizer};
