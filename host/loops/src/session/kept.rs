//! Sessions as they lie in a checkpoint. What can be found out from the rest is left out.

use rl::SessionId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Entry, Node, Prefix, Session, SessionKey, Sessions};

/// All sessions, in an order of their own.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    sessions: Vec<One>,
    /// The ids of each, in the order in which they came.
    derived: Vec<(Prefix, Vec<SessionId>)>,
}

#[derive(Serialize, Deserialize)]
struct One {
    key: SessionKey,
    nodes: Vec<Node>,
    turns: Vec<Entry>,
    derived: Option<Prefix>,
}

impl Sessions {
    pub(crate) fn keep(self) -> Kept {
        let one = |(key, session): (_, Session)| One {
            key,
            nodes: session.nodes,
            turns: session.turns,
            derived: session.derived,
        };
        let mut sessions: Vec<One> = self.sessions.into_iter().map(one).collect();
        sessions.sort_by(|a, b| a.key.cmp(&b.key));
        let mut derived: Vec<_> = self.derived.into_iter().collect();
        derived.sort();
        Kept { sessions, derived }
    }

    /// The same sessions, last used `now`; `None` when this is not what was kept.
    pub(crate) fn restore(kept: Kept, now: Instant) -> Option<Self> {
        let mut all = Self {
            derived: kept.derived.into_iter().collect(),
            ..Self::default()
        };
        for one in kept.sessions {
            let mut session = Session::new(one.derived, now);
            for (at, node) in one.nodes.iter().enumerate() {
                session.children.insert((node.parent, node.hash), at);
            }
            for (at, turn) in one.turns.iter().enumerate() {
                let reply = one.nodes.get(turn.reply)?.hash;
                session.by_reply.entry(reply).or_default().push(at);
            }
            if one.nodes.iter().any(|n| n.parent >= Some(one.nodes.len())) {
                return None;
            }
            (session.nodes, session.turns) = (one.nodes, one.turns);
            all.sessions.insert(one.key, session);
        }
        Some(all)
    }
}
