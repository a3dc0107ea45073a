//! What can happen to a line, each as one group of records: all of it, or nothing.
//!
//! Blobs are durable before the records that name them. On return the line is what reading the ledger again would give.

use std::collections::BTreeMap;

use ledger::{
    Digest, Entry, Seq,
    lineage::{HeadRecord, Origin, RefRecord, VersionRecord},
};
use rl::{PolicyVersion, Proposal, SampleId, Seed, StepMetrics, TurnId};

use super::Line;
use crate::{
    Error, Result,
    guard::Ended,
    records::{
        self, FORGET, FORGOTTEN, Fate, ForgetRecord, ForgottenRecord, GATE, GateRecord, RUN,
        RunRecord, STEP_REFUSED, SpentRecord, StepRefusedRecord, TRIAL, TrialRecord,
    },
    schedule::{Due, Waiting},
};

/// A step that may become a version.
#[derive(Clone, Debug)]
pub struct Step {
    /// What the learner proposes.
    pub proposal: Proposal,
    /// The run's seed.
    pub seed: Seed,
    /// What the gate found, when it was asked. A version that did not pass is kept and not served.
    pub gate: Option<(bool, serde_json::Value)>,
    /// When it did not: so many versions before the live one no longer answer either.
    pub back: usize,
    /// When it passed: the share of the sessions that get it first; `None` makes it live for all at once.
    pub share: Option<f64>,
}

/// Weights from outside.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The adapter's bytes.
    pub adapter: Vec<u8>,
    /// The optimizer state's bytes; training from it starts with these.
    pub optimizer: Vec<u8>,
    /// The digest of the adapter's weights.
    pub adapter_digest: String,
    /// Where from, in words.
    pub from: String,
}

impl Line {
    /// Records the settings, when they are other ones than before.
    ///
    /// # Errors
    /// The ledger's.
    pub fn begin_run(&mut self, mut run: RunRecord) -> Result<()> {
        run.through = self.run.as_ref().map_or(Seq::ZERO, |known| known.through);
        if self.run.as_ref() == Some(&run) || ledger::mutant::on("run-not-recorded") {
            return Ok(());
        }
        run.through = self.schedule.through();
        let entry = records::encode(RUN, self.adapter.as_str(), &run)?;
        self.write(vec![entry], "record the run's settings")?;
        self.apply_run(run);
        Ok(())
    }

    /// A step becomes a version; it is live, or on trial, when the gate lets it pass. The end of its samples is in the same group.
    ///
    /// # Errors
    /// The ledger's.
    pub fn commit(&mut self, due: &Due, step: Step) -> Result<VersionRecord> {
        let (version, mut entries) = self.step_entries(due, &step, Origin::Trained)?;
        let number = PolicyVersion::new(version.version);
        let passed = step.gate.as_ref().is_none_or(|(passed, _)| *passed);
        let fate = if passed {
            Fate::Trained(number)
        } else {
            Fate::Held(number)
        };
        for waiting in &due.samples {
            if !ledger::mutant::on("end-of-samples-not-recorded") {
                entries.push(spent(waiting, fate)?);
            }
        }
        let live = passed || ledger::mutant::on("held-version-answers");
        let share = step
            .share
            .filter(|_| !ledger::mutant::on("trial-is-for-all"));
        let why = if share.is_some() {
            "on trial"
        } else {
            "trained"
        };
        // Every examination on the way is read for it: only when it is asked for.
        let older = match step.back {
            0 => None,
            back => self.strides().get(back).map(|(older, _)| *older),
        };
        let head = match older {
            _ if live => Some(HeadRecord {
                share,
                ..self.head_record(number, why)
            }),
            Some(older) => {
                let live = self.version();
                let why =
                    format!("retreat: the gate held {number}, and {live} says nearly the same");
                Some(self.head_record(older, &why))
            }
            None => None,
        };
        self.finish(version, (step.gate, step.back), head, entries)
    }

    /// A trial is over; gives the version that answers, or would have.
    ///
    /// # Errors
    /// [`Error::NoVersion`] when its weights are gone; the ledger's.
    pub(crate) fn end_trial(&mut self, ended: Ended) -> Result<VersionRecord> {
        let version = self.whole(ended.version)?.clone();
        let (answers, outcome) = match ended.promoted || ledger::mutant::on("rejected-is-promoted")
        {
            true => (ended.version, "promoted after its trial"),
            false => (self.version(), "not promoted after its trial"),
        };
        let why = format!("{} {outcome}: {}", ended.version, ended.why);
        let trial = TrialRecord {
            adapter: self.adapter.to_string(),
            ended,
        };
        let head = self.head_record(answers, &why);
        let entries = vec![
            records::encode(TRIAL, self.adapter.as_str(), &trial)?,
            head.to_entry()
                .map_err(Error::ledger("train", "write a head"))?,
        ];
        self.write(entries, "record the end of a trial")?;
        self.apply_head(head, self.ledger.durable());
        Ok(version)
    }

