//! The ledger from outside. What it promises is in `behaviour` and `sealing`, processes that die in `crash`, what reaches the
//! disk before it is acknowledged in `syscalls`, the bytes in `golden`; `mutants` checks that these tests would notice.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests, and children that are tests, too"
)]

mod behaviour;
mod crash;
mod golden;
mod mutants;
mod sealing;
mod syscalls;
