//! One computation for prompts that begin alike and come together: votes of one judge, hints, a teacher's queries, attempts at a task.
//!
//! The prefix cache ([`super::prefix`]) knows what has ended; here what is being computed right now is shared. The oldest of those that
//! begin alike computes, the others wait for it and copy: the same rows, once. Between tenants and between weights nothing is
//! shared, and nothing of a sequence that must be forgotten. Copies change no bit of any result.

use super::prefix::{LEAST, common};
use super::sequence::Sequence;

/// Copies what is there, and marks who waits for the rest. Gives how many tokens were copied.
pub(crate) fn follow(live: &mut [Sequence]) -> usize {
    let mut copied = 0;
    for index in 0..live.len() {
        live[index].waits = false;
        let Some((leader, shared)) = leader(live, index) else {
            continue;
        };
        let ready = shared.min(live[leader].kv.len());
        let own = live[index].kv.len();
        // A part would be copied again: the whole, when it is there.
        if ready < shared {
            live[index].waits = true;
            continue;
        }
        let (Ok([from, to]), true) = (live.get_disjoint_mut([leader, index]), ready > own) else {
            continue;
        };
        // A copy that fails leaves the sequence to compute its prompt itself.
        if to.kv.copy_prefix_from(&from.kv, ready).is_ok() {
            copied += ready - own;
        }
    }
    copied
}

/// The older sequence that shares most with this one's prompt, and how much; none when it is hardly more than is there.
fn leader(live: &[Sequence], index: usize) -> Option<(usize, usize)> {
    let own = &live[index];
    let end = own.copies_until()?;
    let others = live.iter().enumerate().filter(|(_, other)| {
        other.number < own.number
            && other.keep
            && other.scope == own.scope
            && other.priority == own.priority
    });
    let shared = others.map(|(at, other)| {
        let all = common(&other.tokens, &own.tokens).min(end);
        // What an older one will have computed: of its own prompt all, of a reply what there is.
        (all.min(other.prompt.max(other.kv.len())), at)
    });
    let (shared, at) = shared.max()?;
    (shared >= own.kv.len() + LEAST).then_some((at, shared))
}
