//! What the serve loop does with one turn: begins it, records it, closes it, and says why it is not trained.
//!
//! The gateway meets this through [`crate::serve::Handle`]. Which turns a request continues is [`crate::session`]'s word.

use std::collections::HashSet;

use ledger::{Entry, Receipt, lineage};
use rl::{
    Classification, Feedback, FinishReason, NotTrainable, RequestView, Served, Ticket, Turn,
    TurnId, TurnKind, TurnRequest,
};
use tokio::time::Instant;

use crate::{
    Error, Result,
    records::{self, CLOSED, ClosedRecord, Closing, FEEDBACK, TurnRecord},
    serve::{Begun, Inner, MAX_CORRECTION, no_reply},
    session::{Continued, SessionKey},
};

/// The end of a turn's wait, and what the environment's plugin stored when it read what came.
pub(crate) struct Ending {
    turn: TurnId,
    closing: Closing,
    stored: Option<Entry>,
}

impl Ending {
    fn new(turn: TurnId, closing: Closing) -> Self {
        let stored = None;
        Self {
            turn,
            closing,
            stored,
        }
    }
}

impl Inner {
    pub(crate) async fn begin(&self, request: TurnRequest) -> Result<Ticket> {
        self.ledger
            .room()
            .map_err(Error::ledger("serve", "begin a turn"))?;
        let turn = self.ids.next();
        let (kind, ends) = self.look(&request).await;
        let found = self.sessions.lock().begin(&request, &turn, Instant::now());
        let ticket = Ticket {
            turn: turn.clone(),
            session: found.key.session.clone(),
            kind,
            parent: found.parent,
        };
        let begun = Begun {
            request,
            key: found.key.clone(),
            derived: found.derived,
            last: ends,
            at: Instant::now(),
        };
        self.begun.lock().insert(turn.clone(), begun);
        // A side request quotes the conversation: what follows the reply in it is the agent's own, nobody's reaction.
        if kind == TurnKind::Main || ledger::mutant::on("side-request-reacts") {
            let mut endings = Vec::new();
            for continued in found.continued {
                endings.extend(self.next_state(continued).await);
            }
            let orphaned = Closing::Without(NotTrainable::Orphaned);
            endings.extend(
                found
                    .orphaned
                    .into_iter()
                    .map(|turn| Ending::new(turn, orphaned.clone())),
            );
            self.close(&found.key, endings, Some(&turn)).await?;
        }
        Ok(ticket)
    }

    pub(crate) async fn finish(&self, ticket: Ticket, served: Served) -> Result<()> {
        let begun = self.begun.lock().remove(&ticket.turn);
        let begun = begun.ok_or_else(|| Error::UnknownTurn {
            turn: ticket.turn.to_string(),
        })?;
        if let Some(at) = served
            .logprobs
            .iter()
            .position(|logprob| !logprob.is_finite() && !ledger::mutant::on("nan-served"))
        {
            return Err(Error::NotFinite {
                turn: ticket.turn.to_string(),
                at,
            });
        }
        let Begun {
            request,
            key,
            derived,
            last,
            ..
        } = begun;
        let turn = Turn {
            id: ticket.turn,
            tenant: request.tenant,
            session: ticket.session,
            user: request.user,
            parent: ticket.parent,
            kind: ticket.kind,
            adapter: request.adapter,
            version: served.version,
            adapter_digest: served.adapter_digest,
            messages: request.messages,
            tools: request.tools,
            prompt: served.prompt,
            response: served.response,
            logprobs: served.logprobs,
            sampling: served.sampling,
            reply: served.reply,
            finish: served.finish,
        };
        let mut not_trainable = self.not_trainable(&turn);
        if self.answered_by_others(&turn).await? {
            not_trainable = not_trainable.or(Some(NotTrainable::OtherWeights));
        }
        let record = TurnRecord {
            turn,
            key: request.key,
            derived,
            not_trainable,
        };
        self.append(vec![record.to_entry()?], "record a turn")
            .await?;
        let TurnRecord {
            turn, key: api_key, ..
        } = &record;
        tracing::debug!(turn = %turn.id, session = %turn.session, kind = ?turn.kind, "recorded");
        self.board.turn(turn.kind, not_trainable);
        self.watch.served(turn);
        if turn.kind == TurnKind::Main {
            let open = not_trainable.is_none();
            self.sessions
                .lock()
                .served(api_key, derived, turn, open, Instant::now());
        }
        if last {
            self.end_session(&key).await?;
        }
        Ok(())
    }

