//! What a selector means: the turns, and what goes with them because it was made of them.
//!
//! First whoever said it; then, until nothing more follows: attempts that were paid together, and episodes and turns that read what
//! one of these had stored. Reads only; what becomes of them is [`super`]'s.

use std::collections::{HashMap, HashSet};

use ledger::{Ledger, Record, Seq};
use rl::{EpisodeId, SessionId, TenantId, Turn, TurnId};

use super::Selector;
use crate::{
    Error, Result,
    history::{hash, visible},
    records::{
        self, ACTION, ActionRecord, EPISODE, EpisodeRecord, FORGET, ForgetRecord, OPENED,
        OpenedRecord, PAID, PaidRecord, STORED, StoredRecord, TURN, TurnRecord,
    },
};

/// The turns that a selector means, and the episodes that go with them.
pub(super) fn find(
    ledger: &Ledger,
    selector: &Selector,
    already: &[TurnId],
) -> Result<(Vec<TurnId>, Vec<String>)> {
    let mut said = Said::default();
    let mut made = Made::default();
    let mut before = HashSet::new();
    for record in ledger.scan(Seq::FIRST) {
        let record = record.map_err(Error::ledger("train", "read the ledger"))?;
        if record.erased {
            // Who was under way when it went may have read it, and is found now.
            if record.kind == STORED {
                before.insert(record.seq);
            }
            continue;
        }
        match record.kind.as_str() {
            TURN => said.turn(selector, records::decode(&record)?),
            FORGET => said
                .episodes
                .extend(records::decode::<ForgetRecord>(&record)?.subjects),
            _ => made.hear(&record)?,
        }
    }
    if said.chosen.is_empty() {
        return Err(Error::NothingToForget);
    }
    let mut gone = Gone {
        turns: said.chosen.into_iter().chain(said.late).collect(),
        episodes: HashSet::new(),
        stored: before,
    };
    while made.follow(&mut gone) {}
    let already: HashSet<&TurnId> = already.iter().collect();
    let new = |turn: &TurnId| gone.turns.contains(turn) && !already.contains(turn);
    let turns: Vec<TurnId> = said.order.into_iter().filter(new).collect();
    if turns.is_empty() {
        return Err(Error::NothingToForget);
    }
    let mut episodes: Vec<String> = gone.episodes.iter().map(ToString::to_string).collect();
    episodes.sort();
    Ok((turns, episodes))
}

/// Turns, and those that the selector itself means.
#[derive(Default)]
struct Said {
    order: Vec<TurnId>,
    chosen: HashSet<TurnId>,
    quotable: Vec<Quotable>,
    /// Hosted episodes that went before, and turns of theirs that were under way then: their prompts may show what was forgotten.
    episodes: HashSet<String>,
    late: Vec<TurnId>,
}

impl Said {
    fn turn(&mut self, selector: &Selector, record: TurnRecord) {
        let TurnRecord {
            turn, key, derived, ..
        } = record;
        let of =
            |tenant: &Option<TenantId>| tenant.as_ref().is_none_or(|tenant| *tenant == turn.tenant);
        let hit = match selector {
            Selector::User { tenant, user } => {
                of(tenant) && turn.user.as_deref().unwrap_or(&key) == user
            }
            Selector::Session { tenant, session } => of(tenant) && turn.session == *session,
            Selector::Tenant(tenant) => turn.tenant == *tenant,
            Selector::Sample(sample) => {
                let parent = turn.parent.as_ref();
                let hit = format!("sample-{}", turn.id) == sample.as_str()
                    || parent.is_some_and(|parent| self.chosen.contains(parent))
                    || self
                        .quotable
                        .iter()
                        .any(|q| q.is_quoted_by(&turn, &key, derived));
                if hit {
                    self.quotable.push(Quotable::new(&turn, &key, derived));
                }
                hit
            }
        };
        if hit {
            self.chosen.insert(turn.id.clone());
        }
        if self.episodes.contains(turn.session.as_str()) && follows_reads() {
            self.late.push(turn.id.clone());
        }
        self.order.push(turn.id);
    }
}

/// What goes so far.
struct Gone {
    turns: HashSet<TurnId>,
    episodes: HashSet<EpisodeId>,
    /// Records of what they stored.
    stored: HashSet<Seq>,
}

/// What was made of what.
#[derive(Default)]
struct Made {
    episodes: HashMap<EpisodeId, Episode>,
    paid: Vec<Vec<TurnId>>,
    stored: Vec<Stored>,
    /// Where the first episode of a group looked at its store.
    groups: HashMap<String, Seq>,
}

#[derive(Default)]
struct Episode {
    turns: Vec<TurnId>,
    ended: bool,
    /// Its store, as of a place.
    opened: Option<(Seq, OpenedRecord)>,
}

struct Stored {
    seq: Seq,
    /// The episode or turn.
    subject: String,
    record: StoredRecord,
}

