//! The loops on a real ledger, with small deterministic sides to the seams.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests, and what they found"
)]

mod checkpoint;
mod history;
mod judging;
mod long;
mod moving;
mod mutants;
mod paying;
mod racing;
mod recovery;
mod retreat;
mod rig;
mod rollout;
mod serving;
mod simulation;
mod staging;
mod store;
mod training;
