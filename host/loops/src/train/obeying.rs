//! What the train loop does when it is told to: moving the head, importing, naming, forgetting.
//!
//! An order is obeyed between two steps; a revert or a promotion also during one, without the learner.

use std::{collections::HashSet, sync::Arc};

use ledger::lineage::VersionRecord;
use rl::{PolicyVersion, Stored};
use tokio::{
    sync::{OwnedMutexGuard, oneshot},
    time::Instant,
};

use super::{Heard, Training, blocking, get};
use crate::{
    Error, Result,
    forget::{self, Forgotten},
    guard::Trip,
    line::Line,
    orders::{Done, Given, Order, Progress},
};

impl Training {
    /// Obeys an order and answers it. Only the ledger's failure is an error here.
    pub(super) async fn obey(&mut self, given: Given, orders: &mut Heard) -> Result<()> {
        let Order::Forget(selector) = given.order else {
            return self.obey_now(given).await;
        };
        let begun = self
            .with_line("planning to forget", move |line| {
                forget::begin(line, &selector)
            })
            .await;
        let done = match begun {
            Ok(()) => self.forget(given.progress, orders).await,
            Err(error) => Err(error),
        };
        match done.transpose() {
            Some(done) => self.answer(given.reply, done.map(|f| Done::Forgotten(Box::new(f)))),
            // Whoever asked hears that the host stops.
            None => Ok(()),
        }
    }

    /// The same with an order that needs no bench: it can be obeyed while something else is waited for.
    pub(super) async fn obey_now(&mut self, given: Given) -> Result<()> {
        let Given {
            order,
            progress,
            reply,
        } = given;
        let done = match order {
            Order::Revert { to, why } => self.switch(move |line| line.revert(to, &why)).await,
            Order::Promote { from, why } => self.switch(move |line| line.promote(from, &why)).await,
            Order::Trip(trip) => self.trip(trip).await,
            Order::EndTrial(ended) => self.end_trial(*ended).await,
            Order::Import(weights) => self
                .with_line("importing", move |line| line.import(*weights))
                .await
                .map(|version| Done::Version(Box::new(version))),
            Order::Name(name) => self
                .with_line("naming a version", move |line| line.name(name))
                .await
                .map(|()| Done::Named),
            // It waits for the end of what is waited for now.
            Order::Forget(_) => {
                let given = Given {
                    order,
                    progress,
                    reply,
                };
                self.later.push_back(given);
                return Ok(());
            }
        };
        self.answer(reply, done)
    }

    fn answer(&self, reply: oneshot::Sender<Result<Done>>, done: Result<Done>) -> Result<()> {
        let fatal = match &done {
            Err(error) if self.parts.ledger.health().is_err() => Some(error.clone()),
            _ => None,
        };
        // Whoever asked may be gone; what was done is in the ledger.
        let _ = reply.send(done);
        fatal.map_or(Ok(()), Err)
    }

    /// Back to what was live before the first version under suspicion, unless another one answers by now.
    async fn trip(&mut self, trip: Trip) -> Result<Done> {
        let Some(to) = before(self.line()?, &trip) else {
            return Ok(Done::Nothing);
        };
        let why = format!(
            "trip: {}: {} ({} bad of {} replies)",
            trip.guard, trip.why, trip.bad_replies, trip.seen
        );
        self.parts.board.tripped();
        self.switch(move |line| line.revert(to, &why)).await
    }

    /// Moves the head to weights that are stored: the record, the swap, then the learner, when it is free.
    async fn switch(
        &mut self,
        change: impl FnOnce(&mut Line) -> Result<VersionRecord> + Send + 'static,
    ) -> Result<Done> {
        let start = Instant::now();
        let version = self.with_line("moving the head", change).await?;
        // From here on the learner holds other weights than the head's, also when something below fails.
        self.strayed = !ledger::mutant::on("revert-leaves-the-learner");
        if !ledger::mutant::on("revert-waits-for-the-step") {
            self.show(&version, true).await?;
        }
        let time = start.elapsed().as_secs_f64();
        self.parts.board.metrics.publish_time.0.observe(time);
        self.parts
            .board
            .committed(PolicyVersion::new(version.version));
        if self.strayed && !self.busy {
            self.restore().await?;
        }
        Ok(Done::Version(Box::new(version)))
    }

