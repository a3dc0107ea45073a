//! Which conversation a request belongs to, which turns it continues, and which it leaves behind (algorithms §1).
//!
//! Each session keeps a graph of the messages that its requests have shown: a node is a message after a certain history.
//! A request continues a turn only if its history contains that turn's reply after the history that the turn had; the
//! oldest messages may be missing (clients trim), none may differ. Pure bookkeeping: no I/O, no clock of its own, and it
//! knows nothing of tokens. Start at [`Sessions::begin`].

mod kept;

use std::collections::{HashMap, HashSet};

use rl::{Message, NotTrainable, Role, SessionId, TenantId, Turn, TurnId, TurnKind, TurnRequest};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::{Duration, Instant};

pub(crate) use self::kept::Kept;
use crate::history::{hash, visible};

/// A session with more messages than this is ended at the next sweep, so that no client can fill the memory.
const MAX_NODES: usize = 20_000;

/// A session's identity: two tenants may use the same id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SessionKey {
    /// Whose it is.
    pub tenant: TenantId,
    /// The id that the client sent, or that was derived.
    pub session: SessionId,
}

/// A turn that a request continues.
#[derive(Clone, PartialEq, Debug)]
pub struct Continued {
    /// The turn.
    pub turn: TurnId,
    /// Everything that came after its reply, up to the next model call.
    pub messages: Vec<Message>,
}

/// Where a request belongs.
#[derive(Clone, PartialEq, Debug)]
pub struct Found {
    /// Its session.
    pub key: SessionKey,
    /// Whether the id was derived from the conversation.
    pub derived: bool,
    /// The last turn in its history.
    pub parent: Option<TurnId>,
    /// Turns that waited for what this request brings.
    pub continued: Vec<Continued>,
    /// Turns that waited, and that the conversation has now gone past.
    pub orphaned: Vec<TurnId>,
}

type Hash = u128;

#[derive(Debug, Serialize, Deserialize)]
struct Node {
    parent: Option<usize>,
    hash: Hash,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    id: TurnId,
    parent: Option<TurnId>,
    reply: usize,
    open: bool,
    main: bool,
}

#[derive(Debug)]
struct Session {
    nodes: Vec<Node>,
    children: HashMap<(Option<usize>, Hash), usize>,
    turns: Vec<Entry>,
    by_reply: HashMap<Hash, Vec<usize>>,
    derived: Option<Prefix>,
    active: Instant,
}

/// Who said the beginning of a conversation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
struct Prefix {
    tenant: TenantId,
    key: String,
    hash: Hash,
}

/// All sessions that are going on.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: HashMap<SessionKey, Session>,
    derived: HashMap<Prefix, Vec<SessionId>>,
}

impl Sessions {
    /// Finds the session of a request and the turns that it continues. Without an id from the client the session is the one
    /// of the same tenant and key whose conversation this request goes on with; if there is none, a new one named after
    /// `turn`, the request's own turn.
    pub fn begin(&mut self, request: &TurnRequest, turn: &TurnId, now: Instant) -> Found {
        let visible = visible(&request.messages);
        let hashes: Vec<Hash> = visible.iter().map(hash).collect();
        let (key, prefix) = self.find(request, turn, &visible, &hashes);
        let derived = prefix.is_some();
        if let (Some(prefix), false) = (&prefix, self.sessions.contains_key(&key)) {
            self.derived
                .entry(prefix.clone())
                .or_default()
                .push(key.session.clone());
        }
        let session = self
            .sessions
            .entry(key.clone())
            .or_insert_with(|| Session::new(prefix, now));
        session.active = now;
        let matched = session.matches(&visible, &hashes);
        let orphaned = session.passed(&matched);
        let continued = matched
            .iter()
            .filter(|(_, at)| session.turns[*at].open)
            .filter_map(|&(index, at)| {
                let messages: Vec<Message> = visible[index + 1..]
                    .iter()
                    .take_while(|m| m.role != Role::Assistant)
                    .cloned()
                    .collect();
                let turn = session.turns[at].id.clone();
                (!messages.is_empty()).then_some(Continued { turn, messages })
            })
            .collect();
        let parent = matched.last().map(|&(_, at)| session.turns[at].id.clone());
        Found {
            key,
            derived,
            parent,
            continued,
            orphaned,
        }
    }