    pub(crate) async fn feedback(&self, feedback: Feedback) -> Result<()> {
        if let Some(correction) = &feedback.correction
            && correction.chars().count() > MAX_CORRECTION
        {
            return Err(Error::Config {
                key: "correction",
                value: format!("{} characters long", correction.chars().count()),
                allowed: "at most 2000 are allowed",
            });
        }
        let record = self.load(&feedback.turn).await?;
        let record = record
            .filter(|record| {
                record.turn.tenant == feedback.tenant || ledger::mutant::on("feedback-of-anybody")
            })
            .ok_or_else(|| no_reply(&feedback.turn))?;
        let entry = records::encode(FEEDBACK, feedback.turn.as_str(), &feedback)?.sealed();
        let receipts = match self.append(vec![entry], "record feedback").await {
            Err(error) if error.is_erased() => return Err(no_reply(&feedback.turn)),
            appended => appended?,
        };
        self.board.feedback();
        if record.not_trainable.is_none() {
            let work = receipts.first().map(|receipt| (FEEDBACK, receipt.seq));
            work.into_iter()
                .for_each(|work| self.board.judge.added(work));
        }
        Ok(())
    }

    /// Main or side, and whether the session ends. A plugin that fails leaves the turn undecided, and serving goes on.
    pub(crate) async fn look(&self, request: &TurnRequest) -> (TurnKind, bool) {
        let environment = self.environment.clone();
        let (messages, tools) = (request.messages.clone(), request.tools.clone());
        let asked = request.kind;
        let looked = self.caller.call("the environment plugin", move |_| {
            let view = RequestView {
                messages: &messages,
                tools: &tools,
            };
            let kind = match asked {
                Some(kind) => kind,
                None => match environment.classify(view)? {
                    Classification::Main => TurnKind::Main,
                    Classification::Side => TurnKind::Side,
                    Classification::Unknown => TurnKind::Unclassified,
                },
            };
            Ok((kind, environment.session_ends(&messages)?))
        });
        match looked.await {
            Ok((kind, ends)) => (kind, ends || request.session_done),
            Err(error) => {
                tracing::warn!(%error, "the environment plugin could not classify a request");
                self.board.plugin_failed("classify");
                (
                    asked.unwrap_or(TurnKind::Unclassified),
                    request.session_done,
                )
            }
        }
    }

    /// The next state in what came back; none when it was synthetic only, or the plugin failed: the turn goes on waiting.
    pub(crate) async fn next_state(&self, continued: Continued) -> Option<Ending> {
        let Continued { turn, messages } = continued;
        let record = match self.load(&turn).await {
            Ok(Some(record)) => record,
            Ok(None) => return None,
            Err(error) => {
                tracing::warn!(%turn, error = %error.chain(), "a turn could not be read back");
                return None;
            }
        };
        let environment = self.environment.clone();
        let store = self.stores.of_turn(&record.turn.tenant, &turn);
        let read = move |_: &_| {
            let next = environment.next_state_with(&record.turn, &messages, &store)?;
            // Nothing came yet: the turn goes on waiting, and what was stored for it is nothing either.
            let Some(next) = next else { return Ok(None) };
            Ok(Some((next, store.leave()?)))
        };
        match self.caller.call("the environment plugin", read).await {
            Ok(next) => next.map(|(next, stored)| Ending {
                turn,
                closing: Closing::Next(next),
                stored,
            }),
            Err(error) => {
                tracing::warn!(%turn, %error, "the environment plugin could not read a next state");
                self.board.plugin_failed("next-state");
                None
            }
        }
    }

    /// Records closings, each turn's first one only.
    pub(crate) async fn close(
        &self,
        key: &SessionKey,
        endings: Vec<Ending>,
        by: Option<&TurnId>,
    ) -> Result<()> {
        let mut closed: Vec<(ClosedRecord, Option<Entry>)> = endings
            .into_iter()
            .map(|ending| {
                let record = ClosedRecord {
                    turn: ending.turn,
                    closing: ending.closing,
                    by: by.cloned(),
                };
                (record, ending.stored)
            })
            .collect();
        let receipts = loop {
            if closed.is_empty() {
                return Ok(());
            }
            let mut entries = closed
                .iter()
                .map(|(record, _)| record.to_entry())
                .collect::<Result<Vec<_>>>()?;
            entries.extend(closed.iter().filter_map(|(_, stored)| stored.clone()));
            match self.append(entries, "record a next state").await {
                // Forgotten since it was found: the others end all the same.
                Err(error)
                    if closed
                        .iter()
                        .any(|(c, _)| error.erased() == Some(c.turn.as_str())) =>
                {
                    closed.retain(|(c, _)| error.erased() != Some(c.turn.as_str()));
                }
                appended => break appended?,
            }
        };
        for ((record, _), Receipt { seq, fresh }) in closed.iter().zip(receipts) {
            self.sessions.lock().closed(key, &record.turn);
            if fresh {
                let judged = match record.closing {
                    Closing::Next(_) => false,
                    Closing::Without(_) => self.was_judged(&record.turn).await?,
                };
                self.board.closed(&record.closing, judged);
            }
            if fresh && matches!(record.closing, Closing::Next(_)) {
                self.board.judge.added((CLOSED, seq));
            }
        }
        Ok(())
    }