    /// A step of a new line that is being derived while another one answers.
    ///
    /// # Errors
    /// The ledger's.
    pub(crate) fn commit_aside(
        &mut self,
        due: &Due,
        step: Step,
        parent: Option<&VersionRecord>,
        forget: &str,
    ) -> Result<VersionRecord> {
        let origin = Origin::Rederived {
            forget: forget.to_owned(),
        };
        let number = self.next_version();
        let (mut version, _) = self.step_entries(due, &step, origin)?;
        version.parent = parent.map(VersionRecord::hash);
        version.steps = Some(parent.map_or(0, VersionRecord::steps) + 1);
        version.version = number.get();
        self.finish(version, (step.gate, step.back), None, Vec::new())
    }

    /// The base model as a version, derived aside.
    pub(crate) fn base_aside(&mut self, forget: &str) -> Result<PolicyVersion> {
        let number = self.next_version();
        let version = VersionRecord {
            version: number.get(),
            adapter: self.adapter.to_string(),
            origin: Origin::Rederived {
                forget: forget.to_owned(),
            },
            through: Some(self.schedule.through().get()),
            steps: Some(0),
            ..VersionRecord::default()
        };
        self.finish(version, (None, 0), None, Vec::new())?;
        Ok(number)
    }

    /// Records a refused step: the version does not move, its samples are over.
    ///
    /// # Errors
    /// The ledger's.
    pub fn refuse(&mut self, due: &Due, why: &str) -> Result<()> {
        let record = StepRefusedRecord {
            parent: self.version(),
            samples: due.samples.iter().map(|w| w.sample.clone()).collect(),
            through: Some(due.through),
            why: why.to_owned(),
            metrics: None,
        };
        let mut entries = vec![records::encode(
            STEP_REFUSED,
            self.adapter.as_str(),
            &record,
        )?];
        for waiting in &due.samples {
            entries.push(spent(waiting, Fate::StepRefused)?);
        }
        self.write(entries, "record a refused step")?;
        self.apply_refused(&record);
        Ok(())
    }

    /// Takes samples out of a batch that is due: the learner's memory is not planned for their length. The others go on waiting.
    ///
    /// # Errors
    /// The ledger's.
    pub fn set_aside(&mut self, due: &Due, samples: &[SampleId]) -> Result<()> {
        let through = due.through;
        let long = due.samples.iter().filter(|w| samples.contains(&w.sample));
        let long = long.map(|w| SpentRecord {
            sample: w.sample.clone(),
            turn: w.turn.clone(),
            fate: Fate::TooLong { through },
        });
        let long: Vec<SpentRecord> = long.collect();
        let entries = long.iter().map(SpentRecord::to_entry);
        self.write(entries.collect::<Result<_>>()?, "set samples aside")?;
        long.into_iter().for_each(|spent| self.spent(spent));
        Ok(())
    }

    /// Records the end of samples that were too old.
    ///
    /// # Errors
    /// The ledger's.
    pub(crate) fn drop_stale(&mut self) -> Result<Vec<Waiting>> {
        let stale = self.take_stale();
        let newest = self.version();
        let entries = stale.iter().map(|w| spent(w, Fate::Stale { newest }));
        let entries = entries.collect::<Result<Vec<_>>>()?;
        if !entries.is_empty() && !ledger::mutant::on("stale-not-recorded") {
            self.write(entries, "record the end of samples")?;
        }
        Ok(stale)
    }

    /// A new version with the weights of an older one, live at once. `to` is `None` for the base model.
    ///
    /// # Errors
    /// [`Error::NoVersion`] when there is no such version or its weights are erased; the ledger's.
    pub fn revert(&mut self, to: PolicyVersion, why: &str) -> Result<VersionRecord> {
        let origin = Origin::Reverted { to: to.get() };
        self.copy(to, origin, why)
    }

    /// A new version with the weights of one that is not live, live at once.
    ///
    /// # Errors
    /// As [`Line::revert`].
    pub fn promote(&mut self, from: PolicyVersion, why: &str) -> Result<VersionRecord> {
        let origin = Origin::Promoted { from: from.get() };
        self.copy(from, origin, why)
    }