    /// Adds a turn that was served. It waits for its next state when `open`.
    pub fn served(&mut self, key: &str, derived: bool, turn: &Turn, open: bool, now: Instant) {
        let visible = visible(&turn.messages);
        let hashes: Vec<Hash> = visible.iter().map(hash).collect();
        let at = SessionKey {
            tenant: turn.tenant.clone(),
            session: turn.session.clone(),
        };
        let prefix = derived.then(|| prefix_of(&turn.tenant, key, &visible, &hashes));
        if let (Some(prefix), false) = (&prefix, self.sessions.contains_key(&at)) {
            self.derived
                .entry(prefix.clone())
                .or_default()
                .push(at.session.clone());
        }
        let session = self
            .sessions
            .entry(at)
            .or_insert_with(|| Session::new(prefix, now));
        session.active = now;
        session.add(turn, &hashes, open);
    }

    /// A turn that waits no longer.
    pub fn closed(&mut self, key: &SessionKey, turn: &TurnId) {
        let turns = self.sessions.get_mut(key).map(|session| &mut session.turns);
        if let Some(entry) = turns.into_iter().flatten().find(|entry| entry.id == *turn) {
            entry.open = false;
        }
    }

    /// Forgets every conversation that holds one of these turns: what comes later in it is a new one.
    pub fn forget(&mut self, turns: &[TurnId]) {
        let gone: HashSet<&TurnId> = turns.iter().collect();
        let hit = |session: &Session| session.turns.iter().any(|turn| gone.contains(&turn.id));
        let keys = self.sessions.iter().filter(|(_, session)| hit(session));
        let keys: Vec<SessionKey> = keys.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.end(&key);
        }
    }

    /// Ends a session and forgets it; the turns that still waited, each with the reason why it waits no longer.
    pub fn end(&mut self, key: &SessionKey) -> Vec<(TurnId, NotTrainable)> {
        let Some(session) = self.sessions.remove(key) else {
            return Vec::new();
        };
        if let Some(prefix) = &session.derived
            && let Some(ids) = self.derived.get_mut(prefix)
        {
            ids.retain(|id| *id != key.session);
            if ids.is_empty() {
                self.derived.remove(prefix);
            }
        }
        session.waiting()
    }

    /// Forgets a session in which no turn waits.
    pub fn forget_if_finished(&mut self, key: &SessionKey) {
        if self
            .sessions
            .get(key)
            .is_some_and(|session| session.turns.iter().all(|turn| !turn.open))
        {
            self.end(key);
        }
    }

    /// Forgets every session in which no turn waits.
    pub fn forget_finished(&mut self) {
        let keys: Vec<SessionKey> = self.sessions.keys().cloned().collect();
        for key in keys {
            self.forget_if_finished(&key);
        }
    }

    /// The sessions that nobody has used for `idle`, and those that outgrew their bounds; `busy` ones are left alone.
    pub fn expired(
        &self,
        now: Instant,
        idle: Duration,
        most: usize,
        busy: &HashSet<SessionKey>,
    ) -> Vec<SessionKey> {
        let mut resting: Vec<_> = self
            .sessions
            .iter()
            .filter(|(key, _)| !busy.contains(*key))
            .collect();
        resting.sort_by_key(|(_, session)| session.active);
        let surplus = self.sessions.len().saturating_sub(most);
        resting
            .into_iter()
            .enumerate()
            .filter(|(rank, (_, session))| {
                *rank < surplus
                    || now.duration_since(session.active) >= idle
                    || session.nodes.len() > MAX_NODES
            })
            .map(|(_, (key, _))| key.clone())
            .collect()
    }

    /// How many sessions are going on.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    fn find(
        &self,
        request: &TurnRequest,
        turn: &TurnId,
        visible: &[Message],
        hashes: &[Hash],
    ) -> (SessionKey, Option<Prefix>) {
        let tenant = request.tenant.clone();
        if let Some(session) = &request.session {
            return (
                SessionKey {
                    tenant,
                    session: session.clone(),
                },
                None,
            );
        }
        let prefix = prefix_of(&tenant, &request.key, visible, hashes);
        let known = self.derived.get(&prefix).into_iter().flatten().rev();
        let session = known
            .map(|session| SessionKey {
                tenant: tenant.clone(),
                session: session.clone(),
            })
            .find(|key| {
                self.sessions
                    .get(key)
                    .is_some_and(|s| !s.matches(visible, hashes).is_empty())
            });
        let key = session.unwrap_or_else(|| SessionKey {
            tenant,
            session: SessionId::new(format!("auto-{:016x}-{turn}", prefix.hash >> 64)),
        });
        (key, Some(prefix))
    }
}