    pub(crate) async fn end_session(&self, key: &SessionKey) -> Result<()> {
        let waiting = self.sessions.lock().end(key);
        let endings = waiting
            .into_iter()
            .map(|(turn, reason)| Ending::new(turn, Closing::Without(reason)))
            .collect();
        self.close(key, endings, None).await
    }

    pub(crate) async fn sweep(&self) -> Result<()> {
        let now = Instant::now();
        let busy: HashSet<SessionKey> = {
            let mut begun = self.begun.lock();
            begun.retain(|_, b| now.duration_since(b.at) < self.config.abandoned_after);
            begun.values().map(|b| b.key.clone()).collect()
        };
        let expired = {
            let sessions = self.sessions.lock();
            sessions.expired(
                now,
                self.config.idle_timeout,
                self.config.max_sessions,
                &busy,
            )
        };
        for key in expired {
            tracing::debug!(session = %key.session, "a session went idle");
            self.end_session(&key).await?;
        }
        let sessions = self.sessions.lock().len();
        self.board
            .metrics
            .sessions
            .set(i64::try_from(sessions).unwrap_or(i64::MAX));
        Ok(())
    }

    fn not_trainable(&self, turn: &Turn) -> Option<NotTrainable> {
        match (turn.kind, &turn.adapter) {
            (TurnKind::Side, _) => Some(NotTrainable::Side),
            (TurnKind::Unclassified, _) => Some(NotTrainable::Unclassified),
            (TurnKind::Main, None) => Some(NotTrainable::BaseWeights),
            (TurnKind::Main, Some(adapter)) if !self.trained.contains(adapter) => {
                Some(NotTrainable::StaticAdapter)
            }
            _ if turn.finish == FinishReason::Cancelled => Some(NotTrainable::Cancelled),
            _ if turn.response.is_empty() => Some(NotTrainable::Empty),
            _ => None,
        }
    }

    /// Compares the fingerprint that a reply carries with the one that the ledger has for its version.
    ///
    /// Only the base has none: a reply of another version without one says that other weights answered, or nothing at all, and what nobody
    /// can check is not trained either.
    async fn answered_by_others(&self, turn: &Turn) -> Result<bool> {
        let Some(adapter) = turn.adapter.as_ref().filter(|a| self.trained.contains(*a)) else {
            return Ok(false);
        };
        let known = self.fingerprints.get(adapter, turn.version);
        let expected = match known {
            Some(known) => Some(known),
            None => {
                let key = lineage::version_key(adapter.as_str(), turn.version.get());
                let record = self.by_key(key).await?;
                let found = self
                    .fingerprints
                    .learn(adapter, turn.version, record.as_ref());
                found.map_err(Error::ledger("serve", "read a version"))?
            }
        };
        let carried = turn.adapter_digest.as_str();
        let outcome = match carried {
            _ if expected.as_deref() == Some(carried) => "same",
            "" => "none",
            _ => "other",
        };
        self.board.fingerprint(outcome);
        let other = outcome != "same";
        if other {
            tracing::error!(
                turn = %turn.id, %adapter, version = %turn.version, carried, ?expected,
                "other weights answered than the ledger has for their version; the turn is not trained"
            );
        }
        Ok(other)
    }

    /// Appends, and says of each entry where it is, and whether it is new.
    pub(crate) async fn append(
        &self,
        entries: Vec<Entry>,
        action: &'static str,
    ) -> Result<Vec<Receipt>> {
        let appended = self.ledger.append_all(entries).await;
        appended.map_err(Error::ledger("serve", action))
    }

    pub(crate) async fn load(&self, turn: &TurnId) -> Result<Option<TurnRecord>> {
        match self.by_key(records::turn_key(turn)).await? {
            // Forgotten: nobody has ever been told that it was there.
            Some(record) if record.erased => Ok(None),
            Some(record) => records::decode(&record).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) async fn was_judged(&self, turn: &TurnId) -> Result<bool> {
        let key = format!("{}/{turn}/0", records::JUDGED);
        Ok(self.by_key(key).await?.is_some())
    }

    pub(crate) async fn by_key(&self, key: String) -> Result<Option<ledger::Record>> {
        let ledger = self.ledger.clone();
        tokio::task::spawn_blocking(move || ledger.by_key(&key))
            .await
            .map_err(|_| Error::Panicked {
                what: "reading the ledger".to_owned(),
            })?
            .map_err(Error::ledger("serve", "read a record"))
    }
}
