//! Staged promotion: a version that the gate let pass answers a share of the sessions first, beside the live one.
//!
//! Which of the two is better is [`crate::guard::Trial`]'s word; here a trial is begun, taken up again after a restart, and its
//! end becomes a record. Nothing is trained meanwhile: what comes next must start from the weights that win.

use std::collections::HashMap;

use rl::{PolicyVersion, Stored, TurnId};

use super::{Training, blocking, get};
use crate::{
    Error, Result,
    guard::{Ended, Trial},
    line::{Line, Staged},
    orders::Done,
    records::{self, JUDGED, JudgedRecord, TURN, TurnRecord},
};

impl Training {
    /// Gives the version on trial its share of the sessions, if there is one.
    pub(super) async fn try_out(&mut self) -> Result<()> {
        let Some(staged) = self.line()?.staged().copied() else {
            self.parts.watch.no_trial();
            self.parts.board.trial(None);
            return Ok(());
        };
        let live = self.line()?.version();
        let (stage, guard) = (self.parts.stage.clone(), self.parts.guard.clone());
        if !self.parts.watch.tries(staged.version) {
            let begun = Trial::new(&stage, &guard, staged.version, live);
            let adapter = self.parts.adapter.clone();
            let trial = self
                .with_line("reading a trial", move |line| {
                    seen(line, staged, begun, &adapter)
                })
                .await?;
            self.parts.watch.trial(trial);
        }
        let stored = self.line()?.whole(staged.version)?.clone();
        let (ledger, shelf) = (self.parts.ledger.clone(), self.parts.shelf.clone());
        blocking("trying a version out", move || {
            let bytes = match &stored.adapter_blob {
                Some(digest) => get(&ledger, digest)?,
                None => Vec::new(),
            };
            let adapter = Stored {
                bytes: &bytes,
                digest: stored.fingerprint(),
            };
            let tried = shelf.try_out(staged.version, Some(adapter), staged.share);
            tried.map_err(Error::seam("train", "try a version out"))
        })
        .await??;
        self.parts.board.trial(Some((staged.version, staged.share)));
        Ok(())
    }

    /// A trial is over: the record, then the swap.
    pub(super) async fn end_trial(&mut self, ended: Ended) -> Result<Done> {
        let ours = |staged: &Staged| staged.version == ended.version;
        if !self.line()?.staged().is_some_and(ours) {
            return Ok(Done::Nothing);
        }
        let (version, promoted, why) = (ended.version, ended.promoted, ended.why.clone());
        let head = self
            .with_line("ending a trial", move |line| line.end_trial(ended))
            .await?;
        self.parts.board.trial(None);
        if !promoted {
            tracing::warn!(%version, %why, "a version was not promoted after its trial: it is kept and not served");
            self.parts.watch.no_trial();
            self.parts.shelf.end_trial();
            return Ok(Done::Nothing);
        }
        tracing::info!(%version, %why, "promoted after its trial");
        // The learner still holds the weights before.
        self.strayed = true;
        self.show(&head, false).await?;
        self.parts.board.committed(version);
        self.restore().await?;
        Ok(Done::Version(Box::new(head)))
    }
}

/// What a trial has seen before this process: it goes on where it was.
fn seen(line: &Line, staged: Staged, mut trial: Trial, adapter: &rl::AdapterName) -> Result<Trial> {
    let mut served: HashMap<TurnId, PolicyVersion> = HashMap::new();
    for record in line.ledger().scan(staged.at.next()) {
        let record = record.map_err(Error::ledger("train", "read the ledger"))?;
        if record.erased {
            continue;
        }
        match record.kind.as_str() {
            TURN => {
                let TurnRecord { turn, .. } = records::decode(&record)?;
                if turn.adapter.as_ref() == Some(adapter) {
                    trial.served(&turn);
                    served.insert(turn.id, turn.version);
                }
            }
            JUDGED => {
                let judged: JudgedRecord = records::decode(&record)?;
                if let (Some(verdict), Some(version)) = (judged.verdict, served.get(&judged.turn)) {
                    trial.judged(*version, verdict.value);
                }
            }
            _ => {}
        }
    }
    Ok(trial)
}
