//! Memory mappings: what the kernel allows a process of them, counted before it is met.
//!
//! Past `vm.max_map_count` an allocation fails deep inside the host, which was seen to hang it. The limit is the process's, so
//! the count is, too, whatever number of hosts there are. Only Linux has such a limit.

use std::{
    fs,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::limits::{Breach, Limit};

/// Of each memory: its image, what was grown, what was not, and what the neighbour cannot be merged with.
const OF_A_MEMORY: u64 = 5;

/// Left to everything else in the process: libraries, threads, allocators, slots that are kept warm.
const RESERVED: u64 = 8_000;

static ALLOWED: LazyLock<u64> = LazyLock::new(|| {
    let limit = fs::read_to_string("/proc/sys/vm/max_map_count");
    let limit = limit.ok().and_then(|text| text.trim().parse::<u64>().ok());
    limit.map_or(u64::MAX, |limit| {
        limit.saturating_sub(RESERVED).max(limit / 2)
    })
});

static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Mappings that an instance has; given back when it ends.
#[derive(Debug)]
pub(crate) struct Mapped(u64);

/// What this process may give to instances.
pub(crate) fn allowed() -> u64 {
    *ALLOWED
}

/// What an instance with this many memories needs.
pub(crate) fn needed(memories: u32) -> u64 {
    OF_A_MEMORY.saturating_mul(u64::from(memories.max(1)))
}

/// Takes what an instance needs.
pub(crate) fn take(needed: u64) -> Result<Mapped, Breach> {
    let taken = TAKEN.fetch_add(needed, Ordering::Relaxed);
    // Counted before it is checked: whatever comes of it is given back by the drop.
    let mapped = Mapped(needed);
    let (used, allowed) = (taken.saturating_add(needed), allowed());
    if used > allowed {
        return Err(Breach {
            limit: Limit::Mappings,
            used,
            allowed,
        });
    }
    Ok(mapped)
}

impl Drop for Mapped {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_takes_nothing_and_what_ends_gives_back() {
        let most = allowed();
        let held = take(most - 1).unwrap();
        let breach = take(2).unwrap_err();
        assert_eq!((breach.limit, breach.allowed), (Limit::Mappings, most));
        drop(take(1).unwrap());
        drop(held);
        drop(take(most).unwrap());
    }
}