impl Made {
    fn hear(&mut self, record: &Record) -> Result<()> {
        match record.kind.as_str() {
            PAID => {
                let group: PaidRecord = records::decode(record)?;
                let turns = group.attempts.into_iter().flat_map(|one| one.turns);
                self.paid.push(turns.collect());
            }
            ACTION => {
                let action: ActionRecord = records::decode(record)?;
                let episode = self.episodes.entry(action.episode).or_default();
                episode.turns.push(action.turn);
            }
            EPISODE => {
                let record: EpisodeRecord = records::decode(record)?;
                let episode = self.episodes.entry(record.episode).or_default();
                (episode.turns, episode.ended) = (record.turns, true);
            }
            OPENED => {
                let opened: OpenedRecord = records::decode(record)?;
                let first = self.groups.entry(opened.group.clone());
                let place = *first.or_insert(record.seq);
                let episode = self.episodes.entry(opened.episode.clone()).or_default();
                episode.opened = Some((place, opened));
            }
            STORED => self.stored.push(Stored {
                seq: record.seq,
                subject: record.subject.clone(),
                record: records::decode(record)?,
            }),
            _ => {}
        }
        Ok(())
    }

    /// Adds what follows from what is gone; whether anything did.
    fn follow(&self, gone: &mut Gone) -> bool {
        let size = |gone: &Gone| (gone.turns.len(), gone.episodes.len(), gone.stored.len());
        let before = size(gone);
        for turns in &self.paid {
            // The rewards of a group are about all of its attempts: who forgets one forgets what was made of the others.
            if turns.iter().any(|turn| gone.turns.contains(turn)) {
                gone.turns.extend(turns.iter().cloned());
            }
        }
        for (name, episode) in &self.episodes {
            if episode.turns.iter().any(|turn| gone.turns.contains(turn)) {
                gone.episodes.insert(name.clone());
            } else if self.may_know(episode, gone) {
                gone.take(name, episode);
            }
        }
        for stored in &self.stored {
            let subject = stored.subject.as_str();
            let (turn, episode) = (TurnId::new(subject), EpisodeId::new(subject));
            let mut read = stored.record.read.iter();
            if read.any(|seq| gone.stored.contains(seq)) && follows_reads() {
                match self.episodes.get(&episode) {
                    Some(played) => gone.take(&episode, played),
                    None => drop(gone.turns.insert(turn.clone())),
                }
            }
            if gone.turns.contains(&turn) || gone.episodes.contains(&episode) {
                gone.stored.insert(stored.seq);
            }
        }
        before != size(gone)
    }

    /// Whether an episode that is not over may have read something of it: what it read is recorded at its end.
    fn may_know(&self, episode: &Episode, gone: &Gone) -> bool {
        let Some((place, opened)) = episode.opened.as_ref().filter(|_| !episode.ended) else {
            return false;
        };
        let theirs = |stored: &&Stored| {
            stored.seq < *place
                && stored.record.tenant == opened.tenant
                && stored.record.plugin == opened.plugin
        };
        let mut seen = self.stored.iter().filter(theirs);
        seen.any(|stored| gone.stored.contains(&stored.seq)) && follows_reads()
    }
}

fn follows_reads() -> bool {
    !ledger::mutant::on("store-hands-on-what-is-forgotten")
}

impl Gone {
    /// A whole episode: whatever it showed may hold what it read.
    fn take(&mut self, name: &EpisodeId, episode: &Episode) {
        self.episodes.insert(name.clone());
        self.turns.extend(episode.turns.iter().cloned());
    }
}

/// A turn as a later request of its conversation shows it. A conversation that went idle, or of which something was forgotten,
/// has no parents any more: its history says what it goes on from.
struct Quotable {
    tenant: TenantId,
    user: Option<String>,
    /// The session that the client named, or the key of one that is derived from its conversation.
    place: std::result::Result<SessionId, String>,
    history: Vec<u128>,
    reply: u128,
}

impl Quotable {
    fn new(turn: &Turn, key: &str, derived: bool) -> Self {
        Self {
            tenant: turn.tenant.clone(),
            user: turn.user.clone(),
            place: place(turn, key, derived),
            history: visible(&turn.messages).iter().map(hash).collect(),
            reply: hash(&turn.reply),
        }
    }

    fn is_quoted_by(&self, turn: &Turn, key: &str, derived: bool) -> bool {
        if self.tenant != turn.tenant
            || self.user != turn.user
            || self.place != place(turn, key, derived)
        {
            return false;
        }
        let shown: Vec<u128> = visible(&turn.messages).iter().map(hash).collect();
        let replies = shown.iter().enumerate().filter(|(_, h)| **h == self.reply);
        // The oldest messages may be missing.
        let mut before = replies.map(|(at, _)| &shown[..at]);
        before.any(|before| self.history.ends_with(before))
    }
}

fn place(turn: &Turn, key: &str, derived: bool) -> std::result::Result<SessionId, String> {
    if derived {
        return Err(key.to_owned());
    }
    Ok(turn.session.clone())
}
