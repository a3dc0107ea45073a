//! The release binary's crash matrix: every call by which a host changes its data folder is met by a kill or a fault.
//!
//! A recording lists the calls of each act of a scenario; then the scenario is run once for every call and fault, the host is started
//! again on what is left, and everything that was acknowledged is looked for. `NEXTSTATE_CRASH=all` tries all of them (most of an
//! hour), `NEXTSTATE_CRASH=some` a few of each kind; without it nothing is tried, since each takes seconds. Needs `strace`, and a
//! machine that lets it trace. Torn and lost writes are the simulated disk's, in the crate `ledger`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod check;
mod host;
mod matrix;
mod scenario;
mod strace;

use strace::Fault;

/// Whether the matrix was asked for. Then it must be possible.
fn asked() -> bool {
    if std::env::var_os("NEXTSTATE_CRASH").is_none() {
        eprintln!("not asked for: set NEXTSTATE_CRASH=some or all");
        return false;
    }
    strace::works().unwrap();
    true
}

#[test]
fn a_host_killed_at_any_call_on_its_folder_goes_on_with_all_that_it_acknowledged() {
    if asked() {
        matrix::run(Fault::Kill, 12);
    }
}

#[test]
fn a_host_whose_disk_fails_a_write_or_a_sync_stops_and_says_so() {
    if asked() {
        matrix::run(Fault::Io, 6);
    }
}

#[test]
fn a_host_without_space_stops_or_refuses_and_loses_nothing() {
    if asked() {
        matrix::run(Fault::NoSpace, 6);
    }
}

#[test]
fn a_host_whose_disk_is_full_refuses_new_work_answers_what_is_read_and_goes_on_with_space() {
    if asked() {
        matrix::run_full();
    }
}
