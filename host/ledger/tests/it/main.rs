//! The ledger's promises, checked from outside; one binary, so that `mutants` can run all of it again.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests, and children that report to their parent"
)]

mod behaviour;
mod crash;
mod damage;
mod golden;
mod mutants;
mod random;
mod scenario;
mod sealed;
mod simulated;
mod space;
mod upgrade;
