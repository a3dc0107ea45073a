//! The arithmetic of a language model: each op on plain slices, checked at its door.
//!
//! Knows nothing of models, files, reinforcement learning or async. **The contract of every op**: a row's bits do not
//! depend on the other rows of the call, on the number of threads, or on the instruction set; each output is one chain
//! of fused multiply-adds with its terms in ascending order, or, for sums over a row, sixteen chains added in a fixed
//! tree. That is what makes serving and training agree bit for bit. Three sums of training alone are fixed in another way, and say so:
//! dout·out in [`attention::backward`], the weights of a row's targets in [`softmax::backward`], and [`adamw::norm`].
//!
//! Start at [`gemm`]; [`rmsnorm`] is the shortest complete op; [`Pool`] is what they run on; the plain `f64`
//! specification of each op is in [`mod@reference`].
#![expect(
    unsafe_code,
    reason = "vector instructions, threads that share one output buffer, and weights in huge pages"
)]

pub mod adamw;
mod ahead;
pub mod attention;
mod cache;
pub mod cuda;
pub mod embed;
mod error;
pub mod gemm;
pub mod lora;
mod memory;
pub mod output;
mod packed;
mod pairs;
pub mod peak;
mod pool;
pub mod reference;
pub mod rmsnorm;
pub mod rope;
mod rows;
mod simd;
pub mod softmax;
pub mod swiglu;
mod tile;
mod unpack;

pub use cache::{BLOCK, CacheShape, KvCache};
pub use error::{Error, Result};
pub use memory::{Buffer, Floats, unfilled};
pub use packed::{Dtype, Packed};
pub use pool::{Pool, Slice};
pub use simd::Isa;