    /// Serves a version's weights from now on, without the learner. `back`: what was seen of the live one is no measure.
    pub(super) async fn show(&mut self, version: &VersionRecord, back: bool) -> Result<()> {
        let number = PolicyVersion::new(version.version);
        // Whatever number they had: weights that are still in memory need no bytes.
        let all = self.line()?.lineage().all().iter().rev();
        let same = all.filter(|v| v.adapter == version.adapter);
        let same = same.filter(|v| v.adapter_blob == version.adapter_blob);
        let same: Vec<PolicyVersion> = same.map(|v| PolicyVersion::new(v.version)).collect();
        let (ledger, shelf) = (self.parts.ledger.clone(), self.parts.shelf.clone());
        let blob = version.adapter_blob;
        let expected = version.fingerprint().map(str::to_owned);
        blocking("serving a version", move || -> Result<()> {
            let held = match blob {
                None => shelf.show_as(number, PolicyVersion::BASE),
                Some(_) => same.iter().any(|of| shelf.show_as(number, *of)),
            };
            if held {
                return Ok(());
            }
            let bytes = match blob {
                Some(digest) => get(&ledger, &digest)?,
                None => Vec::new(),
            };
            let stored = Stored {
                bytes: &bytes,
                digest: expected.as_deref(),
            };
            shelf
                .show(number, Some(stored))
                .map_err(Error::seam("train", "serve a version"))
        })
        .await??;
        self.parts.board.trial(None);
        self.parts.board.live(number);
        self.parts.watch.moved(number, back);
        Ok(())
    }

    pub(super) async fn forget_what_was_begun(&mut self, orders: &mut Heard) -> Result<()> {
        if self.line()?.forgetting().is_some() && !ledger::mutant::on("begun-forgetting-dropped") {
            let progress = Arc::new(|_: &str, _, _| {});
            if let Some(forgotten) = self.forget(progress, orders).await? {
                tracing::info!(id = %forgotten.record.id, "a request to forget was finished");
            }
        }
        Ok(())
    }

    /// Finishes the request to forget that the ledger holds; `None` when the host stops first: the next start finishes it.
    async fn forget(
        &mut self,
        progress: Progress,
        orders: &mut Heard,
    ) -> Result<Option<Forgotten>> {
        if let Some(begun) = self.line()?.forgetting() {
            (self.parts.erased)(&begun.turns);
        }
        let told = progress.clone();
        // The text waits for nobody.
        let keys = self
            .with_line("erasing text", move |line| forget::erase(line, &*told))
            .await?;
        let Some(turn) = self.turn(&progress, orders).await? else {
            return Ok(None);
        };
        let bench = self.parts.bench.clone();
        let gate = self.parts.gate.clone();
        let forgotten = self
            .with_line("forgetting", move |line| {
                let _turn = turn;
                forget::finish(line, &bench, &gate, &*progress)
            })
            .await?;
        let forgotten = Forgotten {
            keys: keys + forgotten.keys,
            ..forgotten
        };
        let head = self.line()?.head().cloned();
        let moved = forgotten.record.after != forgotten.record.before;
        if moved && let Some(head) = head {
            self.show(&head, true).await?;
        }
        self.parts.shelf.forget();
        // The shelf has dropped it; when it knew nothing of what was forgotten, it goes on.
        self.try_out().await?;
        (self.parts.forgotten)(&forgotten);
        if moved {
            // The learner still holds weights that knew. It is over all the same: before its next step it is asked again.
            self.strayed = !ledger::mutant::on("forget-leaves-the-learner");
            if let Err(error) = self.restore().await {
                tracing::error!(error = %error.chain(), "the learner could not go on from what is left after forgetting");
            }
        }
        Ok(Some(forgotten))
    }

    /// Waits for whoever computes aside, and obeys orders meanwhile; `None` when the host stops first.
    async fn turn(
        &mut self,
        progress: &Progress,
        orders: &mut Heard,
    ) -> Result<Option<OwnedMutexGuard<()>>> {
        let turn = self.parts.turn.clone();
        if let Ok(free) = turn.clone().try_lock_owned() {
            return Ok(Some(free));
        }
        let why = "an operator's request computes; what is to be forgotten is trained away when it is done";
        tracing::warn!(why, "forgetting waits");
        progress("waiting for another request", 0, 1);
        self.parts.board.training_waits(Some(why.to_owned()));
        let shutdown = self.shutdown.clone();
        let free = async move {
            tokio::select! {
                () = shutdown.wait() => Ok(None),
                free = turn.lock_owned() => Ok(Some(free)),
            }
        };
        let free = self.meanwhile(free, orders).await?;
        self.parts.board.training_waits(None);
        free
    }
}

/// The last version before those under suspicion whose weights are there; `None` when what answers has nothing of what tripped.
/// It may have been made from it: a version can be committed between the trip and its order. Along the weights, not along the
/// heads: what an operator went back from is not where to go, nor is another number of the same weights.
fn before(line: &Line, trip: &Trip) -> Option<PolicyVersion> {
    if !line.is_made_from(trip.version) {
        return None;
    }
    let made_from = line.made_from();
    let number = |v: &VersionRecord| PolicyVersion::new(v.version);
    let suspects = made_from.iter().filter(|v| number(v) >= trip.since);
    let suspects: HashSet<_> = suspects.map(|v| v.adapter_blob).collect();
    let mut trusted = made_from
        .iter()
        .filter(|v| number(v) < trip.since && !suspects.contains(&v.adapter_blob))
        .map(|v| number(v));
    let whole = trusted.find(|number| line.whole(*number).is_ok());
    Some(whole.unwrap_or(PolicyVersion::BASE))
}