    fn copy(&mut self, of: PolicyVersion, origin: Origin, why: &str) -> Result<VersionRecord> {
        let number = self.next_version();
        let mut source = match of {
            PolicyVersion::BASE => VersionRecord::default(),
            of => self.whole(of)?.clone(),
        };
        if ledger::mutant::on("revert-without-optimizer") {
            source.optimizer_blob = None;
        }
        let version = VersionRecord {
            version: number.get(),
            adapter: self.adapter.to_string(),
            parent: self.head.as_ref().map(VersionRecord::hash),
            samples: Vec::new(),
            settings: serde_json::json!({ "learner": source.settings["learner"] }),
            metrics: BTreeMap::new(),
            origin,
            through: Some(self.schedule.through().get()),
            steps: Some(source.steps()),
            adapter_digest: source.fingerprint().map(str::to_owned),
            ..source
        };
        let head = Some(self.head_record(number, why));
        self.finish(version, (None, 0), head, Vec::new())
    }

    /// A new version with weights from outside; live only when it is promoted.
    ///
    /// # Errors
    /// The ledger's.
    pub fn import(&mut self, weights: Imported) -> Result<VersionRecord> {
        let adapter_blob = Some(self.put(&weights.adapter)?);
        let optimizer_blob = Some(self.put(&weights.optimizer)?);
        let version = VersionRecord {
            version: self.next_version().get(),
            adapter: self.adapter.to_string(),
            parent: None,
            adapter_blob,
            optimizer_blob,
            origin: Origin::Imported { from: weights.from },
            through: Some(self.schedule.through().get()),
            steps: Some(0),
            adapter_digest: Some(weights.adapter_digest),
            ..VersionRecord::default()
        };
        self.finish(version, (None, 0), None, Vec::new())
    }

    /// Gives a version a name, moves the name or removes it.
    ///
    /// # Errors
    /// The ledger's.
    pub fn name(&mut self, name: RefRecord) -> Result<()> {
        let entry = name
            .to_entry()
            .map_err(Error::ledger("train", "write a name"))?;
        self.write(vec![entry], "name a version")?;
        self.apply_ref(name);
        Ok(())
    }

    pub(crate) fn begin_forgetting(&mut self, forget: ForgetRecord) -> Result<()> {
        let entry = records::encode(FORGET, self.adapter.as_str(), &forget)?;
        let entry = entry.with_key(format!("{FORGET}/{}", forget.id));
        self.write(vec![entry], "record a request to forget")?;
        self.apply_forget(forget);
        Ok(())
    }

    pub(crate) fn end_forgetting(
        &mut self,
        forgotten: ForgottenRecord,
        names: Vec<RefRecord>,
    ) -> Result<()> {
        let mut entries = Vec::new();
        for name in &names {
            entries.push(
                name.to_entry()
                    .map_err(Error::ledger("train", "write a name"))?,
            );
        }
        let entry = records::encode(FORGOTTEN, self.adapter.as_str(), &forgotten)?;
        entries.push(entry.with_key(format!("{FORGOTTEN}/{}", forgotten.id)));
        let head = (forgotten.after != forgotten.before)
            .then(|| self.head_record(forgotten.after, &format!("forget {}", forgotten.id)));
        if let Some(head) = &head {
            entries.push(
                head.to_entry()
                    .map_err(Error::ledger("train", "write a head"))?,
            );
        }
        self.write(entries, "record what was forgotten")?;
        for name in names {
            self.apply_ref(name);
        }
        self.apply_forgotten(forgotten);
        if let Some(head) = head {
            self.apply_head(head, self.ledger.durable());
        }
        Ok(())
    }

    /// A version whose weights are still there.
    ///
    /// # Errors
    /// [`Error::NoVersion`].
    pub fn whole(&self, version: PolicyVersion) -> Result<&VersionRecord> {
        let refuse = |why| Error::NoVersion { version, why };
        let found = self
            .lineage
            .get(self.adapter.as_str(), version.get())
            .ok_or_else(|| refuse("there is no such version"))?;
        let blobs = [found.adapter_blob, found.optimizer_blob];
        if blobs
            .iter()
            .flatten()
            .all(|digest| self.ledger.has_blob(digest))
        {
            Ok(found)
        } else {
            Err(refuse(
                "its weights were erased when something that it had learned from was forgotten",
            ))
        }
    }

