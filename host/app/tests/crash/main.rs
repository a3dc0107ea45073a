//! The release binary's crash matrix: every call by which a host changes its data folder is met by a kill or a fault.
//!
//! A recording lists the calls of each act of a scenario; then the scenario is run once for every call and fault, the host is started
//! again on what is left, and everything that was acknowledged is looked for. `NEXTSTATE_CRASH=all` tries all of them, otherwise as
//! many as fit a test run. Needs `strace`; without it (or with `ptrace` forbidden) the tests say that they are skipped, and fail when
//! `NEXTSTATE_REQUIRE_STRACE` is set. Torn and lost writes are the simulated disk's, in the crate `ledger`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod check;
mod host;
mod matrix;
mod scenario;
mod strace;

use strace::Fault;

/// Whether faults can be injected here; without them a test has nothing to say.
fn possible() -> bool {
    let Err(why) = strace::works() else {
        return true;
    };
    assert!(
        std::env::var_os("NEXTSTATE_REQUIRE_STRACE").is_none(),
        "strace cannot inject faults: {why}"
    );
    eprintln!("skipped: strace cannot inject faults: {why}");
    false
}

#[test]
fn a_host_killed_at_any_call_on_its_folder_goes_on_with_all_that_it_acknowledged() {
    if possible() {
        matrix::run(Fault::Kill, 10);
    }
}

#[test]
fn a_host_whose_disk_fails_a_write_or_a_sync_stops_and_says_so() {
    if possible() {
        matrix::run(Fault::Io, 5);
    }
}

#[test]
fn a_host_without_space_stops_or_refuses_and_loses_nothing() {
    if possible() {
        matrix::run(Fault::NoSpace, 5);
    }
}

#[test]
fn a_host_whose_disk_is_full_refuses_new_work_answers_what_is_read_and_goes_on_with_space() {
    if possible() {
        matrix::run_full();
    }
}
