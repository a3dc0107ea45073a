//! What a measurement depends on: the processor, its load, and quiet between two runs.

use std::time::Duration;

use kernels::Isa;

/// How long threads of the run before may go on spinning.
const SETTLE: Duration = Duration::from_millis(300);

/// The processor, its cores and the instruction set that ours uses.
pub(super) fn describe() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo").ok();
    let model = model.as_deref().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    format!(
        "{}, {} cores, {:?}",
        model.unwrap_or_else(|| std::env::consts::ARCH.into()),
        kernels::Pool::default_threads(),
        Isa::best()
    )
}

/// Processes that wanted to run in the last minute.
pub(super) fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// Lets the contender before come to rest.
pub(super) fn settle() {
    std::thread::park_timeout(SETTLE);
}

/// Most memory that this process has held since [`forget_peak`], or ever.
pub(super) fn peak_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Loading a model takes memory that running it does not.
pub(super) fn forget_peak() {
    // Where it cannot be done the figure is higher, ours as the peers'.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
