//! Parity of the CUDA ops with the plain specification, through the code that a real GPU runs: on the stand-in driver,
//! or, with `NEXTSTATE_TEST_GPU=1`, on this machine's GPU.
//!
//! Without g++ the tests are skipped, loudly, unless `NEXTSTATE_REQUIRE_EMULATOR` is set. Outputs start as NaN. A new op
//! adds its file and its line here.

#[path = "../common/mod.rs"]
mod common;
mod setup;
mod standin;

mod adamw;
mod attention;
mod attention_backward;
mod attention_world;
mod done;
mod driver;
mod embed;
mod exact;
mod exp2;
mod gemm;
mod images;
mod linear;
mod lora;
mod loss;
mod output;
mod planted;
mod probe;
mod rmsnorm;
mod rope;
mod sample;
mod swiglu;
