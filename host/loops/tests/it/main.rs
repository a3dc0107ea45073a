//! The loops on a real ledger, with small deterministic sides to the seams.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod history;
mod judging;
mod recovery;
mod rig;
mod rollout;
mod serving;
mod training;
