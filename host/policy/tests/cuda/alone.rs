//! Tests that nobody else may disturb.

use std::env;
use std::process::Command;

use crate::driver::present;

/// Runs a test, whose name this is, in a process of its own: others' threads, which free memory, do the work of all queues on the stand-in
/// driver, and take memory.
pub(crate) fn alone(test: &str, work: impl FnOnce()) {
    const ALONE: &str = "NEXTSTATE_TEST_ALONE";
    if !present() {
        return;
    }
    if env::var_os(ALONE).is_some() {
        return work();
    }
    let run = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
    assert!(text.contains("running 1 test"), "{test} is no test: {text}");
    assert!(run.status.success(), "{text}");
}
