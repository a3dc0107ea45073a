//! The decoder: one set of packed weights, a forward pass for serving, a forward and backward pass for training.
//!
//! Serving and training run the same `block` over the same weights, so that the log-prob recorded at sampling and the
//! one that the trainer computes have the same bits. The passes are written once, over what `device` says that hardware must offer.
//! Every pass takes turns on the device by itself: a caller must not hold a turn. Has never heard of rewards, requests or files.
//!
//! Read `weights`, then `block` (the arithmetic of one layer), `serve`, `pack`, `train` and `backward`.

pub(crate) mod backward;
pub(crate) mod block;
mod pack;
pub(crate) mod serve;
pub(crate) mod train;
mod weights;

pub use pack::{Pack, SHARED};
pub use serve::{Logits, Scratch, Segment};
pub use train::{Tape, Target};
pub use weights::Model;
pub(crate) use weights::{Layer, Net};
