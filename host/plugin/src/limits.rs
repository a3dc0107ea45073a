//! What a guest may use, and the breach that says which limit it met.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmtime::ResourceLimiter;

/// What one component may be made of. A Rust guest has 3 core instances (its module, and the two adapters that `wit-component`
/// puts around it), one memory and one table; QuickJS 11, 3 and 3; CPython 38, 1 and 2.
pub(crate) const CORE_INSTANCES: u32 = 64;
pub(crate) const MEMORIES: u32 = 4;
pub(crate) const TABLES: u32 = 4;

/// Longest time outside of a call on live traffic, in milliseconds. A user waits for it, and what lets a few such calls in at once is
/// held meanwhile: a few that wait for a slow server must not keep the others out for minutes.
const LIVE_OUTSIDE_MS: u64 = 5_000;

/// `[plugins.limits]`: what every instance may use.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Largest component, and most code of one beside a known language runtime. Rust guests are 30 to 130 KB, JavaScript ones
    /// 1.6 MB; compile time grows with size.
    pub component_bytes: usize,
    /// Largest component with a known language runtime inside. Python ones are 18 MB, most of it data.
    pub runtime_component_bytes: usize,
    /// Largest function body of a component: register allocation is superlinear in it, so that one huge function is a
    /// compile bomb (a module of 372 KB was seen to take half a minute). A known language runtime is exempt.
    pub function_bytes: usize,
    /// Most linear memory of an instance.
    pub memory_bytes: usize,
    /// Most elements of a table.
    pub table_elements: usize,
    /// Stack of a call.
    pub stack_bytes: usize,
    /// Longest call of an environment. A wall clock, since an environment has no other limit of work.
    pub call_ms: u64,
    /// Longest time that one call of an environment may spend in `shell`, `browser`, `http`, `model` and `store`, which does not count as its
    /// own.
    /// One on live traffic may spend 5 s at most.
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
    /// Most instances that live at once, for each of the two engines. Each takes five of the memory mappings that the kernel allows
    /// a process (`vm.max_map_count`), one in JavaScript fifteen.
    pub instances: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            component_bytes: 8 << 20,
            runtime_component_bytes: 32 << 20,
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

impl Limits {
    /// Longest time that a call of this function may spend outside.
    pub fn outside(&self, function: &str) -> Duration {
        // No user waits for what is asked of a plugin at its start.
        let hosted = function.starts_with("episode.") || ["describe", "tasks"].contains(&function);
        let most = if hosted { u64::MAX } else { LIVE_OUTSIDE_MS };
        Duration::from_millis(self.outside_ms.min(most))
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
    /// Memory mappings of all instances of this process.
    Mappings,
    /// Machines and pages of an instance at once.
    Held,
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
            Limit::Mappings => "memory mappings (vm.max_map_count allows no more)",
            Limit::Held => "machines and pages held",
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
    /// Of all memories together: a component may have several.
    used_bytes: usize,
    table_elements: usize,
    pub(crate) breach: Option<Breach>,
}

impl Growth {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory_bytes: limits.memory_bytes,
            used_bytes: 0,
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
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let desired = self.used_bytes.saturating_add(more);
        let granted = self.decide(Limit::Memory, desired, self.memory_bytes);
        if granted {
            self.used_bytes = desired;
        }
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.decide(Limit::Table, desired, self.table_elements))
    }

    // A store holds one component.
    fn instances(&self) -> usize {
        CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_traffic_may_spend_little_time_outside_whatever_episodes_may() {
        let check = |outside_ms: u64, function: &str, expected: u64| {
            let limits = Limits {
                outside_ms,
                ..Limits::default()
            };
            let found = limits.outside(function).as_millis();
            assert_eq!(found, u128::from(expected), "{function}");
        };
        for function in ["episode.start", "episode.act", "tasks", "describe"] {
            check(180_000, function, 180_000);
        }
        for function in ["classify", "next-state", "session-ends", "instantiate"] {
            check(180_000, function, LIVE_OUTSIDE_MS);
            check(1_000, function, 1_000);
        }
    }

    #[test]
    fn the_memories_of_an_instance_share_its_limit() {
        let mut growth = Growth::new(&Limits {
            memory_bytes: 100,
            ..Limits::default()
        });
        assert!(growth.memory_growing(0, 60, None).unwrap());
        assert!(!growth.memory_growing(0, 60, None).unwrap());
        let breach = growth.breach.unwrap();
        assert_eq!((breach.used, breach.allowed), (120, 100));
        assert!(growth.memory_growing(60, 100, None).unwrap());
    }

    #[test]
    fn a_table_grows_to_its_limit_and_no_further() {
        let mut growth = Growth::new(&Limits {
            table_elements: 100,
            ..Limits::default()
        });
        assert!(growth.table_growing(0, 100, None).unwrap());
        assert!(!growth.table_growing(100, 101, None).unwrap());
        let breach = growth.breach.unwrap();
        assert_eq!((breach.limit, breach.allowed), (Limit::Table, 100));
    }
}