    fn step_entries(
        &self,
        due: &Due,
        step: &Step,
        origin: Origin,
    ) -> Result<(VersionRecord, Vec<Entry>)> {
        let Proposal {
            adapter,
            optimizer,
            adapter_digest,
            metrics,
            settings,
            ..
        } = &step.proposal;
        let version = VersionRecord {
            version: self.next_version().get(),
            adapter: self.adapter.to_string(),
            parent: self.head.as_ref().map(VersionRecord::hash),
            samples: due.samples.iter().map(|w| w.sample.to_string()).collect(),
            seeds: BTreeMap::from([("run".to_owned(), step.seed.get())]),
            settings: serde_json::json!({ "learner": settings, "rules": self.schedule.rules() }),
            metrics: metrics_map(metrics),
            adapter_blob: Some(self.put(adapter)?),
            optimizer_blob: Some(self.put(optimizer)?),
            origin,
            through: Some(due.through.get()),
            steps: Some(self.head.as_ref().map_or(0, VersionRecord::steps) + 1),
            adapter_digest: Some(adapter_digest.clone()),
        };
        Ok((version, Vec::new()))
    }

    fn finish(
        &mut self,
        version: VersionRecord,
        (gate, back): (Option<(bool, serde_json::Value)>, usize),
        head: Option<HeadRecord>,
        more: Vec<Entry>,
    ) -> Result<VersionRecord> {
        let number = PolicyVersion::new(version.version);
        let mut entries = vec![
            version
                .to_entry()
                .map_err(Error::ledger("train", "write a version"))?,
        ];
        let gate = gate.map(|(passed, examination)| GateRecord {
            adapter: self.adapter.to_string(),
            version: number,
            passed,
            examination,
            back,
        });
        if let Some(gate) = &gate {
            let subject = format!("{}:{}", self.adapter, version.version);
            entries.push(records::encode(GATE, &subject, gate)?.sealed());
        }
        entries.extend(more);
        if let Some(head) = &head {
            entries.push(
                head.to_entry()
                    .map_err(Error::ledger("train", "write a head"))?,
            );
        }
        self.write(entries, "commit a version")?;
        self.apply_version(version.clone());
        if let Some(gate) = gate {
            self.apply_gate(gate);
        }
        if let Some(head) = head {
            self.apply_head(head, self.ledger.durable());
        }
        Ok(version)
    }

    fn head_record(&self, version: PolicyVersion, why: &str) -> HeadRecord {
        HeadRecord {
            adapter: self.adapter.to_string(),
            version: version.get(),
            share: None,
            why: why.to_owned(),
        }
    }

    fn put(&self, bytes: &[u8]) -> Result<Digest> {
        self.ledger
            .put_blob(bytes)
            .map_err(Error::ledger("train", "store the next version's weights"))
    }

    fn write(&self, entries: Vec<Entry>, action: &'static str) -> Result<()> {
        self.ledger
            .append_all(entries)
            .wait()
            .map_err(Error::ledger("train", action))?;
        Ok(())
    }
}

fn spent(waiting: &Waiting, fate: Fate) -> Result<Entry> {
    let (sample, turn): (SampleId, TurnId) = (waiting.sample.clone(), waiting.turn.clone());
    SpentRecord { sample, turn, fate }.to_entry()
}

/// Whether a proposal may become a version after `head`.
///
/// # Errors
/// [`rl::Error::Refused`] when it starts from other weights, or a number is not finite.
pub(crate) fn check(proposal: &Proposal, head: PolicyVersion) -> rl::Result<()> {
    let refuse = |why: String| {
        Err(rl::Error::Refused {
            what: "the learner's proposal".to_owned(),
            why,
        })
    };
    if proposal.parent != head {
        return refuse(format!(
            "it starts from {}, the newest is {head}",
            proposal.parent
        ));
    }
    match metrics_map(&proposal.metrics)
        .into_iter()
        .find(|(_, value)| !value.is_finite() && !ledger::mutant::on("nan-committed"))
    {
        Some((name, value)) => refuse(format!("{name} is {value}")),
        None => Ok(()),
    }
}

fn metrics_map(metrics: &StepMetrics) -> BTreeMap<String, f64> {
    let StepMetrics {
        step,
        loss,
        pg_loss,
        kl,
        grad_norm,
        ratio_mean,
        ratio_max,
        clipped,
        mismatched,
        fresh,
        rechecked,
        uncompared,
        tokens,
        samples,
        seconds,
    } = *metrics;
    // Counts in a metrics file stay far below 2^53.
    let count = |n: u64| n as f64;
    [
        ("step", count(step)),
        ("loss", loss),
        ("pg_loss", pg_loss),
        ("kl", kl),
        ("grad_norm", grad_norm),
        ("ratio_mean", ratio_mean),
        ("ratio_max", ratio_max),
        ("clipped", clipped),
        ("mismatched", count(mismatched)),
        ("fresh", count(fresh)),
        ("rechecked", count(rechecked)),
        ("uncompared", count(uncompared)),
        ("tokens", count(tokens)),
        ("samples", count(samples)),
        ("seconds", seconds),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
