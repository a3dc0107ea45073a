//! The model that acts: loads real weights, turns conversations into tokens, runs them, learns adapters, samples.
//!
//! Files on disk: [`checkpoint`], [`config`], [`peft`]. Text: [`tokenizer`], [`template`], [`detokenize`], [`toolcalls`].
//! It has never heard of rewards, HTTP or async. Start at [`Checkpoint::open`].

pub mod adapter;
pub mod checkpoint;
pub mod compare;
pub mod config;
pub mod detokenize;
mod device;
pub mod divergence;
pub mod error;
pub mod export;
pub mod kv;
pub mod local;
pub mod model;
pub mod peft;
pub mod sample;
pub mod shelf;
pub mod slot;
pub mod template;
pub mod tokenizer;
pub mod toolcalls;
pub mod trainee;

pub use adapter::{Adapter, AdapterGrads, Projection};
pub use checkpoint::Checkpoint;
pub use compare::{Comparison, compare};
pub use config::{Architecture, ModelConfig, Rope, RopeScaling};
pub use detokenize::Detokenizer;
pub use divergence::{Divergence, divergence};
pub use error::{Error, Problem, Result};
pub use kernels::softmax::Normalizer;
pub use kernels::{Dtype, Pool};
pub use kv::Kv;
pub use local::Local;
pub use model::{Logits, Model, Pack, SHARED, Scratch, Segment, Tape, Target};
pub use sample::{Draw, Drawn, Sampler};
pub use shelf::SlotShelf;
pub use slot::{Deployed, NO_BUCKET, Slot};
pub use template::{ChatTemplate, PromptSize};
pub use tokenizer::{Special, Tokenizer};
pub use trainee::Trainee;
