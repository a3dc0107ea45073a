//! Without the program that stands behind a capability there is nothing to test: that is said, and is a failure only where
//! `NEXTSTATE_REQUIRE_SANDBOX` says that the program has to be there, as in CI.

use std::{
    env,
    io::{self, Write as _},
    process,
};

/// Ends this test binary, successfully, when none of the programs is there.
pub(crate) fn one_of(programs: &[&str]) {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).any(|folder| {
        programs
            .iter()
            .any(|program| folder.join(program).is_file())
    });
    if found || env::var_os("NEXTSTATE_REQUIRE_SANDBOX").is_some() {
        return;
    }
    // Not by `eprintln!`, which the test harness keeps for itself.
    let _ = writeln!(
        io::stderr(),
        "skipped: none of {programs:?} is on the path (NEXTSTATE_REQUIRE_SANDBOX=1 makes that a failure)"
    );
    process::exit(0);
}
