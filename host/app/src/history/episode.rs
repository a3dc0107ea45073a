//! `episode`: what was played or said, turn by turn, with what became of each turn.
//!
//! A hosted episode is a session of the same name, so that live conversations are told by the same code. Nothing here is printed.

use std::collections::{BTreeSet, VecDeque};

use ledger::{Ledger, Seq};
use loops::records::{
    self, CLOSED, ClosedRecord, Closing, EPISODE, EpisodeRecord, Fate, JUDGED, JudgedRecord, SPENT,
    SpentRecord, TURN, TurnRecord,
};
use rl::{FinishReason, Message, TurnId};

use super::records::{describe, turn_of};
use super::response::{EpisodeRow, Told, ToldTurn};
use super::workbench::Workbench;

/// Ids that are named when several begin alike.
const NAMED: usize = 5;

/// The newest episodes, newest first.
pub(crate) fn list(bench: &Workbench, limit: usize) -> anyhow::Result<Vec<EpisodeRow>> {
    let mut newest = VecDeque::new();
    for record in bench.ledger()?.by_kind(EPISODE, Seq::FIRST) {
        let record = record?;
        newest.push_front(row(&records::decode(&record)?, record.at_ms));
        newest.truncate(limit);
    }
    Ok(newest.into())
}

fn row(record: &EpisodeRecord, at_ms: i64) -> EpisodeRow {
    EpisodeRow {
        id: record.episode.to_string(),
        environment: record.environment.clone(),
        task: record.task.to_string(),
        turns: record.turns.len(),
        done: record.done,
        outcome: record.outcome.clone(),
        at_ms,
    }
}

/// An episode or a conversation, by what a person calls it.
pub(crate) fn tell(bench: &Workbench, id: &str) -> anyhow::Result<Told> {
    let ledger = bench.ledger()?;
    if let Some((record, at_ms)) = find(ledger, id)? {
        let turns = told(ledger, &record.turns)?;
        return Ok(Told {
            session: record.session.to_string(),
            episode: Some(row(&record, at_ms)),
            group: group(ledger, &record.turns)?,
            turns,
        });
    }
    let (session, turns) = conversation(ledger, id)?;
    Ok(Told {
        session,
        episode: None,
        group: group(ledger, &turns)?,
        turns: told(ledger, &turns)?,
    })
}

/// The episode of this id, the newest one for `last`, or the only one that begins so.
fn find(ledger: &Ledger, id: &str) -> anyhow::Result<Option<(EpisodeRecord, i64)>> {
    if let Some(record) = ledger.by_key(&records::episode_key(&id.into()))? {
        return Ok(Some((records::decode(&record)?, record.at_ms)));
    }
    let mut found: Vec<(EpisodeRecord, i64)> = Vec::new();
    for record in ledger.by_kind(EPISODE, Seq::FIRST) {
        let record = record?;
        let episode: EpisodeRecord = records::decode(&record)?;
        if id == "last" {
            found.clear();
        } else if !episode.episode.as_str().starts_with(id) {
            continue;
        }
        found.push((episode, record.at_ms));
    }
    if found.len() > 1 {
        let names = found.iter().take(NAMED);
        let names: Vec<&str> = names.map(|(one, _)| one.episode.as_str()).collect();
        let more = if found.len() > NAMED { ", …" } else { "" };
        anyhow::bail!(
            "{} episodes begin with `{id}`: {}{more}",
            found.len(),
            names.join(", ")
        );
    }
    Ok(found.pop())
}

