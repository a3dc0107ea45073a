//! What a guest may use, and the breach that says which limit it met.

use serde::{Deserialize, Serialize};
use wasmtime::ResourceLimiter;

/// `[plugins.limits]`: what every instance may use.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Largest component. Rust guests are 30 to 130 KB; compile time grows with size.
    pub component_bytes: usize,
    /// Largest function body of a component: register allocation is superlinear in it, so that one huge function is a
    /// compile bomb (a module of 372 KB was seen to take half a minute).
    pub function_bytes: usize,
    /// Most linear memory of an instance.
    pub memory_bytes: usize,
    /// Most elements of a table.
    pub table_elements: usize,
    /// Stack of a call.
    pub stack_bytes: usize,
    /// Longest call of an environment. A wall clock, since an environment has no other limit of work.
    pub call_ms: u64,
    /// Longest time that one call of an environment may spend in `shell` and `browser`, which does not count as its own.
    pub outside_ms: u64,
    /// Most fuel (about one a Wasm instruction) of a call of a judge or a reward rule. Deterministic: the limit itself replays.
    pub call_fuel: u64,
    /// Most bytes that a guest may hand to the host at once, as an answer or as the arguments of a host call.
    pub output_bytes: usize,
    /// Most host calls of one call.
    pub host_calls: u64,
    /// Most log lines that are kept of one call; what is beyond is dropped and counted.
    pub log_lines: u64,
    /// Most characters that are kept of a log line.
    pub log_line_chars: usize,
    /// Most instances that live at once, for each of the two engines. Six memory mappings each.
    pub instances: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            component_bytes: 8 << 20,
            function_bytes: 64 << 10,
            memory_bytes: 64 << 20,
            table_elements: 20_000,
            stack_bytes: 512 << 10,
            call_ms: 2_000,
            outside_ms: 180_000,
            call_fuel: 500_000_000,
            output_bytes: 4 << 20,
            host_calls: 10_000,
            log_lines: 200,
            log_line_chars: 1_000,
            instances: 256,
        }
    }
}

/// A limit that stops a guest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Limit {
    /// Linear memory, in bytes.
    Memory,
    /// Elements of a table.
    Table,
    /// The call stack, in bytes.
    Stack,
    /// Time of a call, in milliseconds.
    Time,
    /// Fuel of a call.
    Fuel,
    /// Bytes handed to the host at once.
    Output,
    /// Host calls of a call.
    HostCalls,
    /// Live instances of all plugins of an engine.
    Instances,
    /// Time of a call that was spent in outside capabilities, in milliseconds.
    Outside,
}

impl Limit {
    /// The limit's name and unit, as an error shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Limit::Memory => "memory (bytes)",
            Limit::Table => "table elements",
            Limit::Stack => "stack (bytes)",
            Limit::Time => "time (ms)",
            Limit::Fuel => "fuel",
            Limit::Output => "output (bytes)",
            Limit::HostCalls => "host calls",
            Limit::Instances => "live instances",
            Limit::Outside => "time outside (ms)",
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A limit that was met, and how much was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{limit}: {used} of {allowed}")]
pub(crate) struct Breach {
    pub(crate) limit: Limit,
    pub(crate) used: u64,
    pub(crate) allowed: u64,
}

/// Refuses growth beyond the limits and remembers that it did: the guest itself only sees that an allocation failed, and breaks.
#[derive(Debug)]
pub(crate) struct Growth {
    memory_bytes: usize,
    table_elements: usize,
    pub(crate) breach: Option<Breach>,
}

impl Growth {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory_bytes: limits.memory_bytes,
            table_elements: limits.table_elements,
            breach: None,
        }
    }

    fn decide(&mut self, limit: Limit, desired: usize, allowed: usize) -> bool {
        if desired > allowed {
            let (used, allowed) = (desired as u64, allowed as u64);
            self.breach = Some(Breach {
                limit,
                used,
                allowed,
            });
        }
        desired <= allowed
    }
}

impl ResourceLimiter for Growth {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.decide(Limit::Memory, desired, self.memory_bytes))
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.decide(Limit::Table, desired, self.table_elements))
    }

    // A component of one Rust module has one core instance and one memory; interpreters have a few dozen.
    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        8
    }
}
