//! The same arithmetic on NVIDIA GPUs: hand-written kernels (`kernels/cuda`), loaded at run time through the driver.
//!
//! Knows nothing of models or of training. There is no Cargo feature: without a driver [`devices::find`] says so, and
//! nothing else of this module can be reached. Each op checks sizes at its door, then launches; it does not wait.
//! **The contract** is the crate's: a row's bits depend on nothing but the row. No sum depends on who
//! comes first.
//!
//! Start at [`Gpu::open`]; [`rmsnorm`] is the shortest op.

mod buffer;
mod driver;
mod gpu;
mod graph;
mod images;
mod launch;
mod staging;
mod stream;
mod tensor_map;

pub mod adamw;
pub mod adapters;
pub mod attention;
pub mod attention_backward;
pub mod decode_attention;
pub mod devices;
pub mod embed;
pub mod gemm;
pub mod kv;
pub mod lora;
pub mod loss;
pub mod output;
pub mod probe;
pub mod rmsnorm;
pub mod rope;
pub mod sample;
pub mod swiglu;

pub use buffer::{Buffer, Element, View, ViewMut};
pub use gpu::{Compute, Gpu};
pub use graph::Graph;
pub use images::Fit;
pub use staging::Staging;
pub use stream::{Event, Priority, Stream};

use launch::Module;

/// Every op's kernels. A new op adds its line here.
const MODULES: &[Module] = &[
    adamw::MODULE,
    attention::MODULE,
    attention_backward::MODULE,
    decode_attention::MODULE,
    embed::MODULE,
    gemm::FEW,
    gemm::MODULE,
    lora::MODULE,
    loss::MODULE,
    output::MODULE,
    probe::MODULE,
    rmsnorm::MODULE,
    rope::MODULE,
    sample::MODULE,
    swiglu::MODULE,
];

/// Those whose kernels are for compute capability 9.0 alone.
const HOPPER: &[Module] = &[
    attention::HOPPER,
    attention_backward::HOPPER,
    decode_attention::HOPPER,
    gemm::HOPPER,
    gemm::HOPPER_FEW,
    output::HOPPER,
];