impl Session {
    fn new(derived: Option<Prefix>, now: Instant) -> Self {
        Self {
            nodes: Vec::new(),
            children: HashMap::new(),
            turns: Vec::new(),
            by_reply: HashMap::new(),
            derived,
            active: now,
        }
    }

    fn add(&mut self, turn: &Turn, history: &[Hash], open: bool) {
        let reply = hash(&turn.reply);
        let mut at = None;
        for &hash in history.iter().chain([&reply]) {
            at = Some(*self.children.entry((at, hash)).or_insert_with(|| {
                self.nodes.push(Node { parent: at, hash });
                self.nodes.len() - 1
            }));
        }
        let Some(at) = at else { return };
        self.by_reply
            .entry(reply)
            .or_default()
            .push(self.turns.len());
        self.turns.push(Entry {
            id: turn.id.clone(),
            parent: turn.parent.clone(),
            reply: at,
            open,
            main: turn.kind == TurnKind::Main,
        });
    }

    /// The turns whose replies are in this history: (index of the reply, index of the turn), oldest first.
    fn matches(&self, visible: &[Message], hashes: &[Hash]) -> Vec<(usize, usize)> {
        (1..visible.len())
            .filter(|&index| visible[index].role == Role::Assistant)
            .filter_map(|index| {
                let candidates = self.by_reply.get(&hashes[index])?;
                let fits = candidates.iter().copied().filter_map(|at| {
                    let exact = self.follows(self.turns[at].reply, &hashes[..index])?;
                    Some((exact, self.turns[at].open, at))
                });
                // The whole history over a trimmed one, a waiting turn over a closed one, the latest over the rest.
                fits.max().map(|(_, _, at)| (index, at))
            })
            .collect()
    }

    /// Whether `history` is what came before the node `reply`: `Some(true)` all of it, `Some(false)` its end.
    fn follows(&self, reply: usize, history: &[Hash]) -> Option<bool> {
        let mut at = self.nodes[reply].parent;
        for &hash in history.iter().rev() {
            let node = &self.nodes[at?];
            if node.hash != hash {
                return None;
            }
            at = node.parent;
        }
        Some(at.is_none())
    }

    /// Waiting turns whose sibling the conversation went on with: retried or edited away.
    ///
    /// The first turns of a session have no parent to be siblings under: one id may carry several conversations, so
    /// they are left until the session ends.
    fn passed(&self, matched: &[(usize, usize)]) -> Vec<TurnId> {
        let on_line: HashSet<usize> = matched.iter().map(|&(_, at)| at).collect();
        let parents: HashSet<&TurnId> = on_line
            .iter()
            .filter_map(|&at| self.turns[at].parent.as_ref())
            .collect();
        self.turns
            .iter()
            .enumerate()
            .filter(|(at, turn)| {
                turn.open
                    && !on_line.contains(at)
                    && turn
                        .parent
                        .as_ref()
                        .is_some_and(|parent| parents.contains(parent))
            })
            .map(|(_, turn)| turn.id.clone())
            .collect()
    }

    fn waiting(&self) -> Vec<(TurnId, NotTrainable)> {
        let last_main = self.turns.iter().rposition(|turn| turn.main);
        self.turns
            .iter()
            .enumerate()
            .filter(|(_, turn)| turn.open)
            .map(|(at, turn)| {
                let gone_on = last_main.is_some_and(|last| last > at);
                let reason = if gone_on {
                    NotTrainable::Orphaned
                } else {
                    NotTrainable::NoNextState
                };
                (turn.id.clone(), reason)
            })
            .collect()
    }
}

/// A conversation begins with everything up to its first reply.
fn prefix_of(tenant: &TenantId, key: &str, visible: &[Message], hashes: &[Hash]) -> Prefix {
    let end = visible
        .iter()
        .position(|m| m.role == Role::Assistant)
        .unwrap_or(visible.len());
    let mut digest = Sha256::new();
    for hash in &hashes[..end] {
        digest.update(hash.to_le_bytes());
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    Prefix {
        tenant: tenant.clone(),
        key: key.to_owned(),
        hash: u128::from_le_bytes(bytes),
    }
}

#[cfg(test)]
mod tests;