/// The turns of a session on its main line and beside it, by the session's id or that of one of its replies.
fn conversation(ledger: &Ledger, id: &str) -> anyhow::Result<(String, Vec<TurnId>)> {
    let reply = ledger.by_key(&records::turn_key(&turn_of(id).into()))?;
    let (session, tenant) = match reply.filter(|record| !record.erased) {
        Some(record) => {
            let turn = records::decode::<TurnRecord>(&record)?.turn;
            (turn.session, Some(turn.tenant))
        }
        None => (id.into(), None),
    };
    let mut turns = Vec::new();
    let mut tenants = BTreeSet::new();
    for record in ledger.by_kind(TURN, Seq::FIRST) {
        let record = record?;
        if !record.erased {
            let turn = records::decode::<TurnRecord>(&record)?.turn;
            if turn.session == session && tenant.as_ref().is_none_or(|one| *one == turn.tenant) {
                tenants.insert(turn.tenant.to_string());
                turns.push(turn.id);
            }
        }
    }
    // Tenants choose the names of their sessions: what two of them said is never told as one conversation.
    anyhow::ensure!(
        tenants.len() < 2,
        "several tenants have a session `{id}` ({}): give the id of a reply in it instead",
        Vec::from_iter(tenants).join(", ")
    );
    anyhow::ensure!(
        !turns.is_empty(),
        "there is no episode, session or reply `{id}` (or its text was forgotten): `nextstate episode` lists the episodes, \
         `nextstate show` names the sessions that a version learned from"
    );
    Ok((session.to_string(), turns))
}

/// The group that a turn of these was paid with.
fn group(ledger: &Ledger, turns: &[TurnId]) -> anyhow::Result<Option<String>> {
    for turn in turns {
        for record in ledger.by_subject(turn.as_str()) {
            let record = record?;
            if record.kind == JUDGED && !record.erased {
                let judged: JudgedRecord = records::decode(&record)?;
                if let Some(paid) = judged.paid {
                    return Ok(Some(paid.group));
                }
            }
        }
    }
    Ok(None)
}

fn told(ledger: &Ledger, turns: &[TurnId]) -> anyhow::Result<Vec<ToldTurn>> {
    let mut all = Vec::with_capacity(turns.len());
    // All that the turn before was shown, and its reply.
    let mut past: Vec<Message> = Vec::new();
    for turn in turns {
        all.push(one(ledger, turn, &mut past)?);
    }
    Ok(all)
}

fn one(ledger: &Ledger, turn: &TurnId, past: &mut Vec<Message>) -> anyhow::Result<ToldTurn> {
    let mut told = ToldTurn {
        sample: describe(ledger, &format!("sample-{turn}"))?,
        seen: Vec::new(),
        forked: false,
        reply: None,
        cut: false,
        tokens: 0,
        next: None,
        advantage: None,
        trained: None,
        not_trainable: None,
        notes: Vec::new(),
    };
    for record in ledger.by_subject(turn.as_str()) {
        let record = record?;
        if record.erased {
            continue;
        }
        match record.kind.as_str() {
            TURN => {
                let record: TurnRecord = records::decode(&record)?;
                told.not_trainable = record.not_trainable;
                let turn = record.turn;
                let common = common(past, &turn.messages);
                told.forked = common < past.len();
                told.seen = turn.messages[common..].to_vec();
                told.cut = turn.finish == FinishReason::Length;
                told.tokens = turn.response.len();
                told.reply = Some(turn.reply.clone());
                *past = turn.messages;
                past.push(turn.reply);
            }
            CLOSED => match records::decode::<ClosedRecord>(&record)?.closing {
                Closing::Next(next) => told.next = Some(next),
                Closing::Without(why) => told.not_trainable = Some(why),
            },
            JUDGED => {
                let judged: JudgedRecord = records::decode(&record)?;
                told.advantage = judged.paid.and_then(|paid| paid.advantage);
                told.not_trainable = judged.not_trainable;
                told.notes = judged.notes;
            }
            SPENT => match records::decode::<SpentRecord>(&record)?.fate {
                Fate::Trained(version) => told.trained = Some(version.get()),
                Fate::Stale { .. } => told.not_trainable = Some(rl::NotTrainable::Stale),
                Fate::StepRefused => told.not_trainable = Some(rl::NotTrainable::StepRefused),
                Fate::Held(_) => told.not_trainable = Some(rl::NotTrainable::Held),
                Fate::TooLong { .. } => told.not_trainable = Some(rl::NotTrainable::TooLong),
            },
            _ => {}
        }
    }
    Ok(told)
}

/// So many messages are the same at the beginning of both; clients rewrite what the hash leaves out.
fn common(past: &[Message], now: &[Message]) -> usize {
    let pairs = past.iter().zip(now);
    pairs
        .take_while(|(a, b)| a.content_hash() == b.content_hash())
        .count()
}
